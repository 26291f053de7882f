//! The operations of a client that have not ended, by serial.
//!
//! Serials ascend, and operations end in about the order in which they began. So they stand in a queue, in that order:
//! it is searched by halves, gives up its first without moving the others, and keeps its memory while nothing is open.
//!
//! Not here: what an operation is (`operation`), what becomes of it ([`super::machine`]).

use super::operation::Operation;
use std::collections::VecDeque;

/// Operations by serial. Invariant: serials ascend from the front to the back.
#[derive(Debug, Default)]
pub(super) struct Operations {
    /// Boxed, so that closing a gap moves little.
    open: VecDeque<(u64, Box<Operation>)>,
}

impl Operations {
    /// Takes an operation in, under a serial above all that were there before.
    pub(super) fn push(&mut self, serial: u64, operation: Operation) {
        let last = self.open.back().map_or(0, |(last, _)| *last);
        assert!(last < serial, "serials ascend: {serial} comes behind {last}");
        self.open.push_back((serial, Box::new(operation)));
    }

    fn place(&self, serial: u64) -> Option<usize> {
        self.open.binary_search_by_key(&serial, |(serial, _)| *serial).ok()
    }

    pub(super) fn get(&self, serial: u64) -> Option<&Operation> {
        self.place(serial).map(|place| &*self.open[place].1)
    }

    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut Operation> {
        self.place(serial).map(|place| &mut *self.open[place].1)
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Box<Operation>> {
        let place = self.place(serial)?;
        self.open.remove(place).map(|(_, operation)| operation)
    }

    /// All of them, in the order of their serials.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Operation)> {
        self.open.iter().map(|(serial, operation)| (*serial, &**operation))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::{Purpose, Wait};
    use super::*;
    use crate::time::Time;
    use crate::wire::RequestOp;

    #[test]
    fn operations_are_found_by_serial_whatever_ended_before() {
        let mut operations = Operations::default();
        for serial in [1, 2, 5, 6, 9] {
            let operation = Operation::new(Purpose::Caller(serial), RequestOp::Status, Time::ZERO, Wait::Turn);
            operations.push(serial, operation);
        }
        for (ended, left) in [(5, vec![1, 2, 6, 9]), (1, vec![2, 6, 9]), (9, vec![2, 6])] {
            let operation = operations.remove(ended).expect("it is open");
            assert_eq!(operation.purpose, Purpose::Caller(ended));
            assert!(operations.remove(ended).is_none() && operations.get(ended).is_none());
            assert_eq!(operations.iter().map(|(serial, _)| serial).collect::<Vec<_>>(), left);
            for serial in left {
                let found = operations.get_mut(serial).map(|operation| operation.purpose);
                assert_eq!(found, Some(Purpose::Caller(serial)));
            }
        }
    }
}
