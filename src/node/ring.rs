//! The last some thousand protocol events, in memory: what `tail` reads, and what later views will explain.
//!
//! An event is recorded as plain data, a few words long; it is made into text only when somebody reads it. The ring is
//! bounded: the oldest event makes room for the newest. A reader holds a [`Position`], and learns how many events it
//! missed because it was too slow (`tail -f` drops and counts, it never queues).

use crate::machine::Note;
use crate::paxos::{Ballot, NodeId, Slot};
use crate::time::Time;
use crate::wire::Frame;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Events kept. At the bound the oldest goes.
pub const RING_EVENTS_MAX: usize = 4096;

/// One thing that happened on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A frame of a peer came in.
    From(NodeId, Summary),
    /// A frame went out to a peer.
    To(NodeId, Summary),
    /// A frame to a peer was thrown away, and why.
    Dropped(NodeId, Summary, &'static str),
    /// A client asked.
    Request {
        /// Number of its connection.
        connection: u64,
        /// Its request id.
        request: u64,
        /// Of the op.
        name: &'static str,
    },
    /// A client was answered.
    Reply {
        /// Number of its connection.
        connection: u64,
        /// Its request id.
        request: u64,
        /// Class or code of the outcome.
        outcome: &'static str,
    },
    /// One append and one sync.
    Synced {
        /// Records in it.
        records: usize,
        /// Number of the last record, counted from 1 in this life.
        up_to: u64,
        /// How long append and sync took.
        took: Duration,
    },
    /// The connection that this node dialled to a peer came up.
    LinkUp(NodeId),
    /// It went down.
    LinkDown(NodeId),
    /// The peer's process is gone.
    Died(NodeId),
    /// Something that the machine says.
    Note(Note),
}

/// The parts of a frame between nodes that tell its place in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The message's name.
    pub name: &'static str,
    /// The ballot that it speaks of.
    pub ballot: Option<Ballot>,
    /// The (first) slot that it speaks of.
    pub slot: Option<Slot>,
    /// Relay number of a forwarded request; 0 else.
    pub request: u64,
}

/// How many events were recorded before a reader's next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

/// The ring itself.
#[derive(Debug, Default)]
pub struct Ring {
    events: VecDeque<Event>,
    /// Events that were dropped at the old end, in all.
    gone: u64,
}

impl Ring {
    /// Records one event.
    pub fn push(&mut self, at: Time, what: What) {
        if self.events.len() == RING_EVENTS_MAX {
            self.events.pop_front();
            self.gone += 1;
        }
        self.events.push_back(Event { at, what });
    }

    /// Behind the newest event: where a reader begins who wants only what is to come.
    pub fn end(&self) -> Position {
        Position(self.gone + self.events.len() as u64)
    }

    /// Where a reader begins who wants the last `count` events.
    pub fn last(&self, count: usize) -> Position {
        Position(self.gone + self.events.len().saturating_sub(count) as u64)
    }

    /// The events from `position` on, and how many of them are gone already. The caller goes on at [`Ring::end`], or
    /// so many events behind `position` as it took and missed.
    pub fn since(&self, position: Position) -> (u64, impl Iterator<Item = &Event>) {
        let missed = self.gone.saturating_sub(position.0);
        let skip = usize::try_from(position.0.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        (missed, self.events.iter().skip(skip))
    }
}

impl Position {
    /// The position so many events further on.
    pub fn plus(self, events: u64) -> Position {
        Position(self.0 + events)
    }
}

impl Summary {
    /// Of a frame with its request id.
    pub fn of(frame: &Frame, request: u64) -> Summary {
        let (ballot, slot) = match frame {
            Frame::Paxos(message) => (message.ballot(), message.slot()),
            _ => (None, None),
        };
        Summary {
            name: frame.name(),
            ballot,
            slot,
            request,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(ballot) = self.ballot {
            write!(f, " ballot={ballot}")?;
        }
        if let Some(slot) = self.slot {
            write!(f, " slot={slot}")?;
        }
        if self.request != 0 {
            write!(f, " request={}", self.request)?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.at)?;
        match &self.what {
            What::From(peer, summary) => write!(f, "<- {peer} {summary}"),
            What::To(peer, summary) => write!(f, "-> {peer} {summary}"),
            What::Dropped(peer, summary, why) => write!(f, "-x {peer} {summary} dropped: {why}"),
            What::Request {
                connection,
                request,
                name,
            } => write!(f, "<- client {connection} {name} request={request}"),
            What::Reply {
                connection,
                request,
                outcome,
            } => write!(f, "-> client {connection} {outcome} request={request}"),
            What::Synced { records, up_to, took } => {
                write!(f, "synced records={records} up_to={up_to} took={}us", took.as_micros())
            }
            What::LinkUp(peer) => write!(f, "link to {peer} up"),
            What::LinkDown(peer) => write!(f, "link to {peer} down"),
            What::Died(peer) => write!(f, "{peer} is gone"),
            What::Note(note) => write!(f, "{note}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(ring: &Ring, from: Position) -> (u64, Vec<u16>) {
        let (missed, events) = ring.since(from);
        let numbers = events
            .map(|event| match event.what {
                What::LinkUp(node) => node.0,
                _ => 0,
            })
            .collect();
        (missed, numbers)
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed() {
        let mut ring = Ring::default();
        let start = ring.end();
        for number in 0..RING_EVENTS_MAX as u16 + 3 {
            ring.push(Time::ZERO, What::LinkUp(NodeId(number)));
        }
        let (missed, kept) = numbers(&ring, start);
        assert_eq!((missed, kept.len(), kept[0]), (3, RING_EVENTS_MAX, 3));
        assert_eq!(numbers(&ring, ring.last(2)).1, [4097, 4098]);
        assert_eq!(numbers(&ring, ring.end()), (0, vec![]));
    }

    #[test]
    fn a_position_survives_what_comes_after_it() {
        let mut ring = Ring::default();
        ring.push(Time::ZERO, What::LinkUp(NodeId(1)));
        let position = ring.end();
        ring.push(Time::ZERO, What::LinkUp(NodeId(2)));
        ring.push(Time::ZERO, What::LinkUp(NodeId(3)));
        assert_eq!(numbers(&ring, position).1, [2, 3]);
        assert_eq!(numbers(&ring, position.plus(1)).1, [3]);
    }
}
