//! One session as everybody may see it: written by its driver, read by anyone, without a lock.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pulsegate_core::{Leg, SessionId};
use pulsegate_heartbeat::{Detector, PongHabit};

use crate::delivery::{Progress, Unsettled};
use crate::tombstone::{Delivered, LegTotals};

/// How a client speaks with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Any WebSocket client; frames pass as they are.
    Plain,
    /// A client that speaks `pulsegate.v1`.
    V1,
}

impl Mode {
    /// All, for resolving metrics once.
    pub const ALL: [Mode; 2] = [Mode::Plain, Mode::V1];

    /// Returns the label value used in metrics, headers and the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::V1 => "v1",
        }
    }
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Both peers were heard in time.
    Live,
    /// At least one peer is silent for longer than its round trip explains.
    Suspect,
    /// Its client, or an app that is waited for, has no connection and may come back.
    Detached,
}

impl SessionState {
    /// All, in the order of their weight.
    pub const ALL: [SessionState; 3] = [SessionState::Live, SessionState::Suspect, SessionState::Detached];
}

impl SessionState {
    /// Returns the value used in metrics and the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionState::Live => "live",
            SessionState::Suspect => "suspect",
            SessionState::Detached => "detached",
        }
    }
}

/// What is known of a session from its handshake on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The client's address, after trusted proxies.
    pub client: IpAddr,
    /// Path of the request, without the query.
    pub path: Box<str>,
    /// `Origin` of the request.
    pub origin: Option<Box<str>>,
    /// Subprotocol that the app chose.
    pub subprotocol: Option<Box<str>>,
    /// `X-Request-Id`, passed or made.
    pub request_id: Box<str>,
    /// Labels in the order of the configuration.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// How the client speaks.
    pub mode: Mode,
    /// The app wants to be told which of its messages have arrived.
    pub receipts: bool,
}

/// Live figures of one leg. One driver writes, so plain stores are enough.
#[derive(Debug)]
pub struct LegGauge {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Milliseconds since the entry was made.
    heard_ms: AtomicU64,
    /// `u32::MAX`: not known yet.
    round_trip_us: AtomicU32,
    probes_unanswered: AtomicU32,
    habit: AtomicU8,
    /// A [`SessionState`].
    state: AtomicU8,
}

/// Live figures of the messages to the client.
#[derive(Debug, Default)]
struct DeliveryGauge {
    sent: AtomicU64,
    kernel: AtomicU64,
    received: AtomicU64,
    open: OpenGauge,
}

/// Messages of one direction that have no end yet.
#[derive(Debug, Default)]
struct OpenGauge {
    /// It and the next saturate.
    messages: AtomicU32,
    bytes: AtomicU32,
    /// Milliseconds from the start of the entry, and one; 0: there is none.
    since: AtomicU64,
}

impl OpenGauge {
    fn set(&self, open: Unsettled, start: Instant) {
        let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let since = open.since.map_or(0, |at| at.saturating_duration_since(start).as_millis() as u64 + 1);
        self.messages.store(narrow(open.messages), Relaxed);
        self.bytes.store(narrow(open.bytes), Relaxed);
        self.since.store(since, Relaxed);
    }

    fn get(&self, start: Instant) -> Unsettled {
        let since = self.since.load(Relaxed).checked_sub(1);
        Unsettled {
            messages: u64::from(self.messages.load(Relaxed)),
            bytes: u64::from(self.bytes.load(Relaxed)),
            since: since.map(|since| start + Duration::from_millis(since)),
        }
    }
}

/// A consistent enough look at one leg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegView {
    /// Whether the peer is suspected.
    pub state: SessionState,
    /// Time since its last byte.
    pub silent_for: Duration,
    /// Smoothed round trip, once known.
    pub round_trip: Option<Duration>,
    /// Probes of the current silence without an answer.
    pub probes_unanswered: u32,
    /// `unknown`, `answers` or `never`.
    pub pong: PongHabit,
    /// Whole messages received from it.
    pub messages: u64,
    /// Payload bytes received from it.
    pub bytes: u64,
}

impl LegGauge {
    fn new() -> LegGauge {
        LegGauge {
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            round_trip_us: AtomicU32::new(u32::MAX),
            probes_unanswered: AtomicU32::new(0),
            habit: AtomicU8::new(0),
            state: AtomicU8::new(0),
        }
    }

    /// Counts what was received.
    pub fn count(&self, messages: u64, bytes: u64) {
        self.messages.store(self.messages.load(Relaxed) + messages, Relaxed);
        self.bytes.store(self.bytes.load(Relaxed) + bytes, Relaxed);
    }

    fn totals(&self) -> LegTotals {
        LegTotals {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            round_trip: self.round_trip(),
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip_us.load(Relaxed);
        (micros != u32::MAX).then(|| Duration::from_micros(u64::from(micros)))
    }

    fn state(&self) -> SessionState {
        SessionState::ALL[usize::from(self.state.load(Relaxed)).min(SessionState::ALL.len() - 1)]
    }
}

/// One session in the index. `H` is how its driver is reached.
#[derive(Debug)]
pub struct Entry<H> {
    id: SessionId,
    info: Arc<SessionInfo>,
    opened_at: Instant,
    /// Microseconds since the epoch of Unix: half the size of a `SystemTime`.
    opened_wall: u64,
    handle: H,
    legs: [LegGauge; 2],
    delivery: DeliveryGauge,
    to_app: OpenGauge,
}

impl<H> Entry<H> {
    pub(crate) fn new(
        id: SessionId,
        info: Arc<SessionInfo>,
        handle: H,
        now: Instant,
        wall: SystemTime,
    ) -> Entry<H> {
        Entry {
            id,
            info,
            opened_at: now,
            opened_wall: wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64),
            handle,
            legs: [LegGauge::new(), LegGauge::new()],
            delivery: DeliveryGauge::default(),
            to_app: OpenGauge::default(),
        }
    }

    /// Returns the session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns what the handshake told.
    pub fn info(&self) -> &Arc<SessionInfo> {
        &self.info
    }

    /// Returns how the driver is reached.
    pub fn handle(&self) -> &H {
        &self.handle
    }

    /// Returns when the session began, by the wall clock.
    pub fn opened_wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.opened_wall)
    }

    /// Returns how long the session has lasted.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }

    /// Returns the figures of `leg`, for its driver to write.
    pub fn leg(&self, leg: Leg) -> &LegGauge {
        &self.legs[leg.index()]
    }

    /// Publishes what the detector of `leg` knows.
    pub fn publish(&self, leg: Leg, detector: &Detector) {
        let gauge = self.leg(leg);
        let heard = detector.heard_at().saturating_duration_since(self.opened_at);
        gauge.heard_ms.store(heard.as_millis() as u64, Relaxed);
        let micros = detector
            .round_trip()
            .map_or(u32::MAX, |time| time.as_micros().min(u128::from(u32::MAX - 1)) as u32);
        gauge.round_trip_us.store(micros, Relaxed);
        gauge.probes_unanswered.store(detector.probes_unanswered(), Relaxed);
        gauge.state.store(u8::from(detector.is_suspect()), Relaxed);
        gauge.habit.store(habit_to_u8(detector.pong_habit()), Relaxed);
    }

    /// Publishes that a peer has no connection and may come back.
    pub fn publish_detached(&self, leg: Leg) {
        self.leg(leg).state.store(SessionState::Detached as u8, Relaxed);
    }

    /// Returns the state of the session: that of the leg that is worse off.
    pub fn state(&self) -> SessionState {
        let [client, app] = [self.legs[0].state(), self.legs[1].state()];
        if client as u8 >= app as u8 { client } else { app }
    }

    /// Returns a look at `leg`.
    pub fn view(&self, leg: Leg, now: Instant) -> LegView {
        let gauge = self.leg(leg);
        let heard_at = self.opened_at + Duration::from_millis(gauge.heard_ms.load(Relaxed));
        LegView {
            state: gauge.state(),
            silent_for: now.saturating_duration_since(heard_at),
            round_trip: gauge.round_trip(),
            probes_unanswered: gauge.probes_unanswered.load(Relaxed),
            pong: habit_from_u8(gauge.habit.load(Relaxed)),
            messages: gauge.messages.load(Relaxed),
            bytes: gauge.bytes.load(Relaxed),
        }
    }

    /// Publishes how far the messages to the client have come.
    pub fn publish_delivery(&self, progress: &Progress) {
        let gauge = &self.delivery;
        gauge.sent.store(progress.sent, Relaxed);
        gauge.kernel.store(progress.kernel, Relaxed);
        gauge.received.store(progress.received, Relaxed);
        gauge.open.set(progress.open, self.opened_at);
    }

    /// Publishes which of the client's messages the app is not known to have, where they are counted.
    pub fn publish_to_app(&self, open: Unsettled) {
        self.to_app.set(open, self.opened_at);
    }

    /// Returns which of the client's messages the app is not known to have, where they are counted.
    pub fn open_to_app(&self) -> Unsettled {
        self.to_app.get(self.opened_at)
    }

    /// Returns how far the messages to the client have come.
    pub fn progress(&self) -> Progress {
        let gauge = &self.delivery;
        Progress {
            sent: gauge.sent.load(Relaxed),
            kernel: gauge.kernel.load(Relaxed),
            received: gauge.received.load(Relaxed),
            open: gauge.open.get(self.opened_at),
        }
    }

    /// Returns how far the messages to the client have come, in counts alone.
    pub(crate) fn delivered(&self) -> Delivered {
        let Progress { sent, kernel, received, .. } = self.progress();
        Delivered { sent, kernel, received }
    }

    pub(crate) fn totals(&self) -> [LegTotals; 2] {
        [self.legs[0].totals(), self.legs[1].totals()]
    }
}

fn habit_to_u8(habit: PongHabit) -> u8 {
    match habit {
        PongHabit::Unknown => 0,
        PongHabit::Answers => 1,
        PongHabit::Never => 2,
    }
}

fn habit_from_u8(habit: u8) -> PongHabit {
    match habit {
        1 => PongHabit::Answers,
        2 => PongHabit::Never,
        _ => PongHabit::Unknown,
    }
}
