//! A node from its start to its end: directory, sockets and machine brought together, turned until told to stop.

use super::door::Door;
use super::flags::Config;
use super::limits::SHUTDOWN_TIMEOUT;
use super::open::{self, Reading, Unusable};
use super::rlimit;
use super::server::{Server, ServerError};
use super::turn::{Fatal, Flow, Turn};
use crate::machine::{Machine, Settings};
use crate::paxos::{NodeId, Slot};
use crate::rules::Rules;
use crate::storage::scrub::Pace;
use crate::storage::{Disk, OpenError, Options};
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest time that a node on its way out waits for its sockets to take the last answers.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(200);
/// One look at the sockets meanwhile.
const LAST_WORDS_STEP: Duration = Duration::from_millis(5);

/// One node in this process.
pub struct Node {
    turn: Turn<Disk>,
    server: Server,
}

/// Why a node could not start.
#[derive(Debug)]
pub enum StartError {
    /// The data directory cannot be used.
    Directory(OpenError),
    /// The sockets cannot.
    Server(ServerError),
    /// The system gives no random numbers, which identities are made of.
    Randomness(getrandom::Error),
    /// The log is whole, and holds a chosen entry that this build cannot apply.
    CannotApply(String),
    /// The directory is bound to other options than those that were given.
    Bound(String),
    /// The machine stopped at its start.
    Fatal(Fatal),
}

impl Node {
    /// Takes the addresses and the directory, reads the log back, and is ready to turn.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub fn start(mut config: Config) -> Result<Node, StartError> {
        let wanted = config.max_connections;
        let room = rlimit::raise(wanted);
        config.max_connections = room.clients;
        if room.clients < wanted {
            let cut = room.clients;
            log::warn!("--max-connections {wanted} is cut to {cut}: the limit of open files allows no more");
        }
        // The addresses first: a node that cannot listen must not spend a start of its directory.
        let mut server = Server::new(&config, room.sockets).map_err(StartError::Server)?;
        let seed = getrandom::u64().map_err(StartError::Randomness)?;
        let mut turn = open_directory(&config, seed)?;
        turn.start(&mut server).map_err(StartError::Fatal)?;
        Ok(Node { turn, server })
    }

    /// Takes the signals of this process. For `synodd`, not for tests.
    ///
    /// # Errors
    /// [`StartError::Server`].
    pub fn take_signals(&mut self) -> Result<(), StartError> {
        self.server.take_signals().map_err(StartError::Server)
    }

    /// The address for peers and clients.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.server.local_address()
    }

    /// The sockets, to look at.
    pub fn server(&self) -> &Server {
        &self.server
    }

    #[cfg(test)]
    pub(super) fn server_mut(&mut self) -> &mut Server {
        &mut self.server
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &Machine {
        self.turn.machine()
    }

    /// Asks for a clean end, as SIGTERM does.
    pub fn end(&mut self, why: &str) {
        self.server.end(why);
    }

    /// One turn of the loop. True if it was the last.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end.
    pub fn turn(&mut self) -> Result<bool, Fatal> {
        let flow = self.turn.run(&mut self.server)?;
        let ending_since = self.server.ending_since();
        let overdue = ending_since.is_some_and(|since| self.server.now().since(since) >= SHUTDOWN_TIMEOUT);
        Ok(flow == Flow::Finished || overdue)
    }

    /// Turns until a clean end was asked for and is reached. All that was written is synced then.
    ///
    /// # Errors
    /// [`Fatal`]: the process must end, non-zero.
    pub fn run(mut self) -> Result<(), Fatal> {
        while !self.turn()? {}
        self.say_last_words()
    }

    /// The last answers go out; the turns that this takes also sync what is left.
    fn say_last_words(&mut self) -> Result<(), Fatal> {
        let until = self.server.now() + LAST_WORDS_TIMEOUT;
        loop {
            self.server.flush();
            if self.server.is_flushed() || self.server.now() >= until {
                self.turn.finish(&mut self.server)?;
                log::info!("ended");
                return Ok(());
            }
            std::thread::sleep(LAST_WORDS_STEP);
            self.turn.run(&mut self.server)?;
        }
    }
}

/// Opens the directory and has a machine recover all of it.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a start takes is told to the operator"
)]
fn open_directory(config: &Config, seed: u64) -> Result<Turn<Disk>, StartError> {
    let options = Options {
        segment_bytes: u32::try_from(config.segment_bytes).unwrap_or(u32::MAX),
        snapshot_bytes: config.snapshot_bytes,
        scrub: Pace {
            bytes_per_second: config.scrub_bytes_per_second,
            ..Pace::default()
        },
        ..Options::new(config.node, config.cluster_name.clone(), seed)
    };
    let disk = Disk::new(&config.data_dir);
    let settings = Settings {
        seed,
        rules: Rules::KEPT, // whatever else is asked for: a node that serves keeps them all
        ..config.settings()
    };
    let (mut records, began): (u64, _) = (0, Instant::now());
    let opened = open::open(disk, &options, settings, |reading| match reading {
        Reading::Record(_) => records += 1,
        Reading::MemoryLost => records = 0,
    });
    let (turn, identity) = opened.map_err(|why| match why {
        Unusable::Directory(error) => StartError::Directory(error),
        Unusable::CannotApply(reason) => StartError::CannotApply(reason),
        Unusable::Bound(reason) => StartError::Bound(reason),
    })?;
    let NodeId(id) = config.node;
    log::info!(
        "synodd {} node {id} of cluster {:?}, incarnation {}, start {}",
        env!("CARGO_PKG_VERSION"),
        config.cluster_name,
        identity.incarnation,
        identity.start().counter
    );
    let machine = turn.machine();
    let snapshot = match machine.restored() {
        Slot::ZERO => "no snapshot".into(),
        slot => format!("the snapshot of slot {slot}"),
    };
    log::info!(
        "{} keys up to slot {} read back from {} in {} ms: {snapshot} and {records} records",
        machine.state().keys(),
        machine.state().applied(),
        config.data_dir.display(),
        began.elapsed().as_millis()
    );
    Ok(turn)
}

impl StartError {
    /// The exit code of `synodd`; `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Server(ServerError::DebugNotLoopback { .. } | ServerError::Parent(_)) => 2,
            StartError::Directory(_) | StartError::CannotApply(_) | StartError::Bound(_) => 3,
            StartError::Server(_) | StartError::Randomness(_) => 4,
            StartError::Fatal(_) => 1,
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory(error) => error.fmt(f),
            StartError::Server(error) => error.fmt(f),
            StartError::Randomness(error) => write!(f, "the system gives no random numbers: {error}"),
            StartError::CannotApply(reason) => write!(f, "the log cannot be applied: {reason}"),
            StartError::Bound(reason) => f.write_str(reason),
            StartError::Fatal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Directory(error) => Some(error),
            StartError::Server(error) => Some(error),
            StartError::Fatal(error) => Some(error),
            StartError::Randomness(_) | StartError::CannotApply(_) | StartError::Bound(_) => None,
        }
    }
}
