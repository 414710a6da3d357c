//! How far a stream of messages has come, by a handful of marks in it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pulsegate_core::{Level, Outcome, Sent};

use super::{Progress, Unsettled};

/// Messages that are passed on within this time have a mark in common.
const SPAN: Duration = Duration::from_millis(250);

/// Beyond it the newest mark takes in whatever comes: that is confirmed later then, never sooner, and those before it
/// are not held up.
const MARKS_MAX: usize = 8;

/// How many messages have come so far, from the start of the session; each is at most the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Passed on to the line.
    pub(super) passed: u64,
    /// The peer's kernel has them.
    pub(super) kernel: u64,
    /// The peer's WebSocket stack has read them.
    pub(super) received: u64,
}

#[derive(Debug, Default)]
pub(super) struct Marks {
    counts: Counts,
    /// As many as the socket is known to have taken.
    taken: u64,
    marks: VecDeque<Mark>,
    /// The next message begins a mark.
    closed: bool,
}

/// A stretch of messages that are not settled.
#[derive(Debug)]
struct Mark {
    /// When the first of them was passed on.
    since: Instant,
    /// Messages passed on up to its end.
    last: u64,
    /// Those of the app among its messages, if they are followed.
    counted: u64,
    /// Payload.
    bytes: u64,
    /// Where it ends in the stream of bytes, once the socket has taken all of it.
    position: Option<u64>,
}

impl Marks {
    /// Starts behind messages that are settled.
    pub(super) fn new(counts: Counts) -> Marks {
        Marks { counts, taken: counts.kernel, ..Marks::default() }
    }

    pub(super) fn push(&mut self, messages: u64, counted: u64, bytes: u64, now: Instant) {
        self.counts.passed += messages;
        let last = self.counts.passed;
        let full = self.marks.len() >= MARKS_MAX;
        match self.marks.back_mut().filter(|mark| full || (!self.closed && now < mark.since + SPAN)) {
            Some(mark) => {
                mark.last = last;
                mark.counted += counted;
                mark.bytes += bytes;
                mark.position = None;
            }
            None => {
                self.marks.push_back(Mark { since: now, last, counted, bytes, position: None });
                self.closed = false;
            }
        }
    }

    /// What is passed on from now on is not confirmed with what was before.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn handle_taken(&mut self, position: u64) {
        self.taken = self.counts.passed;
        for mark in self.marks.iter_mut().rev().take_while(|mark| mark.position.is_none()) {
            mark.position = Some(position);
        }
    }

    pub(super) fn handle_acked(&mut self, position: u64) {
        let arrived = |mark: &&Mark| mark.position.is_some_and(|end| end <= position);
        if let Some(mark) = self.marks.iter().take_while(arrived).last() {
            self.counts.kernel = self.counts.kernel.max(mark.last);
        }
    }

    /// What was read has come past the kernel as well.
    pub(super) fn handle_received(&mut self, messages: u64) {
        self.counts.received = self.counts.received.max(messages);
        self.counts.kernel = self.counts.kernel.max(self.counts.received);
    }

    /// Takes the oldest mark off if all of it has come as far as `enough`, and returns how far that is, and how
    /// many messages are counted with it.
    pub(super) fn pop(&mut self, enough: Level) -> Option<(Level, u64)> {
        let level = self.reached(self.marks.front()?.last).filter(|level| *level >= enough)?;
        self.marks.pop_front().map(|mark| (level, mark.counted))
    }

    /// Takes all marks off and returns how many messages were counted with them.
    pub(super) fn drain(&mut self) -> u64 {
        self.marks.drain(..).map(|mark| mark.counted).sum()
    }

    /// How far the message with this number has come.
    fn reached(&self, number: u64) -> Option<Level> {
        match number {
            read if read <= self.counts.received => Some(Level::Received),
            there if there <= self.counts.kernel => Some(Level::Kernel),
            _ => None,
        }
    }

    /// Returns the outcome of the message with this number, if it has one: it has come as far as it has to, or as far
    /// as can be known of a peer that answers no pings.
    pub(super) fn outcome(&self, number: u64, wanted: Level, answers: bool) -> Option<Outcome> {
        match self.reached(number) {
            Some(level) if level >= wanted => Some(Outcome::Delivered(level)),
            Some(_) if !answers => Some(self.lost(number)),
            Some(_) | None => None,
        }
    }

    /// Returns the outcome of a message that is waited for no longer.
    pub(super) fn lost(&self, number: u64) -> Outcome {
        Outcome::Expired { sent: Sent::Maybe, reached: self.reached(number) }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn oldest(&self) -> Option<Instant> {
        self.marks.front().map(|mark| mark.since)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    pub(super) fn progress(&self) -> Progress {
        let open = Unsettled {
            messages: self.marks.iter().map(|mark| mark.counted).sum(),
            bytes: self.marks.iter().map(|mark| mark.bytes).sum(),
            since: self.oldest(),
        };
        Progress { open, ..self.counts.into() }
    }
}

impl From<Counts> for Progress {
    fn from(Counts { passed, kernel, received, .. }: Counts) -> Progress {
        Progress { sent: passed, kernel, received, ..Progress::default() }
    }
}
