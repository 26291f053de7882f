//! Scripts as text, read into a [`Program`] in one pass: blocks are kept on a stack and patched when they end.

mod declare;

use super::error::{Position, ScriptError, Trouble};
use super::expect;
use super::lexer::{Word, words};
use super::program::{Barrier, CommandTemplate, Expression, Group, MAIN, Operator, Program, RESULT_VARIABLES, Step};
use super::template::{Part, Template, is_name, substitute};
use super::words::{duration, misplaced, node, none, number, one, usage};
use crate::command::{DataCommand, FaultCommand};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Most rounds of a loop, and most operations a second: any number that makes sense.
const NUMBER_MAX: u64 = 1 << 53;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Variable(usize),
    Keys(usize),
    Values(usize),
    Group(usize),
    Barrier(usize),
    Parameter,
}

/// A block that is open.
struct Block {
    kind: Kind,
    verb: &'static str,
    at: Position,
    /// The step that began it.
    head: usize,
}

enum Kind {
    Client,
    Loop,
    Mix { arms: Vec<(u64, usize)> },
    Arm,
}

/// Reads one script.
pub(super) struct Parser<'a> {
    given: &'a BTreeMap<String, String>,
    parameters: BTreeMap<String, String>,
    names: BTreeMap<String, Name>,
    blocks: Vec<Block>,
    /// Whose body is read.
    group: usize,
    program: Program,
}

impl<'a> Parser<'a> {
    pub(super) fn new(given: &'a BTreeMap<String, String>) -> Parser<'a> {
        let main = Group {
            name: "main".to_owned(),
            copies: 1,
            pipeline: 1,
            rate: None,
            entry: 0,
            counted: true,
        };
        let results = RESULT_VARIABLES.iter().enumerate();
        Parser {
            given,
            parameters: BTreeMap::new(),
            names: results
                .map(|(slot, name)| ((*name).to_owned(), Name::Variable(slot)))
                .collect(),
            blocks: Vec::new(),
            group: MAIN,
            program: Program {
                code: Vec::new(),
                places: Vec::new(),
                groups: vec![main],
                keys: Vec::new(),
                values: Vec::new(),
                variables: RESULT_VARIABLES.map(str::to_owned).to_vec(),
                barriers: Vec::new(),
                expectations: Vec::new(),
            },
        }
    }

    pub(super) fn parse(mut self, text: &[u8]) -> Result<Program, ScriptError> {
        let mut number = 0;
        for line in text.split(|byte| *byte == b'\n') {
            number += 1;
            let start = Position {
                line: number,
                column: 1,
            };
            let line = std::str::from_utf8(line).map_err(|_| ScriptError::new(start, Trouble::NotText))?;
            let mut words = words(line, number)?;
            for word in &mut words {
                word.text = substitute(&word.text, |name| self.parameters.get(name).cloned());
            }
            if let [verb, rest @ ..] = words.as_slice() {
                self.line(verb, rest, &words)?;
            }
        }
        if let Some(block) = self.blocks.last() {
            return Err(ScriptError::new(block.at, Trouble::NotEnded { verb: block.verb }));
        }
        if let Some(name) = self.given.keys().find(|name| !self.parameters.contains_key(*name)) {
            let trouble = Trouble::UnknownParameter { name: name.clone() };
            return Err(ScriptError::new(Position::default(), trouble));
        }
        self.emit(
            Position {
                line: number,
                column: 1,
            },
            Step::End,
        );
        self.program.check_places()?;
        Ok(self.program)
    }

    /// A line that is not blank. Within a mix it begins with a weight.
    fn line(&mut self, verb: &Word, rest: &[Word], all: &[Word]) -> Result<(), ScriptError> {
        let in_mix = matches!(
            self.blocks.last(),
            Some(Block {
                kind: Kind::Mix { .. },
                ..
            })
        );
        if !in_mix || verb.text == "end" {
            return self.statement(verb, rest, all);
        }
        let weight = number(verb, 0, NUMBER_MAX / 1024)?;
        self.begin_arm(weight);
        match rest {
            [] => Err(usage(verb.at, "WEIGHT COMMAND, or WEIGHT do … end")),
            [word] if word.text == "do" => {
                self.open(Kind::Arm, "do", word.at);
                Ok(())
            }
            [verb, more @ ..] => {
                let blocks = self.blocks.len();
                self.statement(verb, more, rest)?;
                if self.blocks.len() != blocks {
                    return Err(misplaced("a block", verb.at, "inside `WEIGHT do … end`"));
                }
                self.emit(verb.at, Step::EndArm);
                Ok(())
            }
        }
    }

    /// The one list of verbs; each has its own function.
    fn statement(&mut self, verb: &Word, rest: &[Word], all: &[Word]) -> Result<(), ScriptError> {
        let at = verb.at;
        match verb.text.as_str() {
            "put" | "get" | "del" | "cas" => self.command(at, all),
            "expect" => self.expect(at, rest),
            "let" => self.set(at, rest),
            "param" => self.parameter(at, rest),
            "keys" => self.keys(at, rest),
            "values" => self.values(at, rest),
            "load" => self.load(at, rest),
            "warmup" => {
                let step = Step::Warmup(duration(one(at, rest, "warmup 1s")?)?);
                self.main_only("warmup", at)?;
                self.emit(at, step);
                Ok(())
            }
            "client" => self.client(at, None, rest),
            "clients" => {
                let [count, rest @ ..] = rest else {
                    return Err(usage(at, "clients COUNT NAME [pipeline N] [rate N/s]"));
                };
                self.client(at, Some(count), rest)
            }
            "wait" => self.wait(at, rest),
            "barrier" => self.barrier(at, rest),
            "repeat" => {
                let times = number(one(at, rest, "repeat COUNT")?, 0, NUMBER_MAX)?;
                self.begin_loop(at, "repeat", Step::Repeat { times, end: 0 })
            }
            "for" => {
                let duration = duration(one(at, rest, "for 10s")?)?;
                self.begin_loop(at, "for", Step::For { duration, end: 0 })
            }
            "attempt" => {
                none(at, rest, "attempt")?;
                self.begin_loop(at, "attempt", Step::Attempt { end: 0 })
            }
            "mix" => {
                none(at, rest, "mix")?;
                self.open(Kind::Mix { arms: Vec::new() }, "mix", at);
                let step = Step::Mix {
                    arms: Vec::new(),
                    end: 0,
                };
                self.emit(at, step);
                Ok(())
            }
            "end" => {
                none(at, rest, "end")?;
                self.end(at)
            }
            "sleep" => {
                let step = Step::Sleep(duration(one(at, rest, "sleep 20ms")?)?);
                self.emit(at, step);
                Ok(())
            }
            "print" => {
                let words: Result<_, _> = rest.iter().map(|word| self.template(word)).collect();
                self.emit(at, Step::Print(words?));
                Ok(())
            }
            "fault" => self.fault(at, rest),
            "kill" => {
                let node = node(one(at, rest, "kill NODE")?)?;
                self.emit(at, Step::Kill(node));
                Ok(())
            }
            "start" => {
                let node = node(one(at, rest, "start NODE")?)?;
                self.emit(at, Step::Start(node));
                Ok(())
            }
            _ => {
                let verb = verb.text.clone();
                Err(ScriptError::new(at, Trouble::UnknownVerb { verb }))
            }
        }
    }

    fn emit(&mut self, at: Position, step: Step) -> usize {
        self.program.code.push(step);
        self.program.places.push(at);
        self.program.code.len() - 1
    }

    fn here(&self) -> usize {
        self.program.code.len()
    }

    fn main_only(&self, verb: &'static str, at: Position) -> Result<(), ScriptError> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        Err(misplaced(verb, at, "at the top of a script, outside of any block"))
    }

    fn name(&mut self, word: &Word, meaning: Name) -> Result<(), ScriptError> {
        if !is_name(&word.text) {
            let trouble = Trouble::BadName {
                word: word.text.clone(),
            };
            return Err(ScriptError::new(word.at, trouble));
        }
        let reserved = ["client", "copy", "round"].contains(&word.text.as_str());
        if reserved || self.names.insert(word.text.clone(), meaning).is_some() {
            let name = word.text.clone();
            return Err(ScriptError::new(word.at, Trouble::NameTaken { name }));
        }
        Ok(())
    }

    fn find(
        &self,
        word: &Word,
        kind: &'static str,
        want: impl Fn(Name) -> Option<usize>,
    ) -> Result<usize, ScriptError> {
        let text = word.text.strip_prefix('$').unwrap_or(&word.text);
        let found = self.names.get(text).copied().and_then(want);
        found.ok_or_else(|| {
            let name = text.to_owned();
            ScriptError::new(word.at, Trouble::UnknownName { name, kind })
        })
    }

    fn template(&self, word: &Word) -> Result<Template, ScriptError> {
        Template::parse(&word.text, word.at, |name| match name {
            "client" => Some(Part::Client),
            "copy" => Some(Part::Copy),
            "round" => Some(Part::Round),
            _ => match (self.names.get(name), name.strip_suffix(".next")) {
                (Some(Name::Variable(slot)), _) => Some(Part::Variable(*slot)),
                (Some(Name::Keys(keys)), _) => Some(Part::Key(*keys)),
                (Some(Name::Values(values)), _) => Some(Part::Value(*values)),
                (None, Some(space)) => match self.names.get(space) {
                    Some(Name::Keys(keys)) => Some(Part::NextKey(*keys)),
                    _ => None,
                },
                _ => None,
            },
        })
    }

    fn wait(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let group = match rest {
            [] => None,
            [name] => Some(self.find(name, "client", |name| match name {
                Name::Group(group) => Some(group),
                _ => None,
            })?),
            _ => return Err(usage(at, "wait, or wait NAME")),
        };
        self.main_only("wait", at)?;
        self.emit(at, Step::Wait { group });
        Ok(())
    }

    fn barrier(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let name = one(at, rest, "barrier NAME")?;
        let barrier = match self.names.get(&name.text) {
            Some(Name::Barrier(barrier)) => *barrier,
            _ => {
                let barrier = self.program.barriers.len();
                self.name(name, Name::Barrier(barrier))?;
                self.program.barriers.push(Barrier {
                    name: name.text.clone(),
                    groups: BTreeSet::new(),
                });
                barrier
            }
        };
        self.program.barriers[barrier].groups.insert(self.group);
        self.emit(at, Step::Barrier(barrier));
        Ok(())
    }

    fn set(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        const USAGE: &str = "let NAME = WORD, or let NAME = WORD + WORD (also - * / %)";
        let (name, first, more) = match rest {
            [name, equals, first, more @ ..] if equals.text == "=" => (name, first, more),
            _ => return Err(usage(at, USAGE)),
        };
        let expression = Expression {
            first: self.template(first)?,
            rest: match more {
                [] => None,
                [operator, second] => {
                    let parsed = Operator::parse(&operator.text).ok_or_else(|| usage(operator.at, USAGE))?;
                    Some((parsed, self.template(second)?))
                }
                [_, ..] => return Err(usage(more[0].at, USAGE)),
            },
        };
        let variable = match self.names.get(&name.text) {
            Some(Name::Variable(variable)) => *variable,
            _ => {
                let variable = self.program.variables.len();
                self.name(name, Name::Variable(variable))?;
                self.program.variables.push(name.text.clone());
                variable
            }
        };
        self.emit(at, Step::Let { variable, expression });
        Ok(())
    }

    fn expect(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        if let Some(expectation) = expect::parse_run(rest)? {
            self.main_only("expect of the whole run", at)?;
            self.program.expectations.push((at, expectation));
            return Ok(());
        }
        let expectation = expect::parse_result(rest, at, |word| self.template(word))?;
        self.emit(at, Step::Expect(expectation));
        Ok(())
    }

    fn fault(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let [id, what @ ..] = rest else {
            return Err(usage(at, "fault NODE COMMAND, such as fault 2 acceptor down 5s"));
        };
        let node = node(id)?;
        let words: Vec<OsString> = what.iter().map(|word| OsString::from(&word.text)).collect();
        let command = FaultCommand::from_words(&words);
        let at_command = what.first().map_or(at, |word| word.at);
        let command = command.map_err(|error| ScriptError::new(at_command, Trouble::Command(error)))?;
        self.emit(at, Step::Fault { node, command });
        Ok(())
    }

    /// A command on the data: the words go to the definitions that all tools share, then names are looked for in them.
    fn command(&mut self, at: Position, words: &[Word]) -> Result<(), ScriptError> {
        let mut texts: Vec<OsString> = words.iter().map(|word| OsString::from(&word.text)).collect();
        // A version is a number by definition; a variable in its place is filled in later.
        let version = words.windows(2).position(|pair| pair[0].text == "--version");
        let version = version
            .map(|place| place + 1)
            .filter(|place| words[*place].text.starts_with('$'));
        if let Some(place) = version {
            texts[place] = OsString::from("0");
        }
        let pattern = DataCommand::from_words(&texts);
        let pattern = pattern.map_err(|error| ScriptError::new(at, Trouble::Command(error)))?;
        // Clap keeps no columns; a word's text finds its place again.
        let find = |bytes: &[u8]| {
            let found = words.iter().find(|word| word.text.as_bytes() == bytes);
            found.cloned().unwrap_or_else(|| Word {
                text: String::from_utf8_lossy(bytes).into_owned(),
                at,
            })
        };
        let template = |bytes: &[u8]| self.template(&find(bytes));
        let (value, old) = match &pattern {
            DataCommand::Put { value, .. } => (Some(value), None),
            DataCommand::Cas { new, old, .. } => (Some(new), old.as_ref()),
            DataCommand::Get { .. } | DataCommand::Del { .. } => (None, None),
        };
        let template = CommandTemplate {
            key: template(pattern.key())?,
            value: value.map(|value| template(value)).transpose()?,
            old: old.map(|old| template(old)).transpose()?,
            version: version.map(|place| self.template(&words[place])).transpose()?,
            pattern,
        };
        self.emit(at, Step::Command(Box::new(template)));
        Ok(())
    }

    fn open(&mut self, kind: Kind, verb: &'static str, at: Position) {
        let head = self.here();
        self.blocks.push(Block { kind, verb, at, head });
    }

    fn begin_loop(&mut self, at: Position, verb: &'static str, step: Step) -> Result<(), ScriptError> {
        self.open(Kind::Loop, verb, at);
        self.emit(at, step);
        Ok(())
    }

    fn begin_arm(&mut self, weight: u64) {
        let here = self.here();
        if let Some(Block {
            kind: Kind::Mix { arms },
            ..
        }) = self.blocks.last_mut()
        {
            let so_far = arms.last().map_or(0, |(sum, _)| *sum);
            arms.push((so_far + weight, here));
        }
    }

    fn end(&mut self, at: Position) -> Result<(), ScriptError> {
        let Some(block) = self.blocks.pop() else {
            return Err(ScriptError::new(at, Trouble::NothingToEnd));
        };
        match block.kind {
            Kind::Client => {
                self.emit(at, Step::End);
                self.group = MAIN;
            }
            Kind::Loop => {
                self.emit(at, Step::Again);
            }
            Kind::Arm => {
                self.emit(at, Step::EndArm);
            }
            Kind::Mix { arms: drawn } => {
                if drawn.last().is_none_or(|(sum, _)| *sum == 0) {
                    return Err(ScriptError::new(block.at, Trouble::EmptyMix));
                }
                if let Step::Mix { arms, .. } = &mut self.program.code[block.head] {
                    *arms = drawn;
                }
            }
        }
        let here = self.here();
        if let Step::Spawn { end, .. }
        | Step::Repeat { end, .. }
        | Step::For { end, .. }
        | Step::Attempt { end }
        | Step::Mix { end, .. } = &mut self.program.code[block.head]
            && !matches!(block.verb, "do")
        {
            *end = here;
        }
        Ok(())
    }
}
