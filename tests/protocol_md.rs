//! `protocol.md` is the contract: every hex block in it is decoded, compared, encoded and compared again here.
//!
//! If a block is wrong, the failure prints the bytes that should stand there.

#[path = "support/examples.rs"]
mod examples;

use bytes::{Bytes, BytesMut};
use examples::{DOCUMENT, Example, examples};
use std::collections::BTreeMap;
use synod::kv::{Answer, Command, Done, Expect, Op, Previous, SessionRef, State, Versioned};
use synod::paxos::message::{AcceptedEntry, Heartbeat, HeartbeatAck, PositionAsk, Promise, RecoverAnswer};
use synod::paxos::{Ballot, Entry, Incarnation, Life, LogTime, Message, NodeId, Slot, Start, Voter};
use synod::storage::sim::SimDisk;
use synod::storage::{File, Files, Identity, Options, Storage, segment, snapshot};
use synod::wire::frame::{self, FRAME_BYTES_MAX, FrameType, Header};
use synod::wire::hello::{self, Base, NodeHello};
use synod::wire::message::ErrorCode;
use synod::wire::record::{self, RecordKind};
use synod::wire::{
    Code, Frame, Hello, HelloKind, Outcome, Record, Reply, Request, RequestOp, RosterEntry, Served, Transfer, body,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ballot(round: u64, node: u16) -> Ballot {
    Ballot {
        round,
        node: NodeId(node),
    }
}

fn incarnation(node: u16) -> Incarnation {
    Incarnation {
        generation: 1,
        token: 0x1111_1111_1111_1111 * u64::from(node),
    }
}

const NONCE: u64 = 0x9999_9999_9999_9999;

fn second_life() -> Incarnation {
    Incarnation {
        generation: 2,
        token: 0x7777_7777_7777_7777,
    }
}

fn start_of_2() -> Start {
    Start {
        counter: 5,
        token: 0x5555_5555_5555_5555,
    }
}

fn position_ask() -> PositionAsk {
    PositionAsk {
        start: start_of_2().token,
        number: 12,
    }
}

fn voter() -> Voter {
    Voter {
        incarnation: incarnation(2),
        generations: (1..=3).map(|node| (NodeId(node), 1)).collect(),
    }
}

fn roster() -> Vec<RosterEntry> {
    let entry = |node| RosterEntry {
        node: NodeId(node),
        incarnation: incarnation(node),
        base: Base::default(),
    };
    (1..=3).map(entry).collect()
}

const SESSION_ID: u128 = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210;

fn session(opened: u64) -> SessionRef {
    SessionRef {
        id: SESSION_ID,
        opened: Slot(opened),
    }
}

fn put(if_absent: bool) -> Op {
    Op::Put {
        key: Bytes::from_static(b"color"),
        value: Bytes::from_static(b"blue"),
        if_absent,
        want_previous: false,
    }
}

fn del() -> Op {
    Op::Del {
        key: Bytes::from_static(b"color"),
        want_previous: true,
    }
}

fn cas(expect: Expect, value: &'static str, want_previous: bool) -> Op {
    Op::Cas {
        key: Bytes::from_static(b"color"),
        expect,
        value: Bytes::from_static(value.as_bytes()),
        want_previous,
    }
}

fn cas_by_value() -> Op {
    cas(Expect::Value(Bytes::from_static(b"blue")), "red", false)
}

fn cas_by_version() -> Op {
    cas(Expect::Version(12), "green", true)
}

fn command(opened: u64, number: u64, low: u64, op: Op) -> Command {
    Command {
        session: session(opened),
        number,
        low,
        op,
    }
}

fn batch() -> Entry {
    body::batch(LogTime(60_250), &[command(7, 4, 3, put(false))])
}

fn batch_of_every_op() -> Entry {
    let commands = [
        command(0, 0, 0, Op::Open),
        command(7, 3, 3, put(true)),
        command(7, 4, 3, del()),
        command(7, 5, 3, cas_by_value()),
        command(7, 6, 3, cas_by_version()),
        command(7, 0, 0, Op::Close),
    ];
    body::batch(LogTime(60_250), &commands)
}

fn noop() -> Entry {
    body::noop(LogTime(61_000))
}

fn messages() -> Vec<(&'static str, Message)> {
    let promise = Promise {
        ballot: ballot(2, 3),
        attempt: 1,
        first: Slot(8),
        last: Slot(9),
        is_last: true,
        chosen_upto: Slot(7),
        log_time: LogTime(61_000),
        voter: voter(),
        accepted: vec![AcceptedEntry {
            slot: Slot(9),
            ballot: ballot(1, 1),
            chosen: false,
            entry: noop(),
        }],
    };
    let remembered = Life {
        incarnation: incarnation(1),
        start: Start {
            counter: 3,
            token: 0x4444_4444_4444_4444,
        },
    };
    let recover_answer = RecoverAnswer {
        nonce: NONCE,
        highest: ballot(4, 1),
        lives: vec![(NodeId(1), remembered)],
        promise: promise.clone(),
    };
    vec![
        (
            "prepare",
            Message::Prepare {
                ballot: ballot(2, 3),
                attempt: 1,
                config: 1,
                from_slot: Slot(8),
            },
        ),
        ("promise", Message::Promise(promise)),
        (
            "accept",
            Message::Accept {
                ballot: ballot(1, 1),
                config: 1,
                slot: Slot(8),
                chosen_upto: Slot(7),
                entry: batch(),
            },
        ),
        (
            "accepted",
            Message::Accepted {
                ballot: ballot(1, 1),
                first: Slot(8),
                last: Slot(9),
                voter: voter(),
            },
        ),
        (
            "nack",
            Message::Nack {
                ballot: ballot(1, 1),
                promised: ballot(2, 3),
            },
        ),
        (
            "prevote",
            Message::PreVote {
                attempt: 4,
                highest: ballot(2, 3),
            },
        ),
        (
            "prevote-answer",
            Message::PreVoteAnswer {
                attempt: 4,
                granted: true,
                highest: ballot(2, 3),
                voter: voter(),
            },
        ),
        ("heartbeat", Message::Heartbeat(heartbeat())),
        ("heartbeat-ack", Message::HeartbeatAck(heartbeat_ack())),
        (
            "fetch",
            Message::Fetch {
                from: Slot(8),
                to: Slot(20),
            },
        ),
        (
            "chosen",
            Message::Chosen {
                first: Slot(8),
                entries: vec![batch(), noop()],
                chosen_upto: Slot(20),
            },
        ),
        ("hand-over", Message::HandOver { ballot: ballot(1, 1) }),
        ("release", Message::Release { ballot: ballot(1, 1) }),
        ("read-position", Message::ReadPosition { ask: position_ask() }),
        (
            "read-position-answer",
            Message::ReadPositionAnswer {
                ask: position_ask(),
                ballot: ballot(1, 1),
                chosen_upto: Slot(9),
            },
        ),
        (
            "recover",
            Message::Recover {
                incarnation: second_life(),
                nonce: NONCE,
                attempt: 1,
                from_slot: Slot(8),
            },
        ),
        ("recover-answer", Message::RecoverAnswer(recover_answer)),
        (
            "forgotten",
            Message::Forgotten {
                incarnation: incarnation(2),
                ballot: ballot(1, 1),
                slot: Slot(9),
            },
        ),
    ]
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        ballot: ballot(1, 1),
        round: 512,
        chosen_upto: Slot(9),
        confirmed_ms: 52,
        echo_ms: 86_400_000,
        applied: Slot(9),
        digest: 0x0123_4567_89ab_cdef,
        agreed: Slot(7),
        agreed_digest: 0xfedc_ba98_7654_3210,
    }
}

fn heartbeat_ack() -> HeartbeatAck {
    HeartbeatAck {
        ballot: ballot(1, 1),
        round: 512,
        chosen_upto: Slot(9),
        clock_ms: 86_400_051,
        free_bytes: 10 << 30,
        applied: Slot(9),
        digest: 0x0123_4567_89ab_cdef,
        voter: voter(),
    }
}

fn hello_of(cluster_id: u64, kind: HelloKind) -> Frame {
    Frame::Hello(Hello {
        version_min: 1,
        version_max: 1,
        features: hello::FEATURES,
        kind,
        cluster_name: "synod".into(),
        cluster_id,
    })
}

fn node_hello() -> NodeHello {
    NodeHello {
        node: NodeId(2),
        incarnation: incarnation(2),
        start: start_of_2(),
        remembered: Some((
            incarnation(1),
            Start {
                counter: 3,
                token: 0x4444_4444_4444_4444,
            },
        )),
        founded: true,
        advertise: "127.0.0.1:7002".into(),
        debug: "127.0.0.1:7102".into(),
        listed: (1..=3).map(NodeId).collect(),
        base: Base::default(),
        roster: roster(),
        lease_ms: 0,
    }
}

fn between_nodes() -> Vec<(&'static str, u64, Frame)> {
    let slot = Slot(40);
    let offer = Transfer::Offer {
        slot,
        bytes: 1_400_347,
        content: 0x4d4d_5f0a_b6d9_bbd6,
    };
    let ask = Transfer::Ask {
        slot,
        offset: 262_144,
        length: 262_144,
    };
    let chunk = Transfer::chunk(slot, 0, Bytes::from_static(b"SYNODSNP"));
    let cluster_id = hello::cluster_id("synod", &roster());
    let forwarded = Request {
        deadline_ms: 4900,
        ..write(7, 4, 3, put(false))
    };
    vec![
        ("hello-node", 0, hello_of(cluster_id, HelloKind::Node(node_hello()))),
        ("hello-client", 0, hello_of(0, HelloKind::Client)),
        ("ping", 0, Frame::Ping { nonce: 7 }),
        ("pong", 0, Frame::Pong { nonce: 7 }),
        (
            "error",
            0,
            Frame::Error {
                code: ErrorCode::WrongCluster,
                detail: "this node belongs to cluster \"synod\"".into(),
            },
        ),
        (
            "roster",
            0,
            Frame::Roster {
                founded: false,
                roster: roster(),
            },
        ),
        (
            "forward",
            77,
            Frame::Forward {
                principal: Vec::new(),
                request: forwarded,
            },
        ),
        (
            "forward-reply",
            77,
            Frame::ForwardReply(done(8, 13, written(Previous::NotAsked))),
        ),
        ("snapshot-offer", 0, Frame::Transfer(offer)),
        ("snapshot-ask", 0, Frame::Transfer(ask)),
        ("snapshot-chunk", 0, Frame::Transfer(chunk)),
    ]
}

fn write(opened: u64, number: u64, low: u64, op: Op) -> Request {
    Request {
        deadline_ms: 5000,
        session: session(opened),
        number,
        low,
        op: RequestOp::Write(op),
    }
}

fn read(op: RequestOp) -> Request {
    Request {
        deadline_ms: 5000,
        session: SessionRef::default(),
        number: 0,
        low: 0,
        op,
    }
}

fn requests() -> Vec<(&'static str, u64, Frame)> {
    let key = Bytes::from_static(b"color");
    let stale = RequestOp::GetStale {
        key: key.clone(),
        at_least: Slot(8),
    };
    let requests = vec![
        ("request-open", write(0, 0, 0, Op::Open)),
        ("request-put", write(7, 4, 3, put(false))),
        ("request-del", write(7, 5, 4, del())),
        ("request-cas", write(7, 6, 4, cas_by_value())),
        ("request-cas-version", write(7, 7, 4, cas_by_version())),
        ("request-close", write(7, 0, 0, Op::Close)),
        ("request-get", read(RequestOp::Get { key })),
        ("request-get-stale", read(stale)),
        ("request-status", read(RequestOp::Status)),
    ];
    for (name, request) in &requests {
        assert_eq!(request.check(), Ok(()), "{name} is an example of what a node takes");
    }
    let numbered = requests.into_iter().zip(1..);
    numbered
        .map(|((name, request), id)| (name, id, Frame::Request(request)))
        .collect()
}

fn versioned(value: &'static str, created: u64, version: u64) -> Versioned {
    Versioned {
        value: Bytes::from_static(value.as_bytes()),
        created,
        version,
    }
}

fn written(previous: Previous) -> Answer {
    Answer::Written { previous }
}

fn from_leader(outcome: Outcome) -> Reply {
    Reply {
        outcome,
        leader: Some((NodeId(1), "127.0.0.1:7001".into())),
    }
}

fn done(slot: u64, revision: u64, answer: Answer) -> Reply {
    from_leader(Outcome::Done(Served::Done(Done {
        slot: Slot(slot),
        revision,
        answer,
    })))
}

fn replies() -> Vec<(&'static str, u64, Frame)> {
    let blue = || versioned("blue", 13, 13);
    let red = || versioned("red", 13, 14);
    let stale = Served::Stale {
        slot: Slot(10),
        revision: 14,
        age_ms: 75,
        found: Some(red()),
    };
    let busy = Outcome::NotDone {
        code: Code::Busy,
        retry_after_ms: 40,
        detail: "2 MB wait already".into(),
    };
    let lost = Reply {
        outcome: Outcome::Unknown { code: Code::LeaderLost },
        leader: None,
    };
    let status = Served::Status(r#"{"id":1,"role":"leader"}"#.into());
    let replies = vec![
        ("reply-opened", 1, done(7, 12, Answer::Opened { opened: Slot(7) })),
        ("reply-written", 2, done(8, 13, written(Previous::NotAsked))),
        ("reply-written-previous", 3, done(9, 14, written(Previous::Was(blue())))),
        ("reply-written-absent", 10, done(9, 14, written(Previous::Absent))),
        ("reply-exists", 11, done(10, 14, Answer::Exists { current: blue() })),
        ("reply-not-found", 12, done(10, 14, Answer::NotFound)),
        (
            "reply-cas-failed",
            4,
            done(10, 14, Answer::CasFailed { current: Some(red()) }),
        ),
        ("reply-found", 7, done(10, 14, Answer::Found(red()))),
        ("reply-closed", 6, done(11, 14, Answer::Closed)),
        ("reply-stale", 8, from_leader(Outcome::Done(stale))),
        ("reply-status", 9, from_leader(Outcome::Done(status))),
        ("reply-not-done", 13, from_leader(busy)),
        ("reply-unknown", 14, lost),
    ];
    let frame = |(name, id, reply)| (name, id, Frame::Reply(reply));
    replies.into_iter().map(frame).collect()
}

/// Every frame of the document, with its request id.
fn frames() -> Vec<(&'static str, u64, Frame)> {
    let agreement = messages()
        .into_iter()
        .map(|(name, message)| (name, 0, Frame::Paxos(message)));
    let mut frames: Vec<_> = agreement.collect();
    frames.extend(between_nodes());
    frames.extend(requests());
    frames.extend(replies());
    frames
}

fn bodies() -> Vec<(&'static str, Entry)> {
    vec![
        ("body-noop", noop()),
        ("body-batch", batch()),
        ("body-all", batch_of_every_op()),
    ]
}

fn records() -> Vec<(&'static str, Record)> {
    vec![
        ("record-promised", Record::Promised(ballot(2, 3))),
        ("record-used", Record::Used(ballot(2, 3))),
        (
            "record-accepted",
            Record::Accepted {
                slot: Slot(9),
                ballot: ballot(1, 1),
                entry: noop(),
            },
        ),
        (
            "record-learned",
            Record::Learned {
                slot: Slot(9),
                entry: noop(),
            },
        ),
        ("record-chosen-upto", Record::ChosenUpto(Slot(9))),
        ("record-roster", Record::Roster(roster())),
        ("record-founded", Record::Founded),
        ("record-lease", Record::Lease(500)),
        (
            "record-peer",
            Record::Peer {
                node: NodeId(2),
                incarnation: incarnation(2),
                start: start_of_2(),
            },
        ),
        ("record-life", Record::Life(second_life())),
        (
            "record-copied",
            Record::Copied {
                slot: Slot(9),
                ballot: ballot(1, 1),
                entry: noop(),
            },
        ),
        ("record-recovered", Record::Recovered),
        (
            "record-checkpoint",
            Record::Checkpoint {
                segment: 3,
                slot: Slot(40),
                promised: ballot(2, 3),
                used: ballot(1, 1),
                chosen_upto: Slot(42),
            },
        ),
        ("record-installed", Record::Installed { slot: Slot(40) }),
    ]
}

fn example<'a>(examples: &'a BTreeMap<&'static str, Example>, name: &str) -> &'a Example {
    examples
        .get(name)
        .unwrap_or_else(|| panic!("protocol.md has no example {name}"))
}

#[test]
fn every_frame_of_the_document_is_what_its_caption_says() {
    let examples = examples();
    for (name, request_id, expected) in frames() {
        let shown = example(&examples, name);
        let encoded = frame::encode_to_bytes(&expected, request_id);
        assert_eq!(
            hex(&shown.bytes),
            hex(&encoded),
            "{name}: the bytes should be the right ones"
        );
        let mut buffer = BytesMut::from(&shown.bytes[..]);
        let (header, body) = frame::next_frame(&mut buffer, FRAME_BYTES_MAX)
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .unwrap_or_else(|| panic!("{name}: bytes are missing"));
        assert!(buffer.is_empty(), "{name}: bytes are left over");
        let frame_type = FrameType::of(&expected);
        assert_eq!(
            header,
            Header {
                frame_type,
                more: false,
                request_id
            },
            "{name}"
        );
        assert!(shown.caption.starts_with(expected.name()), "{name}: {}", shown.caption);
        if let Frame::Paxos(message) = &expected {
            assert_eq!(
                shown.caption,
                message.to_string(),
                "{name}: the caption is the message's Display"
            );
        }
        assert_eq!(frame::decode(header, body), Ok(expected), "{name}");
    }
}

#[test]
fn every_body_and_record_of_the_document_is_what_its_caption_says() {
    let examples = examples();
    for (name, entry) in bodies() {
        let shown = example(&examples, name);
        assert_eq!(hex(&shown.bytes), hex(&entry.body), "{name}");
        let crc = crc32fast::hash(&shown.bytes);
        let decoded = body::parse(shown.bytes.clone().into(), crc).expect("the body is whole");
        assert!(body::commands(&decoded).is_ok(), "{name}");
        assert_eq!(decoded, entry, "{name}");
    }
    for (name, record) in records() {
        let shown = example(&examples, name);
        assert!(shown.caption.starts_with(record.name()), "{name}: {}", shown.caption);
        let mut encoded = vec![record.kind().byte()];
        record.encode_head(&mut encoded);
        encoded.extend_from_slice(record.body().map_or(&[], |body| body));
        assert_eq!(hex(&shown.bytes), hex(&encoded), "{name}");
        let kind = RecordKind::from_byte(shown.bytes[0]).expect("the kind is known");
        let body_ref = record::body_of_head(kind, &shown.bytes[1..]).expect("the head is whole");
        let body_length = body_ref.map_or(0, |body| body.length);
        let (head, body) = shown.bytes[1..].split_at(shown.bytes.len() - 1 - body_length);
        let body = body_ref.map(|_| Bytes::copy_from_slice(body));
        assert_eq!(Record::decode(kind, head, body), Ok(record), "{name}");
    }
}

/// What `synod inspect` shows of these bytes, a JSON object each.
fn inspected(bytes: &[u8]) -> Vec<serde_json::Value> {
    let inspect = std::process::Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["--output", "json", "inspect", "--hex", &hex(bytes)])
        .output()
        .expect("synod runs");
    let shown = String::from_utf8(inspect.stdout).expect("JSON is text");
    assert!(
        inspect.status.success(),
        "{shown}{}",
        String::from_utf8_lossy(&inspect.stderr)
    );
    let lines = shown
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object a line"));
    lines.collect()
}

#[test]
fn synod_inspect_reads_every_hex_example_of_the_document() {
    for (name, example) in examples() {
        let shown = inspected(&example.bytes);
        let (first, last) = (&shown[1], &shown[shown.len() - 1]);
        assert_eq!(last["verdict"], "clean", "{name}: {last}");
        let expected = example.caption.split(' ').next().expect("a caption has words");
        if name.starts_with("body-") {
            assert_eq!(first["part"], "ENTRY", "{name}: {first}");
        } else {
            assert_eq!(first["part"], expected, "{name}: {first}");
        }
    }
    let accepted = &inspected(&example(&examples(), "disk-unit").bytes)[3];
    assert_eq!((&accepted["slot"], &accepted["ballot"]), (&9.into(), &"1.1".into()));
    assert_eq!(accepted["entry"]["stamp_ms"], 61_000);
}

/// The identity of the document, before its node starts once more.
fn identity() -> Identity {
    let earlier = Start {
        counter: 4,
        token: 0x4444_4444_4444_4444,
    };
    Identity {
        node: NodeId(2),
        cluster_name: "synod".into(),
        incarnation: incarnation(2),
        log_id: 0x0f1e_2d3c_4b5a_6978,
        starts: vec![earlier, start_of_2()],
    }
}

/// A directory put together from the document's bytes: `IDENTITY`, and a segment with these bytes as its units.
fn directory(examples: &BTreeMap<&'static str, Example>, units: &[u8]) -> SimDisk {
    let disk = SimDisk::new(1);
    let segment = example(examples, "disk-segment");
    disk.create("IDENTITY").expect("the disk is empty");
    disk.overwrite("IDENTITY", 0, &example(examples, "disk-identity").bytes);
    let mut file = disk.create("wal-0000000001.log").expect("the disk is empty");
    file.truncate(0x10000).expect("the disk has room");
    disk.overwrite("wal-0000000001.log", 0, &segment.bytes);
    disk.overwrite("wal-0000000001.log", 4096, units);
    disk
}

#[test]
fn every_byte_box_of_the_disk_is_what_its_caption_says() {
    let examples = examples();
    let shown = |name| hex(&example(&examples, name).bytes);
    assert_eq!(shown("disk-identity"), hex(&identity().encode()));
    let header = segment::encode_header(1, 0x10000, identity().log_id);
    assert_eq!(shown("disk-segment"), hex(&header));

    let options = Options::new(NodeId(2), "synod", 1);
    let (slot, ballot_1) = (Slot(9), ballot(1, 1));
    let accepted = Record::Accepted {
        slot,
        ballot: ballot_1,
        entry: noop(),
    };
    let records = [Record::Promised(ballot(2, 3)), accepted];
    // Appending these records to an empty log makes the unit of the document …
    let disk = directory(&examples, &[]);
    let (mut storage, _) = Storage::open(disk.clone(), &options).expect("the document's directory is whole");
    let read_nothing = storage.recover(|record| panic!("{record:?} in an empty log"));
    read_nothing.expect("the document's segment is whole");
    storage.append(&records).expect("there is room");
    storage.sync().expect("the disk works");
    let unit = example(&examples, "disk-unit");
    let log = disk.contents("wal-0000000001.log").expect("the log is there");
    assert_eq!(shown("disk-unit"), hex(&log[4096..4096 + unit.bytes.len()]));
    assert!(log[4096 + unit.bytes.len()..].iter().all(|&byte| byte == 0));

    // … and a log of that unit holds these records.
    let disk = directory(&examples, &unit.bytes);
    let (mut storage, found) = Storage::open(disk, &options).expect("the document's directory is whole");
    assert_eq!(found.past_starts(), identity().starts);
    assert_eq!(found.incarnation, identity().incarnation);
    let mut read = Vec::new();
    storage.recover(|record| read.push(record)).expect("the unit is whole");
    assert_eq!(read, records);
}

/// The state of the document: a session that wrote one key.
fn state_of_two_slots() -> State {
    let mut state = State::new();
    let command = |opened, number, op| Command {
        session: SessionRef { id: 7, opened },
        number,
        low: number,
        op,
    };
    let put = Op::Put {
        key: Bytes::from_static(b"color"),
        value: Bytes::from_static(b"blue"),
        if_absent: false,
        want_previous: false,
    };
    let mut applied = Vec::new();
    state.apply(
        Slot(1),
        LogTime(61_000),
        &[command(Slot::ZERO, 0, Op::Open)],
        &mut applied,
    );
    state.apply(Slot(2), LogTime(61_001), &[command(Slot(1), 1, put)], &mut applied);
    state
}

#[test]
fn the_snapshot_of_the_document_is_what_its_caption_says() {
    let mut state = state_of_two_slots();
    let header = snapshot::Header {
        cluster_id: hello::cluster_id("synod", &roster()),
        summary: state.begin_snapshot(),
        config: 1,
        members: vec![NodeId(1), NodeId(2), NodeId(3)],
    };
    let disk = SimDisk::new(1);
    let mut writer = snapshot::SnapshotWriter::begin(&disk, &header).expect("the disk works");
    let more = state.next_of_snapshot(writer.room(), &mut |item| writer.add(item));
    assert_eq!(more, Ok(false), "it is small");
    writer.finish().expect("the disk works");
    snapshot::publish(&disk, Slot(2)).expect("the disk works");
    let name = snapshot::snapshot_name(Slot(2));
    let shown = example(&examples(), "disk-snapshot").bytes.clone();
    assert_eq!(hex(&shown), hex(&disk.contents(&name).expect("it was written")));

    // … and the document's bytes are that state.
    disk.overwrite(&name, 0, &shown);
    let loading = snapshot::Loading::begin(&disk, &name, State::new()).expect("the document's header is whole");
    let (found, loaded) = loading.finish().expect("the document's snapshot is whole");
    assert_eq!((found, loaded.summary()), (header, state.summary()));
}

#[test]
fn no_example_of_the_document_goes_unread() {
    let mut examples = examples();
    let names = frames().into_iter().map(|(name, ..)| name);
    let names = names.chain(bodies().into_iter().map(|(name, _)| name));
    let names = names.chain(records().into_iter().map(|(name, _)| name));
    for name in names.chain(["disk-identity", "disk-segment", "disk-unit", "disk-snapshot"]) {
        examples.remove(name);
    }
    assert!(examples.is_empty(), "no test reads {:?}", examples.keys());
}

#[test]
fn every_type_kind_and_code_has_its_row_and_every_type_and_kind_its_example() {
    let has_row = |start: &str| DOCUMENT.lines().any(|line| line.starts_with(start));
    for frame_type in FrameType::ALL {
        let shown: Vec<Frame> = frames().into_iter().map(|(_, _, frame)| frame).collect();
        let frame = shown
            .iter()
            .find(|frame| FrameType::of(frame) == frame_type)
            .unwrap_or_else(|| panic!("no example of {frame_type:?}"));
        let row = format!("| `{:02x}` | [{}](", frame_type.byte(), frame.name());
        assert!(has_row(&row), "no row {row:?}");
    }
    for kind in RecordKind::ALL {
        let record = records().into_iter().find(|(_, record)| record.kind() == kind);
        let (_, record) = record.unwrap_or_else(|| panic!("no example of {kind:?}"));
        let row = format!("| {} | `{}` |", kind.byte(), record.name());
        assert!(has_row(&row), "no row {row:?}");
    }
    for code in Code::ALL {
        let class = if code.is_unknown() { "unknown" } else { "not done" };
        let again = if code.is_retryable() { "yes" } else { "no" };
        let row = format!("| {} | `{}` | {class} | {again}", code.byte(), code.name());
        assert!(has_row(&row), "no row {row:?}");
    }
    for code in ErrorCode::ALL {
        let row = format!("| {} | `{}` |", code.byte(), code.name());
        assert!(has_row(&row), "no row {row:?}");
    }
}

#[test]
fn the_limits_and_the_cluster_id_of_the_document_are_those_of_the_code() {
    let limits: [(&str, usize); 7] = [
        (
            "| piece of a snapshot | 1..=262,144.",
            synod::wire::transfer::CHUNK_BYTES,
        ),
        (
            "| length before the connection has said HELLO | 4 KiB = 4,096 |",
            frame::HELLO_BYTES_MAX,
        ),
        ("| length afterwards | 4 MiB = 4,194,304 |", FRAME_BYTES_MAX),
        ("| key | 1..=1,024 |", synod::kv::command::KEY_BYTES_MAX),
        ("| value | 0..=1 MiB = 1,048,576 |", synod::kv::command::VALUE_BYTES_MAX),
        ("| entry body | 3 MiB = 3,145,728.", body::BODY_BYTES_MAX),
        ("| slots in one ACCEPTED | 65,536 |", frame::ACCEPTED_SLOTS_MAX as usize),
    ];
    for (row, limit) in limits {
        assert!(DOCUMENT.contains(row), "no row {row:?}");
        let last = row.trim_end_matches([' ', '|', '.']).rsplit(['=', ' ', '|']).next();
        let stated: String = last.unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
        assert_eq!(stated, limit.to_string(), "{row}");
    }
    let id = format!("`{:016x}`", hello::cluster_id("synod", &roster()));
    assert!(DOCUMENT.contains(&id), "the cluster id of the example is {id}");
}
