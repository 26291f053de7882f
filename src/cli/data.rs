//! `synod put`, `get`, `del`, `cas`: one operation, its answer, and an exit code that says which of three it was.

use super::{Global, Output, exit};
use crate::client::End;
use crate::client::blocking::Client;
use crate::command::{DataCommand, render};
use crate::console::{complain, print};
use crate::kv::command::VALUE_BYTES_MAX;
use crate::kv::{Answer, Previous};
use crate::wire::Served;
use bytes::Bytes;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Runs one command on the data; returns the exit code.
///
/// # Errors
/// The operating system failed this process, or standard output cannot be written.
pub fn run(global: &Global, command: &DataCommand) -> io::Result<u8> {
    let mut command = command.clone();
    if let Err(error) = fetch_value(&mut command) {
        complain(&error);
        return Ok(exit::USAGE);
    }
    let op = match command.into_request_op() {
        Ok(op) => op,
        Err(error) => {
            complain(&error.to_string());
            return Ok(exit::USAGE);
        }
    };
    let mut client = Client::connect(&global.endpoints, global.options()?)?;
    let end = client.run(op)?;
    // The answer first: who waits for it need not wait for the session to be closed.
    match global.output {
        Output::Json => print(format!("{}\n", json(&end)).as_bytes())?,
        Output::Text => show(&end, global.raw)?,
    }
    client.close()?;
    Ok(exit::of(&end))
}

/// Puts in place of `-` and `@FILE` what they stand for. Only the command line does this: a node's debug port must not
/// read the node's files.
fn fetch_value(command: &mut DataCommand) -> Result<(), String> {
    let Some(value) = command.new_value_mut() else {
        return Ok(());
    };
    let fetched = match value.as_ref() {
        b"-" => read_bounded(io::stdin().lock()).map_err(|error| format!("standard input: {error}"))?,
        [b'@', path @ ..] if !path.is_empty() => {
            let path = Path::new(std::str::from_utf8(path).map_err(|_| "the name behind @ is not text")?);
            let read = File::open(path).and_then(read_bounded);
            read.map_err(|error| format!("{}: {error}", path.display()))?
        }
        _ => return Ok(()),
    };
    *value = Bytes::from(fetched);
    Ok(())
}

/// Reads to the end, but not much further than a value may be long: the check of its length then names it.
fn read_bounded(input: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    input.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// The end as one JSON object.
fn json(end: &End) -> serde_json::Value {
    match end {
        End::Done(served) => render::json(served),
        End::NotDone(failure) | End::Unknown(failure) => json!({
            "outcome": end.class(),
            "code": failure.cause.name(),
            "reason": failure.to_string(),
            "attempts": failure.tries,
            "retryable": end.is_retryable(),
        }),
    }
}

fn show(end: &End, raw: bool) -> io::Result<()> {
    match end {
        End::Done(served) => show_answer(served, raw),
        End::NotDone(_) | End::Unknown(_) => {
            complain(&end.to_string());
            Ok(())
        }
    }
}

fn show_answer(served: &Served, raw: bool) -> io::Result<()> {
    match served {
        Served::Done(done) => match &done.answer {
            Answer::Found(found) => show_value(&found.value, raw),
            Answer::Written { previous } => {
                let previous = match previous {
                    Previous::NotAsked => String::new(),
                    Previous::Absent => "previous absent\n".into(),
                    Previous::Was(was) => format!("previous {}\n", render::quote(&was.value)),
                };
                print(format!("OK {}\n{previous}", done.revision).as_bytes())
            }
            Answer::Opened { .. } | Answer::Closed => print(b"OK\n"),
            Answer::NotFound => Ok(()),
            Answer::Exists { .. } | Answer::CasFailed { .. } => {
                // The current value stands on the first line; its version is what another cas wants to know.
                render::lines(served).iter().take(2).for_each(|line| complain(line));
                Ok(())
            }
        },
        Served::Stale { age_ms, found, .. } => {
            match age_ms {
                &u32::MAX => complain("stale: the node cannot say how old this may be"),
                age_ms => complain(&format!("stale: at most {age_ms} ms old")),
            }
            found.as_ref().map_or(Ok(()), |found| show_value(&found.value, raw))
        }
        Served::Status(text) => print(format!("{text}\n").as_bytes()),
    }
}

fn show_value(value: &[u8], raw: bool) -> io::Result<()> {
    if raw {
        return print(value);
    }
    print(&[value, b"\n"].concat())
}
