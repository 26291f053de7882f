//! The whole of small worlds: every state that three acceptors, two proposers and a slot or two can reach.
//!
//! Seeds try many ways through large worlds; this visits all ways through small ones. Three nodes run the replica's own
//! code (`synod::paxos::Replica`), and at each state everything that could happen next is tried: a client's write, a
//! campaign, a watermark, a sync, a crash, and the arrival of any message ever sent. Messages stay on their way for ever,
//! so a message that is lost, repeated or late is a step not taken, taken again, taken later. A search breadth first
//! meets each state by one of its shortest ways: what it finds wrong, it tells in as few steps as there are.
//!
//! * [`node`]: one node as a value, and its steps. [`world`]: the bounds. [`ear`]: letters that no longer matter.
//! * [`space`]: the search. [`table`]: the states known. [`trace`]: a way, told.
//! * [`checks`]: what must hold in each state. [`sights`]: what must have been met for that to mean anything.
//!
//! `make model` visits larger worlds, and prints the ways to each broken rule. Not here: bytes, files, clients, reads,
//! elections as such, more than three nodes (the simulator, `src/sim`).

#[path = "model/checks.rs"]
mod checks;
#[path = "model/ear.rs"]
mod ear;
#[path = "model/node.rs"]
mod node;
#[path = "model/sights.rs"]
mod sights;
#[path = "model/space.rs"]
mod space;
#[path = "model/table.rs"]
mod table;
#[path = "model/trace.rs"]
mod trace;
#[path = "model/world.rs"]
mod world;

use checks::Check;
use sights::{Sight, Sights};
use space::{Found, Space};
use std::time::Instant;
use synod::rules::Rules;
use world::World;

/// Visits all of `world`, in which nothing must go wrong: how many states, and what was met.
fn visit(world: World) -> (usize, Sights) {
    let begun = now();
    let (name, mut space) = (world.name, Space::new(world, &Check::ALL));
    let Found {
        states,
        depth,
        violation,
    } = space.search();
    if let Some(violation) = violation {
        panic!("{name}:\n{}", trace::tell(&mut space, &violation));
    }
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("{states:>10} states, {depth} steps deep, {seconds:.1} s: {name}");
    (states, space.sights)
}

#[expect(clippy::disallowed_methods, reason = "how long a search took is told to people only")]
fn now() -> Instant {
    Instant::now()
}

/// Worlds of seconds: `make test`.
fn small_worlds() -> Vec<World> {
    vec![
        World::new("two slots", 2),
        World::new("a slot, a crash of each node", 1).with_crashes([1; 3], 3),
        World {
            catch_up: true,
            ..World::new("a slot, what is missed is fetched", 1)
        },
        // Here letters are kept that would be dead if all were right: a vote for a ballot that was left, above all.
        World {
            leads: true,
            ballots: [2, 1, 0],
            forgets: false,
            ..World::new("a slot, a leader that comes back, dead letters and all", 1)
        },
        // The vote of the leader itself is still to be synced when another comes in, and is lost.
        World {
            leads: true,
            turn: 2,
            forgets: false,
            ..World::new(
                "a slot, two inputs a turn, a crash of the leader, dead letters and all",
                1,
            )
            .with_crashes([1, 0, 0], 1)
        },
        // A whole leadership fits into a turn, and its ballot is lost with all that it wrote.
        World {
            ballots: [2, 0, 0],
            turn: 4,
            forgets: false,
            ..World::new("a slot, four inputs a turn, one proposer that crashes", 1).with_crashes([1, 0, 0], 1)
        },
        World {
            leads: true,
            nacks: true,
            forgets: false,
            ..World::new("a slot, a crash of the acceptor, dead letters and all", 1).with_crashes([0, 0, 1], 1)
        },
    ]
}

#[test]
fn nothing_goes_wrong_in_the_whole_of_small_worlds() {
    let (mut worlds, mut least) = (small_worlds(), 1_000_000);
    if std::env::var("MODEL").is_ok_and(|which| which == "all") {
        worlds.extend(larger_worlds());
        least = 20_000_000;
    }
    let (mut all, mut met) = (0, Sights::new());
    for world in worlds {
        let (states, sights) = visit(world);
        all += states;
        met.extend(sights);
    }
    assert!(all >= least, "only {all} states: the worlds have become too small");
    let unmet: Vec<_> = Sight::ALL.into_iter().filter(|sight| !met.contains(sight)).collect();
    assert!(unmet.is_empty(), "never met, so never checked: {unmet:?}");
}

/// Worlds of minutes and a gigabyte: `make model`.
fn larger_worlds() -> Vec<World> {
    vec![
        World {
            leads: true,
            ..World::new("two slots, a crash of each node", 2).with_crashes([1; 3], 3)
        },
        World {
            catch_up: true,
            ..World::new("a slot, what is missed is fetched, a crash of any node", 1).with_crashes([1; 3], 1)
        },
        World {
            catch_up: true,
            leads: true,
            ballots: [2, 1, 0],
            ..World::new("a slot, what is missed is fetched, a leader that comes back", 1)
        },
        World {
            leads: true,
            turn: 2,
            ..World::new("two slots, two inputs a turn, a crash of the acceptor", 2).with_crashes([0, 0, 1], 1)
        },
    ]
}

#[test]
fn dead_letters_change_no_outcome() {
    let outcomes = |forgets| {
        let world = World {
            leads: true,
            forgets,
            ..World::new("a slot, a crash of the acceptor", 1).with_crashes([0, 0, 1], 1)
        };
        let mut space = Space::new(world, &Check::ALL);
        let found = space.search();
        assert!(found.violation.is_none());
        (found.states, space.outcomes())
    };
    let ((few, without), (many, with)) = (outcomes(true), outcomes(false));
    assert_eq!(without, with, "who voted for what and took what as chosen");
    assert!(few * 10 < many, "{few} states without dead letters, {many} with them");
}

/// A rule broken, the world that shows it, what it comes to, and in how many steps at least.
struct Lesson {
    world: World,
    check: Check,
    steps: usize,
    /// The search ends before it has seen so many states.
    states_max: usize,
}

/// n1 leads at 1.1; n2 may campaign; all letters stay.
fn lesson(rule: &'static str, steps: usize, states_max: usize, make: impl FnOnce(World) -> World) -> Lesson {
    let world = World {
        leads: true,
        forgets: false,
        rules: Rules::KEPT.without(rule).expect("there is such a rule"),
        ..World::new(rule, 1)
    };
    Lesson {
        world: make(world),
        check: Check::Agreement,
        steps,
        states_max,
    }
}

#[test]
fn each_broken_rule_that_so_small_a_world_can_show_is_found_by_a_shortest_way() {
    let comes_back = |world| World {
        ballots: [2, 1, 0],
        ..world
    };
    let acceptor_crashes = |world: World| world.with_crashes([0, 0, 1], 1);
    let leader_crashes = |world: World| world.with_crashes([1, 0, 0], 1);
    let lessons = [
        lesson("sync-before-promise", 8, 2_000, acceptor_crashes),
        lesson("promise-survives-restart", 9, 3_000, acceptor_crashes),
        lesson("use-ballots-once", 8, 2_000, |world| World {
            ballots: [2, 0, 0],
            ..leader_crashes(world)
        }),
        lesson("highest-ballot-wins", 11, 40_000, comes_back),
        // n1 hears n3 twice within the turn that is to write its own vote, and loses that.
        lesson("count-votes-once", 10, 100_000, |world| World {
            turn: 3,
            ..leader_crashes(world)
        }),
        lesson("majority", 3, 100, |world| world),
        lesson("compare-ballots", 9, 10_000, |world| world),
        Lesson {
            check: Check::Order,
            ..lesson("apply-without-holes", 4, 100, |world| World { slots: 2, ..world })
        },
    ];
    for Lesson {
        world,
        check,
        steps,
        states_max,
    } in lessons
    {
        let (rule, mut space) = (world.name, Space::new(world, &[check]));
        let found = space.search();
        let Some(violation) = found.violation else {
            panic!("{rule} is broken, and {} states do not show it", found.states);
        };
        eprintln!("{rule} is broken; {} states show it:", found.states);
        eprintln!("{}", trace::tell(&mut space, &violation));
        assert_eq!(found.depth, steps, "{rule}: the shortest way has another length");
        assert!(found.states <= states_max, "{rule}: {} states", found.states);
    }
}
