//! The front over real sockets: raw TCP clients before it, raw TCP apps behind it.

mod expect;
mod hand_over;
mod handshake;
mod heads;
mod http;
mod refusals;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::accept::Acceptor;
use super::answer::accept_for;
use super::{DialFailure, Rejection, listen};
use crate::config::Config;
use crate::relay::Established;
use crate::shared::Shared;
use crate::workers::Team;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// No test takes this long unless it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Headers from names and values.
pub(super) fn header_map(lines: &[(&str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(header).collect::<HeaderMap>()
}

/// Waits for what should come soon.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// Waits until something that another task does has been done.
async fn until(mut done: impl FnMut() -> bool) {
    soon(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A front in front of an app, and what it hands to the relay.
struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    sessions: UnboundedReceiver<Established>,
    serving: tokio::task::JoinHandle<()>,
}

impl Gateway {
    async fn start(config: Config) -> Gateway {
        let (handed_over, sessions) = unbounded_channel();
        let shared = Arc::new(Shared::new(config));
        let relay = move |_: &Arc<Shared>, established| {
            let _ = handed_over.send(established);
        };
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let team = Team::new([Handle::current()]);
        let acceptor = Acceptor::with_relay(&shared, team, Arc::new(relay));
        let serving = tokio::spawn(async move { acceptor.serve(listener, 0).await });
        Gateway { address, shared, sessions, serving }
    }

    async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends one request over a connection of its own.
    async fn request(&self, head: &str) -> Peer {
        let mut client = self.connect().await;
        client.send(head).await;
        client
    }

    async fn session(&mut self) -> Established {
        soon(self.sessions.recv()).await.unwrap()
    }

    fn rejected(&self, reason: Rejection) -> usize {
        self.metric(&format!("handshakes_rejected_total{{reason=\"{}\"}}", reason.as_str()))
    }

    /// The reasons of all dials that failed.
    fn dial_failures(&self) -> Vec<DialFailure> {
        let count = |failure: DialFailure| {
            self.metric(&format!("upstream_connect_failures_total{{reason=\"{}\"}}", failure.as_str()))
        };
        DialFailure::ALL.into_iter().flat_map(|failure| vec![failure; count(failure)]).collect()
    }

    /// The value of one series, as a scrape shows it.
    fn metric(&self, series: &str) -> usize {
        let text = self.shared.metrics.render(&Default::default());
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("pulsegate_{series} ")));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    /// Sessions, and those on the way to become one.
    fn places_taken(&self) -> usize {
        self.shared.registry.counts().admitted
    }
}

/// One end of a TCP connection that speaks HTTP by hand.
struct Peer(TcpStream);

impl Peer {
    async fn send(&mut self, text: &str) {
        soon(self.0.write_all(text.as_bytes())).await.unwrap();
    }

    /// Reads a head, byte by byte, so that what follows stays in the socket.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = soon(self.0.read_u8()).await;
            head.push(
                byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head))),
            );
        }
        String::from_utf8(head).unwrap()
    }

    async fn exactly(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        soon(self.0.read_exact(&mut bytes)).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Reads an answer with a Content-Length.
    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = value(&head, "content-length").unwrap_or("0").parse().unwrap();
        let body = self.exactly(length).await;
        (head, body)
    }

    /// Reads to the end; Err when the connection was cut.
    async fn rest(&mut self) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        soon(self.0.read_to_end(&mut bytes)).await?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    /// Waits for the end, clean or not.
    async fn is_cut(&mut self) {
        let _ = self.rest().await;
    }
}

/// An app that accepts by hand.
struct App {
    listener: TcpListener,
    address: SocketAddr,
}

impl App {
    async fn start() -> App {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        App { listener, address }
    }

    /// A configuration with this app.
    fn config(&self) -> Config {
        config_for(self.address)
    }

    async fn accept(&self) -> Peer {
        Peer(soon(self.listener.accept()).await.unwrap().0)
    }

    /// Accepts one connection and reads the head of its request.
    async fn request(&self) -> (Peer, String) {
        let mut peer = self.accept().await;
        let head = peer.head().await;
        (peer, head)
    }
}

fn config_for(app: SocketAddr) -> Config {
    let mut config = Config::default();
    config.upstream.url = format!("http://{app}");
    config
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    App::start().await.address
}

/// A good upgrade request with more headers.
fn upgrade_request(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// The app's yes, with more headers.
fn switching(more: &str) -> String {
    let accept = accept_for(KEY.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// The value of a header in the text of a head.
fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The name in a problem's type.
fn problem(head: &str, body: &str) -> String {
    assert_eq!(value(head, "content-type"), Some("application/problem+json"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"].to_string(), head.split(' ').nth(1).unwrap());
    problem["type"].as_str().unwrap().strip_prefix("urn:pulsegate:problem:").unwrap().to_string()
}

/// The status in a head's first line.
fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}
