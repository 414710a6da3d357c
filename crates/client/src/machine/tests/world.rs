//! A client, a gateway, and a line between them that fails.

use std::collections::VecDeque;
use std::time::Instant;

use pulsegate_core::Sent;
use pulsegate_core::v1::{Fate, Token, Window};

use super::gateway::{Down, Gateway};
use super::{message, ms, origin, tag_of};
use crate::config::ClientConfig;
use crate::event::{Event, Frame, Transmit};
use crate::machine::Machine;

#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// The client sends, with a time limit, and wants its ACK at once.
    Submit(Option<u64>, bool),
    /// The app sends, with a time limit.
    Push(Option<u64>),
    /// Both write up to so many frames.
    Transmit(usize),
    /// So many frames of each direction arrive.
    Arrive(usize),
    /// Both apps take so many messages.
    Handle(usize),
    /// The gateway refuses a message.
    Refuse,
    /// The latest control frame of each direction comes once more.
    Repeat,
    Wait(u64),
    Cut,
    /// Nothing arrives until the connection is gone.
    Freeze,
    /// The client dials when it wants to; it may fail.
    Dial(bool),
    Close(u16),
    /// The gateway loses the session, and the connection with it.
    Crash,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) client: Machine<u32>,
    pub(super) gateway: Gateway,
    window: Window,
    manual: bool,
    up: VecDeque<Frame>,
    latest: [Option<Frame>; 2],
    connected: bool,
    frozen: bool,
    submitted: u32,
    /// Messages that the client's app was given, over all sessions, and how many of them it handled.
    given: Vec<u32>,
    handled: usize,
    fates: Vec<(u32, Fate)>,
}

impl World {
    pub(super) fn new(window: Window, manual: bool) -> World {
        let now = origin();
        let config = ClientConfig { window, manual_ack: manual, ..ClientConfig::default() };
        World {
            now,
            client: Machine::new(config, 7, now),
            gateway: Gateway::new(window, now),
            window,
            manual,
            up: VecDeque::new(),
            latest: [None, None],
            connected: false,
            frozen: false,
            submitted: 0,
            given: Vec::new(),
            handled: 0,
            fates: Vec::new(),
        }
    }

    pub(super) fn act(&mut self, act: Act) {
        let (known, known_of_gateway) = (self.fates.len(), self.gateway.fates.len());
        match act {
            Act::Submit(ttl, ack_now) => {
                let expires_at = ttl.map(|ttl| self.now + ms(ttl));
                let message = message(self.submitted + 1, expires_at, ack_now);
                self.submitted += u32::from(self.client.send(message, self.now).is_ok());
            }
            Act::Push(ttl) => self.gateway.submit(ttl.map(ms), self.now),
            Act::Transmit(frames) => self.transmit(frames),
            Act::Arrive(frames) => (0..frames).for_each(|_| self.arrive()),
            Act::Handle(messages) => self.handle(messages),
            Act::Refuse => self.gateway.refuse(self.now),
            Act::Repeat => self.repeat(),
            Act::Wait(time) => self.wait(time),
            Act::Cut => self.lose(),
            Act::Freeze => self.frozen = self.connected,
            Act::Dial(fails) => self.dial(fails),
            Act::Close(code) if self.connected => {
                if matches!(code, 4400 | 4429) {
                    self.gateway.forget();
                }
                self.gateway.down.push_back(Down::Close(code, ""));
            }
            Act::Close(_) => {}
            Act::Crash => {
                self.gateway.forget();
                self.lose();
            }
        }
        self.hang_up_if_wanted();
        while let Some(fate) = self.client.poll_fate() {
            self.fates.push(fate);
        }
        self.check();
        self.check_fates(known, known_of_gateway);
    }

    fn dial(&mut self, fails: bool) {
        let Some(at) = self.client.poll_connect_at() else { return };
        self.now = self.now.max(at);
        if fails {
            self.client.handle_lost(self.now);
            return;
        }
        self.gateway.open(&self.client.offer(), self.now);
        self.client.handle_open(Some("pulsegate.v1"), self.now);
        self.connected = true;
    }

    fn transmit(&mut self, frames: usize) {
        if !self.connected {
            return;
        }
        for _ in 0..frames {
            match self.client.poll_transmit(self.now) {
                Some(Transmit::Frame(frame)) => self.up.push_back(frame),
                Some(Transmit::Close { code, reason }) => {
                    panic!("nothing broke the protocol: {code} {reason}")
                }
                None => {}
            }
        }
        if self.client.is_live() {
            self.gateway.transmit(frames, self.now);
        }
    }

    fn arrive(&mut self) {
        if self.frozen {
            return;
        }
        if let Some(frame) = self.up.pop_front() {
            self.gateway.receive(&frame, self.now);
            note_control(&mut self.latest[0], frame);
        }
        match self.gateway.down.pop_front() {
            None => {}
            Some(Down::Close(code, reason)) => self.client.handle_close(Some(code), reason, self.now),
            Some(Down::Frame(frame)) => {
                match frame.text {
                    true => self.client.handle_text(str::from_utf8(&frame.payload).unwrap(), self.now),
                    false => self.client.handle_binary(&frame.payload, self.now),
                }
                note_control(&mut self.latest[1], frame);
            }
        }
        self.hang_up_if_wanted();
    }

    fn repeat(&mut self) {
        let [up, down] = self.latest.clone();
        self.up.extend(up);
        self.gateway.down.extend(down.map(Down::Frame));
    }

    fn handle(&mut self, messages: usize) {
        self.gateway.handle(messages, self.now);
        let mut left = messages;
        while left > 0 {
            match self.client.poll_event(self.now) {
                None => break,
                Some(Event::Message { text, payload, .. }) => {
                    left -= 1;
                    self.given.push(tag_of(text, &payload));
                }
                Some(Event::Live { .. } | Event::Detached | Event::Reset { .. }) => {}
                Some(event @ (Event::Unsupported | Event::Closed { .. })) => panic!("{event:?}"),
            }
        }
        if self.manual {
            // The latest is still being handled.
            self.handled = self.handled.max(self.given.len().saturating_sub(usize::from(messages < 9)));
            self.client.handled(self.handled as u64, self.now);
        } else {
            self.handled = self.given.len();
        }
    }

    fn wait(&mut self, time: u64) {
        let until = self.now + ms(time);
        while let Some(at) = self.client.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.client.handle_timeout(self.now);
            assert!(self.client.poll_timeout().is_none_or(|at| at > self.now), "nothing is due twice");
        }
        self.now = until;
        self.gateway.handle_timeout(self.now);
    }

    fn lose(&mut self) {
        if self.connected {
            self.client.handle_lost(self.now);
            self.hang_up_if_wanted();
        }
    }

    fn hang_up_if_wanted(&mut self) {
        if !self.client.is_attached() {
            self.up.clear();
            self.gateway.down.clear();
            (self.connected, self.frozen, self.latest) = (false, false, [None, None]);
        }
    }

    fn check(&self) {
        // 1: in order and none twice, and over sessions, too.
        assert!(self.given.is_sorted_by(|one, next| one < next), "{:?}", self.given);
        assert!(self.gateway.taken.is_sorted_by(|one, next| one < next), "{:?}", self.gateway.taken);
        // 2, as long as both speak of the same session.
        let token: Option<Token> = self.client.token().map(|token| token.parse().unwrap());
        if let Some((session, token)) = self.gateway.session.as_ref().zip(token)
            && self.gateway.accepts(&token)
        {
            assert!(self.client.acked_count() <= session.receive.handled());
            assert!(session.receive.handled() <= session.receive.received());
            assert!(session.send.acked() <= self.client.handled_count());
            assert!(self.client.handled_count() <= self.client.received_count());
            assert!(self.client.received_count() <= session.send.reached());
        }
        assert!(self.client.pending() <= self.window.messages);
    }

    /// 4: nothing that is said of a message is untrue.
    fn check_fates(&self, first: usize, first_of_gateway: usize) {
        for (tag, fate) in &self.fates[first..] {
            let taken = self.gateway.taken.contains(tag);
            match fate {
                Fate::Handled => assert!(taken, "{tag} was not handled"),
                Fate::Refused(_) => assert!(self.gateway.refused.contains(tag), "{tag} was not refused"),
                Fate::Expired(Sent::No) => assert!(!taken, "{tag} was handled"),
                Fate::Expired(Sent::Maybe) => {}
            }
        }
        for (tag, fate) in &self.gateway.fates[first_of_gateway..] {
            match fate {
                Fate::Handled => assert!(self.given[..self.handled].contains(tag), "{tag} was not handled"),
                Fate::Expired(Sent::No) => assert!(!self.given.contains(tag), "{tag} arrived"),
                Fate::Expired(Sent::Maybe) | Fate::Refused(_) => {}
            }
        }
    }

    /// 6: what the client holds is accepted.
    pub(super) fn check_token(&self) {
        if let Some(token) = self.client.token() {
            assert!(self.gateway.accepts(&token.parse().unwrap()), "nobody takes the client's token");
        }
    }

    /// The network works again, and everybody does what is due.
    pub(super) fn heal(&mut self) {
        let acts = [
            Act::Dial(false),
            Act::Transmit(9),
            Act::Arrive(30),
            Act::Handle(9),
            Act::Transmit(9),
            Act::Arrive(30),
            Act::Wait(400),
        ];
        self.act(Act::Cut);
        for _ in 0..30 {
            acts.into_iter().for_each(|act| self.act(act));
        }
        // 12.
        assert!(self.client.is_live());
        assert_eq!(self.client.pending(), 0, "all was acknowledged");
        let session = self.gateway.session.as_ref().unwrap();
        assert_eq!((session.send.len(), session.receive.unhandled()), (0, 0));
        // 4, and what never left stays away.
        self.check_fates(0, 0);
        settled_once(&self.fates, self.submitted);
        settled_once(&self.gateway.fates, self.gateway.submitted);
        assert_eq!(self.client.acked_count(), session.receive.received());
        assert_eq!(self.client.received_count(), session.send.acked());
    }
}

fn settled_once(fates: &[(u32, Fate)], submitted: u32) {
    let mut settled: Vec<u32> = fates.iter().map(|(tag, _)| *tag).collect();
    settled.sort_unstable();
    assert!(settled.iter().copied().eq(1..=submitted), "each has one end: {settled:?} of {submitted}");
}

/// Keeps ACK, PROBE, PROBE_ACK and NACK.
fn note_control(latest: &mut Option<Frame>, frame: Frame) {
    if !frame.text && matches!(frame.payload[0], 1..=3 | 6) {
        *latest = Some(frame);
    }
}
