//! Everything that can stand in a frame after the handshake began, as types.

use super::bytes::DecodeError;
use super::{Hello, Reply, Request, RosterEntry, Transfer};
use crate::paxos;
use std::fmt;

/// Longest words for a person in an ERROR or a refusal, bytes; longer ones are cut when encoded.
pub const WORDS_BYTES_MAX: usize = 1024;

/// The content of one frame. The frame's header carries type, flags, group (0) and request id (`rules.md` 28).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First in both directions.
    Hello(Hello),
    /// Between nodes: agreement.
    Paxos(paxos::Message),
    /// Between nodes: the roster that the sender holds on disk, and whether it knows the cluster as founded.
    Roster {
        /// Whether founded.
        founded: bool,
        /// All founders.
        roster: Vec<RosterEntry>,
    },
    /// Between nodes: a snapshot's file on its way.
    Transfer(Transfer),
    /// Between nodes: a client's request, relayed once. The header's request id is the relay number of the forwarder.
    Forward {
        /// Who asks (`rules.md` 31); empty today.
        principal: Vec<u8>,
        /// The request under the client's own session and number; its deadline is what is left of it.
        request: Request,
    },
    /// Between nodes: the answer to a FORWARD, under its relay number.
    ForwardReply(Reply),
    /// From a client.
    Request(Request),
    /// To a client.
    Reply(Reply),
    /// Either way on any connection: is somebody there? Answered on the same connection.
    Ping {
        /// Echoed.
        nonce: u64,
    },
    /// Answers PING.
    Pong {
        /// Echo.
        nonce: u64,
    },
    /// The last frame before the sender closes the connection: why.
    Error {
        /// Which fault of the bytes or the handshake.
        code: ErrorCode,
        /// Words for a person, at most 1 KiB.
        detail: String,
    },
}

/// Why a connection is refused or closed. Table in `protocol.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The first bytes were not a HELLO of this protocol.
    BadMagic,
    /// No common protocol version.
    BadVersion,
    /// Another cluster's name or id.
    WrongCluster,
    /// The peer's id is not in the roster (or list).
    UnknownNode,
    /// The peer's list of nodes differs.
    WrongRoster,
    /// The peer's incarnation is not the one remembered: it lost its memory, or two directories go by one id.
    WrongIncarnation,
    /// The peer calls itself by the receiver's own id.
    OwnId,
    /// Length over the limit, or too short to be a frame.
    BadLength,
    /// The checksum does not match.
    BadChecksum,
    /// A type that is not known.
    UnknownType,
    /// The body does not decode: truncated, left-over bytes, or a value out of range.
    BadBody,
    /// A frame that this kind of sender may not send, or not now.
    NotAllowed,
    /// No HELLO within 5 s, or a frame not finished within 10 s.
    TooSlow,
    /// The limit of connections is reached.
    TooManyConnections,
    /// The receiver did not read its answers and its queue is full.
    SlowReader,
    /// The node is shutting down.
    ShuttingDown,
    /// A newer connection of the same peer took this one's place.
    Replaced,
    /// The peer said what no node that keeps the rules of agreement says.
    Contradiction,
}

impl ErrorCode {
    /// Every code, in the order of their bytes.
    pub const ALL: [ErrorCode; 18] = [
        ErrorCode::BadMagic,
        ErrorCode::BadVersion,
        ErrorCode::WrongCluster,
        ErrorCode::UnknownNode,
        ErrorCode::WrongRoster,
        ErrorCode::WrongIncarnation,
        ErrorCode::OwnId,
        ErrorCode::BadLength,
        ErrorCode::BadChecksum,
        ErrorCode::UnknownType,
        ErrorCode::BadBody,
        ErrorCode::NotAllowed,
        ErrorCode::TooSlow,
        ErrorCode::TooManyConnections,
        ErrorCode::SlowReader,
        ErrorCode::ShuttingDown,
        ErrorCode::Replaced,
        ErrorCode::Contradiction,
    ];

    /// The code's byte: its place among all, from 1.
    pub fn byte(self) -> u8 {
        self as u8 + 1
    }

    /// The code of a byte found in a frame.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_byte(byte: u8) -> Result<ErrorCode, DecodeError> {
        let known = ErrorCode::ALL.into_iter().find(|code| code.byte() == byte);
        known.ok_or(DecodeError::Unknown {
            field: "error code",
            byte,
        })
    }

    /// The code's name in logs, counters and `protocol.md`.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::BadMagic => "bad_magic",
            ErrorCode::BadVersion => "bad_version",
            ErrorCode::WrongCluster => "wrong_cluster",
            ErrorCode::UnknownNode => "unknown_node",
            ErrorCode::WrongRoster => "wrong_roster",
            ErrorCode::WrongIncarnation => "wrong_incarnation",
            ErrorCode::OwnId => "own_id",
            ErrorCode::BadLength => "bad_length",
            ErrorCode::BadChecksum => "bad_checksum",
            ErrorCode::UnknownType => "unknown_type",
            ErrorCode::BadBody => "bad_body",
            ErrorCode::NotAllowed => "not_allowed",
            ErrorCode::TooSlow => "too_slow",
            ErrorCode::TooManyConnections => "too_many_connections",
            ErrorCode::SlowReader => "slow_reader",
            ErrorCode::ShuttingDown => "shutting_down",
            ErrorCode::Replaced => "replaced",
            ErrorCode::Contradiction => "contradiction",
        }
    }
}

impl Frame {
    /// The frame's name in logs, the ring and `protocol.md`.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Hello(_) => "HELLO",
            Frame::Paxos(message) => message.name(),
            Frame::Roster { .. } => "ROSTER",
            Frame::Transfer(transfer) => transfer.name(),
            Frame::Forward { .. } => "FORWARD",
            Frame::ForwardReply(_) => "FORWARD_REPLY",
            Frame::Request(_) => "REQUEST",
            Frame::Reply(_) => "REPLY",
            Frame::Ping { .. } => "PING",
            Frame::Pong { .. } => "PONG",
            Frame::Error { .. } => "ERROR",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
