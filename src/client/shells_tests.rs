//! The shells over real sockets, against nodes without agreement.

use super::blocking::{Cas, Client, Error};
use super::fake::FakeNode;
use super::{Cause, ClientMachine, Completion, End, Options, Pool};
use crate::kv::{Expect, Op, State};
use crate::wire::RequestOp;
use bytes::Bytes;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn options() -> Options {
    let mut options = Options::random().expect("randomness");
    options.timeout = Duration::from_secs(3);
    options
}

fn cluster(count: u16) -> (Vec<FakeNode>, Vec<String>) {
    let state = Arc::new(Mutex::new(State::new()));
    let nodes: Vec<FakeNode> = (1..=count).map(|node| FakeNode::start(node, state.clone())).collect();
    let addresses = nodes.iter().map(|node| node.address.clone()).collect();
    (nodes, addresses)
}

#[test]
fn a_program_puts_gets_compares_and_deletes() {
    let (nodes, addresses) = cluster(1);
    let mut client = Client::connect(&addresses, options()).expect("a client");
    assert_eq!(client.get("k").expect("read"), None);
    let version = client.put("k", "a").expect("put");
    assert!(!client.put_if_absent("k", "b").expect("put"));
    let swapped = client.cas("k", Expect::Version(version), "c").expect("cas");
    assert!(matches!(swapped, Cas::Swapped { version: next } if next > version));
    let missed = client
        .cas("k", Expect::Value(Bytes::from_static(b"a")), "d")
        .expect("cas");
    assert!(matches!(missed, Cas::Mismatch(Some(current)) if current.value == "c"));
    assert!(client.del("k").expect("del"));
    assert!(!client.del("k").expect("del"));
    client.close().expect("closes");
    assert_eq!(nodes[0].state.lock().expect("state").sessions(), 0);
}

#[test]
fn a_value_of_the_largest_size_passes() {
    let (_nodes, addresses) = cluster(1);
    let mut client = Client::connect(&addresses, options()).expect("a client");
    let value = Bytes::from(vec![7; 1 << 20]);
    client.put("large", value.clone()).expect("put");
    assert_eq!(client.get("large").expect("get").expect("there").value, value);
}

#[test]
fn a_write_whose_answer_is_cut_off_takes_effect_once() {
    let (nodes, addresses) = cluster(2);
    let mut client = Client::connect(&addresses, options()).expect("a client");
    client.put("k", "0").expect("put");
    for node in &nodes {
        // Whichever node it talks to: the next write is applied, and its answer is lost.
        let seen = 3;
        node.conduct.cut_at.store(seen, Ordering::SeqCst);
    }
    let version = client.put("k", "1").expect("put");
    let found = client.get("k").expect("get").expect("there");
    assert_eq!((found.version, found.created), (version, version - 1));
}

#[test]
fn nobody_there_is_certainly_not_done_and_named() {
    let mut options = options();
    options.give_up_unreachable = Some(Duration::from_millis(100));
    let mut client = Client::connect(&["127.0.0.1:1"], options).expect("a client");
    let error = client.put("k", "v").expect_err("nobody listens there");
    assert!(!error.is_maybe_done() && error.is_retryable(), "{error}");
    assert!(matches!(error, Error::NotDone(failure) if failure.cause == Cause::NoEndpoint));
}

#[test]
fn a_port_that_speaks_another_protocol_is_named_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("written");
    });
    let mut client = Client::connect(&[address], options()).expect("a client");
    let error = client.get("k").expect_err("no node");
    assert!(
        matches!(&error, Error::NotDone(failure) if failure.cause == Cause::Protocol),
        "{error}"
    );
    thread.join().expect("the server");
}

#[test]
fn many_clients_share_one_loop_and_every_operation_ends_once() {
    const CLIENTS: usize = 50;
    const EACH: u64 = 40;
    let (nodes, addresses) = cluster(3);
    nodes[1].conduct.cut_at.store(100, Ordering::SeqCst);
    let mut pool = Pool::new().expect("a pool");
    for _ in 0..CLIENTS {
        pool.add(ClientMachine::new(addresses.clone(), options()));
    }
    let submit = |pool: &mut Pool, client: usize, token: u64| {
        let op = RequestOp::Write(Op::Put {
            key: Bytes::from(format!("{client}-{token}")),
            value: Bytes::from_static(b"v"),
            if_absent: false,
            want_previous: false,
        });
        let now = pool.now();
        pool.submit(now, client, token, op, Duration::from_secs(5));
        now
    };
    let mut begun = Vec::new();
    (0..CLIENTS).for_each(|client| begun.push(submit(&mut pool, client, 1)));
    let mut ended = vec![0; CLIENTS];
    let mut completions: Vec<Completion> = Vec::new();
    while ended.iter().any(|count| *count < EACH) {
        pool.turn(None, &mut completions).expect("a turn");
        for completion in completions.drain(..) {
            let client = completion.client;
            assert!(matches!(completion.end, End::Done(_)), "{}", completion.end);
            assert!(completion.ended > begun[client]);
            ended[client] += 1;
            assert_eq!(completion.token, ended[client]);
            if ended[client] < EACH {
                begun[client] = submit(&mut pool, client, completion.token + 1);
            }
        }
    }
    pool.close(Duration::from_secs(2), &mut completions).expect("closes");
    let state = nodes[0].state.lock().expect("state");
    assert_eq!(state.revision(), CLIENTS as u64 * EACH);
    assert_eq!(state.sessions(), 0);
}
