//! The learner: which entries this node knows as chosen.
//!
//! Source: "Paxos Made Simple", section 2.3; the watermark rule is `rules.md` 8. Invariants:
//! * L1. No slot has two entries known as chosen; a second one stops the node (two commands chosen for one slot).
//! * L2. `applied <= chosen_upto`, and all slots up to `chosen_upto` can be handed out: applied is a prefix without holes.
//! * L3. Neither mark ever goes down.
//!
//! Not here: how a slot came to be known as chosen (proposer.rs counts, replica compares ballots), what entries mean.

use super::{Entry, LogTime, Slot};
use crate::rules::Rules;
use std::collections::{BTreeMap, VecDeque};

/// What is known as chosen: a prefix, islands beyond it, and the recent part of the prefix in memory for peers.
#[derive(Clone, Debug)]
pub struct Learner {
    /// End of the prefix that this node can hand out, from memory or disk (`rules.md` 6).
    chosen_upto: Slot,
    /// End of the prefix given to the state machine. Invariant L2: `applied <= chosen_upto`.
    applied: Slot,
    /// Known as chosen, beyond a hole.
    beyond: BTreeMap<Slot, Entry>,
    /// The newest entries of the prefix: those not yet applied, and as many older ones as `cache_bytes` allows.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    cache_bytes: usize,
    /// The highest slot that anybody was heard to know as chosen.
    heard_upto: Slot,
    log_time: LogTime,
    rules: Rules,
}

impl Learner {
    /// A learner whose log begins behind `base`, and keeps about `cache_bytes` of applied entries in memory.
    pub fn new(base: Slot, cache_bytes: usize, rules: Rules) -> Learner {
        Learner {
            chosen_upto: base,
            applied: base,
            beyond: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            cache_bytes,
            heard_upto: base,
            log_time: LogTime::default(),
            rules,
        }
    }

    /// End of the prefix that this node can hand out as chosen.
    pub fn chosen_upto(&self) -> Slot {
        self.chosen_upto
    }

    /// End of the prefix that was given out to be applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The highest slot known as chosen here, islands included.
    pub fn highest(&self) -> Slot {
        self.beyond.last_key_value().map_or(self.chosen_upto, |(slot, _)| *slot)
    }

    /// The highest slot that anybody was heard to know as chosen.
    pub fn heard_upto(&self) -> Slot {
        self.heard_upto
    }

    /// The highest log time among the entries known as chosen.
    pub fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// Notes that somebody knows all up to `slot` as chosen. A mark only heard is never told on (`rules.md` 6).
    pub fn hear(&mut self, slot: Slot) {
        self.heard_upto = self.heard_upto.max(slot);
    }

    /// Whether `slot` is known as chosen here.
    pub fn knows(&self, slot: Slot) -> bool {
        slot <= self.chosen_upto || self.beyond.contains_key(&slot)
    }

    /// The chosen entry of `slot`, if it is in memory.
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        if slot > self.chosen_upto {
            return self.beyond.get(&slot);
        }
        let first = self.first_recent();
        if slot < first {
            None
        } else {
            self.recent.get((slot.0 - first.0) as usize)
        }
    }

    /// Bytes of the entries of the prefix that are in memory. Once all are applied, no more than the bound.
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes
    }

    /// Entries known as chosen from `from` on, beyond the prefix (islands): a promise marks them so.
    pub fn islands_from(&self, from: Slot) -> impl Iterator<Item = (Slot, &Entry)> {
        self.beyond.range(from..).map(|(slot, entry)| (*slot, entry))
    }

    /// Learns that `entry` is chosen for `slot`; false if that was known.
    ///
    /// # Panics
    /// L1: if another entry is known as chosen there. No answer is better than a wrong one.
    pub fn learn(&mut self, slot: Slot, entry: &Entry) -> bool {
        if let Some(known) = self.entry(slot) {
            assert!(
                known == entry,
                "L1: two entries chosen for slot {slot}: {known} and {entry}"
            );
        }
        if self.knows(slot) {
            return false;
        }
        self.log_time = self.log_time.max(entry.stamp);
        self.beyond.insert(slot, entry.clone());
        self.hear(slot);
        self.join_islands();
        true
    }

    /// The state behind `upto` is here without the entries up to there, which are chosen: it came as a snapshot, whose log
    /// time is `log_time`.
    pub fn skip_to(&mut self, upto: Slot, log_time: LogTime) {
        while self.first_recent() <= upto
            && let Some(entry) = self.recent.pop_front()
        {
            self.recent_bytes -= entry.body.len();
        }
        self.beyond = self.beyond.split_off(&upto.next());
        self.chosen_upto = self.chosen_upto.max(upto);
        self.applied = self.applied.max(upto);
        self.log_time = self.log_time.max(log_time);
        self.hear(upto);
        self.join_islands();
    }

    /// What is known behind the prefix without a hole becomes part of it.
    fn join_islands(&mut self) {
        while let Some(entry) = self.beyond.remove(&self.chosen_upto.next()) {
            self.chosen_upto = self.chosen_upto.next();
            self.recent_bytes += entry.body.len();
            self.recent.push_back(entry);
        }
    }

    /// Whether there is an entry to apply.
    pub fn has_to_apply(&self) -> bool {
        let upto = if self.rules.apply_without_holes {
            self.chosen_upto
        } else {
            self.highest()
        };
        self.applied < upto
    }

    /// The next entry to apply, in slot order without holes. It counts as applied from now on.
    pub fn next_to_apply(&mut self) -> Option<(Slot, Entry)> {
        if !self.rules.apply_without_holes && self.applied >= self.chosen_upto {
            let (slot, entry) = self.beyond.range(self.applied.next()..).next()?;
            self.applied = *slot;
            return Some((*slot, entry.clone()));
        }
        if self.applied == self.chosen_upto {
            return None;
        }
        let slot = self.applied.next();
        let entry = self
            .entry(slot)
            .expect("entries not yet applied are never dropped from memory")
            .clone();
        self.applied = slot;
        self.trim();
        Some((slot, entry))
    }

    /// Slot of the oldest entry in memory.
    fn first_recent(&self) -> Slot {
        Slot(self.chosen_upto.0 + 1 - self.recent.len() as u64)
    }

    /// Drops the oldest applied entries above the byte bound; the disk has them.
    fn trim(&mut self) {
        while self.recent_bytes > self.cache_bytes && self.first_recent() <= self.applied {
            let Some(entry) = self.recent.pop_front() else { break };
            self.recent_bytes -= entry.body.len();
        }
    }

    /// Asserts L2.
    pub fn check(&self) {
        assert!(
            self.applied <= self.chosen_upto || !self.rules.apply_without_holes,
            "L2: applied {} above chosen {}",
            self.applied,
            self.chosen_upto
        );
        let hole = self.chosen_upto.next();
        assert!(
            !self.beyond.contains_key(&hole),
            "L2: slot {hole} is known and not in the prefix"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::testing::entry;

    fn applied(learner: &mut Learner) -> Vec<u64> {
        std::iter::from_fn(|| learner.next_to_apply())
            .map(|(slot, _)| slot.0)
            .collect()
    }

    #[test]
    fn nothing_is_applied_past_a_hole() {
        let mut learner = Learner::new(Slot::ZERO, 1 << 20, Rules::KEPT);
        learner.learn(Slot(1), &entry(b"a"));
        learner.learn(Slot(3), &entry(b"c"));
        assert_eq!(applied(&mut learner), [1]);
        assert_eq!((learner.chosen_upto(), learner.highest()), (Slot(1), Slot(3)));
        learner.learn(Slot(2), &entry(b"b"));
        assert_eq!(applied(&mut learner), [2, 3]);
        learner.check();
    }

    #[test]
    #[should_panic(expected = "L1")]
    fn two_entries_chosen_for_one_slot_stop_the_node() {
        let mut learner = Learner::new(Slot::ZERO, 1 << 20, Rules::KEPT);
        learner.learn(Slot(1), &entry(b"a"));
        learner.learn(Slot(1), &entry(b"b"));
    }

    #[test]
    fn old_entries_leave_memory_and_unapplied_ones_never_do() {
        let mut learner = Learner::new(Slot::ZERO, 40, Rules::KEPT);
        for slot in 1..=10 {
            learner.learn(Slot(slot), &entry(b"0123456789"));
        }
        assert!(learner.entry(Slot(1)).is_some(), "not applied yet");
        assert_eq!(applied(&mut learner).len(), 10);
        assert!(learner.entry(Slot(1)).is_none() && learner.entry(Slot(10)).is_some());
        assert!(learner.knows(Slot(1)), "the disk can hand it out");
        assert!(!learner.learn(Slot(1), &entry(b"0123456789")));
    }

    #[test]
    fn a_snapshot_takes_the_place_of_entries_and_joins_what_is_known_behind_it() {
        let mut learner = Learner::new(Slot::ZERO, 1 << 20, Rules::KEPT);
        for slot in [1, 2, 5, 6, 9] {
            learner.learn(Slot(slot), &entry(b"e"));
        }
        assert_eq!(applied(&mut learner), [1, 2]);
        learner.skip_to(Slot(4), LogTime(7));
        assert_eq!((learner.chosen_upto(), learner.applied()), (Slot(6), Slot(4)));
        assert!(learner.knows(Slot(3)) && learner.entry(Slot(3)).is_none() && learner.entry(Slot(2)).is_none());
        assert_eq!(applied(&mut learner), [5, 6]);
        learner.skip_to(Slot(3), LogTime(1));
        assert_eq!(
            (learner.chosen_upto(), learner.log_time()),
            (Slot(6), LogTime(7)),
            "no mark goes down"
        );
        assert_eq!(learner.highest(), Slot(9));
        learner.check();
    }
}
