//! The relay at its edges: ends that cross, peers that break off, pauses that must not hide a death.

use std::io::Write;
use std::time::Duration;

use crate::kit::{
    PATIENCE, Running, app_frame, bare_pair, echo_app, frame, raw_client, read_frame, read_rest,
};
use pulsegate::config::Config;
use pulsegate_registry::Confirm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_client_that_pings_often_does_not_hide_a_frozen_app() {
    let (_gateway, mut client, _app) = bare_pair(|config| {
        config.liveness.ping_interval = Some(SHORT);
        config.liveness.verdict_after = Some(SHORT);
        config.liveness.app_frozen_after = SHORT * 2;
    })
    .await;
    let mut pace = interval(SHORT / 10);
    let told = async {
        loop {
            pace.tick().await;
            if client.write_all(&frame(0x89, b"me")).await.is_err() {
                panic!("the client is cut");
            }
            loop {
                match read_frame(&mut client).await {
                    (0x8a, _) => break,
                    (0x89, probe) => client.write_all(&frame(0x8a, &probe)).await.unwrap(),
                    (0x88, payload) => return u16::from_be_bytes([payload[0], payload[1]]),
                    other => panic!("{other:?}"),
                }
            }
        }
    };
    assert_eq!(timeout(SHORT * 10, told).await.expect("a verdict in time"), 1013);
}

/// Nobody asks the client what it has read: what comes is what the app sent, byte by byte.
fn unasked(config: &mut Config) {
    config.delivery.confirm = Confirm::Kernel;
}

/// This runtime has one thread: the gateway sees nothing until the test awaits, then all at once.
#[tokio::test]
async fn the_last_words_of_an_app_that_cuts_its_line_reach_a_client_that_is_talking() {
    let (_gateway, mut client, mut app) = bare_pair(unasked).await;
    client.write_all(&frame(0x81, b"hardly read")).await.unwrap();
    timeout(PATIENCE, app.read_u8()).await.unwrap().unwrap();
    let mut app_now = app.into_std().unwrap();
    let mut client_now = client.into_std().unwrap();
    client_now.write_all(&frame(0x81, b"into the void")).unwrap();
    app_now.write_all(&app_frame(0x81, b"last words")).unwrap();
    app_now.write_all(&app_frame(0x88, b"\x0f\xa1bye")).unwrap();
    // Bytes that it has not read make its kernel send RST.
    drop(app_now);
    client = TcpStream::from_std(client_now).unwrap();
    assert_eq!(read_frame(&mut client).await, (0x81, b"last words".to_vec()));
    assert_eq!(read_frame(&mut client).await, (0x88, b"\x0f\xa1bye".to_vec()));
}

#[tokio::test]
async fn waiting_for_an_end_within_a_frame_costs_no_processor_time() {
    let (gateway, mut client, mut app) = bare_pair(|config| {
        config.limits.frame_timeout = SHORT / 3;
        config.limits.frame_rate_min = 1;
        config.limits.close_timeout = SHORT * 2;
    })
    .await;
    let mut begun = frame(0x82, &[7; 100]);
    begun.truncate(50);
    client.write_all(&begun).await.unwrap();
    app.read_exact(&mut vec![0; begun.len()]).await.unwrap();
    // The app closes, the client goes on with neither frame nor Close until the limit cuts it.
    app.write_all(&app_frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (0x88, b"\x03\xe8".to_vec()));
    assert_eq!(read_rest(&mut client).await, b"");
    let fired = gateway.scrape("pulsegate_timer_lag_seconds_count").await;
    assert!((1..50).contains(&fired), "the timer fired {fired} times");
}

#[tokio::test]
async fn nothing_follows_our_close_frame() {
    let (gateway, mut client, mut app) = bare_pair(|_| {}).await;
    gateway.stop.cancel();
    assert_eq!(read_frame(&mut client).await.0, 0x88);
    let mut close = [0; 2];
    timeout(PATIENCE, app.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!(close[0], 0x88);
    let mut rest = vec![0; 4 + usize::from(close[1] & 0x7f)];
    app.read_exact(&mut rest).await.unwrap();
    for first_byte in [0x89, 0x81] {
        client.write_all(&frame(first_byte, b"late")).await.unwrap();
        app.write_all(&app_frame(first_byte, b"late")).await.unwrap();
    }
    client.write_all(&frame(0x88, b"\x03\xf4")).await.unwrap();
    app.write_all(&app_frame(0x88, b"\x03\xf4")).await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!((read_rest(&mut client).await, read_rest(&mut app).await), (vec![], vec![]));
}

#[tokio::test]
async fn a_pong_goes_between_two_frames_and_never_into_one() {
    let (_gateway, mut client, mut app) = bare_pair(|_| {}).await;
    let first = app_frame(0x82, &[7; 100]);
    app.write_all(&first[..50]).await.unwrap();
    let mut got = vec![0; 50];
    timeout(PATIENCE, client.read_exact(&mut got)).await.unwrap().unwrap();
    client.write_all(&frame(0x89, b"now")).await.unwrap();
    client.write_all(&frame(0x81, b"read")).await.unwrap();
    // When the text has come through, the ping before it was seen.
    timeout(PATIENCE, app.read_exact(&mut [0; 10])).await.unwrap().unwrap();
    app.write_all(&[&first[50..], &app_frame(0x81, b"next")].concat()).await.unwrap();
    let mut rest = vec![0; 52];
    timeout(PATIENCE, client.read_exact(&mut rest)).await.unwrap().unwrap();
    assert_eq!([got, rest].concat(), first);
    assert_eq!(read_frame(&mut client).await, (0x8a, b"now".to_vec()));
    assert_eq!(read_frame(&mut client).await, (0x81, b"next".to_vec()));
}

#[tokio::test]
async fn an_end_within_a_frame_is_a_fin_and_no_bytes_that_are_not_the_frames() {
    let (gateway, mut client, mut app) = bare_pair(|_| {}).await;
    app.write_all(&app_frame(0x82, &[7; 100])[..50]).await.unwrap();
    timeout(PATIENCE, client.read_exact(&mut [0; 50])).await.unwrap().unwrap();
    gateway.stop.cancel();
    assert_eq!(read_rest(&mut client).await, b"");
    assert_eq!(timeout(PATIENCE, app.read_u8()).await.unwrap().unwrap(), 0x88);
}

#[tokio::test]
async fn data_and_close_and_end_at_once_arrive_whole_at_a_slow_client() {
    let (_gateway, mut client, mut app) = bare_pair(unasked).await;
    let mut wire = Vec::new();
    for n in 0..20_000u32 {
        wire.extend(app_frame(0x82, &[&n.to_be_bytes()[..], &[7; 100]].concat()));
    }
    wire.extend(app_frame(0x88, b"\x0f\xa1bye"));
    let expected = wire.clone();
    tokio::spawn(async move {
        app.write_all(&wire).await.unwrap();
        app.shutdown().await.unwrap();
        let _ = app.read_to_end(&mut Vec::new()).await;
    });
    let mut got = vec![0; expected.len()];
    timeout(PATIENCE, client.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got == expected, "what arrived is not what was sent");
    client.write_all(&frame(0x88, b"\x0f\xa1bye")).await.unwrap();
    assert_eq!(read_rest(&mut client).await, b"");
}

#[tokio::test]
async fn closes_that_cross_each_reach_the_other_side() {
    let (_gateway, client, app) = bare_pair(|_| {}).await;
    let (mut client, mut app) = (client.into_std().unwrap(), app.into_std().unwrap());
    client.write_all(&frame(0x88, b"\x0b\xb9client")).unwrap();
    app.write_all(&app_frame(0x88, b"\x0b\xbaapp")).unwrap();
    let (mut client, mut app) = (TcpStream::from_std(client).unwrap(), TcpStream::from_std(app).unwrap());
    assert_eq!(read_frame(&mut client).await, (0x88, b"\x0b\xbaapp".to_vec()));
    assert_eq!(read_rest(&mut client).await, b"");
    let first = timeout(PATIENCE, app.read_u8()).await.unwrap().unwrap();
    assert_eq!(first, 0x88);
    drop(app);
}

#[tokio::test]
async fn a_client_that_shuts_down_its_side_behind_its_close_still_gets_the_answer() {
    let (_gateway, mut client, mut app) = bare_pair(|_| {}).await;
    client.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    client.shutdown().await.unwrap();
    let mut close = [0; 8];
    timeout(PATIENCE, app.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!(close[0], 0x88);
    app.write_all(&app_frame(0x81, b"one more")).await.unwrap();
    app.write_all(&app_frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (0x81, b"one more".to_vec()));
    assert_eq!(read_frame(&mut client).await, (0x88, b"\x03\xe8".to_vec()));
    assert_eq!(read_rest(&mut client).await, b"");
    app.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut app).await, b"");
}

/// RFC 6455 section 5.3: a key must not be predictable from anything that an attacker may know.
#[tokio::test]
async fn masks_come_from_the_system_and_not_from_a_seed() {
    let (_gateway, _client, mut app) = bare_pair(|_| {}).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        // The gateway runs on this thread.
        fastrand::seed(7);
        app.write_all(&app_frame(0x89, b"")).await.unwrap();
        let mut pong = [0; 6];
        timeout(PATIENCE, app.read_exact(&mut pong)).await.unwrap().unwrap();
        assert_eq!(pong[..2], [0x8a, 0x80]);
        keys.push(pong[2..].to_vec());
    }
    assert_ne!(keys[0], keys[1]);
}

#[tokio::test]
async fn a_gateway_that_is_dropped_frees_its_port() {
    let (app, _seen) = echo_app().await;
    let gateway = Running::start(app, |_| {}).await;
    let _client = raw_client(gateway.data).await;
    let port = gateway.data;
    gateway.give_up().await;
    let freed = async {
        while TcpStream::connect(port).await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("nobody listens any more");
}
