//! A replica alone with messages made by hand: what it says of the age of its state, and what it heaps up.

use super::*;
use crate::paxos::message::{AcceptedEntry, Heartbeat, HeartbeatAck, Promise};
use crate::paxos::outbox::Output;
use crate::paxos::testing::{ballot, entry};

const MS: fn(u64) -> Time = Time::from_millis;

fn replica(node: u16) -> Replica {
    let incarnation = Incarnation::default();
    let mut replica = Replica::new(Config {
        node: NodeId(node),
        membership: Membership::founding([1, 2, 3].map(NodeId)),
        incarnation,
        base: Slot::ZERO,
        timing: Timing {
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            backoff_base: Duration::from_millis(30),
            backoff_max: Duration::from_millis(1000),
        },
        rules: Rules {
            pre_vote: false,
            ..Rules::KEPT
        },
        read_lease_ppm: None,
        cache_bytes: 1 << 20,
        part_bytes: PART_BYTES,
        seed: 1,
        noop: |_| entry(b"noop"),
    });
    for peer in [1, 2, 3] {
        replica.know(NodeId(peer), incarnation);
    }
    replica.set_may_vote(true);
    replica.start(MS(1));
    replica
}

/// Everything written is on disk at once.
fn sync(replica: &mut Replica, now: Time, out: &mut Outbox) {
    out.note_synced(out.written());
    replica.release(now, out);
}

/// n1 leads at 1.1 from 1 s on, by the promise of n2, which lists one slot accepted at 0.2.
fn leader(out: &mut Outbox) -> Replica {
    let mut n1 = replica(1);
    n1.on_deadline(MS(1000), out);
    sync(&mut n1, MS(1000), out);
    let promise = Promise {
        ballot: ballot(1, 1),
        attempt: 1,
        first: Slot(1),
        last: Slot(1),
        is_last: true,
        chosen_upto: Slot::ZERO,
        log_time: LogTime(0),
        voter: n1.voter(),
        accepted: vec![AcceptedEntry {
            slot: Slot(1),
            ballot: ballot(0, 2),
            chosen: false,
            entry: entry(b"a"),
        }],
    };
    n1.on_message(MS(1000), NodeId(2), Message::Promise(promise), out);
    assert_eq!(n1.stance(), Stance::Leader(ballot(1, 1)));
    n1
}

fn ack(n1: &mut Replica, now: Time, clock_ms: u64, out: &mut Outbox) {
    let ack = HeartbeatAck {
        ballot: ballot(1, 1),
        round: 1,
        chosen_upto: Slot::ZERO,
        clock_ms,
        free_bytes: 0,
        applied: Slot::ZERO,
        digest: 0,
        voter: n1.voter(),
    };
    n1.on_message(now, NodeId(2), Message::HeartbeatAck(ack), out);
}

/// The next heartbeat for n2.
fn heartbeat(n1: &mut Replica, now: Time, out: &mut Outbox) -> Heartbeat {
    out.drain();
    n1.begin_round(now, out);
    let sent = out.drain().find_map(|output| match output {
        Output::Send {
            to: NodeId(2),
            message: Message::Heartbeat(heartbeat),
        } => Some(heartbeat),
        _ => None,
    });
    sent.expect("a leader's round is a heartbeat to all")
}

#[test]
fn a_leader_does_not_echo_the_clock_of_a_process_that_is_gone() {
    let mut out = Outbox::default();
    let mut n1 = leader(&mut out);
    ack(&mut n1, MS(1010), 3_600_000, &mut out);
    assert_eq!(heartbeat(&mut n1, MS(1020), &mut out).echo_ms, 3_600_000);
    // n2 was killed and comes back; its clock begins anew.
    n1.on_link_up(MS(1100), NodeId(2), &mut out);
    assert_eq!(heartbeat(&mut n1, MS(1110), &mut out).echo_ms, 0);
    ack(&mut n1, MS(1120), 15, &mut out);
    assert_eq!(heartbeat(&mut n1, MS(1130), &mut out).echo_ms, 15);
}

#[test]
fn a_new_leader_confirms_no_mark_before_it_knows_all_that_phase_1_showed() {
    let mut out = Outbox::default();
    let mut n1 = leader(&mut out);
    ack(&mut n1, MS(1010), 1, &mut out);
    assert_eq!(n1.confirmed_round(), 1, "a quorum has answered");
    // Slot 1 may be answered by the leader before it: who has not applied it is older than this round.
    assert_eq!(heartbeat(&mut n1, MS(1020), &mut out).confirmed_ms, u32::MAX);
    let accepted = Message::Accepted {
        ballot: ballot(1, 1),
        first: Slot(1),
        last: Slot(1),
        voter: n1.voter(),
    };
    n1.on_message(MS(1030), NodeId(2), accepted, &mut out);
    sync(&mut n1, MS(1030), &mut out);
    assert_eq!(n1.learner().chosen_upto(), Slot(1));
    assert_eq!(heartbeat(&mut n1, MS(1040), &mut out).confirmed_ms, 41);
}

#[test]
fn an_echo_of_a_moment_that_is_still_to_come_tells_no_age() {
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    // The clock of an earlier life; and the highest that a frame can carry.
    for echo_ms in [3_600_000, 1 << 62] {
        let heartbeat = Heartbeat {
            ballot: ballot(1, 1),
            round: 1,
            chosen_upto: Slot::ZERO,
            confirmed_ms: 5,
            echo_ms,
            applied: Slot::ZERO,
            digest: 0,
            agreed: Slot::ZERO,
            agreed_digest: 0,
        };
        n2.on_message(MS(100), NodeId(1), Message::Heartbeat(heartbeat), &mut out);
        assert_eq!(n2.age(MS(60_000)), None, "echo {echo_ms}");
    }
}

#[test]
fn a_node_that_misses_a_slot_heaps_up_a_bounded_part_of_what_follows() {
    const LARGE: &[u8] = &[b'v'; 1 << 20];
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    let mut accept = |n2: &mut Replica, slot: u64, chosen_upto: u64, body: &'static [u8]| {
        let message = Message::Accept {
            ballot: ballot(1, 1),
            config: 1,
            slot: Slot(slot),
            chosen_upto: Slot(chosen_upto),
            entry: entry(body),
        };
        n2.on_message(MS(100), NodeId(1), message, &mut out);
        let writes = |output: &Output| matches!(output, Output::Write(Write::Accepted { .. }));
        out.drain().filter(writes).count()
    };
    // Slot 1 was lost on the way; the others go on without n2.
    let held: usize = (2..=200).map(|slot| accept(&mut n2, slot, slot - 1, LARGE)).sum();
    assert_eq!(held, 20, "a window is held, and no more");
    let small: usize = (201..=9000).map(|slot| accept(&mut n2, slot, slot - 1, b"s")).sum();
    assert_eq!(small, 0);
    // The hole itself always finds room, and with it what was held is chosen and forgotten.
    assert_eq!(accept(&mut n2, 1, 21, b"a"), 1);
    assert_eq!(n2.learner().chosen_upto(), Slot(21));
    assert_eq!(accept(&mut n2, 22, 21, LARGE), 1, "there is room again");
}

#[test]
fn what_a_proposer_of_another_configuration_sends_is_as_if_lost_and_said_once() {
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    let prepare = |config, ballot| Message::Prepare {
        ballot,
        attempt: 1,
        config,
        from_slot: Slot(1),
    };
    let accept = |config, ballot| Message::Accept {
        ballot,
        config,
        slot: Slot(1),
        chosen_upto: Slot::ZERO,
        entry: entry(b"a"),
    };
    for message in [
        prepare(2, ballot(1, 1)),
        accept(2, ballot(1, 1)),
        prepare(2, ballot(2, 1)),
    ] {
        n2.on_message(MS(100), NodeId(1), message, &mut out);
    }
    let said: Vec<Output> = out.drain().collect();
    let note = Note::OtherConfig {
        from: NodeId(1),
        config: 2,
        own: 1,
    };
    assert_eq!(said, [Output::Note(note)]);
    assert_eq!(n2.promised(), Ballot::ZERO);
    n2.on_message(MS(100), NodeId(1), accept(1, ballot(1, 1)), &mut out);
    assert_eq!(n2.promised(), ballot(1, 1));
}

/// The faults of peers that a node was told of, and whom it refused for them.
fn faults(out: &mut Outbox) -> Vec<(NodeId, PeerFault)> {
    let refused = out.drain().filter_map(|output| match output {
        Output::Refuse { peer, fault } => Some((peer, fault)),
        _ => None,
    });
    refused.collect()
}

#[test]
fn a_second_entry_at_one_ballot_is_refused_and_the_first_keeps_the_vote() {
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    let accept = |body: &'static [u8]| Message::Accept {
        ballot: ballot(1, 1),
        config: 1,
        slot: Slot(1),
        chosen_upto: Slot::ZERO,
        entry: entry(body),
    };
    n2.on_message(MS(100), NodeId(1), accept(b"a"), &mut out);
    sync(&mut n2, MS(100), &mut out);
    out.drain();
    n2.on_message(MS(110), NodeId(1), accept(b"b"), &mut out);
    sync(&mut n2, MS(110), &mut out);
    let second = PeerFault::TwoEntries {
        ballot: ballot(1, 1),
        slot: Slot(1),
    };
    assert_eq!(faults(&mut out), [(NodeId(1), second)], "and no vote");
    let vote = n2.acceptor().and_then(|acceptor| acceptor.vote(Slot(1)));
    assert_eq!(vote.map(|vote| vote.entry.clone()), Some(entry(b"a")));
}

#[test]
fn a_slot_near_the_end_of_all_numbers_makes_nobody_count_up_to_it() {
    const FAR: Slot = Slot((1 << 62) - 1);
    let mut out = Outbox::default();
    // An acceptor does not take it, and so reports none.
    let mut n2 = replica(2);
    let accept = Message::Accept {
        ballot: ballot(1, 3),
        config: 1,
        slot: FAR,
        chosen_upto: Slot::ZERO,
        entry: entry(b"far"),
    };
    n2.on_message(MS(100), NodeId(3), accept, &mut out);
    let chosen = Message::Chosen {
        first: FAR,
        entries: vec![entry(b"far")],
        chosen_upto: Slot::ZERO,
    };
    n2.on_message(MS(100), NodeId(3), chosen, &mut out);
    assert!(n2.acceptor().is_some_and(Acceptor::is_empty) && !n2.learner().knows(FAR));
    // A candidate does not believe a promise that lists it, and is elected by the next one that does not.
    let mut n1 = replica(1);
    n1.on_deadline(MS(1000), &mut out);
    sync(&mut n1, MS(1000), &mut out);
    out.drain();
    let promise = |slot| Promise {
        ballot: ballot(1, 1),
        attempt: 1,
        first: Slot(1),
        last: slot,
        is_last: true,
        chosen_upto: Slot::ZERO,
        log_time: LogTime(0),
        voter: n2.voter(),
        accepted: vec![AcceptedEntry {
            slot,
            ballot: ballot(0, 2),
            chosen: false,
            entry: entry(b"a"),
        }],
    };
    n1.on_message(MS(1000), NodeId(2), Message::Promise(promise(FAR)), &mut out);
    assert_eq!(faults(&mut out), [(NodeId(2), PeerFault::OutOfReach { slot: FAR })]);
    n1.on_message(MS(1001), NodeId(2), Message::Promise(promise(Slot(3))), &mut out);
    assert_eq!(n1.stance(), Stance::Leader(ballot(1, 1)));
    assert_eq!(n1.first_open(), Slot(4));
}

#[test]
fn questions_that_nobody_can_answer_go_round_with_a_pause() {
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    let accept = Message::Accept {
        ballot: ballot(1, 1),
        config: 1,
        slot: Slot(9),
        chosen_upto: Slot(8),
        entry: entry(b"a"),
    };
    n2.on_message(MS(100), NodeId(1), accept, &mut out);
    let asked = |out: &mut Outbox| {
        out.drain().find_map(|output| match output {
            Output::Send {
                to,
                message: Message::Fetch { .. },
            } => Some(to),
            _ => None,
        })
    };
    let (mut rounds, mut now) = (0, MS(100));
    let mut whom = asked(&mut out);
    // Both others have nothing, and say so at once.
    while now < MS(350) {
        if let Some(peer) = whom {
            rounds += 1;
            let empty = Message::Chosen {
                first: Slot(1),
                entries: Vec::new(),
                chosen_upto: Slot::ZERO,
            };
            n2.on_message(now, peer, empty, &mut out);
        }
        now = now + Duration::from_millis(1);
        n2.tick_catch_up(now, &mut out);
        whom = asked(&mut out);
    }
    assert!(
        (6..=14).contains(&rounds),
        "{rounds} questions in a quarter of a second"
    );
}

#[test]
fn without_room_nothing_is_accepted_or_learned_and_nothing_that_is_chosen_is_proposed_over() {
    let mut out = Outbox::default();
    let mut n2 = replica(2);
    n2.set_free_bytes(100);
    let accept = |slot| Message::Accept {
        ballot: ballot(1, 1),
        config: 1,
        slot: Slot(slot),
        chosen_upto: Slot::ZERO,
        entry: entry(b"a"),
    };
    n2.on_message(MS(100), NodeId(1), accept(1), &mut out);
    n2.on_message(MS(100), NodeId(1), accept(2), &mut out);
    assert_eq!(n2.acceptor().map(Acceptor::len), Some(1), "the second does not fit");
    n2.on_message(MS(101), NodeId(1), accept(1), &mut out);
    n2.set_free_bytes(1000);
    n2.on_message(MS(102), NodeId(1), accept(2), &mut out);
    assert_eq!(n2.acceptor().map(Acceptor::len), Some(2), "room came back");
    // A candidate that cannot write what a promise marks as chosen does not lead: it would take the slot for free.
    let mut n1 = replica(1);
    n1.set_free_bytes(50);
    n1.on_deadline(MS(1000), &mut out);
    sync(&mut n1, MS(1000), &mut out);
    let promise = Promise {
        ballot: ballot(1, 1),
        attempt: 1,
        first: Slot(1),
        last: Slot(2),
        is_last: true,
        chosen_upto: Slot::ZERO,
        log_time: LogTime(0),
        voter: n1.voter(),
        accepted: vec![AcceptedEntry {
            slot: Slot(2),
            ballot: ballot(0, 2),
            chosen: true,
            entry: entry(b"chosen"),
        }],
    };
    n1.on_message(MS(1000), NodeId(2), Message::Promise(promise), &mut out);
    assert_eq!(n1.stance(), Stance::Follower);
}
