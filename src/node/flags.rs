//! The command line of `synodd`: every flag with its variable, default and unit, and the combinations that make no sense.
//!
//! [`Flags`] is what clap reads; [`Flags::check`] makes a [`Config`] of it or says in one line what is wrong. Nothing
//! behind this file sees an unchecked flag.

use super::cluster_list::{ClusterList, Member};
use crate::command::AcceptorFailures;
use crate::machine::Settings;
use crate::machine::io::CLOCK_RATE_BOUND_PPM;
use crate::paxos::NodeId;
use crate::units;
use crate::version::VERSION;
use crate::wire::hello::LEASE_MS_MAX;
use clap::Parser;
use clap::builder::BoolishValueParser;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Added to the node's port for the default debug port.
pub const DEBUG_PORT_OFFSET: u16 = 100;
/// Two lost heartbeats must not start an election: the election timeout is at least so many heartbeats.
pub const HEARTBEATS_IN_ELECTION_TIMEOUT: u32 = 3;
/// A lease is renewed once a heartbeat, and should outlive one that is lost.
pub const HEARTBEATS_IN_LEASE: u32 = 3;
/// Longest lease.
pub const LEASE_MAX: Duration = Duration::from_millis(LEASE_MS_MAX as u64);
/// Smallest segment of the write-ahead log: the largest entry must fit with room to spare.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// So many segments, at least, fit the log between two snapshots: else a truncated log would hold far more than it must.
pub const SEGMENTS_IN_SNAPSHOT_BYTES: u64 = 4;

const EXIT_CODES: &str = "\
Exit codes:
  0    clean end: SIGTERM or SIGINT, leadership handed over, all synced
  1    stopped while running: a failed write or sync, or state that must not go on; the log says which
  2    usage: a flag or a combination of flags is wrong
  3    the data directory cannot be used: locked, damaged, of another node or cluster, of a newer format, not writable
  4    an address cannot be listened on, or the system refused what the event loop needs
  101  an invariant was broken (a bug): the node stopped rather than go on
  130  a second SIGTERM or SIGINT: stopped at once

Durations carry a unit (50ms, 5s, 10m); sizes are bytes or carry one (64KiB, 8MiB, 1GiB).
Every flag can be given by its variable instead; the flag wins.";

/// One node of a Synod cluster.
#[derive(Parser, Debug, Clone)]
#[command(name = "synodd", version = VERSION.as_str(), about, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Flags {
    /// This node's id, 1..=65535, one of those in --cluster
    #[arg(long, env = "SYNOD_ID", value_parser = clap::value_parser!(u16).range(1..))]
    pub id: u16,

    /// All founding nodes: ID=HOST:PORT,ID=HOST:PORT,... (a name is looked up at the first dial and after failed ones)
    #[arg(long, env = "SYNOD_CLUSTER", value_name = "LIST")]
    pub cluster: ClusterList,

    /// Where this node keeps its log and its identity; made if it is not there
    #[arg(long, env = "SYNOD_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Name of the cluster; nodes and clients of another name are refused
    #[arg(long, env = "SYNOD_CLUSTER_NAME", value_name = "NAME", default_value = "synod")]
    pub cluster_name: String,

    /// Address to listen on for peers and clients [default: its own in --cluster]
    #[arg(long, env = "SYNOD_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Address that peers and clients are told to use [default: its own in --cluster]
    #[arg(long, env = "SYNOD_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Address of the debug port, or `off` [default: 127.0.0.1:(port in --cluster + 100)]
    #[arg(long, env = "SYNOD_DEBUG_LISTEN", value_name = "HOST:PORT|off")]
    pub debug_listen: Option<String>,

    /// Lets the debug port listen beyond loopback: whoever reaches it can read, write and (with --allow-faults) break
    #[arg(long, env = "SYNOD_DEBUG_ALLOW_REMOTE", value_parser = BoolishValueParser::new())]
    pub debug_allow_remote: bool,

    /// How often a leader says that it lives
    #[arg(long, env = "SYNOD_HEARTBEAT", value_name = "DURATION", default_value = "50ms", value_parser = units::parse_positive_duration)]
    pub heartbeat: Duration,

    /// Shortest silence after which a leader is taken as lost (drawn from one to two of it); at least 3 heartbeats
    #[arg(long, env = "SYNOD_ELECTION_TIMEOUT", value_name = "DURATION", default_value = "300ms", value_parser = units::parse_positive_duration)]
    pub election_timeout: Duration,

    /// A leader reads by leases of this length instead of asking a quorum. All nodes of a cluster are founded with one
    /// length, and after a leader's end no other is made before a lease is over; at least 3 heartbeats [default: no leases]
    #[arg(long, env = "SYNOD_READ_LEASE", value_name = "DURATION", value_parser = units::parse_positive_duration)]
    pub read_lease: Option<Duration>,

    /// By how many millionths (ppm) the clock of any node may run too fast or too slow; leases are safe within it only
    #[arg(long, env = "SYNOD_CLOCK_RATE_BOUND", value_name = "PPM", default_value_t = CLOCK_RATE_BOUND_PPM, value_parser = clap::value_parser!(u32).range(0..=300_000))]
    pub clock_rate_bound: u32,

    /// How long a request is held that states no deadline of its own
    #[arg(long, env = "SYNOD_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = units::parse_positive_duration)]
    pub request_timeout: Duration,

    /// Most client connections; cut to what the system's limit of open files allows
    #[arg(long, env = "SYNOD_MAX_CONNECTIONS", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,

    /// Size of one segment of the write-ahead log, at most a quarter of --snapshot-bytes; one more is kept preallocated
    #[arg(long, env = "SYNOD_SEGMENT_BYTES", value_name = "SIZE", default_value = "16MiB", value_parser = units::parse_size)]
    pub segment_bytes: u64,

    /// A snapshot is taken when the log has grown by so much (or by a quarter of the last snapshot, if that is more);
    /// the log behind it is kept for now
    #[arg(long, env = "SYNOD_SNAPSHOT_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = units::parse_size)]
    pub snapshot_bytes: u64,

    /// With less room than this on the disk of all but a minority, writes are refused as `no_space` before they are
    /// proposed; deletes go on down to a quarter of it, votes and reads below that
    #[arg(long, env = "SYNOD_DISK_RESERVE", value_name = "SIZE", default_value = "16MiB", value_parser = units::parse_size)]
    pub disk_reserve: u64,

    /// Bytes that the scrub reads in a second, at most: it looks at what was synced, again and again, for rot; 0: off
    #[arg(long, env = "SYNOD_SCRUB_BYTES_PER_SECOND", value_name = "SIZE", default_value = "1MiB", value_parser = units::parse_size)]
    pub scrub_bytes_per_second: u64,

    /// Most bytes of requests that wait to be proposed or relayed; above it clients are told `busy`
    #[arg(long, env = "SYNOD_QUEUE_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = units::parse_size)]
    pub queue_bytes: u64,

    /// Most bytes that all connections hold together, of what came in and of what waits to go out; above it clients are
    /// not read
    #[arg(long, env = "SYNOD_BUFFER_BYTES", value_name = "SIZE", default_value = "256MiB", value_parser = units::parse_size)]
    pub buffer_bytes: u64,

    /// Recent log entries kept in memory for peers that catch up
    #[arg(long, env = "SYNOD_CACHE_BYTES", value_name = "SIZE", default_value = "64MiB", value_parser = units::parse_size)]
    pub cache_bytes: u64,

    /// Allows the `fault` commands of the debug port
    #[arg(long, env = "SYNOD_ALLOW_FAULTS", value_parser = BoolishValueParser::new())]
    pub allow_faults: bool,

    /// Makes the acceptor fail and restart at random: mtbf=DURATION,mttr=DURATION[,seed=N]
    #[arg(long, env = "SYNOD_ACCEPTOR_FAILURES", value_name = "SPEC")]
    pub acceptor_failures: Option<AcceptorFailures>,

    /// Ends the node, as SIGTERM would, when its standard input (a pipe held by its launcher) is closed
    #[arg(long, env = "SYNOD_EXIT_WITH_PARENT", value_parser = BoolishValueParser::new(), hide = true)]
    pub exit_with_parent: bool,
}

/// Where the debug port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DebugListen {
    /// Nowhere.
    Off,
    /// `host:port`.
    At(String),
}

/// The checked configuration of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// All founders, ascending, with the addresses of `--cluster`.
    pub members: Vec<Member>,
    /// The cluster's name.
    pub cluster_name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// `host:port` for peers and clients.
    pub listen: String,
    /// What peers and clients are told.
    pub advertise: String,
    /// The debug port.
    pub debug: DebugListen,
    /// Whether the debug port may listen beyond loopback.
    pub debug_allow_remote: bool,
    /// See [`Flags::heartbeat`].
    pub heartbeat: Duration,
    /// See [`Flags::election_timeout`].
    pub election_timeout: Duration,
    /// See [`Flags::read_lease`]; zero: none.
    pub read_lease: Duration,
    /// See [`Flags::clock_rate_bound`].
    pub clock_rate_bound_ppm: u32,
    /// See [`Flags::request_timeout`].
    pub request_timeout: Duration,
    /// See [`Flags::max_connections`].
    pub max_connections: usize,
    /// See [`Flags::segment_bytes`]; at most a quarter of `snapshot_bytes`.
    pub segment_bytes: u64,
    /// See [`Flags::snapshot_bytes`].
    pub snapshot_bytes: u64,
    /// See [`Flags::disk_reserve`].
    pub disk_reserve: u64,
    /// See [`Flags::scrub_bytes_per_second`].
    pub scrub_bytes_per_second: u64,
    /// See [`Flags::queue_bytes`].
    pub queue_bytes: usize,
    /// See [`Flags::buffer_bytes`].
    pub buffer_bytes: usize,
    /// See [`Flags::cache_bytes`].
    pub cache_bytes: usize,
    /// See [`Flags::allow_faults`].
    pub allow_faults: bool,
    /// See [`Flags::acceptor_failures`].
    pub acceptor_failures: Option<AcceptorFailures>,
    /// See [`Flags::exit_with_parent`].
    pub exit_with_parent: bool,
}

/// A flag, or a combination of flags, that makes no sense. One line for a person; exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageError {
    /// `--id` does not stand in `--cluster`.
    NotListed {
        /// The id.
        id: u16,
        /// The ids that do.
        listed: Vec<NodeId>,
    },
    /// `--heartbeat` × 3 is above `--election-timeout`.
    Heartbeat {
        /// The one.
        heartbeat: Duration,
        /// The other.
        election_timeout: Duration,
    },
    /// An address is not `host:port`.
    Address {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: String,
    },
    /// The node's port is so high that port + 100 is none.
    NoDebugPort {
        /// The node's port.
        port: u16,
    },
    /// A number or size out of range.
    Range {
        /// The flag.
        flag: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// An error of clap's in one line: what is wrong, without the usage and the hints behind it.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = what.split_whitespace().collect();
    let line = words.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_string()
}

impl Flags {
    /// Checks the flags against each other and fills in what hangs on others.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(self) -> Result<Config, UsageError> {
        let own = self
            .cluster
            .member(NodeId(self.id))
            .ok_or_else(|| UsageError::NotListed {
                id: self.id,
                listed: self.cluster.members().iter().map(|member| member.node).collect(),
            })?;
        let own_address = own.address.clone();
        self.check_timers()?;
        self.check_sizes()?;
        let listen = address("--listen", self.listen.clone(), &own_address)?;
        let advertise = address("--advertise", self.advertise.clone(), &own_address)?;
        let debug = self.debug_listen(own.port())?;
        Ok(Config {
            node: NodeId(self.id),
            members: self.cluster.into_members(),
            cluster_name: self.cluster_name,
            data_dir: self.data_dir,
            listen,
            advertise,
            debug,
            debug_allow_remote: self.debug_allow_remote,
            heartbeat: self.heartbeat,
            election_timeout: self.election_timeout,
            read_lease: self.read_lease.unwrap_or_default(),
            clock_rate_bound_ppm: self.clock_rate_bound,
            request_timeout: self.request_timeout,
            max_connections: self.max_connections as usize,
            segment_bytes: self.segment_bytes.min(self.snapshot_bytes / SEGMENTS_IN_SNAPSHOT_BYTES),
            snapshot_bytes: self.snapshot_bytes,
            scrub_bytes_per_second: self.scrub_bytes_per_second,
            disk_reserve: self.disk_reserve,
            queue_bytes: usize::try_from(self.queue_bytes).unwrap_or(usize::MAX),
            buffer_bytes: usize::try_from(self.buffer_bytes).unwrap_or(usize::MAX),
            cache_bytes: usize::try_from(self.cache_bytes).unwrap_or(usize::MAX),
            allow_faults: self.allow_faults,
            acceptor_failures: self.acceptor_failures,
            exit_with_parent: self.exit_with_parent,
        })
    }

    fn check_timers(&self) -> Result<(), UsageError> {
        if self.heartbeat * HEARTBEATS_IN_ELECTION_TIMEOUT > self.election_timeout {
            return Err(UsageError::Heartbeat {
                heartbeat: self.heartbeat,
                election_timeout: self.election_timeout,
            });
        }
        if let Some(lease) = self.read_lease
            && !(self.heartbeat * HEARTBEATS_IN_LEASE..=LEASE_MAX).contains(&lease)
        {
            return Err(UsageError::Range {
                flag: "--read-lease",
                must: "at least 3 heartbeats (else it runs out before it is renewed) and at most 60s",
            });
        }
        // A deadline travels as 32 bits of milliseconds.
        if self.request_timeout > Duration::from_secs(3600) {
            return Err(UsageError::Range {
                flag: "--request-timeout",
                must: "at most 1h",
            });
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), UsageError> {
        let range = |flag, must| Err(UsageError::Range { flag, must });
        if self.cluster_name.is_empty() || self.cluster_name.len() > 255 {
            return range("--cluster-name", "1 to 255 bytes");
        }
        if !(SEGMENT_BYTES_MIN..=1 << 30).contains(&self.segment_bytes) {
            return range("--segment-bytes", "4MiB to 1GiB");
        }
        if !(SEGMENTS_IN_SNAPSHOT_BYTES * SEGMENT_BYTES_MIN..=1 << 40).contains(&self.snapshot_bytes) {
            return range("--snapshot-bytes", "16MiB to 1TiB");
        }
        if self.queue_bytes < 4 << 20 {
            return range("--queue-bytes", "at least 4MiB");
        }
        if self.buffer_bytes < 8 << 20 {
            return range("--buffer-bytes", "at least 8MiB");
        }
        Ok(())
    }

    fn debug_listen(&self, own_port: u16) -> Result<DebugListen, UsageError> {
        match self.debug_listen.as_deref() {
            Some("off") => Ok(DebugListen::Off),
            Some(given) => address("--debug-listen", Some(given.to_string()), "").map(DebugListen::At),
            None => match own_port.checked_add(DEBUG_PORT_OFFSET) {
                Some(port) => Ok(DebugListen::At(format!("127.0.0.1:{port}"))),
                None => Err(UsageError::NoDebugPort { port: own_port }),
            },
        }
    }
}

impl Config {
    /// The part of the machine's settings that flags decide; identity, seed and start come from the directory.
    pub fn settings(&self) -> Settings {
        Settings {
            cluster_name: self.cluster_name.clone(),
            advertise: self.advertise.clone(),
            debug: match &self.debug {
                DebugListen::Off => String::new(),
                DebugListen::At(address) => address.clone(),
            },
            heartbeat: self.heartbeat,
            election_timeout: self.election_timeout,
            read_lease: self.read_lease,
            clock_rate_bound_ppm: self.clock_rate_bound_ppm,
            request_timeout: self.request_timeout,
            queue_bytes: self.queue_bytes,
            cache_bytes: self.cache_bytes,
            disk_reserve: self.disk_reserve,
            ..Settings::new(self.node, self.members.iter().map(|member| member.node).collect())
        }
    }
}

fn address(flag: &'static str, given: Option<String>, default: &str) -> Result<String, UsageError> {
    let Some(given) = given else {
        return Ok(default.to_string());
    };
    match super::cluster_list::split_port(&given) {
        Some(_) => Ok(given),
        None => Err(UsageError::Address { flag, given }),
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UsageError::NotListed { id, listed } => {
                write!(f, "--id {id} does not stand in --cluster, which lists")?;
                listed.iter().try_for_each(|node| write!(f, " {}", node.0))
            }
            UsageError::Heartbeat {
                heartbeat,
                election_timeout,
            } => write!(
                f,
                "--heartbeat {heartbeat:?} × {HEARTBEATS_IN_ELECTION_TIMEOUT} must not be above \
                 --election-timeout {election_timeout:?}"
            ),
            UsageError::Address { flag, given } => write!(f, "{flag} '{given}' is not HOST:PORT"),
            UsageError::NoDebugPort { port } => write!(
                f,
                "port {port} leaves no room for the debug port ({port} + {DEBUG_PORT_OFFSET}); give --debug-listen"
            ),
            UsageError::Range { flag, must } => write!(f, "{flag} must be {must}"),
        }
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &[&str]) -> Result<Config, String> {
        let mut words = vec!["synodd", "--data-dir", "d"];
        words.extend(extra);
        let flags = Flags::try_parse_from(words).map_err(|error| one_line(&error))?;
        flags.check().map_err(|error| error.to_string())
    }

    const THREE: &str = "1=127.0.0.1:7001,2=127.0.0.1:7002,3=127.0.0.1:7003";

    #[test]
    fn the_defaults_come_from_the_nodes_own_address() {
        let config = config(&["--id", "2", "--cluster", THREE]).unwrap();
        assert_eq!(config.listen, "127.0.0.1:7002");
        assert_eq!(config.advertise, "127.0.0.1:7002");
        assert_eq!(config.debug, DebugListen::At("127.0.0.1:7102".into()));
        assert_eq!(config.heartbeat, Duration::from_millis(50));
        assert_eq!(config.election_timeout, Duration::from_millis(300));
        assert_eq!(config.request_timeout, Duration::from_secs(5));
        assert_eq!((config.segment_bytes, config.snapshot_bytes), (16 << 20, 64 << 20));
        assert_eq!(config.max_connections, 10_000);
    }

    #[test]
    fn segments_are_at_most_a_quarter_of_what_lies_between_two_snapshots() {
        let sizes = |extra: &[&str]| {
            let words = [&["--id", "1", "--cluster", THREE], extra].concat();
            config(&words).map(|config| config.segment_bytes >> 20)
        };
        assert_eq!(sizes(&["--snapshot-bytes", "16MiB"]), Ok(4));
        assert_eq!(sizes(&["--segment-bytes", "64MiB"]), Ok(16));
        assert_eq!(sizes(&["--segment-bytes", "64MiB", "--snapshot-bytes", "1GiB"]), Ok(64));
        assert!(sizes(&["--snapshot-bytes", "15MiB"]).unwrap_err().contains("16MiB"));
    }

    #[test]
    fn bad_combinations_are_named_in_one_line() {
        // extra flags, a part of the message
        let wrong: &[(&[&str], &str)] = &[
            (&["--id", "4", "--cluster", THREE], "--id 4 does not stand in --cluster"),
            (&["--id", "1", "--cluster", "1=a:1,1=b:1"], "id 1 stands twice"),
            (&["--id", "1", "--cluster", "1=a:1,2=a:1"], "a:1 stands twice"),
            (&["--id", "1", "--cluster", "1=a"], "not HOST:PORT"),
            (&["--id", "1", "--cluster", "0=a:1"], "'0' is no node id"),
            (&["--id", "1", "--cluster", ""], "not ID=HOST:PORT"),
            (
                &["--id", "1", "--cluster", THREE, "--heartbeat", "101ms"],
                "--heartbeat 101ms × 3",
            ),
            (&["--id", "1", "--cluster", THREE, "--heartbeat", "50"], "50"),
            (
                &["--id", "1", "--cluster", THREE, "--read-lease", "149ms"],
                "--read-lease must be at least 3 heartbeats",
            ),
            (
                &["--id", "1", "--cluster", THREE, "--read-lease", "61s"],
                "--read-lease must be",
            ),
            (
                &["--id", "1", "--cluster", THREE, "--listen", "7001"],
                "--listen '7001' is not HOST:PORT",
            ),
            (&["--id", "1", "--cluster", "1=a:65500"], "give --debug-listen"),
            (
                &["--id", "1", "--cluster", THREE, "--segment-bytes", "1MiB"],
                "--segment-bytes must be",
            ),
            (&["--id", "1"], "required arguments were not provided: --cluster <LIST>"),
            (
                &["--id", "1", "--cluster", THREE, "--acceptor-failures", "mtbf=1s"],
                "mttr is missing",
            ),
        ];
        for (extra, part) in wrong {
            let error = config(extra).unwrap_err();
            assert!(error.contains(part), "{extra:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn the_debug_port_can_be_off_and_the_failures_have_a_spec() {
        let config = config(&[
            "--id",
            "1",
            "--cluster",
            THREE,
            "--debug-listen",
            "off",
            "--acceptor-failures",
            "mtbf=10s,mttr=2s,seed=7",
        ])
        .unwrap();
        assert_eq!(config.debug, DebugListen::Off);
        let failures = config.acceptor_failures.unwrap();
        assert_eq!(
            (failures.mtbf, failures.mttr, failures.seed),
            (Duration::from_secs(10), Duration::from_secs(2), 7)
        );
    }
}
