//! What came, and when to say so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::envelope::Ack;

/// When an ACK is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckRules {
    /// When so many messages were handled since the last one.
    pub messages: u64,
    /// When so many KiB have come since the last one.
    pub kib: u64,
    /// At the latest so long after a message was handled.
    pub delay: Duration,
}

/// Counts what came on all connections of a session, and what of it was handled.
///
/// What is passed on has to be handled in order: [`handle_handled`](ReceiveWindow::handle_handled) counts what was
/// [passed on](ReceiveWindow::handle_message), in which SKIPs and messages that were [dropped](ReceiveWindow::handle_gap)
/// have no part.
#[derive(Debug)]
pub struct ReceiveWindow {
    rules: AckRules,
    received: u64,
    /// Messages among those that were passed on.
    passed: u64,
    /// Messages among those that were handled.
    done: u64,
    /// Numbers up to `handled` that were not passed on.
    skipped: u64,
    /// Numbers not passed on, behind so many that were.
    gaps: VecDeque<Gap>,
    /// The latest ACK.
    acked: u64,
    /// Payload bytes since then.
    bytes: u64,
    /// When `handled` moved past it.
    waiting_since: Option<Instant>,
    /// Numbers whose ACK is not to wait.
    urgent: VecDeque<u64>,
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    behind: u64,
    count: u64,
}

impl ReceiveWindow {
    /// Starts before the first message.
    pub fn new(rules: AckRules) -> ReceiveWindow {
        ReceiveWindow {
            rules,
            received: 0,
            passed: 0,
            done: 0,
            skipped: 0,
            gaps: VecDeque::new(),
            acked: 0,
            bytes: 0,
            waiting_since: None,
            urgent: VecDeque::new(),
            asked: false,
        }
    }

    /// Changes when an ACK is due.
    pub fn set_rules(&mut self, rules: AckRules) {
        self.rules = rules;
    }

    /// Takes a whole message that is passed on and returns its number. `ack_now`: its ACK is not to wait.
    pub fn handle_message(&mut self, bytes: usize, ack_now: bool) -> u64 {
        self.received += 1;
        self.passed += 1;
        self.bytes += bytes as u64;
        if ack_now {
            self.urgent.push_back(self.received);
        }
        self.received
    }

    /// Takes numbers that are not passed on, a SKIP or a message that is dropped, and returns the latest.
    pub fn handle_gap(&mut self, count: u64, now: Instant) -> u64 {
        self.received += count;
        match self.gaps.back_mut().filter(|gap| gap.behind == self.passed) {
            Some(gap) => gap.count += count,
            None => self.gaps.push_back(Gap { behind: self.passed, count }),
        }
        self.take_gaps(now);
        self.received
    }

    /// Takes note that so many messages in all, of those that were passed on, were handled.
    pub fn handle_handled(&mut self, passed: u64, now: Instant) {
        debug_assert!(passed <= self.passed, "{passed} of {} were handled", self.passed);
        self.done = self.done.max(passed.min(self.passed));
        self.take_gaps(now);
    }

    fn take_gaps(&mut self, now: Instant) {
        while let Some(gap) = self.gaps.pop_front_if(|gap| gap.behind <= self.done) {
            self.skipped += gap.count;
        }
        if self.handled() > self.acked {
            self.waiting_since.get_or_insert(now);
        }
    }

    /// Takes note of a PROBE: an answer is due at once, also if it says nothing new.
    pub fn handle_probe(&mut self) {
        self.asked = true;
    }

    /// Begins on a new connection: whether the last ACK arrived is not known.
    pub fn resume(&mut self, now: Instant) {
        self.acked = 0;
        self.asked = false;
        self.waiting_since = (self.handled() > 0).then_some(now);
    }

    /// Returns the ACK that is due, if one is, and whether it answers a PROBE. It counts as written.
    pub fn poll_ack(&mut self, now: Instant) -> Option<(Ack, bool)> {
        let asked = self.asked;
        if !asked && self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        Some((self.ack(), asked))
    }

    /// Returns an ACK for a last word, due or not, if it says something new. It counts as written.
    pub fn last_ack(&mut self) -> Option<Ack> {
        (self.handled() > self.acked).then(|| self.ack())
    }

    fn ack(&mut self) -> Ack {
        let handled = self.handled();
        self.acked = handled;
        (self.bytes, self.waiting_since, self.asked) = (0, None, false);
        while self.urgent.pop_front_if(|seq| *seq <= handled).is_some() {}
        Ack { handled, window: None }
    }

    /// Returns when an ACK is due, if something is to be acknowledged.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let since = self.waiting_since?;
        let many = self.handled() - self.acked >= self.rules.messages || self.bytes >= self.rules.kib * 1024;
        let urgent = self.urgent.front().is_some_and(|seq| *seq <= self.handled());
        Some(if many || urgent { since } else { since + self.rules.delay })
    }

    /// Gives back memory that is held for nothing.
    pub fn shrink(&mut self) {
        self.gaps.shrink_to_fit();
        self.urgent.shrink_to_fit();
    }

    /// Returns how many messages came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns how many were handled.
    pub fn handled(&self) -> u64 {
        self.done + self.skipped
    }

    /// Returns how many were passed on.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Returns how many came and were not handled.
    pub fn unhandled(&self) -> u64 {
        self.received - self.handled()
    }
}
