//! What happens to one request: refused, turned into a session, or passed through.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use tracing::debug;

use super::body::BoxError;
use super::labels::LabelSources;
use super::passthrough::{self, AppClient};
use super::place::Place;
use super::rejection::Rejection;
use super::upstream::Target;
use super::{handshake, upgrade};
use crate::http_serve::server_builder;
use crate::relay::Established;
use crate::shared::Shared;

/// The body of any answer.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// Takes what becomes a session.
pub(super) type Relay = dyn Fn(&Arc<Shared>, Established) + Send + Sync;

/// What all connections of one listener share.
pub(super) struct Front {
    pub(super) shared: Arc<Shared>,
    pub(super) target: Arc<Target>,
    pub(super) http: http1::Builder,
    pub(super) app: AppClient,
    pub(super) labels: LabelSources,
    pub(super) relay: Arc<Relay>,
}

impl Front {
    pub(super) fn new(shared: &Arc<Shared>, relay: Arc<Relay>) -> Front {
        let config = &shared.config;
        let target = Target::parse(&config.upstream.url).expect("the configuration has checked upstream.url");
        let target = Arc::new(target);
        let mut http = server_builder(&config.limits);
        http.preserve_header_case(true);
        Front {
            http,
            app: passthrough::client(shared, &target),
            labels: LabelSources::new(&config.registry.labels, config.limits.label_bytes_max),
            shared: Arc::clone(shared),
            target,
            relay,
        }
    }

    /// Counts a refusal and builds it.
    pub(super) fn refuse(&self, reason: Rejection, detail: Option<String>) -> Response<AnswerBody> {
        self.shared.metrics.handshake_rejected(reason);
        let problem = reason.problem();
        let problem = if let Some(detail) = detail { problem.detail(detail) } else { problem };
        problem.into_response().map(|bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
    }
}

/// Answers the requests of one connection.
pub(super) struct Service {
    pub(super) front: Arc<Front>,
    pub(super) place: Place,
    pub(super) peer: SocketAddr,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    // Boxed: hyper keeps room for this in every connection, an idle one as well.
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (front, peer) = (Arc::clone(&self.front), self.peer);
        let (head, body) = request.into_parts();
        if let Err(reason) = handshake::check_request(&head) {
            debug!(%peer, reason = reason.as_str(), "request refused");
            return Box::pin(async move { Ok(front.refuse(reason, None)) });
        }
        if handshake::is_upgrade(&head.headers) {
            let place = self.place.clone();
            return Box::pin(async move { Ok(upgrade::upgrade(front, place, peer, head).await) });
        }
        Box::pin(async move { Ok(passthrough::pass(&front, peer, head, body).await) })
    }
}
