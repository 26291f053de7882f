//! Read positions: how a node that does not lead answers linearizable reads from its own state.
//!
//! It asks the leader once a turn, for all reads that have come. The leader treats the ask as a read of its own: it notes
//! the chosen prefix and is confirmed as leader by a round that it begins after the ask arrived, or by its lease (`rules.md`
//! 15, 16), and answers when it has applied that prefix and all that phase 1 listed (rule 7). It answers with its watermark:
//! every write that was acknowledged before the ask stands at or below it. Who asked applies up to there, and then
//! answers. Source: Ongaro's thesis, section 6.4, "processing read-only queries more efficiently". Invariants:
//! * Q1. An ask leaves behind the arrival of all reads that wait under its number or a lower one: an answer holds for all
//!   of these, whoever gives it and however late, and for no others.
//! * Q2. An ask names the start of the process that sent it: what is still owed to an earlier life serves nobody.
//! * Q3. A read is answered by a state that has applied its position. Whether this node votes, or remembers what it has
//!   promised, does not matter: what it has applied was chosen, and how much it must have applied the leader says.
//!
//! Nobody refuses an ask: who does not lead, or ends to lead before it is confirmed, keeps silent. An ask without an
//! answer is sent again, with a growing pause, and at once to a leader that is new or comes back. Reads end at their
//! deadlines, or with the turn in which no leader can be reached any more.

use super::io::Effect;
use super::machine::Machine;
use super::reads::Read;
use super::requests::not_done;
use crate::kv::SessionRef;
use crate::paxos::message::PositionAsk;
use crate::paxos::{Health, Message, NodeId, Slot, Stance};
use crate::time::Time;
use crate::wire::hello::FEATURE_READ_POSITIONS;
use crate::wire::{Request, RequestOp};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Most asks that wait for a leader's confirmation, a turn's of one peer counting once. Those beyond are dropped, and
/// sent again by who waits: asks that came earlier are answered earlier.
pub(super) const ASKS_MAX: usize = 1_024;
/// How often the pause before an ask is sent again doubles.
const PAUSE_DOUBLINGS_MAX: u32 = 3;

/// How often positions were asked for and told since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionCounts {
    /// Asks that this node sent.
    pub asked: u64,
    /// Answers that it gave, leading.
    pub told: u64,
    /// Reads whose position it was told, and which it answers from its own state.
    pub reads: u64,
}

/// At a node that does not lead: its asks. The reads that wait for them are in [`super::reads`].
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Number of the last.
    last: u64,
    /// When the last is to be sent again, if no answer comes.
    again_at: Option<Time>,
    /// How often it was, since an answer came.
    repeats: u32,
}

/// At the leader: asks of others.
#[derive(Debug, Default)]
pub(super) struct Asks {
    /// Arrived, and no round begun for them yet: the last of each node, whose answer serves those before it.
    fresh: BTreeMap<NodeId, PositionAsk>,
    /// In order of their rounds. Bound: [`ASKS_MAX`].
    confirming: VecDeque<Confirming>,
}

#[derive(Debug)]
struct Confirming {
    from: NodeId,
    ask: PositionAsk,
    round: u64,
    index: Slot,
}

impl Asks {
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.confirming.len()
    }

    /// Whether a round should begin for asks that have none.
    pub(super) fn wants_round(&self) -> bool {
        !self.fresh.is_empty()
    }

    fn push(&mut self, from: NodeId, ask: PositionAsk) {
        if self.len() < ASKS_MAX {
            self.fresh.insert(from, ask);
        }
    }

    /// `round` was begun after all fresh asks arrived; `index` is the prefix that the answers must cover.
    pub(super) fn begin(&mut self, round: u64, index: Slot) {
        let fresh = std::mem::take(&mut self.fresh).into_iter();
        self.confirming.extend(fresh.map(|(from, ask)| Confirming {
            from,
            ask,
            round,
            index,
        }));
    }

    /// The ballot changed, and its clients are kept: asks are noted anew as reads are.
    pub(super) fn begin_anew(&mut self) {
        let newer = std::mem::take(&mut self.fresh);
        let older = self
            .confirming
            .drain(..)
            .map(|Confirming { from, ask, .. }| (from, ask));
        self.fresh.extend(older.chain(newer));
    }

    pub(super) fn clear(&mut self) {
        *self = Asks::default();
    }

    /// Asks that can be answered: of each node the last, which serves the others.
    fn take_ready(&mut self, confirmed: u64, applied: Slot) -> BTreeMap<NodeId, PositionAsk> {
        let mut ready = BTreeMap::new();
        while let Some(next) = self.confirming.front()
            && next.round <= confirmed
            && next.index <= applied
        {
            ready.insert(next.from, next.ask);
            self.confirming.pop_front();
        }
        ready
    }
}

impl Asking {
    /// Whoever leads now has not been asked: it is, with the end of this turn.
    pub(super) fn ask_again(&mut self, now: Time) {
        (self.again_at, self.repeats) = (self.again_at.map(|_| now), 0);
    }

    fn is_overdue(&self, now: Time) -> bool {
        self.again_at.is_some_and(|due| now >= due)
    }

    /// The number of the ask that leaves now: a new one if there are new reads, else the last one once more (Q1).
    fn next(&mut self, now: Time, has_new_reads: bool, pause: Duration) -> u64 {
        if self.is_overdue(now) {
            self.repeats = (self.repeats + 1).min(PAUSE_DOUBLINGS_MAX);
        }
        self.last += u64::from(has_new_reads);
        self.again_at = Some(now + pause * (1 << self.repeats));
        self.last
    }

    fn answered(&mut self, is_anything_open: bool) {
        self.repeats = 0;
        if !is_anything_open {
            self.again_at = None;
        }
    }
}

impl Machine {
    /// Whether reads that arrive here may be answered here, at a position that `leader` tells.
    pub(super) fn reads_at_position_of(&self, leader: NodeId) -> bool {
        self.founding.both_know(leader, FEATURE_READ_POSITIONS)
    }

    /// The end of a turn at a node that does not lead: one ask for all reads that came, or that wait for too long. A leader
    /// that tells no positions is forwarded them.
    pub(super) fn ask_for_position(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.reads.linearizable() == 0 {
            return;
        }
        let Some(leader) = self.leader_to_relay_to() else {
            return self.refuse_reads(effects);
        };
        let has_new_reads = self.reads.fresh() > 0;
        let is_overdue = self.reads.are_asked() && self.asking.is_overdue(now);
        if !has_new_reads && !is_overdue {
            return;
        }
        if !self.reads_at_position_of(leader) {
            for Read { origin, key, deadline } in self.reads.take_unplaced() {
                let request = Request {
                    deadline_ms: 0, // set when it is forwarded
                    session: SessionRef::default(),
                    number: 0,
                    low: 0,
                    op: RequestOp::Get { key },
                };
                self.relay(now, origin, request, deadline, effects);
            }
            return;
        }
        // Pauses as before an ACCEPT is sent again: links are TCP, so little is lost but with its link.
        let pause = self.settings.heartbeat * 2;
        let number = self.asking.next(now, has_new_reads, pause);
        self.reads.ask(number);
        if !self.settings.rules.ask_for_position {
            self.reads.place(number, Slot::ZERO);
        }
        self.positions.asked += 1;
        let ask = PositionAsk {
            start: self.settings.start.token,
            number,
        };
        self.out.send(leader, Message::ReadPosition { ask });
    }

    /// No leader can be asked: reads that wait are refused as those that arrive now are. Kept, they would fill the queue of a
    /// node that is cut off, and its clients would be told that it is busy, and stay.
    fn refuse_reads(&mut self, effects: &mut Vec<Effect>) {
        let code = self.why_no_leader();
        for read in self.reads.take_all() {
            self.answer(read.origin, not_done(code), effects);
        }
    }

    /// A peer asks for a position: noted as a read is, if this node leads and serves.
    pub(super) fn on_read_position(&mut self, from: NodeId, ask: PositionAsk) {
        if self.replica.stance().keeps_clients() && self.refuses_now(0).is_none() {
            self.asks.push(from, ask);
        }
    }

    /// A position was told: reads that were asked for by then wait for it to be applied.
    pub(super) fn on_position(&mut self, ask: PositionAsk, position: Slot) {
        if ask.start == self.settings.start.token {
            let placed = self.reads.place(ask.number, position);
            self.positions.reads += placed as u64;
            self.asking.answered(self.reads.are_asked());
        }
    }

    /// At the leader: answers asks that are confirmed.
    pub(super) fn tell_positions(&mut self, confirmed: u64) {
        let Stance::Leader(ballot) = self.replica.stance() else {
            return;
        };
        if self.replica.digests().health() != Health::Sound {
            return;
        }
        let chosen_upto = self.replica.learner().chosen_upto();
        for (to, ask) in self.asks.take_ready(confirmed, self.state.applied()) {
            self.positions.told += 1;
            let answer = Message::ReadPositionAnswer {
                ask,
                ballot,
                chosen_upto,
            };
            self.out.send(to, answer);
        }
    }

    /// How often positions were asked for and told since the start.
    pub fn positions(&self) -> PositionCounts {
        self.positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(number: u64) -> PositionAsk {
        PositionAsk { start: 7, number }
    }

    #[test]
    fn an_ask_is_answered_when_its_round_is_confirmed_and_what_it_noted_is_applied() {
        let (near, far) = (NodeId(2), NodeId(3));
        let mut asks = Asks::default();
        asks.push(near, ask(1));
        asks.begin(4, Slot(9));
        asks.push(near, ask(2));
        asks.push(far, ask(1));
        asks.begin(5, Slot(9));
        asks.push(near, ask(3));
        assert!(asks.take_ready(3, Slot(9)).is_empty(), "not confirmed");
        assert!(asks.take_ready(5, Slot(8)).is_empty(), "not applied");
        assert_eq!(asks.take_ready(4, Slot(9)), [(near, ask(1))].into());
        assert_eq!(asks.take_ready(9, Slot(9)), [(near, ask(2)), (far, ask(1))].into());
        assert!(asks.wants_round() && asks.len() == 1, "the last has no round yet");
    }

    #[test]
    fn asks_beyond_the_bound_are_dropped_and_a_new_ballot_keeps_the_last_of_each_node() {
        let mut asks = Asks::default();
        for number in 1..=ASKS_MAX as u64 + 5 {
            asks.push(NodeId(2), ask(number));
            asks.begin(number, Slot(1));
        }
        assert_eq!(asks.len(), ASKS_MAX);
        asks.begin_anew();
        assert_eq!(asks.len(), 1);
        asks.begin(1, Slot(1));
        assert_eq!(asks.take_ready(1, Slot(1)), [(NodeId(2), ask(ASKS_MAX as u64))].into());
    }

    #[test]
    fn an_ask_is_sent_again_after_growing_pauses_under_its_own_number() {
        let (ms, pause) = (Time::from_millis, Duration::from_millis(10));
        let mut asking = Asking::default();
        assert_eq!(asking.next(ms(0), true, pause), 1);
        assert!(!asking.is_overdue(ms(9)) && asking.is_overdue(ms(10)));
        assert_eq!(asking.next(ms(10), false, pause), 1);
        assert!(!asking.is_overdue(ms(29)) && asking.is_overdue(ms(30)));
        asking.ask_again(ms(12));
        assert!(asking.is_overdue(ms(12)), "there is a new leader");
        assert_eq!(asking.next(ms(12), true, pause), 2);
        asking.answered(false);
        assert!(!asking.is_overdue(ms(1_000)));
        asking.ask_again(ms(1_000));
        assert!(!asking.is_overdue(ms(1_000)), "nothing to ask");
    }
}
