//! Entry bodies: what a slot holds, encoded once by the leader that proposes it (`rules.md` 11, 29).
//!
//! `kind u8 | format u8 | stamp u64`, and in a batch `count u32 | commands` behind it. The first ten bytes stand in
//! every kind for ever, so that a node can carry, store and order an entry of a kind that it does not know; it cannot
//! apply it. A body's CRC-32 travels beside it and is made once, where the body is made.
//!
//! Not here: the layout of a command (`command`); where bodies stand (`agreement`, [`super::record`]).

use super::bytes::{ByteString, DecodeError, Field, Reader, Writer};
use super::command;
use crate::kv::{Command, command::KEY_BYTES_MAX, command::VALUE_BYTES_MAX};
use crate::paxos::{Entry, EntryKind, LogTime};
use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;

/// What stands in every body: kind, format and stamp.
pub const BODY_HEAD_BYTES: usize = 1 + 1 + 8;
/// What stands before the commands of a batch.
pub const BATCH_HEAD_BYTES: usize = BODY_HEAD_BYTES + 4;
/// The largest legal command: a `cas` with the longest key and two of the longest values.
pub const COMMAND_BYTES_MAX: usize = command::COMMAND_BYTES_MIN + 2 + KEY_BYTES_MAX + 2 * (4 + VALUE_BYTES_MAX) + 2;
/// Longest body that is taken from wire or disk: any legal command fits one, and so does the largest batch.
pub const BODY_BYTES_MAX: usize = 3 << 20;

const _: () = assert!(
    BATCH_HEAD_BYTES + COMMAND_BYTES_MAX <= BODY_BYTES_MAX,
    "any legal command fits one body"
);

const KIND_BATCH: u8 = 1;
const KIND_NOOP: u8 = 2;
const KIND_CONFIG: u8 = 3;
/// The format of each kind that this version writes and can apply.
const FORMAT: u8 = 1;

/// How many bytes `command` takes in a batch.
pub fn command_bytes(command: &Command) -> usize {
    command::encoded_bytes(&command.op)
}

/// A batch in the making: each command is encoded behind the others as it comes.
#[derive(Debug)]
pub struct Batch {
    stamp: LogTime,
    count: u32,
    body: Vec<u8>,
}

impl Batch {
    /// An empty one, stamped with `stamp`, with room for commands of about so many bytes.
    pub fn new(stamp: LogTime, room: usize) -> Batch {
        let mut body = Vec::with_capacity(BATCH_HEAD_BYTES + room);
        put_head(&mut body, KIND_BATCH, stamp);
        Writer::new(&mut body).u32(0); // the count, known at the end
        Batch { stamp, count: 0, body }
    }

    /// The next command.
    pub fn push(&mut self, command: &Command) {
        self.count += 1;
        command::put_command(command, &mut Writer::new(&mut self.body));
    }

    /// The entry of all commands, in their order.
    pub fn seal(mut self) -> Entry {
        BigEndian::write_u32(&mut self.body[BODY_HEAD_BYTES..], self.count);
        self.body.shrink_to_fit(); // it is kept for peers that catch up
        seal(EntryKind::Batch, self.stamp, self.body)
    }
}

/// A batch of `commands`, in their order, stamped with `stamp`.
pub fn batch(stamp: LogTime, commands: &[Command]) -> Entry {
    let mut batch = Batch::new(stamp, commands.iter().map(command_bytes).sum());
    commands.iter().for_each(|command| batch.push(command));
    batch.seal()
}

/// An entry that fills a gap and changes nothing but log time.
pub fn noop(stamp: LogTime) -> Entry {
    let mut body = Vec::with_capacity(BODY_HEAD_BYTES);
    put_head(&mut body, KIND_NOOP, stamp);
    seal(EntryKind::Noop, stamp, body)
}

/// The entry whose encoded body is `body`; of a kind that is not known, too.
///
/// # Errors
/// [`DecodeError::BodyChecksum`] if `crc` is not the body's; any other if the body has no head.
pub fn parse(body: Bytes, crc: u32) -> Result<Entry, DecodeError> {
    let computed = crc32fast::hash(&body);
    if computed != crc {
        return Err(DecodeError::BodyChecksum { stated: crc, computed });
    }
    let mut reader = Reader::new(&body);
    let (kind, _format, stamp) = take_head(&mut reader)?;
    Ok(Entry { kind, stamp, body, crc })
}

/// The commands of an entry, in order; none for a no-op. Keys and values share the body's memory: whoever keeps one
/// keeps the whole body alive.
///
/// # Errors
/// [`DecodeError::Unknown`] if this version cannot apply the entry; any other if the body is damaged.
pub fn commands(entry: &Entry) -> Result<Vec<Command>, DecodeError> {
    decode(entry)
}

/// The same, with keys and values that are borrowed of the body: to be applied, since the store copies what it keeps.
///
/// # Errors
/// As [`commands`].
pub fn borrowed_commands(entry: &Entry) -> Result<Vec<Command<&[u8]>>, DecodeError> {
    decode(entry)
}

fn decode<'a, B: ByteString<'a>>(entry: &'a Entry) -> Result<Vec<Command<B>>, DecodeError> {
    let mut reader = Reader::new(&entry.body);
    let (kind, format, _stamp) = take_head(&mut reader)?;
    let known = match kind {
        EntryKind::Batch | EntryKind::Noop => Ok(()),
        EntryKind::Config => Err(KIND_CONFIG),
        EntryKind::Unknown(byte) => Err(byte),
    };
    known.map_err(|byte| DecodeError::Unknown {
        field: "entry kind",
        byte,
    })?;
    if format != FORMAT {
        return Err(DecodeError::Unknown {
            field: "entry format",
            byte: format,
        });
    }
    let commands = match kind {
        EntryKind::Batch => take_commands(&mut reader)?,
        _ => Vec::new(),
    };
    reader.finish()?;
    Ok(commands)
}

fn take_commands<'a, B: ByteString<'a>>(reader: &mut Reader<'a>) -> Result<Vec<Command<B>>, DecodeError> {
    let count = reader.u32("command count")? as usize;
    let count = reader.items(count, command::COMMAND_BYTES_MIN, "command count")?;
    let mut commands = Vec::with_capacity(count);
    for _ in 0..count {
        commands.push(command::take_command(reader)?);
    }
    Ok(commands)
}

fn put_head(body: &mut Vec<u8>, kind: u8, stamp: LogTime) {
    let mut writer = Writer::new(body);
    writer.u8(kind);
    writer.u8(FORMAT);
    stamp.put(&mut writer);
}

fn take_head(reader: &mut Reader<'_>) -> Result<(EntryKind, u8, LogTime), DecodeError> {
    let kind = match reader.u8("entry kind")? {
        // Zeros, which is what an empty place on a disk reads as, are no entry.
        0 => {
            return Err(DecodeError::Unknown {
                field: "entry kind",
                byte: 0,
            });
        }
        KIND_BATCH => EntryKind::Batch,
        KIND_NOOP => EntryKind::Noop,
        KIND_CONFIG => EntryKind::Config,
        other => EntryKind::Unknown(other),
    };
    let format = reader.u8("entry format")?;
    let stamp = LogTime::take(reader, "stamp")?;
    Ok((kind, format, stamp))
}

fn seal(kind: EntryKind, stamp: LogTime, body: Vec<u8>) -> Entry {
    let crc = crc32fast::hash(&body);
    Entry {
        kind,
        stamp,
        body: Bytes::from(body),
        crc,
    }
}

impl Field for Entry {
    fn put(&self, out: &mut Writer<'_>) {
        out.length32(self.body.len());
        out.u32(self.crc);
        out.slice(&self.body);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let length = from.u32("body length")?;
        let crc = from.u32("body crc")?;
        let body = from.bytes(checked_length(length)?, field)?;
        parse(body, crc)
    }
}

/// A body's length as found outside.
///
/// # Errors
/// [`DecodeError::OutOfRange`] above [`BODY_BYTES_MAX`].
pub(super) fn checked_length(length: u32) -> Result<usize, DecodeError> {
    match length as usize {
        length if length <= BODY_BYTES_MAX => Ok(length),
        length => Err(DecodeError::OutOfRange {
            field: "body length",
            value: length as u64,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Expect, Op, SessionRef};
    use crate::paxos::Slot;

    fn command(op: Op) -> Command {
        Command {
            session: SessionRef { id: 7, opened: Slot(1) },
            number: 2,
            low: 1,
            op,
        }
    }

    #[test]
    fn a_batch_gives_its_commands_back_and_counts_their_bytes() {
        let commands_in = [
            command(Op::Open),
            command(Op::Close),
            command(Op::Put {
                key: Bytes::from_static(b"k"),
                value: Bytes::new(),
                if_absent: true,
                want_previous: false,
            }),
            command(Op::Del {
                key: Bytes::from_static(b"key"),
                want_previous: true,
            }),
            command(Op::Cas {
                key: Bytes::from_static(b"k"),
                expect: Expect::Version(9),
                value: Bytes::from_static(b"new"),
                want_previous: false,
            }),
        ];
        let entry = batch(LogTime(5), &commands_in);
        let bytes: usize = commands_in.iter().map(command_bytes).sum();
        assert_eq!(entry.body.len(), BATCH_HEAD_BYTES + bytes);
        let parsed = parse(entry.body.clone(), entry.crc).expect("the body is whole");
        assert_eq!(parsed, entry);
        assert_eq!(commands(&parsed).expect("the batch is whole"), commands_in);
    }

    #[test]
    fn the_largest_legal_command_is_as_large_as_the_constant_says() {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES_MAX]);
        let largest = command(Op::Cas {
            key: Bytes::from(vec![b'k'; KEY_BYTES_MAX]),
            expect: Expect::Value(value.clone()),
            value,
            want_previous: true,
        });
        assert_eq!(command_bytes(&largest), COMMAND_BYTES_MAX);
        assert!(batch(LogTime(1), &[largest]).body.len() <= BODY_BYTES_MAX);
    }

    #[test]
    fn an_unknown_kind_is_carried_but_cannot_be_applied() {
        let mut body = noop(LogTime(8)).body.to_vec();
        body[0] = 200;
        let crc = crc32fast::hash(&body);
        let entry = parse(body.into(), crc).expect("it can be carried");
        assert_eq!(entry.kind, EntryKind::Unknown(200));
        assert_eq!(entry.stamp, LogTime(8));
        assert_eq!(
            commands(&entry),
            Err(DecodeError::Unknown {
                field: "entry kind",
                byte: 200
            })
        );
    }

    #[test]
    fn a_body_that_is_not_its_checksums_is_refused() {
        let entry = noop(LogTime(1));
        assert!(matches!(
            parse(entry.body.clone(), entry.crc ^ 1),
            Err(DecodeError::BodyChecksum { .. })
        ));
        assert!(
            parse(Bytes::from_static(&[0; 10]), crc32fast::hash(&[0; 10])).is_err(),
            "zeros are no entry"
        );
    }

    #[test]
    fn a_count_that_cannot_follow_is_refused_before_anything_is_allocated() {
        let mut body = batch(LogTime(1), &[]).body.to_vec();
        body[BODY_HEAD_BYTES..].copy_from_slice(&[0xff; 4]);
        let crc = crc32fast::hash(&body);
        let entry = parse(body.into(), crc).expect("the head is whole");
        assert!(matches!(
            commands(&entry),
            Err(DecodeError::OutOfRange {
                field: "command count",
                ..
            })
        ));
    }
}
