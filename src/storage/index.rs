//! Where the entry of each slot stands in the log: for peers that catch up.
//!
//! Holds the place of the *last* ACCEPTED, LEARNED or COPIED record of each slot: by `Record::ChosenUpto`, that is the one that
//! was chosen, once the slot is chosen. Twelve bytes a slot, in chunks, so that a slot far away costs one chunk and
//! not all that lies between.
//!
//! Invariant: nothing stands here at or below a slot up to which a snapshot was *fetched* ([`SlotIndex::forget_upto`]). No
//! record says which of the entries that were voted for there were chosen: that was decided elsewhere.

use super::unit::Position;
use crate::paxos::Slot;
use std::collections::BTreeMap;

/// Slots in one chunk.
const CHUNK_SLOTS: u64 = 512;

/// The place of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: Position,
    /// Prefix, head and body; never 0.
    pub(super) bytes: u32,
}

/// The places of all entries.
#[derive(Debug, Default)]
pub(super) struct SlotIndex {
    chunks: BTreeMap<u64, Box<[Place]>>,
}

const NOWHERE: Place = Place {
    at: Position { segment: 0, offset: 0 },
    bytes: 0,
};

impl SlotIndex {
    /// Notes the newest record of a slot.
    pub(super) fn put(&mut self, slot: Slot, place: Place) {
        let chunk = self.chunks.entry(slot.0 / CHUNK_SLOTS);
        let chunk = chunk.or_insert_with(|| vec![NOWHERE; CHUNK_SLOTS as usize].into_boxed_slice());
        chunk[(slot.0 % CHUNK_SLOTS) as usize] = place;
    }

    /// Forgets what stands in segments up to `segment`, which hold no slot above `highest`.
    pub(super) fn forget(&mut self, segment: u32, highest: Slot) {
        let first_kept = highest.0 / CHUNK_SLOTS + 1;
        let later = self.chunks.split_off(&first_kept);
        self.chunks.retain(|_, chunk| {
            for place in chunk.iter_mut().filter(|place| place.at.segment <= segment) {
                *place = NOWHERE;
            }
            chunk.iter().any(|place| place.bytes > 0)
        });
        self.chunks.extend(later);
    }

    /// Forgets everything up to `slot`.
    pub(super) fn forget_upto(&mut self, slot: Slot) {
        let border = slot.0 / CHUNK_SLOTS;
        self.chunks = self.chunks.split_off(&border);
        if let Some(chunk) = self.chunks.get_mut(&border) {
            chunk[..=(slot.0 % CHUNK_SLOTS) as usize].fill(NOWHERE);
        }
    }

    /// Every slot above this one that has a place, with it.
    pub(super) fn above(&self, slot: Slot) -> impl Iterator<Item = (Slot, Place)> {
        let chunks = self.chunks.range(slot.0 / CHUNK_SLOTS..);
        let places = chunks.flat_map(|(number, chunk)| {
            let slots = (number * CHUNK_SLOTS..).map(Slot);
            slots.zip(chunk.iter().copied())
        });
        places.filter(move |(found, place)| *found > slot && place.bytes > 0)
    }

    /// Where the newest record of a slot stands.
    pub(super) fn get(&self, slot: Slot) -> Option<Place> {
        let chunk = self.chunks.get(&(slot.0 / CHUNK_SLOTS))?;
        let place = chunk[(slot.0 % CHUNK_SLOTS) as usize];
        (place.bytes > 0).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_of_a_slot_is_kept_and_others_are_nowhere() {
        let mut index = SlotIndex::default();
        let place = |offset| Place {
            at: Position { segment: 1, offset },
            bytes: 1,
        };
        index.put(Slot(1), place(10));
        index.put(Slot(1), place(20));
        index.put(Slot(1 << 62), place(30));
        assert_eq!(index.get(Slot(1)), Some(place(20)));
        assert_eq!(index.get(Slot(1 << 62)), Some(place(30)));
        assert_eq!((index.get(Slot(2)), index.get(Slot(600))), (None, None));
        assert_eq!(index.above(Slot(0)).count(), 2);
        let above: Vec<(Slot, Place)> = index.above(Slot(1)).collect();
        assert_eq!(above, [(Slot(1 << 62), place(30))]);
    }

    #[test]
    fn what_stood_in_removed_segments_is_forgotten_and_nothing_else() {
        let mut index = SlotIndex::default();
        let place = |segment| Place {
            at: Position { segment, offset: 1 },
            bytes: 1,
        };
        for slot in 1..=2000 {
            index.put(Slot(slot), place(if slot <= 1000 { 1 } else { 2 }));
        }
        index.put(Slot(7), place(2));
        index.forget(1, Slot(1000));
        assert_eq!(index.get(Slot(7)), Some(place(2)), "written again later");
        assert_eq!((index.get(Slot(1000)), index.get(Slot(1001))), (None, Some(place(2))));
        index.forget(2, Slot(2000));
        assert!(index.chunks.is_empty());
    }

    #[test]
    fn up_to_a_slot_everything_is_forgotten_and_nothing_behind_it() {
        let mut index = SlotIndex::default();
        let at = Position { segment: 1, offset: 1 };
        (1..=2000).for_each(|slot| index.put(Slot(slot), Place { at, bytes: 1 }));
        index.forget_upto(Slot(1023));
        assert_eq!((index.get(Slot(1)), index.get(Slot(1023))), (None, None));
        index.forget_upto(Slot(1024));
        assert_eq!(index.get(Slot(1024)), None);
        assert!(index.get(Slot(1025)).is_some());
    }
}
