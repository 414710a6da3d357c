//! Was the verdict right? The socket of a peer that was declared dead is kept for a little while, and if
//! bytes come after all, the verdict was too hasty: an operator sees it and can raise the limit.

use std::io;
use std::sync::Arc;

use pulsegate_core::{Cause, Leg, SessionId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::front::Place;
use crate::shared::{Shared, clock};

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
    let Ok(seat) = Arc::clone(&shared.vigils).try_acquire_owned() else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let verdict = clock();
        if cause == Cause::Frozen {
            // FIN behind the Close frame, for a process that wakes up.
            let _ = stream.shutdown().await;
        }
        let patience = shared.session_limits.client.verdict_after;
        let came = tokio::select! {
            came = timeout(patience, first_bytes(&stream)) => came.is_ok_and(|came| came),
            () = shared.stop.cancelled() => false,
        };
        if came {
            let late = clock().saturating_duration_since(verdict).as_secs_f64();
            shared.metrics.leg(leg).false_eviction(cause);
            tracing::warn!(%id, %leg, %cause, late_seconds = late, "a peer declared dead was heard again");
        }
        drop((stream, place, seat));
    });
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
