//! What the gateway says.

use std::time::{Duration, Instant};

use pulsegate_core::v1::{
    Ack, AckError, COUNT_MAX, Envelope, Fate, Meta, ReceiveWindow, SendWindow, Welcome, Window,
};

use super::outbound::Probing;
use super::{Machine, Phase, Token};
use crate::event::Event;

/// Longest token that is taken; a gateway's has 48 characters.
const TOKEN_BYTES_MAX: usize = 256;

impl<T: Copy> Machine<T> {
    /// Takes a text message.
    pub fn handle_text(&mut self, text: &str, now: Instant) {
        self.silence.handle_heard(now);
        match self.phase {
            Phase::Greeting { .. } => self.violate("a message before WELCOME", now),
            Phase::Live => {
                self.silence.handle_come();
                self.take_message(true, text.as_bytes());
            }
            Phase::Down { .. } | Phase::Closing { .. } | Phase::Leaving { .. } | Phase::Done => {}
        }
    }

    /// Takes a binary frame: a message, or a word of the protocol.
    pub fn handle_binary(&mut self, frame: &[u8], now: Instant) {
        self.silence.handle_heard(now);
        let result = match self.phase {
            Phase::Greeting { .. } => self.handle_greeting(frame, now),
            Phase::Live => self.handle_word(frame, now),
            Phase::Closing { .. } => self.handle_last_word(frame),
            Phase::Down { .. } | Phase::Leaving { .. } | Phase::Done => Ok(()),
        };
        if let Err(reason) = result {
            self.violate(reason, now);
        }
    }

    /// Takes note of a WebSocket ping or pong: the gateway is there.
    pub fn handle_sign_of_life(&mut self, now: Instant) {
        self.silence.handle_heard(now);
    }

    fn handle_greeting(&mut self, frame: &[u8], now: Instant) -> Result<(), &'static str> {
        match Envelope::parse(frame).map_err(|error| error.as_str())? {
            Envelope::Welcome(welcome) => self.handle_welcome(&welcome, now),
            Envelope::ResumeFail(fail) => {
                self.leave(now);
                if let (Some((received, _)), Some(_)) = (fail.counters, &self.token) {
                    self.last_received = Some(received);
                }
                self.restart();
                Ok(())
            }
            Envelope::Ignorable(_) => Ok(()),
            Envelope::Binary(_)
            | Envelope::Ack(_)
            | Envelope::Probe
            | Envelope::ProbeAck(_)
            | Envelope::Skip { .. }
            | Envelope::Meta(_)
            | Envelope::Nack { .. }
            | Envelope::Bye { .. } => Err("another word before WELCOME"),
        }
    }

    fn handle_welcome(&mut self, welcome: &Welcome<'_>, now: Instant) -> Result<(), &'static str> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=TOKEN_BYTES_MAX).contains(&welcome.token.len()) || !welcome.token.bytes().all(is_token) {
            return Err("a token that can't be offered");
        }
        if welcome.resumed && self.token.is_none() {
            return Err("a session that was not asked for");
        }
        if !welcome.resumed && self.token.is_some() {
            let undelivered = self.forget_session();
            self.events.put_reset(undelivered);
        }
        if welcome.next != self.receive.received() + 1 {
            return Err("messages are missing");
        }
        self.send.resume(welcome.received, now).map_err(|_| "a position that there is not")?;
        self.receive.set_rules(welcome.ack);
        self.receive.resume(now);
        set_window(&mut self.send, welcome.window_messages, welcome.window_kib);
        // The one before is not kept: this one is good from now on, and it is the only one after our first frame.
        self.token = Some(Token(welcome.token.to_owned()));
        self.last_received = None;
        self.silence.handle_welcome(Duration::from_millis(welcome.heartbeat_ms), now);
        self.probing = Probing::new(now);
        self.backoff.reset();
        self.phase = Phase::Live;
        self.events.put_state(Event::Live { resumed: welcome.resumed });
        Ok(())
    }

    fn handle_word(&mut self, frame: &[u8], now: Instant) -> Result<(), &'static str> {
        self.silence.handle_come();
        match Envelope::parse(frame).map_err(|error| error.as_str())? {
            Envelope::Binary(payload) => self.take_message(false, payload),
            Envelope::Probe => self.receive.handle_probe(),
            Envelope::Skip { count, .. } => take_gap(&mut self.receive, count, now)?,
            Envelope::Meta(Meta { ack_now, .. }) => self.next_is_urgent = ack_now,
            Envelope::Welcome(_) | Envelope::ResumeFail(_) => return Err("a second greeting"),
            Envelope::Ack(_)
            | Envelope::ProbeAck(_)
            | Envelope::Nack { .. }
            | Envelope::Bye { .. }
            | Envelope::Ignorable(_) => self.handle_last_word(frame)?,
        }
        Ok(())
    }

    /// What counts until the very end: how our messages fared. The gateway's own are not passed on any more.
    fn handle_last_word(&mut self, frame: &[u8]) -> Result<(), &'static str> {
        match Envelope::parse(frame).map_err(|error| error.as_str())? {
            Envelope::Ack(ack) => self.handle_ack(ack),
            Envelope::ProbeAck(ack) => {
                self.probing.handle_answer();
                // The gateway has read something on this connection: an older one can't take its place any more.
                self.is_astray = false;
                self.handle_ack(ack)
            }
            Envelope::Nack { seq, code, .. } => {
                let fates = &mut self.fates;
                let refused = self.send.handle_nack(seq, code, &mut |tag, fate| fates.push_back((tag, fate)));
                refused.map_err(|AckError| "a NACK for what was not sent")
            }
            Envelope::Binary(_)
            | Envelope::Probe
            | Envelope::Skip { .. }
            | Envelope::Meta(_)
            | Envelope::Welcome(_)
            | Envelope::ResumeFail(_)
            | Envelope::Ignorable(_) => Ok(()),
            // The gateway's last word: what it has not received by now never came to the app.
            Envelope::Bye { received, .. } => {
                self.last_received = Some(received);
                Ok(())
            }
        }
    }

    fn handle_ack(&mut self, ack: Ack) -> Result<(), &'static str> {
        if let Some((messages, kib)) = ack.window {
            set_window(&mut self.send, messages, kib);
        }
        let fates = &mut self.fates;
        let mut note = |tag: T, fate: Fate| fates.push_back((tag, fate));
        self.send.handle_ack(ack.handled, &mut note).map_err(|AckError| "an ACK for what was not sent")
    }

    fn take_message(&mut self, text: bool, payload: &[u8]) {
        let urgent = std::mem::take(&mut self.next_is_urgent);
        let seq = self.receive.handle_message(payload.len(), urgent);
        self.events.put_message(seq, text, payload);
    }
}

fn take_gap(receive: &mut ReceiveWindow, count: u64, now: Instant) -> Result<(), &'static str> {
    if count > COUNT_MAX - receive.received() {
        return Err("a SKIP beyond all numbers");
    }
    receive.handle_gap(count, now);
    Ok(())
}

fn set_window<T: Copy>(send: &mut SendWindow<T>, messages: u64, kib: u64) {
    let clamp = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    send.set_peer_window(Window { messages: clamp(messages), bytes: clamp(kib).saturating_mul(1024) });
}
