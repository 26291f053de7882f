//! What came of a run: figures, words, exit code.

use super::plan::Kind;
use super::{GAP_MAX, Seen};
use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// How often each kind of fault was done.
    pub cycles: BTreeMap<Kind, u32>,
    /// The longest time without a write while a majority lived, and when it began.
    pub gap: (Duration, Duration),
    /// How long the strikes went on.
    pub lasted: Duration,
    /// What the clients saw.
    pub seen: Seen,
    /// The states of the nodes, if they did not come to be one in the end.
    pub disagreement: Option<String>,
    /// Nodes that ended although nobody had asked them to.
    pub died: Vec<(u16, ExitStatus)>,
    /// Whether it was ended early by Ctrl-C.
    pub is_interrupted: bool,
}

impl Report {
    /// The exit code: 1 something broke, 3 nothing was done, 4 undecided, 130 interrupted; of several the first.
    pub fn code(&self) -> u8 {
        let is_broken = self.seen.violation.is_some()
            || self.disagreement.is_some()
            || !self.died.is_empty()
            || self.gap.0 > GAP_MAX;
        match self {
            _ if is_broken => 1,
            Report {
                is_interrupted: true, ..
            } => 130,
            _ if self.seen.done == 0 => 3,
            _ if !self.seen.undecided.is_empty() => 4,
            _ => 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen {
            done,
            not_done,
            unknown,
            rounds,
            ..
        } = &self.seen;
        for kind in Kind::ALL {
            let count = self.cycles.get(&kind).copied().unwrap_or_default();
            writeln!(f, "{count:6} {}", kind.name())?;
        }
        let all = done + not_done + unknown;
        writeln!(
            f,
            "{all} operations in {:.1?}: {done} done, {not_done} certainly not done, {unknown} unknown",
            self.lasted
        )?;
        let (gap, since) = self.gap;
        writeln!(
            f,
            "longest time without a write while a majority lived: {gap:.1?}, from {since:.1?} on; at most {GAP_MAX:?} is allowed"
        )?;
        for (id, status) in &self.died {
            writeln!(f, "NODE {id} ENDED BY ITSELF: {status}")?;
        }
        if gap > GAP_MAX {
            writeln!(f, "THE TIME WITHOUT A WRITE IS TOO LONG")?;
        }
        if let Some(states) = &self.disagreement {
            writeln!(f, "THE NODES DID NOT COME TO ONE STATE: {states}")?;
        }
        for file in &self.seen.undecided {
            writeln!(f, "undecided: {}", file.display())?;
        }
        match &self.seen.violation {
            Some((file, words)) => {
                write!(f, "THE HISTORY IS NOT LINEARIZABLE: {}\n{words}", file.display())
            }
            None if *done == 0 => writeln!(f, "the workload did nothing: nothing is shown"),
            None if !self.seen.undecided.is_empty() => writeln!(f, "some histories could not be decided"),
            None => writeln!(
                f,
                "{rounds} histories are linearizable: nothing acknowledged was lost, no read went back"
            ),
        }
    }
}
