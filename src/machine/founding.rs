//! Founding: how a cluster comes to be once, and what HELLO says and hears of who a node is.
//!
//! `rules.md` 1 and 2. A cluster is founded once, with all listed nodes up: each meets all others, writes the roster of
//! their incarnations to its disk, and confirms it to all; a node that has all confirmations of the roster on its own
//! disk writes *founded*, for ever. A founded node's word founds all whom its roster names with their present
//! incarnation. From then on a majority serves. Invariants:
//! * F1. Only confirmations of the one roster on this node's disk count, and a confirmation is durable before it is told.
//! * F2. *Founded* is never dropped; no node votes before it.
//! * F3. A roster once replaced is taken again only at a founded node's word.
//!
//! Not here: whether this node's own memory is whole (`memory`), what it remembers of others (`remembered`).

use super::leases::LeaseLength;
use super::memory::{Memory, Verdict};
use super::remembered::Remembered;
use crate::paxos::{Ballot, Incarnation, Life, Membership, Message, NodeId, Slot, Start};
use crate::wire::frame::FrameType;
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
    /// But for leases.
    pub(super) features: u64,
    pub(super) lease: LeaseLength,
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
    peers: Remembered,
    memory: Memory,
    /// The roster of the founded cluster that this directory was not part of, or has forgotten.
    foreign_roster: Vec<RosterEntry>,
    /// What each peer can do, by the last HELLO since a link with it broke.
    features: BTreeMap<NodeId, u64>,
    /// F4: the record that says that this directory is not the one that voted, until a new life is taken.
    mark_of_loss: Option<Record>,
    /// The newest life that this node took, if it lost its memory before; durable or on its way to the disk.
    life: Option<Incarnation>,
    synced: u64,
}

/// Records that a step of founding wants written, in order; the caller numbers them.
pub(super) type Records = Vec<Record>;

impl Founding {
    /// Before anything is recovered. `seed` is the machine's.
    pub(super) fn new(identity: Identity, members: &Membership, seed: u64) -> Founding {
        let listed = members.voters().iter().copied().collect();
        // A node may be started with one seed again, and a token is drawn once.
        let memory = Memory::new(members.witnesses(), seed ^ identity.start.token.rotate_left(32));
        Founding {
            identity,
            listed,
            met: BTreeMap::new(),
            roster: Vec::new(),
            roster_record: 0,
            abandoned: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            founded_record: None,
            peers: Remembered::default(),
            memory,
            foreign_roster: Vec::new(),
            features: BTreeMap::new(),
            mark_of_loss: None,
            life: None,
            synced: 0,
        }
    }

    /// Takes a durable record back.
    pub(super) fn recover(&mut self, record: Record) {
        match record {
            Record::Lease(ms) => self.identity.lease.recover(ms),
            Record::Roster(roster) => {
                self.identity.lease.recover_roster();
                self.replace_roster(roster);
            }
            Record::Founded => self.founded_record = Some(0),
            Record::Peer { node, start, .. } if node == self.identity.node => {
                self.mark_of_loss = Some(record);
                let reason = match start.counter {
                    0 => "its log was damaged, and is set aside",
                    _ => "an earlier start of it found out that this data directory is not the one that voted",
                };
                self.memory.lose(reason.into(), 0);
            }
            Record::Peer {
                node,
                incarnation,
                start,
            } => self.peers.recover(node, Life { incarnation, start }),
            Record::Life(incarnation) => {
                self.identity.incarnation = incarnation;
                self.memory.recover_life();
                (self.life, self.mark_of_loss) = (Some(incarnation), None);
            }
            _ => {}
        }
    }

    /// Once the log was read back: where the log of this directory begins. That is `restored`, what a backup left there,
    /// unless the roster that it holds says it.
    pub(super) fn begin_behind(&mut self, restored: Option<Base>) {
        let own = self.roster.iter().find(|entry| entry.node == self.identity.node);
        self.identity.base = own.map(|own| own.base).or(restored).unwrap_or(self.identity.base);
    }

    /// All that must stand anew in the log before the records that brought it are taken away.
    /// `has_recovered`: so is the record that the present life has recovered.
    pub(super) fn carried(&self, has_recovered: bool) -> Records {
        let mut records = Records::new();
        records.extend(self.life.map(Record::Life));
        if has_recovered && self.life == Some(self.identity.incarnation) {
            records.push(Record::Recovered);
        }
        // Also while a node that lost its memory holds no roster yet: the length stands in front of whichever it writes next.
        records.extend(self.identity.lease.record());
        if !self.roster.is_empty() {
            records.push(Record::Roster(self.roster.clone()));
        }
        if self.founded_record.is_some() {
            records.push(Record::Founded);
        }
        let peers = self.peers.lives().into_iter();
        records.extend(peers.map(|(node, life)| Record::Peer {
            node,
            incarnation: life.incarnation,
            start: life.start,
        }));
        // Behind the life that lost its memory again.
        records.extend(self.mark_of_loss.clone());
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

    /// The length of the cluster's leases.
    pub(super) fn lease(&self) -> LeaseLength {
        self.identity.lease
    }

    /// This node's own memory.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The incarnation that this node goes by.
    pub(super) fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// Whether nothing may be sent to peers before the next sync (see [`Memory::is_silent`]).
    pub(super) fn is_silent(&self) -> bool {
        self.memory.is_silent(self.synced)
    }

    /// Drawn anew for each recovery.
    pub(super) fn nonce(&mut self) -> u64 {
        self.memory.nonce()
    }

    /// Whether a message may go to a peer: what it does not know ends its connection; and see [`Memory::is_silent`].
    pub(super) fn may_send(&self, peer: NodeId, message: &Message) -> bool {
        self.both_know(peer, FrameType::of_message(message).needs()) && !self.is_silent()
    }

    /// Whether this node and a peer have these feature bits.
    pub(super) fn both_know(&self, peer: NodeId, needed: u64) -> bool {
        let of_peer = self.features.get(&peer).copied().unwrap_or_default();
        self.own_features() & of_peer & needed == needed
    }

    /// The link with a peer broke: the process behind the next one may be of an older build, and is not answered what the one
    /// before it asked until its HELLO was heard.
    pub(super) fn forget_features(&mut self, peer: NodeId) {
        self.features.remove(&peer);
    }

    /// What this node offers: what its build can do, and leases if its cluster has them.
    fn own_features(&self) -> u64 {
        match self.identity.lease.ms() {
            0 => self.identity.features,
            _ => self.identity.features | hello::FEATURE_LEASES,
        }
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
        self.peers.newly_durable(up_to)
    }

    /// What this node remembers of every peer that it met.
    pub(super) fn lives(&self) -> Vec<(NodeId, Life)> {
        self.peers.lives()
    }

    /// A new life, the moment that it is durable: this node goes by it from now on.
    pub(super) fn begin_life(&mut self) -> Option<Incarnation> {
        let incarnation = self.memory.begun(self.synced)?;
        self.identity.incarnation = incarnation;
        Some(incarnation)
    }

    /// This node's own HELLO, to a peer or (`None`) to a client.
    pub(super) fn hello_to(&self, peer: Option<NodeId>) -> Hello {
        let remembered = peer
            .and_then(|node| self.peers.of(node))
            .map(|life| (life.incarnation, life.start));
        let (founded, roster) = self.told().unwrap_or_default();
        let lease_ms = self.identity.lease.ms();
        Hello {
            version_min: hello::PROTOCOL_VERSION_MIN,
            version_max: hello::PROTOCOL_VERSION_MAX,
            features: self.own_features(),
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
                lease_ms,
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
        let is_founded = self.founded_record.is_some();
        if let Err(words) = self.identity.lease.check(peer.lease_ms, peer.founded, is_founded) {
            return refuse(ErrorCode::WrongRoster, words);
        }
        if is_founded {
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
        let known = self.peers.of(peer.node).map(|known| known.incarnation).max(in_roster);
        match known {
            // A newer generation is a node that lost its memory and says so; the same one with another token is not.
            Some(known) if peer.incarnation != known && peer.incarnation.generation <= known.generation => {
                let words = format!(
                    "n{} comes with incarnation {}, remembered is {known}: its data directory was lost or replaced, \
                     and it must not vote before it has recovered",
                    peer.node.0, peer.incarnation
                );
                Err((ErrorCode::WrongIncarnation, words))
            }
            _ => Ok(()),
        }
    }

    fn check_unfounded(&self, hello: &Hello, peer: &NodeHello) -> Result<(), (ErrorCode, String)> {
        let refuse = |words| Err((ErrorCode::WrongRoster, words));
        if peer.founded {
            let mine = peer.roster.iter().find(|entry| entry.node == self.identity.node);
            if mine.is_none() {
                let words = format!("founded cluster {:016x} without this node", hello.cluster_id);
                return refuse(words);
            }
            let founders: Vec<NodeId> = peer.roster.iter().map(|entry| entry.node).collect();
            if !founders.iter().eq(&self.listed) {
                let (theirs, own) = (ids(&founders), ids(&self.listed));
                return refuse(format!(
                    "its cluster was founded with {theirs:?}, this node's --cluster lists {own:?}"
                ));
            }
            return Ok(()); // adopted, or shows that this node lost its memory
        }
        if peer.listed.iter().copied().collect::<BTreeSet<_>>() != self.listed {
            let words = format!(
                "its --cluster lists {:?}, this node's {:?}",
                ids(&peer.listed),
                ids(&self.listed)
            );
            return refuse(words);
        }
        if peer.base != self.identity.base {
            let (theirs, own) = (peer.base, self.identity.base);
            return refuse(format!(
                "n{}'s log begins behind slot {} (digest {:016x}), this node's behind slot {} (digest {:016x}): restored from \
                 different backups; restore all nodes from one",
                peer.node.0, theirs.slot, theirs.digest, own.slot, own.digest
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

    /// A peer's HELLO that passed [`Founding::check_hello`], on a connection that the peer dialled or answered (`dialled`).
    /// `written` is the number of the last record so far.
    pub(super) fn on_hello(&mut self, from: NodeId, hello: &Hello, dialled: bool, written: u64) -> Records {
        let HelloKind::Node(peer) = &hello.kind else {
            return Records::new();
        };
        self.features.insert(from, hello.features);
        let mut records: Records = self.check_own_memory(from, peer, written).into_iter().collect();
        let (incarnation, start) = (peer.incarnation, peer.start);
        self.peers.greet(from, dialled, Life { incarnation, start });
        self.met.insert(from, (peer.incarnation, peer.base));
        if peer.founded {
            records.extend(self.identity.lease.fix(peer.lease_ms));
        }
        if !peer.founded && self.founded_record.is_none() {
            records.extend(self.propose_roster(written + records.len() as u64));
        }
        if !peer.roster.is_empty() {
            records.extend(self.on_roster(from, peer.founded, &peer.roster, written + records.len() as u64));
        }
        records.extend(self.take_life(written + records.len() as u64));
        records
    }

    /// A frame of a peer behind its HELLO, on the connection that it dialled or the other: what the HELLO said of it is
    /// remembered from now on.
    pub(super) fn on_frame(&mut self, from: NodeId, dialled: bool, written: u64) -> Option<(Record, Life)> {
        self.peers.hear(from, dialled, written)
    }

    /// A peer whose memory is whole tells what it remembers of others.
    pub(super) fn learn_lives(&mut self, lives: &[(NodeId, Life)], written: u64) -> Vec<(Record, Life, NodeId)> {
        let mut learned = Vec::new();
        for (node, life) in lives.iter().filter(|(node, _)| *node != self.identity.node) {
            let record = self.peers.remember(*node, *life, written + learned.len() as u64);
            learned.extend(record.map(|record| (record, *life, *node)));
        }
        learned
    }

    /// Whether `node` goes by `incarnation`, as far as this node remembers.
    pub(super) fn goes_by(&self, node: NodeId, incarnation: Incarnation) -> bool {
        self.peers.of(node).is_some_and(|life| life.incarnation == incarnation)
    }

    /// What a peer remembers of this node must be of this node's own past (F4). That it is not is written down, as what is
    /// remembered of this node itself: the peer may remember this very start by the next one.
    fn check_own_memory(&mut self, from: NodeId, peer: &NodeHello, written: u64) -> Option<Record> {
        let identity = &self.identity;
        let own = identity.incarnation;
        let in_roster = peer.roster.iter().find(|entry| entry.node == identity.node);
        let in_roster = in_roster.map(|entry| (entry.incarnation, None));
        let remembered = peer.remembered.map(|(incarnation, start)| (incarnation, Some(start)));
        // While nobody is founded a new directory makes a new roster, and nothing was promised yet.
        let (told, start) = remembered
            .or(in_roster.filter(|_| peer.founded))
            .filter(|_| peer.founded || self.founded_record.is_some())?;
        if peer.founded && self.founded_record.is_none() {
            self.foreign_roster.clone_from(&peer.roster);
        }
        let is_own_start = start.is_none_or(|start| start == identity.start || identity.past_starts.contains(&start));
        match self.memory.hear(from, told, is_own_start, own) {
            Verdict::Fine => None,
            Verdict::Superseded => {
                self.memory.supersede(format!(
                    "{from} knows a newer life of this node, {told}: another process runs under this id; stop one of the two"
                ));
                None
            }
            Verdict::Lost if told != own => {
                self.memory.lose(
                    format!(
                        "{from} remembers this node with incarnation {told}, not {own}: the data directory was lost or replaced"
                    ),
                    0,
                );
                None
            }
            Verdict::Lost => {
                let start = start.unwrap_or_default();
                let reason = format!(
                    "{from} remembers start {start} of this node, which is not in its data directory: this is an old copy, \
                     or two processes run on copies of one"
                );
                self.memory.lose(reason, written + 1);
                Some(self.mark_loss(start))
            }
        }
    }

    fn mark_loss(&mut self, start: Start) -> Record {
        let mark = Record::Peer {
            node: self.identity.node,
            incarnation: self.identity.incarnation,
            start,
        };
        self.mark_of_loss = Some(mark.clone());
        mark
    }

    /// A leader has counted a vote of this node that this node does not show (`rules.md` 2).
    pub(super) fn on_forgotten(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        (ballot, slot): (Ballot, Slot),
        written: u64,
    ) -> Records {
        if incarnation != self.identity.incarnation || self.memory.lost().is_some() || !self.is_founded() {
            return Records::new();
        }
        let reason =
            format!("{from} saw it vote for slot {slot} at ballot {ballot}, which its data directory does not show");
        self.memory.lose(reason, written + 1);
        let mut records = vec![self.mark_loss(self.identity.start)];
        records.extend(self.take_life(written + 1));
        records
    }

    /// Votes of others name this generation of this node.
    pub(super) fn on_own_generation(&mut self, generation: u32, written: u64) -> Records {
        let own = self.identity.incarnation;
        if generation <= own.generation {
            return Records::new();
        }
        let reason = format!(
            "votes of others name generation {generation} of this node, its own is {}",
            own.generation
        );
        match self.memory.hear_generation(generation, own) {
            Verdict::Fine => return Records::new(),
            Verdict::Lost => self.memory.lose(reason, 0),
            Verdict::Superseded => {
                let advice = "another process runs under this id; stop one of the two";
                self.memory.supersede(format!("{reason}: {advice}"));
            }
        }
        self.take_life(written)
    }

    /// F7: once enough peers have said what they remember, the next generation, with all that a founded node holds.
    pub(super) fn take_life(&mut self, written: u64) -> Records {
        let Identity { incarnation, node, .. } = self.identity;
        let is_founded = self.founded_record.is_some();
        let roster = if is_founded { &self.roster } else { &self.foreign_roster };
        let Some(life) = self.memory.next_life(incarnation, roster, node) else {
            return Records::new();
        };
        let mut records = Records::new();
        if !is_founded {
            records = self.adopt_roster(self.foreign_roster.clone(), written);
        }
        records.push(Record::Life(life));
        (self.life, self.mark_of_loss) = (Some(life), None);
        self.memory.take(life, written + records.len() as u64);
        records
    }

    /// The roster that a peer holds on its disk, and whether it knows the cluster as founded.
    pub(super) fn on_roster(&mut self, from: NodeId, founded: bool, roster: &[RosterEntry], written: u64) -> Records {
        if self.founded_record.is_some() || self.memory.lost().is_some() {
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
        let Some(named) = roster.iter().find(|entry| entry.node == self.identity.node) else {
            return Records::new();
        };
        let (named, own) = (named.incarnation, self.identity.incarnation);
        if named != own {
            self.foreign_roster = roster.to_vec();
            let reason = format!(
                "{from} knows the cluster as founded with incarnation {named} of this node, not {own}: the data directory \
                 was lost or replaced"
            );
            self.memory.lose(reason, 0);
            return Records::new();
        }
        self.adopt_roster(roster.to_vec(), written)
    }

    fn adopt_roster(&mut self, roster: Vec<RosterEntry>, written: u64) -> Records {
        let mut records = Records::new();
        if self.roster != roster {
            records.extend(self.fix_lease());
            self.replace_roster(roster.clone());
            self.roster_record = written + 1 + records.len() as u64;
            records.push(Record::Roster(roster));
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
        // Who lost its memory may have been founded with others: it confirms nothing new.
        if self.founded_record.is_some() || roster == self.roster || self.memory.lost().is_some() {
            return Records::new();
        }
        let mut records: Records = self.fix_lease().into_iter().collect();
        self.replace_roster(roster.clone());
        self.roster_record = written + 1 + records.len() as u64;
        records.push(Record::Roster(roster));
        records.extend(self.found_if_confirmed(self.roster_record)); // a cluster of one
        records
    }

    /// All whom this node met had leases of one length: it is fixed in front of the first roster.
    fn fix_lease(&mut self) -> Option<Record> {
        self.identity.lease.fix(self.identity.lease.ms())
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

#[cfg(test)]
mod tests {
    use super::super::io::Settings;
    use super::super::machine::Machine;
    use super::*;
    use std::time::Duration;

    const LENGTH: Duration = Duration::from_millis(646);
    const OWN: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);
    const ALL: [NodeId; 3] = [OWN, PEER, NodeId(3)];

    /// Of a cluster of three, started with leases; what stood in its log is `read_back`.
    fn founding_of(read_back: impl IntoIterator<Item = Record>) -> Founding {
        let mut settings = Settings::new(OWN, ALL.to_vec());
        settings.read_lease = LENGTH;
        let mut founding = Machine::new(settings).founding;
        read_back.into_iter().for_each(|record| founding.recover(record));
        founding
    }

    /// The HELLO of a peer that knows the cluster as founded with an older life of this node.
    fn hello_of_founded_peer() -> Hello {
        let mut settings = Settings::new(PEER, ALL.to_vec());
        settings.read_lease = LENGTH;
        let roster = ALL.map(|node| RosterEntry {
            node,
            incarnation: Incarnation {
                generation: 0,
                token: 100 + u64::from(node.0),
            },
            base: Base::default(),
        });
        let mut peer = Machine::new(settings).founding;
        for record in [Record::Lease(646), Record::Roster(roster.to_vec()), Record::Founded] {
            peer.recover(record);
        }
        peer.hello_to(Some(OWN))
    }

    /// Seed 2457152525 of an earlier build: the log of n1 was set aside as damaged. The first peer that it met fixed the length of
    /// leases; two seconds and some segments later it had its new life, and with that the roster. In between, a checkpoint
    /// carried neither, the log lost what stood before it, and at the next start n1 took its cluster for one without leases.
    #[test]
    fn a_checkpoint_between_the_length_of_leases_and_the_roster_carries_the_length() {
        let hello = hello_of_founded_peer();
        let HelloKind::Node(peer) = &hello.kind else {
            unreachable!("it is of a node")
        };
        assert!(peer.founded && peer.lease_ms == 646);

        let mut founding = founding_of([]);
        let records = founding.on_hello(PEER, &hello, true, 0);
        assert!(records.contains(&Record::Lease(646)), "{records:?}");
        assert!(
            !records.iter().any(|record| matches!(record, Record::Roster(_))),
            "{records:?}"
        );

        let carried = founding.carried(false);
        let behind_it = [Record::Roster(peer.roster.clone()), Record::Founded];
        let again = founding_of(carried.into_iter().chain(behind_it));
        assert_eq!(again.lease().check_asked(), Ok(()));
        assert_eq!(again.lease().ms(), 646);
    }

    #[test]
    fn a_length_that_stands_behind_the_roster_is_the_length() {
        // As in logs of the build of that seed, once a later checkpoint had come.
        let roster = Record::Roster(Vec::new());
        assert_eq!(founding_of([roster.clone()]).lease().ms(), 0);
        assert_eq!(
            founding_of([roster.clone(), Record::Lease(646), roster]).lease().ms(),
            646
        );
    }
}
