//! A simulated disk: in memory, deterministic, seeded; it loses and tears what was not synced, and fails on demand.
//!
//! One [`SimDisk`] is one directory on one disk; its clones share it, so a test or a simulator keeps one in its hand
//! while the node works on another. What it models:
//! * Writes go to a page cache. [`SimDisk::crash`] (the power fails) keeps of what was not synced any set of
//!   sectors, of a name that was not synced nothing or all; [`SimDisk::kill`] (the process dies) keeps the cache.
//! * A failed sync marks what it did not write as clean: it can still be read, and no later sync writes it.
//! * Sectors of [`SECTOR_BYTES`] are written whole or not at all, and what stands beside a write is not harmed.
//! * Faults on demand: [`SimDisk::fail`], [`SimDisk::cut_power_after`], [`SimDisk::set_capacity`],
//!   [`SimDisk::flip_bit`], [`SimDisk::wipe`]. Each that fires is counted: one that never does is a hole in a test.
//!
//! Not here: time. A slow sync is the caller's, who owns the clock.

mod inode;
#[cfg(test)]
mod tests;

pub use inode::SECTOR_BYTES;

use super::files::{File, Files, LockError};
use fastrand::Rng;
use inode::Inode;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::rc::Rc;

/// A kind of operation, for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Cutting or extending a file.
    Truncate,
    /// Syncing a file.
    Sync,
    /// Making a file.
    Create,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing the directory.
    SyncDirectory,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An I/O error. A write may have left any part of itself; a sync marks all as clean and writes some.
    Io,
    /// No space on the device.
    NoSpace,
    /// EINTR: nothing was done, and the caller should try again.
    Interrupted,
    /// A write or read of less than was asked for. No error.
    Short,
}

/// A simulated directory. Cloning shares it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    inner: Rc<RefCell<Inner>>,
}

/// An open file of a [`SimDisk`]. It fails once the process that opened it died.
#[derive(Debug)]
pub struct SimFile {
    inner: Rc<RefCell<Inner>>,
    inode: usize,
    life: u64,
}

/// The lock on a [`SimDisk`]; ends when dropped, and with the process.
#[derive(Debug)]
pub struct SimLock {
    inner: Rc<RefCell<Inner>>,
    life: u64,
}

#[derive(Clone, Debug)]
struct Inner {
    rng: Rng,
    name: String,
    inodes: Vec<Inode>,
    /// Names as processes see them.
    names: BTreeMap<String, usize>,
    /// Names on disk.
    names_durable: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the directory, in order.
    renames: Vec<NameChange>,
    capacity: u64,
    locked: bool,
    /// Counts processes: handles and locks of a dead one are worth nothing.
    life: u64,
    faults: Vec<(Op, u64, Fault)>,
    fired: BTreeMap<(Op, Fault), u64>,
    /// Changing operations so far.
    changes: u64,
    /// At which of them the power goes.
    cut_at: Option<u64>,
}

#[derive(Clone, Debug)]
struct NameChange {
    removed: Option<String>,
    added: Option<(String, usize)>,
}

impl SimDisk {
    /// An empty disk of unlimited size; `seed` decides what crashes keep.
    pub fn new(seed: u64) -> SimDisk {
        let inner = Inner {
            rng: Rng::with_seed(seed),
            name: "sim".into(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            renames: Vec::new(),
            capacity: u64::MAX,
            locked: false,
            life: 0,
            faults: Vec::new(),
            fired: BTreeMap::new(),
            changes: 0,
            cut_at: None,
        };
        SimDisk {
            inner: Rc::new(RefCell::new(inner)),
        }
    }

    /// The same disk under a name for logs.
    pub fn named(self, name: &str) -> SimDisk {
        self.inner.borrow_mut().name = name.into();
        self
    }

    /// A copy of the disk as it is now, for another future: with nobody working on it, and no faults to come.
    pub fn fork(&self) -> SimDisk {
        let inner = self.inner.borrow().clone();
        let copy = SimDisk {
            inner: Rc::new(RefCell::new(inner)),
        };
        copy.kill();
        copy
    }

    /// The process dies; the page cache lives on. Faults to come are forgotten.
    pub fn kill(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.life += 1;
        inner.locked = false;
        inner.cut_at = None;
        inner.faults.clear();
    }

    /// The power fails: of what was not synced, any part may be kept. Then it is on again.
    pub fn crash(&self) {
        self.kill();
        let mut inner = self.inner.borrow_mut();
        let Inner {
            rng, inodes, renames, ..
        } = &mut *inner;
        inodes.iter_mut().for_each(|inode| inode.crash(rng));
        let kept = rng.usize(0..=renames.len());
        let in_order = rng.bool(); // a journal keeps names in order, other file systems do not
        let changes: Vec<NameChange> = renames
            .drain(..)
            .enumerate()
            .filter_map(|(index, change)| (if in_order { index < kept } else { rng.bool() }).then_some(change))
            .collect();
        changes
            .into_iter()
            .for_each(|change| change.apply(&mut inner.names_durable));
        inner.names = inner.names_durable.clone();
        inner.drop_unnamed();
    }

    /// The directory is lost whole.
    pub fn wipe(&self) {
        self.kill();
        let mut inner = self.inner.borrow_mut();
        inner.names.clear();
        inner.names_durable.clear();
        inner.renames.clear();
        inner.drop_unnamed();
    }

    /// Forgets the faults to come.
    pub fn spare(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.cut_at = None;
        inner.faults.clear();
    }

    /// Makes the `nth` operation of a kind from now on (1: the next) fail.
    pub fn fail(&self, op: Op, nth: u64, fault: Fault) {
        assert!(nth >= 1, "the next operation is number 1");
        self.inner.borrow_mut().faults.push((op, nth, fault));
    }

    /// Cuts the power during the `nth` changing operation from now on (1: the next): it and all later ones fail, until
    /// [`SimDisk::crash`] says what was kept.
    pub fn cut_power_after(&self, nth: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.cut_at = Some(inner.changes + nth);
    }

    /// Whether the power is off.
    pub fn is_cut(&self) -> bool {
        let inner = self.inner.borrow();
        inner.cut_at.is_some_and(|at| inner.changes >= at)
    }

    /// Changing operations so far: writes, truncations, syncs, and changes of names.
    pub fn changes(&self) -> u64 {
        self.inner.borrow().changes
    }

    /// How often each fault fired.
    pub fn fired(&self) -> BTreeMap<(Op, Fault), u64> {
        self.inner.borrow().fired.clone()
    }

    /// Whether nothing of the files whose names end so can be lost any more by a crash.
    pub fn is_synced(&self, suffix: &str) -> bool {
        let inner = self.inner.borrow();
        let mut named = inner.names.iter().filter(|(name, _)| name.ends_with(suffix));
        named.all(|(name, inode)| inner.names_durable.get(name) == Some(inode) && inner.inodes[*inode].is_synced())
    }

    /// Bytes in all files.
    pub fn used_bytes(&self) -> u64 {
        self.inner.borrow().used_bytes()
    }

    /// The size of the disk in bytes.
    pub fn capacity(&self) -> u64 {
        self.inner.borrow().capacity
    }

    /// Sets the size of the disk in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.borrow_mut().capacity = bytes;
    }

    /// Flips one bit of what is on disk and in the cache. False if the file is not there or ends before.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let Some(byte) = self
            .contents(name)
            .and_then(|bytes| bytes.get(offset as usize).copied())
        else {
            return false;
        };
        self.overwrite(name, offset, &[byte ^ (1 << bit)]);
        true
    }

    /// Puts bytes into an existing file, durable at once: rot, or the hand of a person.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let inode = *inner.names.get(name).expect("overwrite names an existing file");
        let inode = &mut inner.inodes[inode];
        inode.write(bytes, offset as usize);
        inode.flush();
    }

    /// What a process would read from a file.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.borrow();
        let inode = &inner.inodes[*inner.names.get(name)?];
        let mut bytes = vec![0; inode.length()];
        inode.read(&mut bytes, 0);
        Some(bytes)
    }

    fn file(&self, inode: usize) -> SimFile {
        SimFile {
            inner: Rc::clone(&self.inner),
            inode,
            life: self.inner.borrow().life,
        }
    }
}

impl Files for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create_directory(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> Result<SimLock, LockError> {
        let mut inner = self.inner.borrow_mut();
        if inner.locked {
            return Err(LockError::Held(None));
        }
        inner.locked = true;
        Ok(SimLock {
            life: inner.life,
            inner: Rc::clone(&self.inner),
        })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = {
            let inner = self.inner.borrow();
            inner.check_power()?;
            *inner.names.get(name).ok_or(io::ErrorKind::NotFound)?
        };
        Ok(self.file(inode))
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let inode = {
            let mut inner = self.inner.borrow_mut();
            inner.begin(Op::Create)?;
            match inner.names.get(name).copied() {
                Some(inode) => {
                    inner.inodes[inode].truncate(0);
                    inode
                }
                None => {
                    inner.inodes.push(Inode::default());
                    let inode = inner.inodes.len() - 1;
                    inner.change_name(None, Some((name.into(), inode)));
                    inode
                }
            }
        };
        self.inner.borrow().check_power()?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(Op::Rename)?;
        let inode = *inner.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        inner.change_name(Some(from.into()), Some((to.into(), inode)));
        inner.check_power()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(Op::Remove)?;
        inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        inner.change_name(Some(name.into()), None);
        inner.check_power()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let inner = self.inner.borrow();
        inner.check_power()?;
        Ok(inner.names.keys().cloned().collect())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut inner = self.inner.borrow_mut();
        inner.begin(Op::SyncDirectory)?;
        inner.check_power()?;
        inner.names_durable = inner.names.clone();
        inner.renames.clear();
        inner.drop_unnamed();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let inner = self.inner.borrow();
        inner.check_power()?;
        Ok(inner.free_bytes())
    }

    fn directory(&self) -> String {
        self.inner.borrow().name.clone()
    }
}

impl SimFile {
    fn check_life(&self) -> io::Result<()> {
        let inner = self.inner.borrow();
        if inner.life != self.life {
            return Err(io::Error::other("simulated: the process that opened this file is dead"));
        }
        inner.check_power()
    }
}

impl File for SimFile {
    fn write_at(&mut self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check_life()?;
        let mut inner = self.inner.borrow_mut();
        let bytes = buffers
            .iter()
            .map(|buffer| &buffer[..])
            .collect::<Vec<&[u8]>>()
            .concat();
        let fault = inner.begin(Op::Write);
        let mut count = bytes.len();
        if fault.is_err() || matches!(fault, Ok(Some(Fault::Short))) {
            count = inner.rng.usize(0..=count.saturating_sub(1));
        }
        if matches!(&fault, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
            count = 0;
        }
        let end = (offset as usize) + count;
        let missing = match end.saturating_sub(inner.inodes[self.inode].length()) as u64 {
            0 => 0, // most writes: the log is preallocated
            grown => grown.saturating_sub(inner.free_bytes()),
        };
        count = count.saturating_sub(missing as usize);
        inner.inodes[self.inode].write(&bytes[..count], offset as usize);
        fault?;
        inner.check_power()?;
        if count == 0 && missing > 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // A write of nothing would look like the end of the world; a short one writes something.
        if count == 0 && !bytes.is_empty() {
            inner.inodes[self.inode].write(&bytes[..1], offset as usize);
            count = 1;
        }
        Ok(count)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_life()?;
        let mut inner = self.inner.borrow_mut();
        let short = inner.begin(Op::Read)? == Some(Fault::Short);
        let inode = &inner.inodes[self.inode];
        let count = buffer.len().min(inode.length().saturating_sub(offset as usize));
        let count = if short { count.min(1) } else { count };
        inode.read(&mut buffer[..count], offset as usize);
        Ok(count)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.check_life()?;
        let mut inner = self.inner.borrow_mut();
        inner.begin(Op::Truncate)?;
        inner.inodes[self.inode].truncate(length as usize);
        inner.check_power()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.check_life()?;
        let mut inner = self.inner.borrow_mut();
        let begun = inner.begin(Op::Sync);
        let Inner { rng, inodes, .. } = &mut *inner;
        if let Err(error) = begun {
            inodes[self.inode].fail_sync(rng);
            return Err(error);
        }
        inner.check_power()?;
        inner.inodes[self.inode].flush();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.check_life()?;
        Ok(self.inner.borrow().inodes[self.inode].length() as u64)
    }

    fn begin_write_out(&self, _offset: u64, _length: u64) {}

    fn forget_cached(&self, _: u64, _: u64) {
        // Rot is put into both (`SimDisk::overwrite`).
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        if inner.life == self.life {
            inner.locked = false;
        }
    }
}

impl Inner {
    /// Counts an operation, and says how it fails: by an error, or short. An operation at which the power goes begins;
    /// its own `check_power` then fails it.
    fn begin(&mut self, op: Op) -> io::Result<Option<Fault>> {
        self.check_power()?;
        if op != Op::Read {
            self.changes += 1;
        }
        let mut due = None;
        self.faults.retain_mut(|(kind, nth, fault)| {
            if *kind != op {
                return true;
            }
            *nth -= 1;
            if *nth == 0 {
                due = Some(*fault);
            }
            *nth > 0
        });
        let Some(fault) = due else { return Ok(None) };
        *self.fired.entry((op, fault)).or_default() += 1;
        match fault {
            Fault::Io => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
            Fault::NoSpace => Err(io::ErrorKind::StorageFull.into()),
            Fault::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Fault::Short => Ok(Some(Fault::Short)),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        match self.cut_at {
            Some(at) if self.changes >= at => Err(io::Error::other("simulated: the power is off")),
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, removed: Option<String>, added: Option<(String, usize)>) {
        let change = NameChange { removed, added };
        change.apply(&mut self.names);
        self.renames.push(change);
    }

    /// Frees what has no name any more. (An open file without a name is not modelled: nobody here keeps one.)
    fn drop_unnamed(&mut self) {
        for inode in 0..self.inodes.len() {
            let is_named = |names: &BTreeMap<String, usize>| names.values().any(|&named| named == inode);
            if !is_named(&self.names) && !is_named(&self.names_durable) {
                self.inodes[inode] = Inode::default();
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        self.inodes.iter().map(|inode| inode.length() as u64).sum()
    }

    fn free_bytes(&self) -> u64 {
        self.capacity.saturating_sub(self.used_bytes())
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, inode)) = &self.added {
            names.insert(name.clone(), *inode);
        }
    }
}
