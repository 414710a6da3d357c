//! Leaving: nothing new comes in, sessions are closed over a window so that clients don't come back all at
//! once, and after the deadline the rest is cut.

use std::sync::Arc;
use std::time::Duration;

use pulsegate_core::{CloseFrame, EndReason};
use pulsegate_registry::Lookup;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::feed::What;
use crate::shared::Shared;

/// Service restart: what clients that reconnect by themselves take for "come back" (RFC 6455 registry).
const SERVICE_RESTART: u16 = 1012;

/// Even in a hurry Close frames get this long to be written.
const LAST_WORDS_MAX: Duration = Duration::from_millis(250);

/// How often the list is looked at again for sessions whose handshake was under way.
const LOOK_AGAIN_EVERY: Duration = Duration::from_millis(50);

/// Ends all sessions: each at a random moment within its share of `drain.window`, all of what is left at
/// `drain.deadline` or when `hurry` is cancelled.
pub(crate) async fn drain(shared: &Arc<Shared>, hurry: CancellationToken) {
    let started = Instant::now();
    let deadline = started + shared.config.drain.deadline;
    shared.stop.cancel();
    shared.metrics.draining(true);
    let sessions = shared.registry.snapshot();
    tracing::info!(sessions = sessions.len(), "draining");
    shared.feed.publish(What::DrainStarted { sessions: sessions.len() });

    let share = shared.config.drain.window.min(shared.config.drain.deadline) / (sessions.len().max(1) as u32);
    for (place, entry) in sessions.into_iter().enumerate() {
        // Nobody waits for the turn of a session that has ended by itself.
        if !matches!(shared.registry.find(entry.id()), Lookup::Live(_)) {
            continue;
        }
        let at = started + share.mul_f64(place as f64 + fastrand::f64());
        tokio::select! {
            () = sleep_until(at) => {}
            () = hurry.cancelled() => {}
        }
        entry.handle().end(EndReason::Drained, farewell());
    }
    let hurried = async {
        hurry.cancelled().await;
        sleep(LAST_WORDS_MAX).await;
    };
    tokio::select! {
        _ = timeout_at(deadline, wait_for_the_rest(shared)) => {}
        () = hurried => {}
    }
    // Plain requests count too: a long poll under way holds the drain until its deadline.
    let (left, requests) = (shared.sessions.len(), shared.connections.len());
    if left + requests > 0 {
        tracing::warn!(left, requests, "sessions and requests are cut: the drain is over");
    }
    shared.feed.publish(What::DrainFinished { left });
    tracing::info!(left, requests, seconds = started.elapsed().as_secs_f64(), "drained");
}

/// Waits until no session and no request is left; ends what came in while the others were being closed.
async fn wait_for_the_rest(shared: &Shared) {
    shared.connections.close();
    shared.sessions.close();
    loop {
        for entry in shared.registry.snapshot() {
            entry.handle().end(EndReason::Drained, farewell());
        }
        if shared.connections.is_empty() && shared.sessions.is_empty() {
            return;
        }
        let look_again = Instant::now() + LOOK_AGAIN_EVERY;
        let _ = timeout_at(look_again, async {
            shared.connections.wait().await;
            shared.sessions.wait().await;
        })
        .await;
    }
}

fn farewell() -> CloseFrame {
    CloseFrame::new(SERVICE_RESTART, "gateway is restarting, come back")
}
