//! Recovery: how far a node that lost its memory has come in learning what it may have promised (`rules.md` 3).
//!
//! It asks all peers, under a new life that each of them writes down before it answers; what they answer is built like a
//! promise. The witnesses ([`Membership::witnesses`]) meet every quorum that the forgotten life can have been part of, so
//! that whatever it voted for is among what they show, or is not counted any more. The argument stands in
//! `docs/design.md`, "Lost memory". Invariants:
//! * Y1. Only answers to this recovery's nonce count, each whole, from lives that no other answer calls outdated.
//! * Y2. The node votes again only when it holds, durably, the highest promise and the highest-ballot entries that the
//!   witnesses showed, and has learned all that they knew as chosen.
//!
//! Not here: how the loss is noticed and the new life taken (`machine::memory`), what the peers answer and when (replica).

use super::promises::{Found, Promises};
use super::{Membership, NodeId, Slot, message};
use crate::rules::Rules;
use crate::time::Time;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Peers are asked.
    Asking,
    /// What they showed is on its way to the disk, and all up to this slot is still to be learned.
    Learning {
        /// The highest `chosen_upto` among the answers.
        upto: Slot,
    },
    /// All is known; the record that says so is on its way to the disk.
    Closing,
}

/// One recovery.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Drawn for this recovery: answers to an earlier one do not count.
    pub nonce: u64,
    /// Counts the tries, so that parts of two answers of one peer are not mixed.
    pub attempt: u32,
    /// First slot that this node did not know as chosen when it began to ask.
    pub from_slot: Slot,
    /// When those who have not answered whole are asked again.
    pub resend_at: Time,
    /// How far it has come.
    pub stage: Stage,
    answers: Promises,
}

/// A recovery as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// How far it has come.
    pub stage: Stage,
    /// Who has answered whole.
    pub answered: Vec<NodeId>,
    /// How many must.
    pub needed: usize,
}

impl Recovery {
    /// Begins to ask, for all slots from `from_slot` on.
    pub fn new(nonce: u64, from_slot: Slot, resend_at: Time) -> Recovery {
        Recovery {
            nonce,
            attempt: 1,
            from_slot,
            resend_at,
            stage: Stage::Asking,
            answers: Promises::new(from_slot),
        }
    }

    /// Takes one part of an answer. The caller has seen that its life counts.
    pub fn add(&mut self, members: &Membership, from: NodeId, answer: message::RecoverAnswer) {
        let is_ours = answer.nonce == self.nonce && (1..=self.attempt).contains(&answer.promise.attempt);
        if is_ours && self.stage == Stage::Asking {
            self.answers.add(members, from, answer.promise);
        }
    }

    /// Drops the answer of a life of `node` that another answer calls outdated.
    pub fn forget(&mut self, members: &Membership, node: NodeId) {
        self.answers.forget(members, node);
    }

    /// What the witnesses show, once there are enough of them.
    pub fn found(&self, members: &Membership, rules: Rules) -> Option<Found> {
        let has_enough = self.answers.whole_of().len() >= members.witnesses();
        (has_enough && self.stage == Stage::Asking).then(|| self.answers.found(members, rules))
    }

    /// Who has not answered whole, the node itself included.
    pub fn missing<'a>(&'a self, members: &'a Membership) -> impl Iterator<Item = NodeId> + 'a {
        self.answers.missing(members)
    }

    /// A look at it.
    pub fn view(&self, members: &Membership) -> View {
        let whole = self.answers.whole_of();
        let answered = members.voters().iter().copied();
        View {
            stage: self.stage,
            answered: answered.filter(|node| members.has(whole, *node)).collect(),
            needed: members.witnesses(),
        }
    }
}
