//! Digests compared: does every node's state come from the same log, with the same effect? (`rules.md` 27)
//!
//! A digest runs over each applied entry and what applying it did, so two nodes that differ once differ in every later
//! slot, and two that are equal in a slot were equal in every earlier one. A leader tells its own in each heartbeat, and
//! the highest slot at which a quorum (itself included) has one digest; followers answer with theirs. They meet at equal
//! slots because each node keeps its digests of recent slots, and keeps what a peer told of a slot that it has not
//! applied yet. What a node concludes:
//! * Another digest than a quorum's: this node is wrong ([`Health::Diverged`], for the rest of its life).
//! * It differs from somebody, and no quorum has been found yet that agrees with it at that slot or later: it may be the
//!   wrong one ([`Health::Suspect`]) and must not serve until one is found.
//! * Else it is sound; a peer that differs from a quorum finds out by itself.
//!
//! Not here: what a digest runs over (`kv::digest`; it is opaque here), what a node does that is not sound (`replica`,
//! `machine`).

use super::{Membership, NodeId, Slot};
use std::collections::{BTreeMap, VecDeque};

/// Slots whose digests are kept: several windows, so that a peer's slot is among them unless it is far behind.
pub const DIGESTS_KEPT: usize = 4096;

/// What a node knows of its own state by comparing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing speaks against it.
    #[default]
    Sound,
    /// It differs from a peer, and nobody knows who of them is right.
    Suspect {
        /// The first slot at which a difference was seen.
        slot: Slot,
        /// From whom.
        peer: NodeId,
    },
    /// It differs from a quorum: it is wrong.
    Diverged {
        /// The first slot at which that was seen.
        slot: Slot,
    },
}

/// What was found of one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    /// The highest slot at which it was equal.
    equal: Slot,
    /// The first slot at which it differed since.
    differs: Option<Slot>,
}

/// What a peer tells: its own digest, or a quorum's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Peer(NodeId),
    Quorum,
}

/// This node's digests of recent slots, and what comparing them with others' has shown.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    /// Of the slots up to `last`, without a hole.
    recent: VecDeque<u64>,
    last: Slot,
    /// Told of slots that are not applied here yet; one of each teller waits.
    waiting: BTreeMap<Whose, (Slot, u64)>,
    peers: BTreeMap<NodeId, Compared>,
    /// The highest slot at which a quorum, this node included, is known to agree, and its digest there.
    agreed: (Slot, u64),
    diverged: Option<Slot>,
    compared: u64,
    differing: u64,
    /// Something was compared since [`Digests::take_news`].
    has_news: bool,
}

impl Digests {
    /// This node has applied all up to `slot`.
    pub fn note(&mut self, slot: Slot, digest: u64) {
        if slot == self.last && !self.recent.is_empty() {
            return;
        }
        if slot != self.last.next() {
            self.recent.clear(); // the beginning, or a state that came as a whole
        }
        self.recent.push_back(digest);
        self.last = slot;
        if self.recent.len() > DIGESTS_KEPT {
            self.recent.pop_front();
        }
        self.settle();
    }

    /// A peer tells of its own state.
    pub fn told_by(&mut self, peer: NodeId, slot: Slot, digest: u64) {
        self.told(Whose::Peer(peer), slot, digest);
    }

    /// A leader tells at which slot a quorum agrees.
    pub fn told_of_quorum(&mut self, slot: Slot, digest: u64) {
        if slot > self.agreed.0 {
            self.told(Whose::Quorum, slot, digest);
        }
    }

    /// What waits is kept against what is newer: else a node that is always a little behind would never compare.
    fn told(&mut self, whose: Whose, slot: Slot, digest: u64) {
        if slot <= self.last {
            self.compare(whose, slot, digest);
        } else {
            let waiting = self.waiting.entry(whose).or_insert((slot, digest));
            *waiting = (*waiting).min((slot, digest));
        }
    }

    fn settle(&mut self) {
        let last = self.last;
        if self.waiting.values().all(|(slot, _)| *slot > last) {
            return;
        }
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, (slot, _))| *slot <= last);
        self.waiting = waiting.into_iter().collect();
        for (whose, (slot, digest)) in due {
            self.compare(whose, slot, digest);
        }
    }

    fn compare(&mut self, whose: Whose, slot: Slot, digest: u64) {
        let Some(own) = self.of(slot) else {
            return; // too old to be known still
        };
        self.has_news = true;
        self.compared += 1;
        let is_equal = own == digest;
        self.differing += u64::from(!is_equal);
        match whose {
            Whose::Quorum if is_equal => self.agreed = self.agreed.max((slot, digest)),
            Whose::Quorum => {
                self.diverged.get_or_insert(slot);
            }
            Whose::Peer(peer) => {
                let compared = self.peers.entry(peer).or_default();
                if is_equal {
                    compared.equal = compared.equal.max(slot);
                    // Equal again: it has built its state anew.
                    compared.differs = compared.differs.filter(|differs| *differs > slot);
                } else {
                    compared.differs.get_or_insert(slot);
                }
            }
        }
    }

    /// A leader concludes from what it was told at which slot a quorum agrees with it, and whether one contradicts it.
    pub fn judge(&mut self, membership: &Membership, own: NodeId) {
        let others = membership.voters().iter().filter(|node| **node != own);
        let mut equal: Vec<Slot> = others.map(|node| self.peer(*node).equal).collect();
        equal.sort_unstable_by(|a, b| b.cmp(a));
        // This node and so many others are a quorum: the last of them has come so far. (One node agrees with itself.)
        let last = membership.quorum(self.last).checked_sub(2);
        let agreed = last.and_then(|last| equal.get(last).copied()).unwrap_or_default();
        if agreed > self.agreed.0
            && let Some(digest) = self.of(agreed)
        {
            self.agreed = (agreed, digest);
        }
        let doubted: Vec<Slot> = self.doubted().map(|(_, slot)| slot).collect();
        if membership.suffice(self.last, doubted.len()) {
            self.diverged = self.diverged.or(doubted.into_iter().min());
        }
    }

    /// Whether anything was compared since the last call.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What this node knows of its own state.
    pub fn health(&self) -> Health {
        if self.differing == 0 {
            return Health::Sound; // asked for with every request: nothing is looked through that never was otherwise
        }
        if let Some(slot) = self.diverged {
            return Health::Diverged { slot };
        }
        let first = self.doubted().min_by_key(|(_, slot)| *slot);
        first.map_or(Health::Sound, |(peer, slot)| Health::Suspect { slot, peer })
    }

    /// Whether this node is known to be wrong.
    pub fn is_diverged(&self) -> bool {
        self.diverged.is_some()
    }

    /// The highest slot at which a quorum, this node included, is known to agree, and the digest there.
    pub fn agreed(&self) -> (Slot, u64) {
        self.agreed
    }

    /// The newest own digest, and its slot.
    pub fn newest(&self) -> (Slot, u64) {
        (self.last, self.recent.back().copied().unwrap_or_default())
    }

    /// The first slot whose digest is still known.
    pub fn first(&self) -> Slot {
        Slot((self.last.0 + 1).saturating_sub(self.recent.len() as u64))
    }

    /// This node's digest at `slot`, if it is known.
    pub fn of(&self, slot: Slot) -> Option<u64> {
        let index = slot.0.checked_sub(self.first().0)?;
        self.recent.get(usize::try_from(index).ok()?).copied()
    }

    /// How often digests were compared, and how often they differed.
    pub fn counts(&self) -> (u64, u64) {
        (self.compared, self.differing)
    }

    /// Peers that differ where no quorum is known to agree with this node.
    fn doubted(&self) -> impl Iterator<Item = (NodeId, Slot)> + '_ {
        let differing = self
            .peers
            .iter()
            .filter_map(|(node, peer)| Some((*node, peer.differs?)));
        differing.filter(|(_, slot)| *slot > self.agreed.0)
    }

    fn peer(&self, node: NodeId) -> Compared {
        self.peers.get(&node).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);
    const N3: NodeId = NodeId(3);

    fn three() -> Membership {
        Membership::founding([N1, N2, N3])
    }

    /// A node that has applied ten slots with the digests 101 to 110.
    fn applied() -> Digests {
        let mut digests = Digests::default();
        (1..=10).for_each(|slot| digests.note(Slot(slot), 100 + slot));
        digests
    }

    #[test]
    fn a_peer_ahead_is_compared_once_its_slot_is_applied_and_an_old_one_is_not_missed() {
        let mut digests = applied();
        digests.told_by(N2, Slot(12), 112);
        digests.told_by(N2, Slot(15), 0); // newer, and would never be reached if such words replaced each other
        assert_eq!(digests.counts(), (0, 0));
        digests.note(Slot(11), 111);
        digests.note(Slot(12), 112);
        assert_eq!(digests.counts(), (1, 0));
        digests.told_by(N3, Slot(3), 103);
        assert_eq!(digests.counts(), (2, 0));
        assert_eq!(digests.health(), Health::Sound);
    }

    #[test]
    fn only_recent_slots_are_kept_and_a_state_that_comes_as_a_whole_begins_anew() {
        let mut digests = Digests::default();
        (1..=DIGESTS_KEPT as u64 + 5).for_each(|slot| digests.note(Slot(slot), slot));
        assert_eq!(
            (digests.first(), digests.of(Slot(5)), digests.of(Slot(6))),
            (Slot(6), None, Some(6))
        );
        digests.note(Slot(9000), 1);
        assert_eq!((digests.first(), digests.newest()), (Slot(9000), (Slot(9000), 1)));
    }

    #[test]
    fn a_leader_with_a_quorum_behind_it_is_sound_and_the_other_one_is_told() {
        let mut leader = applied();
        leader.told_by(N3, Slot(8), 0);
        leader.judge(&three(), N1);
        let suspect = Health::Suspect {
            slot: Slot(8),
            peer: N3,
        };
        assert_eq!(leader.health(), suspect, "n2 has not been heard");
        leader.told_by(N2, Slot(7), 107);
        leader.judge(&three(), N1);
        assert_eq!(
            leader.health(),
            suspect,
            "n2 agreed before the difference, which proves nothing after it"
        );
        leader.told_by(N2, Slot(9), 109);
        leader.judge(&three(), N1);
        assert_eq!((leader.health(), leader.agreed()), (Health::Sound, (Slot(9), 109)));
        // n3, who applied another thing in slot 8, hears of it.
        let mut n3 = Digests::default();
        (1..=7).for_each(|slot| n3.note(Slot(slot), 100 + slot));
        (8..=10).for_each(|slot| n3.note(Slot(slot), 200 + slot));
        n3.told_by(N1, Slot(10), 110);
        assert_eq!(
            n3.health(),
            Health::Suspect {
                slot: Slot(10),
                peer: N1
            }
        );
        n3.told_of_quorum(Slot(9), 109);
        assert_eq!(n3.health(), Health::Diverged { slot: Slot(9) });
    }

    #[test]
    fn a_leader_that_differs_from_a_quorum_is_the_wrong_one_and_its_followers_come_to_know_it() {
        let mut leader = applied();
        leader.told_by(N2, Slot(6), 0);
        leader.told_by(N3, Slot(8), 0);
        leader.judge(&three(), N1);
        assert_eq!(leader.health(), Health::Diverged { slot: Slot(6) });
        let mut n2 = applied();
        n2.told_by(N1, Slot(9), 0);
        assert!(matches!(n2.health(), Health::Suspect { .. }));
        // The next leader agrees with n2, and says so.
        n2.told_of_quorum(Slot(10), 110);
        assert_eq!(n2.health(), Health::Sound);
    }

    #[test]
    fn a_peer_that_is_equal_again_has_built_its_state_anew() {
        let mut digests = applied();
        digests.told_by(N2, Slot(4), 0);
        digests.told_by(N2, Slot(9), 109);
        assert_eq!(digests.health(), Health::Sound);
    }

    #[test]
    fn a_cluster_of_one_has_nobody_to_differ_from() {
        let mut digests = applied();
        digests.judge(&Membership::founding([N1]), N1);
        assert_eq!(digests.health(), Health::Sound);
    }
}
