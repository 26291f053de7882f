//! The client and its tools.

fn main() {}
