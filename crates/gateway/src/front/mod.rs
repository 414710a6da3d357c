//! The front: everything between a client's TCP connection and either a session or a plain HTTP answer.
//!
//! [`Acceptor`] accepts connections (`accept`), hyper reads requests from each (`connection`), and one of two
//! things happens to a request (`service`): an upgrade request goes through the handshake with the app and
//! becomes a session of the relay (`upgrade`), anything else is passed through as HTTP (`passthrough`).
//! What can be decided without a socket is a pure function with a table of tests: `handshake` (the request),
//! `answer` (the app's 101), `headers`, `forwarded`, `trace`, `labels`. A client that speaks pulsegate.v1 has
//! more to say in its handshake, and may come back to its session instead of beginning one (`v1`); so may the app
//! (`redial`).
//!
//! What hyper keeps for itself, and the front therefore can't do better:
//! - a head that hyper can't parse is answered by hyper, 400, 414 or 431 with an empty body; counted here;
//! - 1xx answers of the app other than 100 and 101 are dropped, and an answer without a Date gets one;
//! - trailers pass only if they are announced by `Trailer`, and toward a client that sent `TE: trailers`;
//! - a client that shuts its sending side down behind its request counts as gone;
//! - once an answer's head is through, a client whose kernel lives may take as long as it likes with the
//!   rest of its own body;
//! - a client that sent bytes behind its head and then leaves is noticed only when the app has answered or
//!   a time limit has passed, since hyper does not read on while it holds bytes.

mod accept;
mod answer;
mod body;
mod connection;
mod forwarded;
pub(crate) mod fuzz;
mod handshake;
mod headers;
mod labels;
mod passthrough;
mod place;
mod probe;
mod redial;
mod rejection;
mod service;
mod sockets;
#[cfg(test)]
mod tests;
mod trace;
mod upgrade;
mod upstream;
mod v1;

pub(crate) use accept::Acceptor;
pub(crate) use place::Place;
pub(crate) use probe::{Probe, probe_upstream};
pub(crate) use redial::Redial;
pub(crate) use rejection::Rejection;
pub(crate) use sockets::listen;
pub(crate) use upstream::DialFailure;
