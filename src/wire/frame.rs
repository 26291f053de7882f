//! Framing: `length u32 | crc32 u32 | type u8 | flags u8 | group u16 | request id u64 | body`, big-endian.
//!
//! `length` counts what follows the crc; the crc covers the length and all that follows the crc, so that a flipped
//! length does not pass. How a receiver goes on: [`next_frame`] splits a frame off what was read, the receiver judges
//! by [`Header::frame_type`] whether this sender may send it now, and [`decode`] reads the body. Invariants:
//! * A length is judged before anything is allocated, and before the rest of the frame has arrived.
//! * Whatever [`encode`] makes, `next_frame` and `decode` give back; the bytes of a frame are a function of it.
//!
//! Not here: the layouts of bodies (`agreement`, `command`, `answer`, [`super::hello`], [`super::transfer`]).

use super::body::{BODY_BYTES_MAX, BODY_HEAD_BYTES};
use super::bytes::{DecodeError, Reader, Writer};
use super::hello::{self, put_hello, put_roster, take_hello, take_roster};
use super::message::{ErrorCode, WORDS_BYTES_MAX};
use super::{Frame, agreement, answer, command, transfer};
use crate::paxos::{Entry, Message, message::AcceptedEntry};
use byteorder::{BigEndian, ByteOrder};
use bytes::{Buf, Bytes, BytesMut};
use std::fmt;

/// Highest value of a frame's length field.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Highest value of the length field before a connection has said HELLO.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Lowest value of the length field: type, flags, group and request id.
pub const FRAME_BYTES_MIN: usize = 12;
/// Length and crc.
const PREFIX_BYTES: usize = 8;
/// All that stands before the body.
pub const HEADER_BYTES: usize = PREFIX_BYTES + FRAME_BYTES_MIN;
/// A PROMISE closes its part before the entry that would bring its entries above this; it holds at least one.
pub const PROMISE_PART_BYTES: usize = 1 << 20;
/// The same bound for CHOSEN.
pub const CHOSEN_CHUNK_BYTES: usize = 1 << 20;
/// Most slots that one ACCEPTED votes for; far above what an acceptor syncs in one turn.
pub const ACCEPTED_SLOTS_MAX: u64 = 65_536;
/// Longest text of a status, bytes.
pub const STATUS_BYTES_MAX: usize = 1 << 20;
/// Longest principal of a FORWARD.
pub const PRINCIPAL_BYTES_MAX: usize = 1024;

/// More than any message carries beside one entry body, or one command, of the largest size.
const BESIDE_BODY_BYTES: usize = 4 << 10;
const _: () = assert!(
    BODY_BYTES_MAX + BESIDE_BODY_BYTES <= FRAME_BYTES_MAX,
    "the largest entry fits ACCEPT, a PROMISE part and a CHOSEN chunk"
);
const _: () = assert!(
    PROMISE_PART_BYTES + BESIDE_BODY_BYTES <= FRAME_BYTES_MAX
        && CHOSEN_CHUNK_BYTES + BESIDE_BODY_BYTES <= FRAME_BYTES_MAX,
    "a part of many entries fits, too"
);
// Whoever fills a part may count bodies alone: with the smallest of them, what stands before each still fits.
const _: () = assert!(
    PROMISE_PART_BYTES / BODY_HEAD_BYTES * (agreement::ACCEPTED_ENTRY_HEAD_BYTES + BODY_HEAD_BYTES) + BESIDE_BODY_BYTES
        <= FRAME_BYTES_MAX,
    "a part of the smallest entries fits"
);

/// Room for a frame without values and entries, about.
const SMALL_FRAME_BYTES: usize = 128;
/// The flag that says that further replies to the same request follow. No request of this version has more than one.
const FLAG_MORE: u8 = 1;

/// The type of a frame, as its byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "each is described where its content is: `Frame` and `paxos::Message`"
)]
pub enum FrameType {
    Hello = 0x01,
    Ping = 0x02,
    Pong = 0x03,
    Error = 0x04,
    Prepare = 0x10,
    Promise = 0x11,
    Accept = 0x12,
    Accepted = 0x13,
    Nack = 0x14,
    PreVote = 0x15,
    PreVoteAnswer = 0x16,
    Heartbeat = 0x17,
    HeartbeatAck = 0x18,
    Fetch = 0x19,
    Chosen = 0x1a,
    HandOver = 0x1b,
    Recover = 0x1c,
    RecoverAnswer = 0x1d,
    Forgotten = 0x1e,
    Release = 0x1f,
    Roster = 0x20,
    Forward = 0x21,
    ForwardReply = 0x22,
    SnapshotOffer = 0x23,
    SnapshotAsk = 0x24,
    SnapshotChunk = 0x25,
    ReadPosition = 0x26,
    ReadPositionAnswer = 0x27,
    Request = 0x30,
    Reply = 0x31,
}

/// What a frame's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What stands in the body.
    pub frame_type: FrameType,
    /// Whether further replies to the same request follow (`rules.md` 28); no reply of this version sets it.
    pub more: bool,
    /// Of REQUEST and REPLY the client's id of the request, of FORWARD and FORWARD_REPLY the forwarder's relay number;
    /// 0 in all others.
    pub request_id: u64,
}

/// Why a frame was refused. Any of these closes its connection; none stops the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Above the limit; found before anything is allocated.
    TooLong {
        /// What the length field says.
        length: u32,
        /// The limit at this moment: [`HELLO_BYTES_MAX`] or [`FRAME_BYTES_MAX`].
        limit: usize,
    },
    /// Below [`FRAME_BYTES_MIN`].
    TooShort {
        /// What the length field says.
        length: u32,
    },
    /// The crc is not that of the bytes.
    Checksum {
        /// What the frame says.
        stated: u32,
        /// What the bytes have.
        computed: u32,
    },
    /// No type of this version.
    UnknownType {
        /// The type's byte.
        byte: u8,
    },
    /// A flag that this version does not know.
    UnknownFlags {
        /// All flags.
        byte: u8,
    },
    /// A group other than 0.
    UnknownGroup {
        /// Which.
        group: u16,
    },
}

impl FrameType {
    /// Every type, in the order of their bytes.
    pub const ALL: [FrameType; 30] = [
        FrameType::Hello,
        FrameType::Ping,
        FrameType::Pong,
        FrameType::Error,
        FrameType::Prepare,
        FrameType::Promise,
        FrameType::Accept,
        FrameType::Accepted,
        FrameType::Nack,
        FrameType::PreVote,
        FrameType::PreVoteAnswer,
        FrameType::Heartbeat,
        FrameType::HeartbeatAck,
        FrameType::Fetch,
        FrameType::Chosen,
        FrameType::HandOver,
        FrameType::Recover,
        FrameType::RecoverAnswer,
        FrameType::Forgotten,
        FrameType::Release,
        FrameType::Roster,
        FrameType::Forward,
        FrameType::ForwardReply,
        FrameType::SnapshotOffer,
        FrameType::SnapshotAsk,
        FrameType::SnapshotChunk,
        FrameType::ReadPosition,
        FrameType::ReadPositionAnswer,
        FrameType::Request,
        FrameType::Reply,
    ];

    /// The type that each byte stands for.
    const OF_BYTE: [Option<FrameType>; 256] = {
        let mut types = [None; 256];
        let mut at = 0;
        while at < FrameType::ALL.len() {
            types[FrameType::ALL[at] as usize] = Some(FrameType::ALL[at]);
            at += 1;
        }
        types
    };

    /// The type's byte.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The type of a byte found in a header.
    ///
    /// # Errors
    /// [`FrameError::UnknownType`].
    pub fn from_byte(byte: u8) -> Result<FrameType, FrameError> {
        FrameType::OF_BYTE[usize::from(byte)].ok_or(FrameError::UnknownType { byte })
    }

    /// The type of a message of agreement.
    pub fn of_message(message: &Message) -> FrameType {
        match message {
            Message::Prepare { .. } => FrameType::Prepare,
            Message::Promise(_) => FrameType::Promise,
            Message::Accept { .. } => FrameType::Accept,
            Message::Accepted { .. } => FrameType::Accepted,
            Message::Nack { .. } => FrameType::Nack,
            Message::PreVote { .. } => FrameType::PreVote,
            Message::PreVoteAnswer { .. } => FrameType::PreVoteAnswer,
            Message::Heartbeat(_) => FrameType::Heartbeat,
            Message::HeartbeatAck(_) => FrameType::HeartbeatAck,
            Message::Fetch { .. } => FrameType::Fetch,
            Message::Chosen { .. } => FrameType::Chosen,
            Message::HandOver { .. } => FrameType::HandOver,
            Message::Recover { .. } => FrameType::Recover,
            Message::RecoverAnswer(_) => FrameType::RecoverAnswer,
            Message::Forgotten { .. } => FrameType::Forgotten,
            Message::Release { .. } => FrameType::Release,
            Message::ReadPosition { .. } => FrameType::ReadPosition,
            Message::ReadPositionAnswer { .. } => FrameType::ReadPositionAnswer,
        }
    }

    /// The type of a frame.
    pub fn of(frame: &Frame) -> FrameType {
        match frame {
            Frame::Hello(_) => FrameType::Hello,
            Frame::Paxos(message) => FrameType::of_message(message),
            Frame::Roster { .. } => FrameType::Roster,
            Frame::Transfer(transfer) => transfer.frame_type(),
            Frame::Forward { .. } => FrameType::Forward,
            Frame::ForwardReply(_) => FrameType::ForwardReply,
            Frame::Request(_) => FrameType::Request,
            Frame::Reply(_) => FrameType::Reply,
            Frame::Ping { .. } => FrameType::Ping,
            Frame::Pong { .. } => FrameType::Pong,
            Frame::Error { .. } => FrameType::Error,
        }
    }

    /// Whether a client may send it.
    pub fn allowed_from_client(self) -> bool {
        matches!(
            self,
            FrameType::Hello
                | FrameType::Ping
                | FrameType::Pong
                | FrameType::Error
                | FrameType::Request
                | FrameType::SnapshotAsk
        )
    }

    /// Whether it answers a leader or candidate in a few bytes: then it goes back on the connection that brought the question
    /// (`protocol.md`, *How nodes connect*). READ_POSITION_ANSWER is none: its watermark must not overtake the ACCEPTs below it.
    pub fn is_short_answer(self) -> bool {
        matches!(
            self,
            FrameType::Accepted | FrameType::Nack | FrameType::PreVoteAnswer | FrameType::HeartbeatAck
        )
    }

    /// The feature bits of those who know it: whom else it reached would close the connection. Not among them, as it is about
    /// the way and not the frame: [`FEATURE_ANSWERS`](super::hello::FEATURE_ANSWERS).
    pub fn needs(self) -> u64 {
        match self {
            FrameType::Recover | FrameType::RecoverAnswer | FrameType::Forgotten => hello::FEATURE_RECOVERY,
            FrameType::SnapshotOffer | FrameType::SnapshotAsk | FrameType::SnapshotChunk => hello::FEATURE_SNAPSHOTS,
            FrameType::Release => hello::FEATURE_LEASES,
            FrameType::ReadPosition | FrameType::ReadPositionAnswer => hello::FEATURE_READ_POSITIONS,
            _ => 0,
        }
    }

    /// Whether a node may send it to a node.
    pub fn allowed_from_node(self) -> bool {
        !matches!(self, FrameType::Request | FrameType::Reply)
    }
}

/// Appends `frame` to `out`, header and all.
///
/// # Panics
/// If it is longer than [`FRAME_BYTES_MAX`]: sizes are checked where a value enters the process
/// ([`Request::check`](super::Request::check)), and the constants above leave room for all that is legal.
pub fn encode(frame: &Frame, request_id: u64, out: &mut Vec<u8>) {
    let start = out.len();
    let mut header = [0; HEADER_BYTES]; // no flags, group 0; length and crc are known at the end
    header[PREFIX_BYTES] = FrameType::of(frame).byte();
    BigEndian::write_u64(&mut header[PREFIX_BYTES + 4..], request_id);
    out.extend_from_slice(&header);
    put_body(frame, &mut Writer::new(out));
    let length = out.len() - start - PREFIX_BYTES;
    assert!(
        length <= FRAME_BYTES_MAX,
        "{} of {length} bytes, at most {FRAME_BYTES_MAX} can be sent",
        frame.name()
    );
    let (prefix, content) = out[start..].split_at_mut(PREFIX_BYTES);
    let (length_field, crc_field) = prefix.split_at_mut(4);
    BigEndian::write_u32(length_field, length as u32);
    BigEndian::write_u32(crc_field, checksum(length_field, content));
}

/// The bytes of `frame`, to be shared: a frame without anything of one peer's own is encoded once for all peers.
pub fn encode_to_bytes(frame: &Frame, request_id: u64) -> Bytes {
    let body_bytes = match frame {
        Frame::Paxos(Message::Accept { entry, .. }) => entry.body.len(),
        _ => 0,
    };
    let mut out = Vec::with_capacity(body_bytes + SMALL_FRAME_BYTES);
    encode(frame, request_id, &mut out);
    Bytes::from(out)
}

/// Splits the first whole frame off `buffer`; `Ok(None)`: it has not arrived whole yet. `limit` bounds the length field.
///
/// # Errors
/// Any [`FrameError`]; the buffer is of no use then, since nobody knows where the next frame begins.
pub fn next_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<(Header, Bytes)>, FrameError> {
    let Some(length_field) = buffer.get(..4) else {
        return Ok(None);
    };
    let length = BigEndian::read_u32(length_field);
    let length_bytes = length as usize;
    if length_bytes > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if length_bytes < FRAME_BYTES_MIN {
        return Err(FrameError::TooShort { length });
    }
    if buffer.len() < PREFIX_BYTES + length_bytes {
        return Ok(None);
    }
    let (prefix, content) = buffer[..PREFIX_BYTES + length_bytes].split_at(PREFIX_BYTES);
    let stated = BigEndian::read_u32(&prefix[4..]);
    let computed = checksum(&prefix[..4], content);
    if stated != computed {
        return Err(FrameError::Checksum { stated, computed });
    }
    let header = read_header(content)?;
    buffer.advance(HEADER_BYTES);
    let body = buffer.split_to(length_bytes - FRAME_BYTES_MIN).freeze();
    Ok(Some((header, body)))
}

/// After `Ok(None)` of [`next_frame`]: how many bytes the frame at the front still lacks; 0 while its length is not there.
pub fn bytes_missing(buffer: &[u8]) -> usize {
    match buffer.get(..4) {
        Some(length_field) => (PREFIX_BYTES + BigEndian::read_u32(length_field) as usize).saturating_sub(buffer.len()),
        None => 0,
    }
}

/// What stands in the body of a frame with this header. Byte strings are slices of `body`.
///
/// # Errors
/// Any [`DecodeError`].
pub fn decode(header: Header, body: Bytes) -> Result<Frame, DecodeError> {
    if header.more {
        // Nothing that this version asks for has a second reply.
        return Err(DecodeError::Unknown {
            field: "flags",
            byte: FLAG_MORE,
        });
    }
    let mut from = Reader::new(&body);
    let frame = take_body(header.frame_type, &mut from)?;
    from.finish()?;
    Ok(frame)
}

/// Whether the first bytes of a connection are text: a person or a program that takes this port for another. No frame
/// begins so, since its length would be above every limit.
pub fn looks_like_text(first: &[u8]) -> bool {
    let first = &first[..first.len().min(4)];
    !first.is_empty()
        && first
            .iter()
            .all(|&byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

/// Bytes that an entry takes in a PROMISE.
pub fn accepted_entry_bytes(accepted: &AcceptedEntry) -> usize {
    agreement::ACCEPTED_ENTRY_HEAD_BYTES + accepted.entry.body.len()
}

/// Bytes that an entry takes in a CHOSEN.
pub fn chosen_entry_bytes(entry: &Entry) -> usize {
    agreement::ENTRY_HEAD_BYTES + entry.body.len()
}

fn put_body(frame: &Frame, out: &mut Writer<'_>) {
    match frame {
        Frame::Hello(hello) => put_hello(hello, out),
        Frame::Paxos(message) => agreement::put_message(message, out),
        Frame::Roster { founded, roster } => {
            out.flag(*founded);
            put_roster(roster, out);
        }
        Frame::Transfer(transfer) => transfer::put_transfer(transfer, out),
        Frame::Forward { principal, request } => {
            out.length16(principal.len());
            out.slice(principal);
            command::put_request(request, out);
        }
        Frame::ForwardReply(reply) | Frame::Reply(reply) => answer::put_reply(reply, out),
        Frame::Request(request) => command::put_request(request, out),
        Frame::Ping { nonce } | Frame::Pong { nonce } => out.u64(*nonce),
        Frame::Error { code, detail } => {
            out.u8(code.byte());
            out.words16(detail, WORDS_BYTES_MAX);
        }
    }
}

fn take_body(frame_type: FrameType, from: &mut Reader<'_>) -> Result<Frame, DecodeError> {
    Ok(match frame_type {
        FrameType::Hello => Frame::Hello(take_hello(from)?),
        FrameType::Ping => Frame::Ping {
            nonce: from.u64("nonce")?,
        },
        FrameType::Pong => Frame::Pong {
            nonce: from.u64("nonce")?,
        },
        FrameType::Error => Frame::Error {
            code: ErrorCode::from_byte(from.u8("code")?)?,
            detail: from.text16(WORDS_BYTES_MAX, "detail")?,
        },
        FrameType::Roster => Frame::Roster {
            founded: from.flag("founded")?,
            roster: take_roster(from)?,
        },
        FrameType::SnapshotOffer => Frame::Transfer(transfer::take_offer(from)?),
        FrameType::SnapshotAsk => Frame::Transfer(transfer::take_ask(from)?),
        FrameType::SnapshotChunk => Frame::Transfer(transfer::take_chunk(from)?),
        FrameType::Forward => Frame::Forward {
            principal: take_principal(from)?,
            request: command::take_request(from)?,
        },
        FrameType::ForwardReply => Frame::ForwardReply(answer::take_reply(from)?),
        FrameType::Request => Frame::Request(command::take_request(from)?),
        FrameType::Reply => Frame::Reply(answer::take_reply(from)?),
        FrameType::Prepare
        | FrameType::Promise
        | FrameType::Accept
        | FrameType::Accepted
        | FrameType::Nack
        | FrameType::PreVote
        | FrameType::PreVoteAnswer
        | FrameType::Heartbeat
        | FrameType::HeartbeatAck
        | FrameType::Fetch
        | FrameType::Chosen
        | FrameType::HandOver
        | FrameType::Recover
        | FrameType::RecoverAnswer
        | FrameType::Forgotten
        | FrameType::Release
        | FrameType::ReadPosition
        | FrameType::ReadPositionAnswer => Frame::Paxos(agreement::take_message(frame_type, from)?),
    })
}

fn take_principal(from: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    match usize::from(from.u16("principal length")?) {
        length if length <= PRINCIPAL_BYTES_MAX => Ok(from.slice(length, "principal")?.to_vec()),
        length => Err(DecodeError::OutOfRange {
            field: "principal length",
            value: length as u64,
        }),
    }
}

/// The header at the front of what follows the crc; the caller has seen that it is there.
fn read_header(content: &[u8]) -> Result<Header, FrameError> {
    let frame_type = FrameType::from_byte(content[0])?;
    let flags = content[1];
    if flags & !FLAG_MORE != 0 {
        return Err(FrameError::UnknownFlags { byte: flags });
    }
    let group = BigEndian::read_u16(&content[2..]);
    if group != 0 {
        return Err(FrameError::UnknownGroup { group });
    }
    Ok(Header {
        frame_type,
        more: flags & FLAG_MORE != 0,
        request_id: BigEndian::read_u64(&content[4..]),
    })
}

fn checksum(length_field: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length_field);
    hasher.update(content);
    hasher.finalize()
}

impl FrameError {
    /// The code under which the sender is told and the event is counted.
    pub fn code(&self) -> ErrorCode {
        match self {
            FrameError::TooLong { .. } | FrameError::TooShort { .. } => ErrorCode::BadLength,
            FrameError::Checksum { .. } => ErrorCode::BadChecksum,
            FrameError::UnknownType { .. } => ErrorCode::UnknownType,
            FrameError::UnknownFlags { .. } | FrameError::UnknownGroup { .. } => ErrorCode::BadBody,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { length, limit } => write!(f, "frame of {length} bytes, at most {limit} now"),
            FrameError::TooShort { length } => write!(f, "frame of {length} bytes, at least {FRAME_BYTES_MIN}"),
            FrameError::Checksum { stated, computed } => {
                write!(f, "frame has crc {computed:08x}, stated is {stated:08x}")
            }
            FrameError::UnknownType { byte } => write!(f, "unknown frame type 0x{byte:02x}"),
            FrameError::UnknownFlags { byte } => write!(f, "unknown flags 0x{byte:02x}"),
            FrameError::UnknownGroup { group } => write!(f, "group {group}, only 0 is known"),
        }
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ping() -> Vec<u8> {
        encode_to_bytes(&Frame::Ping { nonce: 7 }, 0).to_vec()
    }

    fn split(bytes: &[u8], limit: usize) -> Result<Option<(Header, Bytes)>, FrameError> {
        next_frame(&mut BytesMut::from(bytes), limit)
    }

    /// A frame whose crc is right, whatever stands in its header.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = checksum(&bytes[..4], &bytes[PREFIX_BYTES..]);
        BigEndian::write_u32(&mut bytes[4..PREFIX_BYTES], crc);
        bytes
    }

    #[test]
    fn a_frame_comes_out_once_its_last_byte_is_there() {
        let bytes = ping();
        let mut buffer = BytesMut::new();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(next_frame(&mut buffer, HELLO_BYTES_MAX), Ok(None), "{at} bytes");
            let missing = if at < 4 { 0 } else { bytes.len() - at };
            assert_eq!(bytes_missing(&buffer), missing, "{at} bytes");
            buffer.extend_from_slice(&[*byte]);
        }
        buffer.extend_from_slice(&bytes[..5]);
        let (header, body) = next_frame(&mut buffer, HELLO_BYTES_MAX)
            .expect("the frame is good")
            .expect("the frame is whole");
        assert_eq!(decode(header, body), Ok(Frame::Ping { nonce: 7 }));
        assert_eq!(&buffer[..], &bytes[..5], "what follows stays");
    }

    #[test]
    fn a_length_is_judged_before_the_rest_has_arrived() {
        let limit = HELLO_BYTES_MAX;
        let max = limit as u32;
        // length field, what becomes of it
        let table = [
            (0, Err(FrameError::TooShort { length: 0 })),
            (11, Err(FrameError::TooShort { length: 11 })),
            (12, Ok(None)),
            (max, Ok(None)),
            (max + 1, Err(FrameError::TooLong { length: max + 1, limit })),
            (
                u32::MAX,
                Err(FrameError::TooLong {
                    length: u32::MAX,
                    limit,
                }),
            ),
        ];
        for (length, expected) in table {
            assert_eq!(split(&length.to_be_bytes(), limit), expected, "length {length}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = ping();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A longer length waits for bytes that never come; the deadline of a frame ends that.
            assert!(!matches!(split(&flipped, FRAME_BYTES_MAX), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_this_version_does_not_know_is_refused() {
        let with = |at: usize, byte: u8| {
            let mut bytes = ping();
            bytes[at] = byte;
            split(&sealed(bytes), FRAME_BYTES_MAX)
        };
        assert_eq!(with(8, 0xee), Err(FrameError::UnknownType { byte: 0xee }));
        assert_eq!(with(9, 2), Err(FrameError::UnknownFlags { byte: 2 }));
        assert_eq!(with(11, 1), Err(FrameError::UnknownGroup { group: 1 }));
        let (header, body) = with(9, FLAG_MORE).expect("the flag is known").expect("whole");
        assert!(header.more && decode(header, body).is_err(), "but nothing uses it yet");
    }

    #[test]
    fn text_is_told_from_frames() {
        for text in ["GET / HTTP/1.1\r\n", "put a b\n", "help\n", "\r\n", "h"] {
            assert!(looks_like_text(text.as_bytes()), "{text:?}");
        }
        for other in [&b""[..], &[0, 0, 0, 20], &[0x16, 3, 1, 0], &ping()] {
            assert!(!looks_like_text(other), "{other:?}");
        }
    }
}
