//! Things under numbers that are never used again, found by one look: the connections of a node.
//!
//! A thing's place is its number modulo the length of the table, and a new thing gets the next number whose place is
//! free. So numbers count up from the first, without those whose place was taken; they stay short, a higher one is a
//! newer one, and who comes late with the number of a thing that is gone finds nothing. Invariants:
//! * M1. The length is a power of two, and at most half of the places are taken. So in a lap over the table at least as
//!   many numbers are given out as are passed over.
//! * M2. What stands in a place has a number of that place; the place of `next` is free. Both outlast a longer table:
//!   numbers that differ modulo a length differ modulo its double.
//! * M3. `next` only grows.

/// Places of a table in which nothing stands yet.
const PLACES: usize = 16;

/// Things under numbers. Not in the order of the numbers: who needs that has the numbers in a set.
#[derive(Debug)]
pub struct Numbered<T> {
    /// The things are on the heap, so that a place is short: what is looked through and copied is short as well.
    places: Vec<Option<(u64, Box<T>)>>,
    taken: usize,
    next: u64,
}

impl<T> Numbered<T> {
    /// Nothing yet; numbers begin with `first`.
    pub fn starting_at(first: u64) -> Numbered<T> {
        Numbered {
            places: (0..PLACES).map(|_| None).collect(),
            taken: 0,
            next: first,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.taken
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// The number that the next thing gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Takes a thing in, under [`Numbered::next_number`].
    pub fn insert(&mut self, thing: T) -> u64 {
        let number = self.next;
        let place = self.place(number);
        self.places[place] = Some((number, Box::new(thing)));
        self.taken += 1;
        if self.taken * 2 > self.places.len() {
            self.lengthen();
        }
        // M1: there is a free place.
        while self.places[self.place(self.next)].is_some() {
            self.next += 1;
        }
        number
    }

    /// The thing of a number, unless it is gone.
    pub fn get(&self, number: u64) -> Option<&T> {
        match &self.places[self.place(number)] {
            Some((of, thing)) if *of == number => Some(thing),
            _ => None,
        }
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number);
        match &mut self.places[place] {
            Some((of, thing)) if *of == number => Some(thing),
            _ => None,
        }
    }

    /// Takes a thing out; from now on its number stands for nothing.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let place = self.place(number);
        let (_, thing) = self.places[place].take_if(|(of, _)| *of == number)?;
        self.taken -= 1;
        Some(*thing)
    }

    /// All things, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten().map(|(_, thing)| &**thing)
    }

    fn place(&self, number: u64) -> usize {
        // The length is a power of two (M1); the low bits are all that is wanted.
        number as usize & (self.places.len() - 1)
    }

    fn lengthen(&mut self) {
        let longer = (0..self.places.len() * 2).map(|_| None).collect();
        let old = std::mem::replace(&mut self.places, longer);
        for (number, thing) in old.into_iter().flatten() {
            let place = self.place(number);
            self.places[place] = Some((number, thing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_place_that_is_taken_again_has_another_number_and_the_old_one_finds_nothing() {
        let mut table = Numbered::starting_at(16);
        let old = table.insert("old");
        assert_eq!((old, table.remove(old)), (16, Some("old")));
        let mut heir = table.insert("new");
        while table.place(heir) != table.place(old) {
            table.remove(heir);
            heir = table.insert("new");
        }
        assert_eq!(heir, old + PLACES as u64);
        assert_eq!(table.get(old), None);
        assert_eq!(table.get_mut(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(heir), Some(&"new"));
    }

    #[test]
    fn numbers_count_up_and_pass_over_places_that_are_taken() {
        let mut table = Numbered::starting_at(17);
        let stays = table.insert("stays");
        let others: Vec<u64> = (0..20)
            .map(|_| {
                let next = table.next_number();
                assert_eq!(table.insert("goes"), next);
                table.remove(next);
                next
            })
            .collect();
        assert_eq!(
            others,
            (18..=32).chain(34..=38).collect::<Vec<u64>>(),
            "33 would stand where {stays} does"
        );
        assert_eq!(table.get(stays), Some(&"stays"));
        assert_eq!((table.len(), table.values().count()), (1, 1));
    }

    #[test]
    fn it_does_what_a_map_with_a_counter_does_and_grows_with_what_is_in_it() {
        let mut chance = fastrand::Rng::with_seed(1);
        let mut table = Numbered::starting_at(16);
        let mut map = BTreeMap::new();
        for step in 0..20_000_u64 {
            let upto = table.next_number();
            // First more come than go, then the other way round.
            let comes = chance.u64(0..20_000) > step;
            if comes && map.len() < 1000 {
                let number = table.insert(step);
                assert!(map.insert(number, step).is_none() && number >= upto);
                assert!(table.next_number() > number);
            } else {
                let number = chance.u64(0..upto + 2);
                assert_eq!(table.get(number), map.get(&number));
                assert_eq!(table.remove(number), map.remove(&number));
            }
            assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
        }
        assert!(map.iter().all(|(number, thing)| table.get(*number) == Some(thing)));
        assert_eq!(table.values().count(), map.len());
        assert!((16..=2048).contains(&table.places.len()), "{}", table.places.len());
        assert!(
            table.next_number() < 16 + 2 * 20_000 + 2048,
            "at most half of the numbers are passed over"
        );
    }
}
