//! A value as the map holds it: two words for its bytes, beside the revisions of its key.
//!
//! Of a million small values a good part is what stands beside them: [`Bytes`] takes four words for each, and three more in
//! a block of their own once it was first shared. Invariants:
//! * The bytes are a block of their own, never a part of the batch or the file that brought them, which they would keep in
//!   memory for as long as the key lives.
//! * To read a large value does not copy it.

use super::command::Versioned;
use bytes::Bytes;
use std::ops::Deref;

/// Longest value that is copied to be read: the answer's frame copies it once more, and to share it would cost as much.
const SMALL_BYTES_MAX: usize = 1024;

/// A value with the revisions of its key, as it stands in the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: Value,
    /// Revision that created the key.
    pub created: u64,
    /// Revision of the key's last change: its version for `cas`.
    pub version: u64,
}

const _: () = assert!(
    size_of::<Stored>() == 32,
    "a word more is a word for each place in the tree, free ones too"
);

/// The bytes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Repr);

/// Which of them hangs on the length alone, so that equal values are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repr {
    Small(Box<[u8]>),
    /// Behind a pointer of one word: beside the other's two it takes no room for a tag.
    Large(Box<Bytes>),
}

impl Stored {
    /// For an answer.
    pub fn to_versioned(&self) -> Versioned {
        Versioned {
            value: match &self.value.0 {
                Repr::Small(bytes) => Bytes::copy_from_slice(bytes),
                Repr::Large(bytes) => Bytes::clone(bytes),
            },
            created: self.created,
            version: self.version,
        }
    }
}

impl From<&[u8]> for Value {
    /// Copies the bytes.
    fn from(bytes: &[u8]) -> Value {
        Value(if bytes.len() <= SMALL_BYTES_MAX {
            Repr::Small(bytes.into())
        } else {
            Repr::Large(Box::new(Bytes::copy_from_slice(bytes)))
        })
    }
}

impl Deref for Value {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Small(bytes) => bytes,
            Repr::Large(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_length_come_back_and_only_large_ones_are_shared() {
        for length in [1, 256, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 1 << 20] {
            let bytes = vec![7; length];
            let stored = Stored {
                value: Value::from(&bytes[..]),
                created: 1,
                version: 2,
            };
            let read = stored.to_versioned();
            assert_eq!((&read.value[..], read.created, read.version), (&bytes[..], 1, 2));
            assert_eq!(*stored.value, *bytes);
            let is_shared = read.value.as_ptr() == stored.value.as_ptr();
            assert_eq!(is_shared, length > SMALL_BYTES_MAX, "{length} bytes");
        }
    }
}
