//! What to tell the gateway.

use std::time::Instant;

use pulsegate_core::v1::{self, Ack, Envelope, Meta, Outgoing};

use super::{Machine, Phase};
use crate::event::{Frame, Transmit};

/// One PROBE at a time.
#[derive(Debug)]
pub(super) struct Probing {
    unanswered: bool,
    /// When the latest was written, or the connection was greeted.
    since: Instant,
}

impl Probing {
    pub(super) fn new(now: Instant) -> Probing {
        Probing { unanswered: false, since: now }
    }

    pub(super) fn handle_answer(&mut self) {
        self.unanswered = false;
    }
}

impl<T: Copy> Machine<T> {
    /// Returns what to write next. What was returned counts as written; what is lost with the connection is given again
    /// on the next.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some(first) = self.outbox.pop_front() {
            return Some(first);
        }
        match self.phase {
            Phase::Live => self.next_word(now).or_else(|| self.next_message(now)),
            Phase::Closing { until, bye: false } => {
                let next = self.next_message(now).or_else(|| self.receive.last_ack().map(ack));
                next.or_else(|| {
                    self.phase = Phase::Closing { until, bye: true };
                    self.outbox.push_back(Transmit::Close { code: 1000, reason: "" });
                    let (received, sent) = (self.receive.received(), self.send.sent());
                    Some(word(&Envelope::Bye { received, sent }))
                })
            }
            Phase::Closing { bye: true, .. }
            | Phase::Down { .. }
            | Phase::Greeting { .. }
            | Phase::Leaving { .. }
            | Phase::Done => None,
        }
    }

    fn next_word(&mut self, now: Instant) -> Option<Transmit> {
        if let Some((due, asked)) = self.receive.poll_ack(now) {
            return Some(if asked { word(&Envelope::ProbeAck(due)) } else { ack(due) });
        }
        if self.probe_at().is_some_and(|at| at <= now) {
            self.probing = Probing { unanswered: true, since: now };
            self.crowded = None;
            return Some(word(&Envelope::Probe));
        }
        // A packet leaves anyway: an ACK in it costs a few bytes and saves one of its own.
        let last_ack = self.send.has_unsent().then(|| self.receive.last_ack()).flatten();
        last_ack.map(ack)
    }

    fn next_message(&mut self, now: Instant) -> Option<Transmit> {
        let Machine { send, fates, outbox, .. } = self;
        match send.poll_transmit(now, &mut |tag, fate| fates.push_back((tag, fate)))? {
            v1::Transmit::Skip { count, reason } => Some(word(&Envelope::Skip { count, reason })),
            v1::Transmit::Message { message, .. } => {
                let frame = to_frame(message);
                let Some(meta) = meta(message, now) else { return Some(frame) };
                outbox.push_back(frame);
                Some(word(&Envelope::Meta(meta)))
            }
        }
    }

    /// Returns when a PROBE is due: something waits for long, or the gateway is silent for long.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        if self.probing.unanswered {
            return None;
        }
        let waits = self.send.sent() > self.send.acked();
        let asked_at = waits.then(|| {
            let waits_since = self.send.oldest_sent_at().unwrap_or(self.probing.since);
            waits_since.max(self.probing.since) + self.config.confirm_within
        });
        // Somebody waits for room, and only an ACK makes some.
        let crowded_at = self.crowded.filter(|_| waits);
        let silent_at = self.silence.ask_at().filter(|_| self.wants_input());
        asked_at.into_iter().chain(crowded_at).chain(silent_at).min()
    }
}

fn word(envelope: &Envelope<'_>) -> Transmit {
    let mut payload = Vec::new();
    envelope.write(&mut payload);
    Transmit::Frame(Frame { text: false, payload })
}

fn ack(ack: Ack) -> Transmit {
    word(&Envelope::Ack(ack))
}

fn to_frame<T>(message: &Outgoing<T>) -> Transmit {
    match message.text {
        true => Transmit::Frame(Frame { text: true, payload: message.payload.to_vec() }),
        false => word(&Envelope::Binary(&message.payload)),
    }
}

/// What goes before a message, each time it is sent.
fn meta<T>(message: &Outgoing<T>, now: Instant) -> Option<Meta<'_>> {
    let left = message.expires_at.map(|at| at.saturating_duration_since(now).as_millis());
    let meta = Meta {
        ttl_ms: left.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX).clamp(1, v1::COUNT_MAX)),
        ack_now: message.ack_now,
        key: message.key.as_deref(),
    };
    (meta != Meta::default()).then_some(meta)
}
