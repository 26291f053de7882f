//! What a running script does next: pure, and the same for the same seed and the same answers.
//!
//! A *place* runs the body of one client: a client with a pipeline of four has four places, each with its own variables
//! and draws, and each with one operation open at most. How to drive it: call [`Plan::next`] until it is `None` and carry
//! out each action; tell what comes of it by [`Plan::finished`] or [`Plan::acted`]; wait until [`Plan::deadline`] at most.
//! The run is over when [`Plan::is_over`].
//!
//! Invariants:
//! * A place is in one of these: not begun, ready, at a timer, at a barrier, waiting, with one action open, ended.
//! * Draws of a place hang on the seed, the place and what it did before, never on time: a seed repeats the script.
//!   (Keys of `latest` and `in-order` are shared by all places, and so follow the order of answers.)
//!
//! Not here: sockets and clocks (`runner`), what figures come of it (`summary`).

mod action;
mod place;
#[cfg(test)]
mod tests;
mod timers;

pub use action::{Action, Kind, Stop, Submission};
pub use place::{Datum, Ended};

use super::generator::{KeySpace, Values, seeded};
use super::script::expect::Expectation;
use super::script::program::{CommandTemplate, MAIN, Program, Step};
use crate::command::DataCommand;
use crate::time::Time;
use crate::wire::RequestOp;
use bytes::Bytes;
use place::{Frame, Loop, Place};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use timers::Timers;

/// Steps that one place makes before others have their turn: no loop without commands can hold up the run.
const STEPS_PER_TURN: usize = 1_000;
/// A place rests so long after a command that was not done: a cluster that refuses is not hammered.
const PAUSE_NOT_DONE: Duration = Duration::from_millis(20);
/// How often one key is loaded before the run gives up.
const LOAD_TRIES: u32 = 3;

/// What a step leads to.
enum Flow {
    /// The step behind.
    Next,
    /// That step.
    To(usize),
    /// [`Plan::action`] is to be done; the place waits for its end, and goes on with the step behind.
    Act,
    /// [`Plan::action`] is to be done, and nobody waits for it.
    Say,
    /// The place waits and does this step again.
    Again,
    /// The place waits and goes on with the step behind.
    Behind,
    /// The body ends.
    End,
}

/// How far a group of clients is.
#[derive(Clone, Debug)]
struct Progress {
    first_place: usize,
    begun: Option<Time>,
    alive: usize,
    /// Operations that got an intended start.
    issued: u64,
}

/// A running script.
#[derive(Debug)]
pub struct Plan {
    program: Rc<Program>,
    draws: Draws,
    places: Vec<Place>,
    groups: Vec<Progress>,
    ready: VecDeque<usize>,
    timers: Timers,
    /// Who stands at each barrier.
    standing: Vec<Vec<usize>>,
    /// Who waits for a group, or for all.
    waiting: Vec<(usize, Option<usize>)>,
    /// What the step that was just made wants done.
    action: Option<Action>,
    /// Actions whose end was not told yet.
    open: usize,
    count_from: Time,
    stop: Option<Stop>,
}

/// What all places draw from.
#[derive(Debug)]
struct Draws {
    /// What stands before every key, or nothing.
    run: String,
    keys: Vec<KeySpace>,
    values: Vec<Values>,
}

impl Draws {
    fn key_of_run(&self, key: Bytes) -> Bytes {
        if self.run.is_empty() || key.is_empty() {
            return key; // an empty key stays one, so that it is refused
        }
        Bytes::from([self.run.as_bytes(), &key].concat())
    }
}

impl Plan {
    /// A plan of `program`. `run`: what stands before every key, or nothing.
    pub fn new(program: Program, seed: u64, run: &str) -> Plan {
        let mut rng = seeded(seed, u64::MAX);
        let mut places = Vec::new();
        let mut groups = Vec::new();
        let mut clients = 0;
        for (number, group) in program.groups.iter().enumerate() {
            groups.push(Progress {
                first_place: places.len(),
                begun: None,
                alive: group.places(),
                issued: 0,
            });
            for place in 0..group.places() {
                let copy = place / group.pipeline;
                let rng = seeded(seed, places.len() as u64);
                places.push(Place::new(places.len(), number, clients + copy, copy, rng));
            }
            clients += group.copies;
        }
        let main = &mut places[MAIN];
        main.variables = vec![Datum::Unset; program.variables.len()];
        groups[MAIN].begun = Some(Time::ZERO);
        Plan {
            draws: Draws {
                run: run.to_owned(),
                keys: program.keys.iter().map(|spec| KeySpace::new(spec, run.len())).collect(),
                values: program.values.iter().map(|spec| Values::new(*spec, &mut rng)).collect(),
            },
            standing: vec![Vec::new(); program.barriers.len()],
            program: Rc::new(program),
            places,
            groups,
            ready: VecDeque::from([0]),
            timers: Timers::default(),
            waiting: Vec::new(),
            action: None,
            open: 0,
            count_from: Time::ZERO,
            stop: None,
        }
    }

    /// The next thing to be done now; `None`: only time or an answer brings more.
    pub fn next(&mut self, now: Time) -> Option<Action> {
        while let Some(place) = self.timers.pop_due(now) {
            self.ready.push_back(place);
        }
        let program = Rc::clone(&self.program);
        // Bounded, so that a script of loops without commands does not hold up sockets either.
        for _ in 0..=self.places.len() {
            let Some(place) = self.ready.pop_front() else { break };
            self.turn(&program, place, now);
            if self.action.is_some() {
                return self.action.take();
            }
        }
        if self.ready.is_empty() && self.timers.is_empty() && self.open == 0 && !self.is_over() {
            self.stop(Stop::Stuck { waits: self.waits() });
        }
        None
    }

    /// When [`Plan::next`] has more to do, answers aside.
    pub fn deadline(&self) -> Option<Time> {
        if !self.ready.is_empty() {
            return Some(Time::ZERO);
        }
        self.timers.next()
    }

    /// Whether nothing more is to be done or awaited.
    pub fn is_over(&self) -> bool {
        self.open == 0 && (self.stop.is_some() || self.groups.iter().all(|group| group.alive == 0))
    }

    /// Why the run ended early.
    pub fn stopped(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Ends the run: nothing new begins.
    pub fn stop(&mut self, why: Stop) {
        self.stop.get_or_insert(why);
        self.ready.clear();
        self.timers.clear();
    }

    /// A place's name: that of its client.
    pub fn client_name(&self, place: usize) -> String {
        let place = &self.places[place];
        place.client_name(&self.program.groups[place.group])
    }

    /// The operation of a place ended.
    pub fn finished(&mut self, place: usize, now: Time, ended: Ended) {
        self.open -= 1;
        let program = Rc::clone(&self.program);
        let state = &mut self.places[place];
        for (keys, number) in state.grown.drain(..) {
            self.draws.keys[keys].acknowledge(number);
        }
        let is_done = matches!(ended, Ended::Done(_));
        let rests = matches!(ended, Ended::NotDone { .. });
        state.note(ended);
        if self.stop.is_some() {
            return;
        }
        // Only a place that loads stands at a load: the script itself goes past it.
        if let Step::Load { .. } = program.code[state.pc] {
            if let Err(stop) = state.loaded(program.groups[state.group].places()) {
                return self.stop(stop);
            }
        } else if !is_done && !matches!(program.code[state.pc], Step::Expect(_)) {
            state.leave_arm();
        }
        if rests {
            self.timers.push(now + PAUSE_NOT_DONE, place);
        } else {
            self.ready.push_back(place);
        }
    }

    /// A fault, kill or start worked, or did not.
    pub fn acted(&mut self, place: usize, outcome: Result<(), String>) {
        self.open -= 1;
        if let Err(why) = outcome {
            let at = self.program.places[self.places[place].pc - 1];
            self.stop(Stop::Action { at, why });
        }
        if self.stop.is_none() {
            self.ready.push_back(place);
        }
    }

    /// Lets a place make steps until it has to wait, or wants something done.
    fn turn(&mut self, program: &Program, id: usize, now: Time) {
        for _ in 0..STEPS_PER_TURN {
            let pc = self.places[id].pc;
            let flow = match self.step(program, id, &program.code[pc], now) {
                Ok(flow) => flow,
                Err(stop) => return self.stop(stop),
            };
            let place = &mut self.places[id];
            match flow {
                Flow::Next => place.pc += 1,
                Flow::To(pc) => place.pc = pc,
                Flow::Act => {
                    // A load stays at its step until all its keys are in.
                    place.pc += usize::from(!matches!(program.code[pc], Step::Load { .. }));
                    self.open += 1;
                    return;
                }
                Flow::Say => {
                    place.pc += 1;
                    self.ready.push_front(id);
                    return;
                }
                Flow::Again => return,
                Flow::Behind => {
                    place.pc += 1;
                    // Now that it stands there, it may be the last for whom the others wait.
                    return self.release(program);
                }
                Flow::End => {
                    self.groups[place.group].alive -= 1;
                    return self.release(program);
                }
            }
        }
        self.ready.push_back(id);
    }

    /// One step of one place. Branches here, works in the functions below.
    fn step(&mut self, program: &Program, id: usize, step: &Step, now: Time) -> Result<Flow, Stop> {
        let place = &mut self.places[id];
        Ok(match step {
            Step::Command(template) => return self.command(program, id, template, now),
            Step::Load { keys, values } => return self.load(program, id, *keys, *values, now),
            Step::Let { variable, expression } => {
                match place.evaluate(&mut self.draws, program, expression) {
                    Ok(datum) => place.variables[*variable] = datum,
                    Err(why) => return Err(self.wrong(program, id, why)),
                }
                Flow::Next
            }
            Step::Expect(expectation) => return self.expect(program, id, expectation),
            Step::Sleep(duration) => {
                self.timers.push(now + *duration, id);
                Flow::Behind
            }
            Step::Print(words) => {
                let words: Result<Vec<_>, _> = words
                    .iter()
                    .map(|word| place.render(&mut self.draws, program, word))
                    .collect();
                let words = words.map_err(|why| self.wrong(program, id, why))?;
                let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
                self.action = Some(Action::Print(words.join(" ")));
                Flow::Say
            }
            Step::Repeat { times: 0, end } => Flow::To(*end),
            Step::Repeat { times, end } => place.enter(Loop::Times { left: *times }, *end),
            Step::For { duration, end } => {
                // The time of a body that begins with it counts from when its clients were begun, for all alike.
                let is_first = place.pc == program.groups[place.group].entry;
                let begun = self.groups[place.group].begun.filter(|_| is_first);
                place.enter(Loop::Until(begun.unwrap_or(now) + *duration), *end)
            }
            Step::Attempt { end } => place.enter(Loop::Attempt, *end),
            Step::Again => place.again(now),
            Step::Mix { arms, end } => {
                place.frames.push(Frame {
                    kind: Loop::Arm,
                    start: place.pc,
                    end: *end,
                    round: 1,
                });
                let total = arms.last().map_or(1, |(sum, _)| *sum);
                let drawn = place.rng.u64(0..total);
                let arm = arms.partition_point(|(sum, _)| *sum <= drawn);
                Flow::To(arms[arm].1)
            }
            Step::EndArm => place.frames.pop().map_or(Flow::Next, |frame| Flow::To(frame.end)),
            Step::Spawn { group, end } => {
                self.spawn(program, *group, now);
                Flow::To(*end)
            }
            Step::Wait { group } => {
                self.waiting.push((id, *group));
                Flow::Behind
            }
            Step::Barrier(barrier) => {
                self.standing[*barrier].push(id);
                Flow::Behind
            }
            Step::Warmup(duration) => {
                self.count_from = now + *duration;
                Flow::Next
            }
            Step::Fault { node, command } => self.act(Action::Fault {
                place: id,
                node: *node,
                command: command.clone(),
            }),
            Step::Kill(node) => self.act(Action::Kill { place: id, node: *node }),
            Step::Start(node) => self.act(Action::Start { place: id, node: *node }),
            Step::End => Flow::End,
        })
    }

    fn act(&mut self, action: Action) -> Flow {
        self.action = Some(action);
        Flow::Act
    }

    fn spawn(&mut self, program: &Program, group: usize, now: Time) {
        let variables = self.places[MAIN].variables.clone();
        let progress = &mut self.groups[group];
        progress.begun = Some(now);
        for id in progress.first_place..progress.first_place + program.groups[group].places() {
            let place = &mut self.places[id];
            place.pc = program.groups[group].entry;
            place.variables.clone_from(&variables);
            place.load = (id - progress.first_place) as u64;
            self.ready.push_back(id);
        }
    }

    /// A command on the data: waits for its intended start, if there is a rate, and is filled in.
    fn command(&mut self, program: &Program, id: usize, template: &CommandTemplate, now: Time) -> Result<Flow, Stop> {
        let group = self.places[id].group;
        let mut intended = now;
        if let Some(rate) = program.groups[group].rate {
            let progress = &mut self.groups[group];
            intended = match self.places[id].ticket.take() {
                Some(ticket) => ticket,
                None => {
                    progress.issued += 1;
                    start_of(progress.begun.unwrap_or(now), progress.issued - 1, rate)
                }
            };
            if intended > now {
                return Ok(self.wait_for_start(id, intended));
            }
        }
        let place = &mut self.places[id];
        let client = place.client;
        let op = match place.fill_in(&mut self.draws, program, template) {
            Ok(command) => self.request_op(program, id, command)?,
            Err(why) => return Err(self.wrong(program, id, why)),
        };
        Ok(self.act(Action::Submit(Submission {
            place: id,
            client,
            op,
            kind: Kind::of(&template.pattern),
            intended,
            counted: program.groups[group].counted && intended >= self.count_from,
        })))
    }

    fn request_op(&self, program: &Program, id: usize, command: DataCommand) -> Result<RequestOp, Stop> {
        let op = command.into_request_op();
        op.map_err(|error| self.wrong(program, id, error.to_string()))
    }

    /// Waits for the intended start; if a loop's time is over before, the loop is left instead.
    fn wait_for_start(&mut self, id: usize, intended: Time) -> Flow {
        let place = &mut self.places[id];
        if let Some(behind) = place.leave_loop_over_by(intended) {
            return Flow::To(behind);
        }
        place.ticket = Some(intended);
        self.timers.push(intended, id);
        Flow::Again
    }

    fn load(&mut self, program: &Program, id: usize, keys: usize, values: usize, now: Time) -> Result<Flow, Stop> {
        let place = &mut self.places[id];
        if place.load >= program.keys[keys].count {
            return Ok(Flow::Next);
        }
        let key = self.draws.keys[keys].key(place.load);
        let command = DataCommand::Put {
            key: self.draws.key_of_run(key),
            value: place.value(&mut self.draws.values[values]),
            if_absent: false,
            prev: false,
        };
        let client = place.client;
        let op = self.request_op(program, id, command)?;
        Ok(self.act(Action::Submit(Submission {
            place: id,
            client,
            op,
            kind: Kind::Put,
            intended: now,
            counted: false,
        })))
    }

    fn expect(&mut self, program: &Program, id: usize, expectation: &Expectation) -> Result<Flow, Stop> {
        let place = &mut self.places[id];
        let at = program.places[place.pc];
        match place.meets(&mut self.draws, program, expectation) {
            Ok(None) => Ok(Flow::Next),
            Ok(Some((expected, found))) => Err(Stop::Unexpected {
                at,
                client: self.client_name(id),
                expected,
                found,
            }),
            Err(why) => Err(self.wrong(program, id, why)),
        }
    }

    /// Lets those go on whose barrier is full or whose clients have ended.
    fn release(&mut self, program: &Program) {
        for (barrier, standing) in program.barriers.iter().zip(&mut self.standing) {
            let parties: usize = barrier.groups.iter().map(|group| self.groups[*group].alive).sum();
            if !standing.is_empty() && standing.len() >= parties {
                self.ready.extend(standing.drain(..));
            }
        }
        let groups = &self.groups;
        let has_ended = |group: Option<usize>| match group {
            Some(group) => groups[group].alive == 0,
            None => groups
                .iter()
                .skip(1)
                .all(|group| group.alive == 0 || group.begun.is_none()),
        };
        let ready = &mut self.ready;
        self.waiting.retain(|(place, group)| {
            let ended = has_ended(*group);
            if ended {
                ready.push_back(*place);
            }
            !ended
        });
    }

    fn wrong(&self, program: &Program, id: usize, why: String) -> Stop {
        Stop::Script {
            at: program.places[self.places[id].pc],
            client: self.client_name(id),
            why,
        }
    }

    fn waits(&self) -> Vec<String> {
        let at_barriers = self.program.barriers.iter().zip(&self.standing);
        let at_barriers = at_barriers.filter(|(_, standing)| !standing.is_empty());
        let at_barriers =
            at_barriers.map(|(barrier, standing)| format!("{} at barrier {}", standing.len(), barrier.name));
        let waiting = (!self.waiting.is_empty()).then(|| format!("{} at wait", self.waiting.len()));
        at_barriers.chain(waiting).collect()
    }
}

/// When an operation of a group with a rate is meant to begin.
fn start_of(begun: Time, issued: u64, rate: u64) -> Time {
    let nanos = u128::from(issued) * 1_000_000_000 / u128::from(rate);
    begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
