//! Clients in the world: what they ask, what they are told, how they die, and what of theirs arrives late.

use super::door::{self, Arrival};
use super::faults::Fault;
use super::network::End;
use super::queue::Event;
use super::report::{Counts, Violation};
use super::words;
use super::world::World;
use crate::client::End as OperationEnd;
use crate::client::machine::{Effect, Input as ClientInput};
use crate::kv::Op;
use crate::wire::{Frame, Hello, Request, RequestOp, frame};
use crate::workload::plan::Ended;
use crate::workload::record::RecordError;
use bytes::Bytes;

/// Old writes that are kept, to arrive again.
const OLD_WRITES_MAX: usize = 64;

/// A write that a client has sent, and that may arrive again: if it was done, or nobody knows whether. What its client was
/// told to be not done, no copy may do: that is a promise of the cluster about the attempts that reached it, and of the
/// network about the others.
pub(super) struct OldWrite {
    pub(super) bytes: Bytes,
    pub(super) request: Request,
    client: usize,
    /// Nobody knows, or ever will.
    pub(super) is_unknown: bool,
}

impl World {
    pub(super) fn begin_lanes(&mut self, client: usize) {
        for lane in 0..self.clients[client].lanes.len() {
            self.submit_later(client, lane);
        }
    }

    fn submit_later(&mut self, client: usize, lane: usize) {
        let pause = self.clients[client].pause(lane);
        let life = self.clients[client].life;
        self.queue.push(self.now + pause, Event::Submit { client, life, lane });
    }

    pub(super) fn submit(&mut self, client: usize, lane: usize) -> Result<(), Violation> {
        let Some(patience) = self.may_submit(client, lane) else {
            return Ok(());
        };
        let id = self.clients[client].next_id(lane);
        if patience.is_none() && !self.options.keeps_op(id) {
            self.clients[client].leave_out(lane);
            self.submit_later(client, lane);
            return Ok(());
        }
        self.shared.transcript.began(id);
        let (op, input) = self.clients[client].next(lane, self.now, patience);
        if is_recorded(&op) {
            let place = self.place(client, lane);
            let recorded = self.recorder.invoke(place, &op, self.now);
            recorded.map_err(|error| unrecorded(&error))?;
        }
        self.tell_of(End::Client(client), || {
            format!("begins operation {id}: {}", words::asked(&op))
        });
        self.client_input(client, input)
    }

    /// The place of a lane in the history.
    fn place(&self, client: usize, lane: usize) -> usize {
        let before = self.clients[..client].iter().map(|client| client.lanes.len());
        before.sum::<usize>() + lane
    }

    pub(super) fn client_input(&mut self, client: usize, input: ClientInput) -> Result<(), Violation> {
        let effects = self.clients[client].step(self.now, input);
        for effect in effects {
            match effect {
                Effect::Connect { endpoint } => {
                    let connection = self.shared.numbers.get() + 1;
                    self.shared.numbers.set(connection);
                    self.clients[client].connections.insert(endpoint, connection);
                    let node = self.clients[client].node_of(endpoint);
                    self.dial(connection, End::Client(client), node, self.now);
                }
                Effect::Send {
                    endpoint,
                    request_id,
                    frame,
                } => self.client_sends(client, endpoint, request_id, &frame),
                Effect::Close { endpoint } => {
                    if let Some(connection) = self.clients[client].connections.remove(&endpoint) {
                        self.hang_up(connection, End::Client(client), self.now);
                    }
                }
                Effect::Finished { token, end } => self.on_finished(client, token, &end)?,
                Effect::Closed => {}
            }
        }
        if let Some(at) = self.clients[client].machine.deadline() {
            let at = at.max(self.now);
            let there = &mut self.clients[client];
            if there.wake_at.is_none_or(|wake| wake > at) {
                there.wake_at = Some(at);
                self.queue.push(at, Event::ClientWake(client));
            }
        }
        Ok(())
    }

    fn client_sends(&mut self, client: usize, endpoint: usize, request_id: u64, frame: &Frame) {
        let bytes = frame::encode_to_bytes(frame, request_id);
        if let Frame::Request(request) = frame
            && let RequestOp::Write(_) = request.op
        {
            if self.old_writes.len() == OLD_WRITES_MAX {
                self.old_writes.pop_front();
            }
            self.old_writes.push_back(OldWrite {
                bytes: bytes.clone(),
                request: request.clone(),
                client,
                is_unknown: false,
            });
        }
        if let Some(connection) = self.clients[client].connections.get(&endpoint) {
            self.send(*connection, End::Client(client), bytes, self.now);
        }
    }

    fn on_finished(&mut self, client: usize, token: u64, end: &OperationEnd) -> Result<(), Violation> {
        let (lane, op) = self.clients[client].ended(token, end);
        if let (OperationEnd::Unknown(_), Some(op)) = (end, &op) {
            self.stays_unknown(client, op);
        }
        self.tell_of(End::Client(client), || {
            format!("is told on lane {lane}: {}", words::end(end))
        });
        let (cause, why) = end
            .failure()
            .map_or(("", String::new()), |failure| (failure.cause.name(), String::new()));
        let (ended, count): (Ended, fn(&mut Counts) -> &mut u64) = match end {
            OperationEnd::Done(served) => (Ended::Done(served.clone()), |counts| &mut counts.done),
            OperationEnd::NotDone(_) => (Ended::NotDone { cause, why }, |counts| &mut counts.not_done),
            OperationEnd::Unknown(_) => (Ended::Unknown { cause, why }, |counts| &mut counts.unknown),
        };
        *count(&mut self.shared.counts.borrow_mut()) += 1;
        if op.as_ref().is_some_and(is_recorded) {
            self.record_end(client, lane, &ended)?;
        }
        self.judge_last(client, lane, end)?;
        self.submit_later(client, lane);
        Ok(())
    }

    /// Nobody will ever be told what became of an operation: copies of it may arrive at any time. Two deletions of one
    /// key look the same, and the other one may be certain, so those are left out.
    fn stays_unknown(&mut self, client: usize, op: &RequestOp) {
        if matches!(op, RequestOp::Write(Op::Del { .. })) {
            return;
        }
        let same = |old: &&mut OldWrite| old.client == client && old.request.op == *op;
        self.old_writes
            .iter_mut()
            .filter(same)
            .for_each(|old| old.is_unknown = true);
    }

    fn record_end(&mut self, client: usize, lane: usize, ended: &Ended) -> Result<(), Violation> {
        let place = self.place(client, lane);
        let recorded = self.recorder.end(place, ended, self.now);
        recorded.map_err(|error| unrecorded(&error))
    }

    /// A client's process dies; another takes its place.
    pub(super) fn end_client(&mut self, client: usize) -> Result<(), Violation> {
        self.tell_of(End::Client(client), || "dies, and another takes its place".into());
        let (cause, why) = ("died", String::new());
        for lane in 0..self.clients[client].lanes.len() {
            if let Some(op) = self.clients[client].lanes[lane].clone() {
                self.stays_unknown(client, &op);
                self.shared.counts.borrow_mut().unknown += 1;
                let why = why.clone();
                if is_recorded(&op) {
                    self.record_end(client, lane, &Ended::Unknown { cause, why })?;
                }
            }
        }
        let open: Vec<u64> = self.clients[client].connections.values().copied().collect();
        for connection in open {
            self.hang_up(connection, End::Client(client), self.now);
        }
        let size = self.nodes.len();
        self.clients[client].die(size);
        self.begin_lanes(client);
        Ok(())
    }

    /// A late copy of a write arrives, on a connection whose answers nobody reads.
    pub(super) fn on_ghost(&mut self, node: usize, bytes: Bytes) -> Result<(), Violation> {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        let connection = self.shared.numbers.get() + 1;
        self.shared.numbers.set(connection);
        let hello = Hello::of_client(String::new(), 0);
        let copied = words::frame(&door::decode(bytes.clone()).1).unwrap_or_default();
        self.tell(|| format!("an old copy arrives at {}: {copied}", End::Node(node)));
        let Some(life) = &mut self.nodes[node].life else {
            return Ok(());
        };
        life.door.arrive(Arrival::Accepted(connection), self.now);
        let hello = frame::encode_to_bytes(&Frame::Hello(hello), 0);
        life.door.arrive(Arrival::Frame(connection, hello), self.now);
        self.fault(Fault::LateDuplicate);
        self.arrive(node, Arrival::Frame(connection, bytes))
    }
}

/// A read that may be stale has no place in a history that must be linearizable; the judge looks at its age.
fn is_recorded(op: &RequestOp) -> bool {
    !matches!(op, RequestOp::GetStale { .. })
}

fn unrecorded(error: &RecordError) -> Violation {
    Violation {
        rule: "history",
        words: error.to_string(),
    }
}
