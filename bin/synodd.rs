//! The node.

use clap::Parser;
use std::process::ExitCode;
use synod::console;
use synod::node::flags::{self, Flags};
use synod::node::{Node, logging};

const EXIT_FATAL: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        // --help and --version are no errors, and go to standard output.
        Err(asked) if !asked.use_stderr() => asked.exit(),
        Err(error) => return fail(EXIT_USAGE, &flags::one_line(&error)),
    };
    let config = match flags.check() {
        Ok(config) => config,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    logging::start();
    let mut node = match Node::start(config) {
        Ok(node) => node,
        Err(error) => return fail(error.exit_code(), &error),
    };
    if let Err(error) = node.take_signals() {
        return fail(error.exit_code(), &error);
    }
    match node.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_FATAL, &error),
    }
}

/// One line on standard error, whatever the log shows.
fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    console::tell(format_args!("synodd: {error}"));
    ExitCode::from(code)
}
