//! What clients are told: "done" of what is, once, in the same words each time; and reads of what was acknowledged.

use super::{Checks, FirstResults, Judged, broken};
use crate::kv::state::Applied;
use crate::kv::{Command, Done, SessionRef};
use crate::paxos::{NodeId, Slot};
use crate::time::Time;
use crate::wire::{Outcome, Request, RequestOp, Served};
use std::time::Duration;

/// What a node was asked, as far as the judge must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This write of this session.
    Write(SessionRef, u64),
    /// To read; what was acknowledged by then.
    Read {
        /// Up to which slot.
        acknowledged: Slot,
    },
    /// To read what may be stale, at this moment.
    Stale {
        /// When it arrived.
        at: Time,
        /// The slot that must be applied.
        at_least: Slot,
    },
}

/// A command of a session that is in the log a second time has the result of its first.
pub(super) fn runs_once(done: &mut FirstResults, slot: Slot, commands: &[Command], outcomes: &[Applied]) -> Judged {
    for (command, outcome) in commands.iter().zip(outcomes) {
        let Applied::Done(now) = outcome else { continue };
        if command.number == 0 {
            continue; // OPEN and CLOSE: what they answer may change
        }
        let (session, number) = (command.session, command.number);
        let first = done
            .entry((session.id, session.opened, number))
            .or_insert_with(|| now.clone());
        if first != now {
            let words =
                format!("write {number} of a session is run again in slot {slot}: {now:?}, before it was {first:?}");
            return broken("replies", words);
        }
    }
    Ok(())
}

impl Checks {
    /// A client's request arrives at a node.
    pub fn asks(&mut self, request: &Request, now: Time) -> Option<Asked> {
        match &request.op {
            RequestOp::Get { .. } => {
                let acknowledged = self.acknowledged.by(now);
                Some(Asked::Read { acknowledged })
            }
            RequestOp::GetStale { at_least, .. } => Some(Asked::Stale {
                at: now,
                at_least: *at_least,
            }),
            _ if request.number > 0 => Some(Asked::Write(request.session, request.number)),
            _ => None,
        }
    }

    /// A node answers a client.
    ///
    /// # Errors
    /// It says "done" of what is not, or not in the same words as before, or of what was so once.
    pub fn answers(&mut self, node: NodeId, asked: Option<Asked>, outcome: &Outcome, now: Time) -> Judged {
        let done = match (outcome, asked) {
            (Outcome::Done(Served::Done(done)), _) => done,
            (Outcome::Done(Served::Stale { slot, age_ms, .. }), Some(Asked::Stale { at, at_least })) => {
                return self.answers_stale(node, *slot, *age_ms, at, at_least);
            }
            _ => return Ok(()),
        };
        match asked {
            Some(Asked::Write(session, number)) => self.answers_write(node, session, number, done)?,
            Some(Asked::Read { acknowledged }) if done.slot < acknowledged => {
                let words = format!(
                    "{node} answers a read up to slot {}, {acknowledged} was acknowledged before it arrived",
                    done.slot
                );
                return broken("reads", words);
            }
            Some(Asked::Read { .. } | Asked::Stale { .. }) | None => {}
        }
        self.acknowledged.note(done.slot, now);
        Ok(())
    }

    /// The age is measured by clocks that may run slow, an eighth at most, and in whole milliseconds.
    fn answers_stale(&self, node: NodeId, slot: Slot, age_ms: u32, at: Time, at_least: Slot) -> Judged {
        let age = Duration::from_millis(age_ms.into());
        let acknowledged = self.acknowledged.by(at - age - age / 4 - Duration::from_millis(2));
        if age_ms != u32::MAX && slot < acknowledged {
            let words = format!(
                "{node} answers a stale read up to slot {slot}, at most {age_ms} ms old: {acknowledged} was acknowledged longer ago"
            );
            return broken("reads", words);
        }
        if slot < at_least {
            let words = format!("{node} answers a stale read up to slot {slot}, and was asked for {at_least} at least");
            return broken("reads", words);
        }
        Ok(())
    }

    fn answers_write(&mut self, node: NodeId, session: SessionRef, number: u64, done: &Done) -> Judged {
        let is_there = self.slot(done.slot).is_some_and(|books| {
            let of = |command: &Command| command.session == session && command.number == number;
            books.chosen.is_some() && books.commands.iter().any(of)
        });
        if !is_there {
            let words = format!(
                "{node} says that write {number} is done in slot {}: it is not there",
                done.slot
            );
            return broken("replies", words);
        }
        let first = self
            .done
            .entry((session.id, session.opened, number))
            .or_insert_with(|| done.clone());
        if first != done {
            let words = format!("{node} answers write {number} with {done:?}, before it was {first:?}");
            return broken("replies", words);
        }
        Ok(())
    }

    /// Whether a write is done for good.
    pub fn is_done(&self, session: SessionRef, number: u64) -> bool {
        self.done.contains_key(&(session.id, session.opened, number))
    }

    /// The last slot with a write that was done: nobody who serves may be without it in the end.
    pub fn done_upto(&self) -> Slot {
        self.done.values().map(|done| done.slot).max().unwrap_or_default()
    }
}
