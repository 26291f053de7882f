//! The turn over a simulated disk and a door that only writes down what it is told.

mod snapshots;

use super::*;
use crate::kv::{Answer, Done, Op, SessionRef};
use crate::machine::{RequestId, Settings};
use crate::paxos::{Ballot, LogTime};
use crate::storage::Options;
use crate::storage::sim::{Fault, Op as DiskOp, SimDisk};
use crate::time::Boottime;
use crate::wire::message::ErrorCode;
use crate::wire::{Outcome, Reply, Request, RequestOp, Served, Transfer, body};
use bytes::Bytes;
use std::collections::VecDeque;

mod disk_faults;

/// Hands out one list of inputs a gather, and keeps a diary.
#[derive(Default)]
struct Diary {
    now: Time,
    to_come: VecDeque<Vec<Input>>,
    /// What comes while a turn answers, each time that it looks.
    meanwhile: VecDeque<Vec<Input>>,
    lines: Vec<String>,
    /// The slot that opened the last session.
    opened: Slot,
    waits: Vec<Option<Duration>>,
}

impl Door for Diary {
    fn now(&mut self) -> Time {
        self.now = self.now + Duration::from_micros(10);
        self.now
    }

    fn boottime(&mut self) -> Boottime {
        Boottime(self.now.0)
    }

    fn gather(&mut self, _: &Machine, wait: Option<Duration>, inputs: &mut Vec<Input>) -> io::Result<()> {
        self.waits.push(wait);
        let next = self.to_come.pop_front().unwrap_or_default();
        if next.is_empty() {
            self.now = self.now + wait.unwrap_or(Duration::from_millis(1));
        }
        inputs.extend(next);
        Ok(())
    }

    fn gather_more(&mut self, _: &Machine, inputs: &mut Vec<Input>) -> io::Result<()> {
        self.lines.push("more".into());
        inputs.extend(self.meanwhile.pop_front().unwrap_or_default());
        Ok(())
    }

    fn send(&mut self, to: NodeId, _: u64, frame: Frame) {
        self.lines.push(format!("send {to} {}", frame.name()));
    }

    fn reply(&mut self, id: RequestId, reply: Reply) {
        let class = match reply.outcome {
            Outcome::Done(Served::Done(Done {
                answer: Answer::Opened { opened },
                ..
            })) => {
                self.opened = opened;
                "done".to_string()
            }
            Outcome::Done(_) => "done".to_string(),
            Outcome::NotDone { code, .. } => format!("not done: {}", code.name()),
            Outcome::Unknown { code } => format!("unknown: {}", code.name()),
        };
        self.lines.push(format!("reply {} {class}", id.request));
    }

    fn hand(&mut self, connection: u64, transfer: Transfer) {
        self.lines.push(format!("hand {connection} {transfer}"));
    }

    fn refuse(&mut self, peer: NodeId, code: ErrorCode, _: &str) {
        self.lines.push(format!("refuse {peer} {code}"));
    }

    fn flush(&mut self) {}

    fn sliced(&mut self, _: Duration) {}

    fn before_sync(&mut self, _: &[Record]) {
        self.lines.push("sync".into());
    }

    fn event(&mut self, _: Time, what: What) {
        match what {
            What::Synced { .. } => self.lines.push("synced".into()),
            What::Note(note) => self.lines.push(format!("note {note}")),
            _ => {}
        }
    }
}

/// A cluster of one, with its disk in the test's hand.
fn one_node(disk: &SimDisk) -> (Turn<SimDisk>, Diary) {
    node(disk, NodeId(1), vec![NodeId(1)], None)
}

/// A node of these, with its disk in the test's hand, that knows this besides.
fn node(disk: &SimDisk, id: NodeId, nodes: Vec<NodeId>, known: Option<Record>) -> (Turn<SimDisk>, Diary) {
    let options = Options {
        segment_bytes: 4 << 20,
        ..Options::new(id, "test", 7)
    };
    let (mut storage, identity) = Storage::open(disk.clone(), &options).unwrap();
    let settings = Settings {
        incarnation: identity.incarnation,
        start: identity.start(),
        past_starts: identity.past_starts().to_vec(),
        cluster_name: "test".into(),
        disk_reserve: 1 << 20,
        ..Settings::new(id, nodes)
    };
    let proposal_bytes = settings.window_bytes as u64;
    let mut machine = Machine::new(settings);
    storage.recover(|record| machine.recover(record).unwrap()).unwrap();
    known.into_iter().for_each(|record| machine.recover(record).unwrap());
    let mut turn = Turn::new(machine, storage, None, proposal_bytes, 64 << 20).unwrap();
    let mut diary = Diary::default();
    turn.start(&mut diary).unwrap();
    (turn, diary)
}

/// The same once it leads.
fn one_leader(disk: &SimDisk) -> (Turn<SimDisk>, Diary) {
    let (mut turn, mut diary) = one_node(disk);
    let now = |diary: &Diary| diary.now;
    while turn.machine().status(now(&diary)).role != "leader" || !turn.records.is_empty() {
        turn.run(&mut diary).unwrap();
        assert!(diary.now < Time::from_millis(5000), "no leader: {:#?}", diary.lines);
    }
    diary.lines.clear();
    (turn, diary)
}

fn open(request: u64) -> Input {
    let session = SessionRef {
        id: u128::from(request),
        opened: Slot::ZERO,
    };
    from_client(request, session, 0, RequestOp::Write(Op::Open))
}

/// What a client asks: `number` in its session, and nothing before it still open.
fn from_client(request: u64, session: SessionRef, number: u64, op: RequestOp) -> Input {
    Input::Client {
        id: RequestId { connection: 1, request },
        request: Request {
            deadline_ms: 1000,
            session,
            number,
            low: number,
            op,
        },
    }
}

/// A read of this node's own state once it has applied a slot.
fn stale_read(request: u64, at_least: Slot) -> Input {
    let session = SessionRef { id: 0, opened: Slot(0) };
    let key = Bytes::from_static(b"k");
    from_client(request, session, 0, RequestOp::GetStale { key, at_least })
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> RequestOp {
    RequestOp::Write(Op::Put {
        key: key.into(),
        value: value.into(),
        if_absent: false,
        want_previous: false,
    })
}

#[test]
fn what_claims_durability_leaves_after_the_sync() {
    let disk = SimDisk::new(1);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.to_come.push_back(vec![open(1), open(2)]);
    turn.run(&mut diary).unwrap();
    assert_eq!(
        diary.lines,
        ["sync", "synced", "reply 1 done", "reply 2 done"],
        "one batch, one sync"
    );
}

#[test]
fn after_a_failed_sync_nothing_leaves() {
    let disk = SimDisk::new(2);
    let (mut turn, mut diary) = one_leader(&disk);
    disk.fail(DiskOp::Sync, 1, Fault::Io);
    diary.to_come.push_back(vec![open(1)]);
    let error = turn.run(&mut diary).unwrap_err();
    assert!(matches!(error, Fatal::Storage(_)), "{error}");
    assert_eq!(diary.lines, ["sync"], "neither an answer nor a vote");
}

#[test]
fn records_that_a_turn_leaves_belong_to_the_next_one_which_does_not_wait() {
    let disk = SimDisk::new(3);
    let (mut turn, mut diary) = one_leader(&disk);
    let appended = turn.appended;
    // A record of our own, which the machine must not hear of.
    turn.appended -= 1;
    turn.records.push(Record::ChosenUpto(Slot::ZERO));
    turn.run(&mut diary).unwrap();
    assert_eq!(diary.waits.last(), Some(&Some(Duration::ZERO)));
    assert_eq!((turn.appended, turn.records.len()), (appended, 0));
    turn.run(&mut diary).unwrap();
    assert_ne!(diary.waits.last(), Some(&Some(Duration::ZERO)), "an idle loop waits");
}

/// Node 2 of three, founded and led by node 1, which proposed slot 1 and then says in its next ACCEPT that it is chosen.
fn follower_that_hears_of_a_chosen_slot(disk: &SimDisk) -> (Turn<SimDisk>, Diary) {
    let nodes = (1..=3).map(NodeId).collect();
    let (mut turn, mut diary) = node(disk, NodeId(2), nodes, Some(Record::Founded));
    let config = turn.machine().replica().membership().number;
    let accept = |slot, chosen_upto| Input::Paxos {
        from: NodeId(1),
        message: Message::Accept {
            ballot: Ballot {
                round: 1,
                node: NodeId(1),
            },
            config,
            slot: Slot(slot),
            chosen_upto: Slot(chosen_upto),
            entry: body::batch(LogTime(slot), &[]),
        },
    };
    diary.to_come.push_back(vec![accept(1, 0)]);
    turn.run(&mut diary).unwrap();
    diary.lines.clear();
    diary.to_come.push_back(vec![accept(2, 1)]);
    (turn, diary)
}

#[test]
fn a_follower_votes_before_it_applies_and_applies_before_the_turn_ends() {
    let disk = SimDisk::new(7);
    let (mut turn, mut diary) = follower_that_hears_of_a_chosen_slot(&disk);
    turn.run(&mut diary).unwrap();
    assert_eq!(diary.lines, ["sync", "synced", "send n1 ACCEPTED"]);
    assert_eq!(turn.machine().state().applied(), Slot(1));

    // A sync that fails ends the turn: the apply is behind it.
    let disk = SimDisk::new(8);
    let (mut turn, mut diary) = follower_that_hears_of_a_chosen_slot(&disk);
    disk.fail(DiskOp::Sync, 1, Fault::Io);
    turn.run(&mut diary).unwrap_err();
    assert_eq!(turn.machine().state().applied(), Slot(0));
}

#[test]
fn who_waits_for_a_chosen_slot_is_answered_before_the_sync() {
    let disk = SimDisk::new(9);
    let (mut turn, mut diary) = follower_that_hears_of_a_chosen_slot(&disk);
    diary.to_come.push_front(vec![stale_read(5, Slot(1))]);
    turn.run(&mut diary).unwrap();
    assert!(diary.lines.is_empty(), "it waits: {:?}", diary.lines);
    turn.run(&mut diary).unwrap();
    assert_eq!(diary.lines, ["reply 5 done", "sync", "synced", "send n1 ACCEPTED"]);
}

/// So many clients ask for what is answered at once.
fn many_stale_reads() -> Vec<Input> {
    let mut reads: Vec<Input> = (100..100 + MANY as u64)
        .map(|request| stale_read(request, Slot::ZERO))
        .collect();
    for (read, connection) in reads.iter_mut().zip(2..) {
        let Input::Client { id, .. } = read else {
            unreachable!("a read")
        };
        id.connection = connection;
    }
    reads
}

#[test]
fn clients_with_many_requests_in_flight_are_known_by_what_they_bring() {
    let of = |connection: u64, requests: usize| {
        (1..=requests as u64).map(move |request| {
            let session = SessionRef { id: 0, opened: Slot(0) };
            let mut input = from_client(request, session, 0, RequestOp::Status);
            if let Input::Client { id, .. } = &mut input {
                id.connection = connection;
            }
            input
        })
    };
    // requests of each connection, whether they are a stream
    let table: [(&[usize], bool); 6] = [
        (&[], false),
        (&[1, 1, 1, 1, 1, 1, 1], false),
        (&[STREAM - 1], false),
        (&[STREAM], true),
        (&[2 * STREAM, 1], true),
        (&[2 * STREAM - 2, 1], false),
    ];
    for (requests, is_one) in table {
        let each = requests
            .iter()
            .zip(1..)
            .flat_map(|(requests, connection)| of(connection, *requests));
        let inputs: Vec<Input> = std::iter::once(Input::Shutdown).chain(each).collect();
        assert_eq!(is_stream(&inputs), is_one, "{requests:?}");
    }
}

#[test]
fn what_the_answered_ask_next_joins_the_turn() {
    let disk = SimDisk::new(10);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.lines.clear();
    diary.to_come.push_back([many_stale_reads(), vec![open(1)]].concat());
    diary.meanwhile.push_back(vec![open(2)]);
    turn.run(&mut diary).unwrap();
    let both = ["more", "sync", "synced", "reply 1 done", "reply 2 done"];
    assert_eq!(
        diary.lines[MANY..],
        both,
        "the reads are answered, and one sync serves both writes"
    );

    // Few who were answered are not waited for by others: the turn looks once.
    diary.lines.clear();
    diary.to_come.push_back(vec![stale_read(3, Slot::ZERO), open(4)]);
    turn.run(&mut diary).unwrap();
    assert_eq!(diary.lines, ["reply 3 done", "sync", "synced", "reply 4 done"]);
}

#[test]
fn a_turn_ends_however_much_comes_while_it_answers() {
    let disk = SimDisk::new(11);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.lines.clear();
    diary.to_come.push_back(many_stale_reads());
    diary.meanwhile.extend((0..10).map(|_| many_stale_reads()));
    turn.run(&mut diary).unwrap();
    let looks = diary.lines.iter().filter(|line| *line == "more").count();
    assert_eq!(looks, MORE_GATHERS_MAX);
    assert_eq!(
        diary.lines.len() - looks,
        (1 + MORE_GATHERS_MAX) * MANY,
        "each is answered"
    );
}

#[test]
fn the_acceptor_fails_between_turns_and_comes_back_from_the_disk() {
    let disk = SimDisk::new(4);
    let (mut turn, mut diary) = one_leader(&disk);
    let promised = turn.machine().status(diary.now).promised;
    diary.to_come.push_back(vec![Input::AcceptorDown, open(1)]);
    turn.run(&mut diary).unwrap();
    let synced = diary.lines.iter().position(|line| line == "reply 1 done");
    assert!(
        synced.is_some(),
        "the turn's write was finished first: {:#?}",
        diary.lines
    );
    while turn.machine().status(diary.now).acceptor_up {
        turn.run(&mut diary).unwrap();
    }
    assert!(turn.records.is_empty(), "T4: it failed with something unsynced");

    diary.to_come.push_back(vec![Input::AcceptorUp]);
    for _ in 0..100 {
        turn.run(&mut diary).unwrap();
    }
    let status = turn.machine().status(diary.now);
    assert!(status.acceptor_up && status.promised >= promised, "{status:?}");
}

/// An acceptor that took a later slice of its log for the first one would have forgotten what it promised before.
#[test]
fn an_acceptor_that_fails_while_it_rereads_begins_anew() {
    let disk = SimDisk::new(6);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.to_come.push_back(vec![open(1)]);
    let session = SessionRef { id: 1, opened: Slot(1) };
    let write = |number| from_client(number, session, number, put("key", vec![b'v'; 1 << 20]));
    diary.to_come.extend((1..=3).map(|number| vec![write(number)]));
    for _ in 0..4 {
        turn.run(&mut diary).unwrap();
    }
    let slices = |turn: &Turn<SimDisk>| -> Vec<(usize, bool)> {
        let slice = |input: &Input| match input {
            Input::Reread { records, more } => Some((records.len(), *more)),
            _ => None,
        };
        turn.inputs.iter().filter_map(slice).collect()
    };
    diary
        .to_come
        .extend([vec![Input::AcceptorDown], vec![Input::AcceptorUp]]);
    while slices(&turn).is_empty() {
        turn.run(&mut diary).unwrap();
    }
    let first = slices(&turn);
    assert!(first[0].1, "the log is too short for this test: {first:?}");
    // It asks for the next slice, and fails and restarts before it has come.
    diary.to_come.push_back(vec![Input::AcceptorDown, Input::AcceptorUp]);
    turn.run(&mut diary).unwrap();
    assert_eq!(slices(&turn), first, "one slice, from the beginning");
    for _ in 0..20 {
        turn.run(&mut diary).unwrap();
    }
    assert!(turn.machine().status(diary.now).acceptor_up, "{:#?}", diary.lines);
}

#[test]
fn what_was_answered_survives_the_crash_of_the_machine() {
    let disk = SimDisk::new(5);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.to_come.push_back(vec![open(1)]);
    turn.run(&mut diary).unwrap();
    assert!(diary.lines.contains(&"reply 1 done".to_string()));
    drop(turn);
    disk.crash();
    let (turn, diary) = one_leader(&disk);
    assert_eq!(turn.machine().status(diary.now).sessions, 1);
}

/// The outcome of one request of session 1, after the turns that it takes.
fn ask(turn: &mut Turn<SimDisk>, diary: &mut Diary, number: u64, op: RequestOp) -> String {
    try_ask(turn, diary, number, op).unwrap_or_else(|fatal| panic!("request {number}: {fatal}"))
}

/// The same of a node that may end meanwhile.
fn try_ask(turn: &mut Turn<SimDisk>, diary: &mut Diary, number: u64, op: RequestOp) -> Result<String, Fatal> {
    let session = SessionRef {
        id: 1,
        opened: diary.opened,
    };
    diary.lines.clear();
    diary.to_come.push_back(vec![from_client(number, session, number, op)]);
    for _ in 0..100 {
        turn.run(diary)?;
        if let Some(line) = diary.lines.iter().find(|line| line.starts_with("reply")) {
            let class = line.rsplit_once(' ').map_or("", |(_, class)| class);
            return Ok(class.into());
        }
    }
    panic!("request {number} is not answered: {:#?}", diary.lines);
}

#[test]
fn on_a_full_disk_writes_are_refused_before_they_are_proposed_and_all_else_goes_on_until_there_is_room() {
    let disk = SimDisk::new(9);
    let (mut turn, mut diary) = one_leader(&disk);
    diary.to_come.push_back(vec![open(1)]);
    turn.run(&mut diary).unwrap();
    disk.set_capacity(disk.used_bytes());
    let put = |number: u64| put(number.to_string(), vec![7; 200_000]);
    let del = |number: u64| {
        RequestOp::Write(Op::Del {
            key: number.to_string().into(),
            want_previous: false,
        })
    };
    // What fits is done, what does not is refused for certain; nothing is ever left in between, and the node lives.
    let puts: Vec<String> = (1..40)
        .map(|number| ask(&mut turn, &mut diary, number, put(number)))
        .collect();
    let done = puts.iter().take_while(|class| *class == "done").count();
    assert!((5..39).contains(&done), "{puts:?}");
    assert!(puts[done..].iter().all(|class| class == "no_space"), "{puts:?}");
    let dels: Vec<String> = (40..60)
        .map(|number| ask(&mut turn, &mut diary, number, del(number - 39)))
        .collect();
    assert!(
        dels.iter().all(|class| class == "done"),
        "deletes use the reserve: {dels:?}"
    );
    let get = |key: &str| RequestOp::Get {
        key: key.to_owned().into(),
    };
    assert_eq!(ask(&mut turn, &mut diary, 60, get("19")), "done", "reads need no room");
    // The deletes themselves use the reserve up, but for what votes need.
    let dels = (61..20_000).map(|number| ask(&mut turn, &mut diary, number, del(number)));
    let last = dels.enumerate().find(|(_, class)| class != "done");
    assert_eq!(last.as_ref().map(|(_, class)| class.as_str()), Some("no_space"));
    assert_eq!(ask(&mut turn, &mut diary, 20_001, get("1")), "done");
    disk.set_capacity(u64::MAX);
    assert_eq!(
        ask(&mut turn, &mut diary, 20_002, put(1)),
        "done",
        "room is used at once"
    );
    // Nothing that was acknowledged is lost.
    drop(turn);
    disk.crash();
    let (turn, _) = one_leader(&disk);
    assert_eq!(
        turn.machine().state().get(b"1").map(|found| found.value.len()),
        Some(200_000)
    );
}
