//! A key as the map holds it: short ones stand in the tree itself.
//!
//! A look-up compares with some two dozen keys on its way. If each stood in an allocation of its own, each comparison would
//! be another place in memory, and a key of 16 bytes would take 48. Invariant: ordered as the bytes are.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Deref;

/// Longest key that stands in the tree: what is left of three words beside its length and the tag.
const SHORT_BYTES_MAX: usize = 22;

/// A key.
#[derive(Clone, Debug)]
pub(super) struct Key(Repr);

#[derive(Clone, Debug)]
enum Repr {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 24, "as large as three words, whatever the key");

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Key {
        Key(match u8::try_from(key.len()) {
            Ok(length) if key.len() <= SHORT_BYTES_MAX => {
                let mut bytes = [0; SHORT_BYTES_MAX];
                bytes[..key.len()].copy_from_slice(key);
                Repr::Short { length, bytes }
            }
            _ => Repr::Long(key.into()),
        })
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
    fn cmp(&self, other: &Key) -> Ordering {
        (**self).cmp(&**other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_are_ordered_as_their_bytes_are() {
        let mut keys: Vec<Vec<u8>> = (0..50).map(|length| vec![b'k'; length]).collect();
        keys.extend((20..25).map(|length| [vec![b'k'; length], vec![0]].concat()));
        for a in &keys {
            assert_eq!(&*Key::from(&a[..]), &a[..]);
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
