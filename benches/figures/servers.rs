//! The references' servers: an echo, and a leader with two followers that replicate a log in batches with no consensus
//! at all: no ballots, no sessions, no recovery, no state machine.
//!
//! Its shape is that of a node: one loop a process, one batch a turn, one write, one fdatasync and one message to each
//! follower for the whole batch, the followers' syncs beside the leader's own. So what a node is slower by is what Paxos,
//! the map and the sessions cost.

use crate::net::{BOTH, Conn, frame};
use byteorder::{BigEndian, ByteOrder};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const ACCEPT: Token = Token(usize::MAX);
/// Size of a log; it is written round and round.
const LOG_BYTES: u64 = 64 << 20;
/// A batch begins with the number of its last entry.
const NUMBER_BYTES: usize = 8;

/// A file of zeros, written and synced, so that later writes change no metadata.
pub(crate) fn preallocated(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .write(true)
        .truncate(true)
        .open(path)
        .expect("a file");
    let zeros = vec![0; 1 << 20];
    for at in (0..LOG_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("the disk has room");
    }
    file.sync_all().expect("the disk syncs");
    file
}

/// A log that is synced after each batch, or none at all.
pub(crate) struct Log {
    file: Option<File>,
    at: u64,
}

impl Log {
    /// A log at `path`; `-` keeps none.
    pub(crate) fn open(path: &str) -> Log {
        let file = (path != "-").then(|| preallocated(path.as_ref()));
        Log { file, at: 0 }
    }

    pub(crate) fn append(&mut self, batch: &[u8]) {
        let Some(file) = &self.file else { return };
        if self.at + batch.len() as u64 > LOG_BYTES {
            self.at = 0;
        }
        file.write_all_at(batch, self.at).expect("the disk takes it");
        file.sync_data().expect("the disk syncs");
        self.at += batch.len() as u64;
    }
}

/// One event loop: accepts, reads, calls its turn once for each wake-up with the connections that have input.
struct Server {
    poll: Poll,
    listener: TcpListener,
    conns: Vec<Option<Conn>>,
}

impl Server {
    /// Listens, and prints the port: whoever started this process waits for it.
    fn bind() -> Server {
        let poll = Poll::new().expect("a poll");
        let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
        let registry = poll.registry();
        registry
            .register(&mut listener, ACCEPT, Interest::READABLE)
            .expect("a poll takes sockets");
        println!("{}", listener.local_addr().expect("it is bound").port());
        let conns = Vec::new();
        Server { poll, listener, conns }
    }

    fn add(&mut self, socket: TcpStream) {
        let mut conn = Conn::new(socket);
        let token = Token(self.conns.len());
        self.poll
            .registry()
            .register(&mut conn.socket, token, BOTH)
            .expect("a poll takes sockets");
        self.conns.push(Some(conn));
    }

    fn run(mut self, mut turn: impl FnMut(&mut [Option<Conn>], &[usize])) {
        let mut events = Events::with_capacity(1024);
        loop {
            self.poll.poll(&mut events, None).expect("the poll works");
            let mut ready = Vec::new();
            for event in &events {
                if event.token() == ACCEPT {
                    while let Ok((socket, _)) = self.listener.accept() {
                        self.add(socket);
                    }
                    continue;
                }
                let place = event.token().0;
                let Some(conn) = &mut self.conns[place] else { continue };
                if !event.is_readable() {
                    conn.flush();
                } else if conn.fill() {
                    ready.push(place);
                } else {
                    self.conns[place] = None;
                }
            }
            turn(&mut self.conns, &ready);
        }
    }
}

/// Sends back what it gets.
pub(crate) fn echo() {
    Server::bind().run(|conns, ready| {
        for place in ready {
            let Some(conn) = &mut conns[*place] else { continue };
            while let Some(body) = conn.next() {
                frame(&mut conn.out, &conn.input[body]);
            }
            conn.flush();
        }
    });
}

/// Appends batches, and answers with the number of the last entry that is durable.
pub(crate) fn follower(log: &str) {
    let mut log = Log::open(log);
    Server::bind().run(|conns, ready| {
        for place in ready {
            let Some(conn) = &mut conns[*place] else { continue };
            let (mut batch, mut last) = (Vec::new(), 0);
            while let Some(body) = conn.next() {
                last = BigEndian::read_u64(&conn.input[body.clone()]);
                frame(&mut batch, &conn.input[body]);
            }
            if last > 0 {
                log.append(&batch);
                frame(&mut conn.out, &last.to_be_bytes());
                conn.flush();
            }
        }
    });
}

/// Numbers what clients send, gives each turn's batch to the followers and its own log, and answers once one follower
/// has it: two of three.
pub(crate) fn leader(log: &str, followers: &[u16]) {
    let (mut log, is_logged) = (Log::open(log), log != "-");
    let mut server = Server::bind();
    for port in followers {
        server.add(TcpStream::connect(([127, 0, 0, 1], *port).into()).expect("the follower listens"));
    }
    let mut leader = Leader {
        followers: followers.len(),
        ..Leader::default()
    };
    server.run(move |conns, ready| {
        let batch = leader.gather(conns, ready);
        if batch.len() > NUMBER_BYTES {
            for conn in conns[..leader.followers].iter_mut().flatten() {
                frame(&mut conn.out, &batch);
                conn.flush();
            }
            if is_logged {
                log.append(&batch); // while the followers write theirs
            }
        }
        leader.answer(conns);
    });
}

#[derive(Default)]
struct Leader {
    followers: usize,
    /// Number of the last entry, of the last that a follower has, of the last answered.
    numbered: u64,
    acknowledged: u64,
    answered: u64,
    /// Whose entry each is behind the last answered.
    waiting: VecDeque<usize>,
}

impl Leader {
    /// The batch of this turn, behind the number of its last entry.
    fn gather(&mut self, conns: &mut [Option<Conn>], ready: &[usize]) -> Vec<u8> {
        let mut batch = vec![0; NUMBER_BYTES];
        for place in ready {
            let Some(conn) = &mut conns[*place] else { continue };
            while let Some(body) = conn.next() {
                if *place < self.followers {
                    let number = BigEndian::read_u64(&conn.input[body]);
                    self.acknowledged = self.acknowledged.max(number);
                } else {
                    self.numbered += 1;
                    self.waiting.push_back(*place);
                    frame(&mut batch, &conn.input[body]);
                }
            }
        }
        BigEndian::write_u64(&mut batch, self.numbered);
        batch
    }

    fn answer(&mut self, conns: &mut [Option<Conn>]) {
        let mut dirty = Vec::new();
        while self.answered < self.acknowledged {
            let place = self.waiting.pop_front().expect("what is acknowledged was numbered");
            self.answered += 1;
            if let Some(conn) = &mut conns[place] {
                frame(&mut conn.out, &self.answered.to_be_bytes());
                dirty.push(place);
            }
        }
        for place in dirty {
            if let Some(conn) = &mut conns[place] {
                conn.flush();
            }
        }
    }
}
