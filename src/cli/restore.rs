//! `synod restore`: data directories for a new cluster, from one backup.
//!
//! The backup is proven to its last byte before anything is made. Each directory then holds the same snapshot, without the
//! sessions of the old cluster ([`crate::storage::backup`]); nodes that start on them found a new cluster, whose slots and
//! revisions go on behind the backup's.

use super::{Global, Output, exit};
use crate::console::{complain, print};
use crate::kv::snapshot::Summary;
use crate::storage::{Disk, OpenError, backup};
use clap::Args;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Make data directories for the nodes of a new cluster from a backup
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// What `synod backup` wrote
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// A directory to make, empty or not there yet; once for each node of the new cluster
    #[arg(long = "data-dir", required = true, value_name = "DIR")]
    data_dirs: Vec<PathBuf>,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(global: &Global, args: &RestoreArgs) -> io::Result<u8> {
    for directory in &args.data_dirs {
        if let Err(why) = check_empty(directory) {
            complain(&format!("{}: {why}; nothing was made", directory.display()));
            return Ok(exit::NOT_DONE);
        }
    }
    match restore(args) {
        Ok(summary) => print(words(global.output, &summary, &args.data_dirs).as_bytes()).map(|()| exit::DONE),
        Err(error) => {
            complain(&error.to_string());
            Ok(code(&error))
        }
    }
}

/// The exit code for a backup that cannot be read, or for what cannot be written.
pub(super) fn code(error: &OpenError) -> u8 {
    match error {
        OpenError::Damage(_) | OpenError::NewerFormat { .. } | OpenError::NewerRecord { .. } => exit::DAMAGED,
        _ => exit::NOT_DONE,
    }
}

fn check_empty(directory: &Path) -> Result<(), String> {
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err("the directory is not empty".into()),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn restore(args: &RestoreArgs) -> Result<Summary, OpenError> {
    let path = args.backup.display().to_string();
    let open = || File::open(&args.backup).map_err(|source| crate::storage::Failure::new("read", path.clone(), source));
    let proven = backup::prove(open()?, &path)?;
    for directory in &args.data_dirs {
        backup::begin_cluster(open()?, &path, &proven, &Disk::new(directory))?;
    }
    Ok(proven.header.summary)
}

/// What a backup holds, as members of a JSON object.
pub(super) fn as_json(summary: &Summary) -> Value {
    json!({
        "slot": summary.slot.0,
        "revision": summary.revision,
        "keys": summary.keys,
        "bytes": summary.bytes,
        "content": format!("{:016x}", summary.content),
    })
}

/// The same in words.
pub(super) fn as_words(summary: &Summary) -> String {
    let Summary {
        slot,
        revision,
        keys,
        bytes,
        ..
    } = summary;
    format!("slot {slot}, revision {revision}, {keys} keys, {bytes} bytes")
}

fn words(output: Output, summary: &Summary, directories: &[PathBuf]) -> String {
    let names: Vec<String> = directories.iter().map(|path| path.display().to_string()).collect();
    match output {
        Output::Json => {
            let mut object = as_json(summary);
            object["directories"] = json!(names);
            format!("{object}\n")
        }
        Output::Text => {
            let mut words: String = names.iter().map(|name| format!("restored {name}\n")).collect();
            words.push_str(&format!("{}; start a node on each\n", as_words(summary)));
            words
        }
    }
}
