//! The endpoints of a cluster: which is dialled, which is up, and where the leader is.
//!
//! New attempts go to one endpoint, the current one. A leader hint dials the hinted node beside it, and moves over once
//! its handshake is through: a hint that leads nowhere costs nothing. Reads that any node may serve go to the reader, an
//! endpoint of their own, whose place the seed draws, too, and which moves on when it fails; while it has no connection, to
//! the current one. An endpoint that fails waits with full jitter before it is dialled again; meanwhile the next one is
//! tried, at once.

use super::backoff::full_jitter;
use super::machine::Effect;
use super::options::{FAULT_RETRY, LEARNED_MAX, LINK_IDLE_MAX, Options, ReadsFrom};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::hello::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use crate::wire::message::ErrorCode;
use crate::wire::{Frame, Hello, HelloKind};
use fastrand::Rng;

/// The state of the connection to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// None.
    Down,
    /// Dialled; until then it must be through the handshake.
    Dialling(Time),
    /// Connected, our HELLO sent, theirs awaited; the same bound.
    Greeting(Time),
    /// Through the handshake.
    Up,
}

/// One address at which a node answers.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) address: String,
    /// Who answered there last, and where its debug port is.
    pub(super) node: Option<(NodeId, String)>,
    link: Link,
    /// Learned from a hint, not configured.
    learned: bool,
    /// Dials and connections that failed, since the last that did not.
    failures: u32,
    /// Not dialled again before.
    retry_at: Time,
    /// Its last failure, in words, and whether trying again cannot help.
    failure: Option<(String, bool)>,
    /// When a frame last came from it.
    pub(super) heard: Time,
    /// When something was last sent to it or heard from it.
    used: Time,
    /// Attempts that wait for its answer.
    in_flight: usize,
    /// It could not serve what it was asked last: others are dialled before it is asked again, though it is connected.
    of_no_use: bool,
}

/// Why a connection is given up.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) detail: String,
    /// Trying again at once cannot help: wrong version, wrong cluster, wrong bytes.
    pub(super) lasting: bool,
}

/// All endpoints of one client. At least one.
#[derive(Debug)]
pub(super) struct Links {
    endpoints: Vec<Endpoint>,
    /// Where new attempts go.
    current: usize,
    /// Where reads go, if any node may serve them.
    reader: usize,
    /// A hinted leader that is dialled beside the current one.
    wanted: Option<usize>,
    /// The id that the first founded node named; another one is refused.
    cluster_id: u64,
    /// Since when no endpoint was reached, while some dial failed.
    unreachable_since: Option<Time>,
    rng: Rng,
}

impl Trouble {
    pub(super) fn passing(detail: impl Into<String>) -> Trouble {
        Trouble {
            detail: detail.into(),
            lasting: false,
        }
    }

    pub(super) fn lasting(detail: impl Into<String>) -> Trouble {
        Trouble {
            detail: detail.into(),
            lasting: true,
        }
    }

    /// What a node's ERROR frame means for the connection.
    pub(super) fn said(code: ErrorCode, detail: &str) -> Trouble {
        let lasting = !matches!(
            code,
            ErrorCode::TooSlow
                | ErrorCode::TooManyConnections
                | ErrorCode::SlowReader
                | ErrorCode::ShuttingDown
                | ErrorCode::Replaced
        );
        Trouble {
            detail: format!("the node said {code}: {detail}"),
            lasting,
        }
    }
}

impl Endpoint {
    fn new(address: String, learned: bool) -> Endpoint {
        Endpoint {
            address,
            node: None,
            link: Link::Down,
            learned,
            failures: 0,
            retry_at: Time::ZERO,
            failure: None,
            heard: Time::ZERO,
            used: Time::ZERO,
            in_flight: 0,
            of_no_use: false,
        }
    }

    fn may_dial(&self, now: Time) -> bool {
        self.link == Link::Down && self.retry_at <= now
    }
}

impl Links {
    /// Endpoints in the order in which they are tried, from a place that the seed draws.
    pub(super) fn new(addresses: Vec<String>, seed: u64) -> Links {
        assert!(!addresses.is_empty(), "a client has at least one endpoint");
        let mut rng = Rng::with_seed(seed);
        let current = rng.usize(0..addresses.len());
        Links {
            endpoints: addresses
                .into_iter()
                .map(|address| Endpoint::new(address, false))
                .collect(),
            current,
            reader: current,
            wanted: None,
            cluster_id: 0,
            unreachable_since: None,
            rng,
        }
    }

    pub(super) fn get(&self, endpoint: usize) -> &Endpoint {
        &self.endpoints[endpoint]
    }

    pub(super) fn all(&self) -> &[Endpoint] {
        &self.endpoints
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Where an attempt may go now.
    pub(super) fn up(&self) -> Option<usize> {
        (self.endpoints[self.current].link == Link::Up).then_some(self.current)
    }

    /// Where a read may go now that any node may serve. Its own endpoint is dialled if it has no connection.
    pub(super) fn up_for_reads(&mut self, now: Time, options: &Options, effects: &mut Vec<Effect>) -> Option<usize> {
        if options.reads_from == ReadsFrom::Leader {
            return self.up();
        }
        let reader = self.reader;
        self.dial(reader, now, options, effects);
        self.is_up(reader).then_some(reader).or_else(|| self.up())
    }

    pub(super) fn is_up(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].link == Link::Up
    }

    /// Whether `endpoint` has a connection, or is about to have one.
    pub(super) fn is_open(&self, endpoint: usize) -> bool {
        self.endpoints[endpoint].link != Link::Down
    }

    /// Makes sure that somebody is, or is being, connected: the current endpoint, or the next one that may be dialled.
    pub(super) fn ensure(&mut self, now: Time, options: &Options, effects: &mut Vec<Effect>) {
        if self.is_open(self.current) {
            return;
        }
        let count = self.endpoints.len();
        let next = (0..count).map(|step| (self.current + step) % count);
        // One that is up already, as a hinted leader may be, is better than any dial; but not one that has just said that
        // it cannot serve: a node that is cut off from its peers says so for ever.
        let chosen = next
            .clone()
            .find(|endpoint| self.is_open(*endpoint) && !self.endpoints[*endpoint].of_no_use)
            .or_else(|| next.clone().find(|endpoint| self.endpoints[*endpoint].may_dial(now)))
            .or_else(|| next.clone().find(|endpoint| self.is_open(*endpoint)));
        if let Some(chosen) = chosen {
            self.current = chosen;
            self.dial(chosen, now, options, effects);
        }
    }

    fn dial(&mut self, endpoint: usize, now: Time, options: &Options, effects: &mut Vec<Effect>) {
        if self.endpoints[endpoint].may_dial(now) {
            self.endpoints[endpoint].link = Link::Dialling(now + options.connect_timeout);
            effects.push(Effect::Connect { endpoint });
        }
    }

    /// The dial went through: says HELLO.
    pub(super) fn connected(&mut self, endpoint: usize, options: &Options, effects: &mut Vec<Effect>) {
        let Link::Dialling(until) = self.endpoints[endpoint].link else {
            return; // a late word of a connection that was closed meanwhile
        };
        self.endpoints[endpoint].link = Link::Greeting(until);
        let hello = Hello::of_client(options.cluster_name.clone(), self.cluster_id);
        effects.push(Effect::Send {
            endpoint,
            request_id: 0,
            frame: Frame::Hello(hello),
        });
    }

    /// The node's HELLO: the connection is up, or what is wrong with it.
    pub(super) fn greeted(&mut self, endpoint: usize, hello: &Hello, now: Time) -> Result<(), Trouble> {
        if !matches!(self.endpoints[endpoint].link, Link::Greeting(_)) {
            return Err(Trouble::lasting("a second HELLO"));
        }
        let HelloKind::Node(node) = &hello.kind else {
            return Err(Trouble::lasting("a client answered, not a node"));
        };
        if hello.version_min > PROTOCOL_VERSION_MAX || hello.version_max < PROTOCOL_VERSION_MIN {
            return Err(Trouble::lasting(format!(
                "the node speaks protocol versions {} to {}, this client {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}",
                hello.version_min, hello.version_max
            )));
        }
        // Half of an operation's attempts in one cluster and half in another would make nonsense of their join.
        if self.cluster_id != 0 && hello.cluster_id != 0 && hello.cluster_id != self.cluster_id {
            return Err(Trouble::lasting(format!(
                "the node belongs to cluster {:016x}, the others to {:016x}",
                hello.cluster_id, self.cluster_id
            )));
        }
        if node.founded {
            self.cluster_id = hello.cluster_id;
        }
        let found = &mut self.endpoints[endpoint];
        found.node = Some((node.node, node.debug.clone()));
        found.link = Link::Up;
        found.failures = 0;
        found.failure = None;
        found.heard = now;
        found.used = now;
        self.unreachable_since = None;
        if self.wanted == Some(endpoint) {
            self.wanted = None;
            self.current = endpoint;
        }
        Ok(())
    }

    /// The connection to `endpoint`, or the dial, is no more.
    pub(super) fn down(&mut self, endpoint: usize, trouble: Trouble, now: Time, options: &Options) {
        let tries = self.endpoints[endpoint].failures;
        let wait = if trouble.lasting {
            FAULT_RETRY
        } else {
            full_jitter(&mut self.rng, options.backoff_base, options.backoff_max, tries)
        };
        let lost = &mut self.endpoints[endpoint];
        lost.link = Link::Down;
        lost.failures = tries.saturating_add(1);
        lost.failure = Some((trouble.detail, trouble.lasting));
        lost.retry_at = now + wait;
        lost.in_flight = 0;
        lost.of_no_use = false;
        if self.wanted == Some(endpoint) {
            self.wanted = None;
        }
        self.leave(endpoint);
        if self.endpoints.iter().all(|endpoint| endpoint.link != Link::Up) {
            self.unreachable_since.get_or_insert(now);
        }
    }

    /// The endpoint is connected, and cannot serve at present.
    pub(super) fn cannot_serve(&mut self, endpoint: usize) {
        self.endpoints[endpoint].of_no_use = true;
        self.leave(endpoint);
    }

    /// The endpoint has served.
    pub(super) fn served(&mut self, endpoint: usize) {
        self.endpoints[endpoint].of_no_use = false;
    }

    /// New attempts go to the hinted leader, or else to the next endpoint, instead of this one; reads to the next.
    fn leave(&mut self, endpoint: usize) {
        let next = (endpoint + 1) % self.endpoints.len();
        if self.reader == endpoint {
            // Also when it is dialled in vain: a dial that is under way keeps others from being made.
            self.reader = next;
        }
        if self.current == endpoint {
            self.current = self.wanted.take().unwrap_or(next);
        }
    }

    /// Follows the word of a node about who leads. True if there is another way than the endpoint that said so.
    pub(super) fn follow(
        &mut self,
        from: usize,
        leader: (NodeId, &str),
        now: Time,
        options: &Options,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if options.follow_leader
            && let Some(endpoint) = self.endpoint_of(leader)
            && endpoint != self.current
            // Its own word is newer than the hint: two nodes alone could pass a client to and fro for ever.
            && !self.endpoints[endpoint].of_no_use
        {
            if self.is_up(endpoint) {
                self.current = endpoint;
            } else if self.endpoints[endpoint].may_dial(now) {
                self.wanted = Some(endpoint);
                self.dial(endpoint, now, options, effects);
            }
        }
        self.current != from || self.wanted.is_some()
    }

    /// Where a leader answers: the endpoint whose HELLO said its id, else the address that it advertises.
    fn endpoint_of(&mut self, (node, address): (NodeId, &str)) -> Option<usize> {
        let by_id = |endpoint: &Endpoint| endpoint.node.as_ref().is_some_and(|(id, _)| *id == node);
        match self.endpoints.iter().position(by_id) {
            Some(endpoint) => Some(endpoint),
            None => self.at_address(address),
        }
    }

    /// The endpoint of an advertised address, made new if it is not known and there is room.
    fn at_address(&mut self, address: &str) -> Option<usize> {
        if address.is_empty() {
            return None;
        }
        let known = self.endpoints.iter().position(|endpoint| endpoint.address == address);
        if known.is_some() {
            return known;
        }
        if self.endpoints.iter().filter(|endpoint| endpoint.learned).count() >= LEARNED_MAX {
            return None; // the current endpoint forwards; only the short way is lost
        }
        self.endpoints.push(Endpoint::new(address.into(), true));
        Some(self.endpoints.len() - 1)
    }

    /// A frame came.
    pub(super) fn heard(&mut self, endpoint: usize, now: Time) {
        self.endpoints[endpoint].heard = now;
        self.endpoints[endpoint].used = now;
    }

    /// An attempt went out.
    pub(super) fn sent(&mut self, endpoint: usize, now: Time) {
        self.endpoints[endpoint].used = now;
        self.endpoints[endpoint].in_flight += 1;
    }

    /// An attempt is no longer waited for.
    pub(super) fn answered(&mut self, endpoint: usize) {
        let in_flight = &mut self.endpoints[endpoint].in_flight;
        *in_flight = in_flight.saturating_sub(1);
    }

    /// Endpoints whose dial or handshake takes too long.
    pub(super) fn overdue(&self, now: Time) -> Vec<usize> {
        let late = |endpoint: &Endpoint| matches!(endpoint.link, Link::Dialling(until) | Link::Greeting(until) if until <= now);
        (0..self.endpoints.len())
            .filter(|endpoint| late(&self.endpoints[*endpoint]))
            .collect()
    }

    /// When a dial or handshake is overdue, or (if somebody waits for a connection) the next dial may be made.
    pub(super) fn deadline(&self, wanted: bool) -> Option<Time> {
        let dials = self.endpoints.iter().filter_map(|endpoint| match endpoint.link {
            Link::Dialling(until) | Link::Greeting(until) => Some(until),
            Link::Down | Link::Up => None,
        });
        let next = (wanted && !self.is_open(self.current))
            .then(|| self.endpoints.iter().map(|endpoint| endpoint.retry_at).min())
            .flatten();
        dials.chain(next).min()
    }

    /// Closes connections that are neither the current one nor used.
    pub(super) fn tidy(&mut self, now: Time, effects: &mut Vec<Effect>) {
        for (place, endpoint) in self.endpoints.iter_mut().enumerate() {
            let spare = place != self.current && self.wanted != Some(place) && endpoint.in_flight == 0;
            if spare && endpoint.link == Link::Up && now.since(endpoint.used) >= LINK_IDLE_MAX {
                endpoint.link = Link::Down;
                effects.push(Effect::Close { endpoint: place });
            }
        }
    }

    /// Closes all connections.
    pub(super) fn close(&mut self, effects: &mut Vec<Effect>) {
        for (place, endpoint) in self.endpoints.iter_mut().enumerate() {
            if endpoint.link != Link::Down {
                endpoint.link = Link::Down;
                effects.push(Effect::Close { endpoint: place });
            }
        }
    }

    /// Since when nobody has been reached, if every endpoint has failed.
    pub(super) fn unreachable_since(&self) -> Option<Time> {
        let all_failed = self
            .endpoints
            .iter()
            .all(|endpoint| endpoint.failures > 0 && endpoint.link != Link::Up);
        self.unreachable_since.filter(|_| all_failed)
    }

    /// Operations begin to wait anew: what was out of reach before does not count against them.
    pub(super) fn forget_unreachable(&mut self) {
        self.unreachable_since = None;
    }

    /// Why there is no connection, endpoint by endpoint; and whether waiting cannot help with any of them.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if self.endpoints.iter().any(|endpoint| endpoint.link == Link::Up) {
            return None;
        }
        let failures: Vec<_> = self
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.failure.as_ref().map(|failure| (&endpoint.address, failure)))
            .collect();
        let words: Vec<String> = failures
            .iter()
            .map(|(address, (detail, _))| format!("{address}: {detail}"))
            .collect();
        let down = self.endpoints.iter().all(|endpoint| endpoint.link == Link::Down);
        Some(Trouble {
            detail: words.join("; "),
            lasting: down
                && failures.len() == self.endpoints.len()
                && failures.iter().all(|(_, (_, lasting))| *lasting),
        })
    }
}
