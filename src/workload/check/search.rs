//! The search: is there an order of one key's operations that explains all results and respects real time?
//!
//! Wing and Gong, "Testing and Verifying Concurrent Objects" (1993): take an operation that nothing unfinished precedes,
//! apply it, go on; go back where nothing fits. Lowe, "Testing for linearizability" (2017), adds the memory of states
//! seen: a set of operations taken and a value are searched once. What is ours, each for a reason:
//!
//! * *Reads at once.* A completed read that fits now is taken now: it changes nothing, so taking it later gains nothing.
//! * *Unknown operations on demand.* They need not happen, so one is taken only directly before a completed operation
//!   that does not fit without it (or before another unknown one that leads there). In any explanation, an unknown
//!   operation that is followed by one that fits without it can move behind that one, or is overwritten and can go.
//! * *Unknown operations that do the same are one class*; the earliest is used first, since none ever ends.
//! * *Less used is better.* With the same operations taken and the same value there, a state that has used a part of
//!   what another has used can do all that the other can: the other is not searched.
//! * *Orphans.* A value may not be overwritten while a read of it is still to come and nothing left can write it.
//! * *Twins.* Of completed operations that do the same, only the one that ends first is tried.
//!
//! Operations at the same instant count as concurrent.

use super::model::{ABSENT, Held, Leave, Need, Op, Step};
use std::collections::BTreeMap;
#[expect(
    clippy::disallowed_types,
    reason = "only looked up, never iterated: its order cannot matter"
)]
use std::collections::HashMap;

/// Memory of states, in bytes, at which the search gives up.
const MEMORY_BYTES_MAX: usize = 2 << 30;
/// What one remembered state takes, about, beside the list of what it used.
const STATE_BYTES: usize = 96;
/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u64 = 1024;

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Violation,
    /// Out of steps, time or memory.
    Undecided,
}

/// What a search may spend.
pub struct Limit<'a> {
    /// States to try.
    pub steps: u64,
    /// Asked now and then: whether time is over.
    pub out_of_time: &'a dyn Fn() -> bool,
}

/// Searches the operations of one key, which must be in the order of their calls. Also returns the number of states
/// tried.
pub fn search(ops: &[Op], limit: &Limit<'_>) -> (Outcome, u64) {
    let mut search = Search::new(ops);
    let outcome = search.run(limit);
    (outcome, search.steps)
}

/// A place in the list of completed operations.
type Place = usize;

/// An operation that ended.
#[derive(Clone, Copy, Debug)]
struct Completed {
    step: Step,
    call: u64,
    end: u64,
}

/// Unknown operations that do the same.
#[derive(Clone, Debug)]
struct Class {
    step: Step,
    /// Ascending.
    calls: Vec<u64>,
    used: usize,
}

/// One way to go on: some unknown operations in a row, and a completed one that fits behind them.
#[derive(Clone, Debug)]
struct Move {
    chain: Vec<u32>,
    place: Place,
}

/// What was done, to be undone in reverse.
#[derive(Clone, Copy, Debug)]
enum Trail {
    Taken(Place),
    Used(u32),
    Found(Held),
}

/// A state on the way: its moves not tried yet are those of `moves` from here on, and what led to it is on the trail.
#[derive(Clone, Copy, Debug)]
struct Frame {
    moves_from: usize,
    trail_from: usize,
}

struct Search {
    completed: Vec<Completed>,
    /// Operations not taken yet as a doubly linked list in the order of calls, with a sentinel behind the last.
    next: Vec<Place>,
    prev: Vec<Place>,
    classes: Vec<Class>,
    /// Classes that can write a value, by value.
    setters: Vec<Vec<u32>>,
    /// Completed operations not taken yet that need a value, by value.
    readers_left: Vec<u32>,
    /// Operations not taken yet, completed or unknown, that can write a value, by value.
    writers_left: Vec<u32>,
    there: Held,
    /// Random numbers, one for each completed operation taken, joined by xor.
    taken_hash: u128,
    /// Classes used, ascending, one entry for each use.
    used: Vec<u32>,
    /// By operations taken and value: the smallest lists of used classes with which it was searched.
    #[expect(
        clippy::disallowed_types,
        reason = "only looked up, never iterated: its order cannot matter"
    )]
    seen: HashMap<(u128, Held), Vec<Box<[u32]>>>,
    seen_bytes: usize,
    moves: Vec<Move>,
    trail: Vec<Trail>,
    steps: u64,
}

impl Search {
    #[expect(
        clippy::disallowed_types,
        reason = "only looked up, never iterated: its order cannot matter"
    )]
    fn new(ops: &[Op]) -> Search {
        let completed: Vec<Completed> = ops
            .iter()
            .filter_map(|op| {
                let (step, call) = (op.step, op.call);
                op.end.map(|end| Completed { step, call, end })
            })
            .collect();
        assert!(
            completed.is_sorted_by_key(|op| op.call),
            "operations must come in the order of their calls"
        );
        let count = completed.len();
        let values = ops
            .iter()
            .map(|op| op.step.highest().0)
            .max()
            .map_or(1, |highest| highest as usize + 1);
        let mut search = Search {
            // The sentinel is at `count`: its next is the first operation.
            next: (1..=count).chain([0]).collect(),
            prev: [count].into_iter().chain(0..count).collect(),
            completed,
            classes: classes(ops),
            setters: vec![Vec::new(); values],
            readers_left: vec![0; values],
            writers_left: vec![0; values],
            there: ABSENT,
            taken_hash: 0,
            used: Vec::new(),
            seen: HashMap::new(),
            seen_bytes: 0,
            moves: Vec::new(),
            trail: Vec::new(),
            steps: 0,
        };
        search.count();
        search
    }

    fn count(&mut self) {
        for op in &self.completed {
            if let Need::Is(held) = op.step.need {
                self.readers_left[held.0 as usize] += 1;
            }
            if let Leave::Set(held) = op.step.leave {
                self.writers_left[held.0 as usize] += 1;
            }
        }
        for (class, number) in self.classes.iter().zip(0..) {
            if let Leave::Set(held) = class.step.leave {
                self.writers_left[held.0 as usize] += class.calls.len() as u32;
                self.setters[held.0 as usize].push(number);
            }
        }
    }

    fn run(&mut self, limit: &Limit<'_>) -> Outcome {
        let mut frames = vec![Frame {
            moves_from: 0,
            trail_from: 0,
        }];
        if self.enter() {
            return Outcome::Linearizable;
        }
        while let Some(frame) = frames.last() {
            if self.moves.len() == frame.moves_from {
                self.undo(frame.trail_from);
                frames.pop();
                continue;
            }
            self.steps += 1;
            let late = self.steps.is_multiple_of(STEPS_PER_LOOK) && (limit.out_of_time)();
            if late || self.steps > limit.steps || self.seen_bytes > MEMORY_BYTES_MAX {
                return Outcome::Undecided;
            }
            let frame = Frame {
                trail_from: self.trail.len(),
                moves_from: self.moves.len() - 1,
            };
            let taken = self.moves.pop().expect("the frame has a move left");
            if !self.make(&taken) {
                self.undo(frame.trail_from);
                continue;
            }
            if self.enter() {
                return Outcome::Linearizable;
            }
            frames.push(frame);
        }
        Outcome::Violation
    }

    /// Takes the reads that fit, and lists the moves from here, the best last. True if nothing is left to explain.
    fn enter(&mut self) -> bool {
        let earliest_end = self.take_reads();
        if self.first() == self.sentinel() {
            return true;
        }
        if !self.is_new() {
            return false;
        }
        let from = self.moves.len();
        let mut place = self.first();
        while place != self.sentinel() && self.completed[place].call <= earliest_end {
            self.add_moves(place, earliest_end);
            place = self.next[place];
        }
        // Tried from the back: first what needs no unknown operation, and of that what ends first.
        self.moves[from..].sort_by_key(|it| std::cmp::Reverse((it.chain.len(), self.completed[it.place].end)));
        let mut tried: Vec<(Step, usize)> = Vec::new();
        let completed = &self.completed;
        let mut kept: Vec<Move> = Vec::with_capacity(self.moves.len() - from);
        for candidate in self.moves.drain(from..).rev() {
            let step = completed[candidate.place].step;
            // Twins need the same chains: only those of the first, which ends first, are kept.
            match tried.iter().find(|(other, _)| *other == step) {
                Some((_, place)) if *place != candidate.place => {}
                Some(_) => kept.push(candidate),
                None => {
                    tried.push((step, candidate.place));
                    kept.push(candidate);
                }
            }
        }
        self.moves.extend(kept.into_iter().rev());
        false
    }

    /// Takes every completed read that fits. Returns the earliest end of what is left: what is called after it must wait.
    ///
    /// One pass is enough: whether an operation may go now depends only on those called before it.
    fn take_reads(&mut self) -> u64 {
        let mut earliest_end = u64::MAX;
        let mut place = self.first();
        while place != self.sentinel() && self.completed[place].call <= earliest_end {
            let Completed { step, end, .. } = self.completed[place];
            if step.leave == Leave::Same && step.need.is_met_by(self.there) {
                self.take(place);
            } else {
                earliest_end = earliest_end.min(end);
            }
            place = self.next[place];
        }
        earliest_end
    }

    /// Whether this state was not searched yet, nor a better one; remembers it then.
    fn is_new(&mut self) -> bool {
        let searched = self.seen.entry((self.taken_hash, self.there)).or_default();
        if searched.iter().any(|less| is_part_of(less, &self.used)) {
            return false;
        }
        searched.retain(|more| !is_part_of(&self.used, more));
        searched.push(self.used.as_slice().into());
        self.seen_bytes += STATE_BYTES + size_of_val(self.used.as_slice());
        true
    }

    fn add_moves(&mut self, place: Place, earliest_end: u64) {
        let need = self.completed[place].step.need;
        if need.is_met_by(self.there) {
            let chain = Vec::new();
            return self.moves.push(Move { chain, place });
        }
        match need {
            Need::Is(wanted) => self.add_chains(place, earliest_end, wanted, &mut Vec::new(), &mut vec![wanted]),
            // Only the value that is there does not fit: any unknown operation that changes it will do.
            Need::Not(_) => {
                for (class, number) in self.classes.iter().zip(0..) {
                    if class.is_open(earliest_end)
                        && class.step.need.is_met_by(self.there)
                        && class.step.leaves(self.there) != self.there
                    {
                        let chain = vec![number];
                        self.moves.push(Move { chain, place });
                    }
                }
            }
            Need::Any | Need::Never => {}
        }
    }

    /// Adds the moves whose unknown operations lead from what is there to `wanted`, followed by those in `behind` (the
    /// last first). `passed` holds the values on the way: none is passed twice.
    fn add_chains(
        &mut self,
        place: Place,
        earliest_end: u64,
        wanted: Held,
        behind: &mut Vec<u32>,
        passed: &mut Vec<Held>,
    ) {
        for at in 0..self.setters[wanted.0 as usize].len() {
            let number = self.setters[wanted.0 as usize][at];
            let class = &self.classes[number as usize];
            if !class.is_open(earliest_end) {
                continue;
            }
            behind.push(number);
            match class.step.need {
                Need::Is(before) if before != self.there => {
                    if !passed.contains(&before) {
                        passed.push(before);
                        self.add_chains(place, earliest_end, before, behind, passed);
                        passed.pop();
                    }
                }
                _ => {
                    let chain = behind.iter().rev().copied().collect();
                    self.moves.push(Move { chain, place });
                }
            }
            behind.pop();
        }
    }

    /// Makes a move. False if it leaves a read that nothing can serve any more.
    fn make(&mut self, chosen: &Move) -> bool {
        for number in &chosen.chain {
            self.use_one(*number);
            let step = self.classes[*number as usize].step;
            if !self.change(step) {
                return false;
            }
        }
        self.take(chosen.place);
        self.change(self.completed[chosen.place].step)
    }

    fn change(&mut self, step: Step) -> bool {
        let (before, after) = (self.there, step.leaves(self.there));
        if before == after {
            return true;
        }
        self.trail.push(Trail::Found(before));
        self.there = after;
        let place = before.0 as usize;
        self.readers_left[place] == 0 || self.writers_left[place] > 0
    }

    fn take(&mut self, place: Place) {
        self.trail.push(Trail::Taken(place));
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = after;
        self.prev[after] = before;
        self.account(place, |left| *left -= 1);
    }

    fn untake(&mut self, place: Place) {
        let (before, after) = (self.prev[place], self.next[place]);
        self.next[before] = place;
        self.prev[after] = place;
        self.account(place, |left| *left += 1);
    }

    fn account(&mut self, place: Place, change: impl Fn(&mut u32)) {
        self.taken_hash ^= random_number(place);
        let Step { need, leave } = self.completed[place].step;
        if let Need::Is(held) = need {
            change(&mut self.readers_left[held.0 as usize]);
        }
        if let Leave::Set(held) = leave {
            change(&mut self.writers_left[held.0 as usize]);
        }
    }

    fn use_one(&mut self, number: u32) {
        self.trail.push(Trail::Used(number));
        let class = &mut self.classes[number as usize];
        class.used += 1;
        if let Leave::Set(held) = class.step.leave {
            self.writers_left[held.0 as usize] -= 1;
        }
        let at = self.used.partition_point(|other| *other < number);
        self.used.insert(at, number);
    }

    fn undo(&mut self, trail_from: usize) {
        while self.trail.len() > trail_from {
            match self.trail.pop().expect("longer than trail_from") {
                Trail::Taken(place) => self.untake(place),
                Trail::Found(held) => self.there = held,
                Trail::Used(number) => {
                    let class = &mut self.classes[number as usize];
                    class.used -= 1;
                    if let Leave::Set(held) = class.step.leave {
                        self.writers_left[held.0 as usize] += 1;
                    }
                    let at = self.used.partition_point(|other| *other < number);
                    self.used.remove(at);
                }
            }
        }
    }

    fn sentinel(&self) -> Place {
        self.completed.len()
    }

    fn first(&self) -> Place {
        self.next[self.sentinel()]
    }
}

impl Class {
    /// Whether one of it is left that was called early enough.
    fn is_open(&self, earliest_end: u64) -> bool {
        self.calls.get(self.used).is_some_and(|call| *call <= earliest_end)
    }
}

/// The unknown operations that could change anything, by what they do.
fn classes(ops: &[Op]) -> Vec<Class> {
    let mut by_step: BTreeMap<Step, Vec<u64>> = BTreeMap::new();
    for op in ops.iter().filter(|op| op.end.is_none()) {
        if op.step.leave != Leave::Same && op.step.need != Need::Never {
            by_step.entry(op.step).or_default().push(op.call);
        }
    }
    let class = |(step, mut calls): (Step, Vec<u64>)| {
        calls.sort_unstable();
        Class { step, calls, used: 0 }
    };
    by_step.into_iter().map(class).collect()
}

/// Whether all of `part` is in `whole`; both ascending, with repeats.
fn is_part_of(part: &[u32], whole: &[u32]) -> bool {
    let mut rest = whole.iter();
    part.len() <= whole.len() && part.iter().all(|wanted| rest.by_ref().any(|one| one == wanted))
}

/// A number for an operation, such that their xor tells sets apart: 128 bits by the finalizer of splitmix64.
fn random_number(place: Place) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seed = 2 * place as u64 + 1;
    u128::from(mix(seed)) << 64 | u128::from(mix(seed + 1))
}
