//! A run as a history: each operation as an invoke line and an ok, fail or info line.
//!
//! Who does an operation is its place's *process*: one number as long as nothing ends unknown, then a fresh one, since
//! what is unknown may still take effect and so is open for ever.

use super::history::{Event, EventKind, Function, History, LineError, Pairing, value_of};
use super::plan::Ended;
use crate::kv::{Answer, Expect, Op};
use crate::time::Time;
use crate::wire::{RequestOp, Served};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes a history line by line, or keeps it for the checker, or both.
#[derive(Debug)]
pub struct Recorder {
    file: Option<BufWriter<File>>,
    kept: Option<Pairing>,
    lines: u64,
    /// The process of each place.
    processes: Vec<u64>,
    fresh: u64,
    /// What each place has open.
    open: Vec<Option<Open>>,
}

#[derive(Clone, Debug)]
struct Open {
    function: Function,
    key: Value,
    argument: Value,
}

/// Why a history could not be recorded.
#[derive(Debug)]
pub enum RecordError {
    /// The file could not be written.
    Io(io::Error),
    /// The history contradicts its own rules: a defect of this program.
    Line(LineError),
}

impl From<io::Error> for RecordError {
    fn from(error: io::Error) -> RecordError {
        RecordError::Io(error)
    }
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::Io(error) => write!(f, "the history cannot be written: {error}"),
            RecordError::Line(error) => write!(f, "the history is not well-formed: {error}"),
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RecordError::Io(error) => Some(error),
            RecordError::Line(_) => None,
        }
    }
}

impl Recorder {
    /// A recorder into a new file, for the checker, or both.
    ///
    /// # Errors
    /// The file could not be made.
    pub fn new(path: Option<&Path>, is_checked: bool) -> io::Result<Recorder> {
        Ok(Recorder {
            file: path.map(File::create).transpose()?.map(BufWriter::new),
            kept: is_checked.then(Pairing::default),
            lines: 0,
            processes: Vec::new(),
            fresh: 0,
            open: Vec::new(),
        })
    }

    /// A place begins an operation at `now`, before its first byte is sent.
    ///
    /// # Errors
    /// The line could not be written.
    pub fn invoke(&mut self, place: usize, op: &RequestOp, now: Time) -> Result<(), RecordError> {
        while self.processes.len() <= place {
            self.processes.push(self.fresh);
            self.fresh += 1;
            self.open.push(None);
        }
        let Some(open) = open_of(op) else {
            return Ok(()); // such scripts are refused before they run
        };
        let argument = open.argument.clone();
        self.open[place] = Some(open.clone());
        self.write(place, EventKind::Invoke, &open, argument, now)
    }

    /// The operation of a place ended; `now` is after its last byte was received.
    ///
    /// # Errors
    /// The line could not be written.
    pub fn end(&mut self, place: usize, ended: &Ended, now: Time) -> Result<(), RecordError> {
        let Some(open) = self.open.get_mut(place).and_then(Option::take) else {
            return Ok(());
        };
        let (kind, value) = match ended {
            Ended::Done(served) => (EventKind::Ok, result(&open, served)),
            Ended::NotDone { .. } => (EventKind::Fail, open.argument.clone()),
            Ended::Unknown { .. } => (EventKind::Info, open.argument.clone()),
        };
        self.write(place, kind, &open, value, now)?;
        if kind == EventKind::Info {
            self.processes[place] = self.fresh;
            self.fresh += 1;
        }
        Ok(())
    }

    /// Writes what is left; what is still open is unknown, as a history says it by an invoke without an end.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn finish(self) -> Result<Option<History>, RecordError> {
        if let Some(mut file) = self.file {
            file.flush()?;
        }
        Ok(self.kept.map(Pairing::finish))
    }

    fn write(
        &mut self,
        place: usize,
        kind: EventKind,
        open: &Open,
        value: Value,
        now: Time,
    ) -> Result<(), RecordError> {
        let event = Event {
            process: self.processes[place],
            kind,
            function: open.function,
            key: open.key.clone(),
            value,
            time: now.0,
        };
        if let Some(file) = &mut self.file {
            event.write(file)?;
        }
        self.lines += 1;
        match &mut self.kept {
            Some(kept) => kept.add(self.lines, event, Some(now.0)).map_err(RecordError::Line),
            None => Ok(()),
        }
    }
}

/// An operation in the words of a history.
fn open_of(op: &RequestOp) -> Option<Open> {
    let (function, key, argument) = match op {
        RequestOp::Get { key } => (Function::Get, key, Value::Null),
        RequestOp::Write(Op::Put {
            key,
            value,
            if_absent: false,
            ..
        }) => (Function::Put, key, value_of(value)),
        RequestOp::Write(Op::Put { key, value, .. }) => (Function::Cas, key, json!([null, value_of(value)])),
        RequestOp::Write(Op::Del { key, .. }) => (Function::Delete, key, Value::Null),
        RequestOp::Write(Op::Cas {
            key,
            expect: Expect::Value(old),
            value,
            ..
        }) => (Function::Cas, key, json!([value_of(old), value_of(value)])),
        RequestOp::Write(Op::Cas { .. } | Op::Open | Op::Close) | RequestOp::GetStale { .. } | RequestOp::Status => {
            return None;
        }
    };
    Some(Open {
        function,
        key: value_of(key),
        argument,
    })
}

/// The result that stands on an ok line.
fn result(open: &Open, served: &Served) -> Value {
    let Served::Done(done) = served else {
        return Value::Null;
    };
    match (open.function, &done.answer) {
        (Function::Get, Answer::Found(found)) => value_of(&found.value),
        (Function::Get, _) => Value::Null,
        (Function::Put, _) => open.argument.clone(),
        (Function::Delete, answer) => Value::Bool(*answer != Answer::NotFound),
        (Function::Cas, Answer::Written { .. }) => Value::Bool(true),
        (Function::Cas, Answer::CasFailed { current: Some(current) } | Answer::Exists { current }) => {
            json!({ "actual": value_of(&current.value) })
        }
        (Function::Cas, Answer::CasFailed { current: None }) => json!({ "actual": null }),
        (Function::Cas, _) => Value::Bool(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::parse_line;
    use crate::kv::{Done, Previous, Versioned};
    use crate::paxos::Slot;
    use bytes::Bytes;

    fn op(line: &str) -> RequestOp {
        parse_line(line).and_then(|command| command.into_request_op()).unwrap()
    }

    fn done(answer: Answer) -> Ended {
        Ended::Done(Served::Done(Done {
            slot: Slot(1),
            revision: 1,
            answer,
        }))
    }

    fn versioned(value: &'static str) -> Versioned {
        Versioned {
            value: Bytes::from_static(value.as_bytes()),
            created: 1,
            version: 1,
        }
    }

    fn record(steps: &[(usize, &str, Ended)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let mut recorder = Recorder::new(Some(&path), true).unwrap();
        for (place, line, ended) in steps {
            recorder.invoke(*place, &op(line), Time(1)).unwrap();
            recorder.end(*place, ended, Time(2)).unwrap();
        }
        let kept = recorder.finish().unwrap().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(super::super::history::read(text.as_bytes()).unwrap(), kept);
        text
    }

    #[test]
    fn every_kind_of_result_has_its_form() {
        let written = || Answer::Written {
            previous: Previous::NotAsked,
        };
        let table = [
            ("put k a", done(written()), r#""put","key":"k","value":"a""#),
            (
                "put k a --if-absent",
                done(written()),
                r#""cas","key":"k","value":true"#,
            ),
            (
                "put k a --if-absent",
                done(Answer::Exists {
                    current: versioned("b"),
                }),
                r#""cas","key":"k","value":{"actual":"b"}"#,
            ),
            (
                "get k",
                done(Answer::Found(versioned("b"))),
                r#""get","key":"k","value":"b""#,
            ),
            ("get k", done(Answer::NotFound), r#""get","key":"k","value":null"#),
            ("del k", done(written()), r#""delete","key":"k","value":true"#),
            ("del k", done(Answer::NotFound), r#""delete","key":"k","value":false"#),
            ("cas k --old a b", done(written()), r#""cas","key":"k","value":true"#),
            (
                "cas k --old a b",
                done(Answer::CasFailed {
                    current: Some(versioned("c")),
                }),
                r#""cas","key":"k","value":{"actual":"c"}"#,
            ),
            (
                "cas k --old a b",
                done(Answer::CasFailed { current: None }),
                r#""cas","key":"k","value":{"actual":null}"#,
            ),
        ];
        for (line, ended, expected) in table {
            let text = record(&[(0, line, ended)]);
            let second = text.lines().nth(1).unwrap();
            assert_eq!(
                second,
                format!(r#"{{"process":0,"type":"ok","f":{expected},"time":2}}"#),
                "{line}"
            );
        }
        let text = record(&[(0, "put k a --if-absent", done(written()))]);
        assert!(text.starts_with(r#"{"process":0,"type":"invoke","f":"cas","key":"k","value":[null,"a"],"time":1}"#));
    }

    #[test]
    fn a_process_is_not_used_again_after_an_info() {
        let unknown = Ended::Unknown {
            cause: "leader_lost",
            why: String::new(),
        };
        let not_done = Ended::NotDone {
            cause: "no_leader",
            why: String::new(),
        };
        let text = record(&[
            (1, "get k", not_done),
            (1, "put k a", unknown.clone()),
            (0, "put k b", unknown),
            (1, "get k", done(Answer::NotFound)),
            (0, "get k", done(Answer::NotFound)),
        ]);
        let seen: Vec<_> = text
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                (
                    line["process"].as_u64().unwrap(),
                    line["type"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let seen: Vec<_> = seen.iter().map(|(process, kind)| (*process, kind.as_str())).collect();
        assert_eq!(
            seen,
            [
                (1, "invoke"),
                (1, "fail"),
                (1, "invoke"),
                (1, "info"),
                (0, "invoke"),
                (0, "info"),
                (2, "invoke"),
                (2, "ok"),
                (3, "invoke"),
                (3, "ok")
            ]
        );
    }
}
