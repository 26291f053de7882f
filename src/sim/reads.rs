//! The judge's book of what reads must show: whatever was acknowledged before they arrived.
//!
//! A read that is answered "done" names the slot up to which its node had applied the log. An answer "done" to anybody,
//! in whichever slot, has left a node before: from then on every read that arrives, anywhere, shows that slot at least.
//! It is more than clients can see, who only meet on the same key, and so it finds stale reads that change no value.

use crate::paxos::Slot;
use crate::time::Time;
use std::collections::BTreeMap;

/// The highest slot that an answer "done" has named, and since when. Times and slots both rise.
#[derive(Debug, Default)]
pub(super) struct Acknowledged(BTreeMap<Time, Slot>);

impl Acknowledged {
    /// What had left by `now`.
    pub(super) fn by(&self, now: Time) -> Slot {
        self.0.range(..=now).next_back().map_or(Slot::ZERO, |(_, slot)| *slot)
    }

    /// An answer that names `slot` leaves at `now`. A node's turn may run ahead of others' by the length of its sync, so
    /// these moments come in any order.
    pub(super) fn note(&mut self, slot: Slot, now: Time) {
        if self.by(now) >= slot {
            return;
        }
        while let Some((later, _)) = self.0.range(now..).next().filter(|(_, later)| **later <= slot) {
            let later = *later;
            self.0.remove(&later);
        }
        self.0.insert(now, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_must_show_what_had_left_by_then_in_whatever_order_it_was_told() {
        let ms = Time::from_millis;
        let mut acknowledged = Acknowledged::default();
        acknowledged.note(Slot(7), ms(30));
        acknowledged.note(Slot(5), ms(10));
        acknowledged.note(Slot(4), ms(20));
        let by = [0, 10, 29, 30].map(|at| acknowledged.by(ms(at)).0);
        assert_eq!(by, [0, 5, 5, 7]);
        acknowledged.note(Slot(9), ms(10));
        assert_eq!((acknowledged.by(ms(10)), acknowledged.by(ms(40))), (Slot(9), Slot(9)));
    }
}
