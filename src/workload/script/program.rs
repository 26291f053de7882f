//! A script that was read: steps in a row, and the tables that they point into.
//!
//! The bodies of all clients stand in one list of steps. The script's own body begins at step 0; [`Step::Spawn`] begins
//! a client's body, which stands right behind it, and goes on behind that.

use super::error::{Position, ScriptError, Trouble};
use super::expect::{Expectation, RunExpectation};
use super::template::Template;
use crate::command::{DataCommand, FaultCommand};
use crate::paxos::NodeId;
use crate::workload::generator::{KeySpec, ValueSpec};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Clients of one declaration: each has a connection, or two, of its own.
pub const CLIENTS_MAX: u64 = 65_536;
/// Clients times pipeline of a whole script: operations in flight, and who waits for a start.
pub const PLACES_MAX: u64 = 1_048_576;
/// Operations of one client in flight at once: what its session may hold.
pub const PIPELINE_MAX: u64 = crate::kv::session::IN_FLIGHT_MAX;
/// The group of the script's own body.
pub const MAIN: usize = 0;
/// Variables that every command sets: the value that it found, that value's version, the store's revision.
pub const RESULT_VARIABLES: [&str; 3] = ["value", "version", "revision"];

/// A script, ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// What to do, in order.
    pub code: Vec<Step>,
    /// Where each step stands in the script.
    pub places: Vec<Position>,
    /// The clients; the first is the script's own body.
    pub groups: Vec<Group>,
    /// Sets of keys.
    pub keys: Vec<KeySpec>,
    /// Kinds of values.
    pub values: Vec<ValueSpec>,
    /// Names of variables; the first are [`RESULT_VARIABLES`].
    pub variables: Vec<String>,
    /// Where clients wait for each other.
    pub barriers: Vec<Barrier>,
    /// What the whole run must come to.
    pub expectations: Vec<(Position, RunExpectation)>,
}

/// Clients that run one body.
#[derive(Clone, Debug)]
pub struct Group {
    /// Name; of several copies each has its number behind it.
    pub name: String,
    /// How many clients.
    pub copies: usize,
    /// Operations that each has in flight.
    pub pipeline: usize,
    /// Operations a second of all copies together; `None`: as fast as answers come.
    pub rate: Option<u64>,
    /// First step of the body.
    pub entry: usize,
    /// Whether operations count in the figures.
    pub counted: bool,
}

/// Where clients wait for each other.
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Its name.
    pub name: String,
    /// Whose clients wait for each other there.
    pub groups: BTreeSet<usize>,
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command on the data.
    Command(Box<CommandTemplate>),
    /// Sets a variable.
    Let {
        /// Which.
        variable: usize,
        /// To what.
        expression: Expression,
    },
    /// Checks the last result.
    Expect(Expectation),
    /// Waits.
    Sleep(Duration),
    /// Says something to the person.
    Print(Vec<Template>),
    /// Begins a loop with a number of rounds; goes to `end` if there are none.
    Repeat {
        /// Rounds.
        times: u64,
        /// Behind the loop.
        end: usize,
    },
    /// Begins a loop that begins no round after this time.
    For {
        /// How long.
        duration: Duration,
        /// Behind the loop.
        end: usize,
    },
    /// Begins a loop that runs until its last answer is not no.
    Attempt {
        /// Behind the loop.
        end: usize,
    },
    /// The end of a loop's round: another one, or on.
    Again,
    /// Draws one of the arms.
    Mix {
        /// Weights summed up so far, and where the arm begins.
        arms: Vec<(u64, usize)>,
        /// Behind the mix.
        end: usize,
    },
    /// The end of an arm: on behind the mix.
    EndArm,
    /// Begins a client's body, which stands right behind; goes on at `end`.
    Spawn {
        /// Which.
        group: usize,
        /// Behind the body.
        end: usize,
    },
    /// Waits for clients to end.
    Wait {
        /// Which; `None`: all.
        group: Option<usize>,
    },
    /// Waits for all that share the barrier.
    Barrier(usize),
    /// What begins within this time does not count in the figures.
    Warmup(Duration),
    /// Puts one key after the other, this place's share of them; again and again until all are in.
    Load {
        /// Which keys.
        keys: usize,
        /// With which values.
        values: usize,
    },
    /// Sends a fault to a node's debug port.
    Fault {
        /// Which node.
        node: NodeId,
        /// What.
        command: FaultCommand,
    },
    /// Kills a node.
    Kill(NodeId),
    /// Starts a node.
    Start(NodeId),
    /// The end of a body.
    End,
}

/// A command whose key and values are filled in when it runs.
#[derive(Clone, Debug)]
pub struct CommandTemplate {
    /// All that stays the same; key and values are placeholders.
    pub pattern: DataCommand,
    /// The key.
    pub key: Template,
    /// The value that put and cas write.
    pub value: Option<Template>,
    /// The value that cas expects.
    pub old: Option<Template>,
    /// The version that cas expects.
    pub version: Option<Template>,
}

/// What a variable is set to.
#[derive(Clone, Debug)]
pub struct Expression {
    /// The first operand.
    pub first: Template,
    /// An operator and the second one, if there are any.
    pub rest: Option<(Operator, Template)>,
}

/// Arithmetic on whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

impl Operator {
    pub(super) fn parse(word: &str) -> Option<Operator> {
        Some(match word {
            "+" => Operator::Add,
            "-" => Operator::Subtract,
            "*" => Operator::Multiply,
            "/" => Operator::Divide,
            "%" => Operator::Remainder,
            _ => return None,
        })
    }

    /// The result; none if it is out of bounds or divides by zero.
    pub fn apply(self, a: u64, b: u64) -> Option<u64> {
        match self {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide => a.checked_div(b),
            Operator::Remainder => a.checked_rem(b),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
            Operator::Remainder => "%",
        })
    }
}

impl Group {
    /// Places in all.
    pub fn places(&self) -> usize {
        self.copies * self.pipeline
    }
}

impl Program {
    /// Checks that every operation can stand in a history: it must be judged from its line alone.
    ///
    /// # Errors
    /// The first that cannot: a cas by version, or a stale read.
    pub fn check_for_history(&self) -> Result<(), ScriptError> {
        for (step, at) in self.code.iter().zip(&self.places) {
            let Step::Command(template) = step else { continue };
            let why = match &template.pattern {
                DataCommand::Cas { version: Some(_), .. } => {
                    "a cas by version compares with what no line of the history shows; use --old"
                }
                DataCommand::Get { stale: true, .. } => "a stale read may return an old value and be right",
                _ => continue,
            };
            return Err(ScriptError::new(*at, Trouble::NotForHistory { why }));
        }
        Ok(())
    }

    /// Checks that nothing in the script needs the nodes' processes.
    ///
    /// # Errors
    /// The first `kill` or `start`.
    pub fn check_without_cluster(&self) -> Result<(), ScriptError> {
        let mut steps = self.code.iter().zip(&self.places);
        match steps.find(|(step, _)| matches!(step, Step::Kill(_) | Step::Start(_))) {
            Some((_, at)) => Err(ScriptError::new(*at, Trouble::NoCluster)),
            None => Ok(()),
        }
    }

    /// Whether the script itself says what single results should be.
    pub fn expects_results(&self) -> bool {
        self.code.iter().any(|step| matches!(step, Step::Expect(_)))
    }

    /// Clients in all.
    pub fn clients(&self) -> usize {
        self.groups.iter().map(|group| group.copies).sum()
    }

    pub(super) fn check_places(&self) -> Result<(), ScriptError> {
        let wanted = self.groups.iter().map(|group| group.places() as u64).sum();
        if wanted > PLACES_MAX {
            let trouble = Trouble::TooManyPlaces {
                wanted,
                max: PLACES_MAX,
            };
            return Err(ScriptError::new(Position::default(), trouble));
        }
        Ok(())
    }
}
