//! The rules that lessons break: one switch each, all of them kept in a node.
//!
//! Paxos is short, and each of its sentences is there for a reason. The best way to see the reason is to leave the
//! sentence out: the simulator (`crate::sim`) and scenarios run the very code of the node with one of these rules broken,
//! and show what went wrong (`docs/lessons.md`, `make lessons`). Invariants:
//! * K1. A node that serves keeps them all: it is built with [`Rules::KEPT`], no flag or message reaches this value, and
//!   it is set in `node::run`, whatever else is asked for.
//! * K2. A rule is broken where it lives, by a line or two beside the line that keeps it.
//!
//! Not here: what breaks when (`crate::sim::lessons`); rules whose breaking would need other code, not less of it.

use std::fmt;

/// Which rules are kept. True: kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A promise is told only after it was synced. Else an acceptor that loses power forgets what it has promised, votes
    /// for an older ballot, and two quorums choose two entries.
    pub sync_before_promise: bool,
    /// A restarted node knows the ballot that it had promised. Else it votes below its own promise, where the leader
    /// that counted the promise has looked already.
    pub promise_survives_restart: bool,
    /// A quorum is made of voters: a vote that arrives twice counts once. Else one acceptor and its echo "choose" an entry
    /// that the next leader need not find.
    pub count_votes_once: bool,
    /// A quorum is at least a majority, so that any two of them share a node. Else two leaders each find a quorum that
    /// knows nothing of the other.
    pub majority: bool,
    /// Phase 1 takes, for each slot, the entry of the highest ballot. Else an entry that lost long ago comes back over one
    /// that was chosen.
    pub highest_ballot_wins: bool,
    /// A ballot is used once, also across restarts: the next one is above all that stand on the disk. Else two lives of one
    /// node propose two entries under one name, and nobody can tell their votes apart.
    pub use_ballots_once: bool,
    /// A leader's watermark proves only what was accepted at that leader's ballot. Else a follower takes as chosen what an
    /// older leader had proposed in vain.
    pub compare_ballots: bool,
    /// A read is answered only when a quorum has said that no other node leads. Else a deposed leader, which does not know
    /// it yet, answers with what was true once.
    pub confirm_reads: bool,
    /// A new leader reads only when all that phase 1 found is applied. Else it misses what the leader before it has
    /// acknowledged.
    pub recover_before_reads: bool,
    /// A node that does not lead answers a read from its own state only when that has reached the position that the leader
    /// told after the read had arrived. Else it answers with whatever it happens to have applied.
    pub ask_for_position: bool,
    /// A leader's lease counts from before its round was sent. Else the time that answers take on their way is counted twice,
    /// and it reads by a lease that its acceptors take for over.
    pub lease_from_sending: bool,
    /// An acceptor that restarts waits for the leases that it may have granted and forgotten. Else it helps another to lead
    /// while their holder still reads.
    pub wait_for_leases: bool,
    /// A repeated write is answered with the reply of its first time. Else a client that asks again, because an answer was
    /// lost, has its write done twice.
    pub run_writes_once: bool,
    /// Sessions expire by the log's own time, which is the same for all. Else each node ends them when its own clock says
    /// so, and their states part.
    pub expire_by_log_time: bool,
    /// Entries are applied in slot order; a hole is waited for. Else a state comes out that no order of the log makes.
    pub apply_without_holes: bool,
    /// A node that lost its memory votes only when peers have shown it what it may have promised. Else an empty directory
    /// votes as one that promised nothing, and two quorums choose two entries.
    pub recover_before_votes: bool,
    /// Only a peer whose own memory is whole shows another what it may have promised. Else two nodes that both forgot
    /// assure each other that there was nothing.
    pub recover_from_the_whole: bool,
    /// What a forgotten life voted is not counted any more, once somebody tells of a newer one. Else a late promise of the
    /// old life hides what the new one has helped to choose.
    pub drop_forgotten_votes: bool,
    /// More votes than a majority are a quorum, too. Else a cluster in which everybody is well serves nobody. (Liveness.)
    pub more_than_majority: bool,
    /// Who loses an election waits before the next, longer each time. Else candidates go on refusing each other, or asking
    /// those who say no. (Liveness.)
    pub backoff: bool,
    /// Who hears no leader asks whether others would follow before it takes a new ballot. Else a node that was cut off comes
    /// back with a high ballot and deposes a leader that served everybody else. (Liveness.)
    pub pre_vote: bool,
}

/// There is no rule of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRule {
    /// The name.
    pub name: String,
}

/// Where a rule's switch is.
type Switch = fn(&mut Rules) -> &mut bool;

/// Every rule by name, in the order of a ballot's life: promises, votes, learning, reads, clients, liveness.
const SWITCHES: [(&str, Switch); 21] = [
    ("sync-before-promise", |rules| &mut rules.sync_before_promise),
    ("promise-survives-restart", |rules| &mut rules.promise_survives_restart),
    ("use-ballots-once", |rules| &mut rules.use_ballots_once),
    ("highest-ballot-wins", |rules| &mut rules.highest_ballot_wins),
    ("count-votes-once", |rules| &mut rules.count_votes_once),
    ("majority", |rules| &mut rules.majority),
    ("compare-ballots", |rules| &mut rules.compare_ballots),
    ("apply-without-holes", |rules| &mut rules.apply_without_holes),
    ("confirm-reads", |rules| &mut rules.confirm_reads),
    ("recover-before-reads", |rules| &mut rules.recover_before_reads),
    ("ask-for-position", |rules| &mut rules.ask_for_position),
    ("lease-from-sending", |rules| &mut rules.lease_from_sending),
    ("wait-for-leases", |rules| &mut rules.wait_for_leases),
    ("run-writes-once", |rules| &mut rules.run_writes_once),
    ("expire-by-log-time", |rules| &mut rules.expire_by_log_time),
    ("recover-before-votes", |rules| &mut rules.recover_before_votes),
    ("recover-from-the-whole", |rules| &mut rules.recover_from_the_whole),
    ("drop-forgotten-votes", |rules| &mut rules.drop_forgotten_votes),
    ("more-than-majority", |rules| &mut rules.more_than_majority),
    ("backoff", |rules| &mut rules.backoff),
    ("pre-vote", |rules| &mut rules.pre_vote),
];

impl Rules {
    /// All rules kept: a node's build.
    pub const KEPT: Rules = Rules {
        sync_before_promise: true,
        promise_survives_restart: true,
        count_votes_once: true,
        majority: true,
        highest_ballot_wins: true,
        use_ballots_once: true,
        compare_ballots: true,
        confirm_reads: true,
        recover_before_reads: true,
        ask_for_position: true,
        lease_from_sending: true,
        wait_for_leases: true,
        run_writes_once: true,
        expire_by_log_time: true,
        apply_without_holes: true,
        recover_before_votes: true,
        recover_from_the_whole: true,
        drop_forgotten_votes: true,
        more_than_majority: true,
        backoff: true,
        pre_vote: true,
    };

    /// The names of all rules.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SWITCHES.iter().map(|(name, _)| *name)
    }

    /// These rules, the one of this name broken.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn without(mut self, name: &str) -> Result<Rules, UnknownRule> {
        let found = SWITCHES.iter().find(|(known, _)| *known == name);
        let (_, switch) = found.ok_or_else(|| UnknownRule { name: name.into() })?;
        *switch(&mut self) = false;
        Ok(self)
    }

    /// The names of the rules that are broken.
    pub fn broken(mut self) -> Vec<&'static str> {
        let broken = SWITCHES.iter().filter(|(_, switch)| !*switch(&mut self));
        broken.map(|(name, _)| *name).collect()
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::KEPT
    }
}

impl fmt::Display for UnknownRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Rules::names().collect();
        write!(f, "there is no rule {:?}; rules are: {}", self.name, names.join(", "))
    }
}

impl std::error::Error for UnknownRule {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_and_a_switch_of_its_own() {
        assert!(Rules::KEPT.broken().is_empty());
        for name in Rules::names() {
            let rules = Rules::KEPT.without(name).expect("it is a rule's name");
            assert_eq!(rules.broken(), [name]);
        }
        let all = Rules::names().try_fold(Rules::KEPT, Rules::without);
        assert_eq!(all.expect("all are rules").broken().len(), SWITCHES.len());
        assert!(Rules::KEPT.without("golden").is_err());
    }
}
