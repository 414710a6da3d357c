//! Compares failure detectors on the same simulated traces: how soon each finds a dead peer, and how many
//! living ones it throws out on the way. `docs/detectors.md` tells what comes out.

mod phi;
mod plot;
mod run;
mod settings;
mod trace;
mod watch;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

/// Compare failure detectors on the same simulated traces.
#[derive(Debug, Parser)]
struct Cli {
    /// Where the plot goes (SVG).
    #[arg(long, value_name = "FILE", default_value = "docs/detectors.svg")]
    out: PathBuf,
    /// Where the figures go (JSON).
    #[arg(long, value_name = "FILE", default_value = "docs/detectors.json")]
    json: PathBuf,
    /// The same seed gives the same traces and figures.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Living session-hours for each setting on each network.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    hours: u32,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run::run_all(&settings::all(), cli.seed, cli.hours, threads)?;
    let json = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(&cli.json, json).with_context(|| format!("cannot write {}", cli.json.display()))?;
    let svg = plot::draw(&report)?;
    std::fs::write(&cli.out, svg).with_context(|| format!("cannot write {}", cli.out.display()))
}
