//! The machine: one node's agreement, meaning and clients, joined.
//!
//! [`Machine::step`] only picks; the work is done by the rooms that it joins. What steps have shown as chosen is applied by
//! [`Machine::apply`], which whoever turns the machine calls before the turn ends. Invariants:
//! * M1. An answer "done" is given once its entry is chosen and applied here, and its acceptances were synced at a quorum.
//! * M2. Nothing is appended without a number, and nothing that claims a record leaves before the record is synced.
//! * M3. Entries are applied in slot order without holes; one that cannot be applied stops the node.
//! * M4. What waits for clients is bounded: `queue_requests` and `queue_bytes`, each for writes, reads and relays.

use super::damage::ScrubView;
use super::founding::{Founding, Identity, Records};
use super::install::Install;
use super::io::{Effect, Input, Note, Settings};
use super::leases::LeaseLength;
use super::positions::{Asking, Asks, PositionCounts};
use super::reads::{Read, Reads};
use super::records;
use super::requests::{self, Origin, Proposed, QUEUE_WAIT_MAX, Queued, Relays, Waiter, WriteQueue, busy_for, not_done};
use super::shutdown::Shutdown;
use super::snapshot::SnapshotView;
use super::status::DamageFinding;
use crate::kv::state::{Applied, State};
use crate::kv::{Command, Op};
use crate::paxos::election::Timing;
use crate::paxos::replica::Config;
use crate::paxos::{Entry, EntryKind, Health, Incarnation, Membership, NodeId, Outbox, Output, Replica, Slot, Stance};
use crate::time::Time;
use crate::wire::body::{self, Batch};
use crate::wire::hello::HelloKind;
use crate::wire::message::ErrorCode;
use crate::wire::{Code, Hello, Outcome, Record, Reply, Request, RequestOp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often requests that wait are looked through for passed deadlines (before proposing, each is looked at exactly).
const SWEEP: Duration = Duration::from_millis(20);
/// This part of the reserve is left by deletes: with less, only votes go on.
const RESERVE_FOR_VOTES: u64 = 4;
/// Longest time that a client may ask a node to wait; longer deadlines are cut to it.
const DEADLINE_MAX: Duration = Duration::from_secs(600);

/// One node, pure.
#[derive(Debug)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) replica: Replica,
    pub(super) founding: Founding,
    pub(super) state: State,
    pub(super) out: Outbox,
    pub(super) queue: WriteQueue,
    pub(super) proposed: BTreeMap<Slot, Proposed>,
    pub(super) reads: Reads,
    /// Where it does not lead: asks for read positions.
    pub(super) asking: Asking,
    /// While it leads: asks of others.
    pub(super) asks: Asks,
    pub(super) positions: PositionCounts,
    pub(super) relays: Relays,
    /// Reads that were confirmed by a lease since the start.
    pub(super) lease_reads: u64,
    /// Peers to whom this node can send.
    pub(super) links_up: BTreeSet<NodeId>,
    /// The addresses that nodes advertise, this one included; shared by all replies that name one.
    addresses: BTreeMap<NodeId, Arc<str>>,
    pub(super) free_bytes: u64,
    shutdown: Option<Shutdown>,
    stance: Stance,
    leader: Option<NodeId>,
    /// Whom this node waited for when it last said so.
    waits_for: Vec<NodeId>,
    /// Whether this node's memory was lost when last looked at.
    pub(super) is_lost: bool,
    /// Whose help a lost memory has had, and since when nobody was added.
    pub(super) memory_waits: Option<(usize, Time)>,
    is_founded_told: bool,
    pub(super) sweep_at: Option<Time>,
    pub(super) started: Time,
    is_halted: bool,
    /// Behind which slot the snapshot ends that it started from.
    pub(super) restored: Slot,
    /// The slot up to which the log that was read back proves that it holds, or need not hold, every entry.
    pub(super) log_proves: Slot,
    pub(super) snapshots: SnapshotView,
    /// Bound: `DAMAGE_FINDINGS_MAX`.
    pub(super) damage: Vec<DamageFinding>,
    pub(super) scrub: ScrubView,
    /// A snapshot that is being fetched.
    pub(super) install: Option<Install>,
    /// Of whom no snapshot is fetched, and until when; nobody: of anybody.
    pub(super) declined: Option<(Option<NodeId>, Time)>,
}

impl Machine {
    /// A machine with an empty log. Hand it the records of its disk, then start it.
    pub fn new(settings: Settings) -> Machine {
        let membership = Membership::founding(settings.nodes.iter().copied()).under(settings.rules);
        assert!(
            membership.contains(settings.node),
            "{} is not among its own cluster's nodes",
            settings.node
        );
        let timing = Timing {
            heartbeat: settings.heartbeat,
            election_timeout: settings.election_timeout,
            backoff_base: settings.backoff_base,
            backoff_max: settings.backoff_max,
        };
        let founding_members = membership.clone();
        let replica = Replica::new(Config {
            node: settings.node,
            membership,
            incarnation: settings.incarnation,
            base: settings.base.slot,
            timing,
            rules: settings.rules,
            read_lease_ppm: (!settings.read_lease.is_zero()).then_some(settings.clock_rate_bound_ppm),
            cache_bytes: settings.cache_bytes,
            part_bytes: settings.part_bytes,
            seed: settings.seed,
            noop: body::noop,
        });
        let identity = Identity {
            node: settings.node,
            cluster_name: settings.cluster_name.clone(),
            incarnation: settings.incarnation,
            start: settings.start,
            past_starts: settings.past_starts.iter().copied().collect(),
            base: settings.base,
            advertise: settings.advertise.clone(),
            debug: settings.debug.clone(),
            features: settings.features,
            lease: LeaseLength::asked(settings.read_lease),
        };
        let (relays, state) = (Relays::new(settings.start), State::under(settings.rules, settings.seed));
        let founding = Founding::new(identity, &founding_members, settings.seed);
        Machine {
            addresses: [(settings.node, settings.advertise.as_str().into())].into(),
            settings,
            replica,
            founding,
            state,
            out: Outbox::default(),
            queue: WriteQueue::default(),
            proposed: BTreeMap::new(),
            reads: Reads::default(),
            asking: Asking::default(),
            asks: Asks::default(),
            positions: PositionCounts::default(),
            relays,
            lease_reads: 0,
            links_up: BTreeSet::new(),
            free_bytes: u64::MAX,
            shutdown: None,
            stance: Stance::Follower,
            leader: None,
            waits_for: Vec::new(),
            is_lost: false,
            memory_waits: None,
            is_founded_told: false,
            sweep_at: None,
            started: Time::ZERO,
            is_halted: false,
            restored: Slot::ZERO,
            log_proves: Slot::ZERO,
            snapshots: SnapshotView::default(),
            damage: Vec::new(),
            scrub: ScrubView::default(),
            install: None,
            declined: None,
        }
    }

    /// Takes one record of the disk back: all of them, in log order, before [`Machine::start`].
    ///
    /// # Errors
    /// An entry that is chosen and cannot be applied: which, and why. The node must not start.
    pub fn recover(&mut self, record: Record) -> Result<(), String> {
        self.note_marks(&record);
        for part in records::parts(record) {
            if let Record::Life(incarnation) = &part {
                self.replica.begin_life(*incarnation);
            }
            match records::as_write(part) {
                Ok(write) => self.replica.recover(write),
                Err(record) => self.founding.recover(record),
            }
        }
        self.apply_chosen(&mut Vec::new())
    }

    /// Begins to take part; call once, after the last record.
    pub fn start(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.started = now;
        self.founding.synced(0);
        for (node, life) in self.founding.lives() {
            self.replica.know(node, life.incarnation);
        }
        self.heed_lease_length();
        self.replica.start(now);
        self.replica.note_digest(self.state.applied(), self.state.digest());
        if self.replica.must_recover() && self.founding.memory().lost().is_none() {
            self.replica.recover_memory(now, self.founding.nonce(), &mut self.out);
        }
        let records = self.founding.start(self.out.written());
        self.append(records, effects);
        self.note_start(effects);
        self.after_step(now, effects);
    }

    /// Applies one input and adds what must follow. Never blocks, never fails; same seed and inputs, same effects.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if self.is_halted {
            return;
        }
        match input {
            Input::Hello { from, hello, dialled } => self.on_hello(from, &hello, dialled, effects),
            Input::LinkUp { peer } => self.on_link_up(now, peer, effects),
            Input::LinkDown { peer } => self.on_link_down(peer, effects),
            Input::Died { peer } => {
                self.replica.on_died(now, peer, &mut self.out);
                self.leave_install(now, peer);
            }
            Input::Paxos { from, message } => {
                self.on_frame(from, true, effects);
                self.on_paxos(now, from, message, effects);
            }
            Input::Answer { from, message } => {
                self.on_frame(from, false, effects);
                self.on_paxos(now, from, message, effects);
            }
            Input::Roster { from, founded, roster } => {
                self.on_frame(from, true, effects);
                let records = self.founding.on_roster(from, founded, &roster, self.out.written());
                self.append(records, effects);
            }
            Input::Forward { from, relay, request } => {
                self.on_frame(from, true, effects);
                self.on_request(now, Origin::Peer { node: from, relay }, request, effects);
            }
            Input::ForwardReply { from, relay, reply } => {
                self.on_frame(from, true, effects);
                self.on_forward_reply(from, relay, reply, effects);
            }
            // It only joined what waits: what follows from that, follows the turn's `Gathered`.
            Input::Client { id, request } => return self.on_request(now, Origin::Client(id), request, effects),
            Input::Gathered => self.on_gathered(now, effects),
            Input::Synced { up_to } => self.on_synced(now, up_to, effects),
            Input::Deadline => self.on_deadline(now, effects),
            Input::ChosenRead { to, first, entries } => {
                if entries.is_empty() && self.offer_snapshot(to, first, effects) {
                    return self.after_step(now, effects);
                }
                self.replica.send_chosen(to, first, entries, &mut self.out);
            }
            Input::Reread { records, more } => {
                let parts = records.into_iter().flat_map(records::parts);
                let writes = parts.filter_map(|record| records::as_write(record).ok());
                self.replica.on_reread(writes, more, &mut self.out);
            }
            Input::Clock { clock } => self.replica.tick_clock(clock),
            Input::FreeSpace { bytes } => self.on_free_space(now, bytes),
            Input::AcceptorDown => self.replica.fail_acceptor(&mut self.out),
            Input::AcceptorUp => self.replica.restart_acceptor(&mut self.out),
            Input::Corrupt => self.state.corrupt(),
            Input::Transfer { from, transfer } => self.on_transfer(now, from, transfer, effects),
            Input::ChunkRead {
                to,
                slot,
                offset,
                bytes,
            } => self.on_chunk_read(to, (slot, offset), bytes, effects),
            Input::InstallFailed { damaged, reason } => self.on_install_failed(now, damaged, &reason, effects),
            Input::TakeSnapshot | Input::BackupAsk { .. } | Input::Scrub => {}
            Input::Shutdown => {
                self.shutdown.get_or_insert_with(|| Shutdown::begin(now));
            }
        }
        self.after_step(now, effects);
    }

    /// When [`Input::Deadline`] is due, if nothing comes before.
    pub fn deadline(&self) -> Option<Time> {
        let shutdown = self.shutdown.as_ref().and_then(Shutdown::deadline);
        [
            self.replica.deadline(),
            self.sweep_at,
            shutdown,
            self.install_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// This node's own HELLO, to a peer or (`None`) to a client.
    pub fn hello_to(&self, peer: Option<NodeId>) -> Hello {
        self.founding.hello_to(peer)
    }

    /// Whether a peer's HELLO may pass, by cluster, identity and memory.
    ///
    /// # Errors
    /// The code and words with which the connection is refused; nothing has changed.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), (ErrorCode, String)> {
        self.founding.check_hello(hello)
    }

    /// The leader that this node knows, with the address that it advertises: the hint in every reply.
    pub fn leader_hint(&self) -> Option<(NodeId, Arc<str>)> {
        let node = self.replica.leader()?.node;
        Some((node, self.addresses.get(&node).cloned().unwrap_or_default()))
    }

    /// The incarnation that this node goes by.
    pub fn incarnation(&self) -> Incarnation {
        self.founding.incarnation()
    }

    /// Whether a clean end was asked for.
    pub fn is_ending(&self) -> bool {
        self.shutdown.is_some()
    }

    /// The replicated state, to read.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Agreement, to read.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    fn on_hello(&mut self, from: NodeId, hello: &Hello, dialled: bool, effects: &mut Vec<Effect>) {
        let HelloKind::Node(peer) = &hello.kind else { return };
        self.addresses.insert(from, peer.advertise.as_str().into());
        let records = self.founding.on_hello(from, hello, dialled, self.out.written());
        self.append(records, effects);
        self.heed_lease_length();
    }

    fn on_link_up(&mut self, now: Time, peer: NodeId, effects: &mut Vec<Effect>) {
        self.links_up.insert(peer);
        // What HELLO said may be older than what is on disk by now.
        if let Some((founded, roster)) = self.founding.told().filter(|_| !self.founding.is_silent()) {
            effects.push(Effect::SendRoster {
                to: peer,
                founded,
                roster,
            });
        }
        self.replica.on_link_up(now, peer, &mut self.out);
        if self.leader_to_relay_to() == Some(peer) {
            self.asking.ask_again(now); // what was asked on the link before may be lost
        }
        self.resume_install(peer, effects);
    }

    fn on_link_down(&mut self, peer: NodeId, effects: &mut Vec<Effect>) {
        self.links_up.remove(&peer);
        self.founding.forget_features(peer);
        self.lose_relays(|to| to == peer, effects);
    }

    fn on_synced(&mut self, now: Time, up_to: u64, effects: &mut Vec<Effect>) {
        self.out.note_synced(up_to);
        let has_news = self.founding.synced(up_to);
        self.begin_life(now, effects);
        for (node, incarnation) in self.founding.newly_known(up_to) {
            self.replica.know(node, incarnation);
        }
        if has_news && let Some((founded, roster)) = self.founding.told() {
            for to in &self.links_up {
                effects.push(Effect::SendRoster {
                    to: *to,
                    founded,
                    roster: roster.clone(),
                });
            }
        }
    }

    /// Told of the disk's room: a leader that is short of it gives way to a node that is not (`rules.md` 26).
    fn on_free_space(&mut self, now: Time, bytes: u64) {
        self.free_bytes = bytes;
        self.replica.set_free_bytes(bytes);
        if bytes < self.settings.disk_reserve {
            self.replica
                .give_way_to_room(now, self.settings.disk_reserve, &mut self.out);
        }
    }

    fn on_deadline(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.replica.deadline().is_some_and(|due| now >= due) {
            self.replica.on_deadline(now, &mut self.out);
        }
        if self.sweep_at.is_some_and(|due| now >= due) {
            self.sweep(now, effects);
        }
        self.tick_install(now, effects);
    }

    /// A client's request, at this node or relayed by a peer.
    fn on_request(&mut self, now: Time, origin: Origin, request: Request, effects: &mut Vec<Effect>) {
        if let Err(refused) = requests::check(&request) {
            return self.answer(origin, refused, effects);
        }
        let deadline = now + self.wait_of(&request);
        let request = match request.op {
            RequestOp::GetStale { .. } if self.replica.digests().health() != Health::Sound => {
                return self.answer(origin, self.refusal(Code::Diverged), effects);
            }
            RequestOp::GetStale { .. } if self.reads.len() >= self.settings.queue_requests => {
                return self.answer(origin, not_done(Code::Busy), effects);
            }
            RequestOp::GetStale { key, at_least } => {
                self.reads.push_stale(Read { origin, key, deadline }, at_least);
                self.sweep_soon(now);
                return self.answer_stale(now, effects);
            }
            _ => request,
        };
        if let Some(code) = self.refuses_now(requests::request_bytes(&request)) {
            return self.answer(origin, self.refusal(code), effects);
        }
        if self.replica.stance().keeps_clients() {
            self.take(now, origin, request, deadline, effects);
        } else {
            self.relay(now, origin, request, deadline, effects);
        }
    }

    /// The leader, if it is another node that can be reached.
    pub(super) fn leader_to_relay_to(&self) -> Option<NodeId> {
        let leader = self.replica.leader().map(|ballot| ballot.node);
        leader.filter(|node| self.links_up.contains(node))
    }

    /// How long the client still waits.
    fn wait_of(&self, request: &Request) -> Duration {
        match request.deadline_ms {
            0 => self.settings.request_timeout,
            ms => Duration::from_millis(ms.into()).min(DEADLINE_MAX),
        }
    }

    /// What stands in the way of any new request of so many bytes, before anything is queued.
    pub(super) fn refuses_now(&self, request_bytes: usize) -> Option<Code> {
        let waiting = self.queue.len().max(self.reads.len()).max(self.relays.len());
        let bytes = self.queue.bytes().max(self.relays.bytes()) + request_bytes;
        if self.shutdown.is_some() {
            Some(Code::ShuttingDown)
        } else if self.replica.digests().health() != Health::Sound {
            Some(Code::Diverged)
        } else if !self.founding.is_founded() {
            Some(Code::NotFounded)
        } else if waiting >= self.settings.queue_requests || bytes > self.settings.queue_bytes {
            Some(Code::Busy)
        } else {
            None
        }
    }

    /// A refusal, with the words that its code promises.
    fn refusal(&self, code: Code) -> Outcome {
        let mut refusal = not_done(code);
        if let (Code::NotFounded, Outcome::NotDone { detail, .. }) = (code, &mut refusal) {
            let nodes: Vec<String> = self.founding.waits_for().iter().map(NodeId::to_string).collect();
            *detail = format!("waits to be founded, for: {}", nodes.join(" "));
        }
        refusal
    }

    /// At the leader: queues a write for the turn's batch, a read for the turn's round.
    fn take(&mut self, now: Time, origin: Origin, request: Request, deadline: Time, effects: &mut Vec<Effect>) {
        let bytes = requests::request_bytes(&request);
        match request.op {
            RequestOp::Write(op) => {
                if !self.replica.has_room_at_quorum(self.free_bytes, self.room_wanted(&op)) {
                    return self.answer(origin, not_done(Code::NoSpace), effects);
                }
                let wait = self.queue.wait(now);
                if wait > QUEUE_WAIT_MAX && !self.has_window_for(self.queue.bytes() + bytes) {
                    return self.answer(origin, busy_for(wait), effects);
                }
                let command = Command {
                    session: request.session,
                    number: request.number,
                    low: request.low,
                    op,
                };
                self.queue.push(Queued {
                    origin,
                    command,
                    since: now,
                    deadline,
                    bytes,
                });
            }
            RequestOp::Get { key } => self.reads.push(Read { origin, key, deadline }),
            RequestOp::GetStale { .. } | RequestOp::Status => return,
        }
        self.sweep_soon(now);
    }

    /// How much room a quorum must have for a write to be proposed. What adds data leaves the reserve alone; deletes, and
    /// the sessions that they need, may use most of it: they are what frees a full disk. The rest is for votes.
    pub(super) fn room_wanted(&self, op: &Op) -> u64 {
        let reserve = self.settings.disk_reserve;
        match op {
            Op::Put { .. } | Op::Cas { .. } => reserve,
            Op::Open | Op::Close | Op::Del { .. } => reserve / RESERVE_FOR_VOTES,
        }
    }

    /// Elsewhere: a read waits for a position of the leader's; all else is forwarded once, under the client's own ids.
    pub(super) fn relay(
        &mut self,
        now: Time,
        origin: Origin,
        mut request: Request,
        deadline: Time,
        effects: &mut Vec<Effect>,
    ) {
        let Origin::Client(id) = origin else {
            // Forwarded once already: the client is told where to go instead (`rules.md` 22).
            return self.answer(origin, not_done(Code::NotLeader), effects);
        };
        let Some(to) = self.leader_to_relay_to() else {
            return self.answer(origin, not_done(self.why_no_leader()), effects);
        };
        if let RequestOp::Get { key } = &request.op
            && self.reads_at_position_of(to)
        {
            let key = key.clone();
            self.reads.push(Read { origin, key, deadline });
            return self.sweep_soon(now);
        }
        request.deadline_ms = u32::try_from(deadline.since(now).as_millis())
            .unwrap_or(u32::MAX)
            .max(1);
        let relay = self.relays.add(id, to, deadline, &request);
        effects.push(Effect::Forward { to, relay, request });
        self.sweep_soon(now);
    }

    /// With links to less than a quorum no leader can be had through this node.
    pub(super) fn why_no_leader(&self) -> Code {
        let reachable = self.links_up.len() + 1;
        let quorum = self.replica.membership().quorum(self.replica.first_open());
        if reachable < quorum {
            Code::NoQuorum
        } else {
            Code::NoLeader
        }
    }

    fn on_forward_reply(&mut self, from: NodeId, relay: u64, reply: Reply, effects: &mut Vec<Effect>) {
        if let Some(relay) = self.relays.take(from, relay) {
            effects.push(Effect::Reply { id: relay.id, reply });
        }
    }

    /// The end of a turn's inputs: what came together is proposed together, and confirmed together.
    fn on_gathered(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if let Stance::Leader(_) = self.replica.stance() {
            // The round first, so that the votes for what is proposed behind it count as answers to it.
            self.confirm_reads(now);
            self.propose_queued(now, effects);
        } else if !self.replica.stance().keeps_clients() {
            self.ask_for_position(now, effects);
        }
        self.replica.on_gathered(&mut self.out);
    }

    /// One batch a slot, as many slots as the byte bound asks for, as long as the window has room.
    fn propose_queued(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while !self.queue.is_empty() && self.has_window() {
            let bytes_max = self.settings.batch_bytes;
            let mut batch = Batch::new(self.replica.stamp(now), self.queue.bytes().min(bytes_max));
            let (mut waiting, mut bytes) = (Vec::new(), 0);
            while let Some(queued) = self
                .queue
                .pop_fitting(bytes_max.saturating_sub(bytes), waiting.is_empty())
            {
                if now >= queued.deadline {
                    // Dropped before proposing, never after: nobody waits for it any more.
                    self.answer(queued.origin, not_done(Code::Expired), effects);
                    continue;
                }
                bytes += queued.bytes;
                batch.push(&queued.command);
                waiting.push(Waiter {
                    origin: Some(queued.origin),
                    deadline: queued.deadline,
                });
            }
            if waiting.is_empty() {
                return;
            }
            let entry = batch.seal();
            let slot = self
                .replica
                .propose(now, entry.clone(), &mut self.out)
                .expect("this node leads, see the caller");
            self.proposed.insert(slot, Proposed { entry, waiting });
        }
    }

    /// Whether a turn would propose writes that no input has to come for: what made room for them came behind the last
    /// turn's proposals.
    pub fn has_writes_to_propose(&self) -> bool {
        matches!(self.replica.stance(), Stance::Leader(_)) && !self.queue.is_empty() && self.has_window()
    }

    /// Bytes of writes that this node may propose once it has taken `inputs`, about.
    pub fn proposable_bytes(&self, inputs: &[Input]) -> usize {
        let asked = inputs.iter().filter_map(|input| match input {
            Input::Client { request, .. } | Input::Forward { request, .. } => Some(requests::request_bytes(request)),
            _ => None,
        });
        self.queue.bytes() + asked.sum::<usize>()
    }

    /// Whether another batch may be proposed. Batches that are chosen and wait behind a hole to be applied count as well:
    /// while what phase 1 marked is being fetched, nobody's memory may grow with the clients' patience.
    fn has_window(&self) -> bool {
        let (slots, bytes) = self.replica.open_size();
        let slots = slots.max(self.proposed.len());
        (slots as u64) < self.settings.window_slots && bytes < self.settings.window_bytes
    }

    /// Whether the window has room for all that waits, if it is so much: this turn proposes it, and what it waited for is
    /// over.
    fn has_window_for(&self, bytes: usize) -> bool {
        self.has_window() && self.replica.open_size().1 + bytes <= self.settings.window_bytes
    }

    /// Whether entries are chosen and not applied: [`Machine::apply`] must follow before the turn ends.
    pub fn has_to_apply(&self) -> bool {
        !self.is_halted && self.replica.has_to_apply()
    }

    /// Whether somebody here waits for what is to be applied.
    pub fn is_waited_for(&self) -> bool {
        !self.proposed.is_empty() || self.reads.len() > 0 || self.asks.len() > 0
    }

    /// Applies what is chosen, and answers whom that answers. A step apart, so that what others wait for leaves first.
    pub fn apply(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.has_to_apply() && self.apply_or_halt(now, effects) {
            self.after_step(now, effects);
        }
    }

    /// What follows from any step: durable claims leave, clients are answered.
    pub(super) fn after_step(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.heed_memory(now, effects);
        self.replica.release(now, &mut self.out);
        self.drain(effects);
        // Whose write is chosen is told so, and not that it is unknown, by a leader that steps down.
        if self.replica.stance() != self.stance && !self.apply_or_halt(now, effects) {
            return;
        }
        self.replica.judge_digests(now, &mut self.out);
        self.on_stance_change(now, effects);
        if self.replica.digests().health() != Health::Sound {
            self.drop_clients(Code::Diverged, effects);
        }
        self.answer_reads(now, effects);
        self.tell_founding(effects);
        self.tell_memory(now, effects);
        self.continue_shutdown(now, effects);
        self.forget_install(effects);
        self.drain(effects);
        self.replica.check();
    }

    /// False: what was chosen cannot be applied, and this node goes no further.
    fn apply_or_halt(&mut self, now: Time, effects: &mut Vec<Effect>) -> bool {
        if !self.settings.rules.expire_by_log_time {
            self.state.look_at_clock(now);
        }
        let applied = self.apply_chosen(effects);
        if let Err(reason) = applied {
            self.is_halted = true;
            effects.push(Effect::Halt { reason });
        }
        !self.is_halted
    }

    fn apply_chosen(&mut self, effects: &mut Vec<Effect>) -> Result<(), String> {
        while let Some((slot, entry)) = self.replica.next_to_apply() {
            let commands = decode(slot, &entry)?;
            let mut applied = Vec::with_capacity(commands.len());
            self.state.apply(slot, entry.stamp, &commands, &mut applied);
            self.replica.note_digest(slot, self.state.digest());
            if let Some(proposed) = self.proposed.remove(&slot) {
                self.settle(proposed, &entry, applied, effects);
            }
        }
        Ok(())
    }

    /// M1: those who wait for a batch of this node's are answered, if it is what was chosen in its slot.
    fn settle(&mut self, proposed: Proposed, chosen: &Entry, applied: Vec<Applied>, effects: &mut Vec<Effect>) {
        if proposed.entry != *chosen {
            return self.give_up(proposed, effects);
        }
        assert_eq!(
            proposed.waiting.len(),
            applied.len(),
            "M1: one outcome for each command of a batch"
        );
        for (waiter, applied) in proposed.waiting.into_iter().zip(applied) {
            if let Some(origin) = waiter.origin {
                self.answer(origin, requests::applied_outcome(applied), effects);
            }
        }
    }

    fn give_up(&self, proposed: Proposed, effects: &mut Vec<Effect>) {
        for origin in proposed.waiting.into_iter().filter_map(|waiter| waiter.origin) {
            self.answer(origin, Outcome::Unknown { code: Code::LeaderLost }, effects);
        }
    }

    /// Clients of a ballot that was left: kept while this node goes for a higher one, else told at once.
    fn on_stance_change(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let stance = self.replica.stance();
        let leader = self.replica.leader().map(|ballot| ballot.node);
        if std::mem::replace(&mut self.leader, leader) != leader && leader.is_some() {
            // A new leader is known: what the old one was sent it will not answer, or has lost.
            self.lose_relays(|to| Some(to) != leader, effects);
            self.asking.ask_again(now);
        }
        let before = std::mem::replace(&mut self.stance, stance);
        if before == stance {
            return;
        }
        match stance {
            Stance::Leader(_) => self.keep_or_give_up(effects),
            Stance::Candidate { keeps_clients: true } => {
                self.reads.begin_anew();
                self.asks.begin_anew();
            }
            // Who did not lead has nothing to give up; reads that wait for a position end with the turn, as without a leader.
            Stance::Follower | Stance::Candidate { keeps_clients: false } if !before.keeps_clients() => {}
            Stance::Follower | Stance::Candidate { keeps_clients: false } => {
                self.drop_clients(Code::NotLeader, effects);
            }
        }
    }

    /// A new ballot of the same leader: writes that phase 1 kept go on, the others are unknown (`rules.md` 10). Also those
    /// of slots behind all that phase 1 found: these slots are free again, and the next batch takes the first of them.
    fn keep_or_give_up(&mut self, effects: &mut Vec<Effect>) {
        self.reads.begin_anew();
        self.asks.begin_anew();
        let lost: Vec<Slot> = self
            .proposed
            .iter()
            .filter(|(slot, proposed)| self.replica.open_entry(**slot) != Some(&proposed.entry))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in lost {
            // Chosen meanwhile, and not applied yet behind a hole: it settles when it is applied.
            if self.replica.learner().knows(slot) {
                continue;
            }
            if let Some(proposed) = self.proposed.remove(&slot) {
                self.give_up(proposed, effects);
            }
        }
    }

    /// Nobody is served any more: what was proposed is unknown, what only waited is refused with `code`.
    fn drop_clients(&mut self, code: Code, effects: &mut Vec<Effect>) {
        for (_, proposed) in std::mem::take(&mut self.proposed) {
            self.give_up(proposed, effects);
        }
        self.asks.clear();
        let queued = self
            .queue
            .take_all()
            .into_iter()
            .chain(self.reads.take_all().into_iter().map(|read| read.origin));
        for origin in queued.collect::<Vec<_>>() {
            self.answer(origin, not_done(code), effects);
        }
    }

    fn lose_relays(&mut self, is_lost: impl Fn(NodeId) -> bool, effects: &mut Vec<Effect>) {
        for relay in self.relays.take_if(|relay| is_lost(relay.to)) {
            self.answer(Origin::Client(relay.id), relay.lost(Code::LeaderLost), effects);
        }
    }

    /// Looks again for passed deadlines soon, while anything waits.
    pub(super) fn sweep_soon(&mut self, now: Time) {
        self.sweep_at.get_or_insert(now + SWEEP);
    }

    fn sweep(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let expired = self.queue.take_expired(now).into_iter();
        let expired: Vec<Origin> = expired
            .chain(self.reads.take_expired(now).into_iter().map(|read| read.origin))
            .collect();
        for origin in expired {
            self.answer(origin, not_done(Code::Expired), effects);
        }
        for read in self.reads.take_expired_stale(now) {
            self.answer(read.origin, not_done(Code::NotCaughtUp), effects);
        }
        for relay in self.relays.take_if(|relay| now >= relay.deadline) {
            self.answer(Origin::Client(relay.id), relay.lost(Code::DeadlinePassed), effects);
        }
        let proposed = self.proposed.values_mut();
        let late: Vec<Origin> = proposed.flat_map(|proposed| proposed.take_expired(now)).collect();
        for origin in late {
            let code = Code::DeadlinePassed;
            self.answer(origin, Outcome::Unknown { code }, effects);
        }
        let is_idle =
            self.queue.is_empty() && self.proposed.is_empty() && self.reads.len() == 0 && self.relays.len() == 0;
        self.sweep_at = (!is_idle).then(|| now + SWEEP);
    }

    pub(super) fn answer(&self, origin: Origin, outcome: Outcome, effects: &mut Vec<Effect>) {
        // Who knows of no leader to ask names none: whom it heard last may be long gone, as for a node that recovers.
        let is_leaderless = matches!(
            outcome,
            Outcome::NotDone {
                code: Code::NoLeader | Code::NoQuorum,
                ..
            }
        );
        let leader = if is_leaderless { None } else { self.leader_hint() };
        let reply = Reply { outcome, leader };
        effects.push(match origin {
            Origin::Client(id) => Effect::Reply { id, reply },
            Origin::Peer { node, relay } => Effect::ForwardReply { to: node, relay, reply },
        });
    }

    /// Founding, as far as an operator wants to know.
    fn tell_founding(&mut self, effects: &mut Vec<Effect>) {
        if self.founding.is_founded() && !std::mem::replace(&mut self.is_founded_told, true) {
            effects.push(Effect::Note(Note::Founded {
                cluster_id: self.founding.cluster_id(),
            }));
        }
        if self.is_founded_told && self.waits_for.is_empty() {
            return; // for good
        }
        let waits_for = self.founding.waits_for();
        if waits_for != self.waits_for {
            self.waits_for.clone_from(&waits_for);
            if !waits_for.is_empty() {
                effects.push(Effect::Note(Note::WaitsFor { nodes: waits_for }));
            }
        }
    }

    fn continue_shutdown(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(mut shutdown) = self.shutdown.take() else {
            return;
        };
        let is_idle =
            self.queue.is_empty() && self.proposed.is_empty() && self.reads.len() == 0 && self.relays.len() == 0;
        shutdown.go_on(now, is_idle, &mut self.replica, &mut self.out);
        if shutdown.ends_now(now, &self.replica) {
            self.drop_clients(Code::NotLeader, effects);
            self.lose_relays(|_| true, effects);
            self.replica.record_chosen_upto(&mut self.out);
            self.drain(effects);
            effects.push(Effect::Finished);
        }
        self.shutdown = Some(shutdown);
    }

    /// M2: foreign records take their numbers in the one log.
    pub(super) fn append(&mut self, records: Records, effects: &mut Vec<Effect>) {
        self.drain(effects);
        for record in records {
            self.out.count_foreign_record();
            effects.push(Effect::Append(record));
        }
    }

    pub(super) fn drain(&mut self, effects: &mut Vec<Effect>) {
        if self.out.is_empty() {
            return;
        }
        let (founding, bytes_max) = (&self.founding, self.settings.part_bytes);
        let is_sent = |output: &Output| match output {
            Output::Send { to, message } => founding.may_send(*to, message),
            _ => true,
        };
        effects.extend(self.out.drain().filter(is_sent).map(|output| match output {
            Output::Write(write) => Effect::Append(records::as_record(write)),
            Output::Send { to, message } => Effect::Send { to, message },
            Output::ReadChosen { to, first, last } => Effect::ReadChosen {
                to,
                first,
                last,
                bytes_max,
            },
            Output::Refuse { peer, fault } => Effect::Refuse {
                peer,
                code: ErrorCode::Contradiction,
                detail: fault.to_string(),
            },
            Output::Reread { restart } => Effect::Reread { restart },
            Output::Note(note) => Effect::Note(Note::Paxos(note)),
        }));
    }
}

/// M3: what an entry asks of the state machine.
fn decode(slot: Slot, entry: &Entry) -> Result<Vec<Command<&[u8]>>, String> {
    match entry.kind {
        EntryKind::Batch => {
            body::borrowed_commands(entry).map_err(|error| format!("slot {slot}: cannot be applied: {error}"))
        }
        EntryKind::Noop => Ok(Vec::new()),
        EntryKind::Config | EntryKind::Unknown(_) => Err(format!(
            "slot {slot}: {entry} is of a kind that this version cannot apply; a newer version is needed"
        )),
    }
}
