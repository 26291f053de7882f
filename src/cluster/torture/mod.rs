//! Torture: real nodes under a mixed workload are killed, stopped, cut off from each other and slowed down, by a
//! schedule that hangs on a seed; at the end the histories of all clients are checked, all nodes must come to the same
//! state, and writes must have gone on while a majority lived.
//!
//! * [`plan`]: what strikes when. `load`: the clients, and the check of what they saw. [`book`]: who could be counted
//!   on when, and the longest time without a write while a majority could. `strikes`: carrying a strike out. `report`:
//!   what came of it.
//!
//! However the driver ends, no process is left: nodes hold a pipe that closes with it, and the system wakes a stopped
//! node when its launcher dies (`synodd --exit-with-parent`), so that it sees the pipe.

pub mod book;
mod load;
pub mod plan;
mod report;
mod strikes;

pub use load::Seen;
pub use report::Report;

use super::local::{ClusterError, LocalCluster, Options};
use crate::console;
use load::{Load, now};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use strikes::Field;

/// One look at the nodes.
const LOOK: Duration = Duration::from_millis(10);
/// The nodes have so long to find a leader before the first strike.
const LEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// After the last strike the nodes have so long to come to one state, and the clients to end what is open.
const PATIENCE: Duration = Duration::from_secs(30);
/// While a majority lives, no time without a write is longer; a run with a longer one has failed.
pub const GAP_MAX: Duration = Duration::from_secs(5);

/// What to do to a cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The schedule, and the script of operations.
    pub seed: u64,
    /// For how long.
    pub duration: Duration,
    /// Where histories and the nodes' log lines go.
    pub directory: PathBuf,
    /// Whether every strike is printed as it comes.
    pub is_told: bool,
}

/// Tortures a cluster that is started with `options`, and says what came of it. Ends early, and cleanly, once
/// `is_interrupted` says so; the nodes have ended in any case.
///
/// # Errors
/// The cluster did not start, or the system failed this process. What went wrong with the cluster under torture stands
/// in the report.
pub fn run(
    options: Options,
    settings: &Settings,
    mut is_interrupted: impl FnMut() -> bool,
) -> Result<Report, ClusterError> {
    fs::create_dir_all(&settings.directory).map_err(ClusterError::Io)?;
    let mut log = Log::create(settings).map_err(ClusterError::Io)?;
    let mut cluster = LocalCluster::start(options)?;
    cluster.wait_for_leader_unless(LEADER_TIMEOUT, &mut is_interrupted, |id, line| log.take(id, line))?;
    let nodes = cluster.ids();
    let beginning = now();
    let Settings {
        seed,
        duration,
        directory,
        ..
    } = settings;
    let load = Load::start(&cluster.endpoints(), directory, *seed, beginning, *duration).map_err(ClusterError::Io)?;
    let mut driver = Driver {
        field: Field::new(nodes.clone(), settings.is_told),
        cluster,
        log,
        beginning,
        died: Vec::new(),
        is_interrupted: false,
    };
    let went = driver.strike(settings, &load, &mut is_interrupted);
    let end = beginning.elapsed();
    driver.heal().map_err(ClusterError::Io)?;
    if driver.is_interrupted || driver.has_failed() || load.has_failed() || went.is_err() {
        load.interrupt();
    }
    let agreed = went.and_then(|()| driver.finish(&load, &mut is_interrupted));
    if agreed.is_err() {
        load.interrupt();
    }
    let seen = load.finish().map_err(ClusterError::Io)?;
    driver.stop(&mut is_interrupted).map_err(ClusterError::Io)?;
    Ok(Report {
        cycles: driver.field.cycles().clone(),
        gap: driver.field.book().longest_gap(&seen.writes, end),
        lasted: end,
        seen,
        disagreement: agreed?,
        died: driver.died,
        is_interrupted: driver.is_interrupted,
    })
}

/// Whoever drives a run.
struct Driver {
    cluster: LocalCluster,
    field: Field,
    log: Log,
    beginning: Instant,
    /// Nodes that ended although nobody had asked them to.
    died: Vec<(u16, ExitStatus)>,
    is_interrupted: bool,
}

impl Driver {
    /// Strikes as the plan says, until its time is over or there is no point in going on.
    fn strike(
        &mut self,
        settings: &Settings,
        load: &Load,
        is_interrupted: &mut impl FnMut() -> bool,
    ) -> Result<(), ClusterError> {
        let plan = plan::draw(settings.seed, self.field.nodes().len(), settings.duration);
        let mut plan = plan.into_iter().peekable();
        while self.beginning.elapsed() < settings.duration && !self.has_failed() && !load.has_failed() {
            self.is_interrupted |= is_interrupted();
            if self.is_interrupted {
                break;
            }
            self.look()?;
            let at = self.beginning.elapsed();
            if let Some(strike) = plan.next_if(|strike| strike.at <= at) {
                self.field.strike(&mut self.cluster, self.beginning, &strike);
            }
        }
        Ok(())
    }

    /// Takes the nodes' log lines, sees who has ended, and ends strikes that are over.
    fn look(&mut self) -> Result<(), ClusterError> {
        let log = &mut self.log;
        let ended = self.cluster.pump(LOOK, |id, line| log.take(id, line));
        for (id, status) in ended.map_err(ClusterError::Io)? {
            if !self.field.has_ended(id, status) {
                self.died.push((id, status));
            }
        }
        self.field.mend(&mut self.cluster, self.beginning)
    }

    fn has_failed(&self) -> bool {
        !self.died.is_empty()
    }

    /// Ends all strikes at once.
    fn heal(&mut self) -> std::io::Result<()> {
        self.field.hurry();
        // Those that were asked to end do so first; then everybody is started who does not run.
        let until = now() + PATIENCE;
        while !self.field.is_whole() && now() < until && !self.has_failed() {
            self.look().map_err(std::io::Error::other)?;
        }
        for id in self.cluster.ids() {
            let _ = self.cluster.ask(id, "fault clear"); // who does not answer has no faults
        }
        Ok(())
    }

    /// Waits for the clients to end, and for all nodes to come to one state; what they disagree in if they do not.
    fn finish(
        &mut self,
        load: &Load,
        is_interrupted: &mut impl FnMut() -> bool,
    ) -> Result<Option<String>, ClusterError> {
        let until = now() + PATIENCE;
        loop {
            self.is_interrupted |= is_interrupted();
            if self.is_interrupted || self.has_failed() || load.has_failed() {
                return Ok(None); // there is something worse to tell
            }
            self.look()?;
            let is_late = now() >= until;
            if !load.has_ended() && !is_late {
                continue;
            }
            let (are_one, states) = self.states();
            if are_one {
                return Ok(None);
            }
            if is_late {
                return Ok(Some(states));
            }
        }
    }

    /// Whether all nodes have applied the same with the same effect; their states in words.
    fn states(&self) -> (bool, String) {
        let mut states = Vec::new();
        for id in self.cluster.ids() {
            let status = self.cluster.status(id).unwrap_or_default();
            states.push((id, status["applied"].clone(), status["digest"].clone()));
        }
        let are_one = states
            .windows(2)
            .all(|pair| pair[0].1 == pair[1].1 && pair[0].2 == pair[1].2);
        let words = states
            .iter()
            .map(|(id, applied, digest)| format!("n{id} applied={applied} digest={digest}"));
        (
            are_one && states.iter().all(|(_, applied, _)| !applied.is_null()),
            words.collect::<Vec<_>>().join(", "),
        )
    }

    fn stop(&mut self, is_interrupted: &mut impl FnMut() -> bool) -> std::io::Result<()> {
        let was_interrupted = self.is_interrupted;
        let log = &mut self.log;
        // The first Ctrl-C led here; only a further one kills.
        self.cluster
            .stop(|| !was_interrupted && is_interrupted(), |id, line| log.take(id, line))?;
        log.file.flush()
    }
}

/// What the nodes say: all of it to a file, errors to people too.
struct Log {
    file: BufWriter<File>,
    begun: Instant,
}

impl Log {
    fn create(settings: &Settings) -> std::io::Result<Log> {
        let file = File::create(settings.directory.join("nodes.log"))?;
        Ok(Log {
            file: BufWriter::new(file),
            begun: now(),
        })
    }

    fn take(&mut self, id: u16, line: &str) {
        // A log that cannot be written must not end the run.
        let _ = writeln!(self.file, "{:9.3} n{id} {line}", self.begun.elapsed().as_secs_f64());
        if line.contains("ERROR") || line.contains("panicked") {
            console::tell(format_args!("n{id} {line}"));
        }
    }
}
