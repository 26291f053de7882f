//! One machine alone, stepped by hand.

use super::requests::QUEUE_WAIT_MAX;
use super::*;
use crate::kv::{Op, SessionRef};
use crate::paxos::{Ballot, Message, NodeId, Slot};
use crate::time::Time;
use crate::wire::{Code, HelloKind, Outcome, Record, Reply, Request, RequestOp};
use bytes::Bytes;
use std::time::Duration;

/// A cluster of one, whose disk the test holds in its hands.
struct Alone {
    machine: Machine,
    now: Time,
    appended: u64,
    replies: Vec<(RequestId, Reply)>,
}

impl Alone {
    fn leading() -> Alone {
        Alone::leading_with(|_| {})
    }

    fn leading_with(change: impl FnOnce(&mut Settings)) -> Alone {
        let node = NodeId(1);
        let mut settings = Settings::new(node, vec![node]);
        change(&mut settings);
        let mut alone = Alone {
            machine: Machine::new(settings),
            now: Time::from_millis(1),
            appended: 0,
            replies: Vec::new(),
        };
        let mut effects = Vec::new();
        alone.machine.start(alone.now, &mut effects);
        alone.take(effects);
        while alone.machine.status(alone.now).role != "leader" {
            alone.sync();
            alone.wait_for_deadline();
        }
        alone.sync();
        alone
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.machine.step(self.now, input, &mut effects);
        self.machine.apply(self.now, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(_) => self.appended += 1,
                Effect::Reply { id, reply } => self.replies.push((id, reply)),
                _ => {}
            }
        }
    }

    fn sync(&mut self) {
        let up_to = self.appended;
        self.step(Input::Synced { up_to });
    }

    /// A write of one session, and the end of its turn.
    fn ask(&mut self, number: u64, deadline_ms: u32) -> RequestId {
        let op = RequestOp::Write(Op::Del {
            key: Bytes::from_static(b"k"),
            want_previous: false,
        });
        let id = self.take_request(number, deadline_ms, op);
        self.step(Input::Gathered);
        id
    }

    /// A request, in the middle of its turn.
    fn take_request(&mut self, number: u64, deadline_ms: u32, op: RequestOp) -> RequestId {
        let request = Request {
            deadline_ms,
            session: SessionRef { id: 1, opened: Slot(1) },
            number,
            low: 1,
            op,
        };
        let id = RequestId {
            connection: 7,
            request: number,
        };
        self.step(Input::Client { id, request });
        id
    }

    fn wait_for_deadline(&mut self) {
        self.now = self
            .now
            .max(self.machine.deadline().expect("a node waits for something"));
        self.step(Input::Deadline);
        self.step(Input::Gathered);
    }
}

#[test]
fn a_proposed_write_whose_deadline_passes_is_unknown_and_answered_once() {
    let mut alone = Alone::leading();
    let asked_at = alone.now;
    let id = alone.ask(1, 100);
    // The disk hangs: the write is proposed, and nobody has accepted it.
    while alone.replies.is_empty() {
        alone.wait_for_deadline();
        let waited = alone.now.since(asked_at).as_millis();
        assert!(waited < 1000, "nobody tells the client");
    }
    assert!(alone.now.since(asked_at).as_millis() >= 100);
    let (to, reply) = &alone.replies[0];
    let code = Code::DeadlinePassed;
    assert_eq!((*to, &reply.outcome), (id, &Outcome::Unknown { code }));
    alone.sync();
    assert_eq!(alone.replies.len(), 1, "applied by now; its client was told already");
}

#[test]
fn while_writes_have_waited_for_long_further_ones_are_refused_with_a_time_to_wait() {
    let mut alone = Alone::leading_with(|settings| settings.window_slots = 1);
    // The disk hangs: the first is proposed, and keeps the second from it.
    alone.ask(1, 5_000);
    alone.ask(2, 5_000);
    alone.now = alone.now + QUEUE_WAIT_MAX;
    alone.ask(3, 5_000);
    assert_eq!(alone.replies, [], "so long is not yet too long");
    alone.now = alone.now + Duration::from_millis(1);
    let late = alone.ask(4, 5_000);
    let [(to, reply)] = alone.replies.as_slice() else {
        panic!("one is answered: {:?}", alone.replies)
    };
    let code = Code::Busy;
    assert!(
        matches!(reply.outcome, Outcome::NotDone { code: of, retry_after_ms, .. }
            if of == code && u128::from(retry_after_ms) == QUEUE_WAIT_MAX.as_millis()),
        "{reply:?}"
    );
    assert_eq!(*to, late);
    // It goes on: what waited is proposed, and the next is taken.
    alone.sync();
    alone.step(Input::Gathered);
    let next = alone.ask(5, 5_000);
    assert_eq!(alone.machine.status(alone.now).queued_writes, 1);
    assert!(alone.replies.iter().all(|(to, _)| *to != next));
}

#[test]
fn a_node_stays_awake_for_one_to_four_linearizable_reads_and_only_while_no_write_waits() {
    let mut alone = Alone::leading();
    let get = || RequestOp::Get {
        key: Bytes::from_static(b"k"),
    };
    assert!(!alone.machine.awaits_word_on_few_reads(), "nobody asks");
    let later = RequestOp::GetStale {
        key: Bytes::from_static(b"k"),
        at_least: Slot(1_000_000),
    };
    alone.take_request(1, 60_000, later);
    assert!(!alone.machine.awaits_word_on_few_reads(), "a stale read awaits no peer");
    for number in 2..=6 {
        alone.take_request(number, 1_000, get());
        assert_eq!(
            alone.machine.awaits_word_on_few_reads(),
            number <= 5,
            "read {}",
            number - 1
        );
    }
    alone.step(Input::Gathered);
    assert!(!alone.machine.awaits_word_on_few_reads(), "all are answered");
    alone.ask(7, 1_000);
    alone.take_request(8, 1_000, get());
    assert!(!alone.machine.awaits_word_on_few_reads(), "a write waits for the disk");
}

#[test]
fn a_stall_that_is_over_refuses_nobody_whose_write_this_turn_proposes() {
    // window bytes, whether the third write is refused
    for (window_bytes, is_refused) in [(4 << 20, false), (1, true)] {
        let mut alone = Alone::leading_with(|settings| {
            settings.window_slots = 1;
            settings.window_bytes = window_bytes;
        });
        alone.ask(1, 5_000);
        alone.ask(2, 5_000);
        alone.now = alone.now + QUEUE_WAIT_MAX + Duration::from_millis(1);
        alone.sync(); // the disk is back: the first is chosen, and the window has room
        let answered = alone.replies.len();
        alone.ask(3, 5_000);
        assert_eq!(
            alone.replies.len() > answered,
            is_refused,
            "a window of {window_bytes} bytes"
        );
        assert_eq!(
            alone.machine.status(alone.now).queued_writes,
            0,
            "what waited is proposed"
        );
    }
}

#[test]
fn a_newer_start_is_remembered_by_what_comes_behind_its_hello_and_not_by_what_the_process_before_it_answered() {
    let [one, from] = [1, 2].map(NodeId);
    let (ballot, promised) = (Ballot { round: 1, node: one }, Ballot { round: 2, node: from });
    let answer = Message::Nack { ballot, promised };
    for (dialled, answer_counts) in [(true, false), (false, true)] {
        let mut machine = Machine::new(Settings::new(one, vec![one, from]));
        let mut hello = machine.hello_to(None);
        if let HelloKind::Node(own) = &mut hello.kind {
            own.node = from;
            own.incarnation.token ^= 1;
            own.start.token ^= 1;
        }
        let mut is_remembered_by = |input| {
            let mut effects = Vec::new();
            machine.step(Time::from_millis(1), input, &mut effects);
            let remembers =
                |effect: &Effect| matches!(effect, Effect::Append(Record::Peer { node, .. }) if *node == from);
            effects.iter().any(remembers)
        };
        assert!(!is_remembered_by(Input::Hello { from, hello, dialled }));
        // On the connection that this node dialled; if the peer has dialled anew, to the process before.
        let message = answer.clone();
        assert_eq!(is_remembered_by(Input::Answer { from, message }), answer_counts);
        let message = answer.clone();
        assert_eq!(is_remembered_by(Input::Paxos { from, message }), !answer_counts);
    }
}
