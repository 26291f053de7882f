//! How much a node writes while the next slot waits to be applied: since it applied the one before, or since it first wrote a
//! record of a later slot, if that was earlier.
//!
//! No snapshot is taken before something is applied, and the log may lose its beginning only up to the first record of a slot
//! above the older snapshot. In a node that keeps up, slots are applied soon after they are written. But one that is behind
//! writes votes for slots that it reaches much later: all that it writes until a snapshot stands for those must stay as well,
//! though it may apply a slot in every turn meanwhile.

use crate::paxos::Slot;
use crate::wire::Record;
use std::collections::{BTreeMap, VecDeque};

/// Of one node. Moments are told by what it had written by then: bytes, in all lives.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// How far it has ever applied.
    applied: Slot,
    /// Since when the next slot waits.
    since: u64,
    /// Slots above `applied` with a record, each above all before it, and when that was written. Both rise.
    ahead: VecDeque<(Slot, u64)>,
    /// How much was written while they waited, by the last of the slots that were then applied at once.
    waited: BTreeMap<Slot, u64>,
}

impl Waits {
    /// A directory that is new, or another, from now on.
    pub(super) fn new(now: u64) -> Waits {
        Waits {
            since: now,
            ..Waits::default()
        }
    }

    /// Records are written.
    pub(super) fn writes(&mut self, records: &[Record], now: u64) {
        for record in records {
            if let Record::Accepted { slot, .. } | Record::Learned { slot, .. } | Record::Copied { slot, .. } = record
                && *slot > self.ahead.back().map_or(self.applied, |(last, _)| *last)
            {
                self.ahead.push_back((*slot, now));
            }
        }
    }

    /// All up to `slot` is applied. What a restart applies again did not wait again: it stood in the log.
    pub(super) fn applies(&mut self, slot: Slot, now: u64) {
        if slot <= self.applied {
            return;
        }
        self.waited.insert(slot, now - self.since);
        self.applied = slot;
        while self.ahead.front().is_some_and(|(ahead, _)| *ahead <= slot) {
            self.ahead.pop_front();
        }
        self.since = self.ahead.front().map_or(now, |(_, written)| *written);
    }

    /// The most that was written while a slot above `slot` waited, the one that still does included.
    pub(super) fn longest_above(&self, slot: Slot, now: u64) -> u64 {
        let waited = self.waited.range(slot.next()..).map(|(_, bytes)| *bytes);
        waited.fold(now - self.since, u64::max)
    }
}
