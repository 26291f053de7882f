//! What nodes say to each other about agreement. Bytes of each: `protocol.md`; codec: `wire`.
//!
//! One [`Display`](std::fmt::Display) of these serves scripts, the ring of protocol events, logs and `protocol.md`.

use super::{Ballot, Entry, Incarnation, Life, LogTime, NodeId, Slot, Voter};
use std::fmt;

/// A message between two nodes of one cluster.
///
/// Which of them leave before the turn's sync and which after is said beside each (`rules.md` 13).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Phase 1a. Leaves after the sync: it claims that its ballot was never used (`rules.md` 4).
    Prepare {
        /// The new ballot.
        ballot: Ballot,
        /// Counts the tries at this ballot, so that parts of an earlier answer are not mixed in (`rules.md` 5).
        attempt: u32,
        /// Number of the configuration that the proposer knows.
        config: u64,
        /// First slot that the proposer does not know as chosen.
        from_slot: Slot,
    },
    /// Phase 1b, one of one or more parts. Leaves after the sync of the promise.
    Promise(Promise),
    /// Phase 2a. Leaves before the sync: it claims nothing about the leader's disk.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// Number of the configuration that the leader knows.
        config: u64,
        /// The slot that `entry` is proposed for.
        slot: Slot,
        /// The leader's watermark: all up to here is chosen (0: nothing).
        chosen_upto: Slot,
        /// The one entry of this slot at this ballot (`rules.md` 9).
        entry: Entry,
    },
    /// Phase 2b for all slots `first..=last`. Leaves after the sync of the acceptances.
    Accepted {
        /// The ballot accepted at.
        ballot: Ballot,
        /// First slot accepted.
        first: Slot,
        /// Last slot accepted.
        last: Slot,
        /// Whose vote it is.
        voter: Voter,
    },
    /// Refuses a PREPARE, ACCEPT or HEARTBEAT of `ballot`. Leaves before the sync: a refusal claims nothing.
    Nack {
        /// What was refused.
        ballot: Ballot,
        /// The higher ballot that the acceptor has promised.
        promised: Ballot,
    },
    /// Asks whether a quorum would promise; changes nothing at whom it asks. Leaves before the sync.
    PreVote {
        /// Numbers the asker's campaigns; the answer echoes it.
        attempt: u32,
        /// The asker's promised or used ballot, whichever is higher.
        highest: Ballot,
    },
    /// Answers a PREVOTE. Leaves before the sync.
    PreVoteAnswer {
        /// Echo of the question.
        attempt: u32,
        /// False only while the node hears a live leader other than the asker.
        granted: bool,
        /// The highest ballot that the node knows.
        highest: Ballot,
        /// Whose vote it is.
        voter: Voter,
    },
    /// A leader's sign of life, watermark and question for confirmation (`rules.md` 15). Leaves before the sync.
    Heartbeat(Heartbeat),
    /// Answers a HEARTBEAT whose ballot is not below the promise. Leaves before the sync.
    HeartbeatAck(HeartbeatAck),
    /// Catch-up: asks for entries known as chosen in `from..=to`. Leaves before the sync.
    Fetch {
        /// First slot wanted.
        from: Slot,
        /// Last slot wanted.
        to: Slot,
    },
    /// Catch-up: entries known as chosen, from `first` on without a hole. Leaves before the sync.
    Chosen {
        /// Slot of the first entry.
        first: Slot,
        /// As many as fit; empty if the sender does not have `first`.
        entries: Vec<Entry>,
        /// End of the prefix that the sender can hand out.
        chosen_upto: Slot,
    },
    /// A leader that shuts down asks the receiver to run phase 1 at once. Leaves before the sync.
    HandOver {
        /// The ballot that its sender leads at and is about to leave.
        ballot: Ballot,
    },
    /// A leader has left its ballot, and reads no more by the leases that it was granted at it (`rules.md` 16). Leaves before
    /// the sync.
    Release {
        /// The ballot that is left, for ever.
        ballot: Ballot,
    },
    /// A node that does not lead asks from which position on its own state may answer the reads that wait there
    /// (`rules.md` 15). Leaves before the sync.
    ReadPosition {
        /// Which.
        ask: PositionAsk,
    },
    /// Answers a READ_POSITION, once the leader is confirmed. Leaves before the sync.
    ReadPositionAnswer {
        /// Echo.
        ask: PositionAsk,
        /// The ballot at which the sender leads.
        ballot: Ballot,
        /// The leader's watermark: every write that was acknowledged before the ask stands at or below it.
        chosen_upto: Slot,
    },
    /// A node that lost its memory asks what it may have promised and accepted (`rules.md` 3). Leaves after the sync of the
    /// incarnation that it names.
    Recover {
        /// The life under which it recovers.
        incarnation: Incarnation,
        /// Drawn for this recovery; the answer echoes it.
        nonce: u64,
        /// Counts the tries, so that parts of two answers are not mixed.
        attempt: u32,
        /// First slot that the asker does not know as chosen.
        from_slot: Slot,
    },
    /// Answers a RECOVER, in one or more parts. Leaves after the sync of the asker's incarnation, and of what it shows.
    RecoverAnswer(RecoverAnswer),
    /// Tells a voter that it does not show what it voted for: it lost its memory and does not know it (`rules.md` 2). Leaves
    /// before the sync.
    Forgotten {
        /// The life that voted.
        incarnation: Incarnation,
        /// At which ballot.
        ballot: Ballot,
        /// For which slot.
        slot: Slot,
    },
}

/// Names an ask for a read position (see [`Message::ReadPosition`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionAsk {
    /// Token of the asker's present start: what is still owed to an earlier life of its process says nothing to this one.
    pub start: u64,
    /// Counts the asks of that start.
    pub number: u64,
}

/// One part of one promise: one moment of one acceptor (`rules.md` 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The promised ballot.
    pub ballot: Ballot,
    /// Echo of the PREPARE's.
    pub attempt: u32,
    /// First slot that this part covers; the first part's is the PREPARE's `from_slot`, each next part's follows on.
    pub first: Slot,
    /// Last slot that this part covers. Slots covered and not listed were not accepted (or are up to `chosen_upto`).
    pub last: Slot,
    /// Whether nothing is accepted beyond `last`: the promise is whole when parts cover all from `from_slot` to here.
    pub is_last: bool,
    /// End of the prefix that the promiser can hand out as chosen. Slots up to here are not listed (`rules.md` 6).
    pub chosen_upto: Slot,
    /// The highest log time that the promiser knows, applied or accepted (`rules.md` 20).
    pub log_time: LogTime,
    /// Whose vote it is.
    pub voter: Voter,
    /// What is accepted above `chosen_upto` in `first..=last`, in slot order.
    pub accepted: Vec<AcceptedEntry>,
}

/// See [`Message::RecoverAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoverAnswer {
    /// Echo.
    pub nonce: u64,
    /// The highest ballot that the peer knows of.
    pub highest: Ballot,
    /// The newest life and start of each node that the peer has on its disk, in node order.
    pub lives: Vec<(NodeId, Life)>,
    /// One part of what a PROMISE would say; its ballot is the highest that the peer has promised.
    pub promise: Promise,
}

/// An entry that an acceptor reports in a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEntry {
    /// Where.
    pub slot: Slot,
    /// The ballot at which it was accepted (the highest).
    pub ballot: Ballot,
    /// Whether the reporter knows it as chosen, beyond a hole; then it wins over every ballot.
    pub chosen: bool,
    /// What.
    pub entry: Entry,
}

/// See [`Message::Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// Number of this round of confirmation; the answer echoes it.
    pub round: u64,
    /// The leader's watermark.
    pub chosen_upto: Slot,
    /// Milliseconds since the leader began the last round that a quorum confirmed (`u32::MAX`: none yet).
    pub confirmed_ms: u32,
    /// Echo of the newest `clock_ms` that this receiver's answers carried (0: none): bounds how old this message is.
    pub echo_ms: u64,
    /// Slot up to which the leader has applied, and its digest there (`rules.md` 27).
    pub applied: Slot,
    /// Digest of the log and its effects up to `applied`.
    pub digest: u64,
    /// The highest slot at which a quorum, the leader included, is known to have one digest (0: none yet).
    pub agreed: Slot,
    /// That digest: who has another one there is wrong.
    pub agreed_digest: u64,
}

/// See [`Message::HeartbeatAck`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAck {
    /// Echo.
    pub ballot: Ballot,
    /// Echo.
    pub round: u64,
    /// End of the prefix that the follower can hand out as chosen.
    pub chosen_upto: Slot,
    /// The follower's monotonic clock in milliseconds; echoed by the next heartbeat, meaningless to others.
    pub clock_ms: u64,
    /// Free space on the follower's disk, bytes (`rules.md` 26).
    pub free_bytes: u64,
    /// Slot up to which the follower has applied, and its digest there.
    pub applied: Slot,
    /// Digest of the log and its effects up to `applied`.
    pub digest: u64,
    /// Whose answer it is: a node that may not vote is not heard.
    pub voter: Voter,
}

impl Message {
    /// The message's name in scripts, logs, the ring and `protocol.md`.
    pub fn name(&self) -> &'static str {
        match self {
            Message::Prepare { .. } => "PREPARE",
            Message::Promise(_) => "PROMISE",
            Message::Accept { .. } => "ACCEPT",
            Message::Accepted { .. } => "ACCEPTED",
            Message::Nack { .. } => "NACK",
            Message::PreVote { .. } => "PREVOTE",
            Message::PreVoteAnswer { .. } => "PREVOTE_ANSWER",
            Message::Heartbeat(_) => "HEARTBEAT",
            Message::HeartbeatAck(_) => "HEARTBEAT_ACK",
            Message::Fetch { .. } => "FETCH",
            Message::Chosen { .. } => "CHOSEN",
            Message::HandOver { .. } => "HAND_OVER",
            Message::Release { .. } => "RELEASE",
            Message::ReadPosition { .. } => "READ_POSITION",
            Message::ReadPositionAnswer { .. } => "READ_POSITION_ANSWER",
            Message::Recover { .. } => "RECOVER",
            Message::RecoverAnswer(_) => "RECOVER_ANSWER",
            Message::Forgotten { .. } => "FORGOTTEN",
        }
    }

    /// The ballot that the message speaks of, if any.
    pub fn ballot(&self) -> Option<Ballot> {
        match self {
            Message::Prepare { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Accepted { ballot, .. }
            | Message::Nack { ballot, .. }
            | Message::HandOver { ballot }
            | Message::Release { ballot }
            | Message::ReadPositionAnswer { ballot, .. }
            | Message::Forgotten { ballot, .. } => Some(*ballot),
            Message::RecoverAnswer(answer) => Some(answer.promise.ballot),
            Message::Promise(promise) => Some(promise.ballot),
            Message::Heartbeat(heartbeat) => Some(heartbeat.ballot),
            Message::HeartbeatAck(ack) => Some(ack.ballot),
            Message::PreVote { highest, .. } | Message::PreVoteAnswer { highest, .. } => Some(*highest),
            Message::Fetch { .. } | Message::Chosen { .. } | Message::Recover { .. } | Message::ReadPosition { .. } => {
                None
            }
        }
    }

    /// The (first) slot that the message speaks of, if any.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Message::Prepare { from_slot, .. } | Message::Recover { from_slot, .. } => Some(*from_slot),
            Message::Promise(promise) => Some(promise.first),
            Message::RecoverAnswer(answer) => Some(answer.promise.first),
            Message::Accept { slot, .. } | Message::Forgotten { slot, .. } => Some(*slot),
            Message::Accepted { first, .. } | Message::Chosen { first, .. } => Some(*first),
            Message::Fetch { from, .. } => Some(*from),
            Message::Heartbeat(heartbeat) => Some(heartbeat.chosen_upto),
            Message::HeartbeatAck(ack) => Some(ack.chosen_upto),
            Message::ReadPositionAnswer { chosen_upto, .. } => Some(*chosen_upto),
            Message::Nack { .. }
            | Message::PreVote { .. }
            | Message::PreVoteAnswer { .. }
            | Message::HandOver { .. }
            | Message::Release { .. }
            | Message::ReadPosition { .. } => None,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        match self {
            Message::Prepare {
                ballot,
                attempt,
                from_slot,
                ..
            } => {
                write!(f, " ballot={ballot} attempt={attempt} from_slot={from_slot}")
            }
            Message::Promise(promise) => write!(f, " {promise}"),
            Message::Accept {
                ballot,
                slot,
                chosen_upto,
                entry,
                ..
            } => {
                write!(f, " ballot={ballot} slot={slot} chosen_upto={chosen_upto} {entry}")
            }
            Message::Accepted {
                ballot, first, last, ..
            } if first == last => write!(f, " ballot={ballot} slot={first}"),
            Message::Accepted {
                ballot, first, last, ..
            } => write!(f, " ballot={ballot} slots={first}..{last}"),
            Message::Nack { ballot, promised } => write!(f, " ballot={ballot} promised={promised}"),
            Message::PreVote { attempt, highest } => write!(f, " attempt={attempt} highest={highest}"),
            Message::PreVoteAnswer {
                attempt,
                granted,
                highest,
                ..
            } => {
                write!(f, " attempt={attempt} granted={granted} highest={highest}")
            }
            Message::Heartbeat(h) => write!(
                f,
                " ballot={} round={} chosen_upto={}",
                h.ballot, h.round, h.chosen_upto
            ),
            Message::HeartbeatAck(h) => write!(
                f,
                " ballot={} round={} chosen_upto={}",
                h.ballot, h.round, h.chosen_upto
            ),
            Message::Fetch { from, to } => write!(f, " slots={from}..{to}"),
            Message::Chosen {
                first,
                entries,
                chosen_upto,
            } => {
                write!(f, " first={first} entries={} chosen_upto={chosen_upto}", entries.len())
            }
            Message::HandOver { ballot } | Message::Release { ballot } => write!(f, " ballot={ballot}"),
            Message::ReadPosition { ask } => write!(f, " ask={}", ask.number),
            Message::ReadPositionAnswer {
                ask,
                ballot,
                chosen_upto,
            } => {
                write!(f, " ask={} ballot={ballot} chosen_upto={chosen_upto}", ask.number)
            }
            Message::Recover {
                incarnation,
                attempt,
                from_slot,
                ..
            } => {
                let generation = incarnation.generation;
                write!(f, " generation={generation} attempt={attempt} from_slot={from_slot}")
            }
            Message::RecoverAnswer(answer) => write!(f, " {}", answer.promise),
            Message::Forgotten { ballot, slot, .. } => write!(f, " ballot={ballot} slot={slot}"),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Promise {
            ballot,
            attempt,
            first,
            last,
            ..
        } = self;
        write!(f, "ballot={ballot} attempt={attempt} slots={first}..{last}")?;
        if !self.is_last {
            write!(f, " more")?;
        }
        write!(f, " chosen_upto={}", self.chosen_upto)?;
        for accepted in &self.accepted {
            let AcceptedEntry {
                slot,
                ballot,
                chosen,
                entry,
            } = accepted;
            let known = if *chosen { " chosen" } else { "" };
            write!(f, " [slot={slot} at {ballot}{known} {entry}]")?;
        }
        Ok(())
    }
}
