//! Leases: for a while a leader knows without asking that no other leads, because acceptors have promised to wait.
//!
//! `rules.md` 16; the idea after Gray and Cheriton, "Leases" (SOSP 1989), for Paxos as in Chandra et al., "Paxos Made
//! Live" (2007), section 5.2. With each answer that confirms a leader an acceptor grants it a lease of a length that the
//! cluster was founded with: until that is over it answers no other node's PREPARE, its own node's neither. A leader whose
//! round of confirmation was answered by a quorum is therefore the only one that can choose anything for that length,
//! counted from the moment before the round was sent. Invariants:
//! * L1. A grant is over only when its length has passed by the acceptor's own clock, which counts suspension, or when its
//!   holder has left the ballot and said so.
//! * L2. An acceptor that restarts, or that lost its memory and has recovered, does not know what it granted: it is bound
//!   to everybody for the length.
//! * L3. The holder's term begins before anything of its round is sent, and is shorter than the grants by what two clocks
//!   can differ: each counts a second in 1 − ρ to 1 + ρ seconds, so the term is length × (1 − 2ρ), which is below
//!   length × (1 − ρ) / (1 + ρ).
//!
//! Time is an input, [`Grants::tick`]: one reading a turn, taken behind the gathering. It is late enough for what came in
//! (a grant lasts from a moment behind its question, a read is answered by a lease that held behind its arrival) and early
//! enough for what goes out (a term is counted from before its sending, a PREPARE is answered too late rather than too early).
//!
//! Not here: rounds and who answered them (`rounds`), what is read (the machine), where the length is kept (founding).

use super::{Ballot, NodeId};
use crate::rules::Rules;
use crate::time::Boottime;
use std::collections::BTreeMap;
use std::time::Duration;

/// A millionth.
const MILLION: u32 = 1_000_000;

/// What this node's acceptor has granted, and to whom.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Zero: the cluster was founded without leases, and nothing here binds anybody.
    length: Duration,
    /// The last reading; none yet in this life: then an acceptor with leases is bound.
    clock: Option<Boottime>,
    /// To whom, at which ballot, and until when.
    to: BTreeMap<NodeId, Grant>,
    /// L2: until when it is bound to everybody; `None`: it began to wait before its clock was read.
    bound_until: Option<Boottime>,
    rules: Rules,
}

/// One grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    ballot: Ballot,
    until: Boottime,
}

/// Who keeps an acceptor from answering a PREPARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The holder; `None`: whoever it was before a restart.
    pub holder: Option<NodeId>,
    /// For how long still.
    pub left: Duration,
}

impl Grants {
    /// Nothing granted, under these rules.
    pub fn under(rules: Rules) -> Grants {
        Grants {
            rules,
            ..Grants::default()
        }
    }

    /// The length of every lease; zero: there are none.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// The cluster's leases have this length. To learn of one is to have forgotten what was granted before (L2).
    pub fn set_length(&mut self, length: Duration) {
        if self.length != length {
            self.length = length;
            self.restart();
        }
    }

    /// The clock that counts suspension shows `clock`. It never goes back.
    pub fn tick(&mut self, clock: Boottime) {
        self.clock = self.clock.max(Some(clock));
        if self.bound_until.is_none() {
            self.restart();
        }
        self.to.retain(|_, grant| grant.until > clock);
    }

    /// The last reading of that clock.
    pub fn clock(&self) -> Option<Boottime> {
        self.clock
    }

    /// L2: what was granted is forgotten, and waited for.
    pub fn restart(&mut self) {
        let wait = if self.rules.wait_for_leases {
            self.length
        } else {
            Duration::ZERO
        };
        self.to.clear();
        self.bound_until = self.clock.map(|clock| clock + wait);
    }

    /// Grants the leader of `ballot` a lease from now on. True if it is the first at this ballot.
    pub fn grant(&mut self, ballot: Ballot) -> bool {
        let Some(clock) = self.clock.filter(|_| !self.length.is_zero()) else {
            return false; // before the first reading it is bound to everybody
        };
        let until = clock + self.length;
        let before = self.to.insert(ballot.node, Grant { ballot, until });
        before.is_none_or(|before| before.ballot != ballot)
    }

    /// The leader of `ballot` has left it and reads no more by a lease: what it was granted at that ballot or a lower one
    /// is over (L1). A later grant to the same node stays.
    pub fn release(&mut self, ballot: Ballot) {
        if self.to.get(&ballot.node).is_some_and(|grant| grant.ballot <= ballot) {
            self.to.remove(&ballot.node);
        }
    }

    /// What keeps this acceptor from answering a PREPARE of `asker`, if anything does; the longest of it.
    pub fn binds(&self, asker: NodeId) -> Option<Bound> {
        if self.length.is_zero() {
            return None;
        }
        let (Some(clock), Some(bound_until)) = (self.clock, self.bound_until) else {
            let (holder, left) = (None, self.length);
            return Some(Bound { holder, left });
        };
        let others = self.to.iter().filter(|(node, _)| **node != asker);
        let others = others.map(|(node, grant)| (grant.until, Some(*node)));
        let (until, holder) = others.fold((bound_until, None), |longest, other| longest.max(other));
        (until > clock).then(|| Bound {
            holder,
            left: until.since(clock),
        })
    }
}

/// L3: for how long a leader may take itself for the only one, counted from before its round was sent.
pub fn term(length: Duration, rate_bound_ppm: u32) -> Duration {
    length * MILLION.saturating_sub(2 * rate_bound_ppm) / MILLION
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::testing::ballot;

    const LENGTH: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Boottime {
        Boottime(ms * 1_000_000)
    }

    fn granting() -> Grants {
        let mut grants = Grants::default();
        grants.set_length(LENGTH);
        grants.tick(at(1_000));
        grants.tick(at(1_500));
        grants
    }

    #[test]
    fn a_grant_binds_against_all_but_its_holder_until_its_length_has_passed() {
        let mut grants = granting();
        assert_eq!(grants.binds(NodeId(2)), None, "the wait of the start is over");
        assert!(grants.grant(ballot(1, 1)));
        assert!(!grants.grant(ballot(1, 1)), "renewed");
        assert_eq!(grants.binds(NodeId(1)), None);
        let bound = grants.binds(NodeId(2)).expect("bound to n1");
        assert_eq!((bound.holder, bound.left), (Some(NodeId(1)), LENGTH));
        grants.tick(at(1_999));
        assert!(grants.binds(NodeId(2)).is_some());
        grants.tick(at(1_800)); // a clock does not go back
        grants.tick(at(2_000));
        assert_eq!(grants.binds(NodeId(2)), None);
    }

    #[test]
    fn what_was_given_up_at_an_older_ballot_does_not_end_a_newer_grant() {
        let mut grants = granting();
        grants.grant(ballot(3, 1));
        grants.release(ballot(2, 1));
        assert!(grants.binds(NodeId(2)).is_some());
        grants.release(ballot(3, 1));
        assert_eq!(grants.binds(NodeId(2)), None);
    }

    #[test]
    fn a_restart_binds_against_everybody_for_the_length() {
        let mut grants = Grants::default();
        grants.set_length(LENGTH);
        assert!(grants.binds(NodeId(1)).is_some(), "before the clock was read");
        assert!(!grants.grant(ballot(1, 1)));
        grants.tick(at(7_000));
        assert!(grants.grant(ballot(1, 1)));
        grants.tick(at(7_200));
        grants.restart();
        grants.tick(at(7_600));
        let bound = grants.binds(NodeId(1)).expect("also against whom it had granted");
        assert_eq!((bound.holder, bound.left), (None, Duration::from_millis(100)));
        grants.tick(at(7_700));
        assert_eq!(grants.binds(NodeId(2)), None);
        assert_eq!(Grants::default().binds(NodeId(2)), None, "no leases, no wait");
    }

    #[test]
    fn the_holders_term_ends_before_any_grant_whatever_the_clocks_do_within_the_bound() {
        for ppm in [0_u32, 200, 10_000, 100_000] {
            let rate = f64::from(ppm) / 1e6;
            let term = term(LENGTH, ppm).as_secs_f64();
            assert!(term / (1.0 - rate) <= LENGTH.as_secs_f64() / (1.0 + rate), "{ppm} ppm");
        }
    }
}
