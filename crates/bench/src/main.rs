//! The repo's measuring tool: real processes, real sockets, real black holes.
//!
//! `bench detection` measures how long the verdict on a dead client takes and that no living one is given
//! up; `bench look` measures what a look into the kernel costs. Both run the release binary as a child in a
//! network of its own (Linux, root).

mod app;
mod client;
mod clients;
mod clock;
mod cuts;
mod detection;
mod gateway;
mod look;
mod machine;
mod peer;
mod plan;
mod plot;
mod report;
mod scenario;
mod stats;
mod strace;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures pulsegate: real processes, real sockets, real black holes (Linux, root).
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How long until the app is told that its client is gone, and whether anybody living is given up.
    ///
    /// For each profile, quiet and busy: 1,000 of 5,000 clients vanish in a black hole at random moments of
    /// one ping interval. Then the same number of clients on a bad but living network. Takes about 15
    /// minutes with the defaults, and needs root, `ip` and `nft`. The exit status is 1 when a promise was
    /// broken.
    Detection(detection::Options),
    /// What one look into the kernel costs, and how many the gateway takes.
    ///
    /// Needs root, `ip`, `nft`, and `strace` for the counts. Takes about three minutes.
    Look(look::Options),
    /// The clients of a measurement; started by the others.
    #[command(hide = true)]
    Client(client::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Detection(options) => detection::run(options),
        Command::Look(options) => look::run(options).map(|()| true),
        Command::Client(options) => client::run(options).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
