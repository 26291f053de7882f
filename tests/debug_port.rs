//! The debug port of real nodes, driven over plain sockets as `nc` would.

#![expect(clippy::disallowed_methods, reason = "real processes run by the real clock")]
#![expect(clippy::unwrap_used, reason = "where a test cannot go on, it says where it stood")]

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use support::{TestCluster, launch, start_cluster};

/// Nothing here takes longer, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(10);

/// One connection, as a person has it with `nc`.
struct Nc {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Nc {
    fn connect(cluster: &TestCluster, id: u16) -> Nc {
        let stream = TcpStream::connect(cluster.nodes.debug_address(id)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Nc { stream, lines }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// One line of the answer, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the connection closed behind {line:?}");
        line.trim_end().to_string()
    }

    /// A reply up to and with the line that ends it.
    fn reply(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            lines.push(self.line());
            if is_end(&lines[lines.len() - 1]) {
                return lines;
            }
        }
    }

    fn ask(&mut self, line: &str) -> Vec<String> {
        self.send(format!("{line}\n").as_bytes());
        self.reply()
    }

    /// Asks, expects `OK`, and hands out the lines before it.
    fn ok(&mut self, line: &str) -> Vec<String> {
        let mut reply = self.ask(line);
        let end = reply.pop().unwrap();
        assert!(end == "OK" || end.starts_with("OK "), "{line}: {reply:?} {end}");
        reply
    }

    /// Asks and expects `ERR code`.
    fn err(&mut self, line: &str, code: &str) -> Vec<String> {
        let mut reply = self.ask(line);
        let end = reply.pop().unwrap();
        let words: Vec<&str> = end.split(' ').collect();
        assert_eq!(words[..2], ["ERR", code], "{line}: {reply:?} {end}");
        reply
    }

    /// Asks for one line of JSON before `OK`.
    fn json(&mut self, command: &str) -> Value {
        let lines = self.ok(&format!("json {command}"));
        assert_eq!(lines.len(), 1, "json {command}: {lines:?}");
        serde_json::from_str(&lines[0]).unwrap_or_else(|error| panic!("json {command}: {error}: {lines:?}"))
    }

    /// Says that nothing more comes, and reads until the other side closes.
    fn rest(mut self) -> String {
        self.stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        rest
    }
}

fn is_end(line: &str) -> bool {
    let first = line.split(' ').next();
    first == Some("OK") || first == Some("ERR")
}

/// What follows the name in the line of that name.
fn value_of<'a>(lines: &'a [String], name: &str) -> &'a str {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {lines:?}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn leader_of(cluster: &TestCluster) -> u16 {
    let mut leader = None;
    until("a leader", || {
        leader = cluster.nodes.leader();
        leader.is_some()
    });
    leader.unwrap()
}

fn another(cluster: &TestCluster, id: u16) -> u16 {
    cluster.nodes.ids().into_iter().find(|other| *other != id).unwrap()
}

/// A cluster of three that holds `color`, and its leader's debug port.
fn at_leader_with_a_key() -> (TestCluster, u16, Nc) {
    let cluster = start_cluster(3, &["--allow-faults"]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, leader);
    nc.ok("put color blue");
    (cluster, leader, nc)
}

#[test]
fn status_shows_the_same_as_text_and_as_json() {
    let (_cluster, leader, mut nc) = at_leader_with_a_key();
    let status = nc.ok("status");
    let json = nc.json("status");
    for name in [
        "id",
        "role",
        "leader",
        "ballot",
        "promised",
        "first_open",
        "chosen",
        "applied",
        "revision",
    ] {
        let text = value_of(&status, name).to_string();
        let value = json[name].as_str().map_or_else(|| json[name].to_string(), String::from);
        assert_eq!(text, value, "{name}");
    }
    assert_eq!((&json["role"], &json["id"]), (&"leader".into(), &leader.into()));
    assert_eq!((&json["voter"], &json["founded"]), (&true.into(), &true.into()));
    assert_eq!(json["faults"], Value::Array(vec![]));
    assert!(json["uptime_ms"].as_u64() > Some(0) && json["voter_reason"].is_string());
    until("both peers are up", || {
        nc.json("status")["peers_up"].as_array().map(Vec::len) == Some(2)
    });
}

#[test]
fn peers_ballots_and_slots_show_agreement() {
    let (cluster, leader, mut nc) = at_leader_with_a_key();
    let peers = nc.json("peers");
    let peer = &peers["peers"][0];
    assert_eq!(peer["id"], another(&cluster, leader));
    assert!(
        peer["up"] == true && peer["accepted"] == true && peer["address"].is_string(),
        "{peers}"
    );
    let text = nc.ok("peers");
    assert!(text.len() == 2 && text[0].starts_with("peer "), "{text:?}");

    let ballots = nc.json("ballots");
    assert_eq!(ballots["leader"], nc.json("status")["ballot"], "{ballots}");
    assert!(
        ballots["accepted"].is_array() && ballots["highest_seen"].is_string(),
        "{ballots}"
    );
    assert!(nc.ok("ballots").iter().any(|line| line.starts_with("promised ")));

    let slots = nc.json("slots");
    let rows = slots["slots"].as_array().unwrap();
    let put = rows
        .iter()
        .find(|row| row["ops"][0] == "put \"color\"")
        .expect("the slot of the put");
    assert!(put["commands"] == 1 && put["stamp_ms"].is_u64(), "{put}");
    let slot = &put["slot"];
    let text = nc.ok(&format!("slots {slot} 1"));
    assert!(text[1].starts_with(&format!("slot {slot} state=applied")), "{text:?}");
    assert_eq!(nc.ok("slots 1 1").len(), 2);
    assert_eq!(nc.json("slots 999999")["slots"], Value::Array(vec![]));
}

#[test]
fn sessions_timers_config_and_metrics_are_shown() {
    let (_cluster, _, mut nc) = at_leader_with_a_key();
    let sessions = nc.json("sessions");
    let session = &sessions["sessions"][0];
    assert_eq!(session["id"].as_str().map(str::len), Some(32), "{sessions}");
    assert!(
        sessions["living"].as_u64() >= Some(1) && session["low"].is_u64(),
        "{sessions}"
    );
    let text = nc.ok("sessions 1");
    assert!(
        text[0].starts_with("living ") && text[1].starts_with("session "),
        "{text:?}"
    );

    let timers = nc.json("timers");
    let names: Vec<&Value> = timers["timers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["name"])
        .collect();
    assert!(names.contains(&&"heartbeat".into()), "{timers}");
    assert!(
        nc.ok("timers")
            .iter()
            .any(|line| line.starts_with("timer heartbeat due_in_ms="))
    );

    let config = nc.json("config");
    assert_eq!(
        (&config["heartbeat"], &config["allow_faults"]),
        (&"50ms".into(), &true.into())
    );
    assert!(
        nc.ok("config")
            .iter()
            .any(|line| line.starts_with("cluster 1=127.0.0.1:"))
    );

    let metrics = nc.json("metrics");
    assert!(
        metrics["syncs"].as_u64() > Some(0) && metrics["frames_out_heartbeat"].as_u64() > Some(0),
        "{metrics}"
    );
    assert!(
        nc.ok("metrics")
            .iter()
            .all(|line| line.split(' ').nth(1).is_some_and(|value| value.parse::<u64>().is_ok()))
    );
}

#[test]
fn tail_help_ping_and_quit_answer() {
    let (_cluster, _, mut nc) = at_leader_with_a_key();
    assert_eq!(nc.ok("tail 3").len(), 3);
    let events = nc.json("tail 50");
    assert!(
        events["events"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| event["message"] == "HEARTBEAT"),
        "{events}"
    );

    let help = nc.ok("help");
    for verb in ["ready", "tail -f", "cas", "fault acceptor down", "json", "quit"] {
        assert!(help.iter().any(|line| line.starts_with(verb)), "help names {verb}");
    }
    assert!(nc.json("help")["commands"].as_array().unwrap().len() > 20);
    assert_eq!(nc.ask("ping"), ["OK pong"]);
    assert_eq!(nc.json("ping")["pong"], true);
    assert_eq!(nc.ask("quit"), ["OK bye"]);
    assert_eq!(nc.rest(), "");
}

/// The names in the tables of `docs/debug.md`, by command: `name`, or `list[].name` for the fields of rows.
fn documented_names() -> BTreeMap<String, Vec<String>> {
    let page = include_str!("../docs/debug.md");
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut command = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## `") {
            command = heading.split([' ', '`']).next().unwrap().to_string();
        } else if let Some(row) = line.strip_prefix("| `") {
            names
                .entry(command.clone())
                .or_default()
                .push(row.split('`').next().unwrap().to_string());
        }
    }
    names
}

/// The names that a view really has.
fn names_in(view: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in view.as_object().unwrap() {
        match value.as_array().and_then(|rows| rows.first()?.as_object()) {
            Some(row) => names.extend(row.keys().map(|field| format!("{name}[].{field}"))),
            None => names.push(name.clone()),
        }
    }
    names
}

/// What is documented of the rows of a list that is empty now is its name.
fn without_rows(documented: &[String], view: &Value) -> Vec<String> {
    let is_empty = |list: &str| view[list].as_array().is_some_and(Vec::is_empty);
    let names = documented.iter().map(|name| match name.split_once("[].") {
        Some((list, _)) if is_empty(list) => list.to_owned(),
        _ => name.clone(),
    });
    let mut names: Vec<String> = names.collect();
    names.dedup();
    names
}

#[test]
fn the_page_lists_the_names_that_json_has() {
    let (_cluster, _, mut nc) = at_leader_with_a_key();
    let documented = documented_names();
    until("followers have answered", || {
        nc.json("status")["followers"].as_array().map(Vec::len) == Some(2)
    });
    for command in [
        "status", "ready", "peers", "slots", "digests", "sessions", "timers", "config",
    ] {
        let view = nc.json(command);
        assert_eq!(names_in(&view), without_rows(&documented[command], &view), "{command}");
    }
    // What is accepted is known as chosen a moment later, so the list is mostly empty.
    let ballots = names_in(&nc.json("ballots"));
    assert!(documented["ballots"].starts_with(&ballots[..5]), "{ballots:?}");
}

#[test]
fn data_commands_go_through_consensus_from_any_node() {
    let cluster = start_cluster(3, &[]);
    let leader = leader_of(&cluster);
    let follower = another(&cluster, leader);
    let mut at_leader = Nc::connect(&cluster, leader);
    let mut nc = Nc::connect(&cluster, follower);

    let put = nc.ok("put color blue --if-absent");
    assert!(value_of(&put, "slot").parse::<u64>().unwrap() > 0);
    assert_eq!(value_of(&at_leader.ok("get color"), "value"), "\"blue\"");
    let exists = at_leader.err("put color red --if-absent", "exists");
    assert_eq!(value_of(&exists, "current"), "\"blue\"");
    assert_eq!(value_of(&nc.ok("put color red --prev"), "previous"), "\"blue\"");
    assert_eq!(
        value_of(&nc.err("cas color --old blue green", "cas_failed"), "current"),
        "\"red\""
    );
    nc.ok("cas color --old red green");
    let found = nc.json("get color");
    assert_eq!((&found["outcome"], &found["answer"]), (&"done".into(), &"found".into()));
    assert_eq!(found["value"], "green");
    nc.ok(&format!("cas color --version {} white", found["version"]));
    let slot = nc.json("put color black")["slot"].clone();
    let stale = nc.ok(&format!("get color --stale --at-least {slot}"));
    assert_eq!(value_of(&stale, "value"), "\"black\"");
    assert!(value_of(&stale, "age_ms").parse::<u64>().is_ok(), "{stale:?}");
    nc.ok("del color");
    nc.err("del color", "not_found");
    nc.err("get color", "not_found");
    nc.send(b"json get color\n");
    let absent = nc.reply();
    assert!(
        absent[0].contains("\"answer\":\"not_found\"") && absent[1] == "ERR not_found",
        "{absent:?}"
    );

    // Bytes stand quoted: no value can be taken for the end of a reply.
    nc.send(b"put 'a key' \"OK\t\x01 \\\"quoted\\\"\"\n");
    assert_eq!(nc.reply().last().map(String::as_str), Some("OK"));
    let found = nc.ok("get 'a key'");
    assert_eq!(value_of(&found, "value"), r#""OK\x09\x01 \"quoted\"""#);
    nc.send(b"put raw \xff\xfe\n");
    nc.reply();
    assert_eq!(nc.json("get raw")["value_base64"], "//4=");

    // The session was opened by the first write and goes with the connection; the one of the other stays.
    let living = || Nc::connect(&cluster, leader).json("status")["sessions"].as_u64();
    assert_eq!(living(), Some(2));
    drop(nc);
    until("the session is closed", || living() == Some(1));
}

#[test]
fn lines_end_in_lf_or_crlf_and_a_wrong_one_is_told() {
    let cluster = start_cluster(1, &[]);
    let mut nc = Nc::connect(&cluster, 1);
    nc.send(b"ping\r\nping\n\r\n\n  # nothing\nput k 'v w'\r\nget k\r\n");
    assert_eq!([nc.reply(), nc.reply()], [["OK pong"], ["OK pong"]]);
    assert_eq!(nc.reply().len(), 3);
    assert_eq!(value_of(&nc.reply(), "value"), "\"v w\"");
    for (line, code) in [
        ("frobnicate", "unknown_command"),
        ("json frobnicate", "unknown_command"),
        ("json", "bad_request"),
        ("STATUS", "unknown_command"),
        ("status now", "bad_request"),
        ("put k", "bad_request"),
        ("put '' v", "bad_request"),
        ("get 'k", "bad_request"),
        ("cas k v", "bad_request"),
        ("tail x", "bad_request"),
        ("fault clear", "faults_off"),
        ("fault crash", "faults_off"),
        ("fault what", "bad_request"),
    ] {
        nc.err(line, code);
    }
    nc.err(&format!("put {} v", "k".repeat(1025)), "too_large");
    nc.send(b"\xff\xfe\x00\n");
    assert!(nc.reply()[0].starts_with("ERR unknown_command "));
    nc.send(&vec![b'x'; 6 << 20]);
    assert_eq!(nc.reply(), ["ERR too_large (the line)"]);
}

#[test]
fn the_largest_value_goes_in_and_comes_out() {
    let cluster = start_cluster(1, &[]);
    let mut nc = Nc::connect(&cluster, 1);
    let value = "v".repeat(1 << 20);
    nc.ok(&format!("put large {value}"));
    assert_eq!(value_of(&nc.ok("get large"), "value").len(), value.len() + 2);
    nc.err(&format!("put large {value}v"), "too_large");
    nc.ok(&format!("cas large --old {value} small"));
    assert_eq!(nc.json("get large")["value"], "small");
}

#[test]
fn after_the_end_of_input_everything_is_answered_and_the_connection_closes() {
    let mut cluster = start_cluster(3, &[]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, another(&cluster, leader));
    // Without a leader the put waits until there is one; the rest waits behind it. The last line lacks its end.
    cluster.nodes.kill_node(leader);
    nc.send(b"put a 1\nget a\nping\ndel a\nget a");
    let rest = nc.rest();
    let ends: Vec<&str> = rest.lines().filter(|line| is_end(line)).collect();
    assert_eq!(ends, ["OK", "OK", "OK pong", "OK", "ERR not_found"], "{rest}");
    assert!(rest.contains("value \"1\"\n"), "{rest}");

    let mut many = Nc::connect(&cluster, another(&cluster, leader));
    many.send(&b"ping\n\n".repeat(500));
    assert_eq!(many.rest(), "OK pong\n".repeat(500));
    assert_eq!(Nc::connect(&cluster, another(&cluster, leader)).rest(), "");
}

#[test]
fn without_a_quorum_a_write_ends_within_its_deadline_and_says_what_is_certain() {
    let mut cluster = start_cluster(3, &["--request-timeout", "1s"]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, leader);
    nc.ok("put k 1");
    assert_eq!(nc.json("ready")["ready"], true);
    for id in cluster.nodes.ids().into_iter().filter(|id| *id != leader) {
        cluster.nodes.kill_node(id);
    }
    until("the leader steps down", || {
        cluster
            .nodes
            .status(leader)
            .is_some_and(|status| status["role"] != "leader")
    });
    let start = Instant::now();
    nc.send(b"put k 2\n");
    let end = nc.reply().pop().unwrap();
    assert!(
        end.starts_with("ERR no_") && start.elapsed() < Duration::from_secs(3),
        "{end}"
    );
    nc.send(b"json put k 3\n");
    let reply = nc.reply();
    assert!(
        reply[0].starts_with(r#"{"outcome":"not_done","code":"no_"#),
        "{reply:?}"
    );

    let not_ready = nc.ask("ready");
    assert_eq!(not_ready.last().map(String::as_str), Some("ERR not_ready"));
    assert_eq!(
        (value_of(&not_ready, "alive"), value_of(&not_ready, "can_write")),
        ("true", "false")
    );
    assert_eq!(value_of(&not_ready, "has_quorum"), "false");
    assert!(
        value_of(&not_ready, "can_write_reason").contains("no_quorum"),
        "{not_ready:?}"
    );
}

#[test]
fn any_line_ends_tail_f_and_so_does_the_end_of_input() {
    let cluster = start_cluster(3, &[]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, leader);
    nc.send(b"tail -f\n");
    assert!((0..20).map(|_| nc.line()).any(|line| line.contains("HEARTBEAT")));
    nc.send(b"\n");
    nc.reply();
    assert_eq!(nc.ask("ping"), ["OK pong"], "nothing more is fed");
    nc.send(b"json tail -f\n");
    let event: Value = serde_json::from_str(&nc.line()).unwrap();
    assert!(event["at_us"].is_u64() && event["event"].is_string(), "{event}");
    // The line that ends it is executed as any other.
    nc.send(b"ping\n");
    assert_eq!(nc.reply().pop().unwrap(), "OK");
    assert_eq!(nc.reply(), ["OK pong"]);
    nc.send(b"tail -f\n");
    nc.line();
    assert!(nc.rest().ends_with("OK\n"));
}

#[test]
fn each_fault_is_shown_while_it_lasts_and_gone_after_its_time() {
    let cluster = start_cluster(3, &["--allow-faults"]);
    let leader = leader_of(&cluster);
    let follower = another(&cluster, leader);
    let mut nc = Nc::connect(&cluster, follower);
    for (fault, shown) in [
        ("fault acceptor down 300ms", "acceptor down 300ms, "),
        (
            &format!("fault drop {leader}:out 30% 300ms"),
            &format!("drop {leader}:out 30% 300ms, "),
        ),
        (
            &format!("fault delay {leader} 20ms 300ms"),
            &format!("delay {leader} 20ms 300ms, "),
        ),
        ("fault slow-sync 5ms 300ms", "slow-sync 5ms 300ms, "),
        ("fault isolate 300ms", "isolate 300ms, "),
    ] {
        nc.ok(fault);
        let faults = nc.json("status")["faults"].clone();
        let text = faults[0].as_str().unwrap_or_default();
        assert!(text.starts_with(shown) && text.ends_with(" left"), "{fault}: {faults}");
        until(&format!("{fault} ends"), || {
            nc.json("status")["faults"] == Value::Array(vec![])
        });
    }
    nc.err("fault drop 9", "bad_request");
    nc.err(&format!("fault delay {follower} 1ms"), "bad_request");

    nc.ok("fault acceptor down");
    until("the acceptor is down", || nc.json("status")["acceptor_up"] == false);
    let status = nc.ok("status");
    assert_eq!(
        (value_of(&status, "voter"), value_of(&status, "promised")),
        ("false", "none")
    );
    nc.ok("fault isolate 1m");
    assert_eq!(nc.json("status")["faults"].as_array().map(Vec::len), Some(2));
    nc.ok("fault acceptor up");
    until("the acceptor is up", || nc.json("status")["acceptor_up"] == true);
    assert!(nc.json("status")["promised"].is_string(), "it remembers its promise");
    nc.ok("fault clear");
    assert_eq!(value_of(&nc.ok("status"), "faults"), "none");

    let start = Instant::now();
    nc.ok("fault pause 400ms");
    assert!(
        start.elapsed() < Duration::from_millis(300),
        "the reply does not wait for the pause"
    );
    assert_eq!(nc.ask("ping"), ["OK pong"]);
    assert!(start.elapsed() >= Duration::from_millis(400), "the whole loop slept");
}

#[test]
fn a_crash_aborts_at_once_and_loses_nothing() {
    let mut cluster = start_cluster(3, &["--allow-faults"]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, leader);
    nc.ok("put k kept");
    nc.send(b"fault crash\n");
    let mut rest = Vec::new();
    // A reset, or the end: in any case no answer.
    let _ = nc.lines.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    let mut ended = Vec::new();
    until("the process is gone", || {
        ended.extend(cluster.nodes.pump(Duration::ZERO, |_, _| {}).unwrap());
        !ended.is_empty()
    });
    assert!(ended[0].0 == leader && !ended[0].1.success(), "{ended:?}");
    let mut other = Nc::connect(&cluster, another(&cluster, leader));
    assert_eq!(value_of(&other.ok("get k"), "value"), "\"kept\"");
    cluster.nodes.start_node(leader).unwrap();
    until("it is back", || {
        cluster
            .nodes
            .status(leader)
            .is_some_and(|status| status["leader"].is_u64())
    });
}

#[test]
fn acceptors_that_fail_by_chance_come_back_and_the_cluster_serves() {
    let spec = "mtbf=300ms,mttr=100ms,seed=7";
    let cluster = start_cluster(3, &["--acceptor-failures", spec]);
    let mut nc = Nc::connect(&cluster, 1);
    assert_eq!(nc.json("config")["acceptor_failures"], spec);
    let mut seen = false;
    let start = Instant::now();
    let mut number = 0;
    while start.elapsed() < Duration::from_secs(2) {
        number += 1;
        nc.ok(&format!("put counter {number}"));
        let faults = nc.json("status")["faults"].clone();
        seen |= faults[0]
            .as_str()
            .is_some_and(|text| text.starts_with("acceptor down by chance, "));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(seen, "no failure was seen in {number} looks");
    assert_eq!(nc.json("get counter")["value"], number.to_string());
}

#[test]
fn hundreds_of_idle_and_slow_debug_clients_do_no_harm() {
    let cluster = start_cluster(3, &[]);
    let leader = leader_of(&cluster);
    let mut nc = Nc::connect(&cluster, leader);
    nc.ok("put k v");
    let ballot = nc.json("status")["ballot"].clone();
    let idle: Vec<Nc> = (0..200).map(|_| Nc::connect(&cluster, leader)).collect();
    let mut slow: Vec<Nc> = (0..200).map(|_| Nc::connect(&cluster, leader)).collect();
    for (number, client) in slow.iter_mut().enumerate() {
        // They ask for much, or for ever, and read nothing of it.
        let asks: &[u8] = match number % 3 {
            0 => b"tail -f\n",
            1 => b"tail 1000\nmetrics\nstatus\nslots\n",
            _ => b"put half a lin",
        };
        client.send(asks);
    }
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let start = Instant::now();
        nc.ok(&format!("put k {number}"));
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(nc.json("status")["ballot"], ballot, "the leader stayed");
    assert_eq!(nc.json("metrics")["debug_connections"], 401);
    // What is above the limit is told so.
    let more: Vec<Nc> = (0..120).map(|_| Nc::connect(&cluster, leader)).collect();
    until("all are accepted", || {
        nc.json("metrics")["connections_refused"] == 401 + 120 - 512
    });
    let refused: Vec<String> = more.into_iter().map(Nc::rest).filter(|rest| !rest.is_empty()).collect();
    assert_eq!(refused, vec!["ERR too_many_connections\n"; 9]);
    drop((idle, slow));
    until("they are forgotten", || nc.json("metrics")["debug_connections"] == 1);
}

#[test]
fn a_node_that_waits_to_be_founded_says_so() {
    // Node 3 is killed at its start. Should it have been so fast as to be counted, the cluster is founded: once more.
    let unfounded = || {
        let mut cluster = launch(3, &["--request-timeout", "300ms"]);
        cluster.nodes.kill_node(3);
        until("node 1 answers", || cluster.nodes.status(1).is_some());
        let is_founded = cluster.nodes.status(1).is_some_and(|status| status["founded"] == true);
        (!is_founded).then_some(cluster)
    };
    let cluster = (0..5)
        .find_map(|_| unfounded())
        .expect("a node is killed before it is counted");
    let mut nc = Nc::connect(&cluster, 1);
    let reply = nc.ask("ready");
    assert_eq!(value_of(&reply, "can_write"), "false");
    assert!(
        value_of(&reply, "can_write_reason").contains("not_founded"),
        "{reply:?}"
    );
    until("it knows whom it waits for", || {
        nc.json("status")["waits_for"].to_string().contains('3')
    });
    nc.err("put k v", "not_founded");
}
