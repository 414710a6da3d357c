//! A probe on its way out: it counts from when the socket has taken it, and what stands before it counts for it.

use super::*;
use crate::doubt::Lateness;

/// Goes on until a probe is due.
fn until_due(run: &mut Run) {
    while !run.detector.is_probe_due() {
        run.now = run.detector.poll_timeout().expect("a probe").max(run.now);
        run.detector.handle_timeout(run.now, None, false);
    }
}

/// Goes on until a probe has left.
fn until_probed(run: &mut Run) -> ProbeId {
    until_due(run);
    let probe = run.detector.poll_probe(run.now, 0, PING).expect("it is due");
    run.detector.handle_written(PING, run.now);
    probe
}

#[test]
fn the_clock_of_the_verdict_starts_when_the_socket_has_taken_the_probe() {
    for paused in [false, true] {
        let mut run = Run::new(BALANCED, 70);
        until_due(&mut run);
        let probe = run.detector.poll_probe(run.now, 100, PING).expect("it is due");
        assert!(run.detector.poll_probe(run.now, 100, PING).is_none(), "one at a time");
        // The frame under way leaves within 4 s, the probe a byte at a time behind it.
        run.detector.handle_written(50, run.now);
        run.detector.handle_write_blocked(run.now);
        for _ in 0..40 {
            run.now += ms(100);
            run.detector.handle_timeout(run.now, Some(ALIVE), false);
        }
        if paused {
            run.detector.handle_rest(run.now);
        }
        run.detector.handle_written(59, run.now);
        run.detector.handle_timeout(run.now, Some(ALIVE), false);
        assert_eq!(run.detector.probes_unanswered(), 0, "its last byte still waits");
        run.now += ms(10);
        run.detector.handle_written(1, run.now);
        assert_eq!(run.detector.probes_unanswered(), 1);
        let mut written = run.now;
        if paused {
            run.now += ms(20_000);
            run.detector.handle_resume(run.now);
            // It may have answered at once, unread: its time begins with the next read.
            written = run.now;
        }
        run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
        let (at, _) = run.verdict().expect("a verdict");
        assert_eq!(run.start + at, written + BALANCED.verdict_after);
        assert!(matches!(run.detector.handle_pong(&probe.to_payload(), run.now), Pong::Ours { .. }));
    }
}

#[test]
fn the_round_trip_counts_from_when_the_probe_has_left() {
    let mut run = Run::new(BALANCED, 71);
    until_due(&mut run);
    let probe = run.detector.poll_probe(run.now, 100, PING).expect("it is due");
    run.now += ms(3_000);
    run.detector.handle_written(110, run.now);
    run.now += ms(40);
    run.detector.handle_bytes(run.now);
    let pong = run.detector.handle_pong(&probe.to_payload(), run.now);
    assert_eq!(pong, Pong::Ours { id: probe, round_trip: Some(ms(40)), late: false });
}

#[test]
fn a_pong_proves_nothing_of_data_that_left_in_the_same_write_behind_the_ping() {
    let mut run = Run::new(BALANCED, 72);
    until_due(&mut run);
    let probe = run.detector.poll_probe(run.now, 0, PING).expect("it is due");
    run.detector.handle_written(PING + 500, run.now);
    run.detector.handle_bytes(run.now + ms(40));
    run.detector.handle_pong(&probe.to_payload(), run.now + ms(40));
    assert!(
        run.detector.wants_kernel_view(run.now + ms(1_000)).is_some(),
        "500 bytes are still on their way"
    );
}

#[test]
fn that_all_has_arrived_is_enough_to_know_only_in_time_and_while_no_probe_is_out() {
    let mut run = Run::new(BALANCED, 73);
    run.detector.handle_written(500, run.now);
    assert_eq!(run.detector.wants_kernel_view(run.now + ms(999)), None);
    assert_eq!(run.detector.wants_kernel_view(run.now + ms(1_000)), Some(Look::Delivery));
    let late = ms(1_000) + BALANCED.lateness_max();
    assert_eq!(run.detector.wants_kernel_view(run.now + late), Some(Look::Delivery));
    assert_eq!(run.detector.wants_kernel_view(run.now + late + ms(1)), Some(Look::Peer), "it came late");
    run.detector.handle_timeout(run.now + ms(1_000), Some(KernelView::all_taken()), false);
    assert_eq!(run.detector.wants_kernel_view(run.now + ms(2_000)), None, "all has arrived");

    until_due(&mut run);
    run.detector.handle_written(500, run.now);
    assert_eq!(run.detector.wants_kernel_view(run.now + ms(1_000)), Some(Look::Peer), "a probe waits");
    run.detector.poll_probe(run.now, 0, PING).expect("it is due");
    run.detector.handle_written(PING, run.now);
    assert_eq!(run.detector.wants_kernel_view(run.now + ms(1_000)), Some(Look::Peer), "a probe is out");
}

/// A line whose acknowledgements come in lumps, far apart but within `verdict_after`.
#[test]
fn a_living_peer_on_a_slow_line_with_coarse_acknowledgements_is_kept() {
    for seed in 0..200 {
        for every in [1_000, 2_500, 4_000] {
            let mut run = Run::new(BALANCED, seed);
            run.detector.handle_written(100_000, run.now);
            let lumps = |at: Duration| {
                let acked = at.as_millis() as u64 / every * every;
                let taken = (acked * 4).min(100_000);
                let unacked_bytes = 100_000 - taken;
                Some(KernelView { unacked_bytes, retransmits: 0, since_last_ack: at - ms(acked) })
            };
            // The probes arrive behind the data, after 25 s.
            run.until(ms(25_000), &mut |_| None, &lumps);
            assert_eq!(run.verdict(), None, "seed {seed}, every {every} ms");
        }
    }
}

#[test]
fn a_write_stall_limit_below_the_verdict_is_no_death_of_the_living() {
    let limits = Limits { write_stall_after: ms(1_000), ..BALANCED };
    let mut run = Run::new(limits, 73);
    for second in 0..60 {
        // Acknowledged 3 s later: slow, and within the promise.
        run.detector.handle_written(100, run.now);
        let kernel = |at: Duration| {
            let unacked_bytes = if second % 4 == 3 { 0 } else { 100 * (second % 4 + 1) };
            Some(KernelView { unacked_bytes, retransmits: 1, since_last_ack: at.min(ms(3_000)) })
        };
        run.until(ms((second + 1) * 1_000), &mut |_| Some(ms(1)), &kernel);
        run.detector.handle_bytes(run.now);
    }
    assert_eq!(run.verdict(), None);
    assert_eq!(limits.stall_after(), BALANCED.verdict_after);
}

#[test]
fn a_late_wake_that_decides_nothing_uses_up_no_doubt() {
    let mut run = Run::new(BALANCED_APP, 74);
    run.until(ms(8_000), &mut |_| None, &|_| Some(ALIVE));
    // Late again and again while the frozen app has its own, longer limit.
    for _ in 0..4 {
        run.now += ms(4_000);
        run.detector.handle_timeout(run.now, Some(ALIVE), false);
        run.detector.poll_probe(run.now, 0, PING);
    }
    let told: Vec<_> = std::iter::from_fn(|| run.detector.poll_event()).collect();
    assert!(!told.contains(&Event::Withheld(Doubt::LateTimer)), "{told:?}");
    run.now += ms(60_000);
    run.detector.handle_timeout(run.now, Some(ALIVE), false);
    assert_eq!(run.detector.poll_event(), Some(Event::Withheld(Doubt::LateTimer)));
}

/// The whole machine stood still, and with it the acknowledgements of what the peer sent: that comes again as
/// late as the pause was long.
#[test]
fn a_first_probe_that_is_late_gives_the_peer_its_time_back_once() {
    let mut run = Run::new(BALANCED, 75);
    run.now += ms(8_000);
    let first = run.detector.poll_timeout().expect("a probe");
    let late = run.now - first;
    let mut events = Vec::new();
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    for (at, event) in &run.events {
        match event {
            Event::Withheld(doubt) => events.push((*at, *doubt)),
            Event::Dead(verdict) => {
                assert_eq!((*at, verdict.withheld), (ms(8_000) + BALANCED.verdict_after + late, 1));
                assert_eq!(verdict.timer_lag, late);
            }
            Event::Suspected | Event::Recovered | Event::Spared(_) => {}
        }
    }
    assert_eq!(events, [(ms(8_000) + BALANCED.verdict_after, Doubt::LateTimer)]);
    assert!(run.verdict().is_some());
}

#[test]
fn a_doubted_stall_that_ends_with_a_pong_is_told_as_spared() {
    let mut run = Run::new(BALANCED, 76);
    let probe = until_probed(&mut run);
    for _ in 0..12 {
        run.now += ms(900);
        run.detector.handle_bytes(run.now);
        while run.detector.poll_event().is_some() {}
    }
    run.now += ms(3_000);
    run.detector.handle_bytes(run.now);
    run.detector.handle_timeout(run.now, Some(KernelView { unacked_bytes: 10, ..SHUT }), false);
    let told: Vec<_> = std::iter::from_fn(|| run.detector.poll_event()).collect();
    assert_eq!(told, [Event::Withheld(Doubt::LateTimer)]);
    run.detector.handle_pong(&probe.to_payload(), run.now);
    assert_eq!(run.detector.poll_event(), Some(Event::Spared(doubted(Doubt::LateTimer))));
}

#[test]
fn three_things_at_once_are_all_told() {
    let mut run = Run::new(BALANCED, 77);
    until_probed(&mut run);
    run.detector.flight.doubts.raise_late(ms(60_000), &BALANCED);
    run.now += ms(60_000);
    // Some bytes were taken, then none: one stall is over, and there is a suspicion whose verdict is withheld.
    let kernel = KernelView { unacked_bytes: 5, retransmits: 3, since_last_ack: ms(50_000) };
    run.detector.handle_timeout(run.now, Some(kernel), false);
    let told: Vec<_> = std::iter::from_fn(|| run.detector.poll_event()).collect();
    let late = Doubt::LateTimer;
    assert_eq!(told, [Event::Spared(doubted(late)), Event::Suspected, Event::Withheld(late)]);
}

/// On a slow line the probe arrives late, and the answer has `verdict_after` from there.
#[test]
fn an_answer_has_its_time_from_when_a_slow_line_delivered_the_probe() {
    let mut run = Run::new(BALANCED, 78);
    run.detector.handle_written(100_000, run.now);
    // 7000 bytes a second: all is delivered after about 14.3 s, and the last of it acknowledged at once.
    let slow = |at: Duration| {
        let taken = (at.as_millis() as u64 * 7).min(100_000);
        let since_last_ack = at.saturating_sub(ms(14_286));
        Some(KernelView { unacked_bytes: 100_000 - taken, retransmits: 0, since_last_ack })
    };
    run.until(ms(100_000), &mut |_| None, &slow);
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!(verdict.cause, Cause::Frozen);
    let delivered = ms(14_286);
    assert!(at >= delivered + BALANCED.verdict_after, "{at:?}");
    assert!(at <= delivered + BALANCED.verdict_after + ms(100), "{at:?}");
}

/// A look that comes too late decides nothing; the next, which is on time, must not forget that.
#[test]
fn a_late_look_at_a_stall_is_remembered_by_the_next() {
    let mut run = Run::new(BALANCED, 79);
    run.detector.handle_rest(run.now);
    run.detector.handle_written(500, run.now);
    run.now += ms(60_000);
    let dead = |since| Some(KernelView { unacked_bytes: 500, retransmits: 3, since_last_ack: ms(since) });
    // Something was acknowledged just before we slept.
    run.detector.handle_timeout(
        run.now,
        Some(KernelView { unacked_bytes: 400, retransmits: 0, since_last_ack: ms(59_500) }),
        false,
    );
    assert_eq!(run.detector.poll_event(), None);
    run.detector.handle_timeout(run.now + ms(1_000), dead(60_500), false);
    assert_eq!(run.detector.poll_event(), Some(Event::Withheld(Doubt::LateTimer)));
}

#[test]
fn a_late_timer_of_long_ago_is_no_doubt_any_more() {
    let limits = BALANCED.lateness_max();
    let mut late = Lateness::default();
    let now = origin();
    late.note(limits, now, &BALANCED);
    assert_eq!(late.recent(now), Duration::ZERO, "within the tolerance");
    late.note(ms(3_000), now, &BALANCED);
    late.note(ms(10), now + ms(100), &BALANCED);
    assert_eq!(late.recent(now + ms(9_999)), ms(3_000));
    assert_eq!((late.recent(now + ms(10_000)), late.most), (Duration::ZERO, ms(3_000)));
}

#[test]
fn a_late_second_probe_is_a_doubt_though_the_verdict_is_on_time() {
    let mut run = Run::new(BALANCED, 80);
    until_probed(&mut run);
    let first = run.now;
    run.now += ms(4_000);
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let withheld = run.events.iter().find(|(_, event)| *event == Event::Withheld(Doubt::LateTimer));
    assert_eq!(withheld.map(|(at, _)| run.start + *at), Some(first + BALANCED.verdict_after));
}

/// What is lost while a peer is not read starts no probe: it could not be answered where we would see it.
#[test]
fn a_peer_that_is_not_read_is_not_probed_for_what_is_lost() {
    let mut run = Run::new(BALANCED, 81);
    run.detector.handle_written(500, run.now);
    run.detector.handle_rest(run.now);
    let lost = |at: Duration| Some(KernelView { unacked_bytes: 500, retransmits: 2, since_last_ack: at });
    run.until(ms(2_500), &mut |_| None, &lost);
    run.detector.handle_resume(run.now);
    assert!(!run.detector.is_probe_due());
    run.until(ms(3_900), &mut |_| None, &lost);
    assert_eq!(run.probes, [ms(3_000)], "read again, it is");
}

#[test]
fn a_peer_that_no_probe_can_reach_is_missing_when_what_stands_before_it_is_lost() {
    let mut run = Run::new(BALANCED, 82);
    run.detector.handle_written(500, run.now);
    let mut at = run.start;
    while at < run.start + ms(4_000) {
        at = run.detector.poll_timeout().expect("a look").max(at);
        let since_last_ack = at - run.start;
        let view = KernelView { unacked_bytes: 500, retransmits: 2, since_last_ack };
        run.detector.handle_timeout(at, Some(view), false);
    }
    assert!(!run.detector.is_suspect() && run.detector.is_missing());
}

#[test]
fn nothing_is_told_of_the_dead() {
    let mut run = Run::new(BALANCED, 83);
    let probe = until_probed(&mut run);
    run.detector.flight.doubts.raise_late(ms(60_000), &BALANCED);
    run.detector.handle_socket_timeout(run.now);
    assert!(matches!(run.detector.poll_event(), Some(Event::Dead(_))));
    run.detector.handle_bytes(run.now);
    run.detector.handle_pong(&probe.to_payload(), run.now);
    assert_eq!(run.detector.poll_event(), None);
}

#[test]
fn an_outage_shorter_than_verdict_after_kills_nobody_whose_probe_has_no_place() {
    for offset in 0..100 {
        let (outage, len) = (ms(10_000 + offset * 44), ms(4_990));
        let mut run = Run::new(BALANCED, 90);
        run.detector.handle_written(60_000, run.now);
        let mut at = run.start;
        while at < run.start + outage + len {
            let next = run.detector.poll_timeout().expect("a look").max(at);
            at = next.min(at + ms(20)).max(at + ms(1));
            let down = (at - run.start).checked_sub(outage).filter(|&time| time < len);
            if down.is_none() {
                run.detector.handle_written(200, at);
            }
            let kernel = match down {
                Some(since_last_ack) => KernelView { unacked_bytes: 50_000, retransmits: 3, since_last_ack },
                None => KernelView { since_last_ack: ms(20), ..SHUT },
            };
            let wanted = run.detector.wants_kernel_view(at).is_some();
            run.detector.handle_timeout(at, Some(kernel).filter(|_| wanted), false);
            let told = run.detector.poll_event();
            assert!(!matches!(told, Some(Event::Dead(_))), "{down:?} into the outage");
        }
    }
}

#[test]
fn what_is_delivered_in_a_pause_does_not_count_the_pause_twice() {
    let mut run = Run::new(BALANCED, 91);
    let mut left = 60_000;
    run.detector.handle_written(60_000, run.now);
    let look = |run: &mut Run, left: &mut u64| {
        *left -= 100;
        run.now = run.detector.poll_timeout().expect("a look").max(run.now);
        let kernel = KernelView { unacked_bytes: *left, retransmits: 0, since_last_ack: ms(10) };
        run.detector.handle_timeout(run.now, Some(kernel), false);
    };
    while !run.detector.is_probe_due() {
        look(&mut run, &mut left);
    }
    run.detector.poll_probe(run.now, 0, PING);
    run.detector.handle_written(PING, run.now);
    left += PING as u64;
    look(&mut run, &mut left);
    look(&mut run, &mut left);
    run.detector.handle_rest(run.now);
    let rested = run.now;
    while run.now < rested + ms(19_000) {
        look(&mut run, &mut left);
    }
    run.now = run.detector.poll_timeout().expect("a look");
    run.detector.handle_timeout(run.now, Some(ALIVE), false);
    run.now = rested + ms(21_000);
    run.detector.handle_resume(run.now);
    let resumed = run.now - run.start;
    if run.detector.poll_probe(run.now, 0, PING).is_some() {
        run.detector.handle_written(PING, run.now);
    }
    run.until(ms(100_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, _) = run.verdict().expect("a verdict");
    assert!(at - resumed <= BALANCED.verdict_after + ms(500), "{:?}", at - resumed);
}

/// Whoever counts what was withheld and what became of it gets the same sum, by reason.
#[test]
fn a_verdict_settles_each_doubt_that_was_told() {
    let mut run = Run::new(BALANCED, 92);
    run.lag = ms(2_000);
    run.mass = true;
    run.until(ms(100_000), &mut |_| None, &path_dead_since(Duration::ZERO));
    let told = |doubt| run.events.iter().filter(|(_, event)| *event == Event::Withheld(doubt)).count();
    let (_, verdict) = run.verdict().expect("a verdict");
    for doubt in Doubt::ALL {
        assert!(told(doubt) > 0, "{doubt:?}");
        assert_eq!(verdict.doubts.of(doubt) as usize, told(doubt), "{doubt:?}");
    }
}
