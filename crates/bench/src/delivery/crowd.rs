//! What many sessions take, and how they come back when all lines are cut at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Site;
use super::raw::{Mode, Raw};
use crate::clock::Moment;
use crate::proxies::memory_kib;
use crate::stats::{Summary, quantile};

/// How long the allocator may take to give back what it holds.
const SETTLE: Duration = Duration::from_secs(4);
/// All must be back by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sessions that are not cut.
const LIVING: usize = 50;
/// Messages of each session before the cut, and after it.
const MESSAGES: u64 = 5;

/// The lowest priority; on Linux it is a thread's own.
const NICE_MAX: i32 = 19;

/// What goes on.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Opening,
    Quiet,
    Cut(Moment),
}

/// KiB of the gateway for each session.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) idle_kib: f64,
    pub(super) parked_kib: Option<f64>,
}

/// Seconds from the cut.
#[derive(Debug, Serialize)]
pub(super) struct Return {
    pub(super) sessions: usize,
    pub(super) half: f64,
    pub(super) p99: f64,
    pub(super) all: f64,
    /// Round trips of the living.
    pub(super) living_before: Summary,
    pub(super) living_during: Summary,
}

/// Memory of sessions that say nothing, and of those whose clients have gone.
///
/// # Errors
/// One can't be opened.
pub(super) async fn memory(site: &Site, mode: Mode, sessions: usize) -> Result<Memory> {
    let gateway = [site.gateway.pid()];
    // The first few sessions make what all others share.
    let mut clients = open(site, mode, sessions / 10).await?;
    sleep(SETTLE).await;
    let (few, before) = (clients.len(), memory_kib(&gateway)?);
    let mut more = open(site, mode, sessions).await?;
    clients.append(&mut more);
    let (over, is_over) = watch::channel(false);
    let mut attending = JoinSet::new();
    for mut client in clients {
        let mut is_over = is_over.clone();
        attending.spawn(async move {
            tokio::select! {
                ended = client.attend() => ended,
                _ = is_over.wait_for(|over| *over) => Ok(()),
            }
        });
    }
    sleep(SETTLE).await;
    let idle_kib = (memory_kib(&gateway)? - before) / sessions as f64;
    over.send_replace(true);
    while let Some(done) = attending.join_next().await {
        done??;
    }
    if mode == Mode::Plain {
        return Ok(Memory { idle_kib, parked_kib: None });
    }
    sleep(SETTLE).await;
    let parked = site.gateway.detached().await?;
    ensure!(parked == (sessions + few) as u64, "{parked} of {} are parked", sessions + few);
    let parked_kib = (memory_kib(&gateway)? - before + few as f64 * idle_kib) / parked as f64;
    Ok(Memory { idle_kib, parked_kib: Some(parked_kib) })
}

async fn open(site: &Site, mode: Mode, count: usize) -> Result<Vec<Raw>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Raw::open(site.address, mode).await?);
    }
    Ok(clients)
}

/// All lines but a few are cut at once.
///
/// # Errors
/// A session is lost, or a message, or one comes twice or out of order.
pub(super) async fn come_back(site: &Site, sessions: usize) -> Result<Return> {
    let ready = Arc::new(Barrier::new(sessions + 1));
    let (phase, phases) = watch::channel(Phase::Opening);
    let mut clients = JoinSet::new();
    let elsewhere = elsewhere()?;
    for _ in 0..sessions {
        clients.spawn_on(talk(site.url(), Arc::clone(&ready), phases.clone()), elsewhere.handle());
    }
    let living = tokio::task::spawn_blocking({
        let (address, phases) = (site.address, phases.clone());
        move || all_living(address, &phases)
    });
    timeout(PATIENCE, ready.wait()).await.context("not all sessions are open")?;
    // The living are alone with the gateway for a while.
    phase.send_replace(Phase::Quiet);
    sleep(SETTLE).await;
    phase.send_replace(Phase::Cut(Moment::now()));
    let mut back = Vec::new();
    while let Some(done) = timeout(PATIENCE, clients.join_next()).await.context("not all are back")? {
        back.push(done??);
    }
    drop(phase);
    elsewhere.shutdown_background();
    let (before, during) = living.await??;
    back.sort_by(f64::total_cmp);
    Ok(Return {
        sessions,
        half: quantile(&back, 0.5),
        p99: quantile(&back, 0.99),
        all: quantile(&back, 1.0),
        living_before: Summary::of(&before).context("the living said nothing")?,
        living_during: Summary::of(&during).context("the living said nothing meanwhile")?,
    })
}

/// A runtime for thousands of clients, which in truth are on other machines: its threads leave the processors to the
/// gateway, its app and the living whenever these want them.
fn elsewhere() -> Result<Runtime> {
    let yields = || rustix::process::nice(NICE_MAX).map(drop).unwrap_or_default();
    Ok(Builder::new_multi_thread().worker_threads(2).on_thread_start(yields).enable_all().build()?)
}

/// One of those that are cut; returns when it was back, in seconds from the cut.
async fn talk(url: String, ready: Arc<Barrier>, mut phases: watch::Receiver<Phase>) -> Result<f64> {
    let mut client = Client::connect(&url, ClientConfig::default())?;
    let sender = client.sender();
    for number in 1..=MESSAGES {
        sender.send(Payload::Text(number.to_string())).await?;
    }
    expect(&mut client, 1..=MESSAGES).await?;
    ready.wait().await;
    let Phase::Cut(cut_at) = *phases.wait_for(|phase| matches!(phase, Phase::Cut(_))).await? else {
        anyhow::bail!("nothing was cut");
    };
    client.drop_connection().await;
    for number in MESSAGES + 1..=2 * MESSAGES {
        sender.send(Payload::Text(number.to_string())).await?;
    }
    loop {
        match client.next().await.context("the client ended")? {
            Event::Live { resumed: true } => break,
            Event::Detached => {}
            event @ (Event::Live { .. }
            | Event::Reset { .. }
            | Event::Message { .. }
            | Event::Unsupported
            | Event::Closed { .. }) => anyhow::bail!("{event:?}"),
        }
    }
    let back_at = Moment::now().seconds_since(cut_at);
    expect(&mut client, MESSAGES + 1..=2 * MESSAGES).await?;
    Ok(back_at)
}

/// The echoes of these numbers come, in order and once.
async fn expect(client: &mut Client, numbers: std::ops::RangeInclusive<u64>) -> Result<()> {
    for number in numbers {
        loop {
            match client.next().await.context("the client ended")? {
                Event::Live { .. } | Event::Detached => {}
                Event::Message { payload, .. } => {
                    ensure!(*payload == *number.to_string().as_bytes(), "{number} was expected");
                    break;
                }
                event @ (Event::Reset { .. } | Event::Unsupported | Event::Closed { .. }) => {
                    anyhow::bail!("{event:?}")
                }
            }
        }
    }
    Ok(())
}

/// Those that are not cut, in a thread of their own: they are not to wait for the thousands beside them.
fn all_living(address: SocketAddr, phases: &watch::Receiver<Phase>) -> Result<(Vec<f64>, Vec<f64>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut living = JoinSet::new();
        for _ in 0..LIVING {
            let client = Raw::open(address, Mode::V1).await?;
            living.spawn(live(client, phases.clone()));
        }
        let (mut before, mut during) = (Vec::new(), Vec::new());
        while let Some(done) = living.join_next().await {
            let (quiet, busy) = done??;
            before.extend(quiet);
            during.extend(busy);
        }
        Ok((before, during))
    })
}

/// One that is not cut: its round trips before the cut, and from there on until all are back.
async fn live(mut client: Raw, phases: watch::Receiver<Phase>) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut before, mut during) = (Vec::new(), Vec::new());
    while phases.has_changed().is_ok() {
        let start = Moment::now();
        client.round(1, &[b'x'; 32]).await?;
        let time = Moment::now().seconds_since(start);
        match *phases.borrow() {
            Phase::Opening => {}
            Phase::Quiet => before.push(time),
            Phase::Cut(_) => during.push(time),
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok((before, during))
}
