//! Why a script is refused, and where.

use crate::command::ParseError;
use crate::units::UnitError;
use std::fmt;

/// A place in a script: line and column, each from 1; a column is one character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// A script that is refused; nothing of it was run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// Where.
    pub at: Position,
    /// Why.
    pub trouble: Trouble,
}

/// Why a script is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The file is no UTF-8.
    NotText,
    /// A quote is not closed, or the line ends in a backslash.
    Quotes,
    /// The first word of a line is no verb.
    UnknownVerb {
        /// The word.
        verb: String,
    },
    /// A command of the data or a fault is not as it should be.
    Command(ParseError),
    /// A statement is not as it should be.
    Usage {
        /// How it is written.
        usage: &'static str,
    },
    /// A number that is none, or outside its bounds.
    Number {
        /// What was written.
        word: String,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A duration that is none.
    Unit(UnitError),
    /// A name that cannot be one.
    BadName {
        /// What was written.
        word: String,
    },
    /// A name that is given twice.
    NameTaken {
        /// Which.
        name: String,
    },
    /// A `$name` that nothing above defines.
    UnknownName {
        /// Which.
        name: String,
        /// What it should name.
        kind: &'static str,
    },
    /// A parameter from outside that the script does not have.
    UnknownParameter {
        /// Which.
        name: String,
    },
    /// Nothing that an `expect` knows.
    UnknownExpectation {
        /// The word.
        word: String,
    },
    /// A statement where it may not stand.
    Misplaced {
        /// Its verb.
        verb: &'static str,
        /// Where it belongs.
        belongs: &'static str,
    },
    /// An `end` too many.
    NothingToEnd,
    /// A block that is not closed.
    NotEnded {
        /// Its verb.
        verb: &'static str,
    },
    /// A mix without arms.
    EmptyMix,
    /// More places than one process can drive.
    TooManyPlaces {
        /// How many the script asks for.
        wanted: u64,
        /// How many there may be.
        max: u64,
    },
    /// The operation cannot stand in a history.
    NotForHistory {
        /// Why.
        why: &'static str,
    },
    /// `kill` or `start` without a cluster to act on.
    NoCluster,
}

impl ScriptError {
    /// An error at a place.
    pub(super) fn new(at: Position, trouble: Trouble) -> ScriptError {
        ScriptError { at, trouble }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Position 0 is outside the script: what the command line said of it.
        if self.at.line == 0 {
            return self.trouble.fmt(f);
        }
        write!(f, "{}: {}", self.at, self.trouble)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NotText => write!(f, "not UTF-8"),
            Trouble::Quotes => write!(f, "a quote is not closed, or the line ends in a backslash"),
            Trouble::UnknownVerb { verb } => write!(f, "unknown verb `{verb}`; verbs are {}", super::VERBS.join(", ")),
            Trouble::Command(error) => error.fmt(f),
            Trouble::Usage { usage } => write!(f, "write it as: {usage}"),
            Trouble::Number { word, min, max } => write!(f, "`{word}` is not a whole number from {min} to {max}"),
            Trouble::Unit(error) => error.fmt(f),
            Trouble::BadName { word } => {
                write!(
                    f,
                    "`{word}` is no name: letters, digits and `_`, not beginning with a digit"
                )
            }
            Trouble::NameTaken { name } => write!(f, "`{name}` is named already"),
            Trouble::UnknownName { name, kind } => write!(f, "no {kind} is named `{name}` above this line"),
            Trouble::UnknownParameter { name } => write!(f, "the script has no `param {name}`"),
            Trouble::UnknownExpectation { word } => write!(
                f,
                "`{word}` is nothing to expect: a class (done, not_done, unknown), an answer (ok, no, absent, found, \
                 written, exists, not_found, cas_failed), the name of an error, `value [<] TEXT`, or of the whole run \
                 `[get] p99 < 50ms`, `unknown < 20`"
            ),
            Trouble::Misplaced { verb, belongs } => write!(f, "`{verb}` belongs {belongs}"),
            Trouble::NothingToEnd => write!(f, "`end`, but no block is open"),
            Trouble::NotEnded { verb } => write!(f, "this `{verb}` has no `end`"),
            Trouble::EmptyMix => write!(f, "a mix needs at least one line `WEIGHT COMMAND`"),
            Trouble::TooManyPlaces { wanted, max } => {
                write!(f, "{wanted} clients times pipeline in all, and there may be {max}")
            }
            Trouble::NotForHistory { why } => write!(f, "this cannot stand in a history: {why}"),
            Trouble::NoCluster => write!(
                f,
                "`kill` and `start` need the script to run under `synod cluster`, which owns the nodes' processes"
            ),
        }
    }
}

impl std::error::Error for ScriptError {}
