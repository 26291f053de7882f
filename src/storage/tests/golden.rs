//! Files of every disk format that this build reads, as they were once written: `tests/golden/`, in hex, so that a change of
//! a byte shows in a diff.
//!
//! The files of the present format are written again byte for byte (`RECORD=1` writes them anew: only after a deliberate
//! change of the format, and with a new number if old bytes change meaning). Those of older formats stay as they are: a build
//! reads them, or refuses them by name. Format 1 had the first eight kinds of records, and no snapshots.

use super::super::identity::IDENTITY_NAME;
use super::super::inspect::{self, Kind, Part, log::LogWalk};
use super::super::segment::{SEGMENT_HEADER_BYTES, segment_name};
use super::super::sim::SimDisk;
use super::super::snapshot::{self, Loading, snapshot_name};
use super::super::testing::{self, ballot, disk_with, entry, open};
use super::super::{DISK_FORMAT, Files, OpenError};
use crate::kv::State;
use crate::paxos::{Incarnation, NodeId, Slot, Start};
use crate::wire::hello::Base;
use crate::wire::{Record, RosterEntry, body};
use std::path::PathBuf;

/// Bytes in one line of a golden file.
const LINE_BYTES: usize = 32;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

/// Offset and bytes in hex; lines of zeros are left out, and the last line tells the length.
fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(LINE_BYTES).enumerate() {
        if line.iter().any(|&byte| byte != 0) {
            let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{:08x} {hex}\n", index * LINE_BYTES));
        }
    }
    text + &format!("{:08x}\n", bytes.len())
}

fn from_hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let (offset, hex) = line.split_once(' ').unwrap_or((line, ""));
        bytes.resize(usize::from_str_radix(offset, 16).unwrap(), 0);
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        bytes.extend((0..hex.len()).step_by(2).map(byte));
    }
    bytes
}

fn golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("tests/golden/{name}: {error}"));
    from_hex(&text)
}

/// That `bytes` are those of the golden file.
fn check(name: &str, bytes: &[u8]) {
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(path(name), to_hex(bytes)).unwrap();
    }
    assert_eq!(
        to_hex(bytes),
        to_hex(&golden(name)),
        "tests/golden/{name}: this build writes other bytes than the format has"
    );
}

/// One record of each kind, in two units: those of the first format, and those that came with the second.
fn units() -> [Vec<Record>; 2] {
    let incarnation = |generation, token| Incarnation { generation, token };
    let slot = Slot(7);
    let first = vec![
        Record::Promised(ballot(3)),
        Record::Used(ballot(4)),
        testing::accepted(5, 40),
        Record::Learned {
            slot: Slot(6),
            entry: body::noop(crate::paxos::LogTime(9)),
        },
        Record::ChosenUpto(Slot(6)),
        Record::Roster(vec![RosterEntry {
            node: NodeId(1),
            incarnation: incarnation(1, 0x11),
            base: Base {
                slot: Slot(4),
                digest: 0xd1,
            },
        }]),
        Record::Founded,
        Record::Peer {
            node: NodeId(2),
            incarnation: incarnation(1, 0x22),
            start: Start {
                counter: 2,
                token: 0x33,
            },
        },
    ];
    let second = vec![
        Record::Life(incarnation(2, 0x44)),
        Record::Copied {
            slot,
            ballot: ballot(3),
            entry: entry(7, 30),
        },
        Record::Recovered,
        Record::Checkpoint {
            segment: 1,
            slot: Slot(5),
            promised: ballot(3),
            used: ballot(4),
            chosen_upto: Slot(6),
        },
        Record::Installed { slot: Slot(6) },
    ];
    [first, second]
}

fn directory(format: u32) -> SimDisk {
    let disk = SimDisk::new(1);
    for name in [IDENTITY_NAME, &segment_name(1)] {
        disk.create(name).unwrap();
        let bytes = golden(&format!("format-{format}-{name}.hex"));
        disk.overwrite(name, 0, &bytes);
    }
    disk
}

/// The header of a file with another format number, under a good checksum.
fn with_format(bytes: &[u8], header_bytes: usize, format: u32) -> Vec<u8> {
    let mut header = bytes[..header_bytes].to_vec();
    header[8..12].copy_from_slice(&format.to_be_bytes());
    let (content, crc) = header.split_at_mut(header_bytes - 4);
    crc.copy_from_slice(&crc32fast::hash(content).to_be_bytes());
    [header, bytes[header_bytes..].to_vec()].concat()
}

#[test]
fn this_build_writes_the_present_format_byte_for_byte() {
    let disk = disk_with(&units());
    for name in [IDENTITY_NAME, &segment_name(1)] {
        let bytes = disk.contents(name).unwrap();
        check(&format!("format-{DISK_FORMAT}-{name}.hex"), &bytes);
    }
    let disk = SimDisk::new(1);
    let slot = snapshot::tests::write(&disk, &mut snapshot::tests::state(3, 20));
    let bytes = disk.contents(&snapshot_name(slot)).unwrap();
    check(&format!("snapshot-{}.hex", snapshot::SNAPSHOT_FORMAT), &bytes);
}

#[test]
fn directories_of_every_format_hold_what_was_written_and_go_on_in_the_present_one() {
    let [first, second] = units();
    for (format, expected) in [(1, first.clone()), (2, [first, second].concat())] {
        let disk = directory(format);
        let (mut storage, identity, records) = open(&disk).unwrap_or_else(|error| panic!("format {format}: {error}"));
        assert_eq!(records, expected, "format {format}");
        assert_eq!((identity.node, identity.cluster_name.as_str()), (NodeId(1), "test"));
        assert_eq!(identity.past_starts().len(), 1, "and the present one");
        storage.append(&[testing::accepted(8, 50)]).unwrap();
        storage.sync().unwrap();
        drop(storage);
        let (.., records) = open(&disk).unwrap();
        assert_eq!(records.last(), Some(&testing::accepted(8, 50)), "format {format}");
    }
}

#[test]
fn a_snapshot_of_every_format_is_loaded() {
    let (disk, name) = (SimDisk::new(1), snapshot_name(Slot(4)));
    disk.create(&name).unwrap();
    disk.overwrite(&name, 0, &golden("snapshot-1.hex"));
    let (header, state) = Loading::begin(&disk, &name, State::new()).unwrap().finish().unwrap();
    assert_eq!((header.cluster_id, header.summary.slot), (0xc1, Slot(4)));
    assert_eq!((state.keys(), state.sessions(), state.revision()), (3, 1, 3));
    assert_eq!(state.content(), snapshot::tests::state(3, 20).content());
}

#[test]
fn a_newer_format_of_each_file_is_refused_by_name() {
    let refused = |file: &str, error: OpenError| match error {
        OpenError::NewerFormat { file: named, found, .. } => {
            assert!(named.ends_with(file) && found >= 2, "{named} {found}")
        }
        other => panic!("{file}: {other}"),
    };
    for (name, header_bytes) in [
        (IDENTITY_NAME.to_string(), golden("format-2-IDENTITY.hex").len()),
        (segment_name(1), SEGMENT_HEADER_BYTES),
    ] {
        let disk = directory(2);
        let bytes = with_format(&disk.contents(&name).unwrap(), header_bytes, DISK_FORMAT + 1);
        disk.overwrite(&name, 0, &bytes);
        let before = disk.contents(&name);
        refused(&name, open(&disk).unwrap_err());
        assert_eq!(disk.contents(&name), before, "it is left as it was");
    }
    let (disk, name) = (SimDisk::new(1), snapshot_name(Slot(4)));
    let bytes = golden("snapshot-1.hex");
    let header_bytes = u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
    disk.create(&name).unwrap();
    disk.overwrite(
        &name,
        0,
        &with_format(&bytes, header_bytes, snapshot::SNAPSHOT_FORMAT + 1),
    );
    refused(&name, Loading::begin(&disk, &name, State::new()).unwrap_err());
}

#[test]
fn every_golden_file_is_shown_without_damage() {
    let mut shown = 0;
    for found in std::fs::read_dir(path("")).unwrap() {
        let name = found.unwrap().file_name().into_string().unwrap();
        let (disk, mut formats) = (SimDisk::new(1), Vec::new());
        disk.create("file").unwrap();
        disk.overwrite("file", 0, &golden(&name));
        let file = disk.open("file").unwrap();
        let give = &mut |_: &str, at: u64, part: Part| {
            match part {
                Part::Identity(_, format) | Part::Snapshot(_, format) => formats.push(format),
                Part::Segment(header) => formats.push(header.format),
                Part::Damage(kind, what) => panic!("{name}, offset {at}: {kind}: {what}"),
                _ => {}
            }
            Ok(())
        };
        match Kind::of(&file, "file").unwrap() {
            Some(Kind::Identity) => inspect::identity(&file, "file", give).unwrap(),
            Some(Kind::Snapshot) => inspect::snapshot(&file, "file", give).unwrap(),
            Some(Kind::Segment) => {
                let mut walk = LogWalk::default();
                walk.segment(&file, "file", give).unwrap();
                walk.finish(false, give).unwrap();
            }
            other => panic!("{name} is {other:?}"),
        }
        let stated: String = name.chars().filter(char::is_ascii_digit).take(1).collect();
        assert_eq!(
            formats.iter().map(u32::to_string).collect::<Vec<_>>(),
            [stated],
            "{name}"
        );
        shown += 1;
    }
    assert_eq!(shown, 5, "files in tests/golden");
}
