//! Fuzzing: damaged input of every kind at everything that reads input from outside.
//!
//! A target is a few good inputs and a function that says what came of one. The driver damages good inputs so that they
//! stay close to good ones, makes checksums right again as often as not, and goes on with those whose outcome was new.
//! What must hold: nothing panics or hangs, no length from outside is believed before it is checked, what is refused is
//! refused by a typed error, and what is taken says the same bytes again.
//!
//! `make test` runs a fixed number of cases from a fixed seed; `make fuzz DURATION=10m [TARGET=frame]` goes on with fresh
//! ones. Interesting inputs are kept in `tests/corpus`, and tried first by both.
//!
//! * [`wire`]: frames, messages, records. [`disk`]: the log, identity and snapshots. [`text`]: commands, scripts, histories.
//! * [`client`]: the client's machine. [`node`]: a real node, as client, peer and person. [`driver`], [`mutate`]: the means.

#[path = "fuzz/client.rs"]
mod client;
#[path = "fuzz/disk.rs"]
mod disk;
#[path = "fuzz/driver.rs"]
mod driver;
#[path = "support/examples.rs"]
mod examples;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/node.rs"]
mod node;
#[path = "fuzz/text.rs"]
mod text;
#[path = "fuzz/wire.rs"]
mod wire;
