//! What must hold in every state.

use crate::node::{Envelope, Node};
use crate::sights::{Sight, Sights};
use crate::world::{is_own, name};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use synod::paxos::{Ballot, Entry, EntryKind, Message, Slot};

/// A rule that a state can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// One value a slot over all time: chosen by votes on disk, or taken as chosen by anybody in any life.
    Agreement,
    /// What a node takes as chosen has been accepted by a quorum at one ballot, on disk.
    Durability,
    /// A promise and a vote are on disk before they are told, and no restart takes them back.
    Promise,
    /// One ballot and slot have one entry.
    OneEntry,
    /// Entries are applied in slot order.
    Order,
    /// The replica's own assertions hold.
    Assertion,
}

impl Check {
    /// All of them.
    pub(crate) const ALL: [Check; 6] = [
        Check::Agreement,
        Check::Durability,
        Check::Promise,
        Check::OneEntry,
        Check::Order,
        Check::Assertion,
    ];
}

/// A rule that was broken, in words.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) check: Check,
    pub(crate) words: String,
}

impl Broken {
    /// The replica's own assertion failed.
    pub(crate) fn assertion(panic: &(dyn Any + Send)) -> Broken {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Broken {
            check: Check::Assertion,
            words: format!("the node stops itself: {}", text.unwrap_or("it panicked")),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.words)
    }
}

/// What holds of one node alone, all that it broke: its disk, its memory and what it says fit together.
pub(crate) fn check_node<'a>(node: &Node, said: impl Iterator<Item = &'a Envelope>) -> Vec<Broken> {
    let mut broken = Vec::new();
    let mut is_broken = |check, words: String| {
        let words = format!("{} {words}", node.id);
        broken.push(Broken { check, words });
    };
    let (on_disk, promised) = (node.promised, node.replica.promised());
    if promised < on_disk {
        is_broken(
            Check::Promise,
            format!("promises {promised} only; its disk says {on_disk}"),
        );
    }
    if let Some(slot) = node.skipped {
        is_broken(Check::Order, format!("applied a later slot before slot {slot}"));
    }
    let mut proposed: BTreeMap<(Ballot, Slot), &Entry> = BTreeMap::new();
    for Envelope { message, .. } in said {
        match message {
            Message::Promise(promise) if promise.ballot > on_disk => {
                is_broken(
                    Check::Promise,
                    format!("told its promise of {} before it was on disk", promise.ballot),
                );
            }
            Message::Accepted { ballot, .. } if *ballot > on_disk => {
                is_broken(
                    Check::Promise,
                    format!("told its vote at {ballot} before it was on disk"),
                );
            }
            Message::Accept {
                ballot, slot, entry, ..
            } => {
                let before = proposed
                    .insert((*ballot, *slot), entry)
                    .filter(|before| *before != entry);
                if let Some(before) = before {
                    let (one, other) = (name(before), name(entry));
                    is_broken(
                        Check::OneEntry,
                        format!("proposes {one} and {other} for slot {slot} at ballot {ballot}"),
                    );
                }
            }
            _ => {}
        }
    }
    broken
}

/// Votes and values, numbered as they are met, so that sets of them are words and a quorum of three is a bit operation.
#[derive(Default)]
pub(crate) struct Votes {
    votes: Vec<(Slot, Ballot, Entry)>,
    values: Vec<(Slot, Entry)>,
}

/// What the checks over all nodes need of one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Its votes on disk, one bit each.
    votes: u64,
    /// What it ever took as chosen, one bit each.
    taken: u64,
}

impl Votes {
    pub(crate) fn facts(&mut self, node: &Node) -> Facts {
        let mut facts = Facts::default();
        for vote @ (slot, _, entry) in &node.votes {
            facts.votes |= 1 << number(&mut self.votes, vote.clone());
            number(&mut self.values, (*slot, entry.clone()));
        }
        let islands = node.replica.learner().islands_from(Slot(1));
        let islands = islands.map(|(slot, entry)| (slot, entry.clone()));
        for taken in node.applied.iter().cloned().chain(islands) {
            facts.taken |= 1 << number(&mut self.values, taken);
        }
        facts
    }

    /// One value a slot, and each on disk at a quorum: what of this the three nodes together break.
    pub(crate) fn check(&self, nodes: [&Facts; 3], slots: u64, sights: &mut Sights) -> Vec<Broken> {
        let [a, b, c] = nodes.map(|facts| facts.votes);
        let by_quorum = a & b | a & c | b & c;
        let taken = nodes.iter().fold(0, |all, facts| all | facts.taken);
        if by_quorum | taken == 0 {
            return Vec::new();
        }
        let chosen = self.values_of(by_quorum, sights);
        let agreement = self.check_agreement(chosen | taken, nodes);
        let durability = self.check_durability(taken & !chosen, nodes);
        let broken: Vec<Broken> = agreement.into_iter().chain(durability).collect();
        if broken.is_empty() && u64::from(chosen.count_ones()) == slots {
            sights.insert(Sight::AllChosen);
        }
        broken
    }

    /// The values of a set of votes.
    fn values_of(&self, votes: u64, sights: &mut Sights) -> u64 {
        let mut values = 0_u64;
        for (slot, ballot, entry) in of(&self.votes, votes) {
            let value = self
                .values
                .iter()
                .position(|value| value.0 == *slot && value.1 == *entry);
            let bit = 1 << value.expect("every vote's value is numbered");
            if values & bit != 0 {
                sights.insert(Sight::ChosenTwice);
            }
            if entry.kind == EntryKind::Batch && !is_own(*ballot, entry) {
                sights.insert(Sight::ChosenAtHigherBallot);
            }
            values |= bit;
        }
        values
    }

    fn check_agreement(&self, values: u64, nodes: [&Facts; 3]) -> Option<Broken> {
        let mut by_slot: BTreeMap<Slot, &Entry> = BTreeMap::new();
        for (slot, entry) in of(&self.values, values) {
            if let Some(other) = by_slot.insert(*slot, entry) {
                let who = self.who(*slot, nodes);
                let words = format!("slot {slot} has {} and {}: {who}", name(other), name(entry));
                let check = Check::Agreement;
                return Some(Broken { check, words });
            }
        }
        None
    }

    fn check_durability(&self, unproven: u64, nodes: [&Facts; 3]) -> Option<Broken> {
        let (slot, entry) = of(&self.values, unproven).next()?;
        let words = format!(
            "no quorum has {} for slot {slot} on disk: {}",
            name(entry),
            self.who(*slot, nodes)
        );
        let check = Check::Durability;
        Some(Broken { check, words })
    }

    /// Who voted for what in `slot`, and took what as chosen.
    pub(crate) fn who(&self, slot: Slot, nodes: [&Facts; 3]) -> String {
        let mut words = Vec::new();
        for (node, facts) in (1..).zip(nodes) {
            let votes = of(&self.votes, facts.votes).filter(|(voted, ..)| *voted == slot);
            words.extend(votes.map(|(_, ballot, entry)| format!("n{node} voted {} at {ballot}", name(entry))));
            let taken = of(&self.values, facts.taken).filter(|(taken, _)| *taken == slot);
            words.extend(taken.map(|(_, entry)| format!("n{node} takes {} as chosen", name(entry))));
        }
        words.join(", ")
    }
}

/// The items of a set of numbers.
fn of<T>(list: &[T], set: u64) -> impl Iterator<Item = &T> {
    list.iter()
        .enumerate()
        .filter(move |(number, _)| set & 1 << number != 0)
        .map(|(_, item)| item)
}

/// The number of `item` in `list`, which it is added to if it is new.
fn number<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    let known = list.iter().position(|known| *known == item);
    let number = known.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    });
    assert!(number < 64, "a small world has few votes: a bit each");
    number
}
