//! From a data directory to a loop that can turn: the directory is opened, its log read back, a machine made of it.
//!
//! Node and simulator both start here, each over its own files. What is damaged is told, and outlived where that is safe:
//! `docs/design.md`, "Damage".

use super::turn::Turn;
use crate::machine::{DamageFinding, Machine, Settings};
use crate::storage::snapshot::{Header, snapshot_name};
use crate::storage::{self, DAMAGED_SUFFIX, Damage, Files, Identity, OpenError, Options, Storage};
use crate::wire::Record;
use std::fmt;

/// Why nothing can turn on a directory.
#[derive(Debug)]
pub enum Unusable {
    /// It cannot be used.
    Directory(OpenError),
    /// Its log is whole, and holds a chosen entry that this build cannot apply.
    CannotApply(String),
    /// It is bound to other options than those that were given.
    Bound(String),
}

/// What is told while a directory is read back.
#[derive(Clone, Copy, Debug)]
pub enum Reading<'a> {
    /// A record of the log.
    Record(&'a Record),
    /// All that was told before is void: the log cannot be read back, and a new one is begun.
    MemoryLost,
}

/// Opens `files` under a new start, and has a machine of `settings`, with the directory's identity, restore the newest
/// whole snapshot and recover every record of the log; `watch` sees each of them, too. [`Turn::start`] comes next.
///
/// Where the log is damaged, what this node promised is lost. If it has peers, it sets the log aside and begins one that
/// says so: it must not vote before it has recovered from them (`machine::memory`).
///
/// # Errors
/// [`Unusable`]; nothing that was read may be acted on.
pub fn open<F: Files>(
    files: F,
    options: &Options,
    settings: Settings,
    mut watch: impl FnMut(Reading<'_>),
) -> Result<(Turn<F>, Identity), Unusable> {
    let has_peers = settings.nodes.len() > 1;
    let error = match open_as_it_is(files.clone(), options, settings.clone(), &[], &mut watch) {
        Err(Unusable::Directory(error)) if has_peers && error.is_loss_of_memory() => error,
        opened => return opened,
    };
    match storage::set_log_aside(&files, options) {
        Ok(()) => {}
        Err(OpenError::Missing { .. }) => return Err(Unusable::Directory(error)), // nobody can tell whose it was
        Err(other) => return Err(Unusable::Directory(other)),
    }
    log::error!("{}", error.finding());
    log::error!(
        "what this node promised is lost with its log, which is kept as *{DAMAGED_SUFFIX}: it votes again when its peers \
         have shown it what that may have been (docs/operations.md, \"Damage\")"
    );
    watch(Reading::MemoryLost);
    open_as_it_is(files, options, settings, &findings(error), &mut watch)
}

fn open_as_it_is<F: Files>(
    files: F,
    options: &Options,
    settings: Settings,
    lost: &[DamageFinding],
    watch: &mut dyn FnMut(Reading<'_>),
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
    let mut restart = storage
        .newest_snapshot(&machine.empty_state())
        .map_err(Unusable::Directory)?;
    let base = restart.slot();
    if let Some(state) = restart.state.take() {
        machine.restore(state);
    }
    let mut applied = Ok(());
    let recovered = storage.recover_over(base, |record| {
        watch(Reading::Record(&record));
        if applied.is_ok() {
            applied = machine.recover(record);
        }
    });
    let outlived = recovered.map_err(Unusable::Directory)?;
    applied.map_err(Unusable::CannotApply)?;
    machine.check_options().map_err(Unusable::Bound)?;
    storage.check_reach(&restart).map_err(Unusable::Directory)?;
    note_base(&mut machine, &storage, restart.header.as_ref()).map_err(Unusable::Directory)?;
    for finding in lost {
        machine.note_damage(finding.clone());
    }
    let damaged = restart.damaged.drain(..).map(|(_, damage)| damage);
    let damage = damaged.chain(outlived).collect();
    let newest = restart.header.as_ref().map(|header| header.summary);
    let turn = Turn::new(machine, storage, newest, proposal_bytes, options.snapshot_bytes);
    let turn = turn.map_err(|error| Unusable::Directory(error.into()))?;
    Ok((turn.scrubbing(options.scrub, damage), identity))
}

/// What is told of the damage for which a log was set aside: under the names that its files have now.
fn findings(error: OpenError) -> Vec<DamageFinding> {
    match error {
        OpenError::Damage(damage) => vec![finding(damage)],
        OpenError::NoSnapshot { damaged, .. } => damaged.into_iter().map(finding).collect(),
        OpenError::Missing { file, reason } => vec![DamageFinding {
            file: format!("{file}{DAMAGED_SUFFIX}"),
            offset: 0,
            kind: "missing",
            what: reason,
        }],
        _ => Vec::new(),
    }
}

fn finding(damage: Damage) -> DamageFinding {
    DamageFinding {
        file: format!("{}{DAMAGED_SUFFIX}", damage.file),
        offset: damage.offset,
        kind: damage.kind.name(),
        what: damage.what,
    }
}

/// What `synod restore` has put into a directory is the base of its node's log. A snapshot of a founded cluster is none: a
/// directory that holds it holds the cluster's roster, too, or is what is left of one.
fn note_base<F: Files>(machine: &mut Machine, storage: &Storage<F>, newest: Option<&Header>) -> Result<(), OpenError> {
    let stray =
        newest.filter(|header| header.cluster_id != 0 && machine.cluster_id() == 0 && !machine.has_lost_memory());
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
            Unusable::Bound(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Unusable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unusable::Directory(error) => Some(error),
            Unusable::CannotApply(_) | Unusable::Bound(_) => None,
        }
    }
}
