//! Bad input at real nodes: each gets a clear error, closes at most its own connection, and loses nothing.

mod support;

use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{RawClient, client, hello, start_cluster};
use synod::kv::{Op, SessionRef};
use synod::paxos::{Ballot, Message, NodeId, Slot};
use synod::wire::message::ErrorCode;
use synod::wire::{Code, Frame, Outcome, Request, RequestOp, frame};

/// Sends bytes to a fresh connection, ends the input, and reads all that comes back.
fn throw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the node listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(15)))
        .expect("a timeout");
    // The node may close before it has taken everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The code of the ERROR frame among the frames of an answer.
fn error_code(answer: &[u8]) -> Option<ErrorCode> {
    let mut buffer = bytes::BytesMut::from(answer);
    while let Ok(Some((header, body))) = frame::next_frame(&mut buffer, frame::FRAME_BYTES_MAX) {
        if let Ok(Frame::Error { code, .. }) = frame::decode(header, body) {
            return Some(code);
        }
    }
    None
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame::encode(frame, 7, &mut bytes));
    bytes
}

#[test]
fn bad_bytes_get_their_own_error_and_a_well_behaved_client_sees_nothing_of_it() {
    let mut cluster = start_cluster(3, &[]);
    let leader = cluster.wait_for_leader();
    let (address, debug) = (
        cluster.address(leader).to_string(),
        cluster.debug_address(leader).to_string(),
    );
    let mut client = client(&cluster.addresses(), Duration::from_secs(5));
    client.put("good", "0").expect("written");

    let said_hello = bytes_of(&[Frame::Hello(hello())]);
    let mut wrong_crc = bytes_of(&[Frame::Ping { nonce: 1 }]);
    *wrong_crc.last_mut().expect("not empty") ^= 1;
    let mut too_long = said_hello.clone();
    too_long.extend([0xff; 16]);
    let mut too_short = said_hello.clone();
    too_short.extend([0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let mut other_version = hello();
    (other_version.version_min, other_version.version_max) = (900, 901);
    let mut other_cluster = hello();
    other_cluster.cluster_name = "elsewhere".into();
    let prepare = Message::Prepare {
        ballot: Ballot {
            round: 1 << 40,
            node: NodeId(2),
        },
        attempt: 1,
        config: 1,
        from_slot: Slot(1),
    };
    let after_hello = |bytes: Vec<u8>| [said_hello.clone(), bytes].concat();
    let table: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("zeros", vec![0; 64], ErrorCode::BadLength),
        ("a length over the limit", too_long, ErrorCode::BadLength),
        ("a length that is too short", too_short, ErrorCode::BadLength),
        ("a flipped bit", after_hello(wrong_crc), ErrorCode::BadChecksum),
        (
            "another version",
            bytes_of(&[Frame::Hello(other_version)]),
            ErrorCode::BadVersion,
        ),
        (
            "another cluster",
            bytes_of(&[Frame::Hello(other_cluster)]),
            ErrorCode::WrongCluster,
        ),
        (
            "no HELLO first",
            bytes_of(&[Frame::Ping { nonce: 1 }]),
            ErrorCode::NotAllowed,
        ),
        (
            "a client that prepares",
            after_hello(bytes_of(&[Frame::Paxos(prepare)])),
            ErrorCode::NotAllowed,
        ),
    ];
    for (number, (what, bytes, code)) in table.into_iter().enumerate() {
        let answer = throw(&address, &bytes);
        assert_eq!(error_code(&answer), Some(code), "{what}");
        client.put("good", number.to_string()).expect("meanwhile all is served");
    }
    let text = String::from_utf8(throw(&address, b"GET / HTTP/1.1\r\n\r\n")).expect("text");
    assert!(
        text.lines().count() == 1 && text.contains("binary") && text.contains(&debug),
        "{text:?}"
    );

    // Random bytes of all kinds, at both ports.
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let bytes: Vec<u8> = (0..dice.usize(1..3000)).map(|_| dice.u8(..)).collect();
        throw(if dice.bool() { &address } else { &debug }, &bytes);
        client.put("good", "still").expect("meanwhile all is served");
    }
    assert!(cluster.ids().into_iter().all(|id| cluster.is_running(id)));
    cluster.rest(Duration::from_millis(50));
    assert!(
        cluster
            .log()
            .iter()
            .any(|line| line.contains("bad_checksum") && line.contains("127.0.0.1:"))
    );
    let metrics = cluster.ask(leader, "metrics").expect("the debug port answers");
    assert!(metrics.contains("bad_checksum"), "{metrics}");
    assert_eq!(client.get("good").expect("served").expect("there").value, b"still"[..]);
}

#[test]
fn requests_over_their_limits_are_refused_before_they_are_proposed() {
    let cluster = start_cluster(1, &[]);
    let mut raw = RawClient::connect(&cluster.addresses()[0]);
    let get = |key: Vec<u8>| RequestOp::Get { key: Bytes::from(key) };
    let session = SessionRef { id: 9, opened: Slot(1) };
    let put = |key: Vec<u8>, bytes: usize| {
        let (key, value) = (Bytes::from(key), Bytes::from(vec![b'v'; bytes]));
        RequestOp::Write(Op::Put {
            key,
            value,
            if_absent: false,
            want_previous: false,
        })
    };
    // What is asked, and the code that it must be refused with.
    let table = [
        (
            "an empty key",
            SessionRef::default(),
            0,
            get(Vec::new()),
            Code::BadRequest,
        ),
        (
            "a key too long",
            SessionRef::default(),
            0,
            get(vec![b'k'; 1025]),
            Code::TooLarge,
        ),
        (
            "a value too long",
            session,
            1,
            put(vec![b'k'], (1 << 20) + 1),
            Code::TooLarge,
        ),
        (
            "a write without a session",
            SessionRef::default(),
            1,
            put(vec![b'k'], 1),
            Code::BadRequest,
        ),
        (
            "a write without a number",
            session,
            0,
            put(vec![b'k'], 1),
            Code::BadRequest,
        ),
        (
            "a session that was never opened",
            session,
            1,
            put(vec![b'k'], 1),
            Code::SessionExpired,
        ),
    ];
    for (what, session, number, op, code) in table {
        let outcome = raw.request(session, number, op);
        assert!(
            matches!(&outcome, Some(Outcome::NotDone { code: said, .. }) if *said == code),
            "{what}: {outcome:?}"
        );
    }
    let found = raw.request(SessionRef::default(), 0, get(vec![b'k']));
    assert!(
        matches!(found, Some(Outcome::Done(_))),
        "the connection lives on: {found:?}"
    );
}

#[test]
fn many_requests_in_flight_on_one_connection_are_each_answered_under_their_own_id() {
    let cluster = start_cluster(3, &[]);
    let mut raw = RawClient::connect(&cluster.addresses()[0]);
    for id in 1..=500 {
        let op = RequestOp::Get {
            key: Bytes::from(format!("key-{id}")),
        };
        let request = Request {
            deadline_ms: 10_000,
            session: SessionRef::default(),
            number: 0,
            low: 0,
            op,
        };
        raw.send(id, &Frame::Request(request));
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 500 {
        if let (id, Frame::Reply(_)) = raw.receive().expect("the node answers") {
            assert!(answered.insert(id), "{id} was answered twice");
        }
    }
}

fn synodd(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synodd"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("synodd runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_node_that_cannot_start_says_why_and_exits_by_the_code_of_its_help() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = |name: &str| directory.path().join(name).display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let list = "1=127.0.0.1:29001,2=127.0.0.1:29002,3=127.0.0.1:29003";
    let on_taken = format!("1=127.0.0.1:{port}");
    std::fs::write(directory.path().join("file"), "no directory").expect("written");
    let (fresh, file) = (data("fresh"), data("file"));
    let table: [(&str, Vec<&str>, i32, &str); 6] = [
        (
            "own id not in the list",
            vec!["--id", "9", "--cluster", list, "--data-dir", &fresh],
            2,
            "9",
        ),
        (
            "duplicate ids",
            vec!["--id", "1", "--cluster", "1=a:1,1=b:2", "--data-dir", &fresh],
            2,
            "1",
        ),
        (
            "heartbeat too long",
            vec![
                "--id",
                "1",
                "--cluster",
                list,
                "--data-dir",
                &fresh,
                "--heartbeat",
                "200ms",
            ],
            2,
            "election-timeout",
        ),
        (
            "debug port for all",
            vec![
                "--id",
                "1",
                "--cluster",
                list,
                "--data-dir",
                &fresh,
                "--debug-listen",
                "0.0.0.0:29101",
            ],
            2,
            "debug-allow-remote",
        ),
        (
            "a port in use",
            vec![
                "--id",
                "1",
                "--cluster",
                &on_taken,
                "--data-dir",
                &fresh,
                "--debug-listen",
                "off",
            ],
            4,
            "in use",
        ),
        (
            "a file for a directory",
            vec!["--id", "1", "--cluster", list, "--data-dir", &file],
            3,
            "file",
        ),
    ];
    for (what, arguments, code, word) in table {
        let output = synodd(&arguments);
        assert_eq!(output.status.code(), Some(code), "{what}: {}", text(&output));
        assert!(text(&output).contains(word), "{what}: {}", text(&output));
        if code == 2 {
            assert_eq!(text(&output).trim().lines().count(), 1, "{what}: {}", text(&output));
        }
    }
}

#[test]
fn a_directory_of_another_node_is_named_and_refused() {
    let mut cluster = start_cluster(1, &[]);
    let pid = cluster.pid(1).expect("it runs");
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).expect("linux");
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .map(|a| String::from_utf8_lossy(a).into())
        .collect();
    let place = arguments
        .iter()
        .position(|argument| argument == "--data-dir")
        .expect("given");
    let directory = arguments[place + 1].clone();
    let list = "1=127.0.0.1:29001,2=127.0.0.1:29002,3=127.0.0.1:29003";
    let locked = synodd(&["--id", "1", "--cluster", "1=127.0.0.1:29004", "--data-dir", &directory]);
    assert_eq!(locked.status.code(), Some(3), "{}", text(&locked));
    assert!(
        text(&locked).contains("in use by another process"),
        "two processes on one directory: {}",
        text(&locked)
    );
    cluster.kill_node(1);
    let other = synodd(&["--id", "2", "--cluster", list, "--data-dir", &directory]);
    assert_eq!(other.status.code(), Some(3), "{}", text(&other));
    assert!(
        text(&other).contains('1') && text(&other).contains('2'),
        "{}",
        text(&other)
    );
    assert!(Path::new(&directory).exists());
}
