//! What is measured: a fresh cluster of three nodes on free ports, under the loads of `synod bench`.

use crate::figure::Figure;
use crate::support::{self, TestCluster};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use synod::client::{Options, ReadsFrom};
use synod::paxos::NodeId;
use synod::workload::presets::Preset;
use synod::workload::runner::{self, Nodes, Report, Settings};
use synod::workload::script;

/// As a node has it by default; the tests' own is smaller.
const SEGMENT: [&str; 2] = ["--segment-bytes", "64MiB"];
/// Keys of a load, where values are not large.
const KEYS: usize = 10_000;
/// All keys together hold at most so many bytes of values, so that loading them stays short.
const LOADED_BYTES_MAX: usize = 64 << 20;

/// One load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) preset: &'static str,
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    pub(crate) value_bytes: usize,
}

/// How long one measurement takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Spans {
    /// Length of one measurement, seconds
    #[arg(long, env = "SECS", default_value_t = 2.0)]
    pub(crate) secs: f64,
    /// Load before it, which does not count, seconds
    #[arg(long, env = "WARMUP", default_value_t = 0.5)]
    pub(crate) warmup: f64,
}

impl Spans {
    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }
}

/// What nodes are started with beside what a benchmark itself asks for.
#[derive(clap::Args)]
pub(crate) struct NodeFlags {
    /// Further flags of every node
    #[arg(long, env = "FLAGS", default_value = "", allow_hyphen_values = true)]
    flags: String,
}

impl NodeFlags {
    pub(crate) fn list(&self) -> Vec<String> {
        self.flags.split_whitespace().map(str::to_owned).collect()
    }
}

/// A running cluster.
pub(crate) struct Subject {
    pub(crate) cluster: TestCluster,
    /// Whom clients ask for reads.
    pub(crate) reads_from: ReadsFrom,
    interrupt: Arc<AtomicBool>,
}

/// Reads the nodes' logs while a load runs: a full pipe would stop them.
struct Listening<'c>(&'c mut TestCluster);

impl Nodes for Listening<'_> {
    fn kill(&mut self, _: NodeId) -> Result<(), String> {
        Err("a benchmark kills nobody".into())
    }

    fn start(&mut self, _: NodeId) -> Result<(), String> {
        Err("a benchmark starts nobody".into())
    }

    fn look(&mut self) -> Result<(), String> {
        self.0.rest(Duration::ZERO);
        Ok(())
    }
}

impl Subject {
    /// Starts `nodes` nodes with further flags, and waits for a leader.
    pub(crate) fn start(nodes: u16, flags: &[String]) -> Subject {
        let flags: Vec<&str> = SEGMENT.into_iter().chain(flags.iter().map(String::as_str)).collect();
        Subject {
            cluster: support::start_cluster(nodes, &flags),
            reads_from: ReadsFrom::Leader,
            interrupt: runner::interrupt_flag().expect("the system takes a handler of signals"),
        }
    }

    /// Runs a load and tells what came of it.
    ///
    /// # Panics
    /// If the cluster ended, refused everything, or was interrupted.
    pub(crate) fn measure(&mut self, load: Load, spans: Spans) -> Figure {
        let keys = KEYS.min(LOADED_BYTES_MAX / load.value_bytes.max(1));
        let preset = Preset::named(load.preset).expect("presets are named in this program");
        let parameters = [
            ("clients", load.clients.to_string()),
            ("pipeline", load.pipeline.to_string()),
            ("value_size", load.value_bytes.to_string()),
            ("keys", keys.to_string()),
            ("warmup", format!("{}ms", (spans.warmup * 1e3) as u64)),
            ("duration", format!("{}ms", ((spans.warmup + spans.secs) * 1e3) as u64)),
        ];
        self.run(&preset.script(), &parameters)
    }

    /// Runs a script.
    ///
    /// # Panics
    /// As [`Subject::measure`].
    pub(crate) fn run(&mut self, text: &str, parameters: &[(&str, String)]) -> Figure {
        let report = self.report(text, parameters, None);
        let (all, elapsed) = (report.summary.all(), report.summary.elapsed());
        let ops_per_s = all.ops_per_s(elapsed);
        let costs = report.costs.expect("something counted");
        Figure {
            ops_per_s,
            p50_us: all.quantile_us(0.5),
            p99_us: all.quantile_us(0.99),
            p999_us: all.quantile_us(0.999),
            max_us: all.max_us(),
            servers_cpu: costs.nodes_share().unwrap_or(f64::NAN) / ops_per_s * 1e6,
            client_cpu: costs.generator.share() / ops_per_s * 1e6,
            client_share: costs.generator.share(),
        }
    }

    /// Runs a script; each operation may take `deadline`, or as long as clients wait by default.
    ///
    /// # Panics
    /// As [`Subject::measure`].
    pub(crate) fn report(&mut self, text: &str, parameters: &[(&str, String)], deadline: Option<Duration>) -> Report {
        let parameters: BTreeMap<String, String> = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let program = script::parse(text.as_bytes(), &parameters).unwrap_or_else(|error| panic!("{error} in\n{text}"));
        let mut options = Options::random().expect("the system gives random numbers");
        options.timeout = deadline.unwrap_or(options.timeout);
        options.reads_from = self.reads_from;
        let settings = Settings {
            endpoints: self.cluster.addresses(),
            seed: options.seed,
            options,
            history: None,
            is_checked: false,
            is_progress_shown: false,
        };
        let mut listening = Listening(&mut self.cluster);
        let report = runner::run(program, &settings, Some(&mut listening), &self.interrupt).expect("the load runs");
        assert!(!self.interrupt.load(Ordering::Relaxed), "interrupted");
        assert!(
            report.stop.is_none() && report.summary.all().done > 0,
            "nothing was done: {:?}\n{}",
            report.stop,
            report.summary.text()
        );
        report
    }
}
