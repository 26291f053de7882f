//! Backup and restore with real processes, from a cluster that serves to another one that goes on where the backup ended.

use super::support::{self, RawClient, TestCluster, client, start_cluster};
use super::{Writers, verify};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use synod::cluster::LocalCluster;
use synod::kv::{Answer, Done, Op, SessionRef};
use synod::paxos::Slot;
use synod::wire::{Code, Outcome, RequestOp, Served};

fn synod(words: &[&str]) -> Output {
    let synod = Command::new(env!("CARGO_BIN_EXE_synod")).args(words).output();
    synod.expect("synod runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have names of ASCII")
}

/// Exit code and the words on standard error.
fn refusal(output: &Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn backup(cluster: &TestCluster, file: &Path, more: &[&str]) -> Output {
    let endpoints = cluster.endpoints();
    let words = ["--endpoints", &endpoints, "--output", "json", "backup", text(file)];
    synod(&[&words, more].concat())
}

fn backup_of(cluster: &TestCluster, file: &Path, more: &[&str]) -> Value {
    let made = backup(cluster, file, more);
    assert_eq!(made.status.code(), Some(0), "{:?}", refusal(&made));
    serde_json::from_slice(&made.stdout).expect("a JSON object")
}

fn restore(file: &Path, directories: &[&Path]) -> Output {
    let mut words = vec!["restore", text(file)];
    directories
        .iter()
        .for_each(|directory| words.extend(["--data-dir", text(directory)]));
    synod(&words)
}

fn flip(file: &Path, offset: usize) {
    let mut bytes = std::fs::read(file).expect("it is there");
    bytes[offset] ^= 1;
    std::fs::write(file, bytes).expect("it can be written");
}

/// Opens a session by hand, whose requests can be sent again later.
fn open_session(address: &str) -> SessionRef {
    let unnamed = SessionRef {
        id: 0xc0ffee,
        opened: Slot::ZERO,
    };
    match RawClient::connect(address).request(unnamed, 0, RequestOp::Write(Op::Open)) {
        Some(Outcome::Done(Served::Done(Done {
            answer: Answer::Opened { opened },
            ..
        }))) => SessionRef { opened, ..unnamed },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backup_under_load_is_restored_to_a_new_cluster_that_goes_on_above_it() {
    let place = tempfile::tempdir().expect("the system has room for a directory");
    let (first, second) = (place.path().join("first.snap"), place.path().join("second.snap"));
    let mut old = start_cluster(3, &[]);
    let old_id = old.status(1).expect("it runs")["cluster_id"].clone();
    let mut writer = client(&old.addresses(), Duration::from_secs(15));
    for number in 0..100 {
        writer
            .put(format!("key-{number}"), vec![number; 10_000])
            .expect("writes are served");
    }
    let session = open_session(&old.addresses()[0]);
    let writers = Writers::start(&old, 2);
    writers.wait_for_more(&mut old, 20);
    let before = writer.put("last", "before").expect("writes are served");
    let shown = backup_of(&old, &first, &[]);
    assert!(
        shown["revision"].as_u64() >= Some(before),
        "{shown}, {before} was acknowledged before"
    );
    assert!(
        shown["keys"].as_u64() >= Some(121) && shown["bytes"].as_u64() > Some(1_000_000),
        "{shown}"
    );
    writers.wait_for_more(&mut old, 20);

    // A file is not overwritten unless that is wanted.
    let (code, words) = refusal(&backup(&old, &first, &[]));
    assert!(code == Some(3) && words.contains("--force"), "{words}");
    std::fs::copy(&first, &second).expect("there is room");
    let later = backup_of(&old, &second, &["--force"]);
    assert!(
        later["slot"].as_u64() > shown["slot"].as_u64(),
        "{later} behind {shown}"
    );
    writers.finish(&mut old);
    let whole = synod(&["inspect", text(&old.data_dir(1)), text(&first)]);
    assert_eq!(whole.status.code(), Some(0), "{:?}", refusal(&whole));
    drop(old);

    damage_is_refused_by_name(place.path(), &second);
    go_on_in_a_new_cluster((&first, &second), &shown, &old_id, session);
}

fn damage_is_refused_by_name(place: &Path, backup: &Path) {
    let (bad, target) = (place.join("bad.snap"), place.join("target"));
    std::fs::copy(backup, &bad).expect("there is room");
    flip(&bad, 300_000);
    for refused in [restore(&bad, &[&target]), synod(&["inspect", text(&bad)])] {
        let (code, words) = refusal(&refused);
        assert_eq!(code, Some(6), "{words}");
        assert!(words.contains("bad.snap is damaged at offset"), "{words}");
    }
    assert!(!target.exists(), "nothing is made of a damaged backup");
    let (code, words) = refusal(&restore(backup, &[&target, place]));
    assert!(
        code == Some(3) && words.contains("not empty") && !target.exists(),
        "{words}"
    );
}

/// Nodes restored from different backups do not found; with one backup for all they do, under another id.
fn go_on_in_a_new_cluster((first, second): (&Path, &Path), shown: &Value, old_id: &Value, session: SessionRef) {
    let place = tempfile::tempdir().expect("the system has room for a directory");
    let directories = [1, 2, 3].map(|id: u16| place.path().join(id.to_string()));
    let [a, b, c] = &directories;
    let restored = restore(first, &[a, b]);
    assert_eq!(restored.status.code(), Some(0), "{:?}", refusal(&restored));
    assert_eq!(restore(second, &[c]).status.code(), Some(0));
    let mut new = support::launch_in(place, 3, &[]);
    let tells = |cluster: &TestCluster| {
        let mut lines = cluster.log().iter();
        lines.any(|line| line.contains("restored from different backups"))
    };
    for _ in 0..100 {
        if tells(&new) {
            break;
        }
        new.rest(Duration::from_millis(50));
    }
    assert!(tells(&new), "{}", new.log().join("\n"));
    assert!(new.status(1).is_none_or(|status| status["founded"] == false));
    assert!(new.kill_node(3));
    std::fs::remove_dir_all(c).expect("it is dead");
    assert_eq!(restore(first, &[c]).status.code(), Some(0));
    new.start_node(3).expect("it starts again");
    new.wait_for_leader();

    let status = new.status(1).expect("it runs");
    assert_ne!(&status["cluster_id"], old_id, "a new cluster");
    assert!(status["applied"].as_u64() >= shown["slot"].as_u64(), "{status}");
    let mut reader = client(&new.addresses(), Duration::from_secs(15));
    for number in 0..100 {
        let found = reader.get(format!("key-{number}")).expect("reads are served");
        assert_eq!(found.expect("it was backed up").value, vec![number; 10_000]);
    }
    assert_eq!(
        &reader
            .get("last")
            .expect("reads are served")
            .expect("it was backed up")
            .value[..],
        b"before"
    );
    let above = reader.put("new", "value").expect("writes are served");
    assert_eq!(Some(above), shown["revision"].as_u64().map(|revision| revision + 1));
    // What a client of the old cluster sends late never runs.
    let late = Op::Del {
        key: "new".into(),
        want_previous: false,
    };
    // A lone request is not made again. This node may lead nobody, and still wait to dial the leader, which was dead before.
    let has_links = |nodes: &LocalCluster| {
        let status = nodes.status(1).unwrap_or_default();
        status["peers_up"].as_array().map(Vec::len) == Some(2)
    };
    assert!(
        new.wait_until(Duration::from_secs(10), has_links),
        "{}",
        new.log().join("\n")
    );
    let outcome = RawClient::connect(&new.addresses()[0]).request(session, 1, RequestOp::Write(late));
    let is_refused = matches!(
        outcome,
        Some(Outcome::NotDone {
            code: Code::SessionExpired,
            ..
        })
    );
    assert!(is_refused, "{outcome:?}");
    restarts_and_damage(&mut new, reader);
}

/// A restored node starts again from what it has; a damaged snapshot is told by `verify`.
fn restarts_and_damage(new: &mut TestCluster, mut reader: synod::client::blocking::Client) {
    let asked = new.ask(2, "snapshot").expect("the debug port answers");
    assert!(asked.trim_end().ends_with("OK"), "{asked}");
    let has_two = |directory: &Path| {
        let names = std::fs::read_dir(directory).expect("it is there");
        let names = names.map(|entry| entry.expect("it can be listed").path());
        let mut snapshots: Vec<_> = names
            .filter(|path| path.extension().is_some_and(|end| end == "snap"))
            .collect();
        snapshots.sort();
        snapshots
    };
    let directory = new.data_dir(2);
    assert!(new.wait_until(Duration::from_secs(10), |_| has_two(&directory).len() == 2));
    assert!(new.kill_node(2));
    let newest = has_two(&directory).pop().expect("two of them");
    flip(&newest, 200);
    new.start_node(2).expect("it starts with the older one");
    reader.put("again", "value").expect("writes are served");
    // It says so, and takes another in its place, since it has forgotten nothing.
    let is_told = |cluster: &TestCluster| {
        let mut lines = cluster.log().iter();
        lines.any(|line| line.contains("repaired: the damage in") && line.contains("snap-"))
    };
    for _ in 0..100 {
        if is_told(new) {
            break;
        }
        new.rest(Duration::from_millis(50));
    }
    let words = new.log().join("\n");
    assert!(is_told(new) && words.contains(".snap is damaged at offset"), "{words}");
    assert!(new.kill_node(2));
    new.start_node(2).expect("it starts again");
    let is_well = |cluster: &mut TestCluster| {
        cluster.rest(Duration::from_millis(50));
        verify(cluster).0 == Some(0)
    };
    assert!((0..200).any(|_| is_well(new)), "{:?}", verify(new));
}
