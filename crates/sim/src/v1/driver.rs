//! What the gateway does with a session, in the parts and the order of the real driver (`relay/v1/driver.rs`).

use pulsegate_core::v1::{Ack, Envelope};
use pulsegate_core::{CloseFrame, Leg};
use pulsegate_registry::{Dial, Order, Parting, V1Session};

use super::bugs::V1Bug;
use super::line::Frame;
use super::oracle::write;
use super::world::World;
use crate::MS;

/// Frames that a client's socket takes before it is full.
pub(super) const SOCKET_FRAMES: usize = 24;

impl World {
    pub(super) fn flush_app(&mut self, session: &mut V1Session) -> bool {
        let at = self.at(self.now);
        let mut progress = false;
        while !self.app.is_full()
            && let Some(frame) = self.gateway.outbox.pop_front()
        {
            self.app.to_app.push(frame, MS / 10, self.now);
            session.handle_written(Leg::App, 10, at);
            progress = true;
        }
        if !self.gateway.outbox.is_empty() {
            session.handle_write_blocked(Leg::App, at);
        } else if progress {
            session.handle_app_taken(at);
        }
        progress
    }

    pub(super) fn read_app(&mut self, session: &mut V1Session) -> bool {
        let at = self.at(self.now);
        let mut progress = false;
        loop {
            let open = session.is_reading_app() || !session.is_app_open();
            if std::mem::replace(&mut self.gateway.reading_app, open) != open {
                session.handle_reading(Leg::App, open, at);
            }
            let Some(frame) = (if open { self.app.to_gateway.pop(self.now) } else { None }) else { break };
            progress = true;
            if let Frame::Gone = frame {
                session.handle_hangup(Leg::App, at);
                continue;
            }
            session.handle_bytes(Leg::App, at);
            match frame {
                Frame::Text(payload) => self.take_from_app(session, true, &payload),
                Frame::Word(payload) => self.take_from_app(session, false, &payload),
                Frame::Pong(payload) => {
                    self.note_pong(Leg::App, payload);
                    session.handle_app_pong(&payload, at);
                }
                Frame::Close(code, reason) => {
                    session.handle_app_close(code.map(|code| CloseFrame::new(code, &reason)), at);
                }
                Frame::Ping(_) | Frame::Hello(_) | Frame::Open | Frame::Gone => {}
            }
        }
        progress
    }

    fn take_from_app(&mut self, session: &mut V1Session, text: bool, payload: &[u8]) {
        if !session.is_awaiting_app() {
            return;
        }
        self.oracle.session().taken[0] += u64::from(!session.is_closing());
        session.handle_app_message(text, payload, self.at(self.now));
    }

    /// Dials the app again, when the session wants that.
    pub(super) fn dial_app(&mut self, session: &mut V1Session) -> bool {
        let Some(Dial { repeats, .. }) = session.poll_dial(self.at(self.now)) else { return false };
        let latency = self.draw(50 * MS);
        self.gateway.dialing = Some((self.now + latency, repeats));
        true
    }

    /// Takes what came of it.
    pub(super) fn take_app(&mut self, session: &mut V1Session) -> bool {
        let (now, at) = (self.now, self.at(self.now));
        let Some((_, repeats)) = self.gateway.dialing.take_if(|(due, _)| *due <= now) else { return false };
        if self.random.u32(0..200) == 0 {
            session.handle_dial_failed(Some("1008 refused"), at);
        } else if now < self.app_down_until {
            session.handle_dial_failed(None, at);
        } else if session.handle_app_dialled(self.random.u64(..), at) {
            let untold = self.bug == Some(V1Bug::UntoldReplay);
            self.app_returns(if untold { 0 } else { repeats });
            self.gateway.reading_app = true;
        }
        true
    }

    /// Gives the app what it could not be given when it came.
    pub(super) fn give_again(&mut self, session: &mut V1Session) -> bool {
        let mut progress = false;
        while self.gateway.outbox.len() < SOCKET_FRAMES
            && let Some(message) = session.poll_app_message(self.at(self.now))
        {
            let payload = message.payload.to_vec();
            let frame = if message.text { Frame::Text(payload) } else { Frame::Word(payload) };
            progress = true;
            match self.bug {
                Some(V1Bug::LostReplay) if std::mem::take(&mut self.oracle.session().is_replaying) => {
                    continue;
                }
                Some(_) | None => self.gateway.outbox.push_back(frame),
            }
        }
        progress
    }

    pub(super) fn transmit(&mut self, session: &mut V1Session) -> bool {
        let at = self.at(self.now);
        let was_reading = session.is_reading_app();
        let mut progress = false;
        loop {
            let line = self.gateway.line.filter(|_| session.is_attached());
            if line.is_some_and(|place| self.lines[place].down.len() >= SOCKET_FRAMES) {
                session.handle_write_blocked(Leg::Client, at);
                break;
            }
            let mut frames = Vec::new();
            let wrote = session.poll_transmit(at, &mut |text, parts| {
                let payload = parts.concat();
                frames.push(if text { Frame::Text(payload) } else { Frame::Word(payload) });
            });
            if !wrote {
                session.handle_client_taken(at);
                break;
            }
            progress = true;
            session.handle_written(Leg::Client, 10, at);
            if self.bug == Some(V1Bug::OutboundIsLife) {
                session.handle_bytes(Leg::Client, at);
            }
            if let Some(place) = line {
                for frame in frames {
                    self.push_with_bugs(place, frame);
                }
            }
        }
        progress || (!was_reading && session.is_reading_app())
    }

    fn push_with_bugs(&mut self, place: usize, mut frame: Frame) {
        if let (Some(V1Bug::FallingAck), Frame::Word(word)) = (self.bug, &mut frame)
            && let Ok(Envelope::Ack(ack)) = Envelope::parse(word)
        {
            self.gateway.passed += 1;
            let less = u64::from(self.gateway.passed.is_multiple_of(5)) * 2;
            let handled = ack.handled.saturating_sub(less);
            word.clear();
            Envelope::Ack(Ack { handled, window: None }).write(word);
        }
        let is_data = matches!(&frame, Frame::Text(_)) || matches!(&frame, Frame::Word(word) if word[0] == 0);
        let stale = self.stale_word(false, &frame);
        self.gateway.passed += u32::from(is_data);
        let is_50th = is_data && self.gateway.passed.is_multiple_of(50);
        let is_skip_of_one = matches!(&frame, Frame::Word(word) if word.starts_with(&[4, 1]));
        match self.bug {
            Some(V1Bug::SentExpired) if is_skip_of_one => {
                if let Some(number) = self.gateway.expired.take() {
                    let (text, mut payload) = write(b'o', number, 0);
                    payload.splice(0..0, [0; 1].into_iter().filter(|_| !text));
                    return self
                        .push_down(place, if text { Frame::Text(payload) } else { Frame::Word(payload) });
                }
            }
            Some(V1Bug::LostMessage) if is_50th => return,
            Some(V1Bug::DoubledMessage) if is_50th => self.push_down(place, frame.clone()),
            Some(V1Bug::LostNack) if matches!(&frame, Frame::Word(word) if word[0] == 6) => return,
            Some(_) | None => {}
        }
        self.push_down(place, frame);
        if let Some(stale) = stale {
            self.push_down(place, stale);
        }
    }

    pub(super) fn part(&mut self, session: &mut V1Session) -> bool {
        let mut progress = false;
        while let Some(parting) = session.poll_parting() {
            progress = true;
            let Some(place) = self.gateway.line.take() else { continue };
            match parting {
                Parting::Close(frame) => self.push_close(place, frame),
                Parting::End { words, frame } => {
                    for word in words {
                        self.push_with_bugs(place, Frame::Word(word));
                    }
                    self.push_close(place, frame);
                }
                Parting::Abandon(..) | Parting::Drop => self.push_down(place, Frame::Gone),
            }
        }
        progress
    }

    fn push_close(&mut self, place: usize, frame: Option<CloseFrame>) {
        let (code, reason) =
            frame.map_or((None, String::new()), |frame| (Some(frame.code), frame.reason.into()));
        self.push_down(place, Frame::Close(code, reason));
    }

    pub(super) fn carry_out(&mut self, session: &mut V1Session) -> bool {
        let mut progress = false;
        while let Some(order) = session.poll_app_order() {
            progress = true;
            match order {
                Order::Close(frame) => {
                    let (code, reason) =
                        frame.map_or((None, String::new()), |frame| (Some(frame.code), frame.reason.into()));
                    self.gateway.outbox.push_back(Frame::Close(code, reason));
                }
                Order::Finish => {
                    self.gateway.outbox.push_back(Frame::Gone);
                    session.handle_app_finished();
                }
                Order::Abandon(..) => {
                    self.gateway.outbox.clear();
                    self.app.to_app.push(Frame::Gone, MS / 10, self.now);
                }
            }
        }
        progress
    }

    pub(super) fn probe(&mut self, session: &mut V1Session) -> bool {
        let at = self.at(self.now);
        let mut progress = false;
        if let Some(place) = self.gateway.line
            && self.lines[place].down.len() < SOCKET_FRAMES
            && let Some(probe) = session.poll_client_probe(at, 0, 10)
        {
            self.push_down(place, Frame::Ping(probe.to_payload()));
            self.note_ping(Leg::Client, probe.to_payload(), false);
            session.handle_written(Leg::Client, 10, at);
            session.handle_client_taken(at);
            progress = true;
        }
        if let Some(place) = self.gateway.line
            && self.lines[place].down.len() < SOCKET_FRAMES
            && let Some(barrier) = session.poll_client_barrier(at, 0, 10)
        {
            self.push_down(place, Frame::Ping(barrier.to_payload()));
            self.note_ping(Leg::Client, barrier.to_payload(), true);
            if self.bug == Some(V1Bug::PongAhead) {
                session.handle_client_pong(&barrier.to_payload(), at);
            }
            session.handle_written(Leg::Client, 10, at);
            session.handle_client_taken(at);
            self.count("barrier to the client");
            progress = true;
        }
        if self.gateway.outbox.is_empty() && !self.app.is_full() {
            if let Some(probe) = session.poll_app_probe(at, 0, 10) {
                self.app.to_app.push(Frame::Ping(probe.to_payload()), MS / 10, self.now);
                self.note_ping(Leg::App, probe.to_payload(), false);
                session.handle_written(Leg::App, 10, at);
                session.handle_app_taken(at);
                progress = true;
            }
            if let Some(barrier) = session.poll_barrier(at, 0, 10) {
                self.app.to_app.push(Frame::Ping(barrier.to_payload()), MS / 10, self.now);
                self.note_ping(Leg::App, barrier.to_payload(), true);
                if self.bug == Some(V1Bug::DoubledBarrier) {
                    self.app.to_app.push(Frame::Ping(barrier.to_payload()), MS / 10, self.now);
                    self.note_ping(Leg::App, barrier.to_payload(), true);
                }
                session.handle_written(Leg::App, 10, at);
                session.handle_app_taken(at);
                self.count("barrier");
                progress = true;
            }
        }
        progress
    }
}
