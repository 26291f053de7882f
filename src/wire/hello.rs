//! The handshake, first on every connection and in both directions (`rules.md` 1, 2, 28).

use super::bytes::{DecodeError, Field, Reader, Writer};
use crate::paxos::{Incarnation, NodeId, Slot, Start, membership::MEMBERS_MAX};

/// Lowest and highest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// See [`PROTOCOL_VERSION_MIN`].
pub const PROTOCOL_VERSION_MAX: u16 = 1;
/// Feature bits that this build offers: none yet.
pub const FEATURES: u64 = 0;

/// The first frame of either side on a connection: who speaks, and what it knows of the cluster and of the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest protocol version spoken.
    pub version_min: u16,
    /// Highest protocol version spoken.
    pub version_max: u16,
    /// Feature bits.
    pub features: u64,
    /// A node or a client.
    pub kind: HelloKind,
    /// The cluster's name; a client may leave it empty, which matches any.
    pub cluster_name: String,
    /// Hash of name and roster; 0 while the speaker holds no roster (a client: while it has met no node).
    pub cluster_id: u64,
}

/// What only a node, or only a client, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloKind {
    /// A client. It asks nothing of identity.
    Client,
    /// A node, to a node or (in its answer) to a client.
    Node(NodeHello),
}

/// A node's identity and its view of the founding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHello {
    /// The speaker.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// Its present start, synced before this was sent.
    pub start: Start,
    /// What the speaker remembered, before this connection, of the node that it speaks to; `None`: never met, or the
    /// other side is a client. A node that does not find this start among its own has lost its memory.
    pub remembered: Option<(Incarnation, Start)>,
    /// Whether the speaker knows that the cluster is founded; never taken back.
    pub founded: bool,
    /// The address at which peers and clients reach the speaker, `host:port`.
    pub advertise: String,
    /// The address of its debug port, empty if off.
    pub debug: String,
    /// The node ids of its own list (`--cluster`), ascending, before there is a roster.
    pub listed: Vec<NodeId>,
    /// Where the speaker's log begins: slot and digest, zero unless restored from a backup.
    pub base: Base,
    /// The roster on its disk; empty while it holds none.
    pub roster: Vec<RosterEntry>,
}

/// Where a log begins: zero, or what a restored snapshot holds; equal on all nodes of a founding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// Last slot before the log's first.
    pub slot: Slot,
    /// Digest up to there.
    pub digest: u64,
}

/// One node of a roster. A roster holds all founders in ascending order of id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    /// Who.
    pub node: NodeId,
    /// With which memory.
    pub incarnation: Incarnation,
    /// Where its log begins.
    pub base: Base,
}

/// Bytes of one roster entry.
const ROSTER_ENTRY_BYTES: usize = 2 + 12 + 16;
/// Bytes of the roster of the largest cluster.
pub(super) const ROSTER_BYTES_MAX: usize = 1 + MEMBERS_MAX * ROSTER_ENTRY_BYTES;

/// A roster: a count of one byte and that many entries.
pub(super) fn put_roster(roster: &[RosterEntry], out: &mut Writer<'_>) {
    out.length8(roster.len());
    for entry in roster {
        entry.put(out);
    }
}

/// # Errors
/// Any [`DecodeError`]; more than [`MEMBERS_MAX`] entries, or not in ascending order of node, too.
pub(super) fn take_roster(from: &mut Reader<'_>) -> Result<Vec<RosterEntry>, DecodeError> {
    let count = take_member_count(from, ROSTER_ENTRY_BYTES, "roster count")?;
    let mut roster: Vec<RosterEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = RosterEntry::take(from, "roster")?;
        let above = roster.last().map_or(NodeId(0), |last| last.node);
        if entry.node <= above {
            return Err(DecodeError::NotAscending { field: "roster" });
        }
        roster.push(entry);
    }
    Ok(roster)
}

/// A count of one byte, of at most [`MEMBERS_MAX`] items that can follow.
///
/// # Errors
/// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`].
pub(super) fn take_member_count(
    from: &mut Reader<'_>,
    item_bytes: usize,
    field: &'static str,
) -> Result<usize, DecodeError> {
    match from.u8(field)? {
        count if usize::from(count) <= MEMBERS_MAX => from.items(usize::from(count), item_bytes, field),
        count => Err(DecodeError::OutOfRange {
            field,
            value: u64::from(count),
        }),
    }
}

impl Field for Base {
    fn put(&self, out: &mut Writer<'_>) {
        self.slot.put(out);
        out.u64(self.digest);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let slot = Slot::take(from, field)?;
        let digest = from.u64(field)?;
        Ok(Base { slot, digest })
    }
}

impl Field for RosterEntry {
    fn put(&self, out: &mut Writer<'_>) {
        self.node.put(out);
        self.incarnation.put(out);
        self.base.put(out);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(RosterEntry {
            node: NodeId::take(from, field)?,
            incarnation: Incarnation::take(from, field)?,
            base: Base::take(from, field)?,
        })
    }
}
