//! Text from people and files: commands, sizes, cluster lists, workload scripts, histories.

use crate::driver::{Target, fuzz};
use std::collections::BTreeMap;
use std::time::Duration;
use synod::command::{self, DataCommand, FaultCommand};
use synod::node::cluster_list::ClusterList;
use synod::time::Time;
use synod::units;
use synod::workload::check::{self, Verdict, edn};
use synod::workload::history::{self, History, ReadError};
use synod::workload::plan::Plan;
use synod::workload::script;

/// What commands are made of.
pub(crate) const COMMAND_WORDS: [&str; 36] = [
    "put ",
    "get ",
    "del ",
    "cas ",
    " --old ",
    " --version ",
    " --if-absent",
    " --prev",
    " --stale",
    " --at-least ",
    "fault ",
    "acceptor ",
    "down ",
    "up",
    "link ",
    "cut ",
    "delay ",
    "drop ",
    "clear",
    "pause ",
    "5s",
    "10ms",
    "1MiB",
    "99999999999999999999",
    "-1",
    "0",
    "\"",
    "'",
    "\\",
    "$'\\xff'",
    "\u{0}",
    "\n",
    " ",
    "json ",
    "é",
    "--",
];

fn words_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn commands_and_flags_of_any_text_are_taken_or_refused() {
    let seeds = words_of(&[
        "put key 'a value' --if-absent --prev",
        "get key --stale --at-least 7",
        "del \"k\\x00\" --prev",
        "cas key --old a b",
        "cas key --version 7 b --prev",
        "fault acceptor down 5s",
        "fault link 2 cut both 5s",
        "1=10.0.0.1:7000,2=[::1]:7001,3=name:7002",
        "64MiB",
        "1h 30m",
    ]);
    let target = Target {
        words: &COMMAND_WORDS,
        ..Target::new("command", seeds, 10_000)
    };
    fuzz(&target, |line| {
        let split = match command::split_line(line) {
            Ok(split) => split,
            Err(error) => return format!("{} {error}", error.code()),
        };
        let data = match DataCommand::from_words(&split) {
            // What is taken has a request, or a reason why not.
            Ok(data) => format!("{} {:?}", data.verb(), data.into_request_op().is_ok()),
            Err(error) => one_line(error.code(), &error.to_string()),
        };
        let fault = match FaultCommand::from_words(&split) {
            Ok(fault) => format!("{fault:?}"),
            Err(error) => one_line(error.code(), &error.to_string()),
        };
        let text = String::from_utf8_lossy(line);
        if let (Ok(list), Some(_)) = (text.parse::<ClusterList>(), text.find('=')) {
            assert!(!list.members().is_empty());
        }
        let _ = (
            units::parse_size(&text),
            units::parse_duration(&text),
            units::parse_positive_duration(&text),
        );
        format!("{data} | {fault}")
    });
}

/// Errors go to lines of logs and of the debug port: they must be one.
fn one_line(code: &str, error: &str) -> String {
    assert!(!error.contains('\n'), "an error of several lines: {error:?}");
    format!("{code} {error}")
}

#[test]
fn scripts_of_any_text_are_taken_and_played_or_refused_with_their_line() {
    const WORDS: [&str; 40] = [
        "put k v\n",
        "get k\n",
        "del k\n",
        "cas k --old v w\n",
        "expect done\n",
        "expect value = v\n",
        "let x = 1 + 2\n",
        "param P 5\n",
        "keys K zipf 100 theta 0.99\n",
        "keys K uniform 10 prefix p\n",
        "values V unique 16\n",
        "load K V\n",
        "warmup 1s\n",
        "client a\n",
        "clients 3 c pipeline 4 rate 10/s\n",
        "wait\n",
        "barrier b\n",
        "repeat 3\n",
        "for 1s\n",
        "attempt\n",
        "mix\n",
        "5 do\n",
        "5 put $K $V\n",
        "end\n",
        "sleep 20ms\n",
        "print $x\n",
        "fault 2 acceptor down 5s\n",
        "kill 2\n",
        "start 2\n",
        "expect get unknown < 20, p99 < 50ms\n",
        "$value",
        "$K.next",
        "${x}",
        "\"",
        "#",
        "\n",
        "18446744073709551615",
        "0",
        "%",
        "/ 0",
    ];
    let mut seeds: Vec<Vec<u8>> = ["counter", "failover", "faults", "mixed", "smoke"]
        .iter()
        .map(|name| {
            std::fs::read(format!("{}/workloads/{name}.workload", env!("CARGO_MANIFEST_DIR"))).expect("a script")
        })
        .collect();
    seeds.extend(words_of(&[
        "let x = 1\nrepeat 3\nput k$x $x\nlet x = $x + 1\nend\nget k1\nexpect value = 1\n",
    ]));
    let target = Target {
        words: &WORDS,
        ..Target::new("workload", seeds, 6_000)
    };
    fuzz(&target, |text| {
        let program = match script::parse(text, &BTreeMap::new()) {
            Ok(program) => program,
            Err(error) => return error.to_string(),
        };
        let _ = (
            program.check_for_history().is_ok(),
            program.check_without_cluster().is_ok(),
        );
        let (clients, is_judged) = (program.clients(), program.expects_results());
        if clients > 1000 {
            return "many clients".into();
        }
        let mut plan = Plan::new(program, 1, "fuzz");
        let mut actions = 0;
        while actions < 200 && plan.next(Time::from_millis(actions)).is_some() {
            actions += 1;
        }
        format!("{} {is_judged} {} {:?}", clients.min(2), actions.min(2), plan.stopped())
    });
}

#[test]
fn histories_of_any_text_are_read_the_same_in_both_forms_or_refused_with_their_lines() {
    const WORDS: [&str; 34] = [
        "\"process\":3",
        "\"type\":\"invoke\"",
        "\"type\":\"ok\"",
        "\"type\":\"info\"",
        "\"type\":\"fail\"",
        "\"f\":\"cas\"",
        "\"f\":\"get\"",
        "\"f\":\"put\"",
        "\"f\":\"delete\"",
        "\"key\":\"k\"",
        "\"value\":[null,1]",
        "\"value\":null",
        "\"time\":5",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\n",
        ":process 3",
        ":type :invoke",
        ":f :read",
        ":f :write",
        ":value [1 2]",
        "#{1 2}",
        "#tag ",
        "nil",
        "1e309",
        "-0.0",
        "\\u0000",
        "\\newline",
        ";",
        "(",
        ")",
    ];
    let json = "{\"process\":1,\"type\":\"invoke\",\"f\":\"put\",\"key\":\"k\",\"value\":1,\"time\":1}\n\
        {\"process\":2,\"type\":\"invoke\",\"f\":\"get\",\"key\":\"k\",\"value\":null,\"time\":2}\n\
        {\"process\":1,\"type\":\"ok\",\"f\":\"put\",\"key\":\"k\",\"value\":1,\"time\":3}\n\
        {\"process\":2,\"type\":\"ok\",\"f\":\"get\",\"key\":\"k\",\"value\":1,\"time\":4}\n\
        {\"process\":2,\"type\":\"invoke\",\"f\":\"cas\",\"key\":\"k\",\"value\":[1,{\"a\":2.5}],\"time\":5}\n\
        {\"process\":2,\"type\":\"ok\",\"f\":\"cas\",\"key\":\"k\",\"value\":true,\"time\":6}\n\
        {\"process\":1,\"type\":\"invoke\",\"f\":\"delete\",\"key\":\"k\",\"value\":null,\"time\":7}\n\
        {\"process\":1,\"type\":\"info\",\"f\":\"delete\",\"key\":\"k\",\"value\":null,\"time\":8}\n";
    let mut as_edn = Vec::new();
    edn::to_edn(json.as_bytes(), &mut as_edn).expect("it is a history");
    let jepsen =
        b"[{:process 0 :type :invoke :f :read :value [7 nil]} {:process 0, :type :ok, :f :read, :value [7 \"x\"]}]";
    let target = Target {
        words: &WORDS,
        ..Target::new(
            "history",
            vec![json.as_bytes().to_vec(), as_edn, jepsen.to_vec()],
            8_000,
        )
    };
    fuzz(&target, |text| {
        let read = match edn::read_either(text) {
            Ok(read) => read,
            Err(error) => return words_of_error(&error),
        };
        let mut other = Vec::new();
        edn::to_edn(text, &mut other).expect("what was read can be written");
        assert_eq!(
            edn::read_either(&other[..]).expect("it was just written"),
            read,
            "as EDN it is another history"
        );
        other.clear();
        edn::to_jsonl(text, &mut other).expect("what was read can be written");
        assert_eq!(
            history::read(&other[..]).expect("it was just written"),
            read,
            "as JSON it is another history"
        );
        verdict(&read)
    });
}

fn words_of_error(error: &ReadError) -> String {
    match error {
        ReadError::Io(error) => error.to_string(),
        ReadError::Malformed(malformed) => {
            assert!(malformed.count >= malformed.lines.len() as u64 && !malformed.lines.is_empty());
            format!("{:?}", malformed.lines.first().map(|(_, error)| error.to_string()))
        }
    }
}

fn verdict(history: &History) -> String {
    match check::check(history, Duration::from_millis(50)) {
        Verdict::Linearizable(checked) => format!("linearizable, {} keys", checked.keys.min(3)),
        Verdict::Undecided(..) => "undecided".into(),
        Verdict::Violation(_, violation) => {
            assert!(violation.svg().starts_with("<svg") && !violation.to_string().is_empty());
            format!("violation of {}", violation.needed.len().min(4))
        }
    }
}
