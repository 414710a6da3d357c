//! Reading from both peers, message by message.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pulsegate_core::v1::Piece;
use pulsegate_core::{CloseFrame, Head, Leg, Opcode, Violation};
use pulsegate_heartbeat::Pong;
use tokio::io::{AsyncRead, ReadBuf};

use super::super::buffer::{READ_BYTES_MAX, with_buffer};
use super::driver::V1Driver;

/// What there is in the input.
enum Found {
    /// A message for the other side, with so many bytes.
    Message {
        used: usize,
        bytes: usize,
    },
    /// A word between the client and us.
    Word(usize),
    /// A part of a message.
    Part(usize),
    Control(Head, usize),
    Wait,
}

impl V1Driver {
    /// Reads from `leg` once; returns whether something changed. The app is read only while there is room to keep what it
    /// says; the client always, since what it says makes room, and how much it may say is bounded.
    pub(super) fn read(&mut self, leg: Leg, cx: &mut Context<'_>, now: Instant) -> bool {
        let open = leg == Leg::Client || self.session.is_reading_app() || !self.session.is_app_open();
        let Some(line) = self.line(leg) else { return false };
        if line.line.input_over || line.line.stream.is_none() {
            return false;
        }
        self.note_gate(leg, open, now);
        if !open {
            return false;
        }
        let Some(line) = self.line(leg) else { return false };
        if std::mem::take(&mut line.backlog) {
            let mut kept = std::mem::take(&mut line.line.kept);
            self.take(leg, &mut kept, 0, now);
            return true;
        }
        with_buffer(|buffer| self.read_into(leg, buffer, cx, now))
    }

    fn read_into(&mut self, leg: Leg, buffer: &mut [u8], cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(line) = self.line(leg).map(|line| &mut line.line) else { return false };
        let Some(stream) = &mut line.stream else { return false };
        let kept = line.kept.len();
        buffer[..kept].copy_from_slice(&line.kept);
        let mut unfilled = ReadBuf::new(&mut buffer[kept..kept + READ_BYTES_MAX]);
        match Pin::new(stream).poll_read(cx, &mut unfilled) {
            Poll::Pending => return false,
            Poll::Ready(Err(error)) => return self.end_broken(leg, &error, now),
            Poll::Ready(Ok(())) => {}
        }
        let fresh = unfilled.filled().len();
        if fresh == 0 {
            return self.end_input(leg, now);
        }
        line.kept = Box::default();
        self.session.handle_bytes(leg, now);
        self.take(leg, &mut buffer[..kept + fresh], fresh, now);
        true
    }

    /// Takes bytes that came with the handshake.
    pub(super) fn take_early(&mut self, leg: Leg, early: &[u8], now: Instant) {
        if !early.is_empty() {
            self.session.handle_bytes(leg, now);
            self.take(leg, &mut early.to_vec(), early.len(), now);
        }
    }

    /// The peer sends no more; returns true, since that changes something.
    fn end_input(&mut self, leg: Leg, now: Instant) -> bool {
        let line = &mut self.app.line;
        if leg == Leg::App && !line.broken && !line.finished && self.session.handle_app_input_over() {
            line.input_over = true;
            return true;
        }
        self.hang_up(leg, now)
    }

    fn note_gate(&mut self, leg: Leg, open: bool, now: Instant) {
        let Some(line) = self.line(leg).map(|line| &mut line.line) else { return };
        if line.reading == open {
            return;
        }
        line.reading = open;
        line.clock.handle_pause(now);
        if !open {
            self.shared.metrics.leg(leg).backpressure_pauses.increment(1);
        }
        self.session.handle_reading(leg, open, now);
    }

    /// Takes the messages in `input`, of which the last `fresh` bytes are new; what is incomplete is kept, and what there
    /// is no room for.
    fn take(&mut self, leg: Leg, input: &mut [u8], fresh: usize, now: Instant) {
        let (mut at, mut messages, mut bytes) = (0, 0, 0);
        let mut backlog = false;
        while self.is_listening(leg) {
            if leg == Leg::App && !self.session.is_reading_app() && self.session.is_app_open() {
                backlog = at < input.len();
                break;
            }
            let found = match leg {
                Leg::Client => self.find_client(&mut input[at..], now),
                Leg::App => self.find_app(&mut input[at..], now),
            };
            match found {
                Ok(Found::Message { used, bytes: payload }) => {
                    at += used;
                    messages += 1;
                    bytes += payload as u64;
                }
                Ok(Found::Word(used)) => at += used,
                Ok(Found::Part(used)) => {
                    if leg == Leg::Client {
                        self.session.handle_client_part(now);
                    }
                    at += used;
                }
                Ok(Found::Control(head, used)) => {
                    self.handle_control(leg, head, &mut input[at..at + used], now);
                    at += used;
                }
                Ok(Found::Wait) => break,
                Err(violation) => {
                    self.violate(leg, violation, now);
                    at = input.len();
                    break;
                }
            }
        }
        if !self.is_listening(leg) {
            // What comes behind a Close frame, or from a client that is out, is nothing to anybody.
            at = input.len();
        }
        if let Some(line) = self.line(leg) {
            line.backlog = backlog;
            line.line.kept = input[at..].into();
            let within = !line.line.reader.is_between_frames() || (!line.line.kept.is_empty() && !backlog);
            line.assembler.shrink(&line.line.reader);
            if fresh > 0 {
                line.line.clock.handle_read(fresh, within, now);
            }
        }
        self.count(leg, messages, bytes);
    }

    fn is_listening(&self, leg: Leg) -> bool {
        match leg {
            Leg::Client => self.session.is_attached(),
            Leg::App => self.session.is_awaiting_app(),
        }
    }

    fn find_client(&mut self, input: &mut [u8], now: Instant) -> Result<Found, Violation> {
        let V1Driver { client, app, session, .. } = self;
        let Some(client) = client else { return Ok(Found::Wait) };
        let line = &mut client.line;
        Ok(match line.assembler.next(&mut line.line.reader, input)? {
            Piece::Message { text, payload, used } => {
                match session.handle_client_message(text, payload, now) {
                    Some(message) => {
                        if message.is_now {
                            app.give(message);
                        }
                        Found::Message { used, bytes: message.payload.len() }
                    }
                    None => Found::Word(used),
                }
            }
            Piece::Part { used } => Found::Part(used),
            Piece::Control { head, used } => Found::Control(head, used),
            Piece::Wait => Found::Wait,
        })
    }

    fn find_app(&mut self, input: &mut [u8], now: Instant) -> Result<Found, Violation> {
        let V1Driver { app, session, .. } = self;
        Ok(match app.assembler.next(&mut app.line.reader, input)? {
            Piece::Message { text, payload, used } => match session.handle_app_message(text, payload, now) {
                true => Found::Message { used, bytes: payload.len() },
                false => Found::Part(used),
            },
            Piece::Part { used } => Found::Part(used),
            Piece::Control { head, used } => Found::Control(head, used),
            Piece::Wait => Found::Wait,
        })
    }

    fn handle_control(&mut self, leg: Leg, head: Head, frame: &mut [u8], now: Instant) {
        let payload = &mut frame[head.head_len..];
        head.unmask(payload);
        match head.opcode {
            Opcode::Ping => {
                let Some(line) = self.line(leg).map(|line| &mut line.line) else { return };
                if line.budget.take(now) {
                    line.answer_ping(payload);
                } else {
                    self.violate(leg, Violation::ControlFlood, now);
                }
            }
            Opcode::Pong => self.handle_pong(leg, payload, now),
            Opcode::Close => match CloseFrame::parse(payload) {
                Ok(close) if leg == Leg::Client => self.session.handle_client_close(close, now),
                Ok(close) => self.session.handle_app_close(close, now),
                Err(error) => self.violate(leg, Violation::InvalidClose(error), now),
            },
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
    }

    /// A pong that is not ours answers nobody: what stands between the peers are messages, not frames.
    fn handle_pong(&mut self, leg: Leg, payload: &[u8], now: Instant) {
        let pong = match leg {
            Leg::Client => self.session.handle_client_pong(payload, now),
            Leg::App => Some(self.session.handle_app_pong(payload, now)),
        };
        let metrics = self.shared.metrics.leg(leg);
        let known = match pong {
            Some(Pong::Ours { round_trip, late, .. }) => {
                metrics.pongs_received.increment(1);
                metrics.pongs_late.increment(u64::from(late));
                if let Some(round_trip) = round_trip {
                    metrics.round_trip.record(round_trip);
                }
                round_trip.is_some()
            }
            Some(Pong::Foreign) => false,
            None => return,
        };
        if !known && self.line(leg).is_some_and(|line| !line.line.budget.take(now)) {
            self.violate(leg, Violation::ControlFlood, now);
        }
    }

    fn count(&self, leg: Leg, messages: u64, bytes: u64) {
        if messages > 0 {
            self.entry.leg(leg).count(messages, bytes);
            let metrics = self.shared.metrics.leg(leg);
            metrics.messages.increment(messages);
            metrics.message_bytes.increment(bytes);
            match leg {
                Leg::Client => self.shared.metrics.v1.accepted(messages),
                Leg::App => self.shared.metrics.delivery.accepted(messages),
            }
        }
    }
}
