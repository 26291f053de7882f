//! What comes in: bytes into frames, frames into inputs, each judged by who may send it.

use super::{Role, Server};
use crate::machine::{Input, Machine, QUEUE_WAIT_MAX, RequestId, busy_for};
use crate::node::connection::Fill;
use crate::node::faults::Fate;
use crate::node::limits::{PEER_READ_BUDGET_BYTES, READ_BUDGET_BYTES};
use crate::node::ring::{Summary, What};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::frame::{self, FRAME_BYTES_MAX, FrameType, HELLO_BYTES_MAX, Header, bytes_missing};
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Outcome, Reply, Request, RequestOp, Served, Transfer};
use bytes::Bytes;

impl Server {
    /// Reads a connection until it would block, within this turn's budget, and takes every whole frame.
    pub(super) fn serve(&mut self, number: u64, machine: &Machine, now: Time) {
        if !self.connected(number, machine, now) {
            return;
        }
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        link.unread.begin(now);
        let mut budget = match link.peer() {
            Some(_) => PEER_READ_BUDGET_BYTES,
            None => READ_BUDGET_BYTES,
        };
        // What was read before a pause comes first.
        while self.take_whole(number, machine, now) {
            let Some(link) = self.links.get_mut(number) else {
                return;
            };
            if !link.connection.may_read() || link.ended {
                break;
            }
            if budget == 0 {
                self.ready.note(number);
                break;
            }
            let (count, fill) = link.connection.fill(now, budget, &mut self.scratch);
            self.metrics.bytes_in += count as u64;
            budget = budget.saturating_sub(count);
            match fill {
                Fill::Drained | Fill::Budget => {}
                Fill::End => self.on_end(number, machine, now),
                Fill::Failed(error) => {
                    // What came before it failed may still be whole.
                    self.take_whole(number, machine, now);
                    self.close(number, &error.to_string(), now);
                }
            }
        }
        self.count_input(number);
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        let is_left = link.connection.may_read();
        link.unread.end(now, is_left);
        if link.is_over() {
            return self.close(number, "", now);
        }
        self.arm(number);
    }

    /// Takes what is whole. False if the connection is paused or on its way out: no more of it is read now.
    fn take_whole(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        match self.links.get(number).map(|link| &link.role) {
            None => false,
            Some(Role::Closing) => {
                self.discard(number);
                true
            }
            Some(Role::Debug(_)) => self.take_lines(number, machine, now),
            Some(_) => self.take_frames(number, machine, now),
        }
    }

    fn take_frames(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        loop {
            let is_full = self.is_full_for(number);
            let Some(link) = self.links.get_mut(number) else {
                return false;
            };
            if matches!(link.role, Role::Closing) {
                return true;
            }
            link.paused = link.must_pause(is_full);
            link.stalled = link.paused && is_full;
            if link.paused {
                self.note_stalled(number, is_full);
                return false;
            }
            let is_fresh = matches!(link.role, Role::Fresh);
            if is_fresh && frame::looks_like_text(&link.connection.input) {
                self.answer_text(number, now);
                return true;
            }
            let limit = if is_fresh { HELLO_BYTES_MAX } else { FRAME_BYTES_MAX };
            match frame::next_frame(&mut link.connection.input, limit) {
                Ok(Some((header, body))) => {
                    link.connection.frame_taken();
                    if !may_send(&link.role, header.frame_type) {
                        let detail = format!("{:?} may not be sent here now", header.frame_type);
                        self.refuse_link(number, ErrorCode::NotAllowed, &detail, Some(machine), now);
                        return true;
                    }
                    self.on_frame(number, header, body, machine, now);
                }
                Ok(None) => {
                    let missing = bytes_missing(&link.connection.input);
                    link.connection.settle(now, missing);
                    if missing == 0 {
                        self.note_stalled(number, false);
                    }
                    return true;
                }
                Err(error) => {
                    self.refuse_link(number, error.code(), &error.to_string(), Some(machine), now);
                    return true;
                }
            }
        }
    }

    fn discard(&mut self, number: u64) {
        if let Some(link) = self.links.get_mut(number) {
            link.connection.discard_input();
        }
    }

    /// The other side sends no more. A client may still want its answers; a peer's connection is of no use.
    fn on_end(&mut self, number: u64, machine: &Machine, now: Time) {
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        link.ended = true;
        self.take_whole(number, machine, now);
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        let has_rest = !link.paused && !link.connection.input.is_empty();
        let has_words = link.connection.output_len() > 0;
        let stays = match link.role {
            Role::Client { .. } | Role::Debug(_) => !link.is_over(),
            Role::Closing => has_words,
            _ => false,
        };
        if has_rest && !matches!(link.role, Role::Debug(_) | Role::Closing) {
            self.count_error(number, ErrorCode::BadBody, "the connection ended within a frame", now);
            self.discard(number);
        }
        if !stays {
            self.close(number, "closed by the other side", now);
        }
    }

    /// Text on the binary port: one line that says where a person finds the other one.
    fn answer_text(&mut self, number: u64, now: Time) {
        self.metrics.text += 1;
        let node = self.config.node.0;
        let debug = match &self.config.debug {
            super::DebugListen::At(address) => format!("the debug port for text is {address}"),
            super::DebugListen::Off => "the debug port for text is off".to_string(),
        };
        let line = format!("ERR binary_port this is the binary port of synod node {node}; {debug}\n");
        if let Some(link) = self.links.get(number) {
            let remote = link.connection.remote();
            self.complain("text", now, &format!("{remote}: text on the binary port"));
        }
        self.last_words(number, Bytes::from(line), now);
    }

    /// A frame that the other side may send.
    fn on_frame(&mut self, number: u64, header: Header, body: Bytes, machine: &Machine, now: Time) {
        let frame = match frame::decode(header, body) {
            Ok(frame) => frame,
            Err(error) => {
                let detail = format!("{:?}: {error}", header.frame_type);
                return self.refuse_link(number, error.code(), &detail, Some(machine), now);
            }
        };
        self.metrics.frame_in(frame.name());
        match frame {
            Frame::Ping { nonce } => self.push_frame(number, 0, &Frame::Pong { nonce }),
            Frame::Pong { .. } => self.links.get_mut(number).into_iter().for_each(|link| link.ponged()),
            Frame::Error { code, detail } => self.on_error_frame(number, code, &detail, now),
            Frame::Hello(hello) => self.on_hello(number, hello, machine, now),
            Frame::Request(request) => self.on_request(number, header.request_id, request, machine, now),
            Frame::Transfer(Transfer::Ask { slot, offset, length }) if self.is_client(number) => {
                self.inputs.push(Input::BackupAsk {
                    connection: number,
                    slot,
                    offset,
                    length,
                });
            }
            Frame::Paxos(_)
            | Frame::Roster { .. }
            | Frame::Transfer(_)
            | Frame::Forward { .. }
            | Frame::ForwardReply(_) => {
                self.on_peer_frame(number, header.request_id, frame, now);
            }
            // No role may send it: refused above.
            Frame::Reply(_) => {}
        }
    }

    fn is_client(&self, number: u64) -> bool {
        let role = self.links.get(number).map(|link| &link.role);
        matches!(role, Some(Role::Client { .. }))
    }

    fn on_error_frame(&mut self, number: u64, code: ErrorCode, detail: &str, now: Time) {
        let Some(link) = self.links.get(number) else { return };
        let (remote, peer) = (link.connection.remote(), link.peer());
        let who = match peer {
            Some(peer) => format!("{peer} at {remote}"),
            None => remote.to_string(),
        };
        if peer.is_none_or(|peer| self.complaints.may_repeat(code.name(), peer, now)) {
            // Words from outside go into the log quoted.
            let line = format!("{who} refuses this node's connection: {code}: {detail:?}");
            self.complain("refused_by", now, &line);
        }
        self.close(number, "refused by the other side", now);
    }

    fn on_request(&mut self, number: u64, request_id: u64, request: Request, machine: &Machine, now: Time) {
        let id = RequestId {
            connection: number,
            request: request_id,
        };
        let Some(link) = self.links.get_mut(number) else {
            return;
        };
        let waited = link.unread.waited();
        let Role::Client { in_flight, .. } = &mut link.role else {
            return;
        };
        if !in_flight.insert(request_id) {
            let detail = format!("request id {request_id} is in flight already");
            return self.refuse_link(number, ErrorCode::NotAllowed, &detail, None, now);
        }
        self.note_request(number, request_id, &request, now);
        if matches!(request.op, RequestOp::Status) {
            return self.answer(
                id,
                status_reply(machine, self.status_json(machine, now).to_string()),
                now,
            );
        }
        if waited > QUEUE_WAIT_MAX {
            // Nothing was done about it, and who asked has little patience left: it is worth more to be in time for others.
            let (outcome, leader) = (busy_for(waited), machine.leader_hint());
            return self.answer(id, Reply { outcome, leader }, now);
        }
        self.inputs.push(Input::Client { id, request });
    }

    fn on_peer_frame(&mut self, number: u64, request_id: u64, frame: Frame, now: Time) {
        let (from, is_answer) = match self.links.get(number).map(|link| &link.role) {
            Some(Role::From(peer)) => (*peer, false),
            Some(Role::To(peer)) => (*peer, true),
            _ => return,
        };
        let summary = Summary::of(&frame, request_id);
        let fate = self.faults.on_receive(now, from);
        if fate == Fate::Drop {
            self.metrics.frame_dropped(summary.name);
            return self.ring.push(now, What::Dropped(from, summary, "fault"));
        }
        self.ring.push(now, What::From(from, summary));
        let input = match frame {
            Frame::Paxos(message) if is_answer => Some(Input::Answer { from, message }),
            frame => peer_input(from, request_id, frame),
        };
        let Some(input) = input else { return };
        match fate {
            Fate::Delay(span) => self.delayed.hold_input(now + span, input),
            Fate::Pass | Fate::Drop => self.inputs.push(input),
        }
    }
}

/// The input that a peer's frame is.
fn peer_input(from: NodeId, relay: u64, frame: Frame) -> Option<Input> {
    Some(match frame {
        Frame::Paxos(message) => Input::Paxos { from, message },
        Frame::Roster { founded, roster } => Input::Roster { from, founded, roster },
        Frame::Transfer(transfer) => Input::Transfer { from, transfer },
        Frame::Forward { request, .. } => Input::Forward { from, relay, request },
        Frame::ForwardReply(reply) => Input::ForwardReply { from, relay, reply },
        _ => return None,
    })
}

/// Whether the other side of a connection in this role may send such a frame now.
fn may_send(role: &Role, frame: FrameType) -> bool {
    let always = matches!(frame, FrameType::Ping | FrameType::Pong | FrameType::Error);
    match role {
        Role::Fresh => frame == FrameType::Hello,
        Role::Client { .. } => always || matches!(frame, FrameType::Request | FrameType::SnapshotAsk),
        // The dialler asks, the acceptor answers; the HELLO was first.
        Role::From(_) => frame.allowed_from_node() && frame != FrameType::Hello,
        Role::Greeting(_) => matches!(frame, FrameType::Hello | FrameType::Error),
        Role::To(_) => always || frame.is_short_answer(),
        Role::Dialling(_) | Role::Debug(_) | Role::Closing => false,
    }
}

fn status_reply(machine: &Machine, json: String) -> Reply {
    Reply {
        outcome: Outcome::Done(Served::Status(json)),
        leader: machine.leader_hint(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_send_what_belongs_to_it() {
        let client = Role::Client {
            in_flight: Default::default(),
            answers: Default::default(),
        };
        let peer = NodeId(2);
        // role, may send, may not
        let table: [(&Role, &[FrameType], &[FrameType]); 5] = [
            (
                &Role::Fresh,
                &[FrameType::Hello],
                &[FrameType::Request, FrameType::Ping, FrameType::Accept],
            ),
            (
                &client,
                &[
                    FrameType::Request,
                    FrameType::SnapshotAsk,
                    FrameType::Ping,
                    FrameType::Error,
                ],
                &[
                    FrameType::Hello,
                    FrameType::Accept,
                    FrameType::Forward,
                    FrameType::Reply,
                    FrameType::Roster,
                    FrameType::SnapshotChunk,
                ],
            ),
            (
                &Role::From(peer),
                &[
                    FrameType::Accept,
                    FrameType::Forward,
                    FrameType::Roster,
                    FrameType::Ping,
                ],
                &[FrameType::Hello, FrameType::Request, FrameType::Reply],
            ),
            (
                &Role::Greeting(peer),
                &[FrameType::Hello, FrameType::Error],
                &[FrameType::Accept, FrameType::Pong],
            ),
            (
                &Role::To(peer),
                &[
                    FrameType::Pong,
                    FrameType::Ping,
                    FrameType::Accepted,
                    FrameType::HeartbeatAck,
                ],
                &[
                    FrameType::Accept,
                    FrameType::Hello,
                    FrameType::Promise,
                    FrameType::Heartbeat,
                ],
            ),
        ];
        for (role, may, may_not) in table {
            assert!(may.iter().all(|frame| may_send(role, *frame)), "{role:?}");
            assert!(!may_not.iter().any(|frame| may_send(role, *frame)), "{role:?}");
        }
    }

    #[test]
    fn the_rest_of_a_frame_is_known_once_its_length_is() {
        assert_eq!(bytes_missing(&[0, 0, 0]), 0);
        assert_eq!(bytes_missing(&[0, 0, 0, 20]), 24);
        assert_eq!(bytes_missing(&[0, 0, 0, 20, 9, 9]), 22);
    }
}
