//! Scripts run against a map in memory and a clock that is only a number.

use super::*;
use crate::kv::{Answer, Done, Expect, Op, Previous, Versioned};
use crate::paxos::Slot;
use crate::time::Time;
use crate::wire::{RequestOp, Served};
use crate::workload::script;
use std::collections::BTreeMap;

/// A store without faults that answers after one millisecond, unless told otherwise.
struct World {
    plan: Plan,
    now: Time,
    map: BTreeMap<Bytes, Versioned>,
    revision: u64,
    latency: Duration,
    /// Answers on their way.
    answers: BTreeMap<(Time, usize), Ended>,
    /// What every place submitted: place, intended start, what.
    log: Vec<(usize, Time, String)>,
    actions: Vec<String>,
    /// Decides an end before the store is asked.
    refuse: fn(&Submission, usize) -> Option<Ended>,
}

fn world(text: &str) -> World {
    seeded_world(text, 1)
}

fn seeded_world(text: &str, seed: u64) -> World {
    let program = script::parse(text.as_bytes(), &BTreeMap::new()).unwrap_or_else(|error| panic!("{text}: {error}"));
    World {
        plan: Plan::new(program, seed, ""),
        now: Time::ZERO,
        map: BTreeMap::new(),
        revision: 0,
        latency: Duration::from_millis(1),
        answers: BTreeMap::new(),
        log: Vec::new(),
        actions: Vec::new(),
        refuse: |_, _| None,
    }
}

impl World {
    fn run(mut self) -> World {
        for _ in 0..1_000_000 {
            while let Some(action) = self.plan.next(self.now) {
                self.act(action);
            }
            if self.plan.is_over() {
                return self;
            }
            let answer = self.answers.keys().next().map(|(at, _)| *at);
            let next = [self.plan.deadline(), answer].into_iter().flatten().min();
            self.now = self.now.max(next.expect("something is to come, or the plan is over"));
            while let Some(((at, place), ended)) = self.answers.pop_first() {
                if at > self.now {
                    self.answers.insert((at, place), ended);
                    break;
                }
                self.plan.finished(place, self.now, ended);
            }
        }
        panic!("the script does not end");
    }

    fn run_well(self) -> World {
        let world = self.run();
        if let Some(stop) = world.plan.stopped() {
            panic!("stopped: {stop}");
        }
        world
    }

    fn stopped(self) -> String {
        let world = self.run();
        world.plan.stopped().map_or("not stopped".to_owned(), Stop::to_string)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Submit(submission) => {
                let shown = format!("{:?}", submission.op);
                self.log.push((submission.place, submission.intended, shown));
                let ended = (self.refuse)(&submission, self.log.len()).unwrap_or_else(|| self.apply(&submission.op));
                self.answers.insert((self.now + self.latency, submission.place), ended);
            }
            Action::Fault { place, node, command } => {
                self.actions.push(format!("{node:?} {command}"));
                self.plan.acted(place, Ok(()));
            }
            Action::Kill { place, node } => {
                self.actions.push(format!("kill {node:?}"));
                self.plan.acted(place, Ok(()));
            }
            Action::Start { place, node } => {
                self.actions.push(format!("start {node:?}"));
                self.plan.acted(place, Err("it is not ours".to_owned()));
            }
            Action::Print(words) => self.actions.push(words),
        }
    }

    fn apply(&mut self, op: &RequestOp) -> Ended {
        let answer = match op {
            RequestOp::Get { key } => self.map.get(key).cloned().map_or(Answer::NotFound, Answer::Found),
            RequestOp::Write(Op::Put {
                key, value, if_absent, ..
            }) => match self.map.get(key) {
                Some(current) if *if_absent => Answer::Exists {
                    current: current.clone(),
                },
                _ => self.write(key, value),
            },
            RequestOp::Write(Op::Cas { key, expect, value, .. }) => {
                let current = self.map.get(key).cloned();
                let matches = current.as_ref().is_some_and(|current| match expect {
                    Expect::Value(old) => current.value == *old,
                    Expect::Version(version) => current.version == *version,
                });
                if matches {
                    self.write(key, value)
                } else {
                    Answer::CasFailed { current }
                }
            }
            RequestOp::Write(Op::Del { key, .. }) => match self.map.remove(key) {
                Some(_) => Answer::Written {
                    previous: Previous::NotAsked,
                },
                None => Answer::NotFound,
            },
            other => panic!("{other:?}"),
        };
        Ended::Done(Served::Done(Done {
            slot: Slot(1),
            revision: self.revision,
            answer,
        }))
    }

    fn write(&mut self, key: &Bytes, value: &Bytes) -> Answer {
        self.revision += 1;
        let versioned = Versioned {
            value: value.clone(),
            created: self.revision,
            version: self.revision,
        };
        self.map.insert(key.clone(), versioned);
        Answer::Written {
            previous: Previous::NotAsked,
        }
    }

    fn value(&self, key: &str) -> Option<&str> {
        let found = self.map.get(key.as_bytes())?;
        std::str::from_utf8(&found.value).ok()
    }
}

fn unknown() -> Option<Ended> {
    let why = "the leader was lost".to_owned();
    Some(Ended::Unknown {
        cause: "leader_lost",
        why,
    })
}

fn not_done() -> Option<Ended> {
    let why = "no leader".to_owned();
    Some(Ended::NotDone {
        cause: "no_leader",
        why,
    })
}

#[test]
fn a_script_does_one_line_after_the_other() {
    let world = world(
        "put a 1\nget a\nexpect value 1\nlet b = $value + 41\nput b $b\nexpect ok\nput b 0 --if-absent\nexpect exists\n\
         expect no\ncas b --version $version 43\nexpect written\nget b\nexpect value >= 43\ndel a\nget a\nexpect absent\n\
         print b is $revision in $client",
    );
    let world = world.run_well();
    assert_eq!(world.value("b"), Some("43"));
    assert_eq!(world.actions, ["b is 3 in main"]);
    assert_eq!(world.now, Time::from_millis(8));
}

#[test]
fn an_expectation_that_fails_stops_the_run_and_says_what_was_found() {
    assert_eq!(
        world("put a 1\nget a\nexpect value 2\nput a 3").stopped(),
        "line 3, column 1: main: expected value = \"2\", and it was done: found, value \"1\""
    );
    assert_eq!(
        world("get a\nexpect ok").stopped(),
        "line 2, column 1: main: expected ok, and it was done: not_found"
    );
    let mut lost = world("put a 1\nexpect done");
    lost.refuse = |_, _| unknown();
    assert!(
        lost.stopped()
            .ends_with("expected done, and it was unknown: the leader was lost")
    );
    let mut lost = world("put a 1\nexpect unknown\nexpect leader_lost");
    lost.refuse = |_, _| unknown();
    assert_eq!(lost.stopped(), "not stopped");
}

#[test]
fn what_makes_no_sense_when_it_runs_is_named() {
    for (text, expected) in [
        ("get a\nput a $value", "line 2, column 1: main: $value holds no value"),
        ("put a $version", "line 1, column 1: main: $version was not set yet"),
        (
            "put a x\nget a\nlet y = $value + 1",
            "line 3, column 1: main: \"x\" is no whole number",
        ),
        ("let x = 1 - 2", "line 1, column 1: main: 1 - 2 is no number"),
        ("let x = 1 / 0", "line 1, column 1: main: 1 / 0 is no number"),
        ("expect ok", "line 1, column 1: main: nothing was asked"),
        (
            "let x = ''\nget a$x\nget $x",
            "line 3, column 1: main: the key is empty",
        ),
        ("start 1", "line 1, column 1: it is not ours"),
    ] {
        let said = world(text).stopped();
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
}

#[test]
fn clients_run_concurrently_and_increment_by_cas() {
    let world = world(
        "put counter 0\nclients 8 adder\n repeat 25\n  attempt\n   get counter\n   let next = $value + 1\n\
         \x20  cas counter --old $value $next\n  end\n end\nend\nwait\nget counter\nexpect value 200",
    );
    let world = world.run_well();
    assert_eq!(world.value("counter"), Some("200"));
    assert!(world.log.len() > 2 * 200 + 2, "some must have met: {}", world.log.len());
}

#[test]
fn clients_wait_for_each_other_at_a_barrier() {
    let world = world(
        "client slow\n sleep 50ms\n put a 1\n barrier go\nend\nclient fast\n barrier go\n get a\n expect value 1\nend\n\
         client other\n put b 1\nend",
    );
    assert_eq!(world.run_well().log.len(), 3);
}

#[test]
fn a_barrier_does_not_wait_for_who_has_ended() {
    let world = world(
        "clients 3 a\n repeat $copy\n  barrier go\n end\nend"
            .replace("$copy", "2")
            .as_str(),
    );
    world.run_well();
    // One ends at the first line of its body, before the others come: they are all that is left.
    seeded_world(
        "client short\n mix\n  1 sleep 1ms\n  0 barrier go\n end\nend\nclient long\n sleep 5ms\n barrier go\nend",
        3,
    )
    .run_well();
}

#[test]
fn who_waits_for_nobody_is_stuck_and_said_so() {
    let said = world("client a\n barrier go\n barrier done\nend\nbarrier go\nwait\nbarrier done").stopped();
    assert_eq!(
        said,
        "all that is left waits for each other: 1 at barrier done, 1 at wait"
    );
}

#[test]
fn with_a_rate_starts_are_intended_and_do_not_wait_for_answers() {
    let mut slow = world("client a rate 100/s\n for 100ms\n  get a\n end\nend");
    slow.latency = Duration::from_millis(25);
    let slow = slow.run_well();
    let starts: Vec<u64> = slow.log.iter().map(|(_, start, _)| start.0 / 1_000_000).collect();
    // Every 10 ms one is meant to start; each takes 25 ms, so they fall behind, and none is forgotten.
    assert_eq!(starts, [0, 10, 20, 30]);
    let mut idle = world("clients 2 a pipeline 2 rate 100/s\n for 95ms\n  get a\n end\nend");
    idle.latency = Duration::from_millis(1);
    let idle = idle.run_well();
    assert_eq!(idle.log.len(), 10);
    assert!(
        idle.now < Time::from_millis(100),
        "nobody waits for a start after the end: {}",
        idle.now
    );
}

#[test]
fn what_begins_in_warm_up_or_loads_does_not_count() {
    let text = "keys k uniform 10\nvalues v unique 8\nload k v\nwarmup 10ms\nclient a\n for 30ms\n  get $k\n end\nend";
    let program = script::parse(text.as_bytes(), &BTreeMap::new()).unwrap();
    let mut plan = Plan::new(program, 1, "");
    let (mut now, mut counts, mut loaded) = (Time::ZERO, Vec::new(), 0);
    while !plan.is_over() {
        let mut open = Vec::new();
        while let Some(action) = plan.next(now) {
            let Action::Submit(submission) = action else {
                panic!("{action:?}")
            };
            loaded += usize::from(submission.kind == Kind::Put);
            if submission.kind == Kind::Get {
                counts.push(submission.counted);
            }
            assert!(!(submission.counted && submission.kind == Kind::Put));
            open.push(submission.place);
        }
        now = now + Duration::from_millis(1);
        for place in open {
            let done = Done {
                slot: Slot(1),
                revision: 1,
                answer: Answer::NotFound,
            };
            plan.finished(place, now, Ended::Done(Served::Done(done)));
        }
    }
    assert_eq!(loaded, 10);
    assert_eq!(counts.iter().filter(|counted| **counted).count(), 20);
    assert!(!counts[9] && counts[10]);
}

#[test]
fn mixes_follow_their_weights_and_keep_arms_together() {
    let world = world(
        "keys k uniform 5\nvalues v unique 8\nload k v\nclients 4 c\n repeat 500\n  mix\n   20 do\n    let key = $k\n\
         \x20   get $key\n    cas $key --old $value $v\n   end\n   20 get $k\n   30 put $k $v\n   10 del $k\n  end\n end\nend",
    );
    let world = world.run_well();
    let count = |what: &str| world.log.iter().filter(|(_, _, op)| op.contains(what)).count();
    let draws = 2000.0;
    // A cas that expects an absent key is a put that is only-if-absent.
    let cas = count("Cas") + count("if_absent: true");
    for (found, share) in [(cas, 0.25), (count("Get"), 0.5), (count("Del"), 0.125)] {
        assert!(
            (found as f64 / draws - share).abs() < 0.04,
            "{found} of {draws} for {share}"
        );
    }
    assert!(count("if_absent: true") > 10);
}

#[test]
fn an_arm_is_left_where_a_command_is_not_done() {
    let mut world = world("repeat 10\n mix\n  1 do\n   get a\n   put a 1\n  end\n end\nend");
    world.refuse = |submission, _| match submission.kind {
        Kind::Get => not_done(),
        _ => panic!("it hangs on the get"),
    };
    let world = world.run_well();
    assert_eq!(world.log.len(), 10);
    assert!(world.now >= Time::from_millis(200), "a refusal is followed by a pause");
}

#[test]
fn an_attempt_is_made_again_until_the_answer_is_yes_or_nobody_knows() {
    let mut world = world("attempt\n put a 1\nend\nattempt\n put b 1\nend");
    world.refuse = |_, number| match number {
        1 | 2 => not_done(),
        4 => unknown(),
        _ => None,
    };
    assert_eq!(world.run_well().log.len(), 4);
}

#[test]
fn loading_is_tried_again_and_given_up_in_the_end() {
    let text = "keys k uniform 100\nvalues v unique 8\nload k v\nput z 1";
    let mut shaky = world("keys k uniform 100\nvalues v unique 8\nload k v");
    shaky.refuse = |_, number| if number % 7 == 0 { not_done() } else { None };
    assert_eq!(shaky.run_well().map.len(), 100);
    let mut dead = world(text);
    dead.refuse = |_, _| not_done();
    assert_eq!(dead.stopped(), "the keys could not be loaded: no leader");
}

#[test]
fn latest_keys_grow_and_are_read() {
    let world = world(
        "keys k latest 10\nvalues v unique 8\nload k v\nclients 2 c\n repeat 200\n  mix\n   1 put $k.next $v\n   3 get $k\n\
         \x20 end\n  expect ok\n end\nend",
    );
    assert!(world.run_well().map.len() > 60);
}

#[test]
fn a_seed_repeats_the_script_whatever_the_answers_take() {
    let text = "keys k zipf 100\nvalues v unique 20\nclients 3 c pipeline 2\n repeat 50\n  mix\n   1 get $k\n   1 put $k $v\n\
                \x20 end\n end\nend";
    let script = |seed, latency| {
        let mut world = seeded_world(text, seed);
        world.latency = Duration::from_micros(latency);
        let mut log = world.run_well().log;
        log.sort_by_key(|(place, _, _)| *place);
        log.into_iter().map(|(place, _, op)| (place, op)).collect::<Vec<_>>()
    };
    assert_eq!(script(7, 100), script(7, 3000));
    assert_ne!(script(7, 100), script(8, 100));
}

#[test]
fn a_run_that_is_recorded_has_keys_of_its_own() {
    let text = "keys k uniform 9\nlet a = $k\nput $a 1\nget $a\nput plain 1";
    let program = script::parse(text.as_bytes(), &BTreeMap::new()).unwrap();
    let mut plan = Plan::new(program, 1, "x7k2m9.");
    let mut keys = Vec::new();
    while let Some(Action::Submit(submission)) = plan.next(Time::ZERO) {
        let key = match &submission.op {
            RequestOp::Get { key } => key.clone(),
            RequestOp::Write(op) => op.key().cloned().unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        keys.push(String::from_utf8(key.to_vec()).unwrap());
        plan.finished(
            0,
            Time::ZERO,
            Ended::Done(Served::Done(Done {
                slot: Slot(1),
                revision: 1,
                answer: Answer::NotFound,
            })),
        );
    }
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0].len(), 16, "{}", keys[0]);
    assert!(keys[0].starts_with("x7k2m9.k0"));
    assert_eq!(keys[2], "x7k2m9.plain");
}

#[test]
fn faults_kills_and_starts_are_handed_on() {
    let world = world("fault 2 acceptor down 5s\nkill 1").run_well();
    assert_eq!(world.actions.len(), 2);
    assert!(
        world.actions[0].contains("fault acceptor down 5s"),
        "{:?}",
        world.actions
    );
}

#[test]
fn a_loop_without_commands_does_not_hold_up_the_others() {
    let world = world("client idle\n for 1s\n  let x = 1\n end\nend\nput a 1\nexpect ok");
    let mut world = world;
    // The clock stands still while the plan runs: the idle client must give way for the answer to come.
    for _ in 0..50 {
        while let Some(action) = world.plan.next(world.now) {
            world.act(action);
        }
    }
    assert_eq!(world.log.len(), 1);
}
