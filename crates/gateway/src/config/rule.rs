//! What no key can check alone: rules between keys.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::fault::{Fault, Place};
use super::key::{KEYS, Key};
use super::load::Places;
use super::quantity::show_duration;
use super::{Config, ControlAddr};

/// What a rule finds: nothing, or what is wrong and what to do about it.
type Verdict = Result<(), (String, &'static str)>;

/// A rule, with the keys it reads; the first of them that was written is where the fault is shown.
struct Rule {
    keys: &'static [&'static str],
    check: fn(&Config, &Places) -> Verdict,
}

const RULES: &[Rule] = &[
    Rule {
        keys: &["listen.ops", "listen.data"],
        check: |config, _| apart(("ops", config.listen.ops), ("data", config.listen.data)),
    },
    Rule {
        keys: &["listen.control", "listen.data"],
        check: |config, _| control_apart(config, ("data", config.listen.data)),
    },
    Rule {
        keys: &["listen.control", "listen.ops"],
        check: |config, _| control_apart(config, ("ops", config.listen.ops)),
    },
    Rule { keys: &["listen.control", "control.token_file"], check: |config, _| control_guarded(config) },
    Rule { keys: &["upstream.url", "listen.data"], check: |config, _| no_loop(config) },
    Rule {
        keys: &["liveness.client_frozen_after", "liveness.verdict_after", "liveness.profile"],
        check: |config, places| frozen_not_first(config, places, "client_frozen_after"),
    },
    Rule {
        keys: &["liveness.app_frozen_after", "liveness.verdict_after", "liveness.profile"],
        check: |config, places| frozen_not_first(config, places, "app_frozen_after"),
    },
    Rule { keys: &["limits.sessions_max", "limits.connections_max"], check: sessions_fit },
    Rule { keys: &["drain.window", "drain.deadline"], check: |config, _| drain_fits(config) },
];

/// Every broken rule of which all keys could be read.
pub(super) fn broken<'a>(
    config: &'a Config,
    places: &'a Places,
    unread: &'a BTreeSet<&'static str>,
) -> impl Iterator<Item = Fault> + 'a {
    RULES.iter().filter(|rule| !rule.keys.iter().any(|key| unread.contains(key))).filter_map(|rule| {
        let (message, help) = (rule.check)(config, places).err()?;
        let place = rule.keys.iter().find_map(|key| places.get(key)).cloned().unwrap_or(Place::Default);
        Some(Fault::new(place, message).help(help))
    })
}

/// Two listeners must not ask for the same port of the same address.
fn apart(one: (&str, SocketAddr), other: (&str, SocketAddr)) -> Verdict {
    let ((one_name, one), (other_name, other)) = (one, other);
    if one.port() == 0 || one.port() != other.port() || !overlap(one.ip(), other.ip()) {
        return Ok(());
    }
    let message =
        format!("`listen.{one_name}` {one} and `listen.{other_name}` {other} can't both be listened on");
    Err((message, "give each listener a port of its own"))
}

fn control_apart(config: &Config, other: (&str, SocketAddr)) -> Verdict {
    match &config.listen.control {
        ControlAddr::Tcp(address) => apart(("control", *address), other),
        ControlAddr::Unix(_) | ControlAddr::Off => Ok(()),
    }
}

/// The unspecified IPv6 address takes IPv4 too (dual-stack sockets, Linux's default).
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(v4) => v4.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    one == other || covers(one, other) || covers(other, one)
}

fn control_guarded(config: &Config) -> Verdict {
    match &config.listen.control {
        ControlAddr::Tcp(address) if !address.ip().is_loopback() && config.control.token_file.is_none() => {
            let message = format!("the control API on {address} would be open to everyone who can reach it");
            Err((message, "set control.token_file, or listen on 127.0.0.1 or unix:/path"))
        }
        ControlAddr::Tcp(_) | ControlAddr::Unix(_) | ControlAddr::Off => Ok(()),
    }
}

/// A gateway whose app is itself would call itself until it runs out of sockets.
fn no_loop(config: &Config) -> Verdict {
    let authority = config.upstream.url.trim_start_matches("http://").trim_end_matches('/');
    let address = match authority.strip_prefix("localhost") {
        Some(rest) => format!("127.0.0.1{rest}"),
        None => authority.to_owned(),
    };
    let data = config.listen.data;
    let Ok(address) = address.parse::<SocketAddr>() else { return Ok(()) };
    let here = address.ip() == data.ip()
        || (data.ip().is_unspecified() && (address.ip().is_loopback() || address.ip().is_unspecified()));
    if here && address.port() == data.port() {
        let message = format!("`upstream.url` {} is the gateway's own data port", config.upstream.url);
        return Err((message, "name the port that the app listens on"));
    }
    Ok(())
}

/// A live kernel with a stuck process deserves no less patience than a dead path.
fn frozen_not_first(config: &Config, places: &Places, name: &str) -> Verdict {
    if !is_chosen(config, places, &format!("liveness.{name}")) {
        return Ok(());
    }
    let bounds = config.liveness.bounds();
    let frozen =
        if name == "app_frozen_after" { bounds.app_frozen_after } else { bounds.client_frozen_after };
    if frozen >= bounds.verdict_after {
        return Ok(());
    }
    let (frozen, verdict) = (show_duration(frozen), show_duration(bounds.verdict_after));
    let message = format!("`liveness.{name}` {frozen} is shorter than the verdict takes ({verdict})");
    Err((message, "raise it, or lower liveness.verdict_after"))
}

/// Whether somebody wants this value. One that is written and yet the default may only have been copied, as from what
/// `pulsegate config print` prints, which must load again.
fn is_chosen(config: &Config, places: &Places, path: &str) -> bool {
    let is_default = |key: &Key| key.get(config) == key.get(&Config::default());
    places.contains_key(path) && !KEYS.iter().any(|key| key.path == path && is_default(key))
}

/// Only a chosen `sessions_max` is held against the connections: a lower `connections_max` alone is a limit
/// like any other.
fn sessions_fit(config: &Config, places: &Places) -> Verdict {
    let (sessions, connections) = (config.limits.sessions_max, config.limits.connections_max);
    if !is_chosen(config, places, "limits.sessions_max") || sessions <= connections {
        return Ok(());
    }
    let message = format!(
        "`limits.sessions_max` {sessions} can't be reached: `limits.connections_max` is {connections}"
    );
    Err((message, "raise limits.connections_max above it"))
}

fn drain_fits(config: &Config) -> Verdict {
    let (window, deadline) = (config.drain.window, config.drain.deadline);
    if window <= deadline {
        return Ok(());
    }
    let (window, deadline) = (show_duration(window), show_duration(deadline));
    let message = format!("`drain.window` {window} is longer than `drain.deadline` {deadline}");
    Err((message, "the deadline must leave the window its time"))
}
