//! Messages on their way to the client: how far each has come, and what becomes of those whose sender waits.
//!
//! Frames stay in order, so all that is needed are counts. The client's kernel acknowledges bytes, and so the
//! messages that end before them; the pong that answers a ping of ours says that the client's WebSocket stack has read
//! all that came before that ping. A ping that is sent for this purpose is a *barrier*.

mod marks;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::time::Instant;

use pulsegate_core::{Level, MessageId, Outcome, Sent};
use pulsegate_heartbeat::ProbeId;

use marks::{Counts, Marks};
pub use words::{Confirm, DeliveryNote, DeliveryRules, Message, Progress, Unsettled};

/// Our latest pings of which it is known what came before them; the detector knows no more either.
const PINGS_MAX: usize = 4;

/// Barriers in a row without an answer after which no more are sent.
const MISSES_MAX: u8 = 2;

/// The machine. It takes no memory but five words while everything is settled.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    counts: Counts,
    open: Option<Box<Open>>,
    /// Barriers in a row that stayed without an answer.
    misses: u8,
}

/// What is not settled.
#[derive(Debug, Default)]
struct Open {
    /// Messages that have no place in the stream yet.
    waiting: VecDeque<Message>,
    /// Messages in the stream whose sender waits.
    tracked: VecDeque<Tracked>,
    marks: Marks,
    /// Pings without an answer, in the order in which they were sent.
    pings: VecDeque<Ping>,
    /// A barrier is to be sent as soon as it has a place.
    barrier_due: bool,
    /// Bytes that the client's kernel had at the last look, where it tells.
    acked: Option<u64>,
}

#[derive(Debug)]
struct Tracked {
    id: MessageId,
    /// Messages passed on up to and with this one.
    number: u64,
    level: Level,
    /// The socket took it, and that was told.
    sent: bool,
}

#[derive(Debug)]
struct Ping {
    id: ProbeId,
    /// Messages that came before it.
    covers: u64,
    /// When the socket had taken it, and how many bytes it had taken then: from there on an answer is possible.
    out: Option<(Instant, u64)>,
    is_barrier: bool,
}

type Notes<'a> = &'a mut dyn FnMut(DeliveryNote);

impl Delivery {
    /// Takes note that `messages` of the app, with so many bytes, were passed on to the client's line.
    pub(crate) fn handle_passed(&mut self, messages: u64, bytes: u64, rules: &DeliveryRules, now: Instant) {
        if rules.confirm == Confirm::Off && self.open.is_none() {
            self.counts.passed += messages;
        } else if messages > 0 {
            let (counted, bytes) = if rules.confirm == Confirm::Off { (0, 0) } else { (messages, bytes) };
            self.open().marks.push(messages, counted, bytes, now);
        }
    }

    fn open(&mut self) -> &mut Open {
        let counts = self.counts;
        self.open.get_or_insert_with(|| Box::new(Open { marks: Marks::new(counts), ..Open::default() }))
    }

    /// Takes a message; it is told of until its outcome.
    pub(crate) fn send(&mut self, message: Message) {
        self.open().waiting.push_back(message);
    }

    /// Returns whether a message waits for a place between two of the app's.
    pub(crate) fn is_message_waiting(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.waiting.is_empty())
    }

    /// Returns the next message to write, if one waits; call only between two messages of the app, and write it behind
    /// everything that was passed on.
    pub(crate) fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let open = self.open.as_mut()?;
        // One whose time is over has its end by the timer.
        let message = open.waiting.pop_front_if(|message| now < message.expires_at)?;
        let Message { id, level, .. } = message;
        open.follow(id, level, message.payload.len() as u64, now);
        Some(message)
    }

    /// Takes note that a message of which somebody wants to know was passed on to the client's line.
    pub(crate) fn follow(&mut self, id: MessageId, level: Level, bytes: u64, now: Instant) {
        self.open().follow(id, level, bytes, now);
    }

    /// Takes note that the socket has taken everything that was passed on: `position` bytes since the start.
    pub(crate) fn handle_taken(&mut self, position: u64, now: Instant, notes: Notes<'_>) {
        let Some(open) = &mut self.open else { return };
        open.marks.handle_taken(position);
        for ping in &mut open.pings {
            ping.out.get_or_insert((now, position));
        }
        for tracked in open.tracked.iter_mut().filter(|tracked| !tracked.sent) {
            tracked.sent = true;
            notes(DeliveryNote::Sent(tracked.id));
        }
    }

    /// Takes note that the client's kernel has so many bytes.
    pub(crate) fn handle_acked(
        &mut self,
        position: u64,
        rules: &DeliveryRules,
        can_answer: bool,
        notes: Notes<'_>,
    ) {
        if let Some(open) = &mut self.open {
            open.marks.handle_acked(position);
            open.acked = Some(position);
            self.settle(rules, can_answer, notes);
        }
    }

    /// Takes note of a probe that went out behind what the socket has taken.
    pub(crate) fn handle_probe(&mut self, id: ProbeId) {
        if let Some(open) = &mut self.open {
            let covers = open.marks.taken();
            open.marks.close();
            open.note_ping(Ping { id, covers, out: None, is_barrier: false });
        }
    }

    /// Returns whether a barrier is to be written, behind everything that was passed on and between two messages.
    /// `can_answer`: the client is not known to answer no pings.
    pub(crate) fn wants_barrier(&self, can_answer: bool) -> bool {
        let Some(open) = &self.open else { return false };
        let can_answer = self.can_ever_answer(can_answer);
        let Counts { passed, received, .. } = open.marks.counts();
        let asked = open.barrier_due || open.tracked.iter().any(|tracked| tracked.number > received);
        asked && open.can_ask(can_answer) && received < passed
    }

    /// Returns whether a barrier is to be written before the last word to the client, behind which nothing more is heard of
    /// what it has read.
    pub(crate) fn wants_last_barrier(&self, rules: &DeliveryRules, can_answer: bool) -> bool {
        let Some(open) = &self.open else { return false };
        let Counts { passed, received, .. } = open.marks.counts();
        let is_followed = rules.confirm == Confirm::Received || !open.tracked.is_empty();
        is_followed && received < passed && open.can_ask(self.can_ever_answer(can_answer))
    }

    /// Takes note that a barrier goes out behind everything that was passed on.
    pub(crate) fn handle_barrier(&mut self, id: ProbeId) {
        if let Some(open) = &mut self.open {
            open.barrier_due = false;
            let covers = open.marks.counts().passed;
            open.marks.close();
            open.note_ping(Ping { id, covers, out: None, is_barrier: true });
        }
    }

    /// Takes the answer to one of our pings.
    pub(crate) fn handle_pong(&mut self, id: ProbeId, rules: &DeliveryRules, notes: Notes<'_>) {
        self.misses = 0;
        let Some(open) = &mut self.open else { return };
        let Some(place) = open.pings.iter().position(|ping| ping.id == id) else { return };
        let covers = open.pings[place].covers;
        // A peer may answer the latest ping alone (RFC 6455 section 5.5.3), so those before it are answered, too; but a
        // barrier that was made before may stand behind a probe that overtook it.
        let mut number = 0;
        open.pings.retain(|ping| {
            number += 1;
            number > place + 1 || ping.covers > covers
        });
        open.marks.handle_received(covers);
        let Counts { passed, received, .. } = open.marks.counts();
        open.barrier_due &= received < passed;
        self.settle(rules, true, notes);
    }

    /// Takes note that an answer was not possible before: it has its time from here.
    pub(crate) fn handle_resume(&mut self, now: Instant) {
        for ping in self.open.iter_mut().flat_map(|open| &mut open.pings) {
            ping.out = ping.out.map(|(_, position)| (now, position));
        }
    }

    /// Nothing new can be sent any more: what has no place yet never leaves.
    pub(crate) fn handle_closing(&mut self, notes: Notes<'_>) {
        if let Some(open) = &mut self.open {
            for message in open.waiting.drain(..) {
                notes(DeliveryNote::Settled(message.id, NEVER_SENT));
            }
        }
    }

    /// The client is gone: everything has its end.
    pub(crate) fn handle_end(&mut self, rules: &DeliveryRules, can_answer: bool, notes: Notes<'_>) {
        self.handle_closing(notes);
        self.settle(rules, can_answer, notes);
        let Some(mut open) = self.open.take() else { return };
        self.counts = open.marks.counts();
        for tracked in open.tracked.drain(..) {
            notes(DeliveryNote::Settled(tracked.id, open.marks.lost(tracked.number)));
        }
        let lost = open.marks.drain();
        if lost > 0 {
            notes(DeliveryNote::Lost(lost));
        }
    }

    /// Does what is due at `now`. `is_read`: we read what the client sends, and so its answers.
    pub(crate) fn handle_timeout(
        &mut self,
        rules: &DeliveryRules,
        can_answer: bool,
        is_read: bool,
        now: Instant,
        notes: Notes<'_>,
    ) {
        let Some(open) = &mut self.open else { return };
        open.waiting.retain(|message| {
            let expired = now >= message.expires_at;
            if expired {
                notes(DeliveryNote::Settled(message.id, NEVER_SENT));
            }
            !expired
        });
        if open.miss_at(rules).is_some_and(|at| now >= at) {
            if is_read && open.has_barrier_arrived() {
                self.misses = self.misses.saturating_add(1);
                open.handle_miss(notes);
            } else {
                // Nobody can have answered what is still on its way, and an answer that we do not read is not missing.
                self.handle_resume(now);
            }
        }
        let answers = self.can_ever_answer(can_answer);
        if let Some(open) = &mut self.open {
            open.barrier_due |= open.barrier_at(rules, answers).is_some_and(|at| now >= at);
        }
        self.settle(rules, can_answer, notes);
    }

    /// Returns when [`handle_timeout`](Delivery::handle_timeout) has something to do.
    pub(crate) fn poll_timeout(&self, rules: &DeliveryRules, can_answer: bool) -> Option<Instant> {
        let open = self.open.as_ref()?;
        let expiry = open.waiting.iter().map(|message| message.expires_at).min();
        let barrier = open.barrier_at(rules, self.can_ever_answer(can_answer));
        [expiry, open.miss_at(rules), barrier].into_iter().flatten().min()
    }

    /// Returns how far the messages have come.
    pub(crate) fn progress(&self) -> Progress {
        match &self.open {
            None => self.counts.into(),
            Some(open) => {
                let mut progress = open.marks.progress();
                let waiting = open.waiting.iter().map(|message| message.payload.len() as u64);
                let messages = (open.tracked.len() + open.waiting.len()) as u64;
                progress.open.add(Unsettled { messages, bytes: waiting.sum(), since: None });
                progress
            }
        }
    }

    /// Returns how many of the first messages have come as far as can be known: read by the peer's stack, or in its kernel if
    /// it answers no pings.
    pub(crate) fn come_to(&self, can_answer: bool) -> u64 {
        let counts = self.open.as_ref().map_or(self.counts, |open| open.marks.counts());
        if self.can_ever_answer(can_answer) { counts.received } else { counts.kernel }
    }

    /// Returns how many messages our socket has taken.
    pub(crate) fn taken(&self) -> u64 {
        self.open.as_ref().map_or(self.counts.passed, |open| open.marks.taken())
    }

    fn can_ever_answer(&self, can_answer: bool) -> bool {
        can_answer && self.misses < MISSES_MAX
    }

    /// Tells what has come far enough, and forgets it.
    fn settle(&mut self, rules: &DeliveryRules, can_answer: bool, notes: Notes<'_>) {
        let answers = self.can_ever_answer(can_answer);
        let Some(open) = &mut self.open else { return };
        let Open { tracked, marks, .. } = &mut **open;
        tracked.retain(|tracked| {
            let outcome = marks.outcome(tracked.number, tracked.level, answers);
            if let Some(outcome) = outcome {
                notes(DeliveryNote::Settled(tracked.id, outcome));
            }
            outcome.is_none()
        });
        let enough = match rules.confirm {
            Confirm::Received if answers => Level::Received,
            Confirm::Received | Confirm::Kernel | Confirm::Off => Level::Kernel,
        };
        // One note for all of a level.
        let mut told: Option<(Level, u64)> = None;
        while let Some((level, messages)) = open.marks.pop(enough) {
            match &mut told {
                Some((same, count)) if *same == level => *count += messages,
                _ => tell_confirmed(told.replace((level, messages)), notes),
            }
        }
        tell_confirmed(told, notes);
        if open.is_over() {
            self.counts = open.marks.counts();
            self.open = None;
        }
    }
}

fn tell_confirmed(told: Option<(Level, u64)>, notes: Notes<'_>) {
    if let Some((level, messages)) = told.filter(|(_, messages)| *messages > 0) {
        notes(DeliveryNote::Confirmed(level, messages));
    }
}

const NEVER_SENT: Outcome = Outcome::Expired { sent: Sent::No, reached: None };

impl Open {
    fn follow(&mut self, id: MessageId, level: Level, bytes: u64, now: Instant) {
        self.marks.push(1, 0, bytes, now);
        let number = self.marks.counts().passed;
        self.tracked.push_back(Tracked { id, number, level, sent: false });
    }

    fn barrier(&self) -> Option<&Ping> {
        self.pings.iter().find(|ping| ping.is_barrier)
    }

    /// When the barrier that is out is given up.
    fn miss_at(&self, rules: &DeliveryRules) -> Option<Instant> {
        let (out, _) = self.barrier()?.out?;
        Some(out + rules.answer_within)
    }

    /// Whether the client's kernel had the barrier at the last look; it is taken to where the kernel does not tell.
    fn has_barrier_arrived(&self) -> bool {
        let end = self.barrier().and_then(|barrier| barrier.out).map(|(_, end)| end);
        end.zip(self.acked).is_none_or(|(end, acked)| acked >= end)
    }

    /// When the messages of the app are to have a barrier; `None` if there is one, or none is wanted.
    fn barrier_at(&self, rules: &DeliveryRules, can_answer: bool) -> Option<Instant> {
        let wanted = rules.confirm == Confirm::Received && !self.barrier_due && self.can_ask(can_answer);
        self.marks.oldest().filter(|_| wanted).map(|since| since + rules.interval)
    }

    /// One barrier at a time: some stacks answer no second ping before the first, others cut the connection.
    fn can_ask(&self, can_answer: bool) -> bool {
        can_answer && self.barrier().is_none()
    }

    fn note_ping(&mut self, ping: Ping) {
        if self.pings.len() == PINGS_MAX {
            // A barrier stays until it is answered or given up.
            let place = self.pings.iter().position(|ping| !ping.is_barrier);
            self.pings.remove(place.unwrap_or(0));
        }
        self.pings.push_back(ping);
    }

    /// A barrier has no answer: whoever waits for it gets to know how far the message has come.
    fn handle_miss(&mut self, notes: Notes<'_>) {
        let Some(missed) = self.pings.iter_mut().find(|ping| ping.is_barrier) else { return };
        // An answer that comes all the same still tells what was read.
        missed.is_barrier = false;
        let covers = missed.covers;
        let Open { tracked, marks, .. } = self;
        tracked.retain(|tracked| {
            let over = tracked.number <= covers;
            if over {
                notes(DeliveryNote::Settled(tracked.id, marks.lost(tracked.number)));
            }
            !over
        });
    }

    fn is_over(&self) -> bool {
        // A barrier that is out is not forgotten, or there would be another.
        self.waiting.is_empty()
            && self.tracked.is_empty()
            && self.marks.is_empty()
            && self.barrier().is_none()
    }
}
