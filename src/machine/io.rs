//! What goes into the machine and what comes out.

use super::status::DamageFinding;
use crate::paxos::replica::PART_BYTES;
use crate::paxos::{self, Entry, Incarnation, NodeId, Slot, Start};
use crate::rules::Rules;
use crate::time::Boottime;
use crate::wire::hello::{Base, FEATURES};
use crate::wire::transfer::Transfer;
use crate::wire::{Hello, Record, Reply, Request, RosterEntry};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// A client's request as the loop knows it: which connection (numbers are never used again in the life of a process,
/// so a late reply cannot reach a newer connection), and the request id of the client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    /// Number of the connection.
    pub connection: u64,
    /// The client's own id of the request, echoed in the reply's frame.
    pub request: u64,
}

/// By how many millionths a clock may be off if nothing else is said: a tenth. Crystals are off by less than 100, but what
/// disciplines a system's clock bends also the one that leases count by: the kernel by up to 500, chronyd by up to 83,333.
pub const CLOCK_RATE_BOUND_PPM: u32 = 100_000;

/// Something that happened. One input, one call of `step`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A HELLO of a peer, on a connection that either side dialled, that `check_hello` let pass. First on each link.
    Hello {
        /// Who.
        from: NodeId,
        /// What it said; always of the node kind.
        hello: Hello,
        /// Whether the peer dialled: then what comes of it as anything but [`Input::Answer`] comes behind this HELLO, of a
        /// process that has read ours; else what comes so.
        dialled: bool,
    },
    /// A connection that this node dialled to `peer` is through its handshake: what is sent from now on may arrive.
    LinkUp {
        /// To whom.
        peer: NodeId,
    },
    /// That connection is gone. What was sent and not acknowledged may be lost.
    LinkDown {
        /// To whom.
        peer: NodeId,
    },
    /// A connection of `peer` closed and the redial was refused: its process is gone (`rules.md` 23).
    Died {
        /// Who.
        peer: NodeId,
    },
    /// A message of agreement.
    Paxos {
        /// Who.
        from: NodeId,
        /// What.
        message: paxos::Message,
    },
    /// A short answer, on a connection that this node dialled.
    Answer {
        /// Who.
        from: NodeId,
        /// What.
        message: paxos::Message,
    },
    /// The roster that a peer confirms.
    Roster {
        /// Who.
        from: NodeId,
        /// Whether it knows the cluster as founded.
        founded: bool,
        /// The roster on its disk.
        roster: Vec<RosterEntry>,
    },
    /// A request that a peer forwards, under its own relay number.
    Forward {
        /// Who.
        from: NodeId,
        /// Its relay number.
        relay: u64,
        /// What the client asked.
        request: Request,
    },
    /// The answer to a request that this node forwarded.
    ForwardReply {
        /// Who answers.
        from: NodeId,
        /// The relay number.
        relay: u64,
        /// The answer.
        reply: Reply,
    },
    /// A client's request, never STATUS (the loop answers that).
    Client {
        /// To whom the reply goes.
        id: RequestId,
        /// What is asked.
        request: Request,
    },
    /// All inputs of this turn were stepped: close the batch, begin a round of confirmation for waiting reads.
    Gathered,
    /// All records up to this one, counted from 1 in the order of [`Effect::Append`] in this life, are on disk.
    Synced {
        /// Number of the last.
        up_to: u64,
    },
    /// The machine's deadline has come.
    Deadline,
    /// Entries that [`Effect::ReadChosen`] asked for: what the disk holds from `first` on, without a hole; may be fewer.
    ChosenRead {
        /// For whom they were read.
        to: NodeId,
        /// Slot of the first.
        first: Slot,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// A slice of what [`Effect::Reread`] asked for.
    Reread {
        /// Records in log order.
        records: Vec<Record>,
        /// Whether there is more; the machine asks again, behind what it has.
        more: bool,
    },
    /// What the clock shows that counts suspension, read behind all that this turn brought (`rules.md` 16). First in each
    /// turn of a node whose cluster has leases ([`Machine::has_leases`](super::Machine::has_leases)).
    Clock {
        /// The reading.
        clock: Boottime,
    },
    /// Free bytes on the disk, told at start and now and then.
    FreeSpace {
        /// Bytes.
        bytes: u64,
    },
    /// The acceptor fails: what it has only in memory is lost (`rules.md` 14). Between turns, with nothing unsynced.
    AcceptorDown,
    /// The failed acceptor restarts: it reads its state again from the disk.
    AcceptorUp,
    /// The applied state is altered, as broken memory would (fault injection): its effects differ from now on.
    Corrupt,
    /// A peer's message about a snapshot.
    Transfer {
        /// Who.
        from: NodeId,
        /// What.
        transfer: Transfer,
    },
    /// What [`Effect::ReadChunk`] asked for; none if that snapshot is not here any more.
    ChunkRead {
        /// For whom it was read.
        to: NodeId,
        /// Of which snapshot.
        slot: Slot,
        /// Where it begins.
        offset: u64,
        /// The piece.
        bytes: Option<Bytes>,
    },
    /// A snapshot that was fetched cannot be kept or loaded.
    InstallFailed {
        /// The first and the last byte that are damaged, where that is the reason and more can be asked for.
        damaged: Option<(u64, u64)>,
        /// In words.
        reason: String,
    },
    /// A client asks for a piece of a snapshot, for a backup: of that behind `slot` or, if there is none, for the offer of a
    /// later one. The loop keeps this to itself.
    BackupAsk {
        /// On which connection.
        connection: u64,
        /// Of which snapshot.
        slot: Slot,
        /// Where the piece begins.
        offset: u64,
        /// Its bytes.
        length: u32,
    },
    /// A snapshot is wanted. The loop keeps this to itself, and takes one between its turns.
    TakeSnapshot,
    /// A pass of the scrub is asked for. The loop's own matter, as [`Input::TakeSnapshot`].
    Scrub,
    /// A clean end is wanted: hand leadership over, finish what is in flight, take nothing new.
    Shutdown,
}

/// Something to be done. In order; none of them blocks the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Put a record behind the log; numbered from 1 in this life, synced with its turn.
    Append(Record),
    /// Send to a peer, or drop it if no link is up.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: paxos::Message,
    },
    /// Tell a peer which roster this node confirms.
    SendRoster {
        /// To whom.
        to: NodeId,
        /// Whether founded.
        founded: bool,
        /// The roster on disk.
        roster: Vec<RosterEntry>,
    },
    /// Relay a client's request to the leader.
    Forward {
        /// The leader.
        to: NodeId,
        /// This node's number for it.
        relay: u64,
        /// The request, with what is left of its deadline.
        request: Request,
    },
    /// Answer a relayed request.
    ForwardReply {
        /// Who relayed it.
        to: NodeId,
        /// Its number for it.
        relay: u64,
        /// The answer.
        reply: Reply,
    },
    /// Answer a client; dropped if its connection is gone.
    Reply {
        /// Whom.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Read chosen entries from the log for a peer that catches up; at most about `bytes_max` bytes, at least one entry.
    /// Answered by one [`Input::ChosenRead`].
    ReadChosen {
        /// For whom.
        to: NodeId,
        /// First slot.
        first: Slot,
        /// Last slot wanted.
        last: Slot,
        /// Bound.
        bytes_max: usize,
    },
    /// Read the acceptor's records from the log: `restart` from its beginning, else on from where the last read ended.
    /// A bounded slice each; answered by one [`Input::Reread`].
    Reread {
        /// Whether to begin anew.
        restart: bool,
    },
    /// Send a message about a snapshot to a peer, or drop it if no link is up.
    SendTransfer {
        /// To whom.
        to: NodeId,
        /// What.
        transfer: Transfer,
    },
    /// Send an answer to [`Input::BackupAsk`], or drop it if the connection is gone.
    HandTransfer {
        /// On which connection.
        connection: u64,
        /// What.
        transfer: Transfer,
    },
    /// Read a piece of a snapshot for a peer, some time soon; answered by one [`Input::ChunkRead`].
    ReadChunk {
        /// For whom.
        to: NodeId,
        /// Of which snapshot.
        slot: Slot,
        /// Where it begins.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// A snapshot is going to be fetched: make a file for it, in place of one that was begun earlier.
    BeginInstall {
        /// Behind which slot.
        slot: Slot,
        /// How long it will be.
        bytes: u64,
    },
    /// Put a piece into that file.
    KeepChunk {
        /// Of which snapshot.
        slot: Slot,
        /// Where it begins.
        offset: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// All of the file is here: make it durable, prove and load it in slices, name it and call `Machine::install`; or step
    /// [`Input::InstallFailed`].
    LoadInstall {
        /// Which snapshot.
        slot: Slot,
        /// The digest that its content must have.
        content: u64,
    },
    /// That file is of no use any more.
    DropInstall,
    /// The links to a peer are closed, and it is told why; who may dial does so again.
    Refuse {
        /// Whom.
        peer: NodeId,
        /// Which error to send.
        code: crate::wire::message::ErrorCode,
        /// Words for the log and the peer.
        detail: String,
    },
    /// Something that an operator or a learner wants to see: one log line and one event in the ring.
    Note(Note),
    /// The node cannot go on: it met something that it cannot apply. The process says so and ends, non-zero.
    Halt {
        /// What and where.
        reason: String,
    },
    /// What was asked by [`Input::Shutdown`] is finished: the process may end.
    Finished,
}

/// An event worth a line in the log and a place in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Of agreement.
    Paxos(paxos::Note),
    /// The cluster was founded, or this node learned so.
    Founded {
        /// Its id.
        cluster_id: u64,
    },
    /// The node waits to be founded.
    WaitsFor {
        /// Nodes not yet met or not yet confirming.
        nodes: Vec<NodeId>,
    },
    /// This node must not vote, and why.
    LostMemory {
        /// In words.
        reason: String,
    },
    /// A snapshot is durable.
    SnapshotTaken {
        /// Behind which slot.
        slot: Slot,
        /// Bytes of its file.
        bytes: u64,
        /// From its beginning to its name.
        took: Duration,
    },
    /// The log lost its beginning: what stood there is in a snapshot.
    LogTruncated {
        /// Number of its first segment now.
        segment: u32,
    },
    /// A peer that is far behind is offered a snapshot.
    OffersSnapshot {
        /// To whom.
        to: NodeId,
        /// Behind which slot.
        slot: Slot,
    },
    /// This node is far behind, and fetches a snapshot.
    FetchesSnapshot {
        /// From whom.
        from: NodeId,
        /// Behind which slot.
        slot: Slot,
        /// Bytes of its file.
        bytes: u64,
    },
    /// The state of a snapshot that was fetched is this node's own from now on.
    SnapshotInstalled {
        /// Behind which slot.
        slot: Slot,
    },
    /// A snapshot that was fetched is of no use.
    SnapshotRefused {
        /// Behind which slot.
        slot: Slot,
        /// Why.
        reason: String,
    },
    /// What this node synced is not what stands on its disk.
    DamageFound(DamageFinding),
    /// All that matters of a file that was damaged stands elsewhere.
    DamageRepaired {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
    },
    /// There is no room for a snapshot; it is tried again now and then.
    SnapshotPutOff {
        /// So many bytes were expected.
        bytes: u64,
    },
    /// It needs peers that remember it to vote again.
    WaitsForMemory {
        /// In words: whom it has heard, how many it needs, and what an operator can do.
        words: String,
    },
}

/// What one machine is given at birth. Durations are the defaults' table in `protocol.md`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster_name: String,
    /// All founders, this node included, ascending.
    pub nodes: Vec<NodeId>,
    /// Address that HELLO and leader hints advertise.
    pub advertise: String,
    /// Address of the debug port, empty if off.
    pub debug: String,
    /// Feature bits of its build, but for leases: [`FEATURES`]. In a simulation also an older build's.
    pub features: u64,
    /// Incarnation of the data directory.
    pub incarnation: Incarnation,
    /// This start, synced.
    pub start: Start,
    /// Earlier starts of this directory.
    pub past_starts: Vec<Start>,
    /// Where the log begins.
    pub base: Base,
    /// Seed of the machine's own generator: no two nodes share one.
    pub seed: u64,
    /// How often a leader says that it lives.
    pub heartbeat: Duration,
    /// Shortest silence after which a leader is taken as lost; the deadline is drawn from one to two of it.
    pub election_timeout: Duration,
    /// First step of the campaign backoff.
    pub backoff_base: Duration,
    /// Its cap.
    pub backoff_max: Duration,
    /// Length of the leases that a leader reads by; zero: it asks a quorum for each turn's reads. Fixed at founding.
    pub read_lease: Duration,
    /// By how many millionths the clock of any node may be off, for leases.
    pub clock_rate_bound_ppm: u32,
    /// How long a request waits that names no deadline.
    pub request_timeout: Duration,
    /// Most slots open at once.
    pub window_slots: u64,
    /// Most bytes of entries open at once (one entry may always be open).
    pub window_bytes: usize,
    /// A batch closes at so many bytes of commands (one command always fits).
    pub batch_bytes: usize,
    /// Most requests, and bytes of them, that wait at a leader to be proposed or relayed at a follower.
    pub queue_requests: usize,
    /// See `queue_requests`.
    pub queue_bytes: usize,
    /// Below so much free space on the disk this node accepts no new entries (`rules.md` 26), bytes.
    pub disk_reserve: u64,
    /// Recent entries kept in memory for peers that catch up, bytes.
    pub cache_bytes: usize,
    /// Most bytes of entries in one part of a promise and of what a peer is sent to catch up; one entry always fits.
    pub part_bytes: usize,
    /// Which rules are kept. A node that serves keeps them all; lessons and scenarios break one to show what it is for.
    pub rules: Rules,
}

impl Settings {
    /// The defaults, for `node` among `nodes`.
    pub fn new(node: NodeId, nodes: Vec<NodeId>) -> Settings {
        Settings {
            node,
            cluster_name: "synod".into(),
            nodes,
            advertise: String::new(),
            debug: String::new(),
            features: FEATURES,
            incarnation: Incarnation {
                generation: 1,
                token: 0x5eed_0000 + u64::from(node.0),
            },
            start: Start {
                counter: 1,
                token: 0x57a7_0000 + u64::from(node.0),
            },
            past_starts: Vec::new(),
            base: Base::default(),
            seed: u64::from(node.0),
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            backoff_base: Duration::from_millis(30),
            backoff_max: Duration::from_millis(1000),
            read_lease: Duration::ZERO,
            clock_rate_bound_ppm: CLOCK_RATE_BOUND_PPM,
            request_timeout: Duration::from_secs(5),
            window_slots: 256,
            window_bytes: 4 << 20,
            batch_bytes: 1 << 20,
            queue_requests: 16_384,
            queue_bytes: 64 << 20,
            disk_reserve: 16 << 20,
            cache_bytes: 64 << 20,
            part_bytes: PART_BYTES,
            rules: Rules::KEPT,
        }
    }
}

impl Note {
    /// Whether somebody must look after it.
    pub fn is_alarm(&self) -> bool {
        match self {
            Note::Paxos(note) => note.is_alarm(),
            Note::LostMemory { .. }
            | Note::WaitsForMemory { .. }
            | Note::SnapshotPutOff { .. }
            | Note::SnapshotRefused { .. }
            | Note::DamageFound(_) => true,
            Note::Founded { .. }
            | Note::WaitsFor { .. }
            | Note::SnapshotTaken { .. }
            | Note::LogTruncated { .. }
            | Note::OffersSnapshot { .. }
            | Note::FetchesSnapshot { .. }
            | Note::SnapshotInstalled { .. }
            | Note::DamageRepaired { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Paxos(note) => note.fmt(f),
            Note::Founded { cluster_id } => write!(f, "cluster founded, id={cluster_id:016x}"),
            Note::WaitsFor { nodes } => {
                write!(f, "waits to be founded, for:")?;
                nodes.iter().try_for_each(|node| write!(f, " {node}"))
            }
            Note::LostMemory { reason } => write!(f, "must not vote: {reason}"),
            Note::SnapshotTaken { slot, bytes, took } => {
                write!(
                    f,
                    "snapshot taken, slot={slot} bytes={bytes} took={}ms",
                    took.as_millis()
                )
            }
            Note::LogTruncated { segment } => write!(f, "log truncated, it begins with segment {segment}"),
            Note::OffersSnapshot { to, slot } => {
                write!(
                    f,
                    "{to} is behind all entries that are here: offers a snapshot, slot={slot}"
                )
            }
            Note::FetchesSnapshot { from, slot, bytes } => {
                write!(
                    f,
                    "is far behind, and fetches a snapshot from {from}, slot={slot} bytes={bytes}"
                )
            }
            Note::SnapshotInstalled { slot } => write!(f, "goes on from the snapshot that it fetched, slot={slot}"),
            Note::SnapshotRefused { slot, reason } => {
                write!(f, "cannot use the snapshot that it fetches, slot={slot}: {reason}")
            }
            Note::DamageFound(found) => {
                let DamageFinding {
                    file,
                    offset,
                    kind,
                    what,
                } = found;
                write!(
                    f,
                    "{file} is damaged at offset {offset} ({kind}): {what}; it is written again from memory"
                )
            }
            Note::DamageRepaired { file, offset } => write!(f, "repaired: the damage in {file} at offset {offset}"),
            Note::SnapshotPutOff { bytes } => write!(f, "snapshot put off: no room for its {bytes} bytes"),
            Note::WaitsForMemory { words } => write!(f, "must not vote yet: {words}"),
        }
    }
}
