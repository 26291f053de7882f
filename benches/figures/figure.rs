//! What was measured: one figure, and many of them with their median and spread.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// How long operations took.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Latencies {
        Latencies(Histogram::new(3).expect("three figures are within its bounds"))
    }

    pub(crate) fn add(&mut self, took: Duration) {
        // The histogram grows as it needs to; what it cannot take would be centuries.
        let _ = self.0.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// A quantile, microseconds.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.max() as f64 / 1e3
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figure {
    pub(crate) ops_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// CPU seconds of all servers, and of the load generator, for a million operations.
    pub(crate) servers_cpu: f64,
    pub(crate) client_cpu: f64,
    /// What the load generator took of one core.
    pub(crate) client_share: f64,
}

impl Figure {
    /// Of latencies alone; the CPU is the caller's.
    pub(crate) fn of(latencies: &Latencies, span: Duration) -> Figure {
        Figure {
            ops_per_s: latencies.count() as f64 / span.as_secs_f64(),
            p50_us: latencies.at(0.5),
            p99_us: latencies.at(0.99),
            p999_us: latencies.at(0.999),
            max_us: latencies.max(),
            ..Figure::default()
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "ops_per_s": self.ops_per_s,
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "p999_us": self.p999_us,
            "max_us": self.max_us,
            "servers_cpu_s_per_million": self.servers_cpu,
            "client_cpu_s_per_million": self.client_cpu,
            "client_cpu_share": self.client_share,
        })
    }
}

/// Several numbers of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(numbers: I) -> Spread {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        Spread(numbers)
    }
}

impl Spread {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number below which the share `quantile` of them lies; not a number if there are none.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        let last = self.0.len().saturating_sub(1) as f64;
        self.0
            .get((last * quantile).round() as usize)
            .copied()
            .unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => self.0[odd / 2],
            even => f64::midpoint(self.0[even / 2 - 1], self.0[even / 2]),
        }
    }

    /// `median (least-most)`, or the one number.
    pub(crate) fn cell(&self) -> String {
        match self.0.as_slice() {
            [] => "-".into(),
            [one] => shown(*one),
            [least, .., most] => format!("{} ({}-{})", shown(self.median()), shown(*least), shown(*most)),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median(), "all": self.0 })
    }
}

/// In about three figures.
pub(crate) fn shown(number: f64) -> String {
    match number {
        none if none.is_nan() => "-".into(),
        large if large >= 100.0 => format!("{number:.0}"),
        middle if middle >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// User and system time of a process, seconds, from `/proc` in its steps of 10 ms; 0 where there is none.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; fields are counted behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// A line of a Markdown table.
pub(crate) fn row<S: AsRef<str>>(cells: impl IntoIterator<Item = S>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.as_ref().to_owned()).collect();
    format!("| {} |", cells.join(" | "))
}

/// The head of a Markdown table: its names and the line below.
pub(crate) fn head(names: &[&str]) -> String {
    format!("{}\n|{}", row(names), "---|".repeat(names.len()))
}
