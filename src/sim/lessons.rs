//! Lessons: one rule broken at a time, in a small world that shows well what comes of it.
//!
//! Each lesson breaks one of [`Rules`] and runs seeds of its own world until the judge notices; that run is made small
//! ([`shrink`](super::shrink)) and told. With the rule kept, the same seed holds: what went wrong went wrong for want of
//! that rule. So lessons are for people who learn, and they prove that the judge's questions can be answered with no.
//!
//! `docs/lessons.md` is made of this table (`make lessons-page`); `docs/testing.md` says how to add to it.
//!
//! Not here: where a rule is kept and broken (`crate::rules`, and a search for its name), printing (`cli::lesson`).

mod page;

pub use page::page;

use super::faults::{Fault, FaultSet};
use super::options::Options;
use super::report::Violation;
use super::shrink::{Budget, Smallest, shrink};
use super::{Transcript, attempt};
use crate::rules::Rules;
use std::time::Duration;

/// One rule, what goes wrong without it, and the world in which that shows.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// The name of the rule.
    pub name: &'static str,
    /// The rule, as one would tell it to somebody.
    pub rule: &'static str,
    /// What the nodes of the lesson do instead.
    pub broken: &'static str,
    /// What to look for in the story.
    pub look: &'static str,
    /// The rule of the judge by which the run fails.
    pub shows: &'static str,
    /// One of these seeds fails: `1..=seeds`.
    pub seeds: u64,
    nodes: usize,
    faults: &'static [Fault],
    /// Length of the cluster's leases; zero: it has none.
    read_lease: Duration,
    storm_s: u64,
    /// Rules of the judge that fail earlier, and show less.
    overlook: &'static [&'static str],
}

/// Every lesson, in the order of [`Rules::names`]. From when on a lease counts has none yet: a script shows that.
pub const LESSONS: [Lesson; 20] = [
    Lesson {
        name: "sync-before-promise",
        rule: "An acceptor syncs a promise before it tells of it.",
        broken: "PROMISE leaves before the sync.",
        look: "A node promises a ballot, and loses its power before the promise is on its disk. Back again it knows only an \
               older ballot, and would vote for it; but a leader already counts on the promise.",
        shows: "no fall",
        seeds: 300,
        nodes: 3,
        faults: &[Fault::PowerCutInOperation, Fault::PowerCut, Fault::SlowDisk],
        read_lease: Duration::ZERO,
        storm_s: 6,
        overlook: &["claims"],
    },
    Lesson {
        name: "promise-survives-restart",
        rule: "A node that restarts reads back the ballot that it had promised, and keeps to it.",
        broken: "The records of promises on the disk are skipped at the start.",
        look: "A node promises a ballot and restarts. Then an older leader asks it to accept, and it does, below its own \
               promise: what the promise told the new leader is not true any more.",
        shows: "promise",
        seeds: 150,
        nodes: 3,
        faults: &[Fault::Kill, Fault::CutOneWay],
        read_lease: Duration::ZERO,
        storm_s: 30,
        overlook: &["no fall", "claims"],
    },
    Lesson {
        name: "use-ballots-once",
        rule: "A ballot is used once, also across restarts: the next one is above all that stand on the disk.",
        broken: "A node that restarts counts its ballots from what it hears, not from what is on its disk.",
        look: "A node is a candidate with a ballot, restarts, hears nobody, and is a candidate with the same ballot again. \
               Answers to its first life now count for its second.",
        shows: "ballots",
        seeds: 40,
        nodes: 3,
        faults: &[Fault::Kill],
        read_lease: Duration::ZERO,
        storm_s: 4,
        overlook: &[],
    },
    Lesson {
        name: "highest-ballot-wins",
        rule: "Of what a quorum of promises shows for a slot, a new leader proposes the entry accepted at the highest ballot.",
        broken: "It proposes the entry that the first of the promises shows.",
        look: "Two nodes hold different entries for one slot, accepted at different ballots. The newer one may be chosen \
               already; the new leader takes the older one, and the slot has two.",
        shows: "phase 1",
        seeds: 600,
        nodes: 3,
        faults: &[Fault::AcceptorFailure, Fault::LongDelay, Fault::CutOneWay, Fault::Kill],
        read_lease: Duration::ZERO,
        storm_s: 30,
        overlook: &[],
    },
    Lesson {
        name: "count-votes-once",
        rule: "A quorum is a set of distinct nodes: a vote that arrives twice counts once.",
        broken: "Every ACCEPTED counts, whoever sent it.",
        look: "The network doubles an ACCEPTED, and the leader takes the slot as chosen with the votes of fewer nodes than a \
               majority. A next leader need not meet any of them.",
        shows: "replies",
        seeds: 60,
        nodes: 5,
        faults: &[Fault::Duplicate, Fault::Loss, Fault::CutOneWay, Fault::CutBothWays],
        read_lease: Duration::ZERO,
        storm_s: 20,
        overlook: &["chosen"],
    },
    Lesson {
        name: "majority",
        rule: "A quorum is at least a majority, so that any two quorums share a node.",
        broken: "One node less is enough.",
        look: "A node alone is its own quorum: it leads, accepts, and calls its entry chosen, whatever the others choose.",
        shows: "chosen",
        seeds: 10,
        nodes: 3,
        faults: &[Fault::Partition],
        read_lease: Duration::ZERO,
        storm_s: 5,
        overlook: &["phase 1"],
    },
    Lesson {
        name: "compare-ballots",
        rule: "A leader's watermark proves only what was accepted at that leader's own ballot.",
        broken: "A follower takes as chosen whatever it has accepted up to the watermark, at any ballot.",
        look: "A follower still holds what an older leader had proposed in vain. The new leader's watermark passes that slot, \
               and the follower takes the old entry as the chosen one.",
        shows: "chosen",
        seeds: 300,
        nodes: 3,
        faults: &[Fault::CutOneWay, Fault::CutBothWays, Fault::Partition, Fault::Loss],
        read_lease: Duration::ZERO,
        storm_s: 4,
        overlook: &[],
    },
    Lesson {
        name: "apply-without-holes",
        rule: "Entries are applied in the order of their slots; a hole is waited for.",
        broken: "What is known as chosen behind a hole is applied at once.",
        look: "A node learns a slot before the one in front of it, and applies it. Its state is one that no other node ever \
               has.",
        shows: "digest",
        seeds: 20,
        nodes: 3,
        faults: &[Fault::Loss, Fault::Reorder],
        read_lease: Duration::ZERO,
        storm_s: 5,
        overlook: &[],
    },
    Lesson {
        name: "confirm-reads",
        rule: "A leader answers a read only when a quorum has confirmed that it still leads.",
        broken: "A node that takes itself for the leader answers at once.",
        look: "A leader stands still for a while. When it goes on, it does not know that the others have given it up and have a \
               new leader, which has acknowledged a write. It answers a read with the state from before that write.",
        shows: "reads",
        seeds: 600,
        nodes: 3,
        faults: &[Fault::Pause, Fault::CutOneWay],
        read_lease: Duration::ZERO,
        storm_s: 6,
        overlook: &[],
    },
    Lesson {
        name: "recover-before-reads",
        rule: "A new leader answers reads only when it has applied all that its phase 1 found.",
        broken: "It answers with what it has applied when it is elected.",
        look: "The old leader has acknowledged a write and is gone. The new one holds that write, but does not know yet that it \
               is chosen, and answers a read without it.",
        shows: "reads",
        seeds: 200,
        nodes: 3,
        faults: &[Fault::Kill, Fault::Loss],
        read_lease: Duration::ZERO,
        storm_s: 15,
        overlook: &[],
    },
    Lesson {
        name: "ask-for-position",
        rule: "A follower answers a read from its own state only once that has reached the position which the leader told after \
               the read had arrived.",
        broken: "It answers with what it has applied so far.",
        look: "A write is acknowledged by the leader and one follower. The other has not heard yet that it is chosen, and \
               answers a read with the state from before that write.",
        shows: "reads",
        seeds: 20,
        nodes: 3,
        faults: &[],
        read_lease: Duration::ZERO,
        storm_s: 2,
        overlook: &[],
    },
    Lesson {
        name: "wait-for-leases",
        rule: "An acceptor that restarts waits as long as a lease lasts before it helps anybody to lead: it may have granted one.",
        broken: "It promises at once.",
        look: "A leader reads by its lease while only clients reach it. The others restart and have forgotten what they granted; \
               one of them leads and acknowledges a write, of which the old leader knows nothing when it answers the next read.",
        shows: "reads",
        seeds: 60,
        nodes: 3,
        faults: &[Fault::RestartAround],
        read_lease: Duration::from_secs(1),
        storm_s: 4,
        overlook: &[],
    },
    Lesson {
        name: "run-writes-once",
        rule: "A write that is in the log a second time is answered with the result of its first time, and changes nothing.",
        broken: "It is run again.",
        look: "A client's answer is lost, so it asks again; both copies of its write are chosen, in two slots, and both run.",
        shows: "replies",
        seeds: 300,
        nodes: 3,
        faults: &[Fault::Kill, Fault::CutClient, Fault::LateDuplicate],
        read_lease: Duration::ZERO,
        storm_s: 5,
        overlook: &["digest", "digests"],
    },
    Lesson {
        name: "expire-by-log-time",
        rule: "A session expires by the time that stands in the log, which is the same on every node.",
        broken: "Each node looks at its own clock.",
        look: "The clocks of two machines are apart, as clocks are. One of them ends a session that the other keeps, and from \
               that slot on their states differ.",
        shows: "digest",
        seeds: 20,
        nodes: 3,
        faults: &[],
        read_lease: Duration::ZERO,
        storm_s: 2,
        overlook: &["digests"],
    },
    Lesson {
        name: "recover-before-votes",
        rule: "A node that lost its memory votes only when peers have shown it what it may have promised.",
        broken: "It votes at once, as one that has promised nothing.",
        look: "A node helps to choose an entry, and its directory is emptied. It promises a new leader that it has accepted \
               nothing, and another entry is chosen in the same slot.",
        shows: "one value",
        seeds: 100,
        nodes: 3,
        faults: &[Fault::EmptyDirectory, Fault::CutOneWay, Fault::Kill, Fault::Loss],
        read_lease: Duration::ZERO,
        storm_s: 10,
        overlook: &["ballots", "log time", "no fall"],
    },
    Lesson {
        name: "recover-from-the-whole",
        rule: "Only a peer whose own memory is whole shows another what it may have promised.",
        broken: "Whoever is asked answers, also while it recovers itself.",
        look: "Two nodes lose their memory, and each is told by the other that there was nothing to remember.",
        shows: "memory",
        seeds: 100,
        nodes: 5,
        faults: &[Fault::EmptyDirectory, Fault::CutOneWay, Fault::Kill, Fault::Loss],
        read_lease: Duration::ZERO,
        storm_s: 10,
        overlook: &[],
    },
    Lesson {
        name: "drop-forgotten-votes",
        rule: "Once a node is known to have a new life, what its forgotten one voted counts no more.",
        broken: "A leader goes on counting it.",
        look: "A leader has the vote of a node that then loses its directory. The empty node asks its peers, and none of them \
               shows that vote, for they did not hear the leader. Then one more accepts the entry, and with the forgotten vote \
               the leader takes it as chosen and tells its client so; a next leader need not meet anybody who knows of it.",
        shows: "replies",
        seeds: 200,
        nodes: 5,
        faults: &[Fault::LostVote],
        read_lease: Duration::ZERO,
        storm_s: 4,
        overlook: &[],
    },
    Lesson {
        name: "more-than-majority",
        rule: "More votes than a majority are a quorum, too.",
        broken: "Only exactly a majority is one.",
        look: "Nothing is wrong with anybody. So the leader hears three of three, which are not two of three, and steps down, \
               again and again: the cluster serves only while a node is down.",
        shows: "liveness",
        seeds: 10,
        nodes: 3,
        faults: &[],
        read_lease: Duration::ZERO,
        storm_s: 1,
        overlook: &[],
    },
    Lesson {
        name: "backoff",
        rule: "Who loses an election waits before it tries again, longer each time.",
        broken: "It tries again at once.",
        look: "A node that does not hear the leader asks the others whether they would follow it. They hear the leader and \
               say no; it asks again, without end and without a pause.",
        shows: "backoff",
        seeds: 150,
        nodes: 3,
        faults: &[Fault::CutOneWay],
        read_lease: Duration::ZERO,
        storm_s: 20,
        overlook: &[],
    },
    Lesson {
        name: "pre-vote",
        rule: "Who hears no leader asks whether a quorum would follow it, before it takes a new ballot.",
        broken: "It takes a new ballot at once.",
        look: "A node is cut off for a while, and goes through one ballot after the other. When it is back, its high ballot \
               ends the work of a leader that everybody else was following.",
        shows: "deposed",
        seeds: 100,
        nodes: 3,
        faults: &[Fault::CutOneWay, Fault::CutBothWays, Fault::Partition],
        read_lease: Duration::ZERO,
        storm_s: 5,
        overlook: &[],
    },
];

impl Lesson {
    /// The lesson of this name.
    pub fn named(name: &str) -> Option<&'static Lesson> {
        LESSONS.iter().find(|lesson| lesson.name == name)
    }

    /// The world of a seed in which the rule is broken.
    ///
    /// # Panics
    /// If there is no rule of the lesson's name; a test looks at all of them.
    pub fn options(&self, seed: u64) -> Options {
        let rules = Rules::KEPT.without(self.name).expect("a lesson has the name of a rule");
        Options {
            rules,
            ..self.kept(seed)
        }
    }

    /// The same world, all rules kept.
    pub fn kept(&self, seed: u64) -> Options {
        Options {
            nodes: Some(self.nodes),
            read_lease: Some(self.read_lease),
            faults: self.faults.iter().copied().fold(FaultSet::NONE, FaultSet::with),
            storm: Duration::from_secs(self.storm_s),
            overlook: self.overlook.iter().map(ToString::to_string).collect(),
            ..Options::new(seed)
        }
    }

    /// The first seed whose world fails by what the lesson shows, and how. `None`: nobody notices that the rule is broken.
    pub fn find(&self) -> Option<(u64, Violation)> {
        (1..=self.seeds).find_map(|seed| {
            let violation = attempt(&self.options(seed), &Transcript::default()).err()?;
            // What follows from it may be noticed first: then another seed shows it better.
            (violation.rule == self.shows).then_some((seed, violation))
        })
    }

    /// Whether a seed holds when the rule is kept.
    pub fn holds(&self, seed: u64) -> bool {
        attempt(&self.kept(seed), &Transcript::default()).is_ok()
    }

    /// The smallest run that shows the lesson. `progress` is told a line now and then. `None`: nobody notices.
    pub fn run(&self, progress: &mut dyn FnMut(&str)) -> Option<Smallest> {
        let (seed, _) = self.find()?;
        let budget = Budget {
            nodes_min: self.nodes,
            ..Budget::default()
        };
        shrink(&self.options(seed), budget, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::words::RULES;

    #[test]
    fn every_rule_but_one_of_leases_has_one_lesson_and_the_list_has_its_order() {
        let names: Vec<&str> = LESSONS.iter().map(|lesson| lesson.name).collect();
        let taught = Rules::names().filter(|name| *name != "lease-from-sending");
        assert_eq!(names, taught.collect::<Vec<_>>());
        for lesson in &LESSONS {
            let judged = lesson.overlook.iter().chain([&lesson.shows]);
            for rule in judged {
                assert!(RULES.iter().any(|(name, _)| name == rule), "{}: {rule}", lesson.name);
            }
            assert_eq!(lesson.options(1).rules.broken(), [lesson.name]);
            assert_eq!(lesson.kept(1).rules, Rules::KEPT);
        }
    }
}
