//! What nodes say to each other, and of themselves: each claim against what is on the disk of who makes it.

use super::{Checks, Judged, broken};
use crate::machine::Note;
use crate::paxos::message::RecoverAnswer;
use crate::paxos::{self, Ballot, Entry, Message, NodeId, Slot};
use crate::time::Time;

impl Checks {
    /// A node says something to a peer. `is_synced`: its log holds nothing that is not durable.
    ///
    /// # Errors
    /// Its disk does not prove it.
    pub fn says(&mut self, (node, to): (NodeId, NodeId), message: &Message, now: Time, is_synced: bool) -> Judged {
        self.elections.says(node, to, message, now);
        if !is_synced {
            self.complain("claims", format!("{node} says {message} while its log is not synced"))?;
        }
        let books = &self.disks[usize::from(node.0) - 1];
        let counts = matches!(
            message,
            Message::Promise(_)
                | Message::Accepted { .. }
                | Message::HeartbeatAck(_)
                | Message::PreVoteAnswer { .. }
                | Message::RecoverAnswer(_)
        );
        if counts && books.recovers {
            return broken("memory", format!("{node} says {message}, and has not recovered"));
        }
        let proves = match message {
            Message::Prepare { ballot, .. } => books.used.contains(ballot),
            Message::RecoverAnswer(RecoverAnswer { promise, .. }) | Message::Promise(promise) => {
                books.founded && books.promised >= promise.ballot
            }
            // For a slot that it knows as chosen a node votes without writing the entry again.
            Message::Accepted {
                ballot, first, last, ..
            } => {
                let holds = |slot| Slot(slot) <= books.base || books.held.contains_key(&Slot(slot));
                books.founded && books.promised >= *ballot && (first.0..=last.0).all(holds)
            }
            // Says that nothing higher is promised.
            Message::HeartbeatAck(ack) => books.promised <= ack.ballot,
            _ => true,
        };
        if let Message::Promise(promise) = message {
            let told = &mut self.books(node).told;
            *told = promise.ballot.max(*told);
        }
        if !proves {
            let words = format!("{node} says {message}, and its disk does not prove it");
            self.complain("claims", words)?;
        }
        match message {
            Message::RecoverAnswer(RecoverAnswer { promise, .. }) | Message::Promise(promise) => {
                self.reports_all(node, promise)?;
                self.is_chosen_upto(node, message, promise.chosen_upto)
            }
            Message::Accept {
                ballot,
                slot,
                chosen_upto,
                entry,
                ..
            } => {
                self.proposes(node, *slot, *ballot, entry)?;
                self.is_chosen_upto(node, message, *chosen_upto)
            }
            Message::Heartbeat(heartbeat) => self.is_chosen_upto(node, message, heartbeat.chosen_upto),
            Message::HeartbeatAck(ack) => self.is_chosen_upto(node, message, ack.chosen_upto),
            Message::ReadPositionAnswer { chosen_upto, .. } => self.is_chosen_upto(node, message, *chosen_upto),
            Message::Chosen {
                first,
                entries,
                chosen_upto,
            } => {
                for (slot, entry) in (first.0..).zip(entries) {
                    self.is_chosen(node, Slot(slot), entry)?;
                }
                self.is_chosen_upto(node, message, *chosen_upto)
            }
            _ => Ok(()),
        }
    }

    fn is_chosen_upto(&self, node: NodeId, message: &Message, upto: Slot) -> Judged {
        if upto <= self.chosen_upto {
            return Ok(());
        }
        let words = format!(
            "{node} says {message}, and all is chosen only up to {}",
            self.chosen_upto
        );
        broken("chosen", words)
    }

    pub(super) fn is_chosen(&self, node: NodeId, slot: Slot, entry: &Entry) -> Judged {
        match self.chosen(slot) {
            Some((_, chosen)) if chosen.crc == entry.crc && chosen.body == entry.body => Ok(()),
            Some((ballot, chosen)) => {
                let words = format!("{node} takes {entry} as chosen for slot {slot}, at {ballot} it was {chosen}");
                broken("chosen", words)
            }
            None => broken(
                "chosen",
                format!("{node} takes {entry} as chosen for slot {slot}, nothing is"),
            ),
        }
    }

    /// A promise lists all that its node has accepted where it covers.
    fn reports_all(&self, node: NodeId, promise: &paxos::message::Promise) -> Judged {
        let books = &self.disks[usize::from(node.0) - 1];
        let first = promise.first.max(promise.chosen_upto.next());
        if first > promise.last {
            return Ok(());
        }
        // What it accepted at this very ballot came behind the promise; what it learned is no vote.
        let voted = |ballot: &Ballot| Ballot::ZERO < *ballot && *ballot < promise.ballot;
        let held = books.held.range(first..=promise.last);
        for (slot, (ballot, _)) in held.filter(|(_, (ballot, _))| voted(ballot)) {
            let is_listed = promise
                .accepted
                .iter()
                .any(|accepted| accepted.slot == *slot && (accepted.ballot >= *ballot || accepted.chosen));
            if !is_listed {
                let words = format!("{node} says {promise}, and holds slot {slot} at {ballot}");
                self.complain("promise", words)?;
            }
        }
        Ok(())
    }

    /// An ACCEPT leaves: one entry for a slot and a ballot, and none against what is chosen.
    fn proposes(&mut self, node: NodeId, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        if !self.proposed.contains_key(&(slot, ballot)) {
            self.is_stamped(node, slot, ballot, entry)?;
        }
        let first = *self.proposed.entry((slot, ballot)).or_insert(entry.crc);
        if first != entry.crc {
            return broken(
                "one value",
                format!("{node} proposes two entries for slot {slot} at {ballot}"),
            );
        }
        let own = self.disks[usize::from(node.0) - 1].held.get(&slot).copied();
        if own.is_none_or(|(accepted_at, _)| accepted_at < ballot) {
            self.judge(self.elections.proposes(slot, ballot, entry, own))?;
        }
        match self.chosen(slot) {
            Some((earlier, chosen)) if chosen.crc != entry.crc && ballot > *earlier => {
                let words =
                    format!("{node} proposes {entry} for slot {slot} at {ballot}, {chosen} is chosen at {earlier}");
                broken("chosen", words)
            }
            _ => Ok(()),
        }
    }

    /// An entry that is new carries a log time above that of all that was chosen before it, at its ballot or a lower one:
    /// the promises told it, and the leader's own clock goes forward. One that was proposed before keeps its own, and what
    /// is chosen at a higher ballot a deposed leader cannot know.
    fn is_stamped(&self, node: NodeId, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        let mut before = self.proposed.range((slot, Ballot::ZERO)..(slot, ballot));
        let known = self.log_times.range(..=ballot).map(|(_, time)| *time).max();
        if Some(entry.stamp) >= known || before.any(|(_, crc)| *crc == entry.crc) {
            return Ok(());
        }
        let (stamp, chosen) = (entry.stamp.0, known.unwrap_or_default().0);
        let words =
            format!("{node} stamps slot {slot} at {ballot} with {stamp} ms, {chosen} ms stands in a chosen entry");
        broken("log time", words)
    }

    /// A message arrives at a node.
    pub fn hears(&mut self, node: NodeId, from: NodeId, message: &Message) {
        if let Message::Promise(promise) = message {
            self.elections.hears(node, from, promise);
        }
    }

    /// A node learns of a link, or of a process that is gone: a reason not to wait with an election.
    pub fn hastens(&mut self, node: NodeId) {
        self.elections.hastens(node);
    }

    /// What a node says of itself or of others; `local` is its own clock.
    ///
    /// # Errors
    /// It is a wrong accusation, or an election that should not have been.
    pub fn notes(&mut self, node: NodeId, note: &Note, now: Time, local: Time) -> Judged {
        if let Note::Paxos(note) = note {
            self.elections.notes(node, note, now, local)?;
        }
        let accuses = matches!(
            note,
            Note::Paxos(paxos::Note::Forgetful { .. }) | Note::LostMemory { .. }
        );
        match note {
            Note::Paxos(paxos::Note::DigestsDiffer { .. } | paxos::Note::Diverged { .. }) => {
                return broken(
                    "digests",
                    format!("{node} {note}, and all nodes were equal at equal slots"),
                );
            }
            Note::Paxos(alarm) if alarm.is_alarm() && !accuses => {
                return broken("alarm", format!("{node} {note}, and every peer keeps the rules"));
            }
            _ => {}
        }
        if accuses && !self.has_lost_memory {
            return broken("no fall", format!("{node} {note}, and nobody's memory was touched"));
        }
        Ok(())
    }
}
