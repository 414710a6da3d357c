//! Who may use the control API: the checks that come before any answer.
//!
//! A page anywhere on the web can make its visitor's browser send requests to this machine, and can point
//! a name of its own at 127.0.0.1 (DNS rebinding). So the `Host` of a request must be a loopback name or
//! listed, a browser's `Origin` must be listed or be this very host, and with a token configured nobody
//! gets in without it.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::secret::Secret;
use crate::config::Control;
use crate::problem::Problem;

/// Tells where a browser's request comes from, on requests without `Origin` too (images, scripts).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The rules of one control API.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    pub(super) fn new(config: &Control, token: Option<Secret>) -> Guard {
        Guard { token, hosts: config.hosts.clone(), origins: config.origins.clone() }
    }

    /// Checks `Host` and `Origin`; returns the origin that the answer is to be shared with, if it is one of
    /// the listed ones.
    pub(super) fn check_source(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Problem> {
        let host = self.check_host(uri, headers)?;
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return check_fetch_site(headers).map(|()| None),
            (Some(origin), None) => origin,
            (Some(_), Some(_)) => return Err(origin_problem("more than one Origin")),
        };
        if self.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()) {
            return Ok(Some(origin.clone()));
        }
        if origin.to_str().is_ok_and(|origin| is_same_origin(origin, &host)) {
            return Ok(None);
        }
        Err(origin_problem(&format!("pages of {origin:?} are not listed in control.origins")))
    }

    /// Checks the bearer token (RFC 6750 section 2.1), if there is one to check.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let mut given = headers.get_all(AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (Some(value), None) if bearer(value).is_some_and(|given| token.matches(given)) => Ok(()),
            (Some(_), _) => Err(token_problem("the token is not the right one", "error=\"invalid_token\"")),
            (None, _) => Err(token_problem("send Authorization: Bearer and the token", "")),
        }
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(host_problem("exactly one Host is needed"));
        };
        let host = Authority::try_from(host.as_bytes())
            .map_err(|_| host_problem(&format!("{host:?} is no host and port")))?;
        // An absolute target goes before Host (RFC 9112 section 3.2.2); nobody honest sends two that differ.
        if uri.authority().is_some_and(|target| *target != host) {
            return Err(host_problem("the request's target names another host"));
        }
        let listed = |listed: &String| {
            listed.eq_ignore_ascii_case(host.host()) || listed.eq_ignore_ascii_case(host.as_str())
        };
        if host.as_str().contains('@') || !(is_loopback(host.host()) || self.hosts.iter().any(listed)) {
            return Err(host_problem(&format!("{host} is not listed in control.hosts")));
        }
        Ok(host)
    }
}

/// Without an Origin, a browser still tells when another site's page asks; following a link is fine.
fn check_fetch_site(headers: &HeaderMap) -> Result<(), Problem> {
    let is = |name, value: &str| headers.get(name).is_some_and(|found| found.as_bytes() == value.as_bytes());
    let foreign = is(SEC_FETCH_SITE, "cross-site") || is(SEC_FETCH_SITE, "same-site");
    if foreign && !is(SEC_FETCH_MODE, "navigate") {
        return Err(origin_problem("another site's page asks"));
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || inside.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()))
}

fn is_same_origin(origin: &str, host: &Authority) -> bool {
    let (authority, port_default) = match origin.split_once("://") {
        Some(("http", authority)) => (authority, 80),
        // A proxy that speaks TLS may stand in front.
        Some(("https", authority)) => (authority, 443),
        Some(_) | None => return false,
    };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(port_default);
    authority.host().eq_ignore_ascii_case(host.host()) && port(&authority) == port(host)
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn host_problem(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "host-not-allowed", "This host is not allowed").detail(detail)
}

fn origin_problem(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "origin-not-allowed", "This origin is not allowed").detail(detail)
}

fn token_problem(detail: &str, error: &str) -> Problem {
    let challenge = if error.is_empty() {
        "Bearer realm=\"pulsegate\"".to_owned()
    } else {
        format!("Bearer realm=\"pulsegate\", {error}")
    };
    Problem::new(StatusCode::UNAUTHORIZED, "token-required", "A token is needed")
        .detail(detail)
        .header(WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).expect("visible ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            token: None,
            hosts: vec!["gate.example".into(), "other.example:8443".into()],
            origins: vec!["https://board.example".into()],
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn source(pairs: &[(&'static str, &str)]) -> Result<Option<HeaderValue>, Problem> {
        guard().check_source(&Uri::from_static("/v1/stats"), &headers(pairs))
    }

    #[test]
    fn hosts_are_loopback_or_listed() {
        for host in [
            "localhost",
            "LocalHost:7082",
            "127.0.0.1:7082",
            "127.9.9.9",
            "[::1]:7082",
            "gate.example",
            "Gate.Example:1234",
            "other.example:8443",
        ] {
            assert!(source(&[("host", host)]).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "128.0.0.1",
            "10.0.0.1:7082",
            "[::2]",
            "user@localhost",
            "other.example",
            "other.example:1",
            "",
            "a b",
        ] {
            assert!(source(&[("host", host)]).is_err(), "{host}");
        }
        assert!(source(&[]).is_err());
        assert!(source(&[("host", "localhost"), ("host", "localhost")]).is_err());
        let absolute = Uri::from_static("http://evil.example/v1/stats");
        assert!(guard().check_source(&absolute, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn origins_are_listed_or_the_same() {
        let shared = source(&[("host", "localhost:1"), ("origin", "https://board.example")]).unwrap();
        assert_eq!(shared.unwrap(), "https://board.example");
        for (host, origin) in [
            ("localhost:7082", "http://localhost:7082"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("gate.example", "https://gate.example"),
            ("gate.example:443", "https://gate.example"),
        ] {
            assert!(matches!(source(&[("host", host), ("origin", origin)]), Ok(None)), "{origin}");
        }
        for (host, origin) in [
            ("localhost:7082", "http://localhost:3000"),
            ("localhost:7082", "http://127.0.0.1:7082"),
            ("localhost:7082", "http://evil.example"),
            ("localhost:7082", "https://board.example.evil"),
            ("localhost:7082", "http://board.example"),
            ("localhost:7082", "null"),
            ("localhost:7082", ""),
            ("localhost", "ftp://localhost"),
            ("gate.example", "http://gate.example:443"),
        ] {
            assert!(source(&[("host", host), ("origin", origin)]).is_err(), "{host} {origin}");
        }
        let twice = [("host", "localhost"), ("origin", "http://localhost"), ("origin", "http://localhost")];
        assert!(source(&twice).is_err());
    }

    #[test]
    fn pictures_and_scripts_of_other_sites_are_refused_and_links_are_not() {
        let from = |site, mode| {
            source(&[("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)]).is_ok()
        };
        assert!(!from("cross-site", "no-cors") && !from("same-site", "no-cors"));
        assert!(from("cross-site", "navigate") && from("same-origin", "cors") && from("none", "no-cors"));
    }

    #[test]
    fn a_token_is_asked_for_when_there_is_one() {
        assert!(guard().check_token(&headers(&[])).is_ok());
        let dir = crate::control::tests::TempDir::new();
        std::fs::write(dir.path("token"), "0123456789abcdef").unwrap();
        let guard = Guard { token: Some(Secret::read(&dir.path("token")).unwrap()), ..guard() };
        let check = |value| guard.check_token(&headers(&[("authorization", value)]));
        assert!(check("Bearer 0123456789abcdef").is_ok() && check("bearer  0123456789abcdef").is_ok());
        for wrong in
            ["Bearer 0123456789abcdeX", "Bearer", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef"]
        {
            let answer = check(wrong).unwrap_err().into_response();
            assert_eq!(answer.status(), 401, "{wrong}");
            let challenge = "Bearer realm=\"pulsegate\", error=\"invalid_token\"";
            assert_eq!(answer.headers()[WWW_AUTHENTICATE], challenge);
        }
        let answer = guard.check_token(&headers(&[])).unwrap_err().into_response();
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer realm=\"pulsegate\"");
    }
}
