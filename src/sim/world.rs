//! The world: one loop over everything that happens, to nodes, clients and the network between them.
//!
//! A turn of a node is run when something is due; how long it took (its sync) says until when the node takes nothing in,
//! and what it said leaves at the times at which it would have. Nothing waits, nothing is drawn from anywhere but the
//! seed.

use super::asking::OldWrite;
use super::chance::{Chance, Stream};
use super::checks::Checks;
use super::client::{Mix, SimClient};
use super::clock::Clock;
use super::door::Shared;
use super::faults::Fault;
use super::links::Connection;
use super::network::{End, Network};
use super::node::SimNode;
use super::options::Options;
use super::queue::{Event, Queue};
use super::report::{Counts, Digest, Report, Violation};
use super::storm::Storm;
use super::transcript::{Scene, Transcript};
use crate::client::machine::Input as ClientInput;
use crate::machine::Settings;
use crate::machine::io::CLOCK_RATE_BOUND_PPM;
use crate::paxos::NodeId;
use crate::storage::scrub::Pace;
use crate::storage::sim::SimDisk;
use crate::time::Time;
use crate::workload::record::Recorder;
use bytes::Bytes;
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// One cluster in so many has leases.
const CLUSTERS_WITH_LEASES: u8 = 3;
/// Where the checksum stands in a frame.
const CRC_AT: usize = 4;

/// A cluster, its clients, and all that happens to them.
pub struct World {
    pub(super) now: Time,
    pub(super) options: Options,
    pub(super) chance: Chance,
    pub(super) queue: Queue,
    pub(super) network: Network,
    pub(super) nodes: Vec<SimNode>,
    pub(super) clients: Vec<SimClient>,
    pub(super) connections: BTreeMap<u64, Connection>,
    pub(super) shared: Shared,
    pub(super) storm: Storm,
    pub(super) recorder: Recorder,
    pub(super) old_writes: VecDeque<OldWrite>,
    digest: Digest,
}

impl World {
    /// The world of a seed, in which nothing has happened.
    pub fn new(options: &Options, transcript: Transcript) -> World {
        let chance = Chance::new(options.seed);
        let size = options.size();
        let clients = clients(options, size, chance);
        let shared = Shared {
            numbers: Rc::new(Cell::new(0)),
            checks: Rc::new(RefCell::new(
                Checks::new(size).tells(transcript.is_on()).overlooks(&options.overlook),
            )),
            counts: Rc::new(RefCell::new(Counts::default())),
            transcript,
        };
        let storm = Storm::new(options, chance);
        let mut world = World {
            now: Time::ZERO,
            queue: Queue::default(),
            network: Network::new(size, clients.len(), chance, options.luck),
            nodes: nodes(size, options, pace(&storm, chance), chance),
            clients,
            connections: BTreeMap::new(),
            shared,
            storm,
            recorder: Recorder::new(None, true).expect("without a file, nothing can fail"),
            old_writes: VecDeque::new(),
            digest: Digest::default(),
            options: options.clone(),
            chance,
        };
        world.arrange_beginning();
        world
    }

    fn arrange_beginning(&mut self) {
        for node in 0..self.nodes.len() {
            self.start_within(node, 200_000);
        }
        for client in 0..self.clients.len() {
            self.begin_lanes(client);
        }
        for (place, planned) in self.storm.plan.strikes.iter().enumerate() {
            if self.options.keeps_fault(planned.number) {
                self.queue.push(planned.at, Event::Strike(place));
            }
        }
        self.queue.push(Time::ZERO + self.options.storm, Event::StormEnds);
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(mut self) -> Result<Report, Violation> {
        let transcript = self.shared.transcript.clone();
        let ran = self.run_to_the_end();
        if let Err(violation) = &ran {
            let words = violation.to_string();
            transcript.tell(self.now, || Scene::Violation { words });
        }
        ran
    }

    fn run_to_the_end(&mut self) -> Result<Report, Violation> {
        while !self.is_over()? {
            let (at, event) = self.queue.pop().ok_or_else(|| Violation {
                rule: "liveness",
                words: "nothing will ever happen again".into(),
            })?;
            self.now = self.now.max(at);
            let happened = self.happen(event);
            // What a door found came before what was seen of its node behind the turn.
            if let Some(violation) = self.shared.checks.borrow_mut().take_found() {
                return Err(violation);
            }
            happened?;
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<Report, Violation> {
        let recorder = std::mem::replace(&mut self.recorder, Recorder::new(None, false).expect("without a file"));
        self.check_history(recorder)?;
        self.check_logs()?;
        let mut counts = self.shared.counts.borrow().clone();
        let short_writes = self.nodes.iter().map(SimNode::short_writes).sum();
        counts.faults(Fault::ShortWrite, short_writes);
        counts.slots = self.shared.checks.borrow().chosen_upto().0;
        for word in [counts.slots, counts.done, counts.not_done, counts.unknown] {
            self.digest.word(word);
        }
        Ok(Report {
            seed: self.options.seed,
            nodes: self.nodes.len(),
            digest: self.digest.value(),
            simulated: self.now.since(Time::ZERO),
            counts,
        })
    }

    /// A moment within the next `most_us` microseconds.
    pub(super) fn soon(&self, most_us: u64, rng: &mut Rng) -> Time {
        self.now + Duration::from_micros(rng.u64(0..=most_us))
    }

    /// An event of nobody in particular.
    pub(super) fn tell(&self, words: impl FnOnce() -> String) {
        let event = || Scene::Event {
            whose: None,
            words: words(),
        };
        self.shared.transcript.tell(self.now, event);
    }

    /// An event at a node or a client.
    pub(super) fn tell_of(&self, whose: End, words: impl FnOnce() -> String) {
        self.shared.transcript.event(self.now, whose, words);
    }

    pub(super) fn fault(&self, fault: Fault) {
        self.shared.counts.borrow_mut().fault(fault);
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let words = words_of(&event);
        match event {
            Event::Wake(node) if self.nodes[node].wake_at != Some(self.now) => return Ok(()),
            Event::ClientWake(client) if self.clients[client].wake_at != Some(self.now) => return Ok(()),
            _ => {}
        }
        self.shared.counts.borrow_mut().events += 1;
        self.shared.transcript.goes_on(self.now);
        self.digest.word(self.now.0);
        self.digest.word(words.0);
        self.digest.word(words.1);
        match event {
            Event::Wake(node) => {
                self.nodes[node].wake_at = None;
                self.wake(node)
            }
            Event::ClientWake(client) => {
                self.clients[client].wake_at = None;
                self.client_input(client, ClientInput::Deadline)
            }
            Event::Submit { client, life, lane } if self.clients[client].life == life => self.submit(client, lane),
            Event::Submit { .. } => Ok(()),
            Event::Connect(connection) => {
                self.on_connect(connection);
                Ok(())
            }
            Event::Connected { connection, refused } => self.on_connected(connection, refused),
            Event::DialTimeout(connection) => self.on_dial_timeout(connection),
            Event::Frame {
                connection,
                to_acceptor,
                bytes,
                sent,
            } => self.on_frame((connection, to_acceptor), bytes, sent),
            Event::Closed {
                connection,
                to_acceptor,
            } => self.on_closed(connection, to_acceptor),
            Event::Keepalive(connection) => self.on_keepalive(connection),
            Event::Start(node) => self.start(node),
            Event::Strike(place) => self.on_strike(place),
            Event::StormEnds => self.begin_finale(),
            Event::Loses { node, leader, until } => {
                self.lose_vote(node, leader, until);
                Ok(())
            }
            Event::Calm(relief) => self.relieve(relief),
            Event::Ghost { node, bytes } => self.on_ghost(node, bytes),
        }
    }
}

/// The clients that the seed drew, and of them those that the options leave. What they do does not hang on their number.
fn clients(options: &Options, nodes: usize, chance: Chance) -> Vec<SimClient> {
    let mut rng = chance.stream(Stream::Shape, 0, 1);
    let count = rng.usize(1..=5);
    let lanes: Vec<usize> = (0..count).map(|_| rng.usize(1..=3)).collect();
    let mix = Mix::draw(lanes.iter().sum(), &mut rng);
    let left = options.clients.unwrap_or(usize::MAX).max(1);
    let most = options.lanes.unwrap_or(usize::MAX).max(1);
    let lanes = lanes.into_iter().take(left).enumerate();
    lanes
        .map(|(name, lanes)| SimClient::new(name, lanes.min(most), nodes, mix.clone(), chance))
        .collect()
}

/// The pace of all nodes' scrub: off where nothing can rot.
fn pace(storm: &Storm, chance: Chance) -> Pace {
    let mut rng = chance.stream(Stream::Settings, 1, 0);
    let may_rot = storm.plan.kinds.has(Fault::BitRot);
    Pace {
        bytes_per_second: u64::from(may_rot) << rng.u32(17..22),
        rest: Duration::from_millis(rng.u64(200..3_000)),
    }
}

/// The nodes of a new cluster, with settings that meet their bounds often.
fn nodes(size: usize, options: &Options, pace: Pace, chance: Chance) -> Vec<SimNode> {
    let mut rng = chance.stream(Stream::Settings, 0, 0);
    let ids: Vec<NodeId> = (1..=size as u16).map(NodeId).collect();
    let batch_bytes = 1 << rng.u32(8..14);
    let window_slots = 1 << rng.u32(0..8);
    let cache_bytes = 1 << rng.u32(8..20);
    let queue_requests = if rng.u8(0..4) == 0 { rng.usize(1..10) } else { 1_000 };
    let segment_bytes = 1 << rng.u32(14..18);
    let snapshot_bytes = 1 << rng.u32(11..17);
    let part_bytes = (1 << rng.u32(8..20)).min(segment_bytes as usize / 8);
    let mut rng = chance.stream(Stream::Settings, 2, 0);
    let has_leases = rng.u8(0..CLUSTERS_WITH_LEASES) == 0;
    let drawn = if has_leases { rng.u64(150..1_000) } else { 0 };
    let read_lease = options.read_lease.unwrap_or(Duration::from_millis(drawn));
    ids.iter()
        .map(|id| {
            let settings = Settings {
                advertise: id.to_string(),
                batch_bytes,
                window_slots,
                window_bytes: 4 * batch_bytes,
                cache_bytes,
                part_bytes,
                queue_requests,
                disk_reserve: 16 << 10,
                read_lease,
                rules: options.rules,
                ..Settings::new(*id, ids.clone())
            };
            let mut rng = chance.stream(Stream::Node, id.0.into(), 0);
            let clock = Clock::new(Time::ZERO, Time(rng.u64(0..1 << 40)), 0);
            let disk = SimDisk::new(rng.u64(..)).named(&id.to_string());
            let (showed, off_by) = (Time(rng.u64(0..1 << 40)), clock_off_by(&mut rng));
            let clocks = (clock, Clock::new(Time::ZERO, showed, off_by));
            SimNode::new(settings, (segment_bytes, snapshot_bytes, pace), clocks, disk)
        })
        .collect()
}

/// A rate within the bound that leases count on, millionths.
pub(super) fn clock_off_by(rng: &mut Rng) -> i32 {
    let most = CLOCK_RATE_BOUND_PPM.cast_signed();
    rng.i32(-most..=most)
}

/// What the digest takes in of an event, beside its time.
fn words_of(event: &Event) -> (u64, u64) {
    let crc = |bytes: &Bytes| {
        let crc = bytes.get(CRC_AT..CRC_AT + 4).and_then(|crc| crc.try_into().ok());
        u64::from(crc.map_or(0, u32::from_be_bytes))
    };
    match event {
        Event::Wake(node) => (1, *node as u64),
        Event::ClientWake(client) => (2, *client as u64),
        Event::Submit { client, lane, .. } => (3, (client << 8 | lane) as u64),
        Event::Connect(connection) => (4, *connection),
        Event::Connected { connection, refused } => (5 + u64::from(*refused), *connection),
        Event::DialTimeout(connection) => (7, *connection),
        Event::Frame {
            connection,
            to_acceptor,
            bytes,
            sent: _,
        } => (8 + u64::from(*to_acceptor), connection << 32 | crc(bytes)),
        Event::Closed {
            connection,
            to_acceptor,
        } => (10 + u64::from(*to_acceptor), *connection),
        Event::Keepalive(connection) => (12, *connection),
        Event::Start(node) => (13, *node as u64),
        Event::Strike(place) => (14, *place as u64),
        Event::StormEnds => (17, 0),
        Event::Loses { node, .. } => (18, *node as u64),
        Event::Calm(_) => (15, 0),
        Event::Ghost { node, bytes } => (16, (*node as u64) << 32 | crc(bytes)),
    }
}
