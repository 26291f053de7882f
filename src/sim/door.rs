//! One node's side of the simulated network and clock: the [`Door`] of its turn.
//!
//! The door never waits: the world runs a turn when something is due, and all that came in lies in the inbox. What the
//! turn says is queued until it flushes, as sockets would take it, and carries the time at which it left: behind the
//! sync, that is so much later. Handshakes and dials follow the rules of the node's server (`rules.md` 23), with its
//! own book-keeping of peers. Every claim is judged as it is made, against what the disk holds ([`Checks`]).

use super::checks::{Asked, Checks};
use super::clock::Clock;
use super::network::End;
use super::report::{Counts, Violation};
use super::transcript::{Scene, Transcript};
use super::words;
use crate::machine::{DamageFinding, Input, Machine, Note, RequestId};
use crate::node::door::Door;
use crate::node::peers::{Address, DialEnd, Peer};
use crate::node::ring::What;
use crate::paxos::{self, Message, NodeId};
use crate::storage::sim::SimDisk;
use crate::time::{Boottime, Time};
use crate::wire::frame::{self, FRAME_BYTES_MAX, FrameType};
use crate::wire::hello::{FEATURE_ANSWERS, FEATURE_LEASES, FEATURES};
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Hello, HelloKind, Record, Reply, Request, Transfer};
use bytes::{Bytes, BytesMut};
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// What arrives at a node.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// A connection was accepted.
    Accepted(u64),
    /// A dial went through.
    Connected(u64),
    /// A dial, or the handshake behind it, came to nothing.
    DialFailed(u64, DialEnd),
    /// A frame.
    Frame(u64, Bytes),
    /// The other side is gone.
    Closed(u64),
    /// Somebody's hand: faults, the end.
    Input(Box<Input>),
}

/// What a node does to the network.
#[derive(Clone, Debug)]
pub enum Out {
    /// Dials a peer.
    Dial(u64, NodeId),
    /// Sends a frame.
    Frame(u64, Bytes),
    /// Closes a connection.
    Close(u64),
}

/// What a connection is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Accepted, no HELLO yet.
    Fresh,
    /// A client's.
    Client,
    /// A peer's own, on which it speaks, and is given short answers.
    From(NodeId),
    /// Dialled, not connected.
    Dialling(NodeId),
    /// Connected, no answer to our HELLO yet.
    Greeting(NodeId),
    /// Dialled, and through its handshake: this node speaks on it, and is given short answers.
    To(NodeId),
}

/// What all doors of a world share.
#[derive(Clone)]
pub struct Shared {
    /// Number of the last connection.
    pub numbers: Rc<Cell<u64>>,
    /// The judge.
    pub checks: Rc<RefCell<Checks>>,
    /// What happened how often.
    pub counts: Rc<RefCell<Counts>>,
    /// What is said.
    pub transcript: Transcript,
}

impl Shared {
    /// Tells what the judge has seen to be chosen and applied.
    pub fn tell_news(&self, now: Time) {
        for (node, words) in self.checks.borrow_mut().take_news() {
            match node {
                Some(node) => self.transcript.detail(now, End::of(node), || Some(words)),
                None => self.transcript.tell(now, || Scene::Event { whose: None, words }),
            }
        }
    }
}

/// What came so shortly before a turn, its poll may have missed.
const POLL_MISSES: Duration = Duration::from_micros(50);

/// The door of one life of one node.
pub struct SimDoor {
    node: NodeId,
    /// Simulated time, as far as this node has come in its turn.
    pub now: Time,
    /// The node's clock.
    pub clock: Clock,
    /// The one that counts suspension: it never leaps, and keeps within the bound that leases count on.
    pub boottime: Clock,
    /// Shortest and longest time that a sync takes, microseconds.
    pub sync_us: (u64, u64),
    /// Feature bits of the node's build.
    pub features: u64,
    /// Bytes of frames after which a turn takes no more in.
    pub read_bytes: usize,
    shared: Shared,
    disk: SimDisk,
    rng: Rng,
    peers: BTreeMap<NodeId, Peer>,
    roles: BTreeMap<u64, Role>,
    /// What came in and was not taken in yet, and when it came.
    inbox: Vec<(Time, Arrival)>,
    queued: Vec<Out>,
    left: Vec<(Time, Out)>,
    /// Requests that were not answered yet.
    asked: BTreeMap<RequestId, Asked>,
    /// When each peer's last frame was taken in.
    heard: BTreeMap<NodeId, Time>,
    /// Files that the turn told to be damaged, or repaired: it may know nothing of it any more.
    pub told_of: Vec<String>,
}

impl SimDoor {
    /// The door of a node that starts at `now`.
    pub fn new(
        node: NodeId,
        others: &[NodeId],
        now: Time,
        clock: Clock,
        disk: SimDisk,
        seed: u64,
        shared: Shared,
    ) -> SimDoor {
        let local = clock.at(now);
        let peers = others
            .iter()
            .map(|peer| (*peer, Peer::new(*peer, Address::new(""), local)));
        SimDoor {
            node,
            now,
            clock,
            boottime: clock,
            sync_us: (50, 300),
            features: FEATURES,
            read_bytes: usize::MAX,
            shared,
            disk,
            rng: Rng::with_seed(seed),
            peers: peers.collect(),
            roles: BTreeMap::new(),
            inbox: Vec::new(),
            queued: Vec::new(),
            left: Vec::new(),
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
            told_of: Vec::new(),
        }
    }

    /// Something arrives.
    pub fn arrive(&mut self, arrival: Arrival, now: Time) {
        match arrival {
            Arrival::Accepted(connection) => {
                self.roles.insert(connection, Role::Fresh);
            }
            arrival => self.inbox.push((now, arrival)),
        }
    }

    /// Takes out of the inbox what came last, as if the turn's poll had just missed it: if many are answered at once, it
    /// comes while the turn answers, else with the next. What ended the poll is never among it.
    fn behind_the_poll(&mut self) -> Vec<(Time, Arrival)> {
        let is_late = |(at, _): &(Time, Arrival)| *at + POLL_MISSES >= self.now;
        let first = self.inbox.iter().skip(1).position(is_late).map(|place| place + 1);
        match first {
            Some(first) if self.rng.bool() => self.inbox.split_off(first),
            _ => Vec::new(),
        }
    }

    /// Takes in what has come; what is left is for the next time, and the next turn does not wait.
    fn take_in(&mut self, machine: &Machine, inputs: &mut Vec<Input>) {
        // Taking things in takes a little time, in which more may come.
        self.now = self.now + Duration::from_nanos(self.rng.u64(1_000..20_000));
        let mut inbox = std::mem::take(&mut self.inbox).into_iter();
        let mut budget = self.read_bytes;
        while budget > 0
            && let Some((at, arrival)) = inbox.next()
        {
            if let Arrival::Frame(_, bytes) = &arrival {
                budget = budget.saturating_sub(bytes.len());
            }
            self.take(arrival, at, machine, inputs);
        }
        let behind = std::mem::replace(&mut self.inbox, inbox.collect());
        self.inbox.extend(behind);
        self.dial_all();
    }

    /// Whether something waits to be taken in.
    pub fn has_arrivals(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether the connection is open at this end.
    pub fn has(&self, connection: u64) -> bool {
        self.roles.contains_key(&connection)
    }

    /// Every connection that is open at this end.
    pub fn connections(&self) -> Vec<u64> {
        self.roles.keys().copied().collect()
    }

    /// Whether a dial is not through its handshake yet.
    pub fn is_dialling(&self, connection: u64) -> bool {
        matches!(self.roles.get(&connection), Some(Role::Dialling(_) | Role::Greeting(_)))
    }

    /// What left since the last call, and when.
    pub fn take_left(&mut self) -> Vec<(Time, Out)> {
        std::mem::take(&mut self.left)
    }

    /// Hands back the memory of [`SimDoor::take_left`].
    pub fn give_back(&mut self, mut left: Vec<(Time, Out)>) {
        left.clear();
        self.left = left;
    }

    /// Of how many peers a frame was taken in since a moment.
    pub fn heard_since(&self, since: Time) -> usize {
        self.heard.values().filter(|at| **at >= since).count()
    }

    /// When this node dials next, in simulated time.
    pub fn dials_at(&self) -> Option<Time> {
        let next = self.peers.values().filter_map(Peer::dial_at).min();
        next.map(|local| self.clock.when(local))
    }

    fn local(&self) -> Time {
        self.clock.at(self.now)
    }

    fn take(&mut self, arrival: Arrival, at: Time, machine: &Machine, inputs: &mut Vec<Input>) {
        match arrival {
            Arrival::Accepted(_) => {}
            Arrival::Connected(connection) => {
                if let Some(Role::Dialling(peer)) = self.roles.get(&connection).copied() {
                    self.roles.insert(connection, Role::Greeting(peer));
                    self.say(connection, 0, &Frame::Hello(machine.hello_to(Some(peer))));
                }
            }
            Arrival::DialFailed(connection, end) => self.gone(connection, end, inputs),
            Arrival::Frame(connection, bytes) => self.take_frame((connection, bytes), at, machine, inputs),
            Arrival::Closed(connection) => self.gone(connection, DialEnd::Failed, inputs),
            Arrival::Input(input) => inputs.push(*input),
        }
    }

    fn take_frame(&mut self, (connection, bytes): (u64, Bytes), at: Time, machine: &Machine, inputs: &mut Vec<Input>) {
        let Some(role) = self.roles.get(&connection).copied() else {
            return; // closed meanwhile
        };
        let (request_id, frame, is_last) = decode(bytes);
        if let Role::From(peer) | Role::To(peer) = role {
            self.heard.insert(peer, self.now);
            self.judge_build(role, peer, &frame);
        }
        match (role, frame) {
            (Role::Fresh, Frame::Hello(hello)) => self.greet(connection, hello, machine, inputs),
            (Role::Greeting(peer), Frame::Hello(hello)) => {
                self.greeted((connection, peer), (hello, !is_last), machine, inputs);
            }
            (Role::Client, Frame::Request(request)) => self.take_request((connection, request_id), request, at, inputs),
            (_, Frame::Error { .. }) => self.close(connection, inputs),
            (Role::From(from), frame) => {
                if let Frame::Paxos(message) = &frame {
                    self.shared.checks.borrow_mut().hears(self.node, from, message);
                }
                inputs.extend(peer_input(from, request_id, frame));
            }
            (Role::To(from), Frame::Paxos(message)) if FrameType::of_message(&message).is_short_answer() => {
                self.shared.checks.borrow_mut().hears(self.node, from, &message);
                inputs.push(Input::Answer { from, message });
            }
            // A frame that came before the HELLO, behind the end, or the wrong way.
            _ => self.close(connection, inputs),
        }
    }

    /// No node is sent what its build does not know, or where it does not look for it.
    fn judge_build(&mut self, role: Role, from: NodeId, frame: &Frame) {
        let known = self.features | FEATURE_LEASES; // older builds without them take no part in a cluster that has them
        let frame_type = FrameType::of(frame);
        let is_answer = role == Role::To(from) && frame_type.is_short_answer();
        let needed = frame_type.needs() | if is_answer { FEATURE_ANSWERS } else { 0 };
        if needed & known != needed {
            let words = format!(
                "{from} sent {} {}, a build of features {known:#x}; it takes {needed:#x}",
                self.node,
                frame.name()
            );
            self.judge(Err(Violation {
                rule: "understood",
                words,
            }));
        }
    }

    fn greet(&mut self, connection: u64, hello: Hello, machine: &Machine, inputs: &mut Vec<Input>) {
        let HelloKind::Node(node) = &hello.kind else {
            self.roles.insert(connection, Role::Client);
            return self.say(connection, 0, &Frame::Hello(machine.hello_to(None)));
        };
        let from = node.node;
        let mut words = Vec::new();
        frame::encode(&Frame::Hello(machine.hello_to(Some(from))), 0, &mut words);
        let judged = machine.check_hello(&hello);
        if let Err((code, detail)) = judged.clone() {
            frame::encode(&Frame::Error { code, detail }, 0, &mut words);
        }
        self.queued.push(Out::Frame(connection, words.into()));
        if judged.is_err() {
            return self.close(connection, inputs);
        }
        self.roles.insert(connection, Role::From(from));
        let (features, own) = (hello.features, self.features);
        inputs.push(Input::Hello {
            from,
            hello,
            dialled: true,
        });
        let older = self
            .peers
            .get_mut(&from)
            .and_then(|peer| peer.accepted(connection, features & own));
        if let Some(older) = older {
            self.close(older, inputs);
        }
    }

    /// The answer to our own HELLO. `is_refused`: an ERROR stands behind it.
    fn greeted(
        &mut self,
        (connection, peer): (u64, NodeId),
        (hello, is_refused): (Hello, bool),
        machine: &Machine,
        inputs: &mut Vec<Input>,
    ) {
        if machine.check_hello(&hello).is_err() {
            return self.close(connection, inputs);
        }
        inputs.push(Input::Hello {
            from: peer,
            hello,
            dialled: false,
        });
        if is_refused {
            // The ERROR behind the HELLO ends the connection; what the HELLO tells still counts.
            return self.close(connection, inputs);
        }
        inputs.push(Input::LinkUp { peer });
        self.shared.checks.borrow_mut().hastens(self.node);
        self.roles.insert(connection, Role::To(peer));
        let local = self.local();
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.came_up(local);
        }
    }

    fn take_request(&mut self, (connection, request): (u64, u64), asked: Request, at: Time, inputs: &mut Vec<Input>) {
        let id = RequestId { connection, request };
        if let Some(judged) = self.shared.checks.borrow_mut().asks(&asked, at) {
            self.asked.insert(id, judged);
        }
        inputs.push(Input::Client { id, request: asked });
    }

    /// This end closes a connection.
    fn close(&mut self, connection: u64, inputs: &mut Vec<Input>) {
        self.queued.push(Out::Close(connection));
        self.gone(connection, DialEnd::Failed, inputs);
    }

    /// A connection is open at this end no more.
    fn gone(&mut self, connection: u64, end: DialEnd, inputs: &mut Vec<Input>) {
        let local = self.local();
        match self.roles.remove(&connection) {
            None | Some(Role::Fresh | Role::Client) => {}
            Some(Role::From(from)) => {
                if let Some(peer) = self.peers.get_mut(&from)
                    && peer.incoming == Some(connection)
                {
                    peer.incoming_closed(local);
                }
            }
            Some(Role::To(to)) => {
                if let Some(peer) = self.peers.get_mut(&to) {
                    peer.outgoing_closed(local, &mut self.rng);
                    inputs.push(Input::LinkDown { peer: to });
                }
            }
            Some(Role::Dialling(to) | Role::Greeting(to)) => {
                if let Some(peer) = self.peers.get_mut(&to)
                    && peer.dial_failed(local, end, &mut self.rng)
                {
                    inputs.push(Input::Died { peer: to });
                    self.shared.checks.borrow_mut().hastens(self.node);
                }
            }
        }
    }

    fn dial_all(&mut self) {
        let local = self.local();
        for (node, peer) in &mut self.peers {
            if peer.dial_at().is_some_and(|at| at <= local) {
                let connection = self.shared.numbers.get() + 1;
                self.shared.numbers.set(connection);
                peer.dialled(connection);
                self.roles.insert(connection, Role::Dialling(*node));
                self.queued.push(Out::Dial(connection, *node));
            }
        }
    }

    fn say(&mut self, connection: u64, request_id: u64, frame: &Frame) {
        self.queued
            .push(Out::Frame(connection, frame::encode_to_bytes(frame, request_id)));
    }

    fn judge(&mut self, judged: Result<(), Violation>) {
        if let Err(violation) = judged {
            self.shared.checks.borrow_mut().found(violation);
        }
    }

    fn note(&mut self, note: &Note) {
        let (now, node) = (self.now, self.node);
        self.shared.transcript.tell(now, || match words::note(note) {
            (words, true) => Scene::Event {
                whose: Some(End::of(node)),
                words,
            },
            (words, false) => Scene::Detail {
                whose: End::of(node),
                words,
            },
        });
        if let Note::DamageFound(DamageFinding { file, .. }) | Note::DamageRepaired { file, .. } = note {
            self.told_of.push(file.clone());
        }
        let local = self.local();
        let judged = self.shared.checks.borrow_mut().notes(node, note, now, local);
        self.judge(judged);
        self.shared.counts.borrow_mut().mark(match note {
            Note::Founded { .. } => "founded",
            Note::WaitsFor { .. } => "waits to be founded",
            Note::LostMemory { .. } => "knows that memory is lost",
            Note::SnapshotTaken { .. } => "takes a snapshot",
            Note::SnapshotPutOff { .. } => "puts a snapshot off",
            Note::WaitsForMemory { .. } => "waits for peers to remember",
            Note::LogTruncated { .. } => "truncates its log",
            Note::OffersSnapshot { .. } => "sends a snapshot",
            Note::FetchesSnapshot { .. } => "fetches a snapshot",
            Note::SnapshotInstalled { .. } => "installs a snapshot",
            Note::SnapshotRefused { .. } => "refuses a snapshot",
            Note::DamageFound(_) => "finds damage",
            Note::DamageRepaired { .. } => "repairs damage",
            Note::Paxos(note) => match note {
                paxos::Note::Asks { .. } => "asks before a campaign",
                paxos::Note::Campaigns { .. } => "campaigns",
                paxos::Note::Leads { .. } => "leads",
                paxos::Note::Follows { .. } => "follows",
                paxos::Note::StepsDown { .. } => "steps down",
                paxos::Note::LostElection { .. } => "loses an election",
                paxos::Note::LeaderLost { .. } => "loses its leader",
                paxos::Note::Forgetful { .. } => "peer is forgetful",
                paxos::Note::PeerFault { .. } => "peer breaks a rule",
                paxos::Note::OtherConfig { .. } => "knows another configuration",
                paxos::Note::DigestsDiffer { .. } => "differs from a peer",
                paxos::Note::DigestsAgree { .. } => "agrees with a quorum again",
                paxos::Note::Diverged { .. } => "differs from a quorum",
                paxos::Note::Recovers { .. } => "recovers its memory",
                paxos::Note::RecoveryLearns { .. } => "was shown what it forgot",
                paxos::Note::Recovered { .. } => "votes again",
                paxos::Note::AcceptorFailed => "acceptor fails",
                paxos::Note::AcceptorRestarted { .. } => "acceptor is back",
                paxos::Note::CatchesUp { .. } => "catches up",
                paxos::Note::HandsOver { .. } => "hands over",
                paxos::Note::Grants { .. } => "grants leases",
                paxos::Note::BoundByLease { .. } => "is bound by a lease",
                paxos::Note::HoldsLease { .. } => "reads by a lease",
                paxos::Note::LeaseRanOut { .. } => "has a lease run out",
            },
        });
    }
}

impl Door for SimDoor {
    fn now(&mut self) -> Time {
        self.local()
    }

    fn boottime(&mut self) -> Boottime {
        Boottime(self.boottime.at(self.now).0)
    }

    fn gather(&mut self, machine: &Machine, _: Option<Duration>, inputs: &mut Vec<Input>) -> io::Result<()> {
        let late = self.behind_the_poll();
        self.take_in(machine, inputs);
        self.inbox.extend(late);
        Ok(())
    }

    fn gather_more(&mut self, machine: &Machine, inputs: &mut Vec<Input>) -> io::Result<()> {
        if self.has_arrivals() {
            self.shared.counts.borrow_mut().mark("hears more while it answers");
        }
        self.take_in(machine, inputs);
        Ok(())
    }

    fn send(&mut self, to: NodeId, request_id: u64, frame: Frame) {
        let judged = match &frame {
            Frame::Paxos(message) => {
                let is_synced = self.disk.is_synced(".log");
                let mut checks = self.shared.checks.borrow_mut();
                checks.says((self.node, to), message, self.now, is_synced)
            }
            _ => Ok(()),
        };
        self.judge(judged);
        if let Frame::Paxos(Message::ReadPositionAnswer { .. }) = &frame {
            self.shared.counts.borrow_mut().mark("tells a read position");
        }
        let Some(link) = self.peers.get(&to).and_then(|peer| peer.link_for(&frame)) else {
            return;
        };
        self.say(link, request_id, &frame);
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        let asked = self.asked.remove(&id);
        let judged = self
            .shared
            .checks
            .borrow_mut()
            .answers(self.node, asked, &reply.outcome, self.now);
        self.judge(judged);
        if self.roles.get(&id.connection) == Some(&Role::Client) {
            self.say(id.connection, id.request, &Frame::Reply(reply));
        }
    }

    fn hand(&mut self, _: u64, _: Transfer) {} // no simulated client asks for a backup

    fn refuse(&mut self, peer: NodeId, code: ErrorCode, detail: &str) {
        let Some(state) = self.peers.get(&peer) else { return };
        for connection in [state.incoming, state.outgoing].into_iter().flatten() {
            let detail = detail.to_string();
            self.say(connection, 0, &Frame::Error { code, detail });
            self.queued.push(Out::Close(connection));
            // The link's end is an input of the next turn.
            self.inbox.push((self.now, Arrival::Closed(connection)));
        }
    }

    fn flush(&mut self) {
        let now = self.now;
        self.left.extend(self.queued.drain(..).map(|out| (now, out)));
    }

    fn before_sync(&mut self, records: &[Record]) {
        let (least, most) = self.sync_us;
        self.now = self.now + Duration::from_micros(self.rng.u64(least..=most));
        self.shared.checks.borrow_mut().appends(self.node, records);
    }

    fn sliced(&mut self, _: Duration) {}

    fn event(&mut self, _: Time, what: What) {
        match what {
            What::Note(note) => self.note(&note),
            What::Synced { .. } => {
                let (node, now) = (self.node, self.now);
                let judged = {
                    let mut checks = self.shared.checks.borrow_mut();
                    let told = || words::records(checks.appended(node)).map(|kept| format!("has on disk: {kept}"));
                    self.shared.transcript.detail(now, End::of(node), told);
                    checks.synced(node)
                };
                self.shared.tell_news(now);
                self.judge(judged);
            }
            _ => {}
        }
    }
}

/// The frame in `bytes`, as it left its sender, with its request id; and whether nothing stands behind it.
pub fn decode(bytes: Bytes) -> (u64, Frame, bool) {
    let mut buffer = BytesMut::from(bytes);
    let (header, body) = frame::next_frame(&mut buffer, FRAME_BYTES_MAX)
        .expect("nobody changes frames on their way")
        .expect("frames travel whole");
    let frame = frame::decode(header, body).expect("what a node encodes can be decoded");
    (header.request_id, frame, buffer.is_empty())
}

fn peer_input(from: NodeId, relay: u64, frame: Frame) -> Option<Input> {
    Some(match frame {
        Frame::Paxos(message) => Input::Paxos { from, message },
        Frame::Roster { founded, roster } => Input::Roster { from, founded, roster },
        Frame::Transfer(transfer) => Input::Transfer { from, transfer },
        Frame::Forward { request, .. } => Input::Forward { from, relay, request },
        Frame::ForwardReply(reply) => Input::ForwardReply { from, relay, reply },
        _ => return None,
    })
}
