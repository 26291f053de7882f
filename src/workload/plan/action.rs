//! What a plan wants done, and why it may end early.

use super::super::script::Position;
use crate::command::{DataCommand, FaultCommand};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::RequestOp;
use std::fmt;

/// A command's name in figures. A put that is only-if-absent, and a cas that expects nothing, count as what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `get`
    Get,
    /// `put`
    Put,
    /// `del`
    Del,
    /// `cas`
    Cas,
}

/// An operation that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Whose; it has no other open.
    pub place: usize,
    /// Over which client's connection.
    pub client: usize,
    /// What.
    pub op: RequestOp,
    /// What it counts as.
    pub kind: Kind,
    /// When it was meant to begin: latency counts from here.
    pub intended: Time,
    /// Whether it counts in the figures.
    pub counted: bool,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send an operation, and tell its end by [`super::Plan::finished`].
    Submit(Submission),
    /// Send a fault to a node's debug port, and tell what came of it by [`super::Plan::acted`].
    Fault {
        /// Whose step it is.
        place: usize,
        /// Which node.
        node: NodeId,
        /// What.
        command: FaultCommand,
    },
    /// Kill a node's process, and tell by [`super::Plan::acted`].
    Kill {
        /// Whose step it is.
        place: usize,
        /// Which node.
        node: NodeId,
    },
    /// Start a node's process, and tell by [`super::Plan::acted`].
    Start {
        /// Whose step it is.
        place: usize,
        /// Which node.
        node: NodeId,
    },
    /// Show a line to the person.
    Print(String),
}

/// Why a run ended before its script did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A result was not as expected.
    Unexpected {
        /// The line.
        at: Position,
        /// Which client.
        client: String,
        /// What was expected.
        expected: String,
        /// What came.
        found: String,
    },
    /// A step makes no sense with what the variables hold.
    Script {
        /// The line.
        at: Position,
        /// Which client.
        client: String,
        /// What is wrong.
        why: String,
    },
    /// The keys could not be loaded.
    Load {
        /// Name of the cause.
        cause: &'static str,
        /// Its words.
        why: String,
    },
    /// A fault, kill or start did not work.
    Action {
        /// The line.
        at: Position,
        /// Why.
        why: String,
    },
    /// All that is left waits for each other.
    Stuck {
        /// At what.
        waits: Vec<String>,
    },
}

impl Kind {
    /// What a command counts as.
    pub(super) fn of(command: &DataCommand) -> Kind {
        match command {
            DataCommand::Get { .. } => Kind::Get,
            DataCommand::Put { .. } => Kind::Put,
            DataCommand::Del { .. } => Kind::Del,
            DataCommand::Cas { .. } => Kind::Cas,
        }
    }

    /// All, in the order in which figures are shown.
    pub const ALL: [Kind; 4] = [Kind::Get, Kind::Put, Kind::Del, Kind::Cas];

    /// The command's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Get => "get",
            Kind::Put => "put",
            Kind::Del => "del",
            Kind::Cas => "cas",
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Unexpected {
                at,
                client,
                expected,
                found,
            } => write!(f, "{at}: {client}: expected {expected}, and it was {found}"),
            Stop::Script { at, client, why } => write!(f, "{at}: {client}: {why}"),
            Stop::Load { why, .. } => write!(f, "the keys could not be loaded: {why}"),
            Stop::Action { at, why } => write!(f, "{at}: {why}"),
            Stop::Stuck { waits } => write!(f, "all that is left waits for each other: {}", waits.join(", ")),
        }
    }
}
