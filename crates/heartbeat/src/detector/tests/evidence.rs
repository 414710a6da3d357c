//! What counts as evidence: pauses, slow lines, late timers, and what the kernel tells.

use super::*;

#[test]
fn pauses_however_many_do_not_hide_a_death() {
    let mut run = Run::new(BALANCED, 17);
    let mut paused = Duration::ZERO;
    while run.verdict().is_none() {
        assert!(run.now - run.start < ms(60_000), "the dead peer is never found");
        run.detector.handle_rest(run.now);
        run.now += ms(1);
        paused += ms(1);
        run.detector.handle_resume(run.now);
        let next = run.now - run.start + ms(100);
        run.until(next, &mut |_| None, &path_dead_since(Duration::ZERO));
    }
    let (at, verdict) = run.verdict().expect("a verdict");
    assert!(at <= BALANCED.bound() + paused, "{at:?}");
    assert_eq!((verdict.cause, verdict.withheld), (Cause::Unreachable, 0));
}

#[test]
fn a_pause_in_the_middle_of_a_probe_gives_the_peer_that_time_back() {
    let mut run = Run::new(BALANCED, 18);
    run.until(ms(5_000), &mut |_| None, &|_| None);
    assert!(!run.probes.is_empty());
    run.detector.handle_rest(run.now);
    run.now += ms(30_000);
    run.detector.handle_resume(run.now);
    run.until(ms(37_000), &mut |_| None, &|_| None);
    assert_eq!(run.verdict(), None);
    run.until(BALANCED.bound() + ms(30_000), &mut |_| None, &|_| None);
    assert!(run.verdict().is_some());
}

#[test]
fn a_late_timer_withholds_the_verdict_on_a_stalled_write_too() {
    let mut run = Run::new(BALANCED, 19);
    run.detector.handle_write_blocked(run.start);
    let asleep = run.start + ms(60_000);
    run.detector.handle_bytes(asleep);
    run.detector.handle_timeout(asleep, Some(SHUT), false);
    assert_eq!(run.detector.poll_event(), Some(Event::Withheld(Doubt::LateTimer)));
    run.now = asleep;
    for second in 61..100 {
        run.until(ms(second * 1_000), &mut |_| None, &|_| Some(SHUT));
        run.detector.handle_bytes(run.now);
    }
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (ms(65_000), Cause::WriteStalled));
}

#[test]
fn a_slow_peer_whose_kernel_goes_on_taking_bytes_is_not_stalled() {
    let mut run = Run::new(BALANCED, 20);
    run.detector.handle_rest(run.start);
    run.detector.handle_written(100_000, run.now);
    run.detector.handle_write_blocked(run.start);
    // 1000 bytes a second, until it really stops after 40 seconds.
    let slow = |at: Duration| {
        let taken = at.min(ms(40_000)).as_millis() as u64;
        Some(KernelView { unacked_bytes: 100_000 - taken, retransmits: 0, since_last_ack: ms(3) })
    };
    run.until(ms(100_000), &mut |_| None, &slow);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!(verdict.cause, Cause::WriteStalled);
    assert!(at >= ms(49_000) && at <= ms(51_000), "{at:?}");
}

/// Runs the timers of a detector whose probes find no place between two frames.
fn without_probes(
    detector: &mut Detector,
    start: Instant,
    kernel: &dyn Fn(Duration) -> KernelView,
) -> Option<Duration> {
    let mut at = start;
    while at - start < ms(100_000) {
        at = detector.poll_timeout()?.max(at);
        detector.handle_timeout(at, detector.wants_kernel_view(at).map(|_| kernel(at - start)), false);
        if let Some(Event::Dead(verdict)) = detector.poll_event() {
            assert_eq!(verdict.cause, Cause::Unreachable);
            return Some(at - start);
        }
    }
    None
}

#[test]
fn a_path_that_dies_within_a_long_frame_is_found_by_the_kernel() {
    let mut run = Run::new(BALANCED, 21);
    let dead = path_dead_since(Duration::ZERO);
    let at = without_probes(&mut run.detector, run.start, &|at| dead(at).expect("a kernel"));
    assert!(at.is_some_and(|at| at <= BALANCED.bound()), "{at:?}");
}

#[test]
fn a_mass_within_long_frames_is_doubted_once_too() {
    let mut run = Run::new(BALANCED, 26);
    let (mut at, mut told) = (run.start, Vec::new());
    while told.len() < 2 {
        at = run.detector.poll_timeout().expect("a look").max(at);
        run.detector.handle_timeout(at, path_dead_since(Duration::ZERO)(at - run.start), true);
        told.extend(run.detector.poll_event().map(|event| (at - run.start, event)));
    }
    assert_eq!(told[0].1, Event::Withheld(Doubt::MassSuspicion));
    let Event::Dead(verdict) = &told[1].1 else { panic!("{told:?}") };
    assert_eq!((told[1].0 - told[0].0, verdict.withheld), (BALANCED.verdict_after, 1));

    // The doubt is not forgotten when the probe finds its place after all.
    let mut run = Run::new(BALANCED, 27);
    run.mass = true;
    let mut at = run.start;
    while run.detector.poll_event() != Some(Event::Withheld(Doubt::MassSuspicion)) {
        at = run.detector.poll_timeout().expect("a look").max(at);
        run.detector.handle_timeout(at, path_dead_since(Duration::ZERO)(at - run.start), true);
    }
    run.now = at;
    assert!(run.detector.poll_probe(at, 0, PING).is_some());
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    assert!(run.events.iter().all(|(_, event)| *event != Event::Withheld(Doubt::MassSuspicion)));
    assert_eq!(run.verdict().expect("a verdict").1.withheld, 1);
}

#[test]
fn a_sleep_within_a_long_frame_is_not_held_against_the_peer() {
    let mut run = Run::new(BALANCED, 28);
    let mut at = run.start;
    let dead = path_dead_since(Duration::ZERO);
    while !run.detector.is_probe_due() {
        at = run.detector.poll_timeout().expect("a probe").max(at);
        run.detector.handle_timeout(at, dead(at - run.start), false);
    }
    at = run.detector.poll_timeout().expect("a look");
    run.detector.handle_timeout(at, dead(at - run.start), false);
    at += ms(60_000);
    run.detector.handle_timeout(at, dead(at - run.start), false);
    assert_eq!(run.detector.poll_event(), None);
}

#[test]
fn a_peer_that_is_sent_a_slow_long_frame_is_kept() {
    // A byte every six seconds, which is acknowledged 50 ms later.
    let trickle = |at: Duration| {
        let since = at.as_millis() as u64 % 6_000;
        let (unacked_bytes, since_last_ack) = if since < 50 { (1, since + 5_950) } else { (0, since - 50) };
        KernelView { unacked_bytes, retransmits: 0, since_last_ack: ms(since_last_ack) }
    };
    for seed in 0..200 {
        let mut run = Run::new(BALANCED, seed);
        assert_eq!(without_probes(&mut run.detector, run.start, &trickle), None, "seed {seed}");
    }
}

#[test]
fn a_probe_that_stands_behind_much_data_is_not_held_against_a_slow_peer() {
    let mut run = Run::new(BALANCED, 22);
    run.detector.handle_written(100_000, run.now);
    // 4000 bytes a second: the probe arrives after 25 seconds, and the answer at once.
    let slow = |at: Duration| {
        let taken = (at.as_millis() as u64 * 4).min(100_030);
        Some(KernelView { unacked_bytes: 100_030 - taken, retransmits: 0, since_last_ack: ms(3) })
    };
    run.until(ms(25_000), &mut |_| None, &slow);
    assert_eq!(run.verdict(), None);
    run.detector.handle_bytes(run.now);
    assert_eq!(run.detector.poll_event(), Some(Event::Recovered));
}

#[test]
fn a_probe_that_overtook_still_stands_behind_what_is_under_way() {
    let mut run = Run::new(BALANCED, 29);
    run.now = run.detector.poll_timeout().expect("a probe");
    run.detector.handle_timeout(run.now, None, false);
    assert!(run.detector.poll_probe(run.now, 100_000, PING).is_some());
    // 4000 bytes a second, all of them written by and by.
    run.detector.handle_written(100_030, run.now);
    let slow = |at: Duration| {
        let taken = (at.as_millis() as u64 * 4).min(100_030);
        Some(KernelView { unacked_bytes: 100_030 - taken, retransmits: 0, since_last_ack: ms(3) })
    };
    run.until(ms(25_000), &mut |_| None, &slow);
    assert_eq!(run.verdict(), None);
}

#[test]
fn a_frozen_client_that_is_sent_data_gets_the_stated_bound() {
    for seed in 0..50 {
        let mut run = Run::new(BALANCED, seed);
        run.detector.handle_written(100_000, run.now);
        // Its window is shut: the kernel answers, and takes nothing.
        run.until(ms(100_000), &mut |_| None, &|_| Some(SHUT));
        let (at, verdict) = run.verdict().expect("a verdict");
        assert!(at <= BALANCED.bound() && verdict.cause == Cause::Frozen, "{at:?} {verdict}");
    }
}

#[test]
fn a_late_timer_tells_the_suspicion_too() {
    let mut run = Run::new(BALANCED, 23);
    while run.probes.is_empty() {
        run.until(run.now - run.start + ms(100), &mut |_| None, &|_| None);
    }
    assert!(run.events.is_empty());
    run.now += ms(60_000);
    run.until(ms(100_000), &mut |_| None, &|_| None);
    let told: Vec<_> = run.events.iter().map(|(_, event)| std::mem::discriminant(event)).collect();
    let expected = [Event::Suspected, Event::Withheld(Doubt::LateTimer)];
    assert_eq!(told[..2], expected.map(|event| std::mem::discriminant(&event)));
}

/// A peer that reads nothing has shut its window: its kernel is asked less and less often, so the last
/// acknowledgement grows old while the path is alive.
#[test]
fn a_shut_window_is_no_dead_path() {
    let shut =
        |at: Duration| Some(KernelView { unacked_bytes: 50_000, retransmits: 0, since_last_ack: at / 2 });
    let mut run = Run::new(BALANCED_APP, 24);
    run.detector.handle_rest(run.start);
    run.detector.handle_write_blocked(run.start);
    run.until(ms(100_000), &mut |_| None, &shut);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (BALANCED_APP.write_stall_after, Cause::WriteStalled));

    let mut run = Run::new(BALANCED_APP, 25);
    run.until(ms(100_000), &mut |_| None, &shut);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (BALANCED_APP.frozen_after, Cause::Frozen));
}
