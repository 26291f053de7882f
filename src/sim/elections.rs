//! The judge's books of elections: what promises showed, who was let stand up, whom a quorum follows, who cannot wait.
//!
//! Rules, by the names that a violation carries:
//! * `phase 1`: a proposer takes what the highest ballot had accepted, among the promises of some quorum that reached it.
//! * `deposed`: a leader that a quorum follows is deposed only by a node that a quorum let stand up (pre-vote), or by the
//!   one that it handed over to. Else a node that comes back from a partition would end every leadership.
//! * `backoff`: who loses one election after the other waits between them.
//!
//! The last two are of liveness: breaking them makes no answer wrong, and in the end somebody may even lead. So they are
//! looked at where they happen, for the finale would only see the worst of it.
//!
//! Not here: whether ballots are used once, and what they make chosen ([`super::checks`]).

use super::checks::Judged;
use super::report::Violation;
use crate::paxos::message::Promise;
use crate::paxos::{Ballot, Entry, Message, NodeId, Note, Slot};
use crate::time::Time;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// A leader is followed by whoever answered its heartbeat so lately.
const FOLLOWED_WITHIN: Duration = Duration::from_millis(100);
/// So many elections lost in a row must take a while. With backoff all waits but the first five are drawn from up to a
/// second: the chance that twenty of them sum up to less than two is 2^20 / 20!, far below one in 10^12.
const LOST_IN_A_ROW: u32 = 25;
/// See `LOST_IN_A_ROW`; by the clock of the node.
const LOST_TOO_FAST: Duration = Duration::from_secs(2);
/// Stands for the ballot of what a promise shows as chosen.
const CHOSEN: Ballot = Ballot {
    round: u64::MAX,
    node: NodeId(u16::MAX),
};

/// The books.
#[derive(Debug)]
pub(super) struct Elections {
    quorum: usize,
    /// By place of the node.
    nodes: Vec<Standing>,
    /// Of each ballot that was prepared, whether its proposer had been let stand up.
    prepared: BTreeMap<Ballot, bool>,
    /// What promises told the proposer of a ballot, by node.
    told: BTreeMap<Ballot, BTreeMap<NodeId, Told>>,
}

/// One node as a candidate, leader or follower.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// Who said yes to which of its questions, since it prepared a ballot.
    let_by: BTreeMap<u32, u64>,
    /// A leader has asked it to lead.
    is_asked: bool,
    /// Whether it leads, or did when it went for a higher ballot.
    leads: bool,
    /// The last heartbeat that it answered.
    followed: (Ballot, Time),
    /// When the row of elections that it lost began, by its own clock.
    loses_since: Time,
    /// How often it was given a reason not to wait since then.
    hastened: u32,
}

/// One acceptor's promise, as far as it arrived.
#[derive(Debug, Default)]
struct Told {
    is_whole: bool,
    accepted: BTreeMap<Slot, (Ballot, u32)>,
}

impl Elections {
    pub(super) fn new(nodes: usize) -> Elections {
        Elections {
            quorum: nodes / 2 + 1,
            nodes: vec![Standing::default(); nodes],
            prepared: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn standing(&mut self, node: NodeId) -> &mut Standing {
        &mut self.nodes[usize::from(node.0) - 1]
    }

    /// A node starts: nothing of its earlier life goes on.
    pub(super) fn starts(&mut self, node: NodeId) {
        *self.standing(node) = Standing::default();
    }

    /// A link to another came up, or another's process is gone: a reason not to wait.
    pub(super) fn hastens(&mut self, node: NodeId) {
        self.standing(node).hastened += 1;
    }

    /// A node says something to a peer.
    pub(super) fn says(&mut self, node: NodeId, to: NodeId, message: &Message, now: Time) {
        match message {
            Message::PreVoteAnswer {
                attempt, granted: true, ..
            } => *self.standing(to).let_by.entry(*attempt).or_default() |= 1 << node.0,
            Message::HandOver { .. } => self.standing(to).is_asked = true,
            Message::Prepare { ballot, .. } if !self.prepared.contains_key(ballot) => self.prepares(node, *ballot),
            Message::HeartbeatAck(ack) => self.standing(node).followed = (ack.ballot, now),
            _ => {}
        }
    }

    fn prepares(&mut self, node: NodeId, ballot: Ballot) {
        let quorum = self.quorum as u32;
        let candidate = self.standing(node);
        // Its own yes was not said aloud.
        let is_let = |by: &u64| (by | 1 << node.0).count_ones() >= quorum;
        // Who leads may go on to a higher ballot without a question (`rules.md` 6).
        let is_let = candidate.let_by.values().any(is_let) || candidate.is_asked || candidate.leads;
        candidate.let_by.clear();
        candidate.is_asked = false;
        self.prepared.insert(ballot, is_let);
        self.told.retain(|before, _| before.node != node);
    }

    /// A part of a promise reaches the proposer.
    pub(super) fn hears(&mut self, node: NodeId, from: NodeId, promise: &Promise) {
        if promise.ballot.node != node {
            return;
        }
        let told = self.told.entry(promise.ballot).or_default().entry(from).or_default();
        told.is_whole |= promise.is_last;
        for accepted in &promise.accepted {
            let ballot = if accepted.chosen { CHOSEN } else { accepted.ballot };
            told.accepted.insert(accepted.slot, (ballot, accepted.entry.crc));
        }
    }

    /// A proposer's first ACCEPT for a slot; `own` is what its own acceptor holds there.
    ///
    /// # Errors
    /// There is no quorum whose promises allow this entry.
    pub(super) fn proposes(&self, slot: Slot, ballot: Ballot, entry: &Entry, own: Option<(Ballot, u32)>) -> Judged {
        let told = self.told.get(&ballot).into_iter().flat_map(BTreeMap::values);
        let whole = told.filter(|told| told.is_whole);
        let mut shown: Vec<Option<(Ballot, u32)>> = whole.map(|told| told.accepted.get(&slot).copied()).collect();
        shown.push(own);
        // The largest quorum that may have been counted: those who show nothing above the entry's own acceptance.
        let same = shown.iter().flatten().filter(|(_, crc)| *crc == entry.crc);
        let accepted_at = same.map(|(ballot, _)| *ballot).max().unwrap_or(Ballot::ZERO);
        let allow = shown
            .iter()
            .filter(|shown| shown.is_none_or(|(ballot, _)| ballot <= accepted_at));
        if allow.count() >= self.quorum {
            return Ok(());
        }
        let highest = shown.iter().flatten().map(|(ballot, _)| *ballot).max();
        let why = match highest {
            Some(highest) if shown.len() >= self.quorum => format!("promises show another one accepted at {highest}"),
            _ => format!("at most {} of its quorum have promised", shown.len()),
        };
        let words = format!(
            "{} proposes {entry} for slot {slot} at {ballot}, and {why}",
            ballot.node
        );
        let rule = "phase 1";
        Err(Violation { rule, words })
    }

    /// What a node says of itself; `local` is its own clock.
    ///
    /// # Errors
    /// It was deposed by one that nobody let, or it does not wait.
    pub(super) fn notes(&mut self, node: NodeId, note: &Note, now: Time, local: Time) -> Judged {
        match note {
            Note::Leads { .. } => self.standing(node).leads = true,
            Note::StepsDown { ballot, .. } => {
                self.standing(node).leads = false;
                return self.is_deposed(*ballot, now);
            }
            Note::LostElection { tries, .. } => return self.loses(node, *tries, local),
            _ => {}
        }
        Ok(())
    }

    fn is_deposed(&self, ballot: Ballot, now: Time) -> Judged {
        let follows =
            |standing: &&Standing| standing.followed.0 == ballot && now.since(standing.followed.1) <= FOLLOWED_WITHIN;
        let followers = self.nodes.iter().filter(follows).count();
        let mut above = self.prepared.range((Excluded(ballot), Unbounded));
        let Some((highest, _)) = above.clone().next_back() else {
            return Ok(());
        };
        if followers + 1 < self.quorum || above.any(|(_, is_let)| *is_let) {
            return Ok(());
        }
        Err(Violation {
            rule: "deposed",
            words: format!(
                "{} leads at {ballot}, followed by {followers}, and is deposed by {highest}; no quorum had let {} stand up",
                ballot.node, highest.node
            ),
        })
    }

    fn loses(&mut self, node: NodeId, tries: u32, local: Time) -> Judged {
        let loser = self.standing(node);
        loser.leads = false;
        if tries <= 1 {
            (loser.loses_since, loser.hastened) = (local, 0);
        }
        let took = local.since(loser.loses_since);
        if tries < LOST_IN_A_ROW + loser.hastened || took >= LOST_TOO_FAST {
            return Ok(());
        }
        Err(Violation {
            rule: "backoff",
            words: format!("{node} has lost {tries} elections in a row, within {took:?}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::message::AcceptedEntry;
    use crate::paxos::testing::{ballot, entry};
    use crate::paxos::{Incarnation, LogTime, Voter};

    fn promise(at: Ballot, accepted: Vec<AcceptedEntry>) -> Promise {
        Promise {
            ballot: at,
            attempt: 1,
            first: Slot(1),
            last: Slot(1),
            is_last: true,
            chosen_upto: Slot::ZERO,
            log_time: LogTime(0),
            voter: Voter {
                incarnation: Incarnation::default(),
                generations: [].into(),
            },
            accepted,
        }
    }

    #[test]
    fn of_the_promises_that_arrived_some_quorum_must_allow_an_entry() {
        let mut elections = Elections::new(3);
        let (old, new, mine) = (entry(b"old"), entry(b"new"), entry(b"mine"));
        let accepted = AcceptedEntry {
            slot: Slot(1),
            ballot: ballot(2, 2),
            chosen: false,
            entry: new.clone(),
        };
        elections.hears(NodeId(1), NodeId(2), &promise(ballot(3, 1), vec![accepted]));
        let own = Some((ballot(1, 1), old.crc));
        let judge = |elections: &Elections, entry| elections.proposes(Slot(1), ballot(3, 1), entry, own).is_ok();
        assert!(judge(&elections, &new));
        assert!(!judge(&elections, &old), "2.2 is above 1.1");
        assert!(!judge(&elections, &mine), "the slot is not free");
        elections.hears(NodeId(1), NodeId(3), &promise(ballot(3, 1), vec![]));
        assert!(judge(&elections, &old), "n1 and n3 are a quorum, too");
        assert!(!judge(&elections, &mine));
    }
}
