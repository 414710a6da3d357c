//! What the network does to a session: the same for every detector, given the seed.

use fastrand::Rng;

/// Microseconds since the session began.
pub(crate) type Micros = u64;

pub(crate) const SECOND: Micros = 1_000_000;

/// How long a session lives: uniform within these.
const LIFE: (Micros, Micros) = (1_800 * SECOND, 5_400 * SECOND);

/// Traces go on a little after the death, so that a stall may span it.
const AFTER_DEATH: Micros = 60 * SECOND;

/// A kind of network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// One-way delay in seconds: uniform within these, times a lognormal factor.
    delay: (f64, f64),
    /// Spread of that factor (sigma of its logarithm).
    sigma: f64,
    /// Mean time between two stalls, in seconds.
    stall_every: f64,
    /// Shortest and longest stall, in seconds: bounded Pareto with exponent 1, a heavy tail.
    stall: (f64, f64),
    /// First retransmission timeout; it doubles.
    retransmit_after: Micros,
}

/// The networks compared, from easy to hard.
pub(crate) const NETWORKS: [Network; 4] = [
    Network {
        name: "LAN",
        about: "0.3 ms round trip, light jitter, a pause of 5 to 300 ms every 10 minutes",
        delay: (0.000_15, 0.000_15),
        sigma: 0.2,
        stall_every: 600.0,
        stall: (0.005, 0.3),
        retransmit_after: SECOND / 5,
    },
    Network {
        name: "Home or office",
        about: "30 ms round trip, lognormal jitter, a stall of 50 ms to 1 s every 2 minutes",
        delay: (0.015, 0.015),
        sigma: 0.4,
        stall_every: 120.0,
        stall: (0.05, 1.0),
        retransmit_after: SECOND / 4,
    },
    Network {
        name: "Mobile",
        about: "100 to 300 ms each way with a heavy tail, a stall of 0.2 to 3 s every 15 s",
        delay: (0.1, 0.3),
        sigma: 0.4,
        stall_every: 15.0,
        stall: (0.2, 3.0),
        retransmit_after: SECOND,
    },
    Network {
        name: "Mobile, hard",
        about: "100 to 300 ms each way with a heavy tail, a stall of 0.2 to 8 s every 15 s",
        delay: (0.1, 0.3),
        sigma: 0.4,
        stall_every: 15.0,
        stall: (0.2, 8.0),
        retransmit_after: SECOND,
    },
];

/// What one session meets: its stalls, its delays, its death.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trace {
    pub(crate) death: Micros,
    /// Start and end, in order, apart from each other.
    stalls: Vec<(Micros, Micros)>,
    delay: (f64, f64),
    sigma: f64,
    retransmit_after: Micros,
    seed: u64,
}

impl Trace {
    /// Draws a session on this network.
    pub(crate) fn new(network: &Network, seed: u64) -> Trace {
        let mut random = Rng::with_seed(seed);
        let death = random.u64(LIFE.0..LIFE.1);
        let mut stalls = Vec::new();
        let mut at = 0;
        loop {
            let gap = -(1.0 - random.f64()).ln() * network.stall_every;
            let start = at + micros(gap);
            if start > death + AFTER_DEATH {
                break;
            }
            at = start + micros(pareto(network.stall, random.f64()));
            stalls.push((start, at));
        }
        let Network { delay, sigma, retransmit_after, .. } = *network;
        Trace { death, stalls, delay, sigma, retransmit_after, seed: random.u64(..) }
    }

    /// Returns when the stall at this time ends, if there is one.
    pub(crate) fn stalled_until(&self, at: Micros) -> Option<Micros> {
        let next = self.stalls.partition_point(|&(start, _)| start <= at);
        let (_, end) = self.stalls.get(next.checked_sub(1)?)?;
        (at < *end).then_some(*end)
    }

    /// Returns the one-way delay of what leaves at this time. It hangs on the time alone, not on what was
    /// sent before, so that detectors with different habits meet the same network.
    fn delay(&self, at: Micros, way: u64) -> Micros {
        let mut random = Rng::with_seed(self.seed ^ (at * 2 + way).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let base = self.delay.0 + (self.delay.1 - self.delay.0) * random.f64();
        // Box and Muller's transform: a normal value out of two uniform ones.
        let normal = (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos();
        micros(base * (self.sigma * normal).exp())
    }
}

/// One TCP connection over a trace.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    trace: &'a Trace,
    ways: [Way; 2],
}

/// One direction: what is behind a lost segment waits for it.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    blocked_until: Micros,
    last_arrival: Micros,
}

impl Line<'_> {
    pub(crate) fn new(trace: &Trace) -> Line<'_> {
        Line { trace, ways: [Way::default(); 2] }
    }

    /// Returns when the answer to a request sent at this time arrives: never, once the peer is dead. Requests
    /// must be told in order.
    pub(crate) fn answer_at(&mut self, sent: Micros) -> Option<Micros> {
        let reached = self.pass(0, sent);
        let answered = self.pass(1, reached);
        (answered < self.trace.death).then_some(answered)
    }

    /// What leaves in a stall is lost, and sent again after a timeout that doubles each time; what follows
    /// waits for that (after a timeout TCP sends one segment at a time, RFC 5681 section 3.1).
    fn pass(&mut self, way: usize, sent: Micros) -> Micros {
        let trace = self.trace;
        let state = &mut self.ways[way];
        let mut leaves = sent.max(state.blocked_until);
        let mut gap = trace.retransmit_after;
        while trace.stalled_until(leaves).is_some() {
            leaves += gap;
            gap *= 2;
        }
        state.blocked_until = leaves.max(state.blocked_until);
        state.last_arrival = state.last_arrival.max(leaves + trace.delay(leaves, way as u64));
        state.last_arrival
    }
}

fn micros(seconds: f64) -> Micros {
    (seconds * SECOND as f64) as Micros
}

/// Bounded Pareto with exponent 1, by inversion.
fn pareto((low, high): (f64, f64), uniform: f64) -> f64 {
    low / (1.0 - uniform * (1.0 - low / high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_session_and_another_seed_another() {
        for network in &NETWORKS {
            assert_eq!(Trace::new(network, 7), Trace::new(network, 7));
            assert_ne!(Trace::new(network, 7), Trace::new(network, 8));
        }
    }

    #[test]
    fn stalls_are_in_order_and_within_their_bounds() {
        for network in &NETWORKS {
            let trace = Trace::new(network, 3);
            assert!(trace.stalls.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{}", network.name);
            for (start, end) in &trace.stalls {
                let length = (end - start) as f64 / SECOND as f64;
                assert!(length >= network.stall.0 - 1e-5 && length <= network.stall.1 + 1e-5, "{length}");
            }
        }
    }

    #[test]
    fn answers_come_in_order_and_none_leaves_a_stall_before_its_end() {
        let trace = Trace::new(&NETWORKS[3], 11);
        let mut line = Line::new(&trace);
        let mut last = 0;
        for sent in (0..trace.death).step_by(SECOND as usize / 10) {
            let Some(answered) = line.answer_at(sent) else { break };
            assert!(answered > sent && answered >= last);
            assert!(trace.stalled_until(sent).is_none_or(|end| answered >= end));
            last = answered;
        }
        assert!(last > trace.death - 30 * SECOND, "the peer answered until its death");
    }

    #[test]
    fn what_falls_into_a_stall_comes_with_the_first_retransmission_after_it() {
        let trace = Trace {
            death: 100 * SECOND,
            stalls: vec![(SECOND, 4 * SECOND)],
            delay: (0.1, 0.1),
            sigma: 0.0,
            retransmit_after: SECOND,
            seed: 1,
        };
        let mut line = Line::new(&trace);
        // Lost at 1.5 s, again at 2.5 s; through at 4.5 s.
        assert_eq!(line.answer_at(3 * SECOND / 2), Some(4_700_000));
        // This one was sent after the stall, and waits for the one before it.
        assert_eq!(line.answer_at(4_100_000), Some(4_700_000));
        assert_eq!(line.answer_at(5 * SECOND), Some(5_200_000));
        assert_eq!(line.answer_at(100 * SECOND), None);
    }
}
