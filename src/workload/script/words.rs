//! Words behind a verb, read as what they should be; what is not is named with its place.

use super::error::{Position, ScriptError, Trouble};
use super::lexer::Word;
use crate::paxos::NodeId;
use crate::units::parse_duration;
use std::time::Duration;

/// A statement that is not written as it should be.
pub(super) fn usage(at: Position, usage: &'static str) -> ScriptError {
    ScriptError::new(at, Trouble::Usage { usage })
}

/// A statement where it may not stand.
pub(super) fn misplaced(verb: &'static str, at: Position, belongs: &'static str) -> ScriptError {
    ScriptError::new(at, Trouble::Misplaced { verb, belongs })
}

/// The one word behind a verb.
pub(super) fn one<'w>(at: Position, rest: &'w [Word], form: &'static str) -> Result<&'w Word, ScriptError> {
    match rest {
        [word] => Ok(word),
        _ => Err(usage(at, form)),
    }
}

/// Nothing may stand behind a verb.
pub(super) fn none(at: Position, rest: &[Word], form: &'static str) -> Result<(), ScriptError> {
    match rest {
        [] => Ok(()),
        [..] => Err(usage(at, form)),
    }
}

/// A whole number within bounds.
pub(super) fn number(word: &Word, min: u64, max: u64) -> Result<u64, ScriptError> {
    let parsed = word.text.parse().ok().filter(|number| (min..=max).contains(number));
    parsed.ok_or_else(|| {
        let word_text = word.text.clone();
        let trouble = Trouble::Number {
            word: word_text,
            min,
            max,
        };
        ScriptError::new(word.at, trouble)
    })
}

/// A duration with its unit.
pub(super) fn duration(word: &Word) -> Result<Duration, ScriptError> {
    parse_duration(&word.text).map_err(|error| ScriptError::new(word.at, Trouble::Unit(error)))
}

/// The id of a node.
pub(super) fn node(word: &Word) -> Result<NodeId, ScriptError> {
    let id = number(word, 1, u64::from(u16::MAX))?;
    Ok(NodeId(u16::try_from(id).expect("checked against the bound")))
}
