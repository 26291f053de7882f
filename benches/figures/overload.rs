//! Twice what a cluster can take, for a while: what it still does, and what becomes of the rest.
//!
//! All nodes run on one core and the generator on another, so that the one cannot starve the others.

use crate::figure::{head, row, shown};
use crate::machine::{JsonFile, Machine};
use crate::matrix;
use crate::memory;
use crate::reference::{References, Shape};
use crate::subject::{NodeFlags, Spans, Subject};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};
use std::time::Duration;

/// How much, and how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spans: Spans,
    /// How long too much is asked, seconds
    #[arg(long, env = "OVERLOAD", default_value_t = 60)]
    overload_secs: u64,
    /// How many times the best is asked
    #[arg(long, env = "TIMES", default_value_t = 2.0)]
    times: f64,
    /// Deadline of an operation, milliseconds
    #[arg(long, env = "DEADLINE_MS", default_value_t = 500)]
    deadline_ms: u64,
    /// Connections of the open load [default: so many that no operation waits for another to end]
    #[arg(long, env = "CONNECTIONS", value_parser = clap::value_parser!(u64).range(1..))]
    connections: Option<u64>,
    #[command(flatten)]
    flags: NodeFlags,
    #[command(flatten)]
    json: JsonFile,
}

/// Loads of which the best counts: clients, and operations that each has in flight.
const CLOSED: [(usize, usize); 4] = [(64, 1), (256, 1), (64, 16), (256, 16)];
/// Operations in flight of each at most: a node refuses no connection for less.
const PIPELINE_MAX: f64 = 250.0;
const VALUE_BYTES: usize = 256;
const NODES_CORE: usize = 0;
const OWN_CORE: usize = 1;
/// Rest before a look at memory, seconds.
const REST: u64 = 2;

/// What stays as it was if nobody is elected and nothing grows.
struct State {
    ballot: String,
    /// Of the node that has most, bytes.
    resident: u64,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    let machine = Machine::look(&mut References::new());
    let mut subject = Subject::start(3, &flags);
    pin(&subject);
    let best = best(&mut subject, args.spans);
    let before = look(&mut subject);
    let rate = (best * args.times) as u64;
    let (lines, json) = overload(&mut subject, rate, best, args);
    let behind = look(&mut subject);
    println!(
        "{}\nnodes on core {NODES_CORE}, the generator on core {OWN_CORE}\n",
        machine.line()
    );
    println!("{}", head(&["what", "figure"]));
    let mib = |bytes: u64| shown(bytes as f64 / f64::from(1 << 20));
    let states = [
        ("ballot of the leader before", before.ballot.clone()),
        ("and behind; the same if nobody was elected", behind.ballot.clone()),
        ("a node's memory before, MiB", mib(before.resident)),
        ("and behind", mib(behind.resident)),
    ];
    for (what, figure) in lines.into_iter().chain(states) {
        println!("{}", row([what, figure.as_str()]));
    }
    let state = |state: &State| json!({ "ballot": state.ballot, "resident_bytes": state.resident });
    let json = json!({
        "machine": machine.json(),
        "best_ops_per_s": best,
        "overload": json,
        "before": state(&before),
        "behind": state(&behind),
    });
    args.json.write(&json);
}

/// Puts the nodes on one core and this program on another.
fn pin(subject: &Subject) {
    let on = |pid: Option<Pid>, core: usize| {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(pid, &cores).expect("two cores are there");
    };
    for node in subject.cluster.ids() {
        let pid = subject
            .cluster
            .pid(node)
            .and_then(|pid| Pid::from_raw(pid.cast_signed()));
        on(Some(pid.expect("the node runs")), NODES_CORE);
    }
    on(None, OWN_CORE);
}

/// The most puts a second that any closed load brings about.
fn best(subject: &mut Subject, spans: Spans) -> f64 {
    let mut rate = |(clients, pipeline): (usize, usize)| {
        let shape = Shape {
            clients,
            pipeline,
            value_bytes: VALUE_BYTES,
        };
        subject.measure(matrix::load("put", shape), spans).ops_per_s
    };
    CLOSED.into_iter().map(&mut rate).fold(0.0, f64::max)
}

/// The open load: what came of it, for people and for programs.
fn overload(subject: &mut Subject, rate: u64, best: f64, args: &Args) -> (Vec<(&'static str, String)>, Value) {
    let deadline = Duration::from_millis(args.deadline_ms);
    // A start waits for nothing even if every operation takes as long as it may.
    let in_flight = (rate as f64 * deadline.as_secs_f64()).ceil();
    let connections = args.connections.unwrap_or((in_flight / PIPELINE_MAX).ceil() as u64);
    let pipeline = (in_flight / connections as f64).ceil().min(PIPELINE_MAX) as usize;
    let script = "param clients 1\nparam pipeline 1\nparam rate 1\nparam bytes 1\nparam duration 1s\n\
                  keys k uniform 10000\nvalues v unique $bytes\nwarmup 2s\n\
                  clients $clients c pipeline $pipeline rate $rate\n  for $duration\n    put $k $v\n  end\nend\n";
    let parameters = [
        ("clients", connections.to_string()),
        ("pipeline", pipeline.to_string()),
        ("rate", rate.to_string()),
        ("bytes", VALUE_BYTES.to_string()),
        ("duration", format!("{}s", args.overload_secs)),
    ];
    let report = subject.report(script, &parameters, Some(deadline));
    let (all, elapsed) = (report.summary.all(), report.summary.elapsed());
    let done = all.ops_per_s(elapsed);
    let generator = report.costs.map_or(f64::NAN, |costs| costs.generator.share());
    let offered = all.ops() as f64 / elapsed.as_secs_f64();
    let lines = vec![
        ("best, puts/s", shown(best)),
        (
            "connections, each with so many in flight at most",
            format!("{connections} x {pipeline}"),
        ),
        ("deadline of each, ms", args.deadline_ms.to_string()),
        ("asked for, puts/s", shown(offered)),
        ("done, puts/s", shown(done)),
        ("of the best", shown(done / best)),
        (
            "certainly not done, puts/s",
            shown(all.not_done as f64 / elapsed.as_secs_f64()),
        ),
        ("unknown, puts/s", shown(all.unknown as f64 / elapsed.as_secs_f64())),
        (
            "most frequent cause",
            report.summary.main_cause().unwrap_or("-").to_owned(),
        ),
        (
            "p50 of what was done, from the intended start, ms",
            shown(all.quantile_us(0.5) / 1e3),
        ),
        ("p99", shown(all.quantile_us(0.99) / 1e3)),
        ("most", shown(all.max_us() / 1e3)),
        (
            "p99 of how late operations began, ms",
            shown(report.summary.late_us(0.99) / 1e3),
        ),
        ("the generator's share of its core", shown(generator)),
    ];
    let json = json!({
        "connections": connections,
        "pipeline": pipeline,
        "deadline_ms": args.deadline_ms,
        "asked_per_s": offered,
        "done_per_s": done,
        "of_best": done / best,
        "not_done": all.not_done,
        "unknown": all.unknown,
        "main_cause": report.summary.main_cause(),
        "p50_us": all.quantile_us(0.5),
        "p99_us": all.quantile_us(0.99),
        "max_us": all.max_us(),
        "late_p99_us": report.summary.late_us(0.99),
        "generator_cpu_share": generator,
    });
    (lines, json)
}

fn look(subject: &mut Subject) -> State {
    let resident = memory::resident(subject, REST);
    let leader = subject.cluster.wait_for_leader();
    let status = subject.cluster.status(leader).expect("the leader answers");
    State {
        ballot: status["ballot"].as_str().unwrap_or("-").to_owned(),
        resident: resident.into_iter().map(|(_, bytes)| bytes).max().unwrap_or(0),
    }
}
