//! What a run cost: CPU time of the load generator and of every node, while operations counted.
//!
//! A figure of throughput means little while the generator is the bottleneck, or when nobody says what it took. Nodes
//! are asked for their STATUS twice, at the first operation that counts and behind the last: each tells its own CPU time
//! and its own uptime, so a question that waited in a full queue still gives a true rate. The asking is a thread's: the
//! loop of the clients never waits for it.

use super::summary::rounded;
use crate::client::{Options, probe};
use crate::process;
use crate::time::Time;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest wait for a node's status.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// CPU time, and the time in which it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// CPU time, of all threads.
    pub cpu: Duration,
    /// Meanwhile so long went by.
    pub span: Duration,
}

/// What one node used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCost {
    /// Where it was asked.
    pub endpoint: String,
    /// Its id, if it answered.
    pub id: Option<u64>,
    /// `None` if it did not answer, or was started anew meanwhile.
    pub used: Option<Used>,
    /// Its resident memory at the end.
    pub resident_bytes: Option<u64>,
}

/// What a run cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Costs {
    /// This process.
    pub generator: Used,
    /// Every endpoint.
    pub nodes: Vec<NodeCost>,
}

/// Looks at the beginning, and at the end.
#[derive(Debug)]
pub(super) struct Meter {
    endpoints: Vec<String>,
    options: Options,
    begun: Option<Look>,
}

#[derive(Debug)]
struct Look {
    at: Time,
    own: Duration,
    nodes: JoinHandle<io::Result<Vec<Result<Value, String>>>>,
}

impl Meter {
    pub(super) fn new(endpoints: &[String], options: &Options) -> Meter {
        Meter {
            endpoints: endpoints.to_vec(),
            options: options.clone(),
            begun: None,
        }
    }

    /// The first operation that counts is about to be sent; later calls do nothing.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn begin(&mut self, now: Time) -> io::Result<()> {
        if self.begun.is_none() {
            self.begun = Some(self.look(now)?);
        }
        Ok(())
    }

    /// The last operation has ended; `None` if nothing ever counted.
    ///
    /// # Errors
    /// The system failed this process.
    pub(super) fn end(&mut self, now: Time) -> io::Result<Option<Costs>> {
        let Some(first) = self.begun.take() else {
            return Ok(None);
        };
        let last = self.look(now)?;
        let generator = Used {
            cpu: last.own.saturating_sub(first.own),
            span: last.at.since(first.at),
        };
        let (first, last) = (answers(first.nodes)?, answers(last.nodes)?);
        let looks = self.endpoints.iter().zip(first.iter().zip(&last));
        let nodes = looks.map(|(endpoint, (first, last))| NodeCost::between(endpoint, first, last));
        Ok(Some(Costs {
            generator,
            nodes: nodes.collect(),
        }))
    }

    fn look(&self, at: Time) -> io::Result<Look> {
        let (endpoints, options) = (self.endpoints.clone(), self.options.clone());
        let own = process::cpu_time();
        let thread = thread::Builder::new().name("status".into());
        let nodes = thread.spawn(move || probe::statuses(&endpoints, &options, ASK_TIMEOUT))?;
        Ok(Look { at, own, nodes })
    }
}

fn answers(asking: JoinHandle<io::Result<Vec<Result<Value, String>>>>) -> io::Result<Vec<Value>> {
    let answers = asking
        .join()
        .map_err(|_| io::Error::other("the thread that asks nodes failed"))?;
    Ok(answers?.into_iter().map(Result::unwrap_or_default).collect())
}

impl NodeCost {
    /// Of two looks at a node; null is no answer.
    fn between(endpoint: &str, first: &Value, last: &Value) -> NodeCost {
        let micros =
            |status: &Value, name: &str, unit: u64| status[name].as_u64().map(|n| Duration::from_micros(n * unit));
        let cpu = micros(first, "cpu_us", 1).zip(micros(last, "cpu_us", 1));
        let uptime = micros(first, "uptime_ms", 1000).zip(micros(last, "uptime_ms", 1000));
        let used = cpu
            .zip(uptime)
            .filter(|(cpu, uptime)| cpu.0 <= cpu.1 && uptime.0 < uptime.1);
        NodeCost {
            endpoint: endpoint.to_owned(),
            id: last["id"].as_u64(),
            used: used.map(|(cpu, uptime)| Used {
                cpu: cpu.1 - cpu.0,
                span: uptime.1 - uptime.0,
            }),
            resident_bytes: last["resident_bytes"].as_u64(),
        }
    }
}

impl Used {
    /// As a share of one core.
    pub fn share(&self) -> f64 {
        match self.span.as_secs_f64() {
            0.0 => 0.0,
            span => self.cpu.as_secs_f64() / span,
        }
    }
}

impl Costs {
    /// The share of one core that all nodes took together; `None` if one of them is not known.
    pub fn nodes_share(&self) -> Option<f64> {
        self.nodes.iter().map(|node| node.used.map(|used| used.share())).sum()
    }

    /// For programs. `ops_per_s`: what was done for it.
    pub fn json(&self, ops_per_s: f64) -> Map<String, Value> {
        let nodes = self.nodes.iter().map(|node| {
            json!({
                "endpoint": node.endpoint,
                "id": node.id,
                "cpu_share": node.used.map(|used| rounded(used.share())),
                "resident_bytes": node.resident_bytes,
            })
        });
        let generator = json!({
            "cpu_share": rounded(self.generator.share()),
            "cpu_s_per_million": rounded(per_million(self.generator.share(), ops_per_s)),
        });
        Map::from_iter([
            ("generator".to_owned(), generator),
            ("nodes".to_owned(), nodes.collect::<Vec<_>>().into()),
            (
                "nodes_cpu_s_per_million".to_owned(),
                json!(self.nodes_share().map(|share| rounded(per_million(share, ops_per_s)))),
            ),
        ])
    }

    /// Two lines for people.
    pub fn text(&self, ops_per_s: f64) -> String {
        let mut text = format!(
            "CPU   generator {:.0}% of a core; nodes",
            100.0 * self.generator.share()
        );
        for node in &self.nodes {
            let name = node.id.map_or(node.endpoint.clone(), |id| id.to_string());
            let share = node
                .used
                .map_or("?".to_owned(), |used| format!("{:.0}%", 100.0 * used.share()));
            write!(text, "  {name}: {share}").expect("a String takes every write");
        }
        let million = |share| format!("{:.1}s", per_million(share, ops_per_s));
        let nodes = self.nodes_share().map_or("?".to_owned(), million);
        let generator = million(self.generator.share());
        writeln!(
            text,
            "\n      for a million operations: generator {generator}, nodes {nodes}"
        )
        .expect("as above");
        text
    }
}

/// CPU seconds for a million operations.
fn per_million(share: f64, ops_per_s: f64) -> f64 {
    if ops_per_s > 0.0 { share / ops_per_s * 1e6 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(cpu_us: u64, uptime_ms: u64) -> Value {
        json!({ "id": 2, "cpu_us": cpu_us, "uptime_ms": uptime_ms, "resident_bytes": 4096 })
    }

    #[test]
    fn a_node_that_was_started_anew_or_is_silent_has_no_cost() {
        let of = |first: &Value, last: &Value| NodeCost::between("a:1", first, last).used;
        let half = of(&status(1_000_000, 5_000), &status(2_000_000, 7_000));
        assert_eq!(half.map(|used| used.share()), Some(0.5));
        assert_eq!(of(&status(1_000_000, 5_000), &status(20_000, 90)), None);
        assert_eq!(of(&Value::Null, &status(2_000_000, 7_000)), None);
        assert_eq!(of(&status(2_000_000, 7_000), &Value::Null), None);
    }

    #[test]
    fn costs_are_told_for_a_million_operations() {
        let mut costs = Costs {
            generator: Used {
                cpu: Duration::from_secs(1),
                span: Duration::from_secs(4),
            },
            nodes: vec![NodeCost::between("a:1", &status(0, 0), &status(500_000, 1_000))],
        };
        let json = Value::Object(costs.json(10_000.0));
        assert_eq!(json["generator"]["cpu_share"], 0.25);
        assert_eq!(json["generator"]["cpu_s_per_million"], 25.0);
        assert_eq!(json["nodes_cpu_s_per_million"], 50.0);
        assert!(costs.text(10_000.0).contains("2: 50%"), "{}", costs.text(10_000.0));
        costs.nodes.push(NodeCost::between("b:1", &Value::Null, &Value::Null));
        let json = Value::Object(costs.json(10_000.0));
        assert!(
            json["nodes_cpu_s_per_million"].is_null(),
            "the sum is not known: {json}"
        );
    }
}
