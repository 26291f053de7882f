//! Throughput against latency: one curve a mix, clients doubled from point to point, as SVG.

use crate::figure::Figure;
use crate::machine::{Machine, write_json};
use crate::matrix;
use crate::reference::{Kind, References, Shape};
use crate::subject::{Spans, Subject};
use serde_json::json;
use std::fmt::Write;
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
    /// Further flags of every node
    #[arg(long, env = "FLAGS", default_value = "", allow_hyphen_values = true)]
    flags: String,
    /// Where the picture goes
    #[arg(long, env = "SVG", default_value = "target/figures/throughput-latency.svg")]
    svg: PathBuf,
    /// Writes all figures there, for programs
    #[arg(long, env = "JSON")]
    json: Option<PathBuf>,
}

/// One curve: clients and what they came to.
struct Curve {
    name: String,
    points: Vec<(usize, Figure)>,
}

/// Measures and draws.
pub(crate) fn run(args: &Args) {
    let flags: Vec<String> = args.flags.split_whitespace().map(str::to_owned).collect();
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
    if let Some(directory) = args.svg.parent() {
        std::fs::create_dir_all(directory).expect("the directory can be made");
    }
    std::fs::write(&args.svg, svg(&title, &machine.line(), &curves)).expect("the picture can be written");
    println!("written: {}", args.svg.display());
    let rows = curves.iter().map(|curve| {
        let points = curve
            .points
            .iter()
            .map(|(clients, figure)| json!({ "clients": clients, "figure": figure.json() }));
        json!({ "name": curve.name, "points": points.collect::<Vec<_>>() })
    });
    let json = json!({ "machine": machine.json(), "curves": rows.collect::<Vec<_>>() });
    write_json(args.json.as_deref(), &json);
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 580.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 90.0;
/// The field of the curves.
const FIELD: (f64, f64) = (640.0, 420.0);
const COLOURS: [&str; 6] = ["#1f6fb4", "#2a8a3e", "#b4531f", "#7a3fa0", "#a08a00", "#666666"];

/// Where a number stands on an axis whose every line is a power of ten, from 0 to 1.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn of(numbers: impl Iterator<Item = f64> + Clone) -> Axis {
        let least = numbers.clone().fold(f64::INFINITY, f64::min).max(1.0);
        let most = numbers.fold(10.0, f64::max);
        Axis {
            from: least.log10().floor(),
            to: most.log10().ceil().max(least.log10().floor() + 1.0),
        }
    }

    fn at(&self, number: f64) -> f64 {
        (number.max(1.0).log10() - self.from) / (self.to - self.from)
    }

    fn lines(&self) -> impl Iterator<Item = f64> {
        (self.from as i32..=self.to as i32).map(|power| 10f64.powi(power))
    }
}

/// The picture: throughput from left to right, latency upwards, p50 as a line and p99 as a thin one.
fn svg(title: &str, subtitle: &str, curves: &[Curve]) -> String {
    let figures = || {
        curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(|(_, figure)| figure))
    };
    let x = Axis::of(figures().map(|figure| figure.ops_per_s));
    let y = Axis::of(figures().flat_map(|figure| [figure.p50_us, figure.p99_us]));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">Throughput against latency: {title}</text>\n\
         <text x=\"{LEFT}\" y=\"46\" fill=\"#555\">{subtitle}</text>\n"
    );
    grid(&mut out, &x, &y);
    for (curve, number) in curves.iter().zip(0..) {
        let colour = COLOURS[number % COLOURS.len()];
        for (quantile, width) in [("p50", 2.5), ("p99", 1.0)] {
            let at = |figure: &Figure| {
                let latency = if quantile == "p50" {
                    figure.p50_us
                } else {
                    figure.p99_us
                };
                (
                    LEFT + FIELD.0 * x.at(figure.ops_per_s),
                    TOP + FIELD.1 * (1.0 - y.at(latency)),
                )
            };
            let places: Vec<(f64, f64)> = curve.points.iter().map(|(_, figure)| at(figure)).collect();
            let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let line = line.join(" ");
            put(
                &mut out,
                format_args!(
                    "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
                ),
            );
            for ((clients, figure), (x, y)) in curve.points.iter().zip(&places) {
                let words = format!(
                    "{}: {clients} clients, {:.0} ops/s, {quantile}",
                    curve.name, figure.ops_per_s
                );
                put(
                    &mut out,
                    format_args!(
                        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{width}\" fill=\"{colour}\"><title>{words}</title></circle>"
                    ),
                );
            }
        }
        let (x, y) = (LEFT + FIELD.0 + 20.0, TOP + 20.0 + 22.0 * f64::from(number as u32));
        put(
            &mut out,
            format_args!(
                "<rect x=\"{x}\" y=\"{}\" width=\"18\" height=\"4\" fill=\"{colour}\"/>",
                y - 6.0
            ),
        );
        put(
            &mut out,
            format_args!("<text x=\"{}\" y=\"{y}\">{}</text>", x + 26.0, curve.name),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (LEFT + FIELD.0, TOP + FIELD.1);
    for number in x.lines() {
        let at = LEFT + FIELD.0 * x.at(number);
        put(
            out,
            format_args!("<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"),
        );
        put(
            out,
            format_args!(
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{number}</text>",
                bottom + 18.0
            ),
        );
    }
    for number in y.lines() {
        let at = TOP + FIELD.1 * (1.0 - y.at(number));
        put(
            out,
            format_args!("<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"),
        );
        put(
            out,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{number}</text>",
                LEFT - 8.0,
                at + 4.0
            ),
        );
    }
    let middle = LEFT + FIELD.0 / 2.0;
    put(
        out,
        format_args!(
            "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">operations a second</text>",
            bottom + 42.0
        ),
    );
    put(
        out,
        format_args!(
            "<text x=\"{LEFT}\" y=\"{}\">latency, us: p50 thick, p99 thin</text>",
            TOP - 8.0
        ),
    );
}

/// One element.
fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(out, "{element}").expect("a String takes every write");
}
