//! Reading the log: bytes in bounded slices, units one behind the other, records one at a time.
//!
//! Used by recovery, by catch-up and by the restart of the acceptor. At any time one slice and one record are in
//! memory, however large segments and units are. Not here: what damage means (recovery.rs).

use super::error::{Damage, DamageKind, Failure, OpenError, StorageError};
use super::files::{File, Files};
use super::segment::{beginning_of, segment_name};
use super::unit::{self, HeadFault, Position, RECORD_PREFIX_BYTES, UNIT_HEADER_BYTES, UnitHeader};
use crate::paxos::{Ballot, Slot};
use crate::wire::Record;
use bytes::Bytes;
use std::collections::BTreeMap;

/// Most bytes that are read at once, beside a record that is longer.
pub(super) const SLICE_BYTES: usize = 1 << 20;

/// The segments that are there, by number, with their sizes. Numbers have no gaps.
pub(super) type Segments = BTreeMap<u32, u32>;

/// Why reading ended.
#[derive(Debug)]
pub(super) enum ReadError {
    Failed(Failure),
    Damage(Damage),
    /// A whole record of a kind that this build does not know.
    Newer {
        file: String,
        offset: u64,
        kind: u8,
    },
}

/// Reads bytes of the log. Keeps the last segment open, and a slice of it.
#[derive(Debug)]
pub(super) struct LogReader<Fs: Files> {
    files: Fs,
    open: Option<(u32, Fs::File)>,
    /// Where `slice` was read.
    slice_at: Position,
    slice: Vec<u8>,
}

/// A walk over the records of one unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnitWalk {
    unit: UnitHeader,
    /// Of the next record.
    at: Position,
    seen: u32,
    /// Bodies of entries up to here are not needed: a snapshot stands for them.
    covered: Slot,
}

/// A record that was read, and its place.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) content: Content,
    pub(super) at: Position,
    pub(super) bytes: u32,
}

/// What was read of a record.
#[derive(Debug)]
pub(super) enum Content {
    /// All of it.
    Record(Record),
    /// Its head: the body is damaged, and not needed.
    Head {
        slot: Slot,
        /// What accepting it promised.
        promised: Option<Ballot>,
        damage: Damage,
    },
}

impl Found {
    /// The slot, if it is a record of an entry.
    pub(super) fn slot(&self) -> Option<Slot> {
        match &self.content {
            Content::Record(record) => unit::slot_of(record),
            Content::Head { slot, .. } => Some(*slot),
        }
    }

    /// The record, or what of it is still of use.
    pub(super) fn into_record(self) -> Option<Record> {
        match self.content {
            Content::Record(record) => Some(record),
            Content::Head { promised, .. } => promised.map(Record::Promised),
        }
    }
}

impl<Fs: Files> LogReader<Fs> {
    pub(super) fn new(files: Fs) -> LogReader<Fs> {
        LogReader {
            files,
            open: None,
            slice_at: beginning_of(0),
            slice: Vec::new(),
        }
    }

    /// Forgets what was read: the file may have changed since.
    pub(super) fn forget(&mut self) {
        self.slice.clear();
    }

    /// Lets go of file and memory.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.slice = Vec::new();
    }

    /// `count` bytes at `at`, or all that the segment has from there on; reads up to `ahead` bytes more than that.
    pub(super) fn read(&mut self, at: Position, count: usize, ahead: usize) -> Result<&[u8], Failure> {
        let begin = at.offset.wrapping_sub(self.slice_at.offset) as usize;
        let is_there = at.segment == self.slice_at.segment
            && at.offset >= self.slice_at.offset
            && begin + count <= self.slice.len();
        if is_there {
            return Ok(&self.slice[begin..begin + count]);
        }
        self.fill(at, count.max(ahead.min(SLICE_BYTES)))?;
        Ok(&self.slice[..count.min(self.slice.len())])
    }

    fn fill(&mut self, at: Position, count: usize) -> Result<(), Failure> {
        self.slice.clear(); // also if what follows fails
        let name = segment_name(at.segment);
        let files = &self.files;
        let failed = |source| Failure::new("read", files.path(&name), source);
        let file = match self.open.take() {
            Some((segment, file)) if segment == at.segment => file,
            _ => files.open(&name).map_err(failed)?,
        };
        let left = file.length().map_err(failed)?.saturating_sub(at.offset.into());
        self.slice.resize(count.min(left as usize), 0);
        file.read_exact_at(&mut self.slice, at.offset.into()).map_err(failed)?;
        self.slice_at = at;
        self.open = Some((at.segment, file));
        Ok(())
    }

    /// The header of the unit that stands at `at`, if one does.
    pub(super) fn header_at(
        &mut self,
        at: Position,
        size: u32,
        log_id: u64,
    ) -> Result<Result<UnitHeader, String>, Failure> {
        let bytes = self.read(at, UNIT_HEADER_BYTES, SLICE_BYTES)?;
        if bytes.len() < UNIT_HEADER_BYTES {
            return Ok(Err("the segment ends here".into()));
        }
        Ok(UnitHeader::decode(bytes, at, log_id).and_then(|unit| {
            if unit.end_offset() > size.into() {
                return Err(format!("unit of {} bytes, longer than its segment", unit.length));
            }
            Ok(unit)
        }))
    }

    /// The unit that was appended behind the one that ends at `end`: it stands there, or, if it did not fit, first in the
    /// next segment; and it says that the log was synced up to `end` before it.
    pub(super) fn unit_behind(
        &mut self,
        end: Position,
        segments: &Segments,
        log_id: u64,
    ) -> Result<Option<UnitHeader>, Failure> {
        for at in [end, beginning_of(end.segment + 1)] {
            let Some(&size) = segments.get(&at.segment) else {
                continue;
            };
            if let Ok(unit) = self.header_at(at, size, log_id)?
                && unit.synced == end
            {
                return Ok(Some(unit));
            }
        }
        Ok(None)
    }

    /// The place that the first unit of the log says it continues: the beginning of the log itself, or, where the segments
    /// before the first were taken away, the end of the last unit in them.
    pub(super) fn end_before_first(&mut self, segments: &Segments, log_id: u64) -> Result<Position, ReadError> {
        let (&first, &size) = segments.first_key_value().expect("a log has a segment");
        let begin = beginning_of(first);
        if first == 1 {
            return Ok(begin);
        }
        match self.header_at(begin, size, log_id)? {
            Ok(unit) if unit.synced.segment + 1 == first => Ok(unit.synced),
            Ok(unit) => {
                let what = format!(
                    "the unit here continues {}, which is not the segment before",
                    unit.synced
                );
                Err(ReadError::Damage(self.damage(begin, DamageKind::UnitHeader, what)))
            }
            Err(what) => Err(ReadError::Damage(self.damage(begin, DamageKind::UnitHeader, what))),
        }
    }

    /// Reads the record at `at` that must end before `end`, and its length. Of entries up to `covered` the head will do.
    fn record(&mut self, at: Position, end: u64, covered: Slot) -> Result<(Content, u32), ReadError> {
        let damage = |reader: &LogReader<Fs>, what| {
            let kind = DamageKind::RecordHead;
            ReadError::Damage(reader.damage(at, kind, what))
        };
        let room = (end - u64::from(at.offset)) as usize;
        if room < RECORD_PREFIX_BYTES {
            return Err(damage(
                self,
                format!("{room} bytes left over behind the unit's last record"),
            ));
        }
        let prefix = self.read(at, RECORD_PREFIX_BYTES, SLICE_BYTES)?;
        let head_bytes = match unit::head_bytes(prefix) {
            Ok(count) if count <= room => count,
            Ok(count) => {
                return Err(damage(
                    self,
                    format!("record head of {count} bytes, {room} are left in the unit"),
                ));
            }
            Err(what) => return Err(damage(self, what)),
        };
        let checked = unit::check_head(self.read(at, head_bytes, SLICE_BYTES)?, at);
        let head = checked.map_err(|fault| match fault {
            HeadFault::Newer(kind) => ReadError::Newer {
                file: self.files.path(&segment_name(at.segment)),
                offset: at.offset.into(),
                kind,
            },
            HeadFault::Bad(what) => damage(self, what),
        })?;
        let body_bytes = head.body.map_or(0, |body| body.length);
        let bytes = head_bytes + body_bytes;
        if bytes > room {
            return Err(damage(
                self,
                format!("record of {bytes} bytes, {room} are left in the unit"),
            ));
        }
        let all = self.read(at, bytes, SLICE_BYTES)?;
        let body = Bytes::copy_from_slice(&all[head_bytes..]);
        let content = match unit::decode(head, &all[..head_bytes], body) {
            Ok(record) => Content::Record(record),
            Err(what) => {
                let known = unit::entry_of(head, &all[..head_bytes]);
                let damage = self.damage(at, DamageKind::RecordBody, what);
                match known.filter(|(slot, _)| *slot <= covered) {
                    Some((slot, promised)) => Content::Head { slot, promised, damage },
                    None => return Err(damage.into()),
                }
            }
        };
        Ok((content, bytes as u32))
    }

    /// Reads a record whose place and length are known, and no more than `ahead` bytes with it.
    pub(super) fn known_record(&mut self, at: Position, bytes: u32, ahead: usize) -> Result<Record, ReadError> {
        self.read(at, bytes as usize, ahead)?;
        match self.record(at, u64::from(at.offset) + u64::from(bytes), Slot::ZERO)?.0 {
            Content::Record(record) => Ok(record),
            Content::Head { damage, .. } => Err(damage.into()),
        }
    }

    /// Damage at a place.
    pub(super) fn damage(&self, at: Position, kind: DamageKind, what: String) -> Damage {
        Damage {
            file: self.files.path(&segment_name(at.segment)),
            offset: at.offset.into(),
            kind,
            what,
        }
    }
}

impl UnitWalk {
    /// From the first record of `unit` on. Of entries up to `covered`, 0 for none, the head will do.
    pub(super) fn new(unit: UnitHeader, covered: Slot) -> UnitWalk {
        UnitWalk {
            unit,
            at: unit.at.plus(UNIT_HEADER_BYTES as u32),
            seen: 0,
            covered,
        }
    }

    /// The unit.
    pub(super) fn unit(&self) -> UnitHeader {
        self.unit
    }

    /// The next record; `None` behind the last.
    pub(super) fn next<Fs: Files>(&mut self, reader: &mut LogReader<Fs>) -> Result<Option<Found>, ReadError> {
        let at = self.at;
        if at == self.unit.end() {
            if self.seen == self.unit.records {
                return Ok(None);
            }
            let what = format!(
                "the unit holds {} records, its header says {}",
                self.seen, self.unit.records
            );
            return Err(ReadError::Damage(reader.damage(
                self.unit.at,
                DamageKind::UnitHeader,
                what,
            )));
        }
        let (content, bytes) = reader.record(at, self.unit.end_offset(), self.covered)?;
        self.at = at.plus(bytes);
        self.seen += 1;
        Ok(Some(Found { content, at, bytes }))
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> ReadError {
        ReadError::Failed(failure)
    }
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> ReadError {
        ReadError::Damage(damage)
    }
}

impl From<ReadError> for StorageError {
    fn from(error: ReadError) -> StorageError {
        match error {
            ReadError::Failed(failure) => StorageError::Failed(failure),
            ReadError::Damage(damage) => StorageError::Damage(damage),
            // Of what this process found at its start, or wrote, it knows every kind.
            ReadError::Newer { file, offset, kind } => StorageError::Damage(Damage {
                file,
                offset,
                kind: DamageKind::RecordHead,
                what: HeadFault::Newer(kind).to_string(),
            }),
        }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> OpenError {
        match error {
            ReadError::Failed(failure) => OpenError::Failed(failure),
            ReadError::Damage(damage) => OpenError::Damage(damage),
            ReadError::Newer { file, offset, kind } => OpenError::NewerRecord { file, offset, kind },
        }
    }
}
