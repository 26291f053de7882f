//! What goes out: the node's side of the [`Door`].

use super::{Link, Role, Server};
use crate::machine::{Input, Machine, RequestId};
use crate::node::connection::Connection;
use crate::node::debug;
use crate::node::door::Door;
use crate::node::faults::Fate;
use crate::node::limits::{DELAYED_FRAMES_MAX, PEER_BULK_MAX_BYTES, PEER_OUTPUT_MAX_BYTES, PEER_RELAYED_HIGH_BYTES};
use crate::node::metrics::outcome_name;
use crate::node::output::Flush;
use crate::node::ring::{Summary, What};
use crate::paxos::{Message, NodeId};
use crate::time::{Boottime, Time};
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Record, Reply, Transfer, frame};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// Frames that an injected delay holds back, by the time at which they go on. At [`DELAYED_FRAMES_MAX`] the next one is
/// lost, as on a network whose queue is full.
#[derive(Debug, Default)]
pub(super) struct Delayed {
    frames: BTreeMap<(Time, u64), Held>,
    count: u64,
}

#[derive(Debug)]
enum Held {
    In(Box<Input>),
    /// On the connection of this number.
    Out(u64, Bytes),
}

impl Delayed {
    pub(super) fn next(&self) -> Option<Time> {
        self.frames.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn hold_input(&mut self, at: Time, input: Input) {
        self.hold(at, Held::In(Box::new(input)));
    }

    fn hold(&mut self, at: Time, held: Held) {
        if self.frames.len() < DELAYED_FRAMES_MAX {
            self.count += 1;
            self.frames.insert((at, self.count), held);
        }
    }
}

impl Door for Server {
    fn now(&mut self) -> Time {
        self.look_at_clock()
    }

    fn boottime(&mut self) -> Boottime {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        Boottime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn gather(&mut self, machine: &Machine, wait: Option<Duration>, inputs: &mut Vec<Input>) -> io::Result<()> {
        self.take_in(machine, wait)?;
        self.hand_inputs(inputs);
        Ok(())
    }

    fn gather_more(&mut self, machine: &Machine, inputs: &mut Vec<Input>) -> io::Result<()> {
        self.take_what_comes(machine, Some(Duration::ZERO))?;
        self.hand_inputs(inputs);
        Ok(())
    }

    fn send(&mut self, to: NodeId, request_id: u64, frame: Frame) {
        let now = self.clock;
        let summary = Summary::of(&frame, request_id);
        let number = match self.link_for(to, &frame) {
            Ok(number) => number,
            Err(why) => return self.drop_frame(now, to, summary, why),
        };
        match self.faults.on_send(now, to) {
            Fate::Drop => self.drop_frame(now, to, summary, "fault"),
            Fate::Delay(span) => {
                let bytes = self.encode_once(request_id, frame);
                self.delayed.hold(now + span, Held::Out(number, bytes));
            }
            Fate::Pass => {
                self.ring.push(now, What::To(to, summary));
                self.metrics.frame_out(summary.name);
                self.push_or_hold((to, number), request_id, frame);
            }
        }
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        self.answer(id, reply, self.clock);
    }

    fn hand(&mut self, connection: u64, transfer: Transfer) {
        self.push_frame(connection, 0, &Frame::Transfer(transfer));
    }

    fn refuse(&mut self, peer: NodeId, code: ErrorCode, detail: &str) {
        let now = self.clock;
        let Some(state) = self.peers.get(&peer) else { return };
        for number in [state.incoming, state.outgoing].into_iter().flatten() {
            self.refuse_link(number, code, detail, None, now);
        }
    }

    fn flush(&mut self) {
        let now = self.clock;
        self.feed_followers();
        if self.dirty.is_empty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.taken);
        self.dirty.take(&mut dirty);
        for number in &dirty {
            self.flush_link(*number, now);
        }
        self.taken = dirty;
    }

    fn before_sync(&mut self, _: &[Record]) {
        let delay = self.faults.sync_delay(self.clock);
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
    }

    fn sliced(&mut self, took: Duration) {
        self.metrics.sliced(took);
    }

    fn event(&mut self, at: Time, what: What) {
        match &what {
            What::Note(note) if note.is_alarm() => log::error!("{note}"),
            What::Note(note) => log::info!("{note}"),
            What::Synced { records, took, .. } => self.metrics.synced(*records, *took),
            _ => {}
        }
        self.ring.push(at, what);
    }
}

impl Server {
    fn hand_inputs(&mut self, inputs: &mut Vec<Input>) {
        self.metrics.inputs += self.inputs.len() as u64;
        if inputs.is_empty() {
            std::mem::swap(inputs, &mut self.inputs);
        } else {
            inputs.append(&mut self.inputs);
        }
    }

    /// The connection on which a frame for a peer leaves; or why it is lost here and now.
    fn link_for(&self, to: NodeId, frame: &Frame) -> Result<u64, &'static str> {
        let number = self.peers.get(&to).and_then(|peer| peer.link_for(frame));
        let number = number.ok_or("no link")?;
        let link = self.links.get(number).ok_or("no link")?;
        // Catch-up brings bulk later; it must not pile up before heartbeats and votes.
        let is_bulk = matches!(
            frame,
            Frame::Paxos(
                Message::Accept { .. } | Message::Chosen { .. } | Message::Promise(_) | Message::RecoverAnswer(_)
            ) | Frame::Transfer(Transfer::Chunk { .. })
        );
        if is_bulk && link.connection.output_len() > PEER_BULK_MAX_BYTES {
            return Err("the peer is slow");
        }
        Ok(number)
    }

    fn drop_frame(&mut self, now: Time, to: NodeId, summary: Summary, why: &'static str) {
        self.metrics.frame_dropped(summary.name);
        self.ring.push(now, What::Dropped(to, summary, why));
    }

    /// The bytes of a frame; an ACCEPT that goes to several peers, one behind the other, is encoded once.
    fn encode_once(&mut self, request_id: u64, frame: Frame) -> Bytes {
        if let Some((last, bytes)) = &self.encoded
            && is_same_accept(last, &frame)
        {
            return bytes.clone();
        }
        let bytes = frame::encode_to_bytes(&frame, request_id);
        if is_accept(&frame) {
            self.encoded = Some((frame, bytes.clone()));
        }
        bytes
    }

    /// What is relayed may be much at once, many large values that were read in one turn; it waits for room behind its
    /// like. Nothing hangs on its order towards other frames.
    fn push_or_hold(&mut self, (to, number): (NodeId, u64), request_id: u64, frame: Frame) {
        let is_relayed = matches!(frame, Frame::Forward { .. } | Frame::ForwardReply(_));
        match self.peers.get_mut(&to) {
            Some(peer) if is_relayed => {
                peer.held.push_back((request_id, frame));
                self.push_held(to);
            }
            _ if is_accept(&frame) => {
                let bytes = self.encode_once(request_id, frame);
                self.push_to_peer(number, |connection| connection.push(bytes));
            }
            _ => self.push_to_peer(number, |connection| connection.push_frame(&frame, request_id)),
        }
    }

    /// Encodes what is held for a peer, as long as there is room for it.
    fn push_held(&mut self, to: NodeId) {
        while let Some(peer) = self.peers.get_mut(&to) {
            let Some(number) = peer.outgoing else { return };
            let link = self.links.get(number);
            let has_room = link.is_some_and(|link| link.connection.output_len() <= PEER_RELAYED_HIGH_BYTES);
            let Some((request_id, frame)) = has_room.then(|| peer.held.pop_front()).flatten() else {
                return;
            };
            self.push_to_peer(number, |connection| connection.push_frame(&frame, request_id));
        }
    }

    /// Queues what `push` puts behind the output of a connection with a peer; it tells how many bytes that is.
    fn push_to_peer(&mut self, number: u64, push: impl FnOnce(&mut Connection) -> usize) {
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        // Behind other output it is dirty already, or its socket tells when it takes more.
        if link.connection.output_len() == 0 {
            self.dirty.note(number);
        }
        self.queued += push(&mut link.connection);
        if link.connection.output_len() > PEER_OUTPUT_MAX_BYTES {
            let now = self.clock;
            self.count_error(number, ErrorCode::SlowReader, "its queue is full", now);
            self.close(number, "its queue is full", now);
        }
    }

    /// Lets go on what an injected delay has held back long enough.
    pub(super) fn release_delayed(&mut self, now: Time) {
        while self.delayed.next().is_some_and(|at| at <= now) {
            match self.delayed.frames.pop_first() {
                Some((_, Held::In(input))) => self.inputs.push(*input),
                Some((_, Held::Out(number, bytes))) => self.push_to_peer(number, |connection| connection.push(bytes)),
                None => return,
            }
        }
    }

    /// Queues the answer to one request of a client or of the debug port.
    pub(super) fn answer(&mut self, id: RequestId, reply: Reply, now: Time) {
        let RequestId { connection, request } = id;
        self.metrics.reply(&reply);
        let outcome = outcome_name(&reply);
        self.ring.push(
            now,
            What::Reply {
                connection,
                request,
                outcome,
            },
        );
        let Some(link) = self.links.get_mut(connection) else {
            self.metrics.replies_dropped += 1;
            return;
        };
        let was_paused = link.paused;
        match &mut link.role {
            Role::Client { .. } => {
                if let Some(reply) = link.take_answer(request, reply) {
                    self.push_frame(connection, request, &Frame::Reply(reply));
                }
            }
            Role::Debug(session) => {
                let mut out = Vec::new();
                let asked = debug::answer(session, now, request, &reply, &mut out);
                self.ask_machine(connection, asked, now);
                self.push_bytes(connection, out.into());
                self.arm(connection);
            }
            _ => self.metrics.replies_dropped += 1,
        }
        if was_paused {
            self.resume(connection);
        }
    }

    /// Encodes answers that wait, as long as there is room for them.
    fn encode_answers(&mut self, number: u64) {
        while let Some((request, reply)) = self.links.get_mut(number).and_then(Link::next_answer) {
            self.push_frame(number, request, &Frame::Reply(reply));
        }
    }

    /// Reads on where a pause has ended (S1).
    pub(super) fn resume(&mut self, number: u64) {
        let Some(link) = self.links.get(number).filter(|link| link.paused) else {
            return;
        };
        if !link.must_pause(self.is_full_for(number)) {
            self.ready.note(number);
        }
    }

    pub(super) fn flush_link(&mut self, number: u64, now: Time) {
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        if !link.connection.may_write() {
            return;
        }
        match link.connection.flush(now) {
            Ok((written, flush)) => {
                self.queued -= written;
                self.metrics.bytes_out += written as u64;
                self.on_flushed(number, flush, now);
                self.arm(number);
            }
            Err(error) => self.close(number, &error.to_string(), now),
        }
    }

    fn on_flushed(&mut self, number: u64, flush: Flush, now: Time) {
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        match flush {
            Flush::Budget => {
                self.dirty.note(number);
            }
            Flush::Empty if matches!(link.role, Role::Closing) => {
                link.connection.shut_write();
                if link.ended {
                    return self.close(number, "", now);
                }
            }
            Flush::Empty if link.is_over() => {
                link.connection.shut_write();
                return self.close(number, "", now);
            }
            Flush::Empty | Flush::Blocked => {}
        }
        if let Role::To(peer) = link.role {
            self.push_held(peer);
        }
        self.encode_answers(number);
        self.resume(number);
    }
}

fn is_accept(frame: &Frame) -> bool {
    matches!(frame, Frame::Paxos(Message::Accept { .. }))
}

/// Whether two frames are one ACCEPT: then they are equal in every byte.
fn is_same_accept(a: &Frame, b: &Frame) -> bool {
    let (
        Frame::Paxos(Message::Accept {
            ballot,
            config,
            slot,
            chosen_upto,
            entry,
        }),
        Frame::Paxos(Message::Accept {
            ballot: other_ballot,
            config: other_config,
            slot: other_slot,
            chosen_upto: other_chosen_upto,
            entry: other_entry,
        }),
    ) = (a, b)
    else {
        return false;
    };
    // One slot and ballot has one entry for ever (`rules.md` 9); the shared bytes make it sure without reading them.
    let is_same_entry = entry.crc == other_entry.crc
        && entry.body.as_ptr() == other_entry.body.as_ptr()
        && entry.body.len() == other_entry.body.len();
    is_same_entry && (ballot, config, slot, chosen_upto) == (other_ballot, other_config, other_slot, other_chosen_upto)
}
