//! Requests on their way: checked, queued, proposed, relayed; and the class of outcome that each ends in.
//!
//! `rules.md` 17: a class of outcome speaks of one attempt. What was only queued is not done and is never proposed later;
//! what was proposed is never refused afterwards, but by the state machine itself; when its leader steps down it is
//! unknown. A waiting write is matched to the body that carries it, not to a slot alone: another entry may be chosen in
//! the slot that it was proposed for (`rules.md` 10).

use super::io::RequestId;
use crate::kv::state::Applied;
use crate::kv::{Command, Expect, Op, Refusal};
use crate::paxos::{Entry, NodeId, Start};
use crate::time::Time;
use crate::wire::{Code, Outcome, Request, RequestOp, Served};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A write that would wait longer than this to be proposed is refused instead. So a node that is asked for more than it can
/// do serves what it takes soon, and refuses the rest at once. It is a fifth of the time after which a client makes its first
/// attempt again, elsewhere, while the first would still be served: nobody sees what a request waits for on its way here
/// and back. Short of a full window nothing waits from turn to turn; with one, other nodes' disks that stall for longer than
/// this, or a leader that must campaign again, are told to new writes as `busy`, and they come back. A write that the turn
/// in which it came can propose, with all that waits before it, is not refused: whatever that waited for is over.
pub const QUEUE_WAIT_MAX: Duration = Duration::from_millis(200);

/// Who is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of this node.
    Client(RequestId),
    /// A peer that relays for a client of its own, under its relay number.
    Peer { node: NodeId, relay: u64 },
}

/// A write that waits to be proposed.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) origin: Origin,
    pub(super) command: Command,
    /// When it came.
    pub(super) since: Time,
    pub(super) deadline: Time,
    pub(super) bytes: usize,
}

/// A bounded queue of writes, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    queue: VecDeque<Queued>,
    bytes: usize,
}

/// A batch that this node proposed, and who waits for each of its commands.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) entry: Entry,
    pub(super) waiting: Vec<Waiter>,
}

/// Who waits for one command of a batch, until when.
#[derive(Debug)]
pub(super) struct Waiter {
    /// None once it was told that its deadline has passed.
    pub(super) origin: Option<Origin>,
    pub(super) deadline: Time,
}

/// A request that this node forwarded to the leader.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) id: RequestId,
    pub(super) to: NodeId,
    pub(super) deadline: Time,
    pub(super) is_write: bool,
    bytes: usize,
}

/// All relays in flight, by this node's own numbers.
#[derive(Debug, Default)]
pub(super) struct Relays {
    next: u64,
    bytes: usize,
    in_flight: BTreeMap<u64, Relay>,
}

impl Proposed {
    /// Takes out those whose deadline has come: the write itself goes on.
    pub(super) fn take_expired(&mut self, now: Time) -> impl Iterator<Item = Origin> + '_ {
        let due = self.waiting.iter_mut().filter(move |waiter| now >= waiter.deadline);
        due.filter_map(|waiter| waiter.origin.take())
    }
}

impl WriteQueue {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How long the first has been waiting: about as long as one that came now would.
    pub(super) fn wait(&self, now: Time) -> Duration {
        self.queue
            .front()
            .map_or(Duration::ZERO, |first| now.since(first.since))
    }

    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.bytes;
        self.queue.push_back(queued);
    }

    /// The next write, if it fits into `room` bytes or `is_first` (one command always fits).
    pub(super) fn pop_fitting(&mut self, room: usize, is_first: bool) -> Option<Queued> {
        let fits = self
            .queue
            .front()
            .is_some_and(|queued| is_first || queued.bytes <= room);
        let queued = if fits { self.queue.pop_front() } else { None }?;
        self.bytes -= queued.bytes;
        Some(queued)
    }

    /// Takes out everything whose deadline has come.
    pub(super) fn take_expired(&mut self, now: Time) -> Vec<Origin> {
        self.take_if(|queued| now >= queued.deadline)
    }

    pub(super) fn take_all(&mut self) -> Vec<Origin> {
        self.take_if(|_| true)
    }

    fn take_if(&mut self, is_taken: impl Fn(&Queued) -> bool) -> Vec<Origin> {
        let mut taken = Vec::new();
        let bytes = &mut self.bytes;
        self.queue.retain(|queued| {
            let keep = !is_taken(queued);
            if !keep {
                *bytes -= queued.bytes;
                taken.push(queued.origin);
            }
            keep
        });
        taken
    }
}

impl Relays {
    /// Numbers begin where no start before has counted: an answer to a relay of an earlier life of this process, which the
    /// leader may still owe, must not pass for the answer to one of this life (`rules.md` 22). The start's token says where,
    /// since it is drawn at random from 64 bits; a directory that was emptied counts its starts anew.
    pub(super) fn new(start: Start) -> Relays {
        Relays {
            next: start.token >> 1, // counting on from there comes to no end
            ..Relays::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers a relay.
    pub(super) fn add(&mut self, id: RequestId, to: NodeId, deadline: Time, request: &Request) -> u64 {
        self.next += 1;
        let (is_write, bytes) = (matches!(request.op, RequestOp::Write(_)), request_bytes(request));
        self.bytes += bytes;
        self.in_flight.insert(
            self.next,
            Relay {
                id,
                to,
                deadline,
                is_write,
                bytes,
            },
        );
        self.next
    }

    /// Takes the relay that `from` answers; `None` if it is settled already or was never sent there.
    pub(super) fn take(&mut self, from: NodeId, relay: u64) -> Option<Relay> {
        if self.in_flight.get(&relay).is_none_or(|relay| relay.to != from) {
            return None;
        }
        let relay = self.in_flight.remove(&relay)?;
        self.bytes -= relay.bytes;
        Some(relay)
    }

    /// Takes out every relay that `is_taken`.
    pub(super) fn take_if(&mut self, is_taken: impl Fn(&Relay) -> bool) -> Vec<Relay> {
        let numbers: Vec<u64> = self
            .in_flight
            .iter()
            .filter(|(_, relay)| is_taken(relay))
            .map(|(number, _)| *number)
            .collect();
        let taken: Vec<Relay> = numbers
            .iter()
            .filter_map(|number| self.in_flight.remove(number))
            .collect();
        self.bytes -= taken.iter().map(|relay| relay.bytes).sum::<usize>();
        taken
    }
}

impl Relay {
    /// What a relay ends in when its answer will not come. It was sent: a write is unknown, a read had no effect.
    pub(super) fn lost(&self, code: Code) -> Outcome {
        match code {
            _ if self.is_write => Outcome::Unknown { code },
            Code::DeadlinePassed => not_done(Code::Expired),
            _ => not_done(Code::NoLeader),
        }
    }
}

/// Refuses, without more words.
pub(super) fn not_done(code: Code) -> Outcome {
    Outcome::NotDone {
        code,
        retry_after_ms: retry_after_ms(code),
        detail: String::new(),
    }
}

/// Refuses because it, or others before it, have waited for `wait`: by then they may be through.
pub fn busy_for(wait: Duration) -> Outcome {
    Outcome::NotDone {
        code: Code::Busy,
        retry_after_ms: u32::try_from(wait.min(QUEUE_WAIT_MAX).as_millis()).unwrap_or(u32::MAX),
        detail: String::new(),
    }
}

/// When it may make sense to try again.
fn retry_after_ms(code: Code) -> u32 {
    match code {
        Code::Busy => 20,
        Code::NoLeader | Code::NoQuorum => 50,
        Code::NotFounded | Code::NoSpace => 500,
        _ => 0,
    }
}

/// What the state machine made of a command, as an outcome.
pub(super) fn applied_outcome(applied: Applied) -> Outcome {
    match applied {
        Applied::Done(done) => Outcome::Done(Served::Done(done)),
        Applied::Refused(Refusal::SessionExpired) => not_done(Code::SessionExpired),
        Applied::Refused(Refusal::NumberForgotten) => not_done(Code::NumberForgotten),
        Applied::Refused(Refusal::Busy) => not_done(Code::Busy),
    }
}

/// What a request holds in memory, about.
pub(super) fn request_bytes(request: &Request) -> usize {
    let payload = match &request.op {
        RequestOp::Write(op) => op_bytes(op),
        RequestOp::Get { key } | RequestOp::GetStale { key, .. } => key.len(),
        RequestOp::Status => 0,
    };
    payload + size_of::<Queued>()
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Open | Op::Close => 0,
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Del { key, .. } => key.len(),
        Op::Cas {
            key,
            expect: Expect::Value(old),
            value,
            ..
        } => key.len() + old.len() + value.len(),
        Op::Cas {
            key,
            expect: Expect::Version(_),
            value,
            ..
        } => key.len() + value.len(),
    }
}

/// What does not hang on applying is refused before anything is proposed.
///
/// # Errors
/// The outcome with which the request is refused.
pub(super) fn check(request: &Request) -> Result<(), Outcome> {
    request.check().map_err(|(code, detail)| Outcome::NotDone {
        code,
        retry_after_ms: 0,
        detail,
    })
}
