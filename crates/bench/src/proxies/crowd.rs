//! The cells with thousands of sessions: memory, opening, probes, growth. Each has a fresh proxy.

use anyhow::{Result, bail, ensure};
use std::time::Duration;
use tokio::time::sleep;

use super::book::{Better, Book, Measure};
use super::cells::Site;
use super::floor;
use super::load::Order;
use super::plan::Plan;
use super::process::{Outside, Used, memory_kib};
use super::servers::Kind;
use super::swarm::Swarm;
use crate::clock::Moment;

const OPENED: Measure = Measure { name: "handshakes", unit: "per s", better: Better::Higher };
const OPEN_CPU: Measure =
    Measure { name: "CPU of the proxy per handshake", unit: "µs", better: Better::Lower };
const MEMORY: Measure = Measure { name: "memory per session", unit: "KiB", better: Better::Lower };
const START: Measure =
    Measure { name: "memory of the proxy at the start", unit: "KiB", better: Better::Neither };
const TO_IDLE: Measure =
    Measure { name: "memory per session, to idle before", unit: "ratio", better: Better::Neither };
const TO_START: Measure =
    Measure { name: "memory of the proxy, to the start", unit: "ratio", better: Better::Neither };
const PROBE_CPU: Measure = Measure { name: "CPU per probe", unit: "µs", better: Better::Lower };
const PROBES: Measure = Measure { name: "probes counted", unit: "number", better: Better::Neither };
const SECOND_CPU: Measure =
    Measure { name: "CPU per idle session and second", unit: "µs", better: Better::Lower };
const MESSAGE_CPU: Measure =
    Measure { name: "CPU of the proxy per message", unit: "µs", better: Better::Lower };

/// The message after which a session is idle.
const FIRST_BYTES: usize = 1024;
const LARGE_BYTES: usize = 1024 * 1024;
/// Three times as often as Prometheus asks by default: what is asked costs as well.
const PROBES_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Two legs, each probed about every 5 s.
const FLOOR_INTERVAL: Duration = Duration::from_millis(2500);
const PROBES_MAX_SECONDS: f64 = 120.0;
/// So much longer than each session needs to have had a message.
const AWAKE_SECONDS: f64 = 0.2;

/// Memory at the start, once the code has run: what is loaded then is no session's.
async fn at_start(site: &Site, plan: &Plan, swarm: &mut Swarm) -> Result<f64> {
    swarm.open(1).await?;
    swarm.once(FIRST_BYTES).await?;
    swarm.leave().await?;
    sleep(plan.settle).await;
    memory_kib(&site.pids())
}

/// Opens a crowd, lets it be idle, makes each carry a mebibyte, and lets all leave.
pub(crate) async fn idle(site: &Site, plan: &Plan, book: &mut Book) -> Result<()> {
    let (kind, sessions) = (site.kind, plan.idle_sessions);
    let mut swarm = Swarm::start(&site.endpoint)?;
    let start = at_start(site, plan, &mut swarm).await?;

    let pids = site.pids();
    let outside = Outside::watch()?;
    let before = Used::by(&pids)?;
    let seconds = swarm.open(sessions).await?;
    let used = Used::by(&pids)?.since(&before);
    let cell = format!("opening {sessions} sessions");
    book.add(&cell, OPENED, kind, sessions as f64 / seconds);
    book.add(&cell, OPEN_CPU, kind, used * 1e6 / sessions as f64);

    let per_session = |now: f64| (now - start) / sessions as f64;
    swarm.once(FIRST_BYTES).await?;
    sleep(plan.settle).await;
    let idle = per_session(memory_kib(&pids)?);
    let cell = format!("{sessions} idle sessions, one message each");
    book.add(&cell, START, kind, start);
    book.add(&cell, MEMORY, kind, idle);
    probes(site, plan, book).await?;

    swarm.once(LARGE_BYTES).await?;
    sleep(plan.settle).await;
    let after = per_session(memory_kib(&pids)?);
    let cell = format!("{sessions} idle sessions, 1 MiB each");
    book.add(&cell, MEMORY, kind, after);
    book.add(&cell, TO_IDLE, kind, after / idle);

    swarm.leave().await?;
    sleep(plan.settle).await;
    book.add("after all left", TO_START, kind, memory_kib(&pids)? / start);
    book.add_outside(kind, outside.percent()?);
    Ok(())
}

/// What an idle crowd costs while it is watched; only pulsegate watches anybody.
async fn probes(site: &Site, plan: &Plan, book: &mut Book) -> Result<()> {
    let Some(first) = probes_sent(site).await? else { return Ok(()) };
    let pids = site.pids();
    let (start, before) = (Moment::now(), Used::by(&pids)?);
    let (counted, seconds) = loop {
        sleep(PROBES_LOOK_EVERY).await;
        let counted = probes_sent(site).await?.unwrap_or_default() - first;
        let seconds = Moment::now().seconds_since(start);
        if counted >= plan.probes as f64 {
            break (counted, seconds);
        }
        if seconds > PROBES_MAX_SECONDS {
            bail!("only {counted} probes in {seconds:.0} s");
        }
    };
    let used = Used::by(&pids)?.since(&before) * 1e6;
    let cell = watched_cell(plan);
    book.add(&cell, PROBES, site.kind, counted);
    book.add(&cell, PROBE_CPU, site.kind, used / counted);
    book.add(&cell, SECOND_CPU, site.kind, used / seconds / plan.idle_sessions as f64);
    Ok(())
}

/// How many probes have been sent so far; `None` by those who send none.
async fn probes_sent(site: &Site) -> Result<Option<f64>> {
    let Some(server) = &site.server else { return Ok(None) };
    Ok(server.metrics().await?.map(|metrics| metrics.sum("pulsegate_probes_sent_total", "")))
}

/// What a probe costs without anybody who watches: the system calls, at the pace of the default profile.
pub(crate) fn floor(plan: &Plan, book: &mut Book) -> Result<()> {
    let rounds = plan.probes.div_ceil(plan.idle_sessions);
    let micros = floor::ping_and_pong(plan.idle_sessions, rounds, FLOOR_INTERVAL)?;
    book.add(&watched_cell(plan), PROBE_CPU, Kind::Direct, micros);
    Ok(())
}

fn watched_cell(plan: &Plan) -> String {
    format!("{} idle sessions, watched", plan.idle_sessions)
}

/// What a session and a message cost as sessions become more.
pub(crate) async fn growth(site: &Site, plan: &Plan, book: &mut Book) -> Result<()> {
    let mut swarm = Swarm::start(&site.endpoint)?;
    let start = at_start(site, plan, &mut swarm).await?;
    let pids = site.pids();
    let outside = Outside::watch()?;
    let mut open = 0;
    for sessions in plan.growth.iter().copied() {
        ensure!(sessions > open, "sessions become more");
        swarm.open(sessions - open).await?;
        open = sessions;
        swarm.once(FIRST_BYTES).await?;
        sleep(plan.settle).await;
        let cell = format!("growth: {sessions} sessions");
        book.add(&cell, MEMORY, site.kind, (memory_kib(&pids)? - start) / sessions as f64);
        let paced = |seconds| Order::Paced {
            bytes: plan.latency_bytes,
            per_second: plan.latency_per_second,
            seconds,
            unmeasured_seconds: 0.0,
        };
        // Each session once before anything is counted: they have been silent, and pulsegate is about to probe them.
        swarm.paced(paced(sessions as f64 / f64::from(plan.latency_per_second) + AWAKE_SECONDS)).await?;
        let (probes, before) = (probes_sent(site).await?, Used::by(&pids)?);
        let pace = swarm.paced(paced(plan.growth_seconds)).await?;
        let used = Used::by(&pids)?.since(&before);
        book.add(&cell, MESSAGE_CPU, site.kind, used * 1e6 / pace.messages as f64);
        if let (Some(before), Some(after)) = (probes, probes_sent(site).await?) {
            book.add(&cell, PROBES, site.kind, after - before);
        }
    }
    book.add_outside(site.kind, outside.percent()?);
    swarm.leave().await
}
