//! Runs seeds, or tells the story of one.
#![allow(clippy::print_stdout, reason = "a command line")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use clap::{Parser, Subcommand};
use pulsegate_sim::{Bug, Tally, V1Bug, run};

mod v1_command;
use v1_command as v1;

#[derive(Parser)]
#[command(about = "Real sessions in virtual time, from a seed")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Tell what happens in one.
    Replay {
        /// Which.
        seed: u64,
        /// A bug to plant.
        #[arg(long)]
        bug: Option<Bug>,
    },
    /// Sessions of pulsegate.v1.
    V1 {
        #[command(subcommand)]
        command: V1,
    },
    /// Plant each bug, and tell by which seed it is caught, as a table.
    Bugs {
        /// How many seeds each gets.
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
    },
}

#[derive(Subcommand)]
enum V1 {
    /// Run many seeds.
    Run {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Tell what happens in one.
    Replay {
        /// Which.
        seed: u64,
        /// A bug to plant.
        #[arg(long)]
        bug: Option<V1Bug>,
    },
    /// Plant each bug, and tell by which seed it is caught, as a table.
    Bugs {
        /// How many seeds each gets.
        #[arg(long, default_value_t = 20_000)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::V1 { command } => match command {
            V1::Run { seeds, from } => v1::run_many(from, seeds),
            V1::Replay { seed, bug } => v1::replay(seed, bug),
            V1::Bugs { seeds } => v1::plant_all(seeds),
        },
        Command::Run { seeds, from } => run_many(from, seeds),
        Command::Replay { seed, bug } => replay(seed, bug),
        Command::Bugs { seeds } => plant_all(seeds),
    }
}

/// Prints the table of `docs/simulation.md`.
fn plant_all(seeds: u64) -> ExitCode {
    println!("| bug | first seed | complaint | in the oracle's words |");
    println!("|---|---|---|---|");
    let mut code = ExitCode::SUCCESS;
    for &bug in Bug::all() {
        let caught = (0..seeds).find_map(|seed| Some((seed, run(seed, Some(bug), false).failure?)));
        match caught {
            Some((seed, failure)) => {
                println!("| `{bug:?}` | {seed} | {} | {} |", failure.complaint.as_str(), failure.what);
                if failure.complaint != bug.complaint() {
                    println!("`{bug:?}` should have been {}: {failure}", bug.complaint().as_str());
                    code = ExitCode::FAILURE;
                }
            }
            None => {
                println!("`{bug:?}` was not caught within {seeds} seeds");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn replay(seed: u64, bug: Option<Bug>) -> ExitCode {
    let report = run(seed, bug, true);
    for line in &report.story {
        println!("{line}");
    }
    match report.failure {
        Some(failure) => {
            println!("seed {seed} FAILED: {failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: nothing to object to");
            ExitCode::SUCCESS
        }
    }
}

fn run_many(from: u64, seeds: u64) -> ExitCode {
    let next = AtomicU64::new(from);
    let total = Mutex::new((Tally::default(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut tally = Tally::default();
                let mut failures = Vec::new();
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let report = run(seed, None, false);
                    tally.add(&report.tally);
                    failures.extend(report.failure.map(|failure| (seed, failure)));
                }
                let mut total = total.lock().expect("nobody panics with it");
                total.0.add(&tally);
                total.1.extend(failures);
            });
        }
    });
    let (tally, mut failures) = total.into_inner().expect("nobody panicked with it");
    for (what, count) in &tally.counts {
        println!("{count:>10} {what}");
    }
    failures.sort();
    for (seed, failure) in failures.iter().take(20) {
        println!("seed {seed} FAILED: {failure}");
        println!("    cargo run --release -p pulsegate-sim -- replay {seed}");
    }
    println!("{seeds} seeds, {} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
