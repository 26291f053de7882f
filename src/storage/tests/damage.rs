//! Torn tails and damage, and that they are told from each other.

use super::super::segment::{UNITS_BEGIN, segment_name};
use super::super::sim::{SECTOR_BYTES, SimDisk};
use super::super::testing::{SEGMENT_BYTES, accepted, ballot, disk_with, make_newer, open, options};
use super::super::unit::{Position, UNIT_HEADER_BYTES, UnitHeader};
use super::super::{Damage, DamageKind, OpenError, Storage, set_log_aside};
use crate::paxos::{NodeId, Slot, Start};
use crate::wire::Record;
use std::ops::Range;

/// The places of all units, found as a reader would find them: one behind the other, or first in the next segment.
pub(super) fn units(disk: &SimDisk) -> Vec<(u32, Range<u32>)> {
    let mut units = Vec::new();
    let mut at = Position {
        segment: 1,
        offset: UNITS_BEGIN,
    };
    while let Some(bytes) = disk.contents(&segment_name(at.segment)) {
        let rest = &bytes[at.offset as usize..];
        if rest.len() < UNIT_HEADER_BYTES || rest[0] == 0 {
            at.segment += 1;
            at.offset = UNITS_BEGIN;
            continue;
        }
        let length = u32::from_be_bytes(rest[12..16].try_into().unwrap());
        let end = at.offset + UNIT_HEADER_BYTES as u32 + length;
        units.push((at.segment, at.offset..end));
        at.offset = end;
    }
    units
}

/// Six units over three segments.
pub(super) fn log() -> Vec<Vec<Record>> {
    vec![
        vec![Record::Promised(ballot(3)), accepted(1, 1200)],
        vec![accepted(2, 1500)],
        vec![accepted(3, 1500), accepted(4, 700), Record::ChosenUpto(Slot(2))],
        vec![accepted(5, 900)],
        vec![accepted(6, 1500), accepted(7, 1500)],
        vec![Record::Used(ballot(4)), accepted(8, 600)],
    ]
}

fn refusal(disk: &SimDisk) -> Damage {
    match open(disk) {
        Err(OpenError::Damage(damage)) => damage,
        Err(other) => panic!("refused otherwise: {other}"),
        Ok((.., records)) => panic!("accepted, with {} records", records.len()),
    }
}

#[test]
fn the_test_log_spreads_over_three_segments() {
    let units = units(&disk_with(&log()));
    assert_eq!(
        units.iter().map(|(segment, _)| *segment).collect::<Vec<_>>(),
        [1, 1, 2, 2, 3, 3]
    );
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_unit_is_cut_off_and_the_log_goes_on() {
    let disk = disk_with(&log());
    let (segment, last) = units(&disk).pop().unwrap();
    let name = segment_name(segment);
    let whole = disk.contents(&name).unwrap();
    let kept: Vec<Record> = log()[..5].concat();
    for cut in last.clone() {
        for torn in [cut..last.end, last.start..cut] {
            let torn = torn.start as usize..torn.end as usize;
            let copy = disk.fork();
            copy.overwrite(&name, torn.start as u64, &vec![0; torn.len()]);
            let is_whole = copy.contents(&name).unwrap() == whole;
            let (mut storage, _, mut records) = open(&copy).unwrap();
            let expected = if is_whole { log().concat() } else { kept.clone() };
            assert_eq!(records, expected, "zeros in {torn:?} of {last:?}");
            let crashed = copy.fork();
            crashed.crash();
            let left = &crashed.contents(&name).unwrap()[last.start as usize..];
            assert!(
                is_whole || left.iter().all(|&byte| byte == 0),
                "nothing of a torn unit is left to be misread"
            );
            storage.append(&[accepted(9, 20)]).unwrap();
            storage.sync().unwrap();
            drop(storage);
            copy.crash();
            records.push(accepted(9, 20));
            assert_eq!(
                open(&copy).unwrap().2,
                records,
                "what is appended behind the cut is read back"
            );
        }
    }
}

#[test]
fn a_torn_tail_in_a_new_segment_is_cut_off_too() {
    let mut log = log();
    log.truncate(5);
    let disk = disk_with(&log);
    let (segment, last) = units(&disk).pop().unwrap();
    assert_eq!((segment, last.start), (3, UNITS_BEGIN));
    for sector in (last.start as usize..last.end as usize).step_by(SECTOR_BYTES) {
        let copy = disk.fork();
        copy.overwrite(&segment_name(3), sector as u64, &[0; SECTOR_BYTES]);
        let (mut storage, _, records) = open(&copy).unwrap();
        assert_eq!(records, log[..4].concat(), "sector at {sector} lost");
        // The next unit fits the rest of segment 2, and segment 3 is the one ahead again.
        storage.append(&[accepted(6, 10)]).unwrap();
        storage.append(&[accepted(7, 2000)]).unwrap();
        storage.sync().unwrap();
        drop(storage);
        let expected = [log[..4].concat(), vec![accepted(6, 10), accepted(7, 2000)]].concat();
        assert_eq!(open(&copy).unwrap().2, expected);
    }
}

#[test]
fn a_flipped_bit_anywhere_before_the_last_unit_is_refused_with_file_and_offset() {
    let disk = disk_with(&log());
    let mut units = units(&disk);
    units.pop();
    for (segment, range) in units {
        let name = segment_name(segment);
        for offset in range.clone() {
            let copy = disk.fork();
            copy.flip_bit(&name, offset.into(), (offset % 8) as u8);
            let damage = refusal(&copy);
            assert_eq!(damage.file, format!("sim/{name}"), "bit in {offset}");
            let named = damage.offset as u32;
            assert!(
                (range.start..=offset).contains(&named),
                "bit in {offset}, named {named}, unit {range:?}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_a_segment_header_is_refused() {
    let disk = disk_with(&log());
    for segment in 1..=3 {
        for offset in 0..36 {
            let copy = disk.fork();
            copy.flip_bit(&segment_name(segment), offset, 0);
            let damage = refusal(&copy);
            assert_eq!(
                (damage.file, damage.offset),
                (format!("sim/{}", segment_name(segment)), 0)
            );
        }
    }
}

#[test]
fn a_flipped_bit_in_the_last_unit_never_yields_another_record() {
    let disk = disk_with(&log());
    let (segment, last) = units(&disk).pop().unwrap();
    for offset in last {
        let copy = disk.fork();
        copy.flip_bit(&segment_name(segment), offset.into(), (offset % 8) as u8);
        let (.., records) = open(&copy).unwrap();
        assert_eq!(records, log()[..5].concat(), "bit in {offset}");
    }
}

#[test]
fn a_proven_unit_that_is_zeros_is_damage_and_not_the_end_of_the_log() {
    let disk = disk_with(&log());
    let mut units = units(&disk);
    units.pop();
    for (segment, range) in units {
        let copy = disk.fork();
        copy.overwrite(&segment_name(segment), range.start.into(), &vec![0; range.len()]);
        let damage = refusal(&copy);
        assert!(damage.what.contains("says that the log was synced up to"), "{damage}");
        // Its place is named, or, where it began a segment, the end of the one before.
        assert!(
            damage.offset <= range.start.into() || damage.file.contains(&segment_name(segment - 1)),
            "{damage}"
        );
    }
}

#[test]
fn whole_segments_that_are_zeros_are_damage() {
    let disk = disk_with(&log());
    for zeroed in [vec![1], vec![2], vec![1, 2]] {
        let copy = disk.fork();
        for &segment in &zeroed {
            let zeros = vec![0; (SEGMENT_BYTES - UNITS_BEGIN) as usize];
            copy.overwrite(&segment_name(segment), UNITS_BEGIN.into(), &zeros);
        }
        let damage = refusal(&copy);
        assert!(
            damage.what.contains("says that the log was synced up to"),
            "{zeroed:?}: {damage}"
        );
    }
}

#[test]
fn damage_in_a_unit_with_a_good_header_is_not_taken_for_a_tear_if_anything_follows() {
    // The unit before the last is damaged in its body, and the last is torn so that its header is lost.
    let disk = disk_with(&log());
    let units = units(&disk);
    let ((segment, damaged), (_, last)) = (&units[4], &units[5]);
    let name = segment_name(*segment);
    disk.flip_bit(&name, u64::from(damaged.end - 10), 0);
    disk.overwrite(&name, last.start.into(), &[0; UNIT_HEADER_BYTES]);
    let damage = refusal(&disk);
    assert!(damage.what.contains("more stands behind it"), "{damage}");
    assert!(
        (damaged.start.into()..damaged.end.into()).contains(&damage.offset),
        "{damage}"
    );
}

#[test]
fn an_old_record_in_a_reused_place_never_reads_as_valid() {
    // Units of equal length: only position and order tell them apart.
    let log: Vec<Vec<Record>> = (1..=3).map(|slot| vec![accepted(slot, 100)]).collect();
    let disk = disk_with(&log);
    let units = units(&disk);
    let name = segment_name(1);
    let bytes = disk.contents(&name).unwrap();
    let piece = |range: &Range<u32>| bytes[range.start as usize..range.end as usize].to_vec();
    let body = |range: &Range<u32>| range.end - 100..range.end;
    let copy_over = |from: &Range<u32>, to: &Range<u32>| {
        let copy = disk.fork();
        copy.overwrite(&name, to.start.into(), &piece(from));
        copy
    };
    let (first, second, last) = (&units[0].1, &units[1].1, &units[2].1);
    refusal(&copy_over(first, second));
    refusal(&copy_over(&body(first), &body(second)));
    for copy in [copy_over(first, last), copy_over(&body(first), &body(last))] {
        assert_eq!(
            open(&copy).unwrap().2,
            log[..2].concat(),
            "in the last unit it is a torn tail"
        );
    }
}

#[test]
fn a_segment_of_another_place_size_or_directory_is_refused() {
    let disk = disk_with(&log());
    let copy = disk.fork();
    copy.overwrite(&segment_name(2), 0, &disk.contents(&segment_name(1)).unwrap());
    assert!(refusal(&copy).what.contains("segment 1"));
    let copy = disk.fork();
    use super::super::{File, Files};
    copy.open(&segment_name(2)).unwrap().truncate(5000).unwrap();
    assert!(refusal(&copy).what.contains("5000 bytes long"));
    copy.open(&segment_name(2)).unwrap().truncate(3).unwrap();
    assert!(refusal(&copy).what.contains("too short"));
}

#[test]
fn a_missing_segment_is_named() {
    let disk = disk_with(&log());
    use super::super::Files;
    for missing in 1..=2 {
        let copy = disk.fork();
        copy.remove(&segment_name(missing)).unwrap();
        let error = open(&copy).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }));
        let text = error.to_string();
        assert!(
            text.contains(&format!("sim/{} is missing", segment_name(missing))),
            "{text}"
        );
        assert!(text.contains("keep it as it is"), "the safe next step is told: {text}");
    }
}

#[test]
fn a_unit_that_claims_more_than_its_segment_holds_is_refused_before_it_is_read() {
    let disk = disk_with(&log());
    let (_, second) = &units(&disk)[1];
    let at = Position {
        segment: 1,
        offset: second.start,
    };
    let log_id = u64::from_be_bytes(disk.contents(&segment_name(1)).unwrap()[24..32].try_into().unwrap());
    let huge = UnitHeader {
        at,
        length: u32::MAX,
        records: 1,
        synced: at,
        log_id,
    };
    disk.overwrite(&segment_name(1), second.start.into(), &huge.encode());
    assert!(refusal(&disk).what.contains("longer than its segment"));
}

#[test]
fn a_whole_record_of_an_unknown_kind_is_a_newer_builds_and_is_neither_damage_nor_a_torn_tail() {
    let of_last = units(&disk_with(&log())).len() - 1;
    for place in 0..=of_last {
        let disk = disk_with(&log());
        let (segment, unit) = units(&disk)[place].clone();
        let (name, at) = (segment_name(segment), unit.start as usize + UNIT_HEADER_BYTES);
        make_newer(&disk, &name, at);
        let before = disk.contents(&name);

        let refused = open(&disk).map(|_| ()).unwrap_err();
        assert!(
            matches!(refused, OpenError::NewerRecord { offset, kind: 0x7f, .. } if offset == at as u64),
            "unit {place}: {refused}"
        );
        assert!(
            !refused.is_loss_of_memory(),
            "unit {place}: what it promised is on disk"
        );
        assert_eq!(disk.contents(&name), before, "unit {place}: nothing is cut off");
    }
}

#[test]
fn a_damaged_body_for_which_a_snapshot_stands_is_outlived_and_what_it_promised_is_kept() {
    let disk = disk_with(&log());
    let (segment, second) = units(&disk)[1].clone();
    disk.flip_bit(&segment_name(segment), u64::from(second.end) - 1, 0);
    let read_over = |covered| {
        let copy = disk.fork();
        let (mut storage, _) = Storage::open(copy, &options()).unwrap();
        let mut records = Vec::new();
        let outlived = storage.recover_over(Slot(covered), |record| records.push(record));
        outlived.map(|outlived| (outlived, records))
    };
    assert!(matches!(read_over(1), Err(OpenError::Damage(damage)) if damage.kind == DamageKind::RecordBody));
    let (outlived, records) = read_over(2).unwrap();
    assert_eq!(outlived.len(), 1);
    assert_eq!(
        (outlived[0].kind, outlived[0].offset),
        (DamageKind::RecordBody, u64::from(second.start) + 40)
    );
    let mut expected = log().concat();
    expected[2] = Record::Promised(ballot(1));
    assert_eq!(records, expected, "slot 2 was accepted at 1.1");
    // A head that cannot be read may have been of any record.
    disk.flip_bit(&segment_name(segment), u64::from(second.start) + 60, 0);
    assert!(matches!(read_over(2), Err(OpenError::Damage(damage)) if damage.kind == DamageKind::RecordHead));
}

#[test]
fn a_log_is_set_aside_and_no_crash_leaves_one_that_does_not_say_so() {
    let disk = disk_with(&log());
    disk.flip_bit(&segment_name(1), u64::from(UNITS_BEGIN) + 3, 0);
    let is_mark =
        |record: &Record| matches!(record, Record::Peer { node: NodeId(1), start, .. } if *start == Start::default());
    for crash_at in 1.. {
        let copy = disk.fork();
        copy.cut_power_after(crash_at);
        let done = set_log_aside(&copy, &options()).is_ok();
        copy.crash();
        let records = match open(&copy) {
            Ok((.., records)) => records,
            Err(error) => {
                assert!(!done && error.is_loss_of_memory(), "crash at {crash_at}: {error}");
                set_log_aside(&copy, &options()).unwrap();
                open(&copy).unwrap().2
            }
        };
        assert!(
            records.len() == 1 && is_mark(&records[0]),
            "crash at {crash_at}: {records:?}"
        );
        for segment in 1..=3 {
            let kept = copy.contents(&format!("{}.damaged", segment_name(segment)));
            assert!(
                kept.is_some() && kept == disk.contents(&segment_name(segment)),
                "crash at {crash_at}"
            );
        }
        if done {
            return;
        }
    }
}
