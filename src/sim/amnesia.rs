//! Directories that are lost, rot, or are put back as they were: what becomes of a node's memory.
//!
//! Each of these leaves a node that must not be believed before it has recovered. A majority of nodes keeps its memory at
//! every moment: without it there is nobody to recover from, and that is not to be survived.

use super::faults::Fault;
use super::network::End;
use super::node::{Death, Rot, SimNode};
use super::queue::Event;
use super::world::World;
use crate::paxos::Start;
use crate::storage::Files;
use crate::storage::sim::SimDisk;
use crate::storage::snapshot::snapshot_of;
use crate::storage::unit::UNIT_MAGIC;
use crate::time::Time;
use fastrand::Rng;
use std::fmt;
use std::time::Duration;

/// Where units begin in a segment.
const UNITS_BEGIN: usize = 4096;

/// The longest time that a leader is heard by one node alone before that one loses its directory, microseconds.
const BESIDE_US: u64 = 50_000;
/// The longest time until that one is back, microseconds.
const BACK_US: u64 = 20_000;
/// The longest time that the two do not hear each other then, and the others not the leader, microseconds.
const APART_US: u64 = 1_500_000;

/// A copy of a data directory, with what has rotted in it, and the start in which it was taken.
pub struct OldCopy {
    disk: SimDisk,
    rot: Option<Rot>,
    start: Start,
}

impl OldCopy {
    fn of(node: &SimNode) -> OldCopy {
        OldCopy {
            disk: node.disk.fork(),
            rot: node.rot.clone(),
            start: node.start,
        }
    }

    /// The directory is another; the disk, and whether it is full, is the one that is there.
    fn take_the_place_of(self, node: &mut SimNode) {
        self.disk.set_capacity(node.disk.capacity());
        (node.disk, node.rot) = (self.disk, self.rot);
    }
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
        let is_well = |node: &SimNode| node.rot.is_none() && !checks.has_forgotten(node.id);
        let well = self.nodes.iter().filter(|node| is_well(node)).count();
        let is_founded = self
            .nodes
            .iter()
            .all(|node| checks.has_forgotten(node.id) || checks.is_founded(node.id));
        is_founded && is_well(&self.nodes[node]) && 2 * (well - 1) > self.nodes.len()
    }

    /// A bit of what was proven long ago flips, in the log or in the newest snapshot, at rest: while the node runs, and its
    /// scrub must find it; or while it is down, and its start must. Of the last unit nobody could tell rot from a torn tail
    /// at a start, so it is spared.
    pub(super) fn rot(&mut self, node: usize, rng: &mut Rng) {
        if !self.may_lose(node) {
            return;
        }
        if rng.bool() {
            self.bring_down(node, Death::PowerLost);
        }
        let is_of_snapshot = rng.bool();
        let there = &mut self.nodes[node];
        let names = there.disk.list().unwrap_or_default();
        let newest = names.iter().rfind(|name| snapshot_of(name).is_some());
        let oldest = names.iter().find(|name| name.ends_with(".log"));
        let (Some(name), begin) = (match newest.filter(|_| is_of_snapshot) {
            Some(name) => (Some(name), 0),
            None => (oldest, UNITS_BEGIN),
        }) else {
            return;
        };
        let contents = there.disk.contents(name).unwrap_or_default();
        let magic = UNIT_MAGIC.to_be_bytes();
        let end = match begin {
            0 => contents.len(),
            _ => contents
                .windows(magic.len())
                .rposition(|bytes| bytes == magic)
                .unwrap_or(0),
        };
        if end <= begin {
            return;
        }
        let (offset, bit) = (rng.usize(begin..end), rng.u8(0..8));
        there.disk.flip_bit(name, offset as u64, bit);
        there.rot = Some(Rot {
            name: name.clone(),
            offset,
            byte: contents[offset] ^ (1 << bit),
            passes: there.machine().map_or(0, |machine| machine.scrub().passes),
        });
        self.fault(Fault::BitRot);
    }

    /// The directory is gone.
    pub(super) fn wipe(&mut self, node: usize) {
        if self.may_lose(node) {
            self.fault(Fault::EmptyDirectory);
            self.bring_down(node, Death::PowerLost);
            self.lose(node);
        }
    }

    /// Of the others only `beside` hears the leader any more, and soon loses its directory: what the leader has counted with
    /// it, nobody else has seen. The ways to the rest open one by one.
    pub(super) fn leave_one_beside_leader(&mut self, beside: usize, rng: &mut Rng) {
        let Some(leader) = self.leader().filter(|leader| *leader != beside) else {
            return;
        };
        for deaf in (0..self.nodes.len()).filter(|node| ![leader, beside].contains(node)) {
            let until = self.soon(APART_US, rng);
            self.cut(leader, deaf, until);
        }
        let at = self.soon(BESIDE_US, rng);
        let until = at + Duration::from_micros(rng.u64(0..=APART_US));
        let loses = Event::Loses {
            node: beside,
            leader,
            until,
        };
        self.queue.push(at, loses);
    }

    /// The node beside the leader is soon back, empty; and as if it were put up elsewhere, the two do not hear each other.
    pub(super) fn lose_vote(&mut self, node: usize, leader: usize, until: Time) {
        if self.storm.finale.is_some() || !self.nodes[node].is_up() || !self.may_lose(node) {
            return;
        }
        self.fault(Fault::LostVote);
        self.bring_down_for(node, Death::PowerLost, BACK_US);
        self.lose(node);
        self.cut(leader, node, until);
        self.cut(node, leader, until);
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
            self.nodes[node].copy = Some(OldCopy::of(there));
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
            copy.take_the_place_of(there);
        }
        self.shared.checks.borrow_mut().forgets(there.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Clock;
    use super::*;
    use crate::machine::Settings;
    use crate::paxos::NodeId;
    use crate::storage::scrub::Pace;

    fn node() -> SimNode {
        let clock = Clock::new(Time::ZERO, Time::ZERO, 0);
        let disk = SimDisk::new(1);
        disk.create("well").expect("the disk has no faults");
        let settings = Settings::new(NodeId(1), vec![NodeId(1)]);
        SimNode::new(settings, (1 << 14, 1 << 11, Pace::default()), (clock, clock), disk)
    }

    #[test]
    fn an_old_copy_of_a_full_disk_fills_none_that_has_room_by_now() {
        let mut node = node();
        node.disk.set_capacity(8);
        let copy = OldCopy::of(&node);
        node.disk.set_capacity(u64::MAX);
        copy.take_the_place_of(&mut node);
        assert_eq!(node.disk.capacity(), u64::MAX);
    }

    #[test]
    fn an_old_copy_brings_back_what_had_rotted_in_it_and_takes_along_what_rotted_since() {
        let mut node = node();
        let rot = |name: &str| Rot {
            name: name.into(),
            offset: 0,
            byte: 1,
            passes: 0,
        };
        let name_of = |node: &SimNode| node.rot.as_ref().map(|rot| rot.name.clone());
        node.rot = Some(rot("then"));
        let rotten = OldCopy::of(&node);
        node.rot = None;
        let well = OldCopy::of(&node);
        rotten.take_the_place_of(&mut node);
        assert_eq!(name_of(&node).as_deref(), Some("then"));
        well.take_the_place_of(&mut node);
        assert_eq!(name_of(&node), None);
    }
}
