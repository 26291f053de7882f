//! Rounds of confirmation: how a leader knows that it still was one, and how old a follower's state may be.
//!
//! A linearizable read takes no log entry: it is confirmed by a quorum's answers to heartbeats *sent after* it arrived
//! (`rules.md` 15; the idea after Ongaro's thesis, section 6.4). A stale read is told how old it may be without any
//! comparison of clocks: a heartbeat echoes a moment of the follower's own clock, and so was sent after it.

use super::{Membership, NodeId, Slot, VoterSet};
use crate::time::Time;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The leader's rounds. Invariant C1: `confirmed` never goes down while one ballot leads.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: u64,
    confirmed: u64,
    confirmed_begun: Option<Time>,
    begun: VecDeque<(u64, Time)>,
    answered: BTreeMap<NodeId, u64>,
}

impl Rounds {
    /// Begins a round at `now`: its number, for the heartbeats that are sent next.
    pub fn begin(&mut self, now: Time) -> u64 {
        self.last += 1;
        self.begun.push_back((self.last, now));
        self.last
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
        self.confirmed_begun
    }

    /// Notes that `from` answered `round`. A node whose acceptor failed does not answer, this node's own included.
    pub fn answer(&mut self, members: &Membership, from: NodeId, round: u64) {
        let highest = self.answered.entry(from).or_insert(0);
        *highest = (*highest).max(round.min(self.last));
        let mut rounds: Vec<u64> = members
            .voters()
            .iter()
            .map(|node| self.answered.get(node).copied().unwrap_or(0))
            .collect();
        rounds.sort_unstable_by(|a, b| b.cmp(a));
        // A quorum has answered the round that the quorum-th best answerer has reached.
        self.confirm(rounds[members.quorum(Slot::ZERO) - 1]);
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
        let mut times: Vec<Time> = members
            .voters()
            .iter()
            .map(|node| self.0.get(node).copied().unwrap_or(Time::ZERO))
            .collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times[members.quorum(Slot::ZERO) - 1] + timeout
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
        let first = rounds.begin(Time::from_millis(1));
        let second = rounds.begin(Time::from_millis(2));
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
    fn a_stale_read_is_never_told_younger_than_it_is() {
        let ms = Time::from_millis;
        let mut fresh = Freshness::default();
        assert_eq!(fresh.age(ms(5), Slot(0)), None);
        fresh.heartbeat(ms(10), Duration::from_millis(4), Slot(7), Slot(5));
        assert_eq!(fresh.age(ms(20), Slot(6)), None, "slot 7 is not applied yet");
        assert_eq!(fresh.age(ms(20), Slot(7)), Some(Duration::from_millis(14)));
    }
}
