//! Types and forms that are written as text: addresses, URLs, label sources, filters.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::kind::Form;
use super::{ControlAddr, LogFormat, Profile, Switch};

/// Longest text that a key takes.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// Most labels: each costs a search in every upgrade request.
pub(super) const LABELS_MAX: usize = 16;

/// Longest name of a label.
const LABEL_NAME_BYTES_MAX: usize = 64;

/// Longest path of a unix socket, as the kernel's `sun_path` has it without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest text that a suggestion is looked for.
const SUGGESTION_BYTES_MAX: usize = 64;

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be suggested for the other.
const SUGGESTION_LIKENESS_MIN: f64 = 0.8;

/// `http://host:port`.
pub(super) const URL: Form =
    Form { name: "an app's address", example: "http://127.0.0.1:3000", check: check_url };

/// `ip:port`.
pub(super) const ADDRESS: Form =
    Form { name: "an address and port", example: "0.0.0.0:7080", check: check_address };

/// `ip:port`, `unix:/path` or `off`.
pub(super) const CONTROL_ADDRESS: Form = Form {
    name: "an address and port, unix:/path or off",
    example: "127.0.0.1:7082",
    check: |text| ControlAddr::from_str(text).map(drop),
};

/// `10.0.0.0/8`, or one address.
pub(super) const NETWORK: Form =
    Form { name: "a network", example: "10.0.0.0/8", check: |text| read_network(text).map(drop) };

/// `https://host`.
pub(super) const ORIGIN: Form =
    Form { name: "an origin", example: "https://app.example", check: check_origin };

/// `host`.
pub(super) const HOST: Form = Form { name: "a host name", example: "gate.example", check: check_host };

/// A file's path.
pub(super) const PATH: Form =
    Form { name: "a path", example: "/run/secrets/token", check: |text| required(text, "a path is missing") };

/// A tracing filter.
pub(super) const FILTER: Form =
    Form { name: "a log filter", example: "pulsegate=debug,hyper=warn", check: check_filter };

impl FromStr for ControlAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ControlAddr, String> {
        if text == "off" {
            return Ok(ControlAddr::Off);
        }
        let Some(path) = text.strip_prefix("unix:") else {
            return check_address(text)
                .map_err(|why| format!("{why}, unix:/path or off"))
                .and_then(|()| text.parse().map(ControlAddr::Tcp).map_err(|_| "no address".into()));
        };
        if !path.starts_with('/') {
            return Err("the socket's path must be absolute: unix:/run/pulsegate.sock".into());
        }
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(format!("the socket's path is longer than {SOCKET_PATH_BYTES_MAX} bytes"));
        }
        Ok(ControlAddr::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for ControlAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlAddr::Tcp(address) => address.fmt(f),
            ControlAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            ControlAddr::Off => f.write_str("off"),
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Profile, String> {
        [Profile::Fast, Profile::Balanced, Profile::Battery]
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| "no such profile".into())
    }
}

impl Profile {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Fast => "fast",
            Profile::Balanced => "balanced",
            Profile::Battery => "battery",
        }
    }
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Switch, &'static str> {
        [Switch::On, Switch::Off]
            .into_iter()
            .find(|switch| switch.name() == text)
            .ok_or("on or off is expected")
    }
}

impl Switch {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Switch::On => "on",
            Switch::Off => "off",
        }
    }

    /// Returns whether it is on.
    pub fn is_on(self) -> bool {
        self == Switch::On
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        [LogFormat::Auto, LogFormat::Json, LogFormat::Pretty]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| "no such format".into())
    }
}

impl LogFormat {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Auto => "auto",
            LogFormat::Json => "json",
            LogFormat::Pretty => "pretty",
        }
    }
}

/// Reads a network; one address is a network of one.
pub(super) fn read_network(text: &str) -> Result<ipnet::IpNet, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    let network: ipnet::IpNet = text
        .parse()
        .map_err(|_| format!("`{}` is no network: write for example 10.0.0.0/8 or fd00::/8", brief(text)))?;
    if network.trunc() != network {
        return Err(format!("`{text}` has bits behind its prefix: write {}", network.trunc()));
    }
    Ok(network)
}

/// Checks a label's name.
pub(super) fn check_label_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX || !name.chars().all(plain) {
        return Err(format!(
            "a label's name has 1 to {LABEL_NAME_BYTES_MAX} letters, digits, `_` or `-`, not `{}`",
            brief(name)
        ));
    }
    Ok(())
}

/// Checks `header:Name`, `query:name` or `cookie:name`.
pub(super) fn check_label_source(source: &str) -> Result<(), String> {
    const FORMS: &str = "write header:Name, query:name or cookie:name";
    let Some((place, name)) = source.split_once(':') else {
        return Err(format!("`{}` names no source: {FORMS}", brief(source)));
    };
    // Field names and cookie names are tokens (RFC 9110 section 5.6.2, RFC 6265 section 4.1.1).
    let token = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
    let good = match place {
        "header" | "cookie" => token,
        "query" => !name.is_empty() && !name.chars().any(|c| c.is_control() || "&=#".contains(c)),
        _ => return Err(format!("`{}` is no source: {FORMS}", brief(place))),
    };
    if good { Ok(()) } else { Err(format!("`{}` is no name for a {place}", brief(name))) }
}

/// The word most like `text`, when one is like it at all.
pub(super) fn closest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > SUGGESTION_BYTES_MAX {
        return None;
    }
    words
        .map(|word| (strsim::jaro_winkler(text, word), word))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}

/// Text for a message: short and without control characters.
pub(super) fn brief(text: &str) -> String {
    let shown: String = text.chars().take(SUGGESTION_BYTES_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SUGGESTION_BYTES_MAX).is_some() { format!("{shown}…") } else { shown }
}

fn check_url(text: &str) -> Result<(), String> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https" | "wss", _)) => {
            return Err("TLS to the app is not supported: use http:// to an app beside the gateway".into());
        }
        Some(("ws", rest)) => return Err(format!("write http://{}", brief(rest))),
        Some((scheme, _)) => return Err(format!("`{}` is no scheme for an app: use http", brief(scheme))),
        None => return Err(format!("a scheme is missing: write http://{}", brief(text))),
    };
    if rest.contains(['?', '#']) {
        return Err("a query has no place here: each client's own request brings it".into());
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("user info has no place here: each client's own request is passed on".into());
    }
    if !path.is_empty() {
        return Err("a path has no place here: each client's own request brings it".into());
    }
    let authority: http::uri::Authority =
        authority.parse().map_err(|_| format!("`{}` is no host and port", brief(authority)))?;
    let port_good = match authority.as_str().rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => port.parse::<u16>().is_ok_and(|port| port > 0),
        Some(_) | None => true,
    };
    if authority.host().is_empty() || !port_good {
        return Err(format!("`{authority}` is no host and port"));
    }
    Ok(())
}

fn check_address(text: &str) -> Result<(), String> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let hint = match text.strip_prefix("localhost:").or(text.strip_prefix("*:")).or(text.strip_prefix(':')) {
        Some(port) if text.starts_with("localhost") => format!("127.0.0.1:{}", brief(port)),
        Some(port) => format!("0.0.0.0:{}", brief(port)),
        None => "127.0.0.1:7080 or [::1]:7080".into(),
    };
    Err(format!("`{}` is no address and port: write for example {hint}", brief(text)))
}

/// An Origin is compared as text (RFC 6454 section 6.2), so it must be written as browsers send it.
fn check_origin(text: &str) -> Result<(), String> {
    if text == "null" {
        return Ok(());
    }
    let Some((scheme, host)) = text.split_once("://") else {
        return Err(format!("`{}` is no origin: write for example https://app.example", brief(text)));
    };
    if scheme.is_empty() || host.is_empty() || host.contains(['/', '?', '#', '@', ' ', '*']) {
        return Err(format!("`{}` is no origin: scheme://host:port and nothing else", brief(text)));
    }
    if text.chars().any(char::is_uppercase) {
        return Err("browsers send origins in lower case".into());
    }
    Ok(())
}

fn check_host(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return Err(format!("`{}` is no host name: write for example gate.example", brief(text)));
    }
    Ok(())
}

fn check_filter(text: &str) -> Result<(), String> {
    required(text, "a filter is missing: write for example \"info\"")?;
    // tracing-subscriber 0.3.23 cuts some other text inside a character, and panics.
    if !text.is_ascii() {
        return Err("a filter is written in ASCII".into());
    }
    tracing_subscriber::EnvFilter::try_new(text).map(drop).map_err(|error| error.to_string())
}

fn required(text: &str, why: &str) -> Result<(), String> {
    if text.is_empty() { Err(why.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_app_is_a_scheme_a_host_and_a_port() {
        for good in ["http://127.0.0.1:3000", "http://app", "http://app:80/", "http://[::1]:3000"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        let bad = [
            ("http://app/path", "path"),
            ("http://app?x", "query"),
            ("http://app/#x", "query"),
            ("http://me:secret@app", "user info"),
            ("https://app", "TLS"),
            ("ws://app:1", "write http://app:1"),
            ("app:3000", "scheme is missing"),
            ("ftp://app", "no scheme"),
            ("http://", "no host"),
            ("http://:3000", "no host"),
            ("http://app:0", "no host and port"),
            ("http://app:99999", "no host and port"),
            ("http://a b", "no host"),
            ("", "scheme is missing"),
        ];
        for (url, why) in bad {
            let error = check_url(url).unwrap_err();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn control_addresses_read_back() {
        for text in ["127.0.0.1:7082", "[::1]:7082", "unix:/run/pulsegate.sock", "off"] {
            assert_eq!(text.parse::<ControlAddr>().unwrap().to_string(), text);
        }
        for bad in ["", "on", "unix:", "unix:relative", "localhost:1", &format!("unix:/{}", "x".repeat(107))]
        {
            assert!(bad.parse::<ControlAddr>().is_err(), "{bad}");
        }
        assert!("localhost:7082".parse::<ControlAddr>().unwrap_err().contains("127.0.0.1:7082"));
    }

    #[test]
    fn networks_have_no_bits_behind_the_prefix() {
        assert!(read_network("10.0.0.0/8").is_ok() && read_network("fd00::/8").is_ok());
        assert_eq!(read_network("127.0.0.1").unwrap().to_string(), "127.0.0.1/32");
        assert!(read_network("10.1.2.3/8").unwrap_err().contains("write 10.0.0.0/8"));
        assert!(read_network("10.0.0.0/33").is_err());
    }

    #[test]
    fn labels_come_from_named_places() {
        for good in ["header:X-User", "query:room", "cookie:sid"] {
            assert_eq!(check_label_source(good), Ok(()), "{good}");
        }
        for bad in ["X-User", "header:", "header:a b", "query:", "query:a=b", "body:x", "cookie:a;b", ":", ""]
        {
            assert!(check_label_source(bad).is_err(), "{bad}");
        }
        assert!(check_label_name("user-id_2").is_ok());
        assert!(check_label_name("").is_err() && check_label_name("a.b").is_err());
    }

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for good in ["https://app.example", "http://localhost:3000", "null", "capacitor://localhost"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in
            ["app.example", "https://app.example/", "https://App.example", "https://", "*", "https://*.a"]
        {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_are_those_of_tracing() {
        assert_eq!(check_filter("pulsegate=debug,hyper=warn"), Ok(()));
        assert!(
            check_filter("\u{b9}=").is_err() && check_filter("").is_err() && check_filter("a=b=c").is_err()
        );
    }

    #[test]
    fn the_closest_word_is_suggested_only_when_close() {
        let words = ["liveness.ping_interval", "liveness.profile"];
        assert_eq!(closest("liveness.ping_intervall", words.into_iter()), Some("liveness.ping_interval"));
        assert_eq!(closest("zzz", words.into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(?s).{0,200}") {
            for form in [URL, ADDRESS, CONTROL_ADDRESS, NETWORK, ORIGIN, HOST, PATH, FILTER] {
                let _ = (form.check)(&text);
            }
            let _ = (check_label_name(&text), check_label_source(&text), closest(&text, ["a"].into_iter()));
        }
    }
}
