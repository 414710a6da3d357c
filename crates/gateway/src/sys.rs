//! What the kernel knows of a TCP connection. The one place with `unsafe`: no safe crate offers
//! `getsockopt(TCP_INFO)`, `ioctl(SIOCOUTQ)` and `setsockopt(TCP_RTO_MAX_MS)`, or a symbol that jemalloc looks for.

use std::io;
use std::mem::MaybeUninit;

use pulsegate_heartbeat::{KernelView, Limits};
use socket2::SockRef;
use tokio::net::TcpStream;

/// How jemalloc behaves (its manual, TUNING): memory that was freed goes back to the system after a second, also while
/// nothing is allocated. `_RJEM_MALLOC_CONF` of the environment is read after it and wins.
#[cfg(all(feature = "jemalloc", not(windows)))]
#[allow(unsafe_code, reason = "a C string under a name of jemalloc's; its type is the size of a pointer")]
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Bytes that the kernel may hold unsent: little, so that a probe is never stuck behind much (what is sent
/// and unacknowledged is not counted here).
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 32 * 1024;

/// Asks the kernel what it knows of the peer; `None` where it can't tell.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_view(stream: &TcpStream) -> Option<KernelView> {
    linux::kernel_view(stream)
}

/// Asks the kernel what it knows of the peer; `None` where it can't tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel_view(_stream: &TcpStream) -> Option<KernelView> {
    None
}

/// Asks the kernel how many bytes that we wrote the peer's has not acknowledged, sent or not; `None` where it can't
/// tell.
#[cfg(target_os = "linux")]
pub(crate) fn unacked_bytes(stream: &TcpStream) -> Option<u64> {
    linux::unacked_bytes(stream)
}

/// Asks the kernel how many bytes that we wrote the peer's has not acknowledged, sent or not; `None` where it can't
/// tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn unacked_bytes(_stream: &TcpStream) -> Option<u64> {
    None
}

/// Returns whether bytes wait to be read, or an end of file.
///
/// # Errors
/// The connection is broken. The kernel tells that once, so a read that comes later sees an end of file only.
pub(crate) fn has_bytes_waiting(stream: &TcpStream) -> io::Result<bool> {
    match SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns whether the peer has already left: the next thing to read is the end.
pub(crate) fn is_over(stream: &TcpStream) -> bool {
    match SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Sets the options of a session's socket, which has TCP_NODELAY from its handshake. None of them is needed to be
/// correct, so a kernel that does not know one of them is no reason to refuse.
pub(crate) fn prepare(stream: &TcpStream, limits: &Limits) {
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
        // The backstop behind all verdicts (RFC 5482).
        let _ = socket.set_tcp_user_timeout(Some(limits.backstop()));
        // After a stall of the network the peer's next bytes wait for our kernel's next retransmission, whose
        // gaps double (RFC 6298 section 5.5): a living peer would be heard as late as twice the stall. So the
        // gaps are even at first, for the few segments that a probe is, and bounded (Linux 6.15 and later).
        let _ = socket.set_tcp_thin_linear_timeouts(true);
        linux::set_retransmission_gap_max(stream, limits.retransmission_gap_max());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, limits);
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "TCP_INFO, SIOCOUTQ and TCP_RTO_MAX_MS are in no safe crate")]
mod linux {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use pulsegate_heartbeat::KernelView;
    use tokio::net::TcpStream;

    /// From linux/tcp.h; the libc crate has no name for it yet.
    const TCP_RTO_MAX_MS: libc::c_int = 44;

    pub(super) fn set_retransmission_gap_max(stream: &TcpStream, gap: Duration) {
        let millis = libc::c_int::try_from(gap.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the option takes one int, which outlives the call. An older kernel refuses; so be it.
        unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_RTO_MAX_MS,
                (&raw const millis).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }

    pub(super) fn kernel_view(stream: &TcpStream) -> Option<KernelView> {
        let fd = stream.as_raw_fd();
        let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: `info` is writable for `len` bytes, which the kernel does not exceed.
        let outcome = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
        };
        if outcome != 0 {
            return None;
        }
        // SAFETY: zeroed memory is a valid tcp_info (integers only); an older kernel filled less of it.
        let info = unsafe { info.assume_init() };
        Some(KernelView {
            unacked_bytes: unacked_bytes(stream)?,
            // The first probe of a shut window may just be on its way.
            retransmits: u32::from(info.tcpi_retransmits) + u32::from(info.tcpi_probes.saturating_sub(1)),
            since_last_ack: Duration::from_millis(u64::from(info.tcpi_last_ack_recv)),
        })
    }

    pub(super) fn unacked_bytes(stream: &TcpStream) -> Option<u64> {
        let mut queued: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (TIOCOUTQ on a TCP socket) writes one int.
        let outcome = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
        if outcome == 0 { u64::try_from(queued).ok() } else { None }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_session_socket_has_the_backstop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let second = Duration::from_secs(1);
        let limits = Limits {
            ping_interval: second,
            verdict_after: 2 * second,
            frozen_after: 30 * second,
            idle_timeout: 60 * second,
            write_stall_after: 3 * second,
        };
        prepare(&stream, &limits);
        let timeout = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(65 * second), "the longest limit, the bound and one verdict more");
    }

    #[tokio::test]
    async fn the_kernel_tells_what_is_unacknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        ours.write_all(b"hello").await.unwrap();
        theirs.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(kernel_view(&ours).unwrap().unacked_bytes, 0);

        // A peer that does not read closes its window: what we write beyond it stays with us.
        while ours.try_write(&[0; 65_536]).is_ok() {}
        assert!(kernel_view(&ours).unwrap().unacked_bytes > 0);
    }
}
