//! Histories: what every client asked and was told, and when. Jepsen's form, one JSON object a line:
//!
//! ```text
//! {"process":3,"type":"invoke","f":"cas","key":"k","value":["a","b"],"time":123456}
//! {"process":3,"type":"ok","f":"cas","key":"k","value":true,"time":234567}
//! ```
//!
//! A line is an [`Event`]; an invoke and its completion are an [`Operation`]. Rules that the reader holds a file to:
//! * A process has one open operation at a time, and ends it with `ok`, `fail` or `info` of the same `f` and key.
//! * After an `info` (or with no completion at all) nobody knows whether the operation took effect, and it may still
//!   do so at any later time: the process is not used again.
//! * `time` is nanoseconds of one clock, taken before the first byte is sent and after the last is received. A file
//!   without any `time` is read in the order of its events.
//!
//! Not here: what the operations mean, and whether a history could have happened ([`super::check`]).

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};

/// Bad lines that a [`Malformed`] names; more are only counted.
const BAD_LINES_NAMED_MAX: usize = 20;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Function {
    /// Value: what to set.
    Put,
    /// Value of the ok line: what was there, null if absent.
    Get,
    /// Value of the ok line: whether it was there.
    Delete,
    /// Value: the pair of what is expected (null: absent) and what to set. Value of the ok line: true, or on a mismatch
    /// false or `{"actual": v}`.
    Cas,
}

/// What a line says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It begins.
    Invoke,
    /// It was done, with its answer.
    Ok,
    /// It took no effect and never will.
    Fail,
    /// Unknown.
    Info,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Who; has one operation open at a time.
    pub process: u64,
    /// What happens.
    pub kind: EventKind,
    /// To which operation.
    pub function: Function,
    /// On which key: any JSON value.
    pub key: Value,
    /// Argument or result: any JSON value.
    pub value: Value,
    /// Nanoseconds of one clock.
    pub time: u64,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Done at `time` with `value`.
    Ok {
        /// The result.
        value: Value,
        /// When.
        time: u64,
    },
    /// Nothing took or can take effect.
    Fail,
    /// It may take effect at any time from its invocation on.
    Unknown,
}

/// An operation with its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who.
    pub process: u64,
    /// What.
    pub function: Function,
    /// On which key.
    pub key: Value,
    /// The argument.
    pub argument: Value,
    /// When it began.
    pub invoked: u64,
    /// How it ended.
    pub end: End,
}

/// The operations of a run, in the order of their invocations in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// All of them, failed ones too.
    pub operations: Vec<Operation>,
}

/// Why a line is no part of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineError {
    /// No JSON, or no object. Carries the parser's words.
    NotAnObject(String),
    /// No EDN. Carries the parser's words.
    NotEdn(String),
    /// A field is missing.
    Missing(&'static str),
    /// A field holds what it may not.
    Field {
        /// Which.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The process began a second operation before its first one ended.
    StillOpen {
        /// Line that began the first.
        since: u64,
    },
    /// The process was used again after an info.
    UsedAfterInfo {
        /// Line of the info.
        since: u64,
    },
    /// An end of something that did not begin.
    NotOpen,
    /// An end whose `f` or key is not that of the beginning.
    OtherOperation {
        /// Line of the beginning.
        invoked: u64,
    },
    /// An end before the beginning.
    EndsBeforeItBegins {
        /// Line of the beginning.
        invoked: u64,
    },
    /// Some lines have a `time`, this one differs.
    TimeOnSomeLines,
}

/// A file that is no history: its bad lines, by number from 1.
#[derive(Debug)]
pub struct Malformed {
    /// The first of them.
    pub lines: Vec<(u64, LineError)>,
    /// How many there are in all.
    pub count: u64,
}

/// Why a history could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// The file could not be read.
    Io(io::Error),
    /// It was read, and is none.
    Malformed(Malformed),
}

impl Function {
    /// As it stands in `f`.
    pub fn name(self) -> &'static str {
        match self {
            Function::Put => "put",
            Function::Get => "get",
            Function::Delete => "delete",
            Function::Cas => "cas",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Function> {
        [Function::Put, Function::Get, Function::Delete, Function::Cas]
            .into_iter()
            .find(|function| function.name() == name)
    }
}

impl EventKind {
    /// As it stands in `type`.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Invoke => "invoke",
            EventKind::Ok => "ok",
            EventKind::Fail => "fail",
            EventKind::Info => "info",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<EventKind> {
        [EventKind::Invoke, EventKind::Ok, EventKind::Fail, EventKind::Info]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl Event {
    /// Writes the event as one line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.object(Some(self.time)))
    }

    /// The event as a JSON object, with `time` where there is one.
    pub(super) fn object(&self, time: Option<u64>) -> Value {
        let mut object = json!({
            "process": self.process,
            "type": self.kind.name(),
            "f": self.function.name(),
            "key": self.key,
            "value": self.value,
        });
        if let Some(time) = time {
            object["time"] = Value::from(time);
        }
        object
    }
}

/// A stored value as histories show it: text as text, other bytes as `{"base64": ..}`.
pub fn value_of(bytes: &[u8]) -> Value {
    use base64::Engine;
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// Puts events together into operations, one line after the other.
#[derive(Debug, Default)]
pub struct Pairing {
    operations: Vec<Operation>,
    processes: BTreeMap<u64, Process>,
    /// Whether lines have a time; settled by the first.
    timed: Option<bool>,
    /// Events taken in: the clock where lines have no time. Not the number of the line, on which several may stand.
    events: u64,
}

#[derive(Clone, Copy, Debug)]
enum Process {
    Idle,
    Open { operation: usize, line: u64 },
    Retired { line: u64 },
}

impl Pairing {
    /// Takes in the event of a line. `time` is `None` where the line has none; the order of events is the clock then.
    ///
    /// # Errors
    /// What is wrong with it; it is then left out.
    pub fn add(&mut self, line: u64, mut event: Event, time: Option<u64>) -> Result<(), LineError> {
        if *self.timed.get_or_insert(time.is_some()) != time.is_some() {
            return Err(LineError::TimeOnSomeLines);
        }
        self.events += 1;
        event.time = time.unwrap_or(self.events);
        let process = self.processes.entry(event.process).or_insert(Process::Idle);
        match (event.kind, *process) {
            (_, Process::Retired { line }) => Err(LineError::UsedAfterInfo { since: line }),
            (EventKind::Invoke, Process::Open { line, .. }) => Err(LineError::StillOpen { since: line }),
            (EventKind::Invoke, Process::Idle) => {
                check_argument(event.function, &event.value)?;
                *process = Process::Open {
                    operation: self.operations.len(),
                    line,
                };
                self.operations.push(Operation {
                    process: event.process,
                    function: event.function,
                    key: event.key,
                    argument: event.value,
                    invoked: event.time,
                    end: End::Unknown,
                });
                Ok(())
            }
            (_, Process::Idle) => Err(LineError::NotOpen),
            (kind, Process::Open { operation, line: began }) => {
                let operation = &mut self.operations[operation];
                if operation.function != event.function || operation.key != event.key {
                    return Err(LineError::OtherOperation { invoked: began });
                }
                if event.time < operation.invoked {
                    return Err(LineError::EndsBeforeItBegins { invoked: began });
                }
                *process = if kind == EventKind::Info {
                    Process::Retired { line }
                } else {
                    Process::Idle
                };
                operation.end = match kind {
                    EventKind::Ok => End::Ok {
                        value: event.value,
                        time: event.time,
                    },
                    EventKind::Fail => End::Fail,
                    EventKind::Info | EventKind::Invoke => End::Unknown,
                };
                Ok(())
            }
        }
    }

    /// The history; what is still open is unknown.
    pub fn finish(self) -> History {
        History {
            operations: self.operations,
        }
    }
}

/// An event with its time, if its line has one.
pub(super) type Timed = (Event, Option<u64>);

/// Reads a history of JSON lines.
///
/// # Errors
/// [`ReadError::Malformed`] with the numbers of its bad lines; an I/O error as it is.
pub fn read(input: impl BufRead) -> Result<History, ReadError> {
    pair_up(json_lines(input))
}

/// Puts numbered lines together into a history. Lines that are no client's (`None`) are left out.
pub(super) fn pair_up(
    lines: impl Iterator<Item = io::Result<(u64, Result<Option<Timed>, LineError>)>>,
) -> Result<History, ReadError> {
    let mut pairing = Pairing::default();
    for_each(lines, |line, (event, time)| pairing.add(line, event, time))?;
    Ok(pairing.finish())
}

/// Hands every client's event to `take`, and gathers the bad lines.
pub(super) fn for_each(
    lines: impl Iterator<Item = io::Result<(u64, Result<Option<Timed>, LineError>)>>,
    mut take: impl FnMut(u64, Timed) -> Result<(), LineError>,
) -> Result<(), ReadError> {
    let mut bad = Malformed {
        lines: Vec::new(),
        count: 0,
    };
    for line in lines {
        let (number, event) = line.map_err(ReadError::Io)?;
        let outcome = event.and_then(|event| event.map_or(Ok(()), |timed| take(number, timed)));
        if let Err(error) = outcome {
            bad.add(number, error);
        }
    }
    if bad.count > 0 {
        return Err(ReadError::Malformed(bad));
    }
    Ok(())
}

/// The lines of a file, with their numbers from 1; empty ones are left out.
pub(super) fn json_lines(
    input: impl BufRead,
) -> impl Iterator<Item = io::Result<(u64, Result<Option<Timed>, LineError>)>> {
    let numbered = (1..).zip(input.split(b'\n'));
    let filled = numbered.filter(|(_, line)| !line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()));
    filled.map(|(number, line)| Ok((number, parse_line(&line?))))
}

fn parse_line(line: &[u8]) -> Result<Option<Timed>, LineError> {
    let parsed = serde_json::from_slice(line).map_err(|error| LineError::NotAnObject(error.to_string()))?;
    parse(parsed)
}

/// The event that an object stands for. None: one of Jepsen's nemesis, which is no client.
pub(super) fn parse(value: Value) -> Result<Option<Timed>, LineError> {
    let Value::Object(mut object) = value else {
        return Err(LineError::NotAnObject("it is a value of another kind".to_owned()));
    };
    let mut take = |name| object.remove(name);
    let process = take("process").ok_or(LineError::Missing("process"))?;
    if process == "nemesis" {
        return Ok(None);
    }
    let process = process
        .as_u64()
        .ok_or_else(|| field("process", "a number from 0", &process))?;
    let kind = take("type").ok_or(LineError::Missing("type"))?;
    let kind = kind
        .as_str()
        .and_then(EventKind::named)
        .ok_or_else(|| field("type", "invoke, ok, fail or info", &kind))?;
    let function = take("f").ok_or(LineError::Missing("f"))?;
    let function = function
        .as_str()
        .and_then(Function::named)
        .ok_or_else(|| field("f", "put, get, delete or cas", &function))?;
    let key = take("key").ok_or(LineError::Missing("key"))?;
    let value = take("value").unwrap_or(Value::Null);
    let nanoseconds = |time: Value| {
        let whole = time.as_u64();
        whole.ok_or_else(|| field("time", "nanoseconds from 0, a whole number", &time))
    };
    let time = take("time").map(nanoseconds).transpose()?;
    let event = Event {
        process,
        kind,
        function,
        key,
        value,
        time: time.unwrap_or(0),
    };
    Ok(Some((event, time)))
}

fn check_argument(function: Function, value: &Value) -> Result<(), LineError> {
    let is_pair = value.as_array().is_some_and(|pair| pair.len() == 2);
    if function == Function::Cas && !is_pair {
        return Err(field("value", "for a cas the pair [expected, new]", value));
    }
    Ok(())
}

fn field(name: &'static str, expected: &'static str, found: &Value) -> LineError {
    LineError::Field {
        name,
        expected,
        found: found.to_string(),
    }
}

impl Malformed {
    fn add(&mut self, line: u64, error: LineError) {
        self.count += 1;
        if self.lines.len() < BAD_LINES_NAMED_MAX {
            self.lines.push((line, error));
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::NotAnObject(why) => write!(f, "not a JSON object: {why}"),
            LineError::NotEdn(why) => write!(f, "not EDN: {why}"),
            LineError::Missing(name) => write!(f, "the field \"{name}\" is missing"),
            LineError::Field { name, expected, found } => write!(f, "\"{name}\" must be {expected}, and is {found}"),
            LineError::StillOpen { since } => write!(f, "the process has an operation open since line {since}"),
            LineError::UsedAfterInfo { since } => write!(f, "the process ended unknown in line {since}, so it is gone"),
            LineError::NotOpen => write!(f, "an end, but the process has no operation open"),
            LineError::OtherOperation { invoked } => write!(f, "\"f\" and \"key\" are not those of line {invoked}"),
            LineError::EndsBeforeItBegins { invoked } => write!(f, "its time is before that of line {invoked}"),
            LineError::TimeOnSomeLines => write!(f, "\"time\" must stand on every line or on none"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (line, error) in &self.lines {
            writeln!(f, "line {line}: {error}")?;
        }
        match self.count - self.lines.len() as u64 {
            0 => write!(f, "{} bad line(s)", self.count),
            more => write!(f, "{} bad lines, {more} of them not shown", self.count),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(error) => write!(f, "cannot read the history: {error}"),
            ReadError::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(error) => Some(error),
            ReadError::Malformed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<(u64, LineError)> {
        match read(text.as_bytes()) {
            Err(ReadError::Malformed(bad)) => bad.lines,
            other => panic!("{other:?} of {text}"),
        }
    }

    #[test]
    fn a_line_is_written_as_the_format_shows_it() {
        let event = Event {
            process: 3,
            kind: EventKind::Invoke,
            function: Function::Cas,
            key: json!("k"),
            value: json!(["a", "b"]),
            time: 123_456,
        };
        let mut out = Vec::new();
        event.write(&mut out).unwrap();
        let line = r#"{"process":3,"type":"invoke","f":"cas","key":"k","value":["a","b"],"time":123456}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\n"));
    }

    #[test]
    fn lines_are_put_together_into_operations() {
        let text = r#"
{"process":0,"type":"invoke","f":"put","key":"k","value":1,"time":10}
{"process":1,"type":"invoke","f":"get","key":"k","value":null,"time":11}
{"process":0,"type":"ok","f":"put","key":"k","value":1,"time":20}
{"process":"nemesis","type":"info","f":"kill","value":2,"time":21}
{"process":0,"type":"invoke","f":"delete","key":"k","time":22}
{"process":1,"type":"ok","f":"get","key":"k","value":1,"time":30}
{"process":0,"type":"info","f":"delete","key":"k","time":31}
{"process":1,"type":"invoke","f":"cas","key":"k","value":[null,2],"time":32}
{"process":1,"type":"fail","f":"cas","key":"k","value":[null,2],"time":33}
{"process":1,"type":"invoke","f":"put","key":"k","value":3,"time":34}
"#;
        let history = read(text.as_bytes()).unwrap();
        let ok = |value, time| End::Ok { value, time };
        let seen: Vec<_> = history
            .operations
            .into_iter()
            .map(|op| (op.process, op.function, op.invoked, op.end))
            .collect();
        let expected = [
            (0, Function::Put, 10, ok(json!(1), 20)),
            (1, Function::Get, 11, ok(json!(1), 30)),
            (0, Function::Delete, 22, End::Unknown),
            (1, Function::Cas, 32, End::Fail),
            (1, Function::Put, 34, End::Unknown),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn bad_lines_are_named_by_number() {
        let invoke = r#"{"process":0,"type":"invoke","f":"put","key":"k","value":1,"time":10}"#;
        let table = [
            (
                "nonsense",
                LineError::NotAnObject("expected ident at line 1 column 2".into()),
            ),
            ("[]", LineError::NotAnObject("it is a value of another kind".into())),
            (r#"{"type":"ok"}"#, LineError::Missing("process")),
            (
                r#"{"process":1,"type":"ok","f":"get","time":3}"#,
                LineError::Missing("key"),
            ),
            (
                r#"{"process":-1,"type":"ok","f":"get","key":"k","time":3}"#,
                field("process", "a number from 0", &json!(-1)),
            ),
            (
                r#"{"process":1,"type":"okay","f":"get","key":"k","time":3}"#,
                field("type", "invoke, ok, fail or info", &json!("okay")),
            ),
            (
                r#"{"process":1,"type":"ok","f":"read","key":"k","time":3}"#,
                field("f", "put, get, delete or cas", &json!("read")),
            ),
            (
                r#"{"process":1,"type":"invoke","f":"cas","key":"k","value":1,"time":3}"#,
                field("value", "for a cas the pair [expected, new]", &json!(1)),
            ),
            (
                r#"{"process":1,"type":"ok","f":"get","key":"k","time":1.5}"#,
                field("time", "nanoseconds from 0, a whole number", &json!(1.5)),
            ),
            (
                r#"{"process":1,"type":"ok","f":"get","key":"k","time":3}"#,
                LineError::NotOpen,
            ),
            (invoke, LineError::StillOpen { since: 1 }),
            (
                r#"{"process":0,"type":"ok","f":"get","key":"k","time":30}"#,
                LineError::OtherOperation { invoked: 1 },
            ),
            (
                r#"{"process":0,"type":"ok","f":"put","key":"j","time":30}"#,
                LineError::OtherOperation { invoked: 1 },
            ),
            (
                r#"{"process":0,"type":"ok","f":"put","key":"k","time":9}"#,
                LineError::EndsBeforeItBegins { invoked: 1 },
            ),
            (
                r#"{"process":0,"type":"ok","f":"put","key":"k"}"#,
                LineError::TimeOnSomeLines,
            ),
        ];
        for (line, error) in table {
            assert_eq!(errors(&format!("{invoke}\n{line}\n")), [(2, error)], "{line}");
        }
    }

    #[test]
    fn a_process_is_not_used_again_after_an_info() {
        let text = r#"{"process":0,"type":"invoke","f":"get","key":"k"}
{"process":0,"type":"info","f":"get","key":"k"}
{"process":0,"type":"invoke","f":"get","key":"k"}"#;
        assert_eq!(errors(text), [(3, LineError::UsedAfterInfo { since: 2 })]);
    }

    #[test]
    fn many_bad_lines_are_counted_and_some_are_shown() {
        let Err(ReadError::Malformed(bad)) = read("x\n".repeat(100).as_bytes()) else {
            panic!("it is no history");
        };
        assert_eq!((bad.count, bad.lines.len()), (100, BAD_LINES_NAMED_MAX));
        assert!(bad.to_string().ends_with("100 bad lines, 80 of them not shown"));
    }

    #[test]
    fn without_times_the_order_of_the_lines_counts() {
        let text = r#"{"process":0,"type":"invoke","f":"put","key":"k","value":1}
{"process":0,"type":"ok","f":"put","key":"k"}"#;
        let history = read(text.as_bytes()).unwrap();
        assert_eq!(history.operations[0].invoked, 1);
        assert!(matches!(history.operations[0].end, End::Ok { time: 2, .. }));
    }

    #[test]
    fn values_that_are_no_text_are_marked_as_base64() {
        assert_eq!(value_of(b"text"), json!("text"));
        assert_eq!(value_of(&[0xff, 0x00]), json!({"base64": "/wA="}));
    }
}
