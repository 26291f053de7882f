//! One operation and the join of its attempts (`rules.md` 17).
//!
//! At most one attempt is waited for at a time. An attempt that ended without a word from the cluster (its connection was
//! lost, its time was up, or the node itself did not know) leaves its fate open for good: from then on a refusal, which
//! speaks for its own attempt alone, cannot make the operation "certainly not done" again. Reads change nothing, so
//! their attempts leave nothing open.

use super::outcome::{Cause, End, Failure};
use crate::kv::{Op, SessionRef};
use crate::time::Time;
use crate::wire::{Request, RequestOp};

/// Whose operation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The caller's, under its token.
    Caller(u64),
    /// The session's OPEN.
    Open,
    /// The session's CLOSE.
    Close,
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its session to be opened.
    Session,
    /// A connection, or a free number: it stands in the queue of what may be sent, or is about to.
    Turn,
    /// The end of its backoff.
    Backoff(Time),
    /// The answer to its attempt.
    Answer(Attempt),
}

/// One sending of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Id in the frame's header.
    pub(super) request_id: u64,
    /// To whom.
    pub(super) endpoint: usize,
    /// When.
    pub(super) sent: Time,
    /// When its time is up.
    pub(super) until: Time,
}

/// An operation from its submission to its end.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) purpose: Purpose,
    pub(super) op: RequestOp,
    pub(super) deadline: Time,
    pub(super) wait: Wait,
    /// Session and number, from the first attempt on; they never change (`rules.md` 17).
    pub(super) named: Option<(SessionRef, u64)>,
    /// Attempts sent.
    pub(super) tries: u32,
    /// Whether an attempt that may have reached a log ended without a word. Never falls.
    fate_open: bool,
    /// The last thing that went wrong.
    failure: Option<Failure>,
}

impl Operation {
    pub(super) fn new(purpose: Purpose, op: RequestOp, deadline: Time, wait: Wait) -> Operation {
        Operation {
            purpose,
            op,
            deadline,
            wait,
            named: None,
            tries: 0,
            fate_open: false,
            failure: None,
        }
    }

    /// Whether it goes through the log.
    pub(super) fn is_write(&self) -> bool {
        matches!(self.op, RequestOp::Write(_))
    }

    /// Whether any node may serve it, and what it serves is the same everywhere.
    pub(super) fn is_linearizable_read(&self) -> bool {
        matches!(self.op, RequestOp::Get { .. })
    }

    /// Whether it needs a session and a number of it.
    pub(super) fn needs_number(&self) -> bool {
        matches!(&self.op, RequestOp::Write(op) if !matches!(op, Op::Open | Op::Close))
    }

    /// Its attempt that is waited for.
    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match &self.wait {
            Wait::Answer(attempt) => Some(attempt),
            Wait::Session | Wait::Turn | Wait::Backoff(_) => None,
        }
    }

    /// The request of an attempt sent at `now`.
    pub(super) fn request(&self, now: Time, low: u64) -> Request {
        let (session, number) = self.named.unwrap_or_default();
        Request {
            deadline_ms: self.deadline_ms(now),
            session,
            number,
            low: if number == 0 { 0 } else { low },
            op: self.op.clone(),
        }
    }

    /// What is left of the deadline for the cluster: a little less than for the client, so that the cluster's own word
    /// that nothing was done arrives before the client has to say that it does not know.
    fn deadline_ms(&self, now: Time) -> u32 {
        let left = self.deadline.since(now).as_millis();
        let margin = (left / 10).min(100);
        u32::try_from(left - margin).unwrap_or(u32::MAX).max(1)
    }

    /// The attempt ended without a word from the cluster, or with the word that its fate is not known.
    pub(super) fn lose_attempt(&mut self, failure: Failure) {
        self.fate_open |= self.is_write();
        self.refuse_attempt(failure);
    }

    /// The attempt was refused: nothing came of it, whatever came of earlier ones.
    pub(super) fn refuse_attempt(&mut self, failure: Failure) {
        self.wait = Wait::Turn;
        self.failure = Some(failure);
    }

    /// The end, when no answer from the log has come or will be waited for. `otherwise` is said if nothing went wrong yet.
    pub(super) fn give_up(&self, otherwise: Failure) -> End {
        let in_flight = self.is_write() && self.attempt().is_some();
        let mut failure = match &self.failure {
            // A node's word explains the most. But while an attempt is on its way, the time that ran out is the reason,
            // and a lost connection is explained by what came after it.
            Some(failure) if !in_flight && failure.cause != Cause::ConnectionLost => failure.clone(),
            Some(earlier) if otherwise.detail.is_empty() => Failure {
                detail: format!("before that: {}", earlier.cause.name()),
                ..otherwise
            },
            Some(_) | None => otherwise,
        };
        failure.tries = self.tries;
        if self.fate_open || in_flight {
            End::Unknown(failure)
        } else {
            End::NotDone(failure)
        }
    }

    /// Why a session is not open yet, for those who wait for it.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The reason when the deadline passed with nothing worse known.
    pub(super) fn out_of_time() -> Failure {
        Failure::new(Cause::Deadline, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;
    use bytes::Bytes;

    fn write() -> Operation {
        let op = Op::Del {
            key: Bytes::from_static(b"k"),
            want_previous: false,
        };
        Operation::new(
            Purpose::Caller(1),
            RequestOp::Write(op),
            Time::from_millis(1000),
            Wait::Turn,
        )
    }

    fn read() -> Operation {
        let op = RequestOp::Get {
            key: Bytes::from_static(b"k"),
        };
        Operation::new(Purpose::Caller(1), op, Time::from_millis(1000), Wait::Turn)
    }

    fn code(code: Code) -> Failure {
        Failure::new(Cause::Code(code), "")
    }

    #[test]
    fn a_refusal_speaks_for_its_own_attempt_alone() {
        let mut refused = write();
        refused.refuse_attempt(code(Code::Busy));
        assert_eq!(
            refused.give_up(Operation::out_of_time()),
            End::NotDone(code(Code::Busy))
        );

        let mut lost = write();
        lost.lose_attempt(Failure::new(Cause::ConnectionLost, ""));
        lost.refuse_attempt(code(Code::SessionExpired));
        assert_eq!(
            lost.give_up(Operation::out_of_time()),
            End::Unknown(code(Code::SessionExpired))
        );
    }

    #[test]
    fn a_read_leaves_nothing_open() {
        let mut lost = read();
        lost.lose_attempt(code(Code::LeaderLost));
        assert_eq!(
            lost.give_up(Operation::out_of_time()),
            End::NotDone(code(Code::LeaderLost))
        );
    }

    #[test]
    fn the_cluster_is_told_a_little_less_time_than_is_left() {
        let operation = write();
        assert_eq!(operation.request(Time::ZERO, 1).deadline_ms, 900);
        assert_eq!(operation.request(Time::from_millis(990), 1).deadline_ms, 9);
        assert_eq!(operation.request(Time::from_millis(2000), 1).deadline_ms, 1);
    }
}
