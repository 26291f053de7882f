//! What tests with real processes share: a cluster on free ports, in a directory of its own.
//!
//! Ports are taken below the ephemeral range, so that no connection of this machine sits on them by chance, and tried
//! anew if they are taken.

#![allow(dead_code, reason = "each file of tests uses its own part")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use synod::cluster::local::{ClusterError, LocalCluster, Options};

/// Ports are drawn from here on, in blocks: nodes first, their debug ports 100 higher.
const PORT_MIN: u16 = 10_000;
/// How many blocks there are; Linux hands out ephemeral ports from 32768 on.
const BLOCKS: u16 = 110;
const BLOCK_PORTS: u16 = 200;
/// The exit code of a node that cannot listen.
const PORT_TAKEN: i32 = 4;
/// Another block is tried so often.
const TRIES: usize = 50;
/// Tests write little: small segments are quicker to preallocate.
const SMALL: [&str; 2] = ["--segment-bytes", "8MiB"];
/// A leader comes to be within; a loaded machine takes its time.
const LEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster of processes, with the directory that it lives in. Dropping it kills the processes first.
pub(crate) struct TestCluster {
    pub(crate) nodes: LocalCluster,
    _directory: tempfile::TempDir,
}

/// Starts `nodes` nodes with `flags` (`{id}` stands for a node's id) and waits until one of them leads.
pub(crate) fn start_cluster(nodes: u16, flags: &[&str]) -> TestCluster {
    for _ in 0..TRIES {
        let mut cluster = launch(nodes, flags);
        match cluster.nodes.wait_for_leader(LEADER_TIMEOUT, print_line) {
            Ok(_) => return cluster,
            // Somebody took the port between our look and the node's.
            Err(ClusterError::Ended { status, .. }) if status.code() == Some(PORT_TAKEN) => {}
            Err(error) => panic!("no leader came to be: {error}"),
        }
    }
    panic!("no free ports in {TRIES} tries")
}

/// Starts them and does not wait.
pub(crate) fn launch(nodes: u16, flags: &[&str]) -> TestCluster {
    let directory = tempfile::tempdir().expect("the system has room for a directory");
    for _ in 0..TRIES {
        let options = Options {
            nodes,
            base_port: next_block(),
            data_dir: directory.path().to_path_buf(),
            synodd: env!("CARGO_BIN_EXE_synodd").into(),
            flags: SMALL.iter().chain(flags).map(|flag| (*flag).to_string()).collect(),
        };
        match LocalCluster::start(options) {
            Ok(nodes) => {
                return TestCluster {
                    nodes,
                    _directory: directory,
                };
            }
            Err(ClusterError::PortTaken { .. }) => {}
            Err(error) => panic!("the cluster does not start: {error}"),
        }
    }
    panic!("no free ports in {TRIES} tries")
}

/// Tests of one process never take the same block at once; where they begin is drawn, for those of another.
fn next_block() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(fastrand::u16(0..BLOCKS)));
    PORT_MIN + next.fetch_add(1, Ordering::Relaxed) % BLOCKS * BLOCK_PORTS
}

/// Log lines of nodes, shown only if the test fails.
pub(crate) fn print_line(id: u16, line: &str) {
    println!("n{id} {line}");
}
