//! What will happen, in the order of time; at one moment, in the order in which it was arranged.

use crate::time::Time;
use bytes::Bytes;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub enum Event {
    /// A node has something to do: an input, a deadline, or the end of a pause.
    Wake(usize),
    /// A client has something to do.
    ClientWake(usize),
    /// A place of a client begins its next operation.
    Submit {
        /// Which client.
        client: usize,
        /// In which of its lives.
        life: u32,
        /// Which place.
        lane: usize,
    },
    /// The first packet of a dial arrives where it is dialled.
    Connect(u64),
    /// The answer to it arrives: taken, or refused.
    Connected {
        /// Which connection.
        connection: u64,
        /// Nobody listens there.
        refused: bool,
    },
    /// A dial, with its handshake, has had its time.
    DialTimeout(u64),
    /// A frame arrives.
    Frame {
        /// On which connection.
        connection: u64,
        /// To its acceptor, or to its dialler.
        to_acceptor: bool,
        /// The frame.
        bytes: Bytes,
        /// When it left.
        sent: Time,
    },
    /// Word arrives that the other side is gone.
    Closed {
        /// Which connection.
        connection: u64,
        /// To its acceptor, or to its dialler.
        to_acceptor: bool,
    },
    /// Both sides of a link between nodes look whether somebody is there.
    Keepalive(u64),
    /// A node's process starts.
    Start(usize),
    /// A strike of the plan, by its place in it.
    Strike(usize),
    /// Faults stop.
    StormEnds,
    /// A node that alone heard a leader loses its directory, and comes back where they do not hear each other.
    Loses {
        /// Which node.
        node: usize,
        /// Whom it heard.
        leader: usize,
        /// Until when they do not.
        until: Time,
    },
    /// A part of the storm ends.
    Calm(Relief),
    /// A late copy of a write of a client arrives at a node.
    Ghost {
        /// Where.
        node: usize,
        /// The frame.
        bytes: Bytes,
    },
}

/// What ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// The cut of what one node sends to another.
    Link(usize, usize),
    /// Every cut that a partition made.
    Partition,
    /// A client is cut off from a node.
    Client(usize, usize),
    /// A failed acceptor restarts.
    Acceptor(usize),
    /// A disk is slow.
    SlowDisk(usize),
    /// A disk is full.
    FullDisk(usize),
    /// A clock runs at another rate.
    Clock(usize),
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Arranged>>,
    count: u64,
}

#[derive(Debug)]
struct Arranged {
    at: Time,
    number: u64,
    event: Event,
}

impl Queue {
    /// Arranges `event` for `at`.
    pub fn push(&mut self, at: Time, event: Event) {
        self.count += 1;
        let number = self.count;
        self.heap.push(Reverse(Arranged { at, number, event }));
    }

    /// The next event.
    pub fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }
}

impl Ord for Arranged {
    fn cmp(&self, other: &Arranged) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Arranged {
    fn partial_cmp(&self, other: &Arranged) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Arranged {
    fn eq(&self, other: &Arranged) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Arranged {}
