//! One connection: a non-blocking socket with what came in and what waits to go out.
//!
//! Readiness is edge-triggered: a socket tells once that it became readable or writable, so it is read and written
//! until it has no more. Where a turn's budget ends that before, the connection stays in a list of those that are
//! looked at again in the next turn, which does not wait. Invariants:
//! * `readable` is false only after a read that got less than it asked for, or would have blocked: what comes behind such
//!   a read is told anew. An end or an error that was told already is not, so from then on the socket is read to its end.
//! * Reads go to one buffer of the loop and are copied out in their true length: a connection that waits holds no more
//!   than the frame that it has begun. One that keeps memory for its next frame holds `KEPT_BYTES`.
//!
//! Not here: frames (`wire::frame`), roles and limits (server.rs).

use super::limits::{FRAME_TIMEOUT, SLOW_READER_TIMEOUT};
use super::output::{Flush, Output};
use crate::time::Time;
use crate::wire::Frame;
use bytes::{Bytes, BytesMut};
use mio::net::TcpStream;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// A client's connection keeps memory of this size for its next frame: most requests fit, and cost no allocation then.
const KEPT_BYTES: usize = 512;

/// What carries the bytes of a connection: plain TCP today, TLS beside it later (`rules.md` 31).
#[derive(Debug)]
pub enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
}

/// A connection of any role.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    remote: SocketAddr,
    /// What came in and was not taken yet.
    pub input: BytesMut,
    /// So much of the memory of `input` outlasts the frames in it: 0 or [`KEPT_BYTES`].
    kept_bytes: usize,
    /// `input` has more memory than that.
    is_roomy: bool,
    output: Output,
    readable: bool,
    writable: bool,
    /// The poll has told an end or an error, which a read is to find.
    is_ending: bool,
    /// Bytes that the frame at the front of `input` still needs, where its length is known.
    wanted: usize,
    /// Since when a frame is unfinished.
    unfinished_since: Option<Time>,
    /// Since when output waits without any byte of it being taken.
    stuck_since: Option<Time>,
    /// When bytes last came in.
    heard: Time,
}

/// How a read ended.
#[derive(Debug)]
pub enum Fill {
    /// The socket has no more for now; it will tell.
    Drained,
    /// The budget is used up; the socket may have more.
    Budget,
    /// The other side will send no more.
    End,
    /// The socket failed.
    Failed(io::Error),
}

impl Connection {
    /// A connection over `stream`, which is registered already; nothing is known of its readiness.
    pub fn new(stream: TcpStream, remote: SocketAddr, now: Time) -> Connection {
        Connection {
            transport: Transport::Plain(stream),
            remote,
            input: BytesMut::new(),
            kept_bytes: 0,
            is_roomy: false,
            output: Output::default(),
            readable: false,
            writable: false,
            is_ending: false,
            wanted: 0,
            unfinished_since: None,
            stuck_since: None,
            heard: now,
        }
    }

    /// The other side's address.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The socket, to register it or to ask it for its error.
    pub fn stream(&mut self) -> &mut TcpStream {
        match &mut self.transport {
            Transport::Plain(stream) => stream,
        }
    }

    /// Keeps a little memory for the next frame. For whose frames are soon done with, as requests are: a peer's entries stay
    /// in the cache of recent ones, and would hold more memory there than they count for.
    pub fn keep_input(&mut self) {
        self.kept_bytes = KEPT_BYTES;
    }

    /// Notes what the poll told; `ending`: the other side sends no more, or the socket failed.
    pub fn note_ready(&mut self, readable: bool, writable: bool, ending: bool) {
        self.readable |= readable;
        self.writable |= writable;
        self.is_ending |= ending;
    }

    /// Whether the socket may have bytes for us.
    pub fn may_read(&self) -> bool {
        self.readable
    }

    /// When bytes last came in.
    pub fn heard(&self) -> Time {
        self.heard
    }

    /// Bytes that wait to go out.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Whether a write would make sense now.
    pub fn may_write(&self) -> bool {
        self.writable && !self.output.is_empty()
    }

    /// Queues bytes, and tells how many; [`Connection::flush`] writes them.
    pub fn push(&mut self, bytes: Bytes) -> usize {
        let count = bytes.len();
        self.output.push(bytes);
        count
    }

    /// Queues a frame that is for this connection alone; tells how long it is.
    pub fn push_frame(&mut self, frame: &Frame, request_id: u64) -> usize {
        self.output.push_frame(frame, request_id)
    }

    /// Reads at most about `budget` bytes into [`Connection::input`], through `scratch`; tells how many came.
    pub fn fill(&mut self, now: Time, budget: usize, scratch: &mut [u8]) -> (usize, Fill) {
        let mut taken = 0;
        while taken < budget {
            match self.transport.read(scratch) {
                Ok(0) => return (taken, Fill::End),
                Ok(count) => {
                    taken += count;
                    self.heard = now;
                    self.take_in(&scratch[..count]);
                    if count < scratch.len() && !self.is_ending {
                        self.readable = false;
                        return (taken, Fill::Drained);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return (taken, Fill::Drained);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (taken, Fill::Failed(error)),
            }
        }
        (taken, Fill::Budget)
    }

    fn take_in(&mut self, bytes: &[u8]) {
        // All of a long frame at once, so that it is not moved each time that some of it comes.
        self.input.reserve(bytes.len().max(self.wanted).max(self.kept_bytes));
        self.is_roomy |= self.input.capacity() > self.kept_bytes;
        self.input.extend_from_slice(bytes);
        self.wanted = self.wanted.saturating_sub(bytes.len());
    }

    /// Tells what a look at the input found: `needed` more bytes for the frame at its front, whose length was checked,
    /// or nothing known (0). Starts and stops the clock of an unfinished frame, and gives idle memory back.
    pub fn settle(&mut self, now: Time, needed: usize) {
        self.wanted = needed;
        if self.input.is_empty() {
            self.unfinished_since = None;
            if std::mem::take(&mut self.is_roomy) {
                self.input = BytesMut::new();
            }
        } else if self.unfinished_since.is_none() {
            self.unfinished_since = Some(now);
        }
    }

    /// A whole frame was taken: the next one has its own time.
    pub fn frame_taken(&mut self) {
        self.unfinished_since = None;
    }

    /// Until when the frame that began must be whole.
    pub fn frame_deadline(&self) -> Option<Time> {
        self.unfinished_since.map(|since| since + FRAME_TIMEOUT)
    }

    /// Until when the other side must take some of what waits for it.
    pub fn output_deadline(&self) -> Option<Time> {
        self.stuck_since.map(|since| since + SLOW_READER_TIMEOUT)
    }

    /// Writes what waits; tells how many bytes went.
    ///
    /// # Errors
    /// What the socket says.
    pub fn flush(&mut self, now: Time) -> io::Result<(usize, Flush)> {
        let (written, flush) = self.output.write_to(&mut self.transport)?;
        match flush {
            Flush::Empty => self.stuck_since = None,
            Flush::Blocked => {
                self.writable = false;
                if written > 0 || self.stuck_since.is_none() {
                    self.stuck_since = Some(now);
                }
            }
            Flush::Budget => self.stuck_since = Some(now),
        }
        Ok((written, flush))
    }

    /// Says that nothing more will be written.
    pub fn shut_write(&mut self) {
        // A socket that is gone already needs no goodbye.
        let _ = self.stream().shutdown(Shutdown::Write);
    }

    /// Throws away what came in: nothing of a closing connection is looked at.
    pub fn discard_input(&mut self) {
        self.input = BytesMut::new();
        self.wanted = 0;
        self.unfinished_since = None;
    }
}

impl Read for Transport {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.read(bytes),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net;
    use std::time::Duration;

    const SCRATCH: usize = 16 * 1024;

    fn pair() -> (Connection, net::TcpStream) {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (near, remote) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut connection = Connection::new(TcpStream::from_std(near), remote, Time::ZERO);
        connection.note_ready(true, true, false);
        (connection, far)
    }

    /// Loopback delivers without our help, but not at once.
    fn fill_until(connection: &mut Connection, bytes: usize) {
        for _ in 0..1000 {
            if connection.input.len() >= bytes {
                return;
            }
            connection.note_ready(true, false, false);
            connection.fill(Time::ZERO, 1 << 20, &mut [0; SCRATCH]);
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("only {} of {bytes} bytes came", connection.input.len());
    }

    #[test]
    fn a_client_keeps_memory_for_a_small_frame_gives_a_large_one_back_and_a_peer_keeps_none() {
        let (mut connection, mut far) = pair();
        let mut take = |connection: &mut Connection, bytes: usize| {
            far.write_all(&vec![1; bytes]).unwrap();
            fill_until(connection, bytes);
            drop(connection.input.split_to(bytes).freeze());
            connection.settle(Time::ZERO, 0);
            connection.input.capacity()
        };
        assert_eq!(take(&mut connection, 100), 0, "nobody has said that it keeps any");
        connection.keep_input();
        assert_eq!(take(&mut connection, 100), KEPT_BYTES - 100);
        let place = connection.input.as_ptr();
        assert_eq!(take(&mut connection, 200), KEPT_BYTES - 200);
        assert_eq!(
            connection.input.as_ptr(),
            place.wrapping_add(100),
            "the same memory from its beginning"
        );
        assert_eq!(take(&mut connection, KEPT_BYTES + 1), 0);
        assert_eq!(take(&mut connection, 100), KEPT_BYTES - 100);
    }

    #[test]
    fn a_read_ends_when_the_socket_has_no_more_or_at_its_budget() {
        let (mut connection, mut far) = pair();
        far.write_all(&vec![1; 100_000]).unwrap();
        fill_until(&mut connection, 100_000);
        let mut scratch = [0; SCRATCH];
        assert!(matches!(
            connection.fill(Time::ZERO, 1, &mut scratch),
            (0, Fill::Drained)
        ));
        assert!(!connection.may_read());
        far.write_all(&vec![2; 100_000]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        connection.note_ready(true, false, false);
        let (count, fill) = connection.fill(Time::ZERO, 20_000, &mut scratch);
        assert!(matches!(fill, Fill::Budget), "{fill:?}");
        assert!((20_000..20_000 + SCRATCH).contains(&count) && connection.may_read());
        drop(far);
    }

    #[test]
    fn an_unfinished_frame_and_a_reader_that_stands_still_have_deadlines() {
        let (mut connection, mut far) = pair();
        far.write_all(b"abc").unwrap();
        fill_until(&mut connection, 3);
        connection.settle(Time::from_millis(5), 10);
        connection.settle(Time::from_millis(9), 10);
        assert_eq!(connection.frame_deadline(), Some(Time::from_millis(5) + FRAME_TIMEOUT));
        connection.discard_input();
        assert_eq!(connection.frame_deadline(), None);

        connection.push(Bytes::from(vec![0; 64 << 20]));
        while connection.flush(Time::from_millis(7)).unwrap().1 == Flush::Budget {}
        assert_eq!(
            connection.output_deadline(),
            Some(Time::from_millis(7) + SLOW_READER_TIMEOUT)
        );
        connection.note_ready(false, true, false);
        assert_eq!(connection.flush(Time::from_millis(8)).unwrap(), (0, Flush::Blocked));
        assert_eq!(
            connection.output_deadline(),
            Some(Time::from_millis(7) + SLOW_READER_TIMEOUT)
        );
    }

    #[test]
    fn the_end_of_the_stream_is_told() {
        let (mut connection, far) = pair();
        drop(far);
        std::thread::sleep(Duration::from_millis(20));
        assert!(matches!(
            connection.fill(Time::ZERO, 100, &mut [0; SCRATCH]),
            (0, Fill::End)
        ));
    }

    #[test]
    fn an_end_that_was_told_is_found_behind_the_last_bytes() {
        let (mut connection, mut far) = pair();
        far.write_all(b"bye").unwrap();
        drop(far);
        std::thread::sleep(Duration::from_millis(20));
        connection.note_ready(true, false, true);
        let (count, fill) = connection.fill(Time::ZERO, 100, &mut [0; SCRATCH]);
        assert!(count == 3 && matches!(fill, Fill::End), "{count} bytes, {fill:?}");
    }
}
