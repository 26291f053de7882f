//! Files of snapshots on their way: pieces read for peers that are behind and for clients that make a backup, and a file put together of the
//! pieces that this node fetches, then proven, loaded and taken for its own.
//!
//! A file that is fetched has its temporary name until all of it is synced, proven and loaded: so what a start finds
//! under a snapshot's name is whole, however it came.

use super::{Hands, Leaving, Snapshots, failed};
use crate::kv::State;
use crate::machine::{Effect, Input, Kept};
use crate::node::limits::{
    CHUNKS_WAITING_MAX, SERVE_TURN_BYTES, SNAPSHOT_FREE_ITEMS, SNAPSHOT_LOAD_BLOCKS, SNAPSHOT_SYNC_BYTES,
};
use crate::node::turn::Fatal;
use crate::paxos::{NodeId, Slot};
use crate::storage::snapshot::{self, BLOCK_BYTES_MAX, Loading, snapshot_name, temporary_name};
use crate::storage::{Failure, File, Files, OpenError};
use crate::wire::Transfer;
use bytes::Bytes;
use std::io::IoSlice;

/// Who asks for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Asker {
    Peer(NodeId),
    /// A client, by its connection, that makes a backup.
    Client(u64),
}

/// A piece that was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    to: Asker,
    slot: Slot,
    offset: u64,
    length: u32,
}

/// A snapshot that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch<F> {
    slot: Slot,
    file: F,
    unsynced: u64,
    stage: Stage<F>,
}

#[derive(Debug)]
enum Stage<F> {
    /// Pieces come.
    Receiving,
    /// All are here; the digest that the content must have.
    Syncing(u64),
    Loading(Box<Loading<F>>, u64),
    Naming(Box<State>),
}

impl<Fs: Files> Snapshots<Fs> {
    /// Somebody wants a piece; it is read soon. Above the bound it is thrown away, and asked for again.
    pub(in crate::node) fn serve(&mut self, to: Asker, slot: Slot, offset: u64, length: u32) {
        let waiting = self.wanted.iter().filter(|wanted| wanted.to == to).count();
        if waiting < CHUNKS_WAITING_MAX {
            self.wanted.push_back(Wanted {
                to,
                slot,
                offset,
                length,
            });
        }
    }

    /// Reads what is wanted, a bounded part a turn.
    pub(super) fn read_what_is_wanted(&mut self, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let mut bytes = 0;
        while bytes < SERVE_TURN_BYTES
            && let Some(wanted) = self.wanted.pop_front()
        {
            bytes += u64::from(wanted.length);
            let is_kept = self.kept.iter().any(|kept| kept.slot == wanted.slot);
            let read = if is_kept {
                self.sent_at = Some(hands.now);
                read(hands.storage.files(), wanted)?
            } else {
                None
            };
            match wanted.to {
                Asker::Peer(to) => hands.inputs.push(Input::ChunkRead {
                    to,
                    slot: wanted.slot,
                    offset: wanted.offset,
                    bytes: read,
                }),
                Asker::Client(connection) => self.hand_to_client(connection, wanted, read, hands),
            }
        }
        Ok(())
    }

    /// A client gets its piece or, if that snapshot is not kept, the offer of one that reaches as far. If there is none yet,
    /// one is taken, and the client asks again.
    fn hand_to_client(&mut self, connection: u64, wanted: Wanted, read: Option<Bytes>, hands: &mut Hands<'_, Fs>) {
        let slot = wanted.slot;
        let newest = self
            .kept
            .first()
            .filter(|newest| newest.slot >= slot && newest.slot > Slot::ZERO);
        let transfer = match (read, newest) {
            (Some(bytes), _) => Transfer::chunk(slot, wanted.offset, bytes),
            (None, Some(newest)) => Transfer::Offer {
                slot: newest.slot,
                bytes: newest.bytes,
                content: newest.content,
            },
            (None, None) => {
                let is_coming = self.taking.as_ref().is_some_and(|taking| taking.writer.slot() >= slot);
                if !is_coming && hands.machine.state().applied() >= slot {
                    self.ask();
                }
                return;
            }
        };
        hands.effects.push(Effect::HandTransfer { connection, transfer });
    }

    /// A snapshot is going to be fetched. One that is being taken is given up: it would be older.
    /// What is spare goes, and a disk that has no room for `bytes` beside the reserve is not filled up in vain.
    pub(in crate::node) fn begin_install(
        &mut self,
        slot: Slot,
        bytes: u64,
        hands: &mut Hands<'_, Fs>,
    ) -> Result<(), Fatal> {
        if let Some(taking) = self.taking.take() {
            self.abandon(taking.writer.slot(), hands);
        }
        self.drop_install(hands);
        let spare_bytes = self.spare.as_ref().map_or(0, Leaving::bytes);
        self.leaving.extend(self.spare.take());
        // One of the very slot that came to nothing must not be cut any more: its file is used again.
        self.leaving.retain(|leaving| leaving.slot != slot);
        let files = hands.storage.files();
        let name = temporary_name(slot);
        let free = files.free_bytes();
        let free = free.map_err(|source| failed(Failure::new("ask", files.directory(), source)))?;
        if free.saturating_add(spare_bytes) < bytes.saturating_add(hands.machine.disk_reserve()) {
            let source = std::io::ErrorKind::StorageFull.into();
            let failure = Failure::new("make room for", files.path(&name), source);
            return self.refuse_install(failure, hands);
        }
        match files.create(&name) {
            Ok(file) => {
                self.fetch = Some(Fetch {
                    slot,
                    file,
                    unsynced: 0,
                    stage: Stage::Receiving,
                });
                Ok(())
            }
            Err(source) => {
                let failure = Failure::new("create", files.path(&name), source);
                self.refuse_install(failure, hands)
            }
        }
    }

    /// A piece came.
    pub(in crate::node) fn keep_chunk(
        &mut self,
        slot: Slot,
        offset: u64,
        bytes: &Bytes,
        hands: &mut Hands<'_, Fs>,
    ) -> Result<(), Fatal> {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.slot == slot) else {
            return Ok(()); // given up in this very turn
        };
        fetch.unsynced += bytes.len() as u64;
        let written = fetch.file.write_all_at(&mut [IoSlice::new(bytes)], offset);
        fetch.file.begin_write_out(offset, bytes.len() as u64);
        written.or_else(|source| {
            let path = hands.storage.files().path(&temporary_name(slot));
            self.refuse_install(Failure::new("write to", path, source), hands)
        })
    }

    /// All pieces are here.
    pub(in crate::node) fn load_install(&mut self, slot: Slot, content: u64) {
        if let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.slot == slot) {
            fetch.stage = Stage::Syncing(content);
        }
    }

    /// What was fetched is of no use; if its file cannot be removed, the next start does so.
    pub(in crate::node) fn drop_install(&mut self, hands: &Hands<'_, Fs>) {
        let Some(fetch) = self.fetch.take() else { return };
        self.leave_unnamed(fetch.slot, hands.storage.files());
    }

    /// A full disk is no reason to end (S3): the older snapshot goes, and the machine tries again later.
    fn refuse_install(&mut self, failure: Failure, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        if !failure.is_no_space() {
            return Err(failed(failure));
        }
        self.drop_install(hands);
        if self.kept.len() > 1 {
            self.drop_oldest(hands);
        }
        hands.inputs.push(Input::InstallFailed {
            damaged: None,
            reason: failure.to_string(),
        });
        Ok(())
    }

    /// The next slice of what was fetched: synced in steps while it comes, then proven and loaded, then named.
    pub(super) fn go_on_installing(&mut self, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let Some(mut fetch) = self.fetch.take() else {
            return Ok(());
        };
        let path = hands.storage.files().path(&temporary_name(fetch.slot));
        let is_whole = matches!(fetch.stage, Stage::Syncing(_));
        if fetch.unsynced >= SNAPSHOT_SYNC_BYTES || (is_whole && fetch.unsynced > 0) {
            let synced = fetch.file.sync();
            synced.map_err(|source| failed(Failure::new("sync", path, source)))?;
            fetch.unsynced = 0;
        }
        fetch.stage = match fetch.stage {
            Stage::Receiving => Stage::Receiving,
            Stage::Syncing(content) => {
                let name = temporary_name(fetch.slot);
                match Loading::begin(hands.storage.files(), &name, hands.machine.empty_state()) {
                    Ok(loading) => Stage::Loading(Box::new(loading), content),
                    Err(error) => tell_damage(error, hands)?,
                }
            }
            Stage::Loading(loading, content) => load(loading, content, hands)?,
            Stage::Naming(state) => return self.take_over(fetch.slot, *state, hands),
        };
        self.fetch = Some(fetch);
        Ok(())
    }

    /// The file gets its name, and the state takes the place of the machine's.
    fn take_over(&mut self, slot: Slot, state: State, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let content = state.content();
        snapshot::publish(hands.storage.files(), slot).map_err(failed)?;
        while !self.kept.is_empty() {
            self.drop_oldest(hands);
        }
        let bytes = hands.storage.snapshot_bytes(slot).map_err(Fatal::Storage)?;
        let at = Some(hands.now);
        self.kept.push(Kept {
            slot,
            bytes,
            content,
            at,
        });
        self.installed = slot;
        self.replace_damaged(slot, hands);
        self.since = hands.storage.wal().end().unwrap_or(self.since);
        let old = hands.machine.install(hands.now, state, hands.effects);
        self.freed.push(old);
        Ok(())
    }

    /// Frees a part of a state that is of no use any more.
    pub(super) fn free(&mut self) {
        if let Some(mut state) = self.freed.pop()
            && state.discard(SNAPSHOT_FREE_ITEMS)
        {
            self.freed.push(state);
        }
    }

    /// Whether a file that was fetched is to be worked on, or a peer wants a piece.
    pub(super) fn has_transfers(&self) -> bool {
        let is_loading = |fetch: &Fetch<Fs::File>| !matches!(fetch.stage, Stage::Receiving);
        !self.wanted.is_empty() || !self.freed.is_empty() || self.fetch.as_ref().is_some_and(is_loading)
    }
}

/// A piece of a snapshot; none if the file does not have it.
fn read<Fs: Files>(files: &Fs, wanted: Wanted) -> Result<Option<Bytes>, Fatal> {
    let name = snapshot_name(wanted.slot);
    let op = |source| failed(Failure::new("read", files.path(&name), source));
    let file = files.open(&name).map_err(op)?;
    let end = wanted.offset.saturating_add(wanted.length.into());
    if file.length().map_err(op)? < end {
        return Ok(None);
    }
    let mut bytes = vec![0; wanted.length as usize];
    file.read_exact_at(&mut bytes, wanted.offset).map_err(op)?;
    Ok(Some(bytes.into()))
}

/// Some blocks more.
fn load<Fs: Files>(
    mut loading: Box<Loading<Fs::File>>,
    content: u64,
    hands: &mut Hands<'_, Fs>,
) -> Result<Stage<Fs::File>, Fatal> {
    for _ in 0..SNAPSHOT_LOAD_BLOCKS {
        match loading.step() {
            Ok(None) => {}
            Ok(Some(state)) => return judge(&loading, state, content, hands),
            Err(error) => return tell_damage(error, hands),
        }
    }
    Ok(Stage::Loading(loading, content))
}

/// Whether it is the state that was offered.
fn judge<Fs: Files>(
    loading: &Loading<Fs::File>,
    state: State,
    content: u64,
    hands: &mut Hands<'_, Fs>,
) -> Result<Stage<Fs::File>, Fatal> {
    let (found, own) = (loading.reader().header().cluster_id, hands.machine.cluster_id());
    let reason = if state.content() != content {
        "it is not the state that was offered".to_string()
    } else if found != own && found != 0 && own != 0 {
        format!("it is of cluster {found:016x}, this is {own:016x}")
    } else {
        return Ok(Stage::Naming(Box::new(state)));
    };
    let damaged = None;
    hands.inputs.push(Input::InstallFailed { damaged, reason });
    Ok(Stage::Receiving)
}

/// Damage is told to the machine, which asks for the place again; a failure of this node's own disk is final.
fn tell_damage<Fs: Files>(error: OpenError, hands: &mut Hands<'_, Fs>) -> Result<Stage<Fs::File>, Fatal> {
    let (damaged, reason) = match error {
        OpenError::Failed(failure) => return Err(failed(failure)),
        OpenError::Damage(damage) => {
            let last = damage.offset + BLOCK_BYTES_MAX as u64;
            (Some((damage.offset, last)), damage.to_string())
        }
        other => (None, other.to_string()),
    };
    hands.inputs.push(Input::InstallFailed { damaged, reason });
    Ok(Stage::Receiving)
}
