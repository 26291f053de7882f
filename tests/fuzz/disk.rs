//! Bytes from the disk: the log, the identity and snapshots, read back by the code that a start runs.

use crate::driver::{Target, fuzz};
use crate::wire::records;
use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;
use std::io::IoSlice;
use synod::kv::{Command, Op, SessionRef, State};
use synod::paxos::{LogTime, NodeId, Slot};
use synod::storage::identity::IDENTITY_NAME;
use synod::storage::segment::{UNITS_BEGIN, encode_header, segment_name};
use synod::storage::sim::SimDisk;
use synod::storage::snapshot::Loading;
use synod::storage::snapshot::{BLOCK_HEAD_BYTES, Header, SnapshotWriter, TRAILER_BYTES, publish, snapshot_name};
use synod::storage::unit::{RECORD_PREFIX_BYTES, UNIT_HEADER_BYTES, UNIT_MAGIC};
use synod::storage::{File, Files, OpenError, Options, Storage};
use synod::wire::Record;
use synod::wire::record::{RecordKind, body_of_head};

/// Two pages, of which one is the header's.
const SEGMENT_BYTES: u32 = 8 << 10;

fn open(disk: &SimDisk) -> Result<Vec<Record>, OpenError> {
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::new(NodeId(1), "test", 5)
    };
    let (mut storage, _) = Storage::open(disk.clone(), &options)?;
    let mut records = Vec::new();
    storage.recover(|record| records.push(record))?;
    Ok(records)
}

/// A disk with two units on it, and nobody at work.
fn disk() -> SimDisk {
    let disk = SimDisk::new(1);
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        ..Options::new(NodeId(1), "test", 5)
    };
    let (mut storage, _) = Storage::open(disk.clone(), &options).expect("an empty disk");
    storage.recover(|_| {}).expect("an empty log");
    for unit in records().chunks(5) {
        storage.append(unit).expect("room");
        storage.sync().expect("no faults");
    }
    drop(storage);
    disk.fork()
}

/// What is behind the header in files of this kind, without the zeros at the end.
fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

/// Puts `bytes` into a file in place of what is there; zeros fill it up to its length before.
fn replace(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let mut content = bytes.to_vec();
    let before = disk.contents(name).map_or(0, |before| before.len());
    content.resize(before.max(bytes.len()), 0);
    let mut file = disk.create(name).expect("no faults");
    file.write_all_at(&mut [IoSlice::new(&content)], 0).expect("room");
    file.sync().expect("no faults");
    disk.sync_directory().expect("no faults");
}

/// A start on the damaged disk: refused in words, or a log that the next start reads the same way.
fn start(disk: &SimDisk) -> String {
    let words = match open(disk) {
        Err(error) => format!("refused: {error}"),
        Ok(first) => {
            let again = open(&disk.fork()).expect("what was read once, and repaired, can be read");
            assert_eq!(first, again, "two starts read two logs");
            format!("{} records", first.len())
        }
    };
    disk.kill();
    words
}

#[test]
fn a_log_of_any_bytes_is_read_or_refused() {
    let disk = disk();
    let name = segment_name(1);
    let page = UNITS_BEGIN as usize;
    // The page of the header is mostly zeros: the input is the header and what stands behind the page.
    let header_bytes = encode_header(1, SEGMENT_BYTES, 0).len();
    let whole = trimmed(disk.contents(&name).expect("there is a first segment"));
    let target = Target {
        mend: mend_segment,
        ..Target::new("log", vec![[&whole[..header_bytes], &whole[page..]].concat()], 4_000)
    };
    fuzz(&target, |input| {
        let (header, units) = input.split_at(header_bytes.min(input.len()));
        let mut content = header.to_vec();
        content.resize(page, 0);
        content.extend_from_slice(units);
        let disk = disk.fork();
        replace(&disk, &name, &content);
        start(&disk)
    });
}

/// Sets the checksums of the header, of units, and of the records in them, as far as they can be found.
fn mend_segment(input: &mut [u8]) {
    let header_bytes = encode_header(1, SEGMENT_BYTES, 0).len();
    if input.len() < header_bytes {
        return;
    }
    seal(&mut input[..header_bytes]);
    let magic = UNIT_MAGIC.to_be_bytes();
    for at in header_bytes..input.len().saturating_sub(UNIT_HEADER_BYTES) {
        if input[at..].starts_with(&magic) {
            seal(&mut input[at..at + UNIT_HEADER_BYTES]);
            mend_records(&mut input[at + UNIT_HEADER_BYTES..]);
        }
    }
}

/// Sets the checksums of records that follow each other, up to the first that is none.
fn mend_records(mut bytes: &mut [u8]) {
    while bytes.len() > RECORD_PREFIX_BYTES {
        let head_bytes = usize::from(BigEndian::read_u16(&bytes[2..4]));
        if RECORD_PREFIX_BYTES + head_bytes > bytes.len() {
            return;
        }
        let (prefix, rest) = bytes.split_at_mut(RECORD_PREFIX_BYTES);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&prefix[..RECORD_PREFIX_BYTES - 4]);
        crc.update(&rest[..head_bytes]);
        BigEndian::write_u32(&mut prefix[RECORD_PREFIX_BYTES - 4..], crc.finalize());
        let kind = RecordKind::from_byte(prefix[0]);
        let body = kind.and_then(|kind| body_of_head(kind, &rest[..head_bytes]));
        let body_bytes = body.ok().flatten().map_or(0, |body| body.length);
        match rest.get_mut(head_bytes + body_bytes..) {
            Some(next) => bytes = next,
            None => return,
        }
    }
}

/// Sets the checksum at the end of `bytes`.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..end]);
    BigEndian::write_u32(&mut bytes[end..], crc);
}

#[test]
fn an_identity_of_any_bytes_is_read_or_refused() {
    let disk = disk();
    let name = IDENTITY_NAME;
    let whole = disk.contents(name).expect("a directory has an identity");
    let target = Target {
        mend: |input| {
            if input.len() > 4 {
                seal(input);
            }
        },
        ..Target::new("identity", vec![whole], 2_000)
    };
    fuzz(&target, |input| {
        let disk = disk.fork();
        disk.remove(name).expect("no faults");
        replace(&disk, name, input);
        start(&disk)
    });
}

#[test]
fn a_snapshot_of_any_bytes_is_loaded_or_refused() {
    let disk = SimDisk::new(1);
    let name = write_snapshot(&disk);
    let target = Target {
        mend: mend_snapshot,
        ..Target::new("snapshot", vec![disk.contents(&name).expect("it was written")], 8_000)
    };
    fuzz(&target, |input| {
        let disk = SimDisk::new(1);
        replace(&disk, &name, input);
        let loaded = Loading::begin(&disk, &name, State::new()).and_then(Loading::finish);
        match loaded {
            Ok((header, mut state)) => {
                assert_eq!(
                    state.begin_snapshot(),
                    header.summary,
                    "the state is not what its header says"
                );
                format!("{} keys", state.keys())
            }
            Err(error) => format!("refused: {error}"),
        }
    });
}

/// A snapshot of three keys and a session; its name.
fn write_snapshot(disk: &SimDisk) -> String {
    let (mut state, mut applied) = (State::new(), Vec::new());
    let mut opened = Slot::ZERO;
    for number in 0..4 {
        let op = match number {
            0 => Op::Open,
            _ => Op::Put {
                key: Bytes::from(format!("key{number}")),
                value: Bytes::from(vec![b'v'; 20]),
                if_absent: false,
                want_previous: true,
            },
        };
        let session = SessionRef { id: 7, opened };
        let low = number.min(1);
        state.apply(
            Slot(number + 1),
            LogTime(5),
            &[Command {
                session,
                number,
                low,
                op,
            }],
            &mut applied,
        );
        opened = Slot(1);
    }
    assert_eq!((state.keys(), state.sessions()), (3, 1));
    let header = Header {
        cluster_id: 0xc1,
        summary: state.begin_snapshot(),
        config: 1,
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    let mut writer = SnapshotWriter::begin(disk, &header).expect("no faults");
    while state
        .next_of_snapshot(writer.room(), &mut |item| writer.add(item))
        .expect("the content is what it was")
    {}
    writer.finish().and_then(|()| writer.sync()).expect("no faults");
    publish(disk, header.summary.slot).expect("no faults");
    snapshot_name(header.summary.slot)
}

/// Sets the checksums of header, blocks and trailer, as far as they can be found.
fn mend_snapshot(input: &mut [u8]) {
    if input.len() < 16 + TRAILER_BYTES {
        return;
    }
    let mut at = BigEndian::read_u32(&input[12..16]) as usize;
    if at < 16 || at > input.len() {
        return;
    }
    seal(&mut input[..at]);
    while input.len() - at > BLOCK_HEAD_BYTES && input[at..].starts_with(b"SNPB") {
        let length = BigEndian::read_u32(&input[at + 8..at + 12]) as usize;
        let Some(block) = input.get(at + BLOCK_HEAD_BYTES..at + BLOCK_HEAD_BYTES + length) else {
            return;
        };
        let crc = crc32fast::hash(block);
        BigEndian::write_u32(&mut input[at + 16..at + 20], crc);
        seal(&mut input[at..at + BLOCK_HEAD_BYTES]);
        at += BLOCK_HEAD_BYTES + length;
    }
    seal(input);
}
