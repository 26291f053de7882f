//! How connections end, and how peers are dialled and pinged.

use super::handshake::dial_end;
use super::{Role, Server};
use crate::machine::{Input, Machine};
use crate::node::connection::Connection;
use crate::node::peers::DialEnd;
use crate::node::ring::What;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, frame};
use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io;
use std::net::SocketAddr;

/// Nodes that start together miss each other at first; the log says nothing of so many failed dials in a row.
const DIALS_BEFORE_A_LINE: u32 = 8;

impl Server {
    /// Takes up another role on a connection.
    pub(super) fn become_role(&mut self, number: u64, role: Role, now: Time) {
        if let Some(link) = self.links.get_mut(number) {
            link.become_role(role, now);
            self.arm(number);
        }
    }

    /// Queues a frame on one connection.
    pub(super) fn push_frame(&mut self, number: u64, request_id: u64, frame: &Frame) {
        self.metrics.frame_out(frame.name());
        if let Some(link) = self.links.get_mut(number) {
            // Behind other output it is dirty already, or its socket tells when it takes more.
            if link.connection.output_len() == 0 {
                self.dirty.note(number);
            }
            self.queued += link.connection.push_frame(frame, request_id);
        }
    }

    pub(super) fn push_bytes(&mut self, number: u64, bytes: Bytes) {
        if let Some(link) = self.links.get_mut(number) {
            self.queued += link.connection.push(bytes);
            self.dirty.note(number);
        }
    }

    /// Refuses what the other side did: counts and logs it, tells the other side, and closes when that is out. Who has
    /// not said HELLO yet gets ours first (`machine` makes it), as any answer on a connection begins with one.
    pub(super) fn refuse_link(
        &mut self,
        number: u64,
        code: ErrorCode,
        detail: &str,
        machine: Option<&Machine>,
        now: Time,
    ) {
        self.count_error(number, code, detail, now);
        self.refuse_quietly(number, code, detail, machine, now);
    }

    /// The same for what was counted already, and logged if it was worth a line.
    pub(super) fn refuse_quietly(
        &mut self,
        number: u64,
        code: ErrorCode,
        detail: &str,
        machine: Option<&Machine>,
        now: Time,
    ) {
        let Some(link) = self.links.get(number) else { return };
        let is_fresh = matches!(link.role, Role::Fresh);
        let mut words = Vec::new();
        if let Some(machine) = machine.filter(|_| is_fresh) {
            frame::encode(&Frame::Hello(machine.hello_to(None)), 0, &mut words);
        }
        let detail = detail.to_string();
        frame::encode(&Frame::Error { code, detail }, 0, &mut words);
        self.last_words(number, Bytes::from(words), now);
    }

    /// Queues the last bytes of a connection; it closes when they are out and the other side has closed, or soon.
    pub(super) fn last_words(&mut self, number: u64, words: Bytes, now: Time) {
        self.detach(number, DialEnd::Failed, "refused", now);
        self.push_bytes(number, words);
        self.become_role(number, Role::Closing, now);
        self.discard_of(number);
    }

    fn discard_of(&mut self, number: u64) {
        if let Some(link) = self.links.get_mut(number) {
            link.connection.discard_input();
        }
    }

    /// Closes a connection now. `why` is told where it is a link of a peer.
    pub(super) fn close(&mut self, number: u64, why: &str, now: Time) {
        let Some(link) = self.links.get(number) else { return };
        if let Some(peer) = link.peer() {
            log::debug!("connection {number} with {peer} closed: {why}");
        }
        self.detach(number, DialEnd::Failed, why, now);
        self.forget(number);
    }

    /// Drops the socket and what waits on it.
    fn forget(&mut self, number: u64) {
        let Some(mut link) = self.links.remove(number) else {
            return;
        };
        self.queued -= link.connection.output_len();
        self.uncount_input(number, link.counted);
        if let Some(at) = link.armed {
            self.timers.remove(&(at, number));
        }
        self.followers.remove(&number);
        // Dropping the socket takes it out of the poll as well; saying so first keeps the poll's books in order.
        let _ = self.poll.registry().deregister(link.connection.stream());
    }

    /// Takes a connection out of the books of its role (S4): whatever happens to its bytes, it counts no more.
    fn detach(&mut self, number: u64, end: DialEnd, why: &str, now: Time) {
        let Some(link) = self.links.get(number) else { return };
        match link.role {
            Role::Fresh => {
                self.fresh.remove(&number);
            }
            Role::Client { .. } => self.clients -= 1,
            Role::Debug(_) => self.debug_gone(number, now),
            Role::From(peer) => self.incoming_gone(number, peer, now),
            Role::To(peer) => self.outgoing_gone(peer, why, now),
            Role::Dialling(peer) | Role::Greeting(peer) => self.dial_gone(peer, end, why, now),
            Role::Closing => {}
        }
    }

    /// The session that a debug connection opened through the log ends with it.
    fn debug_gone(&mut self, number: u64, now: Time) {
        self.debug_links -= 1;
        self.followers.remove(&number);
        let timeout = self.config.request_timeout;
        let asked = match self.links.get_mut(number).map(|link| &mut link.role) {
            Some(Role::Debug(session)) => session.close(timeout),
            _ => None,
        };
        self.ask_machine(number, asked, now);
    }

    fn incoming_gone(&mut self, number: u64, peer: NodeId, now: Time) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        // One that was replaced is not the peer's any more.
        if state.incoming == Some(number) {
            state.incoming_closed(now);
        }
    }

    fn outgoing_gone(&mut self, peer: NodeId, why: &str, now: Time) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.outgoing_closed(now, &mut self.chance);
        self.inputs.push(Input::LinkDown { peer });
        self.ring.push(now, What::LinkDown(peer));
        log::info!("link to {peer} down: {why}");
    }

    fn dial_gone(&mut self, peer: NodeId, end: DialEnd, why: &str, now: Time) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if state.dial_failed(now, end, &mut self.chance) {
            self.inputs.push(Input::Died { peer });
            self.ring.push(now, What::Died(peer));
            log::info!("{peer} is gone: its connection closed and nobody listens there");
        } else if state.failed_dials() >= DIALS_BEFORE_A_LINE && self.complaints.may_repeat("dial", peer, now) {
            let address = &state.address.text;
            log::warn!("{peer} at {address} is not reached: {why}; dialling on");
        }
    }

    /// A dial came to nothing.
    pub(super) fn dial_failed(&mut self, number: u64, end: DialEnd, why: &str, now: Time) {
        self.detach(number, end, why, now);
        // Out of the books already; what is left is the socket.
        self.become_role(number, Role::Closing, now);
        self.forget(number);
    }

    /// Dials every peer whose time has come.
    pub(super) fn dial_all(&mut self, now: Time) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let due: Vec<NodeId> = self
            .peers
            .values()
            .filter(|peer| is_due(peer.dial_at()))
            .map(|peer| peer.node)
            .collect();
        for peer in due {
            self.dial(peer, now);
        }
    }

    fn dial(&mut self, peer: NodeId, now: Time) {
        self.metrics.dials += 1;
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let dialled = state.address.next(now).and_then(|remote| {
            let number = self.links.next_number();
            Ok((self.connect(remote, number)?, remote, number))
        });
        match dialled {
            Ok((stream, remote, number)) => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.dialled(number);
                }
                self.add(Connection::new(stream, remote, now), Role::Dialling(peer), now);
            }
            Err(error) => {
                self.dial_gone(peer, dial_end(&error), &error.to_string(), now);
            }
        }
    }

    fn connect(&self, remote: SocketAddr, number: u64) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(remote)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(number as usize), interest)?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Asks whether somebody is there, unless the last question is unanswered.
    pub(super) fn ping(&mut self, number: u64, now: Time) {
        let due = self.links.get_mut(number).is_some_and(|link| link.ping_due(now));
        if due {
            self.push_frame(number, 0, &Frame::Ping { nonce: now.0 });
        }
    }
}
