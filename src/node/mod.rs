//! The event loop: one thread around one `mio::Poll` that gives the machine sockets, a disk and a clock.

pub mod cluster_list;
pub mod connection;
pub mod faults;
pub mod flags;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod output;
pub mod peers;
pub mod ring;
pub mod rlimit;
pub mod signals;
