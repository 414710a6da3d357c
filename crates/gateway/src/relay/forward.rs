//! Reading from one peer and passing on to the other: the data path.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pulsegate_core::{CloseFrame, Head, Leg, Opcode, Step, Violation};
use pulsegate_heartbeat::Pong;
use tokio::io::{AsyncRead, ReadBuf};

use super::buffer::{READ_BYTES_MAX, with_buffer};
use super::driver::Driver;

/// What one read brought.
#[derive(Debug, Default)]
struct Tally {
    messages: u64,
    payload_bytes: u64,
}

impl Driver {
    /// Reads from `leg` once and passes on what came; returns whether something changed.
    ///
    /// A peer is read only while the other one takes what it sends: that is all the back-pressure there is.
    /// Only the read is gated, never the writes and timers of the same leg.
    pub(super) fn read(&mut self, leg: Leg, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.lines[leg.index()].input_over {
            return false;
        }
        let other = &self.lines[leg.other().index()];
        let waiting = !other.outbox.is_empty() && self.session.is_forwarding(leg);
        // A frame of our own that waits for the flush of this same poll is no pause.
        let paused = waiting && other.blocked;
        self.note_gate(leg, !paused, now);
        if waiting {
            return false;
        }
        with_buffer(|buffer| {
            let line = &mut self.lines[leg.index()];
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
            self.take(leg, &mut buffer[..kept + fresh], fresh, cx, now);
            true
        })
    }

    /// Takes bytes that came with the handshake.
    pub(super) fn take_early(&mut self, leg: Leg, early: &[u8], now: Instant) {
        if early.is_empty() {
            return;
        }
        // Nothing is written yet, so there is nothing to wake up for: the first poll flushes.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut bytes = early.to_vec();
        self.session.handle_bytes(leg, now);
        self.take(leg, &mut bytes, early.len(), &mut cx, now);
    }

    /// The peer sends no more; returns true, since that changes something.
    fn end_input(&mut self, leg: Leg, now: Instant) -> bool {
        let line = &mut self.lines[leg.index()];
        if line.broken || line.finished || !self.session.handle_input_over(leg) {
            return self.hang_up(leg, now);
        }
        line.input_over = true;
        true
    }

    fn note_gate(&mut self, leg: Leg, open: bool, now: Instant) {
        let line = &mut self.lines[leg.index()];
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

    /// Walks the frames in `input`, of which the last `fresh` bytes are new, passes data on and handles
    /// control frames; what is incomplete is kept.
    fn take(&mut self, leg: Leg, input: &mut [u8], fresh: usize, cx: &mut Context<'_>, now: Instant) {
        let mut tally = Tally::default();
        let mut at = 0;
        while self.session.is_forwarding(leg) || self.session.is_awaiting_close(leg) {
            // A control frame of ours that waits for a place would else find none in an endless stream.
            let to = leg.other();
            let ours_waits =
                leg == Leg::App && (self.session.is_message_waiting() || self.session.is_barrier_waiting());
            let stop_between_frames =
                self.lines[to.index()].pong_due.is_some() || self.session.is_probe_due(to) || ours_waits;
            let frame_left = self.lines[leg.index()].reader.frame_left();
            match self.lines[leg.index()].reader.next(&input[at..], stop_between_frames) {
                Ok(Step::Data { len, payload_bytes, messages }) => {
                    tally.messages += u64::from(messages);
                    tally.payload_bytes += payload_bytes;
                    if leg == Leg::App && messages > 0 {
                        self.follow(u64::from(messages), payload_bytes, now);
                    }
                    self.pass_on(leg, &input[at..at + len], frame_left, cx, now);
                    if ours_waits {
                        self.place_messages(now);
                        self.ask_what_is_read(now);
                    }
                    at += len;
                }
                Ok(Step::Control { head, len }) => {
                    self.handle_control(leg, head, &mut input[at..at + len], cx, now);
                    at += len;
                }
                Ok(Step::Wait) => {
                    self.lines[leg.index()].kept = input[at..].into();
                    break;
                }
                Err(violation) => {
                    self.violate(leg, violation, now);
                    break;
                }
            }
        }
        let line = &mut self.lines[leg.index()];
        let within_frame = !line.reader.is_between_frames() || !line.kept.is_empty();
        line.clock.handle_read(fresh, within_frame, now);
        self.count(leg, &tally);
    }

    /// Writes to the other side; the first `frame_left` bytes end a frame that was begun before.
    fn pass_on(&mut self, leg: Leg, bytes: &[u8], frame_left: u64, cx: &mut Context<'_>, now: Instant) {
        let between_frames = self.lines[leg.index()].reader.is_between_frames();
        let to = leg.other();
        if !self.session.is_forwarding(leg) {
            return;
        }
        let line = &mut self.lines[to.index()];
        let Some(stream) = line.stream.as_mut().filter(|_| !line.broken) else { return };
        match line.outbox.write(stream, bytes, frame_left, cx) {
            Ok(taken) => {
                line.within_frame = !between_frames;
                self.note_written(to, taken, now);
                self.lines[to.index()].settle_pong();
                self.probe(to, now);
            }
            Err(error) => self.note_broken(to, &error, now),
        }
    }

    fn handle_control(&mut self, leg: Leg, head: Head, frame: &mut [u8], cx: &mut Context<'_>, now: Instant) {
        match head.opcode {
            Opcode::Ping => {
                if !self.lines[leg.index()].budget.take(now) {
                    self.violate(leg, Violation::ControlFlood, now);
                    return;
                }
                let payload = &mut frame[head.head_len..];
                head.unmask(payload);
                self.lines[leg.index()].answer_ping(payload);
            }
            Opcode::Pong => self.handle_pong(leg, head, frame, cx, now),
            Opcode::Close => {
                let payload = &mut frame[head.head_len..];
                head.unmask(payload);
                match CloseFrame::parse(payload) {
                    Ok(close) => self.session.handle_close(leg, close, now),
                    Err(error) => self.violate(leg, Violation::InvalidClose(error), now),
                }
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
    }

    /// Eats the pongs that are our own; others pass (RFC 6455 section 5.5.3 allows them unasked).
    fn handle_pong(&mut self, leg: Leg, head: Head, frame: &mut [u8], cx: &mut Context<'_>, now: Instant) {
        let mut payload = [0; 125];
        let payload = &mut payload[..frame.len() - head.head_len];
        payload.copy_from_slice(&frame[head.head_len..]);
        head.unmask(payload);
        let metrics = self.shared.metrics.leg(leg);
        match self.session.handle_pong(leg, payload, now) {
            Pong::Ours { round_trip, late, .. } => {
                metrics.pongs_received.increment(1);
                if late {
                    metrics.pongs_late.increment(1);
                }
                if let Some(round_trip) = round_trip {
                    metrics.round_trip.record(round_trip);
                } else if !self.lines[leg.index()].budget.take(now) {
                    // An answer that was given before, again and again.
                    self.violate(leg, Violation::ControlFlood, now);
                }
            }
            Pong::Foreign => {
                if self.lines[leg.index()].budget.take(now) {
                    self.pass_on(leg, frame, 0, cx, now);
                } else {
                    self.violate(leg, Violation::ControlFlood, now);
                }
            }
        }
    }

    fn count(&self, leg: Leg, tally: &Tally) {
        if tally.payload_bytes == 0 && tally.messages == 0 {
            return;
        }
        self.entry.leg(leg).count(tally.messages, tally.payload_bytes);
        let metrics = self.shared.metrics.leg(leg);
        metrics.messages.increment(tally.messages);
        metrics.message_bytes.increment(tally.payload_bytes);
    }
}
