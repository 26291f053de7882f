//! What every target shares: seeds, a kept corpus, mutation, time, and what happens to an input that fails.
//!
//! Without a compiler that counts branches, the feedback is the outcome: a case answers in words what came of its
//! input, and an input whose answer, numbers aside, was not heard before joins those that are mutated on. With `KEEP=1`
//! it is written to `tests/corpus/TARGET`, too, where every later run replays it first.
//!
//! From the environment: `TARGET`, the only one to run; `FUZZ`, for how long (all targets together) instead of a fixed
//! number of cases; `SEED`; `INPUT`, a file that is to be the only case.

use crate::mutate::mutate;
use fastrand::Rng;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use synod::units;

/// The seed unless it is said, so that `make test` is the same at every run.
const SEED: u64 = 7281;
/// A case that takes longer hangs.
const CASE_TIME_MAX: Duration = Duration::from_secs(20);
/// Inputs that are mutated on; beyond it a new one takes an old one's place.
const POOL_MAX: usize = 4096;
/// Longer ones are not worth a file in the repository.
const KEPT_BYTES_MAX: usize = 2048;
/// Nor are more of one target.
const KEPT_FILES_MAX: usize = 40;
/// Targets that share the time of `FUZZ`.
const TARGETS: u32 = 14;
/// The process must never want so much more address space than at its beginning: a length from outside was believed.
const GROWTH_MAX_BYTES: u64 = 1 << 30;

/// What is fuzzed.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Good inputs.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// What the format is made of, if it is text.
    pub(crate) words: &'static [&'static str],
    /// Makes lengths and checksums right again, so that what they guard is reached.
    pub(crate) mend: fn(&mut [u8]),
    /// How many cases without `FUZZ`.
    pub(crate) cases: u64,
}

impl Target {
    /// A target whose inputs need no mending.
    pub(crate) fn new(name: &'static str, seeds: Vec<Vec<u8>>, cases: u64) -> Target {
        Target {
            name,
            seeds,
            words: &[],
            mend: |_| {},
            cases,
        }
    }
}

/// Runs `case` on all seeds, the kept corpus, and mutations of both. It says what came of an input, and panics if
/// something is wrong.
pub(crate) fn fuzz(target: &Target, case: impl FnMut(&[u8]) -> String) {
    let only = variable("TARGET");
    if only.as_ref().is_some_and(|only| only != target.name) {
        return;
    }
    let mut run = Run::new(target, case);
    if let Some(file) = variable("INPUT") {
        let input = fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let answer = run.try_case(&input);
        return eprintln!("{}: {answer}", target.name);
    }
    let kept = corpus(target.name)
        .into_iter()
        .map(|file| fs::read(file).expect("the corpus can be read"));
    for input in target.seeds.iter().cloned().chain(kept) {
        let answer = run.try_case(&input);
        run.answers.insert(gist(&answer));
        run.pool.push(input);
    }
    let begun = now();
    let time = variable("FUZZ").map(|text| units::parse_duration(&text).expect("FUZZ is a duration"));
    let time = time.map(|time| if only.is_some() { time } else { time / TARGETS });
    while time.map_or(run.cases < target.cases, |time| begun.elapsed() < time) {
        run.mutated_case();
    }
    let (cases, answers, seconds) = (run.cases, run.answers.len(), begun.elapsed().as_secs_f64());
    eprintln!(
        "{:>12}: {cases} cases, {answers} different answers, {seconds:.1} s, seed {}",
        target.name, run.seed
    );
}

/// A variable of the environment that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

struct Run<'a, F> {
    target: &'a Target,
    case: F,
    seed: u64,
    rng: Rng,
    pool: Vec<Vec<u8>>,
    answers: BTreeSet<String>,
    cases: u64,
    space_before: u64,
    /// The case under way, and since when: for the watchman.
    under_way: Arc<UnderWay>,
}

type UnderWay = Mutex<Option<(Instant, Vec<u8>)>>;

impl<'a, F: FnMut(&[u8]) -> String> Run<'a, F> {
    fn new(target: &'a Target, case: F) -> Run<'a, F> {
        let given = variable("SEED").map(|text| text.parse().expect("SEED is a number"));
        let fresh = variable("FUZZ").map(|_| fastrand::u64(..));
        let seed = given.or(fresh).unwrap_or(SEED);
        let under_way = Arc::new(Mutex::new(None));
        watch(target.name, Arc::downgrade(&under_way));
        Run {
            target,
            case,
            seed,
            rng: Rng::with_seed(seed),
            pool: Vec::new(),
            answers: BTreeSet::new(),
            cases: 0,
            space_before: address_space(),
            under_way,
        }
    }

    fn mutated_case(&mut self) {
        let mut input = self.pool[self.rng.usize(0..self.pool.len())].clone();
        let other = self.rng.usize(0..self.pool.len());
        mutate(&mut input, &self.pool[other], self.target.words, &mut self.rng);
        if self.rng.u8(0..4) > 0 {
            (self.target.mend)(&mut input);
        }
        let answer = self.try_case(&input);
        if self.answers.insert(gist(&answer)) {
            self.keep(&input);
            if self.pool.len() < POOL_MAX {
                self.pool.push(input);
            } else {
                let place = self.rng.usize(0..POOL_MAX);
                self.pool[place] = input;
            }
        }
    }

    /// One case. If it panics, its input is written to a file, and the test fails.
    fn try_case(&mut self, input: &[u8]) -> String {
        *lock(&self.under_way) = Some((now(), input.to_vec()));
        let answer = catch_unwind(AssertUnwindSafe(|| (self.case)(input)));
        *lock(&self.under_way) = None;
        self.cases += 1;
        let is_large = self.cases.is_multiple_of(256) && address_space() > self.space_before + GROWTH_MAX_BYTES;
        match answer {
            Ok(_) if is_large => panic!(
                "{}",
                failed(self.target.name, input, "the process has grown by a gigabyte")
            ),
            Ok(answer) => answer,
            Err(_) => panic!("{}", failed(self.target.name, input, "the case above failed")),
        }
    }

    fn keep(&self, input: &[u8]) {
        let is_wanted = variable("KEEP").is_some() && input.len() <= KEPT_BYTES_MAX;
        if is_wanted && corpus(self.target.name).len() < KEPT_FILES_MAX {
            let directory = corpus_of(self.target.name);
            fs::create_dir_all(&directory).expect("the corpus can be written");
            fs::write(directory.join(name_of(input)), input).expect("the corpus can be written");
        }
    }
}

/// Ends the process if a case hangs: nothing else could.
fn watch(name: &'static str, under_way: Weak<UnderWay>) {
    std::thread::spawn(move || {
        while let Some(under_way) = under_way.upgrade() {
            let case = lock(&under_way).clone();
            if let Some((since, input)) = case.filter(|(since, _)| since.elapsed() > CASE_TIME_MAX) {
                let words = format!("it hangs since {:.0} s", since.elapsed().as_secs_f64());
                eprintln!("{}", failed(name, &input, &words));
                exit(101);
            }
            drop(under_way);
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

/// Writes the input down; says how to try it again.
fn failed(name: &str, input: &[u8], what: &str) -> String {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(name);
    let file = directory.join(name_of(input));
    let written = fs::create_dir_all(&directory).and_then(|()| fs::write(&file, input));
    let place = written.map_or_else(|error| format!("nowhere ({error})"), |()| file.display().to_string());
    format!(
        "{name}: {what}; {} bytes of input are in {place}: make fuzz TARGET={name} INPUT={place}",
        input.len()
    )
}

fn name_of(input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// The files of a target's corpus, in order of their names.
fn corpus(name: &str) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(corpus_of(name)) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = files
        .map(|file| file.expect("the corpus can be listed").path())
        .collect();
    files.sort_unstable();
    files
}

/// What of an answer counts as news: its first words, but for those with a digit in them and what stands in quotes. Where
/// only a length, a checksum or a name differs, the way through the code does not.
fn gist(answer: &str) -> String {
    let unquoted: String = answer.split(['"', '`']).step_by(2).collect();
    let words = unquoted
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words
        .take(30)
        .map(|word| {
            if word.contains(|c: char| c.is_ascii_digit()) {
                "#"
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The most address space that this process ever had, in bytes; 0 where nobody says.
fn address_space() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "how long to go on, and whether a case hangs")]
fn now() -> Instant {
    Instant::now()
}
