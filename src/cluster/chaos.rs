//! Chaos: nodes are killed and restarted at random, their acceptors fail and come back at random, a workload goes on all
//! the while; at the end its history is checked, so that nothing acknowledged was lost and no read went back.

use super::local::{ClusterError, LocalCluster};
use super::run::{ClusterArgs, Interrupts, LogPrinter, options};
use crate::workload::check;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often, on average, one node's acceptor fails, and for how long.
const ACCEPTOR_FAILURES: &str = "mtbf=10s,mttr=1s";
/// Shortest and longest time between two strikes, and until a killed node is started again, milliseconds.
const STRIKE_MS: (u64, u64) = (300, 2500);
const RESTART_MS: (u64, u64) = (100, 2000);
/// One look at the nodes.
const LOOK: Duration = Duration::from_millis(20);
/// The nodes have so long to find a leader before the first strike, and the workload to end after the last.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the history may be searched.
const CHECK_TIME: Duration = Duration::from_secs(60);

/// What was done to the cluster.
#[derive(Debug, Default)]
struct Deeds {
    kills: u32,
    restarts: u32,
    all_at_once: u32,
    acceptor_failures: u32,
}

/// Runs chaos for `duration`; the exit code: 0 if nothing was lost, 1 if something was, 4 if that is undecided.
pub(super) fn run(args: &ClusterArgs, duration: Duration) -> Result<u8, ClusterError> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    eprintln!("chaos for {duration:?} on {} nodes, seed {seed}", args.nodes);
    let directory = args
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("synod-chaos-{seed}")));
    let mut options = options(args)?;
    options.data_dir.clone_from(&directory);
    options.flags.extend([
        "--acceptor-failures".into(),
        format!("{ACCEPTOR_FAILURES},seed={seed}{{id}}"),
    ]);
    std::fs::create_dir_all(&directory).map_err(ClusterError::Io)?;
    let mut interrupts = Interrupts::listen().map_err(ClusterError::Io)?;
    let mut cluster = LocalCluster::start(options)?;
    let mut watch = Watch {
        printer: LogPrinter::new(),
        deeds: Deeds::default(),
    };
    cluster.wait_for_leader(PATIENCE, |id, line| watch.see(id, line))?;
    let history = directory.join("history.jsonl");
    let mut workload = start_workload(&cluster, &history, duration, seed).map_err(ClusterError::Io)?;
    strike(&mut cluster, &mut watch, &mut interrupts, duration, seed)?;
    let summary = finish_workload(&mut cluster, &mut watch, &mut workload)?;
    cluster
        .stop(|| interrupts.count() > 1, |id, line| watch.see(id, line))
        .map_err(ClusterError::Io)?;
    let code = report(&watch.deeds, &summary, &history);
    if code == 0 && args.data_dir.is_none() {
        let _ = std::fs::remove_dir_all(&directory); // what cannot be removed does no harm
    } else {
        eprintln!("logs and history are kept in {}", directory.display());
    }
    Ok(code)
}

/// Prints the events that matter, and counts.
struct Watch {
    printer: LogPrinter,
    deeds: Deeds,
}

impl Watch {
    fn see(&mut self, id: u16, line: &str) {
        self.deeds.acceptor_failures += u32::from(line.contains("acceptor failed"));
        // That killed nodes cannot be reached is no news here.
        let is_dull = line.contains("INFO ") || line.contains("is not reached");
        if !is_dull {
            self.printer.print(id, line);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the launcher is at the edge: it reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}

/// Kills and restarts until the time is over. Mostly a minority at a time; now and then all at once.
fn strike(
    cluster: &mut LocalCluster,
    watch: &mut Watch,
    interrupts: &mut Interrupts,
    duration: Duration,
    seed: u64,
) -> Result<(), ClusterError> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let draw = |dice: &mut fastrand::Rng, (low, high): (u64, u64)| Duration::from_millis(dice.u64(low..=high));
    let until = now() + duration;
    let mut next_strike = now() + draw(&mut dice, STRIKE_MS);
    let mut dead: Vec<(u16, Instant)> = Vec::new();
    while now() < until && interrupts.count() == 0 {
        let ended = cluster
            .pump(LOOK, |id, line| watch.see(id, line))
            .map_err(ClusterError::Io)?;
        if let Some((id, status)) = ended.into_iter().next() {
            return Err(ClusterError::Ended { id, status }); // nobody killed it: it found something wrong
        }
        let (back, still_dead): (Vec<_>, Vec<_>) = dead.into_iter().partition(|(_, at)| *at <= now());
        dead = still_dead;
        for (id, _) in back {
            cluster.start_node(id)?;
            watch.deeds.restarts += 1;
        }
        if now() >= next_strike {
            next_strike = now() + draw(&mut dice, STRIKE_MS);
            for id in victims(cluster, &mut dice, &mut watch.deeds) {
                if cluster.kill_node(id) {
                    watch.deeds.kills += 1;
                    dead.push((id, now() + draw(&mut dice, RESTART_MS)));
                }
            }
        }
    }
    for (id, _) in dead {
        cluster.start_node(id)?;
        watch.deeds.restarts += 1;
    }
    Ok(())
}

/// Whom to kill: one or two so that a majority lives, or once in a while everybody.
fn victims(cluster: &LocalCluster, dice: &mut fastrand::Rng, deeds: &mut Deeds) -> Vec<u16> {
    let ids = cluster.ids();
    if dice.u8(0..20) == 0 {
        deeds.all_at_once += 1;
        return ids;
    }
    let mut running: Vec<u16> = ids.iter().copied().filter(|id| cluster.is_running(*id)).collect();
    let spare = running.len().saturating_sub(ids.len() / 2 + 1);
    dice.shuffle(&mut running);
    let count = if spare == 0 { 0 } else { dice.usize(1..=spare) };
    // Half of the time the leader is among them.
    if dice.bool()
        && let Some(leader) = cluster.leader()
        && let Some(place) = running.iter().position(|id| *id == leader)
    {
        running.swap(0, place);
    }
    running.truncate(count);
    running
}

fn start_workload(cluster: &LocalCluster, history: &Path, duration: Duration, seed: u64) -> std::io::Result<Child> {
    let own: PathBuf = std::env::current_exe()?;
    Command::new(own)
        .args([
            "--endpoints",
            &cluster.endpoints(),
            "--output",
            "json",
            "bench",
            "register",
        ])
        .args(["--clients", "16", "--keys", "50", "--seed", &seed.to_string()])
        .args(["--duration", &format!("{}ms", duration.as_millis())])
        .arg("--history")
        .arg(history)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Waits for the workload's end, with all nodes up; its summary.
fn finish_workload(cluster: &mut LocalCluster, watch: &mut Watch, workload: &mut Child) -> Result<Value, ClusterError> {
    let until = now() + PATIENCE;
    while workload.try_wait().map_err(ClusterError::Io)?.is_none() {
        if now() >= until {
            let _ = workload.kill();
            return Err(ClusterError::Io(std::io::Error::other(
                "the workload did not end after the chaos",
            )));
        }
        cluster
            .pump(LOOK, |id, line| watch.see(id, line))
            .map_err(ClusterError::Io)?;
    }
    let mut text = String::new();
    if let Some(stdout) = &mut workload.stdout {
        stdout.read_to_string(&mut text).map_err(ClusterError::Io)?;
    }
    Ok(serde_json::from_str(text.trim()).unwrap_or_default())
}

fn report(deeds: &Deeds, summary: &Value, history: &Path) -> u8 {
    let Deeds {
        kills,
        restarts,
        all_at_once,
        acceptor_failures,
    } = deeds;
    println!(
        "kill -9 {kills} times ({all_at_once} times all at once), {restarts} restarts, {acceptor_failures} acceptor failures"
    );
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    let (ops, done) = (count("ops"), count("done"));
    println!(
        "{ops} operations: {done} done, {} certainly not done, {} unknown",
        count("not_done"),
        count("unknown")
    );
    if done == 0 {
        println!("the workload did nothing: nothing is shown");
        return 3;
    }
    let code = check::run(
        &check::CheckArgs {
            file: history.to_path_buf(),
            max_time: CHECK_TIME,
            svg: None,
            edn: false,
            jsonl: false,
        },
        false,
    );
    match code {
        0 => println!("the history is linearizable: nothing acknowledged was lost, no read went back"),
        1 => println!("THE HISTORY IS NOT LINEARIZABLE"),
        _ => println!("the history could not be decided"),
    }
    code
}
