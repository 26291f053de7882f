//! What clients send and get, and the classes of outcome (`rules.md` 17).

use crate::kv::{Done, Op, SessionRef, Versioned};
use crate::paxos::{NodeId, Slot};
use bytes::Bytes;

/// A client's request. Its id stands in the frame's header and is echoed by every reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Time that the client still waits, in milliseconds from sending.
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
    pub leader: Option<(NodeId, String)>,
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
}

impl Code {
    /// Every code, in the order of their bytes.
    pub const ALL: [Code; 15] = [
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
    ];

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
