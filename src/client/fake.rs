//! A node as clients see it, for tests of the shells: real sockets and the real state machine, no agreement.

use crate::kv::state::Applied;
use crate::kv::{Answer, Command, Done, Refusal, State};
use crate::paxos::{Incarnation, LogTime, NodeId, Slot, Start};
use crate::wire::frame::{self, FRAME_BYTES_MAX};
use crate::wire::hello::{Base, NodeHello};
use crate::wire::{Code, Frame, Hello, HelloKind, Outcome, Reply, Request, RequestOp, Served};
use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the node does with connections and requests.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// Applies the request of this number (from 1, over all connections), but cuts the connection instead of answering.
    pub(super) cut_at: AtomicU64,
    requests: AtomicU64,
    stop: AtomicBool,
}

/// A node in threads of its own; gone when dropped.
pub(super) struct FakeNode {
    pub(super) address: String,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) conduct: Arc<Conduct>,
    thread: Option<JoinHandle<()>>,
}

impl FakeNode {
    /// Nodes that share a state look like one cluster.
    pub(super) fn start(node: u16, state: Arc<Mutex<State>>) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let conduct = Arc::new(Conduct::default());
        let (shared, rules) = (state.clone(), conduct.clone());
        let thread = thread::spawn(move || {
            listener.set_nonblocking(true).expect("a socket option");
            let mut served = Vec::new();
            while !rules.stop.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).expect("a socket option");
                        let (state, rules) = (shared.clone(), rules.clone());
                        served.push(thread::spawn(move || serve(stream, node, &state, &rules)));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
            served
                .into_iter()
                .for_each(|thread| thread.join().expect("a serving thread"));
        });
        FakeNode {
            address,
            state,
            conduct,
            thread: Some(thread),
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.conduct.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the accepting thread");
        }
    }
}

fn serve(mut stream: TcpStream, node: u16, state: &Mutex<State>, conduct: &Conduct) {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("a socket option");
    stream.set_nodelay(true).expect("a socket option");
    let (mut inbox, mut scratch) = (BytesMut::new(), [0; 65_536]);
    while !conduct.stop.load(Ordering::SeqCst) {
        match stream.read(&mut scratch) {
            Ok(0) => return,
            Ok(count) => inbox.extend_from_slice(&scratch[..count]),
            Err(_) => continue,
        }
        let mut out = Vec::new();
        while let Some((header, body)) = frame::next_frame(&mut inbox, FRAME_BYTES_MAX).expect("a client's frame") {
            match frame::decode(header, body).expect("a client's body") {
                Frame::Hello(_) => frame::encode(&Frame::Hello(hello(node)), 0, &mut out),
                Frame::Request(request) => {
                    let number = conduct.requests.fetch_add(1, Ordering::SeqCst) + 1;
                    let outcome = answer(request, &mut state.lock().expect("no thread panicked"));
                    if number == conduct.cut_at.load(Ordering::SeqCst) {
                        return;
                    }
                    let reply = Reply { outcome, leader: None };
                    frame::encode(&Frame::Reply(reply), header.request_id, &mut out);
                }
                frame => panic!("a client sent {}", frame.name()),
            }
        }
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn answer(request: Request, state: &mut State) -> Outcome {
    let op = match request.op {
        RequestOp::Write(op) => op,
        RequestOp::Get { key } | RequestOp::GetStale { key, .. } => {
            return Outcome::Done(Served::Done(Done {
                slot: state.applied(),
                revision: state.revision(),
                answer: state.get(&key).map_or(Answer::NotFound, Answer::Found),
            }));
        }
        RequestOp::Status => return Outcome::Done(Served::Status("{}".into())),
    };
    let command = Command {
        session: request.session,
        number: request.number,
        low: request.low,
        op,
    };
    let mut applied = Vec::new();
    let slot = state.applied().next();
    state.apply(slot, LogTime(1), &[command], &mut applied);
    let code = match applied.remove(0) {
        Applied::Done(done) => return Outcome::Done(Served::Done(done)),
        Applied::Refused(Refusal::Busy) => Code::Busy,
        Applied::Refused(Refusal::SessionExpired) => Code::SessionExpired,
        Applied::Refused(Refusal::NumberForgotten) => Code::NumberForgotten,
    };
    Outcome::NotDone {
        code,
        retry_after_ms: 0,
        detail: String::new(),
    }
}

fn hello(node: u16) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        kind: HelloKind::Node(NodeHello {
            node: NodeId(node),
            incarnation: Incarnation::default(),
            start: Start::default(),
            remembered: None,
            founded: true,
            advertise: "127.0.0.1:1".into(),
            debug: String::new(),
            listed: vec![NodeId(node)],
            base: Base {
                slot: Slot::ZERO,
                digest: 0,
            },
            roster: Vec::new(),
            lease_ms: 0,
        }),
        cluster_name: "synod".into(),
        cluster_id: 1,
    }
}
