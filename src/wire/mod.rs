//! Bytes: frames and codecs, hand-rolled, big-endian, checksummed. `protocol.md` is the contract.
//!
//! The same bytes go over the wire and to the disk (`rules.md` 11): an entry's body is encoded once, by the leader that
//! proposed it. Decoders take from a bounded reader, check every length before they allocate, and refuse what is left
//! over; they never panic on input.
//!
//! * As types: [`message`] (everything that can stand in a frame), [`hello`] (the handshake), [`request`] (what clients
//!   send and get), [`record`] (what stands in the write-ahead log).
//! * As bytes: [`bytes`](mod@bytes) (fields), [`frame`] (framing), [`body`] (entries), and the layouts of what stands in
//!   frames: `agreement` (between nodes), `command` and `answer` (from and to clients); [`state`] (snapshots),
//!   [`transfer`] (their way to a node that is behind).

mod agreement;
mod answer;
pub mod body;
pub mod bytes;
mod command;
pub mod frame;
pub mod hello;
pub mod message;
pub mod record;
pub mod request;
pub mod state;
pub mod transfer;

pub use bytes::DecodeError;
pub use frame::{FrameError, FrameType};
pub use hello::{Hello, HelloKind, RosterEntry};
pub use message::Frame;
pub use record::Record;
pub use request::{Code, Outcome, Reply, Request, RequestOp, Served};
pub use transfer::Transfer;

#[cfg(test)]
mod tests;
