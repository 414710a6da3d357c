//! The way to the app: its address, the dial, and the exchange of one upgrade request for an answer.

use std::io;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::sockets;
use crate::config::Limits;
use crate::http_serve::buffer_bytes_max;
use crate::shared::Shared;

/// Where the app listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    authority: Authority,
    host: Box<str>,
    port: u16,
}

/// Why the app could not be reached, or gave no answer to a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum DialFailure {
    /// Nobody listens at its address.
    #[error("connection refused")]
    Refused,
    /// The TCP connect took too long.
    #[error("the connect timed out")]
    Timeout,
    /// No route, or no such name.
    #[error("unreachable")]
    Unreachable,
    /// The app cut the connection.
    #[error("the app cut the connection")]
    Reset,
    /// The answer was no valid HTTP or no valid handshake.
    #[error("the app's answer is invalid")]
    InvalidResponse,
    /// Connected, but no answer to the upgrade request in time.
    #[error("no answer to the handshake in time")]
    HandshakeTimeout,
    /// We have no descriptor, memory or local port left.
    #[error("no more sockets")]
    Shortage,
    /// Anything else.
    #[error("can't connect")]
    Other,
}

impl DialFailure {
    /// All reasons, for resolving metrics once.
    pub(crate) const ALL: [DialFailure; 8] = [
        DialFailure::Refused,
        DialFailure::Timeout,
        DialFailure::Unreachable,
        DialFailure::Reset,
        DialFailure::InvalidResponse,
        DialFailure::HandshakeTimeout,
        DialFailure::Shortage,
        DialFailure::Other,
    ];

    /// Returns the label value used in metrics and logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            DialFailure::Refused => "refused",
            DialFailure::Timeout => "timeout",
            DialFailure::Unreachable => "unreachable",
            DialFailure::Reset => "reset",
            DialFailure::InvalidResponse => "invalid_response",
            DialFailure::HandshakeTimeout => "handshake_timeout",
            DialFailure::Shortage => "shortage",
            DialFailure::Other => "other",
        }
    }
}

impl Target {
    /// Reads `http://host:port`; without a port it is 80.
    pub(crate) fn parse(url: &str) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        let authority = uri.authority()?.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').into();
        let port = authority.port_u16().unwrap_or(80);
        Some(Target { authority, host, port })
    }

    /// Returns the address of a path at the app, in the form that hyper's pooling client takes.
    pub(crate) fn uri_of(&self, path: Option<PathAndQuery>) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        Uri::from_parts(parts).expect("all three parts are there")
    }

    /// Opens a TCP connection without limit of time, and without counting it.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        sockets::watch_app(&stream)?;
        Ok(stream)
    }
}

/// Opens a counted TCP connection to the app within `upstream.connect_timeout`.
///
/// # Cancel safety
/// Dropping the future drops the connection.
pub(crate) async fn dial(shared: &Shared, target: &Target) -> Result<TcpStream, DialFailure> {
    let started = Instant::now();
    let failure = match timeout(shared.config.upstream.connect_timeout, target.connect()).await {
        Ok(Ok(stream)) => {
            shared.metrics.upstream_connected(started.elapsed());
            shared.metrics.upstream_up(true);
            return Ok(stream);
        }
        Ok(Err(error)) => failure_of(&error),
        Err(_) => DialFailure::Timeout,
    };
    debug!(reason = failure.as_str(), "the app can't be reached");
    shared.metrics.upstream_connect_failed(failure);
    // Being out of sockets says nothing about the app.
    if failure != DialFailure::Shortage {
        shared.metrics.upstream_up(false);
    }
    Err(failure)
}

/// Sends an upgrade request and waits for the head of the answer, within `upstream.handshake_timeout`.
///
/// # Cancel safety
/// Dropping the future, or later the answer, closes the connection to the app.
pub(crate) async fn exchange(
    shared: &Shared,
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, DialFailure> {
    let builder = client_builder(&shared.config.limits);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| http_failure_of(&error))?;
    // It ends by itself: with the upgrade, with the end of a refusal's body, or when we drop the answer.
    shared.connections.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the connection to the app broke");
        }
    });
    let failure = match timeout(shared.config.upstream.handshake_timeout, sender.send_request(request)).await
    {
        Ok(Ok(response)) => return Ok(response),
        Ok(Err(error)) => http_failure_of(&error),
        Err(_) => DialFailure::HandshakeTimeout,
    };
    shared.metrics.upstream_connect_failed(failure);
    Err(failure)
}

/// Builds hyper's part of the connection that one handshake with the app goes through.
pub(crate) fn client_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(buffer_bytes_max(limits));
    builder
}

/// No descriptor, no memory, no local port is left.
const SHORTAGES: [i32; 5] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];

fn failure_of(error: &io::Error) -> DialFailure {
    use io::ErrorKind as Kind;
    let kind = error.kind();
    if kind == Kind::ConnectionRefused {
        DialFailure::Refused
    } else if kind == Kind::TimedOut {
        DialFailure::Timeout
    } else if [Kind::ConnectionReset, Kind::ConnectionAborted, Kind::BrokenPipe].contains(&kind) {
        DialFailure::Reset
    } else if error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code)) {
        DialFailure::Shortage
    } else if [Kind::HostUnreachable, Kind::NetworkUnreachable, Kind::NetworkDown].contains(&kind)
        || error.raw_os_error().is_none()
    {
        // Errors without a number come from the resolver.
        DialFailure::Unreachable
    } else {
        DialFailure::Other
    }
}

/// Names what went wrong between a connect and the head of an answer.
pub(crate) fn http_failure_of(error: &hyper::Error) -> DialFailure {
    if error.is_parse() {
        return DialFailure::InvalidResponse;
    }
    if error.is_incomplete_message() || error.is_canceled() {
        return DialFailure::Reset;
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return failure_of(error);
        }
        source = cause.source();
    }
    DialFailure::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (url, host, port) in [
            ("http://127.0.0.1:3000", "127.0.0.1", 3000),
            ("http://app.internal/", "app.internal", 80),
            ("http://[::1]:8080", "::1", 8080),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((&*target.host, target.port), (host, port), "{url}");
        }
        for url in ["", "127.0.0.1:3000", "https://app", "/path", "unix:/run/app"] {
            assert!(Target::parse(url).is_none(), "{url}");
        }
    }

    #[test]
    fn the_address_of_a_path_keeps_it() {
        let target = Target::parse("http://[::1]:8080").unwrap();
        assert_eq!(
            target.uri_of(Some(PathAndQuery::from_static("/a%2Fb?c=d"))),
            "http://[::1]:8080/a%2Fb?c=d"
        );
        assert_eq!(target.uri_of(None), "http://[::1]:8080/");
    }

    #[test]
    fn each_failure_has_its_name() {
        let names: std::collections::HashSet<_> =
            DialFailure::ALL.iter().map(|failure| failure.as_str()).collect();
        assert_eq!(names.len(), DialFailure::ALL.len());
        for (code, failure) in [
            (libc::ECONNREFUSED, DialFailure::Refused),
            (libc::ETIMEDOUT, DialFailure::Timeout),
            (libc::EHOSTUNREACH, DialFailure::Unreachable),
            (libc::ECONNRESET, DialFailure::Reset),
            (libc::EMFILE, DialFailure::Shortage),
            (libc::EADDRNOTAVAIL, DialFailure::Shortage),
            (libc::EPROTO, DialFailure::Other),
        ] {
            assert_eq!(failure_of(&io::Error::from_raw_os_error(code)), failure);
        }
    }
}
