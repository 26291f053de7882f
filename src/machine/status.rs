//! What `status` shows: plain data, read from the machine, for the debug port, STATUS and `synod status`.

use super::damage::ScrubView;
use super::install::InstallView;
use super::leases::LeaseView;
use super::machine::Machine;
use super::positions::PositionCounts;
use super::snapshot::SnapshotView;
use crate::paxos::{Ballot, Health, NodeId, Slot, Stance};
use crate::time::Time;
use std::time::Duration;

/// Most findings of damage that are kept to be shown and counted as repaired; what is found beyond is told in the log alone.
pub(super) const DAMAGE_FINDINGS_MAX: usize = 64;

/// Damage that was found in a file of this node's, and that the node outlived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageFinding {
    /// Which file, by its path.
    pub file: String,
    /// Where in it, bytes from its beginning.
    pub offset: u64,
    /// What of the file: one of the names of `storage::DamageKind`, or `missing`.
    pub kind: &'static str,
    /// What is wrong there.
    pub what: String,
}

/// One look at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// `leader`, `candidate` or `follower`.
    pub role: &'static str,
    /// The leader that it knows.
    pub leader: Option<NodeId>,
    /// The ballot that it leads or follows at; zero if neither.
    pub ballot: Ballot,
    /// The highest ballot that its acceptor has promised; zero while the acceptor is failed.
    pub promised: Ballot,
    /// The highest ballot that it used itself.
    pub used: Ballot,
    /// First slot free for a new entry, as far as it knows.
    pub first_open: Slot,
    /// End of the prefix known as chosen.
    pub chosen: Slot,
    /// End of the prefix applied.
    pub applied: Slot,
    /// The store's revision.
    pub revision: u64,
    /// Digest of the log and its effects up to `applied`.
    pub digest: u64,
    /// Digest of the content, whatever the way to it.
    pub content: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Keys in the store.
    pub keys: usize,
    /// Sessions in the table.
    pub sessions: usize,
    /// Peers to whom it can send.
    pub peers_up: Vec<NodeId>,
    /// Whether the cluster is founded.
    pub founded: bool,
    /// The cluster's id; 0 while no roster is held.
    pub cluster_id: u64,
    /// Nodes that it waits for to be founded.
    pub waits_for: Vec<NodeId>,
    /// Whether it votes.
    pub voter: bool,
    /// Why, or why not.
    pub voter_reason: String,
    /// Generation of its incarnation: 1, and one more each time that it lost its memory.
    pub generation: u32,
    /// The first slot at which its state was seen to differ from a peer's or a quorum's, while it does not serve for it.
    pub diverged: Option<Slot>,
    /// From whom, and what is known of it.
    pub diverged_reason: String,
    /// Whether its acceptor is up (see fault injection).
    pub acceptor_up: bool,
    /// Whether, leading, it heard a quorum within the election timeout; following: whether it hears its leader.
    pub has_quorum: bool,
    /// Slots open at its ballot.
    pub open_slots: usize,
    /// Bytes of the entries in them.
    pub open_bytes: usize,
    /// Writes waiting to be proposed.
    pub queued_writes: usize,
    /// Bytes of those.
    pub queued_bytes: usize,
    /// Reads waiting.
    pub waiting_reads: usize,
    /// Leases: their length, and what it grants and holds of them.
    pub leases: LeaseView,
    /// Reads that a lease confirmed since the start.
    pub lease_reads: u64,
    /// Read positions, asked for and told.
    pub positions: PositionCounts,
    /// Requests forwarded and not answered yet.
    pub relays: usize,
    /// Free bytes on its disk, as last told.
    pub free_bytes: u64,
    /// Its snapshots.
    pub snapshots: SnapshotView,
    /// Damage in its files that is not repaired, the first found first.
    pub damage: Vec<DamageFinding>,
    /// How far the scrub has come.
    pub scrub: ScrubView,
    /// The snapshot that it fetches.
    pub installing: Option<InstallView>,
    /// Time since it started.
    pub uptime: Duration,
    /// What a leader last heard of each follower: end of its prefix, and how long ago.
    pub followers: Vec<(NodeId, Slot, Duration)>,
}

impl Machine {
    /// One look at this node.
    pub fn status(&self, now: Time) -> Status {
        let replica = &self.replica;
        let role = match replica.stance() {
            Stance::Leader(_) => "leader",
            Stance::Candidate { .. } => "candidate",
            Stance::Follower => "follower",
        };
        let (open_slots, open_bytes) = replica.open_size();
        Status {
            id: self.settings.node,
            role,
            leader: replica.leader().map(|ballot| ballot.node),
            ballot: replica.leader().unwrap_or(Ballot::ZERO),
            promised: replica.promised(),
            used: replica.used(),
            first_open: replica.first_open(),
            chosen: replica.learner().chosen_upto(),
            applied: self.state.applied(),
            revision: self.state.revision(),
            digest: self.state.digest(),
            content: self.state.content(),
            bytes: self.state.bytes(),
            keys: self.state.keys(),
            sessions: self.state.sessions(),
            peers_up: self.links_up.iter().copied().collect(),
            founded: self.founding.is_founded(),
            cluster_id: self.founding.cluster_id(),
            waits_for: self.founding.waits_for(),
            voter: replica.votes(),
            voter_reason: self.voter_reason(),
            generation: self.founding.incarnation().generation,
            diverged: match replica.digests().health() {
                Health::Sound => None,
                Health::Suspect { slot, .. } | Health::Diverged { slot } => Some(slot),
            },
            diverged_reason: self.diverged_reason(),
            acceptor_up: replica.acceptor().is_some(),
            has_quorum: self.has_quorum(now),
            open_slots,
            open_bytes,
            queued_writes: self.queue.len(),
            queued_bytes: self.queue.bytes(),
            waiting_reads: self.reads.len(),
            leases: self.leases(),
            lease_reads: self.lease_reads,
            positions: self.positions,
            relays: self.relays.len(),
            free_bytes: self.free_bytes,
            snapshots: self.snapshots.clone(),
            damage: self.damage.clone(),
            scrub: self.scrub,
            installing: self.install_view(),
            uptime: now.since(self.started),
            followers: replica
                .peer_progress()
                .into_iter()
                .map(|(node, peer)| (node, peer.chosen_upto, now.since(peer.heard_at)))
                .collect(),
        }
    }

    fn has_quorum(&self, now: Time) -> bool {
        match self.replica.stance() {
            Stance::Leader(_) => self.replica.hears_quorum(now),
            _ => {
                let election = self.replica.election();
                self.replica.leader().is_some() && now.since(election.heard_at()) < self.settings.election_timeout
            }
        }
    }

    fn diverged_reason(&self) -> String {
        match self.replica.digests().health() {
            Health::Sound => "no digest differs".into(),
            Health::Suspect { peer, .. } => {
                format!("it differs from {peer}; no quorum has shown yet who is wrong, so it serves nobody")
            }
            Health::Diverged { .. } => {
                "it differs from a quorum: start it again; if it diverges again, give it an empty data directory".into()
            }
        }
    }

    fn voter_reason(&self) -> String {
        if self.founding.memory().lost().is_some() {
            self.memory_words()
        } else if !self.founding.is_founded() {
            "the cluster is not founded yet".into()
        } else if self.replica.digests().is_diverged() {
            "its state differs from a quorum's".into()
        } else if self.replica.acceptor().is_none() {
            "its acceptor is failed (fault injection)".into()
        } else {
            self.memory_words()
        }
    }
}
