//! The session driver: one task owns a session and both its sockets.

mod mailbox;

use std::sync::Arc;

use bytes::Bytes;
use pulsegate_core::ReservedBits;
use pulsegate_registry::{Permit, SessionInfo};
use tokio::net::TcpStream;

pub(crate) use mailbox::{Handle, Mailbox};

use crate::shared::Shared;

/// A handshake that is done on both sides.
pub(crate) struct Established {
    pub(crate) permit: Permit,
    pub(crate) info: SessionInfo,
    pub(crate) client: TcpStream,
    /// What the client sent right behind its request.
    pub(crate) client_early: Bytes,
    pub(crate) app: TcpStream,
    /// What the app sent right behind its 101.
    pub(crate) app_early: Bytes,
    pub(crate) reserved_bits: ReservedBits,
}

/// Starts the session's task.
pub(crate) fn spawn(shared: &Arc<Shared>, established: Established) {
    let _ = (shared, established);
}
