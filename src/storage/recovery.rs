//! Reading the log back at the start: every record in order, a torn tail cut off, anything else refused by name.
//!
//! Each unit says up to where the log was synced before it was written, which is the end of the unit before it
//! (`rules.md` 24). So units form a chain, and a unit is *proven* by the header of the next: its records are handed on
//! as they are read. Only the last unit is unproven:
//! * If it is whole, it may still stand in the page cache alone: the process that wrote it may have died before its sync,
//!   or by its failure. It is written over itself, byte for byte, and synced before anything in it is acted on
//!   (`rules.md` 25).
//! * If it is not whole, it is a torn tail, provided that it can be one: nothing whole stands behind it, and all that
//!   is not zero lies where that one unit can lie. It is overwritten with zeros, synced, and a warning says so.
//!
//! All else is damage. It is outlived where the body of an entry is damaged, its head is good, and a snapshot stands for the
//! slot: what accepting it promised stands in the head, and the body is not needed. That zeros were never written, and not
//! written and lost, is told by the same rule: a later unit that says that the log was synced further than what can be read proves
//! a loss, be it a whole segment. A whole record of a kind that this build does not know is neither damage nor torn: a newer
//! build wrote it, and nothing is changed. What cannot be told is rot within the last unit from a tear of it: it is cut off with a warning.

use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use super::reader::{Found, LogReader, ReadError, SLICE_BYTES, Segments, UnitWalk};
use super::segment::{beginning_of, segment_name};
use super::unit::{Position, UNIT_HEADER_BYTES, UNIT_MAGIC, UnitHeader};
use crate::paxos::Slot;
use std::io::IoSlice;

/// One reading back.
pub(super) struct Recovery<'a, Fs: Files> {
    pub(super) files: &'a Fs,
    pub(super) reader: &'a mut LogReader<Fs>,
    pub(super) segments: &'a Segments,
    pub(super) log_id: u64,
    /// A snapshot stands for entries up to here: a damaged body of one is outlived.
    pub(super) covered: Slot,
}

/// A unit that has a good header and is not whole, and what is wrong with it.
struct Torn {
    unit: UnitHeader,
    damage: Damage,
}

/// What is not zero behind the last whole unit, as places in one segment each.
#[derive(Debug, Default)]
struct Tail {
    dirty: Vec<Dirty>,
    /// A good header that has no business there.
    stray: Option<UnitHeader>,
}

#[derive(Debug)]
struct Dirty {
    segment: u32,
    first: u32,
    end: u32,
}

impl<Fs: Files> Recovery<'_, Fs> {
    /// Hands every record to `give`, in order, and returns the end of the last whole unit.
    pub(super) fn run(&mut self, give: &mut dyn FnMut(Found)) -> Result<Position, OpenError> {
        let mut end = self.reader.end_before_first(self.segments, self.log_id)?;
        let mut next = self.unit_behind(end)?;
        while let Some(unit) = next {
            next = self.unit_behind(unit.end())?;
            if next.is_none() {
                return self.finish(unit, end, give);
            }
            self.walk(unit, self.covered, give)?;
            end = unit.end();
        }
        self.cut_tail(end, None)?;
        Ok(end)
    }

    /// The last unit, which nothing proves yet.
    fn finish(
        &mut self,
        last: UnitHeader,
        before: Position,
        give: &mut dyn FnMut(Found),
    ) -> Result<Position, OpenError> {
        // Of what was torn the head may be newer than the body, so here all must be whole.
        match self.walk(last, Slot::ZERO, &mut |_| {}) {
            Ok(()) => {
                self.cut_tail(last.end(), None)?;
                self.rewrite(last)?;
                self.walk(last, Slot::ZERO, give)?;
                Ok(last.end())
            }
            // A log that lost its beginning holds what proves that it may: its first unit was synced.
            Err(ReadError::Damage(damage)) if !self.segments.contains_key(&before.segment) => Err(damage.into()),
            Err(ReadError::Damage(damage)) => {
                self.cut_tail(before, Some(Torn { unit: last, damage }))?;
                Ok(before)
            }
            Err(error @ (ReadError::Failed(_) | ReadError::Newer { .. })) => Err(error.into()),
        }
    }

    fn unit_behind(&mut self, end: Position) -> Result<Option<UnitHeader>, Failure> {
        self.reader.unit_behind(end, self.segments, self.log_id)
    }

    fn walk(&mut self, unit: UnitHeader, covered: Slot, give: &mut dyn FnMut(Found)) -> Result<(), ReadError> {
        let mut walk = UnitWalk::new(unit, covered);
        while let Some(found) = walk.next(self.reader)? {
            give(found);
        }
        Ok(())
    }

    /// Writes a unit over itself and syncs it: then it is on disk, whatever happened to it in an earlier life.
    fn rewrite(&mut self, unit: UnitHeader) -> Result<(), OpenError> {
        let name = segment_name(unit.at.segment);
        let failed = |source| Failure::new("write again", self.files.path(&name), source);
        let mut file = self.files.open(&name).map_err(failed)?;
        let mut at = unit.at;
        while at < unit.end() {
            let count = SLICE_BYTES.min((unit.end().offset - at.offset) as usize);
            let slice = self.reader.read(at, count, 0)?;
            file.write_all_at(&mut [IoSlice::new(slice)], at.offset.into())
                .map_err(failed)?;
            at = at.plus(count as u32);
        }
        file.sync().map_err(failed)?;
        self.reader.forget(); // the very same bytes, but read them from what was written
        Ok(())
    }

    /// Judges what stands behind `end`, where no whole unit follows: nothing, a torn tail, which it overwrites with zeros,
    /// or damage.
    fn cut_tail(&mut self, end: Position, torn: Option<Torn>) -> Result<(), OpenError> {
        let tail = self.scan(end, torn.as_ref().map(|torn| torn.unit))?;
        if let Some(stray) = tail.stray {
            let (at, kind, what) = self.describe(end, torn)?;
            let what = format!(
                "{what}; yet the unit in {} offset {} says that the log was synced up to {} before it",
                segment_name(stray.at.segment),
                stray.at.offset,
                stray.synced
            );
            return Err(self.reader.damage(at, kind, what).into());
        }
        let torn_range = torn.as_ref().map(|torn| Dirty {
            segment: torn.unit.at.segment,
            first: torn.unit.at.offset,
            end: torn.unit.end().offset,
        });
        let mut dirty = tail.dirty.into_iter().chain(torn_range);
        let Some(cut) = dirty.next() else { return Ok(()) };
        let can_be_one_unit = dirty.next().is_none() && cut.segment <= end.segment + 1;
        if !can_be_one_unit {
            let (at, kind, what) = self.describe(end, torn)?;
            let what = format!("{what}; yet more stands behind it than one unit that was being written");
            return Err(self.reader.damage(at, kind, what).into());
        }
        let (.., what) = self.describe(end, torn)?;
        self.zero(&cut, &what)
    }

    /// Where the first thing that is wrong stands, and what it is.
    fn describe(&mut self, end: Position, torn: Option<Torn>) -> Result<(Position, DamageKind, String), Failure> {
        if let Some(torn) = torn {
            let offset = u32::try_from(torn.damage.offset).expect("offsets within a segment are 32 bits");
            let segment = torn.unit.at.segment;
            return Ok((Position { segment, offset }, torn.damage.kind, torn.damage.what));
        }
        // Where the next unit could stand, the place that is not empty is the one to name.
        let next = beginning_of(end.segment + 1);
        let mut at = end;
        if self.is_zero(end)? && self.segments.contains_key(&next.segment) && !self.is_zero(next)? {
            at = next;
        }
        let header = self.reader.header_at(at, self.segments[&at.segment], self.log_id)?;
        let what = header
            .err()
            .unwrap_or_else(|| "a unit that does not continue the log".into());
        Ok((at, DamageKind::UnitHeader, what))
    }

    fn is_zero(&mut self, at: Position) -> Result<bool, Failure> {
        let bytes = self.reader.read(at, UNIT_HEADER_BYTES, 0)?;
        Ok(bytes.iter().all(|&byte| byte == 0))
    }

    fn zero(&mut self, cut: &Dirty, what: &str) -> Result<(), OpenError> {
        let name = segment_name(cut.segment);
        let path = self.files.path(&name);
        let bytes = cut.end - cut.first;
        log::warn!(
            "{path}: torn tail at offset {}: {what}; {bytes} bytes that were never synced are cut off",
            cut.first
        );
        let failed = |source| Failure::new("cut the torn tail of", path.clone(), source);
        let mut file = self.files.open(&name).map_err(failed)?;
        file.write_zeros(cut.first.into(), bytes.into()).map_err(failed)?;
        file.sync().map_err(failed)?;
        self.reader.forget();
        Ok(())
    }

    /// Looks through all that stands behind `end`, but for the torn unit.
    fn scan(&mut self, end: Position, torn: Option<UnitHeader>) -> Result<Tail, Failure> {
        let mut tail = Tail::default();
        for (&segment, &size) in self.segments.range(end.segment..) {
            let begin = if segment == end.segment {
                end
            } else {
                beginning_of(segment)
            };
            match torn.filter(|torn| torn.at.segment == segment) {
                // A torn unit stands first behind `end`: see `unit_behind`.
                Some(torn) => self.scan_range(torn.end(), size, &mut tail)?,
                None => self.scan_range(begin, size, &mut tail)?,
            }
        }
        Ok(tail)
    }

    fn scan_range(&mut self, from: Position, size: u32, tail: &mut Tail) -> Result<(), Failure> {
        let magic = UNIT_MAGIC.to_be_bytes();
        let mut found: Option<Dirty> = None;
        let mut at = from;
        while at.offset < size && tail.stray.is_none() {
            // Slices overlap by less than a magic, so that none is missed between two.
            let slice = self.reader.read(at, SLICE_BYTES + magic.len() - 1, SLICE_BYTES)?;
            let count = slice.len().min(SLICE_BYTES) as u32;
            let mut units = Vec::new();
            if let Some(first) = slice.iter().position(|&byte| byte != 0) {
                let last = slice.iter().rposition(|&byte| byte != 0).unwrap_or(first);
                let range = found.get_or_insert(Dirty {
                    segment: at.segment,
                    first: at.offset + first as u32,
                    end: 0,
                });
                range.end = at.offset + last as u32 + 1;
                let starts = slice
                    .windows(magic.len())
                    .enumerate()
                    .filter(|(_, window)| *window == magic);
                units.extend(starts.map(|(index, _)| at.plus(index as u32)));
            }
            for unit_at in units {
                if let Ok(unit) = self.reader.header_at(unit_at, size, self.log_id)? {
                    tail.stray.get_or_insert(unit);
                }
            }
            at = at.plus(count);
        }
        tail.dirty.extend(found);
        Ok(())
    }
}
