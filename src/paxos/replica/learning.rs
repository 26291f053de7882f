//! Learning: the watermark rule, and catching up on what was missed.

use super::{Replica, Role};
use crate::paxos::message::{Heartbeat, HeartbeatAck};
use crate::paxos::outbox::{Note, Outbox, Output};
use crate::paxos::{Ballot, Entry, Message, NodeId, Slot};
use crate::time::Time;
use std::time::Duration;

/// Whom this node asked for missing slots, and until when it waits. One question is open at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct CatchUp {
    asked: Option<Asked>,
    /// Who is asked next, if it was heard to know what is missing.
    preferred: Option<NodeId>,
    /// Answers without an entry in this round of questions.
    empty_answers: usize,
    is_told: bool,
    /// A snapshot is being fetched; no question is open meanwhile.
    installs: bool,
}

/// An open question.
#[derive(Clone, Copy, Debug)]
struct Asked {
    whom: NodeId,
    /// First slot asked for: what begins elsewhere answers an older question, and must not bring up a new one. Else two
    /// copies of one answer would bring up two questions, and so on without end.
    first: Slot,
    until: Time,
}

impl CatchUp {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.asked.map(|asked| asked.until)
    }

    /// Asks `node` next.
    pub(super) fn prefer(&mut self, node: NodeId) {
        self.preferred = Some(node);
    }

    /// Waits no longer for an answer that may have been lost with its link.
    pub(super) fn retry_now(&mut self) {
        self.asked = None;
    }
}

impl Replica {
    /// A leader's sign of life: answers it, and learns by its watermark.
    pub(super) fn on_heartbeat(&mut self, now: Time, from: NodeId, heartbeat: Heartbeat, out: &mut Outbox) {
        let Heartbeat {
            ballot,
            round,
            chosen_upto,
            confirmed_ms,
            echo_ms,
            applied,
            digest,
            agreed,
            agreed_digest,
        } = heartbeat;
        self.observe(ballot);
        if ballot.node != from || !self.hear_leader(now, ballot, out) {
            return;
        }
        self.on_watermark(now, from, ballot, chosen_upto, out);
        self.digests.told_by(from, applied, digest);
        self.digests.told_of_quorum(agreed, agreed_digest);
        let (sent_after, confirmed) = (Time::from_millis(echo_ms), Duration::from_millis(confirmed_ms.into()));
        // A moment that is still to come was a moment of an earlier life's clock, and says nothing of this one's.
        if confirmed_ms != u32::MAX && echo_ms != 0 && sent_after <= now {
            self.freshness
                .heartbeat(sent_after, confirmed, chosen_upto, self.learner.applied());
        }
        if self.votes() {
            self.grant(ballot, out);
            let (applied, digest) = self.digests.newest();
            let ack = HeartbeatAck {
                ballot,
                round,
                chosen_upto: self.learner.chosen_upto(),
                clock_ms: now.0 / 1_000_000,
                free_bytes: self.free_bytes,
                applied,
                digest,
                voter: self.voter(),
            };
            out.send(from, Message::HeartbeatAck(ack));
        }
    }

    /// A leader tells its watermark between two heartbeats, since this node has asked for it.
    pub(super) fn on_position(&mut self, now: Time, from: NodeId, ballot: Ballot, upto: Slot, out: &mut Outbox) {
        self.observe(ballot);
        if ballot.node == from && self.hear_leader(now, ballot, out) {
            self.on_watermark(now, from, ballot, upto, out);
        }
    }

    /// The leader of `ballot` knows all up to `upto` as chosen. What this node accepted at that very ballot is what was
    /// chosen; of anything else the mark proves nothing, and it is fetched (`rules.md` 8, pitfall P15).
    pub(super) fn on_watermark(&mut self, now: Time, from: NodeId, ballot: Ballot, upto: Slot, out: &mut Outbox) {
        if upto > self.learner.chosen_upto() {
            let rules = self.config.rules;
            let is_proven = |accepted_at| accepted_at == ballot || !rules.compare_ballots;
            let proven = self
                .acceptor()
                .map(|acceptor| acceptor.slots_at(is_proven, upto))
                .unwrap_or_default();
            for slot in proven {
                let entry = self
                    .acceptor()
                    .and_then(|acceptor| acceptor.vote(slot))
                    .map(|vote| vote.entry.clone());
                if let Some(entry) = entry {
                    self.learner.learn(slot, &entry);
                }
            }
            self.learner.hear(upto);
            self.catch_up.prefer(from);
        }
        self.after_learning(now, out);
    }

    /// Something may have become chosen: the acceptor forgets it, and what is still missing is asked for.
    pub(super) fn after_learning(&mut self, now: Time, out: &mut Outbox) {
        self.forget_chosen();
        self.tick_catch_up(now, out);
    }

    /// A peer that was asked for entries has only a snapshot that stands for them, and it is going to be fetched: until
    /// [`Replica::end_install`] no entries are asked for, and this node neither leads nor wants to. False if it was not
    /// asked.
    pub fn begin_install(&mut self, now: Time, from: NodeId, out: &mut Outbox) -> bool {
        if self.catch_up.asked.is_none_or(|asked| asked.whom != from) {
            return false;
        }
        (self.catch_up.asked, self.catch_up.installs) = (None, true);
        match &self.role {
            Role::Leading(_) => self.step_down(now, "it is so far behind that it needs a snapshot".into(), out),
            Role::Preparing { .. } | Role::Asking(_) => {
                self.lose_election(now, "it is so far behind that it needs a snapshot".into(), out);
            }
            Role::Follower => {}
        }
        true
    }

    /// Whether a snapshot is being fetched.
    pub(super) fn installs(&self) -> bool {
        self.catch_up.installs
    }

    /// The snapshot is here, or will not come of `from`: entries are asked for again, of others first.
    pub fn end_install(&mut self, now: Time, from: Option<NodeId>) {
        self.catch_up.installs = false;
        let first = self.learner.chosen_upto().next();
        self.catch_up.asked = from.map(|whom| Asked {
            whom,
            first,
            until: now,
        });
    }

    /// Asks a peer for the slots that are missing, if no question is open; asks another one if it did not answer.
    pub(super) fn tick_catch_up(&mut self, now: Time, out: &mut Outbox) {
        if self.catch_up.installs {
            return;
        }
        // What was heard before it led, a leader has open again above its mark, and finishes by votes.
        let want = self.learner.heard_upto().min(self.own_mark());
        let have = self.learner.chosen_upto();
        if have >= want {
            (self.catch_up.asked, self.catch_up.is_told) = (None, false);
            return;
        }
        let last = match self.catch_up.asked {
            Some(asked) if now < asked.until => return,
            Some(silent) => Some(silent.whom),
            None => None,
        };
        let Some(peer) = self.catch_up_peer(last) else { return };
        let first = have.next();
        // Only up to the next island: what lies there is known already.
        let to = self
            .learner
            .islands_from(first)
            .next()
            .map_or(want, |(island, _)| want.min(island.prev()));
        if !std::mem::replace(&mut self.catch_up.is_told, true) {
            out.note(Note::CatchesUp {
                from: peer,
                first,
                last: want,
            });
        }
        self.catch_up.asked = Some(Asked {
            whom: peer,
            first,
            until: now + self.config.timing.election_timeout,
        });
        out.send(peer, Message::Fetch { from: first, to });
    }

    /// Who was asked does not have it: the next one is asked at once; when all were, after a pause, else questions and
    /// empty answers would go round at the speed of the network.
    fn nobody_has_it_yet(&mut self, now: Time) {
        self.catch_up.empty_answers += 1;
        let mut pause = Duration::ZERO;
        if self.catch_up.empty_answers >= self.others().count() {
            (self.catch_up.empty_answers, pause) = (0, self.config.timing.heartbeat);
        }
        if let Some(asked) = &mut self.catch_up.asked {
            asked.until = now + pause;
        }
    }

    /// Whom to ask: who was heard to know it, else the others in turn behind the one that did not answer.
    fn catch_up_peer(&mut self, silent: Option<NodeId>) -> Option<NodeId> {
        let others: Vec<NodeId> = self.others().collect();
        let Some(silent) = silent else {
            let leader = self.election.following().map(|ballot| ballot.node);
            let is_other = |node: &NodeId| others.contains(node);
            return self
                .catch_up
                .preferred
                .filter(is_other)
                .or(leader.filter(is_other))
                .or(others.first().copied());
        };
        self.catch_up.preferred = None;
        others.iter().find(|node| **node > silent).or(others.first()).copied()
    }

    /// A peer misses chosen slots: from memory if they are there, else from the disk.
    pub(super) fn on_fetch(&mut self, from: NodeId, first: Slot, last: Slot, out: &mut Outbox) {
        let last = last.min(self.learner.chosen_upto());
        if first == Slot::ZERO || first > last {
            return self.send_chosen(from, first, Vec::new(), out);
        }
        if self.learner.entry(first).is_none() {
            return out.push(Output::ReadChosen { to: from, first, last });
        }
        let (mut entries, mut bytes, mut slot) = (Vec::new(), 0, first);
        while slot <= last
            && let Some(entry) = self.learner.entry(slot)
            && (entries.is_empty() || bytes + entry.body.len() <= self.config.part_bytes)
        {
            bytes += entry.body.len();
            entries.push(entry.clone());
            slot = slot.next();
        }
        self.send_chosen(from, first, entries, out);
    }

    /// Tells a peer of chosen entries, without a hole from `first` on. Empty: this node does not have them.
    pub fn send_chosen(&mut self, to: NodeId, first: Slot, entries: Vec<Entry>, out: &mut Outbox) {
        let chosen_upto = self.learner.chosen_upto();
        out.send(
            to,
            Message::Chosen {
                first,
                entries,
                chosen_upto,
            },
        );
    }

    /// Chosen entries from a peer.
    pub(super) fn on_chosen(
        &mut self,
        now: Time,
        from: NodeId,
        first: Slot,
        entries: Vec<Entry>,
        chosen_upto: Slot,
        out: &mut Outbox,
    ) {
        let asked = self.catch_up.asked;
        let is_answer = asked.is_some_and(|asked| (asked.whom, asked.first) == (from, first));
        if entries.is_empty() {
            if is_answer {
                self.nobody_has_it_yet(now);
            }
            return;
        }
        let mut slot = first;
        for entry in &entries {
            if self.is_chosen_above(slot, entry) {
                return self.step_down(
                    now,
                    format!("{from} shows what a higher ballot chose in slot {slot}"),
                    out,
                );
            }
            // What this leader has open counts as chosen only by votes at its ballot (`rules.md` 8).
            if self.open_entry(slot).is_none() && (!self.is_in_reach(slot) || !self.learn_from_peer(slot, entry, out)) {
                // As if the rest had been lost on the way: the open question waits for its deadline.
                return self.after_learning(now, out);
            }
            slot = slot.next();
        }
        if !matches!(self.role, Role::Leading(_)) {
            self.learner.hear(chosen_upto);
        }
        self.catch_up.empty_answers = 0;
        if is_answer {
            self.catch_up.asked = None;
            self.catch_up.prefer(from);
        }
        self.after_learning(now, out);
    }
}
