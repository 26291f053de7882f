//! The replicated table of sessions: exactly-once writes (`rules.md` 17 to 19).
//!
//! A session is named by the client's random id *and* the slot that opened it. With the id alone, a late copy of OPEN
//! would make an empty table, and a late copy of a write would run again in it. Invariants:
//! * T1. A number runs at most once: from then on it is answered with its kept reply, or it is below `low` and refused.
//! * T2. Kept numbers lie in `low .. low + IN_FLIGHT_MAX`; kept replies take at most `KEPT_BYTES_MAX`.
//! * T3. The index by age holds each session once, at its last command or at an earlier one: a command moves nothing in it,
//!   who looks for the oldest does. Log time never falls along the log, so the order of last commands is the order of expiry
//!   too, and one index serves both.
//!
//! All bounds are constants of the state machine: the same on every node, or replicas would differ.
//!
//! While a snapshot is written, a session is kept as it was before its first change (`SessionCut`).
//!
//! Not here: what a command does to the map ([`super::store`]).

use super::command::{Answer, Command, Done, KEY_BYTES_MAX, Previous, Refusal, SessionRef, VALUE_BYTES_MAX, Versioned};
use super::digest;
use super::map::OrderedMap;
use super::snapshot::{ItemRef, SessionHead};
use crate::paxos::{LogTime, Slot};
use crate::rules::Rules;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

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
    /// Where it stands in the index by age.
    indexed: Position,
    /// Numbers below it are settled for the client; they are never run and no longer answered. Only rises.
    low: u64,
    /// By number, ascending.
    kept: VecDeque<(u64, Done)>,
    kept_bytes: usize,
}

/// All living sessions.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    by_id: OrderedMap<u128, Session>,
    /// By a command of theirs (T3), with the log time there.
    by_age: BTreeMap<Position, (LogTime, u128)>,
    /// The sum of [`digest::of_session`] and [`digest::of_reply`] over all of them.
    content: u64,
    cut: Option<SessionCut>,
}

/// A snapshot of the table under way: sessions up to `passed` are written or being written, of the others those that
/// have changed since stand in `kept` as they were. Replies share their bytes; it is at most the table as it was.
#[derive(Clone, Debug)]
struct SessionCut {
    /// The last slot applied when it began: a session with a later last command has changed since.
    slot: Slot,
    passed: Option<u128>,
    kept: BTreeMap<u128, Session>,
    /// The session being written, and how many of its replies are.
    writing: Option<(u128, Session, usize)>,
}

/// A session that has admitted a write, and has yet to find room for its reply.
#[derive(Debug)]
pub struct Admitted<'a> {
    id: u128,
    session: &'a mut Session,
    content: &'a mut u64,
}

/// What becomes of a write.
#[derive(Debug)]
pub enum Admission<'a> {
    /// Its first time: run it, if [`Admitted::keep`] has room for its reply.
    Run(Admitted<'a>),
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
    /// An empty table whose ids are hashed by `seed`.
    pub(super) fn seeded(seed: u64) -> Sessions {
        Sessions {
            by_id: OrderedMap::seeded(seed),
            ..Sessions::default()
        }
    }

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
        let mut views: Vec<_> = self
            .by_id
            .iter()
            .map(|(id, session)| (session.last, session.view(*id)))
            .collect();
        views.sort_unstable_by_key(|(last, _)| *last);
        views.into_iter().map(|(_, view)| view)
    }

    /// The digest of the table, whatever the order in which it came about (`rules.md` 27).
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Opens session `id`, or finds it living: then the reply is that of the OPEN that made it. Also returns the
    /// session that had to go to make room.
    pub fn open(&mut self, id: u128, at: Position, now: LogTime, revision: u64) -> (Done, Option<SessionRef>) {
        self.keep_for_cut(id);
        if let Some(session) = self.by_id.get_mut(&id) {
            let before = digest::of_session(&session.head(id));
            session.touch(at, now);
            self.content = changed(self.content, before, digest::of_session(&session.head(id)));
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
            indexed: at,
            low: 1,
            kept: VecDeque::new(),
            kept_bytes: 0,
        };
        let reply = session.opened_reply();
        self.content = self.content.wrapping_add(digest::of_session(&session.head(id)));
        self.by_id.insert(id, session);
        self.by_age.insert(at, (now, id));
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

    /// Changes nothing: the sessions of `commands` are fetched side by side (`OrderedMap::prefetch`).
    pub(super) fn prefetch<B>(&self, commands: &[Command<B>]) {
        self.by_id.prefetch(
            commands.iter().map(|command| &command.session.id),
            |_, session| session.opened.0 ^ session.low ^ session.kept_bytes as u64,
            |session| session.kept.front().map_or(0, |(number, _)| *number),
        );
    }

    /// Whether a write is new, a repeat, or refused. Takes note of the client's mark, and of the session being alive.
    pub fn admit<B>(&mut self, command: &Command<B>, at: Position, now: LogTime, rules: Rules) -> Admission<'_> {
        let SessionRef { id, opened } = command.session;
        self.keep_for_cut(id);
        let Some(session) = self.by_id.get_mut(&id).filter(|session| session.opened == opened) else {
            return Admission::Refused(Refusal::SessionExpired);
        };
        let before = digest::of_session(&session.head(id));
        session.touch(at, now);
        let dropped = session.raise_low(id, command.low);
        self.content = changed(self.content, before, digest::of_session(&session.head(id))).wrapping_sub(dropped);
        match session.judge(command.number, rules) {
            Verdict::New => Admission::Run(Admitted {
                id,
                session,
                content: &mut self.content,
            }),
            Verdict::Repeat(done) => Admission::Repeat(done),
            Verdict::Refused(refusal) => Admission::Refused(refusal),
        }
    }

    /// Removes one session that has been idle for too long at log time `now`; none if there is no such.
    pub fn pop_idle(&mut self, now: LogTime) -> Option<SessionRef> {
        let is_idle = |since: LogTime| now.0.saturating_sub(since.0) >= IDLE_EXPIRY_MS;
        // Nobody's last command is earlier than the first of the index says.
        let (_, (earliest, _)) = self.by_age.first_key_value()?;
        if !is_idle(*earliest) {
            return None;
        }
        let (id, since) = self.oldest()?;
        is_idle(since).then(|| self.remove(id))
    }

    fn pop_first(&mut self) -> Option<SessionRef> {
        let (id, _) = self.oldest()?;
        Some(self.remove(id))
    }

    /// The session whose last command is earliest in the log, and the log time there. Moves those that stand before it in the
    /// index without being older; each was used since it was moved before.
    fn oldest(&mut self) -> Option<(u128, LogTime)> {
        loop {
            let (&at, &(_, id)) = self.by_age.first_key_value()?;
            let session = self.by_id.get_mut(&id).expect("T3: the index holds living sessions");
            if session.last == at {
                return Some((id, session.last_time));
            }
            session.indexed = session.last;
            self.by_age.remove(&at);
            self.by_age.insert(session.last, (session.last_time, id));
        }
    }

    fn remove(&mut self, id: u128) -> SessionRef {
        self.keep_for_cut(id);
        let session = self.by_id.remove(&id).expect("only living sessions are removed");
        self.content = self.content.wrapping_sub(session.content(id));
        let indexed = self.by_age.remove(&session.indexed).map(|(_, id)| id);
        assert_eq!(indexed, Some(id), "T3: this session is not at {:?}", session.indexed);
        SessionRef {
            id,
            opened: session.opened,
        }
    }

    /// A session is about to change: a snapshot that has not come to it yet keeps it as it is.
    fn keep_for_cut(&mut self, id: u128) {
        let Some(cut) = &mut self.cut else { return };
        let is_written = cut.passed.is_some_and(|passed| id <= passed);
        if is_written {
            return;
        }
        // Its last command tells whether it is as it was: every change is one.
        if let Some(session) = self.by_id.get(&id).filter(|session| session.last.slot <= cut.slot) {
            cut.kept.insert(id, session.clone());
        }
    }

    /// Begins a snapshot of the table as it is behind `slot`; one under way is given up.
    pub(super) fn begin_cut(&mut self, slot: Slot) {
        self.cut = Some(SessionCut {
            slot,
            passed: None,
            kept: BTreeMap::new(),
            writing: None,
        });
    }

    /// Gives the next sessions of the snapshot, each with its replies behind it, until what `give` says they take reaches
    /// `bytes_max`; adds what they are to `content`. Whether there are more.
    pub(super) fn next_of_cut(
        &mut self,
        bytes_max: usize,
        content: &mut u64,
        give: &mut dyn FnMut(ItemRef<'_>) -> usize,
    ) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        let mut bytes = 0;
        while bytes < bytes_max {
            if let Some((id, session, written)) = &mut cut.writing
                && let Some((number, done)) = session.kept.get(*written)
            {
                *written += 1;
                *content = content.wrapping_add(digest::of_reply(*id, *number, done));
                bytes += give(ItemRef::Reply { number: *number, done });
                continue;
            }
            let Some((id, session)) = cut.next(&self.by_id) else {
                self.cut = None;
                return false;
            };
            let head = session.head(id);
            *content = content.wrapping_add(digest::of_session(&head));
            bytes += give(ItemRef::Session(head));
            (cut.passed, cut.writing) = (Some(id), Some((id, session, 0)));
        }
        true
    }

    /// Gives up a snapshot under way.
    pub(super) fn end_cut(&mut self) {
        self.cut = None;
    }

    /// Puts a session of a snapshot back, without its replies.
    pub(super) fn load(&mut self, head: &SessionHead) {
        let session = Session {
            opened: head.session.opened,
            opened_revision: head.opened_revision,
            last: head.last,
            last_time: head.last_time,
            indexed: head.last,
            low: head.low,
            kept: VecDeque::with_capacity(head.replies),
            kept_bytes: 0,
        };
        self.content = self.content.wrapping_add(digest::of_session(head));
        self.by_id.insert(head.session.id, session);
        self.by_age.insert(head.last, (head.last_time, head.session.id));
    }

    /// Puts a reply back that session `id` keeps; false if it cannot stand there.
    pub(super) fn load_reply(&mut self, id: u128, number: u64, done: Done) -> bool {
        let Some(session) = self.by_id.get_mut(&id) else {
            return false;
        };
        let is_ascending = session.kept.back().is_none_or(|(last, _)| *last < number);
        let is_in_range = number >= session.low && number - session.low < IN_FLIGHT_MAX;
        if !is_ascending || !is_in_range {
            return false;
        }
        self.content = self.content.wrapping_add(digest::of_reply(id, number, &done));
        session.kept_bytes += reply_bytes(&done);
        session.kept.push_back((number, done));
        true
    }

    /// Frees some of the memory of a table that is of no use any more; whether there is more.
    pub(super) fn discard(&mut self, sessions: usize) -> bool {
        self.by_age.clear();
        self.by_id.discard(sessions)
    }
}

impl SessionCut {
    /// The next session as it was.
    fn next(&mut self, living: &OrderedMap<u128, Session>) -> Option<(u128, Session)> {
        let from = self.passed.map_or(Bound::Unbounded, Bound::Excluded);
        // What has changed stands in `kept`, so looking ends there: it passes over newer sessions only.
        let upto = self.kept.first_key_value();
        let upto = upto.map_or(Bound::Unbounded, |(kept, _)| Bound::Excluded(*kept));
        let mut unchanged = living.range((from.as_ref(), upto.as_ref()));
        let unchanged = unchanged.find(|(_, session)| session.last.slot <= self.slot);
        match unchanged {
            Some((id, session)) => Some((*id, session.clone())),
            None => self.kept.pop_first(),
        }
    }
}

/// A sum in which one part has changed.
fn changed(sum: u64, before: u64, after: u64) -> u64 {
    sum.wrapping_sub(before).wrapping_add(after)
}

impl Admitted<'_> {
    /// Keeps the reply of the write, which is about to run, for its repeats.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if there is no room; nothing has changed then, and the write must not run.
    pub fn keep(self, number: u64, done: &Done) -> Result<(), Refusal> {
        self.session.keep(number, done)?;
        *self.content = self.content.wrapping_add(digest::of_reply(self.id, number, done));
        Ok(())
    }
}

/// What a session says of a number.
enum Verdict {
    New,
    Repeat(Done),
    Refused(Refusal),
}

impl Session {
    fn touch(&mut self, at: Position, now: LogTime) {
        (self.last, self.last_time) = (at, now);
    }

    fn keep(&mut self, number: u64, done: &Done) -> Result<(), Refusal> {
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

    fn judge(&self, number: u64, rules: Rules) -> Verdict {
        // `low` is at least 1, so a number of zero ends here too.
        if number < self.low {
            return Verdict::Refused(Refusal::NumberForgotten);
        }
        if rules.run_writes_once
            && let Ok(place) = self.kept.binary_search_by_key(&number, |(kept, _)| *kept)
        {
            return Verdict::Repeat(self.kept[place].1.clone());
        }
        // The bound is on the span and not on the count: so the lowest outstanding number always has a place.
        if number - self.low >= IN_FLIGHT_MAX {
            return Verdict::Refused(Refusal::Busy);
        }
        Verdict::New
    }

    /// Drops the replies below `low`; what they were in the digest of the content.
    fn raise_low(&mut self, id: u128, low: u64) -> u64 {
        // A late copy of a command carries an older mark.
        self.low = self.low.max(low);
        let mut dropped: u64 = 0;
        while let Some((number, done)) = self.kept.front() {
            if *number >= self.low {
                break;
            }
            dropped = dropped.wrapping_add(digest::of_reply(id, *number, done));
            self.kept_bytes -= reply_bytes(done);
            self.kept.pop_front();
        }
        dropped
    }

    /// What it adds to the digest of the content, replies included.
    fn content(&self, id: u128) -> u64 {
        let replies = self.kept.iter();
        replies.fold(digest::of_session(&self.head(id)), |sum, (number, done)| {
            sum.wrapping_add(digest::of_reply(id, *number, done))
        })
    }

    fn head(&self, id: u128) -> SessionHead {
        SessionHead {
            session: SessionRef {
                id,
                opened: self.opened,
            },
            opened_revision: self.opened_revision,
            last: self.last,
            last_time: self.last_time,
            low: self.low,
            replies: self.kept.len(),
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

/// What a reply counts towards `KEPT_BYTES_MAX`. Only a large value is shared with the map, and until the key changes.
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
