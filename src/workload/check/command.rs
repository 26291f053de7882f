//! `synod check`: reads a history, says whether it is linearizable, or converts it.

use super::edn;
use super::{Verdict, check, timeline};
use crate::console::{complain, print};
use crate::workload::history::{History, ReadError};
use clap::Args;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Exit code: linearizable, or converted.
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
/// Reads what `synod run --history` writes: JSON lines, or Jepsen's EDN. Exit 4: undecided within --max-time. Exit 6: the
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
    /// Do not check: write the history to stdout as EDN
    #[arg(long, conflicts_with_all = ["jsonl", "svg"])]
    pub edn: bool,
    /// Do not check: write the history to stdout as JSON lines
    #[arg(long, conflicts_with_all = ["edn", "svg"])]
    pub jsonl: bool,
}

/// Runs `synod check`; returns the exit code. `as_json`: the verdict as one JSON object on one line.
pub fn run(args: &CheckArgs, as_json: bool) -> u8 {
    let input: io::Result<Box<dyn BufRead>> = match args.file.to_str() {
        Some("-") => Ok(Box::new(io::stdin().lock())),
        _ => File::open(&args.file).map(|file| Box::new(BufReader::new(file)) as Box<dyn BufRead>),
    };
    let done = match input {
        Err(error) => Err(ReadError::Io(error)),
        Ok(input) if args.edn => return convert(&args.file, edn::to_edn(input, io::stdout().lock())),
        Ok(input) if args.jsonl => return convert(&args.file, edn::to_jsonl(input, io::stdout().lock())),
        Ok(input) => edn::read_either(input),
    };
    match done {
        Ok(history) => judge(&history, args, as_json),
        Err(error) => refuse(&args.file, &error),
    }
}

fn convert(file: &Path, done: Result<(), ReadError>) -> u8 {
    match done {
        Ok(()) => LINEARIZABLE,
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => LINEARIZABLE, // enough was read
        Err(error) => refuse(file, &error),
    }
}

fn refuse(file: &Path, error: &ReadError) -> u8 {
    match error {
        ReadError::Io(cause) => {
            complain(&format!("{}: {cause}", file.display()));
            FILE
        }
        ReadError::Malformed(malformed) => {
            complain(&format!("{} is no history:\n{malformed}", file.display()));
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
    // What cannot be told does not change the verdict.
    let _ = print(text.as_bytes());
    if let (Verdict::Violation(_, violation), Some(path)) = (&verdict, &args.svg)
        && let Err(error) = std::fs::write(path, violation.svg())
    {
        complain(&format!("{}: {error}", path.display()));
    }
    code(&verdict)
}

/// The exit code of a verdict.
pub(crate) fn code(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Linearizable(_) => LINEARIZABLE,
        Verdict::Violation(..) => VIOLATION,
        Verdict::Undecided(..) => UNDECIDED,
    }
}

/// A verdict for people; several lines if it is a contradiction.
pub(crate) fn words(verdict: &Verdict, max_time: Duration) -> String {
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

/// A verdict for programs.
pub(crate) fn object(verdict: &Verdict) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_how_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("history");
        let svg = directory.path().join("out.svg");
        let put = r#"{"process":0,"type":"invoke","f":"put","key":"k","value":1,"time":1}
{"process":0,"type":"ok","f":"put","key":"k","value":1,"time":2}
{"process":0,"type":"invoke","f":"get","key":"k","value":null,"time":3}
"#;
        let got = |value| {
            format!("{put}{{\"process\":0,\"type\":\"ok\",\"f\":\"get\",\"key\":\"k\",\"value\":{value},\"time\":4}}")
        };
        let args = |max_time| CheckArgs {
            file: file.clone(),
            max_time: Duration::from_secs(max_time),
            svg: Some(svg.clone()),
            edn: false,
            jsonl: false,
        };
        let table = [
            ("", 60, LINEARIZABLE),
            (&got(1), 60, LINEARIZABLE),
            (&got(1), 0, UNDECIDED),
            (&format!("{put}nonsense"), 60, MALFORMED),
            ("{:process 0}", 60, MALFORMED),
        ];
        for (text, max_time, code) in table {
            std::fs::write(&file, text).unwrap();
            for as_json in [false, true] {
                assert_eq!(run(&args(max_time), as_json), code, "{text}");
            }
            assert!(!svg.exists());
        }
        std::fs::write(&file, got(2)).unwrap();
        assert_eq!(run(&args(60), false), VIOLATION);
        assert!(std::fs::read_to_string(&svg).unwrap().ends_with("</svg>\n"));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(run(&args(60), false), FILE);
    }
}
