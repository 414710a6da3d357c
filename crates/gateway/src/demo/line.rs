//! The line between a page and the gateway, and what can be done to it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pulsegate_chaos::{ConnectionId, Direction, FaultProxy};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::deaf;
use super::journal::{Journal, What};

/// Lines at once: a demo, not a service.
const LINES_MAX: usize = 64;
/// Lag, each way. Twice the sum stays under `verdict_after` of the profile `fast`: slow is not dead.
const LAG: Duration = Duration::from_millis(650);
const LAG_JITTER: Duration = Duration::from_millis(250);

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// Both ways are dead, and no kernel hears of the other: a pulled plug.
    Cut,
    /// The way from the browser is dead, the way to it works.
    Tunnel,
    /// Everything arrives, late.
    Lag,
    /// The connection is reset. It happens once and leaves no line behind.
    Reset,
}

/// The page has no connection that a fault could befall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this page has no open connection")]
pub(super) struct NoLine;

/// All lines, by the page (the browser's tab) that each belongs to.
pub(super) struct Lines {
    proxy: FaultProxy,
    journal: Arc<Journal>,
    lines: Mutex<HashMap<String, Line>>,
}

struct Line {
    connection: ConnectionId,
    /// A second handle on the socket toward the gateway.
    gateway: socket2::Socket,
}

/// Keeps a line listed for as long as its connection lasts.
pub(super) struct Listed {
    lines: Arc<Lines>,
    tab: String,
    connection: ConnectionId,
}

impl Lines {
    pub(super) fn new(proxy: FaultProxy, journal: Arc<Journal>) -> Arc<Lines> {
        Arc::new(Lines { proxy, journal, lines: Mutex::new(HashMap::new()) })
    }

    /// Lists the line that came through the fault proxy from `from` and goes on to `gateway`. A page has one
    /// line; the latest counts.
    ///
    /// # Errors
    /// There are too many, or `from` is not the fault proxy.
    pub(super) fn list(
        self: &Arc<Self>,
        tab: &str,
        from: SocketAddr,
        gateway: &TcpStream,
    ) -> io::Result<Listed> {
        let connection = self
            .proxy
            .connections()
            .into_iter()
            .find(|connection| connection.upstream == Some(from))
            .ok_or_else(|| io::Error::other("not a connection of the fault proxy"))?
            .id;
        let line = Line { connection, gateway: SockRef::from(gateway).try_clone()? };
        let mut lines = self.lock();
        if lines.len() >= LINES_MAX && !lines.contains_key(tab) {
            return Err(io::Error::other("too many pages"));
        }
        lines.insert(tab.to_owned(), line);
        drop(lines);
        self.journal.write(Some(tab), What::Line { fault: Fault::None });
        Ok(Listed { lines: Arc::clone(self), tab: tab.to_owned(), connection })
    }

    /// Does `fault` to the line of a page, in place of whatever was wrong with it; returns when, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    /// The page has no line.
    pub(super) fn befall(&self, tab: &str, fault: Fault) -> Result<u64, NoLine> {
        let lines = self.lock();
        let line = lines.get(tab).ok_or(NoLine)?;
        let control = self.proxy.connection(line.connection).ok_or(NoLine)?;
        // A pulled plug is two things. The fault proxy passes no byte on; but its kernel would still
        // acknowledge what the gateway sends, as if the browser's host were there. So that kernel goes deaf.
        if fault != Fault::Cut {
            deaf::listen_again(&line.gateway);
            control.heal();
        }
        match fault {
            Fault::None => {}
            Fault::Cut => {
                control.heal();
                control.freeze();
                deaf::stop_listening(&line.gateway);
            }
            Fault::Tunnel => control.freeze_direction(Direction::ToTarget),
            Fault::Lag => control.delay(LAG, LAG_JITTER),
            Fault::Reset => control.reset(),
        }
        Ok(self.journal.write(Some(tab), What::Line { fault }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        // A newer line of the same page stays.
        if lines.get(&self.tab).is_some_and(|line| line.connection == self.connection) {
            lines.remove(&self.tab);
        }
    }
}
