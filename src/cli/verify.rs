//! `synod verify`: have all nodes come to one state? Their digests are compared at equal slots.
//!
//! Nodes that differ in one slot differ in every later one, and equal ones were equal before: so one look at the newest slot
//! that all have applied says whether all is well, and a search by halves finds the first slot that differs. Nodes keep the
//! digests of some thousand slots; a difference older than that is named as older.
//!
//! Not here: what nodes do by themselves when they differ ([`crate::paxos::digests`]).

use super::{Global, Output, debug, exit};
use crate::client::probe;
use crate::console::{complain, print};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

/// Nodes by their digest.
type Groups = Vec<(String, Vec<u16>)>;

/// A node that answered.
#[derive(Clone, Debug)]
struct Node {
    id: u16,
    debug: String,
    /// The slots whose digests it has.
    first: u64,
    last: u64,
}

/// What comparing showed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// All who could be compared are equal up to this slot.
    Equal { slot: u64 },
    /// They differ from this slot on; `since_or_before`: it is the oldest that is known, they may differ for longer.
    Differ {
        slot: u64,
        since_or_before: bool,
        /// Who has which digest there, the most frequent first.
        groups: Groups,
    },
    /// There is no slot whose digest all have.
    Apart,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(global: &Global) -> io::Result<u8> {
    let timeout = debug::PROBE_TIMEOUT.min(global.timeout);
    let (mut nodes, mut code) = (Vec::new(), exit::DONE);
    for endpoint in &global.endpoints {
        match meet(endpoint, timeout) {
            Ok((node, damage)) => {
                for found in &damage {
                    complain(&format!("node {} reports damage: {found}", node.id));
                    code = exit::DAMAGED;
                }
                nodes.push(node);
            }
            Err(error) => {
                complain(&format!("{endpoint} cannot be compared: {error}"));
                code = code.max(exit::UNREACHABLE);
            }
        }
    }
    let found = compare(&nodes, |node, slot| digest(node, slot, timeout));
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            complain(&format!("a node went away while it was compared: {error}"));
            return Ok(exit::UNREACHABLE);
        }
    };
    let ids: Vec<u16> = nodes.iter().map(|node| node.id).collect();
    print(
        match global.output {
            Output::Json => format!("{}\n", as_json(&found, &ids)),
            Output::Text => format!("{}\n", found.words(&ids)),
        }
        .as_bytes(),
    )?;
    Ok(match found {
        Finding::Differ { .. } => exit::NO,
        Finding::Apart => code.max(exit::UNREACHABLE),
        Finding::Equal { .. } => code,
    })
}

/// Asks a node who it is, which digests it has, and whether it knows of damage.
fn meet(endpoint: &str, timeout: Duration) -> io::Result<(Node, Vec<String>)> {
    let hello = probe::hello(endpoint, timeout)?;
    if hello.debug.is_empty() {
        return Err(io::Error::other("its debug port is off"));
    }
    let debug = debug::seen_from_here(&hello.debug, endpoint);
    let digests = ask(&debug, "json digests", timeout)?;
    let status = ask(&debug, "json status", timeout)?;
    let node = Node {
        id: hello.node.0,
        debug,
        first: number(&digests, "first")?,
        last: number(&digests, "last")?,
    };
    Ok((node, damage(&status)))
}

/// What a node's status says of damage in its files, a line each.
fn damage(status: &Value) -> Vec<String> {
    let findings = status["damage"].as_array().into_iter().flatten();
    findings
        .map(|found| {
            let text = |name: &str| found[name].as_str().unwrap_or("?").to_owned();
            let (file, offset) = (text("file"), &found["offset"]);
            format!("{file}, offset {offset}, {}: {}", text("kind"), text("what"))
        })
        .collect()
}

/// The digest of a slot; `None` if the node has dropped it meanwhile.
fn digest(node: &Node, slot: u64, timeout: Duration) -> io::Result<Option<String>> {
    let answer = ask(&node.debug, &format!("json digests {slot} 1"), timeout)?;
    let row = answer["digests"].get(0).filter(|row| row["slot"] == slot);
    Ok(row.and_then(|row| row["digest"].as_str()).map(str::to_owned))
}

fn ask(debug: &str, line: &str, timeout: Duration) -> io::Result<Value> {
    let reply = probe::ask_debug(debug, line, timeout)?;
    let object = reply.lines().find(|line| line.starts_with('{'));
    let object = object.and_then(|line| serde_json::from_str(line).ok());
    object.ok_or_else(|| io::Error::other(format!("{line}: {}", reply.lines().last().unwrap_or("no answer"))))
}

fn number(object: &Value, name: &str) -> io::Result<u64> {
    object[name]
        .as_u64()
        .ok_or_else(|| io::Error::other(format!("its answer has no {name}")))
}

/// Looks for the first slot at which the nodes differ.
fn compare<E>(nodes: &[Node], mut digest: impl FnMut(&Node, u64) -> Result<Option<String>, E>) -> Result<Finding, E> {
    let first = nodes.iter().map(|node| node.first).max().unwrap_or(1);
    let last = nodes.iter().map(|node| node.last).min().unwrap_or(0);
    if first > last {
        return Ok(Finding::Apart);
    }
    let mut groups_at = |slot| groups(nodes, slot, &mut digest);
    let mut found = match groups_at(last)? {
        None => return Ok(Finding::Apart),
        Some(groups) if groups.len() < 2 => return Ok(Finding::Equal { slot: last }),
        Some(groups) => groups,
    };
    // They are equal below `low`, as far as is known, and differ at `high`.
    let (mut low, mut high) = (first, last);
    while low < high {
        let middle = low + (high - low) / 2;
        match groups_at(middle)? {
            Some(groups) if groups.len() > 1 => (high, found) = (middle, groups),
            Some(_) => low = middle + 1,
            None => {
                // Dropped meanwhile: what is known lies above.
                return Ok(Finding::Differ {
                    slot: high,
                    since_or_before: true,
                    groups: found,
                });
            }
        }
    }
    Ok(Finding::Differ {
        slot: high,
        since_or_before: high == first && first > 1,
        groups: found,
    })
}

/// Nodes by their digest at a slot, the most frequent first; `None` if one of them has it no more.
fn groups<E>(
    nodes: &[Node],
    slot: u64,
    digest: &mut impl FnMut(&Node, u64) -> Result<Option<String>, E>,
) -> Result<Option<Groups>, E> {
    let mut groups: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for node in nodes {
        match digest(node, slot)? {
            Some(digest) => groups.entry(digest).or_default().push(node.id),
            None => return Ok(None),
        }
    }
    let mut groups: Groups = groups.into_iter().collect();
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    Ok(Some(groups))
}

fn as_json(found: &Finding, ids: &[u16]) -> Value {
    match found {
        Finding::Equal { slot } => json!({ "verdict": "equal", "nodes": ids, "slot": slot }),
        Finding::Apart => json!({ "verdict": "apart", "nodes": ids }),
        Finding::Differ {
            slot,
            since_or_before,
            groups,
        } => {
            let groups = groups
                .iter()
                .map(|(digest, nodes)| json!({ "digest": digest, "nodes": nodes }));
            json!({
                "verdict": "differ",
                "nodes": ids,
                "slot": slot,
                "or_before": since_or_before,
                "groups": groups.collect::<Vec<Value>>(),
            })
        }
    }
}

impl Finding {
    fn words(&self, ids: &[u16]) -> String {
        match self {
            Finding::Equal { slot } => format!("equal: {} agree up to slot {slot}", Names(ids)),
            Finding::Apart => format!("{}: there is no slot whose digest all of them have", Names(ids)),
            Finding::Differ {
                slot,
                since_or_before,
                groups,
            } => {
                let or_before = if *since_or_before { " or before" } else { "" };
                let mut words = format!("DIFFERENT from slot {slot}{or_before} on:");
                for (digest, nodes) in groups {
                    let is_majority = nodes.len() * 2 > ids.len();
                    let who = if is_majority { ", the majority" } else { "" };
                    words.push_str(&format!("\n  {digest}  {}{who}", Names(nodes)));
                }
                words
            }
        }
    }
}

/// Node ids for people.
struct Names<'a>(&'a [u16]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "nobody");
        }
        for (index, id) in self.0.iter().enumerate() {
            write!(f, "{}n{id}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn node(id: u16, first: u64, last: u64) -> Node {
        Node {
            id,
            debug: String::new(),
            first,
            last,
        }
    }

    /// Node 3 has another digest from `bad` on.
    fn look(nodes: &[Node], bad: u64) -> Finding {
        let digest = |node: &Node, slot: u64| {
            let is_bad = node.id == 3 && slot >= bad;
            Ok::<_, Infallible>((slot >= node.first).then(|| format!("{slot}{}", if is_bad { "x" } else { "" })))
        };
        compare(nodes, digest).expect("nothing fails here")
    }

    #[test]
    fn the_first_slot_that_differs_is_found_wherever_it_is() {
        let nodes = [node(1, 5, 900), node(2, 1, 1000), node(3, 5, 800)];
        for bad in 6..=800 {
            let Finding::Differ {
                slot,
                since_or_before,
                groups,
            } = look(&nodes, bad)
            else {
                panic!("a difference at {bad} is not found");
            };
            assert_eq!((slot, since_or_before), (bad, false));
            assert_eq!(
                (groups[0].1.as_slice(), groups[1].1.as_slice()),
                (&[1, 2][..], &[3][..])
            );
        }
        assert!(matches!(
            look(&nodes, 2),
            Finding::Differ {
                slot: 5,
                since_or_before: true,
                ..
            }
        ));
        assert_eq!(look(&nodes, 801), Finding::Equal { slot: 800 });
        assert_eq!(look(&[node(1, 500, 900), node(2, 1, 400)], 1), Finding::Apart);
    }

    #[test]
    fn damage_is_told_by_file_offset_and_kind() {
        let status = json!({ "damage": [
            { "file": "d/snap-7.snap", "offset": 300, "kind": "snapshot", "what": "block 2 has crc 1, stated is 2" }
        ] });
        let told = ["d/snap-7.snap, offset 300, snapshot: block 2 has crc 1, stated is 2"];
        assert_eq!(damage(&status), told);
        assert!(damage(&json!({ "damage": [] })).is_empty() && damage(&json!({})).is_empty());
    }

    #[test]
    fn words_name_the_majority() {
        let nodes = [node(1, 1, 9), node(2, 1, 9), node(3, 1, 9)];
        let words = look(&nodes, 4).words(&[1, 2, 3]);
        assert_eq!(words, "DIFFERENT from slot 4 on:\n  4  n1 n2, the majority\n  4x  n3");
        assert_eq!(look(&nodes, 10).words(&[1, 2, 3]), "equal: n1 n2 n3 agree up to slot 9");
    }
}
