//! The figures of a run: how many operations of each kind, how they ended, how long they took.

use super::plan::{Ended, Kind};
use super::script::Position;
use super::script::expect::{Metric, RunExpectation};
use super::series::Series;
use crate::command::render;
use crate::time::Time;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Significant figures of latencies.
const LATENCY_FIGURES: u8 = 3;
/// The quantiles that are shown, and their names.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
/// The histogram's first bar ends there, nanoseconds, and each further one this much above the one before.
const BAR_NANOS: u64 = 1_000;
const BAR_FACTOR: f64 = 1.189_207_115_002_721; // the fourth root of two
/// Width of the longest bar in text.
const BAR_COLUMNS: u64 = 50;

/// The figures of one kind of operation, or of all.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Operations that were done.
    pub done: u64,
    /// Those of them whose answer was no.
    pub no: u64,
    /// Operations that were certainly not done.
    pub not_done: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
    /// How long those that were done took, nanoseconds.
    latencies: Histogram<u64>,
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// By kind, in the order of [`Kind::ALL`].
    kinds: [Figures; 4],
    series: Series,
    /// How long behind its intended start each began that a rate had planned, nanoseconds.
    late: Histogram<u64>,
    /// When the first that counts was meant to begin, and when the last ended.
    first: Option<Time>,
    last: Time,
    /// Causes of what was not done or is unknown, with how often; the first words of each.
    causes: Vec<(&'static str, u64, String)>,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            done: 0,
            no: 0,
            not_done: 0,
            unknown: 0,
            latencies: Histogram::new(LATENCY_FIGURES).expect("three figures are within its bounds"),
        }
    }
}

impl Default for Summary {
    fn default() -> Summary {
        Summary {
            kinds: std::array::from_fn(|_| Figures::default()),
            series: Series::default(),
            late: Histogram::new(LATENCY_FIGURES).expect("three figures are within its bounds"),
            first: None,
            last: Time::ZERO,
            causes: Vec::new(),
        }
    }
}

impl Figures {
    /// Operations in all.
    pub fn ops(&self) -> u64 {
        self.done + self.not_done + self.unknown
    }

    fn add(&mut self, ended: &Ended, took: Duration) {
        match ended {
            Ended::Done(served) => {
                self.done += 1;
                self.no += u64::from(render::is_no(served));
                // The histogram grows as it needs to; what it cannot take would be centuries.
                let _ = self
                    .latencies
                    .record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            }
            Ended::NotDone { .. } => self.not_done += 1,
            Ended::Unknown { .. } => self.unknown += 1,
        }
    }

    fn take_in(&mut self, others: &Figures) {
        self.done += others.done;
        self.no += others.no;
        self.not_done += others.not_done;
        self.unknown += others.unknown;
        let taken = self.latencies.add(&others.latencies);
        taken.expect("a histogram that grows takes what another one of as many figures holds");
    }

    /// A quantile of the latencies of what was done, from 0 to 1, microseconds; 0 of nothing.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        if self.latencies.is_empty() {
            return 0.0;
        }
        micros(self.latencies.value_at_quantile(quantile))
    }

    /// The longest of them, microseconds.
    pub fn max_us(&self) -> f64 {
        micros(self.latencies.max())
    }

    /// How many took at most so many microseconds, but more than those of the bar before. Bars without any are left out.
    fn histogram(&self) -> Vec<(f64, u64)> {
        let bars = self.latencies.iter_log(BAR_NANOS, BAR_FACTOR);
        let bars = bars.map(|bar| (micros(bar.value_iterated_to()), bar.count_since_last_iteration()));
        bars.filter(|(_, count)| *count > 0).collect()
    }

    fn metric(&self, metric: Metric, elapsed: Duration) -> f64 {
        match metric {
            Metric::Ops => self.ops() as f64,
            Metric::OpsPerSecond => self.ops_per_s(elapsed),
            Metric::Done => self.done as f64,
            Metric::No => self.no as f64,
            Metric::NotDone => self.not_done as f64,
            Metric::Unknown => self.unknown as f64,
            // Of nothing there is no latency, and no limit that it keeps.
            Metric::Max | Metric::Quantile(_) if self.latencies.is_empty() => f64::NAN,
            Metric::Max => self.max_us(),
            Metric::Quantile(thousandths) => self.quantile_us(f64::from(thousandths) / 100_000.0),
        }
    }

    /// What was done in a second, of `elapsed`.
    pub fn ops_per_s(&self, elapsed: Duration) -> f64 {
        match elapsed.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.done as f64 / seconds,
        }
    }

    fn json(&self, elapsed: Duration) -> Map<String, Value> {
        let mut latency = Map::new();
        for (name, quantile) in QUANTILES {
            latency.insert(name.into(), json!(rounded(self.quantile_us(quantile))));
        }
        latency.insert("max".into(), json!(rounded(self.max_us())));
        let mut object = Map::new();
        object.insert("ops".into(), json!(self.ops()));
        object.insert("ops_per_s".into(), json!(rounded(self.ops_per_s(elapsed))));
        object.insert("done".into(), json!(self.done));
        object.insert("no".into(), json!(self.no));
        object.insert("not_done".into(), json!(self.not_done));
        object.insert("unknown".into(), json!(self.unknown));
        object.insert("latency_us".into(), Value::Object(latency));
        object
    }

    fn row(&self, name: &str, elapsed: Duration) -> String {
        let mut row = format!(
            "{name:<5}{:>10}{:>10}{:>10}{:>10}{:>10.0}",
            self.ops(),
            self.done,
            self.not_done,
            self.unknown,
            self.ops_per_s(elapsed)
        );
        for (_, quantile) in QUANTILES {
            write!(row, "{:>10}", shown_us(self.quantile_us(quantile))).expect("a String takes every write");
        }
        write!(row, "{:>10}", shown_us(self.max_us())).expect("a String takes every write");
        row
    }
}

impl Summary {
    /// Takes an operation in that counts.
    pub fn add(&mut self, kind: Kind, intended: Time, now: Time, ended: &Ended) {
        let took = now.since(intended);
        self.kinds[kind as usize].add(ended, took);
        self.series.add(now, took, matches!(ended, Ended::Done(_)));
        self.first = Some(self.first.map_or(intended, |first| first.min(intended)));
        self.last = self.last.max(now);
        if let Ended::NotDone { cause, why } | Ended::Unknown { cause, why } = ended {
            self.add_cause(cause, why);
        }
    }

    /// An operation that counts began so long behind its intended start. Without a rate it is begun when it is intended,
    /// and its 0 says nothing.
    pub fn add_late(&mut self, late: Duration) {
        if !late.is_zero() {
            // The histogram grows as it needs to; what it cannot take would be centuries.
            let _ = self.late.record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// A quantile, from 0 to 1, of how late operations with a rate began, microseconds; 0 of none. What is late waited for
    /// an operation before it to end, for the rest behind one that was refused, or for the generator.
    pub fn late_us(&self, quantile: f64) -> f64 {
        if self.late.is_empty() {
            return 0.0;
        }
        micros(self.late.value_at_quantile(quantile))
    }

    fn add_cause(&mut self, cause: &'static str, why: &str) {
        match self.causes.iter_mut().find(|(known, _, _)| *known == cause) {
            Some((_, count, _)) => *count += 1,
            None => self.causes.push((cause, 1, why.to_owned())),
        }
    }

    /// The figures of all operations together.
    pub fn all(&self) -> Figures {
        let mut all = Figures::default();
        self.kinds.iter().for_each(|figures| all.take_in(figures));
        all
    }

    /// The figures of one kind.
    pub fn of(&self, kind: Kind) -> &Figures {
        &self.kinds[kind as usize]
    }

    /// From the first intended start to the last end.
    pub fn elapsed(&self) -> Duration {
        self.first.map_or(Duration::ZERO, |first| self.last.since(first))
    }

    /// The most frequent cause of what was not done or is unknown.
    pub fn main_cause(&self) -> Option<&'static str> {
        let most = self.causes.iter().max_by_key(|(_, count, _)| *count);
        most.map(|(cause, _, _)| *cause)
    }

    /// Expectations of the run that do not hold, each in a line.
    pub fn unmet(&self, expectations: &[(Position, RunExpectation)]) -> Vec<String> {
        let mut unmet = Vec::new();
        let all = self.all();
        for (at, expectation) in expectations {
            let figures = match expectation.operation {
                Some(name) => Kind::ALL
                    .into_iter()
                    .find(|kind| kind.name() == name)
                    .map(|kind| self.of(kind)),
                None => Some(&all),
            };
            let found = figures.map_or(0.0, |figures| figures.metric(expectation.metric, self.elapsed()));
            if !expectation.comparison.holds(found, expectation.limit) {
                let found = match expectation.metric {
                    _ if found.is_nan() => "nothing, for nothing was done".to_owned(),
                    Metric::Max | Metric::Quantile(_) => shown_us(found),
                    _ => rounded(found).to_string(),
                };
                unmet.push(format!("{at}: expected {}, and it was {found}", expectation.text));
            }
        }
        unmet
    }

    /// The table for people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{:<5}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
            "", "ops", "done", "not done", "unknown", "ops/s", "p50", "p90", "p99", "p99.9", "max"
        );
        let elapsed = self.elapsed();
        for kind in Kind::ALL {
            if self.of(kind).ops() > 0 {
                text.push_str(&self.of(kind).row(kind.name(), elapsed));
                text.push('\n');
            }
        }
        text.push_str(&self.all().row("all", elapsed));
        text.push('\n');
        if !self.late.is_empty() {
            let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| shown_us(self.late_us(quantile)));
            writeln!(
                text,
                "late  began behind their intended start: p50 {p50}, p99 {p99}, max {max}"
            )
            .expect("a String takes every write");
        }
        for (cause, count, words) in &self.causes {
            writeln!(text, "{count} times {cause}, first: {words}").expect("a String takes every write");
        }
        text
    }

    /// The run second by second.
    pub fn series(&self) -> &Series {
        &self.series
    }

    /// One line a second, for people.
    pub fn series_text(&self) -> String {
        let mut text = format!(
            "{:>6}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
            "second", "done", "failed", "p50", "p99", "max"
        );
        for (number, second) in self.series.seconds().iter().enumerate() {
            let [p50, p99, max] = [second.p50_us, second.p99_us, second.max_us].map(shown_us);
            let (done, failed) = (second.done, second.failed);
            writeln!(text, "{number:>6}{done:>10}{failed:>10}{p50:>10}{p99:>10}{max:>10}").expect("a String takes it");
        }
        text
    }

    /// The latencies of all that was done as bars, for people.
    pub fn histogram_text(&self) -> String {
        let bars = self.all().histogram();
        let highest = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
        let mut text = String::new();
        for (up_to, count) in bars {
            let bar = "#".repeat((count * BAR_COLUMNS).div_ceil(highest) as usize);
            writeln!(text, "up to {:>7}{count:>10}  {bar}", shown_us(up_to)).expect("a String takes every write");
        }
        text
    }

    /// The figures for programs: of all operations, and under `operations` the same of each kind.
    pub fn json(&self) -> Map<String, Value> {
        let elapsed = self.elapsed();
        let all = self.all();
        let mut object = all.json(elapsed);
        object.insert("elapsed_s".into(), json!(rounded(elapsed.as_secs_f64())));
        let kinds = Kind::ALL.into_iter().filter(|kind| self.of(*kind).ops() > 0);
        let kinds = kinds.map(|kind| (kind.name().to_owned(), Value::Object(self.of(kind).json(elapsed))));
        object.insert("operations".into(), Value::Object(kinds.collect()));
        if !self.late.is_empty() {
            let late = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];
            let late = late.map(|(name, quantile)| (name.to_owned(), json!(rounded(self.late_us(quantile)))));
            object.insert("late_us".into(), Value::Object(late.into_iter().collect()));
        }
        let causes = self
            .causes
            .iter()
            .map(|(cause, count, _)| ((*cause).to_owned(), json!(count)));
        object.insert("causes".into(), Value::Object(causes.collect()));
        object.insert("histogram_us".into(), json!(all.histogram()));
        object.insert("seconds".into(), self.series.json());
        object
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// To three places behind the point: more are noise.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// Microseconds as a person reads them, in about three figures.
fn shown_us(micros: f64) -> String {
    let (number, unit) = match micros {
        below if below < 1e3 => (below, "us"),
        below if below < 1e6 => (below / 1e3, "ms"),
        above => (above / 1e6, "s"),
    };
    match number {
        small if small < 10.0 => format!("{number:.2}{unit}"),
        middle if middle < 100.0 => format!("{number:.1}{unit}"),
        _ => format!("{number:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Answer, Done};
    use crate::paxos::Slot;
    use crate::wire::Served;
    use crate::workload::script;
    use std::collections::BTreeMap;

    fn done(answer: Answer) -> Ended {
        Ended::Done(Served::Done(Done {
            slot: Slot(1),
            revision: 1,
            answer,
        }))
    }

    fn summary() -> Summary {
        let mut summary = Summary::default();
        for ms in 1..=1000 {
            let kind = if ms % 2 == 0 { Kind::Get } else { Kind::Put };
            summary.add(kind, Time::ZERO, Time::from_millis(ms), &done(Answer::NotFound));
        }
        let why = "the leader was lost".to_owned();
        let lost = Ended::Unknown {
            cause: "leader_lost",
            why,
        };
        summary.add(Kind::Cas, Time::ZERO, Time::from_millis(2000), &lost);
        summary
    }

    #[test]
    fn how_late_operations_began_is_told_where_a_rate_planned_them() {
        let mut summary = summary();
        summary.add_late(Duration::ZERO);
        assert!(!summary.text().contains("late"), "nothing was planned");
        assert!(!summary.json().contains_key("late_us"));
        for micros in 1..=100 {
            summary.add_late(Duration::from_micros(micros));
        }
        let json = Value::Object(summary.json());
        assert_eq!(json["late_us"]["p50"].as_f64().map(f64::round), Some(50.0));
        assert_eq!(json["late_us"]["max"].as_f64().map(f64::round), Some(100.0));
        assert!(
            summary.text().contains("began behind their intended start: p50 50."),
            "{}",
            summary.text()
        );
    }

    #[test]
    fn figures_are_those_of_the_operations() {
        let json = Value::Object(summary().json());
        assert_eq!(json["ops"], 1001);
        assert_eq!(json["done"], 1000);
        assert_eq!(json["not_done"], 0);
        assert_eq!(json["unknown"], 1);
        assert_eq!(json["ops_per_s"], 500.0);
        assert_eq!(json["operations"]["get"]["done"], 500);
        assert_eq!(json["operations"]["cas"]["unknown"], 1);
        assert_eq!(json["causes"]["leader_lost"], 1);
        for (name, expected) in [
            ("p50", 5e5),
            ("p90", 9e5),
            ("p99", 9.9e5),
            ("p999", 9.99e5),
            ("max", 1e6),
        ] {
            let found = json["latency_us"][name].as_f64().unwrap();
            assert!((found / expected - 1.0).abs() < 0.002, "{name}: {found}");
        }
    }

    #[test]
    fn a_histogram_counts_every_operation_once() {
        let json = Value::Object(summary().json());
        let bars = json["histogram_us"].as_array().unwrap();
        assert_eq!(bars.iter().filter_map(|bar| bar[1].as_u64()).sum::<u64>(), 1000);
        assert!(bars.is_sorted_by(|a, b| a[0].as_f64() < b[0].as_f64()));
        assert_eq!(summary().histogram_text().lines().count(), bars.len());
        assert_eq!(json["seconds"]["done"], json!([999, 1, 0]));
        assert_eq!(json["seconds"]["failed"], json!([0, 0, 1]));
        assert_eq!(summary().series_text().lines().count(), 4);
    }

    #[test]
    fn the_total_stands_before_the_parts() {
        let text = Value::Object(summary().json()).to_string();
        assert!(
            text.starts_with(
                r#"{"ops":1001,"ops_per_s":500.0,"done":1000,"no":1000,"not_done":0,"unknown":1,"latency_us":{"p50""#
            ),
            "{text}"
        );
    }

    #[test]
    fn expectations_of_the_run_are_judged() {
        let text = "expect unknown < 1\nexpect unknown < 2\nexpect p99 < 50ms\nexpect get p50 <= 1s\nexpect ops_per_s >= 501\n\
                    expect del ops = 0\nexpect no > 1000\nexpect del p99 < 1s";
        let program = script::parse(text.as_bytes(), &BTreeMap::new()).unwrap();
        let unmet = summary().unmet(&program.expectations);
        assert_eq!(
            unmet,
            [
                "line 1, column 1: expected unknown < 1, and it was 1",
                "line 3, column 1: expected p99 < 50ms, and it was 990ms",
                "line 5, column 1: expected ops_per_s >= 501, and it was 500",
                "line 7, column 1: expected no > 1000, and it was 1000",
                "line 8, column 1: expected del p99 < 1s, and it was nothing, for nothing was done",
            ]
        );
    }

    #[test]
    fn a_run_of_nothing_has_figures_too() {
        let json = Value::Object(Summary::default().json());
        assert_eq!(json["ops"], 0);
        assert_eq!(json["latency_us"]["p99"], 0.0);
        assert!(Summary::default().text().contains("all"));
    }

    #[test]
    fn times_are_shown_in_three_figures() {
        for (micros, shown) in [
            (0.0, "0.00us"),
            (9.994, "9.99us"),
            (87.26, "87.3us"),
            (999.0, "999us"),
            (1234.0, "1.23ms"),
            (5_000_000.0, "5.00s"),
        ] {
            assert_eq!(shown_us(micros), shown);
        }
    }
}
