//! One connection with what it is for: the roles that a connection takes, and when each must have got on.

use super::connection::Connection;
use super::debug;
use super::limits::{
    CLIENT_IN_FLIGHT_MAX, CLIENT_OUTPUT_HIGH_BYTES, CLIENT_OUTPUT_LOW_BYTES, DIAL_HELLO_TIMEOUT, DIAL_TIMEOUT,
    HELLO_TIMEOUT, LINGER, PING_EVERY, PING_TIMEOUT,
};
use crate::paxos::NodeId;
use crate::time::Time;
use crate::wire::Reply;
use std::collections::VecDeque;
use std::time::Duration;

/// What a connection is for.
#[derive(Debug)]
pub enum Role {
    /// Accepted; has not said HELLO.
    Fresh,
    /// Accepted; a client.
    Client {
        /// Ids of its requests whose answers were not encoded yet.
        in_flight: InFlight,
        /// Answers that wait for room in the output, by request id. At most as many as are in flight.
        answers: VecDeque<(u64, Reply)>,
    },
    /// Accepted from a peer: what it sends is read here, and short answers to it leave here.
    From(NodeId),
    /// Dialled to a peer; not connected yet.
    Dialling(NodeId),
    /// Dialled to a peer; HELLO was sent, its answer is awaited.
    Greeting(NodeId),
    /// Dialled to a peer, through its handshake: what goes to it is sent here, and its short answers are read here.
    To(NodeId),
    /// Accepted on the debug port.
    Debug(Box<debug::Session>),
    /// Its last words are queued; whatever it still says is thrown away.
    Closing,
}

/// Ids of a client's requests, in ascending order. A client counts them up and is answered in about that order: the next
/// one comes behind all others, and the first leaves. At most [`CLIENT_IN_FLIGHT_MAX`].
#[derive(Debug, Default)]
pub struct InFlight(VecDeque<u64>);

/// A connection in its role.
#[derive(Debug)]
pub struct Link {
    /// The bytes.
    pub connection: Connection,
    /// The purpose.
    pub role: Role,
    /// When the role was taken.
    since: Time,
    /// What of it is not read yet.
    pub unread: Unread,
    /// It is not read, because what waits for it is not taken or all connections together hold too much.
    pub paused: bool,
    /// The second of these is why: nobody but it keeps a frame of its own from being finished.
    pub stalled: bool,
    /// Bytes of its input that stand in the books of all connections.
    pub counted: usize,
    /// Bytes at the front of a debug connection's input that hold no newline.
    pub scanned: usize,
    /// The other side sends no more; what it asked is still answered.
    pub ended: bool,
    /// When the present ping left, while it is unanswered.
    pinged: Option<Time>,
    next_ping: Time,
    /// The deadline that stands in the loop's queue for this link.
    pub armed: Option<Time>,
}

/// How long what a link brings may have waited in the system's buffers: a node that is asked for more than it can do leaves
/// links unread, turn after turn, and a client's patience runs all the while.
#[derive(Debug, Default)]
pub struct Unread {
    /// Since when something may be there.
    since: Option<Time>,
    /// At most so long has waited what is being read now, but for what came before the poll told it.
    waited: Duration,
}

impl InFlight {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one; false if it is there already.
    pub fn insert(&mut self, id: u64) -> bool {
        if self.0.back().is_none_or(|last| *last < id) {
            self.0.push_back(id);
            return true;
        }
        let place = self.0.binary_search(&id);
        place.is_err_and(|place| {
            self.0.insert(place, id);
            true
        })
    }

    fn remove(&mut self, id: u64) {
        if self.0.front() == Some(&id) {
            self.0.pop_front();
        } else if let Ok(place) = self.0.binary_search(&id) {
            self.0.remove(place);
        }
    }
}

impl Unread {
    /// The poll tells that there is something to read.
    pub fn note(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    /// Reading begins.
    pub fn begin(&mut self, now: Time) {
        self.waited = self.since.map_or(Duration::ZERO, |since| now.since(since));
    }

    /// Reading ends. What `is_left` counts from now: a link that is read in every turn and never empty is not behind.
    pub fn end(&mut self, now: Time, is_left: bool) {
        self.since = is_left.then_some(now);
    }

    /// How long what is being read may have waited.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// What a link that missed its deadline is told or done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It said no HELLO in time.
    Hello,
    /// A frame was not finished in time.
    Frame,
    /// It took none of what waits for it.
    Output,
    /// The dial was not connected, or not answered, in time.
    Dial,
    /// A ping is due.
    Ping,
    /// A ping was not answered.
    HalfOpen,
    /// A command of a debug session is to be tried again, or given up.
    Session,
    /// It had its time to fetch its last words.
    Linger,
}

impl Link {
    /// A connection that takes up `role` now.
    pub fn new(connection: Connection, role: Role, now: Time) -> Link {
        Link {
            connection,
            role,
            since: now,
            unread: Unread::default(),
            paused: false,
            stalled: false,
            counted: 0,
            scanned: 0,
            ended: false,
            pinged: None,
            next_ping: now + PING_EVERY,
            armed: None,
        }
    }

    /// Takes up another role; its clocks begin anew.
    pub fn become_role(&mut self, role: Role, now: Time) {
        if matches!(role, Role::Client { .. }) {
            self.connection.keep_input();
        }
        self.role = role;
        self.since = now;
        self.next_ping = now + PING_EVERY;
    }

    /// The peer at the other end, if it is one.
    pub fn peer(&self) -> Option<NodeId> {
        match self.role {
            Role::From(peer) | Role::Dialling(peer) | Role::Greeting(peer) | Role::To(peer) => Some(peer),
            Role::Fresh | Role::Client { .. } | Role::Debug(_) | Role::Closing => None,
        }
    }

    /// Whether reading it must wait: it has too much in flight, does not take what it is sent, or (`is_full`) all
    /// connections together hold as much as they may.
    pub fn must_pause(&self, is_full: bool) -> bool {
        let output = self.connection.output_len();
        let high = if self.paused {
            CLIENT_OUTPUT_LOW_BYTES
        } else {
            CLIENT_OUTPUT_HIGH_BYTES
        };
        match &self.role {
            Role::Client { in_flight, .. } => is_full || in_flight.len() >= CLIENT_IN_FLIGHT_MAX || output > high,
            // Somebody must be able to look what is the matter.
            Role::Debug(session) => session.is_waiting() || output > high || (is_full && output > 0),
            _ => false,
        }
    }

    /// Whether the connection has served its end: all that was asked is answered and written.
    pub fn is_over(&self) -> bool {
        let answered = match &self.role {
            Role::Client { in_flight, .. } => self.ended && in_flight.is_empty() && !self.paused,
            Role::Debug(session) => session.has_ended() || (self.ended && !session.is_waiting() && !self.paused),
            _ => false,
        };
        answered && self.connection.output_len() == 0
    }

    /// When the link must have got on.
    pub fn deadline(&self) -> Option<Time> {
        let frame = if self.paused && !self.stalled {
            None
        } else {
            self.connection.frame_deadline()
        };
        let output = self.connection.output_deadline();
        let own = match &self.role {
            Role::Fresh => return Some(self.since + HELLO_TIMEOUT),
            Role::Closing => return Some(self.since + LINGER),
            Role::Dialling(_) => return Some(self.since + DIAL_TIMEOUT),
            Role::Greeting(_) => return Some(self.since + DIAL_HELLO_TIMEOUT),
            Role::From(_) | Role::To(_) => Some(self.next_ping),
            // A person types a line, and reads what is followed, as slowly as they like.
            Role::Debug(session) => {
                let output = output.filter(|_| !session.follows());
                return [session.deadline(), output].into_iter().flatten().min();
            }
            Role::Client { .. } => None,
        };
        [own, frame, output].into_iter().flatten().min()
    }

    /// What is overdue at `now`, if anything.
    pub fn overdue(&self, now: Time) -> Option<Overdue> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        match &self.role {
            Role::Fresh => return Some(Overdue::Hello),
            Role::Closing => return Some(Overdue::Linger),
            Role::Dialling(_) | Role::Greeting(_) => return Some(Overdue::Dial),
            Role::Debug(session) if session.deadline().is_some_and(|deadline| deadline <= now) => {
                return Some(Overdue::Session);
            }
            _ => {}
        }
        if self
            .connection
            .output_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            return Some(Overdue::Output);
        }
        let is_peer = matches!(self.role, Role::From(_) | Role::To(_));
        if is_peer && self.next_ping <= now {
            let silent = |since: Time| now.since(since.max(self.connection.heard())) >= PING_TIMEOUT;
            return Some(if self.pinged.is_some_and(silent) {
                Overdue::HalfOpen
            } else {
                Overdue::Ping
            });
        }
        Some(Overdue::Frame)
    }

    /// Takes the answer to a client's request. It is given back if it can be encoded at once; else it waits.
    pub fn take_answer(&mut self, request: u64, reply: Reply) -> Option<Reply> {
        let has_room = self.connection.output_len() <= CLIENT_OUTPUT_HIGH_BYTES;
        let Role::Client { in_flight, answers } = &mut self.role else {
            return None;
        };
        if has_room && answers.is_empty() {
            in_flight.remove(request);
            return Some(reply);
        }
        answers.push_back((request, reply));
        None
    }

    /// The next answer that waited and is to be encoded, if there is room for it.
    pub fn next_answer(&mut self) -> Option<(u64, Reply)> {
        let has_room = self.connection.output_len() <= CLIENT_OUTPUT_HIGH_BYTES;
        let Role::Client { in_flight, answers } = &mut self.role else {
            return None;
        };
        let (request, reply) = has_room.then(|| answers.pop_front())??;
        in_flight.remove(request);
        Some((request, reply))
    }

    /// A ping was looked at; true if one shall be sent (none is on its way).
    pub fn ping_due(&mut self, now: Time) -> bool {
        self.next_ping = now + PING_EVERY;
        let send = self.pinged.is_none();
        self.pinged.get_or_insert(now);
        send
    }

    /// The ping was answered.
    pub fn ponged(&mut self) {
        self.pinged = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::net::TcpStream;
    use std::net;

    fn link(role: Role) -> (Link, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, remote) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let connection = Connection::new(TcpStream::from_std(near), remote, Time::ZERO);
        (Link::new(connection, role, Time::ZERO), far)
    }

    #[test]
    fn what_was_left_unread_has_waited_since_it_was_told_or_last_read() {
        let (ms, mut unread) = (Time::from_millis, Unread::default());
        unread.begin(ms(100));
        assert_eq!(unread.waited(), Duration::ZERO, "nothing was told");
        unread.note(ms(200));
        unread.note(ms(500));
        unread.begin(ms(700));
        assert_eq!(unread.waited(), Duration::from_millis(500));
        unread.end(ms(700), true);
        unread.note(ms(800));
        unread.begin(ms(900));
        assert_eq!(unread.waited(), Duration::from_millis(200), "what is left came since");
        unread.end(ms(900), false);
        unread.note(ms(2000));
        unread.begin(ms(2001));
        assert_eq!(unread.waited(), Duration::from_millis(1));
    }

    #[test]
    fn each_role_has_its_deadline() {
        // role, deadline in ms, what is overdue then
        for (role, ms, overdue) in [
            (Role::Fresh, 5000, Overdue::Hello),
            (Role::Dialling(NodeId(2)), 1000, Overdue::Dial),
            (Role::Greeting(NodeId(2)), 2000, Overdue::Dial),
            (Role::To(NodeId(2)), 1000, Overdue::Ping),
            (Role::Closing, 1000, Overdue::Linger),
        ] {
            let (link, _far) = link(role);
            assert_eq!(link.deadline(), Some(Time::from_millis(ms)), "{:?}", link.role);
            assert_eq!(link.overdue(Time::from_millis(ms - 1)), None);
            assert_eq!(link.overdue(Time::from_millis(ms)), Some(overdue));
        }
    }

    #[test]
    fn an_unanswered_ping_ends_a_half_open_link_and_an_answered_one_does_not() {
        let (mut link, _far) = link(Role::To(NodeId(2)));
        for ms in [1000, 2000, 3000] {
            assert_eq!(link.overdue(Time::from_millis(ms)), Some(Overdue::Ping));
            assert_eq!(link.ping_due(Time::from_millis(ms)), ms == 1000, "one at a time");
        }
        assert_eq!(link.overdue(Time::from_millis(4000)), Some(Overdue::HalfOpen));
        link.ponged();
        assert_eq!(link.overdue(Time::from_millis(4000)), Some(Overdue::Ping));
    }

    #[test]
    fn an_id_is_in_flight_once_in_whatever_order_a_client_counts() {
        let mut in_flight = InFlight::default();
        for id in [5, 9, 7, 1] {
            assert!(in_flight.insert(id), "{id}");
            assert!(!in_flight.insert(id), "{id} again");
        }
        in_flight.remove(7);
        in_flight.remove(7);
        assert_eq!(in_flight.len(), 3);
        assert!(in_flight.insert(7) && !in_flight.insert(9));
    }

    #[test]
    fn a_client_with_too_much_in_flight_is_not_read() {
        let (mut in_flight, answers) = (InFlight::default(), VecDeque::new());
        assert!((0..CLIENT_IN_FLIGHT_MAX as u64).all(|id| in_flight.insert(id)));
        let (mut link, _far) = link(Role::Client { in_flight, answers });
        assert!(link.must_pause(false));
        if let Role::Client { in_flight, .. } = &mut link.role {
            in_flight.remove(7);
        }
        assert!(!link.must_pause(false) && link.must_pause(true));
    }
}
