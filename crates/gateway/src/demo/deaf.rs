//! A TCP socket that hears nothing: what its peer sends is dropped before TCP looks at it, so it is never
//! acknowledged, as if the cable had been pulled. It takes no privileges, and touches no other connection.

use socket2::Socket;

/// Drops all that arrives from now on: a packet filter (classic BPF) that keeps 0 bytes of each segment.
#[cfg(target_os = "linux")]
pub(super) fn stop_listening(socket: &Socket) {
    const RETURN_CONSTANT: u16 = 0x06;
    if let Err(error) = socket.attach_filter(&[socket2::SockFilter::new(RETURN_CONSTANT, 0, 0, 0)]) {
        tracing::warn!(%error, "no packet filter: the cut line will look like a frozen peer");
    }
}

/// Hears again. What was sent meanwhile comes when the peer sends it again.
#[cfg(target_os = "linux")]
pub(super) fn listen_again(socket: &Socket) {
    // It fails when there was no filter.
    let _ = socket.detach_filter();
}

/// Elsewhere the kernel goes on acknowledging, and a cut line looks like a frozen peer.
#[cfg(not(target_os = "linux"))]
pub(super) fn stop_listening(_: &Socket) {}

/// Nothing was stopped.
#[cfg(not(target_os = "linux"))]
pub(super) fn listen_again(_: &Socket) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    #[test]
    fn a_deaf_socket_gets_what_was_sent_once_it_listens_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let handle = SockRef::from(&far).try_clone().unwrap();
        let mut byte = [0];

        stop_listening(&handle);
        near.write_all(b"a").unwrap();
        far.set_nonblocking(true).unwrap();
        // On the loopback a byte is there when its write returns, so none is coming.
        assert_eq!(far.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);

        listen_again(&handle);
        far.set_nonblocking(false).unwrap();
        assert_eq!(far.read(&mut byte).unwrap(), 1);
        assert_eq!(&byte, b"a");
    }
}
