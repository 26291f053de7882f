//! Statements that say what there is: parameters, keys, values, clients.

use super::super::error::{Position, ScriptError, Trouble};
use super::super::lexer::Word;
use super::super::program::{CLIENTS_MAX, Group, PIPELINE_MAX, Step};
use super::super::words::{number, usage};
use super::{Kind, NUMBER_MAX, Name, Parser};
use crate::command::ParseError;
use crate::kv::command::VALUE_BYTES_MAX;
use crate::units::parse_size;
use crate::workload::generator::{Distribution, KEYS_MAX, KeySpec, THETA_DEFAULT, ValueSpec};

/// Clients that load keys, and the pipeline of each.
const LOAD_CLIENTS: usize = 16;
const LOAD_PIPELINE: usize = 4;

impl Parser<'_> {
    pub(super) fn parameter(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let [name, default] = rest else {
            return Err(usage(at, "param NAME DEFAULT"));
        };
        self.main_only("param", at)?;
        self.name(name, Name::Parameter)?;
        let value = self.given.get(&name.text).unwrap_or(&default.text);
        self.parameters.insert(name.text.clone(), value.clone());
        Ok(())
    }

    pub(super) fn keys(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        const USAGE: &str = "keys NAME uniform|zipf|latest|in-order COUNT [theta 0.99] [prefix TEXT]";
        let [name, distribution, count, options @ ..] = rest else {
            return Err(usage(at, USAGE));
        };
        let mut theta = THETA_DEFAULT;
        let mut prefix = name.text.clone();
        for option in options.chunks(2) {
            match option {
                [what, value] if what.text == "theta" => {
                    let parsed = value.text.parse().ok().filter(|theta| (0.0..1.0).contains(theta));
                    theta = parsed.ok_or_else(|| usage(value.at, "theta 0.99: from 0 to below 1"))?;
                }
                [what, value] if what.text == "prefix" => prefix.clone_from(&value.text),
                _ => return Err(usage(option[0].at, USAGE)),
            }
        }
        let spec = KeySpec {
            prefix,
            count: number(count, 1, KEYS_MAX)?,
            distribution: match distribution.text.as_str() {
                "uniform" => Distribution::Uniform,
                "zipf" => Distribution::Zipf { theta },
                "latest" => Distribution::Latest { theta },
                "in-order" => Distribution::InOrder,
                _ => return Err(usage(distribution.at, USAGE)),
            },
        };
        self.main_only("keys", at)?;
        self.name(name, Name::Keys(self.program.keys.len()))?;
        self.program.keys.push(spec);
        Ok(())
    }

    pub(super) fn values(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let [name, kind, size] = rest else {
            return Err(usage(at, "values NAME unique SIZE"));
        };
        if kind.text != "unique" {
            return Err(usage(kind.at, "values NAME unique SIZE"));
        }
        let bytes = parse_size(&size.text).map_err(|error| ScriptError::new(size.at, Trouble::Unit(error)))?;
        let fits = usize::try_from(bytes).ok().filter(|bytes| *bytes <= VALUE_BYTES_MAX);
        let bytes = fits.ok_or_else(|| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            ScriptError::new(size.at, Trouble::Command(ParseError::ValueTooLong { bytes }))
        })?;
        self.main_only("values", at)?;
        self.name(name, Name::Values(self.program.values.len()))?;
        self.program.values.push(ValueSpec { bytes });
        Ok(())
    }

    /// `load` is clients of its own, for whom the script waits.
    pub(super) fn load(&mut self, at: Position, rest: &[Word]) -> Result<(), ScriptError> {
        let [keys, values] = rest else {
            return Err(usage(at, "load KEYS VALUES"));
        };
        self.main_only("load", at)?;
        let keys = self.find(keys, "keys", |name| match name {
            Name::Keys(keys) => Some(keys),
            _ => None,
        })?;
        let values = self.find(values, "values", |name| match name {
            Name::Values(values) => Some(values),
            _ => None,
        })?;
        let count = usize::try_from(self.program.keys[keys].count).unwrap_or(usize::MAX);
        let group = self.program.groups.len();
        self.program.groups.push(Group {
            name: "load".to_owned(),
            copies: LOAD_CLIENTS.min(count),
            pipeline: LOAD_PIPELINE,
            rate: None,
            entry: self.here() + 1,
            counted: false,
        });
        let end = self.here() + 3;
        self.emit(at, Step::Spawn { group, end });
        self.emit(at, Step::Load { keys, values });
        self.emit(at, Step::End);
        self.emit(at, Step::Wait { group: Some(group) });
        Ok(())
    }

    pub(super) fn client(&mut self, at: Position, count: Option<&Word>, rest: &[Word]) -> Result<(), ScriptError> {
        const USAGE: &str = "client NAME [pipeline N] [rate N/s], or clients COUNT NAME [pipeline N] [rate N/s]";
        let [name, options @ ..] = rest else {
            return Err(usage(at, USAGE));
        };
        let copies = count.map_or(Ok(1), |count| number(count, 1, CLIENTS_MAX))?;
        let (mut pipeline, mut rate) = (1, 0);
        for option in options.chunks(2) {
            match option {
                [what, value] if what.text == "pipeline" => pipeline = number(value, 1, PIPELINE_MAX)?,
                [what, value] if what.text == "rate" => {
                    let text = value.text.strip_suffix("/s").unwrap_or(&value.text).to_owned();
                    rate = number(&Word { text, at: value.at }, 0, NUMBER_MAX)?;
                }
                _ => return Err(usage(option[0].at, USAGE)),
            }
        }
        self.main_only(if count.is_some() { "clients" } else { "client" }, at)?;
        let group = self.program.groups.len();
        self.name(name, Name::Group(group))?;
        let entry = self.here() + 1;
        self.program.groups.push(Group {
            name: name.text.clone(),
            copies: usize::try_from(copies).unwrap_or(usize::MAX),
            pipeline: usize::try_from(pipeline).unwrap_or(usize::MAX),
            rate: Some(rate).filter(|rate| *rate > 0),
            entry,
            counted: true,
        });
        self.open(Kind::Client, "client", at);
        self.emit(at, Step::Spawn { group, end: 0 });
        self.group = group;
        Ok(())
    }
}
