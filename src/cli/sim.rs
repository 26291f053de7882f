//! `synod sim`: simulated clusters under faults, seed by seed; exit code 0 if all held, 1 if one did not.
//!
//! A seed is named before it runs, with the command that replays it; behind it stands the digest over all its events. A
//! seed that fails is run once more, with its last lines kept, and those are shown.

use super::{complain, exit};
use crate::sim::report::Counts;
use crate::sim::world::Options;
use crate::sim::{self, Fault, FaultSet, Report, Transcript};
use crate::units::parse_positive_duration;
use clap::Args;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Nodes of each cluster; drawn if not said
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: Option<u16>,
    /// How long faults happen in each run, in simulated time
    #[arg(long, default_value = "30s", value_parser = parse_positive_duration)]
    pub storm: Duration,
    /// Lines of what happened to show behind a failure
    #[arg(long, default_value_t = 200)]
    pub transcript: usize,
    /// Show the transcript of a run that held, too
    #[arg(long)]
    pub tell: bool,
}

/// What all threads share.
struct Row {
    next: AtomicU64,
    left: AtomicU64,
    has_failed: AtomicBool,
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
    let sum = row.sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if is_row {
        sum.print(begun.elapsed(), jobs.max(1));
    }
    Ok(if row.has_failed.load(Ordering::Relaxed) {
        exit::NO
    } else {
        exit::DONE
    })
}

fn work(args: &SimArgs, row: &Row, is_late: impl Fn() -> bool) {
    while !row.has_failed.load(Ordering::Relaxed) && !is_late() {
        let took = row
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if took.is_err() {
            return;
        }
        let seed = row.next.fetch_add(1, Ordering::Relaxed);
        let options = args.options(seed);
        let replay = args.replay(seed);
        println!("seed {seed}: {replay}");
        let lines = if args.tell { args.transcript } else { 0 };
        match attempt(&options, lines) {
            Ok((report, lines)) => {
                lines.iter().for_each(|line| println!("{line}"));
                let digest = report.digest;
                if args.seed.is_some() {
                    print!("{}", report.counts);
                    println!("{}", one_line(&report));
                    println!("digest {digest:016x}");
                } else {
                    println!("seed {seed}: {}\ndigest {digest:016x}", one_line(&report));
                }
                let mut sum = row.sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                sum.add(&report);
            }
            Err(_) => {
                row.has_failed.store(true, Ordering::Relaxed);
                tell_failure(&options, args.transcript, &replay);
            }
        }
    }
}

/// Runs a seed; a panic of the code under test is a failure like any other.
fn attempt(options: &Options, lines: usize) -> Result<(Report, Vec<String>), (String, Vec<String>)> {
    let transcript = Transcript::of_last(lines);
    let run = panic::catch_unwind(AssertUnwindSafe(|| sim::run(options, &transcript)));
    match run {
        Ok(Ok(report)) => Ok((report, transcript.lines())),
        Ok(Err(violation)) => Err((violation.to_string(), transcript.lines())),
        Err(panicked) => Err((words_of(panicked.as_ref()), transcript.lines())),
    }
}

fn words_of(panicked: &(dyn std::any::Any + Send)) -> String {
    let words = panicked
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panicked.downcast_ref::<&str>().copied());
    format!("panic: {}", words.unwrap_or("without words"))
}

/// Runs a failed seed once more and shows its last lines.
fn tell_failure(options: &Options, lines: usize, replay: &str) {
    let seed = options.seed;
    match attempt(options, lines) {
        Ok(_) => complain(&format!(
            "seed {seed} failed, and does not fail again: that is a defect of the simulator"
        )),
        Err((words, lines)) => {
            lines.iter().for_each(|line| println!("{line}"));
            println!("seed {seed} FAILED: {words}");
            println!("seed {seed}: {replay}");
        }
    }
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
            ..Options::new(seed)
        }
    }

    /// The command that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let mut flags = String::new();
        let names = |faults: &[Fault]| faults.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(",");
        if !self.only.is_empty() {
            flags += &format!(" --only {}", names(&self.only));
        }
        if !self.without.is_empty() {
            flags += &format!(" --without {}", names(&self.without));
        }
        if let Some(nodes) = self.nodes {
            flags += &format!(" --nodes {nodes}");
        }
        if self.storm != Duration::from_secs(30) {
            flags += &format!(" --storm {}", crate::units::format_duration(self.storm));
        }
        match flags.trim() {
            "" => format!("make sim SEED={seed}"),
            flags => format!("make sim SEED={seed} FLAGS=\"{flags}\""),
        }
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

    fn print(&self, took: Duration, jobs: usize) {
        let seconds = took.as_secs_f64().max(0.001);
        let simulated = self.simulated.as_secs_f64();
        let operations = self.counts.operations();
        println!("{}", self.counts);
        println!(
            "{} seeds in {seconds:.1} s on {jobs} threads; the shortest simulated {:.1} s, the fewest operations were {}",
            self.seeds,
            self.shortest.unwrap_or_default().as_secs_f64(),
            self.fewest.unwrap_or_default()
        );
        println!(
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
    }
}
