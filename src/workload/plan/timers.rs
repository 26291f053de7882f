//! When which place goes on.
//!
//! Places of a group with a rate take their starts in ascending order, and there may be hundreds of thousands of them. So
//! what comes in ascending order stands in a queue, where the next is the first; only what does not is sorted. (A place
//! that sleeps for long, at the end of the queue, makes all others sorted: that costs time, and nothing else.)

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

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.others.is_empty()
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.others.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn places_go_on_in_the_order_of_their_times_in_whatever_order_they_came() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut timers, mut waiting) = (Timers::default(), Vec::new());
            for round in 0..60 {
                let now = Time::from_millis(round);
                for _ in 0..rng.usize(0..6) {
                    let timer = (now + Duration::from_millis(rng.u64(0..20)), rng.usize(0..9));
                    timers.push(timer.0, timer.1);
                    waiting.push(timer);
                }
                waiting.sort_unstable();
                assert_eq!(timers.next(), waiting.first().map(|(due, _)| *due), "seed {seed}");
                let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(due, _)| *due <= now);
                let taken: Vec<usize> = std::iter::from_fn(|| timers.pop_due(now)).collect();
                assert_eq!(
                    taken,
                    due.iter().map(|(_, place)| *place).collect::<Vec<_>>(),
                    "seed {seed}"
                );
                waiting = later;
            }
            assert_eq!(timers.is_empty(), waiting.is_empty(), "seed {seed}");
            timers.clear();
            assert!(timers.is_empty());
        }
    }
}
