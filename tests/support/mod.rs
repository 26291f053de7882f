//! What tests with real processes share: clusters on free ports, in directories of their own, no process left.
//!
//! Ports are taken below the ephemeral range, so that no connection of this machine sits on them by chance, and tried
//! anew if they are taken.

#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use synod::client::Options as ClientOptions;
use synod::client::blocking::Client;
use synod::cluster::local::{ClusterError, LocalCluster, Options};
use synod::kv::SessionRef;
use synod::wire::frame;
use synod::wire::{Frame, Hello, Outcome, Request, RequestOp};

/// Ports are drawn from here on, in blocks: nodes first, their debug ports 100 higher.
const PORT_MIN: u16 = 10_000;
/// How many blocks there are; Linux hands out ephemeral ports from 32768 on.
const BLOCKS: u16 = 110;
const BLOCK_PORTS: u16 = 200;
/// The exit code of a node that cannot listen.
const PORT_TAKEN: i32 = 4;
/// Another block is tried so often.
const TRIES: usize = 50;
/// Tests write little: small segments are quicker to preallocate.
const SMALL: [&str; 2] = ["--segment-bytes", "8MiB"];
/// A leader comes to be within; a loaded machine takes its time.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);

/// A running cluster, its directory, and what its nodes said; printed if the test fails. Dropping it kills the processes.
pub struct TestCluster {
    pub nodes: LocalCluster,
    log: Vec<String>,
    _directory: tempfile::TempDir,
}

/// Starts `nodes` nodes with `flags` (`{id}` stands for a node's id) and waits until one of them leads.
pub fn start_cluster(nodes: u16, flags: &[&str]) -> TestCluster {
    for _ in 0..TRIES {
        let mut cluster = launch(nodes, flags);
        let TestCluster { nodes, log, .. } = &mut cluster;
        match nodes.wait_for_leader(LEADER_TIMEOUT, |id, line| log.push(format!("n{id} {line}"))) {
            Ok(_) => return cluster,
            // Somebody took the port between our look and the node's.
            Err(ClusterError::Ended { status, .. }) if status.code() == Some(PORT_TAKEN) => {}
            Err(error) => panic!("no leader came to be: {error}"),
        }
    }
    panic!("no free ports in {TRIES} tries")
}

/// Starts them and does not wait.
pub fn launch(nodes: u16, flags: &[&str]) -> TestCluster {
    launch_in(
        tempfile::tempdir().expect("the system has room for a directory"),
        nodes,
        flags,
    )
}

/// Starts them on the data directories that `directory` holds, and does not wait.
pub fn launch_in(directory: tempfile::TempDir, nodes: u16, flags: &[&str]) -> TestCluster {
    for _ in 0..TRIES {
        match LocalCluster::start(options(directory.path(), nodes, flags)) {
            Ok(nodes) => {
                return TestCluster {
                    nodes,
                    log: Vec::new(),
                    _directory: directory,
                };
            }
            Err(ClusterError::PortTaken { .. }) => {}
            Err(error) => panic!("the cluster does not start: {error}"),
        }
    }
    panic!("no free ports in {TRIES} tries")
}

/// A cluster of test nodes in `directory`, on ports that are free as far as is known.
pub fn options(directory: &Path, nodes: u16, flags: &[&str]) -> Options {
    let small: &[&str] = if flags.contains(&SMALL[0]) { &[] } else { &SMALL };
    Options {
        nodes,
        base_port: next_block(),
        data_dir: directory.to_path_buf(),
        synodd: env!("CARGO_BIN_EXE_synodd").into(),
        flags: small.iter().chain(flags).map(|flag| (*flag).to_string()).collect(),
    }
}

/// Tests of one process never take the same block at once; where they begin is drawn, for those of another.
fn next_block() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(0..BLOCKS)));
    PORT_MIN + next.fetch_add(1, Ordering::Relaxed) % BLOCKS * BLOCK_PORTS
}

impl TestCluster {
    /// Waits for a leader that hears a quorum.
    pub fn wait_for_leader(&mut self) -> u16 {
        let log = &mut self.log;
        let leader = self
            .nodes
            .wait_for_leader(LEADER_TIMEOUT, |id, line| log.push(format!("n{id} {line}")));
        leader.unwrap_or_else(|error| panic!("{error}\n{}", self.log.join("\n")))
    }

    /// Lets time pass, and takes the nodes' log lines meanwhile.
    pub fn rest(&mut self, span: Duration) {
        let until = now() + span;
        while now() < until {
            let log = &mut self.log;
            let ended = self
                .nodes
                .pump(Duration::from_millis(20), |id, line| log.push(format!("n{id} {line}")));
            let ended = ended.expect("log lines can be read");
            assert!(
                ended.is_empty(),
                "nodes ended by themselves: {ended:?}\n{}",
                self.log.join("\n")
            );
        }
    }

    /// Waits until `is_so`, at most `limit`; whether it came true.
    pub fn wait_until(&mut self, limit: Duration, mut is_so: impl FnMut(&LocalCluster) -> bool) -> bool {
        let until = now() + limit;
        while now() < until {
            if is_so(&self.nodes) {
                return true;
            }
            self.rest(Duration::from_millis(30));
        }
        is_so(&self.nodes)
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes
            .ids()
            .into_iter()
            .map(|id| self.nodes.address(id).to_string())
            .collect()
    }

    /// Everything that the nodes said so far.
    pub fn log(&self) -> &[String] {
        &self.log
    }
}

impl Deref for TestCluster {
    type Target = LocalCluster;
    fn deref(&self) -> &LocalCluster {
        &self.nodes
    }
}

impl DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.nodes
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = &mut self.log;
            let _ = self
                .nodes
                .pump(Duration::ZERO, |id, line| log.push(format!("n{id} {line}")));
            eprintln!("what the nodes said:\n{}", self.log.join("\n"));
        }
    }
}

/// A client of all `endpoints` with a deadline of its own for each operation.
pub fn client(endpoints: &[String], timeout: Duration) -> Client {
    let mut options = ClientOptions::random().expect("randomness");
    options.timeout = timeout;
    Client::connect(endpoints, options).expect("a client")
}

#[expect(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A connection that speaks the binary protocol frame by frame, to send what no client library would.
pub struct RawClient {
    stream: TcpStream,
    input: bytes::BytesMut,
    next_id: u64,
}

impl RawClient {
    /// Dials a node and shakes hands as a client.
    pub fn connect(address: &str) -> RawClient {
        let stream = TcpStream::connect(address).expect("the node listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut client = RawClient {
            stream,
            input: bytes::BytesMut::new(),
            next_id: 0,
        };
        client.send(0, &Frame::Hello(hello()));
        let (_, answer) = client.receive().expect("the node's HELLO");
        assert!(matches!(answer, Frame::Hello(_)), "{answer:?}");
        client
    }

    /// The connection, through its handshake, to do with it what no program should.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub fn send(&mut self, id: u64, frame: &Frame) {
        let mut bytes = Vec::new();
        frame::encode(frame, id, &mut bytes);
        self.stream.write_all(&bytes).expect("the node takes it");
    }

    /// The next frame; `None` if the node closed the connection.
    pub fn receive(&mut self) -> Option<(u64, Frame)> {
        loop {
            if let Some((header, body)) =
                frame::next_frame(&mut self.input, frame::FRAME_BYTES_MAX).expect("whole frames")
            {
                return Some((header.request_id, frame::decode(header, body).expect("known frames")));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Sends a request and waits for its reply; `None` if the connection closed first.
    pub fn request(&mut self, session: SessionRef, number: u64, op: RequestOp) -> Option<Outcome> {
        self.next_id += 1;
        let id = self.next_id;
        let request = Request {
            deadline_ms: 5_000,
            session,
            number,
            low: number,
            op,
        };
        self.send(id, &Frame::Request(request));
        loop {
            match self.receive()? {
                (of, Frame::Reply(reply)) if of == id => return Some(reply.outcome),
                (_, Frame::Ping { nonce }) => self.send(0, &Frame::Pong { nonce }),
                _ => {}
            }
        }
    }
}

/// What a client says first.
pub fn hello() -> Hello {
    Hello::of_client(String::new(), 0)
}

/// Log lines of nodes, shown only if the test fails.
pub fn print_line(id: u16, line: &str) {
    println!("n{id} {line}");
}
