//! A gateway that says nothing.

use std::time::{Duration, Instant};

use super::words::{come_back, greet, greeted, probe, write_all};
use super::{HEARTBEAT, message, ms, origin};
use crate::config::ClientConfig;
use crate::event::Event;
use crate::machine::Machine;

fn live(now: Instant) -> Machine<u32> {
    greeted(ClientConfig::default(), now)
}

/// Calls when asked to, until `until`.
fn run(client: &mut Machine<u32>, until: Instant) {
    while let Some(at) = client.poll_timeout().filter(|at| *at <= until) {
        client.handle_timeout(at);
    }
}

#[test]
fn a_silent_gateway_is_asked_and_then_lost() {
    let now = origin();
    let mut client = live(now);
    run(&mut client, now + HEARTBEAT + HEARTBEAT / 4);
    assert_eq!(write_all(&mut client, now + HEARTBEAT + HEARTBEAT / 4), [probe()]);
    run(&mut client, now + HEARTBEAT + ms(999));
    assert!(client.is_attached());
    run(&mut client, now + HEARTBEAT + ms(1000));
    assert!(!client.is_attached());
    assert_eq!(client.poll_event(now), Some(Event::Detached));
    let dial_at = client.poll_connect_at().unwrap();
    assert!(dial_at <= now + HEARTBEAT + ms(1000) + ClientConfig::default().backoff_min);
    assert!(client.token().is_some(), "it comes back");
}

#[test]
fn any_sign_of_life_in_time_keeps_the_connection() {
    let now = origin();
    let mut client = live(now);
    for turn in 1..50 {
        let at = now + ms(2900) * turn;
        run(&mut client, at);
        client.handle_sign_of_life(at);
        assert!(client.is_live());
    }
}

#[test]
fn whoever_slept_through_a_verdict_listens_first() {
    let now = origin();
    let mut client = live(now);
    let awake = now + Duration::from_secs(3600);
    client.handle_timeout(awake);
    assert!(client.is_live());
    assert_eq!(write_all(&mut client, awake), [probe()]);
    run(&mut client, awake + ms(999));
    assert!(client.is_live());
    run(&mut client, awake + ms(1000));
    assert!(!client.is_attached(), "once, and a verdict falls");
}

#[test]
fn a_gateway_that_does_not_greet_is_lost() {
    let now = origin();
    let mut client: Machine<u32> = Machine::new(ClientConfig::default(), 1, now);
    client.handle_open(Some("pulsegate.v1"), now);
    client.send(message(1, None, false), now).unwrap();
    assert_eq!(write_all(&mut client, now), [], "nothing goes before the greeting");
    let within = ClientConfig::default().welcome_within;
    assert_eq!(client.poll_timeout(), Some(now + within));
    client.handle_timeout(now + within);
    assert!(!client.is_attached());
    assert_eq!(client.pending(), 1, "it waits for the next connection");
}

#[test]
fn the_wait_before_coming_back_grows_with_jitter_and_starts_over_when_greeted() {
    let now = origin();
    let config = ClientConfig::default();
    let mut client: Machine<u32> = Machine::new(config.clone(), 3, now);
    assert_eq!(client.poll_connect_at(), Some(now), "the first is wanted at once");
    let mut waits = Vec::new();
    for attempt in 0..40u32 {
        client.handle_lost(now);
        let wait = client.poll_connect_at().unwrap() - now;
        assert!(wait <= config.backoff_max && wait <= config.backoff_min * 2u32.pow(attempt.min(20)));
        waits.push(wait);
    }
    assert!(waits.iter().any(|wait| *wait > config.backoff_max / 2));
    assert!(waits[10..].iter().any(|wait| *wait < config.backoff_max / 2));
    let mut client = live(now);
    client.handle_lost(now);
    assert!(client.poll_connect_at().unwrap() - now <= config.backoff_min);
}

#[test]
fn who_was_refused_stays_away_longer_than_who_was_sent_away() {
    let now = origin();
    let min = ClientConfig::default().backoff_min;
    let mut longest = [Duration::ZERO; 2];
    for seed in 0..50 {
        for (place, code) in [4503, 4429].into_iter().enumerate() {
            let mut client: Machine<u32> = Machine::new(ClientConfig::default(), seed, now);
            greet(&mut client, now);
            client.handle_close(Some(code), "", now);
            longest[place] = longest[place].max(client.poll_connect_at().unwrap() - now);
        }
    }
    assert!(longest[0] <= min && longest[1] > min * 8, "{longest:?}");
}

#[test]
fn silence_is_no_evidence_while_nothing_is_read() {
    let now = origin();
    let inbox = pulsegate_core::v1::Window { messages: 1, bytes: 1000 };
    let mut client = greeted(ClientConfig { inbox, ..ClientConfig::default() }, now);
    client.handle_text("2", now);
    assert!(!client.wants_input());
    let late = now + Duration::from_secs(100);
    run(&mut client, late);
    assert!(client.is_live());
    while client.poll_event(late).is_some() {}
    assert!(client.wants_input());
    run(&mut client, late + HEARTBEAT);
    assert!(client.is_live(), "it has its whole time again");
    run(&mut client, late + HEARTBEAT * 2);
    assert!(!client.is_attached());
}

/// A browser tells nothing of a large message before its end; a line that is dead tells nothing either.
#[test]
fn whoever_gives_up_connections_on_which_nothing_came_waits_longer_each_time() {
    let wait = HEARTBEAT + ms(1000);
    let mut now = origin();
    let mut client = live(now);
    for times in [1, 2, 4, 8, 8] {
        run(&mut client, now + wait * times - ms(1));
        assert!(client.is_attached(), "{times}");
        now += wait * times;
        run(&mut client, now);
        assert!(!client.is_attached(), "{times}");
        come_back(&mut client, 1, now);
    }
    client.handle_text("2", now);
    client.handle_lost(now);
    // One that is cut is none that was given up.
    for _ in 0..3 {
        come_back(&mut client, 2, now);
        client.handle_lost(now);
    }
    come_back(&mut client, 2, now);
    run(&mut client, now + wait);
    assert!(!client.is_attached());
}
