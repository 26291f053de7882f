//! What stands in the write-ahead log: records as types, and their heads as bytes.
//!
//! A record is a kind, a head and, for those that hold an entry, the entry's body as it came from the leader. The head
//! is small and made anew at each place; the body is immutable and carries its own CRC (`rules.md` 11).
//!
//! Not here: units, segments, positions and the checksums over heads ([`crate::storage`]).

use super::RosterEntry;
use super::body;
use super::bytes::{DecodeError, Field, Reader, Writer};
use super::hello::{ROSTER_BYTES_MAX, put_roster, take_roster};
use crate::paxos::{Ballot, Entry, Incarnation, NodeId, Slot, Start};
use bytes::Bytes;

/// One record of the write-ahead log. The state that must survive is what replaying all of them, in order, yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The acceptor promised this ballot. Durable before PROMISE leaves.
    Promised(Ballot),
    /// The proposer uses this ballot. Durable before PREPARE leaves (`rules.md` 4).
    Used(Ballot),
    /// The acceptor accepted an entry; accepting raises the promise too. Durable before ACCEPTED leaves.
    Accepted {
        /// Where.
        slot: Slot,
        /// At which ballot.
        ballot: Ballot,
        /// What.
        entry: Entry,
    },
    /// The learner fetched an entry that a peer knows as chosen. It is no vote.
    Learned {
        /// Where.
        slot: Slot,
        /// What.
        entry: Entry,
    },
    /// All slots up to here are chosen, and the last ACCEPTED, LEARNED or COPIED record of each holds what was chosen (a
    /// node writes no ACCEPTED or COPIED for a slot that it knows as chosen). Lazy.
    ChosenUpto(Slot),
    /// The roster that this node confirms; replaces an older one while nobody is founded.
    Roster(Vec<RosterEntry>),
    /// All leases of the cluster have this length, milliseconds (`rules.md` 16). Durable no later than the first roster
    /// that this node held, and never changed; a cluster without it has no leases.
    Lease(u32),
    /// The cluster of the held roster is founded; never taken back.
    Founded,
    /// The newest life and start of a peer that this node has met; durable before a vote of it is counted.
    Peer {
        /// Who.
        node: NodeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its start.
        start: Start,
    },
    /// A new life of this node, which lost its memory: takes the place of the incarnation in `IDENTITY`. Until RECOVERED
    /// it does not vote. Durable before a HELLO names it.
    Life(Incarnation),
    /// What a peer has accepted, copied by a node that recovers: reported in promises, and no vote.
    Copied {
        /// Where.
        slot: Slot,
        /// The highest ballot at which a peer accepted it.
        ballot: Ballot,
        /// What.
        entry: Entry,
    },
    /// The life before it has recovered: this node votes again.
    Recovered,
    /// A snapshot of the state behind `slot` is durable, no segment before `segment` holds an entry of a later slot, and
    /// what agreement still needs of the log before this record stands in it; LIFE, RECOVERED, ROSTER, FOUNDED and PEER
    /// stand before it anew. So the segments before `segment` may be taken away.
    Checkpoint {
        /// The first segment that is kept.
        segment: u32,
        /// The older of the snapshots that are kept.
        slot: Slot,
        /// The highest ballot promised.
        promised: Ballot,
        /// The highest ballot used.
        used: Ballot,
        /// As in CHOSEN_UPTO.
        chosen_upto: Slot,
    },
    /// The state behind `slot` came as a snapshot: the log may lack entries up to there, so no start can do with an older
    /// snapshot.
    Installed {
        /// The snapshot's slot.
        slot: Slot,
    },
}

impl Record {
    /// The record's name in logs, inspection and `protocol.md`.
    pub fn name(&self) -> &'static str {
        match self {
            Record::Promised(_) => "PROMISED",
            Record::Used(_) => "USED",
            Record::Accepted { .. } => "ACCEPTED",
            Record::Learned { .. } => "LEARNED",
            Record::ChosenUpto(_) => "CHOSEN_UPTO",
            Record::Roster(_) => "ROSTER",
            Record::Lease(_) => "LEASE",
            Record::Founded => "FOUNDED",
            Record::Peer { .. } => "PEER",
            Record::Life(_) => "LIFE",
            Record::Copied { .. } => "COPIED",
            Record::Recovered => "RECOVERED",
            Record::Checkpoint { .. } => "CHECKPOINT",
            Record::Installed { .. } => "INSTALLED",
        }
    }
}

/// Longest head of a record: the roster of the largest cluster.
pub const HEAD_BYTES_MAX: usize = 2048;

const _: () = assert!(ROSTER_BYTES_MAX <= HEAD_BYTES_MAX, "the largest roster fits a head");

/// The body that a record's head speaks of: it stands behind the head, as it came from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRef {
    /// Bytes; at most [`body::BODY_BYTES_MAX`].
    pub length: usize,
    /// CRC-32 of the body.
    pub crc: u32,
}

/// Which record it is, as the byte before its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// See [`Record::Promised`].
    Promised = 1,
    /// See [`Record::Used`].
    Used = 2,
    /// See [`Record::Accepted`].
    Accepted = 3,
    /// See [`Record::Learned`].
    Learned = 4,
    /// See [`Record::ChosenUpto`].
    ChosenUpto = 5,
    /// See [`Record::Roster`].
    Roster = 6,
    /// See [`Record::Founded`].
    Founded = 7,
    /// See [`Record::Peer`].
    Peer = 8,
    /// See [`Record::Life`].
    Life = 9,
    /// See [`Record::Copied`].
    Copied = 10,
    /// See [`Record::Recovered`].
    Recovered = 11,
    /// See [`Record::Checkpoint`].
    Checkpoint = 12,
    /// See [`Record::Installed`].
    Installed = 13,
    /// See [`Record::Lease`].
    Lease = 14,
}

impl RecordKind {
    /// Every kind, in the order of their bytes.
    pub const ALL: [RecordKind; 14] = [
        RecordKind::Promised,
        RecordKind::Used,
        RecordKind::Accepted,
        RecordKind::Learned,
        RecordKind::ChosenUpto,
        RecordKind::Roster,
        RecordKind::Founded,
        RecordKind::Peer,
        RecordKind::Life,
        RecordKind::Copied,
        RecordKind::Recovered,
        RecordKind::Checkpoint,
        RecordKind::Installed,
        RecordKind::Lease,
    ];

    /// The kind's byte on the disk.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The kind of a byte found on the disk.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`].
    pub fn from_byte(byte: u8) -> Result<RecordKind, DecodeError> {
        let known = RecordKind::ALL.into_iter().find(|kind| kind.byte() == byte);
        known.ok_or(DecodeError::Unknown {
            field: "record kind",
            byte,
        })
    }
}

impl Record {
    /// Which record it is.
    pub fn kind(&self) -> RecordKind {
        match self {
            Record::Promised(_) => RecordKind::Promised,
            Record::Used(_) => RecordKind::Used,
            Record::Accepted { .. } => RecordKind::Accepted,
            Record::Learned { .. } => RecordKind::Learned,
            Record::ChosenUpto(_) => RecordKind::ChosenUpto,
            Record::Roster(_) => RecordKind::Roster,
            Record::Lease(_) => RecordKind::Lease,
            Record::Founded => RecordKind::Founded,
            Record::Peer { .. } => RecordKind::Peer,
            Record::Life(_) => RecordKind::Life,
            Record::Copied { .. } => RecordKind::Copied,
            Record::Recovered => RecordKind::Recovered,
            Record::Checkpoint { .. } => RecordKind::Checkpoint,
            Record::Installed { .. } => RecordKind::Installed,
        }
    }

    /// The body that stands behind the head, as it came: never encoded again (`rules.md` 11).
    pub fn body(&self) -> Option<&Bytes> {
        match self {
            Record::Accepted { entry, .. } | Record::Learned { entry, .. } | Record::Copied { entry, .. } => {
                Some(&entry.body)
            }
            _ => None,
        }
    }

    /// Appends the record's fields, without its kind and its body.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        let mut out = Writer::new(out);
        match self {
            Record::Promised(ballot) | Record::Used(ballot) => ballot.put(&mut out),
            Record::Accepted { slot, ballot, entry } | Record::Copied { slot, ballot, entry } => {
                slot.put(&mut out);
                ballot.put(&mut out);
                put_body_ref(entry, &mut out);
            }
            Record::Learned { slot, entry } => {
                slot.put(&mut out);
                put_body_ref(entry, &mut out);
            }
            Record::ChosenUpto(slot) => slot.put(&mut out),
            Record::Roster(roster) => put_roster(roster, &mut out),
            Record::Founded | Record::Recovered => {}
            Record::Life(incarnation) => incarnation.put(&mut out),
            Record::Peer {
                node,
                incarnation,
                start,
            } => {
                node.put(&mut out);
                incarnation.put(&mut out);
                start.put(&mut out);
            }
            Record::Checkpoint {
                segment,
                slot,
                promised,
                used,
                chosen_upto,
            } => {
                out.u32(*segment);
                slot.put(&mut out);
                promised.put(&mut out);
                used.put(&mut out);
                chosen_upto.put(&mut out);
            }
            Record::Installed { slot } => slot.put(&mut out),
            Record::Lease(ms) => out.u32(*ms),
        }
    }

    /// The record of this kind and head; `body` is what stood behind the head, for those that have one
    /// ([`body_of_head`]).
    ///
    /// # Errors
    /// Any [`DecodeError`]; a body that is missing, too many, of another length or of another CRC too.
    pub fn decode(kind: RecordKind, head: &[u8], body: Option<Bytes>) -> Result<Record, DecodeError> {
        let mut from = Reader::copying(head);
        let mut body = body;
        let record = match kind {
            RecordKind::Promised => Record::Promised(Ballot::take(&mut from, "promised")?),
            RecordKind::Used => Record::Used(Ballot::take(&mut from, "used")?),
            RecordKind::Accepted => Record::Accepted {
                slot: Slot::take(&mut from, "slot")?,
                ballot: Ballot::take(&mut from, "ballot")?,
                entry: take_entry(&mut from, body.take())?,
            },
            RecordKind::Learned => Record::Learned {
                slot: Slot::take(&mut from, "slot")?,
                entry: take_entry(&mut from, body.take())?,
            },
            RecordKind::ChosenUpto => Record::ChosenUpto(Slot::take(&mut from, "chosen_upto")?),
            RecordKind::Roster => Record::Roster(take_roster(&mut from)?),
            RecordKind::Founded => Record::Founded,
            RecordKind::Peer => Record::Peer {
                node: NodeId::take(&mut from, "node")?,
                incarnation: Incarnation::take(&mut from, "incarnation")?,
                start: Start::take(&mut from, "start")?,
            },
            RecordKind::Life => Record::Life(Incarnation::take(&mut from, "incarnation")?),
            RecordKind::Copied => Record::Copied {
                slot: Slot::take(&mut from, "slot")?,
                ballot: Ballot::take(&mut from, "ballot")?,
                entry: take_entry(&mut from, body.take())?,
            },
            RecordKind::Recovered => Record::Recovered,
            RecordKind::Checkpoint => Record::Checkpoint {
                segment: from.u32("segment")?,
                slot: Slot::take(&mut from, "slot")?,
                promised: Ballot::take(&mut from, "promised")?,
                used: Ballot::take(&mut from, "used")?,
                chosen_upto: Slot::take(&mut from, "chosen_upto")?,
            },
            RecordKind::Installed => Record::Installed {
                slot: Slot::take(&mut from, "slot")?,
            },
            RecordKind::Lease => Record::Lease(from.u32("lease_ms")?),
        };
        from.finish()?;
        match body {
            None => Ok(record),
            Some(body) => Err(DecodeError::TrailingBytes { count: body.len() }),
        }
    }
}

/// Which body stands behind this head; `None` for the kinds that have none. What its length says is bounded, and may be
/// allocated.
///
/// # Errors
/// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`].
pub fn body_of_head(kind: RecordKind, head: &[u8]) -> Result<Option<BodyRef>, DecodeError> {
    let mut from = Reader::copying(head);
    match kind {
        RecordKind::Accepted | RecordKind::Copied => {
            Slot::take(&mut from, "slot")?;
            Ballot::take(&mut from, "ballot")?;
        }
        RecordKind::Learned => {
            Slot::take(&mut from, "slot")?;
        }
        _ => return Ok(None),
    }
    take_body_ref(&mut from).map(Some)
}

/// The slot of the entry of which this head speaks, and the ballot at which it was accepted, if it was: what is known of a
/// record whose body is damaged. `None` for the kinds that have no body.
///
/// # Errors
/// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`].
pub fn entry_of_head(kind: RecordKind, head: &[u8]) -> Result<Option<(Slot, Option<Ballot>)>, DecodeError> {
    let mut from = Reader::copying(head);
    match kind {
        RecordKind::Accepted => {
            let slot = Slot::take(&mut from, "slot")?;
            Ok(Some((slot, Some(Ballot::take(&mut from, "ballot")?))))
        }
        RecordKind::Copied | RecordKind::Learned => Ok(Some((Slot::take(&mut from, "slot")?, None))),
        _ => Ok(None),
    }
}

fn put_body_ref(entry: &Entry, out: &mut Writer<'_>) {
    out.length32(entry.body.len());
    out.u32(entry.crc);
}

fn take_body_ref(from: &mut Reader<'_>) -> Result<BodyRef, DecodeError> {
    let length = body::checked_length(from.u32("body length")?)?;
    let crc = from.u32("body crc")?;
    Ok(BodyRef { length, crc })
}

fn take_entry(from: &mut Reader<'_>, body: Option<Bytes>) -> Result<Entry, DecodeError> {
    let stated = take_body_ref(from)?;
    let body = body.unwrap_or_default();
    if body.len() < stated.length {
        return Err(DecodeError::Truncated {
            field: "body",
            needed: stated.length,
            left: body.len(),
        });
    }
    if body.len() > stated.length {
        return Err(DecodeError::TrailingBytes {
            count: body.len() - stated.length,
        });
    }
    body::parse(body, stated.crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::LogTime;
    use crate::wire::hello::Base;

    fn ballot() -> Ballot {
        Ballot {
            round: 3,
            node: NodeId(2),
        }
    }

    fn one_of_each_kind() -> Vec<Record> {
        let incarnation = Incarnation {
            generation: 1,
            token: 99,
        };
        vec![
            Record::Promised(ballot()),
            Record::Used(ballot()),
            Record::Accepted {
                slot: Slot(5),
                ballot: ballot(),
                entry: body::batch(LogTime(1), &[]),
            },
            Record::Learned {
                slot: Slot(6),
                entry: body::noop(LogTime(2)),
            },
            Record::ChosenUpto(Slot(6)),
            Record::Roster(vec![RosterEntry {
                node: NodeId(1),
                incarnation,
                base: Base::default(),
            }]),
            Record::Founded,
            Record::Peer {
                node: NodeId(1),
                incarnation,
                start: Start { counter: 4, token: 8 },
            },
            Record::Life(incarnation),
            Record::Copied {
                slot: Slot(7),
                ballot: ballot(),
                entry: body::noop(LogTime(3)),
            },
            Record::Recovered,
            Record::Checkpoint {
                segment: 3,
                slot: Slot(5),
                promised: ballot(),
                used: ballot(),
                chosen_upto: Slot(6),
            },
            Record::Installed { slot: Slot(9) },
            Record::Lease(500),
        ]
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        let records = one_of_each_kind();
        assert_eq!(records.iter().map(Record::kind).collect::<Vec<_>>(), RecordKind::ALL);
        for record in records {
            let mut head = Vec::new();
            record.encode_head(&mut head);
            assert_eq!(RecordKind::from_byte(record.kind().byte()), Ok(record.kind()));
            let body_ref = body_of_head(record.kind(), &head).expect("the head is whole");
            assert_eq!(body_ref.map(|body| body.length), record.body().map(Bytes::len));
            let decoded = Record::decode(record.kind(), &head, record.body().cloned());
            assert_eq!(decoded, Ok(record));
        }
    }

    #[test]
    fn a_head_cut_short_or_too_long_is_refused() {
        for record in one_of_each_kind() {
            let mut head = Vec::new();
            record.encode_head(&mut head);
            for end in 0..head.len() {
                let cut = Record::decode(record.kind(), &head[..end], record.body().cloned());
                assert!(cut.is_err(), "{} cut at {end}", record.name());
            }
            head.push(0);
            assert!(Record::decode(record.kind(), &head, record.body().cloned()).is_err());
        }
    }

    #[test]
    fn a_new_head_over_an_old_body_of_equal_length_is_refused() {
        let record = Record::Accepted {
            slot: Slot(1),
            ballot: ballot(),
            entry: body::noop(LogTime(1)),
        };
        let mut head = Vec::new();
        record.encode_head(&mut head);
        let old = body::noop(LogTime(2)).body;
        assert!(matches!(
            Record::decode(record.kind(), &head, Some(old)),
            Err(DecodeError::BodyChecksum { .. })
        ));
    }
}
