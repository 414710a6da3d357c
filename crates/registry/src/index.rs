//! The index of all sessions, and of those that ended lately.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use dashmap::DashMap;
use pulsegate_core::{IdSource, MessageId, SessionId};

use crate::admission::{Admission, Permit, Refused};
use crate::delivery::Unsettled;
use crate::entry::{Entry, SessionInfo, SessionState};
use crate::remembered::Remembered;
use crate::session::Ending;
use crate::tombstone::Tombstone;
use crate::v1::LastWord;

/// Bounds of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryLimits {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions at once from one address.
    pub sessions_per_address_max: usize,
    /// Ended sessions remembered at once.
    pub tombstones_max: usize,
    /// How long an ended session is remembered.
    pub tombstone_ttl: Duration,
}

/// All sessions. `H` is how a session's driver is reached.
#[derive(Debug)]
pub struct Registry<H> {
    admission: Arc<Admission>,
    sessions: DashMap<SessionId, Arc<Entry<H>>>,
    tombstones: DashMap<SessionId, Arc<Tombstone>>,
    /// Tombstones in the order of their ends, to forget them by.
    graves: Mutex<Remembered<SessionId>>,
}

/// Answer to a question about one session.
#[derive(Debug)]
pub enum Lookup<H> {
    /// It is there.
    Live(Arc<Entry<H>>),
    /// It ended.
    Ended(Arc<Tombstone>),
    /// It never was, or is forgotten.
    Unknown,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these.
    pub state: Option<SessionState>,
    /// Only those with all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// A page of a list, in the order of ids.
#[derive(Debug)]
pub struct Page<H> {
    /// The sessions.
    pub items: Vec<Arc<Entry<H>>>,
    /// Where the next page starts, if there is more.
    pub next: Option<SessionId>,
}

/// How many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions whose peers were heard in time.
    pub live: usize,
    /// Sessions with a suspect peer.
    pub suspect: usize,
    /// Sessions whose client has no connection.
    pub detached: usize,
    /// Messages to clients that are not confirmed.
    pub to_client: Unsettled,
    /// Messages of clients that speak `pulsegate.v1`, which their apps are not known to have.
    pub to_app: Unsettled,
    /// Places taken, sessions that are being set up included.
    pub admitted: usize,
    /// Ended sessions that are remembered.
    pub tombstones: usize,
}

impl<H> Registry<H> {
    /// Starts empty.
    pub fn new(limits: RegistryLimits, ids: IdSource) -> Registry<H> {
        let admission = Admission::new(ids, limits.sessions_max, limits.sessions_per_address_max);
        Registry {
            admission: Arc::new(admission),
            sessions: DashMap::new(),
            tombstones: DashMap::new(),
            graves: Mutex::new(Remembered::new(limits.tombstones_max, limits.tombstone_ttl)),
        }
    }

    /// Takes a place for a client at `address`, and an id.
    ///
    /// # Errors
    /// A cap is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, Refused> {
        self.admission.admit(address)
    }

    /// Takes a place for a client for which another session is to end ([`Admission::admit_beyond`]).
    ///
    /// # Errors
    /// A cap is reached.
    pub fn admit_beyond(&self, address: IpAddr) -> Result<Permit, Refused> {
        self.admission.admit_beyond(address)
    }

    /// Returns a name for a message to one of them.
    pub fn next_message(&self) -> MessageId {
        self.admission.next_message()
    }

    /// Lists a session. The caller keeps the permit for as long as the session lasts, and then calls
    /// [`close`](Registry::close).
    pub fn open(
        &self,
        permit: &Permit,
        info: Arc<SessionInfo>,
        handle: H,
        now: Instant,
        wall: SystemTime,
    ) -> Arc<Entry<H>> {
        let entry = Arc::new(Entry::new(permit.id(), info, handle, now, wall));
        self.sessions.insert(permit.id(), Arc::clone(&entry));
        entry
    }

    /// Takes a session off the list and leaves its tombstone, with what its client may still be told if it comes back.
    pub fn close(
        &self,
        entry: &Entry<H>,
        ending: Ending,
        last: Option<Box<LastWord>>,
        now: Instant,
        wall: SystemTime,
    ) -> Arc<Tombstone> {
        let tombstone = Arc::new(Tombstone {
            id: entry.id(),
            info: Arc::clone(entry.info()),
            ending,
            opened_at: entry.opened_wall(),
            ended_at: wall,
            duration: entry.age(now),
            legs: entry.totals(),
            delivered: entry.delivered(),
            last,
        });
        // First the tombstone, then the entry: at every moment the session is found as one of the two.
        self.tombstones.insert(entry.id(), Arc::clone(&tombstone));
        self.sessions.remove(&entry.id());
        self.graves().push(entry.id(), now);
        self.forget(now);
        tombstone
    }

    /// Drops the tombstones that are too old or too many; call it now and then.
    pub fn forget(&self, now: Instant) {
        let mut graves = self.graves();
        while let Some(id) = graves.poll_forgotten(now) {
            self.tombstones.remove(&id);
        }
    }

    fn graves(&self) -> MutexGuard<'_, Remembered<SessionId>> {
        self.graves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds one session.
    pub fn find(&self, id: SessionId) -> Lookup<H> {
        if let Some(entry) = self.sessions.get(&id) {
            return Lookup::Live(Arc::clone(&entry));
        }
        match self.tombstones.get(&id) {
            Some(tombstone) => Lookup::Ended(Arc::clone(&tombstone)),
            None => Lookup::Unknown,
        }
    }

    /// Lists at most `limit` sessions with ids above `after`.
    pub fn page(&self, filter: &Filter, after: Option<SessionId>, limit: usize) -> Page<H> {
        let mut items: Vec<Arc<Entry<H>>> = self
            .sessions
            .iter()
            .filter(|entry| after.is_none_or(|after| entry.id() > after) && filter.matches(entry))
            .map(|entry| Arc::clone(&entry))
            .collect();
        items.sort_unstable_by_key(|entry| entry.id());
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(|entry| entry.id()) } else { None };
        Page { items, next }
    }

    /// Returns all sessions of this moment.
    pub fn snapshot(&self) -> Vec<Arc<Entry<H>>> {
        self.sessions.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// Counts.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            admitted: self.admission.taken(),
            tombstones: self.tombstones.len(),
            ..Counts::default()
        };
        for entry in self.sessions.iter() {
            match entry.state() {
                SessionState::Live => counts.live += 1,
                SessionState::Suspect => counts.suspect += 1,
                SessionState::Detached => counts.detached += 1,
            }
            counts.to_client.add(entry.progress().open);
            counts.to_app.add(entry.open_to_app());
        }
        counts
    }
}

impl Filter {
    fn matches<H>(&self, entry: &Entry<H>) -> bool {
        let labels = &entry.info().labels;
        self.state.is_none_or(|state| entry.state() == state)
            && self
                .labels
                .iter()
                .all(|(name, value)| labels.iter().any(|(n, v)| **n == **name && **v == **value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Mode;
    use pulsegate_core::{EndReason, Leg};

    const LIMITS: RegistryLimits = RegistryLimits {
        sessions_max: 100,
        sessions_per_address_max: 100,
        tombstones_max: 3,
        tombstone_ttl: Duration::from_secs(60),
    };

    fn info(room: &str) -> SessionInfo {
        SessionInfo {
            peer: "127.0.0.1:5000".parse().expect("an address"),
            client: "127.0.0.1".parse().expect("an address"),
            path: "/ws".into(),
            origin: None,
            subprotocol: None,
            request_id: "r".into(),
            labels: [("room".into(), room.into())].into(),
            mode: Mode::Plain,
            receipts: false,
        }
    }

    fn ending() -> Ending {
        Ending { reason: EndReason::Closed, leg: Some(Leg::Client), close: None, detail: None, verdict: None }
    }

    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    fn registry() -> (Registry<()>, Instant) {
        (Registry::new(LIMITS, IdSource::new(1, 2)), Instant::now())
    }

    fn open(registry: &Registry<()>, room: &str, now: Instant) -> (Permit, Arc<Entry<()>>) {
        let permit = registry.admit("127.0.0.1".parse().expect("an address")).expect("a place");
        let entry = registry.open(&permit, info(room).into(), (), now, SystemTime::UNIX_EPOCH);
        (permit, entry)
    }

    #[test]
    fn an_ended_session_is_remembered_with_its_final_counters_and_then_forgotten() {
        let (registry, now) = registry();
        let (_permit, entry) = open(&registry, "a", now);
        entry.leg(Leg::Client).count(3, 70);
        assert!(matches!(registry.find(entry.id()), Lookup::Live(_)));
        registry.close(&entry, ending(), None, now + Duration::from_secs(5), SystemTime::UNIX_EPOCH);
        let Lookup::Ended(tombstone) = registry.find(entry.id()) else { panic!("no tombstone") };
        assert_eq!((tombstone.legs[0].messages, tombstone.legs[0].bytes), (3, 70));
        assert_eq!(tombstone.duration, Duration::from_secs(5));
        registry.forget(now + Duration::from_secs(64));
        assert!(matches!(registry.find(entry.id()), Lookup::Ended(_)));
        registry.forget(now + Duration::from_secs(65));
        assert!(matches!(registry.find(entry.id()), Lookup::Unknown));
        assert_eq!(registry.counts().tombstones, 0);
    }

    #[test]
    fn tombstones_are_bounded_and_the_oldest_goes_first() {
        let (registry, now) = registry();
        let entries: Vec<_> = (0..5).map(|_| open(&registry, "a", now)).collect();
        for (_, entry) in &entries {
            registry.close(entry, ending(), None, now, SystemTime::UNIX_EPOCH);
        }
        assert_eq!(registry.counts().tombstones, 3);
        assert!(matches!(registry.find(entries[1].1.id()), Lookup::Unknown));
        assert!(matches!(registry.find(entries[2].1.id()), Lookup::Ended(_)));
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_double() {
        let (registry, now) = registry();
        let mut expected = Vec::new();
        let mut permits = Vec::new();
        for n in 0..25 {
            let (permit, entry) = open(&registry, if n % 2 == 0 { "even" } else { "odd" }, now);
            permits.push(permit);
            if n % 2 == 0 {
                expected.push(entry.id());
            }
        }
        let filter = Filter {
            state: Some(SessionState::Live),
            labels: [("room".to_owned(), "even".to_owned())].into(),
        };
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = registry.page(&filter, after, 4);
            seen.extend(page.items.iter().map(|entry| entry.id()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
        let nobody = Filter { state: Some(SessionState::Suspect), ..Filter::default() };
        assert!(registry.page(&nobody, None, 10).items.is_empty());
    }
}
