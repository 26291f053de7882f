//! Names that must not mix: nodes, slots, ballots.

use std::fmt;

/// A node of the cluster, 1..=65535. Zero names nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// A place in the log. The first slot is 1; slot 0 stands for "none yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

/// A round of proposing, owned by one node: ordered by round, then by node, so no two nodes share one.
///
/// A node uses a ballot once in its life: it is durable as used before PREPARE leaves (`rules.md` 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Higher wins. Zero only in [`Ballot::ZERO`].
    pub round: u64,
    /// The proposer whose ballot it is.
    pub node: NodeId,
}

impl Slot {
    /// Before the first slot.
    pub const ZERO: Slot = Slot(0);

    /// The slot behind this one.
    pub fn next(self) -> Slot {
        Slot(self.0 + 1)
    }

    /// The slot before this one; zero stays zero.
    pub fn prev(self) -> Slot {
        Slot(self.0.saturating_sub(1))
    }
}

impl Ballot {
    /// Below every ballot that a node can use: nothing promised, nothing accepted.
    pub const ZERO: Ballot = Ballot {
        round: 0,
        node: NodeId(0),
    };
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.round, self.node.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballots_are_ordered_by_round_and_then_by_node() {
        let b = |round, node| Ballot {
            round,
            node: NodeId(node),
        };
        let ascending = [
            Ballot::ZERO,
            b(1, 1),
            b(1, 2),
            b(2, 1),
            b(2, 3),
            b(10, 1),
            b(u64::MAX, 1),
        ];
        assert!(ascending.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
