//! Scripts, load, histories and their checking.
//!
//! * [`history`]: what every client asked and was told, and when. [`check`]: whether it could have happened.

pub mod check;
pub mod history;
