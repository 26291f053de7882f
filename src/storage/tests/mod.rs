//! Scenarios of the whole room over the simulated disk, and a few over the real one.

mod crashes;
mod damage;
mod directory;
mod golden;
mod log;
mod scrub;
