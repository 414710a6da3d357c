//! Writing to both peers.

use std::pin::Pin;
use std::task::Context;
use std::time::Instant;

use pulsegate_core::{Leg, Opcode};
use tokio::io::AsyncWrite;

use super::super::buffer::READ_BYTES_MAX;
use super::driver::V1Driver;

impl V1Driver {
    /// Writes what waits for `leg`; returns whether something changed.
    pub(super) fn flush(&mut self, leg: Leg, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(line) = self.line(leg).map(|line| &mut line.line) else { return false };
        let Some(stream) = &mut line.stream else { return false };
        let mut progress = false;
        if !line.outbox.is_empty() {
            match line.outbox.flush(stream, cx) {
                Ok(taken) => {
                    progress = taken > 0;
                    self.note_written(leg, taken, now);
                }
                Err(error) => {
                    self.note_broken(leg, &error, now);
                    return true;
                }
            }
        }
        let Some(line) = self.line(leg).map(|line| &mut line.line) else { return progress };
        line.settle_pong();
        if line.finishing && !line.finished && line.outbox.is_empty() {
            line.finished = true;
            if let Some(stream) = &mut line.stream {
                // An error here means that the connection is gone, which the next read tells as well.
                let _ = Pin::new(stream).poll_shutdown(cx);
            }
            if leg == Leg::App {
                self.session.handle_app_finished();
            }
        }
        progress
    }

    /// Keeps the machine's stall clock: it runs while bytes wait and the socket takes none.
    fn note_written(&mut self, leg: Leg, taken: usize, now: Instant) {
        if taken > 0 {
            self.session.handle_written(leg, taken, now);
        }
        let Some(line) = self.line(leg).map(|line| &mut line.line) else { return };
        let blocked = !line.outbox.is_empty();
        let begins = blocked && !std::mem::replace(&mut line.blocked, blocked);
        line.blocked = blocked;
        if blocked {
            self.session.handle_write_blocked(leg, now);
        } else {
            match leg {
                Leg::Client => self.session.handle_client_taken(now),
                Leg::App => self.session.handle_app_taken(now),
            }
        }
        if begins {
            self.shared.metrics.leg(leg).write_stalls.increment(1);
        }
    }

    /// Writes to the client what the machine has for it; what there is no place for is kept there, not here. Returns
    /// whether there was something.
    pub(super) fn transmit(&mut self, now: Instant) -> bool {
        let was_reading = self.session.is_reading_app();
        let wrote = self.fill(now);
        // Room for what the app says: it is read again in this poll, or nobody would wake us for it.
        wrote || (!was_reading && self.session.is_reading_app())
    }

    fn fill(&mut self, now: Instant) -> bool {
        let Some(client) = &mut self.client else {
            // With nobody to write to this only makes room.
            return self.session.poll_transmit(now, &mut |_, _| {});
        };
        let line = &mut client.line.line;
        let mut progress = false;
        while line.takes_more() && line.outbox.len() < READ_BYTES_MAX {
            let outbox = &mut line.outbox;
            if !self.session.poll_transmit(now, &mut |text, parts| outbox.push_message(text, parts, None)) {
                break;
            }
            progress = true;
        }
        progress
    }

    /// Gives the app what could not be written to it when it came; returns whether there was something.
    pub(super) fn give_again(&mut self, now: Instant) -> bool {
        let V1Driver { session, app, .. } = self;
        let mut progress = false;
        while app.line.takes_more()
            && app.line.outbox.len() < READ_BYTES_MAX
            && let Some(message) = session.poll_app_message(now)
        {
            app.give(message);
            progress = true;
        }
        progress
    }

    /// Writes the pings that are due and may go now; returns whether there was one.
    pub(super) fn probe(&mut self, now: Instant) -> bool {
        let mut progress = false;
        if let Some(client) = &mut self.client {
            let line = &mut client.line.line;
            if let Some(ahead) = line.control_place()
                && let Some(probe) = self.session.poll_client_probe(now, ahead, line.probe_len())
            {
                line.push_in_place(Opcode::Ping, &probe.to_payload());
                self.shared.metrics.leg(Leg::Client).probes_sent.increment(1);
                progress = true;
            }
            if line.takes_more()
                && let Some(barrier) =
                    self.session.poll_client_barrier(now, line.outbox.len(), line.probe_len())
            {
                line.push_behind(Opcode::Ping, &barrier.to_payload());
                self.shared.metrics.delivery.barriers_sent.increment(1);
                progress = true;
            }
        }
        let line = &mut self.app.line;
        if let Some(ahead) = line.control_place()
            && let Some(probe) = self.session.poll_app_probe(now, ahead, line.probe_len())
        {
            line.push_in_place(Opcode::Ping, &probe.to_payload());
            self.shared.metrics.leg(Leg::App).probes_sent.increment(1);
            progress = true;
        }
        if line.takes_more()
            && let Some(barrier) = self.session.poll_barrier(now, line.outbox.len(), line.probe_len())
        {
            line.push_behind(Opcode::Ping, &barrier.to_payload());
            self.shared.metrics.v1.barriers_sent.increment(1);
            progress = true;
        }
        progress
    }
}
