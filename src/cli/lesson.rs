//! `synod lesson`: breaks one rule on purpose and tells what went wrong; exit code 0 if it was shown, 1 if nobody noticed.

use super::exit;
use crate::console::{complain, print};
use crate::sim::lessons::{LESSONS, Lesson, page};
use crate::sim::shrink::Smallest;
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::io::{self, Write};
use std::panic;

/// Break a rule on purpose and see what goes wrong; without a name, list the lessons
#[derive(Args, Clone, Debug)]
pub struct LessonArgs {
    /// The lesson, by the name of its rule
    #[arg(value_parser = PossibleValuesParser::new(LESSONS.iter().map(|lesson| lesson.name)), hide_possible_values = true)]
    pub name: Option<String>,
    /// Show the whole story, however long it is
    #[arg(long, requires = "name")]
    pub whole: bool,
    /// Run all lessons, and print docs/lessons.md
    #[arg(long, conflicts_with = "name")]
    pub page: bool,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Standard output takes no more.
pub fn run(args: &LessonArgs) -> io::Result<u8> {
    // A lesson may end in an assertion of the code; the judge tells of it.
    panic::set_hook(Box::new(|_| {}));
    match args.name.as_deref().and_then(Lesson::named) {
        Some(lesson) => tell(lesson, args.whole),
        None if args.page => print_page(),
        None => list(),
    }
}

fn list() -> io::Result<u8> {
    let lines = LESSONS
        .iter()
        .map(|lesson| format!("{:<26}{}\n", lesson.name, lesson.rule));
    print(lines.collect::<String>().as_bytes())?;
    Ok(exit::DONE)
}

fn tell(lesson: &Lesson, is_whole: bool) -> io::Result<u8> {
    let Some(smallest) = smallest(lesson) else {
        return Ok(exit::NO);
    };
    let holds = lesson.holds(smallest.options.seed);
    print(lesson.story(&smallest, holds, is_whole).as_bytes())?;
    Ok(if holds { exit::DONE } else { exit::NO })
}

fn print_page() -> io::Result<u8> {
    let mut told = Vec::new();
    for lesson in &LESSONS {
        let Some(smallest) = smallest(lesson) else {
            return Ok(exit::NO);
        };
        told.push((lesson, smallest));
    }
    print(page(&told).as_bytes())?;
    Ok(exit::DONE)
}

/// Finds the lesson's smallest run; says so on standard error, since it may take some seconds.
fn smallest(lesson: &Lesson) -> Option<Smallest> {
    let name = lesson.name;
    let mut progress = |line: &str| {
        // Nobody is left to be told if standard error is gone.
        let _ = writeln!(io::stderr(), "{name}: {line}");
    };
    progress("breaks the rule, and looks for a seed in which it shows");
    let found = lesson.run(&mut progress);
    if found.is_none() {
        complain(&format!("{name}: nobody noticed within {} seeds", lesson.seeds));
    }
    found
}
