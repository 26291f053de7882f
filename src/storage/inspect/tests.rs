use super::log::LogWalk;
use super::*;
use crate::paxos::Slot;
use crate::storage::files::Files;
use crate::storage::segment::segment_name;
use crate::storage::sim::SimDisk;
use crate::storage::snapshot::{self, snapshot_name};
use crate::storage::testing::{self, accepted, ballot, disk_with, make_newer};
use crate::storage::unit::UNIT_HEADER_BYTES;

/// Four units in two segments.
fn units() -> Vec<Vec<Record>> {
    vec![
        vec![Record::Promised(ballot(3)), accepted(1, 1200)],
        vec![accepted(2, 1200), accepted(3, 700), Record::ChosenUpto(Slot(1))],
        vec![accepted(4, 1500)],
        vec![accepted(5, 600), Record::Used(ballot(4))],
    ]
}

type Parts = Vec<(u64, Part)>;

/// All parts of a disk's log.
fn log_parts(disk: &SimDisk) -> Parts {
    let mut parts = Vec::new();
    let mut walk = LogWalk::default();
    for name in disk.list().unwrap().iter().filter(|name| segment_of(name).is_some()) {
        let file = disk.open(name).unwrap();
        walk.segment(&file, &disk.path(name), &mut |_, at, part| {
            parts.push((at, part));
            Ok(())
        })
        .unwrap();
    }
    walk.finish(true, &mut |_, at, part| {
        parts.push((at, part));
        Ok(())
    })
    .unwrap();
    parts
}

fn records(parts: &Parts) -> Vec<Record> {
    let records = parts.iter().filter_map(|(_, part)| match part {
        Part::Record(record) => Some(record.clone()),
        _ => None,
    });
    records.collect()
}

fn damage(parts: &Parts) -> Vec<u64> {
    let damage = parts.iter().filter(|(_, part)| matches!(part, Part::Damage(..)));
    damage.map(|(at, _)| *at).collect()
}

fn torn(parts: &Parts) -> Vec<u64> {
    let torn = parts.iter().filter(|(_, part)| matches!(part, Part::TornTail(_)));
    torn.map(|(at, _)| *at).collect()
}

/// The places of units in the first segment, and of records, from a walk of the whole log.
fn places(disk: &SimDisk, what: fn(&Part) -> bool) -> Vec<u64> {
    let parts = log_parts(disk);
    let places = parts.iter().filter(|(_, part)| what(part));
    places.map(|(at, _)| *at).collect()
}

#[test]
fn a_whole_log_is_given_record_by_record_with_their_places() {
    let disk = disk_with(&units());
    let parts = log_parts(&disk);
    assert_eq!(records(&parts), units().concat());
    assert_eq!((damage(&parts), torn(&parts)), (vec![], vec![]));
    let unit_count = parts.iter().filter(|(_, part)| matches!(part, Part::Unit(_))).count();
    assert_eq!(unit_count, 4);
    assert!(matches!(parts[1], (4096, Part::Unit(_))), "{:?}", parts[1]);
}

#[test]
fn behind_a_damaged_body_head_or_unit_header_what_follows_is_still_given() {
    let disk = disk_with(&units());
    let (first, all) = (segment_name(1), units().concat());
    let record_places = places(&disk, |part| matches!(part, Part::Record(_)));
    let unit_places = places(&disk, |part| matches!(part, Part::Unit(_)));

    let in_body = disk.fork();
    assert!(in_body.flip_bit(&first, record_places[2] + 600, 3));
    let parts = log_parts(&in_body);
    assert_eq!(damage(&parts), [record_places[2]]);
    assert_eq!(records(&parts).len(), all.len() - 1, "all but that record");

    let in_head = disk.fork();
    assert!(in_head.flip_bit(&first, record_places[2] + 17, 3));
    let parts = log_parts(&in_head);
    assert_eq!(damage(&parts), [record_places[2]]);
    assert_eq!(records(&parts).len(), all.len() - 3, "all but the rest of its unit");

    let in_unit = disk.fork();
    assert!(in_unit.flip_bit(&first, unit_places[1] + 13, 3));
    let parts = log_parts(&in_unit);
    assert_eq!(damage(&parts), [unit_places[1]]);
    assert_eq!(records(&parts).len(), all.len() - 3, "all but that unit");

    let in_segment = disk.fork();
    assert!(in_segment.flip_bit(&first, 20, 3));
    let parts = log_parts(&in_segment);
    assert_eq!(damage(&parts), [0]);
    assert_eq!(records(&parts), all, "the name says which segment it is");
}

#[test]
fn a_torn_last_unit_is_no_damage_unless_it_stands_alone() {
    let disk = disk_with(&units());
    let second = segment_name(2);
    let last = *places(&disk, |part| matches!(part, Part::Record(_))).last().unwrap();
    assert!(disk.flip_bit(&second, last + 17, 1));
    let parts = log_parts(&disk);
    assert_eq!((damage(&parts), torn(&parts)), (vec![], vec![last]));

    let file = disk.open(&second).unwrap();
    let (mut walk, mut found) = (LogWalk::default(), Vec::new());
    let mut give = |_: &str, at: u64, part: Part| {
        found.push((at, part));
        Ok(())
    };
    walk.segment(&file, &second, &mut give).unwrap();
    walk.finish(false, &mut give).unwrap();
    assert_eq!(damage(&found), [last], "nobody knows whether it is the last segment");
}

#[test]
fn a_record_of_a_newer_build_is_told_as_such_and_not_as_a_torn_tail() {
    let disk = disk_with(&units());
    let last = *places(&disk, |part| matches!(part, Part::Unit(_))).last().unwrap();
    make_newer(&disk, &segment_name(2), last as usize + UNIT_HEADER_BYTES);
    let parts = log_parts(&disk);
    let is_told = |part: &Part| matches!(part, Part::Damage(_, what) if what.contains("a newer build"));
    assert!(parts.iter().any(|(_, part)| is_told(part)));
    assert!(
        torn(&parts).is_empty(),
        "the next start refuses it, and cuts nothing off"
    );
}

#[test]
fn a_unit_that_does_not_continue_the_one_before_tells_of_what_is_missing() {
    let disk = disk_with(&units());
    let unit_places = places(&disk, |part| matches!(part, Part::Unit(_)));
    // The last unit of the first segment was never written: only the first of the next can tell.
    let rest = (testing::SEGMENT_BYTES as u64 - unit_places[1]) as usize;
    disk.overwrite(&segment_name(1), unit_places[1], &vec![0; rest]);
    let parts = log_parts(&disk);
    assert_eq!((damage(&parts), records(&parts).len()), (vec![unit_places[2]], 5));
    // With a unit behind it in one segment, zeros show by themselves.
    disk.overwrite(&segment_name(2), 4096, &[0; 1600]);
    let parts = log_parts(&disk);
    assert_eq!((damage(&parts), records(&parts).len()), (vec![4096], 4));
}

fn snapshot_parts(disk: &SimDisk, name: &str) -> Parts {
    let mut parts = Vec::new();
    let file = disk.open(name).unwrap();
    snapshot(&file, name, &mut |_, at, part| {
        parts.push((at, part));
        Ok(())
    })
    .unwrap();
    parts
}

#[test]
fn a_snapshot_is_given_item_by_item_and_damage_costs_one_block() {
    let disk = SimDisk::new(1);
    let slot = snapshot::tests::write(&disk, &mut snapshot::tests::state(3000, 300));
    let name = snapshot_name(slot);
    let keys = |parts: &Parts| {
        let keys = parts
            .iter()
            .filter(|(_, part)| matches!(part, Part::Item(Item::Key { .. })));
        keys.count()
    };
    let whole = snapshot_parts(&disk, &name);
    assert_eq!((keys(&whole), damage(&whole)), (3000, vec![]));
    let blocks = whole.iter().filter_map(|(at, part)| match part {
        Part::Block { items, .. } => Some((*at, *items as usize)),
        _ => None,
    });
    let blocks: Vec<(u64, usize)> = blocks.collect();
    assert!(blocks.len() > 3, "{blocks:?}");
    let (second, items) = blocks[1];

    for offset in [second + 100, second + 5] {
        let bad = disk.fork();
        assert!(bad.flip_bit(&name, offset, 2));
        let parts = snapshot_parts(&bad, &name);
        assert_eq!(damage(&parts), [second], "flipped at {offset}");
        assert_eq!(keys(&parts), 3000 - items, "flipped at {offset}");
        assert!(matches!(parts.last(), Some((_, Part::Trailer { .. }))));
    }
    let bad = disk.fork();
    assert!(bad.flip_bit(&name, 30, 2));
    let parts = snapshot_parts(&bad, &name);
    assert_eq!((damage(&parts), keys(&parts)), (vec![0], 3000));

    // Nothing can change unseen: neither counts nor digest nor any byte between.
    for offset in (0..whole.last().unwrap().0 + 28).step_by(4999) {
        let bad = disk.fork();
        assert!(bad.flip_bit(&name, offset, 7));
        assert!(!damage(&snapshot_parts(&bad, &name)).is_empty(), "flipped at {offset}");
    }
}

#[test]
fn an_identity_and_a_newer_format_are_told_by_name() {
    let disk = disk_with(&[]);
    let look = |disk: &SimDisk| {
        let file = disk.open(IDENTITY_NAME).unwrap();
        let mut parts = Vec::new();
        identity(&file, IDENTITY_NAME, &mut |_, at, part| {
            parts.push((at, part));
            Ok(())
        })
        .unwrap();
        parts
    };
    assert!(matches!(&look(&disk)[..], [(0, Part::Identity(_, 2))]));
    disk.overwrite(IDENTITY_NAME, 8, &3u32.to_be_bytes());
    let parts = look(&disk);
    assert!(
        matches!(&parts[..], [(0, Part::Damage(DamageKind::Identity, what))] if what.contains("newer than")),
        "{parts:?}"
    );
}
