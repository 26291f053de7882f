//! `synod sim`: simulated clusters under faults, seed by seed; exit code 0 if all held, 1 if one did not.
//!
//! A seed is named before it runs, with the command that replays it; behind it stands the digest over all its events. A
//! seed that fails is made small, and the smallest run is shown as a transcript, with the command that replays it.

use super::exit;
use crate::console::complain;
use crate::rules::{Rules, UnknownRule};
use crate::sim::options::{OpId, Options, parse_list};
use crate::sim::report::Counts;
use crate::sim::shrink::{Budget, Smallest, shrink};
use crate::sim::words::RULES;
use crate::sim::{self, Fault, FaultSet, Report, Transcript, Violation};
use crate::units::parse_positive_duration;
use clap::Args;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Run simulated clusters under faults: the same code, with simulated time, network and disks
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Run this seed alone
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run fresh seeds for so long
    #[arg(long, default_value = "60s", value_parser = parse_positive_duration, conflicts_with = "seed")]
    pub duration: Duration,
    /// Run so many seeds, whatever the duration
    #[arg(long, conflicts_with = "seed")]
    pub seeds: Option<u64>,
    /// First seed of a row of them; drawn if not said
    #[arg(long, conflicts_with = "seed")]
    pub from: Option<u64>,
    /// Threads; all cores if not said
    #[arg(long)]
    pub jobs: Option<usize>,
    /// Kinds of faults that may happen; all if not said
    #[arg(long, value_delimiter = ',', value_parser = Fault::named)]
    pub only: Vec<Fault>,
    /// Kinds of faults that may not happen
    #[arg(long, value_delimiter = ',', value_parser = Fault::named)]
    pub without: Vec<Fault>,
    /// Kinds of faults that stay in the plan of a seed and do not happen
    #[arg(long, value_delimiter = ',', value_parser = Fault::named)]
    pub mute: Vec<Fault>,
    /// Of the faults that a seed planned, only these, by number, or "none"
    #[arg(long, value_name = "NUMBERS", value_parser = parse_list::<u32>, requires = "seed")]
    pub keep_faults: Option<BTreeSet<u32>>,
    /// Of the operations of clients, only these, as client.lane.number, or "none"
    #[arg(long, value_name = "OPERATIONS", value_parser = parse_list::<OpId>, requires = "seed")]
    pub keep_ops: Option<BTreeSet<OpId>>,
    /// Rules that the nodes break: the simulator should notice (names: docs/lessons.md)
    #[arg(long = "break", value_name = "RULES", value_delimiter = ',', value_parser = a_rule)]
    pub broken: Vec<String>,
    /// Rules of the judge of which it does not complain, so that what comes of breaking them is seen
    #[arg(long, value_name = "RULES", value_delimiter = ',', value_parser = a_rule_of_the_judge)]
    pub overlook: Vec<String>,
    /// Nodes of each cluster; drawn if not said
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: Option<u16>,
    /// Another number, other fates of single messages
    #[arg(long, default_value_t = 0)]
    pub luck: u32,
    /// At most so many clients
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub clients: Option<u16>,
    /// At most so many operations of a client at a time
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub lanes: Option<u16>,
    /// Length of the leases of each cluster (0s: none); drawn if not said
    #[arg(long, value_name = "DURATION", value_parser = crate::units::parse_duration)]
    pub read_lease: Option<Duration>,
    /// How long faults happen in each run, in simulated time
    #[arg(long, default_value = "30s", value_parser = parse_positive_duration)]
    pub storm: Duration,
    /// Lines of what happened to show behind a failure that is not made small
    #[arg(long, default_value_t = 200)]
    pub transcript: usize,
    /// Show the transcript of a run that held, too
    #[arg(long)]
    pub tell: bool,
    /// Do not make a failure small
    #[arg(long)]
    pub no_shrink: bool,
    /// Runs that may be made to make a failure small
    #[arg(long, default_value_t = 1_000)]
    pub shrink_runs: u32,
    /// Write a Mermaid diagram of the end of the smallest failing run into this file
    #[arg(long, value_name = "FILE")]
    pub mermaid: Option<PathBuf>,
}

/// What all threads share.
struct Row {
    next: AtomicU64,
    left: AtomicU64,
    has_failed: AtomicBool,
    /// Nobody reads what is printed any more (`| head`).
    is_unread: AtomicBool,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    counts: Counts,
    simulated: Duration,
    shortest: Option<Duration>,
    fewest: Option<u64>,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// The system gives no randomness for fresh seeds.
#[expect(
    clippy::disallowed_methods,
    reason = "says how long and how fast the simulator ran; no run hangs on it"
)]
pub fn run(args: &SimArgs) -> io::Result<u8> {
    let begun = Instant::now();
    let first = match args.seed.or(args.from) {
        Some(seed) => seed,
        None => u64::from(getrandom::u32().map_err(|error| io::Error::other(format!("no randomness: {error}")))?),
    };
    let is_row = args.seed.is_none();
    let row = Row {
        next: AtomicU64::new(first),
        left: AtomicU64::new(if is_row { args.seeds.unwrap_or(u64::MAX) } else { 1 }),
        has_failed: AtomicBool::new(false),
        is_unread: AtomicBool::new(false),
        sum: Mutex::default(),
    };
    let until = (is_row && args.seeds.is_none()).then_some(args.duration);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if is_row { args.jobs.unwrap_or(cores) } else { 1 };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| work(args, &row, || until.is_some_and(|until| begun.elapsed() >= until)));
        }
    });
    if is_row {
        let sum = row.sum.lock().unwrap_or_else(PoisonError::into_inner);
        row.say(format_args!("{}", sum.words(begun.elapsed(), jobs.max(1))));
    }
    Ok(if row.has_failed.load(Ordering::Relaxed) {
        exit::NO
    } else {
        exit::DONE
    })
}

fn work(args: &SimArgs, row: &Row, is_late: impl Fn() -> bool) {
    while !row.is_over() && !is_late() {
        let took = row
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if took.is_err() {
            return;
        }
        let seed = row.next.fetch_add(1, Ordering::Relaxed);
        let options = args.options(seed);
        let replay = replay(&options);
        row.say(format_args!("seed {seed}: {replay}"));
        let transcript = Transcript::of_last(if args.tell { args.transcript } else { 0 });
        match sim::attempt(&options, &transcript) {
            Ok(report) => {
                row.say_all(&transcript);
                let (line, digest) = (one_line(&report), report.digest);
                if args.seed.is_some() {
                    row.say(format_args!("{}{line}\ndigest {digest:016x}", report.counts));
                } else {
                    row.say(format_args!("seed {seed}: {line}\ndigest {digest:016x}"));
                }
                let mut sum = row.sum.lock().unwrap_or_else(PoisonError::into_inner);
                sum.add(&report);
            }
            Err(violation) => {
                // One failure is told; threads that find another one meanwhile leave it at that.
                if !row.has_failed.swap(true, Ordering::Relaxed) {
                    row.tell_failure(args, &options, &violation, &replay);
                }
            }
        }
    }
}

impl Row {
    fn is_over(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed) || self.is_unread.load(Ordering::Relaxed)
    }

    /// Prints a line. Who reads them may go away, and wants no more then: that is no error, and ends the row.
    fn say(&self, line: fmt::Arguments<'_>) {
        let Err(error) = writeln!(io::stdout().lock(), "{line}") else {
            return;
        };
        let was_unread = self.is_unread.swap(true, Ordering::Relaxed);
        if !was_unread && error.kind() != io::ErrorKind::BrokenPipe {
            complain(&format!("standard output: {error}"));
        }
    }

    fn say_all(&self, transcript: &Transcript) {
        transcript
            .lines()
            .iter()
            .for_each(|line| self.say(format_args!("{line}")));
    }

    fn tell_failure(&self, args: &SimArgs, options: &Options, violation: &Violation, replay: &str) {
        let seed = options.seed;
        self.say(format_args!("seed {seed} FAILED: {violation}"));
        self.say(format_args!("seed {seed}: {replay}"));
        // The same panic many times over helps nobody.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        if args.no_shrink {
            self.tell_again(options, args.transcript);
        } else {
            self.make_small(args, options);
        }
        panic::set_hook(hook);
    }

    /// Runs a failed seed once more and shows its last lines.
    fn tell_again(&self, options: &Options, lines: usize) {
        let transcript = Transcript::of_last(lines);
        if sim::attempt(options, &transcript).is_ok() {
            return complain_of_chance(options.seed);
        }
        self.say_all(&transcript);
    }

    /// Shows the smallest run that fails by the same rule.
    fn make_small(&self, args: &SimArgs, options: &Options) {
        let budget = Budget {
            runs: args.shrink_runs,
            ..Budget::default()
        };
        let mut progress = |line: &str| self.say(format_args!("shrinks, {line}"));
        let Some(smallest) = shrink(options, budget, &mut progress) else {
            return complain_of_chance(options.seed);
        };
        let story = smallest.story();
        self.say(format_args!("\nthe smallest run that fails by the same rule: {story}"));
        self.say(format_args!("to run it again: {}", smallest.options.command()));
        if let Some(path) = &args.mermaid {
            self.write_diagram(path, &smallest);
        }
    }

    fn write_diagram(&self, path: &Path, smallest: &Smallest) {
        match fs::write(path, smallest.mermaid()) {
            Ok(()) => self.say(format_args!("its diagram: {}", path.display())),
            Err(error) => complain(&format!("cannot write {}: {error}", path.display())),
        }
    }
}

fn complain_of_chance(seed: u64) {
    complain(&format!(
        "seed {seed} failed, and does not fail again: that is a defect of the simulator"
    ));
}

fn one_line(report: &Report) -> String {
    let Report {
        nodes,
        simulated,
        counts,
        ..
    } = report;
    format!(
        "{nodes} nodes, {:.1} s simulated, {} events, {} slots, operations: {} done, {} not done, {} unknown",
        simulated.as_secs_f64(),
        counts.events,
        counts.slots,
        counts.done,
        counts.not_done,
        counts.unknown
    )
}

impl SimArgs {
    fn options(&self, seed: u64) -> Options {
        let all = if self.only.is_empty() {
            FaultSet::ALL
        } else {
            FaultSet::NONE
        };
        let faults = self.only.iter().fold(all, |set, fault| set.with(*fault));
        let faults = self.without.iter().fold(faults, |set, fault| set.without(*fault));
        Options {
            faults,
            storm: self.storm,
            nodes: self.nodes.map(usize::from),
            clients: self.clients.map(usize::from),
            lanes: self.lanes.map(usize::from),
            mute: self.mute.iter().fold(FaultSet::NONE, |set, fault| set.with(*fault)),
            keep_faults: self.keep_faults.clone(),
            keep_ops: self.keep_ops.clone(),
            luck: self.luck,
            read_lease: self.read_lease,
            rules: self.rules(),
            overlook: self.overlook.iter().cloned().collect(),
            ..Options::new(seed)
        }
    }

    fn rules(&self) -> Rules {
        let broken = self.broken.iter().map(String::as_str);
        broken
            .into_iter()
            .fold(Rules::KEPT, |rules, name| rules.without(name).unwrap_or(rules)) // all were checked
    }
}

/// Names with spaces are written with hyphens, as [`Options::flags`] does.
fn a_rule_of_the_judge(name: &str) -> Result<String, String> {
    let rule = name.replace('-', " ");
    let mut rules = RULES.iter().map(|(name, _)| *name);
    if rules.any(|known| known == rule) {
        return Ok(rule);
    }
    let names: Vec<String> = RULES.iter().map(|(name, _)| name.replace(' ', "-")).collect();
    Err(format!(
        "the judge has no such rule; its rules are: {}",
        names.join(", ")
    ))
}

fn a_rule(name: &str) -> Result<String, UnknownRule> {
    Rules::KEPT.without(name).map(|_| name.into())
}

/// The command that runs a seed again.
fn replay(options: &Options) -> String {
    let seed = options.seed;
    match options.flags() {
        flags if flags.is_empty() => format!("make sim SEED={seed}"),
        flags => format!("make sim SEED={seed} FLAGS=\"{flags}\""),
    }
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.counts += &report.counts;
        self.simulated += report.simulated;
        let operations = report.counts.operations();
        self.shortest = Some(
            self.shortest
                .map_or(report.simulated, |least| least.min(report.simulated)),
        );
        self.fewest = Some(self.fewest.map_or(operations, |least| least.min(operations)));
    }

    fn words(&self, took: Duration, jobs: usize) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        let simulated = self.simulated.as_secs_f64();
        let operations = self.counts.operations();
        let row = format!(
            "{} seeds in {seconds:.1} s on {jobs} threads; the shortest simulated {:.1} s, the fewest operations were {}",
            self.seeds,
            self.shortest.unwrap_or_default().as_secs_f64(),
            self.fewest.unwrap_or_default()
        );
        let pace = format!(
            "{} events, {:.0} a second and thread; {operations} operations ({} done, {} not done, {} unknown), {:.0} a \
             second, {:.1} a simulated second; {simulated:.0} s simulated, {:.0} a second",
            self.counts.events,
            self.counts.events as f64 / seconds / jobs as f64,
            self.counts.done,
            self.counts.not_done,
            self.counts.unknown,
            operations as f64 / seconds,
            operations as f64 / simulated.max(0.001),
            simulated / seconds
        );
        format!("{}\n{row}\n{pace}", self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: SimArgs,
    }

    #[test]
    fn the_flags_of_a_smallest_run_make_the_same_run() {
        let kinds = [Fault::Loss, Fault::PowerCut].into_iter();
        let some = kinds.clone().fold(FaultSet::NONE, FaultSet::with);
        let worlds = [
            Options::new(7),
            Options {
                faults: FaultSet::NONE,
                keep_faults: Some(BTreeSet::new()),
                keep_ops: Some(BTreeSet::new()),
                ..Options::new(8)
            },
            Options {
                faults: some,
                storm: Duration::from_millis(1_234),
                nodes: Some(3),
                clients: Some(2),
                lanes: Some(1),
                luck: 3,
                mute: FaultSet::NONE.with(Fault::Loss),
                keep_faults: Some([3, 17].into()),
                keep_ops: Some(["0.1.7", "1.0.0"].map(|id| id.parse().expect("an id")).into()),
                rules: Rules::KEPT.without("majority").expect("a rule"),
                ..Options::new(u64::MAX)
            },
        ];
        for options in worlds {
            let command = options.command();
            let words = command.split_whitespace().skip(1); // without "synod"
            let parsed = Command::parse_from(words).args;
            assert_eq!(parsed.options(parsed.seed.expect("a seed")), options, "{command}");
        }
    }
}
