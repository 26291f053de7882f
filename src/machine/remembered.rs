//! What this node remembers of its peers: the newest life and start of each that it met (`rules.md` 2).
//!
//! That is the evidence by which a peer that lost its memory finds out. Invariants:
//! * F5. A life or start takes the place of the one before only when its node has sent a frame behind its HELLO, on the same
//!   connection, and so has read what was remembered until then. An old copy of a directory whose handshake breaks wipes out
//!   no evidence, nor does what the process before it has sent on another connection.
//! * F6. One directory counts its starts up: what comes with as low a count and another token changes nothing.

use crate::paxos::{Incarnation, Life, NodeId};
use crate::wire::Record;
use std::collections::BTreeMap;

/// The peers that this node met, in this process or before.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    peers: BTreeMap<NodeId, Known>,
    /// F5: what a HELLO said on a connection on which nothing came behind it yet; by whether the node dialled that itself.
    greeted: BTreeMap<(NodeId, bool), Life>,
}

/// A life and start, and the record that keeps it; 0 once that was seen to be durable.
#[derive(Clone, Copy, Debug)]
struct Known {
    life: Life,
    record: u64,
}

impl Remembered {
    /// Takes a durable record back.
    pub(super) fn recover(&mut self, node: NodeId, life: Life) {
        self.peers.insert(node, Known { life, record: 0 });
    }

    /// What is remembered of `node`, durable or on its way to the disk.
    pub(super) fn of(&self, node: NodeId) -> Option<Life> {
        self.peers.get(&node).map(|known| known.life)
    }

    /// A HELLO of `node`, which passed the check, on a connection that it dialled or answered (`dialled`).
    pub(super) fn greet(&mut self, node: NodeId, dialled: bool, life: Life) {
        if self.is_news(node, life) {
            self.greeted.insert((node, dialled), life);
        } else {
            self.greeted.remove(&(node, dialled));
        }
    }

    /// A frame of `node` behind its HELLO, on the connection that it dialled or the other (`dialled`): the record that keeps
    /// what the HELLO said, if that is news. `written` is the number of the last record so far.
    pub(super) fn hear(&mut self, node: NodeId, dialled: bool, written: u64) -> Option<(Record, Life)> {
        let life = self.greeted.remove(&(node, dialled))?;
        self.remember(node, life, written).map(|record| (record, life))
    }

    /// A peer whose memory is whole tells what it remembers of `node`.
    pub(super) fn remember(&mut self, node: NodeId, life: Life, written: u64) -> Option<Record> {
        if !self.is_news(node, life) {
            return None;
        }
        let record = written + 1;
        self.peers.insert(node, Known { life, record });
        Some(Record::Peer {
            node,
            incarnation: life.incarnation,
            start: life.start,
        })
    }

    /// F6. Of one generation with two tokens the first that was met stays.
    fn is_news(&self, node: NodeId, life: Life) -> bool {
        self.of(node).is_none_or(|known| {
            let (old, new) = (known.incarnation, life.incarnation);
            new.generation > old.generation || new == old && life.start.counter > known.start.counter
        })
    }

    /// Peers whose present life became durable by record `up_to`, and was not told yet.
    pub(super) fn newly_durable(&mut self, up_to: u64) -> Vec<(NodeId, Incarnation)> {
        let mut durable = Vec::new();
        for (node, known) in &mut self.peers {
            if known.record != 0 && known.record <= up_to {
                known.record = 0;
                durable.push((*node, known.life.incarnation));
            }
        }
        durable
    }

    /// All that is remembered, in node order.
    pub(super) fn lives(&self) -> Vec<(NodeId, Life)> {
        self.peers.iter().map(|(node, known)| (*node, known.life)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::Start;

    fn life(generation: u32, counter: u64, token: u64) -> Life {
        Life {
            incarnation: Incarnation { generation, token: 7 },
            start: Start { counter, token },
        }
    }

    #[test]
    fn a_new_start_is_remembered_once_its_node_has_read_what_was_remembered_before() {
        let (mut peers, n2) = (Remembered::default(), NodeId(2));
        peers.recover(n2, life(1, 5, 55));
        peers.greet(n2, true, life(1, 9, 99));
        assert_eq!(peers.of(n2), Some(life(1, 5, 55)), "its HELLO alone changes nothing");
        peers.greet(n2, true, life(1, 10, 100));
        assert!(peers.hear(n2, false, 3).is_none(), "it came on another connection");
        let (record, _) = peers.hear(n2, true, 3).expect("a frame behind the second HELLO");
        assert!(matches!(record, Record::Peer { start, .. } if start.counter == 10));
        assert_eq!(peers.of(n2), Some(life(1, 10, 100)));
        assert!(peers.hear(n2, true, 4).is_none(), "once");
        assert_eq!(peers.newly_durable(3), []);
        assert_eq!(peers.newly_durable(4), [(n2, life(1, 10, 100).incarnation)]);
    }

    #[test]
    fn what_an_older_start_or_life_says_changes_nothing() {
        let (mut peers, n2) = (Remembered::default(), NodeId(2));
        peers.recover(n2, life(2, 5, 55));
        for older in [life(2, 5, 56), life(2, 4, 1), life(1, 9, 9)] {
            peers.greet(n2, true, older);
            assert!(peers.hear(n2, true, 1).is_none(), "{older:?}");
        }
        assert!(peers.remember(n2, life(3, 1, 1), 1).is_some());
    }
}
