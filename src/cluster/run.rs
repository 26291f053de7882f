//! `synod cluster`: a cluster to play with, until Ctrl-C.

use super::local::{ClusterError, LocalCluster, Options};
use super::torture;
use crate::console;
use crate::units;
use clap::Args;
use std::io::{self, IsTerminal, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long the nodes have to find a leader: they meet, found the cluster and elect.
pub(crate) const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// One look at the nodes and at Ctrl-C.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a cluster on this machine until Ctrl-C.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, env = "SYNOD_NODES", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub nodes: u16,

    /// Port of node 1; the others follow, debug ports are 100 higher
    #[arg(long, default_value_t = 7001, env = "SYNOD_BASE_PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub base_port: u16,

    /// Where the nodes keep their data [default: data/N-nodes]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Kills, stops, cuts off and slows nodes under a workload for so long, checks what its clients saw, and ends
    #[arg(long, value_name = "DURATION", value_parser = units::parse_positive_duration)]
    pub torture: Option<Duration>,

    /// Runs a workload script against the cluster, which it may `kill` and `start` nodes of, and ends
    #[arg(long, value_name = "FILE", conflicts_with = "torture")]
    pub run: Option<PathBuf>,

    /// Seed of --torture or --run [default: drawn afresh, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// With --run: writes every operation, for `synod check`
    #[arg(long, value_name = "FILE", requires = "run")]
    pub history: Option<PathBuf>,

    /// With --run: checks that what clients saw is linearizable; exit 1 if not, 4 if undecided
    #[arg(long, requires = "run")]
    pub check: bool,

    /// With --run: longest time for --check
    #[arg(long, value_name = "TIME", requires = "run", default_value = "60s", value_parser = units::parse_positive_duration)]
    pub check_time: Duration,

    /// Further flags of every node, behind `--`
    #[arg(last = true, value_name = "SYNODD FLAGS")]
    pub flags: Vec<String>,
}

/// Runs the command; its exit code.
pub fn run(args: &ClusterArgs) -> u8 {
    let result = match args.torture {
        Some(duration) => torture(args, duration),
        None => play(args),
    };
    result.unwrap_or_else(|error| {
        console::tell(format_args!("synod cluster: {error}"));
        match error {
            ClusterError::PortTaken { .. } | ClusterError::CannotRun { .. } => 2,
            ClusterError::Interrupted => 130,
            ClusterError::Ended { .. } | ClusterError::NoLeader | ClusterError::Io(_) => 5,
        }
    })
}

/// Counts Ctrl-C, SIGTERM and SIGHUP: once for a clean end, twice to kill. A handler writes a byte for each.
pub(super) struct Interrupts {
    reader: UnixStream,
    count: usize,
}

impl Interrupts {
    pub(super) fn listen() -> io::Result<Interrupts> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Interrupts { reader, count: 0 })
    }

    /// How many came so far.
    pub(super) fn count(&mut self) -> usize {
        let mut bytes = [0; 16];
        while let Ok(more @ 1..) = self.reader.read(&mut bytes) {
            self.count += more;
        }
        self.count
    }
}

/// The options of a cluster, as the flags say.
pub(crate) fn options(args: &ClusterArgs) -> Result<Options, ClusterError> {
    let own = std::env::current_exe().map_err(ClusterError::Io)?;
    let mut flags = vec!["--allow-faults".to_string()];
    flags.extend(args.flags.iter().cloned());
    Ok(Options {
        nodes: args.nodes,
        base_port: args.base_port,
        data_dir: args
            .data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("data/{}-nodes", args.nodes))),
        synodd: own.with_file_name("synodd"),
        flags,
    })
}

fn play(args: &ClusterArgs) -> Result<u8, ClusterError> {
    let mut interrupts = Interrupts::listen().map_err(ClusterError::Io)?;
    let mut cluster = LocalCluster::start(options(args)?)?;
    let mut log = LogPrinter::new();
    let is_interrupted = || interrupts.count() > 0;
    match cluster.wait_for_leader_unless(LEADER_TIMEOUT, is_interrupted, |id, line| log.print(id, line)) {
        Ok(leader) => console::print(welcome(&cluster, leader).as_bytes()).map_err(ClusterError::Io)?,
        Err(ClusterError::Interrupted) => {}
        Err(error) => return Err(error),
    }
    while interrupts.count() == 0 {
        for (id, status) in cluster
            .pump(LOOK, |id, line| log.print(id, line))
            .map_err(ClusterError::Io)?
        {
            log.print(id, &format!("ended: {status}; the others go on while a majority lives"));
        }
        if cluster.ids().iter().all(|id| !cluster.is_running(*id)) {
            console::tell("all nodes have ended");
            return Ok(1);
        }
    }
    console::tell(format_args!(
        "\nstopping {} nodes (Ctrl-C again kills them)",
        args.nodes
    ));
    let is_killed = || interrupts.count() > 1;
    cluster
        .stop(is_killed, |id, line| log.print(id, line))
        .map_err(ClusterError::Io)?;
    Ok(0)
}

/// Tortures a cluster of its own; the exit code.
fn torture(args: &ClusterArgs, duration: Duration) -> Result<u8, ClusterError> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let directory = args
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("synod-torture-{seed}-{}", std::process::id())));
    console::tell(format_args!(
        "torture of {} nodes for {duration:?}, seed {seed}",
        args.nodes
    ));
    let mut interrupts = Interrupts::listen().map_err(ClusterError::Io)?;
    let options = Options {
        data_dir: directory.clone(),
        ..options(args)?
    };
    let settings = torture::Settings {
        seed,
        duration,
        directory: directory.clone(),
        is_told: true,
    };
    let report = torture::run(options, &settings, || interrupts.count() > 0);
    let code = report.as_ref().map_or(1, torture::Report::code);
    if args.data_dir.is_none() && matches!(code, 0 | 130) {
        let _ = std::fs::remove_dir_all(&directory); // what cannot be removed does no harm
    } else {
        console::tell(format_args!(
            "data, logs and what is left of the histories stand in {}",
            directory.display()
        ));
    }
    let report = report?;
    console::print(report.to_string().as_bytes()).map_err(ClusterError::Io)?;
    Ok(code)
}

fn welcome(cluster: &LocalCluster, leader: u16) -> String {
    let node = |id: u16| {
        let role = if id == leader { "  leader" } else { "" };
        let (address, debug) = (cluster.address(id), cluster.debug_address(id));
        format!("node {id}  {address}  debug {debug}{role}\n")
    };
    let nodes: String = cluster.ids().into_iter().map(node).collect();
    let synod = std::env::args().next().unwrap_or_else(|| "synod".into());
    // Commands work as they stand from where this was started, on any ports.
    let endpoints = if cluster.endpoints() == crate::client::options::ENDPOINTS_DEFAULT {
        String::new()
    } else {
        format!(" --endpoints {}", cluster.endpoints())
    };
    let debug = cluster.debug_address(leader);
    let (ip, port) = (debug.ip(), debug.port());
    format!(
        "\n{nodes}\ntry, in another terminal:
  {synod}{endpoints} put color blue
  {synod}{endpoints} get color
  echo status | nc -N {ip} {port}
Ctrl-C stops the cluster; its data stays.\n\n"
    )
}

/// Log lines with the node in front, in its colour on a terminal.
pub(crate) struct LogPrinter {
    is_coloured: bool,
}

impl LogPrinter {
    pub(crate) fn new() -> LogPrinter {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        LogPrinter {
            is_coloured: io::stderr().is_terminal() && !is_refused,
        }
    }

    pub(crate) fn print(&mut self, id: u16, line: &str) {
        const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];
        if self.is_coloured {
            let colour = COLOURS[usize::from(id - 1) % COLOURS.len()];
            console::tell(format_args!("\x1b[{colour}mn{id}\x1b[0m {line}"));
        } else {
            console::tell(format_args!("n{id} {line}"));
        }
    }
}
