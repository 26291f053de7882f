//! What a fault does when it strikes, and how it ends. Which strikes when is in the [`Plan`].

use super::asking::OldWrite;
use super::chance::{Chance, Stream};
use super::door::Arrival;
use super::faults::{Fault, FaultSet};
use super::finale::Finale;
use super::network::{End, Weather};
use super::node::{Death, SimNode};
use super::options::Options;
use super::plan::{Plan, Planned, Strike};
use super::queue::{Event, Relief};
use super::report::Violation;
use super::world::{World, clock_off_by};
use crate::kv::Op;
use crate::machine::Input;
use crate::paxos::Stance;
use crate::storage::sim::{Fault as DiskFault, Op as DiskOp};
use crate::time::Time;
use crate::wire::RequestOp;
use bytes::Bytes;
use fastrand::Rng;
use std::time::Duration;

/// The usual time of a sync, microseconds.
const SYNC_US: (u64, u64) = (50, 300);
/// Fetching a snapshot takes about so many file operations, what goes on beside it included.
const INSTALL_OPERATIONS: u64 = 40;

/// What happens, and what came of it.
#[derive(Debug)]
pub(super) struct Storm {
    pub(super) plan: Plan,
    /// The kinds that this seed drew, and that the options let happen.
    enabled: FaultSet,
    /// Set once faults have ended.
    pub(super) finale: Option<Finale>,
}

impl Storm {
    /// The storm of a seed.
    pub(super) fn new(options: &Options, chance: Chance) -> Storm {
        let plan = Plan::draw(options, chance);
        let muted = options.mute.iter();
        Storm {
            enabled: muted.fold(plan.kinds, FaultSet::without),
            plan,
            finale: None,
        }
    }
}

impl World {
    /// A node that is down starts again, within this time.
    pub(super) fn start_within(&mut self, node: usize, most_us: u64) {
        let mut rng = self.chance.stream(Stream::Restart, node as u64, self.now.0);
        // Never in the same instant: a process that ends as soon as it starts would do so for ever.
        let at = self.soon(most_us, &mut rng).max(self.now + Duration::from_micros(1));
        self.queue.push(at, Event::Start(node));
    }

    /// Longest time that a node which goes down now stays so, microseconds.
    pub(super) fn down_us(&self) -> u64 {
        if self.storm.finale.is_some() {
            return 100_000;
        }
        self.storm.plan.down_us
    }

    pub(super) fn on_strike(&mut self, place: usize) -> Result<(), Violation> {
        let Planned { number, strike, .. } = self.storm.plan.strikes[place];
        let mut rng = self.chance.stream(Stream::Strike, number.into(), 0);
        match strike {
            Strike::Fault(kind) if !self.storm.enabled.has(kind) => return Ok(()),
            _ => self.shared.transcript.struck(number),
        }
        match strike {
            Strike::Fault(kind) => self.strike(kind, &mut rng),
            Strike::Calm => {
                self.network.heal();
                self.network.heal_clients();
                self.network.weather = Weather::calm(&mut rng);
                self.tell(|| "the network is well again".into());
                Ok(())
            }
        }
    }

    fn strike(&mut self, kind: Fault, rng: &mut Rng) -> Result<(), Violation> {
        let size = self.nodes.len();
        // Of a smaller cluster the same nodes are struck, as far as it has them; half of the time it is a leader, for others
        // notice that most.
        let (drawn, other) = (rng.usize(..) % size, rng.usize(..) % size);
        let node = Some(rng.bool())
            .filter(|hits| *hits)
            .and(self.leader())
            .unwrap_or(drawn);
        let client = rng.usize(..) % self.clients.len();
        let until = self.strike_until(rng);
        match kind {
            Fault::Loss | Fault::Duplicate | Fault::Reorder | Fault::LongDelay => {
                self.network.weather = Weather::storm(self.storm.enabled, rng);
                let weather = self.network.weather;
                self.tell(|| format!("the weather changes: {weather}"));
            }
            Fault::CutOneWay | Fault::CutBothWays if node == other => {}
            Fault::CutOneWay => {
                self.fault(kind);
                self.cut(node, other, until);
            }
            Fault::CutBothWays => {
                self.fault(kind);
                self.cut(node, other, until);
                self.cut(other, node, until);
            }
            Fault::Partition | Fault::Ring | Fault::Bridge => self.split(kind, node, until, rng),
            Fault::CutClient => {
                self.fault(kind);
                self.tell_of(End::Client(client), || format!("is cut off from n{}", node + 1));
                self.network.set_client_cut(client, node, true);
                self.queue.push(until, Event::Calm(Relief::Client(client, node)));
            }
            Fault::Reset => self.reset(rng)?,
            Fault::ClientDeath => {
                self.fault(kind);
                self.end_client(client)?;
            }
            Fault::LateDuplicate => self.repeat_old_write(node, rng),
            Fault::PowerCutOfAll => {
                self.fault(kind);
                (0..size).for_each(|node| self.lose_power(node));
            }
            Fault::RestartAround => self.restart_around_leader(rng),
            Fault::LostVote => self.leave_one_beside_leader(other, rng),
            _ if self.nodes[node].is_up() => self.strike_node(kind, node, until, rng)?,
            _ => {}
        }
        Ok(())
    }

    /// A node that takes itself for the leader.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &SimNode| {
            node.machine()
                .is_some_and(|machine| matches!(machine.replica().stance(), Stance::Leader(_)))
        };
        self.nodes.iter().position(leads)
    }

    /// What can only happen to a node that runs.
    fn strike_node(&mut self, kind: Fault, node: usize, until: Time, rng: &mut Rng) -> Result<(), Violation> {
        if !matches!(kind, Fault::Kill | Fault::PowerCut) {
            self.tell_of(End::Node(node), || format!("fault: {}", kind.name()));
        }
        match kind {
            Fault::Kill => {
                self.fault(kind);
                self.bring_down(node, Death::Killed);
            }
            Fault::OtherBuild => {
                self.fault(kind);
                let features = self.nodes[node].change_build(rng);
                self.tell_of(End::Node(node), || {
                    format!("is to come back as a build of features {features:#x}")
                });
                self.bring_down(node, Death::Killed);
            }
            Fault::PowerCut => {
                self.fault(kind);
                self.lose_power(node);
            }
            // Counted when it fires.
            Fault::PowerCutInOperation | Fault::KillInOperation => {
                self.nodes[node].is_killed_in_operation = kind == Fault::KillInOperation;
                let (soon, of_install) = (rng.u64(1..=6), rng.u64(1..=INSTALL_OPERATIONS));
                match rng.u8(0..3) {
                    0 => self.nodes[node].ends_in_install = Some(of_install),
                    _ => self.nodes[node].disk.cut_power_after(soon),
                }
            }
            Fault::SyncFailure => self.nodes[node].disk.fail(DiskOp::Sync, rng.u64(1..=3), DiskFault::Io),
            Fault::WriteFailure => self.nodes[node].disk.fail(DiskOp::Write, rng.u64(1..=6), DiskFault::Io),
            Fault::ShortWrite => {
                let how = [DiskFault::Short, DiskFault::Interrupted][rng.usize(0..2)];
                self.nodes[node].disk.fail(DiskOp::Write, rng.u64(1..=6), how);
            }
            Fault::Shutdown => return self.arrive(node, Arrival::Input(Box::new(Input::Shutdown))),
            Fault::AcceptorFailure => {
                self.fault(kind);
                self.queue.push(until, Event::Calm(Relief::Acceptor(node)));
                return self.arrive(node, Arrival::Input(Box::new(Input::AcceptorDown)));
            }
            Fault::Pause => {
                self.fault(kind);
                let until = if rng.u8(0..3) > 0 {
                    until
                } else {
                    // Long enough to be given up; and it goes on before it is told so: only clients reach it.
                    let until = self.now + Duration::from_micros(rng.u64(300_000..1_500_000));
                    self.cut_off(node, until + Duration::from_micros(rng.u64(0..1_000_000)));
                    until
                };
                let there = &mut self.nodes[node];
                there.paused_until = there.paused_until.max(until);
            }
            Fault::ClockRate => {
                self.fault(kind);
                let most = 1 << rng.u32(4..17);
                self.nodes[node].clock.set_rate(self.now, rng.i32(-most..=most));
                self.nodes[node].boottime.set_rate(self.now, clock_off_by(rng));
                self.queue.push(until, Event::Calm(Relief::Clock(node)));
            }
            Fault::ClockJump => {
                self.fault(kind);
                let span = Duration::from_micros(rng.u64(0..1 << 22));
                self.nodes[node].clock.jump(self.now, span);
            }
            Fault::SlowDisk => {
                self.fault(kind);
                self.nodes[node].sync_us = (100, 1 << rng.u32(9..21));
                self.queue.push(until, Event::Calm(Relief::SlowDisk(node)));
            }
            Fault::DiskFull => {
                self.fault(kind);
                let there = &mut self.nodes[node];
                there.is_full = true;
                there.disk.set_capacity(there.disk.used_bytes() + rng.u64(0..1 << 18));
                self.queue.push(until, Event::Calm(Relief::FullDisk(node)));
            }
            Fault::BitRot => self.rot(node, rng),
            Fault::EmptyDirectory => self.wipe(node),
            Fault::OldCopy => self.restore_copy(node),
            _ => {}
        }
        Ok(())
    }

    /// Until when a fault lasts that ends by itself: mostly short, sometimes long.
    fn strike_until(&self, rng: &mut Rng) -> Time {
        let most = 1 << rng.u32(12..23);
        self.soon(most, rng)
    }

    pub(super) fn relieve(&mut self, relief: Relief) -> Result<(), Violation> {
        if self.storm.finale.is_some() {
            return Ok(()); // the finale has put in order what it needs
        }
        match relief {
            Relief::Link(from, to) => {
                self.tell(|| format!("{} reaches {} again", End::Node(from), End::Node(to)));
                self.network.join(from, to);
            }
            Relief::Partition => {
                self.tell(|| "all nodes reach each other again".into());
                self.network.heal();
            }
            Relief::Client(client, node) => self.network.set_client_cut(client, node, false),
            Relief::Acceptor(node) => return self.arrive(node, Arrival::Input(Box::new(Input::AcceptorUp))),
            Relief::SlowDisk(node) => self.nodes[node].sync_us = SYNC_US,
            Relief::FullDisk(node) => self.make_room(node),
            Relief::Clock(node) => self.nodes[node].clock.set_rate(self.now, 0),
        }
        Ok(())
    }

    pub(super) fn make_room(&mut self, node: usize) {
        self.nodes[node].is_full = false;
        self.nodes[node].disk.set_capacity(u64::MAX);
    }

    /// A disk and its node are as on any good day.
    pub(super) fn make_well(&mut self, node: usize) {
        self.make_room(node);
        self.nodes[node].sync_us = SYNC_US;
        self.nodes[node].disk.spare();
        self.nodes[node].ends_in_install = None;
    }

    pub(super) fn cut(&mut self, from: usize, to: usize, until: Time) {
        self.tell(|| format!("{} does not reach {} any more", End::Node(from), End::Node(to)));
        self.network.cut(from, to, self.now);
        self.queue.push(until, Event::Calm(Relief::Link(from, to)));
    }

    /// Nobody hears a node, nor it anybody.
    fn cut_off(&mut self, node: usize, until: Time) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut(node, other, until);
            self.cut(other, node, until);
        }
    }

    /// Who may still read by a lease goes on, among nodes that do not know of it any more.
    fn restart_around_leader(&mut self, rng: &mut Rng) {
        let Some(leader) = self.leader().filter(|_| self.nodes.len() > 1) else {
            return;
        };
        self.fault(Fault::RestartAround);
        self.cut_off(leader, self.now + Duration::from_micros(rng.u64(300_000..1_500_000)));
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            if self.nodes[other].is_up() {
                self.bring_down_for(other, Death::Killed, 20_000);
            }
        }
    }

    /// Another shape of the network in place of the one that is.
    fn split(&mut self, kind: Fault, node: usize, until: Time, rng: &mut Rng) {
        let size = self.nodes.len();
        if size < 3 || kind != Fault::Partition && size < 4 {
            return;
        }
        let is_alone = rng.bool();
        let sides: Vec<bool> = (0..size)
            .map(|other| if is_alone { other == node } else { rng.bool() })
            .collect();
        let bridge = rng.usize(..) % size;
        self.network.heal();
        let mut lost = Vec::new();
        let hears = |from: usize, to: usize| match kind {
            Fault::Ring => (from + 1) % size == to || (to + 1) % size == from,
            Fault::Bridge => from == bridge || to == bridge || sides[from] == sides[to],
            _ => sides[from] == sides[to],
        };
        for (from, to) in (0..size).flat_map(|from| (0..size).map(move |to| (from, to))) {
            if from != to && !hears(from, to) {
                self.network.cut(from, to, self.now);
                lost.push(format!("{} to {}", End::Node(from), End::Node(to)));
            }
        }
        if lost.is_empty() {
            return; // all on one side
        }
        self.tell(|| format!("the network falls apart ({}): cut are {}", kind.name(), lost.join(", ")));
        self.fault(kind);
        self.queue.push(until, Event::Calm(Relief::Partition));
    }

    fn reset(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let count = self.connections.len();
        if count == 0 {
            return Ok(());
        }
        let place = rng.usize(0..count);
        let Some((connection, link)) = self.connections.iter().nth(place) else {
            return Ok(());
        };
        let (connection, dialler, acceptor) = (*connection, link.dialler, link.acceptor);
        self.fault(Fault::Reset);
        self.close_at(connection, dialler)?;
        self.close_at(connection, End::Node(acceptor))
    }

    fn lose_power(&mut self, node: usize) {
        if self.nodes[node].is_up() {
            self.bring_down(node, Death::PowerLost);
        }
    }

    fn repeat_old_write(&mut self, node: usize, rng: &mut Rng) {
        let is_done = |old: &OldWrite| {
            self.shared
                .checks
                .borrow()
                .is_done(old.request.session, old.request.number)
        };
        let may_come = |old: &&OldWrite| old.is_unknown || old.request.op == RequestOp::Write(Op::Open) || is_done(old);
        let copies: Vec<Bytes> = self
            .old_writes
            .iter()
            .filter(may_come)
            .map(|old| old.bytes.clone())
            .collect();
        if copies.is_empty() {
            return;
        }
        let bytes = copies[rng.usize(0..copies.len())].clone();
        let at = self.soon(1_000_000, rng);
        self.queue.push(at, Event::Ghost { node, bytes });
    }
}
