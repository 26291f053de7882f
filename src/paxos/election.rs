//! Liveness: whom this node follows, when it stands up, and how long it waits after a lost election.
//!
//! Nothing here can make the log wrong; it decides only when to try. Pre-vote after Ongaro's thesis, section 9.6; the
//! backoff is exponential with full jitter, which is what ends duels ("Paxos Made Simple", section 2.4, leaves it open).
//! Invariant E1: an election deadline is drawn anew, from this node's own generator, each time that it is set.

use super::{Ballot, Membership, NodeId, VoterSet};
use crate::rules::Rules;
use crate::time::Time;
use std::time::Duration;

/// Durations of elections.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often a leader says that it lives.
    pub heartbeat: Duration,
    /// Shortest silence after which a leader is taken as lost.
    pub election_timeout: Duration,
    /// First step of the backoff.
    pub backoff_base: Duration,
    /// Its cap.
    pub backoff_max: Duration,
}

/// A question to all whether they would promise.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Number of the question.
    pub attempt: u32,
    /// Who said yes.
    pub granted: VoterSet,
}

impl Ask {
    /// Takes an answer; true once a quorum has said yes.
    pub fn answer(&mut self, members: &Membership, from: NodeId, attempt: u32, granted: bool) -> bool {
        if attempt == self.attempt && granted {
            members.add(&mut self.granted, from);
        }
        members.is_quorum(super::Slot::ZERO, self.granted)
    }
}

/// The state of elections at one node.
#[derive(Clone, Debug)]
pub struct Election {
    timing: Timing,
    rules: Rules,
    rng: fastrand::Rng,
    following: Option<Ballot>,
    heard_at: Time,
    deadline: Time,
    was_forgiven: bool,
    tries: u32,
    attempt: u32,
}

impl Election {
    /// Nobody is followed, and nothing is due before `start` is called.
    pub fn new(timing: Timing, rules: Rules, seed: u64) -> Election {
        Election {
            timing,
            rules,
            rng: fastrand::Rng::with_seed(seed),
            following: None,
            heard_at: Time::ZERO,
            deadline: Time(u64::MAX),
            was_forgiven: false,
            tries: 0,
            attempt: 0,
        }
    }

    /// The durations.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// The ballot of the leader that this node hears.
    pub fn following(&self) -> Option<Ballot> {
        self.following
    }

    /// When this node last heard its leader.
    pub fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// When something is due: the leader counts as lost, a campaign as failed, or a backoff ends.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// Campaigns lost in a row.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether this node hears a live leader other than `asker`: then it says no to a pre-vote.
    pub fn hears_leader_other_than(&self, asker: NodeId, now: Time) -> bool {
        self.following.is_some_and(|ballot| ballot.node != asker)
            && now.since(self.heard_at) < self.timing.election_timeout
    }

    /// A sign of life of the leader at `ballot`. True if it is news that this node follows it.
    pub fn follow(&mut self, ballot: Ballot, now: Time) -> bool {
        let is_news = self.following != Some(ballot);
        self.following = Some(ballot);
        self.heard_at = now;
        self.tries = 0;
        self.wait_for_leader(now);
        is_news
    }

    /// This node itself leads at `ballot`; the deadline is the leader's own business now.
    pub fn lead(&mut self, ballot: Ballot, now: Time) {
        self.following = Some(ballot);
        self.heard_at = now;
        self.tries = 0;
        self.set_deadline(Time(u64::MAX));
    }

    /// Whom it followed counts as lost.
    pub fn lose_leader(&mut self) -> Option<Ballot> {
        self.following.take()
    }

    /// Sets the deadline as after a sign of life: one to two election timeouts from now.
    pub fn wait_for_leader(&mut self, now: Time) {
        let timeout = self.timing.election_timeout;
        let jitter = self.jitter(timeout);
        self.set_deadline(now + timeout + jitter);
    }

    /// Stands up soon: there are signs that nobody leads. Spread, so that two followers rarely stand up together.
    pub fn stand_up_soon(&mut self, now: Time) {
        let jitter = self.jitter(self.timing.heartbeat / 2);
        self.set_deadline(self.deadline.min(now + jitter));
    }

    /// Stands up when `left` is over, in which no quorum would promise.
    pub fn stand_up_after(&mut self, now: Time, left: Duration) {
        let jitter = self.jitter(self.timing.heartbeat / 2);
        self.set_deadline(now + left + jitter);
    }

    /// A campaign begins (its question or its phase 1): it counts as failed one election timeout from now.
    pub fn begin_try(&mut self, now: Time) {
        self.set_deadline(now + self.timing.election_timeout);
    }

    /// The running try is likely in vain: it counts as failed at `due`, if not before.
    pub fn hasten(&mut self, due: Time) {
        self.deadline = self.deadline.min(due);
    }

    /// Begins a question to all; `own` is this node's own yes, if it may give one.
    pub fn ask(&mut self, members: &Membership, own: Option<NodeId>) -> Ask {
        self.attempt += 1;
        let mut granted = VoterSet::EMPTY;
        if let Some(node) = own {
            members.add(&mut granted, node);
        }
        Ask {
            attempt: self.attempt,
            granted,
        }
    }

    /// A campaign failed: how long to wait, drawn from zero to base·2^tries, capped (full jitter).
    pub fn lose(&mut self, now: Time) -> Duration {
        self.tries += 1;
        let ceiling = self
            .timing
            .backoff_base
            .saturating_mul(1 << self.tries.min(16))
            .min(self.timing.backoff_max);
        let backoff = if self.rules.backoff {
            self.jitter(ceiling)
        } else {
            Duration::ZERO
        };
        self.set_deadline(now + backoff);
        backoff
    }

    /// This node's own loop was blocked for `span`: the silence of others in that time is not theirs (`rules.md` 12).
    /// Once for each deadline, or a loop that is always late would never find a dead leader.
    pub fn forgive(&mut self, span: Duration) {
        if !self.was_forgiven && self.deadline != Time(u64::MAX) {
            self.was_forgiven = true;
            self.deadline = self.deadline + span.min(self.timing.election_timeout);
        }
    }

    fn set_deadline(&mut self, deadline: Time) {
        self.deadline = deadline;
        self.was_forgiven = false;
    }

    fn jitter(&mut self, span: Duration) -> Duration {
        if span.is_zero() {
            return span; // nothing is drawn: in a world without time, states must not differ by their generators
        }
        Duration::from_nanos(self.rng.u64(0..=span.as_nanos() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            backoff_base: Duration::from_millis(30),
            backoff_max: Duration::from_millis(1000),
        }
    }

    #[test]
    fn backoff_grows_with_full_jitter_up_to_its_cap_and_a_live_leader_resets_it() {
        let mut election = Election::new(timing(), Rules::KEPT, 7);
        let mut longest = Duration::ZERO;
        for tries in 1..=40_u32 {
            let ceiling = Duration::from_millis((30 << tries.min(6)).min(1000));
            let backoff = election.lose(Time::ZERO);
            assert!(backoff <= ceiling, "try {tries}: {backoff:?} above {ceiling:?}");
            longest = longest.max(backoff);
        }
        assert!(
            longest > Duration::from_millis(500),
            "jitter uses the whole span: {longest:?}"
        );
        election.follow(
            Ballot {
                round: 1,
                node: NodeId(2),
            },
            Time::ZERO,
        );
        assert_eq!(election.tries(), 0);
    }

    #[test]
    fn two_nodes_draw_different_deadlines() {
        let deadline = |seed| {
            let mut election = Election::new(timing(), Rules::KEPT, seed);
            election.wait_for_leader(Time::ZERO);
            election.deadline()
        };
        assert_ne!(deadline(1), deadline(2));
        for seed in 0..50 {
            let at = deadline(seed);
            assert!(at >= Time::from_millis(300) && at <= Time::from_millis(600), "{at}");
        }
    }
}
