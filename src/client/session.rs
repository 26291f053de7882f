//! The numbers of one session's writes: which is next, and which is the lowest still outstanding.

use crate::kv::SessionRef;
use crate::kv::session::IN_FLIGHT_MAX;
use std::collections::VecDeque;

/// An open session, as its client keeps it.
///
/// Invariants: `low <= next <= low + IN_FLIGHT_MAX`; `ended` holds one flag for each number from `low` to below `next`,
/// and its first is not set.
#[derive(Clone, Debug)]
pub(super) struct Session {
    session: SessionRef,
    low: u64,
    next: u64,
    ended: VecDeque<bool>,
}

impl Session {
    /// A session that OPEN has just opened.
    pub(super) fn new(session: SessionRef) -> Session {
        Session {
            session,
            low: 1,
            next: 1,
            ended: VecDeque::new(),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> SessionRef {
        self.session
    }

    /// The lowest number whose reply may still be asked for.
    pub(super) fn low(&self) -> u64 {
        self.low
    }

    /// Takes the next number, unless so many are in flight that the table of sessions would refuse one more.
    pub(super) fn take_number(&mut self) -> Option<u64> {
        if self.next - self.low >= IN_FLIGHT_MAX {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.ended.push_back(false);
        Some(number)
    }

    /// The write of this number has ended, one way or another: its reply will not be asked for again.
    pub(super) fn end(&mut self, number: u64) {
        let place = usize::try_from(number - self.low).expect("a number in flight is less than 256 above the lowest");
        self.ended[place] = true;
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.low += 1;
        }
    }

    /// Whether no write is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.low == self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_outstanding_number_moves_over_all_that_ended() {
        let mut session = Session::new(SessionRef::default());
        assert!(session.is_idle());
        assert_eq!([1, 2, 3].map(|_| session.take_number()), [Some(1), Some(2), Some(3)]);
        session.end(2);
        assert_eq!(session.low(), 1);
        session.end(1);
        assert_eq!(session.low(), 3);
        session.end(3);
        assert_eq!(session.low(), 4);
        assert!(session.is_idle());
    }

    #[test]
    fn no_more_numbers_are_out_than_the_table_of_sessions_keeps() {
        let mut session = Session::new(SessionRef::default());
        for number in 1..=IN_FLIGHT_MAX {
            assert_eq!(session.take_number(), Some(number));
        }
        session.end(5);
        assert_eq!(session.take_number(), None);
        session.end(1);
        assert_eq!(session.take_number(), Some(IN_FLIGHT_MAX + 1));
    }
}
