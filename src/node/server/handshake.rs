//! HELLO, both ways: the dialler sends its own first; the acceptor answers with its own, or with its own and an ERROR.

use super::{Role, Server};
use crate::machine::{Input, Machine};
use crate::node::link::InFlight;
use crate::node::peers::DialEnd;
use crate::node::ring::What;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::frame::FrameType;
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Hello, HelloKind, frame};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};

/// Where the type stands in a frame.
const TYPE_AT: usize = 8;

impl Server {
    /// A HELLO, from whichever side. Its version was checked when it was decoded.
    pub(super) fn on_hello(&mut self, number: u64, hello: Hello, machine: &Machine, now: Time) {
        match (self.links.get(number).map(|link| &link.role), &hello.kind) {
            (Some(Role::Fresh), HelloKind::Client) => self.greet_client(number, &hello, machine, now),
            (Some(Role::Fresh), HelloKind::Node(_)) => self.greet_peer(number, hello, machine, now),
            (Some(&Role::Greeting(peer)), _) => self.greeted_by(number, peer, hello, machine, now),
            _ => {}
        }
    }

    fn greet_client(&mut self, number: u64, hello: &Hello, machine: &Machine, now: Time) {
        let own = machine.hello_to(None);
        let refusal = if !hello.cluster_name.is_empty() && hello.cluster_name != own.cluster_name {
            let detail = format!("this is cluster {:?}, not {:?}", own.cluster_name, hello.cluster_name);
            Some((ErrorCode::WrongCluster, detail))
        } else if hello.cluster_id != 0 && own.cluster_id != 0 && hello.cluster_id != own.cluster_id {
            let detail = format!("this is cluster {:016x}, not {:016x}", own.cluster_id, hello.cluster_id);
            Some((ErrorCode::WrongCluster, detail))
        } else if self.clients >= self.config.max_connections {
            self.metrics.refused += 1;
            let detail = format!("{} connections are the limit", self.config.max_connections);
            Some((ErrorCode::TooManyConnections, detail))
        } else if self.ending_since.is_some() {
            Some((ErrorCode::ShuttingDown, "this node is shutting down".to_string()))
        } else {
            None
        };
        if let Some((code, detail)) = refusal {
            return self.refuse_link(number, code, &detail, Some(machine), now);
        }
        self.push_frame(number, 0, &Frame::Hello(own));
        self.fresh.remove(&number);
        self.clients += 1;
        let role = Role::Client {
            in_flight: InFlight::default(),
            answers: VecDeque::new(),
        };
        self.become_role(number, role, now);
    }

    fn greet_peer(&mut self, number: u64, hello: Hello, machine: &Machine, now: Time) {
        let HelloKind::Node(node) = &hello.kind else { return };
        let from = node.node;
        if let Err((code, detail)) = self.judge(from, &hello, machine) {
            return self.refuse_peer(number, from, code, &detail, machine, now);
        }
        // What it says of the peer's earlier life is what was known before this HELLO is taken in.
        self.push_frame(number, 0, &Frame::Hello(machine.hello_to(Some(from))));
        self.fresh.remove(&number);
        self.become_role(number, Role::From(from), now);
        let features = hello.features;
        self.inputs.push(Input::Hello {
            from,
            hello,
            dialled: true,
        });
        let older = self
            .peers
            .get_mut(&from)
            .and_then(|peer| peer.accepted(number, features));
        if let Some(older) = older {
            self.metrics.error(ErrorCode::Replaced);
            let detail = "a newer connection of the same node";
            self.refuse_quietly(older, ErrorCode::Replaced, detail, None, now);
        }
    }

    /// A node that may not join dials again and again: the log says so now and then, not each time.
    fn refuse_peer(&mut self, number: u64, from: NodeId, code: ErrorCode, detail: &str, machine: &Machine, now: Time) {
        self.metrics.error(code);
        let remote = self.links.get(number).map(|link| link.connection.remote());
        if let Some(remote) = remote
            && self.complaints.may_repeat(code.name(), from, now)
        {
            let line = format!("{from} at {remote} is refused: {code}: {detail}");
            self.complain(code.name(), now, &line);
        }
        // Our HELLO says what is remembered of it: that is how a node finds out that it lost its memory.
        let mut words = Vec::new();
        frame::encode(&Frame::Hello(machine.hello_to(Some(from))), 0, &mut words);
        let detail = detail.to_string();
        frame::encode(&Frame::Error { code, detail }, 0, &mut words);
        self.last_words(number, words.into(), now);
    }

    /// The answer to our own HELLO, from the node that was dialled as `peer`.
    fn greeted_by(&mut self, number: u64, peer: NodeId, hello: Hello, machine: &Machine, now: Time) {
        let from = match &hello.kind {
            HelloKind::Node(node) => node.node,
            HelloKind::Client => {
                return self.refuse_link(number, ErrorCode::NotAllowed, "a client answers as a node", None, now);
            }
        };
        if from != peer {
            let detail = format!("{from} answers at the address of {peer}");
            return self.refuse_link(number, ErrorCode::UnknownNode, &detail, None, now);
        }
        if let Err((code, detail)) = self.judge(from, &hello, machine) {
            return self.refuse_link(number, code, &detail, None, now);
        }
        self.inputs.push(Input::Hello {
            from,
            hello,
            dialled: false,
        });
        if self.is_refused(number) {
            // The ERROR behind the HELLO closes the connection; what the HELLO tells still counts.
            return;
        }
        self.inputs.push(Input::LinkUp { peer });
        self.become_role(number, Role::To(peer), now);
        self.peers.get_mut(&peer).into_iter().for_each(|peer| peer.came_up(now));
        self.ring.push(now, What::LinkUp(peer));
        log::info!("link to {peer} up");
    }

    /// Whether an ERROR stands next in what came in: an acceptor that refuses sends it together with its HELLO.
    fn is_refused(&self, number: u64) -> bool {
        let input = self.links.get(number).map(|link| &link.connection.input);
        input.and_then(|input| input.get(TYPE_AT)) == Some(&FrameType::Error.byte())
    }

    fn judge(&self, from: NodeId, hello: &Hello, machine: &Machine) -> Result<(), (ErrorCode, String)> {
        machine.check_hello(hello)?;
        if !self.peers.contains_key(&from) {
            let code = if from == self.config.node {
                ErrorCode::OwnId
            } else {
                ErrorCode::UnknownNode
            };
            return Err((code, format!("{from} does not stand in this node's --cluster")));
        }
        Ok(())
    }

    /// A dialled connection: looks whether it is connected by now, and says HELLO. False if it is not, or failed.
    pub(super) fn connected(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        let Some(link) = self.links.get_mut(number) else {
            return false;
        };
        let Role::Dialling(peer) = link.role else { return true };
        match look_at_dial(link.connection.stream()) {
            Ok(true) => {
                self.become_role(number, Role::Greeting(peer), now);
                self.push_frame(number, 0, &Frame::Hello(machine.hello_to(Some(peer))));
                true
            }
            Ok(false) => false,
            Err(error) => {
                self.dial_failed(number, dial_end(&error), &error.to_string(), now);
                false
            }
        }
    }
}

/// Whether a dialled socket is connected; an error if it never will be.
fn look_at_dial(stream: &mio::net::TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let remote = match stream.peer_addr() {
        Ok(remote) => remote,
        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
        Err(error) => return Err(error),
    };
    // A dial to a dead port of this machine may be given that very port as its own, and connect to itself.
    if stream.local_addr()? == remote {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(true)
}

/// What the error of a dial says about who was dialled.
pub(super) fn dial_end(error: &io::Error) -> DialEnd {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialEnd::Refused,
        _ => DialEnd::Failed,
    }
}
