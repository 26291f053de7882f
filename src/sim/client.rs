//! One simulated client: the client's own machine, with some operations at a time, drawn from its seed.
//!
//! Each of its places ("lanes") does one operation after the other, with a pause between. What they were answered becomes
//! the history that is checked at the end. Every operation draws from a stream of its own, so that one can be left out
//! without a change to what the others are.

use super::chance::{Chance, Stream};
use super::options::OpId;
use crate::client::machine::{ClientMachine, Effect, Input};
use crate::client::{End, Options, ReadsFrom};
use crate::kv::{Answer, Expect, Op};
use crate::paxos::Slot;
use crate::time::Time;
use crate::wire::{RequestOp, Served};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// Bits of a token that name the lane.
const LANE_BITS: u32 = 8;

/// What clients do, drawn once for all of them.
#[derive(Clone, Debug)]
pub struct Mix {
    /// Number of keys.
    pub keys: u64,
    /// Chances of get, put, delete, cas, and a read that may be stale.
    pub weights: [u32; 5],
    /// Longest pause between two operations of a lane, microseconds.
    pub pause_us: u64,
    /// Longest time that an operation may take, milliseconds.
    pub deadline_ms: u64,
    /// Bytes beyond the shortest that a value may have.
    pub padding: usize,
}

/// One client.
pub struct SimClient {
    /// Its machine.
    pub machine: ClientMachine,
    /// Its connections, by endpoint.
    pub connections: BTreeMap<usize, u64>,
    /// Counts its lives.
    pub life: u32,
    /// When it is to be woken next.
    pub wake_at: Option<Time>,
    /// What each lane has open.
    pub lanes: Vec<Option<RequestOp>>,
    /// How many operations each lane did in the finale.
    pub last_done: Vec<u32>,
    name: usize,
    mix: Mix,
    chance: Chance,
    /// Operations that each lane has come to, whether it began them or left them out.
    numbers: Vec<u32>,
    tokens: u64,
    /// The value seen last of each key: what a cas expects.
    seen: BTreeMap<u64, Bytes>,
    /// The highest slot that an answer has named: what a stale read may ask for.
    seen_slot: Slot,
}

impl SimClient {
    /// A client that has done nothing yet.
    pub fn new(name: usize, lanes: usize, nodes: usize, mix: Mix, chance: Chance) -> SimClient {
        SimClient {
            machine: machine(nodes, &mut chance.stream(Stream::Client, name as u64, 0)),
            connections: BTreeMap::new(),
            life: 0,
            wake_at: None,
            lanes: vec![None; lanes],
            last_done: vec![0; lanes],
            name,
            mix,
            chance,
            numbers: vec![0; lanes],
            tokens: 0,
            seen: BTreeMap::new(),
            seen_slot: Slot::ZERO,
        }
    }

    /// It dies, and another one takes its place, under another session, and knowing nothing.
    pub fn die(&mut self, nodes: usize) {
        self.life += 1;
        let mut rng = self.chance.stream(Stream::Client, self.name as u64, self.life.into());
        self.machine = machine(nodes, &mut rng);
        self.connections.clear();
        self.lanes.fill(None);
        self.wake_at = None;
    }

    /// The endpoint of a connection.
    pub fn endpoint_of(&self, connection: u64) -> Option<usize> {
        let mut all = self.connections.iter();
        all.find(|(_, number)| **number == connection)
            .map(|(endpoint, _)| *endpoint)
    }

    /// The node behind an endpoint.
    pub fn node_of(&self, endpoint: usize) -> usize {
        let address = self.machine.address(endpoint);
        let number = address
            .strip_prefix('n')
            .and_then(|number| number.parse::<usize>().ok());
        number.expect("every address in a simulated world is n and the node's id") - 1
    }

    /// How long a lane pauses before the operation that is its next.
    pub fn pause(&self, lane: usize) -> Duration {
        let mut rng = self.stream(self.next_id(lane));
        Duration::from_micros(rng.u64(0..=self.mix.pause_us))
    }

    /// The operation that is the next of a lane.
    pub fn next_id(&self, lane: usize) -> OpId {
        OpId {
            client: self.name as u32,
            lane: lane as u32,
            number: self.numbers[lane],
        }
    }

    /// A lane leaves out its next operation.
    pub fn leave_out(&mut self, lane: usize) {
        self.numbers[lane] += 1;
    }

    fn stream(&self, id: OpId) -> Rng {
        let lane = u64::from(id.client) << LANE_BITS | u64::from(id.lane);
        self.chance.stream(Stream::Operation, lane, id.number.into())
    }

    /// The next operation of a lane: what to submit. `patience`: how long it may take, if that is not to be drawn.
    pub fn next(&mut self, lane: usize, now: Time, patience: Option<Duration>) -> (RequestOp, Input) {
        let id = self.next_id(lane);
        let mut rng = self.stream(id);
        rng.u64(..); // the pause before it
        let drawn = Duration::from_millis(rng.u64(100..=self.mix.deadline_ms));
        let at_least = if patience.is_none() && rng.bool() {
            self.seen_slot
        } else {
            Slot::ZERO
        };
        let op = self.draw(id, at_least, &mut rng);
        self.numbers[lane] += 1;
        self.tokens += 1;
        let token = self.tokens << LANE_BITS | lane as u64;
        self.lanes[lane] = Some(op.clone());
        let deadline = now + patience.unwrap_or(drawn);
        let submit = Input::Submit {
            token,
            op: op.clone(),
            deadline,
        };
        (op, submit)
    }

    /// The lane of a token, which has ended, and its operation.
    pub fn ended(&mut self, token: u64, end: &End) -> (usize, Option<RequestOp>) {
        let lane = (token & ((1 << LANE_BITS) - 1)) as usize;
        let op = self.lanes[lane].take();
        if let End::Done(Served::Done(done)) = end {
            self.seen_slot = self.seen_slot.max(done.slot);
        }
        if let End::Done(Served::Done(done)) = end
            && let Answer::Found(found) | Answer::CasFailed { current: Some(found) } = &done.answer
        {
            let key = (token >> LANE_BITS) % self.mix.keys; // now and then the right one
            self.seen.insert(key, found.value.clone());
        }
        (lane, op)
    }

    /// Steps the machine.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.machine.step(now, input, &mut effects);
        effects
    }

    fn draw(&mut self, id: OpId, at_least: Slot, rng: &mut Rng) -> RequestOp {
        let number = rng.u64(0..self.mix.keys);
        let key = Bytes::from(format!("k{number}"));
        let want_previous = rng.u8(0..4) == 0;
        let mut chance = rng.u32(0..self.mix.weights.iter().sum());
        let kind = self
            .mix
            .weights
            .iter()
            .position(|weight| match chance.checked_sub(*weight) {
                Some(rest) => {
                    chance = rest;
                    false
                }
                None => true,
            });
        match kind {
            Some(0) | None => RequestOp::Get { key },
            Some(1) => RequestOp::Write(Op::Put {
                key,
                value: self.value(id, number, rng),
                if_absent: rng.u8(0..8) == 0,
                want_previous,
            }),
            Some(2) => RequestOp::Write(Op::Del { key, want_previous }),
            Some(4) => RequestOp::GetStale { key, at_least },
            Some(_) => {
                let expect = self.seen.get(&number).cloned().unwrap_or_default();
                RequestOp::Write(Op::Cas {
                    key,
                    expect: Expect::Value(expect),
                    value: self.value(id, number, rng),
                    want_previous,
                })
            }
        }
    }

    /// A value that nobody else ever writes.
    fn value(&mut self, id: OpId, key: u64, rng: &mut Rng) -> Bytes {
        let padding = "+".repeat(rng.usize(0..=self.mix.padding));
        let value = Bytes::from(format!("{id}{padding}"));
        self.seen.insert(key, value.clone());
        value
    }
}

impl Mix {
    /// Draws what clients with so many lanes together do, at a rate that leaves enough to check.
    pub fn draw(lanes: usize, rng: &mut Rng) -> Mix {
        let padding = if rng.bool() { rng.usize(0..4_000) } else { 0 };
        Mix {
            keys: rng.u64(2..=16),
            weights: [
                rng.u32(1..8),
                rng.u32(1..8),
                rng.u32(0..3),
                rng.u32(0..5),
                rng.u32(0..3),
            ],
            pause_us: lanes as u64 * rng.u64(20_000..60_000),
            deadline_ms: rng.u64(500..8_000),
            padding,
        }
    }
}

fn machine(nodes: usize, rng: &mut Rng) -> ClientMachine {
    let mut options = Options::new(rng.u64(..), rng.u128(..));
    options.attempt_timeout = Duration::from_millis(rng.u64(100..1_000));
    options.connect_timeout = Duration::from_millis(rng.u64(50..1_000));
    options.follow_leader = rng.u8(0..4) > 0;
    options.reads_from = if rng.bool() { ReadsFrom::Any } else { ReadsFrom::Leader };
    let endpoints = (1..=nodes).map(|node| format!("n{node}")).collect();
    ClientMachine::new(endpoints, options)
}
