//! The accept loop: takes connections, refuses those beyond the cap, and outlives a shortage of sockets.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::connection;
use super::place::Places;
use super::rejection::Rejection;
use super::service::{Front, Relay};
use crate::http_serve::concerns_one_connection;
use crate::relay;
use crate::shared::Shared;
use crate::workers::Team;

/// First pause after an accept that failed; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// At most one line about failing accepts in this time.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Refused connections that are closed with patience at once; more are cut right behind the refusal, which
/// some clients then don't get to read.
const REFUSALS_MAX: usize = 64;

/// Takes connections for all workers.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    front: Arc<Front>,
    places: Places,
    refusals: Arc<Semaphore>,
    trouble: Mutex<Trouble>,
    team: Team,
}

impl Acceptor {
    /// Makes sessions of what becomes one.
    ///
    /// # Panics
    /// When `upstream.url` is not `http://host:port`, which the configuration refuses.
    pub(crate) fn new(shared: &Arc<Shared>, team: Team) -> Acceptor {
        Acceptor::with_relay(shared, team, Arc::new(relay::spawn))
    }

    /// Hands what becomes a session to `relay`.
    pub(super) fn with_relay(shared: &Arc<Shared>, team: Team, relay: Arc<Relay>) -> Acceptor {
        Acceptor {
            places: Places::new(shared),
            front: Arc::new(Front::new(shared, relay)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            trouble: Mutex::default(),
            shared: Arc::clone(shared),
            team,
        }
    }

    /// Serves clients on `listener` until the gateway stops, as worker `here` of the team; connections live on as
    /// tasks of `shared.connections`.
    pub(crate) async fn serve(&self, listener: TcpListener, here: usize) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.note_accepted();
                    // An IPv4 client of a socket for both has an IPv6 address around its own.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    self.take(stream, peer, here);
                    // Sessions come first: when thousands come back at once, each gets its turn behind what the living
                    // have to do, not before it.
                    yield_now().await;
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "a connection was gone before accept")
                }
                Err(error) => {
                    let pause = self.note_failed(&error, Instant::now());
                    tokio::select! {
                        () = self.shared.stop.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// One worker's success shows that there are sockets again for all.
    fn note_accepted(&self) {
        if self.trouble().over() {
            self.shared.metrics.accept_works();
        }
    }

    /// Returns how long the worker has to wait.
    fn note_failed(&self, error: &io::Error, now: Instant) -> Duration {
        self.shared.metrics.accept_failed();
        self.trouble().pause(error, now)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, here: usize) {
        let worker = self.team.choose(here);
        let Some(place) = self.places.take(self.team.load(worker)) else {
            self.refuse(stream);
            return;
        };
        let front = Arc::clone(&self.front);
        if worker == here {
            self.shared.connections.spawn(connection::run(front, place, stream, peer));
            return;
        }
        let stream = stream.into_std();
        let serve = async move {
            // On the other worker's thread, whose runtime has to know the socket.
            match stream.and_then(TcpStream::from_std) {
                Ok(stream) => connection::run(front, place, stream, peer).await,
                Err(error) => debug!(%error, %peer, "the connection was lost on the way to its worker"),
            }
        };
        self.shared.connections.spawn_on(serve, self.team.runtime(worker));
    }

    /// Answers 503 with bounded work: one write, and patience for a bounded number of connections.
    fn refuse(&self, stream: TcpStream) {
        self.shared.metrics.handshake_rejected(Rejection::ConnectionsMax);
        let bytes = Rejection::ConnectionsMax.problem().into_last_bytes();
        // Straight to the socket: tokio does not know yet that a new one can be written to.
        let written = socket2::SockRef::from(&stream).send(&bytes);
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        if written.is_ok_and(|count| count == bytes.len()) {
            self.shared.connections.spawn(async move {
                connection::close_with_patience(stream).await;
                drop(permit);
            });
        }
    }
}

/// Failing accepts in a row, of all workers: they share the system's sockets, and one line in the log.
#[derive(Default)]
struct Trouble {
    pause: Option<Duration>,
    logged: Option<Instant>,
    unlogged: u64,
}

impl Trouble {
    /// An accept has worked; returns whether others failed before it.
    fn over(&mut self) -> bool {
        self.pause.take().is_some()
    }

    /// Returns how long to wait before the next accept; a busy loop would take the CPU from the sessions
    /// whose end gives sockets back.
    fn pause(&mut self, error: &io::Error, now: Instant) -> Duration {
        let pause = self.pause.map_or(BACKOFF_MIN, |last| (last * 2).min(BACKOFF_MAX));
        self.pause = Some(pause);
        if self.logged.is_none_or(|logged| now - logged >= LOG_EVERY) {
            warn!(%error, more = self.unlogged, "can't accept connections; is the limit of open files too low?");
            self.logged = Some(now);
            self.unlogged = 0;
        } else {
            self.unlogged += 1;
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_second_and_start_over() {
        let mut trouble = Trouble::default();
        let (error, now) = (io::Error::other("no more files"), Instant::now());
        let pauses: Vec<u128> = (0..7).map(|_| trouble.pause(&error, now).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert!(trouble.over() && !trouble.over());
        assert_eq!(trouble.pause(&error, now), BACKOFF_MIN);
    }

    #[test]
    fn failing_accepts_are_logged_once_in_a_while() {
        let mut trouble = Trouble::default();
        let (error, start) = (io::Error::other("no more files"), Instant::now());
        for second in 0..10 {
            trouble.pause(&error, start + Duration::from_secs(second));
        }
        assert_eq!((trouble.logged, trouble.unlogged), (Some(start), 9));
        trouble.pause(&error, start + LOG_EVERY);
        assert_eq!((trouble.logged, trouble.unlogged), (Some(start + LOG_EVERY), 0));
    }
}
