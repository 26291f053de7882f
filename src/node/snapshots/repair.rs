//! Damage in a running node's files: the disk is written again from memory, which has forgotten nothing.
//!
//! * **A snapshot** is not offered to anybody any more, another one is taken, and the damaged file goes.
//! * **A segment of the log**, and with it all before it: no record goes into it any more; the votes in it for slots
//!   that are not applied are written again behind it; a snapshot is taken of what is; a checkpoint says anew what was
//!   promised; and the log is truncated behind the damage, as it is behind any snapshot.
//! * **`IDENTITY`** is written again.
//!
//! Invariants:
//! * R1. Nothing that a start would need is taken away before it stands, synced, elsewhere. So a crash at any moment
//!   leaves either a directory that is whole, or one whose damage the start finds, too (`node::open`).
//! * R2. Only memory that is whole repairs: not while the acceptor is down, nor in a node whose state differs from others'.
//!
//! `docs/design.md`, "Damage", has the argument. Not here: finding it (`storage::scrub`).

use super::{Hands, Snapshots};
use crate::machine::DamageFinding;
use crate::node::limits::{REPAIR_AGAIN, REPAIR_TURN_BYTES};
use crate::node::turn::Fatal;
use crate::paxos::Slot;
use crate::storage::scrub::{Finding, Place};
use crate::storage::segment::segment_of;
use crate::storage::snapshot::{SnapshotReader, snapshot_name, snapshot_of};
use crate::storage::{DAMAGED_SUFFIX, Files};
use crate::time::Time;
use std::collections::BTreeSet;

/// What is to be repaired.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Segments up to this one must go.
    segment: Option<u32>,
    /// No entry above this slot stands in them alone: a snapshot of it or of a later one stands for what they hold.
    slot: Option<Slot>,
    /// The checkpoint that lets them go is written.
    is_let_go: bool,
    /// Snapshots that are damaged, and there until another one is taken.
    snapshots: BTreeSet<Slot>,
}

impl<Fs: Files> Snapshots<Fs> {
    /// Damage was found; or it was known at the start, and outlived.
    ///
    /// # Errors
    /// [`Fatal`]: the loop must end.
    pub(in crate::node) fn heed_damage(&mut self, finding: Finding, hands: &mut Hands<'_, Fs>) -> Result<(), Fatal> {
        let Finding { place, damage } = finding;
        let file = damage.file.clone();
        let told = DamageFinding {
            file: damage.file,
            offset: damage.offset,
            kind: damage.kind.name(),
            what: damage.what,
        };
        hands.machine.find_damage(told, hands.effects);
        match place {
            Place::Segment(segment) => self.must_go(segment),
            Place::Snapshot(slot) => self.distrust(slot, hands),
            Place::Identity => {
                hands.storage.write_identity_again().map_err(Fatal::Storage)?;
                hands.machine.repair_damage(|found| found.file == file, hands.effects);
            }
        }
        Ok(())
    }

    /// Segments up to this one cannot be relied on.
    fn must_go(&mut self, segment: u32) {
        if self.repair.segment.is_none_or(|known| known < segment) {
            self.repair.segment = Some(segment);
            (self.repair.slot, self.repair.is_let_go) = (None, false);
        }
    }

    /// A snapshot is damaged: where a newer one stands for it, it goes; else S2 may not hold until the next is taken, now.
    fn distrust(&mut self, slot: Slot, hands: &mut Hands<'_, Fs>) {
        let Some(place) = self.kept.iter().position(|kept| kept.slot == slot) else {
            self.is_wanted = true; // the start has set it aside
            return;
        };
        self.kept.remove(place);
        let files = hands.storage.files();
        if self.kept.first().is_some_and(|newest| newest.slot > slot) {
            let path = files.path(&snapshot_name(slot));
            self.leave(slot, true);
            return hands.machine.repair_damage(|found| found.file == path, hands.effects);
        }
        self.repair.snapshots.insert(slot);
        self.is_wanted = true;
        // Of one from an earlier life nobody looked at the digest yet, and now it is the one to be offered.
        if let Some(newest) = self.kept.first_mut()
            && let Ok(reader) = SnapshotReader::open(files, &snapshot_name(newest.slot))
        {
            newest.content = reader.header().summary.content;
        }
    }

    /// When it wants a turn that nothing else brings about.
    pub(in crate::node) fn repair_at(&self, now: Time) -> Option<Time> {
        self.repair.segment.map(|_| now + REPAIR_AGAIN)
    }

    /// What is kept for a start: what the scrub looks at.
    pub(in crate::node) fn kept_slots(&self) -> Vec<Slot> {
        self.kept.iter().map(|kept| kept.slot).collect()
    }

    /// The next step of a repair of the log; each is made once what it needs is there.
    pub(super) fn go_on_repairing(&mut self, hands: &mut Hands<'_, Fs>) {
        let Some(segment) = self.repair.segment else { return };
        if hands.storage.wal().first_segment() > segment {
            self.repair.segment = None;
            let is_gone = |found: &DamageFinding| {
                let number = segment_of(name_of(&found.file));
                number.is_some_and(|number| number <= segment)
            };
            return hands.machine.repair_damage(is_gone, hands.effects);
        }
        // Nothing is written into it any more, once there is another one to write into.
        if !hands.machine.remembers_votes() || !hands.storage.leave_segments(segment) {
            return;
        }
        let Some(slot) = self.repair.slot else {
            return self.save_votes(segment, hands);
        };
        let newest = self.kept.first().map_or(Slot::ZERO, |newest| newest.slot);
        if newest < slot {
            self.is_wanted = true;
        } else if !self.repair.is_let_go {
            // What is older would need what goes.
            while self.kept.len() > 1 {
                self.drop_oldest(hands);
            }
            self.installed = newest;
            self.repair.is_let_go = hands.machine.write_checkpoint(segment + 1, newest, hands.effects);
        }
    }

    /// What stands in damaged segments alone, and no snapshot will hold, is written again.
    fn save_votes(&mut self, segment: u32, hands: &mut Hands<'_, Fs>) {
        let applied = hands.machine.state().applied();
        let mut slots = hands.storage.wal().slots_up_to_segment(segment, applied);
        slots.retain(|slot| hands.machine.holds(*slot));
        if slots.is_empty() {
            self.repair.slot = Some(applied);
        } else {
            hands.machine.write_again(&slots, REPAIR_TURN_BYTES, hands.effects);
        }
    }

    /// A snapshot was taken or came: what was damaged of others may go.
    pub(super) fn replace_damaged(&mut self, newest: Slot, hands: &mut Hands<'_, Fs>) {
        for slot in std::mem::take(&mut self.repair.snapshots) {
            // One of the very slot has taken its place.
            if slot != newest {
                self.leave(slot, true);
            }
        }
        // Those that a start set aside are replaced, too.
        let is_snapshot = |found: &DamageFinding| snapshot_of(name_of(&found.file)).is_some();
        hands.machine.repair_damage(is_snapshot, hands.effects);
    }

    /// What a node lost with its log it was shown by its peers, once it votes again.
    pub(super) fn forgive_lost_log(&self, hands: &mut Hands<'_, Fs>) {
        if !hands.machine.damage().is_empty() && hands.machine.replica().votes() {
            let is_aside = |found: &DamageFinding| name_of(&found.file).ends_with(DAMAGED_SUFFIX);
            hands.machine.repair_damage(is_aside, hands.effects);
        }
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
