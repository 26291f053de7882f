//! One connection of a client: a non-blocking socket with the bytes that wait on either side of it.

use crate::wire::Frame;
use crate::wire::frame::{self, FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use bytes::BytesMut;
use mio::net::TcpStream;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};

/// What is left of a large buffer for the next requests.
const OUT_BYTES_KEPT: usize = 1 << 20;

/// A connection, dialled or up.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) client: usize,
    pub(super) endpoint: usize,
    is_dialling: bool,
    /// No frame but HELLO came yet, so none may be longer than one.
    greeted: bool,
    inbox: BytesMut,
    outbox: Vec<u8>,
    /// Bytes of `outbox` that are written.
    written: usize,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// There may be more.
    More,
    /// Nothing more for now.
    Drained,
    /// The other side closed, or the connection failed; in words.
    Ended(String),
}

impl Connection {
    /// Begins to dial. Several addresses of one name: the first that the system takes.
    pub(super) fn dial(address: &str, client: usize, endpoint: usize) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect(address) {
                Ok(stream) => return Ok(Connection::new(stream, client, endpoint)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn new(stream: TcpStream, client: usize, endpoint: usize) -> Connection {
        Connection {
            stream,
            client,
            endpoint,
            is_dialling: true,
            greeted: false,
            inbox: BytesMut::new(),
            outbox: Vec::new(),
            written: 0,
        }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.is_dialling
    }

    /// Whether the dial went through; an error if it failed.
    pub(super) fn finish_dial(&mut self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        let peer = match self.stream.peer_addr() {
            Ok(peer) => peer,
            Err(error) if is_in_progress(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        refuse_oneself(peer, self.stream.local_addr()?)?;
        self.stream.set_nodelay(true)?;
        self.is_dialling = false;
        Ok(true)
    }

    /// Puts a frame behind what waits to be written. True if nothing waited before.
    pub(super) fn queue(&mut self, frame: &Frame, request_id: u64) -> bool {
        let was_empty = self.outbox.is_empty();
        frame::encode(frame, request_id, &mut self.outbox);
        was_empty
    }

    /// Writes what waits, until it would block.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.is_dialling {
            return Ok(());
        }
        while self.written < self.outbox.len() {
            match self.stream.write(&self.outbox[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outbox.clear();
        self.outbox.shrink_to(OUT_BYTES_KEPT);
        self.written = 0;
        Ok(())
    }

    /// Reads once. A read that did not fill the buffer has drained the socket, unless its end is to be seen yet.
    pub(super) fn read(&mut self, scratch: &mut [u8], is_ending: bool) -> ReadOutcome {
        match self.stream.read(scratch) {
            Ok(0) => ReadOutcome::Ended("the node closed the connection".into()),
            Ok(count) => {
                self.inbox.extend_from_slice(&scratch[..count]);
                if count < scratch.len() && !is_ending {
                    ReadOutcome::Drained
                } else {
                    ReadOutcome::More
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => ReadOutcome::More,
            Err(error) => ReadOutcome::Ended(error.to_string()),
        }
    }

    /// The next whole frame that was read; an error in words if the bytes are none.
    pub(super) fn next_frame(&mut self) -> Result<Option<(u64, Frame)>, String> {
        // What a node says before HELLO is a HELLO, or an ERROR behind it: both are small.
        let limit = if self.greeted { FRAME_BYTES_MAX } else { HELLO_BYTES_MAX };
        let Some((header, body)) = frame::next_frame(&mut self.inbox, limit).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let frame = frame::decode(header, body).map_err(|error| error.to_string())?;
        self.greeted |= matches!(frame, Frame::Hello(_));
        Ok(Some((header.request_id, frame)))
    }
}

/// Dialling a dead port of the ephemeral range may, by the rules of TCP, connect a socket to itself.
fn refuse_oneself(peer: SocketAddr, local: SocketAddr) -> io::Result<()> {
    if peer == local {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "nobody listens there (the dial met itself)",
        ));
    }
    Ok(())
}

fn is_in_progress(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::WouldBlock)
}
