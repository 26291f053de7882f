//! A stage for scripts: real [`Machine`]s, and a director who decides what arrives, what is lost and when time passes.
//!
//! Messages wait in the network until the script delivers them. Each node has a clock of its own, which moves only when
//! the script lets that node wait; time means nothing between nodes. A node's records are synced at the end of its turn
//! unless the script holds its disk back. Nothing here is drawn by chance: one script, one play.
//!
//! * [`commands`]: the lines of a script, read and carried out. [`words`]: what is shown of all this. [`snapshots`]: the
//!   files of snapshots, and their way between nodes.

pub(crate) mod commands;
mod snapshots;
mod words;

use crate::disk::Disk;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use synod::kv::{Answer, Done, Op, SessionRef};
use synod::machine::{Effect, Input, Machine, RequestId, Settings};
use synod::paxos::{Incarnation, Message, NodeId, Slot, Start};
use synod::storage::sim::SimDisk;
use synod::time::{Boottime, Time};
use synod::wire::{Outcome, Record, Reply, Request, RequestOp, Served};
use words::Line;

/// The script's one client; each of its requests is a connection's request of its own.
const CLIENT: u64 = 1;
/// A play that still sends after so many rounds of delivery will not end.
const ROUNDS_MAX: usize = 200;

/// One node: its machine while it runs, its disk, its clock.
struct Node {
    machine: Option<Machine>,
    settings: Settings,
    now: Time,
    /// So long its machine slept: the clock that counts suspension is ahead by it.
    slept: Duration,
    disk: Disk,
    /// Its snapshots.
    files: SimDisk,
    /// Appended in this life and not synced yet.
    pending: Vec<Record>,
    /// How many records of this life were synced.
    synced: u64,
    /// The script holds the disk back: nothing is synced until it says so.
    holds_sync: bool,
    /// The last slot that was shown as applied.
    shown_applied: Slot,
}

/// A message under way.
struct Letter {
    from: NodeId,
    to: NodeId,
    kind: &'static str,
    input: Input,
    /// Its receiver has it, and has not looked at it yet: the end of its sender does not take it away.
    has_come: bool,
}

/// What a play shows beside messages, notes, answers and what is applied.
#[derive(Default)]
struct Shown {
    heartbeats: bool,
    records: bool,
    founding: bool,
}

/// The stage of one script.
#[derive(Default)]
pub(crate) struct Stage {
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<Letter>,
    /// Directed pairs between which everything is lost.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Who has dialled whom.
    links: BTreeSet<(NodeId, NodeId)>,
    /// What a node's next turn begins with: what it read from its disk, and that it closed a link.
    next_inputs: VecDeque<(NodeId, Input)>,
    session: SessionRef,
    /// What the client asked, by request id.
    asked: Vec<Request>,
    numbers: u64,
    /// Starts of all nodes so far: no two share a token.
    starts: u64,
    /// Copies of data directories.
    saved: BTreeMap<NodeId, (Settings, Vec<Record>)>,
    shown: Shown,
    is_quiet: bool,
    lines: Vec<Line>,
}

impl Stage {
    /// What was shown since the last call.
    fn take_lines(&mut self) -> Vec<String> {
        self.lines.drain(..).map(|line| line.to_string()).collect()
    }

    fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.machine.is_some())
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    fn say(&mut self, line: String) {
        self.show(Line::Told(line));
    }

    fn show(&mut self, line: Line) {
        if !self.is_quiet {
            self.lines.push(line);
        }
    }

    /// A node that was never started.
    fn add(&mut self, settings: Settings) {
        let node = Node {
            machine: None,
            now: Time::from_millis(1),
            slept: Duration::ZERO,
            disk: Disk::default(),
            files: SimDisk::new(1),
            pending: Vec::new(),
            synced: 0,
            holds_sync: false,
            shown_applied: Slot::ZERO,
            settings,
        };
        self.nodes.insert(node.settings.node, node);
    }

    /// Starts a node on what its disk holds. It meets nobody yet.
    fn start(&mut self, id: NodeId) {
        self.starts += 1;
        let token = self.starts << 32; // far apart, as those that are drawn
        let node = self.node(id);
        assert!(node.machine.is_none(), "{id} runs already");
        let start = &mut node.settings.start;
        let next = Start {
            counter: start.counter + 1,
            token,
        };
        if start.counter > 0 {
            node.settings.past_starts.push(*start);
        }
        node.settings.start = next;
        let mut machine = Machine::new(node.settings.clone());
        if let Some(state) = self.restored(id) {
            machine.restore(state);
        }
        let node = self.node(id);
        for record in node.disk.records() {
            machine.recover(record.clone()).expect("a script's disk can be applied");
        }
        let mut effects = Vec::new();
        machine.start(node.now, &mut effects);
        node.shown_applied = machine.state().applied();
        (node.machine, node.synced) = (Some(machine), 0);
        self.tell_newest(id);
        self.carry_out(id, effects);
        self.end_turn(id);
    }

    /// The process is gone, with what it had not synced and all that its links held; its peers notice at once.
    fn crash(&mut self, id: NodeId) {
        let node = self.node(id);
        (node.machine, node.holds_sync) = (None, false);
        node.pending.clear();
        self.network
            .retain(|letter| letter.to != id && (letter.from != id || letter.has_come));
        self.next_inputs.retain(|(node, _)| *node != id);
        for peer in self.ids() {
            self.links.remove(&(id, peer));
            if self.links.remove(&(peer, id)) {
                self.turn(peer, vec![Input::LinkDown { peer: id }, Input::Died { peer: id }]);
            }
        }
    }

    /// The data directory is lost; the next start makes a new one.
    fn erase(&mut self, id: NodeId) {
        let node = self.node(id);
        assert!(node.machine.is_none(), "{id} runs");
        (node.disk, node.files) = (Disk::default(), SimDisk::new(1));
        node.settings.past_starts.clear();
        node.settings.start = Start::default();
        node.settings.incarnation = Incarnation {
            generation: 1,
            token: node.settings.incarnation.token + 0x1_0000,
        };
    }

    /// Copies a data directory.
    fn save(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        self.saved
            .insert(id, (node.settings.clone(), node.disk.records().to_vec()));
    }

    /// Puts the copy in the place of the data directory.
    fn restore(&mut self, id: NodeId) {
        let (settings, records) = self.saved[&id].clone();
        self.add(settings);
        records.into_iter().for_each(|record| self.node(id).disk.push(record));
    }

    /// Both dial each other. Who refuses the other's HELLO has been told of it all the same by its own.
    fn meet(&mut self, a: NodeId, b: NodeId) {
        let mut refusals = Vec::new();
        for (from, to) in [(a, b), (b, a)] {
            let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
            if is_cut || self.links.contains(&(from, to)) {
                continue;
            }
            let (Some(dialler), Some(acceptor)) = (&self.nodes[&from].machine, &self.nodes[&to].machine) else {
                continue;
            };
            let (hello, answer) = (dialler.hello_to(Some(to)), acceptor.hello_to(Some(from)));
            let (accepted, met) = (acceptor.check_hello(&hello), dialler.check_hello(&answer));
            if accepted.is_ok() && met.is_ok() {
                self.links.insert((from, to));
            }
            match accepted {
                Ok(()) => {
                    let dialled = true;
                    self.turn(to, vec![Input::Hello { from, hello, dialled }]);
                }
                Err((code, words)) => refusals.push(format!("{to} refuses {from}: {}: {words}", code.name())),
            }
            match met {
                Ok(()) => {
                    let hello = Input::Hello {
                        from: to,
                        hello: answer,
                        dialled: false,
                    };
                    let up = self.links.contains(&(from, to)).then_some(Input::LinkUp { peer: to });
                    self.turn(from, [hello].into_iter().chain(up).collect());
                }
                Err((code, words)) => refusals.push(format!("{from} refuses {to}: {}: {words}", code.name())),
            }
        }
        refusals.sort();
        refusals.dedup();
        refusals.into_iter().for_each(|line| self.say(line));
    }

    fn meet_all(&mut self) {
        let ids = self.ids();
        for (index, a) in ids.iter().enumerate() {
            for b in &ids[index + 1..] {
                self.meet(*a, *b);
            }
        }
    }

    /// One turn of a node: decide, speak, sync, answer.
    fn turn(&mut self, id: NodeId, inputs: Vec<Input>) {
        if !self.is_up(id) {
            return;
        }
        self.tell_clock(id);
        for input in inputs {
            self.step(id, input);
        }
        self.step(id, Input::Gathered);
        self.end_turn(id);
    }

    /// First in each turn of a node whose cluster has leases.
    fn tell_clock(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        if node.machine.as_ref().is_some_and(Machine::has_leases) {
            let clock = Boottime((node.now + node.slept).0);
            self.step(id, Input::Clock { clock });
        }
    }

    fn end_turn(&mut self, id: NodeId) {
        if !self.node(id).holds_sync {
            self.sync(id);
        }
        while let Some(index) = self.next_inputs.iter().position(|(node, _)| *node == id) {
            let (_, input) = self.next_inputs.remove(index).expect("it was found there");
            self.turn(id, vec![input]);
        }
    }

    /// Everything appended so far is on disk; what waited for it leaves.
    fn sync(&mut self, id: NodeId) {
        while !self.node(id).pending.is_empty() {
            let node = self.node(id);
            node.synced += node.pending.len() as u64;
            node.pending.drain(..).for_each(|record| node.disk.push(record));
            let up_to = node.synced;
            self.step(id, Input::Synced { up_to });
        }
    }

    fn step(&mut self, id: NodeId, input: Input) {
        let node = self.node(id);
        let now = node.now;
        let Some(machine) = &mut node.machine else { return };
        let mut effects = Vec::new();
        machine.step(now, input, &mut effects);
        machine.apply(now, &mut effects);
        self.show_applied(id);
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: NodeId, effects: Vec<Effect>) {
        let first_line = self.lines.len();
        for effect in effects {
            match effect {
                Effect::Append(record) => {
                    self.show_record(id, &record);
                    self.node(id).pending.push(record);
                }
                Effect::Send { to, message } => self.send_message(id, to, message, first_line),
                Effect::SendRoster { to, founded, roster } => {
                    let from = id;
                    self.send(id, to, "ROSTER", Input::Roster { from, founded, roster }, first_line);
                }
                Effect::Forward { to, relay, request } => {
                    let from = id;
                    self.send(id, to, "FORWARD", Input::Forward { from, relay, request }, first_line);
                }
                Effect::ForwardReply { to, relay, reply } => {
                    let from = id;
                    self.send(
                        id,
                        to,
                        "FORWARD_REPLY",
                        Input::ForwardReply { from, relay, reply },
                        first_line,
                    );
                }
                Effect::Reply { id: request, reply } => self.on_reply(id, request, &reply),
                Effect::ReadChosen { to, first, last, .. } => {
                    self.say(format!("{id} reads slots {first}..{last} from its log for {to}"));
                    let entries = self.node(id).disk.chosen(first, last);
                    self.next_inputs
                        .push_back((id, Input::ChosenRead { to, first, entries }));
                }
                Effect::Reread { .. } => {
                    let records = self.node(id).disk.records().to_vec();
                    self.say(format!("{id} reads its promises and acceptances again from its log"));
                    self.next_inputs.push_back((id, Input::Reread { records, more: false }));
                }
                Effect::SendTransfer { .. }
                | Effect::ReadChunk { .. }
                | Effect::BeginInstall { .. }
                | Effect::KeepChunk { .. }
                | Effect::LoadInstall { .. }
                | Effect::DropInstall => self.carry_out_transfer(id, effect, first_line),
                Effect::HandTransfer { .. } => unreachable!("no client of the stage makes a backup"),
                Effect::Refuse { peer, .. } => self.close_links(id, peer),
                Effect::Note(note) => self.say(format!("{id} {note}")),
                Effect::Halt { reason } => self.say(format!("{id} halts: {reason}")),
                Effect::Finished => {
                    self.say(format!("{id} has finished: its process may end"));
                }
            }
        }
    }

    /// `id`, in its turn, closes its links to a peer: both notice, and the script says when they meet again.
    fn close_links(&mut self, id: NodeId, peer: NodeId) {
        let between = |letter: &Letter| [(id, peer), (peer, id)].contains(&(letter.from, letter.to));
        self.network.retain(|letter| letter.has_come || !between(letter));
        if self.links.remove(&(id, peer)) {
            self.next_inputs.push_back((id, Input::LinkDown { peer }));
        }
        if self.links.remove(&(peer, id)) {
            self.turn(peer, vec![Input::LinkDown { peer: id }]);
        }
    }

    fn send_message(&mut self, from: NodeId, to: NodeId, message: Message, first_line: usize) {
        self.nodes[&from].disk.assert_proves(from, &message);
        self.send(from, to, message.name(), Input::Paxos { from, message }, first_line);
    }

    /// Puts a message into the network, and shows it; equal ones of one step in one line.
    fn send(&mut self, from: NodeId, to: NodeId, kind: &'static str, input: Input, first_line: usize) {
        if !self.links.contains(&(from, to)) {
            return; // no link is up: the loop of a node drops it, too
        }
        let is_lost = self.cut.contains(&(from, to));
        if self.is_shown(kind) {
            self.show_sent(from, to, words::of_input(kind, &input), is_lost, first_line);
        }
        if !is_lost {
            let has_come = false;
            self.network.push(Letter {
                from,
                to,
                kind,
                input,
                has_come,
            });
        }
    }

    fn on_reply(&mut self, id: NodeId, request: RequestId, reply: &Reply) {
        let asked = &self.asked[request.request as usize];
        let line = format!("{id} answers {}: {}", words::of_request(asked), words::of_reply(reply));
        if let Outcome::Done(Served::Done(Done {
            answer: Answer::Opened { opened },
            ..
        })) = &reply.outcome
        {
            self.session.opened = *opened;
        }
        self.say(line);
    }

    /// Each receiver gets its messages in one turn.
    fn deliver(&mut self, letters: Vec<Letter>) {
        let mut inboxes: BTreeMap<NodeId, Vec<Input>> = BTreeMap::new();
        for letter in letters {
            inboxes.entry(letter.to).or_default().push(letter.input);
        }
        for (id, inputs) in inboxes {
            self.turn(id, inputs);
        }
    }

    /// Delivers everything until nothing is under way any more.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.network.is_empty() {
                return;
            }
            let letters = std::mem::take(&mut self.network);
            self.deliver(letters);
        }
        panic!("still not quiet after {ROUNDS_MAX} rounds");
    }

    /// Lets time pass at `who`, deadline by deadline; with `delivers`, messages arrive at once meanwhile.
    fn pass(&mut self, who: &[NodeId], span: Duration, delivers: bool) {
        let begun: BTreeMap<NodeId, Time> = who.iter().map(|id| (*id, self.nodes[id].now)).collect();
        let due_in = |stage: &Stage, id: &NodeId| {
            let due = stage.nodes[id].machine.as_ref().and_then(Machine::deadline)?;
            Some((due.since(begun[id]), *id))
        };
        loop {
            if delivers {
                self.settle();
            }
            let next = who.iter().filter_map(|id| due_in(self, id)).min();
            let Some((elapsed, id)) = next.filter(|(elapsed, _)| *elapsed <= span) else {
                break;
            };
            for (id, begun) in &begun {
                let node = self.node(*id);
                node.now = node.now.max(*begun + elapsed);
            }
            self.turn(id, vec![Input::Deadline]);
        }
        for (id, begun) in &begun {
            self.node(*id).now = *begun + span;
        }
    }

    /// Asks a node on behalf of the client.
    fn ask(&mut self, node: NodeId, op: RequestOp) {
        let is_numbered = matches!(&op, RequestOp::Write(op) if !matches!(op, Op::Open | Op::Close));
        self.numbers += u64::from(is_numbered);
        let mut session = self.session;
        if matches!(op, RequestOp::Write(Op::Open)) {
            session.opened = Slot::ZERO;
        }
        self.hand_in(
            node,
            Request {
                deadline_ms: 5_000,
                session,
                number: if is_numbered { self.numbers } else { 0 },
                low: u64::from(is_numbered),
                op,
            },
        );
    }

    fn hand_in(&mut self, node: NodeId, request: Request) {
        let id = RequestId {
            connection: CLIENT,
            request: self.asked.len() as u64,
        };
        self.asked.push(request.clone());
        self.turn(node, vec![Input::Client { id, request }]);
    }
}
