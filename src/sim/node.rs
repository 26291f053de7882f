//! One node of a simulated cluster: its disk and its clock, which outlive its process, and its process while it lives.

#[cfg(test)]
mod tests;

use super::amnesia::OldCopy;
use super::clock::Clock;
use super::door::{Shared, SimDoor};
use super::network::End;
use super::report::Violation;
use super::words;
use crate::machine::{Machine, Settings};
use crate::node::open::{self, Reading, Unusable};
use crate::node::turn::{Fatal, Flow, Turn};
use crate::paxos::{NodeId, Start};
use crate::storage::scrub::Pace;
use crate::storage::sim::{Fault as DiskFault, Op as DiskOp, SimDisk};
use crate::storage::{OpenError, Options, StorageError};
use crate::time::Time;
use crate::wire::{Record, hello};
use fastrand::Rng;
use std::fmt;
use std::time::Duration;

/// One life in so many is started without `--read-lease`.
const LIVES_WITHOUT_THE_OPTION: u64 = 8;

/// What builds can do: the newest, and those before it.
const BUILDS: [u64; 4] = [
    hello::FEATURES,
    hello::FEATURES & !hello::FEATURE_ANSWERS,
    hello::FEATURES & !hello::FEATURE_READ_POSITIONS,
    hello::FEATURES & !hello::FEATURE_ANSWERS & !hello::FEATURE_READ_POSITIONS,
];

/// One node.
pub struct SimNode {
    /// Its id; its place is one less.
    pub id: NodeId,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: Clock,
    /// The one that counts suspension.
    pub boottime: Clock,
    /// Whether an earlier life knew the cluster as founded.
    pub was_founded: bool,
    /// Shortest and longest time that a sync takes, microseconds.
    pub sync_us: (u64, u64),
    /// Its process, if it runs.
    pub life: Option<Life>,
    /// Whether its machine has power: if not, nobody even refuses a dial.
    pub has_power: bool,
    /// Whether its disk is full at present.
    pub is_full: bool,
    /// Its present start, or the last.
    pub start: Start,
    /// A copy of its directory.
    pub copy: Option<OldCopy>,
    /// A bit that was flipped in one of its files, and is so still.
    pub rot: Option<Rot>,
    /// The next end within a file operation is the process's, not the power's.
    pub is_killed_in_operation: bool,
    /// When it next fetches a snapshot, it ends within the file operation of this number behind that.
    pub ends_in_install: Option<u64>,
    /// Until when the turn under way lasts.
    pub busy_until: Time,
    /// Until when the process stands still.
    pub paused_until: Time,
    /// When it is to be woken next.
    pub wake_at: Option<Time>,
    settings: Settings,
    /// Size of the segments of its log.
    pub segment_bytes: u32,
    /// Growth of its log between two snapshots.
    pub snapshot_bytes: u64,
    pace: Pace,
    /// Failed syncs and writes of its disk before this life.
    failed_before: (u64, u64),
}

/// A flipped bit.
#[derive(Clone, Debug)]
pub struct Rot {
    /// In which file.
    pub name: String,
    /// Where in it.
    pub offset: usize,
    /// The byte that it made.
    pub byte: u8,
    /// Passes of the scrub in this life before it, or before the node told of it last: what it has told of is repaired, and
    /// gone, within as many passes as it took to be found.
    pub passes: u64,
}

/// The process of a node.
pub struct Life {
    /// The loop around its machine.
    pub turn: Turn<SimDisk>,
    /// Its side of the world.
    pub door: SimDoor,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It was killed, or ended itself: the page cache lives on, and its connections close.
    Killed,
    /// The power failed: its connections fall silent.
    PowerLost,
}

/// Why a turn, or a start, came to an end that no violation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The power failed during a file operation.
    PowerCut,
    /// The process was killed during a file operation.
    KilledInOperation,
    /// A write failed.
    WriteFailed,
    /// A sync failed.
    SyncFailed,
    /// The disk is full, down to the reserve.
    NoSpace,
    /// The log is damaged.
    Damaged,
    /// It was told to end.
    Finished,
}

impl SimNode {
    /// A node that was never started, with the sizes of its segments and of the log between two snapshots, and the pace of
    /// its scrub.
    pub fn new(
        settings: Settings,
        (segment_bytes, snapshot_bytes, pace): (u32, u64, Pace),
        (clock, boottime): (Clock, Clock),
        disk: SimDisk,
    ) -> SimNode {
        SimNode {
            id: settings.node,
            disk,
            clock,
            boottime,
            was_founded: false,
            sync_us: (50, 300),
            life: None,
            has_power: true,
            is_full: false,
            start: Start::default(),
            copy: None,
            rot: None,
            is_killed_in_operation: false,
            ends_in_install: None,
            busy_until: Time::ZERO,
            paused_until: Time::ZERO,
            wake_at: None,
            settings,
            segment_bytes,
            snapshot_bytes,
            pace,
            failed_before: (0, 0),
        }
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Its machine, while it runs.
    pub fn machine(&self) -> Option<&Machine> {
        self.life.as_ref().map(|life| life.turn.machine())
    }

    /// Whether it would answer now.
    pub fn is_responsive(&self, now: Time) -> bool {
        self.is_up() && self.paused_until <= now
    }

    /// The next lives are of another build, with these feature bits.
    pub fn change_build(&mut self, rng: &mut Rng) -> u64 {
        let others: Vec<u64> = BUILDS
            .into_iter()
            .filter(|features| *features != self.settings.features)
            .collect();
        self.settings.features = others[rng.usize(0..others.len())];
        self.settings.features
    }

    /// Starts the process on what the disk holds.
    ///
    /// # Errors
    /// What was durable is gone, or the node refuses a disk that is well.
    pub fn start(&mut self, now: Time, seed: u64, shared: &Shared) -> Result<Option<Ending>, Violation> {
        let options = Options {
            segment_bytes: self.segment_bytes,
            snapshot_bytes: self.snapshot_bytes,
            scrub: self.pace,
            ..Options::new(self.id, self.settings.cluster_name.clone(), seed)
        };
        let settings = Settings {
            seed,
            read_lease: self.read_lease(seed),
            ..self.settings.clone()
        };
        self.failed_before = (self.failures(DiskOp::Sync), self.failures(DiskOp::Write));
        let mut records = Vec::new();
        let opened = open::open(self.disk.clone(), &options, settings, |reading| match reading {
            Reading::Record(record) => records.push(record.clone()),
            Reading::MemoryLost => records.clear(),
        });
        let turn = match opened {
            Ok((turn, identity)) => {
                self.start = identity.start();
                self.judge_new_log(&records, shared)?;
                self.find_rot_healed();
                if let Some(rot) = &mut self.rot {
                    rot.passes = 0; // and it does without what rotted, for the time being
                }
                turn
            }
            Err(why) => return self.refuses_to_start(&why).map(Some),
        };
        let found = || words::recovered(&records);
        if records.is_empty() && !shared.checks.borrow().has_forgotten(self.id) {
            shared.transcript.detail(now, End::of(self.id), || Some(found()));
        } else {
            shared.transcript.event(now, End::of(self.id), found);
        }
        let base = turn.machine().restored();
        let judged = shared.checks.borrow_mut().recovers(self.id, base, &records);
        shared.checks.borrow().judge(judged)?;
        let others: Vec<NodeId> = self
            .settings
            .nodes
            .iter()
            .copied()
            .filter(|id| *id != self.id)
            .collect();
        let (clock, disk) = (self.clock, self.disk.clone());
        let mut life = Life {
            turn,
            door: SimDoor::new(self.id, &others, now, clock, disk, seed, shared.clone()),
        };
        life.door.boottime = self.boottime;
        life.door.features = self.settings.features;
        // As a node reads from a connection in one turn far less than a segment takes.
        life.door.read_bytes = self.segment_bytes as usize / 4;
        life.turn.look_again_from(1);
        let started = life.turn.start(&mut life.door);
        self.life = Some(life);
        self.busy_until = now;
        self.paused_until = now;
        self.wake_at = None;
        match started {
            Ok(()) => Ok(None),
            Err(fatal) => self.ending_of(&fatal).map(Some),
        }
    }

    /// One turn, at `now`.
    ///
    /// # Errors
    /// It ended by what is no fault of the world.
    pub fn run_turn(&mut self, now: Time) -> Result<Option<Ending>, Violation> {
        let Some(life) = &mut self.life else { return Ok(None) };
        life.door.now = now;
        life.door.clock = self.clock;
        life.door.boottime = self.boottime;
        life.door.sync_us = self.sync_us;
        let ran = life.turn.run(&mut life.door);
        let told = std::mem::take(&mut life.door.told_of);
        if let Some(rot) = &mut self.rot
            && told.iter().any(|file| file.ends_with(&rot.name))
        {
            rot.passes = life.turn.machine().scrub().passes;
        }
        let ended = match ran {
            Ok(Flow::Go) => None,
            Ok(Flow::Finished) => match life.turn.finish(&mut life.door) {
                Ok(()) => Some(Ok(Ending::Finished)),
                Err(fatal) => Some(Err(fatal)),
            },
            Err(fatal) => Some(Err(fatal)),
        };
        self.busy_until = life.door.now;
        self.was_founded |= life.turn.machine().is_founded();
        match ended {
            None => Ok(None),
            Some(Ok(ending)) => Ok(Some(ending)),
            Some(Err(fatal)) => self.ending_of(&fatal).map(Some),
        }
    }

    /// Now and then a later life is started without the option: it must keep what the cluster was founded with.
    fn read_lease(&self, seed: u64) -> Duration {
        if self.was_founded && seed.is_multiple_of(LIVES_WITHOUT_THE_OPTION) {
            return Duration::ZERO;
        }
        self.settings.read_lease
    }

    /// When the next turn is due, whatever comes in.
    pub fn next_turn(&self) -> Option<Time> {
        let life = self.life.as_ref()?;
        let end = self.busy_until;
        if life.door.has_arrivals() {
            return Some(end);
        }
        let local = self.clock.at(end);
        let own = life.turn.wait(local).map(|wait| match wait.as_nanos() {
            0 => end,
            _ => self.clock.when(local + wait),
        });
        let next = [own, life.door.dials_at()].into_iter().flatten().min();
        next.map(|at| at.max(end).max(self.paused_until))
    }

    /// The process is gone; what it leaves behind, the world has taken care of.
    pub fn die(&mut self, death: Death) {
        self.life = None;
        self.wake_at = None;
        self.is_killed_in_operation = false;
        match death {
            Death::Killed => self.disk.kill(),
            Death::PowerLost => {
                self.disk.crash();
                self.has_power = false;
            }
        }
    }

    fn failures(&self, op: DiskOp) -> u64 {
        self.disk.fired().get(&(op, DiskFault::Io)).copied().unwrap_or_default()
    }

    /// How often a write took less than it was given, over all lives.
    pub fn short_writes(&self) -> u64 {
        let fired = self.disk.fired();
        let of = |fault| fired.get(&(DiskOp::Write, fault)).copied().unwrap_or_default();
        of(DiskFault::Short) + of(DiskFault::Interrupted)
    }

    /// What of the disk explains the end of this life, if anything does.
    fn fault_of_disk(&self) -> Option<Ending> {
        let (syncs, writes) = self.failed_before;
        if self.failures(DiskOp::Sync) > syncs {
            return Some(Ending::SyncFailed);
        }
        (self.failures(DiskOp::Write) > writes).then_some(Ending::WriteFailed)
    }

    /// The end within a file operation that is under way, if one is.
    fn end_in_operation(&self) -> Option<Ending> {
        let ending = if self.is_killed_in_operation {
            Ending::KilledInOperation
        } else {
            Ending::PowerCut
        };
        self.disk.is_cut().then_some(ending)
    }

    /// Notes whether the flipped bit is gone, with its file or with another in its place.
    pub fn find_rot_healed(&mut self) {
        let is_there = |rot: &Rot| self.disk.contents(&rot.name).unwrap_or_default().get(rot.offset) == Some(&rot.byte);
        if !self.rot.as_ref().is_some_and(is_there) {
            self.rot = None;
        }
    }

    /// What rots is found by the scrub, by the second pass behind it at the latest: the first may have been further on.
    ///
    /// # Errors
    /// It was not.
    pub fn judge_scrub(&self) -> Result<(), Violation> {
        let (Some(rot), Some(machine)) = (&self.rot, self.machine()) else {
            return Ok(());
        };
        if machine.scrub().passes < rot.passes + 2
            || machine.damage().iter().any(|found| found.file.ends_with(&rot.name))
        {
            return Ok(());
        }
        let Rot { name, offset, .. } = rot;
        Err(Violation {
            rule: "scrub",
            words: format!(
                "{} has read {name} again, and does not see what rotted at {offset}",
                self.id
            ),
        })
    }

    /// A log that says that the one before was damaged was begun for a reason, and its node has forgotten what it said.
    fn judge_new_log(&mut self, records: &[Record], shared: &Shared) -> Result<(), Violation> {
        let is_mark = |record: &Record| matches!(record, Record::Peer { node, .. } if *node == self.id);
        let has_new_life = records.iter().any(|record| matches!(record, Record::Life(_)));
        if !records.first().is_some_and(is_mark) || has_new_life {
            return Ok(());
        }
        let rot = self.rot.take();
        let is_explained = rot.is_some();
        self.rot = rot.filter(|rot| !rot.name.ends_with(".log"));
        if shared.checks.borrow().has_forgotten(self.id) {
            return Ok(()); // perhaps as it began the new log in an earlier start
        }
        if !is_explained {
            let words = format!("{} sets a log aside on a disk that is well", self.id);
            return Err(Violation { rule: "start", words });
        }
        shared.counts.borrow_mut().mark("log set aside");
        shared.checks.borrow_mut().forgets(self.id);
        Ok(())
    }

    fn refuses_to_start(&self, why: &Unusable) -> Result<Ending, Violation> {
        if let Some(ending) = self.end_in_operation() {
            return Ok(ending);
        }
        match (why, self.fault_of_disk()) {
            (Unusable::Directory(OpenError::Failed(_)), _) if self.is_full => Ok(Ending::NoSpace),
            (Unusable::Directory(OpenError::Failed(_)), Some(ending)) => Ok(ending),
            _ => Err(Violation {
                rule: "start",
                words: format!("{} does not start on a disk that is well: {why}", self.id),
            }),
        }
    }

    fn ending_of(&self, fatal: &Fatal) -> Result<Ending, Violation> {
        if let Some(ending) = self.end_in_operation() {
            return Ok(ending);
        }
        match (fatal, self.fault_of_disk()) {
            (Fatal::Storage(StorageError::Damage(_)), _) if self.rot.is_some() => Ok(Ending::Damaged),
            (Fatal::Storage(_), _) if self.is_full => Ok(Ending::NoSpace),
            (Fatal::Storage(_), Some(ending)) => Ok(ending),
            _ => Err(Violation {
                rule: "halt",
                words: format!("{} ends itself: {fatal}", self.id),
            }),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Death::Killed => "the process ends",
            Death::PowerLost => "the power fails",
        })
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::PowerCut => "the power fails within a file operation",
            Ending::KilledInOperation => "it is killed within a file operation",
            Ending::WriteFailed => "a write failed",
            Ending::SyncFailed => "a sync failed",
            Ending::NoSpace => "its disk is full",
            Ending::Damaged => "its log is damaged",
            Ending::Finished => "it was told to",
        })
    }
}
