//! What the machine allows: an echo, a bare replication loop and the disk alone, in processes of their own.
//!
//! Started once and idle while others are measured: a figure can have its reference right before and right behind it.

use crate::figure::{Figure, Latencies, cpu_seconds};
use crate::net::Load;
use crate::now;
use crate::servers::preallocated;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Of a request: head, session, number and key beside the value.
const REQUEST_BYTES: usize = 24;
/// A request or an answer without a value.
const ECHO_BYTES: usize = 100;
/// What a small turn writes to its log.
const SYNC_BYTES: usize = 4096;

/// Which reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One process that sends back what it gets.
    Echo,
    /// A leader and two followers in memory.
    Memory,
    /// The same, each batch synced at the leader and at both followers.
    Durable,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Echo => "echo",
            Kind::Memory => "bare loop, memory",
            Kind::Durable => "bare loop",
        }
    }
}

/// A shape of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) clients: usize,
    pub(crate) pipeline: usize,
    pub(crate) value_bytes: usize,
}

/// A child that runs one of the servers; it prints its port first.
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    fn start(words: &[&str]) -> Process {
        let own = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(own);
        let mut child = command
            .arg("serve")
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it says its port");
        let port = line.trim().parse().expect("a port is a number");
        Process { child, port }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both can only fail for a child that is gone, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One reference, running.
struct Running {
    kind: Kind,
    /// The first is the one that clients talk to.
    processes: Vec<Process>,
}

/// The references, each started when it is first asked for.
pub(crate) struct References {
    directory: tempfile::TempDir,
    running: Vec<Running>,
}

impl References {
    pub(crate) fn new() -> References {
        References {
            directory: tempfile::tempdir().expect("the system has room for a directory"),
            running: Vec::new(),
        }
    }

    /// Measures one of them. An echo is of small frames, whatever the shape's values are.
    pub(crate) fn measure(&mut self, kind: Kind, shape: Shape, span: Duration) -> Figure {
        let directory = self.directory.path().to_path_buf();
        let place = self
            .running
            .iter()
            .position(|running| running.kind == kind)
            .unwrap_or_else(|| {
                self.running.push(Running::start(kind, &directory));
                self.running.len() - 1
            });
        let processes = &self.running[place].processes;
        let bytes = match kind {
            Kind::Echo => ECHO_BYTES,
            Kind::Memory | Kind::Durable => shape.value_bytes + REQUEST_BYTES,
        };
        let mut load = Load::connect(processes[0].port, shape.clients, shape.pipeline, bytes);
        load.run(span / 4); // warm-up
        let cpu = || {
            let servers: f64 = processes.iter().map(|process| cpu_seconds(process.child.id())).sum();
            (servers, cpu_seconds(std::process::id()))
        };
        let before = cpu();
        let (latencies, took) = load.run(span);
        let behind = cpu();
        let million = latencies.count() as f64 / 1e6;
        Figure {
            servers_cpu: (behind.0 - before.0) / million,
            client_cpu: (behind.1 - before.1) / million,
            client_share: (behind.1 - before.1) / took.as_secs_f64(),
            ..Figure::of(&latencies, took)
        }
    }

    /// One small write with its sync after the other, to a preallocated file.
    pub(crate) fn measure_sync(&self, span: Duration) -> Figure {
        let file = preallocated(&self.directory.path().join("sync"));
        let block = [7; SYNC_BYTES];
        let (mut latencies, begun, mut at) = (Latencies::new(), now(), 0);
        while begun.elapsed() < span {
            let sent = now();
            file.write_all_at(&block, at).expect("the disk takes it");
            file.sync_data().expect("the disk syncs");
            latencies.add(sent.elapsed());
            at = (at + block.len() as u64) % (32 << 20);
        }
        Figure::of(&latencies, begun.elapsed())
    }
}

impl Running {
    fn start(kind: Kind, directory: &Path) -> Running {
        let log = |name: &str| -> PathBuf { directory.join(name) };
        let processes = match kind {
            Kind::Echo => vec![Process::start(&["echo"])],
            Kind::Memory | Kind::Durable => {
                let path = |name: &str| match kind {
                    Kind::Durable => log(name).display().to_string(),
                    _ => "-".to_owned(),
                };
                let followers = ["1", "2"].map(|name| Process::start(&["follower", &path(name)]));
                let ports = followers.each_ref().map(|follower| follower.port.to_string());
                let leader = Process::start(&["leader", &path("0"), &ports[0], &ports[1]]);
                std::iter::once(leader).chain(followers).collect()
            }
        };
        Running { kind, processes }
    }
}
