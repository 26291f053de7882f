//! Fields of a part as one line for people: `name=value`, byte strings and long lists cut.

use crate::command::render::quote;
use serde_json::Value;

/// Bytes of a text, and members of a list, that are shown.
const TEXT_BYTES_MAX: usize = 64;
const LIST_MAX: usize = 16;

/// The members of an object, one behind the other.
pub(super) fn fields(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| format!("{name}={}", word(value)));
            members.collect::<Vec<String>>().join(" ")
        }
        other => word(other),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::String(text) => string(text),
        Value::Array(members) => {
            let mut words: Vec<String> = members.iter().take(LIST_MAX).map(word).collect();
            if members.len() > LIST_MAX {
                words.push(format!("… {} in all", members.len()));
            }
            format!("[{}]", words.join(", "))
        }
        Value::Object(_) => format!("{{{}}}", fields(value)),
        plain => plain.to_string(),
    }
}

/// Plain words stand bare, all else quoted.
fn string(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-/+=@".contains(&byte);
    if text.len() > TEXT_BYTES_MAX {
        let mut cut = TEXT_BYTES_MAX;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        return format!("{}… ({} bytes)", quote(&text.as_bytes()[..cut]), text.len());
    }
    if !text.is_empty() && text.bytes().all(is_plain) {
        text.into()
    } else {
        quote(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_shows_names_and_values_and_cuts_what_is_long() {
        let value = json!({
            "key": "color", "value": "light blue", "none": null, "list": [1, "2.3"], "object": { "slot": 9 },
        });
        let expected = r#"key=color value="light blue" none=none list=[1, 2.3] object={slot=9}"#;
        assert_eq!(fields(&value), expected);
        let long = json!({ "value": "é".repeat(100), "list": vec![0; 20] });
        let shown = fields(&long);
        assert!(
            shown.contains("… (200 bytes)") && shown.contains("… 20 in all"),
            "{shown}"
        );
    }
}
