//! Small makers for the tests of these rooms.

use super::{Ballot, Entry, EntryKind, LogTime, NodeId};
use bytes::Bytes;

pub(crate) fn ballot(round: u64, node: u16) -> Ballot {
    Ballot {
        round,
        node: NodeId(node),
    }
}

pub(crate) fn entry(body: &'static [u8]) -> Entry {
    Entry {
        kind: EntryKind::Batch,
        stamp: LogTime(0),
        body: Bytes::from_static(body),
        crc: u32::from_be_bytes([body.len() as u8, *body.first().unwrap_or(&0), 0, 0]),
    }
}
