//! All clients of a run, in one process of their own network; with a bad network if one is asked for.
//!
//! It says what happens as JSON lines on stdout, begins with the bad network at a line on stdin, and ends
//! with stdin.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream};
use pulsegate_chaos::{ConnectionId, FaultProxy};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::app::PATH;
use crate::clock::Moment;
use crate::machine::{Disturbance, Watch};
use crate::peer::{self, End};

/// Handshakes at a time: more would only queue.
const HANDSHAKES_MAX: usize = 32;

/// The bad network: 100 to 300 ms each way.
const DELAY: Duration = Duration::from_millis(200);
const JITTER: Duration = Duration::from_millis(100);
/// Mean time from the end of a stall to the next one.
const STALL_EVERY: Duration = Duration::from_secs(15);

/// What the process is told to do, a line each.
pub(crate) const ORDER_BEGIN: &str = "begin";
pub(crate) const ORDER_REPORT: &str = "report";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    gateway: SocketAddr,
    #[arg(long)]
    sessions: usize,
    #[arg(long)]
    messages_per_s: f64,
    /// Puts a bad network in between whose stalls last up to this many seconds.
    #[arg(long)]
    stall_max: Option<f64>,
    #[arg(long)]
    seed: u64,
}

/// A line of the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// All are connected: the ports that the gateway sees, by the client's number.
    Connected(Vec<u16>),
    /// A client's connection has ended, with the code of a Close frame if there was one.
    Ended { client: usize, code: Option<u16> },
    /// How late this process was, and so the network that it plays; and the longest stall that came of it.
    Report { disturbance: Disturbance, stall_max_seconds: f64 },
}

/// Runs until stdin ends.
///
/// # Errors
/// A client does not get in.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn run(options: Options) -> Result<()> {
    fastrand::seed(options.seed);
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let proxy = match options.stall_max {
        Some(_) => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            Some(Arc::new(FaultProxy::start_seeded(listener, options.gateway, options.seed)))
        }
        None => None,
    };
    let target = proxy.as_ref().map_or(options.gateway, |proxy| proxy.local_addr());
    let mut connected: Vec<_> = stream::iter(0..options.sessions)
        .map(|client| connect(client, target, options.messages_per_s))
        .buffer_unordered(HANDSHAKES_MAX)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_>>()?;
    connected.sort();

    let own: Vec<_> = connected.into_iter().map(|(_, address)| address).collect();
    let (ports, links) = match &proxy {
        Some(proxy) => behind(proxy, &own)?,
        None => (own.iter().map(SocketAddr::port).collect(), Vec::new()),
    };
    say(&Line::Connected(ports))?;

    let mut watch = Some(Watch::start());
    let longest = Arc::new(Mutex::new(0.0));
    while let Some(order) = orders.next_line().await? {
        if order == ORDER_REPORT {
            let Some(watch) = watch.take() else { continue };
            let stall_max_seconds = *longest.lock().unwrap_or_else(PoisonError::into_inner);
            say(&Line::Report { disturbance: watch.end(), stall_max_seconds })?;
            continue;
        }
        let (Some(proxy), Some(stall_max)) = (&proxy, options.stall_max) else { continue };
        watch = Some(Watch::start());
        proxy.all().delay(DELAY, JITTER);
        for link in &links {
            tokio::spawn(stall(proxy.clone(), *link, Duration::from_secs_f64(stall_max), longest.clone()));
        }
    }
    Ok(())
}

/// Connects a client, which from then on lives by itself: it must not be silent until the last one is in.
async fn connect(client: usize, target: SocketAddr, messages_per_s: f64) -> Result<(usize, SocketAddr)> {
    let stream =
        TcpStream::connect(target).await.with_context(|| format!("client {client} cannot connect"))?;
    stream.set_nodelay(true)?;
    let own = stream.local_addr()?;
    let request = format!("ws://{target}{PATH}{client}");
    let (socket, _) = client_async_with_config(request, stream, Some(peer::config()))
        .await
        .with_context(|| format!("client {client} does not get in"))?;
    tokio::spawn(live(client, socket, messages_per_s));
    Ok((client, own))
}

/// The ports that the gateway sees, and the proxy's connections, in the order of the clients.
fn behind(proxy: &FaultProxy, own: &[SocketAddr]) -> Result<(Vec<u16>, Vec<ConnectionId>)> {
    let connections: HashMap<_, _> =
        proxy.connections().into_iter().map(|connection| (connection.peer, connection)).collect();
    ensure!(connections.len() == own.len(), "the proxy has as many connections as there are clients");
    let mut found = Vec::with_capacity(own.len());
    for address in own {
        let connection = connections.get(address).context("the proxy knows every client")?;
        let upstream = connection.upstream.context("a client that got in has a connection to the gateway")?;
        found.push((upstream.port(), connection.id));
    }
    Ok(found.into_iter().unzip())
}

async fn live(client: usize, mut socket: WebSocketStream<TcpStream>, messages_per_s: f64) {
    let end = peer::talk(&mut socket, messages_per_s).await;
    let code = match end {
        End::Close(code) => Some(code),
        End::Broken => None,
    };
    // Nobody listens any more when the measurement is over.
    let _ = say(&Line::Ended { client, code });
    peer::leave(socket).await;
}

/// Stalls one connection again and again: all is held, and flows on afterwards, as when a phone changes
/// cells.
async fn stall(proxy: Arc<FaultProxy>, link: ConnectionId, stall_max: Duration, longest: Arc<Mutex<f64>>) {
    loop {
        sleep(STALL_EVERY.mul_f64(0.5 + fastrand::f64())).await;
        let Some(control) = proxy.connection(link) else { return };
        let start = Moment::now();
        control.freeze();
        sleep(stall_max.mul_f64(fastrand::f64())).await;
        control.thaw();
        let took = Moment::now().seconds_since(start);
        let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = longest.max(took);
    }
}

fn say(line: &Line) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    Ok(out.flush()?)
}
