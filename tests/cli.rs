//! The command line as a script sees it: what it prints where, and its exit codes.

use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;
use synod::kv::{Answer, Done};
use synod::paxos::{Incarnation, NodeId, Slot, Start};
use synod::sim::lessons::LESSONS;
use synod::wire::frame::{self, FRAME_BYTES_MAX};
use synod::wire::hello::{Base, NodeHello};
use synod::wire::{Frame, Hello, HelloKind, Outcome, Reply, RequestOp, Served};

/// A node of a cluster of which it may be the only one that runs; killed when dropped.
struct Node {
    child: Child,
    endpoint: String,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, which is a failure that the test has seen.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port below the ephemeral range that is free now, and not given out twice by this process.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 20_000 + (std::process::id() % 1_000) as u16 * 10;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::SeqCst);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts node 1 of so many.
fn start_node(of: u16) -> Node {
    for _ in 0..5 {
        let ports: Vec<u16> = (0..of).map(|_| free_port()).collect();
        let list = ports
            .iter()
            .enumerate()
            .map(|(place, port)| format!("{}=127.0.0.1:{port}", place + 1));
        let dir = tempfile::tempdir().expect("a directory");
        let child = Command::new(env!("CARGO_BIN_EXE_synodd"))
            .args(["--id", "1", "--debug-listen", "off", "--cluster"])
            .arg(list.collect::<Vec<_>>().join(","))
            .arg("--data-dir")
            .arg(dir.path().join("1"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("synodd runs");
        let mut node = Node {
            child,
            endpoint: format!("127.0.0.1:{}", ports[0]),
            _dir: dir,
        };
        for _ in 0..1_000 {
            if TcpStream::connect(&node.endpoint).is_ok() {
                return node;
            }
            if node.child.try_wait().expect("a child").is_some() {
                break; // somebody took the port in between: another one, then
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("no node came up");
}

fn command(endpoint: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    command
        .env_remove("SYNOD_ENDPOINTS")
        .args(["--endpoints", endpoint])
        .args(words);
    command
}

fn synod(endpoint: &str, words: &[&str]) -> Output {
    let output = command(endpoint, words).stdin(Stdio::null()).output();
    output.expect("synod runs")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn answers_stand_on_standard_output_and_no_is_exit_code_1() {
    let node = start_node(1);
    let ask = |words: &[&str]| {
        let output = synod(&node.endpoint, words);
        (code(&output), text(&output.stdout), text(&output.stderr))
    };
    let yes = |stdout: &str| (0, stdout.to_string(), String::new());
    let no = |stderr: &str| (1, String::new(), stderr.to_string());
    assert_eq!(ask(&["put", "color", "blue"]), yes("OK 1\n"));
    assert_eq!(ask(&["get", "color"]), yes("blue\n"));
    assert_eq!(ask(&["--raw", "get", "color"]), yes("blue"));
    assert_eq!(ask(&["get", "nothing"]), no(""));
    assert_eq!(
        ask(&["put", "color", "red", "--if-absent"]),
        no("synod: current \"blue\"\nsynod: version 1\n")
    );
    assert_eq!(
        ask(&["put", "color", "red", "--prev"]),
        yes("OK 2\nprevious \"blue\"\n")
    );
    assert_eq!(
        ask(&["cas", "color", "--old", "blue", "green"]),
        no("synod: current \"red\"\nsynod: version 2\n")
    );
    assert_eq!(ask(&["cas", "color", "--version", "2", "green"]), yes("OK 3\n"));
    assert_eq!(ask(&["del", "color"]), yes("OK 4\n"));
    assert_eq!(ask(&["del", "color"]), no(""));
    let (code, stdout, stderr) = ask(&["get", "color", "--stale"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("synod: stale: at most "), "{stderr}");
}

#[test]
fn values_come_from_standard_input_and_files_and_json_marks_what_is_no_text() {
    let node = start_node(1);
    let mut child = command(&node.endpoint, &["put", "bytes", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("synod runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"\xff\x00\n").expect("written");
    drop(stdin);
    assert_eq!(code(&child.wait_with_output().expect("ends")), 0);
    assert_eq!(synod(&node.endpoint, &["--raw", "get", "bytes"]).stdout, b"\xff\x00\n");
    let json = |words: &[&str]| -> serde_json::Value {
        let output = synod(&node.endpoint, &[&["--output", "json"], words].concat());
        assert_eq!(
            output.stdout.iter().filter(|byte| **byte == b'\n').count(),
            1,
            "one line"
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    assert_eq!(json(&["get", "bytes"])["value_base64"], "/wAK");

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("value");
    std::fs::write(&path, "from a file").expect("written");
    let name = format!("@{}", path.display());
    assert_eq!(code(&synod(&node.endpoint, &["put", "file", &name])), 0);
    assert_eq!(json(&["get", "file"])["value"], "from a file");
    assert_eq!(json(&["get", "nothing"])["answer"], "not_found");
    assert_eq!(json(&["status"])["nodes"][0]["status"]["role"], "leader");
    assert_eq!(code(&synod(&node.endpoint, &["put", "file", "@/nowhere/at/all"])), 2);
}

#[test]
fn wrong_usage_is_exit_code_2_and_asks_nobody() {
    let long_key = "k".repeat(1025);
    for words in [
        &["put", "k"][..],
        &["frobnicate"],
        &["cas", "k", "new"],
        &["put", "", "v"],
        &["get", &long_key],
        &["--timeout", "5", "get", "k"],
        &["--endpoints", "nonsense", "get", "k"],
        &["get", "k", "--at-least", "3"],
    ] {
        let output = synod("127.0.0.1:1", words);
        assert_eq!(code(&output), 2, "{words:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn a_cluster_that_is_not_founded_is_certainly_not_done_exit_code_3() {
    let node = start_node(3);
    for words in [&["put", "k", "v"][..], &["get", "k"]] {
        let output = synod(&node.endpoint, &[&["--timeout", "1s"], words].concat());
        assert_eq!(code(&output), 3, "{words:?}: {}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains("not done: not_founded"),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn a_write_without_an_answer_is_unknown_exit_code_4_and_a_read_is_not() {
    let endpoint = start_silent_node();
    let output = synod(&endpoint, &["--timeout", "400ms", "put", "k", "v"]);
    assert_eq!(code(&output), 4, "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("unknown, it may or may not take effect"));
    let output = synod(&endpoint, &["--timeout", "400ms", "--output", "json", "get", "k"]);
    assert_eq!(code(&output), 3, "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["outcome"], &json["code"]),
        (&"not_done".into(), &"deadline_passed".into())
    );
}

#[test]
fn nobody_there_is_exit_code_5() {
    let endpoint = format!("127.0.0.1:{}", free_port());
    for words in [&["put", "k", "v"][..], &["status"], &["debug", "1", "status"]] {
        let output = synod(&endpoint, &[&["--timeout", "300ms"], words].concat());
        assert_eq!(code(&output), 5, "{words:?}: {}", text(&output.stderr));
    }
}

#[test]
fn another_protocol_is_exit_code_6() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let written = stream.and_then(|mut stream| stream.write_all(b"220 mail.example ESMTP\r\n"));
            written.expect("written");
        }
    });
    let output = synod(&endpoint, &["put", "k", "v"]);
    assert_eq!(code(&output), 6, "{}", text(&output.stderr));
}

#[test]
fn an_interrupted_command_is_exit_code_130() {
    let endpoint = start_silent_node();
    let mut child = command(&endpoint, &["--timeout", "20s", "get", "k"])
        .spawn()
        .expect("synod runs");
    thread::sleep(Duration::from_millis(300));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

/// As in `synod sim | head -1`: without a word, and long before its duration is over.
#[test]
fn a_simulator_that_nobody_reads_any_more_ends_quietly() {
    let mut child = command(
        "127.0.0.1:1",
        &["sim", "--duration", "10m", "--storm", "1s", "--jobs", "1"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("synod runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
}

/// As in `synod … 2>&1 | head -1`: what could not be said any more changes neither what is done nor the exit code.
#[test]
fn commands_that_nobody_reads_any_more_end_as_they_would_have() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let history = dir.path().join("history");
    let operation = r#"{:process 0, :type :invoke, :f :put, :key "k", :value "a", :time 1}"#;
    let lines = [
        operation,
        &operation.replace(":invoke", ":ok").replace(":time 1", ":time 2"),
    ]
    .join("\n");
    std::fs::write(&history, lines).expect("a file");
    let history = history.to_str().expect("a name");
    let data = dir.path().join("data");
    let data = data.to_str().expect("a name");
    for (words, expected) in [
        (
            vec!["cluster", "--nodes", "1", "--base-port", &port, "--data-dir", data],
            2,
        ),
        (
            vec!["cluster", "--torture", "1s", "--base-port", &port, "--data-dir", data],
            2,
        ),
        (vec!["run", "--seed", "1", "no such script"], 2),
        (vec!["check", history], 0),
        (vec!["check", "--edn", history], 0),
        (vec!["check", "no such history"], 2),
        (vec!["inspect", "--hex", "00"], 2),
        (vec!["lesson"], 0),
    ] {
        let nobody = || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            writer
        };
        let mut unread = command("127.0.0.1:1", &words);
        let unread = unread.stdout(nobody()).stderr(nobody()).status().expect("synod runs");
        assert_eq!(unread.code(), Some(expected), "{words:?}");
        let output = command("127.0.0.1:1", &words)
            .stdout(nobody())
            .output()
            .expect("synod runs");
        let said = text(&output.stderr);
        assert_eq!(code(&output), expected, "{words:?}: {said}");
        assert!(
            !said.contains("panicked") && !said.contains("Broken pipe"),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn a_lesson_tells_the_rule_its_story_and_a_diagram_and_needs_no_cluster() {
    let listed = text(&synod("127.0.0.1:1", &["lesson"]).stdout);
    assert!(
        listed.contains("\npre-vote ") && listed.lines().count() == LESSONS.len(),
        "{listed}"
    );
    let lesson = synod("127.0.0.1:1", &["lesson", "majority"]);
    let told = text(&lesson.stdout);
    assert_eq!(code(&lesson), 0, "{told}");
    for words in [
        "the rule:  A quorum is at least a majority",
        "VIOLATION chosen: ",
        "with the rule kept, the same seed holds",
        "to run it again: synod sim --seed ",
        "--break majority --overlook phase-1",
        "```mermaid\nsequenceDiagram",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(code(&synod("127.0.0.1:1", &["lesson", "minority"])), 2);
}

/// A node that greets, opens sessions, and never answers anything else.
fn start_silent_node() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = listener.local_addr().expect("bound").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.expect("a connection");
            thread::spawn(move || keep_silent(stream));
        }
    });
    endpoint
}

fn keep_silent(mut stream: TcpStream) {
    let (mut inbox, mut scratch) = (BytesMut::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut scratch) {
        inbox.extend_from_slice(&scratch[..count]);
        while let Some((header, body)) = frame::next_frame(&mut inbox, FRAME_BYTES_MAX).expect("a client's frame") {
            let answer = match frame::decode(header, body).expect("a client's body") {
                Frame::Hello(_) => Frame::Hello(hello()),
                Frame::Request(request) if matches!(&request.op, RequestOp::Write(op) if op.name() == "open") => {
                    Frame::Reply(opened())
                }
                _ => continue,
            };
            let mut out = Vec::new();
            frame::encode(&answer, header.request_id, &mut out);
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }
}

fn opened() -> Reply {
    let done = Done {
        slot: Slot(1),
        revision: 0,
        answer: Answer::Opened { opened: Slot(1) },
    };
    Reply {
        outcome: Outcome::Done(Served::Done(done)),
        leader: None,
    }
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        kind: HelloKind::Node(NodeHello {
            node: NodeId(1),
            incarnation: Incarnation::default(),
            start: Start::default(),
            remembered: None,
            founded: true,
            advertise: "127.0.0.1:1".into(),
            debug: String::new(),
            listed: vec![NodeId(1)],
            base: Base::default(),
            roster: Vec::new(),
            lease_ms: 0,
        }),
        cluster_name: "synod".into(),
        cluster_id: 1,
    }
}
