//! The threads that serve clients: one per core, each with a runtime of its own. What a worker has taken it
//! serves to the end, so no task and no socket moves between cores, and none has to be locked.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::front::Acceptor;

/// How many connections more than the least busy worker another may have, besides an eighth: a few are not worth
/// the way to another thread.
const AHEAD_MAX: usize = 1;

/// Threads that may wait for the resolver of names, all workers together; a gateway asks for one name.
const BLOCKING_THREADS_MAX: usize = 512;

/// The runtimes of all workers, before they run.
pub(crate) struct Workers {
    runtimes: Vec<Engine>,
}

/// A worker's runtime.
struct Engine(Option<Runtime>);

impl Workers {
    /// Makes one runtime per core that this process may use.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn new() -> io::Result<Workers> {
        Workers::of(thread::available_parallelism().map_or(1, usize::from))
    }

    fn of(count: usize) -> io::Result<Workers> {
        Ok(Workers { runtimes: (0..count).map(|_| Engine::new(count)).collect::<io::Result<_>>()? })
    }

    /// Returns how the workers are reached.
    pub(crate) fn team(&self) -> Team {
        Team::new(self.runtimes.iter().map(Engine::handle))
    }

    /// Starts the threads: each accepts connections from `listener` until the gateway stops, and serves them until
    /// `finish` is cancelled. The last one to end drops the last clone of `running`. One that ends before, by a
    /// panic, cancels the token that is returned: what it served is gone, and what it would be given is lost.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor; those that run already end with `finish`.
    pub(crate) fn start(
        self,
        acceptor: &Arc<Acceptor>,
        listener: TcpListener,
        finish: &CancellationToken,
        running: &TaskTrackerToken,
    ) -> io::Result<CancellationToken> {
        let (listener, failed) = (listener.into_std()?, CancellationToken::new());
        for (place, engine) in self.runtimes.into_iter().enumerate() {
            let (acceptor, finish) = (Arc::clone(acceptor), finish.clone());
            let (running, unless_finished) = (running.clone(), failed.clone().drop_guard());
            let listener = engine.adopt(listener.try_clone()?)?;
            let work = async move {
                tokio::select! {
                    () = acceptor.serve(listener, place) => finish.cancelled().await,
                    // A gateway that is given up does not stop before it finishes.
                    () = finish.cancelled() => {}
                }
            };
            thread::Builder::new().name(format!("worker-{place}")).spawn(move || {
                engine.block_on(work);
                unless_finished.disarm();
                drop(engine);
                drop(running);
            })?;
        }
        Ok(failed)
    }
}

impl Engine {
    fn new(workers: usize) -> io::Result<Engine> {
        let blocking_max = BLOCKING_THREADS_MAX.div_ceil(workers);
        let runtime =
            Builder::new_current_thread().enable_all().max_blocking_threads(blocking_max).build()?;
        Ok(Engine(Some(runtime)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("a runtime is taken only when this is dropped")
    }

    fn handle(&self) -> Handle {
        self.runtime().handle().clone()
    }

    /// Makes `listener` known to this runtime.
    fn adopt(&self, listener: std::net::TcpListener) -> io::Result<TcpListener> {
        let _entered = self.runtime().enter();
        TcpListener::from_std(listener)
    }

    fn block_on(&self, work: impl Future<Output = ()>) {
        self.runtime().block_on(work);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A runtime's own drop waits for a resolver that hangs, and panics where another runtime runs.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// All workers, as each of them sees them.
pub(crate) struct Team {
    workers: Box<[Worker]>,
}

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection that a worker serves; it no longer counts when this is dropped.
pub(crate) struct Load(Arc<AtomicUsize>);

impl Team {
    /// The workers behind `runtimes`.
    pub(crate) fn new(runtimes: impl IntoIterator<Item = Handle>) -> Team {
        let worker = |runtime| Worker { runtime, connections: Arc::default() };
        Team { workers: runtimes.into_iter().map(worker).collect() }
    }

    /// Chooses who serves a connection that worker `here` has accepted: itself, unless it has much more to do than
    /// another. Connections last, and those of one worker can't move to another later.
    pub(crate) fn choose(&self, here: usize) -> usize {
        let connections = |place: usize| self.workers[place].connections.load(Relaxed);
        let Some(least) = (0..self.workers.len()).min_by_key(|&place| connections(place)) else {
            return here;
        };
        let fair = connections(least) + connections(least) / 8 + AHEAD_MAX;
        if connections(here) > fair { least } else { here }
    }

    /// Counts a connection of worker `place`.
    pub(crate) fn load(&self, place: usize) -> Load {
        let connections = Arc::clone(&self.workers[place].connections);
        connections.fetch_add(1, Relaxed);
        Load(connections)
    }

    /// Returns the runtime of worker `place`.
    pub(crate) fn runtime(&self, place: usize) -> &Handle {
        &self.workers[place].runtime
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::front::listen;
    use crate::shared::Shared;
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn workers_that_never_ran_are_dropped_within_another_runtime() {
        drop(Workers::of(3).unwrap());
    }

    #[tokio::test]
    async fn a_worker_that_fails_is_told_and_one_that_finishes_is_not() {
        for is_sound in [true, false] {
            let workers = Workers::of(1).unwrap();
            let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = listener.local_addr().unwrap();
            // One that is in no team can't count what it takes.
            let team = if is_sound { workers.team() } else { Team::new([]) };
            let acceptor = Arc::new(Acceptor::new(&Arc::new(Shared::new(Config::default())), team));
            let (finish, running) = (CancellationToken::new(), TaskTracker::new());
            let failed = workers.start(&acceptor, listener, &finish, &running.token()).unwrap();
            let _client = TcpStream::connect(address).await.unwrap();
            if is_sound {
                finish.cancel();
            }
            running.close();
            timeout(PATIENCE, running.wait()).await.expect("the worker ends");
            assert_eq!(failed.is_cancelled(), !is_sound);
        }
    }

    #[tokio::test]
    async fn a_worker_keeps_what_it_accepts_until_another_has_much_less_to_do() {
        let team = Team::new([Handle::current(), Handle::current()]);
        let mut loads = Vec::new();
        for _ in 0..1000 {
            loads.push(team.load(team.choose(0)));
        }
        let counts =
            || team.workers.iter().map(|worker| worker.connections.load(Relaxed)).collect::<Vec<_>>();
        let all = counts();
        assert!(all[0] > all[1] && all[0] <= all[1] + all[1] / 8 + AHEAD_MAX + 1, "{all:?}");
        assert_eq!(all.iter().sum::<usize>(), 1000);
        loads.clear();
        assert_eq!(counts(), [0, 0]);
        assert_eq!(team.choose(1), 1);
    }
}
