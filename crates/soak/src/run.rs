//! A run from its beginning to its verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pulsegate_chaos::FaultProxy;
use pulsegate_client::UrlError;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::faults::{Schedule, Tally, line, trouble};
use crate::gateway::{Gateway, Holdings};
use crate::history::{History, Way};
use crate::plain::{Plain, Unmodified};
use crate::receipts::ReceiptTotals;
use crate::report::Report;
use crate::world::World;
use crate::{app, client, clock};

/// Limit for all clients to be greeted, without faults.
const GREETED_MAX: Duration = Duration::from_secs(60);

/// Limit for everything to arrive once the lines are healed: dials that hang, the longest back-off, and what waits.
const SETTLED_MAX: Duration = Duration::from_secs(120);

/// Limit for sessions to end when their clients have said goodbye.
const ENDED_MAX: Duration = Duration::from_secs(60);

/// How often it is looked at what goes on.
const LOOK: Duration = Duration::from_millis(100);

const TELL_EVERY: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The gateway's binary.
    pub binary: PathBuf,
    /// Clients that speak `pulsegate.v1`.
    pub clients: usize,
    /// The most messages that each says and gets.
    pub messages: u64,
    /// The longest that messages are sent.
    pub time: Duration,
    /// How long nothing may come once everything has.
    pub quiet: Duration,
    /// All that is random comes from it.
    pub seed: u64,
    /// Whether anything happens to the lines. Without, nobody may lose a connection.
    pub faults: bool,
    /// Clients that know nothing of the protocol, beside the others.
    pub unmodified: Option<Unmodified>,
}

/// All that runs.
struct Scene {
    gateway: Gateway,
    world: Arc<World>,
    serving: JoinHandle<()>,
    lines: Vec<Arc<FaultProxy>>,
    talks: JoinSet<Result<(), UrlError>>,
    plain: Option<Plain>,
}

/// Runs a plan; `tell` is told now and then how far it is.
///
/// # Errors
/// The run could not be brought to its end. What was found wrong is in the report.
pub async fn run(plan: &Plan, tell: impl Fn(&str)) -> Result<Report> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let gateway = Gateway::start(&plan.binary, listener.local_addr()?).await?;
    let begin = gateway.holdings()?;
    let mut scene = Scene::open(plan, gateway, listener).await?;
    let start = clock();
    let faults = scene.talk(plan, start, &tell).await;
    let (spoke, busy) = (start.elapsed(), scene.gateway.holdings()?);
    let healed = clock();
    let settled = until(SETTLED_MAX, || scene.world.history.is_settled()).await.is_ok();
    let settling = healed.elapsed();
    tell(&progress(&scene.world.history, start));
    sleep(plan.quiet).await;
    let mut found = Vec::new();
    if !settled {
        found.push(format!("not all had come {} s after the lines were healed", SETTLED_MAX.as_secs()));
    }
    let listed = scene.listed().await?;
    scene.world.history.finish(&listed, clock());
    let history = &scene.world.history;
    let (totals, spreads) = (history.totals(), Way::BOTH.map(|way| history.spread(way)));
    if !plan.faults && totals.resumes > 0 {
        found.push(format!("{} connections were lost on good lines", totals.resumes));
    }
    let metrics = Report::metrics(&scene.gateway).await?;
    let plain = scene.judge_plain(&mut found).await?;
    let end = scene.leave(begin, &mut found).await?;
    let log = scene.gateway.log();
    if let Err(error) = scene.gateway.stop().await {
        found.push(format!("{error:#}"));
    }
    scene.serving.abort();
    let history = &scene.world.history;
    let complaints = history.complaint_count() + found.len() as u64;
    let of_history = history.complaints();
    let found = of_history.iter().map(ToString::to_string).chain(found).collect();
    let (plan, holdings) = (plan.clone(), [begin, busy, end]);
    Ok(Report {
        plan,
        spoke,
        settling,
        totals,
        plain,
        spreads,
        faults,
        metrics,
        holdings,
        complaints,
        found,
        log,
    })
}

impl Scene {
    /// Brings all clients together, on good lines.
    async fn open(plan: &Plan, gateway: Gateway, listener: TcpListener) -> Result<Scene> {
        let world = Arc::new(World::new(plan.clients, plan.messages, clock()));
        let serving = tokio::spawn(app::serve(listener, Arc::clone(&world)));
        let (mut lines, mut talks) = (Vec::new(), JoinSet::new());
        for number in 0..plan.clients {
            let line = Arc::new(line(gateway.data, plan.seed ^ number as u64).await?);
            let url = format!("ws://{}/?who=v1-{number}", line.local_addr());
            talks.spawn(client::talk(number, url, Arc::clone(&world)));
            lines.push(line);
        }
        let mut plain = match &plan.unmodified {
            Some(unmodified) => Some(Plain::start(unmodified, &gateway, plan.seed).await?),
            None => None,
        };
        let greeted = || world.live.load(Relaxed) == plan.clients;
        until(GREETED_MAX, greeted).await.context("not all clients were greeted on good lines")?;
        if let Some(plain) = &mut plain {
            all_listed(&gateway, plan.clients + plain.lines.len()).await?;
            plain.send(gateway.control, &world.quiet);
            lines.extend(plain.lines.iter().cloned());
        }
        Ok(Scene { gateway, world, serving, lines, talks, plain })
    }

    /// Lets them talk, with what happens to the lines, and heals these; returns how often which fault was set.
    async fn talk(&self, plan: &Plan, start: Instant, tell: &impl Fn(&str)) -> Vec<(&'static str, u64)> {
        let (tally, calm) = (Arc::new(Tally::default()), CancellationToken::new());
        let troubles = match plan.faults {
            true => start_trouble(plan.seed, &self.lines, &tally, &calm),
            false => JoinSet::new(),
        };
        let history = &self.world.history;
        let (deadline, mut told_at) = (start + plan.time, start);
        while clock() < deadline && !is_said(history, plan) && history.complaint_count() == 0 {
            sleep(LOOK).await;
            if told_at.elapsed() >= TELL_EVERY {
                told_at = clock();
                tell(&progress(history, start));
            }
        }
        self.world.quiet.cancel();
        calm.cancel();
        troubles.join_all().await;
        tally.counts()
    }

    /// Returns the clients of v1 whose sessions the registry lists.
    async fn listed(&self) -> Result<Vec<usize>> {
        let listed = self.gateway.listed().await?;
        let of_v1 = listed.iter().filter(|who| !who.starts_with("plain-"));
        Ok(of_v1.map(|who| client_of(who).unwrap_or(usize::MAX)).collect())
    }

    /// Ends the unmodified clients and judges what was told of messages to them.
    async fn judge_plain(&mut self, found: &mut Vec<String>) -> Result<Option<ReceiptTotals>> {
        let Some(plain) = self.plain.take() else { return Ok(None) };
        let receipts = Arc::clone(&plain.receipts);
        found.extend(plain.finish().await?);
        let totals = receipts.totals();
        if totals.received == 0 {
            found.push("no message to an unmodified client was told as received".to_owned());
        }
        Ok(Some(totals))
    }

    /// Lets the clients say goodbye, and waits until nothing is left of them; returns what the gateway holds then.
    async fn leave(&mut self, begin: Holdings, found: &mut Vec<String>) -> Result<Holdings> {
        self.world.over.cancel();
        let (ended, left) = end(&self.gateway, &mut self.talks).await?;
        if !ended {
            found.push(format!("{left} sessions are left after everybody has gone"));
        }
        let descriptors_max = begin.descriptors + begin.descriptors / 10;
        let end = until_given_back(&self.gateway, descriptors_max).await?;
        if end.descriptors > descriptors_max {
            found.push(format!("{} descriptors at first, {} at last", begin.descriptors, end.descriptors));
        }
        Ok(end)
    }
}

/// Waits until the registry lists so many sessions.
async fn all_listed(gateway: &Gateway, sessions: usize) -> Result<()> {
    let looking = async {
        while gateway.listed().await?.len() != sessions {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    timeout(GREETED_MAX, looking).await.context("not all clients have connected on good lines")?
}

fn start_trouble(
    seed: u64,
    lines: &[Arc<FaultProxy>],
    tally: &Arc<Tally>,
    calm: &CancellationToken,
) -> JoinSet<()> {
    let mut troubles = JoinSet::new();
    for (number, line) in lines.iter().enumerate() {
        let (line, tally, calm) = (Arc::clone(line), Arc::clone(tally), calm.clone());
        let schedule = Schedule::new(seed, number);
        troubles.spawn(async move { trouble(&line, schedule, &tally, &calm).await });
    }
    troubles
}

/// Waits for the clients' goodbyes and for the sessions' end; returns whether all came about, and what is left.
async fn end(gateway: &Gateway, talks: &mut JoinSet<Result<(), UrlError>>) -> Result<(bool, usize)> {
    let goodbyes = async {
        while let Some(talk) = talks.join_next().await {
            talk??;
        }
        anyhow::Ok(())
    };
    timeout(ENDED_MAX, goodbyes).await.context("a client does not end")??;
    let start = clock();
    loop {
        let left = gateway.listed().await?.len();
        if left == 0 || start.elapsed() > ENDED_MAX {
            return Ok((left == 0, left));
        }
        sleep(LOOK).await;
    }
}

/// Waits until no more than so many descriptors are open: peers that were given up are watched for a while.
async fn until_given_back(gateway: &Gateway, descriptors_max: usize) -> Result<Holdings> {
    let start = clock();
    loop {
        let held = gateway.holdings()?;
        if held.descriptors <= descriptors_max || start.elapsed() > ENDED_MAX {
            return Ok(held);
        }
        sleep(LOOK).await;
    }
}

/// Whether everybody has said and got all there is.
fn is_said(history: &History, plan: &Plan) -> bool {
    let all = plan.messages.saturating_mul(plan.clients as u64);
    history.totals().sent == [all, all] && history.is_settled()
}

fn client_of(who: &str) -> Option<usize> {
    who.strip_prefix("v1-")?.parse().ok()
}

fn progress(history: &History, start: Instant) -> String {
    let totals = history.totals();
    format!(
        "{:4.0} s: {} to the app, {} to clients, {} resumes, {} complaints",
        start.elapsed().as_secs_f64(),
        totals.arrived[0],
        totals.arrived[1],
        totals.resumes,
        history.complaint_count(),
    )
}

/// Looks until it is so.
pub(crate) async fn until(limit: Duration, is_so: impl Fn() -> bool) -> Result<()> {
    let looking = async {
        while !is_so() {
            sleep(LOOK).await;
        }
    };
    timeout(limit, looking).await.with_context(|| format!("not within {} s", limit.as_secs()))
}
