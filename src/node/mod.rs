//! The event loop: one thread around one `mio::Poll` that gives the machine sockets, a disk and a clock.
//!
//! A turn is gather, decide, speak, sync, answer; [`turn`] is that sentence, and the only file that both the node and a
//! simulator run. It sees sockets and clock through the [`door`], files through the storage's. No other thread is
//! anywhere: signals and the launcher's death are sources of the poll. Everything that waits is bounded ([`limits`]).
//!
//! * [`run`]: a node from start to end. [`mod@open`]: a directory becomes a loop. [`flags`], [`cluster_list`]: what an operator says. [`logging`], [`rlimit`],
//!   [`signals`]: what the process needs of the system.
//! * `snapshots`: what is done between turns, a slice at a time: snapshots are taken, the log is truncated.
//! * `server`: the door's real side. [`connection`], [`output`]: bytes of one socket. [`link`]: its role and deadlines;
//!   [`numbered`]: the table of them; [`marks`]: who is to be read or written. [`peers`]: when to dial whom, and what a closed link means.
//! * [`ring`], [`metrics`], [`status`]: what can be seen. [`debug`]: the port to see it. [`faults`]: what breaks it.
//!
//! Not here: any decision about agreement or data (`machine`), bytes of frames (`wire`), bytes of the log (`storage`).

pub mod cluster_list;
pub mod connection;
pub mod debug;
pub mod door;
pub mod faults;
pub mod flags;
pub mod limits;
pub mod link;
pub mod logging;
pub mod marks;
pub mod metrics;
pub mod numbered;
pub mod open;
pub mod output;
pub mod peers;
pub mod ring;
pub mod rlimit;
pub mod run;
pub mod scrub;
mod server;
pub mod signals;
mod snapshots;
pub mod status;
pub mod turn;

pub use run::{Node, StartError};
