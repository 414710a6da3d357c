//! The session driver: one task owns a session and both its sockets.
//!
//! [`driver`] polls, [`alarm`] wakes it up, [`fuse`] ends it if it fails by our fault, [`forward`] is the data path, [`mod@line`] is one connection,
//! [`outbox`] what waits for a full socket, [`buffer`] the read buffer that all sessions of a thread share,
//! [`mailbox`] how others reach a session, [`messages`] messages to the client and their ends, [`notes`] what is told of peers, [`vigil`] what becomes of the sockets of the dead,
//! [`v1`] the driver of sessions that outlive their client's connections.

mod alarm;
mod buffer;
mod driver;
mod forward;
mod fuse;
mod line;
mod mailbox;
mod messages;
mod notes;
mod outbox;
mod v1;
mod vigil;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use pulsegate_core::{Leg, Outcome, ReservedBits, Sent};
use pulsegate_registry::{Ending, Entry, LastWord, Mode, Permit, Session, SessionInfo, Tombstone};
use tokio::net::TcpStream;

pub(crate) use mailbox::{AppArrival, Arrival, Mailbox, Refusal, Room};
pub(crate) use v1::{new_secret, refuse};
pub(crate) use vigil::VIGILS_MAX;

use crate::feed::What;
use crate::front::{Place, Redial};
use crate::shared::{Shared, clock};
use crate::sys;
use driver::Driver;
use fuse::{Failed, Fused, failed};
use line::Line;

/// A handshake that is done on both sides.
pub(crate) struct Established {
    pub(crate) permit: Permit,
    /// The client connection's place; kept until its socket is closed.
    pub(crate) place: Place,
    pub(crate) info: SessionInfo,
    pub(crate) client: TcpStream,
    /// What the client sent right behind its request.
    pub(crate) client_early: Bytes,
    pub(crate) app: TcpStream,
    /// What the app sent right behind its 101.
    pub(crate) app_early: Bytes,
    /// How to dial the app again, if its restart is to be waited for.
    pub(crate) redial: Option<Arc<Redial>>,
    pub(crate) reserved_bits: ReservedBits,
}

/// Starts the session's task.
pub(crate) fn spawn(shared: &Arc<Shared>, established: Established) {
    match established.info.mode {
        Mode::Plain => {
            let (permit, driver) = open(shared, established);
            shared.sessions.spawn(serve(permit, driver));
        }
        Mode::V1 => v1::spawn(shared, established),
    }
}

/// A session's task.
#[allow(clippy::manual_async_fn, reason = "an async fn holds what it is given twice")]
fn serve(permit: Permit, mut driver: Driver) -> impl Future<Output = ()> {
    async move {
        let result = Fused(&mut driver).await;
        close(driver, result);
        drop(permit);
    }
}

/// Lists the session and makes its driver.
fn open(shared: &Arc<Shared>, established: Established) -> (Permit, Driver) {
    let Established { permit, place, info, client, client_early, app, app_early, reserved_bits, .. } =
        established;
    sys::prepare(&client, &shared.session_limits.client);
    sys::prepare(&app, &shared.session_limits.app);
    let now = clock();
    let lines = [
        Line::new(Leg::Client, client, reserved_bits, &shared.frame_limits, shared, now),
        Line::new(Leg::App, app, reserved_bits, &shared.frame_limits, shared, now),
    ];
    let behind_proxy = info.client != info.peer.ip().to_canonical();
    let limits = if info.receipts { &shared.receipt_limits } else { &shared.session_limits };
    let session = Session::new(Arc::clone(limits), &shared.crowds, behind_proxy, fastrand::u64(..), now);
    let entry = list(shared, &permit, info, now);
    let mut driver = Driver::new(Arc::clone(shared), entry, session, lines, place, now);
    driver.take_early(Leg::Client, &client_early, now);
    driver.take_early(Leg::App, &app_early, now);
    (permit, driver)
}

/// Lists a session.
fn list(shared: &Shared, permit: &Permit, info: SessionInfo, now: Instant) -> Arc<Entry<Mailbox>> {
    // Published first: who finds the session in the registry can find its beginning in the feed.
    let info = Arc::new(info);
    shared.feed.publish(What::SessionOpened { id: permit.id(), info: Arc::clone(&info) });
    shared.metrics.session_opened(info.mode);
    tracing::debug!(id = %permit.id(), peer = %info.peer, path = %info.path, "session opened");
    shared.registry.open(permit, info, Mailbox::default(), now, SystemTime::now())
}

/// Takes the session off the list and tells of its end.
fn close(driver: Driver, result: Result<(), Failed>) {
    let shared = Arc::clone(&driver.shared);
    let entry = Arc::clone(&driver.entry);
    let ending = if result.is_ok() { driver.into_ending() } else { failed() };
    bury(&shared, &entry, ending, None);
}

/// Takes a session off the list and tells of its end.
fn bury(shared: &Arc<Shared>, entry: &Entry<Mailbox>, ending: Ending, last: Option<Box<LastWord>>) {
    let tombstone = shared.registry.close(entry, ending, last, clock(), SystemTime::now());
    // Whoever finds the session from here on finds its tombstone.
    let mail = entry.handle().close();
    for message in mail.messages {
        messages::settle(shared, entry, message.id, Outcome::Expired { sent: Sent::No, reached: None });
    }
    for arrival in mail.arrivals {
        v1::refuse_late(shared, arrival, &tombstone);
    }
    shared.metrics.session_ended(tombstone.ending.reason, tombstone.duration);
    log(&tombstone);
    shared.feed.publish(What::SessionEnded { tombstone });
}

/// One wide line per session (no query, no cookie, no payload).
fn log(tombstone: &Tombstone) {
    let Tombstone { id, info, ending, duration, legs: [client, app], .. } = tombstone;
    tracing::info!(
        %id,
        mode = info.mode.as_str(),
        peer = %info.peer,
        client = %info.client,
        path = %info.path,
        request_id = %info.request_id,
        duration_seconds = duration.as_secs_f64(),
        reason = %ending.reason,
        leg = ending.leg.map(Leg::as_str),
        close = ending.close.as_ref().map(tracing::field::display),
        detail = ending.detail,
        verdict = ending.verdict.as_deref(),
        client_messages = client.messages,
        client_bytes = client.bytes,
        client_round_trip_seconds = client.round_trip.map(|time| time.as_secs_f64()),
        app_messages = app.messages,
        app_bytes = app.bytes,
        app_round_trip_seconds = app.round_trip.map(|time| time.as_secs_f64()),
        "session ended"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What tokio and the tracker keep of a task, before and behind its future, in the same piece of memory.
    const TASK_BYTES: usize = 128;

    fn size_made_by<F>(_: impl FnOnce(Permit, Driver) -> F) -> usize {
        size_of::<F>()
    }

    /// The allocator's pieces are of 2,048 bytes, and then of 2,560.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_task_of_a_session_takes_2_kib() {
        let size = size_made_by(serve);
        assert!(size + TASK_BYTES <= 2048, "{size}");
    }
}
