//! The snapshots of a directory at the start: the newest that is whole is loaded, a damaged one is named and set aside.
//!
//! The log is kept back to the older of the two snapshots that a node keeps, so a start does with the older if the newer
//! is damaged. How far back the log itself reaches is known only once it was read ([`Storage::check_reach`]).

use super::error::{Damage, DamageKind, Failure, OpenError};
use super::files::{File, Files};
use super::snapshot::{self, Header, Loading, snapshot_name};
use super::{DAMAGED_SUFFIX, Storage, StorageError};
use crate::kv::State;
use crate::paxos::Slot;

/// What a node starts from.
#[derive(Debug, Default)]
pub struct Restart {
    /// The header of the newest snapshot that is whole.
    pub header: Option<Header>,
    /// Its state.
    pub state: Option<State>,
    /// Newer ones that are not.
    pub damaged: Vec<(Slot, Damage)>,
}

impl Restart {
    /// The slot behind which the log must go on.
    pub fn slot(&self) -> Slot {
        self.header.as_ref().map_or(Slot::ZERO, |header| header.summary.slot)
    }
}

impl<Fs: Files> Storage<Fs> {
    /// Loads the newest snapshot that is whole into a copy of `empty` ([`Loading::begin`]).
    ///
    /// # Errors
    /// [`OpenError::NewerFormat`], [`OpenError::Failed`].
    pub fn newest_snapshot(&self, empty: &State) -> Result<Restart, OpenError> {
        let mut restart = Restart::default();
        for slot in snapshot::list(&self.files)? {
            let name = snapshot_name(slot);
            let loaded = Loading::begin(&self.files, &name, empty.clone()).and_then(Loading::finish);
            match loaded {
                Ok((header, _)) if header.summary.slot != slot => {
                    let what = format!("it is the snapshot of slot {}", header.summary.slot);
                    let file = self.files.path(&name);
                    let kind = DamageKind::SnapshotHeader;
                    restart.damaged.push((
                        slot,
                        Damage {
                            file,
                            offset: 0,
                            kind,
                            what,
                        },
                    ));
                }
                Ok((header, state)) => {
                    (restart.header, restart.state) = (Some(header), Some(state));
                    return Ok(restart);
                }
                Err(OpenError::Damage(damage)) => {
                    log::warn!("{damage}; an older snapshot is looked for");
                    restart.damaged.push((slot, damage));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(restart)
    }

    /// Once the log was read back: whether it goes on where the snapshot ends. Then damaged snapshots are set aside.
    ///
    /// # Errors
    /// [`OpenError::NoSnapshot`]: entries behind the snapshot are missing; the directory is left as it is.
    pub fn check_reach(&self, restart: &Restart) -> Result<(), OpenError> {
        let (needs, newest) = (self.wal.needs(), restart.slot());
        if newest < needs {
            return Err(OpenError::NoSnapshot {
                directory: self.files.directory(),
                needs,
                newest: restart.header.as_ref().map(|_| newest),
                damaged: restart.damaged.iter().map(|(_, damage)| damage.clone()).collect(),
            });
        }
        for (slot, _) in &restart.damaged {
            self.set_aside(*slot)?;
        }
        Ok(())
    }

    /// A damaged snapshot gets another name, in place of one found earlier: one is kept.
    fn set_aside(&self, slot: Slot) -> Result<(), Failure> {
        let name = snapshot_name(slot);
        let aside = format!("{name}{DAMAGED_SUFFIX}");
        let failed = |source| Failure::new("rename", self.files.path(&name), source);
        for old in self.files.list().map_err(failed)? {
            let is_snapshot = old
                .strip_suffix(DAMAGED_SUFFIX)
                .and_then(snapshot::snapshot_of)
                .is_some();
            if is_snapshot && old != aside {
                self.files
                    .remove(&old)
                    .map_err(|source| Failure::new("remove", self.files.path(&old), source))?;
            }
        }
        self.files.rename(&name, &aside).map_err(failed)?;
        self.files
            .sync_directory()
            .map_err(|source| Failure::new("sync", self.files.directory(), source))?;
        log::warn!("{} was damaged, and is {aside} from now on", self.files.path(&name));
        Ok(())
    }

    /// Slots of the snapshots that the directory has, the newest first.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn snapshots(&self) -> Result<Vec<Slot>, StorageError> {
        Ok(snapshot::list(&self.files)?)
    }

    /// Bytes of a snapshot's file.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn snapshot_bytes(&self, slot: Slot) -> Result<u64, StorageError> {
        let name = snapshot_name(slot);
        let length = self.files.open(&name).and_then(|file| file.length());
        Ok(length.map_err(|source| Failure::new("ask", self.files.path(&name), source))?)
    }
}
