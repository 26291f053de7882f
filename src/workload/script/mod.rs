//! The language of workload scripts.
//!
//! One statement a line; `#` begins a comment; words are split as a shell does. Commands on the data are those of the
//! debug port and the command line ([`crate::command`]). A script without `client` blocks is one client that does one
//! line after the other; `client` and `clients` blocks begin further ones that run concurrently with it.
//!
//! ```text
//! param NAME DEFAULT                 a parameter: put in for $NAME before the script is read; `--set NAME=VALUE`
//! keys NAME uniform|zipf|latest|in-order COUNT [theta 0.99] [prefix TEXT]     $NAME draws a key, 16 bytes
//! values NAME unique SIZE            $NAME is a value that nothing else wrote; $NAME.next of keys adds a key
//! load KEYS VALUES                   puts all keys, and waits for it; not counted in the figures
//! warmup 1s                          what begins within this time is not counted in the figures
//!
//! put|get|del|cas …                  sets $value (what was found there), $version and $revision
//! expect done|unknown|ok|no|absent|found|cas_failed|no_quorum|… | value [<] TEXT      of the last result
//! let NAME = WORD [+|-|*|/|% WORD]   a variable of this client
//! print WORD…        sleep 20ms      fault 2 acceptor down 5s        kill 2        start 2
//!
//! client NAME [pipeline N] [rate N/s] … end          begins a client; its body runs concurrently
//! clients COUNT NAME [pipeline N] [rate N/s] … end   begins several; $client is each one's name, $copy its number
//! wait [NAME]                        until these clients, or all, have ended
//! barrier NAME                       until all clients that have this barrier in their body stand at it
//!
//! repeat COUNT … end                 a loop; $round counts
//! for 10s … end                      a loop that begins no round after this time
//! attempt … end                      a loop until its last answer is not no; it ends as well if nobody knows
//! mix … end                          draws one of its lines `WEIGHT COMMAND` or blocks `WEIGHT do … end`
//!
//! expect [get] unknown < 20, p99 < 50ms, ops_per_s > 100, …     of the whole run, judged at its end
//! ```
//!
//! A cas whose `--old` is a variable that holds nothing, as after a get of an absent key, expects the key to be absent.
//! With a `rate` the load is open: operations have intended starts that do not wait for answers, and latency counts from
//! these. In a mix, a `do` block is left at the first of its commands that is not done: what follows hangs on it.

pub mod error;
pub mod expect;
mod lexer;
mod parser;
pub mod program;
pub mod template;
#[cfg(test)]
mod tests;
mod words;

pub use error::{Position, ScriptError, Trouble};
pub use program::Program;

use std::collections::BTreeMap;

/// The words that may begin a line.
pub const VERBS: [&str; 25] = [
    "put", "get", "del", "cas", "expect", "let", "param", "keys", "values", "load", "warmup", "client", "clients",
    "wait", "barrier", "repeat", "for", "attempt", "mix", "end", "sleep", "print", "fault", "kill", "start",
];

/// Reads a script. `parameters` replace the defaults of its `param` lines.
///
/// # Errors
/// [`ScriptError`], with line and column.
pub fn parse(text: &[u8], parameters: &BTreeMap<String, String>) -> Result<Program, ScriptError> {
    parser::Parser::new(parameters).parse(text)
}
