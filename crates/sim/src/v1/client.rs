//! The client's driver: what a page's WebSocket stack and its code do with the machine.

use std::collections::VecDeque;

use pulsegate_client::{Event, Machine, Transmit};
use pulsegate_core::v1::{Offer, OfferedResume, Outgoing};

use super::line::{Frame, Line};
use super::oracle::{Invariant, write};
use super::world::World;
use crate::{MS, SECOND, Time};

/// A client: its machine, its stack, and its connection.
pub(super) struct Client {
    pub(super) machine: Machine<u32>,
    /// Its connection, by place in the world.
    pub(super) line: Option<usize>,
    /// Its code does not run before; the stack reads on.
    pub(super) hung_until: Time,
    /// Nothing of it runs before.
    pub(super) frozen_until: Time,
    /// Read by the stack, not taken by the code.
    inbox: VecDeque<Frame>,
    pub(super) said: u32,
    /// Sessions that were lost to it.
    pub(super) resets: u32,
}

impl Client {
    pub(super) fn new(machine: Machine<u32>) -> Client {
        Client {
            machine,
            line: None,
            hung_until: 0,
            frozen_until: 0,
            inbox: VecDeque::new(),
            said: 0,
            resets: 0,
        }
    }
}

impl World {
    pub(super) fn step_client(&mut self) -> bool {
        if self.now < self.client.frozen_until {
            return false;
        }
        let mut progress = self.read_stack();
        if self.now < self.client.hung_until {
            return progress;
        }
        let at = self.at(self.now);
        while let Some(frame) = self.client.inbox.pop_front() {
            progress = true;
            self.take_frame(frame);
        }
        if self.client.machine.poll_timeout().is_some_and(|due| due <= at) {
            self.client.machine.handle_timeout(at);
            progress = true;
        }
        if self.client.machine.poll_connect_at().is_some_and(|due| due <= at) && self.client.line.is_none() {
            self.dial();
            progress = true;
        }
        progress |= self.write_frames();
        self.take_news();
        if !self.client.machine.is_attached() && self.opened {
            self.drop_line();
        }
        progress
    }

    /// The stack reads, and answers pings by itself.
    fn read_stack(&mut self) -> bool {
        let Some(place) = self.client.line else { return false };
        let mut progress = false;
        while let Some(frame) = self.lines[place].down.pop(self.now) {
            progress = true;
            if let Frame::Ping(payload) = frame {
                let latency = self.latency();
                self.lines[place].up.push(Frame::Pong(payload), latency, self.now);
            }
            self.client.inbox.push_back(frame);
        }
        progress
    }

    fn take_frame(&mut self, frame: Frame) {
        let at = self.at(self.now);
        let machine = &mut self.client.machine;
        match frame {
            Frame::Open => {
                self.opened = true;
                machine.handle_open(Some("pulsegate.v1"), at);
            }
            Frame::Text(payload) => match str::from_utf8(&payload) {
                Ok(text) => machine.handle_text(text, at),
                Err(_) => self.oracle.object(Invariant::Bytes, "text that is not UTF-8"),
            },
            Frame::Word(payload) => machine.handle_binary(&payload, at),
            Frame::Ping(_) | Frame::Pong(_) => machine.handle_sign_of_life(at),
            Frame::Close(code, reason) => {
                self.tell(|| format!("client: Close {code:?} {reason}"));
                self.check_close(code);
                self.client.machine.handle_close(code, &reason, at);
            }
            Frame::Gone => {
                self.drop_line();
                self.client.machine.handle_lost(at);
            }
            Frame::Hello(_) => {}
        }
    }

    fn check_close(&mut self, code: Option<u16>) {
        if code.is_some_and(|code| [4400, 4413, 1002, 1007].contains(&code)) {
            self.oracle.object(Invariant::Protocol, format!("the gateway closed with {code:?}"));
        }
    }

    fn dial(&mut self) {
        let offer = self.client.machine.offer();
        let resume = Offer::parse(offer.iter().map(String::as_str)).and_then(|offer| offer.resume);
        let hello = match resume {
            Some(OfferedResume::Well { token, received }) => Some((token, received)),
            Some(OfferedResume::Ill) => {
                self.oracle.object(Invariant::Protocol, "an offer that can't be read");
                None
            }
            None => None,
        };
        self.tell(|| format!("client: dials, resume {:?}", hello.map(|(_, received)| received)));
        // Some lines break soon, perhaps before the WELCOME is through.
        let breaks_after = (self.is_busy() && self.random.u32(0..5) == 0).then(|| self.random.u32(0..12));
        let mut line = Line { breaks_after, ..Line::default() };
        let latency = self.latency();
        line.up.push(Frame::Hello(hello), latency, self.now);
        self.lines.push(line);
        self.client.line = Some(self.lines.len() - 1);
        self.opened = false;
    }

    /// Lets go of the connection; what it still brings is nothing to the client.
    fn drop_line(&mut self) {
        if let Some(place) = self.client.line.take() {
            let latency = self.latency();
            self.lines[place].up.push(Frame::Gone, latency, self.now);
        }
        self.client.inbox.clear();
        self.opened = false;
    }

    fn write_frames(&mut self) -> bool {
        let at = self.at(self.now);
        let mut progress = false;
        while let Some(place) = self.client.line.filter(|_| self.opened)
            && let Some(transmit) = self.client.machine.poll_transmit(at)
        {
            progress = true;
            let frame = match transmit {
                Transmit::Frame(frame) if frame.text => Frame::Text(frame.payload),
                Transmit::Frame(frame) => Frame::Word(frame.payload),
                Transmit::Close { code, reason } => Frame::Close(Some(code), reason.to_owned()),
            };
            if self.swallows_ack(&frame) {
                continue;
            }
            let frame = self.tamper(frame);
            let latency = self.latency();
            self.lines[place].up.push(frame, latency, self.now);
        }
        progress
    }

    fn take_news(&mut self) {
        let at = self.at(self.now);
        while let Some(event) = self.client.machine.poll_event(at) {
            match event {
                Event::Message { text, payload, .. } => self.oracle.client_got(text, &payload),
                Event::Live { resumed } => {
                    self.count(if resumed { "resumed" } else { "opened" });
                    self.tell(|| format!("client: live, resumed {resumed}"));
                }
                Event::Detached => self.count("client detached"),
                Event::Reset { undelivered } => {
                    self.client.resets += 1;
                    self.count("reset");
                    self.tell(|| format!("client: reset, {undelivered} undelivered"));
                }
                Event::Closed { code, .. } => self.tell(|| format!("client: closed {code:?}")),
                Event::Unsupported => self.oracle.object(Invariant::Protocol, "unsupported"),
            }
        }
        while let Some((number, fate)) = self.client.machine.poll_fate() {
            self.tell(|| format!("client: {number} {fate:?}"));
            self.oracle.fate(number, fate);
        }
    }

    /// The client's code sends a message.
    pub(super) fn client_says(&mut self) {
        if self.now < self.client.hung_until.max(self.client.frozen_until) || self.client.machine.is_done() {
            return;
        }
        let number = self.client.said + 1;
        let (text, payload) = write(b'c', number, self.random.usize(0..=self.plan.bytes_max));
        let at = self.at(self.now);
        let ttl = (self.random.u32(0..10) == 0).then(|| self.random.u64(MS..3 * SECOND));
        let message = Outgoing {
            text,
            payload: payload.into(),
            expires_at: ttl.map(|ttl| self.at(self.now + ttl)),
            ack_now: self.random.u32(0..4) == 0,
            key: None,
            tag: Some(number),
        };
        if self.client.machine.send(message, at).is_ok() {
            self.client.said = number;
            self.oracle.submitted.insert(number, ttl.is_some());
        }
    }
}
