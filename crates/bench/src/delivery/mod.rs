//! `bench delivery`: what it costs to know that a message arrived, and to come back.

mod busy;
mod bytes;
mod crowd;
mod raw;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::bytes::{Stream, Way};
use self::raw::Mode;
use crate::detection::in_runtime;
use crate::gateway::{Gateway, binary};
use crate::machine::{self, Disturbance, Setting, Watch};
use crate::plan::Profile;
use crate::proxies::EchoApp;
use crate::report;
use crate::stats::median;

/// Bytes that others put around a message of 32 bytes, its acknowledgement left out, as computed from their formats.
const COMPUTED: [(&str, usize); 4] = [
    ("MQTT 5, QoS 1", 10),
    ("SignalR, MessagePack", 11),
    ("XEP-0198", 71),
    ("Azure Web PubSub, reliable JSON", 80),
];

const RECORD: &str = "docs/delivery.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often throughput and latency are measured, in turns; medians are told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Everything small and short: shows that the tool works and no more.
    #[arg(long)]
    brief: bool,
    /// Only the cells whose group is named.
    #[arg(long, value_enum)]
    only: Vec<Group>,
    /// Where the figures go [default: docs/delivery.json, but nowhere if only a part is measured].
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Cells that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    Bytes,
    Throughput,
    Latency,
    Memory,
    Return,
}

/// How much of everything.
struct Plan {
    /// Messages a second, and how many.
    streams: Vec<(u32, u32)>,
    span: Duration,
    rounds: usize,
    round_trips: usize,
    idle: usize,
    cut: usize,
}

/// A gateway in front of an app that echoes.
struct Site {
    gateway: Gateway,
    address: SocketAddr,
    _app: EchoApp,
}

#[derive(Serialize)]
struct Record {
    #[serde(flatten)]
    setting: Setting,
    disturbance: Disturbance,
    bytes: Vec<Bytes>,
    throughput: Vec<Pair>,
    /// Medians of all rounds, in seconds.
    latency: Vec<(&'static str, busy::Latency)>,
    /// Of plain sessions, and of v1.
    memory: Option<[crowd::Memory; 2]>,
    come_back: Option<crowd::Return>,
}

#[derive(Serialize)]
struct Bytes {
    stream: Stream,
    bare: usize,
    pulsegate: f64,
    socket_io: Option<f64>,
}

/// Medians of all rounds.
#[derive(Serialize)]
struct Pair {
    bytes: usize,
    in_flight: u64,
    plain: busy::Throughput,
    v1: busy::Throughput,
}

/// Measures, tells, and writes.
///
/// # Errors
/// Something that is needed is missing, or a message was lost.
pub(crate) fn run(options: Options) -> Result<bool> {
    ensure!(options.rounds > 0, "at least one round");
    let plan = if options.brief { Plan::brief() } else { Plan::full(options.rounds) };
    machine::raise_open_files(plan.idle.max(plan.cut) as u64 * 2 + 1_000)?;
    in_runtime(measure(options, plan))
}

async fn measure(options: Options, plan: Plan) -> Result<bool> {
    let watch = Watch::start();
    let has = |group: Group| options.only.is_empty() || options.only.contains(&group);
    let bytes = if has(Group::Bytes) { all_bytes(&plan).await? } else { Vec::new() };
    let throughput = if has(Group::Throughput) { all_throughput(&plan).await? } else { Vec::new() };
    let latency = if has(Group::Latency) { all_latency(&plan).await? } else { Vec::new() };
    let memory = if has(Group::Memory) { Some(all_memory(&plan).await?) } else { None };
    let come_back = if has(Group::Return) { Some(come_back(&plan).await?) } else { None };
    let (setting, disturbance) = (Setting::here()?, watch.end());
    let record = Record { setting, disturbance, bytes, throughput, latency, memory, come_back };
    report::result(&table(&record));
    if let Some(path) =
        options.json.or_else(|| (!options.brief && options.only.is_empty()).then(|| RECORD.into()))
    {
        fs::write(&path, serde_json::to_string_pretty(&record)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}

async fn all_bytes(plan: &Plan) -> Result<Vec<Bytes>> {
    let program = binary()?;
    let has_socket_io = bytes::has_socket_io();
    if !has_socket_io {
        report::progress("Socket.IO is not installed (npm ci in tests/node): no figures of it");
    }
    let mut all = Vec::new();
    for stream in Stream::all(&plan.streams) {
        report::progress(&format!("bytes: {stream:?}"));
        let pulsegate = bytes::pulsegate(&program, stream).await?;
        let socket_io = if has_socket_io { Some(bytes::socket_io(stream).await?) } else { None };
        all.push(Bytes { stream, bare: stream.bare(), pulsegate, socket_io });
    }
    Ok(all)
}

async fn all_throughput(plan: &Plan) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for (bytes, in_flight) in [(32, 16), (1024, 16)] {
        let (mut plain, mut v1) = (Vec::new(), Vec::new());
        let site = Site::start().await?;
        for round in 1..=plan.rounds {
            report::progress(&format!("throughput, {bytes} bytes, round {round}"));
            plain.push(busy::throughput(&site, Mode::Plain, bytes, in_flight, plan.span).await?);
            v1.push(busy::throughput(&site, Mode::V1, bytes, in_flight, plan.span).await?);
        }
        let median = |all: &[busy::Throughput]| busy::Throughput {
            per_second: median(&all.iter().map(|it| it.per_second).collect::<Vec<_>>()),
            gateway_cpu_us: median(&all.iter().map(|it| it.gateway_cpu_us).collect::<Vec<_>>()),
        };
        pairs.push(Pair { bytes, in_flight, plain: median(&plain), v1: median(&v1) });
    }
    Ok(pairs)
}

async fn all_latency(plan: &Plan) -> Result<Vec<(&'static str, busy::Latency)>> {
    let mut all: [(&str, Vec<busy::Latency>); 4] = [
        ("echo through a plain session", Vec::new()),
        ("send and wait, received, plain client", Vec::new()),
        ("echo through a v1 session", Vec::new()),
        ("send and wait, handled, v1 client", Vec::new()),
    ];
    for round in 1..=plan.rounds {
        report::progress(&format!("latency, round {round}"));
        for (mode, place) in [(Mode::Plain, 0), (Mode::V1, 2)] {
            let site = Site::start().await?;
            all[place].1.push(busy::echo(&site, mode, plan.round_trips).await?);
            let site = Site::start().await?;
            all[place + 1].1.push(busy::send_and_wait(&site, mode, plan.round_trips).await?);
        }
    }
    let median = |all: Vec<busy::Latency>| busy::Latency {
        p50: median(&all.iter().map(|it| it.p50).collect::<Vec<_>>()),
        p99: median(&all.iter().map(|it| it.p99).collect::<Vec<_>>()),
    };
    Ok(all.into_iter().map(|(what, times)| (what, median(times))).collect())
}

async fn all_memory(plan: &Plan) -> Result<[crowd::Memory; 2]> {
    report::progress("memory of plain sessions");
    let plain = crowd::memory(&Site::start().await?, Mode::Plain, plan.idle).await?;
    report::progress("memory of v1 sessions");
    Ok([plain, crowd::memory(&Site::start().await?, Mode::V1, plan.idle).await?])
}

async fn come_back(plan: &Plan) -> Result<crowd::Return> {
    report::progress(&format!("{} sessions are cut at once", plan.cut));
    crowd::come_back(&Site::start().await?, plan.cut).await
}

fn table(record: &Record) -> String {
    let mut lines = if record.bytes.is_empty() { Vec::new() } else { bytes_table(&record.bytes) };
    for Pair { bytes, in_flight, plain, v1 } in &record.throughput {
        lines.push(format!(
            "{bytes} bytes, 64 connections, {in_flight} in flight: v1 {:.0}/s ({:.2} us of CPU), plain {:.0}/s ({:.2} us): {:.2} times",
            v1.per_second, v1.gateway_cpu_us, plain.per_second, plain.gateway_cpu_us, v1.per_second / plain.per_second
        ));
    }
    for (what, times) in &record.latency {
        lines.push(format!("{what}: p50 {:.0} us, p99 {:.0} us", times.p50 * 1e6, times.p99 * 1e6));
    }
    if let Some([plain, v1]) = &record.memory {
        let parked = v1.parked_kib.unwrap_or_default();
        lines.push(format!(
            "a session: plain {:.2} KiB, v1 {:.2}, parked {parked:.2}",
            plain.idle_kib, v1.idle_kib
        ));
    }
    if let Some(back) = &record.come_back {
        lines.push(format!(
            "{} sessions cut at once: half are back in {:.2} s, 99 % in {:.2}, all in {:.2}; round trips of the living: \
             p99 {:.1} ms before, {:.1} meanwhile",
            back.sessions, back.half, back.p99, back.all, back.living_before.p99 * 1e3, back.living_during.p99 * 1e3
        ));
    }
    lines.join("\n")
}

fn bytes_table(all: &[Bytes]) -> Vec<String> {
    let mut lines = vec![
        "| 32 bytes | messages a second | bare frame | pulsegate.v1 | Socket.IO, acks |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for Bytes { stream, bare, pulsegate, socket_io } in all {
        let way = if stream.way == Way::ToServer { "from the client" } else { "to the client" };
        let kind = if stream.text { "text" } else { "binary" };
        let theirs = socket_io.map_or("not installed".to_owned(), |bytes| format!("{bytes:.1}"));
        lines.push(format!("| {kind}, {way} | {} | {bare} | {pulsegate:.1} | {theirs} |", stream.per_second));
    }
    for (what, around) in COMPUTED {
        lines.push(format!("| {what}: computed, without its ack | any | 34 | | {} |", 34 + around));
    }
    lines
}

impl Plan {
    fn full(rounds: usize) -> Plan {
        Plan {
            streams: vec![(1, 20), (100, 1_000), (1_000, 5_000)],
            span: Duration::from_secs(8),
            rounds,
            round_trips: 2_000,
            idle: 5_000,
            cut: 5_000,
        }
    }

    fn brief() -> Plan {
        Plan {
            streams: vec![(100, 100)],
            span: Duration::from_millis(500),
            rounds: 1,
            round_trips: 50,
            idle: 100,
            cut: 100,
        }
    }
}

impl Site {
    async fn start() -> Result<Site> {
        let app = EchoApp::start()?;
        let gateway = Gateway::start(&binary()?, app.address, Profile::Balanced).await?;
        let address = gateway.address();
        Ok(Site { gateway, address, _app: app })
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }
}
