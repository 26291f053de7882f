//! A node as a source of snapshots: one connection, on which pieces of a file are asked for and come in order.
//!
//! Blocking, for tools. Not here: what is asked, and what is done with it (`cli::backup`).

use super::probe::dial;
use crate::paxos::Slot;
use crate::wire::frame::{self, FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use crate::wire::hello::NodeHello;
use crate::wire::{Frame, Hello, HelloKind, Transfer};
use bytes::BytesMut;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection to a node, past its handshake.
#[derive(Debug)]
pub struct Source {
    stream: TcpStream,
    inbox: BytesMut,
    scratch: Vec<u8>,
    node: NodeHello,
}

impl Source {
    /// Dials the node at `address` and says HELLO. Each step of the way may take `timeout`.
    ///
    /// # Errors
    /// Nobody answers there (the error of the socket), or not as a node does (`InvalidData`).
    pub fn connect(address: &str, timeout: Duration) -> io::Result<Source> {
        let mut stream = dial(address, timeout)?;
        stream.write_all(&frame::encode_to_bytes(
            &Frame::Hello(Hello::of_client(String::new(), 0)),
            0,
        ))?;
        let (mut inbox, mut scratch) = (BytesMut::new(), vec![0; READ_BYTES]);
        let node = loop {
            if let Some(frame) = next(&mut inbox, HELLO_BYTES_MAX)? {
                match frame {
                    Frame::Hello(Hello {
                        kind: HelloKind::Node(node),
                        ..
                    }) => break node,
                    frame => return Err(unexpected(&frame)),
                }
            }
            match stream.read(&mut scratch)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => inbox.extend_from_slice(&scratch[..count]),
            }
        };
        Ok(Source {
            stream,
            inbox,
            scratch,
            node,
        })
    }

    /// What the node said of itself.
    pub fn into_node(self) -> NodeHello {
        self.node
    }

    /// Asks for a piece of a snapshot.
    ///
    /// # Errors
    /// That of the socket.
    pub fn ask(&mut self, slot: Slot, offset: u64, length: u32) -> io::Result<()> {
        let ask = Frame::Transfer(Transfer::Ask { slot, offset, length });
        self.stream.write_all(&frame::encode_to_bytes(&ask, 0))
    }

    /// The next thing that the node says of snapshots; none within `wait`.
    ///
    /// # Errors
    /// That of the socket, or what is no frame (`InvalidData`); the connection is of no use then.
    pub fn receive(&mut self, wait: Duration) -> io::Result<Option<Transfer>> {
        self.stream.set_read_timeout(Some(wait))?;
        loop {
            match next(&mut self.inbox, FRAME_BYTES_MAX)? {
                Some(Frame::Transfer(transfer)) => return Ok(Some(transfer)),
                Some(Frame::Ping { nonce }) => {
                    let pong = frame::encode_to_bytes(&Frame::Pong { nonce }, 0);
                    self.stream.write_all(&pong)?;
                }
                Some(Frame::Pong { .. }) => {}
                Some(frame) => return Err(unexpected(&frame)),
                None => match self.stream.read(&mut self.scratch) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => self.inbox.extend_from_slice(&self.scratch[..count]),
                    Err(error) if is_timeout(&error) => return Ok(None),
                    Err(error) => return Err(error),
                },
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The next whole frame.
fn next(inbox: &mut BytesMut, limit: usize) -> io::Result<Option<Frame>> {
    match frame::next_frame(inbox, limit).map_err(|error| garbled(&error.to_string()))? {
        None => Ok(None),
        Some((header, body)) => frame::decode(header, body)
            .map(Some)
            .map_err(|error| garbled(&error.to_string())),
    }
}

fn unexpected(frame: &Frame) -> io::Error {
    match frame {
        Frame::Error { code, detail } => garbled(&format!("it said {code}: {detail}")),
        frame => garbled(&format!("it said {}", frame.name())),
    }
}

fn garbled(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a node of this protocol: {why}"),
    )
}
