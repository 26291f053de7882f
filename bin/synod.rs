//! The client and its tools.

use std::process::ExitCode;

fn main() -> ExitCode {
    synod::cli::main()
}
