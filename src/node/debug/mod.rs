//! The debug port: lines in, lines out, for a person with `nc`.
//!
//! A line is a command; every reply ends in a line that begins with `OK` or `ERR <code>`, and no other line begins so.
//! The loop hands over one line at a time ([`execute`]) and, while a data command waits for its answer, none
//! ([`Session::is_waiting`]); it brings the answer back by [`answer`]. A session that follows the ring is fed once a
//! turn by [`follow`], as long as its output is small.
//!
//! Not here: sockets, their limits and their timers (server.rs).

use super::faults::Faults;
use super::flags::Config;
use super::metrics::{Gauges, Metrics};
use super::peers::Peer;
use super::ring::{Position, Ring};
use crate::machine::{Input, Machine};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::Reply;
use std::collections::BTreeMap;

/// Longest line that is taken: a put of the largest value, every byte of it escaped.
pub const LINE_BYTES_MAX: usize = 5 << 20;
/// A follower of the ring is fed while so little waits for it; what it misses meanwhile is dropped and counted.
pub const FOLLOW_OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// What one connection of the debug port has going on.
#[derive(Debug, Default)]
pub struct Session {
    /// Request id of the data command that waits for its answer.
    waiting: Option<u64>,
    /// Where in the ring the session follows it.
    follows: Option<Position>,
    /// The connection closes once its output is out.
    ended: bool,
}

/// What a command can see and do.
pub struct Context<'a> {
    /// The time of this turn.
    pub now: Time,
    /// Number of the connection; requests are made under it.
    pub connection: u64,
    /// The node as it was when the turn began.
    pub machine: &'a Machine,
    /// Flags.
    pub config: &'a Config,
    /// Recent events.
    pub ring: &'a Ring,
    /// Counters.
    pub metrics: &'a Metrics,
    /// Counts of this moment.
    pub gauges: Gauges,
    /// Links.
    pub peers: &'a BTreeMap<NodeId, Peer>,
    /// Faults that are on.
    pub faults: &'a mut Faults,
    /// What the machine shall step in this turn.
    pub inputs: &'a mut Vec<Input>,
    /// What the other side gets.
    pub out: &'a mut Vec<u8>,
}

impl Session {
    /// Whether no further line can be taken now.
    pub fn is_waiting(&self) -> bool {
        self.waiting.is_some() || self.ended
    }

    /// Whether the session wants to be fed by [`follow`].
    pub fn follows(&self) -> bool {
        self.follows.is_some()
    }

    /// Whether the connection shall be closed once its output is out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Executes one line, without its line end.
pub fn execute(context: &mut Context<'_>, session: &mut Session, line: &[u8]) {
    // Any line ends `tail -f`.
    session.follows = None;
    match line.trim_ascii() {
        b"" => {}
        b"help" => context.out.extend_from_slice(b"help ping quit\nOK\n"),
        b"ping" => context.out.extend_from_slice(b"OK pong\n"),
        b"quit" => {
            context.out.extend_from_slice(b"OK bye\n");
            session.ended = true;
        }
        _ => context.out.extend_from_slice(b"ERR unknown_command (try help)\n"),
    }
}

/// The answer to a data command of this session.
pub fn answer(session: &mut Session, request: u64, _reply: &Reply, _out: &mut Vec<u8>) {
    if session.waiting == Some(request) {
        session.waiting = None;
    }
}

/// Feeds a session that follows the ring: what is new, once a turn.
pub fn follow(session: &mut Session, ring: &Ring, out: &mut Vec<u8>) {
    let Some(position) = session.follows else { return };
    let (missed, events) = ring.since(position);
    if missed > 0 {
        out.extend_from_slice(format!("missed {missed} events\n").as_bytes());
    }
    for event in events {
        out.extend_from_slice(format!("{event}\n").as_bytes());
    }
    session.follows = Some(ring.end());
}
