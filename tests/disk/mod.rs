//! A node's disk as the tests see it: records in order, and what they prove.

#![allow(dead_code, reason = "each test uses its own part of it")]

use std::collections::{BTreeMap, BTreeSet};
use synod::paxos::{Ballot, Entry, Message, NodeId, Slot};
use synod::wire::Record;

/// Records that are synced, with an index over what a node may claim because of them.
#[derive(Default)]
pub(crate) struct Disk {
    records: Vec<Record>,
    promised: Ballot,
    used: BTreeSet<Ballot>,
    /// The last entry written for each slot, and the ballot at which it was accepted (zero: learned).
    held: BTreeMap<Slot, (Ballot, Entry)>,
    /// A snapshot stands for what is chosen up to here.
    base: Slot,
}

impl Disk {
    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn push(&mut self, record: Record) {
        match &record {
            Record::Promised(ballot) => self.promised = self.promised.max(*ballot),
            Record::Used(ballot) => {
                let is_new = self.used.insert(*ballot);
                assert!(is_new, "R1: ballot {ballot} is used twice");
            }
            Record::Accepted { slot, ballot, entry } => {
                self.promised = self.promised.max(*ballot); // accepting promises, too
                self.held.insert(*slot, (*ballot, entry.clone()));
            }
            Record::Learned { slot, entry } => {
                self.held.insert(*slot, (Ballot::ZERO, entry.clone()));
            }
            Record::Checkpoint { promised, used, .. } => {
                self.promised = self.promised.max(*promised);
                self.used.insert(*used);
            }
            Record::Copied { slot, ballot, entry } => {
                self.held.insert(*slot, (*ballot, entry.clone()));
            }
            Record::Installed { slot } => self.base = self.base.max(*slot),
            Record::ChosenUpto(_)
            | Record::Roster(_)
            | Record::Founded
            | Record::Lease(_)
            | Record::Peer { .. }
            | Record::Life(_)
            | Record::Recovered => {}
        }
        self.records.push(record);
    }

    /// A snapshot stands for all up to `slot`: entries up to there are gone.
    pub(crate) fn truncate(&mut self, slot: Slot) {
        self.base = self.base.max(slot);
        self.held = self.held.split_off(&slot.next());
        self.records.retain(|record| match record {
            Record::Accepted { slot: at, .. } | Record::Learned { slot: at, .. } | Record::Copied { slot: at, .. } => {
                *at > slot
            }
            _ => true,
        });
    }

    /// The highest promise, accepting included.
    pub(crate) fn promised(&self) -> Ballot {
        self.promised
    }

    /// Asserts that what `message` claims of its sender's disk stands there (`rules.md` 13, pitfalls P1, P2, P7).
    pub(crate) fn assert_proves(&self, from: NodeId, message: &Message) {
        let proves = match message {
            Message::Prepare { ballot, .. } => self.used.contains(ballot),
            Message::Promise(promise) => self.promised >= promise.ballot,
            Message::RecoverAnswer(answer) => self.promised >= answer.promise.ballot,
            // For a slot that it knows as chosen a node votes without writing the entry again.
            Message::Accepted {
                ballot, first, last, ..
            } => {
                let holds = |slot| Slot(slot) <= self.base || self.held.contains_key(&Slot(slot));
                self.promised >= *ballot && (first.0..=last.0).all(holds)
            }
            // Says that nothing higher is promised.
            Message::HeartbeatAck(ack) => self.promised <= ack.ballot,
            Message::Accept { .. }
            | Message::Nack { .. }
            | Message::PreVote { .. }
            | Message::PreVoteAnswer { .. }
            | Message::Heartbeat(_)
            | Message::Fetch { .. }
            | Message::Chosen { .. }
            | Message::HandOver { .. }
            | Message::Release { .. }
            | Message::ReadPosition { .. }
            | Message::ReadPositionAnswer { .. }
            | Message::Recover { .. }
            | Message::Forgotten { .. } => true,
        };
        assert!(proves, "{from} says {message}, and its disk does not prove that");
    }

    /// What can be handed out as chosen in `first..=last`: the last record of each slot, without a hole.
    pub(crate) fn chosen(&self, first: Slot, last: Slot) -> Vec<Entry> {
        let held = |slot| self.held.get(&Slot(slot)).map(|(_, entry)| entry.clone());
        (first.0..=last.0).map_while(held).collect()
    }
}
