//! One session with a cluster: retry, backoff, redirect, deadlines.
//!
//! The logic is a pure machine, [`ClientMachine`]: inputs in, effects out, no sockets, no clock. Two thin shells give it
//! the world: a blocking one for programs and one-shot commands, and one mio loop that drives many machines for load.
//!
//! What an operation ends in is the join of its attempts (`rules.md` 17): done; certainly not done; or unknown, once an
//! attempt that may have reached a log stays without an answer from the session table. Retries are safe since they go
//! out under the same session and number.
//!
//! * [`machine`]: the machine. `operation`: one operation and the join of its attempts; `operations`: those that are open.
//!   [`outcome`]: how they end.
//! * `session`: numbers of writes and the lowest outstanding. `links`: endpoints, dialling, leader hints.
//! * [`pool`]: the mio loop, `connection` its sockets. [`blocking`]: the client for programs.
//! * [`probe`]: who answers at an address, and its status. [`source`]: snapshots, piece by piece, for a backup.
//! * [`backoff`]: full jitter and the retry budget. [`options`]: every timeout of the client, in one table.

mod alarm;
pub mod backoff;
pub mod blocking;
mod connection;
mod links;
pub mod machine;
mod operation;
mod operations;
pub mod options;
pub mod outcome;
pub mod pool;
pub mod probe;
mod session;
pub mod source;

pub use machine::{ClientMachine, Effect, Input};
pub use options::{Options, ReadsFrom};
pub use outcome::{Cause, End, Failure};
pub use pool::{Completion, Pool};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod shells_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
