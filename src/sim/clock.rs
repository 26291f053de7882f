//! One node's monotonic clock: it has its own origin, runs at its own rate, and may jump forward (a machine that slept).

use crate::time::Time;
use std::time::Duration;

const MILLION: u64 = 1_000_000;

/// A clock, as a function of the simulated time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Simulated time since which the rate holds.
    since: Time,
    /// What the clock showed then.
    showed: Time,
    /// Nanoseconds that it counts in a millisecond of simulated time.
    rate: u64,
}

impl Clock {
    /// A clock that shows `showed` at `now`, and is off by so many millionths.
    pub fn new(now: Time, showed: Time, off_by: i32) -> Clock {
        let rate = MILLION.saturating_add_signed(off_by.into());
        Clock {
            since: now,
            showed,
            rate,
        }
    }

    /// What it shows at a simulated time.
    pub fn at(&self, now: Time) -> Time {
        let span = now.0.saturating_sub(self.since.0);
        Time(self.showed.0 + span / MILLION * self.rate + span % MILLION * self.rate / MILLION)
    }

    /// The simulated time from which on it shows at least `local`.
    pub fn when(&self, local: Time) -> Time {
        let span = local.0.saturating_sub(self.showed.0);
        let (whole, rest) = (span / self.rate, span % self.rate);
        Time(self.since.0 + whole * MILLION + (rest * MILLION).div_ceil(self.rate))
    }

    /// From `now` on it is off by so many millionths.
    pub fn set_rate(&mut self, now: Time, off_by: i32) {
        *self = Clock::new(now, self.at(now), off_by);
    }

    /// At `now` it leaps forward.
    pub fn jump(&mut self, now: Time, span: Duration) {
        self.showed = self.at(now) + span;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_the_clock_is_reached_when_it_says_so_and_not_before() {
        for off_by in [0, 1, 50_000, -50_000, 333_333] {
            let mut clock = Clock::new(Time(5), Time(1_000), off_by);
            clock.jump(Time(77), Duration::from_millis(3));
            for local in (3_001_100..90_000_000).step_by(1_234_567).map(Time) {
                let when = clock.when(local);
                assert!(clock.at(when) >= local, "{off_by}: {local:?}");
                assert!(clock.at(Time(when.0 - 2)) < local, "{off_by}: {local:?}");
            }
        }
    }
}
