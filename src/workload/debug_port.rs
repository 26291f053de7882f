//! Faults of a script, sent to debug ports while the load goes on.
//!
//! One conversation is short, but a node may be paused or gone, so each has a thread of its own: the loop of the clients
//! never waits for one. (Clients have no threads.)

use crate::client::probe;
use crate::paxos::NodeId;
use std::io::{self, BufRead, BufReader, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

/// Longest wait for each step of a conversation.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// Debug ports stand so far above the port of their node unless a flag says otherwise.
const DEBUG_PORT_DISTANCE: u16 = 100;
/// Longest reply to a fault, bytes.
const REPLY_BYTES_MAX: u64 = 64 << 10;

/// What came of a line that was sent.
#[derive(Debug)]
pub(super) struct Reply {
    /// Whose step it was.
    pub(super) place: usize,
    /// Whether it worked, or why not.
    pub(super) outcome: Result<(), String>,
}

/// Conversations on their way.
#[derive(Debug)]
pub(super) struct Conversations {
    sender: Sender<Reply>,
    receiver: Receiver<Reply>,
    open: usize,
}

impl Conversations {
    pub(super) fn new() -> Conversations {
        let (sender, receiver) = mpsc::channel();
        Conversations {
            sender,
            receiver,
            open: 0,
        }
    }

    /// Whether somebody waits for a reply.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Sends a line to a node's debug port. `known`: where clients have heard that it is.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn begin(
        &mut self,
        place: usize,
        node: NodeId,
        line: String,
        known: Option<String>,
        endpoints: &[String],
    ) -> io::Result<()> {
        let sender = self.sender.clone();
        let endpoints = endpoints.to_vec();
        thread::Builder::new().name("debug port".into()).spawn(move || {
            let outcome = match known.map_or_else(|| find(&endpoints, node), Ok) {
                Ok(address) => converse(&address, &line).map_err(|why| format!("node {}: {why}", node.0)),
                Err(why) => Err(why),
            };
            // The run may have ended meanwhile; then nobody wants to know.
            let _ = sender.send(Reply { place, outcome });
        })?;
        self.open += 1;
        Ok(())
    }

    /// A reply that has come.
    pub(super) fn next(&mut self) -> Option<Reply> {
        let reply = self.receiver.try_recv().ok()?;
        self.open -= 1;
        Some(reply)
    }
}

/// Asks the endpoints who they are, the likeliest first; a node that is silent is looked for where debug ports stand.
fn find(endpoints: &[String], node: NodeId) -> Result<String, String> {
    let likely = endpoints.get(usize::from(node.0).wrapping_sub(1));
    let others = endpoints.iter().filter(|endpoint| Some(*endpoint) != likely);
    let mut guess = likely.and_then(|endpoint| above(endpoint));
    for endpoint in likely.into_iter().chain(others) {
        match probe::hello(endpoint, STEP_TIMEOUT) {
            Ok(said) if said.node == node && said.debug.is_empty() => {
                return Err(format!("the debug port of node {} is off", node.0));
            }
            Ok(said) if said.node == node => return Ok(said.debug),
            Ok(_) if Some(endpoint) == likely => guess = None,
            Ok(_) | Err(_) => {}
        }
    }
    guess.ok_or_else(|| format!("no endpoint is node {}", node.0))
}

fn above(endpoint: &str) -> Option<String> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(DEBUG_PORT_DISTANCE)?;
    Some(format!("{host}:{port}"))
}

fn converse(address: &str, line: &str) -> Result<(), String> {
    let talk = || -> io::Result<String> {
        let mut stream = probe::dial(address, STEP_TIMEOUT)?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        for reply in BufReader::new(io::Read::take(stream, REPLY_BYTES_MAX)).lines() {
            let reply = reply?;
            if matches!(reply.split_whitespace().next(), Some("OK" | "ERR")) {
                return Ok(reply);
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    };
    match talk() {
        Ok(reply) if reply.starts_with("OK") => Ok(()),
        Ok(reply) => Err(format!("`{line}`: {reply}")),
        // A node that crashes on command has no time to say so.
        Err(_) if line == "fault crash" => Ok(()),
        Err(error) => Err(format!("`{line}`: {address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn reply_of(answer: &'static str, line: &str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut conversations = Conversations::new();
        conversations
            .begin(3, NodeId(2), line.to_owned(), Some(address), &[])
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut asked)
            .unwrap();
        assert_eq!(asked, format!("{line}\n"));
        stream.write_all(answer.as_bytes()).unwrap();
        drop(stream);
        assert!(conversations.is_open());
        let reply = conversations.receiver.recv().unwrap();
        assert_eq!(reply.place, 3);
        reply.outcome
    }

    #[test]
    fn a_fault_works_if_the_node_says_so() {
        assert_eq!(reply_of("until 5s\nOK\n", "fault isolate 5s"), Ok(()));
        assert_eq!(
            reply_of("ERR faults_off start with --allow-faults\n", "fault isolate 5s"),
            Err("node 2: `fault isolate 5s`: ERR faults_off start with --allow-faults".to_owned())
        );
        assert!(reply_of("", "fault isolate 5s").is_err());
        assert_eq!(reply_of("", "fault crash"), Ok(()));
    }
}
