//! What a command says to whoever started it.
//!
//! Nobody may be left to hear it (`| head`, a terminal that was closed): then it is not said, and changes neither what the
//! command does nor its exit code. `println!` and its kin would panic, so a lint in `lib.rs` keeps them out. SIGPIPE stays
//! ignored, as Rust's processes start: a command that it ended would leave its nodes behind, and on sockets a broken pipe is
//! an error like others.
//!
//! Not here: the log of a node (`node::logging`).

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a result to standard output. A reader that has gone away wants no more of it and is no error.
///
/// # Errors
/// It cannot be written for another reason.
pub fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// One line, or several, on standard error.
pub fn tell(words: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// One diagnostic line.
pub fn complain(words: &str) {
    tell(format_args!("synod: {words}"));
}
