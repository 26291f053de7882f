//! Who the members are, and quorums: sets of distinct nodes, never counts of replies.

use super::{NodeId, Slot};
use crate::rules::Rules;
use std::fmt;

/// Most members that a cluster can have: a [`VoterSet`] is one machine word.
pub const MEMBERS_MAX: usize = 64;

/// The voting members. Replicated state: `--cluster` only founds it (`rules.md` 30).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Number of the configuration, carried by PREPARE and ACCEPT; 1 at founding.
    pub number: u64,
    voters: Vec<NodeId>,
    rules: Rules,
}

/// A set of distinct voters of one [`Membership`]. A vote that arrives twice is in it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoterSet(u64);

impl Membership {
    /// The configuration that founds a cluster: number 1, all `nodes` voters.
    ///
    /// # Panics
    /// If there are none or more than [`MEMBERS_MAX`]; flags are checked before.
    pub fn founding(nodes: impl IntoIterator<Item = NodeId>) -> Membership {
        let mut voters: Vec<NodeId> = nodes.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        assert!(
            (1..=MEMBERS_MAX).contains(&voters.len()),
            "1..={MEMBERS_MAX} members, not {}",
            voters.len()
        );
        Membership {
            number: 1,
            voters,
            rules: Rules::KEPT,
        }
    }

    /// The same, with quorums as `rules` want them.
    #[must_use]
    pub fn under(self, rules: Rules) -> Membership {
        Membership { rules, ..self }
    }

    /// The voters, ascending.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Whether `node` votes.
    pub fn contains(&self, node: NodeId) -> bool {
        self.index(node).is_some()
    }

    /// How many distinct voters are a quorum for `slot`: at least a majority. (The slot is asked for because a later
    /// configuration may begin at a slot; there is one configuration today.)
    pub fn quorum(&self, _slot: Slot) -> usize {
        let majority = self.voters.len() / 2 + 1;
        if self.rules.majority {
            majority
        } else {
            (majority - 1).max(1)
        }
    }

    /// How many peers a node that lost its memory must hear: so many that they meet every quorum in another node than
    /// itself. Of an odd number of members that is a quorum of its peers.
    pub fn witnesses(&self) -> usize {
        self.voters.len() + 1 - self.quorum(Slot::ZERO)
    }

    /// Whether `votes` hold a quorum for `slot`. More votes than needed still are a quorum.
    pub fn is_quorum(&self, slot: Slot, votes: VoterSet) -> bool {
        self.suffice(slot, votes.len())
    }

    /// Whether so many distinct voters are a quorum for `slot`.
    pub fn suffice(&self, slot: Slot, voters: usize) -> bool {
        if self.rules.more_than_majority {
            voters >= self.quorum(slot)
        } else {
            voters == self.quorum(slot)
        }
    }

    /// Adds `node` to `votes`; false if it is no voter or was in it already.
    pub fn add(&self, votes: &mut VoterSet, node: NodeId) -> bool {
        let Some(index) = self.index(node) else { return false };
        let before = votes.0;
        votes.0 |= 1 << index;
        votes.0 != before
    }

    /// Takes `node` out of `votes`: its vote was of a life that is forgotten.
    pub fn remove(&self, votes: &mut VoterSet, node: NodeId) {
        if let Some(index) = self.index(node) {
            votes.0 &= !(1 << index);
        }
    }

    /// Whether `node` is in `votes`.
    pub fn has(&self, votes: VoterSet, node: NodeId) -> bool {
        self.index(node).is_some_and(|index| votes.0 & (1 << index) != 0)
    }

    fn index(&self, node: NodeId) -> Option<usize> {
        self.voters.binary_search(&node).ok()
    }
}

impl VoterSet {
    /// Nobody.
    pub const EMPTY: VoterSet = VoterSet(0);

    /// How many distinct voters.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether nobody is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config {}:", self.number)?;
        self.voters.iter().try_for_each(|node| write!(f, " {node}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_at_least_a_majority_of_distinct_members() {
        // members, smallest quorum
        for (members, quorum) in [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)] {
            let membership = Membership::founding((1..=members).map(NodeId));
            let mut votes = VoterSet::EMPTY;
            for node in 1..=members {
                assert_eq!(
                    membership.is_quorum(Slot(1), votes),
                    votes.len() >= quorum,
                    "{members} members"
                );
                assert!(membership.add(&mut votes, NodeId(node)));
                assert!(
                    !membership.add(&mut votes, NodeId(node)),
                    "a vote that arrives twice counts once"
                );
            }
            assert!(
                membership.is_quorum(Slot(1), votes),
                "more votes than needed still are a quorum"
            );
        }
    }

    #[test]
    fn witnesses_meet_every_quorum_beside_the_node_that_forgot() {
        for members in 1..=9_usize {
            let membership = Membership::founding((1..=members as u16).map(NodeId));
            let (quorum, witnesses) = (membership.quorum(Slot(1)), membership.witnesses());
            // Of `members - 1` peers, the rest of a quorum and the witnesses share one; and so do two sets of witnesses.
            assert!(quorum - 1 + witnesses > members - 1, "{members} members");
            assert!(2 * witnesses > members - 1, "{members} members");
        }
    }

    #[test]
    fn strangers_do_not_vote_and_forgotten_lives_are_taken_out() {
        let membership = Membership::founding([NodeId(3), NodeId(1), NodeId(2)]);
        let mut votes = VoterSet::EMPTY;
        assert!(!membership.add(&mut votes, NodeId(9)));
        membership.add(&mut votes, NodeId(2));
        assert!(membership.has(votes, NodeId(2)) && !membership.has(votes, NodeId(1)));
        membership.remove(&mut votes, NodeId(2));
        assert!(votes.is_empty());
    }
}
