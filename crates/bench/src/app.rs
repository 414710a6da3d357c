//! The app behind the gateway: it keeps who is connected, and when it was told that somebody is gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::clock::Moment;
use crate::peer::{self, End};

/// Prefix of the path that a client asks for; its number follows.
pub(crate) const PATH: &str = "/client/";

/// An app that runs until it is dropped.
pub(crate) struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// The end of one client's connection, as the app saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) client: usize,
    pub(crate) at: Moment,
    pub(crate) end: End,
}

struct Shared {
    pushes_per_s: f64,
    /// The gateway's name of a session, to the number of the client.
    clients: Mutex<HashMap<String, usize>>,
    told: Mutex<Vec<Told>>,
}

impl App {
    pub(crate) async fn start(pushes_per_s: f64) -> std::io::Result<App> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { pushes_per_s, clients: Mutex::default(), told: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(App { address, shared, accepting })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Which client is behind a session.
    pub(crate) fn client_of(&self, session: &str) -> Option<usize> {
        lock(&self.shared.clients).get(session).copied()
    }

    /// Returns all ends so far, in the order in which they were heard of.
    pub(crate) fn told(&self) -> Vec<Told> {
        lock(&self.shared.told).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut session = None;
    let mut client = None;
    #[allow(clippy::result_large_err, reason = "the signature is tungstenite's, and this never refuses")]
    let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        session =
            request.headers().get("pulsegate-session").and_then(|id| id.to_str().ok()).map(str::to_owned);
        client = request.uri().path().strip_prefix(PATH).and_then(|number| number.parse().ok());
        Ok(response)
    };
    // Small messages must not wait for each other. It fails only on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    let Ok(mut socket) = accept_hdr_async_with_config(stream, look, Some(peer::config())).await else {
        return;
    };
    let (Some(session), Some(client)) = (session, client) else { return };
    lock(&shared.clients).insert(session, client);
    let end = peer::talk(&mut socket, shared.pushes_per_s).await;
    lock(&shared.told).push(Told { client, at: Moment::now(), end });
    peer::leave(socket).await;
}

/// Locks, also after a panic elsewhere: nothing is left half changed under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
