//! The handshake's pure functions in the order in which the front calls them, for the fuzz targets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, request};
use http_body_util::Empty;
use hyper::{client, server};
use ipnet::IpNet;
use pulsegate_core::ReservedBits;
use pulsegate_registry::Mode;

use super::labels::{LabelSources, Labels};
use super::{answer, forwarded, handshake, headers, passthrough, upgrade, upstream};
use crate::config::Limits;
use crate::http_serve;

/// What the configuration says about handshakes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `forwarded.trusted`.
    pub trusted: Vec<IpNet>,
    /// `origin.allow`.
    pub origins: Vec<String>,
    /// `registry.labels`.
    pub labels: BTreeMap<String, String>,
    /// `limits.label_bytes_max`.
    pub label_bytes_max: usize,
}

/// What became of a client's request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was refused, and why.
    Refused(&'static str),
    /// It passes to the app as plain HTTP with these headers.
    Plain(HeaderMap),
    /// It passes to the app as an upgrade request.
    Upgrade {
        /// The request to the app.
        request: Request<Empty<Bytes>>,
        /// The client's address.
        client: IpAddr,
        /// The session's labels.
        labels: Labels,
    },
}

/// Builds hyper's part of a client's connection.
pub fn server_builder(limits: &Limits) -> server::conn::http1::Builder {
    let mut builder = http_serve::server_builder(limits);
    builder.preserve_header_case(true);
    builder
}

/// Builds hyper's part of the connection to the app.
pub fn client_builder(limits: &Limits) -> client::conn::http1::Builder {
    upstream::client_builder(limits)
}

/// Checks a client's request and makes the app's of it.
pub fn request(head: &request::Parts, peer: SocketAddr, rules: &Rules, session: &str) -> Outcome {
    if let Err(reason) = handshake::check_request(head) {
        return Outcome::Refused(reason.as_str());
    }
    if !handshake::is_upgrade(&head.headers) {
        let mut headers = head.headers.clone();
        passthrough::to_app(&mut headers, peer, &rules.trusted);
        return Outcome::Plain(headers);
    }
    if let Err(reason) = handshake::check_upgrade(head, &rules.origins) {
        return Outcome::Refused(reason.as_str());
    }
    let (request, _id) = upgrade::app_request(head, peer, &rules.trusted, session, Mode::Plain);
    let client = forwarded::client_address(&head.headers, peer, &rules.trusted);
    let labels = LabelSources::new(&rules.labels, rules.label_bytes_max).read(head);
    Outcome::Upgrade { request, client, labels }
}

/// Checks an app's 101 against the client's request; returns the subprotocol and the reserved bits.
///
/// # Errors
/// What is wrong with it.
pub fn check_answer(
    request: &HeaderMap,
    answer: &HeaderMap,
) -> Result<(Option<Box<str>>, ReservedBits), String> {
    let agreement = answer::check(request, answer).map_err(|error| error.to_string())?;
    Ok((agreement.subprotocol, agreement.reserved_bits))
}

/// Turns an app's headers into those of the answer to the client.
pub fn strip_response(headers: &mut HeaderMap, status: StatusCode) {
    headers::strip_response(headers, status);
}
