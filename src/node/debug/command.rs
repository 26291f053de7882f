//! The lines that the debug port understands.
//!
//! Data commands and faults are those of `command`, as on the command line and in scripts; what is only the debug
//! port's stands here. `help` is made from the same table that says which words there are.

use crate::command::fault::FAULT_FORMS;
use crate::command::{DATA_VERBS, DataCommand, FaultCommand, ParseError, split_line};
use std::ffi::OsString;

/// Rows that `slots` and `tail` show unless it is said, and at most.
pub(super) const ROWS_DEFAULT: usize = 20;
/// See [`ROWS_DEFAULT`]. More is cut, as `help` says, so that no reply holds the loop for long.
pub(super) const ROWS_MAX: usize = 1000;

/// One line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Whether the answer is wanted as JSON.
    pub(super) json: bool,
    pub(super) command: Command,
}

/// A command of the debug port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Ping,
    Status,
    Ready,
    Peers,
    Ballots,
    Slots {
        /// None: so that the newest are shown.
        from: Option<u64>,
        count: usize,
    },
    Digests {
        /// None: so that the newest are shown.
        from: Option<u64>,
        count: usize,
    },
    Sessions {
        count: usize,
    },
    Timers,
    Config,
    Metrics,
    Snapshot,
    Scrub {
        /// A pass is to begin at once.
        now: bool,
    },
    Tail {
        count: usize,
    },
    Follow,
    Data(DataCommand),
    Fault(FaultCommand),
    Quit,
}

/// Every command with what it shows or does, as `help` lists them. Faults follow from their own table.
pub(super) const HELP: [(&str, &str); 22] = [
    ("help", "this list"),
    ("ping", "answers OK pong"),
    ("status", "role, ballots, slots, queues, faults of this node"),
    (
        "ready",
        "is it alive, has it a quorum, can it write: OK only if all hold",
    ),
    ("peers", "links with the other nodes, and how far each has come"),
    ("ballots", "the ballots that this node has promised, used and seen"),
    (
        "slots [FROM] [N]",
        "N slots of the log (20; at most 1000) from FROM on, else the newest",
    ),
    (
        "digests [FROM] [N]",
        "digests of N applied slots (20; at most 1000) from FROM on, else the newest",
    ),
    (
        "sessions [N]",
        "N sessions (1000 at most), the one idle for longest first",
    ),
    ("timers", "what this node waits for, and until when"),
    ("config", "flags, addresses and versions"),
    ("metrics", "counters since the start, as NAME VALUE"),
    ("snapshot", "take one soon; status shows how far it is"),
    (
        "scrub [now]",
        "how far it has come with looking for rot, and what it found; now: begin a pass",
    ),
    (
        "tail [N]",
        "the last N events (20; at most 1000): messages, syncs, elections",
    ),
    ("tail -f", "events as they happen; any line ends it"),
    ("put KEY VALUE [--if-absent] [--prev]", "set a key, through consensus"),
    (
        "get KEY [--stale [--at-least SLOT]]",
        "show a key: linearizable, or as this node has it",
    ),
    ("del KEY [--prev]", "remove a key"),
    (
        "cas KEY (--old VALUE|--version N) NEW [--prev]",
        "set a key if it holds what is expected",
    ),
    ("json COMMAND", "the answer of COMMAND as one line of JSON"),
    ("quit", "close this connection"),
];

/// Reads a line; `None` if there is nothing on it but blanks or a comment.
///
/// # Errors
/// [`ParseError`], one line.
pub(super) fn parse(line: &[u8]) -> Result<Option<Line>, ParseError> {
    let words = split_line(line)?;
    match words.split_first() {
        None => Ok(None),
        Some((first, rest)) if first == "json" => {
            let command = parse_words(rest)?;
            Ok(Some(Line { json: true, command }))
        }
        Some(_) => {
            let command = parse_words(&words)?;
            Ok(Some(Line { json: false, command }))
        }
    }
}

fn parse_words(words: &[OsString]) -> Result<Command, ParseError> {
    let verb = words.first().ok_or(ParseError::Empty)?;
    if DATA_VERBS.iter().any(|known| verb == known) {
        return DataCommand::from_words(words).map(Command::Data);
    }
    if verb == "fault" {
        return FaultCommand::from_words(&words[1..]).map(Command::Fault);
    }
    let text: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let (verb, rest) = text.split_first().ok_or(ParseError::Empty)?;
    match (*verb, rest) {
        ("help", []) => Ok(Command::Help),
        ("ping", []) => Ok(Command::Ping),
        ("status", []) => Ok(Command::Status),
        ("ready", []) => Ok(Command::Ready),
        ("peers", []) => Ok(Command::Peers),
        ("ballots", []) => Ok(Command::Ballots),
        ("timers", []) => Ok(Command::Timers),
        ("config", []) => Ok(Command::Config),
        ("metrics", []) => Ok(Command::Metrics),
        ("quit", []) => Ok(Command::Quit),
        ("snapshot", []) => Ok(Command::Snapshot),
        ("scrub", []) => Ok(Command::Scrub { now: false }),
        ("scrub", ["now"]) => Ok(Command::Scrub { now: true }),
        ("slots", _) => {
            let (from, count) = range("slots [FROM] [N]", rest)?;
            Ok(Command::Slots { from, count })
        }
        ("digests", _) => {
            let (from, count) = range("digests [FROM] [N]", rest)?;
            Ok(Command::Digests { from, count })
        }
        ("sessions", []) => Ok(Command::Sessions { count: ROWS_MAX }),
        ("sessions", [count]) => Ok(Command::Sessions { count: rows(count)? }),
        ("tail", []) => Ok(Command::Tail { count: ROWS_DEFAULT }),
        ("tail", ["-f"]) => Ok(Command::Follow),
        ("tail", [count]) => Ok(Command::Tail { count: rows(count)? }),
        _ => Err(wrong(verb, words)),
    }
}

/// Where to begin, if it is said, and how many.
fn range(form: &str, rest: &[&str]) -> Result<(Option<u64>, usize), ParseError> {
    match rest {
        [] => Ok((None, ROWS_DEFAULT)),
        [from] => Ok((Some(number(from)?), ROWS_DEFAULT)),
        [from, count] => Ok((Some(number(from)?), rows(count)?)),
        _ => Err(usage(form)),
    }
}

fn rows(text: &str) -> Result<usize, ParseError> {
    let count = usize::try_from(number(text)?).unwrap_or(usize::MAX);
    Ok(count.min(ROWS_MAX))
}

fn number(text: &str) -> Result<u64, ParseError> {
    let bad = |_| ParseError::Usage {
        message: format!("{} is no whole number", crate::command::render::quote(text.as_bytes())),
    };
    text.parse().map_err(bad)
}

/// A known verb with wrong words behind it, or no known verb.
fn wrong(verb: &str, words: &[OsString]) -> ParseError {
    let form = HELP.iter().find(|(form, _)| form.split(' ').next() == Some(verb));
    match form {
        Some((form, _)) => usage(form),
        None => ParseError::UnknownCommand {
            verb: words[0].to_string_lossy().into_owned(),
        },
    }
}

fn usage(form: &str) -> ParseError {
    ParseError::Usage {
        message: format!("write {form}"),
    }
}

/// Every form of a command, with its words of explanation.
pub(super) fn help() -> impl Iterator<Item = (&'static str, &'static str)> {
    HELP.into_iter().chain(FAULT_FORMS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn command(line: &str) -> Command {
        parse(line.as_bytes()).unwrap().expect(line).command
    }

    #[test]
    fn every_form_of_help_is_understood() {
        for (form, _) in HELP {
            // The forms' own places for words, filled in.
            let line = form
                .replace("COMMAND", "status")
                .replace("(--old VALUE|--version N)", "--version 1")
                .replace(['[', ']'], "")
                .replace("FROM", "1")
                .replace("SLOT", "1")
                .replace(" N", " 2");
            assert!(parse(line.as_bytes()).is_ok(), "{form}: {line}");
        }
    }

    #[test]
    fn numbers_are_optional_and_rows_are_cut() {
        let slots = |from, count| Command::Slots { from, count };
        assert_eq!(command("slots"), slots(None, 20));
        assert_eq!(command("slots 7"), slots(Some(7), 20));
        assert_eq!(command("slots 7 5"), slots(Some(7), 5));
        let digests = Command::Digests {
            from: Some(7),
            count: 1,
        };
        assert_eq!(command("digests 7 1"), digests);
        assert_eq!(command("slots 7 99999999999"), slots(Some(7), 1000));
        assert_eq!(command("tail -f"), Command::Follow);
        assert_eq!(command("tail 3"), Command::Tail { count: 3 });
    }

    #[test]
    fn json_and_the_shared_definitions_go_together() {
        let line = parse(b"json get 'my key'").unwrap().unwrap();
        assert!(line.json);
        let Command::Data(DataCommand::Get { key, .. }) = line.command else {
            panic!("{line:?}")
        };
        assert_eq!(key, Bytes::from_static(b"my key"));
        assert!(matches!(command("fault clear"), Command::Fault(FaultCommand::Clear)));
        assert_eq!(parse(b"  # a comment").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        for (line, code) in [
            ("frobnicate", "unknown_command"),
            ("json frobnicate", "unknown_command"),
            ("json", "bad_request"),
            ("json json status", "bad_request"),
            ("status now", "bad_request"),
            ("tail -x", "bad_request"),
            ("slots 1 2 3", "bad_request"),
            ("sessions -1", "bad_request"),
            ("get", "bad_request"),
            ("fault", "bad_request"),
            ("status 'x", "bad_request"),
        ] {
            let error = parse(line.as_bytes()).expect_err(line);
            assert_eq!(error.code(), code, "{line}: {error}");
            assert!(!error.to_string().contains('\n'), "{line}: {error}");
        }
    }
}
