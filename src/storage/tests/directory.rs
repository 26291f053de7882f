//! Whose directory it is, and how a new one comes to be.

use super::super::identity::IDENTITY_NAME;
use super::super::segment::{SEGMENT_HEADER_BYTES, segment_name};
use super::super::sim::SimDisk;
use super::super::testing::{accepted, disk_with, open, options};
use super::super::{DISK_FORMAT, Disk, Files, OpenError, Options, Storage};
use crate::paxos::NodeId;

fn refusal(disk: &SimDisk, options: &Options) -> OpenError {
    match Storage::open(disk.clone(), options) {
        Err(error) => error,
        Ok(_) => panic!("the directory was accepted"),
    }
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_and_left_alone() {
    let disk = disk_with(&[vec![accepted(1, 10)]]);
    let before = disk.contents(IDENTITY_NAME);
    let other_node = Options {
        node: NodeId(2),
        ..options()
    };
    let text = refusal(&disk, &other_node).to_string();
    assert!(text.contains("belongs to node 1, not to node 2"), "{text}");
    let other_cluster = Options {
        cluster_name: "prod".into(),
        ..options()
    };
    let text = refusal(&disk, &other_cluster).to_string();
    assert!(text.contains("belongs to cluster \"test\", not to \"prod\""), "{text}");
    assert_eq!(disk.contents(IDENTITY_NAME), before);
    assert!(open(&disk).is_ok(), "a refused open gives the lock back");
}

#[test]
fn a_directory_of_a_newer_format_is_refused_by_name() {
    let disk = disk_with(&[]);
    let newer = DISK_FORMAT + 1;
    disk.overwrite(IDENTITY_NAME, 8, &newer.to_be_bytes());
    let refusal = refusal(&disk, &options());
    assert!(matches!(refusal, OpenError::NewerFormat { found, supported: DISK_FORMAT, .. } if found == newer));
}

#[test]
fn two_processes_cannot_use_one_directory() {
    let disk = SimDisk::new(1);
    let (storage, _) = Storage::open(disk.clone(), &options()).unwrap();
    assert!(matches!(refusal(&disk, &options()), OpenError::Locked { .. }));
    drop(storage);
    assert!(Storage::open(disk, &options()).is_ok());
}

#[test]
fn each_start_is_counted_and_kept() {
    let disk = SimDisk::new(1);
    let mut seen = Vec::new();
    for counter in 1..5 {
        let options = Options {
            seed: counter,
            ..options()
        };
        let (_, identity) = Storage::open(disk.clone(), &options).unwrap();
        disk.crash();
        assert_eq!(identity.start().counter, counter);
        assert_eq!(identity.past_starts(), seen);
        seen.push(identity.start());
    }
}

#[test]
fn a_lost_log_or_a_lost_identity_is_not_taken_for_a_new_directory() {
    let disk = disk_with(&[vec![accepted(1, 10)]]);
    let copy = disk.fork();
    copy.remove(&segment_name(1)).unwrap();
    let text = refusal(&copy, &options()).to_string();
    assert!(text.contains("sim/wal-0000000001.log is missing"), "{text}");
    let copy = disk.fork();
    copy.remove(IDENTITY_NAME).unwrap();
    let text = refusal(&copy, &options()).to_string();
    assert!(text.contains("sim/IDENTITY is missing"), "{text}");
}

#[test]
fn what_a_crash_left_half_made_is_removed_and_other_files_are_not() {
    let disk = disk_with(&[vec![accepted(1, 10)]]);
    for name in [
        "IDENTITY.tmp",
        "wal-0000000002.log.tmp",
        "notes.tmp",
        "wal-0000000009.log.old",
    ] {
        disk.create(name).unwrap();
    }
    let (.., records) = open(&disk).unwrap();
    assert_eq!(records, [accepted(1, 10)]);
    let expected = [
        IDENTITY_NAME,
        "notes.tmp",
        "wal-0000000001.log",
        "wal-0000000009.log.old",
    ];
    assert_eq!(disk.list().unwrap(), expected);
}

#[test]
fn a_real_directory_keeps_what_was_synced_and_names_who_holds_it() {
    let temp = tempfile::tempdir().unwrap();
    let disk = Disk::new(temp.path().join("n1"));
    let (mut storage, first) = Storage::open(disk.clone(), &options()).unwrap();
    storage.recover(|record| panic!("{record:?} in a new log")).unwrap();
    let records: Vec<_> = (1..50).map(|slot| accepted(slot, 700)).collect();
    for unit in records.chunks(3) {
        storage.append(unit).unwrap();
        storage.sync().unwrap();
        storage.prepare_ahead().unwrap();
    }
    match Storage::open(disk.clone(), &options()) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
    assert!(storage.free_bytes().unwrap() > 0);
    drop(storage);
    let (mut storage, second) = Storage::open(disk, &options()).unwrap();
    let mut read = Vec::new();
    storage.recover(|record| read.push(record)).unwrap();
    assert_eq!(read, records);
    assert_eq!(
        (second.incarnation, second.past_starts()),
        (first.incarnation, first.starts.as_slice())
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Storage::open(Disk::new(&path), &options()).unwrap_err();
        assert!(matches!(error, OpenError::CannotWrite { .. }), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

/// The bytes with another format number in a header that ends in a crc of all before it.
fn with_format(mut header: Vec<u8>, format: u8) -> Vec<u8> {
    header[11] = format;
    let end = header.len() - 4;
    let crc = crc32fast::hash(&header[..end]);
    header[end..].copy_from_slice(&crc.to_be_bytes());
    header
}

#[test]
fn a_directory_of_the_first_format_opens_and_is_of_the_present_one_then() {
    let disk = disk_with(&[vec![accepted(1, 10)], vec![accepted(2, 10)]]);
    let identity = disk.contents("IDENTITY").unwrap();
    disk.overwrite("IDENTITY", 0, &with_format(identity, 1));
    for name in disk.list().unwrap().iter().filter(|name| name.starts_with("wal-")) {
        let header = disk.contents(name).unwrap()[..SEGMENT_HEADER_BYTES].to_vec();
        disk.overwrite(name, 0, &with_format(header, 1));
    }
    let (_, _, records) = open(&disk).unwrap();
    assert_eq!(records, [accepted(1, 10), accepted(2, 10)]);
    assert_eq!(disk.contents("IDENTITY").unwrap()[11], DISK_FORMAT as u8);
}
