//! What all connections hold in memory, and who is read while it is as much as it may be (`--buffer-bytes`).
//!
//! Counted are the bytes that came in and are no whole frame yet (or were not looked at), and those that wait to go out.
//! At the bound clients are not read: their requests wait in their own sockets, and TCP makes them wait. Peers are read
//! always, since what they send is what makes room: what they hold is bounded for each of them (limits.rs), and it counts.
//!
//! If unfinished frames alone fill the memory, nothing would ever finish one. So at the bound one client after the other
//! is read on all the same, until it has nothing unfinished. The deadline of a frame goes on meanwhile: who begins frames
//! and leaves them so is closed.

use super::Server;
use std::collections::BTreeSet;

/// The books.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    /// Bytes of input of all connections, as last counted.
    input: usize,
    /// Clients that are not read because of the bound.
    stalled: BTreeSet<u64>,
    /// Who is read at the bound.
    favoured: u64,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Budget {
        Budget {
            bytes_max,
            input: 0,
            stalled: BTreeSet::new(),
            favoured: 0,
        }
    }

    /// Bytes of input of all connections.
    pub(super) fn input(&self) -> usize {
        self.input
    }

    /// How many clients are not read because of the bound.
    pub(super) fn stalled(&self) -> usize {
        self.stalled.len()
    }

    /// The client that is to be read at the bound: the same as before while it is stalled, then the next.
    fn next_favoured(&self) -> Option<u64> {
        if self.stalled.contains(&self.favoured) {
            return Some(self.favoured);
        }
        let next = self.stalled.range(self.favoured..).next();
        next.or_else(|| self.stalled.first()).copied()
    }
}

impl Server {
    /// Whether the connections hold as much as they may.
    pub(super) fn is_full(&self) -> bool {
        self.queued + self.budget.input >= self.budget.bytes_max
    }

    /// Whether the bound stands in the way of reading this client.
    pub(super) fn is_full_for(&self, number: u64) -> bool {
        self.is_full() && number != self.budget.favoured
    }

    /// Counts what a connection holds by now.
    pub(super) fn count_input(&mut self, number: u64) {
        if let Some(link) = self.links.get_mut(number) {
            let held = link.connection.input.len();
            self.budget.input = self.budget.input - link.counted + held;
            link.counted = held;
        }
    }

    /// A connection goes away, of whose input so much was counted.
    pub(super) fn uncount_input(&mut self, number: u64, counted: usize) {
        self.budget.input -= counted;
        self.budget.stalled.remove(&number);
    }

    /// Notes whether the bound keeps a client from being read.
    pub(super) fn note_stalled(&mut self, number: u64, is_stalled: bool) {
        if is_stalled {
            self.budget.stalled.insert(number);
        } else {
            self.budget.stalled.remove(&number);
        }
    }

    /// Whether somebody who was not read because of the bound can be by now.
    pub(super) fn can_unstall(&self) -> bool {
        let next = self.budget.next_favoured();
        next.is_some_and(|next| !self.is_full() || next != self.budget.favoured)
    }

    /// Reads on: all who waited if there is room, else the one whose turn it is.
    pub(super) fn unstall(&mut self) {
        if self.budget.stalled.is_empty() {
            return;
        }
        if !self.is_full() {
            self.ready.note_all(std::mem::take(&mut self.budget.stalled));
        } else if let Some(next) = self.budget.next_favoured().filter(|next| *next != self.budget.favoured) {
            self.budget.favoured = next;
            self.ready.note(next);
        }
    }
}
