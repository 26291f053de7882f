//! The debug port's sockets: lines in, one at a time, and bounded text out.

use super::{Role, Server};
use crate::machine::{Input, Machine, RequestId};
use crate::node::debug::{self, Asked, Context, FOLLOW_OUTPUT_MAX_BYTES, Fed, LINE_BYTES_MAX};
use crate::node::limits::DEBUG_LINES_PER_TURN;
use crate::node::ring::What;
use crate::node::status;
use crate::time::Time;
use crate::wire::Request;
use bytes::{Buf, Bytes};

impl Server {
    /// Executes whole lines, until one waits for its answer, too much output waits, or others shall have their turn.
    /// False if the connection is paused.
    pub(super) fn take_lines(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        for _ in 0..DEBUG_LINES_PER_TURN {
            let is_full = self.is_full();
            let Some(link) = self.links.get_mut(number) else {
                return false;
            };
            link.paused = link.must_pause(is_full);
            if link.paused {
                return false;
            }
            match link.take_line() {
                Some(line) => self.execute(number, &line, machine, now),
                None => return self.after_last_line(number, machine, now),
            }
        }
        // Some of these lines show much. The rest waits for the next turn, which does not wait.
        if let Some(link) = self.links.get_mut(number) {
            link.paused = true;
            self.ready.note(number);
        }
        false
    }

    /// No whole line is left. What stands before the end of input is a line, too.
    fn after_last_line(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        let Some(link) = self.links.get_mut(number) else {
            return false;
        };
        let has_ended = link.ended;
        let input = &mut link.connection.input;
        if input.len() > LINE_BYTES_MAX {
            self.last_words(number, Bytes::from_static(b"ERR too_large (the line)\n"), now);
        } else if has_ended && !input.is_empty() {
            let line = input.split().freeze();
            link.scanned = 0;
            self.execute(number, &line, machine, now);
        } else {
            link.connection.settle(now, 0);
        }
        if has_ended {
            self.end_follow(number);
        }
        true
    }

    /// No line will come that could end `tail -f`.
    fn end_follow(&mut self, number: u64) {
        let Some(Role::Debug(session)) = self.links.get_mut(number).map(|link| &mut link.role) else {
            return;
        };
        let mut out = Vec::new();
        session.end_follow(&mut out);
        self.followers.remove(&number);
        self.push_bytes(number, out.into());
    }

    fn execute(&mut self, number: u64, line: &[u8], machine: &Machine, now: Time) {
        let gauges = self.gauges();
        let mut out = Vec::new();
        let Some(Role::Debug(session)) = self.links.get_mut(number).map(|link| &mut link.role) else {
            return;
        };
        // Taken out while the command looks at all the other links.
        let mut session = std::mem::take(session);
        let mut context = Context {
            now,
            machine,
            config: &self.config,
            ring: &self.ring,
            metrics: &self.metrics,
            gauges,
            peers: &self.peers,
            links: &self.links,
            connection_deadline: self.timers.first().map(|(at, _)| *at),
            faults: &mut self.faults,
            wants_snapshot: &mut self.wants_snapshot,
            wants_scrub: &mut self.wants_scrub,
            out: &mut out,
        };
        let asked = debug::execute(&mut context, &mut session, line.strip_suffix(b"\r").unwrap_or(line));
        if session.follows() {
            self.followers.insert(number);
        } else {
            self.followers.remove(&number);
        }
        let ends = session.has_ended();
        if let Some(link) = self.links.get_mut(number) {
            link.role = Role::Debug(session);
        }
        self.ask_machine(number, asked, now);
        self.push_bytes(number, out.into());
        // A session that ends is closed when its output is out; with none it would never be looked at again.
        if ends && self.links.get(number).is_some_and(|link| link.is_over()) {
            self.close(number, "", now);
        }
    }

    /// Hands a request of a debug session to the machine, as a client's.
    pub(super) fn ask_machine(&mut self, number: u64, asked: Asked, now: Time) {
        let Some((request_id, request)) = asked else { return };
        self.note_request(number, request_id, &request, now);
        let id = RequestId {
            connection: number,
            request: request_id,
        };
        self.inputs.push(Input::Client { id, request });
    }

    /// A client or a debug session asks: for the ring.
    pub(super) fn note_request(&mut self, connection: u64, request: u64, asked: &Request, now: Time) {
        let what = What::Request {
            connection,
            request,
            name: asked.op.name(),
        };
        self.ring.push(now, what);
    }

    /// A debug session's deadline has come.
    pub(super) fn on_session_due(&mut self, number: u64, now: Time) {
        let Some(Role::Debug(session)) = self.links.get_mut(number).map(|link| &mut link.role) else {
            return;
        };
        let mut out = Vec::new();
        let asked = debug::on_deadline(session, now, &mut out);
        self.ask_machine(number, asked, now);
        self.push_bytes(number, out.into());
        self.resume(number);
    }

    /// Feeds the sessions that follow the ring, as far as they read.
    pub(super) fn feed_followers(&mut self) {
        if self.followers.is_empty() {
            return;
        }
        let mut fed = Fed::default();
        for number in self.followers.clone() {
            let Some(link) = self.links.get_mut(number) else {
                continue;
            };
            if link.connection.output_len() > FOLLOW_OUTPUT_MAX_BYTES {
                continue;
            }
            let Role::Debug(session) = &mut link.role else { continue };
            if let Some(bytes) = debug::follow(session, &self.ring, &mut fed) {
                self.push_bytes(number, bytes);
            }
        }
    }

    /// What `json status` shows.
    pub(super) fn status_json(&self, machine: &Machine, now: Time) -> serde_json::Value {
        status::json(machine, now, &self.faults)
    }
}

impl super::Link {
    /// Takes the next whole line, without its newline. What was looked through once is not looked through again.
    fn take_line(&mut self) -> Option<Bytes> {
        let input = &mut self.connection.input;
        let unseen = &input[self.scanned.min(input.len())..];
        let Some(end) = unseen.iter().position(|&byte| byte == b'\n') else {
            self.scanned = input.len();
            return None;
        };
        let line = input.split_to(self.scanned + end).freeze();
        input.advance(1);
        self.scanned = 0;
        Some(line)
    }
}
