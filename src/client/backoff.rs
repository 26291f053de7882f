//! How long to wait before the next try: exponential backoff with full jitter, and a budget of retries.

use crate::time::Time;
use fastrand::Rng;
use std::time::Duration;

/// A wait drawn evenly from zero to `base`·2^`tries`, at most `max`.
///
/// Full jitter, so that clients that lost the same leader at the same moment do not come back together.
pub fn full_jitter(rng: &mut Rng, base: Duration, max: Duration, tries: u32) -> Duration {
    let ceiling = base.saturating_mul(1 << tries.min(20)).min(max);
    Duration::from_nanos(rng.u64(0..=u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX)))
}

/// Paces retries: a burst at once, then a steady rate. It delays, it never refuses: the operation's deadline ends it.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// Time that one retry is worth.
    interval: Duration,
    /// How far ahead of the clock the spent time may be.
    burst: Duration,
    /// The clock at which everything spent is paid back (a "virtual scheduling" leaky bucket).
    paid_back: Time,
}

impl RetryBudget {
    /// A full budget of `burst` retries that refills by `rate` a second.
    pub fn new(burst: u32, rate: u32) -> RetryBudget {
        let interval = Duration::from_secs(1) / rate.max(1);
        RetryBudget {
            interval,
            burst: interval.saturating_mul(burst),
            paid_back: Time::ZERO,
        }
    }

    /// Spends one retry, and says how long it must wait: zero while the burst lasts.
    pub fn spend(&mut self, now: Time) -> Duration {
        let from = self.paid_back.max(now);
        self.paid_back = from + self.interval;
        from.since(now + self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_grows_with_the_tries_up_to_its_cap_and_reaches_down_to_zero() {
        let mut rng = Rng::with_seed(1);
        let (base, max) = (Duration::from_millis(10), Duration::from_millis(500));
        for (tries, ceiling_ms) in [(0, 10), (1, 20), (3, 80), (6, 500), (40, 500), (u32::MAX, 500)] {
            let drawn: Vec<Duration> = (0..200).map(|_| full_jitter(&mut rng, base, max, tries)).collect();
            let ceiling = Duration::from_millis(ceiling_ms);
            assert!(drawn.iter().all(|wait| *wait <= ceiling), "tries={tries}");
            assert!(drawn.iter().any(|wait| *wait > ceiling * 3 / 4), "tries={tries}");
            assert!(drawn.iter().any(|wait| *wait < ceiling / 4), "tries={tries}");
        }
    }

    #[test]
    fn a_burst_of_retries_goes_at_once_and_more_are_paced() {
        let mut budget = RetryBudget::new(3, 10);
        let now = Time::from_millis(5_000);
        let waits: Vec<u128> = (0..6).map(|_| budget.spend(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 100, 200]);
        let later = now + Duration::from_secs(10);
        assert_eq!(budget.spend(later), Duration::ZERO);
    }
}
