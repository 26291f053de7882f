//! The book of a run: who could be counted on when, and the longest time without a write while a majority could.
//!
//! A *majority lives* while there are more than half of the nodes of which each runs, is not stopped, has its acceptor
//! up, and is linked with every other of them both ways. What is late or slow counts as alive, what is lossy does not.
//! A node counts from the moment at which its process was started: reading its log and finding a leader are on the
//! cluster's account, not on the faults'.
//!
//! Not here: what struck ([`super::plan`]); whether what was written stayed ([`crate::workload::check`]).

use std::collections::BTreeSet;
use std::time::Duration;

/// What cannot be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A node.
    Node(u16),
    /// What two nodes say to each other, in at least one direction.
    Link(u16, u16),
}

/// A time during which something could not be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outage {
    what: What,
    from: Duration,
    /// `None`: it is not over.
    to: Option<Duration>,
}

/// All outages of a run.
#[derive(Debug)]
pub struct Book {
    nodes: Vec<u16>,
    outages: Vec<Outage>,
}

impl Book {
    /// An empty book of a cluster.
    pub fn new(nodes: Vec<u16>) -> Book {
        Book {
            nodes,
            outages: Vec::new(),
        }
    }

    /// `what` is out from `from` to `to`, or until [`Book::back`] if that is not known yet.
    pub fn out(&mut self, what: What, from: Duration, to: Option<Duration>) {
        self.outages.push(Outage { what, from, to });
    }

    /// A node is back: what had no end for it ends now.
    pub fn back(&mut self, node: u16, at: Duration) {
        for outage in &mut self.outages {
            if outage.what == What::Node(node) && outage.to.is_none() {
                outage.to = Some(at);
            }
        }
    }

    /// Whether a node is out at a time.
    pub fn is_out(&self, node: u16, at: Duration) -> bool {
        self.at(at).any(|outage| outage.what == What::Node(node))
    }

    /// The longest time without one of `writes` (the times at which they were done, in order) while a majority lived,
    /// up to `end`; and when it began.
    pub fn longest_gap(&self, writes: &[Duration], end: Duration) -> (Duration, Duration) {
        let mut longest = (Duration::ZERO, Duration::ZERO);
        for (from, to) in self.living(end) {
            let first = writes.partition_point(|write| *write < from);
            let last = writes.partition_point(|write| *write <= to);
            let mut since = from;
            for until in writes[first..last].iter().copied().chain([to]) {
                longest = longest.max((until - since, since));
                since = until;
            }
        }
        longest
    }

    /// The times during which a majority lived, in order, up to `end`.
    fn living(&self, end: Duration) -> Vec<(Duration, Duration)> {
        let ends = self.outages.iter().filter_map(|outage| outage.to);
        let changes = self.outages.iter().map(|outage| outage.from).chain(ends);
        let mut times: BTreeSet<Duration> = changes.filter(|time| *time < end).collect();
        times.insert(Duration::ZERO);
        let times: Vec<Duration> = times.into_iter().chain([end]).collect();
        let mut spans: Vec<(Duration, Duration)> = Vec::new();
        for pair in times.windows(2) {
            if !self.has_majority(pair[0]) {
                continue;
            }
            match spans.last_mut() {
                Some((_, to)) if *to == pair[0] => *to = pair[1],
                _ => spans.push((pair[0], pair[1])),
            }
        }
        spans
    }

    fn at(&self, time: Duration) -> impl Iterator<Item = &Outage> {
        let is_now = move |outage: &&Outage| outage.from <= time && outage.to.is_none_or(|to| time < to);
        self.outages.iter().filter(is_now)
    }

    /// Whether more than half of the nodes can be counted on, each by each other, just after `time`.
    fn has_majority(&self, time: Duration) -> bool {
        let now: Vec<What> = self.at(time).map(|outage| outage.what).collect();
        let alive: Vec<u16> = self
            .nodes
            .iter()
            .copied()
            .filter(|node| !now.contains(&What::Node(*node)))
            .collect();
        let is_linked = |a: u16, b: u16| !now.contains(&What::Link(a, b)) && !now.contains(&What::Link(b, a));
        largest_clique(&alive, &is_linked) > self.nodes.len() / 2
    }
}

/// Size of the largest set of nodes that are linked each with each: with or without the first, and the rest.
fn largest_clique(nodes: &[u16], is_linked: &dyn Fn(u16, u16) -> bool) -> usize {
    let Some((first, rest)) = nodes.split_first() else {
        return 0;
    };
    let friends: Vec<u16> = rest.iter().copied().filter(|node| is_linked(*first, *node)).collect();
    let with = 1 + largest_clique(&friends, is_linked);
    // Without the first nothing larger is left unless it lacks a friend.
    if friends.len() == rest.len() {
        return with;
    }
    with.max(largest_clique(rest, is_linked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_without_a_majority_is_on_nobodys_account() {
        let mut book = Book::new((1..=3).collect());
        book.out(What::Node(1), s(2), Some(s(9)));
        book.out(What::Node(2), s(4), Some(s(8)));
        // From 4 to 8 nobody could write; from 8 to 10 somebody could, and did at 9.
        assert_eq!(book.longest_gap(&[s(1), s(2), s(3), s(9)], s(10)), (s(1), s(9)));
        assert_eq!(book.longest_gap(&[s(1), s(2), s(3)], s(10)), (s(2), s(8)));
        // Although the outages meet, the majority is always there.
        let mut book = Book::new((1..=3).collect());
        book.out(What::Node(1), s(1), Some(s(4)));
        book.out(What::Node(2), s(4), Some(s(8)));
        assert_eq!(book.longest_gap(&[s(1), s(7)], s(8)), (s(6), s(1)));
    }

    #[test]
    fn a_node_that_does_not_come_back_is_out_until_it_does() {
        let mut book = Book::new((1..=3).collect());
        book.out(What::Node(1), s(1), None);
        book.out(What::Node(3), s(1), None);
        assert_eq!(book.longest_gap(&[], s(10)), (s(1), s(0)));
        book.back(1, s(5));
        assert!(!book.is_out(1, s(6)) && book.is_out(3, s(6)));
        assert_eq!(book.longest_gap(&[], s(10)), (s(5), s(5)));
    }

    #[test]
    fn a_majority_must_be_linked_each_with_each() {
        // A ring of five: everybody hears two others, and no three hear each other.
        let mut book = Book::new((1..=5).collect());
        for (a, b) in [(1, 3), (2, 4), (3, 5), (4, 1), (5, 2)] {
            book.out(What::Link(a, b), s(0), None);
        }
        assert_eq!(book.longest_gap(&[], s(10)).0, s(0));
        // One cut link leaves two sets of four.
        let mut book = Book::new((1..=5).collect());
        book.out(What::Link(1, 2), s(0), None);
        assert_eq!(book.longest_gap(&[], s(10)).0, s(10));
    }
}
