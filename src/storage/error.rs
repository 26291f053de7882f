//! What can go wrong with a data directory: each cause a variant, with the file, the place, and the safe next step.

use crate::paxos::{NodeId, Slot};
use std::fmt;
use std::io;

/// What to do about damage that is not a torn tail. Said once here, and by every error of that kind.
const NEXT_STEP: &str = "this directory may have held a vote, and nobody can tell any more: move it away, keep it as it is, and \
    start the node with an empty one; it asks its peers what it may have promised, catches up, and votes again by itself \
    (docs/operations.md, \"Losing a disk\")";

/// A file operation that failed. For a write or a sync it is final: nobody knows any more what is on disk, and a second
/// sync that succeeds would prove nothing, since the kernel has marked the pages clean.
#[derive(Debug)]
pub struct Failure {
    /// What was tried.
    pub op: &'static str,
    /// On which file.
    pub file: String,
    /// What the operating system said.
    pub source: io::Error,
}

/// Bytes that are not what this node once synced, at a place that a torn tail cannot explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// Where in it, in bytes from its beginning.
    pub offset: u64,
    /// Of what.
    pub kind: DamageKind,
    /// What is wrong.
    pub what: String,
}

/// What of a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file `IDENTITY`.
    Identity,
    /// The header of a segment of the log, or its length.
    SegmentHeader,
    /// The header of a unit of the log, or a unit that is not there.
    UnitHeader,
    /// The head of a record: nobody can tell what it said.
    RecordHead,
    /// The body of a record: its head says what it was.
    RecordBody,
    /// The header of a snapshot.
    SnapshotHeader,
    /// A block of a snapshot, or an item in it.
    SnapshotBlock,
    /// The trailer of a snapshot, or the checksum over all of it.
    SnapshotTrailer,
    /// The disk does not give the bytes at all.
    Unreadable,
}

/// Why a data directory cannot be used. Nothing in it was changed, except by [`OpenError::Failed`], which says at what.
#[derive(Debug)]
pub enum OpenError {
    /// A file operation failed.
    Failed(Failure),
    /// The directory cannot be made, or files cannot be written in it.
    CannotWrite {
        /// Which directory.
        directory: String,
        /// Why.
        source: io::Error,
    },
    /// Another process works on the directory.
    Locked {
        /// Which directory.
        directory: String,
        /// The other process, if it left its number.
        pid: Option<u32>,
    },
    /// The directory is of a newer disk format.
    NewerFormat {
        /// The file that says so.
        file: String,
        /// Its format.
        found: u32,
        /// The newest that this build reads.
        supported: u32,
    },
    /// The log holds a whole record of a kind that only a newer build knows, wherever it stands: it may be a promise.
    NewerRecord {
        /// In which file.
        file: String,
        /// Where in it, in bytes from its beginning.
        offset: u64,
        /// The byte that stands for its kind.
        kind: u8,
    },
    /// The directory belongs to another node.
    OtherNode {
        /// Which directory.
        directory: String,
        /// To whom it belongs.
        found: NodeId,
        /// Who was started.
        expected: NodeId,
    },
    /// The directory belongs to another cluster.
    OtherCluster {
        /// Which directory.
        directory: String,
        /// To which it belongs.
        found: String,
        /// Which was asked for.
        expected: String,
    },
    /// No whole snapshot reaches the beginning of the log.
    NoSnapshot {
        /// Which directory.
        directory: String,
        /// The log needs a snapshot of this slot or a later one.
        needs: Slot,
        /// The newest that is whole, if there is any.
        newest: Option<Slot>,
        /// What is wrong with newer ones.
        damaged: Vec<Damage>,
    },
    /// A snapshot of a founded cluster in a directory that knows of none.
    StrayedSnapshot {
        /// Which file.
        file: String,
        /// Whose state it is.
        cluster_id: u64,
    },
    /// Bytes are damaged elsewhere than in the unit that was written last.
    Damage(Damage),
    /// A file that must be there is not.
    Missing {
        /// Its path.
        file: String,
        /// How that is known.
        reason: String,
    },
}

/// Why the log cannot go on.
#[derive(Debug)]
pub enum StorageError {
    /// A file operation failed. Final: the log refuses everything from now on, and the process must end.
    Failed(Failure),
    /// The log was used again after a failure.
    Broken,
    /// What was read back is not what was synced.
    Damage(Damage),
    /// A record is larger than a segment.
    TooLarge {
        /// Bytes of the record with its header.
        bytes: usize,
        /// Most that a segment takes.
        bytes_max: usize,
    },
    /// No room is left in the log, nor on the disk for another segment. Nothing of the append was written.
    Full {
        /// What the append needs.
        bytes: usize,
        /// What is left.
        room: usize,
    },
}

impl Failure {
    /// Whether it says only that the disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    /// Whether it says that the disk cannot give what stands there (EIO).
    pub fn is_unreadable(&self) -> bool {
        self.source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
    }

    /// `op` on `file` failed.
    pub fn new(op: &'static str, file: impl Into<String>, source: io::Error) -> Failure {
        let file = file.into();
        Failure { op, file, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.op, self.file, self.source)
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage {
            file,
            offset,
            kind,
            what,
        } = self;
        write!(f, "{file} is damaged at offset {offset} ({kind}): {what}")
    }
}

impl DamageKind {
    /// The kind in logs and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            DamageKind::Identity => "identity",
            DamageKind::SegmentHeader => "segment_header",
            DamageKind::UnitHeader => "unit_header",
            DamageKind::RecordHead => "record_head",
            DamageKind::RecordBody => "record_body",
            DamageKind::SnapshotHeader => "snapshot_header",
            DamageKind::SnapshotBlock => "snapshot_block",
            DamageKind::SnapshotTrailer => "snapshot_trailer",
            DamageKind::Unreadable => "unreadable",
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl OpenError {
    /// Whether it says that the log, and with it what this node promised, is lost; though it is clear whose it was.
    pub fn is_loss_of_memory(&self) -> bool {
        match self {
            OpenError::Damage(damage) => damage.kind != DamageKind::Identity,
            OpenError::NoSnapshot { .. } | OpenError::Missing { .. } => true,
            OpenError::Failed(_)
            | OpenError::CannotWrite { .. }
            | OpenError::Locked { .. }
            | OpenError::NewerFormat { .. }
            | OpenError::NewerRecord { .. }
            | OpenError::OtherNode { .. }
            | OpenError::StrayedSnapshot { .. }
            | OpenError::OtherCluster { .. } => false,
        }
    }

    /// What was found, without what to do about it.
    pub fn finding(&self) -> impl fmt::Display {
        Finding(self)
    }
}

/// An [`OpenError`] without the next step.
struct Finding<'a>(&'a OpenError);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.finding().fmt(f)?;
        match self {
            OpenError::Damage(_) | OpenError::NoSnapshot { .. } | OpenError::Missing { .. } => {
                write!(f, "; {NEXT_STEP}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            OpenError::Failed(failure) => failure.fmt(f),
            OpenError::CannotWrite { directory, source } => {
                write!(f, "the data directory {directory} cannot be written: {source}")
            }
            OpenError::Locked { directory, pid } => {
                write!(f, "the data directory {directory} is in use by another process")?;
                pid.map_or(Ok(()), |pid| write!(f, " (pid {pid})"))
            }
            OpenError::NewerFormat { file, found, supported } => write!(
                f,
                "{file} has disk format {found}, newer than {supported}, the newest that this build reads: start the \
                 newer build"
            ),
            OpenError::NewerRecord { file, offset, kind } => write!(
                f,
                "{file} holds at offset {offset} a record of kind {kind:02x}, which this build does not know: start the newer \
                 build"
            ),
            OpenError::OtherNode {
                directory,
                found,
                expected,
            } => write!(
                f,
                "the data directory {directory} belongs to node {}, not to node {}",
                found.0, expected.0
            ),
            OpenError::OtherCluster {
                directory,
                found,
                expected,
            } => write!(
                f,
                "the data directory {directory} belongs to cluster {found:?}, not to {expected:?}"
            ),
            OpenError::NoSnapshot {
                directory,
                needs,
                newest,
                damaged,
            } => {
                write!(
                    f,
                    "the log of {directory} begins behind a snapshot of slot {needs}, and "
                )?;
                match newest {
                    Some(newest) => write!(f, "the newest that is whole is of slot {newest}")?,
                    None => write!(f, "there is none that is whole")?,
                }
                damaged.iter().try_for_each(|damage| write!(f, "; {damage}"))
            }
            OpenError::StrayedSnapshot { file, cluster_id } => write!(
                f,
                "{file} is a snapshot of cluster {cluster_id:016x}, and nothing else in its directory is of that cluster: to \
                 begin a new cluster with it, make directories by `synod restore`; a node that lost the rest of its \
                 directory starts with an empty one (docs/operations.md, \"Losing a disk\")"
            ),
            OpenError::Damage(damage) => damage.fmt(f),
            OpenError::Missing { file, reason } => write!(f, "{file} is missing: {reason}"),
        }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StorageError::Failed(failure) => failure.fmt(f),
            StorageError::Broken => write!(f, "the log failed before and takes nothing more"),
            StorageError::Damage(damage) => write!(f, "{damage}; stop this node; then {NEXT_STEP}"),
            StorageError::TooLarge { bytes, bytes_max } => {
                write!(f, "a record of {bytes} bytes is over the log's {bytes_max}")
            }
            StorageError::Full { bytes, room } => {
                write!(f, "the disk is full: {bytes} bytes are to be logged, {room} are left")
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Failed(failure) => Some(&failure.source),
            OpenError::CannotWrite { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StorageError::Failed(failure) => Some(&failure.source),
            _ => None,
        }
    }
}

impl From<Failure> for OpenError {
    fn from(failure: Failure) -> OpenError {
        OpenError::Failed(failure)
    }
}

impl From<Damage> for OpenError {
    fn from(damage: Damage) -> OpenError {
        OpenError::Damage(damage)
    }
}

impl From<Failure> for StorageError {
    fn from(failure: Failure) -> StorageError {
        StorageError::Failed(failure)
    }
}

impl From<Damage> for StorageError {
    fn from(damage: Damage) -> StorageError {
        StorageError::Damage(damage)
    }
}

impl From<StorageError> for OpenError {
    /// What making the first segments or reading back can meet.
    fn from(error: StorageError) -> OpenError {
        match error {
            StorageError::Failed(failure) => OpenError::Failed(failure),
            StorageError::Damage(damage) => OpenError::Damage(damage),
            other => OpenError::Failed(Failure::new("use", "the log", io::Error::other(other))),
        }
    }
}
