//! The plan of a storm: which faults strike, and when; drawn from the seed before anything happens.
//!
//! Each has a number, under which it can be left out without a change to the others: the time of each is in the plan, and
//! what it does is drawn from a stream of its own.

use super::chance::{Chance, Stream};
use super::faults::{Fault, FaultSet};
use super::options::Options;
use crate::time::Time;
use std::time::Duration;

/// The longest time before the first fault, microseconds.
const FIRST_US: u64 = 2_000_000;
/// The longest time that a calm stretch lasts, microseconds.
const CALM_US: u64 = 8_000_000;

/// What happens at one moment of a storm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// A fault of a kind.
    Fault(Fault),
    /// The network is well, and nothing happens for a while.
    Calm,
}

/// A strike of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number.
    pub number: u32,
    /// When.
    pub at: Time,
    /// What.
    pub strike: Strike,
}

/// The plan of one seed.
#[derive(Debug)]
pub struct Plan {
    /// The kinds that this seed drew.
    pub kinds: FaultSet,
    /// Longest time that a node stays down, microseconds.
    pub down_us: u64,
    /// All strikes, in the order of time. A longer storm begins with the same ones.
    pub strikes: Vec<Planned>,
}

impl Plan {
    /// The plan of these options, with all that they leave out.
    pub fn draw(options: &Options, chance: Chance) -> Plan {
        let mut rng = chance.stream(Stream::Plan, 0, 0);
        let kinds = options.faults.draw(&mut rng);
        let pace_us = 1 << rng.u32(16..22);
        let down_us = 1 << rng.u32(14..23);
        let choice: Vec<Fault> = kinds.iter().collect();
        let ends_at = Time::ZERO + options.storm;
        let mut strikes = Vec::new();
        let mut at = after(Time::ZERO, rng.u64(0..=FIRST_US));
        while at < ends_at && !choice.is_empty() {
            let number = strikes.len() as u32;
            let (strike, pause_us) = if rng.u8(0..12) == 0 {
                (Strike::Calm, CALM_US)
            } else {
                (Strike::Fault(choice[rng.usize(0..choice.len())]), pace_us)
            };
            strikes.push(Planned { number, at, strike });
            at = after(at, rng.u64(0..=pause_us));
        }
        Plan {
            kinds,
            down_us,
            strikes,
        }
    }
}

fn after(at: Time, us: u64) -> Time {
    at + Duration::from_micros(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_storm_is_the_beginning_of_a_longer_one() {
        let whole = Options::new(11);
        let short = Options {
            storm: whole.storm / 3,
            ..whole.clone()
        };
        let (whole, short) = (Plan::draw(&whole, Chance::new(11)), Plan::draw(&short, Chance::new(11)));
        assert!(!short.strikes.is_empty() && short.strikes.len() < whole.strikes.len());
        assert_eq!(short.strikes[..], whole.strikes[..short.strikes.len()]);
    }
}
