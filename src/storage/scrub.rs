//! The scrub: what was synced is read again, slowly, while the node runs, so that rot is found while there is still
//! somebody who remembers what stood there.
//!
//! One pass goes through the log (headers of segments, of units and of records, and bodies, each with its checksum, and
//! the chain of the units), then through the snapshots (each block, and the checksum over all), then through `IDENTITY`.
//! It reads in slices, past the page cache where the system allows, since a cached page proves nothing of the disk.
//! Invariants:
//! * C1. One step reads about as much as it is allowed to, and no more than one block of a snapshot beyond.
//! * C2. Nothing that is not synced is looked at, and nothing that was taken away meanwhile.
//! * C3. What nobody wrote is no damage: zeros, or rot in them, behind the last unit of a segment that is full. The unit
//!   behind it says where the log ended.
//!
//! Not here: when a step is made and what is done about damage (`node::snapshots`).

use super::error::{Damage, DamageKind, Failure, StorageError};
use super::files::{File, Files};
use super::identity::{IDENTITY_NAME, Identity};
use super::segment::{beginning_of, check_header, segment_name, segment_of};
use super::snapshot::{HEADER_BYTES_MAX, SnapshotReader, snapshot_name, snapshot_of};
use super::unit::{self, Position, RECORD_PREFIX_BYTES, UNIT_HEADER_BYTES, UnitHeader};
use super::wal::Extent;
use super::{OpenError, Storage};
use crate::paxos::Slot;
use crate::wire::record::{BodyRef, HEAD_BYTES_MAX};
use crc32fast::Hasher;
use std::io;
use std::time::Duration;

/// Bytes that one step reads of the log at most.
pub const SLICE_BYTES: usize = 128 << 10;

const _: () = assert!(
    SLICE_BYTES > UNIT_HEADER_BYTES + RECORD_PREFIX_BYTES + HEAD_BYTES_MAX,
    "every header fits a slice, so each slice gets further"
);

/// How fast a directory is scrubbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Most bytes that are read in a second; 0: it is off.
    pub bytes_per_second: u64,
    /// Between two passes, and before the first.
    pub rest: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            bytes_per_second: 1 << 20,
            rest: Duration::from_secs(10),
        }
    }
}

/// What is damaged, as the node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A segment of the log.
    Segment(u32),
    /// A snapshot.
    Snapshot(Slot),
    /// `IDENTITY`.
    Identity,
}

/// Damage, and in what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In what.
    pub place: Place,
    /// The file, the place in it and what is wrong there.
    pub damage: Damage,
}

impl Finding {
    /// Damage that was found otherwise; `None` if it is in no file that the scrub looks at.
    pub fn of(damage: Damage) -> Option<Finding> {
        let name = damage.file.rsplit('/').next()?;
        let place = match (segment_of(name), snapshot_of(name)) {
            (Some(segment), _) => Place::Segment(segment),
            (_, Some(slot)) => Place::Snapshot(slot),
            _ if name == IDENTITY_NAME => Place::Identity,
            _ => return None,
        };
        Some(Finding { place, damage })
    }
}

/// What one step came to.
#[derive(Debug, Default)]
pub struct Step {
    /// Bytes read.
    pub bytes: u64,
    /// Damage, if there is any; the pass goes on behind it.
    pub found: Option<Finding>,
    /// Whether the pass is through.
    pub is_done: bool,
}

/// One pass over a directory.
#[derive(Debug)]
pub struct Scrub<Fs: Files> {
    stage: Stage<Fs>,
    slice: Vec<u8>,
}

#[derive(Debug)]
enum Stage<Fs: Files> {
    Log(LogWalk<Fs>),
    /// Snapshots up to the one under way, descending.
    Snapshots(Option<(Slot, SnapshotReader<Fs::File>)>, Option<Slot>),
    Identity,
}

/// Where the walk through the log stands.
#[derive(Debug)]
struct LogWalk<Fs: Files> {
    at: Position,
    /// The segment of `at`, once its header was found good.
    file: Option<Fs::File>,
    /// Where the unit before ended, if all was well up to there: the next one says so, too.
    chain: Option<Position>,
    unit: Option<InUnit>,
}

#[derive(Debug)]
struct InUnit {
    unit: UnitHeader,
    seen: u32,
    body: Option<InBody>,
}

#[derive(Debug)]
struct InBody {
    record: Position,
    left: usize,
    stated: u32,
    crc: Hasher,
}

/// What a look at the next bytes of the log came to.
enum Look {
    /// So many bytes are well.
    Bytes(usize),
    /// Not all of what comes next is in the slice.
    More,
    /// The segment has no further unit.
    SegmentEnds,
    /// So many bytes were the rest of a body that is damaged.
    BadBody(usize, Bad),
    /// What stands here is damaged.
    Bad(Bad),
}

/// Damage in the log.
struct Bad {
    at: Position,
    kind: DamageKind,
    what: String,
}

impl Bad {
    fn new(at: Position, kind: DamageKind, what: String) -> Bad {
        Bad { at, kind, what }
    }
}

impl<Fs: Files> Scrub<Fs> {
    /// A pass from the beginning.
    pub fn begin() -> Scrub<Fs> {
        Scrub {
            stage: Stage::Log(LogWalk::at(0)),
            slice: Vec::new(),
        }
    }
}

impl<Fs: Files> Storage<Fs> {
    /// The next slice of a pass, of about `bytes_max`; `snapshots` are those that are kept, the newest first.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: not for what the disk cannot read, which is damage.
    pub fn scrub(&self, scrub: &mut Scrub<Fs>, snapshots: &[Slot], bytes_max: usize) -> Result<Step, StorageError> {
        match &mut scrub.stage {
            Stage::Log(walk) => match self.wal.extent() {
                Some(extent) => {
                    scrub.slice.resize(bytes_max.clamp(HEAD_BYTES_MAX * 2, SLICE_BYTES), 0);
                    let step = walk.step(&self.files, &extent, &mut scrub.slice)?;
                    if step.is_done {
                        scrub.slice = Vec::new();
                        scrub.stage = Stage::Snapshots(None, None);
                    }
                    Ok(Step { is_done: false, ..step })
                }
                None => Ok(Step::default()),
            },
            Stage::Snapshots(under_way, last) => {
                let step = scrub_snapshot(&self.files, under_way, last, snapshots)?;
                if step.is_done {
                    scrub.stage = Stage::Identity;
                }
                Ok(Step { is_done: false, ..step })
            }
            Stage::Identity => self.scrub_identity(),
        }
    }

    fn scrub_identity(&self) -> Result<Step, StorageError> {
        let what = match Identity::read(&self.files) {
            Ok(Some(found)) if found == self.identity => None,
            Ok(Some(_)) => Some("it is not what was written".to_string()),
            Ok(None) => Some("it is missing".to_string()),
            Err(OpenError::Damage(damage)) => Some(damage.what),
            Err(OpenError::Failed(failure)) if !failure.is_unreadable() => return Err(failure.into()),
            Err(other) => Some(other.to_string()),
        };
        let damage = what.map(|what| Damage {
            file: self.files.path(IDENTITY_NAME),
            offset: 0,
            kind: DamageKind::Identity,
            what,
        });
        let place = Place::Identity;
        Ok(Step {
            bytes: self.identity.encode().len() as u64,
            found: damage.map(|damage| Finding { place, damage }),
            is_done: true,
        })
    }

    /// Writes `IDENTITY` anew, as it stands in memory.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn write_identity_again(&self) -> Result<(), StorageError> {
        Ok(self.identity.write(&self.files)?)
    }
}

impl<Fs: Files> LogWalk<Fs> {
    /// At the beginning of a segment whose predecessor is not known.
    fn at(segment: u32) -> LogWalk<Fs> {
        LogWalk {
            at: beginning_of(segment),
            file: None,
            chain: None,
            unit: None,
        }
    }

    fn step(&mut self, files: &Fs, extent: &Extent<'_>, slice: &mut [u8]) -> Result<Step, StorageError> {
        let first = *extent.segments.keys().next().expect("a log has a segment");
        if self.at.segment < first {
            *self = LogWalk::at(first); // what it was in was taken away
        }
        let size = extent.segments.get(&self.at.segment);
        let Some(&size) = size.filter(|_| self.at < extent.synced) else {
            return Ok(Step {
                is_done: true,
                ..Step::default()
            });
        };
        let is_last = self.at.segment == extent.synced.segment;
        let limit = if is_last { extent.synced.offset } else { size };
        let count = slice.len().min((limit - self.at.offset) as usize);
        let slice = &mut slice[..count];
        let bad = match self.enter(files, extent.log_id)? {
            None => self.read(files, slice)?,
            bad => bad,
        };
        let bad = bad.or_else(|| self.look_through(slice, limit, is_last, extent.log_id));
        let mut step = bad.map(|bad| self.pass(bad, files)).unwrap_or_default();
        step.bytes = count as u64;
        Ok(step)
    }

    /// Opens the segment, if that is to be done, and looks at its header.
    fn enter(&mut self, files: &Fs, log_id: u64) -> Result<Option<Bad>, StorageError> {
        if self.file.is_some() {
            return Ok(None);
        }
        let name = segment_name(self.at.segment);
        let what = match check_header(files, self.at.segment, log_id) {
            Ok(_) => {
                let file = files.open(&name);
                self.file = Some(file.map_err(|source| Failure::new("open", files.path(&name), source))?);
                return Ok(None);
            }
            Err(OpenError::Failed(failure)) if !failure.is_unreadable() => return Err(failure.into()),
            Err(OpenError::Damage(damage)) => damage.what,
            Err(other) => other.to_string(),
        };
        let at = Position { offset: 0, ..self.at };
        Ok(Some(Bad::new(at, DamageKind::SegmentHeader, what)))
    }

    /// The slice at this place, from the disk.
    fn read(&self, files: &Fs, slice: &mut [u8]) -> Result<Option<Bad>, StorageError> {
        let file = self.file.as_ref().expect("entered");
        file.forget_cached(self.at.offset.into(), slice.len() as u64);
        let Err(source) = file.read_exact_at(slice, self.at.offset.into()) else {
            return Ok(None);
        };
        let failure = Failure::new("read", files.path(&segment_name(self.at.segment)), source);
        let is_short = failure.source.kind() == io::ErrorKind::UnexpectedEof;
        if !is_short && !failure.is_unreadable() {
            return Err(failure.into());
        }
        Ok(Some(Bad::new(self.at, DamageKind::Unreadable, failure.to_string())))
    }

    /// Goes through a slice until its end, the segment's, or damage.
    fn look_through(&mut self, slice: &[u8], limit: u32, is_last: bool, log_id: u64) -> Option<Bad> {
        let mut done = 0;
        loop {
            let look = self.look(&slice[done..], limit, is_last, log_id);
            if let Look::Bytes(bytes) | Look::BadBody(bytes, _) = &look {
                done += bytes;
                self.at = self.at.plus(*bytes as u32);
            }
            match look {
                Look::Bytes(_) => {}
                Look::More => return None,
                Look::SegmentEnds => {
                    (self.at, self.file) = (beginning_of(self.at.segment + 1), None);
                    return None;
                }
                Look::BadBody(_, bad) | Look::Bad(bad) => return Some(bad),
            }
        }
    }

    /// What stands next.
    fn look(&mut self, bytes: &[u8], limit: u32, is_last: bool, log_id: u64) -> Look {
        let Some(in_unit) = &mut self.unit else {
            return self.look_at_header(bytes, limit, is_last, log_id);
        };
        if in_unit.body.is_some() {
            return in_unit.look_at_body(bytes);
        }
        let InUnit { unit, seen, .. } = *in_unit;
        if self.at != unit.end() {
            return in_unit.look_at_record(self.at, bytes);
        }
        (self.unit, self.chain) = (None, Some(unit.end()));
        if seen != unit.records {
            let what = format!("the unit holds {seen} records, its header says {}", unit.records);
            return Look::Bad(Bad::new(unit.at, DamageKind::UnitHeader, what));
        }
        Look::Bytes(0)
    }

    fn look_at_header(&mut self, bytes: &[u8], limit: u32, is_last: bool, log_id: u64) -> Look {
        let bad = |at, what| Look::Bad(Bad::new(at, DamageKind::UnitHeader, what));
        let left = limit - self.at.offset;
        if left < UNIT_HEADER_BYTES as u32 {
            return match (is_last, left) {
                (false, _) => Look::SegmentEnds,
                (true, 0) => Look::More, // the pass has seen all of it
                (true, _) => bad(self.at, "no unit begins here, and the log was synced further".into()),
            };
        }
        if bytes.len() < UNIT_HEADER_BYTES {
            return Look::More;
        }
        let unit = match UnitHeader::decode(&bytes[..UNIT_HEADER_BYTES], self.at, log_id) {
            Ok(unit) if unit.end_offset() <= limit.into() => unit,
            Ok(unit) => {
                return bad(
                    self.at,
                    format!("unit of {} bytes, longer than what was synced", unit.length),
                );
            }
            // C3: the first unit of the next segment says whether one should stand here.
            Err(_) if !is_last && self.at != beginning_of(self.at.segment) => return Look::SegmentEnds,
            Err(what) => return bad(self.at, what),
        };
        if let Some(chain) = self.chain.take().filter(|chain| *chain != unit.synced) {
            let (name, Position { offset, .. }) = (segment_name(unit.at.segment), unit.at);
            let synced = unit.synced;
            let what = format!(
                "the next unit, in {name} offset {offset}, says that the log was synced up to {synced} before it"
            );
            return bad(chain, what); // the unit itself is read with the next slice
        }
        let (seen, body) = (0, None);
        self.unit = Some(InUnit { unit, seen, body });
        Look::Bytes(UNIT_HEADER_BYTES)
    }

    /// The pass goes on behind damage, as near as can be.
    fn pass(&mut self, bad: Bad, files: &Fs) -> Step {
        match (bad.kind, &self.unit) {
            (DamageKind::RecordBody, _) => {}
            (DamageKind::RecordHead, Some(in_unit)) => {
                self.at = in_unit.unit.end();
                (self.unit, self.chain) = (None, Some(self.at));
            }
            // A unit is missing, or one that is through was too short.
            (DamageKind::UnitHeader, None) if bad.at != self.at => {}
            _ => *self = LogWalk::at(self.at.segment + 1),
        }
        let damage = Damage {
            file: files.path(&segment_name(bad.at.segment)),
            offset: bad.at.offset.into(),
            kind: bad.kind,
            what: bad.what,
        };
        let place = Place::Segment(bad.at.segment);
        Step {
            found: Some(Finding { place, damage }),
            ..Step::default()
        }
    }
}

impl InUnit {
    fn look_at_record(&mut self, at: Position, bytes: &[u8]) -> Look {
        let bad = |what| Look::Bad(Bad::new(at, DamageKind::RecordHead, what));
        let room = (self.unit.end().offset - at.offset) as usize;
        if room < RECORD_PREFIX_BYTES {
            return bad(format!("{room} bytes left over behind the unit's last record"));
        }
        if bytes.len() < RECORD_PREFIX_BYTES {
            return Look::More;
        }
        let head = match unit::head_bytes(&bytes[..RECORD_PREFIX_BYTES]) {
            Ok(count) if count > room => Err(format!("record head of {count} bytes, {room} are left in the unit")),
            Ok(count) if count > bytes.len() => return Look::More,
            Ok(count) => {
                let checked = unit::check_head(&bytes[..count], at);
                checked.map(|head| (head, count)).map_err(|fault| fault.to_string())
            }
            Err(what) => Err(what),
        };
        let (head, head_bytes) = match head {
            Ok(head) => head,
            Err(what) => return bad(what),
        };
        if let Some(BodyRef { length, crc }) = head.body {
            let bytes = head_bytes + length;
            if bytes > room {
                return bad(format!("record of {bytes} bytes, {room} are left in the unit"));
            }
            self.body = Some(InBody {
                record: at,
                left: length,
                stated: crc,
                crc: Hasher::new(),
            });
        }
        self.seen += 1;
        Look::Bytes(head_bytes)
    }

    fn look_at_body(&mut self, bytes: &[u8]) -> Look {
        let Some(mut body) = self.body.take() else {
            return Look::Bytes(0);
        };
        let count = body.left.min(bytes.len());
        body.crc.update(&bytes[..count]);
        body.left -= count;
        if body.left > 0 {
            self.body = Some(body);
            return if count == 0 { Look::More } else { Look::Bytes(count) };
        }
        let (computed, stated) = (body.crc.finalize(), body.stated);
        if computed == stated {
            return Look::Bytes(count);
        }
        let what = format!("body with crc {computed:08x}, stated is {stated:08x}");
        Look::BadBody(count, Bad::new(body.record, DamageKind::RecordBody, what))
    }
}

/// The next block of the next snapshot.
fn scrub_snapshot<Fs: Files>(
    files: &Fs,
    under_way: &mut Option<(Slot, SnapshotReader<Fs::File>)>,
    last: &mut Option<Slot>,
    snapshots: &[Slot],
) -> Result<Step, StorageError> {
    if let Some((slot, mut reader)) = under_way.take()
        && snapshots.contains(&slot)
    {
        let begin = reader.at();
        reader.forget_cached();
        let more = reader.next_block().map(|block| block.is_some());
        let bytes = reader.at() - begin;
        return match more {
            Ok(more) => {
                *under_way = more.then_some((slot, reader));
                Ok(Step {
                    bytes,
                    ..Step::default()
                })
            }
            Err(error) => found_in_snapshot(files, slot, begin, error),
        };
    }
    let next = snapshots.iter().find(|slot| last.is_none_or(|last| **slot < last));
    let Some(&slot) = next else {
        return Ok(Step {
            is_done: true,
            ..Step::default()
        });
    };
    *last = Some(slot);
    let name = snapshot_name(slot);
    if let Ok(file) = files.open(&name) {
        file.forget_cached(0, HEADER_BYTES_MAX as u64);
    }
    match SnapshotReader::open(files, &name) {
        Ok(reader) if reader.header().summary.slot == slot => {
            let bytes = reader.at();
            *under_way = Some((slot, reader));
            Ok(Step {
                bytes,
                ..Step::default()
            })
        }
        Ok(reader) => {
            let what = format!("it is the snapshot of slot {}", reader.header().summary.slot);
            found_in_snapshot(files, slot, 0, reader.damage(0, what))
        }
        Err(error) => found_in_snapshot(files, slot, 0, error),
    }
}

fn found_in_snapshot<Fs: Files>(files: &Fs, slot: Slot, offset: u64, error: OpenError) -> Result<Step, StorageError> {
    let is_gone = |source: &io::Error| matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound);
    let damage = match error {
        OpenError::Damage(damage) => damage,
        OpenError::Failed(failure) if !failure.is_unreadable() && !is_gone(&failure.source) => {
            return Err(failure.into());
        }
        other => Damage {
            file: files.path(&snapshot_name(slot)),
            offset,
            kind: DamageKind::Unreadable,
            what: other.to_string(),
        },
    };
    let place = Place::Snapshot(slot);
    Ok(Step {
        found: Some(Finding { place, damage }),
        ..Step::default()
    })
}
