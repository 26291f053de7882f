//! Lines as words, each with its place.
//!
//! Words are those of a shell, as [`crate::command::split_line`] splits a line of the debug port; here each word also
//! knows its column, so that an error can name it. Quotes group words; they do not stop `$name` (`$$` is a dollar).

use super::error::{Position, ScriptError, Trouble};
use std::iter::Peekable;
use std::str::Chars;

/// A word of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) at: Position,
}

/// The words of a line; none if it is blank or a comment.
pub(super) fn words(line: &str, number: u32) -> Result<Vec<Word>, ScriptError> {
    let mut lexer = Lexer {
        rest: line.chars().peekable(),
        at: Position {
            line: number,
            column: 1,
        },
    };
    let mut words = Vec::new();
    while let Some(word) = lexer.word()? {
        words.push(word);
    }
    Ok(words)
}

struct Lexer<'a> {
    rest: Peekable<Chars<'a>>,
    at: Position,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.at.column += u32::from(next.is_some());
        next
    }

    fn word(&mut self) -> Result<Option<Word>, ScriptError> {
        while self.rest.next_if(|c| is_blank(*c)).is_some() {
            self.at.column += 1;
        }
        let at = self.at;
        if matches!(self.rest.peek(), None | Some('#')) {
            return Ok(None);
        }
        let mut text = String::new();
        while let Some(next) = self.rest.peek().copied().filter(|c| !is_blank(*c)) {
            let quote = self.at;
            self.bump();
            match next {
                '\'' => self.single_quoted(quote, &mut text)?,
                '"' => self.double_quoted(quote, &mut text)?,
                '\\' => text.push(self.bump().ok_or(ScriptError::new(quote, Trouble::Quotes))?),
                other => text.push(other),
            }
        }
        Ok(Some(Word { text, at }))
    }

    fn single_quoted(&mut self, quote: Position, text: &mut String) -> Result<(), ScriptError> {
        loop {
            match self.bump() {
                None => return Err(ScriptError::new(quote, Trouble::Quotes)),
                Some('\'') => return Ok(()),
                Some(other) => text.push(other),
            }
        }
    }

    fn double_quoted(&mut self, quote: Position, text: &mut String) -> Result<(), ScriptError> {
        loop {
            match self.bump() {
                None => return Err(ScriptError::new(quote, Trouble::Quotes)),
                Some('"') => return Ok(()),
                Some('\\') => match self.bump() {
                    None => return Err(ScriptError::new(quote, Trouble::Quotes)),
                    Some(escaped @ ('$' | '`' | '"' | '\\')) => text.push(escaped),
                    Some(other) => text.extend(['\\', other]),
                },
                Some(other) => text.push(other),
            }
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::split_line;
    use proptest::prelude::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        let words = words(line, 1).ok()?;
        Some(words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn words_know_their_column() {
        let words = words("  put  'my key' grün # why not", 7).unwrap();
        let seen: Vec<_> = words
            .iter()
            .map(|word| (word.text.as_str(), word.at.line, word.at.column))
            .collect();
        assert_eq!(seen, [("put", 7, 3), ("my key", 7, 8), ("grün", 7, 17)]);
    }

    #[test]
    fn an_open_quote_is_named_by_its_place() {
        for (line, column) in [("put 'k v", 5), ("put k \"v", 7), ("put k\\", 6)] {
            let error = words(line, 2).unwrap_err();
            assert_eq!((error.at.column, error.trouble), (column, Trouble::Quotes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn words_are_those_of_the_debug_port(line in r#"[a-c$# "'\\]{0,24}"#) {
            let others = split_line(line.as_bytes()).ok();
            let others = others.map(|words| words.into_iter().map(|word| word.into_string().unwrap()).collect());
            prop_assert_eq!(texts(&line), others);
        }
    }
}
