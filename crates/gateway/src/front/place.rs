//! Places for TCP connections: `limits.connections_max` of them, sessions included.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shared::Shared;
use crate::workers::Load;

/// All places of one listener.
pub(super) struct Places {
    shared: Arc<Shared>,
    free: Arc<Semaphore>,
}

/// One client connection's place, and its being counted; both end with the last clone.
///
/// The relay keeps the place of a session until the client's socket is closed.
#[derive(Clone)]
pub(crate) struct Place {
    _held: Arc<Held>,
}

struct Held {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
    _load: Load,
}

impl Places {
    pub(super) fn new(shared: &Arc<Shared>) -> Places {
        let free = shared.config.limits.connections_max.min(Semaphore::MAX_PERMITS);
        Places { shared: Arc::clone(shared), free: Arc::new(Semaphore::new(free)) }
    }

    /// Takes a place, if one is free, for a connection that is a worker's `load`.
    pub(super) fn take(&self, load: Load) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        self.shared.metrics.connection_opened();
        Some(Place {
            _held: Arc::new(Held { shared: Arc::clone(&self.shared), _permit: permit, _load: load }),
        })
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.metrics.connection_closed();
    }
}
