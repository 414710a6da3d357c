//! Dialing the app again for a session whose connection to it is lost.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::SEC_WEBSOCKET_KEY;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use tokio::net::TcpStream;
use tracing::debug;

use super::answer;
use super::upgrade::into_socket;
use super::upstream::{self, DialFailure, Target};
use crate::relay::{AppArrival, Mailbox};
use crate::shared::Shared;

/// A structured field (RFC 9651) for an app that gets a session's second or later connection.
const RESUMED: HeaderName = HeaderName::from_static("pulsegate-resumed");
/// So many of the first messages may have come to the app before.
const REPLAYED: HeaderName = HeaderName::from_static("pulsegate-replayed");

/// What it takes to ask the app again, as for the first time: among it what the client has shown of itself.
pub(crate) struct Redial {
    target: Arc<Target>,
    request: Request<Empty<Bytes>>,
    subprotocol: Option<Box<str>>,
}

/// Why there is no connection.
enum Failure {
    /// It may be there soon.
    Later(DialFailure),
    /// The app answers, and doesn't want the session.
    Refused(String),
}

impl Redial {
    pub(super) fn new(target: &Arc<Target>, request: &Request<Empty<Bytes>>) -> Redial {
        Redial { target: Arc::clone(target), request: request.clone(), subprotocol: None }
    }

    /// Takes note of what client and app have agreed on: another answer would be for another client.
    pub(super) fn agreed(self, subprotocol: Option<Box<str>>) -> Redial {
        Redial { subprotocol, ..self }
    }

    /// Asks the app for another connection, which gets `again` messages for the second time. Few ask at once: an app
    /// that has just started is not to be run over by all its sessions. `None`: the session is over meanwhile.
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub(crate) async fn dial(&self, shared: &Shared, session: &Mailbox, again: u64) -> Option<AppArrival> {
        let _seat = shared.redials.acquire().await;
        if session.is_closed() {
            return None;
        }
        let connection = self.connect(shared, again).await;
        let (result, arrival) = match connection {
            Ok((stream, early)) => ("connected", AppArrival::Here { stream, early }),
            Err(Failure::Later(failure)) => {
                debug!(reason = failure.as_str(), "the app is not back");
                ("failed", AppArrival::Later)
            }
            Err(Failure::Refused(told)) => ("refused", AppArrival::Refused(told.into())),
        };
        shared.metrics.v1.redialled(result);
        Some(arrival)
    }

    async fn connect(&self, shared: &Shared, again: u64) -> Result<(std::net::TcpStream, Bytes), Failure> {
        let mut request = self.request.clone();
        let headers = request.headers_mut();
        let mut key = [0; 16];
        getrandom::fill(&mut key).expect("a system that serves sockets has random bytes");
        let key = HeaderValue::from_str(&STANDARD.encode(key)).expect("base64 is ASCII");
        headers.insert(SEC_WEBSOCKET_KEY, key);
        headers.insert(RESUMED, HeaderValue::from_static("?1"));
        headers.insert(REPLAYED, HeaderValue::from(again));
        let asked = headers.clone();
        let stream = upstream::dial(shared, &self.target).await.map_err(Failure::Later)?;
        let mut answer = upstream::exchange(shared, stream, request).await.map_err(Failure::Later)?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(status));
        }
        let agreement = answer::check(&asked, answer.headers()).map_err(|error| {
            shared.metrics.upstream_connect_failed(DialFailure::InvalidResponse);
            Failure::Refused(format!("1011 the app answered 101, but {error}"))
        })?;
        if agreement.subprotocol != self.subprotocol {
            return Err(Failure::Refused("1011 the app chose another subprotocol".to_owned()));
        }
        let upgraded = hyper::upgrade::on(&mut answer).await;
        let (stream, early) =
            upgraded.ok().and_then(into_socket).ok_or(Failure::Later(DialFailure::Reset))?;
        // It goes to the thread of the session.
        let stream = TcpStream::into_std(stream).map_err(|_| Failure::Later(DialFailure::Other))?;
        Ok((stream, early))
    }
}

/// An app that starts, or what stands before it, may answer that it is not there yet (RFC 9110 section 15); anything else
/// it means.
fn refusal(status: StatusCode) -> Failure {
    let later = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
            .contains(&status);
    if later {
        Failure::Later(DialFailure::InvalidResponse)
    } else {
        Failure::Refused(format!("1008 the app answered {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_is_not_there_yet_is_asked_again() {
        for (status, later) in
            [(200, false), (302, false), (401, false), (404, false), (408, true), (425, true)]
                .into_iter()
                .chain([(429, true), (500, true), (502, true), (503, true)])
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(matches!(refusal(status), Failure::Later(_)), later, "{status}");
        }
    }
}
