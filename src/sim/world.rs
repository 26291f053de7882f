//! The world: one loop over everything that happens, to nodes, clients and the network between them.
//!
//! A turn of a node is run when something is due; how long it took (its sync) says until when the node takes nothing in,
//! and what it said leaves at the times at which it would have. Nothing waits, nothing is drawn from anywhere but the
//! seed.

use super::checks::Checks;
use super::client::{Mix, SimClient};
use super::clock::Clock;
use super::door::{self, Arrival, Out, Shared};
use super::faults::{Fault, FaultSet};
use super::network::{End, Network};
use super::node::{Death, Ending, SimNode};
use super::queue::{Event, Queue};
use super::report::{Counts, Digest, Report, Transcript, Violation};
use super::storm::Storm;
use crate::client::End as OperationEnd;
use crate::client::machine::{Effect, Input as ClientInput};
use crate::kv::Op;
use crate::machine::Settings;
use crate::node::peers::DialEnd;
use crate::paxos::NodeId;
use crate::storage::sim::SimDisk;
use crate::time::Time;
use crate::wire::frame::{self, FrameType};
use crate::wire::{Frame, Request, RequestOp};
use crate::workload::plan::Ended;
use crate::workload::record::{RecordError, Recorder};
use bytes::Bytes;
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// A dial and its handshake take no longer (the node's own limits are one second for the one, two for the other).
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a link is looked at.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// A link on which nobody answered for so long is closed by both.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Old writes that are kept, to arrive again.
const OLD_WRITES_MAX: usize = 64;
/// Where the type stands in a frame.
const TYPE_AT: usize = 8;
/// Where the checksum stands in a frame.
const CRC_AT: usize = 4;

/// What a world is made from.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything else is drawn from it.
    pub seed: u64,
    /// The kinds of faults that a seed may draw.
    pub faults: FaultSet,
    /// How long faults happen.
    pub storm: Duration,
    /// The size of the cluster, if it is not to be drawn.
    pub nodes: Option<usize>,
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) dialler: End,
    pub(super) acceptor: usize,
    /// When the last frame in each direction arrives: to the acceptor, to the dialler.
    last: [Time; 2],
    /// Since when nobody answers on it.
    silent_since: Option<Time>,
}

/// A write that a client has sent, and that may arrive again: if it was done, or nobody knows whether. What its client was
/// told to be not done, no copy may do: that is a promise of the cluster about the attempts that reached it, and of the
/// network about the others.
pub(super) struct OldWrite {
    pub(super) bytes: Bytes,
    pub(super) request: Request,
    client: usize,
    /// Nobody knows, or ever will.
    pub(super) is_unknown: bool,
}

/// A cluster, its clients, and all that happens to them.
pub struct World {
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) nodes: Vec<SimNode>,
    pub(super) clients: Vec<SimClient>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) shared: Shared,
    pub(super) storm: Storm,
    pub(super) recorder: Recorder,
    pub(super) old_writes: VecDeque<OldWrite>,
    seed: u64,
    digest: Digest,
}

impl Options {
    /// A whole run of a seed: all kinds of faults, for half a minute.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            faults: FaultSet::ALL,
            storm: Duration::from_secs(30),
            nodes: None,
        }
    }
}

impl World {
    /// The world of a seed, in which nothing has happened.
    pub fn new(options: &Options, transcript: Transcript) -> World {
        let mut rng = Rng::with_seed(options.seed);
        let drawn = [1, 3, 3, 3, 3, 5, 5, 7][rng.usize(0..8)];
        let size = options.nodes.unwrap_or(drawn);
        let nodes: Vec<SimNode> = nodes(size, &mut rng);
        let client_count = rng.usize(1..=5);
        let lanes: Vec<usize> = (0..client_count).map(|_| rng.usize(1..=3)).collect();
        let mix = Mix::draw(lanes.iter().sum(), &mut rng);
        let clients = lanes
            .into_iter()
            .enumerate()
            .map(|(name, lanes)| SimClient::new(name, lanes, size, mix.clone(), rng.fork()))
            .collect();
        let shared = Shared {
            numbers: Rc::new(Cell::new(0)),
            checks: Rc::new(RefCell::new(Checks::new(size))),
            counts: Rc::new(RefCell::new(Counts::default())),
            transcript,
        };
        let mut world = World {
            now: Time::ZERO,
            queue: Queue::default(),
            network: Network::new(size, client_count, &mut rng),
            nodes,
            clients,
            connections: BTreeMap::new(),
            shared,
            storm: Storm::draw(options.faults, options.storm, &mut rng),
            recorder: Recorder::new(None, true).expect("without a file, nothing can fail"),
            old_writes: VecDeque::new(),
            seed: options.seed,
            digest: Digest::default(),
            rng,
        };
        world.arrange_beginning();
        world
    }

    fn arrange_beginning(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.soon(200_000);
            self.queue.push(at, Event::Start(node));
        }
        for client in 0..self.clients.len() {
            self.begin_lanes(client);
        }
        let at = self.soon(2_000_000);
        self.queue.push(at, Event::Storm);
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(mut self) -> Result<Report, Violation> {
        while !self.is_over()? {
            let (at, event) = self.queue.pop().ok_or_else(|| Violation {
                rule: "liveness",
                words: "nothing will ever happen again".into(),
            })?;
            self.now = self.now.max(at);
            self.happen(event)?;
            if let Some(violation) = self.shared.checks.borrow_mut().take_found() {
                return Err(violation);
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Report, Violation> {
        let recorder = std::mem::replace(&mut self.recorder, Recorder::new(None, false).expect("without a file"));
        self.check_history(recorder)?;
        let mut counts = self.shared.counts.borrow().clone();
        counts.slots = self.shared.checks.borrow().chosen_upto().0;
        for word in [counts.slots, counts.done, counts.not_done, counts.unknown] {
            self.digest.word(word);
        }
        Ok(Report {
            seed: self.seed,
            nodes: self.nodes.len(),
            digest: self.digest.value(),
            simulated: self.now.since(Time::ZERO),
            counts,
        })
    }

    /// A moment within the next `most_us` microseconds.
    pub(super) fn soon(&mut self, most_us: u64) -> Time {
        self.now + Duration::from_micros(self.rng.u64(0..=most_us))
    }

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        self.shared.transcript.tell(self.now, line);
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.shared.counts.borrow_mut().fault(fault);
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let words = words_of(&event);
        match event {
            Event::Wake(node) if self.nodes[node].wake_at != Some(self.now) => return Ok(()),
            Event::ClientWake(client) if self.clients[client].wake_at != Some(self.now) => return Ok(()),
            _ => {}
        }
        self.shared.counts.borrow_mut().events += 1;
        self.digest.word(self.now.0);
        self.digest.word(words.0);
        self.digest.word(words.1);
        match event {
            Event::Wake(node) => {
                self.nodes[node].wake_at = None;
                self.wake(node)
            }
            Event::ClientWake(client) => {
                self.clients[client].wake_at = None;
                self.client_input(client, ClientInput::Deadline)
            }
            Event::Submit { client, life, lane } if self.clients[client].life == life => self.submit(client, lane),
            Event::Submit { .. } => Ok(()),
            Event::Connect(connection) => {
                self.on_connect(connection);
                Ok(())
            }
            Event::Connected { connection, refused } => self.on_connected(connection, refused),
            Event::DialTimeout(connection) => self.on_dial_timeout(connection),
            Event::Frame {
                connection,
                to_acceptor,
                bytes,
            } => self.on_frame(connection, to_acceptor, bytes),
            Event::Closed {
                connection,
                to_acceptor,
            } => self.on_closed(connection, to_acceptor),
            Event::Keepalive(connection) => self.on_keepalive(connection),
            Event::Start(node) => self.start(node),
            Event::Storm => self.on_storm(),
            Event::Calm(relief) => self.relieve(relief),
            Event::Ghost { node, bytes } => self.on_ghost(node, bytes),
        }
    }

    // ---- nodes ----

    pub(super) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_up() || self.nodes[node].is_lost {
            return Ok(());
        }
        let seed = self.rng.u64(..);
        self.nodes[node].has_power = true;
        let (now, id) = (self.now, self.nodes[node].id);
        self.tell(|| format!("{id} starts"));
        let ending = self.nodes[node].start(now, seed, &self.shared)?;
        self.after_turn(node, ending)
    }

    /// Something arrives at a node; it may have its turn now.
    pub(super) fn arrive(&mut self, node: usize, arrival: Arrival) -> Result<(), Violation> {
        let now = self.now;
        let there = &mut self.nodes[node];
        let Some(life) = &mut there.life else { return Ok(()) };
        life.door.arrive(arrival);
        let at = now.max(there.busy_until).max(there.paused_until);
        if at == now {
            return self.turn(node);
        }
        self.wake_node_at(node, at);
        Ok(())
    }

    fn wake_node_at(&mut self, node: usize, at: Time) {
        let there = &mut self.nodes[node];
        if there.wake_at.is_none_or(|wake| wake > at) {
            there.wake_at = Some(at);
            self.queue.push(at, Event::Wake(node));
        }
    }

    fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let until = self.nodes[node].paused_until.max(self.nodes[node].busy_until);
        if until > self.now {
            self.wake_node_at(node, until);
            return Ok(());
        }
        self.turn(node)
    }

    fn turn(&mut self, node: usize) -> Result<(), Violation> {
        self.shared.counts.borrow_mut().turns += 1;
        let ending = self.nodes[node].run_turn(self.now)?;
        self.after_turn(node, ending)
    }

    fn after_turn(&mut self, node: usize, ending: Option<Ending>) -> Result<(), Violation> {
        self.send_out(node);
        if let Some(ending) = ending {
            return self.on_ending(node, ending);
        }
        if let Some(machine) = self.nodes[node].machine() {
            self.shared.checks.borrow_mut().look_at(self.nodes[node].id, machine)?;
        }
        if let Some(at) = self.nodes[node].next_turn() {
            self.wake_node_at(node, at.max(self.now));
        }
        Ok(())
    }

    /// What the node said in its turn is on its way.
    fn send_out(&mut self, node: usize) {
        let Some(life) = &mut self.nodes[node].life else { return };
        let mut left = life.door.take_left();
        for (at, out) in left.drain(..) {
            match out {
                Out::Dial(connection, peer) => {
                    let acceptor = usize::from(peer.0) - 1;
                    self.dial(connection, End::Node(node), acceptor, at);
                    self.queue.push(at + DIAL_TIMEOUT, Event::DialTimeout(connection));
                }
                Out::Frame(connection, bytes) => self.send(connection, End::Node(node), bytes, at),
                Out::Close(connection) => self.hang_up(connection, End::Node(node), at),
            }
        }
        if let Some(life) = &mut self.nodes[node].life {
            life.door.give_back(left);
        }
    }

    fn on_ending(&mut self, node: usize, ending: Ending) -> Result<(), Violation> {
        let id = self.nodes[node].id;
        self.tell(|| format!("{id} ends: {ending:?}"));
        let death = match ending {
            Ending::PowerCut => {
                self.fault(Fault::PowerCutInOperation);
                Death::PowerLost
            }
            Ending::SyncFailed => {
                self.fault(Fault::SyncFailure);
                Death::Killed
            }
            Ending::NoSpace => {
                self.shared.counts.borrow_mut().mark("ends for lack of space");
                Death::Killed
            }
            Ending::Damaged => {
                self.fault(Fault::BitRot);
                self.nodes[node].is_lost = true;
                Death::Killed
            }
            Ending::Finished => {
                self.fault(Fault::Shutdown);
                Death::Killed
            }
        };
        self.bring_down(node, death);
        Ok(())
    }

    /// A process ends now; it starts again some time later.
    pub(super) fn bring_down(&mut self, node: usize, death: Death) {
        let open = self.nodes[node].life.as_ref().map(|life| life.door.connections());
        for connection in open.unwrap_or_default() {
            if death == Death::Killed {
                self.hang_up(connection, End::Node(node), self.now);
            }
        }
        self.nodes[node].die(death);
        let id = self.nodes[node].id;
        self.tell(|| format!("{id} is down: {death:?}"));
        let at = self.restart_at();
        self.queue.push(at, Event::Start(node));
    }

    // ---- the network ----

    fn dial(&mut self, connection: u64, dialler: End, acceptor: usize, at: Time) {
        let made = Connection {
            dialler,
            acceptor,
            last: [Time::ZERO; 2],
            silent_since: None,
        };
        self.connections.insert(connection, made);
        let at = at + self.network.delay(&mut self.rng);
        self.queue.push(at, Event::Connect(connection));
    }

    /// Sends a frame at `at`, from one end of a connection to the other.
    fn send(&mut self, connection: u64, from: End, bytes: Bytes, at: Time) {
        let Some(link) = self.connections.get_mut(&connection) else {
            return;
        };
        let to_acceptor = from == link.dialler;
        let is_between_nodes = matches!(link.dialler, End::Node(_));
        let is_hello = bytes.get(TYPE_AT) == Some(&FrameType::Hello.byte());
        let last = &mut link.last[usize::from(!to_acceptor)];
        let mut arrives = |delay: Duration, overtakes: bool| {
            let on_its_own = at + delay;
            if overtakes {
                return on_its_own;
            }
            *last = on_its_own.max(*last);
            *last
        };
        if is_hello || !is_between_nodes {
            let at = arrives(self.network.delay(&mut self.rng), false);
            self.queue.push(
                at,
                Event::Frame {
                    connection,
                    to_acceptor,
                    bytes,
                },
            );
            return;
        }
        let fate = self.network.fate(&mut self.rng, &mut self.shared.counts.borrow_mut());
        let [first, second] = fate.delays;
        for (delay, overtakes) in [(first, fate.overtakes), (second, true)] {
            let Some(delay) = delay else { continue };
            let (at, bytes) = (arrives(delay, overtakes), bytes.clone());
            self.queue.push(
                at,
                Event::Frame {
                    connection,
                    to_acceptor,
                    bytes,
                },
            );
        }
    }

    /// One end closes a connection: the other one will hear of it, if it can.
    pub(super) fn hang_up(&mut self, connection: u64, end: End, at: Time) {
        let Some(link) = self.connections.get(&connection) else {
            return;
        };
        let to_acceptor = end == link.dialler;
        let at = at + self.network.delay(&mut self.rng);
        // Not before what was sent on it.
        let at = at.max(link.last[usize::from(!to_acceptor)]);
        self.queue.push(
            at,
            Event::Closed {
                connection,
                to_acceptor,
            },
        );
    }

    fn ends(&self, connection: u64, to_acceptor: bool) -> Option<(End, End)> {
        let link = self.connections.get(&connection)?;
        let acceptor = End::Node(link.acceptor);
        Some(if to_acceptor {
            (link.dialler, acceptor)
        } else {
            (acceptor, link.dialler)
        })
    }

    pub(super) fn is_open_at(&self, connection: u64, end: End) -> bool {
        match end {
            End::Node(node) => {
                let life = self.nodes[node].life.as_ref();
                life.is_some_and(|life| life.door.has(connection))
            }
            End::Client(client) => self.clients[client].endpoint_of(connection).is_some(),
        }
    }

    fn on_connect(&mut self, connection: u64) {
        let Some((dialler, End::Node(acceptor))) = self.ends(connection, true) else {
            return;
        };
        let has_power = self.nodes[acceptor].has_power;
        if !has_power || !self.network.reaches(dialler, End::Node(acceptor)) {
            return;
        }
        let refused = match &mut self.nodes[acceptor].life {
            Some(life) => {
                life.door.arrive(Arrival::Accepted(connection));
                false
            }
            None => true,
        };
        let at = self.now + self.network.delay(&mut self.rng);
        self.queue.push(at, Event::Connected { connection, refused });
        if !refused && matches!(dialler, End::Node(_)) {
            self.queue
                .push(self.now + KEEPALIVE_EVERY, Event::Keepalive(connection));
        }
    }

    fn on_connected(&mut self, connection: u64, refused: bool) -> Result<(), Violation> {
        let Some((acceptor, dialler)) = self.ends(connection, false) else {
            return Ok(());
        };
        if !self.network.reaches(acceptor, dialler) {
            return Ok(());
        }
        if !self.is_open_at(connection, dialler) {
            self.hang_up(connection, dialler, self.now);
            return Ok(());
        }
        match dialler {
            End::Node(node) if refused => self.arrive(node, Arrival::DialFailed(connection, DialEnd::Refused)),
            End::Node(node) => self.arrive(node, Arrival::Connected(connection)),
            End::Client(client) => {
                let Some(endpoint) = self.clients[client].endpoint_of(connection) else {
                    return Ok(());
                };
                if refused {
                    self.clients[client].connections.remove(&endpoint);
                    let detail = String::new();
                    return self.client_input(client, ClientInput::Refused { endpoint, detail });
                }
                self.client_input(client, ClientInput::Connected { endpoint })
            }
        }
    }

    fn on_dial_timeout(&mut self, connection: u64) -> Result<(), Violation> {
        let Some((End::Node(dialler), _)) = self.ends(connection, true) else {
            return Ok(());
        };
        let life = self.nodes[dialler].life.as_ref();
        if !life.is_some_and(|life| life.door.is_dialling(connection)) {
            return Ok(());
        }
        self.hang_up(connection, End::Node(dialler), self.now);
        self.arrive(dialler, Arrival::DialFailed(connection, DialEnd::Failed))
    }

    fn on_frame(&mut self, connection: u64, to_acceptor: bool, bytes: Bytes) -> Result<(), Violation> {
        let Some((from, to)) = self.ends(connection, to_acceptor) else {
            return Ok(());
        };
        let is_heard = match to {
            End::Node(node) => self.nodes[node].has_power,
            End::Client(_) => true,
        };
        if !is_heard || !self.network.reaches(from, to) {
            return Ok(());
        }
        if !self.is_open_at(connection, to) {
            self.hang_up(connection, to, self.now); // nobody knows that connection here
            return Ok(());
        }
        match to {
            End::Node(node) => self.arrive(node, Arrival::Frame(connection, bytes)),
            End::Client(client) => {
                let Some(endpoint) = self.clients[client].endpoint_of(connection) else {
                    return Ok(());
                };
                let (request_id, frame, _) = door::decode(bytes);
                let input = ClientInput::Frame {
                    endpoint,
                    request_id,
                    frame,
                };
                self.client_input(client, input)
            }
        }
    }

    fn on_closed(&mut self, connection: u64, to_acceptor: bool) -> Result<(), Violation> {
        let Some((from, to)) = self.ends(connection, to_acceptor) else {
            return Ok(());
        };
        if !self.network.reaches(from, to) {
            return Ok(());
        }
        self.close_at(connection, to)?;
        if !self.is_open_at(connection, from) && !self.is_open_at(connection, to) {
            self.connections.remove(&connection);
        }
        Ok(())
    }

    /// An end learns that a connection is no more.
    pub(super) fn close_at(&mut self, connection: u64, end: End) -> Result<(), Violation> {
        match end {
            End::Node(node) if self.is_open_at(connection, end) => self.arrive(node, Arrival::Closed(connection)),
            End::Node(_) => Ok(()),
            End::Client(client) => {
                let Some(endpoint) = self.clients[client].endpoint_of(connection) else {
                    return Ok(());
                };
                self.clients[client].connections.remove(&endpoint);
                let detail = String::new();
                self.client_input(client, ClientInput::Lost { endpoint, detail })
            }
        }
    }

    /// What pings do: an end that hears nothing for too long closes its connection.
    fn on_keepalive(&mut self, connection: u64) -> Result<(), Violation> {
        let Some((dialler, acceptor)) = self.ends(connection, true) else {
            return Ok(());
        };
        let (here, there) = (
            self.is_open_at(connection, dialler),
            self.is_open_at(connection, acceptor),
        );
        if !here && !there {
            self.connections.remove(&connection);
            return Ok(());
        }
        let responds = |end: End| match end {
            End::Node(node) => self.nodes[node].is_responsive(self.now),
            End::Client(_) => true,
        };
        let is_well = here
            && there
            && responds(dialler)
            && responds(acceptor)
            && self.network.reaches(dialler, acceptor)
            && self.network.reaches(acceptor, dialler);
        let now = self.now;
        let Some(link) = self.connections.get_mut(&connection) else {
            return Ok(());
        };
        if is_well {
            link.silent_since = None;
        } else if now.since(*link.silent_since.get_or_insert(now)) >= KEEPALIVE_TIMEOUT {
            self.close_at(connection, dialler)?;
            self.close_at(connection, acceptor)?;
        }
        self.queue.push(now + KEEPALIVE_EVERY, Event::Keepalive(connection));
        Ok(())
    }

    // ---- clients ----

    pub(super) fn begin_lanes(&mut self, client: usize) {
        for lane in 0..self.clients[client].lanes.len() {
            let pause = self.clients[client].pause();
            let life = self.clients[client].life;
            self.queue.push(self.now + pause, Event::Submit { client, life, lane });
        }
    }

    fn submit(&mut self, client: usize, lane: usize) -> Result<(), Violation> {
        let Some(patience) = self.may_submit(client, lane) else {
            return Ok(());
        };
        let (op, input) = self.clients[client].next(lane, self.now, patience);
        let place = self.place(client, lane);
        let recorded = self.recorder.invoke(place, &op, self.now);
        recorded.map_err(|error| unrecorded(&error))?;
        self.tell(|| format!("client {client}.{lane} asks: {op:?}"));
        self.client_input(client, input)
    }

    /// The place of a lane in the history.
    fn place(&self, client: usize, lane: usize) -> usize {
        let before = self.clients[..client].iter().map(|client| client.lanes.len());
        before.sum::<usize>() + lane
    }

    pub(super) fn client_input(&mut self, client: usize, input: ClientInput) -> Result<(), Violation> {
        let effects = self.clients[client].step(self.now, input);
        for effect in effects {
            match effect {
                Effect::Connect { endpoint } => {
                    let connection = self.shared.numbers.get() + 1;
                    self.shared.numbers.set(connection);
                    self.clients[client].connections.insert(endpoint, connection);
                    let node = self.clients[client].node_of(endpoint);
                    self.dial(connection, End::Client(client), node, self.now);
                }
                Effect::Send {
                    endpoint,
                    request_id,
                    frame,
                } => self.client_sends(client, endpoint, request_id, &frame),
                Effect::Close { endpoint } => {
                    if let Some(connection) = self.clients[client].connections.remove(&endpoint) {
                        self.hang_up(connection, End::Client(client), self.now);
                    }
                }
                Effect::Finished { token, end } => self.on_finished(client, token, &end)?,
                Effect::Closed => {}
            }
        }
        if let Some(at) = self.clients[client].machine.deadline() {
            let at = at.max(self.now);
            let there = &mut self.clients[client];
            if there.wake_at.is_none_or(|wake| wake > at) {
                there.wake_at = Some(at);
                self.queue.push(at, Event::ClientWake(client));
            }
        }
        Ok(())
    }

    fn client_sends(&mut self, client: usize, endpoint: usize, request_id: u64, frame: &Frame) {
        let bytes = frame::encode_to_bytes(frame, request_id);
        if let Frame::Request(request) = frame
            && let RequestOp::Write(_) = request.op
        {
            if self.old_writes.len() == OLD_WRITES_MAX {
                self.old_writes.pop_front();
            }
            self.old_writes.push_back(OldWrite {
                bytes: bytes.clone(),
                request: request.clone(),
                client,
                is_unknown: false,
            });
        }
        if let Some(connection) = self.clients[client].connections.get(&endpoint) {
            self.send(*connection, End::Client(client), bytes, self.now);
        }
    }

    fn on_finished(&mut self, client: usize, token: u64, end: &OperationEnd) -> Result<(), Violation> {
        let (lane, op) = self.clients[client].ended(token, end);
        if let (OperationEnd::Unknown(_), Some(op)) = (end, op) {
            self.stays_unknown(client, &op);
        }
        self.tell(|| format!("client {client}.{lane} has: {end:?}"));
        let (cause, why) = end
            .failure()
            .map_or(("", String::new()), |failure| (failure.cause.name(), String::new()));
        let (ended, count): (Ended, fn(&mut Counts) -> &mut u64) = match end {
            OperationEnd::Done(served) => (Ended::Done(served.clone()), |counts| &mut counts.done),
            OperationEnd::NotDone(_) => (Ended::NotDone { cause, why }, |counts| &mut counts.not_done),
            OperationEnd::Unknown(_) => (Ended::Unknown { cause, why }, |counts| &mut counts.unknown),
        };
        *count(&mut self.shared.counts.borrow_mut()) += 1;
        self.record_end(client, lane, &ended)?;
        self.judge_last(client, lane, end)?;
        let pause = self.clients[client].pause();
        let life = self.clients[client].life;
        self.queue.push(self.now + pause, Event::Submit { client, life, lane });
        Ok(())
    }

    /// Nobody will ever be told what became of an operation: copies of it may arrive at any time. Two deletions of one
    /// key look the same, and the other one may be certain, so those are left out.
    fn stays_unknown(&mut self, client: usize, op: &RequestOp) {
        if matches!(op, RequestOp::Write(Op::Del { .. })) {
            return;
        }
        let same = |old: &&mut OldWrite| old.client == client && old.request.op == *op;
        self.old_writes
            .iter_mut()
            .filter(same)
            .for_each(|old| old.is_unknown = true);
    }

    fn record_end(&mut self, client: usize, lane: usize, ended: &Ended) -> Result<(), Violation> {
        let place = self.place(client, lane);
        let recorded = self.recorder.end(place, ended, self.now);
        recorded.map_err(|error| unrecorded(&error))
    }

    /// A client's process dies; another takes its place.
    pub(super) fn end_client(&mut self, client: usize) -> Result<(), Violation> {
        self.tell(|| format!("client {client} dies"));
        let (cause, why) = ("died", String::new());
        for lane in 0..self.clients[client].lanes.len() {
            if let Some(op) = self.clients[client].lanes[lane].clone() {
                self.stays_unknown(client, &op);
                self.shared.counts.borrow_mut().unknown += 1;
                let why = why.clone();
                self.record_end(client, lane, &Ended::Unknown { cause, why })?;
            }
        }
        let open: Vec<u64> = self.clients[client].connections.values().copied().collect();
        for connection in open {
            self.hang_up(connection, End::Client(client), self.now);
        }
        let size = self.nodes.len();
        self.clients[client].die(size);
        self.begin_lanes(client);
        Ok(())
    }

    /// A late copy of a write arrives, on a connection whose answers nobody reads.
    fn on_ghost(&mut self, node: usize, bytes: Bytes) -> Result<(), Violation> {
        let Some(life) = &mut self.nodes[node].life else {
            return Ok(());
        };
        let connection = self.shared.numbers.get() + 1;
        self.shared.numbers.set(connection);
        let hello = crate::wire::Hello {
            version_min: crate::wire::hello::PROTOCOL_VERSION_MIN,
            version_max: crate::wire::hello::PROTOCOL_VERSION_MAX,
            features: crate::wire::hello::FEATURES,
            kind: crate::wire::HelloKind::Client,
            cluster_name: String::new(),
            cluster_id: 0,
        };
        life.door.arrive(Arrival::Accepted(connection));
        let hello = frame::encode_to_bytes(&Frame::Hello(hello), 0);
        life.door.arrive(Arrival::Frame(connection, hello));
        self.fault(Fault::LateDuplicate);
        self.arrive(node, Arrival::Frame(connection, bytes))
    }
}

/// The nodes of a new cluster, with settings that meet their bounds often.
fn nodes(size: usize, rng: &mut Rng) -> Vec<SimNode> {
    let ids: Vec<NodeId> = (1..=size as u16).map(NodeId).collect();
    let batch_bytes = 1 << rng.u32(8..14);
    let window_slots = 1 << rng.u32(0..8);
    let cache_bytes = 1 << rng.u32(8..20);
    let queue_requests = if rng.u8(0..4) == 0 { rng.usize(1..10) } else { 1_000 };
    let segment_bytes = 1 << rng.u32(17..20);
    ids.iter()
        .map(|id| {
            let settings = Settings {
                advertise: id.to_string(),
                batch_bytes,
                window_slots,
                window_bytes: 4 * batch_bytes,
                cache_bytes,
                queue_requests,
                disk_reserve: 16 << 10,
                ..Settings::new(*id, ids.clone())
            };
            let clock = Clock::new(Time::ZERO, Time(rng.u64(0..1 << 40)), 0);
            let disk = SimDisk::new(rng.u64(..)).named(&id.to_string());
            SimNode::new(settings, segment_bytes, clock, disk)
        })
        .collect()
}

fn unrecorded(error: &RecordError) -> Violation {
    Violation {
        rule: "history",
        words: error.to_string(),
    }
}

/// What the digest takes in of an event, beside its time.
fn words_of(event: &Event) -> (u64, u64) {
    let crc = |bytes: &Bytes| {
        let crc = bytes.get(CRC_AT..CRC_AT + 4).and_then(|crc| crc.try_into().ok());
        u64::from(crc.map_or(0, u32::from_be_bytes))
    };
    match event {
        Event::Wake(node) => (1, *node as u64),
        Event::ClientWake(client) => (2, *client as u64),
        Event::Submit { client, lane, .. } => (3, (client << 8 | lane) as u64),
        Event::Connect(connection) => (4, *connection),
        Event::Connected { connection, refused } => (5 + u64::from(*refused), *connection),
        Event::DialTimeout(connection) => (7, *connection),
        Event::Frame {
            connection,
            to_acceptor,
            bytes,
        } => (8 + u64::from(*to_acceptor), connection << 32 | crc(bytes)),
        Event::Closed {
            connection,
            to_acceptor,
        } => (10 + u64::from(*to_acceptor), *connection),
        Event::Keepalive(connection) => (12, *connection),
        Event::Start(node) => (13, *node as u64),
        Event::Storm => (14, 0),
        Event::Calm(_) => (15, 0),
        Event::Ghost { node, bytes } => (16, (*node as u64) << 32 | crc(bytes)),
    }
}
