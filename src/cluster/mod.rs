//! A cluster on this machine: nodes as child processes on loopback, for people, workloads and tests.
//!
//! * [`local`]: the processes: start, kill, log lines, a clean end. [`run`]: `synod cluster`. [`chaos`]: the same under
//!   random kills and failing acceptors, with a workload whose history is checked.
//!
//! The nodes end when their launcher dies, however it dies: each holds the reading end of a pipe as its standard input,
//! and ends when the pipe closes.

pub mod chaos;
pub mod local;
pub mod run;

pub use local::{LocalCluster, Options};
