//! A small world for machines: simulated links, disks and time, everything drawn from one seed.
//!
//! Each node is the real [`Machine`]; the world carries out its effects as the loop of a node would: records are synced
//! once a turn and take time to sync, messages take time to arrive, get lost with their links, or are dropped. A crash
//! forgets what was not synced.

#![allow(dead_code, unreachable_pub, reason = "each test uses its own part of the world")]

mod chronicle;
pub(crate) mod clients;

use crate::disk::Disk;
use chronicle::Chronicle;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use synod::machine::{Effect, Input, Machine, Note, RequestId, Settings};
use synod::paxos::{Message, NodeId, Slot};
use synod::time::Time;
use synod::wire::{Record, Reply, Request};

/// What the world does with what is sent.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Chance in 1000 that a message is lost.
    pub loss: u64,
    /// Chance in 1000 that a message arrives twice.
    pub duplication: u64,
    /// Shortest and longest time under way, microseconds. Messages of one link may overtake each other if `reorders`.
    pub delay_us: (u64, u64),
    /// Whether messages of one link overtake each other.
    pub reorders: bool,
    /// Shortest and longest time of a sync, microseconds.
    pub sync_us: (u64, u64),
}

impl Weather {
    pub const CALM: Weather = Weather {
        loss: 0,
        duplication: 0,
        delay_us: (50, 200),
        reorders: false,
        sync_us: (50, 300),
    };
}

/// One node: its machine while it runs, its disk, and the loop's state.
struct Node {
    machine: Option<Machine>,
    settings: Settings,
    disk: Disk,
    /// Records appended in this life and not synced yet.
    pending: Vec<Record>,
    /// How many records of this life were synced.
    synced: u64,
    inbox: VecDeque<Input>,
    is_turning: bool,
    life: u64,
    reread_at: usize,
    /// Until then its loop stands still.
    paused_until: Time,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are arrivals")]
enum Event {
    Arrive {
        to: NodeId,
        input: Input,
        link: Option<(NodeId, NodeId)>,
        epoch: u64,
    },
    Turn {
        node: NodeId,
        life: u64,
    },
    Synced {
        node: NodeId,
        life: u64,
        up_to: u64,
    },
    Deadline {
        node: NodeId,
        life: u64,
    },
    Connect {
        from: NodeId,
        to: NodeId,
    },
}

pub struct World {
    pub now: Time,
    pub rng: fastrand::Rng,
    pub weather: Weather,
    pub notes: Vec<(Time, NodeId, Note)>,
    pub replies: Vec<(Time, RequestId, Reply)>,
    pub trace: Option<Vec<String>>,
    nodes: BTreeMap<NodeId, Node>,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    /// Directed pairs that cannot send.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Number of the connection of each directed pair; messages of an older one are lost.
    epochs: BTreeMap<(NodeId, NodeId), u64>,
    up: BTreeSet<(NodeId, NodeId)>,
    last_arrival: BTreeMap<(NodeId, NodeId), Time>,
    /// The digest of each slot that any node applied up to, over all time.
    digests: BTreeMap<Slot, u64>,
    chronicle: Chronicle,
    pub events_done: u64,
}

impl World {
    pub fn new(nodes: u16, seed: u64, adjust: impl Fn(&mut Settings)) -> World {
        let ids: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        let mut world = World {
            now: Time::from_millis(1),
            rng: fastrand::Rng::with_seed(seed),
            weather: Weather::CALM,
            notes: Vec::new(),
            replies: Vec::new(),
            trace: None,
            nodes: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            cut: BTreeSet::new(),
            epochs: BTreeMap::new(),
            up: BTreeSet::new(),
            last_arrival: BTreeMap::new(),
            digests: BTreeMap::new(),
            chronicle: Chronicle::new(ids.len()),
            events_done: 0,
        };
        for id in &ids {
            let mut settings = Settings::new(*id, ids.clone());
            settings.seed = world.rng.u64(..);
            settings.advertise = format!("node-{}", id.0);
            adjust(&mut settings);
            settings.start.counter = 0;
            let node = Node {
                machine: None,
                settings,
                disk: Disk::default(),
                pending: Vec::new(),
                synced: 0,
                inbox: VecDeque::new(),
                is_turning: false,
                life: 0,
                reread_at: 0,
                paused_until: Time::ZERO,
            };
            world.nodes.insert(*id, node);
        }
        for id in ids {
            world.start(id);
        }
        world
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn machine(&self, node: NodeId) -> Option<&Machine> {
        self.nodes[&node].machine.as_ref()
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[&node].machine.is_some()
    }

    /// Starts a node on what its disk holds.
    pub fn start(&mut self, id: NodeId) {
        let (now, peers) = (self.now, self.ids());
        let seed = self.rng.u64(..);
        let node = self.nodes.get_mut(&id).expect("a node of the world");
        assert!(node.machine.is_none(), "{id} runs already");
        node.life += 1;
        if node.settings.start.counter > 0 {
            let past = node.settings.start;
            node.settings.past_starts.push(past);
        }
        node.settings.start.counter += 1;
        node.settings.start.token = seed;
        node.settings.seed = seed;
        let mut machine = Machine::new(node.settings.clone());
        for record in node.disk.records() {
            machine
                .recover(record.clone())
                .expect("a disk that this world wrote can be applied");
        }
        let mut effects = Vec::new();
        machine.start(now, &mut effects);
        node.machine = Some(machine);
        (node.synced, node.is_turning) = (0, false);
        node.inbox.clear();
        self.carry_out(id, effects);
        self.begin_sync(id);
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            self.connect_soon(id, peer);
            self.connect_soon(peer, id);
        }
    }

    /// Kills a node: everything on its links is gone. Of what it was about to sync the disk has all or nothing (one unit
    /// a turn, `rules.md` 24); nobody was told of it.
    pub fn crash(&mut self, id: NodeId) {
        if self.rng.bool() {
            self.write_to_disk(id);
        }
        let node = self.nodes.get_mut(&id).expect("a node of the world");
        node.machine = None;
        node.pending.clear();
        node.inbox.clear();
        self.chronicle.on_crash(id);
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            self.disconnect(id, peer, false);
            if self.disconnect(peer, id, true) && self.is_up(peer) {
                self.push_input(peer, Input::Died { peer: id }, Duration::from_micros(200));
            }
        }
    }

    fn write_to_disk(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of the world");
        for record in node.pending.drain(..) {
            self.chronicle.on_disk(id, &record);
            node.disk.push(record);
        }
    }

    /// Breaks the connections between two nodes; they come up again soon.
    pub fn flap(&mut self, a: NodeId, b: NodeId) {
        for (from, to) in [(a, b), (b, a)] {
            if self.disconnect(from, to, true) {
                self.connect_soon(from, to);
            }
        }
    }

    /// Stops a node's loop for a while, as a stopped process or a slow disk would: it does not know that time passes.
    pub fn pause(&mut self, id: NodeId, span: Duration) {
        self.nodes.get_mut(&id).expect("a node of the world").paused_until = self.now + span;
    }

    /// Cuts what `from` sends to `to`, silently: the connections stay, nothing arrives.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    /// Cuts a node off from all, both ways.
    pub fn isolate(&mut self, node: NodeId) {
        for peer in self.ids() {
            self.cut(node, peer);
            self.cut(peer, node);
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Hands an input to a node as if it had just arrived.
    pub fn input(&mut self, node: NodeId, input: Input) {
        self.push_input(node, input, Duration::ZERO);
    }

    pub fn request(&mut self, node: NodeId, id: RequestId, request: Request) {
        self.input(node, Input::Client { id, request });
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.events_done += 1;
            self.happen(event);
        }
        self.now = until;
    }

    /// Goes on until `is_done`, at most so long; whether it came true.
    pub fn run_until(&mut self, limit: Duration, mut is_done: impl FnMut(&World) -> bool) -> bool {
        let until = self.now + limit;
        while self.now < until {
            if is_done(self) {
                return true;
            }
            self.run_for(Duration::from_millis(1));
        }
        is_done(self)
    }

    /// The leader whom a majority of running nodes follows.
    pub fn leader(&self) -> Option<NodeId> {
        let mut votes = BTreeMap::new();
        for node in self.nodes.values().filter_map(|node| node.machine.as_ref()) {
            if let Some(ballot) = node.replica().leader() {
                *votes.entry(ballot).or_insert(0) += 1;
            }
        }
        let (ballot, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        let leads = self.machine(ballot.node)?.status(self.now).role == "leader";
        (leads && count * 2 > self.nodes.len()).then_some(ballot.node)
    }

    fn happen(&mut self, event: Event) {
        if let Event::Turn { node, .. } | Event::Synced { node, .. } | Event::Deadline { node, .. } = &event {
            let paused_until = self.nodes[node].paused_until;
            if self.now < paused_until {
                return self.schedule(paused_until.since(self.now), event);
            }
        }
        match event {
            Event::Arrive { to, input, link, epoch } => {
                let is_lost =
                    link.is_some_and(|link| self.cut.contains(&link) || self.epochs.get(&link) != Some(&epoch));
                if !is_lost && self.is_up(to) {
                    self.nodes.get_mut(&to).expect("a node").inbox.push_back(input);
                    self.turn_soon(to);
                }
            }
            Event::Turn { node, life } if self.lives(node, life) => self.turn(node),
            Event::Synced { node, life, up_to } if self.lives(node, life) => {
                self.write_to_disk(node);
                let it = self.nodes.get_mut(&node).expect("a node");
                it.synced = up_to;
                let now = self.now;
                let mut effects = Vec::new();
                let machine = it.machine.as_mut().expect("it lives");
                machine.step(now, Input::Synced { up_to }, &mut effects);
                machine.apply(now, &mut effects);
                it.is_turning = false;
                self.carry_out(node, effects);
                self.begin_sync(node);
            }
            Event::Deadline { node, life } if self.lives(node, life) => {
                let it = &self.nodes[&node];
                let due = it.machine.as_ref().and_then(Machine::deadline);
                if !it.is_turning && due.is_some_and(|due| self.now >= due) {
                    self.turn(node);
                }
            }
            Event::Connect { from, to } => self.connect(from, to),
            Event::Turn { .. } | Event::Synced { .. } | Event::Deadline { .. } => {}
        }
    }

    fn lives(&self, node: NodeId, life: u64) -> bool {
        self.nodes[&node].life == life && self.is_up(node)
    }

    /// One turn: gather, decide, speak; the sync ends it later.
    fn turn(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.is_turning {
            return;
        }
        let Some(machine) = node.machine.as_mut() else { return };
        let mut effects = Vec::new();
        // An acceptor fails and restarts between turns, with nothing unsynced (`rules.md` 14): in a turn of its own.
        let is_fault = |input: &Input| matches!(input, Input::AcceptorDown | Input::AcceptorUp);
        let until = node
            .inbox
            .iter()
            .position(is_fault)
            .map_or(node.inbox.len(), |at| at.max(1));
        for input in node.inbox.drain(..until) {
            machine.step(now, input, &mut effects);
        }
        if machine.deadline().is_some_and(|due| now >= due) {
            machine.step(now, Input::Deadline, &mut effects);
        }
        machine.step(now, Input::Gathered, &mut effects);
        machine.apply(now, &mut effects);
        self.carry_out(id, effects);
        self.begin_sync(id);
    }

    fn begin_sync(&mut self, id: NodeId) {
        let span = self.draw_us(self.weather.sync_us);
        let node = self.nodes.get_mut(&id).expect("a node");
        if !node.pending.is_empty() {
            node.is_turning = true;
            let event = Event::Synced {
                node: id,
                life: node.life,
                up_to: node.synced + node.pending.len() as u64,
            };
            self.schedule(span, event);
            return;
        }
        node.is_turning = false;
        let life = node.life;
        if !node.inbox.is_empty() {
            return self.schedule(Duration::ZERO, Event::Turn { node: id, life });
        }
        let due = self.machine(id).and_then(Machine::deadline);
        if let Some(due) = due {
            let wait = due.since(self.now);
            self.schedule(wait, Event::Deadline { node: id, life });
        }
    }

    fn turn_soon(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        if !node.is_turning {
            let life = node.life;
            self.schedule(Duration::ZERO, Event::Turn { node: id, life });
        }
    }

    fn carry_out(&mut self, id: NodeId, effects: Vec<Effect>) {
        let mut has_finished = false;
        for effect in effects {
            match effect {
                Effect::Append(record) => self.nodes.get_mut(&id).expect("a node").pending.push(record),
                Effect::Send { to, message } => self.send_paxos(id, to, message),
                Effect::SendRoster { to, founded, roster } => self.send(
                    id,
                    to,
                    Input::Roster {
                        from: id,
                        founded,
                        roster,
                    },
                ),
                Effect::Forward { to, relay, request } => self.send(
                    id,
                    to,
                    Input::Forward {
                        from: id,
                        relay,
                        request,
                    },
                ),
                Effect::ForwardReply { to, relay, reply } => {
                    self.send(id, to, Input::ForwardReply { from: id, relay, reply });
                }
                Effect::Reply { id: request, reply } => self.replies.push((self.now, request, reply)),
                Effect::ReadChosen { to, first, last, .. } => {
                    let entries = self.nodes[&id].disk.chosen(first, last);
                    self.push_input(id, Input::ChosenRead { to, first, entries }, Duration::from_micros(100));
                }
                Effect::Reread { restart } => self.reread(id, restart),
                Effect::SendTransfer { .. }
                | Effect::ReadChunk { .. }
                | Effect::HandTransfer { .. }
                | Effect::BeginInstall { .. }
                | Effect::KeepChunk { .. }
                | Effect::LoadInstall { .. }
                | Effect::DropInstall => unreachable!("nobody takes a snapshot in this world"),
                Effect::Refuse { peer, .. } => self.flap(id, peer),
                Effect::Note(note) => {
                    self.tell(|| format!("{id} {note}"));
                    // Nobody loses a disk in this world, nobody's memory breaks, nobody lies: every alarm is a wrong one.
                    let is_alarm = matches!(&note, Note::Paxos(note) if note.is_alarm());
                    assert!(!is_alarm, "{id} {note}");
                    self.notes.push((self.now, id, note));
                }
                Effect::Halt { reason } => panic!("{id} halts: {reason}"),
                Effect::Finished => has_finished = true,
            }
        }
        self.check_digest(id);
        if let Some(machine) = &self.nodes[&id].machine {
            self.chronicle.on_step(id, machine);
        }
        if has_finished {
            self.crash(id);
        }
    }

    /// Two nodes that applied up to one slot must have the same state, over all time.
    fn check_digest(&mut self, id: NodeId) {
        let Some(machine) = self.machine(id) else { return };
        let (applied, digest) = (machine.state().applied(), machine.state().digest());
        let known = *self.digests.entry(applied).or_insert(digest);
        assert_eq!(
            known, digest,
            "{id} applied up to slot {applied} with another state than others"
        );
    }

    fn reread(&mut self, id: NodeId, restart: bool) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if restart {
            node.reread_at = 0;
        }
        let records = node.disk.records();
        let end = (node.reread_at + 50).min(records.len());
        let more = end < records.len();
        let records = records[node.reread_at..end].to_vec();
        node.reread_at = end;
        self.push_input(id, Input::Reread { records, more }, Duration::from_micros(100));
    }

    fn send_paxos(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.tell(|| format!("{from} -> {to}  {message}"));
        self.nodes[&from].disk.assert_proves(from, &message);
        self.chronicle.on_sent(from, &message);
        self.send(from, to, Input::Paxos { from, message });
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now} {}", line()));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, input: Input) {
        let link = (from, to);
        if !self.up.contains(&link) || self.rng.u64(0..1000) < self.weather.loss {
            return;
        }
        // A link of TCP hands over nothing twice; agreement holds if it did, "not done" of a forwarded request would not.
        let may_repeat = matches!(input, Input::Paxos { .. });
        let times = if may_repeat && self.rng.u64(0..1000) < self.weather.duplication {
            2
        } else {
            1
        };
        for _ in 0..times {
            let mut delay = self.draw_us(self.weather.delay_us);
            if !self.weather.reorders {
                let earliest = self.last_arrival.get(&link).copied().unwrap_or(Time::ZERO);
                let at = (self.now + delay).max(earliest);
                self.last_arrival.insert(link, at);
                delay = at.since(self.now);
            }
            let epoch = self.epochs.get(&link).copied().unwrap_or(0);
            self.schedule(
                delay,
                Event::Arrive {
                    to,
                    input: input.clone(),
                    link: Some(link),
                    epoch,
                },
            );
        }
    }

    fn push_input(&mut self, to: NodeId, input: Input, delay: Duration) {
        self.schedule(
            delay,
            Event::Arrive {
                to,
                input,
                link: None,
                epoch: 0,
            },
        );
    }

    fn connect_soon(&mut self, from: NodeId, to: NodeId) {
        let delay = self.draw_us((500, 5_000));
        self.schedule(delay, Event::Connect { from, to });
    }

    fn connect(&mut self, from: NodeId, to: NodeId) {
        if self.up.contains(&(from, to)) || !self.is_up(from) || !self.is_up(to) {
            return;
        }
        let is_cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
        let (Some(dialler), Some(acceptor)) = (self.machine(from), self.machine(to)) else {
            return;
        };
        let (hello, answer) = (dialler.hello_to(Some(to)), acceptor.hello_to(Some(from)));
        let passes = acceptor.check_hello(&hello).is_ok() && dialler.check_hello(&answer).is_ok();
        if is_cut || !passes {
            return self.schedule(Duration::from_millis(200), Event::Connect { from, to });
        }
        self.up.insert((from, to));
        *self.epochs.entry((from, to)).or_insert(0) += 1;
        let dialled = true;
        self.push_input(to, Input::Hello { from, hello, dialled }, Duration::from_micros(100));
        self.push_input(
            from,
            Input::Hello {
                from: to,
                hello: answer,
                dialled: false,
            },
            Duration::from_micros(200),
        );
        self.push_input(from, Input::LinkUp { peer: to }, Duration::from_micros(200));
    }

    fn disconnect(&mut self, from: NodeId, to: NodeId, is_told: bool) -> bool {
        let was_up = self.up.remove(&(from, to));
        *self.epochs.entry((from, to)).or_insert(0) += 1;
        if was_up && is_told && self.is_up(from) {
            self.push_input(from, Input::LinkDown { peer: to }, Duration::from_micros(100));
        }
        was_up
    }

    fn draw_us(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_micros(self.rng.u64(low..=high))
    }

    fn schedule(&mut self, delay: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }
}
