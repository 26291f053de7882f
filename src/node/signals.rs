//! What asks the process to end: SIGTERM, SIGINT, and the launcher's pipe. No thread: each is a source of the poll.

use mio::net::UnixStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Exit code of a process that got a second signal to end.
pub const EXIT_SECOND_SIGNAL: i32 = 130;

/// The read end of what the signal handlers write to.
#[derive(Debug)]
pub struct Signals {
    stream: UnixStream,
}

impl Signals {
    /// Takes SIGTERM and SIGINT from now on, and registers for them under `token`. The second one ends the process at
    /// once with [`EXIT_SECOND_SIGNAL`], in its handler, also while the loop is blocked by a disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Signals> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let is_second = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down, and puts it up.
            flag::register_conditional_shutdown(signal, EXIT_SECOND_SIGNAL, Arc::clone(&is_second))?;
            flag::register(signal, Arc::clone(&is_second))?;
            pipe::register(signal, far.try_clone()?)?;
        }
        let mut stream = UnixStream::from_std(near);
        registry.register(&mut stream, token, Interest::READABLE)?;
        Ok(Signals { stream })
    }

    /// How many signals came since the last call.
    pub fn take(&mut self) -> usize {
        let mut count = 0;
        let mut bytes = [0; 64];
        // One byte a signal; the handlers' end is never closed, so what is no count is "would block".
        while let Ok(read @ 1..) = self.stream.read(&mut bytes) {
            count += read;
        }
        count
    }
}

/// Registers standard input under `token`: its other end closes when the launcher dies.
///
/// A process that was stopped would not see that, and stay for ever: the system wakes it when the thread that started
/// it is gone. That does nothing to one that runs.
///
/// # Errors
/// Standard input is nothing that can be polled (a file, /dev/null).
pub fn watch_parent(registry: &Registry, token: Token) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT))?;
    let stdin = io::stdin().as_raw_fd();
    registry.register(&mut SourceFd(&stdin), token, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::Duration;

    #[test]
    fn a_signal_wakes_the_poll_and_is_counted() {
        let mut poll = Poll::new().unwrap();
        let mut signals = Signals::new(poll.registry(), Token(3)).unwrap();
        assert_eq!(signals.take(), 0);
        signal_hook::low_level::raise(SIGTERM).unwrap();
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert!(events.iter().any(|event| event.token() == Token(3)));
        assert_eq!(signals.take(), 1);
    }
}
