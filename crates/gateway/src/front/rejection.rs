//! Why a request was refused: a closed set, so that metrics have a known number of series.

use http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderValue, StatusCode};

use crate::problem::Problem;

/// When a client that ran into a cap may try again, in seconds.
const RETRY_AFTER_SECONDS: u32 = 5;

/// Why the front refused a request or a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rejection {
    /// The head is no HTTP/1 request (RFC 9112).
    MalformedHead,
    /// The head has more bytes or fields than the limits allow.
    HeadTooLarge,
    /// The head did not arrive in time.
    HeadTimeout,
    /// All places for connections are taken.
    ConnectionsMax,
    /// All places for sessions are taken.
    SessionsMax,
    /// All places for sessions of this address are taken.
    AddressMax,
    /// The gateway is shutting down.
    Draining,
    /// CONNECT: the gateway is no forward proxy.
    Connect,
    /// The target is no path, as a client of a forward proxy would send it (RFC 9112 section 3.2.2).
    Target,
    /// No `Host`, several, or one that names no host (RFC 9112 section 3.2).
    Host,
    /// A transfer coding other than chunked.
    TransferCoding,
    /// The body of a plain request broke its framing, or ended before its end (RFC 9112 section 8).
    MalformedBody,
    /// The body of a plain request stopped coming.
    BodyTimeout,
    /// An upgrade request that is not GET (RFC 6455 section 4.1).
    Method,
    /// An upgrade request below HTTP/1.1.
    HttpVersion,
    /// An upgrade request whose `Connection` does not name `Upgrade`.
    Connection,
    /// No `Sec-WebSocket-Key`, several, or one that is not 16 bytes of base64.
    Key,
    /// `Sec-WebSocket-Version` is not 13.
    WebSocketVersion,
    /// An upgrade request that announces a body.
    Body,
    /// The `Origin` is not on the list.
    Origin,
    /// The app could not be reached.
    AppUnreachable,
    /// The app did not answer in time.
    AppTimeout,
    /// The app's answer was no valid handshake (RFC 6455 section 4.1).
    AppInvalid,
    /// The app said no; its answer was passed on.
    AppRefused,
    /// The client left before the handshake was done.
    ClientGone,
}

impl Rejection {
    /// All reasons, for resolving metrics once.
    pub(crate) const ALL: [Rejection; 25] = [
        Rejection::MalformedHead,
        Rejection::HeadTooLarge,
        Rejection::HeadTimeout,
        Rejection::ConnectionsMax,
        Rejection::SessionsMax,
        Rejection::AddressMax,
        Rejection::Draining,
        Rejection::Connect,
        Rejection::Target,
        Rejection::Host,
        Rejection::TransferCoding,
        Rejection::MalformedBody,
        Rejection::BodyTimeout,
        Rejection::Method,
        Rejection::HttpVersion,
        Rejection::Connection,
        Rejection::Key,
        Rejection::WebSocketVersion,
        Rejection::Body,
        Rejection::Origin,
        Rejection::AppUnreachable,
        Rejection::AppTimeout,
        Rejection::AppInvalid,
        Rejection::AppRefused,
        Rejection::ClientGone,
    ];

    /// Returns the label value used in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Rejection::MalformedHead => "malformed_head",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::HeadTimeout => "head_timeout",
            Rejection::ConnectionsMax => "connections_max",
            Rejection::SessionsMax => "sessions_max",
            Rejection::AddressMax => "address_max",
            Rejection::Draining => "draining",
            Rejection::Connect => "connect",
            Rejection::Target => "target",
            Rejection::Host => "host",
            Rejection::TransferCoding => "transfer_coding",
            Rejection::MalformedBody => "malformed_body",
            Rejection::BodyTimeout => "body_timeout",
            Rejection::Method => "method",
            Rejection::HttpVersion => "http_version",
            Rejection::Connection => "connection",
            Rejection::Key => "key",
            Rejection::WebSocketVersion => "websocket_version",
            Rejection::Body => "body",
            Rejection::Origin => "origin",
            Rejection::AppUnreachable => "app_unreachable",
            Rejection::AppTimeout => "app_timeout",
            Rejection::AppInvalid => "app_invalid",
            Rejection::AppRefused => "app_refused",
            Rejection::ClientGone => "client_gone",
        }
    }

    /// Builds what the client gets to read.
    pub(crate) fn problem(self) -> Problem {
        let problem = Problem::new(self.status(), &self.as_str().replace('_', "-"), self.title());
        match self {
            Rejection::ConnectionsMax
            | Rejection::SessionsMax
            | Rejection::AddressMax
            | Rejection::Draining => problem.retry_after(RETRY_AFTER_SECONDS),
            // RFC 6455 section 4.4 wants the version, RFC 9110 section 15.5.22 the protocol.
            Rejection::WebSocketVersion => problem
                .header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
                .header(UPGRADE, HeaderValue::from_static("websocket"))
                .header(CONNECTION, HeaderValue::from_static("Upgrade")),
            Rejection::MalformedHead
            | Rejection::HeadTooLarge
            | Rejection::HeadTimeout
            | Rejection::Connect
            | Rejection::Target
            | Rejection::Host
            | Rejection::TransferCoding
            | Rejection::MalformedBody
            | Rejection::BodyTimeout
            | Rejection::Method
            | Rejection::HttpVersion
            | Rejection::Connection
            | Rejection::Key
            | Rejection::Body
            | Rejection::Origin
            | Rejection::AppUnreachable
            | Rejection::AppTimeout
            | Rejection::AppInvalid
            | Rejection::AppRefused
            | Rejection::ClientGone => problem,
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Rejection::MalformedHead
            | Rejection::Connect
            | Rejection::Target
            | Rejection::Host
            | Rejection::MalformedBody
            | Rejection::Method
            | Rejection::HttpVersion
            | Rejection::Connection
            | Rejection::Key
            | Rejection::Body
            | Rejection::ClientGone => StatusCode::BAD_REQUEST,
            Rejection::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::HeadTimeout | Rejection::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::ConnectionsMax
            | Rejection::SessionsMax
            | Rejection::AddressMax
            | Rejection::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Rejection::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Rejection::Origin => StatusCode::FORBIDDEN,
            Rejection::AppUnreachable | Rejection::AppInvalid | Rejection::AppRefused => {
                StatusCode::BAD_GATEWAY
            }
            Rejection::AppTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Rejection::MalformedHead => "The request is no valid HTTP/1.1",
            Rejection::HeadTooLarge => "The head of the request is too large",
            Rejection::HeadTimeout => "The head of the request came too slowly",
            Rejection::ConnectionsMax => "All places for connections are taken",
            Rejection::SessionsMax => "All places for sessions are taken",
            Rejection::AddressMax => "All places for sessions of this address are taken",
            Rejection::Draining => "The gateway is shutting down",
            Rejection::Connect => "CONNECT is not served here",
            Rejection::Target => "The request target must be a path",
            Rejection::Host => "The request must have exactly one valid Host",
            Rejection::MalformedBody => "The body of the request is no valid HTTP/1.1",
            Rejection::BodyTimeout => "The body of the request stopped coming",
            Rejection::TransferCoding => "The only transfer coding understood is chunked",
            Rejection::Method => "A WebSocket handshake must be a GET request",
            Rejection::HttpVersion => "A WebSocket handshake must be HTTP/1.1",
            Rejection::Connection => "Upgrade: websocket needs Connection: Upgrade",
            Rejection::Key => {
                "A WebSocket handshake must have exactly one Sec-WebSocket-Key of 16 bytes in base64"
            }
            Rejection::WebSocketVersion => "The only WebSocket version understood is 13",
            Rejection::Body => "A WebSocket handshake must not have a body",
            Rejection::Origin => "This origin may not open a WebSocket here",
            Rejection::AppUnreachable => "The app behind the gateway can't be reached",
            Rejection::AppTimeout => "The app behind the gateway did not answer in time",
            Rejection::AppInvalid => "The app behind the gateway gave an invalid answer",
            Rejection::AppRefused => "The app behind the gateway refused",
            Rejection::ClientGone => "The client left",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: HashSet<&str> = Rejection::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Rejection::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
    }

    #[test]
    fn caps_say_when_to_come_back_and_versions_say_which() {
        let full = Rejection::SessionsMax.problem().into_response();
        assert_eq!((full.status().as_u16(), full.headers()["retry-after"].to_str().unwrap()), (503, "5"));
        let old = Rejection::WebSocketVersion.problem().into_response();
        assert_eq!(old.status(), 426);
        assert_eq!(old.headers()["sec-websocket-version"], "13");
    }
}
