//! One turn of the loop: gather, decide, speak, sync, answer (`rules.md` 13). To gather is to take what came, to answer who
//! waits for it, and, where these are many, to take what they ask next.
//!
//! This file is all that stands between the pure machine and the world, and it is the same in the node and in a
//! simulator: sockets and clock are behind a [`Door`], files behind the storage's `Files`. Invariants:
//! * T1. What a turn appends is on disk before the machine hears of it, and before anything that claims it leaves:
//!   [`Input::Synced`] follows the sync, and only its effects claim durability.
//! * T2. Records made by `Synced` belong to the next turn, whose poll does not wait.
//! * T3. A failed write or sync ends the loop: nothing is stepped, written or sent after it.
//! * T4. The acceptor fails and restarts only between turns, with nothing unsynced (`rules.md` 14).
//! * T5. A deadline is judged only after everything was read that had come before it (`rules.md` 12): a node that was
//!   blocked, by its disk or by the scheduler, hears the signs of life that wait in its sockets first.
//! * T6. What is chosen is applied in the same turn. Who waits for it here is answered first, so that what they ask next is
//!   in this turn's batch, or, where clients do not wait for answers to ask, behind that batch and before the sync. Where
//!   nobody waits, this node syncs and votes first.
//!
//! Not here: what to do about any input (the machine), frames and handshakes (the door).

use super::door::Door;
use super::limits::FREE_SPACE_EVERY;
use super::ring::What;
use super::scrub::Scrubber;
use super::snapshots::{Asker, Hands, Snapshots};
use crate::kv::snapshot::Summary;
use crate::machine::{Effect, Input, Machine};
use crate::paxos::{Message, NodeId, Slot};
use crate::storage::scrub::{Finding, Pace};
use crate::storage::{Damage, Files, Storage, StorageError};
use crate::time::Time;
use crate::wire::{Frame, Record};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

/// Turns of sync and answer that are made at once so that an acceptor's failure or restart finds nothing unsynced. Each
/// is caused by the records of the one before, so more than a few in a row are only seen under load; then the failure
/// waits for the next turn.
const SETTLING_ROUNDS: usize = 4;
/// Times that a turn takes what has come while it answered: each brings those who were answered last, and puts off the
/// batch for all others.
const MORE_GATHERS_MAX: usize = 3;
/// Answers, or inputs of the time before, for which another is worth its poll: who is alone only waits for it.
const MANY: usize = 8;
/// Requests of each connection, on the mean, from which on clients do not wait for one answer before they ask anew.
const STREAM: usize = 4;
/// Beside the bodies of its entries, a record takes fewer bytes than this.
const RECORD_HEAD_BYTES: usize = 64;

/// A machine and its disk, turned by whoever owns the door.
pub struct Turn<F: Files> {
    machine: Machine,
    storage: Storage<F>,
    inputs: Vec<Input>,
    effects: Vec<Effect>,
    /// Records that the next append takes.
    records: Vec<Record>,
    /// Records appended in this life.
    appended: u64,
    /// What the machine wants read from the disk; done at the end of the turn, answered in the next.
    reads: Vec<Read>,
    /// Failures and restarts of the acceptor that wait for the end of a turn.
    held: VecDeque<Input>,
    /// Most bytes that the machine proposes of its own in one turn.
    proposal_bytes: u64,
    free_space_at: Time,
    /// Whether the machine was last told of less room than it may propose.
    is_short: bool,
    finished: bool,
    snapshots: Snapshots<F>,
    /// About when the last turn ended.
    ended: Time,
    /// Answers since this turn began to gather that nobody has counted yet.
    answered: usize,
    /// See [`MANY`].
    many: usize,
    /// Bytes of entries and more that this turn put behind the log.
    appended_bytes: u64,
    scrub: Scrubber<F>,
    /// Damage that was found otherwise.
    damage: Vec<Damage>,
}

/// A reading that the machine asked for.
enum Read {
    Chosen {
        to: NodeId,
        first: Slot,
        last: Slot,
        bytes_max: usize,
    },
    Reread {
        restart: bool,
    },
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Another one may follow.
    Go,
    /// The machine has finished what a shutdown asks for.
    Finished,
}

/// Why no further turn may follow. The process says so and ends, non-zero.
#[derive(Debug)]
pub enum Fatal {
    /// The disk failed, or no longer holds what was synced.
    Storage(StorageError),
    /// The poll failed.
    Poll(io::Error),
    /// The machine cannot go on.
    Halt(String),
}

impl<F: Files> Turn<F> {
    /// The loop around a machine that has recovered every record of `storage`, over the snapshot of which `newest` speaks,
    /// and was not started yet. Its leader proposes at most `proposal_bytes` in one turn (the window of its settings); a
    /// snapshot is taken when the log has grown by `snapshot_bytes`.
    ///
    /// # Errors
    /// [`StorageError::Failed`].
    pub fn new(
        machine: Machine,
        storage: Storage<F>,
        newest: Option<Summary>,
        proposal_bytes: u64,
        snapshot_bytes: u64,
    ) -> Result<Turn<F>, StorageError> {
        Ok(Turn {
            snapshots: Snapshots::new(snapshot_bytes, &storage, newest)?,
            ended: Time::ZERO,
            answered: 0,
            many: MANY,
            appended_bytes: 0,
            machine,
            storage,
            inputs: Vec::new(),
            effects: Vec::new(),
            records: Vec::new(),
            appended: 0,
            reads: Vec::new(),
            held: VecDeque::new(),
            proposal_bytes,
            free_space_at: Time::ZERO,
            is_short: false,
            finished: false,
            scrub: Scrubber::new(Pace {
                bytes_per_second: 0,
                ..Pace::default()
            }),
            damage: Vec::new(),
        })
    }

    /// The same with a scrub at this pace, and damage that was found at the start and outlived.
    #[must_use]
    pub fn scrubbing(mut self, pace: Pace, damage: Vec<Damage>) -> Turn<F> {
        (self.scrub, self.damage) = (Scrubber::new(pace), damage);
        self
    }

    /// Has a turn look again for what came once so many were answered, at least one: for worlds with few clients.
    pub fn look_again_from(&mut self, answers: usize) {
        self.many = answers.max(1);
    }

    /// The machine as the last turn left it.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Starts the machine; the first turn follows.
    ///
    /// # Errors
    /// [`Fatal`], as in a turn.
    pub fn start(&mut self, door: &mut impl Door) -> Result<(), Fatal> {
        let now = door.now();
        self.ended = now;
        self.scrub.start(now);
        self.machine.tell_scrub(self.scrub.view());
        self.machine.start(now, &mut self.effects);
        self.carry_out(now, door)
    }

    /// One turn.
    ///
    /// # Errors
    /// [`Fatal`]: the loop must end.
    pub fn run(&mut self, door: &mut impl Door) -> Result<Flow, Fatal> {
        let now = self.take_in(door)?;
        self.decide(now, door)?;
        door.flush(); // speak: messages that claim nothing about our disk
        if self.machine.is_waited_for() {
            self.apply(door)?; // while peers sync what they were just sent
        }
        self.sync(door)?;
        door.flush(); // answer: promises, votes, replies
        self.apply(door)?; // the rest, now that nobody waits for our sync
        self.settle(door)?;
        self.read()?;
        self.storage.prepare_ahead().map_err(Fatal::Storage)?;
        let now = self.advance_snapshots(door)?;
        self.ended = self.look_for_damage(now, door)?;
        assert!(
            !self.machine.has_to_apply(),
            "T6: a turn leaves what is chosen unapplied"
        );
        Ok(if self.finished { Flow::Finished } else { Flow::Go })
    }

    /// Syncs what the last turn left to the next one that does not come.
    ///
    /// # Errors
    /// [`Fatal`], as in a turn.
    pub fn finish(&mut self, door: &mut impl Door) -> Result<(), Fatal> {
        self.sync(door)
    }

    /// Gathers, and answers at once who waits for what came (T6). If these are many, what comes meanwhile, their next requests,
    /// joins this turn: its batch costs every node a message and a sync, whatever its size. Clients with many requests in
    /// flight send on whether they are answered or not: their batch is not put off.
    fn take_in(&mut self, door: &mut impl Door) -> Result<Time, Fatal> {
        let mut now = self.gather(door)?;
        let is_stream = is_stream(&self.inputs);
        self.heed(now, door)?;
        if is_stream {
            return Ok(now);
        }
        let mut to_expect = self.answer_at_once(door)?;
        for _ in 0..MORE_GATHERS_MAX {
            if to_expect < self.many {
                break;
            }
            now = self.gather_more(door)?;
            to_expect = self.inputs.len();
            self.heed(now, door)?;
        }
        Ok(now)
    }

    /// Waits until something comes in or the machine's deadline comes, and takes all that came.
    fn gather(&mut self, door: &mut impl Door) -> Result<Time, Fatal> {
        self.answered = 0; // those of the last turn have left
        let wait = self.wait(self.ended);
        let came = door.gather(&self.machine, wait, &mut self.inputs);
        came.map_err(Fatal::Poll)?;
        self.gathered(door)
    }

    /// Takes what has come meanwhile.
    fn gather_more(&mut self, door: &mut impl Door) -> Result<Time, Fatal> {
        let came = door.gather_more(&self.machine, &mut self.inputs);
        came.map_err(Fatal::Poll)?;
        self.gathered(door)
    }

    fn gathered(&mut self, door: &mut impl Door) -> Result<Time, Fatal> {
        let now = door.now();
        self.look_at_free_space(now)?;
        Ok(now)
    }

    /// Tells the machine the free space now and then, in every turn while it is short, and when it no longer is: the leader
    /// must stop to propose before the log cannot take what it proposed (`rules.md` 26). While the log's own segments can
    /// take all that this turn may propose, whatever the disk says, the disk need not be asked.
    fn look_at_free_space(&mut self, now: Time) -> Result<(), Fatal> {
        let needed = self.machine.proposable_bytes(&self.inputs) as u64 + self.waiting_bytes();
        if now < self.free_space_at && !self.is_short && 2 * needed <= self.storage.sure_bytes() {
            return Ok(());
        }
        let bytes = self.storage.free_bytes().map_err(Fatal::Storage)?;
        let bytes = bytes.saturating_sub(self.waiting_bytes());
        self.snapshots.tell_room(bytes >= 2 * self.machine.disk_reserve());
        let was_short = std::mem::replace(&mut self.is_short, bytes < 2 * self.proposal_bytes);
        if now >= self.free_space_at || was_short || self.is_short {
            self.free_space_at = now + FREE_SPACE_EVERY;
            self.inputs.insert(0, Input::FreeSpace { bytes });
        }
        Ok(())
    }

    /// Bytes of the records that the last turn left to this one's append.
    fn waiting_bytes(&self) -> u64 {
        let bytes = |record: &Record| record.body().map_or(0, |body| body.len()) + RECORD_HEAD_BYTES;
        self.records.iter().map(bytes).sum::<usize>() as u64
    }

    /// How long the poll of the next turn may wait: not at all while records, answers of the disk, the acceptor's failure
    /// (T2) or writes that can be proposed by now wait, or a snapshot is under way.
    pub fn wait(&self, now: Time) -> Option<Duration> {
        let has_work = !self.records.is_empty() || !self.inputs.is_empty() || !self.held.is_empty();
        if has_work || self.machine.has_writes_to_propose() || self.snapshots.is_busy() {
            return Some(Duration::ZERO);
        }
        let others = [self.scrub.next_at(), self.snapshots.repair_at(now)];
        let next = others.into_iter().chain([self.machine.deadline()]).flatten().min();
        next.map(|at| at.since(now))
    }

    /// One step an input.
    fn heed(&mut self, now: Time, door: &mut impl Door) -> Result<(), Fatal> {
        self.refuse_what_has_no_room()?;
        if self.machine.has_leases() {
            let clock = door.boottime();
            self.machine.step(now, Input::Clock { clock }, &mut self.effects);
        }
        let mut inputs = std::mem::take(&mut self.inputs);
        for input in inputs.drain(..) {
            match input {
                Input::AcceptorDown | Input::AcceptorUp => self.held.push_back(input),
                Input::TakeSnapshot => self.snapshots.ask(),
                Input::BackupAsk {
                    connection,
                    slot,
                    offset,
                    length,
                } => self.snapshots.serve(Asker::Client(connection), slot, offset, length),
                Input::Scrub => self.scrub.ask(now),
                _ => self.machine.step(now, input, &mut self.effects),
            }
        }
        self.inputs = inputs; // empty, with its memory
        self.carry_out(now, door)
    }

    /// Answers who waits for what came (T6); how many were answered.
    fn answer_at_once(&mut self, door: &mut impl Door) -> Result<usize, Fatal> {
        if self.machine.is_waited_for() && self.machine.has_to_apply() {
            self.apply(door)?; // and flushes
        } else if self.answered > 0 {
            door.flush();
        }
        Ok(std::mem::take(&mut self.answered))
    }

    /// The deadline, as all inputs left it (T5), and what this node says of its own: the turn's batch.
    fn decide(&mut self, now: Time, door: &mut impl Door) -> Result<(), Fatal> {
        if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
            self.machine.step(now, Input::Deadline, &mut self.effects);
        }
        self.machine.step(now, Input::Gathered, &mut self.effects);
        self.carry_out(now, door)
    }

    /// When the log cannot take this turn's entries, ACCEPTs and fetched entries are dropped as if they had been lost on
    /// the way (`rules.md` 26). What is left is for promises and used ballots.
    fn refuse_what_has_no_room(&mut self) -> Result<(), Fatal> {
        let waiting = self.waiting_bytes();
        let needed = self.inputs.iter().map(entry_bytes).sum::<usize>() + waiting as usize;
        if !self.storage.room_for(needed).map_err(Fatal::Storage)? {
            self.inputs.retain(|input| entry_bytes(input) == 0);
            // What the machine writes of its own, as a leader or of what promises show, must fit as well.
            let bytes = self.storage.sure_bytes().saturating_sub(waiting);
            let behind = matches!(self.inputs.first(), Some(Input::FreeSpace { .. }));
            self.inputs.insert(behind.into(), Input::FreeSpace { bytes });
        }
        Ok(())
    }

    /// One append and one sync of all that this turn wants on disk (T1); then what the machine makes of it, whose
    /// records wait for the next turn (T2).
    fn sync(&mut self, door: &mut impl Door) -> Result<(), Fatal> {
        if self.records.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.records);
        let began = door.now();
        door.before_sync(&records);
        self.storage.append(&records).map_err(Fatal::Storage)?;
        self.storage.sync().map_err(Fatal::Storage)?;
        self.appended += records.len() as u64;
        self.appended_bytes += records.iter().map(record_bytes).sum::<u64>();
        let now = door.now();
        let synced = What::Synced {
            records: records.len(),
            up_to: self.appended,
            took: now.since(began),
        };
        door.event(now, synced);
        let up_to = self.appended;
        self.machine.step(now, Input::Synced { up_to }, &mut self.effects);
        self.carry_out(now, door)
    }

    /// Applies what is chosen (T6) and answers whom that answers.
    fn apply(&mut self, door: &mut impl Door) -> Result<(), Fatal> {
        if !self.machine.has_to_apply() {
            return Ok(());
        }
        let now = door.now();
        self.machine.apply(now, &mut self.effects);
        self.carry_out(now, door)?;
        door.flush();
        Ok(())
    }

    /// Between turns, with nothing unsynced, the acceptor fails or restarts (T4).
    fn settle(&mut self, door: &mut impl Door) -> Result<(), Fatal> {
        for _ in 0..SETTLING_ROUNDS {
            if self.held.is_empty() {
                return Ok(());
            }
            if self.records.is_empty() {
                let now = door.now();
                for input in std::mem::take(&mut self.held) {
                    self.machine.step(now, input, &mut self.effects);
                }
                self.carry_out(now, door)?;
            } else {
                self.sync(door)?;
            }
            door.flush();
            self.apply(door)?;
        }
        Ok(())
    }

    /// Reads what the machine asked for; it gets the answers in the next turn.
    fn read(&mut self) -> Result<(), Fatal> {
        for read in std::mem::take(&mut self.reads) {
            let answer = match read {
                Read::Chosen {
                    to,
                    first,
                    last,
                    bytes_max,
                } => {
                    let entries = match self.storage.read_chosen(first, last, bytes_max) {
                        Ok(entries) => entries,
                        // Others have them too, and soon a snapshot stands for them here.
                        Err(StorageError::Damage(damage)) => {
                            self.damage.push(damage);
                            Vec::new()
                        }
                        Err(error) => return Err(Fatal::Storage(error)),
                    };
                    Input::ChosenRead { to, first, entries }
                }
                Read::Reread { restart } => {
                    let (records, more) = self.storage.reread(restart).map_err(Fatal::Storage)?;
                    Input::Reread { records, more }
                }
            };
            self.inputs.push(answer);
        }
        Ok(())
    }

    /// The next slice of a snapshot, or of making room for one. What it wants written belongs to the next turn.
    fn advance_snapshots(&mut self, door: &mut impl Door) -> Result<Time, Fatal> {
        let now = door.now();
        let was_busy = self.snapshots.is_busy();
        self.snapshots.step(Hands {
            now,
            appended: std::mem::take(&mut self.appended_bytes),
            storage: &mut self.storage,
            machine: &mut self.machine,
            inputs: &mut self.inputs,
            effects: &mut self.effects,
        })?;
        let mut ended = now;
        if was_busy || self.snapshots.is_busy() {
            ended = door.now();
            door.sliced(ended.since(now));
        }
        self.carry_out(now, door)?;
        Ok(ended)
    }

    /// What the machine wants of the snapshot that it fetches.
    fn install(&mut self, now: Time, effect: Effect) -> Result<(), Fatal> {
        let mut effects = Vec::new();
        let mut hands = Hands {
            now,
            appended: 0,
            storage: &mut self.storage,
            machine: &mut self.machine,
            inputs: &mut self.inputs,
            effects: &mut effects,
        };
        match effect {
            Effect::BeginInstall { slot, bytes } => self.snapshots.begin_install(slot, bytes, &mut hands)?,
            Effect::KeepChunk { slot, offset, bytes } => self.snapshots.keep_chunk(slot, offset, &bytes, &mut hands)?,
            Effect::LoadInstall { slot, content } => self.snapshots.load_install(slot, content),
            _ => self.snapshots.drop_install(&hands),
        }
        debug_assert!(effects.is_empty(), "files alone were touched");
        Ok(())
    }

    /// A slice of the scrub, if it is time; and what is to be done about damage, however it was found, is begun.
    fn look_for_damage(&mut self, now: Time, door: &mut impl Door) -> Result<Time, Fatal> {
        if !self.scrub.is_due(now) && self.damage.is_empty() {
            return Ok(now);
        }
        let kept = self.snapshots.kept_slots();
        let found = self.scrub.step(now, &self.storage, &kept)?;
        self.machine.tell_scrub(self.scrub.view());
        let others = std::mem::take(&mut self.damage).into_iter().filter_map(Finding::of);
        for finding in found.into_iter().chain(others) {
            let mut hands = Hands {
                now,
                appended: 0,
                storage: &mut self.storage,
                machine: &mut self.machine,
                inputs: &mut self.inputs,
                effects: &mut self.effects,
            };
            self.snapshots.heed_damage(finding, &mut hands)?;
        }
        self.carry_out(now, door)?;
        Ok(door.now())
    }

    /// Carries out effects in their order. Records are kept for the one append, readings for the end of the turn.
    fn carry_out(&mut self, now: Time, door: &mut impl Door) -> Result<(), Fatal> {
        if self.effects.is_empty() {
            return Ok(());
        }
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Append(record) => self.records.push(record),
                Effect::Send { to, message } => door.send(to, 0, Frame::Paxos(message)),
                Effect::SendRoster { to, founded, roster } => door.send(to, 0, Frame::Roster { founded, roster }),
                Effect::Forward { to, relay, request } => {
                    let principal = Vec::new();
                    door.send(to, relay, Frame::Forward { principal, request });
                }
                Effect::ForwardReply { to, relay, reply } => {
                    self.answered += 1;
                    door.send(to, relay, Frame::ForwardReply(reply));
                }
                Effect::Reply { id, reply } => {
                    self.answered += 1;
                    door.reply(id, reply);
                }
                Effect::ReadChosen {
                    to,
                    first,
                    last,
                    bytes_max,
                } => self.reads.push(Read::Chosen {
                    to,
                    first,
                    last,
                    bytes_max,
                }),
                Effect::Reread { restart } => {
                    // One that begins anew ends one under way: the acceptor must not take a later slice for its first.
                    self.reads
                        .retain(|read| !restart || !matches!(read, Read::Reread { .. }));
                    self.reads.push(Read::Reread { restart });
                }
                Effect::SendTransfer { to, transfer } => door.send(to, 0, Frame::Transfer(transfer)),
                Effect::HandTransfer { connection, transfer } => door.hand(connection, transfer),
                Effect::ReadChunk {
                    to,
                    slot,
                    offset,
                    length,
                } => self.snapshots.serve(Asker::Peer(to), slot, offset, length),
                Effect::BeginInstall { .. }
                | Effect::KeepChunk { .. }
                | Effect::LoadInstall { .. }
                | Effect::DropInstall => self.install(now, effect)?,
                Effect::Refuse { peer, code, detail } => door.refuse(peer, code, &detail),
                Effect::Note(note) => door.event(now, What::Note(note)),
                Effect::Halt { reason } => return Err(Fatal::Halt(reason)),
                Effect::Finished => self.finished = true,
            }
        }
        self.effects = effects; // empty, with its memory
        Ok(())
    }
}

/// Whether the clients among these have many requests in flight each.
fn is_stream(inputs: &[Input]) -> bool {
    let asked = inputs.iter().filter_map(|input| match input {
        Input::Client { id, .. } => Some(id.connection),
        _ => None,
    });
    let (mut requests, mut connections, mut last) = (0, 0, None);
    for connection in asked {
        requests += 1;
        // What one connection brought stands together.
        connections += usize::from(last.replace(connection) != Some(connection));
    }
    requests > 0 && requests >= STREAM * connections
}

/// About the bytes that a record takes in the log.
fn record_bytes(record: &Record) -> u64 {
    (record.body().map_or(0, |body| body.len()) + RECORD_HEAD_BYTES) as u64
}

/// Bytes that stepping `input` may append to the log, beside what is always small; 0 for what carries no entries.
fn entry_bytes(input: &Input) -> usize {
    match input {
        Input::Paxos { message, .. } => match message {
            Message::Accept { entry, .. } => entry.body.len() + RECORD_HEAD_BYTES,
            Message::Chosen { entries, .. } => entries.iter().map(|entry| entry.body.len() + RECORD_HEAD_BYTES).sum(),
            Message::RecoverAnswer(answer) => {
                let shown = answer.promise.accepted.iter();
                shown.map(|shown| shown.entry.body.len() + RECORD_HEAD_BYTES).sum()
            }
            _ => 0,
        },
        _ => 0,
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fatal::Storage(error) => write!(f, "the log cannot go on: {error}"),
            Fatal::Poll(error) => write!(f, "the system's poll failed: {error}"),
            Fatal::Halt(reason) => write!(f, "stopped rather than be wrong: {reason}"),
        }
    }
}

impl std::error::Error for Fatal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Fatal::Storage(error) => Some(error),
            Fatal::Poll(error) => Some(error),
            Fatal::Halt(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
