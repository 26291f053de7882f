//! From a data directory to a loop that can turn: the directory is opened, its log read back, a machine made of it.
//!
//! Node and simulator both start here, each over its own files.

use super::turn::Turn;
use crate::machine::{DamageFinding, Machine, Settings};
use crate::storage::snapshot::{Header, snapshot_name};
use crate::storage::{Files, Identity, OpenError, Options, Storage};
use crate::wire::Record;
use std::fmt;

/// Why nothing can turn on a directory.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be used.
    Directory(OpenError),
    /// Its log is whole, and holds a chosen entry that this build cannot apply.
    CannotApply(String),
}

/// Opens `files` under a new start, and has a machine of `settings`, with the directory's identity, restore the newest
/// whole snapshot and recover every record of the log; `watch` sees each of them, too. [`Turn::start`] comes next.
///
/// # Errors
/// [`Unusable`]; nothing that was read may be acted on.
pub fn open<F: Files>(
    files: F,
    options: &Options,
    settings: Settings,
    mut watch: impl FnMut(&Record),
) -> Result<(Turn<F>, Identity), Unusable> {
    let (mut storage, identity) = Storage::open(files, options).map_err(Unusable::Directory)?;
    let settings = Settings {
        incarnation: identity.incarnation,
        start: identity.start(),
        past_starts: identity.past_starts().to_vec(),
        ..settings
    };
    let proposal_bytes = settings.window_bytes as u64;
    let mut machine = Machine::new(settings);
    let mut restart = storage.newest_snapshot(machine.rules()).map_err(Unusable::Directory)?;
    if let Some(state) = restart.state.take() {
        machine.restore(state);
    }
    let mut applied = Ok(());
    let recovered = storage.recover(|record| {
        watch(&record);
        if applied.is_ok() {
            applied = machine.recover(record);
        }
    });
    recovered.map_err(Unusable::Directory)?;
    applied.map_err(Unusable::CannotApply)?;
    storage.check_reach(&restart).map_err(Unusable::Directory)?;
    note_base(&mut machine, &storage, restart.header.as_ref()).map_err(Unusable::Directory)?;
    for (_, damage) in restart.damaged.drain(..) {
        machine.note_damage(DamageFinding {
            file: damage.file,
            offset: damage.offset,
            kind: damage.kind.name(),
            what: damage.what,
        });
    }
    let newest = restart.header.as_ref().map(|header| header.summary);
    let turn = Turn::new(machine, storage, newest, proposal_bytes, options.snapshot_bytes);
    let turn = turn.map_err(|error| Unusable::Directory(error.into()))?;
    Ok((turn, identity))
}

/// What `synod restore` has put into a directory is the base of its node's log. A snapshot of a founded cluster is none: a
/// directory that holds it holds the cluster's roster, too, or is what is left of one.
fn note_base<F: Files>(machine: &mut Machine, storage: &Storage<F>, newest: Option<&Header>) -> Result<(), OpenError> {
    let stray = newest.filter(|header| header.cluster_id != 0 && machine.cluster_id() == 0);
    if let Some(Header {
        cluster_id, summary, ..
    }) = stray
    {
        return Err(OpenError::StrayedSnapshot {
            file: storage.files().path(&snapshot_name(summary.slot)),
            cluster_id: *cluster_id,
        });
    }
    let restored = newest.filter(|header| header.cluster_id == 0);
    machine.begin_behind(restored.map(|header| header.summary));
    Ok(())
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Directory(error) => error.fmt(f),
            Unusable::CannotApply(reason) => write!(f, "the log cannot be applied: {reason}"),
        }
    }
}

impl std::error::Error for Unusable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unusable::Directory(error) => Some(error),
            Unusable::CannotApply(_) => None,
        }
    }
}
