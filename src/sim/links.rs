//! Connections in the world: dials, frames on their way, ends that learn that the other one is gone.
//!
//! As with TCP, an end that closes or dies tells the other one, if the way is open; who sends on a connection that the
//! other side does not know is told so; and who is told nothing finds out by pings, after a while.

use super::door::{self, Arrival};
use super::network::End;
use super::queue::Event;
use super::report::Violation;
use super::transcript::Way;
use super::words;
use super::world::World;
use crate::client::machine::Input as ClientInput;
use crate::node::peers::DialEnd;
use crate::time::Time;
use crate::wire::frame::FrameType;
use bytes::Bytes;
use std::time::Duration;

/// A dial and its handshake take no longer (the node's own limits are one second for the one, two for the other).
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a link is looked at.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
/// A link on which nobody answered for so long is closed by both.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often what must not be lost on a living link is sent again while the link is cut.
const RETRANSMIT_EVERY: Duration = Duration::from_millis(200);
/// Where the type stands in a frame.
const TYPE_AT: usize = 8;

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

impl World {
    pub(super) fn dial(&mut self, connection: u64, dialler: End, acceptor: usize, at: Time) {
        let made = Connection {
            dialler,
            acceptor,
            last: [Time::ZERO; 2],
            silent_since: None,
        };
        self.connections.insert(connection, made);
        let at = at + self.network.delay((dialler, End::Node(acceptor)));
        self.queue.push(at, Event::Connect(connection));
    }

    /// Sends a frame at `at`, from one end of a connection to the other.
    pub(super) fn send(&mut self, connection: u64, from: End, bytes: Bytes, at: Time) {
        let Some(link) = self.connections.get_mut(&connection) else {
            return;
        };
        let to_acceptor = from == link.dialler;
        let to = if to_acceptor {
            End::Node(link.acceptor)
        } else {
            link.dialler
        };
        let is_between_nodes = matches!(link.dialler, End::Node(_));
        let frame_type = FrameType::from_byte(bytes[TYPE_AT]).expect("what was encoded has a type");
        let last = &mut link.last[usize::from(!to_acceptor)];
        let mut arrives = |delay: Duration, overtakes: bool| {
            let on_its_own = at + delay;
            if overtakes {
                return on_its_own;
            }
            *last = on_its_own.max(*last);
            *last
        };
        if frame_type == FrameType::Hello || !is_between_nodes {
            let arrives_at = arrives(self.network.delay((from, to)), false);
            let frame = Event::Frame {
                connection,
                to_acceptor,
                bytes,
                sent: at,
            };
            self.queue.push(arrives_at, frame);
            return;
        }
        let counts = &mut self.shared.counts.borrow_mut();
        let fate = self.network.fate((from, to), frame_type, counts);
        let [first, second] = fate.delays;
        if first.is_none() {
            self.shared
                .transcript
                .message(at, (from, to), Way::Lost("lost"), || words_of(&bytes));
        }
        for (delay, overtakes) in [(first, fate.overtakes), (second, true)] {
            let Some(delay) = delay else { continue };
            let frame = Event::Frame {
                connection,
                to_acceptor,
                bytes: bytes.clone(),
                sent: at,
            };
            self.queue.push(arrives(delay, overtakes), frame);
        }
    }

    /// One end closes a connection: the other one will hear of it, if it can.
    pub(super) fn hang_up(&mut self, connection: u64, end: End, at: Time) {
        let Some(link) = self.connections.get(&connection) else {
            return;
        };
        let to_acceptor = end == link.dialler;
        // Not before what was sent on it.
        let last = link.last[usize::from(!to_acceptor)];
        let other = if to_acceptor {
            End::Node(link.acceptor)
        } else {
            link.dialler
        };
        let at = (at + self.network.delay((end, other))).max(last);
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

    pub(super) fn on_connect(&mut self, connection: u64) {
        let Some((dialler, End::Node(acceptor))) = self.ends(connection, true) else {
            return;
        };
        let has_power = self.nodes[acceptor].has_power;
        if !has_power || !self.network.reaches(dialler, End::Node(acceptor)) {
            return;
        }
        let refused = match &mut self.nodes[acceptor].life {
            Some(life) => {
                life.door.arrive(Arrival::Accepted(connection), self.now);
                false
            }
            None => true,
        };
        let at = self.now + self.network.delay((End::Node(acceptor), dialler));
        self.queue.push(at, Event::Connected { connection, refused });
        if !refused && matches!(dialler, End::Node(_)) {
            self.queue
                .push(self.now + KEEPALIVE_EVERY, Event::Keepalive(connection));
        }
    }

    pub(super) fn on_connected(&mut self, connection: u64, refused: bool) -> Result<(), Violation> {
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

    pub(super) fn on_dial_timeout(&mut self, connection: u64) -> Result<(), Violation> {
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

    pub(super) fn on_frame(
        &mut self,
        (connection, to_acceptor): (u64, bool),
        bytes: Bytes,
        sent: Time,
    ) -> Result<(), Violation> {
        let Some((from, to)) = self.ends(connection, to_acceptor) else {
            return Ok(());
        };
        let told = |way| {
            let transcript = &self.shared.transcript;
            transcript.message(self.now, (from, to), way, || words_of(&bytes));
        };
        let is_heard = match to {
            End::Node(node) => self.nodes[node].has_power,
            End::Client(_) => true,
        };
        if !is_heard || !self.network.reaches(from, to) {
            told(Way::Lost(if is_heard { "cut off" } else { "no power there" }));
            if bytes.get(TYPE_AT) == Some(&FrameType::Roster.byte()) && self.is_open_at(connection, from) {
                let again = Event::Frame {
                    connection,
                    to_acceptor,
                    bytes,
                    sent,
                };
                self.queue.push(self.now + RETRANSMIT_EVERY, again);
            }
            return Ok(());
        }
        if !self.is_open_at(connection, to) {
            told(Way::Lost("connection gone"));
            self.hang_up(connection, to, self.now); // nobody knows that connection here
            return Ok(());
        }
        told(Way::Arrives(sent));
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

    pub(super) fn on_closed(&mut self, connection: u64, to_acceptor: bool) -> Result<(), Violation> {
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
    pub(super) fn on_keepalive(&mut self, connection: u64) -> Result<(), Violation> {
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
}

/// What a frame says, if that is worth a line.
fn words_of(bytes: &Bytes) -> Option<String> {
    let (_, frame, _) = door::decode(bytes.clone());
    words::frame(&frame)
}
