//! One node as a pure state machine: inputs in, effects out. No sockets, no files, no clock, no randomness of its own.
//!
//! It joins [`crate::paxos`], which agrees on entries, to [`crate::kv`], which gives them meaning, and adds what a
//! node needs beside both: the founding of the cluster, batching, forwarding, reads, and the answers to clients.
//! The caller is one loop, `node::turn`, which a simulator runs over a fake world just as the node runs it over the
//! real one. How to drive it:
//!
//! 1. Call `step` once for each input, in the order of arrival, with the time at which the turn began.
//! 2. End the inputs of a turn with [`Input::Gathered`]: writes that came together become one batch.
//! 3. Carry out the effects in order. [`Effect::Send`] and [`Effect::Reply`] may leave at once: whatever claims
//!    durability is only produced by [`Input::Synced`].
//! 4. Append all records of the turn, sync once, and step [`Input::Synced`] with the number of the last record.
//!    (A sync that has nothing to write is left out, and needs no `Synced`.)
//! 5. Do not wait in the next turn if `Synced` produced records; else wait until `deadline` at most.

mod bounds;
mod damage;
mod founding;
pub mod install;
pub mod io;
mod leases;
#[expect(clippy::module_inception, reason = "the machine itself, beside what it is made of")]
mod machine;
mod memory;
mod positions;
mod reads;
mod records;
mod recovering;
mod remembered;
mod requests;
mod shutdown;
pub mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod views;

pub use bounds::Bounded;
pub use damage::ScrubView;
pub use io::{Effect, Input, Note, RequestId, Settings};
pub use leases::LeaseView;
pub use machine::Machine;
pub use positions::PositionCounts;
pub use requests::{QUEUE_WAIT_MAX, busy_for};
pub use snapshot::{Kept, SnapshotView};
pub use status::{DamageFinding, Status};
pub use views::{SlotState, SlotView};
