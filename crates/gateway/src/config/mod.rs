//! The one configuration: file, environment and flags become a [`Config`], and each part of the gateway
//! gets its own sub-struct by value.

mod default;
pub mod document;
mod fault;
mod field;
pub mod file;
mod key;
mod kind;
mod liveness;
mod load;
mod quantity;
mod raw;
mod rule;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use pulsegate_registry::{AppAck, Confirm};

pub use self::fault::{Fault, Line, Place};
pub use self::key::{ENVIRONMENT_PREFIX, KEYS, Key, SECTIONS};
pub use self::kind::{Form, Kind, Value};
pub use self::liveness::Bounds;
pub use self::load::{FAULTS_MAX, Flag, Loaded, Sources, load};
pub use self::quantity::{parse_duration, parse_size, show_duration, show_size};

/// All settings, in the shape of the TOML file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The app that the gateway stands in front of.
    pub upstream: Upstream,
    /// What listens where.
    pub listen: Listen,
    /// When a peer counts as gone.
    pub liveness: Liveness,
    /// How messages to clients are confirmed.
    pub delivery: Delivery,
    /// Clients that speak `pulsegate.v1`.
    pub v1: V1,
    /// Every bound that a client or an app can run into.
    pub limits: Limits,
    /// What is remembered of sessions.
    pub registry: Registry,
    /// Which proxies in front of the gateway are believed.
    pub forwarded: Forwarded,
    /// Which pages may open sockets.
    pub origin: Origin,
    /// Who may use the control API.
    pub control: Control,
    /// Close codes toward the app.
    pub close: Close,
    /// How the gateway leaves.
    pub drain: Drain,
    /// What is logged, and how.
    pub log: Log,
}

/// The app that the gateway stands in front of.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `http://host:port`, as given; path, query and user info are refused.
    pub url: String,
    /// Limit for the TCP connect.
    pub connect_timeout: Duration,
    /// Limit from the upgrade request sent to the app's 101 read.
    pub handshake_timeout: Duration,
    /// Limit from a plain request sent to the head of the app's answer (504 after it).
    pub response_timeout: Duration,
    /// Idle connections for plain HTTP kept per app.
    pub pool_idle_max: usize,
    /// How long sessions of v1 clients wait for an app whose connection is lost; zero: not at all.
    pub hold: Duration,
}

/// What listens where.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// WebSocket and plain HTTP for clients.
    pub data: SocketAddr,
    /// `/metrics` and health.
    pub ops: SocketAddr,
    /// Control API.
    pub control: ControlAddr,
}

/// Where the control API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAddr {
    /// A TCP address; anything but loopback needs `control.token_file`.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
    /// `off`.
    Off,
}

/// A named set of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// 1 s + 2 s.
    Fast,
    /// 5 s + 5 s.
    Balanced,
    /// 25 s + 15 s.
    Battery,
}

/// When a peer counts as gone. `None` in a duration means: what the profile says.
#[derive(Clone, Debug, PartialEq)]
pub struct Liveness {
    /// The named set that unset values come from.
    pub profile: Profile,
    /// Silence after which a peer is probed, at the latest.
    pub ping_interval: Option<Duration>,
    /// Time from the first unanswered probe to the verdict.
    pub verdict_after: Option<Duration>,
    /// Silence of a client whose kernel still acknowledges; `None`: the same bound as any other silence.
    pub client_frozen_after: Option<Duration>,
    /// The same for the app.
    pub app_frozen_after: Duration,
    /// For peers known never to answer a ping.
    pub idle_timeout: Duration,
    /// How long a client may take no byte while bytes wait for it; `None`: `ping_interval + verdict_after`.
    pub client_write_stall_after: Option<Duration>,
    /// The same for the app.
    pub app_write_stall_after: Duration,
}

/// How messages to clients are confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// How far the app's own messages are followed.
    pub confirm: Confirm,
    /// How long one of them waits until the client is asked what it has read.
    pub confirm_interval: Duration,
    /// How long a message of the control API may wait for its place, unless it says otherwise.
    pub ttl: Duration,
    /// Messages of the control API without an end, per session.
    pub messages_max: usize,
    /// Their payload bytes, and those of one.
    pub bytes_max: usize,
    /// Ended messages remembered at once.
    pub outcomes_max: usize,
    /// How long an ended message is remembered.
    pub outcome_ttl: Duration,
}

/// Clients that speak `pulsegate.v1`.
#[derive(Clone, Debug, PartialEq)]
pub struct V1 {
    /// Whether the gateway speaks it.
    pub offer: Switch,
    /// Messages under way in each direction.
    pub window_messages: usize,
    /// Their payload bytes.
    pub window_bytes: usize,
    /// The largest message of a client, which is put together before it is passed on.
    pub message_bytes_max: usize,
    /// How long a session waits for a client without a connection.
    pub resume_window: Duration,
    /// Bytes kept for all sessions whose clients are away.
    pub parked_bytes_max: usize,
    /// When a message without an ACK is asked for.
    pub confirm_within: Duration,
    /// How long a client's code may be silent while its WebSocket stack answers.
    pub page_frozen_after: Duration,
    /// When a client's message counts as handled by the app.
    pub app_ack: AppAck,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Every bound that a client or an app can run into.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Sessions at once, and with them sockets.
    pub sessions_max: usize,
    /// Sessions at once from one address (IPv6: from one /64).
    pub sessions_per_address_max: usize,
    /// TCP connections to the data port at once, sessions included.
    pub connections_max: usize,
    /// Time from accept, or from the last answer, to a whole request head.
    pub header_timeout: Duration,
    /// Bytes of a request head.
    pub header_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Payload bytes of one frame.
    pub frame_bytes_max: u64,
    /// Payload bytes of one message, over all its fragments.
    pub message_bytes_max: u64,
    /// Fragments of one message.
    pub fragments_max: u32,
    /// Grace for a frame that has begun; after it the average must reach `frame_rate_min`.
    pub frame_timeout: Duration,
    /// Bytes per second that a begun frame must average once `frame_timeout` has passed.
    pub frame_rate_min: u64,
    /// Pings and unasked pongs per second from one peer, averaged; twice as many in a burst.
    pub control_frames_rate_max: u32,
    /// Time for a closing handshake to end.
    pub close_timeout: Duration,
    /// Bytes of one label's value; longer ones are cut.
    pub label_bytes_max: usize,
}

/// What is remembered of sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Registry {
    /// Label name to its source: `header:Name`, `query:name` or `cookie:name`.
    pub labels: BTreeMap<String, String>,
    /// Ended sessions remembered at once.
    pub tombstones_max: usize,
    /// How long an ended session is remembered.
    pub tombstone_ttl: Duration,
    /// Events kept for `Last-Event-ID`.
    pub events_max: usize,
}

/// Which proxies in front of the gateway are believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Forwarded {
    /// Networks whose `X-Forwarded-*` and `Forwarded` are kept and extended; from others they are replaced.
    pub trusted: Vec<ipnet::IpNet>,
}

/// Which pages may open sockets.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Allowed `Origin` values of upgrade requests; empty: the app decides.
    pub allow: Vec<String>,
}

/// Who may use the control API.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// File whose first line is the bearer token.
    pub token_file: Option<PathBuf>,
    /// Host names accepted besides loopback ones (against DNS rebinding).
    pub hosts: Vec<String>,
    /// Origins of pages that may call; none by default.
    pub origins: Vec<String>,
    /// Event feeds open at once.
    pub feeds_max: usize,
    /// Requests at once that wait for the end of a message.
    pub waits_max: usize,
}

/// Close codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Close {
    /// Toward the app, when its client was declared dead.
    pub dead_client_code: u16,
    /// Toward the client, when the app is gone.
    pub dead_app_code: u16,
    /// Toward the client, when the app is frozen.
    pub frozen_app_code: u16,
}

/// How the gateway leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Drain {
    /// Closes are spread evenly with jitter over this time.
    pub window: Duration,
    /// After this time the process ends whatever is left.
    pub deadline: Duration,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// A tracing filter: `info`, `pulsegate=debug,hyper=warn`.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
}
