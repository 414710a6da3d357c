//! A fault proxy for TCP: it stands between a client and a target and does to them what networks do.
//!
//! ```no_run
//! # use pulsegate_chaos::{Direction, FaultProxy};
//! # async fn example(target: std::net::SocketAddr) -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let proxy = FaultProxy::start(listener, target);
//! // clients connect to proxy.local_addr() …
//! proxy.all().freeze();
//! proxy.all().heal();
//! for connection in proxy.connections() {
//!     if let Some(control) = proxy.connection(connection.id) {
//!         control.freeze_direction(Direction::ToTarget);
//!     }
//! }
//! proxy.shutdown().await.expect("every task ends when told");
//! # Ok(())
//! # }
//! ```
//!
//! # What a frozen direction is
//! A black hole: nothing comes out of it, neither bytes nor FIN nor RST, and nothing is read into it. Its
//! sender goes on until the socket buffers are full and then stalls. Healing lets all of it flow on, in
//! order, as a real network does when the kernel retransmits.
//!
//! A connection that arrives while either of its directions is frozen is accepted (the kernel does that)
//! and listed, but the target is not dialled: a TCP handshake needs both ways. It is dialled when it heals.
//!
//! # What it cannot imitate
//! Both ends talk TCP to this proxy's kernel, which acknowledges what they send. Seen through `TCP_INFO`,
//! a freeze therefore looks like a peer whose process is stuck, never like a path that is gone; and a
//! sender is stalled only after the kernel's buffers, some hundred KiB to some MiB, are full. Packet loss
//! below TCP has to come from a packet filter.
//!
//! # Inside
//! `faults` is plain data, `link` the machine of one direction (no I/O, no clock), `connection` what the
//! task of a connection and its controls share, `relay` the sockets, `proxy` the listener, `control` the
//! knobs.

mod connection;
mod control;
mod faults;
mod link;
mod proxy;
mod relay;

pub use connection::{ConnectionId, ConnectionInfo, DirectionInfo};
pub use control::Control;
pub use faults::{DELAY_MAX, Direction, Faults};
pub use link::LINK_BYTES_MAX;
pub use proxy::{CONNECTIONS_MAX, FaultProxy, ShutdownTimedOut};
