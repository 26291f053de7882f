//! Out of a key's operations that contradict each other, the smallest group that still does.
//!
//! A history stays a contradiction when it is made longer, so the search finds the shortest beginning that is one. Then
//! operations are made weaker, as many at once as go: a read is left out, a write becomes unknown. What is left cannot be
//! made weaker: each of its operations is needed for the contradiction.

use super::model::{Leave, Need, Op};
use super::search::{Limit, Outcome, search};

/// States to try for one question while shrinking: an answer that takes longer is not worth waiting for.
const STEPS_PER_QUESTION: u64 = 200_000;

/// Operations that contradict each other, as indexes into the history, in the order of their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Those whose results are needed for the contradiction.
    pub needed: Vec<usize>,
    /// Other writes of the values in question; they do not help, whenever they took effect.
    pub aside: Vec<usize>,
    /// Whether time was left to leave out all that can be.
    pub minimal: bool,
}

/// Shrinks `ops`, which are known to be a violation, for as long as there is time.
pub fn shrink(ops: &[Op], out_of_time: &dyn Fn() -> bool) -> Group {
    let question = Question { out_of_time };
    let mut left = question.shortest_beginning(ops);
    // Reads go first: "written, overwritten, and read again" tells more than what other reads saw meanwhile.
    let is_read = |op: &Op| op.step.leave == Leave::Same;
    let minimal = question.weaken(&mut left, is_read) && question.weaken(&mut left, |op| op.end.is_some());
    group(&left, minimal)
}

/// The operations with only those at `kept` as they are, and all others made as weak as can be.
pub fn reduced(ops: &[Op], kept: &[usize]) -> Vec<Op> {
    let weaken = |(at, op): (usize, &Op)| if kept.contains(&at) { Some(*op) } else { op.opened() };
    ops.iter().enumerate().filter_map(weaken).collect()
}

struct Question<'a> {
    out_of_time: &'a dyn Fn() -> bool,
}

impl Question<'_> {
    fn is_violation(&self, ops: &[Op]) -> bool {
        let limit = Limit {
            steps: STEPS_PER_QUESTION,
            out_of_time: self.out_of_time,
        };
        search(ops, &limit).0 == Outcome::Violation
    }

    fn shortest_beginning(&self, ops: &[Op]) -> Vec<Op> {
        let mut ends: Vec<u64> = ops.iter().filter_map(|op| op.end).collect();
        ends.sort_unstable();
        // The whole is a violation; whether a beginning is one rises with its length.
        let shortest = ends.partition_point(|end| !self.is_violation(&until(ops, *end)));
        match ends.get(shortest) {
            Some(end) => until(ops, *end),
            // A question took too long to be answered.
            None => ops.to_vec(),
        }
    }

    /// Weakens runs of those operations that `may` be, halving the runs' length, until single ones. False if time ran
    /// out before.
    fn weaken(&self, left: &mut Vec<Op>, may: impl Fn(&Op) -> bool) -> bool {
        let mut length = left.len().div_ceil(2).max(1);
        loop {
            let mut weakened = false;
            let mut from = 0;
            while from < left.len() {
                if (self.out_of_time)() {
                    return false;
                }
                let to = (from + length).min(left.len());
                let run = left[from..to].iter();
                let weaker: Vec<Op> = run
                    .filter_map(|op| if may(op) { op.opened() } else { Some(*op) })
                    .collect();
                let next = from + weaker.len();
                let candidate = [&left[..from], &weaker, &left[to..]].concat();
                let changed = candidate != *left;
                if changed && self.is_violation(&candidate) {
                    *left = candidate;
                    weakened = true;
                    from = next;
                } else {
                    from = to;
                }
            }
            if length > 1 {
                length = length.div_ceil(2);
            } else if !weakened {
                return true;
            }
        }
    }
}

/// What could be seen of the operations until `time`: what began later is left out, what ended later is unknown.
fn until(ops: &[Op], time: u64) -> Vec<Op> {
    ops.iter()
        .filter(|op| op.call <= time)
        .filter_map(|op| if op.end > Some(time) { op.opened() } else { Some(*op) })
        .collect()
}

fn group(left: &[Op], minimal: bool) -> Group {
    let needed: Vec<&Op> = left.iter().filter(|op| op.end.is_some()).collect();
    // A write that could not have met any of their needs would only hide the point.
    let helps = |op: &Op, needy: &Op| {
        let met = |there| needy.step.need != Need::Any && needy.step.need.is_met_by(there);
        matches!(op.step.leave, Leave::Set(held) if met(held))
    };
    let aside = left.iter().filter(|op| op.end.is_none());
    let aside = aside.filter(|op| needed.iter().any(|needy| helps(op, needy)));
    Group {
        needed: needed.iter().map(|op| op.origin).collect(),
        aside: aside.map(|op| op.origin).collect(),
        minimal,
    }
}
