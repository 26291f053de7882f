//! Words with `$names` in them, filled in when a command runs.

use super::error::{Position, ScriptError, Trouble};
use bytes::Bytes;

/// A piece of a [`Template`]. Numbers are places in the program's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands for itself.
    Text(Bytes),
    /// What the variable holds.
    Variable(usize),
    /// A key, drawn anew at each use.
    Key(usize),
    /// The key behind the last of its space, which thereby grows.
    NextKey(usize),
    /// A value that no other use gets.
    Value(usize),
    /// The client's name.
    Client,
    /// Which copy of its client this is, from 1.
    Copy,
    /// Rounds that the innermost loop has begun, from 1.
    Round,
}

/// A word with names to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// In order; put together they are the word.
    pub parts: Vec<Part>,
}

/// A piece of a word, before names mean anything.
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

impl Template {
    /// Reads a word. `resolve` says what a name means: `None` if nothing.
    pub(super) fn parse(
        word: &str,
        at: Position,
        mut resolve: impl FnMut(&str) -> Option<Part>,
    ) -> Result<Template, ScriptError> {
        let mut parts = Vec::new();
        for piece in pieces(word) {
            match piece {
                Piece::Text(text) => parts.push(Part::Text(Bytes::copy_from_slice(text.as_bytes()))),
                Piece::Name(name) => parts.push(resolve(name).ok_or_else(|| {
                    let trouble = Trouble::UnknownName {
                        name: name.to_owned(),
                        kind: "parameter, variable, keys or values",
                    };
                    ScriptError::new(at, trouble)
                })?),
            }
        }
        Ok(Template { parts })
    }

    /// The variable that this is and nothing else.
    pub fn as_variable(&self) -> Option<usize> {
        match self.parts.as_slice() {
            [Part::Variable(slot)] => Some(*slot),
            _ => None,
        }
    }
}

/// Puts parameters in for their names; other names stay, for later.
pub(super) fn substitute(word: &str, parameter: impl Fn(&str) -> Option<String>) -> String {
    if !word.contains('$') {
        return word.to_owned();
    }
    let mut out = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(dollar) = rest.find('$') {
        let (before, from_dollar) = rest.split_at(dollar);
        out.push_str(before);
        let (name, len) = name_at(from_dollar);
        match name.and_then(&parameter) {
            Some(value) => out.push_str(&value),
            None => out.push_str(&from_dollar[..len]),
        }
        rest = &from_dollar[len..];
    }
    out.push_str(rest);
    out
}

/// The name behind a dollar, and how long dollar and name are. `$$` and a lone dollar have none.
fn name_at(from_dollar: &str) -> (Option<&str>, usize) {
    let rest = &from_dollar[1..];
    if rest.starts_with('$') {
        return (None, 2);
    }
    if let Some(inner) = rest.strip_prefix('{') {
        return match inner.find('}') {
            Some(end) => (Some(&inner[..end]), end + 3),
            None => (None, 1),
        };
    }
    let mut end = name_len(rest);
    if end == 0 {
        return (None, 1);
    }
    // `$k.next` is a name too; `$k.txt` is a key and a text behind it.
    if let Some(suffix) = rest[end..].strip_prefix(".next")
        && name_len(suffix) == 0
    {
        end += ".next".len();
    }
    (Some(&rest[..end]), end + 1)
}

fn name_len(text: &str) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match text.chars().next() {
        Some(first) if is_part(first) && !first.is_ascii_digit() => {
            text.find(|c: char| !is_part(c)).unwrap_or(text.len())
        }
        _ => 0,
    }
}

/// Whether a word can name something.
pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty() && name_len(word) == word.len()
}

fn pieces(word: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some(dollar) = rest.find('$') {
        let (before, from_dollar) = rest.split_at(dollar);
        let (name, len) = name_at(from_dollar);
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(name.map_or(Piece::Text("$"), Piece::Name));
        rest = &from_dollar[len..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(word: &str) -> String {
        let shown = pieces(word).into_iter().map(|piece| match piece {
            Piece::Text(text) => format!("[{text}]"),
            Piece::Name(name) => format!("<{name}>"),
        });
        shown.collect()
    }

    #[test]
    fn names_are_found_in_words() {
        for (word, expected) in [
            ("plain", "[plain]"),
            ("", ""),
            ("$a", "<a>"),
            ("x$a.b", "[x]<a>[.b]"),
            ("$k.next", "<k.next>"),
            ("$k.nextone", "<k>[.nextone]"),
            ("${a}b", "<a>[b]"),
            ("${k.next}1", "<k.next>[1]"),
            ("$$a", "[$][a]"),
            ("5$", "[5][$]"),
            ("$5", "[$][5]"),
            ("${a", "[$][{a]"),
            ("$a$b", "<a><b>"),
        ] {
            assert_eq!(shown(word), expected, "{word}");
        }
    }

    #[test]
    fn parameters_go_in_and_other_names_stay() {
        let parameter = |name: &str| (name == "n").then(|| "16".to_owned());
        assert_eq!(substitute("$n-${n}x$k$$n$", parameter), "16-16x$k$$n$");
    }
}
