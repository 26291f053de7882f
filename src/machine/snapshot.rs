//! The machine's side of snapshots: what the loop between its turns asks of it to take one, to truncate the log behind
//! it, and to start from one.
//!
//! Invariants:
//! * N1. A node knows all up to its snapshot's slot as chosen and can hand it out (`rules.md` 6), also after a restart: the
//!   log says by CHOSEN_UPTO or INSTALLED that no start may do with less.
//! * N2. A checkpoint carries all that this machine would recover from the records before it, beside entries behind the
//!   older snapshot.
//!
//! Not here: files and slices (`node::snapshots`), what a snapshot holds (`kv::snapshot`).

use super::io::Effect;
use super::machine::Machine;
use crate::kv::State;
use crate::kv::snapshot::{ItemRef, Mismatch, Summary};
use crate::paxos::replica::Carried;
use crate::paxos::{Health, Slot};
use crate::time::Time;
use crate::wire::Record;
use crate::wire::hello::Base;
use std::time::Duration;

/// A peer that was not heard for so long is not waited for.
const PEER_GONE: Duration = Duration::from_secs(5);

/// A snapshot that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Behind which slot.
    pub slot: Slot,
    /// Bytes of its file.
    pub bytes: u64,
    /// Digest of its content.
    pub content: u64,
    /// When it was taken or came; none for one of an earlier life.
    pub at: Option<Time>,
}

/// What the loop tells of its snapshots, for whoever looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotView {
    /// Those that are kept, the newest first.
    pub kept: Vec<Kept>,
    /// The one under way: its slot, bytes written, bytes expected.
    pub under_way: Option<(Slot, u64, u64)>,
    /// Bytes of the log since the newest.
    pub log_bytes: u64,
}

impl Machine {
    /// Starts from a snapshot's state: before any record is recovered.
    pub fn restore(&mut self, state: State) {
        self.restored = state.applied();
        self.replica.skip_to(state.applied(), state.log_time());
        self.replica.note_digest(state.applied(), state.digest());
        self.state = state;
    }

    /// Once the log was read back: a snapshot of no cluster, which a backup was restored from, is where this node's log
    /// begins (`rules.md` 1).
    pub fn begin_behind(&mut self, restored: Option<Summary>) {
        let base = restored.map(|summary| Base {
            slot: summary.slot,
            digest: summary.digest,
        });
        self.founding.begin_behind(base);
    }

    /// Behind which slot the snapshot ended that it started from; 0 if none.
    pub fn restored(&self) -> Slot {
        self.restored
    }

    /// N1, while the log is read back: up to where it proves itself.
    pub(super) fn note_marks(&mut self, record: &Record) {
        let proves = match record {
            Record::ChosenUpto(upto) => *upto,
            Record::Checkpoint { chosen_upto, .. } => *chosen_upto,
            Record::Installed { slot } => *slot,
            _ => return,
        };
        self.log_proves = self.log_proves.max(proves);
    }

    /// N1, at the start: a snapshot that reaches further than the log proves may stand for entries that the log lacks.
    pub(super) fn note_start(&mut self, effects: &mut Vec<Effect>) {
        let slot = self.restored;
        if slot > self.log_proves {
            self.append(vec![Record::Installed { slot }], effects);
        }
    }

    /// Begins a snapshot of the state as it is now. What it says of the log (N1) is written with the next sync, so the
    /// snapshot gets its name only behind that.
    pub fn begin_snapshot(&mut self, effects: &mut Vec<Effect>) -> Summary {
        self.replica.record_chosen_upto(&mut self.out);
        self.drain(effects);
        self.state.begin_snapshot()
    }

    /// See [`State::next_of_snapshot`].
    ///
    /// # Errors
    /// See [`State::next_of_snapshot`].
    pub fn next_of_snapshot(
        &mut self,
        bytes_max: usize,
        give: &mut dyn FnMut(ItemRef<'_>) -> usize,
    ) -> Result<bool, Mismatch> {
        self.state.next_of_snapshot(bytes_max, give)
    }

    /// Gives up a snapshot under way.
    pub fn end_snapshot(&mut self) {
        self.state.end_snapshot();
    }

    /// Writes a checkpoint (N2): a snapshot behind `slot` is durable, the log shall begin with `segment`. False while that
    /// cannot be: a failed acceptor's promises stand in the log alone.
    pub fn write_checkpoint(&mut self, segment: u32, slot: Slot, effects: &mut Vec<Effect>) -> bool {
        let Some(carried) = self.replica.carried() else {
            return false;
        };
        let Carried {
            promised,
            used,
            chosen_upto,
        } = carried;
        let mut records = self.founding.carried(self.replica.has_recovered());
        // Last: what stands before it in its unit is durable when it is.
        records.push(Record::Checkpoint {
            segment,
            slot,
            promised,
            used,
            chosen_upto,
        });
        self.append(records, effects);
        true
    }

    /// The slot behind which some living peer still wants entries, as far as a leader knows.
    pub fn wanted_by_peers(&self, now: Time) -> Option<Slot> {
        let peers = self.replica.peer_progress().into_iter();
        let living = peers.filter(|(_, peer)| now.since(peer.heard_at) < PEER_GONE);
        living.map(|(_, peer)| peer.chosen_upto).min()
    }

    /// Notes what the loop tells of its snapshots.
    pub fn tell_snapshots(&mut self, view: SnapshotView) {
        self.snapshots = view;
    }

    /// What the loop told of its snapshots.
    pub fn snapshots(&self) -> &SnapshotView {
        &self.snapshots
    }

    /// Whether nothing speaks against its state: only then may it stand for what the log did.
    pub fn is_sound(&self) -> bool {
        self.replica.digests().health() == Health::Sound
    }

    /// A state of its kind in which nothing has happened: what a snapshot is loaded into.
    pub fn empty_state(&self) -> State {
        State::under(self.settings.rules, self.settings.seed)
    }

    /// Whether *founded* is durable here.
    pub fn is_founded(&self) -> bool {
        self.founding.is_founded()
    }

    /// The cluster's id, once a roster is held; else 0.
    pub fn cluster_id(&self) -> u64 {
        self.founding.cluster_id()
    }

    /// Below so much free space nothing is begun that takes more of it.
    pub fn disk_reserve(&self) -> u64 {
        self.settings.disk_reserve
    }
}
