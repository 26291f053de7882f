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

/// Bytes of a segment and between snapshots, and two snapshots: as in a world where these are small.
const SIZES: (u64, u64) = (1 << 14, 1 << 11);

fn kept(slots: [u64; 2]) -> [Kept; 2] {
    slots.map(|slot| Kept {
        slot: Slot(slot),
        bytes: 1_000,
        content: 0,
        at: None,
    })
}

/// What the node's directory may take with snapshots of these slots.
fn most(checks: &Checks, slots: [u64; 2]) -> u64 {
    checks.directory_most(NODE, &kept(slots), SIZES)
}

fn votes(checks: &mut Checks, slots: impl Iterator<Item = u64>) {
    for slot in slots.map(Slot) {
        let ballot = Ballot { round: 4, node: NODE };
        let entry = body::noop(LogTime::default());
        checks.appends(NODE, &[Record::Accepted { slot, ballot, entry }]);
    }
}

fn learns(checks: &mut Checks, slot: u64) {
    let (slot, entry) = (Slot(slot), body::noop(LogTime::default()));
    checks.appends(NODE, &[Record::Learned { slot, entry }]);
}

fn applies(checks: &mut Checks, slot: u64) {
    let books = checks.books(NODE);
    books.waits.applies(Slot(slot), books.written);
}

/// Seed 3851977398 of an earlier build: n5 fetched a snapshot of a node that had lost its directory, and accepted 400 slots
/// above what it knew meanwhile.
#[test]
fn what_a_node_accepts_while_it_is_behind_is_no_log_that_it_should_have_truncated() {
    let mut checks = Checks::new(5);
    let least = most(&checks, [519, 507]);
    votes(&mut checks, 520..920);
    let written = checks.books(NODE).written;
    assert!(most(&checks, [519, 507]) >= least + written);
    applies(&mut checks, 919);
    assert!(most(&checks, [919, 519]) >= least + written, "the older needs them");
    assert_eq!(most(&checks, [930, 919]), least, "the older stands for them");
}

/// Seed 49543752 of an earlier build: n5 had applied 445 slots when it voted for slots 524 and 525, and then learned the others
/// one by one, with a snapshot every few slots. The log could not lose what stood behind the two votes.
#[test]
fn what_a_node_learns_slot_by_slot_behind_votes_far_ahead_is_no_log_that_it_should_have_truncated() {
    let mut checks = Checks::new(5);
    applies(&mut checks, 445);
    let (least, begun) = (most(&checks, [445, 440]), checks.books(NODE).written);
    votes(&mut checks, 524..526);
    for slot in 446..524 {
        learns(&mut checks, slot);
        applies(&mut checks, slot);
        let behind = checks.books(NODE).written - begun;
        let older = slot - 7;
        assert!(
            most(&checks, [slot, older]) >= least + behind,
            "has applied up to {slot}"
        );
    }
    applies(&mut checks, 525);
    let behind = checks.books(NODE).written - begun;
    assert!(
        most(&checks, [521, 514]) >= least + behind,
        "no snapshot stands for the votes"
    );
    assert_eq!(most(&checks, [530, 525]), least, "the older stands for them");
}

#[test]
fn what_an_old_copy_learns_behind_votes_that_came_with_it_is_no_log_that_it_should_have_truncated() {
    let mut checks = Checks::new(5);
    let least = most(&checks, [445, 440]);
    checks.forgets(NODE);
    let copied = [524, 525].map(|slot| Record::Accepted {
        slot: Slot(slot),
        ballot: Ballot { round: 4, node: NODE },
        entry: body::noop(LogTime::default()),
    });
    assert_eq!(checks.recovers(NODE, Slot(445), &copied), Ok(()));
    applies(&mut checks, 445);
    let begun = checks.books(NODE).written;
    for slot in 446..524 {
        learns(&mut checks, slot);
        applies(&mut checks, slot);
    }
    let behind = checks.books(NODE).written - begun;
    assert!(most(&checks, [523, 516]) >= least + behind);
}

#[test]
fn a_node_that_keeps_up_may_hold_no_more_log_the_longer_it_runs_nor_if_it_takes_no_snapshots_any_more() {
    let mut checks = Checks::new(5);
    let least = most(&checks, [2, 1]);
    for slot in 1..10_000 {
        votes(&mut checks, slot + 4..slot + 5); // some are always under way
        applies(&mut checks, slot);
    }
    let written = checks.books(NODE).written;
    for slots in [[9_990, 9_980], [20, 10]] {
        let most = most(&checks, slots);
        assert!(most < least + 2_000, "{most} B of {least} B are allowed");
        assert!(most < written, "all that it wrote would be noticed");
    }
}
