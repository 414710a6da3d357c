//! One connection of a session: socket, frame reader, outbox.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use pulsegate_core::{
    CloseFrame, ControlBudget, Direction, FrameClock, FrameLimits, FrameReader, Leg, Opcode, ReservedBits,
};
use pulsegate_heartbeat::{KernelView, Look};
use tokio::net::TcpStream;

use super::outbox::Outbox;
use crate::shared::Shared;
use crate::sys;

/// One connection of a session.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) leg: Leg,
    /// `None` once the connection is over.
    pub(super) stream: Option<TcpStream>,
    /// Walks what this peer sends.
    pub(super) reader: FrameReader,
    pub(super) clock: FrameClock,
    pub(super) budget: ControlBudget,
    /// The start of a head or a control frame whose rest has not come yet.
    pub(super) kept: Box<[u8]>,
    /// What goes to this peer.
    pub(super) outbox: Outbox,
    /// What was written to this peer so far ends within a frame, so no control frame may follow.
    pub(super) within_frame: bool,
    /// The answer to this peer's latest ping, when it could not be written at once. Older ones need none
    /// (RFC 6455 section 5.5.3), so this is all that a flood can pile up.
    pub(super) pong_due: Option<Box<[u8]>>,
    /// Writing failed. What the peer sent before it broke off is still read.
    pub(super) broken: bool,
    /// The peer has sent FIN behind its Close frame: it still gets its answer.
    pub(super) input_over: bool,
    /// Our Close frame is on its way: nothing may follow it (RFC 6455 section 5.5.1).
    pub(super) closed: bool,
    /// FIN follows what waits in the outbox.
    pub(super) finishing: bool,
    pub(super) finished: bool,
    /// We read this peer: the other one takes what it sends.
    pub(super) reading: bool,
    /// Bytes wait in the outbox and the socket took none when it was last tried.
    pub(super) blocked: bool,
}

impl Line {
    pub(super) fn new(
        leg: Leg,
        stream: TcpStream,
        reserved: ReservedBits,
        frames: &Arc<FrameLimits>,
        shared: &Shared,
        now: Instant,
    ) -> Line {
        let limits = &shared.config.limits;
        let direction = match leg {
            Leg::Client => Direction::FromClient,
            Leg::App => Direction::FromApp,
        };
        Line {
            leg,
            stream: Some(stream),
            reader: FrameReader::new(direction, reserved, Arc::clone(frames)),
            clock: FrameClock::new(limits.frame_timeout, limits.frame_rate_min),
            budget: ControlBudget::new(limits.control_frames_rate_max, now),
            kept: Box::default(),
            outbox: Outbox::default(),
            within_frame: false,
            pong_due: None,
            broken: false,
            closed: false,
            input_over: false,
            finishing: false,
            finished: false,
            reading: true,
            blocked: false,
        }
    }

    /// Answers a ping: now if that is possible, else as soon as it is.
    pub(super) fn answer_ping(&mut self, payload: &[u8]) {
        self.pong_due = Some(payload.into());
        self.settle_pong();
    }

    /// Puts the pong that is due where it may go, if it may.
    pub(super) fn settle_pong(&mut self) {
        if self.pong_due.is_some()
            && self.control_place().is_some()
            && let Some(payload) = self.pong_due.take()
        {
            self.push_in_place(Opcode::Pong, &payload);
        }
    }

    /// Returns how many bytes stand before a control frame that is put in now: none if it reaches the socket at
    /// once, else the rest of the frame under way. `None`: there is no place between two frames.
    pub(super) fn control_place(&mut self) -> Option<usize> {
        match (self.is_open(), self.outbox.is_empty()) {
            (true, true) => (!self.within_frame).then_some(0),
            (true, false) => self.outbox.overtaking_place(),
            (false, _) => None,
        }
    }

    /// Returns whether something of ours can go behind all that was written, and the socket is not full.
    pub(super) fn takes_more(&self) -> bool {
        self.is_between_frames() && !self.blocked
    }

    /// Returns whether something of ours can go behind all that was written.
    pub(super) fn is_between_frames(&self) -> bool {
        self.is_open() && !self.within_frame
    }

    /// Returns whether frames may still go to this peer.
    fn is_open(&self) -> bool {
        self.stream.is_some() && !self.broken && !self.closed && !self.finishing
    }

    /// Returns the length of a ping with eight bytes of payload (RFC 6455 section 5.2).
    pub(super) fn probe_len(&self) -> usize {
        match self.leg {
            Leg::Client => 10,
            Leg::App => 14,
        }
    }

    /// Puts a control frame into the [`control_place`](Line::control_place): ahead of data that waits.
    pub(super) fn push_in_place(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = self.mask();
        self.outbox.overtake(opcode, payload, mask);
    }

    /// Puts a control frame behind all that waits.
    pub(super) fn push_behind(&mut self, opcode: Opcode, payload: &[u8]) {
        let mask = self.mask();
        self.outbox.push_control(opcode, payload, mask);
    }

    /// Puts a Close frame behind what waits; returns whether one could be put there at all.
    pub(super) fn push_close(&mut self, frame: Option<&CloseFrame>) -> bool {
        if self.within_frame || self.finishing || self.broken {
            return false;
        }
        let mut payload = Vec::new();
        if let Some(frame) = frame {
            frame.write_payload(&mut payload);
        }
        self.push_behind(Opcode::Close, &payload);
        self.closed = true;
        true
    }

    /// Looks into the kernel: whether bytes wait to be read that readiness has not told of yet, and its view of the
    /// connection. `None`: there is no connection.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn look(&self, look: Look) -> Option<io::Result<(bool, Option<KernelView>)>> {
        let stream = self.stream.as_ref()?;
        if look == Look::Delivery && sys::unacked_bytes(stream) == Some(0) {
            return Some(Ok((false, Some(KernelView::all_taken()))));
        }
        let waiting = if self.reading { sys::has_bytes_waiting(stream) } else { Ok(false) };
        Some(waiting.map(|waiting| (waiting, sys::kernel_view(stream))))
    }

    /// Gives up writing: nothing that waits can go out any more. The next read that finds nothing tells of
    /// the end.
    pub(super) fn break_off(&mut self) {
        self.broken = true;
        self.discard_output();
    }

    /// Writes what the socket takes at this moment; an error no longer matters.
    pub(super) fn flush_last(&mut self, cx: &mut Context<'_>) {
        if let Some(stream) = &mut self.stream {
            let _ = self.outbox.flush(stream, cx);
        }
    }

    /// The peer was declared dead: it gets this Close frame, if there is one, as far as the socket takes it now.
    pub(super) fn abandon(&mut self, farewell: Option<&CloseFrame>) {
        if farewell.is_some() {
            self.push_close(farewell);
            self.flush_last(&mut Context::from_waker(std::task::Waker::noop()));
        }
    }

    /// Drops the connection.
    pub(super) fn drop_stream(&mut self) {
        self.take_stream();
    }

    /// Gives the connection away with what waits for it.
    pub(super) fn into_rest(mut self) -> Option<(TcpStream, Vec<u8>)> {
        let rest = std::mem::take(&mut self.outbox).into_rest();
        self.stream.take().map(|stream| (stream, rest))
    }

    /// Gives the connection away; nothing more is read from it or written to it here.
    pub(super) fn take_stream(&mut self) -> Option<TcpStream> {
        self.kept = Box::default();
        self.discard_output();
        self.stream.take()
    }

    fn discard_output(&mut self) {
        self.outbox = Outbox::default();
        self.pong_due = None;
        self.blocked = false;
    }

    /// Toward the app we are the client, and clients mask. What we mask may be of a page's choosing (the
    /// reason of a Close, a message), so the key comes from the system: it must not be predictable (RFC 6455
    /// sections 5.3 and 10.3).
    pub(super) fn mask(&self) -> Option<[u8; 4]> {
        match self.leg {
            Leg::Client => None,
            Leg::App => Some(KEYS.with_borrow_mut(Keys::next)),
        }
    }
}

/// Masking keys from the system, many by one call: a call for each message was a fifth of what a message costs.
struct Keys {
    bytes: [u8; 256],
    used: usize,
}

thread_local! {
    static KEYS: RefCell<Keys> = const { RefCell::new(Keys { bytes: [0; 256], used: 256 }) };
}

impl Keys {
    fn next(&mut self) -> [u8; 4] {
        if self.used == self.bytes.len() {
            getrandom::fill(&mut self.bytes).expect("a system that serves sockets has random bytes");
            self.used = 0;
        }
        let key = &mut self.bytes[self.used..self.used + 4];
        self.used += 4;
        // What was used is nobody's to read again.
        let taken = [key[0], key[1], key[2], key[3]];
        key.fill(0);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_comes_twice_in_a_row() {
        let keys: std::collections::HashSet<_> =
            (0..1000).map(|_| KEYS.with_borrow_mut(Keys::next)).collect();
        assert!(keys.len() > 990, "{}", keys.len());
        assert!(!keys.contains(&[0; 4]));
    }
}
