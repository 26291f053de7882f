//! Clients of a world, and what must hold of the answers that they get.
//!
//! Each client has a key that it alone writes, 1, 2, 3, …, and that all read. So linearizability is a matter of
//! comparing numbers: a read returns no less than what was acknowledged or read before it began, and no more than what
//! was begun. Writes alternate between `put` and `cas` of the value before, which fails if any write ran twice.

use super::World;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use synod::kv::{Answer, Done, Expect, Op, SessionRef, Versioned};
use synod::machine::RequestId;
use synod::paxos::{NodeId, Slot, Stance};
use synod::time::Time;
use synod::wire::{Outcome, Reply, Request, RequestOp, Served};

/// What is known of one key.
#[derive(Default)]
struct Register {
    /// The highest value that its writer began to write.
    begun: u64,
    /// The highest value acknowledged, or read.
    known: u64,
    /// Slot and revision with which each value was acknowledged.
    written: BTreeMap<u64, (Slot, u64)>,
    /// The version with which each value was read: the revision that wrote it.
    versions: BTreeMap<u64, u64>,
    /// Values that were certainly not written.
    dead: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Doing {
    Open,
    Write { value: u64, number: u64 },
    Read { key: usize, floor: u64 },
}

struct Client {
    session: SessionRef,
    numbers: u64,
    /// The last value that was acknowledged: what its key holds, as long as it does nothing.
    held: u64,
    attempts: BTreeMap<u64, Doing>,
    /// The operation that is open, and how often it was tried.
    open: Option<(Doing, u32)>,
    again_at: Time,
    done: u64,
}

pub(crate) struct Clients {
    clients: Vec<Client>,
    registers: Vec<Register>,
}

impl Clients {
    pub(crate) fn new(count: usize) -> Clients {
        let client = |number| Client {
            session: SessionRef {
                id: number as u128 + 1,
                opened: Slot::ZERO,
            },
            numbers: 0,
            held: 0,
            attempts: BTreeMap::new(),
            open: None,
            again_at: Time::ZERO,
            done: 0,
        };
        Clients {
            clients: (0..count).map(client).collect(),
            registers: (0..count).map(|_| Register::default()).collect(),
        }
    }

    /// Operations done, by client.
    pub(crate) fn done(&self) -> Vec<u64> {
        self.clients.iter().map(|client| client.done).collect()
    }

    /// Lets the world go on for so long, and asks it this and that.
    pub(crate) fn run(&mut self, world: &mut World, dice: &mut fastrand::Rng, span: Duration) {
        let until = world.now + span;
        while world.now < until {
            for number in 0..self.clients.len() {
                let client = &self.clients[number];
                if client.open.is_none() || world.now >= client.again_at {
                    self.act(world, dice, number);
                }
            }
            world.run_for(Duration::from_millis(5));
            for (_, id, reply) in std::mem::take(&mut world.replies) {
                self.on_reply(id, &reply, dice);
            }
        }
    }

    /// Begins something, or tries again what was begun, at any node: same session, same number.
    fn act(&mut self, world: &mut World, dice: &mut fastrand::Rng, number: usize) {
        let Some(node) = pick(world, dice) else { return };
        let (doing, tries) = match self.clients[number].open {
            Some((doing, tries)) => (doing, tries + 1),
            None => (self.begin(dice, number), 1),
        };
        let request = self.request(number, doing);
        let client = &mut self.clients[number];
        client.open = Some((doing, tries));
        // Nobody waits for ever: an attempt without an answer is made again.
        client.again_at = world.now + Duration::from_millis(dice.u64(20..1000));
        let attempt = client.attempts.len() as u64 + 1;
        client.attempts.insert(attempt, doing);
        let id = RequestId {
            connection: number as u64,
            request: attempt,
        };
        world.request(node, id, request);
    }

    fn begin(&mut self, dice: &mut fastrand::Rng, number: usize) -> Doing {
        let keys = self.registers.len();
        let client = &mut self.clients[number];
        if client.session.opened == Slot::ZERO {
            return Doing::Open;
        }
        if dice.bool() {
            let key = dice.usize(0..keys);
            let floor = self.registers[key].known;
            return Doing::Read { key, floor };
        }
        client.numbers += 1;
        self.registers[number].begun += 1;
        Doing::Write {
            value: self.registers[number].begun,
            number: client.numbers,
        }
    }

    fn request(&self, number: usize, doing: Doing) -> Request {
        let client = &self.clients[number];
        let text = |value: u64| Bytes::from(value.to_string());
        let (op, command) = match doing {
            Doing::Open => (RequestOp::Write(Op::Open), 0),
            Doing::Read { key, .. } => (RequestOp::Get { key: name(key) }, 0),
            Doing::Write { value, number: command } if command % 2 == 0 && client.held > 0 => {
                let op = Op::Cas {
                    key: name(number),
                    expect: Expect::Value(text(client.held)),
                    value: text(value),
                    want_previous: false,
                };
                (RequestOp::Write(op), command)
            }
            Doing::Write { value, number: command } => {
                let op = Op::Put {
                    key: name(number),
                    value: text(value),
                    if_absent: client.held == 0,
                    want_previous: false,
                };
                (RequestOp::Write(op), command)
            }
        };
        Request {
            deadline_ms: 1000,
            session: client.session,
            number: command,
            low: command,
            op,
        }
    }

    fn on_reply(&mut self, id: RequestId, reply: &Reply, dice: &mut fastrand::Rng) {
        let number = id.connection as usize;
        let doing = self.clients[number].attempts[&id.request];
        match &reply.outcome {
            Outcome::Done(Served::Done(done)) => self.on_done(number, doing, done),
            Outcome::Done(other) => panic!("{doing:?} of client {number} is answered {other:?}"),
            Outcome::NotDone { .. } => self.on_not_done(number, doing, dice),
            Outcome::Unknown { .. } => {}
        }
    }

    fn on_done(&mut self, number: usize, doing: Doing, done: &Done) {
        match (doing, &done.answer) {
            (Doing::Open, Answer::Opened { opened }) => {
                let session = &mut self.clients[number].session;
                let is_same = session.opened == Slot::ZERO || session.opened == *opened;
                assert!(is_same, "a living session is opened again, in slot {opened}");
                session.opened = *opened;
            }
            (Doing::Write { value, .. }, Answer::Written { .. }) => {
                let register = &mut self.registers[number];
                let written = (done.slot, done.revision);
                let first = *register.written.entry(value).or_insert(written);
                assert_eq!(first, written, "{value} of key {number} was written twice");
                register.note_version(value, done.revision);
                register.known = register.known.max(value);
                let client = &mut self.clients[number];
                client.held = client.held.max(value);
            }
            (Doing::Read { key, floor }, Answer::NotFound) => {
                assert_eq!(floor, 0, "key {key} was written, and a read finds nothing");
            }
            (Doing::Read { key, floor }, Answer::Found(found)) => self.registers[key].on_read(key, floor, found),
            (doing, answer) => panic!("{doing:?} of client {number} is answered {answer:?}"),
        }
        let client = &mut self.clients[number];
        if client.open.is_some_and(|(open, _)| open == doing) {
            (client.open, client.done) = (None, client.done + 1);
        }
    }

    /// Certainly not done, says one attempt. If it was the only one, the client may rely on it and never try again.
    fn on_not_done(&mut self, number: usize, doing: Doing, dice: &mut fastrand::Rng) {
        let client = &mut self.clients[number];
        let is_only_one = client.open == Some((doing, 1));
        match doing {
            Doing::Read { .. } if client.open.is_some_and(|(open, _)| open == doing) => client.open = None,
            Doing::Write { value, .. } if is_only_one && dice.bool() => {
                client.open = None;
                self.registers[number].dead.insert(value);
            }
            _ => {}
        }
    }
}

impl Register {
    fn on_read(&mut self, key: usize, floor: u64, found: &Versioned) {
        let value: u64 = (std::str::from_utf8(&found.value).ok())
            .and_then(|text| text.parse().ok())
            .expect("clients write numbers");
        assert!(value >= floor, "key {key}: a read went back from {floor} to {value}");
        assert!(value <= self.begun, "key {key}: {value} was never written");
        assert!(
            !self.dead.contains(&value),
            "key {key}: {value} was certainly not written, and is read"
        );
        self.note_version(value, found.version);
        self.known = self.known.max(value);
    }

    fn note_version(&mut self, value: u64, version: u64) {
        let first = *self.versions.entry(value).or_insert(version);
        assert_eq!(first, version, "value {value} was written by two revisions");
    }
}

/// Any node that runs; half of the time one that takes itself for the leader, rightly or not.
fn pick(world: &World, dice: &mut fastrand::Rng) -> Option<NodeId> {
    let mut nodes = world.ids();
    nodes.retain(|node| world.is_up(*node));
    let mut leaders = nodes.clone();
    leaders.retain(|node| {
        world
            .machine(*node)
            .is_some_and(|machine| matches!(machine.replica().stance(), Stance::Leader(_)))
    });
    let among = if leaders.is_empty() || dice.bool() {
        nodes
    } else {
        leaders
    };
    dice.choice(among)
}

fn name(key: usize) -> Bytes {
    Bytes::from(format!("key-{key}"))
}
