//! Who a node is on disk: incarnations and starts, and whose votes therefore count (`rules.md` 2).

use super::{Ballot, NodeId, Slot};
use std::collections::{BTreeMap, BTreeSet};
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

/// What a peer is remembered by: its newest life, and the newest start in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// The life.
    pub incarnation: Incarnation,
    /// The start.
    pub start: Start,
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
/// * V1. A vote counts only if its voter's incarnation, and the start that was met last, are durable here, and no voter
///   names a newer incarnation.
/// * V2. A voter that shows less than it voted for has lost its memory: no vote of that incarnation counts again.
#[derive(Clone, Debug)]
pub struct Lives {
    own: Voter,
    known: BTreeMap<NodeId, Incarnation>,
    newest: BTreeMap<NodeId, u32>,
    /// V1: of these something newer is on its way to the disk.
    unproven: BTreeSet<NodeId>,
    /// V2: the highest vote that this node, leading, saw of each voter's present life: at which ballot, up to which slot.
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
            unproven: BTreeSet::new(),
            highest_votes: BTreeMap::new(),
            forgetful: BTreeMap::new(),
        }
    }

    /// What this node's own votes carry.
    pub fn voter(&self) -> Voter {
        self.own.clone()
    }

    /// This node's own incarnation.
    pub fn own(&self) -> Incarnation {
        self.own.incarnation
    }

    /// This node begins a new life: from now on its votes carry `incarnation`, durable here.
    pub fn begin(&mut self, node: NodeId, incarnation: Incarnation) {
        self.own.incarnation = incarnation;
        self.know(node, incarnation);
    }

    /// Notes an incarnation that is durable here. True if votes of an older one must be forgotten.
    pub fn know(&mut self, node: NodeId, incarnation: Incarnation) -> bool {
        let newer = self
            .known
            .insert(node, incarnation)
            .is_some_and(|old| old != incarnation);
        if newer {
            // What the life before it voted is nothing that this one must show.
            self.highest_votes.remove(&node);
        }
        self.unproven.remove(&node);
        self.raise(node, incarnation.generation);
        newer
    }

    /// A life or start of `node` is on its way to the disk: until [`Lives::know`] no vote of it counts, and votes of this
    /// node tell of it at once. True if votes of an older life must be forgotten.
    pub fn expect(&mut self, node: NodeId, generation: u32) -> bool {
        self.unproven.insert(node);
        self.raise(node, generation)
    }

    /// The newest generation of `node` that was told of.
    pub fn newest(&self, node: NodeId) -> u32 {
        self.newest.get(&node).copied().unwrap_or_default()
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
            && !self.unproven.contains(&from)
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

    /// V2: `node` showed less than it voted for. The life that did.
    pub fn note_forgetful(&mut self, node: NodeId) -> Option<Incarnation> {
        let incarnation = *self.known.get(&node)?;
        self.forgetful.insert(node, incarnation);
        Some(incarnation)
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
        // Its next start is met: until that is on disk here, its votes prove nothing.
        assert!(!lives.expect(b, 2), "no newer life");
        assert!(!lives.counts(b, &vote(life(2, 22), &[]), &mut outdated));
        assert!(!lives.know(b, life(2, 22)));
        assert!(lives.counts(b, &vote(life(2, 22), &[]), &mut outdated));
        // A third life is met, and this node's own votes say so before it is on disk.
        assert!(lives.expect(b, 3));
        assert!(lives.voter().generations.contains(&(b, 3)));
        assert!(!lives.counts(b, &vote(life(2, 22), &[]), &mut outdated));
    }

    #[test]
    fn what_a_forgotten_life_voted_is_nothing_that_the_next_must_show() {
        let (a, b) = (NodeId(1), NodeId(2));
        let life = |generation| Incarnation { generation, token: 7 };
        let mut lives = Lives::new(a, life(1));
        lives.know(b, life(1));
        lives.note_vote(b, Ballot { round: 3, node: a }, Slot(9));
        assert_eq!(lives.note_forgetful(b), Some(life(1)));
        lives.know(b, life(2));
        assert_eq!(lives.highest_vote(b), None);
    }
}
