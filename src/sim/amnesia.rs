//! Directories that are lost, rot, or are put back as they were: what becomes of a node's memory.
//!
//! Each of these leaves a node that must not be believed before it has recovered. A majority of nodes keeps its memory at
//! every moment: without it there is nobody to recover from, and that is not to be survived.

use super::faults::Fault;
use super::network::End;
use super::node::Death;
use super::world::World;
use crate::paxos::Start;
use crate::storage::Files;
use crate::storage::sim::SimDisk;
use crate::storage::snapshot::snapshot_of;
use crate::storage::unit::UNIT_MAGIC;
use fastrand::Rng;
use std::fmt;

/// Where units begin in a segment.
const UNITS_BEGIN: usize = 4096;

/// A copy of a data directory, and the start in which it was taken.
pub struct OldCopy {
    disk: SimDisk,
    start: Start,
}

impl fmt::Debug for OldCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "copy of start {}", self.start)
    }
}

impl World {
    /// Whether one more node may lose its memory.
    fn may_lose(&self, node: usize) -> bool {
        let checks = self.shared.checks.borrow();
        let is_well = |node: &super::node::SimNode| !node.has_rot && !checks.has_forgotten(node.id);
        let well = self.nodes.iter().filter(|node| is_well(node)).count();
        let is_founded = self
            .nodes
            .iter()
            .all(|node| checks.has_forgotten(node.id) || checks.is_founded(node.id));
        is_founded && is_well(&self.nodes[node]) && 2 * (well - 1) > self.nodes.len()
    }

    /// A bit of what was proven long ago flips, in the log or in the newest snapshot: the node must notice, and start only if
    /// it can do without. Of the last unit nobody could tell rot from a torn tail, so it is spared.
    pub(super) fn rot(&mut self, node: usize, rng: &mut Rng) {
        if !self.may_lose(node) {
            return;
        }
        self.bring_down(node, Death::PowerLost);
        let disk = &self.nodes[node].disk;
        let names = disk.list().unwrap_or_default();
        let newest = names.iter().rfind(|name| snapshot_of(name).is_some());
        if let Some(name) = newest.filter(|_| rng.bool()) {
            let length = disk.contents(name).map_or(0, |bytes| bytes.len());
            disk.flip_bit(name, rng.usize(0..length.max(1)) as u64, rng.u8(0..8));
            self.nodes[node].has_rot = true;
            return self.fault(Fault::BitRot);
        }
        let oldest = names.iter().find(|name| name.ends_with(".log"));
        let Some(name) = oldest else { return };
        let contents = disk.contents(name).unwrap_or_default();
        let magic = UNIT_MAGIC.to_be_bytes();
        let last_unit = contents.windows(magic.len()).rposition(|bytes| bytes == magic);
        let Some(end) = last_unit.filter(|end| *end > UNITS_BEGIN) else {
            return;
        };
        let offset = rng.usize(UNITS_BEGIN..end) as u64;
        disk.flip_bit(name, offset, rng.u8(0..8));
        self.nodes[node].has_rot = true;
    }

    /// The node has refused to start on what rotted: its operator does what it says, and starts it with an empty directory.
    pub(super) fn replace_rotten(&mut self, node: usize) {
        self.fault(Fault::BitRot);
        self.nodes[node].has_rot = false;
        self.lose(node);
    }

    /// The directory is gone.
    pub(super) fn wipe(&mut self, node: usize) {
        if self.may_lose(node) {
            self.fault(Fault::EmptyDirectory);
            self.bring_down(node, Death::PowerLost);
            self.lose(node);
        }
    }

    fn lose(&mut self, node: usize) {
        self.tell_of(End::Node(node), || "has lost its directory".into());
        self.nodes[node].disk.wipe();
        self.shared.checks.borrow_mut().forgets(self.nodes[node].id);
    }

    /// A copy of the directory is taken; or one that was taken is put in its place. A copy that somebody might not
    /// recognise is not: nothing protects from that (`docs/design.md`, "What cannot be known").
    pub(super) fn restore_copy(&mut self, node: usize) {
        let there = &self.nodes[node];
        let Some(copy) = &there.copy else {
            let (disk, start) = (there.disk.fork(), there.start);
            self.nodes[node].copy = Some(OldCopy { disk, start });
            return;
        };
        let is_outlived = self.shared.checks.borrow().is_outlived(there.id, copy.start);
        if !is_outlived || !self.may_lose(node) {
            return;
        }
        self.fault(Fault::OldCopy);
        self.bring_down(node, Death::PowerLost);
        self.tell_of(End::Node(node), || {
            "comes back with an old copy of its directory".into()
        });
        let there = &mut self.nodes[node];
        if let Some(copy) = there.copy.take() {
            there.disk = copy.disk;
        }
        self.shared.checks.borrow_mut().forgets(there.id);
    }
}
