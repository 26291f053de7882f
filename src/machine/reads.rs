//! Reads without a log entry: linearizable ones wait for a round of confirmation, or elsewhere than at the leader for a
//! position that the leader tells; stale ones for a slot at most.
//!
//! `rules.md` 15: a read is confirmed by a quorum's answers to messages sent after it arrived, and is answered once the
//! chosen prefix noted then is applied; at a new leader also all that phase 1 listed (rule 7). All reads that arrive in
//! one turn share one round, and none waits for a write that came with it or behind it.
//!
//! Not here: how a position is asked for and told (`positions`).

use super::io::Effect;
use super::machine::Machine;
use super::requests::Origin;
use crate::paxos::Slot;
use crate::time::Time;
use crate::wire::{Outcome, Served};
use bytes::Bytes;
use std::collections::VecDeque;

/// So many reads that wait for peers leave a node with nothing to do meanwhile.
const FEW_READS: usize = 4;

/// A read that waits.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) origin: Origin,
    pub(super) key: Bytes,
    pub(super) deadline: Time,
}

/// A read that something was begun for: at the leader a round, elsewhere an ask.
#[derive(Debug)]
struct Waiting<For> {
    read: Read,
    until: For,
}

/// What confirms a read at the leader: it is answered once the round is confirmed and `index` is applied.
#[derive(Debug)]
struct Confirmation {
    round: u64,
    index: Slot,
}

/// Linearizable reads, and stale reads that wait for a slot.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Arrived, and nothing begun for them yet.
    fresh: Vec<Read>,
    /// At the leader, in order of their rounds.
    confirming: VecDeque<Waiting<Confirmation>>,
    /// Elsewhere, in order of the asks for their position.
    asked: VecDeque<Waiting<u64>>,
    /// Elsewhere, their position is known: until it is applied.
    placed: VecDeque<Waiting<Slot>>,
    /// Stale reads, each with the slot that must be applied first.
    stale: Vec<(Read, Slot)>,
}

impl Reads {
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.confirming.len() + self.asked.len() + self.placed.len() + self.stale.len()
    }

    pub(super) fn push(&mut self, read: Read) {
        self.fresh.push(read);
    }

    pub(super) fn push_stale(&mut self, read: Read, at_least: Slot) {
        self.stale.push((read, at_least));
    }

    /// Reads that nothing was begun for.
    pub(super) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// How many wait but for stale ones.
    pub(super) fn linearizable(&self) -> usize {
        self.len() - self.stale.len()
    }

    /// Whether reads wait for a position that was asked for.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// `round` was begun after all fresh reads arrived; `index` is the prefix that they must see.
    pub(super) fn begin(&mut self, round: u64, index: Slot) {
        self.confirming.extend(self.fresh.drain(..).map(|read| Waiting {
            read,
            until: Confirmation { round, index },
        }));
    }

    /// Ask `number` leaves after all fresh reads arrived.
    pub(super) fn ask(&mut self, number: u64) {
        let asked = self.fresh.drain(..).map(|read| Waiting { read, until: number });
        self.asked.extend(asked);
    }

    /// Ask `number` was answered with `position`, which holds for all reads that were asked for by then. How many.
    pub(super) fn place(&mut self, number: u64, position: Slot) -> usize {
        let count = self.asked.partition_point(|waiting| waiting.until <= number);
        self.placed.extend(self.asked.drain(..count).map(|waiting| Waiting {
            read: waiting.read,
            until: position,
        }));
        count
    }

    /// Nothing that was begun for reads without an answer counts any more: the ballot changed (`rules.md` 10), or whom they
    /// wait for. They are noted anew.
    pub(super) fn begin_anew(&mut self) {
        self.fresh.extend(self.confirming.drain(..).map(|waiting| waiting.read));
        self.fresh.extend(self.asked.drain(..).map(|waiting| waiting.read));
    }

    /// The next read that can be answered: one that was confirmed here, or whose position is applied here.
    fn next_ready(&mut self, confirmed: u64, applied: Slot) -> Option<Read> {
        let is_confirmed =
            |Waiting { until, .. }: &Waiting<Confirmation>| until.round <= confirmed && until.index <= applied;
        if self.confirming.front().is_some_and(is_confirmed) {
            return self.confirming.pop_front().map(|waiting| waiting.read);
        }
        self.next_placed(applied)
    }

    fn next_placed(&mut self, applied: Slot) -> Option<Read> {
        if self.placed.front().is_some_and(|waiting| waiting.until <= applied) {
            self.placed.pop_front().map(|waiting| waiting.read)
        } else {
            None
        }
    }

    /// Stale reads whose slot is applied.
    fn take_stale(&mut self, applied: Slot) -> Vec<Read> {
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
        take_expired_of(&mut self.confirming, now, &mut expired);
        take_expired_of(&mut self.asked, now, &mut expired);
        take_expired_of(&mut self.placed, now, &mut expired);
        expired
    }

    /// All linearizable reads: they are not answered here any more.
    pub(super) fn take_all(&mut self) -> Vec<Read> {
        self.begin_anew();
        self.fresh.extend(self.placed.drain(..).map(|waiting| waiting.read));
        std::mem::take(&mut self.fresh)
    }

    /// Those that wait for a position to be told or asked for: they go another way.
    pub(super) fn take_unplaced(&mut self) -> Vec<Read> {
        self.begin_anew();
        std::mem::take(&mut self.fresh)
    }
}

fn take_expired_of<For>(all: &mut VecDeque<Waiting<For>>, now: Time, expired: &mut Vec<Read>) {
    let (gone, kept): (VecDeque<Waiting<For>>, _) = all.drain(..).partition(|waiting| now >= waiting.read.deadline);
    *all = kept;
    expired.extend(gone.into_iter().map(|waiting| waiting.read));
}

impl Machine {
    /// Reads and asks that arrived in this turn are confirmed by the lease, if it held when the turn had gathered, and so
    /// behind their arrival; else by a round that begins now. When the answer leaves does not matter: it was true
    /// meanwhile.
    pub(super) fn confirm_reads(&mut self, now: Time) {
        if self.reads.fresh() == 0 && !self.asks.wants_round() {
            return;
        }
        let round = match self.replica.lease_left() {
            Some(_) => {
                self.lease_reads += self.reads.fresh() as u64;
                Some(self.replica.confirmed_round())
            }
            None => self.replica.begin_round(now, &mut self.out),
        };
        let Some(round) = round else { return };
        let mut index = self.replica.learner().chosen_upto();
        if self.settings.rules.recover_before_reads {
            index = index.max(self.replica.recovery_upto());
        }
        self.reads.begin(round, index);
        self.asks.begin(round, index);
    }

    /// Whether all that is waited for here is the word of peers on a few reads: it takes one round trip, and no sync. While
    /// more wait, there is other work meanwhile.
    pub fn awaits_word_on_few_reads(&self) -> bool {
        let reads = self.reads.linearizable() + self.asks.len();
        let awaits_writes = !self.proposed.is_empty() || !self.queue.is_empty() || self.relays.len() > 0;
        (1..=FEW_READS).contains(&reads) && !awaits_writes
    }

    /// Answers the reads that can be.
    pub(super) fn answer_reads(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let confirmed = if self.settings.rules.confirm_reads {
            self.replica.confirmed_round()
        } else {
            u64::MAX
        };
        self.tell_positions(confirmed);
        while let Some(read) = self.reads.next_ready(confirmed, self.state.applied()) {
            let done = self.state.read(&read.key);
            self.answer(read.origin, Outcome::Done(Served::Done(done)), effects);
        }
        self.answer_stale(now, effects);
    }

    /// Answers the stale reads whose slot is applied.
    pub(super) fn answer_stale(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.reads.stale.is_empty() {
            return;
        }
        for read in self.reads.take_stale(self.state.applied()) {
            let age = self.replica.age(now).map(|age| age.as_millis());
            let served = Served::Stale {
                slot: self.state.applied(),
                revision: self.state.revision(),
                age_ms: age.map_or(u32::MAX, |ms| u32::try_from(ms + 1).unwrap_or(u32::MAX)),
                found: self.state.get(&read.key),
            };
            self.answer(read.origin, Outcome::Done(served), effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::RequestId;

    fn read(request: u64) -> Read {
        let origin = Origin::Client(RequestId { connection: 1, request });
        Read {
            origin,
            key: Bytes::from_static(b"k"),
            deadline: Time::from_millis(1_000 + request),
        }
    }

    fn answered(reads: &mut Reads, applied: Slot) -> Vec<u64> {
        std::iter::from_fn(|| reads.next_ready(0, applied))
            .map(|read| match read.origin {
                Origin::Client(id) => id.request,
                Origin::Peer { .. } => panic!("nobody relays here"),
            })
            .collect()
    }

    #[test]
    fn an_answer_serves_the_reads_of_its_ask_and_of_earlier_ones_once_its_position_is_applied() {
        let mut reads = Reads::default();
        for request in 1..=3 {
            reads.push(read(request));
            reads.ask(request);
        }
        assert_eq!(reads.place(0, Slot(9)), 0, "no read waits for an ask that old");
        assert_eq!(
            reads.place(2, Slot(5)),
            2,
            "the third read arrived after the second ask"
        );
        assert_eq!(
            reads.place(1, Slot(1)),
            0,
            "the late answer to the first changes nothing"
        );
        assert!(answered(&mut reads, Slot(4)).is_empty(), "not applied yet");
        assert_eq!(answered(&mut reads, Slot(5)), [1, 2]);
        assert_eq!((reads.place(3, Slot(5)), reads.are_asked()), (1, false));
        assert_eq!(answered(&mut reads, Slot(5)), [3]);
        assert_eq!(reads.len(), 0);
    }

    #[test]
    fn a_read_ends_at_its_deadline_however_far_it_has_come() {
        let mut reads = Reads::default();
        for request in 1..=4 {
            reads.push(read(request));
            match request {
                1 => reads.begin(1, Slot(1)),
                4 => {}
                _ => reads.ask(request),
            }
        }
        reads.place(2, Slot(7));
        reads.push_stale(read(5), Slot(9));
        assert_eq!((reads.linearizable(), reads.len()), (4, 5), "wherever they stand");
        for request in 1..=4 {
            let expired = reads.take_expired(Time::from_millis(1_000 + request));
            assert_eq!(expired.len(), 1, "read {request}");
        }
        assert_eq!((reads.linearizable(), reads.len()), (0, 1));
    }
}
