//! Curves over two axes of powers of ten, as SVG.

use std::fmt::Write;
use std::path::Path;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 580.0;
const LEFT: f64 = 80.0;
const TOP: f64 = 90.0;
/// The field of the curves.
const FIELD: (f64, f64) = (640.0, 420.0);
const COLOURS: [&str; 6] = ["#1f6fb4", "#2a8a3e", "#b4531f", "#7a3fa0", "#a08a00", "#666666"];

/// One curve.
pub(crate) struct Line {
    /// Stands once beside the field, however many lines have it.
    pub(crate) name: String,
    /// Lines of one number have one colour.
    pub(crate) colour: usize,
    pub(crate) width: f64,
    /// From left to right, upwards, and in words.
    pub(crate) points: Vec<(f64, f64, String)>,
}

/// A picture.
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// What the axes tell.
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) lines: Vec<Line>,
}

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

impl Chart {
    /// Draws it into a file, and says so.
    pub(crate) fn write(&self, path: &Path) {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).expect("the directory can be made");
        }
        std::fs::write(path, self.svg()).expect("the picture can be written");
        println!("written: {}", path.display());
    }

    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (x, y) = (
            Axis::of(points().map(|point| point.0)),
            Axis::of(points().map(|point| point.1)),
        );
        let (title, subtitle) = (&self.title, &self.subtitle);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>\n\
             <text x=\"{LEFT}\" y=\"46\" fill=\"#555\">{subtitle}</text>\n"
        );
        self.grid(&mut out, &x, &y);
        let mut named = Vec::new();
        for line in &self.lines {
            line.draw(&mut out, &x, &y);
            if !named.contains(&line.name.as_str()) {
                line.name_it(&mut out, named.len());
                named.push(&line.name);
            }
        }
        out.push_str("</svg>\n");
        out
    }

    fn grid(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (LEFT + FIELD.0, TOP + FIELD.1);
        for number in x.lines() {
            let at = LEFT + FIELD.0 * x.at(number);
            put(
                out,
                format_args!("<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>"),
            );
            let below = bottom + 18.0;
            put(
                out,
                format_args!("<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{number}</text>"),
            );
        }
        for number in y.lines() {
            let at = TOP + FIELD.1 * (1.0 - y.at(number));
            put(
                out,
                format_args!("<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"),
            );
            let (beside, middle) = (LEFT - 8.0, at + 4.0);
            put(
                out,
                format_args!("<text x=\"{beside}\" y=\"{middle:.1}\" text-anchor=\"end\">{number}</text>"),
            );
        }
        let (middle, below, above) = (LEFT + FIELD.0 / 2.0, bottom + 42.0, TOP - 8.0);
        put(
            out,
            format_args!(
                "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                self.x
            ),
        );
        put(out, format_args!("<text x=\"{LEFT}\" y=\"{above}\">{}</text>", self.y));
    }
}

impl Line {
    fn draw(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (colour, width) = (COLOURS[self.colour % COLOURS.len()], self.width);
        let at = |point: &(f64, f64, String)| (LEFT + FIELD.0 * x.at(point.0), TOP + FIELD.1 * (1.0 - y.at(point.1)));
        let places: Vec<(f64, f64)> = self.points.iter().map(at).collect();
        let line: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let line = line.join(" ");
        put(
            out,
            format_args!("<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"),
        );
        for ((.., words), (x, y)) in self.points.iter().zip(&places) {
            put(
                out,
                format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{width}\" fill=\"{colour}\"><title>{words}</title></circle>"
                ),
            );
        }
    }

    fn name_it(&self, out: &mut String, place: usize) {
        let colour = COLOURS[self.colour % COLOURS.len()];
        let (x, y) = (LEFT + FIELD.0 + 20.0, TOP + 20.0 + 22.0 * place as f64);
        let (bar, beside) = (y - 6.0, x + 26.0);
        put(
            out,
            format_args!("<rect x=\"{x}\" y=\"{bar}\" width=\"18\" height=\"4\" fill=\"{colour}\"/>"),
        );
        put(out, format_args!("<text x=\"{beside}\" y=\"{y}\">{}</text>", self.name));
    }
}

/// One element.
fn put(out: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(out, "{element}").expect("a String takes every write");
}
