//! One connection: frames on their way, in order, in both directions.

use std::collections::VecDeque;

use pulsegate_core::v1::{Envelope, Token};

use crate::{MS, NEVER, Time};

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// The upgrade request, with what the client shows to come back.
    Hello(Option<(Token, u64)>),
    /// The 101.
    Open,
    Text(Vec<u8>),
    /// A binary frame.
    Word(Vec<u8>),
    Ping([u8; 8]),
    Pong([u8; 8]),
    Close(Option<u16>, String),
    /// FIN or RST.
    Gone,
}

impl Frame {
    /// For the story.
    pub(super) fn summary(&self) -> String {
        match self {
            Frame::Text(payload) => format!("text, {} bytes", payload.len()),
            Frame::Word(word) => match Envelope::parse(word) {
                Ok(Envelope::Binary(payload)) => format!("binary, {} bytes", payload.len()),
                Ok(Envelope::Welcome(it)) => format!("Welcome, {} received, {} next", it.received, it.next),
                Ok(envelope) => format!("{envelope:?}"),
                Err(error) => error.as_str().to_owned(),
            },
            Frame::Close(code, reason) => format!("Close {code:?} {reason}"),
            Frame::Hello(_) => "a request".to_owned(),
            Frame::Open => "101".to_owned(),
            Frame::Ping(_) => "ping".to_owned(),
            Frame::Pong(_) => "pong".to_owned(),
            Frame::Gone => "FIN or RST".to_owned(),
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    frames: VecDeque<(Time, Frame)>,
    last_due: Time,
    /// Nothing arrives before: a black hole, after which the kernel sends again what was lost in it.
    held_until: Time,
    /// The sender's side is closed.
    pub(super) ended: bool,
}

/// One connection between a client and the gateway.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) up: Pipe,
    pub(super) down: Pipe,
    /// Frames that still pass before it breaks.
    pub(super) breaks_after: Option<u32>,
}

impl Pipe {
    pub(super) fn push(&mut self, frame: Frame, latency: Time, now: Time) {
        if self.ended {
            return;
        }
        self.ended = matches!(frame, Frame::Gone);
        self.last_due = self.last_due.max(now + latency);
        self.frames.push_back((self.last_due, frame));
    }

    /// Nothing arrives before `until`.
    pub(super) fn hold(&mut self, until: Time) {
        self.held_until = self.held_until.max(until);
    }

    /// What was lost for a while comes through again; what is lost for good does not.
    pub(super) fn heal(&mut self, now: Time) {
        if self.held_until < NEVER {
            self.held_until = self.held_until.min(now);
        }
    }

    pub(super) fn pop(&mut self, now: Time) -> Option<Frame> {
        if now < self.held_until {
            return None;
        }
        self.frames.pop_front_if(|(due, _)| *due <= now).map(|(_, frame)| frame)
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        self.frames.front().map(|(due, _)| (*due).max(self.held_until))
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Everything under way is lost, and the other side learns that there is no more.
    pub(super) fn cut(&mut self, now: Time) {
        self.frames.clear();
        self.ended = false;
        self.push(Frame::Gone, MS, now);
    }
}

impl Line {
    pub(super) fn cut(&mut self, now: Time) {
        self.up.cut(now);
        self.down.cut(now);
    }

    /// Lets a frame through, or breaks.
    pub(super) fn count_down(&mut self, now: Time) {
        match &mut self.breaks_after {
            Some(0) => {
                self.breaks_after = None;
                self.cut(now);
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    pub(super) fn next_at(&self) -> Option<Time> {
        [self.up.next_at(), self.down.next_at()].into_iter().flatten().min()
    }
}
