//! The replica: the three roles of one node together, with time and with the rule that nothing is told before it is
//! durable.
//!
//! It owns [`Acceptor`], [`Learner`] and, while it campaigns or leads, the proposer's [`Phase1`] or `Leadership`,
//! and routes messages between them and the peers. What waits for the disk waits in one queue of claims: a claim
//! leaves when all records written before it are synced. Invariants:
//! * D1. PREPARE, PROMISE, ACCEPTED and this node's own promise and votes wait for the sync of what they claim.
//! * D2. A node that may not vote (not founded, memory lost, acceptor failed) gives no promise, no vote, no pre-vote
//!   answer and no confirmation, and is not counted as heard, by itself either (`rules.md` 3, 14).
//!
//! * [`mod@self`]: routing, durability, deadlines. `voting`: answers as acceptor. `campaign`: pre-vote and phase 1.
//!   `leading`: phase 2, heartbeats, step-down. `leasing`: leases, granted and held. `learning`: watermarks and catch-up.
//!   `recovering`: a lost memory.

mod campaign;
mod leading;
mod learning;
mod leasing;
mod recovering;
#[cfg(test)]
mod tests;
mod voting;

pub use leading::PeerProgress;

use super::acceptor::{AHEAD_SLOTS_MAX, Acceptor, Vote};
use super::digests::{Digests, Health};
use super::election::{Ask, Election, Timing};
use super::identity::Lives;
use super::learner::Learner;
use super::lease::Grants;
use super::outbox::{Note, Outbox, Output, PeerFault, Write};
use super::proposer::Phase1;
use super::recovery::Recovery;
use super::rounds::Freshness;
use super::{Ballot, Entry, Incarnation, LogTime, Membership, Message, NodeId, Slot, Voter};
use crate::rules::Rules;
use crate::time::Time;
use leading::Leading;
use learning::CatchUp;
use std::collections::VecDeque;
use std::time::Duration;

/// What [`Config::part_bytes`] is in a node.
pub const PART_BYTES: usize = 1 << 20;
/// A slot so far above what a node knows as chosen is out of its reach: it neither accepts nor learns there before it has
/// caught up. Nobody honest is held up by it (an acceptor at its bound of [`AHEAD_SLOTS_MAX`] takes no further slot
/// anyway), and a peer that names a slot near the end of all numbers makes nobody count up to it.
pub const REACH_SLOTS: u64 = 16 * AHEAD_SLOTS_MAX as u64;
/// Beside its entry's body, a record takes fewer bytes than this on the disk.
const RECORD_BYTES: u64 = 64;
/// Most bytes of entries that one retry sends again to one peer; the rest follows with the next.
pub const RESEND_BYTES: usize = 4 << 20;

/// What one replica is given at birth.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The voting members.
    pub membership: Membership,
    /// The incarnation that its votes carry.
    pub incarnation: Incarnation,
    /// Slot behind which the log begins.
    pub base: Slot,
    /// Election timing.
    pub timing: Timing,
    /// Which rules are kept.
    pub rules: Rules,
    /// Whether this node, while it leads, reads by its lease; and by how many millionths a clock may be off then.
    pub read_lease_ppm: Option<u32>,
    /// Bytes of applied entries kept in memory.
    pub cache_bytes: usize,
    /// Most bytes of entries in one part of a promise and in one CHOSEN message; one entry always fits. At most
    /// [`PART_BYTES`], which frames leave room for.
    pub part_bytes: usize,
    /// Seed of the replica's own generator.
    pub seed: u64,
    /// Makes the no-op that fills a gap. (Paxos agrees on opaque entries and encodes none itself.)
    pub noop: fn(LogTime) -> Entry,
}

/// What the proposer of this node does at present; each state holds what only it needs.
#[derive(Clone, Debug)]
enum Role {
    /// Follows, or waits.
    Follower,
    /// Asks whether a quorum would promise.
    Asking(Ask),
    /// Runs phase 1. Clients are kept if it led just before (`rules.md` 10).
    Preparing { phase: Phase1, keeps_clients: bool },
    /// Leads.
    Leading(Box<Leading>),
}

/// A role as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Follows, or waits.
    Follower,
    /// Asks or prepares. `keeps_clients`: it led just before and goes for a higher ballot.
    Candidate {
        /// Whether clients of the ballot just left are kept.
        keeps_clients: bool,
    },
    /// Leads at this ballot.
    Leader(Ballot),
}

impl Stance {
    /// Whether clients of this node's own ballot may wait here.
    pub fn keeps_clients(self) -> bool {
        matches!(self, Stance::Leader(_) | Stance::Candidate { keeps_clients: true })
    }
}

/// The acceptor's life under fault injection (`rules.md` 14).
#[derive(Clone, Debug)]
enum AcceptorState {
    Up(Acceptor),
    Down,
    /// Reads its promises and acceptances again from the disk.
    Rereading(Acceptor),
}

/// What agreement needs of the log beside entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The highest ballot used.
    pub used: Ballot,
    /// End of the prefix that is known as chosen.
    pub chosen_upto: Slot,
}

/// Something told only once the records before it are durable (D1).
#[derive(Clone, Debug)]
enum Claim {
    Send { to: NodeId, message: Message },
    OwnVote { ballot: Ballot, slot: Slot },
    BallotUsed { ballot: Ballot },
    Recovered,
}

/// One node's share in agreement.
#[derive(Clone, Debug)]
pub struct Replica {
    config: Config,
    acceptor: AcceptorState,
    /// What the acceptor has granted (`rules.md` 16).
    grants: Grants,
    /// The last PREPARE that was not answered for it.
    bound_against: Ballot,
    learner: Learner,
    role: Role,
    election: Election,
    lives: Lives,
    catch_up: CatchUp,
    freshness: Freshness,
    /// R1: the highest ballot that this node ever used, durable or on its way to the disk.
    used: Ballot,
    /// The highest ballot seen anywhere: the next one used is above it.
    highest_seen: Ballot,
    claims: VecDeque<(u64, Claim)>,
    may_vote: bool,
    /// The present life has not recovered what the one before it may have promised.
    must_recover: bool,
    recovery: Option<Recovery>,
    /// Bytes that entries may still take on the disk, as last told, less what was written since.
    room: u64,
    wrote_acceptance: bool,
    recorded_upto: Slot,
    free_bytes: u64,
    digests: Digests,
    /// What was last concluded from them, to see a change.
    health: Health,
    /// Configurations that are not ours and were told of, to say so once each.
    other_config: Option<(NodeId, u64)>,
}

impl Replica {
    /// A replica with nothing promised, accepted or learned. It does not vote before `set_may_vote`.
    pub fn new(config: Config) -> Replica {
        Replica {
            acceptor: AcceptorState::Up(Acceptor::default()),
            grants: Grants::under(config.rules),
            bound_against: Ballot::ZERO,
            learner: Learner::new(config.base, config.cache_bytes, config.rules),
            role: Role::Follower,
            election: Election::new(config.timing.clone(), config.rules, config.seed),
            lives: Lives::new(config.node, config.incarnation),
            catch_up: CatchUp::default(),
            freshness: Freshness::default(),
            used: Ballot::ZERO,
            highest_seen: Ballot::ZERO,
            claims: VecDeque::new(),
            may_vote: false,
            must_recover: false,
            recovery: None,
            room: u64::MAX,
            wrote_acceptance: false,
            recorded_upto: config.base,
            free_bytes: u64::MAX,
            digests: Digests::default(),
            health: Health::Sound,
            other_config: None,
            config,
        }
    }

    /// The state behind `upto` is here as a snapshot: its entries are chosen, and need not be had.
    pub fn skip_to(&mut self, upto: Slot, log_time: LogTime) {
        self.learner.skip_to(upto, log_time);
        self.forget_chosen();
    }

    /// What must stand anew in the log before the part of it that holds it is taken away, beside entries behind the
    /// snapshot; `None` while the acceptor is down, and nobody knows what it promised.
    pub fn carried(&self) -> Option<Carried> {
        let acceptor = self.acceptor()?;
        Some(Carried {
            promised: acceptor.promised(),
            used: self.used,
            chosen_upto: self.learner.chosen_upto(),
        })
    }

    /// What the log should hold of the entry of `slot`, as far as it is in memory: that it is chosen, or else the vote for
    /// it, or the copy of one.
    pub fn write_of(&self, slot: Slot) -> Option<Write> {
        if let Some(entry) = self.learner.entry(slot) {
            let entry = entry.clone();
            return Some(Write::Learned { slot, entry });
        }
        let vote = self.acceptor()?.vote(slot)?.clone();
        let Vote { ballot, entry, is_copy } = vote;
        Some(match is_copy {
            true => Write::Copied { slot, ballot, entry },
            false => Write::Accepted { slot, ballot, entry },
        })
    }

    /// Takes one durable record back, in log order, before anything else is called.
    pub fn recover(&mut self, write: Write) {
        match write {
            Write::Used(ballot) => self.used = self.used.max(ballot),
            Write::Promised(ballot) if self.config.rules.promise_survives_restart => {
                self.recovering_acceptor().recover_promised(ballot);
            }
            Write::Promised(_) => {}
            // Of a slot behind which the snapshot goes on only the promise that came with it matters.
            Write::Accepted { slot, ballot, .. } if slot <= self.learner.chosen_upto() => {
                self.recovering_acceptor().recover_promised(ballot);
            }
            Write::Accepted { slot, ballot, entry } => self.recovering_acceptor().recover_accepted(slot, ballot, entry),
            Write::Learned { slot, entry } => {
                self.learner.learn(slot, &entry);
            }
            Write::ChosenUpto(upto) => self.recover_chosen_upto(upto),
            Write::Copied { slot, ballot, entry } if slot > self.learner.chosen_upto() => {
                self.recovering_acceptor().copy(slot, ballot, &entry);
            }
            Write::Copied { .. } => {}
            Write::Recovered => self.must_recover = false,
        }
        if self.config.rules.use_ballots_once {
            self.highest_seen = self.highest_seen.max(self.used).max(self.promised());
        }
    }

    /// A watermark on disk says that the last record of each slot up to it holds what was chosen.
    fn recover_chosen_upto(&mut self, upto: Slot) {
        while self.learner.chosen_upto() < upto {
            let slot = self.learner.chosen_upto().next();
            let entry = self
                .acceptor()
                .and_then(|acceptor| acceptor.vote(slot))
                .map(|vote| vote.entry.clone());
            // Without its record the mark proves nothing: the slot is fetched from a peer.
            let Some(entry) = entry else { break };
            self.learner.learn(slot, &entry);
        }
        self.recorded_upto = self.learner.chosen_upto();
        self.forget_chosen();
    }

    /// Begins to take part. Nobody is heard yet: the first campaign comes after one to two election timeouts.
    pub fn start(&mut self, now: Time) {
        self.forget_chosen();
        self.election.wait_for_leader(now);
    }

    /// Whether this node may vote at all: it is founded and remembers what it promised.
    pub fn set_may_vote(&mut self, may_vote: bool) {
        self.may_vote = may_vote;
    }

    /// Bytes of records that the disk can take, beside what is kept for promises and used ballots: entries that do not fit
    /// are neither accepted nor learned (`rules.md` 26).
    pub fn set_free_bytes(&mut self, free_bytes: u64) {
        (self.free_bytes, self.room) = (free_bytes, free_bytes);
    }

    /// Whether this node may accept or learn in `slot` yet.
    fn is_in_reach(&self, slot: Slot) -> bool {
        slot.0 <= self.learner.chosen_upto().0.saturating_add(REACH_SLOTS)
    }

    /// A peer broke a rule that no fault explains: it is told, people are, and its links are closed.
    fn refuse(&mut self, peer: NodeId, fault: PeerFault, out: &mut Outbox) {
        out.note(Note::PeerFault { peer, fault });
        out.push(Output::Refuse { peer, fault });
    }

    /// Whether entries with bodies of so many bytes fit the disk together.
    fn has_room_for(&self, bodies: impl Iterator<Item = usize>) -> bool {
        bodies.map(|body| body as u64 + RECORD_BYTES).sum::<u64>() <= self.room
    }

    /// Takes the room for an entry that is to be written; false if there is none.
    fn take_room(&mut self, entry: &Entry) -> bool {
        if self.room == u64::MAX {
            return true; // nobody has told it of a disk
        }
        let bytes = entry.body.len() as u64 + RECORD_BYTES;
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// A slot was applied here, or a state that ends with it came as a whole: its digest (`rules.md` 27).
    pub fn note_digest(&mut self, applied: Slot, digest: u64) {
        self.digests.note(applied, digest);
    }

    /// A life or start of a peer that was just met is on its way to the disk (`rules.md` 2): until [`Replica::know`] no
    /// vote of it counts, and from now on this node's votes name its generation.
    pub fn expect(&mut self, node: NodeId, generation: u32) {
        if self.lives.expect(node, generation) {
            self.forget_votes_of(node);
        }
    }

    /// The newest generation of this node itself that it was told of: above its own, another process has taken its id.
    pub fn newest_own_generation(&self) -> u32 {
        self.lives.newest(self.config.node)
    }

    /// Notes an incarnation of a peer that is durable here: its votes count from now on (`rules.md` 2).
    pub fn know(&mut self, node: NodeId, incarnation: Incarnation) {
        if self.lives.know(node, incarnation) {
            self.forget_votes_of(node);
        }
    }

    /// One message of a peer. Never blocks, never fails.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: Message, out: &mut Outbox) {
        if !self.config.membership.contains(from) || from == self.config.node {
            return;
        }
        match message {
            Message::Prepare { config, .. } | Message::Accept { config, .. }
                if config != self.config.membership.number =>
            {
                self.refuse_other_config(from, config, out);
            }
            Message::Prepare {
                ballot,
                attempt,
                from_slot,
                ..
            } => {
                self.on_prepare(now, from, ballot, attempt, from_slot, out);
            }
            Message::Promise(promise) => self.on_promise(now, from, promise, out),
            Message::Accept {
                ballot,
                slot,
                chosen_upto,
                entry,
                ..
            } => {
                self.on_accept(now, from, ballot, slot, chosen_upto, &entry, out);
            }
            Message::Accepted {
                ballot,
                first,
                last,
                voter,
            } => {
                self.on_accepted(now, from, ballot, first, last, &voter, out);
            }
            Message::Nack { ballot, promised } => self.on_nack(now, ballot, promised, out),
            Message::PreVote { attempt, highest } => self.on_pre_vote(now, from, attempt, highest, out),
            Message::PreVoteAnswer {
                attempt,
                granted,
                highest,
                voter,
            } => {
                self.on_pre_vote_answer(now, from, attempt, granted, highest, &voter, out);
            }
            Message::Heartbeat(heartbeat) => self.on_heartbeat(now, from, heartbeat, out),
            Message::HeartbeatAck(ack) => self.on_heartbeat_ack(now, from, ack, out),
            Message::Fetch { from: first, to } => self.on_fetch(from, first, to, out),
            Message::Chosen {
                first,
                entries,
                chosen_upto,
            } => {
                self.on_chosen(now, from, first, entries, chosen_upto, out);
            }
            Message::HandOver { ballot } => self.on_hand_over(now, from, ballot, out),
            Message::Release { ballot } if ballot.node == from => self.grants.release(ballot),
            Message::Release { .. } => {}
            Message::RecoverAnswer(answer) => self.on_recover_answer(now, from, answer, out),
            // What waits for the position is the machine's; the watermark is a leader's word like any other.
            Message::ReadPositionAnswer {
                ballot, chosen_upto, ..
            } => self.on_position(now, from, ballot, chosen_upto, out),
            // These concern who this node and its peer are, or clients: the machine looks at them first.
            Message::Recover { .. } | Message::Forgotten { .. } | Message::ReadPosition { .. } => {}
        }
    }

    /// A proposer that knows another configuration counts other quorums: its PREPARE and ACCEPT are as if lost
    /// (`rules.md` 30). Said once for each that comes.
    fn refuse_other_config(&mut self, from: NodeId, config: u64, out: &mut Outbox) {
        if self.other_config.replace((from, config)) != Some((from, config)) {
            let own = self.config.membership.number;
            out.note(Note::OtherConfig { from, config, own });
        }
    }

    /// Compares what was told of digests with this node's own. One that is wrong gives up what it leads, and votes no
    /// more; one that may be wrong asks at once for what would show it. Called at the end of each step.
    pub fn judge_digests(&mut self, now: Time, out: &mut Outbox) {
        if !self.digests.take_news() {
            return;
        }
        if let Role::Leading(_) = &self.role {
            self.digests.judge(&self.config.membership, self.config.node);
        }
        let health = self.digests.health();
        if std::mem::replace(&mut self.health, health) == health {
            return;
        }
        match health {
            Health::Sound => out.note(Note::DigestsAgree {
                slot: self.digests.agreed().0,
            }),
            Health::Suspect { slot, peer } => {
                out.note(Note::DigestsDiffer { slot, peer });
                self.begin_round(now, out);
            }
            Health::Diverged { slot } => {
                out.note(Note::Diverged { slot });
                self.step_down(now, "its state is wrong".into(), out);
            }
        }
    }

    /// Lets go what waited for records that are durable by now. Called at the end of each step: what waits for no
    /// record of this turn leaves at once.
    pub fn release(&mut self, now: Time, out: &mut Outbox) {
        self.go_on_recovering(out);
        let up_to = out.synced();
        while self.claims.front().is_some_and(|(record, _)| *record <= up_to) {
            let Some((_, claim)) = self.claims.pop_front() else {
                break;
            };
            match claim {
                Claim::Send { to, message } => out.send(to, message),
                Claim::OwnVote { ballot, slot } => self.on_own_vote(now, ballot, slot, out),
                Claim::BallotUsed { ballot } => self.on_ballot_used(now, ballot, out),
                Claim::Recovered => self.on_recovered(out),
            }
        }
    }

    /// The end of a turn's inputs: the watermark is recorded beside acceptances, where it costs no sync of its own.
    pub fn on_gathered(&mut self, out: &mut Outbox) {
        self.tell_of_lease(out);
        if std::mem::take(&mut self.wrote_acceptance) {
            self.record_chosen_upto(out);
        }
    }

    /// Writes the watermark, if it rose since it was last written.
    pub fn record_chosen_upto(&mut self, out: &mut Outbox) {
        if self.learner.chosen_upto() > self.recorded_upto {
            self.recorded_upto = self.learner.chosen_upto();
            out.write(Write::ChosenUpto(self.recorded_upto));
        }
    }

    /// Deadlines that have come.
    pub fn on_deadline(&mut self, now: Time, out: &mut Outbox) {
        self.forgive_own_delay(now);
        match &self.role {
            Role::Leading(_) => self.tick_leading(now, out),
            Role::Preparing { .. } => self.tick_preparing(now, out),
            Role::Asking(_) if now >= self.election.deadline() => {
                self.lose_election(now, "no quorum answered the pre-vote".into(), out);
            }
            Role::Follower if now >= self.election.deadline() => self.stand_up(now, out),
            Role::Asking(_) | Role::Follower => {}
        }
        self.tick_catch_up(now, out);
        self.tick_recovery(now, out);
    }

    /// When `on_deadline` is due next, whatever the inputs.
    pub fn deadline(&self) -> Option<Time> {
        let mut next = self.election.deadline();
        match &self.role {
            Role::Leading(leading) => next = next.min(leading.deadline(&self.config)),
            Role::Preparing { phase, .. } if phase.is_durable => next = next.min(phase.resend_at),
            _ => {}
        }
        let others = [self.catch_up.deadline(), self.recovery_deadline()];
        next = others.into_iter().flatten().fold(next, Time::min);
        (next != Time(u64::MAX)).then_some(next)
    }

    /// If this loop woke much later than it asked to, it was blocked itself: others are not blamed (`rules.md` 12).
    fn forgive_own_delay(&mut self, now: Time) {
        let Some(due) = self.deadline() else { return };
        let late = now.since(due);
        if late > self.config.timing.heartbeat / 2 {
            self.election.forgive(late);
            if let Role::Leading(leading) = &mut self.role {
                leading.forgive(late.min(self.config.timing.election_timeout));
            }
        }
    }

    /// The link to `peer` is up: what it may have missed is sent again, and a node without a leader looks again soon.
    pub fn on_link_up(&mut self, now: Time, peer: NodeId, out: &mut Outbox) {
        self.forget_clock_of(peer);
        self.ask_for_memory(peer, out);
        match &self.role {
            Role::Leading(_) => {
                self.resend_open_to(peer, out);
                self.send_heartbeat_to(now, peer, out);
            }
            // A campaign that runs has its own deadline, and asks the peer that was not there when it began.
            Role::Asking(_) | Role::Preparing { .. } => self.ask_also(peer, out),
            Role::Follower if self.election.following().is_none() => self.election.stand_up_soon(now),
            Role::Follower => {}
        }
        self.catch_up.retry_now();
        self.tick_catch_up(now, out);
    }

    /// The process of `peer` is gone: that ends this node's own stickiness to it (`rules.md` 23).
    pub fn on_died(&mut self, now: Time, peer: NodeId, out: &mut Outbox) {
        if self.election.following().is_some_and(|ballot| ballot.node == peer) && !matches!(self.role, Role::Leading(_))
        {
            self.election.lose_leader();
            self.election.stand_up_soon(now);
            out.note(Note::LeaderLost {
                leader: peer,
                reason: "its process is gone",
            });
        }
    }

    /// Whether entries are chosen and not applied.
    pub fn has_to_apply(&self) -> bool {
        self.learner.has_to_apply()
    }

    /// The next entry to apply, in slot order.
    pub fn next_to_apply(&mut self) -> Option<(Slot, Entry)> {
        self.learner.next_to_apply()
    }

    /// What this node's proposer does.
    pub fn stance(&self) -> Stance {
        match &self.role {
            Role::Follower => Stance::Follower,
            Role::Asking(_) => Stance::Candidate { keeps_clients: false },
            Role::Preparing { keeps_clients, .. } => Stance::Candidate {
                keeps_clients: *keeps_clients,
            },
            Role::Leading(leading) => Stance::Leader(leading.lead.ballot),
        }
    }

    /// The leader that this node knows: itself, or whom it hears.
    pub fn leader(&self) -> Option<Ballot> {
        self.election.following()
    }

    /// The highest ballot promised by this node's acceptor, if it is up.
    pub fn promised(&self) -> Ballot {
        self.acceptor().map_or(Ballot::ZERO, Acceptor::promised)
    }

    /// The learner, to read.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Elections, to read.
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// The highest ballot used by this node.
    pub fn used(&self) -> Ballot {
        self.used
    }

    /// The highest ballot seen anywhere.
    pub fn highest_seen(&self) -> Ballot {
        self.highest_seen
    }

    /// What this node waits for in agreement, and until when; for people to look at.
    pub fn timers(&self) -> Vec<(&'static str, Time)> {
        let mut timers = match &self.role {
            Role::Leading(leading) => leading.timers(&self.config),
            Role::Preparing { phase, .. } if phase.is_durable => vec![("resend_prepare", phase.resend_at)],
            Role::Preparing { .. } | Role::Asking(_) | Role::Follower => Vec::new(),
        };
        let election = match &self.role {
            Role::Follower if self.election.following().is_some() => "leader_lost",
            Role::Follower => "stand_up",
            Role::Asking(_) | Role::Preparing { .. } | Role::Leading(_) => "campaign_lost",
        };
        timers.push((election, self.election.deadline()));
        timers.extend(self.catch_up.deadline().map(|due| ("catch_up", due)));
        timers.extend(self.recovery_deadline().map(|due| ("ask_for_memory", due)));
        timers.retain(|(_, due)| *due != Time(u64::MAX));
        timers
    }

    /// The voting members.
    pub fn membership(&self) -> &Membership {
        &self.config.membership
    }

    /// The acceptor, while it is up.
    pub fn acceptor(&self) -> Option<&Acceptor> {
        match &self.acceptor {
            AcceptorState::Up(acceptor) => Some(acceptor),
            AcceptorState::Down | AcceptorState::Rereading(_) => None,
        }
    }

    /// Whether this node takes part as a voter (D2). One whose state is wrong does not: what it holds may be wrong, too.
    pub fn votes(&self) -> bool {
        self.may_vote && self.recovery.is_none() && self.acceptor().is_some() && !self.digests.is_diverged()
    }

    /// This node's digests, and what comparing them has shown.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// How old the state applied here may be.
    pub fn age(&mut self, now: Time) -> Option<Duration> {
        match &self.role {
            Role::Leading(leading) if self.learner.applied() >= leading.lead.recovery_upto => {
                leading.rounds.confirmed_begun().map(|begun| now.since(begun))
            }
            _ => self.freshness.age(now, self.learner.applied()),
        }
    }

    /// Asserts what must hold between steps, in all three roles.
    pub fn check(&self) {
        self.learner.check();
        if let Role::Leading(leading) = &self.role {
            let ballot = leading.lead.ballot;
            assert!(ballot <= self.used, "R1: leads at {ballot}, used only {}", self.used);
        }
        if cfg!(debug_assertions)
            && let Some(acceptor) = self.acceptor()
        {
            acceptor.check();
        }
    }

    fn recovering_acceptor(&mut self) -> &mut Acceptor {
        match &mut self.acceptor {
            AcceptorState::Up(acceptor) | AcceptorState::Rereading(acceptor) => acceptor,
            AcceptorState::Down => unreachable!("records are recovered into an acceptor that is up or rereads"),
        }
    }

    fn acceptor_mut(&mut self) -> Option<&mut Acceptor> {
        match &mut self.acceptor {
            AcceptorState::Up(acceptor) => Some(acceptor),
            AcceptorState::Down | AcceptorState::Rereading(_) => None,
        }
    }

    fn voter(&self) -> Voter {
        self.lives.voter()
    }

    /// Whether a vote of `from` counts; votes that it shows to be of forgotten lives are dropped at once.
    fn counts(&mut self, from: NodeId, voter: &Voter) -> bool {
        if !self.config.rules.drop_forgotten_votes {
            return true;
        }
        let mut outdated = Vec::new();
        let counts = self.lives.counts(from, voter, &mut outdated);
        outdated.into_iter().for_each(|node| self.forget_votes_of(node));
        counts
    }

    fn forget_votes_of(&mut self, node: NodeId) {
        let members = &self.config.membership;
        if !self.config.rules.drop_forgotten_votes {
            return;
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.forget(members, node);
        }
        match &mut self.role {
            Role::Follower => {}
            Role::Asking(ask) => members.remove(&mut ask.granted, node),
            Role::Preparing { phase, .. } => phase.forget(members, node),
            Role::Leading(leading) => {
                leading.lead.forget(members, node);
                leading.rounds.forget(node);
            }
        }
    }

    fn observe(&mut self, ballot: Ballot) {
        self.highest_seen = self.highest_seen.max(ballot);
    }

    /// Sends after all records written so far are durable (D1); at once if they are.
    fn claim(&mut self, claim: Claim, out: &mut Outbox) {
        self.claims.push_back((out.written(), claim));
    }

    fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let own = self.config.node;
        self.config
            .membership
            .voters()
            .to_vec()
            .into_iter()
            .filter(move |node| *node != own)
    }

    /// Drops from the acceptor what the learner can hand out as chosen.
    fn forget_chosen(&mut self) {
        let upto = self.learner.chosen_upto();
        match &mut self.acceptor {
            AcceptorState::Up(acceptor) | AcceptorState::Rereading(acceptor) => acceptor.forget(upto),
            AcceptorState::Down => {}
        }
    }
}
