//! The cells with a few busy connections: throughput, latency, accept.

use anyhow::Result;
use tokio::time::sleep;

use super::book::{Better, Book, Measure};
use super::load::Order;
use super::plan::{Plan, size};
use super::process::{Outside, Used};
use super::servers::{Kind, Server};
use super::swarm::{Endpoint, Swarm};

const ECHOES: Measure = Measure { name: "echoes", unit: "per s", better: Better::Higher };
const ECHO_CPU: Measure = Measure { name: "CPU of the proxy per echo", unit: "µs", better: Better::Lower };
const P50: Measure = Measure { name: "p50", unit: "µs", better: Better::Lower };
const P99: Measure = Measure { name: "p99", unit: "µs", better: Better::Lower };
const LATE: Measure =
    Measure { name: "of it the load's own lateness, p50", unit: "µs", better: Better::Neither };
const ROUNDS: Measure = Measure { name: "sessions", unit: "per s", better: Better::Higher };
const ROUND_CPU: Measure =
    Measure { name: "CPU of the proxy per session", unit: "µs", better: Better::Lower };

/// Somebody to be measured.
pub(crate) struct Site {
    pub(crate) kind: Kind,
    pub(crate) endpoint: Endpoint,
    /// `None` where nothing but the address is known.
    pub(crate) server: Option<Server>,
}

impl Site {
    pub(crate) fn new(kind: Kind, server: Server) -> Site {
        Site { kind, endpoint: server.address.into(), server: Some(server) }
    }

    /// The processes whose cost is counted.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.server.as_ref().map(Server::pids).unwrap_or_default()
    }
}

/// Counts what a load that is already going on achieves in the plan's window.
async fn count(site: &Site, plan: &Plan, swarm: &mut Swarm, book: &mut Book) -> Result<(f64, f64)> {
    sleep(plan.warm_up).await;
    let pids = site.pids();
    let outside = Outside::watch()?;
    let (done_before, start) = swarm.count().await?;
    let before = Used::by(&pids)?;
    sleep(plan.window).await;
    let used = Used::by(&pids)?.since(&before);
    let (done, end) = swarm.count().await?;
    book.add_outside(site.kind, outside.percent()?);
    let done = (done - done_before) as f64;
    Ok((done / (end - start), used * 1e6 / done))
}

/// Every connection always has so many messages on their way.
pub(crate) async fn echo(
    site: &Site,
    plan: &Plan,
    (bytes, in_flight): (usize, usize),
    book: &mut Book,
) -> Result<()> {
    let mut swarm = Swarm::start(&site.endpoint)?;
    swarm.open(plan.connections).await?;
    swarm.begin(Order::Echo { bytes, in_flight }).await?;
    let (per_second, cpu) = count(site, plan, &mut swarm, book).await?;
    swarm.halt().await?;
    swarm.leave().await?;
    let cell = format!("echo, {}, {in_flight} in flight", size(bytes));
    book.add(&cell, ECHOES, site.kind, per_second);
    if site.kind.is_proxy() {
        book.add(&cell, ECHO_CPU, site.kind, cpu);
    }
    Ok(())
}

/// Latency at a rate that all can keep.
pub(crate) async fn latency(site: &Site, plan: &Plan, book: &mut Book) -> Result<()> {
    let mut swarm = Swarm::start(&site.endpoint)?;
    swarm.open(plan.connections).await?;
    let warm_up = plan.warm_up.as_secs_f64();
    let order = Order::Paced {
        bytes: plan.latency_bytes,
        per_second: plan.latency_per_second,
        seconds: warm_up + plan.latency_seconds,
        unmeasured_seconds: warm_up,
    };
    let pids = site.pids();
    let outside = Outside::watch()?;
    let before = Used::by(&pids)?;
    let pace = swarm.paced(order).await?;
    let used = Used::by(&pids)?.since(&before);
    book.add_outside(site.kind, outside.percent()?);
    swarm.leave().await?;
    let cell = format!("latency, {}, {} messages per s", size(plan.latency_bytes), plan.latency_per_second);
    for (measure, value) in [(P50, pace.p50), (P99, pace.p99), (LATE, pace.late_p50)] {
        book.add(&cell, measure, site.kind, value);
    }
    if site.kind.is_proxy() {
        let sent = f64::from(plan.latency_per_second) * (warm_up + plan.latency_seconds);
        book.add(&cell, ECHO_CPU, site.kind, used * 1e6 / sent);
    }
    Ok(())
}

/// Sessions that come, say one thing, and go.
pub(crate) async fn churn(site: &Site, plan: &Plan, book: &mut Book) -> Result<()> {
    let mut swarm = Swarm::start(&site.endpoint)?;
    swarm.begin(Order::Churn { at_once: plan.churn_at_once }).await?;
    let (per_second, cpu) = count(site, plan, &mut swarm, book).await?;
    swarm.halt().await?;
    let cell = format!("accept: open, one echo, close; {} at a time", plan.churn_at_once);
    book.add(&cell, ROUNDS, site.kind, per_second);
    if site.kind.is_proxy() {
        book.add(&cell, ROUND_CPU, site.kind, cpu);
    }
    Ok(())
}
