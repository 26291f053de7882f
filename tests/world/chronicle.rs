//! The chronicle of a world: what is chosen, as one sees it who looks at all disks at once.
//!
//! An entry is chosen when a majority holds it on disk, accepted at one ballot; no node needs to know. From that moment
//! no node may propose, learn or hand out another one for its slot, for ever (two-phase safety of Lamport's "Paxos Made
//! Simple", section 2.2, property P2). That is far stricter than to compare what nodes apply, and sees a broken rule
//! long before two nodes differ.

use std::collections::{BTreeMap, BTreeSet};
use synod::machine::Machine;
use synod::paxos::{Ballot, Entry, Message, NodeId, Slot};
use synod::wire::Record;

pub(crate) struct Chronicle {
    majority: usize,
    /// Who holds on disk what was accepted for a slot at a ballot.
    accepted: BTreeMap<(Slot, Ballot), (Entry, BTreeSet<NodeId>)>,
    /// What was proposed for a slot at a ballot.
    proposed: BTreeMap<(Slot, Ballot), Entry>,
    /// What is chosen, and the lowest ballot at which it was seen to be.
    chosen: BTreeMap<Slot, (Ballot, Entry)>,
    /// End of the chosen prefix.
    chosen_upto: Slot,
    /// The highest promise that each node told of.
    promised: BTreeMap<NodeId, Ballot>,
    /// Up to where each node's knowledge was compared.
    compared: BTreeMap<NodeId, Slot>,
}

impl Chronicle {
    pub(crate) fn new(nodes: usize) -> Chronicle {
        Chronicle {
            majority: nodes / 2 + 1,
            accepted: BTreeMap::new(),
            proposed: BTreeMap::new(),
            chosen: BTreeMap::new(),
            chosen_upto: Slot::ZERO,
            promised: BTreeMap::new(),
            compared: BTreeMap::new(),
        }
    }

    /// A record is on the disk of `node`.
    pub(crate) fn on_disk(&mut self, node: NodeId, record: &Record) {
        let Record::Accepted { slot, ballot, entry } = record else {
            return;
        };
        let at_ballot = self.accepted.entry((*slot, *ballot));
        let (known, holders) = at_ballot.or_insert_with(|| (entry.clone(), BTreeSet::new()));
        assert_eq!(
            known, entry,
            "A4: two entries accepted in slot {slot} at ballot {ballot}"
        );
        holders.insert(node);
        if holders.len() >= self.majority {
            self.choose(*slot, *ballot, entry);
        }
    }

    fn choose(&mut self, slot: Slot, ballot: Ballot, entry: &Entry) {
        let (lowest, known) = self.chosen.entry(slot).or_insert_with(|| (ballot, entry.clone()));
        assert_eq!(
            known, entry,
            "two entries are chosen in slot {slot}: at {lowest} and at {ballot}"
        );
        *lowest = ballot.min(*lowest);
        let above = self
            .proposed
            .range((slot, ballot)..)
            .take_while(|((at, _), _)| *at == slot);
        for ((_, higher), other) in above {
            assert_eq!(
                other, entry,
                "slot {slot} is chosen at {ballot}, another entry was proposed at {higher}"
            );
        }
        while self.chosen.contains_key(&self.chosen_upto.next()) {
            self.chosen_upto = self.chosen_upto.next();
        }
    }

    /// `node` says `message`.
    pub(crate) fn on_sent(&mut self, node: NodeId, message: &Message) {
        match message {
            Message::Accept {
                ballot,
                slot,
                chosen_upto,
                entry,
                ..
            } => {
                self.on_proposed(*slot, *ballot, entry);
                self.assert_chosen(node, *chosen_upto);
            }
            Message::Promise(promise) => {
                let highest = self.promised.entry(node).or_default();
                *highest = promise.ballot.max(*highest);
                self.assert_chosen(node, promise.chosen_upto);
                let known = promise.accepted.iter().filter(|accepted| accepted.chosen);
                known.for_each(|accepted| self.assert_entry(node, accepted.slot, &accepted.entry));
            }
            Message::Heartbeat(heartbeat) => self.assert_chosen(node, heartbeat.chosen_upto),
            Message::HeartbeatAck(ack) => self.assert_chosen(node, ack.chosen_upto),
            Message::Chosen {
                first,
                entries,
                chosen_upto,
            } => {
                self.assert_chosen(node, *chosen_upto);
                for (entry, slot) in entries.iter().zip(first.0..) {
                    self.assert_entry(node, Slot(slot), entry);
                }
            }
            Message::RecoverAnswer(answer) => self.assert_chosen(node, answer.promise.chosen_upto),
            Message::ReadPositionAnswer { chosen_upto, .. } => self.assert_chosen(node, *chosen_upto),
            Message::Prepare { .. }
            | Message::Accepted { .. }
            | Message::Nack { .. }
            | Message::PreVote { .. }
            | Message::PreVoteAnswer { .. }
            | Message::Fetch { .. }
            | Message::HandOver { .. }
            | Message::Release { .. }
            | Message::ReadPosition { .. }
            | Message::Recover { .. }
            | Message::Forgotten { .. } => {}
        }
    }

    fn on_proposed(&mut self, slot: Slot, ballot: Ballot, entry: &Entry) {
        let known = self.proposed.entry((slot, ballot)).or_insert_with(|| entry.clone());
        assert_eq!(
            known, entry,
            "R4: two entries proposed in slot {slot} at ballot {ballot}"
        );
        if let Some((lowest, chosen)) = self.chosen.get(&slot).filter(|(lowest, _)| *lowest <= ballot) {
            assert_eq!(
                chosen, entry,
                "slot {slot} is chosen at {lowest}, {ballot} proposes another entry"
            );
        }
    }

    /// Looks at what `node` knows after a step.
    pub(crate) fn on_step(&mut self, node: NodeId, machine: &Machine) {
        let replica = machine.replica();
        if replica.acceptor().is_some() {
            let told = self.promised.get(&node).copied().unwrap_or_default();
            let promised = replica.promised();
            assert!(
                promised >= told,
                "A1: {node} told of its promise {told}, and now has {promised}"
            );
        }
        let learner = replica.learner();
        self.assert_chosen(node, learner.chosen_upto());
        let compared = self.compared.get(&node).copied().unwrap_or_default();
        for slot in (compared.0 + 1..=learner.chosen_upto().0).map(Slot) {
            if let Some(entry) = learner.entry(slot) {
                self.assert_entry(node, slot, entry);
            }
        }
        self.compared.insert(node, learner.chosen_upto());
    }

    /// After a crash a node learns anew.
    pub(crate) fn on_crash(&mut self, node: NodeId) {
        self.compared.remove(&node);
    }

    fn assert_chosen(&self, node: NodeId, upto: Slot) {
        let known = self.chosen_upto;
        assert!(
            upto <= known,
            "{node} takes all up to slot {upto} as chosen; chosen is all up to {known}"
        );
    }

    fn assert_entry(&self, node: NodeId, slot: Slot, entry: &Entry) {
        let chosen = self.chosen.get(&slot).map(|(_, chosen)| chosen);
        assert_eq!(
            chosen,
            Some(entry),
            "{node} takes another entry as chosen in slot {slot}"
        );
    }
}
