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

/// The runtimes of all workers, before they run.
pub(crate) struct Workers {
    runtimes: Vec<Runtime>,
}

impl Workers {
    /// Makes one runtime per core that this process may use.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn new() -> io::Result<Workers> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let runtime = |_| Builder::new_current_thread().enable_all().build();
        Ok(Workers { runtimes: (0..count).map(runtime).collect::<io::Result<_>>()? })
    }

    /// Returns how the workers are reached.
    pub(crate) fn team(&self) -> Team {
        Team::new(self.runtimes.iter().map(|runtime| runtime.handle().clone()))
    }

    /// Starts the threads: each accepts connections from `listener` until the gateway stops, and serves them until
    /// `finish` is cancelled. The last one to end drops the last clone of `running`.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor; those that run already end with `finish`.
    pub(crate) fn start(
        mut self,
        acceptor: &Arc<Acceptor>,
        listener: TcpListener,
        finish: &CancellationToken,
        running: &TaskTrackerToken,
    ) -> io::Result<()> {
        let listener = listener.into_std()?;
        for (place, runtime) in self.runtimes.drain(..).enumerate() {
            let (acceptor, finish) = (Arc::clone(acceptor), finish.clone());
            let (listener, running) = (listener.try_clone()?, running.clone());
            let work = async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => acceptor.serve(listener, place).await,
                    Err(error) => tracing::error!(%error, place, "a worker can't accept connections"),
                }
                finish.cancelled().await;
            };
            thread::Builder::new().name(format!("worker-{place}")).spawn(move || {
                runtime.block_on(work);
                // Without waiting for a resolver that hangs.
                runtime.shutdown_background();
                drop(running);
            })?;
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..) {
            // Its plain drop waits, which it may not do within another runtime.
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
