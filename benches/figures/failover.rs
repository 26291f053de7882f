//! What clients see of a node's death: the leader killed, the leader asked to end, a follower killed and started again,
//! all under putting clients.
//!
//! The load runs in a thread of its own, without a pause, and tells every write that was acknowledged, with its beginning
//! and its end. *Outage*: from just before the kill to the end of the first write that was begun after the killed process
//! was gone. So no answer that it had still sent can count, and one write's own time is in it. *Silence*: the longest time
//! in which no write was acknowledged at all.

use crate::figure::{Spread, head, row, shown};
use crate::machine::JsonFile;
use crate::now;
use crate::subject::{NodeFlags, Subject};
use crate::support::TestCluster;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use synod::client::{ClientMachine, End, Options, Pool};
use synod::kv::Op;
use synod::wire::RequestOp;

/// How often, and by how many clients.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the leader is killed
    #[arg(long, env = "KILLS", default_value_t = 20)]
    kills: usize,
    /// How often the leader is asked to end, and how often a follower is killed
    #[arg(long, env = "OTHERS", default_value_t = 5)]
    others: usize,
    #[command(flatten)]
    flags: NodeFlags,
    #[command(flatten)]
    json: JsonFile,
}

/// Putting clients, one write in flight each.
const CLIENTS: usize = 64;
const KEYS: u64 = 10_000;
const VALUE_BYTES: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(5);
/// A cluster is used for so many events; its log grows meanwhile.
const EVENTS_PER_CLUSTER: usize = 20;
/// Load before an event, and what is looked at behind one.
const QUIET: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_secs(1);
/// The first write behind a kill comes within, or the measurement fails.
const OUTAGE_MAX: Duration = Duration::from_secs(15);
/// A node that was started is back within, or the measurement fails.
const RETURN_MAX: Duration = Duration::from_secs(60);
/// It is back when it lags by no more slots than the load makes in some milliseconds.
const LAG_MAX: u64 = 200;

/// What a load writes: its clients have one write in flight each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writes {
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    /// Key after key, instead of any.
    pub(crate) is_in_order: bool,
}

/// What is written while nodes die.
const WRITES: Writes = Writes {
    clients: CLIENTS,
    keys: KEYS,
    value_bytes: VALUE_BYTES,
    is_in_order: false,
};

/// A write that was acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Done {
    begun: Instant,
    ended: Instant,
}

/// The load, until it is dropped.
pub(crate) struct Load {
    done: Receiver<Done>,
    /// All that was received, in the order of their ends.
    pub(crate) seen: Vec<Done>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Load {
    pub(crate) fn start(endpoints: Vec<String>, writes: Writes) -> Load {
        let (sender, done) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || put(&endpoints, writes, &sender, &is_over));
        Load {
            done,
            seen: Vec::new(),
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn receive(&mut self) {
        self.seen.extend(self.done.try_iter());
    }

    /// The first write begun after `moment`, once there is one.
    fn first_begun_after(&mut self, moment: Instant) -> Option<Done> {
        self.receive();
        self.seen.iter().copied().find(|done| done.begun >= moment)
    }

    /// How long the writes took that ended in a window of time, milliseconds.
    pub(crate) fn latencies(&mut self, from: Instant, to: Instant) -> Spread {
        self.receive();
        let within = self.seen.iter().filter(|done| done.ended >= from && done.ended < to);
        within.map(|done| millis(done.ended - done.begun)).collect()
    }

    /// The longest time within the window in which nothing was acknowledged, milliseconds.
    fn silence(&mut self, from: Instant, to: Instant) -> f64 {
        self.receive();
        let ends = self
            .seen
            .iter()
            .map(|done| done.ended)
            .filter(|ended| *ended >= from && *ended < to);
        let moments: Vec<Instant> = std::iter::once(from).chain(ends).chain([to]).collect();
        let gaps = moments.windows(2).map(|pair| millis(pair[1] - pair[0]));
        gaps.fold(0.0, f64::max)
    }

    /// Ends it; how many writes have an unknown end.
    pub(crate) fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is finished once");
        thread.join().expect("the load runs")
    }
}

/// The load's loop.
fn put(endpoints: &[String], writes: Writes, sender: &Sender<Done>, is_over: &AtomicBool) -> u64 {
    let template = Options::random().expect("the system gives random numbers");
    let mut rng = fastrand::Rng::with_seed(template.seed);
    let mut pool = Pool::new().expect("the system gives a poll");
    for client in 0..writes.clients {
        let options = Options {
            seed: rng.u64(..),
            session_id: template.session_id.wrapping_add((client as u128) << 64),
            ..template.clone()
        };
        pool.add(ClientMachine::new(endpoints.to_vec(), options));
    }
    let origin = now() - Duration::from_nanos(pool.now().0);
    let mut begun = vec![origin; writes.clients];
    let (mut completions, mut unknown, mut begun_count) = (Vec::new(), 0, 0);
    let mut idle: Vec<usize> = (0..writes.clients).collect();
    while !is_over.load(Ordering::Relaxed) {
        for client in idle.drain(..) {
            let number = if writes.is_in_order { begun_count } else { rng.u64(..) };
            begun_count += 1;
            let key = format!("{:016}", number % writes.keys);
            let op = Op::Put {
                key: key.into(),
                value: vec![b'v'; writes.value_bytes].into(),
                if_absent: false,
                want_previous: false,
            };
            let at = pool.now();
            pool.submit(at, client, 0, RequestOp::Write(op), TIMEOUT);
            begun[client] = origin + Duration::from_nanos(at.0);
        }
        let until = pool.now() + Duration::from_millis(50);
        pool.turn(Some(until), &mut completions).expect("the poll works");
        for completion in completions.drain(..) {
            let done = Done {
                begun: begun[completion.client],
                ended: origin + Duration::from_nanos(completion.ended.0),
            };
            match completion.end {
                // Whoever measured may have gone; then the load ends soon.
                End::Done(_) => drop(sender.send(done)),
                End::NotDone(_) => {}
                End::Unknown(_) => unknown += 1,
            }
            idle.push(completion.client);
        }
    }
    pool.close(Duration::from_secs(1), &mut completions)
        .expect("the poll works");
    unknown
}

/// A cluster under load, for some events.
struct Stage {
    subject: Subject,
    load: Load,
}

/// What was measured of one kind of event, milliseconds.
#[derive(Default)]
struct Seen {
    outages: Vec<f64>,
    silences: Vec<f64>,
    /// The p99 and the longest of the writes in a window before, behind the death and behind the return.
    before: Vec<(f64, f64)>,
    death: Vec<(f64, f64)>,
    back: Vec<(f64, f64)>,
    unknown: u64,
}

impl Stage {
    fn start(flags: &[String]) -> Stage {
        let subject = Subject::start(3, flags);
        let load = Load::start(subject.cluster.addresses(), WRITES);
        Stage { subject, load }
    }

    fn cluster(&mut self) -> &mut TestCluster {
        &mut self.subject.cluster
    }

    /// A window of load in which nothing happens; the leader.
    fn rest(&mut self, seen: &mut Seen) -> u16 {
        let leader = self.cluster().wait_for_leader();
        self.load.receive();
        self.load.seen.clear();
        let from = now();
        self.cluster().rest(QUIET);
        seen.before.push(self.worst(from));
        leader
    }

    /// The p99 and the longest since `from`.
    fn worst(&mut self, from: Instant) -> (f64, f64) {
        let latencies = self.load.latencies(from, now());
        (latencies.at(0.99), latencies.at(1.0))
    }

    /// `kill -9` of the leader, the next write, and its return.
    fn kill_leader(&mut self, seen: &mut Seen) {
        let leader = self.rest(seen);
        let killed = now();
        assert!(self.cluster().kill_node(leader), "the leader runs");
        let gone = now();
        let first = loop {
            self.listen(Duration::from_millis(20));
            if let Some(first) = self.load.first_begun_after(gone) {
                break first;
            }
            assert!(
                gone.elapsed() < OUTAGE_MAX,
                "no write was acknowledged after the leader's death"
            );
        };
        self.listen(WINDOW.saturating_sub(gone.elapsed()));
        seen.outages.push(millis(first.ended - killed));
        seen.silences.push(self.load.silence(killed, now()));
        seen.death.push(self.worst(killed));
        self.bring_back(leader, seen);
    }

    /// The leader is asked to end, hands over, and comes back.
    fn hand_over(&mut self, seen: &mut Seen) {
        let leader = self.rest(seen);
        let asked = now();
        assert!(self.cluster().signal(leader, Signal::TERM), "the leader runs");
        while self.cluster().is_running(leader) {
            self.listen(Duration::from_millis(5));
        }
        self.listen(WINDOW.saturating_sub(asked.elapsed()));
        seen.silences.push(self.load.silence(asked, now()));
        seen.death.push(self.worst(asked));
        self.bring_back(leader, seen);
    }

    /// A follower is killed and comes back.
    fn kill_follower(&mut self, seen: &mut Seen) {
        let leader = self.rest(seen);
        let follower = leader % 3 + 1;
        let killed = now();
        assert!(self.cluster().kill_node(follower), "the follower runs");
        self.listen(WINDOW);
        seen.silences.push(self.load.silence(killed, now()));
        seen.death.push(self.worst(killed));
        self.bring_back(follower, seen);
    }

    /// Starts a node and waits until it has what the others have.
    fn bring_back(&mut self, node: u16, seen: &mut Seen) {
        let started = now();
        self.cluster().start_node(node).expect("the node can be started");
        self.listen(WINDOW);
        seen.back.push(self.worst(started));
        while !is_back(self.cluster(), node) {
            self.listen(Duration::from_millis(100));
            assert!(started.elapsed() < RETURN_MAX, "node {node} does not come back");
        }
    }

    /// Lets time pass; nodes may end meanwhile.
    fn listen(&mut self, span: Duration) {
        let until = now() + span;
        loop {
            let left = until.saturating_duration_since(now());
            self.cluster().pump(left, |_, _| {}).expect("log lines can be read");
            if left.is_zero() {
                return;
            }
        }
    }
}

/// Whether the leader sees that `node` has caught up, and the node votes.
pub(crate) fn is_back(cluster: &TestCluster, node: u16) -> bool {
    let Some(leader) = cluster.leader() else { return false };
    let (Some(leading), Some(following)) = (cluster.status(leader), cluster.status(node)) else {
        return false;
    };
    let rows = leading["followers"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["id"] == node);
    let lag = row.and_then(|row| Some(leading["chosen"].as_u64()?.saturating_sub(row["chosen"].as_u64()?)));
    following["voter"] == true && lag.is_some_and(|lag| lag <= LAG_MAX)
}

/// One kind of event, so many times, on as many clusters as that takes.
fn many(count: usize, flags: &[String], event: fn(&mut Stage, &mut Seen)) -> Seen {
    let mut seen = Seen::default();
    let mut left = count;
    while left > 0 {
        let mut stage = Stage::start(flags);
        for _ in 0..left.min(EVENTS_PER_CLUSTER) {
            event(&mut stage, &mut seen);
            left -= 1;
        }
        seen.unknown += stage.load.finish();
    }
    seen
}

/// From `kill -9` of the leader to the next acknowledged write, milliseconds, so many times.
pub(crate) fn outages(count: usize, flags: &[String]) -> Spread {
    many(count, flags, Stage::kill_leader).outages.into_iter().collect()
}

const COLUMNS: [&str; 6] = ["what, ms", "times", "p50", "p90", "p99", "most"];

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    println!("{CLIENTS} putting clients, three nodes\n\n{}", head(&COLUMNS));
    let killed = many(args.kills, &flags, Stage::kill_leader);
    print("leader killed: to the next write", &killed.outages);
    print("leader killed: no write acknowledged", &killed.silences);
    let handed = many(args.others, &flags, Stage::hand_over);
    print("leader ends cleanly: no write acknowledged", &handed.silences);
    print("leader ends cleanly: slowest write", &second(&handed.death));
    let follower = many(args.others, &flags, Stage::kill_follower);
    print("nothing happens: p99 of writes", &first(&follower.before));
    print("nothing happens: slowest write", &second(&follower.before));
    print("follower killed: p99 of writes", &first(&follower.death));
    print("follower killed: slowest write", &second(&follower.death));
    print("follower back: p99 of writes", &first(&follower.back));
    print("follower back: slowest write", &second(&follower.back));
    println!(
        "\nwrites with an unknown end: {} (killed), {} (clean end), {} (follower)",
        killed.unknown, handed.unknown, follower.unknown
    );
    let events = [
        ("leader_killed", &killed),
        ("hand_over", &handed),
        ("follower", &follower),
    ];
    let json = events.map(|(name, seen)| (name.to_owned(), seen.json()));
    args.json.write(&Value::Object(json.into_iter().collect()));
}

impl Seen {
    fn json(&self) -> Value {
        json!({
            "outages_ms": self.outages,
            "silences_ms": self.silences,
            "before_p99_and_most_ms": self.before,
            "death_p99_and_most_ms": self.death,
            "back_p99_and_most_ms": self.back,
            "unknown": self.unknown,
        })
    }
}

fn print(name: &str, numbers: &[f64]) {
    let spread: Spread = numbers.iter().copied().collect();
    let quantiles = [0.5, 0.9, 0.99, 1.0].map(|quantile| shown(spread.at(quantile)));
    println!(
        "{}",
        row([name.to_owned(), spread.len().to_string()].into_iter().chain(quantiles))
    );
}

fn first(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(first, _)| *first).collect()
}

fn second(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(_, second)| *second).collect()
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
