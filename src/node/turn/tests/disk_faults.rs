//! Every file operation of a node's life fails once, in each way: from the making of its directory over its log, its
//! segments and a snapshot. Nothing that was acknowledged may be lost, and who ends says at which file.

use super::*;
use crate::node::open::open as open_directory;

/// What may fail, and how. (Files are only cut where a snapshot of more than 16 MiB is taken away.)
const FAULTS: [(DiskOp, Fault); 11] = [
    (DiskOp::Write, Fault::Io),
    (DiskOp::Write, Fault::NoSpace),
    (DiskOp::Sync, Fault::Io),
    (DiskOp::Sync, Fault::NoSpace),
    (DiskOp::Create, Fault::Io),
    (DiskOp::Create, Fault::NoSpace),
    (DiskOp::Rename, Fault::Io),
    (DiskOp::Rename, Fault::NoSpace),
    (DiskOp::SyncDirectory, Fault::Io),
    (DiskOp::SyncDirectory, Fault::NoSpace),
    (DiskOp::Remove, Fault::Io),
];
/// Small enough that a life makes segments and takes snapshots.
const SEGMENT_BYTES: u32 = 32 << 10;
const VALUE_BYTES: usize = 2_000;
const WRITES: u64 = 100;
/// Between these writes the disk is full.
const FULL_FROM: u64 = 40;
const FULL_UPTO: u64 = 60;
/// What a snapshot has left to do when the last write is answered.
const LAST_TURNS: usize = 60;

/// What was acknowledged in a life, and the words with which it ended before its time, if it did.
#[derive(Default)]
struct Life {
    acknowledged: Vec<u64>,
    last_words: Option<String>,
}

fn key(number: u64) -> Bytes {
    number.to_string().into()
}

/// Opens the directory and leads.
fn lead(disk: &SimDisk) -> Result<(Turn<SimDisk>, Diary), String> {
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        snapshot_bytes: u64::from(SEGMENT_BYTES),
        ..Options::new(NodeId(1), "test", 7)
    };
    let settings = Settings {
        cluster_name: "test".into(),
        disk_reserve: 4096,
        window_bytes: SEGMENT_BYTES as usize / 4,
        ..Settings::new(NodeId(1), vec![NodeId(1)])
    };
    let (mut turn, _) = open_directory(disk.clone(), &options, settings, |_| {}).map_err(|error| error.to_string())?;
    let mut diary = Diary::default();
    turn.start(&mut diary).map_err(|fatal| fatal.to_string())?;
    while turn.machine().status(diary.now).role != "leader" || !turn.records.is_empty() {
        turn.run(&mut diary).map_err(|fatal| fatal.to_string())?;
        assert!(diary.now < Time::from_millis(5000), "no leader: {:#?}", diary.lines);
    }
    diary.lines.clear();
    Ok((turn, diary))
}

fn live(disk: &SimDisk) -> Life {
    let mut life = Life::default();
    life.last_words = work(disk, &mut life.acknowledged).err();
    life
}

fn work(disk: &SimDisk, acknowledged: &mut Vec<u64>) -> Result<(), String> {
    let (mut turn, mut diary) = lead(disk)?;
    let words = |fatal: Fatal| fatal.to_string();
    diary.to_come.push_back(vec![open(1)]);
    turn.run(&mut diary).map_err(words)?;
    for number in 1..=WRITES {
        let op = put(key(number), vec![number as u8; VALUE_BYTES]);
        if try_ask(&mut turn, &mut diary, number, op).map_err(words)? == "done" {
            acknowledged.push(number);
        }
        match number {
            FULL_FROM => disk.set_capacity(disk.used_bytes()), // what is spare has to go
            FULL_UPTO => disk.set_capacity(u64::MAX),
            _ => {}
        }
    }
    for _ in 0..LAST_TURNS {
        turn.run(&mut diary).map_err(words)?;
    }
    Ok(())
}

/// A later life on the same directory, with nothing in its way, has all that was acknowledged.
fn assert_kept(disk: &SimDisk, life: &Life, case: &str) {
    disk.set_capacity(u64::MAX);
    let (turn, _) = lead(disk).unwrap_or_else(|error| panic!("{case}: it does not start again: {error}"));
    for number in &life.acknowledged {
        let found = turn.machine().state().get(&key(*number));
        assert!(
            found.is_some_and(|found| found.value == vec![*number as u8; VALUE_BYTES]),
            "{case}: write {number} of {} was acknowledged, and is lost",
            life.acknowledged.len()
        );
    }
}

#[test]
fn whatever_file_operation_fails_in_whatever_way_nothing_acknowledged_is_lost_and_the_file_is_named() {
    for (op, fault) in FAULTS {
        let (mut nth, mut ended) = (0, 0);
        loop {
            nth += 1;
            let case = format!("{op:?} number {nth} fails by {fault:?}");
            let disk = SimDisk::new(nth);
            disk.fail(op, nth, fault);
            let life = live(&disk);
            if !disk.fired().contains_key(&(op, fault)) {
                break; // there are no more operations of this kind in a life
            }
            match &life.last_words {
                Some(words) => {
                    assert!(words.contains("sim"), "{case}: which file? {words}");
                    ended += 1;
                }
                // What is left of a segment for which there was no room stays until the next start.
                None => assert!(
                    fault == Fault::NoSpace || op == DiskOp::Remove,
                    "{case}: the node goes on"
                ),
            }
            match nth % 2 {
                0 => disk.kill(),
                _ => disk.crash(),
            }
            assert_kept(&disk, &life, &case);
        }
        assert!(
            ended > 0 || fault == Fault::NoSpace,
            "no {op:?} that fails ends the node"
        );
        let least = match op {
            DiskOp::Write | DiskOp::Sync => WRITES,
            DiskOp::Create | DiskOp::Rename | DiskOp::SyncDirectory => 3,
            _ => 1,
        };
        assert!(nth > least, "only {} operations of {op:?} were made to fail", nth - 1);
    }
}
