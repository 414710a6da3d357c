//! `bench proxies`: pulsegate beside the proxies that people would use instead, in front of the same app.
//!
//! Clients, app and proxies are processes of their own, so that each one's processor time can be told apart.

mod book;
mod cells;
mod copy;
mod crowd;
mod echo;
mod floor;
mod load;
mod plan;
mod poller;
mod process;
mod servers;
mod swarm;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::ToSocketAddrs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::book::{Book, Figure};
use self::cells::Site;
use self::plan::Plan;
use self::servers::{App, Kind, Programs, Server};
use self::swarm::Endpoint;
use crate::detection::in_runtime;
use crate::machine::{Disturbance, Setting, Watch};
use crate::{machine, report};

pub(crate) use self::copy::{Options as CopyOptions, run as run_copy};
pub(crate) use self::echo::run as run_echo;
pub(crate) use self::load::{Options as LoadOptions, run as run_load};
pub(crate) use self::process::memory_kib;
pub(crate) use self::servers::App as EchoApp;
pub(crate) use self::wire::push_masked;

/// Descriptors that a process needs beyond two for each session.
const OPEN_FILES_SPARE: u64 = 200;
const RECORD: &str = "docs/performance.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often everything is measured, one proxy after the other each time; medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Everything once and small, in less than a minute: shows that the tool works and no more.
    #[arg(long)]
    brief: bool,
    /// Measures throughput and latency of any echo endpoint that runs already, and nothing else.
    #[arg(long, value_name = "WS_URL")]
    url: Option<String>,
    /// Only the cells whose group is named.
    #[arg(long, value_enum)]
    only: Vec<Group>,
    /// Only these, in any case in the usual order.
    #[arg(long, value_enum)]
    contender: Vec<Kind>,
    /// Another build of pulsegate that is measured beside this one: before and after a change.
    #[arg(long, value_name = "PROGRAM")]
    baseline: Option<PathBuf>,
    /// Where the figures go [default: docs/performance.json, but nowhere if only a part is measured].
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Cells that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    Echo,
    Latency,
    Accept,
    Memory,
    Growth,
}

/// What is written down.
#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    setting: Setting,
    versions: BTreeMap<Kind, String>,
    missing: Vec<Kind>,
    rounds: usize,
    /// Median and most of the machine's time that other programs had meanwhile, in percent.
    outside_percent: BTreeMap<Kind, (f64, f64)>,
    /// Of the whole run: the measured load is part of it.
    disturbance: Disturbance,
    figures: &'a [Figure],
}

/// Measures, tells, and writes; false when a cell stayed empty.
///
/// # Errors
/// Something that is needed is missing.
pub(crate) fn run(options: Options) -> Result<bool> {
    ensure!(options.rounds > 0, "at least one round");
    let plan = if options.brief { Plan::brief() } else { Plan::full(options.rounds) };
    let most = options.sessions_max(&plan);
    machine::raise_open_files(most as u64 * 2 + OPEN_FILES_SPARE)?;
    in_runtime(measure(&options, &plan))
}

async fn measure(options: &Options, plan: &Plan) -> Result<bool> {
    let watch = Watch::start();
    let mut book = Book::default();
    let (mut versions, mut missing) = (BTreeMap::new(), Vec::new());
    let mut kinds = vec![Kind::Url];
    if let Some(url) = &options.url {
        let site = Site { kind: Kind::Url, endpoint: endpoint(url)?, server: None };
        for round in 0..plan.rounds {
            busy_cells(options, plan, round, std::slice::from_ref(&site), &mut book).await;
        }
    } else {
        let programs = Programs::find(options.baseline.clone())?;
        let wanted: Vec<_> = Kind::ALL.into_iter().filter(|kind| options.wants(*kind)).collect();
        missing = wanted.iter().copied().filter(|kind| !programs.has(*kind)).collect();
        for kind in &missing {
            report::progress(&format!("{0} is not installed: no figures of {0}", kind.as_str()));
        }
        kinds = wanted.into_iter().filter(|kind| programs.has(*kind)).collect();
        versions = kinds.iter().filter_map(|kind| Some((*kind, programs.version(*kind)?))).collect();
        all_cells(options, plan, &kinds, &programs, &mut book).await?;
    }
    let record = Record {
        setting: Setting::here()?,
        versions,
        missing,
        rounds: plan.rounds,
        outside_percent: book.outside(),
        disturbance: watch.end(),
        figures: book.figures(),
    };
    tell(options, &book, &kinds, &record)
}

fn tell(options: &Options, book: &Book, kinds: &[Kind], record: &Record<'_>) -> Result<bool> {
    report::result(&book.table(kinds));
    for (kind, (median, most)) in book.outside() {
        report::progress(&format!(
            "other programs had {median} % of the machine (median; most {most} %) while {} was measured",
            kind.as_str()
        ));
    }
    let path = options.json.clone().or_else(|| (!options.is_partial()).then(|| RECORD.into()));
    if let Some(path) = path {
        fs::write(&path, serde_json::to_string_pretty(record)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failures = book.failures();
    for failure in &failures {
        report::complain(failure);
    }
    Ok(failures.is_empty() && !book.figures().is_empty())
}

async fn all_cells(
    options: &Options,
    plan: &Plan,
    kinds: &[Kind],
    programs: &Programs,
    book: &mut Book,
) -> Result<()> {
    let app = App::start()?;
    let mut sites = Vec::new();
    for kind in kinds {
        sites.push(Site::new(*kind, Server::start(*kind, programs, app.address).await?));
    }
    for round in 0..plan.rounds {
        busy_cells(options, plan, round, &sites, book).await;
        for group in [Group::Memory, Group::Growth].into_iter().filter(|group| options.has(*group)) {
            if group == Group::Memory && kinds.contains(&Kind::Direct) {
                let outcome = crowd::floor(plan, book);
                note(book, Kind::Direct, "floor of a probe", outcome);
            }
            for kind in kinds.iter().copied().filter(|kind| kind.is_proxy()) {
                progress(round, kind, &format!("{group:?}"));
                let site = Site::new(kind, Server::start(kind, programs, app.address).await?);
                let done = if group == Group::Memory {
                    crowd::idle(&site, plan, book).await
                } else {
                    crowd::growth(&site, plan, book).await
                };
                note(book, kind, &format!("{group:?}"), done);
            }
        }
    }
    Ok(())
}

/// The cells for which the proxies go on running, cell by cell and proxy by proxy.
async fn busy_cells(options: &Options, plan: &Plan, round: usize, sites: &[Site], book: &mut Book) {
    if options.has(Group::Echo) {
        for cell in plan.echoes.iter().copied() {
            for site in sites {
                let what = format!("echo of {}, {} in flight", plan::size(cell.0), cell.1);
                progress(round, site.kind, &what);
                let done = cells::echo(site, plan, cell, book).await;
                note(book, site.kind, &what, done);
            }
        }
    }
    if options.has(Group::Latency) {
        for site in sites {
            progress(round, site.kind, "latency");
            let done = cells::latency(site, plan, book).await;
            note(book, site.kind, "latency", done);
        }
    }
    if options.has(Group::Accept) && options.url.is_none() {
        for site in sites {
            progress(round, site.kind, "accept");
            let done = cells::churn(site, plan, book).await;
            note(book, site.kind, "accept", done);
        }
    }
}

impl Options {
    fn has(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// The most sessions that any of the wanted cells has.
    fn sessions_max(&self, plan: &Plan) -> usize {
        let crowds = [
            (Group::Memory, plan.idle_sessions),
            (Group::Growth, plan.growth.iter().copied().max().unwrap_or(0)),
        ];
        let wanted = crowds.into_iter().filter(|(group, _)| self.url.is_none() && self.has(*group));
        wanted.map(|(_, sessions)| sessions).chain([plan.connections]).max().unwrap_or(0)
    }

    fn wants(&self, kind: Kind) -> bool {
        match &self.contender[..] {
            [] => kind != Kind::Baseline || self.baseline.is_some(),
            wanted => wanted.contains(&kind),
        }
    }

    /// Whether the figures are not those of the record in the repo.
    fn is_partial(&self) -> bool {
        self.brief
            || self.url.is_some()
            || self.baseline.is_some()
            || !(self.only.is_empty() && self.contender.is_empty())
    }
}

fn progress(round: usize, kind: Kind, what: &str) {
    report::progress(&format!("round {}, {}: {what}", round + 1, kind.as_str()));
}

/// One cell that fails does not cost the others.
fn note(book: &mut Book, kind: Kind, what: &str, done: Result<()>) {
    if let Err(error) = done {
        let told = format!("{}, {what}: {error:#}", kind.as_str());
        report::progress(&told);
        book.fail(told);
    }
}

/// Takes a `ws://` address apart.
fn endpoint(url: &str) -> Result<Endpoint> {
    let rest = url.strip_prefix("ws://").context("only ws:// can be measured")?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let with_port = if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port
        .to_socket_addrs()
        .with_context(|| format!("no address of {host}"))?
        .next()
        .with_context(|| format!("no address of {host}"))?;
    Ok(Endpoint { address, host: host.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_taken_apart() {
        let told = endpoint("ws://127.0.0.1:9000/echo/a?b=c").unwrap();
        assert_eq!((told.address.port(), &*told.host, &*told.path), (9000, "127.0.0.1:9000", "/echo/a?b=c"));
        let told = endpoint("ws://127.0.0.1").unwrap();
        assert_eq!((told.address.port(), &*told.path), (80, "/"));
        assert!(endpoint("wss://127.0.0.1/").is_err());
    }
}
