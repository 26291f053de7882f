//! The state machine: map and sessions, applied entry by entry.
//!
//! A function of the log alone: same entries, same state, same answers, same digest, on every node and in every build.
//! Time is the log's own (`rules.md` 20): an entry's stamp may be behind what was seen before it, log time never is.
//!
//! Within one entry: first log time moves and idle sessions expire, then the commands run in their order. A write is
//! decided, then the session finds room for its reply, and only then does the map change: a refusal has run nothing.

use super::command::{Answer, Command, Done, Op, Refusal, Versioned};
use super::digest::{self, Digest};
use super::session::{Admission, Position, SessionView, Sessions};
use super::snapshot::{Cut, ItemRef, Mismatch, Summary};
use super::store::Store;
use super::stored::Stored;
use crate::paxos::{LogTime, Slot};
use crate::rules::Rules;
use crate::time::Time;

/// Commands whose sessions and keys are fetched at once: of so many with values of some hundred bytes, all of it has room in the
/// nearer caches.
const PREFETCHED_COMMANDS: usize = 256;

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It ran, now or the first time that it stood in the log.
    Done(Done),
    /// It did not run.
    Refused(Refusal),
}

/// The replicated state.
#[derive(Clone, Debug, Default)]
pub struct State {
    store: Store,
    sessions: Sessions,
    applied: Slot,
    log_time: LogTime,
    digest: Digest,
    rules: Rules,
    /// This node's own clock, which no rule that is kept ever looks at.
    clock: LogTime,
    /// The snapshot under way.
    cut: Option<Cut>,
}

impl State {
    /// The state before slot 1.
    pub fn new() -> State {
        State::default()
    }

    /// The same, applied as `rules` want it; keys and sessions are hashed by `seed`, which shows in nothing.
    pub fn under(rules: Rules, seed: u64) -> State {
        State {
            store: Store::seeded(seed),
            sessions: Sessions::seeded(seed),
            rules,
            ..State::default()
        }
    }

    /// Notes what this node's own clock says, for a lesson in which sessions expire by it.
    pub fn look_at_clock(&mut self, now: Time) {
        self.clock = LogTime(now.0 / 1_000_000);
    }

    /// Applies the entry of `slot`: pushes one [`Applied`] for each command, in order. A no-op has no commands.
    ///
    /// # Panics
    /// If `slot` is not the one behind the last: applying over a hole would make replicas differ for good.
    pub fn apply<B: AsRef<[u8]>>(
        &mut self,
        slot: Slot,
        stamp: LogTime,
        commands: &[Command<B>],
        applied: &mut Vec<Applied>,
    ) {
        assert!(
            slot == self.applied.next() || !self.rules.apply_without_holes,
            "slot {slot} applied behind slot {}",
            self.applied
        );
        self.applied = slot;
        self.log_time = self.log_time.max(stamp);
        self.digest.word(slot.0);
        self.digest.word(stamp.0);
        let now = if self.rules.expire_by_log_time {
            self.log_time
        } else {
            self.clock
        };
        while let Some(expired) = self.sessions.pop_idle(now) {
            self.digest.gone(expired);
        }
        let mut index = 0;
        for together in commands.chunks(PREFETCHED_COMMANDS) {
            self.sessions.prefetch(together);
            self.store.prefetch(together);
            for command in together {
                let outcome = self.run(command, Position { slot, index });
                self.digest.command(command);
                self.digest.applied(&outcome);
                applied.push(outcome);
                index += 1;
            }
        }
    }

    /// What is at `key`.
    pub fn get(&self, key: &[u8]) -> Option<Versioned> {
        self.store.get(key).map(Stored::to_versioned)
    }

    /// A read of `key` as it is now, as an answer.
    pub fn read(&self, key: &[u8]) -> Done {
        let answer = self.get(key).map_or(Answer::NotFound, Answer::Found);
        Done {
            slot: self.applied,
            revision: self.store.revision(),
            answer,
        }
    }

    /// Commands that changed anything so far.
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// The last slot applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The highest stamp applied.
    pub fn log_time(&self) -> LogTime {
        self.log_time
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        self.store.keys()
    }

    /// Number of living sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Every living session, the one idle for longest first.
    pub fn session_views(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.sessions.iter()
    }

    /// Digest over all entries applied and what applying them did; equal on all nodes at equal slots (`rules.md` 27).
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Digest over the content: map, sessions, revision and log time, whatever the way to them. Stands in each snapshot,
    /// and is computed anew when one is written or read (`rules.md` 27).
    pub fn content(&self) -> u64 {
        let sum = self.store.content().wrapping_add(self.sessions.content());
        content_of(sum, self.store.revision(), self.log_time)
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    /// What a snapshot of the state as it is now says of it.
    pub fn summary(&self) -> Summary {
        Summary {
            slot: self.applied,
            revision: self.store.revision(),
            log_time: self.log_time,
            digest: self.digest.value(),
            content: self.content(),
            keys: self.store.keys() as u64,
            sessions: self.sessions.len() as u64,
            bytes: self.store.bytes(),
        }
    }

    /// Begins a snapshot of the state as it is now; what is applied from now on does not change it. One under way is given
    /// up. Costs the memory of what changes before the snapshot has come to it, at most the state as it is now.
    pub fn begin_snapshot(&mut self) -> Summary {
        let summary = self.summary();
        self.sessions.begin_cut(self.applied);
        self.store.begin_cut();
        self.cut = Some(Cut { summary, sum: 0 });
        summary
    }

    /// Gives the next items of the snapshot, sessions by id and then keys in order, until what `give` says they take reaches
    /// `bytes_max` (more than 0). Whether there are more; behind the last, the snapshot is over.
    ///
    /// # Errors
    /// [`Mismatch`] behind the last, if what was given is not what the state had as its digest: the memory is broken.
    ///
    /// # Panics
    /// If none was begun.
    pub fn next_of_snapshot(
        &mut self,
        bytes_max: usize,
        give: &mut dyn FnMut(ItemRef<'_>) -> usize,
    ) -> Result<bool, Mismatch> {
        let cut = self.cut.as_mut().expect("a snapshot was begun");
        if self.sessions.next_of_cut(bytes_max, &mut cut.sum, give) {
            return Ok(true);
        }
        let sum = &mut cut.sum;
        let mut counted = |item: ItemRef<'_>| {
            if let ItemRef::Key { key, value } = item {
                *sum = sum.wrapping_add(digest::of_key(key, value));
            }
            give(item)
        };
        if self.store.next_of_cut(bytes_max, &mut counted) {
            return Ok(true);
        }
        let Cut { summary, sum } = *cut;
        self.cut = None;
        let found = content_of(sum, summary.revision, summary.log_time);
        if found == summary.content {
            Ok(false)
        } else {
            let stated = summary.content;
            Err(Mismatch { stated, found })
        }
    }

    /// Gives up a snapshot under way.
    pub fn end_snapshot(&mut self) {
        self.cut = None;
        self.sessions.end_cut();
        self.store.end_cut();
    }

    /// Frees some of the memory of a state that is of no use any more, so that its end stops nobody; whether there is more.
    pub fn discard(&mut self, items: usize) -> bool {
        self.end_snapshot();
        self.sessions.discard(items) || self.store.discard(items)
    }

    /// What a loader fills.
    pub(super) fn into_parts(self) -> (Store, Sessions, Rules) {
        (self.store, self.sessions, self.rules)
    }

    /// The state that a snapshot describes, as its loader has filled it.
    pub(super) fn loaded(summary: &Summary, mut store: Store, sessions: Sessions, rules: Rules) -> State {
        store.set_revision(summary.revision);
        State {
            store,
            sessions,
            applied: summary.slot,
            log_time: summary.log_time,
            digest: Digest::resume(summary.digest),
            rules,
            clock: LogTime::default(),
            cut: None,
        }
    }

    /// Alters the state behind the log's back, as broken memory would (fault injection): every later change has another
    /// revision than at other nodes.
    pub fn corrupt(&mut self) {
        self.store.corrupt();
    }

    fn run<B: AsRef<[u8]>>(&mut self, command: &Command<B>, at: Position) -> Applied {
        match command.op {
            Op::Open => {
                let (done, evicted) = self
                    .sessions
                    .open(command.session.id, at, self.log_time, self.store.revision());
                if let Some(evicted) = evicted {
                    self.digest.gone(evicted);
                }
                Applied::Done(done)
            }
            Op::Close => {
                self.sessions.close(command.session);
                Applied::Done(Done {
                    slot: at.slot,
                    revision: self.store.revision(),
                    answer: Answer::Closed,
                })
            }
            Op::Put { .. } | Op::Del { .. } | Op::Cas { .. } => self.write(command, at),
        }
    }

    fn write<B: AsRef<[u8]>>(&mut self, command: &Command<B>, at: Position) -> Applied {
        let session = match self.sessions.admit(command, at, self.log_time, self.rules) {
            Admission::Run(session) => session,
            Admission::Repeat(done) => return Applied::Done(done),
            Admission::Refused(refusal) => return Applied::Refused(refusal),
        };
        let (answer, change) = self.store.decide(&command.op);
        let done = Done {
            slot: at.slot,
            revision: self.store.revision_after(change),
            answer,
        };
        if let Err(refusal) = session.keep(command.number, &done) {
            return Applied::Refused(refusal);
        }
        self.store.commit(change);
        Applied::Done(done)
    }
}

/// The digest of the content whose parts add up to `sum`.
pub(super) fn content_of(sum: u64, revision: u64, log_time: LogTime) -> u64 {
    let mut digest = Digest::default();
    digest.word(sum);
    digest.word(revision);
    digest.word(log_time.0);
    digest.value()
}
