//! How a session comes to its end.

use pulsegate_core::{Cause, CloseFrame, EndReason, Leg};

/// Codes of the Close frames that are our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCodes {
    /// Toward the app: its client was declared dead.
    pub dead_client: u16,
    /// Toward the client: the app is gone.
    pub dead_app: u16,
    /// Toward the client: the app is frozen.
    pub frozen_app: u16,
}

/// What a driver has to do with the socket of a leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write a Close frame behind everything queued; no data follows it. If a frame is under way and can't
    /// be completed, send FIN instead.
    Close(Option<CloseFrame>),
    /// Send FIN behind everything queued.
    Finish,
    /// The peer was declared dead: write this Close frame, if there is one, as far as the socket takes it now,
    /// and be done with the connection. Nobody is there to read what is queued.
    Abandon(Cause, Option<CloseFrame>),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The reason, from a closed set.
    pub reason: EndReason,
    /// The leg it came from; `None`: from us.
    pub leg: Option<Leg>,
    /// The Close frame that tells of it: passed on, or ours.
    pub close: Option<CloseFrame>,
    /// A word on what exactly happened.
    pub detail: Option<&'static str>,
    /// The proof, when a peer was declared dead.
    pub verdict: Option<String>,
}

/// How far the end of one leg has come.
#[derive(Debug, Default)]
pub(crate) struct LegEnd {
    /// A Close frame was ordered to it.
    pub(crate) close_sent: bool,
    /// Its Close frame came.
    pub(crate) close_received: bool,
    /// Its FIN came behind its Close frame.
    pub(crate) input_over: bool,
    /// FIN is to be sent to it.
    pub(crate) finish: bool,
    /// Nothing of it counts any more: it broke the protocol.
    pub(crate) deaf: bool,
    /// Its connection is over: it hung up, was dropped, or ran out of time.
    pub(crate) done: bool,
    finished: bool,
    order: Option<Order>,
}

impl LegEnd {
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The connection is gone, and with it what was still to be done.
    pub(crate) fn hang_up(&mut self) {
        self.done = true;
        self.order = None;
    }

    pub(crate) fn order(&mut self, order: Order) {
        self.close_sent = true;
        self.order = Some(order);
    }

    pub(crate) fn poll_order(&mut self) -> Option<Order> {
        if let Some(order) = self.order.take() {
            return Some(order);
        }
        if self.finish && !self.finished {
            self.finished = true;
            return Some(Order::Finish);
        }
        None
    }
}
