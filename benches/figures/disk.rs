//! Snapshots of much data, with writes going on: the longest turn, what directories and memory take while a node is away,
//! what clients see while a node with a new disk is sent a snapshot, and how long a restart takes.

use crate::failover::{Load, Writes, is_back};
use crate::figure::{head, row, shown};
use crate::now;
use crate::subject::Subject;
use std::path::Path;
use std::time::{Duration, Instant};

/// How much data.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Data, MiB
    #[arg(long, env = "MIB", default_value_t = 1024)]
    mib: u64,
    /// Bytes of a value
    #[arg(long, env = "SIZE", default_value_t = 4096)]
    value_bytes: usize,
    /// Writing clients, one write in flight each
    #[arg(long, env = "CLIENTS", default_value_t = 64)]
    clients: usize,
    /// Growth of the log between two snapshots, MiB
    #[arg(long, env = "SNAPSHOT_MIB", default_value_t = 64)]
    snapshot_mib: u64,
    /// Length of each part, seconds
    #[arg(long, env = "SECS", default_value_t = 20)]
    secs: u64,
}

const MIB: u64 = 1 << 20;
/// Clients that put the data in.
const FILLERS: usize = 256;
/// `--disk-reserve`, as it is by default.
const RESERVE_BYTES: u64 = 16 * MIB;
/// How often directories and memory are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The node with a new disk is back within, or the measurement fails.
const RETURN_MAX: Duration = Duration::from_secs(600);

/// A cluster full of data, under load, and the most that was seen of it.
struct Scene {
    subject: Subject,
    load: Load,
    directory_bytes: u64,
    resident_bytes: u64,
    data_bytes: u64,
}

impl Scene {
    fn start(args: &Args) -> Scene {
        let flags = ["--snapshot-bytes".to_owned(), format!("{}MiB", args.snapshot_mib)];
        let mut subject = Subject::start(3, &flags);
        let writes = Writes {
            clients: FILLERS,
            keys: (args.mib * MIB).div_ceil(args.value_bytes as u64),
            value_bytes: args.value_bytes,
            is_in_order: true,
        };
        let mut fill = Load::start(subject.cluster.addresses(), writes);
        while (fill.seen.len() as u64) < writes.keys {
            subject.cluster.rest(Duration::from_millis(50));
            fill.receive();
        }
        fill.finish();
        let load = Writes {
            clients: args.clients,
            is_in_order: false,
            ..writes
        };
        Scene {
            load: Load::start(subject.cluster.addresses(), load),
            subject,
            directory_bytes: 0,
            resident_bytes: 0,
            data_bytes: 0,
        }
    }

    /// Lets the load run until `is_over`, and looks at what the nodes take.
    fn run(&mut self, mut is_over: impl FnMut(&Subject) -> bool) {
        while !is_over(&self.subject) {
            self.subject.cluster.rest(LOOK_EVERY);
            self.load.receive();
            for id in self.subject.cluster.ids() {
                let bytes = directory_bytes(&self.subject.cluster.data_dir(id));
                self.directory_bytes = self.directory_bytes.max(bytes);
                let Some(status) = self.subject.cluster.status(id) else {
                    continue;
                };
                let number = |name: &str| status[name].as_u64().unwrap_or(0);
                self.resident_bytes = self.resident_bytes.max(number("resident_bytes"));
                self.data_bytes = self.data_bytes.max(number("data_bytes"));
            }
        }
    }

    fn run_for(&mut self, secs: u64) {
        let until = now() + Duration::from_secs(secs);
        self.run(|_| now() >= until);
    }

    /// Writes in a second and their p99 and longest, milliseconds, since `from`.
    fn writes(&mut self, name: &str, from: Instant) {
        let to = now();
        let latencies = self.load.latencies(from, to);
        let a_second = latencies.len() as f64 / (to - from).as_secs_f64();
        let shares = [0.5, 0.99, 1.0].map(|share| shown(latencies.at(share)));
        println!("{}", row([name.to_owned(), shown(a_second)].into_iter().chain(shares)));
    }

    /// The largest of a counter over all nodes that run.
    fn longest_ms(&self, counter: &str) -> f64 {
        let cluster = &self.subject.cluster;
        let of = |id: u16| -> Option<u64> {
            let lines = cluster.ask(id, "metrics").ok()?;
            let line = lines
                .lines()
                .find(|line| line.split_whitespace().next() == Some(counter))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let longest = cluster.ids().into_iter().filter_map(of).max();
        longest.map_or(f64::NAN, |us| us as f64 / 1e3)
    }

    /// What the node that started last says of its reading back.
    fn read_back(&self) -> String {
        let mut log = self.subject.cluster.log().iter().rev();
        let line = log.find(|line| line.contains("read back from"));
        let words = line.and_then(|line| Some(line.split_once(" in ")?.1.to_owned()));
        words.unwrap_or_default()
    }

    /// A follower starts again, on what `prepare` leaves of its directory; how long until it is back.
    fn restart(&mut self, node: u16, prepare: impl FnOnce(&Path)) -> Duration {
        let directory = self.subject.cluster.data_dir(node);
        prepare(&directory);
        let started = now();
        self.subject.cluster.start_node(node).expect("it starts");
        self.run(|subject| {
            assert!(started.elapsed() < RETURN_MAX, "node {node} does not come back");
            is_back(&subject.cluster, node)
        });
        started.elapsed()
    }
}

/// Bytes in all files of a directory.
fn directory_bytes(directory: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(directory) else {
        return 0;
    };
    let sizes = files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |data| data.len()));
    sizes.sum()
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let began = now();
    let mut scene = Scene::start(args);
    eprintln!("{} MiB are in after {:.0?}", args.mib, began.elapsed());
    println!("{}", head(&["writes", "a second", "p50 ms", "p99 ms", "longest ms"]));
    let from = now();
    scene.run_for(args.secs);
    scene.writes("all nodes up", from);
    let leader = scene.subject.cluster.wait_for_leader();
    let follower = leader % 3 + 1;
    let slice = scene.longest_ms("snapshot_us_longest");
    let sync = scene.longest_ms("sync_us_longest");
    assert!(scene.subject.cluster.kill_node(follower), "it runs");
    let from = now();
    scene.run_for(args.secs);
    scene.writes("a node is away", from);
    let from = now();
    let restart = scene.restart(follower, |_| {});
    let read_back = scene.read_back();
    scene.writes("it comes back", from);
    assert!(scene.subject.cluster.kill_node(follower), "it runs");
    let from = now();
    // Set aside rather than removed: to free gigabytes keeps the disk busy for seconds, and a new disk has nothing to free.
    let renewed = scene.restart(follower, |directory| {
        std::fs::rename(directory, directory.with_extension("aside")).expect("it is there");
    });
    scene.writes("it comes back with an empty disk", from);
    let slice_sent = scene.longest_ms("snapshot_us_longest");
    let unknown = scene.load.finish();
    let (data, between) = (scene.data_bytes, args.snapshot_mib * MIB);
    let mib = |bytes: u64| shown(bytes as f64 / MIB as f64);
    println!("\n{}", head(&["what", "measured", "bound"]));
    let rows = [
        ("data D, MiB".to_owned(), mib(data), String::new()),
        (
            "largest directory, MiB".into(),
            mib(scene.directory_bytes),
            format!("4·D + 6·S + reserve: {}", mib(4 * data + 6 * between + RESERVE_BYTES)),
        ),
        (
            "most resident memory, MiB".into(),
            mib(scene.resident_bytes),
            format!("2·D + 6·S + 64 MiB: {}", mib(2 * data + 6 * between + 64 * MIB)),
        ),
        ("longest slice of a snapshot, ms".into(), shown(slice), "20".into()),
        (
            "the same, with one being sent and loaded".into(),
            shown(slice_sent),
            "20".into(),
        ),
        ("longest sync of the log, ms".into(), shown(sync), String::new()),
        ("a start reads back".into(), read_back, String::new()),
        (
            "restart to voting without lag, s".into(),
            shown(restart.as_secs_f64()),
            String::new(),
        ),
        (
            "the same with an empty disk, s".into(),
            shown(renewed.as_secs_f64()),
            String::new(),
        ),
        ("writes with an unknown end".into(), unknown.to_string(), String::new()),
    ];
    for (what, measured, bound) in rows {
        println!("{}", row([what, measured, bound]));
    }
}
