//! The port behind the fault proxy: tells the page's WebSocket from its other requests.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::line::Lines;
use super::tab_of;

/// Longest request line.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Longest wait for it; browsers open connections ahead of their requests.
const LINE_WAIT_MAX: Duration = Duration::from_secs(60);
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of descriptors, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the connections of the page go.
pub(super) struct Front {
    pub(super) lines: Arc<Lines>,
    /// The gateway's data port.
    pub(super) gateway: SocketAddr,
    /// Everything but the WebSocket.
    pub(super) site: axum::Router,
}

impl Front {
    /// Serves until the future is dropped, and every connection with it.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let life = CancellationToken::new();
        let _end = life.clone().drop_guard();
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let (front, life) = (Arc::clone(&self), life.clone());
                    tokio::spawn(life.run_until_cancelled_owned(async move {
                        if let Err(error) = front.serve(stream, from).await {
                            tracing::debug!(%error, "a connection of the page ended");
                        }
                    }));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
        let begun = timeout(LINE_WAIT_MAX, read_line(&mut stream)).await??;
        match socket_query(&begun) {
            Some(query) => self.tunnel(tab_of(query).unwrap_or(""), &begun, stream, from).await,
            None => self.answer(begun.clone(), stream).await,
        }
    }

    /// Copies bytes between the page and the gateway: from here on nobody looks at them.
    async fn tunnel(&self, tab: &str, begun: &[u8], mut page: TcpStream, from: SocketAddr) -> io::Result<()> {
        let mut gateway = TcpStream::connect(self.gateway).await?;
        page.set_nodelay(true)?;
        gateway.set_nodelay(true)?;
        let _listed = self.lines.list(tab, from, &gateway)?;
        gateway.write_all(begun).await?;
        let copied = tokio::io::copy_bidirectional(&mut page, &mut gateway).await;
        if copied.is_err() {
            // A reset on one side is a reset on the other.
            for stream in [&page, &gateway] {
                SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
            }
        }
        copied.map(|_| ())
    }

    /// Serves plain HTTP.
    async fn answer(&self, begun: Vec<u8>, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let stream = tokio::io::join(io::Cursor::new(begun).chain(read), write);
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.site.clone()))
            .await
            .map_err(io::Error::other)
    }
}

/// Reads up to the end of the request line, and what came with it.
async fn read_line(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut begun = Vec::with_capacity(1024);
    while !begun.contains(&b'\n') {
        if begun.len() >= LINE_BYTES_MAX {
            return Err(io::Error::other("the request line does not end"));
        }
        if stream.read_buf(&mut begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(begun)
}

/// Returns the query of a request for `/ws`; `None` for any other request.
fn socket_query(begun: &[u8]) -> Option<&str> {
    let line = begun.split(|&byte| byte == b'\r').next()?;
    let target = std::str::from_utf8(line).ok()?.strip_prefix("GET ")?.split(' ').next()?;
    match target.split_once('?').unwrap_or((target, "")) {
        ("/ws", query) => Some(query),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_goes_through_the_gateway() {
        assert_eq!(socket_query(b"GET /ws?tab=a1 HTTP/1.1\r\nHost: x\r\n"), Some("tab=a1"));
        assert_eq!(socket_query(b"GET /ws HTTP/1.1\r\n"), Some(""));
        for other in
            [&b"GET / HTTP/1.1\r\n"[..], b"GET /wsx HTTP/1.1\r\n", b"POST /ws HTTP/1.1\r\n", b"\xff\r\n"]
        {
            assert_eq!(socket_query(other), None);
        }
    }
}
