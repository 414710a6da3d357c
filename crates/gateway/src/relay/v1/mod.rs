//! Sessions of clients that speak `pulsegate.v1`: messages instead of frames, and a client that comes and goes.
//!
//! [`driver`] polls, [`read`] takes what the peers send, [`mod@write`] gives them what is theirs, [`parting`] ends connections
//! that the session has no part in any more.

mod driver;
mod parting;
mod read;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pulsegate_core::v1::{Assembler, Secret};
use pulsegate_core::{Leg, ReservedBits};
use pulsegate_registry::{Hello, Permit, ToApp, V1Session};
use tokio::net::TcpStream;

pub(crate) use parting::refuse;
pub(super) use parting::refuse_late;

use super::fuse::{Failed, Fused, failed};
use super::line::Line;
use super::{Established, bury, list};
use crate::front::Place;
use crate::shared::{Shared, clock};
use crate::sys;
use driver::V1Driver;

/// A connection, and the message that is being put together from its frames.
#[derive(Debug)]
struct V1Line {
    line: Line,
    assembler: Assembler,
    /// What is kept of the last read are whole frames for which there was no room.
    backlog: bool,
}

/// The client's connection, while there is one.
#[derive(Debug)]
struct ClientLine {
    line: V1Line,
    peer: SocketAddr,
    /// Last, so that the place is free only when the socket is closed.
    place: Place,
}

impl V1Line {
    fn new(line: Line) -> V1Line {
        V1Line { line, assembler: Assembler::default(), backlog: false }
    }

    /// Puts a message for the app behind what waits for it.
    fn give(&mut self, message: ToApp<'_>) {
        let mask = self.line.mask();
        self.line.outbox.push_message(message.text, &[message.payload], mask);
    }
}

fn client_line(stream: TcpStream, shared: &Shared, now: Instant) -> V1Line {
    V1Line::new(Line::new(Leg::Client, stream, ReservedBits::None, &shared.v1_frame_limits, shared, now))
}

fn app_line(stream: TcpStream, shared: &Shared, now: Instant) -> V1Line {
    V1Line::new(Line::new(Leg::App, stream, ReservedBits::None, &shared.frame_limits, shared, now))
}

/// Starts the session's task.
pub(super) fn spawn(shared: &Arc<Shared>, established: Established) {
    let (permit, driver) = open(shared, established);
    shared.sessions.spawn(serve(permit, driver));
}

/// A session's task.
#[allow(clippy::manual_async_fn, reason = "an async fn holds what it is given twice")]
fn serve(permit: Permit, mut driver: Box<V1Driver>) -> impl Future<Output = ()> {
    async move {
        let result = Fused(&mut *driver).await;
        let (shared, entry) = (Arc::clone(&driver.shared), Arc::clone(&driver.entry));
        shared.parking.leave(entry.id());
        let (ending, last) = match result {
            Ok(()) => driver.into_end(),
            Err(Failed) => (failed(), None),
        };
        bury(&shared, &entry, ending, last);
        drop(permit);
    }
}

fn open(shared: &Arc<Shared>, established: Established) -> (Permit, Box<V1Driver>) {
    let Established { permit, place, info, client, client_early, app, app_early, redial, .. } = established;
    sys::prepare(&client, &shared.session_limits.client);
    sys::prepare(&app, &shared.session_limits.app);
    let now = clock();
    let (client, app) = (client_line(client, shared, now), app_line(app, shared, now));
    let hello = Hello {
        resume: None,
        is_same_origin: true,
        next: new_secret(),
        behind_proxy: info.client != info.peer.ip().to_canonical(),
        seed: fastrand::u64(..),
    };
    let session = V1Session::new(Arc::clone(&shared.v1_limits), &shared.crowds, permit.id(), &hello, now);
    let peer = info.peer;
    let entry = list(shared, &permit, info, now);
    let client = Box::new(ClientLine { line: client, peer, place });
    let mut driver = V1Driver::new(Arc::clone(shared), entry, session, client, app, redial, now);
    driver.take_early(Leg::Client, &client_early, now);
    driver.take_early(Leg::App, &app_early, now);
    (permit, Box::new(driver))
}

/// Makes the secret for a token: from the system, since whoever guesses it has the session.
pub(crate) fn new_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("a system that serves sockets has random bytes");
    Secret(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session whose client is away holds this, and no buffer. The allocator has pieces of 1,792 bytes, and then of 2,048.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn the_driver_of_a_session_takes_1_792_bytes() {
        let size = size_of::<V1Driver>();
        assert!(size <= 1792, "{size}");
    }
}
