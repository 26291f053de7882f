//! What a search must have met, or it proves little: a check that never had anything to look at is none.

use crate::node::{Envelope, Node, Step};
use crate::world::is_own;
use std::collections::BTreeSet;
use synod::paxos::{Ballot, EntryKind, Message, Slot, Stance, Write};

/// What was met.
pub(crate) type Sights = BTreeSet<Sight>;

/// Something worth to be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    /// A crash lost a promise that was written and not synced.
    CrashLosesPromise,
    /// A crash lost an acceptance that was written and not synced.
    CrashLosesAcceptance,
    /// A restarted node refuses what its earlier life has promised not to take.
    RefusesAfterRestart,
    /// A leader proposes what it found accepted at a lower ballot.
    Recovers,
    /// A leader fills a gap with a no-op.
    FillsGap,
    /// A leader or candidate gives way to a higher ballot.
    GivesWay,
    /// A follower learns by watermark.
    LearnsByWatermark,
    /// A watermark covers a slot that its receiver holds at another ballot: it proves nothing there.
    WatermarkProvesNothing,
    /// A node learns what it fetched.
    LearnsByFetching,
    /// All slots are chosen.
    AllChosen,
    /// A value that one ballot proposed first is chosen at a higher one.
    ChosenAtHigherBallot,
    /// A value is chosen at two ballots.
    ChosenTwice,
}

impl Sight {
    /// All of them.
    pub(crate) const ALL: [Sight; 12] = [
        Sight::CrashLosesPromise,
        Sight::CrashLosesAcceptance,
        Sight::RefusesAfterRestart,
        Sight::Recovers,
        Sight::FillsGap,
        Sight::GivesWay,
        Sight::LearnsByWatermark,
        Sight::WatermarkProvesNothing,
        Sight::LearnsByFetching,
        Sight::AllChosen,
        Sight::ChosenAtHigherBallot,
        Sight::ChosenTwice,
    ];
}

/// Looks at one step of one node.
pub(crate) fn look(
    before: &Node,
    step: Step,
    got: Option<&Message>,
    after: &Node,
    said: &[Envelope],
    met: &mut Sights,
) {
    if step == Step::Crash {
        met.extend(before.pending.iter().filter_map(|write| match write {
            Write::Promised(_) => Some(Sight::CrashLosesPromise),
            Write::Accepted { .. } => Some(Sight::CrashLosesAcceptance),
            Write::Used(_) | Write::Learned { .. } | Write::ChosenUpto(_) | Write::Copied { .. } | Write::Recovered => {
                None
            }
        }));
    }
    met.extend(said.iter().filter_map(|envelope| match &envelope.message {
        // At its disk's promise, and in a life that has promised nothing itself.
        Message::Nack { promised, .. } if before.crashes > 0 && before.promised == *promised => {
            Some(Sight::RefusesAfterRestart)
        }
        Message::Accept { entry, .. } if entry.kind == EntryKind::Noop => Some(Sight::FillsGap),
        Message::Accept { ballot, entry, .. } if !is_own(*ballot, entry) => Some(Sight::Recovers),
        _ => None,
    }));
    met.extend(got.and_then(|message| sight_of(before, message, after)));
}

/// What the arrival of `message` made of a node.
fn sight_of(before: &Node, message: &Message, after: &Node) -> Option<Sight> {
    let gives_way = before.replica.stance() != Stance::Follower && after.replica.stance() == Stance::Follower;
    let learns = after.replica.learner().highest() > before.replica.learner().highest();
    match message {
        _ if gives_way => Some(Sight::GivesWay),
        Message::Chosen { .. } if learns => Some(Sight::LearnsByFetching),
        Message::Heartbeat(_) | Message::Accept { .. } if learns => Some(Sight::LearnsByWatermark),
        Message::Heartbeat(told) if holds_older(before, told.ballot, told.chosen_upto) => {
            Some(Sight::WatermarkProvesNothing)
        }
        _ => None,
    }
}

/// Whether `node` holds a slot up to `upto` that it accepted at another ballot than `ballot`.
fn holds_older(node: &Node, ballot: Ballot, upto: Slot) -> bool {
    let votes = node
        .replica
        .acceptor()
        .into_iter()
        .flat_map(|acceptor| acceptor.votes_from(Slot(1)));
    votes
        .into_iter()
        .any(|(slot, vote)| slot <= upto && vote.ballot != ballot)
}
