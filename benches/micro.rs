//! The parts by themselves: codec, log, acceptor, state machine, checker; nanoseconds for one command or operation.
//!
//! `make bench-micro`, or `cargo bench --bench micro -- apply` for those whose names hold a word. Each is repeated until
//! it takes long enough to be timed, many times over; the median and the least are told. The least is what to compare
//! on a machine that does other things too. For counts of instructions, which repeat exactly:
//! `valgrind --tool=callgrind target/release/deps/micro-* --bench apply`.

use bytes::{Bytes, BytesMut};
use std::hint::black_box;
use std::time::{Duration, Instant};
use synod::kv::snapshot::{Checker, Item, Loader, Summary};
use synod::kv::{Answer, Applied, Command, Op, SessionRef, State, Versioned};
use synod::paxos::acceptor::Acceptor;
use synod::paxos::{Ballot, Entry, LogTime, Message, NodeId, Slot};
use synod::storage::{Disk, Options, Storage};
use synod::wire::frame::{self, FRAME_BYTES_MAX};
use synod::wire::{Frame, Record, Request, RequestOp, body};
use synod::workload::check;
use synod::workload::history::{End, Function, History, Operation};

/// Commands of a batch.
const BATCH: u64 = 64;
const KEYS: u64 = 10_000;
/// Its name; it takes seconds to begin.
const APPLY_FAR: &str = "apply a batch of 64 puts among a million keys, per command";
/// The same.
const LOAD: &str = "load a snapshot of a million keys and free it, per key";
/// Of their maps.
const MANY_KEYS: u64 = 1_000_000;
/// Batches before a key comes again: more than any cache holds.
const MANY_BATCHES: u64 = 2_000;
const VALUE_BYTES: usize = 256;
/// A sample takes at least so long.
const SAMPLE: Duration = Duration::from_millis(20);
const SAMPLES: usize = 15;
const BALLOT: Ballot = Ballot {
    round: 1,
    node: NodeId(1),
};

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    println!("| what | ns, median | ns, least |\n|---|---|---|");
    let measure = |name: &str, items: u64, run: &mut dyn FnMut()| {
        if wanted(name) {
            let (median, least) = time(items, run);
            println!("| {name} | {median:.1} | {least:.1} |");
        }
    };
    codec(&measure);
    acceptor(&measure);
    apply(&measure);
    if wanted(APPLY_FAR) {
        apply_far(&measure);
    }
    if wanted(LOAD) {
        load(&measure);
    }
    if wanted("log append") {
        log(&measure);
    }
    if wanted("check") {
        checker(&measure);
    }
}

/// Runs one of them by its name; items are what one call does of what is counted.
type Measure<'m> = dyn Fn(&str, u64, &mut dyn FnMut()) + 'm;

/// Median and least of the samples, nanoseconds an item.
fn time(items: u64, run: &mut dyn FnMut()) -> (f64, f64) {
    let mut rounds = 1u32;
    while sample(rounds, run) < SAMPLE {
        rounds = rounds.saturating_mul(2);
    }
    let per_item = |took: Duration| took.as_nanos() as f64 / f64::from(rounds) / items as f64;
    let mut samples: Vec<f64> = (0..SAMPLES).map(|_| per_item(sample(rounds, run))).collect();
    samples.sort_by(f64::total_cmp);
    (samples[SAMPLES / 2], samples[0])
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn sample(rounds: u32, run: &mut dyn FnMut()) -> Duration {
    let begun = Instant::now();
    (0..rounds).for_each(|_| run());
    begun.elapsed()
}

/// A put of number `number` in a session that was opened in slot `opened`.
fn put(opened: u64, number: u64) -> Command {
    let key = format!("{:016}", number.wrapping_mul(7919) % KEYS);
    Command {
        session: SessionRef {
            id: 7,
            opened: Slot(opened),
        },
        number,
        low: number,
        op: Op::Put {
            key: Bytes::from(key),
            value: Bytes::from(vec![number as u8; VALUE_BYTES]),
            if_absent: false,
            want_previous: false,
        },
    }
}

fn commands(from: u64) -> Vec<Command> {
    (from..from + BATCH).map(|number| put(1, number)).collect()
}

fn entry() -> Entry {
    body::batch(LogTime(1), &commands(1))
}

fn codec(measure: &Measure<'_>) {
    let command = put(1, 1);
    let request = Frame::Request(Request {
        deadline_ms: 5_000,
        session: command.session,
        number: 1,
        low: 1,
        op: RequestOp::Write(command.op),
    });
    let (commands, entry) = (commands(1), entry());
    let accept = Frame::Paxos(accept(entry.clone()));
    let mut out = Vec::new();
    measure("encode REQUEST", 1, &mut || {
        out.clear();
        frame::encode(black_box(&request), 1, &mut out);
    });
    measure("decode REQUEST", 1, &mut decoding(&request));
    measure("encode a batch of 64, per command", BATCH, &mut || {
        black_box(body::batch(LogTime(1), black_box(&commands)));
    });
    measure("decode a batch of 64, per command", BATCH, &mut || {
        black_box(body::commands(black_box(&entry)).expect("it is whole"));
    });
    let mut out = Vec::new();
    measure("encode ACCEPT of 64, per command", BATCH, &mut || {
        out.clear();
        frame::encode(black_box(&accept), 1, &mut out);
    });
    measure("decode ACCEPT of 64, per command", BATCH, &mut decoding(&accept));
}

fn accept(entry: Entry) -> Message {
    Message::Accept {
        ballot: BALLOT,
        config: 1,
        slot: Slot(2),
        chosen_upto: Slot(1),
        entry,
    }
}

/// What a reader does with the bytes of `frame`, the copy into its buffer included.
fn decoding(frame: &Frame) -> impl FnMut() + use<> {
    let bytes = frame::encode_to_bytes(frame, 1);
    let mut inbox = BytesMut::new();
    move || {
        inbox.extend_from_slice(&bytes);
        let whole = frame::next_frame(&mut inbox, FRAME_BYTES_MAX).expect("a good frame");
        let (header, body) = whole.expect("a whole frame");
        black_box(frame::decode(header, body).expect("a good body"));
    }
}

fn acceptor(measure: &Measure<'_>) {
    let entry = entry();
    let (mut acceptor, mut slot) = (Acceptor::default(), Slot(1));
    measure("accept, per slot", 1, &mut || {
        // As a node's: a few slots are open, the others are chosen and gone.
        if acceptor.len() == 64 {
            acceptor = Acceptor::default();
        }
        slot = slot.next();
        black_box(acceptor.accept(BALLOT, slot, &entry)).expect("nobody promised more");
    });
}

/// A state with session 7, opened in slot 1.
fn opened() -> State {
    let (mut state, mut applied) = (State::new(), Vec::new());
    let open: Command = Command {
        op: Op::Open,
        session: SessionRef {
            id: 7,
            opened: Slot::ZERO,
        },
        number: 0,
        low: 0,
    };
    state.apply(Slot(1), LogTime(1), &[open], &mut applied);
    let is_open = matches!(&applied[0], Applied::Done(done) if matches!(done.answer, Answer::Opened { .. }));
    assert!(is_open, "{applied:?}");
    state
}

/// Applies a batch behind what was applied. Its numbers are new: one that was there would be answered from the session's table.
fn apply_next(state: &mut State, number: &mut u64, batch: &mut [Command], applied: &mut Vec<Applied>) {
    for command in &mut *batch {
        *number += 1;
        (command.number, command.low) = (*number, *number);
    }
    applied.clear();
    let slot = state.applied().next();
    state.apply(slot, LogTime(slot.0), batch, applied);
}

fn apply(measure: &Measure<'_>) {
    let (mut state, mut applied, mut number) = (opened(), Vec::new(), 0);
    let mut batch = commands(1);
    measure("apply a batch of 64 puts, per command", BATCH, &mut || {
        apply_next(&mut state, &mut number, &mut batch, &mut applied);
    });
    let mut at = 0;
    let keys: Vec<String> = (0..KEYS).map(|key| format!("{key:016}")).collect();
    measure("get", 1, &mut || {
        at = (at + 7919) % KEYS as usize;
        black_box(state.read(keys[at].as_bytes()));
    });
}

/// As if few keys came twice: what a put needs is in no cache.
fn apply_far(measure: &Measure<'_>) {
    let (mut state, mut applied, mut number) = (opened(), Vec::new(), 0);
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let batch_of = |keys: std::ops::Range<u64>| -> Vec<Command> {
        // A factor without one in common with the number of keys: each comes once in so many.
        let far = |key: u64| format!("{:016}", key.wrapping_mul(387_420_489) % MANY_KEYS);
        let command = |key| Command {
            op: Op::Put {
                key: far(key).into(),
                value: value.clone(),
                if_absent: false,
                want_previous: false,
            },
            ..put(1, 0)
        };
        keys.map(command).collect()
    };
    for first in (0..MANY_KEYS).step_by(BATCH as usize) {
        let mut batch = batch_of(first..first + BATCH);
        apply_next(&mut state, &mut number, &mut batch, &mut applied);
    }
    assert_eq!(state.keys() as u64, MANY_KEYS);
    let mut batches: Vec<_> = (0..MANY_BATCHES)
        .map(|batch| batch_of(batch * BATCH..(batch + 1) * BATCH))
        .collect();
    let mut next = 0;
    measure(APPLY_FAR, BATCH, &mut || {
        next = (next + 1) % batches.len();
        apply_next(&mut state, &mut number, &mut batches[next], &mut applied);
    });
}

/// Without the file that it comes from.
fn load(measure: &Measure<'_>) {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let items = || {
        (1..=MANY_KEYS).map(|number| Item::Key {
            key: format!("{number:016}").into_bytes().into(),
            value: Versioned {
                value: value.clone(),
                created: number,
                version: number,
            },
        })
    };
    let mut checker = Checker::new(Summary {
        revision: MANY_KEYS,
        ..Summary::default()
    });
    items().try_for_each(|item| checker.add(&item)).expect("in order");
    let summary = checker.found();
    measure(LOAD, MANY_KEYS, &mut || {
        let mut loader = Loader::new(summary, State::new()).expecting(MANY_KEYS as usize);
        items().try_for_each(|item| loader.add(item)).expect("in order");
        black_box(loader.finish().expect("what the summary says"));
    });
}

fn log(measure: &Measure<'_>) {
    let directory = tempfile::tempdir().expect("the system has room for a directory");
    let mut append = appending(&directory);
    measure("log append of 64 puts, fdatasync, per command", BATCH, &mut append);
    // The same without a disk: what is left is ours and the kernel's.
    if let Ok(directory) = tempfile::tempdir_in("/dev/shm") {
        let mut append = appending(&directory);
        measure("log append of 64 puts, in memory, per command", BATCH, &mut append);
    }
}

fn appending(directory: &tempfile::TempDir) -> impl FnMut() + use<> {
    let options = Options {
        segment_bytes: 8 << 20,
        ..Options::new(NodeId(1), "bench", 1)
    };
    let (mut storage, _) = Storage::open(Disk::new(directory.path()), &options).expect("a new directory");
    storage.recover(|_| {}).expect("a new log");
    let entry = entry();
    let mut slot = 0;
    move || {
        slot += 1;
        let record = Record::Accepted {
            slot: Slot(slot),
            ballot: BALLOT,
            entry: entry.clone(),
        };
        storage.append(&[record]).expect("the disk has room");
        storage.sync().expect("the disk syncs");
        storage.prepare_ahead().expect("the disk has room");
    }
}

/// A history of ten clients, of which ten at a time put and get one key, in which all is well.
fn checker(measure: &Measure<'_>) {
    const OPERATIONS: u64 = 20_000;
    let operation = |number: u64| {
        let (key, is_write) = (number / 20 % 100, number.is_multiple_of(2));
        let value = serde_json::json!((number / 2).to_string());
        Operation {
            process: number % 10,
            function: if is_write { Function::Put } else { Function::Get },
            key: serde_json::json!(format!("k{key}")),
            argument: if is_write {
                value.clone()
            } else {
                serde_json::Value::Null
            },
            invoked: number * 10,
            end: End::Ok {
                time: number * 10 + 95,
                value: if is_write { serde_json::Value::Null } else { value },
            },
        }
    };
    let history = History {
        operations: (0..OPERATIONS).map(operation).collect(),
    };
    measure("check a history, per operation", OPERATIONS, &mut || {
        let verdict = check::check(black_box(&history), Duration::from_secs(60));
        assert!(matches!(verdict, check::Verdict::Linearizable(_)), "{verdict:?}");
    });
}
