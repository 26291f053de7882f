//! How a snapshot's file goes from a node to one that is behind: offered, asked for piece by piece, sent.
//!
//! Who is behind asks for what it misses (FETCH); who no longer has those entries offers its newest snapshot. The other
//! asks for pieces of the file, a few at a time, whenever and of whomever it likes: nothing is remembered of it where
//! they come from. Two nodes that took a snapshot behind one slot have the same file, so what was begun with one can be
//! ended with another.
//!
//! Not here: what is asked when (`machine::install`), what stands in the file ([`crate::storage::snapshot`]).

use super::bytes::{COUNT_MAX, DecodeError, Field, Reader, Writer};
use super::frame::FrameType;
use crate::paxos::Slot;
use bytes::Bytes;
use std::fmt;

/// A file is asked for in pieces of this size; the last one is shorter.
pub const CHUNK_BYTES: usize = 256 << 10;

/// Where no file has a byte: who asks for a piece from here on is offered the snapshot, or a later one.
pub const OFFSET_OF_NO_BYTE: u64 = COUNT_MAX;

/// A message about a snapshot's file. All of them leave before the sync: they claim nothing about the sender's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The entries that were asked for are gone; there is this snapshot.
    Offer {
        /// Behind which slot.
        slot: Slot,
        /// Bytes of the file.
        bytes: u64,
        /// Digest of the content.
        content: u64,
    },
    /// Asks for a piece of a file.
    Ask {
        /// Which snapshot.
        slot: Slot,
        /// Where the piece begins.
        offset: u64,
        /// Its bytes; at most [`CHUNK_BYTES`].
        length: u32,
    },
    /// A piece of a file.
    Chunk {
        /// Which snapshot.
        slot: Slot,
        /// Where the piece begins.
        offset: u64,
        /// CRC-32 of the piece, made where it was read.
        crc: u32,
        /// The piece.
        bytes: Bytes,
    },
}

impl Transfer {
    /// A piece of a file, with its checksum.
    pub fn chunk(slot: Slot, offset: u64, bytes: Bytes) -> Transfer {
        Transfer::Chunk {
            slot,
            offset,
            crc: crc32fast::hash(&bytes),
            bytes,
        }
    }

    /// The message's name in scripts, logs, the ring and `protocol.md`.
    pub fn name(&self) -> &'static str {
        match self {
            Transfer::Offer { .. } => "SNAPSHOT_OFFER",
            Transfer::Ask { .. } => "SNAPSHOT_ASK",
            Transfer::Chunk { .. } => "SNAPSHOT_CHUNK",
        }
    }

    /// The snapshot that it is about.
    pub fn slot(&self) -> Slot {
        match self {
            Transfer::Offer { slot, .. } | Transfer::Ask { slot, .. } | Transfer::Chunk { slot, .. } => *slot,
        }
    }

    pub(super) fn frame_type(&self) -> FrameType {
        match self {
            Transfer::Offer { .. } => FrameType::SnapshotOffer,
            Transfer::Ask { .. } => FrameType::SnapshotAsk,
            Transfer::Chunk { .. } => FrameType::SnapshotChunk,
        }
    }
}

pub(super) fn put_transfer(transfer: &Transfer, out: &mut Writer<'_>) {
    transfer.slot().put(out);
    match transfer {
        Transfer::Offer { bytes, content, .. } => {
            out.u64(*bytes);
            out.u64(*content);
        }
        Transfer::Ask { offset, length, .. } => {
            out.u64(*offset);
            out.u32(*length);
        }
        Transfer::Chunk { offset, crc, bytes, .. } => {
            out.u64(*offset);
            out.u32(*crc);
            out.length32(bytes.len());
            out.slice(bytes);
        }
    }
}

pub(super) fn take_offer(from: &mut Reader<'_>) -> Result<Transfer, DecodeError> {
    Ok(Transfer::Offer {
        slot: Slot::take(from, "slot")?,
        bytes: from.count("bytes")?,
        content: from.u64("content")?,
    })
}

pub(super) fn take_ask(from: &mut Reader<'_>) -> Result<Transfer, DecodeError> {
    Ok(Transfer::Ask {
        slot: Slot::take(from, "slot")?,
        offset: from.count("offset")?,
        length: take_length(from)? as u32,
    })
}

pub(super) fn take_chunk(from: &mut Reader<'_>) -> Result<Transfer, DecodeError> {
    let slot = Slot::take(from, "slot")?;
    let offset = from.count("offset")?;
    let crc = from.u32("crc")?;
    let length = take_length(from)?;
    let bytes = from.bytes(length, "piece")?;
    Ok(Transfer::Chunk {
        slot,
        offset,
        crc,
        bytes,
    })
}

fn take_length(from: &mut Reader<'_>) -> Result<usize, DecodeError> {
    match from.u32("length")? as usize {
        length if (1..=CHUNK_BYTES).contains(&length) => Ok(length),
        length => Err(DecodeError::OutOfRange {
            field: "length",
            value: length as u64,
        }),
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slot={}", self.name(), self.slot())?;
        match self {
            Transfer::Offer { bytes, .. } => write!(f, " bytes={bytes}"),
            Transfer::Ask { offset, length, .. } => write!(f, " offset={offset} length={length}"),
            Transfer::Chunk { offset, bytes, .. } => write!(f, " offset={offset} length={}", bytes.len()),
        }
    }
}
