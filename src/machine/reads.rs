//! Reads without a log entry: linearizable ones wait for a round of confirmation, stale ones for a slot at most.
//!
//! `rules.md` 15: a read is confirmed by a quorum's answers to messages sent after it arrived, and is answered once the
//! chosen prefix noted then is applied; at a new leader also all that phase 1 listed (rule 7). All reads that arrive in
//! one turn share one round, and none waits for a write that came with it or behind it.

use super::requests::Origin;
use crate::paxos::Slot;
use crate::time::Time;
use bytes::Bytes;
use std::collections::VecDeque;

/// A read that waits.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) origin: Origin,
    pub(super) key: Bytes,
    pub(super) deadline: Time,
}

/// A read whose round was begun. It is answered once the round is confirmed and `index` is applied.
#[derive(Debug)]
struct Waiting {
    read: Read,
    round: u64,
    index: Slot,
}

/// Linearizable reads at the leader, and stale reads that wait for a slot.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Arrived, and no round begun for them yet.
    fresh: Vec<Read>,
    /// In order of their rounds.
    waiting: VecDeque<Waiting>,
    /// Stale reads, each with the slot that must be applied first.
    stale: Vec<(Read, Slot)>,
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.waiting.len() + self.stale.len()
    }

    pub(super) fn push(&mut self, read: Read) {
        self.fresh.push(read);
    }

    pub(super) fn push_stale(&mut self, read: Read, at_least: Slot) {
        self.stale.push((read, at_least));
    }

    /// Reads that no round was begun for.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Whether a round should begin for reads that have none.
    pub(super) fn wants_round(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// `round` was begun after all fresh reads arrived; `index` is the prefix that they must see.
    pub(super) fn begin(&mut self, round: u64, index: Slot) {
        self.waiting
            .extend(self.fresh.drain(..).map(|read| Waiting { read, round, index }));
    }

    /// The ballot changed: confirmations of the old one are worth nothing, all reads are noted anew (`rules.md` 10).
    pub(super) fn begin_anew(&mut self) {
        self.fresh.extend(self.waiting.drain(..).map(|waiting| waiting.read));
    }

    /// The next read that can be answered.
    pub(super) fn next_ready(&mut self, confirmed: u64, applied: Slot) -> Option<Read> {
        let is_ready = |waiting: &Waiting| waiting.round <= confirmed && waiting.index <= applied;
        if self.waiting.front().is_some_and(is_ready) {
            self.waiting.pop_front().map(|waiting| waiting.read)
        } else {
            None
        }
    }

    /// Stale reads whose slot is applied.
    pub(super) fn take_stale(&mut self, applied: Slot) -> Vec<Read> {
        self.stale
            .extract_if(.., |(_, at_least)| *at_least <= applied)
            .map(|(read, _)| read)
            .collect()
    }

    /// Stale reads whose deadline has come.
    pub(super) fn take_expired_stale(&mut self, now: Time) -> Vec<Read> {
        self.stale
            .extract_if(.., |(read, _)| now >= read.deadline)
            .map(|(read, _)| read)
            .collect()
    }

    /// Linearizable reads whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<Read> {
        let mut expired: Vec<Read> = self.fresh.extract_if(.., |read| now >= read.deadline).collect();
        let (gone, kept) = self.waiting.drain(..).partition(|waiting| now >= waiting.read.deadline);
        self.waiting = kept;
        expired.extend(gone.into_iter().map(|waiting: Waiting| waiting.read));
        expired
    }

    /// All linearizable reads: this node leads no more.
    pub(super) fn take_all(&mut self) -> Vec<Read> {
        self.begin_anew();
        std::mem::take(&mut self.fresh)
    }
}
