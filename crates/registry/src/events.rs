//! What happened lately: a bounded ring that a reader can come back to.

use std::collections::VecDeque;
use std::sync::Arc;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<T> {
    /// Rises by one from event to event, from 1.
    pub sequence: u64,
    /// What happened.
    pub what: T,
}

/// Keeps the last events, at most a fixed number.
#[derive(Debug)]
pub struct EventRing<T> {
    events: VecDeque<Arc<Event<T>>>,
    events_max: usize,
    next: u64,
}

/// What a reader gets that comes back.
#[derive(Debug, PartialEq)]
pub struct Replay<T> {
    /// Events that are lost to this reader since the ring holds no more.
    pub missed: u64,
    /// What followed, in order.
    pub events: Vec<Arc<Event<T>>>,
}

impl<T> EventRing<T> {
    /// Starts empty; at least one event is kept.
    pub fn new(events_max: usize) -> EventRing<T> {
        EventRing { events: VecDeque::new(), events_max: events_max.max(1), next: 1 }
    }

    /// Appends an event and forgets the oldest if the ring is full.
    pub fn push(&mut self, what: T) -> Arc<Event<T>> {
        if self.events.len() == self.events_max {
            self.events.pop_front();
        }
        let event = Arc::new(Event { sequence: self.next, what });
        self.next += 1;
        self.events.push_back(Arc::clone(&event));
        event
    }

    /// Returns the number of the last event; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// Returns at most `limit` events behind number `after`. A number from the future counts as the present.
    pub fn since(&self, after: u64, limit: usize) -> Replay<T> {
        let wanted = after.saturating_add(1);
        let oldest = self.events.front().map_or(self.next, |event| event.sequence);
        let from = wanted.clamp(oldest, self.next);
        let events = self.events.iter().skip((from - oldest) as usize).take(limit).cloned().collect();
        Replay { missed: from.saturating_sub(wanted), events }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(replay: &Replay<u32>) -> Vec<u64> {
        replay.events.iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn a_reader_gets_what_followed_and_is_told_what_it_missed() {
        let mut ring = EventRing::new(3);
        assert_eq!(ring.since(0, 10), Replay { missed: 0, events: vec![] });
        for n in 1..=5 {
            assert_eq!(ring.push(n).sequence, u64::from(n));
        }
        let replay = ring.since(0, 10);
        assert_eq!((replay.missed, numbers(&replay)), (2, vec![3, 4, 5]));
        let replay = ring.since(3, 1);
        assert_eq!((replay.missed, numbers(&replay)), (0, vec![4]));
        assert_eq!(ring.since(5, 10).events.len(), 0);
        assert_eq!(ring.since(99, 10), Replay { missed: 0, events: vec![] });
        assert_eq!(ring.last(), 5);
    }
}
