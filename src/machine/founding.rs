//! Founding and identity: how a cluster comes to be once, and how a node finds out that it lost its memory.
//!
//! `rules.md` 1 and 2. A cluster is founded once, with all listed nodes up: each meets all others, writes the roster of
//! their incarnations to its disk, and confirms it to all; a node that has all confirmations of the roster on its own
//! disk writes *founded*, for ever. A founded node's word founds all whom its roster names with their present
//! incarnation. From then on a majority serves. Invariants:
//! * F1. Only confirmations of the one roster on this node's disk count, and a confirmation is durable before it is told.
//! * F2. *Founded* is never dropped; no node votes before it.
//! * F3. A roster once replaced is taken again only at a founded node's word.
//! * F4. A node whose remembered start is not among its own has lost its memory, and does not vote.

use crate::paxos::{Incarnation, NodeId, Start};
use crate::wire::hello::{Base, HelloKind, NodeHello, cluster_id};
use crate::wire::message::ErrorCode;
use crate::wire::{Hello, Record, RosterEntry, hello};
use std::collections::{BTreeMap, BTreeSet};

/// Who this node is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) cluster_name: String,
    pub(super) incarnation: Incarnation,
    pub(super) start: Start,
    pub(super) past_starts: BTreeSet<Start>,
    pub(super) base: Base,
    pub(super) advertise: String,
    pub(super) debug: String,
}

/// The state of founding, and what this node remembers of its peers.
#[derive(Debug)]
pub(super) struct Founding {
    identity: Identity,
    listed: BTreeSet<NodeId>,
    /// Who was met in this life, with what memory.
    met: BTreeMap<NodeId, (Incarnation, Base)>,
    roster: Vec<RosterEntry>,
    /// F1: the roster is told, and confirmations of it count, once this record is durable.
    roster_record: u64,
    /// F3: ids of rosters that were replaced.
    abandoned: BTreeSet<u64>,
    confirmed: BTreeSet<NodeId>,
    founded_record: Option<u64>,
    peers: BTreeMap<NodeId, Remembered>,
    lost: Option<String>,
    /// F4: the record that says that a peer remembers a start of this node which is none of its own.
    strange_start: Option<Record>,
    synced: u64,
}

/// The newest life and start of a peer that this node met, and the record that keeps it.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    incarnation: Incarnation,
    start: Start,
    record: u64,
}

impl Remembered {
    /// Whether `peer` tells of a newer life or start. One directory counts its starts up: who comes with as low a count
    /// and another token is an old copy, and what it lacks stays remembered.
    fn is_older_than(&self, peer: &NodeHello) -> bool {
        self.incarnation != peer.incarnation || self.start.counter < peer.start.counter
    }
}

/// Records that a step of founding wants written, in order; the caller numbers them.
pub(super) type Records = Vec<Record>;

impl Founding {
    pub(super) fn new(identity: Identity, listed: BTreeSet<NodeId>) -> Founding {
        Founding {
            identity,
            listed,
            met: BTreeMap::new(),
            roster: Vec::new(),
            roster_record: 0,
            abandoned: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            founded_record: None,
            peers: BTreeMap::new(),
            lost: None,
            strange_start: None,
            synced: 0,
        }
    }

    /// Takes a durable record back.
    pub(super) fn recover(&mut self, record: Record) {
        match record {
            Record::Roster(roster) => self.replace_roster(roster),
            Record::Founded => self.founded_record = Some(0),
            Record::Peer { node, start, .. } if node == self.identity.node => {
                self.strange_start = Some(record);
                self.lose_memory(format!(
                    "an earlier start of it was told that a peer remembers start {start}, which is not in its data \
                     directory: this is an old copy, or two processes run on copies of one"
                ));
            }
            Record::Peer {
                node,
                incarnation,
                start,
            } => {
                self.peers.insert(
                    node,
                    Remembered {
                        incarnation,
                        start,
                        record: 0,
                    },
                );
            }
            _ => {}
        }
    }

    /// All that must stand anew in the log before the records that brought it are taken away.
    pub(super) fn carried(&self) -> Records {
        let mut records = Records::new();
        if !self.roster.is_empty() {
            records.push(Record::Roster(self.roster.clone()));
        }
        if self.founded_record.is_some() {
            records.push(Record::Founded);
        }
        records.extend(self.peers.iter().map(|(node, peer)| Record::Peer {
            node: *node,
            incarnation: peer.incarnation,
            start: peer.start,
        }));
        records.extend(self.strange_start.clone());
        records
    }

    /// After recovery: a cluster of one founds itself.
    pub(super) fn start(&mut self, written: u64) -> Records {
        self.propose_roster(written)
    }

    /// Whether *founded* is durable.
    pub(super) fn is_founded(&self) -> bool {
        self.founded_record.is_some_and(|record| record <= self.synced)
    }

    /// Why this node must not vote, if it lost its memory.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The cluster's id, once a roster is held; else 0.
    pub(super) fn cluster_id(&self) -> u64 {
        if self.roster.is_empty() {
            0
        } else {
            cluster_id(&self.identity.cluster_name, &self.roster)
        }
    }

    /// The roster to confirm to peers, and whether the cluster is founded; only what is durable (F1).
    pub(super) fn told(&self) -> Option<(bool, Vec<RosterEntry>)> {
        self.holds_durable_roster()
            .then(|| (self.is_founded(), self.roster.clone()))
    }

    /// Nodes not yet met or not yet confirming; nobody once founded.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        if self.founded_record.is_some() {
            return Vec::new();
        }
        let others = self.listed.iter().filter(|node| **node != self.identity.node);
        others.filter(|node| !self.confirmed.contains(node)).copied().collect()
    }

    /// All records up to this one are durable. True if peers are to be told something new.
    pub(super) fn synced(&mut self, up_to: u64) -> bool {
        let told = |founding: &Founding| (founding.holds_durable_roster(), founding.is_founded());
        let before = told(self);
        self.synced = up_to;
        told(self) != before
    }

    fn holds_durable_roster(&self) -> bool {
        !self.roster.is_empty() && self.roster_record <= self.synced
    }

    /// Peers whose present life became durable here by record `up_to`, and was not told yet.
    pub(super) fn newly_known(&mut self, up_to: u64) -> Vec<(NodeId, Incarnation)> {
        let mut known = Vec::new();
        for (node, peer) in &mut self.peers {
            if peer.record != 0 && peer.record <= up_to {
                peer.record = 0;
                known.push((*node, peer.incarnation));
            }
        }
        known
    }

    /// Every peer remembered from the disk.
    pub(super) fn remembered(&self) -> Vec<(NodeId, Incarnation)> {
        self.peers
            .iter()
            .map(|(node, peer)| (*node, peer.incarnation))
            .collect()
    }

    /// This node's own HELLO, to a peer or (`None`) to a client.
    pub(super) fn hello_to(&self, peer: Option<NodeId>) -> Hello {
        let remembered = peer
            .and_then(|node| self.peers.get(&node))
            .map(|peer| (peer.incarnation, peer.start));
        let (founded, roster) = self.told().unwrap_or_default();
        Hello {
            version_min: hello::PROTOCOL_VERSION_MIN,
            version_max: hello::PROTOCOL_VERSION_MAX,
            features: hello::FEATURES,
            cluster_name: self.identity.cluster_name.clone(),
            cluster_id: if roster.is_empty() { 0 } else { self.cluster_id() },
            kind: HelloKind::Node(NodeHello {
                node: self.identity.node,
                incarnation: self.identity.incarnation,
                start: self.identity.start,
                remembered,
                founded,
                advertise: self.identity.advertise.clone(),
                debug: self.identity.debug.clone(),
                listed: self.listed.iter().copied().collect(),
                base: self.identity.base,
                roster,
            }),
        }
    }

    /// Whether a peer's HELLO may pass: who it is, which cluster, which memory.
    ///
    /// # Errors
    /// The code and words with which the connection is refused; nothing has changed.
    pub(super) fn check_hello(&self, hello: &Hello) -> Result<(), (ErrorCode, String)> {
        let refuse = |code, words: String| Err((code, words));
        let HelloKind::Node(peer) = &hello.kind else {
            return Ok(());
        };
        let node = peer.node;
        if hello.cluster_name != self.identity.cluster_name {
            let own = &self.identity.cluster_name;
            return refuse(
                ErrorCode::WrongCluster,
                format!("cluster \"{}\", this is \"{own}\"", hello.cluster_name),
            );
        }
        if node == self.identity.node {
            return refuse(ErrorCode::OwnId, format!("node id {} is this node's own", node.0));
        }
        if !self.listed.contains(&node) {
            return refuse(
                ErrorCode::UnknownNode,
                format!("node id {} is not of this cluster", node.0),
            );
        }
        if self.founded_record.is_some() {
            self.check_founded(hello, peer)
        } else {
            self.check_unfounded(hello, peer)
        }
    }

    fn check_founded(&self, hello: &Hello, peer: &NodeHello) -> Result<(), (ErrorCode, String)> {
        let own = self.cluster_id();
        if peer.founded && hello.cluster_id != own {
            let words = format!("cluster id {:016x}, this cluster's is {own:016x}", hello.cluster_id);
            return Err((ErrorCode::WrongCluster, words));
        }
        let in_roster = self
            .roster
            .iter()
            .find(|entry| entry.node == peer.node)
            .map(|entry| entry.incarnation);
        let known = self.peers.get(&peer.node).map(|known| known.incarnation).max(in_roster);
        match known {
            // A newer generation is a node that lost its memory and says so; the same one with another token is not.
            Some(known) if peer.incarnation != known && peer.incarnation.generation <= known.generation => {
                let words = format!(
                    "n{} comes with incarnation {}, remembered is {known}: its data directory was lost or replaced, \
                     and it must not vote under this id",
                    peer.node.0, peer.incarnation
                );
                Err((ErrorCode::WrongIncarnation, words))
            }
            _ => Ok(()),
        }
    }

    fn check_unfounded(&self, hello: &Hello, peer: &NodeHello) -> Result<(), (ErrorCode, String)> {
        if peer.founded {
            let mine = peer.roster.iter().find(|entry| entry.node == self.identity.node);
            return match mine {
                Some(_) => Ok(()), // adopted, or shows that this node lost its memory
                None => Err((
                    ErrorCode::WrongRoster,
                    format!("founded cluster {:016x} without this node", hello.cluster_id),
                )),
            };
        }
        if peer.listed.iter().copied().collect::<BTreeSet<_>>() != self.listed {
            let words = format!(
                "its --cluster lists {:?}, this node's {:?}",
                ids(&peer.listed),
                ids(&self.listed)
            );
            return Err((ErrorCode::WrongRoster, words));
        }
        if peer.base != self.identity.base {
            return Err((
                ErrorCode::WrongRoster,
                "its log begins elsewhere (restored from another backup?)".into(),
            ));
        }
        let with_it = self.roster_with(peer.node, peer.incarnation, peer.base);
        if with_it.is_some_and(|roster| {
            self.abandoned
                .contains(&cluster_id(&self.identity.cluster_name, &roster))
        }) {
            let words = format!(
                "n{}: two data directories go by this id; keep one of them running",
                peer.node.0
            );
            return Err((ErrorCode::WrongIncarnation, words));
        }
        Ok(())
    }

    /// A peer's HELLO that passed [`Founding::check_hello`]. `written` is the number of the last record so far.
    pub(super) fn on_hello(&mut self, from: NodeId, peer: &NodeHello, written: u64) -> Records {
        let mut records: Records = self.check_own_memory(from, peer).into_iter().collect();
        if self.peers.get(&from).is_none_or(|known| known.is_older_than(peer)) {
            let record = written + records.len() as u64 + 1;
            records.push(Record::Peer {
                node: from,
                incarnation: peer.incarnation,
                start: peer.start,
            });
            let known = Remembered {
                incarnation: peer.incarnation,
                start: peer.start,
                record,
            };
            self.peers.insert(from, known);
        }
        self.met.insert(from, (peer.incarnation, peer.base));
        if !peer.founded && self.founded_record.is_none() {
            records.extend(self.propose_roster(written + records.len() as u64));
        }
        if !peer.roster.is_empty() {
            records.extend(self.on_roster(from, peer.founded, &peer.roster, written + records.len() as u64));
        }
        records
    }

    /// What a peer remembers of this node must be of this node's own past (F4). That it is not is written down, as what is
    /// remembered of this node itself: the peer may remember this very start by the next one.
    fn check_own_memory(&mut self, from: NodeId, peer: &NodeHello) -> Option<Record> {
        let (incarnation, start) = peer.remembered?;
        let identity = &self.identity;
        if incarnation != identity.incarnation {
            // While nobody is founded a new directory makes a new roster, and nothing was promised yet.
            if (peer.founded || self.founded_record.is_some())
                && incarnation.generation >= identity.incarnation.generation
            {
                self.lose_memory(format!(
                    "{from} remembers this node with incarnation {incarnation}, not {}: the data directory was lost or replaced",
                    identity.incarnation
                ));
            }
        } else if start != identity.start && !identity.past_starts.contains(&start) {
            self.lose_memory(format!(
                "{from} remembers start {start} of this node, which is not in its data directory: this is an old copy, \
                 or two processes run on copies of one"
            ));
            self.strange_start = Some(Record::Peer {
                node: self.identity.node,
                incarnation,
                start,
            });
            return self.strange_start.clone();
        }
        None
    }

    fn lose_memory(&mut self, reason: String) {
        self.lost.get_or_insert(reason);
    }

    /// The roster that a peer holds on its disk, and whether it knows the cluster as founded.
    pub(super) fn on_roster(&mut self, from: NodeId, founded: bool, roster: &[RosterEntry], written: u64) -> Records {
        if self.founded_record.is_some() || self.lost.is_some() {
            return Records::new();
        }
        if founded {
            return self.adopt(from, roster, written);
        }
        if !self.roster.is_empty() && roster == self.roster {
            self.confirmed.insert(from);
        }
        self.found_if_confirmed(written)
    }

    /// A founded node's word founds whom its roster names with the present incarnation.
    fn adopt(&mut self, from: NodeId, roster: &[RosterEntry], written: u64) -> Records {
        let Some(own) = roster.iter().find(|entry| entry.node == self.identity.node) else {
            return Records::new();
        };
        if own.incarnation != self.identity.incarnation {
            self.lose_memory(format!(
                "{from} knows the cluster as founded with incarnation {} of this node, not {}: the data directory was lost or replaced",
                own.incarnation, self.identity.incarnation
            ));
            return Records::new();
        }
        let mut records = Records::new();
        if self.roster != roster {
            self.replace_roster(roster.to_vec());
            self.roster_record = written + 1;
            records.push(Record::Roster(roster.to_vec()));
        }
        records.push(Record::Founded);
        self.founded_record = Some(written + records.len() as u64);
        records
    }

    /// Makes the roster of all whom this node has met, once it has met all.
    fn propose_roster(&mut self, written: u64) -> Records {
        let Some(roster) = self.roster_with(self.identity.node, self.identity.incarnation, self.identity.base) else {
            return Records::new();
        };
        if self.founded_record.is_some() || roster == self.roster {
            return Records::new();
        }
        self.replace_roster(roster.clone());
        self.roster_record = written + 1;
        let mut records = vec![Record::Roster(roster)];
        records.extend(self.found_if_confirmed(written + 1)); // a cluster of one
        records
    }

    /// All confirmations of the roster on this node's disk are in.
    fn found_if_confirmed(&mut self, written: u64) -> Records {
        if self.roster.is_empty() || self.founded_record.is_some() || !self.waits_for().is_empty() {
            return Records::new();
        }
        self.founded_record = Some(written + 1);
        vec![Record::Founded]
    }

    /// The roster of all met with `node` as given; `None` while somebody was not met.
    fn roster_with(&self, node: NodeId, incarnation: Incarnation, base: Base) -> Option<Vec<RosterEntry>> {
        let own = (self.identity.node, (self.identity.incarnation, self.identity.base));
        let mut all = self.met.clone();
        all.extend([own, (node, (incarnation, base))]);
        let entry = |node: &NodeId| {
            all.get(node).map(|(incarnation, base)| RosterEntry {
                node: *node,
                incarnation: *incarnation,
                base: *base,
            })
        };
        self.listed.iter().map(entry).collect()
    }

    fn replace_roster(&mut self, roster: Vec<RosterEntry>) {
        if !self.roster.is_empty() && self.roster != roster {
            self.abandoned.insert(self.cluster_id());
        }
        self.roster = roster;
        self.confirmed.clear();
    }
}

fn ids<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<u16> {
    nodes.into_iter().map(|node| node.0).collect()
}
