//! Layout of the replicated state in a snapshot: items one behind the other, in blocks of the file.
//!
//! `kind u8`, then by kind: a session, a reply that the session before it keeps, a key with its value. The order is that
//! of [`crate::kv::snapshot`]. Not here: blocks, header and trailer of the file ([`crate::storage::snapshot`]).

use super::answer::{put_answer, put_versioned, take_answer, take_versioned};
use super::body::BODY_BYTES_MAX;
use super::bytes::{DecodeError, Field, Reader, Writer};
use crate::kv::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::kv::session::{IN_FLIGHT_MAX, Position};
use crate::kv::snapshot::{Item, ItemRef, SessionHead};
use crate::kv::{Done, SessionRef};
use crate::paxos::{LogTime, Slot};

const KIND_SESSION: u8 = 1;
const KIND_REPLY: u8 = 2;
const KIND_KEY: u8 = 3;

/// More than any item takes: a key and a value of the longest, or a reply that carries such a value, and what stands
/// beside them.
pub const ITEM_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 128;

/// No key's item takes fewer bytes: so many bytes hold no more keys.
pub const KEY_ITEM_BYTES_MIN: usize = 23;

const _: () = assert!(
    ITEM_BYTES_MAX < BODY_BYTES_MAX,
    "an item came in an entry, and is no larger"
);

/// Appends an item; how many bytes it takes.
pub fn put_item(item: ItemRef<'_>, bytes: &mut Vec<u8>) -> usize {
    let before = bytes.len();
    let mut out = Writer::new(bytes);
    match item {
        ItemRef::Session(head) => put_session(&head, &mut out),
        ItemRef::Reply { number, done } => {
            out.u8(KIND_REPLY);
            out.u64(number);
            done.slot.put(&mut out);
            out.u64(done.revision);
            put_answer(&done.answer, &mut out);
        }
        ItemRef::Key { key, value } => {
            out.u8(KIND_KEY);
            out.length16(key.len());
            out.slice(key);
            put_versioned(value, &mut out);
        }
    }
    bytes.len() - before
}

fn put_session(head: &SessionHead, out: &mut Writer<'_>) {
    out.u8(KIND_SESSION);
    out.u128(head.session.id);
    head.session.opened.put(out);
    out.u64(head.opened_revision);
    head.last.slot.put(out);
    out.length32(head.last.index);
    head.last_time.put(out);
    out.u64(head.low);
    out.length16(head.replies);
}

/// Takes the next item off `from`; its byte strings are copies if the reader copies.
///
/// # Errors
/// Any [`DecodeError`]; what comes behind is of no use then.
pub fn take_item(from: &mut Reader<'_>) -> Result<Item, DecodeError> {
    match from.u8("item kind")? {
        KIND_SESSION => take_session(from).map(Item::Session),
        KIND_REPLY => Ok(Item::Reply {
            number: from.count("reply number")?,
            done: Done {
                slot: Slot::take(from, "reply slot")?,
                revision: from.count("reply revision")?,
                answer: take_answer(from)?,
            },
        }),
        KIND_KEY => {
            let length = usize::from(from.u16("key length")?);
            if length == 0 || length > KEY_BYTES_MAX {
                let (field, value) = ("key length", length as u64);
                return Err(DecodeError::OutOfRange { field, value });
            }
            Ok(Item::Key {
                key: from.slice(length, "key")?.into(),
                value: take_versioned(from)?,
            })
        }
        byte => Err(DecodeError::Unknown {
            field: "item kind",
            byte,
        }),
    }
}

fn take_session(from: &mut Reader<'_>) -> Result<SessionHead, DecodeError> {
    let head = SessionHead {
        session: SessionRef {
            id: from.u128("session id")?,
            opened: Slot::take(from, "session opened")?,
        },
        opened_revision: from.count("session revision")?,
        last: Position {
            slot: Slot::take(from, "session last slot")?,
            index: from.u32("session last index")? as usize,
        },
        last_time: LogTime::take(from, "session last time")?,
        low: from.count("session low")?,
        replies: usize::from(from.u16("session replies")?),
    };
    if head.replies as u64 > IN_FLIGHT_MAX {
        return Err(DecodeError::OutOfRange {
            field: "session replies",
            value: head.replies as u64,
        });
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Answer, Previous, Versioned};
    use bytes::Bytes;

    fn items() -> Vec<Item> {
        let value = Versioned {
            value: Bytes::from_static(b"v"),
            created: 2,
            version: 3,
        };
        vec![
            Item::Session(SessionHead {
                session: SessionRef { id: 7, opened: Slot(2) },
                opened_revision: 1,
                last: Position {
                    slot: Slot(9),
                    index: 4,
                },
                last_time: LogTime(1_000),
                low: 3,
                replies: 1,
            }),
            Item::Reply {
                number: 3,
                done: Done {
                    slot: Slot(9),
                    revision: 3,
                    answer: Answer::Written {
                        previous: Previous::Was(value.clone()),
                    },
                },
            },
            Item::Key {
                key: b"k".as_slice().into(),
                value,
            },
        ]
    }

    fn encoded(item: &Item) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = put_item(item.as_ref(), &mut bytes);
        assert_eq!(count, bytes.len());
        bytes
    }

    #[test]
    fn every_item_comes_back_as_it_was_and_none_that_is_cut_short() {
        for item in items() {
            let bytes = encoded(&item);
            let mut from = Reader::copying(&bytes);
            assert_eq!(take_item(&mut from), Ok(item.clone()));
            from.finish().expect("nothing is left over");
            for end in 0..bytes.len() {
                assert!(
                    take_item(&mut Reader::copying(&bytes[..end])).is_err(),
                    "{item:?} cut at {end}"
                );
            }
        }
    }

    #[test]
    fn no_key_takes_fewer_bytes_than_the_bound_says() {
        let value = Versioned {
            value: Bytes::new(),
            created: 1,
            version: 1,
        };
        let key = Box::default();
        assert_eq!(encoded(&Item::Key { key, value }).len(), KEY_ITEM_BYTES_MIN);
    }

    #[test]
    fn the_largest_item_is_within_its_bound() {
        let value = Versioned {
            value: vec![0; VALUE_BYTES_MAX].into(),
            created: 1,
            version: 1,
        };
        let key = Item::Key {
            key: vec![1; KEY_BYTES_MAX].into(),
            value: value.clone(),
        };
        let reply = Item::Reply {
            number: 1,
            done: Done {
                slot: Slot(1),
                revision: 1,
                answer: Answer::CasFailed { current: Some(value) },
            },
        };
        assert!(encoded(&key).len() <= ITEM_BYTES_MAX && encoded(&reply).len() <= ITEM_BYTES_MAX);
    }
}
