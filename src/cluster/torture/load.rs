//! The clients of a run: two streams of rounds of a mixed workload, and one who checks each round's history.
//!
//! A stream runs one round after the other, each on keys of its own, so that a history stays small enough to be searched
//! however long the run is. The second stream is half a round behind: while one of them ends its round, closes its
//! sessions and opens new ones, the other writes, and a gap is the cluster's and not the clients'.
//!
//! Not here: what strikes meanwhile ([`super`]); what a history is checked for ([`crate::workload::check`]).

use crate::client::Options;
use crate::workload::check::{self, Verdict};
use crate::workload::history::{self, End, Function, History};
use crate::workload::runner::{self, RunError, Settings};
use crate::workload::script;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What every client does. Both streams together have 16 clients with two operations in flight each.
const SCRIPT: &str = "\
param duration 10s
keys k uniform 40
values v unique 16
clients 8 user pipeline 2 rate 1000/s
  for $duration
    mix
      20 get $k
      30 put $k $v
      10 del $k
      20 do
        let key = $k
        get $key
        cas $key --old $value $v
      end
    end
  end
end
";
/// Longest round. The first of the second stream is half as long.
const ROUND: Duration = Duration::from_secs(20);
/// A rest of the time that is shorter is no round of its own.
const ROUND_MIN: Duration = Duration::from_secs(2);
/// Deadline of an operation, short on purpose: histories should hold some of which nobody knows.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(1);
/// A stopped node keeps its clients waiting; they look elsewhere after so long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(300);
/// How long one history may be searched.
pub(super) const CHECK_TIME: Duration = Duration::from_secs(60);

/// The clients at work.
pub(super) struct Load {
    interrupt: Arc<AtomicBool>,
    /// A contradiction was found, or the clients could not go on.
    has_failed: Arc<AtomicBool>,
    streams: Vec<JoinHandle<Result<(), RunError>>>,
    checker: JoinHandle<io::Result<Seen>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Operations that were done.
    pub done: usize,
    /// Operations that certainly were not done.
    pub not_done: usize,
    /// Operations of which nobody knows.
    pub unknown: usize,
    /// Rounds, each with a history of its own.
    pub rounds: usize,
    /// When writes were done, milliseconds from the beginning, each of these once, in order.
    pub writes: Vec<Duration>,
    /// The first history that is not linearizable, and why it is not.
    pub violation: Option<(PathBuf, String)>,
    /// Histories that could not be decided in time.
    pub undecided: Vec<PathBuf>,
}

/// A round whose history is complete.
struct Round {
    file: PathBuf,
    /// When its clock began, from the beginning of the run.
    begun: Duration,
}

impl Load {
    /// Starts the clients; they end by themselves after `duration`. Histories go to `directory`.
    pub(super) fn start(
        endpoints: &str,
        directory: &Path,
        seed: u64,
        beginning: Instant,
        duration: Duration,
    ) -> io::Result<Load> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let has_failed = Arc::new(AtomicBool::new(false));
        let (rounds, finished) = channel();
        let mut streams = Vec::new();
        for number in 0..2 {
            let mut options = Options::random()?;
            options.timeout = OPERATION_TIMEOUT;
            options.attempt_timeout = ATTEMPT_TIMEOUT;
            let stream = Stream {
                number,
                directory: directory.to_path_buf(),
                settings: Settings {
                    endpoints: endpoints.split(',').map(str::to_owned).collect(),
                    options,
                    seed: seed.wrapping_add(number),
                    history: None,
                    is_checked: false,
                    is_progress_shown: false,
                },
                beginning,
                until: beginning + duration,
                rounds: rounds.clone(),
                interrupt: Arc::clone(&interrupt),
            };
            let has_failed = Arc::clone(&has_failed);
            streams.push(std::thread::spawn(move || {
                let ended = stream.run();
                has_failed.fetch_or(ended.is_err(), Ordering::Relaxed);
                ended
            }));
        }
        let failed = Arc::clone(&has_failed);
        let checker = std::thread::spawn(move || check_all(&finished, &failed));
        Ok(Load {
            interrupt,
            has_failed,
            streams,
            checker,
        })
    }

    /// Whether to go on makes no sense.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Whether all clients have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.streams.iter().all(JoinHandle::is_finished)
    }

    /// Tells the clients to end now.
    pub(super) fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }

    /// Waits for the clients and for the verdict on every round.
    pub(super) fn finish(self) -> io::Result<Seen> {
        for stream in self.streams {
            let ended = stream
                .join()
                .map_err(|_| io::Error::other("a stream of clients panicked"))?;
            ended.map_err(|error| io::Error::other(format!("the workload ended: {error}")))?;
        }
        let seen = self.checker.join();
        let mut seen = seen.map_err(|_| io::Error::other("the checker panicked"))??;
        seen.writes.sort_unstable();
        seen.writes.dedup();
        Ok(seen)
    }
}

/// One of the two streams of rounds.
struct Stream {
    number: u64,
    directory: PathBuf,
    settings: Settings,
    beginning: Instant,
    until: Instant,
    rounds: Sender<Round>,
    interrupt: Arc<AtomicBool>,
}

impl Stream {
    fn run(mut self) -> Result<(), RunError> {
        let mut longest = if self.number == 0 { ROUND } else { ROUND / 2 };
        for round in 0.. {
            let left = self.until.saturating_duration_since(now());
            let is_over = left.is_zero() || (round > 0 && left < ROUND_MIN);
            if is_over || self.interrupt.load(Ordering::Relaxed) {
                break;
            }
            // A short rest is better in this round than alone.
            let length = if left < longest + ROUND_MIN { left } else { longest };
            longest = ROUND;
            self.round(round, length)?;
        }
        Ok(())
    }

    fn round(&mut self, round: u64, length: Duration) -> Result<(), RunError> {
        let parameters = BTreeMap::from([("duration".to_owned(), format!("{}ms", length.as_millis().max(1)))]);
        let program = script::parse(SCRIPT.as_bytes(), &parameters).expect("the script stands in this file");
        let file = self.directory.join(format!("history-{}-{round}.jsonl", self.number));
        self.settings.history = Some(file.clone());
        self.settings.seed = self.settings.seed.wrapping_add(2);
        // A life of its own for every session, and a name of its own for the keys.
        self.settings.options.session_id = Options::random()?.session_id;
        let begun = now().duration_since(self.beginning);
        runner::run(program, &self.settings, None, &self.interrupt)?;
        // Nobody listens if the checker gave up, which it says itself.
        let _ = self.rounds.send(Round { file, begun });
        Ok(())
    }
}

/// Judges one history after the other until the clients are gone.
fn check_all(rounds: &Receiver<Round>, has_failed: &AtomicBool) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for Round { file, begun } in rounds {
        let history = history::read(BufReader::new(File::open(&file)?))
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        seen.note(&history, begun);
        let verdict = check::check(&history, CHECK_TIME);
        match &verdict {
            Verdict::Linearizable(_) => {
                let _ = fs::remove_file(&file); // what cannot be removed does no harm
            }
            Verdict::Undecided(..) => seen.undecided.push(file),
            Verdict::Violation(..) => {
                has_failed.store(true, Ordering::Relaxed);
                let words = check::words(&verdict, CHECK_TIME);
                seen.violation.get_or_insert((file, words));
            }
        }
    }
    Ok(seen)
}

impl Seen {
    fn note(&mut self, history: &History, begun: Duration) {
        self.rounds += 1;
        for operation in &history.operations {
            match &operation.end {
                End::Ok { time, .. } => {
                    self.done += 1;
                    if operation.function != Function::Get {
                        let at = begun + Duration::from_nanos(*time);
                        self.writes.push(Duration::from_millis(at.as_millis() as u64));
                    }
                }
                End::Fail => self.not_done += 1,
                End::Unknown => self.unknown += 1,
            }
        }
        self.writes.sort_unstable();
        self.writes.dedup(); // a long run has more writes than milliseconds
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the launcher is at the edge: it reads the clock"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}
