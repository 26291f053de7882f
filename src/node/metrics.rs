//! Counters: what `metrics` on the debug port shows as `name value`.
//!
//! A counter is a number beside its kind; names are made only when somebody asks. Nothing here is ever reset.

use crate::machine::{PositionCounts, ScrubView};
use crate::wire::message::ErrorCode;
use crate::wire::{Outcome, Reply};
use std::collections::BTreeMap;
use std::time::Duration;

/// All counters of one node. Bounded: keys are names of frames, codes and outcomes.
#[derive(Debug, Default)]
pub struct Metrics {
    frames_in: Counters,
    frames_out: Counters,
    frames_dropped: Counters,
    errors: BTreeMap<ErrorCode, u64>,
    outcomes: Counters,
    /// Bytes read from all sockets.
    pub bytes_in: u64,
    /// Bytes written to all sockets.
    pub bytes_out: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Inputs that the machine stepped.
    pub inputs: u64,
    /// Appends with their sync.
    pub syncs: u64,
    /// Records appended.
    pub records: u64,
    /// Time spent in append and sync.
    pub sync_time: Duration,
    /// The longest of them.
    pub sync_longest: Duration,
    /// Slices of snapshots, between turns.
    pub slices: u64,
    /// Time spent in them.
    pub slice_time: Duration,
    /// The longest of them.
    pub slice_longest: Duration,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused because of the limit.
    pub refused: u64,
    /// Connections that began with text.
    pub text: u64,
    /// Times that accepting was paused because descriptors ran out.
    pub accept_pauses: u64,
    /// Dials begun.
    pub dials: u64,
    /// Replies thrown away because their connection was gone.
    pub replies_dropped: u64,
    /// Log lines held back because too many of their kind came at once.
    pub log_lines_held: u64,
}

/// Counters by name. Names are constants of the program, so where one stands tells it without reading it; a second place
/// of the same name is found by its letters. The busiest come to stand first.
#[derive(Debug, Default)]
struct Counters(Vec<(&'static str, u64)>);

impl Counters {
    fn count(&mut self, name: &'static str) {
        let same_place = self.0.iter().position(|(known, _)| std::ptr::eq(*known, name));
        let place = same_place.or_else(|| self.0.iter().position(|(known, _)| *known == name));
        match place {
            Some(place) => {
                self.0[place].1 += 1;
                if place > 0 && self.0[place].1 > self.0[place - 1].1 {
                    self.0.swap(place, place - 1);
                }
            }
            None => self.0.push((name, 1)),
        }
    }

    /// By name.
    fn sorted(&self) -> Vec<(&'static str, u64)> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted
    }
}

/// What is counted at the moment of asking, not since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Connections of clients through their handshake.
    pub clients: usize,
    /// Connections that have not said HELLO yet.
    pub fresh: usize,
    /// Connections of peers, dialled and accepted.
    pub peers: usize,
    /// Connections of the debug port.
    pub debug: usize,
    /// Bytes that came in on all connections and are no whole frame yet.
    pub input_bytes: usize,
    /// Bytes that wait to be written to all connections.
    pub output_bytes: usize,
    /// Clients that are not read because all connections together hold `--buffer-bytes`.
    pub stalled: usize,
    /// Requests of clients that were not answered yet.
    pub in_flight: usize,
    /// Digests of peers that were compared with this node's own, and those that differed.
    pub digests: (u64, u64),
    /// Whether this node's state differs from a peer's or a quorum's, and it serves nobody.
    pub diverged: bool,
    /// Whether it votes.
    pub votes: bool,
    /// Generation of its incarnation.
    pub generation: u32,
    /// What the scrub has done.
    pub scrub: ScrubView,
    /// Damage that is not repaired.
    pub damage: usize,
    /// Reads that a lease confirmed.
    pub lease_reads: u64,
    /// Read positions, asked for and told.
    pub positions: PositionCounts,
}

impl Metrics {
    /// A frame came in.
    pub fn frame_in(&mut self, name: &'static str) {
        self.frames_in.count(name);
    }

    /// A frame was queued to go out.
    pub fn frame_out(&mut self, name: &'static str) {
        self.frames_out.count(name);
    }

    /// A frame to a peer was thrown away: no link, a full queue or a fault.
    pub fn frame_dropped(&mut self, name: &'static str) {
        self.frames_dropped.count(name);
    }

    /// A connection was refused or closed with `code`.
    pub fn error(&mut self, code: ErrorCode) {
        *self.errors.entry(code).or_default() += 1;
    }

    /// How often that happened.
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors.get(&code).copied().unwrap_or(0)
    }

    /// A client was answered.
    pub fn reply(&mut self, reply: &Reply) {
        self.outcomes.count(outcome_name(reply));
    }

    /// One append with its sync.
    pub fn synced(&mut self, records: usize, took: Duration) {
        self.syncs += 1;
        self.records += records as u64;
        self.sync_time += took;
        self.sync_longest = self.sync_longest.max(took);
    }

    /// One slice of a snapshot.
    pub fn sliced(&mut self, took: Duration) {
        self.slices += 1;
        self.slice_time += took;
        self.slice_longest = self.slice_longest.max(took);
    }

    /// Every counter as name and value, in a fixed order of groups.
    pub fn list(&self, now: &Gauges) -> Vec<(String, u64)> {
        let mut list: Vec<(String, u64)> = [
            ("turns", self.turns),
            ("inputs", self.inputs),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
            ("syncs", self.syncs),
            ("sync_records", self.records),
            ("sync_us", micros(self.sync_time)),
            ("sync_us_longest", micros(self.sync_longest)),
            ("snapshot_slices", self.slices),
            ("snapshot_us", micros(self.slice_time)),
            ("snapshot_us_longest", micros(self.slice_longest)),
            ("connections_accepted", self.accepted),
            ("connections_refused", self.refused),
            ("connections_text", self.text),
            ("accept_pauses", self.accept_pauses),
            ("dials", self.dials),
            ("replies_dropped", self.replies_dropped),
            ("log_lines_held", self.log_lines_held),
            ("clients", now.clients as u64),
            ("connections_fresh", now.fresh as u64),
            ("peer_connections", now.peers as u64),
            ("debug_connections", now.debug as u64),
            ("input_bytes", now.input_bytes as u64),
            ("output_bytes", now.output_bytes as u64),
            ("clients_stalled", now.stalled as u64),
            ("requests_in_flight", now.in_flight as u64),
            ("digests_compared", now.digests.0),
            ("digests_differing", now.digests.1),
            ("diverged", now.diverged.into()),
            ("voter", now.votes.into()),
            ("generation", now.generation.into()),
            ("scrub_passes", now.scrub.passes),
            ("damage_found", now.scrub.found),
            ("damage_repaired", now.scrub.repaired),
            ("damage", now.damage as u64),
            ("lease_reads", now.lease_reads),
            ("positions_asked", now.positions.asked),
            ("positions_told", now.positions.told),
            ("position_reads", now.positions.reads),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        let groups = [
            ("frames_in", &self.frames_in),
            ("frames_out", &self.frames_out),
            ("frames_dropped", &self.frames_dropped),
            ("requests", &self.outcomes),
        ];
        for (group, counters) in groups {
            list.extend(
                counters
                    .sorted()
                    .into_iter()
                    .map(|(name, value)| (format!("{group}_{}", name.to_ascii_lowercase()), value)),
            );
        }
        list.extend(
            self.errors
                .iter()
                .map(|(code, value)| (format!("errors_{code}"), *value)),
        );
        list
    }
}

/// `done`, or the code of what was not done or is unknown.
pub fn outcome_name(reply: &Reply) -> &'static str {
    match &reply.outcome {
        Outcome::Done(_) => "done",
        Outcome::NotDone { code, .. } | Outcome::Unknown { code } => code.name(),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;

    #[test]
    fn counters_are_listed_by_name() {
        let mut metrics = Metrics::default();
        metrics.frame_in("HEARTBEAT");
        metrics.frame_in("HEARTBEAT");
        metrics.error(ErrorCode::BadChecksum);
        metrics.synced(3, Duration::from_micros(40));
        metrics.synced(1, Duration::from_micros(10));
        metrics.reply(&Reply {
            outcome: Outcome::Unknown { code: Code::LeaderLost },
            leader: None,
        });
        let list = metrics.list(&Gauges::default());
        let value = |name: &str| list.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        assert_eq!(value("frames_in_heartbeat"), Some(2));
        assert_eq!(value("errors_bad_checksum"), Some(1));
        assert_eq!(value("sync_us"), Some(50));
        assert_eq!(value("sync_us_longest"), Some(40));
        assert_eq!(value("requests_leader_lost"), Some(1));
    }
}
