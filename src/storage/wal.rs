//! The write-ahead log: units appended to segments, one sync a turn, and what was written read back.
//!
//! How the turn drives it: [`Wal::append`] with all records of the turn, [`Wal::sync`] before anything that claims
//! durability leaves, [`Wal::prepare_ahead`] once at its end. Invariants:
//! * W1. When a unit is written, everything before it is synced; so only the last unit can be torn (`rules.md` 24).
//! * W2. A failed write or sync is final: nothing is written or synced after it in this life (`rules.md` 26).
//! * W3. The rest of the segment, and the segment ahead, hold zeros on disk before a unit is written there.
//!
//! Room (`rules.md` 26): one segment is made ahead. When the disk has no room for it, [`Wal::room_for`] says no while
//! [`RESERVE_BYTES`] are left: the caller then drops ACCEPTs *before* it steps the machine with them, and refuses to
//! propose; promises and used ballots are appended without asking and live on the reserve, some hundred units.
//!
//! * `truncate`: how the log loses its beginning.
//!
//! Not here: what a unit is (unit.rs), the start (recovery.rs).

mod truncate;

use super::error::{Damage, DamageKind, Failure, OpenError, StorageError};
use super::files::{File, Files};
use super::index::{Place, SlotIndex};
use super::reader::{Content, Found, LogReader, ReadError, SLICE_BYTES, Segments, UnitWalk};
use super::recovery::Recovery;
use super::segment::{self, Making, beginning_of, segment_name};
use super::unit::{Position, UNIT_HEADER_BYTES, UnitBuffer};
use crate::paxos::{Entry, Slot};
use crate::wire::Record;
use truncate::{Spares, Truncation};

/// Default size of a segment.
pub const SEGMENT_BYTES: u32 = 16 << 20;
/// Smallest size of a segment that an operator may set: any legal entry fits one.
pub const SEGMENT_BYTES_MIN: u32 = 4 << 20;
/// A log begins with a segment of at most this size, so that a new node need not write a large one before it starts.
pub const FIRST_SEGMENT_BYTES: u32 = 4 << 20;
/// Kept for promises and used ballots when the disk is full.
pub const RESERVE_BYTES: usize = 64 << 10;
/// The segment ahead is made so many times as fast as the one in use fills.
const AHEAD_PACE: u64 = 2;
/// Least bytes of the segment ahead that one turn writes, if any: a slice is two system calls.
const AHEAD_SLICE_BYTES_MIN: u32 = 128 << 10;
/// Most bytes of the segment ahead that one turn writes.
pub const AHEAD_SLICE_BYTES: u32 = 512 << 10;
/// Turns between two looks at a full disk.
const FULL_DISK_TURNS: u32 = 64;

const _: () = assert!(
    SEGMENT_BYTES_MIN as usize - segment::UNITS_BEGIN as usize
        >= crate::wire::body::BODY_BYTES_MAX + crate::wire::record::HEAD_BYTES_MAX + UNIT_HEADER_BYTES + RESERVE_BYTES,
    "the largest entry fits the smallest segment, and leaves the reserve"
);

/// A write-ahead log in one directory.
#[derive(Debug)]
pub struct Wal<Fs: Files> {
    files: Fs,
    log_id: u64,
    segment_bytes: u32,
    segments: Segments,
    state: State<Fs::File>,
    ahead: Ahead<Fs::File>,
    buffer: UnitBuffer,
    reader: LogReader<Fs>,
    index: SlotIndex,
    reread: Option<Reread>,
    truncation: Truncation,
    spares: Spares,
    /// The start had a snapshot of this slot, which stands for the bodies of entries up to there.
    covered: Slot,
}

/// What of the log is on disk.
pub(super) struct Extent<'a> {
    pub(super) segments: &'a Segments,
    pub(super) log_id: u64,
    /// Behind the last unit that is synced.
    pub(super) synced: Position,
}

/// How far the log can be used.
#[derive(Debug)]
enum State<F> {
    /// Opened and not yet read back.
    Unread,
    /// In use.
    Open(Tip<F>),
    /// Failed for good (W2).
    Broken,
}

/// Where the log grows.
#[derive(Debug)]
struct Tip<F> {
    /// The segment of `end`.
    file: F,
    /// Behind the last unit.
    end: Position,
    /// Behind the last unit that is synced.
    synced: Position,
    /// The next unit goes to the next segment, which is there.
    is_left: bool,
}

/// The making of the segment behind the last one that is there.
#[derive(Debug)]
enum Ahead<F> {
    Idle,
    Making(Making<F>),
    /// The disk was full; look again after so many turns.
    NoSpace {
        turns: u32,
    },
}

/// Where a reading from the beginning stands.
#[derive(Debug)]
struct Reread {
    /// Behind the last unit that was begun.
    end: Position,
    walk: Option<UnitWalk>,
}

impl<Fs: Files> Wal<Fs> {
    /// Makes the first segment of a new log, with these records in it. Nothing else may be in the way. It has its name only
    /// when all of that is durable.
    ///
    /// # Errors
    /// [`OpenError::Failed`].
    pub(super) fn create(files: &Fs, log_id: u64, segment_bytes: u32, records: &[Record]) -> Result<(), OpenError> {
        let size = segment_bytes.min(FIRST_SEGMENT_BYTES);
        let mut making = Making::begin(files, 1, size, log_id, None)?;
        if !records.is_empty() {
            let mut unit = UnitBuffer::default();
            let taken = unit.fill(records, (size - segment::UNITS_BEGIN) as usize);
            assert!(taken == records.len(), "a new log begins with a few small records");
            unit.place(beginning_of(1), beginning_of(1), log_id);
            making.put_unit(files, &unit)?;
        }
        making.advance(files, size)?;
        Ok(())
    }

    /// Looks at the segments of the log; [`Wal::recover`] must follow.
    ///
    /// # Errors
    /// A segment that is missing or has a bad header, by name.
    pub(super) fn open(files: Fs, log_id: u64, segment_bytes: u32) -> Result<Wal<Fs>, OpenError> {
        let names = files
            .list()
            .map_err(|source| Failure::new("list", files.directory(), source))?;
        let mut segments = Segments::new();
        for number in names.iter().filter_map(|name| segment::segment_of(name)) {
            // The first may be any: what stood before it may have been taken away, which the log itself must say.
            let expected = segments.last_key_value().map_or(number, |(last, _)| last + 1);
            if number != expected {
                let reason = format!(
                    "{} is there, and segments are numbered without gaps",
                    segment_name(number)
                );
                let file = files.path(&segment_name(expected));
                return Err(OpenError::Missing { file, reason });
            }
            segments.insert(number, segment::check_header(&files, number, log_id)?);
        }
        if segments.is_empty() {
            let file = files.path(&segment_name(1));
            let reason = "IDENTITY is there, which is written only behind it".into();
            return Err(OpenError::Missing { file, reason });
        }
        Ok(Wal {
            reader: LogReader::new(files.clone()),
            files,
            log_id,
            segment_bytes,
            segments,
            state: State::Unread,
            ahead: Ahead::Idle,
            buffer: UnitBuffer::default(),
            index: SlotIndex::default(),
            reread: None,
            truncation: Truncation::default(),
            spares: Spares::default(),
            covered: Slot::ZERO,
        })
    }

    /// Reads the whole log back, in bounded memory, and hands every record on in order. What is handed on is on disk.
    /// Returns the damage of bodies that are not needed, since a snapshot of slot `covered` stands for them.
    ///
    /// # Errors
    /// Any other damage but in a torn tail; then nothing that was handed on may be acted on.
    pub(super) fn recover(&mut self, covered: Slot, give: &mut dyn FnMut(Record)) -> Result<Vec<Damage>, OpenError> {
        assert!(matches!(self.state, State::Unread), "the log is read back once");
        let (index, truncation) = (&mut self.index, &mut self.truncation);
        let first = *self.segments.keys().next().expect("a log has a segment");
        let mut recovery = Recovery {
            files: &self.files,
            reader: &mut self.reader,
            segments: &self.segments,
            log_id: self.log_id,
            covered,
        };
        let mut outlived = Vec::new();
        let end = recovery.run(&mut |found: Found| {
            if let Some(slot) = found.slot() {
                let Found { at, bytes, .. } = found;
                index.put(slot, Place { at, bytes });
                truncation.note_slot(at.segment, slot);
            }
            if let Content::Head { damage, .. } = &found.content {
                outlived.push(damage.clone());
            }
            if let Some(record) = found.into_record() {
                if let Record::Installed { slot } = record {
                    index.forget_upto(slot);
                }
                truncation.note_found(&record, first);
                give(record);
            }
        })?;
        self.check_beginning(first)?;
        self.reader.close();
        let name = segment_name(end.segment);
        let file = self
            .files
            .open(&name)
            .map_err(|source| Failure::new("open", self.files.path(&name), source))?;
        let synced = end;
        let is_left = false;
        self.state = State::Open(Tip {
            file,
            end,
            synced,
            is_left,
        });
        self.covered = covered;
        Ok(outlived)
    }

    /// Writes `records` behind the log as one unit; [`Wal::sync`] makes them durable. Only records that no segment could
    /// hold together become several units, synced in between (W1). Nothing to append, nothing is done.
    ///
    /// # Errors
    /// [`StorageError::Failed`] is final. [`StorageError::Full`]: asked [`Wal::room_for`] too little, or the reserve is
    /// used up too; nothing can be promised any more, and the process should end.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let mut rest = records;
        while !rest.is_empty() {
            self.sync()?;
            let taken = self.append_unit(rest)?;
            rest = &rest[taken..];
        }
        for record in records {
            if let Record::Installed { slot } = record {
                self.index.forget_upto(*slot);
            }
        }
        self.truncation.note_appended(records);
        Ok(())
    }

    fn append_unit(&mut self, records: &[Record]) -> Result<usize, StorageError> {
        let bytes_max = self.unit_bytes_max();
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = buffer.fill(records, bytes_max);
        let written = if taken == 0 {
            let bytes = records[0].body().map_or(0, |body| body.len());
            Err(StorageError::TooLarge { bytes, bytes_max })
        } else {
            self.write(&mut buffer)
        };
        buffer.clear();
        self.buffer = buffer;
        written.map(|()| taken)
    }

    fn write(&mut self, buffer: &mut UnitBuffer) -> Result<(), StorageError> {
        let at = self.place(buffer.length())?;
        let tip = self.tip()?;
        let synced = tip.synced;
        assert!(tip.end == synced, "W1: a unit at {at}, synced only up to {synced}");
        buffer.place(at, synced, self.log_id);
        let tip = self.tip()?;
        let written = tip.file.write_all_at(&mut buffer.pieces(), at.offset.into());
        tip.end = at.plus(buffer.length() as u32);
        written.map_err(|source| self.fail("write to", source))?;
        for record in buffer.records() {
            if let Some(slot) = record.slot {
                let place = Place {
                    at: at.plus(record.offset),
                    bytes: record.length,
                };
                self.index.put(slot, place);
                self.truncation.note_slot(at.segment, slot);
            }
        }
        Ok(())
    }

    /// Makes all that was appended durable: one fdatasync, or none if nothing was.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        let tip = self.tip()?;
        if tip.synced == tip.end {
            return Ok(());
        }
        match tip.file.sync() {
            Ok(()) => tip.synced = tip.end,
            Err(source) => return Err(self.fail("sync", source)),
        }
        self.truncation.note_synced();
        Ok(())
    }

    /// Where a unit of `bytes` goes; the tip moves to the next segment if it does not fit the rest of this one.
    fn place(&mut self, bytes: usize) -> Result<Position, StorageError> {
        if bytes <= self.rest() {
            return Ok(self.tip()?.end);
        }
        if !self.make_ahead()? {
            let room = self.rest();
            return Err(StorageError::Full { bytes, room });
        }
        let at = beginning_of(self.tip()?.end.segment + 1);
        let name = segment_name(at.segment);
        let file = self.files.open(&name);
        let file = file.map_err(|source| Failure::new("open", self.files.path(&name), source))?;
        let tip = self.tip()?;
        (tip.file, tip.is_left) = (file, false);
        Ok(at)
    }

    /// Segments up to this one are damaged: whether no record goes into them any more. The segment in use is left once the
    /// next is there.
    pub fn leave_segments(&mut self, upto: u32) -> bool {
        self.spares.note_damaged(upto);
        let has_next = self.ahead_room() > 0;
        let Ok(tip) = self.tip() else { return false };
        if tip.end.segment == upto && has_next {
            tip.is_left = true;
        }
        tip.end.segment > upto || tip.is_left && tip.end.segment == upto
    }

    /// Makes a slice of the segment ahead, if it is not there. Once a turn, behind its sync. Twice as fast as this segment
    /// fills: what a turn writes ahead is of the size of what it appends, so that no sync waits behind much of it. A full
    /// disk is no failure here: it is looked at again now and then.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn prepare_ahead(&mut self) -> Result<(), StorageError> {
        if let Ahead::NoSpace { turns } = &mut self.ahead {
            *turns = turns.saturating_sub(1);
            if *turns > 0 {
                return Ok(());
            }
        }
        match self.ahead_due()?.min(AHEAD_SLICE_BYTES) {
            0 => Ok(()),
            bytes => self.advance_ahead(bytes).map(|_| ()),
        }
    }

    /// Bytes of the segment ahead that should be there by now and are not; in whole slices, but for its last.
    fn ahead_due(&mut self) -> Result<u32, StorageError> {
        let end = self.tip()?.end;
        if self.segments.contains_key(&(end.segment + 1)) {
            return Ok(0);
        }
        let (size, filled) = (u64::from(self.segment_bytes), u64::from(end.offset));
        let due = size * filled / u64::from(self.segments[&end.segment]) * AHEAD_PACE;
        let due = due.next_multiple_of(AHEAD_SLICE_BYTES_MIN.into()).min(size) as u32; // its size is one
        let written = match &self.ahead {
            Ahead::Making(making) => making.written(),
            Ahead::Idle | Ahead::NoSpace { .. } => 0,
        };
        Ok(due.saturating_sub(written))
    }

    /// Makes all of the segment ahead at once; false if the disk has no room for it.
    fn make_ahead(&mut self) -> Result<bool, StorageError> {
        self.advance_ahead(u32::MAX)
    }

    /// Whether the segment ahead is ready after writing at most `bytes_max` of it.
    fn advance_ahead(&mut self, bytes_max: u32) -> Result<bool, StorageError> {
        let next = self.tip()?.end.segment + 1;
        if self.segments.contains_key(&next) {
            return Ok(true);
        }
        match self.try_advance(next, bytes_max) {
            Ok(is_ready) => Ok(is_ready),
            Err(failure) if failure.is_no_space() => {
                // Only a disk that says that it has room, and has none, is left alone for a while.
                let turns = if self.disk_has_room()? { FULL_DISK_TURNS } else { 0 };
                if !matches!(self.ahead, Ahead::NoSpace { .. }) {
                    log::warn!(
                        "no room for another segment of the log, {} bytes are left in this one: {failure}",
                        self.rest()
                    );
                }
                if matches!(self.ahead, Ahead::Making(_)) {
                    Making::<Fs::File>::abandon(&self.files, next);
                }
                self.ahead = Ahead::NoSpace { turns };
                Ok(false)
            }
            Err(failure) => {
                self.state = State::Broken;
                Err(failure.into())
            }
        }
    }

    fn try_advance(&mut self, next: u32, bytes_max: u32) -> Result<bool, Failure> {
        if !matches!(self.ahead, Ahead::Making(_)) {
            if !self.spares.is_any() && !self.disk_has_room()? {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(Failure::new(
                    "preallocate",
                    self.files.path(&segment_name(next)),
                    source,
                ));
            }
            let spare = self.spares.take();
            let making = Making::begin(&self.files, next, self.segment_bytes, self.log_id, spare)?;
            self.ahead = Ahead::Making(making);
        }
        let Ahead::Making(making) = &mut self.ahead else {
            return Ok(false);
        };
        if !making.advance(&self.files, bytes_max)? {
            return Ok(false);
        }
        let (segment, size) = making.number_and_size();
        self.segments.insert(segment, size);
        self.ahead = Ahead::Idle;
        Ok(true)
    }

    /// Whether the disk has room for another segment.
    fn disk_has_room(&self) -> Result<bool, Failure> {
        let failed = |source| Failure::new("ask", self.files.directory(), source);
        Ok(self.files.free_bytes().map_err(failed)? >= self.segment_bytes.into())
    }

    /// Whether records of so many bytes can be appended and leave the reserve. Makes the segment ahead at once if only
    /// that gives the room. Asked before the machine is stepped with what would append them.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn room_for(&mut self, bytes: usize) -> Result<bool, StorageError> {
        let needed = bytes + UNIT_HEADER_BYTES + self.reserve();
        if needed <= self.rest() {
            return Ok(true);
        }
        let turns_left = matches!(self.ahead, Ahead::NoSpace { turns } if turns > 0);
        let is_ready = !turns_left && self.make_ahead()?;
        Ok(is_ready && needed <= self.ahead_room())
    }

    /// Bytes of records that the log can still take, beside the reserve: what is sure, and the disk's free space if
    /// another segment can be had.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn free_bytes(&self) -> Result<u64, StorageError> {
        let failed = |source| Failure::new("ask", self.files.directory(), source);
        let segment = u64::from(self.segment_bytes);
        let free = self.files.free_bytes().map_err(failed)? + self.spares.count() * segment;
        Ok(self.sure_bytes() + if free < segment { 0 } else { free })
    }

    /// Bytes of records that the log can take in one turn whatever the disk says, beside the reserve: what one of its
    /// segments has left. (Not both together: a unit stands in one.)
    pub fn sure_bytes(&self) -> u64 {
        let most = self.rest().max(self.ahead_room());
        most.saturating_sub(self.reserve() + UNIT_HEADER_BYTES) as u64
    }

    fn reserve(&self) -> usize {
        RESERVE_BYTES.min(self.segment_bytes as usize / 4)
    }

    /// The chosen entries from `first` to at most `last`, without a hole: about `bytes_max` bytes, but at least one
    /// entry if the log has it. The caller knows that they are chosen.
    ///
    /// # Errors
    /// [`StorageError::Damage`] if the disk no longer holds what was synced.
    pub fn read_chosen(&mut self, first: Slot, last: Slot, bytes_max: usize) -> Result<Vec<Entry>, StorageError> {
        self.reader.forget();
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut slot = first;
        while slot <= last {
            let Some(place) = self.index.get(slot) else { break };
            bytes += place.bytes as usize;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            match self.reader.known_record(place.at, place.bytes, bytes_max)? {
                Record::Accepted { slot: found, entry, .. }
                | Record::Learned { slot: found, entry }
                | Record::Copied { slot: found, entry, .. }
                    if found == slot =>
                {
                    entries.push(entry);
                }
                other => {
                    let what = format!("{} where the entry of slot {slot} was written", other.name());
                    return Err(self.reader.damage(place.at, DamageKind::RecordHead, what).into());
                }
            }
            slot = slot.next();
        }
        Ok(entries)
    }

    /// The next records of the log, from its beginning if `restart`, about a mebibyte of them; and whether there are
    /// more. For the restart of the acceptor, with nothing unsynced.
    ///
    /// # Errors
    /// [`StorageError::Damage`] if the disk no longer holds what was synced.
    pub fn reread(&mut self, restart: bool) -> Result<(Vec<Record>, bool), StorageError> {
        self.reader.forget();
        let resumed = self.reread.take().filter(|_| !restart);
        let mut at = match resumed {
            Some(at) => at,
            None => Reread {
                end: self.reader.end_before_first(&self.segments, self.log_id)?,
                walk: None,
            },
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < SLICE_BYTES {
            match self.reread_one(&mut at)? {
                Some(found) => {
                    bytes += found.bytes as usize;
                    records.extend(found.into_record());
                }
                None => return Ok((records, false)),
            }
        }
        self.reread = Some(at);
        Ok((records, true))
    }

    fn reread_one(&mut self, at: &mut Reread) -> Result<Option<Found>, StorageError> {
        let synced = self.tip()?.synced;
        loop {
            if let Some(walk) = &mut at.walk {
                if let Some(found) = walk.next(&mut self.reader)? {
                    return Ok(Some(found));
                }
                at.end = walk.unit().end();
                at.walk = None;
            }
            if at.end == synced {
                return Ok(None);
            }
            let Some(unit) = self.reader.unit_behind(at.end, &self.segments, self.log_id)? else {
                let what = format!("no unit here, and the log was synced up to {synced}");
                return Err(ReadError::Damage(self.reader.damage(at.end, DamageKind::UnitHeader, what)).into());
            };
            at.walk = Some(UnitWalk::new(unit, self.covered));
        }
    }

    /// Behind the last unit.
    pub fn end(&self) -> Option<Position> {
        match &self.state {
            State::Open(tip) => Some(tip.end),
            State::Unread | State::Broken => None,
        }
    }

    /// What of it is on disk; none while it cannot be used.
    pub(super) fn extent(&self) -> Option<Extent<'_>> {
        let State::Open(tip) = &self.state else { return None };
        Some(Extent {
            segments: &self.segments,
            log_id: self.log_id,
            synced: tip.synced,
        })
    }

    fn tip(&mut self) -> Result<&mut Tip<Fs::File>, StorageError> {
        match &mut self.state {
            State::Open(tip) => Ok(tip),
            State::Broken => Err(StorageError::Broken),
            State::Unread => panic!("the log is used before it is read back"),
        }
    }

    fn fail(&mut self, op: &'static str, source: std::io::Error) -> StorageError {
        let name = self
            .end()
            .map_or_else(|| "the log".into(), |end| segment_name(end.segment));
        self.state = State::Broken;
        Failure::new(op, self.files.path(&name), source).into()
    }

    /// Bytes left in this segment.
    fn rest(&self) -> usize {
        match &self.state {
            State::Open(tip) if !tip.is_left => (self.segments[&tip.end.segment] - tip.end.offset) as usize,
            _ => 0,
        }
    }

    /// Bytes in the segment ahead, if it is ready.
    fn ahead_room(&self) -> usize {
        let next = self.end().and_then(|end| self.segments.get(&(end.segment + 1)));
        next.map_or(0, |size| (size - segment::UNITS_BEGIN) as usize)
    }

    /// The largest unit for which there is or will be a place.
    fn unit_bytes_max(&self) -> usize {
        let new = (self.segment_bytes - segment::UNITS_BEGIN) as usize;
        match self.ahead_room() {
            0 => new,
            ahead => ahead,
        }
        .max(self.rest())
    }
}
