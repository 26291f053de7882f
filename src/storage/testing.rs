//! What the tests of this room share.

use super::sim::SimDisk;
use super::unit::RECORD_PREFIX_BYTES;
use super::{Identity, OpenError, Options, Storage};
use crate::kv::{Command, Op, SessionRef};
use crate::paxos::{Ballot, Entry, LogTime, NodeId, Slot};
use crate::wire::{Record, body};
use bytes::Bytes;

/// Small segments: two pages, of which one is the header's.
pub(super) const SEGMENT_BYTES: u32 = 8 << 10;

/// An entry with a value of `bytes`, another for each `stamp`.
pub(super) fn entry(stamp: u64, bytes: usize) -> Entry {
    let op = Op::Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from(vec![stamp as u8; bytes]),
        if_absent: false,
        want_previous: false,
    };
    let command = Command {
        session: SessionRef::default(),
        number: stamp,
        low: 0,
        op,
    };
    body::batch(LogTime(stamp), &[command])
}

/// An accepted entry of slot `slot`.
pub(super) fn accepted(slot: u64, bytes: usize) -> Record {
    Record::Accepted {
        slot: Slot(slot),
        ballot: ballot(1),
        entry: entry(slot, bytes),
    }
}

/// A ballot of node 1.
pub(super) fn ballot(round: u64) -> Ballot {
    Ballot { round, node: NodeId(1) }
}

/// What all test directories are opened with.
pub(super) fn options() -> Options {
    Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::new(NodeId(1), "test", 5)
    }
}

/// Opens the directory and reads its log back.
pub(super) fn open(disk: &SimDisk) -> Result<(Storage<SimDisk>, Identity, Vec<Record>), OpenError> {
    let (mut storage, identity) = Storage::open(disk.clone(), &options())?;
    let mut records = Vec::new();
    storage.recover(|record| records.push(record))?;
    Ok((storage, identity, records))
}

/// A disk with a log of these units, each of them synced, and nobody working on it.
pub(super) fn disk_with(units: &[Vec<Record>]) -> SimDisk {
    let disk = SimDisk::new(1);
    let (mut storage, ..) = open(&disk).unwrap();
    for unit in units {
        storage.append(unit).unwrap();
        storage.sync().unwrap();
    }
    drop(storage);
    disk
}

/// Makes of the record at an offset of a segment one of a kind that no build knows, whole as a newer build would write it.
pub(super) fn make_newer(disk: &SimDisk, segment: &str, offset: usize) {
    let bytes = disk.contents(segment).unwrap();
    let (prefix, behind) = bytes[offset..].split_at(RECORD_PREFIX_BYTES);
    let head = &behind[..usize::from(u16::from_be_bytes([prefix[2], prefix[3]]))];
    let mut prefix = prefix.to_vec();
    prefix[0] = 0x7f;
    let checked = RECORD_PREFIX_BYTES - 4;
    let crc = crc32fast::hash(&[&prefix[..checked], head].concat());
    prefix[checked..].copy_from_slice(&crc.to_be_bytes());
    disk.overwrite(segment, offset as u64, &prefix);
}
