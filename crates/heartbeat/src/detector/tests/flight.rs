//! Data in flight: the kernel's word starts the clock, and a write that makes no progress has its own limit.

use super::*;

/// A kernel whose peer acknowledges nothing from `gone` on, although it goes on sending.
fn deaf_since(gone: Duration, written: u64) -> impl Fn(Duration) -> Option<KernelView> {
    move |at| {
        let lost = at > gone + ms(200);
        let unacked_bytes = if lost { written } else { 0 };
        Some(KernelView { unacked_bytes, retransmits: u32::from(lost), since_last_ack: ms(5) })
    }
}

#[test]
fn a_lost_push_is_found_long_before_the_interval_has_passed() {
    let limits = Limits { ping_interval: ms(25_000), frozen_after: ms(30_000), ..BALANCED };
    for seed in 0..50 {
        let mut run = Run::new(limits, seed);
        run.until(ms(3_000), &mut |_| None, &|_| Some(ALIVE));
        run.detector.handle_bytes(run.now);
        run.detector.handle_written(500, run.now);
        run.until(ms(100_000), &mut |_| None, &|at| {
            Some(KernelView { unacked_bytes: 500, ..path_dead_since(ms(3_000))(at)? })
        });
        let (at, verdict) = run.verdict().expect("a verdict");
        assert_eq!(verdict.cause, Cause::Unreachable);
        assert!(verdict.evidence.contains(&Evidence::UnacknowledgedBytes), "{verdict}");
        let took = at - ms(3_000);
        assert!(took > limits.verdict_after && took <= limits.verdict_after + ms(1_000), "{took:?}");
    }
}

#[test]
fn a_leg_is_looked_at_once_a_second_at_most_and_not_at_all_when_idle() {
    let mut run = Run::new(BALANCED, 30);
    let mut looks = 0;
    for tick in 1..=10_000u64 {
        let now = run.start + ms(tick);
        run.detector.handle_bytes(now);
        run.detector.handle_written(10, now);
        if run.detector.poll_timeout().is_some_and(|at| at <= now) {
            assert!(run.detector.wants_kernel_view(now).is_some());
            looks += 1;
            run.detector.handle_timeout(
                now,
                Some(KernelView { unacked_bytes: 10, retransmits: 0, since_last_ack: ms(1) }),
                false,
            );
        }
    }
    assert!((9..=10).contains(&looks), "{looks} looks in 10 s");
    assert_eq!(run.detector.poll_event(), None);

    // Answered probes alone cause none.
    let mut run = Run::new(BALANCED, 31);
    let looks = std::cell::Cell::new(0);
    for _ in 0..100 {
        let next = run.detector.poll_timeout().expect("a probe");
        run.now = next;
        run.detector.handle_timeout(next, None, false);
        let probe = run.detector.poll_probe(next, 0, PING).expect("a probe is due");
        run.detector.handle_written(10, next);
        run.detector.handle_bytes(next + ms(40));
        run.detector.handle_pong(&probe.to_payload(), next + ms(40));
        looks.set(looks.get() + u32::from(run.detector.wants_kernel_view(next + ms(2_000)).is_some()));
    }
    assert_eq!(looks.get(), 0);
}

#[test]
fn inbound_bytes_do_not_keep_a_peer_that_takes_none() {
    let mut run = Run::new(BALANCED, 32);
    run.detector.handle_written(500, run.now);
    for tick in 1..200 {
        run.until(ms(tick * 100), &mut |_| None, &deaf_since(Duration::ZERO, 500));
        run.detector.handle_bytes(run.now);
    }
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!(verdict.cause, Cause::WriteStalled);
    assert_eq!(verdict.write_stalled_for, Some(BALANCED.write_stall_after));
    assert!(at <= BALANCED.write_stall_after, "{at:?}");
}

#[test]
fn what_is_still_on_its_way_when_a_probe_is_answered_is_looked_at() {
    let mut run = Run::new(BALANCED, 33);
    let next = run.detector.poll_timeout().expect("a probe");
    run.detector.handle_timeout(next, None, false);
    let probe = run.detector.poll_probe(next, 0, PING).expect("a probe is due");
    run.detector.handle_written(10, next);
    run.detector.handle_written(500, next + ms(1));
    run.detector.handle_bytes(next + ms(40));
    run.detector.handle_pong(&probe.to_payload(), next + ms(40));
    assert!(run.detector.wants_kernel_view(next + ms(1_040)).is_some());
}

#[test]
fn where_the_kernel_tells_nothing_writes_wake_nobody() {
    let mut run = Run::new(BALANCED, 34);
    run.detector.handle_written(10, run.now);
    run.until(ms(2_000), &mut |_| None, &|_| None);
    run.detector.handle_bytes(run.now);
    run.detector.handle_written(10, run.now);
    assert!(run.detector.poll_timeout().expect("a probe") > run.now + ms(4_000));
    for tick in 21..600 {
        run.until(ms(tick * 100), &mut |_| None, &|_| None);
        run.detector.handle_bytes(run.now);
        if tick % 50 == 0 {
            // Full, and taking bytes again.
            run.detector.handle_write_blocked(run.now);
            run.detector.handle_written(10, run.now);
        }
    }
    assert_eq!(run.verdict(), None);
    // Its socket still tells of a stall.
    let full_at = run.now - run.start;
    run.detector.handle_write_blocked(run.now);
    for tick in 600..800 {
        run.until(ms(tick * 100), &mut |_| None, &|_| None);
        run.detector.handle_bytes(run.now);
    }
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause), (full_at + BALANCED.write_stall_after, Cause::WriteStalled));
    assert!(verdict.to_string().contains("no word from the kernel"), "{verdict}");
}

#[test]
fn where_the_kernel_tells_nothing_one_write_is_soon_forgotten() {
    let mut run = Run::new(BALANCED, 52);
    run.detector.handle_written(10, run.now);
    for tick in 1..600 {
        run.until(ms(tick * 100), &mut |_| None, &|_| None);
        run.detector.handle_bytes(run.now);
    }
    assert_eq!(run.verdict(), None);
}

#[test]
fn a_mass_of_suspects_gives_a_fair_chance_and_then_the_verdict() {
    let mut run = Run::new(BALANCED, 35);
    run.mass = true;
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((verdict.withheld, verdict.doubt), (1, Some(Doubt::MassSuspicion)));
    assert!(at > BALANCED.bound() && at <= BALANCED.bound() + BALANCED.verdict_after, "{at:?}");

    // Behind a balancer everybody looks frozen: the same.
    let mut run = Run::new(BALANCED, 44);
    run.mass = true;
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (_, verdict) = run.verdict().expect("a verdict");
    assert_eq!((verdict.cause, verdict.doubt), (Cause::Frozen, Some(Doubt::MassSuspicion)));

    // A local fault that heals within the chance kills nobody.
    let mut run = Run::new(BALANCED, 36);
    run.mass = true;
    let mut heals = false;
    while !heals {
        run.until(run.now - run.start + ms(10), &mut |_| None, &path_dead_since(Duration::ZERO));
        heals = run.events.iter().any(|(_, event)| *event == Event::Withheld(Doubt::MassSuspicion));
    }
    let (withheld_at, probed_at) = (run.now - run.start, *run.probes.last().expect("probes"));
    assert!(withheld_at - probed_at <= ms(10), "they are asked again at once: {withheld_at:?} {probed_at:?}");
    run.until(ms(60_000), &mut |_| Some(ms(900)), &path_dead_since(Duration::ZERO));
    assert_eq!(run.verdict(), None);
    let spared = Event::Spared(doubted(Doubt::MassSuspicion));
    assert!(run.events.iter().any(|(_, event)| *event == spared), "{:?}", run.events);
}

#[test]
fn a_frozen_process_with_a_limit_of_its_own_gets_no_second_chance() {
    let mut run = Run::new(BALANCED_APP, 37);
    run.mass = true;
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at, verdict.cause, verdict.withheld), (ms(30_000), Cause::Frozen, 0));
}

#[test]
fn a_peer_that_never_pongs_is_not_missed() {
    let mut run = Run::new(BALANCED, 45);
    run.until(ms(8_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    assert!(run.detector.is_missing());
    run.detector.handle_bytes(run.now);
    run.until(ms(16_000), &mut |_| None, &|_| Some(ALIVE));
    assert!(run.detector.is_suspect() && !run.detector.is_missing());
}

#[test]
fn a_socket_that_gave_up_is_a_verdict_of_its_own() {
    let mut run = Run::new(BALANCED, 38);
    run.detector.handle_socket_timeout(run.now);
    let Some(Event::Dead(verdict)) = run.detector.poll_event() else { panic!("no verdict") };
    assert_eq!((verdict.cause, &verdict.evidence[..]), (Cause::Unreachable, &[Evidence::SocketTimeout][..]));
    run.detector.handle_socket_timeout(run.now);
    assert_eq!(run.detector.poll_event(), None);
}

#[test]
fn a_proxy_in_between_is_named_in_the_proof() {
    let start = origin();
    let mut run = Run::new(BALANCED, 39);
    run.detector = Detector::new(BALANCED, 39, start).behind_proxy(true);
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (_, verdict) = run.verdict().expect("a verdict");
    let text = verdict.to_string();
    assert!(text.contains("(the kernel of the proxy in between)"), "{text}");
    assert!(text.ends_with("evidence: unanswered probes, a kernel that acknowledges"), "{text}");
}

#[test]
fn a_shut_window_is_no_reason_to_hurry() {
    let mut run = Run::new(BALANCED, 46);
    run.detector.handle_bytes(run.now);
    run.detector.handle_written(100_000, run.now);
    run.until(ms(4_400), &mut |_| None, &|_| Some(SHUT));
    assert!(run.probes.is_empty(), "{:?}", run.probes);
}

#[test]
fn a_peer_that_never_pongs_may_stop_reading_for_as_long_as_others() {
    let mut run = Run::new(BALANCED, 47);
    run.until(ms(8_000), &mut |_| None, &|_| Some(ALIVE));
    run.detector.handle_bytes(run.now);
    assert_eq!(run.detector.pong_habit(), PongHabit::Never);
    run.until(ms(20_000), &mut |_| None, &|_| Some(ALIVE));
    let full_at = run.now - run.start;
    run.detector.handle_write_blocked(run.now);
    run.until(ms(100_000), &mut |_| None, &|_| Some(SHUT));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((at - full_at, verdict.cause), (BALANCED.write_stall_after, Cause::WriteStalled));
}

#[test]
fn the_answer_to_an_older_probe_proves_nothing_of_what_came_after_it() {
    let mut run = Run::new(BALANCED, 48);
    let mut at = run.start;
    let mut probes = Vec::new();
    while probes.len() < 2 {
        at = run.detector.poll_timeout().expect("a probe").max(at);
        run.detector.handle_timeout(at, Some(KernelView { unacked_bytes: 10, ..SHUT }), false);
        if let Some(probe) = run.detector.poll_probe(at, 0, PING) {
            run.detector.handle_written(10, at);
            run.detector.handle_written(if probes.is_empty() { 500 } else { 0 }, at);
            probes.push(probe.to_payload());
        }
    }
    run.detector.handle_bytes(at);
    run.detector.handle_pong(&probes[0], at);
    assert!(run.detector.wants_kernel_view(at + ms(1_000)).is_some(), "500 bytes are still on their way");
    run.detector.handle_pong(&probes[1], at);
    assert_eq!(run.detector.wants_kernel_view(at + ms(1_000)), None);
}

/// A leg that is not read and takes nothing: only the kernel can tell of it.
#[test]
fn doubts_about_a_stalled_write_are_raised_and_settled() {
    let mut run = Run::new(BALANCED, 49);
    run.detector.handle_rest(run.now);
    run.detector.handle_write_blocked(run.now);
    run.mass = true;
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((verdict.cause, verdict.doubt), (Cause::Unreachable, Some(Doubt::MassSuspicion)));
    assert_eq!(at, BALANCED.write_stall_after + BALANCED.verdict_after);

    // Always late: three times it waits, then no more.
    let mut run = Run::new(BALANCED, 50);
    run.detector.handle_rest(run.now);
    run.detector.handle_write_blocked(run.now);
    run.lag = ms(10_000);
    run.until(ms(200_000), &mut |_| None, &|_| Some(SHUT));
    assert_eq!(run.verdict().expect("a verdict").1.withheld, 3);

    // The peer takes bytes again: the doubt was right.
    let mut run = Run::new(BALANCED, 51);
    run.detector.handle_rest(run.now);
    run.detector.handle_written(50_000, run.now);
    run.detector.handle_write_blocked(run.now);
    run.detector.handle_timeout(run.start + ms(60_000), Some(SHUT), false);
    assert_eq!(run.detector.poll_event(), Some(Event::Withheld(Doubt::LateTimer)));
    run.now += ms(60_000);
    let moving = |at: Duration| {
        let unacked_bytes = 50_000u64.saturating_sub(at.as_millis() as u64 / 10);
        Some(KernelView { unacked_bytes, ..SHUT })
    };
    run.until(ms(70_000), &mut |_| None, &moving);
    let told: Vec<_> = run.events.iter().map(|(_, event)| event).collect();
    assert_eq!(told, [&Event::Spared(doubted(Doubt::LateTimer))]);
}

/// The app pushes, and hears nothing of us: it sends the same again and again, and each of its segments repeats
/// an old acknowledgement.
#[test]
fn an_app_that_does_not_hear_us_is_unreachable_and_not_frozen() {
    let mut run = Run::new(BALANCED_APP, 53);
    let deaf = |_| Some(KernelView { unacked_bytes: 42, retransmits: 3, since_last_ack: ms(1_500) });
    run.detector.handle_written(42, run.now);
    run.until(ms(100_000), &mut |_| None, &deaf);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!(verdict.cause, Cause::Unreachable);
    assert!(at <= BALANCED_APP.bound(), "{at:?}");
}

#[test]
fn a_peer_that_is_heard_all_the_time_is_never_called_unreachable() {
    let mut run = Run::new(BALANCED, 54);
    run.detector.handle_written(10_000, run.now);
    run.detector.handle_write_blocked(run.now);
    for tick in 1..200 {
        run.detector.handle_bytes(run.now);
        run.until(ms(tick * 100), &mut |_| None, &|at| {
            Some(KernelView { unacked_bytes: 10_000, retransmits: 5, since_last_ack: at })
        });
    }
    assert_eq!(run.verdict().expect("a verdict").1.cause, Cause::WriteStalled);
}

#[test]
fn the_proof_tells_of_a_probe_that_was_late() {
    let mut run = Run::new(BALANCED, 55);
    run.lag = ms(80);
    run.until(ms(6_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    run.lag = Duration::ZERO;
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    assert_eq!(run.verdict().expect("a verdict").1.timer_lag, ms(80));
}

/// On a line that jitters, one timeout of a retransmission between two close looks proves nothing.
#[test]
fn a_peer_whose_kernel_took_bytes_a_moment_ago_is_not_unreachable() {
    let mut run = Run::new(BALANCED_APP, 56);
    run.detector.handle_written(1_000_000, run.now);
    // 1000 bytes every two seconds, and a retransmission before each.
    let jitters = |at: Duration| {
        let taken = at.as_millis() as u64 / 2_000 * 1_000;
        Some(KernelView {
            unacked_bytes: 1_000_000 - taken,
            retransmits: 1,
            since_last_ack: ms(at.as_millis() as u64 % 2_000),
        })
    };
    run.until(ms(40_000), &mut |_| None, &jitters);
    assert!(run.verdict().is_none_or(|(_, verdict)| verdict.cause != Cause::Unreachable), "{:?}", run.events);
}

/// The socket took bytes until just before it was full; only then it turns out that the kernel can't tell.
#[test]
fn where_the_kernel_tells_nothing_the_first_stall_has_its_whole_time_too() {
    let mut run = Run::new(BALANCED, 57);
    for tick in 0..9 {
        run.detector.handle_written(1_000, run.start + ms(tick * 100));
    }
    run.now = run.start + ms(900);
    run.detector.handle_write_blocked(run.now);
    for tick in 10..200 {
        run.until(ms(tick * 100), &mut |_| None, &|_| None);
        run.detector.handle_bytes(run.now);
    }
    assert!(run.verdict().expect("a verdict").0 >= ms(900) + BALANCED.write_stall_after);
}
