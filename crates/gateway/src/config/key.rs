//! The table of keys: the one source for the file, the environment, flags, the documented default file,
//! the schema and every message.

use std::time::Duration;

use super::Config;
use super::field::Field;
use super::kind::{Kind, Value};
use super::quantity::show_duration;
use super::text::{self, ADDRESS, CONTROL_ADDRESS, FILTER, HOST, NETWORK, ORIGIN, PATH, URL};

/// One key.
#[derive(Debug)]
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    /// Name of the flag of `run` that sets it, without the dashes.
    pub flag: Option<&'static str>,
    /// What it takes.
    pub kind: Kind,
    /// One line: why it is there.
    pub why: &'static str,
    /// What holds while it is unset; `None` for keys that always have a value.
    pub unset: Option<fn(&Config) -> String>,
    set: fn(&mut Config, Value) -> bool,
    get: fn(&Config) -> Option<Value>,
}

impl Key {
    /// Finds a key by its path.
    pub fn find(path: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.path == path)
    }

    /// The part of the path before the dot.
    pub fn section(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(section, _)| section)
    }

    /// The part of the path behind the dot.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// `PULSEGATE_SECTION_NAME`.
    pub fn environment(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The flag's twin: `PULSEGATE_LISTEN` for `--listen`.
    pub fn flag_environment(&self) -> Option<String> {
        self.flag.map(|flag| format!("{ENVIRONMENT_PREFIX}{}", flag.to_uppercase()))
    }

    /// Sets the key; false when kind and field disagree, which the tests rule out.
    pub(super) fn set(&self, config: &mut Config, value: Value) -> bool {
        (self.set)(config, value)
    }

    /// The current value; `None` when unset.
    pub fn get(&self, config: &Config) -> Option<Value> {
        (self.get)(config)
    }
}

/// What all variables of the gateway begin with.
pub const ENVIRONMENT_PREFIX: &str = "PULSEGATE_";

/// Sections in the order of the file, each with one line of explanation.
pub const SECTIONS: [(&str, &str); 13] = [
    ("upstream", "The app that the gateway stands in front of."),
    ("listen", "What listens where."),
    (
        "liveness",
        "When a peer counts as gone. A silent client is declared dead no later than ping_interval + verdict_after.",
    ),
    ("delivery", "How messages to clients are confirmed."),
    ("v1", "Clients that speak pulsegate.v1 (PROTOCOL.md): acknowledged both ways, resumed after a drop."),
    ("limits", "Every bound that a client or an app can run into."),
    ("registry", "What is remembered of sessions."),
    ("forwarded", "Which proxies in front of the gateway are believed."),
    ("origin", "Which pages may open sockets."),
    ("control", "Who may use the control API."),
    ("close", "Close codes that a verdict sends (3000 to 4999, or a registered one)."),
    ("drain", "How the gateway leaves after SIGTERM."),
    ("log", "What is logged, and how."),
];

/// Names of profiles.
const PROFILES: &[&str] = &["fast", "balanced", "battery"];

/// How far messages are followed.
const CONFIRMS: &[&str] = &["off", "kernel", "received"];

/// When a client's message counts as handled.
const APP_ACKS: &[&str] = &["received", "written"];

/// Whether or not.
const SWITCH: &[&str] = &["on", "off"];

/// Names of log formats.
const LOG_FORMATS: &[&str] = &["auto", "json", "pretty"];

/// Most items of a list.
const ITEMS_MAX: usize = 256;

const GIB: u64 = 1 << 30;

/// Longest duration unless a key says otherwise: longer ones are slips of the pen.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// Three probes must fit, each with a chance to be answered, and TCP must have asked again in vain to tell a dead
/// line from a frozen process (RFC 6298 section 2.4: after 1 s; Linux: 0.2 s).
const VERDICT_MIN: Duration = Duration::from_secs(1);

const ADDRESS_KIND: Kind = Kind::Text(ADDRESS);

/// A duration of at least `min_ms`.
const fn duration(min_ms: u64) -> Kind {
    Kind::Duration { min: Duration::from_millis(min_ms), max: DURATION_MAX }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const fn list(form: super::kind::Form) -> Kind {
    Kind::List { form, items_max: ITEMS_MAX }
}

macro_rules! keys {
    ($($section:ident.$field:ident $(flag $flag:literal)? $(unset $unset:expr)? => $kind:expr, $why:literal;)*) => {
        /// All keys, in the order of the file.
        pub static KEYS: &[Key] = &[$(Key {
            path: concat!(stringify!($section), ".", stringify!($field)),
            flag: keys!(@option $($flag)?),
            kind: $kind,
            why: $why,
            unset: keys!(@option $($unset)?),
            set: |config, value| match Field::take(value) {
                Some(field) => {
                    config.$section.$field = field;
                    true
                }
                None => false,
            },
            get: |config| Field::give(&config.$section.$field),
        }),*];
    };
    (@option) => { None };
    (@option $value:expr) => { Some($value) };
}

keys! {
    upstream.url flag "upstream" => Kind::Text(URL),
        "The app: http://host:port, without a path.";
    upstream.connect_timeout => duration(1),
        "Limit for the TCP connect to the app; after it the client gets 504.";
    upstream.handshake_timeout => duration(1),
        "Limit from the upgrade request sent to the app's 101; after it the client gets 504.";
    upstream.response_timeout => duration(1),
        "Limit from a plain request sent to the head of the app's answer; after it the client gets 504.";
    upstream.pool_idle_max => count(0, 65_536),
        "Idle connections to the app kept for plain HTTP; each one kept saves a connect.";
    upstream.hold => duration(0),
        "How long sessions of pulsegate.v1 clients wait for an app that restarts, and dial it again; 0s: they end with its connection.";

    listen.data flag "listen" => ADDRESS_KIND,
        "WebSocket and plain HTTP for clients.";
    listen.ops flag "ops" => ADDRESS_KIND,
        "/metrics, /livez, /readyz and /startupz.";
    listen.control flag "control" => Kind::Text(CONTROL_ADDRESS),
        "The control API: ip:port, unix:/path or off; anything but loopback needs control.token_file.";

    liveness.profile flag "profile" => Kind::Choice(PROFILES),
        "fast (1s + 2s: servers, games), balanced (5s + 5s: web apps) or battery (25s + 15s: phones).";
    liveness.ping_interval unset |config| show_duration(config.liveness.bounds().ping_interval) => duration(500),
        "Silence after which a peer is probed, at least 500ms; unset: what the profile says.";
    liveness.verdict_after unset |config| show_duration(config.liveness.bounds().verdict_after)
        => Kind::Duration { min: VERDICT_MIN, max: DURATION_MAX },
        "Time from the first unanswered probe to the verdict, at least 1s; unset: what the profile says.";
    liveness.client_frozen_after unset |config| show_duration(config.liveness.bounds().client_frozen_after)
        => Kind::Duration { min: VERDICT_MIN, max: DURATION_MAX },
        "Silence of a client whose kernel still acknowledges; behind a balancer that kernel is the balancer's, so unset means the same bound as any silence.";
    liveness.app_frozen_after => Kind::Duration { min: VERDICT_MIN, max: DURATION_MAX },
        "The same for the app: an app in a long pause must not lose all its clients at once.";
    liveness.idle_timeout => duration(100),
        "Silence allowed to peers that are known never to answer a ping.";
    liveness.client_write_stall_after unset |config| show_duration(config.liveness.bounds().client_write_stall_after)
        => duration(100),
        "How long a client may take no byte while bytes wait for it, verdict_after at least; unset: ping_interval + verdict_after.";
    liveness.app_write_stall_after => duration(100),
        "The same for the app.";

    delivery.confirm => Kind::Choice(CONFIRMS),
        "How far the app's own messages are followed: off, kernel (the client's kernel has them) or received (its WebSocket stack has read them, as the pong to a ping behind them tells).";
    delivery.confirm_interval => duration(100),
        "How long a message waits until the client is asked what it has read; one ping then answers for all.";
    delivery.ttl => Kind::Duration { min: Duration::from_millis(1), max: Duration::from_secs(3600) },
        "How long a message sent over the control API may wait until it leaves, unless it says otherwise (Pulsegate-Ttl).";
    delivery.messages_max => count(1, 1_000_000),
        "Messages sent over the control API that have no end yet, per session; more are refused with 429.";
    delivery.bytes_max => size(1, GIB),
        "Their payload bytes, per session, and the most that one of them may have (413).";
    delivery.outcomes_max => count(1, 10_000_000),
        "Messages remembered after their end, so that a late question gets a true answer; so many with an Idempotency-Key, and as many others.";
    delivery.outcome_ttl => Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(30 * 24 * 3600) },
        "How long a message is remembered after its end.";

    v1.offer => Kind::Choice(SWITCH),
        "on or off: whether the gateway speaks it with clients that offer it; all others are passed through.";
    v1.window_messages => count(1, 65_536),
        "Messages that may be under way in each direction; so many are kept to be sent again.";
    v1.window_bytes => size(1024, GIB),
        "Their payload bytes; a message that is larger goes alone.";
    v1.message_bytes_max => size(1024, GIB),
        "Payload of the largest message of a client, which is kept until it is whole; a larger one is answered with Close 4413. limits.message_bytes_max holds as well, and it alone for the app's messages.";
    v1.resume_window => duration(100),
        "How long a session whose client has no connection waits for it.";
    v1.parked_bytes_max => size(1024, 1024 * GIB),
        "Bytes kept for all sessions together whose clients are away; beyond it the one that is away for longest ends.";
    v1.confirm_within => duration(100),
        "How long a message may be without an ACK before the client is asked.";
    v1.page_frozen_after => duration(1000),
        "How long a client's code may stay silent while its WebSocket stack answers pings: a hung page, not a dead line.";
    v1.app_ack => Kind::Choice(APP_ACKS),
        "When a client's message counts as handled: received (the app's WebSocket stack has read it, as the pong to a ping behind it tells) or written (our kernel has taken it).";

    limits.sessions_max => count(1, 10_000_000),
        "Sessions at once; each needs two file descriptors. More are refused with 503.";
    limits.sessions_per_address_max => count(1, 10_000_000),
        "Sessions at once from one address (IPv6: one /64), so that one client can't take all places.";
    limits.connections_max => count(1, 10_000_000),
        "TCP connections to the data port at once, sessions included.";
    limits.header_timeout => duration(1),
        "Time from accept, or from the last answer, to a whole request head: slow senders hold no place.";
    // hyper refuses to work with a smaller read buffer than 8 KiB.
    limits.header_bytes_max => size(8 * 1024, 1024 * 1024),
        "Bytes of a request head; more is 431.";
    limits.headers_max => count(8, 10_000),
        "Header fields of a request; more is 431.";
    limits.frame_bytes_max => size(1, 1024 * GIB),
        "Payload bytes of one frame; more is close code 1009.";
    limits.message_bytes_max => size(1, 1024 * GIB),
        "Payload bytes of one message over all its fragments; more is close code 1009.";
    limits.fragments_max => count(1, 1_000_000_000),
        "Fragments of one message; more is close code 1008.";
    limits.frame_timeout => duration(1),
        "Grace for a frame that has begun; after it the average must reach frame_rate_min.";
    limits.frame_rate_min => count(1, GIB),
        "Bytes per second that a begun frame must average once frame_timeout has passed.";
    limits.control_frames_rate_max => count(1, 1_000_000),
        "Pings and unasked pongs per second from one peer, averaged; twice as many in a burst.";
    limits.close_timeout => duration(1),
        "Time for a closing handshake to end; after it the socket is closed.";
    limits.label_bytes_max => count(1, 4096),
        "Bytes of one label's value; longer ones are cut.";

    registry.labels => Kind::Labels,
        "Labels that make sessions findable, such as { user = \"header:X-User\", room = \"query:room\" }; also cookie:name.";
    registry.tombstones_max => count(0, 10_000_000),
        "Ended sessions remembered at once, so that a late question gets a true answer.";
    registry.tombstone_ttl => Kind::Duration { min: Duration::ZERO, max: Duration::from_secs(30 * 24 * 3600) },
        "How long an ended session is remembered.";
    registry.events_max => count(1, 10_000_000),
        "Events kept for readers of the feed that come back with Last-Event-ID.";

    forwarded.trusted => list(NETWORK),
        "Networks whose X-Forwarded-* and Forwarded are kept and extended; from all others they are replaced.";

    origin.allow => list(ORIGIN),
        "Origins whose pages may open sockets, as browsers send them; empty: the app decides.";

    control.token_file unset |_| "no token".into() => Kind::Text(PATH),
        "File whose first line is the bearer token; needed for anything but loopback and unix sockets.";
    control.hosts => list(HOST),
        "Host names accepted besides loopback ones (against DNS rebinding).";
    control.origins => list(ORIGIN),
        "Origins of pages that may call the control API; none by default.";
    control.feeds_max => count(1, 10_000),
        "Event feeds open at once; more are refused with 503.";
    control.waits_max => count(1, 10_000),
        "Requests at once that wait for the end of a message (Prefer: wait); more are answered 202 at once.";

    close.dead_client_code => Kind::CloseCode,
        "Toward the app when its client was declared dead; not 1001, which apps read as a page that left on purpose.";
    close.dead_app_code => Kind::CloseCode,
        "Toward the client when the app is gone: 1012 tells clients to reconnect.";
    close.frozen_app_code => Kind::CloseCode,
        "Toward the client when the app is frozen: 1013 tells clients to try again later.";

    drain.window => duration(0),
        "Closes are spread over this time with jitter, so that clients don't come back in one wave.";
    drain.deadline => duration(0),
        "After this time the process ends whatever is left.";

    log.level => Kind::Text(FILTER),
        "A tracing filter: info, or pulsegate=debug,hyper=warn.";
    log.format => Kind::Choice(LOG_FORMATS),
        "auto (pretty on a terminal, JSON otherwise), json or pretty.";
}

/// The key or section most like an unknown one.
pub(super) fn suggestion(path: &str) -> Option<&'static str> {
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    // A key written in the wrong section is the commonest slip: its bare name then matches exactly.
    let moved = KEYS.iter().filter(|key| key.name() == name).map(|key| key.path);
    let mut moved: Vec<_> = moved.collect();
    if moved.len() == 1 {
        return moved.pop();
    }
    text::closest(path, KEYS.iter().map(|key| key.path))
}
