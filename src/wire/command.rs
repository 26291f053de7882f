//! Layout of commands: the same in a batch and, behind the deadline, in a REQUEST.
//!
//! `session id u128 | opened u64 | number u64 | low u64 | op u8 | what the op needs`. Sizes of keys and values are not
//! judged here: a key that is too long decodes, and is refused with a code that says so
//! ([`Request::check`](super::Request::check)) instead of costing the client its connection.

use super::bytes::{ByteString, DecodeError, Field, Reader, Writer};
use super::{Request, RequestOp};
use crate::kv::{Command, Expect, Op, SessionRef};
use crate::paxos::Slot;
use bytes::Bytes;

/// The shortest command: OPEN or CLOSE.
pub(super) const COMMAND_BYTES_MIN: usize = SESSION_BYTES + 1;
/// Session, number and low mark.
const SESSION_BYTES: usize = 16 + 8 + 8 + 8;

const OP_OPEN: u8 = 1;
const OP_CLOSE: u8 = 2;
const OP_PUT: u8 = 3;
const OP_DEL: u8 = 4;
const OP_CAS: u8 = 5;
// Requests only: what is not proposed stands in no batch.
const OP_GET: u8 = 16;
const OP_GET_STALE: u8 = 17;
const OP_STATUS: u8 = 18;

const FLAG_WANT_PREVIOUS: u8 = 1;
const FLAG_IF_ABSENT: u8 = 2;

const EXPECT_VALUE: u8 = 1;
const EXPECT_VERSION: u8 = 2;

/// How many bytes a command with this op takes.
pub(super) fn encoded_bytes(op: &Op) -> usize {
    COMMAND_BYTES_MIN
        + match op {
            Op::Open | Op::Close => 0,
            Op::Put { key, value, .. } => 1 + 2 + key.len() + 4 + value.len(),
            Op::Del { key, .. } => 1 + 2 + key.len(),
            Op::Cas { key, expect, value, .. } => {
                let expect = match expect {
                    Expect::Value(old) => 4 + old.len(),
                    Expect::Version(_) => 8,
                };
                1 + 2 + key.len() + 1 + expect + 4 + value.len()
            }
        }
}

pub(super) fn put_command(command: &Command, out: &mut Writer<'_>) {
    put_session(command.session, command.number, command.low, out);
    put_op(&command.op, out);
}

pub(super) fn take_command<'a, B: ByteString<'a>>(from: &mut Reader<'a>) -> Result<Command<B>, DecodeError> {
    let (session, number, low) = take_session(from)?;
    let byte = from.u8("op")?;
    Ok(Command {
        session,
        number,
        low,
        op: take_op(byte, from)?,
    })
}

fn put_session(session: SessionRef, number: u64, low: u64, out: &mut Writer<'_>) {
    out.u128(session.id);
    session.opened.put(out);
    out.u64(number);
    out.u64(low);
}

fn take_session(from: &mut Reader<'_>) -> Result<(SessionRef, u64, u64), DecodeError> {
    let id = from.u128("session id")?;
    let opened = Slot::take(from, "session opened")?;
    let number = from.count("number")?;
    let low = from.count("low")?;
    Ok((SessionRef { id, opened }, number, low))
}

fn put_op(op: &Op, out: &mut Writer<'_>) {
    match op {
        Op::Open => out.u8(OP_OPEN),
        Op::Close => out.u8(OP_CLOSE),
        Op::Put {
            key,
            value,
            if_absent,
            want_previous,
        } => {
            out.u8(OP_PUT);
            out.u8(flags(*want_previous) | if *if_absent { FLAG_IF_ABSENT } else { 0 });
            put_key(key, out);
            put_value(value, out);
        }
        Op::Del { key, want_previous } => {
            out.u8(OP_DEL);
            out.u8(flags(*want_previous));
            put_key(key, out);
        }
        Op::Cas {
            key,
            expect,
            value,
            want_previous,
        } => {
            out.u8(OP_CAS);
            out.u8(flags(*want_previous));
            put_key(key, out);
            put_expect(expect, out);
            put_value(value, out);
        }
    }
}

/// A write: what stands behind the op's byte.
fn take_op<'a, B: ByteString<'a>>(byte: u8, from: &mut Reader<'a>) -> Result<Op<B>, DecodeError> {
    Ok(match byte {
        OP_OPEN => Op::Open,
        OP_CLOSE => Op::Close,
        OP_PUT => {
            let flags = take_flags(from, FLAG_WANT_PREVIOUS | FLAG_IF_ABSENT)?;
            Op::Put {
                key: take_key(from)?,
                value: take_value(from, "value")?,
                if_absent: flags & FLAG_IF_ABSENT != 0,
                want_previous: flags & FLAG_WANT_PREVIOUS != 0,
            }
        }
        OP_DEL => {
            let flags = take_flags(from, FLAG_WANT_PREVIOUS)?;
            Op::Del {
                key: take_key(from)?,
                want_previous: flags & FLAG_WANT_PREVIOUS != 0,
            }
        }
        OP_CAS => {
            let flags = take_flags(from, FLAG_WANT_PREVIOUS)?;
            Op::Cas {
                key: take_key(from)?,
                expect: take_expect(from)?,
                value: take_value(from, "value")?,
                want_previous: flags & FLAG_WANT_PREVIOUS != 0,
            }
        }
        _ => return Err(DecodeError::Unknown { field: "op", byte }),
    })
}

fn put_key(key: &Bytes, out: &mut Writer<'_>) {
    out.length16(key.len());
    out.slice(key);
}

fn take_key<'a, B: ByteString<'a>>(from: &mut Reader<'a>) -> Result<B, DecodeError> {
    let length = from.u16("key length")?;
    B::take(from, usize::from(length), "key")
}

pub(super) fn put_value(value: &[u8], out: &mut Writer<'_>) {
    out.length32(value.len());
    out.slice(value);
}

pub(super) fn take_value<'a, B: ByteString<'a>>(from: &mut Reader<'a>, field: &'static str) -> Result<B, DecodeError> {
    let length = from.u32(field)?;
    B::take(from, length as usize, field)
}

fn put_expect(expect: &Expect, out: &mut Writer<'_>) {
    match expect {
        Expect::Value(old) => {
            out.u8(EXPECT_VALUE);
            put_value(old, out);
        }
        Expect::Version(version) => {
            out.u8(EXPECT_VERSION);
            out.u64(*version);
        }
    }
}

fn take_expect<'a, B: ByteString<'a>>(from: &mut Reader<'a>) -> Result<Expect<B>, DecodeError> {
    match from.u8("expect")? {
        EXPECT_VALUE => take_value(from, "expected value").map(Expect::Value),
        EXPECT_VERSION => from.u64("expected version").map(Expect::Version),
        byte => Err(DecodeError::Unknown { field: "expect", byte }),
    }
}

fn flags(want_previous: bool) -> u8 {
    if want_previous { FLAG_WANT_PREVIOUS } else { 0 }
}

fn take_flags(from: &mut Reader<'_>, known: u8) -> Result<u8, DecodeError> {
    match from.u8("op flags")? {
        flags if flags & !known == 0 => Ok(flags),
        byte => Err(DecodeError::Unknown {
            field: "op flags",
            byte,
        }),
    }
}

pub(super) fn put_request(request: &Request, out: &mut Writer<'_>) {
    out.u32(request.deadline_ms);
    put_session(request.session, request.number, request.low, out);
    match &request.op {
        RequestOp::Write(op) => put_op(op, out),
        RequestOp::Get { key } => {
            out.u8(OP_GET);
            put_key(key, out);
        }
        RequestOp::GetStale { key, at_least } => {
            out.u8(OP_GET_STALE);
            at_least.put(out);
            put_key(key, out);
        }
        RequestOp::Status => out.u8(OP_STATUS),
    }
}

pub(super) fn take_request(from: &mut Reader<'_>) -> Result<Request, DecodeError> {
    let deadline_ms = from.u32("deadline_ms")?;
    let (session, number, low) = take_session(from)?;
    let op = match from.u8("op")? {
        OP_GET => RequestOp::Get { key: take_key(from)? },
        OP_GET_STALE => RequestOp::GetStale {
            at_least: Slot::take(from, "at_least")?,
            key: take_key(from)?,
        },
        OP_STATUS => RequestOp::Status,
        byte => RequestOp::Write(take_op(byte, from)?),
    };
    Ok(Request {
        deadline_ms,
        session,
        number,
        low,
        op,
    })
}
