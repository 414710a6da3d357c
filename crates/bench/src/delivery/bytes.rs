//! What a confirmed message takes on the wire: all bytes behind the handshake, both ways, as a relay in between counts them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use pulsegate_chaos::FaultProxy;
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::gateway::Gateway;
use crate::plan::Profile;

const PAYLOAD_BYTES: usize = 32;
/// The last ACK may wait for so long.
const TRAILING: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(60);
/// The script beside the tests' other Socket.IO app.
const SOCKET_IO: &str = "tests/node/apps/socketio_acks.mjs";

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    ToClient,
    ToServer,
}

/// One stream of messages.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Stream {
    pub(super) way: Way,
    pub(super) per_second: u32,
    pub(super) text: bool,
    pub(super) messages: u32,
}

impl Stream {
    /// All of them.
    pub(super) fn all(spans: &[(u32, u32)]) -> Vec<Stream> {
        let mut all = Vec::new();
        for &(per_second, messages) in spans {
            for text in [true, false] {
                let each =
                    [Way::ToClient, Way::ToServer].map(|way| Stream { way, per_second, text, messages });
                all.extend(each);
            }
        }
        all
    }

    fn period(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    /// What a bare WebSocket frame with this payload takes (RFC 6455 section 5.2).
    pub(super) fn bare(&self) -> usize {
        PAYLOAD_BYTES + if self.way == Way::ToServer { 6 } else { 2 }
    }
}

/// Bytes of a confirmed message of `pulsegate.v1`.
///
/// # Errors
/// A message is not confirmed.
pub(super) async fn pulsegate(binary: &std::path::Path, stream: Stream) -> Result<f64> {
    let app = app(stream).await?;
    let gateway = Gateway::start(binary, app, Profile::Balanced).await?;
    let relay = FaultProxy::start(TcpListener::bind("127.0.0.1:0").await?, gateway.address());
    let mut client = Client::connect(&format!("ws://{}/", relay.local_addr()), ClientConfig::default())?;
    let live = timeout(PATIENCE, client.next()).await?;
    ensure!(live == Some(Event::Live { resumed: false }), "{live:?}");
    // The first message of the client also says that it has its token.
    let before = counted(&relay);
    match stream.way {
        Way::ToClient => {
            // It begins to talk when it is asked to.
            client.send(Payload::Text("go".into())).await?;
            for _ in 0..stream.messages {
                let event = timeout(PATIENCE, client.next()).await?.context("the client ended")?;
                ensure!(matches!(event, Event::Message { .. }), "{event:?}");
            }
        }
        Way::ToServer => {
            let sender = client.sender();
            let attending = tokio::spawn(async move { while client.next().await.is_some() {} });
            let mut ticks = ticks(stream);
            for number in 0..stream.messages {
                ticks.tick().await;
                let payload = match stream.text {
                    true => Payload::Text("x".repeat(PAYLOAD_BYTES)),
                    false => Payload::Binary(vec![number as u8; PAYLOAD_BYTES]),
                };
                sender.send(payload).await?;
            }
            sleep(TRAILING).await;
            let bytes = counted(&relay) - before;
            let metrics = gateway.metrics().await?;
            let received =
                metrics.sum("pulsegate_deliveries_settled_total", "outcome=\"delivered\",level=\"received\"");
            ensure!(
                received >= f64::from(stream.messages),
                "{received} of {} are confirmed",
                stream.messages
            );
            attending.abort();
            gateway.stop().await;
            return Ok(bytes as f64 / f64::from(stream.messages));
        }
    }
    sleep(TRAILING).await;
    let bytes = counted(&relay) - before;
    let metrics = gateway.metrics().await?;
    let handled = metrics.sum("pulsegate_deliveries_settled_total", "level=\"handled\"");
    ensure!(handled >= f64::from(stream.messages), "{handled} of {} are confirmed", stream.messages);
    gateway.stop().await;
    Ok(bytes as f64 / f64::from(stream.messages))
}

/// Bytes of a confirmed message of Socket.IO, with an acknowledgement each, over WebSocket alone.
///
/// # Errors
/// It is not installed, or a message is not confirmed.
pub(super) async fn socket_io(stream: Stream) -> Result<f64> {
    let (mut server, mut told) = node(&["server".to_owned(), options(stream)]).await?;
    let port: u16 = line(&mut told).await?.parse()?;
    let relay =
        FaultProxy::start(TcpListener::bind("127.0.0.1:0").await?, SocketAddr::from(([127, 0, 0, 1], port)));
    let url = format!("http://{}", relay.local_addr());
    let (mut client, mut said) = node(&["client".to_owned(), options(stream), url]).await?;
    ensure!(line(&mut said).await? == "ready", "the client is not ready");
    // What the two say to each other first is not counted.
    sleep(Duration::from_millis(200)).await;
    let before = counted(&relay);
    let sender = if stream.way == Way::ToServer { &mut client } else { &mut server };
    sender.stdin.as_mut().context("it is piped")?.write_all(b"go\n").await?;
    let done = if stream.way == Way::ToServer { &mut said } else { &mut told };
    ensure!(line(done).await? == "done", "not all was confirmed");
    let bytes = counted(&relay) - before;
    Ok(bytes as f64 / f64::from(stream.messages))
}

/// Returns whether node and the script's packages are there.
pub(super) fn has_socket_io() -> bool {
    script().is_some_and(|script| {
        let packages = script.parent().and_then(|apps| apps.parent()).map(|tests| tests.join("node_modules"));
        packages.is_some_and(|packages| packages.join("socket.io").exists())
    })
}

fn script() -> Option<PathBuf> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    Some(root.join(SOCKET_IO)).filter(|path| path.exists())
}

fn options(stream: Stream) -> String {
    let way = if stream.way == Way::ToServer { "to-server" } else { "to-client" };
    let kind = if stream.text { "text" } else { "binary" };
    format!("{way},{kind},{},{},{PAYLOAD_BYTES}", stream.per_second, stream.messages)
}

async fn node(arguments: &[String]) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = Command::new("node")
        .arg(script().context("there is no script")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start node")?;
    let out = BufReader::new(child.stdout.take().context("it is piped")?).lines();
    Ok((child, out))
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    timeout(PATIENCE, lines.next_line()).await.context("node is silent")??.context("node has ended")
}

fn counted(relay: &FaultProxy) -> u64 {
    let both = |info: &pulsegate_chaos::ConnectionInfo| {
        info.to_target.forwarded_bytes + info.to_client.forwarded_bytes
    };
    relay.connections().iter().map(both).sum()
}

fn ticks(stream: Stream) -> tokio::time::Interval {
    let mut ticks = interval(stream.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    ticks
}

/// An app that reads, and after the first message says what the stream wants it to.
async fn app(stream: Stream) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // A connection that breaks shows in what is counted.
            tokio::spawn(async move { serve(connection, stream).await.ok() });
        }
    });
    Ok(address)
}

async fn serve(connection: TcpStream, stream: Stream) -> Result<()> {
    connection.set_nodelay(true)?;
    let (mut write, mut read) = tokio_tungstenite::accept_async(connection).await?.split();
    if stream.way == Way::ToClient {
        read.next().await.context("nobody asks")??;
        let mut ticks = ticks(stream);
        for number in 0..stream.messages {
            ticks.tick().await;
            let message = match stream.text {
                true => Message::text("x".repeat(PAYLOAD_BYTES)),
                false => Message::binary(vec![number as u8; PAYLOAD_BYTES]),
            };
            write.feed(message).await?;
            write.flush().await?;
        }
    }
    while let Some(Ok(_)) = read.next().await {
        // Pongs leave with it.
        write.flush().await?;
    }
    Ok(())
}
