//! Messages that somebody sent over the control API, and what became of them: kept until the sender has asked, and
//! for a while after their end.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pulsegate_core::{Level, MessageId, Outcome, SessionId};
use pulsegate_registry::Remembered;
use tokio::sync::watch;

/// All of them.
pub(crate) struct Messages {
    /// Tells one body from another where an idempotency key comes again.
    hasher: RandomState,
    kept: Mutex<Kept>,
}

struct Kept {
    records: HashMap<MessageId, Arc<Record>>,
    /// Messages by idempotency key, within a session.
    keys: HashMap<(SessionId, Box<str>), MessageId>,
    /// Those with an end: the ones with a key, whose memory is a promise, are not pushed out by the others.
    keyed: Remembered<MessageId>,
    others: Remembered<MessageId>,
}

/// One message.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: MessageId,
    pub(crate) session: SessionId,
    pub(crate) level: Level,
    pub(crate) bytes: usize,
    pub(crate) accepted_at: SystemTime,
    pub(crate) accepted: Instant,
    key: Option<Box<str>>,
    /// What the request that made it said, for one that comes with the same key.
    fingerprint: u64,
    /// A request waits for it.
    claimed: AtomicBool,
    status: watch::Sender<Status>,
}

/// How far one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Status {
    /// It waits for a place in the stream, or for the socket.
    Queued,
    /// The socket took it, or was given it again.
    Sent { at: SystemTime, attempts: u32 },
    /// Its end.
    Settled {
        outcome: Outcome,
        sent_at: Option<SystemTime>,
        attempts: u32,
        at: SystemTime,
        elapsed: Duration,
    },
}

/// What to do with a request that has an idempotency key.
pub(crate) enum Claim {
    /// There is no such message yet.
    New,
    /// It made this message before.
    Known(Arc<Record>),
    /// The key was used for something else.
    Differs,
    /// The first request with it has no answer yet.
    Busy,
}

/// The right to answer for a message; another request with its key has to wait.
pub(crate) struct Claimed(Arc<Record>);

impl Messages {
    /// Remembers the ends of so many messages with a key, and of so many others, for so long.
    pub(crate) fn new(ends_max: usize, ttl: Duration) -> Messages {
        let kept = Kept {
            records: HashMap::new(),
            keys: HashMap::new(),
            keyed: Remembered::new(ends_max, ttl),
            others: Remembered::new(ends_max, ttl),
        };
        Messages { hasher: RandomState::new(), kept: Mutex::new(kept) }
    }

    /// Returns a number that tells requests apart: the same for the same request.
    pub(crate) fn fingerprint(&self, text: bool, level: Level, ttl: Duration, payload: &[u8]) -> u64 {
        self.hasher.hash_one((text, level, ttl, payload))
    }

    /// Looks whether `key` was used before.
    pub(crate) fn claim(&self, session: SessionId, key: &str, fingerprint: u64) -> Claim {
        let kept = self.lock();
        let known = kept.keys.get(&(session, key.into())).and_then(|id| kept.records.get(id));
        match known {
            None => Claim::New,
            Some(record) if record.fingerprint != fingerprint => Claim::Differs,
            Some(record) if record.claimed.load(Ordering::Acquire) => Claim::Busy,
            Some(record) => Claim::Known(Arc::clone(record)),
        }
    }

    /// Keeps a new message; `false` if its key was taken meanwhile.
    pub(crate) fn keep(&self, record: &Arc<Record>) -> bool {
        let mut kept = self.lock();
        if let Some(key) = &record.key {
            let place = (record.session, key.clone());
            if kept.keys.contains_key(&place) {
                return false;
            }
            kept.keys.insert(place, record.id);
        }
        kept.records.insert(record.id, Arc::clone(record));
        true
    }

    /// Forgets a message that nobody took.
    pub(crate) fn discard(&self, record: &Record) {
        self.lock().remove(record.id);
    }

    pub(crate) fn find(&self, id: MessageId) -> Option<Arc<Record>> {
        self.lock().records.get(&id).map(Arc::clone)
    }

    /// Takes note that the socket took it.
    pub(crate) fn sent(&self, id: MessageId) {
        if let Some(record) = self.find(id) {
            record.status.send_modify(|status| match status {
                Status::Queued => *status = Status::Sent { at: SystemTime::now(), attempts: 1 },
                Status::Sent { attempts, .. } => *attempts = attempts.saturating_add(1),
                Status::Settled { .. } => {}
            });
        }
    }

    /// Gives a message its end and returns it.
    pub(crate) fn settle(
        &self,
        id: MessageId,
        outcome: Outcome,
        now: Instant,
    ) -> Option<(Arc<Record>, Duration)> {
        let record = self.find(id)?;
        let elapsed = now.saturating_duration_since(record.accepted);
        record.status.send_modify(|status| {
            let (sent_at, attempts) = match *status {
                // One that is lost may have left in part.
                Status::Queued => (None, u32::from(!outcome.is_unsent())),
                Status::Sent { at, attempts } => (Some(at), attempts),
                Status::Settled { sent_at, attempts, .. } => (sent_at, attempts),
            };
            *status = Status::Settled { outcome, sent_at, attempts, at: SystemTime::now(), elapsed };
        });
        let mut kept = self.lock();
        let ended = if record.key.is_some() { &mut kept.keyed } else { &mut kept.others };
        ended.push(id, now);
        kept.forget(now);
        Some((record, elapsed))
    }

    /// Forgets those whose end is long ago; call it now and then.
    pub(crate) fn forget(&self, now: Instant) {
        self.lock().forget(now);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        while let Some(id) = self.keyed.poll_forgotten(now).or_else(|| self.others.poll_forgotten(now)) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: MessageId) {
        if let Some(record) = self.records.remove(&id)
            && let Some(key) = &record.key
        {
            self.keys.remove(&(record.session, key.clone()));
        }
    }
}

/// What a new message is made from.
pub(crate) struct Draft {
    pub(crate) id: MessageId,
    pub(crate) session: SessionId,
    pub(crate) level: Level,
    pub(crate) bytes: usize,
    pub(crate) key: Option<Box<str>>,
    pub(crate) fingerprint: u64,
}

impl Record {
    /// Makes one, with the right to answer for it.
    pub(crate) fn claimed(draft: Draft, now: Instant) -> Claimed {
        let Draft { id, session, level, bytes, key, fingerprint } = draft;
        Claimed(Arc::new(Record {
            id,
            session,
            level,
            bytes,
            accepted_at: SystemTime::now(),
            accepted: now,
            key,
            fingerprint,
            claimed: AtomicBool::new(true),
            status: watch::Sender::new(Status::Queued),
        }))
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Takes the right to answer for it; `None` while another request has it.
    pub(crate) fn take(self: &Arc<Record>) -> Option<Claimed> {
        (!self.claimed.swap(true, Ordering::AcqRel)).then(|| Claimed(Arc::clone(self)))
    }
}

impl Claimed {
    /// Waits for its end.
    pub(crate) async fn settled(&self) {
        let is_settled = |status: &Status| matches!(status, Status::Settled { .. });
        // It ends with an error only if the record is gone, which this holds.
        let _ = self.0.status.subscribe().wait_for(is_settled).await;
    }

    pub(crate) fn record(&self) -> &Arc<Record> {
        &self.0
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulsegate_core::IdSource;

    const TTL: Duration = Duration::from_secs(60);

    fn draft(ids: &IdSource, session: SessionId, key: Option<&str>) -> Draft {
        Draft {
            id: ids.next_message(),
            session,
            level: Level::Received,
            bytes: 1,
            key: key.map(Into::into),
            fingerprint: 7,
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn ends_are_remembered_for_a_while_and_keys_with_them() {
        let (messages, ids, now) = (Messages::new(2, TTL), IdSource::new(1, 1), Instant::now());
        let session = ids.next();
        let records: Vec<_> = ["a", "b", "c"]
            .map(|key| Arc::clone(Record::claimed(draft(&ids, session, Some(key)), now).record()))
            .into_iter()
            .inspect(|record| assert!(messages.keep(record)))
            .collect();
        assert!(!messages.keep(Record::claimed(draft(&ids, session, Some("a")), now).record()));
        assert!(
            matches!(messages.claim(session, "a", 7), Claim::Known(record) if record.id == records[0].id)
        );
        assert!(matches!(messages.claim(session, "a", 8), Claim::Differs));
        assert!(matches!(messages.claim(ids.next(), "a", 7), Claim::New));
        let claimed = records[0].take().unwrap();
        assert!(records[0].take().is_none());
        assert!(matches!(messages.claim(session, "a", 7), Claim::Busy));
        drop(claimed);

        for record in &records {
            messages.settle(record.id, Outcome::Delivered(Level::Received), now).unwrap();
        }
        assert!(messages.find(records[0].id).is_none(), "only two are remembered");
        assert!(matches!(messages.claim(session, "a", 7), Claim::New));
        assert!(messages.find(records[1].id).is_some());
        // Whatever ends besides, those with a key are remembered.
        for _ in 0..5 {
            let other = Record::claimed(draft(&ids, session, None), now);
            assert!(messages.keep(other.record()));
            messages.settle(other.record().id, Outcome::Delivered(Level::Received), now).unwrap();
        }
        assert!(matches!(messages.claim(session, "b", 7), Claim::Known(_)));
        messages.forget(now + TTL);
        assert!(messages.find(records[2].id).is_none());
        assert!(messages.lock().keys.is_empty());
    }
}
