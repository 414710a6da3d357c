//! What a client's and an app's heads may do to each other.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, StatusCode, Uri, Version, request, response};
use http_body_util::Empty;
use pulsegate::config::{Config, Limits};
use pulsegate::fuzz::{self, Outcome, Rules};
use pulsegate_core::ReservedBits;
use tungstenite::handshake::derive_accept_key;

use crate::wire;

const OPTION_BYTES: usize = 2;
const SESSION: &str = "01hzy5k3e8q0x7v9w2m4n6p8r1";
const ORIGIN: &str = "https://app.example";
const LABEL_BYTES_MAX: usize = 32;
const HEADERS_MAX: usize = 200;

/// What one hop says to the next, and no further (RFC 9110 section 7.6.1).
const ONE_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// What `Connection` may not take away, since the gateway's own checks rest on it.
const END_TO_END: [&str; 3] = ["host", "content-length", "origin"];

/// Passes a client's bytes through the gateway's handshake to an app, and the app's answer back; asserts:
/// - what is for one hop and inbound `Pulsegate-*` (also with `_`) reaches nobody, all else arrives unchanged;
/// - there is one Host, the client's; `X-Forwarded-*` and `Forwarded` of strangers are replaced, those of
///   trusted proxies end with the peer;
/// - what passes to the app is a head that would pass again, with the same WebSocket key;
/// - an app's 101 passes only with the accept key that belongs to that key, a subprotocol that was offered,
///   and reserved bits only for extensions that were offered;
/// - labels are bounded and hold no control character.
///
/// The input is a byte of flags (1 the peer is a trusted proxy, 2 a list of origins is set), a byte with the
/// most bytes of a read (0: no limit), what the client sends, a NUL, and what the app answers, where
/// `{accept}` stands for the right `Sec-WebSocket-Accept`.
pub fn handshake(input: &[u8]) {
    let Some((&[flags, read], heads)) = input.split_first_chunk::<OPTION_BYTES>() else { return };
    let end = heads.iter().position(|&byte| byte == 0).unwrap_or(heads.len());
    let (client, app) = heads.split_at(end);
    let app = app.get(1..).unwrap_or_default();
    let gate = Gate::new(flags, read);
    for head in wire::requests(&fuzz::server_builder(&gate.limits), client, gate.read) {
        gate.pass(&head, app);
    }
}

struct Gate {
    limits: Limits,
    rules: Rules,
    peer: SocketAddr,
    trusted: bool,
    read: usize,
}

/// A head as it went over the wire: names in lower case.
type Lines = Vec<(String, Vec<u8>)>;

impl Gate {
    fn new(flags: u8, read: u8) -> Gate {
        let trusted = flags & 1 != 0;
        let labels = [("user", "header:X-User"), ("room", "query:room"), ("sid", "cookie:sid")];
        Gate {
            limits: Config::default().limits,
            rules: Rules {
                trusted: vec!["10.0.0.0/8".parse().expect("a network")],
                origins: if flags & 2 == 0 { vec![] } else { vec![ORIGIN.into()] },
                labels: labels.map(|(name, source)| (name.into(), source.into())).into(),
                label_bytes_max: LABEL_BYTES_MAX,
            },
            peer: if trusted { "10.0.0.7:4711" } else { "192.0.2.7:4711" }.parse().expect("an address"),
            trusted,
            read: if read == 0 { usize::MAX } else { read.into() },
        }
    }

    fn pass(&self, head: &request::Parts, answer: &[u8]) {
        match fuzz::request(head, self.peer, &self.rules, SESSION) {
            Outcome::Refused(reason) => assert!(!reason.is_empty()),
            Outcome::Plain(headers) => self.pass_plain(head, headers),
            Outcome::Upgrade { request, client, labels } => {
                assert!(self.trusted || client == self.peer.ip(), "{client} is believed of a stranger");
                for (name, value) in &labels {
                    assert!(value.len() <= LABEL_BYTES_MAX, "label {name} is too long");
                    assert!(!value.contains(char::is_control), "label {name} holds a control character");
                }
                self.pass_upgrade(head, request, answer);
            }
        }
    }

    fn pass_plain(&self, head: &request::Parts, mut headers: HeaderMap) {
        // The body is passed on by hyper, and it has none here.
        headers.remove(CONTENT_LENGTH);
        let mut request = Request::new(Empty::new());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        *request.headers_mut() = headers;
        *request.extensions_mut() = head.extensions.clone();
        let (sent, _) = wire::exchange(&fuzz::client_builder(&self.limits), request, b"", self.read);
        let lines = lines(&sent);
        assert_eq!(values(&lines, "upgrade"), [b""; 0], "a plain request asks for an upgrade");
        for te in values(&lines, "te") {
            assert_eq!((te, values(&lines, "connection")), (&b"trailers"[..], vec![&b"TE"[..]]));
        }
        self.check_lines(head, &lines);
        let again = self.read_again(&sent);
        assert_eq!((&again.method, again.uri.path()), (&head.method, head.uri.path()));
    }

    fn pass_upgrade(&self, head: &request::Parts, request: Request<Empty<Bytes>>, answer: &[u8]) {
        let key = values_of(&head.headers, "sec-websocket-key");
        let [key] = key[..] else { panic!("{} keys pass", key.len()) };
        let accept = derive_accept_key(key);
        let answer = replaced(answer, b"{accept}", accept.as_bytes());
        let (sent, answer) = wire::exchange(&fuzz::client_builder(&self.limits), request, &answer, self.read);
        let lines = lines(&sent);
        assert_eq!(values(&lines, "connection"), [b"Upgrade"]);
        assert_eq!(values(&lines, "upgrade"), [b"websocket"]);
        assert_eq!(values(&lines, "content-length"), [b""; 0]);
        assert_eq!(values(&lines, "pulsegate-session"), [SESSION.as_bytes()]);
        assert_eq!(values(&lines, "pulsegate-mode"), [b"plain"]);
        assert_eq!(values(&lines, "sec-websocket-key"), [key]);
        self.check_lines(head, &lines);
        let again = self.read_again(&sent);
        assert_eq!(again.uri.path_and_query(), head.uri.path_and_query());
        match fuzz::request(&again, self.peer, &self.rules, SESSION) {
            Outcome::Upgrade { .. } => {}
            refused @ (Outcome::Refused(_) | Outcome::Plain(_)) => {
                panic!("what passed does not again: {refused:?}")
            }
        }
        if let Some(answer) = answer {
            check_answer(head, answer, &accept);
        }
    }

    /// Reads what was sent as the gateway reads a client; it must be one whole request.
    fn read_again(&self, sent: &[u8]) -> request::Parts {
        // What the gateway adds must fit, too.
        let limits = Limits {
            headers_max: self.limits.headers_max + HEADERS_MAX,
            header_bytes_max: self.limits.header_bytes_max * 4,
            ..self.limits.clone()
        };
        let mut again = wire::requests(&fuzz::server_builder(&limits), sent, usize::MAX);
        assert_eq!(again.len(), 1, "not one request: {}", sent.escape_ascii());
        again.remove(0)
    }

    /// Asserts what holds for every request that reaches an app.
    fn check_lines(&self, head: &request::Parts, lines: &Lines) {
        let host = values_of(&head.headers, "host");
        assert_eq!(values(lines, "host"), host);
        assert!(host.len() == 1 || head.version == Version::HTTP_10, "{} hosts pass", host.len());
        for name in ["keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding"] {
            assert_eq!(values(lines, name), [b""; 0], "{name} passes");
        }
        let named: Vec<String> = values_of(&head.headers, "connection")
            .iter()
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|token| String::from_utf8_lossy(token.trim_ascii()).to_ascii_lowercase())
            .filter(|name| !END_TO_END.contains(&name.as_str()) && !name.starts_with("sec-websocket-"))
            .collect();
        let one_hop = |name: &str| ONE_HOP.contains(&name) || name == "proxy-authorization";
        let passes =
            |name: &str| !one_hop(name) && !named.iter().any(|named| named == name) && !self.is_own(name);
        let given = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        let mut given: Lines = given.filter(|(name, _)| passes(name)).collect();
        let mut arrived: Lines =
            lines.iter().filter(|(name, _)| !one_hop(name) && !self.is_own(name)).cloned().collect();
        // Stable: the order of values of one name means something.
        given.sort_by(|(one, _), (other, _)| one.cmp(other));
        arrived.sort_by(|(one, _), (other, _)| one.cmp(other));
        assert_eq!(arrived, given);
        self.check_own(head, lines);
    }

    /// What the gateway says itself is compared apart from what it passes on.
    fn is_own(&self, name: &str) -> bool {
        let name = name.replace('_', "-");
        let exact = ["forwarded", "x-request-id", "traceparent", "tracestate", "content-length"];
        exact.contains(&&*name) || name.starts_with("x-forwarded-") || name.starts_with("pulsegate-")
    }

    fn check_own(&self, head: &request::Parts, lines: &Lines) {
        let peer = self.peer.ip().to_string();
        let ours = ["pulsegate-session", "pulsegate-mode"];
        for (name, _) in lines {
            let dashed = name.replace('_', "-");
            assert!(!dashed.starts_with("pulsegate-") || ours.contains(&name.as_str()), "{name} passes");
        }
        for name in ["x-request-id", "traceparent", "x-forwarded-for", "forwarded"] {
            assert_eq!(values(lines, name).len(), 1, "{name}");
        }
        let chain = text(values(lines, "x-forwarded-for")[0]);
        let last = chain.rsplit(',').next().unwrap_or_default().trim();
        assert_eq!(last.parse::<IpAddr>().ok(), Some(self.peer.ip()), "the chain ends with the peer");
        let forwarded = text(values(lines, "forwarded")[0]);
        let element = match values_of(&head.headers, "host")[..] {
            [host] if host.iter().all(u8::is_ascii_graphic) => {
                format!("for={peer};host=\"{}\";proto=http", text(host))
            }
            _ => format!("for={peer};proto=http"),
        };
        assert!(forwarded.ends_with(&element), "{forwarded} does not end with {element}");
        if self.trusted {
            return;
        }
        assert_eq!((chain, forwarded), (peer, element), "a stranger's word passes");
        let known = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        for (name, value) in
            lines.iter().filter(|(name, _)| name.replace('_', "-").starts_with("x-forwarded-"))
        {
            assert!(known.contains(&name.as_str()), "{name} passes");
            assert!(name != "x-forwarded-proto" || value == b"http");
            assert!(name != "x-forwarded-host" || [&value[..]] == values_of(&head.headers, "host")[..]);
        }
    }
}

/// Asserts what holds for every answer of an app.
fn check_answer(head: &request::Parts, answer: response::Parts, accept: &str) {
    if answer.status != StatusCode::SWITCHING_PROTOCOLS {
        let mut headers = answer.headers;
        fuzz::strip_response(&mut headers, answer.status);
        let upgrade_required = answer.status == StatusCode::UPGRADE_REQUIRED;
        for name in ONE_HOP.into_iter().chain(["proxy-authenticate"]) {
            let answers = upgrade_required && ["connection", "upgrade"].contains(&name);
            assert!(answers || !headers.contains_key(name), "{name} passes to the client");
        }
        return;
    }
    let Ok((subprotocol, reserved)) = fuzz::check_answer(&head.headers, &answer.headers) else { return };
    assert_eq!(values_of(&answer.headers, "sec-websocket-accept"), [accept.as_bytes()]);
    let said = |headers: &HeaderMap, name: &str| text(&values_of(headers, name).join(&b','));
    match &subprotocol {
        Some(chosen) => {
            let offered = said(&head.headers, "sec-websocket-protocol");
            assert!(offered.split(',').any(|offer| offer.trim() == &**chosen), "{chosen} was not offered");
        }
        None => assert!(!answer.headers.contains_key("sec-websocket-protocol")),
    }
    let offered = said(&head.headers, "sec-websocket-extensions").to_ascii_lowercase();
    let chosen = said(&answer.headers, "sec-websocket-extensions").to_ascii_lowercase();
    match reserved {
        ReservedBits::None => assert!(!chosen.contains("permessage-deflate") || chosen.contains('"')),
        ReservedBits::Deflate => assert!(offered.contains("permessage-deflate")),
        ReservedBits::Any => assert!(!offered.trim().is_empty()),
    }
}

/// Reads the header lines of a request that hyper wrote.
fn lines(sent: &[u8]) -> Lines {
    let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(sent);
    assert!(
        matches!(parsed, Ok(httparse::Status::Complete(len)) if len == sent.len()),
        "{parsed:?} of what was sent: {}",
        sent.escape_ascii()
    );
    request.headers.iter().map(|line| (line.name.to_ascii_lowercase(), line.value.to_vec())).collect()
}

fn values<'a>(lines: &'a Lines, name: &str) -> Vec<&'a [u8]> {
    lines.iter().filter(|(known, _)| known == name).map(|(_, value)| &value[..]).collect()
}

fn values_of<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces the first `what` in `bytes`.
fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    match bytes.windows(what.len()).position(|window| window == what) {
        Some(at) => [&bytes[..at], with, &bytes[at + what.len()..]].concat(),
        None => bytes.to_vec(),
    }
}
