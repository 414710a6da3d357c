//! Who may come in: caps on sessions, in all and per address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use pulsegate_core::{IdSource, MessageId, SessionId};

/// So many sessions more than `limits.sessions_max` may be there while those end that have to leave for them.
pub(crate) const BEYOND_MAX: usize = 16;

/// Counts the places that are taken.
#[derive(Debug)]
pub struct Admission {
    ids: IdSource,
    sessions_max: usize,
    per_address_max: usize,
    sessions: AtomicUsize,
    addresses: DashMap<IpAddr, usize>,
}

/// Why nobody more may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// `limits.sessions_max` is reached.
    SessionsMax,
    /// `limits.sessions_per_address_max` is reached.
    AddressMax,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::SessionsMax => "all places are taken",
            Refused::AddressMax => "all places for this address are taken",
        })
    }
}

/// A place, and the id of the session that will take it. Dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    id: SessionId,
    address: IpAddr,
    admission: Arc<Admission>,
}

impl Admission {
    /// Starts with all places free.
    pub fn new(ids: IdSource, sessions_max: usize, per_address_max: usize) -> Admission {
        Admission {
            ids,
            sessions_max,
            per_address_max,
            sessions: AtomicUsize::new(0),
            addresses: DashMap::new(),
        }
    }

    pub(crate) fn next_message(&self) -> MessageId {
        self.ids.next_message()
    }

    /// Takes a place for a client at `address`; IPv6 clients are counted by their /64, which is what one
    /// subscriber gets.
    ///
    /// # Errors
    /// A cap is reached.
    pub fn admit(self: &Arc<Admission>, address: IpAddr) -> Result<Permit, Refused> {
        self.admit_within(self.sessions_max, address)
    }

    /// Takes a place for a client where all are taken: another session is to end for it as soon as it has begun. There
    /// are 16 of these places.
    ///
    /// # Errors
    /// A cap is reached.
    pub fn admit_beyond(self: &Arc<Admission>, address: IpAddr) -> Result<Permit, Refused> {
        self.admit_within(self.sessions_max.saturating_add(BEYOND_MAX), address)
    }

    fn admit_within(self: &Arc<Admission>, sessions_max: usize, address: IpAddr) -> Result<Permit, Refused> {
        let address = subscriber(address);
        let taken = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < sessions_max).then_some(taken + 1)
        });
        if taken.is_err() {
            return Err(Refused::SessionsMax);
        }
        let mut here = self.addresses.entry(address).or_insert(0);
        if *here >= self.per_address_max {
            drop(here);
            self.sessions.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::AddressMax);
        }
        *here += 1;
        drop(here);
        Ok(Permit { id: self.ids.next(), address, admission: Arc::clone(self) })
    }

    /// Returns how many places are taken, sessions that are still being set up included.
    pub fn taken(&self) -> usize {
        self.sessions.load(Ordering::Acquire)
    }
}

impl Permit {
    /// Returns the id of the session that will take this place.
    pub fn id(&self) -> SessionId {
        self.id
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.sessions.fetch_sub(1, Ordering::AcqRel);
        // Entries go when their count does, or every address ever seen would stay.
        self.admission.addresses.remove_if_mut(&self.address, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(sessions_max: usize, per_address_max: usize) -> Arc<Admission> {
        Arc::new(Admission::new(IdSource::new(1, 2), sessions_max, per_address_max))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn caps_hold_and_places_come_back() {
        let admission = admission(3, 2);
        let (one, two) = (address("10.0.0.1"), address("10.0.0.2"));
        let first = admission.admit(one).expect("a place");
        let _second = admission.admit(one).expect("a place");
        assert_eq!(admission.admit(one).map(|_| ()), Err(Refused::AddressMax));
        let _third = admission.admit(two).expect("a place");
        assert_eq!(admission.admit(two).map(|_| ()), Err(Refused::SessionsMax));
        drop(first);
        assert_eq!(admission.taken(), 2);
        assert!(admission.admit(one).is_ok());
    }

    #[test]
    fn a_few_more_may_come_for_whom_others_leave() {
        let admission = admission(1, 100);
        let one = address("10.0.0.1");
        let _first = admission.admit(one).expect("a place");
        let beyond: Vec<_> = (0..BEYOND_MAX).map(|_| admission.admit_beyond(one).expect("a place")).collect();
        assert_eq!(admission.admit_beyond(one).map(|_| ()), Err(Refused::SessionsMax));
        drop(beyond);
        assert_eq!(admission.admit(one).map(|_| ()), Err(Refused::SessionsMax));
    }

    #[test]
    fn nothing_of_an_address_stays_behind() {
        let admission = admission(10, 10);
        for n in 0..10u8 {
            drop(admission.admit(IpAddr::from([10, 0, 0, n])));
        }
        assert_eq!((admission.taken(), admission.addresses.len()), (0, 0));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let admission = admission(10, 1);
        let _first = admission.admit(address("2001:db8:0:1::1")).expect("a place");
        assert_eq!(admission.admit(address("2001:db8:0:1:ffff::2")).map(|_| ()), Err(Refused::AddressMax));
        assert!(admission.admit(address("2001:db8:0:2::1")).is_ok());
        let _v4 = admission.admit(address("10.0.0.1")).expect("a place");
        assert_eq!(admission.admit(address("::ffff:10.0.0.1")).map(|_| ()), Err(Refused::AddressMax));
    }
}
