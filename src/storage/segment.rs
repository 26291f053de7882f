//! Segments: the files of the log, their names, their headers, and how one is made before it is needed.
//!
//! A segment is made under a temporary name, filled with zeros and synced, and only then gets its own name. So a file of
//! that name is always whole: of the size that its header states, with a good header; and a unit that is appended
//! changes neither its length nor its allocation, which keeps a sync short.
//!
//! A segment that the log no longer needs is spare: it goes back to a temporary name, and the next is made over it, zeros
//! and all. Then a log that runs for long neither allocates nor frees anything on the disk, which a journalled file system
//! would have to record, and every sync of the directory's other files to wait for.
//!
//! Not here: what stands in a segment (unit.rs).

use super::DISK_FORMAT;
use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use super::unit::{Position, UnitBuffer};
use crate::wire::bytes::{Reader, Writer};
use std::io::IoSlice;

/// First bytes of every segment.
pub const SEGMENT_MAGIC: &[u8; 8] = b"SYNODWAL";
/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 36;
/// Where the units of a segment begin. The header has a page of its own, so that no write of a unit touches it.
pub const UNITS_BEGIN: u32 = 4096;
/// End of the names of files that are being made; what is left of them after a crash is removed.
pub(super) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The place of the first unit of a segment.
pub(super) fn beginning_of(segment: u32) -> Position {
    Position {
        segment,
        offset: UNITS_BEGIN,
    }
}

/// The name of a segment's file.
pub fn segment_name(segment: u32) -> String {
    format!("wal-{segment:010}.log")
}

/// The segment that a file name means.
pub fn segment_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// The header of a segment of `size` bytes.
pub fn encode_header(segment: u32, size: u32, log_id: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    let mut out = Writer::new(&mut bytes);
    out.slice(SEGMENT_MAGIC);
    out.u32(DISK_FORMAT);
    out.u32(segment);
    out.u32(0);
    out.u32(size);
    out.u64(log_id);
    let crc = crc32fast::hash(&bytes);
    Writer::new(&mut bytes).u32(crc);
    bytes
}

/// Reads and checks the header of a segment; its size.
pub(super) fn check_header<Fs: Files>(files: &Fs, segment: u32, log_id: u64) -> Result<u32, OpenError> {
    let name = segment_name(segment);
    let path = files.path(&name);
    let failed = |source| Failure::new("read", path.clone(), source);
    let file = files.open(&name).map_err(failed)?;
    let length = file.length().map_err(failed)?;
    let damage = |what: String| Damage {
        file: path.clone(),
        offset: 0,
        kind: DamageKind::SegmentHeader,
        what,
    };
    if length < u64::from(UNITS_BEGIN) {
        return Err(damage(format!(
            "the file is {length} bytes long, too short for a segment's header"
        ))
        .into());
    }
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let stated = decode_header(&header, segment, log_id).map_err(|fault| match fault {
        HeaderFault::Newer(found) => OpenError::NewerFormat {
            file: path.clone(),
            found,
            supported: DISK_FORMAT,
        },
        HeaderFault::Bad(what) => damage(what).into(),
    })?;
    if u64::from(stated) != length {
        return Err(damage(format!("the file is {length} bytes long, its header says {stated}")).into());
    }
    Ok(stated)
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Format of the file.
    pub format: u32,
    /// Its number.
    pub segment: u32,
    /// Bytes of the file.
    pub size: u32,
    /// Which log it belongs to.
    pub log_id: u64,
}

/// Why a segment's header is refused.
pub(super) enum HeaderFault {
    Newer(u32),
    Bad(String),
}

impl SegmentHeader {
    /// The header that these bytes are, whatever segment of whatever log it is.
    pub(super) fn parse(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let words = |error| HeaderFault::Bad(format!("segment header: {error}"));
        let mut from = Reader::copying(bytes);
        let magic = from.slice(SEGMENT_MAGIC.len(), "magic").map_err(words)?;
        if magic != SEGMENT_MAGIC {
            return Err(HeaderFault::Bad("segment header without its magic".into()));
        }
        let format = from.u32("format").map_err(words)?;
        let segment = from.u32("segment").map_err(words)?;
        from.u32("reserved").map_err(words)?;
        let size = from.u32("size").map_err(words)?;
        let log_id = from.u64("log id").map_err(words)?;
        let stated = from.u32("crc").map_err(words)?;
        let computed = crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        if stated != computed {
            return Err(HeaderFault::Bad(format!(
                "segment header has crc {computed:08x}, stated is {stated:08x}"
            )));
        }
        // Only behind the checksum: a flipped bit is damage, not a newer format. A format that moves the checksum is
        // told by IDENTITY, which is read first.
        if format > DISK_FORMAT {
            return Err(HeaderFault::Newer(format));
        }
        Ok(SegmentHeader {
            format,
            segment,
            size,
            log_id,
        })
    }
}

fn decode_header(bytes: &[u8], segment: u32, log_id: u64) -> Result<u32, HeaderFault> {
    let header = SegmentHeader::parse(bytes)?;
    if header.segment != segment {
        return Err(HeaderFault::Bad(format!(
            "the header is that of segment {}",
            header.segment
        )));
    }
    if header.log_id != log_id {
        return Err(HeaderFault::Bad("the segment belongs to another data directory".into()));
    }
    Ok(header.size)
}

/// A segment that is being made, in slices, so that no turn waits for all of it.
#[derive(Debug)]
pub(super) struct Making<F> {
    segment: u32,
    size: u32,
    written: u32,
    file: F,
}

impl<F: File> Making<F> {
    /// Begins a segment under its temporary name; over a spare one of the same size, if there is one.
    pub(super) fn begin<Fs: Files<File = F>>(
        files: &Fs,
        segment: u32,
        size: u32,
        log_id: u64,
        spare: Option<u32>,
    ) -> Result<Making<F>, Failure> {
        assert!(size > UNITS_BEGIN, "a segment of {size} bytes has no room for units");
        let name = temporary_name(segment);
        let failed = |source| Failure::new("create", files.path(&name), source);
        let made = match spare {
            Some(spare) => files
                .rename(&temporary_name(spare), &name)
                .and_then(|()| files.open(&name)),
            None => files.create(&name),
        };
        let mut file = made.map_err(failed)?;
        let header = encode_header(segment, size, log_id);
        file.write_all_at(&mut [IoSlice::new(&header)], 0).map_err(failed)?;
        Ok(Making {
            segment,
            size,
            written: header.len() as u32,
            file,
        })
    }

    /// Writes the first unit behind the header, before anything else.
    pub(super) fn put_unit<Fs: Files<File = F>>(&mut self, files: &Fs, unit: &UnitBuffer) -> Result<(), Failure> {
        let name = temporary_name(self.segment);
        let failed = |source| Failure::new("write to", files.path(&name), source);
        let gap = u64::from(UNITS_BEGIN - self.written);
        self.file.write_zeros(self.written.into(), gap).map_err(failed)?;
        let written = self.file.write_all_at(&mut unit.pieces(), UNITS_BEGIN.into());
        written.map_err(failed)?;
        self.written = UNITS_BEGIN + unit.length() as u32;
        Ok(())
    }

    /// Writes at most `bytes_max` of its zeros; behind the last, syncs them all and gives it its name. Whether it is ready.
    pub(super) fn advance<Fs: Files<File = F>>(&mut self, files: &Fs, bytes_max: u32) -> Result<bool, Failure> {
        let name = temporary_name(self.segment);
        let count = (self.size - self.written).min(bytes_max);
        let failed = |source| Failure::new("preallocate", files.path(&name), source);
        self.file
            .write_zeros(self.written.into(), count.into())
            .map_err(failed)?;
        self.file.begin_write_out(self.written.into(), count.into());
        self.written += count;
        if self.written < self.size {
            return Ok(false);
        }
        self.file.sync().map_err(failed)?;
        let named = |source| Failure::new("rename", files.path(&name), source);
        files.rename(&name, &segment_name(self.segment)).map_err(named)?;
        files
            .sync_directory()
            .map_err(|source| Failure::new("sync", files.directory(), source))?;
        Ok(true)
    }

    /// Gives back what it took of a full disk. If that fails, the next open removes it.
    pub(super) fn abandon<Fs: Files<File = F>>(files: &Fs, segment: u32) {
        let name = temporary_name(segment);
        if let Err(error) = files.remove(&name) {
            log::debug!("cannot remove {}: {error}", files.path(&name));
        }
    }

    /// Bytes of it that are written.
    pub(super) fn written(&self) -> u32 {
        self.written
    }

    /// Its number and size.
    pub(super) fn number_and_size(&self) -> (u32, u32) {
        (self.segment, self.size)
    }
}

/// The name of a segment while it is made, and while it is spare.
pub(super) fn temporary_name(segment: u32) -> String {
    format!("{}{TEMPORARY_SUFFIX}", segment_name(segment))
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    #[test]
    fn only_a_segments_own_name_means_it() {
        assert_eq!(segment_of("wal-0000000012.log"), Some(12));
        for name in [
            "wal-12.log",
            "wal-0000000012.log.tmp",
            "wal-00000000+1.log",
            "IDENTITY",
            "wal-9999999999.log",
        ] {
            assert_eq!(segment_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_segment_is_made_in_slices_and_named_when_whole() {
        let disk = SimDisk::new(1);
        let mut making = Making::begin(&disk, 1, 10_000, 7, None).unwrap();
        assert!(!making.advance(&disk, 5_000).unwrap());
        assert_eq!(disk.list().unwrap(), ["wal-0000000001.log.tmp"]);
        assert!(making.advance(&disk, 5_000).unwrap());
        disk.crash();
        assert_eq!(check_header(&disk, 1, 7).unwrap(), 10_000);
        assert_eq!(disk.contents("wal-0000000001.log").unwrap().len(), 10_000);
    }

    #[test]
    fn each_fault_of_a_header_is_named() {
        let disk = SimDisk::new(1);
        let mut making = Making::begin(&disk, 1, 10_000, 7, None).unwrap();
        making.advance(&disk, u32::MAX).unwrap();
        let name = segment_name(1);
        assert!(
            check_header(&disk, 1, 8)
                .unwrap_err()
                .to_string()
                .contains("another data directory")
        );
        disk.flip_bit(&name, 9, 3);
        let error = check_header(&disk, 1, 7).unwrap_err().to_string();
        assert!(error.contains("wal-0000000001.log is damaged at offset 0"), "{error}");
        disk.overwrite(&name, 0, &encode_header(2, 10_000, 7));
        assert!(check_header(&disk, 1, 7).unwrap_err().to_string().contains("segment 2"));
        disk.overwrite(&name, 0, &encode_header(1, 9_999, 7));
        assert!(
            check_header(&disk, 1, 7)
                .unwrap_err()
                .to_string()
                .contains("10000 bytes long")
        );
    }
}
