//! What happened in the demo, as the page reads it: the app's own log, and the state of the line.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pulsegate_registry::{EventRing, Replay};
use serde::Serialize;
use tokio::sync::watch;

use super::line::Fault;

/// Entries kept: a page that was away for longer than this misses the oldest.
const ENTRIES_MAX: usize = 1_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Entry {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    /// The page that it concerns; `None`: all of them.
    #[serde(skip)]
    pub(super) tab: Option<String>,
    #[serde(flatten)]
    pub(super) what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum What {
    /// The app: a connection opened.
    Open { connection: u64 },
    /// The app: a message came.
    Message { connection: u64, text: String },
    /// The app: its close handler ran. 1005 is a Close without a code, 1006 none at all (RFC 6455 section 7.4.1).
    Close { connection: u64, code: u16, reason: String },
    /// The app went down.
    Down,
    /// The app listens again.
    Up,
    /// The line of a page changed.
    Line { fault: Fault },
}

/// A bounded log that readers follow at their own pace.
pub(super) struct Journal {
    ring: Mutex<EventRing<Entry>>,
    last: watch::Sender<u64>,
}

impl Journal {
    pub(super) fn new() -> Journal {
        Journal { ring: Mutex::new(EventRing::new(ENTRIES_MAX)), last: watch::Sender::new(0) }
    }

    /// Appends an entry, and returns its time.
    pub(super) fn write(&self, tab: Option<&str>, what: What) -> u64 {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let mut ring = self.lock();
        let entry = ring.push(Entry { at, tab: tab.map(str::to_owned), what });
        self.last.send_replace(entry.sequence);
        at
    }

    /// Returns what followed number `after`.
    pub(super) fn since(&self, after: u64) -> Replay<Entry> {
        self.lock().since(after, ENTRIES_MAX)
    }

    /// Returns a receiver that changes with each entry.
    pub(super) fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, EventRing<Entry>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
