//! One run: start everything, let clients vanish, hold what happened against what was promised.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::app::App;
use crate::clients::{Clients, Crowd};
use crate::clock::Moment;
use crate::cuts::{Cuts, cut};
use crate::gateway::{self, Gateway, Metrics};
use crate::machine::{self, Disturbance, Watch};
use crate::peer::End;
use crate::plan::{Load, Network, Plan, Profile};
use crate::stats::{Histogram, Summary, round};
use crate::world::{self, World};

/// The close code by which the app is told that its client was declared dead.
const DEAD_CLIENT: u16 = 4408;
/// How long the living are watched after the last verdict was due.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Parts of a histogram up to a tenth beyond the bound, so that its edge falls between two of them.
const HISTOGRAM_PARTS: usize = 88;
const HISTOGRAM_BEYOND: f64 = 1.1;
/// Examples of a broken promise that are told in full.
const EXAMPLES_MAX: usize = 5;

/// What came of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) profile: Profile,
    pub(crate) load: Load,
    pub(crate) network: Network,
    pub(crate) sessions: usize,
    pub(crate) vanished: usize,
    pub(crate) seed: u64,
    pub(crate) bound_seconds: f64,
    /// How long the living were watched while nobody vanished, on the bad network.
    pub(crate) watched_seconds: Option<f64>,
    /// From the black hole to the app being told.
    pub(crate) cut_to_told_seconds: Option<Summary>,
    /// From the last byte of the client to the verdict.
    pub(crate) silence_to_verdict_seconds: Option<Summary>,
    pub(crate) cut_to_told: Histogram,
    pub(crate) silence_to_verdict: Histogram,
    /// Verdicts by cause.
    pub(crate) causes: HashMap<String, usize>,
    /// Clients that lived and were given up all the same.
    pub(crate) evicted_living: usize,
    pub(crate) suspects_recovered: f64,
    pub(crate) verdicts_withheld: f64,
    /// Longest time from the order of a black hole to its confirmation.
    pub(crate) cut_uncertainty_seconds: f64,
    /// Longest lateness of its own timers that the gateway told in a verdict.
    pub(crate) verdict_timer_lag_max_seconds: f64,
    pub(crate) gateway_cpu_percent: f64,
    pub(crate) gateway_resident_mib: f64,
    /// The upper edge of the bucket in which it lies.
    pub(crate) gateway_timer_lag_p99_seconds: Option<f64>,
    pub(crate) disturbance: Disturbance,
    /// The same of the process that plays the clients and the bad network: what it is late, the network is.
    pub(crate) clients_disturbance: Disturbance,
    pub(crate) longest_stall_seconds: Option<f64>,
    /// Why the run says nothing about the living, if the machine made the network worse than it should be.
    pub(crate) void: Option<String>,
    /// What was promised and not kept; empty when all is well.
    pub(crate) broken: Vec<String>,
}

/// Runs one plan.
///
/// # Errors
/// Something is missing or does not start; a broken promise is no error but part of the outcome.
pub(crate) async fn run(plan: &Plan, world: &World) -> Result<Outcome> {
    world::heal()?;
    let app = App::start(plan.load.pushes_per_s()).await?;
    let mut gateway = Gateway::start(&gateway::binary()?, app.address(), plan.profile).await?;
    gateway.follow_verdicts().await?;
    let crowd = Crowd {
        sessions: plan.sessions,
        messages_per_s: plan.load.client_messages_per_s(),
        stall_max: (plan.network == Network::Bad).then(|| plan.profile.stall_max()),
        seed: plan.seed,
    };
    let mut clients = Clients::start(&crowd, world, gateway.port()).await?;
    // Everybody has been asked at least once, so the gateway knows the round trips.
    sleep(plan.profile.ping_interval().mul_f64(1.5)).await;
    let sessions = gateway.sessions().await?;
    ensure!(sessions == plan.sessions as u64, "{sessions} of {} sessions are there", plan.sessions);

    let (watch, cpu, start) = (Watch::start(), machine::cpu_seconds(gateway.pid())?, Moment::now());
    let mut seen = Seen { metrics_before: Some(gateway.metrics().await?), ..Seen::default() };
    if plan.network == Network::Bad {
        clients.begin_bad_network().await?;
        sleep(plan.bad_network_time).await;
        seen.evicted_early = app.told().len();
    }
    let cuts = cut(clients.ports(), plan.dead, plan.profile.ping_interval(), plan.seed).await?;
    sleep(plan.profile.bound() + plan.slack + AFTERMATH).await;
    seen.cpu_percent =
        100.0 * (machine::cpu_seconds(gateway.pid())? - cpu) / Moment::now().seconds_since(start);
    seen.disturbance = Some(watch.end());
    seen.told = app.told().into_iter().map(|told| (told.client, (told.at, told.end))).collect();
    seen.client_ends = clients.ends();
    seen.clients = Some(clients.report().await?);
    let outcome = evaluate(plan, &cuts, seen, &app, &gateway).await?;
    drop(clients);
    gateway.stop().await;
    Ok(outcome)
}

/// What was seen by the app, by the clients, and of the machine.
#[derive(Default)]
struct Seen {
    told: HashMap<usize, (Moment, End)>,
    client_ends: Vec<usize>,
    /// Ends before anybody vanished.
    evicted_early: usize,
    cpu_percent: f64,
    disturbance: Option<Disturbance>,
    clients: Option<(Disturbance, f64)>,
    metrics_before: Option<Metrics>,
}

async fn evaluate(plan: &Plan, cuts: &Cuts, seen: Seen, app: &App, gateway: &Gateway) -> Result<Outcome> {
    let bound = plan.profile.bound().as_secs_f64();
    let limit = bound + plan.slack.as_secs_f64();
    let mut broken = Vec::new();
    let vanished: HashSet<_> = cuts.all.iter().map(|cut| cut.client).collect();

    let told_after = times_to_told(cuts, &seen, limit, &mut broken);
    let verdicts = gateway.verdicts();
    let mut causes = HashMap::new();
    for verdict in &verdicts {
        *causes.entry(verdict.cause.clone()).or_default() += 1;
        if verdict.silent_for > limit {
            broken.push(format!("beyond the bound of {bound} s: {}", verdict.text));
        }
        if !app.client_of(&verdict.session).is_some_and(|client| vanished.contains(&client)) {
            broken.push(format!("a verdict on the living: {}", verdict.text));
        }
    }
    let silences: Vec<_> = verdicts.iter().map(|verdict| verdict.silent_for).collect();

    let ended: HashSet<_> = seen.told.keys().chain(&seen.client_ends).copied().collect();
    let evicted = ended.difference(&vanished).count();
    if evicted > 0 || seen.evicted_early > 0 {
        broken.push(format!("{} living clients were given up", evicted.max(seen.evicted_early)));
    }
    let metrics = gateway.metrics().await?;
    let (left, dead) = (gateway.sessions().await?, metrics.sum("pulsegate_dead_peers_total", ""));
    let expected = (plan.sessions - cuts.all.len()) as u64;
    if left != expected {
        broken.push(format!("the registry has {left} sessions, {expected} live"));
    }
    if dead != cuts.all.len() as f64 || verdicts.len() != cuts.all.len() {
        broken.push(format!("{} vanished, metrics tell {dead}, the feed {}", cuts.all.len(), verdicts.len()));
    }
    broken.truncate(EXAMPLES_MAX);

    let before = seen.metrics_before.context("the metrics were read before")?;
    let (clients_disturbance, longest_stall) = seen.clients.context("the clients have reported")?;
    Ok(Outcome {
        profile: plan.profile,
        load: plan.load,
        network: plan.network,
        sessions: plan.sessions,
        vanished: cuts.all.len(),
        seed: plan.seed,
        bound_seconds: bound,
        watched_seconds: (plan.network == Network::Bad).then_some(plan.bad_network_time.as_secs_f64()),
        cut_to_told_seconds: Summary::of(&told_after),
        silence_to_verdict_seconds: Summary::of(&silences),
        cut_to_told: Histogram::of(&told_after, bound * HISTOGRAM_BEYOND, HISTOGRAM_PARTS),
        silence_to_verdict: Histogram::of(&silences, bound * HISTOGRAM_BEYOND, HISTOGRAM_PARTS),
        causes,
        evicted_living: evicted.max(seen.evicted_early),
        suspects_recovered: metrics.sum("pulsegate_suspects_recovered_total", ""),
        verdicts_withheld: metrics.sum("pulsegate_verdicts_withheld_total", ""),
        cut_uncertainty_seconds: round(cuts.uncertainty),
        verdict_timer_lag_max_seconds: round(
            verdicts.iter().map(|verdict| verdict.timer_lag).fold(0.0, f64::max),
        ),
        gateway_cpu_percent: round(seen.cpu_percent),
        gateway_resident_mib: machine::resident_mib(gateway.pid())?,
        gateway_timer_lag_p99_seconds: metrics.quantile_at_most("pulsegate_timer_lag_seconds", 0.99, &before),
        disturbance: seen.disturbance.context("the watch has ended")?,
        void: void(plan, &clients_disturbance),
        clients_disturbance,
        longest_stall_seconds: (plan.network == Network::Bad).then_some(round(longest_stall)),
        broken,
    })
}

/// Returns the seconds from each cut to the app being told of it.
fn times_to_told(cuts: &Cuts, seen: &Seen, limit: f64, broken: &mut Vec<String>) -> Vec<f64> {
    let mut told_after = Vec::new();
    for cut in &cuts.all {
        match seen.told.get(&cut.client) {
            Some((at, End::Close(DEAD_CLIENT))) => told_after.push(at.seconds_since(cut.at)),
            Some((_, end)) => broken.push(format!("the app was told of client {} by {end:?}", cut.client)),
            None => broken.push(format!("the app was never told that client {} is gone", cut.client)),
        }
    }
    let late = told_after.iter().filter(|time| **time > limit).count();
    if late > 0 {
        broken.push(format!("the app was told later than {limit} s after the cut: {late} times"));
    }
    told_after
}

/// The clients' process plays the network, so what it is late comes on top of every delay and stall.
fn void(plan: &Plan, clients: &Disturbance) -> Option<String> {
    let (late, reserve) = (clients.own_lag?.max, plan.profile.network_reserve().as_secs_f64());
    (plan.network == Network::Bad && late > reserve).then(|| {
        format!("the process that plays the network was {late:.2} s late, and a reserve of {reserve:.1} s is all it had")
    })
}
