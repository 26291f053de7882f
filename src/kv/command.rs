//! What clients ask of the store, and what they are answered.

use crate::paxos::Slot;
use bytes::Bytes;

/// Longest key, bytes. The shortest is one byte.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value, bytes. The empty value is a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// A session: a random id chosen by the client and the slot that opened it (`rules.md` 18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionRef {
    /// Random, 128 bits.
    pub id: u128,
    /// What OPEN returned; 0 in OPEN itself and in reads, which need no session.
    pub opened: Slot,
}

/// One write (or OPEN, or CLOSE) of one session, as it stands in a batch. Its byte strings are `B`: kept for themselves, or
/// slices of the batch while it is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<B = Bytes> {
    /// Whose.
    pub session: SessionRef,
    /// The write's number within its session, from 1. 0 for OPEN and CLOSE.
    pub number: u64,
    /// The lowest number for which the client still awaits a reply; replies below it are forgotten.
    pub low: u64,
    /// What to do.
    pub op: Op<B>,
}

/// What a command does. Sizes are checked before anything is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<B = Bytes> {
    /// Opens the session; for a living id, returns the slot that opened it.
    Open,
    /// Closes the session and drops its replies.
    Close,
    /// Sets `key` to `value`.
    Put {
        /// 1..=[`KEY_BYTES_MAX`] bytes.
        key: B,
        /// 0..=[`VALUE_BYTES_MAX`] bytes.
        value: B,
        /// Only if the key is absent; else the answer is [`Answer::Exists`].
        if_absent: bool,
        /// Whether the answer shall carry what was there.
        want_previous: bool,
    },
    /// Removes `key`.
    Del {
        /// 1..=[`KEY_BYTES_MAX`] bytes.
        key: B,
        /// Whether the answer shall carry what was there.
        want_previous: bool,
    },
    /// Sets `key` to `value` if what is there is as expected; decided when applied.
    Cas {
        /// 1..=[`KEY_BYTES_MAX`] bytes.
        key: B,
        /// What must be there.
        expect: Expect<B>,
        /// 0..=[`VALUE_BYTES_MAX`] bytes.
        value: B,
        /// Whether the answer shall carry what was there.
        want_previous: bool,
    },
}

/// What a `cas` compares with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect<B = Bytes> {
    /// The value, byte by byte.
    Value(B),
    /// The revision of the key's last change, which never repeats (`rules.md` 21).
    Version(u64),
}

/// A value with the revisions of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// Revision that created the key.
    pub created: u64,
    /// Revision of the key's last change: its version for `cas`.
    pub version: u64,
}

/// What a write found before it, where the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Not asked for.
    NotAsked,
    /// The key was absent.
    Absent,
    /// This was there.
    Was(Versioned),
}

/// A command that was applied, or a read that was served: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The slot in which the command was applied; for a read, the slot up to which the answering node had applied.
    pub slot: Slot,
    /// The store's revision after it.
    pub revision: u64,
    /// The answer, which may be no.
    pub answer: Answer,
}

/// An answer. `Exists`, `NotFound` and `CasFailed` are answers, not errors: they were decided by the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OPEN: the slot that names the session from now on.
    Opened {
        /// To be named by every request of the session.
        opened: Slot,
    },
    /// CLOSE.
    Closed,
    /// A put, del or cas that took effect.
    Written {
        /// What was there before, where asked.
        previous: Previous,
    },
    /// A put-if-absent that found the key; what is there stands in it.
    Exists {
        /// What is there.
        current: Versioned,
    },
    /// A del or get of an absent key.
    NotFound,
    /// A cas that did not match; what is there now stands in it.
    CasFailed {
        /// What is there; none if the key is absent.
        current: Option<Versioned>,
    },
    /// A get of a present key.
    Found(Versioned),
}

/// Refused when applied, unrun and not kept in the table: settles its own attempt only (`rules.md` 19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session is unknown: never opened, closed, expired or pushed out.
    SessionExpired,
    /// The number is below the session's mark: its reply is no longer kept, and it is never run again.
    NumberForgotten,
    /// A bound of the session would be exceeded.
    Busy,
}

impl<B> Op<B> {
    /// The key that the op is about, if it is about one.
    pub fn key(&self) -> Option<&B> {
        match self {
            Op::Open | Op::Close => None,
            Op::Put { key, .. } | Op::Del { key, .. } | Op::Cas { key, .. } => Some(key),
        }
    }

    /// The op's name in logs, scripts and summaries.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Close => "close",
            Op::Put { .. } => "put",
            Op::Del { .. } => "del",
            Op::Cas { .. } => "cas",
        }
    }
}
