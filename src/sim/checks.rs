//! The judge: what must hold after each step, whatever happened.
//!
//! It keeps its own books, from what goes to the disks and over the wires: which records of each node are durable, and
//! so which slots are chosen, in the sense of Paxos (a quorum of distinct nodes has accepted one entry at one ballot). A
//! node is believed only where the books prove what it says. Rules, by the names that a violation carries:
//! * `one value`: a slot has one chosen entry, over all time and all nodes; a ballot has one entry for a slot.
//! * `no fall`: what was durable is there after every restart: promises, used ballots, acceptances.
//! * `claims`: PREPARE, PROMISE, ACCEPTED and "done" are said only when the disk proves them (P1, P2, P7).
//! * `promise`: nothing is accepted below a promise (P4), and a promise reports all that was accepted (P8, P9).
//! * `ballots`: a ballot is used once.
//! * `chosen`: what a node takes as chosen, is; a later ballot does not propose against it; watermarks are true.
//! * `digest`: every applied prefix is the same function of the chosen log.
//! * `reads`: a read that is not asked to be stale shows at least what was acknowledged before it arrived.
//! * `replies`: "done" names the chosen slot that holds the command, and a repeat is answered as the first time; along the
//!   chosen log, no command of a session is run twice.
//! * `bounds`: no queue and no memory of a node grows beyond its bound ([`Machine::bounded`]), and its log not beyond what
//!   it wrote into it.
//!
//! Not here: whether the answers of all clients fit together, and whether anything happens at all (`finale`).

use super::elections::Elections;
use super::reads::Acknowledged;
use super::report::Violation;
use super::words;
use crate::kv::state::{Applied, State};
use crate::kv::{Command, Done, SessionRef};
use crate::machine::{Machine, Note};
use crate::paxos::{self, Ballot, Entry, EntryKind, Message, NodeId, Slot};
use crate::time::Time;
use crate::wire::{Outcome, Record, Request, RequestOp, Served, body};
use std::collections::{BTreeMap, BTreeSet};

/// What a check says.
pub(super) type Judged = Result<(), Violation>;
/// The first result of each write, by session and number.
type FirstResults = BTreeMap<(u128, Slot, u64), Done>;

/// The books of one cluster.
#[derive(Debug)]
pub struct Checks {
    disks: Vec<Books>,
    /// By slot; the first is slot 1.
    slots: Vec<SlotBooks>,
    /// End of the prefix of slots that are chosen.
    chosen_upto: Slot,
    used: BTreeSet<Ballot>,
    /// The entry's checksum of each proposal that left.
    proposed: BTreeMap<(Slot, Ballot), u32>,
    /// The state that the chosen prefix makes, as far as any node has applied it, and its digest after each slot.
    reference: State,
    digests: Vec<u64>,
    /// Every write that was run, by session and number, with its first result.
    done: FirstResults,
    elections: Elections,
    acknowledged: Acknowledged,
    /// Whether somebody's directory was lost, or rots: then a node may be called forgetful.
    pub has_lost_memory: bool,
    found: Option<Violation>,
    /// What a transcript should know, if there is one: whose it is, and what.
    news: Option<Vec<(Option<NodeId>, String)>>,
}

/// What a node was asked, as far as the judge must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// This write of this session.
    Write(SessionRef, u64),
    /// To read; what was acknowledged by then.
    Read {
        /// Up to which slot.
        acknowledged: Slot,
    },
}

/// What one node's disk is known to hold.
#[derive(Debug, Default)]
struct Books {
    promised: Ballot,
    used: BTreeSet<Ballot>,
    /// The last record of each slot: the ballot it was accepted at (zero: learned), and the entry's checksum.
    held: BTreeMap<Slot, (Ballot, u32)>,
    founded: bool,
    /// Handed to the disk, not synced.
    appended: Vec<Record>,
    /// Bytes handed to the disk in all lives, about.
    written: u64,
    /// Where the node stood when it was looked at last.
    chosen_upto: Slot,
    applied: Slot,
}

#[derive(Debug, Default)]
struct SlotBooks {
    votes: Vec<Votes>,
    chosen: Option<(Ballot, Entry)>,
    /// What the chosen entry holds.
    commands: Vec<Command>,
}

/// Who has accepted at a ballot, as a set of bits.
#[derive(Debug)]
struct Votes {
    ballot: Ballot,
    crc: u32,
    voters: u32,
}

/// What a record and a unit take beside the body of an entry, about; and what begins a directory.
const RECORD_BYTES: u64 = 64;
const UNIT_BYTES: u64 = 64;

fn record_bytes(record: &Record) -> u64 {
    RECORD_BYTES
        + match record {
            Record::Accepted { entry, .. } | Record::Learned { entry, .. } => entry.body.len() as u64,
            Record::Roster(roster) => roster.len() as u64 * 2 * RECORD_BYTES,
            _ => 0,
        }
}

fn broken(rule: &'static str, words: String) -> Judged {
    Err(Violation { rule, words })
}

/// A command of a session that is in the log a second time has the result of its first.
fn runs_once(done: &mut FirstResults, slot: Slot, commands: &[Command], outcomes: &[Applied]) -> Judged {
    for (command, outcome) in commands.iter().zip(outcomes) {
        let Applied::Done(now) = outcome else { continue };
        if command.number == 0 {
            continue; // OPEN and CLOSE: what they answer may change
        }
        let (session, number) = (command.session, command.number);
        let first = done
            .entry((session.id, session.opened, number))
            .or_insert_with(|| now.clone());
        if first != now {
            let words =
                format!("write {number} of a session is run again in slot {slot}: {now:?}, before it was {first:?}");
            return broken("replies", words);
        }
    }
    Ok(())
}

impl Checks {
    /// Empty books for so many nodes.
    pub fn new(nodes: usize) -> Checks {
        Checks {
            disks: (0..nodes).map(|_| Books::default()).collect(),
            slots: Vec::new(),
            chosen_upto: Slot::ZERO,
            used: BTreeSet::new(),
            proposed: BTreeMap::new(),
            reference: State::new(),
            digests: Vec::new(),
            done: BTreeMap::new(),
            elections: Elections::new(nodes),
            acknowledged: Acknowledged::default(),
            has_lost_memory: false,
            found: None,
            news: None,
        }
    }

    /// From now on what is chosen and applied is kept to be told.
    pub fn tells(mut self, is_on: bool) -> Checks {
        self.news = is_on.then(Vec::new);
        self
    }

    /// What is to be told since the last call.
    pub fn take_news(&mut self) -> Vec<(Option<NodeId>, String)> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What a node has handed to its disk since its last sync.
    pub fn appended(&self, node: NodeId) -> &[Record] {
        &self.disks[usize::from(node.0) - 1].appended
    }

    /// Keeps the first violation.
    pub fn found(&mut self, violation: Violation) {
        self.found.get_or_insert(violation);
    }

    /// The violation that was found, if one was.
    pub fn take_found(&mut self) -> Option<Violation> {
        self.found.take()
    }

    /// Slots chosen so far, without a hole.
    pub fn chosen_upto(&self) -> Slot {
        self.chosen_upto
    }

    /// Whether a node knows for good that the cluster is founded.
    pub fn is_founded(&self, node: NodeId) -> bool {
        self.disks[usize::from(node.0) - 1].founded
    }

    fn quorum(&self) -> u32 {
        self.disks.len() as u32 / 2 + 1
    }

    fn books(&mut self, node: NodeId) -> &mut Books {
        &mut self.disks[usize::from(node.0) - 1]
    }

    /// A node hands records to its disk.
    pub fn appends(&mut self, node: NodeId, records: &[Record]) {
        let books = self.books(node);
        books.appended.extend_from_slice(records);
        books.written += records.iter().map(record_bytes).sum::<u64>() + UNIT_BYTES;
    }

    /// A look at what a node's directory takes in the end: no more than what was written into its log, twice (a record
    /// that does not fit leaves the rest of its segment), and the segments that are made ahead.
    ///
    /// # Errors
    /// It takes more.
    pub fn takes(&self, node: NodeId, bytes: u64, segment_bytes: u64) -> Judged {
        let written = self.disks[usize::from(node.0) - 1].written;
        if bytes <= 2 * written + 4 * segment_bytes {
            return Ok(());
        }
        let words = format!("the directory of {node} takes {bytes} B, and {written} B were written into its log");
        broken("bounds", words)
    }

    /// What it handed to it is durable, the node says; whether it is, shows after the next loss of power.
    ///
    /// # Errors
    /// A record that breaks a rule.
    pub fn synced(&mut self, node: NodeId) -> Judged {
        for record in std::mem::take(&mut self.books(node).appended) {
            if let Record::Accepted { slot, ballot, .. } = &record {
                let promised = self.books(node).promised;
                if *ballot < promised {
                    let words = format!("{node} accepts slot {slot} at {ballot}, and has promised {promised}");
                    return broken("promise", words);
                }
            }
            if let Record::Used(ballot) = &record
                && !self.used.insert(*ballot)
            {
                return broken("ballots", format!("{node} uses ballot {ballot} a second time"));
            }
            self.keeps(node, &record)?;
        }
        Ok(())
    }

    /// A record is on a node's disk for good.
    fn keeps(&mut self, node: NodeId, record: &Record) -> Judged {
        let books = self.books(node);
        match record {
            Record::Promised(ballot) => books.promised = books.promised.max(*ballot),
            Record::Used(ballot) => {
                books.used.insert(*ballot);
            }
            Record::Accepted { slot, ballot, entry } => {
                books.promised = books.promised.max(*ballot); // accepting promises, too
                books.held.insert(*slot, (*ballot, entry.crc));
                return self.votes(node, *slot, *ballot, entry);
            }
            Record::Learned { slot, entry } => {
                books.held.insert(*slot, (Ballot::ZERO, entry.crc));
            }
            Record::Founded => books.founded = true,
            Record::ChosenUpto(_) | Record::Roster(_) | Record::Peer { .. } => {}
        }
        Ok(())
    }

    /// A durable acceptance is a vote; a quorum of them makes the entry chosen.
    fn votes(&mut self, node: NodeId, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        let (quorum, bit) = (self.quorum(), 1_u32 << (node.0 - 1));
        let books = self.slot_mut(slot);
        let place = books.votes.iter().position(|votes| votes.ballot == ballot);
        let place = place.unwrap_or_else(|| {
            let crc = entry.crc;
            let voters = 0;
            books.votes.push(Votes { ballot, crc, voters });
            books.votes.len() - 1
        });
        let votes = &mut books.votes[place];
        if votes.crc != entry.crc {
            let words = format!("{node} accepts {entry} for slot {slot} at {ballot}, others another entry");
            return broken("one value", words);
        }
        votes.voters |= bit;
        if votes.voters.count_ones() < quorum {
            return Ok(());
        }
        match &books.chosen {
            Some((_, chosen)) if chosen.crc == entry.crc && chosen.body == entry.body => Ok(()),
            Some((earlier, chosen)) => {
                let words = format!("slot {slot}: {chosen} is chosen at {earlier}, and {entry} at {ballot}");
                broken("one value", words)
            }
            None => self.chooses(slot, ballot, entry),
        }
    }

    fn chooses(&mut self, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        let commands = match entry.kind {
            EntryKind::Batch => body::commands(entry),
            _ => Ok(Vec::new()),
        };
        let books = self.slot_mut(slot);
        books.commands = match commands {
            Ok(commands) => commands,
            Err(error) => return broken("chosen", format!("slot {slot}: {entry} cannot be read: {error}")),
        };
        books.chosen = Some((ballot, entry.clone()));
        if let Some(news) = &mut self.news {
            let words = format!("slot {slot} is chosen at ballot {ballot}: {}", words::entry(entry));
            news.push((None, words));
        }
        while self
            .slot(self.chosen_upto.next())
            .is_some_and(|books| books.chosen.is_some())
        {
            self.chosen_upto = self.chosen_upto.next();
        }
        Ok(())
    }

    fn slot(&self, slot: Slot) -> Option<&SlotBooks> {
        self.slots.get((slot.0 as usize).checked_sub(1)?)
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotBooks {
        let place = slot.0 as usize - 1;
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, SlotBooks::default);
        }
        &mut self.slots[place]
    }

    fn chosen(&self, slot: Slot) -> Option<&(Ballot, Entry)> {
        self.slot(slot)?.chosen.as_ref()
    }

    /// A node starts on a disk that holds these records.
    ///
    /// # Errors
    /// Something that was durable is not there any more.
    pub fn recovers(&mut self, node: NodeId, records: &[Record]) -> Judged {
        self.elections.starts(node);
        let before = std::mem::take(self.books(node));
        self.books(node).written = before.written;
        for record in records {
            if let Record::Used(ballot) = record {
                self.used.insert(*ballot); // perhaps never said to be durable, and so free to be there or not
            }
            self.keeps(node, record)?;
        }
        let now = self.books(node);
        if now.promised < before.promised {
            let words = format!(
                "{node} had promised {}, and after its restart {}",
                before.promised, now.promised
            );
            return broken("no fall", words);
        }
        if let Some(ballot) = before.used.difference(&now.used).next() {
            return broken(
                "no fall",
                format!("{node} had used {ballot}, and its restart knows nothing of it"),
            );
        }
        for (slot, (ballot, crc)) in &before.held {
            let is_kept = now.held.get(slot).is_some_and(|(kept, kept_crc)| {
                kept > ballot || *kept == Ballot::ZERO || (kept, kept_crc) == (ballot, crc)
            });
            if !is_kept {
                let words = format!("{node} held slot {slot} at {ballot}, and not after its restart");
                return broken("no fall", words);
            }
        }
        Ok(())
    }

    /// A node's directory is gone: nothing is expected of it any more.
    pub fn forgets(&mut self, node: NodeId) {
        *self.books(node) = Books::default();
        self.has_lost_memory = true;
    }

    /// A node says something to a peer. `is_synced`: its log holds nothing that is not durable.
    ///
    /// # Errors
    /// Its disk does not prove it.
    pub fn says(&mut self, (node, to): (NodeId, NodeId), message: &Message, now: Time, is_synced: bool) -> Judged {
        self.elections.says(node, to, message, now);
        if !is_synced {
            return broken("claims", format!("{node} says {message} while its log is not synced"));
        }
        let books = &self.disks[usize::from(node.0) - 1];
        let proves = match message {
            Message::Prepare { ballot, .. } => books.used.contains(ballot),
            Message::Promise(promise) => books.promised >= promise.ballot,
            // For a slot that it knows as chosen a node votes without writing the entry again.
            Message::Accepted {
                ballot, first, last, ..
            } => {
                let holds = |slot| books.held.contains_key(&Slot(slot));
                books.promised >= *ballot && (first.0..=last.0).all(holds)
            }
            // Says that nothing higher is promised.
            Message::HeartbeatAck(ack) => books.promised <= ack.ballot,
            _ => true,
        };
        if !proves {
            return broken(
                "claims",
                format!("{node} says {message}, and its disk does not prove it"),
            );
        }
        match message {
            Message::Promise(promise) => {
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

    fn is_chosen(&self, node: NodeId, slot: Slot, entry: &Entry) -> Judged {
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
                return broken("promise", words);
            }
        }
        Ok(())
    }

    /// An ACCEPT leaves: one entry for a slot and a ballot, and none against what is chosen.
    fn proposes(&mut self, node: NodeId, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        let first = *self.proposed.entry((slot, ballot)).or_insert(entry.crc);
        if first != entry.crc {
            return broken(
                "one value",
                format!("{node} proposes two entries for slot {slot} at {ballot}"),
            );
        }
        let own = self.disks[usize::from(node.0) - 1].held.get(&slot).copied();
        if own.is_none_or(|(accepted_at, _)| accepted_at < ballot) {
            self.elections.proposes(slot, ballot, entry, own)?;
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
        if let Note::Paxos(
            paxos::Note::DigestsDiffer { .. } | paxos::Note::Diverged { .. } | paxos::Note::OtherConfig { .. },
        ) = note
        {
            return broken(
                "digests",
                format!("{node} {note}, and all nodes were equal at equal slots"),
            );
        }
        if accuses && !self.has_lost_memory {
            return broken("no fall", format!("{node} {note}, and nobody's memory was touched"));
        }
        Ok(())
    }

    /// A client's request arrives at a node.
    pub fn asks(&mut self, request: &Request, now: Time) -> Option<Asked> {
        match &request.op {
            RequestOp::Get { .. } => {
                let acknowledged = self.acknowledged.by(now);
                Some(Asked::Read { acknowledged })
            }
            _ if request.number > 0 => Some(Asked::Write(request.session, request.number)),
            _ => None,
        }
    }

    /// A node answers a client.
    ///
    /// # Errors
    /// It says "done" of what is not, or not in the same words as before, or of what was so once.
    pub fn answers(&mut self, node: NodeId, asked: Option<Asked>, outcome: &Outcome, now: Time) -> Judged {
        let Outcome::Done(Served::Done(done)) = outcome else {
            return Ok(());
        };
        match asked {
            Some(Asked::Write(session, number)) => self.answers_write(node, session, number, done)?,
            Some(Asked::Read { acknowledged }) if done.slot < acknowledged => {
                let words = format!(
                    "{node} answers a read up to slot {}, {acknowledged} was acknowledged before it arrived",
                    done.slot
                );
                return broken("reads", words);
            }
            Some(Asked::Read { .. }) | None => {}
        }
        self.acknowledged.note(done.slot, now);
        Ok(())
    }

    fn answers_write(&mut self, node: NodeId, session: SessionRef, number: u64, done: &Done) -> Judged {
        let is_there = self.slot(done.slot).is_some_and(|books| {
            let of = |command: &Command| command.session == session && command.number == number;
            books.chosen.is_some() && books.commands.iter().any(of)
        });
        if !is_there {
            let words = format!(
                "{node} says that write {number} is done in slot {}: it is not there",
                done.slot
            );
            return broken("replies", words);
        }
        let first = self
            .done
            .entry((session.id, session.opened, number))
            .or_insert_with(|| done.clone());
        if first != done {
            let words = format!("{node} answers write {number} with {done:?}, before it was {first:?}");
            return broken("replies", words);
        }
        Ok(())
    }

    /// Whether a write is done for good.
    pub fn is_done(&self, session: SessionRef, number: u64) -> bool {
        self.done.contains_key(&(session.id, session.opened, number))
    }

    /// The last slot with a write that was done: nobody who serves may be without it in the end.
    pub fn done_upto(&self) -> Slot {
        self.done.values().map(|done| done.slot).max().unwrap_or_default()
    }

    /// A look at a node after its turn.
    ///
    /// # Errors
    /// It takes as chosen what is not, or applied something else than others; or its marks fell.
    pub fn look_at(&mut self, node: NodeId, machine: &Machine) -> Judged {
        let replica = machine.replica();
        let books = &self.disks[usize::from(node.0) - 1];
        if replica.acceptor().is_some() && replica.promised() < books.promised {
            let (has, had) = (replica.promised(), books.promised);
            return broken("no fall", format!("{node} has promised {has}, on its disk {had}"));
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
        let (applied, digest) = (machine.state().applied(), machine.state().digest());
        let looked = self.books(node);
        looked.chosen_upto = upto;
        if std::mem::replace(&mut looked.applied, applied) != applied {
            self.has_applied(node, applied, digest)?;
            if let Some(news) = &mut self.news {
                news.push((Some(node), format!("has applied all up to slot {applied}")));
            }
        }
        Ok(())
    }

    fn has_applied(&mut self, node: NodeId, applied: Slot, digest: u64) -> Judged {
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
            self.digests.push(self.reference.digest());
        }
        let expected = (applied.0 as usize)
            .checked_sub(1)
            .map_or(0, |place| self.digests[place]);
        if applied > Slot::ZERO && digest != expected {
            let words =
                format!("{node} applied up to {applied} with digest {digest:016x}, the log makes {expected:016x}");
            return broken("digest", words);
        }
        Ok(())
    }
}
