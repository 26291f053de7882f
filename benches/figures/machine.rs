//! What this machine is, and what it allows.

use crate::figure::{Figure, head, row, shown};
use crate::reference::{Kind, References, Shape};
use crate::subject::Spans;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// How long sync and echo are measured for the head of a table.
const LOOK: Duration = Duration::from_millis(700);

/// One client with nothing in the way.
const ALONE: Shape = Shape {
    clients: 1,
    pipeline: 1,
    value_bytes: 256,
};

/// The machine's own times, and when they were measured.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    date: String,
    cores: usize,
    /// How many wanted to run on them in the last minute: figures beside others who compute are noise.
    load_average: f64,
    /// An echo over loopback, half of them are quicker, microseconds.
    pub(crate) rtt_us: f64,
    /// A small write with its fdatasync, likewise.
    pub(crate) sync_us: f64,
}

impl Machine {
    pub(crate) fn look(references: &mut References) -> Machine {
        #[expect(clippy::disallowed_methods, reason = "a table of figures tells its date")]
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Machine {
            date,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            load_average: load_average(),
            rtt_us: references.measure(Kind::Echo, ALONE, LOOK).p50_us,
            sync_us: references.measure_sync(LOOK).p50_us,
        }
    }

    /// One line above a table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} cores, load average {}, version {}; fdatasync of 4 KiB {} us, echo over loopback {} us",
            self.date,
            self.cores,
            shown(self.load_average),
            env!("CARGO_PKG_VERSION"),
            shown(self.sync_us),
            shown(self.rtt_us)
        )
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "date": self.date,
            "cores": self.cores,
            "load_average": self.load_average,
            "rtt_us": self.rtt_us,
            "sync_us": self.sync_us,
        })
    }
}

/// Of the last minute; not a number where the system does not tell.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

/// Where what was measured is written for programs.
#[derive(clap::Args)]
pub(crate) struct JsonFile {
    /// Writes all figures there, for programs
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
}

impl JsonFile {
    /// Writes it, if that is asked for.
    pub(crate) fn write(&self, value: &Value) {
        let Some(path) = &self.json else { return };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).expect("the directory can be made");
        }
        std::fs::write(path, format!("{value:#}\n")).expect("the file can be written");
        eprintln!("written: {}", path.display());
    }
}

/// What one client could do at best: a round trip and a sync for each operation, both as they are in the middle.
pub(crate) fn ideal_ops_per_s(references: &mut References) -> f64 {
    let machine = Machine::look(references);
    1e6 / (machine.rtt_us + machine.sync_us)
}

/// The references alone.
pub(crate) fn limits(spans: Spans) {
    let mut references = References::new();
    println!("{}\n", Machine::look(&mut references).line());
    println!(
        "{}",
        head(&[
            "limit",
            "ops/s",
            "p50 us",
            "p99 us",
            "max us",
            "servers CPU s/M",
            "client CPU s/M"
        ])
    );
    print("fdatasync 4 KiB, preallocated", &references.measure_sync(spans.span()));
    for kind in [Kind::Echo, Kind::Memory, Kind::Durable] {
        for (clients, pipeline) in [(1, 1), (16, 1), (64, 1), (256, 1), (16, 16)] {
            let shape = Shape {
                clients,
                pipeline,
                value_bytes: 256,
            };
            let figure = references.measure(kind, shape, spans.span());
            print(&format!("{}, {clients} x {pipeline}", kind.name()), &figure);
        }
    }
}

fn print(name: &str, figure: &Figure) {
    let numbers = [
        figure.ops_per_s,
        figure.p50_us,
        figure.p99_us,
        figure.max_us,
        figure.servers_cpu,
        figure.client_cpu,
    ];
    println!("{}", row(std::iter::once(name.to_owned()).chain(numbers.map(shown))));
}
