//! Replies: data lines or one line of JSON, then the one line that begins with `OK` or `ERR`.
//!
//! A view is a JSON object; its text is made from it, so both show the same. A field is a line `name value`; a list of
//! objects is a line for each, `row-name first-value name=value …`. No name begins with `OK` or `ERR`, and no value
//! holds a line break: so only the last line of a reply can be taken for its end.

use crate::command::render::quote;
use serde_json::{Map, Value};

/// What stands for "there is none" in text; `null` or an empty list in JSON.
const NONE: &str = "none";

/// Appends a view, as text or as one line of JSON.
pub(super) fn show(out: &mut Vec<u8>, json: bool, view: &Value) {
    if json {
        return push_line(out, &view.to_string());
    }
    let Value::Object(fields) = view else { return };
    for (name, value) in fields {
        show_field(out, name, value);
    }
}

/// `OK`, and words behind it if there are any.
pub(super) fn ok(out: &mut Vec<u8>, words: &str) {
    match words {
        "" => push_line(out, "OK"),
        words => push_line(out, &format!("OK {words}")),
    }
}

/// `ERR`, a code of one word, and words for a person.
pub(super) fn err(out: &mut Vec<u8>, code: &str, words: &str) {
    match words {
        "" => push_line(out, &format!("ERR {code}")),
        words => push_line(out, &format!("ERR {code} {words}")),
    }
}

/// Appends one line. Whatever in it does not print is escaped: it stays one line.
pub(super) fn push_line(out: &mut Vec<u8>, line: &str) {
    if line.contains(char::is_control) {
        let escaped: String = line
            .chars()
            .flat_map(|character| match character {
                character if character.is_control() => character.escape_default().collect::<Vec<char>>(),
                character => vec![character],
            })
            .collect();
        out.extend_from_slice(escaped.as_bytes());
    } else {
        out.extend_from_slice(line.as_bytes());
    }
    out.push(b'\n');
}

fn show_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    let Value::Array(items) = value else {
        return push_line(out, &format!("{name} {}", word(value)));
    };
    if items.is_empty() {
        return push_line(out, &format!("{name} {NONE}"));
    }
    if !items.iter().all(Value::is_object) {
        let words: Vec<String> = items.iter().map(word).collect();
        return push_line(out, &format!("{name} {}", words.join(" ")));
    }
    let row_name = name.strip_suffix('s').unwrap_or(name);
    for row in items.iter().filter_map(Value::as_object) {
        push_line(out, &format!("{row_name} {}", row_text(row)));
    }
}

/// The first field is the row's own name, so its value stands alone.
fn row_text(row: &Map<String, Value>) -> String {
    let fields = row.iter().enumerate().map(|(place, (name, value))| match place {
        0 => word(value),
        _ => format!("{name}={}", word(value)),
    });
    fields.collect::<Vec<String>>().join(" ")
}

/// A value in one word: text stands as it is if it is a plain word, else quoted.
fn word(value: &Value) -> String {
    match value {
        Value::Null => NONE.into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(text) => text_word(text),
        Value::Array(items) if items.is_empty() => NONE.into(),
        Value::Array(items) => {
            let bare = items
                .iter()
                .map(|item| item.as_str().map_or_else(|| word(item), String::from));
            text_word(&bare.collect::<Vec<String>>().join(","))
        }
        Value::Object(_) => quote(value.to_string().as_bytes()),
    }
}

fn text_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/,+-%@=[]".contains(&byte);
    if text.is_empty() || text == NONE || !text.bytes().all(is_plain) {
        quote(text.as_bytes())
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(view: &Value) -> String {
        let mut out = Vec::new();
        show(&mut out, false, view);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_view_is_lines_of_names_and_values() {
        let view = json!({
            "role": "leader",
            "leader": 2,
            "ballot": null,
            "peers_up": [1, 3],
            "faults": ["isolate 10s, 9s left"],
            "waits_for": [],
            "reason": "a b\n\"c\"",
            "peers": [{"id": 2, "up": true, "address": "127.0.0.1:7002", "votes": [1, 2], "ops": ["put \"k\""]}],
        });
        let expected = "role leader\nleader 2\nballot none\npeers_up 1 3\nfaults \"isolate 10s, 9s left\"\n\
                        waits_for none\nreason \"a b\\x0a\\\"c\\\"\"\n\
                        peer 2 up=true address=127.0.0.1:7002 votes=1,2 ops=\"put \\\"k\\\"\"\n";
        assert_eq!(text(&view), expected);
    }

    #[test]
    fn json_is_one_line_whatever_it_holds() {
        let mut out = Vec::new();
        show(&mut out, true, &json!({ "reason": "a\nOK\u{7f}" }));
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        ok(&mut out, "");
        err(&mut out, "no_leader", "line\nbreak");
        assert!(out.ends_with(b"OK\nERR no_leader line\\nbreak\n"), "{out:?}");
    }
}
