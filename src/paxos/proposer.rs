//! The proposer: phase 1 once for all open slots, then phase 2 slot by slot.
//!
//! Source: "Paxos Made Simple", sections 2.2 (phases 1a and 2a) and 3 (one phase 1 for all slots, no-ops for gaps).
//! Invariants:
//! * R1. A ballot is used once: it is durable as used before PREPARE leaves (`rules.md` 4), and left for ever when left.
//! * R2. In phase 1 a slot takes the entry of the highest ballot among a quorum of promises (known as chosen: that one);
//!   only a slot that none of them accepted takes a no-op or a new entry.
//! * R3. Nothing is proposed at or below the quorum's highest `chosen_upto` (`rules.md` 6).
//! * R4. One slot at one ballot has one entry: `open` holds it until it is chosen, and a retry sends the same.
//!
//! Not here: durability, time, elections (election.rs), who asked for an entry.

pub use super::promises::Found;

use super::promises::Promises;
use super::{Ballot, Entry, LogTime, Membership, NodeId, Slot, VoterSet, message};
use crate::rules::Rules;
use crate::time::Time;
use std::collections::BTreeMap;

/// Phase 1 of one ballot: collects promises.
#[derive(Clone, Debug)]
pub struct Phase1 {
    /// The ballot.
    pub ballot: Ballot,
    /// Counts the tries at this ballot; parts of different tries are not mixed (`rules.md` 5).
    pub attempt: u32,
    /// First slot that this node did not know as chosen when it began.
    pub from_slot: Slot,
    /// Whether the ballot is durable as used, so that PREPARE may leave.
    pub is_durable: bool,
    /// When PREPARE is sent again to those whose promise is not whole.
    pub resend_at: Time,
    promises: Promises,
}

impl Phase1 {
    /// Phase 1 of `ballot`, for all slots from `from_slot` on.
    pub fn new(ballot: Ballot, from_slot: Slot, resend_at: Time) -> Phase1 {
        Phase1 {
            ballot,
            attempt: 1,
            from_slot,
            is_durable: false,
            resend_at,
            promises: Promises::new(from_slot),
        }
    }

    /// Takes one part of a promise. True if the promises of a quorum are whole now. Which attempt a part answers does not
    /// matter: the ballot is the same, and over a slow link answers come behind the next question.
    pub fn add(&mut self, members: &Membership, from: NodeId, part: message::Promise) -> bool {
        let is_ours = part.ballot == self.ballot && (1..=self.attempt).contains(&part.attempt);
        is_ours && self.promises.add(members, from, part) && members.is_quorum(self.from_slot, self.promises.whole_of())
    }

    /// Who has not answered whole yet.
    pub fn missing<'a>(&'a self, members: &'a Membership) -> impl Iterator<Item = NodeId> + 'a {
        self.promises.missing(members)
    }

    /// Asks anew those who are missing: their parts of different attempts are not mixed (`rules.md` 5).
    pub fn next_attempt(&mut self) {
        self.attempt += 1;
    }

    /// Drops what a forgotten life of `node` promised.
    pub fn forget(&mut self, members: &Membership, node: NodeId) {
        self.promises.forget(members, node);
    }

    /// Who has promised, whole.
    pub fn promised_by(&self) -> VoterSet {
        self.promises.whole_of()
    }

    /// Whether the whole promise of `node` shows that it accepted `slot` at `ballot`, or knows what was chosen there.
    pub fn remembers(&self, node: NodeId, ballot: Ballot, slot: Slot) -> bool {
        self.promises.show(node, ballot, slot)
    }

    /// R2: joins the whole promises by the highest-ballot rule.
    pub fn found(&self, members: &Membership, rules: Rules) -> Found {
        self.promises.found(members, rules)
    }
}

/// Phase 2: what a leader has open at its ballot.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// The ballot it leads at.
    pub ballot: Ballot,
    /// First slot free for a new entry.
    pub next_slot: Slot,
    /// All that phase 1 showed is up to here: reads wait until it is applied (`rules.md` 7).
    pub recovery_upto: Slot,
    /// R3: chosen up to here, at whoever promised; to be fetched where this node misses it (`rules.md` 6).
    pub mark: Slot,
    open: BTreeMap<Slot, Open>,
    open_bytes: usize,
    /// The highest slot that a peer has voted for while it was open, and when one last did.
    voted: (Slot, Time),
    log_time: LogTime,
    since: Time,
    rules: Rules,
}

/// A slot proposed and not known as chosen yet.
#[derive(Clone, Debug)]
pub struct Open {
    /// The one entry of this slot at this ballot.
    pub entry: Entry,
    /// Who accepted it at this ballot, durably.
    pub votes: VoterSet,
    /// Votes that came again, and counted: none, while votes are counted once.
    repeated: usize,
    /// When ACCEPT was last sent to those missing.
    pub sent_at: Time,
}

impl Leadership {
    /// Begins to lead at `ballot` with what phase 1 found; `highest_chosen` is this node's own highest chosen slot.
    pub fn new(ballot: Ballot, found: &Found, highest_chosen: Slot, log_time: LogTime, now: Time) -> Leadership {
        let recovery_upto = found.highest().max(highest_chosen);
        Leadership {
            ballot,
            next_slot: recovery_upto.next(),
            recovery_upto,
            mark: found.mark,
            open: BTreeMap::new(),
            open_bytes: 0,
            voted: (Slot::ZERO, now),
            log_time: log_time.max(found.log_time),
            since: now,
            rules: Rules::KEPT,
        }
    }

    /// The same, counting votes as `rules` want it.
    #[must_use]
    pub fn under(self, rules: Rules) -> Leadership {
        Leadership { rules, ..self }
    }

    /// Log time to stamp an entry with: the highest that the promises knew, plus this leader's time since (`rules.md` 20).
    pub fn stamp(&self, now: Time) -> LogTime {
        LogTime(self.log_time.0.saturating_add(now.since(self.since).as_millis() as u64))
    }

    /// Opens `slot` with `entry`: from now on its only entry at this ballot.
    pub fn open(&mut self, slot: Slot, entry: Entry, now: Time) {
        assert!(
            slot > self.mark,
            "R3: slot {slot} proposed, chosen up to {} at a promiser",
            self.mark
        );
        self.open_bytes += entry.body.len();
        let before = self.open.insert(
            slot,
            Open {
                entry,
                votes: VoterSet::EMPTY,
                repeated: 0,
                sent_at: now,
            },
        );
        assert!(
            before.is_none(),
            "R4: slot {slot} proposed twice at ballot {}",
            self.ballot
        );
        self.next_slot = self.next_slot.max(slot.next());
    }

    /// Takes one vote for `slot` at this ballot. The entry, if with it a quorum has accepted: it is chosen.
    pub fn vote(&mut self, members: &Membership, slot: Slot, from: NodeId) -> Option<Entry> {
        let open = self.open.get_mut(&slot)?; // closed already: more votes than needed change nothing
        let is_new = members.add(&mut open.votes, from);
        if !is_new && !self.rules.count_votes_once {
            open.repeated += 1;
        }
        if !members.suffice(slot, open.votes.len() + open.repeated) {
            return None;
        }
        let Open { entry, .. } = self.open.remove(&slot)?;
        self.open_bytes -= entry.body.len();
        Some(entry)
    }

    /// Slots open in `first..=last`.
    pub fn open_in(&self, first: Slot, last: Slot) -> Vec<Slot> {
        if first > last {
            return Vec::new();
        }
        self.open.range(first..=last).map(|(slot, _)| *slot).collect()
    }

    /// The entry open in `slot`.
    pub fn open_entry(&self, slot: Slot) -> Option<&Entry> {
        self.open.get(&slot).map(|open| &open.entry)
    }

    /// Who has accepted the entry open in `slot`.
    pub fn open_votes(&self, slot: Slot) -> Option<VoterSet> {
        self.open.get(&slot).map(|open| open.votes)
    }

    /// How many slots are open, and the bytes of their entries.
    pub fn open_size(&self) -> (usize, usize) {
        (self.open.len(), self.open_bytes)
    }

    /// Everything open, in slot order.
    pub fn iter_open(&self) -> impl Iterator<Item = (Slot, &Open)> {
        self.open.iter().map(|(slot, open)| (*slot, open))
    }

    /// A peer has voted for open slots up to `last`.
    pub fn note_voted(&mut self, last: Slot, now: Time) {
        self.voted = (self.voted.0.max(last), now);
    }

    /// Since when nothing was heard of a slot that was open at `sent_at`. Links keep their order: what stands behind all
    /// that was voted for is on its way while votes come, however long the peers' disks take; what was passed over is lost.
    fn silent_since(voted: (Slot, Time), slot: Slot, sent_at: Time) -> Time {
        if slot > voted.0 { sent_at.max(voted.1) } else { sent_at }
    }

    /// The slots of which nothing was heard since `before`, to be sent again; they count as sent `now`.
    pub fn overdue(&mut self, before: Time, now: Time) -> Vec<(Slot, Open)> {
        let voted = self.voted;
        let is_overdue = |slot, open: &Open| Self::silent_since(voted, slot, open.sent_at) <= before;
        let mut overdue = Vec::new();
        for (slot, open) in self.open.iter_mut().filter(|(slot, open)| is_overdue(**slot, open)) {
            open.sent_at = now;
            overdue.push((*slot, open.clone()));
        }
        overdue
    }

    /// Since when nothing was heard of the slot that is silent for longest.
    pub fn oldest_sent(&self) -> Option<Time> {
        let silent = |(slot, open): (&Slot, &Open)| Self::silent_since(self.voted, *slot, open.sent_at);
        self.open.iter().map(silent).min()
    }

    /// Drops what a forgotten life of `node` voted.
    pub fn forget(&mut self, members: &Membership, node: NodeId) {
        self.open
            .values_mut()
            .for_each(|open| members.remove(&mut open.votes, node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::message::{AcceptedEntry, Promise};
    use crate::paxos::testing::{ballot, entry};
    use crate::paxos::{Incarnation, Voter};

    fn members() -> Membership {
        Membership::founding([NodeId(1), NodeId(2), NodeId(3)])
    }

    fn part(first: u64, last: u64, is_last: bool, accepted: Vec<AcceptedEntry>) -> Promise {
        Promise {
            ballot: ballot(5, 1),
            attempt: 1,
            first: Slot(first),
            last: Slot(last),
            is_last,
            chosen_upto: Slot::ZERO,
            log_time: LogTime(0),
            voter: Voter {
                incarnation: Incarnation::default(),
                generations: [].into(),
            },
            accepted,
        }
    }

    fn at(slot: u64, round: u64, chosen: bool, body: &'static [u8]) -> AcceptedEntry {
        AcceptedEntry {
            slot: Slot(slot),
            ballot: ballot(round, 2),
            chosen,
            entry: entry(body),
        }
    }

    #[test]
    fn the_entry_of_the_highest_ballot_wins_and_a_chosen_one_wins_over_all() {
        let members = members();
        let mut phase = Phase1::new(ballot(5, 1), Slot(1), Time::ZERO);
        assert!(!phase.add(
            &members,
            NodeId(1),
            part(1, 2, true, vec![at(1, 4, false, b"new"), at(2, 3, false, b"x")])
        ));
        assert!(phase.add(
            &members,
            NodeId(2),
            part(1, 2, true, vec![at(1, 2, false, b"old"), at(2, 1, true, b"y")])
        ));
        let found = phase.found(&members, Rules::KEPT);
        assert_eq!(found.accepted[&Slot(1)].1, entry(b"new"));
        assert_eq!(found.chosen[&Slot(2)], entry(b"y"));
        assert_eq!(found.highest(), Slot(2));
    }

    #[test]
    fn a_promise_counts_once_it_is_whole_and_a_repeated_one_once() {
        let members = members();
        let mut phase = Phase1::new(ballot(5, 1), Slot(1), Time::ZERO);
        assert!(!phase.add(&members, NodeId(1), part(1, 3, true, vec![])));
        assert!(
            !phase.add(&members, NodeId(1), part(1, 3, true, vec![])),
            "the same voter again is no quorum"
        );
        assert!(
            !phase.add(&members, NodeId(2), part(1, 3, false, vec![])),
            "not whole yet"
        );
        assert!(
            !phase.add(&members, NodeId(2), part(6, 9, true, vec![])),
            "slots 4 and 5 are missing"
        );
        assert!(phase.add(&members, NodeId(2), part(4, 9, true, vec![])));
    }

    #[test]
    fn parts_of_two_attempts_are_not_mixed_and_any_one_attempt_will_do() {
        let members = members();
        let mut phase = Phase1::new(ballot(5, 1), Slot(1), Time::ZERO);
        let of = |attempt, mut part: Promise| {
            part.attempt = attempt;
            part
        };
        phase.add(&members, NodeId(1), of(1, part(1, 9, true, vec![])));
        assert!(
            !phase.add(&members, NodeId(2), of(2, part(1, 9, true, vec![]))),
            "never asked"
        );
        phase.next_attempt();
        phase.add(&members, NodeId(2), of(1, part(1, 3, false, vec![])));
        assert!(
            !phase.add(&members, NodeId(2), of(2, part(4, 9, true, vec![]))),
            "two moments"
        );
        assert!(
            phase.add(&members, NodeId(2), of(1, part(4, 9, true, vec![]))),
            "one moment, told late"
        );
    }

    #[test]
    fn what_stands_behind_all_that_was_voted_for_is_on_its_way_and_what_was_passed_over_is_lost() {
        let at = Time::from_millis;
        let slots = |overdue: Vec<(Slot, Open)>| overdue.into_iter().map(|(slot, _)| slot.0).collect::<Vec<u64>>();
        let mut lead = Leadership::new(ballot(5, 1), &Found::default(), Slot::ZERO, LogTime(0), at(0));
        for slot in 1..=4 {
            lead.open(Slot(slot), entry(b"a"), at(0));
        }
        lead.note_voted(Slot(2), at(90));
        assert_eq!(lead.oldest_sent(), Some(at(0)), "slot 1 was passed over");
        assert_eq!(slots(lead.overdue(at(0), at(100))), [1, 2]);
        assert_eq!(lead.oldest_sent(), Some(at(90)));
        assert_eq!(slots(lead.overdue(at(90), at(190))), [3, 4], "no vote came for long");
    }

    #[test]
    fn a_slot_is_chosen_by_distinct_voters_at_least_a_majority() {
        let members = members();
        let mut lead = Leadership::new(ballot(5, 1), &Found::default(), Slot::ZERO, LogTime(7), Time::ZERO);
        lead.open(Slot(1), entry(b"a"), Time::ZERO);
        assert_eq!(lead.vote(&members, Slot(1), NodeId(2)), None);
        assert_eq!(
            lead.vote(&members, Slot(1), NodeId(2)),
            None,
            "a vote that arrives twice counts once"
        );
        assert_eq!(
            lead.vote(&members, Slot(1), NodeId(3)),
            Some(entry(b"a")),
            "its own vote is not needed"
        );
        assert_eq!(
            lead.vote(&members, Slot(1), NodeId(1)),
            None,
            "more votes than needed change nothing"
        );
        assert_eq!(lead.open_size(), (0, 0));
        assert_eq!(lead.stamp(Time::from_millis(5)), LogTime(12));
    }
}
