//! Was the verdict right? The socket of a peer that was declared dead is kept for a little while. If bytes
//! come after all, or are taken where that was the fault, the verdict was too hasty: an operator sees it and can
//! raise the limit.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pulsegate_core::{Cause, Leg, SessionId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::front::Place;
use crate::shared::{Shared, clock};
use crate::sys;

/// Sockets kept at the same time; more of the dead are dropped at once. When thousands die together a sample
/// says enough, and descriptors and kernel buffers of the dead must not pile up.
pub(crate) const VIGILS_MAX: usize = 256;

/// Keeps the socket for one `verdict_after`, then resets it. `place` is held as long.
pub(super) fn keep(
    shared: &Arc<Shared>,
    mut stream: TcpStream,
    place: Option<Place>,
    id: SessionId,
    leg: Leg,
    cause: Cause,
) {
    if cause != Cause::Frozen {
        // Closing is then a reset: the kernel frees its buffers at once. If this fails the connection is gone
        // already.
        let _ = stream.set_zero_linger();
    }
    let Ok(seat) = Arc::clone(&shared.vigils).try_acquire_owned() else {
        // A place is free when its socket is closed, not before.
        drop((stream, place));
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let verdict = clock();
        if cause == Cause::Frozen {
            // FIN behind the Close frame, for a process that wakes up.
            let _ = stream.shutdown().await;
        }
        let patience = shared.session_limits.client.verdict_after;
        let alive = async {
            match cause {
                Cause::WriteStalled => takes_bytes(&stream, patience).await,
                Cause::Unreachable | Cause::Frozen => {
                    read_away(&stream);
                    timeout(patience, first_bytes(&stream)).await.is_ok_and(|came| came)
                }
            }
        };
        let alive = tokio::select! {
            alive = alive => alive,
            () = shared.stop.cancelled() => false,
        };
        if alive {
            let late = clock().saturating_duration_since(verdict).as_secs_f64();
            shared.metrics.leg(leg).false_eviction(cause);
            tracing::warn!(%id, %leg, %cause, late_seconds = late, "a peer declared dead is alive");
        }
        drop((stream, place, seat));
    });
}

/// Returns whether the peer's kernel takes some of what waits for it: one whose write stalled was perhaps heard
/// all the time, so its bytes say nothing.
async fn takes_bytes(stream: &TcpStream, patience: Duration) -> bool {
    let unacked = || sys::unacked_bytes(stream);
    let before = unacked();
    sleep(patience).await;
    // After a reset nothing waits either.
    let fewer = unacked().zip(before).is_some_and(|(now, before)| now < before);
    fewer && matches!(stream.take_error(), Ok(None))
}

/// Drops what came before the verdict and was not read, since the other side took nothing.
fn read_away(stream: &TcpStream) {
    let mut scrap = [0; 4096];
    // No receive buffer is larger; who fills it faster than it is emptied is heard below.
    let reads_max = (64 << 20) / scrap.len();
    for _ in 0..reads_max {
        if !stream.try_read(&mut scrap).is_ok_and(|read| read > 0) {
            break;
        }
    }
}

/// Waits for the first byte of the peer; false if the connection ends without one.
async fn first_bytes(stream: &TcpStream) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match stream.try_read(&mut [0; 1]) {
            Ok(read) => return read > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}
