//! What is said, word by word.

use std::time::Instant;

use pulsegate_core::Sent;
use pulsegate_core::v1::*;

use super::{HEARTBEAT, RULES, message, ms, origin};
use crate::config::ClientConfig;
use crate::event::{Event, Frame, SendError, Transmit};
use crate::machine::Machine;

pub(super) fn wire(envelope: Envelope<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    envelope.write(&mut payload);
    payload
}

fn word(envelope: Envelope<'_>) -> Transmit {
    Transmit::Frame(Frame { text: false, payload: wire(envelope) })
}

pub(super) fn probe() -> Transmit {
    word(Envelope::Probe)
}

fn ack(handled: u64) -> Transmit {
    word(Envelope::Ack(Ack { handled, window: None }))
}

fn text(text: &str) -> Transmit {
    Transmit::Frame(Frame { text: true, payload: text.into() })
}

fn welcome(resumed: bool, received: u64, next: u64, token: &str) -> Vec<u8> {
    wire(Envelope::Welcome(Welcome {
        resumed,
        received,
        next,
        token,
        resume_window_s: 120,
        window_messages: 100,
        window_kib: 100,
        ack: RULES,
        heartbeat_ms: HEARTBEAT.as_millis() as u64,
        features: 0,
    }))
}

/// A client that was just welcomed for the first time, and whose app knows.
pub(super) fn greeted(config: ClientConfig, now: Instant) -> Machine<u32> {
    let mut client = Machine::new(config, 1, now);
    greet(&mut client, now);
    client
}

pub(super) fn greet(client: &mut Machine<u32>, now: Instant) {
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(false, 0, 1, "one"), now);
    assert_eq!(client.poll_event(now), Some(Event::Live { resumed: false }));
}

/// The client is back, and has heard of it.
pub(super) fn come_back(client: &mut Machine<u32>, next: u64, now: Instant) {
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(true, 0, next, "again"), now);
    assert!(client.is_live());
    while client.poll_event(now).is_some() {}
}

fn live(now: Instant) -> Machine<u32> {
    greeted(ClientConfig::default(), now)
}

pub(super) fn write_all(client: &mut Machine<u32>, now: Instant) -> Vec<Transmit> {
    std::iter::from_fn(|| client.poll_transmit(now)).collect()
}

fn fates(client: &mut Machine<u32>) -> Vec<(u32, Fate)> {
    std::iter::from_fn(|| client.poll_fate()).collect()
}

fn events(client: &mut Machine<u32>, now: Instant) -> Vec<Event> {
    std::iter::from_fn(|| client.poll_event(now)).collect()
}

fn closed(code: Option<u16>, reason: &str) -> Event {
    Event::Closed { code, reason: reason.to_owned() }
}

#[test]
fn an_offer_names_ours_the_way_back_and_the_app_s() {
    let now = origin();
    let subprotocols = vec!["chat.v2".to_owned(), "chat.v1".to_owned()];
    let mut client: Machine<u32> =
        Machine::new(ClientConfig { subprotocols, ..ClientConfig::default() }, 1, now);
    assert_eq!(
        client.offer(),
        ["pulsegate.v1+chat.v2", "pulsegate.v1+chat.v1", "pulsegate.v1", "chat.v2", "chat.v1"]
    );
    client.handle_open(Some("pulsegate.v1+chat.v1"), now);
    client.handle_binary(&welcome(false, 0, 1, "one"), now);
    for _ in 0..37 {
        client.handle_text("2", now);
    }
    assert_eq!(client.offer(), ["pulsegate.v1+chat.v1", "pgr.one.11", "chat.v1"], "one for a session");
    assert_eq!(live(now).offer(), ["pulsegate.v1", "pgr.one.0"]);
}

#[test]
fn a_server_without_a_gateway_is_told_from_one_with() {
    let now = origin();
    let others =
        [None, Some("chat.v2"), Some("pulsegate.v10"), Some("pulsegate.v1+other"), Some("pulsegate.v2")];
    for protocol in others {
        let mut client: Machine<u32> = Machine::new(ClientConfig::default(), 1, now);
        client.send(message(1, None, false), now).unwrap();
        client.handle_open(protocol, now);
        assert_eq!(events(&mut client, now), [Event::Unsupported], "{protocol:?}");
        assert_eq!(fates(&mut client), [(1, Fate::Expired(Sent::No))]);
        assert!(client.is_done() && client.poll_connect_at().is_none() && !client.is_attached());
        assert_eq!(client.send(message(2, None, false), now), Err(SendError::Closed));
    }
}

#[test]
fn what_is_known_of_a_message_goes_before_it_each_time() {
    let now = origin();
    let mut client = live(now);
    let key = Some(Box::from(&b"k"[..]));
    let first = Outgoing { key, ..message(2, Some(now + ms(500)), true) };
    assert_eq!(client.send(first, now), Ok(1));
    assert_eq!(client.send(message(4, None, false), now), Ok(2));
    let meta = |ttl_ms| word(Envelope::Meta(Meta { ttl_ms: Some(ttl_ms), ack_now: true, key: Some(b"k") }));
    assert_eq!(write_all(&mut client, now), [meta(500), text("2"), text("4")]);
    client.handle_lost(now);
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(true, 0, 1, "two"), now);
    let later = now + ms(200);
    assert_eq!(client.poll_transmit(later), Some(meta(300)));
    // Cut between the two: neither was said.
    client.handle_lost(later);
    client.handle_open(Some("pulsegate.v1"), later);
    client.handle_binary(&welcome(true, 0, 1, "three"), later);
    let late = now + ms(500);
    let skip = word(Envelope::Skip { count: 1, reason: SkipReason::Expired });
    assert_eq!(write_all(&mut client, late), [skip, text("4")]);
    assert_eq!(fates(&mut client), [(2, Fate::Expired(Sent::Maybe))]);
}

#[test]
fn what_can_t_be_sent_is_refused() {
    let now = origin();
    let window = Window { messages: 1, bytes: 10 };
    let mut client: Machine<u32> = Machine::new(ClientConfig { window, ..ClientConfig::default() }, 1, now);
    let with_key = |len| Outgoing { key: Some(vec![0; len].into()), ..message(1, None, false) };
    assert_eq!(client.send(with_key(0), now), Err(SendError::Key));
    assert_eq!(client.send(with_key(65), now), Err(SendError::Key));
    let text = Outgoing { text: true, payload: Box::from([0xff]), ..message(1, None, false) };
    assert_eq!(client.send(text, now), Err(SendError::Text));
    assert_eq!(client.send(with_key(64), now), Ok(1));
    assert_eq!(client.send(message(2, None, false), now), Err(SendError::Full));
}

#[test]
fn an_ack_comes_when_asked_and_with_what_is_sent() {
    let now = origin();
    let mut client = live(now);
    client.handle_text("2", now);
    assert_eq!(write_all(&mut client, now), [], "it is not handled");
    events(&mut client, now);
    assert_eq!(write_all(&mut client, now), []);
    client.send(message(2, None, false), now).unwrap();
    assert_eq!(write_all(&mut client, now), [ack(1), text("2")]);
    client.handle_binary(&wire(Envelope::Probe), now);
    let answer = word(Envelope::ProbeAck(Ack { handled: 1, window: None }));
    assert_eq!(write_all(&mut client, now), [answer]);
    client.handle_binary(&wire(Envelope::Meta(Meta { ack_now: true, ..Meta::default() })), now);
    client.handle_text("4", now);
    events(&mut client, now);
    assert_eq!(write_all(&mut client, now), [ack(2)], "its sender waits");
}

#[test]
fn an_ack_that_may_be_lost_is_said_again() {
    let now = origin();
    let mut client = live(now);
    client.handle_text("2", now);
    events(&mut client, now);
    client.handle_binary(&wire(Envelope::Probe), now);
    client.handle_lost(now);
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(true, 0, 2, "two"), now);
    assert_eq!(write_all(&mut client, now), [], "nobody asked on this connection");
    assert_eq!(client.poll_timeout(), Some(now + RULES.delay));
    client.handle_timeout(now + RULES.delay);
    assert_eq!(write_all(&mut client, now + RULES.delay), [ack(1)]);
}

#[test]
fn by_hand_an_ack_says_what_was_handled_also_over_sessions() {
    let now = origin();
    let mut client = greeted(ClientConfig { manual_ack: true, ..ClientConfig::default() }, now);
    client.handle_text("2", now);
    client.handle_text("4", now);
    events(&mut client, now);
    assert_eq!((client.received_count(), client.handled_count()), (2, 0));
    client.handled(1, now);
    assert_eq!(client.handled_count(), 1);
    client.handle_close(Some(4429), "", now);
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(false, 0, 1, "two"), now);
    client.handle_text("6", now);
    events(&mut client, now);
    client.handled(2, now);
    assert_eq!(client.handled_count(), 0, "it was of the session before");
    client.handled(3, now);
    assert_eq!(client.handled_count(), 1);
}

#[test]
fn one_probe_asks_about_what_waits_also_about_what_came_before_the_cut() {
    let now = origin();
    let mut client = live(now);
    client.send(message(2, None, false), now).unwrap();
    write_all(&mut client, now);
    let due = now + ms(1000);
    assert_eq!(client.poll_timeout(), Some(due));
    client.handle_timeout(due);
    assert_eq!(write_all(&mut client, due), [probe()]);
    assert_eq!(write_all(&mut client, due + ms(1400)), [], "one at a time");
    client.handle_lost(due);
    client.handle_open(Some("pulsegate.v1"), due);
    client.handle_binary(&welcome(true, 1, 1, "two"), due);
    assert_eq!(write_all(&mut client, due), []);
    assert_eq!(write_all(&mut client, due + ms(1000)), [probe()]);
    let answer = |handled| wire(Envelope::ProbeAck(Ack { handled, window: None }));
    client.handle_binary(&answer(0), due + ms(1000));
    assert_eq!(write_all(&mut client, due + ms(2000)), [probe()]);
    client.handle_binary(&answer(1), due + ms(2000));
    assert_eq!(fates(&mut client), [(2, Fate::Handled)]);
    client.handle_sign_of_life(due + ms(9000));
    assert_eq!(write_all(&mut client, due + ms(9000)), [], "nothing waits");
}

#[test]
fn a_failed_resume_ends_what_waits_and_begins_anew() {
    let now = origin();
    let mut client = live(now);
    client.send(message(2, None, false), now).unwrap();
    client.send(message(8, None, false), now).unwrap();
    write_all(&mut client, now);
    client.handle_lost(now);
    client.send(message(4, None, false), now).unwrap();
    client.handle_open(Some("pulsegate.v1"), now);
    let fail = ResumeFail { code: ResumeFailCode::Ended, counters: Some((1, 0)) };
    client.handle_binary(&wire(Envelope::ResumeFail(fail)), now);
    let ends = [(2, Fate::Expired(Sent::Maybe)), (8, Fate::Expired(Sent::No)), (4, Fate::Expired(Sent::No))];
    assert_eq!(fates(&mut client), ends, "of what was sent, the gateway has the first");
    assert_eq!(events(&mut client, now), [Event::Reset { undelivered: 3 }, Event::Detached]);
    assert_eq!(client.send(message(6, None, false), now), Ok(1), "for the next one");
    assert!(client.is_attached());
    client.handle_close(Some(4410), "", now);
    assert_eq!(client.offer(), ["pulsegate.v1"]);
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(false, 0, 1, "two"), now);
    assert_eq!(write_all(&mut client, now), [text("6")]);
    assert_eq!(events(&mut client, now), [Event::Live { resumed: false }], "reset once");
    assert_eq!(client.generation(), 3);
}

#[test]
fn a_close_says_what_follows() {
    let now = origin();
    let after = |code, reason: &str| {
        let mut client = live(now);
        client.handle_close(code, reason, now);
        let events = events(&mut client, now);
        assert_eq!(client.poll_connect_at().is_some(), !client.is_done());
        (events, client.token().is_some())
    };
    for code in [1001, 1012, 1013, 4408, 4500, 4503] {
        assert_eq!(after(Some(code), ""), (vec![Event::Detached], true), "{code}");
    }
    for code in [4400, 4401, 4403, 4410, 4413, 4429, 4499] {
        let anew = vec![Event::Reset { undelivered: 0 }, Event::Detached];
        assert_eq!(after(Some(code), ""), (anew, false), "{code}");
    }
    let anew = vec![Event::Reset { undelivered: 0 }, Event::Detached];
    assert_eq!(after(Some(4411), "1012 restart"), (anew, false), "the app, but not for good");
    assert_eq!(after(None, ""), (vec![closed(None, "")], false));
    assert_eq!(after(Some(1000), "x"), (vec![closed(Some(1000), "x")], false));
    assert_eq!(after(Some(4409), ""), (vec![closed(Some(4409), "")], false));
    assert_eq!(after(Some(4411), "1000 bye now"), (vec![closed(Some(1000), "bye now")], false));
    assert_eq!(after(Some(4411), "3001"), (vec![closed(Some(3001), "")], false));
    assert_eq!(after(Some(4411), "4401 no"), (vec![closed(Some(4401), "no")], false), "the app's own code");
    assert_eq!(after(Some(4411), "bye"), (vec![closed(Some(4411), "bye")], false));
}

#[test]
fn a_dial_that_was_given_up_may_arrive_late_and_is_no_other_tab() {
    let now = origin();
    let back = |lost: bool, answered: bool| {
        let mut client = live(now);
        client.handle_lost(now);
        if lost {
            client.handle_lost(now);
        }
        client.handle_open(Some("pulsegate.v1"), now);
        client.handle_binary(&welcome(true, 0, 1, "two"), now);
        if answered {
            let mut answer = Vec::new();
            Envelope::ProbeAck(Ack { handled: 0, window: None }).write(&mut answer);
            client.handle_binary(&answer, now);
        }
        client.handle_close(Some(4409), "", now);
        (client.is_done(), client.token().map(ToOwned::to_owned))
    };
    assert_eq!(back(true, false), (false, Some("two".to_owned())), "it comes back with its newest");
    assert_eq!(back(true, true), (true, None), "the gateway has read from it: no earlier one is good");
    assert_eq!(back(false, false), (true, None), "nothing of it is under way");
}

#[test]
fn closing_says_all_that_is_left_to_say() {
    let now = origin();
    let mut client = live(now);
    client.handle_text("2", now);
    events(&mut client, now);
    client.send(message(2, None, false), now).unwrap();
    client.close(now);
    assert_eq!(client.send(message(4, None, false), now), Err(SendError::Closed));
    let bye = word(Envelope::Bye { received: 1, sent: 1 });
    let close = Transmit::Close { code: 1000, reason: "" };
    assert_eq!(write_all(&mut client, now), [text("2"), ack(1), bye, close]);
    client.handle_text("8", now);
    client.handle_binary(&wire(Envelope::Ack(Ack { handled: 1, window: None })), now);
    assert_eq!(fates(&mut client), [(2, Fate::Handled)], "an ACK counts until the end");
    client.handle_close(Some(1000), "", now);
    assert_eq!(events(&mut client, now), [closed(Some(1000), "")]);
    assert!(client.is_done() && !client.is_attached());
}

#[test]
fn what_the_gateway_had_not_received_at_its_end_never_came() {
    let now = origin();
    let mut client = live(now);
    for tag in [2, 4] {
        client.send(message(tag, None, false), now).unwrap();
    }
    write_all(&mut client, now);
    client.handle_binary(&wire(Envelope::Bye { received: 1, sent: 0 }), now);
    client.handle_close(Some(1000), "", now);
    assert_eq!(fates(&mut client), [(2, Fate::Expired(Sent::Maybe)), (4, Fate::Expired(Sent::No))]);
}

#[test]
fn closing_ends_also_without_an_answer() {
    let now = origin();
    let mut client = live(now);
    client.send(message(2, None, false), now).unwrap();
    client.close(now);
    write_all(&mut client, now);
    let until = client.poll_timeout().unwrap();
    client.handle_timeout(until);
    assert!(client.is_done());
    assert_eq!(fates(&mut client), [(2, Fate::Expired(Sent::Maybe))]);
    let mut down: Machine<u32> = Machine::new(ClientConfig::default(), 1, now);
    down.close(now);
    assert_eq!(events(&mut down, now), [closed(None, "")]);
}

#[test]
fn a_gateway_that_breaks_the_protocol_is_left() {
    let now = origin();
    let ack = |handled| wire(Envelope::Ack(Ack { handled, window: None }));
    let nack = wire(Envelope::Nack { seq: 2, code: NackCode::AppGone, reason: "" });
    let skip = wire(Envelope::Skip { count: COUNT_MAX, reason: SkipReason::Dropped });
    let frames = [ack(2), nack, skip, welcome(false, 0, 1, "two"), vec![0x3f], vec![]];
    for frame in frames {
        let mut client = live(now);
        client.send(message(2, None, false), now).unwrap();
        write_all(&mut client, now);
        client.handle_text("2", now);
        client.handle_binary(&frame, now);
        check_left(&mut client, now);
        assert_eq!(fates(&mut client), [(2, Fate::Expired(Sent::Maybe))], "{frame:02x?}");
    }
}

#[test]
fn a_greeting_that_makes_no_sense_is_left() {
    let now = origin();
    let greetings = [
        welcome(true, 0, 1, "two"),
        welcome(true, 2, 2, "two"),
        welcome(true, 1, 2, ""),
        welcome(true, 1, 2, "a.b"),
        welcome(false, 1, 1, "two"),
        welcome(false, 0, 2, "two"),
        wire(Envelope::Probe),
    ];
    for greeting in greetings {
        let mut client = live(now);
        client.send(message(2, None, false), now).unwrap();
        write_all(&mut client, now);
        client.handle_text("2", now);
        client.handle_lost(now);
        client.handle_open(Some("pulsegate.v1"), now);
        client.handle_binary(&greeting, now);
        check_left(&mut client, now);
    }
    let mut client: Machine<u32> = Machine::new(ClientConfig::default(), 1, now);
    client.handle_open(Some("pulsegate.v1"), now);
    client.handle_binary(&welcome(true, 0, 1, "two"), now);
    check_left(&mut client, now);
}

/// Closes with 4400, and begins anew after a while.
fn check_left(client: &mut Machine<u32>, now: Instant) {
    let close = write_all(client, now);
    assert!(matches!(close[..], [Transmit::Close { code: 4400, .. }]), "{close:?}");
    client.handle_text("6", now);
    assert_eq!(client.received_count(), 0, "nothing counts any more");
    let until = client.poll_timeout().expect("it does not wait for ever");
    client.handle_timeout(until);
    assert!(client.poll_connect_at().is_some() && client.token().is_none());
}

#[test]
fn what_comes_from_a_connection_that_was_given_up_changes_nothing() {
    let now = origin();
    let mut client = live(now);
    client.send(message(2, None, false), now).unwrap();
    write_all(&mut client, now);
    client.handle_lost(now);
    let down = format!("{client:?}");
    assert!(down.contains("Token(..)"), "a token is not shown");
    client.handle_text("2", now);
    client.handle_binary(&wire(Envelope::Ack(Ack { handled: 1, window: None })), now);
    client.handle_binary(&welcome(true, 0, 1, "two"), now);
    client.handle_close(Some(1000), "", now);
    assert_eq!(format!("{client:?}"), down);
}

#[test]
fn states_that_nobody_looked_at_do_not_pile_up() {
    let now = origin();
    let mut client = live(now);
    client.handle_text("2", now);
    for turn in 1..100 {
        client.handle_close(Some(if turn % 10 == 0 { 4429 } else { 4503 }), "", now);
        client.handle_open(Some("pulsegate.v1"), now);
        let (resumed, next) = (client.token().is_some(), client.received_count() + 1);
        client.handle_binary(&welcome(resumed, 0, next, "two"), now);
    }
    let events = events(&mut client, now);
    let message = Event::Message { seq: 1, text: true, payload: Box::from(&b"2"[..]) };
    assert_eq!(events, [message, Event::Reset { undelivered: 0 }, Event::Live { resumed: true }]);
}
