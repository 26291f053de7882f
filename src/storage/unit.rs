//! The append unit: what one turn puts behind the log, framed so that a torn one is told from a damaged one.
//!
//! A unit is a header and the turn's records; each record is a prefix, a head (`wire::record`) and, for entries, the
//! body as it came from the leader. Three checksums, each made where its bytes are made (`rules.md` 11, 24):
//! * the unit header's covers the header: its own position, its length, the place up to which the log was synced
//!   before it, and the log's id. So no old unit, and none of another log, reads as valid in a reused place; and the
//!   header alone proves that what stands before it had been synced.
//! * the record prefix's covers kind, position and head, and the head names length and checksum of the body: a new head
//!   over an old body of equal length is found.
//! * the body's is the leader's; it is checked when read and never computed again when appended.
//!
//! `protocol.md`, "On disk", has the bytes as boxes. Not here: where units go (wal.rs), what to make of bad ones
//! (recovery.rs).

use crate::paxos::{Ballot, Slot};
use crate::wire::Record;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::record::{BodyRef, HEAD_BYTES_MAX, RecordKind, body_of_head, entry_of_head};
use bytes::Bytes;
use std::fmt;
use std::io::IoSlice;
use std::ops::Range;

/// First bytes of every unit: "SYNU".
pub const UNIT_MAGIC: u32 = 0x5359_4e55;
/// Bytes of a unit's header.
pub const UNIT_HEADER_BYTES: usize = 40;
/// Bytes before a record's head.
pub const RECORD_PREFIX_BYTES: usize = 16;
/// A body from this size on is handed to the kernel where it lies; a smaller one is cheaper to copy.
const BODY_BYTES_SHARED_MIN: usize = 4096;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the segment; the first is 1.
    pub segment: u32,
    /// Bytes from the beginning of its file.
    pub offset: u32,
}

/// The header of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitHeader {
    /// Where it stands.
    pub at: Position,
    /// Bytes of records behind the header.
    pub length: u32,
    /// How many records.
    pub records: u32,
    /// Everything before this place was synced when the unit was written: the end of the unit before it.
    pub synced: Position,
    /// Which log it belongs to.
    pub log_id: u64,
}

/// Prefix and head of a record, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) kind: RecordKind,
    pub(super) body: Option<BodyRef>,
}

/// Builds one unit; kept from turn to turn, so that its memory is, too.
#[derive(Debug, Default)]
pub(super) struct UnitBuffer {
    /// The unit's header, the records' prefixes and heads, and small bodies.
    bytes: Vec<u8>,
    /// Large bodies, and where in `bytes` each belongs.
    bodies: Vec<(usize, Bytes)>,
    records: Vec<Placed>,
    length: usize,
}

/// A record in a [`UnitBuffer`].
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// For entries: their slot.
    pub(super) slot: Option<Slot>,
    /// From the beginning of the unit to the record's prefix.
    pub(super) offset: u32,
    /// Prefix, head and body.
    pub(super) length: u32,
    /// Prefix and head within the buffer's bytes.
    head: Range<usize>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment, self.offset)
    }
}

impl Position {
    /// So many bytes further in the same segment.
    pub(super) fn plus(self, bytes: u32) -> Position {
        Position {
            segment: self.segment,
            offset: self.offset + bytes,
        }
    }
}

impl UnitHeader {
    /// The place behind the unit. In `u64`, as the length of a header that was only just read may be anything.
    pub(super) fn end_offset(&self) -> u64 {
        u64::from(self.at.offset) + UNIT_HEADER_BYTES as u64 + u64::from(self.length)
    }

    /// The place behind a unit that is known to lie within its segment.
    pub(super) fn end(&self) -> Position {
        self.at.plus(UNIT_HEADER_BYTES as u32 + self.length)
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; UNIT_HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(UNIT_HEADER_BYTES);
        let mut out = Writer::new(&mut bytes);
        out.u32(UNIT_MAGIC);
        out.u32(self.at.segment);
        out.u32(self.at.offset);
        out.u32(self.length);
        out.u32(self.records);
        out.u32(self.synced.segment);
        out.u32(self.synced.offset);
        out.u64(self.log_id);
        let crc = crc32fast::hash(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes.try_into().expect("the fields above are 40 bytes")
    }

    /// The header that stands at `at` in log `log_id`.
    ///
    /// # Errors
    /// Says in words why these bytes are none.
    pub fn decode(bytes: &[u8], at: Position, log_id: u64) -> Result<UnitHeader, String> {
        let header = UnitHeader::parse(bytes)?;
        if header.at != at {
            return Err(format!("unit header of another place: {}", header.at));
        }
        if header.log_id != log_id {
            return Err("unit header of another log".into());
        }
        Ok(header)
    }

    /// The header that these bytes are, of whatever place and log.
    ///
    /// # Errors
    /// Says in words why these bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<UnitHeader, String> {
        let truncated = |error| format!("{error}");
        if bytes.iter().all(|&byte| byte == 0) {
            return Err("zeros where a unit should begin".into());
        }
        let mut from = Reader::copying(bytes);
        let magic = from.u32("magic").map_err(truncated)?;
        if magic != UNIT_MAGIC {
            return Err(format!("no unit begins here (magic {magic:08x})"));
        }
        let mut field = |name| from.u32(name).map_err(truncated);
        let [segment, offset, length] = [field("segment")?, field("offset")?, field("length")?];
        let [records, synced_segment, synced_offset] = [field("records")?, field("synced")?, field("synced")?];
        let found_id = from.u64("log id").map_err(truncated)?;
        let stated = from.u32("crc").map_err(truncated)?;
        let computed = crc32fast::hash(&bytes[..UNIT_HEADER_BYTES - 4]);
        if stated != computed {
            return Err(format!("unit header has crc {computed:08x}, stated is {stated:08x}"));
        }
        Ok(UnitHeader {
            at: Position { segment, offset },
            length,
            records,
            synced: Position {
                segment: synced_segment,
                offset: synced_offset,
            },
            log_id: found_id,
        })
    }
}

/// Bytes of prefix and head of the record that begins with these [`RECORD_PREFIX_BYTES`]. Bounded, and not yet checked.
pub(super) fn head_bytes(prefix: &[u8]) -> Result<usize, String> {
    let mut from = Reader::copying(&prefix[2..4]);
    match from.u16("head length").map_err(|error| error.to_string())? {
        length if usize::from(length) <= HEAD_BYTES_MAX => Ok(RECORD_PREFIX_BYTES + usize::from(length)),
        length => Err(format!(
            "record head of {length} bytes, at most {HEAD_BYTES_MAX} are possible"
        )),
    }
}

/// Why a record's head is refused.
#[derive(Debug)]
pub(super) enum HeadFault {
    /// It is whole, of a kind that this build does not know: no fault of a disk wrote it, but a newer build.
    Newer(u8),
    Bad(String),
}

/// Checks prefix and head of the record at `at`.
pub(super) fn check_head(bytes: &[u8], at: Position) -> Result<RecordHead, HeadFault> {
    let byte = check_prefix(bytes, at).map_err(HeadFault::Bad)?;
    let kind = RecordKind::from_byte(byte).map_err(|_| HeadFault::Newer(byte))?;
    let body = body_of_head(kind, &bytes[RECORD_PREFIX_BYTES..]);
    let body = body.map_err(|error| HeadFault::Bad(format!("record head: {error}")))?;
    Ok(RecordHead { kind, body })
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeadFault::Newer(kind) => write!(
                f,
                "record of kind {kind:02x}, which a newer build wrote: this one does not know it"
            ),
            HeadFault::Bad(what) => f.write_str(what),
        }
    }
}

/// The byte that stands for the kind, if prefix and head are whole and belong there.
fn check_prefix(bytes: &[u8], at: Position) -> Result<u8, String> {
    let (prefix, head) = bytes.split_at(RECORD_PREFIX_BYTES);
    let words = |error| format!("record head: {error}");
    let mut from = Reader::copying(prefix);
    let kind = from.u8("kind").map_err(words)?;
    let reserved = from.u8("reserved").map_err(words)?;
    from.u16("head length").map_err(words)?;
    let segment = from.u32("segment").map_err(words)?;
    let offset = from.u32("offset").map_err(words)?;
    let stated = from.u32("crc").map_err(words)?;
    let computed = head_crc(prefix, head);
    if stated != computed {
        return Err(format!("record head has crc {computed:08x}, stated is {stated:08x}"));
    }
    if (Position { segment, offset }) != at {
        return Err(format!("record of another place: segment {segment} offset {offset}"));
    }
    if reserved != 0 {
        return Err(format!("record head with reserved byte {reserved:02x}"));
    }
    Ok(kind)
}

/// The record whose prefix and head were checked, with what stands behind them.
pub(super) fn decode(head: RecordHead, bytes: &[u8], body: Bytes) -> Result<Record, String> {
    let body = head.body.map(|_| body);
    Record::decode(head.kind, &bytes[RECORD_PREFIX_BYTES..], body).map_err(|error| format!("record: {error}"))
}

/// The slot and ballot of the entry whose prefix and head were checked, whatever became of its body.
pub(super) fn entry_of(head: RecordHead, bytes: &[u8]) -> Option<(Slot, Option<Ballot>)> {
    entry_of_head(head.kind, &bytes[RECORD_PREFIX_BYTES..]).ok().flatten()
}

fn head_crc(prefix: &[u8], head: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&prefix[..RECORD_PREFIX_BYTES - 4]);
    crc.update(head);
    crc.finalize()
}

/// The slot of a record that holds an entry.
pub(super) fn slot_of(record: &Record) -> Option<Slot> {
    match record {
        Record::Accepted { slot, .. } | Record::Learned { slot, .. } | Record::Copied { slot, .. } => Some(*slot),
        _ => None,
    }
}

impl UnitBuffer {
    /// Takes as many of `records` as fit a unit of `bytes_max`; how many.
    pub(super) fn fill(&mut self, records: &[Record], bytes_max: usize) -> usize {
        self.bytes.clear();
        self.bodies.clear();
        self.records.clear();
        self.bytes.resize(UNIT_HEADER_BYTES, 0);
        self.length = UNIT_HEADER_BYTES;
        records.iter().take_while(|record| self.push(record, bytes_max)).count()
    }

    /// Bytes of the whole unit.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The records and their places within the unit.
    pub(super) fn records(&self) -> &[Placed] {
        &self.records
    }

    fn push(&mut self, record: &Record, bytes_max: usize) -> bool {
        let begin = self.bytes.len();
        self.bytes.resize(begin + RECORD_PREFIX_BYTES, 0);
        record.encode_head(&mut self.bytes);
        let head = begin..self.bytes.len();
        let body = record.body();
        let length = head.len() + body.map_or(0, Bytes::len);
        if self.length + length > bytes_max {
            self.bytes.truncate(begin);
            return false;
        }
        let head_length = u16::try_from(head.len() - RECORD_PREFIX_BYTES).expect("HEAD_BYTES_MAX is far below 64 KiB");
        self.bytes[begin] = record.kind().byte();
        self.bytes[begin + 2..begin + 4].copy_from_slice(&head_length.to_be_bytes());
        match body {
            Some(body) if body.len() >= BODY_BYTES_SHARED_MIN => self.bodies.push((head.end, body.clone())),
            Some(body) => self.bytes.extend_from_slice(body),
            None => {}
        }
        self.records.push(Placed {
            slot: slot_of(record),
            offset: self.length as u32,
            length: length as u32,
            head,
        });
        self.length += length;
        true
    }

    /// Fills in all that hangs on where the unit goes.
    pub(super) fn place(&mut self, at: Position, synced: Position, log_id: u64) {
        let header = UnitHeader {
            at,
            length: (self.length - UNIT_HEADER_BYTES) as u32,
            records: self.records.len() as u32,
            synced,
            log_id,
        };
        self.bytes[..UNIT_HEADER_BYTES].copy_from_slice(&header.encode());
        for record in &self.records {
            let (prefix, head) = self.bytes[record.head.clone()].split_at_mut(RECORD_PREFIX_BYTES);
            prefix[4..8].copy_from_slice(&at.segment.to_be_bytes());
            prefix[8..12].copy_from_slice(&(at.offset + record.offset).to_be_bytes());
            let crc = head_crc(prefix, head);
            prefix[12..].copy_from_slice(&crc.to_be_bytes());
        }
    }

    /// The unit's bytes, as pieces in order.
    pub(super) fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.bodies.len() + 1);
        let mut begin = 0;
        for (end, body) in &self.bodies {
            pieces.push(IoSlice::new(&self.bytes[begin..*end]));
            pieces.push(IoSlice::new(body));
            begin = *end;
        }
        pieces.push(IoSlice::new(&self.bytes[begin..]));
        pieces
    }

    /// Lets go of the bodies, which others share.
    pub(super) fn clear(&mut self) {
        self.bodies.clear();
        self.records.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::paxos::{Ballot, LogTime, NodeId};
    use crate::wire::body;

    const AT: Position = Position {
        segment: 2,
        offset: 4096,
    };
    const SYNCED: Position = Position { segment: 1, offset: 77 };

    fn records() -> Vec<Record> {
        let ballot = Ballot {
            round: 3,
            node: NodeId(2),
        };
        let entry = body::noop(LogTime(9));
        let slot = Slot(5);
        vec![Record::Promised(ballot), Record::Accepted { slot, ballot, entry }]
    }

    fn unit(records: &[Record]) -> Vec<u8> {
        let mut buffer = UnitBuffer::default();
        assert_eq!(buffer.fill(records, usize::MAX), records.len());
        buffer.place(AT, SYNCED, 7);
        let bytes: Vec<u8> = buffer.pieces().iter().flat_map(|piece| piece.to_vec()).collect();
        assert_eq!(bytes.len(), buffer.length());
        bytes
    }

    #[test]
    fn a_unit_reads_back_as_it_was_built() {
        let bytes = unit(&records());
        let header = UnitHeader::decode(&bytes[..UNIT_HEADER_BYTES], AT, 7).unwrap();
        assert_eq!((header.records, header.synced), (2, SYNCED));
        assert_eq!(header.end_offset(), 4096 + bytes.len() as u64);
        let mut at = UNIT_HEADER_BYTES;
        for record in records() {
            let head = head_bytes(&bytes[at..at + RECORD_PREFIX_BYTES]).unwrap();
            let checked = check_head(&bytes[at..at + head], AT.plus(at as u32)).unwrap();
            let body = checked.body.map_or(0, |body| body.length);
            let body_bytes = Bytes::copy_from_slice(&bytes[at + head..at + head + body]);
            assert_eq!(decode(checked, &bytes[at..at + head], body_bytes), Ok(record));
            at += head + body;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn every_flipped_bit_of_header_and_heads_is_found() {
        let bytes = unit(&records());
        for bit in 0..UNIT_HEADER_BYTES * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                UnitHeader::decode(&bad[..UNIT_HEADER_BYTES], AT, 7).is_err(),
                "bit {bit}"
            );
        }
        let head = UNIT_HEADER_BYTES..UNIT_HEADER_BYTES + head_bytes(&bytes[UNIT_HEADER_BYTES..]).unwrap();
        for bit in 0..head.len() * 8 {
            let mut bad = bytes[head.clone()].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            let is_found =
                head_bytes(&bad) != Ok(bad.len()) || check_head(&bad, AT.plus(UNIT_HEADER_BYTES as u32)).is_err();
            assert!(is_found, "bit {bit}");
        }
    }

    #[test]
    fn a_unit_of_another_place_or_log_is_refused() {
        let bytes = unit(&records());
        let header = &bytes[..UNIT_HEADER_BYTES];
        assert!(
            UnitHeader::decode(header, AT.plus(1), 7)
                .unwrap_err()
                .contains("another place")
        );
        assert!(UnitHeader::decode(header, AT, 8).unwrap_err().contains("another log"));
        let head = &bytes[UNIT_HEADER_BYTES..UNIT_HEADER_BYTES + RECORD_PREFIX_BYTES + 10];
        assert!(check_head(head, AT).unwrap_err().to_string().contains("another place"));
    }

    #[test]
    fn a_large_body_is_shared_and_a_bound_is_kept() {
        let large = testing::accepted(1, 10_000);
        let body = large.body().unwrap().clone();
        let mut buffer = UnitBuffer::default();
        assert_eq!(
            buffer.fill(&[large.clone(), large.clone()], 15_000),
            1,
            "the second does not fit"
        );
        buffer.place(AT, SYNCED, 7);
        let pieces = buffer.pieces();
        assert!(
            pieces.iter().any(|piece| piece.as_ptr() == body.as_ptr()),
            "no copy of a large body"
        );
        assert_eq!(buffer.fill(&[large], 5_000), 0);
    }
}
