//! Crashes between any two file operations, failed operations, and what is left of each.

use super::super::sim::{Fault, Op, SimDisk};
use super::super::testing::{accepted, ballot, open};
use super::super::{Storage, StorageError};
use crate::paxos::Start;
use crate::wire::Record;
use fastrand::Rng;

/// What must be on the disk.
#[derive(Default)]
struct Model {
    /// Confirmed by a sync, or by an earlier reading back.
    synced: Vec<Record>,
    /// Appended as one unit and not confirmed: all of it may be there, or nothing.
    pending: Vec<Record>,
    /// Starts that were handed out.
    starts: Vec<Start>,
}

impl Model {
    /// One life of a process: opens, checks, works until something fails. True if it worked to the end.
    fn live(&mut self, disk: &SimDisk, rng: &mut Rng) -> bool {
        let Ok((mut storage, identity, records)) = open(disk) else {
            // A power cut may be the only reason: whatever crashes leave, the next start understands.
            assert!(
                disk.is_cut(),
                "an undamaged directory is refused: {:?}",
                open(disk).err()
            );
            return false;
        };
        assert!(
            self.starts.iter().all(|start| identity.past_starts().contains(start)),
            "a start was forgotten"
        );
        assert!(!self.starts.contains(&identity.start()), "a start was handed out twice");
        self.starts.push(identity.start());
        let with_pending = [self.synced.as_slice(), &self.pending].concat();
        assert!(
            records == self.synced || records == with_pending,
            "{} records came back, {} were synced and {} pending",
            records.len(),
            self.synced.len(),
            self.pending.len()
        );
        self.synced = records;
        self.pending.clear();
        self.work(&mut storage, rng).is_ok()
    }

    fn work(&mut self, storage: &mut Storage<SimDisk>, rng: &mut Rng) -> Result<(), StorageError> {
        for _ in 0..8 {
            let next = self.synced.len() as u64;
            self.pending = (0..rng.u64(1..4)).map(|n| random_record(next + n + 1, rng)).collect();
            storage.append(&self.pending)?;
            storage.sync()?;
            self.synced.append(&mut self.pending);
            storage.prepare_ahead()?;
        }
        Ok(())
    }
}

fn random_record(number: u64, rng: &mut Rng) -> Record {
    match rng.u8(0..4) {
        0 => Record::Promised(ballot(number)),
        1 => accepted(number, rng.usize(0..40)),
        _ => accepted(number, rng.usize(0..900)),
    }
}

/// Three lives: the first is cut at `first`, the second, reading back included, at `second`, the third is whole.
fn three_lives(seed: u64, first: u64, second: u64) -> bool {
    let disk = SimDisk::new(seed);
    let mut rng = Rng::with_seed(seed);
    let mut model = Model::default();
    disk.cut_power_after(first);
    let was_whole = model.live(&disk, &mut rng);
    disk.crash();
    disk.cut_power_after(second);
    model.live(&disk, &mut rng);
    if rng.bool() {
        disk.crash()
    } else {
        disk.kill()
    }
    assert!(model.live(&disk, &mut rng), "nothing stops the third life");
    was_whole
}

#[test]
fn a_crash_at_any_file_operation_loses_nothing_synced_and_invents_nothing() {
    let mut step = 1;
    loop {
        let mut all_whole = true;
        for round in 0..6 {
            let seed = step * 1000 + round;
            println!("seed {seed}: first cut {step}, second cut {}", 1 + seed % 23);
            all_whole &= three_lives(seed, step, 1 + seed % 23);
        }
        if all_whole {
            break;
        }
        step += 1;
    }
    assert!(
        step > 40,
        "the crash points of a life were all tried, but there were only {step}"
    );
}

#[test]
fn a_failed_write_or_sync_is_final_and_nothing_is_written_after_it() {
    for fault in [
        (Op::Write, Fault::Io),
        (Op::Write, Fault::NoSpace),
        (Op::Sync, Fault::Io),
    ] {
        let disk = SimDisk::new(3);
        let (mut storage, ..) = open(&disk).unwrap();
        storage.append(&[accepted(1, 10)]).unwrap();
        storage.sync().unwrap();
        disk.fail(fault.0, 1, fault.1);
        let failed = storage.append(&[accepted(2, 10)]).and_then(|()| storage.sync());
        let error = failed.unwrap_err();
        assert!(matches!(error, StorageError::Failed(_)), "{fault:?}: {error}");
        assert!(
            error.to_string().contains("sim/wal-0000000001.log"),
            "{fault:?}: {error}"
        );
        let changes = disk.changes();
        assert!(matches!(storage.append(&[accepted(3, 10)]), Err(StorageError::Broken)));
        assert!(matches!(storage.sync(), Err(StorageError::Broken)));
        assert!(matches!(storage.prepare_ahead(), Err(StorageError::Broken)));
        assert_eq!(
            disk.changes(),
            changes,
            "{fault:?}: something was written after the failure"
        );
        assert_eq!(disk.fired()[&fault], 1);
    }
}

#[test]
fn what_is_read_back_after_a_failed_sync_is_on_disk_before_it_is_acted_on() {
    let mut came_back = 0;
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let (mut storage, ..) = open(&disk).unwrap();
        storage.append(&[accepted(1, 3000)]).unwrap();
        disk.fail(Op::Sync, 1, Fault::Io);
        assert!(storage.sync().is_err());
        drop(storage);
        disk.kill(); // the page cache shows the unit whole, and the kernel thinks that it is clean
        let (_, _, seen) = open(&disk).unwrap();
        came_back += seen.len();
        disk.crash();
        let (_, _, after) = open(&disk).unwrap();
        assert_eq!(after, seen, "seed {seed}: the node acted on what was not on disk");
    }
    assert!(came_back > 0, "the case that this test is about happened");
}

#[test]
fn short_and_interrupted_writes_leave_whole_units() {
    let disk = SimDisk::new(9);
    let (mut storage, ..) = open(&disk).unwrap();
    let mut written = Vec::new();
    for slot in 1..10 {
        disk.fail(Op::Write, 1, Fault::Short);
        disk.fail(Op::Write, 2, Fault::Interrupted);
        written.push(accepted(slot, 300));
        storage.append(&written[written.len() - 1..]).unwrap();
        storage.sync().unwrap();
    }
    drop(storage);
    disk.crash();
    assert_eq!(open(&disk).unwrap().2, written);
}

#[test]
fn a_failure_while_reading_back_is_told_and_changes_nothing() {
    let disk = SimDisk::new(9);
    let (mut storage, ..) = open(&disk).unwrap();
    storage.append(&[accepted(1, 300)]).unwrap();
    storage.sync().unwrap();
    drop(storage);
    for nth in 1..6 {
        let copy = disk.fork();
        copy.fail(Op::Read, nth, Fault::Io);
        let error = open(&copy).unwrap_err().to_string();
        assert!(error.contains("cannot read sim/"), "read {nth}: {error}");
    }
}
