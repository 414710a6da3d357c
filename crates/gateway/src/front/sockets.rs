//! What the kernel watches while a socket speaks HTTP, where no detector does: peers that are gone without
//! a word, and clients that take no bytes. A session's relay gets its sockets without any of it.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a client may take none of the bytes that wait for it.
const CLIENT_STALL_MAX: Duration = Duration::from_secs(60);

/// Silence after which the kernel asks whether the peer's kernel is there, and between two such questions;
/// after [`KEEPALIVE_RETRIES`] of them without an answer it is gone.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// Prepares a client's socket for HTTP.
///
/// # Errors
/// The connection is gone.
pub(super) fn watch_client(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_keepalive(stream)?;
    set_user_timeout(stream, Some(CLIENT_STALL_MAX))
}

/// Prepares a socket to the app for HTTP; how long the app may take no bytes is its own business.
///
/// # Errors
/// The connection is gone.
pub(super) fn watch_app(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_keepalive(stream)
}

/// Ends what [`watch_client`] and [`watch_app`] began, except for TCP_NODELAY.
pub(super) fn unwatch(stream: &TcpStream) {
    // A socket that takes no option is broken, which its new owner learns with the first read.
    let _ = SockRef::from(stream).set_keepalive(false);
    let _ = set_user_timeout(stream, None);
}

fn set_keepalive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(target_os = "linux")]
fn set_user_timeout(stream: &TcpStream, limit: Option<Duration>) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(limit)
}

/// Only Linux has it; elsewhere the kernel's retransmission limit is the bound.
#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_stream: &TcpStream, _limit: Option<Duration>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_gets_its_socket_unwatched() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        watch_client(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        unwatch(&stream);
        assert!(!socket.keepalive().unwrap() && stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
