//! What is due in the world, in order of time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::link::{Segment, Way};
use crate::{NEVER, Time};

/// What can be due: of which session, on which leg.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// The driver runs.
    Wake(usize),
    /// A segment reaches a kernel.
    Arrive(usize, usize, Way, Segment),
    /// A retransmission timer runs out.
    Resend(usize, usize, Way),
    /// The peer's process reads or sends.
    Act(usize, usize),
    /// The peer's kernel acknowledges what it had put off.
    Acknowledge(usize, usize),
}

/// Events of one moment come in the order in which they were put.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Due>>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Time, event: Event) {
        if at < NEVER {
            self.sequence += 1;
            self.heap.push(Reverse(Due(at, self.sequence, event)));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse(Due(at, _, event))| (at, event))
    }
}

#[derive(Debug)]
struct Due(Time, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}
