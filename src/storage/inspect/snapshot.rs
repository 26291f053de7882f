//! A snapshot as it is: header, blocks, items, trailer.
//!
//! A block whose head is good says where the next one begins, whatever its items are. Behind a bad head the next good one,
//! or the trailer, is looked for. What only the whole can tell (order, counts, digest, checksum of the file) is judged
//! only if nothing else is wrong: it would follow from that.

use super::{Ended, Give, Part, Window, newer};
use crate::kv::snapshot::Checker;
use crate::storage::OpenError;
use crate::storage::error::DamageKind;
use crate::storage::files::File;
use crate::storage::snapshot::{
    BLOCK_HEAD_BYTES, BLOCK_MAGIC, BlockHead, HEADER_BYTES_MAX, TRAILER_BYTES, TRAILER_MAGIC, Trailer, check_header,
    judge_prefix, snapshot_of,
};
use crate::wire::bytes::Reader;
use crate::wire::state::take_item;
use crc32fast::Hasher;

/// A walk over one snapshot.
pub(super) struct Walk<'a, F> {
    window: Window<'a, F>,
    path: &'a str,
    checker: Option<Checker>,
    crc: Hasher,
    blocks: u32,
    items: u64,
    is_damaged: bool,
}

impl<'a, F: File> Walk<'a, F> {
    pub(super) fn new(file: &'a F, path: &'a str) -> Result<Walk<'a, F>, Ended> {
        Ok(Walk {
            window: Window::new(file, path)?,
            path,
            checker: None,
            crc: Hasher::new(),
            blocks: 0,
            items: 0,
            is_damaged: false,
        })
    }

    pub(super) fn run(mut self, give: Give<'_>) -> Result<(), Ended> {
        let Some(mut at) = self.header(give)? else {
            return Ok(());
        };
        loop {
            let magic = Reader::copying(self.window.read(at, 4)?)
                .u32("magic")
                .unwrap_or_default();
            if magic == TRAILER_MAGIC && self.window.length() - at >= TRAILER_BYTES as u64 {
                return self.trailer(at, give);
            }
            match self.head_at(at)? {
                Ok(head) => at = self.block(at, head, give)?,
                Err(what) => {
                    self.damage(at, DamageKind::SnapshotBlock, what, give)?;
                    match self.next_good(at + 1)? {
                        Some(next) => at = next,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// Gives the header; where the first block begins.
    fn header(&mut self, give: Give<'_>) -> Result<Option<u64>, Ended> {
        let bytes = self.window.read(0, HEADER_BYTES_MAX)?.to_vec();
        let header_bytes = match judge_prefix(&bytes, self.path) {
            Ok(header_bytes) => header_bytes,
            Err(OpenError::NewerFormat { found, supported, .. }) => {
                self.damage(0, DamageKind::SnapshotHeader, newer(found, supported), give)?;
                return Ok(None);
            }
            Err(OpenError::Damage(damage)) => {
                self.damage(0, DamageKind::SnapshotHeader, damage.what, give)?;
                return self.next_good(0);
            }
            Err(error) => {
                self.damage(0, DamageKind::SnapshotHeader, error.to_string(), give)?;
                return Ok(None);
            }
        };
        let bytes = &bytes[..header_bytes];
        self.crc.update(bytes);
        match check_header(bytes) {
            Ok(header) => {
                let format = Reader::copying(&bytes[8..12]).u32("format").unwrap_or_default();
                self.checker = Some(Checker::new(header.summary));
                let (slot, named) = (header.summary.slot, self.path.rsplit('/').next().and_then(snapshot_of));
                give(self.path, 0, Part::Snapshot(Box::new(header), format))?;
                if named.is_some_and(|named| named != slot) {
                    self.damage(
                        0,
                        DamageKind::SnapshotHeader,
                        format!("it is the snapshot of slot {slot}"),
                        give,
                    )?;
                }
            }
            Err(what) => self.damage(0, DamageKind::SnapshotHeader, what, give)?,
        }
        Ok(Some(header_bytes as u64))
    }

    fn head_at(&mut self, at: u64) -> Result<Result<BlockHead, String>, Ended> {
        let left = self.window.length().saturating_sub(at);
        let bytes = self.window.read(at, BLOCK_HEAD_BYTES)?;
        if bytes.len() < BLOCK_HEAD_BYTES {
            return Ok(Err(format!(
                "{left} bytes left where a block or the trailer should stand"
            )));
        }
        if !bytes.starts_with(&BLOCK_MAGIC.to_be_bytes()) {
            return Ok(Err("neither a block nor the trailer".into()));
        }
        Ok(BlockHead::parse(bytes).and_then(|head| {
            let bytes = BLOCK_HEAD_BYTES as u64 + u64::from(head.length);
            if bytes > left {
                return Err(format!("block of {bytes} bytes, {left} are left in the file"));
            }
            Ok(head)
        }))
    }

    /// Gives a block whose head is good; where the next one begins.
    fn block(&mut self, at: u64, head: BlockHead, give: Give<'_>) -> Result<u64, Ended> {
        if head.number != self.blocks + 1 && !self.is_damaged {
            let what = format!("block {} where block {} should stand", head.number, self.blocks + 1);
            self.damage(at, DamageKind::SnapshotBlock, what, give)?;
        }
        let part = Part::Block {
            number: head.number,
            items: head.items,
            bytes: head.length,
        };
        give(self.path, at, part)?;
        let begin = at + BLOCK_HEAD_BYTES as u64;
        let bytes = self.window.read(at, BLOCK_HEAD_BYTES + head.length as usize)?.to_vec();
        self.crc.update(&bytes);
        let bytes = &bytes[BLOCK_HEAD_BYTES..];
        let computed = crc32fast::hash(bytes);
        if computed == head.crc {
            self.items(begin, bytes, head.items, give)?;
        } else {
            let (number, stated) = (head.number, head.crc);
            let what = format!("block {number} has crc {computed:08x}, stated is {stated:08x}");
            self.damage(at, DamageKind::SnapshotBlock, what, give)?;
        }
        self.blocks = head.number;
        self.items += u64::from(head.items);
        Ok(begin + u64::from(head.length))
    }

    fn items(&mut self, begin: u64, bytes: &[u8], count: u32, give: Give<'_>) -> Result<(), Ended> {
        let mut from = Reader::copying(bytes);
        for _ in 0..count {
            let offset = begin + (bytes.len() - from.left()) as u64;
            let item = match take_item(&mut from) {
                Ok(item) => item,
                Err(error) => return self.damage(offset, DamageKind::SnapshotBlock, error.to_string(), give),
            };
            let checked = self.checker.as_mut().map_or(Ok(()), |checker| checker.add(&item));
            give(self.path, offset, Part::Item(item))?;
            if let Err(error) = checked
                && !self.is_damaged
            {
                self.damage(offset, DamageKind::SnapshotBlock, error.to_string(), give)?;
            }
        }
        match from.finish() {
            Ok(()) => Ok(()),
            Err(error) => self.damage(begin, DamageKind::SnapshotBlock, error.to_string(), give),
        }
    }

    fn trailer(&mut self, at: u64, give: Give<'_>) -> Result<(), Ended> {
        let bytes = self.window.read(at, TRAILER_BYTES)?.to_vec();
        let trailer = match Trailer::parse(&bytes) {
            Ok(trailer) => trailer,
            Err(what) => return self.damage(at, DamageKind::SnapshotTrailer, what, give),
        };
        let Trailer {
            blocks,
            items,
            content,
            crc,
        } = trailer;
        let part = Part::Trailer { blocks, items, content };
        give(self.path, at, part)?;
        self.crc.update(&bytes[..TRAILER_BYTES - 4]);
        let computed = self.crc.clone().finalize();
        let behind = self.window.length() - at - TRAILER_BYTES as u64;
        let checked = self.checker.as_ref().map(Checker::finish);
        let what = if self.is_damaged {
            None
        } else if computed != crc {
            Some(format!("the file has crc {computed:08x}, its trailer says {crc:08x}"))
        } else if (blocks, items) != (self.blocks, self.items) {
            let (has_blocks, has_items) = (self.blocks, self.items);
            Some(format!(
                "{has_blocks} blocks with {has_items} items, the trailer says {blocks} with {items}"
            ))
        } else if behind > 0 {
            Some(format!("{behind} bytes behind the trailer"))
        } else {
            checked.and_then(Result::err).map(|error| error.to_string())
        };
        match what {
            Some(what) => self.damage(at, DamageKind::SnapshotTrailer, what, give),
            None => Ok(()),
        }
    }

    /// The next place where a block's head or the trailer stands.
    fn next_good(&mut self, from: u64) -> Result<Option<u64>, Ended> {
        let length = self.window.length();
        let is_block = |_: u64, bytes: &[u8]| bytes.len() == BLOCK_HEAD_BYTES && BlockHead::parse(bytes).is_ok();
        let block = self
            .window
            .find(from, BLOCK_MAGIC.to_be_bytes(), BLOCK_HEAD_BYTES, is_block)?;
        let is_last = |at: u64, _: &[u8]| at + TRAILER_BYTES as u64 == length;
        let trailer = length.saturating_sub(TRAILER_BYTES as u64).max(from);
        let trailer = self.window.find(trailer, TRAILER_MAGIC.to_be_bytes(), 4, is_last)?;
        Ok(block.or(trailer))
    }

    fn damage(&mut self, at: u64, kind: DamageKind, what: String, give: Give<'_>) -> Result<(), Ended> {
        self.is_damaged = true;
        Ok(give(self.path, at, Part::Damage(kind, what))?)
    }
}
