//! What a client's upgrade request must look like (RFC 6455 section 4.2.1), as pure checks.

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, request};

use super::rejection::Rejection;

/// RFC 6455 section 4.1 wants a nonce of 16 bytes; bits that fill up its last character don't matter.
const KEY_BYTES: usize = 16;
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Tells whether a request asks for a WebSocket, well formed or not.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Checks what holds for every request, upgrade or not.
///
/// # Errors
/// The first rule that the request breaks.
pub(crate) fn check_request(head: &request::Parts) -> Result<(), Rejection> {
    if head.method == Method::CONNECT {
        return Err(Rejection::Connect);
    }
    if !is_origin_form(&head.uri, &head.method) {
        return Err(Rejection::Target);
    }
    check_host(&head.headers, head.version)?;
    check_transfer_coding(&head.headers)
}

/// Checks what holds for an upgrade request besides [`check_request`].
///
/// # Errors
/// The first rule that the request breaks.
pub(crate) fn check_upgrade(head: &request::Parts, origins_allowed: &[String]) -> Result<(), Rejection> {
    if head.method != Method::GET {
        return Err(Rejection::Method);
    }
    if head.version != Version::HTTP_11 {
        return Err(Rejection::HttpVersion);
    }
    if !has_token(&head.headers, &CONNECTION, "upgrade") {
        return Err(Rejection::Connection);
    }
    if has_body(&head.headers) {
        return Err(Rejection::Body);
    }
    if only(&head.headers, &SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Rejection::WebSocketVersion);
    }
    if !only(&head.headers, &SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Rejection::Key);
    }
    check_origin(&head.headers, origins_allowed)
}

/// Returns the value of a header that must be there exactly once.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Walks the comma-separated tokens of all headers of one name; one that is not UTF-8 is left out, and hides
/// none of those beside it.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|token| str::from_utf8(token).ok())
        .map(|token| token.trim_matches([' ', '\t']))
        .filter(|token| !token.is_empty())
}

/// Tells whether a token is among the headers of one name, in any case of letters.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn is_origin_form(uri: &Uri, method: &Method) -> bool {
    let bare = uri.scheme().is_none() && uri.authority().is_none();
    bare && (uri.path().starts_with('/') || (method == Method::OPTIONS && uri.path() == "*"))
}

/// Old probes speak HTTP/1.0 without a Host, which is legal there (RFC 9112 section 3.2).
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Rejection> {
    if version == Version::HTTP_10 && !headers.contains_key(HOST) {
        return Ok(());
    }
    let host = only(headers, &HOST).ok_or(Rejection::Host)?;
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| Rejection::Host)?;
    // User info is no part of a Host (RFC 9110 section 7.2).
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(Rejection::Host);
    }
    Ok(())
}

/// hyper undoes chunked; another coding would reach the app without its name, as garbage.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Rejection> {
    if !headers.contains_key(TRANSFER_ENCODING) || is_chunked_only(headers) {
        return Ok(());
    }
    Err(Rejection::TransferCoding)
}

/// Tells whether the transfer coding is chunked and nothing else.
pub(crate) fn is_chunked_only(headers: &HeaderMap) -> bool {
    only(headers, &TRANSFER_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0")
}

fn is_key(key: &HeaderValue) -> bool {
    KEY_BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == KEY_BYTES)
}

/// An empty list leaves the decision to the app. A client without an Origin is no browser (RFC 6455
/// section 4.1), so a page can't hide its own; but a list that it is not on means no.
fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), Rejection> {
    if allowed.is_empty() {
        return Ok(());
    }
    let origin = only(headers, &ORIGIN).and_then(|origin| origin.to_str().ok()).ok_or(Rejection::Origin)?;
    // Scheme and host are case-insensitive, and an origin has nothing else (RFC 6454 section 6.1).
    if allowed.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
        Ok(())
    } else {
        Err(Rejection::Origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("host", "example.com:8080"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("origin", "https://app.example"),
    ];

    fn head(line: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut words = line.split(' ');
        let mut request = http::Request::builder().method(words.next().unwrap()).uri(words.next().unwrap());
        if words.next() == Some("HTTP/1.0") {
            request = request.version(Version::HTTP_10);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn check(line: &str, headers: &[(&str, &str)]) -> Result<(), Rejection> {
        let head = head(line, headers);
        check_request(&head)?;
        check_upgrade(&head, &[])
    }

    /// The good request without `drop`, with `add`.
    fn changed<'a>(drop: &str, add: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        GOOD.iter().filter(|(name, _)| *name != drop).chain(add).copied().collect()
    }

    #[test]
    fn a_request_that_keeps_the_rules_passes() {
        assert!(is_upgrade(&head("GET /", GOOD).headers));
        assert_eq!(check("GET /chat?room=1", GOOD), Ok(()));
        assert_eq!(check("GET /", &changed("", &[("content-length", "0")])), Ok(()));
        assert_eq!(check("GET /", &changed("host", &[("host", "[::1]:80")])), Ok(()));
        assert_eq!(
            check("GET /", &changed("connection", &[("connection", "foo"), ("connection", "UPGRADE")])),
            Ok(())
        );
    }

    #[test]
    fn each_broken_rule_has_its_reason() {
        let key = "sec-websocket-key";
        let version = "sec-websocket-version";
        type Lines<'a> = Vec<(&'a str, &'a str)>;
        let cases: &[(&str, Lines<'_>, Rejection)] = &[
            ("POST /", GOOD.to_vec(), Rejection::Method),
            ("CONNECT example.com:80", GOOD.to_vec(), Rejection::Connect),
            ("GET / HTTP/1.0", GOOD.to_vec(), Rejection::HttpVersion),
            ("GET http://example.com/", GOOD.to_vec(), Rejection::Target),
            ("GET example.com", GOOD.to_vec(), Rejection::Target),
            ("GET *", GOOD.to_vec(), Rejection::Target),
            ("GET /", changed("host", &[]), Rejection::Host),
            ("GET /", changed("", &[("host", "other.example")]), Rejection::Host),
            ("GET /", changed("host", &[("host", "")]), Rejection::Host),
            ("GET /", changed("host", &[("host", "user@example.com")]), Rejection::Host),
            ("GET /", changed("host", &[("host", "a.example, b.example")]), Rejection::Host),
            ("GET /", changed("connection", &[("connection", "keep-alive")]), Rejection::Connection),
            ("GET /", changed("connection", &[]), Rejection::Connection),
            ("GET /", changed(key, &[]), Rejection::Key),
            ("GET /", changed("", &[(key, "dGhlIHNhbXBsZSBub25jZQ==")]), Rejection::Key),
            ("GET /", changed(key, &[(key, "dGhlIHNhbXBsZSBub25jZQ")]), Rejection::Key),
            ("GET /", changed(key, &[(key, "dG9vIHNob3J0")]), Rejection::Key),
            ("GET /", changed(key, &[(key, "****************")]), Rejection::Key),
            ("GET /", changed(key, &[(key, "dGhlIHNhbXBsZSBub25jZSB0b28=")]), Rejection::Key),
            ("GET /", changed(version, &[]), Rejection::WebSocketVersion),
            ("GET /", changed(version, &[(version, "8")]), Rejection::WebSocketVersion),
            ("GET /", changed("", &[(version, "13")]), Rejection::WebSocketVersion),
            ("GET /", changed("", &[("content-length", "1")]), Rejection::Body),
            ("GET /", changed("", &[("transfer-encoding", "chunked")]), Rejection::Body),
            ("GET /", changed("", &[("transfer-encoding", "gzip, chunked")]), Rejection::TransferCoding),
        ];
        for (line, headers, reason) in cases {
            assert_eq!(check(line, headers), Err(*reason), "{line} {headers:?}");
        }
    }

    #[test]
    fn a_list_of_origins_is_a_list_of_all() {
        let allowed = ["https://app.example".to_string()];
        let with =
            |origin: &[(&str, &str)]| check_upgrade(&head("GET /", &changed("origin", origin)), &allowed);
        assert_eq!(with(&[("origin", "https://app.example")]), Ok(()));
        assert_eq!(with(&[("origin", "HTTPS://App.Example")]), Ok(()));
        assert_eq!(with(&[("origin", "https://app.example.evil")]), Err(Rejection::Origin));
        assert_eq!(with(&[("origin", "null")]), Err(Rejection::Origin));
        assert_eq!(with(&[]), Err(Rejection::Origin));
        let twice = [("origin", "https://app.example"), ("origin", "https://app.example")];
        assert_eq!(with(&twice), Err(Rejection::Origin));
    }

    #[test]
    fn plain_requests_may_be_old_or_without_a_path() {
        assert_eq!(check_request(&head("GET / HTTP/1.0", &[])), Ok(()));
        assert_eq!(check_request(&head("OPTIONS *", &[("host", "a")])), Ok(()));
        assert_eq!(check_request(&head("GET /", &[])), Err(Rejection::Host));
        assert_eq!(
            check_request(&head("POST /", &[("host", "a"), ("transfer-encoding", "chunked")])),
            Ok(())
        );
    }
}
