//! Messages to the client: a place for those of ours, pings that ask what was read, and what becomes of all.

use std::time::Instant;

use pulsegate_core::{Leg, MessageId, Opcode, Outcome};
use pulsegate_registry::{Confirm, DeliveryNote, Entry};

use super::buffer::READ_BYTES_MAX;
use super::driver::Driver;
use super::mailbox::Mailbox;
use crate::feed::What;
use crate::shared::{Shared, clock};

impl Driver {
    /// Messages of the app end within what is passed on next: from here on it counts how far they come.
    pub(super) fn follow(&mut self, messages: u64, bytes: u64, now: Instant) {
        if self.session.is_forwarding(Leg::App) {
            self.session.handle_passed(messages, bytes, now);
            if self.shared.config.delivery.confirm != Confirm::Off || self.entry.info().receipts {
                self.shared.metrics.delivery.accepted(messages);
            }
        }
    }

    /// Puts messages of ours behind what was passed on to the client, between two of the app's; returns whether there was
    /// one.
    pub(super) fn place_messages(&mut self, now: Instant) -> bool {
        let mut placed = false;
        while self.message_place().is_some_and(|ahead| ahead < READ_BYTES_MAX) {
            let Some(message) = self.session.poll_message(now) else { break };
            self.lines[Leg::Client.index()].outbox.push_message(message.text, &[&message.payload], None);
            placed = true;
        }
        placed
    }

    /// Writes a ping behind all that was passed on to the client, if one is wanted and no message is under way;
    /// returns whether there was one.
    pub(super) fn ask_what_is_read(&mut self, now: Instant) -> bool {
        let place = self.message_place();
        let line = &mut self.lines[Leg::Client.index()];
        let Some(ahead) = place else { return false };
        let Some(barrier) = self.session.poll_barrier(now, ahead, line.probe_len()) else { return false };
        line.push_behind(Opcode::Ping, &barrier.to_payload());
        self.shared.metrics.delivery.barriers_sent.increment(1);
        true
    }

    /// Asks the client right before our Close frame what it has read.
    pub(super) fn ask_a_last_time(&mut self, now: Instant) {
        let between = self.lines[Leg::App.index()].reader.is_between_messages();
        let line = &mut self.lines[Leg::Client.index()];
        if between
            && line.is_between_frames()
            && let Some(barrier) = self.session.poll_last_barrier(now, line.outbox.len(), line.probe_len())
        {
            line.push_behind(Opcode::Ping, &barrier.to_payload());
            self.shared.metrics.delivery.barriers_sent.increment(1);
        }
    }

    /// Returns how many bytes wait for the client where something of ours can go behind all of them, and between two
    /// messages of the app; `None` if it can't, or if the socket is full.
    fn message_place(&self) -> Option<usize> {
        let line = &self.lines[Leg::Client.index()];
        let between = self.lines[Leg::App.index()].reader.is_between_messages();
        (between && line.takes_more()).then(|| line.outbox.len())
    }

    pub(super) fn tell_delivery(&mut self, note: DeliveryNote) {
        tell_of_messages(&self.shared, &self.entry, &mut self.receipted, note);
    }
}

/// Tells what became of messages to the client; `receipted` counts those that the app was told of.
pub(super) fn tell_of_messages(
    shared: &Shared,
    entry: &Entry<Mailbox>,
    receipted: &mut u64,
    note: DeliveryNote,
) {
    match note {
        DeliveryNote::Confirmed(level, messages) => {
            shared.metrics.delivery.confirmed(level, messages);
            if entry.info().receipts {
                *receipted += messages;
                let (id, messages) = (entry.id(), *receipted);
                shared.feed.publish(What::SessionConfirmed { id, level, messages });
            }
        }
        DeliveryNote::Rejected(messages) => {
            shared.metrics.delivery.rejected(messages);
            // It has come: what is told next is how many of the first have.
            *receipted += messages;
        }
        DeliveryNote::Unsent(messages) => shared.metrics.delivery.unsent(messages),
        DeliveryNote::Lost(messages) => shared.metrics.delivery.lost(messages),
        DeliveryNote::Sent(id) => shared.messages.sent(id),
        DeliveryNote::Settled(id, outcome) => settle(shared, entry, id, outcome),
    }
}

/// Gives a message its end, for all who may ask.
pub(super) fn settle(shared: &Shared, entry: &Entry<Mailbox>, id: MessageId, outcome: Outcome) {
    let Some((record, elapsed)) = shared.messages.settle(id, outcome, clock()) else { return };
    entry.handle().release(record.bytes);
    shared.metrics.delivery.settled(outcome, elapsed);
    let requested = record.level;
    shared.feed.publish(What::MessageSettled { id, session: record.session, requested, outcome, elapsed });
}
