//! What is written to the client.

use std::time::Instant;

use pulsegate_core::v1::{Envelope, Meta, NackCode, Outgoing, Transmit, Welcome, Window};

use super::{Author, V1Note, V1Session};
use crate::delivery::DeliveryNote;
use crate::session::Note;

/// Takes a whole message of the WebSocket protocol: whether it is text, and its payload in parts.
pub type Write<'a> = &'a mut dyn FnMut(bool, &[&[u8]]);

impl V1Session {
    /// Gives `write` what is to be written to the client next; returns whether there was something. Call it again until
    /// there is nothing, or until the line has enough to write: what is not asked for is kept here.
    pub fn poll_transmit(&mut self, now: Instant, write: Write<'_>) -> bool {
        self.check_farewell(now);
        self.make_room(now);
        if self.closing.is_some() || self.client.is_none() {
            return false;
        }
        let wrote = self.write_welcome(write)
            || self.write_nack(write)
            || self.write_ack(now, write)
            || self.write_probe(now, write)
            || self.write_message(now, write);
        if wrote && let Some(client) = &mut self.client {
            client.told_at = now;
        }
        wrote
    }

    pub(super) fn write_welcome(&mut self, write: Write<'_>) -> bool {
        let Some((secret, resumed)) = self.client.as_mut().and_then(|client| client.welcome.take()) else {
            return false;
        };
        let Window { messages, bytes } = self.limits.window;
        let welcome = Welcome {
            resumed,
            received: self.inbound.received(),
            next: self.out.sent() + 1,
            token: &self.token(secret),
            resume_window_s: self.limits.resume_window.as_secs(),
            window_messages: messages as u64,
            window_kib: bytes as u64 / 1024,
            ack: self.limits.ack_rules(),
            heartbeat_ms: self.limits.heartbeat.as_millis() as u64,
            features: 0,
        };
        write_envelope(&Envelope::Welcome(welcome), write);
        true
    }

    fn write_ack(&mut self, now: Instant, write: Write<'_>) -> bool {
        let Some((ack, asked)) = self.inbound.poll_ack(now) else { return false };
        let envelope = if asked { Envelope::ProbeAck(ack) } else { Envelope::Ack(ack) };
        write_envelope(&envelope, write);
        true
    }

    fn write_nack(&mut self, write: Write<'_>) -> bool {
        let Some((seq, code)) = self.nacks.poll() else { return false };
        let reason = match code {
            NackCode::Expired => "expired",
            NackCode::AppGone => "the app is gone",
            NackCode::Other(_) => "",
        };
        write_envelope(&Envelope::Nack { seq, code, reason }, write);
        true
    }

    fn write_probe(&mut self, now: Instant, write: Write<'_>) -> bool {
        if self.probe_at().is_none_or(|at| now < at) {
            return false;
        }
        if let Some(client) = &mut self.client {
            client.probed_at = Some(now);
        }
        // Few messages, if any: what a busy time took is given back.
        self.shrink();
        write_envelope(&Envelope::Probe, write);
        true
    }

    fn write_message(&mut self, now: Instant, write: Write<'_>) -> bool {
        let (mut told, mut passed) = ([None, None], None);
        let written = self.with_fates(|session, fates| match session.out.poll_transmit(now, fates) {
            Some(Transmit::Message { message, again, .. }) => {
                write_data(message, write);
                let asked = match message.tag {
                    Some(Author::Order(asked)) => Some(asked),
                    Some(Author::App) | None => None,
                };
                let sent = asked.map(|asked| V1Note::Session(Note::Delivery(DeliveryNote::Sent(asked.id))));
                told = [again.then_some(V1Note::Retransmitted), sent];
                passed = Some((asked, message.payload.len()));
                true
            }
            Some(Transmit::Skip { count, reason }) => {
                write_envelope(&Envelope::Skip { count, reason }, write);
                true
            }
            None => false,
        });
        self.notes.extend(told.into_iter().flatten());
        if let (Some((asked, bytes)), Some(client)) = (passed, &mut self.client) {
            client.note_passed(asked, bytes, &self.limits, now);
        }
        written
    }

    /// When the client's code is to be asked: a message waits for its ACK, or for room, or it has not been told anything for
    /// long. One
    /// question at a time; early enough that its answer also spares a ping.
    fn probe_at(&self) -> Option<Instant> {
        let client = self.client.as_ref().filter(|client| client.probed_at.is_none())?;
        let heartbeat = client.told_at + self.limits.heartbeat * 4 / 5;
        let overdue = self.out.oldest_sent_at().map(|at| at + self.limits.confirm_within);
        // Somebody waits for room, and only an ACK makes some.
        let crowded = self.staged.is_some() || !self.waiting.is_empty();
        let crowded = self.out.oldest_sent_at().filter(|_| crowded);
        [overdue, crowded, Some(heartbeat)].into_iter().flatten().min()
    }

    /// Returns when [`poll_transmit`](V1Session::poll_transmit) has something to write, if nothing happens before.
    pub fn poll_transmit_timeout(&self) -> Option<Instant> {
        if self.closing.is_some() || self.client.is_none() {
            return None;
        }
        [self.inbound.poll_timeout(), self.probe_at()].into_iter().flatten().min()
    }
}

fn write_envelope(envelope: &Envelope<'_>, write: Write<'_>) {
    let mut payload = Vec::new();
    envelope.write(&mut payload);
    write(false, &[&payload]);
}

fn write_data(message: &Outgoing<Author>, write: Write<'_>) {
    if message.ack_now {
        write_envelope(&Envelope::Meta(Meta { ack_now: true, ..Meta::default() }), write);
    }
    if message.text {
        write(true, &[&message.payload]);
    } else {
        write(false, &[&[0x00], &message.payload]);
    }
}
