//! `synod inspect`: what stands in the files of a data directory, in a backup, or in hex, part by part.
//!
//! Nothing is changed, and nothing is loaded as a whole: a file of any size takes the memory of its largest part. A
//! directory's segments are read as one log, so a torn tail is told from damage. Results are one line a part.
//!
//! * `show`: each part as a JSON object. `hex`: bytes that somebody copied. The walk itself: [`crate::storage::inspect`].

mod hex;
mod show;
mod text;

use super::{Global, Output, exit};
use crate::console::complain;
use crate::storage::inspect::{self, Ended, Kind, Part, log::LogWalk};
use clap::Args;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// The end of the names of files that were being made, and of snapshots that a start has found damaged.
const LEFTOVERS: [(&str, &str); 2] = [
    (".tmp", "half made; the next start removes it"),
    (".damaged", "set aside as damaged by an earlier start"),
];

/// Print what stands in files of a data directory, in backups or in hex: exit 0 if it is whole, 6 if it is damaged
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// Files (log segments, snapshots, IDENTITY) or data directories; `-`: hex on standard input
    #[arg(required_unless_present = "hex", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Bytes in hex: a frame, a record, a body, or what a file holds. Spaces do not count, nor what follows two of them
    #[arg(long, value_name = "HEX", conflicts_with = "files")]
    hex: Option<String>,
}

/// Where parts go.
struct Printer {
    out: BufWriter<io::Stdout>,
    output: Output,
    files: u64,
    parts: u64,
    damage: u64,
}

/// Why a file was not shown.
enum Refused {
    Ended(Ended),
    /// It is nothing that this command knows.
    Unknown(String),
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(global: &Global, args: &InspectArgs) -> io::Result<u8> {
    let mut printer = Printer::new(global.output);
    let shown = match &args.hex {
        Some(hex) => hex::show_hex(hex, &mut printer),
        None => args.files.iter().try_for_each(|path| show_path(path, &mut printer)),
    };
    match shown.and_then(|()| printer.finish().map_err(Refused::from)) {
        Ok(()) if printer.damage > 0 => Ok(exit::DAMAGED),
        Ok(()) => Ok(exit::DONE),
        Err(Refused::Ended(Ended::Unwanted(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Err(Refused::Ended(Ended::Unwanted(error))) => Err(error),
        Err(Refused::Ended(Ended::Failed(failure))) => {
            complain(&failure.to_string());
            Ok(exit::USAGE)
        }
        Err(Refused::Unknown(words)) => {
            complain(&words);
            Ok(exit::USAGE)
        }
    }
}

fn show_path(path: &Path, printer: &mut Printer) -> Result<(), Refused> {
    if path.as_os_str() == "-" {
        let hex = io::read_to_string(io::stdin().lock());
        let hex = hex.map_err(|error| Refused::Unknown(format!("standard input: {error}")))?;
        return hex::show_hex(&hex, printer);
    }
    let failed = |error| Refused::Unknown(format!("{}: {error}", path.display()));
    if fs::metadata(path).map_err(failed)?.is_dir() {
        return show_directory(path, printer);
    }
    let (file, kind, name) = open(path)?;
    let Some(kind) = kind else {
        return Err(Refused::Unknown(format!(
            "{name}: neither a log segment nor a snapshot nor an IDENTITY"
        )));
    };
    show_file(&file, &name, kind, printer)
}

/// Opens a file to be read only, and looks what it is.
fn open(path: &Path) -> Result<(File, Option<Kind>, String), Refused> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Refused::Unknown(format!("{name}: {error}")))?;
    let kind = Kind::of(&file, &name).map_err(|failure| Refused::Ended(failure.into()))?;
    Ok((file, kind, name))
}

/// One file by itself. Of a segment nobody knows whether it is the last of its log, so what is bad in it is damage.
fn show_file(file: &File, name: &str, kind: Kind, printer: &mut Printer) -> Result<(), Refused> {
    printer.begin_file(name, kind.name())?;
    let give = &mut |path: &str, offset, part| printer.part(path, offset, part);
    match kind {
        Kind::Identity => inspect::identity(file, name, give)?,
        Kind::Snapshot => inspect::snapshot(file, name, give)?,
        Kind::Segment | Kind::Units => {
            let mut walk = LogWalk::default();
            walk.segment(file, name, give)?;
            walk.finish(false, give)?;
        }
    }
    Ok(())
}

/// A data directory: its files by name, but its segments as one log.
fn show_directory(path: &Path, printer: &mut Printer) -> Result<(), Refused> {
    let failed = |error: io::Error| Refused::Unknown(format!("{}: {error}", path.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    let mut log = LogWalk::default();
    for name in names {
        let path = path.join(&name);
        let name = name.to_string_lossy();
        if let Some((_, words)) = LEFTOVERS.iter().find(|(suffix, _)| name.ends_with(suffix)) {
            printer.note(&path.display().to_string(), words)?;
            continue;
        }
        let (file, kind, name) = open(&path)?;
        match kind {
            None => printer.note(&name, "no file of the log and no snapshot")?,
            Some(Kind::Segment) => {
                printer.begin_file(&name, Kind::Segment.name())?;
                log.segment(&file, &name, &mut |path, offset, part| printer.part(path, offset, part))?;
            }
            Some(kind) => show_file(&file, &name, kind, printer)?,
        }
    }
    log.finish(true, &mut |path, offset, part| printer.part(path, offset, part))?;
    Ok(())
}

impl Printer {
    fn new(output: Output) -> Printer {
        Printer {
            out: BufWriter::new(io::stdout()),
            output,
            files: 0,
            parts: 0,
            damage: 0,
        }
    }

    fn begin_file(&mut self, name: &str, kind: &'static str) -> io::Result<()> {
        self.files += 1;
        match self.output {
            Output::Text => writeln!(self.out, "{name}: {kind}"),
            Output::Json => self.line(&json!({ "file": name, "part": "file", "kind": kind })),
        }
    }

    /// A file that is named and not read.
    fn note(&mut self, name: &str, words: &str) -> io::Result<()> {
        match self.output {
            Output::Text => writeln!(self.out, "{name}: {words}"),
            Output::Json => self.line(&json!({ "file": name, "part": "note", "what": words })),
        }
    }

    fn part(&mut self, path: &str, offset: u64, part: Part) -> io::Result<()> {
        if let Part::Damage(kind, what) = &part {
            self.damage += 1;
            self.out.flush()?; // in order, where both go to one terminal
            complain(&format!("{path} is damaged at offset {offset} ({kind}): {what}"));
        }
        let (name, fields) = show::part(&part);
        self.fields(path, offset, name, fields)
    }

    /// Something that was found, by name and fields.
    fn fields(&mut self, path: &str, offset: u64, name: &str, fields: Value) -> io::Result<()> {
        self.parts += 1;
        match self.output {
            Output::Text => {
                let fields = text::fields(&fields);
                let line = format!("{offset:>12}  {name:<12} {fields}");
                writeln!(self.out, "{}", line.trim_end())
            }
            Output::Json => {
                let mut line = Map::new();
                line.insert("file".into(), path.into());
                line.insert("offset".into(), offset.into());
                line.insert("part".into(), name.into());
                if let Value::Object(fields) = fields {
                    line.extend(fields);
                }
                self.line(&Value::Object(line))
            }
        }
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    fn finish(&mut self) -> io::Result<()> {
        let verdict = if self.damage > 0 { "damaged" } else { "clean" };
        let (files, parts, damage) = (self.files, self.parts, self.damage);
        match self.output {
            Output::Text => writeln!(self.out, "{verdict}: {parts} parts, damage at {damage} places")?,
            Output::Json => self.line(&json!({
                "part": "verdict", "verdict": verdict, "files": files, "parts": parts, "damage": damage,
            }))?,
        }
        self.out.flush()
    }
}

impl From<Ended> for Refused {
    fn from(ended: Ended) -> Refused {
        Refused::Ended(ended)
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Ended(Ended::Unwanted(error))
    }
}
