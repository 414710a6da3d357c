//! Headers that mean one hop only (RFC 9110 section 7.6.1), and those that only the gateway may say.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::handshake::{has_token, tokens};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Turns a client's headers into those of the request to the app: without what was meant for the gateway,
/// and without what a client can't know. The caller adds `Connection` for an upgrade.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let wants_trailers = has_token(headers, &TE, "trailers");
    strip_hop_by_hop(headers);
    headers.remove(PROXY_AUTHORIZATION);
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("TE"));
    }
    remove_where(headers, |name| has_prefix(name, "pulsegate-"));
}

/// Turns an app's headers into those of the answer to the client.
pub(crate) fn strip_response(headers: &mut HeaderMap, status: StatusCode) {
    // With 426 the Upgrade is the answer itself (RFC 9110 section 15.5.22).
    let upgrade = if status == StatusCode::UPGRADE_REQUIRED { headers.get(UPGRADE).cloned() } else { None };
    strip_hop_by_hop(headers);
    headers.remove(PROXY_AUTHENTICATE);
    if let Some(upgrade) = upgrade {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// Tells whether a header's name begins with a lower-case prefix, where `_` counts as `-`: CGI-like apps
/// (WSGI, PHP) can't tell the two apart, so neither may a filter.
pub(crate) fn has_prefix(name: &HeaderName, prefix: &str) -> bool {
    let name = name.as_str().as_bytes();
    name.len() >= prefix.len()
        && name
            .iter()
            .zip(prefix.bytes())
            .all(|(&byte, wanted)| if byte == b'_' { wanted == b'-' } else { byte == wanted })
}

/// Removes all headers whose name fits.
pub(crate) fn remove_where(headers: &mut HeaderMap, fits: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| fits(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        tokens(headers, &CONNECTION).filter_map(|token| token.to_ascii_lowercase().parse().ok()).collect();
    for name in named {
        if !is_end_to_end(&name) {
            headers.remove(name);
        }
    }
    for name in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// RFC 9110 section 7.6.1 forbids naming end-to-end fields in `Connection`. Without these a request would be
/// another one for the app than it was for the gateway.
fn is_end_to_end(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, ORIGIN].contains(name) || name.as_str().starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::front::tests::header_map as map;

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_meant_for_one_hop_stays_there() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "close, X-Mine , host"),
            ("connection", "Sec-WebSocket-Key"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("sec-websocket-key", "k"),
            ("cookie", "c"),
            ("authorization", "Bearer t"),
        ]);
        strip_request(&mut headers);
        assert_eq!(
            names(&headers),
            ["authorization", "cookie", "host", "sec-websocket-key", "trailer", "x-other"]
        );
    }

    #[test]
    fn a_token_that_is_no_text_hides_no_other() {
        let mut headers = map(&[("x-mine", "1"), ("x-other", "1")]);
        headers.insert(CONNECTION, HeaderValue::from_bytes(b"\xff, x-mine").unwrap());
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["x-other"]);
    }

    #[test]
    fn trailers_are_the_only_te_that_passes() {
        let mut headers = map(&[("te", "gzip;q=0.5, trailers"), ("connection", "te")]);
        strip_request(&mut headers);
        assert_eq!(
            (headers[TE].to_str().unwrap(), headers[CONNECTION].to_str().unwrap()),
            ("trailers", "TE")
        );
    }

    #[test]
    fn only_the_gateway_speaks_as_the_gateway() {
        let mut headers = map(&[
            ("pulsegate-session", "x"),
            ("pulsegate_mode", "v1"),
            ("pulse-gate", "1"),
            ("pulsegat", "1"),
        ]);
        strip_request(&mut headers);
        assert_eq!(names(&headers), ["pulse-gate", "pulsegat"]);
    }

    #[test]
    fn a_426_keeps_its_upgrade() {
        let lines = [("upgrade", "websocket"), ("connection", "upgrade, close")];
        let mut headers = map(&lines);
        strip_response(&mut headers, StatusCode::UPGRADE_REQUIRED);
        assert_eq!(
            (headers[UPGRADE].to_str().unwrap(), headers[CONNECTION].to_str().unwrap()),
            ("websocket", "Upgrade")
        );
        let mut headers = map(&lines);
        strip_response(&mut headers, StatusCode::OK);
        assert!(headers.is_empty());
    }
}
