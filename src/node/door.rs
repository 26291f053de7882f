//! The narrow door through which a turn sees the world: sockets, clock, and whoever watches.
//!
//! The node's door is `Server` (`super::server`); a simulator has another. Files are the other door
//! ([`storage::files`](crate::storage)). Between the two, everything that a turn does is a function of what came in.

use super::ring::What;
use crate::machine::{Input, Machine, RequestId};
use crate::paxos::NodeId;
use crate::time::{Boottime, Time};
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Record, Reply, Transfer};
use std::io;
use std::time::Duration;

/// What a turn needs of the world beside its files.
pub trait Door {
    /// The monotonic clock.
    fn now(&mut self) -> Time;

    /// The clock that counts suspension, of the whole machine (`rules.md` 16).
    fn boottime(&mut self) -> Boottime;

    /// Waits until something comes in, at most `wait` (none: as long as it takes; zero: not at all), and appends all
    /// that came, in order of arrival on each connection. `machine` is as the last turn left it: handshakes are
    /// answered and judged by it, and it is asked for its status.
    ///
    /// # Errors
    /// The system's poll failed: the loop cannot go on.
    fn gather(&mut self, machine: &Machine, wait: Option<Duration>, inputs: &mut Vec<Input>) -> io::Result<()>;

    /// Takes what has come since this turn's [`Door::gather`], without waiting.
    ///
    /// # Errors
    /// As there.
    fn gather_more(&mut self, machine: &Machine, inputs: &mut Vec<Input>) -> io::Result<()>;

    /// Queues a frame for a peer. It is lost if no link is up, as it may be lost on the way.
    fn send(&mut self, to: NodeId, request_id: u64, frame: Frame);

    /// Queues the answer to a client's request; it is lost if its connection is gone.
    fn reply(&mut self, id: RequestId, reply: Reply);

    /// Queues a piece of a snapshot, or the offer of one, for a client; it is lost if its connection is gone.
    fn hand(&mut self, connection: u64, transfer: Transfer);

    /// Closes the links with a peer, and says why on those that it dialled.
    fn refuse(&mut self, peer: NodeId, code: ErrorCode, detail: &str);

    /// Writes what is queued, as far as the sockets take it.
    fn flush(&mut self);

    /// Called before each append and sync of `records`: an injected slow disk takes its time here.
    fn before_sync(&mut self, records: &[Record]);

    /// A slice of a snapshot, or of making room for one, took so long.
    fn sliced(&mut self, took: Duration);

    /// Something happened that a person may want to see.
    fn event(&mut self, at: Time, what: What);
}
