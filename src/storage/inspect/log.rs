//! The log as it is: segments in order, units, records.
//!
//! A unit whose header is good says where the next one begins, whatever its records are; a record whose head is good says
//! where the next one begins, whatever its body is. Behind anything else the next good unit header is looked for. What is
//! bad may be a torn tail as long as nothing whole stands behind it, so it is judged when something does, or at the end.

use super::{Ended, Give, Part, Window, newer};
use crate::storage::DISK_FORMAT;
use crate::storage::error::DamageKind;
use crate::storage::files::File;
use crate::storage::segment::{HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader, UNITS_BEGIN, segment_of};
use crate::storage::unit::{self, HeadFault, Position, RECORD_PREFIX_BYTES, UNIT_HEADER_BYTES, UNIT_MAGIC, UnitHeader};
use bytes::Bytes;

/// A walk over the segments of one log.
#[derive(Debug, Default)]
pub struct LogWalk {
    log_id: Option<u64>,
    /// Where the last unit ended, if nothing was bad since.
    end: Option<Position>,
    /// What is bad, and has nothing whole behind it yet.
    pending: Vec<Bad>,
}

/// Something bad.
#[derive(Debug)]
struct Bad {
    path: String,
    offset: u64,
    kind: DamageKind,
    what: String,
    /// Where the unit that it belongs to begins: one torn unit may hold several bad records.
    unit: (u32, u64),
}

impl LogWalk {
    /// Gives the next segment.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn segment<F: File>(&mut self, file: &F, path: &str, give: Give<'_>) -> Result<(), Ended> {
        let mut window = Window::new(file, path)?;
        let length = window.length();
        let bytes = window.read(0, SEGMENT_HEADER_BYTES)?;
        let parsed = SegmentHeader::parse(bytes);
        let number = path.rsplit('/').next().and_then(segment_of);
        let segment = match parsed {
            Ok(header) => {
                give(path, 0, Part::Segment(header))?;
                if length == SEGMENT_HEADER_BYTES as u64 {
                    return Ok(()); // a header alone, as somebody typed it
                }
                self.judge_header(header, number, length, path, give)?;
                header.segment
            }
            Err(HeaderFault::Newer(found)) => {
                return Ok(give(
                    path,
                    0,
                    Part::Damage(DamageKind::SegmentHeader, newer(found, DISK_FORMAT)),
                )?);
            }
            Err(HeaderFault::Bad(what)) => {
                self.header_damage(path, what, give)?;
                match number {
                    Some(number) => number,
                    None => return Ok(()),
                }
            }
        };
        self.units(&mut window, segment, UNITS_BEGIN.into(), path, give)
    }

    /// Gives units that stand by themselves, at whatever place the first says.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn bare_units<F: File>(&mut self, file: &F, path: &str, give: Give<'_>) -> Result<(), Ended> {
        let mut window = Window::new(file, path)?;
        match UnitHeader::parse(window.read(0, UNIT_HEADER_BYTES)?) {
            Ok(unit) => {
                give(path, 0, Part::Unit(unit))?;
                self.records(&mut window, unit, u64::from(unit.at.offset), path, give)?;
                self.flush(give)
            }
            Err(what) => Ok(give(path, 0, Part::Damage(DamageKind::UnitHeader, what))?),
        }
    }

    /// Behind the last segment. `can_be_torn`: it was the last of its log, so that what is bad at its end may be a torn
    /// tail.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn finish(mut self, can_be_torn: bool, give: Give<'_>) -> Result<(), Ended> {
        let is_one_unit = self.pending.windows(2).all(|two| two[0].unit == two[1].unit);
        if can_be_torn && is_one_unit {
            if let Some(Bad { path, offset, what, .. }) = self.pending.drain(..).next() {
                give(&path, offset, Part::TornTail(what))?;
            }
            return Ok(());
        }
        self.flush(give)
    }

    fn judge_header(
        &mut self,
        header: SegmentHeader,
        number: Option<u32>,
        length: u64,
        path: &str,
        give: Give<'_>,
    ) -> Result<(), Ended> {
        if u64::from(header.size) != length {
            let what = format!("the file is {length} bytes long, its header says {}", header.size);
            self.header_damage(path, what, give)?;
        }
        if number.is_some_and(|number| number != header.segment) {
            self.header_damage(path, format!("the header is that of segment {}", header.segment), give)?;
        }
        if *self.log_id.get_or_insert(header.log_id) != header.log_id {
            self.header_damage(path, "the segment belongs to another log".into(), give)?;
        }
        Ok(())
    }

    fn units<F: File>(
        &mut self,
        window: &mut Window<'_, F>,
        segment: u32,
        from: u64,
        path: &str,
        give: Give<'_>,
    ) -> Result<(), Ended> {
        let mut at = from;
        loop {
            let unit = match self.unit_at(window, segment, at)? {
                Ok(unit) => unit,
                Err(what) => {
                    let Some(end) = window.end_of_data(at)? else {
                        let unused = window.length().saturating_sub(at);
                        return Ok(give(path, at, Part::Unused(unused))?);
                    };
                    let log_id = self.log_id;
                    let next = window.find(at + 1, UNIT_MAGIC.to_be_bytes(), UNIT_HEADER_BYTES, |place, bytes| {
                        UnitHeader::parse(bytes).is_ok_and(|unit| {
                            is_here(&unit, segment, place) && log_id.is_none_or(|id| id == unit.log_id)
                        })
                    })?;
                    let behind = next.unwrap_or(end);
                    let what = format!("{what}; {} bytes to offset {behind} are no unit", behind - at);
                    self.bad(path, at, DamageKind::UnitHeader, what, (segment, at));
                    match next {
                        Some(next) => at = next,
                        None => return Ok(()),
                    }
                    continue;
                }
            };
            self.flush(give)?; // a unit was begun behind it: it had been synced
            self.judge_chain(unit, at, path, give)?;
            give(path, at, Part::Unit(unit))?;
            self.records(window, unit, 0, path, give)?;
            self.end = Some(unit.end());
            at = unit.end_offset();
        }
    }

    fn unit_at<F: File>(
        &mut self,
        window: &mut Window<'_, F>,
        segment: u32,
        at: u64,
    ) -> Result<Result<UnitHeader, String>, Ended> {
        let length = window.length();
        let bytes = window.read(at, UNIT_HEADER_BYTES)?;
        if bytes.len() < UNIT_HEADER_BYTES {
            return Ok(Err("the segment ends here".into()));
        }
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(Err("zeros where a unit should begin".into()));
        }
        let unit = UnitHeader::parse(bytes).and_then(|unit| {
            if !is_here(&unit, segment, at) {
                return Err(format!("unit header of another place: {}", unit.at));
            }
            if unit.end_offset() > length {
                return Err(format!("unit of {} bytes, longer than its segment", unit.length));
            }
            if *self.log_id.get_or_insert(unit.log_id) != unit.log_id {
                return Err("unit header of another log".into());
            }
            Ok(unit)
        });
        Ok(unit)
    }

    fn judge_chain(&mut self, unit: UnitHeader, at: u64, path: &str, give: Give<'_>) -> Result<(), Ended> {
        match self.end.take().filter(|end| *end != unit.synced) {
            None => Ok(()),
            Some(end) => {
                let what = format!(
                    "the unit here continues {}, and the last one before it that is whole ended at {end}",
                    unit.synced
                );
                self.damage(path, at, DamageKind::UnitHeader, what, give)
            }
        }
    }

    /// Gives the records of a unit; `shift`: offset 0 of this file is at that place of its segment.
    fn records<F: File>(
        &mut self,
        window: &mut Window<'_, F>,
        unit: UnitHeader,
        shift: u64,
        path: &str,
        give: Give<'_>,
    ) -> Result<(), Ended> {
        let place = (unit.at.segment, u64::from(unit.at.offset));
        let mut at = unit.at.plus(UNIT_HEADER_BYTES as u32);
        let mut records = 0;
        while u64::from(at.offset) < unit.end_offset() {
            let offset = u64::from(at.offset) - shift;
            let left = (unit.end_offset() - u64::from(at.offset)) as usize;
            let (bytes, record) = match read_record(window, offset, at, left)? {
                Ok(read) => read,
                // No tear made it, and the next start does not cut it off.
                Err(fault @ HeadFault::Newer(_)) => {
                    return self.damage(path, offset, DamageKind::RecordHead, fault.to_string(), give);
                }
                Err(HeadFault::Bad(what)) => {
                    self.bad(path, offset, DamageKind::RecordHead, what, place);
                    return Ok(()); // nobody knows where the next record begins
                }
            };
            match record {
                Ok(record) => give(path, offset, Part::Record(record))?,
                Err(what) => self.bad(path, offset, DamageKind::RecordBody, what, place),
            }
            records += 1;
            at = at.plus(bytes);
        }
        if records != unit.records {
            let what = format!("the unit holds {records} records, its header says {}", unit.records);
            self.bad(path, place.1 - shift, DamageKind::UnitHeader, what, place);
        }
        Ok(())
    }

    fn bad(&mut self, path: &str, offset: u64, kind: DamageKind, what: String, unit: (u32, u64)) {
        // Only the first of a unit is told: the others have the same cause, and are bounded by nothing.
        if self.pending.last().is_none_or(|last| last.unit != unit) {
            let path = path.to_owned();
            self.pending.push(Bad {
                path,
                offset,
                kind,
                what,
                unit,
            });
        }
    }

    /// What was bad is damage.
    fn flush(&mut self, give: Give<'_>) -> Result<(), Ended> {
        for bad in std::mem::take(&mut self.pending) {
            give(&bad.path, bad.offset, Part::Damage(bad.kind, bad.what))?;
            self.end = None;
        }
        Ok(())
    }

    fn header_damage(&mut self, path: &str, what: String, give: Give<'_>) -> Result<(), Ended> {
        self.damage(path, 0, DamageKind::SegmentHeader, what, give)
    }

    fn damage(&mut self, path: &str, offset: u64, kind: DamageKind, what: String, give: Give<'_>) -> Result<(), Ended> {
        self.flush(give)?;
        Ok(give(path, offset, Part::Damage(kind, what))?)
    }
}

fn is_here(unit: &UnitHeader, segment: u32, offset: u64) -> bool {
    unit.at.segment == segment && u64::from(unit.at.offset) == offset
}

/// A record's bytes, if its head is good, and the record or what is wrong with its body.
type Read = Result<(u32, Result<crate::wire::Record, String>), HeadFault>;

/// Reads the record at `at`, which stands at `offset` of the file and must end within `left` bytes.
fn read_record<F: File>(window: &mut Window<'_, F>, offset: u64, at: Position, left: usize) -> Result<Read, Ended> {
    let bad = |what| Ok(Err(HeadFault::Bad(what)));
    let prefix = window.read(offset, RECORD_PREFIX_BYTES)?;
    if prefix.len() < RECORD_PREFIX_BYTES || left < RECORD_PREFIX_BYTES {
        return bad(format!("{left} bytes left over behind the unit's last record"));
    }
    let head_bytes = match unit::head_bytes(prefix) {
        Ok(count) if count <= left => count,
        Ok(count) => return bad(format!("record head of {count} bytes, {left} are left in the unit")),
        Err(what) => return bad(what),
    };
    let bytes = window.read(offset, head_bytes)?;
    if bytes.len() < head_bytes {
        return bad("the file ends within a record".into());
    }
    let head = match unit::check_head(bytes, at) {
        Ok(head) => head,
        Err(fault) => return Ok(Err(fault)),
    };
    let all_bytes = head_bytes + head.body.map_or(0, |body| body.length);
    if all_bytes > left {
        return bad(format!("record of {all_bytes} bytes, {left} are left in the unit"));
    }
    let all = window.read(offset, all_bytes)?;
    if all.len() < all_bytes {
        return bad("the file ends within a record".into());
    }
    let body = Bytes::copy_from_slice(&all[head_bytes..]);
    Ok(Ok((all_bytes as u32, unit::decode(head, &all[..head_bytes], body))))
}
