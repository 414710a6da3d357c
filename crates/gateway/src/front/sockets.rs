//! What the kernel watches while a socket speaks HTTP, where no detector does: peers that are gone without
//! a word, and clients that take no bytes. A session's relay gets its sockets without any of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// How long a client may take none of the bytes that wait for it.
const CLIENT_STALL_MAX: Duration = Duration::from_secs(60);

/// Silence after which the kernel asks whether the peer's kernel is there, and between two such questions;
/// after [`KEEPALIVE_RETRIES`] of them without an answer it is gone.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// Clients that wait to be accepted. Of more, Linux drops the first packets, and their kernels try again.
const BACKLOG: u32 = 1024;

/// Listens for clients. Their sockets are prepared for HTTP from the beginning, since what is accepted has the
/// options of its listener (tcp(7)): no system calls for each.
///
/// # Errors
/// The address is taken or not ours, or the system does not know an option.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As std does: not on Windows, where it would let another program take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    set_keepalive(&SockRef::from(&socket))?;
    set_user_timeout(&SockRef::from(&socket), CLIENT_STALL_MAX)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Prepares a socket to the app for HTTP; how long the app may take no bytes is its own business.
///
/// # Errors
/// The connection is gone.
pub(super) fn watch_app(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    set_keepalive(&SockRef::from(stream))
}

/// Ends what [`listen`] and [`watch_app`] began, except for TCP_NODELAY, and for the client's
/// TCP_USER_TIMEOUT, for which a session has its own.
pub(super) fn unwatch(stream: &TcpStream) {
    // A socket that takes no option is broken, which its new owner learns with the first read.
    let _ = SockRef::from(stream).set_keepalive(false);
}

fn set_keepalive(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

#[cfg(target_os = "linux")]
fn set_user_timeout(socket: &SockRef<'_>, limit: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(limit))
}

/// Only Linux has it; elsewhere the kernel's retransmission limit is the bound.
#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_socket: &SockRef<'_>, _limit: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_gets_its_socket_unwatched() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        watch_app(&app).unwrap();
        let (client, _) = listener.accept().await.unwrap();
        for (stream, limit) in [(client, Some(CLIENT_STALL_MAX)), (app, None)] {
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), limit);
            unwatch(&stream);
            assert!(!socket.keepalive().unwrap() && stream.nodelay().unwrap());
        }
    }
}
