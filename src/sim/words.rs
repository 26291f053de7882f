//! Plain words for what nodes and clients say, keep and do, for a transcript.
//!
//! What changes nothing has no words: handshakes, rosters, the answers to heartbeats. Long values are cut.

use super::network::End;
use crate::client::End as OperationEnd;
use crate::kv::{Answer, Command, Done, Expect, Op, Previous, Versioned};
use crate::machine::Note;
use crate::paxos::message::{AcceptedEntry, Promise};
use crate::paxos::{self, Ballot, Entry, EntryKind, Message, Slot};
use crate::wire::{Frame, Outcome, Record, RequestOp, Served, body};
use std::fmt;

/// How the words of a heartbeat begin.
pub(super) const HEARTBEAT: &str = "HEARTBEAT";
/// Longest key or value that is shown whole, characters.
const SHOWN_MAX: usize = 20;
/// Entries or commands that are shown of many.
const MANY: usize = 4;

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Node(place) => write!(f, "n{}", place + 1),
            End::Client(place) => write!(f, "c{place}"),
        }
    }
}

/// What a frame says, if it says something.
pub(super) fn frame(frame: &Frame) -> Option<String> {
    match frame {
        Frame::Hello(_) | Frame::Roster { .. } | Frame::Ping { .. } | Frame::Pong { .. } => None,
        Frame::Transfer(transfer) => Some(transfer.to_string()),
        Frame::Paxos(said) => message(said),
        Frame::Forward { request, .. } => Some(format!("forwards: {}", asked(&request.op))),
        Frame::ForwardReply(reply) => Some(format!("answers: {}", outcome(&reply.outcome))),
        Frame::Request(request) => Some(format!("asks: {}", asked(&request.op))),
        Frame::Reply(reply) => Some(outcome(&reply.outcome)),
        Frame::Error { code, detail } => Some(format!("refuses: {} {detail}", code.name())),
    }
}

fn message(said: &Message) -> Option<String> {
    let name = said.name();
    Some(match said {
        Message::Prepare { ballot, from_slot, .. } => format!("{name} ballot {ballot} from slot {from_slot}"),
        Message::Promise(said) => promise(said),
        Message::Accept {
            ballot,
            slot,
            entry: what,
            ..
        } => format!("{name} ballot {ballot} slot {slot}: {}", entry(what)),
        Message::Accepted {
            ballot, first, last, ..
        } => format!("{name} ballot {ballot} {}", slots(*first, *last)),
        Message::Nack { ballot, promised } => format!("{name} ballot {ballot}: has promised {promised}"),
        Message::PreVote { highest, .. } => format!("{name} would you promise? (highest ballot {highest})"),
        Message::PreVoteAnswer { granted: true, .. } => format!("{name} yes"),
        Message::PreVoteAnswer { granted: false, .. } => format!("{name} no, a leader lives"),
        Message::Heartbeat(beat) => {
            let upto = beat.chosen_upto;
            format!("{HEARTBEAT} ballot {}, all up to slot {upto} is chosen", beat.ballot)
        }
        Message::HeartbeatAck(_) => return None,
        Message::Fetch { from, to } => format!("{name} {}", slots(*from, *to)),
        Message::Chosen { first, entries, .. } if entries.is_empty() => format!("{name} nothing from slot {first} on"),
        Message::Chosen { first, entries, .. } => {
            let one = |(place, chosen)| format!("slot {}: {}", first.0 + place as u64, entry(chosen));
            format!("{name} {}", few(entries.iter().enumerate().map(one)))
        }
        other => other.to_string(),
    })
}

fn promise(said: &Promise) -> String {
    let head = format!("PROMISE ballot {}", said.ballot);
    let upto = said.chosen_upto;
    let known = if upto > Slot::ZERO {
        format!(", knows all up to slot {upto} as chosen")
    } else {
        String::new()
    };
    let accepted = |accepted: &AcceptedEntry| {
        let AcceptedEntry {
            slot,
            ballot,
            chosen,
            entry: what,
        } = accepted;
        let known = if *chosen { " (chosen)" } else { "" };
        format!("slot {slot} at {ballot}{known}: {}", entry(what))
    };
    match &said.accepted[..] {
        [] => format!("{head}{known}, has accepted nothing else"),
        all => format!("{head}{known}, has accepted {}", few(all.iter().map(accepted))),
    }
}

fn slots(first: Slot, last: Slot) -> String {
    if first == last {
        format!("slot {first}")
    } else {
        format!("slots {first} to {last}")
    }
}

/// An entry by what it holds.
pub(super) fn entry(entry: &Entry) -> String {
    match (entry.kind, body::commands(entry)) {
        (EntryKind::Batch, Ok(held)) => commands(&held),
        _ => entry.to_string(),
    }
}

/// The commands of an entry.
pub(super) fn commands(held: &[Command]) -> String {
    if held.is_empty() {
        return "noop".into();
    }
    few(held.iter().map(|command| op(&command.op)))
}

fn few(all: impl ExactSizeIterator<Item = String>) -> String {
    let count = all.len();
    let mut shown: Vec<String> = all.take(MANY).collect();
    if count > MANY {
        shown.push(format!("and {} more", count - MANY));
    }
    shown.join(", ")
}

/// What a client wants.
pub(super) fn asked(op_asked: &RequestOp) -> String {
    match op_asked {
        RequestOp::Write(write) => op(write),
        RequestOp::Get { key } => format!("get {}", text(key)),
        RequestOp::GetStale { key, .. } => format!("get {} (stale)", text(key)),
        RequestOp::Status => "status".into(),
    }
}

fn op(op: &Op) -> String {
    match op {
        Op::Open => "open a session".into(),
        Op::Close => "close the session".into(),
        Op::Put {
            key, value, if_absent, ..
        } => {
            let only = if *if_absent { " if absent" } else { "" };
            format!("put {}={}{only}", text(key), text(value))
        }
        Op::Del { key, .. } => format!("del {}", text(key)),
        Op::Cas { key, expect, value, .. } => {
            let expected = match expect {
                Expect::Value(value) => text(value),
                Expect::Version(version) => format!("version {version}"),
            };
            format!("cas {} from {expected} to {}", text(key), text(value))
        }
    }
}

fn text(bytes: &[u8]) -> String {
    let whole = String::from_utf8_lossy(bytes);
    if whole.is_empty() {
        return "(empty)".into();
    }
    match whole.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole.into_owned(),
    }
}

/// What an attempt ends in.
fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(what) => served(what),
        Outcome::NotDone { code, .. } => format!("not done: {}", code.name()),
        Outcome::Unknown { code } => format!("unknown: {}", code.name()),
    }
}

/// How an operation ends for its client.
pub(super) fn end(end: &OperationEnd) -> String {
    match end {
        OperationEnd::Done(what) => served(what),
        OperationEnd::NotDone(failure) => format!("not done: {}", failure.cause.name()),
        OperationEnd::Unknown(failure) => format!("unknown: {}", failure.cause.name()),
    }
}

fn served(served: &Served) -> String {
    match served {
        Served::Done(done) => answer(done),
        Served::Stale { slot, found, .. } => format!("as of slot {slot}: {}", found_words(found.as_ref())),
        Served::Status(_) => "status".into(),
    }
}

fn answer(done: &Done) -> String {
    let slot = done.slot;
    match &done.answer {
        Answer::Opened { .. } => format!("done in slot {slot}: session open"),
        Answer::Closed => format!("done in slot {slot}: session closed"),
        Answer::Written { previous, .. } => match previous {
            Previous::NotAsked => format!("done in slot {slot}"),
            Previous::Absent => format!("done in slot {slot}, nothing was there"),
            Previous::Was(was) => format!("done in slot {slot}, {} was there", text(&was.value)),
        },
        Answer::Exists { current } => format!("done in slot {slot}: {} is there already", text(&current.value)),
        Answer::NotFound => format!("nothing there (slot {slot})"),
        Answer::CasFailed { current } => format!(
            "done in slot {slot}: {}, not as expected",
            found_words(current.as_ref())
        ),
        Answer::Found(found) => format!("{} (slot {slot})", text(&found.value)),
    }
}

fn found_words(found: Option<&Versioned>) -> String {
    found.map_or_else(|| "nothing there".into(), |found| text(&found.value))
}

/// What a node has on its disk from now on; nothing of what others do not hang on.
pub(super) fn records(records: &[Record]) -> Option<String> {
    let told: Vec<String> = records.iter().filter_map(record).collect();
    (!told.is_empty()).then(|| few(told.into_iter()))
}

fn record(record: &Record) -> Option<String> {
    Some(match record {
        Record::Promised(ballot) => format!("promised {ballot}"),
        Record::Used(ballot) => format!("used {ballot}"),
        Record::Accepted {
            slot,
            ballot,
            entry: what,
        } => format!("accepted slot {slot} at {ballot}: {}", entry(what)),
        Record::Learned { slot, entry: what } => format!("learned slot {slot}: {}", entry(what)),
        Record::Founded => "founded".into(),
        Record::Lease(ms) => format!("leases of {ms} ms"),
        _ => return None,
    })
}

/// What a node finds on its disk at its start.
pub(super) fn recovered(records: &[Record]) -> String {
    let mut promised = Ballot::ZERO;
    let mut upto = Slot::ZERO;
    for record in records {
        match record {
            Record::Promised(ballot) => promised = promised.max(*ballot),
            Record::Accepted { slot, ballot, .. } => {
                promised = promised.max(*ballot);
                upto = upto.max(*slot);
            }
            Record::Learned { slot, .. } => upto = upto.max(*slot),
            _ => {}
        }
    }
    if records.is_empty() {
        return "starts with an empty disk".into();
    }
    format!("starts; its disk says: promised {promised}, holds slots up to {upto}")
}

/// What a node says of itself; and whether that matters for who follows the run.
pub(super) fn note(note: &Note) -> (String, bool) {
    let Note::Paxos(note) = note else {
        return (note.to_string(), matches!(note, Note::LostMemory { .. }));
    };
    let words = match note {
        paxos::Note::Asks { reason, .. } => return (format!("would like to lead: {reason}"), false),
        paxos::Note::Campaigns { ballot, .. } => format!("is a candidate with ballot {ballot}"),
        paxos::Note::Leads { ballot, recovered, .. } => match recovered {
            0 => format!("leads with ballot {ballot}"),
            some => format!("leads with ballot {ballot}, and proposes {some} entries of others again"),
        },
        paxos::Note::Follows { ballot } => format!("follows {} with ballot {ballot}", ballot.node),
        paxos::Note::StepsDown { ballot, reason } => format!("leads no more with ballot {ballot}: {reason}"),
        paxos::Note::LostElection { ballot, reason, .. } => format!("is not elected with ballot {ballot}: {reason}"),
        paxos::Note::LeaderLost { leader, reason } => format!("gives up on {leader} as leader: {reason}"),
        other => other.to_string(),
    };
    (words, true)
}

/// The rules of the judge, by name, and why what each forbids must never be.
pub const RULES: [(&str, &str); 25] = [
    (
        "one value",
        "one slot has one chosen entry, for ever: else two nodes apply different logs",
    ),
    (
        "no fall",
        "what was promised, accepted or chosen was told to others, who rely on it across every restart",
    ),
    (
        "claims",
        "what is said before it is on disk, a loss of power can make a lie of",
    ),
    (
        "promise",
        "a promise means: nothing below it is accepted, and all that was accepted is told",
    ),
    (
        "phase 1",
        "what a lower ballot left behind may have lost already: only the highest one's can be chosen",
    ),
    ("ballots", "a ballot used twice can carry two values for one slot"),
    (
        "chosen",
        "what a quorum has accepted may never be replaced, and nothing else may be taken as chosen",
    ),
    (
        "digest",
        "all nodes apply the same log, so they must be in the same state",
    ),
    (
        "digests",
        "no node may say of another that their states differ: they never do",
    ),
    ("alarm", "no node may accuse a peer of breaking a rule that it keeps"),
    (
        "log time",
        "sessions expire by the log's own time: where it falls, they live longer than they were told",
    ),
    (
        "replies",
        "\"done\" means applied once, and a repeat is answered as the first time",
    ),
    (
        "reads",
        "a write that was acknowledged must be seen by every read that begins later",
    ),
    (
        "deposed",
        "a leader that serves a majority should lead on, whoever comes back (liveness)",
    ),
    (
        "backoff",
        "who does not wait after a lost election keeps others from winning theirs (liveness)",
    ),
    (
        "quorum",
        "who leads without a quorum serves nobody, and keeps its clients from those who could",
    ),
    (
        "scrub",
        "rot that nobody looks for is found when the last good copy is gone",
    ),
    (
        "memory",
        "a node that forgot what it voted must not vote before a quorum has told it",
    ),
    (
        "linearizability",
        "no order of these operations, each between its question and its answer, explains what clients saw",
    ),
    (
        "liveness",
        "faults have stopped for a connected majority: every request must be served in time",
    ),
    (
        "bounds",
        "whatever is asked of a node, what it holds must stay within its limits",
    ),
    ("start", "a node must start on a disk that is well"),
    ("halt", "no fault explains why the node gave up"),
    ("panic", "an assertion of the code itself did not hold"),
    ("history", "the simulator must be able to write down what clients saw"),
];

/// Why what a rule of the judge forbids must never be.
pub fn why(rule: &str) -> &'static str {
    let found = RULES.iter().find(|(name, _)| *name == rule);
    found.map_or("the simulator allows no such thing", |(_, why)| why)
}
