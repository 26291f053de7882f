//! A failing run is made small: fewer nodes, clients, faults and operations, while it still fails by the same rule.
//!
//! Nothing clever: leave something out, run again, keep what still fails. Lists (the faults of the plan, the operations)
//! are cut by halves, then by ever smaller parts: the complements of delta debugging (Zeller and Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", 2002). It works because what is left draws the same as before
//! ([`chance`](super::chance)). Invariants:
//! * H1. The smallest run fails by the rule by which the first one failed.
//! * H2. The same options and budget end in the same smallest run: a budget is counted in runs and events, not in time.
//!
//! Not here: what is told of the smallest run ([`transcript`](super::transcript), [`mermaid`](super::mermaid)).

use super::faults::{Fault, FaultSet};
use super::options::{OpId, Options};
use super::plan::{Plan, Strike};
use super::report::{Report, Violation};
use super::transcript::{Happened, Transcript};
use super::{PANIC, attempt, chance::Chance, words};
use crate::time::Time;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// How much may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Runs.
    pub runs: u32,
    /// Events of all runs together; the run under way when they are spent is finished.
    pub events: u64,
    /// No fewer nodes than this: what happens in a cluster of one teaches little.
    pub nodes_min: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            runs: 1_000,
            events: 30_000_000,
            nodes_min: 1,
        }
    }
}

/// The smallest run that was found.
#[derive(Clone, Debug)]
pub struct Smallest {
    /// What it is made from; [`Options::command`] replays it.
    pub options: Options,
    /// What did not hold.
    pub violation: Violation,
    /// What happened in it, whole.
    pub transcript: Transcript,
    /// Nodes of its cluster.
    pub nodes: usize,
    /// Runs that were made to find it.
    pub runs: u32,
}

/// Makes the failure of `options` small. `progress` is told a line now and then. `None`: they do not fail.
pub fn shrink(options: &Options, budget: Budget, progress: &mut dyn FnMut(&str)) -> Option<Smallest> {
    shrink_by(options, budget, progress, &mut attempt)
}

/// [`shrink`], where `judge` says whether a run fails.
pub fn shrink_by(
    options: &Options,
    budget: Budget,
    progress: &mut dyn FnMut(&str),
    judge: &mut Judge<'_>,
) -> Option<Smallest> {
    let transcript = Transcript::default();
    let violation = judge(options, &transcript).err()?;
    let mut search = Search {
        best: options.clone(),
        first: violation,
        happened: transcript.happened(),
        left: budget,
        runs: 1,
        judge,
        progress,
    };
    search.run();
    let Search { best, runs, judge, .. } = search;
    let transcript = Transcript::whole();
    let violation = judge(&best, &transcript).err()?;
    Some(Smallest {
        nodes: best.size(),
        options: best,
        violation,
        transcript,
        runs: runs + 1,
    })
}

/// Chances that are given to what would leave much out, and to what would leave little out.
const MANY: u32 = 12;
const FEW: u32 = 2;

/// Runs some options, and says whether they hold.
pub type Judge<'a> = dyn FnMut(&Options, &Transcript) -> Result<Report, Violation> + 'a;

struct Search<'a, 'b> {
    best: Options,
    /// By what the first run failed.
    first: Violation,
    /// What happened in the best run so far.
    happened: Happened,
    left: Budget,
    runs: u32,
    judge: &'a mut Judge<'b>,
    progress: &'a mut dyn FnMut(&str),
}

impl Search<'_, '_> {
    fn run(&mut self) {
        self.name_what_happened();
        loop {
            let before = self.best.clone();
            self.fewer_nodes();
            self.fewer_clients();
            self.fewer_kinds();
            self.fewer_faults();
            self.fewer_ops();
            self.shorter_storm();
            if self.best == before || self.is_spent() {
                return;
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.left.runs == 0 || self.left.events == 0
    }

    /// Whether `candidate` fails, too, by the same rule; then it is the best. With fewer messages each one has another
    /// fate, so a failure that hangs on the fate of some is given another chance, or several where much would be gained.
    fn takes(&mut self, candidate: &Options, chances: u32) -> bool {
        if *candidate == self.best {
            return false;
        }
        let luck = candidate.luck;
        (0..chances).any(|more| {
            self.try_out(Options {
                luck: luck.wrapping_add(more),
                ..candidate.clone()
            })
        })
    }

    fn try_out(&mut self, candidate: Options) -> bool {
        if self.is_spent() {
            return false;
        }
        let transcript = Transcript::default();
        let ran = (self.judge)(&candidate, &transcript);
        let happened = transcript.happened();
        self.runs += 1;
        self.left.runs -= 1;
        self.left.events = self.left.events.saturating_sub(happened.events);
        let fails = ran.is_err_and(|violation| is_alike(&violation, &self.first));
        if fails {
            self.best = candidate;
            self.happened = happened;
        }
        fails
    }

    fn tell(&mut self) {
        let line = format!("run {}: {}", self.runs, Size(&self.best, &self.happened));
        (self.progress)(&line);
    }

    /// From now on the best names its faults and operations: those that there were.
    fn name_what_happened(&mut self) {
        let named = Options {
            keep_faults: Some(self.happened.faults.iter().copied().collect()),
            ..self.best.clone()
        };
        self.takes(&named, 1);
        let named = Options {
            keep_ops: Some(self.happened.ops.iter().copied().collect()),
            ..self.best.clone()
        };
        self.takes(&named, 1);
        self.tell();
    }

    fn fewer_nodes(&mut self) {
        for nodes in self.left.nodes_min..self.best.size() {
            let candidate = Options {
                nodes: Some(nodes),
                ..self.best.clone()
            };
            if self.takes(&candidate, MANY) {
                return self.tell();
            }
        }
    }

    fn fewer_clients(&mut self) {
        let ops = &self.happened.ops;
        let clients = ops.iter().map(|id| id.client as usize + 1).max().unwrap_or(1);
        for clients in 1..=clients {
            let candidate = Options {
                clients: Some(clients),
                ..self.best.clone()
            };
            if self.takes(&candidate, MANY) {
                self.tell();
                break;
            }
        }
        let candidate = Options {
            lanes: Some(1),
            ..self.best.clone()
        };
        if self.takes(&candidate, MANY) {
            self.tell();
        }
    }

    /// Whole kinds are left out: the weather calms, and whatever of a kind was planned does not happen.
    fn fewer_kinds(&mut self) {
        let plan = Plan::draw(&self.best, Chance::new(self.best.seed));
        let planned: Vec<Fault> = Fault::ALL
            .into_iter()
            .filter(|kind| plan.kinds.has(*kind) && !self.best.mute.has(*kind))
            .collect();
        for kind in planned {
            let of_kind = |number: &u32| plan.strikes[*number as usize].strike == Strike::Fault(kind);
            let is_struck = self.happened.faults.iter().any(of_kind);
            let is_weather = kind.is_weather() && self.happened.faults.iter().any(|number| is_weather(&plan, *number));
            if !is_struck && !is_weather {
                continue;
            }
            let candidate = Options {
                mute: self.best.mute.with(kind),
                ..self.best.clone()
            };
            self.takes(&candidate, FEW);
        }
        self.tell();
    }

    fn fewer_faults(&mut self) {
        self.fewer(
            |happened| happened.faults.iter().copied().collect(),
            |options, left| Options {
                keep_faults: Some(left),
                ..options.clone()
            },
        );
        // Without its strikes a kind needs no word.
        let plan = Plan::draw(&self.best, Chance::new(self.best.seed));
        let kept = self.best.keep_faults.clone().unwrap_or_default();
        if self.best.keep_faults.is_some() && !kept.iter().any(|number| is_weather(&plan, *number)) {
            let candidate = Options {
                mute: FaultSet::NONE,
                ..self.best.clone()
            };
            self.takes(&candidate, 1);
        }
        self.tell();
    }

    fn fewer_ops(&mut self) {
        self.fewer(
            |happened| happened.ops.iter().copied().collect(),
            |options, left: BTreeSet<OpId>| Options {
                keep_ops: Some(left),
                ..options.clone()
            },
        );
        self.tell();
    }

    /// Leaves out what can be left out of a list of what `there` was; `with` makes options with what is left of it.
    fn fewer<T: Copy + Ord>(
        &mut self,
        there: impl Fn(&Happened) -> BTreeSet<T>,
        with: impl Fn(&Options, BTreeSet<T>) -> Options,
    ) {
        if self.takes(&with(&self.best, BTreeSet::new()), MANY) {
            return;
        }
        // What did not come any more need not be named.
        let named = with(&self.best, there(&self.happened));
        self.takes(&named, 1);
        let mut part = there(&self.happened).len().div_ceil(2);
        while part > 0 && !self.is_spent() {
            let mut from = 0;
            let mut has_shrunk = false;
            loop {
                let all: Vec<T> = there(&self.happened).into_iter().collect();
                if from >= all.len() {
                    break;
                }
                let left = all[..from].iter().chain(all.iter().skip(from + part));
                let candidate = with(&self.best, left.copied().collect());
                // The more is left out, the likelier that only the luck is missing.
                let chances = (MANY * part as u32).div_ceil(all.len() as u32).max(FEW);
                if self.takes(&candidate, chances) {
                    has_shrunk = true;
                } else {
                    from += part;
                }
            }
            if !has_shrunk || part > 1 {
                part /= 2;
            }
        }
    }

    /// If the failure comes when the storm is over, the storm is cut behind its last fault, or earlier.
    fn shorter_storm(&mut self) {
        if !self.happened.is_calm {
            let until = self.happened.until.since(Time::ZERO);
            let whole = Duration::from_secs(until.as_secs() + 1);
            let candidate = Options {
                storm: whole.min(self.best.storm),
                ..self.best.clone()
            };
            self.takes(&candidate, 1);
            return;
        }
        for parts in [8, 4, 2] {
            let storm = Duration::from_millis((self.best.storm.as_millis() as u64).div_ceil(parts));
            let candidate = Options {
                storm,
                ..self.best.clone()
            };
            if self.takes(&candidate, 1) {
                return self.tell();
            }
        }
    }
}

/// Whether two runs fail by the same rule; a panic names its invariant before the numbers.
fn is_alike(one: &Violation, other: &Violation) -> bool {
    let named = |violation: &Violation| violation.words.split(':').next().map(str::to_string);
    one.rule == other.rule && (one.rule != PANIC || named(one) == named(other))
}

fn is_weather(plan: &Plan, number: u32) -> bool {
    match plan.strikes.get(number as usize).map(|planned| planned.strike) {
        Some(Strike::Fault(kind)) => kind.is_weather(),
        _ => false,
    }
}

/// How large a run is, in words.
struct Size<'a>(&'a Options, &'a Happened);

impl fmt::Display for Size<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Size(options, happened) = self;
        let ops = happened.ops.iter().chain(&happened.last_ops);
        let clients: BTreeSet<u32> = ops.clone().map(|id| id.client).collect();
        write!(
            f,
            "{} nodes, {} clients, {} faults, {} operations, {} events, {:.1} s simulated",
            options.size(),
            clients.len(),
            happened.faults.len(),
            ops.count(),
            happened.events,
            happened.until.since(Time::ZERO).as_secs_f64()
        )
    }
}

impl Smallest {
    /// The smallest run as a person reads it: what happened, line by line, and why it is wrong.
    pub fn story(&self) -> String {
        let happened = self.transcript.happened();
        let lines: Vec<String> = self.transcript.lines().iter().map(ToString::to_string).collect();
        format!(
            "{}\n{}\nwhy it is wrong: {}",
            Size(&self.options, &happened),
            lines.join("\n"),
            words::why(self.violation.rule)
        )
    }
}

#[cfg(test)]
mod tests;
