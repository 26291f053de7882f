//! A run second by second: what was done in each, and how long it took.

use crate::time::Time;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// Significant figures of latencies.
const LATENCY_FIGURES: u8 = 3;

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Second {
    /// Operations that ended as done.
    pub done: u64,
    /// Operations that ended as not done or unknown.
    pub failed: u64,
    /// Half of those that were done took less, microseconds.
    pub p50_us: f64,
    /// Ninety-nine in a hundred of them took less, microseconds.
    pub p99_us: f64,
    /// The longest of them, microseconds.
    pub max_us: f64,
}

/// All seconds, counted from the first operation that counts. Operations are taken in the order of their ends.
#[derive(Clone, Debug)]
pub struct Series {
    begun: Option<Time>,
    past: Vec<Second>,
    /// Of the second under way.
    done: u64,
    failed: u64,
    latencies: Histogram<u64>,
}

impl Default for Series {
    fn default() -> Series {
        Series {
            begun: None,
            past: Vec::new(),
            done: 0,
            failed: 0,
            latencies: Histogram::new(LATENCY_FIGURES).expect("three figures are within its bounds"),
        }
    }
}

impl Series {
    /// An operation ended at `now`, after `took`.
    pub(super) fn add(&mut self, now: Time, took: Duration, is_done: bool) {
        let begun = *self.begun.get_or_insert(now - took);
        let second = usize::try_from(now.since(begun).as_secs()).unwrap_or(usize::MAX);
        while self.past.len() < second {
            // A second in which nothing ended stands there with zeros: a failover is not to be skipped.
            self.past.push(self.second());
            (self.done, self.failed) = (0, 0);
            self.latencies.reset();
        }
        if is_done {
            self.done += 1;
            // The histogram grows as it needs to; what it cannot take would be centuries.
            let _ = self
                .latencies
                .record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        } else {
            self.failed += 1;
        }
    }

    /// Every second. The last is mostly a part of one.
    pub fn seconds(&self) -> Vec<Second> {
        let mut seconds = self.past.clone();
        if self.begun.is_some() {
            seconds.push(self.second());
        }
        seconds
    }

    fn second(&self) -> Second {
        let quantile = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e3;
        Second {
            done: self.done,
            failed: self.failed,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us: self.latencies.max() as f64 / 1e3,
        }
    }

    /// The seconds as columns of equal length.
    pub fn json(&self) -> Value {
        let seconds = self.seconds();
        let column = |of: fn(&Second) -> f64| seconds.iter().map(of).collect::<Vec<f64>>();
        json!({
            "done": seconds.iter().map(|second| second.done).collect::<Vec<u64>>(),
            "failed": seconds.iter().map(|second| second.failed).collect::<Vec<u64>>(),
            "p50_us": column(|second| second.p50_us),
            "p99_us": column(|second| second.p99_us),
            "max_us": column(|second| second.max_us),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_count_from_the_first_start_and_empty_ones_are_there() {
        let mut series = Series::default();
        assert_eq!(series.seconds(), []);
        for ms in (5_010..=5_900).step_by(10) {
            series.add(Time::from_millis(ms), Duration::from_millis(10), true);
        }
        series.add(Time::from_millis(8_100), Duration::from_millis(2_200), true);
        series.add(Time::from_millis(8_200), Duration::from_millis(1), false);
        let seconds = series.seconds();
        let done: Vec<u64> = seconds.iter().map(|second| second.done).collect();
        assert_eq!(done, [90, 0, 0, 1]);
        assert_eq!(seconds[3].failed, 1);
        assert!((seconds[0].p50_us - 1e4).abs() < 20.0, "{:?}", seconds[0]);
        assert_eq!(seconds[1], Second::default());
    }
}
