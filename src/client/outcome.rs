//! How an operation ends: done, certainly not done, or unknown. Three different results.

use crate::wire::{Code, Served};
use std::fmt;

/// The end of an operation: the join of its attempts (`rules.md` 17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Done, with its answer, which may be no.
    Done(Served),
    /// Certainly not done: no attempt took or can take effect.
    NotDone(Failure),
    /// It may have taken effect, may yet, or never will.
    Unknown(Failure),
}

/// Why an operation was not done, or is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last thing that went wrong.
    pub cause: Cause,
    /// How many attempts were sent.
    pub tries: u32,
    /// More words for a person; may be empty.
    pub detail: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A node's word.
    Code(Code),
    /// No endpoint could be reached.
    NoEndpoint,
    /// The nodes that were reached speak another version, belong to another cluster, or sent damaged bytes.
    Protocol,
    /// The connection was lost with the request on its way.
    ConnectionLost,
    /// No answer came in time.
    Deadline,
    /// This client holds too many operations already.
    TooManyOperations,
    /// The client was closed.
    Closed,
}

impl End {
    /// Whether the same operation, submitted anew, is safe and may end otherwise.
    ///
    /// Never for an unknown end: a new operation has a new number, and both might take effect.
    pub fn is_retryable(&self) -> bool {
        match self {
            End::Done(_) | End::Unknown(_) => false,
            End::NotDone(failure) => match failure.cause {
                // The next operation opens a new session, so what its own attempt could not do, a new one can.
                Cause::Code(Code::SessionExpired | Code::NumberForgotten) => true,
                Cause::Code(code) => code.is_retryable(),
                Cause::NoEndpoint | Cause::ConnectionLost | Cause::Deadline | Cause::TooManyOperations => true,
                Cause::Protocol | Cause::Closed => false,
            },
        }
    }

    /// Whether the operation took effect, or may have.
    pub fn is_maybe_done(&self) -> bool {
        !matches!(self, End::NotDone(_))
    }

    /// The name of the class: `done`, `not_done`, `unknown`.
    pub fn class(&self) -> &'static str {
        match self {
            End::Done(_) => "done",
            End::NotDone(_) => "not_done",
            End::Unknown(_) => "unknown",
        }
    }

    /// What went wrong, if it is not done.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            End::Done(_) => None,
            End::NotDone(failure) | End::Unknown(failure) => Some(failure),
        }
    }
}

impl Failure {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> Failure {
        Failure {
            cause,
            tries: 0,
            detail: detail.into(),
        }
    }
}

impl Cause {
    /// A name of one word, as the tools say it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Code(code) => code.name(),
            Cause::NoEndpoint => "no_endpoint",
            Cause::Protocol => "protocol",
            Cause::ConnectionLost => "connection_lost",
            Cause::Deadline => "deadline_passed",
            Cause::TooManyOperations => "too_many_operations",
            Cause::Closed => "closed",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Cause::Code(code) => code_words(code),
            Cause::NoEndpoint => "no endpoint could be reached",
            Cause::Protocol => "the nodes do not speak this protocol, or belong to another cluster",
            Cause::ConnectionLost => "the connection was lost with the request on its way",
            Cause::Deadline => "no answer came before the deadline",
            Cause::TooManyOperations => "this client has too many operations open",
            Cause::Closed => "the client was closed",
        }
    }
}

fn code_words(code: Code) -> &'static str {
    match code {
        Code::NotLeader => "the node does not lead",
        Code::NoLeader => "the cluster has no leader at present",
        Code::NoQuorum => "the leader hears no majority",
        Code::NotFounded => "the cluster waits to be founded",
        Code::Busy => "the cluster is busy",
        Code::TooLarge => "the key or the value is over its limit",
        Code::BadRequest => "the request makes no sense to the node",
        Code::SessionExpired => "the session has expired",
        Code::NumberForgotten => "the session has forgotten the request's number",
        Code::Expired => "the deadline passed before the cluster took the request up",
        Code::NoSpace => "a majority is out of disk space",
        Code::ShuttingDown => "the node is shutting down",
        Code::NotCaughtUp => "the node had not applied the slot in time",
        Code::LeaderLost => "the leader was lost with the request proposed",
        Code::DeadlinePassed => "the deadline passed with the request proposed",
        Code::Diverged => "the node's state differs from another node's",
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause.name(), self.cause.words())?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        match self.tries {
            0 => write!(f, "; never sent"),
            1 => write!(f, "; 1 attempt"),
            tries => write!(f, "; {tries} attempts"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done(_) => write!(f, "done"),
            End::NotDone(failure) => write!(f, "not done: {failure}"),
            End::Unknown(failure) => write!(f, "unknown, it may or may not take effect: {failure}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_certain_no_may_be_tried_anew() {
        let failure = |cause| Failure::new(cause, "");
        for code in Code::ALL {
            assert!(!End::Unknown(failure(Cause::Code(code))).is_retryable());
            assert!(End::Unknown(failure(Cause::Code(code))).is_maybe_done());
            assert!(!End::NotDone(failure(Cause::Code(code))).is_maybe_done());
        }
        for (cause, retryable) in [
            (Cause::Code(Code::NoLeader), true),
            (Cause::Code(Code::SessionExpired), true),
            (Cause::Code(Code::TooLarge), false),
            (Cause::NoEndpoint, true),
            (Cause::Protocol, false),
        ] {
            assert_eq!(End::NotDone(failure(cause)).is_retryable(), retryable, "{cause:?}");
        }
    }

    #[test]
    fn a_failure_says_what_went_wrong_and_how_often() {
        let mut failure = Failure::new(Cause::Code(Code::NoLeader), "n2 at 127.0.0.1:7002");
        failure.tries = 3;
        assert_eq!(
            End::NotDone(failure).to_string(),
            "not done: no_leader: the cluster has no leader at present (n2 at 127.0.0.1:7002); 3 attempts"
        );
    }
}
