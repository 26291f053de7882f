//! Snapshots between turns: taken in bounded slices while the node goes on, kept two at a time, and the log truncated
//! behind the older of them.
//!
//! One call of [`Snapshots::step`] at the end of a turn does one thing that takes bounded time: gives some blocks to the
//! file, syncs, renames, cuts a file that nobody needs, removes a segment. While there is work the loop does not wait
//! ([`Snapshots::is_busy`]). Invariants:
//! * S1. A snapshot gets its name only when all of it is synced, and the log says that no start may do with less (N1 of
//!   `machine::snapshot`): that was synced by the turn behind the one that began it.
//! * S2. The log reaches back to the older of two snapshots, so a start does with the older if the newer is damaged.
//! * S3. A disk without room never ends the node here: what is spare goes first, then the older snapshot, then the new one
//!   is put off.
//! * S4. A snapshot that a peer is being sent, and the log behind it, stay as long as the disk's bound allows: else a node
//!   that loads more slowly than the log grows would never catch up.
//! * S5. What is written over is no file of use: a snapshot that leaves loses its name for good before it is spare.
//!
//! How much of the disk that takes: two snapshots and a third, which is being written or spare; between two of them the log
//! grows by the larger of `--snapshot-bytes` and a quarter of a snapshot, and while one is written by no more than that
//! again before the older goes. For a peer that is sent one (S4), it grows by no more than a snapshot and three times
//! `--snapshot-bytes` in all. With data D and snapshot bytes S: below 4·D + 6·S. On top, while a node is behind, what it
//! accepts above what it has applied, and what it writes behind that until it has caught up: no snapshot stands for these votes
//! yet, and their segments keep all later ones.
//!
//! * `transfer`: files on their way to and from peers. `repair`: what is done about damage that is found in a file.
//!
//! Not here: what a snapshot holds (`kv::snapshot`), its file (`storage::snapshot`), records (`machine::snapshot`).

mod repair;
mod transfer;

use super::limits::{
    FILE_CUT_BYTES, PEER_LOG_AGAIN, SEND_PATIENCE, SNAPSHOT_PUT_OFF, SNAPSHOT_SLICE_MAX_BYTES, SNAPSHOT_SYNC_BYTES,
};
use super::turn::Fatal;
use crate::kv::State;
use crate::kv::snapshot::Summary;
use crate::machine::{Effect, Input, Kept, Machine, Note, SnapshotView};
use crate::paxos::Slot;
use crate::storage::snapshot::{self, BLOCK_BYTES, Header, SnapshotWriter};
use crate::storage::unit::Position;
use crate::storage::{Failure, File, Files, Storage, StorageError};
use crate::time::Time;
use repair::Repair;
use std::collections::VecDeque;
pub(super) use transfer::Asker;
use transfer::{Fetch, Wanted};

/// A snapshot is at most so much larger than what it is expected to be from the data alone, for each key and session.
const KEY_OVERHEAD_BYTES: u64 = 32;
const SESSION_OVERHEAD_BYTES: u64 = 128;
/// S4: beside a snapshot's size, the log may be so many times `--snapshot-bytes` long before the next is taken all the same.
const SENDING_LOG: u64 = 3;

/// The snapshots of one directory.
#[derive(Debug)]
pub(super) struct Snapshots<Fs: Files> {
    every_bytes: u64,
    /// The newest first.
    kept: Vec<Kept>,
    /// Where the log stood when the newest was begun.
    since: Position,
    /// Somebody asked for one by hand.
    is_wanted: bool,
    not_before: Time,
    taking: Option<Taking<Fs::File>>,
    leaving: VecDeque<Leaving<Fs::File>>,
    /// The next one is written over it.
    spare: Option<Leaving<Fs::File>>,
    /// The disk has room for files that are spare.
    has_room: bool,
    /// The slot of the last one that was fetched: the log may lack what came before it.
    installed: Slot,
    fetch: Option<Fetch<Fs::File>>,
    wanted: VecDeque<Wanted>,
    /// When a piece was last read for a peer.
    sent_at: Option<Time>,
    /// States that are of no use any more.
    freed: Vec<State>,
    /// When to look at the log's beginning.
    truncate_at: Option<Time>,
    /// A segment waits to be removed.
    is_removing: bool,
    repair: Repair,
    /// The last step took something away.
    is_tidying: bool,
    /// Bytes that the log has grown by and no slice of a snapshot has matched.
    owed_bytes: u64,
}

/// A snapshot under way.
#[derive(Debug)]
struct Taking<F> {
    writer: SnapshotWriter<F>,
    began: Time,
    /// Where the log stood then.
    since: Position,
    expected: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Filling,
    /// What is left of the file that it was written over goes.
    Cutting,
    Syncing,
    Naming,
}

/// A snapshot that is taken away: under its temporary name it is spare, or cut shorter in steps, since to free much at once
/// takes long.
#[derive(Debug)]
struct Leaving<F> {
    slot: Slot,
    is_damaged: bool,
    /// Once it is withdrawn: the file and its length.
    withdrawn: Option<(F, u64)>,
}

/// What a step needs of its loop.
pub(super) struct Hands<'a, Fs: Files> {
    pub(super) now: Time,
    /// Bytes that this turn put behind the log.
    pub(super) appended: u64,
    pub(super) storage: &'a mut Storage<Fs>,
    pub(super) machine: &'a mut Machine,
    pub(super) inputs: &'a mut Vec<Input>,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl<Fs: Files> Hands<'_, Fs> {
    fn note(&mut self, note: Note) {
        self.effects.push(Effect::Note(note));
    }
}

impl<Fs: Files> Snapshots<Fs> {
    /// For a log that has just been read back, over the snapshot of which `newest` speaks, if there is one.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub(super) fn new(
        every_bytes: u64,
        storage: &Storage<Fs>,
        newest: Option<Summary>,
    ) -> Result<Snapshots<Fs>, StorageError> {
        let Summary {
            slot: base, content, ..
        } = newest.unwrap_or_default();
        let mut kept = Vec::new();
        for slot in storage.snapshots()?.into_iter().filter(|slot| *slot <= base) {
            let bytes = storage.snapshot_bytes(slot)?;
            // Only the newest is ever offered, so no other's digest matters.
            kept.push(Kept {
                slot,
                bytes,
                content,
                at: None,
            });
        }
        // What a crash left of those that were to be taken away, or what the log does not go on behind.
        let needs = storage.wal().needs();
        let of_use = kept.iter().take(2).take_while(|kept| kept.slot >= needs).count();
        let useless = kept.split_off(of_use).into_iter();
        Ok(Snapshots {
            every_bytes,
            kept,
            since: storage.wal().place_of(base),
            is_wanted: false,
            not_before: Time::ZERO,
            taking: None,
            leaving: useless.map(|Kept { slot, .. }| Leaving::of(slot)).collect(),
            spare: None,
            has_room: true,
            installed: needs,
            fetch: None,
            wanted: VecDeque::new(),
            sent_at: None,
            freed: Vec::new(),
            truncate_at: Some(Time::ZERO),
            is_removing: false,
            repair: Repair::default(),
            is_tidying: false,
            owed_bytes: 0,
        })
    }

    /// A snapshot is asked for by hand: it is taken as soon as nothing stands in the way, if anything was applied since the
    /// newest.
    pub(super) fn ask(&mut self) {
        self.is_wanted = true;
    }

    /// Whether there is work that no input brings about.
    pub(super) fn is_busy(&self) -> bool {
        self.taking.is_some() || !self.leaving.is_empty() || self.is_removing || self.has_transfers()
    }

    /// Does one bounded piece of what there is to do.
    ///
    /// # Errors
    /// [`Fatal`]: the loop must end.
    pub(super) fn step(&mut self, mut hands: Hands<'_, Fs>) -> Result<(), Fatal> {
        let hands = &mut hands;
        self.owed_bytes += hands.appended;
        self.read_what_is_wanted(hands)?;
        self.free();
        self.forgive_lost_log(hands);
        self.go_on_repairing(hands);
        // To free much takes as long as to write much: they take turns.
        self.is_tidying = !self.is_tidying && self.has_to_tidy(hands.storage);
        if self.is_tidying {
            self.tidy(hands)?;
        } else {
            self.go_on_installing(hands)?;
            if let Some(taking) = self.taking.take() {
                self.go_on(taking, hands)?;
            } else if self.leaving.is_empty() && self.fetch.is_none() && self.is_due(hands) {
                self.begin(hands)?;
            }
        }
        self.look_at_log(hands);
        hands
            .storage
            .keep_spares(if self.has_room { self.interval() } else { 0 });
        self.is_removing = has_to_remove(hands.storage);
        hands.machine.tell_snapshots(self.view(hands.storage));
        Ok(())
    }

    /// The disk's free space was looked at: whether files may be kept that are of use only for being written over. What is
    /// spare goes before anybody is refused anything for want of room (S3).
    pub(super) fn tell_room(&mut self, has_room: bool) {
        self.has_room = has_room;
        if !has_room {
            self.leaving.extend(self.spare.take());
        }
    }

    fn has_to_tidy(&self, storage: &Storage<Fs>) -> bool {
        !self.leaving.is_empty() || has_to_remove(storage)
    }

    fn view(&self, storage: &Storage<Fs>) -> SnapshotView {
        SnapshotView {
            kept: self.kept.clone(),
            under_way: self.taking.as_ref().map(|taking| {
                let writer = &taking.writer;
                (writer.slot(), writer.written(), taking.expected.max(writer.written()))
            }),
            log_bytes: storage.wal().bytes_from(self.since),
        }
    }

    /// By how much the log grows between two snapshots. More than was asked for if a snapshot is large: else a node with
    /// much data would write little else.
    fn interval(&self) -> u64 {
        let newest = self.kept.first().map_or(0, |newest| newest.bytes);
        self.every_bytes.max(newest / 4)
    }

    fn is_due(&mut self, hands: &Hands<'_, Fs>) -> bool {
        let newest = self.kept.first().map_or(Slot::ZERO, |newest| newest.slot);
        let may_be = hands.machine.is_founded() && hands.machine.is_sound();
        if hands.machine.state().applied() <= newest || !may_be {
            self.is_wanted = false;
            return false;
        }
        let grown = hands.storage.wal().bytes_from(self.since);
        let is_large = grown >= self.interval() && !self.waits_for_peer(hands);
        hands.now >= self.not_before && (self.is_wanted || is_large)
    }

    /// S4: whether the next snapshot waits for a peer that is sent one of those that are here.
    fn waits_for_peer(&self, hands: &Hands<'_, Fs>) -> bool {
        let is_sent = self.sent_at.is_some_and(|at| hands.now.since(at) < SEND_PATIENCE);
        let newest = self.kept.first().map_or(0, |newest| newest.bytes);
        is_sent && hands.storage.wal().bytes() + self.interval() < newest + SENDING_LOG * self.every_bytes
    }

    fn begin(&mut self, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let expected = self.expected_bytes(hands.machine);
        let files = hands.storage.files().clone();
        let free = files.free_bytes();
        let free = free.map_err(|source| failed(Failure::new("ask", files.directory(), source)))?;
        let spare_bytes = self.spare.as_ref().map_or(0, Leaving::bytes);
        if free.saturating_add(spare_bytes) < expected.saturating_add(hands.machine.disk_reserve()) {
            return self.make_room(hands, expected);
        }
        let since = hands.storage.wal().end().unwrap_or(self.since);
        let summary = hands.machine.begin_snapshot(hands.effects);
        let membership = hands.machine.replica().membership();
        let header = Header {
            cluster_id: hands.machine.cluster_id(),
            summary,
            config: membership.number,
            members: membership.voters().to_vec(),
        };
        (self.is_wanted, self.owed_bytes) = (false, 0);
        let writer = match self.spare.take() {
            Some(spare) => SnapshotWriter::begin_over(&files, &header, spare.slot, spare.bytes()),
            None => SnapshotWriter::begin(&files, &header),
        };
        match writer {
            Ok(writer) => {
                self.taking = Some(Taking {
                    writer,
                    began: hands.now,
                    since,
                    expected,
                    stage: Stage::Filling,
                });
                Ok(())
            }
            Err(failure) => self.give_up(summary.slot, failure, hands),
        }
    }

    fn expected_bytes(&self, machine: &Machine) -> u64 {
        let state = machine.state();
        let overhead = KEY_OVERHEAD_BYTES * state.keys() as u64 + SESSION_OVERHEAD_BYTES * state.sessions() as u64;
        let newest = self.kept.first().map_or(0, |newest| newest.bytes);
        newest.max(state.bytes() + overhead)
    }

    /// S3: what is spare goes first, then the older of two (`rules.md` 26); with one left, the new one has to wait.
    fn make_room(&mut self, hands: &mut Hands<'_, Fs>, expected: u64) -> Result<(), Fatal> {
        if self.spare.is_some() {
            self.leaving.extend(self.spare.take());
            return Ok(());
        }
        if self.kept.len() > 1 {
            self.drop_oldest(hands);
            return Ok(());
        }
        if self.not_before == Time::ZERO {
            hands.note(Note::SnapshotPutOff { bytes: expected });
        }
        self.not_before = hands.now + SNAPSHOT_PUT_OFF;
        Ok(())
    }

    fn go_on(&mut self, mut taking: Taking<Fs::File>, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let done = match taking.stage {
            Stage::Filling => {
                let begin = taking.writer.written();
                let filled = fill(&mut taking, self.owed_bytes, hands)?;
                self.owed_bytes = self.owed_bytes.saturating_sub(taking.writer.written() - begin);
                filled
            }
            Stage::Cutting => taking.writer.cut(FILE_CUT_BYTES).map(|is_cut| {
                if is_cut {
                    taking.stage = Stage::Syncing;
                }
            }),
            Stage::Syncing => taking.writer.sync().map(|()| taking.stage = Stage::Naming),
            Stage::Naming => return self.publish(taking, hands),
        };
        if let Err(failure) = done {
            let slot = taking.writer.slot();
            drop(taking);
            return self.give_up(slot, failure, hands);
        }
        // S2 costs a log as long as the interval and what is written meanwhile; more than that, and the older goes.
        if self.kept.len() > 1 && hands.storage.wal().bytes_from(taking.since) > self.interval() {
            self.drop_oldest(hands);
        }
        self.taking = Some(taking);
        Ok(())
    }

    fn publish(&mut self, taking: Taking<Fs::File>, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let slot = taking.writer.slot();
        if !hands.machine.is_sound() {
            self.abandon(slot, hands); // it may hold what is wrong
            return Ok(());
        }
        if let Err(failure) = snapshot::publish(hands.storage.files(), slot) {
            return self.give_up(slot, failure, hands);
        }
        let kept = Kept {
            slot,
            bytes: taking.writer.written(),
            content: taking.writer.content(),
            at: Some(hands.now),
        };
        self.kept.insert(0, kept);
        self.since = taking.since;
        self.not_before = Time::ZERO;
        hands.note(Note::SnapshotTaken {
            slot,
            bytes: kept.bytes,
            took: hands.now.since(taking.began),
        });
        if self.kept.len() > 2 {
            self.drop_oldest(hands);
        }
        self.replace_damaged(slot, hands);
        self.truncate_at = Some(hands.now);
        Ok(())
    }

    /// A snapshot that cannot be written. For want of room it is put off (S3); anything else is final, as for the log
    /// (`rules.md` 26).
    fn give_up(&mut self, slot: Slot, failure: Failure, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        if !failure.is_no_space() {
            return Err(failed(failure));
        }
        log::warn!("the snapshot of slot {slot} is put off: {failure}");
        self.abandon(slot, hands);
        self.make_room(hands, 0)
    }

    /// What is left of a snapshot that came to nothing goes; if that fails, the next start removes it.
    fn abandon(&mut self, slot: Slot, hands: &mut Hands<'_, Fs>) {
        hands.machine.end_snapshot();
        self.leave_unnamed(slot, hands.storage.files());
    }

    /// What stands under a temporary name goes, in steps.
    fn leave_unnamed(&mut self, slot: Slot, files: &Fs) {
        let mut leaving = Leaving::of(slot);
        match leaving.open(files) {
            Ok(()) => self.leaving.push_back(leaving),
            Err(failure) => log::debug!("it stays until the next start: {failure}"),
        }
    }

    fn drop_oldest(&mut self, hands: &Hands<'_, Fs>) {
        if let Some(oldest) = self.kept.pop() {
            self.leave(oldest.slot, false);
            self.truncate_at = Some(hands.now);
        }
    }

    /// A file that nobody needs becomes spare or goes, in steps.
    fn leave(&mut self, slot: Slot, is_damaged: bool) {
        self.leaving.push_back(Leaving {
            is_damaged,
            ..Leaving::of(slot)
        });
    }

    /// One step of taking away what nobody needs: of a snapshot, or else a segment that a CHECKPOINT lets go.
    fn tidy(&mut self, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        if let Some(leaving) = self.leaving.pop_front() {
            return self.tidy_snapshot(leaving, hands.storage.files()).map_err(failed);
        }
        if hands.storage.wal().has_spares_to_drop() {
            return hands.storage.drop_spare(FILE_CUT_BYTES).map_err(Fatal::Storage);
        }
        if hands.storage.remove_next().map_err(Fatal::Storage)? == Some(true) {
            let segment = hands.storage.wal().first_segment();
            hands.note(Note::LogTruncated { segment });
        }
        Ok(())
    }

    fn tidy_snapshot(&mut self, mut leaving: Leaving<Fs::File>, files: &Fs) -> Result<(), Failure> {
        if leaving.withdrawn.is_none() {
            leaving.withdraw(files)?;
            if self.has_room && self.spare.is_none() && !leaving.is_damaged {
                self.spare = Some(leaving);
                return Ok(());
            }
        } else if leaving.cut(files)? {
            return Ok(());
        }
        self.leaving.push_front(leaving);
        Ok(())
    }

    /// S2: the log need not reach back further than to the older snapshot, but for peers.
    fn look_at_log(&mut self, hands: &mut Hands<'_, Fs>) {
        if self.truncate_at.is_none_or(|at| hands.now < at) {
            return;
        }
        self.truncate_at = None;
        let slot = match self.kept.as_slice() {
            [_, older, ..] => older.slot,
            // Without it no start is possible: what came before it is of no use.
            [only] if only.slot == self.installed => only.slot,
            _ => return,
        };
        let wal = hands.storage.wal();
        let wanted = hands.machine.wanted_by_peers(hands.now).unwrap_or(slot);
        let segment = wal.first_to_keep(slot, wanted.min(slot), self.every_bytes);
        let is_held = wal.first_to_keep(slot, slot, 0) > segment;
        let can_be = segment <= wal.first_segment() || hands.machine.write_checkpoint(segment, slot, hands.effects);
        if is_held || !can_be {
            self.truncate_at = Some(hands.now + PEER_LOG_AGAIN);
        }
    }
}

/// Gives the file its next blocks: as many as keep up with the log, within a bound.
fn fill<Fs: Files>(
    taking: &mut Taking<Fs::File>,
    owed_bytes: u64,
    hands: &mut Hands<'_, Fs>,
) -> Result<Result<(), Failure>, Fatal> {
    let writer = &mut taking.writer;
    let slice = owed_bytes.clamp(BLOCK_BYTES as u64, SNAPSHOT_SLICE_MAX_BYTES);
    let until = writer.written() + slice;
    while writer.written() < until {
        let room = writer.room();
        let more = hands.machine.next_of_snapshot(room, &mut |item| writer.add(item));
        // Rule 27: a digest that the state does not have is broken memory, and no answer is better than a wrong one.
        let more = more.map_err(|mismatch| Fatal::Halt(format!("the state in memory is broken: {mismatch}")))?;
        let written = if !more {
            taking.stage = Stage::Cutting;
            writer.finish()
        } else if writer.room() == 0 {
            writer.write_block()
        } else {
            break; // many keys that are newer were passed over
        };
        let synced = written.and_then(|()| {
            if writer.unsynced() >= SNAPSHOT_SYNC_BYTES {
                writer.sync()
            } else {
                Ok(())
            }
        });
        if synced.is_err() || !more {
            return Ok(synced);
        }
    }
    Ok(Ok(()))
}

/// Whether the log has files to be taken away.
fn has_to_remove<Fs: Files>(storage: &Storage<Fs>) -> bool {
    storage.wal().can_remove() || storage.wal().has_spares_to_drop()
}

impl<F: File> Leaving<F> {
    fn of(slot: Slot) -> Leaving<F> {
        Leaving {
            slot,
            is_damaged: false,
            withdrawn: None,
        }
    }

    /// Bytes of its file, once it is withdrawn.
    fn bytes(&self) -> u64 {
        self.withdrawn.as_ref().map_or(0, |(_, length)| *length)
    }

    fn withdraw<Fs: Files<File = F>>(&mut self, files: &Fs) -> Result<(), Failure> {
        snapshot::withdraw(files, self.slot)?;
        self.open(files)
    }

    fn open<Fs: Files<File = F>>(&mut self, files: &Fs) -> Result<(), Failure> {
        let name = snapshot::temporary_name(self.slot);
        let path = files.path(&name);
        let file = files.open(&name);
        let file = file.map_err(|source| Failure::new("open", path.clone(), source))?;
        let length = file.length().map_err(|source| Failure::new("ask", path, source))?;
        self.withdrawn = Some((file, length));
        Ok(())
    }

    /// Cuts it shorter; whether it is gone.
    fn cut<Fs: Files<File = F>>(&mut self, files: &Fs) -> Result<bool, Failure> {
        let name = snapshot::temporary_name(self.slot);
        let path = files.path(&name);
        if let Some((file, length)) = &mut self.withdrawn
            && *length > FILE_CUT_BYTES
        {
            *length -= FILE_CUT_BYTES;
            let cut = file.truncate(*length);
            cut.map_err(|source| Failure::new("cut", path, source))?;
            return Ok(false);
        }
        let removed = files.remove(&name);
        removed.map_err(|source| Failure::new("remove", path, source))?;
        Ok(true)
    }
}

fn failed(failure: Failure) -> Fatal {
    Fatal::Storage(StorageError::Failed(failure))
}
