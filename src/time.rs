//! Monotonic time as the pure rooms see it: an argument, never a clock that they read.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment of one process's monotonic clock, in nanoseconds since an origin of that process.
///
/// It means nothing outside the process and is never sent or stored as a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The clock's origin.
    pub const ZERO: Time = Time(0);

    /// A moment so many milliseconds after the origin.
    pub const fn from_millis(ms: u64) -> Time {
        Time(ms.saturating_mul(1_000_000))
    }

    /// Time gone by since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment of a clock that goes on while the machine sleeps, in nanoseconds since an origin of that machine's boot.
///
/// [`Time`] need not: what was promised to somebody else for so long must be counted by this one (`rules.md` 16). Both
/// clocks say nothing of each other's moments, so the two types do not mix. Never sent or stored as a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boottime(pub u64);

impl Boottime {
    /// Time gone by since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Boottime) -> Duration {
        Time(self.0).since(Time(earlier.0))
    }
}

impl Add<Duration> for Boottime {
    type Output = Boottime;
    fn add(self, span: Duration) -> Boottime {
        Boottime((Time(self.0) + span).0)
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}
