//! A cluster on this machine: nodes as child processes on loopback, for people, workloads and tests.
//!
//! * [`local`]: the processes: start, kill, log lines, a clean end. [`run`]: `synod cluster`. [`torture`]: the same
//!   under every fault that one machine can bring about, with a workload whose histories are checked.
//!
//! The nodes end when their launcher dies, however it dies: each holds the reading end of a pipe as its standard input,
//! and ends when the pipe closes.

pub mod local;
pub mod run;
pub mod torture;

pub use local::{LocalCluster, Options};
