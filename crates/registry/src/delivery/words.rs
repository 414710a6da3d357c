//! What goes into the machine and what comes out.

use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pulsegate_core::{Level, MessageId, Outcome};

/// How the messages of an app are confirmed that asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Not at all.
    Off,
    /// As far as the client's kernel.
    Kernel,
    /// As far as the client's WebSocket stack.
    Received,
}

impl Confirm {
    /// Returns the word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Confirm::Off => "off",
            Confirm::Kernel => "kernel",
            Confirm::Received => "received",
        }
    }
}

impl FromStr for Confirm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Confirm, &'static str> {
        let known = [Confirm::Off, Confirm::Kernel, Confirm::Received];
        known
            .into_iter()
            .find(|confirm| confirm.as_str() == text)
            .ok_or("off, kernel or received is expected")
    }
}

/// What holds for the messages of every session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRules {
    /// How far the app's own messages are followed.
    pub confirm: Confirm,
    /// How long one of them waits for a barrier, so that there is no more than one in this time.
    pub interval: Duration,
    /// How long a barrier may stay unanswered before nobody waits for its answer any more.
    pub answer_within: Duration,
}

/// A message from somebody who wants to know what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// It goes as a text frame, not as a binary one.
    pub text: bool,
    /// What it carries.
    pub payload: Bytes,
    /// As far as it has to come.
    pub level: Level,
    /// If it has not begun to leave by then, it never does.
    pub expires_at: Instant,
}

/// What there is to tell of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryNote {
    /// The socket took it.
    Sent(MessageId),
    /// Its end.
    Settled(MessageId, Outcome),
    /// So many messages of the app have come so far, and are followed no further.
    Confirmed(Level, u64),
    /// So many messages of the app were not confirmed when their session ended.
    Lost(u64),
    /// So many messages have their end and never began to leave.
    Unsent(u64),
    /// So many messages of the app were refused by the client.
    Rejected(u64),
}

/// How far the messages of a session have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that were passed on to the client, those of the app and ours.
    pub sent: u64,
    /// As many of the first of them as the client's kernel has.
    pub kernel: u64,
    /// As many of the first of them as its WebSocket stack has read.
    pub received: u64,
    /// Those that are still followed, or wait for a place; the oldest of those that were passed on.
    pub open: Unsettled,
}

/// Messages without an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// So many.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Since when the oldest of them is.
    pub since: Option<Instant>,
}

impl Unsettled {
    /// Adds others.
    pub fn add(&mut self, others: Unsettled) {
        self.messages += others.messages;
        self.bytes += others.bytes;
        self.since = [self.since, others.since].into_iter().flatten().min();
    }
}
