//! What waits to be written to one connection: a queue of byte strings, written with as few calls as possible.
//!
//! What is shared stands in the queue as [`Bytes`], so a frame that goes to many peers is in memory once. What is of this
//! connection alone is encoded straight behind it, into a buffer that is used again: many small answers are one piece.
//! It does not bound itself: whoever pushes asks [`Output::len`] first and applies the limit of its kind of connection
//! (limits.rs).

use super::limits::WRITE_BUDGET_BYTES;
use crate::wire::{Frame, frame};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

/// Most pieces that one vectored write hands to the kernel.
const SLICES_PER_WRITE: usize = 64;
/// What is left to an idle connection of its buffer.
const TAIL_BYTES_KEPT: usize = 512;

/// The queue.
#[derive(Debug, Default)]
pub struct Output {
    pieces: VecDeque<Bytes>,
    /// Behind the pieces; nothing of it is written yet.
    tail: Vec<u8>,
    /// Of all that waits.
    bytes: usize,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing waits any more.
    Empty,
    /// The socket takes no more now; it will tell when it does.
    Blocked,
    /// This turn's budget is used up; the socket might take more.
    Budget,
}

impl Output {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Puts a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.seal(0);
            self.pieces.push_back(piece);
        }
    }

    /// Encodes a frame behind the others; tells how long it is.
    pub fn push_frame(&mut self, frame: &Frame, request_id: u64) -> usize {
        let before = self.tail.len();
        frame::encode(frame, request_id, &mut self.tail);
        let count = self.tail.len() - before;
        self.bytes += count;
        count
    }

    /// Makes a piece of the tail, of which so many bytes are written.
    fn seal(&mut self, written: usize) {
        if written < self.tail.len() {
            let mut piece = Bytes::from(std::mem::take(&mut self.tail));
            piece.advance(written);
            self.pieces.push_back(piece);
        } else {
            self.tail.clear();
            self.tail.shrink_to(TAIL_BYTES_KEPT);
        }
    }

    /// Writes until nothing waits, the socket would block, or the turn's budget is used up. Tells how many bytes went.
    ///
    /// # Errors
    /// What the socket says; the connection is of no use then, and nothing went by this call. A failure behind bytes that
    /// went ends the call as a used budget does, so that they are told; the next call meets it again.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<(usize, Flush)> {
        let mut written = 0;
        while !self.is_empty() {
            if written >= WRITE_BUDGET_BYTES {
                return Ok((written, Flush::Budget));
            }
            match self.write_once(socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.advance(count);
                    written += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((written, Flush::Blocked)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if written > 0 => return Ok((written, Flush::Budget)),
                Err(error) => return Err(error),
            }
        }
        Ok((written, Flush::Empty))
    }

    /// Offers the socket what waits. A turn's answers to one client, or its message to a peer, are one piece, for which the
    /// plain call is the shorter one.
    fn write_once(&self, socket: &mut impl Write) -> io::Result<usize> {
        match self.pieces.front() {
            None => return socket.write(&self.tail),
            Some(piece) if self.pieces.len() == 1 && self.tail.is_empty() => return socket.write(piece),
            Some(_) => {}
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let pieces = self.pieces.iter().map(|piece| &piece[..]);
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces.chain([&self.tail[..]])) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        socket.write_vectored(&slices[..used])
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while count > 0 {
            let Some(front) = self.pieces.front_mut() else {
                return self.seal(count);
            };
            let taken = count.min(front.len());
            front.advance(taken);
            count -= taken;
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket that takes `each` bytes a call and blocks after `calls` calls.
    struct Narrow {
        each: usize,
        calls: usize,
        taken: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.calls == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.calls -= 1;
            let count = self.each.min(bytes.len());
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn pieces_leave_in_order_whatever_the_socket_takes() {
        for each in 1..=7 {
            let mut output = Output::default();
            for piece in ["ab", "", "cde", "f", "ghijk"] {
                output.push(Bytes::from_static(piece.as_bytes()));
            }
            assert_eq!(output.len(), 11);
            let mut socket = Narrow {
                each,
                calls: 2,
                taken: Vec::new(),
            };
            let (first, flush) = output.write_to(&mut socket).unwrap();
            assert_eq!((flush, output.len()), (Flush::Blocked, 11 - first), "each={each}");
            socket.calls = 100;
            assert_eq!(output.write_to(&mut socket).unwrap().1, Flush::Empty);
            assert_eq!(socket.taken, b"abcdefghijk");
            assert!(output.is_empty());
        }
    }

    #[test]
    fn frames_leave_in_order_with_shared_pieces_whatever_the_socket_takes() {
        let frame = |nonce| Frame::Ping { nonce };
        let shared = |nonce| frame::encode_to_bytes(&frame(nonce), 0);
        for each in 1..=50 {
            let mut output = Output::default();
            output.push_frame(&frame(1), 0);
            output.push_frame(&frame(2), 0);
            output.push(shared(3));
            let length = output.push_frame(&frame(4), 0);
            assert_eq!(output.len(), 4 * length);
            let mut socket = Narrow {
                each,
                calls: 3,
                taken: Vec::new(),
            };
            output.write_to(&mut socket).unwrap();
            output.push_frame(&frame(5), 0);
            socket.calls = 1000;
            assert_eq!(output.write_to(&mut socket).unwrap().1, Flush::Empty, "each={each}");
            assert_eq!(
                socket.taken,
                (1..=5).flat_map(shared).collect::<Vec<u8>>(),
                "each={each}"
            );
        }
    }

    #[test]
    fn what_went_before_a_failure_is_told() {
        /// Takes two bytes, and is gone.
        struct Gone(bool);
        impl Write for Gone {
            fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(ErrorKind::BrokenPipe.into());
                }
                Ok(2)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::default();
        output.push(Bytes::from_static(b"abcde"));
        let mut socket = Gone(false);
        assert_eq!(output.write_to(&mut socket).unwrap(), (2, Flush::Budget));
        assert_eq!(output.len(), 3);
        let error = output.write_to(&mut socket).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_long_queue_leaves_the_turn_when_its_budget_is_used_up() {
        let mut output = Output::default();
        let piece = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..6 {
            output.push(piece.clone());
        }
        let mut socket = Narrow {
            each: 1 << 20,
            calls: 100,
            taken: Vec::new(),
        };
        assert_eq!(
            output.write_to(&mut socket).unwrap(),
            (WRITE_BUDGET_BYTES, Flush::Budget)
        );
        assert_eq!(output.len(), (6 << 20) - WRITE_BUDGET_BYTES);
    }
}
