//! Looks at a node after its turn: what it takes as chosen, what it has applied, how much it holds.

use super::super::node::SimNode;
use super::answers::runs_once;
use super::{Checks, Judged, SlotBooks, broken};
use crate::machine::{Kept, Machine};
use crate::paxos::{NodeId, Slot};
use crate::storage::{DAMAGED_SUFFIX, Files};

impl Checks {
    /// A look at a node after its turn.
    ///
    /// # Errors
    /// It takes as chosen what is not, or applied something else than others; or its marks fell.
    pub fn look_at(&mut self, node: NodeId, machine: &Machine) -> Judged {
        let replica = machine.replica();
        let books = &self.disks[usize::from(node.0) - 1];
        if replica.acceptor().is_some() && replica.promised() < books.promised {
            let (has, had) = (replica.promised(), books.promised);
            self.complain("no fall", format!("{node} has promised {has}, on its disk {had}"))?;
        }
        let learner = replica.learner();
        let (from, upto) = (books.chosen_upto, learner.chosen_upto());
        if upto < from {
            return broken(
                "no fall",
                format!("{node} knew all up to {from} as chosen, now up to {upto}"),
            );
        }
        if upto > self.chosen_upto {
            let words = format!(
                "{node} takes all up to {upto} as chosen, it is so up to {}",
                self.chosen_upto
            );
            return broken("chosen", words);
        }
        for slot in (from.0 + 1..=upto.0).map(Slot) {
            if let Some(entry) = learner.entry(slot) {
                self.is_chosen(node, slot, entry)?;
            }
        }
        if learner.highest() > upto {
            for (slot, entry) in learner.islands_from(upto.next()) {
                self.is_chosen(node, slot, entry)?;
            }
        }
        if let Some(over) = machine.bounded().into_iter().find(|row| row.held > row.most) {
            let words = format!(
                "{node} holds {} {}, at most {} are allowed",
                over.held, over.what, over.most
            );
            return broken("bounds", words);
        }
        self.keeps_lease_length(node, machine)?;
        let applied = machine.state().applied();
        let digests = (machine.state().digest(), machine.state().content());
        let looked = self.books(node);
        looked.chosen_upto = upto;
        looked.waits.applies(applied, looked.written);
        if std::mem::replace(&mut looked.applied, applied) != applied {
            self.has_applied(node, applied, digests)?;
            if let Some(news) = &mut self.news {
                news.push((Some(node), format!("has applied all up to slot {applied}")));
            }
        }
        Ok(())
    }

    /// Who is founded waits for leases of the same length for ever, whatever its option says: it may have granted some.
    fn keeps_lease_length(&mut self, node: NodeId, machine: &Machine) -> Judged {
        if !machine.is_founded() {
            return Ok(());
        }
        let length = machine.leases().length;
        let known = *self.books(node).lease.get_or_insert(length);
        if length == known {
            return Ok(());
        }
        broken("no fall", format!("{node} had leases of {known:?}, now of {length:?}"))
    }

    fn has_applied(&mut self, node: NodeId, applied: Slot, digests: (u64, u64)) -> Judged {
        let mut outcomes = Vec::new();
        while self.reference.applied() < applied {
            let slot = self.reference.applied().next();
            let place = slot.0 as usize - 1;
            let Some(SlotBooks {
                chosen: Some((_, entry)),
                commands,
                ..
            }) = self.slots.get(place)
            else {
                return broken(
                    "chosen",
                    format!("{node} has applied slot {slot}, nothing is chosen there"),
                );
            };
            outcomes.clear();
            self.reference.apply(slot, entry.stamp, commands, &mut outcomes);
            runs_once(&mut self.done, slot, commands, &outcomes)?;
            self.digests.push((self.reference.digest(), self.reference.content()));
        }
        let Some(place) = (applied.0 as usize).checked_sub(1) else {
            return Ok(());
        };
        let expected = self.digests[place];
        if digests != expected {
            let words =
                format!("{node} applied up to {applied} with digests {digests:x?}, the log makes {expected:x?}");
            return broken("digest", words);
        }
        Ok(())
    }

    /// A look at what a node's directory takes in the end: no more than four times its largest snapshot and six times what
    /// lies between two, and the most that was written while a slot above the older waited to be applied, twice (a record that
    /// does not fit leaves the rest of its segment): no snapshot can stand for votes of a node that is behind, and until one
    /// does, all that is written behind them stays, too (`waits`). Without two snapshots, no more than what was written into its
    /// log, twice, as much again in a snapshot, and the segments that are made ahead.
    ///
    /// # Errors
    /// It takes more.
    pub fn takes(&self, node: &SimNode) -> Judged {
        // What was set aside is for its operator to take away.
        let sized = |name: String| node.disk.contents(&name).map(|bytes| (name, bytes.len() as u64));
        let names = node.disk.list().unwrap_or_default().into_iter();
        let files: Vec<_> = names.filter_map(sized).collect();
        let aside = files.iter().filter(|(name, _)| name.ends_with(DAMAGED_SUFFIX));
        let bytes = node.disk.used_bytes() - aside.map(|(_, bytes)| bytes).sum::<u64>();
        let kept = node.machine().map(|machine| machine.snapshots().kept.clone());
        let kept = kept.unwrap_or_default();
        let most = self.directory_most(node.id, &kept, (node.segment_bytes.into(), node.snapshot_bytes));
        if bytes <= most {
            return Ok(());
        }
        let words = format!(
            "the directory of {} takes {bytes} B, at most {most} B should do for its snapshots {kept:?}: {files:?}",
            node.id
        );
        broken("bounds", words)
    }

    /// What [`Checks::takes`] allows a node's directory that holds these snapshots, bytes; of a segment and between snapshots
    /// as the node was told.
    pub(super) fn directory_most(
        &self,
        node: NodeId,
        kept: &[Kept],
        (segment_bytes, snapshot_bytes): (u64, u64),
    ) -> u64 {
        let books = &self.disks[usize::from(node.0) - 1];
        let between = snapshot_bytes.max(4 * segment_bytes);
        match kept {
            [newest, .., older] => {
                let largest = newest.bytes.max(older.bytes);
                4 * largest + 6 * between + 2 * books.waits.longest_above(older.slot, books.written)
            }
            _ => 4 * books.written + 4 * segment_bytes,
        }
    }
}
