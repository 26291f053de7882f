//! Scenarios of the client machine, as scripts: what is said to it, and what it does.
//!
//! Endpoints are `a`, `b`, `c` with nodes 1, 2, 3. `a< put#1 low=1` is a request sent to `a`; `7: done` ends operation 7.

use super::machine::{ClientMachine, Effect, Input};
use super::options::{Options, ReadsFrom, SESSION_IDLE_MAX};
use super::outcome::{Cause, End};
use crate::kv::{Answer, Done, Op, Previous, SessionRef};
use crate::paxos::{Incarnation, NodeId, Slot, Start};
use crate::time::Time;
use crate::wire::hello::{Base, NodeHello, PROTOCOL_VERSION_MAX};
use crate::wire::message::ErrorCode;
use crate::wire::{Code, Frame, Hello, HelloKind, Outcome, Reply, RequestOp, Served};
use bytes::Bytes;
use std::time::Duration;

const CLUSTER: u64 = 0xc1;
const DEADLINE_MS: u64 = 5_000;

/// A client, its clock, and what it did since it was last asked.
struct Script {
    client: ClientMachine,
    now: Time,
    trace: Vec<String>,
    /// Last request sent to each endpoint.
    requests: Vec<(usize, u64, crate::wire::Request)>,
    ends: Vec<(u64, End)>,
}

impl Script {
    fn new(endpoints: &[&str]) -> Script {
        Script::with(endpoints, |_| {})
    }

    fn with(endpoints: &[&str], change: impl FnOnce(&mut Options)) -> Script {
        // A seed that begins with the first endpoint, so that scripts read well.
        let seed = (0..).find(|seed| fastrand::Rng::with_seed(*seed).usize(0..endpoints.len()) == 0);
        let mut options = Options::new(seed.expect("one in three"), 0x5e55);
        change(&mut options);
        Script {
            client: ClientMachine::new(endpoints.iter().map(|name| name.to_string()).collect(), options),
            now: Time::from_millis(1_000),
            trace: Vec::new(),
            requests: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.client.step(self.now, input, &mut effects);
        for effect in effects {
            self.note(effect);
        }
    }

    fn note(&mut self, effect: Effect) {
        let line = match effect {
            Effect::Connect { endpoint } => format!("connect {}", self.client.address(endpoint)),
            Effect::Close { endpoint } => format!("close {}", self.client.address(endpoint)),
            Effect::Closed => "closed".into(),
            Effect::Finished { token, end } => {
                let cause = end.failure().map_or("", |failure| failure.cause.name());
                let line = format!("{token}: {} {cause}", end.class()).trim_end().to_string();
                self.ends.push((token, end));
                line
            }
            Effect::Send {
                endpoint,
                request_id,
                frame,
            } => {
                let address = self.client.address(endpoint).to_string();
                match frame {
                    Frame::Request(request) => {
                        let text = match &request.op {
                            RequestOp::Write(op) if request.number == 0 => op.name().to_string(),
                            RequestOp::Write(op) => format!("{}#{} low={}", op.name(), request.number, request.low),
                            RequestOp::Get { .. } => "get".into(),
                            RequestOp::GetStale { .. } => "get-stale".into(),
                            RequestOp::Status => "status".into(),
                        };
                        self.requests.push((endpoint, request_id, request));
                        format!("{address}< {text}")
                    }
                    frame => format!("{address}< {}", frame.name()),
                }
            }
        };
        self.trace.push(line);
    }

    /// What it did since the last call.
    fn did(&mut self) -> String {
        std::mem::take(&mut self.trace).join("; ")
    }

    /// Lets time pass, deadline by deadline.
    fn wait(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        let mut rounds = 0;
        while let Some(deadline) = self.client.deadline().filter(|deadline| *deadline <= end) {
            self.now = self.now.max(deadline);
            self.step(Input::Deadline);
            rounds += 1;
            assert!(rounds < 10_000, "the machine asks for the same moment again and again");
        }
        self.now = end;
    }

    /// Lets time pass until it did something, at most a second.
    fn wait_until_it_acts(&mut self) {
        for _ in 0..1_000 {
            if !self.trace.is_empty() {
                return;
            }
            self.wait(1);
        }
    }

    fn endpoint(&self, name: &str) -> usize {
        (0..4)
            .find(|endpoint| self.client.address(*endpoint) == name)
            .unwrap_or_else(|| panic!("no endpoint {name}"))
    }

    fn submit(&mut self, token: u64, op: RequestOp) {
        let deadline = self.now + Duration::from_millis(DEADLINE_MS);
        self.step(Input::Submit { token, op, deadline });
    }

    fn put(&mut self, token: u64) {
        self.submit(token, put());
    }

    fn connected(&mut self, name: &str) {
        let endpoint = self.endpoint(name);
        self.step(Input::Connected { endpoint });
    }

    fn refused(&mut self, name: &str) {
        let endpoint = self.endpoint(name);
        let detail = "refused".into();
        self.step(Input::Refused { endpoint, detail });
    }

    fn lost(&mut self, name: &str) {
        let endpoint = self.endpoint(name);
        let detail = "reset".into();
        self.step(Input::Lost { endpoint, detail });
    }

    fn frame(&mut self, name: &str, request_id: u64, frame: Frame) {
        let endpoint = self.endpoint(name);
        self.step(Input::Frame {
            endpoint,
            request_id,
            frame,
        });
    }

    fn hello(&mut self, name: &str, node: u16) {
        self.frame(name, 0, Frame::Hello(node_hello(node)));
    }

    /// The dial and the handshake go through.
    fn up(&mut self, name: &str, node: u16) {
        self.connected(name);
        self.hello(name, node);
    }

    /// Answers the last request that was sent to this endpoint.
    fn answer(&mut self, name: &str, outcome: Outcome) {
        self.answer_with_hint(name, outcome, None);
    }

    fn answer_with_hint(&mut self, name: &str, outcome: Outcome, leader: Option<(u16, &str)>) {
        let endpoint = self.endpoint(name);
        let sent = self.requests.iter().rev().find(|(to, ..)| *to == endpoint);
        let request_id = sent.expect("a request was sent there").1;
        let leader = leader.map(|(node, address)| (NodeId(node), address.into()));
        self.frame(name, request_id, Frame::Reply(Reply { outcome, leader }));
    }

    /// A client whose session is open through `a`.
    fn with_session() -> Script {
        let mut script = Script::new(&["a", "b", "c"]);
        script.put(1);
        script.up("a", 1);
        script.answer("a", opened(7));
        script.answer("a", written(8));
        assert!(script.did().ends_with("1: done"));
        script
    }
}

fn put() -> RequestOp {
    RequestOp::Write(Op::Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"v"),
        if_absent: false,
        want_previous: false,
    })
}

fn get() -> RequestOp {
    RequestOp::Get {
        key: Bytes::from_static(b"k"),
    }
}

fn node_hello(node: u16) -> Hello {
    Hello {
        version_min: 1,
        version_max: PROTOCOL_VERSION_MAX,
        features: 0,
        kind: HelloKind::Node(NodeHello {
            node: NodeId(node),
            incarnation: Incarnation::default(),
            start: Start::default(),
            remembered: None,
            founded: true,
            advertise: String::new(),
            debug: String::new(),
            listed: Vec::new(),
            base: Base::default(),
            roster: Vec::new(),
            lease_ms: 0,
        }),
        cluster_name: "synod".into(),
        cluster_id: CLUSTER,
    }
}

fn done(slot: u64, answer: Answer) -> Outcome {
    Outcome::Done(Served::Done(Done {
        slot: Slot(slot),
        revision: slot,
        answer,
    }))
}

fn opened(slot: u64) -> Outcome {
    done(slot, Answer::Opened { opened: Slot(slot) })
}

fn written(slot: u64) -> Outcome {
    let previous = Previous::NotAsked;
    done(slot, Answer::Written { previous })
}

fn not_done(code: Code) -> Outcome {
    Outcome::NotDone {
        code,
        retry_after_ms: 0,
        detail: String::new(),
    }
}

#[test]
fn a_write_opens_its_session_first_and_names_it() {
    let mut script = Script::new(&["a", "b", "c"]);
    script.put(1);
    assert_eq!(script.did(), "connect a");
    script.connected("a");
    assert_eq!(script.did(), "a< HELLO");
    script.hello("a", 1);
    assert_eq!(script.did(), "a< open");
    script.answer("a", opened(7));
    assert_eq!(script.did(), "a< put#1 low=1");
    let (.., request) = script.requests.last().expect("sent");
    let session = SessionRef {
        id: 0x5e55,
        opened: Slot(7),
    };
    assert_eq!(request.session, session);
    script.answer("a", written(8));
    assert_eq!(script.did(), "1: done");
    script.put(2);
    assert_eq!(script.did(), "a< put#2 low=2");
}

#[test]
fn a_read_needs_no_session() {
    let mut script = Script::new(&["a", "b", "c"]);
    script.submit(1, get());
    script.up("a", 1);
    assert_eq!(script.did(), "connect a; a< HELLO; a< get");
}

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_session_and_number() {
    let mut script = Script::with_session();
    script.put(2);
    let first = script.requests.last().expect("sent").2.clone();
    script.lost("a");
    assert_eq!(script.did(), "a< put#2 low=2; connect b");
    script.up("b", 2);
    assert_eq!(script.did(), "b< HELLO");
    script.wait_until_it_acts();
    assert_eq!(script.did(), "b< put#2 low=2");
    let second = script.requests.last().expect("sent").2.clone();
    assert_eq!((first.session, first.number), (second.session, second.number));
    script.answer("b", written(9));
    assert_eq!(script.did(), "2: done");
}

#[test]
fn a_refusal_after_an_attempt_without_a_word_leaves_the_operation_unknown() {
    for (code, ends_at_once) in [
        (Code::SessionExpired, true),
        (Code::Busy, false),
        (Code::NoLeader, false),
    ] {
        let mut script = Script::with_session();
        script.put(2);
        script.lost("a");
        script.up("b", 2);
        script.did();
        script.wait_until_it_acts();
        assert_eq!(script.did(), "b< put#2 low=2", "{code:?}");
        script.answer("b", not_done(code));
        if ends_at_once {
            assert_eq!(script.did(), format!("2: unknown {code}", code = code.name()));
        } else {
            script.did();
            script.wait(DEADLINE_MS);
            assert!(script.did().contains("2: unknown"), "{code:?}");
        }
    }
}

#[test]
fn an_unknown_reply_is_settled_by_the_table_of_sessions() {
    let mut script = Script::with_session();
    script.put(2);
    let code = Code::LeaderLost;
    script.answer("a", Outcome::Unknown { code });
    script.did();
    script.wait_until_it_acts();
    assert_eq!(script.did(), "a< put#2 low=2");
    script.answer("a", written(9));
    assert_eq!(script.did(), "2: done");
}

#[test]
fn a_refusal_alone_means_not_done_and_the_next_write_opens_a_new_session() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer("a", not_done(Code::SessionExpired));
    assert_eq!(script.did(), "a< put#2 low=2; 2: not_done session_expired");
    script.put(3);
    assert_eq!(script.did(), "a< open");
    assert_eq!(script.requests.last().expect("sent").2.session.id, 0x5e56);
    script.answer("a", opened(20));
    assert_eq!(script.did(), "a< put#1 low=1");
}

#[test]
fn a_session_that_was_idle_for_long_is_not_used_again() {
    let mut script = Script::with_session();
    script.now = script.now + SESSION_IDLE_MAX;
    script.put(2);
    assert_eq!(script.did(), "a< open");
}

#[test]
fn a_refused_attempt_is_made_again_and_then_done() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer(
        "a",
        Outcome::NotDone {
            code: Code::Busy,
            retry_after_ms: 100,
            detail: String::new(),
        },
    );
    script.did();
    script.wait(99);
    assert_eq!(script.did(), "");
    script.wait(1);
    assert_eq!(script.did(), "a< put#2 low=2");
    script.answer("a", written(9));
    assert_eq!(script.did(), "2: done");
}

/// Found by the simulator (seeds 2 and 62): the connection to a node that is cut off from its peers stayed, and so the
/// client asked there again and again, and nowhere else, until its deadline.
#[test]
fn a_node_that_cannot_serve_is_left_for_one_that_is_not_connected_yet() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer("a", not_done(Code::NoQuorum));
    assert_eq!(script.did(), "a< put#2 low=2; connect b");
    script.up("b", 2);
    script.did();
    script.wait_until_it_acts();
    assert_eq!(script.did(), "b< put#2 low=2");
    // With nobody else to be dialled, it is asked again.
    script.answer("b", not_done(Code::NoLeader));
    assert_eq!(script.did(), "connect c");
    script.refused("c");
    script.did();
    script.wait_until_it_acts();
    assert_eq!(script.did(), "a< put#2 low=2");
}

/// Found by the simulator (seed 100724): an operation that nobody could take yet was forgotten when the dial that it
/// waited for failed and the only other node was connected already.
#[test]
fn what_waits_for_a_dial_goes_to_who_is_connected_when_the_dial_fails() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer("a", not_done(Code::NoQuorum));
    script.refused("b");
    assert_eq!(script.did(), "a< put#2 low=2; connect b; connect c");
    script.put(3);
    assert_eq!(script.did(), "");
    script.refused("c");
    assert!(script.did().contains("a< put#3"));
}

#[test]
fn the_same_open_is_repeated_until_it_is_answered() {
    let mut script = Script::new(&["a", "b", "c"]);
    script.put(1);
    script.up("a", 1);
    script.lost("a");
    script.up("b", 2);
    script.did();
    script.wait_until_it_acts();
    assert_eq!(script.did(), "b< open");
    let ids: Vec<u128> = script.requests.iter().map(|(.., request)| request.session.id).collect();
    assert_eq!(ids, [0x5e55, 0x5e55]);
}

#[test]
fn a_write_that_waits_for_its_session_was_certainly_not_done() {
    let mut script = Script::new(&["a"]);
    script.put(1);
    script.up("a", 1);
    script.answer("a", Outcome::Unknown { code: Code::LeaderLost });
    script.did();
    script.wait(DEADLINE_MS);
    assert!(script.did().contains("1: not_done"));
}

/// Found by the simulator (seed 2801119537): two nodes that lost their memory were cut off from the others, and one named
/// the other as the leader that it had heard last. The client asked these two in turn and nobody else.
#[test]
fn a_hint_to_a_node_that_has_just_said_that_it_cannot_serve_is_not_followed() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer("a", not_done(Code::NoQuorum));
    assert_eq!(script.did(), "a< put#2 low=2; connect b");
    script.up("b", 2);
    script.did();
    script.wait_until_it_acts();
    assert_eq!(script.did(), "b< put#2 low=2");
    script.answer_with_hint("b", not_done(Code::NoLeader), Some((1, "a")));
    assert_eq!(script.did(), "connect c");
}

#[test]
fn a_leader_hint_is_followed_once_the_leader_greets() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer_with_hint("a", written(9), Some((2, "b")));
    assert_eq!(script.did(), "a< put#2 low=2; connect b; 2: done");
    script.put(3);
    assert_eq!(script.did(), "a< put#3 low=3");
    script.up("b", 2);
    script.put(4);
    assert_eq!(script.did(), "b< HELLO; b< put#4 low=3");
    script.answer("a", written(10));
    script.wait(1_500);
    script.answer("b", written(11));
    assert!(script.did().contains("close a"));
}

#[test]
fn reads_from_any_node_stay_at_their_own_while_writes_go_to_the_leader() {
    let mut script = Script::with(&["a", "b"], |options| options.reads_from = ReadsFrom::Any);
    script.submit(1, get());
    script.up("a", 1);
    assert_eq!(script.did(), "connect a; a< HELLO; a< get");
    script.answer_with_hint("a", done(8, Answer::NotFound), Some((2, "b")));
    script.up("b", 2);
    script.submit(2, get());
    script.put(3);
    assert_eq!(
        script.did(),
        "connect b; 1: done; b< HELLO; a< get; b< open",
        "the hint moves writes alone"
    );
    // A node that cannot serve reads any more hands them over to the next.
    script.answer("a", not_done(Code::NoLeader));
    script.wait_until_it_acts();
    assert_eq!(script.did(), "b< get");
}

#[test]
fn a_leader_is_known_by_the_id_in_its_hello_before_its_address() {
    let mut script = Script::with_session();
    script.lost("a");
    script.submit(2, get());
    script.up("b", 2);
    script.did();
    script.answer_with_hint("b", done(9, Answer::NotFound), Some((1, "10.0.0.1:7001")));
    // `a` said that it is node 1: it is dialled, not the address that it has inside the cluster's network.
    script.wait(20);
    script.submit(3, get());
    script.answer_with_hint("b", done(9, Answer::NotFound), Some((1, "10.0.0.1:7001")));
    assert!(script.did().contains("connect a"));
}

#[test]
fn a_hint_that_leads_nowhere_costs_nothing() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer_with_hint("a", written(9), Some((9, "z")));
    assert_eq!(script.did(), "a< put#2 low=2; connect z; 2: done");
    script.refused("z");
    script.put(3);
    assert_eq!(script.did(), "a< put#3 low=3");
}

#[test]
fn not_leader_with_a_hint_is_sent_to_the_leader_without_a_pause() {
    let mut script = Script::with_session();
    script.put(2);
    script.answer_with_hint("a", not_done(Code::NotLeader), Some((3, "c")));
    assert_eq!(script.did(), "a< put#2 low=2; connect c");
    script.up("c", 3);
    assert_eq!(script.did(), "c< HELLO; c< put#2 low=2");
}

#[test]
fn when_every_endpoint_refuses_the_operation_is_certainly_not_done() {
    let mut script = Script::new(&["a", "b", "c"]);
    script.put(1);
    for name in ["a", "b", "c"] {
        assert_eq!(script.did(), format!("connect {name}"));
        script.refused(name);
    }
    while script.ends.is_empty() {
        script.wait_until_it_acts();
        if let Some(name) = script.did().strip_prefix("connect ") {
            script.refused(name);
        }
    }
    assert_eq!(script.now, Time::from_millis(1_000 + DEADLINE_MS));
    let (_, end) = script.ends.remove(0);
    assert!(!end.is_maybe_done());
    assert!(end.is_retryable());
    let failure = end.failure().expect("not done");
    assert_eq!(failure.cause, Cause::NoEndpoint);
    assert!(
        failure.detail.contains("a: refused; b: refused; c: refused"),
        "{failure}"
    );
}

#[test]
fn a_hasty_caller_gives_up_when_nobody_is_there() {
    let mut script = Script::with(&["a"], |options| {
        options.give_up_unreachable = Some(Duration::from_millis(300));
    });
    script.put(1);
    script.refused("a");
    while script.ends.is_empty() {
        script.did();
        script.wait_until_it_acts();
        if script.did() == "connect a" {
            script.refused("a");
        }
    }
    assert!(script.now <= Time::from_millis(1_000 + 400), "{}", script.now);
}

#[test]
fn a_deadline_that_passes_in_flight_is_unknown_for_writes_and_not_done_for_reads() {
    for (op, expected) in [
        (put(), "2: unknown deadline_passed"),
        (get(), "2: not_done deadline_passed"),
    ] {
        let mut script = Script::with_session();
        let deadline = script.now + Duration::from_millis(500);
        script.step(Input::Submit { token: 2, op, deadline });
        script.did();
        script.wait(500);
        assert_eq!(script.did(), expected);
    }
}

#[test]
fn a_silent_connection_is_given_up_and_the_next_node_is_asked() {
    let mut script = Script::with_session();
    script.wait(10);
    script.put(2);
    script.did();
    script.wait(999);
    assert_eq!(script.did(), "");
    script.wait(1);
    assert_eq!(script.did(), "close a; connect b");
}

#[test]
fn a_slow_answer_still_counts_while_its_connection_lives() {
    let mut script = Script::with_session();
    script.put(2);
    let first = script.requests.last().expect("sent").1;
    script.wait(500);
    script.frame("a", 0, Frame::Ping { nonce: 1 });
    assert_eq!(script.did(), "a< put#2 low=2; a< PONG");
    script.wait(600);
    assert_eq!(script.did(), "a< put#2 low=2");
    let reply = Reply {
        outcome: written(9),
        leader: None,
    };
    script.frame("a", first, Frame::Reply(reply));
    assert_eq!(script.did(), "2: done");
}

#[test]
fn nodes_that_cannot_be_understood_end_operations_at_once() {
    let mut script = Script::new(&["a", "b"]);
    script.put(1);
    script.connected("a");
    let detail = "version 2 to 3 only".into();
    let code = ErrorCode::BadVersion;
    script.frame("a", 0, Frame::Error { code, detail });
    script.connected("b");
    script.step(Input::Garbled {
        endpoint: 1,
        detail: "bad checksum".into(),
    });
    assert!(script.did().ends_with("close b; 1: not_done protocol"));
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let mut script = Script::with_session();
    script.lost("a");
    script.submit(2, get());
    script.connected("b");
    script.did();
    let mut hello = node_hello(2);
    hello.cluster_id = CLUSTER + 1;
    script.frame("b", 0, Frame::Hello(hello));
    assert_eq!(script.did(), "close b; connect c");
}

#[test]
fn no_more_than_256_writes_are_in_flight_behind_the_lowest() {
    let mut script = Script::with_session();
    for token in 2..=300 {
        script.put(token);
    }
    let sent = script
        .requests
        .iter()
        .filter(|(.., request)| request.number > 1)
        .count();
    assert_eq!(sent, 256);
    assert!(script.did().ends_with("a< put#257 low=2"));
    let (.., lowest, _) = script.requests[2].clone();
    let reply = Reply {
        outcome: written(9),
        leader: None,
    };
    script.frame("a", lowest, Frame::Reply(reply));
    assert_eq!(script.did(), "2: done; a< put#258 low=3");
}

#[test]
fn a_clean_end_closes_the_session_and_the_connection() {
    let mut script = Script::with_session();
    let deadline = script.now + Duration::from_secs(1);
    script.step(Input::Close { deadline });
    assert_eq!(script.did(), "a< close");
    let request = script.requests.last().expect("sent").2.clone();
    assert_eq!((request.session.opened, request.number), (Slot(7), 0));
    script.answer("a", done(9, Answer::Closed));
    assert_eq!(script.did(), "close a; closed");
    script.put(5);
    assert_eq!(script.did(), "5: not_done closed");
}

#[test]
fn an_end_with_nobody_there_does_not_wait() {
    let mut script = Script::with_session();
    script.lost("a");
    let deadline = script.now + Duration::from_secs(1);
    script.step(Input::Close { deadline });
    assert_eq!(script.did(), "closed");
}

#[test]
fn more_operations_than_a_client_holds_are_refused() {
    let mut script = Script::new(&["a"]);
    for token in 0..super::options::OPERATIONS_MAX as u64 {
        script.submit(token, get());
    }
    script.did();
    script.submit(9_999, get());
    assert_eq!(script.did(), "9999: not_done too_many_operations");
}

#[test]
fn what_no_cluster_would_take_is_refused_before_anybody_is_dialled() {
    let mut script = Script::new(&["a"]);
    script.submit(1, RequestOp::Get { key: Bytes::new() });
    script.submit(
        2,
        RequestOp::Get {
            key: Bytes::from(vec![b'k'; 1025]),
        },
    );
    script.submit(3, RequestOp::Write(Op::Open));
    assert_eq!(
        script.did(),
        "1: not_done bad_request; 2: not_done too_large; 3: not_done bad_request"
    );
}
