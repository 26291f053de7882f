//! Waiting to the microsecond: the system's poll waits in whole milliseconds, rounded up, and half a millisecond late on
//! average is more than an operation takes. A load with a rate would measure its own clock.
//!
//! On Linux the last milliseconds of a wait are left to a timer descriptor, which wakes the poll like a socket does.
//! Elsewhere the poll's own timeout has to do.

use mio::{Registry, Token};
use std::io;
use std::time::Duration;

/// Waits at least so long are left to the poll itself, which wakes a little early then and is asked again.
const FINE_BELOW: Duration = Duration::from_millis(5);

/// The timer of one poll.
#[derive(Debug)]
pub(super) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: std::os::fd::OwnedFd,
}

impl Alarm {
    /// A timer that wakes the poll of `registry` under `token`.
    #[cfg(target_os = "linux")]
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Edge-triggered: each expiry is an event of its own, and nobody has to read the descriptor.
        registry.register(
            &mut mio::unix::SourceFd(&timer.as_raw_fd()),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Alarm { timer })
    }

    /// No timer: the poll's own has to do.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn new(_: &Registry, _: Token) -> io::Result<Alarm> {
        Ok(Alarm {})
    }

    /// What to poll with so that the poll wakes in `wait`, or earlier.
    pub(super) fn timeout(&self, wait: Duration) -> Option<Duration> {
        if wait >= FINE_BELOW {
            return Some(wait - Duration::from_millis(1));
        }
        if wait.is_zero() || self.set(wait).is_err() {
            return Some(wait);
        }
        None
    }

    #[cfg(target_os = "linux")]
    fn set(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn set(&self, _: Duration) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::pool::Pool;

    #[test]
    fn a_poll_wakes_in_time_and_not_before() {
        let mut pool = Pool::new().unwrap();
        let mut late = Vec::new();
        for micros in [200, 700, 1_300, 4_900, 6_200] {
            let until = pool.now() + Duration::from_micros(micros);
            while pool.now() < until {
                pool.turn(Some(until), &mut Vec::new()).unwrap();
            }
            late.push(pool.now().since(until));
        }
        // A busy machine may be late at any of them; one that is always late by a millisecond is not busy.
        assert!(late.iter().any(|late| *late < Duration::from_micros(900)), "{late:?}");
    }

    #[test]
    fn long_waits_are_the_polls_and_short_ones_the_timers() {
        let poll = mio::Poll::new().unwrap();
        let alarm = Alarm::new(poll.registry(), Token(7)).unwrap();
        assert_eq!(
            alarm.timeout(Duration::from_millis(100)),
            Some(Duration::from_millis(99))
        );
        assert_eq!(alarm.timeout(Duration::ZERO), Some(Duration::ZERO));
        if cfg!(target_os = "linux") {
            assert_eq!(alarm.timeout(Duration::from_micros(300)), None);
        }
    }
}
