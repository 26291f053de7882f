//! A node that is so far behind that nobody has the entries any more: it fetches a snapshot, piece by piece, and takes the
//! state in it for its own. It goes on voting meanwhile.
//!
//! Invariants:
//! * I1. Few pieces are under way at once ([`WINDOW`]), each is checked, and one that is bad or does not come is asked for
//!   again; so a cut costs no more than what was under way.
//! * I2. The state takes the place of this node's own only when all of the file is here, durable and proven
//!   (`node::snapshots`); until then nothing that was promised or told hangs on it.
//! * I3. Who fetches does not lead and does not want to: others that are not behind serve sooner.
//!
//! Not here: the file (`node::snapshots`), where the question for entries ends (`paxos::replica::learning`).

use super::io::{Effect, Note};
use super::machine::Machine;
use crate::kv::State;
use crate::paxos::{NodeId, Slot};
use crate::time::Time;
use crate::wire::Record;
use crate::wire::hello::FEATURE_SNAPSHOTS;
use crate::wire::transfer::{CHUNK_BYTES, Transfer};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most pieces under way at once.
pub const WINDOW: usize = 4;
/// A piece that has not come for so many election timeouts is asked for again; twice as many the next time.
const PATIENCE: u32 = 3;
/// Silences in a row after which another node is asked.
const SILENCES_MAX: u32 = 3;
/// Times that a piece is asked for again because it was bad.
const BAD_MAX: u32 = 3;
/// After a failure no snapshot is fetched for so long: of the node that had the bad one, or of anybody if the failure was at
/// this node.
const PAUSE: Duration = Duration::from_secs(1);

/// A snapshot that is being fetched.
#[derive(Debug)]
pub(super) struct Install {
    slot: Slot,
    bytes: u64,
    content: u64,
    /// Of whom; nobody while it rests.
    from: Option<NodeId>,
    /// Everything before it was asked for.
    next: u64,
    /// Asked for and not here; and how often it was bad.
    missing: BTreeMap<u64, u32>,
    silences: u32,
    resend_at: Time,
    is_loading: bool,
    /// How often loading found damage.
    bad_loads: u32,
}

/// How far the fetching of a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallView {
    /// Behind which slot.
    pub slot: Slot,
    /// Bytes that are here.
    pub received: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Install {
    fn length_at(&self, offset: u64) -> u32 {
        (self.bytes - offset).min(CHUNK_BYTES as u64) as u32
    }

    fn is(&self, slot: Slot, bytes: u64, content: u64) -> bool {
        (self.slot, self.bytes, self.content) == (slot, bytes, content)
    }

    fn view(&self) -> InstallView {
        let missing: u64 = self
            .missing
            .keys()
            .map(|offset| u64::from(self.length_at(*offset)))
            .sum();
        InstallView {
            slot: self.slot,
            received: self.next - missing,
            bytes: self.bytes,
        }
    }
}

impl Machine {
    /// A message about a snapshot.
    pub(super) fn on_transfer(&mut self, now: Time, from: NodeId, transfer: Transfer, effects: &mut Vec<Effect>) {
        match transfer {
            Transfer::Offer { slot, bytes, content } => self.on_offer(now, from, (slot, bytes, content), effects),
            Transfer::Ask { slot, offset, length } => effects.push(Effect::ReadChunk {
                to: from,
                slot,
                offset,
                length,
            }),
            Transfer::Chunk {
                slot,
                offset,
                crc,
                bytes,
            } => self.on_chunk(now, from, slot, (offset, crc, bytes), effects),
        }
    }

    /// Entries that a peer asked for are not in the log; if a snapshot stands for them, it is offered.
    pub(super) fn offer_snapshot(&self, to: NodeId, first: Slot, effects: &mut Vec<Effect>) -> bool {
        let newest = self.snapshots.kept.first().filter(|newest| newest.slot >= first);
        let may_be = self.is_sound() && self.founding.both_know(to, FEATURE_SNAPSHOTS);
        let Some(newest) = newest.filter(|_| may_be) else {
            return false;
        };
        let slot = newest.slot;
        effects.push(Effect::Note(Note::OffersSnapshot { to, slot }));
        let transfer = Transfer::Offer {
            slot,
            bytes: newest.bytes,
            content: newest.content,
        };
        effects.push(Effect::SendTransfer { to, transfer });
        true
    }

    /// A piece that a peer asked for was read; or the snapshot is gone, and a newer one is offered.
    pub(super) fn on_chunk_read(
        &mut self,
        to: NodeId,
        (slot, offset): (Slot, u64),
        bytes: Option<Bytes>,
        effects: &mut Vec<Effect>,
    ) {
        match bytes {
            Some(bytes) => effects.push(Effect::SendTransfer {
                to,
                transfer: Transfer::chunk(slot, offset, bytes),
            }),
            None => {
                self.offer_snapshot(to, slot.next(), effects);
            }
        }
    }

    fn on_offer(
        &mut self,
        now: Time,
        from: NodeId,
        (slot, bytes, content): (Slot, u64, u64),
        effects: &mut Vec<Effect>,
    ) {
        let serves = self.install.as_ref().and_then(|install| install.from);
        let is_loading = self.install.as_ref().is_some_and(|install| install.is_loading);
        let is_known = self
            .install
            .as_ref()
            .is_some_and(|install| install.is(slot, bytes, content));
        let is_of_use = slot > self.replica.learner().chosen_upto() && bytes > 0;
        let is_declined = self
            .declined
            .is_some_and(|(whose, until)| now < until && whose.is_none_or(|node| node == from));
        if !is_of_use || is_loading || is_declined {
            return; // as good as silence: somebody else is asked when the answer is overdue
        }
        // Either it answers a FETCH, or the snapshot that it was asked for is gone and this is its next.
        let is_next = serves == Some(from) && !is_known;
        if !is_next && (serves.is_some() || !self.replica.begin_install(now, from, &mut self.out)) {
            return;
        }
        if !is_known {
            self.install = Some(Install {
                slot,
                bytes,
                content,
                from: None,
                next: 0,
                missing: BTreeMap::new(),
                silences: 0,
                resend_at: now,
                is_loading: false,
                bad_loads: 0,
            });
            effects.push(Effect::BeginInstall { slot, bytes });
        }
        effects.push(Effect::Note(Note::FetchesSnapshot { from, slot, bytes }));
        if let Some(install) = &mut self.install {
            (install.from, install.silences) = (Some(from), 0);
        }
        self.ask_again(now, effects);
        self.ask_on(now, effects);
    }

    fn on_chunk(
        &mut self,
        now: Time,
        from: NodeId,
        slot: Slot,
        (offset, crc, bytes): (u64, u32, Bytes),
        effects: &mut Vec<Effect>,
    ) {
        let Some(install) = &mut self.install else { return };
        let is_asked = install.from == Some(from) && install.slot == slot && !install.is_loading;
        if !is_asked || !install.missing.contains_key(&offset) {
            return; // late, or a second time
        }
        if bytes.len() != install.length_at(offset) as usize || crc32fast::hash(&bytes) != crc {
            return self.on_bad(now, offset, "a piece that came is not what was sent", effects);
        }
        install.missing.remove(&offset);
        install.silences = 0;
        effects.push(Effect::KeepChunk { slot, offset, bytes });
        self.ask_on(now, effects);
    }

    /// I1: a bad piece is asked for again, a few times.
    fn on_bad(&mut self, now: Time, offset: u64, reason: &str, effects: &mut Vec<Effect>) {
        let Some(install) = &mut self.install else { return };
        let times = install.missing.entry(offset).or_insert(0);
        *times += 1;
        if *times > BAD_MAX {
            let from = install.from;
            return self.fail_install(now, from, reason, effects);
        }
        self.ask_again(now, effects);
    }

    /// Keeps the window full; behind the last piece the file is to be proven and loaded.
    fn ask_on(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let Some(install) = &mut self.install else { return };
        let Some(from) = install.from else { return };
        while install.missing.len() < WINDOW && install.next < install.bytes {
            let offset = install.next;
            let length = install.length_at(offset);
            install.missing.insert(offset, 0);
            install.next += u64::from(length);
            let slot = install.slot;
            let transfer = Transfer::Ask { slot, offset, length };
            effects.push(Effect::SendTransfer { to: from, transfer });
        }
        install.resend_at = now + self.settings.election_timeout * (PATIENCE << install.silences);
        if install.missing.is_empty() && !install.is_loading {
            install.is_loading = true;
            let (slot, content) = (install.slot, install.content);
            effects.push(Effect::LoadInstall { slot, content });
        }
    }

    /// Asks again for all that was asked for and is not here, and gives it time to come.
    fn ask_again(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.ask_for_missing(effects);
        if let Some(install) = &mut self.install {
            install.resend_at = now + self.settings.election_timeout * (PATIENCE << install.silences);
        }
    }

    fn ask_for_missing(&self, effects: &mut Vec<Effect>) {
        let Some(install) = &self.install else { return };
        let Some(to) = install.from else { return };
        let slot = install.slot;
        for offset in install.missing.keys() {
            let (offset, length) = (*offset, install.length_at(*offset));
            let transfer = Transfer::Ask { slot, offset, length };
            effects.push(Effect::SendTransfer { to, transfer });
        }
    }

    /// When a piece is overdue.
    pub(super) fn install_deadline(&self) -> Option<Time> {
        let install = self.install.as_ref()?;
        (install.from.is_some() && !install.is_loading).then_some(install.resend_at)
    }

    /// A piece is overdue: it is asked for again; of another node when this one stays silent.
    pub(super) fn tick_install(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.install_deadline().is_none_or(|due| now < due) {
            return;
        }
        let Some(install) = &mut self.install else { return };
        install.silences += 1;
        if install.silences > SILENCES_MAX {
            return self.rest_install(now);
        }
        self.ask_again(now, effects);
    }

    /// The link to a node is up again: what was lost with the old one is asked for at once. When it counts as silent does not
    /// move: else a link that comes and goes would keep this node at a peer of which nothing comes.
    pub(super) fn resume_install(&self, peer: NodeId, effects: &mut Vec<Effect>) {
        if self.install.as_ref().is_some_and(|install| install.from == Some(peer)) {
            self.ask_for_missing(effects);
        }
    }

    /// The process of a peer is gone: somebody else is asked. What is here is kept, in case it is the same snapshot.
    pub(super) fn leave_install(&mut self, now: Time, peer: NodeId) {
        let is_of_peer = |install: &Install| install.from == Some(peer) && !install.is_loading;
        if self.install.as_ref().is_some_and(is_of_peer) {
            self.rest_install(now);
        }
    }

    /// Nobody sends it any more, and meanwhile its entries have come from elsewhere.
    pub(super) fn forget_install(&mut self, effects: &mut Vec<Effect>) {
        let known = self.replica.learner().chosen_upto();
        if self
            .install
            .as_ref()
            .is_some_and(|install| install.from.is_none() && install.slot <= known)
        {
            self.install = None;
            effects.push(Effect::DropInstall);
        }
    }

    fn rest_install(&mut self, now: Time) {
        let Some(install) = &mut self.install else { return };
        if let Some(from) = install.from.take() {
            self.replica.end_install(now, Some(from));
        }
    }

    /// The file, or the way to it, is of no use. `whose` fault it is: another node is asked at once, or all of them later.
    fn fail_install(&mut self, now: Time, whose: Option<NodeId>, reason: &str, effects: &mut Vec<Effect>) {
        let Some(install) = self.install.take() else { return };
        self.declined = Some((whose, now + PAUSE));
        self.replica.end_install(now, install.from);
        let reason = reason.to_string();
        effects.push(Effect::Note(Note::SnapshotRefused {
            slot: install.slot,
            reason,
        }));
        effects.push(Effect::DropInstall);
    }

    /// Loading found damage: of the pieces in `damaged`, if it is known where; else the file is of no use.
    pub(super) fn on_install_failed(
        &mut self,
        now: Time,
        damaged: Option<(u64, u64)>,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some((first, last)) = damaged else {
            return self.fail_install(now, None, reason, effects);
        };
        let Some(install) = &mut self.install else { return };
        let piece = CHUNK_BYTES as u64;
        let pieces = first / piece..=last.min(install.bytes.saturating_sub(1)) / piece;
        install.bad_loads += 1;
        if install.bad_loads > BAD_MAX || install.from.is_none() {
            let from = install.from;
            return self.fail_install(now, from, reason, effects);
        }
        install
            .missing
            .extend(pieces.map(|piece_number| (piece_number * piece, 0)));
        install.is_loading = false;
        self.ask_again(now, effects);
    }

    /// I2: the state of a snapshot that is here, durable and proven takes the place of this node's own, which comes back to
    /// be freed.
    pub fn install(&mut self, now: Time, state: State, effects: &mut Vec<Effect>) -> State {
        self.install = None;
        self.replica.end_install(now, None);
        if state.applied() <= self.state.applied() {
            return state; // learned meanwhile, entry by entry
        }
        let slot = state.applied();
        self.replica.skip_to(slot, state.log_time());
        self.replica.note_digest(slot, state.digest());
        let old = std::mem::replace(&mut self.state, state);
        self.append(vec![Record::Installed { slot }], effects);
        effects.push(Effect::Note(Note::SnapshotInstalled { slot }));
        self.after_step(now, effects);
        self.apply(now, effects); // what was chosen beyond it and waited for it
        old
    }

    /// How far the fetching of a snapshot has come, if one is fetched.
    pub fn install_view(&self) -> Option<InstallView> {
        self.install.as_ref().map(Install::view)
    }
}

#[cfg(test)]
mod tests {
    use super::super::io::Settings;
    use super::*;

    #[test]
    fn a_peer_of_which_nothing_comes_is_left_in_time_though_its_link_comes_up_again_and_again() {
        let (node, peer) = (NodeId(1), NodeId(2));
        let mut machine = Machine::new(Settings::new(node, vec![node, peer, NodeId(3)]));
        let timeout = machine.settings.election_timeout;
        let mut now = Time::from_millis(1);
        machine.install = Some(Install {
            slot: Slot(5),
            bytes: 10,
            content: 7,
            from: Some(peer),
            next: 10,
            missing: BTreeMap::from([(0, 0)]),
            silences: 0,
            resend_at: now + timeout * PATIENCE,
            is_loading: false,
            bad_loads: 0,
        });
        // As often as it asks again at all, and once.
        let patience = timeout * (PATIENCE << (SILENCES_MAX + 1));
        let until = now + patience;
        let (mut effects, mut links) = (Vec::new(), 0);
        while now < until {
            now = now + timeout;
            machine.resume_install(peer, &mut effects);
            links += 1;
            machine.tick_install(now, &mut effects);
            assert!(effects.len() >= links.min(40), "what was lost is asked for at once");
        }
        let install = machine.install.as_ref().expect("what is here is kept");
        assert_eq!(install.from, None, "after {patience:?} somebody else is asked");
    }
}
