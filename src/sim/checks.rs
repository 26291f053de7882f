//! The judge: what must hold after each step, whatever happened.
//!
//! It keeps its own books, from what goes to the disks and over the wires: which records of each node are durable, and
//! so which slots are chosen, in the sense of Paxos (a quorum of distinct nodes has accepted one entry at one ballot). A
//! node is believed only where the books prove what it says. Rules, by the names that a violation carries:
//! * `one value`: a slot has one chosen entry, over all time and all nodes; a ballot has one entry for a slot.
//! * `no fall`: what was durable is there after every restart: promises, used ballots, acceptances.
//! * `claims`: PREPARE, PROMISE, ACCEPTED and "done" are said only when the disk proves them (P1, P2, P7), and only in a
//!   cluster that is founded.
//! * `promise`: nothing is accepted below a promise (P4), and a promise reports all that was accepted (P8, P9).
//! * `ballots`: a ballot is used once.
//! * `memory`: who lost its memory says nothing that counts before it has recovered; and votes of a forgotten life choose
//!   nothing together with votes that know of a newer one.
//! * `chosen`: what a node takes as chosen, is; a later ballot does not propose against it; watermarks are true.
//! * `log time`: it does not run backwards along the log, but for entries that an older leader had stamped.
//! * `digest`: every applied prefix is the same function of the chosen log.
//! * `reads`: a read that is not asked to be stale shows at least what was acknowledged before it arrived; one that is, what
//!   was acknowledged so long before as its answer says that it may be old, and the slot that it was asked for.
//! * `replies`: "done" names the chosen slot that holds the command, and a repeat is answered as the first time; along the
//!   chosen log, no command of a session is run twice.
//! * `bounds`: no queue and no memory of a node grows beyond its bound
//!   ([`bounded`](crate::machine::Machine::bounded)), and its log not beyond what it wrote into it: of that, what snapshots
//!   stand for goes.
//!
//! * `checks`: the books. `says`, `answers`, `looks`: the questions, to messages, replies and nodes. `waits`: how much log a node
//!   may hold while it is behind.
//!
//! Not here: whether the answers of all clients fit together, and whether anything happens at all (`finale`).

mod answers;
mod looks;
mod says;
#[cfg(test)]
mod tests;
mod waits;

pub use answers::Asked;

use super::elections::Elections;
use super::reads::Acknowledged;
use super::report::Violation;
use super::words;
use crate::kv::state::State;
use crate::kv::{Command, Done};
use crate::paxos::{Ballot, Entry, EntryKind, Incarnation, LogTime, NodeId, Slot, Start};
use crate::wire::{Record, body};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use waits::Waits;

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
    /// The highest log time of the entries that were chosen at a ballot.
    log_times: BTreeMap<Ballot, LogTime>,
    used: BTreeSet<Ballot>,
    /// The entry's checksum of each proposal that left.
    proposed: BTreeMap<(Slot, Ballot), u32>,
    /// The state that the chosen prefix makes, as far as any node has applied it, and its digests after each slot: of the
    /// entries, and of the content.
    reference: State,
    digests: Vec<(u64, u64)>,
    /// Every write that was run, by session and number, with its first result.
    done: FirstResults,
    elections: Elections,
    acknowledged: Acknowledged,
    /// Whether somebody's directory was lost, or rots: then a node may be called forgetful.
    pub has_lost_memory: bool,
    /// Every life that a node's disk was ever seen to hold.
    lives: BTreeMap<NodeId, BTreeSet<Incarnation>>,
    /// Who lost its memory and has not recovered, and the lives that it had until then: that one of these has recovered may
    /// stand on its disk still, or anew, and says nothing of what was lost since.
    forgetful: BTreeMap<NodeId, BTreeSet<Incarnation>>,
    overlooked: BTreeSet<String>,
    found: Option<Violation>,
    /// What a transcript should know, if there is one: whose it is, and what.
    news: Option<Vec<(Option<NodeId>, String)>>,
}

/// What one node's disk is known to hold.
#[derive(Debug, Default)]
struct Books {
    promised: Ballot,
    /// The highest ballot of which it told others that it has promised it.
    told: Ballot,
    used: BTreeSet<Ballot>,
    /// The last record of each slot: the ballot it was accepted at (zero: learned), and the entry's checksum.
    held: BTreeMap<Slot, (Ballot, u32)>,
    founded: bool,
    /// Behind which slot the snapshot ends that it started from: what is chosen up to there its log need not hold.
    base: Slot,
    /// The present life; of generation 0, if its directory was born with it.
    life: Incarnation,
    /// The present life has not recovered.
    recovers: bool,
    /// The newest generation of each peer that it has on disk.
    knows: Rc<BTreeMap<NodeId, u32>>,
    /// The newest start of each peer that it has on disk.
    starts: BTreeMap<NodeId, Start>,
    /// Handed to the disk, not synced.
    appended: Vec<Record>,
    /// Bytes handed to the disk in all lives, about.
    written: u64,
    /// Where the node stood when it was looked at last.
    chosen_upto: Slot,
    applied: Slot,
    /// The length of its cluster's leases, once it is founded.
    lease: Option<Duration>,
    /// How much of `written` its log may hold since it is behind.
    waits: Waits,
}

#[derive(Debug, Default)]
struct SlotBooks {
    votes: Vec<Votes>,
    chosen: Option<(Ballot, Entry)>,
    /// What the chosen entry holds.
    commands: Vec<Command>,
}

/// Who has accepted at a ballot.
#[derive(Debug)]
struct Votes {
    ballot: Ballot,
    crc: u32,
    votes: Vec<Vote>,
}

/// One of them: which life of whom, and which lives of others it knew.
#[derive(Debug)]
struct Vote {
    node: NodeId,
    generation: u32,
    knows: Rc<BTreeMap<NodeId, u32>>,
}

impl Vote {
    /// Whether it knows that the life of `other` is over.
    fn outdates(&self, other: &Vote) -> bool {
        self.knows
            .get(&other.node)
            .is_some_and(|newest| *newest > other.generation)
    }
}

impl Votes {
    /// Whether so many voters are among these votes, none of a life that another of them knows to be over.
    fn hold(&self, quorum: usize) -> bool {
        let all = 1_u32 << self.votes.len();
        self.votes.len() >= quorum && (self.agree(all - 1) || self.some_agree(all, quorum))
    }

    fn some_agree(&self, all: u32, quorum: usize) -> bool {
        (1..all).any(|set| set.count_ones() as usize == quorum && self.agree(set))
    }

    fn agree(&self, set: u32) -> bool {
        let members = || {
            (0..self.votes.len())
                .filter(move |place| set & 1 << place != 0)
                .map(|place| &self.votes[place])
        };
        members().all(|a| members().all(|b| std::ptr::eq(a, b) || a.node != b.node && !a.outdates(b)))
    }
}

/// What a record and a unit take beside the body of an entry, about; and what begins a directory.
const RECORD_BYTES: u64 = 64;
const UNIT_BYTES: u64 = 64;

fn record_bytes(record: &Record) -> u64 {
    RECORD_BYTES
        + match record {
            Record::Accepted { entry, .. } | Record::Learned { entry, .. } | Record::Copied { entry, .. } => {
                entry.body.len() as u64
            }
            Record::Roster(roster) => roster.len() as u64 * 2 * RECORD_BYTES,
            _ => 0,
        }
}

fn broken(rule: &'static str, words: String) -> Judged {
    Err(Violation { rule, words })
}

impl Checks {
    /// Empty books for so many nodes.
    pub fn new(nodes: usize) -> Checks {
        Checks {
            disks: (0..nodes).map(|_| Books::default()).collect(),
            slots: Vec::new(),
            chosen_upto: Slot::ZERO,
            log_times: BTreeMap::new(),
            used: BTreeSet::new(),
            proposed: BTreeMap::new(),
            reference: State::new(),
            digests: Vec::new(),
            done: BTreeMap::new(),
            elections: Elections::new(nodes),
            acknowledged: Acknowledged::default(),
            has_lost_memory: false,
            lives: BTreeMap::new(),
            forgetful: BTreeMap::new(),
            overlooked: BTreeSet::new(),
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

    /// Does not complain of these rules, so that what comes of breaking them is seen.
    pub fn overlooks(mut self, rules: &BTreeSet<String>) -> Checks {
        self.overlooked.clone_from(rules);
        self
    }

    /// A violation, unless its rule is overlooked.
    fn complain(&self, rule: &'static str, words: String) -> Judged {
        if self.overlooked.contains(rule) {
            return Ok(());
        }
        broken(rule, words)
    }

    /// A violation of a rule that is overlooked is none.
    pub fn judge(&self, judged: Judged) -> Judged {
        judged.or_else(|violation| self.complain(violation.rule, violation.words))
    }

    /// Keeps the first violation.
    pub fn found(&mut self, violation: Violation) {
        if !self.overlooked.contains(violation.rule) {
            self.found.get_or_insert(violation);
        }
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

    /// Whether a node lost its memory and has not recovered.
    pub fn has_forgotten(&self, node: NodeId) -> bool {
        self.forgetful.contains_key(&node)
    }

    /// Whether all others have a later start of `node` than this one on disk: an old copy of its directory, last started
    /// then, is recognised by whomever it meets first. If somebody who counted its votes were away, nobody could.
    pub fn is_outlived(&self, node: NodeId, start: Start) -> bool {
        let places = self.disks.iter().enumerate();
        let mut others = places.filter(|(place, _)| *place != usize::from(node.0) - 1);
        others.all(|(_, books)| {
            books
                .starts
                .get(&node)
                .is_some_and(|known| known.counter > start.counter)
        })
    }

    fn quorum(&self) -> usize {
        self.disks.len() / 2 + 1
    }

    fn books(&mut self, node: NodeId) -> &mut Books {
        &mut self.disks[usize::from(node.0) - 1]
    }

    /// A node hands records to its disk.
    pub fn appends(&mut self, node: NodeId, records: &[Record]) {
        let books = self.books(node);
        books.appended.extend_from_slice(records);
        books.waits.writes(records, books.written);
        books.written += records.iter().map(record_bytes).sum::<u64>() + UNIT_BYTES;
    }

    /// What it handed to it is durable, the node says; whether it is, shows after the next loss of power.
    ///
    /// # Errors
    /// A record that breaks a rule.
    pub fn synced(&mut self, node: NodeId) -> Judged {
        for record in std::mem::take(&mut self.books(node).appended) {
            if let Record::Accepted { slot, ballot, entry } = &record {
                let books = self.books(node);
                let promised = books.promised;
                let is_written_again = books.held.get(slot) == Some(&(*ballot, entry.crc));
                if *ballot < promised && !is_written_again {
                    let words = format!("{node} accepts slot {slot} at {ballot}, and has promised {promised}");
                    self.complain("promise", words)?;
                }
            }
            if let Record::Used(ballot) = &record
                && !self.used.insert(*ballot)
            {
                self.complain("ballots", format!("{node} uses ballot {ballot} a second time"))?;
            }
            if record == Record::Recovered {
                self.recovered(node);
            }
            self.keeps(node, &record)?;
        }
        Ok(())
    }

    /// The present life of a node has recovered. An old copy, too, knows of a life that did, and carries the record along as
    /// its log loses its beginning, perhaps before anybody tells it what it forgot.
    fn recovered(&mut self, node: NodeId) {
        let life = self.books(node).life;
        if self.forgetful.get(&node).is_some_and(|lives| !lives.contains(&life)) {
            self.forgetful.remove(&node);
        }
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
            Record::Copied { slot, ballot, entry } => {
                books.promised = books.promised.max(*ballot);
                books.held.insert(*slot, (*ballot, entry.crc)); // shown like a vote, and none
            }
            Record::Founded => books.founded = true,
            Record::Life(incarnation) => {
                (books.life, books.recovers) = (*incarnation, true);
                self.lives.entry(node).or_default().insert(*incarnation);
            }
            Record::Recovered => books.recovers = false,
            Record::Peer {
                node: peer,
                incarnation,
                start,
            } if *peer != node => {
                Rc::make_mut(&mut books.knows).insert(*peer, incarnation.generation);
                books.starts.insert(*peer, *start);
            }
            Record::Checkpoint { promised, used, .. } => {
                books.promised = books.promised.max(*promised);
                books.used.insert(*used);
            }
            // A snapshot that came holds what is chosen up to there.
            Record::Installed { slot } => books.base = books.base.max(*slot),
            Record::ChosenUpto(_) | Record::Roster(_) | Record::Lease(_) | Record::Peer { .. } => {}
        }
        Ok(())
    }

    /// A durable acceptance is a vote; a quorum of them makes the entry chosen.
    fn votes(&mut self, node: NodeId, slot: Slot, ballot: Ballot, entry: &Entry) -> Judged {
        let quorum = self.quorum();
        let voter = self.books(node);
        let (generation, knows) = (voter.life.generation.max(1), Rc::clone(&voter.knows));
        let books = self.slot_mut(slot);
        let place = books.votes.iter().position(|votes| votes.ballot == ballot);
        let place = place.unwrap_or_else(|| {
            let (crc, votes) = (entry.crc, Vec::new());
            books.votes.push(Votes { ballot, crc, votes });
            books.votes.len() - 1
        });
        let votes = &mut books.votes[place];
        if votes.crc != entry.crc {
            let words = format!("{node} accepts {entry} for slot {slot} at {ballot}, others another entry");
            return self.complain("one value", words);
        }
        let is_known = |vote: &Vote| (vote.node, vote.generation) == (node, generation);
        if votes.votes.iter().any(is_known) {
            return Ok(()); // a restart reads its own votes again
        }
        votes.votes.push(Vote {
            node,
            generation,
            knows,
        });
        if !votes.hold(quorum) {
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
        let log_time = self.log_times.entry(ballot).or_default();
        *log_time = entry.stamp.max(*log_time);
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

    /// A node starts on a disk that holds these records, behind a snapshot of slot `base` (0: none).
    ///
    /// # Errors
    /// Something that was durable is not there any more.
    pub fn recovers(&mut self, node: NodeId, base: Slot, records: &[Record]) -> Judged {
        self.elections.starts(node);
        let before = std::mem::take(self.books(node));
        self.books(node).written = before.written;
        self.books(node).waits = before.waits;
        self.books(node).lease = before.lease;
        // An old copy brings votes along that were written before its books were begun.
        self.books(node).waits.writes(records, before.written);
        self.books(node).base = base;
        for record in records {
            if let Record::Used(ballot) = record {
                self.used.insert(*ballot); // perhaps never said to be durable, and so free to be there or not
            }
            self.keeps(node, record)?;
        }
        self.books(node).told = before.told;
        let knows = self.books(node).promised;
        if knows < before.told {
            let words = format!(
                "{node} has told that it promised {}, and after its restart it knows {knows}",
                before.told
            );
            self.complain("no fall", words)?;
        }
        let now = self.books(node);
        if now.promised < before.promised {
            let words = format!(
                "{node} had promised {}, and after its restart {}",
                before.promised, now.promised
            );
            return broken("no fall", words);
        }
        // A truncated log carries the highest alone, and above it all later ones are.
        if let Some(ballot) = before.used.last().filter(|last| now.used.last() < Some(last)) {
            return broken(
                "no fall",
                format!("{node} had used {ballot}, and its restart knows nothing of it"),
            );
        }
        for (slot, (ballot, crc)) in before.held.range(base.next()..) {
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

    /// A node's directory is gone, or another than it was: nothing is expected of it any more.
    pub fn forgets(&mut self, node: NodeId) {
        let written = self.books(node).written;
        *self.books(node) = Books {
            written,
            waits: Waits::new(written),
            ..Books::default()
        };
        self.has_lost_memory = true;
        let lives = self.lives.get(&node).cloned().unwrap_or_default();
        self.forgetful.insert(node, lives);
        // What it used without a quorum it may use again: nothing was proposed at such a ballot.
        let proposed: BTreeSet<Ballot> = self.proposed.keys().map(|(_, ballot)| *ballot).collect();
        self.used
            .retain(|ballot| ballot.node != node || proposed.contains(ballot));
    }
}
