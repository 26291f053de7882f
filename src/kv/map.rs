//! An ordered map with a short way to each key.
//!
//! A search of a tree waits for memory at each level, and where it goes next hangs on what it found: of a batch, one search
//! begins when the other has ended. So the tree holds the order alone. Entries stand beside it, and a hash table leads to
//! them in three steps, whatever the number of keys; each step is the same for all keys of a batch, whose memory is waited
//! for at once ([`OrderedMap::prefetch`]). Invariants:
//! * O1. Tree, table and entries hold the same keys, and tree and table agree on where each entry stands.
//! * O2. Nothing that a caller can see hangs on how keys are hashed, or on where entries stand: the table is asked, and never
//!   walked.
//! * O3. What a call costs hangs on the number of keys by the walk down the tree alone, but where one of the table's shards
//!   is made anew.
//!
//! The table's shards do not shrink: ten bytes or so stay for each key of the time when there were most.

#![expect(clippy::disallowed_types, reason = "the hash table is never walked (O2)")]

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::ops::Bound;

/// Shards of the hash table, a power of two. A table that grows moves all that it holds at once: of ten million keys, a
/// shard's part takes some milliseconds.
const SHARDS: usize = 512;
/// Entries that are allocated together: what is full never moves.
const CHUNK: usize = 4096;

/// Where an entry stands.
type Place = u32;

/// Keys in order, and their values.
#[derive(Clone, Debug)]
pub(super) struct OrderedMap<K, V> {
    order: BTreeMap<K, Place>,
    index: Vec<HashTable<Place>>,
    entries: Entries<K, V>,
    /// By a seed that each node draws: keys that meet in one place of the table cannot be prepared beforehand. It is no defence
    /// against who measures.
    hasher: FixedState,
}

/// One behind the other, without holes.
#[derive(Clone, Debug)]
struct Entries<K, V> {
    /// All are full but perhaps the last; none is empty.
    chunks: Vec<Vec<(K, V)>>,
    /// An empty one for the next: a key that comes and goes may take one each time.
    spare: Option<Vec<(K, V)>>,
}

impl<K, V> Default for OrderedMap<K, V> {
    fn default() -> OrderedMap<K, V> {
        OrderedMap::seeded(0)
    }
}

impl<K, V> OrderedMap<K, V> {
    /// An empty one that hashes by `seed`.
    pub(super) fn seeded(seed: u64) -> OrderedMap<K, V> {
        OrderedMap {
            order: BTreeMap::new(),
            index: vec![HashTable::new(); SHARDS],
            entries: Entries {
                chunks: Vec::new(),
                spare: None,
            },
            hasher: FixedState::with_seed(seed),
        }
    }
}

impl<K: Ord + Hash + Clone, V> OrderedMap<K, V> {
    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What is at `key`.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|place| &self.entries.at(place).1)
    }

    /// The same, to be changed.
    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.find(key).map(|place| &mut self.entries.at_mut(place).1)
    }

    /// Puts a key in that is not there.
    ///
    /// # Panics
    /// If it is.
    pub(super) fn insert(&mut self, key: K, value: V) {
        let (hash, place) = self.put_in_order(key, value);
        self.put_in_table(hash, place);
    }

    /// The same for many: what the table reads for one of them is not waited for before it reads for the next.
    ///
    /// # Panics
    /// If one of them is there.
    pub(super) fn extend(&mut self, entries: impl Iterator<Item = (K, V)>) {
        let mut places = Vec::with_capacity(entries.size_hint().0);
        places.extend(entries.map(|(key, value)| self.put_in_order(key, value)));
        for (hash, place) in places {
            self.put_in_table(hash, place);
        }
    }

    /// Makes room for the `part`-th shard's share of so many keys; nothing behind the last shard. A shard that grows with its
    /// keys reads them all, each time.
    pub(super) fn make_room(&mut self, part: usize, keys: usize) {
        let entries = &self.entries;
        let hash_at = |place: &Place| self.hasher.hash_one(&entries.at(*place).0);
        if let Some(shard) = self.index.get_mut(part) {
            let share = keys / SHARDS;
            shard.reserve(share.saturating_sub(shard.len()), hash_at);
        }
    }

    /// Takes a key out.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let entries = &self.entries;
        let is_key = |place: &Place| entries.at(*place).0.borrow() == key;
        let found = self.index[shard(hash)].find_entry(hash, is_key).ok()?;
        let (place, _) = found.remove();
        let (key, value) = self.entries.swap_remove(place);
        let in_order = self.order.remove::<K>(&key);
        assert_eq!(in_order, Some(place), "O1: tree and table agree");
        self.note_moved(place);
        Some(value)
    }

    /// All keys, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.iter().map(|(key, place)| (key, &self.entries.at(*place).1))
    }

    /// Keys within the bounds, in order.
    pub(super) fn range<'a, Q: Ord + ?Sized>(
        &'a self,
        bounds: (Bound<&Q>, Bound<&Q>),
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let within = self.order.range::<Q, _>(bounds);
        within.map(|(key, place)| (key, &self.entries.at(*place).1))
    }

    /// The highest key.
    pub(super) fn last_key(&self) -> Option<&K> {
        self.order.last_key_value().map(|(key, _)| key)
    }

    /// Has the processor fetch what a look at `keys` and their values will need, for all of them at once; changes nothing.
    /// Each step reads for every key what the step before it has found: its place in the table, its entry, and what `far`
    /// reads behind the value. What a step reads is waited for side by side, since no look hangs on that of another key.
    pub(super) fn prefetch<'q, Q: Hash + ?Sized + 'q>(
        &self,
        keys: impl Iterator<Item = &'q Q>,
        near: impl Fn(&K, &V) -> u64,
        far: impl Fn(&V) -> u64,
    ) where
        K: Borrow<Q>,
    {
        let mut places = Vec::with_capacity(keys.size_hint().1.unwrap_or(0));
        places.extend(keys.filter_map(|key| {
            let hash = self.hasher.hash_one(key);
            // Whoever has the same seven bits of hash: to compare keys would be to wait for the entry.
            self.index[shard(hash)].find(hash, |_| true).copied()
        }));
        let entries = || places.iter().map(|place| self.entries.at(*place));
        // The sums make the compiler read; nobody reads them.
        black_box(entries().fold(0, |sum, (key, value)| sum ^ near(key, value)));
        black_box(entries().fold(0, |sum, (_, value)| sum ^ far(value)));
    }

    /// Frees some of a map that is of no use any more; whether there is more. From then on it may be discarded further, and
    /// nothing else.
    pub(super) fn discard(&mut self, keys: usize) -> bool {
        self.index.pop(); // a shard a call: all of them at once would take long
        for _ in 0..keys {
            if self.order.pop_first().is_none() {
                return false;
            }
            drop(self.entries.pop());
        }
        true
    }

    /// Half of an insertion; the other is to put what it returns in the table.
    fn put_in_order(&mut self, key: K, value: V) -> (u64, Place) {
        let hash = self.hasher.hash_one(&key);
        let place = self.entries.push((key.clone(), value));
        let before = self.order.insert(key, place);
        assert_eq!(before, None, "O1: a key stands there once");
        (hash, place)
    }

    fn put_in_table(&mut self, hash: u64, place: Place) {
        let entries = &self.entries;
        let hash_at = |place: &Place| self.hasher.hash_one(&entries.at(*place).0);
        self.index[shard(hash)].insert_unique(hash, place, hash_at);
    }

    fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Place>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let is_key = |place: &Place| self.entries.at(*place).0.borrow() == key;
        self.index[shard(hash)].find(hash, is_key).copied()
    }

    /// The entry that was the last has come to `place`, or there is none behind it.
    fn note_moved(&mut self, place: Place) {
        let before = self.entries.len();
        if place == before {
            return;
        }
        let (key, _) = self.entries.at(place);
        let hash = self.hasher.hash_one(key);
        let in_order = self.order.get_mut::<K>(key);
        *in_order.expect("O1: what has an entry stands in the tree") = place;
        let in_index = self.index[shard(hash)].find_mut(hash, |at| *at == before);
        *in_index.expect("O1: what has an entry stands in the table") = place;
    }
}

/// The shard of a hash; its table takes the lowest and the highest bits.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<K, V> Entries<K, V> {
    fn len(&self) -> Place {
        let full = self.chunks.len().saturating_sub(1) * CHUNK;
        let len = full + self.chunks.last().map_or(0, Vec::len);
        Place::try_from(len).expect("fewer keys than any memory holds")
    }

    fn at(&self, place: Place) -> &(K, V) {
        let place = place as usize;
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    fn at_mut(&mut self, place: Place) -> &mut (K, V) {
        let place = place as usize;
        &mut self.chunks[place / CHUNK][place % CHUNK]
    }

    fn push(&mut self, entry: (K, V)) -> Place {
        let place = self.len();
        if (place as usize).is_multiple_of(CHUNK) {
            let spare = self.spare.take();
            self.chunks.push(spare.unwrap_or_else(|| Vec::with_capacity(CHUNK)));
        }
        self.chunks[place as usize / CHUNK].push(entry);
        place
    }

    fn pop(&mut self) -> Option<(K, V)> {
        let last = self.chunks.last_mut()?;
        let entry = last.pop();
        if last.is_empty() {
            self.spare = self.chunks.pop();
        }
        entry
    }

    /// Takes an entry out; the last takes its place.
    fn swap_remove(&mut self, place: Place) -> (K, V) {
        let last = self.pop().expect("there is one at `place`");
        if place == self.len() {
            return last;
        }
        std::mem::replace(self.at_mut(place), last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::key::Key;
    use proptest::prelude::*;
    use std::cell::Cell;

    fn map_of(keys: impl Iterator<Item = u64>) -> OrderedMap<u64, u64> {
        let mut map = OrderedMap::default();
        for key in keys {
            map.insert(key, key + 1);
        }
        map
    }

    /// O1, and that the map holds what `model` does.
    fn assert_same(map: &OrderedMap<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert!(map.iter().eq(model), "{map:?} is not {model:?}");
        assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
        assert_eq!(map.last_key(), model.last_key_value().map(|(key, _)| key));
        let in_table: usize = map.index.iter().map(HashTable::len).sum();
        assert_eq!((in_table, map.entries.len() as usize), (model.len(), model.len()));
        for (key, value) in model {
            assert_eq!(map.get(key), Some(value), "at {key}");
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_tree_does(steps in prop::collection::vec((0..60_u64, 0..4), 0..400)) {
            let (mut map, mut model) = (OrderedMap::default(), BTreeMap::new());
            for (at, (key, step)) in steps.into_iter().enumerate() {
                let at = at as u64;
                match (step, map.get_mut(&key)) {
                    (0, _) => assert_eq!(map.remove(&key), model.remove(&key)),
                    (1, _) => {
                        let bounds = (Bound::Excluded(&key), Bound::Unbounded);
                        assert!(map.range(bounds).eq(model.range::<u64, _>(bounds)), "from {key}");
                    }
                    (_, Some(present)) => {
                        *present = at;
                        model.insert(key, at);
                    }
                    (_, None) => {
                        map.insert(key, at);
                        model.insert(key, at);
                    }
                }
            }
            assert_same(&map, &model);
        }
    }

    #[test]
    fn many_keys_are_found_wherever_they_have_moved() {
        // More than one chunk of entries, and shards that have grown more than once.
        let keys = 3 * CHUNK as u64 + 1;
        let mut map = map_of(0..keys);
        let mut model: BTreeMap<u64, u64> = (0..keys).map(|key| (key, key + 1)).collect();
        assert_same(&map, &model);
        for key in (0..keys).filter(|key| key % 5 != 0) {
            assert_eq!(map.remove(&key), model.remove(&key));
        }
        assert_same(&map, &model);
        assert_eq!(map.entries.chunks.len(), 1, "what is left stands without holes");
        for key in (0..keys).step_by(5) {
            assert_eq!(map.remove(&key), model.remove(&key));
        }
        assert_same(&map, &model);
        assert!(map.entries.chunks.is_empty(), "nothing is left");
    }

    #[test]
    fn many_keys_at_once_are_found_and_no_shard_with_room_for_them_grows() {
        let keys = 40 * SHARDS as u64;
        let mut map = map_of([1, keys + 7].into_iter());
        let room = 2 * keys as usize; // no shard has twice its share
        (0..=SHARDS).for_each(|part| map.make_room(part, room));
        let capacities = |map: &OrderedMap<u64, u64>| map.index.iter().map(HashTable::capacity).collect::<Vec<_>>();
        let before = capacities(&map);
        assert!(before.iter().all(|capacity| *capacity >= 80), "{before:?}");
        map.extend((2..keys).map(|key| (key, key + 1)));
        assert_eq!(capacities(&map), before);
        map.extend(std::iter::empty());
        let model = (1..keys).chain([keys + 7]).map(|key| (key, key + 1)).collect();
        assert_same(&map, &model);
    }

    #[test]
    fn keys_are_spread_over_the_table() {
        let mut map = OrderedMap::default();
        for number in 0..100 * SHARDS {
            map.insert(Key::from(format!("{number:016}").as_bytes()), ());
        }
        let most = map.index.iter().map(HashTable::len).max();
        assert!(most < Some(1000), "{most:?} of 100 on the mean in one shard");
    }

    #[test]
    fn a_prefetch_looks_at_an_entry_for_every_key_that_is_there() {
        let map = map_of(0..1000);
        let (near, far) = (Cell::new(0), Cell::new(0));
        let look = |keys: &[u64]| {
            let count = |seen: &Cell<u64>| {
                seen.set(seen.get() + 1);
                0
            };
            map.prefetch(keys.iter(), |_, _| count(&near), |_| count(&far));
            (near.take(), far.take())
        };
        assert_eq!(look(&[7, 500, 999]), (3, 3));
        assert_eq!(look(&[]), (0, 0));
        // Of a key that is not there it may take another's for it: no more than one.
        assert!(look(&[5000]) <= (1, 1));
    }

    #[test]
    fn a_map_of_no_use_is_freed_in_parts() {
        let mut map = map_of(0..10);
        assert!(map.discard(4) && map.discard(4), "there are two left");
        assert_eq!((map.len(), map.entries.len()), (2, 2));
        assert!(!map.discard(4));
        assert!(map.is_empty() && map.entries.chunks.is_empty());
    }
}
