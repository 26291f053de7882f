//! Data commands of the debug port: one operation at a time, through consensus, under the connection's own session.
//!
//! The node is its own client here: it makes requests to its machine, which serves or forwards them. The session is
//! opened through the log when the first write comes and closed when the connection ends. An attempt that is refused, or
//! whose leader was lost, is repeated under the same session and number while there is time: a repeat of a write that
//! took effect gets the first answer. The outcome is the join of the attempts (`rules.md` 17): once the fate of one is
//! not known, only an answer from the log settles the operation. Time is an argument; nothing here waits.

use crate::kv::session::IDLE_EXPIRY_MS;
use crate::kv::{Answer, Done, Op, SessionRef};
use crate::paxos::Slot;
use crate::time::Time;
use crate::wire::{Code, Outcome, Reply, Request, RequestOp, Served};
use std::time::Duration;

/// First wait before another attempt; doubled each time.
const RETRY_BASE: Duration = Duration::from_millis(10);
/// The longest.
const RETRY_MAX: Duration = Duration::from_millis(320);
/// The machine answers every request within its deadline; what is not answered so long after it is given up.
const GRACE: Duration = Duration::from_millis(500);
/// A session idle for longer is not used any more: an operation may not change its session, so it must not begin with
/// one that may have expired.
const SESSION_IDLE_MAX: Duration = Duration::from_millis(IDLE_EXPIRY_MS / 2);

/// The writer behind one connection: its session and the operation that is under way.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Id 0: none was drawn. Slot 0: not opened.
    session: SessionRef,
    number: u64,
    used_at: Time,
    next_request: u64,
    under_way: Option<Operation>,
}

#[derive(Debug)]
struct Operation {
    op: RequestOp,
    deadline: Time,
    tries: u32,
    /// Why the fate of an earlier attempt is not known.
    fate_open: Option<Code>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The answer to this request is awaited.
    Answer(u64),
    /// The next attempt is made then; until then the last one's outcome stands.
    Backoff(Time, Outcome),
}

/// What an answer or a deadline leads to.
#[derive(Debug)]
pub(super) enum Next {
    /// To be asked, under this request id.
    Ask(u64, Request),
    /// Nothing yet.
    Wait,
    /// The end.
    End(Outcome),
}

impl Writer {
    /// Whether an operation is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Begins an operation, of which the answer shall come within `timeout`. `session_id` is random, and used if a new
    /// session has to be opened. None may be under way.
    pub(super) fn begin(&mut self, now: Time, op: RequestOp, timeout: Duration, session_id: u128) -> (u64, Request) {
        let is_write = matches!(op, RequestOp::Write(_));
        if is_write {
            if self.session.id == 0 || now.since(self.used_at) > SESSION_IDLE_MAX {
                self.session = SessionRef {
                    id: session_id,
                    opened: Slot::ZERO,
                };
                self.number = 0;
            }
            self.number += 1;
        }
        let operation = Operation {
            op,
            deadline: now + timeout,
            tries: 0,
            fate_open: None,
            step: Step::Answer(0),
        };
        self.attempt(now, operation)
    }

    /// When [`Writer::on_deadline`] is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.under_way.as_ref().map(|operation| match operation.step {
            Step::Answer(_) => operation.deadline + GRACE,
            Step::Backoff(until, _) => until,
        })
    }

    /// A backoff is over, or an answer has not come.
    pub(super) fn on_deadline(&mut self, now: Time) -> Next {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return Next::Wait;
        }
        let Some(mut operation) = self.under_way.take() else {
            return Next::Wait;
        };
        match std::mem::replace(&mut operation.step, Step::Answer(0)) {
            Step::Backoff(_, outcome) if now >= operation.deadline => Next::End(operation.join(outcome)),
            Step::Backoff(..) => {
                let (id, request) = self.attempt(now, operation);
                Next::Ask(id, request)
            }
            Step::Answer(_) => {
                let code = Code::DeadlinePassed;
                let is_open = operation.is_write() && self.session.opened != Slot::ZERO;
                let lost = if is_open {
                    Outcome::Unknown { code }
                } else {
                    not_done(Code::Expired)
                };
                Next::End(operation.join(lost))
            }
        }
    }

    /// The answer to one request. One that is not awaited any more means nothing.
    pub(super) fn on_reply(&mut self, now: Time, request: u64, reply: &Reply) -> Next {
        let Some(operation) = self
            .under_way
            .take_if(|operation| matches!(operation.step, Step::Answer(awaited) if awaited == request))
        else {
            return Next::Wait;
        };
        self.used_at = now;
        let is_opening = self.is_opening(&operation);
        match &reply.outcome {
            Outcome::Done(Served::Done(Done {
                answer: Answer::Opened { opened },
                ..
            })) if is_opening => {
                self.session.opened = *opened;
                let (id, request) = self.attempt(now, operation);
                Next::Ask(id, request)
            }
            Outcome::Done(served) => Next::End(Outcome::Done(served.clone())),
            Outcome::NotDone { code, .. } => self.on_refusal(now, operation, *code, reply),
            // That OPEN's fate is not known leaves nothing of the operation itself open.
            Outcome::Unknown { code } if is_opening => match code {
                Code::DeadlinePassed => Next::End(not_done(Code::Expired)),
                _ => self.back_off(now, operation, not_done(Code::NoLeader), 0),
            },
            Outcome::Unknown { code } => self.on_lost(now, operation, *code),
        }
    }

    /// The request with which the session ends, when the connection does; its answer is nobody's.
    pub(super) fn close(&mut self, timeout: Duration) -> Option<(u64, Request)> {
        let session = std::mem::take(&mut self.session);
        self.under_way = None;
        if session.opened == Slot::ZERO {
            return None;
        }
        let request = Request {
            deadline_ms: millis(timeout),
            session,
            number: 0,
            low: 0,
            op: RequestOp::Write(Op::Close),
        };
        Some((self.take_id(), request))
    }

    fn on_refusal(&mut self, now: Time, operation: Operation, code: Code, reply: &Reply) -> Next {
        if matches!(code, Code::SessionExpired | Code::NumberForgotten) {
            self.session = SessionRef::default();
        }
        let retry_after_ms = match &reply.outcome {
            Outcome::NotDone { retry_after_ms, .. } => *retry_after_ms,
            Outcome::Done(_) | Outcome::Unknown { .. } => 0,
        };
        if is_worth_another_try(code) {
            self.back_off(now, operation, reply.outcome.clone(), retry_after_ms)
        } else {
            Next::End(operation.join(reply.outcome.clone()))
        }
    }

    fn on_lost(&mut self, now: Time, mut operation: Operation, code: Code) -> Next {
        if operation.is_write() {
            operation.fate_open.get_or_insert(code);
        }
        match code {
            Code::DeadlinePassed => Next::End(operation.join(Outcome::Unknown { code })),
            _ => self.back_off(now, operation, Outcome::Unknown { code }, 0),
        }
    }

    fn back_off(&mut self, now: Time, mut operation: Operation, outcome: Outcome, retry_after_ms: u32) -> Next {
        let backoff = RETRY_BASE.saturating_mul(1 << operation.tries.min(16)).min(RETRY_MAX);
        let until = now + backoff.max(Duration::from_millis(retry_after_ms.into()));
        operation.tries += 1;
        operation.step = Step::Backoff(until.min(operation.deadline), outcome);
        self.under_way = Some(operation);
        Next::Wait
    }

    /// The next attempt: of OPEN as long as a write has no session, then of the operation.
    fn attempt(&mut self, now: Time, mut operation: Operation) -> (u64, Request) {
        let deadline_ms = millis(operation.deadline.since(now)).max(1);
        let request = if self.is_opening(&operation) {
            Request {
                deadline_ms,
                session: self.session,
                number: 0,
                low: 0,
                op: RequestOp::Write(Op::Open),
            }
        } else {
            let is_write = operation.is_write();
            let number = if is_write { self.number } else { 0 };
            Request {
                deadline_ms,
                session: if is_write { self.session } else { SessionRef::default() },
                number,
                // One write at a time: all below it have ended.
                low: number,
                op: operation.op.clone(),
            }
        };
        let id = self.take_id();
        operation.step = Step::Answer(id);
        self.under_way = Some(operation);
        (id, request)
    }

    fn is_opening(&self, operation: &Operation) -> bool {
        operation.is_write() && self.session.opened == Slot::ZERO
    }

    fn take_id(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }
}

impl Operation {
    fn is_write(&self) -> bool {
        matches!(self.op, RequestOp::Write(_))
    }

    /// The end, if the last attempt ended so.
    fn join(&self, last: Outcome) -> Outcome {
        match (self.fate_open, last) {
            (Some(code), Outcome::NotDone { .. }) => Outcome::Unknown { code },
            // A read leaves nothing behind: that its answer was lost is no doubt about the store.
            (None, Outcome::Unknown { .. }) if !self.is_write() => not_done(Code::Expired),
            (_, last) => last,
        }
    }
}

/// Whether the same request may end otherwise at this node, a little later.
fn is_worth_another_try(code: Code) -> bool {
    let is_over = matches!(
        code,
        Code::Expired | Code::ShuttingDown | Code::NotCaughtUp | Code::NoSpace
    );
    code.is_retryable() && !is_over
}

fn not_done(code: Code) -> Outcome {
    Outcome::NotDone {
        code,
        retry_after_ms: 0,
        detail: String::new(),
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Previous;
    use bytes::Bytes;

    const TIMEOUT: Duration = Duration::from_secs(5);
    const ID: u128 = 77;

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn del() -> RequestOp {
        RequestOp::Write(Op::Del {
            key: Bytes::from_static(b"k"),
            want_previous: false,
        })
    }

    fn get() -> RequestOp {
        RequestOp::Get {
            key: Bytes::from_static(b"k"),
        }
    }

    fn reply(outcome: Outcome) -> Reply {
        Reply { outcome, leader: None }
    }

    fn done(answer: Answer) -> Reply {
        reply(Outcome::Done(Served::Done(Done {
            slot: Slot(9),
            revision: 1,
            answer,
        })))
    }

    fn opened() -> Reply {
        done(Answer::Opened { opened: Slot(7) })
    }

    fn written() -> Reply {
        done(Answer::Written {
            previous: Previous::NotAsked,
        })
    }

    fn refused(code: Code) -> Reply {
        reply(not_done(code))
    }

    fn lost() -> Reply {
        reply(Outcome::Unknown { code: Code::LeaderLost })
    }

    fn asked(next: Next) -> (u64, Request) {
        match next {
            Next::Ask(id, request) => (id, request),
            other => panic!("{other:?}"),
        }
    }

    fn ended(next: Next) -> Outcome {
        match next {
            Next::End(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// A writer whose session is open, with a write on its way under the returned id.
    fn writing() -> (Writer, u64, Request) {
        let mut writer = Writer::default();
        let (id, _) = writer.begin(at(0), del(), TIMEOUT, ID);
        let (id, request) = asked(writer.on_reply(at(1), id, &opened()));
        (writer, id, request)
    }

    #[test]
    fn the_first_write_opens_the_session_and_the_end_closes_it() {
        let mut writer = Writer::default();
        assert!(writer.close(TIMEOUT).is_none());
        let (id, open) = writer.begin(at(0), del(), TIMEOUT, ID);
        assert_eq!(
            (open.op, open.session.id, open.number),
            (RequestOp::Write(Op::Open), ID, 0)
        );
        let (id, write) = asked(writer.on_reply(at(1), id, &opened()));
        assert_eq!((write.session.opened, write.number, write.low), (Slot(7), 1, 1));
        assert!(matches!(
            ended(writer.on_reply(at(2), id, &written())),
            Outcome::Done(_)
        ));
        let (_, second) = writer.begin(at(3), del(), TIMEOUT, 1);
        assert_eq!((second.session.id, second.number, second.low), (ID, 2, 2));
        let (_, close) = writer.close(TIMEOUT).unwrap();
        assert_eq!((close.op, close.session.id), (RequestOp::Write(Op::Close), ID));
        assert!(!writer.is_busy());
    }

    #[test]
    fn an_attempt_is_repeated_under_the_same_number_while_the_node_finds_a_leader() {
        let (mut writer, id, first) = writing();
        assert!(matches!(
            writer.on_reply(at(2), id, &refused(Code::NoLeader)),
            Next::Wait
        ));
        let (id, second) = asked(writer.on_deadline(writer.deadline().unwrap()));
        assert!(matches!(writer.on_reply(at(20), id, &lost()), Next::Wait));
        let (id, third) = asked(writer.on_deadline(writer.deadline().unwrap()));
        for repeat in [second, third] {
            assert_eq!(
                (repeat.session, repeat.number, repeat.op),
                (first.session, 1, first.op.clone())
            );
        }
        assert!(matches!(
            ended(writer.on_reply(at(60), id, &written())),
            Outcome::Done(_)
        ));
    }

    #[test]
    fn a_refusal_after_a_lost_attempt_leaves_the_outcome_unknown() {
        let (mut writer, id, _) = writing();
        assert!(matches!(writer.on_reply(at(2), id, &lost()), Next::Wait));
        let (id, _) = asked(writer.on_deadline(writer.deadline().unwrap()));
        let end = ended(writer.on_reply(at(20), id, &refused(Code::SessionExpired)));
        assert_eq!(end, Outcome::Unknown { code: Code::LeaderLost });
    }

    #[test]
    fn without_a_leader_until_the_deadline_nothing_was_done() {
        let (mut writer, mut id, _) = writing();
        let mut now = at(1);
        let end = loop {
            assert!(matches!(writer.on_reply(now, id, &refused(Code::NoLeader)), Next::Wait));
            now = writer.deadline().unwrap();
            match writer.on_deadline(now) {
                Next::Ask(next, _) => id = next,
                Next::End(outcome) => break outcome,
                Next::Wait => panic!("nothing was due at {now}"),
            }
        };
        assert_eq!((now, end), (at(0) + TIMEOUT, not_done(Code::NoLeader)));
    }

    #[test]
    fn an_answer_that_never_comes_is_unknown_for_a_write_and_nothing_for_a_read() {
        let (mut writer, ..) = writing();
        let end = ended(writer.on_deadline(writer.deadline().unwrap()));
        assert_eq!(
            end,
            Outcome::Unknown {
                code: Code::DeadlinePassed
            }
        );
        let mut reader = Writer::default();
        let (id, request) = reader.begin(at(0), get(), TIMEOUT, ID);
        assert_eq!((request.session, request.number), (SessionRef::default(), 0));
        let end = ended(reader.on_deadline(reader.deadline().unwrap()));
        assert_eq!(end, not_done(Code::Expired));
        assert!(
            matches!(reader.on_reply(at(9000), id, &written()), Next::Wait),
            "too late"
        );
    }

    #[test]
    fn an_open_that_is_lost_is_repeated_and_never_leaves_the_write_in_doubt() {
        let mut writer = Writer::default();
        let (id, open) = writer.begin(at(0), del(), TIMEOUT, ID);
        assert!(matches!(writer.on_reply(at(1), id, &lost()), Next::Wait));
        let (id, again) = asked(writer.on_deadline(writer.deadline().unwrap()));
        assert_eq!((again.op, again.session), (open.op, open.session));
        let late = reply(Outcome::Unknown {
            code: Code::DeadlinePassed,
        });
        assert_eq!(ended(writer.on_reply(at(5000), id, &late)), not_done(Code::Expired));
    }

    #[test]
    fn a_session_that_may_have_expired_is_not_used_again() {
        let (mut writer, id, _) = writing();
        writer.on_reply(at(2), id, &written());
        let later = at(2) + SESSION_IDLE_MAX + Duration::from_millis(1);
        let (_, open) = writer.begin(later, del(), TIMEOUT, ID + 1);
        assert_eq!((open.op, open.session.id), (RequestOp::Write(Op::Open), ID + 1));
    }
}
