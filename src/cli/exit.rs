//! The exit codes of `synod`, and how an operation's end becomes one.

use crate::client::{Cause, End};
use crate::command::render;

/// Done, and the answer is yes.
pub const DONE: u8 = 0;
/// Done, and the answer is no: absent, mismatch, an expectation failed.
pub const NO: u8 = 1;
/// The command line, a script or an input file is wrong.
pub const USAGE: u8 = 2;
/// Certainly not done.
pub const NOT_DONE: u8 = 3;
/// Unknown: it may or may not have taken effect, or may yet.
pub const UNKNOWN: u8 = 4;
/// No endpoint could be reached; nothing was done.
pub const UNREACHABLE: u8 = 5;
/// Another protocol, another version, another cluster, or damaged bytes; nothing was done.
pub const PROTOCOL: u8 = 6;
/// A file, or what a node holds, is damaged. (That of "another protocol": what stands there is not to be believed.)
pub const DAMAGED: u8 = PROTOCOL;
/// Interrupted; what was in flight is unknown.
pub const INTERRUPTED: u8 = 130;

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    done, and the answer is no: absent, mismatch, an expectation failed
  2    wrong usage
  3    certainly not done
  4    unknown: it may or may not have taken effect
  5    no endpoint could be reached
  6    protocol, version or corruption error
  130  interrupted";

/// The exit code of an operation's end.
pub fn of(end: &End) -> u8 {
    match end {
        End::Done(served) if render::is_no(served) => NO,
        End::Done(_) => DONE,
        End::Unknown(_) => UNKNOWN,
        End::NotDone(failure) => match failure.cause {
            Cause::NoEndpoint => UNREACHABLE,
            Cause::Protocol => PROTOCOL,
            Cause::Code(_) | Cause::ConnectionLost | Cause::Deadline | Cause::TooManyOperations | Cause::Closed => {
                NOT_DONE
            }
        },
    }
}

/// The exit code of a reply of the debug port, by its last line: `OK …` or `ERR code …`.
pub fn of_debug_line(line: &str) -> u8 {
    let mut words = line.split_whitespace();
    match (words.next(), words.next()) {
        (Some("OK"), _) => DONE,
        (_, Some("not_found" | "exists" | "cas_failed" | "not_ready")) => NO,
        (_, Some("bad_request" | "unknown_command" | "too_large" | "usage")) => USAGE,
        (_, Some("leader_lost" | "deadline_passed")) => UNKNOWN,
        _ => NOT_DONE,
    }
}
