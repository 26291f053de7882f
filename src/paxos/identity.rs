//! Who a node is on disk: incarnations and starts, and whose votes therefore count (`rules.md` 2).

use super::NodeId;
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
