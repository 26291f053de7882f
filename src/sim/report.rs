//! What came of a run: what happened how often, and the digest over all events.

use super::faults::Fault;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule is broken, in a word or two.
    pub rule: &'static str,
    /// How, with the numbers.
    pub words: String,
}

/// A run that held.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Digest over all events.
    pub digest: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What happened.
    pub counts: Counts,
}

/// How often things happened.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Things that happened at a moment of their own.
    pub events: u64,
    /// Turns of nodes.
    pub turns: u64,
    /// Operations that were done.
    pub done: u64,
    /// Operations that were certainly not done.
    pub not_done: u64,
    /// Operations whose fate nobody knows.
    pub unknown: u64,
    /// Keys on which the search for an order of the operations took too long.
    pub undecided: u64,
    /// Slots chosen.
    pub slots: u64,
    /// Faults, by kind.
    faults: BTreeMap<Fault, u64>,
    /// What nodes said of themselves, and other things worth a number.
    marks: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// A fault really happened.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// A fault happened so many times.
    pub fn faults(&mut self, fault: Fault, times: u64) {
        if times > 0 {
            *self.faults.entry(fault).or_default() += times;
        }
    }

    /// Something else happened.
    pub fn mark(&mut self, name: &'static str) {
        *self.marks.entry(name).or_default() += 1;
    }

    /// How often a fault happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    /// Operations in all.
    pub fn operations(&self) -> u64 {
        self.done + self.not_done + self.unknown
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.events += other.events;
        self.turns += other.turns;
        self.done += other.done;
        self.not_done += other.not_done;
        self.unknown += other.unknown;
        self.undecided += other.undecided;
        self.slots += other.slots;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (name, count) in &other.marks {
            *self.marks.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults that happened:")?;
        for fault in Fault::ALL {
            writeln!(f, "  {:<24}{:>12}", fault.name(), self.of(fault))?;
        }
        writeln!(f, "beside them:")?;
        for (name, count) in &self.marks {
            writeln!(f, "  {name:<24}{count:>12}")?;
        }
        writeln!(f, "  {:<24}{:>12}", "slots chosen", self.slots)?;
        writeln!(f, "  {:<24}{:>12}", "keys undecided", self.undecided)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.words)
    }
}

impl std::error::Error for Violation {}

/// A digest over words, in their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest(u64);

impl Digest {
    /// Takes in a word.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    /// The digest of all words so far.
    pub fn value(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}
