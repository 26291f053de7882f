use super::*;
use crate::sim::{Options, Transcript, attempt};
use crate::time::Time;

/// What is wrong with a diagram, as far as we use Mermaid: participants that are not declared, and what would end a text.
fn faults_of(diagram: &str) -> Vec<String> {
    let mut lines = diagram.lines();
    let mut faults = Vec::new();
    if lines.next() != Some("sequenceDiagram") {
        faults.push("it does not begin as a sequence diagram".to_string());
    }
    let mut declared = BTreeSet::new();
    for line in lines.map(str::trim) {
        if let Some(participant) = line.strip_prefix("participant ") {
            declared.insert(participant.to_string());
            continue;
        }
        let (head, text) = line.split_once(": ").unwrap_or((line, ""));
        let ends: Vec<&str> = match head.strip_prefix("Note over ") {
            Some(ends) => ends.split(',').collect(),
            None => head.split("->>").flat_map(|part| part.split("-x")).collect(),
        };
        let known = ends.iter().all(|end| declared.contains(*end));
        let text = text.replace("<br/>", " ");
        let is_plain = !text.contains([';', '#', '<', '>', '%', '"']) && text.split(' ').all(|word| word != "end");
        if !known || ends.len() > 2 || text.is_empty() || !is_plain {
            faults.push(line.to_string());
        }
    }
    faults
}

#[test]
fn a_whole_run_makes_a_valid_diagram_of_bounded_length() {
    for seed in 1..6 {
        let options = Options {
            storm: std::time::Duration::from_secs(3),
            ..Options::new(seed)
        };
        let transcript = Transcript::whole();
        attempt(&options, &transcript).expect("it holds");
        let lines = transcript.lines();
        for upto in [lines.len() / 3, lines.len()] {
            let drawn = diagram(&lines[..upto], "so it is");
            assert_eq!(faults_of(&drawn), Vec::<String>::new(), "seed {seed}:\n{drawn}");
            let participants = 12;
            assert!(drawn.lines().count() <= SCENES_MAX + participants + 2, "seed {seed}");
        }
    }
}

#[test]
fn what_mermaid_would_read_as_its_own_is_taken_out() {
    let end = End::Client(0);
    let words = "put k=#1; del <b> end \"x\"".to_string();
    let message = Scene::Message {
        from: end,
        to: End::Node(0),
        words: words.clone(),
        way: Way::Lost("cut off"),
    };
    let lines = [message, Scene::Violation { words }].map(|scene| Line { at: Time::ZERO, scene });
    let drawn = diagram(&lines, "an end; of it");
    assert_eq!(faults_of(&drawn), Vec::<String>::new(), "{drawn}");
    assert!(
        drawn.contains("c0-xn1: put k=.1, del (b) (end) 'x' (cut off)"),
        "{drawn}"
    );
}

#[test]
fn long_notes_have_several_lines() {
    let words = "a word ".repeat(30);
    let folded = folded(words.trim());
    assert!(
        folded.split("<br/>").all(|line| line.chars().count() <= NOTE_WIDTH),
        "{folded}"
    );
    assert_eq!(folded.replace("<br/>", " "), words.trim());
}
