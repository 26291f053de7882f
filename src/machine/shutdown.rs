//! A clean end: finish what is in flight, hand leadership over, wait for the successor, all within a second.

use crate::paxos::{NodeId, Outbox, Replica, Stance};
use crate::time::Time;
use std::time::Duration;

/// What is in flight has so long to finish before leadership is handed over.
const FINISH: Duration = Duration::from_millis(500);
/// A leader that handed over waits so long to see its successor lead, to redirect clients.
const SUCCEED: Duration = Duration::from_millis(300);

/// How far the end has come.
#[derive(Debug)]
pub(super) struct Shutdown {
    begun: Time,
    handed_over: Option<(NodeId, Time)>,
    is_finished: bool,
}

impl Shutdown {
    pub(super) fn begin(now: Time) -> Shutdown {
        Shutdown {
            begun: now,
            handed_over: None,
            is_finished: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.handed_over {
            _ if self.is_finished => None,
            Some((_, at)) => Some(at + SUCCEED),
            None => Some(self.begun + FINISH),
        }
    }

    /// Hands over once nothing is in flight, or the time for that is up.
    pub(super) fn go_on(&mut self, now: Time, is_idle: bool, replica: &mut Replica, out: &mut Outbox) {
        let is_due = is_idle || now >= self.begun + FINISH;
        if is_due && self.handed_over.is_none() && matches!(replica.stance(), Stance::Leader(_)) {
            self.handed_over = replica.hand_over(now, out).map(|to| (to, now));
        }
        if self.handed_over.is_none() && is_due {
            self.begun = self.begun.min(now - FINISH); // nobody to hand over to: nothing more to wait for
        }
    }

    /// True once, when the process may end.
    pub(super) fn ends_now(&mut self, now: Time, replica: &Replica) -> bool {
        let is_over = match self.handed_over {
            Some((to, at)) => now >= at + SUCCEED || replica.leader().is_some_and(|ballot| ballot.node == to),
            None => now >= self.begun + FINISH,
        };
        is_over && !std::mem::replace(&mut self.is_finished, true)
    }
}
