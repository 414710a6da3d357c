//! Tokens and positions that are no good (C29 of the fault list), and acknowledgements out of place (C30): refused in
//! words, and never believed. What `v1.rs` shows already is not here.

use std::time::{Duration, Instant};

use pulsegate_core::v1::{Ack, COUNT_MAX, Envelope, NackCode, ResumeFailCode};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::kit::{PATIENCE, Running, frame, next, read_rest};
use crate::messages::until;
use crate::v1_kit::{BINARY, Got, Line, assert_refusal, assert_refused, gateway, until_ended};

const FOREIGN_SECRET: &str = "AAECAwQFBgcICQoLDA0ODw";
const NOBODY: &str = "01j0000000000000000000000a";

/// Between the answers to a token of nobody's session and to a wrong one of a living session, on average (median).
const TELLTALE_MAX: Duration = Duration::from_millis(2);

/// A session whose client has got `texts` and acknowledged none.
async fn told(gateway: &Running, texts: &[&str]) -> Line {
    let mut line = Line::open(gateway).await;
    for text in texts {
        line.text(text).await;
        line.expect_text(text).await;
    }
    line
}

async fn is_untouched(line: &mut Line) {
    line.text("still there").await;
    line.expect_text("still there").await;
}

#[tokio::test]
async fn c29_entries_that_can_t_be_read_are_refused_as_unknown() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = told(&gateway, &["hello"]).await;
    let (token, session) = (line.token.clone(), &line.token[..26]);
    let cut_short = &token[..47];
    let bad = [
        format!("pgr.{token}"),
        format!("pgr.{token}."),
        format!("pgr.{token}.-1"),
        format!("pgr.{token}.Z"),
        format!("pgr.{token}.zzzzzzzzzzz"),
        format!("pgr.{token}.000000000000000000000000000000"),
        format!("pgr.{cut_short}.0"),
        format!("pgr.{token}{token}.0"),
        format!("pgr.{session}.0"),
        format!("pgr.{}.0", token.to_uppercase()),
        "pgr.".to_owned(),
        "pgr..0".to_owned(),
    ];
    for entry in &bad {
        let (stream, got) = Line::dial(&gateway, &format!("pulsegate.v1, {entry}"), "").await;
        assert_refusal(stream, got, ResumeFailCode::Unknown, None).await;
    }
    is_untouched(&mut line).await;
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, bad.len() as u64);
    gateway.stop().await;
}

#[tokio::test]
async fn c29_another_subprotocol_is_not_the_session_s() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = told(&gateway, &[]).await;
    let headers = format!("Sec-WebSocket-Protocol: pulsegate.v1+chat, chat, pgr.{}.0\r\n", line.token);
    let (stream, head) = crate::kit::raw_client_with(gateway.data, &headers).await;
    assert!(head.to_lowercase().contains("sec-websocket-protocol: pulsegate.v1+chat\r\n"), "{head}");
    let mut stranger = Line { stream, token: String::new() };
    let got = stranger.read().await;
    assert_refusal(stranger.stream, got, ResumeFailCode::Origin, None).await;
    is_untouched(&mut line).await;
    gateway.stop().await;
}

/// Nobody learns from the answer, or from how long it takes, whether there is such a session.
#[tokio::test]
async fn c29_unknown_and_not_yours_have_the_same_answer_and_time() {
    const SAMPLES: usize = 100;
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = told(&gateway, &["hello"]).await;
    let not_yours = format!("{}{FOREIGN_SECRET}", &line.token[..26]);
    let unknown = format!("{NOBODY}{FOREIGN_SECRET}");
    let mut times = [const { Vec::new() }; 2];
    // By turns, so that whatever else the machine does happens to both.
    for _ in 0..SAMPLES {
        for (token, times) in [&unknown, &not_yours].into_iter().zip(&mut times) {
            let start = Instant::now();
            let (mut stream, got) = Line::resume(&gateway, token, 0).await;
            times.push(start.elapsed());
            assert_eq!(got, Got::Word(vec![0x09, 1, 0]));
            stream.shutdown().await.unwrap();
            let close = read_rest(&mut stream).await;
            assert_eq!(&close[..4], [0x88, close.len() as u8 - 2, 0x11, 0x31], "4401");
            assert_eq!(&close[4..], ResumeFailCode::Unknown.as_str().as_bytes());
        }
    }
    let [unknown, not_yours] = times.map(|mut times| {
        times.sort();
        times[SAMPLES / 2]
    });
    println!("unknown {unknown:?}, not yours {not_yours:?}");
    assert!(unknown.abs_diff(not_yours) <= TELLTALE_MAX, "{unknown:?} and {not_yours:?}");
    is_untouched(&mut line).await;
    gateway.stop().await;
}

#[tokio::test]
async fn c29_positions_between_what_was_acknowledged_and_what_was_sent_are_good_and_no_others() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = told(&gateway, &["1", "2", "3", "4"]).await;
    line.ack(2).await;
    until(&gateway, |told| told["received"] == 2).await;
    for position in [4, 2, 3] {
        let (stream, got) = Line::resume(&gateway, &line.token, position).await;
        let mut back = Line::welcomed(stream, got, true, 4, position + 1);
        for number in position + 1..=4 {
            back.expect_text(&number.to_string()).await;
        }
        line = back;
    }
    assert_refused(&gateway, &line.token, 5, ResumeFailCode::Position, Some((4, 2))).await;
    gateway.stop().await;
}

#[tokio::test]
async fn c30_repeated_and_reordered_acks_release_no_more_than_the_highest() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = told(&gateway, &["1", "2", "3", "4", "5"]).await;
    for handled in [0, 3, 3, 1, 0, 2, 3] {
        line.ack(handled).await;
        line.word(Envelope::ProbeAck(Ack { handled, window: None })).await;
    }
    // The answer says that all before it was read.
    line.word(Envelope::Probe).await;
    line.read_ack().await;
    let delivery = until(&gateway, |told| told["received"] == 3).await;
    assert_eq!(delivery["unacked_messages"], 2);
    let (stream, got) = Line::resume(&gateway, &line.token, 3).await;
    let mut line = Line::welcomed(stream, got, true, 5, 4);
    line.expect_text("4").await;
    line.expect_text("5").await;
    gateway.stop().await;
}

#[tokio::test]
async fn c30_acks_and_nacks_for_what_was_not_sent_end_the_session() {
    let nack = |seq| Envelope::Nack { seq, code: NackCode::Expired, reason: "" };
    let ack = |handled| Envelope::Ack(Ack { handled, window: None });
    let probe_ack = |handled| Envelope::ProbeAck(Ack { handled, window: None });
    for word in
        [ack(3), ack(COUNT_MAX), probe_ack(3), probe_ack(COUNT_MAX), nack(0), nack(3), nack(COUNT_MAX)]
    {
        let (gateway, mut seen) = gateway(|_| {}).await;
        let mut line = told(&gateway, &["1", "2"]).await;
        let token = line.token.clone();
        line.word(word.clone()).await;
        let got = line.read_message().await;
        assert!(matches!(&got, Got::Close(4400, _)), "{word:?}: {got:?}");
        until_ended(&mut seen, (1001, "client broke the protocol")).await;
        // What it claimed was not believed: nothing counts as acknowledged.
        assert_refused(&gateway, &token, 2, ResumeFailCode::Ended, Some((2, 0))).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn c30_numbers_that_are_none_end_the_session() {
    for number in [
        &[0x80, 0x00][..],
        &[0xff; 8],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x10],
    ] {
        for tag in [0x01, 0x03] {
            let (gateway, mut seen) = gateway(|_| {}).await;
            let mut line = told(&gateway, &["1"]).await;
            let wire = frame(BINARY, &[&[tag], number].concat());
            line.stream.write_all(&wire).await.unwrap();
            let got = line.read_message().await;
            assert!(matches!(&got, Got::Close(4400, _)), "{number:x?}: {got:?}");
            until_ended(&mut seen, (1001, "client broke the protocol")).await;
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn c30_an_old_connection_acknowledges_nothing() {
    let (gateway, mut seen) = gateway(|_| {}).await;
    let mut old = told(&gateway, &["1", "2", "3"]).await;
    let (stream, got) = Line::resume(&gateway, &old.token, 0).await;
    let mut new = Line::welcomed(stream, got, true, 3, 1);
    // Before it reads that it was replaced, and in one packet with what would end a session.
    for handled in [3, COUNT_MAX] {
        old.ack(handled).await;
    }
    assert!(matches!(old.read_message().await, Got::Close(4409, _)));
    for text in ["1", "2", "3"] {
        new.expect_text(text).await;
    }
    is_untouched(&mut new).await;
    let delivery = until(&gateway, |told| told["unacked_messages"] == 4).await;
    assert_eq!(delivery["received"], 0);
    let (stream, got) = Line::resume(&gateway, &new.token, 0).await;
    let mut again = Line::welcomed(stream, got, true, 4, 1);
    again.expect_text("1").await;
    drop((old, new));
    // The app has seen one connection and nothing twice.
    let mut came = Vec::new();
    while came.len() < 5 {
        came.push(timeout(PATIENCE, next(&mut seen)).await.unwrap());
    }
    assert_eq!(format!("{:?}", came[0]), "Open");
    assert_eq!(gateway.scrape("pulsegate_sessions_opened_total{mode=\"v1\"}").await, 1);
    gateway.stop().await;
}
