//! What stands in the write-ahead log, as types. Units, positions and checksums around them: `storage`.

use super::RosterEntry;
use crate::paxos::{Ballot, Entry, Incarnation, NodeId, Slot, Start};

/// One record of the write-ahead log. The state that must survive is what replaying all of them, in order, yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The acceptor promised this ballot. Durable before PROMISE leaves.
    Promised(Ballot),
    /// The proposer uses this ballot. Durable before PREPARE leaves (`rules.md` 4).
    Used(Ballot),
    /// The acceptor accepted an entry; accepting raises the promise too. Durable before ACCEPTED leaves.
    Accepted {
        /// Where.
        slot: Slot,
        /// At which ballot.
        ballot: Ballot,
        /// What.
        entry: Entry,
    },
    /// The learner fetched an entry that a peer knows as chosen. It is no vote.
    Learned {
        /// Where.
        slot: Slot,
        /// What.
        entry: Entry,
    },
    /// All slots up to here are chosen, and the last ACCEPTED or LEARNED record of each holds what was chosen. Lazy.
    ChosenUpto(Slot),
    /// The roster that this node confirms; replaces an older one while nobody is founded.
    Roster(Vec<RosterEntry>),
    /// The cluster of the held roster is founded; never taken back.
    Founded,
    /// The newest life and start of a peer that this node has met; durable before a vote of it is counted.
    Peer {
        /// Who.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its start.
        start: Start,
    },
}

impl Record {
    /// The record's name in logs, inspection and `protocol.md`.
    pub fn name(&self) -> &'static str {
        match self {
            Record::Promised(_) => "PROMISED",
            Record::Used(_) => "USED",
            Record::Accepted { .. } => "ACCEPTED",
            Record::Learned { .. } => "LEARNED",
            Record::ChosenUpto(_) => "CHOSEN_UPTO",
            Record::Roster(_) => "ROSTER",
            Record::Founded => "FOUNDED",
            Record::Peer { .. } => "PEER",
        }
    }
}
