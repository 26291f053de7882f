//! Standing up: the question before a campaign, phase 1, winning and losing.

use super::{Claim, REACH_SLOTS, Replica, Role};
use crate::paxos::election::Ask;
use crate::paxos::message::Promise;
use crate::paxos::outbox::{Note, Outbox, PeerFault, Write};
use crate::paxos::proposer::Phase1;
use crate::paxos::{Ballot, Message, NodeId, Voter};
use crate::time::Time;

impl Replica {
    /// Nobody is heard, or a backoff is over: asks first, so that a node that comes back deposes nobody.
    pub(super) fn stand_up(&mut self, now: Time, out: &mut Outbox) {
        if !self.may_vote || self.recovery.is_some() || self.digests.is_diverged() {
            // Not founded, memory lost, or its state is wrong: it neither votes nor proposes; look again later.
            return self.election.wait_for_leader(now);
        }
        if self.installs() {
            // So far behind that others serve sooner; without them nobody could.
            return self.election.wait_for_leader(now);
        }
        let mut reason = "no leader is heard";
        if let Some(leader) = self.election.lose_leader() {
            reason = "the leader is silent";
            out.note(Note::LeaderLost {
                leader: leader.node,
                reason: "no sign of life within the election timeout",
            });
        }
        if let Some(left) = self.own_bound() {
            // So is a quorum, most likely: whoever was heard as leader may still read by its lease (`rules.md` 16).
            return self.election.stand_up_after(now, left);
        }
        if !self.config.rules.pre_vote {
            return self.campaign(now, false, out);
        }
        let ask = self.begin_ask(now, out);
        out.note(Note::Asks {
            attempt: ask.attempt,
            reason,
        });
        self.election.begin_try(now);
        if self
            .config
            .membership
            .is_quorum(self.learner.chosen_upto(), ask.granted)
        {
            return self.campaign(now, false, out); // a cluster of one
        }
        self.role = Role::Asking(ask);
    }

    /// Sends the pre-vote question to all.
    pub(super) fn begin_ask(&mut self, _now: Time, out: &mut Outbox) -> Ask {
        let own = self.votes().then_some(self.config.node);
        let ask = self.election.ask(&self.config.membership, own);
        let highest = self.highest_seen;
        for node in self.others() {
            out.send(
                node,
                Message::PreVote {
                    attempt: ask.attempt,
                    highest,
                },
            );
        }
        ask
    }

    /// Would this node promise? Only a live leader other than the asker makes it say no; nothing changes here.
    pub(super) fn on_pre_vote(&mut self, now: Time, from: NodeId, attempt: u32, highest: Ballot, out: &mut Outbox) {
        self.observe(highest);
        if !self.votes() {
            return;
        }
        let hears_leader = match &self.role {
            Role::Leading(_) => true,
            _ => self.election.hears_leader_other_than(from, now) || self.grants.binds(from).is_some(),
        };
        let answer = Message::PreVoteAnswer {
            attempt,
            granted: !hears_leader,
            highest: self.highest_seen,
            voter: self.voter(),
        };
        out.send(from, answer);
    }

    /// An answer to this node's question, as a follower that stands up or as a leader that was refused (`rules.md` 10).
    #[expect(clippy::too_many_arguments, reason = "the fields of one message, in its order")]
    pub(super) fn on_pre_vote_answer(
        &mut self,
        now: Time,
        from: NodeId,
        attempt: u32,
        granted: bool,
        highest: Ballot,
        voter: &Voter,
        out: &mut Outbox,
    ) {
        self.observe(highest);
        if !self.counts(from, voter) {
            return;
        }
        let (ask, keeps_clients) = match &mut self.role {
            Role::Asking(ask) => (ask, false),
            Role::Leading(leading) => match &mut leading.challenge {
                Some((ask, _)) => (ask, true),
                None => return,
            },
            Role::Follower | Role::Preparing { .. } => return,
        };
        if ask.answer(&self.config.membership, from, attempt, granted) {
            self.campaign(now, keeps_clients, out);
        } else if !granted && !keeps_clients {
            // Somebody still hears a leader; if that one is dead, it will notice within a heartbeat or two.
            self.election.hasten(now + self.config.timing.heartbeat);
        }
    }

    /// Takes a new ballot above all seen, and has it written as used before anything of it leaves (R1).
    pub(super) fn campaign(&mut self, now: Time, keeps_clients: bool, out: &mut Outbox) {
        let rules = self.config.rules;
        let ballot = self.next_ballot();
        assert!(
            ballot > self.used || !rules.use_ballots_once,
            "R1: ballot {ballot} after {}",
            self.used
        );
        self.used = ballot;
        self.observe(ballot);
        out.write(Write::Used(ballot));
        if self.votes() && self.own_bound().is_none() {
            // This node's own promise goes to disk with the used ballot: one sync for both.
            let promised = self.promise(ballot, out);
            assert!(
                promised || !rules.use_ballots_once,
                "R1: the new ballot {ballot} is above every promise of this node"
            );
        }
        self.election.lose_leader();
        let from_slot = self.learner.chosen_upto().next();
        out.note(Note::Campaigns { ballot, from_slot });
        self.role = Role::Preparing {
            phase: Phase1::new(ballot, from_slot, Time(u64::MAX)),
            keeps_clients,
        };
        self.election.begin_try(now);
        self.claim(Claim::BallotUsed { ballot }, out);
    }

    /// R1: above all rounds used, promised or seen, also those that only the disk remembers (`rules.md` 4).
    fn next_ballot(&self) -> Ballot {
        let mut highest = self.highest_seen;
        if self.config.rules.use_ballots_once {
            highest = highest.max(self.used).max(self.promised());
        }
        Ballot {
            round: highest.round + 1,
            node: self.config.node,
        }
    }

    /// The ballot is durable as used: PREPARE leaves, and this node's own promise counts.
    pub(super) fn on_ballot_used(&mut self, now: Time, ballot: Ballot, out: &mut Outbox) {
        let Role::Preparing { phase, .. } = &mut self.role else {
            return;
        };
        if phase.ballot != ballot {
            return; // left meanwhile; a ballot once left is never resumed
        }
        phase.is_durable = true;
        self.send_prepare(now, out);
        self.add_own_promise(now, ballot, out);
    }

    fn send_prepare(&mut self, now: Time, out: &mut Outbox) {
        let Role::Preparing { phase, .. } = &mut self.role else {
            return;
        };
        phase.resend_at = now + self.config.timing.heartbeat * 2;
        let missing: Vec<NodeId> = phase.missing(&self.config.membership).collect();
        for node in missing.into_iter().filter(|node| *node != self.config.node) {
            self.ask_also(node, out);
        }
    }

    /// Sends the running campaign's question, or its PREPARE, to one peer.
    pub(super) fn ask_also(&self, node: NodeId, out: &mut Outbox) {
        match &self.role {
            Role::Asking(ask) => {
                let (attempt, highest) = (ask.attempt, self.highest_seen);
                out.send(node, Message::PreVote { attempt, highest });
            }
            Role::Preparing { phase, .. } if phase.is_durable => {
                let message = Message::Prepare {
                    ballot: phase.ballot,
                    attempt: phase.attempt,
                    config: self.config.membership.number,
                    from_slot: phase.from_slot,
                };
                out.send(node, message);
            }
            // Before the ballot is durable nothing of it leaves (R1); and who does not campaign asks nobody.
            Role::Preparing { .. } | Role::Follower | Role::Leading(_) => {}
        }
    }

    fn add_own_promise(&mut self, now: Time, ballot: Ballot, out: &mut Outbox) {
        if !self.votes() || self.promised() != ballot {
            return;
        }
        let Role::Preparing { phase, .. } = &self.role else {
            return;
        };
        let (attempt, from_slot) = (phase.attempt, phase.from_slot);
        for part in self.promise_parts(ballot, attempt, from_slot) {
            self.add_promise(now, self.config.node, part, out);
        }
    }

    /// Phase 1b comes back.
    pub(super) fn on_promise(&mut self, now: Time, from: NodeId, promise: Promise, out: &mut Outbox) {
        self.observe(promise.ballot);
        let far = promise.accepted.iter().find(|accepted| {
            let chosen = promise.chosen_upto.max(self.learner.chosen_upto());
            accepted.slot.0 > chosen.0.saturating_add(REACH_SLOTS)
        });
        if let Some(accepted) = far {
            return self.refuse(from, PeerFault::OutOfReach { slot: accepted.slot }, out);
        }
        if self.counts(from, &promise.voter) {
            self.add_promise(now, from, promise, out);
        }
    }

    fn add_promise(&mut self, now: Time, from: NodeId, promise: Promise, out: &mut Outbox) {
        let Role::Preparing { phase, .. } = &mut self.role else {
            return;
        };
        if !phase.is_durable {
            return;
        }
        let is_quorum = phase.add(&self.config.membership, from, promise);
        if self.drop_forgetful(from, out) {
            return;
        }
        if is_quorum {
            self.become_leader(now, out);
        }
    }

    /// V2: a whole promise that does not show what its voter voted for comes from a memory that is gone.
    fn drop_forgetful(&mut self, from: NodeId, out: &mut Outbox) -> bool {
        let Role::Preparing { phase, .. } = &mut self.role else {
            return false;
        };
        let is_whole = self.config.membership.has(phase.promised_by(), from);
        let forgotten = self.lives.highest_vote(from).filter(|_| is_whole);
        let Some((ballot, slot)) = forgotten.filter(|(ballot, slot)| !phase.remembers(from, *ballot, *slot)) else {
            return false;
        };
        phase.forget(&self.config.membership, from);
        if let Some(incarnation) = self.lives.note_forgetful(from) {
            let message = Message::Forgotten {
                incarnation,
                ballot,
                slot,
            };
            out.send(from, message);
        }
        out.note(Note::Forgetful {
            node: from,
            ballot,
            slot,
        });
        true
    }

    /// Asks again those whose promise is missing; gives up at the deadline.
    pub(super) fn tick_preparing(&mut self, now: Time, out: &mut Outbox) {
        if now >= self.election.deadline() {
            return self.lose_election(now, "no quorum promised in time".into(), out);
        }
        let Role::Preparing { phase, .. } = &mut self.role else {
            return;
        };
        if phase.is_durable && now >= phase.resend_at {
            phase.next_attempt();
            let ballot = phase.ballot;
            self.send_prepare(now, out);
            // The acceptor may have come back meanwhile.
            if let Role::Preparing { phase, .. } = &self.role
                && phase
                    .missing(&self.config.membership)
                    .any(|node| node == self.config.node)
            {
                self.add_own_promise(now, ballot, out);
            }
        }
    }

    /// The campaign failed: waits before the next, longer each time, unless a leader is heard meanwhile.
    pub(super) fn lose_election(&mut self, now: Time, reason: String, out: &mut Outbox) {
        let ballot = match &self.role {
            Role::Preparing { phase, .. } => phase.ballot,
            _ => self.highest_seen,
        };
        self.role = Role::Follower;
        let backoff = self.election.lose(now);
        out.note(Note::LostElection {
            ballot,
            reason,
            backoff,
            tries: self.election.tries(),
        });
    }

    /// A leader that shuts down asks this node to lead: no question before, since the leader itself wants it.
    pub(super) fn on_hand_over(&mut self, now: Time, from: NodeId, ballot: Ballot, out: &mut Outbox) {
        let is_from_leader = self.election.following() == Some(ballot) && ballot.node == from;
        if is_from_leader {
            self.grants.release(ballot);
        }
        if is_from_leader && self.votes() && !self.installs() && matches!(self.role, Role::Follower) {
            self.campaign(now, false, out);
        }
    }

    /// A leader's sign of life at `ballot`. False if a higher ballot is promised or followed: the sender is told.
    pub(super) fn hear_leader(&mut self, now: Time, ballot: Ballot, out: &mut Outbox) -> bool {
        let promised = self.promised();
        if ballot < promised {
            if self.votes() {
                out.send(ballot.node, Message::Nack { ballot, promised });
            }
            return false;
        }
        if self.election.following().is_some_and(|followed| ballot < followed) {
            return false; // an older leader's late words, at a node whose acceptor cannot say so
        }
        match &self.role {
            Role::Leading(leading) if leading.lead.ballot < ballot => {
                self.step_down(now, format!("{} leads at {ballot}", ballot.node), out);
            }
            // Not below its own promise: another leads above this candidate, or its own acceptor is down.
            Role::Preparing { phase, .. } if phase.ballot > ballot => return false,
            Role::Leading(_) => return false,
            Role::Preparing { .. } | Role::Asking(_) | Role::Follower => self.role = Role::Follower,
        }
        if self.election.follow(ballot, now) {
            out.note(Note::Follows { ballot });
        }
        true
    }
}
