//! Bytes from the network: frames, bodies, records. What decodes must encode to the very same bytes.

use crate::driver::{Target, fuzz};
use crate::examples::examples;
use byteorder::{BigEndian, ByteOrder};
use bytes::{Bytes, BytesMut};
use synod::paxos::{Ballot, Entry, EntryKind, Incarnation, LogTime, Message, NodeId, Slot, Start};
use synod::wire::frame::{self, FRAME_BYTES_MAX, FrameType, HEADER_BYTES, HELLO_BYTES_MAX, Header};
use synod::wire::hello::{Base, PROTOCOL_VERSION_MAX};
use synod::wire::record::{self, RecordKind};
use synod::wire::{Frame, Record, RosterEntry, body};

/// Length and checksum.
const PREFIX_BYTES: usize = 8;

/// Every frame that `protocol.md` shows.
pub(crate) fn frames() -> Vec<Vec<u8>> {
    let is_frame = |bytes: &Vec<u8>| {
        let mut buffer = BytesMut::from(&bytes[..]);
        matches!(frame::next_frame(&mut buffer, FRAME_BYTES_MAX), Ok(Some(_))) && buffer.is_empty()
    };
    let frames: Vec<Vec<u8>> = examples()
        .into_values()
        .map(|example| example.bytes)
        .filter(is_frame)
        .collect();
    assert!(frames.len() >= FrameType::ALL.len(), "protocol.md shows every type");
    frames
}

/// Sets the length of what has none that fits, and every checksum.
pub(crate) fn mend_frames(stream: &mut [u8]) {
    let mut at = 0;
    while stream.len() - at >= HEADER_BYTES {
        let rest = stream.len() - at - PREFIX_BYTES;
        let stated = BigEndian::read_u32(&stream[at..at + 4]) as usize;
        let length = if (HEADER_BYTES - PREFIX_BYTES..=rest).contains(&stated) {
            stated
        } else {
            rest
        };
        let (prefix, content) = stream[at..at + PREFIX_BYTES + length].split_at_mut(PREFIX_BYTES);
        BigEndian::write_u32(&mut prefix[..4], length as u32);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&prefix[..4]);
        crc.update(content);
        BigEndian::write_u32(&mut prefix[4..], crc.finalize());
        at += PREFIX_BYTES + length;
    }
}

/// What a receiver makes of a stream that comes in `pieces`; and that what it takes is what it would have sent.
fn receive(pieces: &[&[u8]]) -> Vec<String> {
    let (mut buffer, mut words, mut limit) = (BytesMut::new(), Vec::new(), HELLO_BYTES_MAX);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.clone();
            match frame::next_frame(&mut buffer, limit) {
                Ok(None) => {
                    assert!(
                        frame::bytes_missing(&buffer) <= limit + PREFIX_BYTES,
                        "more is waited for than may come"
                    );
                    break;
                }
                Ok(Some((header, body))) => {
                    let taken = &before[..before.len() - buffer.len()];
                    words.push(look(header, body, taken));
                    limit = FRAME_BYTES_MAX;
                }
                Err(error) => {
                    words.push(format!("{:?} {error}", error.code()));
                    return words;
                }
            }
        }
    }
    words
}

/// Decodes one frame, whose bytes `taken` are, and says what it is.
fn look(header: Header, body: Bytes, taken: &[u8]) -> String {
    match frame::decode(header, body) {
        Ok(decoded) => {
            assert_eq!(FrameType::of(&decoded), header.frame_type);
            // A HELLO of a later version may say more than this one reads.
            let is_later = matches!(&decoded, Frame::Hello(hello) if hello.version_max > PROTOCOL_VERSION_MAX);
            let again = frame::encode_to_bytes(&decoded, header.request_id);
            assert!(
                is_later || again == taken,
                "{decoded:?} says other bytes:\n{again:02x?}\n{taken:02x?}"
            );
            decoded.name().into()
        }
        Err(error) => format!("{:?}: {:?} {error}", header.frame_type, error.code()),
    }
}

#[test]
fn frames_are_taken_or_refused_however_they_are_cut() {
    let target = Target {
        mend: mend_frames,
        ..Target::new("frame", frames(), 20_000)
    };
    fuzz(&target, |stream| {
        let whole = receive(&[stream]);
        // Cut where the input itself says, so that a case is the same when it is tried again.
        let cut = stream.iter().fold(1, |sum: usize, byte| sum + usize::from(*byte)) % (stream.len() + 1);
        let (first, second) = stream.split_at(cut);
        assert_eq!(receive(&[first, second]), whole, "cut at {cut}");
        let bytes: Vec<&[u8]> = stream.chunks(7).collect();
        assert_eq!(receive(&bytes), whole, "in pieces of seven");
        whole.join(" ")
    });
}

#[test]
fn bodies_of_every_type_are_taken_or_refused() {
    let seeds = frames()
        .into_iter()
        .map(|frame| [&frame[PREFIX_BYTES..=PREFIX_BYTES], &frame[HEADER_BYTES..]].concat());
    fuzz(&Target::new("message", seeds.collect(), 40_000), |input| {
        let Some((byte, body)) = input.split_first() else {
            return String::new();
        };
        let frame_type = FrameType::ALL[usize::from(*byte) % FrameType::ALL.len()];
        let frame_type = FrameType::from_byte(*byte).unwrap_or(frame_type);
        let header = Header {
            frame_type,
            more: false,
            request_id: 7,
        };
        let mut taken = Vec::new();
        if body.len() <= FRAME_BYTES_MAX - HEADER_BYTES {
            taken = vec![0; HEADER_BYTES];
            taken[..4].copy_from_slice(&((HEADER_BYTES - PREFIX_BYTES + body.len()) as u32).to_be_bytes());
            taken[PREFIX_BYTES] = frame_type.byte();
            taken[HEADER_BYTES - 8..].copy_from_slice(&7_u64.to_be_bytes());
            taken.extend_from_slice(body);
            mend_frames(&mut taken);
        }
        look(header, Bytes::copy_from_slice(body), &taken)
    });
}

#[test]
fn records_and_their_entries_are_taken_or_refused() {
    // The kind, the length of the head, head, body; an entry alone where no record has the kind.
    let record = |record: &Record| {
        let mut head = Vec::new();
        record.encode_head(&mut head);
        let body = record.body().cloned().unwrap_or_default();
        [&[record.kind().byte(), head.len() as u8], &head[..], &body[..]].concat()
    };
    let mut seeds: Vec<Vec<u8>> = records().iter().map(record).collect();
    seeds.extend(entries().into_iter().map(|entry| [&[0, 0], &entry.body[..]].concat()));
    fuzz(&Target::new("record", seeds, 40_000), |input| {
        let [kind, head_bytes, rest @ ..] = input else {
            return String::new();
        };
        let Ok(kind) = RecordKind::from_byte(*kind) else {
            return look_at_entry(rest);
        };
        let (head, body) = rest.split_at(rest.len().min(usize::from(*head_bytes)));
        look_at_record(kind, head, body)
    });
}

/// As recovery does: what the head says of the body is compared with it, then both become a record.
fn look_at_record(kind: RecordKind, head: &[u8], body: &[u8]) -> String {
    let body = match record::body_of_head(kind, head) {
        // The checksum is the reader's business; here it is as if it were right.
        Ok(stated) => stated.map(|stated| Bytes::copy_from_slice(&body[..body.len().min(stated.length)])),
        Err(error) => return format!("{kind:?}: {error}"),
    };
    match Record::decode(kind, head, body) {
        Ok(record) => {
            let (mut again, before) = (Vec::new(), record.clone());
            record.encode_head(&mut again);
            assert!(record.body().is_some() || again == head, "{before:?} says other bytes");
            record.name().into()
        }
        Err(error) => format!("{kind:?}: {error}"),
    }
}

/// One of every kind.
pub(crate) fn records() -> Vec<Record> {
    let (ballot, node, slot) = (
        Ballot {
            round: 7,
            node: NodeId(2),
        },
        NodeId(3),
        Slot(9),
    );
    let incarnation = Incarnation {
        generation: 1,
        token: 0x1111,
    };
    let mut records = vec![
        Record::Promised(ballot),
        Record::Used(ballot),
        Record::ChosenUpto(slot),
        Record::Founded,
        Record::Lease(500),
        Record::Peer {
            node,
            incarnation,
            start: Start {
                counter: 5,
                token: 0x5555,
            },
        },
        Record::Roster(vec![RosterEntry {
            node,
            incarnation,
            base: Base::default(),
        }]),
    ];
    for entry in entries() {
        records.push(Record::Learned {
            slot,
            entry: entry.clone(),
        });
        records.push(Record::Accepted { slot, ballot, entry });
    }
    records
}

/// A no-op, and what the examples propose.
fn entries() -> Vec<Entry> {
    let mut entries = vec![body::noop(LogTime(5))];
    for frame in frames() {
        let mut buffer = BytesMut::from(&frame[..]);
        let Ok(Some((header, content))) = frame::next_frame(&mut buffer, FRAME_BYTES_MAX) else {
            continue;
        };
        if let Ok(Frame::Paxos(Message::Accept { entry, .. })) = frame::decode(header, content) {
            entries.push(entry);
        }
    }
    entries
}

fn look_at_entry(bytes: &[u8]) -> String {
    let crc = crc32fast::hash(bytes);
    let entry = match body::parse(Bytes::copy_from_slice(bytes), crc) {
        Ok(entry) => entry,
        Err(error) => return format!("entry: {error}"),
    };
    match body::commands(&entry) {
        Ok(commands) => {
            let is_batch = entry.kind == EntryKind::Batch;
            assert!(
                !is_batch || body::batch(entry.stamp, &commands).body == bytes,
                "{commands:?} say other bytes"
            );
            format!("{:?} of {}", entry.kind, commands.len())
        }
        Err(error) => format!("{:?}: {error}", entry.kind),
    }
}
