//! One simulated file: what is on disk, and the page cache above it.
//!
//! Not here: names, faults, power ([`super`]).

use fastrand::Rng;
use std::collections::BTreeMap;

/// What the disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// One file: what is on disk, and the page cache above it.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    durable: Vec<u8>,
    pub(super) length: usize,
    /// Written and not synced.
    unsynced: BTreeMap<usize, Sector>,
    /// Written, and forgotten by a sync that failed: readable, and never written again.
    forgotten: BTreeMap<usize, Sector>,
}

impl Inode {
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done;
            let (index, begin) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
            let count = (SECTOR_BYTES - begin).min(bytes.len() - done);
            let mut sector = self.sector(index);
            sector[begin..begin + count].copy_from_slice(&bytes[done..done + count]);
            self.put(index, sector);
            done += count;
        }
        self.length = self.length.max(offset + bytes.len());
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: usize) {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done;
            let (index, begin) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
            let count = (SECTOR_BYTES - begin).min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&self.sector(index)[begin..begin + count]);
            done += count;
        }
    }

    fn sector(&self, index: usize) -> Sector {
        let cached = self.unsynced.get(&index).or_else(|| self.forgotten.get(&index));
        if let Some(sector) = cached {
            return *sector;
        }
        let mut sector = [0; SECTOR_BYTES];
        let begin = (index * SECTOR_BYTES).min(self.durable.len());
        let end = (begin + SECTOR_BYTES).min(self.durable.len());
        sector[..end - begin].copy_from_slice(&self.durable[begin..end]);
        sector
    }

    fn put(&mut self, index: usize, sector: Sector) {
        self.forgotten.remove(&index);
        self.unsynced.insert(index, sector);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        for index in length / SECTOR_BYTES..self.length.div_ceil(SECTOR_BYTES) {
            let mut sector = self.sector(index);
            let kept = length.saturating_sub(index * SECTOR_BYTES).min(SECTOR_BYTES);
            sector[kept..].fill(0); // an extension later shows zeros, never old bytes
            self.put(index, sector);
        }
        self.length = length;
    }

    /// A sync that works.
    pub(super) fn flush(&mut self) {
        self.durable.resize(self.length, 0);
        for (index, sector) in std::mem::take(&mut self.unsynced) {
            write_durable(&mut self.durable, index, &sector);
        }
    }

    /// A sync that fails: some of it was written; all of it counts as clean from now on.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        if self.durable.len() < self.length {
            self.durable.resize(self.length, 0);
        }
        for (index, sector) in std::mem::take(&mut self.unsynced) {
            if rng.bool() {
                write_durable(&mut self.durable, index, &sector);
            }
            self.forgotten.insert(index, sector);
        }
    }

    /// The cache is lost; what was on its way may have arrived: all of it, nothing, or any set of sectors.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let fate = rng.u8(0..4);
        let keeps = |rng: &mut Rng| fate == 0 || fate > 1 && rng.bool();
        if self.length != self.durable.len() && keeps(rng) {
            self.durable.resize(self.length, 0);
        }
        for (index, sector) in std::mem::take(&mut self.unsynced) {
            if keeps(rng) {
                write_durable(&mut self.durable, index, &sector);
            }
        }
        self.forgotten.clear();
        self.length = self.durable.len();
    }
}

/// What lies behind the end of the file is not written.
fn write_durable(durable: &mut [u8], index: usize, sector: &Sector) {
    let begin = (index * SECTOR_BYTES).min(durable.len());
    let end = (begin + SECTOR_BYTES).min(durable.len());
    durable[begin..end].copy_from_slice(&sector[..end - begin]);
}
