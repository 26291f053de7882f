//! A script against a cluster: one loop, one thread, all clients.
//!
//! The loop carries the actions of a [`Plan`] out by a [`Pool`] of clients and tells the plan what came of them. Each
//! operation is written to the history around its sending and its answer, and counted by its intended start.

use super::debug_port::Conversations;
use super::generator::seeded;
use super::history::History;
use super::meter::{Costs, Meter};
use super::plan::{Action, Ended, Plan, Stop, Submission};
use super::progress::Progress;
use super::record::{RecordError, Recorder};
use super::script::Program;
use super::summary::Summary;
use crate::client::pool::{Completion, Pool};
use crate::client::{ClientMachine, End, Options};
use crate::paxos::NodeId;
use crate::time::Time;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The loop looks around so often: Ctrl-C, the progress line, the nodes.
const LOOK: Duration = Duration::from_millis(100);
/// While a fault is on its way, it looks more often: the script waits for the reply.
const LOOK_FOR_REPLY: Duration = Duration::from_millis(5);
/// At the end, what is open and the sessions have so long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Letters of a run's name.
const RUN_LETTERS: usize = 6;

/// Whoever owns the processes of the nodes.
pub trait Nodes {
    /// Kills a node at once.
    ///
    /// # Errors
    /// It could not be killed.
    fn kill(&mut self, node: NodeId) -> Result<(), String>;

    /// Starts a node that was killed.
    ///
    /// # Errors
    /// It could not be started.
    fn start(&mut self, node: NodeId) -> Result<(), String>;

    /// Called now and then: logs are to be read, and who ended by itself is to be told.
    ///
    /// # Errors
    /// The run cannot go on.
    fn look(&mut self) -> Result<(), String>;
}

/// How a script is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the cluster is.
    pub endpoints: Vec<String>,
    /// How each client behaves; each gets a seed and a session of its own.
    pub options: Options,
    /// Repeats the same script of operations.
    pub seed: u64,
    /// Write a history there.
    pub history: Option<PathBuf>,
    /// Keep the history for the checker.
    pub is_checked: bool,
    /// Show a progress line.
    pub is_progress_shown: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The figures.
    pub summary: Summary,
    /// What it cost, if anything counted.
    pub costs: Option<Costs>,
    /// Why it ended early, if it did.
    pub stop: Option<Stop>,
    /// Whether it was interrupted.
    pub is_interrupted: bool,
    /// What stood before every key, or nothing.
    pub run: String,
    /// Everything, for the checker, if asked for.
    pub history: Option<History>,
}

/// Why a run could not be made. What the cluster refuses is no such reason.
#[derive(Debug)]
pub enum RunError {
    /// The system failed this process.
    Io(io::Error),
    /// The history could not be recorded.
    Record(RecordError),
    /// The nodes' processes failed.
    Nodes(String),
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::Io(error)
    }
}

impl From<RecordError> for RunError {
    fn from(error: RecordError) -> RunError {
        RunError::Record(error)
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Io(error) => error.fmt(f),
            RunError::Record(error) => error.fmt(f),
            RunError::Nodes(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for RunError {}

/// A run under way.
struct Runner<'s, 'n> {
    settings: &'s Settings,
    pool: Pool,
    plan: Plan,
    summary: Summary,
    meter: Meter,
    recorder: Option<Recorder>,
    conversations: Conversations,
    nodes: Option<&'n mut (dyn Nodes + 'n)>,
    progress: Progress,
    /// What each place has in the pool.
    open: Vec<Option<InFlight>>,
    next_look: Time,
}

/// What is remembered of an operation until it ends.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    kind: super::plan::Kind,
    intended: Time,
    /// When it was begun: later than that, if there was no room for it, or this process was busy.
    begun: Time,
    counted: bool,
}

/// Runs `program` until it ends, or `interrupt` is set. `nodes`: who kills and starts nodes, if anybody can.
///
/// # Errors
/// [`RunError`]; what the cluster refuses stands in the report.
pub fn run<'n>(
    program: Program,
    settings: &Settings,
    nodes: Option<&'n mut (dyn Nodes + 'n)>,
    interrupt: &AtomicBool,
) -> Result<Report, RunError> {
    let is_recorded = settings.history.is_some() || settings.is_checked;
    let run = if is_recorded {
        fresh_name(&settings.options)
    } else {
        String::new()
    };
    let mut pool = Pool::new()?;
    for client in 0..program.clients() {
        pool.add(machine(settings, client));
    }
    let mut runner = Runner {
        settings,
        pool,
        plan: Plan::new(program, settings.seed, &run),
        summary: Summary::default(),
        meter: Meter::new(&settings.endpoints, &settings.options),
        recorder: match is_recorded {
            true => Some(Recorder::new(settings.history.as_deref(), settings.is_checked).map_err(RecordError::Io)?),
            false => None,
        },
        conversations: Conversations::new(),
        nodes,
        progress: Progress::new(settings.is_progress_shown),
        open: Vec::new(),
        next_look: Time::ZERO,
    };
    let went = runner.go(interrupt);
    let costs = runner.meter.end(runner.pool.now());
    let closed = runner.close();
    runner.progress.end();
    went?;
    closed?;
    let history = runner.recorder.map(Recorder::finish).transpose()?.flatten();
    Ok(Report {
        summary: runner.summary,
        costs: costs?,
        stop: runner.plan.stopped().cloned(),
        is_interrupted: interrupt.load(Ordering::Relaxed),
        run,
        history,
    })
}

impl Runner<'_, '_> {
    fn go(&mut self, interrupt: &AtomicBool) -> Result<(), RunError> {
        let mut completions = Vec::new();
        while !interrupt.load(Ordering::Relaxed) {
            let mut now = self.pool.now();
            if now >= self.next_look {
                self.look(now)?;
                now = self.pool.now();
            }
            while let Some(action) = self.plan.next(now) {
                // One look at the clock serves all operations that begin in this round: their bytes leave together, after
                // it. Whatever else there is to do may take its time, and may go on without end.
                if !matches!(action, Action::Submit(_)) {
                    now = self.pool.now();
                }
                self.act(action, now)?;
            }
            // Whoever stopped the run waits for nothing: what is open ends when the clients are closed.
            if self.plan.is_over() || self.plan.stopped().is_some() {
                return Ok(());
            }
            let until = self
                .plan
                .deadline()
                .map_or(self.next_look, |due| due.min(self.next_look));
            self.pool.turn(Some(until), &mut completions)?;
            for completion in completions.drain(..) {
                self.finish(completion)?;
            }
        }
        Ok(())
    }

    /// Carries out one action of the plan.
    fn act(&mut self, action: Action, now: Time) -> Result<(), RunError> {
        match action {
            Action::Submit(submission) => self.submit(submission, now)?,
            Action::Fault { place, node, command } => {
                let known = (0..self.pool.clients()).find_map(|client| {
                    let nodes = self.pool.nodes(client);
                    let debug = nodes.into_iter().find(|(id, debug)| *id == node && !debug.is_empty());
                    debug.map(|(_, debug)| debug)
                });
                let endpoints = &self.settings.endpoints;
                self.conversations
                    .begin(place, node, command.to_string(), known, endpoints)?;
                self.next_look = now + LOOK_FOR_REPLY;
            }
            Action::Kill { place, node } => {
                let outcome = self.nodes.as_mut().map_or_else(nobody, |nodes| nodes.kill(node));
                self.plan.acted(place, outcome);
            }
            Action::Start { place, node } => {
                let outcome = self.nodes.as_mut().map_or_else(nobody, |nodes| nodes.start(node));
                self.plan.acted(place, outcome);
            }
            Action::Print(words) => self.progress.print(&words),
        }
        Ok(())
    }

    /// Bytes leave with the pool's next turn: `now` is before the first.
    fn submit(&mut self, submission: Submission, now: Time) -> Result<(), RunError> {
        let Submission {
            place,
            client,
            op,
            kind,
            intended,
            counted,
        } = submission;
        if counted {
            self.meter.begin(now)?;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.invoke(place, &op, now)?;
        }
        let timeout = self.settings.options.timeout;
        self.pool.submit(now, client, place as u64, op, timeout);
        if self.open.len() <= place {
            self.open.resize(place + 1, None);
        }
        self.open[place] = Some(InFlight {
            kind,
            intended,
            begun: now,
            counted,
        });
        Ok(())
    }

    fn finish(&mut self, completion: Completion) -> Result<(), RunError> {
        let Completion {
            token, ended: now, end, ..
        } = completion;
        let place = usize::try_from(token).expect("a token is the number of a place");
        let ended = in_script_words(end);
        if let Some(recorder) = &mut self.recorder {
            recorder.end(place, &ended, now)?;
        }
        let in_flight = self.open.get_mut(place).and_then(Option::take);
        if let Some(InFlight {
            kind,
            intended,
            begun,
            counted: true,
        }) = in_flight
        {
            self.summary.add_late(begun.since(intended));
            self.summary.add(kind, intended, now, &ended);
        }
        self.plan.finished(place, now, ended);
        Ok(())
    }

    /// What is not the clients': replies of debug ports, the nodes' processes, the progress line.
    fn look(&mut self, now: Time) -> Result<(), RunError> {
        while let Some(reply) = self.conversations.next() {
            self.plan.acted(reply.place, reply.outcome);
        }
        if let Some(nodes) = &mut self.nodes {
            nodes.look().map_err(RunError::Nodes)?;
        }
        self.progress.show(now, &self.summary);
        let span = if self.conversations.is_open() {
            LOOK_FOR_REPLY
        } else {
            LOOK
        };
        self.next_look = now + span;
        Ok(())
    }

    /// Closes the sessions; what was still open is waited for a moment, and then unknown or not done, as its client says.
    fn close(&mut self) -> Result<(), RunError> {
        let mut completions = Vec::new();
        self.pool.close(CLOSE_TIMEOUT, &mut completions)?;
        for completion in completions {
            self.finish(completion)?;
        }
        Ok(())
    }
}

fn nobody() -> Result<(), String> {
    Err("nobody here owns the nodes' processes".to_owned())
}

/// A client of its own: jitter and first endpoint by the seed, the session drawn afresh.
fn machine(settings: &Settings, client: usize) -> ClientMachine {
    let mut options = settings.options.clone();
    options.seed = seeded(settings.seed, client as u64).u64(..);
    // Sessions of one process must differ, and those of two processes too: the template's id is random, and a client
    // counts on from its own by one for each further session.
    options.session_id = options.session_id.wrapping_add((client as u128) << 64);
    ClientMachine::new(settings.endpoints.clone(), options)
}

fn in_script_words(end: End) -> Ended {
    match end {
        End::Done(served) => Ended::Done(served),
        End::NotDone(failure) => Ended::NotDone {
            cause: failure.cause.name(),
            why: failure.to_string(),
        },
        End::Unknown(failure) => Ended::Unknown {
            cause: failure.cause.name(),
            why: failure.to_string(),
        },
    }
}

/// A name for the keys of this run, never used before: a history starts from an empty store.
fn fresh_name(options: &Options) -> String {
    // The id of a session is drawn afresh for every process; the seed may be one that the user repeats.
    let folded = (options.session_id >> 64) ^ options.session_id;
    let mut rng = fastrand::Rng::with_seed((folded & u128::from(u64::MAX)) as u64);
    let mut name: String = std::iter::repeat_with(|| rng.lowercase()).take(RUN_LETTERS).collect();
    name.push('.');
    name
}

/// Sets a flag on Ctrl-C and SIGTERM; the second one ends the process at once.
///
/// # Errors
/// The system takes no handler.
pub fn interrupt_flag() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: the first signal finds the flag unset, and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}
