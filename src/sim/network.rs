//! What happens to frames on their way: who hears whom, and the weather.
//!
//! Between nodes a frame may be lost, doubled, delayed or overtaken, each on its own: more than a TCP connection would
//! do, and agreement must bear it. Three things are left as TCP has them. A FORWARD is not doubled: its answer "not done"
//! speaks for that one frame, and a copy that arrives later would make a lie of it (seed 100351 did, by a deletion that
//! was told to be not done). A ROSTER is not lost while its link lives, be it cut for a while: it is told again only on a
//! new link, and founding would wait for ever (seeds 3093637150, 2330709280). Frames of clients come in order, late, or (while cut) not at all.

use super::chance::{Chance, Stream};
use super::faults::{Fault, FaultSet};
use super::report::Counts;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::FrameType;
use fastrand::Rng;
use std::fmt;
use std::time::Duration;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A node, by its place.
    Node(usize),
    /// A client, by its place.
    Client(usize),
}

/// How frames between nodes fare at present.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Chance in 1000 that one is lost.
    pub loss: u16,
    /// Chance in 1000 that one arrives twice.
    pub duplicate: u16,
    /// Chance in 1000 that one overtakes those before it.
    pub reorder: u16,
    /// Chance in 1000 that one takes far longer.
    pub long: u16,
    /// How much longer, at most, microseconds.
    pub long_us: u64,
    /// Shortest time under way, microseconds.
    pub least_us: u64,
    /// Longest usual time under way, microseconds.
    pub most_us: u64,
}

/// The network.
#[derive(Debug)]
pub struct Network {
    /// The weather between nodes.
    pub weather: Weather,
    nodes: usize,
    /// Since when what one node sends to another does not arrive.
    cut: Vec<Option<Time>>,
    /// Clients that do not reach a node.
    client_cut: Vec<bool>,
    /// By sender and receiver: where the fate of what is on this way is drawn from.
    links: Vec<Rng>,
}

/// When copies of a frame arrive: none, one or two; and whether the frame keeps its place among others.
pub struct Fate {
    /// Delays.
    pub delays: [Option<Duration>; 2],
    /// Whether it may overtake what was sent before it.
    pub overtakes: bool,
}

impl End {
    /// The end that a node is.
    pub fn of(node: NodeId) -> End {
        End::Node(usize::from(node.0) - 1)
    }

    /// A number that no other end has, however many there are.
    fn name(self) -> u64 {
        match self {
            End::Node(place) => place as u64,
            End::Client(place) => 1 << 32 | place as u64,
        }
    }
}

impl Weather {
    /// As between machines of one room.
    pub fn calm(rng: &mut Rng) -> Weather {
        let least_us = rng.u64(20..200);
        Weather {
            least_us,
            most_us: least_us + rng.u64(10..300),
            ..Weather::default()
        }
    }

    /// A storm of the enabled kinds.
    pub fn storm(enabled: FaultSet, rng: &mut Rng) -> Weather {
        let mut weather = Weather::calm(rng);
        let mut chance = |fault: Fault, most: u16| {
            let (drawn, happens) = (rng.u16(1..=most), rng.u8(0..3) > 0);
            if enabled.has(fault) && happens { drawn } else { 0 }
        };
        weather.loss = chance(Fault::Loss, 300);
        weather.duplicate = chance(Fault::Duplicate, 300);
        weather.reorder = chance(Fault::Reorder, 500);
        weather.long = chance(Fault::LongDelay, 100);
        weather.long_us = 1 << rng.u32(10..22);
        if rng.u8(0..4) == 0 {
            weather.most_us += 1 << rng.u32(8..17);
        }
        weather
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.least_us, self.most_us);
        write!(
            f,
            "{least} to {most} us under way; of 1000 messages {} are lost",
            self.loss
        )?;
        write!(f, ", {} doubled, {} overtake others", self.duplicate, self.reorder)?;
        write!(f, ", {} take up to {} ms longer", self.long, self.long_us / 1000)
    }
}

impl Network {
    /// Everybody hears everybody. Another `luck` means other fates on the way.
    pub fn new(nodes: usize, clients: usize, chance: Chance, luck: u32) -> Network {
        let ends: Vec<End> = (0..nodes).map(End::Node).chain((0..clients).map(End::Client)).collect();
        let ways = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
        Network {
            weather: Weather::calm(&mut chance.stream(Stream::Weather, 0, 0)),
            nodes,
            cut: vec![None; nodes * nodes],
            client_cut: vec![false; nodes * clients],
            links: ways
                .map(|(from, to)| chance.stream(Stream::Link, from.name(), u64::from(luck) << 40 | to.name()))
                .collect(),
        }
    }

    /// Where the fate of what `from` sends to `to` is drawn from.
    fn link(&mut self, (from, to): (End, End)) -> &mut Rng {
        let ends = self.links.len().isqrt();
        let nodes = self.nodes;
        let place = |end: End| match end {
            End::Node(place) => place,
            End::Client(place) => nodes + place,
        };
        &mut self.links[place(from) * ends + place(to)]
    }

    /// Whether what `from` sends reaches `to`.
    pub fn reaches(&self, from: End, to: End) -> bool {
        match (from, to) {
            (End::Node(from), End::Node(to)) => self.cut[from * self.nodes + to].is_none(),
            (End::Client(client), End::Node(node)) | (End::Node(node), End::Client(client)) => {
                !self.client_cut[client * self.nodes + node]
            }
            (End::Client(_), End::Client(_)) => false,
        }
    }

    /// What `from` sends to `to` is lost from now on.
    pub fn cut(&mut self, from: usize, to: usize, now: Time) {
        self.cut[from * self.nodes + to].get_or_insert(now);
    }

    /// It arrives again.
    pub fn join(&mut self, from: usize, to: usize) {
        self.cut[from * self.nodes + to] = None;
    }

    /// Client and node hear each other, or do not.
    pub fn set_client_cut(&mut self, client: usize, node: usize, is_cut: bool) {
        self.client_cut[client * self.nodes + node] = is_cut;
    }

    /// All nodes hear each other again.
    pub fn heal(&mut self) {
        self.cut.fill(None);
    }

    /// All clients reach all nodes again.
    pub fn heal_clients(&mut self) {
        self.client_cut.fill(false);
    }

    /// What will become of a frame from node to node.
    pub fn fate(&mut self, way: (End, End), frame: FrameType, counts: &mut Counts) -> Fate {
        let mut weather = self.weather;
        let rng = self.link(way);
        match frame {
            FrameType::Forward => weather.duplicate = 0,
            FrameType::Roster => weather.loss = 0,
            _ => {}
        }
        let mut happens = |chance: u16, fault: Fault, rng: &mut Rng| {
            let happens = chance > 0 && rng.u16(0..1000) < chance;
            if happens {
                counts.fault(fault);
            }
            happens
        };
        if happens(weather.loss, Fault::Loss, rng) {
            return Fate {
                delays: [None, None],
                overtakes: false,
            };
        }
        let mut delay = usual(&weather, rng);
        if happens(weather.long, Fault::LongDelay, rng) {
            delay += Duration::from_micros(rng.u64(0..=weather.long_us));
        }
        let copy = happens(weather.duplicate, Fault::Duplicate, rng).then(|| {
            // At once, before anybody else has answered, or when it is an old story.
            let most_us = if rng.bool() {
                weather.most_us
            } else {
                2 * weather.long_us
            };
            delay + Duration::from_micros(rng.u64(0..=most_us))
        });
        Fate {
            delays: [Some(delay), copy],
            overtakes: happens(weather.reorder, Fault::Reorder, rng),
        }
    }

    /// How long anything else takes: dials, words of closing, what clients and nodes say to each other.
    pub fn delay(&mut self, way: (End, End)) -> Duration {
        let weather = self.weather;
        usual(&weather, self.link(way))
    }
}

fn usual(weather: &Weather, rng: &mut Rng) -> Duration {
    Duration::from_nanos(rng.u64(weather.least_us * 1000..=weather.most_us * 1000))
}
