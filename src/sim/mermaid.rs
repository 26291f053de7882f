//! The end of a run as a Mermaid sequence diagram: nodes and clients as participants, messages as arrows, the rest as
//! notes.
//!
//! Bounded, so that it fits a page; texts are stripped of what Mermaid would take for its own syntax.

use super::network::End;
use super::shrink::Smallest;
use super::transcript::{Line, Scene, Way};
use super::words;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Arrows and notes of a diagram, at most.
pub const SCENES_MAX: usize = 40;
/// Characters of one text, at most.
const TEXT_MAX: usize = 90;
/// Where a line of a long note ends, about.
const NOTE_WIDTH: usize = 60;

impl Smallest {
    /// A diagram of its end, which is where it fails.
    pub fn mermaid(&self) -> String {
        diagram(&self.transcript.lines(), words::why(self.violation.rule))
    }
}

/// A diagram of the last lines of a transcript that matter. `why`: what stands below the violation.
pub fn diagram(lines: &[Line], why: &str) -> String {
    let matter: Vec<&Line> = lines.iter().filter(|line| matters(&line.scene)).collect();
    let shown = &matter[matter.len().saturating_sub(SCENES_MAX)..];
    let ends: BTreeSet<End> = shown.iter().flat_map(|line| ends_of(&line.scene)).collect();
    let mut out = String::from("sequenceDiagram\n");
    // Clients stand on the left of those whom they ask.
    let (clients, nodes): (Vec<End>, Vec<End>) = ends.iter().partition(|end| matches!(end, End::Client(_)));
    let columns: Vec<End> = clients.into_iter().chain(nodes).collect();
    for end in &columns {
        put(&mut out, format_args!("participant {end}"));
    }
    let across = match (columns.first(), columns.last()) {
        (Some(first), Some(last)) if first != last => format!("{first},{last}"),
        (Some(only), _) => only.to_string(),
        _ => return out,
    };
    if shown.len() < matter.len() {
        let left_out = matter.len() - shown.len();
        put(
            &mut out,
            format_args!("Note over {across}: {left_out} earlier lines are left out"),
        );
    }
    for line in shown {
        scene(&mut out, &line.scene, &across, why);
    }
    out
}

fn scene(out: &mut String, scene: &Scene, across: &str, why: &str) {
    match scene {
        Scene::Message { from, to, words, way } => match way {
            Way::Arrives(_) => put(out, format_args!("{from}->>{to}: {}", plain(words))),
            Way::Lost(reason) => put(out, format_args!("{from}-x{to}: {} ({reason})", plain(words))),
        },
        Scene::Event {
            whose: Some(whose),
            words,
        }
        | Scene::Detail { whose, words } => put(out, format_args!("Note over {whose}: {}", folded(&plain(words)))),
        Scene::Event { whose: None, words } => put(out, format_args!("Note over {across}: {}", folded(&plain(words)))),
        Scene::Violation { words } => {
            let (words, why) = (folded(&clean(words)), folded(&clean(why)));
            put(out, format_args!("Note over {across}: VIOLATION {words}<br/>{why}"));
        }
    }
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "    {line}").expect("a string takes all");
}

/// A sync, or what was applied, is told by the messages around it.
fn matters(scene: &Scene) -> bool {
    !matches!(scene, Scene::Detail { .. })
}

fn ends_of(scene: &Scene) -> Vec<End> {
    match scene {
        Scene::Message { from, to, .. } => vec![*from, *to],
        Scene::Event { whose, .. } => whose.iter().copied().collect(),
        Scene::Detail { whose, .. } => vec![*whose],
        Scene::Violation { .. } => Vec::new(),
    }
}

/// Without what Mermaid reads as its own: `;` ends a statement, `#` begins an entity, `end` ends a block, and angles are
/// markup.
fn clean(text: &str) -> String {
    let mapped: String = text
        .chars()
        .map(|letter| match letter {
            ';' => ',',
            '#' => '.',
            '<' => '(',
            '>' => ')',
            '%' | '"' | '`' => '\'',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect();
    let words = mapped.split(' ').map(|word| match word {
        "end" => "(end)",
        word => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// [`clean`], and not too long.
fn plain(text: &str) -> String {
    let text = clean(text);
    match text.char_indices().nth(TEXT_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Several lines of a note.
fn folded(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("it begins with one");
        if !last.is_empty() && last.chars().count() + word.chars().count() >= NOTE_WIDTH {
            lines.push(word.into());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines.join("<br/>")
}

#[cfg(test)]
mod tests;
