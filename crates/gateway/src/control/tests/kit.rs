//! A control API with sessions opened by hand, and clients that speak to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pulsegate_core::{Cause, CloseFrame, EndReason, Leg, Outcome, SessionId};
use pulsegate_heartbeat::{Doubts, Evidence, KernelView, Verdict};
use pulsegate_registry::{Ending, Entry, Mode, Permit, SessionInfo, Tombstone};
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ControlAddr};
use crate::control::{ControlListener, Secret, serve};
use crate::feed::What;
use crate::messages::Record;
use crate::relay::Mailbox;
use crate::shared::{Shared, clock};

/// No wait in these tests is meant to take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const TOKEN: &str = "0123456789abcdef";

/// A directory of its own, gone at the end.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        let name = format!("pulsegate-test-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A control API that runs in this process.
pub(crate) struct Kit {
    pub(crate) shared: Arc<Shared>,
    pub(crate) address: SocketAddr,
    pub(crate) finish: CancellationToken,
    task: JoinHandle<()>,
}

/// A session that has no sockets.
pub(crate) struct Session {
    pub(crate) entry: Arc<Entry<Mailbox>>,
    _permit: Permit,
}

impl Session {
    pub(crate) fn id(&self) -> SessionId {
        self.entry.id()
    }

    /// The order that waits for its task: `None`, or reason and Close frame.
    pub(crate) fn order(&self) -> Option<String> {
        // The mailbox opens for its session's task alone; this is its Debug form.
        let shown = format!("{:?}", self.entry.handle());
        let (_, order) = shown.split_once("EndOrder { ")?;
        order.split_once(" }").map(|(order, _)| order.to_owned())
    }
}

impl Kit {
    pub(crate) async fn new() -> Kit {
        Kit::with(|_| {}, None).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config), token: Option<Secret>) -> Kit {
        let mut config = Config::default();
        change(&mut config);
        let shared = Arc::new(Shared::new(config));
        let any = ControlAddr::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = ControlListener::bind(&any).await.unwrap().unwrap();
        let ControlAddr::Tcp(address) = listener.address() else { panic!("not TCP") };
        let finish = CancellationToken::new();
        let task = tokio::spawn(serve(Arc::clone(&shared), listener, token, finish.clone()));
        Kit { shared, address, finish, task }
    }

    /// Waits until the API has stopped.
    pub(crate) async fn finished(self) {
        timeout(PATIENCE, self.task).await.expect("the API stops").unwrap();
    }

    pub(crate) fn open(&self, labels: &[(&str, &str)]) -> Session {
        let permit = self.shared.registry.admit("127.0.0.1".parse().unwrap()).unwrap();
        let info = Arc::new(info(labels));
        let now = (clock(), SystemTime::now());
        let entry = self.shared.registry.open(&permit, Arc::clone(&info), Mailbox::default(), now.0, now.1);
        self.shared.feed.publish(What::SessionOpened { id: entry.id(), info });
        Session { entry, _permit: permit }
    }

    pub(crate) fn end(&self, session: &Session, ending: Ending) -> Arc<Tombstone> {
        let tombstone = self.shared.registry.close(&session.entry, ending, None, clock(), SystemTime::now());
        self.shared.feed.publish(What::SessionEnded { tombstone: Arc::clone(&tombstone) });
        tombstone
    }

    /// Sends a request with `Host: localhost` unless `headers` has one.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        send(stream, method, path, headers).await
    }

    /// The whole answer; what is not JSON shows as null.
    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        Answer::of(self.send(method, path, headers).await).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        Answer::of(send_body(stream, Method::POST, path, headers, Bytes::copy_from_slice(body)).await).await
    }

    /// The message that an answer tells of.
    pub(crate) fn message(&self, told: &Answer) -> Arc<Record> {
        self.shared.messages.find(told.json["id"].as_str().unwrap().parse().unwrap()).unwrap()
    }

    /// Gives it its end, as its session's task would.
    pub(crate) fn settle(&self, told: &Answer, outcome: Outcome) {
        self.shared.messages.settle(self.message(told).id, outcome, clock()).unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }
}

/// An answer read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Json,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn of(response: Response<Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("the answer ends").unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status: head.status, headers: head.headers, json, body }
    }

    /// Asserts that it is a problem, and returns the name in its type.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.json["status"], status);
        assert!(self.json["title"].is_string());
        self.json["type"].as_str().unwrap().strip_prefix("urn:pulsegate:problem:").unwrap()
    }
}

pub(crate) async fn send<S>(
    stream: S,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Response<Incoming>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    send_body(stream, method, path, headers, Bytes::new()).await
}

async fn send_body<S>(
    stream: S,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Response<Incoming>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(HOST, "localhost");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).unwrap();
    timeout(PATIENCE, sender.send_request(request)).await.expect("an answer").unwrap()
}

pub(crate) fn secret(dir: &Path) -> Secret {
    let path = dir.join("token");
    std::fs::write(&path, TOKEN).unwrap();
    Secret::read(&path).unwrap()
}

pub(crate) fn info(labels: &[(&str, &str)]) -> SessionInfo {
    SessionInfo {
        peer: "127.0.0.1:5000".parse().unwrap(),
        client: "10.0.0.9".parse().unwrap(),
        path: "/ws".into(),
        origin: Some("https://app.example".into()),
        subprotocol: None,
        request_id: "r-1".into(),
        labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        mode: Mode::Plain,
        receipts: false,
    }
}

pub(crate) fn verdict() -> Verdict {
    Verdict {
        cause: Cause::Unreachable,
        evidence: vec![Evidence::UnansweredProbes, Evidence::UnacknowledgedBytes],
        silent_for: Duration::from_millis(10_020),
        probes_unanswered: 3,
        probes_sent: vec![Duration::from_secs(5), Duration::from_millis(6_100)],
        write_stalled_for: None,
        kernel: Some(KernelView {
            unacked_bytes: 87,
            retransmits: 4,
            since_last_ack: Duration::from_secs(9),
        }),
        behind_proxy: false,
        timer_lag: Duration::from_millis(3),
        withheld: 0,
        doubt: None,
        doubts: Doubts::default(),
        round_trip: Some(Duration::from_millis(12)),
    }
}

pub(crate) fn unreachable() -> Ending {
    Ending {
        reason: EndReason::Unreachable,
        leg: Some(Leg::Client),
        close: Some(CloseFrame::new(4408, "client unreachable")),
        detail: None,
        verdict: Some(verdict().to_string()),
    }
}

pub(crate) fn cut() -> Ending {
    let detail = Some("connection cut");
    Ending { reason: EndReason::Reset, leg: Some(Leg::App), close: None, detail, verdict: None }
}
