//! A real node in this process, and whatever comes over its sockets: as a client, as a peer, and as a person at the
//! debug port. It must answer or close within seconds, and serve everybody else as before.

use crate::driver::{Target, fuzz};
use crate::text::COMMAND_WORDS;
use crate::wire::{frames, mend_frames};
use bytes::BytesMut;
use clap::Parser;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use synod::node::Node;
use synod::node::flags::{DebugListen, Flags};
use synod::paxos::{Incarnation, NodeId, Start};
use synod::wire::frame::{self, FRAME_BYTES_MAX};
use synod::wire::hello::{Base, FEATURES, NodeHello, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use synod::wire::{Frame, FrameType, Hello, HelloKind};

/// A node that says nothing for so long, and does not close, hangs.
const PATIENCE_MAX: Duration = Duration::from_secs(15);
/// Where it may be right to say nothing, no more time is lost.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
/// So often, a millisecond apart, it is looked whether the node dials: it does at once.
const DIAL_TRIES: usize = 5_000;
/// Longest answer to one connection.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Node 1 on a thread of its own.
struct Fixture {
    address: SocketAddr,
    debug: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    /// Alone, or one of three of which the others are not there, but for node 2 if it is said where.
    fn start(nodes: u16, two: Option<SocketAddr>) -> Fixture {
        let directory = tempfile::tempdir().expect("the system has room for a directory");
        let member = |node| match two.filter(|_| node == 2) {
            Some(address) => format!("2={address}"),
            None => format!("{node}=127.0.0.1:{node}"),
        };
        let cluster = (1..=nodes).map(member).collect::<Vec<_>>().join(",");
        let data_dir = directory.path().join("data").display().to_string();
        let flags = format!(
            "synodd --id 1 --cluster {cluster} --data-dir {data_dir} --request-timeout 200ms --segment-bytes 8MiB --cache-bytes 8MiB"
        );
        let flags = Flags::try_parse_from(flags.split_whitespace()).expect("good flags");
        let mut config = flags.check().expect("flags that fit each other");
        // Only here the system may choose the ports.
        config.listen = "127.0.0.1:0".into();
        config.debug = DebugListen::At("127.0.0.1:0".into());
        let mut node = Node::start(config).expect("the node starts");
        let address = node.local_address().expect("it listens");
        let debug = node.server().debug_address().expect("it listens");
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                node.turn().expect("nothing that comes in ends a node");
            }
        });
        let fixture = Fixture {
            address,
            debug,
            is_over,
            thread: Some(thread),
            _directory: directory,
        };
        while nodes == 1
            && fixture
                .throw(debug, b"ready\nquit\n", false)
                .windows(4)
                .any(|word| word == b"ERR ")
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        fixture
    }

    /// Sends all of `bytes` on a connection of its own, ends it, and takes what comes back.
    fn throw(&self, to: SocketAddr, bytes: &[u8], may_wait: bool) -> Vec<u8> {
        self.say(TcpStream::connect(to).expect("the node listens"), bytes, may_wait)
    }

    /// The same on a connection that is there.
    fn say(&self, mut stream: TcpStream, bytes: &[u8], may_wait: bool) -> Vec<u8> {
        let patience = if may_wait { PATIENCE_MIN } else { PATIENCE_MAX };
        stream.set_read_timeout(Some(patience)).expect("a timeout");
        // The node may close before it has taken everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let (mut answer, mut chunk) = (Vec::new(), [0; 64 << 10]);
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
                // A client may have asked for what comes late or never, with a long deadline.
                Err(error) if error.kind() == ErrorKind::WouldBlock && may_wait => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    panic!("the node neither answers nor closes; so far {} bytes", answer.len())
                }
                Err(_) => break, // it closed with bytes of ours unread
            }
            assert!(answer.len() < ANSWER_BYTES_MAX, "the answer has no end");
        }
        assert!(
            self.thread.as_ref().is_some_and(|thread| !thread.is_finished()),
            "the node's thread has ended"
        );
        answer
    }

    /// Says `bytes` as node 2, which listens there, on a connection that the node dials.
    fn be_dialled(&self, two: &TcpListener, bytes: &[u8]) -> Vec<u8> {
        // A connection of node 2 that came and went ends whatever the node waits for before it dials again.
        self.throw(self.address, &hello(peer()), false);
        for _ in 0..DIAL_TRIES {
            match two.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket can block");
                    return self.say(stream, bytes, false);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("nobody can dial here: {error}"),
            }
        }
        panic!("the node does not dial");
    }

    /// Somebody who behaves is served.
    fn assert_serves(&self) {
        let answer = self.throw(self.debug, b"ping\nquit\n", false);
        assert!(answer.starts_with(b"OK pong"), "{:?}", String::from_utf8_lossy(&answer));
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _wakes_it = TcpStream::connect(self.debug);
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the node's thread panicked");
    }
}

fn hello(kind: HelloKind) -> Vec<u8> {
    let hello = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION_MAX,
        features: FEATURES,
        kind,
        cluster_name: "synod".into(),
        cluster_id: 0,
    };
    frame::encode_to_bytes(&Frame::Hello(hello), 0).to_vec()
}

fn peer() -> HelloKind {
    HelloKind::Node(NodeHello {
        node: NodeId(2),
        incarnation: Incarnation {
            generation: 1,
            token: 2,
        },
        start: Start { counter: 1, token: 3 },
        remembered: None,
        founded: false,
        advertise: "127.0.0.1:2".into(),
        debug: String::new(),
        listed: (1..=3).map(NodeId).collect(),
        base: Base::default(),
        roster: Vec::new(),
        lease_ms: 0,
    })
}

/// `hello`, each of the frames that may follow it, and all of them in one.
fn streams(hello: &[u8], may_follow: impl Fn(FrameType) -> bool) -> Vec<Vec<u8>> {
    // A stale read that waits for a slot that never comes teaches nothing, and takes its time.
    let waits = |frame: &[u8]| frame[8] == FrameType::Request.byte() && frame.get(64) == Some(&0x11);
    let may_follow = |frame: &&Vec<u8>| FrameType::from_byte(frame[8]).is_ok_and(&may_follow) && !waits(frame);
    let frames: Vec<Vec<u8>> = frames().iter().filter(may_follow).cloned().collect();
    let mut streams: Vec<Vec<u8>> = frames.iter().map(|frame| [hello, frame].concat()).collect();
    streams.push([hello, &frames.concat()].concat());
    streams
}

/// The names of the frames of an answer, and what its errors say. Whatever comes back is whole frames, or text for
/// somebody who took this port for another.
fn words_of(answer: &[u8]) -> String {
    let (mut buffer, mut words) = (BytesMut::from(answer), String::new());
    if frame::looks_like_text(answer) {
        return String::from_utf8_lossy(answer).into_owned();
    }
    while let Some((header, body)) = frame::next_frame(&mut buffer, FRAME_BYTES_MAX).expect("a node says frames") {
        match frame::decode(header, body).expect("a node says what it can read") {
            Frame::Error { code, detail } => words += &format!("{code:?} {detail} "),
            other => words += &format!("{} ", other.name()),
        }
    }
    words
}

fn fuzz_frames(name: &'static str, nodes: u16, hello: &[u8], may_follow: impl Fn(FrameType) -> bool) {
    let node = Fixture::start(nodes, None);
    fuzz_streams((name, 2_000), streams(hello, may_follow), &node, |stream| {
        node.throw(node.address, stream, name == "node-client")
    });
}

fn fuzz_streams(
    (name, cases): (&'static str, u64),
    streams: Vec<Vec<u8>>,
    node: &Fixture,
    say: impl Fn(&[u8]) -> Vec<u8>,
) {
    let target = Target {
        mend: mend_frames,
        ..Target::new(name, streams, cases)
    };
    let mut cases = 0_u32;
    fuzz(&target, |stream| {
        cases += 1;
        let answer = say(stream);
        if cases.is_multiple_of(64) {
            node.assert_serves();
        }
        words_of(&answer)
    });
    node.assert_serves();
}

#[test]
fn a_node_answers_or_closes_whatever_a_client_says() {
    fuzz_frames(
        "node-client",
        1,
        &hello(HelloKind::Client),
        FrameType::allowed_from_client,
    );
}

#[test]
fn a_node_answers_or_closes_whatever_a_peer_says() {
    // Founded it is not, so nobody's words can make it vote; what a liar among founded nodes could do is another matter.
    fuzz_frames("node-peer", 3, &hello(peer()), |frame| {
        frame.allowed_from_node() && frame != FrameType::Chosen
    });
}

#[test]
fn a_node_closes_whatever_a_peer_says_that_it_dialled() {
    let two = TcpListener::bind("127.0.0.1:0").expect("the system has a port");
    two.set_nonblocking(true).expect("a socket need not block");
    let node = Fixture::start(3, Some(two.local_addr().expect("it listens")));
    let answers = |frame: FrameType| {
        let always = matches!(frame, FrameType::Ping | FrameType::Pong | FrameType::Error);
        always || frame.is_short_answer()
    };
    fuzz_streams(
        ("node-dialled", 1_000),
        streams(&hello(peer()), answers),
        &node,
        |stream| node.be_dialled(&two, stream),
    );
}

#[test]
fn the_debug_port_ends_every_answer_whatever_a_person_types() {
    let node = Fixture::start(1, None);
    let lines = "help\nping\nstatus\nready\npeers\nballots\nslots 1 5\nslots\ndigests\nsessions 3\ntimers\nconfig\nmetrics\ntail 5\n\
        json status\njson slots\nput k v --prev\nget k\nget k --stale --at-least 3\ncas k --old v w\ndel k\nfault clear\nquit\n";
    let mut seeds: Vec<Vec<u8>> = lines.lines().map(|line| format!("{line}\n").into_bytes()).collect();
    seeds.push(lines.as_bytes().to_vec());
    let target = Target {
        words: &COMMAND_WORDS,
        ..Target::new("debug", seeds, 2_000)
    };
    fuzz(&target, |typed| {
        let answer = String::from_utf8(node.throw(node.debug, typed, false)).expect("answers are text");
        let last = answer.lines().last().unwrap_or("OK");
        // A line without its end is no command, and `tail -f` goes on until its reader leaves.
        let is_ended = last.starts_with("OK") || last.starts_with("ERR") || answer.contains("OK follow");
        assert!(
            is_ended || typed.windows(7).any(|word| word == b"tail -f"),
            "{answer:?}"
        );
        answer
            .lines()
            .filter(|line| line.starts_with("OK") || line.starts_with("ERR"))
            .take(4)
            .collect()
    });
    node.assert_serves();
}
