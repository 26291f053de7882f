//! Lessons in words: one on a terminal, all of them on a page.

use super::{LESSONS, Lesson};
use crate::sim::shrink::Smallest;
use std::fmt::Write;

/// Lines of a story that are shown, at most; what stands before them is left out.
const LINES_MAX: usize = 120;

const HEAD: &str = "\
# Lessons: rules broken on purpose

Paxos is short, and each of its sentences is there for a reason. Here each of these sentences is left out, one at a time, of
the very code that a node runs ([`src/rules.rs`](../src/rules.rs); a node itself is built with all of them kept). The simulator
runs small clusters until its judge notices, makes the run that failed as small as it can, and tells it. With the rule kept,
the same seed holds: what went wrong, went wrong for want of that rule.

    make lessons                  all of them, as tests
    make lesson-confirm-reads     one, with its story and its diagram; the names are the headings below
    synod lesson                  the list

A diagram shows the end of the smallest run: arrows are messages, crosses messages that are lost, boxes what happens at a node.
Which line of which rule breaks it, a search for the rule's name with underscores shows (`rules.confirm_reads`). For eight of
the rules [the model](testing.md#the-whole-of-small-worlds) knows the shortest way to two values in one slot.

<!-- Made by `make lessons-page` of src/sim/lessons.rs and of the runs themselves; not edited by hand. -->
";

/// The page of all lessons, each with its smallest run.
pub fn page(told: &[(&Lesson, Smallest)]) -> String {
    let mut page = String::from(HEAD);
    page.push('\n');
    for lesson in &LESSONS {
        put(&mut page, format_args!("* [{0}](#{0}): {1}", lesson.name, lesson.rule));
    }
    for (lesson, smallest) in told {
        page.push('\n');
        page.push_str(&lesson.words());
        put(
            &mut page,
            format_args!(
                "\nThe judge says: *{}*: {}.\n\n    make lesson-{}\n\n```mermaid\n{}```",
                smallest.violation.rule,
                smallest.violation.words,
                lesson.name,
                smallest.mermaid()
            ),
        );
    }
    page
}

impl Lesson {
    /// What stands on the page above the diagram: it hangs on no run.
    pub fn words(&self) -> String {
        let Lesson {
            name,
            rule,
            broken,
            look,
            ..
        } = self;
        format!("## {name}\n\n**The rule.** {rule}\n\n**Broken.** {broken}\n\n**Look for.** {look}\n")
    }

    /// The lesson on a terminal. `holds`: whether the seed holds with the rule kept. `is_whole`: nothing is left out.
    pub fn story(&self, smallest: &Smallest, holds: bool, is_whole: bool) -> String {
        let mut told = format!(
            "lesson {}\n\nthe rule:  {}\nbroken:    {}\nlook for:  {}\n\nthe smallest run that fails: ",
            self.name, self.rule, self.broken, self.look
        );
        let story = smallest.story();
        let lines: Vec<&str> = story.lines().collect();
        let shown = if is_whole {
            lines.len()
        } else {
            LINES_MAX.min(lines.len())
        };
        let (size, lines) = lines.split_first().unwrap_or((&"", &[]));
        put(&mut told, format_args!("{size}"));
        let left_out = (lines.len() + 1).saturating_sub(shown);
        if left_out > 0 {
            put(
                &mut told,
                format_args!("  ({left_out} earlier lines are left out; --whole shows them)"),
            );
        }
        lines[left_out..]
            .iter()
            .for_each(|line| put(&mut told, format_args!("{line}")));
        put(
            &mut told,
            format_args!(
                "\nwith the rule kept, the same seed {}\nto run it again: {}\n\nits end as a diagram, for any page that draws \
                 Mermaid:\n\n```mermaid\n{}```",
                if holds { "holds" } else { "FAILS, too: that is a defect" },
                smallest.options.command(),
                smallest.mermaid()
            ),
        );
        told
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes all");
}
