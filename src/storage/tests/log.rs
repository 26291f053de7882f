//! The log in use: catch-up, the acceptor's restart, large turns, and a disk that fills up.

use super::super::segment::segment_name;
use super::super::sim::SimDisk;
use super::super::testing::{SEGMENT_BYTES, accepted, ballot, disk_with, entry, open, options};
use super::super::wal::AHEAD_SLICE_BYTES;
use super::super::{Files, Options, Storage, StorageError};
use crate::paxos::{Entry, Slot};
use crate::wire::Record;

fn learned(slot: u64, stamp: u64) -> Record {
    Record::Learned {
        slot: Slot(slot),
        entry: entry(stamp, 50),
    }
}

/// The stamps of entries, which tell them apart.
fn stamps(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.stamp.0).collect()
}

#[test]
fn chosen_entries_are_read_without_a_hole_and_within_the_bound() {
    let log: Vec<Vec<Record>> = (1..=20)
        .filter(|slot| *slot != 9)
        .map(|slot| vec![accepted(slot, 500)])
        .collect();
    let disk = disk_with(&log);
    let (mut storage, ..) = open(&disk).unwrap();
    let mut read = |first, last, bytes_max| stamps(&storage.read_chosen(Slot(first), Slot(last), bytes_max).unwrap());
    assert_eq!(read(1, 4, usize::MAX), [1, 2, 3, 4]);
    assert_eq!(read(3, 100, usize::MAX), [3, 4, 5, 6, 7, 8], "up to the hole");
    assert_eq!(read(10, 100, 1300), [10, 11], "within the bound");
    assert_eq!(read(10, 100, 1), [10], "at least one");
    assert_eq!(read(9, 100, usize::MAX), [0_u64; 0], "nothing from a hole on");
    assert_eq!(read(21, 100, usize::MAX), [0_u64; 0]);
}

#[test]
fn the_last_record_of_a_slot_is_the_one_that_is_handed_out() {
    let disk = disk_with(&[vec![accepted(1, 50), accepted(2, 50)], vec![learned(1, 77)]]);
    let (mut storage, ..) = open(&disk).unwrap();
    assert_eq!(stamps(&storage.read_chosen(Slot(1), Slot(2), 10_000).unwrap()), [77, 2]);
    storage.append(&[learned(2, 88)]).unwrap();
    storage.sync().unwrap();
    assert_eq!(
        stamps(&storage.read_chosen(Slot(1), Slot(2), 10_000).unwrap()),
        [77, 88]
    );
}

/// Found by the simulator (seed 4120319320): a node that had voted for an entry which was not chosen fetched a snapshot of
/// what came later, and handed its old vote out as chosen.
#[test]
fn below_a_fetched_snapshot_no_vote_is_handed_out_as_chosen() {
    let disk = disk_with(&[vec![accepted(1, 50), accepted(2, 50), accepted(3, 50)]]);
    let (mut storage, ..) = open(&disk).unwrap();
    storage
        .append(&[Record::Installed { slot: Slot(2) }, learned(4, 44)])
        .unwrap();
    storage.sync().unwrap();
    let read =
        |storage: &mut Storage<SimDisk>, first| stamps(&storage.read_chosen(Slot(first), Slot(9), 10_000).unwrap());
    assert_eq!((read(&mut storage, 2), read(&mut storage, 3)), (vec![], vec![3, 44]));
    drop(storage);
    let (mut storage, ..) = open(&disk).unwrap();
    assert_eq!(
        (read(&mut storage, 1), read(&mut storage, 3)),
        (vec![], vec![3, 44]),
        "nor after a start"
    );
}

#[test]
fn rot_is_found_when_an_entry_is_read_and_not_passed_on() {
    let disk = disk_with(&[vec![accepted(1, 500)], vec![accepted(2, 500)]]);
    let (mut storage, ..) = open(&disk).unwrap();
    disk.flip_bit(&segment_name(1), 4096 + 300, 0);
    match storage.read_chosen(Slot(1), Slot(2), 10_000) {
        Err(StorageError::Damage(damage)) => assert_eq!(damage.file, format!("sim/{}", segment_name(1))),
        other => panic!("{other:?}"),
    }
    assert!(storage.reread(true).is_err());
}

#[test]
fn the_whole_log_is_read_again_in_slices() {
    let log: Vec<Vec<Record>> = (1..=700)
        .map(|slot| vec![accepted(slot, 3500), Record::Promised(ballot(slot))])
        .collect();
    let disk = disk_with(&log);
    let (mut storage, ..) = open(&disk).unwrap();
    for _ in 0..2 {
        let (mut read, mut more) = storage.reread(true).unwrap();
        let mut slices = 1;
        while more {
            let slice;
            (slice, more) = storage.reread(false).unwrap();
            assert!(slice.len() < 700, "a slice is bounded");
            read.extend(slice);
            slices += 1;
        }
        assert_eq!(read, log.concat());
        assert!(slices >= 3, "2.4 MB in slices of 1 MiB, not {slices}");
    }
}

#[test]
fn a_log_of_nothing_is_read_again_as_nothing() {
    let (mut storage, ..) = open(&SimDisk::new(1)).unwrap();
    assert_eq!(storage.reread(true).unwrap(), (vec![], false));
    storage.append(&[]).unwrap();
    storage.sync().unwrap();
    assert_eq!(storage.reread(true).unwrap(), (vec![], false));
}

#[test]
fn a_turn_larger_than_a_segment_becomes_units_that_are_synced_one_by_one() {
    let disk = SimDisk::new(1);
    let (mut storage, ..) = open(&disk).unwrap();
    let records: Vec<Record> = (1..=30).map(|slot| accepted(slot, 1000)).collect();
    storage.append(&records).unwrap();
    storage.sync().unwrap();
    drop(storage);
    disk.crash();
    assert_eq!(open(&disk).unwrap().2, records);
}

#[test]
fn a_record_larger_than_a_segment_is_refused_and_nothing_is_written() {
    let (mut storage, ..) = open(&SimDisk::new(1)).unwrap();
    let too_large = storage.append(&[accepted(1, SEGMENT_BYTES as usize)]);
    assert!(matches!(too_large, Err(StorageError::TooLarge { .. })), "{too_large:?}");
    storage.append(&[accepted(1, 10)]).unwrap();
    storage.sync().unwrap();
}

#[test]
fn a_turn_is_one_write_and_one_sync() {
    let disk = SimDisk::new(1);
    let (mut storage, ..) = open(&disk).unwrap();
    let before = disk.changes();
    storage
        .append(&[accepted(1, 100), accepted(2, 100), Record::Promised(ballot(1))])
        .unwrap();
    storage.sync().unwrap();
    storage.sync().unwrap();
    assert_eq!(disk.changes() - before, 2);
}

#[test]
fn the_segment_ahead_is_made_before_it_is_needed() {
    let disk = SimDisk::new(1);
    let (mut storage, ..) = open(&disk).unwrap();
    assert_eq!(disk.list().unwrap(), ["IDENTITY", "wal-0000000001.log"]);
    storage.prepare_ahead().unwrap();
    assert_eq!(
        disk.list().unwrap(),
        ["IDENTITY", "wal-0000000001.log", "wal-0000000002.log"]
    );
    let before = disk.changes();
    storage.prepare_ahead().unwrap();
    assert_eq!(disk.changes(), before, "one is enough");
}

#[test]
fn a_large_segment_is_made_over_many_turns() {
    let options = Options {
        segment_bytes: 6 << 20,
        ..options()
    };
    let disk = SimDisk::new(1);
    let (mut storage, _) = Storage::open(disk.clone(), &options).unwrap();
    storage.recover(|_| {}).unwrap();
    assert_eq!(
        disk.contents(&segment_name(1)).unwrap().len(),
        4 << 20,
        "the first is no larger than it must be"
    );
    storage.prepare_ahead().unwrap();
    let begun = |disk: &SimDisk| disk.contents("wal-0000000002.log.tmp").map_or(0, |bytes| bytes.len());
    assert!((1..=AHEAD_SLICE_BYTES as usize).contains(&begun(&disk)));
    storage.prepare_ahead().unwrap();
    let idle = begun(&disk);
    storage.prepare_ahead().unwrap();
    assert_eq!(begun(&disk), idle, "nothing was appended, so nothing more is due");
    let mut appended = 0;
    while disk.contents(&segment_name(2)).is_none() {
        let before = begun(&disk);
        storage.append(&[accepted(appended + 1, 64 << 10)]).unwrap();
        storage.sync().unwrap();
        storage.prepare_ahead().unwrap();
        appended += 1;
        assert!(begun(&disk) <= before + AHEAD_SLICE_BYTES as usize, "a slice a turn");
    }
    assert!(
        (31..=33).contains(&appended),
        "there when the first is half full, 32 times 64 KiB, and not at {appended}"
    );
}

#[test]
fn a_full_disk_leaves_room_for_promises_and_is_used_again_when_it_has_space() {
    let disk = SimDisk::new(1);
    let (mut storage, ..) = open(&disk).unwrap();
    disk.set_capacity(u64::from(SEGMENT_BYTES) + 2000);
    storage.prepare_ahead().unwrap();
    let mut slot = 0;
    while storage.room_for(200).unwrap() {
        slot += 1;
        storage.append(&[accepted(slot, 100)]).unwrap();
        storage.sync().unwrap();
    }
    assert!(slot > 3, "only {slot} entries fit");
    assert!(storage.free_bytes().unwrap() < 200);
    for round in 1..=15 {
        storage.append(&[Record::Promised(ballot(round))]).unwrap();
        storage.sync().unwrap();
        storage.prepare_ahead().unwrap();
    }
    let full = storage.append(&[accepted(99, 3000)]).unwrap_err();
    assert!(matches!(full, StorageError::Full { .. }), "{full}");
    storage.append(&[Record::Promised(ballot(16))]).unwrap();
    storage.sync().unwrap();
    disk.set_capacity(1 << 20);
    for _ in 0..100 {
        storage.prepare_ahead().unwrap();
    }
    assert!(storage.room_for(200).unwrap(), "space came back");
    storage.append(&[accepted(slot + 1, 100)]).unwrap();
    storage.sync().unwrap();
    drop(storage);
    disk.crash();
    let (.., records) = open(&disk).unwrap();
    assert_eq!(records.len() as u64, slot + 16 + 1);
}
