//! Promises of several acceptors, part by part, and what they show together.
//!
//! Phase 1 collects them, and so does a node that lost its memory ([`super::recovery`]): the answers that it gets are like
//! promises. Invariants:
//! * R5. A promise is one moment of one acceptor: it counts when parts of one attempt cover all from `from_slot` to its end
//!   without a hole (`rules.md` 5).
//! * R2. A slot takes the entry of the highest ballot; one that somebody knows as chosen wins over all.

use super::{Ballot, Entry, LogTime, Membership, NodeId, Slot, VoterSet, message};
use crate::rules::Rules;
use std::collections::BTreeMap;

/// The promises of one question, as far as they came.
#[derive(Clone, Debug)]
pub struct Promises {
    from_slot: Slot,
    parts: BTreeMap<NodeId, Vec<message::Promise>>,
    whole: VoterSet,
}

/// What whole promises show together.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The highest ballot that any of them promises.
    pub promised: Ballot,
    /// The highest `chosen_upto` among the promises, and who can hand it out.
    pub mark: Slot,
    /// See `mark`.
    pub mark_of: Option<NodeId>,
    /// The highest log time.
    pub log_time: LogTime,
    /// Known as chosen beyond somebody's hole.
    pub chosen: BTreeMap<Slot, Entry>,
    /// The highest-ballot acceptance of each slot listed.
    pub accepted: BTreeMap<Slot, (Ballot, Entry)>,
}

impl Promises {
    /// None yet; they are to cover all slots from `from_slot` on.
    pub fn new(from_slot: Slot) -> Promises {
        Promises {
            from_slot,
            parts: BTreeMap::new(),
            whole: VoterSet::EMPTY,
        }
    }

    /// Takes one part. False if it is of no use: of a stranger, behind a part that was lost, or of a promise that is whole.
    pub fn add(&mut self, members: &Membership, from: NodeId, part: message::Promise) -> bool {
        if !members.contains(from) || members.has(self.whole, from) {
            return false;
        }
        let parts = self.parts.entry(from).or_default();
        if part.first == self.from_slot {
            parts.clear();
        }
        let follows = parts.last().map_or(part.first == self.from_slot, |before| {
            (before.attempt, before.last.next()) == (part.attempt, part.first)
        });
        if !follows {
            return false; // a part before it was lost: the next attempt brings all again
        }
        let is_last = part.is_last;
        parts.push(part);
        if is_last {
            members.add(&mut self.whole, from);
        }
        true
    }

    /// Whose promise is whole.
    pub fn whole_of(&self) -> VoterSet {
        self.whole
    }

    /// Whose promise is not whole yet.
    pub fn missing<'a>(&'a self, members: &'a Membership) -> impl Iterator<Item = NodeId> + 'a {
        let voters = members.voters().iter().copied();
        voters.filter(|node| !members.has(self.whole, *node))
    }

    /// Drops what a forgotten life of `node` promised.
    pub fn forget(&mut self, members: &Membership, node: NodeId) {
        members.remove(&mut self.whole, node);
        self.parts.remove(&node);
    }

    /// Whether the promise of `node` shows that it accepted `slot` at `ballot`, or knows what was chosen there.
    pub fn show(&self, node: NodeId, ballot: Ballot, slot: Slot) -> bool {
        let parts = self.parts.get(&node).map(Vec::as_slice).unwrap_or_default();
        let reported = parts
            .iter()
            .flat_map(|part| &part.accepted)
            .find(|accepted| accepted.slot == slot);
        slot < self.from_slot
            || parts.iter().any(|part| slot <= part.chosen_upto)
            || reported.is_some_and(|accepted| accepted.chosen || accepted.ballot >= ballot)
    }

    /// R2: joins the whole promises by the highest-ballot rule.
    pub fn found(&self, members: &Membership, rules: Rules) -> Found {
        let mut found = Found::default();
        for (node, parts) in self.parts.iter().filter(|(node, _)| members.has(self.whole, **node)) {
            for part in parts {
                found.promised = found.promised.max(part.ballot);
                found.log_time = found.log_time.max(part.log_time);
                if part.chosen_upto > found.mark {
                    (found.mark, found.mark_of) = (part.chosen_upto, Some(*node));
                }
                part.accepted.iter().for_each(|accepted| found.add(accepted, rules));
            }
        }
        found
    }
}

impl Found {
    fn add(&mut self, reported: &message::AcceptedEntry, rules: Rules) {
        let message::AcceptedEntry {
            slot,
            ballot,
            chosen,
            entry,
        } = reported;
        if *chosen {
            self.chosen.insert(*slot, entry.clone());
            return;
        }
        let known = self.accepted.get(slot);
        if known.is_none_or(|(highest, _)| rules.highest_ballot_wins && ballot > highest) {
            self.accepted.insert(*slot, (*ballot, entry.clone()));
        }
    }

    /// The highest slot that any promise spoke of.
    pub fn highest(&self) -> Slot {
        let last = |slot: Option<&Slot>| slot.copied().unwrap_or(Slot::ZERO);
        self.mark
            .max(last(self.chosen.keys().next_back()))
            .max(last(self.accepted.keys().next_back()))
    }
}
