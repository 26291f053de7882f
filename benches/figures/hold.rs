//! The most that a node holds in memory, under all that is bounded at once: the peak of real processes beside the sum of
//! the table of bounds (docs/design.md).
//!
//! Against the leader, all together: thousands of idle connections; clients that begin a large frame and leave it so;
//! clients that ask for large values and never read; one that sends a million requests and reads nothing; and values of a
//! mebibyte at full speed.

use crate::figure::{head, row, shown};
use crate::subject::{Load, Spans, Subject};
use crate::support::RawClient;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;
use synod::kv::{Op, SessionRef};
use synod::wire::frame;
use synod::wire::{Frame, Request, RequestOp};

/// How many of each, and what they are bounded by.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Length of the load of large values, seconds
    #[arg(long, env = "SECS", default_value_t = 20.0)]
    secs: f64,
    /// Idle connections, as far as this process may open so many
    #[arg(long, env = "CONNECTIONS", default_value_t = 9_000)]
    connections: usize,
    /// Clients that never finish a frame, and as many that never read
    #[arg(long, env = "BAD", default_value_t = 200)]
    bad: usize,
    /// `--buffer-bytes` of every node, MiB
    #[arg(long, env = "BUFFER_MIB", default_value_t = 64)]
    buffer_mib: u64,
}

const MIB: u64 = 1 << 20;
/// Requests of the client that reads no answer.
const MANY: u64 = 1_000_000;
/// What a node holds whatever the load is: program, tables, buffers of its log.
const OWN_MIB: u64 = 48;
/// Bytes of the values that the load of large values keeps.
const DATA_MIB: u64 = 64;

/// Loads, measures and prints.
pub(crate) fn run(args: &Args) {
    let connections = raise_own_limit(args.connections);
    let flags = ["--buffer-bytes".to_owned(), format!("{}MiB", args.buffer_mib)];
    let mut subject = Subject::start(3, &flags);
    let leader = subject.cluster.wait_for_leader();
    let address = subject.cluster.address(leader).to_string();
    let large = Load {
        preset: "put",
        clients: 8,
        pipeline: 8,
        value_bytes: 1 << 20,
    };
    let spans = |secs| Spans { secs, warmup: 0.5 };
    subject.measure(large, spans(2.0)); // so that there is something large to ask for
    let idle: Vec<RawClient> = (0..connections).map(|_| RawClient::connect(&address)).collect();
    println!("{} idle connections", idle.len());
    let unfinished: Vec<TcpStream> = (0..args.bad).map(|_| send(&address, &most_of_a_put())).collect();
    let unread: Vec<TcpStream> = (0..args.bad).map(|_| send(&address, &gets(200))).collect();
    let many = send(&address, &gets(MANY));
    let figure = subject.measure(large, spans(args.secs));
    println!(
        "meanwhile {} puts a second of a mebibyte, p99 {} ms\n",
        shown(figure.ops_per_s),
        shown(figure.p99_us / 1e3)
    );
    drop((unfinished, unread, many, idle));
    let allowed = table(args.buffer_mib);
    println!("\n{}", head(&["node", "peak MiB", "sum of the table", "within"]));
    for id in subject.cluster.ids() {
        let peak = subject.cluster.pid(id).and_then(peak_mib).expect("the node runs");
        let within = if peak <= allowed { "yes" } else { "no" };
        println!(
            "{}",
            row([id.to_string(), peak.to_string(), allowed.to_string(), within.into()])
        );
    }
}

/// The bounds that count, and their sum, MiB.
fn table(buffer_mib: u64) -> u64 {
    let rows = [
        ("buffers of all connections (--buffer-bytes)", buffer_mib),
        ("inputs of one turn: clients, two peers", 4 + 2 * 4),
        ("writes that wait (--queue-bytes), relays", 64 + 64),
        ("open slots", 16),
        ("accepted above what is chosen", 20),
        ("recent entries (--cache-bytes)", 64),
        ("outputs of two peers", 2 * 32),
        ("keys and values, twice while a snapshot is written", 2 * DATA_MIB),
        ("the program and its tables", OWN_MIB),
    ];
    println!("{}", head(&["what", "MiB"]));
    for (what, mib) in rows {
        println!("{}", row([what.to_owned(), mib.to_string()]));
    }
    rows.into_iter().map(|(_, mib)| mib).sum()
}

/// Sends what the node takes within a while, and reads nothing but what came before.
fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let client = RawClient::connect(address);
    let mut stream = client.into_stream();
    let timeout = Duration::from_millis(200);
    stream
        .set_write_timeout(Some(timeout))
        .expect("a socket takes its options");
    // The node stops to read at its bound: that is what is looked at.
    let _ = stream.write_all(bytes);
    stream
}

fn most_of_a_put() -> Vec<u8> {
    let op = Op::Put {
        key: Bytes::from_static(b"never"),
        value: vec![7; 1 << 20].into(),
        if_absent: false,
        want_previous: false,
    };
    let mut bytes = request(1, RequestOp::Write(op));
    bytes.truncate(bytes.len() - 1);
    bytes
}

fn gets(count: u64) -> Vec<u8> {
    let key = Bytes::from(format!("{:016}", 1));
    (1..=count)
        .flat_map(|id| request(id, RequestOp::Get { key: key.clone() }))
        .collect()
}

fn request(id: u64, op: RequestOp) -> Vec<u8> {
    let request = Request {
        deadline_ms: 0,
        session: SessionRef::default(),
        number: 1,
        low: 1,
        op,
    };
    frame::encode_to_bytes(&Frame::Request(request), id).to_vec()
}

/// How many connections this process may have of those that are wanted.
fn raise_own_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        eprintln!("the limit of open files could not be raised");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(2_000))
}

/// The most that a process ever had in memory, MiB.
fn peak_mib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024 / MIB)
}
