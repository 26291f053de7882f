//! The node.

use clap::Parser;
use std::process::ExitCode;
use synod::node::flags::Flags;
use synod::node::{Node, logging};

const EXIT_FATAL: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // clap itself answers --help and --version, and ends with 2 on a flag that it cannot read.
    let config = match Flags::parse().check() {
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
fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("synodd: {error}");
    ExitCode::from(code)
}
