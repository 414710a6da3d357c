//! How others reach the task that owns a session.

use std::sync::OnceLock;
use std::task::Waker;

use futures_util::task::AtomicWaker;
use pulsegate_core::{CloseFrame, EndReason};

/// Asks a session to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndOrder {
    pub(crate) reason: EndReason,
    pub(crate) frame: CloseFrame,
}

/// A mailbox for the one order that a session takes: to end. The first one counts.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    order: OnceLock<EndOrder>,
    waker: AtomicWaker,
}

impl Mailbox {
    /// Leaves the order and wakes the session's task; returns whether it was the first.
    pub(crate) fn end(&self, reason: EndReason, frame: CloseFrame) -> bool {
        let first = self.order.set(EndOrder { reason, frame }).is_ok();
        self.waker.wake();
        first
    }

    /// Registers the task to be woken, then looks.
    pub(super) fn poll(&self, waker: &Waker) -> Option<&EndOrder> {
        self.waker.register(waker);
        self.order.get()
    }
}
