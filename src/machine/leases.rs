//! Leases at the machine: of which length they are, which a cluster agrees on once, and what people are shown of them.
//!
//! `rules.md` 16. `--read-lease` asks for a length; it is fixed with the first roster that a node holds, or when a founded peer
//! first tells it, in front of the roster in the log, and waited for from then on whatever the option says: acceptors keep
//! each other's promises. Invariants:
//! * H1. A length that is fixed is never changed; a node that asks for another one does not start.
//! * H2. All nodes of a founded cluster have one length: nodes with another refuse each other's HELLO, by name. Only a node
//!   that holds no roster and asks for none takes over what a founded one says.
//!
//! Not here: what a grant binds, and what a leader may do with it (`paxos::lease`).

use super::machine::Machine;
use crate::paxos::NodeId;
use crate::paxos::lease::Bound;
use crate::wire::Record;
use std::time::Duration;

/// The length of the cluster's leases, as far as this node knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseLength {
    /// What the option asks for; 0: nothing.
    asked_ms: u32,
    /// What is on the disk, or on its way there; `None`: this node holds no roster, and no founded peer has told it.
    fixed_ms: Option<u32>,
}

/// What this node grants and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// Of which length all leases of the cluster are; zero: there are none.
    pub length: Duration,
    /// While it leads and reads by its lease: for how long still.
    pub left: Option<Duration>,
    /// Who holds the longest lease that this node has granted to another (`None`: whoever it was before a restart), and for
    /// how long it answers no PREPARE.
    pub bound: Option<(Option<NodeId>, Duration)>,
}

impl LeaseLength {
    pub(super) fn asked(length: Duration) -> LeaseLength {
        LeaseLength {
            asked_ms: u32::try_from(length.as_millis()).unwrap_or(u32::MAX),
            fixed_ms: None,
        }
    }

    pub(super) fn ms(self) -> u32 {
        self.fixed_ms.unwrap_or(self.asked_ms)
    }

    /// Takes the record back. Behind a roster it says what that did not.
    pub(super) fn recover(&mut self, ms: u32) {
        if self.fixed_ms.is_none_or(|fixed| fixed == 0) {
            self.fixed_ms = Some(ms);
        }
    }

    /// A roster was read back: that of a cluster without leases, if no record says otherwise.
    pub(super) fn recover_roster(&mut self) {
        self.fixed_ms.get_or_insert(0);
    }

    /// H1: fixes the length; the record to write in front of the roster.
    pub(super) fn fix(&mut self, ms: u32) -> Option<Record> {
        if self.fixed_ms.is_some() {
            return None;
        }
        self.fixed_ms = Some(ms);
        self.record()
    }

    /// The record that says so.
    pub(super) fn record(self) -> Option<Record> {
        self.fixed_ms.filter(|ms| *ms > 0).map(Record::Lease)
    }

    /// H1: whether what the option asks for is what is fixed.
    ///
    /// # Errors
    /// In words, what is fixed.
    pub(super) fn check_asked(self) -> Result<(), String> {
        match self.fixed_ms {
            Some(fixed) if self.asked_ms > 0 && fixed != self.asked_ms => Err(format!(
                "--read-lease {}ms: this cluster was founded {}, and that cannot be changed",
                self.asked_ms,
                named(fixed)
            )),
            _ => Ok(()),
        }
    }

    /// H2: whether a peer with leases of `theirs` may be met. `they_founded`, `we_founded`: who knows the cluster as founded.
    ///
    /// # Errors
    /// In words, what differs.
    pub(super) fn check(self, theirs: u32, they_founded: bool, we_founded: bool) -> Result<(), String> {
        let takes_over = they_founded && self.fixed_ms.is_none() && self.asked_ms == 0;
        let is_taken_over = we_founded && !they_founded && theirs == 0;
        if theirs == self.ms() || takes_over || is_taken_over {
            return Ok(());
        }
        let (theirs, own) = (named(theirs), named(self.ms()));
        Err(format!("its cluster is {theirs}, this one {own} (--read-lease)"))
    }
}

fn named(ms: u32) -> String {
    match ms {
        0 => "without leases".into(),
        ms => format!("with leases of {ms}ms"),
    }
}

impl Machine {
    /// Whether this node's cluster has leases: then each turn tells it what the clock shows that counts suspension.
    pub fn has_leases(&self) -> bool {
        !self.replica.grants().length().is_zero()
    }

    /// Whether the options fit what the directory is bound to; asked once, when all of it was read back.
    ///
    /// # Errors
    /// In words, what does not.
    pub fn check_options(&self) -> Result<(), String> {
        self.founding.lease().check_asked()
    }

    /// A HELLO may have told of leases: their length holds at once, also before it is on the disk.
    pub(super) fn heed_lease_length(&mut self) {
        let ms = self.founding.lease().ms();
        self.replica.set_lease_length(Duration::from_millis(ms.into()));
    }

    /// Reads that a lease confirmed since the start.
    pub fn lease_reads(&self) -> u64 {
        self.lease_reads
    }

    /// What this node grants and holds.
    pub fn leases(&self) -> LeaseView {
        let grants = self.replica.grants();
        LeaseView {
            length: grants.length(),
            left: self.replica.lease_left(),
            bound: grants
                .binds(self.settings.node)
                .map(|Bound { holder, left }| (holder, left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(asked_ms: u32, fixed_ms: Option<u32>) -> LeaseLength {
        LeaseLength { asked_ms, fixed_ms }
    }

    #[test]
    fn a_length_is_fixed_once_and_the_option_must_not_ask_for_another() {
        let mut lease = length(500, None);
        assert_eq!(lease.fix(500), Some(Record::Lease(500)));
        assert_eq!(lease.fix(700), None);
        assert_eq!((lease.ms(), lease.check_asked()), (500, Ok(())));
        assert!(length(0, Some(500)).check_asked().is_ok(), "off, and still waited for");
        let refused = length(400, Some(500)).check_asked().expect_err("another length");
        assert!(refused.contains("400ms") && refused.contains("500ms"), "{refused}");
        assert!(length(400, Some(0)).check_asked().is_err());
    }

    #[test]
    fn nodes_with_other_lengths_refuse_each_other_and_an_empty_one_takes_over() {
        // own, theirs, they are founded, we are founded: whether they may meet
        let table = [
            (length(500, None), 500, false, false, true),
            (length(500, None), 400, false, false, false),
            (length(0, None), 500, false, false, false),
            (length(0, None), 500, true, false, true),
            (length(400, None), 500, true, false, false),
            (length(0, Some(0)), 500, true, false, false),
            (length(0, Some(500)), 0, false, true, true),
            (length(0, Some(500)), 400, false, true, false),
            (length(0, Some(500)), 0, true, true, false),
        ];
        for (own, theirs, they, we, may) in table {
            assert_eq!(
                own.check(theirs, they, we).is_ok(),
                may,
                "{own:?} meets {theirs}, {they} {we}"
            );
        }
    }
}
