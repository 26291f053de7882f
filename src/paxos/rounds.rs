//! Rounds of confirmation: how a leader knows that it still was one, and how old a follower's state may be.
//!
//! A linearizable read takes no log entry: it is confirmed by a quorum's answers to heartbeats *sent after* it arrived
//! (`rules.md` 15; the idea after Ongaro's thesis, section 6.4), or by their votes for a slot that was first proposed after
//! it arrived: such an ACCEPT asks the same question. A stale read is told how old it may be without any
//! comparison of clocks: a heartbeat echoes a moment of the follower's own clock, and so was sent after it.

use super::membership::MEMBERS_MAX;
use super::{Membership, NodeId, Slot, VoterSet};
use crate::time::{Boottime, Time};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The leader's rounds. Invariants:
/// * C1. `confirmed` never goes down while one ballot leads.
/// * C2. What carries a round was sent after the round was begun, and so after all reads that wait for it had arrived.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: u64,
    confirmed: u64,
    confirmed_begun: Option<Begun>,
    begun: VecDeque<(u64, Begun)>,
    /// Slots and the round that was the last when they were first proposed: each stands for those behind it, too, up to
    /// the next.
    carried: VecDeque<(Slot, u64)>,
    answered: BTreeMap<NodeId, u64>,
}

/// When a round was begun, before anything of it was sent: by the clock of the timers, and by the one that counts suspension
/// (`None`: this node has no use for it).
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Time,
    clock: Option<Boottime>,
}

impl Rounds {
    /// Begins a round at `now`: its number, for the heartbeats that are sent next. `clock`: see [`super::lease`].
    pub fn begin(&mut self, now: Time, clock: Option<Boottime>) -> u64 {
        self.last += 1;
        self.begun.push_back((self.last, Begun { at: now, clock }));
        self.last
    }

    /// `slot` is proposed for the first time, behind all rounds begun so far (C2).
    pub fn propose(&mut self, slot: Slot) {
        let carries = self.carried.back().map_or(0, |(_, round)| *round);
        if self.last > carries {
            self.carried.push_back((slot, self.last));
        }
    }

    /// Notes that `from` voted for the proposed `slot` at this ballot: it answers the rounds that the ACCEPT carried.
    pub fn voted(&mut self, members: &Membership, from: NodeId, slot: Slot) {
        let carried = self.carried.iter().rev().find(|(first, _)| *first <= slot);
        if let Some(round) = carried.map(|(_, round)| *round)
            && round > self.confirmed
        {
            self.answer(members, from, round);
        }
    }

    /// Number of the last round begun.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Number of the last round that a quorum confirmed.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// When the last confirmed round was begun.
    pub fn confirmed_begun(&self) -> Option<Time> {
        self.confirmed_begun.map(|begun| begun.at)
    }

    /// The same, by the clock that counts suspension: from then on leases count that its answers granted.
    pub fn confirmed_clock(&self) -> Option<Boottime> {
        self.confirmed_begun.and_then(|begun| begun.clock)
    }

    /// Notes that `from` answered `round`. A node whose acceptor failed does not answer, this node's own included.
    pub fn answer(&mut self, members: &Membership, from: NodeId, round: u64) {
        let highest = self.answered.entry(from).or_insert(0);
        *highest = (*highest).max(round.min(self.last));
        // A quorum has answered the round that the quorum-th best answerer has reached.
        let answered = |node| self.answered.get(&node).copied().unwrap_or(0);
        self.confirm(reached_by_quorum(members, answered));
    }

    /// Drops what a forgotten life of `node` confirmed.
    pub fn forget(&mut self, node: NodeId) {
        self.answered.remove(&node);
    }

    fn confirm(&mut self, round: u64) {
        while let Some((number, begun)) = self.begun.front().copied() {
            if number > round {
                break;
            }
            self.begun.pop_front();
            self.confirmed = number;
            self.confirmed_begun = Some(begun);
        }
        let confirmed = self.confirmed;
        // The last stays, for it says what the slots behind it carry.
        while self.carried.len() > 1 && self.carried[1].1 <= confirmed {
            self.carried.pop_front();
        }
    }
}

/// When a leader last heard each member, to step down when it hears no quorum.
#[derive(Clone, Debug, Default)]
pub struct Heard(BTreeMap<NodeId, Time>);

impl Heard {
    /// Everybody counts as heard at `now`: a new leader gives them one election timeout.
    pub fn all(members: &Membership, now: Time) -> Heard {
        Heard(members.voters().iter().map(|node| (*node, now)).collect())
    }

    /// Notes a confirmation of `from`. A refusal is none (`rules.md` 10).
    pub fn hear(&mut self, from: NodeId, now: Time) {
        self.0.insert(from, now);
    }

    /// When the quorum will be lost, if nobody is heard again: silence is counted from the quorum-th newest sign.
    pub fn quorum_until(&self, members: &Membership, timeout: Duration) -> Time {
        let heard = |node| self.0.get(&node).copied().unwrap_or(Time::ZERO);
        reached_by_quorum(members, heard) + timeout
    }

    /// Who was heard after `since`.
    pub fn after(&self, members: &Membership, since: Time) -> VoterSet {
        let mut set = VoterSet::EMPTY;
        self.0.iter().filter(|(_, at)| **at > since).for_each(|(node, _)| {
            members.add(&mut set, *node);
        });
        set
    }

    /// Counts `span`, in which this node's own loop was blocked, against nobody (`rules.md` 12).
    pub fn forgive(&mut self, span: Duration) {
        self.0.values_mut().for_each(|at| *at = *at + span);
    }
}

/// The highest that a quorum has reached: the quorum-th highest of what `of` tells of each voter. It is asked for in every
/// turn, so nothing is allocated.
fn reached_by_quorum<T: Copy + Default + Ord>(members: &Membership, of: impl Fn(NodeId) -> T) -> T {
    let mut room = [T::default(); MEMBERS_MAX];
    let reached = &mut room[..members.voters().len()];
    for (place, node) in reached.iter_mut().zip(members.voters()) {
        *place = of(*node);
    }
    reached.sort_unstable_by(|a, b| b.cmp(a));
    reached[members.quorum(Slot::ZERO) - 1]
}

/// How fresh a follower's state is known to be.
#[derive(Clone, Debug, Default)]
pub struct Freshness {
    /// The state applied here was the leader's at this moment or later.
    fresh_at: Option<Time>,
    /// Once this slot is applied, the state was the leader's at that moment or later.
    pending: Option<(Slot, Time)>,
}

impl Freshness {
    /// Takes a heartbeat that was sent after `sent_after` of this node's clock, by a leader that a quorum confirmed at
    /// most `confirmed` before; `applied` is this node's.
    pub fn heartbeat(&mut self, sent_after: Time, confirmed: Duration, chosen_upto: Slot, applied: Slot) {
        let at = sent_after - confirmed;
        // An older mark that is not reached yet stays: a laggard would else chase newer marks for ever.
        if self.pending.is_none_or(|(slot, _)| slot <= applied) || applied >= chosen_upto {
            self.advance(applied);
            self.pending = Some((chosen_upto, at));
        }
        self.advance(applied);
    }

    /// The oldest that the state applied up to `applied` can be; `None`: not known.
    pub fn age(&mut self, now: Time, applied: Slot) -> Option<Duration> {
        self.advance(applied);
        self.fresh_at.map(|at| now.since(at))
    }

    fn advance(&mut self, applied: Slot) {
        if let Some((slot, at)) = self.pending
            && slot <= applied
        {
            self.fresh_at = self.fresh_at.max(Some(at));
            self.pending = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_confirmed_by_a_quorum_of_answers_to_it_or_to_a_later_one() {
        let members = Membership::founding([NodeId(1), NodeId(2), NodeId(3)]);
        let mut rounds = Rounds::default();
        let first = rounds.begin(Time::from_millis(1), None);
        let second = rounds.begin(Time::from_millis(2), None);
        rounds.answer(&members, NodeId(2), first);
        rounds.answer(&members, NodeId(2), first);
        assert_eq!(rounds.confirmed(), 0, "one node answering twice is no quorum");
        rounds.answer(&members, NodeId(1), second);
        assert_eq!(
            (rounds.confirmed(), rounds.confirmed_begun()),
            (first, Some(Time::from_millis(1)))
        );
        rounds.answer(&members, NodeId(3), 99);
        assert_eq!(
            rounds.confirmed(),
            second,
            "a round that was never begun is not confirmed"
        );
    }

    #[test]
    fn a_vote_confirms_the_rounds_that_were_begun_before_its_slot_was_proposed() {
        let members = Membership::founding([NodeId(1), NodeId(2), NodeId(3)]);
        let mut rounds = Rounds::default();
        rounds.propose(Slot(1)); // before any round: it carries none
        let first = rounds.begin(Time::from_millis(1), None);
        rounds.answer(&members, NodeId(1), first);
        rounds.voted(&members, NodeId(2), Slot(1));
        assert_eq!(rounds.confirmed(), 0, "the slot was proposed before the round began");
        rounds.propose(Slot(2));
        rounds.propose(Slot(3));
        let second = rounds.begin(Time::from_millis(2), None);
        rounds.answer(&members, NodeId(1), second);
        rounds.voted(&members, NodeId(2), Slot(3));
        assert_eq!(rounds.confirmed(), first, "slot 3 was proposed before the second round");
        rounds.propose(Slot(4));
        rounds.voted(&members, NodeId(3), Slot(5));
        assert_eq!(rounds.confirmed(), second);
    }

    #[test]
    fn a_quorum_is_lost_a_timeout_after_the_sign_of_the_quorum_th_newest() {
        let (ms, timeout) = (Time::from_millis, Duration::from_millis(100));
        let members = Membership::founding((1..=5).map(NodeId));
        let mut heard = Heard::all(&members, ms(10));
        assert_eq!(heard.quorum_until(&members, timeout), ms(110));
        heard.hear(NodeId(4), ms(30));
        heard.hear(NodeId(2), ms(20));
        assert_eq!(heard.quorum_until(&members, timeout), ms(110), "two of five are none");
        heard.hear(NodeId(1), ms(40));
        assert_eq!(heard.quorum_until(&members, timeout), ms(120));
        let most = Membership::founding((1..=64).map(NodeId));
        let mut heard = Heard::default();
        (1..=64).for_each(|node| heard.hear(NodeId(node), ms(u64::from(node) * 37 % 64)));
        assert_eq!(
            heard.quorum_until(&most, timeout),
            ms(131),
            "33 of 64 were heard at 31 ms or later"
        );
    }

    #[test]
    fn a_stale_read_is_never_told_younger_than_it_is() {
        let ms = Time::from_millis;
        let mut fresh = Freshness::default();
        assert_eq!(fresh.age(ms(5), Slot(0)), None);
        fresh.heartbeat(ms(10), Duration::from_millis(4), Slot(7), Slot(5));
        assert_eq!(fresh.age(ms(20), Slot(6)), None, "slot 7 is not applied yet");
        assert_eq!(fresh.age(ms(20), Slot(7)), Some(Duration::from_millis(14)));
    }
}
