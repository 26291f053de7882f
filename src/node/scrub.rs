//! The scrub's pace: a slice of a pass now and then, between turns, so that it costs no more than it may.
//!
//! Not here: what is read and judged ([`crate::storage::scrub`]), what is done about damage (`snapshots`).

use super::turn::Fatal;
use crate::machine::ScrubView;
use crate::paxos::Slot;
use crate::storage::scrub::{Finding, Pace, SLICE_BYTES, Scrub};
use crate::storage::{Files, Storage};
use crate::time::Time;
use std::time::Duration;

/// One directory's scrub.
#[derive(Debug)]
pub(super) struct Scrubber<Fs: Files> {
    pace: Pace,
    pass: Option<Pass<Fs>>,
    /// The next slice, or pass.
    next_at: Option<Time>,
    view: ScrubView,
}

#[derive(Debug)]
struct Pass<Fs: Files> {
    scrub: Scrub<Fs>,
    began: Time,
    bytes: u64,
}

impl<Fs: Files> Scrubber<Fs> {
    /// At this pace.
    pub(super) fn new(pace: Pace) -> Scrubber<Fs> {
        let view = ScrubView {
            bytes_per_second: pace.bytes_per_second,
            ..ScrubView::default()
        };
        Scrubber {
            pace,
            pass: None,
            // At first it rests: the start has read almost all.
            next_at: None,
            view,
        }
    }

    /// The node begins to turn.
    pub(super) fn start(&mut self, now: Time) {
        self.next_at = (self.pace.bytes_per_second > 0).then_some(now + self.pace.rest);
    }

    /// A pass is asked for by hand.
    pub(super) fn ask(&mut self, now: Time) {
        if self.pass.is_none() && self.pace.bytes_per_second > 0 {
            self.next_at = Some(now);
        }
    }

    /// When it wants its turn.
    pub(super) fn next_at(&self) -> Option<Time> {
        self.next_at
    }

    /// How far it has come.
    pub(super) fn view(&self) -> ScrubView {
        self.view
    }

    /// Whether it is time for a slice.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next_at.is_some_and(|at| at <= now)
    }

    /// The next slice, if it is time.
    ///
    /// # Errors
    /// [`Fatal`]: the loop must end.
    pub(super) fn step(
        &mut self,
        now: Time,
        storage: &Storage<Fs>,
        snapshots: &[Slot],
    ) -> Result<Option<Finding>, Fatal> {
        if !self.is_due(now) {
            return Ok(None);
        }
        let pass = self.pass.get_or_insert_with(|| Pass {
            scrub: Scrub::begin(),
            began: now,
            bytes: 0,
        });
        let step = storage.scrub(&mut pass.scrub, snapshots, SLICE_BYTES);
        let step = step.map_err(Fatal::Storage)?;
        pass.bytes += step.bytes;
        self.view.under_way = Some((pass.began, pass.bytes));
        self.next_at = Some(now + time_of(step.bytes, self.pace.bytes_per_second));
        if step.is_done {
            self.view.passes += 1;
            self.view.last = Some((now, now.since(pass.began), pass.bytes));
            self.view.under_way = None;
            self.pass = None;
            self.next_at = Some(now + self.pace.rest);
        }
        Ok(step.found)
    }
}

/// How long so many bytes take at that rate. A step that read nothing found the end of something, and is free.
fn time_of(bytes: u64, bytes_per_second: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / bytes_per_second.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::NodeId;
    use crate::storage::Options;
    use crate::storage::sim::SimDisk;

    #[test]
    fn a_pass_takes_as_long_as_its_bytes_and_the_next_one_comes_after_a_rest() {
        let disk = SimDisk::new(1);
        let (mut storage, _) = Storage::open(disk, &Options::new(NodeId(1), "test", 5)).unwrap();
        storage.recover(|_| {}).unwrap();
        let record = crate::wire::Record::Peer {
            node: NodeId(2),
            incarnation: crate::paxos::Incarnation {
                generation: 1,
                token: 1,
            },
            start: crate::paxos::Start { counter: 1, token: 1 },
        };
        storage.append(&vec![record; 20_000]).unwrap();
        storage.sync().unwrap();
        let pace = Pace::default();
        let mut scrubber = Scrubber::new(pace);
        assert_eq!(scrubber.next_at(), None);
        scrubber.start(Time::ZERO);
        let (mut now, mut last_step) = (Time::ZERO, Time::ZERO);
        while scrubber.view().passes == 0 {
            assert_eq!(scrubber.step(now, &storage, &[]).unwrap(), None);
            last_step = now;
            now = scrubber.next_at().unwrap().max(now);
            assert!(now < Time::ZERO + pace.rest * 3, "it ends");
        }
        let (ended, took, bytes) = scrubber.view().last.unwrap();
        assert_eq!((ended, now), (last_step, last_step + pace.rest));
        let least = Duration::from_micros(bytes * 1_000_000 / (1 << 20)) - Duration::from_millis(1);
        assert!(bytes > 1 << 19 && took >= least, "{bytes} bytes in {took:?}");
        scrubber.ask(last_step);
        assert_eq!(scrubber.next_at(), Some(last_step), "by hand it begins at once");
        let mut off = Scrubber::<SimDisk>::new(Pace {
            bytes_per_second: 0,
            ..pace
        });
        off.start(now);
        off.ask(now);
        assert_eq!(off.next_at(), None);
    }
}
