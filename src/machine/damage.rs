//! The machine's side of damage: what was found in its files and is not repaired yet, and what memory still holds of it.
//!
//! While a node runs, its memory is the truth, and a log that rots is written from it again (`node::snapshots`).
//!
//! Not here: finding damage (`storage::scrub`), memory that is lost with a damaged log (`memory`).

use super::io::{Effect, Note};
use super::machine::Machine;
use super::records;
use super::status::{DAMAGE_FINDINGS_MAX, DamageFinding};
use crate::paxos::Slot;
use crate::time::Time;
use std::time::Duration;

/// How far the scrub has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubView {
    /// Most bytes that it reads in a second; 0: it is off.
    pub bytes_per_second: u64,
    /// When the pass under way began, and how many bytes it has read.
    pub under_way: Option<(Time, u64)>,
    /// Passes that went through all.
    pub passes: u64,
    /// When the last of them ended, how long it took, and how many bytes it read.
    pub last: Option<(Time, Duration, u64)>,
    /// Damage found since the start, at the start included.
    pub found: u64,
    /// Of that, repaired.
    pub repaired: u64,
}

impl Machine {
    /// Notes damage that was found in a file and outlived, to be shown in the status until it is repaired. False if it is
    /// known.
    pub fn note_damage(&mut self, finding: DamageFinding) -> bool {
        if self.damage.contains(&finding) {
            return false;
        }
        if self.damage.len() < DAMAGE_FINDINGS_MAX {
            self.damage.push(finding);
        }
        self.scrub.found += 1;
        true
    }

    /// Damage was found while it runs, and its owner is told.
    pub fn find_damage(&mut self, finding: DamageFinding, effects: &mut Vec<Effect>) {
        if self.note_damage(finding.clone()) {
            effects.push(Effect::Note(Note::DamageFound(finding)));
        }
    }

    /// What was damaged in these files is there no more: all that matters of it stands elsewhere.
    pub fn repair_damage(&mut self, is_repaired: impl Fn(&DamageFinding) -> bool, effects: &mut Vec<Effect>) {
        let found = std::mem::take(&mut self.damage);
        let (repaired, left): (Vec<_>, Vec<_>) = found.into_iter().partition(is_repaired);
        self.damage = left;
        self.scrub.repaired += repaired.len() as u64;
        for DamageFinding { file, offset, .. } in repaired {
            effects.push(Effect::Note(Note::DamageRepaired { file, offset }));
        }
    }

    /// Damage that was found and is not repaired.
    pub fn damage(&self) -> &[DamageFinding] {
        &self.damage
    }

    /// How far the scrub has come.
    pub fn scrub(&self) -> ScrubView {
        self.scrub
    }

    /// Notes how far the scrub has come; what was found and repaired the machine counts itself.
    pub fn tell_scrub(&mut self, view: ScrubView) {
        let ScrubView { found, repaired, .. } = self.scrub;
        self.scrub = ScrubView {
            found,
            repaired,
            ..view
        };
    }

    /// Whether what this node promised is lost, and nobody has shown it again.
    pub fn has_lost_memory(&self) -> bool {
        self.founding.memory().lost().is_some()
    }

    /// Whether memory holds all that this node promised: not while its acceptor is down.
    pub fn remembers_votes(&self) -> bool {
        self.replica.carried().is_some()
    }

    /// Whether memory holds an entry that the log should have of `slot`.
    pub fn holds(&self, slot: Slot) -> bool {
        self.replica.write_of(slot).is_some()
    }

    /// Writes into the log again what memory holds of these slots, about `bytes_max` of it.
    pub fn write_again(&mut self, slots: &[Slot], bytes_max: usize, effects: &mut Vec<Effect>) {
        let mut written = Vec::new();
        let mut bytes = 0;
        for record in slots
            .iter()
            .filter_map(|slot| self.replica.write_of(*slot))
            .map(records::as_record)
        {
            bytes += record.body().map_or(0, |body| body.len());
            if bytes > bytes_max && !written.is_empty() {
                break;
            }
            written.push(record);
        }
        self.append(written, effects);
    }
}
