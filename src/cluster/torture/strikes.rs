//! Carrying strikes out on real processes, and ending them.
//!
//! Invariants:
//! * What is done to a node is noted in the book before it is done, and taken back after it is undone: the book may call
//!   somebody out who still is well, never the other way round.
//! * A node that was stopped is woken, one that was killed is started, whatever came in between.
//!
//! Not here: when who is to be struck ([`super::plan`]).

use super::book::{Book, What};
use super::plan::{Kind, Strike};
use crate::cluster::LocalCluster;
use crate::cluster::local::ClusterError;
use crate::command::FaultCommand;
use crate::command::fault::Direction;
use crate::console;
use crate::paxos::NodeId;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Longest delay of a link and of a sync: well below an election timeout, so that nobody is given up for it.
const DELAY_MAX_MS: u64 = 50;
/// Smallest share of messages that a lossy link loses, of a hundred; the largest is 50 above.
const LOSS_MIN: u8 = 10;
/// A fault ends at its node by itself; the book says so a little later.
const SLACK: Duration = Duration::from_millis(100);

/// What state a process is in, and when that ends, from the beginning of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Running,
    /// Asked to end; started again once it has, and not before.
    Ending(Duration),
    /// Started again then.
    Dead(Duration),
    /// Woken then.
    Stopped(Duration),
}

/// The nodes, who sits where, and what is being done to them.
pub(super) struct Field {
    /// The node of each place of the plan.
    seats: Vec<u16>,
    processes: BTreeMap<u16, Process>,
    book: Book,
    cycles: BTreeMap<Kind, u32>,
    is_told: bool,
}

impl Field {
    pub(super) fn new(nodes: Vec<u16>, is_told: bool) -> Field {
        Field {
            processes: nodes.iter().map(|node| (*node, Process::Running)).collect(),
            book: Book::new(nodes.clone()),
            seats: nodes,
            cycles: BTreeMap::new(),
            is_told,
        }
    }

    pub(super) fn nodes(&self) -> &[u16] {
        &self.seats
    }

    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// How often each kind was done and, where that takes a hand, undone.
    pub(super) fn cycles(&self) -> &BTreeMap<Kind, u32> {
        &self.cycles
    }

    /// Whether every process runs.
    pub(super) fn is_whole(&self) -> bool {
        self.processes.values().all(|process| *process == Process::Running)
    }

    /// Carries a strike out.
    pub(super) fn strike(&mut self, cluster: &mut LocalCluster, beginning: Instant, strike: &Strike) {
        let at = beginning.elapsed();
        if strike.aims_at_leader {
            self.seat_leader(cluster, at, strike.places[0]);
        }
        let nodes: Vec<u16> = strike.places.iter().map(|place| self.seats[*place]).collect();
        if self.is_told {
            let names: Vec<String> = nodes.iter().map(|node| format!("n{node}")).collect();
            console::tell(format_args!("{:8.3} {strike}: {}", at.as_secs_f64(), names.join(" ")));
        }
        let until = at + strike.lasts;
        let was_done = match strike.kind {
            Kind::KillAll => {
                self.kill_all(cluster, at, until);
                true
            }
            Kind::Kill | Kind::Restart | Kind::Stop => {
                let done: Vec<bool> = nodes.iter().map(|node| self.fell(cluster, at, *node, strike)).collect();
                done.contains(&true)
            }
            Kind::Acceptor => {
                let lasts = strike.lasts;
                let done: Vec<bool> = nodes
                    .iter()
                    .map(|node| {
                        let was_done = self.fault(cluster, *node, &FaultCommand::AcceptorDown { lasts });
                        self.book
                            .out(What::Node(*node), at, Some(beginning.elapsed() + lasts + SLACK));
                        was_done
                    })
                    .collect();
                done.contains(&true)
            }
            Kind::Partition => self.part(cluster, beginning, &nodes, strike.lasts),
            Kind::Cut | Kind::CutOneWay | Kind::Loss => {
                let command = drop_command(nodes[1], strike);
                let was_done = self.fault(cluster, nodes[0], &command);
                let to = beginning.elapsed() + strike.lasts + SLACK;
                self.book.out(What::Link(nodes[0], nodes[1]), at, Some(to));
                was_done
            }
            Kind::Delay => {
                let command = FaultCommand::Delay {
                    peer: NodeId(nodes[1]),
                    by: delay(strike),
                    lasts: strike.lasts,
                };
                self.fault(cluster, nodes[0], &command)
            }
            Kind::SlowSync => {
                let command = FaultCommand::SlowSync {
                    by: delay(strike),
                    lasts: strike.lasts,
                };
                self.fault(cluster, nodes[0], &command)
            }
        };
        *self.cycles.entry(strike.kind).or_default() += u32::from(was_done);
    }

    /// Seats the leader at a place, if both it and who sits there are well.
    fn seat_leader(&mut self, cluster: &LocalCluster, at: Duration, place: usize) {
        let is_well = |node: u16| self.processes[&node] == Process::Running && !self.book.is_out(node, at);
        let leads =
            |node: &u16| is_well(*node) && cluster.status(*node).is_some_and(|status| status["role"] == "leader");
        if let Some(leader) = self.seats.iter().position(leads)
            && is_well(self.seats[place])
        {
            self.seats.swap(leader, place);
        }
    }

    fn kill_all(&mut self, cluster: &mut LocalCluster, at: Duration, until: Duration) {
        for node in self.seats.clone() {
            self.book.out(What::Node(node), at, None);
            cluster.kill_node(node);
            self.processes.insert(node, Process::Dead(until));
        }
    }

    /// Kills, stops or asks to end one node that runs.
    fn fell(&mut self, cluster: &mut LocalCluster, at: Duration, node: u16, strike: &Strike) -> bool {
        if self.processes[&node] != Process::Running {
            return false; // all were killed meanwhile, and it is not back yet
        }
        self.book.out(What::Node(node), at, None);
        let until = at + strike.lasts;
        let (was_done, becomes) = match strike.kind {
            Kind::Stop => (cluster.signal(node, Signal::STOP), Process::Stopped(until)),
            Kind::Restart => (cluster.signal(node, Signal::TERM), Process::Ending(until)),
            _ => (cluster.kill_node(node), Process::Dead(until)),
        };
        self.processes.insert(node, becomes);
        was_done
    }

    /// Cuts every link between `few` and the others.
    fn part(&mut self, cluster: &LocalCluster, beginning: Instant, few: &[u16], lasts: Duration) -> bool {
        let at = beginning.elapsed();
        let many: Vec<u16> = self.seats.iter().copied().filter(|node| !few.contains(node)).collect();
        let mut was_done = false;
        for (a, b) in few.iter().flat_map(|a| many.iter().map(move |b| (*a, *b))) {
            let command = FaultCommand::Drop {
                peer: NodeId(b),
                direction: Direction::Both,
                percent: 100,
                lasts,
            };
            was_done |= self.fault(cluster, a, &command);
            self.book
                .out(What::Link(a, b), at, Some(beginning.elapsed() + lasts + SLACK));
        }
        was_done
    }

    /// Tells a node to break itself; false if it does not answer, or does not do it.
    fn fault(&self, cluster: &LocalCluster, node: u16, command: &FaultCommand) -> bool {
        self.processes[&node] == Process::Running
            && cluster
                .ask(node, &command.to_string())
                .is_ok_and(|answer| answer.lines().last().is_some_and(|line| line.starts_with("OK")))
    }

    /// A node has ended; whether that was wanted.
    pub(super) fn has_ended(&mut self, node: u16, status: ExitStatus) -> bool {
        match self.processes[&node] {
            // One that had only just begun did not yet listen to the signal.
            Process::Ending(until) if status.success() || status.signal() == Some(Signal::TERM.as_raw()) => {
                self.processes.insert(node, Process::Dead(until));
                true
            }
            _ => false,
        }
    }

    /// Ends what is over: starts who was killed, wakes who was stopped.
    pub(super) fn mend(&mut self, cluster: &mut LocalCluster, beginning: Instant) -> Result<(), ClusterError> {
        let at = beginning.elapsed();
        for (node, process) in &mut self.processes {
            match *process {
                Process::Dead(until) if until <= at => cluster.start_node(*node)?,
                Process::Stopped(until) if until <= at => {
                    cluster.signal(*node, Signal::CONT);
                }
                _ => continue,
            }
            *process = Process::Running;
            self.book.back(*node, beginning.elapsed());
        }
        Ok(())
    }

    /// What is to end some time ends now.
    pub(super) fn hurry(&mut self) {
        for process in self.processes.values_mut() {
            *process = match *process {
                Process::Running => Process::Running,
                Process::Ending(_) => Process::Ending(Duration::ZERO),
                Process::Dead(_) => Process::Dead(Duration::ZERO),
                Process::Stopped(_) => Process::Stopped(Duration::ZERO),
            };
        }
    }
}

fn delay(strike: &Strike) -> Duration {
    Duration::from_millis(1 + DELAY_MAX_MS * u64::from(strike.strength) / 100)
}

fn drop_command(peer: u16, strike: &Strike) -> FaultCommand {
    let is_even = strike.strength.is_multiple_of(2);
    FaultCommand::Drop {
        peer: NodeId(peer),
        direction: match strike.kind {
            Kind::CutOneWay if is_even => Direction::In,
            Kind::CutOneWay => Direction::Out,
            _ => Direction::Both,
        },
        percent: match strike.kind {
            Kind::Loss => LOSS_MIN + strike.strength / 2,
            _ => 100,
        },
        lasts: strike.lasts,
    }
}
