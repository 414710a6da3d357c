//! The event feed: what happened, kept in a bounded ring and announced to readers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pulsegate_core::{Leg, Level, MessageId, Outcome, SessionId};
use pulsegate_heartbeat::Verdict;
use pulsegate_registry::{EventRing, Replay, SessionInfo, Tombstone};
use tokio::sync::watch;

/// One line of the feed.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) at: SystemTime,
    pub(crate) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    SessionOpened {
        id: SessionId,
        info: Arc<SessionInfo>,
    },
    SessionSuspect {
        id: SessionId,
        leg: Leg,
    },
    SessionRecovered {
        id: SessionId,
        leg: Leg,
    },
    SessionDead {
        id: SessionId,
        leg: Leg,
        verdict: Box<Verdict>,
    },
    SessionConfirmed {
        id: SessionId,
        level: Level,
        messages: u64,
    },
    /// The client has no connection; the session waits for it.
    SessionDetached {
        id: SessionId,
        why: &'static str,
    },
    /// The client is back.
    SessionResumed {
        id: SessionId,
        peer: SocketAddr,
        outage: Duration,
        to_client: u64,
    },
    /// The app's connection is lost; the session waits for the app.
    SessionAppDetached {
        id: SessionId,
        why: Box<str>,
    },
    /// The app is back.
    SessionAppResumed {
        id: SessionId,
        outage: Duration,
        again: u64,
    },
    SessionEnded {
        tombstone: Arc<Tombstone>,
    },
    MessageSettled {
        id: MessageId,
        session: SessionId,
        requested: Level,
        outcome: Outcome,
        elapsed: Duration,
    },
    DrainStarted {
        sessions: usize,
    },
    DrainFinished {
        left: usize,
    },
}

/// Everybody publishes here; readers follow at their own pace and never slow a publisher down.
pub(crate) struct Feed {
    /// Milliseconds of the process' start: tells a number of this run from one of an earlier run.
    boot: u64,
    ring: Mutex<EventRing<Notice>>,
    last: watch::Sender<u64>,
}

impl Feed {
    pub(crate) fn new(boot: u64, events_max: usize) -> Feed {
        Feed { boot, ring: Mutex::new(EventRing::new(events_max)), last: watch::Sender::new(0) }
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Appends an event. Events of one session keep the order in which its task published them.
    pub(crate) fn publish(&self, what: What) {
        let mut ring = self.lock();
        let event = ring.push(Notice { at: SystemTime::now(), what });
        self.last.send_replace(event.sequence);
    }

    /// Returns what followed number `after`.
    pub(crate) fn since(&self, after: u64, limit: usize) -> Replay<Notice> {
        self.lock().since(after, limit)
    }

    /// Returns a receiver that changes with each event; its value is the number of the last one.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, EventRing<Notice>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
