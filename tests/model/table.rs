//! Which states are known: an open hash table of their numbers, at most half full.
//!
//! A search holds tens of millions of states of twelve bytes; a general map would need three times their memory.

/// A state of the world: for each node the number of the state that it is in.
pub(crate) type State = [u32; 3];

/// The numbers of the states in a list that is kept elsewhere.
pub(crate) struct Table {
    places: Vec<u32>,
    used: usize,
}

const EMPTY: u32 = u32::MAX;

impl Table {
    pub(crate) fn new() -> Table {
        Table {
            places: vec![EMPTY; 1 << 16],
            used: 0,
        }
    }

    /// True if `state` is new: then it is the next one of `states`, to which the caller adds it.
    pub(crate) fn insert(&mut self, state: State, states: &[State]) -> bool {
        if self.used * 2 >= self.places.len() {
            self.grow(states);
        }
        let place = self.place(state, states);
        if self.places[place] != EMPTY {
            return false;
        }
        self.places[place] = u32::try_from(states.len()).expect("memory ends before numbers do");
        self.used += 1;
        true
    }

    fn grow(&mut self, states: &[State]) {
        self.places = vec![EMPTY; self.places.len() * 2];
        for (number, state) in (0..).zip(states) {
            let place = self.place(*state, states);
            self.places[place] = number;
        }
    }

    /// Where `state` stands, or would.
    fn place(&self, state: State, states: &[State]) -> usize {
        let mask = self.places.len() - 1;
        let [a, b, c] = state.map(u64::from);
        let mixed = (a ^ b.rotate_left(21) ^ c.rotate_left(42)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut place = (mixed ^ mixed >> 29) as usize & mask;
        while self.places[place] != EMPTY && states[self.places[place] as usize] != state {
            place = (place + 1) & mask;
        }
        place
    }
}
