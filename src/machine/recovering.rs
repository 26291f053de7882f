//! A lost memory, as the machine sees it: who this node and its peers are meets what the replica asks and answers.

use super::io::{Effect, Note};
use super::machine::Machine;
use crate::paxos::recovery::Stage;
use crate::paxos::{Message, NodeId};
use crate::time::Time;
use crate::wire::message::ErrorCode;
use std::time::Duration;

/// A recovery that stands still for so long waits for an operator, and says what one can do.
const WORDS_AFTER: Duration = Duration::from_secs(5);

impl Machine {
    /// A frame of a peer, on a connection that it dialled or answered (`dialled`): what its HELLO there said is remembered from
    /// now on, and votes of this node name its life at once.
    pub(super) fn on_frame(&mut self, from: NodeId, dialled: bool, effects: &mut Vec<Effect>) {
        if let Some((record, life)) = self.founding.on_frame(from, dialled, self.out.written()) {
            self.replica.expect(from, life.incarnation.generation);
            self.append(vec![record], effects);
        }
    }

    /// A message of agreement. What concerns who somebody is, founding looks at first.
    pub(super) fn on_paxos(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Vec<Effect>) {
        match &message {
            Message::Recover {
                incarnation,
                nonce,
                attempt,
                from_slot,
            } => {
                // Its HELLO named the life that it goes by; any other is of an earlier connection.
                if self.founding.goes_by(from, *incarnation) {
                    let lives = self.founding.lives();
                    let question = (*nonce, *attempt);
                    self.replica
                        .on_recover(from, question, *from_slot, &lives, &mut self.out);
                }
                return;
            }
            Message::RecoverAnswer(answer) if self.replica.recovery().is_some() => {
                // Before anything of it counts: what it says is true of these lives, whichever answers count in the end.
                for (record, life, node) in self.founding.learn_lives(&answer.lives, self.out.written()) {
                    self.replica.expect(node, life.incarnation.generation);
                    self.append(vec![record], effects);
                }
            }
            Message::Forgotten {
                incarnation,
                ballot,
                slot,
            } => {
                let vote = (*ballot, *slot);
                let records = self.founding.on_forgotten(from, *incarnation, vote, self.out.written());
                return self.append(records, effects);
            }
            Message::ReadPosition { ask } => return self.on_read_position(from, *ask),
            Message::ReadPositionAnswer { ask, chosen_upto, .. } => self.on_position(*ask, *chosen_upto),
            _ => {}
        }
        self.replica.on_message(now, from, message, &mut self.out);
    }

    /// A new life is durable: this node goes by it from now on, on links of its own, and asks what it may have promised.
    pub(super) fn begin_life(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(incarnation) = self.founding.begin_life() else {
            return;
        };
        self.replica.begin_life(incarnation);
        self.replica.recover_memory(now, self.founding.nonce(), &mut self.out);
        let others = self.settings.nodes.iter().filter(|node| **node != self.settings.node);
        for peer in others {
            effects.push(Effect::Refuse {
                peer: *peer,
                code: ErrorCode::Replaced,
                detail: format!("this node begins a new life, incarnation {incarnation}"),
            });
        }
    }

    /// Who lost its memory does not vote; and the moment that this shows, it takes nothing of it any further.
    pub(super) fn heed_memory(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let generation = self.replica.newest_own_generation();
        let records = self.founding.on_own_generation(generation, self.out.written());
        if !records.is_empty() {
            self.append(records, effects);
        }
        let lost = self.founding.memory().lost();
        let is_lost = lost.is_some();
        if let Some(reason) = lost.filter(|_| !self.is_lost) {
            let reason = reason.into();
            self.drain(effects);
            effects.push(Effect::Note(Note::LostMemory { reason }));
            self.replica.lose_memory(now, &mut self.out);
        }
        self.is_lost = is_lost;
        self.replica.set_may_vote(self.founding.is_founded() && !is_lost);
    }

    /// Says so if nobody was added for long to those whose help a lost memory needs.
    pub(super) fn tell_memory(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let memory = self.founding.memory();
        let helped = match self.replica.recovery() {
            _ if memory.wants_life() => Some(memory.witnesses().0.len()),
            Some(view) if view.stage == Stage::Asking => Some(view.answered.len()),
            _ => None,
        };
        let Some(helped) = helped else {
            self.memory_waits = None;
            return;
        };
        match self.memory_waits {
            Some((before, since)) if before == helped => {
                if now >= since + WORDS_AFTER {
                    let words = self.memory_words();
                    effects.push(Effect::Note(Note::WaitsForMemory { words }));
                    self.memory_waits = Some((helped, Time(u64::MAX)));
                }
            }
            _ => self.memory_waits = Some((helped, now)),
        }
    }

    /// Why this node's memory keeps it from voting, and what becomes of that; in words.
    pub(super) fn memory_words(&self) -> String {
        let memory = self.founding.memory();
        if let Some(reason) = memory.lost() {
            let (met, needed) = memory.witnesses();
            let advice = if memory.wants_life() {
                format!("; {}", wants_peers("remembered by", &met, needed))
            } else {
                String::new()
            };
            return format!("lost its memory: {reason}{advice}");
        }
        let Some(view) = self.replica.recovery() else {
            return "founded, and remembers its promises".into();
        };
        let chosen = self.replica.learner().chosen_upto();
        match view.stage {
            Stage::Asking => wants_peers("recovers, answered by", &view.answered, view.needed),
            Stage::Learning { upto } => format!("recovers: learns what is chosen up to slot {upto}, knows {chosen}"),
            Stage::Closing => "recovers: has all, and writes so".into(),
        }
    }
}

/// Whom it has and how many it needs, with what an operator can do.
fn wants_peers(what: &str, has: &[NodeId], needed: usize) -> String {
    let names: Vec<String> = has.iter().map(NodeId::to_string).collect();
    let names = if names.is_empty() {
        "nobody".into()
    } else {
        names.join(" ")
    };
    format!(
        "{what} {names}, needs {needed} peers whose own memory is whole: start them with their data directories; if these \
         are gone, the data can only come from a backup"
    )
}
