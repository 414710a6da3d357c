//! What is drawn from the seed before a world begins.

use std::sync::Arc;
use std::time::Duration;

use pulsegate_client::ClientConfig;
use pulsegate_core::v1::Window;
use pulsegate_heartbeat::Limits;
use pulsegate_registry::{AppAck, CloseCodes, Confirm, DeliveryRules, SessionLimits, V1Limits};

use crate::{MS, SECOND, Time};

/// Which of the pings that it reads at once an app answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pongs {
    All,
    Newest,
    Oldest,
    None,
}

/// Large messages, where there are some.
const LARGE_MAX: usize = 100_000;

/// The nature of one world.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) limits: Arc<V1Limits>,
    pub(super) client: ClientConfig,
    /// One way, least and most.
    pub(super) latency: (Time, Time),
    /// Which pings the app answers.
    pub(super) pongs: Pongs,
    /// Mean time between two faults.
    pub(super) fault_every: Time,
    /// Mean time between two messages of one side.
    pub(super) message_every: Time,
    /// Largest message, but for a few.
    pub(super) bytes_max: usize,
    /// A few are larger than any window.
    pub(super) has_large: bool,
    /// A connection that is not open by then is given up, and another tried.
    pub(super) dial_within: Time,
    /// The client's code needs so long for what it gets, on average; it says itself when it is done.
    pub(super) work: Option<Time>,
    /// The client closes in the middle of everything.
    pub(super) leaves_early: Option<Time>,
    /// Until then there are messages and faults.
    pub(super) busy_until: Time,
    /// By then everything must have arrived.
    pub(super) leave_at: Time,
}

impl Plan {
    pub(super) fn draw(random: &mut fastrand::Rng) -> Plan {
        let session = session_limits();
        let leg = *session.client;
        let pongs = match random.u32(0..8) {
            0 => Pongs::None,
            1 => Pongs::Newest,
            2 => Pongs::Oldest,
            _ => Pongs::All,
        };
        let app_answers = pongs != Pongs::None;
        // An app that answers no pings is found out by two that it leaves unanswered while it is read; with a tiny window it
        // is hardly ever read.
        let tiny = app_answers && random.bool();
        let window = match tiny {
            true => draw_tiny(random),
            false => Window { messages: 1024, bytes: 256 * 1024 },
        };
        let short = random.u32(0..4) == 0;
        let limits = V1Limits {
            session: session.into(),
            window,
            resume_window: Duration::from_secs(if short { random.u64(1..6) } else { 60 }),
            confirm_within: Duration::from_secs(1),
            heartbeat: leg.ping_interval,
            page_frozen_after: Duration::from_secs(random.u64(3..20)),
            app_ack: if random.u32(0..3) == 0 { AppAck::Written } else { AppAck::Received },
            app_hold: draw_hold(random),
        };
        let client_window = match tiny && random.bool() {
            true => draw_tiny(random),
            false => Window { messages: 64, bytes: 64 * 1024 },
        };
        let work = (random.u32(0..3) == 0).then(|| random.u64(MS..300 * MS));
        let client = ClientConfig {
            manual_ack: work.is_some(),
            window: client_window,
            backoff_max: Duration::from_secs(2),
            welcome_within: Duration::from_secs(random.u64(2..10)),
            ..ClientConfig::default()
        };
        let least = random.u64(MS / 10..50 * MS);
        let busy_until = random.u64(3 * SECOND..20 * SECOND);
        // Of an app that answers no pings the kernel is asked once a second; with a tiny window that is the pace.
        let healing = if app_answers { 45 * SECOND } else { 110 * SECOND };
        Plan {
            limits: limits.into(),
            client,
            latency: (least, least + random.u64(1..100 * MS)),
            pongs,
            has_large: random.u32(0..8) == 0,
            dial_within: random.u64(SECOND..10 * SECOND),
            work,
            leaves_early: (random.u32(0..12) == 0).then(|| random.u64(0..busy_until)),
            fault_every: random.u64(SECOND / 4..5 * SECOND),
            message_every: random.u64(5 * MS..500 * MS),
            bytes_max: if tiny { random.usize(1..60) } else { random.usize(1..400) },
            busy_until,
            leave_at: busy_until + healing,
        }
    }
}

impl Plan {
    /// Returns whether the session waits for an app that restarts.
    pub(super) fn holds(&self) -> bool {
        !self.limits.app_hold.is_zero()
    }

    /// Returns how many bytes the largest message has, with what the oracle writes around them.
    pub(super) fn message_max(&self) -> usize {
        let bytes = if self.has_large { self.bytes_max.max(LARGE_MAX) } else { self.bytes_max };
        bytes + 10
    }

    pub(super) fn draw_bytes(&self, random: &mut fastrand::Rng) -> usize {
        let is_large = self.has_large && random.u32(0..40) == 0;
        random.usize(0..=if is_large { LARGE_MAX } else { self.bytes_max })
    }
}

/// Most apps are not waited for; some for long enough, some not.
fn draw_hold(random: &mut fastrand::Rng) -> Duration {
    Duration::from_secs(match random.u32(0..6) {
        0 | 1 => 60,
        2 => random.u64(1..5),
        _ => 0,
    })
}

/// Few messages, or few bytes, or both.
fn draw_tiny(random: &mut fastrand::Rng) -> Window {
    let (messages, bytes) = (random.usize(1..8), random.usize(1..200));
    match random.u32(0..4) {
        0 => Window { messages, bytes: 256 * 1024 },
        1 => Window { messages: 1024, bytes },
        _ => Window { messages, bytes },
    }
}

/// Returns the bounds that are the same in all worlds.
fn session_limits() -> SessionLimits {
    let leg = Limits {
        ping_interval: Duration::from_secs(1),
        verdict_after: Duration::from_secs(2),
        frozen_after: Duration::from_secs(3),
        idle_timeout: Duration::from_secs(20),
        write_stall_after: Duration::from_secs(3),
    };
    let app =
        Limits { frozen_after: Duration::from_secs(30), write_stall_after: Duration::from_secs(30), ..leg };
    SessionLimits {
        client: leg.into(),
        app: app.into(),
        close_timeout: Duration::from_secs(2),
        delivery: DeliveryRules {
            confirm: Confirm::Received,
            interval: Duration::from_secs(1),
            answer_within: leg.verdict_after,
        },
        codes: CloseCodes { dead_client: 4408, dead_app: 1012, frozen_app: 1013 },
    }
}
