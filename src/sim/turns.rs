//! Nodes in the world: when they have their turns, what they say in them, how they start and end.

use super::chance::Stream;
use super::door::{Arrival, Out};
use super::faults::Fault;
use super::links::DIAL_TIMEOUT;
use super::network::End;
use super::node::{Death, Ending};
use super::queue::Event;
use super::report::Violation;
use super::world::World;
use crate::paxos::Stance;
use crate::time::Time;
use std::time::Duration;

/// A leader that hears no quorum for so long should have stepped down: many times the election timeout, for its clock may be
/// slow and its disk, too.
const LEADS_UNHEARD: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_up() {
            return Ok(());
        }
        let seed = self.chance.stream(Stream::Start, node as u64, self.now.0).u64(..);
        self.nodes[node].has_power = true;
        let now = self.now;
        let ending = self.nodes[node].start(now, seed, &self.shared)?;
        self.after_turn(node, ending)
    }

    /// Something arrives at a node; it may have its turn now.
    pub(super) fn arrive(&mut self, node: usize, arrival: Arrival) -> Result<(), Violation> {
        let now = self.now;
        let there = &mut self.nodes[node];
        let Some(life) = &mut there.life else { return Ok(()) };
        life.door.arrive(arrival, now);
        let at = now.max(there.busy_until).max(there.paused_until);
        if at == now {
            return self.turn(node);
        }
        self.wake_node_at(node, at);
        Ok(())
    }

    fn wake_node_at(&mut self, node: usize, at: Time) {
        let there = &mut self.nodes[node];
        if there.wake_at.is_none_or(|wake| wake > at) {
            there.wake_at = Some(at);
            self.queue.push(at, Event::Wake(node));
        }
    }

    pub(super) fn wake(&mut self, node: usize) -> Result<(), Violation> {
        let until = self.nodes[node].paused_until.max(self.nodes[node].busy_until);
        if until > self.now {
            self.wake_node_at(node, until);
            return Ok(());
        }
        self.turn(node)
    }

    pub(super) fn turn(&mut self, node: usize) -> Result<(), Violation> {
        self.shared.counts.borrow_mut().turns += 1;
        let ending = self.nodes[node].run_turn(self.now)?;
        self.after_turn(node, ending)
    }

    fn after_turn(&mut self, node: usize, ending: Option<Ending>) -> Result<(), Violation> {
        self.send_out(node);
        if let Some(ending) = ending {
            return self.on_ending(node, ending);
        }
        self.may_end_in_install(node);
        if let Some(machine) = self.nodes[node].machine() {
            let judged = self.shared.checks.borrow_mut().look_at(self.nodes[node].id, machine);
            self.shared.checks.borrow().judge(judged)?;
            self.shared.tell_news(self.now);
            if self.nodes[node].rot.is_some() {
                self.nodes[node].find_rot_healed();
                self.nodes[node].judge_scrub()?;
            }
            self.leads_with_a_quorum(node)?;
        }
        if let Some(at) = self.nodes[node].next_turn() {
            self.wake_node_at(node, at.max(self.now));
        }
        Ok(())
    }

    /// A node that is to end while it fetches a snapshot has begun to.
    fn may_end_in_install(&mut self, node: usize) {
        let there = &mut self.nodes[node];
        let installs = there.machine().is_some_and(|machine| machine.install_view().is_some());
        if installs && let Some(nth) = there.ends_in_install.take() {
            there.disk.cut_power_after(nth);
            self.shared
                .counts
                .borrow_mut()
                .mark("is to end while it fetches a snapshot");
        }
    }

    /// Who leads must hear a quorum, or step down: a client that waits for it could be served by another.
    fn leads_with_a_quorum(&self, node: usize) -> Result<(), Violation> {
        let there = &self.nodes[node];
        let Some(life) = &there.life else { return Ok(()) };
        // As the turn began: all that had come by then was taken in first, and what its sync took is not its fault.
        let since = self.now - LEADS_UNHEARD;
        let leads = matches!(life.turn.machine().replica().stance(), Stance::Leader(_));
        // Who stood still has not had its time yet.
        if !leads || there.paused_until >= since || life.door.heard_since(since) + 1 > self.nodes.len() / 2 {
            return Ok(());
        }
        let (id, silence) = (there.id, LEADS_UNHEARD);
        Err(Violation {
            rule: "quorum",
            words: format!("{id} still leads, and a quorum was silent for {silence:?}"),
        })
    }

    /// What the node said in its turn is on its way.
    fn send_out(&mut self, node: usize) {
        let Some(life) = &mut self.nodes[node].life else { return };
        let mut left = life.door.take_left();
        for (at, out) in left.drain(..) {
            match out {
                Out::Dial(connection, peer) => {
                    let acceptor = usize::from(peer.0) - 1;
                    self.dial(connection, End::Node(node), acceptor, at);
                    self.queue.push(at + DIAL_TIMEOUT, Event::DialTimeout(connection));
                }
                Out::Frame(connection, bytes) => self.send(connection, End::Node(node), bytes, at),
                Out::Close(connection) => self.hang_up(connection, End::Node(node), at),
            }
        }
        if let Some(life) = &mut self.nodes[node].life {
            life.door.give_back(left);
        }
    }

    fn on_ending(&mut self, node: usize, ending: Ending) -> Result<(), Violation> {
        self.tell_of(End::Node(node), || format!("ends: {ending}"));
        let death = match ending {
            Ending::PowerCut => {
                self.fault(Fault::PowerCutInOperation);
                Death::PowerLost
            }
            Ending::KilledInOperation => {
                self.fault(Fault::KillInOperation);
                Death::Killed
            }
            Ending::WriteFailed => {
                self.fault(Fault::WriteFailure);
                Death::Killed
            }
            Ending::SyncFailed => {
                self.fault(Fault::SyncFailure);
                Death::Killed
            }
            Ending::NoSpace => {
                self.shared.counts.borrow_mut().mark("ends for lack of space");
                Death::Killed
            }
            Ending::Damaged => Death::Killed, // the next start sees to it
            Ending::Finished => {
                self.fault(Fault::Shutdown);
                Death::Killed
            }
        };
        self.bring_down(node, death);
        Ok(())
    }

    /// A process ends now; it starts again some time later.
    pub(super) fn bring_down(&mut self, node: usize, death: Death) {
        self.bring_down_for(node, death, self.down_us());
    }

    /// The same, at most so many microseconds later.
    pub(super) fn bring_down_for(&mut self, node: usize, death: Death, most_us: u64) {
        let open = self.nodes[node].life.as_ref().map(|life| life.door.connections());
        for connection in open.unwrap_or_default() {
            if death == Death::Killed {
                self.hang_up(connection, End::Node(node), self.now);
            }
        }
        self.nodes[node].die(death);
        self.tell_of(End::Node(node), || format!("is down: {death}"));
        self.start_within(node, most_us);
    }
}
