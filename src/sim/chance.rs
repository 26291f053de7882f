//! Chance: streams of draws from one seed that do not hang on each other.
//!
//! A failing seed is made small by leaving things out ([`shrink`](super::shrink)). What is left must then go on as it
//! did: so every link, client, operation, fault and start draws from a stream of its own, named by what it is for, and
//! nobody else's draws move it. What happens at a moment (a start, say) is named by the moment.

use fastrand::Rng;

/// Where all streams of a run come from.
#[derive(Clone, Copy, Debug)]
pub struct Chance(u64);

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Sizes: nodes, clients, and what clients do.
    Shape,
    /// The settings that all nodes share.
    Settings,
    /// A node's disk and clock, by its place.
    Node,
    /// A start of a node.
    Start,
    /// How long a node stays down.
    Restart,
    /// The weather at the beginning.
    Weather,
    /// What happens on the way from one end to another.
    Link,
    /// A client's machine, one for each of its lives.
    Client,
    /// One operation of a client.
    Operation,
    /// When faults strike, and which.
    Plan,
    /// What one fault of the plan does.
    Strike,
    /// The end, when faults stop.
    Finale,
}

impl Chance {
    /// Of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance(scatter(seed))
    }

    /// The stream for one purpose; `of` and `which` say of whom, or when.
    pub fn stream(self, stream: Stream, of: u64, which: u64) -> Rng {
        Rng::with_seed(scatter(
            scatter(scatter(self.0 ^ (stream as u64 + 1)) ^ of).wrapping_add(which),
        ))
    }
}

/// Neighbours in, strangers out: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn neighbouring_streams_begin_differently_and_each_begins_the_same_again() {
        let chance = Chance::new(7);
        let firsts = |seed: u64| -> BTreeSet<u64> {
            let streams = [Stream::Shape, Stream::Link, Stream::Strike];
            let named = streams
                .into_iter()
                .flat_map(|stream| (0..8).flat_map(move |of| (0..8).map(move |which| (stream, of, which))));
            named
                .map(|(stream, of, which)| Chance::new(seed).stream(stream, of, which).u64(..))
                .collect()
        };
        assert_eq!(firsts(7).len(), 3 * 64);
        assert!(firsts(7).is_disjoint(&firsts(8)));
        let draw = || chance.stream(Stream::Start, 1, 2).u64(..);
        assert_eq!(draw(), draw());
    }
}
