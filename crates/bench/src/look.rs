//! `bench look`: what it costs to look into the kernel while data is in flight.
//!
//! Three answers: the time of one look, the looks that a running gateway takes, and the processor time of a
//! session, busy and idle; the last for several gateways in turn, to compare them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::app::App;
use crate::clients::{Clients, Crowd};
use crate::clock::Moment;
use crate::detection::in_runtime;
use crate::gateway::{self, Gateway};
use crate::machine::{self, Watch};
use crate::plan::{Load, Profile};
use crate::report;
use crate::stats::Summary;
use crate::strace;
use crate::world::World;

/// Looks between two messages, timed together: reading the clock costs as much as a look.
const LOOKS_PER_MESSAGE: u32 = 10;
const MESSAGES: usize = 20_000;
/// Descriptors that a process needs beyond those of its connections.
const OPEN_FILES_SPARE: u64 = 200;
/// From the last handshake to the first figure.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Sessions at a time.
    #[arg(long, default_value_t = 1000)]
    sessions: usize,
    /// Messages per second of a busy session, in each direction.
    #[arg(long, default_value_t = 10.0)]
    messages_per_s: f64,
    /// How long each figure is measured, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// A gateway to measure; several are measured in turn [default: PULSEGATE_BIN, or the release build].
    #[arg(long)]
    gateway: Vec<PathBuf>,
    /// How often each gateway is measured; the median is told.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures and tells.
///
/// # Errors
/// Something is missing or does not start.
pub(crate) fn run(options: Options) -> Result<()> {
    machine::raise_open_files(options.sessions as u64 * 2 + OPEN_FILES_SPARE)?;
    // Before the runtime: its threads are to live in the gateway's network.
    let world = World::enter()?;
    in_runtime(async {
        one_look().await?;
        let gateways = match &options.gateway[..] {
            [] => vec![gateway::binary()?],
            given => given.to_vec(),
        };
        for load in [Load::Busy, Load::Quiet] {
            compare(&options, &gateways, load, &world).await?;
        }
        Ok(())
    })
}

/// Tells the time of one look at a socket that is being written to.
async fn one_look() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut ours = TcpStream::connect(listener.local_addr()?).await?;
    let (mut theirs, _) = listener.accept().await?;
    ours.set_nodelay(true)?;
    let mut times = Vec::with_capacity(MESSAGES);
    for _ in 0..MESSAGES {
        ours.write_all(&[0; 64]).await?;
        let start = Moment::now();
        for _ in 0..LOOKS_PER_MESSAGE {
            anyhow::ensure!(pulsegate::kernel_look(&ours), "the kernel does not tell");
        }
        times.push(Moment::now().seconds_since(start) * 1e9 / f64::from(LOOKS_PER_MESSAGE));
        theirs.read_exact(&mut [0; 64]).await?;
    }
    if let Some(times) = Summary::of(&times) {
        report::result(&format!(
            "one look: {:.0} ns (median; 99 of 100 below {:.0} ns)",
            times.median, times.p99
        ));
    }
    Ok(())
}

/// Measures each gateway in turn, and tells the medians.
async fn compare(options: &Options, gateways: &[PathBuf], load: Load, world: &World) -> Result<()> {
    let mut figures = vec![Vec::new(); gateways.len()];
    for round in 0..options.rounds {
        for (number, binary) in gateways.iter().enumerate() {
            let is_last = round + 1 == options.rounds;
            figures[number].push(cpu_per_session(options, binary, load, world, is_last).await?);
        }
    }
    for (binary, figures) in gateways.iter().zip(figures) {
        if let Some(figures) = Summary::of(&figures) {
            report::result(&format!(
                "{}, {} sessions, {}: {:.1} µs of processor time per session and second (median of {}; {:.1} to {:.1})",
                load.as_str(),
                options.sessions,
                binary.display(),
                figures.median,
                options.rounds,
                figures.min,
                figures.max,
            ));
        }
    }
    Ok(())
}

/// Returns microseconds of processor time per session and second; the last round counts system calls, too.
async fn cpu_per_session(
    options: &Options,
    binary: &Path,
    load: Load,
    world: &World,
    counts_calls: bool,
) -> Result<f64> {
    let messages_per_s = match load {
        Load::Busy => options.messages_per_s,
        Load::Quiet => 0.0,
    };
    let app = App::start(messages_per_s).await?;
    let gateway = Gateway::start(binary, app.address(), Profile::Balanced).await?;
    let crowd = Crowd { sessions: options.sessions, messages_per_s, stall_max: None, seed: 1 };
    let clients = Clients::start(&crowd, world, gateway.port()).await?;
    sleep(SETTLE).await;

    let time = Duration::from_secs(options.seconds);
    let (watch, cpu, start) = (Watch::start(), machine::cpu_seconds(gateway.pid())?, Moment::now());
    sleep(time).await;
    let used = (machine::cpu_seconds(gateway.pid())? - cpu) / Moment::now().seconds_since(start);
    let per_session = used * 1e6 / options.sessions as f64;
    let pressure = watch.end().cpu_pressure_percent.unwrap_or_default();
    report::progress(&format!(
        "{} {}: {per_session:.1} µs, machine under pressure for {pressure:.0} % of the time",
        binary.display(),
        load.as_str()
    ));
    if counts_calls {
        tell_calls(gateway.pid(), time, options.sessions, binary, load).await?;
    }
    drop(clients);
    gateway.stop().await;
    Ok(per_session)
}

async fn tell_calls(pid: u32, time: Duration, sessions: usize, binary: &Path, load: Load) -> Result<()> {
    let calls = strace::count(pid, time).await?;
    let rate = |name: &str| {
        calls.get(name).copied().unwrap_or_default() as f64 / time.as_secs_f64() / sessions as f64
    };
    report::result(&format!(
        "{}, {}: per session and second {:.3} looks (ioctl; not all had arrived in {:.3}: getsockopt), of {:.1} system calls in all",
        load.as_str(),
        binary.display(),
        rate("ioctl"),
        rate("getsockopt"),
        calls.keys().map(|name| rate(name)).sum::<f64>(),
    ));
    Ok(())
}
