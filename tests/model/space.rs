//! The space: every state that a world can reach, breadth first.
//!
//! Two facts make it small and quick. What a node ever sent is part of the node, so a state of the world is three nodes
//! and nothing else: three numbers. And what a step does depends on one node and one message only, so it is run through
//! the replica's code once and remembered; the search itself follows numbers, some hundred thousand states a second.

use crate::checks::{Broken, Check, Facts, Votes, check_node};
use crate::ear::Ear;
use crate::node::{Envelope, Node, Step};
use crate::sights::{self, Sights};
use crate::table::{State, Table};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use synod::paxos::{NodeId, Slot};

/// Where a step leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Not tried yet.
    Unknown,
    /// To this state of the node.
    To(u32),
    /// Against a rule: which description of it.
    Broken(u32),
}

/// One state that a node was found in, and what is known of its future.
struct Local {
    node: Node,
    facts: Facts,
    /// Number of its ear.
    ear: u16,
    /// Envelopes it sent, by receiver.
    sent_to: [Vec<u16>; 3],
    own: Option<Vec<(Step, Next)>>,
    /// By number of the envelope.
    delivered: Vec<Next>,
    /// By number of another's ear: the state that is the same, without what that one is deaf to.
    cleaned: Vec<(u16, u32)>,
}

/// All that was found out so far.
pub(crate) struct Space {
    pub(crate) world: World,
    watched: Vec<Check>,
    pub(crate) envelopes: Vec<Envelope>,
    locals: [Vec<Local>; 3],
    by_print: [BTreeMap<u128, u32>; 3],
    ears: Vec<Ear>,
    broken: Vec<Broken>,
    votes: Votes,
    /// What was met.
    pub(crate) sights: Sights,
    states: Vec<State>,
    parents: Vec<u32>,
    table: Table,
}

/// What a search came to.
pub(crate) struct Found {
    /// Distinct states.
    pub(crate) states: usize,
    /// Steps from the beginning to the farthest of them.
    pub(crate) depth: usize,
    /// The first violation, if any.
    pub(crate) violation: Option<Violation>,
}

/// A rule broken, and the shortest way to it.
pub(crate) struct Violation {
    /// All states before the last step.
    pub(crate) path: Vec<State>,
    /// Whose step was the last, and which.
    pub(crate) last: (usize, Step),
    pub(crate) broken: Broken,
}

impl Space {
    /// The beginning of `world`. What breaks one of `watched` ends the search; other checks are not made.
    pub(crate) fn new(world: World, watched: &[Check]) -> Space {
        let mut space = Space {
            world,
            watched: watched.to_vec(),
            envelopes: Vec::new(),
            locals: [Vec::new(), Vec::new(), Vec::new()],
            by_print: [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()],
            ears: Vec::new(),
            broken: Vec::new(),
            votes: Votes::default(),
            sights: Sights::new(),
            states: Vec::new(),
            parents: Vec::new(),
            table: Table::new(),
        };
        for id in [1, 2, 3] {
            let node = Node::new(NodeId(id), &space.world);
            space.intern(node);
        }
        let begin = if space.world.leads { space.first_leads() } else { [0; 3] };
        space.visit(begin, 0);
        space
    }

    /// Visits all states, or stops at the first violation.
    pub(crate) fn search(&mut self) -> Found {
        let (mut depth, mut level_ends, mut at, mut steps) = (0, self.states.len(), 0, Vec::new());
        while at < self.states.len() {
            if at == level_ends {
                (depth, level_ends) = (depth + 1, self.states.len());
            }
            let state = self.states[at];
            self.steps(state, &mut steps);
            for (n, step, next) in &steps {
                if let Some(broken) = self.follow(at, *n, *next) {
                    let (path, last) = (self.path(at), (*n, *step));
                    let violation = Some(Violation { path, last, broken });
                    return self.found(depth + 1, violation);
                }
            }
            at += 1;
        }
        self.found(depth, None)
    }

    fn found(&self, depth: usize, violation: Option<Violation>) -> Found {
        let states = self.states.len();
        Found {
            states,
            depth,
            violation,
        }
    }

    /// A node in a state that it was found in.
    pub(crate) fn node(&self, n: usize, local: u32) -> &Node {
        &self.locals[n][local as usize].node
    }

    /// Who voted for what and took what as chosen, over all states: what two searches of one world must agree on.
    pub(crate) fn outcomes(&self) -> BTreeSet<String> {
        let who = |state: &State| {
            let facts = [0, 1, 2].map(|n| &self.locals[n][state[n] as usize].facts);
            let slots: Vec<String> = (1..=self.world.slots)
                .map(|slot| self.votes.who(Slot(slot), facts))
                .collect();
            slots.join("; ")
        };
        self.states.iter().map(who).collect()
    }

    /// All that can happen next: whose step, which, and where it leads that node.
    fn steps(&mut self, state: State, steps: &mut Vec<(usize, Step, Next)>) {
        steps.clear();
        let crashes: u8 = (0..3).map(|n| self.node(n, state[n]).crashes).sum();
        let may_crash = crashes < self.world.crashes_all;
        for n in 0..3 {
            for (step, next) in self.own_steps(n, state[n]) {
                if *step != Step::Crash || may_crash {
                    steps.push((n, *step, *next));
                }
            }
            if self.node(n, state[n]).is_turn_full(&self.world) {
                continue;
            }
            for sender in (0..3).filter(|sender| *sender != n) {
                for i in 0..self.locals[sender][state[sender] as usize].sent_to[n].len() {
                    let number = self.locals[sender][state[sender] as usize].sent_to[n][i];
                    steps.push((n, Step::Deliver(number), self.deliver(n, state[n], number)));
                }
            }
        }
    }

    /// Visits the state that a step of node `n` leads to; what it breaks, if anything.
    fn follow(&mut self, at: usize, n: usize, next: Next) -> Option<Broken> {
        let mut state = self.states[at];
        match next {
            Next::Unknown => unreachable!("a step is tried before it is followed"),
            Next::Broken(number) => return Some(self.broken[number as usize].clone()),
            Next::To(to) if to == state[n] => return None,
            Next::To(to) => state[n] = to,
        }
        let state = self.clean(state);
        if !self.visit(state, at) {
            return None;
        }
        let facts = [0, 1, 2].map(|n| &self.locals[n][state[n] as usize].facts);
        let broken = self.votes.check(facts, self.world.slots, &mut self.sights);
        broken.into_iter().find(|broken| self.watched.contains(&broken.check))
    }

    /// False if the state was known.
    fn visit(&mut self, state: State, parent: usize) -> bool {
        let is_new = self.table.insert(state, &self.states);
        if is_new {
            self.states.push(state);
            self.parents.push(parent as u32);
        }
        is_new
    }

    /// The states on the way to the one of number `at`.
    fn path(&self, mut at: usize) -> Vec<State> {
        let mut path = vec![self.states[at]];
        while at != 0 {
            at = self.parents[at] as usize;
            path.push(self.states[at]);
        }
        path.reverse();
        path
    }

    /// The step that leads from one state to the next of a path.
    pub(crate) fn step_between(&mut self, before: State, after: State) -> (usize, Step) {
        let mut steps = Vec::new();
        self.steps(before, &mut steps);
        let step = steps.into_iter().find(|(n, _, next)| {
            let Next::To(to) = next else { return false };
            let mut state = before;
            state[*n] = *to;
            *to != before[*n] && self.clean(state) == after
        });
        let (n, step, _) = step.expect("two states that follow each other are one step apart");
        (n, step)
    }

    /// What node `n` can do by itself, and where that leads.
    fn own_steps(&mut self, n: usize, at: u32) -> &[(Step, Next)] {
        if self.locals[n][at as usize].own.is_none() {
            let steps = self.node(n, at).own_steps(&self.world).into_iter();
            let own = steps.map(|step| (step, self.take(n, at, step))).collect();
            self.locals[n][at as usize].own = Some(own);
        }
        self.locals[n][at as usize]
            .own
            .as_deref()
            .expect("it was just put there")
    }

    fn deliver(&mut self, n: usize, at: u32, number: u16) -> Next {
        let known = self.locals[n][at as usize].delivered.get(usize::from(number));
        if let Some(next @ (Next::To(_) | Next::Broken(_))) = known {
            return *next;
        }
        let next = self.take(n, at, Step::Deliver(number));
        let delivered = &mut self.locals[n][at as usize].delivered;
        if delivered.len() <= usize::from(number) {
            delivered.resize(usize::from(number) + 1, Next::Unknown);
        }
        delivered[usize::from(number)] = next;
        next
    }

    /// Runs one step of one node through the replica's own code.
    fn take(&mut self, n: usize, at: u32, step: Step) -> Next {
        let before = &self.locals[n][at as usize].node;
        let envelope = match step {
            Step::Deliver(number) => Some(&self.envelopes[usize::from(number)]),
            _ => None,
        };
        let mut node = before.clone();
        let said = match catch_unwind(AssertUnwindSafe(|| node.take(&self.world, step, envelope))) {
            Ok(said) => said,
            // A node that stops itself takes no more steps, whoever watches.
            Err(panic) => {
                return self
                    .break_with(vec![Broken::assertion(&*panic)])
                    .unwrap_or(Next::To(at));
            }
        };
        sights::look(
            before,
            step,
            envelope.map(|envelope| &envelope.message),
            &node,
            &said,
            &mut self.sights,
        );
        for envelope in said.into_iter().filter(|envelope| !self.world.loses(&envelope.message)) {
            let number = number(&mut self.envelopes, envelope);
            node.sent.insert(number);
        }
        let sent = node.sent.iter().map(|number| &self.envelopes[usize::from(*number)]);
        let broken = check_node(&node, sent);
        self.break_with(broken).unwrap_or_else(|| Next::To(self.intern(node)))
    }

    /// The first of `broken` that is watched for.
    fn break_with(&mut self, broken: Vec<Broken>) -> Option<Next> {
        let watched = broken.into_iter().find(|broken| self.watched.contains(&broken.check))?;
        self.broken.push(watched);
        Some(Next::Broken(self.broken.len() as u32 - 1))
    }

    /// The number of a node's state; new if nobody was found in it.
    fn intern(&mut self, node: Node) -> u32 {
        let n = node.index();
        let next = self.locals[n].len() as u32;
        let number = *self.by_print[n].entry(node.print()).or_insert(next);
        if number == next {
            let mut sent_to = [Vec::new(), Vec::new(), Vec::new()];
            for number in &node.sent {
                let to = self.envelopes[usize::from(*number)].to;
                sent_to[usize::from(to.0) - 1].push(*number);
            }
            self.locals[n].push(Local {
                facts: self.votes.facts(&node),
                ear: self::number(&mut self.ears, Ear::of(&node)),
                sent_to,
                own: None,
                delivered: Vec::new(),
                cleaned: Vec::new(),
                node,
            });
        }
        number
    }

    /// The same state without dead letters.
    fn clean(&mut self, mut state: State) -> State {
        if !self.world.forgets {
            return state;
        }
        let ears = [0, 1, 2].map(|n| self.locals[n][state[n] as usize].ear);
        for (sender, local) in state.iter_mut().enumerate() {
            for ear in (0..3)
                .filter(|receiver| *receiver != sender)
                .map(|receiver| ears[receiver])
            {
                *local = self.clean_for(sender, *local, ear);
            }
        }
        state
    }

    fn clean_for(&mut self, sender: usize, at: u32, ear: u16) -> u32 {
        let local = &self.locals[sender][at as usize];
        if let Some((_, to)) = local.cleaned.iter().find(|(known, _)| *known == ear) {
            return *to;
        }
        let listener = &self.ears[usize::from(ear)];
        let mut node = local.node.clone();
        node.sent.retain(|number| {
            let Envelope { to, message, .. } = &self.envelopes[usize::from(*number)];
            *to != listener.id || !listener.is_deaf_to(message)
        });
        let is_clean = node.sent.len() == local.node.sent.len();
        let to = if is_clean { at } else { self.intern(node) };
        self.locals[sender][at as usize].cleaned.push((ear, to));
        to
    }

    /// n1 leads at its first ballot, by the promises of all.
    fn first_leads(&mut self) -> State {
        let mut state = [0; 3];
        self.take_first(&mut state, 0, Step::Campaign);
        for (to, from) in [(1, 0), (2, 0), (0, 1), (0, 2)] {
            for number in self.locals[from][state[from] as usize].sent_to[to].clone() {
                self.take_first(&mut state, to, Step::Deliver(number));
            }
        }
        self.clean(state)
    }

    /// One step of the beginning, and its sync.
    fn take_first(&mut self, state: &mut State, n: usize, step: Step) {
        for step in [step, Step::Sync] {
            match self.take(n, state[n], step) {
                Next::To(to) => state[n] = to,
                Next::Unknown | Next::Broken(_) => unreachable!("the beginning breaks no rule"),
            }
        }
    }
}

/// The number of `item` in `list`, which it is added to if it is new.
fn number<T: PartialEq>(list: &mut Vec<T>, item: T) -> u16 {
    let known = list.iter().position(|known| *known == item);
    let number = known.unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    });
    u16::try_from(number).expect("a small world has few messages")
}
