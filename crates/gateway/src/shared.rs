//! What all parts of a running gateway share.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pulsegate_core::v1::Window;
use pulsegate_core::{CloseFrame, FrameLimits, IdSource, SessionId};
use pulsegate_heartbeat::{Crowd, Limits};
use pulsegate_registry::{
    CloseCodes, Confirm, DeliveryRules, Lookup, Parking, Registry, RegistryLimits, SessionLimits, V1Limits,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::feed::Feed;
use crate::front::Probe;
use crate::messages::Messages;
use crate::ops::Metrics;
use crate::relay::{Mailbox, VIGILS_MAX};

/// So many sessions dial an app at once that went away.
const REDIALS_MAX: usize = 64;

/// One running gateway. There may be several in a process: nothing in here is global.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Bounds of every session, made from the configuration once.
    pub(crate) session_limits: Arc<SessionLimits>,
    /// The same where the app asks for receipts: what costs nothing is followed for it also if nothing else is.
    pub(crate) receipt_limits: Arc<SessionLimits>,
    /// Bounds of sessions of clients that speak `pulsegate.v1`.
    pub(crate) v1_limits: Arc<V1Limits>,
    pub(crate) frame_limits: Arc<FrameLimits>,
    /// For clients that speak `pulsegate.v1`: their messages are kept until they are whole.
    pub(crate) v1_frame_limits: Arc<FrameLimits>,
    pub(crate) registry: Registry<Mailbox>,
    /// Sessions that wait for their clients.
    pub(crate) parking: Parking,
    /// Per leg, all peers that are watched: many that fall silent together raise a doubt.
    pub(crate) crowds: [Arc<Crowd>; 2],
    /// Seats for the sockets of the dead.
    pub(crate) vigils: Arc<Semaphore>,
    /// Seats for those who dial the app again.
    pub(crate) redials: Semaphore,
    pub(crate) feed: Feed,
    /// Messages that somebody sent over the control API.
    pub(crate) messages: Messages,
    pub(crate) metrics: Metrics,
    /// Connections to the data port, until they became sessions.
    pub(crate) connections: TaskTracker,
    /// Sessions.
    pub(crate) sessions: TaskTracker,
    /// Cancelled when nothing new may come in.
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
    /// When the app was last asked whether it answers, for `/readyz`.
    pub(crate) probe: Probe,
}

impl Shared {
    /// Builds the state of a gateway that has not begun to listen.
    pub(crate) fn new(config: Config) -> Shared {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let ids = IdSource::new(unix_ms, fastrand::u64(..));
        let limits = RegistryLimits {
            sessions_max: config.limits.sessions_max,
            sessions_per_address_max: config.limits.sessions_per_address_max,
            tombstones_max: config.registry.tombstones_max,
            tombstone_ttl: config.registry.tombstone_ttl,
        };
        let session_limits = Arc::new(session_limits(&config));
        Shared {
            v1_limits: Arc::new(v1_limits(&config, &session_limits)),
            receipt_limits: Arc::new(receipt_limits(&session_limits)),
            session_limits,
            frame_limits: Arc::new(frame_limits(&config, u64::MAX)),
            v1_frame_limits: Arc::new(frame_limits(&config, config.v1.message_bytes_max as u64)),
            parking: Parking::new(config.v1.parked_bytes_max),
            registry: Registry::new(limits, ids),
            crowds: Default::default(),
            vigils: Arc::new(Semaphore::new(VIGILS_MAX)),
            redials: Semaphore::new(REDIALS_MAX),
            feed: Feed::new(unix_ms, config.registry.events_max),
            messages: Messages::new(config.delivery.outcomes_max, config.delivery.outcome_ttl),
            metrics: Metrics::new(),
            connections: TaskTracker::new(),
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
            started: clock(),
            probe: Probe::default(),
            config,
        }
    }
}

impl Shared {
    /// Ends a session that waits for its client, for others that need what it takes; not one whose client is just back.
    pub(crate) fn evict(&self, id: SessionId) {
        if let Lookup::Live(entry) = self.registry.find(id) {
            let code = self.config.close.dead_client_code;
            let frame = CloseFrame::new(code, "client away, and no room to wait for it");
            entry.handle().evict(frame);
        }
    }
}

/// Reads the monotonic clock: for drivers only.
#[allow(clippy::disallowed_methods, reason = "the one place in the gateway that reads the monotonic clock")]
pub(crate) fn clock() -> Instant {
    Instant::now()
}

fn frame_limits(config: &Config, bytes_max: u64) -> FrameLimits {
    FrameLimits {
        frame_bytes_max: config.limits.frame_bytes_max,
        message_bytes_max: config.limits.message_bytes_max.min(bytes_max),
        fragments_max: config.limits.fragments_max,
    }
}

fn session_limits(config: &Config) -> SessionLimits {
    let bounds = config.liveness.bounds();
    let client = Limits {
        ping_interval: bounds.ping_interval,
        verdict_after: bounds.verdict_after,
        frozen_after: bounds.client_frozen_after,
        idle_timeout: bounds.idle_timeout,
        write_stall_after: bounds.client_write_stall_after,
    };
    let app = Limits {
        frozen_after: bounds.app_frozen_after,
        write_stall_after: bounds.app_write_stall_after,
        ..client
    };
    SessionLimits {
        client: Arc::new(client),
        app: Arc::new(app),
        close_timeout: config.limits.close_timeout,
        delivery: DeliveryRules {
            confirm: config.delivery.confirm,
            interval: config.delivery.confirm_interval,
            answer_within: bounds.verdict_after,
        },
        codes: CloseCodes {
            dead_client: config.close.dead_client_code,
            dead_app: config.close.dead_app_code,
            frozen_app: config.close.frozen_app_code,
        },
    }
}

fn receipt_limits(limits: &SessionLimits) -> SessionLimits {
    let confirm = match limits.delivery.confirm {
        Confirm::Off => Confirm::Kernel,
        confirm @ (Confirm::Kernel | Confirm::Received) => confirm,
    };
    SessionLimits { delivery: DeliveryRules { confirm, ..limits.delivery }, ..limits.clone() }
}

fn v1_limits(config: &Config, session: &Arc<SessionLimits>) -> V1Limits {
    let v1 = &config.v1;
    V1Limits {
        session: Arc::clone(session),
        window: Window { messages: v1.window_messages, bytes: v1.window_bytes },
        resume_window: v1.resume_window,
        confirm_within: v1.confirm_within,
        heartbeat: session.client.ping_interval,
        page_frozen_after: v1.page_frozen_after,
        app_ack: v1.app_ack,
        app_hold: config.upstream.hold,
    }
}
