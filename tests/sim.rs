//! A fixed handful of simulated clusters under all faults, and a few that nobody ran before. `make sim` runs more.

use std::time::Duration;
use synod::rules::Rules;
use synod::sim::lessons::{LESSONS, page};
use synod::sim::shrink::{Budget, shrink};
use synod::sim::{self, Fault, FaultSet, Options, Report, Transcript};

fn run(options: &Options) -> Report {
    let seed = options.seed;
    eprintln!("seed {seed}: make sim SEED={seed}");
    let report =
        sim::run(options, &Transcript::default()).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    eprintln!("seed {seed}: digest {:016x}", report.digest);
    report
}

#[test]
fn whatever_happens_the_rules_hold_and_in_the_end_everybody_is_served() {
    let mut happened = FaultSet::NONE;
    let fresh = u64::from(fresh_seed());
    for seed in (1..=60).chain(fresh..fresh + 10) {
        let report = run(&Options::new(seed));
        happened = Fault::ALL
            .into_iter()
            .filter(|fault| report.counts.of(*fault) > 0)
            .fold(happened, FaultSet::with);
    }
    assert_eq!(
        happened,
        FaultSet::ALL,
        "a fault that never happened is a hole in the test"
    );
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 7281] {
        let (first, second) = (run(&Options::new(seed)), run(&Options::new(seed)));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_ne!(first.digest, run(&Options::new(seed + 1)).digest, "seed {seed}");
    }
}

#[test]
fn without_faults_nothing_is_lost_unknown_or_late() {
    for seed in 1..4 {
        let report = run(&Options {
            faults: FaultSet::NONE,
            ..Options::new(seed)
        });
        assert_eq!((report.counts.unknown, report.counts.undecided), (0, 0), "seed {seed}");
        assert!(report.counts.done > 300, "seed {seed}: {} done", report.counts.done);
        assert!(
            Fault::ALL.into_iter().all(|fault| report.counts.of(fault) == 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_broken_rule_is_found_and_made_small_in_the_same_way_each_time() {
    for name in ["majority", "promise-survives-restart"] {
        let rules = Rules::KEPT.without(name).expect("a rule's name");
        let mut worlds = (1..60).map(|seed| Options {
            rules,
            read_lease: Some(Duration::ZERO),
            storm: Duration::from_secs(8),
            ..Options::new(seed)
        });
        let failed = worlds
            .find(|options| sim::attempt(options, &Transcript::default()).is_err())
            .unwrap_or_else(|| panic!("nobody notices that {name} is broken"));
        let found = sim::attempt(&failed, &Transcript::default()).expect_err("it failed");
        let budget = Budget {
            runs: 300,
            ..Budget::default()
        };
        let shrunk = || shrink(&failed, budget, &mut |_| ()).expect("it fails again");
        let smallest = shrunk();
        eprintln!("{name}: {}", smallest.options.command());
        let (violation, happened) = (&smallest.violation, smallest.transcript.happened());
        assert_eq!(violation.rule, found.rule, "{name}");
        assert!(
            smallest.nodes <= 4 && happened.faults.len() <= 6,
            "{name}: {}",
            smallest.story()
        );
        assert!(happened.ops.len() <= 6, "{name}: {}", smallest.story());

        let replayed = sim::attempt(&smallest.options, &Transcript::default()).expect_err("it fails");
        assert_eq!(&replayed, violation, "{name}");
        let again = shrunk();
        assert_eq!(
            (again.options.command(), again.mermaid()),
            (smallest.options.command(), smallest.mermaid())
        );
    }
}

#[test]
fn in_every_lesson_the_judge_notices_and_with_the_rule_kept_the_same_seed_holds() {
    for lesson in &LESSONS {
        let name = lesson.name;
        let (seed, violation) = lesson
            .find()
            .unwrap_or_else(|| panic!("{name}: nobody notices within {} seeds", lesson.seeds));
        eprintln!("{name}: {}", lesson.options(seed).command());
        assert_eq!(violation.rule, lesson.shows, "{name}, seed {seed}: {violation}");
        assert!(lesson.holds(seed), "{name}: with the rule kept, seed {seed} fails, too");
    }
}

/// The words of the page in every run of the tests; its diagrams, which take a minute, by `make lessons`.
#[test]
fn the_page_of_the_lessons_shows_each_of_them_as_it_is() {
    let written = include_str!("../docs/lessons.md");
    for lesson in &LESSONS {
        let section = written.split_once(&lesson.words()).map(|(_, behind)| behind);
        let section = section.unwrap_or_else(|| panic!("{}: `make lessons-page`", lesson.name));
        let section = section.split("\n## ").next().unwrap_or_default();
        assert!(
            section.contains("```mermaid\nsequenceDiagram"),
            "{}: no diagram",
            lesson.name
        );
    }
    if std::env::var("LESSONS").is_ok_and(|which| which == "all") {
        let told = LESSONS.iter().map(|lesson| {
            let smallest = lesson.run(&mut |line| eprintln!("{}: {line}", lesson.name));
            (
                lesson,
                smallest.unwrap_or_else(|| panic!("{}: nobody notices", lesson.name)),
            )
        });
        let made = page(&told.collect::<Vec<_>>());
        assert!(
            made == written,
            "docs/lessons.md shows runs of other code: `make lessons-page`"
        );
    }
}

fn fresh_seed() -> u32 {
    std::process::id().wrapping_mul(2_654_435_761) // another one in every run; printed, so it can be replayed
}
