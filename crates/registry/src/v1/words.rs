//! What goes into the machine and what comes out.

use std::sync::Arc;
use std::time::Duration;

use pulsegate_core::v1::{AckRules, ResumeFailCode, Secret, Window};
use pulsegate_core::{Cause, CloseFrame};

use crate::delivery::{Confirm, DeliveryNote, DeliveryRules, Unsettled};
use crate::session::{Note, SessionLimits};

/// So many messages, and so many KiB, have one ACK at least.
const ACK_MESSAGES: u64 = 16;
const ACK_KIB: u64 = 16;

/// When a client's message counts as handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppAck {
    /// The app's WebSocket stack has read it, as the pong to a ping behind it tells. An app that answers no pings: its
    /// kernel has it.
    Received,
    /// Our kernel has taken it.
    Written,
}

impl AppAck {
    /// Returns the word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            AppAck::Received => "received",
            AppAck::Written => "written",
        }
    }
}

impl std::str::FromStr for AppAck {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AppAck, &'static str> {
        [AppAck::Received, AppAck::Written]
            .into_iter()
            .find(|ack| ack.as_str() == text)
            .ok_or("received or written is expected")
    }
}

/// The bounds of a session of a client that speaks `pulsegate.v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Limits {
    /// Those of any session.
    pub session: Arc<SessionLimits>,
    /// What may be under way in each direction; so much is kept to be sent again.
    pub window: Window,
    /// How long a session is kept whose client has no connection.
    pub resume_window: Duration,
    /// When a message without an ACK is asked for.
    pub confirm_within: Duration,
    /// The gateway is heard at least so often by the client's code.
    pub heartbeat: Duration,
    /// How long the client's code may be silent while its WebSocket stack answers.
    pub page_frozen_after: Duration,
    /// When a client's message counts as handled.
    pub app_ack: AppAck,
    /// How long a session waits for an app whose connection is lost; zero: not at all.
    pub app_hold: Duration,
}

impl V1Limits {
    /// Returns how messages to the app are confirmed: the client waits for it, so it is asked at once, by one ping at a time.
    pub(super) fn app_rules(&self) -> DeliveryRules {
        let confirm = match self.app_ack {
            AppAck::Received => Confirm::Received,
            AppAck::Written => Confirm::Kernel,
        };
        let answer_within = self.session.app.verdict_after;
        DeliveryRules { confirm, interval: Duration::ZERO, answer_within }
    }

    /// Returns when an ACK is due: before the window of whoever waits for it is half empty, and in time before it would be
    /// asked for.
    pub fn ack_rules(&self) -> AckRules {
        let messages = (self.window.messages as u64 / 4).clamp(1, ACK_MESSAGES);
        let kib = (self.window.bytes as u64 / 4 / 1024).min(ACK_KIB);
        AckRules { messages, kib, delay: self.confirm_within * 3 / 4 }
    }
}

/// A connection of a client, as the session gets to know it.
#[derive(Clone, Debug)]
pub struct Hello {
    /// What it shows to come back; `None` for the connection that begins the session.
    pub resume: Option<(Secret, u64)>,
    /// The page's origin is that of the connection that began the session, and so is the subprotocol.
    pub is_same_origin: bool,
    /// What to show the next time.
    pub next: Secret,
    /// The connection ends at a proxy in front of us.
    pub behind_proxy: bool,
    /// For the detector.
    pub seed: u64,
}

/// Why a connection did not get the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub code: ResumeFailCode,
    /// For its owner alone: messages received from the client, and acknowledged by it.
    pub counters: Option<(u64, u64)>,
}

impl Refusal {
    /// No such session, or not this client's: nobody gets to know which.
    pub const UNKNOWN: Refusal = Refusal { code: ResumeFailCode::Unknown, counters: None };
}

/// Why a client has no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// It was declared dead.
    Dead(Cause),
    /// Its connection was cut.
    Reset,
    /// It closed, and means to come back.
    Closed,
    /// Its WebSocket stack answers, its code does not.
    PageFrozen,
}

impl Detached {
    /// Returns the word used in events and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Detached::Dead(cause) => cause.as_str(),
            Detached::Reset => "reset",
            Detached::Closed => "closed",
            Detached::PageFrozen => "page_frozen",
        }
    }
}

/// What a session wants told to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum V1Note {
    /// About a peer, or messages to the client.
    Session(Note),
    /// About messages to the app.
    ToApp(DeliveryNote),
    /// The client has no connection; the session waits for it.
    Detached(Detached),
    /// The client is back.
    Resumed {
        /// How long it had no connection.
        outage: Duration,
        /// Messages to it that are written again, or for the first time.
        to_client: u64,
    },
    /// A client's message came for the second time, by its key.
    Duplicate,
    /// A message was written again to the client.
    Retransmitted,
    /// The app's connection is lost, as the close code and reason tell that the client would get; the session waits for
    /// the app.
    AppDetached(Box<str>),
    /// The app is back.
    AppResumed {
        /// How long it had no connection.
        outage: Duration,
        /// Messages that it gets again.
        again: u64,
    },
    /// A message was given to another connection of the app.
    RetransmittedToApp,
}

/// What to do with a client's connection that the session has no part in any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Write this Close frame, wait for the answer for a while, and drop it.
    Close(Option<CloseFrame>),
    /// The session is over: write these as binary messages, then the Close frame; the rest as with `Close`.
    End {
        /// Payloads.
        words: Vec<Vec<u8>>,
        /// The last word.
        frame: Option<CloseFrame>,
    },
    /// The peer was declared dead: nobody is there to read what is queued. Write the Close frame, if there is one, as far
    /// as the socket takes it.
    Abandon(Cause, Option<CloseFrame>),
    /// It is gone already.
    Drop,
}

/// What a client's frame holds for the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToApp<'a> {
    /// It is text.
    pub text: bool,
    /// The message.
    pub payload: &'a [u8],
    /// Write it at once. If not, it waits for the app, and
    /// [`poll_app_message`](super::V1Session::poll_app_message) gives it.
    pub is_now: bool,
}

/// How much of what is kept waits for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1Progress {
    /// Messages to the client: given a number, written, acknowledged.
    pub to_client: Counters,
    /// Messages to the app: received, passed on, acknowledged.
    pub to_app: Counters,
    /// Messages kept for the client.
    pub kept: Unsettled,
    /// Messages of the client that the app is not known to have.
    pub under_way: Unsettled,
}

/// How far the messages of one direction have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// All.
    pub accepted: u64,
    /// Written to the receiver at least once.
    pub sent: u64,
    /// Handled by the receiver.
    pub acked: u64,
}
