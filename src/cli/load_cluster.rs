//! `synod cluster --run FILE`: a script against a cluster of its own, whose nodes it may kill and start.

use super::{Global, exit, load};
use crate::client::ReadsFrom;
use crate::cluster::LocalCluster;
use crate::cluster::local::ClusterError;
use crate::cluster::run::{ClusterArgs, LEADER_TIMEOUT, LogPrinter, options};
use crate::console::complain;
use crate::paxos::NodeId;
use crate::workload::runner::Nodes;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The nodes of a cluster on this machine, for a script.
struct Processes {
    cluster: LocalCluster,
    log: LogPrinter,
}

impl Processes {
    fn check(&self, node: NodeId) -> Result<u16, String> {
        match self.cluster.ids().contains(&node.0) {
            true => Ok(node.0),
            false => Err(format!("there is no node {}", node.0)),
        }
    }
}

impl Nodes for Processes {
    fn kill(&mut self, node: NodeId) -> Result<(), String> {
        let id = self.check(node)?;
        match self.cluster.kill_node(id) {
            true => Ok(()),
            false => Err(format!("node {id} does not run")),
        }
    }

    fn start(&mut self, node: NodeId) -> Result<(), String> {
        let id = self.check(node)?;
        if self.cluster.is_running(id) {
            return Err(format!("node {id} runs"));
        }
        self.cluster
            .start_node(id)
            .map_err(|error| format!("node {id} cannot be started: {error}"))
    }

    fn look(&mut self) -> Result<(), String> {
        let log = &mut self.log;
        let ended = self.cluster.pump(Duration::ZERO, |id, line| log.print(id, line));
        for (id, status) in ended.map_err(|error| error.to_string())? {
            // A script may have crashed it by a fault: the others go on.
            log.print(id, &format!("ended: {status}"));
        }
        Ok(())
    }
}

/// Starts the cluster, runs the script, stops the cluster; returns the script's exit code.
///
/// # Errors
/// The operating system failed this process.
pub(super) fn run(global: &Global, args: &ClusterArgs, file: &Path) -> io::Result<u8> {
    let program = match load::read(file, &BTreeMap::new()) {
        Ok(program) => program,
        Err(words) => {
            complain(&words);
            return Ok(exit::USAGE);
        }
    };
    let mut log = LogPrinter::new();
    let started = options(args).and_then(LocalCluster::start).and_then(|mut cluster| {
        cluster.wait_for_leader(LEADER_TIMEOUT, |id, line| log.print(id, line))?;
        Ok(cluster)
    });
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => {
            complain(&error.to_string());
            return Ok(match error {
                ClusterError::PortTaken { .. } | ClusterError::CannotRun { .. } => exit::USAGE,
                ClusterError::Interrupted => exit::INTERRUPTED,
                ClusterError::Ended { .. } | ClusterError::NoLeader | ClusterError::Io(_) => exit::UNREACHABLE,
            });
        }
    };
    let mut global = global.clone();
    global.endpoints = cluster.endpoints().split(',').map(str::to_owned).collect();
    let mut processes = Processes { cluster, log };
    let flags = load::RunFlags {
        reads_from: ReadsFrom::Leader,
        seed: args.seed,
        history: args.history.clone(),
        check: args.check,
        check_time: args.check_time,
        series: false,
        histogram: false,
    };
    let code = load::run_program(&global, program, &flags, Some(&mut processes));
    let Processes { cluster, log } = &mut processes;
    cluster.stop(|| false, |id, line| log.print(id, line))?;
    code
}
