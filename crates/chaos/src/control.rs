//! The knobs: faults for one connection, or for all.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::Connection;
use crate::faults::{Direction, Faults};
use crate::proxy::Shared;

/// Sets faults, for all connections ([`FaultProxy::all`](crate::FaultProxy::all)) or for one
/// ([`FaultProxy::connection`](crate::FaultProxy::connection)).
///
/// Faults set for all hold for connections to come too; what happens once (reset, half-close) happens to
/// those that are open. A fault is in force when the call returns: nothing that is sent afterwards escapes
/// it. On a connection that has ended, calls do nothing.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
    scope: Scope,
}

#[derive(Clone, Debug)]
pub(crate) enum Scope {
    All,
    One(Arc<Connection>),
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, scope: Scope) -> Control {
        Control { shared, scope }
    }

    /// Replaces the faults of one direction.
    pub fn set(&self, direction: Direction, faults: Faults) {
        self.update(direction, |present| *present = faults);
    }

    /// Changes some faults of one direction and leaves the others. For all, each connection's own faults
    /// are changed, so `change` runs once per connection, and once for those to come; it must not call the
    /// proxy.
    pub fn update(&self, direction: Direction, change: impl Fn(&mut Faults)) {
        let change_one = |connection: &Connection| {
            connection.change(|pipe, now| {
                let link = &mut pipe.links[direction.index()];
                let mut faults = link.faults();
                change(&mut faults);
                link.set_faults(faults, now);
            });
        };
        match &self.scope {
            Scope::One(connection) => change_one(connection),
            Scope::All => self.shared.with_all(|faults, connections| {
                change(&mut faults[direction.index()]);
                connections.for_each(change_one);
            }),
        }
    }

    /// Freezes both directions; other faults stay as they are.
    pub fn freeze(&self) {
        self.update_both(|faults| faults.frozen = true);
    }

    /// Freezes one direction.
    pub fn freeze_direction(&self, direction: Direction) {
        self.update(direction, |faults| faults.frozen = true);
    }

    /// Ends a freeze of both directions; other faults stay as they are.
    pub fn thaw(&self) {
        self.update_both(|faults| faults.frozen = false);
    }

    /// Delays each direction by `delay` ± `jitter`.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        self.update_both(|faults| (faults.delay, faults.jitter) = (delay, jitter));
    }

    /// Limits each direction to this many bytes per second.
    pub fn rate(&self, bytes_per_s: u64) {
        self.update_both(|faults| faults.rate_bytes_per_s = Some(bytes_per_s));
    }

    /// Writes at most this many bytes at a time, in each direction.
    pub fn slice(&self, bytes: usize) {
        self.update_both(|faults| faults.slice_bytes = Some(bytes));
    }

    /// Cuts the connection when `bytes` bytes of `direction` have passed, counted from its start.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.update(direction, |faults| faults.cut_after_bytes = Some(bytes));
    }

    /// Goes back to a clean line. What a freeze or a delay held flows on, in order; a connection that was
    /// reset, cut or half-closed stays so.
    pub fn heal(&self) {
        self.update_both(|faults| *faults = Faults::default());
    }

    /// Resets open connections: both ends get an RST, frozen or not, and what is under way is lost.
    pub fn reset(&self) {
        self.each(|connection| connection.change(|pipe, _| pipe.reset = true));
    }

    /// Ends one direction of open connections as if its sender had: the receiver gets what is under way
    /// and then a FIN. What the sender says afterwards is read and dropped. A frozen direction delivers the
    /// FIN when it heals.
    pub fn half_close(&self, direction: Direction) {
        self.each(|connection| {
            connection.change(|pipe, now| pipe.links[direction.index()].handle_half_close(now));
        });
    }

    fn update_both(&self, change: impl Fn(&mut Faults)) {
        for direction in Direction::BOTH {
            self.update(direction, &change);
        }
    }

    fn each(&self, act: impl FnMut(&Connection)) {
        match &self.scope {
            Scope::One(connection) => {
                let mut act = act;
                act(connection);
            }
            Scope::All => self.shared.with_all(|_, connections| connections.for_each(act)),
        }
    }
}
