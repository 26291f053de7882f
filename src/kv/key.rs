//! A key as the map holds it: short ones stand in the tree and in the entry themselves, long ones are shared by both.
//!
//! A walk down the tree compares with some two dozen keys. If each stood in an allocation of its own, each comparison would
//! be another place in memory, and a key of 16 bytes would take 48. Two short ones are compared as numbers. Invariant:
//! ordered, equal and hashed as the bytes are.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// Longest key without an allocation: what is left of three words beside its length and the tag.
const SHORT_BYTES_MAX: usize = 22;

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Key(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Arc<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24, "as large as three words, whatever the key");

impl Key {
    /// The same bytes as a key without an allocation; none if they are too many.
    fn short(key: &[u8]) -> Option<Key> {
        let length = u8::try_from(key.len()).ok().filter(|_| key.len() <= SHORT_BYTES_MAX)?;
        let mut bytes = [0; SHORT_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        Some(Key(Repr::Short { length, bytes }))
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Key {
        Key::short(key).unwrap_or_else(|| Key(Repr::Long(key.into())))
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Short { length, bytes } => &bytes[..usize::from(*length)],
            Repr::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (**self).hash(hasher);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Key) -> Ordering {
        match (&self.0, &other.0) {
            (
                Repr::Short { length, bytes },
                Repr::Short {
                    length: n,
                    bytes: others,
                },
            ) => words(bytes, *length).cmp(&words(others, *n)),
            _ => (**self).cmp(&**other),
        }
    }
}

/// A short key as numbers in the order of its bytes. What it does not fill are zeros, so of two keys that differ only in
/// zeros at the end the shorter comes first, as it must.
#[inline]
fn words(bytes: &[u8; SHORT_BYTES_MAX], length: u8) -> (u128, u64) {
    let (head, tail) = bytes
        .split_first_chunk()
        .expect("a short key has room for sixteen bytes");
    let mut last = [0; 8];
    last[..SHORT_BYTES_MAX - 16].copy_from_slice(tail);
    last[7] = length;
    (u128::from_be_bytes(*head), u64::from_be_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn keys_of_any_length_are_ordered_and_hashed_as_their_bytes_are() {
        let hasher = foldhash::fast::FixedState::default();
        let mut keys: Vec<Vec<u8>> = (0..50).map(|length| vec![b'k'; length]).collect();
        keys.extend((20..25).map(|length| [vec![b'k'; length], vec![0]].concat()));
        keys.extend((0..25).map(|length| vec![0; length]));
        keys.extend((0..25).map(|at| (0..25).map(|byte| if byte == at { 0xff } else { b'k' }).collect()));
        for a in &keys {
            assert_eq!(&*Key::from(&a[..]), &a[..]);
            assert_eq!(hasher.hash_one(Key::from(&a[..])), hasher.hash_one(&a[..]));
            for b in &keys {
                assert_eq!(
                    Key::from(&a[..]).cmp(&Key::from(&b[..])),
                    a.cmp(b),
                    "{} {}",
                    a.len(),
                    b.len()
                );
            }
        }
    }
}
