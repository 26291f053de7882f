//! Files of a data directory as they are, for whoever looks at them: part by part, past damage where what follows is well
//! defined, in bounded memory, and without changing anything.
//!
//! A start judges a directory as a whole and stops at the first damage; this shows what is there. What counts as damage
//! is the same: a torn tail is none (`super::recovery`), for the next start cuts it off.
//!
//! [`log`]: segments, one behind the other. `snapshot`: snapshots. Not here: words and JSON (`cli::inspect`).

pub mod log;
mod snapshot;
#[cfg(test)]
mod tests;

use super::error::{DamageKind, Failure};
use super::files::File;
use super::identity::{FILE_BYTES_MAX, IDENTITY_MAGIC, IDENTITY_NAME, Identity, IdentityFault};
use super::segment::{SEGMENT_MAGIC, SegmentHeader, segment_of};
use super::snapshot::{Header, SNAPSHOT_MAGIC, snapshot_of};
use super::unit::{UNIT_MAGIC, UnitHeader};
use crate::kv::snapshot::Item;
use crate::wire::Record;
use std::io;

/// Bytes that are read at once, beside a part that is longer.
const SLICE_BYTES: usize = 1 << 20;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IDENTITY`.
    Identity,
    /// A segment of the log.
    Segment,
    /// A snapshot.
    Snapshot,
    /// Units without the segment around them.
    Units,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A whole identity, and the format that it has.
    Identity(Box<Identity>, u32),
    /// The header of a segment.
    Segment(SegmentHeader),
    /// The header of a unit; its records follow.
    Unit(UnitHeader),
    /// A record.
    Record(Record),
    /// Nothing but zeros from here to the end of the segment.
    Unused(u64),
    /// The header of a snapshot, and the format that it has.
    Snapshot(Box<Header>, u32),
    /// The head of a block; its items follow.
    Block {
        /// Its number, from 1.
        number: u32,
        /// How many items.
        items: u32,
        /// Their bytes.
        bytes: u32,
    },
    /// An item of a block.
    Item(Item),
    /// The trailer of a snapshot.
    Trailer {
        /// How many blocks.
        blocks: u32,
        /// How many items.
        items: u64,
        /// Digest of the content.
        content: u64,
    },
    /// What was never synced, and why: the next start cuts it off.
    TornTail(String),
    /// Damage: of what kind, and in words.
    Damage(DamageKind, String),
}

/// Why looking ended early.
#[derive(Debug)]
pub enum Ended {
    /// The file cannot be read.
    Failed(Failure),
    /// Whoever is given the parts wants no more of them.
    Unwanted(io::Error),
}

/// Is given each part and where it begins in its file.
pub type Give<'a> = &'a mut dyn FnMut(&str, u64, Part) -> io::Result<()>;

/// One file, read in slices.
pub(super) struct Window<'a, F> {
    file: &'a F,
    path: &'a str,
    length: u64,
    at: u64,
    slice: Vec<u8>,
}

impl Kind {
    /// The kind's name, which damage is reported with.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Identity => "identity",
            Kind::Segment | Kind::Units => "log",
            Kind::Snapshot => "snapshot",
        }
    }

    /// What a file is: by its first bytes or, if these are damaged, by its name. None: no file of this format.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn of<F: File>(file: &F, path: &str) -> Result<Option<Kind>, Failure> {
        let mut window = Window::new(file, path)?;
        let first = window.read(0, IDENTITY_MAGIC.len())?;
        let magics: [(&[u8], Kind); 4] = [
            (IDENTITY_MAGIC, Kind::Identity),
            (SEGMENT_MAGIC, Kind::Segment),
            (SNAPSHOT_MAGIC, Kind::Snapshot),
            (&UNIT_MAGIC.to_be_bytes(), Kind::Units),
        ];
        let by_magic = magics.into_iter().find(|(magic, _)| first.starts_with(magic));
        Ok(by_magic.map(|(_, kind)| kind).or_else(|| Kind::of_name(path)))
    }

    fn of_name(path: &str) -> Option<Kind> {
        let name = path.rsplit('/').next().unwrap_or(path);
        if name == IDENTITY_NAME {
            Some(Kind::Identity)
        } else if segment_of(name).is_some() {
            Some(Kind::Segment)
        } else {
            snapshot_of(name).map(|_| Kind::Snapshot)
        }
    }
}

/// Gives an identity.
///
/// # Errors
/// [`Ended`].
pub fn identity<F: File>(file: &F, path: &str, give: Give<'_>) -> Result<(), Ended> {
    let mut window = Window::new(file, path)?;
    let length = window.length().min(FILE_BYTES_MAX + 1);
    let part = match Identity::parse(window.read(0, length as usize)?) {
        Ok((format, identity)) => Part::Identity(Box::new(identity), format),
        Err(IdentityFault::Newer(found)) => Part::Damage(DamageKind::Identity, newer(found, super::DISK_FORMAT)),
        Err(IdentityFault::Bad(what)) => Part::Damage(DamageKind::Identity, what),
    };
    Ok(give(path, 0, part)?)
}

/// Gives all of a snapshot.
///
/// # Errors
/// [`Ended`].
pub fn snapshot<F: File>(file: &F, path: &str, give: Give<'_>) -> Result<(), Ended> {
    snapshot::Walk::new(file, path)?.run(give)
}

fn newer(found: u32, supported: u32) -> String {
    format!("disk format {found}, newer than {supported}, the newest that this build reads")
}

impl<'a, F: File> Window<'a, F> {
    pub(super) fn new(file: &'a F, path: &'a str) -> Result<Window<'a, F>, Failure> {
        let length = file.length().map_err(|source| Failure::new("read", path, source))?;
        Ok(Window {
            file,
            path,
            length,
            at: 0,
            slice: Vec::new(),
        })
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// `count` bytes at `at`, or all that there are from there on.
    pub(super) fn read(&mut self, at: u64, count: usize) -> Result<&[u8], Failure> {
        let count = count.min(self.length.saturating_sub(at) as usize);
        let begin = at.wrapping_sub(self.at) as usize;
        if at >= self.at && begin + count <= self.slice.len() {
            return Ok(&self.slice[begin..begin + count]);
        }
        let left = self.length.saturating_sub(at) as usize;
        self.slice.resize(count.max(SLICE_BYTES).min(left), 0);
        let read = self.file.read_exact_at(&mut self.slice, at);
        read.map_err(|source| Failure::new("read", self.path, source))?;
        self.at = at;
        Ok(&self.slice[..count])
    }

    /// The next place from `from` on where `magic` stands and `holds` says of what follows that it is what it seems.
    pub(super) fn find(
        &mut self,
        from: u64,
        magic: [u8; 4],
        bytes: usize,
        holds: impl Fn(u64, &[u8]) -> bool,
    ) -> Result<Option<u64>, Failure> {
        let mut at = from;
        while at < self.length {
            // Slices overlap by less than a magic, so that none is missed between two.
            let slice = self.read(at, SLICE_BYTES)?;
            let step = slice.len().saturating_sub(magic.len() - 1).max(1);
            let starts = slice.windows(magic.len()).enumerate();
            let starts = starts.filter(|(_, window)| *window == magic);
            let places: Vec<u64> = starts.map(|(index, _)| at + index as u64).collect();
            for place in places {
                if holds(place, self.read(place, bytes)?) {
                    return Ok(Some(place));
                }
            }
            at += step as u64;
        }
        Ok(None)
    }

    /// The place behind the last byte from `from` on that is not zero; none if all are.
    pub(super) fn end_of_data(&mut self, from: u64) -> Result<Option<u64>, Failure> {
        let (mut at, mut end) = (from, None);
        while at < self.length {
            let slice = self.read(at, SLICE_BYTES)?;
            let last = slice.iter().rposition(|&byte| byte != 0);
            end = last.map(|last| at + last as u64 + 1).or(end);
            at += slice.len() as u64;
        }
        Ok(end)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::Unwanted(error)
    }
}
