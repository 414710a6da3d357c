//! `bench detection`: all runs, one after the other, and what is written of them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::machine::{self, Setting};
use crate::plan::{Load, Network, Plan, Profile};
use crate::plot;
use crate::report;
use crate::scenario::{self, Outcome};
use crate::stats::Summary;
use crate::world::World;

/// Descriptors that a process needs beyond those of its connections.
const OPEN_FILES_SPARE: u64 = 200;
/// A client, and both sides of its connection through the proxy of the bad network.
const OPEN_FILES_PER_CLIENT: u64 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Clients at a time.
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// How many of them vanish; on the bad network a twentieth of that, at its end.
    #[arg(long, default_value_t = 1000)]
    dead: usize,
    /// Only this profile.
    #[arg(long)]
    profile: Option<Profile>,
    /// Only this load. The bad network is measured quiet: there the probes are all that keeps a client.
    #[arg(long)]
    load: Option<Load>,
    /// Only this network.
    #[arg(long)]
    network: Option<Network>,
    /// Where all that is random begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the bad network is watched, in seconds [default: 120; battery: 240].
    #[arg(long)]
    duration: Option<u64>,
    /// What a loaded machine may add to the bound, in milliseconds.
    #[arg(long, default_value_t = 0)]
    slack_ms: u64,
    /// The plot.
    #[arg(long, default_value = "docs/detection.svg")]
    out: PathBuf,
    /// The figures.
    #[arg(long, default_value = "docs/detection.json")]
    json: PathBuf,
}

/// What is written to the file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    setting: Setting,
    runs: Vec<Outcome>,
}

/// Measures, writes, and tells. Returns whether every promise was kept.
///
/// # Errors
/// Something is missing or does not start.
pub(crate) fn run(options: Options) -> Result<bool> {
    ensure!(options.dead < options.sessions, "somebody has to live: --dead must be less than --sessions");
    machine::raise_open_files(options.sessions as u64 * OPEN_FILES_PER_CLIENT + OPEN_FILES_SPARE)?;
    // Before the runtime: its threads are to live in the gateway's network.
    let world = World::enter()?;
    let outcomes = in_runtime(measure(&options, &world))?;
    drop(world);

    report::result(&table(&outcomes));
    let kept = outcomes.iter().all(|outcome| outcome.broken.is_empty() && outcome.void.is_none());
    plot::draw(&outcomes, &options.out).with_context(|| format!("cannot write {}", options.out.display()))?;
    let record = Record { setting: Setting::here()?, runs: outcomes };
    fs::write(&options.json, serde_json::to_string_pretty(&record)? + "\n")
        .with_context(|| format!("cannot write {}", options.json.display()))?;
    Ok(kept)
}

/// Runs the work, until it ends or the person at the terminal has had enough; then all that it started is
/// ended as well.
pub(crate) fn in_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn measure(options: &Options, world: &World) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for plan in plans(options) {
        report::progress(&format!("{} …", plan.title()));
        let outcome = scenario::run(&plan, world).await.with_context(|| plan.title())?;
        report::progress(&format!(
            "  told {} s after the cut, verdict after {} s of silence (bound {} s), living given up: {}",
            three(outcome.cut_to_told_seconds),
            three(outcome.silence_to_verdict_seconds),
            outcome.bound_seconds,
            outcome.evicted_living
        ));
        for broken in &outcome.broken {
            report::complain(&format!("BROKEN: {broken}"));
        }
        if let Some(why) = &outcome.void {
            report::complain(&format!("VOID, to be repeated on a calm machine: {why}"));
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn plans(options: &Options) -> Vec<Plan> {
    let mut plans = Vec::new();
    for network in Network::ALL.into_iter().filter(|one| options.network.is_none_or(|only| only == *one)) {
        for profile in Profile::ALL.into_iter().filter(|one| options.profile.is_none_or(|only| only == *one))
        {
            for load in Load::ALL.into_iter().filter(|one| options.load.is_none_or(|only| only == *one)) {
                if network == Network::Bad && load == Load::Busy && options.load.is_none() {
                    continue;
                }
                plans.push(plan(options, profile, load, network));
            }
        }
    }
    plans
}

fn plan(options: &Options, profile: Profile, load: Load, network: Network) -> Plan {
    Plan {
        profile,
        load,
        network,
        sessions: options.sessions,
        dead: match network {
            Network::Good => options.dead,
            Network::Bad => (options.dead / 20).max(1),
        },
        bad_network_time: options.duration.map_or(profile.bad_network_time(), Duration::from_secs),
        slack: Duration::from_millis(options.slack_ms),
        seed: options.seed,
    }
}

/// The table of the README, in Markdown.
fn table(outcomes: &[Outcome]) -> String {
    let mut lines = vec![
        "| run | vanished | cut to told: least / median / most | silence to verdict | bound | living given up |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for outcome in outcomes {
        let (profile, load) = (outcome.profile.as_str(), outcome.load.as_str());
        lines.push(format!(
            "| {profile}, {load}, {} network | {} of {} | {} | {} | {} | {} of {} |",
            outcome.network.as_str(),
            outcome.vanished,
            outcome.sessions,
            three(outcome.cut_to_told_seconds),
            three(outcome.silence_to_verdict_seconds),
            outcome.bound_seconds,
            outcome.evicted_living,
            outcome.sessions - outcome.vanished,
        ));
    }
    lines.join("\n")
}

fn three(summary: Option<Summary>) -> String {
    summary.map_or("–".to_owned(), |one| format!("{:.2} / {:.2} / {:.2}", one.min, one.median, one.max))
}
