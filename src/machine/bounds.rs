//! What a machine holds for others, against what it may hold: its queues and its memory, by name.
//!
//! Whatever clients and peers do, none of these grows beyond its bound (M4). The simulator compares them after every turn.
//!
//! Not here: what is on the disk, and what waits in sockets (`node::limits`).

use super::machine::Machine;
use super::positions::ASKS_MAX;
use crate::kv::session::SESSIONS_MAX;
use crate::paxos::acceptor::AHEAD_SLOTS_MAX;

/// One thing that is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// What.
    pub what: &'static str,
    /// How much of it there is.
    pub held: usize,
    /// How much there may be.
    pub most: usize,
}

impl Machine {
    /// Everything that is bounded, as it is between two steps.
    pub fn bounded(&self) -> [Bounded; 11] {
        let settings = &self.settings;
        let (requests, bytes) = (settings.queue_requests, settings.queue_bytes);
        let window = usize::try_from(settings.window_slots).unwrap_or(usize::MAX);
        // What phase 1 finds is open at once, above the window: as many slots as an acceptor holds beyond its prefix.
        let open = window.saturating_add(AHEAD_SLOTS_MAX);
        let (open_slots, _) = self.replica.open_size();
        let row = |what, held, most| Bounded { what, held, most };
        [
            row("writes that wait to be proposed", self.queue.len(), requests),
            row("bytes of writes that wait", self.queue.bytes(), bytes),
            row("reads that wait", self.reads.len(), requests),
            row(
                "asks for a position that wait",
                self.asks.len(),
                ASKS_MAX + self.settings.nodes.len(),
            ),
            row("requests relayed", self.relays.len(), requests),
            row("bytes of requests relayed", self.relays.bytes(), bytes),
            row("batches that clients wait for", self.proposed.len(), window),
            row("slots open", open_slots, open),
            row(
                "bytes of applied entries in memory",
                self.replica.learner().recent_bytes(),
                settings.cache_bytes,
            ),
            row("sessions", self.state.sessions(), SESSIONS_MAX),
            row("outputs left behind by a step", self.out.len(), 0),
        ]
    }
}
