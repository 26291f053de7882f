//! Listening and accepting: within limits, and without spinning when descriptors run out.

use super::{Config, DEBUG_LISTENER, DebugListen, LISTENER, Link, Machine, Role, Server, ServerError, Time, debug};
use crate::node::connection::Connection;
use crate::node::limits::{ACCEPT_PAUSE, ACCEPTS_PER_TURN, DEBUG_CONNECTIONS_MAX, RESERVED_CONNECTIONS};
use crate::wire::Frame;
use crate::wire::frame;
use crate::wire::message::ErrorCode;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs};

/// The two listeners, and whether they may have connections for us.
pub(super) struct Listeners {
    main: TcpListener,
    debug: Option<TcpListener>,
    main_ready: bool,
    debug_ready: bool,
    /// Descriptors ran out: nothing is accepted until then.
    paused_until: Option<Time>,
}

impl Listeners {
    /// Binds both.
    pub(super) fn open(config: &Config, registry: &Registry) -> Result<Listeners, ServerError> {
        let (mut main, address) = bind(&config.listen)?;
        if !address.ip().is_loopback() {
            log::warn!(
                "listening beyond loopback, on {address}: there is no authentication and no encryption yet; whoever \
                 reaches this port can read and write everything"
            );
        }
        registry
            .register(&mut main, LISTENER, Interest::READABLE)
            .map_err(ServerError::System)?;
        let mut debug = match &config.debug {
            DebugListen::Off => None,
            DebugListen::At(text) => {
                let (listener, address) = bind(text)?;
                if !address.ip().is_loopback() && !config.debug_allow_remote {
                    return Err(ServerError::DebugNotLoopback { address: text.clone() });
                }
                Some(listener)
            }
        };
        if let Some(listener) = &mut debug {
            registry
                .register(listener, DEBUG_LISTENER, Interest::READABLE)
                .map_err(ServerError::System)?;
        }
        Ok(Listeners {
            main,
            debug,
            main_ready: false,
            debug_ready: false,
            paused_until: None,
        })
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.main.local_addr()
    }

    pub(super) fn debug_address(&self) -> Option<SocketAddr> {
        self.debug.as_ref()?.local_addr().ok()
    }

    pub(super) fn note_ready(&mut self, debug: bool) {
        if debug {
            self.debug_ready = true;
        } else {
            self.main_ready = true;
        }
    }

    /// Whether there may be something to accept now.
    pub(super) fn is_ready(&self, now: Time) -> bool {
        (self.main_ready || self.debug_ready) && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When accepting goes on that was paused.
    pub(super) fn resumes_at(&self) -> Option<Time> {
        self.paused_until.filter(|_| self.main_ready || self.debug_ready)
    }
}

fn bind(address: &str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen {
        address: address.to_string(),
        source,
    };
    let found = address.to_socket_addrs().map_err(failed)?.next();
    let none = || io::Error::new(ErrorKind::NotFound, "the name stands for no address");
    let address = found.ok_or_else(|| failed(none()))?;
    Ok((TcpListener::bind(address).map_err(failed)?, address))
}

impl Server {
    /// Accepts what waits, on both listeners.
    pub(super) fn accept_all(&mut self, machine: &Machine, now: Time) {
        if !self.listeners.is_ready(now) {
            return;
        }
        self.listeners.paused_until = None;
        self.listeners.main_ready = self.listeners.main_ready && self.accept_some(false, machine, now);
        self.listeners.debug_ready = self.listeners.debug_ready && self.accept_some(true, machine, now);
    }

    /// Accepts on one listener; false once it has no more.
    fn accept_some(&mut self, debug: bool, machine: &Machine, now: Time) -> bool {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = match (debug, &self.listeners.debug) {
                (false, _) => self.listeners.main.accept(),
                (true, Some(listener)) => listener.accept(),
                (true, None) => return false,
            };
            match accepted {
                Ok((stream, remote)) if debug => self.take_debug(stream, remote, now),
                Ok((stream, remote)) => self.take_fresh(stream, remote, machine, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.pause_accepting(&error, now);
                    return true;
                }
            }
        }
        true
    }

    /// Descriptors (or memory) ran out: connections wait in the kernel's queue for a moment, and the loop does not spin.
    fn pause_accepting(&mut self, error: &io::Error, now: Time) {
        self.metrics.accept_pauses += 1;
        self.listeners.paused_until = Some(now + ACCEPT_PAUSE);
        let line = format!("cannot accept connections: {error}; trying again in {ACCEPT_PAUSE:?}");
        self.complain("accept", now, &line);
    }

    fn take_fresh(&mut self, stream: TcpStream, remote: SocketAddr, machine: &Machine, now: Time) {
        self.metrics.accepted += 1;
        let is_spoken_for = self.clients + self.fresh.len() >= self.config.max_connections + RESERVED_CONNECTIONS;
        if is_spoken_for || self.links.len() >= self.sockets_max {
            let Some(&oldest) = self.fresh.first() else {
                return self.turn_away(stream, remote, now);
            };
            // Peers must get in, so who came first and has said nothing makes room, at once.
            let detail = "said nothing, and others wait";
            self.metrics.refused += 1;
            self.refuse_link(oldest, ErrorCode::TooManyConnections, detail, Some(machine), now);
            self.flush_link(oldest, now);
            self.close(oldest, "", now);
        }
        self.take_stream(stream, remote, Role::Fresh, now);
    }

    fn take_debug(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Time) {
        self.metrics.accepted += 1;
        if self.debug_links >= DEBUG_CONNECTIONS_MAX || self.links.len() >= self.sockets_max {
            self.metrics.refused += 1;
            // As far as the empty socket takes it; it does.
            let _ = stream.write(b"ERR too_many_connections\n");
            return;
        }
        self.take_stream(stream, remote, Role::Debug(Box::<debug::Session>::default()), now);
    }

    /// Refuses without a place for the connection: one write, as far as the empty socket takes it, and gone.
    fn turn_away(&mut self, mut stream: TcpStream, remote: SocketAddr, now: Time) {
        self.metrics.refused += 1;
        self.metrics.error(ErrorCode::TooManyConnections);
        let detail = format!("{} connections are the limit", self.config.max_connections);
        let error = Frame::Error {
            code: ErrorCode::TooManyConnections,
            detail: detail.clone(),
        };
        let _ = stream.write(&frame::encode_to_bytes(&error, 0));
        self.complain("turned_away", now, &format!("{remote}: refused: {detail}"));
    }

    fn take_stream(&mut self, mut stream: TcpStream, remote: SocketAddr, role: Role, now: Time) {
        let number = self.links.next_number();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self
            .poll
            .registry()
            .register(&mut stream, Token(number as usize), interest);
        if let Err(error) = registered {
            return self.pause_accepting(&error, now);
        }
        // Frames are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        self.add(Connection::new(stream, remote, now), role, now);
        if let Some(Link { connection, .. }) = self.links.get_mut(number) {
            // What was sent with the connection is there already.
            connection.note_ready(true, true, false);
            self.ready.note(number);
        }
    }
}

/// Errors of the one connection that was to be accepted, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
