//! What a script expects: of the last result, and of the run as a whole.

use super::error::{Position, ScriptError, Trouble};
use super::lexer::Word;
use super::template::Template;
use crate::client::Cause;
use crate::units::parse_duration;
use crate::wire::Code;
use std::fmt;

/// Commands that have figures of their own.
pub const OPERATION_NAMES: [&str; 4] = ["get", "put", "del", "cas"];
/// Names of the classes of outcomes.
pub const CLASSES: [&str; 3] = ["done", "not_done", "unknown"];
/// Names of the answers of a command that was done.
const ANSWERS: [&str; 5] = ["found", "written", "exists", "not_found", "cas_failed"];

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `=` or `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// What is expected of the last result of the same client.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// A class of outcomes.
    Class(&'static str),
    /// Done, and the answer is not no.
    Yes,
    /// Done, and the answer is no.
    No,
    /// Done, with this answer.
    Answer(&'static str),
    /// Not done or unknown, for this cause.
    Cause(&'static str),
    /// The key held nothing.
    Absent,
    /// The value compares so with a text; as numbers, unless for equality.
    Value {
        /// How.
        comparison: Comparison,
        /// With what.
        with: Template,
    },
}

/// A figure of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Operations.
    Ops,
    /// Operations done, a second.
    OpsPerSecond,
    /// Operations done.
    Done,
    /// Those of them whose answer was no.
    No,
    /// Operations certainly not done.
    NotDone,
    /// Operations that nobody knows.
    Unknown,
    /// The largest latency.
    Max,
    /// A quantile of the latencies, in thousandths of a percent.
    Quantile(u32),
}

/// What is expected of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunExpectation {
    /// Of which command; `None`: of all.
    pub operation: Option<&'static str>,
    /// Which figure.
    pub metric: Metric,
    /// How it compares.
    pub comparison: Comparison,
    /// With what; microseconds for latencies.
    pub limit: f64,
    /// As it stands in the script.
    pub text: String,
}

const METRICS: [(&str, Metric); 12] = [
    ("ops", Metric::Ops),
    ("ops_per_s", Metric::OpsPerSecond),
    ("done", Metric::Done),
    ("no", Metric::No),
    ("not_done", Metric::NotDone),
    ("unknown", Metric::Unknown),
    ("p50", Metric::Quantile(50_000)),
    ("p90", Metric::Quantile(90_000)),
    ("p99", Metric::Quantile(99_000)),
    ("p999", Metric::Quantile(99_900)),
    ("p99.9", Metric::Quantile(99_900)),
    ("max", Metric::Max),
];

impl Comparison {
    fn parse(word: &str) -> Option<Comparison> {
        Some(match word {
            "<" => Comparison::Less,
            "<=" => Comparison::LessOrEqual,
            ">" => Comparison::Greater,
            ">=" => Comparison::GreaterOrEqual,
            "=" | "==" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            _ => return None,
        })
    }

    /// Whether `a` compares so with `b`.
    pub fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Comparison::Less => a < b,
            Comparison::LessOrEqual => a <= b,
            Comparison::Greater => a > b,
            Comparison::GreaterOrEqual => a >= b,
            Comparison::Equal => a == b,
            Comparison::NotEqual => a != b,
        }
    }

    /// Whether it asks only for equality, so that texts compare.
    pub fn is_equality(self) -> bool {
        matches!(self, Comparison::Equal | Comparison::NotEqual)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
            Comparison::Equal => "=",
            Comparison::NotEqual => "!=",
        })
    }
}

/// Reads the words behind `expect` as an expectation of the run; `None`: they are one of a result.
pub(super) fn parse_run(words: &[Word]) -> Result<Option<RunExpectation>, ScriptError> {
    let operation = words.first().and_then(|word| named(&OPERATION_NAMES, &word.text));
    let rest = if operation.is_some() { &words[1..] } else { words };
    let [metric, comparison, limit] = rest else {
        return Ok(None);
    };
    let found = METRICS.iter().find(|(name, _)| *name == metric.text);
    let (Some((_, kind)), Some(comparison)) = (found, Comparison::parse(&comparison.text)) else {
        return Ok(None);
    };
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    Ok(Some(RunExpectation {
        operation,
        metric: *kind,
        comparison,
        limit: parse_limit(*kind, limit)?,
        text: texts.join(" "),
    }))
}

fn parse_limit(metric: Metric, word: &Word) -> Result<f64, ScriptError> {
    if matches!(metric, Metric::Max | Metric::Quantile(_)) {
        let duration = parse_duration(&word.text).map_err(|error| ScriptError::new(word.at, Trouble::Unit(error)))?;
        return Ok(duration.as_secs_f64() * 1e6);
    }
    let number = word.text.parse().ok().filter(|number: &f64| number.is_finite());
    let usage = "a number, such as 20 or 0.5";
    number.ok_or_else(|| ScriptError::new(word.at, Trouble::Usage { usage }))
}

/// Reads the words behind `expect` as an expectation of a result.
pub(super) fn parse_result(
    words: &[Word],
    at: Position,
    template: impl FnOnce(&Word) -> Result<Template, ScriptError>,
) -> Result<Expectation, ScriptError> {
    let unknown = |word: &Word| {
        let word_text = word.text.clone();
        ScriptError::new(word.at, Trouble::UnknownExpectation { word: word_text })
    };
    match words {
        [] => {
            let usage = "expect done, expect value TEXT, expect unknown < 20, …";
            Err(ScriptError::new(at, Trouble::Usage { usage }))
        }
        [word] => simple(&word.text).ok_or_else(|| unknown(word)),
        [what, with] if what.text == "value" => Ok(Expectation::Value {
            comparison: Comparison::Equal,
            with: template(with)?,
        }),
        [what, comparison, with] if what.text == "value" => Ok(Expectation::Value {
            comparison: Comparison::parse(&comparison.text).ok_or_else(|| unknown(comparison))?,
            with: template(with)?,
        }),
        [first, ..] => Err(unknown(first)),
    }
}

fn simple(word: &str) -> Option<Expectation> {
    match word {
        "ok" => return Some(Expectation::Yes),
        "no" => return Some(Expectation::No),
        "absent" => return Some(Expectation::Absent),
        _ => {}
    }
    let class = named(&CLASSES, word).map(Expectation::Class);
    let answer = || named(&ANSWERS, word).map(Expectation::Answer);
    let causes = [
        Cause::NoEndpoint,
        Cause::Protocol,
        Cause::ConnectionLost,
        Cause::Deadline,
        Cause::TooManyOperations,
        Cause::Closed,
    ];
    let causes = causes.into_iter().chain(Code::ALL.into_iter().map(Cause::Code));
    let cause = || {
        let mut names = causes.map(Cause::name);
        names.find(|name| *name == word).map(Expectation::Cause)
    };
    class.or_else(answer).or_else(cause)
}

fn named(names: &[&'static str], word: &str) -> Option<&'static str> {
    names.iter().find(|name| **name == word).copied()
}

impl Expectation {
    /// As a person would say it; templates are said by who can fill them in.
    pub fn name(&self) -> &'static str {
        match self {
            Expectation::Yes => "ok",
            Expectation::No => "no",
            Expectation::Absent => "absent",
            Expectation::Value { .. } => "value",
            Expectation::Class(name) | Expectation::Answer(name) | Expectation::Cause(name) => name,
        }
    }
}
