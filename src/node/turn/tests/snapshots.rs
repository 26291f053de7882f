//! Snapshots and truncation in a loop whose disk fails between, and within, any two file operations.

use super::*;
use crate::node::open::{self, Unusable};
use crate::storage::OpenError;
use crate::storage::snapshot::{snapshot_name, snapshot_of};
use crate::wire::transfer::OFFSET_OF_NO_BYTE;
use std::collections::BTreeMap;

/// Segments of few entries, and a snapshot every few of them.
const SEGMENT_BYTES: u32 = 16 << 10;
/// Different keys: the state stays small while the log grows.
const KEYS: u64 = 8;

/// A client that writes one value after the other, and remembers what it was told.
#[derive(Clone, Debug, Default)]
struct Writer {
    number: u64,
    done: BTreeMap<String, u64>,
    /// Not answered: it may have taken effect.
    open: Option<(String, u64)>,
}

/// A loop on the directory, that leads.
fn begin(disk: &SimDisk) -> Result<(Turn<SimDisk>, Diary), Unusable> {
    let options = Options {
        segment_bytes: SEGMENT_BYTES,
        snapshot_bytes: 2 * u64::from(SEGMENT_BYTES),
        ..Options::new(NodeId(1), "test", 7)
    };
    let settings = Settings {
        cluster_name: "test".into(),
        cache_bytes: 0,
        ..Settings::new(NodeId(1), vec![NodeId(1)])
    };
    let (turn, _) = open::open(disk.clone(), &options, settings, |_| {})?;
    Ok((turn, Diary::default()))
}

impl Writer {
    /// One life of a process, in which so many values are written; false if the power failed before its end.
    fn live(&mut self, disk: &SimDisk, puts: u64) -> bool {
        let (mut turn, mut diary) = match begin(disk) {
            Ok(begun) => begun,
            Err(why) => {
                assert!(disk.is_cut(), "an undamaged directory is refused: {why}");
                return false;
            }
        };
        let lived = self.work(&mut turn, &mut diary, puts);
        if let Err(fatal) = &lived {
            assert!(disk.is_cut(), "{fatal}");
        }
        lived.is_ok()
    }

    fn work(&mut self, turn: &mut Turn<SimDisk>, diary: &mut Diary, puts: u64) -> Result<(), Fatal> {
        turn.start(diary)?;
        while turn.machine().status(diary.now).role != "leader" {
            turn.run(diary)?;
            assert!(diary.now < Time::from_millis(5000), "no leader: {:#?}", diary.lines);
        }
        // Until what phase 1 found is applied.
        for _ in 0..3 {
            turn.run(diary)?;
        }
        self.check(turn);
        self.ask(turn, diary, open(1))?;
        self.write(turn, diary, puts)
    }

    fn write(&mut self, turn: &mut Turn<SimDisk>, diary: &mut Diary, puts: u64) -> Result<(), Fatal> {
        for _ in 0..puts {
            let view = turn.machine().state().session_views().next().expect("it is open");
            let (key, number) = (format!("key-{}", self.number % KEYS), self.number + 1);
            self.open = Some((key.clone(), number));
            self.number = number;
            let op = put(key.clone(), value(number));
            self.ask(turn, diary, from_client(number, view.session, number, op))?;
            self.done.insert(key, number);
            self.open = None;
        }
        Ok(())
    }

    fn ask(&self, turn: &mut Turn<SimDisk>, diary: &mut Diary, input: Input) -> Result<(), Fatal> {
        let Input::Client { id, .. } = &input else {
            unreachable!("a client asks")
        };
        let answer = format!("reply {} done", id.request);
        diary.lines.clear();
        diary.to_come.push_back(vec![input]);
        for _ in 0..50 {
            turn.run(diary)?;
            if diary.lines.contains(&answer) {
                return Ok(());
            }
        }
        panic!("no answer: {:#?}", diary.lines);
    }

    /// What was told to be done is there, and nothing that nobody asked for. What was open has taken effect now, or never.
    fn check(&mut self, turn: &Turn<SimDisk>) {
        for (key, number) in &self.done {
            let found = turn.machine().state().get(key.as_bytes()).map(|found| found.value);
            let may_be = |number: u64| found == Some(value(number));
            let is_open = self
                .open
                .as_ref()
                .is_some_and(|(open, number)| open == key && may_be(*number));
            assert!(may_be(*number) || is_open, "{key} was {number}, and is {found:?}");
        }
        if let Some((key, number)) = self.open.take()
            && turn.machine().state().get(key.as_bytes()).map(|found| found.value) == Some(value(number))
        {
            self.done.insert(key, number);
        }
    }
}

fn value(number: u64) -> Bytes {
    let mut value = format!("{number}:").into_bytes();
    value.resize(1500, b'.');
    value.into()
}

fn snapshots(disk: &SimDisk) -> Vec<Slot> {
    let names = disk.list().unwrap();
    names.iter().filter_map(|name| snapshot_of(name)).collect()
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".log"));
    names
}

#[test]
fn the_log_loses_its_beginning_behind_the_older_of_two_snapshots_and_a_start_needs_no_more() {
    let disk = SimDisk::new(1);
    let mut writer = Writer::default();
    assert!(writer.live(&disk, 120));
    disk.crash();
    assert_eq!(snapshots(&disk).len(), 2);
    let segments = segments(&disk);
    assert_ne!(segments[0], "wal-0000000001.log", "{segments:?}");
    assert!(segments.len() <= 10, "{segments:?}");
    assert!(writer.live(&disk, 1), "and it goes on");
}

#[test]
fn a_log_that_runs_for_long_is_written_over_files_that_are_spare_and_makes_and_removes_none() {
    let disk = SimDisk::new(4);
    let (mut turn, mut diary) = begin(&disk).unwrap();
    let mut writer = Writer::default();
    writer.work(&mut turn, &mut diary, 160).unwrap();
    disk.fail(DiskOp::Create, 1, Fault::Io);
    disk.fail(DiskOp::Remove, 1, Fault::Io);
    let (newest, used) = (snapshots(&disk).pop(), disk.used_bytes());
    writer.write(&mut turn, &mut diary, 160).unwrap();
    assert!(snapshots(&disk).pop() > newest, "more were taken");
    assert_eq!(disk.fired().len(), 0, "{:?}", disk.list());
    assert!(disk.used_bytes() <= used + used / 4, "{used}: {:?}", disk.list());
}

#[test]
fn a_crash_at_any_file_operation_of_snapshots_and_truncation_loses_nothing_acknowledged() {
    let whole = SimDisk::new(2);
    assert!(Writer::default().live(&whole, 90));
    let operations = whole.changes();
    for cut in (1..operations).step_by(7) {
        let disk = SimDisk::new(cut);
        let mut writer = Writer::default();
        disk.cut_power_after(cut);
        assert!(!writer.live(&disk, 90), "operation {cut} was cut");
        disk.crash();
        // The second life is cut, too, reading back and taking away what is of no use any more included.
        disk.cut_power_after(1 + cut % 40);
        writer.live(&disk, 8);
        disk.crash();
        assert!(writer.live(&disk, 40), "cut at {cut}");
    }
}

#[test]
fn a_damaged_newest_snapshot_is_named_and_set_aside_and_the_older_does() {
    let disk = SimDisk::new(3);
    let mut writer = Writer::default();
    assert!(writer.live(&disk, 120));
    disk.crash();
    let newest = *snapshots(&disk).last().unwrap();
    let name = snapshot_name(newest);
    assert!(disk.flip_bit(&name, 5000, 3));
    assert!(writer.live(&disk, 0));
    assert!(!snapshots(&disk).contains(&newest));
    assert!(disk.contents(&format!("{name}.damaged")).is_some());
}

#[test]
fn without_a_whole_snapshot_a_truncated_log_is_refused_and_left_as_it_is() {
    let disk = SimDisk::new(4);
    assert!(Writer::default().live(&disk, 120));
    disk.crash();
    for slot in snapshots(&disk) {
        assert!(disk.flip_bit(&snapshot_name(slot), 5000, 3));
    }
    let Err(Unusable::Directory(why)) = begin(&disk) else {
        panic!("it started");
    };
    assert!(matches!(why, OpenError::NoSnapshot { newest: None, .. }), "{why}");
    let words = why.to_string();
    assert!(
        words.contains("there is none that is whole") && words.contains("offset"),
        "{words}"
    );
    assert_eq!(snapshots(&disk).len(), 2);
}

#[test]
fn segments_that_were_taken_away_by_somebody_else_are_missed() {
    let disk = SimDisk::new(5);
    let (mut turn, mut diary) = begin(&disk).unwrap();
    Writer::default().work(&mut turn, &mut diary, 120).unwrap();
    while turn.snapshots.is_busy() {
        turn.run(&mut diary).unwrap();
    }
    drop(turn);
    disk.kill();
    disk.remove(&segments(&disk)[0]).unwrap();
    let first = segments(&disk)[0].clone();
    let Err(Unusable::Directory(why)) = begin(&disk) else {
        panic!("it started on {:?}", segments(&disk));
    };
    assert!(
        matches!(why, OpenError::Missing { .. } | OpenError::NoSnapshot { .. }),
        "{first}: {why}"
    );
}

/// A loop that has begun to write a snapshot by hand.
fn with_a_snapshot_under_way(disk: &SimDisk) -> (Turn<SimDisk>, Diary) {
    let (mut turn, mut diary) = begin(disk).unwrap();
    Writer::default().work(&mut turn, &mut diary, 3).unwrap();
    diary.lines.clear();
    diary.to_come.push_back(vec![Input::TakeSnapshot]);
    while !disk.list().unwrap().iter().any(|name| name.ends_with(".snap.tmp")) {
        turn.run(&mut diary).unwrap();
    }
    (turn, diary)
}

#[test]
fn without_room_for_it_a_snapshot_is_put_off_and_nothing_else_happens() {
    let disk = SimDisk::new(6);
    let (mut turn, mut diary) = with_a_snapshot_under_way(&disk);
    disk.fail(DiskOp::Write, 2, Fault::NoSpace); // the first is the log's
    turn.run(&mut diary).unwrap();
    assert!(
        diary.lines.iter().any(|line| line.contains("put off")),
        "{:#?}",
        diary.lines
    );
    turn.run(&mut diary).unwrap();
    assert!(snapshots(&disk).is_empty() && disk.list().unwrap().iter().all(|name| !name.ends_with(".tmp")));
    diary.to_come.push_back(vec![Input::TakeSnapshot]);
    let until = diary.now + Duration::from_secs(2);
    while diary.now < until {
        turn.run(&mut diary).unwrap();
    }
    assert_eq!(
        snapshots(&disk).len(),
        1,
        "with room again it is taken: {:#?}",
        diary.lines
    );
}

#[test]
fn a_snapshot_for_which_there_is_no_room_is_not_begun_to_be_fetched() {
    let disk = SimDisk::new(7);
    let (mut turn, mut diary) = begin(&disk).unwrap();
    Writer::default().work(&mut turn, &mut diary, 3).unwrap();
    let (slot, bytes) = (Slot(1_000), 20_000);
    let is_begun = || disk.list().unwrap().contains(&format!("{}.tmp", snapshot_name(slot)));
    disk.set_capacity(disk.used_bytes() + bytes);
    turn.install(diary.now, Effect::BeginInstall { slot, bytes }).unwrap();
    assert!(!is_begun(), "it would use the reserve");
    let is_told = |input: &Input| matches!(input, Input::InstallFailed { damaged: None, .. });
    assert!(turn.inputs.iter().any(is_told), "{:?}", turn.inputs);
    disk.set_capacity(u64::MAX);
    turn.install(diary.now, Effect::BeginInstall { slot, bytes }).unwrap();
    assert!(is_begun());
}

#[test]
fn any_other_failure_to_write_or_sync_or_name_a_snapshot_ends_the_process_and_names_the_file() {
    // The first write and the first sync are the log's.
    let first_of_snapshot = [
        (DiskOp::Write, 2),
        (DiskOp::Sync, 2),
        (DiskOp::Rename, 1),
        (DiskOp::SyncDirectory, 1),
    ];
    for (op, nth) in first_of_snapshot {
        let disk = SimDisk::new(7);
        let (mut turn, mut diary) = with_a_snapshot_under_way(&disk);
        disk.fail(op, nth, Fault::Io);
        let ended = (0..50).find_map(|_| turn.run(&mut diary).err());
        let Some(Fatal::Storage(error)) = ended else {
            panic!("{op:?}: {ended:?}");
        };
        let words = error.to_string();
        let names = if op == DiskOp::SyncDirectory {
            "sim"
        } else {
            ".snap.tmp"
        };
        assert!(words.contains(names), "{op:?}: {words}");
        drop(turn);
        disk.crash();
        assert!(Writer::default().live(&disk, 0), "{op:?}");
    }
}

#[test]
fn a_client_that_makes_a_backup_is_offered_a_snapshot_behind_its_slot_and_handed_its_pieces() {
    let disk = SimDisk::new(8);
    let (mut turn, mut diary) = begin(&disk).unwrap();
    Writer::default().work(&mut turn, &mut diary, 3).unwrap();
    let floor = turn.machine().state().applied();
    diary.lines.clear();
    let mut ask = |slot: Slot, offset, length| {
        let ask = Input::BackupAsk {
            connection: 5,
            slot,
            offset,
            length,
        };
        diary.to_come.push_back(vec![ask]);
        for _ in 0..50 {
            turn.run(&mut diary).unwrap();
        }
        let lines = diary.lines.iter().filter(|line| line.starts_with("hand"));
        let told = lines.cloned().collect::<Vec<String>>();
        diary.lines.clear();
        told
    };
    let nothing: [String; 0] = [];
    assert_eq!(
        ask(Slot(floor.0 + 1), OFFSET_OF_NO_BYTE, 1),
        nothing,
        "it has not applied that"
    );
    assert!(snapshots(&disk).is_empty(), "and takes none for it");
    assert_eq!(
        ask(floor, OFFSET_OF_NO_BYTE, 1),
        nothing,
        "there is none yet, so one is taken"
    );
    let bytes = disk.contents(&snapshot_name(floor)).expect("it was taken").len();
    let offer = format!("hand 5 SNAPSHOT_OFFER slot={floor} bytes={bytes}");
    assert_eq!(ask(floor, OFFSET_OF_NO_BYTE, 1), [offer.as_str()]);
    assert_eq!(
        ask(Slot(1), 0, 100),
        [offer.as_str()],
        "of a snapshot that is not kept, a later one"
    );
    let piece = format!("hand 5 SNAPSHOT_CHUNK slot={floor} offset=7 length=100");
    assert_eq!(ask(floor, 7, 100), [piece]);
}

#[test]
fn a_snapshot_of_a_founded_cluster_alone_is_no_beginning_of_another() {
    let disk = SimDisk::new(9);
    assert!(Writer::default().live(&disk, 40));
    assert!(!snapshots(&disk).is_empty());
    disk.crash();
    disk.remove("IDENTITY").unwrap();
    segments(&disk).iter().for_each(|name| disk.remove(name).unwrap());
    let Err(Unusable::Directory(why)) = begin(&disk) else {
        panic!("it started on {:?}", disk.list());
    };
    assert!(matches!(why, OpenError::StrayedSnapshot { .. }), "{why}");
    assert!(why.to_string().contains("synod restore"), "{why}");
}
