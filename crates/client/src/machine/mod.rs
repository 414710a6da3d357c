//! The client's side of a session, over all its connections.

mod events;
mod inbound;
mod line;
mod outbound;
mod silence;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use pulsegate_core::Backoff;
use pulsegate_core::v1::{AckRules, Fate, KEY_BYTES_MAX, Outgoing, ReceiveWindow, SendWindow};

use self::events::Events;
use self::outbound::Probing;
use self::silence::Silence;
use crate::config::ClientConfig;
use crate::event::{Event, SendError, Transmit};

/// Until the gateway has said what it wants.
const ACK_RULES: AckRules = AckRules { messages: 16, kib: 16, delay: Duration::from_secs(1) };

/// The client's side of a session: it survives connections, does no I/O and reads no clock.
///
/// After each `handle_*` and [`send`](Machine::send): drop the connection if [`is_attached`](Machine::is_attached) is
/// false, write what [`poll_transmit`](Machine::poll_transmit) gives, take [`poll_fate`](Machine::poll_fate) and, at the
/// app's pace, [`poll_event`](Machine::poll_event); then wait for input, for [`poll_timeout`](Machine::poll_timeout), or
/// without a connection for [`poll_connect_at`](Machine::poll_connect_at). `T` names a message whose end somebody wants
/// to know.
#[derive(Debug)]
pub struct Machine<T> {
    config: ClientConfig,
    phase: Phase,
    generation: u64,
    /// Shows that there is a session to come back to.
    token: Option<Token>,
    /// A dial to come back has failed, and may yet arrive: until the gateway answers, 4409 may be meant for another tab or
    /// come from that.
    is_astray: bool,
    /// The entry that the server chose.
    agreed: Option<String>,
    send: SendWindow<T>,
    receive: ReceiveWindow,
    /// Messages of earlier sessions, among those that were put.
    before: u64,
    /// How many of our messages the gateway has received in all, once it has said its last word.
    last_received: Option<u64>,
    events: Events,
    fates: VecDeque<(T, Fate)>,
    /// Goes out before anything else.
    outbox: VecDeque<Transmit>,
    /// The next message wants its ACK at once.
    next_is_urgent: bool,
    probing: Probing,
    /// A message found no room: the next ACK is wanted soon.
    crowded: Option<Instant>,
    silence: Silence,
    backoff: Backoff,
    /// What was due by then is waiting to be written, and no reason to wake again.
    woken_at: Instant,
}

/// What the gateway gave, unread: the client only shows it again. `Debug` hides it.
struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no connection.
    Down {
        dial_at: Instant,
    },
    /// The gateway has not greeted.
    Greeting {
        until: Instant,
    },
    Live,
    /// The app wants to end: what it sent goes out, then BYE and Close. Acknowledgements still count.
    Closing {
        until: Instant,
        bye: bool,
    },
    /// Only the other side's Close is awaited. `over`: for good.
    Leaving {
        until: Instant,
        over: bool,
    },
    Done,
}

impl<T: Copy> Machine<T> {
    /// Starts without a connection; the first is wanted at once. `seed` is for the jitter.
    pub fn new(config: ClientConfig, seed: u64, now: Instant) -> Machine<T> {
        Machine {
            phase: Phase::Down { dial_at: now },
            generation: 0,
            token: None,
            is_astray: false,
            agreed: None,
            send: SendWindow::new(config.window),
            receive: ReceiveWindow::new(ACK_RULES),
            before: 0,
            last_received: None,
            events: Events::default(),
            fates: VecDeque::new(),
            outbox: VecDeque::new(),
            next_is_urgent: false,
            probing: Probing::new(now),
            crowded: None,
            silence: Silence::new(Duration::ZERO, now),
            backoff: Backoff::new(config.backoff_min, config.backoff_max, seed),
            woken_at: now,
            config,
        }
    }

    /// Takes a message, also without a connection, and returns its number in the session.
    ///
    /// # Errors
    /// It was not taken; [`SendError::Full`] may be tried again when something was acknowledged.
    pub fn send(&mut self, message: Outgoing<T>, now: Instant) -> Result<u64, SendError> {
        match self.phase {
            Phase::Closing { .. } | Phase::Leaving { over: true, .. } | Phase::Done => {
                return Err(SendError::Closed);
            }
            Phase::Down { .. } | Phase::Greeting { .. } | Phase::Live | Phase::Leaving { .. } => {}
        }
        if message.key.as_ref().is_some_and(|key| !(1..=KEY_BYTES_MAX).contains(&key.len())) {
            return Err(SendError::Key);
        }
        if message.text && str::from_utf8(&message.payload).is_err() {
            return Err(SendError::Text);
        }
        if !self.has_room(message.payload.len()) {
            self.handle_crowded(now);
            return Err(SendError::Full);
        }
        Ok(self.send.push(message, now))
    }

    /// Takes note that a message waits for room: the gateway is asked for an ACK.
    pub fn handle_crowded(&mut self, now: Instant) {
        self.crowded.get_or_insert(now);
    }

    /// Returns whether there is room for a message of `bytes`.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.send.has_room(bytes)
    }

    /// Takes note that so many messages in all, of those that [`poll_event`](Machine::poll_event) ever gave, were
    /// handled. Without `manual_ack` that happens by itself.
    pub fn handled(&mut self, messages: u64, now: Instant) {
        debug_assert!(messages <= self.events.taken, "{messages} of {} were handled", self.events.taken);
        let messages = messages.min(self.events.taken);
        if messages > self.before {
            self.receive.handle_handled(messages - self.before, now);
        }
    }

    /// Returns what the app is to be told next. A message that is returned counts as handled, unless `manual_ack` is set.
    pub fn poll_event(&mut self, now: Instant) -> Option<Event> {
        let was_full = !self.wants_input();
        let event = self.events.take()?;
        if !self.config.manual_ack {
            self.handled(self.events.taken, now);
        }
        if was_full && self.wants_input() {
            self.silence.handle_heard(now);
        }
        Some(event)
    }

    /// Returns whether [`poll_event`](Machine::poll_event) has something.
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns how a message with a tag ended. Each that was taken ends once.
    pub fn poll_fate(&mut self) -> Option<(T, Fate)> {
        self.fates.pop_front()
    }

    /// Returns whether input is to be read. While it is not, the gateway's silence is no evidence.
    pub fn wants_input(&self) -> bool {
        self.events.is_within(self.config.inbox)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.woken_at = now;
        let fates = &mut self.fates;
        self.send.handle_timeout(now, &mut |tag, fate| fates.push_back((tag, fate)));
        match self.phase {
            Phase::Live => {
                if !self.wants_input() {
                    self.silence.handle_heard(now);
                } else if self.silence.handle_timeout(now) {
                    self.handle_lost(now);
                }
            }
            Phase::Greeting { until } | Phase::Closing { until, .. } | Phase::Leaving { until, .. } => {
                if now >= until {
                    self.handle_lost(now);
                }
            }
            Phase::Down { .. } | Phase::Done => {}
        }
    }

    /// Returns when [`handle_timeout`](Machine::handle_timeout) is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_phase = match self.phase {
            Phase::Live => {
                let silence = self.silence.lost_at().filter(|_| self.wants_input());
                let writes = [self.receive.poll_timeout(), self.probe_at()].into_iter().flatten();
                writes.filter(|at| *at > self.woken_at).chain(silence).min()
            }
            Phase::Greeting { until } | Phase::Closing { until, .. } | Phase::Leaving { until, .. } => {
                Some(until)
            }
            Phase::Down { .. } | Phase::Done => None,
        };
        of_phase.into_iter().chain(self.send.poll_timeout()).min()
    }

    /// Returns when to dial, if a connection is wanted; it stays so until [`handle_open`](Machine::handle_open), or
    /// [`handle_lost`](Machine::handle_lost) if that fails.
    pub fn poll_connect_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Down { dial_at } => Some(dial_at),
            Phase::Greeting { .. }
            | Phase::Live
            | Phase::Closing { .. }
            | Phase::Leaving { .. }
            | Phase::Done => None,
        }
    }

    /// Returns whether the connection is still wanted. If it is not, drop it at once, without waiting for the other side.
    pub fn is_attached(&self) -> bool {
        match self.phase {
            Phase::Greeting { .. } | Phase::Live | Phase::Closing { .. } | Phase::Leaving { .. } => true,
            Phase::Down { .. } | Phase::Done => false,
        }
    }

    /// Returns whether messages pass.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Returns whether it is over for good.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Returns how many connections there were.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns what shows the right to come back.
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.0.as_str())
    }

    /// Returns how many messages came in this session.
    pub fn received_count(&self) -> u64 {
        self.receive.received()
    }

    /// Returns how many of them were handled.
    pub fn handled_count(&self) -> u64 {
        self.receive.handled()
    }

    /// Returns how many messages the gateway has acknowledged in this session.
    pub fn acked_count(&self) -> u64 {
        self.send.acked()
    }

    /// Returns how many messages wait for that.
    pub fn pending(&self) -> usize {
        self.send.len()
    }

    /// Gives all that waits its end, and leaves nothing of the session.
    fn forget_session(&mut self) -> usize {
        let undelivered = self.send.len();
        if let Some(received) = self.last_received.take() {
            self.send.handle_last_received(received);
        }
        let fates = &mut self.fates;
        self.send.handle_end(&mut |tag, fate| fates.push_back((tag, fate)));
        self.send = SendWindow::new(self.config.window);
        self.receive = ReceiveWindow::new(ACK_RULES);
        self.before = self.events.put;
        self.token = None;
        // An earlier dial can take the old session, not the next one.
        self.is_astray = false;
        undelivered
    }
}
