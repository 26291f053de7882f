//! The simulator: whole clusters in one thread, with simulated time, network, disks and clients, all from one seed.
//!
//! What runs is the code of the node: [`Turn`](crate::node::turn::Turn) over a simulated door, the machine, the log with
//! its recovery and identity over a [`SimDisk`](crate::storage::sim::SimDisk), and the client's machine. Only sockets,
//! files and clocks are replaced. TigerBeetle's VOPR and FoundationDB's simulation are the models. Invariants:
//! * U1. A seed is a run: no clock, no thread, no order of addresses has a part in it, and the digest over all events is
//!   the same in every run and every build.
//! * U2. Whatever the simulator does to a cluster, a real world could do to it; so every violation is a defect.
//! * U3. The judge ([`checks`]) believes only disks and wires, never what a node thinks of itself.
//!
//! * [`world`]: the loop of events; `turns`, `links` and `asking`: what happens in it to nodes, connections and clients.
//! * [`node`], [`door`]: one node. [`client`]: one client. [`network`]: what happens on the way. [`clock`]: clocks that
//!   differ. [`queue`]: what comes next.
//! * [`faults`]: what can go wrong. `storm`: when it does. `finale`: faults end, and everybody must be served.
//! * [`checks`], `elections`, `reads`: what must hold after each step. [`report`]: what came of a run, and its digest.
//!
//! `docs/testing.md` says how to replay a seed, and how to add a fault or an invariant.
//!
//! Not here: threads, flags and printing (`cli::sim`).

mod amnesia;
mod asking;
pub mod chance;
pub mod checks;
pub mod client;
pub mod clock;
pub mod door;
mod elections;
pub mod faults;
mod finale;
pub mod lessons;
mod links;
pub mod mermaid;
pub mod network;
pub mod node;
pub mod options;
pub mod plan;
pub mod queue;
mod reads;
pub mod report;
pub mod shrink;
mod storm;
pub mod transcript;
mod turns;
pub mod words;
pub mod world;

pub use faults::{Fault, FaultSet};
pub use options::Options;
pub use report::{Report, Violation};
pub use transcript::Transcript;

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// The rule that a panic of the code under test breaks.
pub const PANIC: &str = "panic";

/// Runs the world of one seed to its end. `transcript` keeps its last lines, also when the code under test panics.
///
/// # Errors
/// What did not hold.
pub fn run(options: &Options, transcript: &Transcript) -> Result<Report, Violation> {
    world::World::new(options, transcript.clone()).run()
}

/// [`run`], where a panic of the code under test is a violation like any other.
///
/// # Errors
/// What did not hold.
pub fn attempt(options: &Options, transcript: &Transcript) -> Result<Report, Violation> {
    let ran = panic::catch_unwind(AssertUnwindSafe(|| run(options, transcript)));
    ran.unwrap_or_else(|panicked| {
        let violation = Violation {
            rule: PANIC,
            words: words_of(panicked.as_ref()),
        };
        let at = transcript.happened().until;
        transcript.tell(at, || transcript::Scene::Violation {
            words: violation.to_string(),
        });
        Err(violation)
    })
}

fn words_of(panicked: &(dyn Any + Send)) -> String {
    let words = panicked
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panicked.downcast_ref::<&str>().copied());
    words.unwrap_or("without words").into()
}
