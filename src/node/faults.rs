//! Faults that are injected on purpose: what the loop asks at the places where one can strike.
//!
//! By hand (the debug port's `fault …`) and by chance (`--acceptor-failures`). Each fault put on by hand is an item of
//! its own with its own end, so the end of one is never the end of another: the acceptor is down as long as any of
//! them, or chance, wants it down. Invariants:
//! * Every fault has an end; [`Faults::deadline`] wakes the loop for it.
//! * The machine hears of each failure and restart of its acceptor once, and of none that began and ended in between.
//!
//! Faults of a link touch agreement only: frames of Paxos, rosters and forwarded requests. Handshake, ping and pong
//! pass, so a cut link stays up as a connection and loses what is said on it, as a lossy network would; when the fault
//! ends nothing needs to be dialled first.
//!
//! Not here: reading the commands (`command::fault`), what a failed acceptor may not do (`paxos::replica`).

use crate::command::fault::Direction;
use crate::command::{AcceptorFailures, FaultCommand};
use crate::machine::Input;
use crate::paxos::NodeId;
use crate::time::Time;
use crate::units::format_duration;
use std::fmt;
use std::time::Duration;

/// Faults put on by hand at one time; one more is refused.
pub const FAULTS_MAX: usize = 64;
/// Shortest time between two changes by chance: below it the loop would do nothing else.
const CHANGE_MIN: Duration = Duration::from_millis(5);
/// Spreads nodes of one seed, so that their acceptors do not fail together: any large odd number does.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes its way.
    Pass,
    /// It is lost.
    Drop,
    /// It goes its way so much later; frames of one link keep their order if their delays are equal.
    Delay(Duration),
}

/// All faults that are on.
#[derive(Debug)]
pub struct Faults {
    on: Vec<On>,
    /// A pause that begins with the next turn.
    pause: Option<Duration>,
    /// The machine is to be told that its state is altered.
    corrupts: bool,
    failures: Option<Failures>,
    /// What the machine was last told of its acceptor.
    told_down: bool,
    chance: fastrand::Rng,
}

/// One fault put on by hand.
#[derive(Debug)]
struct On {
    fault: FaultCommand,
    until: Time,
}

/// The acceptor's failures by chance.
#[derive(Debug)]
struct Failures {
    spec: AcceptorFailures,
    rng: fastrand::Rng,
    is_down: bool,
    /// When it fails or restarts next.
    next: Time,
}

/// [`FAULTS_MAX`] faults are on already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyFaults;

impl Faults {
    /// None on; with `failures`, the first comes after a time drawn from its mean.
    pub fn new(node: NodeId, failures: Option<AcceptorFailures>) -> Faults {
        Faults {
            on: Vec::new(),
            pause: None,
            corrupts: false,
            failures: failures.map(|spec| Failures::new(node, spec)),
            told_down: false,
            chance: fastrand::Rng::with_seed(SEED_STEP.wrapping_mul(u64::from(node.0))),
        }
    }

    /// Puts a fault on, or ends some: `acceptor up` those of the acceptor, `clear` all that were put on by hand.
    ///
    /// # Errors
    /// [`TooManyFaults`]; nothing has changed then.
    pub fn put_on(&mut self, now: Time, fault: FaultCommand) -> Result<(), TooManyFaults> {
        match &fault {
            FaultCommand::Crash => crash(),
            FaultCommand::Corrupt => self.corrupts = true,
            FaultCommand::Clear => {
                self.on.clear();
                self.pause = None;
            }
            FaultCommand::AcceptorUp => self
                .on
                .retain(|on| !matches!(on.fault, FaultCommand::AcceptorDown { .. })),
            FaultCommand::Pause { lasts } => self.pause = self.pause.max(Some(*lasts)),
            FaultCommand::AcceptorDown { lasts }
            | FaultCommand::Drop { lasts, .. }
            | FaultCommand::Delay { lasts, .. }
            | FaultCommand::Isolate { lasts }
            | FaultCommand::SlowSync { lasts, .. } => {
                let until = now + *lasts;
                self.on.retain(|on| on.until > now);
                if self.on.len() >= FAULTS_MAX {
                    return Err(TooManyFaults);
                }
                self.on.push(On {
                    fault: fault.clone(),
                    until,
                });
            }
        }
        log::warn!("injected: {fault}");
        Ok(())
    }

    /// What becomes of a frame that this node sends to `peer`.
    pub fn on_send(&mut self, now: Time, peer: NodeId) -> Fate {
        self.fate(now, peer, Direction::Out)
    }

    /// What becomes of a frame that `peer` sent to this node.
    pub fn on_receive(&mut self, now: Time, peer: NodeId) -> Fate {
        self.fate(now, peer, Direction::In)
    }

    fn fate(&mut self, now: Time, with: NodeId, way: Direction) -> Fate {
        let mut late = Duration::ZERO;
        for on in self.on.iter().filter(|on| on.until > now) {
            match on.fault {
                FaultCommand::Isolate { .. } => return Fate::Drop,
                FaultCommand::Drop {
                    peer,
                    direction,
                    percent,
                    ..
                } if peer == with
                    && (direction == way || direction == Direction::Both)
                    && self.chance.u8(0..100) < percent =>
                {
                    return Fate::Drop;
                }
                FaultCommand::Delay { peer, by, .. } if peer == with => late = late.max(by),
                _ => {}
            }
        }
        if late.is_zero() { Fate::Pass } else { Fate::Delay(late) }
    }

    /// How much longer than it does a sync shall take.
    pub fn sync_delay(&self, now: Time) -> Duration {
        let on = self.on.iter().filter(|on| on.until > now);
        let delays = on.filter_map(|on| match on.fault {
            FaultCommand::SlowSync { by, .. } => Some(by),
            _ => None,
        });
        delays.max().unwrap_or(Duration::ZERO)
    }

    /// How long the whole loop shall sleep at the beginning of this turn; told once.
    pub fn take_pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// When something changes without being asked: an end time, or the acceptor's next failure or restart.
    pub fn deadline(&self) -> Option<Time> {
        let chance = self.failures.as_ref().map(|failures| failures.next);
        self.on.iter().map(|on| on.until).chain(chance).min()
    }

    /// What has become due: ended faults are forgotten, and the machine is told if its acceptor fails or restarts.
    pub fn due(&mut self, now: Time, inputs: &mut Vec<Input>) {
        self.on.retain(|on| {
            let goes_on = on.until > now;
            if !goes_on {
                log::warn!("injected fault is over: {}", on.fault);
            }
            goes_on
        });
        if std::mem::take(&mut self.corrupts) {
            inputs.push(Input::Corrupt);
        }
        if let Some(failures) = &mut self.failures {
            failures.advance(now);
        }
        let by_hand = self
            .on
            .iter()
            .any(|on| matches!(on.fault, FaultCommand::AcceptorDown { .. }));
        let is_down = by_hand || self.failures.as_ref().is_some_and(|failures| failures.is_down);
        if std::mem::replace(&mut self.told_down, is_down) != is_down {
            inputs.push(if is_down {
                Input::AcceptorDown
            } else {
                Input::AcceptorUp
            });
        }
    }

    /// Each fault that is on, with the time that it has left; for `status`.
    pub fn names(&self, now: Time) -> Vec<String> {
        let left = |until: Time| format_duration(Duration::from_millis(millis(until.since(now)).max(1)));
        let by_hand = self.on.iter().filter(|on| on.until > now);
        let mut names: Vec<String> = by_hand
            .map(|on| format!("{}, {} left", name(&on.fault), left(on.until)))
            .collect();
        if let Some(lasts) = self.pause {
            names.push(format!("pause {}, about to begin", format_duration(lasts)));
        }
        if let Some(failures) = self.failures.as_ref().filter(|failures| failures.is_down) {
            names.push(format!("acceptor down by chance, {} left", left(failures.next)));
        }
        names
    }
}

impl Failures {
    fn new(node: NodeId, spec: AcceptorFailures) -> Failures {
        let mut rng = fastrand::Rng::with_seed(spec.seed ^ SEED_STEP.wrapping_mul(u64::from(node.0)));
        let next = Time::ZERO + draw(&mut rng, spec.mtbf);
        Failures {
            spec,
            rng,
            is_down: false,
            next,
        }
    }

    /// At most one change: if the loop was blocked, a failure that is overdue still strikes, and lasts.
    fn advance(&mut self, now: Time) {
        if self.next <= now {
            self.is_down = !self.is_down;
            let mean = if self.is_down { self.spec.mttr } else { self.spec.mtbf };
            self.next = now + draw(&mut self.rng, mean);
        }
    }
}

/// A time of an exponential distribution: the chance to fail is the same at every moment, however long it went well.
fn draw(rng: &mut fastrand::Rng, mean: Duration) -> Duration {
    // 1 - [0, 1) is never zero, so the logarithm is finite: at most about 37 times the mean.
    let factor = -(1.0 - rng.f64()).ln();
    Duration::try_from_secs_f64(mean.as_secs_f64() * factor)
        .unwrap_or(mean)
        .max(CHANGE_MIN)
}

/// The fault as its command says it, without the word `fault`.
fn name(fault: &FaultCommand) -> String {
    let line = fault.to_string();
    line.strip_prefix("fault ").unwrap_or(&line).to_string()
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The process ends as by `kill -9`: no answer, no flush, no goodbye.
fn crash() -> ! {
    log::error!("injected: fault crash");
    std::process::abort()
}

impl fmt::Display for TooManyFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{FAULTS_MAX} faults are on already; wait for one to end, or clear them"
        )
    }
}

impl std::error::Error for TooManyFaults {}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults() -> Faults {
        Faults::new(NodeId(1), None)
    }

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn put_on(faults: &mut Faults, ms: u64, line: &str) {
        let fault = FaultCommand::parse_line(line).unwrap();
        faults.put_on(at(ms), fault).unwrap();
    }

    fn due(faults: &mut Faults, ms: u64) -> Vec<Input> {
        let mut inputs = Vec::new();
        faults.due(at(ms), &mut inputs);
        inputs
    }

    #[test]
    fn the_end_of_one_fault_is_not_the_end_of_another() {
        let mut faults = faults();
        put_on(&mut faults, 0, "fault acceptor down 2s");
        assert_eq!(due(&mut faults, 0), [Input::AcceptorDown]);
        put_on(&mut faults, 1000, "fault acceptor down 5s");
        assert_eq!(due(&mut faults, 1000), []);
        assert_eq!(faults.deadline(), Some(at(2000)));
        assert_eq!(due(&mut faults, 2000), [], "the longer one goes on");
        assert_eq!(faults.deadline(), Some(at(6000)));
        assert_eq!(due(&mut faults, 6000), [Input::AcceptorUp]);
        assert_eq!(faults.deadline(), None);
    }

    #[test]
    fn a_fault_is_shown_with_the_time_that_it_has_left_and_is_gone_at_its_end() {
        let mut faults = faults();
        put_on(&mut faults, 0, "fault drop 2:in 30% 4s");
        put_on(&mut faults, 0, "fault slow-sync 50ms");
        assert_eq!(
            faults.names(at(1500)),
            ["drop 2:in 30% 4s, 2s500ms left", "slow-sync 50ms 10s, 8s500ms left"]
        );
        assert_eq!(faults.sync_delay(at(9999)), Duration::from_millis(50));
        assert_eq!(faults.sync_delay(at(10_000)), Duration::ZERO);
        assert_eq!(faults.names(at(4000)).len(), 1);
        assert_eq!(faults.names(at(10_000)), [""; 0]);
    }

    #[test]
    fn drops_know_their_peer_their_way_and_their_share() {
        let mut faults = faults();
        put_on(&mut faults, 0, "fault drop 2:in");
        assert_eq!(faults.on_receive(at(1), NodeId(2)), Fate::Drop);
        assert_eq!(faults.on_send(at(1), NodeId(2)), Fate::Pass);
        assert_eq!(faults.on_receive(at(1), NodeId(3)), Fate::Pass);
        put_on(&mut faults, 0, "fault drop 3 30%");
        let lost = (0..1000)
            .filter(|_| faults.on_send(at(1), NodeId(3)) == Fate::Drop)
            .count();
        assert!((230..370).contains(&lost), "{lost} of 1000 at 30%");
        put_on(&mut faults, 0, "fault isolate 1s");
        assert_eq!(faults.on_send(at(999), NodeId(2)), Fate::Drop);
        assert_eq!(faults.on_send(at(1000), NodeId(2)), Fate::Pass);
    }

    #[test]
    fn a_delayed_link_is_late_both_ways_by_the_longest_delay() {
        let mut faults = faults();
        put_on(&mut faults, 0, "fault delay 2 20ms 5s");
        put_on(&mut faults, 0, "fault delay 2 50ms 1s");
        let late = |ms| Fate::Delay(Duration::from_millis(ms));
        assert_eq!(faults.on_send(at(0), NodeId(2)), late(50));
        assert_eq!(faults.on_receive(at(1000), NodeId(2)), late(20));
        assert_eq!(faults.on_receive(at(1000), NodeId(3)), Fate::Pass);
    }

    #[test]
    fn a_pause_is_told_once_and_clear_ends_everything_put_on_by_hand() {
        let mut faults = faults();
        put_on(&mut faults, 0, "fault pause 2s");
        assert_eq!(faults.names(at(0)), ["pause 2s, about to begin"]);
        assert_eq!(faults.take_pause(), Some(Duration::from_secs(2)));
        assert_eq!(faults.take_pause(), None);
        put_on(&mut faults, 0, "fault acceptor down");
        put_on(&mut faults, 0, "fault isolate");
        assert_eq!(due(&mut faults, 0), [Input::AcceptorDown]);
        put_on(&mut faults, 1, "fault acceptor up");
        assert_eq!(due(&mut faults, 1), [Input::AcceptorUp]);
        assert_eq!(faults.names(at(1)).len(), 1);
        put_on(&mut faults, 2, "fault clear");
        assert_eq!((faults.names(at(2)), faults.deadline()), (vec![], None));
    }

    #[test]
    fn only_so_many_faults_are_on_at_once() {
        let mut faults = faults();
        for _ in 0..FAULTS_MAX {
            put_on(&mut faults, 0, "fault drop 2 1s");
        }
        let one_more = FaultCommand::parse_line("fault isolate").unwrap();
        assert_eq!(faults.put_on(at(0), one_more.clone()), Err(TooManyFaults));
        assert_eq!(faults.put_on(at(1000), one_more), Ok(()));
    }

    #[test]
    fn failures_by_chance_keep_their_means_and_repeat_with_their_seed() {
        let run = |node, seed| {
            let spec = AcceptorFailures {
                mtbf: Duration::from_secs(10),
                mttr: Duration::from_secs(2),
                seed,
            };
            let mut faults = Faults::new(NodeId(node), Some(spec));
            let (mut changes, mut down_for, mut fell) = (Vec::new(), Duration::ZERO, Time::ZERO);
            while changes.len() < 1000 {
                let now = faults.deadline().expect("there is always a next change");
                let mut inputs = Vec::new();
                faults.due(now, &mut inputs);
                match inputs[..] {
                    [Input::AcceptorDown] => fell = now,
                    [Input::AcceptorUp] => down_for += now.since(fell),
                    _ => panic!("{inputs:?} at {now}"),
                }
                changes.push(now);
            }
            (changes, down_for)
        };
        let (changes, down_for) = run(1, 7);
        let mean_down = down_for.as_secs_f64() / 500.0;
        let mean_cycle = changes[999].since(Time::ZERO).as_secs_f64() / 500.0;
        assert!((1.7..2.3).contains(&mean_down), "{mean_down} s down");
        assert!((10.8..13.2).contains(&mean_cycle), "{mean_cycle} s a cycle");
        assert_eq!(run(1, 7).0, changes);
        assert_ne!(run(2, 7).0, changes, "nodes of one seed fail at different times");
        assert_ne!(run(1, 8).0, changes);
    }

    #[test]
    fn the_end_of_a_failure_by_hand_is_not_the_end_of_one_by_chance() {
        let spec = AcceptorFailures {
            mtbf: Duration::from_secs(1),
            mttr: Duration::from_secs(1000),
            seed: 1,
        };
        let mut faults = Faults::new(NodeId(1), Some(spec));
        let fails = faults.deadline().expect("it fails at some time");
        let mut inputs = Vec::new();
        faults.due(fails, &mut inputs);
        let by_hand = FaultCommand::parse_line("fault acceptor down 1ms").unwrap();
        faults.put_on(fails, by_hand).unwrap();
        faults.due(fails + Duration::from_millis(1), &mut inputs);
        assert_eq!(inputs, [Input::AcceptorDown]);
        assert!(faults.names(fails + Duration::from_millis(1))[0].starts_with("acceptor down by chance"));
    }
}
