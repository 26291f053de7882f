//! What can go wrong, by name. Each kind can be switched on and off, and is counted when it really happens.

use std::fmt;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A frame between nodes is lost.
    Loss,
    /// A frame between nodes arrives twice.
    Duplicate,
    /// Frames of one link overtake each other.
    Reorder,
    /// A frame takes far longer than others.
    LongDelay,
    /// What one node sends to another does not arrive.
    CutOneWay,
    /// Two nodes do not hear each other.
    CutBothWays,
    /// The nodes fall into two parts.
    Partition,
    /// The nodes are left in a ring: each hears its two neighbours.
    Ring,
    /// Two parts hear each other only through one node.
    Bridge,
    /// A client does not reach a node, nor the node it.
    CutClient,
    /// A connection breaks.
    Reset,
    /// A process is killed; what it wrote and did not sync is still in the page cache.
    Kill,
    /// The power fails between two turns: what was not synced may be lost or torn.
    PowerCut,
    /// The power fails within a file operation.
    PowerCutInOperation,
    /// A process is killed within a file operation: what it wrote and did not sync is still in the page cache.
    KillInOperation,
    /// The power of all nodes fails at once.
    PowerCutOfAll,
    /// A node is told to end, and does so in order.
    Shutdown,
    /// An acceptor fails and restarts while its node lives.
    AcceptorFailure,
    /// A node stands still for a while, and goes on with an old view.
    Pause,
    /// A clock runs at another rate.
    ClockRate,
    /// A clock leaps forward.
    ClockJump,
    /// Syncs take long.
    SlowDisk,
    /// A sync fails, which ends the process.
    SyncFailure,
    /// A write fails, which ends the process; any part of it may have been written.
    WriteFailure,
    /// A write takes less than it was given, or is interrupted.
    ShortWrite,
    /// No space is left on a disk.
    DiskFull,
    /// A bit of a log rots: the node must not start on it as if nothing were wrong.
    BitRot,
    /// A node comes back with an empty directory: it must not vote before it has recovered.
    EmptyDirectory,
    /// A node comes back with an old copy of its directory: the same.
    OldCopy,
    /// A client dies with operations in flight; another one takes its place.
    ClientDeath,
    /// A copy of an old write arrives late, at any node.
    LateDuplicate,
    /// Only clients reach the leader any more, and all other nodes restart at once: what they granted it they have forgotten.
    RestartAround,
    /// Only one other node hears the leader any more, and then loses its directory: the leader counted what nobody remembers.
    LostVote,
    /// A node is started again as an older build, which can do less, or as the newest.
    OtherBuild,
}

/// Some kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u64);

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 34] = [
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::LongDelay,
        Fault::CutOneWay,
        Fault::CutBothWays,
        Fault::Partition,
        Fault::Ring,
        Fault::Bridge,
        Fault::CutClient,
        Fault::Reset,
        Fault::Kill,
        Fault::PowerCut,
        Fault::PowerCutInOperation,
        Fault::KillInOperation,
        Fault::PowerCutOfAll,
        Fault::Shutdown,
        Fault::AcceptorFailure,
        Fault::Pause,
        Fault::ClockRate,
        Fault::ClockJump,
        Fault::SlowDisk,
        Fault::SyncFailure,
        Fault::WriteFailure,
        Fault::ShortWrite,
        Fault::DiskFull,
        Fault::BitRot,
        Fault::EmptyDirectory,
        Fault::OldCopy,
        Fault::ClientDeath,
        Fault::LateDuplicate,
        Fault::RestartAround,
        Fault::LostVote,
        Fault::OtherBuild,
    ];

    /// The name in flags and summaries.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "loss",
            Fault::Duplicate => "duplicate",
            Fault::Reorder => "reorder",
            Fault::LongDelay => "long-delay",
            Fault::CutOneWay => "cut-one-way",
            Fault::CutBothWays => "cut-both-ways",
            Fault::Partition => "partition",
            Fault::Ring => "ring",
            Fault::Bridge => "bridge",
            Fault::CutClient => "cut-client",
            Fault::Reset => "reset",
            Fault::Kill => "kill",
            Fault::PowerCut => "power-cut",
            Fault::PowerCutInOperation => "power-cut-in-operation",
            Fault::KillInOperation => "kill-in-operation",
            Fault::PowerCutOfAll => "power-cut-of-all",
            Fault::Shutdown => "shutdown",
            Fault::AcceptorFailure => "acceptor-failure",
            Fault::Pause => "pause",
            Fault::ClockRate => "clock-rate",
            Fault::ClockJump => "clock-jump",
            Fault::SlowDisk => "slow-disk",
            Fault::SyncFailure => "sync-failure",
            Fault::WriteFailure => "write-failure",
            Fault::ShortWrite => "short-write",
            Fault::DiskFull => "disk-full",
            Fault::BitRot => "bit-rot",
            Fault::EmptyDirectory => "empty-directory",
            Fault::OldCopy => "old-copy",
            Fault::ClientDeath => "client-death",
            Fault::LateDuplicate => "late-duplicate",
            Fault::RestartAround => "restart-around",
            Fault::LostVote => "lost-vote",
            Fault::OtherBuild => "other-build",
        }
    }

    /// By its name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn named(name: &str) -> Result<Fault, String> {
        let known = Fault::ALL.into_iter().find(|fault| fault.name() == name);
        known.ok_or_else(|| format!("no fault is called {name:?}; there are: {}", FaultSet::ALL))
    }

    /// Whether it lasts in the network as a whole, instead of happening at one moment.
    pub fn is_weather(self) -> bool {
        matches!(self, Fault::Loss | Fault::Duplicate | Fault::Reorder | Fault::LongDelay)
    }
}

impl FaultSet {
    /// No fault at all.
    pub const NONE: FaultSet = FaultSet(0);
    /// Every kind.
    pub const ALL: FaultSet = FaultSet((1 << Fault::ALL.len()) - 1);

    /// With `fault`, too.
    #[must_use]
    pub fn with(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 | 1 << fault as u64)
    }

    /// Without `fault`.
    #[must_use]
    pub fn without(self, fault: Fault) -> FaultSet {
        FaultSet(self.0 & !(1 << fault as u64))
    }

    /// Whether `fault` is among them.
    pub fn has(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u64 != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }

    /// Some of them: each seed tries other mixes, for faults can hide each other ("swarm testing", Groce et al., 2012).
    #[must_use]
    pub fn draw(self, rng: &mut fastrand::Rng) -> FaultSet {
        let chance = rng.u8(1..=8);
        self.iter()
            .filter(|_| rng.u8(0..8) < chance)
            .fold(FaultSet::NONE, FaultSet::with)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_and_a_bit_of_its_own() {
        assert_eq!(FaultSet::ALL.iter().count(), Fault::ALL.len());
        for (place, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, place, "{}", fault.name());
            assert_eq!(Fault::named(fault.name()), Ok(fault));
            assert!(!FaultSet::ALL.without(fault).has(fault) && FaultSet::NONE.with(fault).has(fault));
        }
        assert!(Fault::named("meteor").is_err());
    }
}
