//! The failure detector of one leg.

mod flight;
mod habit;
mod probing;
mod sent;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulsegate_core::Cause;

use crate::doubt::{Doubt, Doubts};
use crate::limits::Limits;
use crate::rtt::RoundTrip;
use crate::verdict::{Evidence, KernelView, Look, Verdict};
use flight::Flight;
pub use habit::PongHabit;
use probing::{Due, Probing};
pub use sent::ProbeId;
use sent::SentProbes;

/// What the detector wants told to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A probe stays unanswered for longer than this peer's round trip explains.
    Suspected,
    /// A suspect was heard again.
    Recovered,
    /// A verdict was due, but the fault may be our own: the peer gets its chance first.
    Withheld(Doubt),
    /// A peer whose verdict was withheld so often is there: the fault was our own, or passing.
    Spared(Doubts),
    /// The peer is gone. Nothing comes after this.
    Dead(Box<Verdict>),
}

/// Whose pong it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// Answers a ping of ours.
    Ours {
        /// Which.
        id: ProbeId,
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
/// reading what already waits in the socket; then drain [`poll_event`](Detector::poll_event), call
/// [`poll_probe`](Detector::poll_probe) whenever a control frame may be written, and
/// [`handle_written`](Detector::handle_written) for what the socket takes.
///
/// # Guarantee
/// With timers on time and probes written when they are due, a silent peer is declared dead no later than
/// `ping_interval + verdict_after` after its last byte (one whose kernel acknowledges: `frozen_after`, if
/// that is longer; one that never pongs: `idle_timeout`). A peer whose bytes arrive within `verdict_after`
/// of the probe is not.
#[derive(Debug)]
pub struct Detector {
    limits: Arc<Limits>,
    round_trip: RoundTrip,
    habit: PongHabit,
    /// When the last byte came.
    heard_at: Instant,
    phase: Phase,
    sent: SentProbes,
    /// From here its silence counts: the last byte, moved on by the time in which we did not read.
    silent_since: Instant,
    /// How long a silence lasts before it is probed.
    quiet_for: Duration,
    /// We do not read this peer, so its silence says nothing.
    resting_since: Option<Instant>,
    flight: Flight,
    /// Doubts raised within the present silence.
    doubts: Doubts,
    /// No verdict falls before then: the chance that a doubt gives.
    grace_until: Option<Instant>,
    /// Silences with unanswered probes that ended without a pong, in a row.
    ignored: u8,
    /// The kernel that acknowledges what we write is not the peer's but that of a proxy in between.
    behind_proxy: bool,
    /// A call can have three things to tell: a stall that is over, a suspicion, and what follows from it.
    events: [Option<Event>; 3],
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Heard lately; `fresh`: not heard since the start.
    Quiet { fresh: bool },
    /// The first probe waits for a place between two frames.
    Due(Due),
    /// At least one probe is out.
    Probing(Probing),
    /// The verdict has fallen.
    Dead,
}

/// The phase of a peer that was just heard.
const HEARD: Phase = Phase::Quiet { fresh: false };

impl Detector {
    /// Starts with a peer that was heard `now`. The first probe is due at a random 0.5 to 1 of the
    /// interval, so that sessions opened together don't beat in step.
    pub fn new(limits: impl Into<Arc<Limits>>, seed: u64, now: Instant) -> Detector {
        let limits = limits.into();
        let mut random = fastrand::Rng::with_seed(seed);
        let latest = limits.latest_probe();
        let first = latest.mul_f64(0.5 + 0.5 * random.f64());
        Detector {
            limits,
            round_trip: RoundTrip::default(),
            habit: PongHabit::Unknown,
            heard_at: now,
            phase: Phase::Quiet { fresh: true },
            sent: SentProbes::new(random.u64(..)),
            silent_since: now,
            quiet_for: first,
            resting_since: None,
            flight: Flight::default(),
            doubts: Doubts::default(),
            grace_until: None,
            ignored: 0,
            behind_proxy: false,
            events: [const { None }; 3],
            random,
        }
    }

    /// Says that a proxy stands between us and the peer, so that a verdict does not mistake the kernel of one
    /// for that of the other.
    pub fn behind_proxy(self, behind_proxy: bool) -> Detector {
        Detector { behind_proxy, ..self }
    }

    /// Probes first when `other` does. Call it right after [`new`](Detector::new): then the two stay in step, since a
    /// probe that would soon be due goes out early if there is a call anyway, and their driver wakes up once for both.
    pub fn in_step_with(self, other: &Detector) -> Detector {
        Detector { quiet_for: other.quiet_for, ..self }
    }

    /// Takes note that bytes came from the peer, whatever they were.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.heard_at = now;
        self.silent_since = now;
        match self.phase {
            Phase::Quiet { fresh: false } => {}
            Phase::Quiet { fresh: true } => {
                self.draw_quiet();
                self.phase = HEARD;
            }
            Phase::Due(_) => self.phase = HEARD,
            Phase::Probing(probing) => {
                if probing.suspected && probing.count >= 2 {
                    self.note_ignored();
                }
                if probing.suspected {
                    self.tell(Event::Recovered);
                }
                self.phase = HEARD;
            }
            Phase::Dead => {}
        }
        self.grace_until = None;
        let doubts = std::mem::take(&mut self.doubts);
        self.tell_spared(doubts);
    }

    /// Takes a pong; its bytes were told to [`handle_bytes`](Detector::handle_bytes) as well.
    pub fn handle_pong(&mut self, payload: &[u8], now: Instant) -> Pong {
        let Some((id, sent_at)) = self.sent.find(payload) else { return Pong::Foreign };
        if self.sent.is_latest(payload) {
            self.handle_answer();
        }
        self.habit = PongHabit::Answers;
        self.ignored = 0;
        let round_trip = sent_at.map(|sent_at| now.saturating_duration_since(sent_at));
        let late = round_trip.is_none_or(|sample| sample > self.timeout());
        if let Some(sample) = round_trip {
            self.round_trip.handle_sample(sample);
        }
        Pong::Ours { id, round_trip, late }
    }

    /// Takes note that our kernel has given up the connection (`TCP_USER_TIMEOUT`, RFC 5482; or no route).
    pub fn handle_socket_timeout(&mut self, now: Instant) {
        if self.phase != Phase::Dead {
            let probes = self.probes_unanswered();
            let verdict = self.verdict(Cause::Unreachable, probes, Duration::ZERO, now, None);
            self.condemn(Verdict { evidence: vec![Evidence::SocketTimeout], ..verdict });
        }
    }

    /// Takes note that we stopped reading this peer (back-pressure): silence that we cause is no evidence.
    pub fn handle_rest(&mut self, now: Instant) {
        self.resting_since.get_or_insert(now);
    }

    /// Takes note that we read this peer again. Its silence goes on from where it stood, so that pauses,
    /// however many, hide no death.
    pub fn handle_resume(&mut self, now: Instant) {
        let Some(since) = self.resting_since.take() else { return };
        let pause = now.saturating_duration_since(since.max(self.heard_at));
        self.silent_since += pause;
        match &mut self.phase {
            Phase::Probing(probing) => {
                probing.since += pause;
                probing.verdict_at += pause;
                probing.next_at = probing.next_at.map(|at| at + pause);
            }
            Phase::Due(due) => {
                due.look_at += pause;
                due.in_flight_since = None;
                due.lost = false;
            }
            Phase::Quiet { .. } | Phase::Dead => {}
        }
    }

    /// Returns what of the kernel's view [`handle_timeout`](Detector::handle_timeout) at `now` should be given:
    /// only then does the look at it pay.
    pub fn wants_kernel_view(&self, now: Instant) -> Option<Look> {
        let look_late = self.flight_deadline().and_then(|deadline| now.checked_duration_since(deadline));
        let judged = match self.phase {
            Phase::Due(due) => now >= due.look_at,
            Phase::Probing(probing) => {
                now >= probing.verdict_at || probing.next_at.is_some_and(|next_at| now >= next_at)
            }
            // No probe is out, whose answer would have its time from the acknowledgement of what went before it.
            Phase::Quiet { .. } | Phase::Dead => {
                // One that came late is remembered, unless the acknowledgement is as fresh.
                let on_time = |late| late <= self.limits.lateness_max();
                return look_late.map(|late| if on_time(late) { Look::Delivery } else { Look::Peer });
            }
        };
        (look_late.is_some() || (judged && self.resting_since.is_none())).then_some(Look::Peer)
    }

    /// Does what is due at `now`. `mass` says that most peers of this kind are missing
    /// ([`Crowd::is_doubtful`](crate::Crowd::is_doubtful)).
    pub fn handle_timeout(&mut self, now: Instant, kernel: Option<KernelView>, mass: bool) {
        if let Some(kernel) = kernel {
            self.observe(kernel, now);
        }
        if self.resting_since.is_none() {
            match self.phase {
                Phase::Quiet { .. } if now >= self.probe_soon_at() => {
                    self.start_due(now, now.saturating_duration_since(self.probe_at()));
                }
                Phase::Due(due) => self.handle_due(due, now, kernel, mass),
                Phase::Probing(probing) => self.handle_probing(probing, now, kernel, mass),
                Phase::Quiet { .. } | Phase::Dead => {}
            }
        }
        self.handle_flight(now, kernel, mass);
    }

    /// Returns when [`handle_timeout`](Detector::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Quiet { .. } => Some(self.probe_at()),
            Phase::Probing(probing) => {
                Some(probing.next_at.map_or(probing.verdict_at, |at| at.min(probing.verdict_at)))
            }
            Phase::Due(due) => Some(due.look_at),
            Phase::Dead => None,
        };
        let phase = phase.filter(|_| self.resting_since.is_none());
        [phase, self.flight_deadline()].into_iter().flatten().min()
    }

    /// Returns the next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.iter_mut().find_map(Option::take)
    }

    /// Returns whether the peer is not read at the moment.
    pub fn is_resting(&self) -> bool {
        self.resting_since.is_some()
    }

    /// Returns whether a probe stays unanswered for longer than the round trip explains.
    pub fn is_suspect(&self) -> bool {
        matches!(self.phase, Phase::Probing(Probing { suspected: true, .. }))
    }

    /// Returns whether the peer is a suspect that used to answer, or never had to; or one that no probe can
    /// reach, since what stands before it is lost.
    pub fn is_missing(&self) -> bool {
        let lost = matches!(self.phase, Phase::Due(Due { lost: true, .. }));
        (self.is_suspect() || lost) && self.habit != PongHabit::Never
    }

    /// Returns when the last byte came.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Returns how many bytes the socket has taken.
    pub fn written(&self) -> u64 {
        self.flight.written
    }

    /// Returns how many of them the peer's kernel has.
    pub fn delivered(&self, kernel: KernelView) -> u64 {
        self.flight.delivered(kernel)
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
            Phase::Quiet { .. } | Phase::Due(_) | Phase::Dead => 0,
        }
    }

    /// RFC 6298's timeout, at most a quarter of `verdict_after`: with gaps that double, the third probe then
    /// goes out within three quarters of it.
    fn timeout(&self) -> Duration {
        self.round_trip.timeout(self.limits.verdict_after / 4)
    }

    /// Returns when the present silence is probed.
    fn probe_at(&self) -> Instant {
        self.silent_since + self.quiet_for
    }

    /// Returns from when on it may be probed, if there is a call anyway.
    fn probe_soon_at(&self) -> Instant {
        self.probe_at().min(self.silent_since + self.limits.earliest_probe())
    }

    /// Draws how long the silences from now on last before they are probed.
    pub(super) fn draw_quiet(&mut self) {
        let (earliest, latest) = (self.limits.earliest_probe(), self.limits.latest_probe());
        self.quiet_for = earliest + (latest - earliest).mul_f64(self.random.f64());
    }

    fn tell(&mut self, event: Event) {
        let slot = self.events.iter_mut().find(|slot| slot.is_none());
        debug_assert!(slot.is_some(), "no room to tell {event:?}");
        if let Some(slot) = slot {
            *slot = Some(event);
        }
    }

    fn tell_spared(&mut self, doubts: Doubts) {
        if doubts.withheld() > 0 && self.phase != Phase::Dead {
            self.tell(Event::Spared(doubts));
        }
    }

    /// Puts verdicts off until then, for the doubt just raised.
    fn withhold(&mut self, doubts: Doubts, until: Instant) {
        self.grace_until = Some(until);
        if let Some(doubt) = doubts.latest {
            self.tell(Event::Withheld(doubt));
        }
    }

    fn condemn(&mut self, verdict: Verdict) {
        self.phase = Phase::Dead;
        self.tell(Event::Dead(Box::new(verdict)));
    }

    fn verdict(
        &self,
        cause: Cause,
        probes: u32,
        late: Duration,
        now: Instant,
        kernel: Option<KernelView>,
    ) -> Verdict {
        let doubts = self.doubts.with(self.flight.doubts);
        let stalled_for = self.flight.waiting_for(now).filter(|_| cause == Cause::WriteStalled);
        Verdict {
            cause,
            evidence: Evidence::of(probes, kernel, stalled_for),
            silent_for: now.saturating_duration_since(self.heard_at),
            probes_unanswered: probes,
            probes_sent: self.sent.times_since(self.heard_at, probes),
            write_stalled_for: stalled_for,
            kernel,
            behind_proxy: self.behind_proxy,
            timer_lag: late,
            withheld: doubts.withheld(),
            doubt: doubts.latest,
            doubts,
            round_trip: self.round_trip.smoothed(),
        }
    }
}
