//! Who answers at an address, and what it says of itself: one handshake, or one STATUS.

use super::machine::ClientMachine;
use super::options::Options;
use super::outcome::End;
use super::pool::Pool;
use super::source::Source;
use crate::wire::hello::NodeHello;
use crate::wire::{RequestOp, Served};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A node that refuses for so long is down.
const REFUSED_GRACE: Duration = Duration::from_millis(100);

/// Asks every endpoint for its own status, all at once, and nobody else in its place; in their order. Of one that does
/// not answer within `timeout`, why.
///
/// # Errors
/// The operating system failed this process.
pub fn statuses(endpoints: &[String], options: &Options, timeout: Duration) -> io::Result<Vec<Result<Value, String>>> {
    let mut pool = Pool::new()?;
    for (seed, endpoint) in (0..).zip(endpoints) {
        let options = Options {
            follow_leader: false,
            give_up_unreachable: Some(REFUSED_GRACE),
            seed,
            ..options.clone()
        };
        let client = pool.add(ClientMachine::new(vec![endpoint.clone()], options));
        pool.submit(pool.now(), client, 0, RequestOp::Status, timeout);
    }
    let mut answers: Vec<Option<Result<Value, String>>> = vec![None; endpoints.len()];
    let mut completions = Vec::new();
    while answers.iter().any(Option::is_none) {
        pool.turn(None, &mut completions)?;
        for completion in completions.drain(..) {
            answers[completion.client] = Some(status(completion.end));
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

fn status(end: End) -> Result<Value, String> {
    match end {
        End::Done(Served::Status(text)) => {
            serde_json::from_str(&text).map_err(|error| format!("its status is no JSON: {error}"))
        }
        End::Done(_) => Err("it answered something else".into()),
        End::NotDone(failure) | End::Unknown(failure) => Err(failure.to_string()),
    }
}

/// What the node at `address` says of itself. Each step of the way may take `timeout`.
///
/// # Errors
/// Nobody answers there (the error of the socket), or not as a node does (`InvalidData`).
pub fn hello(address: &str, timeout: Duration) -> io::Result<NodeHello> {
    Ok(Source::connect(address, timeout)?.into_node())
}

/// Asks a debug port one line; the whole reply. Each step of the way may take `timeout`.
///
/// # Errors
/// That of the socket.
pub fn ask_debug(address: &str, line: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = dial(address, timeout)?;
    writeln!(stream, "{line}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}

/// Dials the first address of the name that answers, with `timeout` for each and for every later read and write.
///
/// # Errors
/// That of the last address.
pub fn dial(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
