//! Bytes that somebody copied, as hex: what they are shows in them. Files and units begin with a magic; frames prove
//! themselves by length and checksum; a record, or an entry's body, must be used up to its last byte.
//!
//! The form is that of `protocol.md`: in each line the hex ends at two spaces, and what follows is a comment.

use super::{Printer, Refused, show};
use crate::storage::inspect::{self, Kind, log::LogWalk};
use crate::storage::{self, segment::UNITS_BEGIN};
use crate::wire::frame::{self, FRAME_BYTES_MAX};
use crate::wire::record::{self, RecordKind};
use crate::wire::{Record, body};
use bytes::{Bytes, BytesMut};
use serde_json::json;
use std::io::{self, IoSlice};

/// How such bytes are called.
const PATH: &str = "hex";

/// Bytes that are read like a file.
#[derive(Debug)]
struct Copied(Vec<u8>);

/// Shows all that the hex holds.
pub(super) fn show_hex(hex: &str, printer: &mut Printer) -> Result<(), Refused> {
    let bytes = parse(hex).map_err(Refused::Unknown)?;
    let file = Copied(bytes);
    let kind = Kind::of(&file, PATH).map_err(|failure| Refused::Ended(failure.into()))?;
    let Some(kind) = kind else {
        return show_message(file.0, printer);
    };
    printer.begin_file(PATH, kind.name())?;
    let give = &mut |path: &str, offset, part| printer.part(path, offset, part);
    let mut walk = LogWalk::default();
    match kind {
        Kind::Identity => inspect::identity(&file, PATH, give)?,
        Kind::Snapshot => inspect::snapshot(&file, PATH, give)?,
        Kind::Segment if file.0.len() as u64 > u64::from(UNITS_BEGIN) => {
            walk.segment(&file, PATH, give)?;
            walk.finish(true, give)?;
        }
        Kind::Segment => walk.segment(&file, PATH, give)?,
        Kind::Units => walk.bare_units(&file, PATH, give)?,
    }
    Ok(())
}

/// Frames, a record or a body.
fn show_message(bytes: Vec<u8>, printer: &mut Printer) -> Result<(), Refused> {
    let unknown = match show_frames(&bytes, printer)? {
        Ok(()) => return Ok(()),
        Err(unknown) => unknown,
    };
    let bytes = Bytes::from(bytes);
    if let Some(record) = as_record(&bytes) {
        printer.begin_file(PATH, "record")?;
        let (name, fields) = show::record(&record);
        return Ok(printer.fields(PATH, 0, name, fields)?);
    }
    let crc = crc32fast::hash(&bytes);
    if let Ok(entry) = body::parse(bytes, crc)
        && body::commands(&entry).is_ok()
    {
        printer.begin_file(PATH, "body")?;
        return Ok(printer.fields(PATH, 0, "ENTRY", show::entry(&entry))?);
    }
    Err(Refused::Unknown(format!(
        "neither a frame ({unknown}) nor a record nor a body nor the beginning of a file"
    )))
}

/// Shows frames one behind the other; or says why the first is none.
fn show_frames(bytes: &[u8], printer: &mut Printer) -> Result<Result<(), String>, Refused> {
    let mut buffer = BytesMut::from(bytes);
    let mut offset = 0;
    while !buffer.is_empty() {
        let shown = match frame::next_frame(&mut buffer, FRAME_BYTES_MAX) {
            Ok(Some((header, body))) => frame::decode(header, body)
                .map(|frame| (header, frame))
                .map_err(|error| error.to_string()),
            Ok(None) => Err(format!("{} bytes are missing", frame::bytes_missing(&buffer))),
            Err(error) => Err(error.to_string()),
        };
        match shown {
            Ok((header, frame)) => {
                if offset == 0 {
                    printer.begin_file(PATH, "frames")?;
                }
                printer.fields(PATH, offset as u64, frame.name(), show::frame(header, &frame))?;
            }
            Err(what) if offset == 0 => return Ok(Err(what)),
            Err(what) => {
                printer.damage += 1; // nobody knows where the next one begins
                printer.fields(PATH, offset as u64, "NO_FRAME", json!({ "what": what }))?;
                return Ok(Ok(()));
            }
        }
        offset = bytes.len() - buffer.len();
    }
    if offset == 0 {
        return Ok(Err("no bytes".into()));
    }
    Ok(Ok(()))
}

/// Kind, head and body one behind the other, as `protocol.md` shows records.
fn as_record(bytes: &Bytes) -> Option<Record> {
    let kind = RecordKind::from_byte(*bytes.first()?).ok()?;
    let rest = bytes.slice(1..);
    let body = record::body_of_head(kind, &rest).ok()?;
    let head_bytes = rest.len().checked_sub(body.map_or(0, |body| body.length))?;
    let body = body.map(|_| rest.slice(head_bytes..));
    Record::decode(kind, &rest[..head_bytes], body).ok()
}

fn parse(hex: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for (number, line) in (1..).zip(hex.lines()) {
        let line = line.trim_start();
        let digits: Vec<u8> = line
            .split("  ")
            .next()
            .unwrap_or_default()
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        if !digits.len().is_multiple_of(2) {
            return Err(format!("line {number}: half a byte"));
        }
        for pair in digits.chunks_exact(2) {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            match (digit(pair[0]), digit(pair[1])) {
                (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                _ => return Err(format!("line {number}: {:?} is no hex", String::from_utf8_lossy(pair))),
            }
        }
    }
    Ok(bytes)
}

impl storage::File for Copied {
    fn write_at(&mut self, _: &[IoSlice<'_>], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = self.0.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn begin_write_out(&self, _offset: u64, _length: u64) {}

    fn forget_cached(&self, _: u64, _: u64) {}

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}
