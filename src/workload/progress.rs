//! The progress line of a run, on a terminal only.

use super::summary::Summary;
use crate::time::Time;
use std::io::{self, Write};
use std::time::Duration;

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(500);

/// A line that is written over itself.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    is_on_line: bool,
    last: Time,
    last_done: u64,
}

impl Progress {
    /// `is_shown`: whether there is a terminal to show it on.
    pub(super) fn new(is_shown: bool) -> Progress {
        Progress {
            is_shown,
            is_on_line: false,
            last: Time::ZERO,
            last_done: 0,
        }
    }

    /// Shows how far the run is, unless it was shown just now.
    pub(super) fn show(&mut self, now: Time, summary: &Summary) {
        let since = now.since(self.last);
        if !self.is_shown || since < PERIOD {
            return;
        }
        let all = summary.all();
        let rate = (all.done - self.last_done) as f64 / since.as_secs_f64();
        let line = format!(
            "{:>6.1}s  {} done, {rate:.0}/s  {} not done  {} unknown",
            now.since(Time::ZERO).as_secs_f64(),
            all.done,
            all.not_done,
            all.unknown
        );
        self.write(&format!("\r\x1b[K{line}"));
        (self.last, self.last_done, self.is_on_line) = (now, all.done, true);
    }

    /// A line of the script's own.
    pub(super) fn print(&mut self, words: &str) {
        self.end();
        self.write(&format!("{words}\n"));
    }

    /// Takes the line away.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.is_on_line) {
            self.write("\r\x1b[K");
        }
    }

    fn write(&self, text: &str) {
        // Nobody is left to be told if standard error is gone.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
