//! The soak: clients on bad lines for minutes, and whether anything was lost, doubled or out of order.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use pulsegate_soak::{Plan, Unmodified, run};

/// Clients of `pulsegate.v1` on lines that fail in every way, and a checker of what each side got and was told.
#[derive(Debug, Parser)]
struct Arguments {
    /// Clients that speak pulsegate.v1
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// The most messages that each client says, and gets
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// The longest that they talk
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// How long nothing may come once everything has
    #[arg(long, default_value_t = 5)]
    quiet: u64,
    /// What all that is random comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves the lines alone: then nobody may lose a connection
    #[arg(long)]
    calm: bool,
    /// Unmodified clients beside them: npm ws, Python websockets, aiohttp, in turn
    #[arg(long, default_value_t = 0)]
    unmodified: usize,
    /// Where the scripts of the unmodified clients are
    #[arg(long, default_value = "tests")]
    tests: PathBuf,
    /// A Python with websockets and aiohttp
    #[arg(long, default_value = "tests/.cache/venv/bin/python")]
    python: PathBuf,
    /// The gateway; without it the one beside this program
    #[arg(long, env = "PULSEGATE_BIN")]
    gateway: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let beside = std::env::current_exe()?.with_file_name("pulsegate");
    let binary = arguments.gateway.unwrap_or(beside);
    anyhow::ensure!(
        binary.exists(),
        "{} is not there: `cargo build --release -p pulsegate`",
        binary.display()
    );
    let unmodified = (arguments.unmodified > 0)
        .then(|| Unmodified::new(arguments.unmodified, arguments.tests, arguments.python));
    let plan = Plan {
        binary,
        clients: arguments.clients,
        messages: arguments.messages,
        time: Duration::from_secs(arguments.seconds),
        quiet: Duration::from_secs(arguments.quiet),
        seed: arguments.seed,
        faults: !arguments.calm,
        unmodified,
    };
    println!("seed {}", plan.seed);
    let report = run(&plan, |line| eprintln!("{line}")).await.context("the run broke off")?;
    println!("{report}");
    Ok(if report.complaints == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
