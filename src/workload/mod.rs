//! Scripts, load, histories and their checking.
//!
//! * [`script`]: the language of scripts. [`presets`]: the scripts of `synod bench`. [`generator`]: keys and values.
//! * [`plan`]: what a running script does next; pure. [`runner`]: the loop that does it. [`summary`]: what came of it,
//!   [`series`] second by second. [`meter`]: what it cost.
//! * [`record`]: a run as a history. [`history`]: what every client asked and was told, and when. [`check`]: whether it could have happened.

pub mod check;
mod debug_port;
pub mod generator;
pub mod history;
pub mod meter;
pub mod plan;
pub mod presets;
mod progress;
pub mod record;
pub mod runner;
pub mod script;
pub mod series;
pub mod summary;
