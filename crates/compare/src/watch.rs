//! The detectors under one roof: a timer, an answer, a verdict.

use std::time::{Duration, Instant};

use fastrand::Rng;
use pulsegate_heartbeat::{Detector, Event, Limits};

use crate::phi::{Phi, PhiSetting};
use crate::trace::Micros;

/// What a detector does when its timer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Wait,
    Probe([u8; 8]),
    Evict,
}

/// A detector that watches one session.
pub(crate) trait Watch {
    /// Returns when [`tick`](Watch::tick) is due.
    fn due(&self) -> Micros;
    fn tick(&mut self, now: Micros) -> Act;
    /// Takes an answer, with what the probe carried.
    fn answer(&mut self, payload: [u8; 8], now: Micros);
}

/// A detector and its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Fixed { interval: Micros },
    PingTimeout { interval: Micros, timeout: Micros },
    Phi(PhiSetting),
    Pulsegate { interval: Micros, verdict_after: Micros },
}

impl Kind {
    /// Starts to watch a session that opens `now`. The time of the first probe is random, as sessions open at
    /// any time.
    pub(crate) fn start(&self, random: &mut Rng, now: Micros) -> Box<dyn Watch> {
        match *self {
            Kind::Fixed { interval } => {
                Box::new(Fixed { interval, next: now + random.u64(..interval), alive: true })
            }
            Kind::PingTimeout { interval, timeout } => {
                Box::new(PingTimeout { interval, timeout, ping_at: now + interval, evict_at: None })
            }
            Kind::Phi(setting) => Box::new(Phi::new(setting, now + random.u64(..setting.interval), now)),
            Kind::Pulsegate { interval, verdict_after } => {
                Box::new(Pulsegate::new(interval, verdict_after, random.u64(..), now))
            }
        }
    }
}

/// The example of the `ws` README: at each tick, terminate who has not answered since the last, and ping.
#[derive(Debug)]
struct Fixed {
    interval: Micros,
    next: Micros,
    alive: bool,
}

impl Watch for Fixed {
    fn due(&self) -> Micros {
        self.next
    }

    fn tick(&mut self, now: Micros) -> Act {
        if !self.alive {
            return Act::Evict;
        }
        self.alive = false;
        self.next = now + self.interval;
        Act::Probe([0; 8])
    }

    fn answer(&mut self, _payload: [u8; 8], _now: Micros) {
        self.alive = true;
    }
}

/// As Socket.IO does it: `pingInterval` after the last answer a ping, `pingTimeout` after that the end.
#[derive(Debug)]
struct PingTimeout {
    interval: Micros,
    timeout: Micros,
    ping_at: Micros,
    evict_at: Option<Micros>,
}

impl Watch for PingTimeout {
    fn due(&self) -> Micros {
        self.evict_at.unwrap_or(self.ping_at)
    }

    fn tick(&mut self, now: Micros) -> Act {
        if self.evict_at.is_some() {
            return Act::Evict;
        }
        self.evict_at = Some(now + self.timeout);
        Act::Probe([0; 8])
    }

    fn answer(&mut self, _payload: [u8; 8], now: Micros) {
        self.evict_at = None;
        self.ping_at = now + self.interval;
    }
}

/// The gateway's own detector, without a kernel's view: it gets no more than the others.
struct Pulsegate {
    detector: Detector,
    origin: Instant,
}

impl Pulsegate {
    fn new(interval: Micros, verdict_after: Micros, seed: u64, now: Micros) -> Pulsegate {
        let origin = origin();
        let ping_interval = Duration::from_micros(interval);
        let verdict_after = Duration::from_micros(verdict_after);
        let bound = ping_interval + verdict_after;
        let limits = Limits {
            ping_interval,
            verdict_after,
            frozen_after: bound,
            // Quiet sessions that answer pings meet neither of these.
            idle_timeout: bound * 6,
            write_stall_after: bound,
        };
        let detector = Detector::new(limits, seed, origin + Duration::from_micros(now));
        Pulsegate { detector, origin }
    }

    fn at(&self, now: Micros) -> Instant {
        self.origin + Duration::from_micros(now)
    }
}

/// A ping with eight bytes of payload.
const PING_BYTES: usize = 10;

impl Watch for Pulsegate {
    fn due(&self) -> Micros {
        let since = self.detector.poll_timeout().map(|at| at.saturating_duration_since(self.origin));
        // Up to the next microsecond, so that no timer is early.
        since.map_or(Micros::MAX, |since| since.as_nanos().div_ceil(1_000) as Micros)
    }

    fn tick(&mut self, now: Micros) -> Act {
        let now = self.at(now);
        self.detector.handle_timeout(now, None, false);
        while let Some(event) = self.detector.poll_event() {
            match event {
                Event::Dead(_) => return Act::Evict,
                Event::Suspected | Event::Recovered | Event::Withheld(_) | Event::Spared(_) => {}
            }
        }
        let Some(id) = self.detector.poll_probe(now, 0, PING_BYTES) else { return Act::Wait };
        self.detector.handle_written(PING_BYTES, now);
        Act::Probe(id.to_payload())
    }

    fn answer(&mut self, payload: [u8; 8], now: Micros) {
        let now = self.at(now);
        self.detector.handle_bytes(now);
        self.detector.handle_pong(&payload, now);
        while self.detector.poll_event().is_some() {}
    }
}

/// Where virtual time begins; nothing here waits.
#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn origin() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SECOND;

    #[test]
    fn the_fixed_timer_evicts_at_the_second_tick_without_an_answer() {
        let mut fixed = Fixed { interval: SECOND, next: SECOND / 2, alive: true };
        assert_eq!(fixed.tick(SECOND / 2), Act::Probe([0; 8]));
        fixed.answer([0; 8], SECOND);
        assert_eq!((fixed.due(), fixed.tick(3 * SECOND / 2)), (3 * SECOND / 2, Act::Probe([0; 8])));
        assert_eq!((fixed.due(), fixed.tick(5 * SECOND / 2)), (5 * SECOND / 2, Act::Evict));
    }

    #[test]
    fn a_ping_timeout_runs_from_the_ping_and_an_answer_ends_it() {
        let mut watch =
            PingTimeout { interval: 5 * SECOND, timeout: 3 * SECOND, ping_at: 5 * SECOND, evict_at: None };
        assert_eq!(watch.tick(5 * SECOND), Act::Probe([0; 8]));
        assert_eq!(watch.due(), 8 * SECOND);
        watch.answer([0; 8], 6 * SECOND);
        assert_eq!((watch.due(), watch.tick(11 * SECOND)), (11 * SECOND, Act::Probe([0; 8])));
        assert_eq!((watch.due(), watch.tick(14 * SECOND)), (14 * SECOND, Act::Evict));
    }
}
