//! Framed connections of the references, and the load that drives them: as lean as they can be, so that they show what
//! this machine allows and not what a protocol costs.
//!
//! A frame is `length u32 | crc32 u32 | body`: what any careful store pays per message.

use crate::figure::Latencies;
use crate::now;
use byteorder::{BigEndian, ByteOrder};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bytes of a frame before its body.
const HEAD_BYTES: usize = 8;
/// One read asks for so much.
const READ_BYTES: usize = 64 << 10;
/// The loop looks at the clock at least so often.
const POLL: Duration = Duration::from_millis(100);

/// Readable and writable.
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Appends one frame.
pub(crate) fn frame(out: &mut Vec<u8>, body: &[u8]) {
    let mut head = [0; HEAD_BYTES];
    BigEndian::write_u32(&mut head[..4], u32::try_from(body.len()).expect("bodies are small"));
    BigEndian::write_u32(&mut head[4..], crc32fast::hash(body));
    out.extend_from_slice(&head);
    out.extend_from_slice(body);
}

/// A socket and what waits on either side of it.
pub(crate) struct Conn {
    pub(crate) socket: TcpStream,
    pub(crate) input: Vec<u8>,
    /// Input before it is taken.
    from: usize,
    pub(crate) out: Vec<u8>,
}

impl Conn {
    pub(crate) fn new(socket: TcpStream) -> Conn {
        socket.set_nodelay(true).expect("a socket takes its options");
        Conn {
            socket,
            input: Vec::new(),
            from: 0,
            out: Vec::new(),
        }
    }

    /// Reads what is there. False: the other side is gone.
    pub(crate) fn fill(&mut self) -> bool {
        self.input.drain(..self.from);
        self.from = 0;
        loop {
            let length = self.input.len();
            self.input.resize(length + READ_BYTES, 0);
            let got = self.socket.read(&mut self.input[length..]);
            self.input.truncate(length + *got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => return false,
                Ok(count) if count < READ_BYTES => return true, // a short read has drained the socket
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    /// The body of the next whole frame, as a range of `input`.
    pub(crate) fn next(&mut self) -> Option<Range<usize>> {
        let have = &self.input[self.from..];
        if have.len() < HEAD_BYTES {
            return None;
        }
        let length = BigEndian::read_u32(have) as usize;
        let body = have.get(HEAD_BYTES..HEAD_BYTES + length)?;
        assert_eq!(
            crc32fast::hash(body),
            BigEndian::read_u32(&have[4..]),
            "a damaged frame"
        );
        let body = self.from + HEAD_BYTES..self.from + HEAD_BYTES + length;
        self.from = body.end;
        Some(body)
    }

    /// Writes what the socket takes; the rest goes at the next writable event.
    pub(crate) fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(_) => return,
            }
        }
    }
}

/// A closed loop: connections that keep requests of one size in flight.
pub(crate) struct Load {
    poll: Poll,
    conns: Vec<(Conn, VecDeque<Instant>)>,
    body: Vec<u8>,
}

impl Load {
    /// `count` connections to a server of this machine, each with `depth` requests of `bytes` in flight.
    pub(crate) fn connect(port: u16, count: usize, depth: usize, bytes: usize) -> Load {
        let (poll, body) = (Poll::new().expect("a poll"), vec![42; bytes]);
        let mut conns = Vec::new();
        for number in 0..count {
            let socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            socket.set_nonblocking(true).expect("a socket takes its options");
            let mut conn = Conn::new(TcpStream::from_std(socket));
            let registry = poll.registry();
            registry
                .register(&mut conn.socket, Token(number), BOTH)
                .expect("a poll takes sockets");
            (0..depth).for_each(|_| frame(&mut conn.out, &body));
            conns.push((conn, VecDeque::from(vec![now(); depth])));
        }
        Load { poll, conns, body }
    }

    /// Runs it for so long: what each request took, and how long it was all in all.
    pub(crate) fn run(&mut self, span: Duration) -> (Latencies, Duration) {
        let (mut events, mut latencies) = (Events::with_capacity(1024), Latencies::new());
        let begun = now();
        for (conn, _) in &mut self.conns {
            conn.flush();
        }
        while begun.elapsed() < span {
            match self.poll.poll(&mut events, Some(POLL)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.expect("the poll works"),
            }
            for event in &events {
                let (conn, sent) = &mut self.conns[event.token().0];
                if event.is_readable() {
                    assert!(conn.fill(), "the server closed the connection");
                    let now = now();
                    while conn.next().is_some() {
                        let begun = sent.pop_front().expect("an answer is to a request");
                        latencies.add(now - begun);
                        frame(&mut conn.out, &self.body);
                        sent.push_back(now);
                    }
                }
                conn.flush();
            }
        }
        (latencies, begun.elapsed())
    }
}
