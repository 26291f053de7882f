//! Synod: a replicated key-value store on Multi-Paxos.
//!
//! Arrows point down only; `docs/design.md` walks a write and a read through these rooms.
//!
//! * [`paxos`]: agreement on opaque entries: ballots, quorums, the three roles. Pure.
//! * [`kv`]: what the entries mean: an ordered map, revisions, sessions. Pure.
//! * [`wire`]: frames and codecs, the same bytes on the wire and on the disk (`protocol.md`).
//! * [`rules`]: which rules are kept: all, but in lessons.
//! * [`machine`]: one node as a pure state machine: inputs in, effects out.
//! * [`storage`]: the write-ahead log over a narrow door to files.
//! * [`node`]: the event loop that gives the machine sockets, a disk and a clock.
//! * [`sim`]: whole clusters in one thread, with simulated time, network, disks and clients, from one seed.
//! * [`client`]: one session with a cluster: retry, backoff, redirect, deadlines.
//! * [`cluster`]: a cluster of processes on this machine, to play with, to test, and to break.
//! * [`cli`]: the `synod` command: flags, exit codes, one module a subcommand.
//! * [`command`]: the one set of command definitions of command line, debug port and scripts.
//! * [`workload`]: scripts, load, histories and their checking. [`process`]: what this process has used of its machine.
//!   [`console`]: what a command says to whoever started it.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))] // they panic when nobody reads: see `console`

pub mod cli;
pub mod client;
pub mod cluster;
pub mod command;
pub mod console;
pub mod kv;
pub mod machine;
pub mod node;
pub mod paxos;
pub mod process;
pub mod rules;
pub mod sim;
pub mod storage;
pub mod time;
pub mod units;
pub mod version;
pub mod wire;
pub mod workload;
