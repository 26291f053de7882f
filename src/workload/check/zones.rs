//! Contradictions that can be read off without a search, in the time that sorting takes.
//!
//! Gibbons and Korach, "Testing Shared Memories" (1997): a value that only one operation can have written is there for
//! one stretch of time. What found it there bounds that stretch from within: it has begun at the earliest end of these
//! operations, and lasts to the latest of their calls. This is the value's *zone*. A contradiction, then, is
//! * a value that was found, and that nothing wrote, or only something that began later;
//! * two operations that both replaced the value;
//! * a replacement that ended before the zone did;
//! * two zones that overlap;
//! * an operation that began and ended within a zone, and that does not go with its value.
//!
//! This finds stale reads and lost writes on a key that hundreds of operations crowd at a time, where the search would
//! have to try all orders of them. It finds no contradiction where there is none; it does not find all there are.

use super::model::{ABSENT, Held, Leave, Need, Op};

/// What is known of one value.
#[derive(Clone, Debug)]
struct Traces {
    value: Held,
    /// Operations that can have written it, completed or unknown.
    writers: Vec<usize>,
    /// Completed operations that found it there.
    finders: Vec<usize>,
}

/// A stretch of time in which the value was there for certain, and the operations that say so.
#[derive(Clone, Copy, Debug)]
struct Zone {
    value: Held,
    /// `None`: from before all time, the value with which every key begins.
    from: Option<(u64, usize)>,
    to: (u64, usize),
}

/// Completed operations that contradict each other, as indexes into `ops`, if some can be seen to.
pub fn contradiction(ops: &[Op]) -> Option<Vec<usize>> {
    let traces = traces(ops);
    if let Some(group) = traces.iter().find_map(|traces| traces.contradiction(ops)) {
        return Some(group);
    }
    let mut zones: Vec<Zone> = traces.iter().filter_map(|traces| traces.zone(ops)).collect();
    zones.sort_unstable_by_key(|zone| (zone.begin(), zone.to.0));
    overlap(&zones).or_else(|| ops.iter().enumerate().find_map(|(at, op)| within(&zones, at, op)))
}

/// Two zones of different values that overlap.
fn overlap(zones: &[Zone]) -> Option<Vec<usize>> {
    // In the order of their beginnings, if any two overlap then so do two neighbours.
    zones.windows(2).find_map(|pair| {
        let [first, second] = pair else { return None };
        let overlap = second.begin() < Some(first.to.0);
        overlap.then(|| first.ends().chain(second.ends()).collect())
    })
}

/// A completed operation that took place within a zone and does not go with its value.
fn within(zones: &[Zone], at: usize, op: &Op) -> Option<Vec<usize>> {
    let end = op.end?;
    let zone = zones[..zones.partition_point(|zone| zone.begin() < Some(op.call))].last()?;
    let goes_with = op.step.need.is_met_by(zone.value) && op.step.leaves(zone.value) == zone.value;
    (end < zone.to.0 && !goes_with).then(|| zone.ends().chain([at]).collect())
}

fn traces(ops: &[Op]) -> Vec<Traces> {
    let highest = ops.iter().map(|op| op.step.highest().0).max().unwrap_or(0);
    let mut traces: Vec<Traces> = (0..=highest)
        .map(|value| Traces {
            value: Held(value),
            writers: Vec::new(),
            finders: Vec::new(),
        })
        .collect();
    for (at, op) in ops.iter().enumerate() {
        if let Leave::Set(value) = op.step.leave {
            traces[value.0 as usize].writers.push(at);
        }
        if let (Need::Is(value), Some(_)) = (op.step.need, op.end) {
            traces[value.0 as usize].finders.push(at);
        }
    }
    traces
}

impl Traces {
    fn contradiction(&self, ops: &[Op]) -> Option<Vec<usize>> {
        let first = self.finders.iter().copied().min_by_key(|at| ops[*at].end)?;
        let writer = match (self.value, self.writers.as_slice()) {
            (ABSENT, []) => None,
            (ABSENT, _) | (_, [_, _, ..]) => return None,
            (_, []) => return Some(vec![first]),
            (_, [writer]) => Some(*writer),
        };
        if writer.is_some_and(|writer| ops[first].end < Some(ops[writer].call)) {
            return Some(vec![first]);
        }
        let mut replacing = self
            .finders
            .iter()
            .copied()
            .filter(|at| ops[*at].step.leaves(self.value) != self.value);
        let replacing = (replacing.next(), replacing.next());
        if let (Some(one), Some(other)) = replacing {
            return Some(vec![one, other]);
        }
        let last = self.finders.iter().copied().max_by_key(|at| ops[*at].call)?;
        match replacing.0 {
            Some(replacing) if ops[replacing].end < Some(ops[last].call) => Some(vec![replacing, last]),
            _ => None,
        }
    }

    /// The value's zone, if only one operation can have written it and its traces are that far apart.
    fn zone(&self, ops: &[Op]) -> Option<Zone> {
        let begins_with_it = self.value == ABSENT && self.writers.is_empty();
        let written_once = self.value != ABSENT && self.writers.len() == 1;
        if !begins_with_it && !written_once {
            return None;
        }
        let traces = || self.finders.iter().chain(&self.writers).copied();
        let to = traces().map(|at| (ops[at].call, at)).max()?;
        let from = traces().filter_map(|at| ops[at].end.map(|end| (end, at))).min();
        if begins_with_it {
            return Some(Zone {
                value: self.value,
                from: None,
                to,
            });
        }
        let from = from.filter(|from| from.0 < to.0)?;
        Some(Zone {
            value: self.value,
            from: Some(from),
            to,
        })
    }
}

impl Zone {
    fn begin(&self) -> Option<u64> {
        self.from.map(|from| from.0)
    }

    fn ends(&self) -> impl Iterator<Item = usize> {
        self.from.map(|from| from.1).into_iter().chain([self.to.1])
    }
}
