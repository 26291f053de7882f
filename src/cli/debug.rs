//! `synod debug ID COMMAND`: what `nc` to that node's debug port would show.

use super::{Global, Output, exit};
use crate::client::probe;
use crate::console::{complain, print};
use clap::Args;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Debug ports stand so far above the port of their node unless a flag says otherwise.
const DEBUG_PORT_DISTANCE: u16 = 100;
/// Longest wait for one node's handshake while the right one is looked for.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Send a command to a node's debug port and show the reply; `help` lists the commands
#[derive(Args, Clone, Debug)]
pub struct DebugArgs {
    /// Which node
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub id: u16,
    /// The command; one word with spaces in it is sent as it is
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Where a node's debug port is, or why nobody can say: the words, and the exit code.
type Found = Result<String, (String, u8)>;

/// Runs the command; returns the exit code.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(global: &Global, args: &DebugArgs) -> io::Result<u8> {
    let line = match line(&args.command, global.output) {
        Ok(line) => line,
        Err(words) => {
            complain(&words);
            return Ok(exit::USAGE);
        }
    };
    let address = match find(&global.endpoints, args.id, PROBE_TIMEOUT.min(global.timeout)) {
        Ok(address) => address,
        Err((words, code)) => {
            complain(&words);
            return Ok(code);
        }
    };
    match converse(&address, &line, global.timeout) {
        Ok(last) => Ok(exit::of_debug_line(&last)),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Err(error) => {
            complain(&format!("the debug port of node {} at {address}: {error}", args.id));
            Ok(exit::UNREACHABLE)
        }
    }
}

/// The line that is sent: words are quoted as a shell would have them.
fn line(words: &[OsString], output: Output) -> Result<Vec<u8>, String> {
    let mut line = match words {
        [whole] => whole.as_bytes().to_vec(),
        words => shlex::bytes::try_join(words.iter().map(|word| word.as_bytes()))
            .map_err(|_| "a word holds a zero byte".to_string())?,
    };
    if line.contains(&b'\n') {
        return Err("a command of the debug port is one line".into());
    }
    if output == Output::Json && !line.starts_with(b"json ") {
        line.splice(0..0, *b"json ");
    }
    line.push(b'\n');
    Ok(line)
}

/// Asks the endpoints who they are, the likeliest first. A node that does not answer may still have a debug port that
/// does: it is then looked for where it stands by default.
fn find(endpoints: &[String], id: u16, timeout: Duration) -> Found {
    let likely = endpoints.get(usize::from(id) - 1);
    let others = endpoints.iter().filter(|endpoint| Some(*endpoint) != likely);
    let (mut troubles, mut silent) = (Vec::new(), Vec::new());
    for endpoint in likely.into_iter().chain(others) {
        match probe::hello(endpoint, timeout) {
            Ok(node) if node.node.0 != id => troubles.push(format!("{endpoint} is node {}", node.node.0)),
            Ok(node) if node.debug.is_empty() => {
                return Err((format!("the debug port of node {id} is off"), exit::NOT_DONE));
            }
            Ok(node) => return Ok(seen_from_here(&node.debug, endpoint)),
            Err(error) => {
                troubles.push(format!("{endpoint}: {error}"));
                silent.push(endpoint);
            }
        }
    }
    let guess = likely
        .filter(|endpoint| silent.contains(endpoint))
        .and_then(|endpoint| above(endpoint));
    guess.ok_or_else(|| {
        let words = format!("no endpoint is node {id}: {}", troubles.join("; "));
        let code = if silent.is_empty() {
            exit::USAGE
        } else {
            exit::UNREACHABLE
        };
        (words, code)
    })
}

/// A debug port that listens on every address of its host is met at the address of the node.
pub(super) fn seen_from_here(debug: &str, endpoint: &str) -> String {
    let host = endpoint.rsplit_once(':').map(|(host, _)| host);
    match (debug.rsplit_once(':'), host) {
        (Some(("0.0.0.0" | "[::]", port)), Some(host)) => format!("{host}:{port}"),
        _ => debug.to_string(),
    }
}

/// Where the debug port stands by default.
pub(super) fn above(endpoint: &str) -> Option<String> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_add(DEBUG_PORT_DISTANCE)?;
    Some(format!("{host}:{port}"))
}

/// Sends the line and shows the reply as it comes; returns its last line.
fn converse(address: &str, line: &[u8], timeout: Duration) -> io::Result<String> {
    let mut stream = probe::dial(address, timeout)?;
    // A live feed may be silent for as long as it likes.
    let is_feed = line.windows(2).any(|pair| pair == b"-f");
    stream.set_read_timeout((!is_feed).then_some(timeout))?;
    stream.write_all(line)?;
    let mut reader = BufReader::new(stream);
    let mut reply = Vec::new();
    loop {
        reply.clear();
        if reader.read_until(b'\n', &mut reply)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it closed before the reply was whole",
            ));
        }
        print(&reply)?;
        let words = String::from_utf8_lossy(&reply);
        if matches!(words.split_whitespace().next(), Some("OK" | "ERR")) {
            return Ok(words.into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_one_line_and_one_word_is_sent_as_it_is() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let text =
            |given: &[&str], output| line(&words(given), output).map(|line| String::from_utf8(line).expect("text"));
        assert_eq!(text(&["status"], Output::Text), Ok("status\n".into()));
        assert_eq!(text(&["get 'my key'"], Output::Text), Ok("get 'my key'\n".into()));
        assert_eq!(text(&["get", "my key"], Output::Text), Ok("get 'my key'\n".into()));
        assert_eq!(text(&["status"], Output::Json), Ok("json status\n".into()));
        assert!(text(&["status\nfault crash"], Output::Text).is_err());
    }

    #[test]
    fn the_debug_port_is_met_at_the_host_of_its_node() {
        assert_eq!(seen_from_here("0.0.0.0:7101", "10.0.0.7:7001"), "10.0.0.7:7101");
        assert_eq!(seen_from_here("127.0.0.1:7101", "10.0.0.7:7001"), "127.0.0.1:7101");
        assert_eq!(above("127.0.0.1:7001").as_deref(), Some("127.0.0.1:7101"));
        assert_eq!(above("127.0.0.1:65500"), None);
    }
}
