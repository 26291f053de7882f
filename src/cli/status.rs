//! `synod status`: every endpoint is asked for its own status, at once; one row each.

use super::{Global, Output, exit};
use crate::client::probe;
use crate::console::print;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// A node that says nothing for so long is shown as silent.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

const COLUMNS: [&str; 13] = [
    "node", "address", "role", "leader", "ballot", "promised", "chosen", "applied", "lag", "revision", "peers up",
    "voter", "faults",
];

/// What one endpoint answered.
type Answer = Result<Value, String>;

/// Runs the command; returns the exit code.
///
/// # Errors
/// The operating system failed this process, or standard output cannot be written.
pub fn run(global: &Global) -> io::Result<u8> {
    let timeout = STATUS_TIMEOUT.min(global.timeout);
    let answers = probe::statuses(&global.endpoints, &global.options()?, timeout)?;
    let text = match global.output {
        Output::Json => format!("{}\n", as_json(&global.endpoints, &answers)),
        Output::Text => table(&rows(&global.endpoints, &answers)),
    };
    print(text.as_bytes())?;
    let is_any = answers.iter().any(Result::is_ok);
    Ok(if is_any { exit::DONE } else { exit::UNREACHABLE })
}

fn as_json(endpoints: &[String], answers: &[Answer]) -> Value {
    let nodes = endpoints.iter().zip(answers).map(|(endpoint, answer)| match answer {
        Ok(status) => json!({ "endpoint": endpoint, "status": status }),
        Err(error) => json!({ "endpoint": endpoint, "error": error }),
    });
    json!({ "nodes": nodes.collect::<Vec<_>>() })
}

fn rows(endpoints: &[String], answers: &[Answer]) -> Vec<Vec<String>> {
    let applied = |answer: &Answer| answer.as_ref().ok().and_then(|status| status["applied"].as_u64());
    let furthest = answers.iter().filter_map(applied).max().unwrap_or(0);
    let mut rows = vec![COLUMNS.map(String::from).to_vec()];
    rows.extend(endpoints.iter().zip(answers).map(|(endpoint, answer)| match answer {
        Ok(status) => row(endpoint, status, furthest),
        Err(error) => vec!["-".into(), endpoint.clone(), format!("no answer: {error}")],
    }));
    rows
}

fn row(endpoint: &str, status: &Value, furthest: u64) -> Vec<String> {
    let lag = status["applied"]
        .as_u64()
        .map(|applied| (furthest - applied).to_string());
    let voter = match &status["voter"] {
        Value::Bool(true) => "yes".to_string(),
        Value::Bool(false) => format!("no: {}", cell(&status["voter_reason"])),
        other => cell(other),
    };
    vec![
        cell(&status["id"]),
        endpoint.to_string(),
        cell(&status["role"]),
        cell(&status["leader"]),
        cell(&status["ballot"]),
        cell(&status["promised"]),
        cell(&status["chosen"]),
        cell(&status["applied"]),
        lag.unwrap_or_else(|| "-".into()),
        cell(&status["revision"]),
        cell(&status["peers_up"]),
        voter,
        cell(&status["faults"]),
    ]
}

/// A JSON value as it stands in a table.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => "-".into(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

/// Columns as wide as their widest cell; the last cell of a row may be wider.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter(|row| row.len() > column + 1)
            .map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = widths[column]));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_stand_in_a_table_and_a_silent_one_says_why() {
        let status = |id: u16, applied: u64| {
            json!({
                "id": id, "role": "follower", "leader": 1, "ballot": "3.1", "promised": "3.1", "chosen": 12,
                "applied": applied, "revision": 9, "peers_up": [1, 3], "voter": true, "voter_reason": null,
                "faults": []
            })
        };
        let endpoints = ["a:1", "b:22", "c:3"].map(String::from);
        let answers = [Ok(status(1, 12)), Ok(status(2, 10)), Err("no_endpoint".into())];
        let expected = "\
node  address  role      leader  ballot  promised  chosen  applied  lag  revision  peers up  voter  faults
1     a:1      follower  1       3.1     3.1       12      12       0    9         1,3       yes    -
2     b:22     follower  1       3.1     3.1       12      10       2    9         1,3       yes    -
-     c:3      no answer: no_endpoint
";
        assert_eq!(table(&rows(&endpoints, &answers)), expected);
        assert_eq!(as_json(&endpoints, &answers)["nodes"][2]["error"], "no_endpoint");
    }
}
