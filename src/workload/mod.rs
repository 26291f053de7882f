//! Scripts, load, histories and their checking.
//!
//! * [`script`]: the language of scripts. [`plan`]: what a running script does next; pure. [`generator`]: keys and values.
//! * [`history`]: what every client asked and was told, and when. [`check`]: whether it could have happened.

pub mod check;
pub mod generator;
pub mod history;
pub mod plan;
pub mod presets;
pub mod record;
pub mod script;
pub mod summary;
