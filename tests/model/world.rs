//! The bounds of a small world, and the values that are proposed in it.

use bytes::Bytes;
use synod::paxos::{Ballot, Entry, EntryKind, LogTime, Message, Slot};
use synod::rules::Rules;

/// How much may happen. Within it everything does.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// What it is called in reports.
    pub(crate) name: &'static str,
    /// Slots that clients write to.
    pub(crate) slots: u64,
    /// How many ballots each node may use; 0: it is an acceptor only.
    pub(crate) ballots: [u8; 3],
    /// How often each node may crash and restart.
    pub(crate) crashes: [u8; 3],
    /// How many crashes there may be in all.
    pub(crate) crashes_all: u8,
    /// How many inputs a turn takes before its sync, from the first on that wrote something.
    pub(crate) turn: u8,
    /// Whether n1 leads at ballot 1.1 from the beginning, by the promises of all.
    pub(crate) leads: bool,
    /// Whether missed entries are fetched from peers; without it each FETCH is lost.
    pub(crate) catch_up: bool,
    /// Whether refusals are told; without it each NACK is lost, and who is refused finds out by another's message.
    pub(crate) nacks: bool,
    /// Whether dead letters are taken out of the world: see `ear.rs`. It leaves a tenth of the states or less.
    pub(crate) forgets: bool,
    /// Which rules are kept.
    pub(crate) rules: Rules,
}

impl World {
    /// Two proposers with a ballot each and one acceptor agree on `slots`; nobody crashes; all rules are kept.
    pub(crate) fn new(name: &'static str, slots: u64) -> World {
        World {
            name,
            slots,
            ballots: [1, 1, 0],
            crashes: [0; 3],
            crashes_all: 0,
            turn: 1,
            leads: false,
            catch_up: false,
            nacks: false,
            forgets: true,
            rules: Rules::KEPT,
        }
    }

    /// The same with so many crashes of each node, and in all.
    pub(crate) fn with_crashes(self, crashes: [u8; 3], crashes_all: u8) -> World {
        World {
            crashes,
            crashes_all,
            ..self
        }
    }

    /// Whether `message` is always lost in this world.
    pub(crate) fn loses(&self, message: &Message) -> bool {
        match message {
            // Answers to signs of life confirm reads and leadership, and one that tells of nothing chosen makes followers
            // that an ACCEPT makes as well: no slot hangs on them.
            Message::HeartbeatAck(_) => true,
            Message::Heartbeat(heartbeat) => heartbeat.chosen_upto == Slot::ZERO,
            Message::Nack { .. } => !self.nacks,
            Message::Fetch { .. } => !self.catch_up,
            _ => false,
        }
    }
}

/// What a client writes through the leader of `ballot` in its life after `crashes` crashes: never the same twice, so that
/// no violation hides behind equal values.
pub(crate) fn value(ballot: Ballot, crashes: u8) -> Entry {
    let body = format!("v{ballot}{}", "'".repeat(crashes.into()));
    entry(EntryKind::Batch, body.into())
}

/// What fills a gap.
pub(crate) fn noop() -> Entry {
    entry(EntryKind::Noop, Bytes::from_static(b"noop"))
}

/// The name of an entry in traces.
pub(crate) fn name(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.body).into_owned()
}

/// Whether `entry` is what the leader of `ballot` had from a client, and not what it found.
pub(crate) fn is_own(ballot: Ballot, entry: &Entry) -> bool {
    name(entry).trim_end_matches('\'') == format!("v{ballot}")
}

fn entry(kind: EntryKind, body: Bytes) -> Entry {
    // The debug form shows kind, length and checksum; the checksum tells values apart.
    let crc = crc32fast::hash(&body);
    Entry {
        kind,
        stamp: LogTime(0),
        body,
        crc,
    }
}
