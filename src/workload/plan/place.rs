//! One place: what it holds, where it is, and how words are filled in for it.

use super::{Draws, Flow, LOAD_TRIES, Stop};
use crate::command::{DataCommand, render};
use crate::kv::{Answer, Previous, Versioned};
use crate::time::Time;
use crate::wire::Served;
use crate::workload::generator::Values;
use crate::workload::script::expect::Expectation;
use crate::workload::script::program::{CommandTemplate, Expression, Group, Program};
use crate::workload::script::template::{Part, Template};
use bytes::Bytes;

/// How an operation ended, as a script sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Done, with its answer, which may be no.
    Done(Served),
    /// Certainly not done.
    NotDone {
        /// Name of the cause.
        cause: &'static str,
        /// Its words.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// Name of the cause.
        cause: &'static str,
        /// Its words.
        why: String,
    },
}

impl Ended {
    /// The name of the class.
    pub fn class(&self) -> &'static str {
        match self {
            Ended::Done(_) => "done",
            Ended::NotDone { .. } => "not_done",
            Ended::Unknown { .. } => "unknown",
        }
    }
}

/// What a variable holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Datum {
    /// Nothing was put in yet.
    #[default]
    Unset,
    /// What stands in a key that is not there.
    Absent,
    /// A number.
    Number(u64),
    /// Bytes.
    Bytes(Bytes),
}

/// What a place is inside of.
#[derive(Clone, Debug)]
pub(super) enum Loop {
    Times { left: u64 },
    Until(Time),
    Attempt,
    Arm,
}

#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) kind: Loop,
    /// First step of a round.
    pub(super) start: usize,
    /// Behind it.
    pub(super) end: usize,
    pub(super) round: u64,
}

/// One place of one client.
#[derive(Debug)]
pub(super) struct Place {
    id: usize,
    pub(super) group: usize,
    pub(super) client: usize,
    /// Which copy of its group's client, from 0.
    copy: usize,
    pub(super) pc: usize,
    pub(super) frames: Vec<Frame>,
    pub(super) variables: Vec<Datum>,
    pub(super) rng: fastrand::Rng,
    /// Values made so far.
    written: u64,
    pub(super) result: Option<Ended>,
    /// Intended start of the command that it stands at.
    pub(super) ticket: Option<Time>,
    /// Keys that its open command adds.
    pub(super) grown: Vec<(usize, u64)>,
    /// Key to load next.
    pub(super) load: u64,
    load_tries: u32,
}

impl Place {
    pub(super) fn new(id: usize, group: usize, client: usize, copy: usize, rng: fastrand::Rng) -> Place {
        Place {
            id,
            group,
            client,
            copy,
            pc: 0,
            frames: Vec::new(),
            variables: Vec::new(),
            rng,
            written: 0,
            result: None,
            ticket: None,
            grown: Vec::new(),
            load: 0,
            load_tries: 0,
        }
    }

    pub(super) fn client_name(&self, group: &Group) -> String {
        match group.copies {
            1 => group.name.clone(),
            _ => format!("{}-{}", group.name, self.copy + 1),
        }
    }

    pub(super) fn enter(&mut self, kind: Loop, end: usize) -> Flow {
        self.frames.push(Frame {
            kind,
            start: self.pc + 1,
            end,
            round: 1,
        });
        Flow::Next
    }

    /// The end of a round: another one, or on behind the loop.
    pub(super) fn again(&mut self, now: Time) -> Flow {
        let is_settled = match &self.result {
            Some(Ended::Done(served)) => !render::is_no(served),
            Some(Ended::NotDone { .. }) => false,
            Some(Ended::Unknown { .. }) | None => true,
        };
        let Some(frame) = self.frames.last_mut() else {
            return Flow::Next;
        };
        let goes_on = match &mut frame.kind {
            Loop::Times { left } => {
                *left -= 1;
                *left > 0
            }
            Loop::Until(end) => now < *end,
            Loop::Attempt => !is_settled,
            Loop::Arm => false,
        };
        if goes_on {
            frame.round += 1;
            return Flow::To(frame.start);
        }
        self.frames.pop();
        Flow::Next
    }

    /// Leaves the arm of a mix that the place stands in, if it does.
    pub(super) fn leave_arm(&mut self) {
        if let Some(Frame {
            kind: Loop::Arm, end, ..
        }) = self.frames.last()
        {
            self.pc = *end;
            self.frames.pop();
        }
    }

    /// Leaves the outermost loop whose time will be over at `moment`; where it ends.
    pub(super) fn leave_loop_over_by(&mut self, moment: Time) -> Option<usize> {
        let is_over = |frame: &Frame| matches!(frame.kind, Loop::Until(end) if end <= moment);
        let depth = self.frames.iter().position(is_over)?;
        let behind = self.frames[depth].end;
        self.frames.truncate(depth);
        Some(behind)
    }

    /// Keeps a result and sets the variables that hold it.
    pub(super) fn note(&mut self, ended: Ended) {
        let (mut value, mut version) = (Datum::Absent, Datum::Unset);
        if let Ended::Done(served) = &ended {
            if let Some(found) = found(served) {
                value = Datum::Bytes(found.value.clone());
                version = Datum::Number(found.version);
            }
            let revision = match served {
                Served::Done(done) => Datum::Number(done.revision),
                Served::Stale { revision, .. } => Datum::Number(*revision),
                Served::Status(_) => Datum::Unset,
            };
            self.variables[2] = revision;
        }
        self.variables[0] = value;
        self.variables[1] = version;
        self.result = Some(ended);
    }

    /// A key was loaded, or not, as the last result says: takes the next, or the same once more.
    pub(super) fn loaded(&mut self, step: usize) -> Result<(), Stop> {
        let Some(Ended::NotDone { cause, why } | Ended::Unknown { cause, why }) = &self.result else {
            self.load += step as u64;
            self.load_tries = 0;
            return Ok(());
        };
        self.load_tries += 1;
        // Who reaches nobody, or nobody of its kind, does not get further by trying.
        if self.load_tries < LOAD_TRIES && !["no_endpoint", "protocol"].contains(cause) {
            return Ok(());
        }
        let why = why.clone();
        Err(Stop::Load { cause, why })
    }

    /// A value that nobody else writes: places are numbered over all clients, and who writes is in the value.
    pub(super) fn value(&mut self, values: &mut Values) -> Bytes {
        self.written += 1;
        values.value(self.id as u64, self.written - 1)
    }

    /// A word with its names filled in.
    pub(super) fn render(
        &mut self,
        draws: &mut Draws,
        program: &Program,
        template: &Template,
    ) -> Result<Bytes, String> {
        if let [part] = template.parts.as_slice() {
            return self.part(draws, program, part);
        }
        let mut word = Vec::new();
        for part in &template.parts {
            word.extend_from_slice(&self.part(draws, program, part)?);
        }
        Ok(Bytes::from(word))
    }

    fn part(&mut self, draws: &mut Draws, program: &Program, part: &Part) -> Result<Bytes, String> {
        Ok(match part {
            Part::Text(text) => text.clone(),
            Part::Variable(slot) => match &self.variables[*slot] {
                Datum::Bytes(bytes) => bytes.clone(),
                Datum::Number(number) => Bytes::from(number.to_string()),
                Datum::Absent => {
                    return Err(format!(
                        "${} holds no value: the key is absent",
                        program.variables[*slot]
                    ));
                }
                Datum::Unset => return Err(format!("${} was not set yet", program.variables[*slot])),
            },
            Part::Key(keys) => {
                let number = draws.keys[*keys].draw(&mut self.rng);
                draws.keys[*keys].key(number)
            }
            Part::NextKey(keys) => {
                let number = draws.keys[*keys].grow();
                self.grown.push((*keys, number));
                draws.keys[*keys].key(number)
            }
            Part::Value(values) => self.value(&mut draws.values[*values]),
            Part::Client => Bytes::from(self.client_name(&program.groups[self.group])),
            Part::Copy => Bytes::from((self.copy + 1).to_string()),
            Part::Round => {
                let is_loop = |frame: &&Frame| !matches!(frame.kind, Loop::Arm);
                let innermost = self.frames.iter().rev().find(is_loop);
                Bytes::from(innermost.map_or(0, |frame| frame.round).to_string())
            }
        })
    }

    /// A command with its names filled in.
    pub(super) fn fill_in(
        &mut self,
        draws: &mut Draws,
        program: &Program,
        template: &CommandTemplate,
    ) -> Result<DataCommand, String> {
        let key = self.render(draws, program, &template.key)?;
        let key = draws.key_of_run(key);
        let mut render = |template: &Option<Template>| {
            let rendered = template.as_ref().map(|word| self.render(draws, program, word));
            rendered.transpose().map(Option::unwrap_or_default)
        };
        Ok(match &template.pattern {
            DataCommand::Get { stale, at_least, .. } => DataCommand::Get {
                key,
                stale: *stale,
                at_least: *at_least,
            },
            DataCommand::Put { if_absent, prev, .. } => DataCommand::Put {
                key,
                value: render(&template.value)?,
                if_absent: *if_absent,
                prev: *prev,
            },
            DataCommand::Del { prev, .. } => DataCommand::Del { key, prev: *prev },
            DataCommand::Cas { prev, version, .. } => {
                let value = render(&template.value)?;
                if self.expects_absent(template) {
                    return Ok(DataCommand::Put {
                        key,
                        value,
                        if_absent: true,
                        prev: *prev,
                    });
                }
                let mut render = |template: &Option<Template>| {
                    let rendered = template.as_ref().map(|word| self.render(draws, program, word));
                    rendered.transpose()
                };
                DataCommand::Cas {
                    key,
                    old: render(&template.old)?,
                    version: match render(&template.version)? {
                        Some(text) => Some(number(&text)?),
                        None => *version,
                    },
                    new: value,
                    prev: *prev,
                }
            }
        })
    }

    /// Whether a cas expects what a variable holds that holds nothing.
    fn expects_absent(&self, template: &CommandTemplate) -> bool {
        let variable = template.old.as_ref().and_then(Template::as_variable);
        variable.is_some_and(|slot| self.variables[slot] == Datum::Absent)
    }

    /// What a `let` sets.
    pub(super) fn evaluate(
        &mut self,
        draws: &mut Draws,
        program: &Program,
        expression: &Expression,
    ) -> Result<Datum, String> {
        let Some((operator, second)) = &expression.rest else {
            // A variable hands on also that it holds nothing.
            if let Some(slot) = expression.first.as_variable() {
                return Ok(self.variables[slot].clone());
            }
            return Ok(Datum::Bytes(self.render(draws, program, &expression.first)?));
        };
        let first = number(&self.render(draws, program, &expression.first)?)?;
        let second = number(&self.render(draws, program, second)?)?;
        let result = operator.apply(first, second);
        result
            .map(Datum::Number)
            .ok_or_else(|| format!("{first} {operator} {second} is no number from 0 to {}", u64::MAX))
    }

    /// Whether the last result is as expected; if not, what was expected and what was found.
    pub(super) fn meets(
        &mut self,
        draws: &mut Draws,
        program: &Program,
        expectation: &Expectation,
    ) -> Result<Option<(String, String)>, String> {
        let Some(result) = self.result.clone() else {
            return Err("nothing was asked before this line".to_owned());
        };
        let mut expected = expectation.name().to_owned();
        let holds = match (expectation, &result) {
            (Expectation::Class(class), result) => result.class() == *class,
            (Expectation::Yes, Ended::Done(served)) => !render::is_no(served),
            (Expectation::No, Ended::Done(served)) => render::is_no(served),
            (Expectation::Answer(answer), Ended::Done(served)) => render::answer_name(served) == *answer,
            (Expectation::Absent, Ended::Done(served)) => found(served).is_none(),
            (Expectation::Value { comparison, with }, Ended::Done(served)) => {
                let with = self.render(draws, program, with)?;
                expected = format!("value {comparison} {}", render::quote(&with));
                match found(served) {
                    None => false,
                    Some(found) if comparison.is_equality() => comparison.holds(&found.value, &with),
                    Some(found) => comparison.holds(number(&found.value)?, number(&with)?),
                }
            }
            (Expectation::Cause(expected), Ended::NotDone { cause, .. } | Ended::Unknown { cause, .. }) => {
                expected == cause
            }
            (_, Ended::Done(_) | Ended::NotDone { .. } | Ended::Unknown { .. }) => false,
        };
        Ok((!holds).then(|| (expected, shown(&result))))
    }
}

/// What the command found in its key.
fn found(served: &Served) -> Option<&Versioned> {
    match served {
        Served::Done(done) => match &done.answer {
            Answer::Found(found) | Answer::Exists { current: found } => Some(found),
            Answer::CasFailed { current } => current.as_ref(),
            Answer::Written {
                previous: Previous::Was(was),
            } => Some(was),
            Answer::Written { .. } | Answer::NotFound | Answer::Opened { .. } | Answer::Closed => None,
        },
        Served::Stale { found, .. } => found.as_ref(),
        Served::Status(_) => None,
    }
}

fn number(bytes: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(bytes).ok();
    let parsed = text.and_then(|text| text.trim().parse().ok());
    parsed.ok_or_else(|| format!("{} is no whole number", render::quote(bytes)))
}

/// A result in a line.
fn shown(ended: &Ended) -> String {
    match ended {
        Ended::Done(served) => {
            let answer = render::answer_name(served);
            match found(served) {
                Some(found) => format!("done: {answer}, value {}", render::quote(&found.value)),
                None => format!("done: {answer}"),
            }
        }
        Ended::NotDone { why, .. } => format!("not done: {why}"),
        Ended::Unknown { why, .. } => format!("unknown: {why}"),
    }
}
