//! A contradiction as a picture: one row an operation, time from left to right, not to scale.

use super::Violation;
use crate::workload::history::{End, Function, Operation};
use serde_json::Value;
use std::fmt::{self, Write};

/// Rows shown; more are only counted.
const ROWS_MAX: usize = 40;
/// Columns of the picture in text.
const COLUMNS: usize = 60;
/// Longest value shown, characters.
const VALUE_CHARS_MAX: usize = 40;

/// An operation's bar: from the rank of its call among all moments of the picture to that of its end.
struct Row<'a> {
    operation: &'a Operation,
    needed: bool,
    from: usize,
    to: Option<usize>,
}

struct Picture<'a> {
    rows: Vec<Row<'a>>,
    moments: usize,
    left_out: usize,
}

impl<'a> Picture<'a> {
    fn new(violation: &'a Violation) -> Picture<'a> {
        let needed = violation.needed.iter().map(|operation| (operation, true));
        let aside = violation.aside.iter().map(|operation| (operation, false));
        let mut shown: Vec<_> = needed.chain(aside).collect();
        let left_out = shown.len().saturating_sub(ROWS_MAX);
        shown.truncate(ROWS_MAX);
        shown.sort_by_key(|(operation, _)| operation.invoked);
        let mut moments: Vec<u64> = shown
            .iter()
            .flat_map(|(operation, _)| [Some(operation.invoked), ended(operation)])
            .flatten()
            .collect();
        moments.sort_unstable();
        moments.dedup();
        let rank = |time| moments.partition_point(|moment| *moment < time);
        let rows = shown
            .iter()
            .map(|(operation, needed)| Row {
                operation,
                needed: *needed,
                from: rank(operation.invoked),
                to: ended(operation).map(rank),
            })
            .collect();
        Picture {
            rows,
            moments: moments.len(),
            left_out,
        }
    }
}

fn ended(operation: &Operation) -> Option<u64> {
    match operation.end {
        End::Ok { time, .. } => Some(time),
        End::Fail | End::Unknown => None,
    }
}

/// The text timeline of a violation.
pub(super) fn text(violation: &Violation, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let picture = Picture::new(violation);
    let width = (COLUMNS / picture.moments.max(1)).clamp(1, 6);
    let columns = picture.moments * width + 2;
    let label = |row: &Row<'_>| format!("process {}", row.operation.process);
    let margin = picture.rows.iter().map(|row| label(row).len()).max().unwrap_or(0);
    for row in &picture.rows {
        let mut bar = " ".repeat(row.from * width);
        let length = row.to.map_or(columns, |to| to * width + 1) - bar.len();
        bar.push('|');
        bar.push_str(&"-".repeat(length.saturating_sub(2)));
        bar.push(if row.to.is_some() { '|' } else { '>' });
        let mark = if row.needed { ' ' } else { '?' };
        writeln!(
            f,
            " {mark}{:margin$}  {bar:columns$} {}",
            label(row),
            words(row.operation)
        )?;
    }
    if picture.rows.iter().any(|row| !row.needed) {
        writeln!(
            f,
            " ? marks writes of these values that cannot explain it, whenever they took effect"
        )?;
    }
    if picture.left_out > 0 {
        writeln!(f, " and {} more", picture.left_out)?;
    }
    Ok(())
}

/// The picture of a violation as SVG.
pub(super) fn svg(violation: &Violation) -> String {
    const ROW: usize = 26;
    const STEP: usize = 40;
    let picture = Picture::new(violation);
    let bars = picture.moments * STEP + 20;
    let (width, height) = (120 + bars + 520, 60 + picture.rows.len() * ROW);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\">{}</text>\n",
        escaped(&format!(
            "key {}: these operations contradict each other",
            shown(&violation.key)
        ))
    );
    for (row, at) in picture.rows.iter().zip(0..) {
        let y = 40 + at * ROW;
        let x = 120 + row.from * STEP;
        let length = row.to.map_or(120 + bars, |to| 120 + to * STEP) - x;
        let fill = if row.needed { "#9ecae1" } else { "#dddddd" };
        let dash = if row.to.is_some() {
            ""
        } else {
            " stroke-dasharray=\"4\""
        };
        let text = escaped(&words(row.operation));
        // Writing into a string cannot fail.
        let _ = write!(
            out,
            "<text x=\"10\" y=\"{0}\">process {1}</text>\n\
             <rect x=\"{x}\" y=\"{y}\" width=\"{2}\" height=\"18\" fill=\"{fill}\" stroke=\"#333333\"{dash}/>\n\
             <text x=\"{3}\" y=\"{0}\">{text}</text>\n",
            y + 14,
            row.operation.process,
            length.max(8),
            130 + bars,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// An operation with its result and times, as in `get = "a"  [10 .. 20]`.
fn words(operation: &Operation) -> String {
    let argument = &operation.argument;
    let what = match operation.function {
        Function::Put => format!("put {}", shown(argument)),
        Function::Get => "get".to_owned(),
        Function::Delete => "delete".to_owned(),
        Function::Cas => match argument.as_array().map(Vec::as_slice) {
            Some([expected, new]) => format!("cas {} to {}", shown(expected), shown(new)),
            _ => format!("cas {}", shown(argument)),
        },
    };
    match &operation.end {
        End::Ok { value, time } => {
            let result = match operation.function {
                Function::Put => "ok".to_owned(),
                Function::Get | Function::Delete | Function::Cas => shown(value),
            };
            format!("{what} = {result}  [{} .. {time}]", operation.invoked)
        }
        End::Fail => format!("{what} failed  [{} ..]", operation.invoked),
        End::Unknown => format!("{what} = ?  [{} ..]", operation.invoked),
    }
}

/// A value, cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // XML has no way to say most control characters.
    text.replace(|c: char| c.is_control(), "?")
}
