//! Workloads against real clusters: the scripts of `workloads/`, the presets of `synod bench`, and what they come to.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{TestCluster, start_cluster};

fn synod(cluster: &TestCluster, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    command.arg("--endpoints").arg(cluster.addresses().join(","));
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command while the nodes' log lines are taken; they would stand still otherwise.
fn run(cluster: &mut TestCluster, command: &mut Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    while child.try_wait().expect("a child").is_none() {
        cluster.rest(Duration::from_millis(20));
    }
    child.wait_with_output().expect("a child's output")
}

fn run_script(cluster: &mut TestCluster, text: &str, flags: &[&str]) -> (i32, Output) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("room for a script");
    let path = file.path().to_str().expect("a name that is text").to_owned();
    let mut command = synod(cluster, &["run", &path]);
    let output = run(cluster, command.args(flags));
    (output.status.code().expect("no signal"), output)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).expect("JSON is text");
    assert_eq!(text.lines().count(), 1, "one object on one line: {}", said(output));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// One cluster for all that breaks nothing; the tests of it are its chapters, since starting it is what takes time.
#[test]
fn scripts_and_presets_run_against_a_cluster() {
    let mut cluster = start_cluster(3, &["--allow-faults"]);
    workloads_come_to_what_they_expect(&mut cluster);
    an_expectation_that_fails_is_exit_1_and_named(&mut cluster);
    a_bad_script_is_exit_2_and_sends_nothing(&mut cluster);
    a_script_comes_from_standard_input_and_takes_parameters(&mut cluster);
    figures_as_json_have_the_form_of_the_contract(&mut cluster);
    a_seed_repeats_the_operations(&mut cluster);
    every_preset_does_something(&mut cluster);
    the_history_of_register_is_well_formed_and_linearizable(&mut cluster);
    a_steady_rate_is_kept(&mut cluster);
    ctrl_c_ends_a_run_with_its_figures(&mut cluster);
}

fn workloads_come_to_what_they_expect(cluster: &mut TestCluster) {
    for name in ["smoke", "counter", "mixed", "faults"] {
        let path = format!("{}/workloads/{name}.workload", env!("CARGO_MANIFEST_DIR"));
        let mut command = synod(cluster, &["run", &path]);
        let output = run(cluster, &mut command);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
    }
}

fn an_expectation_that_fails_is_exit_1_and_named(cluster: &mut TestCluster) {
    let (code, output) = run_script(cluster, "put a 1\nget a\n  expect value 2\n", &[]);
    assert_eq!(code, 1, "{}", said(&output));
    assert!(
        said(&output).contains("line 3, column 3: main: expected value = \"2\""),
        "{}",
        said(&output)
    );
    let (code, output) = run_script(cluster, "get a\nexpect ops > 1\nexpect p50 < 10s\n", &[]);
    assert_eq!(code, 1, "{}", said(&output));
    assert!(
        said(&output).contains("line 2, column 1: expected ops > 1, and it was 1"),
        "{}",
        said(&output)
    );
}

fn a_bad_script_is_exit_2_and_sends_nothing(cluster: &mut TestCluster) {
    for (text, flags, expected) in [
        (
            "put bad 1\n  frobnicate\n",
            &[][..],
            "line 2, column 3: unknown verb `frobnicate`",
        ),
        ("put bad 1\nkill 1\n", &[], "line 2, column 1: `kill` and `start` need"),
        (
            "put bad 1\ncas bad --version 1 b\n",
            &["--check"],
            "cannot stand in a history",
        ),
        ("put bad 1\n", &["--set", "n=3"], "the script has no `param n`"),
    ] {
        let (code, output) = run_script(cluster, text, flags);
        assert_eq!(code, 2, "{text}: {}", said(&output));
        assert!(said(&output).contains(expected), "{text}: {}", said(&output));
    }
    let (code, output) = run_script(cluster, "get bad\nexpect absent\n", &[]);
    assert_eq!(code, 0, "nothing of a bad script is run: {}", said(&output));
}

fn a_script_comes_from_standard_input_and_takes_parameters(cluster: &mut TestCluster) {
    let mut command = synod(cluster, &["run", "-", "--set", "what=given"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    let mut input = child.stdin.take().expect("a pipe");
    input
        .write_all(b"param what default\nput piped $what\nget piped\nexpect value given\nprint it is $value\n")
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("a child's output");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is given"));
}

fn figures_as_json_have_the_form_of_the_contract(cluster: &mut TestCluster) {
    let (code, output) = run_script(cluster, "put a 1\nget a\nget b", &["--output", "json", "--seed", "7"]);
    assert_eq!(code, 0, "{}", said(&output));
    let figures = json(&output);
    for (name, expected) in [("ops", 3), ("done", 3), ("not_done", 0), ("unknown", 0), ("seed", 7)] {
        assert_eq!(figures[name], expected, "{name} of {figures}");
    }
    for figures in [&figures, &figures["operations"]["get"]] {
        assert!(figures["ops_per_s"].is_number(), "{figures}");
        for name in ["p50", "p90", "p99", "p999", "max"] {
            assert!(figures["latency_us"][name].as_f64() > Some(0.0), "{name} of {figures}");
        }
    }
    assert_eq!(figures["operations"]["get"]["done"], 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--seed 7"));
}

/// The operations of a history by process and key, without what differs by run: times, and the run's name.
fn operations(path: &std::path::Path) -> BTreeMap<u64, Vec<String>> {
    let mut by_process: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(path).expect("a history").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        if line["type"] == "invoke" {
            let key = line["key"].as_str().expect("a text");
            let key = key.split_once('.').expect("a run's name").1;
            let process = line["process"].as_u64().expect("a number");
            let operation = format!("{} {key} {}", line["f"], line["value"]);
            by_process.entry(process).or_default().push(operation);
        }
    }
    by_process
}

fn a_seed_repeats_the_operations(cluster: &mut TestCluster) {
    let text = "keys k uniform 50\nvalues v unique 16\nclients 4 c pipeline 2\n repeat 20\n  mix\n   1 put $k $v\n   1 get $k\n\
                \x20 end\n end\nend\n";
    let directory = tempfile::tempdir().expect("a directory");
    let mut runs = Vec::new();
    for (name, seed) in [("first", "5"), ("second", "5"), ("other", "6")] {
        let path = directory.path().join(name);
        let flags = ["--seed", seed, "--history", path.to_str().expect("text")];
        let (code, output) = run_script(cluster, text, &flags);
        assert_eq!(code, 0, "{}", said(&output));
        // Processes are numbered as they begin: what they do is compared, whoever does it.
        let mut run: Vec<_> = operations(&path).into_values().collect();
        run.sort();
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

fn every_preset_does_something(cluster: &mut TestCluster) {
    for preset in [
        "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f", "put", "get", "mixed", "register",
    ] {
        let words = [
            "--output",
            "json",
            "bench",
            preset,
            "--clients",
            "4",
            "--pipeline",
            "2",
            "--keys",
            "100",
        ];
        let mut command = synod(cluster, &words);
        command.args(["--duration", "300ms", "--warmup", "50ms", "--value-size", "64B"]);
        let output = run(cluster, &mut command);
        assert_eq!(output.status.code(), Some(0), "{preset}: {}", said(&output));
        let figures = json(&output);
        assert!(figures["done"].as_u64() > Some(10), "{preset}: {figures}");
        assert_eq!(figures["ops"], figures["done"], "{preset}: {figures}");
        let seconds = figures["seconds"]["done"].as_array().expect("a column");
        let sum: u64 = seconds.iter().filter_map(Value::as_u64).sum();
        assert_eq!(figures["done"], sum, "{preset}: {figures}");
        let costs = [
            &figures["generator"]["cpu_s_per_million"],
            &figures["nodes_cpu_s_per_million"],
        ];
        assert!(
            costs.iter().all(|cost| cost.as_f64() > Some(0.0)),
            "{preset}: {figures}"
        );
        if !["register", "put"].contains(&preset) {
            assert_eq!(figures["no"], 0, "keys were loaded first: {preset}: {figures}");
        }
    }
}

fn the_history_of_register_is_well_formed_and_linearizable(cluster: &mut TestCluster) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("history.jsonl");
    let mut command = synod(
        cluster,
        &["--output", "json", "bench", "register", "--check", "--history"],
    );
    command
        .arg(&path)
        .args(["--clients", "8", "--pipeline", "2", "--keys", "20"]);
    command.args(["--duration", "1s", "--warmup", "100ms"]);
    let output = run(cluster, &mut command);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let figures = json(&output);
    assert_eq!(figures["check"]["verdict"], "linearizable", "{figures}");
    let cas = &figures["operations"]["cas"];
    let (all, no) = (
        cas["done"].as_f64().expect("a number"),
        cas["no"].as_f64().expect("a number"),
    );
    assert!((all - no) / all >= 1.0 / 3.0, "a third or more match: {cas}");
    let total = figures["ops"].as_f64().expect("a number");
    for (name, share) in [("get", 0.4), ("put", 0.3), ("cas", 0.2), ("del", 0.1)] {
        let ops = figures["operations"][name]["ops"].as_f64().expect("a number");
        assert!((ops / total - share).abs() < 0.06, "{name}: {ops} of {total}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    let output = run(cluster, command.arg("check").arg(&path));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // Loading and warm-up stand in the history too, and every line has its fields in the order of the contract.
    let text = std::fs::read_to_string(&path).expect("a history");
    assert!(text.lines().count() as f64 > 2.0 * total);
    for line in text.lines() {
        assert!(line.starts_with("{\"process\":"), "{line}");
        let fields: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        let names: Vec<&String> = fields.keys().collect();
        assert_eq!(names, ["process", "type", "f", "key", "value", "time"], "{line}");
        assert!(fields["key"].as_str().is_some_and(|key| key.len() == 16), "{line}");
    }
}

fn a_steady_rate_is_kept(cluster: &mut TestCluster) {
    let words = [
        "--output",
        "json",
        "bench",
        "get",
        "--clients",
        "4",
        "--keys",
        "50",
        "--rate",
        "200",
    ];
    let mut command = synod(cluster, &words);
    let output = run(cluster, command.args(["--duration", "1s", "--warmup", "0s"]));
    let figures = json(&output);
    assert_eq!(
        figures["ops"], 200,
        "every intended start of the second is one operation: {figures}"
    );
}

fn ctrl_c_ends_a_run_with_its_figures(cluster: &mut TestCluster) {
    let mut command = synod(
        cluster,
        &[
            "--output",
            "json",
            "bench",
            "put",
            "--duration",
            "60s",
            "--warmup",
            "0s",
        ],
    );
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("synod runs");
    cluster.rest(Duration::from_millis(700));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    while child.try_wait().expect("a child").is_none() {
        cluster.rest(Duration::from_millis(20));
    }
    let output = child.wait_with_output().expect("a child's output");
    assert_eq!(output.status.code(), Some(130), "{}", said(&output));
    assert!(json(&output)["done"].as_u64() > Some(0), "{}", said(&output));
}

#[test]
fn nobody_there_is_exit_5() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    // Port 9 of loopback is discarded by nobody.
    command.args(["--endpoints", "127.0.0.1:9", "bench", "get", "--duration", "1s"]);
    let output = command.output().expect("synod runs");
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    for (script, code) in [("get a", 5), ("get a\nexpect no_endpoint", 0), ("get a\nexpect ok", 1)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
        command
            .args(["--endpoints", "127.0.0.1:9", "run", "-"])
            .stdin(Stdio::piped());
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("synod runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(script.as_bytes()).expect("it reads");
        drop(input);
        assert_eq!(child.wait().expect("a child").code(), Some(code), "{script}");
    }
}

#[test]
fn a_preset_shows_its_script_with_the_flags_in_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synod"));
    let output = command
        .args(["bench", "ycsb-f", "--clients", "3", "--show"])
        .output()
        .expect("synod runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("param clients 3\n"), "{text}");
    assert!(synod::workload::script::parse(text.as_bytes(), &BTreeMap::new()).is_ok());
}

/// The nodes are children of `synod cluster` here, which kills and starts them as the script says.
#[test]
fn nothing_is_lost_or_fails_while_nodes_are_killed_one_after_the_other() {
    let path = format!("{}/workloads/failover.workload", env!("CARGO_MANIFEST_DIR"));
    for _ in 0..10 {
        let directory = tempfile::tempdir().expect("a directory");
        let port = fastrand::u16(100..170) * 100 + 50;
        let output = Command::new(env!("CARGO_BIN_EXE_synod"))
            .args([
                "cluster",
                "--base-port",
                &port.to_string(),
                "--run",
                &path,
                "--data-dir",
            ])
            .arg(directory.path())
            .args(["--", "--segment-bytes", "8MiB"])
            .stdin(Stdio::null())
            .output()
            .expect("synod runs");
        // A port that is taken is a usage error; another one, then.
        if output.status.code() == Some(2) {
            continue;
        }
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        return;
    }
    panic!("no free ports");
}
