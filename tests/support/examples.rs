//! The hex blocks of `protocol.md`, for the test that compares them and for the fuzzer that begins with them.
//!
//! A block is fenced as ```` ```text example=NAME ````; its first line is a caption, and in every other line the hex ends
//! at two spaces.

use std::collections::BTreeMap;

/// The document.
pub(crate) const DOCUMENT: &str = include_str!("../../protocol.md");

/// One hex block of the document.
pub(crate) struct Example {
    #[allow(dead_code, reason = "the fuzzer reads bytes only")]
    pub(crate) caption: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// All of them, by name.
pub(crate) fn examples() -> BTreeMap<&'static str, Example> {
    let mut examples = BTreeMap::new();
    for block in DOCUMENT.split("```text example=").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a fence ends its line");
        let (content, _) = rest.split_once("\n```").expect("every block is closed");
        let (caption, lines) = content.split_once('\n').expect("a caption, then hex");
        let bytes = lines.lines().flat_map(|line| hex_of(name, line)).collect();
        let before = examples.insert(name, Example { caption, bytes });
        assert!(before.is_none(), "two examples are called {name}");
    }
    examples
}

fn hex_of(name: &str, line: &str) -> Vec<u8> {
    let hex: String = line.split("  ").next().unwrap_or_default().split_whitespace().collect();
    assert!(hex.len().is_multiple_of(2), "{name}: half a byte in {line:?}");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_else(|_| panic!("{name}: no hex in {line:?}"));
    (0..hex.len()).step_by(2).map(byte).collect()
}
