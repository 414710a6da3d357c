//! The machine, step by step, in virtual time; `pulsegate-sim` runs it against whole worlds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pulsegate_core::v1::{Ack, Envelope, Meta, ResumeFailCode, Secret, Window};
use pulsegate_core::{CloseFrame, EndReason, IdSource, Leg, Level, Outcome, Sent};
use pulsegate_heartbeat::{Crowd, Limits};

use super::*;
use crate::delivery::{Confirm, DeliveryNote, DeliveryRules};
use crate::session::{CloseCodes, Note, SessionLimits};

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> V1Limits {
    let leg = Limits {
        ping_interval: 5 * SECOND,
        verdict_after: 5 * SECOND,
        frozen_after: 10 * SECOND,
        idle_timeout: 60 * SECOND,
        write_stall_after: 10 * SECOND,
    };
    let delivery =
        DeliveryRules { confirm: Confirm::Received, interval: SECOND, answer_within: leg.verdict_after };
    V1Limits {
        session: Arc::new(SessionLimits {
            client: leg.into(),
            app: leg.into(),
            close_timeout: 5 * SECOND,
            delivery,
            codes: CloseCodes { dead_client: 4408, dead_app: 1012, frozen_app: 1013 },
        }),
        window: Window { messages: 4, bytes: 1000 },
        resume_window: 30 * SECOND,
        confirm_within: SECOND,
        heartbeat: 5 * SECOND,
        page_frozen_after: 60 * SECOND,
        app_ack: AppAck::Written,
        app_hold: Duration::ZERO,
    }
}

fn hello(resume: Option<(u8, u64)>, next: u8) -> Hello {
    let resume = resume.map(|(secret, received)| (Secret([secret; 16]), received));
    Hello { resume, is_same_origin: true, next: Secret([next; 16]), behind_proxy: false, seed: 7 }
}

/// What was written: text as it is, words in debug form.
fn written(session: &mut V1Session, now: Instant) -> Vec<String> {
    let mut frames = Vec::new();
    while session.poll_transmit(now, &mut |text, parts| {
        let payload = parts.concat();
        frames.push(match text {
            true => String::from_utf8(payload).unwrap(),
            false => word(&Envelope::parse(&payload).unwrap()),
        });
    }) {}
    frames
}

fn word(envelope: &Envelope<'_>) -> String {
    if let Envelope::Welcome(welcome) = envelope {
        return format!("Welcome {} {} {}", welcome.resumed, welcome.received, welcome.next);
    }
    format!("{envelope:?}")
}

fn say(session: &mut V1Session, envelope: Envelope<'_>, now: Instant) {
    let mut payload = Vec::new();
    envelope.write(&mut payload);
    session.handle_bytes(Leg::Client, now);
    session.handle_client_message(false, &payload, now);
}

fn ack(session: &mut V1Session, handled: u64, now: Instant) {
    say(session, Envelope::Ack(Ack { handled, window: None }), now);
}

fn notes(session: &mut V1Session) -> Vec<V1Note> {
    std::iter::from_fn(|| session.poll_note()).collect()
}

fn start() -> (V1Session, Instant) {
    start_with(limits())
}

#[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
fn start_with(limits: V1Limits) -> (V1Session, Instant) {
    let now = Instant::now();
    let crowds = [Arc::new(Crowd::default()), Arc::new(Crowd::default())];
    let id = IdSource::new(1, 1).next();
    let mut session = V1Session::new(Arc::new(limits), &crowds, id, &hello(None, 1), now);
    assert_eq!(written(&mut session, now), ["Welcome false 0 1"]);
    (session, now)
}

#[test]
fn what_was_refused_is_said_again_before_any_ack() {
    let (mut session, now) = start();
    session.handle_app_message(true, b"last", now);
    session.handle_app_close(Some(CloseFrame::new(1000, "")), now);
    session.handle_client_message(true, b"too late", now);
    let nack = "Nack { seq: 1, code: AppGone, reason: \"the app is gone\" }";
    let ack_word = "Ack(Ack { handled: 1, window: None })";
    assert_eq!(written(&mut session, now), [nack, ack_word, "last"]);
    // Both are lost with the line.
    session.handle_hangup(Leg::Client, now);
    assert_eq!(session.poll_parting(), Some(Parting::Drop));
    assert_eq!(session.handle_hello(&hello(Some((1, 0)), 2), now), Ok(()));
    say(&mut session, Envelope::Probe, now);
    let told = written(&mut session, now);
    assert_eq!(told[..2], ["Welcome true 1 1", nack]);
    assert_eq!(told[2], "ProbeAck(Ack { handled: 1, window: None })");
    ack(&mut session, 1, now);
    assert!(written(&mut session, now).is_empty());
    assert!(session.is_closing(), "all was said");
}

#[test]
fn nothing_of_a_connection_that_was_replaced_counts() {
    let (mut session, now) = start();
    session.handle_app_message(true, b"one", now);
    written(&mut session, now);
    assert_eq!(session.handle_hello(&hello(Some((1, 0)), 2), now), Ok(()));
    assert_eq!(session.generation(), 2);
    let replaced = CloseFrame::new(4409, "replaced by a newer connection");
    assert_eq!(session.poll_parting(), Some(Parting::Close(Some(replaced))));
    assert_eq!(written(&mut session, now), ["Welcome true 0 1", "one"]);
    assert_eq!(session.handle_hello(&hello(Some((9, 0)), 3), now), Err(Refusal::UNKNOWN));
    assert_eq!(session.generation(), 2);
}

#[test]
fn a_page_that_hangs_is_told_from_a_line_that_is_dead() {
    let (mut session, start) = start();
    let mut now = start;
    let mut probes = 0;
    while session.is_attached() {
        now += SECOND / 4;
        // Its WebSocket stack answers every ping, so something always comes.
        session.handle_bytes(Leg::Client, now);
        session.handle_bytes(Leg::App, now);
        session.handle_timeout(now, [None; 2]);
        probes += written(&mut session, now).iter().filter(|word| *word == "Probe").count();
        assert!(now < start + 100 * SECOND);
    }
    assert_eq!(probes, 1, "one question at a time");
    let after = now - start;
    assert!((60 * SECOND..66 * SECOND).contains(&after), "{after:?}");
    assert!(notes(&mut session).contains(&V1Note::Detached(Detached::PageFrozen)));
    assert!(matches!(session.poll_parting(), Some(Parting::Close(Some(frame))) if frame.code == 4408));
}

#[test]
fn a_part_of_a_message_shows_that_the_page_is_there() {
    let (mut session, start) = start();
    let mut now = start;
    for _ in 0..400 {
        now += SECOND / 4;
        session.handle_bytes(Leg::Client, now);
        session.handle_bytes(Leg::App, now);
        session.handle_client_part(now);
        session.handle_timeout(now, [None; 2]);
        written(&mut session, now);
    }
    assert!(session.is_attached());
}

#[test]
fn a_silent_client_is_detached_and_one_that_never_comes_back_is_forgotten_in_time() {
    let (mut session, start) = start();
    let mut now = start;
    let mut detached_at = None;
    while !session.is_finished() {
        now += SECOND / 10;
        session.handle_bytes(Leg::App, now);
        session.handle_timeout(now, [None; 2]);
        written(&mut session, now);
        while let Some(probe) = session.poll_client_probe(now, 0, 10) {
            let _ = probe;
            session.handle_written(Leg::Client, 10, now);
        }
        if let (None, Some(Parting::Abandon(..))) = (detached_at, session.poll_parting()) {
            detached_at = Some(now);
        }
        if session.poll_app_order().is_some() {
            session.handle_app_close(None, now);
            session.handle_app_finished();
        }
        assert!(now < start + 60 * SECOND);
    }
    let detached_at = detached_at.expect("a verdict");
    assert!(detached_at <= start + 10 * SECOND + SECOND / 5);
    let waited = now - detached_at;
    assert!((30 * SECOND..=31 * SECOND).contains(&waited), "{waited:?}");
    let ending = session.ending().expect("an end");
    assert_eq!(ending.reason, EndReason::Expired);
    assert!(ending.verdict.is_some(), "with the proof");
}

#[test]
fn messages_with_a_sender_who_waits_have_one_end_each() {
    let (mut session, now) = start();
    let ids = IdSource::new(2, 2);
    let order = |session: &mut V1Session, ttl: Duration| {
        let id = ids.next_message();
        let payload = Bytes::from_static(b"news");
        let message = Message { id, text: true, payload, level: Level::Handled, expires_at: now + ttl };
        session.handle_message(message);
        id
    };
    let [handled, maybe] = [order(&mut session, SECOND), order(&mut session, SECOND)];
    let meta = format!("{:?}", Envelope::Meta(Meta { ack_now: true, ..Meta::default() }));
    assert_eq!(written(&mut session, now), [&*meta, "news", &*meta, "news"]);
    ack(&mut session, 1, now);
    session.handle_hangup(Leg::Client, now);
    let [expired, unsent] = [order(&mut session, SECOND), order(&mut session, 100 * SECOND)];
    written(&mut session, now);
    session.handle_timeout(now + SECOND, [None; 2]);
    session.handle_end(EndReason::Kicked, CloseFrame::new(1008, ""), now + SECOND);
    let ends: Vec<_> = notes(&mut session)
        .into_iter()
        .filter_map(|note| {
            let V1Note::Session(Note::Delivery(DeliveryNote::Settled(id, outcome))) = note else {
                return None;
            };
            Some((id, outcome))
        })
        .collect();
    let expected = |sent| Outcome::Expired { sent, reached: None };
    assert_eq!(
        ends,
        [
            (handled, Outcome::Delivered(Level::Handled)),
            (expired, expected(Sent::No)),
            (maybe, expected(Sent::Maybe)),
            (unsent, expected(Sent::No)),
        ]
    );
}

#[test]
fn a_client_that_is_over_its_window_is_out() {
    let (mut session, now) = start();
    for _ in 0..4 {
        assert!(session.handle_client_message(true, b"x", now).is_some());
    }
    assert!(session.handle_client_message(true, b"x", now).is_none());
    assert!(matches!(
        session.poll_parting(),
        Some(Parting::End { frame: Some(frame), .. }) if frame.code == 4429
    ));
    let refused = session.handle_hello(&hello(Some((1, 0)), 2), now).unwrap_err();
    assert_eq!((refused.code, refused.counters), (ResumeFailCode::Ended, Some((4, 0))));
    assert_eq!(session.into_last_word().refusal(&Secret([1; 16])), refused);
}

#[test]
fn who_is_not_greeted_yet_is_greeted_before_the_last_words() {
    let (mut session, now) = start();
    session.handle_client_message(true, b"hi", now);
    session.handle_hangup(Leg::Client, now);
    assert_eq!(session.poll_parting(), Some(Parting::Drop));
    // The app is gone before the WELCOME of the new connection could be written.
    assert_eq!(session.handle_hello(&hello(Some((1, 0)), 2), now), Ok(()));
    session.handle_app_close(Some(CloseFrame::new(4001, "no")), now);
    assert!(written(&mut session, now).is_empty());
    let Some(Parting::End { words, frame: Some(frame) }) = session.poll_parting() else { panic!("an end") };
    let words: Vec<_> = words.iter().map(|payload| word(&Envelope::parse(payload).unwrap())).collect();
    assert_eq!(words, ["Welcome true 1 1", "Bye { received: 1, sent: 0 }"]);
    assert_eq!((frame.code, &*frame.reason), (4411, "4001 no"));
}

#[test]
fn a_dial_that_was_given_up_and_comes_late_takes_no_token_away() {
    let (mut session, now) = start();
    session.handle_hangup(Leg::Client, now);
    assert_eq!(session.handle_hello(&hello(Some((1, 0)), 2), now), Ok(()));
    written(&mut session, now);
    // An earlier dial of the same client, which has the second by now, and not the third.
    assert_eq!(session.handle_hello(&hello(Some((1, 0)), 3), now), Ok(()));
    session.handle_hangup(Leg::Client, now);
    assert_eq!(session.handle_hello(&hello(Some((2, 0)), 4), now), Ok(()));
    say(&mut session, Envelope::Probe, now);
    for used in [1, 2, 3] {
        assert_eq!(session.handle_hello(&hello(Some((used, 0)), 5), now), Err(Refusal::UNKNOWN), "{used}");
    }
}

#[test]
fn a_client_whose_app_closes_at_once_is_greeted_all_the_same() {
    let (_, now) = start();
    let crowds = [Arc::new(Crowd::default()), Arc::new(Crowd::default())];
    let id = IdSource::new(1, 1).next();
    let mut session = V1Session::new(Arc::new(limits()), &crowds, id, &hello(None, 1), now);
    session.handle_app_close(Some(CloseFrame::new(4001, "no")), now);
    assert!(written(&mut session, now).is_empty());
    let Some(Parting::End { words, .. }) = session.poll_parting() else { panic!("an end") };
    let first = Envelope::parse(&words[0]).unwrap();
    assert_eq!(word(&first), "Welcome false 0 1");
}

/// The app's connection is cut again and again, a second after each dial; returns how long the session waited for it, and
/// how many dials it asked for. With `handles` each connection takes a message first.
fn crash_loop(handles: bool, within: Duration) -> (Option<Duration>, u32) {
    let (mut session, start) = start_with(V1Limits { app_hold: 20 * SECOND, ..limits() });
    let (mut now, mut dials) = (start, 0);
    session.handle_hangup(Leg::App, now);
    while now < start + within {
        now += SECOND / 10;
        session.handle_timeout(now, [None, None]);
        // Somebody has to be there for it to have anything to do.
        say(&mut session, Envelope::Probe, now);
        if session.poll_dial(now).is_some() {
            dials += 1;
            assert!(session.handle_app_dialled(7, now));
            if handles {
                session.handle_client_message(true, b"one", now);
                session.handle_app_taken(now);
            }
            now += SECOND;
            session.handle_hangup(Leg::App, now);
        }
        written(&mut session, now);
        if session.is_closing() {
            return (Some(now - start), dials);
        }
    }
    (None, dials)
}

#[test]
fn an_app_that_crashes_in_a_loop_has_its_time_and_no_more_unless_it_gets_something_done() {
    let (waited, dials) = crash_loop(false, 120 * SECOND);
    let waited = waited.expect("it is given up");
    assert!(waited >= 20 * SECOND && waited <= 22 * SECOND, "{waited:?}");
    assert!((4..20).contains(&dials), "{dials}");
    let (waited, dials) = crash_loop(true, 120 * SECOND);
    assert_eq!(waited, None, "it goes on");
    // Waits are of 2.5 s in the mean when they have grown.
    assert!((20..60).contains(&dials), "{dials}");
}

/// The app answers for all that it was given.
fn app_answers(session: &mut V1Session, now: Instant) {
    session.handle_app_taken(now);
    session.handle_timeout(now, [None, None]);
    let barrier = session.poll_barrier(now, 0, 14).expect("it is asked");
    session.handle_written(Leg::App, 14, now);
    session.handle_app_taken(now);
    session.handle_app_pong(&barrier.to_payload(), now);
}

#[test]
fn an_app_that_is_back_gets_what_waits_in_steps_and_nothing_overtakes_it() {
    let window = Window { messages: 64, bytes: 1000 };
    let app_ack = AppAck::Received;
    let (mut session, start) = start_with(V1Limits { app_hold: 20 * SECOND, app_ack, window, ..limits() });
    let say = |session: &mut V1Session, number: u32, now: Instant| {
        session
            .handle_client_message(true, number.to_string().as_bytes(), now)
            .expect("it is for the app")
            .is_now
    };
    assert!(say(&mut session, 0, start));
    app_answers(&mut session, start);
    session.handle_hangup(Leg::App, start);
    for number in 1..=20 {
        assert!(!say(&mut session, number, start), "there is no app");
    }
    let now = start + SECOND;
    session.handle_timeout(now, [None, None]);
    assert_eq!(session.poll_dial(now).map(|dial| dial.repeats), Some(0), "none of them may have come");
    assert!(session.handle_app_dialled(7, now));
    let given = |session: &mut V1Session| -> Vec<String> {
        std::iter::from_fn(|| {
            let message = session.poll_app_message(now)?;
            Some(String::from_utf8(message.payload.to_vec()).unwrap())
        })
        .collect()
    };
    let numbers =
        |range: std::ops::RangeInclusive<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(given(&mut session), numbers(1..=16));
    assert!(!say(&mut session, 21, now), "others wait before it");
    assert!(given(&mut session).is_empty(), "it has answered for none");
    app_answers(&mut session, now);
    assert_eq!(given(&mut session), numbers(17..=21));
    assert!(say(&mut session, 22, now));
    app_answers(&mut session, now);
    assert_eq!(session.progress().to_app.acked, 23);
}

/// An app that is back and whose socket is full is given nothing: what waits for it has its time limit all the same.
#[test]
fn what_waits_for_an_app_that_takes_nothing_is_over_in_its_time_and_no_timer_is_left() {
    let (mut session, start) = start_with(V1Limits { app_hold: 20 * SECOND, ..limits() });
    session.handle_hangup(Leg::App, start);
    say(&mut session, Envelope::Meta(Meta { ttl_ms: Some(3000), ..Meta::default() }), start);
    session.handle_client_message(true, b"soon old", start).expect("it is for the app");
    let now = start + SECOND;
    session.handle_timeout(now, [None, None]);
    assert_eq!(session.poll_dial(now).map(|dial| dial.repeats), Some(0));
    assert!(session.handle_app_dialled(7, now));
    let over = start + 3 * SECOND;
    assert!(session.poll_timeout().is_some_and(|at| at <= over));
    session.handle_timeout(over, [None, None]);
    written(&mut session, over);
    assert!(session.poll_timeout().is_none_or(|at| at > over), "a timer that never ends");
    let unsent = V1Note::ToApp(DeliveryNote::Unsent(1));
    assert!(notes(&mut session).contains(&unsent));
}
