//! Is a history linearizable? That is: could one node without any fault have given these answers, each at some moment
//! between question and answer? (Herlihy and Wing, "Linearizability", 1990.)
//!
//! Keys are independent of each other, and linearizability is local: a history is linearizable if and only if it is so
//! key by key. So each key is searched alone, first all with few steps, then those still open with ever more: one hard
//! key does not hide an easy contradiction in another.
//!
//! * [`model`]: what operations mean. [`zones`]: contradictions that are plain to see. [`mod@search`]: the search for the rest.
//! * [`shrink`]: the smallest contradicting group.
//! * `timeline`: that group as a picture. `command`: `synod check`.
//! * [`edn`]: Jepsen's other form of a history.
//!
//! Not here: how histories are written ([`super::history`]).

#[cfg(test)]
mod brute;
mod command;
pub mod edn;
pub mod model;
pub mod search;
pub mod shrink;
#[cfg(test)]
mod tests;
mod timeline;
pub mod zones;

pub use command::{CheckArgs, run};
pub(crate) use command::{code, object, words};

use super::history::{End, History, Operation};
use model::KeyHistory;
use search::{Limit, Outcome, search};
use serde_json::Value;
use std::fmt;
use std::time::{Duration, Instant};

/// Steps that every key gets in the first round; four times as many in each further one.
const FIRST_STEPS: u64 = 50_000;
/// Time for making a contradiction smaller, beside the time for finding it.
const SHRINK_TIME: Duration = Duration::from_secs(10);

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Operations in the history.
    pub operations: usize,
    /// Of these, failed ones: they claim nothing.
    pub failed: usize,
    /// Of these, ones whose outcome nobody knows.
    pub unknown: usize,
    /// Keys.
    pub keys: usize,
    /// States that the search tried.
    pub states: u64,
}

/// A contradiction on one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// The key.
    pub key: Value,
    /// Operations on it.
    pub operations: usize,
    /// Those that contradict each other, in the order of their calls.
    pub needed: Vec<Operation>,
    /// Other writes of the values in question, which do not help.
    pub aside: Vec<Operation>,
    /// Whether each of `needed` is really needed; false if there was no time to find out.
    pub minimal: bool,
}

/// What is known of a history.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Every key is linearizable.
    Linearizable(Checked),
    /// At least one is not.
    Violation(Checked, Box<Violation>),
    /// No contradiction was found in the time given; these keys are open.
    Undecided(Checked, Vec<Value>),
}

/// Checks a history for at most about `max_time`.
#[expect(
    clippy::disallowed_methods,
    reason = "bounds how long a search may take; no verdict hangs on it but `Undecided`"
)]
pub fn check(history: &History, max_time: Duration) -> Verdict {
    let begun = Instant::now();
    let out_of_time = || begun.elapsed() >= max_time;
    let keys = model::split(history);
    let mut checked = count(history, keys.len());
    for key in &keys {
        if let Some(group) = zones::contradiction(&key.ops) {
            let ops = shrink::reduced(&key.ops, &group);
            return found(history, checked, key, &ops);
        }
    }
    let mut open: Vec<&KeyHistory> = keys.iter().collect();
    let mut steps = FIRST_STEPS;
    while !open.is_empty() && !out_of_time() {
        let mut still_open = Vec::new();
        for key in open {
            let limit = Limit {
                steps,
                out_of_time: &out_of_time,
            };
            let (outcome, states) = search(&key.ops, &limit);
            checked.states += states;
            match outcome {
                Outcome::Linearizable => {}
                Outcome::Undecided => still_open.push(key),
                Outcome::Violation => return found(history, checked, key, &key.ops),
            }
        }
        open = still_open;
        steps = steps.saturating_mul(4);
    }
    if open.is_empty() {
        return Verdict::Linearizable(checked);
    }
    Verdict::Undecided(checked, open.iter().map(|key| key.key.clone()).collect())
}

fn count(history: &History, keys: usize) -> Checked {
    let ended = |end: &End| history.operations.iter().filter(|op| op.end == *end).count();
    Checked {
        operations: history.operations.len(),
        failed: ended(&End::Fail),
        unknown: ended(&End::Unknown),
        keys,
        states: 0,
    }
}

/// The verdict on a history with a key whose `ops`, all of them or a part, are a contradiction.
#[expect(
    clippy::disallowed_methods,
    reason = "bounds how long shrinking may take; the verdict does not hang on it"
)]
fn found(history: &History, checked: Checked, key: &KeyHistory, ops: &[model::Op]) -> Verdict {
    let begun = Instant::now();
    let group = shrink::shrink(ops, &|| begun.elapsed() >= SHRINK_TIME);
    let of = |origins: &[usize]| origins.iter().map(|at| history.operations[*at].clone()).collect();
    let violation = Violation {
        key: key.key.clone(),
        operations: key.ops.len(),
        needed: of(&group.needed),
        aside: of(&group.aside),
        minimal: group.minimal,
    };
    Verdict::Violation(checked, Box::new(violation))
}

impl Violation {
    /// The contradiction as a picture.
    pub fn svg(&self) -> String {
        timeline::svg(self)
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checked {
            operations,
            failed,
            unknown,
            keys,
            states,
        } = self;
        write!(
            f,
            "{operations} operations on {keys} keys ({unknown} unknown, {failed} failed), {states} states tried"
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, all) = (self.needed.len(), self.operations);
        writeln!(
            f,
            "key {}: {needed} of its {all} operations contradict each other:",
            timeline::shown(&self.key)
        )?;
        timeline::text(self, f)?;
        if !self.minimal {
            writeln!(f, " (there was no time to make this group smaller)")?;
        }
        Ok(())
    }
}
