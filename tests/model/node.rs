//! One node of the model: the real [`Replica`], a disk that loses at a crash what was not synced, and what it ever said.
//!
//! A node is a value: a [`Step`] makes another node of it by running the replica's own code; nothing in here knows Paxos.
//! Time stands still at zero and all durations are zero, so every deadline is always due, and *when* it is acted on is a
//! step like any other: that covers all timings at once.

use crate::world::{World, noop, value};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;
use synod::paxos::election::Timing;
use synod::paxos::replica::{Config, PART_BYTES};
use synod::paxos::{
    Ballot, Entry, Incarnation, Membership, Message, NodeId, Outbox, Output, Replica, Slot, Stance, Write,
};
use synod::time::Time;

/// The one moment at which all happens.
const NOW: Time = Time::ZERO;

/// A message on its way. It stays there for ever, so loss, repeats and reordering are one and the same: a step that is
/// not taken, taken again, or taken later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}

/// What can happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Its patience is over: it leaves what it did and goes for a new ballot.
    Campaign,
    /// A client's write comes to a leader.
    Propose,
    /// A leader tells its watermark.
    Heartbeat,
    /// The turn ends: what was written is on disk, and what waited for that is told.
    Sync,
    /// Its process dies and starts again from its disk; what was not synced is lost. (That it is there all the same is
    /// covered: it is a sync whose messages are lost, and then a crash.)
    Crash,
    /// A message reaches it: its number among all envelopes.
    Deliver(u16),
}

/// One node: see the module.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) replica: Replica,
    out: Outbox,
    /// What a process that starts on its disk gets back. (The records themselves would only tell in which order they came.)
    recovered: Replica,
    /// The acceptances on its disk, by slot and ballot.
    pub(crate) votes: Vec<(Slot, Ballot, Entry)>,
    /// The highest ballot that a record on its disk promises.
    pub(crate) promised: Ballot,
    /// Records written since the last sync.
    pub(crate) pending: Vec<Write>,
    /// Inputs of this turn, from the first on that wrote something.
    inputs: u8,
    /// Numbers of all envelopes that it sent and that are not dead.
    pub(crate) sent: BTreeSet<u16>,
    /// What it ever gave to its state machine, in any life, by slot.
    pub(crate) applied: Vec<(Slot, Entry)>,
    /// Where the state machine of this life stands.
    applied_upto: Slot,
    /// The slot that the state machine of this life did not get before it got a later one.
    pub(crate) skipped: Option<Slot>,
    /// The highest watermark that it told by a sign of life at its present ballot.
    told: Slot,
    ballots: u8,
    pub(crate) crashes: u8,
}

impl Node {
    /// A node with an empty disk.
    pub(crate) fn new(id: NodeId, world: &World) -> Node {
        let recovered = replica(id, world);
        let mut replica = recovered.clone();
        replica.start(NOW);
        Node {
            id,
            replica,
            out: Outbox::default(),
            recovered,
            votes: Vec::new(),
            promised: Ballot::ZERO,
            pending: Vec::new(),
            inputs: 0,
            sent: BTreeSet::new(),
            applied: Vec::new(),
            applied_upto: Slot::ZERO,
            skipped: None,
            told: Slot::ZERO,
            ballots: 0,
            crashes: 0,
        }
    }

    /// Its place among the three.
    pub(crate) fn index(&self) -> usize {
        usize::from(self.id.0) - 1
    }

    /// Whether this turn has all the inputs that it may gather.
    pub(crate) fn is_turn_full(&self, world: &World) -> bool {
        self.inputs >= world.turn
    }

    /// What it can do by itself, within the bounds of `world`. (What others can do to it is [`Step::Deliver`].)
    pub(crate) fn own_steps(&self, world: &World) -> Vec<Step> {
        let leads = matches!(self.replica.stance(), Stance::Leader(_));
        let is_open = !self.is_turn_full(world);
        let steps = [
            (Step::Sync, !self.pending.is_empty()),
            (Step::Crash, self.crashes < world.crashes[self.index()]),
            (
                Step::Propose,
                is_open && leads && self.replica.first_open() <= Slot(world.slots),
            ),
            (
                Step::Heartbeat,
                is_open && leads && self.replica.learner().chosen_upto() > self.told,
            ),
            (Step::Campaign, is_open && self.ballots < world.ballots[self.index()]),
        ];
        steps
            .into_iter()
            .filter(|(_, can)| *can)
            .map(|(step, _)| step)
            .collect()
    }

    /// Takes one step; `envelope` is what a [`Step::Deliver`] delivers. Returned is what it said.
    pub(crate) fn take(&mut self, world: &World, step: Step, envelope: Option<&Envelope>) -> Vec<Envelope> {
        let mut said = Vec::new();
        match step {
            Step::Campaign => self.campaign(),
            Step::Propose => {
                let entry = value(self.replica.used(), self.crashes);
                self.replica.propose(NOW, entry, &mut self.out);
            }
            Step::Heartbeat => {
                self.replica.begin_round(NOW, &mut self.out);
            }
            Step::Sync => self.sync(&mut said),
            Step::Crash => self.crash(),
            Step::Deliver(_) => {
                let Envelope { from, message, .. } = envelope.expect("a delivery has something to deliver");
                self.replica.on_message(NOW, *from, message.clone(), &mut self.out);
            }
        }
        self.finish(&mut said);
        // Without a crash left that could lose it, what is not synced is only late, as messages are anyway.
        if !self.pending.is_empty() && self.crashes == world.crashes[self.index()] && step != Step::Sync {
            self.sync(&mut said);
            self.finish(&mut said);
        }
        said
    }

    /// A leader steps down, a candidate gives up, and a follower stands up: each is one deadline.
    fn campaign(&mut self) {
        (self.ballots, self.told) = (self.ballots + 1, Slot::ZERO);
        if self.replica.stance() != Stance::Follower {
            self.replica.on_deadline(NOW, &mut self.out);
        }
        self.replica.on_deadline(NOW, &mut self.out);
    }

    /// The end of a turn: the watermark is written beside acceptances, then all of it is synced.
    fn sync(&mut self, said: &mut Vec<Envelope>) {
        self.replica.on_gathered(&mut self.out);
        self.collect(said);
        for write in self.pending.drain(..) {
            match &write {
                Write::Promised(ballot) => self.promised = self.promised.max(*ballot),
                Write::Accepted { slot, ballot, entry } => {
                    self.promised = self.promised.max(*ballot);
                    self.votes.push((*slot, *ballot, entry.clone()));
                    self.votes.sort_by_key(|(slot, ballot, _)| (*slot, *ballot));
                }
                Write::Used(_) | Write::Learned { .. } | Write::ChosenUpto(_) => {}
                // Nobody loses a directory in these worlds.
                Write::Copied { .. } | Write::Recovered => {}
            }
            self.recovered.recover(write);
        }
        self.out.note_synced(self.out.written());
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.pending.clear();
        self.out = Outbox::default();
        self.replica = self.recovered.clone();
        self.replica.start(NOW);
        (self.applied_upto, self.skipped, self.told) = (Slot::ZERO, None, Slot::ZERO);
    }

    /// What follows each step, as in the machine: claims that wait for no record are told, and what is chosen is applied.
    fn finish(&mut self, said: &mut Vec<Envelope>) {
        self.replica.release(NOW, &mut self.out);
        while let Some((slot, entry)) = self.replica.next_to_apply() {
            if slot != self.applied_upto.next() {
                self.skipped.get_or_insert(self.applied_upto.next());
            }
            self.applied_upto = slot;
            if !self.applied.contains(&(slot, entry.clone())) {
                self.applied.push((slot, entry));
                self.applied.sort_by_key(|(slot, _)| *slot);
            }
        }
        self.collect(said);
        self.replica.check();
        self.inputs = if self.pending.is_empty() { 0 } else { self.inputs + 1 };
        if self.pending.is_empty() {
            self.out = Outbox::default(); // nothing waits for a record: they may as well be counted from one again
        }
    }

    fn collect(&mut self, said: &mut Vec<Envelope>) {
        for output in self.out.drain() {
            match output {
                Output::Write(write) => self.pending.push(write),
                Output::Send { to, message } => {
                    if let Message::Heartbeat(heartbeat) = &message {
                        self.told = self.told.max(heartbeat.chosen_upto);
                    }
                    let from = self.id;
                    said.push(Envelope { from, to, message });
                }
                Output::Note(_) | Output::Refuse { .. } => {}
                Output::ReadChosen { .. } | Output::Reread { .. } => {
                    unreachable!("so small a log is in memory, and no acceptor fails alone")
                }
            }
        }
    }

    /// 128 bits of all that is in it: two nodes with the same print are taken as one.
    pub(crate) fn print(&self) -> u128 {
        let Node {
            id: _,
            replica,
            out: _, // its counters show in the replica's claims
            recovered,
            votes,
            promised,
            pending,
            inputs,
            sent,
            applied,
            applied_upto,
            skipped,
            told,
            ballots,
            crashes,
        } = self;
        let mut print = Print(DefaultHasher::new(), DefaultHasher::new());
        print.1.write_u8(1); // the same text to two hashers that differ from the start
        write!(
            print,
            "{replica:?}{recovered:?}{votes:?}{promised}{pending:?}{inputs}{sent:?}{applied:?}"
        )
        .and_then(|()| write!(print, "{applied_upto}{skipped:?}{told}{ballots}{crashes}"))
        .expect("hashing does not fail");
        u128::from(print.0.finish()) << 64 | u128::from(print.1.finish())
    }
}

/// Text that is hashed as it is written.
struct Print(DefaultHasher, DefaultHasher);

impl fmt::Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        self.1.write(text.as_bytes());
        Ok(())
    }
}

/// A replica that has recovered nothing yet. All know each other, and may vote.
fn replica(id: NodeId, world: &World) -> Replica {
    let members = [1, 2, 3].map(NodeId);
    let rules = world.rules;
    let mut replica = Replica::new(Config {
        node: id,
        membership: Membership::founding(members).under(rules),
        incarnation: Incarnation::default(),
        base: Slot::ZERO,
        timing: Timing {
            heartbeat: Duration::ZERO,
            election_timeout: Duration::ZERO,
            backoff_base: Duration::ZERO,
            backoff_max: Duration::ZERO,
        },
        read_lease_ppm: None,
        cache_bytes: 1 << 20,
        part_bytes: PART_BYTES,
        seed: 0,
        noop: |_| noop(),
        // The question before a campaign changes nothing at whom it asks; without it a campaign is one step.
        rules: rules.without("pre-vote").expect("there is such a rule"),
    });
    members
        .into_iter()
        .for_each(|node| replica.know(node, Incarnation::default()));
    replica.set_may_vote(true);
    replica
}
