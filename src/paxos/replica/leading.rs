//! Leading: phase 2, signs of life, confirmation, and the ways to stop.

use super::leasing::Held;
use super::{Claim, Config, RESEND_BYTES, Replica, Role, Stance};
use crate::paxos::election::Ask;
use crate::paxos::message::{Heartbeat, HeartbeatAck};
use crate::paxos::outbox::{Note, Outbox, Write};
use crate::paxos::proposer::{Found, Leadership};
use crate::paxos::rounds::{Heard, Rounds};
use crate::paxos::{Ballot, Entry, LogTime, Message, NodeId, Slot, Voter};
use crate::time::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// What only a leader has.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    pub(super) lead: Leadership,
    pub(super) rounds: Rounds,
    /// Set while a refused leader asks whether a quorum would follow it to a higher ballot; and until when.
    pub(super) challenge: Option<(Ask, Time)>,
    /// The lease of this ballot.
    pub(super) held: Held,
    heard: Heard,
    since: Time,
    heartbeat_at: Time,
    /// `rules.md` 6: when the mark of phase 1 must have been fetched.
    mark_due: Option<Time>,
    peers: BTreeMap<NodeId, PeerProgress>,
}

/// What a leader last heard of a follower.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerProgress {
    /// End of the prefix that the follower can hand out.
    pub chosen_upto: Slot,
    /// Free bytes on its disk.
    pub free_bytes: u64,
    /// When its last answer came.
    pub heard_at: Time,
    clock_ms: u64,
}

impl Leading {
    pub(super) fn deadline(&self, config: &Config) -> Time {
        let mut next = self.heartbeat_at.min(
            self.heard
                .quorum_until(&config.membership, config.timing.election_timeout),
        );
        if let Some(sent) = self.lead.oldest_sent() {
            next = next.min(sent + resend_after(config));
        }
        if let Some((_, until)) = &self.challenge {
            next = next.min(*until);
        }
        self.mark_due.map_or(next, |due| next.min(due))
    }

    pub(super) fn forgive(&mut self, span: Duration) {
        self.heard.forgive(span);
    }

    pub(super) fn timers(&self, config: &Config) -> Vec<(&'static str, Time)> {
        let until = self
            .heard
            .quorum_until(&config.membership, config.timing.election_timeout);
        let mut timers = vec![("heartbeat", self.heartbeat_at), ("step_down", until)];
        let resend = self.lead.oldest_sent().map(|sent| sent + resend_after(config));
        timers.extend(resend.map(|due| ("resend_accept", due)));
        timers.extend(self.challenge.as_ref().map(|(_, until)| ("challenge", *until)));
        timers.extend(self.mark_due.map(|due| ("fetch_mark", due)));
        timers
    }
}

/// A slot without a quorum is sent again after two heartbeats: links are TCP, so little is lost but with its link.
fn resend_after(config: &Config) -> Duration {
    config.timing.heartbeat * 2
}

impl Replica {
    /// A quorum has promised: finishes what phase 1 found, then is free for new entries.
    pub(super) fn become_leader(&mut self, now: Time, out: &mut Outbox) {
        let Role::Preparing { phase, .. } = &self.role else {
            return;
        };
        let (ballot, found) = (phase.ballot, phase.found(&self.config.membership, self.config.rules));
        // What stands above the mark and is not learned would be proposed over; what stands below it is fetched.
        let (mark, chosen) = (found.mark, &found.chosen);
        if !chosen
            .range(mark.next()..)
            .all(|(slot, entry)| self.learn_from_peer(*slot, entry, out))
        {
            return self.lose_election(now, "its disk has no room for what is chosen".into(), out);
        }
        for (slot, entry) in chosen.range(..=mark) {
            self.learn_from_peer(*slot, entry, out);
        }
        let log_time = self.known_log_time();
        let lead = Leadership::new(ballot, &found, self.learner.highest(), log_time, now).under(self.config.rules);
        let recovery_upto = lead.recovery_upto;
        self.role = Role::Leading(Box::new(Leading {
            mark_due: (lead.mark > self.learner.chosen_upto()).then(|| now + self.config.timing.election_timeout),
            lead,
            rounds: Rounds::default(),
            challenge: None,
            held: Held::default(),
            heard: Heard::all(&self.config.membership, now),
            since: now,
            heartbeat_at: now,
            peers: BTreeMap::new(),
        }));
        self.election.lead(ballot, now);
        let recovered = self.propose_recovered(now, &found, recovery_upto, out);
        out.note(Note::Leads {
            ballot,
            recovered,
            first_open: recovery_upto.next(),
        });
        self.learner.hear(found.mark);
        if let Some(node) = found.mark_of {
            self.catch_up.prefer(node);
        }
        self.begin_round(now, out);
        self.tick_catch_up(now, out);
    }

    /// R2, R3: every slot above the mark that is not known as chosen takes the highest ballot's entry, or a no-op.
    fn propose_recovered(&mut self, now: Time, found: &Found, upto: Slot, out: &mut Outbox) -> u64 {
        let mut slot = found.mark.max(self.learner.chosen_upto()).next();
        let mut recovered = 0;
        while slot <= upto {
            if !self.learner.knows(slot) {
                let noop = || (self.config.noop)(self.stamp(now));
                let entry = found.accepted.get(&slot).map_or_else(noop, |(_, entry)| entry.clone());
                self.propose_at(now, slot, entry, out);
                recovered += 1;
            }
            slot = slot.next();
        }
        recovered
    }

    /// Proposes `entry` for the next free slot: `None` if this node does not lead. The caller keeps to the window.
    pub fn propose(&mut self, now: Time, entry: Entry, out: &mut Outbox) -> Option<Slot> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let slot = leading.lead.next_slot;
        self.propose_at(now, slot, entry, out);
        Some(slot)
    }

    /// Phase 2a. ACCEPT leaves at once, so that this node's disk and the peers' work at the same time.
    fn propose_at(&mut self, now: Time, slot: Slot, entry: Entry, out: &mut Outbox) {
        assert!(
            !self.learner.knows(slot),
            "R3: slot {slot} proposed, and known as chosen"
        );
        let Role::Leading(leading) = &mut self.role else { return };
        let ballot = leading.lead.ballot;
        leading.lead.open(slot, entry.clone(), now);
        leading.rounds.propose(slot);
        let message = self.accept_message(ballot, slot, entry.clone());
        for node in self.others() {
            out.send(node, message.clone());
        }
        if self.votes() && self.accept(ballot, slot, &entry, out) {
            self.claim(Claim::OwnVote { ballot, slot }, out);
        }
    }

    fn accept_message(&self, ballot: Ballot, slot: Slot, entry: Entry) -> Message {
        let config = self.config.membership.number;
        Message::Accept {
            ballot,
            config,
            slot,
            chosen_upto: self.learner.chosen_upto(),
            entry,
        }
    }

    /// This node's own acceptance is durable (D1).
    pub(super) fn on_own_vote(&mut self, now: Time, ballot: Ballot, slot: Slot, out: &mut Outbox) {
        if self.stance() == Stance::Leader(ballot) && self.votes() {
            self.add_votes(now, self.config.node, slot, slot, out);
        }
    }

    /// Phase 2b comes back. Votes for another ballot do not count (pitfall P14).
    #[expect(clippy::too_many_arguments, reason = "the fields of one message, in its order")]
    pub(super) fn on_accepted(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        first: Slot,
        last: Slot,
        voter: &Voter,
        out: &mut Outbox,
    ) {
        if !self.counts(from, voter) || self.stance() != Stance::Leader(ballot) {
            return;
        }
        if let Role::Leading(leading) = &mut self.role {
            leading.heard.hear(from, now);
            // Only what was proposed can have been voted for, whatever the message says.
            let last = last.min(leading.lead.next_slot.prev());
            self.lives.note_vote(from, ballot, last);
            leading.rounds.voted(&self.config.membership, from, last);
            self.renew_lease();
        }
        self.add_votes(now, from, first, last, out);
    }

    fn add_votes(&mut self, now: Time, from: NodeId, first: Slot, last: Slot, out: &mut Outbox) {
        let Role::Leading(leading) = &mut self.role else { return };
        let mut chosen = Vec::new();
        let open = leading.lead.open_in(first, last);
        if from != self.config.node
            && let Some(last) = open.last()
        {
            leading.lead.note_voted(*last, now);
        }
        for slot in open {
            if let Some(entry) = leading.lead.vote(&self.config.membership, slot, from) {
                chosen.push((slot, entry));
            }
        }
        for (slot, entry) in chosen {
            // With its own acceptor down the entry is not on this node's disk yet.
            if !self.learn_from_peer(slot, &entry, out) {
                // Not on this disk it could not be handed out; another leader finds it at the quorum.
                return self.step_down(now, "its disk has no room for what is chosen".into(), out);
            }
        }
        self.after_learning(now, out);
    }

    /// Begins a round of confirmation: a heartbeat to all, now. Its number; `None` if this node does not lead.
    pub fn begin_round(&mut self, now: Time, out: &mut Outbox) -> Option<u64> {
        let (votes, clock) = (self.votes(), self.grants.clock());
        let Role::Leading(leading) = &mut self.role else {
            return None;
        };
        let (round, ballot) = (leading.rounds.begin(now, clock), leading.lead.ballot);
        leading.heartbeat_at = now + self.config.timing.heartbeat;
        if votes {
            leading.heard.hear(self.config.node, now);
            leading.rounds.answer(&self.config.membership, self.config.node, round);
            self.grant(ballot, out);
            self.renew_lease(); // a cluster of one
        }
        for node in self.others() {
            self.send_heartbeat_to(now, node, out);
        }
        Some(round)
    }

    pub(super) fn send_heartbeat_to(&self, now: Time, node: NodeId, out: &mut Outbox) {
        let Role::Leading(leading) = &self.role else { return };
        // Before it knows all that phase 1 showed as chosen, its mark may lack what the leader before it has answered.
        let is_recovered = self.learner.chosen_upto() >= leading.lead.recovery_upto;
        let begun = leading.rounds.confirmed_begun().filter(|_| is_recovered);
        let confirmed = begun.map(|begun| now.since(begun).as_millis());
        let ((applied, digest), (agreed, agreed_digest)) = (self.digests.newest(), self.digests.agreed());
        let heartbeat = Heartbeat {
            ballot: leading.lead.ballot,
            round: leading.rounds.last(),
            chosen_upto: self.learner.chosen_upto(),
            // One more: the part of a millisecond that was cut off must not make state look younger than it is.
            confirmed_ms: confirmed.map_or(u32::MAX, |ms| u32::try_from(ms + 1).unwrap_or(u32::MAX)),
            echo_ms: leading.peers.get(&node).map_or(0, |peer| peer.clock_ms),
            applied,
            digest,
            agreed,
            agreed_digest,
        };
        out.send(node, Message::Heartbeat(heartbeat));
    }

    /// A follower confirms that it has promised nothing above this leader's ballot.
    pub(super) fn on_heartbeat_ack(&mut self, now: Time, from: NodeId, ack: HeartbeatAck, out: &mut Outbox) {
        if !self.counts(from, &ack.voter) || self.stance() != Stance::Leader(ack.ballot) {
            return;
        }
        let Role::Leading(leading) = &mut self.role else { return };
        leading.heard.hear(from, now);
        leading.rounds.answer(&self.config.membership, from, ack.round);
        let peer = leading.peers.entry(from).or_default();
        *peer = PeerProgress {
            chosen_upto: peer.chosen_upto.max(ack.chosen_upto),
            free_bytes: ack.free_bytes,
            heard_at: now,
            clock_ms: peer.clock_ms.max(ack.clock_ms),
        };
        self.renew_lease();
        self.digests.told_by(from, ack.applied, ack.digest);
        // A follower may know as chosen what this leader misses (and never proposes: R3).
        self.learner.hear(ack.chosen_upto.min(self.own_mark()));
        self.tick_catch_up(now, out);
    }

    /// While it leads, this node fetches only up to the mark of phase 1: what it proposed itself above it counts as
    /// chosen only by a quorum of votes at its ballot (`rules.md` 8).
    pub(super) fn own_mark(&self) -> Slot {
        match &self.role {
            Role::Leading(leading) => leading.lead.mark,
            _ => Slot(u64::MAX),
        }
    }

    /// Somebody has promised a higher ballot (`rules.md` 10).
    pub(super) fn on_nack(&mut self, now: Time, ballot: Ballot, promised: Ballot, out: &mut Outbox) {
        self.observe(promised);
        match &self.role {
            Role::Preparing { phase, .. } if phase.ballot == ballot => {
                self.lose_election(now, format!("refused, {promised} is promised"), out);
            }
            Role::Leading(leading) if leading.lead.ballot == ballot && leading.challenge.is_none() => {
                if !self.config.rules.pre_vote {
                    return self.step_down(now, format!("refused, {promised} is promised"), out);
                }
                let ask = self.begin_ask(now, out);
                out.note(Note::Asks {
                    attempt: ask.attempt,
                    reason: "refused by a promise to a higher ballot",
                });
                if let Role::Leading(leading) = &mut self.role {
                    leading.challenge = Some((ask, now + self.config.timing.election_timeout));
                }
            }
            _ => {}
        }
    }

    /// A leader's deadlines: the quorum's silence, the challenge, the mark, the heartbeat, slots to send again.
    pub(super) fn tick_leading(&mut self, now: Time, out: &mut Outbox) {
        let Role::Leading(leading) = &self.role else { return };
        if !self.hears_quorum(now) {
            return self.step_down(now, "no quorum is heard".into(), out);
        }
        if leading.challenge.as_ref().is_some_and(|(_, until)| now >= *until) {
            return self.step_down(
                now,
                "refused, and no quorum would follow to a higher ballot".into(),
                out,
            );
        }
        if leading.mark_due.is_some_and(|due| now >= due) {
            if self.learner.chosen_upto() < leading.lead.mark {
                // Who showed the mark cannot hand it out: a quorum of those who are heard decides anew (`rules.md` 6).
                return self.campaign(now, true, out);
            }
            if let Role::Leading(leading) = &mut self.role {
                leading.mark_due = None;
            }
        }
        if let Role::Leading(leading) = &self.role
            && now >= leading.heartbeat_at
        {
            self.begin_round(now, out);
        }
        self.resend_overdue(now, out);
    }

    /// Sends again what has found no quorum: the same entry at the same ballot (`rules.md` 9).
    fn resend_overdue(&mut self, now: Time, out: &mut Outbox) {
        let after = resend_after(&self.config);
        let Role::Leading(leading) = &mut self.role else { return };
        let ballot = leading.lead.ballot;
        let mut bytes = 0;
        for (slot, open) in leading.lead.overdue(now - after, now) {
            bytes += open.entry.body.len();
            if bytes > RESEND_BYTES.max(open.entry.body.len()) {
                break; // the rest was marked as sent, and is overdue again after as long
            }
            for node in self
                .others()
                .filter(|node| !self.config.membership.has(open.votes, *node))
            {
                out.send(node, self.accept_message(ballot, slot, open.entry.clone()));
            }
            let voted = self.config.membership.has(open.votes, self.config.node);
            // The own acceptor may have come back from a failure meanwhile, or got room.
            if !voted && self.votes() && self.accept(ballot, slot, &open.entry, out) {
                self.claim(Claim::OwnVote { ballot, slot }, out);
            }
        }
    }

    /// A link came up: what its peer has not voted for may have been lost with the old one.
    pub(super) fn resend_open_to(&mut self, peer: NodeId, out: &mut Outbox) {
        let Role::Leading(leading) = &self.role else { return };
        let ballot = leading.lead.ballot;
        let mut bytes = 0;
        for (slot, open) in leading.lead.iter_open() {
            bytes += open.entry.body.len();
            if bytes > RESEND_BYTES.max(open.entry.body.len()) {
                break;
            }
            if !self.config.membership.has(open.votes, peer) {
                out.send(peer, self.accept_message(ballot, slot, open.entry.clone()));
            }
        }
    }

    /// A link to `peer` is new, and so may be its process, whose clock begins anew: nothing is echoed before it answers.
    pub(super) fn forget_clock_of(&mut self, peer: NodeId) {
        if let Role::Leading(leading) = &mut self.role
            && let Some(progress) = leading.peers.get_mut(&peer)
        {
            progress.clock_ms = 0;
        }
    }

    /// Leaves the ballot, for ever.
    pub(super) fn step_down(&mut self, now: Time, reason: String, out: &mut Outbox) {
        self.release_lease(out);
        if let Role::Leading(leading) = &self.role {
            out.note(Note::StepsDown {
                ballot: leading.lead.ballot,
                reason,
            });
            self.role = Role::Follower;
            self.election.lose_leader();
            self.election.wait_for_leader(now);
        }
    }

    /// This leader's disk is short of room: offers leadership to a follower that has at least `bytes` free, once it led for an
    /// election timeout (so that two short of room do not play ball). Nobody has: it leads on.
    pub fn give_way_to_room(&mut self, now: Time, bytes: u64, out: &mut Outbox) {
        if let Role::Leading(leading) = &self.role
            && now >= leading.since + self.config.timing.election_timeout
        {
            self.hand_over_to(now, bytes, out);
        }
    }

    /// Offers leadership to the follower that knows most and was heard lately, and steps down. `None`: nobody fits, or
    /// this node does not lead.
    pub fn hand_over(&mut self, now: Time, out: &mut Outbox) -> Option<NodeId> {
        self.hand_over_to(now, 0, out)
    }

    fn hand_over_to(&mut self, now: Time, free_bytes_min: u64, out: &mut Outbox) -> Option<NodeId> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let since = now - self.config.timing.heartbeat * 3;
        let fresh = leading
            .peers
            .iter()
            .filter(|(_, peer)| peer.heard_at >= since && peer.free_bytes >= free_bytes_min);
        let (to, _) = fresh.max_by_key(|(node, peer)| (peer.chosen_upto, std::cmp::Reverse(**node)))?;
        let (to, ballot) = (*to, leading.lead.ballot);
        // The last watermark goes first, so that the successor need not fetch what it holds.
        self.send_heartbeat_to(now, to, out);
        self.release_lease(out); // who is to promise the successor must not be bound any more
        out.send(to, Message::HandOver { ballot });
        out.note(Note::HandsOver { to });
        self.step_down(now, format!("hands over to {to}"), out);
        Some(to)
    }

    /// Log time for a new entry, while this node leads.
    pub fn stamp(&self, now: Time) -> LogTime {
        match &self.role {
            Role::Leading(leading) => leading.lead.stamp(now),
            _ => self.known_log_time(),
        }
    }

    /// Slots open, and bytes of their entries; nothing is open at a node that does not lead.
    pub fn open_size(&self) -> (usize, usize) {
        match &self.role {
            Role::Leading(leading) => leading.lead.open_size(),
            _ => (0, 0),
        }
    }

    /// The entry that this leader has open in `slot` at its ballot.
    pub fn open_entry(&self, slot: Slot) -> Option<&Entry> {
        match &self.role {
            Role::Leading(leading) => leading.lead.open_entry(slot),
            _ => None,
        }
    }

    /// Who has accepted the entry that this leader has open in `slot`, durably.
    pub fn open_votes(&self, slot: Slot) -> Option<Vec<NodeId>> {
        let Role::Leading(leading) = &self.role else {
            return None;
        };
        let votes = leading.lead.open_votes(slot)?;
        let members = &self.config.membership;
        let voted = members.voters().iter().filter(|node| members.has(votes, **node));
        Some(voted.copied().collect())
    }

    /// First slot free for a new entry, while this node leads; else the first slot that it does not know as chosen.
    pub fn first_open(&self) -> Slot {
        match &self.role {
            Role::Leading(leading) => leading.lead.next_slot,
            _ => self.learner.highest().next(),
        }
    }

    /// Reads wait until this slot is applied (`rules.md` 7).
    pub fn recovery_upto(&self) -> Slot {
        match &self.role {
            Role::Leading(leading) => leading.lead.recovery_upto,
            _ => Slot::ZERO,
        }
    }

    /// Number of the last round that a quorum confirmed at the present ballot.
    pub fn confirmed_round(&self) -> u64 {
        match &self.role {
            Role::Leading(leading) => leading.rounds.confirmed(),
            _ => 0,
        }
    }

    /// Whether a quorum of members, this node included, has at least `bytes` free on their disks, as far as this leader heard.
    pub fn has_room_at_quorum(&self, own_bytes: u64, bytes: u64) -> bool {
        let Role::Leading(leading) = &self.role else {
            return true;
        };
        let has_room = |node: &NodeId| match leading.peers.get(node) {
            _ if *node == self.config.node => own_bytes >= bytes,
            Some(peer) => peer.free_bytes >= bytes,
            None => true, // nobody is refused for a peer that has not answered yet
        };
        let membership = &self.config.membership;
        let with_room = membership.voters().iter().filter(|node| has_room(node)).count();
        membership.suffice(leading.lead.next_slot, with_room)
    }

    /// What this leader last heard of each follower.
    pub fn peer_progress(&self) -> Vec<(NodeId, PeerProgress)> {
        match &self.role {
            Role::Leading(leading) => leading.peers.iter().map(|(node, peer)| (*node, *peer)).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a quorum was heard within the election timeout, this node included; a leader that hears none steps down.
    pub fn hears_quorum(&self, now: Time) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        let heard = leading
            .heard
            .after(&self.config.membership, now - self.config.timing.election_timeout);
        self.config.membership.is_quorum(leading.lead.next_slot, heard)
    }

    /// A peer shows an entry as chosen that this leader's ballot did not choose: another than the one open in its slot, or
    /// one where this leader has proposed nothing yet. Only a higher ballot can have chosen it, since phase 1 showed all
    /// that lower ones did; so this leader's ballot is lost (`rules.md` 8). Learned and led on, its watermark would
    /// cover a slot that it then proposes anew.
    pub(super) fn is_chosen_above(&self, slot: Slot, entry: &Entry) -> bool {
        let Role::Leading(leading) = &self.role else {
            return false;
        };
        let open = leading.lead.open_entry(slot);
        slot >= leading.lead.next_slot || open.is_some_and(|open| open != entry)
    }

    /// Learns an entry; has it written unless this node's own acceptor holds the very entry on disk already. False: the
    /// disk has no room for it, and nothing has changed.
    pub(super) fn learn_from_peer(&mut self, slot: Slot, entry: &Entry, out: &mut Outbox) -> bool {
        let is_on_disk = self
            .acceptor()
            .and_then(|acceptor| acceptor.vote(slot))
            .is_some_and(|vote| vote.entry == *entry);
        if !is_on_disk && !self.learner.knows(slot) && !self.take_room(entry) {
            return false;
        }
        if self.learner.learn(slot, entry) && !is_on_disk {
            out.write(Write::Learned {
                slot,
                entry: entry.clone(),
            });
            self.wrote_acceptance = true;
        }
        true
    }
}
