//! Every timeout and bound of the client, in one table.

use crate::kv::session::IDLE_EXPIRY_MS;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// Where the nodes of a local cluster stand, and what the tools use if nothing else is said.
pub const ENDPOINTS_DEFAULT: &str = "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003";

/// A session that was idle for so long may have expired: the next write opens a new one instead of being refused.
///
/// A good way below the ten minutes of log time after which it expires, since log time may run a little fast.
pub const SESSION_IDLE_MAX: Duration = Duration::from_millis(IDLE_EXPIRY_MS / 5 * 4);
/// A node whose version, cluster or bytes do not fit is asked again after so long.
pub const FAULT_RETRY: Duration = Duration::from_secs(5);
/// A connection that is not the current one and has nothing in flight is closed after so long.
pub const LINK_IDLE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for the answer to CLOSE on a clean end.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Most addresses that are learned from leader hints beside the configured ones.
pub const LEARNED_MAX: usize = 16;
/// Most operations that one machine holds; more are refused as not done.
pub const OPERATIONS_MAX: usize = 4096;

/// Which node is asked for linearizable reads. All of them show every write that was acknowledged before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadsFrom {
    /// The one that is asked for writes, too: the leader, once it is known.
    #[default]
    Leader,
    /// One that each client draws, so that many clients spread their reads over all nodes: whoever does not lead asks the
    /// leader for a position, and answers from its own state. If it fails, the next one.
    Any,
}

/// How a client behaves. The defaults are those of the table in `protocol.md`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The deadline of an operation where the caller names none.
    pub timeout: Duration,
    /// How long a dial and the handshake behind it may take.
    pub connect_timeout: Duration,
    /// How long the first attempt waits for its answer; each further attempt waits twice as long, up to eight times.
    pub attempt_timeout: Duration,
    /// First step of the backoff between attempts and between dials.
    pub backoff_base: Duration,
    /// Its cap.
    pub backoff_max: Duration,
    /// Retries that may follow one another without pause.
    pub retry_burst: u32,
    /// Retries a second, once the burst is spent.
    pub retry_rate: u32,
    /// End operations as not done when every endpoint has been out of reach for so long; `None`: at their deadlines.
    pub give_up_unreachable: Option<Duration>,
    /// Go where replies say that the leader is.
    pub follow_leader: bool,
    /// Whom to ask for linearizable reads.
    pub reads_from: ReadsFrom,
    /// Name of the cluster; empty matches any.
    pub cluster_name: String,
    /// Seed of jitter and of the endpoint tried first: no two clients share one.
    pub seed: u64,
    /// Random id of the first session; later sessions count on from it.
    pub session_id: u128,
}

impl Options {
    /// The defaults, under a seed and a session id that the caller draws.
    pub fn new(seed: u64, session_id: u128) -> Options {
        Options {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(1),
            backoff_base: Duration::from_millis(10),
            backoff_max: Duration::from_millis(500),
            retry_burst: 512,
            retry_rate: 100,
            give_up_unreachable: None,
            follow_leader: true,
            reads_from: ReadsFrom::Leader,
            cluster_name: String::new(),
            seed,
            session_id,
        }
    }

    /// The defaults, with seed and session id drawn from the system.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn random() -> io::Result<Options> {
        let no_randomness = |error| io::Error::other(format!("the system gives no randomness: {error}"));
        let mut session_id = [0; 16];
        getrandom::fill(&mut session_id).map_err(no_randomness)?;
        let seed = getrandom::u64().map_err(no_randomness)?;
        Ok(Options::new(seed, u128::from_be_bytes(session_id)))
    }
}

impl fmt::Display for ReadsFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadsFrom::Leader => "leader",
            ReadsFrom::Any => "any",
        })
    }
}

impl FromStr for ReadsFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<ReadsFrom, String> {
        match text {
            "leader" => Ok(ReadsFrom::Leader),
            "any" => Ok(ReadsFrom::Any),
            _ => Err("reads are from leader, or from any".into()),
        }
    }
}
