//! Clients that speak `pulsegate.v1`, by hand, frame by frame: what PROTOCOL.md says of a connection.

use std::time::Duration;

use pulsegate_core::v1::{Envelope, Meta, ResumeFailCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{PATIENCE, Seen, frame, next};
use crate::messages::{ask, send, session, until};
use crate::v1_kit::{
    BINARY, CLOSE, Got, Line, TEXT, app_sees, assert_refusal, assert_refused, bare_v1_pair, gateway,
    until_ended, until_state,
};

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_lacks_and_the_app_sees_one_connection() {
    let (gateway, mut seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    for text in ["one", "two"] {
        line.text(text).await;
        line.expect_text(text).await;
    }
    line.ack(1).await;
    // Both are known: only then is what follows certain.
    until(&gateway, |told| told["received"] == 1).await;
    line.text("three").await;
    let token = line.token.clone();
    for text in ["one", "two", "three"] {
        app_sees(&mut seen, text).await;
    }
    // Cut without a word before the echo was read.
    drop(line);
    let (stream, first) = Line::resume(&gateway, &token, 1).await;
    let mut line = Line::welcomed(stream, first, true, 3, 2);
    line.expect_text("two").await;
    line.expect_text("three").await;
    line.ack(3).await;
    line.text("four").await;
    line.expect_text("four").await;
    app_sees(&mut seen, "four").await;
    line.stream.write_all(&frame(CLOSE, &[0x03, 0xe8])).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Close(Some((1000, String::new()))));
    assert_eq!(next(&mut seen).await, Seen::End);
    assert_eq!(gateway.scrape("pulsegate_resumes_total").await, 1);
    // The third was perhaps not written before the cut.
    assert!((1..=2).contains(&gateway.scrape("pulsegate_retransmits_total").await));
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_s_messages_are_acknowledged_when_the_app_has_them() {
    let (gateway, mut seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    line.word(Envelope::Meta(Meta { ack_now: true, ..Meta::default() })).await;
    line.text("at once").await;
    assert_eq!(line.read_ack().await, 1);
    line.word(Envelope::Binary(b"\x00\xff")).await;
    line.word(Envelope::Probe).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    app_sees(&mut seen, "at once").await;
    assert_eq!(next(&mut seen).await, Seen::Message(Message::binary(&b"\x00\xff"[..])));
    gateway.stop().await;
}

#[tokio::test]
async fn the_newest_connection_wins_and_the_token_of_the_old_is_used_up() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut first = Line::open(&gateway).await;
    let (stream, got) = Line::resume(&gateway, &first.token, 0).await;
    let mut second = Line::welcomed(stream, got, true, 0, 1);
    let closed = first.read().await;
    assert_eq!(closed, Got::Close(4409, "replaced by a newer connection".into()));
    // Until a frame came on the new one the old token is good: its WELCOME might have been lost.
    let (stream, got) = Line::resume(&gateway, &first.token, 0).await;
    let mut third = Line::welcomed(stream, got, true, 0, 1);
    assert_eq!(second.read().await, Got::Close(4409, "replaced by a newer connection".into()));
    third.text("hello").await;
    third.expect_text("hello").await;
    for used_up in [&first.token, &second.token] {
        assert_refused(&gateway, used_up, 0, ResumeFailCode::Unknown, None).await;
    }
    third.ack(1).await;
    third.text("still there").await;
    third.expect_text("still there").await;
    gateway.stop().await;
}

/// A dial that its client has given up may be served late; the connection that the client has stays.
#[tokio::test]
async fn a_connection_that_was_given_up_before_it_was_served_takes_nothing() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    for _ in 0..50 {
        let mut late = TcpStream::connect(gateway.data).await.unwrap();
        // The request leaves together with the FIN.
        socket2::SockRef::from(&late).set_tcp_cork(true).unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: pulsegate.v1, pgr.{}.0\r\n\r\n",
            line.token
        );
        late.write_all(request.as_bytes()).await.unwrap();
        drop(late);
    }
    line.text("still here").await;
    line.expect_text("still here").await;
    assert_eq!(gateway.scrape("pulsegate_resumes_total").await, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn who_can_t_show_a_right_to_it_gets_no_session() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    line.text("hello").await;
    line.expect_text("hello").await;
    line.ack(1).await;
    until(&gateway, |told| told["received"] == 1).await;
    let token = line.token.clone();
    let foreign = format!("{}{}", &token[..26], "AAECAwQFBgcICQoLDA0ODw");
    let nobody = format!("{}{}", "01j0000000000000000000000a", &token[26..]);
    for bad in [&foreign, &nobody, "garbage", ""] {
        assert_refused(&gateway, bad, 0, ResumeFailCode::Unknown, None).await;
    }
    let offer = format!("pulsegate.v1, pgr.{token}.1");
    let (stream, got) = Line::dial(&gateway, &offer, "Origin: https://evil.example\r\n").await;
    assert_refusal(stream, got, ResumeFailCode::Origin, None).await;
    // Nothing of this has touched the session.
    line.text("still there").await;
    line.expect_text("still there").await;
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 5);
    gateway.stop().await;
}

#[tokio::test]
async fn who_lacks_what_nobody_has_any_more_is_told_so_and_the_session_is_over() {
    for position in [0, 2, 9] {
        let (gateway, mut seen) = gateway(|_| {}).await;
        let mut line = Line::open(&gateway).await;
        line.text("hello").await;
        line.expect_text("hello").await;
        line.ack(1).await;
        until(&gateway, |told| told["received"] == 1).await;
        let token = line.token.clone();
        assert_refused(&gateway, &token, position, ResumeFailCode::Position, Some((1, 1))).await;
        assert_eq!(line.read_message().await, Got::Close(4409, "the session was given up".into()));
        until_ended(&mut seen, (4408, "client lost its place")).await;
        drop(line);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_session_that_is_over_is_told_of_with_its_counters_to_its_owner_alone() {
    let (gateway, mut seen) = gateway(|config| {
        config.v1.resume_window = Duration::from_millis(300);
    })
    .await;
    let mut line = Line::open(&gateway).await;
    for text in ["one", "two"] {
        line.text(text).await;
        line.expect_text(text).await;
    }
    line.ack(1).await;
    until(&gateway, |told| told["received"] == 1).await;
    let token = line.token.clone();
    drop(line);
    until_ended(&mut seen, (4408, "client reset: not back after 0 s")).await;
    assert_refused(&gateway, &token, 1, ResumeFailCode::Ended, Some((2, 1))).await;
    let foreign = format!("{}{}", &token[..26], "AAECAwQFBgcICQoLDA0ODw");
    assert_refused(&gateway, &foreign, 1, ResumeFailCode::Unknown, None).await;
    let ended = "pulsegate_sessions_ended_total{reason=\"expired\"}";
    assert_eq!(gateway.scrape(ended).await, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_page_in_the_back_forward_cache_may_come_back() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    line.stream.write_all(&frame(CLOSE, &[0x03, 0xe9])).await.unwrap();
    assert_eq!(line.read().await, Got::Close(1001, String::new()));
    assert_eq!(session(&gateway).await["state"], "detached");
    assert_eq!(gateway.scrape("pulsegate_sessions{state=\"detached\"}").await, 1);
    let (stream, got) = Line::resume(&gateway, &line.token, 0).await;
    Line::welcomed(stream, got, true, 0, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn what_the_app_said_before_it_closed_still_comes_to_a_client_that_was_away() {
    let (gateway, mut seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    let token = line.token.clone();
    for text in ["one", "two", "close me"] {
        line.text(text).await;
    }
    drop(line);
    assert_eq!(next(&mut seen).await, Seen::Open);
    app_sees(&mut seen, "one").await;
    app_sees(&mut seen, "two").await;
    assert_eq!(next(&mut seen).await, Seen::Close(Some((4001, "asked to".into()))));
    let (stream, got) = Line::resume(&gateway, &token, 0).await;
    let mut line = Line::welcomed(stream, got, true, 3, 1);
    line.expect_text("one").await;
    line.expect_text("two").await;
    line.text("too late").await;
    let Got::Word(nack) = line.read_message().await else { panic!("no NACK") };
    assert!(matches!(Envelope::parse(&nack), Ok(Envelope::Nack { seq: 4, .. })), "{nack:?}");
    line.ack(2).await;
    assert_eq!(line.read_message().await, Got::Close(4411, "4001 asked to".into()));
    gateway.stop().await;
}

/// The app's stack may have sent more behind its Close; nothing of it counts, however much it is.
#[tokio::test]
async fn what_an_app_says_behind_its_close_is_nothing_to_anybody() {
    let (gateway, client, mut app) = bare_v1_pair(|_| {}).await;
    let mut line = client;
    let close = [0x88, 2, 0x03, 0xe8];
    app.write_all(&[&close[..], &[0x81, 2, b'n', b'o'], &close].concat()).await.unwrap();
    for _ in 0..40 {
        if app.write_all(&[0x81; 16 * 1024]).await.is_err() {
            break;
        }
    }
    assert_eq!(line.read_message().await, Got::Close(4411, "1000".into()));
    drop((line, app));
    let ended = "pulsegate_sessions_ended_total{reason=\"closed\"}";
    timeout(PATIENCE, async { while gateway.scrape(ended).await != 1 {} }).await.expect("an end");
    gateway.stop().await;
}

/// Room that no reader wakes us for: what waits in the app's socket is taken all the same.
#[tokio::test]
async fn room_that_comes_from_an_expiry_is_used() {
    let (gateway, line, mut app) = bare_v1_pair(|config| config.v1.window_bytes = 1024).await;
    drop(line);
    until_state(&gateway, "detached", 1).await;
    let (status, _) = send(&gateway, "\r\nPrefer: wait=0\r\nPulsegate-Ttl: 400ms", &"x".repeat(1000)).await;
    assert_eq!(status, 202);
    app.write_all(&[&[0x81, 100][..], &[b'y'; 100], &[0x81, 100], &[b'z'; 100]].concat()).await.unwrap();
    // The first waits beside the window, the second in the socket; then the one that filled it is out of time.
    let kept = until(&gateway, |told| told["unacked_messages"] == 3).await;
    assert_eq!(kept["unacked_bytes"], 200);
    gateway.stop().await;
}

#[tokio::test]
async fn a_broken_rule_ends_the_session() {
    for (wire, code, reason) in [
        (frame(BINARY, &[]), 4400, "envelope without a tag"),
        (frame(BINARY, &[0x20]), 4400, "unknown envelope"),
        (frame(BINARY, &[0x01, 5]), 4400, "ACK for what was not sent"),
        (frame(BINARY, &[0x08]), 4400, "envelope cut off"),
        (frame(TEXT, &[0xff]), 1007, "text is not UTF-8"),
        (frame(0xc1, b"x"), 1002, "reserved bit set"),
    ] {
        let (gateway, mut seen) = gateway(|_| {}).await;
        let mut line = Line::open(&gateway).await;
        line.stream.write_all(&wire).await.unwrap();
        assert_eq!(line.read().await, Got::Word(vec![0x0a, 0, 0]), "BYE");
        assert_eq!(line.read().await, Got::Close(code, reason.into()));
        until_ended(&mut seen, (1001, "client broke the protocol")).await;
        gateway.stop().await;
    }
}

/// What is put together in memory is bounded, also while its end is not in sight.
#[tokio::test]
async fn a_client_s_message_that_is_too_large_ends_the_session_before_it_is_whole() {
    let (gateway, mut seen) = gateway(|config| config.v1.message_bytes_max = 1024).await;
    let mut line = Line::open(&gateway).await;
    let largest = "x".repeat(1024);
    line.text(&largest).await;
    line.expect_text(&largest).await;
    for opcode in [0x01, 0x00] {
        line.stream.write_all(&frame(opcode, &[b'x'; 513])).await.unwrap();
    }
    assert_eq!(line.read_message().await, Got::Close(4413, "message too big".into()));
    until_ended(&mut seen, (1001, "client broke the protocol")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn what_an_app_says_to_nobody_is_counted_as_what_it_is() {
    let (gateway, line, mut app) =
        bare_v1_pair(|config| config.v1.resume_window = Duration::from_millis(500)).await;
    drop(line);
    until_state(&gateway, "detached", 1).await;
    let settled = "pulsegate_deliveries_settled_total{direction=\"to_client\",";
    app.write_all(&[0x81, 2, b'n', b'o'].repeat(3)).await.unwrap();
    let unsent = format!("{settled}outcome=\"expired_unsent\"");
    timeout(PATIENCE, async { while gateway.scrape(&unsent).await != 3 {} }).await.expect("its end");
    assert_eq!(gateway.scrape(&format!("{settled}outcome=\"expired_maybe_sent\"")).await, 0);
    // Behind the end: nobody waits for it, so nobody counts it.
    app.write_all(&[0x81, 2, b'n', b'o'].repeat(5)).await.unwrap();
    app.write_all(&[0x88, 0]).await.unwrap();
    let ended = "pulsegate_sessions_ended_total{reason=\"expired\"}";
    timeout(PATIENCE, async { while gateway.scrape(ended).await != 1 {} }).await.expect("an end");
    let accepted = "pulsegate_deliveries_accepted_total{direction=\"to_client\"}";
    assert_eq!(gateway.scrape(accepted).await, 3);
    gateway.stop().await;
}

#[tokio::test]
async fn messages_over_the_control_api_wait_for_a_client_that_is_away() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let line = Line::open(&gateway).await;
    let id = session(&gateway).await["id"].as_str().unwrap().to_owned();
    let token = line.token.clone();
    line.stream.set_zero_linger().unwrap();
    drop(line);
    let (status, waiting) = send(&gateway, "\r\nPrefer: wait=0\r\nPulsegate-Level: handled", "news").await;
    assert_eq!((status, &waiting["status"]), (202, &"queued".into()), "{waiting}");
    let (status, expired) = send(&gateway, "\r\nPrefer: wait=5\r\nPulsegate-Ttl: 50ms", "too old").await;
    assert_eq!((status, &expired["message"]["sent"]), (504, &"no".into()), "{expired}");
    let (stream, got) = Line::resume(&gateway, &token, 0).await;
    let mut line = Line::welcomed(stream, got, true, 0, 1);
    let meta = Got::Word(vec![0x05, 2, 0]);
    assert_eq!(line.read_message().await, meta);
    line.expect_text("news").await;
    let skip = line.read_message().await;
    assert_eq!(skip, Got::Word(vec![0x04, 1, 0]), "the number of what is too old");
    line.ack(2).await;
    let message = waiting["id"].as_str().unwrap();
    let told = loop {
        let (_, told) = ask(&gateway, &format!("GET /v1/messages/{message} HTTP/1.1"), b"").await;
        if told["status"] != "sent" && told["status"] != "queued" {
            break told;
        }
    };
    assert_eq!((&told["status"], &told["level"]), (&"delivered".into(), &"handled".into()), "{told}");
    assert_eq!(session(&gateway).await["id"], id.as_str());
    gateway.stop().await;
}

#[tokio::test]
async fn an_app_waits_when_its_client_acknowledges_nothing() {
    let (gateway, mut seen) = gateway(|config| {
        config.v1.window_messages = 4;
    })
    .await;
    let mut line = Line::open(&gateway).await;
    for n in 0..4 {
        line.text(&n.to_string()).await;
    }
    for n in 0..4 {
        line.expect_text(&n.to_string()).await;
    }
    // The app echoes more than there is room for: one is kept beside the window, the others stay with the app.
    let (status, _) = send(&gateway, "\r\nPrefer: wait=0\r\nPulsegate-Level: handled", "in between").await;
    assert_eq!(status, 202);
    let kept = until(&gateway, |told| told["unacked_messages"] == 5).await;
    assert_eq!(kept["sent"], 4);
    line.ack(2).await;
    assert_eq!(line.read_message().await, Got::Word(vec![0x05, 2, 0]));
    line.expect_text("in between").await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    gateway.stop().await;
}

#[tokio::test]
async fn who_is_away_for_longest_makes_room() {
    let (gateway, mut seen) = gateway(|config| {
        config.limits.sessions_max = 2;
        config.v1.parked_bytes_max = 1024;
    })
    .await;
    let [one, two] = [Line::open(&gateway).await, Line::open(&gateway).await];
    drop(one);
    until_state(&gateway, "detached", 1).await;
    // All places are taken, one of them for somebody who is not there.
    let mut three = Line::open(&gateway).await;
    until_ended(&mut seen, (4408, "client away, and no room to wait for it")).await;
    three.text("hello").await;
    three.expect_text("hello").await;
    // The app says more than may be kept for clients that are away.
    drop(two);
    let token = three.token.clone();
    until_state(&gateway, "detached", 1).await;
    for _ in 0..2 {
        three.text(&"x".repeat(600)).await;
    }
    let mut large = 0;
    while large < 2 {
        large += u32::from(matches!(next(&mut seen).await, Seen::Message(message) if message.len() == 600));
    }
    drop(three);
    until_ended(&mut seen, (4408, "client away, and no room to wait for it")).await;
    let (stream, got) = Line::resume(&gateway, &token, 0).await;
    assert!(matches!(got, Got::Word(word) if word[0] == 0x08 || word[0] == 0x09));
    drop(stream);
    assert_eq!(gateway.scrape("pulsegate_sessions_ended_total{reason=\"limit\"}").await, 2);
    gateway.stop().await;
}
