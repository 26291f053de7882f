//! When which place goes on.
//!
//! Places of a group with a rate take their starts in ascending order, and there may be hundreds of thousands of them. So
//! what comes in ascending order stands in a queue, where the next is the first; only what does not is sorted.

use crate::time::Time;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Places that wait for a time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Ascending.
    queue: VecDeque<(Time, usize)>,
    others: BinaryHeap<Reverse<(Time, usize)>>,
}

impl Timers {
    /// Lets `place` go on at `due`.
    pub(super) fn push(&mut self, due: Time, place: usize) {
        if self.queue.back().is_none_or(|last| *last <= (due, place)) {
            self.queue.push_back((due, place));
        } else {
            self.others.push(Reverse((due, place)));
        }
    }

    /// When the first goes on.
    pub(super) fn next(&self) -> Option<Time> {
        let others = self.others.peek().map(|Reverse(first)| first);
        self.queue.front().into_iter().chain(others).min().map(|(due, _)| *due)
    }

    /// Takes the first out, if it is due by `now`; of several, the lowest.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<usize> {
        let queued = self.queue.front().copied();
        let other = self.others.peek().map(|Reverse(first)| *first);
        let (due, place) = queued.into_iter().chain(other).min()?;
        if due > now {
            return None;
        }
        if queued == Some((due, place)) {
            self.queue.pop_front();
        } else {
            self.others.pop();
        }
        Some(place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.others.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_on_in_the_order_of_their_times_in_whatever_order_they_came() {
        let seed = fastrand::u64(..);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut timers, mut expected) = (Timers::default(), Vec::new());
        for place in 0..300 {
            let due = Time::from_millis(rng.u64(0..40));
            timers.push(due, place);
            expected.push((due, place));
        }
        expected.sort_unstable();
        assert_eq!(timers.next(), Some(expected[0].0), "seed {seed}");
        let (now, mut taken) = (Time::from_millis(20), Vec::new());
        taken.extend(std::iter::from_fn(|| timers.pop_due(now)));
        let due = expected.iter().filter(|(due, _)| *due <= now).map(|(_, place)| *place);
        assert_eq!(taken, due.collect::<Vec<_>>(), "seed {seed}");
        assert!(timers.next().is_none_or(|next| next > now), "seed {seed}");
        timers.clear();
        assert!(timers.is_empty());
    }
}
