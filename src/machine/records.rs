//! Records of the log: what agreement asks to be written, and back.

use crate::paxos::Write;
use crate::wire::Record;

/// The record that agreement asks for.
pub(super) fn as_record(write: Write) -> Record {
    match write {
        Write::Promised(ballot) => Record::Promised(ballot),
        Write::Used(ballot) => Record::Used(ballot),
        Write::Accepted { slot, ballot, entry } => Record::Accepted { slot, ballot, entry },
        Write::Learned { slot, entry } => Record::Learned { slot, entry },
        Write::ChosenUpto(slot) => Record::ChosenUpto(slot),
        Write::Copied { slot, ballot, entry } => Record::Copied { slot, ballot, entry },
        Write::Recovered => Record::Recovered,
    }
}

/// The records of agreement; the others come back as they are.
pub(super) fn as_write(record: Record) -> Result<Write, Record> {
    match record {
        Record::Promised(ballot) => Ok(Write::Promised(ballot)),
        Record::Used(ballot) => Ok(Write::Used(ballot)),
        Record::Accepted { slot, ballot, entry } => Ok(Write::Accepted { slot, ballot, entry }),
        Record::Learned { slot, entry } => Ok(Write::Learned { slot, entry }),
        Record::ChosenUpto(slot) => Ok(Write::ChosenUpto(slot)),
        Record::Copied { slot, ballot, entry } => Ok(Write::Copied { slot, ballot, entry }),
        Record::Recovered => Ok(Write::Recovered),
        Record::Roster(_)
        | Record::Founded
        | Record::Lease(_)
        | Record::Life(_)
        | Record::Peer { .. }
        | Record::Checkpoint { .. }
        | Record::Installed { .. } => Err(record),
    }
}

/// A record as the records that it stands for: a checkpoint says anew what others said before it.
pub(super) fn parts(record: Record) -> impl Iterator<Item = Record> {
    let parts = match record {
        Record::Checkpoint {
            promised,
            used,
            chosen_upto,
            ..
        } => [
            Some(Record::Promised(promised)),
            Some(Record::Used(used)),
            Some(Record::ChosenUpto(chosen_upto)),
        ],
        other => [Some(other), None, None],
    };
    parts.into_iter().flatten()
}
