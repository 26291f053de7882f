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
//! While a snapshot is written, [`Store::commit`] keeps the old version of what it changes and the snapshot has not
//! come to yet (`MapCut`).
//!
//! Not here: who asks, and whether it is a repeat.

use super::command::{Answer, Command, Expect, Op, Previous};
use super::digest;
use super::key::Key;
use super::map::OrderedMap;
use super::snapshot::ItemRef;
use super::stored::{Stored, ValueRef};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What a key that a snapshot skips counts towards its slice: so that no slice walks over any number of them.
const SKIP_BYTES: usize = 64;

/// Keys and values, with the revisions of each key and of the whole.
#[derive(Clone, Debug, Default)]
pub struct Store {
    map: OrderedMap<Key, Stored>,
    revision: u64,
    /// Of all keys and values.
    bytes: u64,
    /// The sum of [`digest::of_key`] over all keys.
    content: u64,
    cut: Option<MapCut>,
}

/// A snapshot of the map under way: keys up to `passed` are written, of the others those that have changed since stand
/// in `kept` as they were, at most the map as it was.
#[derive(Clone, Debug)]
struct MapCut {
    /// The store's revision when it began: a key of a higher version has changed since.
    revision: u64,
    passed: Option<Key>,
    kept: BTreeMap<Key, Stored>,
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

impl<'a> Change<'a> {
    fn set<B: AsRef<[u8]>>(key: &'a B, value: &'a B) -> Change<'a> {
        let (key, value) = (key.as_ref(), value.as_ref());
        Change::Set { key, value }
    }
}

impl Store {
    /// An empty one whose keys are hashed by `seed`.
    pub(super) fn seeded(seed: u64) -> Store {
        Store {
            map: OrderedMap::seeded(seed),
            ..Store::default()
        }
    }

    /// What is at `key`.
    pub fn get(&self, key: &[u8]) -> Option<&Stored> {
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

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of the map, whatever the order in which it came about (`rules.md` 27).
    pub fn content(&self) -> u64 {
        self.content
    }

    /// One revision is gone, as if memory had broken (fault injection).
    pub(super) fn corrupt(&mut self) {
        self.revision += 1;
    }

    /// The revision that the store will have once `change` is committed.
    pub fn revision_after(&self, change: Change<'_>) -> u64 {
        match change {
            Change::Nothing => self.revision,
            Change::Set { .. } | Change::Remove { .. } => self.revision + 1,
        }
    }

    /// The answer of a put, del or cas, and what it will change. Decided when applied, never when proposed.
    pub fn decide<'a, B: AsRef<[u8]>>(&self, op: &'a Op<B>) -> (Answer, Change<'a>) {
        match op {
            // Whatever is there: the only look for the key is the commit's.
            Op::Put {
                key,
                value,
                if_absent: false,
                want_previous: false,
            } => (written(None, false), Change::set(key, value)),
            Op::Put {
                key,
                value,
                if_absent,
                want_previous,
            } => match self.get(key.as_ref()) {
                Some(current) if *if_absent => (
                    Answer::Exists {
                        current: current.to_versioned(),
                    },
                    Change::Nothing,
                ),
                current => (written(current, *want_previous), Change::set(key, value)),
            },
            Op::Del { key, want_previous } => match self.get(key.as_ref()) {
                None => (Answer::NotFound, Change::Nothing),
                current => (written(current, *want_previous), Change::Remove { key: key.as_ref() }),
            },
            Op::Cas {
                key,
                expect,
                value,
                want_previous,
            } => match self.get(key.as_ref()) {
                Some(current) if expect.is_met_by(current) => {
                    (written(Some(current), *want_previous), Change::set(key, value))
                }
                current => (
                    Answer::CasFailed {
                        current: current.map(Stored::to_versioned),
                    },
                    Change::Nothing,
                ),
            },
            Op::Open | Op::Close => unreachable!("OPEN and CLOSE are about sessions and never reach the store"),
        }
    }

    /// Changes nothing: what `commands` will come to is fetched side by side (`OrderedMap::prefetch`).
    pub(super) fn prefetch<B: AsRef<[u8]>>(&self, commands: &[Command<B>]) {
        let keys = commands.iter().filter_map(|command| command.op.key());
        self.map.prefetch(
            keys.map(AsRef::as_ref),
            |key, value| key.first().map_or(0, |byte| u64::from(*byte)) ^ value.digest(),
            Stored::touch,
        );
    }

    /// Makes a decided change.
    pub fn commit(&mut self, change: Change<'_>) {
        self.revision = self.revision_after(change);
        match change {
            Change::Nothing => {}
            Change::Set { key, value } => self.set(key, value),
            Change::Remove { key } => {
                let removed = self.map.remove(key);
                let old = removed.expect("a removal was decided for a key that is there");
                self.bytes -= (key.len() + old.value().len()) as u64;
                self.content = self.content.wrapping_sub(old.digest());
                if let Some(cut) = &mut self.cut {
                    cut.keep(key, old);
                }
            }
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        let version = self.revision;
        let mut new = ValueRef {
            value,
            created: version,
            version,
        };
        self.bytes += value.len() as u64;
        let Some(present) = self.map.get_mut(key) else {
            let digest = digest::of_key(key, new);
            self.bytes += key.len() as u64;
            self.content = self.content.wrapping_add(digest);
            self.map.insert(key.into(), Stored::new(new, digest));
            return;
        };
        new.created = present.created();
        let digest = digest::of_key(key, new);
        self.content = self.content.wrapping_sub(present.digest()).wrapping_add(digest);
        self.bytes -= present.value().len() as u64;
        if let Some(cut) = &mut self.cut {
            cut.keep(key, std::mem::replace(present, Stored::new(new, digest)));
        } else {
            present.replace(new, digest);
        }
    }

    /// Begins a snapshot of the map as it is now; one under way is given up.
    pub(super) fn begin_cut(&mut self) {
        self.cut = Some(MapCut {
            revision: self.revision,
            passed: None,
            kept: BTreeMap::new(),
        });
    }

    /// Gives the next keys of the snapshot, in order, until what `give` says they take reaches `bytes_max`. Whether there
    /// are more.
    pub(super) fn next_of_cut(&mut self, bytes_max: usize, give: &mut dyn FnMut(ItemRef<'_>) -> usize) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        let from = cut.passed.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut present = self.map.range::<[u8]>((from, Bound::Unbounded)).peekable();
        let mut last: Option<Key> = None;
        let mut bytes = 0;
        let is_done = loop {
            if bytes >= bytes_max {
                break false;
            }
            let kept = cut.kept.first_key_value();
            let is_kept = match (present.peek(), kept) {
                (None, None) => break true,
                (Some((key, _)), Some((kept, _))) => kept <= *key,
                (present, _) => present.is_none(),
            };
            if is_kept && let Some((key, value)) = cut.kept.pop_first() {
                present.next_if(|(present, _)| **present == key);
                bytes += give(ItemRef::Key {
                    key: &key,
                    value: value.view(),
                });
                last = Some(key);
            } else if let Some((key, value)) = present.next() {
                let value = value.view();
                let is_of_cut = value.version <= cut.revision;
                bytes += if is_of_cut {
                    give(ItemRef::Key { key, value })
                } else {
                    SKIP_BYTES
                };
                if bytes >= bytes_max {
                    last = Some(key.clone());
                }
            }
        };
        if is_done {
            self.cut = None;
        } else if last.is_some() {
            cut.passed = last;
        }
        !is_done
    }

    /// Gives up a snapshot under way.
    pub(super) fn end_cut(&mut self) {
        self.cut = None;
    }

    /// Puts keys of a snapshot back.
    pub(super) fn load(&mut self, keys: impl Iterator<Item = (Key, Stored)>) {
        let (bytes, content) = (&mut self.bytes, &mut self.content);
        self.map.extend(keys.inspect(|(key, value)| {
            *bytes += (key.len() + value.value().len()) as u64;
            *content = content.wrapping_add(value.digest());
        }));
    }

    /// Makes one part of the room for so many keys, counted from 0 ([`OrderedMap::make_room`]).
    pub(super) fn make_room(&mut self, part: usize, keys: usize) {
        self.map.make_room(part, keys);
    }

    /// The revision that a snapshot was taken at.
    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// The highest key.
    pub(super) fn last_key(&self) -> Option<&[u8]> {
        self.map.last_key().map(|key| &**key)
    }

    /// Frees some of the memory of a store that is of no use any more; whether there is more.
    pub(super) fn discard(&mut self, keys: usize) -> bool {
        self.map.discard(keys)
    }
}

impl MapCut {
    /// A version is no longer that of its key: it is kept if the snapshot has it and has not come to it yet.
    fn keep(&mut self, key: &[u8], old: Stored) {
        let is_written = self.passed.as_deref().is_some_and(|passed| key <= passed);
        if !is_written && old.version() <= self.revision {
            self.kept.insert(key.into(), old);
        }
    }
}

impl<B: AsRef<[u8]>> Expect<B> {
    fn is_met_by(&self, current: &Stored) -> bool {
        match self {
            Expect::Value(value) => *value.as_ref() == *current.value(),
            Expect::Version(version) => *version == current.version(),
        }
    }
}

fn written(current: Option<&Stored>, want_previous: bool) -> Answer {
    let previous = match current {
        _ if !want_previous => Previous::NotAsked,
        None => Previous::Absent,
        Some(current) => Previous::Was(current.to_versioned()),
    };
    Answer::Written { previous }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Versioned;
    use crate::kv::testing::{cas, cas_version, del, put, put_if_absent, versioned, with_previous};
    use bytes::Bytes;

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

    fn at_k(store: &Store) -> Option<Versioned> {
        store.get(b"k").map(Stored::to_versioned)
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
            let before = at_k(&store);
            assert_eq!(run(&mut store, &op), answer, "{op:?} on {found:?}");
            let left = left.map(|(value, created, version)| versioned(value, created, version));
            assert_eq!(at_k(&store), left, "{op:?} on {found:?}");
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
        assert_eq!(at_k(&store), Some(versioned("a", 3, 3)));
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
        assert_eq!(at_k(&store), Some(versioned("a", 5, 7)));
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
