//! The scrub finds all that rots in what was synced, names it, and takes nothing else for damage.

use super::super::scrub::{Finding, Place, SLICE_BYTES, Scrub};
use super::super::segment::{UNITS_BEGIN, segment_name};
use super::super::sim::{Fault, Op, SimDisk};
use super::super::testing::{SEGMENT_BYTES, accepted, ballot, disk_with, open};
use super::super::unit::UNIT_HEADER_BYTES;
use super::super::{DamageKind, Files, Storage};
use super::damage::{log, units};
use crate::paxos::Slot;
use crate::wire::Record;

/// One pass in slices of so many bytes: all that it finds, and how many bytes it read.
fn pass(storage: &Storage<SimDisk>, slice_bytes: usize) -> (Vec<Finding>, u64) {
    let (mut scrub, mut findings, mut bytes) = (Scrub::begin(), Vec::new(), 0);
    for _ in 0..10_000 {
        let step = storage.scrub(&mut scrub, &[], slice_bytes).unwrap();
        bytes += step.bytes;
        findings.extend(step.found);
        if step.is_done {
            return (findings, bytes);
        }
    }
    panic!("a pass that does not end");
}

#[test]
fn a_log_that_is_well_is_read_once_in_slices_of_any_size_and_nothing_is_found() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    for slice_bytes in [1, 5000, SLICE_BYTES, usize::MAX] {
        let (findings, bytes) = pass(&storage, slice_bytes);
        assert_eq!(findings, [], "slices of {slice_bytes}");
        assert!(
            bytes < 4 * u64::from(SEGMENT_BYTES),
            "{bytes} bytes read of three segments"
        );
    }
}

#[test]
fn a_flipped_bit_anywhere_in_what_was_synced_is_found_with_its_file_and_place() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    for (segment, range) in units(&disk) {
        let name = segment_name(segment);
        for offset in range.clone() {
            disk.flip_bit(&name, offset.into(), (offset % 8) as u8);
            let (findings, _) = pass(&storage, SLICE_BYTES);
            assert_eq!(findings.len(), 1, "bit in {offset} of {name}: {findings:?}");
            let Finding { place, damage } = &findings[0];
            assert_eq!(damage.file, format!("sim/{name}"));
            assert_eq!(*place, Place::Segment(segment));
            let named = damage.offset as u32;
            assert!(
                (range.start..=offset).contains(&named),
                "bit in {offset}, named {named}, unit {range:?}"
            );
            let is_header = offset < range.start + UNIT_HEADER_BYTES as u32;
            assert_eq!(
                damage.kind == DamageKind::UnitHeader,
                is_header,
                "bit in {offset}: {damage}"
            );
            disk.flip_bit(&name, offset.into(), (offset % 8) as u8);
        }
    }
    assert_eq!(pass(&storage, SLICE_BYTES).0, []);
}

#[test]
fn the_pass_goes_on_behind_damage_and_finds_the_next() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    let units = units(&disk);
    // The last byte of each unit is of a body.
    for (segment, range) in &units {
        disk.flip_bit(&segment_name(*segment), u64::from(range.end) - 1, 0);
    }
    disk.flip_bit(&segment_name(2), 9, 0); // and then nothing of this segment can be believed
    let (findings, _) = pass(&storage, SLICE_BYTES);
    let found: Vec<(Place, DamageKind)> = findings.iter().map(|found| (found.place, found.damage.kind)).collect();
    let body = |segment| (Place::Segment(segment), DamageKind::RecordBody);
    let header = (Place::Segment(2), DamageKind::SegmentHeader);
    // The third unit ends in a CHOSEN_UPTO.
    assert_eq!(found, [body(1), body(1), header, body(3), body(3)]);
}

#[test]
fn a_proven_unit_that_is_zeros_is_damage_and_rot_behind_the_last_of_a_full_segment_is_none() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    let units = units(&disk);
    for (segment, range) in &units {
        let name = segment_name(*segment);
        let before = disk.contents(&name).unwrap();
        disk.overwrite(&name, range.start.into(), &vec![0; range.len()]);
        let (findings, _) = pass(&storage, SLICE_BYTES);
        assert_eq!(findings.len(), 1, "{range:?} of {name} lost: {findings:?}");
        assert_eq!(findings[0].damage.kind, DamageKind::UnitHeader);
        disk.overwrite(&name, 0, &before);
    }
    let (segment, end) = (1, units[1].1.end);
    disk.flip_bit(&segment_name(segment), u64::from(end) + 50, 3);
    disk.flip_bit(&segment_name(segment), u64::from(UNITS_BEGIN) - 50, 3);
    assert_eq!(pass(&storage, SLICE_BYTES).0, []);
}

#[test]
fn what_the_disk_does_not_give_is_damage_and_no_reason_to_end() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    disk.fail(Op::Read, 2, Fault::Io); // behind the segment's header
    let (findings, _) = pass(&storage, SLICE_BYTES);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(
        (findings[0].place, findings[0].damage.kind),
        (Place::Segment(1), DamageKind::Unreadable)
    );
}

fn lose_two_segments(storage: &mut Storage<SimDisk>) {
    let checkpoint = Record::Checkpoint {
        segment: 3,
        slot: Slot(5),
        promised: ballot(3),
        used: ballot(4),
        chosen_upto: Slot(5),
    };
    storage.append(&[checkpoint]).unwrap();
    storage.sync().unwrap();
    while storage.remove_next().unwrap() == Some(false) {}
}

#[test]
fn a_segment_that_was_found_damaged_is_not_written_over_and_others_are() {
    let disk = disk_with(&log());
    let (mut storage, ..) = open(&disk).unwrap();
    storage.keep_spares(u64::MAX);
    storage.leave_segments(1);
    lose_two_segments(&mut storage);
    assert!(storage.wal().has_spares_to_drop(), "the damaged one goes");
    storage.drop_spare(u64::MAX).unwrap();
    assert!(!storage.wal().has_spares_to_drop(), "the other stays, and is spare");
    let mut left = disk.list().unwrap();
    left.retain(|name| name.ends_with(".tmp"));
    assert_eq!(left, ["wal-0000000002.log.tmp"]);
}

#[test]
fn segments_that_come_and_go_under_a_pass_are_no_damage() {
    let disk = disk_with(&log());
    let (mut storage, ..) = open(&disk).unwrap();
    let mut scrub = Scrub::begin();
    storage.scrub(&mut scrub, &[], 4096).unwrap();
    lose_two_segments(&mut storage);
    for slot in 9..20 {
        storage.append(&[accepted(slot, 1500)]).unwrap();
        storage.sync().unwrap();
        let step = storage.scrub(&mut scrub, &[], 4096).unwrap();
        assert_eq!(step.found, None);
        if step.is_done {
            return;
        }
    }
    assert_eq!(pass(&storage, SLICE_BYTES).0, []);
}

#[test]
fn an_identity_that_rots_is_found_and_written_again() {
    let disk = disk_with(&log());
    let (storage, ..) = open(&disk).unwrap();
    disk.flip_bit("IDENTITY", 20, 1);
    let (findings, _) = pass(&storage, SLICE_BYTES);
    assert_eq!((findings.len(), findings[0].place), (1, Place::Identity));
    storage.write_identity_again().unwrap();
    assert_eq!(pass(&storage, SLICE_BYTES).0, []);
}
