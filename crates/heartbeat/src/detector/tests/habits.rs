//! Peers that answer pings in ways of their own.

use super::*;

/// Lets the peer answer only those probes for which `answers` says so, by their number, for an hour.
fn an_hour_with(limits: Limits, seed: u64, answers: impl Fn(usize) -> bool) -> Run {
    let mut run = Run::new(limits, seed);
    run.until(ms(3_600_000), &mut |n| answers(n).then_some(ms(40)), &|_| Some(ALIVE));
    run
}

#[test]
fn a_peer_that_answers_every_third_ping_lives() {
    for seed in 0..20 {
        let run = an_hour_with(BALANCED, seed, |n| n % 3 == 2);
        assert_eq!(run.verdict(), None, "seed {seed}");
    }
}

#[test]
fn a_peer_that_answered_once_and_then_only_sends_is_kept() {
    let mut run = Run::new(BALANCED, 40);
    let mut last = run.start;
    // It sends something every nine seconds, and stops answering after the first ping.
    for tick in 1..400 {
        run.until(ms(tick * 9_000), &mut |n| (n == 0).then_some(ms(40)), &|_| Some(ALIVE));
        run.detector.handle_bytes(run.now);
        last = run.now;
    }
    assert_eq!(run.verdict(), None);
    assert_eq!(run.detector.pong_habit(), PongHabit::Never);
    run.until(ms(10_000_000), &mut |_| None, &|_| Some(ALIVE));
    let (at, verdict) = run.verdict().expect("a verdict");
    assert_eq!((run.start + at - last, verdict.cause), (BALANCED.idle_timeout, Cause::Frozen));
}

#[test]
fn one_pong_wins_back_the_name_of_a_peer_that_answers() {
    let mut run = Run::new(BALANCED, 41);
    for round in 0..20 {
        // A stall of the network: data that was held up comes first, the pong right behind it.
        run.until(ms((round + 1) * 9_000), &mut |n| (n == 0).then_some(ms(40)), &|_| Some(ALIVE));
        run.detector.handle_bytes(run.now);
        assert_eq!(run.detector.pong_habit(), PongHabit::Answers, "round {round}");
        let payload = run.detector.sent.push(run.now).to_payload();
        run.detector.handle_pong(&payload, run.now);
    }
    assert_eq!((run.verdict(), run.detector.pong_habit()), (None, PongHabit::Answers));
}

#[test]
fn pongs_that_nobody_asked_for_are_life_and_change_nothing_else() {
    let mut run = Run::new(BALANCED, 42);
    let id = run.detector.sent.push(run.now);
    for tick in 0..100_000 {
        let now = run.start + ms(tick);
        run.detector.handle_bytes(now);
        let pong = run.detector.handle_pong(&id.to_payload(), now);
        assert_eq!(
            pong,
            Pong::Ours { id, round_trip: (tick == 0).then_some(Duration::ZERO), late: tick > 0 }
        );
        run.detector.handle_timeout(now, Some(ALIVE), false);
        run.now = now;
    }
    assert_eq!(run.detector.poll_event(), None);
    let heard = run.detector.heard_at();
    run.until(ms(200_000), &mut |_| None, &path_dead_since(ms(100_000)));
    let (at, _) = run.verdict().expect("a verdict");
    assert!(run.start + at - heard <= BALANCED.bound());
}
