//! A value as the map holds it: its bytes in a block of their own; beside the pointer to it, in the map's entry, what a
//! write must know of the value that it replaces.
//!
//! Of a million small values a good part is what stands beside them: [`Bytes`] takes four words for each, and three more in
//! a block of their own once it was first shared. And most writes come to a key that was not touched for long, whose
//! memory is far away: each place that must be read before it can be written is waited for. Invariants:
//! * The bytes are a block of their own, never a part of the batch or the file that brought them, which they would keep in
//!   memory for as long as the key lives.
//! * To replace a small value by one of the same length reads nothing of its block.
//! * To read a large value does not copy it.

use super::command::Versioned;
use bytes::Bytes;
use std::fmt;

/// Longest value that is copied to be read: the answer's frame copies it once more, and to share it would cost as much.
const SMALL_BYTES_MAX: usize = 1024;
/// What a processor fetches at once.
const CACHE_LINE_BYTES: usize = 64;
/// What stands before the bytes of a small value: its version. A block of 256 bytes takes no more memory with it.
const HEAD_BYTES: usize = size_of::<u64>();

/// A value with the revisions of its key, wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueRef<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Revision that created the key.
    pub created: u64,
    /// Revision of the key's last change: its version for `cas`.
    pub version: u64,
}

/// A value with the revisions of its key, as it stands in the map.
#[derive(Clone)]
pub struct Stored {
    block: Block,
    created: u64,
    digest: u64,
}

const _: () = assert!(size_of::<Stored>() == 32, "a word more is a word for each key");

/// Which of them hangs on the length of the value alone.
#[derive(Clone)]
enum Block {
    /// The version in eight bytes, and the value behind it.
    Small(Box<[u8]>),
    /// The version and the value, behind a pointer of one word: beside the other's two it takes no room for a tag.
    Large(Box<(u64, Bytes)>),
}

impl Stored {
    /// A copy of `of`, which adds `digest` to the digest of the content.
    pub fn new(of: ValueRef<'_>, digest: u64) -> Stored {
        Stored {
            block: Block::new(of),
            created: of.created,
            digest,
        }
    }

    /// Becomes [`Stored::new`] of the same; a small value of the same length is written over.
    pub fn replace(&mut self, of: ValueRef<'_>, digest: u64) {
        (self.created, self.digest) = (of.created, digest);
        match &mut self.block {
            Block::Small(block) if block.len() == HEAD_BYTES + of.value.len() => {
                let (version, value) = block.split_at_mut(HEAD_BYTES);
                version.copy_from_slice(&of.version.to_be_bytes());
                value.copy_from_slice(of.value);
            }
            block => *block = Block::new(of),
        }
    }

    /// The bytes of the value.
    pub fn value(&self) -> &[u8] {
        match &self.block {
            Block::Small(block) => &block[HEAD_BYTES..],
            Block::Large(large) => &large.1,
        }
    }

    /// See [`ValueRef::created`].
    pub fn created(&self) -> u64 {
        self.created
    }

    /// See [`ValueRef::version`].
    pub fn version(&self) -> u64 {
        match &self.block {
            Block::Small(block) => {
                u64::from_be_bytes(*block.first_chunk().expect("the version stands before the value"))
            }
            Block::Large(large) => large.0,
        }
    }

    /// Reads of each of the processor's cache lines that a small value stands in, wherever it begins; what it reads means
    /// nothing.
    pub(super) fn touch(&self) -> u64 {
        match &self.block {
            Block::Small(block) => {
                let lines = block.iter().step_by(CACHE_LINE_BYTES).chain(block.last());
                lines.map(|byte| u64::from(*byte)).sum()
            }
            Block::Large(_) => 0,
        }
    }

    /// What it adds to the digest of the content, as it was told.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The value with its revisions.
    pub fn view(&self) -> ValueRef<'_> {
        ValueRef {
            value: self.value(),
            created: self.created,
            version: self.version(),
        }
    }

    /// For an answer.
    pub fn to_versioned(&self) -> Versioned {
        match &self.block {
            Block::Small(_) => self.view().to_versioned(),
            Block::Large(large) => Versioned {
                value: large.1.clone(),
                created: self.created,
                version: large.0,
            },
        }
    }
}

impl Block {
    fn new(of: ValueRef<'_>) -> Block {
        if of.value.len() <= SMALL_BYTES_MAX {
            Block::Small([&of.version.to_be_bytes(), of.value].concat().into())
        } else {
            Block::Large(Box::new((of.version, Bytes::copy_from_slice(of.value))))
        }
    }
}

impl Versioned {
    /// The same, borrowed.
    pub fn view(&self) -> ValueRef<'_> {
        ValueRef {
            value: &self.value,
            created: self.created,
            version: self.version,
        }
    }
}

impl ValueRef<'_> {
    /// A copy for an answer.
    pub fn to_versioned(self) -> Versioned {
        Versioned {
            value: Bytes::copy_from_slice(self.value),
            created: self.created,
            version: self.version,
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8], revision: u64) -> ValueRef<'_> {
        ValueRef {
            value,
            created: revision,
            version: revision + 1,
        }
    }

    #[test]
    fn values_of_any_length_come_back_and_only_large_ones_are_shared() {
        for length in [0, 1, 256, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 1 << 20] {
            let bytes = vec![7; length];
            let stored = Stored::new(of(&bytes, 1), 99);
            assert_eq!((stored.view(), stored.digest()), (of(&bytes, 1), 99));
            let read = stored.to_versioned();
            assert_eq!(read.view(), of(&bytes, 1));
            let is_shared = length > 0 && read.value.as_ptr() == stored.value().as_ptr();
            assert_eq!(is_shared, length > SMALL_BYTES_MAX, "{length} bytes");
        }
    }

    #[test]
    fn what_is_written_over_another_is_as_new_whatever_stood_there() {
        let lengths = [0, 1, 2, SMALL_BYTES_MAX, SMALL_BYTES_MAX + 1, 5000];
        for (before, after) in lengths.iter().flat_map(|one| lengths.map(|other| (*one, other))) {
            let mut stored = Stored::new(of(&vec![1; before], 10), 1);
            let read = stored.to_versioned();
            let bytes = vec![2; after];
            stored.replace(of(&bytes, 20), 2);
            assert_eq!(
                (stored.view(), stored.digest()),
                (of(&bytes, 20), 2),
                "{before}, {after}"
            );
            assert_eq!(read.view(), of(&vec![1; before], 10), "what was read stays");
        }
    }
}
