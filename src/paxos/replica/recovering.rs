//! A lost memory (`rules.md` 3): asking for what it held, and answering a peer that asks.

use super::{AcceptorState, Claim, RECORD_BYTES, Replica, Role};
use crate::paxos::message::RecoverAnswer;
use crate::paxos::outbox::{Note, Outbox, Write};
use crate::paxos::promises::Found;
use crate::paxos::recovery::{Recovery, Stage, View};
use crate::paxos::{Incarnation, Life, Message, NodeId, Slot};
use crate::time::Time;

impl Replica {
    /// A life other than that of the configuration is durable: this node votes under no other. It takes part only when
    /// it has recovered ([`Write::Recovered`]).
    pub fn begin_life(&mut self, incarnation: Incarnation) {
        self.lives.begin(self.config.node, incarnation);
        self.must_recover = true;
    }

    /// Whether the present life has still to recover, and does not ask yet.
    pub fn must_recover(&self) -> bool {
        self.must_recover && self.recovery.is_none()
    }

    /// Whether the record that says so of the present life stands in the log, or is on its way.
    pub fn has_recovered(&self) -> bool {
        let closes = |recovery: &Recovery| recovery.stage == Stage::Closing;
        !self.must_recover || self.recovery.as_ref().is_some_and(closes)
    }

    /// How far the recovery has come, while there is one.
    pub fn recovery(&self) -> Option<View> {
        let members = &self.config.membership;
        self.recovery.as_ref().map(|recovery| recovery.view(members))
    }

    /// This node has found that its memory is gone: what it was about to claim is not told, and it leads no more.
    pub fn lose_memory(&mut self, now: Time, out: &mut Outbox) {
        (self.may_vote, self.recovery) = (false, None);
        self.claims.clear();
        match self.role {
            Role::Leading(_) => self.step_down(now, "its memory is lost".into(), out),
            Role::Asking(_) | Role::Preparing { .. } => self.role = Role::Follower,
            Role::Follower => {}
        }
    }

    /// Begins to ask all peers under the present life, which is durable. `nonce` was never used before.
    pub fn recover_memory(&mut self, now: Time, nonce: u64, out: &mut Outbox) {
        self.lose_memory(now, out);
        let resend_at = now + self.config.timing.election_timeout;
        self.recovery = Some(Recovery::new(nonce, self.learner.chosen_upto().next(), resend_at));
        out.note(Note::Recovers {
            incarnation: self.lives.own(),
            needed: self.config.membership.witnesses(),
        });
        if !self.config.rules.recover_before_votes {
            return self.close_recovery(out);
        }
        self.others().for_each(|node| self.ask_for_memory(node, out));
    }

    /// Asks one peer, while peers are asked.
    pub(super) fn ask_for_memory(&self, node: NodeId, out: &mut Outbox) {
        let asking = self.recovery.as_ref();
        let Some(recovery) = asking.filter(|recovery| recovery.stage == Stage::Asking) else {
            return;
        };
        let message = Message::Recover {
            incarnation: self.lives.own(),
            nonce: recovery.nonce,
            attempt: recovery.attempt,
            from_slot: recovery.from_slot,
        };
        out.send(node, message);
    }

    /// When the question is asked again.
    pub(super) fn recovery_deadline(&self) -> Option<Time> {
        let recovery = self.recovery.as_ref()?;
        (recovery.stage == Stage::Asking).then_some(recovery.resend_at)
    }

    /// Asks again those who have not answered; what kept it from going on may be over.
    pub(super) fn tick_recovery(&mut self, now: Time, out: &mut Outbox) {
        if self.recovery_deadline().is_none_or(|due| now < due) {
            return;
        }
        let Some(recovery) = &mut self.recovery else { return };
        recovery.attempt += 1;
        recovery.resend_at = now + self.config.timing.election_timeout;
        let missing: Vec<NodeId> = recovery.missing(&self.config.membership).collect();
        for node in missing.into_iter().filter(|node| *node != self.config.node) {
            self.ask_for_memory(node, out);
        }
        self.take_what_witnesses_show(now, out);
    }

    /// A peer lost its memory, and its new life is on its way to the disk: shows it one moment of this acceptor, once that
    /// is durable. From this moment on votes of this node name the new life, so that none of them counts together with
    /// one of the old.
    pub fn on_recover(
        &mut self,
        from: NodeId,
        (nonce, attempt): (u64, u32),
        from_slot: Slot,
        lives: &[(NodeId, Life)],
        out: &mut Outbox,
    ) {
        let is_whole = self.recovery.is_none() || !self.config.rules.recover_from_the_whole;
        if !is_whole || !self.may_vote || self.acceptor().is_none() || self.digests.is_diverged() {
            return; // who does not vote knows nothing for sure
        }
        for promise in self.promise_parts(self.promised(), attempt, from_slot) {
            let answer = RecoverAnswer {
                nonce,
                highest: self.highest_seen,
                lives: lives.to_vec(),
                promise,
            };
            let message = Message::RecoverAnswer(answer);
            self.claim(Claim::Send { to: from, message }, out);
        }
    }

    /// A witness answers.
    pub(super) fn on_recover_answer(&mut self, now: Time, from: NodeId, answer: RecoverAnswer, out: &mut Outbox) {
        self.observe(answer.highest.max(answer.promise.ballot));
        if !self.counts(from, &answer.promise.voter) {
            return;
        }
        let members = &self.config.membership;
        if let Some(recovery) = &mut self.recovery {
            recovery.add(members, from, answer);
            self.take_what_witnesses_show(now, out);
        }
    }

    /// Y2: what enough witnesses show goes to the disk. Not with the acceptor down, nor without room: then it waits.
    fn take_what_witnesses_show(&mut self, now: Time, out: &mut Outbox) {
        let (members, rules) = (&self.config.membership, self.config.rules);
        let found = self
            .recovery
            .as_ref()
            .and_then(|recovery| recovery.found(members, rules));
        let Some(found) = found.filter(|found| self.acceptor().is_some() && self.has_room_for_all(found)) else {
            return;
        };
        if found.promised > self.promised() {
            let promised = self.promise(found.promised, out);
            assert!(promised, "A1: a higher promise than {} is granted", self.promised());
        }
        for (slot, entry) in &found.chosen {
            self.learn_from_peer(*slot, entry, out);
        }
        let copied = self.copy(&found, out);
        if let Some(recovery) = &mut self.recovery {
            recovery.stage = Stage::Learning { upto: found.mark };
        }
        out.note(Note::RecoveryLearns {
            promised: self.promised(),
            copied,
            chosen_upto: found.mark,
        });
        self.learner.hear(found.mark);
        if let Some(node) = found.mark_of {
            self.catch_up.prefer(node);
        }
        self.after_learning(now, out);
    }

    fn has_room_for_all(&self, found: &Found) -> bool {
        let accepted = found.accepted.iter().map(|(slot, (_, entry))| (slot, entry));
        let entries = found.chosen.iter().chain(accepted);
        let news = entries.filter(|(slot, _)| !self.learner.knows(**slot));
        self.has_room_for(news.map(|(_, entry)| entry.body.len()))
    }

    /// Copies what is not known as chosen, for which there is room; how many entries.
    fn copy(&mut self, found: &Found, out: &mut Outbox) -> u64 {
        let AcceptorState::Up(acceptor) = &mut self.acceptor else {
            return 0;
        };
        let mut copied = 0;
        for (slot, (ballot, entry)) in &found.accepted {
            let (slot, ballot) = (*slot, *ballot);
            if !self.learner.knows(slot) && acceptor.copy(slot, ballot, entry) {
                let entry = entry.clone();
                self.room = self.room.saturating_sub(entry.body.len() as u64 + RECORD_BYTES);
                out.write(Write::Copied { slot, ballot, entry });
                copied += 1;
            }
        }
        copied
    }

    /// Once all is learned that the witnesses knew as chosen, the recovery is closed on disk.
    pub(super) fn go_on_recovering(&mut self, out: &mut Outbox) {
        let stage = self.recovery.as_ref().map(|recovery| recovery.stage);
        if let Some(Stage::Learning { upto }) = stage
            && self.learner.chosen_upto() >= upto
        {
            self.close_recovery(out);
        }
    }

    fn close_recovery(&mut self, out: &mut Outbox) {
        if let Some(recovery) = &mut self.recovery {
            recovery.stage = Stage::Closing;
            out.write(Write::Recovered);
            self.claim(Claim::Recovered, out);
        }
    }

    /// It is durable: this node votes again.
    pub(super) fn on_recovered(&mut self, out: &mut Outbox) {
        (self.recovery, self.must_recover) = (None, false);
        self.grants.restart(); // also for what an earlier life granted that ran longer than one thought
        out.note(Note::Recovered {
            incarnation: self.lives.own(),
            promised: self.promised(),
        });
    }
}
