use super::super::scrub::{Place, SLICE_BYTES, Scrub};
use super::super::sim::SimDisk;
use super::*;
use crate::kv::testing::put;
use crate::kv::{Applied, Command, SessionRef, State};
use crate::wire::bytes::COUNT_MAX;
use bytes::Bytes;

/// A state of so many keys with values of so many bytes, and one session.
pub(in crate::storage) fn state(keys: u64, value_bytes: usize) -> State {
    let mut state = State::new();
    let session = SessionRef { id: 7, opened: Slot(1) };
    let write = |number: u64, op| Command {
        session,
        number,
        low: number,
        op,
    };
    let open: Command = Command {
        session: SessionRef {
            id: 7,
            opened: Slot::ZERO,
        },
        number: 0,
        low: 0,
        op: crate::kv::Op::Open,
    };
    let mut applied = Vec::new();
    state.apply(Slot(1), LogTime(5), &[open], &mut applied);
    for number in 1..=keys {
        let mut op = put("k", "");
        if let crate::kv::Op::Put { key, value, .. } = &mut op {
            *key = Bytes::from(format!("key-{number:06}"));
            *value = Bytes::from(vec![number as u8; value_bytes]);
        }
        state.apply(Slot(number + 1), LogTime(5), &[write(number, op)], &mut applied);
    }
    assert!(applied.iter().all(|applied| matches!(applied, Applied::Done(_))));
    state
}

fn header(summary: Summary) -> Header {
    Header {
        cluster_id: 0xc1,
        summary,
        config: 1,
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    }
}

/// Writes all of a snapshot of `state`.
pub(in crate::storage) fn write(disk: &SimDisk, state: &mut State) -> Slot {
    let summary = state.begin_snapshot();
    write_under(disk, state, &header(summary))
}

/// The same under a header that may say anything; a snapshot of `state` was begun.
fn write_under(disk: &SimDisk, state: &mut State, header: &Header) -> Slot {
    let mut writer = SnapshotWriter::begin(disk, header).unwrap();
    loop {
        let room = writer.room();
        let more = state.next_of_snapshot(room, &mut |item| writer.add(item)).unwrap();
        if writer.room() == 0 {
            writer.write_block().unwrap();
        }
        if !more {
            break;
        }
    }
    writer.finish().unwrap();
    writer.sync().unwrap();
    publish(disk, writer.slot()).unwrap();
    writer.slot()
}

fn load(disk: &SimDisk, slot: Slot) -> Result<State, OpenError> {
    let loading = Loading::begin(disk, &snapshot_name(slot), State::new())?;
    loading.finish().map(|(_, state)| state)
}

#[test]
fn a_state_comes_back_from_its_file_as_it_was_in_blocks_of_bounded_size() {
    let disk = SimDisk::new(1);
    let mut state = state(3000, 300);
    let slot = write(&disk, &mut state);
    disk.crash();
    assert_eq!(list(&disk).unwrap(), [slot]);
    let loaded = load(&disk, slot).unwrap();
    assert_eq!(loaded.summary(), state.summary());
    let mut reader = SnapshotReader::open(&disk, &snapshot_name(slot)).unwrap();
    assert_eq!(reader.header(), &header(state.summary()));
    let mut blocks = 0;
    while let Some(block) = reader.next_block().unwrap() {
        assert!(block.bytes.len() <= BLOCK_BYTES_MAX);
        blocks += 1;
    }
    assert!(blocks >= 3, "{blocks} blocks");
    assert_eq!(reader.at(), reader.length());
    assert!(reader.next_block().unwrap().is_none(), "the end stays the end");
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let disk = SimDisk::new(1);
    let mut empty = State::new();
    let slot = write(&disk, &mut empty);
    assert_eq!(load(&disk, slot).unwrap().summary(), empty.summary());
}

#[test]
fn a_header_that_states_another_number_of_keys_is_refused_and_no_more_room_is_made_than_the_file_can_fill() {
    for keys in [0, 19, 21, COUNT_MAX] {
        let disk = SimDisk::new(1);
        let mut state = state(20, 10);
        let summary = Summary {
            keys,
            ..state.begin_snapshot()
        };
        let slot = write_under(&disk, &mut state, &header(summary));
        let error = load(&disk, slot).unwrap_err().to_string();
        assert!(error.contains(&format!("20 keys, stated are {keys}")), "{error}");
    }
}

#[test]
fn every_flipped_bit_and_every_lost_end_is_named_and_never_loaded() {
    let disk = SimDisk::new(1);
    let slot = write(&disk, &mut state(20, 10));
    let name = snapshot_name(slot);
    let whole = disk.contents(&name).unwrap();
    for at in 0..whole.len() as u64 {
        let damaged = disk.fork();
        damaged.flip_bit(&name, at, (at % 8) as u8);
        match load(&damaged, slot) {
            Err(OpenError::Damage(damage)) => assert!(damage.offset <= at, "{damage} for a bit at {at}"),
            other => panic!("bit at {at}: {other:?}"),
        }
        let cut = disk.fork();
        cut.open(&name).unwrap().truncate(at).unwrap();
        assert!(load(&cut, slot).is_err(), "cut at {at}");
    }
    let longer = disk.fork();
    longer.open(&name).unwrap().truncate(whole.len() as u64 + 1).unwrap();
    assert!(load(&longer, slot).is_err());
}

#[test]
fn a_newer_format_is_refused_by_name_and_not_as_damage() {
    let disk = SimDisk::new(1);
    let slot = write(&disk, &mut state(1, 1));
    let name = snapshot_name(slot);
    let mut bytes = disk.contents(&name).unwrap();
    let length = u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
    bytes[11] = SNAPSHOT_FORMAT as u8 + 1;
    let crc = crc32fast::hash(&bytes[..length - 4]);
    bytes[length - 4..length].copy_from_slice(&crc.to_be_bytes());
    disk.overwrite(&name, 0, &bytes);
    assert!(matches!(load(&disk, slot), Err(OpenError::NewerFormat { found, .. }) if found == SNAPSHOT_FORMAT + 1));
}

#[test]
fn two_nodes_with_one_state_write_one_file() {
    let (one, other) = (SimDisk::new(1), SimDisk::new(2));
    let mut first = state(2000, 300);
    let mut second = load(&one, write(&one, &mut first)).unwrap();
    let slot = write(&other, &mut second);
    assert!(one.contents(&snapshot_name(slot)) == other.contents(&snapshot_name(slot)));
}

#[test]
fn only_a_snapshots_own_name_means_it() {
    assert_eq!(snapshot_of("snap-00000000000000000012.snap"), Some(Slot(12)));
    for name in [
        "snap-12.snap",
        "snap-00000000000000000012.snap.tmp",
        "wal-0000000001.log",
    ] {
        assert_eq!(snapshot_of(name), None, "{name}");
    }
}

#[test]
fn the_scrub_finds_every_flipped_bit_of_a_snapshot() {
    let disk = SimDisk::new(1);
    let (storage, ..) = crate::storage::testing::open(&disk).unwrap();
    let slot = write(&disk, &mut state(4, 100));
    let name = snapshot_name(slot);
    let pass = || {
        let (mut scrub, mut findings) = (Scrub::begin(), Vec::new());
        loop {
            let step = storage.scrub(&mut scrub, &[slot], SLICE_BYTES).unwrap();
            findings.extend(step.found);
            if step.is_done {
                return findings;
            }
        }
    };
    assert_eq!(pass(), []);
    for offset in 0..disk.contents(&name).unwrap().len() as u64 {
        disk.flip_bit(&name, offset, (offset % 8) as u8);
        let findings = pass();
        assert_eq!(findings.len(), 1, "bit in {offset}: {findings:?}");
        assert_eq!(findings[0].place, Place::Snapshot(slot));
        assert!(findings[0].damage.offset <= offset, "bit in {offset}: {findings:?}");
        disk.flip_bit(&name, offset, (offset % 8) as u8);
    }
}
