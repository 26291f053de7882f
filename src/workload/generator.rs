//! Keys and values: pure, and the same for the same seed.
//!
//! Zipfian draws follow Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD 1994), section 3,
//! as YCSB does: the key with number 0 is the hottest, or, of `latest`, the one that was added last.

use bytes::{Bytes, BytesMut};
use std::collections::BTreeSet;

/// Most keys of one set: the zipfian constant is summed up over all of them.
pub const KEYS_MAX: u64 = 100_000_000;
/// How skewed zipfian draws are, unless the script says otherwise; YCSB's constant.
pub const THETA_DEFAULT: f64 = 0.99;
/// Length of a drawn key, run id included, bytes; longer only if prefix and number need it.
pub const KEY_BYTES: usize = 16;
/// Keys and values are made in blocks of about so many bytes that many of them share: one costs no allocation of its own.
const BLOCK_BYTES: usize = 16 << 10;
/// Digits of numbers, of any base up to 36.
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Digits of the longest number, in base ten.
const DIGITS_MAX: usize = 20;
const _: () = assert!(
    KEY_BYTES <= DIGITS_MAX,
    "a number is filled up with zeros to a whole key at most"
);

/// A set of keys, as a script names it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySpec {
    /// What stands before the number.
    pub prefix: String,
    /// How many there are at first.
    pub count: u64,
    /// How they are drawn.
    pub distribution: Distribution,
}

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Each as likely as any.
    Uniform,
    /// The first most often.
    Zipf {
        /// The skew, from 0 to below 1.
        theta: f64,
    },
    /// The last most often, and new ones are added behind it.
    Latest {
        /// The skew, from 0 to below 1.
        theta: f64,
    },
    /// One after the other, over all clients, and again from the first.
    InOrder,
}

/// A kind of values, as a script names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueSpec {
    /// Length, bytes; more if uniqueness needs it.
    pub bytes: usize,
}

/// A set of keys in use.
#[derive(Clone, Debug)]
pub struct KeySpace {
    prefix: String,
    /// Digits of the number.
    width: usize,
    distribution: Distribution,
    zipf: Zipf,
    /// Keys that may be drawn: those of the start, and what was added and acknowledged without a gap.
    count: u64,
    /// Keys handed out by [`KeySpace::grow`] and those of the start.
    handed_out: u64,
    /// Acknowledged, with a gap before them.
    ahead: BTreeSet<u64>,
    in_order: u64,
    /// Where the next keys are made.
    block: BytesMut,
}

impl KeySpace {
    /// The keys of `spec`. `before`: bytes that the user puts before each key, and that count into its length.
    pub fn new(spec: &KeySpec, before: usize) -> KeySpace {
        let theta = match spec.distribution {
            Distribution::Zipf { theta } | Distribution::Latest { theta } => Some(theta),
            Distribution::Uniform | Distribution::InOrder => None,
        };
        KeySpace {
            width: KEY_BYTES.saturating_sub(before + spec.prefix.len()),
            prefix: spec.prefix.clone(),
            distribution: spec.distribution,
            zipf: theta.map_or(Zipf::new(1, 0.0), |theta| Zipf::new(spec.count, theta)),
            count: spec.count,
            handed_out: spec.count,
            ahead: BTreeSet::new(),
            in_order: 0,
            block: BytesMut::with_capacity(BLOCK_BYTES),
        }
    }

    /// Draws the number of a key.
    pub fn draw(&mut self, rng: &mut fastrand::Rng) -> u64 {
        match self.distribution {
            Distribution::Uniform => rng.u64(0..self.count),
            Distribution::Zipf { .. } => self.zipf.draw(rng),
            Distribution::Latest { .. } => self.count - 1 - self.zipf.draw(rng),
            Distribution::InOrder => {
                let number = self.in_order % self.count;
                self.in_order += 1;
                number
            }
        }
    }

    /// Hands out the number of a new key. It is drawn once it is acknowledged.
    pub fn grow(&mut self) -> u64 {
        self.handed_out += 1;
        self.handed_out - 1
    }

    /// The new key is in the store, or nobody will put it there: it counts from now on.
    pub fn acknowledge(&mut self, number: u64) {
        self.ahead.insert(number);
        while self.ahead.remove(&self.count) {
            self.count += 1;
            if matches!(
                self.distribution,
                Distribution::Latest { .. } | Distribution::Zipf { .. }
            ) {
                self.zipf.grow();
            }
        }
    }

    /// The key with a number.
    pub fn key(&mut self, number: u64) -> Bytes {
        let key = &mut self.block;
        key.reserve(self.prefix.len() + DIGITS_MAX);
        key.extend_from_slice(self.prefix.as_bytes());
        push_number(number, 10, self.width, key);
        key.split().freeze()
    }

    /// How many keys may be drawn.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Draws from 0 to below n, 0 most often.
#[derive(Clone, Debug)]
struct Zipf {
    n: u64,
    theta: f64,
    alpha: f64,
    zeta_2: f64,
    zeta_n: f64,
    eta: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Zipf {
        let zeta_n = (1..=n).map(|i| (i as f64).powf(-theta)).sum();
        let mut zipf = Zipf {
            n,
            theta,
            alpha: 1.0 / (1.0 - theta),
            zeta_2: 1.0 + 0.5f64.powf(theta),
            zeta_n,
            eta: 0.0,
        };
        zipf.set_eta();
        zipf
    }

    fn set_eta(&mut self) {
        self.eta = (1.0 - (2.0 / self.n as f64).powf(1.0 - self.theta)) / (1.0 - self.zeta_2 / self.zeta_n);
    }

    fn grow(&mut self) {
        self.n += 1;
        self.zeta_n += (self.n as f64).powf(-self.theta);
        self.set_eta();
    }

    fn draw(&self, rng: &mut fastrand::Rng) -> u64 {
        let u = rng.f64();
        let scaled = u * self.zeta_n;
        if scaled < 1.0 || self.n == 1 {
            return 0;
        }
        if scaled < self.zeta_2 || self.n == 2 {
            return 1;
        }
        let drawn = self.n as f64 * (self.eta * u - self.eta + 1.0).powf(self.alpha);
        (drawn as u64).min(self.n - 1)
    }
}

/// Values that are unique in a run: a number of who writes, its own count, and filling.
#[derive(Clone, Debug)]
pub struct Values {
    bytes: usize,
    filling: Bytes,
    /// Where the next values are made.
    block: BytesMut,
}

impl Values {
    /// Values of `spec`. The filling is the same for all, drawn once: making a value is a copy.
    pub fn new(spec: ValueSpec, rng: &mut fastrand::Rng) -> Values {
        let filling: Vec<u8> = (0..spec.bytes).map(|_| rng.alphanumeric() as u8).collect();
        Values {
            bytes: spec.bytes,
            filling: Bytes::from(filling),
            block: BytesMut::with_capacity(BLOCK_BYTES),
        }
    }

    /// The value with the given number of the given writer. No two pairs give the same.
    pub fn value(&mut self, writer: u64, number: u64) -> Bytes {
        let value = &mut self.block;
        value.reserve(self.bytes.max(2 * DIGITS_MAX));
        push_number(writer, 36, 1, value);
        value.extend_from_slice(b".");
        push_number(number, 36, 1, value);
        if value.len() < self.bytes {
            // A dot ends the number, so that filling cannot be taken for digits of it.
            value.extend_from_slice(b".");
            let left = self.bytes - value.len();
            value.extend_from_slice(&self.filling[..left]);
        }
        value.split().freeze()
    }
}

/// Puts `number` behind what `out` holds: in digits of `base`, and at least `width` of them.
fn push_number(mut number: u64, base: u64, width: usize, out: &mut BytesMut) {
    let mut digits = [b'0'; DIGITS_MAX];
    let mut first = DIGITS_MAX;
    while number > 0 {
        first -= 1;
        digits[first] = DIGITS[(number % base) as usize];
        number /= base;
    }
    out.extend_from_slice(&digits[first.min(DIGITS_MAX - width)..]);
}

/// A random generator for one of many users of a seed: the same for the same pair, and unlike its neighbours'.
pub fn seeded(seed: u64, user: u64) -> fastrand::Rng {
    // Golden-ratio steps, as SplitMix64 takes, keep neighbouring users apart; the generator mixes them once more.
    let mut rng = fastrand::Rng::with_seed(seed ^ user.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    fastrand::Rng::with_seed(rng.u64(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(distribution: Distribution, count: u64) -> KeySpace {
        let spec = KeySpec {
            prefix: "k".into(),
            count,
            distribution,
        };
        KeySpace::new(&spec, 0)
    }

    fn frequencies(space: &mut KeySpace, draws: usize) -> Vec<usize> {
        let mut rng = seeded(7, 0);
        let mut seen = vec![0; usize::try_from(space.count()).unwrap()];
        for _ in 0..draws {
            seen[usize::try_from(space.draw(&mut rng)).unwrap()] += 1;
        }
        seen
    }

    #[test]
    fn uniform_keys_are_drawn_alike() {
        let seen = frequencies(&mut space(Distribution::Uniform, 100), 100_000);
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }

    #[test]
    fn zipfian_keys_are_as_frequent_as_their_law_says() {
        let theta = THETA_DEFAULT;
        let seen = frequencies(&mut space(Distribution::Zipf { theta }, 1000), 1_000_000);
        let zeta: f64 = (1..=1000).map(|i| f64::from(i).powf(-theta)).sum();
        // The first two are exact in the method of Gray et al.; the rest is approximated.
        for (rank, tolerance) in [(0, 0.02), (1, 0.02), (9, 0.25), (99, 0.25)] {
            let expected = 1e6 * f64::from(rank + 1).powf(-theta) / zeta;
            let found = seen[rank as usize] as f64;
            assert!(
                (found / expected - 1.0).abs() < tolerance,
                "rank {rank}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn small_sets_and_no_skew_are_drawn_in_bounds() {
        for count in 1..=5 {
            for theta in [0.0, 0.5, 0.99] {
                let seen = frequencies(&mut space(Distribution::Zipf { theta }, count), 10_000);
                assert!(seen.iter().all(|n| *n > 0), "{count} keys, theta {theta}: {seen:?}");
            }
        }
    }

    #[test]
    fn keys_in_order_come_round_again() {
        let mut space = space(Distribution::InOrder, 3);
        let mut rng = seeded(1, 0);
        let drawn: Vec<_> = (0..7).map(|_| space.draw(&mut rng)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_new_key_is_drawn_once_it_and_all_before_it_are_acknowledged() {
        let mut space = space(Distribution::Latest { theta: 0.99 }, 10);
        assert_eq!([space.grow(), space.grow(), space.grow()], [10, 11, 12]);
        space.acknowledge(11);
        assert_eq!(space.count(), 10);
        space.acknowledge(10);
        assert_eq!(space.count(), 12);
        let seen = frequencies(&mut space, 10_000);
        let most = seen.iter().max();
        assert_eq!(seen.last(), most, "the newest is the hottest: {seen:?}");
    }

    #[test]
    fn keys_have_sixteen_bytes() {
        let spec = KeySpec {
            prefix: "user".into(),
            count: 10,
            distribution: Distribution::Uniform,
        };
        assert_eq!(KeySpace::new(&spec, 0).key(7), "user000000000007");
        assert_eq!(KeySpace::new(&spec, "x7k2m9.".len()).key(7), "user00007");
        assert_eq!(KeySpace::new(&spec, "x7k2m9.".len()).key(7_000_000), "user7000000");
    }

    #[test]
    fn values_are_unique_and_as_long_as_asked() {
        let mut values = Values::new(ValueSpec { bytes: 12 }, &mut seeded(1, 1));
        let mut seen = BTreeSet::new();
        for writer in [0, 1, 35, 36, 1_000] {
            for number in 0..2_000 {
                let value = values.value(writer, number);
                assert_eq!(value.len(), 12);
                assert!(seen.insert(value));
            }
        }
        let mut short = Values::new(ValueSpec { bytes: 0 }, &mut seeded(1, 1));
        assert_eq!(short.value(36, 71), "10.1z");
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let draw = |seed, user| seeded(seed, user).u64(..);
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }
}
