//! The world for client machines: one mio loop, one thread, many clients.
//!
//! [`Pool::submit`] hands an operation in, [`Pool::turn`] lets the loop run once and hands back what ended. All that a
//! turn wants to send on a connection leaves in one write at the beginning of the next, before the loop waits. What an
//! operation took is measured around it: from `submit`, before its first byte is sent, until after its last is received.

use super::alarm::Alarm;
use super::connection::{Connection, ReadOutcome};
use super::machine::{ClientMachine, Effect, Input};
use super::outcome::End;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::RequestOp;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

/// Events taken from the system at once.
const EVENTS_MAX: usize = 1024;
/// The token of the alarm; no connection gets so high.
const ALARM: Token = Token(usize::MAX);
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;

/// An operation that ended.
#[derive(Debug)]
pub struct Completion {
    /// Whose: what [`Pool::add`] returned.
    pub client: usize,
    /// The caller's own name for it.
    pub token: u64,
    /// When its answer was read, or it was given up.
    pub ended: Time,
    /// How it ended.
    pub end: End,
}

/// One client, and where its connections stand.
#[derive(Debug)]
struct Member {
    machine: ClientMachine,
    /// By endpoint, places in `Pool::connections`.
    connections: Vec<Option<usize>>,
    /// The alarm that stands for it in the heap.
    alarm: Option<Time>,
    /// What it still has to be told, of what it wanted done just now.
    inputs: VecDeque<Input>,
    /// Whether it was stepped since the loop last looked at its deadline.
    is_stepped: bool,
    closed: bool,
}

/// Many clients in one loop.
#[derive(Debug)]
pub struct Pool {
    poll: Poll,
    alarm: Alarm,
    events: Events,
    origin: Instant,
    members: Vec<Member>,
    /// By token; a late event of a former owner of the place finds nothing to do.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Connections with bytes to write.
    dirty: Vec<usize>,
    alarms: BinaryHeap<Reverse<(Time, usize)>>,
    /// Clients that were stepped since the loop last waited: each is asked for its deadline once, before the loop waits.
    stepped: Vec<usize>,
    completions: Vec<Completion>,
    effects: Vec<Effect>,
    scratch: Vec<u8>,
}

impl Pool {
    /// A loop without clients.
    ///
    /// # Errors
    /// The system gives no poll.
    pub fn new() -> io::Result<Pool> {
        let poll = Poll::new()?;
        Ok(Pool {
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            origin: clock(),
            members: Vec::new(),
            connections: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            alarms: BinaryHeap::new(),
            stepped: Vec::new(),
            completions: Vec::new(),
            effects: Vec::new(),
            scratch: vec![0; READ_BYTES],
        })
    }

    /// Takes a client in; the number is its name from now on.
    pub fn add(&mut self, machine: ClientMachine) -> usize {
        self.members.push(Member {
            machine,
            connections: Vec::new(),
            alarm: None,
            inputs: VecDeque::new(),
            is_stepped: false,
            closed: false,
        });
        self.members.len() - 1
    }

    /// The pool's clock: monotonic, from the pool's beginning.
    pub fn now(&self) -> Time {
        Time::ZERO + clock().duration_since(self.origin)
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.members.len()
    }

    /// Operations of `client` that have not ended.
    pub fn open_operations(&self, client: usize) -> usize {
        self.members[client].machine.open_operations()
    }

    /// Which nodes `client` has met, with the addresses of their debug ports.
    pub fn nodes(&self, client: usize) -> Vec<(NodeId, String)> {
        let nodes = self.members[client].machine.nodes();
        nodes.map(|(node, debug)| (node, debug.to_string())).collect()
    }

    /// Hands in an operation that begins `now`, as [`Pool::now`] said since the last [`Pool::turn`]; it leaves with the
    /// next one.
    pub fn submit(&mut self, now: Time, client: usize, token: u64, op: RequestOp, timeout: Duration) {
        let deadline = now + timeout;
        self.step(client, now, Input::Submit { token, op, deadline });
    }

    /// Runs the loop once: sends, waits for news until `until` at most, reads, and appends what ended.
    ///
    /// It returns at once if something has ended already, and at least when one of the clients had something to do.
    ///
    /// # Errors
    /// The poll failed; the errors of single connections are the clients' matter.
    pub fn turn(&mut self, until: Option<Time>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.flush();
        if self.completions.is_empty() {
            self.wait(until)?;
        }
        self.ring_alarms();
        completions.append(&mut self.completions);
        Ok(())
    }

    /// Closes all sessions and connections; operations still open have until `timeout` from now.
    ///
    /// # Errors
    /// As [`Pool::turn`].
    pub fn close(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> io::Result<()> {
        let now = self.now();
        let deadline = now + timeout;
        for client in 0..self.members.len() {
            self.step(client, now, Input::Close { deadline });
        }
        while self.members.iter().any(|member| !member.closed) {
            self.turn(None, completions)?;
        }
        Ok(())
    }

    /// Whether [`Pool::close`] has run.
    pub fn is_closed(&self) -> bool {
        self.members.iter().all(|member| member.closed)
    }

    fn wait(&mut self, until: Option<Time>) -> io::Result<()> {
        while let Some(client) = self.stepped.pop() {
            self.members[client].is_stepped = false;
            self.set_alarm(client);
        }
        let alarm = self.alarms.peek().map(|Reverse((at, _))| *at);
        let earliest = [until, alarm].into_iter().flatten().min();
        let timeout = earliest.and_then(|at| self.alarm.timeout(at.since(self.now())));
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.poll.poll(&mut events, timeout);
        if polled.is_ok() {
            events.iter().for_each(|event| self.on_event(event));
        }
        self.events = events;
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    fn on_event(&mut self, event: &Event) {
        let place = event.token().0;
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let (client, endpoint) = (connection.client, connection.endpoint);
        if connection.is_dialling() {
            match connection.finish_dial() {
                Ok(false) => return,
                Ok(true) => self.step_now(client, Input::Connected { endpoint }),
                Err(error) => {
                    self.forget(client, endpoint);
                    let detail = error.to_string();
                    return self.step_now(client, Input::Refused { endpoint, detail });
                }
            }
        } else if event.is_writable() {
            self.flush_one(place);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(place, event.is_read_closed() || event.is_error());
        }
    }

    /// Reads until nothing is left, and steps each frame.
    fn read(&mut self, place: usize, is_ending: bool) {
        loop {
            let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
                return; // closed by what one of its frames brought about
            };
            let (client, endpoint) = (connection.client, connection.endpoint);
            let outcome = connection.read(&mut self.scratch, is_ending);
            let now = self.now();
            self.step_frames(place, now);
            match outcome {
                ReadOutcome::More => {}
                ReadOutcome::Drained => return,
                ReadOutcome::Ended(detail) => {
                    // What came before the end may have closed it already.
                    if self.members[client].connections.get(endpoint) == Some(&Some(place)) {
                        self.forget(client, endpoint);
                        self.step(client, now, Input::Lost { endpoint, detail });
                    }
                    return;
                }
            }
        }
    }

    fn step_frames(&mut self, place: usize, now: Time) {
        while let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) {
            let (client, endpoint) = (connection.client, connection.endpoint);
            let input = match connection.next_frame() {
                Ok(None) => return,
                Ok(Some((request_id, frame))) => Input::Frame {
                    endpoint,
                    request_id,
                    frame,
                },
                Err(detail) => Input::Garbled { endpoint, detail },
            };
            self.step(client, now, input);
        }
    }

    /// Steps the machines whose deadlines have come.
    fn ring_alarms(&mut self) {
        let now = self.now();
        while let Some(Reverse((at, client))) = self.alarms.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            self.alarms.pop();
            if self.members[client].alarm != Some(at) {
                continue; // an earlier one took its place
            }
            self.members[client].alarm = None;
            if self.members[client]
                .machine
                .deadline()
                .is_some_and(|deadline| deadline <= now)
            {
                self.step(client, now, Input::Deadline);
            } else {
                self.set_alarm(client);
            }
        }
    }

    /// A client's deadline mostly moves back; the alarm that stands is kept then, and set anew when it rings.
    fn set_alarm(&mut self, client: usize) {
        let member = &mut self.members[client];
        let Some(deadline) = member.machine.deadline() else {
            return;
        };
        if member.alarm.is_none_or(|alarm| deadline < alarm) {
            member.alarm = Some(deadline);
            self.alarms.push(Reverse((deadline, client)));
        }
    }

    fn step_now(&mut self, client: usize, input: Input) {
        let now = self.now();
        self.step(client, now, input);
    }

    /// Steps a machine, and carries out what follows, and what follows from that.
    fn step(&mut self, client: usize, now: Time, input: Input) {
        let mut effects = std::mem::take(&mut self.effects);
        self.members[client].machine.step(now, input, &mut effects);
        loop {
            for effect in effects.drain(..) {
                self.carry_out(client, now, effect);
            }
            let Some(input) = self.members[client].inputs.pop_front() else {
                break;
            };
            self.members[client].machine.step(now, input, &mut effects);
        }
        self.effects = effects;
        if !self.members[client].is_stepped {
            self.members[client].is_stepped = true;
            self.stepped.push(client);
        }
    }

    fn carry_out(&mut self, client: usize, now: Time, effect: Effect) {
        match effect {
            Effect::Connect { endpoint } => self.dial(client, endpoint),
            Effect::Send {
                endpoint,
                request_id,
                frame,
            } => {
                let place = self.members[client].connections.get(endpoint).copied().flatten();
                if let Some((place, connection)) =
                    place.and_then(|place| Some((place, self.connections[place].as_mut()?)))
                    && connection.queue(&frame, request_id)
                {
                    self.dirty.push(place);
                }
            }
            Effect::Close { endpoint } => self.forget(client, endpoint),
            Effect::Finished { token, end } => self.completions.push(Completion {
                client,
                token,
                ended: now,
                end,
            }),
            Effect::Closed => self.members[client].closed = true,
        }
    }

    fn dial(&mut self, client: usize, endpoint: usize) {
        let connection = Connection::dial(self.members[client].machine.address(endpoint), client, endpoint);
        let place = self.free.pop().unwrap_or(self.connections.len());
        let registered = connection.and_then(|mut connection| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            registry.register(connection.stream(), Token(place), interest)?;
            Ok(connection)
        });
        match registered {
            Ok(connection) => {
                if place == self.connections.len() {
                    self.connections.push(None);
                }
                self.connections[place] = Some(connection);
                let places = &mut self.members[client].connections;
                places.resize(places.len().max(endpoint + 1), None);
                places[endpoint] = Some(place);
            }
            Err(error) => {
                if place < self.connections.len() {
                    self.free.push(place);
                }
                let detail = error.to_string();
                self.members[client]
                    .inputs
                    .push_back(Input::Refused { endpoint, detail });
            }
        }
    }

    /// Drops a connection; the socket closes with it.
    fn forget(&mut self, client: usize, endpoint: usize) {
        let places = &mut self.members[client].connections;
        if let Some(place) = places.get_mut(endpoint).and_then(Option::take) {
            if let Some(mut connection) = self.connections[place].take() {
                // The socket closes anyway; a failure here has no consequence.
                let _ = self.poll.registry().deregister(connection.stream());
            }
            self.free.push(place);
        }
    }

    fn flush(&mut self) {
        while let Some(place) = self.dirty.pop() {
            self.flush_one(place);
        }
    }

    fn flush_one(&mut self, place: usize) {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let (client, endpoint) = (connection.client, connection.endpoint);
        if let Err(error) = connection.flush() {
            self.forget(client, endpoint);
            let detail = error.to_string();
            self.step_now(client, Input::Lost { endpoint, detail });
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a shell of the client reads the clock for its machines"
)]
fn clock() -> Instant {
    Instant::now()
}
