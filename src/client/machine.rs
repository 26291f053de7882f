//! The client as a pure machine: one session with a cluster. Inputs in, effects out.
//!
//! How to drive it: call [`ClientMachine::step`] once for each input, with the time; carry out the effects in order, at
//! once; wait until [`ClientMachine::deadline`] at most, then step [`Input::Deadline`]. After [`Effect::Close`] of an
//! endpoint, nothing more of that connection may be stepped.
//!
//! The session is opened through the log at the first write, by an OPEN that carries no write and is repeated under one
//! id until it is answered (`rules.md` 18). Invariants:
//! * C1. An operation keeps the session and number of its first attempt.
//! * C2. It ends once; as not done only if no attempt of it was left without a word (`operation`).
//! * C3. The lowest outstanding number that a request names is not above the number of any operation that is open.
//!
//! Not here: sockets and clocks (the shells), which endpoint to talk to (`links`).

use super::backoff::{RetryBudget, full_jitter};
use super::links::{Links, Trouble};
use super::operation::{Attempt, Operation, Purpose, Wait};
use super::operations::Operations;
use super::options::{CLOSE_TIMEOUT, OPERATIONS_MAX, Options, SESSION_IDLE_MAX};
use super::outcome::{Cause, End, Failure};
use super::session::Session;
use crate::kv::{Answer, Op, SessionRef};
use crate::paxos::{NodeId, Slot};
use crate::time::Time;
use crate::wire::{Code, Frame, Outcome, Reply, RequestOp, Served};
use std::collections::VecDeque;
use std::time::Duration;

/// How often an attempt's time doubles.
const ATTEMPT_DOUBLINGS_MAX: u32 = 3;
/// Attempts that may go straight to a hinted leader, without backoff.
const HINTED_TRIES_MAX: u32 = 3;
/// Low bits of a request id that count the attempts of one operation.
const TRY_BITS: u32 = 8;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A new operation of the caller.
    Submit {
        /// The caller's own name for it.
        token: u64,
        /// What is asked.
        op: RequestOp,
        /// When it must have ended.
        deadline: Time,
    },
    /// The dial of an endpoint went through.
    Connected {
        /// Which.
        endpoint: usize,
    },
    /// The dial failed.
    Refused {
        /// Which.
        endpoint: usize,
        /// Why, in words.
        detail: String,
    },
    /// An established connection closed.
    Lost {
        /// Which.
        endpoint: usize,
        /// Why, in words.
        detail: String,
    },
    /// What came is no frame of the protocol. The connection is closed by an effect.
    Garbled {
        /// Which.
        endpoint: usize,
        /// Why, in words.
        detail: String,
    },
    /// A whole frame came.
    Frame {
        /// From where.
        endpoint: usize,
        /// Of its header.
        request_id: u64,
        /// Its content.
        frame: Frame,
    },
    /// The machine's deadline has come.
    Deadline,
    /// No more operations: finish what is open until then, close the session, close the connections.
    Close {
        /// When it must have ended.
        deadline: Time,
    },
}

/// Something to be done, in order and at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Dial the endpoint; its address is [`ClientMachine::address`].
    Connect {
        /// Which.
        endpoint: usize,
    },
    /// Send a frame on the endpoint's connection.
    Send {
        /// To which.
        endpoint: usize,
        /// For its header.
        request_id: u64,
        /// Its content.
        frame: Frame,
    },
    /// Close the endpoint's connection, or give up its dial. Nothing more of it is stepped.
    Close {
        /// Which.
        endpoint: usize,
    },
    /// An operation ended.
    Finished {
        /// The caller's name for it.
        token: u64,
        /// How.
        end: End,
    },
    /// What [`Input::Close`] asked for is finished.
    Closed,
}

/// The session, as far as it is.
#[derive(Debug)]
enum SessionState {
    /// Not wanted yet, or expired.
    None,
    /// OPEN is on its way, as this operation.
    Opening(u64),
    /// Open.
    Open(Session),
}

/// A node's word that one attempt was not done.
struct Refusal {
    endpoint: usize,
    code: Code,
    retry_after: Duration,
    /// A hint leads elsewhere.
    other_way: bool,
}

/// One client of a cluster.
#[derive(Debug)]
pub struct ClientMachine {
    options: Options,
    links: Links,
    budget: RetryBudget,
    session: SessionState,
    /// Id of the session, or of the next OPEN: kept until an OPEN under it is answered.
    session_id: u128,
    /// When a write of the session was last sent.
    session_used: Time,
    /// By serial; a request id is the serial and, in its low bits, the attempt.
    operations: Operations,
    serial: u64,
    /// Operations of the caller among them.
    callers: usize,
    /// Serials in [`Wait::Turn`], in order.
    ready: VecDeque<u64>,
    /// Serials in [`Wait::Session`], in order.
    waiting: VecDeque<u64>,
    /// Not later than the first moment at which an operation has something to do.
    wake: Option<Time>,
    closing: Option<Time>,
    closed: bool,
}

impl ClientMachine {
    /// A client of the cluster whose nodes answer at `endpoints`, at least one.
    pub fn new(endpoints: Vec<String>, options: Options) -> ClientMachine {
        ClientMachine {
            links: Links::new(endpoints, options.seed),
            budget: RetryBudget::new(options.retry_burst, options.retry_rate),
            session: SessionState::None,
            session_id: options.session_id,
            session_used: Time::ZERO,
            operations: Operations::default(),
            serial: 0,
            callers: 0,
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            wake: None,
            closing: None,
            closed: false,
            options,
        }
    }

    /// The address of an endpoint that an effect names.
    pub fn address(&self, endpoint: usize) -> &str {
        &self.links.get(endpoint).address
    }

    /// Which nodes were met, and the addresses of their debug ports (empty if off).
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &str)> {
        let met = self.links.all().iter().filter_map(|endpoint| endpoint.node.as_ref());
        met.map(|(node, debug)| (*node, debug.as_str()))
    }

    /// Operations that have not ended.
    pub fn open_operations(&self) -> usize {
        self.callers
    }

    /// The moment by which [`Input::Deadline`] must be stepped; `None`: only an input can bring news.
    pub fn deadline(&self) -> Option<Time> {
        let unreachable = self
            .options
            .give_up_unreachable
            .zip(self.links.unreachable_since())
            .filter(|_| self.callers > 0)
            .map(|(grace, since)| since + grace);
        let closing = self.closing.filter(|_| !self.closed);
        [self.wake, self.links.deadline(self.wants_link()), unreachable, closing]
            .into_iter()
            .flatten()
            .min()
    }

    /// Applies one input and appends what must follow. Never blocks, never fails; same seed and inputs, same effects.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Submit { token, op, deadline } => self.on_submit(now, token, op, deadline, effects),
            Input::Connected { endpoint } => self.links.connected(endpoint, &self.options, effects),
            Input::Refused { endpoint, detail } | Input::Lost { endpoint, detail } => {
                self.on_down(now, endpoint, Trouble::passing(detail));
            }
            Input::Garbled { endpoint, detail } => {
                self.drop_link(now, endpoint, Trouble::lasting(detail), effects);
            }
            Input::Frame {
                endpoint,
                request_id,
                frame,
            } => self.on_frame(now, endpoint, request_id, frame, effects),
            Input::Deadline => self.on_deadline(now, effects),
            Input::Close { deadline } => self.closing = Some(deadline),
        }
        self.go_on(now, effects);
    }

    fn on_submit(&mut self, now: Time, token: u64, op: RequestOp, deadline: Time, effects: &mut Vec<Effect>) {
        if let Some(failure) = self.refusal(&op) {
            let end = End::NotDone(failure);
            effects.push(Effect::Finished { token, end });
            return;
        }
        if self.callers == 0 {
            self.links.forget_unreachable();
        }
        self.callers += 1;
        self.add(Purpose::Caller(token), op, deadline);
        if let SessionState::Open(session) = &self.session
            && session.is_idle()
            && now.since(self.session_used) >= SESSION_IDLE_MAX
        {
            self.forget_session();
        }
    }

    /// Why an operation is not even tried.
    fn refusal(&self, op: &RequestOp) -> Option<Failure> {
        if self.closing.is_some() {
            return Some(Failure::new(Cause::Closed, ""));
        }
        if self.callers >= OPERATIONS_MAX {
            return Some(Failure::new(Cause::TooManyOperations, ""));
        }
        if matches!(op, RequestOp::Write(Op::Open | Op::Close)) {
            let words = "sessions are opened and closed by the client itself";
            return Some(Failure::new(Cause::Code(Code::BadRequest), words));
        }
        let (code, words) = op.check().err()?;
        Some(Failure::new(Cause::Code(code), words))
    }

    /// A new operation, which stands in the queue from now on.
    fn add(&mut self, purpose: Purpose, op: RequestOp, deadline: Time) -> u64 {
        self.serial += 1;
        let operation = Operation::new(purpose, op, deadline, Wait::Turn);
        self.operations.push(self.serial, operation);
        self.ready.push_back(self.serial);
        self.wake_at(deadline);
        self.serial
    }

    /// The session is no more: what was never sent opens a new one, what was sent keeps the old one's name (C1).
    fn forget_session(&mut self) {
        self.session = SessionState::None;
        self.session_id = self.session_id.wrapping_add(1);
    }

    fn on_frame(&mut self, now: Time, endpoint: usize, request_id: u64, frame: Frame, effects: &mut Vec<Effect>) {
        if !self.links.is_open(endpoint) {
            return; // of a connection that an earlier effect of this very turn closed
        }
        self.links.heard(endpoint, now);
        match frame {
            Frame::Hello(hello) => {
                if let Err(trouble) = self.links.greeted(endpoint, &hello, now) {
                    self.drop_link(now, endpoint, trouble, effects);
                }
            }
            Frame::Error { code, detail } => self.drop_link(now, endpoint, Trouble::said(code, &detail), effects),
            Frame::Reply(reply) if self.links.is_up(endpoint) => {
                self.on_reply(now, endpoint, request_id, reply, effects);
            }
            Frame::Ping { nonce } => effects.push(Effect::Send {
                endpoint,
                request_id,
                frame: Frame::Pong { nonce },
            }),
            Frame::Pong { .. } => {}
            Frame::Reply(_)
            | Frame::Request(_)
            | Frame::Paxos(_)
            | Frame::Roster { .. }
            | Frame::Transfer(_)
            | Frame::Forward { .. }
            | Frame::ForwardReply(_) => {
                let detail = format!("a node does not send {} to a client, or not now", frame.name());
                self.drop_link(now, endpoint, Trouble::lasting(detail), effects);
            }
        }
    }

    fn on_reply(&mut self, now: Time, endpoint: usize, request_id: u64, reply: Reply, effects: &mut Vec<Effect>) {
        let other_way = match &reply.leader {
            Some((node, address)) => {
                let leader = (*node, &**address);
                self.links.follow(endpoint, leader, now, &self.options, effects)
            }
            None => false,
        };
        let serial = request_id >> TRY_BITS;
        let Some(operation) = self.operations.get_mut(serial) else {
            return; // it has ended: its deadline passed, or another attempt was answered
        };
        let purpose = operation.purpose;
        let is_awaited = operation
            .attempt()
            .is_some_and(|attempt| attempt.request_id == request_id);
        match reply.outcome {
            // A result is the operation's, whichever attempt brought it.
            Outcome::Done(served) => {
                self.links.served(endpoint);
                self.on_done(now, serial, purpose, served, effects);
            }
            // Anything else speaks of its attempt, and one that is not waited for any more has been counted as lost.
            Outcome::NotDone { .. } | Outcome::Unknown { .. } if !is_awaited => {}
            Outcome::NotDone {
                code,
                retry_after_ms,
                detail,
            } => {
                self.links.answered(endpoint);
                operation.refuse_attempt(Failure::new(Cause::Code(code), detail));
                let refusal = Refusal {
                    endpoint,
                    code,
                    retry_after: Duration::from_millis(retry_after_ms.into()),
                    other_way,
                };
                self.on_refused(now, serial, refusal, effects);
            }
            Outcome::Unknown { code } => {
                self.links.answered(endpoint);
                operation.lose_attempt(Failure::new(Cause::Code(code), ""));
                self.retry(now, serial, Duration::ZERO);
            }
        }
    }

    fn on_done(&mut self, now: Time, serial: u64, purpose: Purpose, served: Served, effects: &mut Vec<Effect>) {
        if purpose == Purpose::Open
            && let Served::Done(done) = &served
            && let Answer::Opened { opened } = done.answer
        {
            let name = SessionRef {
                id: self.session_id,
                opened,
            };
            self.session = SessionState::Open(Session::new(name));
            self.session_used = now;
            while let Some(waiting) = self.waiting.pop_front() {
                self.make_ready(waiting);
            }
        }
        self.finish(serial, End::Done(served), effects);
    }

    fn on_refused(&mut self, now: Time, serial: u64, refusal: Refusal, effects: &mut Vec<Effect>) {
        let Some(&Operation { tries, named, .. }) = self.operations.get(serial) else {
            return;
        };
        let code = refusal.code;
        if code == Code::SessionExpired
            && let SessionState::Open(session) = &self.session
            && named.is_some_and(|(name, _)| name == session.name())
        {
            self.forget_session();
        }
        let elsewhere = matches!(
            code,
            Code::NotLeader | Code::NoLeader | Code::NoQuorum | Code::NotFounded | Code::ShuttingDown | Code::Diverged
        );
        if elsewhere {
            self.links.cannot_serve(refusal.endpoint);
        }
        if !code.is_retryable() {
            self.give_up(serial, effects);
        } else if code == Code::NotLeader && refusal.other_way && tries <= HINTED_TRIES_MAX {
            self.mark_ready(serial);
        } else {
            self.retry(now, serial, refusal.retry_after);
        }
    }

    /// The next attempt follows after a backoff, which its deadline may cut short.
    fn retry(&mut self, now: Time, serial: u64, at_least: Duration) {
        let Some(operation) = self.operations.get_mut(serial) else {
            return;
        };
        let (base, max) = (self.options.backoff_base, self.options.backoff_max);
        let jitter = full_jitter(self.links.rng(), base, max, operation.tries.saturating_sub(1));
        let until = now + jitter.max(at_least) + self.budget.spend(now);
        operation.wait = Wait::Backoff(until);
        self.wake_at(until);
    }

    fn make_ready(&mut self, serial: u64) {
        if let Some(operation) = self.operations.get_mut(serial)
            && operation.wait == Wait::Session
        {
            self.mark_ready(serial);
        }
    }

    fn mark_ready(&mut self, serial: u64) {
        if let Some(operation) = self.operations.get_mut(serial) {
            operation.wait = Wait::Turn;
            self.ready.push_back(serial);
        }
    }

    /// Closes a connection that is still there.
    fn drop_link(&mut self, now: Time, endpoint: usize, trouble: Trouble, effects: &mut Vec<Effect>) {
        effects.push(Effect::Close { endpoint });
        self.on_down(now, endpoint, trouble);
    }

    /// A connection is gone: its attempts stay without a word, and are made again elsewhere.
    fn on_down(&mut self, now: Time, endpoint: usize, trouble: Trouble) {
        if !self.links.is_open(endpoint) {
            return;
        }
        let detail = format!("{}: {}", self.links.get(endpoint).address, trouble.detail);
        self.links.down(endpoint, trouble, now, &self.options);
        for serial in self.sent_to(endpoint) {
            if let Some(operation) = self.operations.get_mut(serial) {
                operation.lose_attempt(Failure::new(Cause::ConnectionLost, detail.clone()));
                self.retry(now, serial, Duration::ZERO);
            }
        }
    }

    fn sent_to(&self, endpoint: usize) -> Vec<u64> {
        let there = |operation: &Operation| operation.attempt().is_some_and(|attempt| attempt.endpoint == endpoint);
        let serials = self.operations.iter().filter(|(_, operation)| there(operation));
        serials.map(|(serial, _)| serial).collect()
    }

    fn on_deadline(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for endpoint in self.links.overdue(now) {
            self.drop_link(
                now,
                endpoint,
                Trouble::passing("no answer to the dial in time"),
                effects,
            );
        }
        if self.wake.is_some_and(|wake| wake <= now) {
            self.expire(now, effects);
            self.time_out_attempts(now, effects);
            self.end_backoffs(now);
            self.wake = self.next_wake();
        }
        if self.closing.is_some_and(|deadline| deadline <= now) {
            self.give_up_callers(effects);
        }
    }

    /// Ends operations whose deadline has passed; the caller's before the session's own, which name the reason.
    fn expire(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.deadline <= now);
        let mut late: Vec<(bool, u64)> = late
            .map(|(serial, operation)| (!matches!(operation.purpose, Purpose::Caller(_)), serial))
            .collect();
        late.sort_unstable();
        for (_, serial) in late {
            self.give_up(serial, effects);
        }
    }

    /// Attempts that wait too long: if nothing at all came since, the connection is as good as dead.
    fn time_out_attempts(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let late = |operation: &Operation| operation.attempt().copied().filter(|attempt| attempt.until <= now);
        let timed_out: Vec<(u64, Attempt)> = self
            .operations
            .iter()
            .filter_map(|(serial, operation)| late(operation).map(|attempt| (serial, attempt)))
            .collect();
        for (serial, attempt) in timed_out {
            let Some(operation) = self.operations.get_mut(serial) else {
                continue;
            };
            if operation.attempt() != Some(&attempt) {
                continue; // lost just now, with its connection
            }
            let detail = format!("no answer for {} ms", now.since(attempt.sent).as_millis());
            if self.links.get(attempt.endpoint).heard < attempt.sent {
                self.drop_link(now, attempt.endpoint, Trouble::passing(detail), effects);
            } else {
                operation.lose_attempt(Failure::new(Cause::Deadline, detail));
                self.links.answered(attempt.endpoint);
                self.retry(now, serial, Duration::ZERO);
            }
        }
    }

    fn end_backoffs(&mut self, now: Time) {
        let over = |operation: &Operation| matches!(operation.wait, Wait::Backoff(until) if until <= now);
        let over: Vec<u64> = self
            .operations
            .iter()
            .filter(|(_, operation)| over(operation))
            .map(|(serial, _)| serial)
            .collect();
        over.into_iter().for_each(|serial| self.mark_ready(serial));
    }

    fn next_wake(&self) -> Option<Time> {
        let moments = self.operations.iter().map(|(_, operation)| match operation.wait {
            Wait::Backoff(until) => until.min(operation.deadline),
            Wait::Answer(attempt) => attempt.until.min(operation.deadline),
            Wait::Session | Wait::Turn => operation.deadline,
        });
        moments.min()
    }

    fn wake_at(&mut self, moment: Time) {
        self.wake = Some(self.wake.map_or(moment, |wake| wake.min(moment)));
    }

    /// Ends an operation without an answer: as the join of its attempts says.
    fn give_up(&mut self, serial: u64, effects: &mut Vec<Effect>) {
        let otherwise = self.reason(serial);
        let Some(operation) = self.operations.get(serial) else {
            return;
        };
        let end = operation.give_up(otherwise);
        if operation.purpose == Purpose::Open
            && !matches!(end.failure(), Some(failure) if failure.cause == Cause::Deadline)
        {
            // Refused for good: those who wait for the session are refused with it, for they were never sent.
            let waiting: Vec<u64> = self.waiting.iter().copied().collect();
            waiting.into_iter().for_each(|waiting| self.give_up(waiting, effects));
        }
        self.finish(serial, end, effects);
        self.ready.retain(|ready| *ready != serial);
        self.waiting.retain(|waiting| *waiting != serial);
    }

    /// Why an operation that met nothing itself has not been done.
    fn reason(&self, serial: u64) -> Failure {
        let waits_for_session = self
            .operations
            .get(serial)
            .is_some_and(|operation| operation.wait == Wait::Session);
        if waits_for_session
            && let SessionState::Opening(open) = self.session
            && let Some(failure) = self.operations.get(open).and_then(Operation::failure)
            && failure.cause != Cause::ConnectionLost
        {
            let words = "while its session was to be opened".to_string();
            let detail = match failure.detail.as_str() {
                "" => words,
                detail => format!("{detail}; {words}"),
            };
            return Failure::new(failure.cause, detail);
        }
        match self.links.trouble() {
            Some(trouble) if trouble.lasting => Failure::new(Cause::Protocol, trouble.detail),
            Some(trouble) if !trouble.detail.is_empty() => Failure::new(Cause::NoEndpoint, trouble.detail),
            Some(_) | None => Operation::out_of_time(),
        }
    }

    fn give_up_callers(&mut self, effects: &mut Vec<Effect>) {
        let is_caller = |operation: &Operation| matches!(operation.purpose, Purpose::Caller(_));
        let callers = self.operations.iter().filter(|(_, operation)| is_caller(operation));
        let callers: Vec<u64> = callers.map(|(serial, _)| serial).collect();
        callers.into_iter().for_each(|serial| self.give_up(serial, effects));
    }

    /// Takes an operation out and says how it ended.
    fn finish(&mut self, serial: u64, end: End, effects: &mut Vec<Effect>) {
        let Some(operation) = self.operations.remove(serial) else {
            return;
        };
        if let Some(attempt) = operation.attempt() {
            self.links.answered(attempt.endpoint);
        }
        if let Some((name, number)) = operation.named
            && number > 0
            && let SessionState::Open(session) = &mut self.session
            && session.name() == name
        {
            session.end(number);
        }
        match operation.purpose {
            Purpose::Caller(token) => {
                self.callers -= 1;
                effects.push(Effect::Finished { token, end });
            }
            Purpose::Open => {
                if matches!(self.session, SessionState::Opening(_)) {
                    self.session = SessionState::None;
                }
            }
            Purpose::Close => self.session = SessionState::None,
        }
    }

    /// What follows any input: the session is opened, somebody is connected, what is ready leaves.
    fn go_on(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.give_up_unreachable(now, effects);
        self.send_ready(now, effects);
        if !self.waiting.is_empty() {
            self.open_session();
            self.send_ready(now, effects);
        }
        if self.closing.is_some() && self.callers == 0 {
            self.close_session(now, effects);
            self.send_ready(now, effects);
        }
        if self.wants_link() {
            self.links.ensure(now, &self.options, effects);
            // Whom it chose may be connected already, and then nothing more will come of itself.
            self.send_ready(now, effects);
        }
        self.links.tidy(now, effects);
    }

    fn wants_link(&self) -> bool {
        !self.operations.is_empty()
    }

    fn give_up_unreachable(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let grace_over = self
            .options
            .give_up_unreachable
            .zip(self.links.unreachable_since())
            .is_some_and(|(grace, since)| now >= since + grace);
        if self.callers > 0 && (grace_over || self.links.trouble().is_some_and(|trouble| trouble.lasting)) {
            self.give_up_callers(effects);
        }
    }

    /// Sends what stands in the queue, if somebody is connected. Writes beyond the session's bound go on standing.
    fn send_ready(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for _ in 0..self.ready.len() {
            let Some(serial) = self.ready.pop_front() else {
                return;
            };
            let Some(operation) = self.operations.get_mut(serial) else {
                continue;
            };
            if operation.needs_number() && operation.named.is_none() {
                match &mut self.session {
                    SessionState::Open(session) => {
                        // Not before it can be sent: a number that was never sent would hold up the lowest outstanding.
                        let number = self.links.up().and_then(|_| session.take_number());
                        operation.named = number.map(|number| (session.name(), number));
                    }
                    SessionState::None | SessionState::Opening(_) => {
                        operation.wait = Wait::Session;
                        self.waiting.push_back(serial);
                        continue;
                    }
                }
            }
            let up = match operation.is_linearizable_read() {
                true => self.links.up_for_reads(now, &self.options, effects),
                false => self.links.up(),
            };
            let Some(endpoint) = up.filter(|_| !operation.needs_number() || operation.named.is_some()) else {
                self.ready.push_back(serial);
                continue;
            };
            self.send(now, serial, endpoint, effects);
        }
    }

    fn send(&mut self, now: Time, serial: u64, endpoint: usize, effects: &mut Vec<Effect>) {
        let low = match &self.session {
            SessionState::Open(session) => session.low(),
            SessionState::None | SessionState::Opening(_) => 1,
        };
        let operation = self
            .operations
            .get_mut(serial)
            .expect("taken from the queue, still there");
        let doublings = operation.tries.min(ATTEMPT_DOUBLINGS_MAX);
        operation.tries += 1;
        let attempt = Attempt {
            request_id: (serial << TRY_BITS) | u64::from(operation.tries & ((1 << TRY_BITS) - 1)),
            endpoint,
            sent: now,
            until: now + self.options.attempt_timeout * (1 << doublings),
        };
        operation.wait = Wait::Answer(attempt);
        // A request of a session that is no more names its own number: nothing below it will be asked for again.
        let low = operation.named.map_or(low, |(_, number)| low.min(number));
        effects.push(Effect::Send {
            endpoint,
            request_id: attempt.request_id,
            frame: Frame::Request(operation.request(now, low)),
        });
        if operation.is_write() {
            self.session_used = now;
        }
        self.links.sent(endpoint, now);
        self.wake_at(attempt.until);
    }

    /// Opens the session that operations wait for; its deadline is the last of theirs.
    fn open_session(&mut self) {
        let deadlines = self.waiting.iter().filter_map(|serial| self.operations.get(*serial));
        let Some(deadline) = deadlines.map(|operation| operation.deadline).max() else {
            return;
        };
        match self.session {
            SessionState::None => {
                let serial = self.add(Purpose::Open, RequestOp::Write(Op::Open), deadline);
                let name = SessionRef {
                    id: self.session_id,
                    opened: Slot::ZERO,
                };
                self.name(serial, name);
                self.session = SessionState::Opening(serial);
            }
            SessionState::Opening(serial) => {
                if let Some(open) = self.operations.get_mut(serial) {
                    open.deadline = open.deadline.max(deadline);
                }
            }
            SessionState::Open(_) => {}
        }
    }

    fn name(&mut self, serial: u64, name: SessionRef) {
        if let Some(operation) = self.operations.get_mut(serial) {
            operation.named = Some((name, 0));
        }
    }

    /// The clean end: CLOSE if there is a session and somebody to tell, then the connections.
    fn close_session(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let is_closing = self
            .operations
            .iter()
            .any(|(_, operation)| operation.purpose == Purpose::Close);
        if self.closed || is_closing {
            return;
        }
        let deadline = self.closing.unwrap_or(now).min(now + CLOSE_TIMEOUT);
        if let SessionState::Open(session) = &self.session
            && self.links.up().is_some()
            && deadline > now
        {
            let name = session.name();
            let serial = self.add(Purpose::Close, RequestOp::Write(Op::Close), deadline);
            self.name(serial, name);
            return;
        }
        self.operations.clear();
        self.links.close(effects);
        self.closed = true;
        effects.push(Effect::Closed);
    }
}
