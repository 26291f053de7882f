//! Throughput against latency: one curve a mix, clients doubled from point to point, as SVG.

use crate::chart::{Chart, Line};
use crate::figure::Figure;
use crate::machine::{JsonFile, Machine};
use crate::matrix;
use crate::reference::{Kind, References, Shape};
use crate::subject::{NodeFlags, Spans, Subject};
use serde_json::json;
use std::path::PathBuf;

/// What is drawn.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    spans: Spans,
    /// Presets of `synod bench`, one curve each
    #[arg(long, env = "MIXES", default_value = "put get mixed", value_delimiter = ' ')]
    mixes: Vec<String>,
    /// Clients of each point
    #[arg(
        long,
        env = "CLIENTS",
        default_value = "1 2 4 8 16 32 64 128 256",
        value_delimiter = ' '
    )]
    clients: Vec<usize>,
    /// Operations that each client has in flight
    #[arg(long, env = "PIPELINE", default_value_t = 1)]
    pipeline: usize,
    /// Bytes of a value
    #[arg(long, env = "SIZE", default_value_t = 256)]
    value_bytes: usize,
    #[command(flatten)]
    flags: NodeFlags,
    /// Where the picture goes
    #[arg(long, env = "SVG", default_value = "target/figures/throughput-latency.svg")]
    svg: PathBuf,
    #[command(flatten)]
    json: JsonFile,
}

/// One curve: clients and what they came to.
struct Curve {
    name: String,
    points: Vec<(usize, Figure)>,
}

/// Measures and draws.
pub(crate) fn run(args: &Args) {
    let flags = args.flags.list();
    let mixes: Vec<&'static str> = args.mixes.iter().map(|name| matrix::named(name)).collect();
    let mut references = References::new();
    let machine = Machine::look(&mut references);
    let mut subject = Subject::start(3, &flags);
    let curve = |name: &str| Curve {
        name: name.to_owned(),
        points: Vec::new(),
    };
    let mut curves: Vec<Curve> = mixes.iter().copied().chain([Kind::Durable.name()]).map(curve).collect();
    for clients in &args.clients {
        let shape = Shape {
            clients: *clients,
            pipeline: args.pipeline,
            value_bytes: args.value_bytes,
        };
        for (preset, curve) in mixes.iter().zip(&mut curves) {
            let figure = subject.measure(matrix::load(preset, shape), args.spans);
            curve.points.push((*clients, figure));
        }
        let bare = references.measure(Kind::Durable, shape, args.spans.span());
        curves[mixes.len()].points.push((*clients, bare));
        eprintln!("{clients} clients measured");
    }
    let title = format!(
        "three nodes, {} in flight, values of {} bytes",
        args.pipeline, args.value_bytes
    );
    let chart = Chart {
        title: format!("Throughput against latency: {title}"),
        subtitle: machine.line(),
        x: "operations a second",
        y: "latency, us: p50 thick, p99 thin",
        lines: curves
            .iter()
            .zip(0..)
            .flat_map(|(curve, number)| lines(curve, number))
            .collect(),
    };
    chart.write(&args.svg);
    let rows = curves.iter().map(|curve| {
        let points = curve
            .points
            .iter()
            .map(|(clients, figure)| json!({ "clients": clients, "figure": figure.json() }));
        json!({ "name": curve.name, "points": points.collect::<Vec<_>>() })
    });
    let json = json!({ "machine": machine.json(), "curves": rows.collect::<Vec<_>>() });
    args.json.write(&json);
}

/// A curve's p50 as a line, its p99 as a thin one.
fn lines(curve: &Curve, colour: usize) -> [Line; 2] {
    let line = |quantile: &str, width: f64, of: fn(&Figure) -> f64| Line {
        name: curve.name.clone(),
        colour,
        width,
        points: curve
            .points
            .iter()
            .map(|(clients, figure)| {
                let words = format!(
                    "{}: {clients} clients, {:.0} ops/s, {quantile}",
                    curve.name, figure.ops_per_s
                );
                (figure.ops_per_s, of(figure), words)
            })
            .collect(),
    };
    [
        line("p50", 2.5, |figure| figure.p50_us),
        line("p99", 1.0, |figure| figure.p99_us),
    ]
}
