//! Sessions whose clients have no connection: how much is kept for all of them, and who has to go first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pulsegate_core::SessionId;

/// Bounds what is kept for all clients that are away together; beyond it the longest parked go.
#[derive(Debug)]
pub struct Parking {
    bytes_max: usize,
    lot: Mutex<Lot>,
}

#[derive(Debug, Default)]
struct Lot {
    next_turn: u64,
    /// In the order in which they came.
    order: BTreeMap<u64, SessionId>,
    /// Those among them for which something is kept.
    laden: BTreeMap<u64, SessionId>,
    places: HashMap<SessionId, Place>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    turn: u64,
    bytes: usize,
}

impl Parking {
    /// Starts empty.
    pub fn new(bytes_max: usize) -> Parking {
        Parking { bytes_max, lot: Mutex::default() }
    }

    /// Parks a session, or says how much is kept for one that is parked. Returns the sessions that have to end for it, if
    /// that is too much for all; they are no longer parked.
    pub fn park(&self, id: SessionId, bytes: usize) -> Vec<SessionId> {
        let mut lot = self.lot();
        lot.put(id, bytes);
        let mut victims = Vec::new();
        while lot.bytes > self.bytes_max {
            // One for which nothing is kept would make no room.
            let Some(longest) = lot.laden.first_key_value().map(|(_, id)| *id) else { break };
            lot.take(longest);
            victims.push(longest);
        }
        victims
    }

    /// A session is parked no longer.
    pub fn leave(&self, id: SessionId) {
        self.lot().take(id);
    }

    /// Takes the session out that is parked for longest: it has to end.
    pub fn take_longest(&self) -> Option<SessionId> {
        self.lot().take_longest()
    }

    /// Returns whether nobody is parked.
    pub fn is_empty(&self) -> bool {
        self.lot().order.is_empty()
    }

    /// Returns how many bytes are kept for all that are parked.
    pub fn bytes(&self) -> usize {
        self.lot().bytes
    }

    fn lot(&self) -> MutexGuard<'_, Lot> {
        self.lot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lot {
    fn put(&mut self, id: SessionId, bytes: usize) {
        let next = self.next_turn;
        let place = self.places.entry(id).or_insert(Place { turn: next, bytes: 0 });
        self.bytes = self.bytes - place.bytes + bytes;
        place.bytes = bytes;
        if bytes > 0 {
            self.laden.insert(place.turn, id);
        } else {
            self.laden.remove(&place.turn);
        }
        if place.turn == next {
            self.order.insert(next, id);
            self.next_turn += 1;
        }
    }

    fn take(&mut self, id: SessionId) {
        if let Some(place) = self.places.remove(&id) {
            self.order.remove(&place.turn);
            self.laden.remove(&place.turn);
            self.bytes -= place.bytes;
        }
    }

    fn take_longest(&mut self) -> Option<SessionId> {
        let id = *self.order.first_key_value()?.1;
        self.take(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulsegate_core::IdSource;

    #[test]
    fn the_longest_parked_goes_first_and_only_when_it_is_too_much() {
        let (parking, ids) = (Parking::new(100), IdSource::new(1, 1));
        let [one, two, three] = [ids.next(), ids.next(), ids.next()];
        assert_eq!(parking.park(two, 40), []);
        assert_eq!(parking.park(one, 40), []);
        assert_eq!(parking.park(two, 50), [], "it keeps its turn");
        assert_eq!((parking.park(three, 20), parking.bytes()), (vec![two], 60));
        parking.leave(one);
        parking.leave(one);
        assert_eq!(parking.bytes(), 20);
        assert_eq!(parking.park(one, 0), []);
        assert_eq!(
            (parking.park(two, 90), parking.bytes()),
            (vec![three], 90),
            "who has nothing makes no room"
        );
        parking.leave(two);
        assert_eq!(parking.park(three, 1), []);
        assert_eq!(parking.take_longest(), Some(one));
        assert_eq!((parking.take_longest(), parking.take_longest()), (Some(three), None));
        assert_eq!((parking.bytes(), parking.park(one, 101)), (0, vec![one]), "alone it is too much");
        assert_eq!(parking.bytes(), 0);
    }
    proptest! {
        /// Invariant 3: what is kept for all that are parked is never more than the bound, and no more of them go than must.
        #[test]
        fn what_is_kept_stays_within_the_bound(acts in prop::collection::vec((0usize..6, 0usize..80), 1..60)) {
            const MAX: usize = 100;
            let (parking, ids) = (Parking::new(MAX), IdSource::new(1, 1));
            let names: Vec<SessionId> = (0..6).map(|_| ids.next()).collect();
            let mut kept = [None; 6];
            for (who, bytes) in acts {
                if bytes > 70 {
                    parking.leave(names[who]);
                    kept[who] = None;
                    continue;
                }
                let mut all = kept;
                all[who] = Some(bytes);
                let total: usize = all.iter().flatten().sum();
                let victims = parking.park(names[who], bytes);
                let mut freed = 0;
                for (place, victim) in victims.iter().enumerate() {
                    prop_assert!(total - freed > MAX, "{} had to go for nothing", place);
                    let at = names.iter().position(|name| name == victim).unwrap();
                    freed += all[at].take().unwrap();
                }
                kept = all;
                prop_assert_eq!(parking.bytes(), kept.iter().flatten().sum::<usize>());
                prop_assert!(parking.bytes() <= MAX);
            }
        }
    }
}
