//! The log: env_logger on stderr, UTC with milliseconds, one line an event, and no more lines than a person can read.

use crate::paxos::NodeId;
use crate::time::Time;
use env_logger::{Builder, Env, Target};
use std::collections::BTreeMap;
use std::time::Duration;

use super::limits::{COMPLAINT_REPEATED_AFTER, COMPLAINTS_PER_SECOND};

/// Ids of refused nodes come from outside; so many are remembered before all are forgotten.
const REPEATS_MAX: usize = 1024;

/// Starts the log: `RUST_LOG` says what is shown (default `info`). Colour only on a terminal, never with `NO_COLOR`.
pub fn start() {
    // A test may have started one before us; that one stays.
    let _ = Builder::from_env(Env::default().default_filter_or("info"))
        .target(Target::Stderr)
        .format_timestamp_millis()
        .format_target(false)
        .try_init();
}

/// Holds back log lines that come by the thousand: per kind, a few a second are shown, the rest counted.
#[derive(Debug, Default)]
pub struct Complaints {
    kinds: BTreeMap<&'static str, Window>,
    repeats: BTreeMap<(&'static str, NodeId), Time>,
}

#[derive(Debug, Default)]
struct Window {
    began: Time,
    shown: u32,
    held: u64,
}

impl Complaints {
    /// Whether it is time to say the same of the same node again.
    pub fn may_repeat(&mut self, kind: &'static str, node: NodeId, now: Time) -> bool {
        if self.repeats.len() >= REPEATS_MAX {
            self.repeats.clear();
        }
        let said = self.repeats.get(&(kind, node));
        if said.is_some_and(|at| now.since(*at) < COMPLAINT_REPEATED_AFTER) {
            return false;
        }
        self.repeats.insert((kind, node), now);
        true
    }

    /// Whether a line of `kind` may be shown now, and how many of its kind were held back before it.
    pub fn may_say(&mut self, kind: &'static str, now: Time) -> Option<u64> {
        let window = self.kinds.entry(kind).or_default();
        if now.since(window.began) >= Duration::from_secs(1) {
            window.began = now;
            window.shown = 0;
        }
        if window.shown == COMPLAINTS_PER_SECOND {
            window.held += 1;
            return None;
        }
        window.shown += 1;
        Some(std::mem::take(&mut window.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_counted_and_hides_no_other_kind() {
        let mut complaints = Complaints::default();
        let now = Time::from_millis(10_000);
        let shown = (0..100)
            .filter(|_| complaints.may_say("bad_magic", now).is_some())
            .count();
        assert_eq!(shown, COMPLAINTS_PER_SECOND as usize);
        assert_eq!(complaints.may_say("bad_length", now), Some(0));
        assert_eq!(complaints.may_say("bad_magic", Time::from_millis(11_000)), Some(95));
    }

    #[test]
    fn the_same_of_the_same_node_is_said_now_and_then() {
        let mut complaints = Complaints::default();
        let mut may = |node, ms| complaints.may_repeat("wrong_cluster", NodeId(node), Time::from_millis(ms));
        assert!(may(2, 1000) && !may(2, 2000) && may(3, 2000));
        assert!(may(2, 1000 + COMPLAINT_REPEATED_AFTER.as_millis() as u64));
    }
}
