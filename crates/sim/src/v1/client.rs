//! The client's driver: what a page's WebSocket stack and its code do with the machine.

use std::collections::VecDeque;

use pulsegate_client::{Event, Machine, Transmit};
use pulsegate_core::v1::{Offer, OfferedResume, Outgoing};

use super::bugs::V1Bug;
use super::line::{Frame, Line};
use super::oracle::{Invariant, is_empty, write};
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
    /// The connection is given up if it is not open by then.
    dial_until: Option<Time>,
    /// Messages that its code works on, and when it is done with some.
    working: VecDeque<(u8, u32)>,
    work_until: Time,
    done: u64,
    pub(super) said: u32,
    /// The last message with a key of its own.
    keyed: Option<u32>,
}

impl Client {
    pub(super) fn new(machine: Machine<u32>) -> Client {
        Client {
            machine,
            line: None,
            hung_until: 0,
            frozen_until: 0,
            inbox: VecDeque::new(),
            dial_until: None,
            working: VecDeque::new(),
            work_until: 0,
            done: 0,
            said: 0,
            keyed: None,
        }
    }

    pub(super) fn dial_until(&self) -> Option<Time> {
        self.dial_until
    }

    pub(super) fn work_at(&self) -> Option<Time> {
        (!self.working.is_empty()).then_some(self.work_until)
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
        let looks = self.bug != Some(V1Bug::PatientClient);
        if looks && self.client.machine.poll_timeout().is_some_and(|due| due <= at) {
            let was_live = self.client.machine.is_live();
            self.client.machine.handle_timeout(at);
            if was_live && !self.client.machine.is_attached() {
                self.tell(|| "client: gives the gateway up".to_owned());
                self.check_lost();
            }
            progress = true;
        }
        if self.client.dial_until.take_if(|until| self.now >= *until).is_some() {
            self.tell(|| "client: gives a dial up".to_owned());
            self.count("dials given up");
            self.drop_line();
            self.client.machine.handle_lost(at);
            progress = true;
        }
        progress |= self.work();
        if self.client.machine.poll_connect_at().is_some_and(|due| due <= at) && self.client.line.is_none() {
            self.dial();
            progress = true;
        }
        progress |= self.write_frames();
        self.take_news();
        if !self.client.machine.is_attached() && (self.opened || self.client.machine.is_done()) {
            self.drop_line();
        }
        self.check_listening();
        progress
    }

    /// The client's code is done with some of what it got.
    fn work(&mut self) -> bool {
        if self.client.work_at().is_none_or(|at| self.now < at) {
            return false;
        }
        for _ in 0..self.random.usize(1..=self.client.working.len()) {
            let Some(message) = self.client.working.pop_front() else { break };
            self.oracle.client_handled(message);
            self.client.done += 1;
        }
        let at = self.at(self.now);
        self.client.machine.handled(self.client.done, at);
        self.client.work_until = self.now + self.plan.work.map_or(0, |mean| self.draw(mean));
        true
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
            self.oracle.client_read(&frame);
            self.client.inbox.push_back(frame);
        }
        progress
    }

    fn take_frame(&mut self, frame: Frame) {
        self.tell(|| format!("client: gets {}", frame.summary()));
        let at = self.at(self.now);
        self.watch.gateway_heard_at = self.now;
        let machine = &mut self.client.machine;
        match frame {
            Frame::Open => {
                self.opened = true;
                self.client.dial_until = None;
                machine.handle_open(Some("pulsegate.v1"), at);
            }
            Frame::Text(payload) => match str::from_utf8(&payload) {
                Ok(text) => machine.handle_text(text, at),
                Err(_) => self.oracle.object(Invariant::Bytes, "text that is not UTF-8"),
            },
            Frame::Ping(_) if self.bug == Some(V1Bug::DeafClient) => {}
            Frame::Word(word) if self.bug == Some(V1Bug::DeafClient) && word[0] == 2 => {}
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
        if code.is_some_and(|code| [4400, 4413, 4429, 4500, 1002, 1007, 1008, 1009].contains(&code)) {
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
        self.client.dial_until = Some(self.now + self.plan.dial_within);
        self.opened = false;
    }

    /// Lets go of the connection; what it still brings is nothing to the client.
    fn drop_line(&mut self) {
        if let Some(place) = self.client.line.take() {
            let latency = self.latency();
            self.lines[place].up.push(Frame::Gone, latency, self.now);
        }
        self.client.inbox.clear();
        self.client.dial_until = None;
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
                Transmit::Close { code, reason } => {
                    if code == 4400 {
                        self.oracle.object(Invariant::Protocol, format!("the client closed: {reason}"));
                    }
                    Frame::Close(Some(code), reason.to_owned())
                }
            };
            if self.swallows_ack(&frame) {
                continue;
            }
            let frame = self.tamper(frame);
            let latency = self.latency();
            self.tell(|| format!("client: says {}", frame.summary()));
            let stale = self.stale_word(true, &frame);
            for frame in std::iter::once(frame).chain(stale) {
                self.lines[place].up.push(frame, latency, self.now);
            }
        }
        progress
    }

    fn take_news(&mut self) {
        let at = self.at(self.now);
        while let Some(event) = self.client.machine.poll_event(at) {
            match event {
                Event::Message { text, payload, .. } => {
                    let message = self.oracle.client_got(text, &payload);
                    if self.plan.work.is_some() {
                        self.client.working.push_back(message);
                    } else {
                        self.oracle.client_handled(message);
                    }
                }
                Event::Live { resumed } => {
                    self.count(if resumed { "resumed" } else { "opened" });
                    self.tell(|| format!("client: live, resumed {resumed}"));
                }
                Event::Detached => self.count("client detached"),
                Event::Reset { undelivered } => {
                    self.oracle.base = self.client.said + 1;
                    self.count("reset");
                    self.tell(|| format!("client: reset, {undelivered} undelivered"));
                }
                Event::Closed { code, .. } => {
                    self.tell(|| format!("client: closed {code:?}"));
                    // 4000 is that of whoever kicked it, 1000 and 1008 those of an app that means it.
                    if !self.leaving && !matches!(code, Some(4000 | 1000 | 1008)) {
                        self.oracle.object(Invariant::Progress, format!("the client is done, {code:?}"));
                    }
                }
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
        let mut number = self.client.said + 1;
        // What its author sends again because it knows nothing of the first, with the same key.
        let first = self.client.keyed.take_if(|_| self.random.u32(0..4) == 0);
        // One without bytes can't be told from another when it comes again.
        if (self.plan.holds() || first.is_some()) && is_empty(number) {
            number += 1;
        }
        let key = first.or_else(|| (self.random.u32(0..8) == 0).then_some(number));
        let bytes = self.draw_bytes();
        let (text, payload) = write(b'c', number, bytes);
        let at = self.at(self.now);
        let ttl = (self.random.u32(0..10) == 0 && !is_empty(number)).then(|| self.random.u64(MS..3 * SECOND));
        let message = Outgoing {
            text,
            payload: payload.into(),
            expires_at: ttl.map(|ttl| self.at(self.now + ttl)),
            ack_now: self.random.u32(0..4) == 0,
            key: key.map(|key| key.to_be_bytes().into()),
            tag: Some(number),
        };
        if self.client.machine.send(message, at).is_ok() {
            self.client.said = number;
            // One that comes again may be left out, or come in the other's stead.
            self.oracle.submitted.insert(number, ttl.is_some() || first.is_some());
            if let Some(first) = first {
                self.oracle.firsts.insert(number, first);
                self.count("said again with the same key");
            }
            self.client.keyed = key;
        }
    }
}
