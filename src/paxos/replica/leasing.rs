//! Leases at a replica: what its acceptor grants and is bound by, and what its leader holds ([`crate::paxos::lease`]).

use super::leading::Leading;
use super::{Replica, Role};
use crate::paxos::lease::{self, Bound, Grants};
use crate::paxos::outbox::{Note, Outbox};
use crate::paxos::{Ballot, Message, NodeId};
use crate::time::Boottime;
use std::time::Duration;

/// What a leader holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// The confirmed round that it comes from.
    round: u64,
    /// When it runs out.
    until: Boottime,
    /// Whether it was given up: the ballot is about to be left.
    is_released: bool,
    /// Whether people were told that it is held.
    is_told: bool,
}

impl Replica {
    /// All leases of this cluster have this length, by its founding; zero: there are none.
    pub fn set_lease_length(&mut self, length: Duration) {
        self.grants.set_length(length);
    }

    /// The clock that counts suspension was read, after all that this turn brought had come in.
    pub fn tick_clock(&mut self, clock: Boottime) {
        self.grants.tick(clock);
    }

    /// What this node's acceptor has granted.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// How long this node still leads for certain, if it reads by its lease: what it knows as chosen was then all that was
    /// chosen at the moment of the last reading.
    pub fn lease_left(&self) -> Option<Duration> {
        self.config.read_lease_ppm?;
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let held = &leading.held;
        let clock = self
            .grants
            .clock()
            .filter(|clock| *clock < held.until && !held.is_released)?;
        Some(held.until.since(clock))
    }

    /// A round may have been confirmed: each answer to it granted a lease, behind the moment at which it was begun (L3).
    pub(super) fn renew_lease(&mut self) {
        let (Some(ppm), Role::Leading(leading)) = (self.config.read_lease_ppm, &mut self.role) else {
            return;
        };
        let round = leading.rounds.confirmed();
        if round <= leading.held.round || self.grants.length().is_zero() {
            return;
        }
        let from = if self.config.rules.lease_from_sending {
            leading.rounds.confirmed_clock()
        } else {
            self.grants.clock()
        };
        leading.held.round = round;
        if let Some(from) = from {
            leading.held.until = from + lease::term(self.grants.length(), ppm);
        }
    }

    /// This node's acceptor confirms the leader of `ballot`, and grants it a lease with that.
    pub(super) fn grant(&mut self, ballot: Ballot, out: &mut Outbox) {
        if self.grants.grant(ballot) {
            let length = self.grants.length();
            out.note(Note::Grants { ballot, length });
        }
    }

    /// Whether this acceptor must leave a PREPARE of `ballot` unanswered, as if it had been lost (L1, L2).
    pub(super) fn is_bound_against(&mut self, ballot: Ballot, out: &mut Outbox) -> bool {
        let Some(Bound { holder, left }) = self.grants.binds(ballot.node) else {
            return false;
        };
        if std::mem::replace(&mut self.bound_against, ballot) != ballot {
            out.note(Note::BoundByLease { ballot, holder, left });
        }
        true
    }

    /// How long this node's own acceptor could not promise a ballot of its own node's.
    pub(super) fn own_bound(&self) -> Option<Duration> {
        self.grants.binds(self.config.node).map(|bound| bound.left)
    }

    /// This leader reads no more by its lease: others need not wait for it.
    pub(super) fn release_lease(&mut self, out: &mut Outbox) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Leading { held, lead, .. } = &mut **leading;
        if std::mem::replace(&mut held.is_released, true) || self.grants.length().is_zero() {
            return;
        }
        let ballot = lead.ballot;
        self.grants.release(ballot);
        let others: Vec<NodeId> = self.others().collect();
        others
            .into_iter()
            .for_each(|node| out.send(node, Message::Release { ballot }));
    }

    /// People see when a leader begins to read by its lease, and when that ends before its ballot does.
    pub(super) fn tell_of_lease(&mut self, out: &mut Outbox) {
        let left = self.lease_left();
        let Role::Leading(leading) = &mut self.role else { return };
        let ballot = leading.lead.ballot;
        if std::mem::replace(&mut leading.held.is_told, left.is_some()) != left.is_some() {
            out.note(match left {
                Some(left) => Note::HoldsLease { ballot, left },
                None => Note::LeaseRanOut { ballot },
            });
        }
    }
}
