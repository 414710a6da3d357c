//! Opens a WebSocket connection for commands that want to see a server answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error as WebSocketError;
use tokio_tungstenite::tungstenite::handshake::client::Response;

/// A connection that was opened.
#[derive(Debug)]
pub(super) struct Dialed {
    /// The connection.
    pub(super) socket: WebSocketStream<TcpStream>,
    /// Who answered.
    pub(super) peer: SocketAddr,
    /// Time from the first SYN to the 101.
    pub(super) took: Duration,
    /// The 101.
    pub(super) response: Response,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The URL can't be used.
    #[error("{0}")]
    Url(String),
    /// No TCP connection.
    #[error("can't connect to {target}: {error}")]
    Connect {
        /// Host and port.
        target: String,
        /// What the kernel says.
        error: std::io::Error,
    },
    /// No answer in time.
    #[error("no answer from {target} within {}", crate::config::show_duration(*limit))]
    Slow {
        /// Host and port.
        target: String,
        /// The limit.
        limit: Duration,
        /// Whether TCP was connected by then.
        connected: bool,
    },
    /// An HTTP answer that is not 101.
    #[error("the server answered {0} to the upgrade")]
    Refused(http::StatusCode),
    /// An answer that is no WebSocket handshake.
    #[error("the server's answer is no WebSocket handshake: {0}")]
    Handshake(Box<WebSocketError>),
}

/// Opens `ws://host:port/path` within `limit`.
///
/// # Errors
/// See [`DialError`].
pub(super) async fn dial(url: &str, limit: Duration) -> Result<Dialed, DialError> {
    let target = target(url)?;
    let begun = Instant::now();
    let deadline = begun + limit;
    let slow = |connected| DialError::Slow { target: target.clone(), limit, connected };
    let stream = tokio::time::timeout_at(deadline, TcpStream::connect(&target))
        .await
        .map_err(|_| slow(false))?
        .map_err(|error| DialError::Connect { target: target.clone(), error })?;
    let connect_error = |error| DialError::Connect { target: target.clone(), error };
    let peer = stream.peer_addr().map_err(connect_error)?;
    // Nagle would add its wait to every round trip.
    stream.set_nodelay(true).map_err(connect_error)?;
    let (socket, response) = tokio::time::timeout_at(deadline, tokio_tungstenite::client_async(url, stream))
        .await
        .map_err(|_| slow(true))?
        .map_err(|error| {
            if let WebSocketError::Http(response) = error {
                return DialError::Refused(response.status());
            }
            DialError::Handshake(Box::new(error))
        })?;
    Ok(Dialed { socket, peer, took: begun.elapsed(), response })
}

/// Host and port of the URL.
fn target(url: &str) -> Result<String, DialError> {
    let bad = |why: &str| DialError::Url(format!("`{url}` {why}: write ws://host:port/path"));
    let uri: http::Uri = url.parse().map_err(|_| bad("is no URL"))?;
    match uri.scheme_str() {
        Some("ws") => {}
        Some("wss") => return Err(DialError::Url("wss:// is not supported yet, only ws://".into())),
        Some(_) | None => return Err(bad("is no WebSocket URL")),
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80))),
        Some(_) | None => Err(bad("names no host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_and_a_port() {
        for (url, expected) in [
            ("ws://a:9/x?y", "a:9"),
            ("ws://a", "a:80"),
            ("ws://[::1]:9/", "[::1]:9"),
            ("ws://[::1]/", "[::1]:80"),
        ] {
            assert_eq!(target(url).unwrap(), expected);
        }
        for bad in ["", "a", "a:9", "http://a", "wss://a", "ws://", "ws:///x", "ws://a b"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
