//! Probes that are out, and the verdict on a peer that answers none of them.

use std::time::{Duration, Instant};

use pulsegate_core::Cause;

use super::{Detector, Event, Phase, PongHabit, ProbeId};
use crate::doubt::Lateness;
use crate::verdict::KernelView;

/// A verdict needs this many unanswered probes.
pub(super) const PROBES_MIN: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probing {
    pub(super) since: Instant,
    pub(super) count: u32,
    /// When the next probe is due; `None`: it waits for a place between two frames.
    pub(super) next_at: Option<Instant>,
    pub(super) gap: Duration,
    pub(super) suspected: bool,
    pub(super) verdict_at: Instant,
    /// How late the timers of this silence ran.
    pub(super) late: Lateness,
    /// Bytes that went before the first of these probes.
    pub(super) position: u64,
    /// At the last look the peer's kernel had not taken all that went before.
    pub(super) behind: bool,
}

/// The first probe waits for a place between two frames, and then for the socket to take it. Meanwhile only
/// the kernel can tell of a dead path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) look_at: Instant,
    /// From here on bytes were in flight, and no acknowledgement came.
    pub(super) in_flight_since: Option<Instant>,
    /// Our kernel asked again in vain from one look to the next.
    pub(super) lost: bool,
    /// How late the timers of this silence ran.
    pub(super) late: Lateness,
    /// Bytes that go before the probe, once it has its place.
    pub(super) position: Option<u64>,
}

impl Detector {
    /// Returns whether a probe waits for a place between two frames.
    pub fn is_probe_due(&self) -> bool {
        let due = matches!(
            self.phase,
            Phase::Due(Due { position: None, .. }) | Phase::Probing(Probing { next_at: None, .. })
        );
        due && self.resting_since.is_none()
    }

    /// Returns the probe to write, if one is due. Call it only where a control frame may be put, with `ahead` bytes
    /// before it that the socket has not taken, in a frame of `len` bytes. The clock of the verdict starts when
    /// the socket has taken the first ([`handle_written`](Detector::handle_written)).
    pub fn poll_probe(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        if !self.is_probe_due() {
            return None;
        }
        match &mut self.phase {
            Phase::Due(due) => due.position = Some(self.flight.written + ahead as u64),
            Phase::Probing(probing) => {
                probing.count = probing.count.saturating_add(1);
                // Gaps double; a silence that outlasts `verdict_after` (frozen, never pongs) is probed on,
                // so that the kernel has something unacknowledged to judge by.
                probing.gap = (probing.gap * 2).min(self.limits.verdict_after / 2);
                probing.next_at = Some(now + probing.gap);
            }
            Phase::Quiet { .. } | Phase::Dead => {}
        }
        self.flight.queue_probe(ahead, len);
        Some(self.sent.push(now))
    }

    /// Returns a ping to write although nobody doubts that the peer is there, to learn what it has read; `None` while a
    /// probe is out or waits, whose answer tells more. Put it where [`poll_probe`](Detector::poll_probe) may put one, with
    /// `ahead` bytes before it that the socket has not taken, in a frame of `len` bytes.
    pub fn poll_barrier(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        let quiet = matches!(self.phase, Phase::Quiet { .. }) && !self.flight.is_probe_waiting();
        quiet.then(|| {
            self.flight.queue_probe(ahead, len);
            self.sent.push(now)
        })
    }

    /// The socket took a probe: from here on an answer is possible.
    pub(super) fn handle_probe_written(&mut self, now: Instant) {
        self.sent.stamp_latest(now);
        let Phase::Due(Due { position: Some(position), late, .. }) = self.phase else { return };
        let gap = self.timeout();
        // If it leaves while we don't read, its time begins with the next read; `handle_resume` sees to that.
        let since = self.resting_since.unwrap_or(now);
        self.phase = Phase::Probing(Probing {
            since,
            count: 1,
            next_at: Some(since + gap),
            gap,
            suspected: false,
            verdict_at: since + self.limits.verdict_after,
            late,
            position,
            behind: false,
        });
    }

    /// Takes note of whether the peer's kernel has taken what went before the first probe. If that took long (a
    /// slow line), the answer has its time from there.
    pub(super) fn note_delivery(&mut self, kernel: KernelView, now: Instant) {
        let delivered = self.flight.delivered(kernel);
        let Phase::Probing(probing) = &mut self.phase else { return };
        let was_behind = std::mem::replace(&mut probing.behind, delivered < probing.position);
        if was_behind && !probing.behind {
            let verdict_after = self.limits.verdict_after;
            let until = match self.resting_since {
                // `handle_resume` adds the pause.
                Some(since) => since + verdict_after,
                None => now + verdict_after.saturating_sub(kernel.since_last_ack),
            };
            probing.verdict_at = probing.verdict_at.max(until);
        }
    }

    pub(super) fn start_due(&mut self, now: Instant, late: Duration) {
        let look_at = now + self.limits.verdict_after / 8;
        // Once a probe, and not with every byte that is heard.
        self.draw_quiet();
        let mut lateness = Lateness::default();
        lateness.note(late, now, &self.limits);
        self.phase =
            Phase::Due(Due { look_at, in_flight_since: None, lost: false, late: lateness, position: None });
    }

    /// Looks whether bytes stay unacknowledged from one look to the next, for as long as a verdict takes.
    pub(super) fn handle_due(&mut self, mut due: Due, now: Instant, kernel: Option<KernelView>, mass: bool) {
        if now < due.look_at {
            return;
        }
        let late = now - due.look_at;
        due.late.note(late, now, &self.limits);
        let step = self.limits.verdict_after / 8;
        let in_flight = kernel.filter(|kernel| kernel.unacked_bytes > 0);
        let since = due.in_flight_since.filter(|_| in_flight.is_some() && late <= self.limits.lateness_max());
        due.lost = since.zip(kernel).is_some_and(|(since, kernel)| kernel.is_path_dead(now - since));
        let over = since.is_some_and(|since| now - since >= step * 7);
        due.in_flight_since = since.filter(|_| due.lost || !over).or(in_flight.map(|_| now));
        // A first look again soon tells whether it is missing, the last one judges.
        due.look_at = since.map_or(now + step, |since| (since + step * 7).max(now + step));
        // No probe is out, so the last acknowledgement is the last sign of life: the verdict counts from there.
        let left = in_flight
            .filter(|_| due.lost && over)
            .map(|kernel| self.limits.verdict_after.saturating_sub(kernel.since_last_ack));
        if let Some(until) = self.grace_until.filter(|&until| now < until) {
            due.look_at = until;
        } else if let Some(left) = left {
            if !left.is_zero() {
                due.look_at = now + left;
            } else if self.doubts.raise_mass(mass) {
                due.look_at = now + self.limits.verdict_after;
                self.withhold(self.doubts, due.look_at);
            } else {
                let verdict = self.verdict(Cause::Unreachable, 0, due.late.most, now, kernel);
                self.condemn(verdict);
                return;
            }
        }
        self.phase = Phase::Due(due);
    }

    pub(super) fn handle_probing(
        &mut self,
        mut probing: Probing,
        now: Instant,
        kernel: Option<KernelView>,
        mass: bool,
    ) {
        if let Some(at) = probing.next_at.filter(|&at| now >= at) {
            probing.next_at = None;
            probing.late.note(now - at, now, &self.limits);
            if !probing.suspected {
                probing.suspected = true;
                self.tell(Event::Suspected);
            }
        }
        self.phase = Phase::Probing(probing);
        if now < probing.verdict_at {
            return;
        }
        if let Some(until) = self.grace_until.filter(|&until| now < until) {
            self.phase = Phase::Probing(Probing { verdict_at: until, ..probing });
            return;
        }
        probing.late.note(now - probing.verdict_at, now, &self.limits);
        match self.judge(probing, now, kernel) {
            Judgement::Dead(cause) => self.condemn_unless_doubtful(cause, probing, now, kernel, mass),
            Judgement::Wait(until) => {
                self.phase = Phase::Probing(Probing { verdict_at: until, ..probing });
            }
        }
    }

    fn condemn_unless_doubtful(
        &mut self,
        cause: Cause,
        probing: Probing,
        now: Instant,
        kernel: Option<KernelView>,
        mass: bool,
    ) {
        let late = now - probing.verdict_at;
        let verdict_after = self.limits.verdict_after;
        if let Some(lost) = self.doubts.raise_lost(late, probing.late, now, &self.limits) {
            // We slept, so the peer may have answered into a void: it gets back the time we lost.
            let chance = lost.max(self.timeout() * 2).min(verdict_after);
            self.withhold_probing(probing, now + chance);
        } else if self.is_hasty(cause) && self.doubts.raise_mass(mass) {
            // A kernel that was cut off asks again at growing intervals: as late as twice the outage.
            self.withhold_probing(probing, now + verdict_after);
        } else {
            let verdict = self.verdict(cause, probing.count, probing.late.most, now, kernel);
            self.condemn(verdict);
        }
    }

    /// A frozen process that has a longer limit of its own has had its chance when that is over.
    fn is_hasty(&self, cause: Cause) -> bool {
        cause == Cause::Unreachable || self.limits.frozen_after <= self.limits.bound()
    }

    /// Puts the verdict off for the doubt just raised, and probes again at once.
    fn withhold_probing(&mut self, probing: Probing, verdict_at: Instant) {
        self.phase = Phase::Probing(Probing { verdict_at, next_at: None, ..probing });
        self.withhold(self.doubts, verdict_at);
    }

    fn judge(&self, probing: Probing, now: Instant, kernel: Option<KernelView>) -> Judgement {
        let verdict_after = self.limits.verdict_after;
        let probed_for = now - probing.since;
        // What the peer sends again, since it does not hear us either, carries an acknowledgement of nothing new.
        let stuck_at = self.flight.waiting_since.map(|since| since + verdict_after);
        let stuck = stuck_at.is_some_and(|at| now >= at);
        let queued = kernel.is_some_and(|kernel| self.flight.delivered(kernel) <= probing.position);
        let unheard = queued && stuck && kernel.is_some_and(|kernel| kernel.is_path_dead(Duration::ZERO));
        if unheard || kernel.is_some_and(|kernel| kernel.is_path_dead(probed_for.min(verdict_after))) {
            return Judgement::Dead(Cause::Unreachable);
        }
        if probing.count < PROBES_MIN {
            // The rest still waits for a place between two frames.
            return Judgement::Wait(now + verdict_after / 4);
        }
        // On a slow line the probe may stand behind data that the peer's kernel is still taking: nobody can
        // have answered it yet.
        let idle_at = self.silent_since + self.limits.idle_timeout;
        if queued && !stuck && now < idle_at {
            return Judgement::Wait(stuck_at.unwrap_or(now + verdict_after / 4).min(idle_at));
        }
        let limit = match (self.habit, kernel) {
            (PongHabit::Never, _) => Some(self.limits.idle_timeout),
            (PongHabit::Unknown | PongHabit::Answers, Some(_)) => Some(self.limits.frozen_after),
            (PongHabit::Unknown | PongHabit::Answers, None) => None,
        };
        // A limit at or below the bound adds nothing to it.
        if let Some(limit) = limit.filter(|&limit| limit > self.limits.bound()) {
            let until = self.silent_since + limit;
            if now < until {
                // Should the path die meanwhile, `verdict_after` from the last acknowledgement is enough.
                let recheck = kernel.map_or(verdict_after, |kernel| {
                    verdict_after.saturating_sub(kernel.since_last_ack).max(verdict_after / 8)
                });
                return Judgement::Wait(until.min(now + recheck));
            }
        }
        Judgement::Dead(if kernel.is_some() { Cause::Frozen } else { Cause::Unreachable })
    }
}

enum Judgement {
    Dead(Cause),
    Wait(Instant),
}
