//! The one set of command definitions of command line, debug port and workload scripts.
//!
//! A command is defined once, as a clap type. The command line flattens it into its own commands; the debug port and
//! the scripts split a line into words as a shell does and hand the words to the same definition. Sizes are checked
//! here, so a key that is too long is named before anything is sent.
//!
//! * [`DataCommand`]: `put`, `get`, `del`, `cas`. [`fault`]: what breaks a node on purpose.
//! * [`render`]: answers as lines of text and as JSON.

pub mod fault;
pub mod render;

pub use fault::{AcceptorFailures, FaultCommand};

use crate::kv::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::kv::{Expect, Op};
use crate::paxos::{NodeId, Slot};
use crate::wire::RequestOp;
use bytes::Bytes;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgGroup, Parser, Subcommand};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// A command on the data, as every tool reads it.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum DataCommand {
    /// Set KEY to VALUE
    Put {
        /// 1 to 1024 bytes
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        key: Bytes,
        /// At most 1 MiB; on the command line `-` reads standard input and `@FILE` a file
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        value: Bytes,
        /// Only if the key is absent; else the answer is no
        #[arg(long)]
        if_absent: bool,
        /// Show what was there before
        #[arg(long)]
        prev: bool,
    },
    /// Show the value of KEY
    Get {
        /// 1 to 1024 bytes
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        key: Bytes,
        /// Read what the node that answers has, however old; the answer says how old it may be
        #[arg(long)]
        stale: bool,
        /// With --stale: wait until that node has applied this slot
        #[arg(long, value_name = "SLOT", requires = "stale")]
        at_least: Option<u64>,
    },
    /// Remove KEY
    Del {
        /// 1 to 1024 bytes
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        key: Bytes,
        /// Show what was there before
        #[arg(long)]
        prev: bool,
    },
    /// Set KEY to NEW if it holds what is expected
    #[command(group(ArgGroup::new("expected").required(true).args(["old", "version"])))]
    Cas {
        /// 1 to 1024 bytes
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        key: Bytes,
        /// Expect this value
        #[arg(long, value_name = "VALUE", value_parser = word(), allow_hyphen_values = true)]
        old: Option<Bytes>,
        /// Expect this version: the revision of the key's last change
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// At most 1 MiB; on the command line `-` reads standard input and `@FILE` a file
        #[arg(value_parser = word(), allow_hyphen_values = true)]
        new: Bytes,
        /// Show what was there before
        #[arg(long)]
        prev: bool,
    },
}

/// A line of the debug port or of a script that holds one [`DataCommand`].
#[derive(Debug, Parser)]
#[command(
    name = "line",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
#[command(disable_version_flag = true)]
struct Line {
    #[command(subcommand)]
    command: DataCommand,
}

/// Why words are not a command. Each is said in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// No words at all.
    Empty,
    /// A quote is not closed, or the line ends in a backslash.
    Quotes,
    /// The first word is no command.
    UnknownCommand {
        /// The word.
        verb: String,
    },
    /// A word is missing, left over or no value of its kind.
    Usage {
        /// What is wrong, in one line.
        message: String,
    },
    /// A key of no bytes.
    EmptyKey,
    /// A key above its limit.
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value above its limit.
    ValueTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl ParseError {
    /// A name of one word, as the debug port says it behind `ERR`.
    pub fn code(&self) -> &'static str {
        match self {
            ParseError::UnknownCommand { .. } => "unknown_command",
            ParseError::KeyTooLong { .. } | ParseError::ValueTooLong { .. } => "too_large",
            ParseError::Empty | ParseError::Quotes | ParseError::Usage { .. } | ParseError::EmptyKey => "bad_request",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseError::Empty => write!(f, "no command"),
            ParseError::Quotes => write!(f, "a quote is not closed, or the line ends in a backslash"),
            ParseError::UnknownCommand { verb } => {
                write!(f, "unknown command {}", render::quote(verb.as_bytes()))
            }
            ParseError::Usage { message } => f.write_str(message),
            ParseError::EmptyKey => write!(f, "the key is empty: a key has 1 to {KEY_BYTES_MAX} bytes"),
            ParseError::KeyTooLong { bytes } => {
                write!(f, "the key has {bytes} bytes: a key has 1 to {KEY_BYTES_MAX}")
            }
            ParseError::ValueTooLong { bytes } => {
                write!(f, "the value has {bytes} bytes: a value has at most {VALUE_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for ParseError {}

/// The words that begin a [`DataCommand`].
pub const DATA_VERBS: [&str; 4] = ["put", "get", "del", "cas"];

/// Splits a line into words as a shell does: quotes, backslashes, and `#` for a comment.
///
/// # Errors
/// [`ParseError::Quotes`] if a quote is not closed.
pub fn split_line(line: &[u8]) -> Result<Vec<OsString>, ParseError> {
    let words = shlex::bytes::split(line).ok_or(ParseError::Quotes)?;
    Ok(words.into_iter().map(OsString::from_vec).collect())
}

/// Reads one line as a [`DataCommand`].
///
/// # Errors
/// [`ParseError`], one line each.
pub fn parse_line(line: &str) -> Result<DataCommand, ParseError> {
    DataCommand::from_words(&split_line(line.as_bytes())?)
}

impl DataCommand {
    /// Reads words as a command; sizes are checked.
    ///
    /// # Errors
    /// [`ParseError`], one line each.
    pub fn from_words(words: &[OsString]) -> Result<DataCommand, ParseError> {
        let verb = words.first().ok_or(ParseError::Empty)?;
        if !DATA_VERBS.iter().any(|known| verb == known) {
            return Err(ParseError::UnknownCommand {
                verb: verb.to_string_lossy().into_owned(),
            });
        }
        let command = Line::try_parse_from(words).map_err(|error| usage(&error))?.command;
        command.check_sizes()?;
        Ok(command)
    }

    /// The command's name.
    pub fn verb(&self) -> &'static str {
        match self {
            DataCommand::Put { .. } => "put",
            DataCommand::Get { .. } => "get",
            DataCommand::Del { .. } => "del",
            DataCommand::Cas { .. } => "cas",
        }
    }

    /// The key that it is about.
    pub fn key(&self) -> &Bytes {
        match self {
            DataCommand::Put { key, .. }
            | DataCommand::Get { key, .. }
            | DataCommand::Del { key, .. }
            | DataCommand::Cas { key, .. } => key,
        }
    }

    /// The value that the command writes, for whoever has to replace a name of a value by the value.
    pub fn new_value_mut(&mut self) -> Option<&mut Bytes> {
        match self {
            DataCommand::Put { value, .. } => Some(value),
            DataCommand::Cas { new, .. } => Some(new),
            DataCommand::Get { .. } | DataCommand::Del { .. } => None,
        }
    }

    /// What goes over the wire.
    ///
    /// # Errors
    /// [`ParseError`] if a key or a value is outside its limits.
    pub fn into_request_op(self) -> Result<RequestOp, ParseError> {
        self.check_sizes()?;
        Ok(match self {
            DataCommand::Put {
                key,
                value,
                if_absent,
                prev,
            } => RequestOp::Write(Op::Put {
                key,
                value,
                if_absent,
                want_previous: prev,
            }),
            DataCommand::Get { key, stale: false, .. } => RequestOp::Get { key },
            DataCommand::Get { key, at_least, .. } => RequestOp::GetStale {
                key,
                at_least: Slot(at_least.unwrap_or(0)),
            },
            DataCommand::Del { key, prev } => RequestOp::Write(Op::Del {
                key,
                want_previous: prev,
            }),
            DataCommand::Cas {
                key,
                old,
                version,
                new,
                prev,
            } => RequestOp::Write(Op::Cas {
                key,
                expect: expected(old, version)?,
                value: new,
                want_previous: prev,
            }),
        })
    }

    /// Checks keys and values against the limits of the store.
    ///
    /// # Errors
    /// The first that is outside.
    pub fn check_sizes(&self) -> Result<(), ParseError> {
        match self.key().len() {
            0 => return Err(ParseError::EmptyKey),
            bytes if bytes > KEY_BYTES_MAX => return Err(ParseError::KeyTooLong { bytes }),
            _ => {}
        }
        let values = match self {
            DataCommand::Put { value, .. } => [Some(value), None],
            DataCommand::Cas { old, new, .. } => [Some(new), old.as_ref()],
            DataCommand::Get { .. } | DataCommand::Del { .. } => [None, None],
        };
        match values.into_iter().flatten().map(Bytes::len).max() {
            Some(bytes) if bytes > VALUE_BYTES_MAX => Err(ParseError::ValueTooLong { bytes }),
            _ => Ok(()),
        }
    }
}

/// What a cas compares with; both or neither cannot come from clap, but may from a caller that built the command.
fn expected(old: Option<Bytes>, version: Option<u64>) -> Result<Expect, ParseError> {
    match (old, version) {
        (Some(old), None) => Ok(Expect::Value(old)),
        (None, Some(version)) => Ok(Expect::Version(version)),
        (Some(_), Some(_)) | (None, None) => Err(ParseError::Usage {
            message: "cas needs one of --old VALUE and --version N".into(),
        }),
    }
}

/// Reads `2` or `n2` as a node's id.
pub(crate) fn parse_node(text: &str) -> Option<NodeId> {
    match text.strip_prefix('n').unwrap_or(text).parse() {
        Ok(0) | Err(_) => None,
        Ok(id) => Some(NodeId(id)),
    }
}

/// Keys and values are bytes, whatever the terminal's encoding.
fn word() -> impl TypedValueParser<Value = Bytes> {
    OsStringValueParser::new().map(|word| Bytes::from(word.into_vec()))
}

/// Clap's message in one line, without its usage and tips.
fn usage(error: &clap::Error) -> ParseError {
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty() && !line.starts_with("tip:"))
        .collect();
    let message = said.join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    ParseError::Usage {
        message: match error.kind() {
            ErrorKind::MissingRequiredArgument => {
                message.replace("the following required arguments were not provided", "missing")
            }
            _ => message.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(line: &str) -> RequestOp {
        parse_line(line)
            .and_then(|command| command.into_request_op())
            .unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn lines_are_split_as_a_shell_does() {
        assert_eq!(
            op(r#"put "my key" 'a value' --if-absent  # why not"#),
            RequestOp::Write(Op::Put {
                key: Bytes::from_static(b"my key"),
                value: Bytes::from_static(b"a value"),
                if_absent: true,
                want_previous: false,
            })
        );
        assert_eq!(
            op("put k ''"),
            RequestOp::Write(Op::Put {
                key: Bytes::from_static(b"k"),
                value: Bytes::new(),
                if_absent: false,
                want_previous: false,
            })
        );
    }

    #[test]
    fn values_may_look_like_flags_and_flags_stand_anywhere() {
        assert_eq!(
            op("put k -5 --prev"),
            RequestOp::Write(Op::Put {
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(b"-5"),
                if_absent: false,
                want_previous: true,
            })
        );
        assert_eq!(
            op("cas k --old --weird -1"),
            RequestOp::Write(Op::Cas {
                key: Bytes::from_static(b"k"),
                expect: Expect::Value(Bytes::from_static(b"--weird")),
                value: Bytes::from_static(b"-1"),
                want_previous: false,
            })
        );
        assert_eq!(
            op("cas k --version 7 new"),
            RequestOp::Write(Op::Cas {
                key: Bytes::from_static(b"k"),
                expect: Expect::Version(7),
                value: Bytes::from_static(b"new"),
                want_previous: false,
            })
        );
        assert_eq!(
            op("get k --stale --at-least 9"),
            RequestOp::GetStale {
                key: Bytes::from_static(b"k"),
                at_least: Slot(9),
            }
        );
    }

    #[test]
    fn a_bad_line_is_refused_in_one_line() {
        for (line, code) in [
            ("", "bad_request"),
            ("   # only a comment", "bad_request"),
            ("put 'k v", "bad_request"),
            ("frobnicate k", "unknown_command"),
            ("put k", "bad_request"),
            ("put k v w", "bad_request"),
            ("get", "bad_request"),
            ("get k --at-least 4", "bad_request"),
            ("get k --stale --at-least x", "bad_request"),
            ("cas k new", "bad_request"),
            ("cas k --old a --version 1 new", "bad_request"),
            ("put '' v", "bad_request"),
            ("put k v --help", "bad_request"),
            ("help", "unknown_command"),
        ] {
            let error = parse_line(line).expect_err(line);
            assert_eq!(error.code(), code, "{line}: {error}");
            assert!(!error.to_string().contains('\n'), "{line}: {error}");
            assert!(!error.to_string().is_empty(), "{line}");
        }
        assert_eq!(
            parse_line("put k").expect_err("no value").to_string(),
            "missing: <VALUE>"
        );
    }

    #[test]
    fn limits_of_sizes_are_named() {
        let key = "k".repeat(KEY_BYTES_MAX);
        assert!(parse_line(&format!("get {key}")).is_ok());
        let error = parse_line(&format!("get {key}k")).expect_err("too long");
        assert_eq!(
            error,
            ParseError::KeyTooLong {
                bytes: KEY_BYTES_MAX + 1
            }
        );
        let value = "v".repeat(VALUE_BYTES_MAX);
        assert!(parse_line(&format!("put k {value}")).is_ok());
        let error = parse_line(&format!("put k {value}v")).expect_err("too long");
        assert_eq!(
            error,
            ParseError::ValueTooLong {
                bytes: VALUE_BYTES_MAX + 1
            }
        );
    }

    #[test]
    fn bytes_that_are_not_text_pass() {
        let words = split_line(b"get \xff\xfe").expect("splits");
        let command = DataCommand::from_words(&words).expect("parses");
        assert_eq!(command.key().as_ref(), b"\xff\xfe");
    }
}
