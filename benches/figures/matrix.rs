//! The matrix: mixes, clients, pipelines and value sizes, each with the bare replication loop right before and behind.

use crate::figure::{Figure, head, row, shown};
use crate::machine::{self, JsonFile, Machine};
use crate::reference::{Kind, References, Shape};
use crate::subject::{Load, NodeFlags, Spans, Subject};
use serde_json::{Value, json};
use std::time::Duration;
use synod::workload::presets::{PRESETS, Preset};

/// Which part of the matrix; the whole of it takes about half an hour.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spans: Spans,
    /// Presets of `synod bench`
    #[arg(long, env = "MIXES", default_value = "put get mixed", value_delimiter = ' ')]
    mixes: Vec<String>,
    /// How many clients, each with a connection of its own
    #[arg(long, env = "CLIENTS", default_value = "1 16 64 256", value_delimiter = ' ')]
    clients: Vec<usize>,
    /// Operations that each client has in flight
    #[arg(long, env = "PIPELINES", default_value = "1", value_delimiter = ' ')]
    pipelines: Vec<usize>,
    /// Bytes of a value
    #[arg(long, env = "SIZES", default_value = "256", value_delimiter = ' ')]
    sizes: Vec<usize>,
    /// How many nodes
    #[arg(long, env = "NODES", default_value_t = 3)]
    nodes: u16,
    #[command(flatten)]
    flags: NodeFlags,
    #[command(flatten)]
    json: JsonFile,
}

const COLUMNS: [&str; 13] = [
    "mix",
    "clients",
    "pipeline",
    "bytes",
    "ops/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "nodes CPU s/M",
    "client CPU s/M",
    "of the bare loop",
    "of the ideal",
];

/// A reference gets this part of the time of a figure.
const REFERENCE_SHARE: u32 = 2;

/// What a row is set beside.
struct Beside {
    bare: Figure,
    /// What a lone client can do at best; it says nothing of many.
    ideal: Option<f64>,
}

impl Beside {
    fn measure(references: &mut References, shape: Shape, span: Duration) -> Beside {
        let is_alone = shape.clients == 1 && shape.pipeline == 1;
        Beside {
            bare: references.measure(Kind::Durable, shape, span / REFERENCE_SHARE),
            ideal: is_alone.then(|| machine::ideal_ops_per_s(references)),
        }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    let mixes: Vec<&'static str> = args.mixes.iter().map(|name| named(name)).collect();
    let mut references = References::new();
    let machine = Machine::look(&mut references);
    println!("{}\n\n{}", machine.line(), head(&COLUMNS));
    let mut rows = Vec::new();
    for value_bytes in &args.sizes {
        // A cluster of its own for each size: the one before may hold gigabytes.
        let mut subject = Subject::start(args.nodes, &flags);
        for pipeline in &args.pipelines {
            for clients in &args.clients {
                let shape = Shape {
                    clients: *clients,
                    pipeline: *pipeline,
                    value_bytes: *value_bytes,
                };
                let mut measure = || Beside::measure(&mut references, shape, args.spans.span());
                let mut before = measure();
                for preset in &mixes {
                    let figure = subject.measure(load(preset, shape), args.spans);
                    let behind = measure();
                    rows.push(print(preset, shape, &figure, [&before, &behind]));
                    before = behind;
                }
            }
        }
    }
    args.json.write(&json!({ "machine": machine.json(), "rows": rows }));
}

/// The preset of a name.
pub(crate) fn named(name: &str) -> &'static str {
    let names = PRESETS.map(|preset| preset.name).join(" ");
    Preset::named(name)
        .unwrap_or_else(|| panic!("no preset is called {name}; there are: {names}"))
        .name
}

/// A mix in a shape.
pub(crate) fn load(preset: &'static str, shape: Shape) -> Load {
    Load {
        preset,
        clients: shape.clients,
        pipeline: shape.pipeline,
        value_bytes: shape.value_bytes,
    }
}

fn print(preset: &str, shape: Shape, figure: &Figure, beside: [&Beside; 2]) -> Value {
    let bare = beside.map(|beside| &beside.bare);
    let share = |of: f64| if of > 0.0 { figure.ops_per_s / of } else { f64::NAN };
    let of_bare = share(f64::midpoint(bare[0].ops_per_s, bare[1].ops_per_s));
    let of_ideal = match beside.map(|beside| beside.ideal) {
        [Some(before), Some(behind)] => share(f64::midpoint(before, behind)),
        _ => f64::NAN,
    };
    let Shape {
        clients,
        pipeline,
        value_bytes,
    } = shape;
    let numbers = [
        figure.ops_per_s,
        figure.p50_us,
        figure.p99_us,
        figure.p999_us,
        figure.max_us,
        figure.servers_cpu,
        figure.client_cpu,
        of_bare,
        of_ideal,
    ];
    let names = [
        preset.to_owned(),
        clients.to_string(),
        pipeline.to_string(),
        value_bytes.to_string(),
    ];
    println!("{}", row(names.into_iter().chain(numbers.map(shown))));
    json!({
        "mix": preset,
        "clients": clients,
        "pipeline": pipeline,
        "value_bytes": value_bytes,
        "figure": figure.json(),
        "bare_loop": bare.map(Figure::json),
        "of_bare_loop": of_bare,
        "of_ideal": of_ideal,
    })
}
