//! The lifecycle, event by event.

use super::*;
use crate::delivery::Confirm;
use pulsegate_core::Cause;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

const DELIVERY: DeliveryRules =
    DeliveryRules { confirm: Confirm::Received, interval: SECOND, answer_within: Duration::from_secs(5) };

fn limits() -> Arc<SessionLimits> {
    let client = Limits {
        ping_interval: 5 * SECOND,
        verdict_after: 5 * SECOND,
        frozen_after: 10 * SECOND,
        idle_timeout: 60 * SECOND,
        write_stall_after: 10 * SECOND,
    };
    let app = Limits { frozen_after: 30 * SECOND, write_stall_after: 30 * SECOND, ..client };
    let codes = CloseCodes { dead_client: 4408, dead_app: 1012, frozen_app: 1013 };
    Arc::new(SessionLimits {
        client: client.into(),
        app: app.into(),
        close_timeout: 5 * SECOND,
        delivery: DELIVERY,
        codes,
    })
}

#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn start() -> (Session, Instant) {
    let now = Instant::now();
    (Session::new(limits(), &Default::default(), false, 7, now), now)
}

fn close(code: u16, reason: &str) -> Option<CloseFrame> {
    Some(CloseFrame::new(code, reason))
}

/// Lets the probe that is due go out; returns whether there was one.
fn probe(session: &mut Session, leg: Leg, now: Instant) -> bool {
    let due = session.poll_probe(leg, now, 0, 10).is_some();
    if due {
        session.handle_written(leg, 10, now);
    }
    due
}

/// Lets only one leg answer probes until a note other than a suspicion falls; returns it with its time.
fn run_until_dead(
    session: &mut Session,
    start: Instant,
    silent: Leg,
    kernel: Option<KernelView>,
) -> (Duration, Box<Verdict>) {
    let mut now = start;
    loop {
        now = session.poll_timeout().expect("an open session waits for something").max(now);
        session.handle_timeout(now, [kernel; 2]);
        for leg in Leg::BOTH {
            if probe(session, leg, now) && leg != silent {
                session.handle_bytes(leg, now);
            }
        }
        while let Some(note) = session.poll_note() {
            if let Note::Dead(leg, verdict) = note {
                assert_eq!(leg, silent);
                return (now - start, verdict);
            }
        }
    }
}

#[test]
fn a_close_of_the_client_goes_through_and_the_server_side_closes_first() {
    let (mut session, now) = start();
    session.handle_close(Leg::Client, close(3001, "bye"), now);
    assert!(!session.is_forwarding(Leg::Client) && session.is_forwarding(Leg::App));
    assert_eq!(session.poll_order(Leg::App), Some(Order::Close(close(3001, "bye"))));
    assert_eq!(session.poll_order(Leg::Client), None);
    session.handle_close(Leg::App, close(3001, "bye"), now);
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Close(close(3001, "bye"))));
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Finish));
    session.handle_hangup(Leg::App, now);
    assert!(!session.is_finished());
    session.handle_finished(Leg::Client);
    assert!(session.is_finished());
    let ending = session.ending().expect("ended");
    assert_eq!(
        (ending.reason, ending.leg, ending.close.clone()),
        (EndReason::Closed, Some(Leg::Client), close(3001, "bye"))
    );
}

#[test]
fn a_close_of_the_app_goes_through() {
    let (mut session, now) = start();
    session.handle_close(Leg::App, None, now);
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Close(None)));
    session.handle_close(Leg::Client, None, now);
    assert_eq!(session.poll_order(Leg::App), Some(Order::Close(None)));
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Finish));
}

#[test]
fn an_unanswered_close_ends_in_time() {
    let (mut session, now) = start();
    session.handle_close(Leg::Client, None, now);
    assert_eq!(session.poll_timeout(), Some(now + 5 * SECOND));
    session.handle_timeout(now + 5 * SECOND, [None; 2]);
    assert!(session.is_finished());
}

#[test]
fn a_client_that_cuts_its_line_leaves_the_app_without_a_close_frame() {
    let (mut session, now) = start();
    session.handle_hangup(Leg::Client, now);
    assert_eq!(session.poll_order(Leg::App), Some(Order::Finish));
    assert_eq!(session.poll_order(Leg::App), None);
    session.handle_hangup(Leg::App, now);
    assert!(session.is_finished());
    assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::Reset));
}

#[test]
fn an_app_that_vanishes_is_a_1012_to_the_client() {
    let (mut session, now) = start();
    session.handle_hangup(Leg::App, now);
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Close(close(1012, "app connection lost"))));
    session.handle_close(Leg::Client, close(1012, ""), now);
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Finish));
    assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::Reset));
}

#[test]
fn an_app_that_hangs_up_on_a_close_leaves_the_client_without_an_answer() {
    let (mut session, now) = start();
    session.handle_close(Leg::Client, None, now);
    session.handle_hangup(Leg::App, now);
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Finish));
}

#[test]
fn a_violation_closes_both_sides_with_their_codes() {
    for (leg, codes) in [(Leg::Client, [1002, 1001]), (Leg::App, [1011, 1002])] {
        let (mut session, now) = start();
        session.handle_violation(leg, Violation::ReservedBit, now);
        for (side, code) in Leg::BOTH.into_iter().zip(codes) {
            match session.poll_order(side) {
                Some(Order::Close(Some(frame))) => assert_eq!(frame.code, code),
                other => panic!("{side}: {other:?}"),
            }
        }
        assert_eq!(session.poll_order(leg), Some(Order::Finish));
        assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::ProtocolError));
    }
    let (mut session, now) = start();
    session.handle_violation(Leg::Client, Violation::FrameTooBig, now);
    assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::Limit));
}

#[test]
fn a_dead_client_is_a_close_frame_to_the_app() {
    let (mut session, start) = start();
    let gone = KernelView { unacked_bytes: 14, retransmits: 3, since_last_ack: 60 * SECOND };
    let (at, verdict) = run_until_dead(&mut session, start, Leg::Client, Some(gone));
    assert!(at <= 10 * SECOND && verdict.cause == Cause::Unreachable);
    match session.poll_order(Leg::App) {
        Some(Order::Close(Some(frame))) => {
            assert_eq!(frame.code, 4408);
            assert!(frame.reason.starts_with("client unreachable: silent for "), "{}", frame.reason);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Abandon(Cause::Unreachable, None)));
    assert!(session.is_leg_done(Leg::Client) && !session.is_finished());
    assert!(session.ending().is_some_and(|ending| ending.verdict.is_some()));
}

#[test]
fn a_frozen_app_is_a_1013_to_the_client_and_finds_out_when_it_wakes() {
    let (mut session, start) = start();
    let alive = KernelView { unacked_bytes: 0, retransmits: 0, since_last_ack: Duration::from_millis(3) };
    let (at, verdict) = run_until_dead(&mut session, start, Leg::App, Some(alive));
    assert_eq!((at, verdict.cause), (30 * SECOND, Cause::Frozen));
    assert!(matches!(session.poll_order(Leg::Client), Some(Order::Close(Some(frame))) if frame.code == 1013));
    let order = session.poll_order(Leg::App);
    assert!(matches!(order, Some(Order::Abandon(Cause::Frozen, Some(frame))) if frame.code == 4408));
}

#[test]
fn the_first_sign_of_an_end_decides_its_reason() {
    let (mut session, now) = start();
    session.handle_end(EndReason::Kicked, CloseFrame::new(1008, "kicked"), now);
    session.handle_close(Leg::Client, close(1008, "kicked"), now);
    session.handle_hangup(Leg::App, now);
    session.handle_end(EndReason::Drained, CloseFrame::new(1012, ""), now);
    assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::Kicked));
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Close(close(1008, "kicked"))));
    assert_eq!(session.poll_order(Leg::Client), Some(Order::Finish));
    assert_eq!(session.poll_order(Leg::App), None);
}

#[test]
fn what_both_legs_have_to_tell_is_told() {
    let (mut session, start) = start();
    let mut now = start;
    while !Leg::BOTH.iter().all(|leg| session.detector(*leg).is_suspect()) {
        now = session.poll_timeout().expect("an open session waits for something").max(now);
        session.handle_timeout(now, [None; 2]);
        for leg in Leg::BOTH {
            probe(&mut session, leg, now);
        }
    }
    while session.poll_note().is_some() {}
    for leg in Leg::BOTH {
        session.handle_bytes(leg, now);
    }
    assert_eq!(session.poll_note(), Some(Note::Recovered(Leg::Client)));
    assert_eq!(session.poll_note(), Some(Note::Recovered(Leg::App)));
    assert_eq!(session.poll_note(), None);
}

#[test]
fn a_dead_app_is_a_1012_to_the_client() {
    let (mut session, start) = start();
    let gone = KernelView { unacked_bytes: 14, retransmits: 3, since_last_ack: 60 * SECOND };
    let (_, verdict) = run_until_dead(&mut session, start, Leg::App, Some(gone));
    assert_eq!(verdict.cause, Cause::Unreachable);
    assert!(matches!(session.poll_order(Leg::Client), Some(Order::Close(Some(frame))) if frame.code == 1012));
    assert_eq!(session.poll_order(Leg::App), Some(Order::Abandon(Cause::Unreachable, None)));
}

#[test]
fn a_fin_behind_a_close_waits_for_the_answer_and_for_nothing_more() {
    let (mut session, now) = start();
    assert!(!session.handle_input_over(Leg::Client), "without a Close it is a hang-up");
    session.handle_close(Leg::App, None, now);
    assert!(session.handle_input_over(Leg::App));
    assert!(!session.is_leg_done(Leg::App));
    session.handle_close(Leg::Client, None, now);
    assert_eq!(session.poll_order(Leg::App), Some(Order::Close(None)));
    assert_eq!(session.poll_order(Leg::App), Some(Order::Finish));
    session.handle_finished(Leg::App);
    assert!(session.is_leg_done(Leg::App));
}

#[test]
fn no_data_follows_a_close_frame_of_our_own() {
    let (mut session, now) = start();
    session.handle_end(EndReason::Kicked, CloseFrame::new(1008, "kicked"), now);
    for leg in Leg::BOTH {
        assert!(!session.is_forwarding(leg), "{leg}");
        assert!(session.is_awaiting_close(leg), "{leg}");
    }
}

#[test]
fn a_mass_of_missing_clients_is_doubted_once_and_those_who_left_do_not_count() {
    let (crowds, now): ([Arc<Crowd>; 2], _) = (Default::default(), start().1);
    let mut sessions: Vec<Session> =
        (0..20).map(|seed| Session::new(limits(), &crowds, false, seed, now)).collect();
    let gone = KernelView { unacked_bytes: 14, retransmits: 3, since_last_ack: 60 * SECOND };
    let (mut withheld, mut died) = (0, Vec::new());
    let mut at = now;
    while died.len() < 12 {
        at = sessions[..12].iter().filter_map(Session::poll_timeout).min().expect("somebody waits").max(at);
        assert!(at <= now + 15 * SECOND, "{} died", died.len());
        for (n, session) in sessions.iter_mut().enumerate() {
            session.handle_bytes(Leg::App, at);
            if n >= 12 {
                session.handle_bytes(Leg::Client, at);
            }
            session.handle_timeout(at, [Some(gone), None]);
            probe(session, Leg::Client, at);
            while let Some(note) = session.poll_note() {
                match note {
                    Note::Withheld(Leg::Client, Doubt::MassSuspicion) => withheld += 1,
                    Note::Dead(Leg::Client, verdict) => {
                        assert!(verdict.doubt == Some(Doubt::MassSuspicion) || died.len() >= 9, "{verdict}");
                        died.push(at - now);
                    }
                    Note::Suspected(leg) => assert_eq!(leg, Leg::Client),
                    Note::Recovered(_)
                    | Note::Withheld(..)
                    | Note::Spared(..)
                    | Note::Dead(..)
                    | Note::Delivery(_) => {
                        panic!("{note:?}")
                    }
                }
            }
        }
        // The dead are done; their timers are those of the closing.
        sessions.iter_mut().for_each(|session| while session.poll_order(Leg::App).is_some() {});
    }
    assert!(withheld >= 10 && died[0] > 10 * SECOND, "{withheld} {died:?}");
    assert!(!crowds[0].is_doubtful(at + 60 * SECOND, SECOND), "nobody judges the dead any more");
}

#[test]
fn a_kernel_that_gave_up_is_a_verdict_before_the_end_and_a_hangup_after_it() {
    let (mut session, now) = start();
    session.handle_socket_timeout(Leg::Client, now);
    assert_eq!(session.ending().map(|ending| ending.reason), Some(EndReason::Unreachable));
    assert!(matches!(session.poll_order(Leg::App), Some(Order::Close(Some(frame))) if frame.code == 4408));
    session.handle_socket_timeout(Leg::App, now);
    assert!(session.is_finished());
}

#[test]
fn a_session_that_ends_leaves_both_crowds_at_once() {
    let (crowds, now): ([Arc<Crowd>; 2], _) = (Default::default(), start().1);
    let mut sessions: Vec<Session> =
        (0..10).map(|seed| Session::new(limits(), &crowds, false, seed, now)).collect();
    let gone = KernelView { unacked_bytes: 14, retransmits: 3, since_last_ack: 60 * SECOND };
    for tick in 1..80 {
        for session in &mut sessions {
            session.handle_timeout(now + tick * SECOND / 10, [Some(gone); 2]);
            for leg in Leg::BOTH {
                probe(session, leg, now + tick * SECOND / 10);
            }
        }
    }
    let later = now + 8 * SECOND;
    assert!(crowds[0].is_doubtful(later, SECOND) && crowds[1].is_doubtful(later, SECOND));
    for session in &mut sessions {
        session.handle_end(EndReason::Kicked, CloseFrame::new(1008, ""), now + 8 * SECOND);
        session.handle_reading(Leg::App, true, now + 9 * SECOND);
        session.handle_timeout(now + 9 * SECOND, [Some(gone); 2]);
    }
    let later = now + 60 * SECOND;
    assert!(!crowds[0].is_doubtful(later, SECOND) && !crowds[1].is_doubtful(later, SECOND));
}

/// A probe's cost is mostly the wake-up, so both legs share it, from the first probe on, whatever was drawn. (Peers
/// that answer at different times may miss each other, if little of the spread is left.)
#[test]
fn both_legs_of_a_silent_session_are_probed_in_one_wake_up() {
    for seed in 0..20 {
        let (_, mut now) = start();
        let mut session = Session::new(limits(), &Default::default(), false, seed, now);
        for wake_up in 0..20 {
            now = session.poll_timeout().expect("an open session waits for something").max(now);
            session.handle_timeout(now, [None; 2]);
            let answer_at = now + Duration::from_millis(1);
            for leg in [Leg::App, Leg::Client] {
                let probe = session.poll_probe(leg, now, 0, 10);
                let probe =
                    probe.unwrap_or_else(|| panic!("none to {leg}, wake-up {wake_up} of seed {seed}"));
                session.handle_written(leg, 10, now);
                session.handle_bytes(leg, answer_at);
                session.handle_pong(leg, &probe.to_payload(), answer_at);
            }
            now = answer_at;
        }
    }
}
