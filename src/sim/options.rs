//! What a world is made from: a seed, and what may happen in it; as a value, and as the flags of `synod sim`.

use super::chance::{Chance, Stream};
use super::faults::FaultSet;
use crate::rules::Rules;
use crate::units::format_duration;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long faults happen if nothing else is said.
pub const STORM: Duration = Duration::from_secs(30);

/// What a world is made from. The same options make the same run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Everything else is drawn from it.
    pub seed: u64,
    /// The kinds of faults that a seed may draw.
    pub faults: FaultSet,
    /// How long faults happen.
    pub storm: Duration,
    /// The size of the cluster, if it is not to be drawn.
    pub nodes: Option<usize>,
    /// At most so many of the clients that the seed drew.
    pub clients: Option<usize>,
    /// At most so many operations of a client at a time.
    pub lanes: Option<usize>,
    /// Kinds that stay in the plan and do not happen: unlike those that `faults` leaves out, they leave the rest of the
    /// plan as it is.
    pub mute: FaultSet,
    /// Of the faults that the seed planned, by number, only these happen.
    pub keep_faults: Option<BTreeSet<u32>>,
    /// Of the operations that clients would begin during the storm, they begin only these; and one each behind it.
    pub keep_ops: Option<BTreeSet<OpId>>,
    /// Another number, other fates of single messages; everything else as the seed has it.
    pub luck: u32,
    /// Whether the cluster has leases, and of which length, if that is not to be drawn; zero: none.
    pub read_lease: Option<Duration>,
    /// The rules that the nodes keep: all, but in a lesson. The judge keeps them all, always.
    pub rules: Rules,
    /// Rules of the judge of which it does not complain, so that what comes of breaking them is seen.
    pub overlook: BTreeSet<String>,
}

/// Names one operation of one client: client, lane, and which of that lane's it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId {
    /// Place of the client.
    pub client: u32,
    /// Its lane.
    pub lane: u32,
    /// Counts the operations of the lane, over all lives of the client.
    pub number: u32,
}

impl Options {
    /// A whole run of a seed: all kinds of faults, for half a minute.
    pub fn new(seed: u64) -> Options {
        Options {
            seed,
            faults: FaultSet::ALL,
            storm: STORM,
            nodes: None,
            clients: None,
            lanes: None,
            mute: FaultSet::NONE,
            keep_faults: None,
            keep_ops: None,
            luck: 0,
            read_lease: None,
            rules: Rules::KEPT,
            overlook: BTreeSet::new(),
        }
    }

    /// Nodes of the cluster.
    pub fn size(&self) -> usize {
        let mut rng = Chance::new(self.seed).stream(Stream::Shape, 0, 0);
        let drawn = [1, 3, 3, 3, 3, 5, 5, 7][rng.usize(0..8)];
        self.nodes.unwrap_or(drawn)
    }

    /// Whether a fault of the plan happens.
    pub fn keeps_fault(&self, number: u32) -> bool {
        self.keep_faults.as_ref().is_none_or(|kept| kept.contains(&number))
    }

    /// Whether an operation is begun.
    pub fn keeps_op(&self, id: OpId) -> bool {
        self.keep_ops.as_ref().is_none_or(|kept| kept.contains(&id))
    }

    /// All but the seed, as flags of `synod sim`; nothing for what is as usual.
    pub fn flags(&self) -> String {
        let mut flags = Vec::new();
        if self.faults == FaultSet::NONE {
            flags.push(format!("--without {}", FaultSet::ALL));
        } else if self.faults != FaultSet::ALL {
            flags.push(format!("--only {}", self.faults));
        }
        let broken = self.rules.broken();
        if !broken.is_empty() {
            flags.push(format!("--break {}", broken.join(",")));
        }
        if !self.overlook.is_empty() {
            flags.push(format!("--overlook {}", list(&self.overlook).replace(' ', "-")));
        }
        if self.storm != STORM {
            flags.push(format!("--storm {}", format_duration(self.storm)));
        }
        let bounds = [
            ("--nodes", self.nodes),
            ("--clients", self.clients),
            ("--lanes", self.lanes),
        ];
        for (flag, bound) in bounds {
            flags.extend(bound.map(|bound| format!("{flag} {bound}")));
        }
        flags.extend(
            self.read_lease
                .map(|lease| format!("--read-lease {}", format_duration(lease))),
        );
        if self.luck > 0 {
            flags.push(format!("--luck {}", self.luck));
        }
        if self.mute != FaultSet::NONE {
            flags.push(format!("--mute {}", self.mute));
        }
        let kept = self.keep_faults.as_ref();
        flags.extend(kept.map(|kept| format!("--keep-faults {}", list(kept))));
        let kept = self.keep_ops.as_ref();
        flags.extend(kept.map(|kept| format!("--keep-ops {}", list(kept))));
        flags.join(" ")
    }

    /// The command that runs this world again.
    pub fn command(&self) -> String {
        let command = format!("synod sim --seed {} {}", self.seed, self.flags());
        command.trim_end().to_string()
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.client, self.lane, self.number)
    }
}

impl FromStr for OpId {
    type Err = String;

    fn from_str(text: &str) -> Result<OpId, String> {
        let bad = || format!("{text:?} names no operation: client, lane and number belong there, as in 0.1.7");
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers.map_err(|_| bad())?[..] {
            [client, lane, number] => Ok(OpId { client, lane, number }),
            _ => Err(bad()),
        }
    }
}

/// What stands for a list in which nothing is.
const EMPTY: &str = "none";

fn list<T: fmt::Display>(kept: &BTreeSet<T>) -> String {
    let words: Vec<String> = kept.iter().map(T::to_string).collect();
    if words.is_empty() {
        EMPTY.into()
    } else {
        words.join(",")
    }
}

/// Reads a list of numbers or operations, as [`Options::flags`] writes it.
///
/// # Errors
/// What is wrong with its first bad word.
pub fn parse_list<T>(text: &str) -> Result<BTreeSet<T>, String>
where
    T: FromStr + Ord,
    T::Err: fmt::Display,
{
    if text == EMPTY {
        return Ok(BTreeSet::new());
    }
    let words = text.split(',');
    words
        .map(|word| word.parse().map_err(|error: T::Err| format!("{word:?}: {error}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_nonsense_is_refused() {
        let ops: BTreeSet<OpId> = parse_list("0.1.7,3.0.12").expect("two operations");
        assert_eq!(list(&ops), "0.1.7,3.0.12");
        assert_eq!(parse_list::<u32>("none"), Ok(BTreeSet::new()));
        assert_eq!(list::<u32>(&BTreeSet::new()), "none");
        for bad in ["", "1.2", "1.2.3.4", "a.b.c", "1,,2"] {
            assert!(parse_list::<OpId>(bad).is_err(), "{bad}");
        }
        assert!(parse_list::<u32>("1,,2").is_err());
    }

    #[test]
    fn a_usual_run_needs_no_flags() {
        assert_eq!(Options::new(5).command(), "synod sim --seed 5");
    }
}
