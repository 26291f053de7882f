//! The handshake, first on every connection and in both directions (`rules.md` 1, 2, 28).

use super::bytes::{DecodeError, Field, Reader, Writer};
use super::message::ErrorCode;
use crate::paxos::{Incarnation, NodeId, Slot, Start, membership::MEMBERS_MAX};

/// The first bytes of every HELLO, of every version. The line break in it shows a transport that changes text.
pub const MAGIC: [u8; 8] = *b"SYNOD\0\r\n";
/// Longest name of a cluster, bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 255;
/// Longest address, bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Lowest and highest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// See [`PROTOCOL_VERSION_MIN`].
pub const PROTOCOL_VERSION_MAX: u16 = 1;
/// Feature bit of a node that answers RECOVER and understands FORGOTTEN; they are sent to no other.
pub const FEATURE_RECOVERY: u64 = 1;
/// Feature bit of a node that can fetch a snapshot; none is offered to any other.
pub const FEATURE_SNAPSHOTS: u64 = 2;
/// Feature bit of a node whose cluster has leases (`rules.md` 16): its HELLO says of which length, behind the roster. Not
/// offered otherwise, so that older builds take no part in a cluster whose promises to wait they would break.
pub const FEATURE_LEASES: u64 = 4;
/// Feature bit of a node that tells read positions (READ_POSITION); who leads without it is forwarded reads instead.
pub const FEATURE_READ_POSITIONS: u64 = 8;
/// Feature bit of a node that takes short answers on the connections that it dialled; others are answered as they are asked,
/// on a connection of the answerer's.
pub const FEATURE_ANSWERS: u64 = 16;
/// Feature bits that every node of this build offers.
pub const FEATURES: u64 = FEATURE_RECOVERY | FEATURE_SNAPSHOTS | FEATURE_READ_POSITIONS | FEATURE_ANSWERS;

/// Longest lease: so long a cluster waits for a leader that is gone.
pub const LEASE_MS_MAX: u32 = 60_000;

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
    /// Length of all leases of its cluster, milliseconds; 0: there are none. Stands in the HELLO with [`FEATURE_LEASES`].
    pub lease_ms: u32,
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

const KIND_NODE: u8 = 1;
const KIND_CLIENT: u8 = 2;

/// Magic and versions come first, in every version; what a later version adds stands behind the last field.
pub(super) fn put_hello(hello: &Hello, out: &mut Writer<'_>) {
    out.slice(&MAGIC);
    out.u16(hello.version_min);
    out.u16(hello.version_max);
    out.u64(hello.features);
    out.text8(&hello.cluster_name);
    out.u64(hello.cluster_id);
    match &hello.kind {
        HelloKind::Client => out.u8(KIND_CLIENT),
        HelloKind::Node(node) => {
            out.u8(KIND_NODE);
            put_node_hello(node, hello.features, out);
        }
    }
}

pub(super) fn take_hello(from: &mut Reader<'_>) -> Result<Hello, DecodeError> {
    let magic = from.slice(MAGIC.len(), "magic").map_err(|_| DecodeError::BadMagic)?;
    if magic != MAGIC {
        return Err(DecodeError::BadMagic);
    }
    let version_min = from.u16("version_min")?;
    let version_max = from.u16("version_max")?;
    common_version(version_min, version_max).map_err(|_| DecodeError::Version {
        min: version_min,
        max: version_max,
    })?;
    let features = from.u64("features")?;
    let cluster_name = from.text8(CLUSTER_NAME_BYTES_MAX, "cluster name")?;
    let cluster_id = from.u64("cluster id")?;
    let kind = match from.u8("kind")? {
        KIND_CLIENT => HelloKind::Client,
        KIND_NODE => HelloKind::Node(take_node_hello(features, from)?),
        byte => return Err(DecodeError::Unknown { field: "kind", byte }),
    };
    if version_max > PROTOCOL_VERSION_MAX {
        // What a later version adds stands behind what this one knows, and is left unread.
        from.slice(from.left(), "later fields")?;
    }
    Ok(Hello {
        version_min,
        version_max,
        features,
        kind,
        cluster_name,
        cluster_id,
    })
}

fn put_node_hello(hello: &NodeHello, features: u64, out: &mut Writer<'_>) {
    hello.node.put(out);
    hello.incarnation.put(out);
    hello.start.put(out);
    out.flag(hello.remembered.is_some());
    if let Some((incarnation, start)) = &hello.remembered {
        incarnation.put(out);
        start.put(out);
    }
    out.flag(hello.founded);
    out.text8(&hello.advertise);
    out.text8(&hello.debug);
    out.length8(hello.listed.len());
    hello.listed.iter().for_each(|node| node.put(out));
    hello.base.put(out);
    put_roster(&hello.roster, out);
    if features & FEATURE_LEASES != 0 {
        out.u32(hello.lease_ms);
    }
}

fn take_node_hello(features: u64, from: &mut Reader<'_>) -> Result<NodeHello, DecodeError> {
    let node = NodeId::take(from, "node")?;
    if node == NodeId(0) {
        return Err(DecodeError::OutOfRange {
            field: "node",
            value: 0,
        });
    }
    Ok(NodeHello {
        node,
        incarnation: Incarnation::take(from, "incarnation")?,
        start: Start::take(from, "start")?,
        remembered: match from.flag("remembered")? {
            true => Some((
                Incarnation::take(from, "remembered incarnation")?,
                Start::take(from, "remembered start")?,
            )),
            false => None,
        },
        founded: from.flag("founded")?,
        advertise: from.text8(ADDRESS_BYTES_MAX, "advertise")?,
        debug: from.text8(ADDRESS_BYTES_MAX, "debug")?,
        listed: take_listed(from)?,
        base: Base::take(from, "base")?,
        roster: take_roster(from)?,
        lease_ms: take_lease_ms(features, from)?,
    })
}

fn take_lease_ms(features: u64, from: &mut Reader<'_>) -> Result<u32, DecodeError> {
    if features & FEATURE_LEASES == 0 {
        return Ok(0);
    }
    match from.u32("lease_ms")? {
        ms if (1..=LEASE_MS_MAX).contains(&ms) => Ok(ms),
        ms => Err(DecodeError::OutOfRange {
            field: "lease_ms",
            value: ms.into(),
        }),
    }
}

fn take_listed(from: &mut Reader<'_>) -> Result<Vec<NodeId>, DecodeError> {
    let count = take_member_count(from, 2, "listed count")?;
    let mut listed: Vec<NodeId> = Vec::with_capacity(count);
    for _ in 0..count {
        let node = NodeId::take(from, "listed")?;
        if node <= listed.last().copied().unwrap_or(NodeId(0)) {
            return Err(DecodeError::NotAscending { field: "listed" });
        }
        listed.push(node);
    }
    Ok(listed)
}

/// The version that both sides speak from now on: the highest that both know.
///
/// # Errors
/// [`ErrorCode::BadVersion`] if there is none.
pub fn check_version(theirs: &Hello) -> Result<u16, ErrorCode> {
    common_version(theirs.version_min, theirs.version_max)
}

fn common_version(min: u16, max: u16) -> Result<u16, ErrorCode> {
    let common = max.min(PROTOCOL_VERSION_MAX);
    if min > max || common < min.max(PROTOCOL_VERSION_MIN) {
        return Err(ErrorCode::BadVersion);
    }
    Ok(common)
}

/// Whether both speak of one cluster. An empty name of a client matches any. Ids are compared only if neither can
/// change any more: before the founding a roster may be replaced (`rules.md` 1), and the id with it.
///
/// # Errors
/// [`ErrorCode::WrongCluster`].
pub fn check_cluster(theirs: &Hello, mine: &Hello) -> Result<(), ErrorCode> {
    let any_name = [theirs, mine]
        .iter()
        .any(|hello| hello.kind == HelloKind::Client && hello.cluster_name.is_empty());
    let same_name = any_name || theirs.cluster_name == mine.cluster_name;
    let both_have_ids = theirs.cluster_id != 0 && mine.cluster_id != 0 && theirs.is_settled() && mine.is_settled();
    let same_id = !both_have_ids || theirs.cluster_id == mine.cluster_id;
    if same_name && same_id {
        Ok(())
    } else {
        Err(ErrorCode::WrongCluster)
    }
}

impl Hello {
    /// What a client of this build says: of the cluster, by name (empty: any) and id (0: it has met no node).
    pub fn of_client(cluster_name: String, cluster_id: u64) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            features: FEATURES,
            kind: HelloKind::Client,
            cluster_name,
            cluster_id,
        }
    }

    /// Whether the cluster id that it names cannot change any more. A client names one only after a founded node did.
    fn is_settled(&self) -> bool {
        match &self.kind {
            HelloKind::Client => true,
            HelloKind::Node(node) => node.founded,
        }
    }
}

/// The id of the cluster that `name` and `roster` found: FNV-1a, 64 bits, over name and roster as HELLO encodes them.
/// Never 0, which stands for "no roster yet".
pub fn cluster_id(name: &str, roster: &[RosterEntry]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut bytes = Vec::new();
    let mut out = Writer::new(&mut bytes);
    out.text8(name);
    put_roster(roster, &mut out);
    let hash = bytes
        .iter()
        .fold(OFFSET_BASIS, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Frame, frame};

    fn client(name: &str, id: u64) -> Hello {
        Hello::of_client(name.into(), id)
    }

    fn node(name: &str, id: u64, founded: bool) -> Hello {
        Hello {
            kind: HelloKind::Node(NodeHello {
                node: NodeId(1),
                incarnation: Incarnation::default(),
                start: Start::default(),
                remembered: None,
                founded,
                advertise: String::new(),
                debug: String::new(),
                listed: vec![NodeId(1)],
                base: Base::default(),
                roster: Vec::new(),
                lease_ms: 0,
            }),
            ..client(name, id)
        }
    }

    #[test]
    fn both_sides_speak_the_highest_version_that_both_know() {
        // lowest, highest, spoken
        let table = [
            (1, 1, Ok(1)),
            (1, 9, Ok(1)),
            (0, 1, Ok(1)),
            (2, 9, Err(ErrorCode::BadVersion)),
            (0, 0, Err(ErrorCode::BadVersion)),
            (2, 1, Err(ErrorCode::BadVersion)),
        ];
        for (version_min, version_max, spoken) in table {
            let hello = Hello {
                version_min,
                version_max,
                ..client("", 0)
            };
            assert_eq!(check_version(&hello), spoken, "{version_min} to {version_max}");
        }
    }

    #[test]
    fn another_cluster_is_refused_by_name_and_once_founded_by_id() {
        // theirs, mine, one cluster
        let table = [
            (client("", 0), node("a", 7, true), true),
            (client("a", 7), node("a", 7, true), true),
            (client("b", 0), node("a", 7, true), false),
            (client("a", 8), node("a", 7, true), false),
            (client("a", 8), node("a", 7, false), true),
            (node("a", 7, true), node("a", 7, true), true),
            (node("a", 0, false), node("a", 7, true), true),
            (node("a", 8, false), node("a", 7, true), true),
            (node("a", 8, true), node("a", 7, true), false),
            (node("", 7, true), node("a", 7, true), false),
        ];
        for (theirs, mine, same) in table {
            assert_eq!(check_cluster(&theirs, &mine).is_ok(), same, "{theirs:?} {mine:?}");
        }
    }

    #[test]
    fn a_hello_of_a_later_version_is_understood_or_refused_by_its_version() {
        let header = frame::Header {
            frame_type: frame::FrameType::Hello,
            more: false,
            request_id: 0,
        };
        let hello_with = |min: u16, max: u16| {
            let frame = Frame::Hello(Hello {
                version_min: min,
                version_max: max,
                ..client("a", 0)
            });
            let mut body = frame::encode_to_bytes(&frame, 0)[frame::HEADER_BYTES..].to_vec();
            body.extend_from_slice(b"what a later version adds");
            frame::decode(header, body.into())
        };
        assert!(matches!(hello_with(1, 2), Ok(Frame::Hello(_))));
        assert_eq!(hello_with(2, 3), Err(DecodeError::Version { min: 2, max: 3 }));
        assert_eq!(hello_with(1, 1), Err(DecodeError::TrailingBytes { count: 25 }));
        assert_eq!(frame::decode(header, vec![0; 30].into()), Err(DecodeError::BadMagic));
    }

    #[test]
    fn a_cluster_id_hangs_on_name_and_roster() {
        let entry = |node, token| RosterEntry {
            node: NodeId(node),
            incarnation: Incarnation { generation: 1, token },
            base: Base::default(),
        };
        let id = cluster_id("a", &[entry(1, 5), entry(2, 6)]);
        assert_eq!(id, cluster_id("a", &[entry(1, 5), entry(2, 6)]));
        assert_ne!(id, cluster_id("b", &[entry(1, 5), entry(2, 6)]));
        assert_ne!(id, cluster_id("a", &[entry(1, 5), entry(2, 7)]));
        assert_ne!(id, cluster_id("a", &[entry(1, 5)]));
    }
}
