//! Layouts of the messages of agreement, one pair of functions for all and one for each that is long.
//!
//! What a layout can check alone, it checks: ranges that run backwards, lists out of order, votes for too many slots.
//! Whether a message makes sense now is the replica's to judge.

use super::bytes::{DecodeError, Field, Reader, Writer, take_generation};
use super::frame::{ACCEPTED_SLOTS_MAX, FrameType};
use super::hello::take_member_count;
use crate::paxos::message::{AcceptedEntry, Heartbeat, HeartbeatAck, PositionAsk, Promise, RecoverAnswer};
use crate::paxos::{Ballot, Entry, Incarnation, Life, LogTime, Message, NodeId, Slot, Start, Voter};

/// What stands before an entry's body in a frame: length and crc.
pub(super) const ENTRY_HEAD_BYTES: usize = 4 + 4;
/// What stands before an entry's body in a PROMISE: slot, ballot and whether chosen, too.
pub(super) const ACCEPTED_ENTRY_HEAD_BYTES: usize = 8 + 10 + 1 + ENTRY_HEAD_BYTES;
/// Bytes of a generation that a voter lists.
const GENERATION_ENTRY_BYTES: usize = 2 + 4;
/// Bytes of a life that a recovery's answer lists.
const LIFE_ENTRY_BYTES: usize = 2 + 12 + 16;

pub(super) fn put_message(message: &Message, out: &mut Writer<'_>) {
    match message {
        Message::Prepare {
            ballot,
            attempt,
            config,
            from_slot,
        } => {
            ballot.put(out);
            out.u32(*attempt);
            out.u64(*config);
            from_slot.put(out);
        }
        Message::Promise(promise) => put_promise(promise, out),
        Message::Accept {
            ballot,
            config,
            slot,
            chosen_upto,
            entry,
        } => {
            ballot.put(out);
            out.u64(*config);
            slot.put(out);
            chosen_upto.put(out);
            entry.put(out);
        }
        Message::Accepted {
            ballot,
            first,
            last,
            voter,
        } => {
            ballot.put(out);
            first.put(out);
            last.put(out);
            voter.put(out);
        }
        Message::Nack { ballot, promised } => {
            ballot.put(out);
            promised.put(out);
        }
        Message::PreVote { attempt, highest } => {
            out.u32(*attempt);
            highest.put(out);
        }
        Message::PreVoteAnswer {
            attempt,
            granted,
            highest,
            voter,
        } => {
            out.u32(*attempt);
            out.flag(*granted);
            highest.put(out);
            voter.put(out);
        }
        Message::Heartbeat(heartbeat) => put_heartbeat(heartbeat, out),
        Message::HeartbeatAck(ack) => put_heartbeat_ack(ack, out),
        Message::Fetch { from, to } => {
            from.put(out);
            to.put(out);
        }
        Message::Chosen {
            first,
            entries,
            chosen_upto,
        } => {
            first.put(out);
            chosen_upto.put(out);
            out.length32(entries.len());
            entries.iter().for_each(|entry| entry.put(out));
        }
        Message::HandOver { ballot } | Message::Release { ballot } => ballot.put(out),
        Message::ReadPosition { ask } => ask.put(out),
        Message::ReadPositionAnswer {
            ask,
            ballot,
            chosen_upto,
        } => {
            ask.put(out);
            ballot.put(out);
            chosen_upto.put(out);
        }
        Message::Recover {
            incarnation,
            nonce,
            attempt,
            from_slot,
        } => {
            incarnation.put(out);
            out.u64(*nonce);
            out.u32(*attempt);
            from_slot.put(out);
        }
        Message::RecoverAnswer(answer) => put_recover_answer(answer, out),
        Message::Forgotten {
            incarnation,
            ballot,
            slot,
        } => {
            incarnation.put(out);
            ballot.put(out);
            slot.put(out);
        }
    }
}

/// The message behind a header of its type; of another type, [`DecodeError::Unknown`].
pub(super) fn take_message(frame_type: FrameType, from: &mut Reader<'_>) -> Result<Message, DecodeError> {
    Ok(match frame_type {
        FrameType::Prepare => Message::Prepare {
            ballot: Ballot::take(from, "ballot")?,
            attempt: from.u32("attempt")?,
            config: from.count("config")?,
            from_slot: take_open_slot(from, "from_slot")?,
        },
        FrameType::Promise => Message::Promise(take_promise(from)?),
        FrameType::Accept => Message::Accept {
            ballot: Ballot::take(from, "ballot")?,
            config: from.count("config")?,
            slot: take_open_slot(from, "slot")?,
            chosen_upto: Slot::take(from, "chosen_upto")?,
            entry: Entry::take(from, "entry")?,
        },
        FrameType::Accepted => take_accepted(from)?,
        FrameType::Nack => Message::Nack {
            ballot: Ballot::take(from, "ballot")?,
            promised: Ballot::take(from, "promised")?,
        },
        FrameType::PreVote => Message::PreVote {
            attempt: from.u32("attempt")?,
            highest: Ballot::take(from, "highest")?,
        },
        FrameType::PreVoteAnswer => Message::PreVoteAnswer {
            attempt: from.u32("attempt")?,
            granted: from.flag("granted")?,
            highest: Ballot::take(from, "highest")?,
            voter: Voter::take(from, "voter")?,
        },
        FrameType::Heartbeat => Message::Heartbeat(take_heartbeat(from)?),
        FrameType::HeartbeatAck => Message::HeartbeatAck(take_heartbeat_ack(from)?),
        FrameType::Fetch => {
            let (from, to) = take_range(from, "from", "to")?;
            Message::Fetch { from, to }
        }
        FrameType::Chosen => take_chosen(from)?,
        FrameType::HandOver => Message::HandOver {
            ballot: Ballot::take(from, "ballot")?,
        },
        FrameType::Release => Message::Release {
            ballot: Ballot::take(from, "ballot")?,
        },
        FrameType::ReadPosition => Message::ReadPosition {
            ask: PositionAsk::take(from, "ask")?,
        },
        FrameType::ReadPositionAnswer => Message::ReadPositionAnswer {
            ask: PositionAsk::take(from, "ask")?,
            ballot: Ballot::take(from, "ballot")?,
            chosen_upto: Slot::take(from, "chosen_upto")?,
        },
        FrameType::Recover => Message::Recover {
            incarnation: Incarnation::take(from, "incarnation")?,
            nonce: from.u64("nonce")?,
            attempt: from.u32("attempt")?,
            from_slot: take_open_slot(from, "from_slot")?,
        },
        FrameType::RecoverAnswer => Message::RecoverAnswer(take_recover_answer(from)?),
        FrameType::Forgotten => Message::Forgotten {
            incarnation: Incarnation::take(from, "incarnation")?,
            ballot: Ballot::take(from, "ballot")?,
            slot: take_open_slot(from, "slot")?,
        },
        FrameType::Hello
        | FrameType::Ping
        | FrameType::Pong
        | FrameType::Error
        | FrameType::Roster
        | FrameType::Forward
        | FrameType::ForwardReply
        | FrameType::SnapshotOffer
        | FrameType::SnapshotAsk
        | FrameType::SnapshotChunk
        | FrameType::Request
        | FrameType::Reply => {
            return Err(DecodeError::Unknown {
                field: "message type",
                byte: frame_type.byte(),
            });
        }
    })
}

fn put_promise(promise: &Promise, out: &mut Writer<'_>) {
    promise.ballot.put(out);
    out.u32(promise.attempt);
    promise.first.put(out);
    promise.last.put(out);
    out.flag(promise.is_last);
    promise.chosen_upto.put(out);
    promise.log_time.put(out);
    promise.voter.put(out);
    out.length32(promise.accepted.len());
    for accepted in &promise.accepted {
        accepted.slot.put(out);
        accepted.ballot.put(out);
        out.flag(accepted.chosen);
        accepted.entry.put(out);
    }
}

fn take_promise(from: &mut Reader<'_>) -> Result<Promise, DecodeError> {
    let ballot = Ballot::take(from, "ballot")?;
    let attempt = from.u32("attempt")?;
    let first = take_open_slot(from, "first")?;
    let last = Slot::take(from, "last")?;
    let is_last = from.flag("is_last")?;
    let chosen_upto = Slot::take(from, "chosen_upto")?;
    let log_time = LogTime::take(from, "log_time")?;
    let voter = Voter::take(from, "voter")?;
    let count = from.u32("accepted count")? as usize;
    let count = from.items(count, ACCEPTED_ENTRY_HEAD_BYTES, "accepted count")?;
    let mut accepted: Vec<AcceptedEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let next = take_accepted_entry(from)?;
        if accepted.last().is_some_and(|last| next.slot <= last.slot) {
            return Err(DecodeError::NotAscending { field: "accepted" });
        }
        if next.slot < first || next.slot > last {
            return Err(DecodeError::OutOfRange {
                field: "accepted slot",
                value: next.slot.0,
            });
        }
        accepted.push(next);
    }
    Ok(Promise {
        ballot,
        attempt,
        first,
        last,
        is_last,
        chosen_upto,
        log_time,
        voter,
        accepted,
    })
}

fn take_accepted_entry(from: &mut Reader<'_>) -> Result<AcceptedEntry, DecodeError> {
    Ok(AcceptedEntry {
        slot: Slot::take(from, "accepted slot")?,
        ballot: Ballot::take(from, "accepted ballot")?,
        chosen: from.flag("accepted chosen")?,
        entry: Entry::take(from, "accepted entry")?,
    })
}

fn put_recover_answer(answer: &RecoverAnswer, out: &mut Writer<'_>) {
    out.u64(answer.nonce);
    answer.highest.put(out);
    out.length8(answer.lives.len());
    for (node, life) in &answer.lives {
        node.put(out);
        life.incarnation.put(out);
        life.start.put(out);
    }
    put_promise(&answer.promise, out);
}

fn take_recover_answer(from: &mut Reader<'_>) -> Result<RecoverAnswer, DecodeError> {
    let nonce = from.u64("nonce")?;
    let highest = Ballot::take(from, "highest")?;
    let count = take_member_count(from, LIFE_ENTRY_BYTES, "life count")?;
    let mut lives: Vec<(NodeId, Life)> = Vec::with_capacity(count);
    for _ in 0..count {
        let node = NodeId::take(from, "life node")?;
        if node <= lives.last().map_or(NodeId(0), |last| last.0) {
            return Err(DecodeError::NotAscending { field: "lives" });
        }
        let incarnation = Incarnation::take(from, "life incarnation")?;
        let start = Start::take(from, "life start")?;
        lives.push((node, Life { incarnation, start }));
    }
    Ok(RecoverAnswer {
        nonce,
        highest,
        lives,
        promise: take_promise(from)?,
    })
}

fn take_accepted(from: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let ballot = Ballot::take(from, "ballot")?;
    let (first, last) = take_range(from, "first", "last")?;
    if last.0 - first.0 >= ACCEPTED_SLOTS_MAX {
        return Err(DecodeError::OutOfRange {
            field: "last",
            value: last.0,
        });
    }
    Ok(Message::Accepted {
        ballot,
        first,
        last,
        voter: Voter::take(from, "voter")?,
    })
}

fn take_chosen(from: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let first = take_open_slot(from, "first")?;
    let chosen_upto = Slot::take(from, "chosen_upto")?;
    let count = from.u32("entry count")? as usize;
    let count = from.items(count, ENTRY_HEAD_BYTES, "entry count")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(Entry::take(from, "entry")?);
    }
    Ok(Message::Chosen {
        first,
        entries,
        chosen_upto,
    })
}

fn put_heartbeat(heartbeat: &Heartbeat, out: &mut Writer<'_>) {
    heartbeat.ballot.put(out);
    out.u64(heartbeat.round);
    heartbeat.chosen_upto.put(out);
    out.u32(heartbeat.confirmed_ms);
    out.u64(heartbeat.echo_ms);
    heartbeat.applied.put(out);
    out.u64(heartbeat.digest);
    heartbeat.agreed.put(out);
    out.u64(heartbeat.agreed_digest);
}

fn take_heartbeat(from: &mut Reader<'_>) -> Result<Heartbeat, DecodeError> {
    Ok(Heartbeat {
        ballot: Ballot::take(from, "ballot")?,
        round: from.count("round")?,
        chosen_upto: Slot::take(from, "chosen_upto")?,
        confirmed_ms: from.u32("confirmed_ms")?,
        echo_ms: from.count("echo_ms")?,
        applied: Slot::take(from, "applied")?,
        digest: from.u64("digest")?,
        agreed: Slot::take(from, "agreed")?,
        agreed_digest: from.u64("agreed_digest")?,
    })
}

fn put_heartbeat_ack(ack: &HeartbeatAck, out: &mut Writer<'_>) {
    ack.ballot.put(out);
    out.u64(ack.round);
    ack.chosen_upto.put(out);
    out.u64(ack.clock_ms);
    out.u64(ack.free_bytes);
    ack.applied.put(out);
    out.u64(ack.digest);
    ack.voter.put(out);
}

fn take_heartbeat_ack(from: &mut Reader<'_>) -> Result<HeartbeatAck, DecodeError> {
    Ok(HeartbeatAck {
        ballot: Ballot::take(from, "ballot")?,
        round: from.count("round")?,
        chosen_upto: Slot::take(from, "chosen_upto")?,
        clock_ms: from.count("clock_ms")?,
        free_bytes: from.u64("free_bytes")?,
        applied: Slot::take(from, "applied")?,
        digest: from.u64("digest")?,
        voter: Voter::take(from, "voter")?,
    })
}

/// A slot that an entry can stand in: not 0.
fn take_open_slot(from: &mut Reader<'_>, field: &'static str) -> Result<Slot, DecodeError> {
    match Slot::take(from, field)? {
        Slot::ZERO => Err(DecodeError::OutOfRange { field, value: 0 }),
        slot => Ok(slot),
    }
}

/// Two slots, the second not below the first.
fn take_range(
    from: &mut Reader<'_>,
    first_field: &'static str,
    last_field: &'static str,
) -> Result<(Slot, Slot), DecodeError> {
    let first = take_open_slot(from, first_field)?;
    let last = Slot::take(from, last_field)?;
    if last < first {
        return Err(DecodeError::OutOfRange {
            field: last_field,
            value: last.0,
        });
    }
    Ok((first, last))
}

impl Field for PositionAsk {
    fn put(&self, out: &mut Writer<'_>) {
        out.u64(self.start);
        out.u64(self.number);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let start = from.u64(field)?;
        let number = from.count(field)?;
        Ok(PositionAsk { start, number })
    }
}

impl Field for Voter {
    fn put(&self, out: &mut Writer<'_>) {
        self.incarnation.put(out);
        out.length8(self.generations.len());
        for (node, generation) in self.generations.iter() {
            node.put(out);
            out.u32(*generation);
        }
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let incarnation = Incarnation::take(from, field)?;
        let count = take_member_count(from, GENERATION_ENTRY_BYTES, "generation count")?;
        let mut generations: Vec<(NodeId, u32)> = Vec::with_capacity(count);
        for _ in 0..count {
            let node = NodeId::take(from, "generation node")?;
            let generation = take_generation(from, "generation")?;
            let above = generations.last().map_or(NodeId(0), |last| last.0);
            if node <= above {
                return Err(DecodeError::NotAscending { field: "generations" });
            }
            generations.push((node, generation));
        }
        Ok(Voter {
            incarnation,
            generations: generations.into(),
        })
    }
}
