//! The ordered map with its revisions.
//!
//! Invariants (`rules.md` 21):
//! * S1. The revision goes up by one for each command that changed anything, and never otherwise.
//! * S2. `created <= version <= revision` for every key, and no two keys share a version: it never repeats, also
//!   after deletion, since every change takes a new revision.
//!
//! A write is two steps. [`Store::decide`] finds the answer and changes nothing; [`Store::commit`] makes the change.
//! Between the two, the session decides whether it has room to keep that answer ([`super::session`]).
//!
//! Not here: who asks, and whether it is a repeat.

use super::command::{Answer, Expect, Op, Previous, Versioned};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Keys and values, with the revisions of each key and of the whole.
#[derive(Clone, Debug, Default)]
pub struct Store {
    map: BTreeMap<Box<[u8]>, Versioned>,
    revision: u64,
}

/// What a decided command will do to the map. Borrows from the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Nothing: the answer is no.
    Nothing,
    /// Sets a key.
    Set {
        /// Which.
        key: &'a [u8],
        /// To what.
        value: &'a [u8],
    },
    /// Removes a key that is there.
    Remove {
        /// Which.
        key: &'a [u8],
    },
}

impl Store {
    /// What is at `key`. Sharing the value's bytes, not copying them.
    pub fn get(&self, key: &[u8]) -> Option<&Versioned> {
        self.map.get(key)
    }

    /// Commands that have changed anything so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Number of keys.
    pub fn keys(&self) -> usize {
        self.map.len()
    }

    /// The revision that the store will have once `change` is committed.
    pub fn revision_after(&self, change: Change<'_>) -> u64 {
        match change {
            Change::Nothing => self.revision,
            Change::Set { .. } | Change::Remove { .. } => self.revision + 1,
        }
    }

    /// The answer of a put, del or cas, and what it will change. Decided when applied, never when proposed.
    pub fn decide<'a>(&self, op: &'a Op) -> (Answer, Change<'a>) {
        match op {
            Op::Put {
                key,
                value,
                if_absent,
                want_previous,
            } => match self.get(key) {
                Some(current) if *if_absent => (
                    Answer::Exists {
                        current: current.clone(),
                    },
                    Change::Nothing,
                ),
                current => (written(current, *want_previous), Change::Set { key, value }),
            },
            Op::Del { key, want_previous } => match self.get(key) {
                None => (Answer::NotFound, Change::Nothing),
                current => (written(current, *want_previous), Change::Remove { key }),
            },
            Op::Cas {
                key,
                expect,
                value,
                want_previous,
            } => match self.get(key) {
                Some(current) if expect.is_met_by(current) => {
                    (written(Some(current), *want_previous), Change::Set { key, value })
                }
                current => (
                    Answer::CasFailed {
                        current: current.cloned(),
                    },
                    Change::Nothing,
                ),
            },
            Op::Open | Op::Close => unreachable!("OPEN and CLOSE are about sessions and never reach the store"),
        }
    }

    /// Makes a decided change.
    pub fn commit(&mut self, change: Change<'_>) {
        self.revision = self.revision_after(change);
        match change {
            Change::Nothing => {}
            Change::Set { key, value } => self.set(key, value),
            Change::Remove { key } => {
                let removed = self.map.remove(key);
                assert!(removed.is_some(), "a removal was decided for a key that is not there");
            }
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        // Copied out of the batch: a slice of it would keep the whole batch in memory for as long as the key lives.
        let value = Bytes::copy_from_slice(value);
        match self.map.get_mut(key) {
            Some(present) => {
                present.value = value;
                present.version = self.revision;
            }
            None => {
                let fresh = Versioned {
                    value,
                    created: self.revision,
                    version: self.revision,
                };
                self.map.insert(key.into(), fresh);
            }
        }
    }
}

impl Expect {
    fn is_met_by(&self, current: &Versioned) -> bool {
        match self {
            Expect::Value(value) => *value == current.value,
            Expect::Version(version) => *version == current.version,
        }
    }
}

fn written(current: Option<&Versioned>, want_previous: bool) -> Answer {
    let previous = match current {
        _ if !want_previous => Previous::NotAsked,
        None => Previous::Absent,
        Some(current) => Previous::Was(current.clone()),
    };
    Answer::Written { previous }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::testing::{cas, cas_version, del, put, put_if_absent, versioned, with_previous};

    /// What a command finds, what it answers, what is there afterwards, and by how much the revision rose.
    struct Case {
        found: Option<&'static str>,
        op: Op,
        answer: Answer,
        left: Option<(&'static str, u64, u64)>,
    }

    /// A store at revision 7 in which `k`, if present, was created at 5 and last changed at 7.
    fn store_with(found: Option<&str>) -> Store {
        let mut store = Store::default();
        for op in [put("x", "1"), put("x", "2"), put("x", "3"), put("x", "4")] {
            run(&mut store, &op);
        }
        for op in [put("k", "old"), put("x", "5"), put("k", found.unwrap_or("-"))] {
            run(&mut store, &op);
        }
        if found.is_none() {
            store.map.remove(b"k".as_slice());
        }
        assert_eq!(store.revision(), 7);
        store
    }

    fn run(store: &mut Store, op: &Op) -> Answer {
        let (answer, change) = store.decide(op);
        store.commit(change);
        answer
    }

    #[test]
    fn every_write_has_one_answer_and_one_effect() {
        let plain = || Answer::Written {
            previous: Previous::NotAsked,
        };
        let was = |value| Answer::Written {
            previous: Previous::Was(versioned(value, 5, 7)),
        };
        let absent = || Answer::Written {
            previous: Previous::Absent,
        };
        let failed = |current: Option<&str>| Answer::CasFailed {
            current: current.map(|value| versioned(value, 5, 7)),
        };
        let exists = |value| Answer::Exists {
            current: versioned(value, 5, 7),
        };
        #[rustfmt::skip]
        let table = [
            Case { found: None,      op: put("k", "b"),                              answer: plain(),          left: Some(("b", 8, 8)) },
            Case { found: Some("a"), op: put("k", "b"),                              answer: plain(),          left: Some(("b", 5, 8)) },
            // The same value again is a change: the version rises.
            Case { found: Some("a"), op: put("k", "a"),                              answer: plain(),          left: Some(("a", 5, 8)) },
            Case { found: None,      op: with_previous(put("k", "b")),               answer: absent(),         left: Some(("b", 8, 8)) },
            Case { found: Some("a"), op: with_previous(put("k", "b")),               answer: was("a"),         left: Some(("b", 5, 8)) },
            Case { found: None,      op: put_if_absent("k", "b"),                    answer: plain(),          left: Some(("b", 8, 8)) },
            Case { found: None,      op: with_previous(put_if_absent("k", "b")),     answer: absent(),         left: Some(("b", 8, 8)) },
            Case { found: Some("a"), op: put_if_absent("k", "b"),                    answer: exists("a"),      left: Some(("a", 5, 7)) },
            // The empty value is a value.
            Case { found: Some(""),  op: put_if_absent("k", "b"),                    answer: exists(""),       left: Some(("", 5, 7)) },
            Case { found: None,      op: del("k"),                                   answer: Answer::NotFound, left: None },
            Case { found: None,      op: with_previous(del("k")),                    answer: Answer::NotFound, left: None },
            Case { found: Some("a"), op: del("k"),                                   answer: plain(),          left: None },
            Case { found: Some("a"), op: with_previous(del("k")),                    answer: was("a"),         left: None },
            Case { found: Some("a"), op: cas("k", "a", "b"),                         answer: plain(),          left: Some(("b", 5, 8)) },
            Case { found: Some("a"), op: with_previous(cas("k", "a", "b")),          answer: was("a"),         left: Some(("b", 5, 8)) },
            Case { found: Some("a"), op: cas("k", "c", "b"),                         answer: failed(Some("a")), left: Some(("a", 5, 7)) },
            Case { found: None,      op: cas("k", "a", "b"),                         answer: failed(None),     left: None },
            // An absent key is not an empty value.
            Case { found: None,      op: cas("k", "", "b"),                          answer: failed(None),     left: None },
            Case { found: Some("a"), op: cas_version("k", 7, "b"),                   answer: plain(),          left: Some(("b", 5, 8)) },
            Case { found: Some("a"), op: cas_version("k", 5, "b"),                   answer: failed(Some("a")), left: Some(("a", 5, 7)) },
            Case { found: Some("a"), op: cas_version("k", 8, "b"),                   answer: failed(Some("a")), left: Some(("a", 5, 7)) },
            Case { found: None,      op: cas_version("k", 0, "b"),                   answer: failed(None),     left: None },
        ];
        for Case {
            found,
            op,
            answer,
            left,
        } in table
        {
            let mut store = store_with(found);
            let before = store.get(b"k").cloned();
            assert_eq!(run(&mut store, &op), answer, "{op:?} on {found:?}");
            let left = left.map(|(value, created, version)| versioned(value, created, version));
            assert_eq!(store.get(b"k"), left.as_ref(), "{op:?} on {found:?}");
            let changed = before != left;
            assert_eq!(store.revision(), 7 + u64::from(changed), "{op:?} on {found:?}");
        }
    }

    #[test]
    fn a_version_never_repeats_also_after_deletion() {
        let mut store = Store::default();
        run(&mut store, &put("k", "a"));
        run(&mut store, &del("k"));
        run(&mut store, &put("k", "a"));
        assert_eq!(store.get(b"k"), Some(&versioned("a", 3, 3)));
        assert_eq!(
            run(&mut store, &cas_version("k", 1, "stolen")),
            Answer::CasFailed {
                current: Some(versioned("a", 3, 3))
            }
        );
    }

    #[test]
    fn a_decision_that_is_not_committed_changes_nothing() {
        let mut store = store_with(Some("a"));
        let op = put("k", "b");
        let (_, change) = store.decide(&op);
        assert_eq!(store.revision_after(change), 8);
        assert_eq!(store.get(b"k"), Some(&versioned("a", 5, 7)));
        store.commit(Change::Nothing);
        assert_eq!(store.revision(), 7);
    }

    #[test]
    fn a_stored_value_does_not_pin_the_batch_that_brought_it() {
        let batch = Bytes::from(vec![b'v'; 1 << 20]);
        let op = Op::Put {
            key: Bytes::from_static(b"k"),
            value: batch.slice(10..12),
            if_absent: false,
            want_previous: false,
        };
        let mut store = Store::default();
        run(&mut store, &op);
        drop(op);
        assert!(batch.is_unique(), "the store holds a slice of the batch");
    }
}
