//! Hand-made histories of both kinds, a brute-force checker to agree with, and large histories in little time.

use super::*;
use crate::workload::history::Function;
use serde_json::json;

/// A history on one key, an operation a line: process, times from and to (`?` for unknown), what, and the result.
fn history(lines: &str) -> History {
    let operation = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [process, from, to, verb, rest @ ..] = words.as_slice() else {
            panic!("not an operation: {line}");
        };
        let value = |at: usize| match rest.get(at) {
            None | Some(&"nil") => Value::Null,
            Some(&"true") => json!(true),
            Some(&"false") => json!(false),
            Some(word) => match word.strip_prefix("actual:") {
                Some(actual) => json!({ "actual": actual }),
                None => json!(word),
            },
        };
        let (function, argument, result) = match *verb {
            "put" => (Function::Put, value(0), Value::Null),
            "get" => (Function::Get, Value::Null, value(0)),
            "del" => (Function::Delete, Value::Null, value(0)),
            "cas" => (Function::Cas, json!([value(0), value(1)]), value(2)),
            other => panic!("no such verb: {other}"),
        };
        let end = match *to {
            "?" => End::Unknown,
            "x" => End::Fail,
            time => End::Ok {
                value: result,
                time: time.parse().unwrap(),
            },
        };
        Operation {
            process: process.parse().unwrap(),
            function,
            key: json!("k"),
            argument,
            invoked: from.parse().unwrap(),
            end,
        }
    };
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    History {
        operations: lines.map(operation).collect(),
    }
}

fn verdict(history: &History) -> Verdict {
    check(history, Duration::from_secs(20))
}

fn violation(lines: &str) -> Violation {
    match verdict(&history(lines)) {
        Verdict::Violation(_, violation) => *violation,
        other => panic!("{other:?} of{lines}"),
    }
}

#[test]
fn histories_that_could_have_happened() {
    let table = [
        ("nothing at all", ""),
        ("a key begins absent", "0 1 2 get nil"),
        ("read what was written", "0 1 2 put a\n 1 3 4 get a"),
        (
            "a read beside a write sees either",
            "0 1 9 put a\n 1 2 3 get nil\n 2 4 5 get a",
        ),
        ("at the same instant is concurrent", "0 1 2 put a\n 1 2 3 get nil"),
        (
            "two writes at once, in either order",
            "0 1 9 put a\n 1 1 9 put b\n 2 10 11 get a",
        ),
        ("an unknown write took effect at once", "0 1 ? put a\n 1 2 3 get a"),
        (
            "an unknown write took effect late",
            "0 1 ? put a\n 1 2 3 get nil\n 1 100 101 get a",
        ),
        (
            "an unknown write never took effect",
            "0 1 ? put a\n 1 2 3 get nil\n 1 100 101 get nil",
        ),
        (
            "an unknown delete",
            "0 1 2 put a\n 1 3 ? del\n 0 4 5 get a\n 0 6 7 get nil",
        ),
        (
            "an unknown cas",
            "0 1 2 put a\n 1 3 ? cas a b\n 0 4 5 get a\n 0 6 7 get b",
        ),
        (
            "unknown ones in a row",
            "0 1 ? put a\n 1 1 ? cas a b\n 2 1 ? cas b c\n 3 2 3 get c",
        ),
        ("a failed write says nothing", "0 1 x put a\n 1 3 4 get nil"),
        (
            "cas from absent is put-if-absent",
            "0 1 2 cas nil a true\n 0 3 4 cas nil b false\n 0 5 6 get a",
        ),
        (
            "a cas that found another",
            "0 1 2 put a\n 0 3 4 cas b c actual:a\n 0 5 6 get a",
        ),
        (
            "delete tells whether it was there",
            "0 1 2 del false\n 0 3 4 put a\n 0 5 6 del true\n 0 7 8 get nil",
        ),
        (
            "a delete that tells nothing",
            "0 1 2 del\n 0 3 4 put a\n 0 5 6 del\n 0 7 8 get nil",
        ),
        ("a delete needs some unknown write", "0 1 ? put a\n 1 2 3 del true"),
        (
            "a mismatch needs some unknown write",
            "0 1 2 put a\n 1 1 ? put b\n 0 3 4 cas a c false",
        ),
        (
            "a value comes back",
            "0 1 2 put a\n 0 3 4 put b\n 0 5 6 put a\n 0 7 8 get a",
        ),
        (
            "a cas that changes nothing",
            "0 1 2 put a\n 0 3 4 cas a a true\n 0 5 6 get a",
        ),
    ];
    for (name, lines) in table {
        assert!(matches!(verdict(&history(lines)), Verdict::Linearizable(_)), "{name}");
        assert!(brute::is_linearizable(&history(lines).operations), "{name}");
    }
}

#[test]
fn histories_that_could_not() {
    #[rustfmt::skip]
    let table = [
        ("a value from nowhere", "0 1 2 get a", 1),
        ("a lost write", "0 1 2 put a\n 1 3 4 get nil", 2),
        ("a stale read", "0 1 2 put a\n 0 3 4 put b\n 1 5 6 get a", 3),
        ("reads that go back", "0 1 9 put a\n 1 2 3 get a\n 2 4 5 get nil", 2),
        ("a read of the future", "0 1 2 get a\n 0 3 4 put a", 1),
        ("two swapped from one value", "0 1 2 put a\n 1 3 9 cas a b true\n 2 3 9 cas a c true", 2),
        ("a failed write was seen", "0 1 x put a\n 1 3 4 get a", 1),
        ("a cas that should have matched", "0 1 2 put a\n 0 3 4 cas a b false", 2),
        ("a cas that names what it expected", "0 1 2 cas a b actual:a", 1),
        ("deleted twice", "0 1 2 put a\n 0 3 4 del true\n 1 5 6 del true", 2),
        ("deleted what was never there", "0 1 2 del true", 1),
        ("an unknown write that took effect twice", "0 1 ? put a\n 1 2 3 get a\n 1 4 5 put b\n 1 6 7 get a", 3),
        ("an unknown write seen before it began", "1 2 3 get a\n 0 4 ? put a", 1),
        ("a mismatch that no unknown write explains", "0 1 2 put a\n 1 1 ? cas b c\n 0 3 4 cas a c false", 2),
    ];
    for (name, lines, group) in table {
        assert!(!brute::is_linearizable(&history(lines).operations), "{name}");
        let found = violation(lines);
        assert_eq!(found.needed.len(), group, "{name}: {found}");
        assert!(found.minimal, "{name}");
    }
}

#[test]
fn a_contradiction_is_found_among_many_operations_and_shown_alone() {
    let mut lines = String::new();
    for at in 0..500 {
        lines += &format!(
            "0 {} {} put v{at}\n 1 {} {} get v{at}\n",
            at * 10,
            at * 10 + 1,
            at * 10 + 2,
            at * 10 + 3
        );
    }
    lines += "2 2505 2506 get v249\n";
    let found = violation(&lines);
    let text = found.to_string();
    let expected = r#"key "k": 3 of its 1001 operations contradict each other:
  process 0  |-----|                                put "v249" = ok  [2490 .. 2491]
  process 0              |-----|                    put "v250" = ok  [2500 .. 2501]
  process 2                          |-----|        get = "v249"  [2505 .. 2506]
"#;
    assert_eq!(text, expected);
    assert!(found.svg().contains("get = \"v249\""));
}

#[test]
fn keys_do_not_touch_each_other() {
    let mut good = history("0 1 2 put a\n 1 3 4 get a");
    let mut other = history("0 1 2 get nil\n 0 3 4 get nil");
    for operation in &mut other.operations {
        operation.key = json!({ "other": 1 });
    }
    good.operations.append(&mut other.operations);
    let Verdict::Linearizable(checked) = verdict(&good) else {
        panic!("two keys, each in order");
    };
    assert_eq!((checked.keys, checked.operations), (2, 4));
}

/// A small history with few values, where anything may happen.
fn random_small(random: &mut fastrand::Rng) -> History {
    let mut history = History::default();
    let values = ["a", "b", "c"];
    let count = random.usize(1..=7);
    let span = random.u64(2..=20);
    for process in 0..count {
        let mut value = || match random.usize(0..4) {
            3 => Value::Null,
            at => json!(values[at]),
        };
        let (one, two) = (value(), value());
        let (function, argument, result) = match random.usize(0..7) {
            0 | 1 => (Function::Get, Value::Null, one),
            2 | 3 => (Function::Put, if one.is_null() { json!("a") } else { one }, Value::Null),
            4 => (Function::Delete, Value::Null, json!(random.bool())),
            _ if random.bool() => (Function::Cas, json!([one, two]), json!(random.bool())),
            _ => (Function::Cas, json!([one, "a"]), json!({ "actual": two })),
        };
        let invoked = random.u64(0..span);
        let end = match random.usize(0..4) {
            0 => End::Unknown,
            _ => End::Ok {
                value: result,
                time: invoked + random.u64(0..=span / 2),
            },
        };
        history.operations.push(Operation {
            process: process as u64,
            function,
            key: json!("k"),
            argument,
            invoked,
            end,
        });
    }
    history
}

/// The history with every write unknown that the violation does not name as needed, and without what else only looked.
fn weakened(history: &History, violation: &Violation) -> Vec<Operation> {
    let weaken = |operation: &Operation| {
        let mut operation = operation.clone();
        if !violation.needed.contains(&operation) {
            match (operation.function, &operation.end) {
                (Function::Cas, End::Ok { value, .. }) if *value != json!(true) => return None,
                (Function::Delete, End::Ok { value, .. }) if *value != json!(true) => return None,
                _ => operation.end = End::Unknown,
            }
        }
        Some(operation)
    };
    history.operations.iter().filter_map(weaken).collect()
}

/// Zones alone: what they call a contradiction is one.
#[test]
fn zones_never_see_a_contradiction_that_is_none() {
    let mut seen = 0;
    for seed in 0..8_000 {
        let history = random_small(&mut fastrand::Rng::with_seed(seed));
        let keys = model::split(&history);
        if let Some(group) = zones::contradiction(&keys[0].ops) {
            seen += 1;
            assert!(
                !brute::is_linearizable(&history.operations),
                "seed {seed}: {history:#?}"
            );
            let reduced = shrink::reduced(&keys[0].ops, &group);
            let limit = Limit {
                steps: 1_000,
                out_of_time: &|| false,
            };
            assert_eq!(
                search(&reduced, &limit).0,
                Outcome::Violation,
                "seed {seed}: {group:?} of {history:#?}"
            );
        }
    }
    assert!(seen > 500, "only {seen} contradictions were plain to see");
}

#[test]
fn a_stale_read_on_one_crowded_key_is_found_at_once() {
    for unknown in [0, 5, 25] {
        let mut history = simulated(8, 5_000, 1, 64, unknown);
        make_stale(&mut history, 7);
        let Verdict::Violation(_, violation) = verdict(&history) else {
            panic!("{unknown}% unknown: not seen");
        };
        assert!(
            violation.minimal && violation.needed.len() <= 4,
            "{unknown}% unknown: {violation}"
        );
    }
}

#[test]
fn it_agrees_with_brute_force_on_thousands_of_small_histories() {
    let base = 20_000;
    let (mut linearizable, mut not) = (0, 0);
    for seed in base..base + 8_000 {
        let history = random_small(&mut fastrand::Rng::with_seed(seed));
        let expected = brute::is_linearizable(&history.operations);
        *(if expected { &mut linearizable } else { &mut not }) += 1;
        // The search alone must know, too: `check` looks at the zones before.
        let limit = Limit {
            steps: 1_000_000,
            out_of_time: &|| false,
        };
        let alone = search(&model::split(&history)[0].ops, &limit).0;
        assert_eq!(alone == Outcome::Linearizable, expected, "seed {seed}: {history:#?}");
        match verdict(&history) {
            Verdict::Linearizable(_) => assert!(expected, "seed {seed}: {history:#?}"),
            Verdict::Violation(_, violation) => {
                assert!(!expected, "seed {seed}: {history:#?}");
                assert!(violation.minimal, "seed {seed}");
                assert!(
                    !brute::is_linearizable(&weakened(&history, &violation)),
                    "seed {seed}: {violation}"
                );
            }
            Verdict::Undecided(..) => panic!("seed {seed}: undecided"),
        }
    }
    assert!(
        linearizable > 1_000 && not > 1_000,
        "{linearizable} linearizable, {not} not: too one-sided"
    );
}

/// What a store without faults answers to `clients` at once, each operation taking effect at some moment of its own;
/// `unknown` of a hundred lose their answer, and of these half never take effect. Values are unique.
fn simulated(seed: u64, operations: usize, keys: usize, clients: usize, unknown: u32) -> History {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut free: Vec<(u64, u64)> = (0..clients as u64)
        .map(|process| (random.u64(0..1_000), process))
        .collect();
    let mut next_process = clients as u64;
    let mut planned = Vec::new();
    for number in 0..operations {
        let at = (0..clients).min_by_key(|at| free[*at]).unwrap();
        let (invoked, process) = free[at];
        let effect = invoked + random.u64(1..500);
        let end = effect + random.u64(1..500);
        let lost = random.u32(0..100) < unknown;
        free[at] = (end + random.u64(1..20), process);
        if lost {
            free[at].1 = next_process;
            next_process += 1;
        }
        // A lost operation may take effect long after.
        let effect = match (lost, random.bool()) {
            (true, true) => None,
            (true, false) => Some(effect + random.u64(0..3_000)),
            (false, _) => Some(effect),
        };
        planned.push((
            effect.unwrap_or(u64::MAX),
            invoked,
            end,
            lost,
            process,
            number,
            random.usize(0..keys),
        ));
    }
    planned.sort_unstable();
    let mut store = vec![Value::Null; keys];
    let mut history = History::default();
    for (effect, invoked, end, lost, process, number, key) in planned {
        let there = &mut store[key];
        let fresh = json!(format!("v{number}"));
        let takes_effect = effect != u64::MAX;
        let (function, argument, result, after) = match random.u32(0..100) {
            0..40 => (Function::Get, Value::Null, there.clone(), there.clone()),
            40..70 => (Function::Put, fresh.clone(), Value::Null, fresh),
            70..80 => (Function::Delete, Value::Null, json!(!there.is_null()), Value::Null),
            80..87 => (Function::Cas, json!([there.clone(), fresh]), json!(true), fresh),
            87..94 => (
                Function::Cas,
                json!(["other", fresh]),
                json!({ "actual": there.clone() }),
                there.clone(),
            ),
            _ => (Function::Cas, json!(["other", fresh]), json!(false), there.clone()),
        };
        if takes_effect {
            *there = after;
        }
        history.operations.push(Operation {
            process,
            function,
            key: json!(key),
            argument,
            invoked,
            end: if lost {
                End::Unknown
            } else {
                End::Ok {
                    value: result,
                    time: end,
                }
            },
        });
    }
    history.operations.sort_by_key(|op| op.invoked);
    history
}

/// Makes one get of the second half return what was there long before. Whether that is a contradiction, brute force
/// cannot say; with unique values and a long time between, it nearly always is.
fn make_stale(history: &mut History, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let half = history.operations.len() / 2;
    loop {
        let late = random.usize(half..history.operations.len());
        let early = random.usize(0..half / 2);
        let key = history.operations[late].key.clone();
        let seen = match &history.operations[early] {
            op if op.key == key && op.function == Function::Get => op.end.clone(),
            _ => continue,
        };
        if let End::Ok { value: old, .. } = seen
            && !old.is_null()
            && history.operations[late].function == Function::Get
            && let End::Ok { value, .. } = &mut history.operations[late].end
        {
            *value = old;
            return;
        }
    }
}

#[test]
fn a_hundred_thousand_operations_take_seconds() {
    // The bound is on what is tried, and not on the speed of this machine: a hundred thousand states take a second.
    for (operations, keys, unknown) in [(100_000, 1_000, 0), (100_000, 1_000, 25), (5_000, 10, 5)] {
        let case = format!("{operations} operations, {keys} keys, {unknown}% unknown");
        let mut history = simulated(7, operations, keys, 64, unknown);
        let Verdict::Linearizable(checked) = verdict(&history) else {
            panic!("{case}: it did happen");
        };
        assert!(checked.states < operations as u64, "{case}: {checked}");
        make_stale(&mut history, 7);
        assert!(matches!(verdict(&history), Verdict::Violation(..)), "{case}: stale");
    }
}
