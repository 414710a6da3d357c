//! What the task of a connection, its controls and its observers share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::faults::{Direction, Faults};
use crate::link::Link;

/// Names a connection for the life of its proxy; numbers rise in the order of acceptance, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection through the proxy, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its name.
    pub id: ConnectionId,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address from which the proxy reached the target, so what the target sees as its peer; `None`
    /// until then.
    pub upstream: Option<SocketAddr>,
    /// What the client sends.
    pub to_target: DirectionInfo,
    /// What the target sends.
    pub to_client: DirectionInfo,
}

/// One direction of a connection, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectionInfo {
    /// The faults in force.
    pub faults: Faults,
    /// Bytes written to the receiver's socket.
    pub forwarded_bytes: u64,
    /// Bytes read from the sender and not yet written.
    pub held_bytes: usize,
}

/// The shared half of a connection.
///
/// The links stand behind a lock so that a fault is in force when the call that set it returns: reading
/// into a link and writing out of it happen under the same lock.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pipe: Mutex<Pipe>,
    /// Only the connection's task waits here.
    wake: Notify,
    news: watch::Sender<()>,
}

/// Both directions, and what was asked of the connection as a whole.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) links: [Link; 2],
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) reset: bool,
}

impl Connection {
    /// Creates the shared half; whoever watches `news` hears of each step.
    pub(crate) fn new(
        id: ConnectionId,
        peer: SocketAddr,
        faults: [Faults; 2],
        seed: u64,
        news: watch::Sender<()>,
    ) -> Connection {
        let links = Direction::BOTH.map(|direction| {
            let index = direction.index();
            Link::new(faults[index], seed_of(seed, id.0 * 2 + index as u64))
        });
        let pipe = Mutex::new(Pipe { links, upstream: None, reset: false });
        Connection { id, peer, pipe, wake: Notify::new(), news }
    }

    /// Changes something on behalf of a control, and wakes the task.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Pipe, Instant) -> T) -> T {
        let result = change(&mut lock(&self.pipe), now());
        self.wake.notify_one();
        result
    }

    /// Lets the task work on the pipe; `step` says whether there is news for observers.
    pub(crate) fn step<T>(&self, step: impl FnOnce(&mut Pipe, Instant) -> (T, bool)) -> T {
        let mut pipe = lock(&self.pipe);
        let (result, is_news) = step(&mut pipe, now());
        // Under the lock: an observer either sees the step's result or is counted here already.
        if is_news && self.news.receiver_count() > 0 {
            self.news.send_replace(());
        }
        result
    }

    /// Waits until a control has changed something. Only the connection's task may wait.
    ///
    /// # Cancel safety
    /// A change that comes between two calls is kept for the second.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Waits until `condition` holds. Only the connection's task may wait.
    pub(crate) async fn until(&self, condition: impl Fn(&Pipe) -> bool) {
        while !condition(&lock(&self.pipe)) {
            self.changed().await;
        }
    }

    pub(crate) fn info(&self) -> ConnectionInfo {
        let pipe = lock(&self.pipe);
        let [to_target, to_client] = &pipe.links;
        ConnectionInfo {
            id: self.id,
            peer: self.peer,
            upstream: pipe.upstream,
            to_target: direction_info(to_target),
            to_client: direction_info(to_client),
        }
    }
}

impl Pipe {
    pub(crate) fn is_frozen(&self, direction: Direction) -> bool {
        self.links[direction.index()].faults().frozen
    }
}

/// Locks, also after a panic elsewhere: no lock in this crate is held while its data is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the clock for the machines; under tokio's paused clock too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn direction_info(link: &Link) -> DirectionInfo {
    DirectionInfo {
        faults: link.faults(),
        forwarded_bytes: link.forwarded_bytes(),
        held_bytes: link.held_bytes(),
    }
}

/// Spreads one seed over many links: neighbours must not draw alike.
fn seed_of(seed: u64, index: u64) -> u64 {
    fastrand::Rng::with_seed(seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u64(..)
}
