//! A way through the space, told step by step.

use crate::node::{Envelope, Node, Step};
use crate::space::{Space, Violation};
use crate::table::State;
use crate::world::name;
use std::fmt::Write as _;
use synod::paxos::{Entry, Message, Write};

/// The steps to `violation`, one or a few lines each, and what is wrong in the end.
pub(crate) fn tell(space: &mut Space, violation: &Violation) -> String {
    let mut text = String::new();
    let pairs: Vec<(State, State)> = violation.path.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let mut steps: Vec<(State, usize, Step)> = Vec::new();
    for (before, after) in pairs {
        let (n, step) = space.step_between(before, after);
        steps.push((before, n, step));
    }
    let end = violation.path.last().expect("a path begins somewhere");
    steps.push((*end, violation.last.0, violation.last.1));
    for (number, (state, n, step)) in (1..).zip(steps) {
        let _ = write!(text, "{number:>3}. {}", tell_step(space, space.node(n, state[n]), step));
    }
    let _ = writeln!(text, "     {}", violation.broken);
    text
}

fn tell_step(space: &Space, before: &Node, step: Step) -> String {
    let id = before.id;
    let envelope = match step {
        Step::Deliver(number) => Some(&space.envelopes[usize::from(number)]),
        _ => None,
    };
    let mut text = match (step, envelope) {
        (Step::Deliver(_), Some(Envelope { from, message, .. })) => format!("{id} gets from {from}: {}", say(message)),
        (Step::Campaign, _) => format!("{id} campaigns"),
        (Step::Propose, _) => format!("{id} has a write of a client"),
        (Step::Heartbeat, _) => format!("{id} tells its watermark"),
        (Step::Sync, _) => format!("{id} syncs"),
        (Step::Crash, _) if before.pending.is_empty() => format!("{id} crashes and restarts"),
        (Step::Crash, _) => format!("{id} crashes, loses {} and restarts", records(&before.pending)),
        (Step::Deliver(_), None) => unreachable!("a delivery has an envelope"),
    };
    text.push('\n');
    let mut node = before.clone();
    let take = std::panic::AssertUnwindSafe(|| node.take(&space.world, step, envelope));
    let Ok(said) = std::panic::catch_unwind(take) else {
        return text;
    };
    let is_more = step != Step::Crash && step != Step::Sync && node.pending.len() > before.pending.len();
    if is_more {
        let _ = writeln!(text, "     writes {}", records(&node.pending[before.pending.len()..]));
    }
    tell_letters(space, said, &mut text);
    text
}

/// One line a message, whoever gets it; what this world loses is not told.
fn tell_letters(space: &Space, mut said: Vec<Envelope>, text: &mut String) {
    said.retain(|envelope| !space.world.loses(&envelope.message));
    while let Some(Envelope { from, message, .. }) = said.first().cloned() {
        let (same, rest): (Vec<_>, Vec<_>) = said.into_iter().partition(|envelope| envelope.message == message);
        let to: Vec<String> = same.iter().map(|envelope| envelope.to.to_string()).collect();
        let _ = writeln!(text, "     {from} -> {}: {}", to.join(" "), say(&message));
        said = rest;
    }
}

/// The message with its values by name.
fn say(message: &Message) -> String {
    let entries: Vec<&Entry> = match message {
        Message::Accept { entry, .. } => vec![entry],
        Message::Promise(promise) => promise.accepted.iter().map(|accepted| &accepted.entry).collect(),
        Message::Chosen { entries, .. } => entries.iter().collect(),
        _ => Vec::new(),
    };
    entries.iter().fold(message.to_string(), |text, entry| {
        text.replace(&entry.to_string(), &name(entry))
    })
}

fn records(writes: &[Write]) -> String {
    let words = writes.iter().map(|write| match write {
        Write::Used(ballot) => format!("USED {ballot}"),
        Write::Promised(ballot) => format!("PROMISED {ballot}"),
        Write::Accepted { slot, ballot, entry } => format!("ACCEPTED {} for slot {slot} at {ballot}", name(entry)),
        Write::Learned { slot, entry } => format!("LEARNED {} for slot {slot}", name(entry)),
        Write::ChosenUpto(slot) => format!("CHOSEN_UPTO {slot}"),
        Write::Copied { slot, ballot, entry } => format!("COPIED {} for slot {slot} at {ballot}", name(entry)),
        Write::Recovered => "RECOVERED".into(),
    });
    words.collect::<Vec<_>>().join(", ")
}
