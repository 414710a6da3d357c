//! The control API over real sockets.

mod events;
mod kit;
mod openapi;
mod requests;

pub(crate) use kit::{Kit, TOKEN, TempDir, cut, secret, unreachable};
