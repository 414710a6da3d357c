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

    /// Parks a session, or says how much is kept for one that is parked. Returns the session that has to end for it, if
    /// that is too much for all; it is no longer parked.
    pub fn park(&self, id: SessionId, bytes: usize) -> Option<SessionId> {
        let mut lot = self.lot();
        lot.put(id, bytes);
        if lot.bytes > self.bytes_max {
            // One for which nothing is kept would make no room.
            let first = lot.laden.first_key_value().map(|(_, id)| *id);
            return first.inspect(|id| lot.take(*id));
        }
        None
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
    use pulsegate_core::IdSource;

    #[test]
    fn the_longest_parked_goes_first_and_only_when_it_is_too_much() {
        let (parking, ids) = (Parking::new(100), IdSource::new(1, 1));
        let [one, two, three] = [ids.next(), ids.next(), ids.next()];
        assert_eq!(parking.park(two, 40), None);
        assert_eq!(parking.park(one, 40), None);
        assert_eq!(parking.park(two, 50), None, "it keeps its turn");
        assert_eq!((parking.park(three, 20), parking.bytes()), (Some(two), 60));
        parking.leave(one);
        parking.leave(one);
        assert_eq!(parking.bytes(), 20);
        assert_eq!(parking.park(one, 0), None);
        assert_eq!(
            (parking.park(two, 90), parking.bytes()),
            (Some(three), 90),
            "who has nothing makes no room"
        );
        parking.leave(two);
        assert_eq!(parking.park(three, 1), None);
        assert_eq!(parking.take_longest(), Some(one));
        assert_eq!((parking.take_longest(), parking.take_longest()), (Some(three), None));
        assert_eq!((parking.bytes(), parking.park(one, 101)), (0, Some(one)), "alone it is too much");
        assert_eq!(parking.bytes(), 0);
    }
}
