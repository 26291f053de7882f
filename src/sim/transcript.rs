//! What is told of a run: messages and events in plain words, and which faults and operations there were.
//!
//! It stands beside the world, so that it survives a panic of the code under test. Words are made only while lines are
//! kept. A message has one line, when it arrives or is lost; what is of no interest has none ([`words`](super::words)).
//!
//! Not here: diagrams ([`mermaid`](super::mermaid)).

use super::network::End;
use super::options::OpId;
use crate::time::Time;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

/// The transcript of one run. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    inner: Rc<RefCell<Inner>>,
    /// Lines that are kept at most.
    most: usize,
}

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<Line>,
    happened: Happened,
    /// The last heartbeat told of each way.
    beats: BTreeMap<(End, End), String>,
}

/// What of the plan really came, up to the end or the failure.
#[derive(Clone, Debug, Default)]
pub struct Happened {
    /// Numbers of the faults that struck.
    pub faults: Vec<u32>,
    /// The operations that clients began during the storm.
    pub ops: Vec<OpId>,
    /// The operations that clients began behind it.
    pub last_ops: Vec<OpId>,
    /// Events of the run.
    pub events: u64,
    /// How far simulated time came.
    pub until: Time,
    /// Whether the storm was over.
    pub is_calm: bool,
}

/// Something that happened, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Time,
    /// What.
    pub scene: Scene,
}

/// A message or an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A message arrives, or never will.
    Message {
        /// Who sent it.
        from: End,
        /// Whom to.
        to: End,
        /// What it says.
        words: String,
        /// When it left, and what became of it.
        way: Way,
    },
    /// Something that matters for who follows the run: a crash, an election, a slot that is chosen, an answer.
    Event {
        /// Whose it is; nobody's in particular.
        whose: Option<End>,
        /// What.
        words: String,
    },
    /// Something that explains the next: a sync, what was applied.
    Detail {
        /// Whose it is.
        whose: End,
        /// What.
        words: String,
    },
    /// What the run failed by.
    Violation {
        /// In words.
        words: String,
    },
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It arrives, and left at this moment.
    Arrives(Time),
    /// It is lost, and why.
    Lost(&'static str),
}

impl Transcript {
    /// One that keeps the last `most` lines.
    pub fn of_last(most: usize) -> Transcript {
        Transcript {
            inner: Rc::default(),
            most,
        }
    }

    /// One that keeps all lines.
    pub fn whole() -> Transcript {
        Transcript::of_last(usize::MAX)
    }

    /// Whether lines are kept.
    pub fn is_on(&self) -> bool {
        self.most > 0
    }

    /// Keeps a line.
    pub fn tell(&self, at: Time, scene: impl FnOnce() -> Scene) {
        if !self.is_on() {
            return;
        }
        let line = Line { at, scene: scene() };
        let lines = &mut self.inner.borrow_mut().lines;
        if lines.len() == self.most {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// An event at `whose`.
    pub fn event(&self, at: Time, whose: End, words: impl FnOnce() -> String) {
        self.tell(at, || Scene::Event {
            whose: Some(whose),
            words: words(),
        });
    }

    /// A detail at `whose`, if there is one.
    pub fn detail(&self, at: Time, whose: End, words: impl FnOnce() -> Option<String>) {
        if self.is_on()
            && let Some(words) = words()
        {
            self.tell(at, || Scene::Detail { whose, words });
        }
    }

    /// A message that arrives or is lost. Words that say nothing are kept back, and a heartbeat that says what the one
    /// before it said.
    pub fn message(&self, at: Time, (from, to): (End, End), way: Way, words: impl FnOnce() -> Option<String>) {
        if !self.is_on() {
            return;
        }
        let Some(words) = words() else { return };
        if words.starts_with(super::words::HEARTBEAT) {
            let beats = &mut self.inner.borrow_mut().beats;
            if matches!(way, Way::Lost(_)) || beats.get(&(from, to)) == Some(&words) {
                return;
            }
            beats.insert((from, to), words.clone());
        }
        self.tell(at, || Scene::Message { from, to, words, way });
    }

    /// An event happens at a moment.
    pub(super) fn goes_on(&self, now: Time) {
        let happened = &mut self.inner.borrow_mut().happened;
        happened.events += 1;
        happened.until = now;
    }

    pub(super) fn struck(&self, number: u32) {
        self.inner.borrow_mut().happened.faults.push(number);
    }

    pub(super) fn began(&self, id: OpId) {
        let happened = &mut self.inner.borrow_mut().happened;
        if happened.is_calm {
            happened.last_ops.push(id);
        } else {
            happened.ops.push(id);
        }
    }

    pub(super) fn is_calm(&self) {
        self.inner.borrow_mut().happened.is_calm = true;
    }

    /// What came of the plan.
    pub fn happened(&self) -> Happened {
        self.inner.borrow().happened.clone()
    }

    /// The lines, in the order of time: a node tells of its whole turn at once, also of what comes behind its sync.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.inner.borrow().lines.iter().cloned().collect();
        lines.sort_by_key(|line| (matches!(line.scene, Scene::Violation { .. }), line.at));
        lines
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.at.0 / 1_000_000;
        let us = self.at.0 / 1_000 % 1_000;
        write!(f, "{:>3}.{:03} {us:03} s  ", ms / 1_000, ms % 1_000)?;
        match &self.scene {
            Scene::Message { from, to, words, way } => {
                let arrow = if matches!(way, Way::Lost(_)) { "-x" } else { "->" };
                write!(f, "{from} {arrow} {to}  {words}")?;
                match way {
                    Way::Arrives(sent) => {
                        let under_way = self.at.since(*sent).as_micros();
                        write!(f, "  ({}.{:03} ms)", under_way / 1_000, under_way % 1_000)
                    }
                    Way::Lost(why) => write!(f, "  ({why})"),
                }
            }
            Scene::Event {
                whose: Some(whose),
                words,
            }
            | Scene::Detail { whose, words } => write!(f, "{whose}        {words}"),
            Scene::Event { whose: None, words } => write!(f, "--        {words}"),
            Scene::Violation { words } => write!(f, "VIOLATION {words}"),
        }
    }
}
