//! Each part of a file, each frame and each record as a JSON object: names are those of `protocol.md`, with underscores.
//!
//! Ballots stand as `round.node`, tokens, digests and ids in hex (they do not fit the numbers of every JSON reader), byte
//! strings as text or, if they are none, as base64.

use crate::command::render::{json as served_json, put_bytes};
use crate::kv::snapshot::{Item, SessionHead};
use crate::kv::{Answer, Command, Done, Expect, Op, Previous, SessionRef, Versioned};
use crate::paxos::message::{Heartbeat, HeartbeatAck, Promise};
use crate::paxos::{Entry, EntryKind, Incarnation, Message, NodeId, Start, Voter};
use crate::storage::Identity;
use crate::storage::inspect::Part;
use crate::storage::segment::SegmentHeader;
use crate::storage::snapshot::Header;
use crate::storage::unit::UnitHeader;
use crate::wire::hello::NodeHello;
use crate::wire::{
    Frame, Hello, HelloKind, Outcome, Record, Reply, Request, RequestOp, RosterEntry, Transfer, body, frame,
};
use serde_json::{Map, Value, json};

/// A part of a file: its name and its fields.
pub(super) fn part(part: &Part) -> (&'static str, Value) {
    match part {
        Part::Identity(of, format) => ("IDENTITY", identity(of, *format)),
        Part::Segment(header) => ("SEGMENT", segment(header)),
        Part::Unit(header) => ("UNIT", unit(header)),
        Part::Record(of) => record(of),
        Part::Unused(bytes) => ("UNUSED", json!({ "bytes": bytes })),
        Part::Snapshot(header, format) => ("SNAPSHOT", snapshot(header, *format)),
        Part::Block { number, items, bytes } => ("BLOCK", json!({ "number": number, "items": items, "bytes": bytes })),
        Part::Item(of) => item(of),
        Part::Trailer { blocks, items, content } => (
            "TRAILER",
            json!({ "blocks": blocks, "items": items, "content": hex(*content) }),
        ),
        Part::TornTail(what) => ("TORN_TAIL", json!({ "what": what })),
        Part::Damage(kind, what) => ("DAMAGE", json!({ "kind": kind.name(), "what": what })),
    }
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

fn ids<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> Vec<u16> {
    nodes.into_iter().map(|node| node.0).collect()
}

fn identity(of: &Identity, format: u32) -> Value {
    json!({
        "format": format,
        "node": of.node.0,
        "cluster_name": of.cluster_name,
        "incarnation": of.incarnation.to_string(),
        "log_id": hex(of.log_id),
        "starts": of.starts.iter().map(Start::to_string).collect::<Vec<String>>(),
    })
}

fn segment(header: &SegmentHeader) -> Value {
    json!({
        "format": header.format,
        "segment": header.segment,
        "size": header.size,
        "log_id": hex(header.log_id),
    })
}

fn unit(header: &UnitHeader) -> Value {
    json!({
        "segment": header.at.segment,
        "at": header.at.offset,
        "bytes": header.length,
        "records": header.records,
        "synced": format!("{}:{}", header.synced.segment, header.synced.offset),
    })
}

fn snapshot(header: &Header, format: u32) -> Value {
    let summary = &header.summary;
    json!({
        "format": format,
        "cluster_id": hex(header.cluster_id),
        "slot": summary.slot.0,
        "revision": summary.revision,
        "log_time_ms": summary.log_time.0,
        "digest": hex(summary.digest),
        "content": hex(summary.content),
        "keys": summary.keys,
        "sessions": summary.sessions,
        "bytes": summary.bytes,
        "config": header.config,
        "members": ids(&header.members),
    })
}

fn item(of: &Item) -> (&'static str, Value) {
    match of {
        Item::Session(head) => ("SESSION", session_head(head)),
        Item::Reply { number, done } => ("KEPT_REPLY", {
            let mut fields = as_object(json!({ "number": number }));
            fields.extend(as_object(done_fields(done)));
            Value::Object(fields)
        }),
        Item::Key { key, value } => ("KEY", {
            let mut fields = Map::new();
            put_bytes(&mut fields, "key", key);
            fields.extend(as_object(versioned(value)));
            Value::Object(fields)
        }),
    }
}

fn session_head(head: &SessionHead) -> Value {
    json!({
        "session": session(head.session),
        "opened_revision": head.opened_revision,
        "last_slot": head.last.slot.0,
        "last_index": head.last.index,
        "last_time_ms": head.last_time.0,
        "low": head.low,
        "replies": head.replies,
    })
}

/// A record of the log: its name and its fields.
pub(super) fn record(of: &Record) -> (&'static str, Value) {
    let fields = match of {
        Record::Promised(ballot) | Record::Used(ballot) => json!({ "ballot": ballot.to_string() }),
        Record::Accepted {
            slot,
            ballot,
            entry: of,
        }
        | Record::Copied {
            slot,
            ballot,
            entry: of,
        } => json!({
            "slot": slot.0, "ballot": ballot.to_string(), "entry": entry(of),
        }),
        Record::Learned { slot, entry: of } => json!({ "slot": slot.0, "entry": entry(of) }),
        Record::ChosenUpto(slot) | Record::Installed { slot } => json!({ "slot": slot.0 }),
        Record::Roster(of) => json!({ "roster": roster(of) }),
        Record::Lease(ms) => json!({ "lease_ms": ms }),
        Record::Founded | Record::Recovered => json!({}),
        Record::Peer {
            node,
            incarnation,
            start,
        } => json!({
            "node": node.0, "incarnation": incarnation.to_string(), "start": start.to_string(),
        }),
        Record::Life(incarnation) => json!({ "incarnation": incarnation.to_string() }),
        Record::Checkpoint {
            segment,
            slot,
            promised,
            used,
            chosen_upto,
        } => json!({
            "segment": segment,
            "slot": slot.0,
            "promised": promised.to_string(),
            "used": used.to_string(),
            "chosen_upto": chosen_upto.0,
        }),
    };
    (of.name(), fields)
}

/// An entry with its commands; of a kind that this version cannot apply, its size.
pub(super) fn entry(of: &Entry) -> Value {
    let kind = match of.kind {
        EntryKind::Batch => "batch".to_owned(),
        EntryKind::Noop => "noop".to_owned(),
        EntryKind::Config => "config".to_owned(),
        EntryKind::Unknown(byte) => format!("unknown {byte}"),
    };
    let mut fields = as_object(json!({
        "kind": kind, "stamp_ms": of.stamp.0, "bytes": of.body.len(), "crc": format!("{:08x}", of.crc),
    }));
    match body::commands(of) {
        Ok(commands) if of.kind == EntryKind::Batch => {
            fields.insert("commands".into(), commands.iter().map(command).collect());
        }
        Ok(_) => {}
        Err(error) => {
            fields.insert("not_applicable".into(), error.to_string().into());
        }
    }
    Value::Object(fields)
}

fn command(of: &Command) -> Value {
    let mut fields = op(&of.op);
    fields.extend(as_object(json!({
        "session": session(of.session), "number": of.number, "low": of.low,
    })));
    Value::Object(fields)
}

fn op(of: &Op) -> Map<String, Value> {
    let mut fields = as_object(json!({ "op": of.name() }));
    if let Some(key) = of.key() {
        put_bytes(&mut fields, "key", key);
    }
    match of {
        Op::Open | Op::Close => {}
        Op::Put {
            value,
            if_absent,
            want_previous,
            ..
        } => {
            put_bytes(&mut fields, "value", value);
            fields.insert("if_absent".into(), (*if_absent).into());
            fields.insert("want_previous".into(), (*want_previous).into());
        }
        Op::Del { want_previous, .. } => {
            fields.insert("want_previous".into(), (*want_previous).into());
        }
        Op::Cas {
            expect,
            value,
            want_previous,
            ..
        } => {
            match expect {
                Expect::Value(expected) => put_bytes(&mut fields, "expected_value", expected),
                Expect::Version(version) => {
                    fields.insert("expected_version".into(), (*version).into());
                }
            }
            put_bytes(&mut fields, "value", value);
            fields.insert("want_previous".into(), (*want_previous).into());
        }
    }
    fields
}

fn session(of: SessionRef) -> String {
    format!("{:032x}@{}", of.id, of.opened)
}

fn versioned(of: &Versioned) -> Value {
    let mut fields = Map::new();
    put_bytes(&mut fields, "value", &of.value);
    fields.insert("created".into(), of.created.into());
    fields.insert("version".into(), of.version.into());
    Value::Object(fields)
}

fn done_fields(done: &Done) -> Value {
    let (name, carried) = match &done.answer {
        Answer::Opened { .. } => ("opened", None),
        Answer::Closed => ("closed", None),
        Answer::Written {
            previous: Previous::Was(was),
        } => ("written", Some(was)),
        Answer::Written { .. } => ("written", None),
        Answer::Exists { current } => ("exists", Some(current)),
        Answer::NotFound => ("not_found", None),
        Answer::CasFailed { current } => ("cas_failed", current.as_ref()),
        Answer::Found(found) => ("found", Some(found)),
    };
    let mut fields = as_object(json!({
        "slot": done.slot.0, "revision": done.revision, "answer": name,
    }));
    if let Some(carried) = carried {
        fields.insert("carries".into(), versioned(carried));
    }
    Value::Object(fields)
}

fn roster(of: &[RosterEntry]) -> Vec<Value> {
    let entries = of.iter().map(|entry| {
        json!({
            "node": entry.node.0,
            "incarnation": entry.incarnation.to_string(),
            "base_slot": entry.base.slot.0,
            "base_digest": hex(entry.base.digest),
        })
    });
    entries.collect()
}

/// A frame's fields, the request id before them if it has one.
pub(super) fn frame(header: frame::Header, of: &Frame) -> Value {
    let mut fields = Map::new();
    if header.request_id > 0 {
        fields.insert("request_id".into(), header.request_id.into());
    }
    fields.extend(as_object(match of {
        Frame::Hello(of) => hello(of),
        Frame::Paxos(of) => message(of),
        Frame::Roster { founded, roster: of } => json!({ "founded": founded, "roster": roster(of) }),
        Frame::Transfer(of) => transfer(of),
        Frame::Forward { principal, request: of } => {
            let mut fields = Map::new();
            put_bytes(&mut fields, "principal", principal);
            fields.insert("request".into(), request(of));
            Value::Object(fields)
        }
        Frame::Request(of) => request(of),
        Frame::ForwardReply(of) | Frame::Reply(of) => reply(of),
        Frame::Ping { nonce } | Frame::Pong { nonce } => json!({ "nonce": nonce }),
        Frame::Error { code, detail } => json!({ "code": code.name(), "detail": detail }),
    }));
    Value::Object(fields)
}

fn transfer(of: &Transfer) -> Value {
    match of {
        Transfer::Offer { slot, bytes, content } => json!({
            "slot": slot.0, "bytes": bytes, "content": hex(*content),
        }),
        Transfer::Ask { slot, offset, length } => json!({ "slot": slot.0, "offset": offset, "length": length }),
        Transfer::Chunk {
            slot,
            offset,
            crc,
            bytes,
        } => {
            let fields = json!({ "slot": slot.0, "offset": offset, "crc": format!("{crc:08x}") });
            let mut fields = as_object(fields);
            put_bytes(&mut fields, "bytes", bytes);
            Value::Object(fields)
        }
    }
}

fn hello(of: &Hello) -> Value {
    let mut fields = as_object(json!({
        "versions": [of.version_min, of.version_max],
        "features": hex(of.features),
        "cluster_name": of.cluster_name,
        "cluster_id": hex(of.cluster_id),
    }));
    match &of.kind {
        HelloKind::Client => {
            fields.insert("kind".into(), "client".into());
        }
        HelloKind::Node(node) => fields.extend(as_object(node_hello(node))),
    }
    Value::Object(fields)
}

fn node_hello(of: &NodeHello) -> Value {
    let life = |(incarnation, start): &(Incarnation, Start)| json!({ "incarnation": incarnation.to_string(), "start": start.to_string() });
    json!({
        "kind": "node",
        "node": of.node.0,
        "incarnation": of.incarnation.to_string(),
        "start": of.start.to_string(),
        "remembered": of.remembered.as_ref().map(life),
        "founded": of.founded,
        "advertise": of.advertise,
        "debug": of.debug,
        "listed": ids(&of.listed),
        "base_slot": of.base.slot.0,
        "base_digest": hex(of.base.digest),
        "roster": roster(&of.roster),
        "lease_ms": of.lease_ms,
    })
}

fn request(of: &Request) -> Value {
    let mut fields = match &of.op {
        RequestOp::Write(of) => op(of),
        RequestOp::Get { key } => {
            let mut fields = as_object(json!({ "op": "get" }));
            put_bytes(&mut fields, "key", key);
            fields
        }
        RequestOp::GetStale { key, at_least } => {
            let mut fields = as_object(json!({ "op": "get_stale", "at_least": at_least.0 }));
            put_bytes(&mut fields, "key", key);
            fields
        }
        RequestOp::Status => as_object(json!({ "op": "status" })),
    };
    fields.extend(as_object(json!({
        "deadline_ms": of.deadline_ms, "session": session(of.session), "number": of.number, "low": of.low,
    })));
    Value::Object(fields)
}

fn reply(of: &Reply) -> Value {
    let mut fields = match &of.outcome {
        Outcome::Done(served) => as_object(served_json(served)),
        Outcome::NotDone {
            code,
            retry_after_ms,
            detail,
        } => as_object(json!({
            "outcome": "not_done", "code": code.name(), "retry_after_ms": retry_after_ms, "detail": detail,
        })),
        Outcome::Unknown { code } => as_object(json!({ "outcome": "unknown", "code": code.name() })),
    };
    let leader = of.leader.as_ref();
    let leader = leader.map(|(node, address)| json!({ "node": node.0, "address": **address }));
    fields.insert("leader".into(), leader.into());
    Value::Object(fields)
}

fn voter(of: &Voter) -> Value {
    let generations = of.generations.iter();
    let generations = generations.map(|(node, generation)| format!("{node}:{generation}"));
    json!({
        "incarnation": of.incarnation.to_string(), "generations": generations.collect::<Vec<String>>(),
    })
}

fn message(of: &Message) -> Value {
    match of {
        Message::Prepare {
            ballot,
            attempt,
            config,
            from_slot,
        } => json!({
            "ballot": ballot.to_string(), "attempt": attempt, "config": config, "from_slot": from_slot.0,
        }),
        Message::Promise(of) => promise(of),
        Message::Accept {
            ballot,
            config,
            slot,
            chosen_upto,
            entry: of,
        } => json!({
            "ballot": ballot.to_string(),
            "config": config,
            "slot": slot.0,
            "chosen_upto": chosen_upto.0,
            "entry": entry(of),
        }),
        Message::Accepted {
            ballot,
            first,
            last,
            voter: of,
        } => json!({
            "ballot": ballot.to_string(), "first": first.0, "last": last.0, "voter": voter(of),
        }),
        Message::Nack { ballot, promised } => json!({
            "ballot": ballot.to_string(), "promised": promised.to_string(),
        }),
        Message::PreVote { attempt, highest } => json!({ "attempt": attempt, "highest": highest.to_string() }),
        Message::PreVoteAnswer {
            attempt,
            granted,
            highest,
            voter: of,
        } => json!({
            "attempt": attempt, "granted": granted, "highest": highest.to_string(), "voter": voter(of),
        }),
        Message::Heartbeat(of) => heartbeat(of),
        Message::HeartbeatAck(of) => heartbeat_ack(of),
        Message::Fetch { from, to } => json!({ "from": from.0, "to": to.0 }),
        Message::Chosen {
            first,
            entries,
            chosen_upto,
        } => json!({
            "first": first.0,
            "entries": entries.iter().map(entry).collect::<Vec<Value>>(),
            "chosen_upto": chosen_upto.0,
        }),
        Message::HandOver { ballot } | Message::Release { ballot } => json!({ "ballot": ballot.to_string() }),
        Message::ReadPosition { ask } => json!({ "start": hex(ask.start), "ask": ask.number }),
        Message::ReadPositionAnswer {
            ask,
            ballot,
            chosen_upto,
        } => json!({
            "start": hex(ask.start), "ask": ask.number, "ballot": ballot.to_string(), "chosen_upto": chosen_upto.0,
        }),
        Message::Recover {
            incarnation,
            nonce,
            attempt,
            from_slot,
        } => json!({
            "incarnation": incarnation.to_string(),
            "nonce": hex(*nonce),
            "attempt": attempt,
            "from_slot": from_slot.0,
        }),
        Message::RecoverAnswer(of) => {
            let lives = of.lives.iter().map(|(node, life)| {
                json!({
                    "node": node.0,
                    "incarnation": life.incarnation.to_string(),
                    "start": life.start.to_string(),
                })
            });
            json!({
                "nonce": hex(of.nonce),
                "highest": of.highest.to_string(),
                "lives": lives.collect::<Vec<Value>>(),
                "promise": promise(&of.promise),
            })
        }
        Message::Forgotten {
            incarnation,
            ballot,
            slot,
        } => json!({
            "incarnation": incarnation.to_string(), "ballot": ballot.to_string(), "slot": slot.0,
        }),
    }
}

fn promise(of: &Promise) -> Value {
    let accepted = of.accepted.iter().map(|accepted| {
        json!({
            "slot": accepted.slot.0,
            "ballot": accepted.ballot.to_string(),
            "chosen": accepted.chosen,
            "entry": entry(&accepted.entry),
        })
    });
    json!({
        "ballot": of.ballot.to_string(),
        "attempt": of.attempt,
        "first": of.first.0,
        "last": of.last.0,
        "is_last": of.is_last,
        "chosen_upto": of.chosen_upto.0,
        "log_time_ms": of.log_time.0,
        "voter": voter(&of.voter),
        "accepted": accepted.collect::<Vec<Value>>(),
    })
}

fn heartbeat(of: &Heartbeat) -> Value {
    json!({
        "ballot": of.ballot.to_string(),
        "round": of.round,
        "chosen_upto": of.chosen_upto.0,
        "confirmed_ms": of.confirmed_ms,
        "echo_ms": of.echo_ms,
        "applied": of.applied.0,
        "digest": hex(of.digest),
        "agreed": of.agreed.0,
        "agreed_digest": hex(of.agreed_digest),
    })
}

fn heartbeat_ack(of: &HeartbeatAck) -> Value {
    json!({
        "ballot": of.ballot.to_string(),
        "round": of.round,
        "chosen_upto": of.chosen_upto.0,
        "clock_ms": of.clock_ms,
        "free_bytes": of.free_bytes,
        "applied": of.applied.0,
        "digest": hex(of.digest),
        "voter": voter(&of.voter),
    })
}

/// The members of what `json!` made of braces.
fn as_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => Map::from_iter([("value".to_owned(), other)]),
    }
}
