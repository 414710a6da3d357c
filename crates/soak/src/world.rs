//! What all that takes part in a run shares.

use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::history::History;

/// What all that takes part in a run shares.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) history: History,
    /// The most that each says each way.
    pub(crate) messages: u64,
    /// Clients that were greeted.
    pub(crate) live: AtomicUsize,
    /// Nobody says anything new.
    pub(crate) quiet: CancellationToken,
    /// Everybody ends.
    pub(crate) over: CancellationToken,
}

impl World {
    pub(crate) fn new(clients: usize, messages: u64, now: Instant) -> World {
        World {
            history: History::new(clients, now),
            messages,
            live: AtomicUsize::new(0),
            quiet: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }
}
