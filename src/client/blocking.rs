//! The blocking client, for programs and one-shot commands: one call, one answer, no thread.
//!
//! ```no_run
//! use synod::client::{Options, blocking::Client};
//! let mut client = Client::connect(&["127.0.0.1:7001", "127.0.0.1:7002"], Options::random()?)?;
//! client.put("color", "blue")?;
//! let color = client.get("color")?.expect("just put");
//! assert_eq!(&color.value[..], b"blue");
//! client.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use super::machine::ClientMachine;
use super::options::{CLOSE_TIMEOUT, Options};
use super::outcome::{Cause, End, Failure};
use super::pool::Pool;
use crate::kv::{Answer, Done, Expect, Op, Versioned};
use crate::paxos::NodeId;
use crate::wire::{RequestOp, Served};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::time::Duration;

/// Why an operation has no answer.
#[derive(Debug)]
pub enum Error {
    /// Certainly not done.
    NotDone(Failure),
    /// It may have taken effect, may yet, or never will.
    Unknown(Failure),
    /// The operating system failed this process; what was open is as unknown as the operation then was.
    Io(io::Error),
}

/// How a `cas` was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cas {
    /// It matched; the key's version is now this.
    Swapped {
        /// For the next `cas`.
        version: u64,
    },
    /// It did not match; what is there now.
    Mismatch(Option<Versioned>),
}

/// One session with a cluster, one operation at a time.
#[derive(Debug)]
pub struct Client {
    pool: Pool,
    timeout: Duration,
    token: u64,
}

impl Error {
    /// Whether the same operation, called again, is safe and may end otherwise.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::NotDone(failure) => End::NotDone(failure.clone()).is_retryable(),
            Error::Unknown(_) | Error::Io(_) => false,
        }
    }

    /// Whether the operation may have taken effect.
    pub fn is_maybe_done(&self) -> bool {
        !matches!(self, Error::NotDone(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotDone(failure) => End::NotDone(failure.clone()).fmt(f),
            Error::Unknown(failure) => End::Unknown(failure.clone()).fmt(f),
            Error::Io(error) => write!(f, "unknown: the operating system failed: {error}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(error) => Some(error),
            Error::NotDone(_) | Error::Unknown(_) => None,
        }
    }
}

impl Client {
    /// A client of the cluster whose nodes answer at `endpoints`, each `host:port`. Nothing is dialled before it is needed.
    ///
    /// # Errors
    /// No endpoint is named, or the system gives no poll.
    pub fn connect<E: AsRef<str>>(endpoints: &[E], options: Options) -> io::Result<Client> {
        if endpoints.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no endpoint is named"));
        }
        let endpoints = endpoints.iter().map(|endpoint| endpoint.as_ref().to_string()).collect();
        let mut pool = Pool::new()?;
        let timeout = options.timeout;
        pool.add(ClientMachine::new(endpoints, options));
        Ok(Client {
            pool,
            timeout,
            token: 0,
        })
    }

    /// Sets `key` to `value`; returns the key's new version.
    ///
    /// # Errors
    /// [`Error`] says whether it may have been done.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<u64, Error> {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
            if_absent: false,
            want_previous: false,
        };
        Ok(self.write(op)?.revision)
    }

    /// Sets `key` to `value` if it is absent; returns whether it was.
    ///
    /// # Errors
    /// [`Error`] says whether it may have been done.
    pub fn put_if_absent(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<bool, Error> {
        let op = Op::Put {
            key: key.into(),
            value: value.into(),
            if_absent: true,
            want_previous: false,
        };
        Ok(matches!(self.write(op)?.answer, Answer::Written { .. }))
    }

    /// The value of `key`, never older than the newest write that was acknowledged before the call.
    ///
    /// # Errors
    /// [`Error::NotDone`]; reads are never unknown.
    pub fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<Versioned>, Error> {
        match self.call(RequestOp::Get { key: key.into() })? {
            Served::Done(Done {
                answer: Answer::Found(found),
                ..
            }) => Ok(Some(found)),
            Served::Done(_) | Served::Stale { .. } | Served::Status(_) => Ok(None),
        }
    }

    /// Removes `key`; returns whether it was there.
    ///
    /// # Errors
    /// [`Error`] says whether it may have been done.
    pub fn del(&mut self, key: impl Into<Bytes>) -> Result<bool, Error> {
        let op = Op::Del {
            key: key.into(),
            want_previous: false,
        };
        Ok(matches!(self.write(op)?.answer, Answer::Written { .. }))
    }

    /// Sets `key` to `new` if what is there is as expected.
    ///
    /// # Errors
    /// [`Error`] says whether it may have been done.
    pub fn cas(&mut self, key: impl Into<Bytes>, expect: Expect, new: impl Into<Bytes>) -> Result<Cas, Error> {
        let op = Op::Cas {
            key: key.into(),
            expect,
            value: new.into(),
            want_previous: false,
        };
        let done = self.write(op)?;
        Ok(match done.answer {
            Answer::CasFailed { current } => Cas::Mismatch(current),
            _ => Cas::Swapped { version: done.revision },
        })
    }

    /// Any operation, under the options' timeout.
    ///
    /// # Errors
    /// [`Error`] says whether it may have been done.
    pub fn call(&mut self, op: RequestOp) -> Result<Served, Error> {
        match self.run(op).map_err(Error::Io)? {
            End::Done(served) => Ok(served),
            End::NotDone(failure) => Err(Error::NotDone(failure)),
            End::Unknown(failure) => Err(Error::Unknown(failure)),
        }
    }

    /// Any operation, to its end.
    ///
    /// # Errors
    /// The operating system failed this process.
    pub fn run(&mut self, op: RequestOp) -> io::Result<End> {
        let mut completions = Vec::with_capacity(1);
        // A connection may have ended, or been asked whether it lives, since the last call: better seen before than after.
        let now = self.pool.now();
        self.pool.turn(Some(now), &mut completions)?;
        self.token += 1;
        self.pool.submit(self.pool.now(), 0, self.token, op, self.timeout);
        loop {
            self.pool.turn(None, &mut completions)?;
            if let Some(completion) = completions.pop() {
                return Ok(completion.end);
            }
        }
    }

    /// Which nodes were met, with the addresses of their debug ports.
    pub fn nodes(&self) -> Vec<(NodeId, String)> {
        self.pool.nodes(0)
    }

    /// Closes the session, so that the cluster may forget it, and the connections.
    ///
    /// # Errors
    /// The operating system failed this process.
    pub fn close(mut self) -> io::Result<()> {
        self.pool.close(CLOSE_TIMEOUT, &mut Vec::new())
    }

    fn write(&mut self, op: Op) -> Result<Done, Error> {
        match self.call(RequestOp::Write(op))? {
            Served::Done(done) => Ok(done),
            // A node that answers a write like a read does not speak the protocol; what it did, nobody knows.
            Served::Stale { .. } | Served::Status(_) => Err(Error::Unknown(Failure::new(
                Cause::Protocol,
                "a read's answer to a write",
            ))),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.pool.is_closed() {
            // Best effort: a session that is not closed expires.
            let _ = self.pool.close(CLOSE_TIMEOUT, &mut Vec::new());
        }
    }
}
