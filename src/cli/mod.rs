//! The `synod` command: flags, exit codes, one module a subcommand.
//!
//! Results go to standard output, diagnostics to standard error. Exit codes are those of [`exit`], for every subcommand.
//!
//! * [`data`]: `put`, `get`, `del`, `cas`. [`debug`]: a node's debug port. [`status`]: all nodes in a table. [`verify`]: whether all
//!   nodes have one state.
//! * [`inspect`]: what stands in a node's files. [`backup`] and [`restore`]: a cluster's state in one file, and back.
//! * [`load`]: `run` and `bench`; also a script under `synod cluster --run`, which may kill and start nodes.
//! * [`sim`]: simulated clusters under faults. [`lesson`]: rules broken on purpose, and what comes of it.
//! * Elsewhere: [`crate::cluster`] and [`crate::workload`] bring their own subcommands.

pub mod backup;
pub mod data;
pub mod debug;
pub mod exit;
pub mod inspect;
pub mod lesson;
pub mod load;
mod load_cluster;
pub mod restore;
pub mod sim;
pub mod status;
pub mod verify;

use crate::client::Options;
use crate::client::options::ENDPOINTS_DEFAULT;
use crate::cluster::run::ClusterArgs;
use crate::command::DataCommand;
use crate::console::complain;
use crate::units::parse_positive_duration;
use crate::version::VERSION;
use crate::workload::check::CheckArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long all endpoints may refuse before a one-shot command stops trying.
const UNREACHABLE_GRACE: Duration = Duration::from_secs(1);

/// A client of a Synod cluster, and its tools
#[derive(Debug, Parser)]
#[command(name = "synod", version = VERSION.as_str(), after_help = exit::HELP, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Nodes of the cluster, HOST:PORT, separated by commas
    #[arg(long, global = true, env = "SYNOD_ENDPOINTS", default_value = ENDPOINTS_DEFAULT, value_delimiter = ',', value_parser = parse_endpoint)]
    pub endpoints: Vec<String>,
    /// Deadline of an operation, retries included
    #[arg(long, global = true, env = "SYNOD_TIMEOUT", default_value = "5s", value_parser = parse_positive_duration)]
    pub timeout: Duration,
    /// Form of the results
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Print the bytes of a value alone, without a newline
    #[arg(long, global = true)]
    pub raw: bool,
}

/// Form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON object on one line.
    Json,
}

/// All subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Data(DataCommand),
    Debug(debug::DebugArgs),
    /// Show all nodes in a table: role, ballot, slots, revision, lag, faults
    Status,
    /// Compare the nodes' states by their digests: exit 0 if all are equal, 1 if not, naming the first slot that differs
    Verify,
    Inspect(inspect::InspectArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Run(load::RunArgs),
    Bench(load::BenchArgs),
    Check(CheckArgs),
    Cluster(ClusterArgs),
    Sim(sim::SimArgs),
    Lesson(lesson::LessonArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match &cli.command {
        Command::Data(command) => end_on_interrupt().and_then(|()| data::run(&cli.global, command)),
        Command::Debug(args) => end_on_interrupt().and_then(|()| debug::run(&cli.global, args)),
        Command::Verify => end_on_interrupt().and_then(|()| verify::run(&cli.global)),
        Command::Inspect(args) => end_on_interrupt().and_then(|()| inspect::run(&cli.global, args)),
        Command::Backup(args) => end_on_interrupt().and_then(|()| backup::run(&cli.global, args)),
        Command::Restore(args) => end_on_interrupt().and_then(|()| restore::run(&cli.global, args)),
        Command::Status => end_on_interrupt().and_then(|()| status::run(&cli.global)),
        Command::Check(args) => {
            end_on_interrupt().map(|()| crate::workload::check::run(args, cli.global.output == Output::Json))
        }
        Command::Sim(args) => end_on_interrupt().and_then(|()| sim::run(args)),
        Command::Lesson(args) => end_on_interrupt().and_then(|()| lesson::run(args)),
        Command::Run(args) => load::run(&cli.global, args),
        Command::Bench(args) => load::bench(&cli.global, args),
        Command::Cluster(args) => match &args.run {
            Some(file) => load_cluster::run(&cli.global, args, file),
            None => Ok(crate::cluster::run::run(args)),
        },
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        complain(&error.to_string());
        exit::NOT_DONE
    }))
}

impl Global {
    /// How a client of these flags behaves.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn options(&self) -> io::Result<Options> {
        let mut options = Options::random()?;
        options.timeout = self.timeout;
        options.give_up_unreachable = Some(UNREACHABLE_GRACE.min(self.timeout));
        Ok(options)
    }
}

/// Ctrl-C ends a one-shot command at once, by the exit code that shells know; what was in flight is then unknown.
fn end_on_interrupt() -> io::Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(signal_hook::consts::SIGINT, exit::INTERRUPTED.into(), always)?;
    Ok(())
}

/// Checks the form `HOST:PORT`; whether the name has an address is found when it is dialled.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let text = text.trim();
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text.to_string()),
        _ => Err("an endpoint is HOST:PORT, such as 127.0.0.1:7001".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_behind_the_command() {
        for line in [
            "synod --timeout 2s --output json cas k --version 3 new",
            "synod cas k --version 3 new --timeout 2s --output json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.global.timeout, Duration::from_secs(2), "{line}");
            assert_eq!(cli.global.output, Output::Json, "{line}");
            assert!(matches!(
                cli.command,
                Command::Data(DataCommand::Cas { version: Some(3), .. })
            ));
        }
    }

    #[test]
    fn endpoints_are_a_list_of_host_and_port() {
        let cli = Cli::try_parse_from(["synod", "--endpoints", "a:1,[::1]:2", "get", "k"]).expect("parses");
        assert_eq!(cli.global.endpoints, ["a:1", "[::1]:2"]);
        for bad in ["", "a", "a:", ":1", "a:x", "a:0", "a:65536", "a:1,,b:2"] {
            assert!(
                Cli::try_parse_from(["synod", "--endpoints", bad, "get", "k"]).is_err(),
                "{bad}"
            );
        }
    }
}
