//! An app that speaks plain WebSocket: one connection for each session.

use super::line::{Frame, Pipe};
use super::oracle::write;
use super::plan::Pongs;
use super::world::World;
use crate::{MS, Time};

/// Messages that the app's socket takes before it is full.
const SOCKET_MESSAGES: usize = 6;

/// The app's connection of one session.
#[derive(Debug, Default)]
pub(super) struct AppLine {
    pub(super) to_app: Pipe,
    pub(super) to_gateway: Pipe,
    /// Messages that it has written.
    pub(super) said: u32,
    /// It reads and writes nothing before.
    pub(super) paused_until: Time,
    closed: bool,
}

impl AppLine {
    pub(super) fn is_full(&self) -> bool {
        self.to_app.len() >= SOCKET_MESSAGES
    }
}

impl World {
    /// Lets the app take what has come; returns whether something did.
    pub(super) fn step_app(&mut self) -> bool {
        let now = self.now;
        if now < self.app.paused_until {
            return false;
        }
        let mut progress = false;
        let mut pings = Vec::new();
        while let Some(frame) = self.app.to_app.pop(now) {
            progress = true;
            match frame {
                Frame::Text(payload) => self.oracle.app_got(true, &payload),
                Frame::Word(payload) => self.oracle.app_got(false, &payload),
                Frame::Ping(payload) => pings.push(payload),
                Frame::Close(code, reason) => {
                    if !std::mem::replace(&mut self.app.closed, true) {
                        self.app.to_gateway.push(Frame::Close(code, reason), MS / 10, now);
                    }
                    self.app.to_gateway.push(Frame::Gone, MS / 10, now);
                }
                Frame::Gone => self.app.to_gateway.push(Frame::Gone, MS / 10, now),
                Frame::Pong(_) | Frame::Hello(_) | Frame::Open => {}
            }
        }
        // RFC 6455 section 5.5.3: of several that wait it may answer the latest alone; some stacks answer the oldest.
        let answered = match self.plan.pongs {
            Pongs::All => 0..pings.len(),
            Pongs::Newest => pings.len().saturating_sub(1)..pings.len(),
            Pongs::Oldest => 0..pings.len().min(1),
            Pongs::None => 0..0,
        };
        for &payload in &pings[answered] {
            self.app.to_gateway.push(Frame::Pong(payload), MS / 10, now);
        }
        progress
    }

    /// The app writes a message.
    pub(super) fn app_says(&mut self) {
        if self.now < self.app.paused_until
            || self.app.to_gateway.len() >= SOCKET_MESSAGES
            || self.app.closed
            || self.app.to_gateway.ended
            || !self.has_session()
        {
            return;
        }
        self.app.said += 1;
        let bytes = self.draw_bytes();
        let (text, payload) = write(b'a', self.app.said, bytes);
        let frame = if text { Frame::Text(payload) } else { Frame::Word(payload) };
        self.app.to_gateway.push(frame, MS / 10, self.now);
    }

    /// The app closes, or its connection is cut; it is not back before `until`.
    pub(super) fn app_leaves(&mut self, politely: bool, until: Time) {
        if !self.has_session() || self.app.closed {
            return;
        }
        self.app.closed = true;
        self.app_down_until = until;
        if politely {
            // One of them is no restart.
            let codes = [1000, 1001, 1012, 1012, 1013];
            let code = codes[self.random.usize(0..codes.len())];
            self.app.to_gateway.push(Frame::Close(Some(code), "bye".into()), MS / 10, self.now);
        } else {
            self.app.to_app.cut(self.now);
            self.app.to_gateway.cut(self.now);
        }
    }

    /// The app takes another connection of its session; what it had written to the one before is gone with that.
    pub(super) fn app_returns(&mut self, repeats: u64) {
        let said = self.oracle.session().taken[0] as u32;
        self.app = AppLine { said, ..AppLine::default() };
        self.gateway.outbox.clear();
        self.watch.begin_app();
        self.oracle.app_is_back(repeats);
        self.count("app resumed");
    }
}
