//! One machine alone, stepped by hand.

use super::*;
use crate::kv::{Op, SessionRef};
use crate::paxos::{NodeId, Slot};
use crate::time::Time;
use crate::wire::{Code, Outcome, Reply, Request, RequestOp};
use bytes::Bytes;

/// A cluster of one, whose disk the test holds in its hands.
struct Alone {
    machine: Machine,
    now: Time,
    appended: u64,
    replies: Vec<(RequestId, Reply)>,
}

impl Alone {
    fn leading() -> Alone {
        let node = NodeId(1);
        let mut alone = Alone {
            machine: Machine::new(Settings::new(node, vec![node])),
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
    let key = Bytes::from_static(b"k");
    let request = Request {
        deadline_ms: 100,
        session: SessionRef { id: 1, opened: Slot(1) },
        number: 1,
        low: 1,
        op: RequestOp::Write(Op::Del {
            key,
            want_previous: false,
        }),
    };
    let id = RequestId {
        connection: 7,
        request: 1,
    };
    let asked_at = alone.now;
    alone.step(Input::Client { id, request });
    alone.step(Input::Gathered);
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
