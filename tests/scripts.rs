//! Golden scripts: exchanges that one can read aloud, one scenario a file, the property as its first comment.
//!
//! A line that begins with `>` holds commands (tests/stage/commands.rs lists them); the lines behind it are what the
//! nodes said and did, recorded. `make scripts` records anew: read what changed before you commit it.
//! `SCRIPT=watermark cargo test --test scripts` plays only the files with that in their names.

mod disk;
mod stage;

use stage::Stage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[test]
fn every_script_plays_as_recorded() {
    let records = std::env::var_os("RECORD").is_some();
    let wanted = std::env::var("SCRIPT").unwrap_or_default();
    let mut differing = 0;
    for path in scripts().into_iter().filter(|path| name(path).contains(&wanted)) {
        let recorded = std::fs::read_to_string(&path).expect("a script can be read");
        assert!(
            recorded.starts_with("# "),
            "{}: begins with its property, as a comment",
            name(&path)
        );
        let played = play(&path, &recorded);
        if records {
            std::fs::write(&path, &played).expect("a script can be written");
        } else if played != recorded {
            differing += 1;
            eprintln!(
                "{} plays otherwise than recorded (-: recorded, +: played now):\n",
                path.display()
            );
            eprintln!("{}", diff(&recorded, &played));
        }
    }
    assert_eq!(
        differing, 0,
        "scripts differ; if that is meant, record them: make scripts"
    );
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of scripts")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The script with what is played now in place of what was recorded; comments and empty lines stay.
fn play(path: &Path, script: &str) -> String {
    let mut stage = Stage::default();
    let mut played = String::new();
    for (index, line) in script.lines().enumerate() {
        let Some(commands) = line.strip_prefix("> ") else {
            if line.is_empty() || line.starts_with('#') {
                played += &format!("{line}\n");
            }
            continue;
        };
        played += &format!("{line}\n");
        let lines = catch_unwind(AssertUnwindSafe(|| stage.play(commands)))
            .unwrap_or_else(|_| panic!("{}:{}: {line}", path.display(), index + 1));
        lines.into_iter().for_each(|line| played += &format!("{line}\n"));
    }
    played
}

/// Lines of `old` and `new` by their longest common subsequence, with a few lines around each change.
fn diff(old: &str, new: &str) -> String {
    const AROUND: usize = 2;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let is_near = |at: usize| {
        let window = at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len());
        lines[window].iter().any(|(mark, _)| *mark != ' ')
    };
    let shown = lines.iter().enumerate().filter(|(at, _)| is_near(*at));
    shown.map(|(_, (mark, line))| format!("{mark} {line}\n")).collect()
}
