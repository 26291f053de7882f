//! One simulated file: what is on disk, and the page cache above it.
//!
//! Not here: names, faults, power ([`super`]).

use fastrand::Rng;
use std::collections::BTreeSet;

/// What the disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// One file: what is on disk, and the page cache above it.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    durable: Vec<u8>,
    /// What processes read.
    cache: Vec<u8>,
    /// Sectors that were written and not synced. What a failed sync forgot is not among them: it is in the cache alone,
    /// readable and never written again.
    unsynced: BTreeSet<usize>,
}

impl Inode {
    pub(super) fn length(&self) -> usize {
        self.cache.len()
    }

    /// Whether a crash may take anything of it back.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && self.cache.len() == self.durable.len()
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if bytes.is_empty() {
            return;
        }
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.unsynced.extend(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
    }

    /// Fills `buffer` from `offset` on; behind the end of the file with zeros.
    pub(super) fn read(&self, buffer: &mut [u8], offset: usize) {
        let begin = offset.min(self.cache.len());
        let end = (offset + buffer.len()).min(self.cache.len());
        let (there, behind) = buffer.split_at_mut(end - begin);
        there.copy_from_slice(&self.cache[begin..end]);
        behind.fill(0);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        let before = self.cache.len();
        // An extension later shows zeros, never old bytes.
        self.unsynced
            .extend(length / SECTOR_BYTES..before.div_ceil(SECTOR_BYTES));
        self.cache.resize(length, 0);
    }

    /// A sync that works.
    pub(super) fn flush(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for index in std::mem::take(&mut self.unsynced) {
            self.make_durable(index);
        }
    }

    /// A sync that fails: some of it was written; all of it counts as clean from now on.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        if self.durable.len() < self.cache.len() {
            self.durable.resize(self.cache.len(), 0);
        }
        for index in std::mem::take(&mut self.unsynced) {
            if rng.bool() {
                self.make_durable(index);
            }
        }
    }

    /// The cache is lost; what was on its way may have arrived: all of it, nothing, or any set of sectors.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        let fate = rng.u8(0..4);
        let keeps = |rng: &mut Rng| fate == 0 || fate > 1 && rng.bool();
        if self.cache.len() != self.durable.len() && keeps(rng) {
            self.durable.resize(self.cache.len(), 0);
        }
        for index in std::mem::take(&mut self.unsynced) {
            if keeps(rng) {
                self.make_durable(index);
            }
        }
        self.cache.clone_from(&self.durable);
    }

    /// What lies behind the end of the file is not written.
    fn make_durable(&mut self, index: usize) {
        let end = ((index + 1) * SECTOR_BYTES).min(self.durable.len());
        let begin = (index * SECTOR_BYTES).min(end);
        let cached = end.min(self.cache.len()).max(begin);
        if cached > begin {
            self.durable[begin..cached].copy_from_slice(&self.cache[begin..cached]);
        }
        // Cut off in the cache: the sector holds zeros there.
        self.durable[cached..end].fill(0);
    }
}
