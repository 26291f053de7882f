//! `synod run` and `synod bench`: a script or a preset against a cluster, and what came of it.

use super::{Global, Output, exit};
use crate::client::{Cause, ReadsFrom};
use crate::console::{complain, print, tell};
use crate::units::{format_duration, parse_duration, parse_positive_duration, parse_size_in_memory};
use crate::workload::check::{self, Verdict};
use crate::workload::plan::Stop;
use crate::workload::presets::{PRESETS, Preset};
use crate::workload::runner::{self, Nodes, Report, RunError, Settings};
use crate::workload::script::program::PIPELINE_MAX;
use crate::workload::script::{self, Program, ScriptError};
use clap::Args;
use clap::builder::PossibleValuesParser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Descriptors of one client: two connections while it moves to another node, one being dialled.
const CLIENT_DESCRIPTORS: u64 = 3;
/// Descriptors of everything else.
const OTHER_DESCRIPTORS: u64 = 64;
/// Longest script, bytes.
const SCRIPT_BYTES_MAX: u64 = 4 << 20;
/// A drawn seed has six digits: short enough to type.
const SEED_MAX: u64 = 999_999;

/// Flags of every run.
#[derive(Args, Clone, Debug)]
pub struct RunFlags {
    /// Repeats the same script of operations [default: drawn afresh, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Writes every operation of the run, for `synod check`; keys then carry a name of the run
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Checks that what clients saw is linearizable; exit 1 if not, 4 if undecided
    #[arg(long)]
    pub check: bool,
    /// Longest time for --check
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_positive_duration)]
    pub check_time: Duration,
    /// Whom clients ask for linearizable reads: the leader, or any node, so that all nodes share the work
    #[arg(long, default_value_t = ReadsFrom::Leader, value_name = "leader|any")]
    pub reads_from: ReadsFrom,
    /// Prints each second of the run behind the table; JSON always has them
    #[arg(long)]
    pub series: bool,
    /// Prints how the latencies are distributed behind the table; JSON always has it
    #[arg(long)]
    pub histogram: bool,
}

/// Run a workload script against the cluster
///
/// Commands are those of the command line; docs/workloads.md has the language, workloads/ has examples.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// The script; - reads standard input
    pub file: PathBuf,
    /// Replaces the default of a `param` line
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_pair)]
    pub set: Vec<(String, String)>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take them for the command's own")]
    pub flags: RunFlags,
}

/// Measure the cluster under one of the built-in loads
///
/// Each is a workload script; --show prints it. A client is one connection with one operation in flight, times
/// --pipeline.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Which load
    #[arg(value_parser = PossibleValuesParser::new(PRESETS.map(|preset| preset.name)))]
    pub preset: String,
    /// Clients, each with a connection of its own
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    pub clients: u64,
    /// Operations that each client has in flight
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=PIPELINE_MAX))]
    pub pipeline: u64,
    /// Size of a value; longer where uniqueness needs it [default: 256; of register 16]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_in_memory)]
    pub value_size: Option<usize>,
    /// How many keys, of 16 bytes each
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// How long to measure, warm-up not included
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_positive_duration)]
    pub duration: Duration,
    /// Load before the measurement, which does not count
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = parse_duration)]
    pub warmup: Duration,
    /// Operations a second in all, latency counted from intended starts [default: as fast as answers come]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub rate: u64,
    /// Prints the script, with the flags in it, and does nothing
    #[arg(long)]
    pub show: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take them for the command's own")]
    pub flags: RunFlags,
}

/// Runs `synod run`; returns the exit code.
///
/// # Errors
/// The operating system failed this process.
pub fn run(global: &Global, args: &RunArgs) -> io::Result<u8> {
    let parameters = args.set.iter().cloned().collect();
    match read(&args.file, &parameters) {
        Ok(program) => run_program(global, program, &args.flags, None),
        Err(words) => {
            complain(&words);
            Ok(exit::USAGE)
        }
    }
}

/// Runs `synod bench`; returns the exit code.
///
/// # Errors
/// The operating system failed this process.
pub fn bench(global: &Global, args: &BenchArgs) -> io::Result<u8> {
    let preset = Preset::named(&args.preset).expect("clap lets only names of presets pass");
    if args.show {
        print(args.shown(preset).as_bytes())?;
        return Ok(exit::DONE);
    }
    match script::parse(preset.script().as_bytes(), &args.parameters()) {
        Ok(program) => run_program(global, program, &args.flags, None),
        Err(error) => {
            complain(&format!("bench {}: {}", args.preset, error.trouble));
            Ok(exit::USAGE)
        }
    }
}

impl BenchArgs {
    fn parameters(&self) -> BTreeMap<String, String> {
        let mut parameters = BTreeMap::from([
            ("clients", self.clients.to_string()),
            ("pipeline", self.pipeline.to_string()),
            ("keys", self.keys.to_string()),
            ("warmup", format_duration(self.warmup)),
            ("duration", format_duration(self.warmup.saturating_add(self.duration))),
            ("rate", self.rate.to_string()),
        ]);
        if let Some(bytes) = self.value_size {
            parameters.insert("value_size", bytes.to_string());
        }
        parameters
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The script with the flags as the defaults of its parameters.
    fn shown(&self, preset: &Preset) -> String {
        let parameters = self.parameters();
        let mut text = String::new();
        for line in preset.script().lines() {
            let mut words = line.split_whitespace();
            let given = match (words.next(), words.next()) {
                (Some("param"), Some(name)) => parameters.get(name).map(|value| format!("param {name} {value}")),
                _ => None,
            };
            text.push_str(given.as_deref().unwrap_or(line));
            text.push('\n');
        }
        text
    }
}

/// Reads a script file.
pub(super) fn read(file: &Path, parameters: &BTreeMap<String, String>) -> Result<Program, String> {
    let is_stdin = file == Path::new("-");
    let name = if is_stdin {
        "standard input".into()
    } else {
        file.display().to_string()
    };
    let mut text = Vec::new();
    let read = if is_stdin {
        io::stdin().lock().take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut text))
    };
    read.map_err(|error| format!("{name}: {error}"))?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(format!("{name}: longer than {SCRIPT_BYTES_MAX} bytes"));
    }
    script::parse(&text, parameters).map_err(|error| format!("{name}: {error}"))
}

/// Runs a script that was read and says what came of it; returns the exit code.
pub(super) fn run_program(
    global: &Global,
    program: Program,
    flags: &RunFlags,
    nodes: Option<&mut dyn Nodes>,
) -> io::Result<u8> {
    let is_recorded = flags.history.is_some() || flags.check;
    if let Err(error) = check_program(&program, is_recorded, nodes.is_some()) {
        complain(&error.to_string());
        return Ok(exit::USAGE);
    }
    let mut options = global.options()?;
    options.reads_from = flags.reads_from;
    let seed = flags.seed.unwrap_or(options.seed % (SEED_MAX + 1));
    tell(format_args!(
        "seed {seed} (--seed {seed} repeats the script of operations)"
    ));
    raise_descriptors(program.clients() as u64 * CLIENT_DESCRIPTORS + OTHER_DESCRIPTORS);
    let expectations = program.expectations.clone();
    let expects_results = program.expects_results();
    let settings = Settings {
        endpoints: global.endpoints.clone(),
        options,
        seed,
        history: flags.history.clone(),
        is_checked: flags.check,
        is_progress_shown: io::stderr().is_terminal() && global.output == Output::Text,
    };
    let interrupt = runner::interrupt_flag()?;
    let report = match runner::run(program, &settings, nodes, &interrupt) {
        Ok(report) => report,
        Err(RunError::Io(error)) => return Err(error),
        Err(error) => {
            complain(&error.to_string());
            return Ok(exit::USAGE);
        }
    };
    let verdict = report
        .history
        .as_ref()
        .map(|history| check::check(history, flags.check_time));
    // What ended early came to nothing that could be expected of it.
    let unmet = match report.stop.is_some() || report.is_interrupted {
        true => Vec::new(),
        false => report.summary.unmet(&expectations),
    };
    match global.output {
        Output::Json => print(format!("{}\n", json(&report, seed, &unmet, verdict.as_ref())).as_bytes())?,
        Output::Text => print(text(&report, flags).as_bytes())?,
    }
    if let Some(stop) = &report.stop {
        complain(&stop.to_string());
    }
    unmet.iter().for_each(|line| complain(line));
    if let Some(verdict) = &verdict {
        tell(check::words(verdict, flags.check_time).trim_end());
    }
    Ok(code(&report, expects_results, !unmet.is_empty(), verdict.as_ref()))
}

fn check_program(program: &Program, is_recorded: bool, has_nodes: bool) -> Result<(), ScriptError> {
    if is_recorded {
        program.check_for_history()?;
    }
    if !has_nodes {
        program.check_without_cluster()?;
    }
    Ok(())
}

fn text(report: &Report, flags: &RunFlags) -> String {
    let summary = &report.summary;
    let mut text = summary.text();
    if let Some(costs) = &report.costs {
        text.push_str(&costs.text(summary.all().ops_per_s(summary.elapsed())));
    }
    if flags.series {
        text.push_str(&summary.series_text());
    }
    if flags.histogram {
        text.push_str(&summary.histogram_text());
    }
    text
}

fn json(report: &Report, seed: u64, unmet: &[String], verdict: Option<&Verdict>) -> Value {
    let mut object = report.summary.json();
    if let Some(costs) = &report.costs {
        object.extend(costs.json(report.summary.all().ops_per_s(report.summary.elapsed())));
    }
    object.insert("seed".into(), json!(seed));
    if !report.run.is_empty() {
        object.insert("run".into(), json!(report.run));
    }
    object.insert("unmet".into(), json!(unmet));
    if let Some(stop) = &report.stop {
        object.insert("stopped".into(), json!(stop.to_string()));
    }
    if let Some(verdict) = verdict {
        object.insert("check".into(), check::object(verdict));
    }
    Value::Object(object)
}

/// The exit code: the first that applies of what went wrong. A script that says what results should be may have expected
/// that nothing could be done.
fn code(report: &Report, expects_results: bool, is_unmet: bool, verdict: Option<&Verdict>) -> u8 {
    if let Some(Verdict::Violation(..)) = verdict {
        return exit::NO; // above all else, also in a run that was cut short
    }
    if report.is_interrupted {
        return exit::INTERRUPTED;
    }
    match &report.stop {
        Some(Stop::Unexpected { .. }) => return exit::NO,
        Some(Stop::Script { .. } | Stop::Stuck { .. }) => return exit::USAGE,
        Some(Stop::Action { .. }) => return exit::NOT_DONE,
        Some(Stop::Load { cause, .. }) => return code_of_cause(cause, false),
        None => {}
    }
    let all = report.summary.all();
    if all.ops() > 0 && all.done == 0 && !expects_results {
        let cause = report.summary.main_cause().unwrap_or_default();
        return code_of_cause(cause, all.unknown > 0);
    }
    if is_unmet {
        return exit::NO;
    }
    verdict.map_or(exit::DONE, check::code)
}

fn code_of_cause(cause: &str, is_maybe_done: bool) -> u8 {
    if is_maybe_done {
        exit::UNKNOWN
    } else if cause == Cause::NoEndpoint.name() {
        exit::UNREACHABLE
    } else if cause == Cause::Protocol.name() {
        exit::PROTOCOL
    } else {
        exit::NOT_DONE
    }
}

/// Many clients need many descriptors: the soft limit is raised as far as it goes. What is still missing shows when a
/// connection cannot be made.
fn raise_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < wanted) {
        let raised = Rlimit {
            current: Some(limit.maximum.map_or(wanted, |hard| hard.min(wanted))),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            complain(&format!("the limit of open files could not be raised: {error}"));
        }
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("a parameter is NAME=VALUE".to_owned()),
    }
}
