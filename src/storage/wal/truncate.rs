//! How the log loses its beginning: segments that hold nothing behind the older snapshot are taken away, one a turn.
//!
//! A record CHECKPOINT comes first: with it stands anew what agreement still needs of them, and it says which segment may
//! be the first. Only when it is synced is a segment removed, the oldest first, and the directory is synced behind each,
//! so that whatever a crash leaves has no gap. At the start the log shows for itself that it may begin where it does: if
//! its first segment is not number 1, a CHECKPOINT in it must allow so, and a snapshot must reach up to it.
//!
//! What is taken away is kept as a spare segment up to a bound that the caller sets, and removed in steps beyond it.
//!
//! Not here: which snapshots there are (shelf.rs), when to truncate (`node::snapshots`).

use super::super::error::{Failure, OpenError, StorageError};
use super::super::files::{File, Files};
use super::super::segment::{segment_name, temporary_name};
use super::super::unit::Position;
use super::Wal;
use crate::paxos::Slot;
use crate::wire::Record;
use std::collections::BTreeMap;

/// Segments of full size that were taken away, by number, under their temporary names: new ones are made over them.
#[derive(Debug, Default)]
pub(super) struct Spares {
    segments: Vec<u32>,
    /// Those that go, and how long they still are.
    leaving: Vec<(u32, u64)>,
    /// Most bytes of them that are kept.
    bytes_max: u64,
    /// Segments up to this one were found damaged: their place on the disk is not used again.
    damaged: u32,
}

impl Spares {
    pub(super) fn take(&mut self) -> Option<u32> {
        self.segments.pop()
    }

    pub(super) fn is_any(&self) -> bool {
        !self.segments.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.segments.len() as u64
    }

    /// Segments up to this one are damaged.
    pub(super) fn note_damaged(&mut self, upto: u32) {
        self.damaged = self.damaged.max(upto);
    }
}

/// What truncation knows of the log.
#[derive(Debug, Default)]
pub(super) struct Truncation {
    /// The highest slot of an entry in each segment.
    highest: BTreeMap<u32, Slot>,
    /// Found when the log was read back: a start needs a snapshot of this slot or a later one.
    needs: Slot,
    /// Found when the log was read back: the first CHECKPOINT that lets the log begin where it does.
    is_allowed: bool,
    /// A CHECKPOINT that is appended and not synced: the first segment to keep.
    appended: Option<u32>,
    /// The first segment to keep, as a synced CHECKPOINT says.
    keep: u32,
}

impl Truncation {
    /// An entry of `slot` stands in `segment`.
    pub(super) fn note_slot(&mut self, segment: u32, slot: Slot) {
        let highest = self.highest.entry(segment).or_default();
        *highest = (*highest).max(slot);
    }

    /// A record was read back from a log whose first segment is `first`.
    pub(super) fn note_found(&mut self, record: &Record, first: u32) {
        match record {
            Record::Installed { slot } => self.needs = self.needs.max(*slot),
            // The first is the one that asks for least: later ones may have come to nothing.
            Record::Checkpoint { segment, slot, .. } if first > 1 && *segment >= first && !self.is_allowed => {
                self.is_allowed = true;
                self.needs = self.needs.max(*slot);
            }
            _ => {}
        }
    }

    /// Records were appended.
    pub(super) fn note_appended(&mut self, records: &[Record]) {
        for record in records {
            if let Record::Checkpoint { segment, .. } = record {
                self.appended = Some(*segment);
            }
        }
    }

    /// All that was appended is durable.
    pub(super) fn note_synced(&mut self) {
        self.keep = self.appended.take().unwrap_or(self.keep);
    }
}

impl<Fs: Files> Wal<Fs> {
    /// A log that does not begin with segment 1 says itself that it may.
    pub(super) fn check_beginning(&self, first: u32) -> Result<(), OpenError> {
        if first == 1 || self.truncation.is_allowed {
            return Ok(());
        }
        let reason = format!(
            "the log begins with {}, and nothing in it says that what stood before may be gone",
            segment_name(first)
        );
        let file = self.files.path(&segment_name(first - 1));
        Err(OpenError::Missing { file, reason })
    }

    /// A start needs a snapshot of this slot or a later one; 0: none.
    pub fn needs(&self) -> Slot {
        self.truncation.needs
    }

    /// Number of the first segment.
    pub fn first_segment(&self) -> u32 {
        *self.segments.keys().next().expect("a log has a segment")
    }

    /// Bytes of all segments, the one ahead included.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|size| u64::from(*size)).sum()
    }

    /// Bytes from `from` to the end of the log; from its beginning, if `from` was taken away.
    pub fn bytes_from(&self, from: Position) -> u64 {
        let Some(end) = self.end() else { return 0 };
        let behind = self.segments.range(from.segment..end.segment);
        let whole: u64 = behind.map(|(_, size)| u64::from(*size)).sum();
        let begun = if self.segments.contains_key(&from.segment) {
            u64::from(from.offset)
        } else {
            0
        };
        (whole + u64::from(end.offset)).saturating_sub(begun)
    }

    /// Where the entry of `slot` stands, or else where the log begins.
    pub fn place_of(&self, slot: Slot) -> Position {
        let begin = Position {
            segment: self.first_segment(),
            offset: 0,
        };
        self.index.get(slot).map_or(begin, |place| place.at)
    }

    /// Slots above `above` whose entries stand in segments up to this one.
    pub fn slots_up_to_segment(&self, segment: u32, above: Slot) -> Vec<Slot> {
        let places = self.index.above(above);
        let found = places.filter(|(_, place)| place.at.segment <= segment);
        found.map(|(slot, _)| slot).collect()
    }

    /// The first segment to keep if entries up to `slot` are of no use any more to this node, and those up to `wanted` of
    /// none to its peers, for whom at most `extra_bytes` are kept.
    pub fn first_to_keep(&self, slot: Slot, wanted: Slot, extra_bytes: u64) -> u32 {
        let highest = |segment| self.truncation.highest.get(&segment).copied().unwrap_or_default();
        let tip = self.end().map_or(1, |end| end.segment);
        let mut older = self.segments.range(..tip);
        let mut keep = older
            .find(|(segment, _)| highest(**segment) > slot)
            .map_or(tip, |(segment, _)| *segment);
        let mut extra = 0;
        for (&segment, &size) in self.segments.range(..keep).rev() {
            extra += u64::from(size);
            if highest(segment) <= wanted || extra > extra_bytes {
                break;
            }
            keep = segment;
        }
        keep
    }

    /// Whether a synced CHECKPOINT lets the oldest segment go, and nobody reads the log.
    pub fn can_remove(&self) -> bool {
        self.first_segment() < self.truncation.keep && self.reread.is_none()
    }

    /// How many bytes of spare segments are kept from now on, for the next ones to be made of.
    pub fn keep_spares(&mut self, bytes_max: u64) {
        self.spares.bytes_max = bytes_max;
    }

    /// Whether segments are to go for good: more are spare than are kept, or some cannot be used again.
    pub fn has_spares_to_drop(&self) -> bool {
        !self.spares.leaving.is_empty() || self.has_too_many_spares()
    }

    fn has_too_many_spares(&self) -> bool {
        self.spares.count() * u64::from(self.segment_bytes) > self.spares.bytes_max
    }

    /// Whether a segment that is taken away becomes a spare.
    fn is_of_use(&self, segment: u32) -> bool {
        let spare_bytes = (self.spares.count() + 1) * u64::from(self.segment_bytes);
        self.segments[&segment] == self.segment_bytes
            && segment > self.spares.damaged
            && spare_bytes <= self.spares.bytes_max
    }

    /// Cuts a segment that is to go by `bytes_max`, or removes what is left of it: to free much at once takes long.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn drop_spare(&mut self, bytes_max: u64) -> Result<(), StorageError> {
        if self.spares.leaving.is_empty()
            && let Some(spare) = self.spares.take()
        {
            self.spares.leaving.push((spare, self.segment_bytes.into()));
        }
        let Some((segment, length)) = self.spares.leaving.last_mut() else {
            return Ok(());
        };
        let name = temporary_name(*segment);
        if *length > bytes_max {
            *length -= bytes_max;
            let cut = self.files.open(&name).and_then(|mut file| file.truncate(*length));
            return Ok(cut.map_err(|source| Failure::new("cut", self.files.path(&name), source))?);
        }
        self.spares.leaving.pop();
        let removed = self.files.remove(&name);
        Ok(removed.map_err(|source| Failure::new("remove", self.files.path(&name), source))?)
    }

    /// Takes the oldest segment away, if that can be; whether it was the last that could.
    ///
    /// # Errors
    /// [`StorageError::Failed`]: final.
    pub fn remove_next(&mut self) -> Result<Option<bool>, StorageError> {
        if !self.can_remove() {
            return Ok(None);
        }
        let first = self.first_segment();
        self.tip()?; // not after a failure
        let name = segment_name(first);
        let is_spare = self.is_of_use(first);
        self.reader.close();
        let taken = self.files.rename(&name, &temporary_name(first));
        taken.map_err(|source| Failure::new("rename", self.files.path(&name), source))?;
        // Only a name that is gone for good may be written over: a crash must not bring it back with other content.
        let synced = self.files.sync_directory();
        synced.map_err(|source| Failure::new("sync", self.files.directory(), source))?;
        let size = self.segments.remove(&first).unwrap_or_default();
        if is_spare {
            self.spares.segments.push(first);
        } else {
            self.spares.leaving.push((first, size.into()));
        }
        let highest = self.truncation.highest.remove(&first).unwrap_or_default();
        self.index.forget(first, highest);
        Ok(Some(first + 1 == self.truncation.keep))
    }
}
