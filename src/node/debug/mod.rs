//! The debug port: lines in, lines out, for a person with `nc`.
//!
//! A line is a command; every reply ends in a line that begins with `OK` or `ERR <code>`, and no other line begins so.
//! The loop hands over one line at a time ([`execute`]) and, while a data command waits for its answer, none
//! ([`Session::is_waiting`]); it brings the answer back by [`answer`], and time by [`on_deadline`]. A session that
//! follows the ring is fed once a turn by [`follow`], as long as its output is small. Nothing here blocks, and all output
//! is bounded: rows by `ROWS_MAX`, values by their limit, what follows by what is taken of it.
//!
//! * `command`: the lines that are understood. `views`: what they show. `feed`: the ring. `data`: `put`, `get`, `del`
//!   and `cas` through consensus. `reply`: text and JSON of it all. `docs/debug.md` is the page for people.
//!
//! Not here: sockets, their limits and their timers (server.rs).

mod command;
mod data;
mod feed;
mod reply;
mod views;

use super::faults::Faults;
use super::flags::Config;
use super::link::Link;
use super::metrics::{Gauges, Metrics};
use super::numbered::Numbered;
use super::peers::Peer;
use super::ring::Ring;
use crate::command::{DataCommand, FaultCommand, ParseError, render};
use crate::machine::Machine;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::{Outcome, Reply, Request};
use bytes::Bytes;
use command::{Command, Line};
use data::{Next, Writer};
use feed::Follower;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest line that is taken: a cas of the largest values, every byte of them escaped.
pub const LINE_BYTES_MAX: usize = 5 << 20;
/// A follower of the ring is fed while so little waits for it; what it misses meanwhile is dropped and counted.
pub const FOLLOW_OUTPUT_MAX_BYTES: usize = 64 * 1024;

/// What one connection of the debug port has going on.
#[derive(Debug, Default)]
pub struct Session {
    writer: Writer,
    /// Whether the answer of the data command under way is wanted as JSON.
    json: bool,
    follower: Option<Follower>,
    /// The connection closes once its output is out.
    ended: bool,
}

/// What a command can see and do.
pub struct Context<'a> {
    /// The time of this turn.
    pub now: Time,
    /// The node as it was when the turn began.
    pub machine: &'a Machine,
    /// Flags.
    pub config: &'a Config,
    /// Recent events.
    pub ring: &'a Ring,
    /// Counters.
    pub metrics: &'a Metrics,
    /// Counts of this moment.
    pub gauges: Gauges,
    /// What is known of each peer.
    pub peers: &'a BTreeMap<NodeId, Peer>,
    /// All connections, but the one that asks.
    pub links: &'a Numbered<Link>,
    /// When the next connection must have got on.
    pub connection_deadline: Option<Time>,
    /// Faults that are on.
    pub faults: &'a mut Faults,
    /// Set if a snapshot is wanted.
    pub wants_snapshot: &'a mut bool,
    /// Set by `scrub now`.
    pub wants_scrub: &'a mut bool,
    /// What the other side gets.
    pub out: &'a mut Vec<u8>,
}

/// A request of this session to its own node, under its id; answered by [`answer`].
pub type Asked = Option<(u64, Request)>;

/// What was written for each kind of follower in one turn: many that follow one ring share the bytes.
#[derive(Debug, Default)]
pub struct Fed(BTreeMap<Follower, Bytes>);

impl Session {
    /// Whether no further line can be taken now.
    pub fn is_waiting(&self) -> bool {
        self.writer.is_busy() || self.ended
    }

    /// Whether the session wants to be fed by [`follow`].
    pub fn follows(&self) -> bool {
        self.follower.is_some()
    }

    /// Whether the connection shall be closed once its output is out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// When [`on_deadline`] is due.
    pub fn deadline(&self) -> Option<Time> {
        self.writer.deadline()
    }

    /// Ends `tail -f`: a line came, or none will.
    pub fn end_follow(&mut self, out: &mut Vec<u8>) {
        if self.follower.take().is_some() {
            reply::ok(out, "");
        }
    }

    /// The connection is gone: the request that closes its session, if it opened one.
    pub fn close(&mut self, timeout: Duration) -> Asked {
        self.writer.close(timeout)
    }
}

/// Executes one line, without its line end. What is asked of the node's machine comes back.
pub fn execute(context: &mut Context<'_>, session: &mut Session, line: &[u8]) -> Asked {
    session.end_follow(context.out);
    match command::parse(line) {
        Ok(None) => None,
        Ok(Some(Line { json, command })) => run(context, session, json, command),
        Err(error) => {
            refuse(context, &error);
            None
        }
    }
}

fn run(context: &mut Context<'_>, session: &mut Session, json: bool, command: Command) -> Asked {
    let view = match command {
        Command::Data(command) => return run_data(context, session, json, command),
        Command::Fault(fault) => {
            run_fault(context, json, fault);
            return None;
        }
        Command::Ready => {
            run_ready(context, json);
            return None;
        }
        Command::Quit => {
            reply::ok(context.out, "bye");
            session.ended = true;
            return None;
        }
        Command::Follow => {
            // What is to come: its reply ends when another line does.
            let position = context.ring.end();
            session.follower = Some(Follower { position, json });
            return None;
        }
        Command::Tail { count } if !json => {
            let position = context.ring.last(count);
            feed::write_since(context.ring, Follower { position, json }, context.out);
            json!({})
        }
        Command::Help if !json => {
            for (form, about) in command::help() {
                reply::push_line(context.out, &format!("{form:<48}  {about}"));
            }
            json!({})
        }
        Command::Ping if !json => {
            reply::ok(context.out, "pong");
            return None;
        }
        Command::Ping => json!({ "pong": true }),
        Command::Snapshot => {
            *context.wants_snapshot = true;
            views::snapshot(context)
        }
        Command::Scrub { now } => {
            *context.wants_scrub |= now;
            views::scrub(context)
        }
        Command::Help => views::help(),
        Command::Tail { count } => feed::last_json(context.ring, count),
        Command::Status => views::status(context),
        Command::Peers => views::peers(context),
        Command::Ballots => views::ballots(context),
        Command::Slots { from, count } => views::slots(context, from, count),
        Command::Digests { from, count } => views::digests(context, from, count),
        Command::Sessions { count } => views::sessions(context, count),
        Command::Timers => views::timers(context),
        Command::Config => views::config(context.config),
        Command::Metrics => views::metrics(context),
    };
    reply::show(context.out, json, &view);
    reply::ok(context.out, "");
    None
}

fn refuse(context: &mut Context<'_>, error: &ParseError) {
    let words = match error {
        ParseError::UnknownCommand { .. } => format!("{error}; try help"),
        _ => error.to_string(),
    };
    reply::err(context.out, error.code(), &words);
}

fn run_ready(context: &mut Context<'_>, json: bool) {
    let (view, ready) = views::ready(context);
    reply::show(context.out, json, &view);
    match ready {
        true => reply::ok(context.out, ""),
        false => reply::err(context.out, "not_ready", ""),
    }
}

fn run_fault(context: &mut Context<'_>, json: bool, fault: FaultCommand) {
    if !context.config.allow_faults {
        return reply::err(context.out, "faults_off", "start the node with --allow-faults");
    }
    if let FaultCommand::Drop { peer, .. } | FaultCommand::Delay { peer, .. } = &fault
        && !context.peers.contains_key(peer)
    {
        let words = format!("{peer} is no peer of this node");
        return reply::err(context.out, "bad_request", &words);
    }
    if let Err(error) = context.faults.put_on(context.now, fault) {
        return reply::err(context.out, "busy", &error.to_string());
    }
    let view = json!({ "faults": context.faults.names(context.now) });
    reply::show(context.out, json, &view);
    reply::ok(context.out, "");
}

fn run_data(context: &mut Context<'_>, session: &mut Session, json: bool, command: DataCommand) -> Asked {
    let op = match command.into_request_op() {
        Ok(op) => op,
        Err(error) => {
            refuse(context, &error);
            return None;
        }
    };
    let mut id = [0; 16];
    if let Err(error) = getrandom::fill(&mut id) {
        reply::err(context.out, "internal", &format!("no random numbers: {error}"));
        return None;
    }
    session.json = json;
    let timeout = context.config.request_timeout;
    let id = u128::from_be_bytes(id).max(1); // 0 is no session's id
    Some(session.writer.begin(context.now, op, timeout, id))
}

/// The answer to a request of this session. What is asked next comes back.
pub fn answer(session: &mut Session, now: Time, request: u64, reply: &Reply, out: &mut Vec<u8>) -> Asked {
    let next = session.writer.on_reply(now, request, reply);
    go_on(session, next, out)
}

/// The session's deadline has come.
pub fn on_deadline(session: &mut Session, now: Time, out: &mut Vec<u8>) -> Asked {
    let next = session.writer.on_deadline(now);
    go_on(session, next, out)
}

fn go_on(session: &Session, next: Next, out: &mut Vec<u8>) -> Asked {
    match next {
        Next::Ask(id, request) => Some((id, request)),
        Next::Wait => None,
        Next::End(outcome) => {
            show_outcome(session.json, &outcome, out);
            None
        }
    }
}

/// Done with an answer that is no ends in `ERR`, too: `not_found`, `exists` or `cas_failed`.
fn show_outcome(json: bool, outcome: &Outcome, out: &mut Vec<u8>) {
    match outcome {
        Outcome::Done(served) => {
            if json {
                reply::show(out, true, &render::json(served));
            } else {
                render::lines(served)
                    .iter()
                    .for_each(|line| reply::push_line(out, line));
            }
            match render::is_no(served) {
                true => reply::err(out, render::answer_name(served), ""),
                false => reply::ok(out, ""),
            }
        }
        Outcome::NotDone { code, detail, .. } => {
            show_failure(json, "not_done", code.name(), out);
            reply::err(out, code.name(), detail);
        }
        Outcome::Unknown { code } => {
            show_failure(json, "unknown", code.name(), out);
            reply::err(out, code.name(), "it may have taken effect, or may yet");
        }
    }
}

fn show_failure(json: bool, class: &str, code: &str, out: &mut Vec<u8>) {
    let view: Value = json!({ "outcome": class, "code": code });
    if json {
        reply::show(out, true, &view);
    } else {
        reply::push_line(out, &format!("outcome {class}"));
    }
}

/// What is new for a session that follows the ring; called once a turn.
pub fn follow(session: &mut Session, ring: &Ring, fed: &mut Fed) -> Option<Bytes> {
    let follower = session.follower.as_mut()?;
    let before = *follower;
    follower.position = ring.end();
    if before == *follower {
        return None;
    }
    let write = || {
        let mut out = Vec::new();
        feed::write_since(ring, before, &mut out);
        Bytes::from(out)
    };
    Some(fed.0.entry(before).or_insert_with(write).clone())
}
