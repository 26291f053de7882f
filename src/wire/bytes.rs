//! Big-endian fields: a bounded reader that refuses, and a writer that cannot fail.
//!
//! Every decoder of this crate takes its fields from a [`Reader`] and ends in [`Reader::finish`]. Invariants:
//! * A length found in the input is compared with what is left before anything is allocated.
//! * No input makes a reader panic; each bad one ends in a [`DecodeError`] that names the field.
//! * What one [`Field`] puts, it takes back, and nothing is left over.
//!
//! Not here: frames ([`super::frame`]), and what the fields mean.

use super::message::ErrorCode;
use crate::paxos::{Ballot, Incarnation, LogTime, NodeId, Slot, Start};
use byteorder::{BigEndian, ByteOrder};
use bytes::Bytes;
use std::fmt;

/// Highest slot, round, log time, start counter and session number that is taken from outside. Whoever counts on from
/// such a number cannot overflow; at a million a second it lasts for a hundred thousand years.
pub const COUNT_MAX: u64 = 1 << 62;
/// Highest generation of an incarnation that is taken from outside; see [`COUNT_MAX`].
pub const GENERATION_MAX: u32 = 1 << 30;

/// Why bytes do not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end within a field.
    Truncated {
        /// Which field.
        field: &'static str,
        /// Bytes that the field needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Bytes are left over behind the last field.
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A number that the field cannot have, or that contradicts another field.
    OutOfRange {
        /// Which field.
        field: &'static str,
        /// What it said.
        value: u64,
    },
    /// A tag, code or kind that is not known.
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it said.
        byte: u8,
    },
    /// Text that is not UTF-8.
    NotUtf8 {
        /// Which field.
        field: &'static str,
    },
    /// A list that must be in strictly ascending order is not.
    NotAscending {
        /// Which field.
        field: &'static str,
    },
    /// An entry's body is not what its checksum speaks of.
    BodyChecksum {
        /// The CRC that came along.
        stated: u32,
        /// The CRC of the body.
        computed: u32,
    },
    /// A HELLO that does not begin with the magic.
    BadMagic,
    /// A HELLO of a speaker that shares no protocol version with this build.
    Version {
        /// Lowest version that the speaker speaks.
        min: u16,
        /// Highest version that the speaker speaks.
        max: u16,
    },
}

/// Takes fields off the front of a slice.
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The shared buffer that `rest` lies in, if it lies in one: then byte strings are slices of it, not copies.
    shared: Option<&'a Bytes>,
}

/// Puts fields behind what a buffer holds.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

/// A value with one layout, wherever it stands.
pub trait Field: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Writer<'_>);

    /// Takes one value; `field` names it in the error.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the reader is of no use then.
    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError>;
}

/// A byte string as it is taken from a reader: shared with what is read, or borrowed of it.
pub trait ByteString<'a>: Sized {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    fn take(from: &mut Reader<'a>, count: usize, field: &'static str) -> Result<Self, DecodeError>;
}

impl<'a> ByteString<'a> for Bytes {
    fn take(from: &mut Reader<'a>, count: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        from.bytes(count, field)
    }
}

impl<'a> ByteString<'a> for &'a [u8] {
    fn take(from: &mut Reader<'a>, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        from.slice(count, field)
    }
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; byte strings will be slices that share its memory, and keep all of it alive.
    pub fn new(bytes: &'a Bytes) -> Reader<'a> {
        Reader {
            rest: bytes,
            shared: Some(bytes),
        }
    }

    /// Reads a slice; byte strings will be copies.
    pub fn copying(slice: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: slice,
            shared: None,
        }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] if anything is left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    /// The next `count` bytes, borrowed.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn slice(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated {
                field,
                needed: count,
                left: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `count` bytes, shared if the reader stands on shared memory.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<Bytes, DecodeError> {
        let slice = self.slice(count, field)?;
        Ok(match self.shared {
            Some(shared) => shared.slice_ref(slice),
            None => Bytes::copy_from_slice(slice),
        })
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.slice(1, field)?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(BigEndian::read_u16(self.slice(2, field)?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(BigEndian::read_u32(self.slice(4, field)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(BigEndian::read_u64(self.slice(8, field)?))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        Ok(BigEndian::read_u128(self.slice(16, field)?))
    }

    /// Eight bytes that someone may count on from: at most [`COUNT_MAX`].
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`].
    pub fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        match self.u64(field)? {
            value if value <= COUNT_MAX => Ok(value),
            value => Err(DecodeError::OutOfRange { field, value }),
        }
    }

    /// One byte, 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`].
    pub fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::OutOfRange {
                field,
                value: u64::from(other),
            }),
        }
    }

    /// Text behind a length of one byte, at most `max` bytes long.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::OutOfRange`], [`DecodeError::NotUtf8`].
    pub fn text8(&mut self, max: usize, field: &'static str) -> Result<String, DecodeError> {
        self.str8(max, field).map(str::to_owned)
    }

    /// Text behind a length of one byte, at most `max` bytes long, borrowed.
    ///
    /// # Errors
    /// As [`Reader::text8`].
    pub fn str8(&mut self, max: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u8(field)?;
        self.str(usize::from(length), max, field)
    }

    /// Text behind a length of two bytes, at most `max` bytes long.
    ///
    /// # Errors
    /// As [`Reader::text8`].
    pub fn text16(&mut self, max: usize, field: &'static str) -> Result<String, DecodeError> {
        let length = self.u16(field)?;
        self.text(usize::from(length), max, field)
    }

    /// Text of `length` bytes, at most `max`.
    ///
    /// # Errors
    /// As [`Reader::text8`].
    pub fn text(&mut self, length: usize, max: usize, field: &'static str) -> Result<String, DecodeError> {
        self.str(length, max, field).map(str::to_owned)
    }

    fn str(&mut self, length: usize, max: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        if length > max {
            return Err(DecodeError::OutOfRange {
                field,
                value: length as u64,
            });
        }
        std::str::from_utf8(self.slice(length, field)?).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// A number of items, each at least `item_bytes_min` long; checked against what is left, so that a list of so many
    /// may be allocated.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] if so many cannot follow.
    pub fn items(&self, count: usize, item_bytes_min: usize, field: &'static str) -> Result<usize, DecodeError> {
        if count > self.rest.len() / item_bytes_min.max(1) {
            return Err(DecodeError::OutOfRange {
                field,
                value: count as u64,
            });
        }
        Ok(count)
    }
}

impl<'a> Writer<'a> {
    /// Writes behind what `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out }
    }

    /// The bytes as they are.
    pub fn slice(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        let mut bytes = [0; 2];
        BigEndian::write_u16(&mut bytes, value);
        self.slice(&bytes);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        let mut bytes = [0; 4];
        BigEndian::write_u32(&mut bytes, value);
        self.slice(&bytes);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        let mut bytes = [0; 8];
        BigEndian::write_u64(&mut bytes, value);
        self.slice(&bytes);
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        let mut bytes = [0; 16];
        BigEndian::write_u128(&mut bytes, value);
        self.slice(&bytes);
    }

    /// One byte, 0 or 1.
    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A length as one byte.
    ///
    /// # Panics
    /// If it does not fit: lengths are checked where a value enters the process.
    pub fn length8(&mut self, length: usize) {
        self.u8(u8::try_from(length).unwrap_or_else(|_| panic!("{length} does not fit a length of one byte")));
    }

    /// A length as two bytes.
    ///
    /// # Panics
    /// As [`Writer::length8`].
    pub fn length16(&mut self, length: usize) {
        self.u16(u16::try_from(length).unwrap_or_else(|_| panic!("{length} does not fit a length of two bytes")));
    }

    /// A length as four bytes.
    ///
    /// # Panics
    /// As [`Writer::length8`].
    pub fn length32(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or_else(|_| panic!("{length} does not fit a length of four bytes")));
    }

    /// Text behind a length of one byte.
    ///
    /// # Panics
    /// As [`Writer::length8`].
    pub fn text8(&mut self, text: &str) {
        self.length8(text.len());
        self.slice(text.as_bytes());
    }

    /// Words for a person behind a length of two bytes; what is beyond `max` bytes is cut off, at a character.
    pub fn words16(&mut self, words: &str, max: usize) {
        let end = (0..=max.min(words.len())).rev().find(|&at| words.is_char_boundary(at));
        let words = &words[..end.unwrap_or(0)];
        self.length16(words.len());
        self.slice(words.as_bytes());
    }
}

impl Field for NodeId {
    fn put(&self, out: &mut Writer<'_>) {
        out.u16(self.0);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        from.u16(field).map(NodeId)
    }
}

impl Field for Slot {
    fn put(&self, out: &mut Writer<'_>) {
        out.u64(self.0);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        from.count(field).map(Slot)
    }
}

impl Field for LogTime {
    fn put(&self, out: &mut Writer<'_>) {
        out.u64(self.0);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        from.count(field).map(LogTime)
    }
}

impl Field for Ballot {
    fn put(&self, out: &mut Writer<'_>) {
        out.u64(self.round);
        self.node.put(out);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let round = from.count(field)?;
        let node = NodeId::take(from, field)?;
        Ok(Ballot { round, node })
    }
}

impl Field for Incarnation {
    fn put(&self, out: &mut Writer<'_>) {
        out.u32(self.generation);
        out.u64(self.token);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let generation = take_generation(from, field)?;
        let token = from.u64(field)?;
        Ok(Incarnation { generation, token })
    }
}

impl Field for Start {
    fn put(&self, out: &mut Writer<'_>) {
        out.u64(self.counter);
        out.u64(self.token);
    }

    fn take(from: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let counter = from.count(field)?;
        let token = from.u64(field)?;
        Ok(Start { counter, token })
    }
}

/// A generation of an incarnation.
///
/// # Errors
/// [`DecodeError::OutOfRange`] above [`GENERATION_MAX`].
pub(super) fn take_generation(from: &mut Reader<'_>, field: &'static str) -> Result<u32, DecodeError> {
    match from.u32(field)? {
        generation if generation <= GENERATION_MAX => Ok(generation),
        generation => Err(DecodeError::OutOfRange {
            field,
            value: u64::from(generation),
        }),
    }
}

impl DecodeError {
    /// The code under which the sender is told and the event is counted.
    pub fn code(&self) -> ErrorCode {
        match self {
            DecodeError::BadMagic => ErrorCode::BadMagic,
            DecodeError::Version { .. } => ErrorCode::BadVersion,
            _ => ErrorCode::BadBody,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated { field, needed, left } => {
                write!(f, "truncated at {field}: {needed} bytes needed, {left} left")
            }
            DecodeError::TrailingBytes { count } => write!(f, "{count} bytes left over behind the last field"),
            DecodeError::OutOfRange { field, value } => write!(f, "{field} cannot be {value}"),
            DecodeError::Unknown { field, byte } => write!(f, "unknown {field} 0x{byte:02x}"),
            DecodeError::NotUtf8 { field } => write!(f, "{field} is not UTF-8"),
            DecodeError::NotAscending { field } => write!(f, "{field} is not in ascending order"),
            DecodeError::BodyChecksum { stated, computed } => {
                write!(f, "entry body has crc {computed:08x}, stated is {stated:08x}")
            }
            DecodeError::BadMagic => write!(f, "the HELLO does not begin with Synod's magic"),
            DecodeError::Version { min, max } => {
                write!(f, "the other side speaks protocol versions {min} to {max}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_takes_what_a_writer_put_and_nothing_is_left_over() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(0xab);
        writer.u16(0x0102);
        writer.u32(3);
        writer.u64(4);
        writer.u128(5);
        writer.flag(true);
        writer.text8("word");
        writer.words16("ähm", 2);
        Slot(7).put(&mut writer);
        let bytes = Bytes::from(out);
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8("a"), Ok(0xab));
        assert_eq!(reader.u16("b"), Ok(0x0102));
        assert_eq!(reader.u32("c"), Ok(3));
        assert_eq!(reader.u64("d"), Ok(4));
        assert_eq!(reader.u128("e"), Ok(5));
        assert_eq!(reader.flag("f"), Ok(true));
        assert_eq!(reader.text8(4, "g"), Ok("word".into()));
        assert_eq!(reader.text16(4, "h"), Ok("ä".into()), "words are cut at a character");
        assert_eq!(Slot::take(&mut reader, "i"), Ok(Slot(7)));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn each_bad_field_is_refused_by_name() {
        let read = |bytes: &'static [u8]| Reader::copying(bytes);
        assert_eq!(
            read(&[0, 1]).u32("field"),
            Err(DecodeError::Truncated {
                field: "field",
                needed: 4,
                left: 2
            })
        );
        assert_eq!(
            read(&[2]).flag("field"),
            Err(DecodeError::OutOfRange {
                field: "field",
                value: 2
            })
        );
        assert_eq!(
            read(&[5, b'a']).text8(4, "field"),
            Err(DecodeError::OutOfRange {
                field: "field",
                value: 5
            })
        );
        assert_eq!(
            read(&[1, 0xff]).text8(4, "field"),
            Err(DecodeError::NotUtf8 { field: "field" })
        );
        assert_eq!(
            read(&[0xff; 8]).count("field"),
            Err(DecodeError::OutOfRange {
                field: "field",
                value: u64::MAX
            })
        );
        assert_eq!(read(&[0; 3]).finish(), Err(DecodeError::TrailingBytes { count: 3 }));
        assert!(read(&[0; 9]).items(4, 3, "field").is_err());
        assert_eq!(read(&[0; 9]).items(3, 3, "field"), Ok(3));
    }

    #[test]
    fn byte_strings_share_the_memory_that_they_stand_in() {
        let bytes = Bytes::from(vec![1, 2, 3, 4]);
        let mut reader = Reader::new(&bytes);
        let taken = reader.bytes(2, "field").expect("two bytes are there");
        assert_eq!(taken.as_ptr(), bytes.as_ptr());
    }
}
