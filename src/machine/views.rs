//! What the debug port shows beside [`Status`](super::Status): slots, timers, and what stands in the way of a write.
//!
//! Reads only. Nothing here decides anything, and no decision asks it.

use super::machine::Machine;
use crate::kv::Command;
use crate::kv::session::SessionView;
use crate::paxos::{Ballot, Entry, EntryKind, NodeId, Slot, Stance};
use crate::time::Time;
use crate::wire::{Code, body};

/// One slot, as far as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Which.
    pub slot: Slot,
    /// How far it has come.
    pub state: SlotState,
    /// The ballot at which this node proposed or accepted it, while that is kept.
    pub ballot: Option<Ballot>,
    /// Who has accepted it, where this node leads and has it open.
    pub votes: Vec<NodeId>,
    /// Its entry, if it is in memory.
    pub entry: Option<Entry>,
}

/// How far a slot has come at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Chosen, and applied here.
    Applied,
    /// Known as chosen; applied when all before it are.
    Chosen,
    /// Proposed by this leader; votes are counted.
    Open,
    /// Accepted here; whether it is chosen is not known yet.
    Accepted,
    /// Somebody knows more of it than this node.
    Missing,
}

impl SlotState {
    /// The state's name of one word.
    pub fn name(self) -> &'static str {
        match self {
            SlotState::Applied => "applied",
            SlotState::Chosen => "chosen",
            SlotState::Open => "open",
            SlotState::Accepted => "accepted",
            SlotState::Missing => "missing",
        }
    }
}

impl SlotView {
    /// The commands in the entry; none if it is not in memory or no batch.
    pub fn commands(&self) -> Vec<Command> {
        match &self.entry {
            Some(entry) if entry.kind == EntryKind::Batch => body::commands(entry).unwrap_or_default(),
            Some(_) | None => Vec::new(),
        }
    }
}

impl Machine {
    /// The highest slot that this node has heard of, in whatever state.
    pub fn last_slot(&self) -> Slot {
        let replica = self.replica();
        let accepted = replica
            .acceptor()
            .and_then(|acceptor| acceptor.votes_from(Slot::ZERO).last())
            .map_or(Slot::ZERO, |(slot, _)| slot);
        accepted
            .max(replica.first_open().prev())
            .max(replica.learner().heard_upto())
    }

    /// At most `count` slots from `from` on, up to the last that this node has heard of.
    pub fn slots(&self, from: Slot, count: usize) -> Vec<SlotView> {
        let first = from.0.max(1);
        (first..=self.last_slot().0)
            .take(count)
            .map(|slot| self.slot(Slot(slot)))
            .collect()
    }

    fn slot(&self, slot: Slot) -> SlotView {
        let replica = self.replica();
        let vote = replica.acceptor().and_then(|acceptor| acceptor.vote(slot));
        let open = replica.open_entry(slot);
        let known = replica.learner().entry(slot);
        let state = if slot <= self.state().applied() {
            SlotState::Applied
        } else if replica.learner().knows(slot) {
            SlotState::Chosen
        } else if open.is_some() {
            SlotState::Open
        } else if vote.is_some() {
            SlotState::Accepted
        } else {
            SlotState::Missing
        };
        let proposed_at = open.and(replica.leader());
        SlotView {
            slot,
            state,
            ballot: proposed_at.or(vote.map(|vote| vote.ballot)),
            votes: replica.open_votes(slot).unwrap_or_default(),
            entry: known.or(open).or(vote.map(|vote| &vote.entry)).cloned(),
        }
    }

    /// What this node waits for, and until when.
    pub fn timers(&self) -> Vec<(&'static str, Time)> {
        let mut timers = self.replica().timers();
        timers.extend(self.sweep_at.map(|due| ("request_deadlines", due)));
        timers
    }

    /// What stands in the way of a write at this node, as far as it knows.
    pub fn write_obstacle(&self, now: Time) -> Option<Code> {
        if let Some(code) = self.refuses_now(0) {
            return Some(code);
        }
        match self.replica().stance() {
            Stance::Leader(_) if !self.replica().hears_quorum(now) => Some(Code::NoQuorum),
            Stance::Leader(_) => {
                let reserve = self.settings.disk_reserve;
                let has_room = self.replica().has_room_at_quorum(self.free_bytes, reserve);
                (!has_room).then_some(Code::NoSpace)
            }
            // It goes for a higher ballot, and leads on if a quorum promises.
            Stance::Candidate { keeps_clients: true } => None,
            Stance::Follower | Stance::Candidate { keeps_clients: false } => {
                let is_reachable = self.leader_to_relay_to().is_some();
                (!is_reachable).then(|| self.why_no_leader())
            }
        }
    }

    /// The sessions, the one idle for longest first: each with how long it is idle in log time, milliseconds.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionView, u64)> + '_ {
        let now = self.state().log_time();
        self.state()
            .session_views()
            .map(move |view| (view, now.0.saturating_sub(view.last_time.0)))
    }
}
