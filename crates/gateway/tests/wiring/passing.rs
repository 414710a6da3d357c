//! The relay over real sockets: data, control frames, closes, and both kinds of silence.

use std::time::{Duration, Instant};

use crate::kit::{PATIENCE, Running, Seen, echo_app, frame, next, raw_client, read_frame};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;

const SHORT: Duration = Duration::from_millis(300);

fn short_bounds(config: &mut pulsegate::config::Config) {
    config.liveness.ping_interval = Some(SHORT);
    config.liveness.verdict_after = Some(SHORT);
    config.liveness.app_frozen_after = SHORT * 2;
}

#[tokio::test]
async fn messages_pass_both_ways_and_the_clients_close_reaches_the_app() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let (mut client, _) = connect_async(format!("ws://{}/chat?x=1", gateway.data)).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Open);
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000]), Message::text("")] {
        client.feed(message.clone()).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap(), message);
        assert_eq!(next(&mut seen).await, Seen::Message(message));
    }
    client.close(Some(CloseFrame { code: 3001.into(), reason: "done here".into() })).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Close(Some((3001, "done here".to_owned()))));
    while let Some(message) = timeout(PATIENCE, client.next()).await.unwrap() {
        assert!(matches!(message, Ok(Message::Close(_))), "{message:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_apps_close_reaches_the_client() {
    let (app, _seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let mut client = raw_client(gateway.data).await;
    client.write_all(&frame(0x81, b"close me")).await.unwrap();
    let (first, payload) = read_frame(&mut client).await;
    assert_eq!((first, &payload[..]), (0x88, &b"\x0f\xa1asked to"[..]));
    client.write_all(&frame(0x88, &payload)).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, client.read(&mut [0; 10])).await.unwrap().unwrap(),
        0,
        "the gateway closes first"
    );
}

#[tokio::test]
async fn a_vanished_app_is_1012_and_a_vanished_client_no_close_at_all() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    client.write_all(&frame(0x81, b"drop me")).await.unwrap();
    let (first, payload) = read_frame(&mut client).await;
    assert_eq!((first, &payload[..2]), (0x88, &1012u16.to_be_bytes()[..]));
    assert_eq!(next(&mut seen).await, Seen::End);

    let client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    drop(client);
    assert_eq!(next(&mut seen).await, Seen::End);
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_here_and_the_message_arrives_whole() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    let mut wire = frame(0x01, b"one ");
    wire.extend(frame(0x89, b"are you there"));
    wire.extend(frame(0x00, b"two "));
    wire.extend(frame(0x8a, b"unasked"));
    wire.extend(frame(0x80, b"three"));
    for byte in wire {
        client.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(read_frame(&mut client).await, (0x8a, b"are you there".to_vec()));
    assert_eq!(next(&mut seen).await, Seen::Message(Message::text("one two three")));
    assert_eq!(read_frame(&mut client).await, (0x81, b"one two three".to_vec()));
}

#[tokio::test]
async fn a_client_that_answers_nothing_is_told_to_the_app_within_the_bound() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, short_bounds).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    client.write_all(&frame(0x81, b"last words")).await.unwrap();
    let spoken = Instant::now();
    assert!(matches!(next(&mut seen).await, Seen::Message(_)));
    // It goes on reading, as a kernel does, but answers no ping.
    let reading = tokio::spawn(async move { client.read_to_end(&mut Vec::new()).await });
    match next(&mut seen).await {
        Seen::Close(Some((4408, reason))) => {
            assert!(reason.starts_with("client frozen: silent for 0."), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    assert!(spoken.elapsed() <= SHORT * 2 + Duration::from_secs(1), "{:?}", spoken.elapsed());
    assert_eq!(next(&mut seen).await, Seen::End);
    reading.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_answers_pings_lives_on_in_silence() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, short_bounds).await;
    let (mut client, _) = connect_async(format!("ws://{}/", gateway.data)).await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Open);
    // Reading is what answers pings in this client; nothing else comes for many bounds.
    let listen = async {
        loop {
            match client.next().await {
                Some(Ok(Message::Ping(_))) => {}
                other => return other,
            }
        }
    };
    assert!(timeout(SHORT * 8, listen).await.is_err(), "only pings are expected");
    client.feed(Message::text("still here")).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(next(&mut seen).await, Seen::Message(Message::text("still here")));
}

#[tokio::test]
async fn an_app_that_freezes_is_1013_to_its_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Running::start(listener.local_addr().unwrap(), short_bounds).await;
    let app = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        // Never read again: the kernel takes the pings, nobody answers.
        std::future::pending::<()>().await;
        drop(socket);
    });
    let (mut client, _) = connect_async(format!("ws://{}/", gateway.data)).await.unwrap();
    let close = loop {
        match timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap() {
            Message::Ping(_) => {}
            other => break other,
        }
    };
    assert!(matches!(&close, Message::Close(Some(frame)) if u16::from(frame.code) == 1013), "{close:?}");
    app.abort();
}

#[tokio::test]
async fn a_large_message_streams_while_the_reader_is_slow() {
    let (app, _seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let url = format!("ws://{}/", gateway.data);
    let (mut client, _) =
        tokio_tungstenite::connect_async_with_config(url, Some(config), false).await.unwrap();
    let payload: Vec<u8> = (0..8_000_000u32).map(|n| (n % 251) as u8).collect();
    client.feed(Message::binary(payload.clone())).await.unwrap();
    client.flush().await.unwrap();
    let echoed = timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
    assert!(echoed.into_data() == payload, "the payload came back changed");
}

#[tokio::test]
async fn violations_close_the_offender_with_1002_and_the_app_with_1001() {
    for (wire, code) in [
        (vec![0x81, 0x02, b'h', b'i'], 1002),
        (frame(0xc1, b"rsv1"), 1002),
        (frame(0x83, b"opcode"), 1002),
        (frame(0x09, b"ping in fragments"), 1002),
        (frame(0x80, b"continues nothing"), 1002),
        (frame(0x88, &[3]), 1002),
        (frame(0x82, &[0; 2_000]), 1009),
    ] {
        let (app, mut seen) = echo_app().await;
        let gateway = Running::start(app, |config| config.limits.frame_bytes_max = 1_000).await;
        let mut client = raw_client(gateway.data).await;
        assert_eq!(next(&mut seen).await, Seen::Open);
        client.write_all(&wire).await.unwrap();
        let (first, payload) = read_frame(&mut client).await;
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, code));
        match next(&mut seen).await {
            Seen::Close(Some((1001, _))) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(timeout(PATIENCE, client.read(&mut [0; 10])).await.unwrap().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_flood_of_pings_is_cut_and_a_gentle_stream_is_not() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, |config| config.limits.control_frames_rate_max = 20).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    for _ in 0..40 {
        client.write_all(&frame(0x89, b"x")).await.unwrap();
        assert_eq!(read_frame(&mut client).await, (0x8a, b"x".to_vec()));
    }
    let flood: Vec<u8> = (0..200).flat_map(|_| frame(0x89, b"y")).collect();
    client.write_all(&flood).await.unwrap();
    let code = loop {
        match read_frame(&mut client).await {
            (0x8a, _) => {}
            (first, payload) => {
                assert_eq!(first, 0x88);
                break u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    };
    assert_eq!(code, 1008);
}

#[tokio::test]
async fn draining_tells_both_sides_1012() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    let stop = gateway.stop.clone();
    stop.cancel();
    let (first, payload) = read_frame(&mut client).await;
    assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, 1012));
    client.write_all(&frame(0x88, &payload)).await.unwrap();
    assert!(matches!(next(&mut seen).await, Seen::Close(Some((1012, _)))));
    gateway.stop().await;
}

/// A drain that no test has the patience for.
fn long_drain(config: &mut pulsegate::config::Config) {
    config.drain.window = PATIENCE * 10;
    config.drain.deadline = PATIENCE * 20;
}

#[tokio::test]
async fn a_hurried_drain_still_says_goodbye() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, long_drain).await;
    let mut client = raw_client(gateway.data).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    gateway.stop.cancel();
    gateway.hurry.cancel();
    let (first, payload) = read_frame(&mut client).await;
    assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, 1012));
    gateway.stop().await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_those_who_left_by_themselves() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, long_drain).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(raw_client(gateway.data).await);
        assert_eq!(next(&mut seen).await, Seen::Open);
    }
    gateway.stop.cancel();
    drop(clients);
    // One turn of a hundred may be waited for; it is 2 s at most.
    gateway.stop().await;
}
