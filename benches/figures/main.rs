//! The figures of docs/performance.md: clusters of real processes, and beside them what this machine allows at best.
//!
//! Figures of different minutes do not compare, so each is told as a ratio to a reference that was measured right before
//! and right behind it: a bare leader-follower replication loop with fdatasync and without Paxos, or an echo.
//!
//! * `matrix`: mixes, clients, pipelines and sizes in a table. `plot`: throughput against latency, as SVG.
//! * `targets`: the ratios that are aimed at, in pairs. `failover`: the leader killed, handed over; a follower killed.
//! * `memory`: growth by a million keys. `scale`: by keys, connections, nodes and sizes. `limits`: the references alone.
//! * `overload`: twice what a cluster can take. `hold`: the most memory that a node holds, beside the sum of its bounds.
//! * `disk`: what snapshots of much data take, and a node that is sent one. `chart`: pictures.
//!
//! `make bench…` runs them. Not here: codec, log and state machine by themselves (micro.rs).

mod chart;
mod disk;
mod failover;
mod figure;
mod hold;
mod machine;
mod matrix;
mod memory;
mod net;
mod overload;
mod plot;
mod reference;
mod scale;
mod servers;
mod subject;
#[path = "../../tests/support/mod.rs"]
mod support;
mod targets;

use clap::{Parser, Subcommand};
use std::time::Instant;

/// Measures clusters of real processes against what this machine allows
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Mixes, clients, pipelines and value sizes against the bare replication loop
    Matrix(matrix::Args),
    /// The ratios that are aimed at, each in pairs with its reference
    Targets(targets::Args),
    /// Throughput against latency, as SVG
    Plot(plot::Args),
    /// The leader killed and handed over under load, a follower killed and started
    Failover(failover::Args),
    /// Snapshots of much data: turns, directories, memory, a new disk, a restart
    Disk(disk::Args),
    /// Growth of resident memory by keys
    Memory(memory::Args),
    /// Throughput, memory and start by keys, connections, nodes and sizes of values
    Scale(scale::Args),
    /// Twice what a cluster can take, for a minute
    Overload(overload::Args),
    /// The most that a node holds in memory under everything that is bounded, beside the sum of the bounds
    Hold(hold::Args),
    /// What this machine allows: disk, echo, bare replication
    Limits(subject::Spans),
    /// One of the references' processes
    #[command(hide = true)]
    Serve {
        role: String,
        log: Option<String>,
        followers: Vec<u16>,
    },
}

fn main() {
    match Cli::parse().command {
        Command::Matrix(args) => matrix::run(&args),
        Command::Targets(args) => targets::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Failover(args) => failover::run(&args),
        Command::Disk(args) => disk::run(&args),
        Command::Memory(args) => memory::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Overload(args) => overload::run(&args),
        Command::Hold(args) => hold::run(&args),
        Command::Limits(spans) => machine::limits(spans),
        Command::Serve { role, log, followers } => {
            let log = log.unwrap_or_default();
            match role.as_str() {
                "echo" => servers::echo(),
                "follower" => servers::follower(&log),
                "leader" => servers::leader(&log, &followers),
                _ => panic!("no server is called {role}"),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
