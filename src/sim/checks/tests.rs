//! The books of who lost its memory: the plan of faults hangs on them, as a majority must keep its own. And how much a
//! directory may take.

use super::*;
use crate::machine::Kept;

const NODE: NodeId = NodeId(2);

fn life(generation: u32) -> Record {
    let token = u64::from(generation) << 8;
    Record::Life(Incarnation { generation, token })
}

/// The node has these records on its disk for good.
fn syncs(checks: &mut Checks, records: &[Record]) {
    checks.appends(NODE, records);
    checks.synced(NODE).expect("these break no rule");
}

#[test]
fn who_lost_its_memory_has_it_again_once_a_life_begun_since_has_recovered() {
    let mut checks = Checks::new(3);
    assert!(!checks.has_forgotten(NODE));
    for generation in 2..4 {
        checks.forgets(NODE);
        syncs(&mut checks, &[life(generation)]);
        assert!(
            checks.has_forgotten(NODE),
            "life {generation} has begun, and not recovered"
        );
        let restarted = checks.recovers(NODE, Slot::ZERO, &[life(generation)]);
        restarted.expect("all is there");
        syncs(&mut checks, &[Record::Recovered]);
        assert!(!checks.has_forgotten(NODE), "life {generation} has recovered");
    }
}

/// Seed 503328012 of an earlier build: n2 had recovered in its second life, lost it for an old copy of its directory in which
/// it had, too, and truncated its log before it met a peer. The truncation carried "recovered" along, so n2 counted as well,
/// n3's log was made to rot, and no quorum was left that remembered.
#[test]
fn that_a_forgotten_life_has_recovered_is_no_recovery_though_an_old_copy_writes_it_anew() {
    let mut checks = Checks::new(3);
    let second = [life(2), Record::Recovered];
    checks.forgets(NODE);
    syncs(&mut checks, &second);
    syncs(&mut checks, &second); // carried along
    assert!(!checks.has_forgotten(NODE));

    checks.forgets(NODE);
    checks
        .recovers(NODE, Slot::ZERO, &second)
        .expect("nothing is expected of an old copy");
    syncs(&mut checks, &second);
    assert!(checks.has_forgotten(NODE), "it has lost what came after the copy");

    syncs(&mut checks, &[life(3)]);
    assert!(checks.has_forgotten(NODE));
    syncs(&mut checks, &[Record::Recovered]);
    assert!(!checks.has_forgotten(NODE));
}

/// Seed 3851977398 of an earlier build: n5 fetched a snapshot of a node that had lost its directory, and accepted 400 slots
/// above what it knew meanwhile.
#[test]
fn what_a_node_accepts_while_it_is_behind_is_no_log_that_it_should_have_truncated() {
    let sizes = (1 << 14, 1 << 11);
    let kept = |slot| Kept {
        slot: Slot(slot),
        bytes: 1_000,
        content: 0,
        at: None,
    };
    let kept = [kept(519), kept(507)];
    let mut checks = Checks::new(5);
    let least = checks.directory_most(NODE, &kept, sizes);
    for slot in (520..920).map(Slot) {
        let ballot = Ballot { round: 4, node: NODE };
        let entry = body::noop(LogTime::default());
        checks.appends(NODE, &[Record::Accepted { slot, ballot, entry }]);
    }
    let written = checks.books(NODE).written;
    assert!(checks.directory_most(NODE, &kept, sizes) >= least + written);
    checks.books(NODE).applied_most = (Slot(919), written);
    let caught_up = checks.directory_most(NODE, &kept, sizes);
    assert_eq!(caught_up, least, "once it has applied them, a snapshot stands for them");
}
