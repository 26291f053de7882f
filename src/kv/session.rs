//! The replicated table of sessions: exactly-once writes (`rules.md` 17 to 19).
//!
//! A session is named by the client's random id *and* the slot that opened it. With the id alone, a late copy of OPEN
//! would make an empty table, and a late copy of a write would run again in it. Invariants:
//! * T1. A number runs at most once: from then on it is answered with its kept reply, or it is below `low` and refused.
//! * T2. Kept numbers lie in `low .. low + IN_FLIGHT_MAX`; kept replies take at most `KEPT_BYTES_MAX`.
//! * T3. The index by last command holds each session once. Log time never falls along the log, so the order of last
//!   commands is the order of expiry too, and one index serves both.
//!
//! All bounds are constants of the state machine: the same on every node, or replicas would differ.
//!
//! Not here: what a command does to the map ([`super::store`]).

use super::command::{Answer, Command, Done, KEY_BYTES_MAX, Previous, Refusal, SessionRef, VALUE_BYTES_MAX, Versioned};
use crate::paxos::{LogTime, Slot};
use crate::rules::Rules;
use std::collections::{BTreeMap, VecDeque};

/// Most sessions at once. One more, and the one whose last command is earliest in the log goes.
pub const SESSIONS_MAX: usize = 65_536;
/// Most numbers of one session between its lowest outstanding and its newest. Beyond it: [`Refusal::Busy`].
pub const IN_FLIGHT_MAX: u64 = 256;
/// Most bytes of kept replies of one session. Beyond it: [`Refusal::Busy`].
pub const KEPT_BYTES_MAX: usize = 4 << 20;
/// A session without a command for so long, in milliseconds of log time, expires.
pub const IDLE_EXPIRY_MS: u64 = 10 * 60 * 1000;

/// What a kept reply counts beside the value that it carries.
const REPLY_OVERHEAD_BYTES: usize = 128;
/// Of `KEPT_BYTES_MAX`, the part that only the lowest outstanding number may use. Without it the replies of later
/// numbers could fill the table for good: they are dropped only once the lowest is settled, which then never fits.
const LOWEST_RESERVE_BYTES: usize = VALUE_BYTES_MAX + REPLY_OVERHEAD_BYTES;

const _: () = assert!(KEPT_BYTES_MAX >= 2 * LOWEST_RESERVE_BYTES + KEY_BYTES_MAX);

/// A command's place in the log: its slot, and its index in the slot's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The slot.
    pub slot: Slot,
    /// From 0.
    pub index: usize,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    opened: Slot,
    /// The store's revision when it was opened: a repeated OPEN gets the same reply.
    opened_revision: u64,
    /// Where its last command stands in the log, and the log time there.
    last: Position,
    last_time: LogTime,
    /// Numbers below it are settled for the client; they are never run and no longer answered. Only rises.
    low: u64,
    /// By number, ascending.
    kept: VecDeque<(u64, Done)>,
    kept_bytes: usize,
}

/// All living sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_id: BTreeMap<u128, Session>,
    by_last: BTreeMap<Position, u128>,
}

/// What becomes of a write.
#[derive(Debug)]
pub enum Admission<'a> {
    /// Its first time: run it, if [`Session::keep`] has room for its reply.
    Run(&'a mut Session),
    /// A repeat, with the reply of the first time.
    Repeat(Done),
    /// Not run.
    Refused(Refusal),
}

/// One session as the debug port shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its name.
    pub session: SessionRef,
    /// Lowest number still outstanding.
    pub low: u64,
    /// Replies kept.
    pub kept: usize,
    /// Bytes that they count.
    pub kept_bytes: usize,
    /// Slot of its last command.
    pub last_slot: Slot,
    /// Log time of its last command.
    pub last_time: LogTime,
}

impl Sessions {
    /// Number of living sessions.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Every living session, the one that would go next first.
    pub fn iter(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.by_last.values().map(|id| self.by_id[id].view(*id))
    }

    /// Opens session `id`, or finds it living: then the reply is that of the OPEN that made it. Also returns the
    /// session that had to go to make room.
    pub fn open(&mut self, id: u128, at: Position, now: LogTime, revision: u64) -> (Done, Option<SessionRef>) {
        if let Some(session) = self.by_id.get_mut(&id) {
            touch(&mut self.by_last, id, session, at, now);
            return (session.opened_reply(), None);
        }
        let evicted = if self.by_id.len() >= SESSIONS_MAX {
            self.pop_first()
        } else {
            None
        };
        let session = Session {
            opened: at.slot,
            opened_revision: revision,
            last: at,
            last_time: now,
            low: 1,
            kept: VecDeque::new(),
            kept_bytes: 0,
        };
        let reply = session.opened_reply();
        self.by_id.insert(id, session);
        self.by_last.insert(at, id);
        (reply, evicted)
    }

    /// Ends a session and drops its replies. One that is gone, or another opening of the id, is left alone: to end what
    /// has ended is done already.
    pub fn close(&mut self, session: SessionRef) {
        if self
            .by_id
            .get(&session.id)
            .is_some_and(|living| living.opened == session.opened)
        {
            self.remove(session.id);
        }
    }

    /// Whether a write is new, a repeat, or refused. Takes note of the client's mark, and of the session being alive.
    pub fn admit(&mut self, command: &Command, at: Position, now: LogTime, rules: Rules) -> Admission<'_> {
        let SessionRef { id, opened } = command.session;
        let Some(session) = self.by_id.get_mut(&id).filter(|session| session.opened == opened) else {
            return Admission::Refused(Refusal::SessionExpired);
        };
        touch(&mut self.by_last, id, session, at, now);
        session.raise_low(command.low);
        session.admit(command.number, rules)
    }

    /// Removes one session that has been idle for too long at log time `now`; none if there is no such.
    pub fn pop_idle(&mut self, now: LogTime) -> Option<SessionRef> {
        let (_, id) = self.by_last.first_key_value()?;
        let idle_ms = now.0.saturating_sub(self.by_id[id].last_time.0);
        if idle_ms < IDLE_EXPIRY_MS {
            return None;
        }
        self.pop_first()
    }

    fn pop_first(&mut self) -> Option<SessionRef> {
        let (_, id) = self.by_last.first_key_value()?;
        Some(self.remove(*id))
    }

    fn remove(&mut self, id: u128) -> SessionRef {
        let session = self.by_id.remove(&id).expect("only living sessions are removed");
        let indexed = self.by_last.remove(&session.last);
        assert_eq!(
            indexed,
            Some(id),
            "T3: {:?} is not the last command of this session",
            session.last
        );
        SessionRef {
            id,
            opened: session.opened,
        }
    }
}

fn touch(by_last: &mut BTreeMap<Position, u128>, id: u128, session: &mut Session, at: Position, now: LogTime) {
    by_last.remove(&session.last);
    by_last.insert(at, id);
    session.last = at;
    session.last_time = now;
}

impl Session {
    /// Keeps the reply of a write that is about to run, for its repeats.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if there is no room; nothing has changed then, and the write must not run.
    pub fn keep(&mut self, number: u64, done: &Done) -> Result<(), Refusal> {
        let bytes = reply_bytes(done);
        let limit = if number == self.low {
            KEPT_BYTES_MAX
        } else {
            KEPT_BYTES_MAX - LOWEST_RESERVE_BYTES
        };
        if self.kept_bytes + bytes > limit {
            return Err(Refusal::Busy);
        }
        let place = self.kept.partition_point(|(kept, _)| *kept < number);
        self.kept.insert(place, (number, done.clone()));
        self.kept_bytes += bytes;
        assert!(
            self.kept.len() as u64 <= IN_FLIGHT_MAX,
            "T2: {} replies kept",
            self.kept.len()
        );
        Ok(())
    }

    fn admit(&mut self, number: u64, rules: Rules) -> Admission<'_> {
        // `low` is at least 1, so a number of zero ends here too.
        if number < self.low {
            return Admission::Refused(Refusal::NumberForgotten);
        }
        if rules.run_writes_once
            && let Ok(place) = self.kept.binary_search_by_key(&number, |(kept, _)| *kept)
        {
            return Admission::Repeat(self.kept[place].1.clone());
        }
        // The bound is on the span and not on the count: so the lowest outstanding number always has a place.
        if number - self.low >= IN_FLIGHT_MAX {
            return Admission::Refused(Refusal::Busy);
        }
        Admission::Run(self)
    }

    fn raise_low(&mut self, low: u64) {
        // A late copy of a command carries an older mark.
        self.low = self.low.max(low);
        while let Some((number, done)) = self.kept.front() {
            if *number >= self.low {
                break;
            }
            self.kept_bytes -= reply_bytes(done);
            self.kept.pop_front();
        }
    }

    fn opened_reply(&self) -> Done {
        Done {
            slot: self.opened,
            revision: self.opened_revision,
            answer: Answer::Opened { opened: self.opened },
        }
    }

    fn view(&self, id: u128) -> SessionView {
        SessionView {
            session: SessionRef {
                id,
                opened: self.opened,
            },
            low: self.low,
            kept: self.kept.len(),
            kept_bytes: self.kept_bytes,
            last_slot: self.last.slot,
            last_time: self.last_time,
        }
    }
}

/// What a reply counts towards `KEPT_BYTES_MAX`. Its value is shared with the map only until the key changes.
fn reply_bytes(done: &Done) -> usize {
    REPLY_OVERHEAD_BYTES
        + done
            .answer
            .carried()
            .map_or(0, |carried: &Versioned| carried.value.len())
}

impl Answer {
    /// The value that an answer carries, if any.
    pub fn carried(&self) -> Option<&Versioned> {
        match self {
            Answer::Written {
                previous: Previous::Was(value),
            } => Some(value),
            Answer::Exists { current } => Some(current),
            Answer::CasFailed { current } => current.as_ref(),
            Answer::Found(found) => Some(found),
            Answer::Opened { .. } | Answer::Closed | Answer::NotFound | Answer::Written { .. } => None,
        }
    }
}
