//! Layout of replies: the same to a client and to the node that forwarded its request.
//!
//! `leader u16 | address | class u8 | what the class needs`. The class of an outcome and the class of its code are both
//! on the wire and must agree: no code straddles two classes (`rules.md` 17).

use super::bytes::{DecodeError, Field, Reader, Writer};
use super::command::{put_value, take_value};
use super::frame::STATUS_BYTES_MAX;
use super::hello::ADDRESS_BYTES_MAX;
use super::message::WORDS_BYTES_MAX;
use super::{Code, Outcome, Reply, Served};
use crate::kv::{Answer, Done, Previous, ValueRef, Versioned};
use crate::paxos::{NodeId, Slot};
use std::sync::Arc;

const CLASS_DONE: u8 = 1;
const CLASS_NOT_DONE: u8 = 2;
const CLASS_UNKNOWN: u8 = 3;

const SERVED_DONE: u8 = 1;
const SERVED_STALE: u8 = 2;
const SERVED_STATUS: u8 = 3;

const ANSWER_OPENED: u8 = 1;
const ANSWER_CLOSED: u8 = 2;
const ANSWER_WRITTEN: u8 = 3;
const ANSWER_EXISTS: u8 = 4;
const ANSWER_NOT_FOUND: u8 = 5;
const ANSWER_CAS_FAILED: u8 = 6;
const ANSWER_FOUND: u8 = 7;

const PREVIOUS_NOT_ASKED: u8 = 0;
const PREVIOUS_ABSENT: u8 = 1;
const PREVIOUS_WAS: u8 = 2;

pub(super) fn put_reply(reply: &Reply, out: &mut Writer<'_>) {
    match &reply.leader {
        Some((leader, address)) => {
            leader.put(out);
            out.text8(address);
        }
        None => {
            NodeId(0).put(out);
            out.text8("");
        }
    }
    match &reply.outcome {
        Outcome::Done(served) => {
            out.u8(CLASS_DONE);
            put_served(served, out);
        }
        Outcome::NotDone {
            code,
            retry_after_ms,
            detail,
        } => {
            out.u8(CLASS_NOT_DONE);
            out.u8(code.byte());
            out.u32(*retry_after_ms);
            out.words16(detail, WORDS_BYTES_MAX);
        }
        Outcome::Unknown { code } => {
            out.u8(CLASS_UNKNOWN);
            out.u8(code.byte());
        }
    }
}

pub(super) fn take_reply(from: &mut Reader<'_>) -> Result<Reply, DecodeError> {
    let leader = take_leader(from)?;
    let outcome = match from.u8("class")? {
        CLASS_DONE => Outcome::Done(take_served(from)?),
        CLASS_NOT_DONE => Outcome::NotDone {
            code: take_code(from, false)?,
            retry_after_ms: from.u32("retry_after_ms")?,
            detail: from.text16(WORDS_BYTES_MAX, "detail")?,
        },
        CLASS_UNKNOWN => Outcome::Unknown {
            code: take_code(from, true)?,
        },
        byte => return Err(DecodeError::Unknown { field: "class", byte }),
    };
    Ok(Reply { outcome, leader })
}

fn take_leader(from: &mut Reader<'_>) -> Result<Option<(NodeId, Arc<str>)>, DecodeError> {
    let leader = NodeId::take(from, "leader")?;
    let address = from.str8(ADDRESS_BYTES_MAX, "leader address")?;
    if leader != NodeId(0) {
        return Ok(Some((leader, address.into())));
    }
    if !address.is_empty() {
        return Err(DecodeError::OutOfRange {
            field: "leader address",
            value: address.len() as u64,
        });
    }
    Ok(None)
}

fn take_code(from: &mut Reader<'_>, unknown: bool) -> Result<Code, DecodeError> {
    let byte = from.u8("code")?;
    match Code::from_byte(byte)? {
        code if code.is_unknown() == unknown => Ok(code),
        _ => Err(DecodeError::OutOfRange {
            field: "code",
            value: u64::from(byte),
        }),
    }
}

fn put_served(served: &Served, out: &mut Writer<'_>) {
    match served {
        Served::Done(done) => {
            out.u8(SERVED_DONE);
            done.slot.put(out);
            out.u64(done.revision);
            put_answer(&done.answer, out);
        }
        Served::Stale {
            slot,
            revision,
            age_ms,
            found,
        } => {
            out.u8(SERVED_STALE);
            slot.put(out);
            out.u64(*revision);
            out.u32(*age_ms);
            put_optional(found.as_ref(), out);
        }
        Served::Status(text) => {
            out.u8(SERVED_STATUS);
            out.length32(text.len());
            out.slice(text.as_bytes());
        }
    }
}

fn take_served(from: &mut Reader<'_>) -> Result<Served, DecodeError> {
    Ok(match from.u8("served")? {
        SERVED_DONE => Served::Done(Done {
            slot: Slot::take(from, "slot")?,
            revision: from.count("revision")?,
            answer: take_answer(from)?,
        }),
        SERVED_STALE => Served::Stale {
            slot: Slot::take(from, "slot")?,
            revision: from.count("revision")?,
            age_ms: from.u32("age_ms")?,
            found: take_optional(from)?,
        },
        SERVED_STATUS => {
            let length = from.u32("status length")?;
            Served::Status(from.text(length as usize, STATUS_BYTES_MAX, "status")?)
        }
        byte => return Err(DecodeError::Unknown { field: "served", byte }),
    })
}

pub(super) fn put_answer(answer: &Answer, out: &mut Writer<'_>) {
    match answer {
        Answer::Opened { opened } => {
            out.u8(ANSWER_OPENED);
            opened.put(out);
        }
        Answer::Closed => out.u8(ANSWER_CLOSED),
        Answer::Written { previous } => {
            out.u8(ANSWER_WRITTEN);
            put_previous(previous, out);
        }
        Answer::Exists { current } => {
            out.u8(ANSWER_EXISTS);
            put_versioned(current.view(), out);
        }
        Answer::NotFound => out.u8(ANSWER_NOT_FOUND),
        Answer::CasFailed { current } => {
            out.u8(ANSWER_CAS_FAILED);
            put_optional(current.as_ref(), out);
        }
        Answer::Found(found) => {
            out.u8(ANSWER_FOUND);
            put_versioned(found.view(), out);
        }
    }
}

pub(super) fn take_answer(from: &mut Reader<'_>) -> Result<Answer, DecodeError> {
    Ok(match from.u8("answer")? {
        ANSWER_OPENED => Answer::Opened {
            opened: Slot::take(from, "opened")?,
        },
        ANSWER_CLOSED => Answer::Closed,
        ANSWER_WRITTEN => Answer::Written {
            previous: take_previous(from)?,
        },
        ANSWER_EXISTS => Answer::Exists {
            current: take_versioned(from)?,
        },
        ANSWER_NOT_FOUND => Answer::NotFound,
        ANSWER_CAS_FAILED => Answer::CasFailed {
            current: take_optional(from)?,
        },
        ANSWER_FOUND => Answer::Found(take_versioned(from)?),
        byte => return Err(DecodeError::Unknown { field: "answer", byte }),
    })
}

fn put_previous(previous: &Previous, out: &mut Writer<'_>) {
    match previous {
        Previous::NotAsked => out.u8(PREVIOUS_NOT_ASKED),
        Previous::Absent => out.u8(PREVIOUS_ABSENT),
        Previous::Was(versioned) => {
            out.u8(PREVIOUS_WAS);
            put_versioned(versioned.view(), out);
        }
    }
}

fn take_previous(from: &mut Reader<'_>) -> Result<Previous, DecodeError> {
    match from.u8("previous")? {
        PREVIOUS_NOT_ASKED => Ok(Previous::NotAsked),
        PREVIOUS_ABSENT => Ok(Previous::Absent),
        PREVIOUS_WAS => take_versioned(from).map(Previous::Was),
        byte => Err(DecodeError::Unknown {
            field: "previous",
            byte,
        }),
    }
}

fn put_optional(versioned: Option<&Versioned>, out: &mut Writer<'_>) {
    out.flag(versioned.is_some());
    if let Some(versioned) = versioned {
        put_versioned(versioned.view(), out);
    }
}

fn take_optional(from: &mut Reader<'_>) -> Result<Option<Versioned>, DecodeError> {
    match from.flag("present")? {
        true => take_versioned(from).map(Some),
        false => Ok(None),
    }
}

pub(super) fn put_versioned(versioned: ValueRef<'_>, out: &mut Writer<'_>) {
    out.u64(versioned.created);
    out.u64(versioned.version);
    put_value(versioned.value, out);
}

pub(super) fn take_versioned(from: &mut Reader<'_>) -> Result<Versioned, DecodeError> {
    let created = from.count("created")?;
    let version = from.count("version")?;
    let value = take_value(from, "value")?;
    Ok(Versioned {
        value,
        created,
        version,
    })
}
