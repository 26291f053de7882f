//! How figures change with keys, connections, nodes and the size of values: tables, and a picture of each.

use crate::chart::{Chart, Line};
use crate::figure::{Figure, head, row, shown};
use crate::machine::{JsonFile, Machine};
use crate::matrix;
use crate::memory;
use crate::now;
use crate::reference::{References, Shape};
use crate::subject::{NodeFlags, Spans, Subject};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use synod::client::ReadsFrom;
use synod::workload::generator::KEY_BYTES;

/// What is varied.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spans: Spans,
    /// Which tables
    #[arg(
        long,
        env = "TABLES",
        default_value = "keys connections nodes sizes",
        value_delimiter = ' '
    )]
    tables: Vec<String>,
    /// Keys of the first table, ascending; ten million take some minutes and 10 GiB
    #[arg(long, env = "KEYS", default_value = "10000 100000 1000000", value_delimiter = ' ')]
    keys: Vec<u64>,
    /// Bytes of a value in the first table
    #[arg(long, env = "SIZE", default_value_t = 64)]
    value_bytes: u64,
    /// Connections of the second
    #[arg(
        long,
        env = "CONNECTIONS",
        default_value = "1 16 64 256 1000 5000",
        value_delimiter = ' '
    )]
    connections: Vec<usize>,
    /// Nodes of the third
    #[arg(long, env = "NODES", default_value = "1 3 5 7", value_delimiter = ' ')]
    nodes: Vec<u16>,
    /// Bytes of a value in the fourth
    #[arg(long, env = "SIZES", default_value = "16 256 4096 65536", value_delimiter = ' ')]
    sizes: Vec<usize>,
    #[command(flatten)]
    flags: NodeFlags,
    /// Where the pictures go
    #[arg(long, env = "PICTURES", default_value = "target/figures")]
    pictures: PathBuf,
    #[command(flatten)]
    json: JsonFile,
}

/// Where nothing else is said.
const SHAPE: Shape = Shape {
    clients: 64,
    pipeline: 1,
    value_bytes: 256,
};
const PRESETS: [&str; 2] = ["put", "get"];
/// Of all keys of the first table.
const PREFIX: &str = "k";
/// A node that was started is back within, or the measurement fails.
const RETURN_MAX: Duration = Duration::from_secs(300);
/// Rest before a look at memory: what a node does behind a load ends meanwhile.
const REST: u64 = 3;

/// A row: what was varied, and what puts and gets came to.
struct Point {
    at: f64,
    figures: [Figure; 2],
    more: Vec<f64>,
}

/// Measures, prints and draws.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    let machine = Machine::look(&mut References::new());
    println!("{}", machine.line());
    let mut all = Vec::new();
    for table in &args.tables {
        let (x, more, points): (_, &[&str], _) = match table.as_str() {
            "keys" => (
                "keys",
                &[
                    "MiB of keys and values",
                    "a node's memory, MiB",
                    "of the bytes",
                    "its start, s",
                ],
                by_keys(args, &flags),
            ),
            "connections" => ("connections", &[], by_connections(args, &flags)),
            "nodes" => ("nodes", &["gets/s from any node"], by_nodes(args, &flags)),
            "sizes" => ("bytes of a value", &[], by_sizes(args, &flags)),
            other => panic!("no table is called {other}; there are: keys connections nodes sizes"),
        };
        print(x, more, &points);
        draw(x, &points, &machine).write(&args.pictures.join(format!("scale-{table}.svg")));
        all.push(json!({ "by": x, "rows": points.iter().map(Point::json).collect::<Vec<_>>() }));
    }
    args.json.write(&json!({ "machine": machine.json(), "tables": all }));
}

/// One cluster that is filled from step to step.
fn by_keys(args: &Args, flags: &[String]) -> Vec<Point> {
    let mut subject = Subject::start(3, flags);
    let mut point = |keys: u64| {
        memory::fill(&mut subject, keys, args.value_bytes, PREFIX); // those of the step before once more
        let figures = PRESETS.map(|verb| over_keys(&mut subject, verb, keys, args));
        let bytes = keys * (KEY_BYTES as u64 + args.value_bytes);
        let resident = memory::resident(&mut subject, REST);
        let most = resident.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        Point {
            at: keys as f64,
            figures,
            more: vec![mib(bytes), mib(most), most as f64 / bytes as f64, restart(&mut subject)],
        }
    };
    args.keys.iter().map(|keys| point(*keys)).collect()
}

/// Puts or gets all over the keys that are there.
fn over_keys(subject: &mut Subject, verb: &str, keys: u64, args: &Args) -> Figure {
    let script = "param keys 1\nparam bytes 1\nparam clients 1\nparam warmup 1s\nparam duration 1s\n\
                  keys k uniform $keys prefix PREFIX\nvalues v unique $bytes\nwarmup $warmup\n\
                  clients $clients c\n  for $duration\n    VERB\n  end\nend\n";
    let (millis, secs) = (|secs: f64| format!("{}ms", (secs * 1e3) as u64), args.spans);
    let parameters = [
        ("keys", keys.to_string()),
        ("bytes", args.value_bytes.to_string()),
        ("clients", SHAPE.clients.to_string()),
        ("warmup", millis(secs.warmup)),
        ("duration", millis(secs.warmup + secs.secs)),
    ];
    let command = if verb == "get" { "get $k" } else { "put $k $v" };
    subject.run(&script.replace("VERB", command).replace("PREFIX", PREFIX), &parameters)
}

/// From the start of a follower that was killed until it votes and has applied what the leader has, seconds.
fn restart(subject: &mut Subject) -> f64 {
    let leader = subject.cluster.wait_for_leader();
    let follower = leader % 3 + 1;
    assert!(subject.cluster.kill_node(follower), "the follower runs");
    let started = now();
    subject.cluster.start_node(follower).expect("the node can be started");
    let is_back = subject.cluster.wait_until(RETURN_MAX, |nodes| {
        let applied = |node| nodes.status(node).and_then(|status| status["applied"].as_u64());
        applied(leader)
            .zip(applied(follower))
            .is_some_and(|(there, here)| here >= there)
    });
    assert!(is_back, "node {follower} does not come back");
    started.elapsed().as_secs_f64()
}

fn by_connections(args: &Args, flags: &[String]) -> Vec<Point> {
    let mut subject = Subject::start(3, flags);
    let point = |clients: &usize| {
        measure(
            &mut subject,
            Shape {
                clients: *clients,
                ..SHAPE
            },
            *clients as f64,
            args.spans,
        )
    };
    args.connections.iter().map(point).collect()
}

fn by_nodes(args: &Args, flags: &[String]) -> Vec<Point> {
    let point = |nodes: &u16| {
        let mut subject = Subject::start(*nodes, flags);
        let mut point = measure(&mut subject, SHAPE, f64::from(*nodes), args.spans);
        subject.reads_from = ReadsFrom::Any;
        let spread = subject.measure(matrix::load("get", SHAPE), args.spans);
        point.more.push(spread.ops_per_s);
        point
    };
    args.nodes.iter().map(point).collect()
}

/// A cluster of its own for each size: the one before may hold gigabytes.
fn by_sizes(args: &Args, flags: &[String]) -> Vec<Point> {
    let point = |bytes: &usize| {
        let shape = Shape {
            value_bytes: *bytes,
            ..SHAPE
        };
        measure(&mut Subject::start(3, flags), shape, *bytes as f64, args.spans)
    };
    args.sizes.iter().map(point).collect()
}

fn measure(subject: &mut Subject, shape: Shape, at: f64, spans: Spans) -> Point {
    Point {
        at,
        figures: PRESETS.map(|preset| subject.measure(matrix::load(preset, shape), spans)),
        more: Vec::new(),
    }
}

fn print(x: &str, more: &[&str], points: &[Point]) {
    let columns = [
        "put/s",
        "p50 us",
        "p99 us",
        "nodes CPU s/M",
        "get/s",
        "p50 us",
        "p99 us",
        "nodes CPU s/M",
    ];
    let names: Vec<&str> = [x].into_iter().chain(columns).chain(more.iter().copied()).collect();
    println!("\n{}", head(&names));
    for point in points {
        let figures = point.figures.iter();
        let numbers = figures.flat_map(|figure| [figure.ops_per_s, figure.p50_us, figure.p99_us, figure.servers_cpu]);
        let numbers = numbers.chain(point.more.iter().copied()).map(shown);
        println!("{}", row([point.at.to_string()].into_iter().chain(numbers)));
    }
    println!();
}

fn draw(x: &'static str, points: &[Point], machine: &Machine) -> Chart {
    let line = |(colour, preset): (usize, &str)| Line {
        name: preset.to_owned(),
        colour,
        width: 2.5,
        points: points
            .iter()
            .map(|point| {
                let rate = point.figures[colour].ops_per_s;
                (point.at, rate, format!("{preset}: {rate:.0} ops/s at {} {x}", point.at))
            })
            .collect(),
    };
    Chart {
        title: format!("Throughput against {x}"),
        subtitle: machine.line(),
        x,
        y: "operations a second",
        lines: PRESETS
            .into_iter()
            .enumerate()
            .map(|(place, preset)| line((place, preset)))
            .collect(),
    }
}

impl Point {
    fn json(&self) -> Value {
        json!({ "at": self.at, "put": self.figures[0].json(), "get": self.figures[1].json(), "more": self.more })
    }
}
