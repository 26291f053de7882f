//! The client machine against a world drawn from a seed: lost, late and repeated requests, refusals, dead nodes.
//!
//! The log is the real state machine, applied request by request as they reach it, also long after their clients have
//! given up. At the end every operation must have kept its word: done means in effect exactly once, not done means
//! never in effect, unknown means at most once. And once the faults stop, everything is done.

use super::machine::{ClientMachine, Effect, Input};
use super::options::Options;
use super::outcome::End;
use crate::kv::state::Applied;
use crate::kv::{Answer, Command, Done, Op, Refusal, State};
use crate::paxos::{Incarnation, LogTime, NodeId, Slot, Start};
use crate::time::Time;
use crate::wire::hello::{Base, NodeHello};
use crate::wire::{Code, Frame, Hello, HelloKind, Outcome, Reply, Request, RequestOp, Served};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

const NODES: usize = 3;
const FAULTS_END: Time = Time::from_millis(20_000);

enum Event {
    Submit(u64),
    /// To the client, if that connection still lives.
    Arrives(usize, u64, Box<Input>),
    /// A request reaches the log; its reply goes back on the connection, unless it is cut.
    Reaches(usize, u64, u64, Box<Request>, bool),
    Cut(usize, u64),
}

struct World {
    rng: Rng,
    client: ClientMachine,
    now: Time,
    events: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    /// Life of the present connection of each endpoint; 0: none.
    lives: [u64; NODES],
    state: State,
    ends: BTreeMap<u64, End>,
}

fn key(token: u64) -> Bytes {
    Bytes::from(format!("k{token}"))
}

impl World {
    fn new(seed: u64) -> World {
        let addresses = (1..=NODES).map(|node| format!("node{node}")).collect();
        let mut options = Options::new(seed, u128::from(seed) + 1);
        options.attempt_timeout = Duration::from_millis(200);
        World {
            rng: Rng::with_seed(seed ^ 0xdead_beef),
            client: ClientMachine::new(addresses, options),
            now: Time::ZERO,
            events: BTreeMap::new(),
            sequence: 0,
            lives: [0; NODES],
            state: State::new(),
            ends: BTreeMap::new(),
        }
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        let at = self.now + Duration::from_millis(ms);
        self.events.insert((at, self.sequence), event);
    }

    fn faulty(&mut self) -> bool {
        self.now < FAULTS_END && self.rng.u8(0..100) < 30
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.client.step(self.now, input, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Connect { endpoint } => {
                self.sequence += 1;
                let life = self.sequence;
                self.lives[endpoint] = life;
                if self.faulty() {
                    let detail = "refused".into();
                    let refused = Input::Refused { endpoint, detail };
                    // Half of them never answer.
                    if self.rng.bool() {
                        self.after(1, Event::Arrives(endpoint, life, Box::new(refused)));
                    }
                } else {
                    self.after(
                        1,
                        Event::Arrives(endpoint, life, Box::new(Input::Connected { endpoint })),
                    );
                }
            }
            Effect::Close { endpoint } => self.lives[endpoint] = 0,
            Effect::Send {
                endpoint,
                request_id,
                frame: Frame::Request(request),
            } => self.on_request(endpoint, request_id, request),
            Effect::Send { endpoint, .. } => {
                let input = Input::Frame {
                    endpoint,
                    request_id: 0,
                    frame: Frame::Hello(hello(endpoint)),
                };
                self.after(1, Event::Arrives(endpoint, self.lives[endpoint], Box::new(input)));
            }
            Effect::Finished { token, end } => {
                assert!(self.ends.insert(token, end).is_none(), "operation {token} ended twice");
            }
            Effect::Closed => {}
        }
    }

    /// Draws the fate of one attempt.
    fn on_request(&mut self, endpoint: usize, request_id: u64, request: Request) {
        let life = self.lives[endpoint];
        let reaches = |replies| Event::Reaches(endpoint, life, request_id, Box::new(request.clone()), replies);
        if !self.faulty() {
            let ms = self.rng.u64(1..20);
            return self.after(ms, reaches(true));
        }
        let late = self.rng.u64(1..8_000);
        match self.rng.u8(0..7) {
            0 => self.after(2, reaches(false)),
            1 => self.after(late, reaches(false)),
            2 => self.after(late, reaches(true)),
            3 => self.after(2, Event::Cut(endpoint, life)),
            4 => {
                self.after(late, reaches(false));
                self.after(2, Event::Cut(endpoint, life));
            }
            5 => {
                // A certain refusal promises that this attempt will never reach the log.
                let codes: Vec<Code> = Code::ALL.into_iter().filter(|code| !code.is_unknown()).collect();
                let codes: Vec<Code> = codes.into_iter().filter(|code| code.is_retryable()).collect();
                let code = codes[self.rng.usize(0..codes.len())];
                let outcome = Outcome::NotDone {
                    code,
                    retry_after_ms: self.rng.u32(0..50),
                    detail: String::new(),
                };
                self.reply(endpoint, life, request_id, outcome);
            }
            _ => {
                self.after(late, reaches(false));
                let code = Code::LeaderLost;
                self.reply(endpoint, life, request_id, Outcome::Unknown { code });
            }
        }
    }

    fn reply(&mut self, endpoint: usize, life: u64, request_id: u64, outcome: Outcome) {
        let hinted = self.rng.u16(1..=NODES as u16 + 1);
        let leader = self
            .rng
            .bool()
            .then(|| (NodeId(hinted), format!("node{hinted}").into()));
        // A fourth node does not exist.
        let leader = leader.filter(|(node, _)| usize::from(node.0) <= NODES);
        let frame = Frame::Reply(Reply { outcome, leader });
        let input = Input::Frame {
            endpoint,
            request_id,
            frame,
        };
        self.after(1, Event::Arrives(endpoint, life, Box::new(input)));
    }

    fn apply(&mut self, request: Request) -> Outcome {
        let RequestOp::Write(op) = request.op else {
            return Outcome::Done(Served::Done(Done {
                slot: self.state.applied(),
                revision: self.state.revision(),
                answer: Answer::NotFound,
            }));
        };
        let command = Command {
            session: request.session,
            number: request.number,
            low: request.low,
            op,
        };
        let mut applied = Vec::new();
        let slot = self.state.applied().next();
        self.state
            .apply(slot, LogTime(self.now.0 / 1_000_000), &[command], &mut applied);
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

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit(token) => {
                let op = match token % 4 {
                    0 => RequestOp::Get { key: key(token) },
                    _ => RequestOp::Write(Op::Put {
                        key: key(token),
                        value: Bytes::from_static(b"v"),
                        if_absent: false,
                        want_previous: false,
                    }),
                };
                let deadline = self.now + Duration::from_secs(3);
                self.step(Input::Submit { token, op, deadline });
            }
            Event::Arrives(endpoint, life, input) => {
                if self.lives[endpoint] == life {
                    if matches!(*input, Input::Refused { .. }) {
                        self.lives[endpoint] = 0;
                    }
                    self.step(*input);
                }
            }
            Event::Reaches(endpoint, life, request_id, request, replies) => {
                let outcome = self.apply(*request);
                if replies {
                    self.reply(endpoint, life, request_id, outcome);
                }
            }
            Event::Cut(endpoint, life) => {
                if self.lives[endpoint] == life {
                    self.lives[endpoint] = 0;
                    let detail = "cut".into();
                    self.step(Input::Lost { endpoint, detail });
                }
            }
        }
    }

    fn run(&mut self, operations: u64) {
        for token in 1..=operations {
            let ms = self.rng.u64(0..25_000);
            self.after(ms, Event::Submit(token));
        }
        loop {
            let event = self.events.keys().next().copied();
            let deadline = self.client.deadline();
            match (event, deadline) {
                (None, None) => return,
                (Some((at, _)), Some(deadline)) if deadline < at => self.on_deadline(deadline),
                (None, Some(deadline)) => self.on_deadline(deadline),
                (Some(first), _) => {
                    self.now = self.now.max(first.0);
                    let event = self.events.remove(&first).expect("it is the first");
                    self.happen(event);
                }
            }
            assert!(self.now < Time::from_millis(120_000), "the client never comes to rest");
        }
    }

    fn on_deadline(&mut self, deadline: Time) {
        self.now = self.now.max(deadline);
        self.step(Input::Deadline);
    }

    /// Every operation kept its word.
    fn check(&self, operations: u64, seed: u64) {
        for token in 1..=operations {
            let end = self
                .ends
                .get(&token)
                .unwrap_or_else(|| panic!("seed {seed}: {token} has no end"));
            let found = self.state.get(&key(token));
            let once = found.as_ref().is_none_or(|found| found.created == found.version);
            assert!(once, "seed {seed}: {token} took effect twice");
            match end {
                End::Done(Served::Done(done)) if matches!(done.answer, Answer::Written { .. }) => {
                    let version = found.map(|found| found.version);
                    assert_eq!(version, Some(done.revision), "seed {seed}: {token} is done");
                }
                End::Done(_) | End::Unknown(_) => {}
                End::NotDone(_) => assert!(found.is_none(), "seed {seed}: {token} is certainly not done: {end}"),
            }
            assert!(
                token % 4 != 0 || !matches!(end, End::Unknown(_)),
                "seed {seed}: a read is unknown"
            );
        }
    }
}

fn hello(endpoint: usize) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        kind: HelloKind::Node(NodeHello {
            node: NodeId(endpoint as u16 + 1),
            incarnation: Incarnation::default(),
            start: Start::default(),
            remembered: None,
            founded: true,
            advertise: String::new(),
            debug: String::new(),
            listed: Vec::new(),
            base: Base {
                slot: Slot::ZERO,
                digest: 0,
            },
            roster: Vec::new(),
            lease_ms: 0,
        }),
        cluster_name: String::new(),
        cluster_id: 1,
    }
}

#[test]
fn every_operation_keeps_its_word_whatever_happens_to_its_attempts() {
    let (mut done, mut not_done, mut unknown) = (0, 0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed);
        world.run(120);
        world.check(120, seed);
        for end in world.ends.values() {
            match end {
                End::Done(_) => done += 1,
                End::NotDone(_) => not_done += 1,
                End::Unknown(_) => unknown += 1,
            }
        }
    }
    // The world must have been hard enough to mean something, and not so hard that nothing got through.
    assert!(
        unknown > 10 && not_done > 2,
        "done={done} not_done={not_done} unknown={unknown}"
    );
    assert!(done > 150 * 60, "done={done} not_done={not_done} unknown={unknown}");
}

#[test]
fn once_the_faults_stop_everything_is_done() {
    for seed in 1_000..1_050 {
        let mut world = World::new(seed);
        world.now = FAULTS_END;
        world.run(100);
        let done = world.ends.values().filter(|end| matches!(end, End::Done(_))).count();
        assert_eq!(done, 100, "seed {seed}");
    }
}
