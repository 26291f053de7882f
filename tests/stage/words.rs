//! What a script shows: messages by their own [`Display`](std::fmt::Display), with entries in plain words.

use super::{Node, Stage};
use std::fmt;
use synod::command::render;
use synod::kv::{Answer, Command, Done, Expect, Op, Versioned};
use synod::machine::Input;
use synod::paxos::message::RecoverAnswer;
use synod::paxos::{Entry, EntryKind, Message, NodeId, Slot};
use synod::storage::Damage;
use synod::wire::{Outcome, Record, Reply, Request, RequestOp, Served, body};

/// Longer values are shown by their length.
const VALUE_SHOWN_MAX: usize = 40;

/// One line of a play.
pub(super) enum Line {
    Told(String),
    Sent {
        from: NodeId,
        to: Vec<NodeId>,
        words: String,
        is_lost: bool,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Told(line) => write!(f, "{line}"),
            Line::Sent {
                from,
                to,
                words,
                is_lost,
            } => {
                write!(f, "{from} ->")?;
                to.iter().try_for_each(|node| write!(f, " {node}"))?;
                let lost = if *is_lost { "  (lost)" } else { "" };
                write!(f, "  {words}{lost}")
            }
        }
    }
}

impl Stage {
    pub(super) fn is_shown(&self, kind: &str) -> bool {
        match kind {
            "HEARTBEAT" | "HEARTBEAT_ACK" => self.shown.heartbeats,
            "ROSTER" => self.shown.founding,
            _ => true,
        }
    }

    /// Shows a message; together with its like of the same step, which begins at `first_line`.
    pub(super) fn show_sent(&mut self, from: NodeId, to: NodeId, words: String, is_lost: bool, first_line: usize) {
        for line in self.lines.iter_mut().skip(first_line) {
            if let Line::Sent {
                to: others,
                words: same,
                is_lost: lost,
                ..
            } = line
                && *same == words
                && *lost == is_lost
                && !others.contains(&to)
            {
                return others.push(to);
            }
        }
        let to = vec![to];
        self.show(Line::Sent {
            from,
            to,
            words,
            is_lost,
        });
    }

    /// Shows what a step has applied.
    pub(super) fn show_applied(&mut self, id: NodeId) {
        let node = self.node(id);
        let Some(machine) = &node.machine else { return };
        let applied = machine.state().applied();
        let mut lines = Vec::new();
        while node.shown_applied < applied {
            let slot = node.shown_applied.next();
            node.shown_applied = slot;
            lines.push(format!("{id} applies slot={slot} {}", applied_words(node, slot)));
        }
        lines.into_iter().for_each(|line| self.say(line));
    }

    pub(super) fn show_record(&mut self, id: NodeId, record: &Record) {
        let wanted = if is_of_founding(record) {
            self.shown.founding
        } else {
            self.shown.records
        };
        if wanted || self.node(id).holds_sync {
            let unsynced = if self.node(id).holds_sync { "  (not synced)" } else { "" };
            self.say(format!("{id} writes {}{unsynced}", of_record(record)));
        }
    }

    /// One look at a node.
    pub(super) fn status_line(&self, id: NodeId) -> String {
        let node = &self.nodes[&id];
        let Some(machine) = &node.machine else {
            return format!("{id} is down");
        };
        let status = machine.status(node.now);
        let leader = status.leader.map_or("nobody".into(), |leader| leader.to_string());
        let promised = if status.acceptor_up {
            status.promised.to_string()
        } else {
            "?".into()
        };
        let mut line = format!(
            "{id} {}, leader={leader} ballot={} promised={promised} chosen={} applied={}",
            status.role, status.ballot, status.chosen, status.applied
        );
        if !status.voter {
            line += &format!(", no vote: {}", status.voter_reason);
        }
        line
    }
}

/// What was applied in `slot`, from memory or from the disk.
fn applied_words(node: &Node, slot: Slot) -> String {
    let learner = node.machine.as_ref().map(|machine| machine.replica().learner());
    if let Some(entry) = learner.and_then(|learner| learner.entry(slot)) {
        return of_entry(entry);
    }
    let pending = node.pending.iter().rev().find_map(|record| match record {
        Record::Accepted { slot: at, entry, .. }
        | Record::Learned { slot: at, entry }
        | Record::Copied { slot: at, entry, .. }
            if *at == slot =>
        {
            Some(entry)
        }
        _ => None,
    });
    let synced = node.disk.chosen(slot, slot);
    pending.or(synced.first()).map_or_else(String::new, of_entry)
}

pub(super) fn of_input(kind: &str, input: &Input) -> String {
    match input {
        Input::Paxos { message, .. } => of_message(message),
        Input::Transfer { transfer, .. } => transfer.to_string(),
        Input::Roster { founded, .. } => format!("{kind} founded={founded}"),
        Input::Forward { request, .. } => format!("{kind} {}", of_request(request)),
        Input::ForwardReply { reply, .. } => format!("{kind} {}", of_reply(reply)),
        other => unreachable!("{other:?} is no message"),
    }
}

/// A message as it displays itself, with the commands of its entries in place of their size and checksum.
fn of_message(message: &Message) -> String {
    let mut words = message.to_string();
    let mut put_in_words = |entry: &Entry| words = words.replace(&entry.to_string(), &of_entry(entry));
    match message {
        Message::Accept { entry, .. } => put_in_words(entry),
        Message::RecoverAnswer(RecoverAnswer { promise, .. }) | Message::Promise(promise) => promise
            .accepted
            .iter()
            .for_each(|accepted| put_in_words(&accepted.entry)),
        Message::Chosen { entries, .. } => {
            for entry in entries {
                words += &format!(" [{}]", of_entry(entry));
            }
        }
        _ => {}
    }
    words
}

fn of_entry(entry: &Entry) -> String {
    if entry.kind != EntryKind::Batch {
        return entry.to_string();
    }
    let commands = body::commands(entry).expect("the machines of this play made it");
    commands.iter().map(of_command).collect::<Vec<_>>().join(", ")
}

fn of_command(command: &Command) -> String {
    of_op(&command.op)
}

fn of_op(op: &Op) -> String {
    let text = |bytes: &[u8]| match bytes.len() {
        0..=VALUE_SHOWN_MAX => String::from_utf8_lossy(bytes).into_owned(),
        long => format!("<{long} bytes>"),
    };
    match op {
        Op::Open | Op::Close => format!("{} session", op.name()),
        Op::Put {
            key, value, if_absent, ..
        } => {
            let condition = if *if_absent { " --if-absent" } else { "" };
            format!("put {}={}{condition}", text(key), text(value))
        }
        Op::Del { key, .. } => format!("del {}", text(key)),
        Op::Cas { key, expect, value, .. } => {
            let expected = match expect {
                Expect::Value(old) => format!("--old {}", text(old)),
                Expect::Version(version) => format!("--version {version}"),
            };
            format!("cas {} {expected} {}", text(key), text(value))
        }
    }
}

pub(super) fn of_request(request: &Request) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match &request.op {
        RequestOp::Write(op) => of_op(op),
        RequestOp::Get { key } => format!("get {}", text(key)),
        RequestOp::GetStale { key, .. } => format!("get {} --stale", text(key)),
        RequestOp::Status => "status".into(),
    }
}

pub(super) fn of_reply(reply: &Reply) -> String {
    match &reply.outcome {
        Outcome::Done(served) => of_served(served),
        Outcome::NotDone { code, .. } => {
            let leader = reply.leader.as_ref();
            let hint = leader.map_or(String::new(), |(node, _)| format!(", leader={node}"));
            format!("not done, {}{hint}", code.name())
        }
        Outcome::Unknown { code } => format!("unknown, {}", code.name()),
    }
}

fn of_served(served: &Served) -> String {
    let versioned = |found: &Versioned| format!("{} version={}", render::quote(&found.value), found.version);
    match served {
        Served::Done(Done { slot, revision, answer }) => {
            let answer = match answer {
                Answer::Opened { opened } => format!("opened slot={opened}"),
                Answer::Found(found) => format!("found {}", versioned(found)),
                Answer::Exists { current } => format!("exists {}", versioned(current)),
                Answer::CasFailed { current } => {
                    format!("cas_failed {}", current.as_ref().map_or("absent".into(), versioned))
                }
                Answer::Closed | Answer::Written { .. } | Answer::NotFound => render::answer_name(served).into(),
            };
            format!("{answer}, slot={slot} revision={revision}")
        }
        Served::Stale {
            slot, age_ms, found, ..
        } => {
            let found = found.as_ref().map_or("not_found".into(), versioned);
            let age = if *age_ms == u32::MAX {
                "of unknown age".into()
            } else {
                format!("at most {age_ms}ms old")
            };
            format!("{found}, slot={slot}, {age}")
        }
        Served::Status(text) => text.clone(),
    }
}

pub(super) fn is_of_founding(record: &Record) -> bool {
    matches!(
        record,
        Record::Roster(_) | Record::Lease(_) | Record::Founded | Record::Peer { .. }
    )
}

pub(super) fn of_record(record: &Record) -> String {
    let name = record.name();
    match record {
        Record::Promised(ballot) | Record::Used(ballot) => format!("{name} {ballot}"),
        Record::Accepted { slot, ballot, entry } | Record::Copied { slot, ballot, entry } => {
            format!("{name} slot={slot} ballot={ballot} {}", of_entry(entry))
        }
        Record::Learned { slot, entry } => format!("{name} slot={slot} {}", of_entry(entry)),
        Record::ChosenUpto(slot) => format!("{name} {slot}"),
        Record::Roster(roster) => {
            let nodes: Vec<String> = roster.iter().map(|entry| entry.node.to_string()).collect();
            format!("{name} {}", nodes.join(" "))
        }
        Record::Founded | Record::Recovered => name.into(),
        Record::Lease(ms) => format!("{name} {ms}ms"),
        Record::Life(incarnation) => format!("{name} {}", incarnation.generation),
        Record::Peer { node, .. } => format!("{name} {node}"),
        Record::Checkpoint {
            slot,
            promised,
            used,
            chosen_upto,
            ..
        } => format!("{name} slot={slot} promised={promised} used={used} chosen_upto={chosen_upto}"),
        Record::Installed { slot } => format!("{name} slot={slot}"),
    }
}

/// Where a file is damaged; what it is called differs from node to node.
pub(super) fn of_damage(damage: &Damage) -> String {
    format!("damaged at offset {}: {}", damage.offset, damage.what)
}
