//! What the wiring tests share: a gateway in this process, an app behind it, raw clients.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pulsegate::config::Config;
use pulsegate::serve::{Gateway, ServeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_util::sync::CancellationToken;

/// No wait in these tests is meant to take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that runs in this process.
pub(crate) struct Running {
    pub(crate) data: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) hurry: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Running {
    /// Starts a gateway in front of `app`, on ports of its own.
    pub(crate) async fn start(app: SocketAddr, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = Config::default();
        config.upstream.url = format!("http://{app}");
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        config.listen.data = any;
        config.listen.ops = any;
        config.listen.control = pulsegate::config::ControlAddr::Tcp(any);
        config.drain.window = Duration::from_millis(50);
        change(&mut config);
        let gateway = Gateway::bind(config).await.unwrap();
        let (data, ops) = (gateway.addresses().data, gateway.addresses().ops);
        let control = gateway.addresses().control.parse().unwrap();
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(gateway.run(stop.clone(), hurry.clone()));
        Running { data, ops, control, stop, hurry, task }
    }

    /// Returns the sum over all series of one metric.
    pub(crate) async fn scrape(&self, name: &str) -> u64 {
        let mut ops = TcpStream::connect(self.ops).await.unwrap();
        ops.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let text = String::from_utf8(read_rest(&mut ops).await).unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        series.map(|line| line.split(' ').next_back().unwrap().trim().parse::<u64>().unwrap()).sum()
    }

    /// Drops the gateway as it runs.
    pub(crate) async fn give_up(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Stops the gateway and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("the gateway ends").unwrap().unwrap();
    }
}

/// What the app saw.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Open,
    Message(Message),
    /// A Close frame with code and reason, or none.
    Close(Option<(u16, String)>),
    /// The connection ended, cleanly or not.
    End,
}

/// An app that echoes; `close me` makes it close with 4001, `drop me` cut the connection.
pub(crate) async fn echo_app() -> (SocketAddr, UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, seen) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, tell.clone()));
        }
    });
    (address, seen)
}

async fn echo(stream: TcpStream, tell: UnboundedSender<Seen>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let _ = tell.send(Seen::Open);
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = &message {
            let told = frame.as_ref().map(|frame| (u16::from(frame.code), frame.reason.to_string()));
            let _ = tell.send(Seen::Close(told));
            continue;
        }
        match message.to_text() {
            Ok("close me") => {
                let frame = CloseFrame { code: 4001.into(), reason: "asked to".into() };
                let _ = socket.close(Some(frame)).await;
                continue;
            }
            Ok("drop me") => break,
            Ok(_) | Err(_) => {}
        }
        if message.is_text() || message.is_binary() {
            let _ = tell.send(Seen::Message(message.clone()));
            if socket.feed(message).await.is_err() || socket.flush().await.is_err() {
                break;
            }
        }
    }
    let _ = tell.send(Seen::End);
}

/// Waits for what the app sees next.
pub(crate) async fn next(seen: &mut UnboundedReceiver<Seen>) -> Seen {
    timeout(PATIENCE, seen.recv()).await.expect("the app sees something in time").expect("the app runs")
}

/// Opens a WebSocket by hand and returns the bare socket behind the 101.
pub(crate) async fn raw_client(gateway: SocketAddr) -> TcpStream {
    raw_client_with(gateway, "").await.0
}

/// The same with more headers, each with its line end; returns the head of the answer, too.
pub(crate) async fn raw_client_with(gateway: SocketAddr, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {gateway}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    (stream, head)
}

/// A masked frame with an all-zero key, so that payload stays readable.
pub(crate) fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = vec![first_byte];
    match payload.len() {
        len @ 0..=125 => wire.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            wire.push(0x80 | 126);
            wire.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            wire.push(0x80 | 127);
            wire.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    wire.extend_from_slice(&[0; 4]);
    wire.extend_from_slice(payload);
    wire
}

/// Reads one unmasked frame of less than 64 KiB: first byte and payload.
pub(crate) async fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let len = match stream.read_u8().await.unwrap() {
            126 => stream.read_u16().await.unwrap(),
            127 => panic!("a shorter frame is expected"),
            short => u16::from(short),
        };
        let mut payload = vec![0; usize::from(len)];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    timeout(PATIENCE, read).await.expect("a frame in time")
}

/// Takes a connection as an app does, and returns the bare socket behind the handshake.
pub(crate) async fn bare_app(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let key = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().starts_with("sec-websocket-key").then(|| &line[18..]))
        .unwrap();
    let accept = derive_accept_key(key.trim().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream
}

/// A gateway with a client and an app that are both bare sockets behind their handshakes.
pub(crate) async fn bare_pair(change: impl FnOnce(&mut Config)) -> (Running, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Running::start(listener.local_addr().unwrap(), change).await;
    let (client, app) = tokio::join!(raw_client(gateway.data), bare_app(&listener));
    client.set_nodelay(true).unwrap();
    app.set_nodelay(true).unwrap();
    (gateway, client, app)
}

/// A short unmasked frame, as an app sends it.
pub(crate) fn app_frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = vec![first_byte, payload.len() as u8];
    assert!(payload.len() <= 125, "a short frame is expected");
    wire.extend_from_slice(payload);
    wire
}

/// Reads what comes until the other side ends the connection.
pub(crate) async fn read_rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    rest
}
