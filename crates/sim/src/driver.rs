//! A driver like the gateway's, over simulated sockets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pulsegate_core::Leg as Side;
use pulsegate_heartbeat::{KernelView, Look, Pong};
use pulsegate_registry::{Note, Order, Session};

use crate::bugs::Bug;
use crate::link::Item;
use crate::own::Own;
use crate::world::Leg;
use crate::{SECOND, Time};

/// Bytes of one read.
const READ_MAX: u64 = 64 * 1024;
/// Passes over both sockets in one turn.
const PASSES_MAX: usize = 16;

/// What waits for one socket.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: VecDeque<(u64, Item)>,
    /// A part of the first has been written.
    begun: bool,
    blocked: bool,
    pub(crate) paused: bool,
    /// A control frame has overtaken and still waits.
    overtaken: bool,
    closed: bool,
    pub(crate) abandoned: bool,
}

impl Line {
    /// Returns whether bytes wait that the socket did not take.
    pub(crate) fn waits_for_room(&self) -> bool {
        self.blocked && !self.abandoned
    }
}

/// Drives one session.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) lines: [Line; 2],
    pub(crate) bug: Option<Bug>,
    /// Where virtual time starts.
    base: Instant,
    /// When bytes of each peer were read, whatever the machine was told of them.
    heard_at: [Instant; 2],
    random: fastrand::Rng,
}

/// The time of one turn: of the world, and by our own clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) world: Time,
    own: Instant,
}

impl Driver {
    /// Drives `session`, which starts when its peers were last heard; virtual time starts at `base`.
    pub(crate) fn new(session: Session, bug: Option<Bug>, base: Instant, seed: u64) -> Driver {
        let random = fastrand::Rng::with_seed(seed);
        let heard_at = Side::BOTH.map(|side| session.detector(side).heard_at());
        Driver { session, lines: Default::default(), bug, base, heard_at, random }
    }

    /// Works until nothing more can be done without waiting; what the machine notes goes to `notes`.
    pub(crate) fn turn(&mut self, legs: &mut [Leg; 2], own: &Own, world: Time, notes: &mut Vec<Note>) {
        let now = Now { world, own: self.base + Duration::from_micros(own.clock(world)) };
        if self.bug == Some(Bug::TimersBeforeReads) {
            self.handle_timeouts(legs, own, now);
        }
        for _ in 0..PASSES_MAX {
            let mut progress = false;
            for side in Side::BOTH {
                progress |= self.flush(side, legs, now);
            }
            for side in Side::BOTH {
                progress |= self.read(side, legs, now);
            }
            self.handle_timeouts(legs, own, now);
            for side in Side::BOTH {
                progress |= self.carry_out(side, legs, now);
            }
            while let Some(note) = self.session.poll_note() {
                notes.extend(self.distort(note, now));
            }
            if !progress || self.session.is_finished() {
                break;
            }
        }
    }

    /// Returns when the machine wants to be called, by our own clock.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let at = self.session.poll_timeout()?;
        // Rounded up: a microsecond early would be a turn for nothing.
        let since = at.saturating_duration_since(self.base).as_nanos().div_ceil(1_000);
        Some(Time::try_from(since).unwrap_or(crate::NEVER))
    }

    fn flush(&mut self, side: Side, legs: &mut [Leg; 2], now: Now) -> bool {
        let line = &mut self.lines[side.index()];
        if line.waiting.is_empty() || line.abandoned {
            return false;
        }
        let (leg, mut taken) = (&mut legs[side.index()], 0);
        while let Some((left, item)) = line.waiting.front_mut() {
            let part = leg.out().free().min(*left);
            if part == 0 {
                break;
            }
            taken += part;
            let whole = part == *left;
            let ends = whole.then_some(*item);
            leg.note_write(part, ends, now.world);
            if whole {
                line.overtaken &= *item == Item::Data;
                line.waiting.pop_front();
            } else {
                *left -= part;
            }
            line.begun = !whole;
        }
        line.blocked = !line.waiting.is_empty();
        leg.truth.queued |= line.blocked;
        let blocked = line.blocked;
        if taken > 0 && self.bug == Some(Bug::OutboundIsLife) {
            self.session.handle_bytes(side, now.own);
        }
        if taken > 0 {
            self.session.handle_written(side, usize::try_from(taken).unwrap_or(usize::MAX), now.own);
        }
        if blocked {
            self.session.handle_write_blocked(side, now.own);
        }
        taken > 0
    }

    fn read(&mut self, side: Side, legs: &mut [Leg; 2], now: Now) -> bool {
        if self.lines[side.index()].abandoned {
            return false;
        }
        let other = &self.lines[side.other().index()];
        let waiting = !other.waiting.is_empty() && self.session.is_forwarding(side);
        let paused = waiting && other.blocked;
        if paused != self.lines[side.index()].paused {
            self.lines[side.index()].paused = paused;
            legs[side.index()].truth.note_pause(paused, now.world);
            if self.bug != Some(Bug::NoBackPressure) {
                self.session.handle_reading(side, !paused, now.own);
            }
        }
        if waiting {
            return false;
        }
        let mut items = Vec::new();
        let leg = &mut legs[side.index()];
        let (taken, opens) = leg.inward().take(READ_MAX, &mut items);
        if taken == 0 {
            return false;
        }
        leg.opens |= opens;
        leg.truth.note_read(now.world);
        self.heard_at[side.index()] = now.own;
        if self.bug != Some(Bug::MissedReset) || self.random.u8(..4) != 0 {
            self.session.handle_bytes(side, now.own);
        }
        for item in items {
            let passes = match item {
                Item::Data => true,
                Item::Pong(payload) => self.session.handle_pong(side, &payload, now.own) == Pong::Foreign,
                Item::Ping(_) => false,
            };
            if passes && self.session.is_forwarding(side) {
                let bytes = legs[side.index()].peer.send_bytes;
                let forwarded = if item == Item::Data { (bytes, item) } else { (14, Item::Data) };
                self.lines[side.other().index()].waiting.push_back(forwarded);
                self.flush(side.other(), legs, now);
            }
        }
        true
    }

    fn handle_timeouts(&mut self, legs: &mut [Leg; 2], own: &Own, now: Now) {
        let Some(at) = self.session.poll_timeout().filter(|&at| now.own >= at) else { return };
        let views = Side::BOTH.map(|side| self.kernel_view(side, legs, own, now));
        let told = if self.bug == Some(Bug::NoLateBrake) { at } else { now.own };
        self.session.handle_timeout(told, views);
    }

    fn kernel_view(&mut self, side: Side, legs: &mut [Leg; 2], own: &Own, now: Now) -> Option<KernelView> {
        let look = self.session.wants_kernel_view(side, now.own)?;
        if self.lines[side.index()].abandoned {
            return None;
        }
        let leg = &mut legs[side.index()];
        let view = leg.kernel_view(own, now.world);
        if look == Look::Delivery && view.is_some_and(|view| view.unacked_bytes == 0) {
            return Some(KernelView::all_taken());
        }
        let peeks = self.bug != Some(Bug::TimersBeforeReads);
        if peeks && !self.lines[side.index()].paused && leg.inward().waiting() > 0 {
            leg.truth.note_read(now.world);
            self.heard_at[side.index()] = now.own;
            self.session.handle_bytes(side, now.own);
        }
        let view = view?;
        // Without the clock of data in flight only a silence that was probed asks the kernel.
        let unasked = self.session.detector(side).probes_unanswered() == 0;
        Some(match self.bug {
            Some(Bug::NoInFlightLook) if unasked => KernelView::all_taken(),
            Some(Bug::BlindView) => KernelView { retransmits: 0, since_last_ack: Duration::ZERO, ..view },
            _ => view,
        })
    }

    /// Plants the bugs of what is told. All others leave the proof true: a machine that errs in when and whom
    /// has to be caught by what it does, not by what it says of it.
    fn distort(&self, note: Note, now: Now) -> Option<Note> {
        match note {
            Note::Recovered(_) if self.bug == Some(Bug::LostNote) => None,
            Note::Dead(side, mut verdict) if self.bug.is_some() => {
                verdict.silent_for = now.own - self.heard_at[side.index()];
                if self.bug == Some(Bug::WrongProof) {
                    verdict.silent_for = verdict.silent_for * 11 / 10;
                }
                Some(Note::Dead(side, verdict))
            }
            Note::Suspected(_)
            | Note::Recovered(_)
            | Note::Withheld(..)
            | Note::Spared(..)
            | Note::Dead(..)
            | Note::Delivery(_) => Some(note),
        }
    }

    fn carry_out(&mut self, side: Side, legs: &mut [Leg; 2], now: Now) -> bool {
        let mut progress = false;
        while let Some(order) = self.session.poll_order(side) {
            progress = true;
            let line = &mut self.lines[side.index()];
            line.closed = true;
            match order {
                Order::Close(_) => line.waiting.push_back((30, Item::Data)),
                Order::Finish => {}
                Order::Abandon(..) => line.abandoned = true,
            }
        }
        progress | self.probe(side, legs, now)
    }

    fn probe(&mut self, side: Side, legs: &mut [Leg; 2], now: Now) -> bool {
        // The gateway passes on what it has of a frame; here it waits to be whole, but its start is known.
        let next_has_begun = legs[side.other().index()].inward().is_within_item();
        let line = &mut self.lines[side.index()];
        if line.abandoned || line.closed || line.overtaken {
            return false;
        }
        // Behind the frame under way, if there is one and another waits behind it.
        let ahead = match line.waiting.front() {
            None => 0,
            Some(_) if !line.begun => 0,
            Some(&(left, _)) if line.waiting.len() > 1 || next_has_begun => left,
            Some(_) => return false,
        };
        let Ok(bytes_ahead) = usize::try_from(ahead) else { return false };
        let Some(probe) = self.session.poll_probe(side, now.own, bytes_ahead, 14) else { return false };
        line.overtaken = !line.waiting.is_empty();
        line.waiting.insert(usize::from(line.begun), (14, Item::Ping(probe.to_payload())));
        true
    }
}

/// How long a session takes to end once an end is under way.
pub(crate) const CLOSE_TIMEOUT: Time = 2 * SECOND;
