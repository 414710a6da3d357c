//! The detector in virtual time.

mod evidence;
mod flight;
mod habits;
mod probes;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::probing::PROBES_MIN;
use super::*;
use proptest::prelude::*;

/// Bytes of a probe.
const PING: usize = 10;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The balanced profile on a client leg.
const BALANCED: Limits = Limits {
    ping_interval: ms(5_000),
    verdict_after: ms(5_000),
    frozen_after: ms(10_000),
    idle_timeout: ms(60_000),
    write_stall_after: ms(10_000),
};

/// The balanced profile on the app leg.
const BALANCED_APP: Limits = Limits { frozen_after: ms(30_000), write_stall_after: ms(30_000), ..BALANCED };

/// A kernel that has just acknowledged everything.
const ALIVE: KernelView = KernelView { unacked_bytes: 0, retransmits: 0, since_last_ack: ms(1) };

/// A kernel that answers, and takes no more.
const SHUT: KernelView = KernelView { unacked_bytes: 50_000, retransmits: 0, since_last_ack: ms(3) };

/// Time that starts nowhere in particular; tests add to it.
#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn origin() -> Instant {
    Instant::now()
}

/// Runs a detector against a peer that answers probes after a delay, or not at all.
struct Run {
    detector: Detector,
    start: Instant,
    now: Instant,
    /// How late our timers fire.
    lag: Duration,
    /// Most other peers are missing.
    mass: bool,
    /// Bytes of probes that wait behind what `kernel` says is not acknowledged.
    stuck: u64,
    pongs: BinaryHeap<Reverse<(Instant, [u8; 8])>>,
    events: Vec<(Duration, Event)>,
    probes: Vec<Duration>,
}

impl Run {
    fn new(limits: Limits, seed: u64) -> Run {
        let start = origin();
        let detector = Detector::new(limits, seed, start);
        Run {
            detector,
            start,
            now: start,
            lag: Duration::ZERO,
            mass: false,
            stuck: 0,
            pongs: BinaryHeap::new(),
            events: Vec::new(),
            probes: Vec::new(),
        }
    }

    /// Goes on until `end` (time since the start), or until a verdict. `delay` gives the answer time of the
    /// n-th probe, `kernel` what the kernel would say at a time if no probe had been written.
    fn until(
        &mut self,
        end: Duration,
        delay: &mut dyn FnMut(usize) -> Option<Duration>,
        kernel: &dyn Fn(Duration) -> Option<KernelView>,
    ) {
        let end = self.start + end;
        loop {
            let timer = self.detector.poll_timeout().map(|at| at.max(self.now) + self.lag);
            let pong = self.pongs.peek().map(|Reverse((at, _))| *at);
            let Some(next) = [timer, pong].into_iter().flatten().min() else { break };
            if next > end {
                break;
            }
            self.now = next;
            // What waits in the socket is read before any timer counts.
            while self.pongs.peek().is_some_and(|Reverse((at, _))| *at <= self.now) {
                let Reverse((_, payload)) = self.pongs.pop().expect("peeked");
                self.detector.handle_bytes(self.now);
                self.detector.handle_pong(&payload, self.now);
            }
            let mut view = kernel(self.now - self.start);
            match view.as_mut().filter(|view| view.unacked_bytes > 0) {
                Some(view) => view.unacked_bytes += self.stuck,
                None => self.stuck = 0,
            }
            let wanted = self.detector.wants_kernel_view(self.now).is_some();
            self.detector.handle_timeout(self.now, view.filter(|_| wanted), self.mass);
            if let Some(id) = self.detector.poll_probe(self.now, 0, PING) {
                self.detector.handle_written(PING, self.now);
                self.stuck += PING as u64;
                if let Some(delay) = delay(self.probes.len()) {
                    self.pongs.push(Reverse((self.now + delay, id.to_payload())));
                }
                self.probes.push(self.now - self.start);
            }
            while let Some(event) = self.detector.poll_event() {
                self.events.push((self.now - self.start, event));
            }
        }
        self.now = end;
    }

    fn verdict(&self) -> Option<(Duration, &Verdict)> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Dead(verdict) => Some((*at, &**verdict)),
            Event::Suspected | Event::Recovered | Event::Withheld(_) | Event::Spared(_) => None,
        })
    }
}

/// Doubts raised once for a late timer, or for a mass.
fn doubted(doubt: Doubt) -> Doubts {
    let mut doubts = Doubts::default();
    match doubt {
        Doubt::LateTimer => doubts.raise_late(ms(60_000), &BALANCED),
        Doubt::MassSuspicion => doubts.raise_mass(true),
    };
    doubts
}

/// A kernel whose peer vanished at `gone`.
fn path_dead_since(gone: Duration) -> impl Fn(Duration) -> Option<KernelView> {
    move |at| Some(KernelView { unacked_bytes: 14, retransmits: 4, since_last_ack: at.saturating_sub(gone) })
}

#[test]
fn a_silent_peer_is_dead_within_the_bound_and_the_verdict_shows_why() {
    let mut run = Run::new(BALANCED, 1);
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(at <= BALANCED.bound(), "{at:?}");
    assert_eq!(verdict.cause, Cause::Unreachable);
    assert!(verdict.probes_unanswered >= 3);
    let text = verdict.to_string();
    assert!(text.starts_with("peer declared dead (unreachable): last byte "), "{text}");
    assert!(
        text.contains("probes unanswered 3 (sent ") && text.contains("tcp unacked 44 B, retransmits 4"),
        "{text}"
    );
    assert!(matches!(run.events[0].1, Event::Suspected));
}

#[test]
fn silence_after_a_long_healthy_life_counts_from_the_last_byte() {
    let mut run = Run::new(BALANCED, 2);
    run.until(ms(600_000), &mut |n| (n < 50).then_some(ms(80)), &path_dead_since(Duration::ZERO));
    let heard = run.detector.heard_at() - run.start;
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(heard > ms(100_000), "50 answered probes take a while: {heard:?}");
    assert!(at - heard <= BALANCED.bound());
    assert_eq!(verdict.silent_for, at - heard);
    assert_eq!(run.detector.pong_habit(), PongHabit::Answers);
}

#[test]
fn a_frozen_app_gets_its_longer_limit_and_a_dead_path_does_not() {
    let mut run = Run::new(BALANCED_APP, 3);
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (ms(30_000), Cause::Frozen));

    let mut run = Run::new(BALANCED_APP, 3);
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(at <= BALANCED_APP.bound() && verdict.cause == Cause::Unreachable);
}

#[test]
fn a_frozen_app_whose_path_dies_too_is_found_without_waiting_for_the_limit() {
    let mut run = Run::new(BALANCED_APP, 4);
    let kernel = |at: Duration| if at < ms(12_000) { Some(ALIVE) } else { path_dead_since(ms(12_000))(at) };
    run.until(ms(100_000), &mut |_| None, &kernel);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!(verdict.cause, Cause::Unreachable);
    assert!(at <= ms(12_000) + BALANCED_APP.verdict_after * 5 / 4, "{at:?}");
}

#[test]
fn a_frozen_client_gets_the_stated_bound() {
    let mut run = Run::new(BALANCED, 5);
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(at <= BALANCED.bound() && verdict.cause == Cause::Frozen, "{at:?}");
}

#[test]
fn a_peer_that_sends_but_never_pongs_is_given_the_idle_timeout() {
    let mut run = Run::new(BALANCED, 6);
    run.until(ms(8_000), &mut |_| None, &|_| Some(ALIVE));
    assert!(run.detector.is_suspect());
    run.detector.handle_bytes(run.now);
    assert_eq!(run.detector.poll_event(), Some(Event::Recovered));
    assert_eq!(run.detector.poll_event(), None);
    assert_eq!(run.detector.pong_habit(), PongHabit::Never);
    run.until(ms(300_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at - ms(8_000), verdict.cause), (BALANCED.idle_timeout, Cause::Frozen));
}

#[test]
fn a_peer_that_never_pongs_and_whose_path_dies_is_found_by_the_kernel() {
    let mut run = Run::new(BALANCED, 7);
    run.until(ms(8_000), &mut |_| None, &|_| Some(ALIVE));
    run.detector.handle_bytes(run.now);
    run.until(ms(300_000), &mut |_| None, &path_dead_since(ms(8_000)));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(at - ms(8_000) <= BALANCED.bound() && verdict.cause == Cause::Unreachable, "{at:?}");
}

#[test]
fn a_late_timer_withholds_the_verdict_and_a_living_peer_survives() {
    let mut run = Run::new(BALANCED, 8);
    run.until(ms(5_500), &mut |_| None, &|_| None);
    assert!(!run.probes.is_empty());
    // The process sleeps for a minute; what its peer sent meanwhile was lost with the host's network.
    run.now += ms(60_000);
    run.detector.handle_timeout(run.now, path_dead_since(Duration::ZERO)(ms(60_000)), false);
    assert_eq!(run.detector.poll_event(), Some(Event::Withheld(Doubt::LateTimer)));
    run.until(ms(90_000), &mut |_| Some(ms(700)), &|_| None);
    assert_eq!(run.verdict(), None);
}

#[test]
fn a_late_timer_only_delays_the_verdict_on_the_dead() {
    let mut run = Run::new(BALANCED, 9);
    run.lag = ms(600);
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(verdict.withheld == 1 && at < ms(15_000), "{at:?} {verdict}");
}

#[test]
fn a_peer_that_we_do_not_read_is_not_judged() {
    let mut run = Run::new(BALANCED, 10);
    run.detector.handle_rest(run.now);
    run.until(ms(1_000_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    assert!(run.events.is_empty() && run.probes.is_empty());
    run.detector.handle_resume(run.now);
    run.until(ms(1_010_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    assert!(run.verdict().is_some());
}

#[test]
fn a_stalled_write_is_cut_at_its_limit_even_if_the_peer_goes_on_sending() {
    let mut run = Run::new(BALANCED_APP, 11);
    run.detector.handle_write_blocked(run.start);
    for second in 1..40 {
        run.detector.handle_bytes(run.now);
        run.until(ms(second * 1000), &mut |_| Some(ms(1)), &|_| Some(SHUT));
    }
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (BALANCED_APP.write_stall_after, Cause::WriteStalled));
}

#[test]
fn a_stalled_write_on_a_dead_path_is_cut_at_the_bound() {
    let mut run = Run::new(BALANCED_APP, 12);
    run.detector.handle_rest(run.now);
    run.detector.handle_write_blocked(run.start);
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (BALANCED_APP.bound(), Cause::Unreachable));
}

#[test]
fn progress_of_the_write_resets_the_stall() {
    let mut run = Run::new(BALANCED_APP, 13);
    for second in (5..200).step_by(5) {
        run.detector.handle_write_blocked(run.now);
        run.until(ms(second * 1000), &mut |_| Some(ms(1)), &|_| Some(ALIVE));
        run.detector.handle_written(1, run.now);
    }
    assert_eq!(run.verdict(), None);
}

#[test]
fn only_pongs_of_our_probes_are_ours() {
    let mut run = Run::new(BALANCED, 14);
    run.until(ms(5_000), &mut |_| None, &|_| None);
    let id = run.detector.sent.push(run.now);
    let payload = id.to_payload();
    assert_eq!(run.detector.handle_pong(b"unasked!", run.now), Pong::Foreign);
    assert_eq!(run.detector.handle_pong(b"", run.now), Pong::Foreign);
    let at = run.now + ms(30);
    assert_eq!(
        run.detector.handle_pong(&payload, at),
        Pong::Ours { id, round_trip: Some(ms(30)), late: false }
    );
    assert_eq!(run.detector.handle_pong(&payload, at), Pong::Ours { id, round_trip: None, late: true });
    assert_eq!(run.detector.round_trip(), Some(ms(30)));
}

#[test]
fn traffic_makes_probes_needless() {
    let mut run = Run::new(BALANCED, 15);
    for tick in 1..600 {
        run.detector.handle_bytes(run.now);
        run.until(ms(tick * 1000), &mut |_| None, &|_| None);
    }
    assert!(run.probes.is_empty());
}

proptest! {
    /// Completeness: whatever the peer did before, after its last byte the verdict comes within the bound.
    #[test]
    fn the_silent_are_found(seed: u64, answered in 0usize..20, rtt in 0u64..2_000, fast: bool) {
        let limits = if fast { Limits { ping_interval: ms(1_000), verdict_after: ms(2_000), frozen_after: ms(3_000), ..BALANCED } } else { BALANCED };
        let mut run = Run::new(limits, seed);
        let (sent, alive_at) = (Cell::new(0), Cell::new(Duration::ZERO));
        let mut answers = |n| {
            sent.set(n + 1);
            (n < answered).then_some(ms(rtt % 1_900))
        };
        run.until(ms(3_600_000), &mut answers, &|at| {
            if sent.get() <= answered {
                alive_at.set(at);
                return Some(ALIVE);
            }
            path_dead_since(alive_at.get())(at)
        });
        let heard = run.detector.heard_at() - run.start;
        let (at, verdict) = run.verdict().expect("a verdict");
        prop_assert!(at - heard <= limits.bound(), "{:?}", at - heard);
        prop_assert!(verdict.probes_unanswered >= PROBES_MIN);
    }

    /// Safety: a peer whose answer arrives within `verdict_after` of the probe is never declared dead.
    #[test]
    fn the_living_are_kept(seed: u64, delays in proptest::collection::vec(0u64..5_000, 1..50)) {
        let mut run = Run::new(BALANCED, seed);
        run.until(ms(1_000_000), &mut |n| Some(ms(delays[n % delays.len()])), &|_| None);
        prop_assert_eq!(run.verdict(), None);
    }
}

#[test]
fn a_silent_client_that_takes_nothing_is_cut_at_the_bound_of_its_silence() {
    for kernel in [Some(SHUT), path_dead_since(Duration::ZERO)(ms(60_000))] {
        let mut run = Run::new(BALANCED, 16);
        run.until(ms(4_000), &mut |_| None, &|_| None);
        run.detector.handle_write_blocked(run.now);
        // No probe gets out: the driver never asks for one.
        let mut at = run.now;
        let verdict = loop {
            at = run.detector.poll_timeout().expect("a deadline").max(at);
            run.detector.handle_timeout(at, kernel, false);
            if let Some(event) = run.detector.poll_event() {
                break event;
            }
        };
        assert!(matches!(verdict, Event::Dead(_)), "{verdict:?}");
        assert!(at - run.start <= BALANCED.bound(), "{:?}", at - run.start);
    }
}
