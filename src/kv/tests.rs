//! The whole room at work: entries go in, answers come out.

use super::session::{IDLE_EXPIRY_MS, IN_FLIGHT_MAX, KEPT_BYTES_MAX, SESSIONS_MAX};
use super::snapshot::{Item, ItemRef, LoadError, Loader};
use super::testing::{cas, del, put, put_if_absent, versioned, with_previous};
use super::*;
use crate::paxos::{LogTime, Slot};
use proptest::prelude::*;

/// A state, and a log that grows behind it.
struct Log {
    state: State,
    now: LogTime,
}

impl Log {
    fn new() -> Log {
        Log {
            state: State::new(),
            now: LogTime(1_000),
        }
    }

    fn entry(&mut self, commands: &[Command]) -> Vec<Applied> {
        let mut applied = Vec::new();
        self.state
            .apply(self.state.applied().next(), self.now, commands, &mut applied);
        assert_eq!(applied.len(), commands.len());
        applied
    }

    fn one(&mut self, command: &Command) -> Applied {
        self.entry(std::slice::from_ref(command)).remove(0)
    }

    fn open(&mut self, id: u128) -> SessionRef {
        let Applied::Done(Done {
            answer: Answer::Opened { opened },
            ..
        }) = self.one(&open(id))
        else {
            panic!("OPEN is always done");
        };
        SessionRef { id, opened }
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now.0 += ms;
    }

    fn value(&self, key: &str) -> Option<String> {
        let found = self.state.get(key.as_bytes())?;
        Some(String::from_utf8(found.value.to_vec()).unwrap())
    }
}

fn open(id: u128) -> Command {
    let session = SessionRef { id, opened: Slot::ZERO };
    Command {
        session,
        number: 0,
        low: 0,
        op: Op::Open,
    }
}

fn close(session: SessionRef) -> Command {
    Command {
        session,
        number: 0,
        low: 0,
        op: Op::Close,
    }
}

/// A write of a client that still awaits nothing below it.
fn write(session: SessionRef, number: u64, op: Op) -> Command {
    write_low(session, number, number, op)
}

fn write_low(session: SessionRef, number: u64, low: u64, op: Op) -> Command {
    Command {
        session,
        number,
        low,
        op,
    }
}

fn written(slot: u64, revision: u64) -> Applied {
    Applied::Done(Done {
        slot: Slot(slot),
        revision,
        answer: Answer::Written {
            previous: Previous::NotAsked,
        },
    })
}

const EXPIRED: Applied = Applied::Refused(Refusal::SessionExpired);
const FORGOTTEN: Applied = Applied::Refused(Refusal::NumberForgotten);
const BUSY: Applied = Applied::Refused(Refusal::Busy);

fn is_done(applied: &Applied) -> bool {
    matches!(applied, Applied::Done(_))
}

#[test]
fn commands_of_one_batch_run_in_order_and_share_their_slot() {
    let mut log = Log::new();
    let alice = log.open(1);
    let batch = [
        write_low(alice, 1, 1, put("k", "a")),
        write_low(alice, 2, 1, cas("k", "a", "b")),
        write_low(alice, 3, 1, cas("k", "a", "c")),
        write_low(alice, 4, 1, with_previous(del("k"))),
    ];
    let applied = log.entry(&batch);
    let answer = |revision, answer| {
        Applied::Done(Done {
            slot: Slot(2),
            revision,
            answer,
        })
    };
    let current = Some(versioned("b", 1, 2));
    let previous = Previous::Was(versioned("b", 1, 2));
    assert_eq!(applied[..2], [written(2, 1), written(2, 2)]);
    assert_eq!(applied[2], answer(2, Answer::CasFailed { current }));
    assert_eq!(applied[3], answer(3, Answer::Written { previous }));
    assert_eq!(log.value("k"), None);
}

#[test]
fn a_noop_moves_slot_and_log_time_and_nothing_else() {
    let mut log = Log::new();
    assert_eq!(log.entry(&[]), []);
    assert_eq!((log.state.applied(), log.state.log_time()), (Slot(1), LogTime(1_000)));
    // A new leader's stamp may be behind: log time never is.
    log.now = LogTime(500);
    log.entry(&[]);
    assert_eq!((log.state.applied(), log.state.log_time()), (Slot(2), LogTime(1_000)));
    assert_eq!(
        (log.state.revision(), log.state.sessions(), log.state.keys()),
        (0, 0, 0)
    );
}

#[test]
#[should_panic(expected = "slot 3 applied behind slot 1")]
fn a_hole_in_the_log_is_never_applied_past() {
    let mut log = Log::new();
    log.entry(&[]);
    log.state.apply(Slot(3), LogTime(0), &[] as &[Command], &mut Vec::new());
}

#[test]
fn a_repeat_gets_the_same_reply_slot_and_version_included() {
    let mut log = Log::new();
    let alice = log.open(1);
    let bob = log.open(2);
    for op in [
        put("k", "a"),
        with_previous(put("k", "b")),
        cas("k", "x", "c"),
        put_if_absent("k", "d"),
        del("nothing"),
    ] {
        let number = log.state.applied().0;
        let command = write(alice, number, op);
        let first = log.one(&command);
        log.one(&write(bob, number, put("k", "b")));
        let revision = log.state.revision();
        assert_eq!(log.one(&command), first, "{command:?}");
        assert_eq!(log.state.revision(), revision, "{command:?} ran twice");
    }
}

#[test]
fn a_repeat_in_the_same_batch_runs_once() {
    let mut log = Log::new();
    let alice = log.open(1);
    let command = write(alice, 1, put("k", "a"));
    assert_eq!(log.entry(&[command.clone(), command]), [written(2, 1), written(2, 1)]);
}

#[test]
fn writes_in_flight_may_arrive_in_any_order() {
    let mut log = Log::new();
    let alice = log.open(1);
    assert_eq!(log.one(&write_low(alice, 3, 1, put("k", "c"))), written(2, 1));
    assert_eq!(log.one(&write_low(alice, 1, 1, put("k", "a"))), written(3, 2));
    assert_eq!(log.one(&write_low(alice, 2, 1, put("k", "b"))), written(4, 3));
    assert_eq!(log.one(&write_low(alice, 3, 1, put("k", "c"))), written(2, 1));
    assert_eq!(log.value("k").as_deref(), Some("b"));
}

#[test]
fn below_the_mark_nothing_runs_whether_it_ran_before_or_not() {
    let mut log = Log::new();
    let alice = log.open(1);
    let settled = write_low(alice, 1, 1, put("k", "a"));
    let given_up = write_low(alice, 2, 1, put("k", "late"));
    log.one(&settled);
    log.one(&write_low(alice, 3, 3, put("k", "b")));
    assert_eq!(log.one(&settled), FORGOTTEN);
    assert_eq!(log.one(&given_up), FORGOTTEN);
    // Their older mark does not bring the session's back down.
    assert_eq!(log.one(&write_low(alice, 2, 0, put("k", "late"))), FORGOTTEN);
    assert_eq!(log.value("k").as_deref(), Some("b"));
}

#[test]
fn a_number_of_zero_is_never_run() {
    let mut log = Log::new();
    let alice = log.open(1);
    assert_eq!(log.one(&write_low(alice, 0, 0, put("k", "a"))), FORGOTTEN);
    assert_eq!(log.state.revision(), 0);
}

#[test]
fn opening_a_living_session_again_gets_the_same_reply_and_keeps_its_replies() {
    let mut log = Log::new();
    let first = log.one(&open(1));
    let alice = SessionRef { id: 1, opened: Slot(1) };
    log.one(&write(alice, 1, put("k", "a")));
    assert_eq!(log.one(&open(1)), first);
    assert_eq!(log.one(&write(alice, 1, put("k", "a"))), written(2, 1));
    assert_eq!(log.state.sessions(), 1);
}

/// The schedule of `rules.md` 18: the session is gone, then late copies of its OPEN and of its write arrive.
#[test]
fn a_late_copy_of_open_does_not_let_a_late_copy_of_a_write_run_again() {
    for end in ["closed", "expired"] {
        let mut log = Log::new();
        let alice = log.open(1);
        let late = write(alice, 1, put("k", "a"));
        log.one(&late);
        match end {
            "closed" => drop(log.one(&close(alice))),
            _ => log.wait_ms(IDLE_EXPIRY_MS),
        }
        let reopened = log.open(1);
        assert_ne!(reopened.opened, alice.opened, "{end}");
        assert_eq!(log.one(&late), EXPIRED, "{end}");
        assert_eq!(log.state.revision(), 1, "{end}");
        // A late CLOSE of the first life does not end the second.
        log.one(&close(alice));
        assert!(is_done(&log.one(&write(reopened, 1, put("k", "b")))), "{end}");
    }
}

#[test]
fn a_write_of_a_session_that_was_never_opened_is_refused() {
    let mut log = Log::new();
    let nobody = SessionRef { id: 9, opened: Slot(1) };
    assert_eq!(log.one(&write(nobody, 1, put("k", "a"))), EXPIRED);
    let alice = log.open(1);
    let wrong_slot = SessionRef {
        opened: alice.opened.next(),
        ..alice
    };
    assert_eq!(log.one(&write(wrong_slot, 1, put("k", "a"))), EXPIRED);
    assert_eq!(log.state.revision(), 0);
}

#[test]
fn closing_is_done_also_when_the_session_is_gone() {
    let mut log = Log::new();
    let alice = log.open(1);
    assert!(is_done(&log.one(&close(alice))));
    assert_eq!(log.state.sessions(), 0);
    assert!(is_done(&log.one(&close(alice))));
    assert_eq!(log.one(&write(alice, 1, put("k", "a"))), EXPIRED);
}

#[test]
fn a_session_expires_by_log_time_alone() {
    let mut log = Log::new();
    let idle = log.open(1);
    let busy = log.open(2);
    log.wait_ms(IDLE_EXPIRY_MS - 1);
    // Any number of entries, but one millisecond short; a repeat and a refusal are signs of life as well.
    for _ in 0..100 {
        log.entry(&[]);
    }
    log.one(&write(busy, 0, put("k", "refused")));
    assert_eq!(log.state.sessions(), 2);
    log.wait_ms(1);
    log.entry(&[]);
    let living: Vec<_> = log.state.session_views().map(|view| view.session).collect();
    assert_eq!(living, [busy]);
    assert_eq!(log.one(&write(idle, 1, put("k", "a"))), EXPIRED);
}

#[test]
fn sessions_expire_in_the_order_of_their_last_commands() {
    let mut log = Log::new();
    let sessions: Vec<_> = (1..=5).map(|id| log.open(id)).collect();
    let mut uses = [0; 5];
    for at in [2, 0, 4, 0, 1, 3, 2] {
        log.wait_ms(1);
        uses[at] += 1;
        log.one(&write(sessions[at], uses[at], put("k", "a")));
    }
    let order = [4, 0, 1, 3, 2].map(|at| sessions[at]);
    let living = |log: &Log| -> Vec<_> { log.state.session_views().map(|view| view.session).collect() };
    assert_eq!(living(&log), order);
    log.wait_ms(IDLE_EXPIRY_MS - 4); // the first of them was used four milliseconds before the last
    for gone in 1..=5 {
        log.entry(&[]);
        assert_eq!(living(&log), order[gone..]);
        log.wait_ms(1);
    }
}

#[test]
fn expiry_comes_before_the_commands_of_the_same_entry() {
    let mut log = Log::new();
    let alice = log.open(1);
    log.wait_ms(IDLE_EXPIRY_MS);
    assert_eq!(log.one(&write(alice, 1, put("k", "a"))), EXPIRED);
}

#[test]
fn a_stamp_that_runs_backwards_expires_nobody_and_revives_nobody() {
    let mut log = Log::new();
    log.now = LogTime(u64::MAX);
    let alice = log.open(1);
    log.now = LogTime(0);
    assert_eq!(log.one(&write(alice, 1, put("k", "a"))), written(2, 1));
}

#[test]
fn at_the_bound_the_session_with_the_earliest_last_command_goes() {
    let mut log = Log::new();
    let opens: Vec<_> = (0..SESSIONS_MAX as u128).map(open).collect();
    log.entry(&opens);
    assert_eq!(log.state.sessions(), SESSIONS_MAX);
    let named = |id| SessionRef { id, opened: Slot(1) };
    // 0 was first; it speaks again, so 1 is the earliest, by its index in the batch.
    assert!(is_done(&log.one(&write(named(0), 1, put("k", "a")))));
    log.open(u128::MAX);
    assert_eq!(log.state.sessions(), SESSIONS_MAX);
    assert_eq!(log.one(&write(named(1), 1, put("k", "b"))), EXPIRED);
    assert!(is_done(&log.one(&write(named(2), 1, put("k", "c")))));
    assert!(is_done(&log.one(&write(named(0), 2, put("k", "d")))));
}

#[test]
fn twenty_thousand_sessions_in_a_row_all_succeed_without_closing() {
    let mut log = Log::new();
    for id in 0..20_000 {
        let session = log.open(id);
        assert!(is_done(&log.one(&write(session, 1, put("k", "a")))));
    }
}

#[test]
fn more_numbers_in_flight_than_the_bound_are_busy_until_the_lowest_is_settled() {
    let mut log = Log::new();
    let alice = log.open(1);
    for number in 2..=IN_FLIGHT_MAX {
        assert!(is_done(&log.one(&write_low(alice, number, 1, put("k", "a")))));
    }
    let over = write_low(alice, IN_FLIGHT_MAX + 1, 1, put("k", "over"));
    assert_eq!(log.one(&over), BUSY);
    assert_eq!(log.one(&write_low(alice, u64::MAX, 1, put("k", "over"))), BUSY);
    assert_eq!(log.value("k").as_deref(), Some("a"));
    // The lowest has its place, and a repeat needs none.
    assert!(is_done(&log.one(&write_low(alice, 1, 1, put("k", "b")))));
    assert!(is_done(&log.one(&write_low(alice, 2, 1, put("k", "a")))));
    // `busy` was not kept: the same number runs once there is room.
    assert!(is_done(&log.one(&write_low(
        alice,
        IN_FLIGHT_MAX + 1,
        2,
        put("k", "c")
    ))));
    assert_eq!(log.value("k").as_deref(), Some("c"));
}

#[test]
fn kept_replies_are_bounded_in_bytes_and_the_lowest_number_always_fits() {
    let mut log = Log::new();
    let alice = log.open(1);
    let large = "v".repeat(command::VALUE_BYTES_MAX);
    log.one(&write(alice, 1, put("k", &large)));
    let swap = |number, low| write_low(alice, number, low, with_previous(put("k", &large)));
    // The client awaits number 2 and sends later ones first.
    let mut busy_at = 3;
    while is_done(&log.one(&swap(busy_at, 2))) {
        busy_at += 1;
    }
    let before = log.state.get(b"k");
    assert_eq!(log.one(&swap(busy_at, 2)), BUSY);
    assert_eq!(log.state.get(b"k"), before, "refused, and ran all the same");
    let kept = |log: &Log| log.state.session_views().next().unwrap().kept_bytes;
    assert!(kept(&log) + 2 * large.len() > KEPT_BYTES_MAX && kept(&log) + large.len() < KEPT_BYTES_MAX);
    // A write whose reply is small, but not small enough, is refused too; number 2 itself is not.
    assert!(is_done(&log.one(&swap(2, 2))));
    assert!(kept(&log) <= KEPT_BYTES_MAX);
    // As the mark moves on, there is room again.
    assert!(is_done(&log.one(&swap(busy_at, busy_at))));
    assert_eq!(log.state.session_views().next().unwrap().kept, 1);
}

#[test]
fn a_failed_cas_counts_the_value_that_its_reply_carries() {
    let mut log = Log::new();
    let alice = log.open(1);
    let large = "v".repeat(command::VALUE_BYTES_MAX);
    log.one(&write(alice, 1, put("k", &large)));
    log.one(&write(alice, 2, cas("k", "no", "never")));
    assert!(log.state.session_views().next().unwrap().kept_bytes > large.len());
}

#[test]
fn the_digest_tells_apart_what_was_applied_and_what_it_did() {
    let run = |stamp, commands: &[Command]| {
        let mut log = Log::new();
        log.one(&open(1));
        log.now = LogTime(stamp);
        log.entry(commands);
        log.state.digest()
    };
    let alice = SessionRef { id: 1, opened: Slot(1) };
    let digests = [
        run(2_000, &[]),
        run(2_001, &[]),
        run(2_000 + IDLE_EXPIRY_MS, &[]),
        run(2_000, &[write(alice, 1, put("k", "a"))]),
        run(2_000, &[write(alice, 1, put("k", "b"))]),
        run(2_000, &[write(alice, 1, with_previous(put("k", "a")))]),
        run(2_000, &[write(alice, 1, put_if_absent("k", "a"))]),
        run(2_000, &[write(alice, 2, put("k", "a"))]),
        run(2_000, &[write(alice, 1, del("k"))]),
        run(2_000, &[close(alice)]),
    ];
    for (i, digest) in digests.iter().enumerate() {
        assert!(
            !digests[..i].contains(digest),
            "case {i} has the digest of an earlier one"
        );
    }
}

/// A command of a small world: few sessions, keys, values and numbers, so that they meet.
fn any_op() -> impl Strategy<Value = Op> {
    // The second is too long to stand in the map's tree itself.
    let key = prop_oneof![Just("a"), Just("b, which is longer than most keys are")];
    let value = prop_oneof![Just("1"), Just("2"), Just("")];
    (key, value.clone(), value, 0..5, any::<bool>()).prop_map(|(key, old, new, kind, ask)| {
        let op = match kind {
            0 => put(key, new),
            1 => put_if_absent(key, new),
            2 => del(key),
            3 => cas(key, old, new),
            _ => testing::cas_version(key, old.len() as u64 * 3, new),
        };
        if ask { with_previous(op) } else { op }
    })
}

/// Entries as clients of three sessions make them, opened in slots 1 to 3: numbers rise, marks follow, now and then a
/// long silence.
fn any_log() -> impl Strategy<Value = Vec<(u64, Vec<Command>)>> {
    let batch = prop::collection::vec((0..3u128, any_op()), 0..6);
    let pause = prop_oneof![20 => 0..50u64, 1 => Just(IDLE_EXPIRY_MS)];
    prop::collection::vec((pause, batch), 1..30).prop_map(|plan| {
        let mut numbers = [0; 3];
        let opens = (0..3).map(|id| (0, vec![open(id)]));
        let batches = plan.into_iter().map(|(pause, batch)| {
            let commands = batch.into_iter().map(|(id, op)| {
                let number = &mut numbers[id as usize];
                *number += 1;
                let opened = Slot(id as u64 + 1);
                write_low(SessionRef { id, opened }, *number, number.saturating_sub(8).max(1), op)
            });
            (pause, commands.collect())
        });
        opens.chain(batches.collect::<Vec<_>>()).collect()
    })
}

fn replay(entries: &[(u64, Vec<Command>)]) -> (State, Vec<Vec<Applied>>) {
    let mut log = Log::new();
    let mut replies = Vec::new();
    for (pause, commands) in entries {
        log.wait_ms(*pause);
        replies.push(log.entry(commands));
    }
    (log.state, replies)
}

fn contents(state: &State) -> Vec<Option<Versioned>> {
    ["a", "b"].map(|key| state.get(key.as_bytes())).to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn two_states_fed_the_same_entries_agree_in_everything(entries in any_log()) {
        let (one, one_replies) = replay(&entries);
        let (two, two_replies) = replay(&entries);
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert_eq!(one_replies, two_replies);
        prop_assert_eq!(contents(&one), contents(&two));
    }

    /// Copies of old commands, put behind the commands of later entries, change nothing: each gets the first reply or
    /// a refusal.
    #[test]
    fn a_log_with_late_duplicates_means_the_same_as_without(
        entries in any_log(),
        copies in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
    ) {
        let (plain, plain_replies) = replay(&entries);
        let mut repeated = entries.clone();
        let all: Vec<(usize, usize)> = entries
            .iter()
            .enumerate()
            .flat_map(|(at, (_, commands))| (0..commands.len()).map(move |index| (at, index)))
            .collect();
        let mut originals = vec![Vec::new(); entries.len()];
        for (which, to) in copies {
            let (at, index) = all[which.index(all.len())];
            // Not into a later life of the session: a copy keeps a session alive, which is another log, not another meaning.
            let end = (at + 1..entries.len()).find(|later| entries[*later].0 >= IDLE_EXPIRY_MS).unwrap_or(entries.len());
            let to = at + to.index(end - at);
            repeated[to].1.push(entries[at].1[index].clone());
            originals[to].push((at, index));
        }
        let (state, replies) = replay(&repeated);
        prop_assert_eq!(contents(&plain), contents(&state));
        prop_assert_eq!(plain.revision(), state.revision());
        for (to, originals) in originals.into_iter().enumerate() {
            let plain_count = entries[to].1.len();
            prop_assert_eq!(&replies[to][..plain_count], &plain_replies[to][..]);
            for (copy, (at, index)) in replies[to][plain_count..].iter().zip(originals) {
                let first = &plain_replies[at][index];
                prop_assert!(copy == first || matches!(copy, Applied::Refused(_)), "{:?} became {:?}", first, copy);
            }
        }
    }
}

/// Takes a snapshot of `state` as it is now, in slices, with an entry of `meanwhile` between any two; what it holds.
fn snapshot(
    state: &mut State,
    mut now: LogTime,
    slice: usize,
    meanwhile: &[(u64, Vec<Command>)],
) -> (snapshot::Summary, Vec<Item>) {
    let summary = state.begin_snapshot();
    let mut meanwhile = meanwhile.iter();
    let mut items = Vec::new();
    let mut give = |item: ItemRef<'_>| {
        items.push(item.to_owned());
        1
    };
    while state.next_of_snapshot(slice, &mut give).expect("memory is well") {
        if let Some((pause, commands)) = meanwhile.next() {
            now.0 += pause;
            state.apply(state.applied().next(), now, commands, &mut Vec::new());
        }
    }
    (summary, items)
}

fn load(summary: snapshot::Summary, items: Vec<Item>) -> Result<State, LoadError> {
    let mut loader = Loader::new(summary, State::new());
    items.into_iter().try_for_each(|item| loader.add(item))?;
    loader.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_snapshot_is_the_state_as_it_was_whatever_is_applied_meanwhile(
        entries in any_log(),
        cut in 0..30usize,
        slice in 1..4usize,
    ) {
        let cut = cut.min(entries.len());
        let (mut state, _) = replay(&entries[..cut]);
        let then = state.clone();
        let now = LogTime(1_000 + entries[..cut].iter().map(|(pause, _)| pause).sum::<u64>());
        let (summary, items) = snapshot(&mut state, now, slice, &entries[cut..]);
        prop_assert_eq!(summary, then.summary());
        let loaded = load(summary, items).expect("a snapshot can be loaded");
        prop_assert_eq!(loaded.summary(), then.summary());
        prop_assert_eq!(contents(&loaded), contents(&then));
        prop_assert!(loaded.session_views().eq(then.session_views()));
        // And what follows means the same to both.
        let (mut loaded, mut then) = (loaded, then);
        for (_, commands) in &entries[cut..] {
            let (mut one, mut other) = (Vec::new(), Vec::new());
            loaded.apply(loaded.applied().next(), now, commands, &mut one);
            then.apply(then.applied().next(), now, commands, &mut other);
            prop_assert_eq!(one, other);
        }
        prop_assert_eq!(loaded.summary(), then.summary());
    }

    #[test]
    fn the_digest_of_the_content_is_that_of_a_state_loaded_anew(entries in any_log()) {
        let (mut state, _) = replay(&entries);
        let (summary, items) = snapshot(&mut state, LogTime(1_000), usize::MAX, &[]);
        prop_assert_eq!(load(summary, items).map(|loaded| loaded.content()), Ok(state.content()));
    }
}

#[test]
fn many_keys_are_loaded_and_refused_wherever_one_stands_wrong() {
    let mut log = Log::new();
    let session = log.open(1);
    for number in 1..=700 {
        let op = Op::Put {
            key: format!("{number:04}").into(),
            value: b"x".as_slice().into(),
            if_absent: false,
            want_previous: false,
        };
        log.one(&write_low(session, number, number, op));
    }
    let (summary, items) = snapshot(&mut log.state, log.now, usize::MAX, &[]);
    let first = items.iter().position(|item| matches!(item, Item::Key { .. }));
    let first = first.expect("there are keys");
    let loaded = load(summary, items.clone()).expect("it is the state");
    assert_eq!(contents(&loaded), contents(&log.state));
    // Also where keys that are handed on together end.
    for at in [0, 254, 255, 256, 511, 698] {
        let mut items = items.clone();
        items.swap(first + at, first + at + 1);
        assert_eq!(load(summary, items).map(|_| ()), Err(LoadError::Order), "key {at}");
    }
}

#[test]
fn items_that_are_not_the_state_are_refused() {
    let mut log = Log::new();
    let session = log.open(1);
    for (number, key) in [(1, "a"), (2, "b")] {
        log.one(&write_low(session, number, 1, put(key, "x")));
    }
    let (summary, items) = snapshot(&mut log.state, log.now, usize::MAX, &[]);
    assert_eq!(items.len(), 5, "a session, two replies, two keys");
    let with = |change: &dyn Fn(&mut Vec<Item>)| {
        let mut items = items.clone();
        change(&mut items);
        load(summary, items).map(|_| ())
    };
    assert_eq!(with(&|_| {}), Ok(()));
    assert_eq!(with(&|items| items.swap(3, 4)), Err(LoadError::Order));
    assert_eq!(with(&|items| items.swap(0, 1)), Err(LoadError::Order));
    assert!(matches!(
        with(&|items| drop(items.pop())),
        Err(LoadError::Count { what: "keys", .. })
    ));
    assert!(matches!(
        with(&|items| drop(items.remove(2))),
        Err(LoadError::Count { what: "replies", .. })
    ));
    let altered = with(&|items| {
        let Some(Item::Key { value, .. }) = items.last_mut() else {
            unreachable!("keys are last")
        };
        value.value = b"y".as_slice().into();
    });
    assert!(matches!(altered, Err(LoadError::Content(_))), "{altered:?}");
}

#[test]
fn what_changes_ahead_of_a_snapshot_is_kept_once_and_new_keys_are_not() {
    let mut log = Log::new();
    let session = log.open(1);
    log.one(&write(session, 1, put("a", "1")));
    log.one(&write(session, 2, put("b", "1")));
    let then = log.state.begin_snapshot();
    let mut items = Vec::new();
    for (number, op) in [put("b", "2"), put("c", "2"), del("a"), put("a", "3"), put("b", "3")]
        .into_iter()
        .enumerate()
    {
        log.one(&write(session, number as u64 + 3, op));
    }
    while log
        .state
        .next_of_snapshot(1, &mut |item| {
            items.push(item.to_owned());
            1
        })
        .expect("memory is well")
    {}
    let keys: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Key { key, value } => Some(format!(
                "{}={}",
                String::from_utf8_lossy(key),
                String::from_utf8_lossy(&value.value)
            )),
            _ => None,
        })
        .collect();
    assert_eq!(keys, ["a=1", "b=1"]);
    assert_eq!((then.keys, log.state.keys()), (2, 3));
}

#[test]
fn a_state_of_no_use_any_more_is_freed_in_slices() {
    let mut log = Log::new();
    let session = log.open(1);
    for number in 1..=5 {
        log.one(&write(
            session,
            number,
            put(["a", "b", "c", "d", "e"][number as usize - 1], "1"),
        ));
    }
    let mut slices = 0;
    while log.state.discard(2) {
        slices += 1;
    }
    assert!((2..=4).contains(&slices), "{slices}");
    assert_eq!(log.state.keys(), 0);
}
