//! What a node knows of its links with one peer, and when it dials: pure, the sockets are server.rs'.
//!
//! Each node dials every peer and sends on the connection that it dialled; it reads frames from the one that it
//! accepted (`rules.md` 23), and gives short answers there, too, to a peer that takes them ([`Peer::link_for`]). So there
//! are two connections with a peer, and nothing is arbitrated: a peer's newer accepted connection replaces its older one.
//! When a connection closes, both sides dial at once. Only a dial that is refused after a close says that the peer's
//! process is gone; a refusal at first, a timeout or a silent peer says nothing.

use super::limits::{DIAL_BACKOFF_BASE, DIAL_BACKOFF_MAX, LINK_SETTLED, RESOLVE_EVERY};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::Frame;
use crate::wire::frame::FrameType;
use crate::wire::hello::FEATURE_ANSWERS;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Who.
    pub node: NodeId,
    /// Where, as `--cluster` says.
    pub address: Address,
    /// The connection that it dialled, through its handshake.
    pub incoming: Option<u64>,
    /// Whether the peer takes short answers there.
    takes_answers: bool,
    /// The connection that this node dialled, in whatever state.
    pub outgoing: Option<u64>,
    /// Since when `outgoing` is through its handshake.
    pub up_since: Option<Time>,
    /// Relayed requests and answers for it, by request id, that wait for room in the output of `outgoing`.
    pub held: VecDeque<(u64, Frame)>,
    /// When to dial next; none while `outgoing` is there.
    dial_at: Option<Time>,
    /// Dials that failed in a row.
    tries: u32,
    /// Links that closed as soon as they were up, in a row.
    flaps: u32,
    /// A connection with this peer closed, and no dial has been answered since.
    closed: bool,
}

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialEnd {
    /// ECONNREFUSED: nobody listens there.
    Refused,
    /// Anything else: no route, no answer in time, a handshake that failed.
    Failed,
}

impl Peer {
    /// A peer that was not met yet; it is dialled at once.
    pub fn new(node: NodeId, address: Address, now: Time) -> Peer {
        Peer {
            node,
            address,
            incoming: None,
            takes_answers: false,
            outgoing: None,
            up_since: None,
            held: VecDeque::new(),
            dial_at: Some(now),
            tries: 0,
            flaps: 0,
            closed: false,
        }
    }

    /// When the next dial is due.
    pub fn dial_at(&self) -> Option<Time> {
        self.dial_at
    }

    /// Dials that failed in a row.
    pub fn failed_dials(&self) -> u32 {
        self.tries
    }

    /// Whether what is sent now may arrive.
    pub fn is_up(&self) -> bool {
        self.up_since.is_some()
    }

    /// The connection on which a frame for the peer leaves now, if there is one. A short answer goes where the question came
    /// from, so that it carries TCP's acknowledgement of it, which else goes by itself; but only while the peer can be dialled,
    /// too: a leader whom its followers cannot reach by themselves can serve nobody through them, and must not be kept.
    pub fn link_for(&self, frame: &Frame) -> Option<u64> {
        let own = self.outgoing.filter(|_| self.is_up())?;
        let is_answer = self.takes_answers && FrameType::of(frame).is_short_answer();
        Some(self.incoming.filter(|_| is_answer).unwrap_or(own))
    }

    /// The peer dialled `connection`, which is through its handshake; `features` are those of its HELLO. Gives back the
    /// one that it takes the place of.
    pub fn accepted(&mut self, connection: u64, features: u64) -> Option<u64> {
        self.takes_answers = features & FEATURE_ANSWERS != 0;
        self.incoming.replace(connection)
    }

    /// A dial began on `connection`.
    pub fn dialled(&mut self, connection: u64) {
        self.outgoing = Some(connection);
        self.dial_at = None;
    }

    /// The dialled connection is through its handshake.
    pub fn came_up(&mut self, now: Time) {
        self.up_since = Some(now);
        self.tries = 0;
        self.closed = false;
    }

    /// A dial came to nothing. True if that is the sign of the peer's death.
    pub fn dial_failed(&mut self, now: Time, end: DialEnd, chance: &mut fastrand::Rng) -> bool {
        self.outgoing = None;
        self.up_since = None;
        self.dial_at = Some(now + backoff(self.tries, chance));
        self.tries = self.tries.saturating_add(1);
        end == DialEnd::Refused && std::mem::take(&mut self.closed)
    }

    /// The dialled connection, which was up, closed: dials at once, unless links keep closing as soon as they are up.
    pub fn outgoing_closed(&mut self, now: Time, chance: &mut fastrand::Rng) {
        let settled = self.up_since.is_some_and(|since| now.since(since) >= LINK_SETTLED);
        self.flaps = if settled { 0 } else { self.flaps.saturating_add(1) };
        self.outgoing = None;
        self.up_since = None;
        self.held.clear();
        self.closed = true;
        self.dial_at = match self.flaps {
            0 | 1 => Some(now),
            flaps => Some(now + backoff(flaps, chance)),
        };
    }

    /// The accepted connection closed: a dial that waits for its backoff need not wait any more.
    pub fn incoming_closed(&mut self, now: Time) {
        self.incoming = None;
        self.closed = true;
        if self.dial_at.is_some() {
            self.dial_at = Some(now);
        }
    }
}

/// `base · 2^tries`, capped, with full jitter: nodes that lost each other at one moment do not all dial at one moment.
fn backoff(tries: u32, chance: &mut fastrand::Rng) -> Duration {
    let cap = DIAL_BACKOFF_BASE
        .saturating_mul(1 << tries.min(16))
        .min(DIAL_BACKOFF_MAX);
    Duration::from_micros(chance.u64(0..=u64::try_from(cap.as_micros()).unwrap_or(u64::MAX)))
}

/// An address of `--cluster`, and what it was last resolved to.
///
/// Numeric addresses are never looked up. A name is looked up at the first dial, and again when a dial failed and the
/// last look is older than [`RESOLVE_EVERY`]; std's resolver blocks the loop meanwhile, so names belong in `/etc/hosts`
/// or on a resolver that is near.
#[derive(Clone, Debug)]
pub struct Address {
    /// As it was written.
    pub text: String,
    resolved: Vec<SocketAddr>,
    resolved_at: Option<Time>,
    /// Which of the resolved ones is dialled next.
    turn: usize,
}

impl Address {
    /// The address `host:port`.
    pub fn new(text: &str) -> Address {
        Address {
            text: text.to_string(),
            resolved: text.parse().ok().into_iter().collect(),
            resolved_at: None,
            turn: 0,
        }
    }

    /// Whom to dial next: the addresses that the name stands for take turns.
    ///
    /// # Errors
    /// What the resolver says.
    pub fn next(&mut self, now: Time) -> io::Result<SocketAddr> {
        let numeric = self.resolved_at.is_none() && !self.resolved.is_empty();
        let old = self.resolved_at.is_none_or(|at| now.since(at) >= RESOLVE_EVERY);
        if !numeric && (self.resolved.is_empty() || old) {
            self.resolved = self.text.to_socket_addrs()?.collect();
            self.resolved_at = Some(now);
        }
        self.turn += 1;
        let found = self.resolved.get(self.turn % self.resolved.len().max(1)).copied();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name stands for no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paxos::{Message, Slot};

    fn peer() -> (Peer, fastrand::Rng) {
        let peer = Peer::new(NodeId(2), Address::new("127.0.0.1:7002"), Time::ZERO);
        (peer, fastrand::Rng::with_seed(1))
    }

    #[test]
    fn only_a_refused_dial_after_a_close_is_the_sign_of_death() {
        let (mut peer, mut chance) = peer();
        assert!(
            !peer.dial_failed(Time::ZERO, DialEnd::Refused, &mut chance),
            "never met"
        );
        peer.dialled(7);
        peer.came_up(Time::from_millis(10));
        peer.outgoing_closed(Time::from_millis(5000), &mut chance);
        assert_eq!(peer.dial_at(), Some(Time::from_millis(5000)), "at once");
        assert!(!peer.dial_failed(Time::from_millis(5001), DialEnd::Failed, &mut chance));
        assert!(peer.dial_failed(Time::from_millis(5002), DialEnd::Refused, &mut chance));
        assert!(
            !peer.dial_failed(Time::from_millis(5003), DialEnd::Refused, &mut chance),
            "told once"
        );
    }

    #[test]
    fn short_answers_leave_on_the_accepted_connection_of_a_peer_that_takes_them_there() {
        let (mut peer, _) = peer();
        let (ballot, promised) = Default::default();
        let answer = Frame::Paxos(Message::Nack { ballot, promised });
        let question = Frame::Paxos(Message::Fetch {
            from: Slot(1),
            to: Slot(1),
        });
        assert_eq!(peer.link_for(&answer), None);
        assert_eq!(peer.accepted(1, FEATURE_ANSWERS), None);
        peer.dialled(2);
        assert_eq!(peer.link_for(&question), None, "not before its handshake");
        assert_eq!(peer.link_for(&answer), None, "who cannot be dialled is not answered");
        peer.came_up(Time::ZERO);
        assert_eq!((peer.link_for(&answer), peer.link_for(&question)), (Some(1), Some(2)));
        assert_eq!(peer.accepted(3, FEATURE_ANSWERS), Some(1));
        assert_eq!(peer.link_for(&answer), Some(3), "the newer one");
        assert_eq!(peer.accepted(4, !FEATURE_ANSWERS), Some(3));
        assert_eq!(
            peer.link_for(&answer),
            Some(2),
            "an older build is answered as it always was"
        );
        peer.accepted(5, FEATURE_ANSWERS);
        peer.incoming_closed(Time::ZERO);
        assert_eq!(peer.link_for(&answer), Some(2), "what asked is gone");
    }

    #[test]
    fn a_closed_accepted_connection_hurries_the_dial() {
        let (mut peer, mut chance) = peer();
        for _ in 0..20 {
            peer.dial_failed(Time::ZERO, DialEnd::Failed, &mut chance);
        }
        peer.incoming = Some(3);
        peer.incoming_closed(Time::from_millis(1));
        assert_eq!(peer.dial_at(), Some(Time::from_millis(1)));
        assert!(peer.dial_failed(Time::from_millis(2), DialEnd::Refused, &mut chance));
    }

    #[test]
    fn the_backoff_grows_to_its_cap_and_links_that_close_at_once_wait_too() {
        let (mut peer, mut chance) = peer();
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            peer.dial_failed(Time::ZERO, DialEnd::Failed, &mut chance);
            longest = longest.max(peer.dial_at().unwrap().since(Time::ZERO));
        }
        assert!(
            longest > DIAL_BACKOFF_MAX / 2 && longest <= DIAL_BACKOFF_MAX,
            "{longest:?}"
        );
        for _ in 0..20 {
            peer.dialled(1);
            peer.came_up(Time::from_millis(50));
            peer.outgoing_closed(Time::from_millis(60), &mut chance);
        }
        assert!(peer.dial_at() > Some(Time::from_millis(60)), "{:?}", peer.dial_at());
    }

    #[test]
    fn numeric_addresses_are_never_looked_up() {
        let mut address = Address::new("127.0.0.1:7002");
        for ms in [0, 1, 100_000] {
            assert_eq!(address.next(Time::from_millis(ms)).unwrap().port(), 7002);
        }
        assert!(Address::new("no-such-host.invalid:1").next(Time::ZERO).is_err());
    }
}
