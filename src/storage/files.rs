//! The one narrow door to files.
//!
//! Everything in `storage` speaks to the disk through [`Files`] and [`File`], so that a simulated disk ([`super::sim`])
//! can stand under the very same code. A [`Files`] is one directory; names in it are plain file names. The real one is
//! [`Disk`], over std (and rustix for the free space). Contracts that both keep:
//! * What is written is on disk only after [`File::sync`]; a name (create, rename, remove) only after
//!   [`Files::sync_directory`]. Before, a crash may keep any part of it.
//! * A failed write or sync says nothing about what is on disk, and a later success does not either.
//!
//! Not here: what the bytes mean (unit.rs, identity.rs), and what to do about a failure (wal.rs).

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the lock file in a data directory.
pub const LOCK_NAME: &str = "LOCK";
/// Zeros are written in slices of at most this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
/// Most buffers that one vectored write hands to the kernel (IOV_MAX of Linux).
const SLICES_MAX: usize = 1024;

/// Why a directory could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it; its number, if it could be read.
    Held(Option<u32>),
    /// The lock file could not be made or locked.
    Io(io::Error),
}

/// One directory of files. A clone is another handle on the same directory.
pub trait Files: Clone + fmt::Debug {
    /// An open file.
    type File: File;
    /// The lock on the directory, held until dropped.
    type Lock: fmt::Debug;

    /// Makes the directory, for its owner alone (0700), if it is not there.
    fn create_directory(&self) -> io::Result<()>;
    /// Takes the directory for this process alone.
    fn lock(&self) -> Result<Self::Lock, LockError>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes a file for its owner alone (0600), or empties the one that is there.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, in place of what has that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of all files, ascending.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes all names that were made, changed or removed so far durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Bytes that may still be written on this disk.
    fn free_bytes(&self) -> io::Result<u64>;
    /// How errors and logs call the directory.
    fn directory(&self) -> String;

    /// How errors and logs call a file.
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory())
    }
}

/// One open file. Offsets are from its beginning.
pub trait File: fmt::Debug {
    /// Writes some of the buffers, one behind the other; how many bytes.
    fn write_at(&mut self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads some bytes; how many; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Cuts the file to `length`, or extends it with a hole.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Makes the content durable (fdatasync).
    fn sync(&mut self) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Asks that these bytes, just written, go to the disk while the process does something else, so that the sync to come has
    /// less to wait for. Nothing is durable by that.
    fn begin_write_out(&self, offset: u64, length: u64);
    /// Asks that the next read of these bytes comes from the disk, not from memory that stands for it. What is not synced
    /// stays where it is.
    fn forget_cached(&self, offset: u64, length: u64);

    /// Writes all of the buffers, whatever it takes: a short write or an interruption goes on behind what was written,
    /// so that nothing else can end up behind half a record.
    fn write_all_at(&mut self, mut buffers: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut buffers, 0); // drops leading empty ones
        while !buffers.is_empty() {
            let some = &buffers[..buffers.len().min(SLICES_MAX)];
            match self.write_at(some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    IoSlice::advance_slices(&mut buffers, count);
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `buffer`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Preallocates: writes `length` zeros. Real ones and no hole, so that a later sync need not record an allocation.
    fn write_zeros(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let count = (length - done).min(ZEROS.len() as u64);
            self.write_all_at(&mut [IoSlice::new(&ZEROS[..count as usize])], offset + done)?;
            done += count;
        }
        Ok(())
    }
}

/// A real directory.
#[derive(Clone, Debug)]
pub struct Disk {
    directory: PathBuf,
}

impl Disk {
    /// The directory at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Disk {
        Disk { directory: path.into() }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Files for Disk {
    type File = fs::File;
    type Lock = fs::File;

    fn create_directory(&self) -> io::Result<()> {
        if let Ok(found) = fs::metadata(&self.directory) {
            if !found.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if found.mode() & 0o077 != 0 {
                let directory = self.directory.display();
                log::warn!(
                    "the data directory {directory} is open to other users (mode {:o})",
                    found.mode() & 0o777
                );
            }
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        // Its name, too, must survive; nothing is synced above it but what may just have been made.
        match self.directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_path(parent),
            _ => sync_path(Path::new(".")),
        }
    }

    fn lock(&self) -> Result<fs::File, LockError> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(self.join(LOCK_NAME)).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(self.join(LOCK_NAME)).ok();
                return Err(LockError::Held(pid.and_then(|text| text.trim().parse().ok())));
            }
            Err(fs::TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // For the message of the next who tries; the lock itself is the kernel's and ends with the process.
        file.set_len(0).map_err(LockError::Io)?;
        writeln!(file, "{}", std::process::id()).map_err(LockError::Io)?;
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::OpenOptions::new().read(true).write(true).open(self.join(name))
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        options.open(self.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.join(from), self.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            // A name that is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_path(&self.directory)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::statvfs(&self.directory)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn directory(&self) -> String {
        self.directory.display().to_string()
    }
}

impl File for fs::File {
    fn write_at(&mut self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&*self, buffers, offset)?)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn begin_write_out(&self, offset: u64, length: u64) {
        // Before Linux forgets what it is asked to forget, it begins to write out what of it is not on the disk, and does
        // not wait. What stands there is not read soon.
        self.forget_cached(offset, length);
    }

    fn forget_cached(&self, offset: u64, length: u64) {
        // A system that does not do so reads from memory: then less is found, and nothing is wrong.
        if let Err(error) = rustix::fs::fadvise(self, offset, NonZeroU64::new(length), rustix::fs::Advice::DontNeed) {
            log::debug!("a file stays in the page cache: {error}");
        }
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_and_directory_are_for_their_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::new(temp.path().join("a/b"));
        disk.create_directory().unwrap();
        disk.create("x").unwrap();
        let _lock = disk.lock().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&temp.path().join("a/b")), 0o700);
        assert_eq!(mode(&disk.join("x")), 0o600);
        assert_eq!(mode(&disk.join(LOCK_NAME)), 0o600);
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_process() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::new(temp.path());
        let lock = disk.lock().unwrap();
        match disk.lock() {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert!(disk.lock().is_ok(), "a dropped lock is free");
    }

    #[test]
    fn vectored_writes_of_any_count_land_whole_and_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::new(temp.path());
        let mut file = disk.create("x").unwrap();
        let pieces: Vec<Vec<u8>> = (0..3000_u32).map(|n| vec![n as u8; (n % 5) as usize]).collect();
        let mut buffers: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        file.write_all_at(&mut buffers, 7).unwrap();
        file.sync().unwrap();
        let expected = pieces.concat();
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 7).unwrap();
        assert_eq!(found, expected);
        let past = file.read_exact_at(&mut [0; 2], 6 + expected.len() as u64);
        assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn free_space_and_names_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::new(temp.path());
        disk.create("b").unwrap();
        disk.create("a").unwrap();
        disk.rename("b", "c").unwrap();
        disk.sync_directory().unwrap();
        assert_eq!(disk.list().unwrap(), ["a", "c"]);
        disk.remove("a").unwrap();
        assert_eq!(disk.list().unwrap(), ["c"]);
        assert!(disk.free_bytes().unwrap() > 0);
    }
}
