//! What strikes when: a schedule that hangs on its seed alone.
//!
//! Strikes are dealt from a deck that holds every kind once, shuffled anew when it is used up: no kind is missing from a
//! run that is long enough for one deck. A strike names *places*, not nodes: the driver seats the nodes, so that a strike
//! that aims at the leader finds it, and the schedule needs to know nothing of the cluster. Invariants:
//! * At most a minority of places is struck at a time, but by [`Kind::KillAll`] and now and then by one strike that goes
//!   beyond on purpose. (Links are cut without regard to that.)
//! * A place that is struck is not struck again before its strike is over, but by [`Kind::KillAll`].
//!
//! Not here: carrying strikes out, and who really lived meanwhile ([`super::book`]).

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Time from one strike to the next, milliseconds.
const NEXT_MS: (u64, u64) = (250, 650);
/// How long a strike lasts, milliseconds.
const LASTS_MS: (u64, u64) = (200, 1500);
/// One strike in so many hits more than a minority.
const BEYOND_ONE_IN: u32 = 10;

/// A kind of strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, and a new start.
    Kill,
    /// SIGTERM, a clean end, and a new start.
    Restart,
    /// `kill -9` of all nodes, and a new start of all at once.
    KillAll,
    /// SIGSTOP, then SIGCONT: the node goes on with an old view of the world.
    Stop,
    /// The acceptor fails, and restarts from the disk.
    Acceptor,
    /// A link is cut, both ways.
    Cut,
    /// A link is cut one way: one hears and is not heard.
    CutOneWay,
    /// Some nodes are cut off from all others, and not from each other.
    Partition,
    /// Messages of a link are late.
    Delay,
    /// A share of the messages of a link is lost.
    Loss,
    /// Every sync of a node takes longer.
    SlowSync,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Kill,
        Kind::Restart,
        Kind::KillAll,
        Kind::Stop,
        Kind::Acceptor,
        Kind::Cut,
        Kind::CutOneWay,
        Kind::Partition,
        Kind::Delay,
        Kind::Loss,
        Kind::SlowSync,
    ];

    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::Restart => "clean restart",
            Kind::KillAll => "kill -9 of all at once",
            Kind::Stop => "SIGSTOP and SIGCONT",
            Kind::Acceptor => "acceptor failure",
            Kind::Cut => "link cut",
            Kind::CutOneWay => "link cut one way",
            Kind::Partition => "partition",
            Kind::Delay => "late link",
            Kind::Loss => "lossy link",
            Kind::SlowSync => "slow disk",
        }
    }

    /// Whether whom it strikes cannot be counted on meanwhile. (A partition is cut links, one by one.)
    pub fn fells_nodes(self) -> bool {
        matches!(
            self,
            Kind::Kill | Kind::Restart | Kind::KillAll | Kind::Stop | Kind::Acceptor | Kind::Partition
        )
    }

    fn is_of_a_link(self) -> bool {
        matches!(self, Kind::Cut | Kind::CutOneWay | Kind::Delay | Kind::Loss)
    }
}

/// One strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// When, from the beginning.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// Whether the first place should be the leader's.
    pub aims_at_leader: bool,
    /// Whom; of a link, its two ends.
    pub places: Vec<usize>,
    /// How long.
    pub lasts: Duration,
    /// How hard, 0..100: how late, how lossy, how slow, which way.
    pub strength: u8,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:?}", self.kind.name(), self.lasts)
    }
}

/// All strikes of a run of `duration` against `nodes` nodes, in order of time.
pub fn draw(seed: u64, nodes: usize, duration: Duration) -> Vec<Strike> {
    let mut dealer = Dealer {
        dice: fastrand::Rng::with_seed(seed),
        nodes,
        deck: Vec::new(),
        struck: Vec::new(),
    };
    let mut strikes = Vec::new();
    let mut at = dealer.span(NEXT_MS);
    while at < duration {
        let strike = dealer.deal(at);
        at = strike.at + dealer.span(NEXT_MS);
        strikes.push(strike);
    }
    strikes.retain(|strike| strike.at < duration); // one that waited for its turn may have waited too long
    strikes
}

struct Dealer {
    dice: fastrand::Rng,
    nodes: usize,
    deck: Vec<Kind>,
    /// Places that are struck, and until when.
    struck: Vec<(usize, Duration)>,
}

impl Dealer {
    fn span(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(self.dice.u64(low..=high))
    }

    fn deal(&mut self, at: Duration) -> Strike {
        if self.deck.is_empty() {
            self.deck = Kind::ALL.to_vec();
            // With fewer than two nodes there is no link.
            self.deck
                .retain(|kind| self.nodes > 1 || !(kind.is_of_a_link() || *kind == Kind::Partition));
            self.dice.shuffle(&mut self.deck);
        }
        let kind = self
            .deck
            .pop()
            .expect("a deck was just made, and a kill is always in it");
        let (at, places) = match kind {
            Kind::KillAll => (at, (0..self.nodes).collect()),
            _ if kind.is_of_a_link() => (at, self.some(at, 2, true)),
            Kind::SlowSync => (at, self.some(at, 1, true)),
            _ => self.victims(at),
        };
        let strike = Strike {
            at,
            kind,
            aims_at_leader: self.dice.bool(),
            places,
            lasts: self.span(LASTS_MS),
            strength: self.dice.u8(0..100),
        };
        if kind.fells_nodes() {
            let until = at + strike.lasts;
            self.struck.extend(strike.places.iter().map(|place| (*place, until)));
        }
        strike
    }

    /// Whom to strike down: a minority at most, counting those who are down; if there is no more, it waits until there
    /// is.
    fn victims(&mut self, mut at: Duration) -> (Duration, Vec<usize>) {
        let minority = (self.nodes - 1) / 2;
        let is_beyond = self.dice.u32(0..BEYOND_ONE_IN) == 0;
        let most = if is_beyond { self.nodes } else { minority.max(1) };
        loop {
            self.struck.retain(|(_, until)| *until > at);
            let down: BTreeSet<usize> = self.struck.iter().map(|(place, _)| *place).collect();
            if let Some(spare) = most.checked_sub(down.len()).filter(|spare| *spare > 0) {
                let count = self.dice.usize(1..=spare);
                return (at, self.some(at, count, false));
            }
            at = self.struck.iter().map(|(_, until)| *until).min().unwrap_or(at);
        }
    }

    /// So many places, those that are down among them or not.
    fn some(&mut self, at: Duration, count: usize, with_struck: bool) -> Vec<usize> {
        let is_down = |place: usize| self.struck.iter().any(|(of, until)| *of == place && *until > at);
        let mut places: Vec<usize> = (0..self.nodes)
            .filter(|place| with_struck || !is_down(*place))
            .collect();
        self.dice.shuffle(&mut places);
        places.truncate(count);
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_draws_one_schedule() {
        let minute = Duration::from_secs(60);
        assert_eq!(draw(7, 5, minute), draw(7, 5, minute));
        assert_ne!(draw(7, 5, minute), draw(8, 5, minute));
    }

    #[test]
    fn ten_seconds_hold_every_kind_and_strikes_come_in_order() {
        for seed in 0..200 {
            let strikes = draw(seed, 5, Duration::from_secs(10));
            let kinds: BTreeSet<Kind> = strikes.iter().map(|strike| strike.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed}: {kinds:?}");
            assert!(strikes.is_sorted_by_key(|strike| strike.at), "seed {seed}");
        }
    }

    #[test]
    fn mostly_a_minority_is_down_and_nobody_is_felled_twice_at_once() {
        let strikes = draw(3, 5, Duration::from_secs(3600));
        let (mut beyond, mut felled) = (0, 0);
        for (index, strike) in strikes.iter().enumerate() {
            if !strike.kind.fells_nodes() || strike.kind == Kind::KillAll {
                continue;
            }
            felled += 1;
            let before = strikes[..index]
                .iter()
                .filter(|other| other.kind.fells_nodes() && other.at + other.lasts > strike.at);
            let mut down: Vec<usize> = before.flat_map(|other| other.places.clone()).collect();
            assert!(strike.places.iter().all(|place| !down.contains(place)), "{strike:?}");
            down.extend(&strike.places);
            let down: BTreeSet<usize> = down.into_iter().collect();
            beyond += u32::from(down.len() > 2);
        }
        assert!(
            felled > 1000 && beyond > 10 && beyond * 4 < felled,
            "{beyond} of {felled}"
        );
    }

    #[test]
    fn a_single_node_has_no_links_to_cut() {
        let strikes = draw(1, 1, Duration::from_secs(60));
        assert!(
            strikes
                .iter()
                .all(|strike| !strike.kind.is_of_a_link() && strike.places == [0])
        );
    }
}
