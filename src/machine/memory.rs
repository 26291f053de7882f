//! Memory: how a node finds out that it lost what it promised, and the new life that it takes then (`rules.md` 2).
//!
//! Its peers remember the newest life and start of it that they met, and say so in HELLO. A start that is not among its own,
//! or another life, shows that this directory is not the one that promised. The node then takes the next generation
//! above all that enough peers remember, with a fresh token, and recovers under it (`paxos::recovery`). Invariants:
//! * F4. A node whose memory is lost does not vote, at later starts either, until a new life of it has recovered.
//! * F7. A new life is of a generation above all that the witnesses remember, and durable before anybody is told of it.
//! * F8. A node whose memory the witnesses confirmed, and which then hears of a newer life of its id, takes none itself:
//!   another process works under its id, and one of the two is too many.

use crate::paxos::{Incarnation, NodeId};
use crate::wire::RosterEntry;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Keeps tokens and nonces apart from what else is drawn from a node's seed.
const STREAM: u64 = 0x6d65_6d6f_7279_0001;

/// What this node knows of its own memory.
#[derive(Debug)]
pub(super) struct Memory {
    state: State,
    /// The newest life of this node that each founded peer remembers, as its HELLO said in this process.
    told: BTreeMap<NodeId, Incarnation>,
    /// Peers whose HELLO, in this process, remembered a life and start of this node's own.
    confirmed: BTreeSet<NodeId>,
    /// The newest generation of this node that votes of others named.
    heard: u32,
    /// How many peers are witnesses enough.
    needed: usize,
    rng: Rng,
}

#[derive(Debug)]
enum State {
    /// Nothing contradicts it.
    Whole,
    /// It is gone; the record of this number says so (0: it shows without one).
    Lost { reason: String, mark: u64 },
    /// A new life is on its way to the disk.
    Takes {
        reason: String,
        incarnation: Incarnation,
        record: u64,
    },
    /// F8.
    Superseded { reason: String },
}

/// What a peer's word about this node shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Fine,
    /// This is not the memory that promised.
    Lost,
    /// Another process has taken a newer life.
    Superseded,
}

impl Memory {
    pub(super) fn new(needed: usize, seed: u64) -> Memory {
        Memory {
            state: State::Whole,
            told: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            heard: 0,
            needed,
            rng: Rng::with_seed(seed ^ STREAM),
        }
    }

    /// Why this node must not vote, if its memory is lost.
    pub(super) fn lost(&self) -> Option<&str> {
        match &self.state {
            State::Whole => None,
            State::Lost { reason, .. } | State::Takes { reason, .. } | State::Superseded { reason } => Some(reason),
        }
    }

    /// Whether it is lost, and a new life may be taken.
    pub(super) fn wants_life(&self) -> bool {
        matches!(self.state, State::Lost { .. })
    }

    /// Whether nothing may be sent: that the memory is lost is not durable yet, and a peer that hears of this start might
    /// put it in the place of the one that shows so (F5 of its side).
    pub(super) fn is_silent(&self, synced: u64) -> bool {
        match self.state {
            State::Lost { mark, .. } => mark > synced,
            State::Takes { .. } => true,
            State::Whole | State::Superseded { .. } => false,
        }
    }

    /// The peers that remember this node, as far as they were met, and how many are needed.
    pub(super) fn witnesses(&self) -> (Vec<NodeId>, usize) {
        (self.told.keys().copied().collect(), self.needed)
    }

    /// A founded peer remembers this life of this node, whose present one is `own`; `is_own_start`: and a start of it that
    /// this directory knows.
    pub(super) fn hear(&mut self, from: NodeId, told: Incarnation, is_own_start: bool, own: Incarnation) -> Verdict {
        let highest = self.told.entry(from).or_insert(told);
        *highest = (*highest).max(told);
        let is_own = told == own && is_own_start;
        if is_own {
            self.confirmed.insert(from);
        }
        match self.judge(own) {
            Verdict::Fine if told == own && !is_own => self.if_whole(Verdict::Lost),
            verdict => verdict,
        }
    }

    /// A vote named a newer generation of this node.
    pub(super) fn hear_generation(&mut self, generation: u32, own: Incarnation) -> Verdict {
        self.heard = self.heard.max(generation);
        self.judge(own)
    }

    /// Another life of the same generation is a conflict: this node takes the next. A newer one: see F8.
    fn judge(&self, own: Incarnation) -> Verdict {
        let others = self.told.values().filter(|told| **told != own);
        let highest = others.map(|told| told.generation).max().unwrap_or_default();
        let highest = if self.heard > own.generation {
            highest.max(self.heard)
        } else {
            highest
        };
        if highest > own.generation && self.confirmed.len() >= self.needed {
            self.if_whole(Verdict::Superseded)
        } else if highest >= own.generation {
            self.if_whole(Verdict::Lost)
        } else {
            Verdict::Fine
        }
    }

    /// What is lost already is not lost again.
    fn if_whole(&self, verdict: Verdict) -> Verdict {
        match self.state {
            State::Whole => verdict,
            State::Lost { .. } | State::Takes { .. } | State::Superseded { .. } => Verdict::Fine,
        }
    }

    /// The memory is lost; `mark` is the number of the record that says so, 0 if it shows without one.
    pub(super) fn lose(&mut self, reason: String, mark: u64) {
        if matches!(self.state, State::Whole) {
            self.state = State::Lost { reason, mark };
        }
    }

    /// F8.
    pub(super) fn supersede(&mut self, reason: String) {
        if matches!(self.state, State::Whole) {
            self.state = State::Superseded { reason };
        }
    }

    /// The life to take now, if the memory is lost and enough peers said what they remember.
    pub(super) fn next_life(&mut self, own: Incarnation, roster: &[RosterEntry], node: NodeId) -> Option<Incarnation> {
        if !self.wants_life() || self.told.len() < self.needed {
            return None;
        }
        let founded = roster.iter().find(|entry| entry.node == node);
        let known = self.told.values().chain(founded.map(|entry| &entry.incarnation));
        let highest = known.map(|life| life.generation).max().unwrap_or_default();
        Some(Incarnation {
            generation: highest.max(own.generation).max(self.heard) + 1,
            token: self.rng.u64(..),
        })
    }

    /// `record` takes `incarnation` to the disk.
    pub(super) fn take(&mut self, incarnation: Incarnation, record: u64) {
        if let State::Lost { reason, .. } = &mut self.state {
            let reason = std::mem::take(reason);
            self.state = State::Takes {
                reason,
                incarnation,
                record,
            };
        }
    }

    /// The new life, once it is durable: the memory counts as whole again, and is to be recovered.
    pub(super) fn begun(&mut self, synced: u64) -> Option<Incarnation> {
        match self.state {
            State::Takes {
                incarnation, record, ..
            } if record <= synced => {
                self.state = State::Whole;
                self.confirmed.clear();
                Some(incarnation)
            }
            _ => None,
        }
    }

    /// From the disk: a life was taken after the loss.
    pub(super) fn recover_life(&mut self) {
        self.state = State::Whole;
    }

    /// Drawn anew for each recovery.
    pub(super) fn nonce(&mut self) -> u64 {
        self.rng.u64(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N1: NodeId = NodeId(1);
    const N2: NodeId = NodeId(2);
    const N3: NodeId = NodeId(3);

    fn life(generation: u32, token: u64) -> Incarnation {
        Incarnation { generation, token }
    }

    #[test]
    fn a_lost_memory_takes_the_next_generation_once_enough_peers_were_heard() {
        let mut memory = Memory::new(2, 1);
        let own = life(1, 10);
        assert_eq!(memory.hear(N1, life(4, 44), false, own), Verdict::Lost);
        memory.lose("n1 remembers another".into(), 7);
        assert!(memory.is_silent(6) && !memory.is_silent(7));
        assert_eq!(memory.next_life(own, &[], N3), None, "one of two");
        assert_eq!(memory.hear(N2, life(2, 22), false, own), Verdict::Fine);
        let next = memory.next_life(own, &[], N3).expect("two of two");
        assert_eq!(next.generation, 5);
        memory.take(next, 9);
        assert!(memory.lost().is_some() && memory.begun(8).is_none());
        assert_eq!(memory.begun(9), Some(next));
        assert_eq!(memory.lost(), None);
    }

    #[test]
    fn one_generation_with_two_tokens_is_a_conflict_and_the_next_is_taken() {
        let mut memory = Memory::new(2, 1);
        let own = life(2, 20);
        memory.hear(N1, own, true, own);
        memory.hear(N2, own, true, own);
        assert_eq!(memory.hear(N3, life(2, 21), false, own), Verdict::Lost);
    }

    #[test]
    fn a_confirmed_memory_that_hears_of_a_newer_life_takes_none_itself() {
        let own = life(1, 10);
        let mut memory = Memory::new(2, 1);
        memory.hear(N1, own, true, own);
        memory.hear(N2, own, true, own);
        assert_eq!(memory.hear(N3, life(2, 21), false, own), Verdict::Superseded);
        let mut stranger = Memory::new(2, 1);
        assert_eq!(stranger.hear_generation(2, own), Verdict::Lost, "nobody confirmed it");
    }
}
