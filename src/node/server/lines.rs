//! The debug port's sockets: lines in, one at a time, and bounded text out.

use super::{Role, Server};
use crate::machine::Machine;
use crate::node::debug::{self, Context, FOLLOW_OUTPUT_MAX_BYTES, LINE_BYTES_MAX};
use crate::node::status;
use crate::time::Time;
use bytes::{Buf, Bytes};

impl Server {
    /// Executes every whole line, until one waits for its answer or too much output waits. False if it is paused.
    pub(super) fn take_lines(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        loop {
            let queued = self.queued;
            let Some(link) = self.links.get_mut(&number) else {
                return false;
            };
            link.paused = link.must_pause(queued);
            if link.paused {
                return false;
            }
            let input = &mut link.connection.input;
            let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
                return self.after_last_line(number, machine, now);
            };
            let line = input.split_to(end).freeze();
            input.advance(1);
            self.execute(number, &line, machine, now);
        }
    }

    /// No whole line is left. What stands before the end of input is a line, too.
    fn after_last_line(&mut self, number: u64, machine: &Machine, now: Time) -> bool {
        let Some(link) = self.links.get_mut(&number) else {
            return false;
        };
        let input = &mut link.connection.input;
        if input.len() > LINE_BYTES_MAX {
            self.last_words(number, Bytes::from_static(b"ERR too_large (the line)\n"), now);
        } else if link.ended && !input.is_empty() {
            let line = input.split().freeze();
            self.execute(number, &line, machine, now);
        } else {
            link.connection.settle(now, 0);
        }
        true
    }

    fn execute(&mut self, number: u64, line: &[u8], machine: &Machine, now: Time) {
        let gauges = self.gauges();
        let mut out = Vec::new();
        let Some(Role::Debug(session)) = self.links.get_mut(&number).map(|link| &mut link.role) else {
            return;
        };
        let mut context = Context {
            now,
            connection: number,
            machine,
            config: &self.config,
            ring: &self.ring,
            metrics: &self.metrics,
            gauges,
            peers: &self.peers,
            faults: &mut self.faults,
            inputs: &mut self.inputs,
            out: &mut out,
        };
        debug::execute(&mut context, session, line.strip_suffix(b"\r").unwrap_or(line));
        if session.follows() {
            self.followers.insert(number);
        } else {
            self.followers.remove(&number);
        }
        let ends = session.has_ended();
        self.push_bytes(number, out.into());
        // A session that ends is closed when its output is out; with none it would never be looked at again.
        if ends && self.links.get(&number).is_some_and(|link| link.is_over()) {
            self.close(number, "", now);
        }
    }

    /// Feeds the sessions that follow the ring, as far as they read.
    pub(super) fn feed_followers(&mut self) {
        for number in self.followers.clone() {
            let Some(link) = self.links.get_mut(&number) else {
                continue;
            };
            if link.connection.output_len() > FOLLOW_OUTPUT_MAX_BYTES {
                continue;
            }
            let Role::Debug(session) = &mut link.role else { continue };
            let mut out = Vec::new();
            debug::follow(session, &self.ring, &mut out);
            if !out.is_empty() {
                self.push_bytes(number, out.into());
            }
        }
    }

    /// What `json status` shows.
    pub(super) fn status_json(&self, machine: &Machine, now: Time) -> serde_json::Value {
        status::json(machine, now, &self.faults)
    }
}
