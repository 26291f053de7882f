use super::*;
use crate::sim::report::Violation;

/// A judge that takes something harmless for a failure.
fn strict(
    rule: &'static str,
    is_wrong: impl Fn(&Options, &Transcript) -> bool,
) -> impl FnMut(&Options, &Transcript) -> Result<Report, Violation> {
    move |options, transcript| {
        let report = attempt(options, transcript)?;
        match is_wrong(options, transcript) {
            true => Err(Violation {
                rule,
                words: "as the test has it".into(),
            }),
            false => Ok(report),
        }
    }
}

const BUDGET: Budget = Budget {
    runs: 600,
    events: 8_000_000,
    nodes_min: 1,
};

fn short(seed: u64) -> Options {
    Options {
        storm: Duration::from_secs(5),
        ..Options::new(seed)
    }
}

#[test]
fn what_fails_by_two_faults_and_one_operation_keeps_only_them() {
    let wrong = |_: &Options, transcript: &Transcript| {
        let happened = transcript.happened();
        let has = |number| happened.faults.contains(&number);
        has(2) && has(5) && happened.ops.iter().any(|id| id.number == 3)
    };
    let seed = (1..50)
        .find(|seed| Plan::draw(&short(*seed), Chance::new(*seed)).strikes.len() > 20)
        .expect("a seed with many faults");
    let shrunk =
        |options: &Options| shrink_by(options, BUDGET, &mut |_| (), &mut strict("two", wrong)).expect("it fails");
    let smallest = shrunk(&short(seed));
    let happened = smallest.transcript.happened();
    assert_eq!(
        smallest.options.keep_faults,
        Some(BTreeSet::from([2, 5])),
        "seed {seed}"
    );
    assert_eq!(happened.ops.len(), 1, "seed {seed}");
    assert_eq!((smallest.nodes, smallest.violation.rule), (1, "two"), "seed {seed}");

    let again = shrunk(&short(seed));
    assert_eq!(again.options, smallest.options, "seed {seed}");
    assert_eq!(again.story(), smallest.story(), "seed {seed}");
}

#[test]
fn another_failure_is_not_taken_for_the_same() {
    // Clusters of fewer than three nodes fail, too, but by another rule.
    let mut judge = |options: &Options, _: &Transcript| {
        let rule = if options.size() < 3 { "small" } else { "large" };
        let words = String::new();
        Err(Violation { rule, words })
    };
    let options = Options {
        nodes: Some(5),
        ..short(1)
    };
    let smallest = shrink_by(&options, BUDGET, &mut |_| (), &mut judge).expect("it fails");
    assert_eq!((smallest.nodes, smallest.violation.rule), (3, "large"));
}

#[test]
fn what_holds_has_no_smallest_failure() {
    assert!(shrink(&short(1), BUDGET, &mut |_| ()).is_none());
}

#[test]
fn leaving_a_fault_out_leaves_the_others_as_they_were() {
    let whole = short(4);
    let transcript = Transcript::default();
    attempt(&whole, &transcript).expect("it holds");
    let struck = transcript.happened().faults;
    let (left_out, kept) = struck.split_last().expect("there were faults");
    let transcript = Transcript::default();
    let options = Options {
        keep_faults: Some(kept.iter().copied().collect()),
        ..whole
    };
    attempt(&options, &transcript).expect("it holds without fault {left_out}, too");
    assert_eq!(transcript.happened().faults, kept, "without {left_out}");
}
