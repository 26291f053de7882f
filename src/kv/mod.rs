//! Meaning: what the entries that Paxos agrees on do to an ordered map. Pure, and the same on every node.
//!
//! Applying is a function of the log alone (`rules.md` 20, 21, 27): no clock, no randomness, no hash order
//! (a hash table is asked, and never walked). Exactly-once
//! writes come from replicated sessions (`rules.md` 17 to 19; the idea after Ongaro, "Consensus: Bridging Theory and
//! Practice", 2014, section 6.3).
//!
//! * [`command`]: what clients ask for, and what they are answered.
//! * [`store`]: the map with its revisions. [`session`]: the table of sessions. [`state`]: both, applied entry by entry.
//! * `map`: the ordered map that both stand in. `key` and `stored`: keys and values as it holds them. [`digest`]: what
//!   replicas compare. [`snapshot`]: the state cut at one slot, while it goes on.

pub mod command;
pub mod digest;
mod key;
mod map;
pub mod session;
pub mod snapshot;
pub mod state;
pub mod store;
mod stored;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use command::{Answer, Command, Done, Expect, Op, Previous, Refusal, SessionRef, Versioned};
pub use state::{Applied, State};
pub use stored::{Stored, ValueRef};
