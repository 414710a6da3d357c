//! One client connection: hyper serves it, and this decides how it ends.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tracing::debug;

use super::place::Place;
use super::rejection::Rejection;
use super::service::{Front, Service};

/// How long a client may go on sending after our last byte, so that it gets to read that byte: closing a
/// socket with unread input sends a reset, which makes the peer forget what it received.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much it may send in that time.
const PATIENCE_BYTES_MAX: usize = 1024 * 1024;
const DISCARD_BYTES: usize = 8 * 1024;

/// Serves one connection until it ends or becomes a session.
pub(super) async fn run(front: Arc<Front>, place: Place, stream: TcpStream, peer: SocketAddr) {
    let stop = front.shared.stop.clone();
    let service = Service { front: Arc::clone(&front), place: place.clone(), peer };
    let mut connection = front.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        () = stop.cancelled() => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    // None: the socket belongs to a session now.
    let Some(parts) = connection.into_parts() else { return };
    drop(parts.service);
    let end = outcome.map_or_else(|error| End::of(&error, &parts.read_buf), |()| End::Finished);
    debug!(%peer, ?end, "connection ended");
    end_connection(&front, end, parts.io.into_inner()).await;
    drop(place);
}

/// Sends FIN, then reads on for a while, so that the peer gets to read our last bytes.
pub(super) async fn close_with_patience(mut stream: TcpStream) {
    // The peer may be gone already; there is nobody to tell then.
    let _ = stream.shutdown().await;
    let discard = async {
        let mut left = PATIENCE_BYTES_MAX;
        let mut buffer = [0u8; DISCARD_BYTES];
        while left > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // Boxed: the buffer must not be part of every connection's task.
    let _ = tokio::time::timeout(PATIENCE, Box::pin(discard)).await;
}

/// How hyper left a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All answers were sent, and hyper's refusals of heads that it can't read.
    Finished,
    /// hyper has answered 400.
    Malformed,
    /// hyper has answered 431 or 414.
    TooLarge,
    /// hyper has answered nothing: HTTP/2 by prior knowledge.
    Http2,
    /// A head has begun and did not end in time; hyper has answered nothing.
    HeadTimeout,
    /// No request for a while.
    Idle,
    /// An answer's body broke off.
    BodyBroken,
    /// The client left.
    Gone,
}

impl End {
    fn of(error: &hyper::Error, unread: &Bytes) -> End {
        if error.is_parse_too_large() {
            End::TooLarge
        } else if error.is_parse_version_h2() {
            End::Http2
        } else if error.is_parse() {
            End::Malformed
        } else if error.is_timeout() {
            if unread.is_empty() { End::Idle } else { End::HeadTimeout }
        } else if error.is_user() {
            End::BodyBroken
        } else {
            End::Gone
        }
    }
}

async fn end_connection(front: &Front, end: End, stream: TcpStream) {
    match end {
        End::Finished => close_with_patience(stream).await,
        End::Malformed => {
            front.shared.metrics.handshake_rejected(Rejection::MalformedHead);
            close_with_patience(stream).await;
        }
        End::TooLarge => {
            front.shared.metrics.handshake_rejected(Rejection::HeadTooLarge);
            close_with_patience(stream).await;
        }
        End::Http2 => refuse(front, Rejection::MalformedHead, stream).await,
        End::HeadTimeout => refuse(front, Rejection::HeadTimeout, stream).await,
        // A reset, not FIN: to an HTTP/1.0 client FIN would mean that the body is complete.
        End::BodyBroken => {
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        End::Idle | End::Gone => {}
    }
}

async fn refuse(front: &Front, reason: Rejection, stream: TcpStream) {
    front.shared.metrics.handshake_rejected(reason);
    // A refusal is smaller than any send buffer, and a client that fills ours with answers it doesn't read
    // need not get another one.
    let _ = stream.try_write(&reason.problem().into_last_bytes());
    close_with_patience(stream).await;
}
