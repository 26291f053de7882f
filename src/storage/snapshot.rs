//! Snapshot files: the replicated state behind one slot, whole or refused.
//!
//! `snap-<slot>.snap` holds a header (whose state it is: cluster, members, slot, digests, counts), blocks of items
//! (`wire::state`), each with a checksum over its head and one over its items, and a trailer with the digest of the
//! content and a checksum over all before it. The bytes are a function of the state alone: two nodes that take a snapshot
//! behind the same slot write the same file. `protocol.md`, "On disk", has them as boxes. Invariants:
//! * N1. A file of that name is whole: it is written under a temporary name, synced, and only then renamed. So anything
//!   wrong in it is damage.
//! * N2. One block is in memory at a time, and no length is used before it is checked.
//!
//! [`SnapshotWriter`] and [`SnapshotReader`] are all that is needed to write one and to read one, for whatever purpose;
//! [`Loading`] makes a state of what a reader gives. Not here: when to take one (`node::snapshots`), what items mean
//! (`kv::snapshot`).

mod load;
#[cfg(test)]
pub(super) mod tests;

pub use load::Loading;

use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use super::segment::TEMPORARY_SUFFIX;
use crate::kv::snapshot::{Item, ItemRef, Summary};
use crate::paxos::{LogTime, NodeId, Slot};
use crate::wire::bytes::{DecodeError, Field, Reader, Writer};
use crate::wire::state::{ITEM_BYTES_MAX, put_item, take_item};
use crc32fast::Hasher;
use std::io::IoSlice;

/// First bytes of every snapshot.
pub const SNAPSHOT_MAGIC: &[u8; 8] = b"SYNODSNP";
/// Format of what this build writes, and the newest that it reads.
pub const SNAPSHOT_FORMAT: u32 = 1;
/// Default growth of the log between two snapshots, bytes.
pub const SNAPSHOT_BYTES: u64 = 64 << 20;
/// A block is closed once its items take so many bytes; the last item may go beyond.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Most bytes of items in one block.
pub const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + ITEM_BYTES_MAX;
/// Bytes before the items of a block.
pub const BLOCK_HEAD_BYTES: usize = 24;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 28;
/// First bytes of a block: "SNPB".
pub(super) const BLOCK_MAGIC: u32 = 0x534e_5042;
/// First bytes of the trailer: "SNPE".
pub(super) const TRAILER_MAGIC: u32 = 0x534e_5045;
/// Magic, format and length of the header.
const HEADER_PREFIX_BYTES: usize = 16;
/// Longest header, of this format and of later ones.
pub(super) const HEADER_BYTES_MAX: usize = 4096;

/// What stands at the beginning of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Id of the cluster whose state it is; 0 for a state that belongs to none yet.
    pub cluster_id: u64,
    /// What it says of the state.
    pub summary: Summary,
    /// Number of the configuration in force behind the slot.
    pub config: u64,
    /// Its members, ascending.
    pub members: Vec<NodeId>,
}

/// The name of the snapshot behind `slot`.
pub fn snapshot_name(slot: Slot) -> String {
    format!("snap-{:020}.snap", slot.0)
}

/// The slot that a file name means.
pub fn snapshot_of(name: &str) -> Option<Slot> {
    let slot = Slot(name.strip_prefix("snap-")?.strip_suffix(".snap")?.parse().ok()?);
    (snapshot_name(slot) == name).then_some(slot)
}

/// The name of a snapshot while it is written or fetched, and while it is taken away.
pub fn temporary_name(slot: Slot) -> String {
    format!("{}{TEMPORARY_SUFFIX}", snapshot_name(slot))
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        let mut out = Writer::new(&mut bytes);
        out.slice(SNAPSHOT_MAGIC);
        out.u32(SNAPSHOT_FORMAT);
        out.length32(self.encoded_bytes());
        out.u64(self.cluster_id);
        let Summary {
            slot,
            revision,
            log_time,
            digest,
            content,
            keys,
            sessions,
            bytes: data_bytes,
        } = self.summary;
        slot.put(&mut out);
        out.u64(revision);
        log_time.put(&mut out);
        for word in [digest, content, keys, sessions, data_bytes, self.config] {
            out.u64(word);
        }
        out.length8(self.members.len());
        self.members.iter().for_each(|member| member.put(&mut out));
        let crc = crc32fast::hash(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// How many they are: behind the prefix a cluster id, the summary's eight numbers, the configuration, the crc.
    fn encoded_bytes(&self) -> usize {
        HEADER_PREFIX_BYTES + 8 + 8 * 8 + 8 + 1 + 2 * self.members.len() + 4
    }

    fn decode(bytes: &[u8]) -> Result<Header, DecodeError> {
        let mut from = Reader::copying(bytes);
        from.slice(HEADER_PREFIX_BYTES, "magic, format and length")?;
        let cluster_id = from.u64("cluster id")?;
        let summary = Summary {
            slot: Slot::take(&mut from, "slot")?,
            revision: from.count("revision")?,
            log_time: LogTime::take(&mut from, "log time")?,
            digest: from.u64("digest")?,
            content: from.u64("content")?,
            keys: from.count("keys")?,
            sessions: from.count("sessions")?,
            bytes: from.count("bytes")?,
        };
        let config = from.count("config")?;
        let count = usize::from(from.u8("member count")?);
        let count = from.items(count, 2, "member count")?;
        let members = (0..count)
            .map(|_| NodeId::take(&mut from, "member"))
            .collect::<Result<Vec<NodeId>, DecodeError>>()?;
        from.finish()?;
        Ok(Header {
            cluster_id,
            summary,
            config,
            members,
        })
    }
}

/// Writes one snapshot under its temporary name, block by block. How it is driven: [`SnapshotWriter::add`] items while
/// [`SnapshotWriter::room`], [`SnapshotWriter::write_block`], [`SnapshotWriter::sync`] now and then; behind the last
/// item [`SnapshotWriter::finish`], [`SnapshotWriter::cut`], [`SnapshotWriter::sync`] and [`publish`].
#[derive(Debug)]
pub struct SnapshotWriter<F> {
    file: F,
    path: String,
    slot: Slot,
    content: u64,
    /// Of the block that is being filled.
    block: Vec<u8>,
    block_items: u32,
    blocks: u32,
    items: u64,
    written: u64,
    /// Bytes of the file: more than are written, if it was another's.
    length: u64,
    unsynced: u64,
    crc: Hasher,
}

impl<F: File> SnapshotWriter<F> {
    /// Begins the file with its header.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn begin<Fs: Files<File = F>>(files: &Fs, header: &Header) -> Result<SnapshotWriter<F>, Failure> {
        let name = temporary_name(header.summary.slot);
        let file = files.create(&name);
        SnapshotWriter::over(files, header, file, 0)
    }

    /// Begins the file with its header, over that of the `spare` one, of `length` bytes, which was withdrawn. Then most of the
    /// file is allocated already: its syncs have nothing to record but data, and no other's have to wait for what the old
    /// file would give back.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn begin_over<Fs: Files<File = F>>(
        files: &Fs,
        header: &Header,
        spare: Slot,
        length: u64,
    ) -> Result<SnapshotWriter<F>, Failure> {
        let name = temporary_name(header.summary.slot);
        let renamed = files.rename(&temporary_name(spare), &name);
        let file = renamed.and_then(|()| files.open(&name));
        SnapshotWriter::over(files, header, file, length)
    }

    fn over<Fs: Files<File = F>>(
        files: &Fs,
        header: &Header,
        file: std::io::Result<F>,
        length: u64,
    ) -> Result<SnapshotWriter<F>, Failure> {
        let slot = header.summary.slot;
        let path = files.path(&temporary_name(slot));
        let mut writer = SnapshotWriter {
            file: file.map_err(|source| Failure::new("create", path.clone(), source))?,
            path,
            slot,
            content: header.summary.content,
            block: Vec::with_capacity(BLOCK_HEAD_BYTES + BLOCK_BYTES),
            block_items: 0,
            blocks: 0,
            items: 0,
            written: 0,
            length,
            unsynced: 0,
            crc: Hasher::new(),
        };
        writer.put(&header.encode())?;
        writer.begin_block();
        Ok(writer)
    }

    /// The slot behind which the snapshot is taken.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The digest of its content.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes written, or cut off, and not synced.
    pub fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Bytes of items that the open block still takes; 0: write it.
    pub fn room(&self) -> usize {
        (BLOCK_HEAD_BYTES + BLOCK_BYTES).saturating_sub(self.block.len())
    }

    /// Puts an item into the open block; how many bytes it takes.
    pub fn add(&mut self, item: ItemRef<'_>) -> usize {
        self.block_items += 1;
        put_item(item, &mut self.block)
    }

    /// Writes the open block, if it holds anything, and opens the next.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn write_block(&mut self) -> Result<(), Failure> {
        if self.block_items == 0 {
            return Ok(());
        }
        self.blocks += 1;
        self.items += u64::from(self.block_items);
        let length = self.block.len() - BLOCK_HEAD_BYTES;
        let head = BlockHead {
            number: self.blocks,
            length: length as u32,
            items: self.block_items,
            crc: crc32fast::hash(&self.block[BLOCK_HEAD_BYTES..]),
        };
        self.block[..BLOCK_HEAD_BYTES].copy_from_slice(&head.encode());
        let block = std::mem::take(&mut self.block);
        let written = self.put(&block);
        self.block = block;
        self.begin_block();
        written
    }

    /// Writes what is left, and the trailer; [`SnapshotWriter::sync`] and [`publish`] follow.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn finish(&mut self) -> Result<(), Failure> {
        self.write_block()?;
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        let mut out = Writer::new(&mut bytes);
        out.u32(TRAILER_MAGIC);
        out.u32(self.blocks);
        out.u64(self.items);
        out.u64(self.content);
        let mut crc = self.crc.clone();
        crc.update(&bytes);
        Writer::new(&mut bytes).u32(crc.finalize());
        self.put(&bytes)
    }

    /// Behind [`SnapshotWriter::finish`], before the last sync: cuts off what the file holds of another, at most `bytes_max` of
    /// it; whether nothing of it is left.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn cut(&mut self, bytes_max: u64) -> Result<bool, Failure> {
        if self.length > self.written {
            let length = self.length.saturating_sub(bytes_max).max(self.written);
            self.unsynced += self.length - length;
            self.length = length;
            let cut = self.file.truncate(length);
            cut.map_err(|source| Failure::new("cut", self.path.clone(), source))?;
        }
        Ok(self.length == self.written)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// [`Failure`]: nothing of the file can be trusted then.
    pub fn sync(&mut self) -> Result<(), Failure> {
        if self.unsynced == 0 {
            return Ok(());
        }
        self.unsynced = 0;
        let synced = self.file.sync();
        synced.map_err(|source| Failure::new("sync", self.path.clone(), source))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.crc.update(bytes);
        let written = self.file.write_all_at(&mut [IoSlice::new(bytes)], self.written);
        written.map_err(|source| Failure::new("write to", self.path.clone(), source))?;
        self.file.begin_write_out(self.written, bytes.len() as u64);
        self.written += bytes.len() as u64;
        self.length = self.length.max(self.written);
        self.unsynced += bytes.len() as u64;
        Ok(())
    }

    fn begin_block(&mut self) {
        self.block.clear();
        self.block.resize(BLOCK_HEAD_BYTES, 0);
        self.block_items = 0;
    }
}

/// Gives a snapshot that is written or fetched, and synced, its own name (N1). It is durable then.
///
/// # Errors
/// [`Failure`].
pub fn publish<Fs: Files>(files: &Fs, slot: Slot) -> Result<(), Failure> {
    let (from, to) = (temporary_name(slot), snapshot_name(slot));
    let renamed = files.rename(&from, &to);
    renamed.map_err(|source| Failure::new("rename", files.path(&from), source))?;
    let synced = files.sync_directory();
    synced.map_err(|source| Failure::new("sync", files.directory(), source))
}

/// Takes a snapshot's name away, for good: what is left of it under its temporary name may be cut and removed.
///
/// # Errors
/// [`Failure`].
pub fn withdraw<Fs: Files>(files: &Fs, slot: Slot) -> Result<(), Failure> {
    let (from, to) = (snapshot_name(slot), temporary_name(slot));
    let renamed = files.rename(&from, &to);
    renamed.map_err(|source| Failure::new("rename", files.path(&from), source))?;
    let synced = files.sync_directory();
    synced.map_err(|source| Failure::new("sync", files.directory(), source))
}

/// What stands before the items of a block. Its own checksum keeps a flipped length from being believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockHead {
    pub(super) number: u32,
    pub(super) length: u32,
    pub(super) items: u32,
    pub(super) crc: u32,
}

impl BlockHead {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK_HEAD_BYTES);
        let mut out = Writer::new(&mut bytes);
        out.u32(BLOCK_MAGIC);
        out.u32(self.number);
        out.u32(self.length);
        out.u32(self.items);
        out.u32(self.crc);
        let crc = crc32fast::hash(&bytes);
        Writer::new(&mut bytes).u32(crc);
        bytes
    }

    /// The head of block `number`.
    fn decode(bytes: &[u8], number: u32) -> Result<BlockHead, String> {
        let head = BlockHead::parse(bytes)?;
        if head.number != number {
            return Err(format!("block {} where block {number} should stand", head.number));
        }
        Ok(head)
    }

    /// The head that these bytes are, of whatever block.
    pub(super) fn parse(bytes: &[u8]) -> Result<BlockHead, String> {
        let words = |error: DecodeError| error.to_string();
        let (content, crc) = bytes.split_at(BLOCK_HEAD_BYTES - 4);
        let (stated, computed) = (
            Reader::copying(crc).u32("crc").map_err(words)?,
            crc32fast::hash(content),
        );
        if stated != computed {
            return Err(format!("block head has crc {computed:08x}, stated is {stated:08x}"));
        }
        let mut from = Reader::copying(content);
        from.u32("magic").map_err(words)?;
        let head = BlockHead {
            number: from.u32("number").map_err(words)?,
            length: from.u32("length").map_err(words)?,
            items: from.u32("items").map_err(words)?,
            crc: from.u32("items crc").map_err(words)?,
        };
        if head.length == 0 || head.length as usize > BLOCK_BYTES_MAX {
            return Err(format!("block of {} bytes, at most {BLOCK_BYTES_MAX}", head.length));
        }
        Ok(head)
    }
}

/// What stands behind the last block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trailer {
    pub(super) blocks: u32,
    pub(super) items: u64,
    pub(super) content: u64,
    /// Of the whole file before it.
    pub(super) crc: u32,
}

impl Trailer {
    pub(super) fn parse(bytes: &[u8]) -> Result<Trailer, String> {
        let words = |error: DecodeError| error.to_string();
        let mut from = Reader::copying(bytes);
        from.u32("magic").map_err(words)?;
        Ok(Trailer {
            blocks: from.u32("blocks").map_err(words)?,
            items: from.u64("items").map_err(words)?,
            content: from.u64("content").map_err(words)?,
            crc: from.u32("crc").map_err(words)?,
        })
    }
}

/// Reads one snapshot, block by block, and checks all that it holds. Behind the last block everything is proven but
/// what only a loader can tell: the order of items and the digest of the content.
#[derive(Debug)]
pub struct SnapshotReader<F> {
    file: F,
    path: String,
    header: Header,
    length: u64,
    at: u64,
    blocks: u32,
    items: u64,
    crc: Hasher,
    block: Vec<u8>,
    is_finished: bool,
}

/// A block that was read and is what was written.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many items it says that it holds.
    pub items: u32,
    /// Their bytes.
    pub bytes: &'a [u8],
}

impl Block<'_> {
    /// Gives every item, in order.
    ///
    /// # Errors
    /// Says what is wrong with the bytes, or what `give` says of an item.
    pub fn for_each(&self, mut give: impl FnMut(Item) -> Result<(), String>) -> Result<(), String> {
        let mut from = Reader::copying(self.bytes);
        for _ in 0..self.items {
            give(take_item(&mut from).map_err(|error| error.to_string())?)?;
        }
        from.finish().map_err(|error| error.to_string())
    }
}

impl<F: File> SnapshotReader<F> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`OpenError::Damage`], [`OpenError::NewerFormat`], [`OpenError::Failed`].
    pub fn open<Fs: Files<File = F>>(files: &Fs, name: &str) -> Result<SnapshotReader<F>, OpenError> {
        let path = files.path(name);
        let file = files.open(name);
        SnapshotReader::over(
            file.map_err(|source| Failure::new("read", path.clone(), source))?,
            &path,
        )
    }

    /// Over a file that is open, wherever it stands; errors call it `path`.
    ///
    /// # Errors
    /// As [`SnapshotReader::open`].
    pub fn over(file: F, path: &str) -> Result<SnapshotReader<F>, OpenError> {
        let path = path.to_owned();
        let failed = |source| Failure::new("read", path.clone(), source);
        let length = file.length().map_err(failed)?;
        let damage = |what: String| damage_of(&path, 0, DamageKind::SnapshotHeader, what);
        let mut bytes = vec![0; HEADER_BYTES_MAX.min(length as usize)];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let header_bytes = judge_prefix(&bytes, &path)?;
        bytes.truncate(header_bytes);
        let header = check_header(&bytes).map_err(damage)?;
        let mut crc = Hasher::new();
        crc.update(&bytes);
        Ok(SnapshotReader {
            file,
            path,
            header,
            length,
            at: header_bytes as u64,
            blocks: 0,
            items: 0,
            crc,
            block: Vec::new(),
            is_finished: false,
        })
    }

    /// What stands at its beginning.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What comes next is to be read from the disk, and not from memory that stands for it.
    pub(super) fn forget_cached(&self) {
        self.file.forget_cached(self.at, BLOCK_BYTES_MAX as u64);
    }

    /// The next block; `None` behind the last, when the trailer was read and all is what was written.
    ///
    /// # Errors
    /// [`OpenError::Damage`], [`OpenError::Failed`]; the reader is of no use then.
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>, OpenError> {
        if self.is_finished {
            return Ok(None);
        }
        let offset = self.at;
        let left = self.length - offset;
        if left < TRAILER_BYTES as u64 {
            return Err(self.damage(
                offset,
                format!("{left} bytes left where a block or the trailer should stand"),
            ));
        }
        let mut bytes = [0; TRAILER_BYTES];
        self.read(&mut bytes, offset)?;
        match Reader::copying(&bytes).u32("magic") {
            Ok(BLOCK_MAGIC) => self.read_block(&bytes[..BLOCK_HEAD_BYTES], left).map(Some),
            Ok(TRAILER_MAGIC) => self.check_trailer(&bytes).map(|()| None),
            _ => Err(self.damage(offset, "neither a block nor the trailer".into())),
        }
    }

    fn read_block(&mut self, head_bytes: &[u8], left: u64) -> Result<Block<'_>, OpenError> {
        let offset = self.at;
        let head = BlockHead::decode(head_bytes, self.blocks + 1).map_err(|what| self.damage(offset, what))?;
        let bytes = BLOCK_HEAD_BYTES as u64 + u64::from(head.length);
        if bytes > left {
            return Err(self.damage(offset, format!("block of {bytes} bytes, {left} are left in the file")));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(head.length as usize, 0);
        self.read(&mut block, offset + BLOCK_HEAD_BYTES as u64)?;
        self.block = block;
        let computed = crc32fast::hash(&self.block);
        if computed != head.crc {
            let what = format!(
                "block {} has crc {computed:08x}, stated is {:08x}",
                head.number, head.crc
            );
            return Err(self.damage(offset, what));
        }
        self.crc.update(head_bytes);
        self.crc.update(&self.block);
        self.at += bytes;
        self.blocks = head.number;
        self.items += u64::from(head.items);
        Ok(Block {
            number: head.number,
            offset,
            items: head.items,
            bytes: &self.block,
        })
    }

    fn check_trailer(&mut self, bytes: &[u8; TRAILER_BYTES]) -> Result<(), OpenError> {
        let offset = self.at;
        self.crc.update(&bytes[..TRAILER_BYTES - 4]);
        let computed = self.crc.clone().finalize();
        match self.judge_trailer(bytes, computed) {
            Ok(()) => {
                self.at += TRAILER_BYTES as u64;
                self.is_finished = true;
                self.block = Vec::new();
                Ok(())
            }
            Err(what) => Err(damage_of(&self.path, offset, DamageKind::SnapshotTrailer, what)),
        }
    }

    fn judge_trailer(&self, bytes: &[u8], computed: u32) -> Result<(), String> {
        let Trailer {
            blocks,
            items,
            content,
            crc: stated,
        } = Trailer::parse(bytes)?;
        if stated != computed {
            return Err(format!(
                "the file has crc {computed:08x}, its trailer says {stated:08x}"
            ));
        }
        if (blocks, items) != (self.blocks, self.items) {
            let (has_blocks, has_items) = (self.blocks, self.items);
            return Err(format!(
                "{has_blocks} blocks with {has_items} items, the trailer says {blocks} with {items}"
            ));
        }
        if content != self.header.summary.content {
            return Err("header and trailer state different digests of the content".into());
        }
        let behind = self.length - self.at - TRAILER_BYTES as u64;
        if behind > 0 {
            return Err(format!("{behind} bytes behind the trailer"));
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), Failure> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|source| Failure::new("read", self.path.clone(), source))
    }

    /// Damage of a block at a place of this file.
    pub fn damage(&self, offset: u64, what: String) -> OpenError {
        damage_of(&self.path, offset, DamageKind::SnapshotBlock, what)
    }
}

fn damage_of(path: &str, offset: u64, kind: DamageKind, what: String) -> OpenError {
    let file = path.into();
    Damage {
        file,
        offset,
        kind,
        what,
    }
    .into()
}

/// Magic, format and length of a header; the length.
pub(super) fn judge_prefix(bytes: &[u8], path: &str) -> Result<usize, OpenError> {
    let words =
        |error: DecodeError| damage_of(path, 0, DamageKind::SnapshotHeader, format!("snapshot header: {error}"));
    let mut from = Reader::copying(bytes);
    let magic = from.slice(SNAPSHOT_MAGIC.len(), "magic").map_err(words)?;
    if magic != SNAPSHOT_MAGIC {
        return Err(damage_of(
            path,
            0,
            DamageKind::SnapshotHeader,
            "snapshot header without its magic".into(),
        ));
    }
    let found = from.u32("format").map_err(words)?;
    let length = from.u32("length").map_err(words)? as usize;
    // The length stays where it is in every format, and the checksum behind all of it.
    let Some(header) = bytes
        .get(..length)
        .filter(|header| header.len() > HEADER_PREFIX_BYTES + 4)
    else {
        return Err(damage_of(
            path,
            0,
            DamageKind::SnapshotHeader,
            format!("snapshot header of {length} bytes"),
        ));
    };
    if found > SNAPSHOT_FORMAT && crc_holds(header) {
        return Err(OpenError::NewerFormat {
            file: path.into(),
            found,
            supported: SNAPSHOT_FORMAT,
        });
    }
    Ok(length)
}

fn crc_holds(header: &[u8]) -> bool {
    header
        .split_last_chunk::<4>()
        .is_some_and(|(content, stated)| u32::from_be_bytes(*stated) == crc32fast::hash(content))
}

pub(super) fn check_header(bytes: &[u8]) -> Result<Header, String> {
    if !crc_holds(bytes) {
        return Err("snapshot header whose crc is wrong".into());
    }
    Header::decode(&bytes[..bytes.len() - 4]).map_err(|error| format!("snapshot header: {error}"))
}

/// Every snapshot in a directory, the newest first. Damaged ones too.
///
/// # Errors
/// [`Failure`].
pub fn list<Fs: Files>(files: &Fs) -> Result<Vec<Slot>, Failure> {
    let names = files.list();
    let names = names.map_err(|source| Failure::new("list", files.directory(), source))?;
    let mut slots: Vec<Slot> = names.iter().filter_map(|name| snapshot_of(name)).collect();
    slots.sort_unstable_by(|a, b| b.cmp(a));
    Ok(slots)
}
