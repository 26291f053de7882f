//! Progress: who can exchange messages with a majority is served soon, whatever the others hear; and duels end.
//!
//! All of it in simulated time, over [`world`]; a seed stands in every failure.

mod disk;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;
use synod::kv::{Op, SessionRef};
use synod::machine::{Note, RequestId};
use synod::paxos::{self, NodeId, Slot};
use synod::time::Time;
use synod::wire::{Outcome, Request, RequestOp};
use world::World;

const LEADER_WITHIN: Duration = Duration::from_secs(2);
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// Which answers are waited for.
#[derive(Clone, Copy, PartialEq)]
enum Served {
    ByAny,
    ByAll,
}

/// A client that opens sessions, one write each, at one node, again and again until one is answered "done".
#[derive(Default)]
struct Prober {
    next: u64,
    asked: BTreeMap<RequestId, (NodeId, Time)>,
}

impl Prober {
    fn ask(&mut self, world: &mut World, node: NodeId) {
        self.next += 1;
        let id = RequestId {
            connection: 1,
            request: self.next,
        };
        self.asked.insert(id, (node, world.now));
        let session = SessionRef {
            id: u128::from(self.next),
            opened: Slot::ZERO,
        };
        let op = RequestOp::Write(Op::Open);
        world.request(
            node,
            id,
            Request {
                deadline_ms: 1000,
                session,
                number: 0,
                low: 0,
                op,
            },
        );
    }

    /// Asks at every node that runs, every few milliseconds, until one or all have answered "done". How long it took;
    /// `None`: longer than `limit`.
    fn served(&mut self, world: &mut World, by: Served, limit: Duration) -> Option<Duration> {
        let begun = world.now;
        let mut waiting: Vec<NodeId> = world.ids().into_iter().filter(|id| world.is_up(*id)).collect();
        let all = waiting.len();
        while world.now.since(begun) <= limit {
            waiting.iter().for_each(|node| self.ask(world, *node));
            world.run_for(Duration::from_millis(10));
            for (_, id, reply) in std::mem::take(&mut world.replies) {
                let asked = self.asked.remove(&id);
                if let (Some((node, at)), Outcome::Done(_)) = (asked, reply.outcome)
                    && at >= begun
                {
                    waiting.retain(|other| *other != node);
                }
            }
            if waiting.is_empty() || (by == Served::ByAny && waiting.len() < all) {
                return Some(world.now.since(begun));
            }
        }
        None
    }
}

/// A calm cluster that has had a leader for a while.
fn calm(nodes: u16, seed: u64) -> (World, NodeId) {
    let mut world = World::new(nodes, seed, |_| {});
    let is_led = world.run_until(LEADER_WITHIN, |world| world.leader().is_some());
    assert!(is_led, "seed {seed}: {nodes} nodes have no leader within 2 s");
    world.run_for(Duration::from_millis(500));
    let leader = world
        .leader()
        .unwrap_or_else(|| panic!("seed {seed}: the leader was lost in calm weather"));
    (world, leader)
}

/// Some seed with which `leader` leads a calm cluster of three.
fn seed_led_by(leader: NodeId) -> u64 {
    let mut seeds = (0..100).filter(|seed| calm(3, *seed).1 == leader);
    seeds.next().unwrap_or_else(|| panic!("{leader} never leads"))
}

/// The six directed pairs among three nodes.
const PAIRS: [(u16, u16); 6] = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];

fn is_heard(pattern: u32, pair: (u16, u16)) -> bool {
    let at = PAIRS.iter().position(|other| *other == pair).expect("one of the six");
    pattern & (1 << at) != 0
}

fn in_words(pattern: u32) -> String {
    let heard = PAIRS.iter().filter(|pair| is_heard(pattern, **pair));
    heard.map(|(from, to)| format!(" {from}->{to}")).collect()
}

#[test]
fn whoever_can_exchange_messages_with_a_majority_has_a_leader_within_two_seconds() {
    let both_ways = |pattern, (a, b)| is_heard(pattern, (a, b)) && is_heard(pattern, (b, a));
    for old_leader in 1..=3 {
        let seed = seed_led_by(NodeId(old_leader));
        for pattern in 0..64 {
            let name = format!(
                "old leader {old_leader}, seed {seed}, who hears whom:{}",
                in_words(pattern)
            );
            let (mut world, _) = calm(3, seed);
            for (from, to) in PAIRS.into_iter().filter(|pair| !is_heard(pattern, *pair)) {
                world.cut(NodeId(from), NodeId(to));
            }
            let mut prober = Prober::default();
            let served = prober.served(&mut world, Served::ByAny, LEADER_WITHIN).is_some();
            if PAIRS.into_iter().any(|pair| both_ways(pattern, pair)) {
                assert!(served, "{name}: nobody serves within 2 s");
                world.run_for(Duration::from_secs(1));
                let still = prober.served(&mut world, Served::ByAny, LEADER_WITHIN).is_some();
                assert!(still, "{name}: served at first, and then no more");
            } else {
                assert!(!served, "{name}: nobody hears a majority, and yet a write is done");
            }
            world.heal();
            let healed = prober.served(&mut world, Served::ByAll, HEALED_WITHIN).is_some();
            assert!(healed, "{name}: not all serve within 10 s of healing");
        }
    }
}

#[test]
fn clusters_of_one_three_five_and_seven_serve_at_every_node_within_two_seconds() {
    for nodes in [1, 3, 5, 7] {
        for seed in 0..20 {
            let mut world = World::new(nodes, seed, |_| {});
            let served = Prober::default().served(&mut world, Served::ByAll, LEADER_WITHIN);
            assert!(
                served.is_some(),
                "seed {seed}: not all of {nodes} nodes serve within 2 s"
            );
        }
    }
}

#[test]
fn after_a_kill_of_the_leader_writes_go_on_within_a_tenth_of_a_second() {
    for nodes in [3, 5, 7] {
        for seed in 0..40 {
            let (mut world, leader) = calm(nodes, seed);
            world.crash(leader);
            let served = Prober::default().served(&mut world, Served::ByAny, Duration::from_millis(100));
            assert!(served.is_some(), "seed {seed}: {nodes} nodes, no write within 100 ms");
        }
    }
}

#[test]
fn a_leader_that_falls_silent_is_replaced_after_the_election_timeout() {
    for nodes in [3, 5, 7] {
        for seed in 0..40 {
            let (mut world, leader) = calm(nodes, seed);
            world.isolate(leader);
            // The deadline is drawn from 300 to 600 ms; a lost try may follow.
            let served = Prober::default().served(&mut world, Served::ByAny, Duration::from_secs(1));
            assert!(served.is_some(), "seed {seed}: {nodes} nodes, no write within 1 s");
        }
    }
}

#[test]
fn a_node_that_returns_from_a_partition_deposes_nobody() {
    for nodes in [3, 5] {
        for seed in 0..40 {
            let (mut world, leader) = calm(nodes, seed);
            let ballot = world.machine(leader).expect("it runs").status(world.now).ballot;
            let mut others = world.ids().into_iter().filter(|id| *id != leader);
            let away = others.next().expect("more than one node");
            world.isolate(away);
            world.run_for(Duration::from_secs(3));
            world.heal();
            world.run_for(Duration::from_secs(2));
            let status = world.machine(leader).expect("it runs").status(world.now);
            let now = (status.role, status.ballot);
            assert_eq!(now, ("leader", ballot), "seed {seed}: {away} came back");
            let followed = world.machine(away).expect("it runs").status(world.now).leader;
            assert_eq!(followed, Some(leader), "seed {seed}: {away} came back");
        }
    }
}

/// Seven nodes without a leader, over links on which a round trip takes two thirds of the election timeout: how many
/// campaigns were run in ten seconds, or until a write was done; and whether one was.
fn duel(seed: u64, is_polite: bool) -> (usize, bool) {
    let mut world = World::new(7, seed, |settings| {
        (settings.rules.pre_vote, settings.rules.backoff) = (is_polite, is_polite);
    });
    world.weather.delay_us = (100_000, 100_000);
    let served = Prober::default().served(&mut world, Served::ByAny, Duration::from_secs(10));
    let is_campaign = |note: &Note| matches!(note, Note::Paxos(paxos::Note::Campaigns { .. }));
    let campaigns = world.notes.iter().filter(|(_, _, note)| is_campaign(note));
    (campaigns.count(), served.is_some())
}

#[test]
fn a_duel_goes_on_without_question_and_backoff_and_ends_with_them() {
    let seeds = 0..10;
    let rude: Vec<(usize, bool)> = seeds.clone().map(|seed| duel(seed, false)).collect();
    let endless = rude.iter().filter(|(campaigns, served)| !served && *campaigns > 100);
    assert!(
        endless.count() > 0,
        "without question and backoff some duel lasts: {rude:?}"
    );
    for seed in seeds {
        let (campaigns, served) = duel(seed, true);
        assert!(
            served,
            "seed {seed}: with question and backoff a write is done, after {campaigns} campaigns"
        );
        assert!(campaigns <= 10, "seed {seed}: {campaigns} campaigns until one led");
    }
}

/// A promise may come behind the next PREPARE, which is sent after two heartbeats: it counts all the same.
#[test]
fn a_leader_is_found_over_links_slower_than_the_retry_of_prepare() {
    for seed in 0..20 {
        let mut world = World::new(3, seed, |_| {});
        world.weather.delay_us = (60_000, 110_000);
        let served = Prober::default().served(&mut world, Served::ByAny, LEADER_WITHIN);
        assert!(served.is_some(), "seed {seed}: no write within 2 s");
    }
}
