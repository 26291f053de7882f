//! Real processes, killed for real: few, short, and each a promise of the README.

#[path = "cluster/backup.rs"]
mod backup;
mod support;

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{RawClient, TestCluster, client, start_cluster};
use synod::client::blocking::{Cas, Error};
use synod::cluster::local::ClusterError;
use synod::cluster::torture;
use synod::kv::{Answer, Done, Expect, Op, SessionRef};
use synod::paxos::Slot;
use synod::wire::{Code, Outcome, RequestOp, Served};

/// Writers that put unique keys until told to stop; each remembers what was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<BTreeMap<String, u64>>>,
}

impl Writers {
    fn start(cluster: &TestCluster, count: u64) -> Writers {
        let (stop, done, failed) = Default::default();
        let mut writers = Writers {
            stop,
            done,
            failed,
            threads: Vec::new(),
        };
        for writer in 0..count {
            let (endpoints, stop) = (cluster.addresses(), writers.stop.clone());
            let (done, failed) = (writers.done.clone(), writers.failed.clone());
            writers.threads.push(std::thread::spawn(move || {
                let mut client = client(&endpoints, Duration::from_secs(15));
                let mut acknowledged = BTreeMap::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("writer-{writer}-{number}");
                    match client.put(key.clone(), number.to_string()) {
                        Ok(_) => {
                            acknowledged.insert(key, number);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            eprintln!("put {key}: {error}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                let _ = client.close(); // the session expires by itself otherwise
                acknowledged
            }));
        }
        writers
    }

    /// Waits until so many more writes were acknowledged.
    fn wait_for_more(&self, cluster: &mut TestCluster, more: usize) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        let done = &self.done;
        let came = cluster.wait_until(Duration::from_secs(20), |_| done.load(Ordering::Relaxed) >= goal);
        assert!(came, "writes do not go on");
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Stops all, and looks for everything that was acknowledged.
    fn finish(self, cluster: &mut TestCluster) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut reader = client(&cluster.addresses(), Duration::from_secs(15));
        let mut count = 0;
        for thread in self.threads {
            for (key, number) in thread.join().expect("a writer ends well") {
                let found = reader.get(key.clone()).expect("reads are served");
                let value = found
                    .unwrap_or_else(|| panic!("{key} was acknowledged, and is gone"))
                    .value;
                assert_eq!(value, number.to_string().as_bytes(), "{key}");
                count += 1;
            }
        }
        count
    }
}

#[test]
fn any_two_of_five_may_die_and_even_all_at_once_and_nothing_acknowledged_is_lost() {
    let mut cluster = start_cluster(5, &[]);
    let writers = Writers::start(&cluster, 4);
    writers.wait_for_more(&mut cluster, 50);
    for pair in [[1, 2], [3, 4], [5, 1], [2, 4]] {
        let leader = cluster.wait_for_leader();
        // The leader is always one of them.
        let victims = if pair.contains(&leader) {
            pair
        } else {
            [pair[0], leader]
        };
        victims.iter().for_each(|id| assert!(cluster.kill_node(*id)));
        writers.wait_for_more(&mut cluster, 30);
        victims
            .iter()
            .for_each(|id| cluster.start_node(*id).expect("it starts again"));
        writers.wait_for_more(&mut cluster, 30);
        // Everybody is back before the next two die, so that a majority always lives.
        let all_follow = |cluster: &synod::cluster::LocalCluster| {
            cluster
                .ids()
                .iter()
                .all(|id| cluster.status(*id).is_some_and(|status| status["has_quorum"] == true))
        };
        assert!(
            cluster.wait_until(Duration::from_secs(10), all_follow),
            "not all nodes are back"
        );
    }
    assert_eq!(
        writers.failed(),
        0,
        "operations failed though a majority lived all the time"
    );
    cluster.kill_all();
    cluster
        .ids()
        .into_iter()
        .for_each(|id| cluster.start_node(id).expect("it starts again"));
    writers.wait_for_more(&mut cluster, 50);
    let count = writers.finish(&mut cluster);
    assert!(count >= 340, "{count} writes acknowledged and found");
}

#[test]
fn concurrent_increments_end_at_the_exact_count_although_nodes_are_killed() {
    const THREADS: u64 = 4;
    const INCREMENTS: u64 = 60;
    let mut cluster = start_cluster(3, &[]);
    let threads: Vec<JoinHandle<()>> = (0..THREADS)
        .map(|_| {
            let endpoints = cluster.addresses();
            std::thread::spawn(move || {
                let mut client = client(&endpoints, Duration::from_secs(20));
                for _ in 0..INCREMENTS {
                    increment(&mut client);
                }
            })
        })
        .collect();
    for _ in 0..3 {
        cluster.rest(Duration::from_millis(300));
        let leader = cluster.wait_for_leader();
        assert!(cluster.kill_node(leader));
        cluster.rest(Duration::from_millis(400));
        cluster.start_node(leader).expect("it starts again");
        cluster.wait_for_leader();
    }
    for thread in threads {
        assert!(
            cluster.wait_until(Duration::from_secs(30), |_| thread.is_finished()),
            "increments do not end"
        );
        thread.join().expect("a counter ends well");
    }
    let mut reader = client(&cluster.addresses(), Duration::from_secs(10));
    let count = reader.get("counter").expect("served").expect("counted");
    assert_eq!(count.value, (THREADS * INCREMENTS).to_string().as_bytes());
}

/// Reads, adds one, and swaps, until the swap was this client's own.
fn increment(client: &mut synod::client::blocking::Client) {
    loop {
        let swapped = match client.get("counter").expect("reads are served") {
            None => client.put_if_absent("counter", "1"),
            Some(found) => {
                let count: u64 = std::str::from_utf8(&found.value)
                    .expect("text")
                    .parse()
                    .expect("a number");
                let swap = client.cas("counter", Expect::Version(found.version), (count + 1).to_string());
                swap.map(|cas| matches!(cas, Cas::Swapped { .. }))
            }
        };
        match swapped {
            Ok(true) => return,
            Ok(false) => {}
            Err(error @ (Error::NotDone(_) | Error::Unknown(_) | Error::Io(_))) => panic!("{error}"),
        }
    }
}

#[test]
fn a_write_repeated_at_every_node_and_across_a_leader_kill_takes_effect_once() {
    let mut cluster = start_cluster(3, &[]);
    let mut session = SessionRef {
        id: fastrand::u128(1..),
        opened: Slot::ZERO,
    };
    let done = |outcome: Option<Outcome>| match outcome {
        Some(Outcome::Done(Served::Done(done))) => Some(done),
        _ => None,
    };
    // OPEN carries no write, so it may be repeated as well: the same slot comes back.
    for address in cluster.addresses() {
        let opened = done(RawClient::connect(&address).request(session, 0, RequestOp::Write(Op::Open)));
        let open_again = SessionRef {
            opened: Slot::ZERO,
            ..session
        };
        let Some(Done {
            answer: Answer::Opened { opened: slot },
            ..
        }) = opened.or_else(|| done(RawClient::connect(&address).request(open_again, 0, RequestOp::Write(Op::Open))))
        else {
            panic!("OPEN is not answered");
        };
        if session.opened != Slot::ZERO {
            assert_eq!(session.opened, slot);
        }
        session = SessionRef {
            opened: Slot::ZERO,
            ..session
        };
        if address == *cluster.addresses().last().expect("three") {
            session.opened = slot;
        }
    }
    let put = || {
        let (key, value) = (Bytes::from("once"), Bytes::from("1"));
        RequestOp::Write(Op::Put {
            key,
            value,
            if_absent: true,
            want_previous: false,
        })
    };
    let first =
        done(RawClient::connect(&cluster.addresses()[0]).request(session, 1, put())).expect("the first is done");
    assert!(matches!(first.answer, Answer::Written { .. }));
    for address in cluster.addresses() {
        let again = done(RawClient::connect(&address).request(session, 1, put()));
        assert_eq!(
            again.as_ref(),
            Some(&first),
            "the same answer, slot and revision included, from {address}"
        );
    }
    let leader = cluster.wait_for_leader();
    cluster.kill_node(leader);
    cluster.wait_for_leader();
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        let address = cluster.address(id).to_string();
        let came = cluster.wait_until(Duration::from_secs(10), |_| {
            done(RawClient::connect(&address).request(session, 1, put())).is_some_and(|again| again == first)
        });
        assert!(came, "n{id} does not give the first answer again");
    }
}

#[test]
fn clients_of_every_node_see_each_others_writes_at_once() {
    let cluster = start_cluster(3, &[]);
    let mut clients: Vec<_> = cluster
        .addresses()
        .into_iter()
        .map(|address| {
            let mut options = synod::client::Options::random().expect("randomness");
            options.follow_leader = false; // stays where it is: followers forward
            synod::client::blocking::Client::connect(&[address], options).expect("a client")
        })
        .collect();
    for round in 0..20 {
        let writer = round % clients.len();
        clients[writer].put("shared", round.to_string()).expect("written");
        for client in &mut clients {
            let found = client.get("shared").expect("read").expect("there");
            assert_eq!(found.value, round.to_string().as_bytes(), "a read went back");
        }
    }
}

#[test]
fn acceptors_that_fail_and_return_at_random_lose_nothing() {
    let mut cluster = start_cluster(3, &["--acceptor-failures", "mtbf=800ms,mttr=150ms,seed={id}"]);
    let writers = Writers::start(&cluster, 4);
    cluster.rest(Duration::from_secs(4));
    writers.wait_for_more(&mut cluster, 20);
    let failures = cluster
        .log()
        .iter()
        .filter(|line| line.contains("acceptor failed"))
        .count();
    assert!(failures >= 3, "only {failures} acceptor failures in four seconds");
    let count = writers.finish(&mut cluster);
    assert!(count >= 50, "{count} writes acknowledged and found");
}

#[test]
fn an_isolated_leader_steps_down_and_tells_its_clients_the_truth() {
    let mut cluster = start_cluster(3, &["--allow-faults"]);
    let mut writer = client(&cluster.addresses(), Duration::from_secs(10));
    writer.put("before", "1").expect("written");
    let leader = cluster.wait_for_leader();
    let mut raw = RawClient::connect(&cluster.address(leader).to_string());
    let answer = cluster.ask(leader, "fault isolate 3s").expect("the debug port answers");
    assert!(answer.ends_with("OK\n"), "{answer}");
    let get = RequestOp::Get {
        key: Bytes::from("before"),
    };
    let outcome = raw.request(SessionRef::default(), 0, get).expect("an answer");
    assert!(
        matches!(outcome, Outcome::NotDone { .. }),
        "a leader that hears nobody must not serve reads: {outcome:?}"
    );
    let stepped_down = |cluster: &synod::cluster::LocalCluster| {
        cluster.status(leader).is_some_and(|status| status["role"] != "leader")
    };
    assert!(
        cluster.wait_until(Duration::from_secs(3), stepped_down),
        "it still calls itself leader"
    );
    writer.put("during", "2").expect("the others serve meanwhile");
    let is_back = |cluster: &synod::cluster::LocalCluster| {
        cluster
            .status(leader)
            .is_some_and(|status| status["role"] == "follower" && status["has_quorum"] == true)
    };
    assert!(
        cluster.wait_until(Duration::from_secs(10), is_back),
        "it does not come back"
    );
    let mut on_it = client(&[cluster.address(leader).to_string()], Duration::from_secs(5));
    assert_eq!(on_it.get("during").expect("served").expect("there").value, b"2"[..]);
}

#[test]
fn a_node_that_is_asked_to_end_hands_leadership_over_and_ends_cleanly() {
    let mut cluster = start_cluster(3, &[]);
    let leader = cluster.wait_for_leader();
    let began = support::now();
    cluster.signal(leader, rustix::process::Signal::TERM);
    let mut log = Vec::new();
    let mut ended = Vec::new();
    while ended.is_empty() && began.elapsed() < Duration::from_secs(5) {
        ended = cluster
            .pump(Duration::from_millis(20), |id, line| log.push(format!("n{id} {line}")))
            .expect("log lines");
    }
    assert!(
        matches!(ended.as_slice(), [(id, status)] if *id == leader && status.success()),
        "{ended:?}\n{}",
        log.join("\n")
    );
    assert!(
        log.iter().any(|line| line.contains("hands leadership over")),
        "{}",
        log.join("\n")
    );
    assert_ne!(cluster.wait_for_leader(), leader);
}

#[test]
fn a_node_whose_state_was_altered_is_found_stops_serving_and_is_well_after_a_new_start() {
    let mut cluster = start_cluster(3, &["--allow-faults"]);
    let mut writer = client(&cluster.addresses(), Duration::from_secs(10));
    writer.put("before", "1").expect("written");
    let (code, words) = verify(&cluster);
    assert_eq!(code, Some(0), "{words}");
    let leader = cluster.wait_for_leader();
    let victim = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    let has_all = |cluster: &synod::cluster::LocalCluster| {
        let applied = |id| cluster.status(id).map(|status| status["applied"].clone());
        applied(victim) == applied(leader)
    };
    assert!(
        cluster.wait_until(Duration::from_secs(5), has_all),
        "it does not catch up"
    );
    let answer = cluster.ask(victim, "fault corrupt").expect("the debug port answers");
    assert!(answer.ends_with("OK\n"), "{answer}");
    writer.put("after", "2").expect("the others serve");
    let slot = cluster.status(leader).expect("it answers")["applied"].clone();
    writer.put("more", "3").expect("the others serve");
    let is_diverged = |cluster: &synod::cluster::LocalCluster| {
        let status = cluster.status(victim).unwrap_or_default();
        status["diverged"].is_u64() && status["voter"] == false
    };
    assert!(
        cluster.wait_until(Duration::from_secs(5), is_diverged),
        "nobody notices: {:?}",
        cluster.status(victim)
    );
    let (code, words) = verify(&cluster);
    assert_eq!(code, Some(1), "{words}");
    assert!(
        words.contains(&format!("DIFFERENT from slot {slot} on")),
        "slot {slot}: {words}"
    );
    let get = RequestOp::GetStale {
        key: Bytes::from("before"),
        at_least: Slot::ZERO,
    };
    let outcome = RawClient::connect(&cluster.address(victim).to_string()).request(SessionRef::default(), 0, get);
    let refused = matches!(
        outcome,
        Some(Outcome::NotDone {
            code: Code::Diverged,
            ..
        })
    );
    assert!(refused, "{outcome:?}");
    writer.put("meanwhile", "4").expect("two of three go on");
    cluster.kill_node(victim);
    cluster.start_node(victim).expect("it starts again");
    let is_well = |cluster: &synod::cluster::LocalCluster| {
        let status = cluster.status(victim).unwrap_or_default();
        status["diverged"].is_null() && status["voter"] == true && status["has_quorum"] == true
    };
    assert!(cluster.wait_until(Duration::from_secs(10), is_well), "it stays wrong");
    let log = cluster.log().join("\n");
    assert!(log.contains("ERROR") && log.contains("DIVERGED"), "{log}");
    let (code, words) = verify(&cluster);
    assert_eq!(code, Some(0), "{words}");
}

/// Waits until a node votes; it may take five seconds with all others up.
fn wait_until_it_votes(cluster: &mut TestCluster, id: u16, generation: u64) {
    let began = support::now();
    let votes = |cluster: &synod::cluster::LocalCluster| {
        let status = cluster.status(id).unwrap_or_default();
        status["voter"] == true && status["generation"] == generation
    };
    let voted = cluster.wait_until(Duration::from_secs(5), votes);
    let status = cluster.status(id).unwrap_or_default();
    assert!(voted, "n{id} does not vote again: {}", status["voter_reason"]);
    eprintln!("n{id} votes again after {:?}", began.elapsed());
}

#[test]
fn a_node_that_lost_its_memory_votes_again_by_itself() {
    let mut cluster = start_cluster(3, &[]);
    let writers = Writers::start(&cluster, 4);
    writers.wait_for_more(&mut cluster, 50);
    let leader = cluster.wait_for_leader();
    let victim = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    let directory = cluster.data_dir(victim);

    // Its directory is gone.
    cluster.kill_node(victim);
    std::fs::remove_dir_all(&directory).expect("it had one");
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 2);

    // An old copy of it comes back: taken now, and put back after another start.
    cluster.kill_node(victim);
    let copy = directory.with_extension("copy");
    copy_directory(&directory, &copy);
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 2);
    writers.wait_for_more(&mut cluster, 30);
    cluster.kill_node(victim);
    std::fs::remove_dir_all(&directory).expect("it is there");
    std::fs::rename(&copy, &directory).expect("one file system");
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 3);

    // A header cannot be read: the log is set aside, whole, and what stood in it is asked for.
    cluster.kill_node(victim);
    let log = directory.join("wal-0000000001.log");
    let mut bytes = std::fs::read(&log).expect("the log is there");
    bytes[..8].fill(0xff);
    std::fs::write(&log, &bytes).expect("it can be written");
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 4);
    let aside = std::fs::read(directory.join("wal-0000000001.log.damaged")).expect("it is kept");
    assert!(aside == bytes, "as it was found");
    let words = cluster.log().join("\n");
    assert!(
        words.contains("wal-0000000001.log is damaged at offset 0 (segment_header)"),
        "{words}"
    );

    // It counts: with another one down, its vote is needed.
    cluster.kill_node(leader);
    writers.wait_for_more(&mut cluster, 50);
    writers.finish(&mut cluster);
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let name = entry.expect("it can be listed").file_name();
        std::fs::copy(from.join(&name), to.join(&name)).expect("files can be copied");
    }
}

/// `synod verify`: its exit code and what it printed.
fn verify(cluster: &TestCluster) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_synod"))
        .args(["--endpoints", &cluster.endpoints(), "verify"])
        .output()
        .expect("synod runs");
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&words).into_owned())
}

/// Bytes in all files of a directory.
fn directory_bytes(directory: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("the directory is there");
    let sizes = files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |data| data.len()));
    sizes.sum()
}

/// Puts so many large values under a few keys: the log grows, the data does not.
fn put_large(client: &mut synod::client::blocking::Client, first: u64, count: u64) {
    for number in first..first + count {
        let mut value = format!("{number}:").into_bytes();
        value.resize(LARGE_BYTES, number as u8);
        client
            .put(format!("large-{}", number % LARGE_KEYS), value)
            .expect("writes are served");
    }
}

const LARGE_BYTES: usize = 512 << 10;
const LARGE_KEYS: u64 = 12;

#[test]
fn logs_stay_short_restarts_use_snapshots_and_who_was_away_for_long_is_sent_one() {
    let between: u64 = 16 << 20;
    let mut cluster = start_cluster(3, &["--snapshot-bytes", "16MiB", "--cache-bytes", "1MiB"]);
    let mut client = client(&cluster.addresses(), Duration::from_secs(20));
    put_large(&mut client, 0, 60);
    let leader = cluster.wait_for_leader();
    let away = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    assert!(cluster.kill_node(away));
    put_large(&mut client, 60, 200);
    // A snapshot is taken by hand, too; and a leader that is killed starts from what it has.
    let asked = cluster.ask(leader, "snapshot").expect("the debug port answers");
    assert!(asked.trim_end().ends_with("OK"), "{asked}");
    assert!(cluster.kill_node(leader));
    cluster.start_node(leader).expect("it starts again");
    put_large(&mut client, 260, 8);
    cluster.start_node(away).expect("it starts again");
    let is_one = |cluster: &synod::cluster::local::LocalCluster| {
        let ids = cluster.ids().into_iter();
        let states: Vec<_> = ids
            .filter_map(|id| cluster.status(id))
            .map(|status| {
                (
                    status["applied"].clone(),
                    status["content"].clone(),
                    status["digest"].clone(),
                )
            })
            .collect();
        states.len() == 3 && states.iter().all(|state| *state == states[0])
    };
    assert!(
        cluster.wait_until(Duration::from_secs(30), is_one),
        "all nodes end with one state"
    );
    let data = LARGE_KEYS * LARGE_BYTES as u64;
    for id in cluster.ids() {
        let bytes = directory_bytes(&cluster.data_dir(id));
        let most = 4 * data + 6 * between + (16 << 20);
        assert!(bytes <= most, "node {id} takes {bytes} B, at most {most}");
        let status = cluster.status(id).expect("it runs");
        assert!(status["snapshot_slot"].is_u64(), "{status}");
    }
    let log = cluster.log().join("\n");
    assert!(
        log.contains("goes on from the snapshot that it fetched"),
        "{away} was sent a snapshot"
    );
    assert!(log.contains("the snapshot of slot"), "{leader} started from one");
    for key in 0..LARGE_KEYS {
        let found = client
            .get(format!("large-{key}"))
            .expect("reads are served")
            .expect("it was written");
        assert_eq!(found.value.len(), LARGE_BYTES);
    }
}

/// Flips a bit in the oldest segment or in the newest snapshot of a node; the file's path.
fn flip(cluster: &TestCluster, id: u16, (begin, end): (&str, &str), offset: usize) -> String {
    let directory = std::fs::read_dir(cluster.data_dir(id)).expect("it is there");
    let names = directory.map(|entry| {
        entry
            .expect("it can be listed")
            .file_name()
            .into_string()
            .expect("a text")
    });
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(begin) && name.ends_with(end))
        .collect();
    names.sort_unstable();
    let name = if begin == "wal-" { names.first() } else { names.last() };
    let path = cluster.data_dir(id).join(name.expect("there is one"));
    let mut bytes = std::fs::read(&path).expect("it can be read");
    bytes[offset] ^= 4;
    std::fs::write(&path, &bytes).expect("it can be written");
    path.display().to_string()
}

#[test]
fn rot_is_found_and_repaired_while_a_node_runs_and_at_its_start() {
    let mut cluster = start_cluster(3, &["--snapshot-bytes", "16MiB", "--scrub-bytes-per-second", "4GiB"]);
    let mut client = client(&cluster.addresses(), Duration::from_secs(20));
    put_large(&mut client, 0, 60);
    let leader = cluster.wait_for_leader();
    let victim = cluster.ids().into_iter().find(|id| *id != leader).expect("three nodes");
    let has_snapshot = |cluster: &synod::cluster::LocalCluster| {
        let status = cluster.status(victim).unwrap_or_default();
        status["snapshot_slot"].is_u64() && status["snapshot_taking"].is_null()
    };
    assert!(
        cluster.wait_until(Duration::from_secs(10), has_snapshot),
        "a snapshot is taken"
    );

    // While it runs, its memory is the truth: the files are written again from it.
    for (done, rotten) in [("snap-", ".snap"), ("wal-", ".log")].into_iter().enumerate() {
        let path = flip(&cluster, victim, rotten, 1 << 20);
        cluster.ask(victim, "scrub now").expect("the debug port answers");
        let is_repaired = |cluster: &synod::cluster::LocalCluster| {
            let scrub = cluster.ask(victim, "json scrub").unwrap_or_default();
            let scrub: Option<serde_json::Value> = scrub.lines().find_map(|line| serde_json::from_str(line).ok());
            scrub.is_some_and(|scrub| scrub["repaired"] == done + 1 && scrub["damage"] == serde_json::json!([]))
        };
        let repaired = cluster.wait_until(Duration::from_secs(10), is_repaired);
        let words = format!("repaired: the damage in {path}");
        for _ in 0..100 {
            if cluster.log().iter().any(|line| line.contains(&words)) {
                break;
            }
            cluster.rest(Duration::from_millis(20)); // its lines come on their own way
        }
        let log = cluster.log().join("\n");
        assert!(repaired, "{:?}\n{log}", cluster.ask(victim, "json scrub"));
        assert!(log.contains(&format!("{path} is damaged at offset")), "{log}");
        assert!(log.contains(&words), "{log}");
    }
    let status = cluster.status(victim).expect("it runs");
    assert!(
        status["voter"] == true && status["generation"] == 1,
        "it never forgot anything: {status}"
    );

    // What it starts from then is whole.
    cluster.kill_node(victim);
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 1);

    // Damage that a start finds may have been a vote: it votes when it knows again.
    cluster.kill_node(victim);
    put_large(&mut client, 60, 3);
    let path = flip(&cluster, victim, ("wal-", ".log"), 4096 + 20);
    cluster.start_node(victim).expect("it starts");
    wait_until_it_votes(&mut cluster, victim, 2);
    let log = cluster.log().join("\n");
    assert!(
        log.contains(&format!("{path} is damaged at offset 4096 (unit_header)")),
        "{log}"
    );
    let (code, words) = verify(&cluster);
    assert_eq!(code, Some(0), "{words}");
}

#[test]
fn a_wiped_node_recovers_although_the_others_have_only_snapshots_left() {
    for nodes in [2, 3] {
        let mut cluster = start_cluster(nodes, &["--snapshot-bytes", "16MiB", "--cache-bytes", "1MiB"]);
        let mut client = client(&cluster.addresses(), Duration::from_secs(20));
        put_large(&mut client, 0, 120);
        let leader = cluster.wait_for_leader();
        let others: Vec<u16> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
        let is_short =
            |cluster: &synod::cluster::LocalCluster| !cluster.data_dir(leader).join("wal-0000000001.log").exists();
        assert!(
            cluster.wait_until(Duration::from_secs(10), is_short),
            "the log is truncated"
        );
        cluster.kill_node(others[0]);
        std::fs::remove_dir_all(cluster.data_dir(others[0])).expect("it had one");
        cluster.start_node(others[0]).expect("it starts");
        wait_until_it_votes(&mut cluster, others[0], 2);
        let log = cluster.log().join("\n");
        assert!(
            log.contains("goes on from the snapshot that it fetched"),
            "it was sent one"
        );
        // Its vote is needed now.
        others[1..].iter().for_each(|id| assert!(cluster.kill_node(*id)));
        put_large(&mut client, 100, 2);
    }
}

#[test]
fn ten_seconds_of_torture_hold_every_kind_of_fault_and_lose_nothing() {
    let directory = tempfile::tempdir().expect("the system has room for a directory");
    let seed = fastrand::u64(..1_000_000);
    let settings = torture::Settings {
        seed,
        duration: Duration::from_secs(10),
        directory: directory.path().to_path_buf(),
        is_told: true,
    };
    println!("seed {seed}: make torture DURATION=10s SEED={seed}");
    let report = loop {
        let options = support::options(directory.path(), 5, &["--allow-faults"]);
        match torture::run(options, &settings, || false) {
            Err(ClusterError::PortTaken { .. }) => {}
            ended => break ended.expect("a cluster to torture"),
        }
    };
    println!("{report}");
    assert_eq!(report.code(), 0, "{report}");
    for kind in torture::plan::Kind::ALL {
        assert!(report.cycles.contains_key(&kind), "{} never happened", kind.name());
    }
    assert!(report.seen.done > 1000, "{report}");
}

#[test]
fn ctrl_c_ends_a_cluster_before_its_first_leader_and_in_the_middle_of_torture() {
    let directory = tempfile::tempdir().expect("the system has room for a directory");
    // A cluster whose nodes wait for one that is not there has no leader; a stopped node hears no SIGTERM.
    for (flags, patience) in [(&["--torture", "60s"][..], 3000), (&[], 50)] {
        let options = support::options(directory.path(), 5, &[]);
        let mut launcher = std::process::Command::new(env!("CARGO_BIN_EXE_synod"))
            .args(["cluster", "--nodes", "5", "--base-port", &options.base_port.to_string()])
            .arg("--data-dir")
            .arg(directory.path())
            .args(flags)
            .args(["--", "--segment-bytes", "8MiB"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("synod runs");
        std::thread::sleep(Duration::from_millis(patience));
        let pid = rustix::process::Pid::from_child(&launcher);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let asked = support::now();
        let status = launcher.wait().expect("it ends");
        assert!(asked.elapsed() < Duration::from_secs(10), "{flags:?}: it does not end");
        let expected = if flags.is_empty() { 0 } else { 130 };
        assert_eq!(status.code(), Some(expected), "{flags:?}");
        for port in options.base_port..options.base_port + 5 {
            let listener = std::net::TcpListener::bind(("127.0.0.1", port));
            assert!(listener.is_ok(), "{flags:?}: a process is left on port {port}");
        }
    }
}
