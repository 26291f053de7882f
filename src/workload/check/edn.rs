//! Jepsen's form of a history: EDN, Clojure's notation for data.
//!
//! ```text
//! {:process 3, :type :invoke, :f :cas, :key "k", :value ["a" "b"], :time 123456}
//! ```
//!
//! Read are maps one after the other, or in one vector or list. Keywords and symbols count as text, sets and lists as
//! arrays; tags (`#jepsen.history.Op{..}`) are passed over. As Jepsen's own tests write it, `:read` and `:write` mean get
//! and put, and without `:key` the value is the pair of key and value (`jepsen.independent`).

use crate::workload::history::{self, Event, History, LineError, ReadError, Timed};
use serde_json::{Map, Number, Value};
use std::io::{self, BufRead, Write};

/// Forms nested deeper are refused: a file must not decide how much stack is used.
const DEPTH_MAX: usize = 64;

/// Reads a history of either form.
///
/// # Errors
/// As [`history::read`].
pub fn read_either(input: impl BufRead) -> Result<History, ReadError> {
    history::pair_up(lines(input)?)
}

/// Converts a history of either form to EDN.
///
/// # Errors
/// As [`history::read`], and those of `out`. Nothing is said of operations that do not fit each other.
pub fn to_edn(input: impl BufRead, mut out: impl Write) -> Result<(), ReadError> {
    convert(input, |event, time| write_event(event, time, &mut out))
}

/// Converts a history of either form to JSON lines.
///
/// # Errors
/// As [`to_edn`].
pub fn to_jsonl(input: impl BufRead, mut out: impl Write) -> Result<(), ReadError> {
    convert(input, |event, time| writeln!(out, "{}", event.object(time)))
}

fn convert(input: impl BufRead, mut write: impl FnMut(&Event, Option<u64>) -> io::Result<()>) -> Result<(), ReadError> {
    let mut written = Ok(());
    let read = history::for_each(lines(input)?, |_, (event, time)| {
        if written.is_ok() {
            written = write(&event, time);
        }
        Ok(())
    });
    written.map_err(ReadError::Io).and(read)
}

type Lines<'a> = Box<dyn Iterator<Item = io::Result<(u64, Result<Option<Timed>, LineError>)>> + 'a>;

/// The numbered lines of an input of either form.
fn lines<'a>(mut input: impl BufRead + 'a) -> Result<Lines<'a>, ReadError> {
    if !looks_like_edn(input.fill_buf().map_err(ReadError::Io)?) {
        return Ok(Box::new(history::json_lines(input)));
    }
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(ReadError::Io)?;
    Ok(Box::new(forms(bytes).map(Ok)))
}

/// JSON lines begin with an object, whose fields begin with a quote.
fn looks_like_edn(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    match start.strip_prefix(b"{") {
        Some(field) => field.trim_ascii_start().starts_with(b":"),
        None => {
            start.starts_with(b"[") || start.starts_with(b"(") || start.starts_with(b"#") || start.starts_with(b";")
        }
    }
}

/// The forms of a file with the numbers of the lines in which they begin. Ends at the first that cannot be read.
fn forms(bytes: Vec<u8>) -> impl Iterator<Item = (u64, Result<Option<Timed>, LineError>)> {
    let (mut at, mut line, mut broken) = (0, 1, false);
    std::iter::from_fn(move || {
        let mut reader = Reader {
            bytes: &bytes,
            at,
            line,
        };
        // One vector around all of them is passed over.
        while reader.next_byte().is_some_and(|byte| b"[]()".contains(&byte)) {
            reader.at += 1;
        }
        if broken || reader.next_byte().is_none() {
            return None;
        }
        let began = reader.line;
        let form = reader.form(0);
        (at, line, broken) = (reader.at, reader.line, form.is_err());
        Some((
            began,
            form.map_err(LineError::NotEdn)
                .and_then(|form| history::parse(ours(form))),
        ))
    })
}

/// Jepsen's names as ours.
fn ours(mut form: Value) -> Value {
    let Value::Object(object) = &mut form else {
        return form;
    };
    if let Some(Value::String(function)) = object.get_mut("f") {
        match function.as_str() {
            "read" => *function = "get".to_owned(),
            "write" => *function = "put".to_owned(),
            _ => {}
        }
    }
    if !object.contains_key("key")
        && let Some(Value::Array(pair)) = object.get_mut("value")
        && pair.len() == 2
    {
        let value = pair.remove(1);
        let key = pair.remove(0);
        object.insert("key".to_owned(), key);
        object.insert("value".to_owned(), value);
    }
    form
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl Reader<'_> {
    /// The next byte that means something.
    fn next_byte(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            match byte {
                b'\n' => self.line += 1,
                b';' => {
                    while self.bytes.get(self.at + 1).is_some_and(|byte| *byte != b'\n') {
                        self.at += 1;
                    }
                }
                byte if byte.is_ascii_whitespace() || *byte == b',' => {}
                _ => return Some(*byte),
            }
            self.at += 1;
        }
        None
    }

    fn form(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        match self.next_byte().ok_or("the file ends within a form")? {
            b'{' => self.map(depth),
            b'[' => self.sequence(b']', depth),
            b'(' => self.sequence(b')', depth),
            b'"' => self.string(),
            b'#' => self.tagged(depth),
            b'\\' => {
                self.at += 1;
                self.word().map(Value::from)
            }
            _ => self.word().and_then(atom),
        }
    }

    fn sequence(&mut self, close: u8, depth: usize) -> Result<Value, String> {
        self.at += 1;
        let mut items = Vec::new();
        while self.next_byte() != Some(close) {
            items.push(self.form(depth + 1)?);
        }
        self.at += 1;
        Ok(Value::Array(items))
    }

    fn map(&mut self, depth: usize) -> Result<Value, String> {
        let Value::Array(items) = self.sequence(b'}', depth)? else {
            return Err("a map that is none".to_owned());
        };
        if items.len() % 2 != 0 {
            return Err("a map needs a value for each key".to_owned());
        }
        let mut map = Map::new();
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            let key = match key {
                Value::String(key) => key,
                other => other.to_string(),
            };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    /// `#{..}` is a set, `#_` leaves out the next form, `#tag` says of what kind the next form is.
    fn tagged(&mut self, depth: usize) -> Result<Value, String> {
        self.at += 1;
        match self.bytes.get(self.at) {
            Some(b'{') => return self.sequence(b'}', depth),
            Some(b'_') => {
                self.at += 1;
                self.form(depth + 1)?;
            }
            _ => drop(self.word()?),
        }
        self.form(depth + 1)
    }

    fn string(&mut self) -> Result<Value, String> {
        let from = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                None => return Err("the file ends within a string".to_owned()),
                Some(b'"') => break,
                Some(b'\\') => self.at += 1,
                Some(b'\n') => self.line += 1,
                Some(_) => {}
            }
            self.at += 1;
        }
        self.at += 1;
        let text = &self.bytes[from..self.at.min(self.bytes.len())];
        // EDN's escapes are those of JSON, but a line may break within a string.
        let text = String::from_utf8_lossy(text)
            .replace('\n', "\\n")
            .replace('\r', "\\r")
            .replace('\t', "\\t");
        serde_json::from_str(&text).map_err(|error| format!("string {text}: {error}"))
    }

    /// What stands up to the next delimiter.
    fn word(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b",;\"()[]{}".contains(byte);
        let length = rest.iter().position(is_end).unwrap_or(rest.len());
        if length == 0 {
            let found = rest
                .first()
                .map_or("the end".to_owned(), |byte| char::from(*byte).to_string());
            return Err(format!("{found} where a form was expected"));
        }
        self.at += length;
        Ok(String::from_utf8_lossy(&rest[..length]).into_owned())
    }
}

fn atom(word: String) -> Result<Value, String> {
    Ok(match word.as_str() {
        "nil" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if word.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first)) => number(&word),
        _ => Value::from(word.strip_prefix(':').unwrap_or(&word)),
    })
}

/// `7`, `-7`, `+7`, `7N`, `7.5`, `7.5M`; a word that only begins like one is a symbol.
fn number(word: &str) -> Value {
    let digits = word.strip_suffix(['N', 'M']).unwrap_or(word);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    match digits.parse::<Number>() {
        Ok(number) => Value::Number(number),
        Err(_) => Value::from(word),
    }
}

fn write_event(event: &Event, time: Option<u64>, out: &mut impl Write) -> io::Result<()> {
    let object = event.object(time);
    let fields = object.as_object().into_iter().flatten();
    for ((name, value), opening) in fields.zip(["{"].into_iter().chain(std::iter::repeat(", "))) {
        write!(out, "{opening}:{name} ")?;
        match (name.as_str(), value) {
            ("type" | "f", Value::String(word)) => write!(out, ":{word}")?,
            _ => write_value(value, out)?,
        }
    }
    writeln!(out, "}}")
}

fn write_value(value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Null => write!(out, "nil"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => write!(out, "{value}"),
        Value::Array(items) => {
            write!(out, "[")?;
            for (item, gap) in items.iter().zip([""].into_iter().chain(std::iter::repeat(" "))) {
                write!(out, "{gap}")?;
                write_value(item, out)?;
            }
            write!(out, "]")
        }
        Value::Object(fields) => {
            write!(out, "{{")?;
            for ((name, value), gap) in fields.iter().zip([""].into_iter().chain(std::iter::repeat(", "))) {
                write!(out, "{gap}{} ", Value::from(name.as_str()))?;
                write_value(value, out)?;
            }
            write!(out, "}}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::history::{End, Function};
    use serde_json::json;

    const JSON_LINES: &str = r#"{"process":0,"type":"invoke","f":"put","key":"k","value":"a\n\"b\"é","time":1}
{"process":0,"type":"ok","f":"put","key":"k","value":"a\n\"b\"é","time":2}
{"process":1,"type":"invoke","f":"cas","key":{"n":[1,2.5]},"value":[null,{"x":true}],"time":3}
{"process":1,"type":"ok","f":"cas","key":{"n":[1,2.5]},"value":{"actual":-7},"time":4}
"#;
    const EDN: &str = r#"{:process 0, :type :invoke, :f :put, :key "k", :value "a\n\"b\"é", :time 1}
{:process 0, :type :ok, :f :put, :key "k", :value "a\n\"b\"é", :time 2}
{:process 1, :type :invoke, :f :cas, :key {"n" [1 2.5]}, :value [nil {"x" true}], :time 3}
{:process 1, :type :ok, :f :cas, :key {"n" [1 2.5]}, :value {"actual" -7}, :time 4}
"#;

    fn converted(text: &str, to: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), ReadError>) -> String {
        let mut out = Vec::new();
        to(text.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_two_forms_are_converted_into_each_other() {
        for text in [JSON_LINES, EDN] {
            assert_eq!(converted(text, |input, out| to_edn(input, out)), EDN);
            assert_eq!(converted(text, |input, out| to_jsonl(input, out)), JSON_LINES);
        }
        let either = [JSON_LINES, EDN].map(|text| read_either(text.as_bytes()).unwrap());
        assert_eq!(either[0], either[1]);
        assert_eq!(either[0].operations.len(), 2);
    }

    #[test]
    fn jepsens_own_histories_are_read() {
        let text = r#"; a register of jepsen.independent
[#jepsen.history.Op{:index 0, :process 4 :type :invoke, :f :write, :value [7 +3N], :time 10}
 {:process :nemesis, :type :info, :f :kill, :value #{:n1 "n2"}}
 #_ {:left out} {:process 4, :type :ok, :f :write, :value [7 3], :time 20, :error (1 \c "x")}
 {:process 4, :type :invoke, :f :read, :value [7 nil], :time 30}
 {:process 4, :type :ok, :f :read, :value [7 3], :time 40}]
"#;
        let history = read_either(text.as_bytes()).unwrap();
        let seen: Vec<_> = history
            .operations
            .iter()
            .map(|op| (op.function, &op.key, &op.end))
            .collect();
        let ok = |time| End::Ok { value: json!(3), time };
        assert_eq!(
            seen,
            [(Function::Put, &json!(7), &ok(20)), (Function::Get, &json!(7), &ok(40))]
        );
    }

    proptest::proptest! {
        /// Pieces of both forms in any order, and bytes of any kind: read or refused, never a panic.
        #[test]
        fn any_input_is_read_or_refused(
            pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..20),
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
        ) {
            let text = [pieces.concat().as_bytes(), &bytes].concat();
            let _ = read_either(text.as_slice());
            let _ = forms(text).count();
        }
    }

    const PIECES: [&str; 20] = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "#",
        "#_",
        "\"",
        "\\",
        ":process 1",
        ":type :invoke",
        ":f :put",
        ":key",
        " ",
        "\n",
        "1",
        "-",
        "{\"process\":1,",
        "\"time\":2}",
    ];

    /// Found by fuzzing: the line was the clock, so all of a vector printed on one line happened at once, and a read of
    /// what was overwritten before it began passed as linearizable.
    #[test]
    fn events_on_one_line_without_times_happen_one_after_the_other() {
        let line = "[{:process 0, :type :invoke, :f :write, :value [7 1]} {:process 0, :type :ok, :f :write, :value [7 1]} \
            {:process 0, :type :invoke, :f :write, :value [7 2]} {:process 0, :type :ok, :f :write, :value [7 2]} \
            {:process 1, :type :invoke, :f :read, :value [7 nil]} {:process 1, :type :ok, :f :read, :value [7 1]}]";
        let history = read_either(line.as_bytes()).unwrap();
        let verdict = crate::workload::check::check(&history, std::time::Duration::from_secs(5));
        assert!(
            matches!(verdict, crate::workload::check::Verdict::Violation(..)),
            "{verdict:?}"
        );
    }

    #[test]
    fn what_is_no_edn_is_refused_with_its_line_and_never_a_panic() {
        let nested = "[".repeat(100_000);
        let table = [
            ("{:a", "the file ends within a form"),
            ("{:a 1", "the file ends within a form"),
            ("{:a}", "a map needs a value for each key"),
            ("{:a \"", "the file ends within a string"),
            ("{:a \"\\", "the file ends within a string"),
            ("{:a \"\\q\"}", "string \"\\q\": invalid escape at line 1 column 3"),
            ("{:a )}", ") where a form was expected"),
            ("{:a \\", "the end where a form was expected"),
            ("#", "the end where a form was expected"),
            (&format!("{{:a {nested}"), "nested deeper than 64"),
        ];
        for (text, why) in table {
            let Err(ReadError::Malformed(bad)) = read_either(format!(";\n{text}").as_bytes()) else {
                panic!("{text} was read");
            };
            assert_eq!(bad.lines, [(2, LineError::NotEdn(why.to_owned()))], "{text:.20}");
        }
    }
}
