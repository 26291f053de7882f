//! Backups: a snapshot's file outside of any data directory, proven to its last byte, and made the beginning of a new
//! cluster.
//!
//! A restored directory holds one snapshot and nothing else: that of no cluster (its cluster id is 0). The first start of
//! a node makes identity, incarnation and log anew and takes the snapshot's slot and digest for its base, which stands in
//! the roster (`rules.md` 1), so the new cluster has another id than the old one. Invariants:
//! * R1. The keys of a restored snapshot are those of the backup, with their revisions; revision, log time and slot go on
//!   from there. All nodes restored from one backup have the same bytes.
//! * R2. It holds no session. What a client of the old cluster still sends, however late, is refused as of another cluster
//!   or as of no living session, and never runs.
//!
//! Not here: how a backup comes from a running node (`cli::backup`), when nodes agree on a base (`machine::founding`).

use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use super::snapshot::{Header, SnapshotReader, SnapshotWriter, publish, temporary_name};
use crate::kv::snapshot::{Checker, Item};

/// What is written is synced in steps of this size.
const SYNC_BYTES: u64 = 8 << 20;

/// A backup that was read to its end and is what was written.
#[derive(Clone, Debug)]
pub struct Proven {
    /// Its header.
    pub header: Header,
    /// The header of what a new cluster begins with.
    beginning: Header,
}

/// Reads a backup to its end: every checksum, the order and number of its items, and the digest of its content (`rules.md`
/// 27). In the memory of one block.
///
/// # Errors
/// [`OpenError::Damage`], [`OpenError::NewerFormat`], [`OpenError::Failed`].
pub fn prove<F: File>(file: F, path: &str) -> Result<Proven, OpenError> {
    let mut reader = SnapshotReader::over(file, path)?;
    let header = reader.header().clone();
    let (mut all, mut keys) = (Checker::new(header.summary), Checker::new(header.summary));
    loop {
        let at = reader.at();
        let checked = match reader.next_block()? {
            Some(block) => block.for_each(|item| {
                let is_key = matches!(item, Item::Key { .. });
                let alone = if is_key { keys.add(&item) } else { Ok(()) };
                all.add(&item).and(alone).map_err(|error| error.to_string())
            }),
            None => {
                all.finish().map_err(|error| reader.damage(at, error.to_string()))?;
                let beginning = Header {
                    cluster_id: 0,
                    summary: keys.found(), // R2: without sessions
                    config: 0,
                    members: Vec::new(),
                };
                return Ok(Proven { header, beginning });
            }
        };
        checked.map_err(|what| reader.damage(at, what))?;
    }
}

/// A file that is whole, and another than it is said to be.
pub fn not_what_it_says(path: &str, what: String) -> OpenError {
    OpenError::Damage(Damage {
        file: path.to_owned(),
        offset: 0,
        kind: DamageKind::SnapshotHeader,
        what,
    })
}

/// Makes `files` the directory of a node of a new cluster, from a backup that was proven. The directory must be empty or
/// not be there.
///
/// # Errors
/// Any [`OpenError`]; the directory is not to be started then.
pub fn begin_cluster<F: File, Fs: Files>(file: F, path: &str, proven: &Proven, files: &Fs) -> Result<(), OpenError> {
    let directory = files.directory();
    let made = files.create_directory();
    made.map_err(|source| OpenError::CannotWrite { directory, source })?;
    let written = write_keys(file, path, proven, files);
    if written.is_err() {
        let half_made = temporary_name(proven.header.summary.slot);
        // A start would remove it as well.
        files.remove(&half_made).unwrap_or_default();
    }
    written
}

fn write_keys<F: File, Fs: Files>(file: F, path: &str, proven: &Proven, files: &Fs) -> Result<(), OpenError> {
    let mut reader = SnapshotReader::over(file, path)?;
    let mut writer = SnapshotWriter::begin(files, &proven.beginning)?;
    loop {
        let at = reader.at();
        let Some(block) = reader.next_block()? else { break };
        let mut failed: Option<Failure> = None;
        let given = block.for_each(|item| {
            if matches!(item, Item::Key { .. }) {
                writer.add(item.as_ref());
            }
            if writer.room() == 0
                && let Err(failure) = writer.write_block()
            {
                failed = Some(failure);
                return Err("it cannot be copied".into());
            }
            Ok(())
        });
        if let Some(failure) = failed {
            return Err(failure.into());
        }
        given.map_err(|what| reader.damage(at, what))?;
        if writer.unsynced() >= SYNC_BYTES {
            writer.sync()?;
        }
    }
    writer.finish()?;
    writer.sync()?;
    Ok(publish(files, writer.slot())?)
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::super::snapshot::{Loading, snapshot_name, tests::state, tests::write};
    use super::*;
    use crate::kv::State;
    use crate::paxos::Slot;

    fn proven(disk: &SimDisk, slot: Slot) -> Result<Proven, OpenError> {
        prove(disk.open(&snapshot_name(slot)).unwrap(), "out.snap")
    }

    fn restore(disk: &SimDisk, slot: Slot, target: &SimDisk) -> Result<(), OpenError> {
        let file = disk.open(&snapshot_name(slot)).unwrap();
        begin_cluster(file, "out.snap", &proven(disk, slot)?, target)
    }

    #[test]
    fn a_restored_directory_has_the_keys_and_no_session_and_is_of_no_cluster() {
        let (disk, target) = (SimDisk::new(1), SimDisk::new(2));
        let mut state = state(3000, 300);
        let slot = write(&disk, &mut state);
        restore(&disk, slot, &target).unwrap();
        target.crash();
        let loading = Loading::begin(&target, &snapshot_name(slot), State::new()).unwrap();
        let (header, restored) = loading.finish().unwrap();
        assert_eq!((header.cluster_id, header.summary.sessions), (0, 0));
        assert_eq!(restored.keys(), state.keys());
        assert_eq!(restored.digest(), state.digest(), "the base of the new cluster's log");
        assert_eq!(
            (restored.applied(), restored.revision(), restored.log_time()),
            (state.applied(), state.revision(), state.log_time())
        );
        assert_ne!(restored.content(), state.content(), "the session is gone");
        let again = SimDisk::new(3);
        restore(&disk, slot, &again).unwrap();
        let bytes = |disk: &SimDisk| disk.contents(&snapshot_name(slot));
        assert_eq!(bytes(&target), bytes(&again), "every node begins with the same bytes");
    }

    #[test]
    fn a_backup_with_any_flipped_bit_is_refused_by_name_and_makes_nothing() {
        let disk = SimDisk::new(1);
        let slot = write(&disk, &mut state(40, 100));
        let name = snapshot_name(slot);
        let length = disk.contents(&name).unwrap().len() as u64;
        for offset in 0..length {
            let bad = disk.fork();
            assert!(bad.flip_bit(&name, offset, (offset % 8) as u8));
            match proven(&bad, slot) {
                Err(OpenError::Damage(damage)) => assert_eq!(damage.file, "out.snap"),
                other => panic!("flipped at {offset}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_crash_at_any_step_of_a_restore_leaves_a_whole_snapshot_or_none() {
        let disk = SimDisk::new(1);
        let slot = write(&disk, &mut state(40, 100));
        for step in 1.. {
            let target = SimDisk::new(step);
            target.cut_power_after(step);
            let done = restore(&disk, slot, &target).is_ok();
            target.crash();
            if let Some(bytes) = target.contents(&snapshot_name(slot)) {
                assert!(
                    prove(target.open(&snapshot_name(slot)).unwrap(), "it").is_ok(),
                    "{} B",
                    bytes.len()
                );
            }
            if done {
                assert!(step > 4, "a restore takes some operations");
                return;
            }
        }
    }
}
