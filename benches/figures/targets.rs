//! The ratios that are aimed at: each figure with its reference right before and right behind, so many pairs of it.
//!
//! A single round differs by a third on a shared machine; the ratio of a figure to the mean of its two neighbours differs
//! much less. A target is met when the median of its ratios is.

use crate::failover;
use crate::figure::{Figure, Spread, head, row, shown};
use crate::machine::{JsonFile, Machine};
use crate::matrix;
use crate::reference::{Kind, References, Shape};
use crate::subject::{NodeFlags, Spans, Subject};
use serde_json::{Value, json};

/// How often, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spans: Spans,
    /// Figures of each target
    #[arg(long, env = "PAIRS", default_value_t = 3)]
    pairs: usize,
    /// Only targets whose names hold one of these, separated by commas
    #[arg(long, env = "ONLY", default_value = "", value_delimiter = ',')]
    only: Vec<String>,
    /// How often the leader is killed; 0 leaves that out
    #[arg(long, env = "KILLS", default_value_t = 10)]
    kills: usize,
    /// A p99 of puts of 64 clients that another store had on this machine, microseconds: what ours is compared with
    #[arg(long, env = "PEER_P99_US")]
    peer_p99_us: Option<f64>,
    #[command(flatten)]
    flags: NodeFlags,
    #[command(flatten)]
    json: JsonFile,
}

/// Which number of a figure and its reference is looked at.
#[derive(Clone, Copy)]
enum Ratio {
    /// Operations a second; at least so much of the reference's.
    Rate(f64),
    /// CPU of all nodes for an operation; at most so many times the reference's.
    Cpu(f64),
}

/// One row of the table.
struct Target {
    name: &'static str,
    preset: &'static str,
    clients: usize,
    pipeline: usize,
    kind: Kind,
    ratio: Ratio,
}

const fn target(
    name: &'static str,
    preset: &'static str,
    (clients, pipeline): (usize, usize),
    kind: Kind,
    ratio: Ratio,
) -> Target {
    Target {
        name,
        preset,
        clients,
        pipeline,
        kind,
        ratio,
    }
}

const TARGETS: [Target; 7] = [
    target("put, 64 clients", "put", (64, 1), Kind::Durable, Ratio::Rate(0.75)),
    target("put, 1 client", "put", (1, 1), Kind::Durable, Ratio::Rate(0.75)),
    target("put, 256 clients", "put", (256, 1), Kind::Durable, Ratio::Rate(1.0)),
    target(
        "put, 16 clients x 16 in flight",
        "put",
        (16, 16),
        Kind::Durable,
        Ratio::Rate(0.5),
    ),
    target("get, 64 clients", "get", (64, 1), Kind::Echo, Ratio::Rate(0.6)),
    target("get, 1 client", "get", (1, 1), Kind::Memory, Ratio::Rate(0.75)),
    target(
        "nodes' CPU for a put, 64 clients",
        "put",
        (64, 1),
        Kind::Durable,
        Ratio::Cpu(2.0),
    ),
];

/// The same with leases, once nodes have them.
const LEASED: Target = target(
    "get with --read-lease, 64 clients",
    "get",
    (64, 1),
    Kind::Echo,
    Ratio::Rate(0.85),
);
const LEASE_FLAG: &str = "--read-lease";
const LEASE: &str = "500ms";

/// At most so much of another store's p99.
const PEER_P99_SHARE: f64 = 0.2;
/// The first write behind the leader's death is acknowledged so soon, milliseconds: half of the times, and always.
const KILL_P50_MS: f64 = 100.0;
const KILL_MAX_MS: f64 = 400.0;

const COLUMNS: [&str; 7] = [
    "what",
    "figure",
    "reference",
    "of",
    "ratio: median (least-most)",
    "wanted",
    "met",
];

impl Ratio {
    fn number(self, figure: &Figure) -> f64 {
        match self {
            Ratio::Rate(_) => figure.ops_per_s,
            Ratio::Cpu(_) => figure.servers_cpu,
        }
    }

    fn is_met(self, median: f64) -> bool {
        match self {
            Ratio::Rate(least) => median >= least,
            Ratio::Cpu(most) => median <= most,
        }
    }

    fn wanted(self) -> String {
        match self {
            Ratio::Rate(least) => format!(">= {least}"),
            Ratio::Cpu(most) => format!("<= {most}"),
        }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    let is_wanted = |name: &str| args.only.iter().any(|part| name.contains(part.as_str()));
    let mut references = References::new();
    let machine = Machine::look(&mut references);
    println!(
        "{}; {} pairs of {} s\n\n{}",
        machine.line(),
        args.pairs,
        args.spans.secs,
        head(&COLUMNS)
    );
    let mut rows = Vec::new();
    let mut subject = Subject::start(3, &flags);
    for target in TARGETS.iter().filter(|target| is_wanted(target.name)) {
        rows.extend(measure(&mut subject, &mut references, target, args));
    }
    drop(subject);
    if is_wanted(LEASED.name) && has_flag(LEASE_FLAG) {
        let mut subject = Subject::start(3, &[flags.as_slice(), &[format!("{LEASE_FLAG}={LEASE}")]].concat());
        rows.extend(measure(&mut subject, &mut references, &LEASED, args));
    }
    if is_wanted("kill") && args.kills > 0 {
        rows.push(kills(args.kills, &flags));
    }
    args.json.write(&json!({ "machine": machine.json(), "targets": rows }));
}

/// Measures one target and prints its row, and that of its p99 where another store's is known.
fn measure(subject: &mut Subject, references: &mut References, target: &Target, args: &Args) -> Vec<Value> {
    let shape = Shape {
        clients: target.clients,
        pipeline: target.pipeline,
        value_bytes: 256,
    };
    let mut reference = || references.measure(target.kind, shape, args.spans.span());
    let mut before = reference();
    let (mut figures, mut means, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.pairs {
        let figure = subject.measure(matrix::load(target.preset, shape), args.spans);
        let behind = reference();
        let mean = f64::midpoint(target.ratio.number(&before), target.ratio.number(&behind));
        ratios.push(target.ratio.number(&figure) / mean);
        means.push(mean);
        figures.push(figure);
        before = behind;
    }
    let all = |of: fn(&Figure) -> f64| figures.iter().map(of).collect::<Spread>();
    let (ratios, means): (Spread, Spread) = (ratios.into_iter().collect(), means.into_iter().collect());
    let numbers: Spread = figures.iter().map(|figure| target.ratio.number(figure)).collect();
    let is_met = target.ratio.is_met(ratios.median());
    print(
        target.name,
        &numbers.cell(),
        &means.cell(),
        target.kind.name(),
        &ratios.cell(),
        &target.ratio.wanted(),
        is_met,
    );
    let mut rows = vec![json!({
        "target": target.name,
        "reference": target.kind.name(),
        "figures": numbers.json(),
        "references": means.json(),
        "ratios": ratios.json(),
        "client_cpu_share": all(|figure| figure.client_share).json(),
        "p99_us": all(|figure| figure.p99_us).json(),
        "wanted": target.ratio.wanted(),
        "met": is_met,
    })];
    if let Some(peer) = args.peer_p99_us
        && target.name == TARGETS[0].name
    {
        rows.push(peer_p99(&all(|figure| figure.p99_us), peer));
    }
    rows
}

fn peer_p99(p99: &Spread, peer: f64) -> Value {
    let ratio = p99.median() / peer;
    let is_met = ratio <= PEER_P99_SHARE;
    let wanted = format!("<= {PEER_P99_SHARE}");
    print(
        "p99 of put, 64 clients, us",
        &p99.cell(),
        &shown(peer),
        "a peer",
        &shown(ratio),
        &wanted,
        is_met,
    );
    json!({ "target": "p99 of put, 64 clients", "p99_us": p99.json(), "peer_p99_us": peer, "ratio": ratio, "met": is_met })
}

fn kills(count: usize, flags: &[String]) -> Value {
    let outages = failover::outages(count, flags);
    let (p50, most) = (outages.median(), outages.at(1.0));
    let is_met = p50 <= KILL_P50_MS && most <= KILL_MAX_MS;
    let wanted = format!("p50 <= {KILL_P50_MS}, all <= {KILL_MAX_MS}");
    let name = format!("kill -9 of the leader to the next write, ms, {count} times");
    print(&name, &outages.cell(), "-", "-", "-", &wanted, is_met);
    json!({ "target": "kill", "ms": outages.json(), "met": is_met })
}

fn print(name: &str, figure: &str, reference: &str, of: &str, ratio: &str, wanted: &str, is_met: bool) {
    println!(
        "{}",
        row([
            name,
            figure,
            reference,
            of,
            ratio,
            wanted,
            if is_met { "yes" } else { "no" }
        ])
    );
}

/// Whether this build's nodes know a flag.
fn has_flag(flag: &str) -> bool {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_synodd"))
        .arg("--help")
        .output();
    String::from_utf8_lossy(&help.expect("synodd runs").stdout).contains(flag)
}
