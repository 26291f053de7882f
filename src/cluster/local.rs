//! Nodes as child processes: each with its own data directory, log lines with a prefix, and a pipe that ends it.

use crate::client::probe;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Added to a node's port for its debug port.
const DEBUG_PORT_OFFSET: u16 = 100;
/// A node that was asked to end is killed after so long; it promises to need at most a second.
const END_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest log line that is taken as one.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long a question to a debug port may take.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// How to run a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, 1..=64.
    pub nodes: u16,
    /// Port of node 1; node N has `base_port + N - 1`, its debug port 100 more.
    pub base_port: u16,
    /// Where the nodes' directories stand.
    pub data_dir: PathBuf,
    /// The `synodd` to run.
    pub synodd: PathBuf,
    /// Further flags of every node; `{id}` in them stands for its id.
    pub flags: Vec<String>,
}

/// What can go wrong with a cluster of processes.
#[derive(Debug)]
pub enum ClusterError {
    /// A port that a node needs is in use.
    PortTaken {
        /// Which.
        port: u16,
        /// What for.
        purpose: &'static str,
    },
    /// The node binary cannot be run.
    CannotRun {
        /// Its path.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A node ended before anybody asked it to.
    Ended {
        /// Which.
        id: u16,
        /// How.
        status: ExitStatus,
    },
    /// No leader came to be in time.
    NoLeader,
    /// Whoever waited was told to wait no longer.
    Interrupted,
    /// Anything else of the system.
    Io(io::Error),
}

/// A running (or killed) node.
struct NodeProcess {
    child: Option<Child>,
    log: Option<ChildStderr>,
    partial: Vec<u8>,
}

/// All nodes of one cluster on this machine. Dropping it kills what still runs.
pub struct LocalCluster {
    options: Options,
    nodes: BTreeMap<u16, NodeProcess>,
}

impl LocalCluster {
    /// Looks whether the ports are free, then starts all nodes.
    ///
    /// # Errors
    /// [`ClusterError`]; nothing is left running.
    pub fn start(options: Options) -> Result<LocalCluster, ClusterError> {
        let mut cluster = LocalCluster {
            nodes: BTreeMap::new(),
            options,
        };
        for id in cluster.ids() {
            for (port, purpose) in [
                (cluster.port(id), "peers and clients"),
                (cluster.debug_port(id), "the debug port"),
            ] {
                if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err() {
                    return Err(ClusterError::PortTaken { port, purpose });
                }
            }
        }
        for id in cluster.ids() {
            cluster.start_node(id)?;
        }
        Ok(cluster)
    }

    /// The node ids, ascending.
    pub fn ids(&self) -> Vec<u16> {
        (1..=self.options.nodes).collect()
    }

    /// Where peers and clients reach node `id`.
    pub fn address(&self, id: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port(id)).into()
    }

    /// Where node `id`'s debug port is.
    pub fn debug_address(&self, id: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.debug_port(id)).into()
    }

    /// All addresses, as `--endpoints` takes them.
    pub fn endpoints(&self) -> String {
        let addresses: Vec<String> = self.ids().into_iter().map(|id| self.address(id).to_string()).collect();
        addresses.join(",")
    }

    /// The data directory of node `id`.
    pub fn data_dir(&self, id: u16) -> PathBuf {
        self.options.data_dir.join(id.to_string())
    }

    /// Whether node `id` runs, as far as was seen.
    pub fn is_running(&self, id: u16) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.child.is_some())
    }

    /// The process id of node `id`, while it runs.
    pub fn pid(&self, id: u16) -> Option<u32> {
        self.nodes.get(&id)?.child.as_ref().map(Child::id)
    }

    /// Starts node `id`, which does not run, on what its directory holds.
    ///
    /// # Errors
    /// [`ClusterError::CannotRun`].
    pub fn start_node(&mut self, id: u16) -> Result<(), ClusterError> {
        let cannot_run = |source| ClusterError::CannotRun {
            program: self.options.synodd.clone(),
            source,
        };
        let list: Vec<String> = self
            .ids()
            .into_iter()
            .map(|node| format!("{node}={}", self.address(node)))
            .collect();
        let mut command = Command::new(&self.options.synodd);
        command
            .args([
                "--id",
                &id.to_string(),
                "--cluster",
                &list.join(","),
                "--exit-with-parent",
            ])
            .arg("--data-dir")
            .arg(self.data_dir(id))
            .args(
                self.options
                    .flags
                    .iter()
                    .map(|flag| flag.replace("{id}", &id.to_string())),
            )
            // The pipe is what ends the node when this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the launcher, which ends the nodes in its own order.
            .process_group(0);
        let mut child = command.spawn().map_err(cannot_run)?;
        let log = child.stderr.take().expect("stderr is piped, see above");
        fcntl_getfl(&log)
            .and_then(|flags| fcntl_setfl(&log, flags | OFlags::NONBLOCK))
            .map_err(|error| ClusterError::Io(error.into()))?;
        self.nodes.insert(
            id,
            NodeProcess {
                child: Some(child),
                log: Some(log),
                partial: Vec::new(),
            },
        );
        Ok(())
    }

    /// `kill -9` of node `id`; false if it does not run.
    pub fn kill_node(&mut self, id: u16) -> bool {
        let Some(mut child) = self.nodes.get_mut(&id).and_then(|node| node.child.take()) else {
            return false;
        };
        // Both can only fail for a child that is gone, which is what is wanted.
        let _ = child.kill();
        let _ = child.wait();
        true
    }

    /// Sends a signal to node `id`; false if it does not run.
    pub fn signal(&self, id: u16, signal: Signal) -> bool {
        let pid = self
            .pid(id)
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Waits at most `wait` for log lines, and hands each to `line` with the node it is of. Returns nodes that ended by
    /// themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn pump(&mut self, wait: Duration, mut line: impl FnMut(u16, &str)) -> io::Result<Vec<(u16, ExitStatus)>> {
        let logs: Vec<&ChildStderr> = self.nodes.values().filter_map(|node| node.log.as_ref()).collect();
        let mut fds: Vec<PollFd<'_>> = logs.iter().map(|log| PollFd::new(*log, PollFlags::IN)).collect();
        let timeout = rustix::event::Timespec {
            tv_sec: wait.as_secs() as i64,
            tv_nsec: wait.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ended = Vec::new();
        for (id, node) in &mut self.nodes {
            node.read_log(|text| line(*id, text));
            if let Some(child) = &mut node.child
                && let Some(status) = child.try_wait()?
            {
                node.child = None;
                ended.push((*id, status));
            }
        }
        Ok(ended)
    }

    /// Asks node `id`'s debug port one line; its whole answer.
    ///
    /// # Errors
    /// If it does not answer in half a second.
    pub fn ask(&self, id: u16, line: &str) -> io::Result<String> {
        probe::ask_debug(&self.debug_address(id).to_string(), line, ASK_TIMEOUT)
    }

    /// Node `id`'s status, as `json status` shows it; `None` if it does not answer.
    pub fn status(&self, id: u16) -> Option<serde_json::Value> {
        let answer = self.ask(id, "json status").ok()?;
        answer.lines().find_map(|line| serde_json::from_str(line).ok())
    }

    /// The node that calls itself leader and hears a quorum.
    pub fn leader(&self) -> Option<u16> {
        self.ids().into_iter().filter(|id| self.is_running(*id)).find(|id| {
            let status = self.status(*id).unwrap_or_default();
            status["role"] == "leader" && status["has_quorum"] == true
        })
    }

    /// Waits until there is a leader; log lines go on meanwhile.
    ///
    /// # Errors
    /// [`ClusterError::NoLeader`] after `limit`; [`ClusterError::Ended`] if a node ends.
    pub fn wait_for_leader(&mut self, limit: Duration, line: impl FnMut(u16, &str)) -> Result<u16, ClusterError> {
        self.wait_for_leader_unless(limit, || false, line)
    }

    /// As [`LocalCluster::wait_for_leader`], until `is_interrupted` says so.
    ///
    /// # Errors
    /// As there, and [`ClusterError::Interrupted`].
    pub fn wait_for_leader_unless(
        &mut self,
        limit: Duration,
        mut is_interrupted: impl FnMut() -> bool,
        mut line: impl FnMut(u16, &str),
    ) -> Result<u16, ClusterError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the launcher is at the edge: it reads the clock"
        )]
        let now = Instant::now;
        let until = now() + limit;
        while now() < until {
            if is_interrupted() {
                return Err(ClusterError::Interrupted);
            }
            if let Some((id, status)) = self
                .pump(Duration::from_millis(50), &mut line)
                .map_err(ClusterError::Io)?
                .pop()
            {
                return Err(ClusterError::Ended { id, status });
            }
            if let Some(leader) = self.leader() {
                return Ok(leader);
            }
        }
        Err(ClusterError::NoLeader)
    }

    /// Asks all nodes to end and waits for them: the leader first, so that its hand-over finds somebody, then the others.
    /// Kills them after 3 s each, or as soon as `is_killed` says so.
    ///
    /// # Errors
    /// What the system says.
    pub fn stop(&mut self, mut is_killed: impl FnMut() -> bool, mut line: impl FnMut(u16, &str)) -> io::Result<()> {
        for id in self.ids() {
            self.signal(id, Signal::CONT); // one that is stopped hears nothing else
        }
        if let Some(leader) = self.leader() {
            self.end(&[leader], &mut is_killed, &mut line)?;
        }
        self.end(&self.ids(), &mut is_killed, &mut line)?;
        self.pump(Duration::ZERO, &mut line)?;
        self.kill_all();
        Ok(())
    }

    /// Asks some nodes to end, and waits for them for a while.
    fn end(
        &mut self,
        ids: &[u16],
        mut is_killed: impl FnMut() -> bool,
        mut line: impl FnMut(u16, &str),
    ) -> io::Result<()> {
        for id in ids {
            self.signal(*id, Signal::TERM);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the launcher is at the edge: it reads the clock"
        )]
        let now = Instant::now;
        let until = now() + END_TIMEOUT;
        while ids.iter().any(|id| self.is_running(*id)) && now() < until && !is_killed() {
            self.pump(Duration::from_millis(20), &mut line)?;
        }
        Ok(())
    }

    /// Kills whatever runs.
    pub fn kill_all(&mut self) {
        for id in self.ids() {
            self.kill_node(id);
        }
    }

    fn port(&self, id: u16) -> u16 {
        self.options.base_port + id - 1
    }

    fn debug_port(&self, id: u16) -> u16 {
        self.port(id) + DEBUG_PORT_OFFSET
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.kill_all();
    }
}

impl NodeProcess {
    /// Reads what is there, line by line.
    fn read_log(&mut self, mut line: impl FnMut(&str)) {
        let Some(log) = &mut self.log else { return };
        let mut buffer = [0; 8192];
        loop {
            match log.read(&mut buffer) {
                Ok(0) => {
                    self.log = None; // the node has ended, and all that it said is read
                    break;
                }
                Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            line(String::from_utf8_lossy(&self.partial[..end]).trim_end());
            self.partial = rest;
        }
        if self.partial.len() > LINE_BYTES_MAX || (self.log.is_none() && !self.partial.is_empty()) {
            line(&String::from_utf8_lossy(&self.partial));
            self.partial.clear();
        }
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::PortTaken { port, purpose } => {
                write!(
                    f,
                    "port {port} ({purpose}) is taken on 127.0.0.1: stop what uses it, or choose another --base-port"
                )
            }
            ClusterError::CannotRun { program, source } => write!(f, "cannot run {}: {source}", program.display()),
            ClusterError::Ended { id, status } => write!(f, "node {id} ended at its start: {status}"),
            ClusterError::NoLeader => write!(f, "no leader came to be in time"),
            ClusterError::Interrupted => write!(f, "interrupted"),
            ClusterError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ClusterError {}
