//! The end of a run: faults stop for a connected majority, and everybody must be served; then the history is judged.
//!
//! The others stay as the storm left them, dead or cut off, in one direction or both. From any state, every request that
//! is made now must be done within [`PATIENCE`], and all nodes of the majority must have applied the same.

use super::chance::Stream;
use super::door::Arrival;
use super::network::Weather;
use super::report::Violation;
use super::world::World;
use crate::client::End as OperationEnd;
use crate::machine::Input;
use crate::paxos::Slot;
use crate::time::Time;
use crate::workload::check::{Verdict, check};
use crate::workload::record::Recorder;
use fastrand::Rng;
use std::time::Duration;

/// How long a request may take once faults have stopped, and how long until all have applied the same.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests that each lane makes in the end, at least.
const LAST_REQUESTS: u32 = 2;
/// Requests of a whole run, at least: after a storm in which little was served, more follow in the end.
const REQUESTS: u64 = 220;
/// How long the search for an order of all operations may take. Only a verdict of "undecided" hangs on it.
const SEARCH_TIME: Duration = Duration::from_secs(10);

/// The state of the end.
#[derive(Debug)]
pub(super) struct Finale {
    /// The nodes that faults have left alone.
    majority: Vec<usize>,
    begun: Time,
    /// Requests that each lane makes.
    requests: u32,
    /// Lanes whose request of now must be done.
    asked: Vec<(usize, usize)>,
}

impl World {
    pub(super) fn begin_finale(&mut self) -> Result<(), Violation> {
        self.shared.transcript.is_calm();
        let mut rng = self.chance.stream(Stream::Finale, 0, 0);
        let majority = self.draw_majority(&mut rng);
        self.tell(|| {
            let names: Vec<String> = majority.iter().map(|node| format!("n{}", node + 1)).collect();
            format!("faults stop for {}", names.join(" "))
        });
        self.network.heal();
        self.network.heal_clients();
        self.network.weather = Weather::calm(&mut rng);
        self.storm.finale = Some(Finale {
            majority: majority.clone(),
            begun: self.now,
            requests: self.last_requests(),
            asked: Vec::new(),
        });
        for other in (0..self.nodes.len()).filter(|node| !majority.contains(node)) {
            self.leave_out(other, &majority, &mut rng);
        }
        for node in majority {
            self.make_well(node);
            let there = &mut self.nodes[node];
            there.paused_until = there.paused_until.min(self.now);
            if there.is_up() {
                self.arrive(node, Arrival::Input(Box::new(Input::AcceptorUp)))?;
            } else {
                self.start_within(node, self.down_us());
            }
        }
        Ok(())
    }

    fn last_requests(&self) -> u32 {
        if self.options.keep_ops.is_some() {
            return 1; // as few as can be
        }
        let lanes: usize = self.clients.iter().map(|client| client.lanes.len()).sum();
        let missing = REQUESTS.saturating_sub(self.shared.counts.borrow().operations());
        LAST_REQUESTS.max(missing.div_ceil(lanes as u64) as u32)
    }

    /// A majority of nodes whose memory is whole; all, while nobody among them knows the cluster as founded. Some who have
    /// forgotten join them: so many of the others are there that each must recover.
    fn draw_majority(&self, rng: &mut Rng) -> Vec<usize> {
        let checks = self.shared.checks.borrow();
        let has_forgotten = |node: &usize| checks.has_forgotten(self.nodes[*node].id);
        let can_vote = |node: &usize| self.nodes[*node].rot.is_none() && !has_forgotten(node);
        let mut able: Vec<usize> = (0..self.nodes.len()).filter(can_vote).collect();
        rng.shuffle(&mut able);
        let quorum = self.nodes.len() / 2 + 1;
        let count = rng.usize(quorum.min(able.len())..=able.len());
        let founded = able[..count].iter().any(|node| checks.is_founded(self.nodes[*node].id));
        able.truncate(if founded { count } else { able.len() });
        able.extend((0..self.nodes.len()).filter(|node| has_forgotten(node) && rng.bool()));
        able.sort_unstable();
        able
    }

    /// A node outside of the majority hears it, is heard by it, or neither.
    fn leave_out(&mut self, other: usize, majority: &[usize], rng: &mut Rng) {
        let (hears, is_heard) = [(true, false), (false, true), (false, false)][rng.usize(0..3)];
        for node in majority.iter().copied() {
            if !hears {
                self.network.cut(node, other, self.now);
            }
            if !is_heard {
                self.network.cut(other, node, self.now);
            }
        }
        let is_reached = rng.bool();
        for client in 0..self.clients.len() {
            self.network.set_client_cut(client, other, !is_reached);
        }
    }

    /// Whether a lane begins another operation, and how long it may take if that is not to be drawn.
    pub(super) fn may_submit(&mut self, client: usize, lane: usize) -> Option<Option<Duration>> {
        let Some(finale) = &mut self.storm.finale else {
            return Some(None);
        };
        if self.clients[client].last_done[lane] >= finale.requests {
            return None;
        }
        finale.asked.push((client, lane));
        Some(Some(PATIENCE))
    }

    /// An operation ended: one that began in the finale must be done.
    pub(super) fn judge_last(&mut self, client: usize, lane: usize, end: &OperationEnd) -> Result<(), Violation> {
        let Some(finale) = &mut self.storm.finale else {
            return Ok(());
        };
        let Some(place) = finale.asked.iter().position(|asked| *asked == (client, lane)) else {
            return Ok(()); // begun in the storm
        };
        finale.asked.swap_remove(place);
        if let OperationEnd::Done(_) = end {
            self.clients[client].last_done[lane] += 1;
            return Ok(());
        }
        Err(Violation {
            rule: "liveness",
            words: format!(
                "client {client}.{lane} is told {end:?}, {} after faults stopped",
                self.since_storm()
            ),
        })
    }

    fn since_storm(&self) -> String {
        let since = self.storm.finale.as_ref().map_or(Time::ZERO, |finale| finale.begun);
        format!("{:?}", self.now.since(since))
    }

    /// Whether all that must still happen has happened.
    pub(super) fn is_over(&self) -> Result<bool, Violation> {
        let Some(finale) = &self.storm.finale else {
            return Ok(false);
        };
        let mut lanes = self.clients.iter().flat_map(|client| &client.last_done);
        let is_served = lanes.all(|done| *done >= finale.requests);
        let applied: Vec<Option<Slot>> = finale.majority.iter().map(|node| self.applied(*node)).collect();
        let acknowledged = self.shared.checks.borrow().done_upto();
        let is_even = applied[0] >= Some(acknowledged) && applied.iter().all(|slot| *slot == applied[0]);
        let votes = |node: &usize| {
            self.nodes[*node]
                .machine()
                .is_some_and(|machine| machine.replica().votes())
        };
        let all_vote = finale.majority.iter().all(votes);
        if is_served && is_even && all_vote {
            return Ok(true);
        }
        if self.now.since(finale.begun) < 3 * PATIENCE {
            return Ok(false);
        }
        let roles: Vec<String> = self.nodes.iter().map(|node| self.describe(node)).collect();
        Err(Violation {
            rule: "liveness",
            words: format!(
                "{} after faults stopped, served: {is_served}, all vote: {all_vote}, applied by the majority: {applied:?}; {}",
                self.since_storm(),
                roles.join("; ")
            ),
        })
    }

    fn describe(&self, node: &super::node::SimNode) -> String {
        let Some(life) = &node.life else {
            return format!("{} is down", node.id);
        };
        let status = life.turn.machine().status(node.clock.at(self.now));
        format!(
            "{} is {}, follows {:?}, has chosen {} and applied {}, votes: {} ({})",
            node.id, status.role, status.leader, status.chosen, status.applied, status.voter, status.voter_reason
        )
    }

    fn applied(&self, node: usize) -> Option<Slot> {
        self.nodes[node].machine().map(|machine| machine.state().applied())
    }

    /// Whether the logs of all nodes take no more than they should.
    pub(super) fn check_logs(&self) -> Result<(), Violation> {
        let checks = self.shared.checks.borrow();
        let mut nodes = self.nodes.iter();
        nodes.try_for_each(|node| checks.takes(node))
    }

    /// Whether one node without any fault could have given all these answers.
    pub(super) fn check_history(&self, recorder: Recorder) -> Result<(), Violation> {
        let finished = recorder.finish().map_err(|error| Violation {
            rule: "history",
            words: error.to_string(),
        })?;
        let Some(history) = finished else { return Ok(()) };
        match check(&history, SEARCH_TIME) {
            Verdict::Linearizable(_) => Ok(()),
            Verdict::Undecided(_, keys) => {
                self.shared.counts.borrow_mut().undecided += keys.len() as u64;
                Ok(())
            }
            Verdict::Violation(_, violation) => Err(Violation {
                rule: "linearizability",
                words: violation.to_string(),
            }),
        }
    }
}
