//! The simulator: whole clusters in one thread, with simulated time, network, disks and clients, all from one seed.
//!
//! What runs is the code of the node: [`Turn`](crate::node::turn::Turn) over a simulated door, the machine, the log with
//! its recovery and identity over a [`SimDisk`](crate::storage::sim::SimDisk), and the client's machine. Only sockets,
//! files and clocks are replaced. TigerBeetle's VOPR and FoundationDB's simulation are the models. Invariants:
//! * V1. A seed is a run: no clock, no thread, no order of addresses has a part in it, and the digest over all events is
//!   the same in every run and every build.
//! * V2. Whatever the simulator does to a cluster, a real world could do to it; so every violation is a defect.
//! * V3. The judge ([`checks`]) believes only disks and wires, never what a node thinks of itself.
//!
//! * [`world`]: the loop of events; `turns`, `links` and `asking`: what happens in it to nodes, connections and clients.
//! * [`node`], [`door`]: one node. [`client`]: one client. [`network`]: what happens on the way. [`clock`]: clocks that
//!   differ. [`queue`]: what comes next.
//! * [`faults`]: what can go wrong. `storm`: when it does. `finale`: faults end, and everybody must be served.
//! * [`checks`]: what must hold after each step. [`report`]: what came of a run, and its digest.
//!
//! `docs/testing.md` says how to replay a seed, and how to add a fault or an invariant.
//!
//! Not here: threads, flags and printing (`cli::sim`).

mod asking;
pub mod checks;
pub mod client;
pub mod clock;
pub mod door;
pub mod faults;
mod finale;
mod links;
pub mod network;
pub mod node;
pub mod queue;
pub mod report;
mod storm;
mod turns;
pub mod world;

pub use faults::{Fault, FaultSet};
pub use report::{Report, Transcript, Violation};
pub use world::Options;

/// Runs the world of one seed to its end. `transcript` keeps its last lines, also when the code under test panics.
///
/// # Errors
/// What did not hold.
pub fn run(options: &Options, transcript: &Transcript) -> Result<Report, Violation> {
    world::World::new(options, transcript.clone()).run()
}
