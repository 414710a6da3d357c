//! The proxy: its listener, its connections, its end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Connection, ConnectionId, ConnectionInfo, lock};
use crate::control::{Control, Scope};
use crate::faults::{Direction, Faults};
use crate::relay;

/// Most connections at a time; further ones wait in the kernel's backlog.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Pause after a failed accept: out of descriptors, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long [`FaultProxy::shutdown`] waits for the tasks.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// A TCP proxy with faults, running until it is shut down or dropped.
pub struct FaultProxy {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    target: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Tasks of the proxy were still running when the time for a shutdown was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks of the fault proxy still run {} s after they were told to stop", SHUTDOWN_MAX.as_secs())]
pub struct ShutdownTimedOut {
    /// How many.
    pub tasks: usize,
}

impl FaultProxy {
    /// Starts forwarding what `listener` accepts to `target`, without faults, with a random seed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(listener: TcpListener, target: SocketAddr) -> FaultProxy {
        FaultProxy::start_seeded(listener, target, fastrand::u64(..))
    }

    /// Starts like [`FaultProxy::start`], with this seed: each connection's jitter then depends only on the
    /// seed, on its number and on how its bytes come in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_seeded(listener: TcpListener, target: SocketAddr, seed: u64) -> FaultProxy {
        let local_addr = listener.local_addr().expect("a bound listener has an address");
        let state = State { all: [Faults::default(); 2], connections: BTreeMap::new(), accepted: 0 };
        let (news, _) = watch::channel(());
        let shared = Arc::new(Shared { seed, state: Mutex::new(state), news });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let acceptor =
            Acceptor { listener, target, shared: shared.clone(), tasks: tasks.clone(), stop: stop.clone() };
        tasks.spawn(acceptor.run());
        FaultProxy { shared, local_addr, target, tasks, stop }
    }

    /// Returns the address to connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the address that connections are forwarded to.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Returns the seed of all that is random here.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Returns the faults that a new connection gets in `direction`.
    pub fn faults(&self, direction: Direction) -> Faults {
        lock(&self.shared.state).all[direction.index()]
    }

    /// Returns the open connections, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        lock(&self.shared.state).connections.values().map(|connection| connection.info()).collect()
    }

    /// Waits until the open connections are as `condition` wants them, and returns them. It looks again
    /// whenever one opens, reaches the target, moves bytes or ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn connections_when(
        &self,
        mut condition: impl FnMut(&[ConnectionInfo]) -> bool,
    ) -> Vec<ConnectionInfo> {
        let mut news = self.shared.news.subscribe();
        loop {
            news.mark_unchanged();
            let connections = self.connections();
            if condition(&connections) {
                return connections;
            }
            news.changed().await.expect("the sender lives in `shared`");
        }
    }

    /// Returns the control of all connections, present and future.
    pub fn all(&self) -> Control {
        Control::new(self.shared.clone(), Scope::All)
    }

    /// Returns the control of one connection, if it is still open.
    pub fn connection(&self, id: ConnectionId) -> Option<Control> {
        let connection = lock(&self.shared.state).connections.get(&id).cloned()?;
        Some(Control::new(self.shared.clone(), Scope::One(connection)))
    }

    /// Closes the listener and all connections, frozen or not, and waits for the tasks, 5 s at most.
    ///
    /// # Errors
    /// Tasks that still run.
    pub async fn shutdown(&self) -> Result<(), ShutdownTimedOut> {
        self.stop.cancel();
        self.tasks.close();
        let waited = tokio::time::timeout(SHUTDOWN_MAX, self.tasks.wait()).await;
        waited.map_err(|_| ShutdownTimedOut { tasks: self.tasks.len() })
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for FaultProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultProxy")
            .field("seed", &self.shared.seed)
            .field("local_addr", &self.local_addr)
            .field("target", &self.target)
            .field("connections", &lock(&self.shared.state).connections.len())
            .finish_non_exhaustive()
    }
}

/// What the proxy, its controls and its tasks share. Lock order: the state, then a connection's pipe.
#[derive(Debug)]
pub(crate) struct Shared {
    seed: u64,
    state: Mutex<State>,
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// What a new connection gets, per direction.
    all: [Faults; 2],
    connections: BTreeMap<ConnectionId, Arc<Connection>>,
    accepted: u64,
}

impl Shared {
    /// Lets a control change all connections and the faults of those to come, as one step.
    pub(crate) fn with_all(
        &self,
        change: impl FnOnce(&mut [Faults; 2], &mut dyn Iterator<Item = &Connection>),
    ) {
        let State { all, connections, .. } = &mut *lock(&self.state);
        change(all, &mut connections.values().map(|connection| &**connection));
    }

    fn admit(self: &Arc<Self>, peer: SocketAddr) -> Listed {
        let mut state = lock(&self.state);
        state.accepted += 1;
        let id = ConnectionId(state.accepted);
        let connection = Arc::new(Connection::new(id, peer, state.all, self.seed, self.news.clone()));
        state.connections.insert(id, connection.clone());
        self.news.send_replace(());
        Listed { shared: self.clone(), connection }
    }
}

/// A place in the list of connections, given back on drop.
struct Listed {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.shared.state).connections.remove(&self.connection.id);
        self.shared.news.send_replace(());
    }
}

struct Acceptor {
    listener: TcpListener,
    target: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Acceptor {
    async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Some(accepted) = self.stop.run_until_cancelled(self.next(&places)).await else {
                return;
            };
            match accepted {
                Ok((client, peer, place)) => self.serve(client, peer, place),
                Err(_) => {
                    self.stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
                }
            }
        }
    }

    async fn next(
        &self,
        places: &Arc<Semaphore>,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = places.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (client, peer) = self.listener.accept().await?;
        Ok((client, peer, place))
    }

    fn serve(&self, client: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let listed = self.shared.admit(peer);
        let (stop, target) = (self.stop.clone(), self.target);
        self.tasks.spawn(async move {
            stop.run_until_cancelled(relay::run(client, target, &listed.connection)).await;
            drop((listed, place));
        });
    }
}
