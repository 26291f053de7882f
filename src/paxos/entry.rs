//! What is agreed on: an immutable body with a kind, a log time and a checksum of its own (`rules.md` 11).

use bytes::Bytes;
use std::fmt;

/// Log time in milliseconds: stamped by leaders, carried by entries, no wall clock (`rules.md` 20).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogTime(pub u64);

/// What kind of entry a body is. Unknown kinds are carried and stored, but a node that must apply one stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Client commands, in order.
    Batch,
    /// Fills a gap; changes nothing but log time.
    Noop,
    /// A change of members (reserved: proposed only after a feature entry, `rules.md` 29).
    Config,
    /// A kind that this version does not know.
    Unknown(u8),
}

/// One entry of the log. Its body is encoded once, by the leader that first proposed it; the same bytes go to every
/// peer and every disk. Cloning shares the bytes.
#[derive(Clone, Eq)]
pub struct Entry {
    /// Read out of the body's first byte.
    pub kind: EntryKind,
    /// Read out of the body.
    pub stamp: LogTime,
    /// The encoded body: kind, format, stamp, commands (`wire::body`).
    pub body: Bytes,
    /// CRC-32 of `body`.
    pub crc: u32,
}

impl PartialEq for Entry {
    /// All of an entry stands in its body. Copies of one entry share their bytes: then these need not be read.
    fn eq(&self, other: &Entry) -> bool {
        let is_shared = self.body.as_ptr() == other.body.as_ptr() && self.body.len() == other.body.len();
        self.crc == other.crc && (is_shared || self.body == other.body)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} B, crc {:08x})", self.kind, self.body.len(), self.crc)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            EntryKind::Noop => write!(f, "noop"),
            EntryKind::Batch => write!(f, "batch({} B crc={:08x})", self.body.len(), self.crc),
            EntryKind::Config => write!(f, "config({} B)", self.body.len()),
            EntryKind::Unknown(kind) => write!(f, "kind-{kind}({} B)", self.body.len()),
        }
    }
}
