//! What the judge of the scrub takes for overlooked.

use super::super::checks::Checks;
use super::super::report::Counts;
use super::super::transcript::Transcript;
use super::*;
use crate::machine::{DamageFinding, Note};
use crate::node::door::Door;
use crate::node::ring::What;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A cluster of one, whose scrub rests for a millisecond.
fn started() -> SimNode {
    let pace = Pace {
        bytes_per_second: 1 << 22,
        rest: Duration::from_millis(1),
    };
    let clock = Clock::new(Time::ZERO, Time::ZERO, 0);
    let settings = Settings::new(NodeId(1), vec![NodeId(1)]);
    let sizes = (1 << 14, 1 << 11, pace);
    let mut node = SimNode::new(settings, sizes, (clock, clock), SimDisk::new(1));
    let shared = Shared {
        numbers: Rc::new(Cell::new(0)),
        checks: Rc::new(RefCell::new(Checks::new(1))),
        counts: Rc::new(RefCell::new(Counts::default())),
        transcript: Transcript::default(),
    };
    assert_eq!(node.start(Time::ZERO, 1, &shared), Ok(None));
    node
}

fn passes(node: &SimNode) -> u64 {
    node.machine().map_or(0, |machine| machine.scrub().passes)
}

/// Runs it until its scrub has gone through all twice more, by a turn's end.
fn scrub_twice(node: &mut SimNode) {
    let last = passes(node) + 2;
    while passes(node) < last {
        let next = node.next_turn().expect("the scrub wants its turn");
        assert_eq!(node.run_turn(next), Ok(None));
    }
}

/// A byte of the file has just rotted.
fn rot_in(name: &str, node: &SimNode) -> Rot {
    Rot {
        name: name.into(),
        offset: 7,
        byte: 1,
        passes: passes(node),
    }
}

fn finding_in(name: &str) -> DamageFinding {
    DamageFinding {
        file: format!("n1/{name}"),
        offset: 0,
        kind: "snapshot_block",
        what: "a block".into(),
    }
}

/// It tells so, and a turn of it ends.
fn tell(node: &mut SimNode, note: Note) {
    let door = &mut node.life.as_mut().expect("it runs").door;
    door.event(Time::ZERO, What::Note(note));
    let next = node.next_turn().expect("the scrub wants its turn");
    assert_eq!(node.run_turn(next), Ok(None));
}

/// Seed 2826660569 of an earlier build: a snapshot was just being written as the scrub found damage in the one before, so the
/// turn that found it repaired it, and the file was there until the next turn.
#[test]
fn what_a_turn_finds_and_repairs_is_not_overlooked_unless_it_stays() {
    let mut node = started();
    let name = "snap-00000000000000000244.snap".to_string();
    node.rot = Some(rot_in(&name, &node));
    assert_eq!(node.judge_scrub(), Ok(()), "nobody has looked yet");
    scrub_twice(&mut node);
    let overlooked = node.judge_scrub().expect_err("it was not told");
    assert_eq!(overlooked.rule, "scrub");

    tell(&mut node, Note::DamageFound(finding_in(&name)));
    assert_eq!(node.judge_scrub(), Ok(()), "told, and repaired already");

    scrub_twice(&mut node);
    assert!(node.judge_scrub().is_err(), "what is repaired is there no more");
}

/// Seed 1275453865 of an earlier build: the snapshot that was to stand for a damaged one was put off for a second, as there was
/// no room for it; once it was taken, the damaged file was there until the next turn.
#[test]
fn what_is_repaired_long_after_it_was_found_is_not_overlooked_unless_it_stays() {
    let mut node = started();
    let name = "snap-00000000000000000001.snap".to_string();
    node.rot = Some(rot_in(&name, &node));
    let finding = finding_in(&name);
    tell(&mut node, Note::DamageFound(finding.clone()));
    scrub_twice(&mut node);
    let DamageFinding { file, offset, .. } = finding;
    tell(&mut node, Note::DamageRepaired { file, offset });
    assert_eq!(node.judge_scrub(), Ok(()), "it is about to go");

    scrub_twice(&mut node);
    assert!(node.judge_scrub().is_err(), "what is repaired is there no more");
}
