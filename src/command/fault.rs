//! What breaks a node on purpose: the debug port's `fault …` and the failures of an acceptor by chance.
//!
//! Every fault but `crash` and `corrupt` ends by itself, at the latest after [`FAULT_MAX`]. A [`FaultCommand`] shows itself as the
//! line that it is read from, so a script can send it on to a node's debug port.

use super::{ParseError, parse_node, split_line};
use crate::paxos::NodeId;
use crate::units::{format_duration, parse_positive_duration};
use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a fault lasts unless it is said.
pub const FAULT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest time that a fault may last.
pub const FAULT_MAX: Duration = Duration::from_secs(600);
/// Longest pause of the whole loop, and longest delay of a message or a sync.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The forms of `fault`, and what each does; for `help` and for errors.
pub const FAULT_FORMS: [(&str, &str); 10] = [
    (
        "fault acceptor down [5s]",
        "the acceptor fails, and restarts from the disk",
    ),
    ("fault acceptor up", "it restarts now"),
    ("fault drop <peer>[:in|:out] [30%] [10s]", "messages of a link are lost"),
    ("fault delay <peer> 20ms [10s]", "messages of a link are late, each way"),
    ("fault isolate [10s]", "cut off from all peers"),
    ("fault pause 2s", "the whole loop sleeps"),
    ("fault slow-sync 50ms [10s]", "every sync takes so much longer"),
    (
        "fault corrupt",
        "the applied state is altered, for good: digests differ with the next write",
    ),
    ("fault crash", "the process aborts at once"),
    ("fault clear", "ends all faults"),
];

/// Which way messages are dropped, seen from the node that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What the peer sends.
    In,
    /// What goes to the peer.
    Out,
    /// Both.
    Both,
}

/// A fault to be put on, or `clear`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultCommand {
    /// The acceptor fails, and restarts from the disk at the end.
    AcceptorDown {
        /// How long.
        lasts: Duration,
    },
    /// The acceptor restarts now: ends what [`FaultCommand::AcceptorDown`] began.
    AcceptorUp,
    /// Messages from or to a peer are lost.
    Drop {
        /// Which peer.
        peer: NodeId,
        /// Which way.
        direction: Direction,
        /// How many of a hundred, 1..=100.
        percent: u8,
        /// How long.
        lasts: Duration,
    },
    /// Messages from and to a peer go late, each way.
    Delay {
        /// Which peer.
        peer: NodeId,
        /// How late.
        by: Duration,
        /// How long.
        lasts: Duration,
    },
    /// All messages from and to all peers are lost.
    Isolate {
        /// How long.
        lasts: Duration,
    },
    /// The whole loop sleeps.
    Pause {
        /// How long.
        lasts: Duration,
    },
    /// Every sync takes longer.
    SlowSync {
        /// How much longer.
        by: Duration,
        /// How long.
        lasts: Duration,
    },
    /// The applied state is altered, as broken memory would; what is on disk is not.
    Corrupt,
    /// The process aborts at once.
    Crash,
    /// All faults end now.
    Clear,
}

impl FaultCommand {
    /// Reads a whole line, with or without the word `fault` before it.
    ///
    /// # Errors
    /// [`ParseError`], one line.
    pub fn parse_line(line: &str) -> Result<FaultCommand, ParseError> {
        let words = split_line(line.as_bytes())?;
        let behind = usize::from(words.first().is_some_and(|word| word == "fault"));
        FaultCommand::from_words(&words[behind..])
    }

    /// Reads the words behind `fault`.
    ///
    /// # Errors
    /// [`ParseError`], one line that shows the right form.
    pub fn from_words(words: &[OsString]) -> Result<FaultCommand, ParseError> {
        let words: Vec<&str> = words
            .iter()
            .map(|word| word.to_str().ok_or_else(|| wrong("the words of a fault are text")))
            .collect::<Result<_, _>>()?;
        match words.as_slice() {
            ["acceptor", "down", rest @ ..] => Ok(FaultCommand::AcceptorDown { lasts: lasts(rest)? }),
            ["acceptor", "up"] => Ok(FaultCommand::AcceptorUp),
            ["drop", peer, rest @ ..] => parse_drop(peer, rest),
            ["delay", peer, by, rest @ ..] => Ok(FaultCommand::Delay {
                peer: node(peer)?,
                by: bounded(by, PAUSE_MAX)?,
                lasts: lasts(rest)?,
            }),
            ["isolate", rest @ ..] => Ok(FaultCommand::Isolate { lasts: lasts(rest)? }),
            ["pause", time] => Ok(FaultCommand::Pause {
                lasts: bounded(time, PAUSE_MAX)?,
            }),
            ["slow-sync", by, rest @ ..] => Ok(FaultCommand::SlowSync {
                by: bounded(by, PAUSE_MAX)?,
                lasts: lasts(rest)?,
            }),
            ["corrupt"] => Ok(FaultCommand::Corrupt),
            ["crash"] => Ok(FaultCommand::Crash),
            ["clear"] => Ok(FaultCommand::Clear),
            _ => Err(wrong("no such fault")),
        }
    }
}

fn parse_drop(peer: &str, rest: &[&str]) -> Result<FaultCommand, ParseError> {
    let (peer, direction) = match peer.split_once(':') {
        None => (peer, Direction::Both),
        Some((peer, "in")) => (peer, Direction::In),
        Some((peer, "out")) => (peer, Direction::Out),
        Some(_) => return Err(wrong("the direction is `:in` or `:out`")),
    };
    let (percent, rest) = match rest {
        [first, rest @ ..] if first.ends_with('%') => {
            let percent = first.trim_end_matches('%').parse().ok();
            let percent = percent.filter(|percent| (1..=100).contains(percent));
            (percent.ok_or_else(|| wrong("the share is 1% to 100%"))?, rest)
        }
        _ => (100, rest),
    };
    Ok(FaultCommand::Drop {
        peer: node(peer)?,
        direction,
        percent,
        lasts: lasts(rest)?,
    })
}

fn node(text: &str) -> Result<NodeId, ParseError> {
    parse_node(text).ok_or_else(|| wrong("a peer is named by its id, such as 2"))
}

fn lasts(rest: &[&str]) -> Result<Duration, ParseError> {
    match rest {
        [] => Ok(FAULT_DEFAULT),
        [time] => bounded(time, FAULT_MAX),
        _ => Err(wrong("too many words")),
    }
}

fn bounded(text: &str, most: Duration) -> Result<Duration, ParseError> {
    let time = parse_positive_duration(text).map_err(|error| wrong(&error.to_string()))?;
    if time > most {
        return Err(wrong(&format!("{text} is longer than {}", format_duration(most))));
    }
    Ok(time)
}

fn wrong(why: &str) -> ParseError {
    let forms = FAULT_FORMS.map(|(form, _)| form).join(" | ");
    ParseError::Usage {
        message: format!("{why}; the faults are: {forms}"),
    }
}

impl fmt::Display for FaultCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultCommand::AcceptorDown { lasts } => write!(f, "fault acceptor down {}", format_duration(*lasts)),
            FaultCommand::AcceptorUp => write!(f, "fault acceptor up"),
            FaultCommand::Drop {
                peer,
                direction,
                percent,
                lasts,
            } => {
                let way = match direction {
                    Direction::In => ":in",
                    Direction::Out => ":out",
                    Direction::Both => "",
                };
                write!(f, "fault drop {}{way} {percent}% {}", peer.0, format_duration(*lasts))
            }
            FaultCommand::Delay { peer, by, lasts } => {
                write!(
                    f,
                    "fault delay {} {} {}",
                    peer.0,
                    format_duration(*by),
                    format_duration(*lasts)
                )
            }
            FaultCommand::Isolate { lasts } => write!(f, "fault isolate {}", format_duration(*lasts)),
            FaultCommand::Pause { lasts } => write!(f, "fault pause {}", format_duration(*lasts)),
            FaultCommand::SlowSync { by, lasts } => {
                write!(
                    f,
                    "fault slow-sync {} {}",
                    format_duration(*by),
                    format_duration(*lasts)
                )
            }
            FaultCommand::Corrupt => write!(f, "fault corrupt"),
            FaultCommand::Crash => write!(f, "fault crash"),
            FaultCommand::Clear => write!(f, "fault clear"),
        }
    }
}

/// How an acceptor fails by chance: `mtbf=10s,mttr=2s,seed=7`.
///
/// Times between failures and times to repair are drawn from exponential distributions with these means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptorFailures {
    /// Mean time between failures.
    pub mtbf: Duration,
    /// Mean time to repair.
    pub mttr: Duration,
    /// Seed of the draws; the node mixes its own id into it.
    pub seed: u64,
}

impl FromStr for AcceptorFailures {
    type Err = String;

    fn from_str(text: &str) -> Result<AcceptorFailures, String> {
        let (mut mtbf, mut mttr, mut seed) = (None, None, None);
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not NAME=VALUE; write mtbf=10s,mttr=2s,seed=7"))?;
            let twice = match name.trim() {
                "mtbf" => mtbf
                    .replace(parse_positive_duration(value).map_err(|e| e.to_string())?)
                    .is_some(),
                "mttr" => mttr
                    .replace(parse_positive_duration(value).map_err(|e| e.to_string())?)
                    .is_some(),
                "seed" => {
                    let value = value.trim().parse::<u64>();
                    seed.replace(value.map_err(|_| "seed is a whole number".to_string())?)
                        .is_some()
                }
                other => return Err(format!("`{other}` is not one of mtbf, mttr, seed")),
            };
            if twice {
                return Err(format!("`{}` is said twice", name.trim()));
            }
        }
        Ok(AcceptorFailures {
            mtbf: mtbf.ok_or("mtbf is missing; write mtbf=10s,mttr=2s,seed=7")?,
            mttr: mttr.ok_or("mttr is missing; write mtbf=10s,mttr=2s,seed=7")?,
            seed: seed.unwrap_or(1),
        })
    }
}

impl fmt::Display for AcceptorFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mtbf, mttr) = (format_duration(self.mtbf), format_duration(self.mttr));
        write!(f, "mtbf={mtbf},mttr={mttr},seed={}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_read_and_shown_as_a_line_that_reads_back() {
        let second = Duration::from_secs;
        let table = [
            (
                "fault acceptor down",
                FaultCommand::AcceptorDown { lasts: FAULT_DEFAULT },
            ),
            (
                "fault acceptor down 5s",
                FaultCommand::AcceptorDown { lasts: second(5) },
            ),
            (
                "fault drop 2",
                FaultCommand::Drop {
                    peer: NodeId(2),
                    direction: Direction::Both,
                    percent: 100,
                    lasts: FAULT_DEFAULT,
                },
            ),
            (
                "fault drop n3:in 30% 4s",
                FaultCommand::Drop {
                    peer: NodeId(3),
                    direction: Direction::In,
                    percent: 30,
                    lasts: second(4),
                },
            ),
            (
                "drop 3:out 1m",
                FaultCommand::Drop {
                    peer: NodeId(3),
                    direction: Direction::Out,
                    percent: 100,
                    lasts: second(60),
                },
            ),
            (
                "fault delay 2 20ms",
                FaultCommand::Delay {
                    peer: NodeId(2),
                    by: Duration::from_millis(20),
                    lasts: FAULT_DEFAULT,
                },
            ),
            ("fault isolate 3s", FaultCommand::Isolate { lasts: second(3) }),
            ("fault pause 2s", FaultCommand::Pause { lasts: second(2) }),
            (
                "fault slow-sync 50ms 8s",
                FaultCommand::SlowSync {
                    by: Duration::from_millis(50),
                    lasts: second(8),
                },
            ),
            ("fault acceptor up", FaultCommand::AcceptorUp),
            ("fault corrupt", FaultCommand::Corrupt),
            ("fault crash", FaultCommand::Crash),
            ("fault clear", FaultCommand::Clear),
        ];
        for (line, fault) in table {
            assert_eq!(FaultCommand::parse_line(line).as_ref(), Ok(&fault), "{line}");
            assert_eq!(FaultCommand::parse_line(&fault.to_string()), Ok(fault), "{line}");
        }
    }

    #[test]
    fn a_wrong_fault_is_refused_with_the_right_forms() {
        for line in [
            "fault",
            "fault acceptor",
            "fault acceptor up 5s",
            "fault drop",
            "fault drop x",
            "fault drop 0",
            "fault drop 2:up",
            "fault drop 2 0%",
            "fault drop 2 101%",
            "fault drop 2 10s 30%",
            "fault delay 2",
            "fault pause",
            "fault pause 2h",
            "fault isolate 0s",
            "fault isolate 5",
            "fault crash now",
        ] {
            let error = FaultCommand::parse_line(line).expect_err(line).to_string();
            assert!(error.contains("fault slow-sync 50ms [10s]"), "{line}: {error}");
            assert!(!error.contains('\n'), "{line}: {error}");
        }
    }

    #[test]
    fn failures_of_the_acceptor_are_read_from_their_specification() {
        let spec: AcceptorFailures = "mtbf=10s,mttr=2s,seed=7".parse().expect("parses");
        let expected = AcceptorFailures {
            mtbf: Duration::from_secs(10),
            mttr: Duration::from_secs(2),
            seed: 7,
        };
        assert_eq!(spec, expected);
        assert_eq!(spec.to_string().parse(), Ok(expected));
        for text in [
            "",
            "mtbf=10s",
            "mttr=1s",
            "mtbf=0s,mttr=1s",
            "mtbf=1s,mtbf=1s,mttr=1s",
            "mtbf=1s,mttr=1s,x=1",
        ] {
            assert!(text.parse::<AcceptorFailures>().is_err(), "{text}");
        }
    }
}
