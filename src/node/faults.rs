//! Faults that are injected on purpose: what the loop asks at the places where one can strike.
//!
//! Faults of a link touch agreement only: frames of Paxos, rosters and forwarded requests. Handshake, ping and pong
//! pass, so a cut link stays up as a connection and loses what is said on it, as a lossy network would; when the fault
//! ends nothing needs to be dialled first.
//!
//! Here: always clear. The commands that set faults fill this in.

use crate::paxos::NodeId;
use crate::time::Time;
use std::time::Duration;

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes its way.
    Pass,
    /// It is lost.
    Drop,
    /// It goes its way so much later; frames of one link keep their order if their delays are equal.
    Delay(Duration),
}

/// All faults that are on.
#[derive(Debug, Default)]
pub struct Faults {}

impl Faults {
    /// What becomes of a frame that this node sends to `peer`.
    pub fn on_send(&mut self, _now: Time, _peer: NodeId) -> Fate {
        Fate::Pass
    }

    /// What becomes of a frame that `peer` sent to this node.
    pub fn on_receive(&mut self, _now: Time, _peer: NodeId) -> Fate {
        Fate::Pass
    }

    /// How much longer than it does a sync shall take.
    pub fn sync_delay(&mut self, _now: Time) -> Duration {
        Duration::ZERO
    }

    /// How long the whole loop shall sleep at the beginning of this turn; told once.
    pub fn pause(&mut self, _now: Time) -> Option<Duration> {
        None
    }

    /// When something changes without being asked: an end time, or the acceptor's next failure or restart.
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// What has become due: inputs for the machine (the acceptor fails or restarts); ended faults are forgotten.
    pub fn due(&mut self, _now: Time, _inputs: &mut Vec<crate::machine::Input>) {}

    /// One word or two for each fault that is on, for `status`.
    pub fn names(&self) -> Vec<String> {
        Vec::new()
    }
}
