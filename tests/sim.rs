//! A fixed handful of simulated clusters under all faults, and a few that nobody ran before. `make sim` runs more.

use synod::sim::world::Options;
use synod::sim::{self, Fault, FaultSet, Report, Transcript};

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

fn fresh_seed() -> u32 {
    std::process::id().wrapping_mul(2_654_435_761) // another one in every run; printed, so it can be replayed
}
