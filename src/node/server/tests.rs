//! A node in this process, and clients of all manners over real sockets. No test waits for a timer: the node's clock is
//! moved instead.

use super::*;
use crate::kv::{Answer, Done, Op, Previous, SessionRef};
use crate::node::cluster_list::Member;
use crate::node::flags::DebugListen;
use crate::node::limits::{
    CLIENT_OUTPUT_HIGH_BYTES, FRAME_TIMEOUT, HELLO_TIMEOUT, RESERVED_CONNECTIONS, SLOW_READER_TIMEOUT,
};
use crate::node::run::Node;
use crate::paxos::Slot;
use crate::wire::frame::{self, FRAME_BYTES_MAX};
use crate::wire::{Code, Hello, HelloKind, Outcome, Reply, Request, RequestOp, Served, hello};
use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

type Errand = Box<dyn FnOnce(&mut Node) + Send>;

/// A cluster of one, on a thread of its own.
struct OneNode {
    address: SocketAddr,
    debug: SocketAddr,
    errands: mpsc::Sender<Option<Errand>>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl OneNode {
    fn start(max_connections: usize) -> OneNode {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            node: NodeId(1),
            members: vec![Member {
                node: NodeId(1),
                address: "127.0.0.1:1".into(),
            }],
            cluster_name: "test".into(),
            data_dir: directory.path().join("data"),
            listen: "127.0.0.1:0".into(),
            advertise: "127.0.0.1:1".into(),
            debug: DebugListen::At("127.0.0.1:0".into()),
            debug_allow_remote: false,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            request_timeout: Duration::from_secs(5),
            max_connections,
            segment_bytes: 64 << 20,
            queue_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            allow_faults: false,
            acceptor_failures: None,
            exit_with_parent: false,
        };
        let mut node = Node::start(config).unwrap();
        let (address, debug) = (node.local_address().unwrap(), node.server().debug_address().unwrap());
        let (errands, inbox) = mpsc::channel::<Option<Errand>>();
        let thread = std::thread::spawn(move || {
            loop {
                match inbox.try_recv() {
                    Ok(Some(errand)) => errand(&mut node),
                    Ok(None) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Err(mpsc::TryRecvError::Empty) => {}
                }
                node.turn().unwrap();
            }
        });
        OneNode {
            address,
            debug,
            errands,
            thread: Some(thread),
            _directory: directory,
        }
    }

    /// Has the node's thread look at the node between two turns.
    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Node) -> T + Send + 'static) -> T {
        let (answers, inbox) = mpsc::channel();
        let errand: Errand = Box::new(move |node| answers.send(question(node)).unwrap());
        self.errands.send(Some(errand)).unwrap();
        let _wake = TcpStream::connect(self.debug).unwrap();
        inbox.recv_timeout(Duration::from_secs(10)).expect("the node answers")
    }

    fn errors(&self, code: ErrorCode) -> u64 {
        self.ask(move |node| node.server().metrics().errors(code))
    }

    fn move_clock(&self, span: Duration) {
        self.ask(move |node| {
            let server = node.server_mut();
            server.origin = server.origin.checked_sub(span).unwrap();
        });
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).unwrap())
    }

    /// A client through its handshake.
    fn client(&self) -> Client {
        let mut client = self.connect();
        client.send(0, &client_hello("test"));
        assert!(matches!(client.receive(), Some((0, Frame::Hello(_)))));
        client
    }

    /// Writes and reads with a client that behaves: the node is well.
    fn assert_serves(&self) {
        let mut client = self.client();
        let session = client.open();
        let put = client.ask(1, put(session, 1, b"key", b"value"));
        assert!(
            matches!(
                &put.outcome,
                Outcome::Done(Served::Done(Done {
                    answer: Answer::Written {
                        previous: Previous::NotAsked
                    },
                    ..
                }))
            ),
            "{put:?}"
        );
        let get = client.ask(2, get(b"key"));
        let Outcome::Done(Served::Done(Done {
            answer: Answer::Found(found),
            ..
        })) = get.outcome
        else {
            panic!("{get:?}")
        };
        assert_eq!(&found.value[..], b"value");
    }
}

impl Drop for OneNode {
    fn drop(&mut self) {
        let _ = self.errands.send(None);
        let _wake = TcpStream::connect(self.debug);
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the node's thread panicked");
    }
}

/// The far end of a connection, blocking.
struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    fn new(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client {
            stream,
            input: BytesMut::new(),
        }
    }

    fn send(&mut self, id: u64, frame: &Frame) {
        self.stream.write_all(&frame::encode_to_bytes(frame, id)).unwrap();
    }

    /// The next frame; none at the end of the stream.
    fn receive(&mut self) -> Option<(u64, Frame)> {
        loop {
            if let Some((header, body)) = frame::next_frame(&mut self.input, FRAME_BYTES_MAX).unwrap() {
                return Some((header.request_id, frame::decode(header, body).unwrap()));
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return None,
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn ask(&mut self, id: u64, request: Request) -> Reply {
        self.send(id, &Frame::Request(request));
        match self.receive() {
            Some((answered, Frame::Reply(reply))) if answered == id => reply,
            other => panic!("{other:?} instead of a reply"),
        }
    }

    /// Opens a session; the node may still be on its way to leading.
    fn open(&mut self) -> SessionRef {
        let id = fastrand::u128(1..);
        for _ in 0..200 {
            let request = Request {
                session: SessionRef { id, opened: Slot::ZERO },
                op: RequestOp::Write(Op::Open),
                ..get(b"")
            };
            let reply = self.ask(7, request);
            if let Outcome::Done(Served::Done(Done {
                answer: Answer::Opened { opened },
                ..
            })) = reply.outcome
            {
                return SessionRef { id, opened };
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no leader within two seconds");
    }

    /// Reads to the end; the error that the node said on the way.
    fn error(mut self) -> Option<ErrorCode> {
        let mut said = None;
        while let Some((_, frame)) = self.receive() {
            if let Frame::Error { code, .. } = frame {
                said = Some(code);
            }
        }
        said
    }

    fn text(mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text
    }
}

fn client_hello(cluster_name: &str) -> Frame {
    Frame::Hello(Hello {
        version_min: hello::PROTOCOL_VERSION_MIN,
        version_max: hello::PROTOCOL_VERSION_MAX,
        features: 0,
        kind: HelloKind::Client,
        cluster_name: cluster_name.into(),
        cluster_id: 0,
    })
}

fn get(key: &'static [u8]) -> Request {
    Request {
        deadline_ms: 5000,
        session: SessionRef::default(),
        number: 0,
        low: 0,
        op: RequestOp::Get {
            key: Bytes::from_static(key),
        },
    }
}

fn put(session: SessionRef, number: u64, key: &'static [u8], value: &[u8]) -> Request {
    let op = Op::Put {
        key: Bytes::from_static(key),
        value: Bytes::copy_from_slice(value),
        if_absent: false,
        want_previous: false,
    };
    Request {
        session,
        number,
        low: number,
        op: RequestOp::Write(op),
        ..get(b"")
    }
}

#[test]
fn a_client_says_hello_and_is_served() {
    OneNode::start(100).assert_serves();
}

#[test]
fn replies_come_in_any_order_under_their_ids_also_after_the_end_of_input() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    for id in 100..110 {
        client.send(id, &Frame::Request(put(session, id - 99, b"key", b"value")));
    }
    client.send(
        200,
        &Frame::Request(Request {
            op: RequestOp::Status,
            ..get(b"")
        }),
    );
    client.stream.shutdown(Shutdown::Write).unwrap();
    let mut ids = Vec::new();
    while let Some((id, Frame::Reply(reply))) = client.receive() {
        assert!(matches!(reply.outcome, Outcome::Done(_)), "{reply:?}");
        ids.push(id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 200]);
}

#[test]
fn every_kind_of_bad_bytes_has_its_error_and_hurts_nobody_else() {
    let node = OneNode::start(100);
    let hello = frame::encode_to_bytes(&client_hello("test"), 0);
    let changed = |at: usize, to: u8| {
        let mut bytes = hello.to_vec();
        bytes[at] = to;
        bytes
    };
    // A frame whose header is changed, with the checksum that fits the change.
    let sealed = |at: usize, to: u8| {
        let mut bytes = changed(at, to);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..4]);
        hasher.update(&bytes[8..]);
        bytes[4..8].copy_from_slice(&hasher.finalize().to_be_bytes());
        bytes
    };
    let then = |frame: &Frame| [hello.to_vec(), frame::encode_to_bytes(frame, 1).to_vec()].concat();
    let twice = [
        then(&Frame::Request(get(b"k"))),
        frame::encode_to_bytes(&Frame::Request(get(b"k")), 1).to_vec(),
    ];
    let hand_over = crate::paxos::Message::HandOver {
        ballot: crate::paxos::Ballot::ZERO,
    };
    // what is sent, which error comes back
    let table = [
        (vec![0xff; 64], ErrorCode::BadLength),
        (vec![0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8], ErrorCode::BadLength),
        (vec![0, 0, 0x20, 0, 1, 2, 3, 4], ErrorCode::BadLength),
        (changed(5, 0x55), ErrorCode::BadChecksum),
        (changed(30, 0x55), ErrorCode::BadChecksum),
        (sealed(8, 0x7f), ErrorCode::UnknownType),
        (sealed(9, 0x80), ErrorCode::BadBody),
        (sealed(20, b'X'), ErrorCode::BadMagic),
        (
            frame::encode_to_bytes(&Frame::Request(get(b"k")), 1).to_vec(),
            ErrorCode::NotAllowed,
        ),
        (
            frame::encode_to_bytes(&client_hello("other"), 0).to_vec(),
            ErrorCode::WrongCluster,
        ),
        (then(&client_hello("test")), ErrorCode::NotAllowed),
        (then(&Frame::Paxos(hand_over)), ErrorCode::NotAllowed),
        (
            then(&Frame::ForwardReply(Reply {
                outcome: Outcome::Unknown { code: Code::LeaderLost },
                leader: None,
            })),
            ErrorCode::NotAllowed,
        ),
        (twice.concat(), ErrorCode::NotAllowed),
    ];
    for (bytes, expected) in table {
        let before = node.errors(expected);
        let mut client = node.connect();
        client.stream.write_all(&bytes).unwrap();
        assert_eq!(client.error(), Some(expected), "{:02x?}", &bytes[..bytes.len().min(40)]);
        assert_eq!(node.errors(expected), before + 1, "{expected} is counted");
    }
    node.assert_serves();
}

#[test]
fn a_peer_of_an_unknown_id_or_with_our_own_id_is_refused() {
    let node = OneNode::start(100);
    let own = node.ask(|node| node.machine().hello_to(None));
    for (id, expected) in [(9, ErrorCode::UnknownNode), (1, ErrorCode::OwnId)] {
        let mut hello = own.clone();
        if let HelloKind::Node(node_hello) = &mut hello.kind {
            node_hello.node = NodeId(id);
        }
        let mut client = node.connect();
        client.send(0, &Frame::Hello(hello));
        assert_eq!(client.error(), Some(expected));
    }
    node.assert_serves();
}

#[test]
fn a_frame_that_ends_with_the_connection_is_counted() {
    let node = OneNode::start(100);
    let mut client = node.client();
    client.stream.write_all(&[0, 0, 0, 90, 1, 2, 3]).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive(), None);
    assert_eq!(node.errors(ErrorCode::BadBody), 1);
}

#[test]
fn text_on_the_binary_port_is_told_where_the_debug_port_is() {
    let node = OneNode::start(100);
    for text in ["get x\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "p"] {
        let mut client = node.connect();
        client.stream.write_all(text.as_bytes()).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        let answer = client.text();
        assert!(
            answer.contains("binary port") && answer.contains("127.0.0.1:0"),
            "{answer:?}"
        );
        assert_eq!(answer.lines().count(), 1);
    }
    node.assert_serves();
}

#[test]
fn who_says_no_hello_or_finishes_no_frame_is_closed_in_time() {
    let node = OneNode::start(100);
    let silent = node.connect();
    node.ask(|_| ());
    node.move_clock(HELLO_TIMEOUT);
    assert_eq!(silent.error(), Some(ErrorCode::TooSlow));

    let mut slow = node.client();
    let idle = node.client();
    slow.stream.write_all(&[0, 0, 0, 90, 1]).unwrap();
    while node.ask(|node| {
        node.server()
            .links
            .values()
            .all(|link| link.connection.frame_deadline().is_none())
    }) {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.move_clock(FRAME_TIMEOUT);
    assert_eq!(slow.error(), Some(ErrorCode::TooSlow));
    assert_eq!(
        node.ask(|node| node.server().clients),
        1,
        "who is idle between frames may stay"
    );
    drop(idle);
}

#[test]
fn a_client_that_does_not_read_is_not_read_and_then_closed() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    let value = vec![7; 1 << 20];
    client.ask(1, put(session, 1, b"big", &value));
    for id in 2..40 {
        client.send(id, &Frame::Request(get(b"big")));
    }
    // What was read before is answered; nothing more is read while the answers wait.
    while !node.ask(|node| node.server().links.values().any(|link| link.paused)) {
        client.send(fastrand::u64(1000..), &Frame::Ping { nonce: 1 });
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(node.ask(|node| node.server().queued) <= CLIENT_OUTPUT_HIGH_BYTES + (2 << 20));
    node.assert_serves();
    node.move_clock(SLOW_READER_TIMEOUT);
    while node.errors(ErrorCode::SlowReader) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(node.ask(|node| node.server().queued), 0);
    node.assert_serves();
}

#[test]
fn a_client_that_reads_at_last_gets_every_answer() {
    let node = OneNode::start(100);
    let mut client = node.client();
    let session = client.open();
    let value = vec![7; 1 << 20];
    client.ask(1, put(session, 1, b"big", &value));
    let mut writer = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        for id in 2..200 {
            let request = frame::encode_to_bytes(&Frame::Request(get(b"big")), id);
            writer.write_all(&request).unwrap();
            // A client with a small window, as a program would have.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let mut answered: Vec<u64> = (2..200).map(|_| client.receive().unwrap().0).collect();
    sender.join().unwrap();
    answered.sort_unstable();
    assert_eq!(answered, (2..200).collect::<Vec<u64>>());
}

#[test]
fn above_the_limit_clients_are_refused_politely_and_peers_keep_their_reserve() {
    let node = OneNode::start(3);
    let mut clients: Vec<Client> = (0..3).map(|_| node.client()).collect();
    let mut fourth = node.connect();
    fourth.send(0, &client_hello("test"));
    assert_eq!(fourth.error(), Some(ErrorCode::TooManyConnections));
    // Connections that say nothing take no place from those that speak.
    let silent: Vec<Client> = (0..RESERVED_CONNECTIONS + 5).map(|_| node.connect()).collect();
    clients.pop();
    while node.ask(|node| node.server().clients) > 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    node.assert_serves();
    assert!(node.errors(ErrorCode::TooManyConnections) >= 2);
    drop(silent);
}

#[test]
fn the_debug_port_answers_lines_also_after_the_end_of_input() {
    let node = OneNode::start(100);
    let mut client = Client::new(TcpStream::connect(node.debug).unwrap());
    client.stream.write_all(b"ping\r\nnonsense\nping").unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    let text = client.text();
    let starts: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["OK", "ERR", "OK"], "{text:?}");
}
