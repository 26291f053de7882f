//! A node in this process, and clients of all manners over real sockets. No test waits for a timer: the node's clock is
//! moved instead.

mod clients;
mod peers;

use super::*;
use crate::kv::{Answer, Done, Op, Previous, SessionRef};
use crate::node::cluster_list::Member;
use crate::node::flags::DebugListen;
use crate::node::limits::{
    CLIENT_OUTPUT_HIGH_BYTES, FRAME_TIMEOUT, HELLO_TIMEOUT, LINGER, RESERVED_CONNECTIONS, SLOW_READER_TIMEOUT,
};
use crate::node::ring::What;
use crate::node::run::Node;
use crate::paxos::Slot;
use crate::wire::frame::{self, FRAME_BYTES_MAX};
use crate::wire::{Code, Hello, HelloKind, Outcome, Reply, Request, RequestOp, Served, hello};
use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// As little as all connections together may hold.
const BUFFER_BYTES: usize = 8 << 20;

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
        OneNode::start_among(max_connections, Vec::new())
    }

    /// Node 1 of a cluster with `others`.
    fn start_among(max_connections: usize, others: Vec<Member>) -> OneNode {
        let directory = tempfile::tempdir().unwrap();
        let own = Member {
            node: NodeId(1),
            address: "127.0.0.1:1".into(),
        };
        let config = Config {
            node: NodeId(1),
            members: [vec![own], others].concat(),
            cluster_name: "test".into(),
            data_dir: directory.path().join("data"),
            listen: "127.0.0.1:0".into(),
            advertise: "127.0.0.1:1".into(),
            debug: DebugListen::At("127.0.0.1:0".into()),
            debug_allow_remote: false,
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            read_lease: Duration::ZERO,
            clock_rate_bound_ppm: 0,
            request_timeout: Duration::from_secs(5),
            max_connections,
            segment_bytes: 64 << 20,
            scrub_bytes_per_second: 0,
            snapshot_bytes: 64 << 20,
            disk_reserve: 1 << 20,
            queue_bytes: 64 << 20,
            buffer_bytes: BUFFER_BYTES,
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
