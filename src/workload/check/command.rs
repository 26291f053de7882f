//! `synod check`: reads a history, says whether it is linearizable.

use super::{Verdict, check, timeline};
use crate::workload::history::{self, History, ReadError};
use clap::Args;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit code: linearizable.
const LINEARIZABLE: u8 = 0;
/// Exit code: not linearizable.
const VIOLATION: u8 = 1;
/// Exit code: a file cannot be read or written.
const FILE: u8 = 2;
/// Exit code: no answer in the time given.
const UNDECIDED: u8 = 4;
/// Exit code: the input is no history.
const MALFORMED: u8 = 6;

/// Check that a history is linearizable (exit 0), or show why it is not (exit 1)
///
/// Reads what `synod run --history` writes: JSON lines. Exit 4: undecided within --max-time. Exit 6: the
/// input is no history; its bad lines are named.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The history; - reads stdin
    pub file: PathBuf,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub max_time: Duration,
    /// Draw the contradiction, if there is one, as a picture
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Runs `synod check`; returns the exit code. `as_json`: the verdict as one JSON object on one line.
pub fn run(args: &CheckArgs, as_json: bool) -> u8 {
    let input: io::Result<Box<dyn BufRead>> = match args.file.to_str() {
        Some("-") => Ok(Box::new(io::stdin().lock())),
        _ => File::open(&args.file).map(|file| Box::new(BufReader::new(file)) as Box<dyn BufRead>),
    };
    let done = match input {
        Err(error) => Err(ReadError::Io(error)),
        Ok(input) => history::read(input),
    };
    match done {
        Ok(history) => judge(&history, args, as_json),
        Err(error) => refuse(&args.file, &error),
    }
}

fn refuse(file: &Path, error: &ReadError) -> u8 {
    match error {
        ReadError::Io(cause) => {
            eprintln!("synod: {}: {cause}", file.display());
            FILE
        }
        ReadError::Malformed(malformed) => {
            eprintln!("synod: {} is no history:\n{malformed}", file.display());
            MALFORMED
        }
    }
}

fn judge(history: &History, args: &CheckArgs, as_json: bool) -> u8 {
    let verdict = check(history, args.max_time);
    let text = if as_json {
        format!("{}\n", object(&verdict))
    } else {
        words(&verdict, args.max_time)
    };
    // A reader that is gone (`synod check .. | head`) does not change the verdict.
    let _ = io::stdout().write_all(text.as_bytes());
    if let (Verdict::Violation(_, violation), Some(path)) = (&verdict, &args.svg)
        && let Err(error) = std::fs::write(path, violation.svg())
    {
        eprintln!("synod: {}: {error}", path.display());
    }
    match verdict {
        Verdict::Linearizable(_) => LINEARIZABLE,
        Verdict::Violation(..) => VIOLATION,
        Verdict::Undecided(..) => UNDECIDED,
    }
}

fn words(verdict: &Verdict, max_time: Duration) -> String {
    match verdict {
        Verdict::Linearizable(checked) => format!("linearizable: {checked}\n"),
        Verdict::Violation(checked, violation) => format!("not linearizable: {checked}\n{violation}"),
        Verdict::Undecided(checked, open) => {
            let keys: Vec<_> = open.iter().take(10).map(timeline::shown).collect();
            let max_time = humantime::format_duration(max_time);
            let keys = keys.join(" ");
            format!(
                "undecided after {max_time} (--max-time): {checked}; {} keys are open: {keys}\n",
                open.len()
            )
        }
    }
}

fn object(verdict: &Verdict) -> Value {
    let (name, checked, more) = match verdict {
        Verdict::Linearizable(checked) => ("linearizable", checked, Value::Null),
        Verdict::Violation(checked, violation) => ("violation", checked, json!(violation.to_string())),
        Verdict::Undecided(checked, open) => ("undecided", checked, json!(open)),
    };
    let mut object = json!({
        "verdict": name,
        "operations": checked.operations,
        "keys": checked.keys,
        "unknown": checked.unknown,
        "failed": checked.failed,
        "states": checked.states,
    });
    match verdict {
        Verdict::Linearizable(_) => {}
        Verdict::Violation(_, violation) => {
            object["key"] = violation.key.clone();
            object["timeline"] = more;
        }
        Verdict::Undecided(..) => object["open"] = more,
    }
    object
}
