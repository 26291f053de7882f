//! Answers as people and programs read them: lines of `name value`, and JSON.
//!
//! Bytes stand quoted in text, with what does not print escaped, so no line of data can be taken for the `OK` or `ERR`
//! that ends a reply of the debug port. In JSON a value that is UTF-8 stands as text under its name, any other as base64
//! under the name with `_base64` behind it.

use crate::kv::{Answer, Done, Previous, Versioned};
use crate::wire::Served;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// `bytes` in double quotes; quotes and backslashes escaped, what does not print as `\xNN`.
pub fn quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                character if prints(character) => text.push(character),
                character => escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut text),
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text.push('"');
    text
}

/// Whether a character shows itself and nothing else: no control, no line or paragraph break, no change of direction.
fn prints(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        write!(text, "\\x{byte:02x}").expect("a String takes every write");
    }
}

/// Puts `bytes` into a JSON object: as text under `name`, or as base64 under `name_base64`.
pub fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// The answer's name: `written`, `found`, or one of the three that say no.
pub fn answer_name(served: &Served) -> &'static str {
    match served {
        Served::Done(done) => match done.answer {
            Answer::Opened { .. } => "opened",
            Answer::Closed => "closed",
            Answer::Written { .. } => "written",
            Answer::Exists { .. } => "exists",
            Answer::NotFound => "not_found",
            Answer::CasFailed { .. } => "cas_failed",
            Answer::Found(_) => "found",
        },
        Served::Stale { found: Some(_), .. } => "found",
        Served::Stale { found: None, .. } => "not_found",
        Served::Status(_) => "status",
    }
}

/// Whether the answer is no: done, but nothing there, something there, or something else there.
pub fn is_no(served: &Served) -> bool {
    matches!(answer_name(served), "exists" | "not_found" | "cas_failed")
}

/// The answer as lines of `name value`, values quoted; what the debug port says before its `OK` or `ERR`.
pub fn lines(served: &Served) -> Vec<String> {
    match served {
        Served::Done(Done { slot, revision, answer }) => {
            let mut lines = answer_lines(answer);
            lines.push(format!("slot {slot}"));
            lines.push(format!("revision {revision}"));
            lines
        }
        Served::Stale {
            slot,
            revision,
            age_ms,
            found,
        } => {
            let mut lines = found
                .as_ref()
                .map_or_else(Vec::new, |found| versioned_lines("value", found));
            lines.push(format!("slot {slot}"));
            lines.push(format!("revision {revision}"));
            lines.push(match age_ms {
                &u32::MAX => "age_ms unknown".into(),
                age_ms => format!("age_ms {age_ms}"),
            });
            lines
        }
        Served::Status(text) => vec![text.clone()],
    }
}

fn answer_lines(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Opened { opened } => vec![format!("opened {opened}")],
        Answer::Closed | Answer::NotFound => Vec::new(),
        Answer::Written { previous } => match previous {
            Previous::NotAsked => Vec::new(),
            Previous::Absent => vec!["previous absent".into()],
            Previous::Was(was) => versioned_lines("previous", was),
        },
        Answer::Exists { current } => versioned_lines("current", current),
        Answer::CasFailed { current: None } => vec!["current absent".into()],
        Answer::CasFailed { current: Some(current) } => versioned_lines("current", current),
        Answer::Found(found) => versioned_lines("value", found),
    }
}

fn versioned_lines(name: &str, versioned: &Versioned) -> Vec<String> {
    vec![
        format!("{name} {}", quote(&versioned.value)),
        format!("version {}", versioned.version),
        format!("created {}", versioned.created),
    ]
}

/// The answer as a JSON object; a status is the object that the node sent.
pub fn json(served: &Served) -> Value {
    let mut object = Map::new();
    object.insert("outcome".into(), "done".into());
    object.insert("answer".into(), answer_name(served).into());
    match served {
        Served::Done(done) => {
            put_answer(&mut object, &done.answer);
            object.insert("slot".into(), done.slot.0.into());
            object.insert("revision".into(), done.revision.into());
        }
        Served::Stale {
            slot,
            revision,
            age_ms,
            found,
        } => {
            if let Some(found) = found {
                put_versioned(&mut object, found);
            }
            object.insert("slot".into(), slot.0.into());
            object.insert("revision".into(), (*revision).into());
            object.insert("stale".into(), true.into());
            let age = (*age_ms != u32::MAX).then_some(*age_ms);
            object.insert("age_ms".into(), json!(age));
        }
        Served::Status(text) => return serde_json::from_str(text).unwrap_or_else(|_| json!({ "text": text })),
    }
    Value::Object(object)
}

fn put_answer(object: &mut Map<String, Value>, answer: &Answer) {
    match answer {
        Answer::Opened { opened } => {
            object.insert("opened".into(), opened.0.into());
        }
        Answer::Written {
            previous: Previous::NotAsked,
        }
        | Answer::Closed
        | Answer::NotFound => {}
        Answer::Written {
            previous: Previous::Absent,
        } => {
            object.insert("previous".into(), Value::Null);
        }
        Answer::Written {
            previous: Previous::Was(was),
        } => {
            object.insert("previous".into(), versioned_json(was));
        }
        Answer::Exists { current } => {
            object.insert("current".into(), versioned_json(current));
        }
        Answer::CasFailed { current } => {
            let current = current.as_ref().map_or(Value::Null, versioned_json);
            object.insert("current".into(), current);
        }
        Answer::Found(found) => put_versioned(object, found),
    }
}

fn put_versioned(object: &mut Map<String, Value>, versioned: &Versioned) {
    put_bytes(object, "value", &versioned.value);
    object.insert("version".into(), versioned.version.into());
    object.insert("created".into(), versioned.created.into());
}

fn versioned_json(versioned: &Versioned) -> Value {
    let mut object = Map::new();
    put_versioned(&mut object, versioned);
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::Slot;
    use bytes::Bytes;

    fn found(value: &'static [u8]) -> Served {
        Served::Done(Done {
            slot: Slot(7),
            revision: 5,
            answer: Answer::Found(Versioned {
                value: Bytes::from_static(value),
                created: 3,
                version: 4,
            }),
        })
    }

    #[test]
    fn bytes_are_quoted_so_that_no_line_breaks_out() {
        for (bytes, text) in [
            (&b"blue"[..], r#""blue""#),
            (b"", r#""""#),
            (b"a\nOK", r#""a\x0aOK""#),
            (b"\"\\", r#""\"\\""#),
            (b"\xff\x00", r#""\xff\x00""#),
            ("grün".as_bytes(), "\"grün\""),
            ("\u{202e}".as_bytes(), r#""\xe2\x80\xae""#),
        ] {
            assert_eq!(quote(bytes), text);
        }
    }

    #[test]
    fn text_stands_as_text_and_other_bytes_as_marked_base64() {
        assert_eq!(
            json(&found(b"blue")).to_string(),
            r#"{"outcome":"done","answer":"found","value":"blue","version":4,"created":3,"slot":7,"revision":5}"#
        );
        assert_eq!(json(&found(b"\xff\x01"))["value_base64"], "/wE=");
        assert_eq!(json(&found(b"\xff\x01"))["value"], Value::Null);
    }

    #[test]
    fn no_is_an_answer() {
        assert!(!is_no(&found(b"x")));
        let served = Served::Done(Done {
            slot: Slot(7),
            revision: 5,
            answer: Answer::CasFailed { current: None },
        });
        assert!(is_no(&served));
        assert_eq!(lines(&served), ["current absent", "slot 7", "revision 5"]);
        assert_eq!(json(&served)["current"], Value::Null);
    }

    #[test]
    fn a_stale_answer_says_how_old_it_may_be() {
        let stale = |age_ms| Served::Stale {
            slot: Slot(7),
            revision: 5,
            age_ms,
            found: None,
        };
        assert_eq!(lines(&stale(40))[2], "age_ms 40");
        assert_eq!(json(&stale(40))["age_ms"], 40);
        assert_eq!(json(&stale(u32::MAX))["age_ms"], Value::Null);
    }
}
