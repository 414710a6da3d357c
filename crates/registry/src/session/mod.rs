//! The lifecycle of one session.

mod ending;
mod messages;
#[cfg(test)]
mod tests;
mod verdicts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pulsegate_core::{CloseFrame, EndReason, Leg, Violation};
use pulsegate_heartbeat::{
    Crowd, Detector, Doubt, Doubts, KernelView, Limits, Look, Member, Pong, ProbeId, Verdict,
};

use crate::delivery::{Delivery, DeliveryNote, DeliveryRules};
pub(crate) use ending::LegEnd;
pub use ending::{CloseCodes, Ending, Order};
pub(crate) use verdicts::verdict_words;

/// The bounds of a session, shared by all that run under one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Liveness of the client leg.
    pub client: Arc<Limits>,
    /// Liveness of the app leg.
    pub app: Arc<Limits>,
    /// Longest time from the first sign of an end to the end.
    pub close_timeout: Duration,
    /// How messages to the client are confirmed.
    pub delivery: DeliveryRules,
    /// Codes of our own Close frames.
    pub codes: CloseCodes,
}

/// What a session wants told to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// A peer is silent for longer than its round trip explains.
    Suspected(Leg),
    /// A suspect was heard again.
    Recovered(Leg),
    /// A verdict was due, but the fault may be our own.
    Withheld(Leg, Doubt),
    /// A peer whose verdict was withheld is there.
    Spared(Leg, Doubts),
    /// A peer is gone, with the proof.
    Dead(Leg, Box<Verdict>),
    /// What became of messages to the client.
    Delivery(DeliveryNote),
}

/// One session: two detectors, and the way from the first sign of an end to the end.
///
/// The driver tells what happens through `handle_*`, then drains [`poll_note`](Session::poll_note) and, per
/// leg, [`poll_order`](Session::poll_order) and [`poll_probe`](Session::poll_probe); it comes back at
/// [`poll_timeout`](Session::poll_timeout) and stops when [`is_finished`](Session::is_finished).
#[derive(Debug)]
pub struct Session {
    limits: Arc<SessionLimits>,
    detectors: [Detector; 2],
    /// Per leg, this session's place among all of the process.
    members: [Member; 2],
    legs: [LegEnd; 2],
    delivery: Delivery,
    /// Set from the first sign of an end on.
    closing: Option<Box<Closing>>,
    notes: VecDeque<Note>,
}

#[derive(Debug)]
struct Closing {
    deadline: Instant,
    ending: Ending,
}

impl Session {
    /// Starts with both legs open and just heard. `crowds` are those of the process, per leg;
    /// `client_behind_proxy` says that the client's connection ends at a proxy in front of us.
    pub fn new(
        limits: Arc<SessionLimits>,
        crowds: &[Arc<Crowd>; 2],
        client_behind_proxy: bool,
        seed: u64,
        now: Instant,
    ) -> Session {
        let client = Detector::new(Arc::clone(&limits.client), seed, now).behind_proxy(client_behind_proxy);
        let app = Detector::new(Arc::clone(&limits.app), seed.rotate_left(32) ^ 1, now).in_step_with(&client);
        Session {
            limits,
            detectors: [client, app],
            members: [crowds[0].join(), crowds[1].join()],
            legs: Default::default(),
            delivery: Delivery::default(),
            closing: None,
            notes: VecDeque::new(),
        }
    }

    /// Takes note that bytes came from `leg`.
    pub fn handle_bytes(&mut self, leg: Leg, now: Instant) {
        self.detectors[leg.index()].handle_bytes(now);
        self.collect(leg, now);
    }

    /// Takes a pong; `Pong::Foreign` is to be forwarded.
    pub fn handle_pong(&mut self, leg: Leg, payload: &[u8], now: Instant) -> Pong {
        let pong = self.detectors[leg.index()].handle_pong(payload, now);
        self.collect(leg, now);
        if let (Leg::Client, Pong::Ours { id, .. }) = (leg, pong) {
            self.note_pong(id);
        }
        pong
    }

    /// Takes a valid Close frame of a peer. It is passed on unless an end of our own is under way.
    pub fn handle_close(&mut self, leg: Leg, frame: Option<CloseFrame>, now: Instant) {
        self.legs[leg.index()].close_received = true;
        let other = &mut self.legs[leg.other().index()];
        if !other.close_sent && !other.is_done() {
            other.order(Order::Close(frame.clone()));
        }
        self.end(
            Ending { reason: EndReason::Closed, leg: Some(leg), close: frame, detail: None, verdict: None },
            now,
        );
    }

    /// Takes note that a peer sent FIN. Returns whether it is to be kept for the answer to its Close frame
    /// (RFC 6455 section 7.1.1: a side that has shut down its output may still read); if not, it has hung up.
    pub fn handle_input_over(&mut self, leg: Leg) -> bool {
        let end = &mut self.legs[leg.index()];
        end.input_over = end.close_received;
        end.input_over
    }

    /// Takes note that a peer's connection ended without a Close frame, by FIN or RST, or after one.
    pub fn handle_hangup(&mut self, leg: Leg, now: Instant) {
        let end = &mut self.legs[leg.index()];
        end.hang_up();
        let closing_properly = end.close_received;
        let other = &mut self.legs[leg.other().index()];
        if other.is_done() || other.close_sent {
            // The other side has its Close and its own time to answer.
        } else if closing_properly {
            other.finish = true;
        } else {
            match leg {
                // The app sees what it would see without us: no Close frame, 1006.
                Leg::Client => other.finish = true,
                Leg::App if self.closing.is_some() => other.finish = true,
                Leg::App => {
                    let code = self.limits.codes.dead_app;
                    other.order(Order::Close(Some(CloseFrame::new(code, "app connection lost"))));
                }
            }
        }
        let detail = Some("connection cut without a closing handshake");
        self.end(
            Ending { reason: EndReason::Reset, leg: Some(leg), close: None, detail, verdict: None },
            now,
        );
        self.note_leg_done();
    }

    /// Takes note that FIN went out to `leg`. With Close frames exchanged nothing more is expected of the
    /// peer, so its own FIN is not waited for.
    pub fn handle_finished(&mut self, leg: Leg) {
        let end = &mut self.legs[leg.index()];
        end.done |= end.input_over || (end.close_sent && end.close_received);
        self.note_leg_done();
    }

    /// Takes note that a peer broke RFC 6455 or a limit: it is closed with the violation's code, the other
    /// side with 1001 (app) or 1011 (client).
    pub fn handle_violation(&mut self, leg: Leg, violation: Violation, now: Instant) {
        let reason = if violation.is_limit() { EndReason::Limit } else { EndReason::ProtocolError };
        let offender = CloseFrame::new(violation.close_code(), violation.as_str());
        let ending = Ending {
            reason,
            leg: Some(leg),
            close: Some(offender.clone()),
            detail: Some(violation.as_str()),
            verdict: None,
        };
        let other = match leg {
            Leg::Client => CloseFrame::new(1001, "client broke the protocol"),
            Leg::App => CloseFrame::new(1011, "app broke the protocol"),
        };
        self.close_leg(leg, offender);
        // Its frames can't be told apart any more, so no answer is waited for (RFC 6455 section 7.1.7).
        let end = &mut self.legs[leg.index()];
        end.deaf = true;
        end.finish = true;
        self.close_leg(leg.other(), other);
        self.end(ending, now);
    }

    /// Ends the session from our side, with the same Close to both peers.
    pub fn handle_end(&mut self, reason: EndReason, frame: CloseFrame, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        for leg in Leg::BOTH {
            self.close_leg(leg, frame.clone());
        }
        self.end(Ending { reason, leg: None, close: Some(frame), detail: None, verdict: None }, now);
    }

    /// Takes note whether we read `leg`: while we don't (back-pressure) its silence is no evidence.
    pub fn handle_reading(&mut self, leg: Leg, reading: bool, now: Instant) {
        let detector = &mut self.detectors[leg.index()];
        if reading {
            detector.handle_resume(now);
            if leg == Leg::Client {
                self.delivery.handle_resume(now);
            }
        } else {
            detector.handle_rest(now);
        }
        self.collect(leg, now);
    }

    /// Takes note that bytes wait for `leg` and its socket takes none.
    pub fn handle_write_blocked(&mut self, leg: Leg, now: Instant) {
        self.detectors[leg.index()].handle_write_blocked(now);
    }

    /// Takes note that the socket of `leg` took `bytes`.
    pub fn handle_written(&mut self, leg: Leg, bytes: usize, now: Instant) {
        self.detectors[leg.index()].handle_written(bytes, now);
        self.collect(leg, now);
    }

    /// Takes note that our kernel gave the connection of `leg` up: a verdict of its own, unless an end is
    /// under way.
    pub fn handle_socket_timeout(&mut self, leg: Leg, now: Instant) {
        if self.closing.is_none() {
            self.detectors[leg.index()].handle_socket_timeout(now);
            self.collect(leg, now);
        } else {
            self.handle_hangup(leg, now);
        }
    }

    /// Returns what of the kernel's view of `leg` [`handle_timeout`](Session::handle_timeout) at `now` should be
    /// given.
    pub fn wants_kernel_view(&self, leg: Leg, now: Instant) -> Option<Look> {
        if self.closing.is_some() { None } else { self.detectors[leg.index()].wants_kernel_view(now) }
    }

    /// Does what is due at `now`; `kernel` per leg. Read what waits in the sockets first.
    pub fn handle_timeout(&mut self, now: Instant, kernel: [Option<KernelView>; 2]) {
        for leg in Leg::BOTH {
            if self.closing.is_none() {
                let mass =
                    self.members[leg.index()].crowd().is_doubtful(now, self.limits.client.verdict_after);
                self.detectors[leg.index()].handle_timeout(now, kernel[leg.index()], mass);
                self.collect(leg, now);
            }
        }
        self.handle_delivery_timeout(kernel[Leg::Client.index()], now);
        if self.closing.as_ref().is_some_and(|closing| now >= closing.deadline) {
            for end in &mut self.legs {
                end.done = true;
            }
            self.note_leg_done();
        }
    }

    /// Returns whether a probe to `leg` waits for a place between two frames.
    pub fn is_probe_due(&self, leg: Leg) -> bool {
        self.closing.is_none() && self.detectors[leg.index()].is_probe_due()
    }

    /// Returns the probe to write to `leg`, if one is due; call only where a control frame may go, with `ahead`
    /// bytes before it that the socket has not taken, in a frame of `len` bytes.
    pub fn poll_probe(&mut self, leg: Leg, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        if self.closing.is_some() {
            return None;
        }
        let id = self.detectors[leg.index()].poll_probe(now, ahead, len)?;
        if leg == Leg::Client {
            self.delivery.handle_probe(id);
        }
        Some(id)
    }

    /// Returns the next thing to do with the socket of `leg`.
    pub fn poll_order(&mut self, leg: Leg) -> Option<Order> {
        let end = &mut self.legs[leg.index()];
        // RFC 6455 section 7.1.1: the server closes the TCP connection first, and toward the client we are it.
        if (leg == Leg::Client || end.input_over) && end.close_sent && end.close_received {
            end.finish = true;
        }
        end.poll_order()
    }

    /// Returns the next thing to tell.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// Returns when [`handle_timeout`](Session::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.closing {
            Some(closing) => Some(closing.deadline),
            None => {
                let detectors = self.detectors.iter().filter_map(Detector::poll_timeout);
                detectors.chain(self.poll_delivery_timeout()).min()
            }
        }
    }

    /// Returns whether data of `leg` is still passed on to the other side.
    pub fn is_forwarding(&self, leg: Leg) -> bool {
        let (from, to) = (&self.legs[leg.index()], &self.legs[leg.other().index()]);
        !from.close_received && !from.deaf && !to.close_sent && !to.finish && !to.is_done()
    }

    /// Returns whether data of `leg` is dropped and only its Close frame is still waited for.
    pub fn is_awaiting_close(&self, leg: Leg) -> bool {
        let end = &self.legs[leg.index()];
        !end.close_received && !end.deaf && !end.is_done()
    }

    /// Returns whether an end is under way.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns whether the connection of `leg` is over.
    pub fn is_leg_done(&self, leg: Leg) -> bool {
        self.legs[leg.index()].is_done()
    }

    /// Returns whether both connections are over: flush what is left to flush, and drop them.
    pub fn is_finished(&self) -> bool {
        self.legs.iter().all(LegEnd::is_done)
    }

    /// Returns the detector of `leg`, to read.
    pub fn detector(&self, leg: Leg) -> &Detector {
        &self.detectors[leg.index()]
    }

    /// Returns why the session ends, once that is known.
    pub fn ending(&self) -> Option<&Ending> {
        self.closing.as_ref().map(|closing| &closing.ending)
    }

    /// The first sign of an end decides its reason and starts the one time limit.
    fn end(&mut self, ending: Ending, now: Instant) {
        if self.closing.is_none() {
            let deadline = now + self.limits.close_timeout;
            self.closing = Some(Box::new(Closing { deadline, ending }));
            // Nobody judges these peers any more.
            for member in &mut self.members {
                member.set_missing(false);
            }
            self.note_closing();
        }
    }

    fn close_leg(&mut self, leg: Leg, frame: CloseFrame) {
        let end = &mut self.legs[leg.index()];
        if !end.close_sent && !end.is_done() {
            end.order(Order::Close(Some(frame)));
        }
    }
}
