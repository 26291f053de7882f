//! A snapshot of the state: all of it as it was behind one slot, taken in slices while further slots are applied.
//!
//! [`State::begin_snapshot`] cuts; [`State::next_of_snapshot`] gives the items, in one order on every node: sessions by
//! id, each with its replies, then keys. What changes before it was given is kept as it was (copy on write), by
//! [`super::store`] and [`super::session`]. [`Loader`] makes a state of the items again. Invariants:
//! * C1. The items are the state behind the summary's slot, whatever is applied meanwhile: their digest is compared with
//!   the one that the state had then, when they are given and when they are loaded (`rules.md` 27).
//! * C2. Same state, same items in the same order.
//!
//! Not here: bytes (`wire::state`), files (`storage::snapshot`).

use super::command::{Done, SessionRef, Versioned};
use super::digest;
use super::key::Key;
use super::session::{Position, Sessions};
use super::state::{State, content_of};
use super::store::Store;
use super::stored::{Stored, ValueRef};
use crate::paxos::{LogTime, Slot};
use crate::rules::Rules;
use std::fmt;

/// Keys that the store is given together.
const KEYS_TOGETHER: usize = 256;

/// What a snapshot says of the state as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The last slot applied.
    pub slot: Slot,
    /// The store's revision.
    pub revision: u64,
    /// Log time.
    pub log_time: LogTime,
    /// The digest over all entries applied, [`State::digest`].
    pub digest: u64,
    /// The digest of the content, [`State::content`].
    pub content: u64,
    /// How many keys.
    pub keys: u64,
    /// How many sessions.
    pub sessions: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
}

/// A session without its replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionHead {
    /// Its name.
    pub session: SessionRef,
    /// The store's revision when it was opened.
    pub opened_revision: u64,
    /// Where its last command stands in the log.
    pub last: Position,
    /// Log time there.
    pub last_time: LogTime,
    /// Numbers below it are settled.
    pub low: u64,
    /// How many replies it keeps; they follow.
    pub replies: usize,
}

/// One part of the state, as it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemRef<'a> {
    /// A session; its replies follow.
    Session(SessionHead),
    /// A reply that the session before it keeps.
    Reply {
        /// Of which number.
        number: u64,
        /// The reply.
        done: &'a Done,
    },
    /// A key with its value.
    Key {
        /// The key.
        key: &'a [u8],
        /// What is there.
        value: ValueRef<'a>,
    },
}

/// One part of the state, as it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// See [`ItemRef::Session`].
    Session(SessionHead),
    /// See [`ItemRef::Reply`].
    Reply {
        /// Of which number.
        number: u64,
        /// The reply.
        done: Done,
    },
    /// See [`ItemRef::Key`].
    Key {
        /// The key.
        key: Box<[u8]>,
        /// What is there.
        value: Versioned,
    },
}

/// The digest of the content is not the one that is stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What the state, or the snapshot, says.
    pub stated: u64,
    /// What the items yield.
    pub found: u64,
}

/// Why items are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// An item that cannot stand behind the one before it.
    Order,
    /// More or fewer items than the summary says.
    Count {
        /// `keys`, `sessions` or `replies`.
        what: &'static str,
        /// What is stated.
        stated: u64,
        /// How many there are.
        found: u64,
    },
    /// Their digest is another.
    Content(Mismatch),
}

/// A snapshot under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) summary: Summary,
    /// Sum of the digests of all items given.
    pub(super) sum: u64,
}

/// Makes a state of items.
#[derive(Debug)]
pub struct Loader {
    summary: Summary,
    store: Store,
    sessions: Sessions,
    /// The session whose replies follow, and how many still do.
    open: Option<(u128, usize)>,
    /// The last keys, which the store is given together.
    keys: Vec<(Key, Stored)>,
    /// Keys that the store is to have room for.
    keys_expected: usize,
    rules: Rules,
}

/// Proves items without keeping them: their order, their number and their digest.
#[derive(Debug)]
pub struct Checker {
    summary: Summary,
    sum: u64,
    keys: u64,
    sessions: u64,
    bytes: u64,
    /// The last session, how many of its replies are still to come, and the number of the last one.
    open: Option<(u128, usize, Option<u64>)>,
    last_key: Option<Box<[u8]>>,
}

impl Item {
    /// The same, as it is given.
    pub fn as_ref(&self) -> ItemRef<'_> {
        match self {
            Item::Session(head) => ItemRef::Session(*head),
            Item::Reply { number, done } => ItemRef::Reply { number: *number, done },
            Item::Key { key, value } => ItemRef::Key {
                key,
                value: value.view(),
            },
        }
    }
}

impl ItemRef<'_> {
    /// The same, kept.
    pub fn to_owned(self) -> Item {
        match self {
            ItemRef::Session(head) => Item::Session(head),
            ItemRef::Reply { number, done } => Item::Reply {
                number,
                done: done.clone(),
            },
            ItemRef::Key { key, value } => Item::Key {
                key: key.into(),
                value: value.to_versioned(),
            },
        }
    }
}

impl Loader {
    /// For the state that `summary` speaks of, which `empty` becomes: a state in which nothing has happened.
    pub fn new(summary: Summary, empty: State) -> Loader {
        let (store, sessions, rules) = empty.into_parts();
        Loader {
            summary,
            store,
            sessions,
            open: None,
            keys: Vec::new(),
            keys_expected: 0,
            rules,
        }
    }

    /// The same, which makes room for so many keys, a part with every few hundred that come. Fewer may come, or more.
    #[must_use]
    pub fn expecting(mut self, keys: usize) -> Loader {
        self.keys_expected = keys;
        self
    }

    /// What is to be loaded.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Takes the next item.
    ///
    /// # Errors
    /// [`LoadError::Order`], [`LoadError::Count`]; the loader is of no use then.
    pub fn add(&mut self, item: Item) -> Result<(), LoadError> {
        match item {
            Item::Session(head) => self.add_session(&head),
            Item::Reply { number, done } => self.add_reply(number, done),
            Item::Key { key, value } => self.add_key(&key, value.view()),
        }
    }

    fn add_session(&mut self, head: &SessionHead) -> Result<(), LoadError> {
        let last = self.open.map(|(id, _)| id);
        self.close_session()?;
        let has_keys = self.last_key().is_some();
        if has_keys || last.is_some_and(|last| head.session.id <= last) {
            return Err(LoadError::Order);
        }
        self.sessions.load(head);
        self.open = Some((head.session.id, head.replies));
        Ok(())
    }

    fn add_reply(&mut self, number: u64, done: Done) -> Result<(), LoadError> {
        let Some((id, left)) = self.open.as_mut().filter(|(_, left)| *left > 0) else {
            return Err(LoadError::Order);
        };
        *left -= 1;
        if self.sessions.load_reply(*id, number, done) {
            Ok(())
        } else {
            Err(LoadError::Order)
        }
    }

    fn add_key(&mut self, key: &[u8], value: ValueRef<'_>) -> Result<(), LoadError> {
        self.close_session()?;
        let is_behind = self.last_key().is_none_or(|last| last < key);
        let is_sane = value.created <= value.version && value.version <= self.summary.revision;
        if !is_behind || !is_sane {
            return Err(LoadError::Order);
        }
        self.keys
            .push((key.into(), Stored::new(value, digest::of_key(key, value))));
        if self.keys.len() == KEYS_TOGETHER {
            self.hand_keys();
        }
        Ok(())
    }

    /// The highest key so far.
    fn last_key(&self) -> Option<&[u8]> {
        let last = self.keys.last().map(|(key, _)| &**key);
        last.or_else(|| self.store.last_key())
    }

    /// With each handful another part of the room is made, so that no turn pays for all.
    fn hand_keys(&mut self) {
        let part = self.store.keys() / KEYS_TOGETHER;
        self.store.make_room(part, self.keys_expected);
        self.store.load(self.keys.drain(..));
    }

    fn close_session(&self) -> Result<(), LoadError> {
        match self.open {
            Some((_, left)) if left > 0 => Err(LoadError::Count {
                what: "replies",
                stated: left as u64,
                found: 0,
            }),
            _ => Ok(()),
        }
    }

    /// The state, behind the last item.
    ///
    /// # Errors
    /// Any [`LoadError`].
    pub fn finish(mut self) -> Result<State, LoadError> {
        self.close_session()?;
        self.hand_keys();
        let counts = [
            ("keys", self.summary.keys, self.store.keys() as u64),
            ("sessions", self.summary.sessions, self.sessions.len() as u64),
            ("bytes", self.summary.bytes, self.store.bytes()),
        ];
        for (what, stated, found) in counts {
            if stated != found {
                return Err(LoadError::Count { what, stated, found });
            }
        }
        let stated = self.summary.content;
        let state = State::loaded(&self.summary, self.store, self.sessions, self.rules);
        match state.content() {
            found if found == stated => Ok(state),
            found => Err(LoadError::Content(Mismatch { stated, found })),
        }
    }
}

impl Checker {
    /// For the state that `summary` speaks of.
    pub fn new(summary: Summary) -> Checker {
        Checker {
            summary,
            sum: 0,
            keys: 0,
            sessions: 0,
            bytes: 0,
            open: None,
            last_key: None,
        }
    }

    /// Looks at the next item.
    ///
    /// # Errors
    /// [`LoadError::Order`]; the checker is of no use then.
    pub fn add(&mut self, item: &Item) -> Result<(), LoadError> {
        let is_in_place = match item {
            Item::Session(head) => self.add_session(head),
            Item::Reply { number, done } => self.add_reply(*number, done),
            Item::Key { key, value } => self.add_key(key, value),
        };
        if is_in_place { Ok(()) } else { Err(LoadError::Order) }
    }

    fn add_session(&mut self, head: &SessionHead) -> bool {
        let is_behind = self
            .open
            .is_none_or(|(last, left, _)| left == 0 && last < head.session.id);
        self.open = Some((head.session.id, head.replies, None));
        self.sessions += 1;
        self.sum = self.sum.wrapping_add(digest::of_session(head));
        is_behind && self.last_key.is_none()
    }

    fn add_reply(&mut self, number: u64, done: &Done) -> bool {
        let Some((id, left, last)) = self.open.as_mut().filter(|(_, left, _)| *left > 0) else {
            return false;
        };
        *left -= 1;
        let is_behind = last.replace(number).is_none_or(|last| last < number);
        self.sum = self.sum.wrapping_add(digest::of_reply(*id, number, done));
        is_behind && self.last_key.is_none()
    }

    fn add_key(&mut self, key: &[u8], value: &Versioned) -> bool {
        let is_behind = self.last_key.as_ref().is_none_or(|last| **last < *key);
        let has_all_replies = self.open.is_none_or(|(_, left, _)| left == 0);
        let is_sane = value.created <= value.version && value.version <= self.summary.revision;
        self.last_key = Some(key.into());
        self.keys += 1;
        self.bytes += (key.len() + value.value.len()) as u64;
        self.sum = self.sum.wrapping_add(digest::of_key(key, value.view()));
        is_behind && has_all_replies && is_sane
    }

    /// What a summary of these items says, behind the last of them: where the log stands as it was stated, all else as it
    /// was counted.
    pub fn found(&self) -> Summary {
        let stated = self.summary;
        Summary {
            content: content_of(self.sum, stated.revision, stated.log_time),
            keys: self.keys,
            sessions: self.sessions,
            bytes: self.bytes,
            ..stated
        }
    }

    /// Behind the last item: whether they are what the summary says.
    ///
    /// # Errors
    /// [`LoadError::Count`], [`LoadError::Content`].
    pub fn finish(&self) -> Result<(), LoadError> {
        let (stated, found) = (self.summary, self.found());
        let counts = [
            ("keys", stated.keys, found.keys),
            ("sessions", stated.sessions, found.sessions),
            ("bytes", stated.bytes, found.bytes),
        ];
        for (what, stated, found) in counts {
            if stated != found {
                return Err(LoadError::Count { what, stated, found });
            }
        }
        let (stated, found) = (stated.content, found.content);
        if stated == found {
            Ok(())
        } else {
            Err(LoadError::Content(Mismatch { stated, found }))
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { stated, found } = self;
        write!(f, "the content has digest {found:016x}, stated is {stated:016x}")
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Order => f.write_str("an item that cannot stand behind the one before it"),
            LoadError::Count { what, stated, found } => write!(f, "{found} {what}, stated are {stated}"),
            LoadError::Content(mismatch) => mismatch.fmt(f),
        }
    }
}

impl std::error::Error for Mismatch {}

impl std::error::Error for LoadError {}
