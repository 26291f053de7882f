//! Who a node is on disk: incarnations and starts, and whose votes therefore count (`rules.md` 2).

use super::{Ballot, NodeId, Slot};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One life of a node's memory. A data directory is born with one; a node that lost its directory takes the next
/// generation. Higher generation is newer; one generation with two tokens is a conflict, and refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// 1 for a directory made at founding.
    pub generation: u32,
    /// Random, drawn when the directory is made.
    pub token: u64,
}

/// One start of a process on a data directory: a counter and a random token, synced before the first HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Start {
    /// 1 for the directory's first start, and one more each time.
    pub counter: u64,
    /// Random, so that a copy of the directory that starts beside the original is told from it.
    pub token: u64,
}

/// What every vote carries: whose memory speaks, and the newest generation that it knows of each node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// The voter's own incarnation.
    pub incarnation: Incarnation,
    /// Newest generations known, in node order; at most one for each member.
    pub generations: Arc<[(NodeId, u32)]>,
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.generation, self.token)
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.counter, self.token)
    }
}

/// Which lives of which nodes this node knows, and therefore whose votes count (`rules.md` 2).
///
/// Invariants:
/// * V1. A vote counts only if its voter's incarnation is durable here, and no voter names a newer one.
/// * V2. A voter that shows less than it voted for has lost its memory: no vote of that incarnation counts again.
#[derive(Clone, Debug)]
pub struct Lives {
    own: Voter,
    known: BTreeMap<NodeId, Incarnation>,
    newest: BTreeMap<NodeId, u32>,
    /// V2: the highest vote that this node, leading, saw of each voter: at which ballot, up to which slot.
    highest_votes: BTreeMap<NodeId, (Ballot, Slot)>,
    forgetful: BTreeMap<NodeId, Incarnation>,
}

impl Lives {
    /// Knows only `node` itself.
    pub fn new(node: NodeId, incarnation: Incarnation) -> Lives {
        let known = BTreeMap::from([(node, incarnation)]);
        let newest = BTreeMap::from([(node, incarnation.generation)]);
        let generations = newest.iter().map(|(node, generation)| (*node, *generation)).collect();
        Lives {
            own: Voter {
                incarnation,
                generations,
            },
            known,
            newest,
            highest_votes: BTreeMap::new(),
            forgetful: BTreeMap::new(),
        }
    }

    /// What this node's own votes carry.
    pub fn voter(&self) -> Voter {
        self.own.clone()
    }

    /// Notes an incarnation that is durable here. True if votes of an older one must be forgotten.
    pub fn know(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        let newer = self
            .known
            .insert(node, incarnation)
            .is_some_and(|old| old != incarnation);
        self.raise(node, incarnation.generation);
        newer
    }

    /// Whether a vote of `from` counts. Names in `outdated` the nodes of whose newer lives the vote told: what they
    /// voted before is to be forgotten.
    pub fn counts(&mut self, from: NodeId, voter: &Voter, outdated: &mut Vec<NodeId>) -> bool {
        if voter.generations != self.own.generations {
            for (node, generation) in voter.generations.iter() {
                // Only nodes that are known at all can be outdated; strangers are no voters.
                if self.known.contains_key(node) && self.raise(*node, *generation) {
                    outdated.push(*node);
                }
            }
        }
        self.known.get(&from) == Some(&voter.incarnation)
            && self.forgetful.get(&from) != Some(&voter.incarnation)
            && self
                .newest
                .get(&from)
                .is_none_or(|newest| voter.incarnation.generation >= *newest)
    }

    /// Notes that `from` accepted slots up to `slot` at `ballot`, and said so.
    pub fn note_vote(&mut self, from: NodeId, ballot: Ballot, slot: Slot) {
        let highest = self.highest_votes.entry(from).or_default();
        *highest = (*highest).max((ballot, slot));
    }

    /// The highest vote seen of `node`.
    pub fn highest_vote(&self, node: NodeId) -> Option<(Ballot, Slot)> {
        self.highest_votes.get(&node).copied()
    }

    /// V2: `node` showed less than it voted for.
    pub fn note_forgetful(&mut self, node: NodeId) {
        if let Some(incarnation) = self.known.get(&node) {
            self.forgetful.insert(node, *incarnation);
        }
    }

    fn raise(&mut self, node: NodeId, generation: u32) -> bool {
        let newest = self.newest.entry(node).or_insert(0);
        if generation <= *newest {
            return false;
        }
        *newest = generation;
        self.own.generations = self
            .newest
            .iter()
            .map(|(node, generation)| (*node, *generation))
            .collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_counts_only_from_the_life_that_is_on_disk_here_and_is_the_newest() {
        let (a, b, c) = (NodeId(1), NodeId(2), NodeId(3));
        let life = |generation, token| Incarnation { generation, token };
        let vote = |incarnation, list: &[(NodeId, u32)]| Voter {
            incarnation,
            generations: list.into(),
        };
        let mut lives = Lives::new(a, life(1, 10));
        let mut outdated = Vec::new();
        assert!(
            !lives.counts(b, &vote(life(1, 20), &[]), &mut outdated),
            "not known here"
        );
        lives.know(b, life(1, 20));
        assert!(lives.counts(b, &vote(life(1, 20), &[]), &mut outdated));
        assert!(
            !lives.counts(b, &vote(life(1, 21), &[]), &mut outdated),
            "another directory under its id"
        );
        // c tells that b has begun its second life: what b's first life votes from now on is dropped.
        lives.know(c, life(1, 30));
        assert!(lives.counts(c, &vote(life(1, 30), &[(b, 2)]), &mut outdated));
        assert_eq!(outdated, [b]);
        assert!(!lives.counts(b, &vote(life(1, 20), &[]), &mut outdated));
        assert!(lives.know(b, life(2, 22)), "its old votes are to be forgotten");
        assert!(lives.counts(b, &vote(life(2, 22), &[]), &mut outdated));
    }
}
