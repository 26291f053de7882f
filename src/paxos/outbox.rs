//! What a replica asks of the world: records to write, messages to send, reads, notes.
//!
//! Records are numbered from 1 in the order in which they are asked for; "your records up to N are on disk" is how
//! durability comes back as an input (etcd-io/raft's asynchronous storage writes are the model).

use super::{Ballot, Entry, Incarnation, Message, NodeId, Slot};
use std::fmt;
use std::time::Duration;

/// A record that must survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The acceptor promised this ballot.
    Promised(Ballot),
    /// The proposer uses this ballot (`rules.md` 4).
    Used(Ballot),
    /// The acceptor accepted an entry.
    Accepted {
        /// Where.
        slot: Slot,
        /// At which ballot.
        ballot: Ballot,
        /// What.
        entry: Entry,
    },
    /// The learner got an entry that is chosen and that its own acceptor does not hold.
    Learned {
        /// Where.
        slot: Slot,
        /// What.
        entry: Entry,
    },
    /// All up to here is chosen, and the last record of each slot holds what was chosen.
    ChosenUpto(Slot),
    /// What a peer has accepted, copied by a node that lost its memory: reported in promises, and no vote (`rules.md` 3).
    Copied {
        /// Where.
        slot: Slot,
        /// The highest ballot at which a peer accepted it.
        ballot: Ballot,
        /// What.
        entry: Entry,
    },
    /// All that this node may have promised and forgotten is on its disk again: it votes from now on.
    Recovered,
}

/// One thing asked of the world, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put behind the log, to be synced with this turn.
    Write(Write),
    /// Send; it may leave at once.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Read chosen entries back from the log, for `to`.
    ReadChosen {
        /// For whom.
        to: NodeId,
        /// First slot.
        first: Slot,
        /// Last slot wanted.
        last: Slot,
    },
    /// Close the links to a peer, and say why.
    Refuse {
        /// Whom.
        peer: NodeId,
        /// What it did.
        fault: PeerFault,
    },
    /// Read the acceptor's records again, in slices.
    Reread {
        /// From the log's beginning, or on from where the last slice ended.
        restart: bool,
    },
    /// For people.
    Note(Note),
}

/// What no honest peer does, whatever the network does. Its message is as if lost: that a peer is broken must not stop a
/// node that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerFault {
    /// It proposed two entries for one slot at one ballot (`rules.md` 9). The first keeps the vote.
    TwoEntries {
        /// At which ballot.
        ballot: Ballot,
        /// For which slot.
        slot: Slot,
    },
    /// Its promise lists a slot farther above what is chosen than any acceptor takes.
    OutOfReach {
        /// Which slot.
        slot: Slot,
    },
}

/// An event of agreement that is worth a line in the log and a place in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// This node asks whether a quorum would promise.
    Asks {
        /// Number of the campaign.
        attempt: u32,
        /// Why now.
        reason: &'static str,
    },
    /// This node runs phase 1.
    Campaigns {
        /// With which ballot.
        ballot: Ballot,
        /// First slot not known as chosen.
        from_slot: Slot,
    },
    /// This node leads.
    Leads {
        /// With which ballot.
        ballot: Ballot,
        /// How many slots phase 1 showed that must be finished.
        recovered: u64,
        /// First slot free for new entries.
        first_open: Slot,
    },
    /// This node follows a leader that it did not follow before.
    Follows {
        /// At which ballot; its node leads.
        ballot: Ballot,
    },
    /// This node leads no more.
    StepsDown {
        /// The ballot that it leaves.
        ballot: Ballot,
        /// Why.
        reason: String,
    },
    /// A campaign failed; another may follow after the backoff.
    LostElection {
        /// The ballot, or the highest known if none was used.
        ballot: Ballot,
        /// Why.
        reason: String,
        /// How long this node waits before it asks again.
        backoff: Duration,
        /// How many campaigns failed in a row.
        tries: u32,
    },
    /// No sign of life of the leader.
    LeaderLost {
        /// Who it was.
        leader: NodeId,
        /// Why it is taken as lost.
        reason: &'static str,
    },
    /// This node's acceptor has begun to grant a leader leases (`rules.md` 16).
    Grants {
        /// At which ballot; its node holds them.
        ballot: Ballot,
        /// Of which length each.
        length: Duration,
    },
    /// A PREPARE is not answered, because of a lease that this node's acceptor has granted. Said once for each ballot.
    BoundByLease {
        /// What was asked for.
        ballot: Ballot,
        /// Who holds the lease; `None`: whoever it was before this acceptor restarted.
        holder: Option<NodeId>,
        /// For how long still.
        left: Duration,
    },
    /// This leader reads by its lease from now on.
    HoldsLease {
        /// At which ballot.
        ballot: Ballot,
        /// For so long, if it is not renewed.
        left: Duration,
    },
    /// The lease ran out before it was renewed: reads ask a quorum again.
    LeaseRanOut {
        /// At which ballot.
        ballot: Ballot,
    },
    /// A peer's promise shows less than it voted for: its votes do not count any more.
    Forgetful {
        /// Who.
        node: NodeId,
        /// At which ballot it voted.
        ballot: Ballot,
        /// For which slot.
        slot: Slot,
    },
    /// A peer broke a rule that no fault explains.
    PeerFault {
        /// Who.
        peer: NodeId,
        /// What it did.
        fault: PeerFault,
    },
    /// A peer knows another configuration: its PREPARE or ACCEPT is as if lost.
    OtherConfig {
        /// Who.
        from: NodeId,
        /// Number of the configuration that it knows.
        config: u64,
        /// Number of this node's.
        own: u64,
    },
    /// This node's state differs from a peer's, and it is not known which of them is wrong: it does not serve meanwhile.
    DigestsDiffer {
        /// The first slot at which that was seen.
        slot: Slot,
        /// Which peer.
        peer: NodeId,
    },
    /// A quorum has the same digest as this node, behind every difference that was seen: it serves again.
    DigestsAgree {
        /// At which slot.
        slot: Slot,
    },
    /// This node's state differs from a quorum's: it does not serve, vote or lead any more.
    Diverged {
        /// The first slot at which that was seen.
        slot: Slot,
    },
    /// This node asks its peers what it may have promised and forgotten.
    Recovers {
        /// Under which life.
        incarnation: Incarnation,
        /// How many peers must answer.
        needed: usize,
    },
    /// They have answered; what they know as chosen is still to be learned.
    RecoveryLearns {
        /// The highest promise among them.
        promised: Ballot,
        /// Entries copied that are not known as chosen.
        copied: u64,
        /// Up to here they know all as chosen.
        chosen_upto: Slot,
    },
    /// This node votes again.
    Recovered {
        /// Under which life.
        incarnation: Incarnation,
        /// What its acceptor promises now.
        promised: Ballot,
    },
    /// The acceptor failed (fault injection).
    AcceptorFailed,
    /// The acceptor is back; it has read its state from the disk.
    AcceptorRestarted {
        /// What it had promised.
        promised: Ballot,
        /// How many accepted entries it read that are not known as chosen.
        accepted: u64,
    },
    /// This node catches up from a peer.
    CatchesUp {
        /// From whom.
        from: NodeId,
        /// First slot missing.
        first: Slot,
        /// Last slot known as chosen.
        last: Slot,
    },
    /// Leadership was offered to a peer on shutdown.
    HandsOver {
        /// To whom.
        to: NodeId,
    },
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerFault::TwoEntries { ballot, slot } => {
                write!(f, "PROPOSES A SECOND ENTRY for slot={slot} at ballot={ballot}")
            }
            PeerFault::OutOfReach { slot } => write!(f, "REPORTS slot={slot}, which is out of reach"),
        }
    }
}

impl Note {
    /// Whether somebody must look after it.
    pub fn is_alarm(&self) -> bool {
        matches!(
            self,
            Note::Forgetful { .. }
                | Note::PeerFault { .. }
                | Note::OtherConfig { .. }
                | Note::DigestsDiffer { .. }
                | Note::Diverged { .. }
        )
    }
}

/// Collects outputs, and knows how far the records among them are durable.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    outputs: Vec<Output>,
    written: u64,
    synced: u64,
}

impl Outbox {
    /// Asks for a record to be written.
    pub fn write(&mut self, write: Write) {
        self.written += 1;
        self.outputs.push(Output::Write(write));
    }

    /// Asks for a message to be sent.
    pub fn send(&mut self, to: NodeId, message: Message) {
        self.outputs.push(Output::Send { to, message });
    }

    /// Asks for anything else.
    pub fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Tells people.
    pub fn note(&mut self, note: Note) {
        self.outputs.push(Output::Note(note));
    }

    /// Counts a record that somebody else put into the same log.
    pub fn count_foreign_record(&mut self) {
        self.written += 1;
    }

    /// Number of the last record asked for.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Number of the last record that is durable.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Notes that all records up to number `up_to` are durable.
    pub fn note_synced(&mut self, up_to: u64) {
        assert!(up_to <= self.written, "synced {up_to} of {} records", self.written);
        self.synced = self.synced.max(up_to);
    }

    /// How much was collected and not taken yet.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether nothing was collected, or all was taken.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Takes what was collected, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Asks { attempt, reason } => write!(f, "asks for a pre-vote, attempt={attempt}: {reason}"),
            Note::Campaigns { ballot, from_slot } => write!(f, "candidate, ballot={ballot} from_slot={from_slot}"),
            Note::Leads {
                ballot,
                recovered,
                first_open,
            } => {
                write!(
                    f,
                    "leader, ballot={ballot} recovered={recovered} first_open={first_open}"
                )
            }
            Note::Follows { ballot } => write!(f, "follower of {}, ballot={ballot}", ballot.node),
            Note::StepsDown { ballot, reason } => write!(f, "steps down, ballot={ballot}: {reason}"),
            Note::LostElection {
                ballot,
                reason,
                backoff,
                tries,
            } => {
                write!(
                    f,
                    "election lost, ballot={ballot} tries={tries} backoff={}ms: {reason}",
                    backoff.as_millis()
                )
            }
            Note::LeaderLost { leader, reason } => write!(f, "leader {leader} lost: {reason}"),
            Note::Grants { ballot, length } => {
                write!(
                    f,
                    "grants {} leases of {}ms, ballot={ballot}",
                    ballot.node,
                    length.as_millis()
                )
            }
            Note::BoundByLease { ballot, holder, left } => {
                let left = left.as_millis();
                write!(
                    f,
                    "does not answer PREPARE ballot={ballot}: for {left}ms it is bound by "
                )?;
                match holder {
                    Some(holder) => write!(f, "the lease of {holder}"),
                    None => write!(f, "what it may have granted before it restarted"),
                }
            }
            Note::HoldsLease { ballot, left } => {
                write!(f, "holds a lease for {}ms, ballot={ballot}", left.as_millis())
            }
            Note::LeaseRanOut { ballot } => write!(f, "its lease ran out, ballot={ballot}"),
            Note::Forgetful { node, ballot, slot } => write!(
                f,
                "{node} lost its memory: it voted for slot={slot} at ballot={ballot} and does not show it; its votes are dropped"
            ),
            Note::PeerFault { peer, fault } => write!(f, "{peer} {fault}; its links are closed"),
            Note::OtherConfig { from, config, own } => write!(
                f,
                "{from} knows configuration {config}, this node {own}: what it proposes is dropped"
            ),
            Note::DigestsDiffer { slot, peer } => write!(
                f,
                "DIFFERS from {peer} at slot={slot}: one of the two states is wrong; serves nobody until a quorum shows which"
            ),
            Note::DigestsAgree { slot } => write!(f, "agrees with a quorum at slot={slot}: serves again"),
            Note::Diverged { slot } => write!(
                f,
                "DIVERGED at slot={slot}: a quorum has another state; serves, votes and leads no more: start it again, and \
                 if it diverges again, give it an empty data directory"
            ),
            Note::Recovers { incarnation, needed } => {
                write!(
                    f,
                    "recovers under incarnation {incarnation}, needs the answers of {needed} peers"
                )
            }
            Note::RecoveryLearns {
                promised,
                copied,
                chosen_upto,
            } => write!(
                f,
                "recovers: promised={promised} copied={copied}, learns what is chosen up to {chosen_upto}"
            ),
            Note::Recovered { incarnation, promised } => {
                write!(
                    f,
                    "recovered, votes again under incarnation {incarnation}, promised={promised}"
                )
            }
            Note::AcceptorFailed => write!(f, "acceptor failed"),
            Note::AcceptorRestarted { promised, accepted } => {
                write!(f, "acceptor restarted, promised={promised} accepted={accepted}")
            }
            Note::CatchesUp { from, first, last } => write!(f, "catches up from {from}, slots={first}..{last}"),
            Note::HandsOver { to } => write!(f, "hands leadership over to {to}"),
        }
    }
}
