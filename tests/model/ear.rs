//! Dead letters: messages that can have no effect any more, in any future.
//!
//! Messages stay on their way for ever, so two states that differ only in letters that their receivers are deaf to are one
//! state seen twice. Taking such letters out keeps every violation and every way to it. The argument, message by message,
//! stands in [`Ear::is_deaf_to`]; it leans on rules that are kept, so worlds with broken rules keep all letters, and one
//! test compares what a world with and without dead letters comes to.

use crate::node::Node;
use synod::paxos::{Ballot, Message, NodeId, Stance};

/// What of a node decides which letters can still have an effect on it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ear {
    pub(crate) id: NodeId,
    promised: Ballot,
    used: Ballot,
    stance: Stance,
}

impl Ear {
    pub(crate) fn of(node: &Node) -> Ear {
        Ear {
            id: node.id,
            promised: node.promised,
            used: node.replica.used(),
            stance: node.replica.stance(),
        }
    }

    /// Whether `message` can have no effect on this node any more.
    pub(crate) fn is_deaf_to(&self, message: &Message) -> bool {
        match message {
            // Refused for ever: what is promised on disk never falls back, and nothing else of the message is read.
            Message::Prepare { ballot, .. } | Message::Accept { ballot, .. } => *ballot < self.promised,
            Message::Heartbeat(heartbeat) => heartbeat.ballot < self.promised,
            // Answers count only in the phase that asked, and a ballot once left is never resumed.
            Message::Promise(promise) => {
                promise.ballot != self.used || !matches!(self.stance, Stance::Candidate { .. })
            }
            Message::Accepted { ballot, .. } => self.stance != Stance::Leader(*ballot),
            _ => false,
        }
    }
}
