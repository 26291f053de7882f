//! The node's door: one `mio::Poll` with its sockets, edge-triggered and drained, and one queue of deadlines.
//!
//! A connection has a number that is never used again, which is its token in the poll, its key here and its name
//! towards the machine; so a late event or a late reply cannot reach a newer connection. Invariants:
//! * S1. A connection that may have unread bytes is in `ready`, or was paused and will be put there by what ends the
//!   pause, or its socket will tell; likewise `dirty` for unwritten ones. No readiness is lost.
//! * S2. While `ready`, `dirty` or `inputs` hold anything, the poll does not wait; when they are empty it does.
//! * S3. Each connection's deadline stands in `timers` as the link last told it (`armed`).
//! * S4. A link that goes away tells its peer's book-keeping exactly once (`Server::detach`).
//! * S5. A client that `budget` keeps from being read is read again when there is room.
//!
//! * `budget`: what all connections hold together. `accept`: listeners and limits. `read`: what comes in, frame by frame.
//!   `handshake`: HELLO both ways.
//! * `links`: dialling, pings, closing. `speak`: the [`Door`](super::door::Door). `lines`: the debug port.

mod accept;
mod budget;
mod handshake;
mod lines;
mod links;
mod read;
mod speak;
#[cfg(test)]
mod tests;

use super::connection::Connection;
use super::debug;
use super::faults::Faults;
use super::flags::{Config, DebugListen};
use super::limits::{AWAKE_FOR, EVENTS_PER_POLL, POLLS_PER_GATHER, READ_CHUNK_BYTES, TURN_INPUTS_MAX, TURN_READ_BYTES};
use super::link::{Link, Overdue, Role};
use super::logging::Complaints;
use super::marks::Marks;
use super::metrics::{Gauges, Metrics};
use super::numbered::Numbered;
use super::peers::{Address, Peer};
use super::ring::Ring;
use super::signals::{self, Signals};
use crate::machine::{Input, Machine};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::Frame;
use crate::wire::message::ErrorCode;
use accept::Listeners;
use budget::Budget;
use bytes::Bytes;
use mio::{Events, Poll, Token};
use speak::Delayed;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LISTENER: Token = Token(0);
const DEBUG_LISTENER: Token = Token(1);
const SIGNALS: Token = Token(2);
const PARENT: Token = Token(3);
/// Numbers below are tokens of what is no connection.
const FIRST_CONNECTION: u64 = 16;

/// The sockets of one node.
pub struct Server {
    poll: Poll,
    events: Events,
    origin: Instant,
    /// The clock as last looked at: by the turn when a part of it begins, and behind the poll. What is done between has
    /// this time, however much it is.
    clock: Time,
    config: Config,
    /// Connections of all kinds that may be open; what is beyond belongs to files.
    sockets_max: usize,
    listeners: Listeners,
    signals: Option<Signals>,
    links: Numbered<Link>,
    /// Where every read goes first.
    scratch: Box<[u8]>,
    /// Connections that have not said HELLO, oldest first.
    fresh: BTreeSet<u64>,
    clients: usize,
    debug_links: usize,
    /// Connections to be read in this turn, or in the next one without waiting.
    ready: Marks,
    /// The client that was read last; the next one in the order of numbers is read first in the next turn.
    served_last: u64,
    /// Connections with something to write that their socket may take.
    dirty: Marks,
    /// Memory for the numbers that are taken of the two.
    taken: Vec<u64>,
    /// Connections of the debug port that follow the ring.
    followers: BTreeSet<u64>,
    timers: BTreeSet<(Time, u64)>,
    peers: BTreeMap<NodeId, Peer>,
    /// Inputs for the machine that the next gather hands over.
    inputs: Vec<Input>,
    /// Bytes that wait to be written to all connections.
    queued: usize,
    budget: Budget,
    /// Frames held back by an injected delay.
    delayed: Delayed,
    /// The last ACCEPT, encoded once for all peers.
    encoded: Option<(Frame, Bytes)>,
    faults: Faults,
    /// Somebody asked for a snapshot at the debug port.
    wants_snapshot: bool,
    wants_scrub: bool,
    ring: Ring,
    metrics: Metrics,
    complaints: Complaints,
    chance: fastrand::Rng,
    /// When a clean end was first asked for.
    ending_since: Option<Time>,
}

/// Why the sockets could not be set up.
#[derive(Debug)]
pub enum ServerError {
    /// An address cannot be listened on.
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The debug port would be open to other machines.
    DebugNotLoopback {
        /// The address.
        address: String,
    },
    /// Standard input, which shall tell the launcher's death, is nothing that can be polled.
    Parent(io::Error),
    /// Anything else that the system refused.
    System(io::Error),
}

impl Server {
    /// Listens, and is ready to dial at the first gather. Accepts no more than `sockets_max` connections of all kinds.
    ///
    /// # Errors
    /// [`ServerError`].
    #[expect(
        clippy::disallowed_methods,
        reason = "the loop reads the clock, so that the machine need not"
    )]
    pub fn new(config: &Config, sockets_max: usize) -> Result<Server, ServerError> {
        let poll = Poll::new().map_err(ServerError::System)?;
        let listeners = Listeners::open(config, poll.registry())?;
        let others = config.members.iter().filter(|member| member.node != config.node);
        let peers = others
            .map(|member| {
                (
                    member.node,
                    Peer::new(member.node, Address::new(&member.address), Time::ZERO),
                )
            })
            .collect();
        Ok(Server {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            origin: Instant::now(),
            clock: Time::ZERO,
            config: config.clone(),
            sockets_max,
            listeners,
            signals: None,
            links: Numbered::starting_at(FIRST_CONNECTION),
            scratch: vec![0; READ_CHUNK_BYTES].into(),
            fresh: BTreeSet::new(),
            clients: 0,
            debug_links: 0,
            ready: Marks::default(),
            served_last: 0,
            dirty: Marks::default(),
            taken: Vec::new(),
            followers: BTreeSet::new(),
            timers: BTreeSet::new(),
            peers,
            inputs: Vec::new(),
            queued: 0,
            budget: Budget::new(config.buffer_bytes),
            delayed: Delayed::default(),
            encoded: None,
            faults: Faults::new(config.node, config.acceptor_failures),
            wants_snapshot: false,
            wants_scrub: false,
            ring: Ring::default(),
            metrics: Metrics::default(),
            complaints: Complaints::default(),
            chance: fastrand::Rng::new(),
            ending_since: None,
        })
    }

    /// Takes SIGTERM and SIGINT, and watches the launcher if the flags say so. For the process, not for tests.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn take_signals(&mut self) -> Result<(), ServerError> {
        let registry = self.poll.registry();
        self.signals = Some(Signals::new(registry, SIGNALS).map_err(ServerError::System)?);
        if self.config.exit_with_parent {
            signals::watch_parent(registry, PARENT).map_err(ServerError::Parent)?;
        }
        Ok(())
    }

    /// The address of the port for peers and clients.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listeners.local_address()
    }

    /// The address of the debug port, if it is on.
    pub fn debug_address(&self) -> Option<SocketAddr> {
        self.listeners.debug_address()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Since when the node is ending, if it is.
    pub fn ending_since(&self) -> Option<Time> {
        self.ending_since
    }

    /// Asks for a clean end, as SIGTERM does.
    pub fn end(&mut self, why: &str) {
        if self.ending_since.is_none() {
            log::info!("ending: {why}");
            self.ending_since = Some(self.look_at_clock());
            self.inputs.push(Input::Shutdown);
        }
    }

    /// Whether nothing waits to be written any more.
    pub fn is_flushed(&self) -> bool {
        self.queued == 0
    }

    fn look_at_clock(&mut self) -> Time {
        self.clock = Time(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.clock
    }

    fn gauges(&self) -> Gauges {
        let in_flight = |link: &Link| match &link.role {
            Role::Client { in_flight, .. } => in_flight.len(),
            _ => 0,
        };
        Gauges {
            clients: self.clients,
            fresh: self.fresh.len(),
            peers: self.links.values().filter(|link| link.peer().is_some()).count(),
            debug: self.debug_links,
            input_bytes: self.budget.input(),
            output_bytes: self.queued,
            stalled: self.budget.stalled(),
            in_flight: self.links.values().map(in_flight).sum(),
            ..Gauges::default() // what the machine knows is added where the machine is at hand
        }
    }

    /// The whole of [`Door::gather`](super::door::Door::gather), but for handing over the inputs.
    fn take_in(&mut self, machine: &Machine, wait: Option<Duration>) -> io::Result<()> {
        self.metrics.turns += 1;
        self.pause();
        self.take_what_comes(machine, wait)?;
        let now = self.clock;
        self.on_timers(machine, now);
        self.dial_all(now);
        self.release_delayed(now);
        self.faults.due(now, &mut self.inputs);
        if std::mem::take(&mut self.wants_snapshot) {
            self.inputs.push(Input::TakeSnapshot);
        }
        if std::mem::take(&mut self.wants_scrub) {
            self.inputs.push(Input::Scrub);
        }
        Ok(())
    }

    /// Waits for the sockets, and reads what is ready.
    fn take_what_comes(&mut self, machine: &Machine, wait: Option<Duration>) -> io::Result<()> {
        self.poll_all(wait, machine.awaits_word_on_few_reads())?;
        let now = self.clock;
        self.accept_all(machine, now);
        self.unstall();
        self.serve_ready(machine, now);
        Ok(())
    }

    /// Reads what is ready: every peer, and clients in turn until the turn has enough to do. Who is left comes first in
    /// the next turn, which does not wait; so a thousand busy clients delay neither heartbeats nor each other for long.
    fn serve_ready(&mut self, machine: &Machine, now: Time) {
        let mut others = std::mem::take(&mut self.taken);
        self.ready.take(&mut others);
        // Peers are served, and left out, in one pass.
        others.retain(|number| {
            let is_peer = self.links.get(*number).is_some_and(|link| link.peer().is_some());
            if is_peer {
                self.serve(*number, machine, now);
            }
            !is_peer
        });
        let bytes_before = self.metrics.bytes_in;
        let first = others.partition_point(|number| *number <= self.served_last);
        for number in others[first..].iter().chain(&others[..first]).copied() {
            let has_enough = self.metrics.bytes_in - bytes_before >= TURN_READ_BYTES;
            if has_enough || self.inputs.len() >= TURN_INPUTS_MAX {
                self.ready.note(number);
            } else {
                self.served_last = number;
                self.serve(number, machine, now);
            }
        }
        self.taken = others;
    }

    /// The fault `pause`: everything sleeps.
    fn pause(&mut self) {
        if let Some(span) = self.faults.take_pause() {
            std::thread::sleep(span);
            self.look_at_clock();
        }
    }

    /// Polls until no full batch of events comes any more: what waited before this turn is known to it (T5 of turn.rs).
    fn poll_all(&mut self, wait: Option<Duration>, stays_awake: bool) -> io::Result<()> {
        let mut wait = self.wait(wait);
        for _ in 0..POLLS_PER_GATHER {
            let polled = self.next_events(wait, stays_awake);
            let now = self.look_at_clock();
            match polled {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
                Err(error) => return Err(error),
            }
            let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            events.iter().for_each(|event| self.note(&Ready::of(event), now));
            let is_full = events.iter().count() == EVENTS_PER_POLL;
            self.events = events; // with its memory
            if !is_full {
                break;
            }
            wait = Some(Duration::ZERO);
        }
        Ok(())
    }

    /// One batch of events, or none once `wait` is over. `stays_awake`: what is waited for is near.
    fn next_events(&mut self, wait: Option<Duration>, stays_awake: bool) -> io::Result<()> {
        if !stays_awake {
            return self.poll.poll(&mut self.events, wait);
        }
        let (began, mut awake) = (self.look_at_clock(), Duration::ZERO);
        let awake_for = wait.map_or(AWAKE_FOR, |wait| wait.min(AWAKE_FOR));
        // Bounded in time and not in polls: whom this core is yielded to may keep it for milliseconds.
        while awake < awake_for {
            self.poll.poll(&mut self.events, Some(Duration::ZERO))?;
            if !self.events.is_empty() {
                return Ok(());
            }
            std::thread::yield_now();
            awake = self.look_at_clock().since(began);
        }
        self.poll
            .poll(&mut self.events, wait.map(|wait| wait.saturating_sub(awake)))
    }

    /// How long the poll may wait (S2): the machine's `wait`, or until a deadline of our own.
    fn wait(&self, wait: Option<Duration>) -> Option<Duration> {
        let now = self.clock;
        let busy = !self.ready.is_empty() || !self.dirty.is_empty() || !self.inputs.is_empty();
        if busy || self.can_unstall() || self.listeners.is_ready(now) {
            return Some(Duration::ZERO);
        }
        let own = [
            self.timers.first().map(|(at, _)| *at),
            self.peers.values().filter_map(Peer::dial_at).min(),
            self.listeners.resumes_at(),
            self.delayed.next(),
            self.faults.deadline(),
        ];
        let own = own.into_iter().flatten().min().map(|at| at.since(now));
        [wait, own].into_iter().flatten().min()
    }

    fn note(&mut self, event: &Ready, now: Time) {
        match event.token {
            LISTENER => self.listeners.note_ready(false),
            DEBUG_LISTENER => self.listeners.note_ready(true),
            SIGNALS => {
                if self.signals.as_mut().is_some_and(|signals| signals.take() > 0) {
                    self.end("SIGTERM or SIGINT");
                }
            }
            PARENT if event.closed => self.end("the launcher is gone"),
            PARENT => {}
            Token(number) => {
                let number = number as u64;
                // An event of a connection that is gone already means nothing: its number is not used again.
                let Some(link) = self.links.get_mut(number) else {
                    return;
                };
                link.connection.note_ready(event.readable, event.writable, event.closed);
                if event.readable {
                    link.unread.note(now);
                }
                self.ready.note(number);
                if link.connection.may_write() {
                    self.dirty.note(number);
                }
            }
        }
    }

    /// Takes up a connection that is registered under the number that is next.
    fn add(&mut self, connection: Connection, role: Role, now: Time) {
        let number = self.links.next_number();
        match role {
            Role::Fresh => {
                self.fresh.insert(number);
            }
            Role::Debug(_) => self.debug_links += 1,
            _ => {}
        }
        self.links.insert(Link::new(connection, role, now));
        self.arm(number);
    }

    /// Puts the link's deadline into the queue (S3).
    fn arm(&mut self, number: u64) {
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        let deadline = link.deadline();
        if deadline == link.armed {
            return;
        }
        if let Some(old) = link.armed.take() {
            self.timers.remove(&(old, number));
        }
        link.armed = deadline;
        self.timers.extend(deadline.map(|at| (at, number)));
    }

    fn on_timers(&mut self, machine: &Machine, now: Time) {
        if self.timers.first().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let due: Vec<u64> = self
            .timers
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, number)| *number)
            .collect();
        for number in due {
            let overdue = self.links.get(number).and_then(|link| link.overdue(now));
            if let Some(overdue) = overdue {
                self.on_overdue(number, overdue, machine, now);
            }
            self.arm(number);
        }
    }

    fn on_overdue(&mut self, number: u64, overdue: Overdue, machine: &Machine, now: Time) {
        match overdue {
            Overdue::Hello => self.refuse_link(number, ErrorCode::TooSlow, "no HELLO in time", Some(machine), now),
            Overdue::Frame => self.refuse_link(number, ErrorCode::TooSlow, "a frame not finished in time", None, now),
            Overdue::Output => self.on_stuck(number, now),
            Overdue::Dial => self.close(number, "no answer to the dial", now),
            Overdue::Ping => self.ping(number, now),
            Overdue::HalfOpen => self.close(number, "pings unanswered: half open", now),
            Overdue::Session => self.on_session_due(number, now),
            Overdue::Linger => self.close(number, "", now),
        }
    }

    /// The other side takes nothing of what waits for it. Should it begin to, it finds the reason at the end.
    fn on_stuck(&mut self, number: u64, now: Time) {
        let detail = "took nothing of what waits for it";
        self.refuse_link(number, ErrorCode::SlowReader, detail, None, now);
    }

    /// Counts an error of a connection and says so in the log, unless its kind has said enough in this second.
    fn count_error(&mut self, number: u64, code: ErrorCode, detail: &str, now: Time) {
        self.metrics.error(code);
        let Some(link) = self.links.get(number) else { return };
        let (remote, peer) = (link.connection.remote(), link.peer());
        let who = match peer {
            // A peer comes again and again.
            Some(peer) if !self.complaints.may_repeat(code.name(), peer, now) => return,
            Some(peer) => format!("{peer} at {remote}"),
            None => remote.to_string(),
        };
        self.complain(code.name(), now, &format!("{who}: {code}: {detail}"));
    }

    fn complain(&mut self, kind: &'static str, now: Time, line: &str) {
        match self.complaints.may_say(kind, now) {
            None => self.metrics.log_lines_held += 1,
            Some(0) => log::warn!("{line}"),
            Some(held) => log::warn!("{line} (and {held} more of this kind since the last line)"),
        }
    }
}

/// What the poll told of one token.
struct Ready {
    token: Token,
    readable: bool,
    writable: bool,
    closed: bool,
}

impl Ready {
    fn of(event: &mio::event::Event) -> Ready {
        Ready {
            token: event.token(),
            // A socket that failed or was closed is read once more to learn how.
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            closed: event.is_read_closed() || event.is_error(),
        }
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ServerError::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            ServerError::DebugNotLoopback { address } => write!(
                f,
                "--debug-listen {address} is not loopback: whoever reaches it can read and write everything; say \
                 --debug-allow-remote if you mean it"
            ),
            ServerError::Parent(source) => {
                write!(f, "--exit-with-parent needs a pipe as standard input: {source}")
            }
            ServerError::System(source) => write!(f, "cannot set up the event loop: {source}"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServerError::Listen { source, .. } | ServerError::Parent(source) | ServerError::System(source) => {
                Some(source)
            }
            ServerError::DebugNotLoopback { .. } => None,
        }
    }
}
