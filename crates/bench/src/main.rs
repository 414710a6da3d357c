//! The repo's measuring tool: real processes, real sockets, real black holes.
//!
//! `bench detection` measures how long the verdict on a dead client takes and that no living one is given
//! up; `bench delivery` measures what confirmed messages cost; `bench look` measures what a look into the kernel costs. Both run the release binary as a child in a
//! network of its own (Linux, root). `bench proxies` measures pulsegate beside other proxies, on loopback.

mod app;
mod client;
mod clients;
mod clock;
mod cuts;
mod delivery;
mod detection;
mod gateway;
mod look;
mod machine;
mod peer;
mod plan;
mod plot;
mod proxies;
mod report;
mod scenario;
mod stats;
mod strace;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures pulsegate: real processes, real sockets, real black holes (Linux).
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
    /// Throughput, latency, memory and accept beside nginx, HAProxy and a relay that only copies.
    ///
    /// Takes about 20 minutes with the defaults; what is not installed is left out. The exit status is 1 when
    /// a cell stayed empty, never because of a figure.
    Proxies(proxies::Options),
    /// What it costs to know that a message arrived, and to come back: `pulsegate.v1` beside plain sessions and Socket.IO.
    ///
    /// Bytes of a confirmed message, throughput, latency, memory, and 5,000 sessions whose lines are cut at once. Takes
    /// about ten minutes with the defaults. The exit status is 1 when a message was lost, never because of a figure.
    Delivery(delivery::Options),
    /// The clients of a measurement; started by the others.
    #[command(hide = true)]
    Client(client::Options),
    /// The clients of `proxies`.
    #[command(hide = true)]
    Load(proxies::LoadOptions),
    /// The app of `proxies`.
    #[command(hide = true)]
    EchoApp,
    /// A proxy that only copies bytes.
    #[command(hide = true)]
    CopyRelay(proxies::CopyOptions),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Detection(options) => detection::run(options),
        Command::Look(options) => look::run(options).map(|()| true),
        Command::Proxies(options) => proxies::run(options),
        Command::Delivery(options) => delivery::run(options),
        Command::Client(options) => client::run(options).map(|()| true),
        Command::Load(options) => proxies::run_load(&options).map(|()| true),
        Command::EchoApp => proxies::run_echo().map(|()| true),
        Command::CopyRelay(options) => proxies::run_copy(options).map(|()| true),
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
