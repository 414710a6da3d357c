//! The app of the demo: a WebSocket echo like in any tutorial. It knows nothing of pulsegate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, What};
use super::tab_of;

/// How long a restart takes.
const RESTART: Duration = Duration::from_secs(2);
/// Pause after a failed accept: out of descriptors, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG: u32 = 128;
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The page shows a line per message, not the whole of it.
const SHOWN_CHARS_MAX: usize = 80;

/// An echo server that can be restarted.
pub(super) struct EchoApp {
    address: SocketAddr,
    journal: Arc<Journal>,
    restart: Notify,
    connections: AtomicU64,
}

impl EchoApp {
    /// Binds a free port of the loopback; nothing is accepted before [`run`](EchoApp::run).
    pub(super) async fn bind(journal: Arc<Journal>) -> io::Result<(Arc<EchoApp>, TcpListener)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let app = EchoApp { address, journal, restart: Notify::new(), connections: AtomicU64::new(0) };
        Ok((Arc::new(app), listener))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the app as a crash would, and starts it again a little later.
    pub(super) fn restart(&self) {
        self.restart.notify_one();
    }

    /// Lives, and lives again after each restart, until an error ends it or the future is dropped.
    pub(super) async fn run(self: Arc<Self>, mut listener: TcpListener) -> io::Result<()> {
        loop {
            let life = CancellationToken::new();
            // Also when this future is dropped: no connection outlives the app.
            let _end = life.clone().drop_guard();
            tokio::select! {
                () = self.accept(&listener, &life) => {}
                () = self.restart.notified() => {}
            }
            life.cancel();
            drop(listener);
            let reserved = reserve(self.address)?;
            self.journal.write(None, What::Down);
            tokio::time::sleep(RESTART).await;
            listener = reserved.listen(BACKLOG)?;
            self.journal.write(None, What::Up);
        }
    }

    async fn accept(self: &Arc<Self>, listener: &TcpListener, life: &CancellationToken) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (app, life) = (Arc::clone(self), life.clone());
                    tokio::spawn(life.run_until_cancelled_owned(async move { app.serve(stream).await }));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn serve(&self, stream: TcpStream) {
        let mut tab = None;
        #[allow(clippy::result_large_err, reason = "the library wants the refusal as a whole response")]
        let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            tab = request.uri().query().and_then(tab_of).map(str::to_owned);
            Ok(response)
        };
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let Ok(socket) = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(limits)).await
        else {
            return;
        };
        let connection = self.connections.fetch_add(1, Relaxed) + 1;
        let log = |what| self.journal.write(tab.as_deref(), what);
        log(What::Open { connection });
        let (code, reason) = echo(socket, |text| {
            log(What::Message { connection, text });
        })
        .await;
        log(What::Close { connection, code, reason });
    }
}

/// Echoes until the connection ends; returns the code and reason that a close handler would get.
#[allow(clippy::disallowed_methods, reason = "one thing at a time: there is no other arm that could win")]
async fn echo(mut socket: WebSocketStream<TcpStream>, on_message: impl Fn(String)) -> (u16, String) {
    let mut end = (1006, String::new());
    // Read on after a Close, until the stream ends: only then is the closing handshake done.
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(ref text) => {
                on_message(text.chars().take(SHOWN_CHARS_MAX).collect());
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            Message::Binary(ref bytes) => {
                on_message(format!("{} bytes", bytes.len()));
                if socket.send(message).await.is_err() {
                    break;
                }
            }
            Message::Close(Some(frame)) => end = (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => end = (1005, String::new()),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    end
}

/// Keeps the port while the app is down: a bound socket that does not listen refuses connections.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
