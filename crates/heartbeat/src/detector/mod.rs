//! The failure detector of one leg.

mod sent;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use pulsegate_core::Cause;

use crate::limits::Limits;
use crate::rtt::RoundTrip;
use crate::verdict::{KernelView, Verdict};
pub use sent::ProbeId;
use sent::SentProbes;

/// A verdict needs this many unanswered probes.
const PROBES_MIN: u32 = 3;

/// A verdict is put off at most this often within one silence.
const WITHHELD_MAX: u32 = 3;

/// What the detector wants told to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A probe stays unanswered for longer than this peer's round trip explains.
    Suspected,
    /// A suspect was heard again.
    Recovered,
    /// A verdict was due, but our own timers ran late: the peer gets its chance first.
    Withheld,
    /// The peer is gone. Nothing comes after this.
    Dead(Box<Verdict>),
}

/// Whether the peer answers WebSocket pings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PongHabit {
    /// No probe was answered yet, and no evidence against it.
    Unknown,
    /// It has answered.
    Answers,
    /// It left probes unanswered and went on sending: some native stacks do.
    Never,
}

impl PongHabit {
    /// Returns the value shown in the control API.
    pub fn as_str(self) -> &'static str {
        match self {
            PongHabit::Unknown => "unknown",
            PongHabit::Answers => "answers",
            PongHabit::Never => "never",
        }
    }
}

/// Whose pong it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// Answers a probe of ours.
    Ours {
        /// Time since that probe, where it is still known.
        round_trip: Option<Duration>,
        /// It came later than the round-trip timeout.
        late: bool,
    },
    /// Answers nothing that we sent.
    Foreign,
}

/// Decides whether the peer of one leg is still there.
///
/// Evidence of life is inbound only: any byte counts, nothing that we send does. Call
/// [`handle_bytes`](Detector::handle_bytes) for whatever arrives and
/// [`handle_timeout`](Detector::handle_timeout) when [`poll_timeout`](Detector::poll_timeout) is due, after
/// reading what already waits in the socket; then drain [`poll_event`](Detector::poll_event), and call
/// [`poll_probe`](Detector::poll_probe) whenever a control frame may be written.
///
/// # Guarantee
/// With timers on time and probes written when they are due, a silent peer is declared dead no later than
/// `ping_interval + verdict_after` after its last byte (one whose kernel acknowledges: `frozen_after`, if
/// that is longer; one that never pongs: `idle_timeout`). A peer whose bytes arrive within `verdict_after`
/// of the probe is not.
#[derive(Debug)]
pub struct Detector {
    limits: Limits,
    round_trip: RoundTrip,
    habit: PongHabit,
    /// When the last byte came.
    heard_at: Instant,
    phase: Phase,
    sent: SentProbes,
    /// Since when bytes have waited for a peer that takes none.
    blocked_since: Option<Instant>,
    /// The kernel vouched for a peer with a blocked write: look again then.
    blocked_look_at: Option<Instant>,
    event: Option<Event>,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Heard lately.
    Quiet { probe_at: Instant },
    /// The first probe waits for a place between two frames.
    Due,
    /// At least one probe is out.
    Probing(Probing),
    /// We do not read this peer, so its silence says nothing.
    Resting,
    /// The verdict has fallen.
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probing {
    since: Instant,
    count: u32,
    /// When the next probe is due; `None`: it waits for a place between two frames.
    next_at: Option<Instant>,
    gap: Duration,
    suspected: bool,
    verdict_at: Instant,
    withheld: u32,
}

impl Detector {
    /// Starts with a peer that was heard `now`. The first probe is due at a random 0.5 to 1 of the
    /// interval, so that sessions opened together don't beat in step.
    pub fn new(limits: Limits, seed: u64, now: Instant) -> Detector {
        let mut random = fastrand::Rng::with_seed(seed);
        let share = 0.5 + 0.48 * random.f64();
        Detector {
            limits,
            round_trip: RoundTrip::default(),
            habit: PongHabit::Unknown,
            heard_at: now,
            phase: Phase::Quiet { probe_at: now + limits.ping_interval.mul_f64(share) },
            sent: SentProbes::new(random.u64(..)),
            blocked_since: None,
            blocked_look_at: None,
            event: None,
            random,
        }
    }

    /// Takes note that bytes came from the peer, whatever they were.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.heard_at = now;
        match self.phase {
            Phase::Quiet { .. } | Phase::Due => self.start_silence(now),
            Phase::Probing(probing) => {
                if self.habit == PongHabit::Unknown && probing.suspected && probing.count >= 2 {
                    self.habit = PongHabit::Never;
                }
                if probing.suspected {
                    self.event = Some(Event::Recovered);
                }
                self.start_silence(now);
            }
            Phase::Resting | Phase::Dead => {}
        }
    }

    /// Takes a pong; its bytes were told to [`handle_bytes`](Detector::handle_bytes) as well.
    pub fn handle_pong(&mut self, payload: &[u8], now: Instant) -> Pong {
        let Some(sent_at) = self.sent.find(payload) else { return Pong::Foreign };
        self.habit = PongHabit::Answers;
        let round_trip = sent_at.map(|sent_at| now.saturating_duration_since(sent_at));
        let late = round_trip.is_none_or(|sample| sample > self.timeout());
        if let Some(sample) = round_trip {
            self.round_trip.handle_sample(sample);
        }
        Pong::Ours { round_trip, late }
    }

    /// Takes note that we stopped reading this peer (back-pressure): silence that we cause is no evidence.
    pub fn handle_rest(&mut self) {
        match self.phase {
            Phase::Quiet { .. } | Phase::Due => self.phase = Phase::Resting,
            Phase::Probing(probing) => {
                if probing.suspected {
                    self.event = Some(Event::Recovered);
                }
                self.phase = Phase::Resting;
            }
            Phase::Resting | Phase::Dead => {}
        }
    }

    /// Takes note that we read this peer again; its silence counts from now.
    pub fn handle_resume(&mut self, now: Instant) {
        if self.phase == Phase::Resting {
            self.start_silence(now);
        }
    }

    /// Takes note that bytes wait for this peer and its socket takes none; counts from the first call.
    pub fn handle_write_blocked(&mut self, now: Instant) {
        if self.blocked_since.is_none() {
            self.blocked_since = Some(now);
            self.blocked_look_at = None;
        }
    }

    /// Takes note that the socket took bytes; call [`handle_write_blocked`](Detector::handle_write_blocked)
    /// again if some still wait.
    pub fn handle_write_progress(&mut self) {
        self.blocked_since = None;
        self.blocked_look_at = None;
    }

    /// Returns whether [`handle_timeout`](Detector::handle_timeout) at `now` should be given the kernel's
    /// view: only then does the look at it pay.
    pub fn wants_kernel_view(&self, now: Instant) -> bool {
        let verdict_due = match self.phase {
            Phase::Probing(probing) => now >= probing.verdict_at,
            Phase::Quiet { .. } | Phase::Due | Phase::Resting | Phase::Dead => false,
        };
        verdict_due || self.blocked_deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, kernel: Option<KernelView>) {
        match self.phase {
            Phase::Quiet { probe_at } if now >= probe_at => self.phase = Phase::Due,
            Phase::Probing(probing) => self.handle_probing(probing, now, kernel),
            Phase::Quiet { .. } | Phase::Due | Phase::Resting | Phase::Dead => {}
        }
        self.handle_blocked_timeout(now, kernel);
    }

    /// Returns the probe to write, if one is due. Call it only where a control frame may be written now; the
    /// clock of the verdict starts with the first.
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbeId> {
        match self.phase {
            Phase::Due => {
                let gap = self.timeout();
                self.phase = Phase::Probing(Probing {
                    since: now,
                    count: 1,
                    next_at: Some(now + gap),
                    gap,
                    suspected: false,
                    verdict_at: now + self.limits.verdict_after,
                    withheld: 0,
                });
                Some(self.sent.push(now))
            }
            Phase::Probing(ref mut probing) if probing.next_at.is_none() => {
                probing.count = probing.count.saturating_add(1);
                // Gaps double; a silence that outlasts `verdict_after` (frozen, never pongs) is probed on,
                // so that the kernel has something unacknowledged to judge by.
                probing.gap = (probing.gap * 2).min(self.limits.verdict_after / 2);
                probing.next_at = Some(now + probing.gap);
                Some(self.sent.push(now))
            }
            Phase::Quiet { .. } | Phase::Probing(_) | Phase::Resting | Phase::Dead => None,
        }
    }

    /// Returns when [`handle_timeout`](Detector::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Quiet { probe_at } => Some(probe_at),
            Phase::Probing(probing) => {
                Some(probing.next_at.map_or(probing.verdict_at, |at| at.min(probing.verdict_at)))
            }
            Phase::Due | Phase::Resting | Phase::Dead => None,
        };
        [phase, self.blocked_deadline()].into_iter().flatten().min()
    }

    /// Returns the next thing to tell; at most one waits.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Returns whether a probe stays unanswered for longer than the round trip explains.
    pub fn is_suspect(&self) -> bool {
        matches!(self.phase, Phase::Probing(Probing { suspected: true, .. }))
    }

    /// Returns when the last byte came.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Returns the smoothed round trip, once known.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.smoothed()
    }

    /// Returns whether the peer answers pings.
    pub fn pong_habit(&self) -> PongHabit {
        self.habit
    }

    /// Returns how many probes of this silence are unanswered.
    pub fn probes_unanswered(&self) -> u32 {
        match self.phase {
            Phase::Probing(probing) => probing.count,
            Phase::Quiet { .. } | Phase::Due | Phase::Resting | Phase::Dead => 0,
        }
    }

    /// RFC 6298's timeout, at most a quarter of `verdict_after`: with gaps that double, the third probe then
    /// goes out within three quarters of it.
    fn timeout(&self) -> Duration {
        self.round_trip.timeout(self.limits.verdict_after / 4)
    }

    /// The probe goes out at 0.9 to 0.98 of the interval: spread, and with room for our own scheduling
    /// within the bound that we state.
    fn start_silence(&mut self, now: Instant) {
        let share = 0.90 + 0.08 * self.random.f64();
        self.phase = Phase::Quiet { probe_at: now + self.limits.ping_interval.mul_f64(share) };
    }

    fn handle_probing(&mut self, mut probing: Probing, now: Instant, kernel: Option<KernelView>) {
        if probing.next_at.is_some_and(|at| now >= at) {
            probing.next_at = None;
            if !probing.suspected {
                probing.suspected = true;
                self.event = Some(Event::Suspected);
            }
        }
        self.phase = Phase::Probing(probing);
        if now < probing.verdict_at {
            return;
        }
        let late = now - probing.verdict_at;
        // Tolerance doubles with each time, so that a machine which is always late delays verdicts by its
        // lateness, not for ever.
        let tolerated = self.limits.lateness_max() * (1 << probing.withheld);
        if late > tolerated && probing.withheld < WITHHELD_MAX {
            // We slept, so the peer may have answered into a void: it gets back the time we lost.
            let chance = late.max(self.timeout() * 2).min(self.limits.verdict_after);
            self.phase = Phase::Probing(Probing {
                verdict_at: now + chance,
                next_at: None,
                withheld: probing.withheld + 1,
                ..probing
            });
            self.event = Some(Event::Withheld);
            return;
        }
        match self.judge(probing, now, kernel) {
            Judgement::Dead(cause) => self.condemn(cause, probing, late, now, kernel),
            Judgement::Wait(until) => {
                self.phase = Phase::Probing(Probing { verdict_at: until, ..probing });
            }
        }
    }

    fn judge(&self, probing: Probing, now: Instant, kernel: Option<KernelView>) -> Judgement {
        let verdict_after = self.limits.verdict_after;
        if probing.count < PROBES_MIN {
            // The rest still waits for a place between two frames.
            return Judgement::Wait(now + verdict_after / 4);
        }
        let probed_for = now - probing.since;
        if kernel.is_some_and(|kernel| kernel.is_path_dead(probed_for.min(verdict_after))) {
            return Judgement::Dead(Cause::Unreachable);
        }
        let limit = match (self.habit, kernel) {
            (PongHabit::Never, _) => Some(self.limits.idle_timeout),
            (PongHabit::Unknown | PongHabit::Answers, Some(_)) => Some(self.limits.frozen_after),
            (PongHabit::Unknown | PongHabit::Answers, None) => None,
        };
        // A limit at or below the bound adds nothing to it.
        if let Some(limit) = limit.filter(|&limit| limit > self.limits.bound()) {
            let until = self.heard_at + limit;
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

    /// A peer that takes nothing is looked at when its silence reaches the bound (no probe can reach it, so
    /// the missing progress stands in for the unanswered probes); one that goes on sending, or that we don't
    /// read, after as long without progress.
    fn blocked_deadline(&self) -> Option<Instant> {
        let since = self.blocked_since?;
        let silent = match self.phase {
            Phase::Dead => return None,
            Phase::Resting => since,
            Phase::Quiet { .. } | Phase::Due | Phase::Probing(_) => self.heard_at,
        };
        let first_look = (since + self.limits.verdict_after).max(silent + self.limits.bound());
        Some(self.blocked_look_at.unwrap_or(first_look.min(since + self.limits.write_stall_after)))
    }

    fn handle_blocked_timeout(&mut self, now: Instant, kernel: Option<KernelView>) {
        let (Some(since), Some(deadline)) = (self.blocked_since, self.blocked_deadline()) else { return };
        if now < deadline {
            return;
        }
        let frozen = self.phase != Phase::Resting
            && now >= self.heard_at + self.limits.frozen_after.max(self.limits.bound());
        let until = since + self.limits.write_stall_after;
        let cause = match kernel {
            Some(kernel) if kernel.is_path_dead(self.limits.verdict_after) => Cause::Unreachable,
            Some(_) | None if now >= until || frozen => Cause::WriteStalled,
            Some(_) | None => {
                self.blocked_look_at = Some(until.min(now + self.limits.verdict_after / 2));
                return;
            }
        };
        let probing = match self.phase {
            Phase::Probing(probing) => probing,
            Phase::Quiet { .. } | Phase::Due | Phase::Resting | Phase::Dead => Probing {
                since: now,
                count: 0,
                next_at: None,
                gap: Duration::ZERO,
                suspected: false,
                verdict_at: deadline,
                withheld: 0,
            },
        };
        self.condemn(cause, probing, now - deadline, now, kernel);
    }

    fn condemn(
        &mut self,
        cause: Cause,
        probing: Probing,
        late: Duration,
        now: Instant,
        kernel: Option<KernelView>,
    ) {
        self.phase = Phase::Dead;
        self.event = Some(Event::Dead(Box::new(Verdict {
            cause,
            silent_for: now.saturating_duration_since(self.heard_at),
            probes_unanswered: probing.count,
            probes_sent: self.sent.times_since(self.heard_at, probing.count),
            write_blocked_for: self.blocked_since.map(|since| now - since),
            kernel,
            timer_lag: late,
            withheld: probing.withheld,
            round_trip: self.round_trip.smoothed(),
        })));
    }
}

enum Judgement {
    Dead(Cause),
    Wait(Instant),
}
