//! The disk: a write-ahead log and the identity of a data directory, over one narrow door to files.
//!
//! A data directory holds `LOCK`, `IDENTITY`, the segments `wal-0000000001.log` … of the log, snapshots
//! `snap-….snap`, and files that are being made (`*.tmp`). `protocol.md`, "On disk", has every byte. Invariants of the
//! room:
//! * What [`Storage::sync`] confirmed is read back by every later [`Storage::recover`], or the start is refused with
//!   the file, the place and the next step; never skipped.
//! * What was not confirmed is read back whole or not at all.
//! * After a failed write or sync nothing more is written: the process ends.
//!
//! How it is driven: [`Storage::open`], [`Storage::newest_snapshot`] and [`Storage::recover`] with every record into the
//! machine, [`Storage::check_reach`]; then in each turn [`Storage::append`], [`Storage::sync`], and behind all else
//! [`Storage::prepare_ahead`] and [`Storage::remove_next`].
//!
//! * [`files`]: the door, and the real disk. [`sim`]: a simulated one, which loses, tears and fails.
//! * [`identity`]: whose directory it is. [`mod@unit`]: what one turn appends. [`segment`]: the files of the log.
//! * [`wal`]: the log in use, and how it is truncated. `recovery`: the log read back. `reader`, `index`: helpers of both.
//! * [`snapshot`]: the state in a file. `shelf`: the snapshots of a directory. [`scrub`]: all of it read again, for rot.
//! * [`backup`]: snapshots outside of a directory, and the beginning of a new cluster.
//! * [`inspect`]: any of these files, shown as it is, damaged or not.

pub mod backup;
pub mod error;
pub mod files;
pub mod identity;
mod index;
pub mod inspect;
mod reader;
mod recovery;
pub mod scrub;
pub mod segment;
mod shelf;
pub mod sim;
pub mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod unit;
pub mod wal;

pub use error::{Damage, DamageKind, Failure, OpenError, StorageError};
pub use files::{Disk, File, Files};
pub use identity::Identity;
pub use shelf::Restart;
pub use wal::Wal;

use crate::paxos::{Entry, Incarnation, NodeId, Slot, Start};
use crate::wire::Record;
use fastrand::Rng;
use files::LockError;

/// Format of everything in a data directory. A newer one is refused by name; see the versioning rules of `protocol.md`.
/// 1: a log from its first segment on. 2: snapshots, and the records that truncation needs.
pub const DISK_FORMAT: u32 = 2;

/// What a data directory is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster_name: String,
    /// Size of new segments. At most a quarter of `snapshot_bytes`, else a truncated log would hold far more than it must.
    pub segment_bytes: u32,
    /// A snapshot is taken when the log has grown by so much since the last one.
    pub snapshot_bytes: u64,
    /// How fast its files are read again, for rot.
    pub scrub: scrub::Pace,
    /// Where tokens come from: random for a node, and drawn from its own seed in a simulation.
    pub seed: u64,
}

/// A data directory in use by this process alone.
#[derive(Debug)]
pub struct Storage<Fs: Files> {
    files: Fs,
    wal: Wal<Fs>,
    /// As it stands in the file.
    identity: Identity,
    _lock: Fs::Lock,
}

impl Options {
    /// The defaults; `seed` must be random, except in a simulation.
    pub fn new(node: NodeId, cluster_name: impl Into<String>, seed: u64) -> Options {
        Options {
            node,
            cluster_name: cluster_name.into(),
            segment_bytes: wal::SEGMENT_BYTES,
            snapshot_bytes: snapshot::SNAPSHOT_BYTES,
            scrub: scrub::Pace::default(),
            seed,
        }
    }
}

impl<Fs: Files> Storage<Fs> {
    /// Takes the directory for this process, makes what is not there, and notes a new start, synced. What it returns
    /// must be read back by [`Storage::recover`] before it is used.
    ///
    /// # Errors
    /// Any [`OpenError`]. A directory of another node, cluster or format is left as it was.
    pub fn open(files: Fs, options: &Options) -> Result<(Storage<Fs>, Identity), OpenError> {
        let lock = take_directory(&files)?;
        let mut rng = Rng::with_seed(options.seed);
        let identity = Identity::read(&files)?;
        if let Some(identity) = &identity {
            check_owner(&files, identity, options)?;
        }
        remove_temporary_files(&files)?;
        let mut identity = match identity {
            Some(identity) => identity,
            None => found_directory(&files, options, &mut rng)?,
        };
        let wal = Wal::open(files.clone(), identity.log_id, options.segment_bytes)?;
        identity.begin_start(rng.u64(..));
        // Its sync of the directory also covers the names that an earlier life may have made and not synced.
        identity.write(&files)?;
        let storage = Storage {
            files,
            wal,
            identity: identity.clone(),
            _lock: lock,
        };
        Ok((storage, identity))
    }

    /// Reads the log back: hands every record to `give`, in order, in bounded memory. All of it is on disk then.
    ///
    /// # Errors
    /// [`OpenError::Damage`]; nothing that was handed on may be acted on then.
    pub fn recover(&mut self, mut give: impl FnMut(Record)) -> Result<(), OpenError> {
        self.wal.recover(Slot::ZERO, &mut give).map(|_| ())
    }

    /// As [`Storage::recover`], over a snapshot of slot `covered`, which stands for entries up to there: damage of such a
    /// body is outlived, and returned. Of an entry accepted, what that promised is handed on in its place.
    ///
    /// # Errors
    /// As [`Storage::recover`].
    pub fn recover_over(&mut self, covered: Slot, mut give: impl FnMut(Record)) -> Result<Vec<Damage>, OpenError> {
        self.wal.recover(covered, &mut give)
    }

    /// The directory's files.
    pub fn files(&self) -> &Fs {
        &self.files
    }

    /// The log, to look at.
    pub fn wal(&self) -> &Wal<Fs> {
        &self.wal
    }

    /// See [`Wal::remove_next`].
    ///
    /// # Errors
    /// See [`Wal::remove_next`].
    pub fn remove_next(&mut self) -> Result<Option<bool>, StorageError> {
        self.wal.remove_next()
    }

    /// See [`Wal::keep_spares`].
    pub fn keep_spares(&mut self, bytes_max: u64) {
        self.wal.keep_spares(bytes_max);
    }

    /// See [`Wal::drop_spare`].
    ///
    /// # Errors
    /// See [`Wal::drop_spare`].
    pub fn drop_spare(&mut self, bytes_max: u64) -> Result<(), StorageError> {
        self.wal.drop_spare(bytes_max)
    }

    /// See [`Wal::leave_segments`].
    pub fn leave_segments(&mut self, upto: u32) -> bool {
        self.wal.leave_segments(upto)
    }

    /// See [`Wal::append`].
    ///
    /// # Errors
    /// See [`Wal::append`].
    pub fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        self.wal.append(records)
    }

    /// See [`Wal::sync`].
    ///
    /// # Errors
    /// See [`Wal::sync`].
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.wal.sync()
    }

    /// See [`Wal::prepare_ahead`].
    ///
    /// # Errors
    /// See [`Wal::prepare_ahead`].
    pub fn prepare_ahead(&mut self) -> Result<(), StorageError> {
        self.wal.prepare_ahead()
    }

    /// See [`Wal::room_for`].
    ///
    /// # Errors
    /// See [`Wal::room_for`].
    pub fn room_for(&mut self, bytes: usize) -> Result<bool, StorageError> {
        self.wal.room_for(bytes)
    }

    /// See [`Wal::free_bytes`].
    ///
    /// # Errors
    /// See [`Wal::free_bytes`].
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        self.wal.free_bytes()
    }

    /// See [`Wal::sure_bytes`].
    pub fn sure_bytes(&self) -> u64 {
        self.wal.sure_bytes()
    }

    /// See [`Wal::read_chosen`].
    ///
    /// # Errors
    /// See [`Wal::read_chosen`].
    pub fn read_chosen(&mut self, first: Slot, last: Slot, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        self.wal.read_chosen(first, last, bytes_max)
    }

    /// See [`Wal::reread`].
    ///
    /// # Errors
    /// See [`Wal::reread`].
    pub fn reread(&mut self, restart: bool) -> Result<(Vec<Record>, bool), StorageError> {
        self.wal.reread(restart)
    }
}

/// The end of the names of files that were found damaged, and were set aside: for whoever wants to look at them.
pub const DAMAGED_SUFFIX: &str = ".damaged";

/// Sets a log aside that cannot be read back, and begins a new one in its place that says no more than that this node's
/// memory is lost. Snapshots stay: what was chosen stays so, whoever forgets what it voted.
///
/// A crash at any moment leaves a directory whose log is not its own, or missing; so it is set aside again, and the log
/// of which `IDENTITY` speaks never lacks that record.
///
/// # Errors
/// Any [`OpenError`]; [`OpenError::Missing`] if nobody can tell whose directory it is.
pub fn set_log_aside<Fs: Files>(files: &Fs, options: &Options) -> Result<(), OpenError> {
    let _lock = take_directory(files)?;
    let Some(mut identity) = Identity::read(files)? else {
        let reason = "nobody can tell whose directory it is".into();
        let file = files.path(identity::IDENTITY_NAME);
        return Err(OpenError::Missing { file, reason });
    };
    check_owner(files, &identity, options)?;
    remove_temporary_files(files)?;
    for name in names(files)? {
        if segment::segment_of(&name).is_some() {
            let renamed = files.rename(&name, &format!("{name}{DAMAGED_SUFFIX}"));
            renamed.map_err(|source| Failure::new("rename", files.path(&name), source))?;
        }
    }
    let synced = files.sync_directory();
    synced.map_err(|source| Failure::new("sync", files.directory(), source))?;
    let mut rng = Rng::with_seed(options.seed);
    identity.log_id = rng.u64(..);
    identity.write(files)?;
    // No start has this counter: it says that no peer had to tell.
    let mark = Record::Peer {
        node: identity.node,
        incarnation: identity.incarnation,
        start: Start::default(),
    };
    Wal::create(files, identity.log_id, options.segment_bytes, &[mark])
}

fn take_directory<Fs: Files>(files: &Fs) -> Result<Fs::Lock, OpenError> {
    let directory = files.directory();
    if let Err(source) = files.create_directory() {
        return Err(OpenError::CannotWrite { directory, source });
    }
    match files.lock() {
        Ok(lock) => Ok(lock),
        Err(LockError::Held(pid)) => Err(OpenError::Locked { directory, pid }),
        Err(LockError::Io(source)) => Err(OpenError::CannotWrite { directory, source }),
    }
}

fn check_owner<Fs: Files>(files: &Fs, identity: &Identity, options: &Options) -> Result<(), OpenError> {
    let directory = files.directory();
    if identity.cluster_name != options.cluster_name {
        let (found, expected) = (identity.cluster_name.clone(), options.cluster_name.clone());
        return Err(OpenError::OtherCluster {
            directory,
            found,
            expected,
        });
    }
    if identity.node != options.node {
        let (found, expected) = (identity.node, options.node);
        return Err(OpenError::OtherNode {
            directory,
            found,
            expected,
        });
    }
    Ok(())
}

/// What a crash left half made. None of it was in use.
fn remove_temporary_files<Fs: Files>(files: &Fs) -> Result<(), Failure> {
    let mut has_removed = false;
    for name in names(files)? {
        let Some(base) = name.strip_suffix(segment::TEMPORARY_SUFFIX) else {
            continue;
        };
        let is_ours = base == identity::IDENTITY_NAME
            || segment::segment_of(base).is_some()
            || snapshot::snapshot_of(base).is_some();
        if is_ours {
            files
                .remove(&name)
                .map_err(|source| Failure::new("remove", files.path(&name), source))?;
            has_removed = true;
        }
    }
    if has_removed {
        files
            .sync_directory()
            .map_err(|source| Failure::new("sync", files.directory(), source))?;
    }
    Ok(())
}

/// Makes a new directory's log, and its identity in memory, which [`Storage::open`] writes with the first start. The log
/// comes first, so an identity without a log is a log that was lost, and is refused (by [`Wal::open`]).
fn found_directory<Fs: Files>(files: &Fs, options: &Options, rng: &mut Rng) -> Result<Identity, OpenError> {
    let log: Vec<String> = names(files)?
        .into_iter()
        .filter(|name| segment::segment_of(name).is_some())
        .collect();
    for name in log {
        if !is_unused(files, &name)? {
            let reason = format!("{name} is there, and in use");
            let file = files.path(identity::IDENTITY_NAME);
            return Err(OpenError::Missing { file, reason });
        }
        // The founding of this directory was interrupted before its identity was durable.
        files
            .remove(&name)
            .map_err(|source| Failure::new("remove", files.path(&name), source))?;
    }
    let identity = Identity {
        node: options.node,
        cluster_name: options.cluster_name.clone(),
        incarnation: Incarnation {
            generation: 1,
            token: rng.u64(..),
        },
        log_id: rng.u64(..),
        starts: Vec::new(),
    };
    Wal::create(files, identity.log_id, options.segment_bytes, &[])?;
    Ok(identity)
}

/// Whether a segment holds nothing behind its header.
fn is_unused<Fs: Files>(files: &Fs, name: &str) -> Result<bool, Failure> {
    let failed = |source| Failure::new("read", files.path(name), source);
    let file = files.open(name).map_err(failed)?;
    let length = file.length().map_err(failed)?;
    let mut slice = vec![0; reader::SLICE_BYTES];
    let mut at = u64::from(segment::UNITS_BEGIN);
    while at < length {
        let count = (length - at).min(slice.len() as u64) as usize;
        file.read_exact_at(&mut slice[..count], at).map_err(failed)?;
        if slice[..count].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

fn names<Fs: Files>(files: &Fs) -> Result<Vec<String>, Failure> {
    files
        .list()
        .map_err(|source| Failure::new("list", files.directory(), source))
}
