//! What the replica answers as an acceptor: promises, acceptances, refusals; and the acceptor's failing and restarting.

use super::{AcceptorState, Claim, Replica, Role};
use crate::paxos::acceptor::{Acceptor, Change};
use crate::paxos::message::{AcceptedEntry, Promise};
use crate::paxos::outbox::{Note, Outbox, Output, PeerFault, Write};
use crate::paxos::{Ballot, Entry, LogTime, Message, NodeId, Slot};
use crate::time::Time;

impl Replica {
    /// Phase 1b.
    pub(super) fn on_prepare(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        attempt: u32,
        from_slot: Slot,
        out: &mut Outbox,
    ) {
        self.observe(ballot);
        if !self.votes() || ballot.node != from {
            return; // a failed acceptor does not answer; a ballot is only prepared by its owner
        }
        if self.is_bound_against(ballot, out) {
            return;
        }
        if !self.promise(ballot, out) {
            let promised = self.promised();
            return out.send(from, Message::Nack { ballot, promised });
        }
        self.give_way(now, ballot, out);
        for promise in self.promise_parts(ballot, attempt, from_slot) {
            let (to, message) = (from, Message::Promise(promise));
            if self.config.rules.sync_before_promise {
                self.claim(Claim::Send { to, message }, out);
            } else {
                out.send(to, message);
            }
        }
    }

    /// Promises `ballot` and has it written if that is news; false if a higher one is promised.
    pub(super) fn promise(&mut self, ballot: Ballot, out: &mut Outbox) -> bool {
        match self.acceptor_mut().map(|acceptor| acceptor.prepare(ballot)) {
            Some(Ok(Change::New)) => out.write(Write::Promised(ballot)),
            Some(Ok(Change::Known)) => {}
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// A higher ballot was promised: a leader or candidate below it gives way, and a follower waits for the new leader.
    fn give_way(&mut self, now: Time, ballot: Ballot, out: &mut Outbox) {
        match &self.role {
            Role::Leading(leading) if leading.lead.ballot < ballot => {
                self.step_down(now, format!("{} prepares {ballot}", ballot.node), out);
            }
            Role::Preparing { phase, .. } if phase.ballot < ballot => {
                self.lose_election(now, format!("{} prepares {ballot}", ballot.node), out);
            }
            // Its own question may still be on its way; a leader is about to be made by another.
            Role::Asking(_) => {
                self.role = Role::Follower;
                self.election.wait_for_leader(now);
            }
            Role::Follower => self.election.wait_for_leader(now),
            Role::Leading(_) | Role::Preparing { .. } => {}
        }
    }

    /// One moment of this acceptor, cut into parts: all that is accepted above what it can hand out (`rules.md` 5, 6).
    pub(super) fn promise_parts(&self, ballot: Ballot, attempt: u32, from_slot: Slot) -> Vec<Promise> {
        let part = |first: Slot| Promise {
            ballot,
            attempt,
            first,
            last: first.prev(),
            is_last: false,
            chosen_upto: self.learner.chosen_upto(),
            log_time: self.known_log_time(),
            voter: self.voter(),
            accepted: Vec::new(),
        };
        let (mut parts, mut open, mut bytes) = (Vec::new(), part(from_slot), 0);
        for reported in self.reported_from(from_slot.max(self.learner.chosen_upto().next())) {
            if bytes > 0 && bytes + reported.entry.body.len() > self.config.part_bytes {
                let next = part(open.last.next());
                parts.push(std::mem::replace(&mut open, next));
                bytes = 0;
            }
            bytes += reported.entry.body.len();
            open.last = reported.slot;
            open.accepted.push(reported);
        }
        open.is_last = true;
        parts.push(open);
        parts
    }

    /// What a promise lists, in slot order: acceptances, and what is known as chosen beyond a hole, marked so.
    fn reported_from(&self, from: Slot) -> Vec<AcceptedEntry> {
        let votes = self
            .acceptor()
            .into_iter()
            .flat_map(|acceptor| acceptor.votes_from(from));
        let mut reported: std::collections::BTreeMap<Slot, AcceptedEntry> = votes
            .map(|(slot, vote)| {
                let entry = vote.entry.clone();
                (
                    slot,
                    AcceptedEntry {
                        slot,
                        ballot: vote.ballot,
                        chosen: false,
                        entry,
                    },
                )
            })
            .collect();
        for (slot, entry) in self.learner.islands_from(from) {
            let ballot = reported.get(&slot).map_or(Ballot::ZERO, |vote| vote.ballot);
            reported.insert(
                slot,
                AcceptedEntry {
                    slot,
                    ballot,
                    chosen: true,
                    entry: entry.clone(),
                },
            );
        }
        reported.into_values().collect()
    }

    /// The highest log time that this node knows, applied or accepted (`rules.md` 20).
    pub(super) fn known_log_time(&self) -> LogTime {
        self.learner
            .log_time()
            .max(self.acceptor().map_or(LogTime(0), Acceptor::log_time))
    }

    /// Phase 2b, and the watermark that every ACCEPT carries.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message, in its order")]
    pub(super) fn on_accept(
        &mut self,
        now: Time,
        from: NodeId,
        ballot: Ballot,
        slot: Slot,
        chosen_upto: Slot,
        entry: &Entry,
        out: &mut Outbox,
    ) {
        self.observe(ballot);
        if ballot.node != from {
            return;
        }
        if self.contradicts(ballot, slot, entry) {
            return self.refuse(from, PeerFault::TwoEntries { ballot, slot }, out);
        }
        if !self.hear_leader(now, ballot, out) {
            return;
        }
        if self.votes() && self.accept(ballot, slot, entry, out) {
            self.grant(ballot, out);
            self.claim_accepted(from, ballot, slot, out);
        }
        self.on_watermark(now, from, ballot, chosen_upto, out);
    }

    /// Whether another entry was accepted in `slot` at this very ballot. Accepting the second would let two entries find a
    /// quorum at one ballot; stopping for it (A4 is an assertion where this node itself proposes) would let one broken
    /// leader stop every node that is not.
    fn contradicts(&self, ballot: Ballot, slot: Slot, entry: &Entry) -> bool {
        let vote = self.acceptor().and_then(|acceptor| acceptor.vote(slot));
        vote.is_some_and(|vote| vote.ballot == ballot && vote.entry != *entry)
    }

    /// Accepts and has it written if that is news. False: no vote may be given.
    pub(super) fn accept(&mut self, ballot: Ballot, slot: Slot, entry: &Entry, out: &mut Outbox) -> bool {
        if self.learner.knows(slot) && self.learner.entry(slot).is_some_and(|chosen| chosen != entry) {
            return false; // an old leader's late words; its entry must not stand behind the chosen one in the log
        }
        if slot <= self.learner.chosen_upto() {
            // Chosen, and said so in every promise: beside the promise and the watermark nothing is to be remembered.
            self.record_chosen_upto(out);
            return self.promise(ballot, out);
        }
        if !self.is_in_reach(slot) || self.acceptor().is_some_and(|acceptor| !acceptor.has_room_for(slot)) {
            return false;
        }
        let is_held = self
            .acceptor()
            .and_then(|acceptor| acceptor.vote(slot))
            .is_some_and(|vote| vote.ballot == ballot);
        if !is_held && !self.take_room(entry) {
            return false; // as if it had been lost on the way
        }
        match self.acceptor_mut().map(|acceptor| acceptor.accept(ballot, slot, entry)) {
            Some(Ok(Change::New)) => {
                out.write(Write::Accepted {
                    slot,
                    ballot,
                    entry: entry.clone(),
                });
                self.wrote_acceptance = true;
                true
            }
            Some(Ok(Change::Known)) => true,
            Some(Err(_)) | None => false,
        }
    }

    /// ACCEPTED leaves after the sync; neighbours that wait for it together leave as one message.
    fn claim_accepted(&mut self, to: NodeId, ballot: Ballot, slot: Slot, out: &mut Outbox) {
        let voter = self.voter();
        if let Some((
            record,
            Claim::Send {
                to: before,
                message:
                    Message::Accepted {
                        ballot: at,
                        last,
                        voter: by,
                        ..
                    },
            },
        )) = self.claims.back_mut()
            && (*before, *at, last.next()) == (to, ballot, slot)
            // An acceptance after a peer's new life was met names that life; one before it does not.
            && *by == voter
        {
            *last = slot;
            *record = out.written();
            return;
        }
        let message = Message::Accepted {
            ballot,
            first: slot,
            last: slot,
            voter,
        };
        self.claim(Claim::Send { to, message }, out);
    }

    /// The acceptor fails: what it had in memory is gone; the proposer and the learner go on (`rules.md` 14).
    pub fn fail_acceptor(&mut self, out: &mut Outbox) {
        if matches!(self.acceptor, AcceptorState::Down) {
            return;
        }
        self.acceptor = AcceptorState::Down;
        // Claims of the failed acceptor are never told. A used ballot is the proposer's, and goes on.
        self.claims
            .retain(|(_, claim)| matches!(claim, Claim::BallotUsed { .. } | Claim::Recovered));
        out.note(Note::AcceptorFailed);
    }

    /// The failed acceptor restarts: it reads its promises and acceptances again from the disk.
    pub fn restart_acceptor(&mut self, out: &mut Outbox) {
        if matches!(self.acceptor, AcceptorState::Down) {
            self.acceptor = AcceptorState::Rereading(Acceptor::default());
            out.push(Output::Reread { restart: true });
        }
    }

    /// A slice of the acceptor's records, read again; `more`: another follows.
    pub fn on_reread(&mut self, writes: impl IntoIterator<Item = Write>, more: bool, out: &mut Outbox) {
        let AcceptorState::Rereading(acceptor) = &mut self.acceptor else {
            return;
        };
        let chosen_upto = self.learner.chosen_upto();
        for write in writes {
            match write {
                Write::Promised(ballot) if self.config.rules.promise_survives_restart => {
                    acceptor.recover_promised(ballot);
                }
                Write::Accepted { slot, ballot, entry } if slot > chosen_upto => {
                    acceptor.recover_accepted(slot, ballot, entry);
                }
                // Of a slot that is known as chosen only the promise that came with it matters.
                Write::Accepted { ballot, .. } => acceptor.recover_promised(ballot),
                Write::Copied { slot, ballot, entry } if slot > chosen_upto => {
                    acceptor.copy(slot, ballot, &entry);
                }
                Write::Promised(_)
                | Write::Used(_)
                | Write::Learned { .. }
                | Write::Copied { .. }
                | Write::ChosenUpto(_)
                | Write::Recovered => {}
            }
        }
        if more {
            return out.push(Output::Reread { restart: false });
        }
        let AcceptorState::Rereading(acceptor) = std::mem::replace(&mut self.acceptor, AcceptorState::Down) else {
            return;
        };
        out.note(Note::AcceptorRestarted {
            promised: acceptor.promised(),
            accepted: acceptor.len() as u64,
        });
        self.acceptor = AcceptorState::Up(acceptor);
        self.grants.restart();
        self.forget_chosen();
    }
}
