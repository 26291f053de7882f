//! The acceptor: what this node has promised and accepted.
//!
//! The safety half of Paxos: phases 1b and 2b of Lamport, "Paxos Made Simple", section 2.2. One promise covers all
//! slots (section 3), so it is kept once and not per slot. Invariants, asserted here and in [`Acceptor::check`]:
//! * A1. `promised` never goes down, restarts included: it is durable before it is answered.
//! * A2. No entry was accepted at a ballot above `promised`.
//! * A3. The ballot at which a slot was accepted never goes down.
//! * A4. One slot at one ballot has one entry, for ever (`rules.md` 9).
//!
//! Not here: counting quorums (membership.rs), what is chosen (learner.rs), when an answer may leave (replica), time.

use super::{Ballot, Entry, LogTime, Slot};
use std::collections::BTreeMap;

/// Most bytes of entries accepted above what the learner can hand out. A leader's window and one entry more fit, so it
/// only binds a node that misses slots; and what it holds fits one promise (`limits.rs`, bulk for a peer).
pub const AHEAD_BYTES_MAX: usize = 20 << 20;
/// Most slots of them, several windows: each watermark looks through all.
pub const AHEAD_SLOTS_MAX: usize = 4096;

/// The state that Lamport gives an acceptor, for all slots that its node does not know as chosen.
#[derive(Clone, Debug, Default)]
pub struct Acceptor {
    promised: Ballot,
    accepted: BTreeMap<Slot, Vote>,
    /// Of all entries in `accepted`.
    bytes: usize,
    log_time: LogTime,
}

/// The highest-ballot acceptance of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// At which ballot.
    pub ballot: Ballot,
    /// What.
    pub entry: Entry,
    /// A peer accepted it, and this node only holds a copy, since it lost its memory: shown like a vote, and none.
    pub is_copy: bool,
}

/// A refusal: a higher ballot is promised. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The promise that stands in the way.
    pub promised: Ballot,
}

/// What the caller must make durable before it tells of a promise or an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new: it is on its way to the disk, or there, already.
    Known,
    /// This is news.
    New,
}

impl Acceptor {
    /// The highest ballot promised.
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The highest log time among the entries accepted (`rules.md` 20).
    pub fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// How many slots it holds an acceptance for.
    pub fn len(&self) -> usize {
        self.accepted.len()
    }

    /// Whether it holds no acceptance.
    pub fn is_empty(&self) -> bool {
        self.accepted.is_empty()
    }

    /// Whether it can hold an acceptance for `slot`. At its bounds it takes no slot beyond those it holds: what a node that
    /// misses slots would heap up while it catches up, it fetches later. Lower slots always find room, so that a hole
    /// that needs this node's vote is closed.
    pub fn has_room_for(&self, slot: Slot) -> bool {
        let is_full = self.bytes >= AHEAD_BYTES_MAX || self.accepted.len() >= AHEAD_SLOTS_MAX;
        !is_full || self.accepted.last_key_value().is_none_or(|(last, _)| slot <= *last)
    }

    /// Phase 1b: promises `ballot`, unless a higher one is promised already.
    ///
    /// # Errors
    /// [`Refused`] with the higher ballot; nothing has changed then.
    ///
    /// Source: "Paxos Made Simple", section 2.2, phase 1(b).
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Change, Refused> {
        // Equal is granted too: the proposer asks again when our first promise was lost.
        if ballot < self.promised {
            return Err(Refused {
                promised: self.promised,
            });
        }
        let change = if ballot == self.promised {
            Change::Known
        } else {
            Change::New
        };
        self.promised = ballot;
        Ok(change)
    }

    /// Phase 2b: accepts `entry` for `slot` at `ballot`, unless a higher ballot is promised. Accepting promises, too.
    ///
    /// # Errors
    /// [`Refused`] with the higher ballot; nothing has changed then.
    ///
    /// Source: "Paxos Made Simple", section 2.2, phase 2(b).
    pub fn accept(&mut self, ballot: Ballot, slot: Slot, entry: &Entry) -> Result<Change, Refused> {
        // The promise is compared, not the slot's last acceptance: see `rules.md` and pitfall P4.
        if ballot < self.promised {
            return Err(Refused {
                promised: self.promised,
            });
        }
        if let Some(vote) = self.accepted.get(&slot) {
            assert!(
                vote.ballot <= ballot,
                "A3: slot {slot} accepted at {}, now at {ballot}",
                vote.ballot
            );
            if vote.ballot == ballot {
                assert!(
                    vote.entry == *entry,
                    "A4: two entries for slot {slot} at ballot {ballot}"
                );
                if !vote.is_copy {
                    return Ok(Change::Known);
                }
            }
        }
        self.promised = ballot;
        self.log_time = self.log_time.max(entry.stamp);
        let (entry, is_copy) = (entry.clone(), false);
        self.hold(slot, Vote { ballot, entry, is_copy });
        Ok(Change::New)
    }

    /// What is accepted for `slot`.
    pub fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.accepted.get(&slot)
    }

    /// All acceptances from `from` on, in slot order: what a promise lists. One left out, and the next leader could
    /// propose over a chosen entry.
    pub fn votes_from(&self, from: Slot) -> impl Iterator<Item = (Slot, &Vote)> {
        self.accepted.range(from..).map(|(slot, vote)| (*slot, vote))
    }

    /// Slots up to `upto` accepted at a ballot that `is_proven`: at its own a watermark proves them as chosen.
    pub fn slots_at(&self, is_proven: impl Fn(Ballot) -> bool, upto: Slot) -> Vec<Slot> {
        self.accepted
            .range(..=upto)
            .filter(|(_, vote)| is_proven(vote.ballot))
            .map(|(slot, _)| *slot)
            .collect()
    }

    /// Forgets slots up to `upto`: the learner can hand them out as chosen, and says so in every promise (`rules.md` 6).
    pub fn forget(&mut self, upto: Slot) {
        while let Some(first) = self.accepted.first_entry() {
            if *first.key() > upto {
                break;
            }
            self.bytes -= first.remove().entry.body.len();
        }
    }

    /// Takes a durable promise back from the disk. Promises of one log only rise, but a used ballot may stand between.
    pub fn recover_promised(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    /// Takes a durable acceptance back from the disk.
    pub fn recover_accepted(&mut self, slot: Slot, ballot: Ballot, entry: Entry) {
        self.promised = self.promised.max(ballot);
        self.log_time = self.log_time.max(entry.stamp);
        let is_copy = false;
        self.hold(slot, Vote { ballot, entry, is_copy });
    }

    /// Holds a copy of what a peer accepted, so that promises show it (`rules.md` 3); also back from the disk. False if this
    /// node holds an acceptance of the slot at that ballot or a higher one.
    pub fn copy(&mut self, slot: Slot, ballot: Ballot, entry: &Entry) -> bool {
        if self.accepted.get(&slot).is_some_and(|vote| vote.ballot >= ballot) {
            return false;
        }
        self.promised = self.promised.max(ballot); // A2
        self.log_time = self.log_time.max(entry.stamp);
        let (entry, is_copy) = (entry.clone(), true);
        self.hold(slot, Vote { ballot, entry, is_copy });
        true
    }

    fn hold(&mut self, slot: Slot, vote: Vote) {
        self.bytes += vote.entry.body.len();
        if let Some(before) = self.accepted.insert(slot, vote) {
            self.bytes -= before.entry.body.len();
        }
    }

    /// Asserts the invariants that a look at the whole state can show.
    pub fn check(&self) {
        for (slot, vote) in &self.accepted {
            assert!(
                vote.ballot <= self.promised,
                "A2: slot {slot} accepted at {}, promised {}",
                vote.ballot,
                self.promised
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::testing::{ballot, entry};

    #[test]
    fn a_promise_never_goes_down_and_equal_ballots_are_granted_again() {
        let mut acceptor = Acceptor::default();
        // asked, granted?, promised after
        let table = [
            ((1, 1), true, (1, 1)),
            ((1, 1), true, (1, 1)),
            ((2, 3), true, (2, 3)),
            ((2, 2), false, (2, 3)),
        ];
        for ((round, node), granted, (r, n)) in table {
            assert_eq!(acceptor.prepare(ballot(round, node)).is_ok(), granted, "{round}.{node}");
            assert_eq!(acceptor.promised(), ballot(r, n));
        }
    }

    #[test]
    fn an_acceptance_is_tested_against_the_promise_and_raises_it() {
        let mut acceptor = Acceptor::default();
        acceptor
            .accept(ballot(3, 1), Slot(1), &entry(b"a"))
            .expect("nothing is promised");
        assert_eq!(acceptor.promised(), ballot(3, 1), "accepting promises, too");
        acceptor.prepare(ballot(5, 2)).expect("higher");
        // Slot 2 was never accepted; the promise alone stands in the way (pitfall P4).
        let refused = acceptor
            .accept(ballot(4, 1), Slot(2), &entry(b"b"))
            .expect_err("promised 5.2");
        assert_eq!(refused.promised, ballot(5, 2));
        assert!(acceptor.vote(Slot(2)).is_none(), "a refusal changes nothing");
    }

    #[test]
    fn a_repeated_accept_is_known_and_a_higher_ballot_replaces_the_vote() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(1, 1), Slot(7), &entry(b"a")), Ok(Change::New));
        assert_eq!(acceptor.accept(ballot(1, 1), Slot(7), &entry(b"a")), Ok(Change::Known));
        assert_eq!(acceptor.accept(ballot(2, 2), Slot(7), &entry(b"b")), Ok(Change::New));
        assert_eq!(acceptor.vote(Slot(7)).map(|vote| vote.ballot), Some(ballot(2, 2)));
        assert!(
            acceptor.slots_at(|at| at == ballot(1, 1), Slot(9)).is_empty(),
            "a watermark of ballot 1.1 proves nothing here"
        );
        acceptor.check();
    }

    #[test]
    fn a_copy_is_shown_and_becomes_a_vote_only_by_an_accept_of_its_own() {
        let mut acceptor = Acceptor::default();
        assert!(acceptor.copy(Slot(1), ballot(2, 2), &entry(b"a")));
        assert!(!acceptor.copy(Slot(1), ballot(1, 1), &entry(b"b")), "an older ballot's");
        assert_eq!(
            (acceptor.promised(), acceptor.votes_from(Slot(1)).count()),
            (ballot(2, 2), 1)
        );
        assert!(acceptor.accept(ballot(1, 1), Slot(1), &entry(b"b")).is_err());
        assert_eq!(acceptor.accept(ballot(2, 2), Slot(1), &entry(b"a")), Ok(Change::New));
        assert_eq!(acceptor.accept(ballot(2, 2), Slot(1), &entry(b"a")), Ok(Change::Known));
        assert!(!acceptor.copy(Slot(1), ballot(2, 2), &entry(b"a")), "a vote stays one");
        acceptor.check();
    }

    #[test]
    #[should_panic(expected = "A4")]
    fn two_entries_for_one_slot_and_ballot_stop_the_node() {
        let mut acceptor = Acceptor::default();
        let _ = acceptor.accept(ballot(1, 1), Slot(1), &entry(b"a"));
        let _ = acceptor.accept(ballot(1, 1), Slot(1), &entry(b"b"));
    }
}
