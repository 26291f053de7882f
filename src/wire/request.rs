//! What clients send and get, and the classes of outcome (`rules.md` 17).

use super::bytes::DecodeError;
use crate::kv::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::kv::{Done, Expect, Op, SessionRef, Versioned};
use crate::paxos::{NodeId, Slot};
use bytes::Bytes;
use std::sync::Arc;

/// A client's request. Its id stands in the frame's header and is echoed by every reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Time that the client still waits, in milliseconds from sending; 0: not said, the node takes its own default.
    pub deadline_ms: u32,
    /// The session of a write; zero for reads, status and OPEN's slot.
    pub session: SessionRef,
    /// The write's number in its session; 0 for reads, OPEN and CLOSE.
    pub number: u64,
    /// Lowest number still outstanding in the session.
    pub low: u64,
    /// What is asked.
    pub op: RequestOp,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// Goes through the log.
    Write(Op),
    /// Linearizable read.
    Get {
        /// Which key.
        key: Bytes,
    },
    /// Read of the answering node's own state.
    GetStale {
        /// Which key.
        key: Bytes,
        /// Waits until the node has applied this slot; 0: no wait.
        at_least: Slot,
    },
    /// The answering node's status: the JSON text of `json status`. Never forwarded.
    Status,
}

/// What a request ends in, and where the leader is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Exactly one class.
    pub outcome: Outcome,
    /// The leader that the answering node knows, and the address that it advertises (empty if not known).
    pub leader: Option<(NodeId, Arc<str>)>,
}

/// One of three classes. No code straddles two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with its answer.
    Done(Served),
    /// Certainly not done, by this attempt.
    NotDone {
        /// Why.
        code: Code,
        /// When it may make sense to try again, milliseconds; 0: the node cannot say.
        retry_after_ms: u32,
        /// More words for a person; may be empty, at most 1 KiB.
        detail: String,
    },
    /// It may or may not take effect.
    Unknown {
        /// Why.
        code: Code,
    },
}

/// What was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A write or a linearizable read.
    Done(Done),
    /// A stale read.
    Stale {
        /// Slot up to which the answering node had applied.
        slot: Slot,
        /// Its revision then.
        revision: u64,
        /// The answer is at most so old, milliseconds; `u32::MAX`: the node cannot say.
        age_ms: u32,
        /// What is there; `None`: nothing.
        found: Option<Versioned>,
    },
    /// The status, JSON text.
    Status(String),
}

/// Why a request was not done, or is unknown. `class` says which; a code has one class for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The node does not lead, and the request was forwarded once already.
    NotLeader,
    /// The node knows no leader at present.
    NoLeader,
    /// The leader hears no quorum; said only before proposing.
    NoQuorum,
    /// The cluster is not founded yet.
    NotFounded,
    /// A queue is full, or a session is at its bound.
    Busy,
    /// Key, value or request over its limit.
    TooLarge,
    /// The request makes no sense: an empty key, a number of zero, a session without a slot.
    BadRequest,
    /// The session is unknown or expired; nothing was run.
    SessionExpired,
    /// The number is below the session's mark; nothing was run.
    NumberForgotten,
    /// The deadline passed before anything was proposed.
    Expired,
    /// A quorum is out of disk space.
    NoSpace,
    /// The node is shutting down and had not proposed it.
    ShuttingDown,
    /// A stale read waited for a slot that was not applied in time.
    NotCaughtUp,
    /// Unknown: the leader stepped down, died or was lost with the request on its way or proposed.
    LeaderLost,
    /// Unknown: the deadline passed after the request was on its way or proposed.
    DeadlinePassed,
    /// The node's state differs from another node's: it may be the wrong one, and serves nobody.
    Diverged,
}

impl RequestOp {
    /// The op's name in logs, events and summaries.
    pub fn name(&self) -> &'static str {
        match self {
            RequestOp::Write(op) => op.name(),
            RequestOp::Get { .. } => "get",
            RequestOp::GetStale { .. } => "get_stale",
            RequestOp::Status => "status",
        }
    }
}

impl Code {
    /// Every code, in the order of their bytes.
    pub const ALL: [Code; 16] = [
        Code::NotLeader,
        Code::NoLeader,
        Code::NoQuorum,
        Code::NotFounded,
        Code::Busy,
        Code::TooLarge,
        Code::BadRequest,
        Code::SessionExpired,
        Code::NumberForgotten,
        Code::Expired,
        Code::NoSpace,
        Code::ShuttingDown,
        Code::NotCaughtUp,
        Code::LeaderLost,
        Code::DeadlinePassed,
        Code::Diverged,
    ];

    /// The code's byte: its place among all, from 1.
    pub fn byte(self) -> u8 {
        self as u8 + 1
    }

    /// The code of a byte found in a frame.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_byte(byte: u8) -> Result<Code, DecodeError> {
        let known = Code::ALL.into_iter().find(|code| code.byte() == byte);
        known.ok_or(DecodeError::Unknown { field: "code", byte })
    }

    /// The code's name in replies, logs and `protocol.md`.
    pub fn name(self) -> &'static str {
        match self {
            Code::NotLeader => "not_leader",
            Code::NoLeader => "no_leader",
            Code::NoQuorum => "no_quorum",
            Code::NotFounded => "not_founded",
            Code::Busy => "busy",
            Code::TooLarge => "too_large",
            Code::BadRequest => "bad_request",
            Code::SessionExpired => "session_expired",
            Code::NumberForgotten => "number_forgotten",
            Code::Expired => "expired",
            Code::NoSpace => "no_space",
            Code::ShuttingDown => "shutting_down",
            Code::NotCaughtUp => "not_caught_up",
            Code::LeaderLost => "leader_lost",
            Code::DeadlinePassed => "deadline_passed",
            Code::Diverged => "diverged",
        }
    }

    /// Whether the code belongs to the class "unknown"; else it says that nothing was done.
    pub fn is_unknown(self) -> bool {
        matches!(self, Code::LeaderLost | Code::DeadlinePassed)
    }

    /// Whether another attempt, perhaps at another node, may end otherwise.
    pub fn is_retryable(self) -> bool {
        !matches!(
            self,
            Code::TooLarge | Code::BadRequest | Code::SessionExpired | Code::NumberForgotten
        )
    }
}

impl Request {
    /// What the request alone shows: sizes, and whether the op has the session and number that it needs. A client checks
    /// before it sends, a node before it proposes; what passes fits every frame, batch, part and chunk.
    ///
    /// # Errors
    /// [`Code::TooLarge`] or [`Code::BadRequest`], with words for a person.
    pub fn check(&self) -> Result<(), (Code, String)> {
        if let RequestOp::Write(op) = &self.op {
            self.check_session(op)?;
        }
        self.op.check()
    }

    fn check_session(&self, op: &Op) -> Result<(), (Code, String)> {
        let bad = |words: &str| Err((Code::BadRequest, format!("{}: {words}", op.name())));
        if self.session.id == 0 {
            return bad("no session id");
        }
        let is_open = matches!(op, Op::Open);
        if is_open != (self.session.opened == Slot::ZERO) {
            return bad(if is_open {
                "names the slot that only its answer tells"
            } else {
                "names no slot that opened the session"
            });
        }
        let is_numbered = !matches!(op, Op::Open | Op::Close);
        if is_numbered != (self.number != 0) {
            return bad(if is_numbered { "no number" } else { "has a number" });
        }
        let low_range = if is_numbered { 1..=self.number } else { 0..=0 };
        if !low_range.contains(&self.low) {
            return bad(if is_numbered {
                "the low mark is not between 1 and the number"
            } else {
                "has a low mark"
            });
        }
        Ok(())
    }
}

impl RequestOp {
    /// The sizes of keys and values; for whoever has no session yet.
    ///
    /// # Errors
    /// As [`Request::check`].
    pub fn check(&self) -> Result<(), (Code, String)> {
        match self {
            RequestOp::Status => Ok(()),
            RequestOp::Get { key } | RequestOp::GetStale { key, .. } => check_key(key),
            RequestOp::Write(op) => check_op(op),
        }
    }
}

fn check_op(op: &Op) -> Result<(), (Code, String)> {
    match op {
        Op::Open | Op::Close => Ok(()),
        Op::Put { key, value, .. } => check_key(key).and_then(|()| check_value(value)),
        Op::Del { key, .. } => check_key(key),
        Op::Cas { key, expect, value, .. } => {
            check_key(key)?;
            if let Expect::Value(old) = expect {
                check_value(old)?;
            }
            check_value(value)
        }
    }
}

fn check_key(key: &Bytes) -> Result<(), (Code, String)> {
    match key.len() {
        0 => Err((Code::BadRequest, "the key is empty".into())),
        length if length > KEY_BYTES_MAX => Err((
            Code::TooLarge,
            format!("a key of {length} bytes, at most {KEY_BYTES_MAX}"),
        )),
        _ => Ok(()),
    }
}

fn check_value(value: &Bytes) -> Result<(), (Code, String)> {
    match value.len() {
        length if length > VALUE_BYTES_MAX => Err((
            Code::TooLarge,
            format!("a value of {length} bytes, at most {VALUE_BYTES_MAX}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_alone_shows_is_refused_before_it_is_proposed() {
        let session = SessionRef { id: 1, opened: Slot(1) };
        let unopened = SessionRef {
            id: 1,
            opened: Slot::ZERO,
        };
        let put = |key: usize, value: usize| Op::Put {
            key: vec![b'k'; key].into(),
            value: vec![b'v'; value].into(),
            if_absent: false,
            want_previous: false,
        };
        // session, number, low, op, refused as
        let table = [
            (session, 1, 1, put(1, 0), None),
            (session, 2, 1, put(KEY_BYTES_MAX, VALUE_BYTES_MAX), None),
            (session, 2, 0, put(1, 1), Some(Code::BadRequest)),
            (session, 1, 1, put(0, 1), Some(Code::BadRequest)),
            (session, 1, 1, put(KEY_BYTES_MAX + 1, 1), Some(Code::TooLarge)),
            (session, 1, 1, put(1, VALUE_BYTES_MAX + 1), Some(Code::TooLarge)),
            (session, 0, 0, put(1, 1), Some(Code::BadRequest)),
            (session, 1, 2, put(1, 1), Some(Code::BadRequest)),
            (unopened, 1, 1, put(1, 1), Some(Code::BadRequest)),
            (SessionRef::default(), 1, 1, put(1, 1), Some(Code::BadRequest)),
            (unopened, 0, 0, Op::Open, None),
            (session, 0, 0, Op::Open, Some(Code::BadRequest)),
            (unopened, 1, 0, Op::Open, Some(Code::BadRequest)),
            (unopened, 0, 1, Op::Open, Some(Code::BadRequest)),
            (session, 0, 0, Op::Close, None),
            (unopened, 0, 0, Op::Close, Some(Code::BadRequest)),
        ];
        for (session, number, low, op, refused) in table {
            let request = Request {
                deadline_ms: 1,
                session,
                number,
                low,
                op: RequestOp::Write(op),
            };
            let got = request.check().err().map(|(code, _)| code);
            assert_eq!(
                got,
                refused,
                "{:?} number {number} low {low}",
                (session.id, session.opened)
            );
        }
    }
}
