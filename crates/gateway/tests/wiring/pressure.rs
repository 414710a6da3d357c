//! Back-pressure: a client that does not read, and what becomes of both sides meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::kit::{PATIENCE, Running, bare_pair, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{interval, timeout};

const SHORT: Duration = Duration::from_millis(300);

/// More than all kernel buffers between the app and a client that does not read.
const FLOOD_BYTES: usize = 128 * 1024 * 1024;

/// One frame of the flood.
const FRAME_BYTES: usize = 65_000;

/// A client that reads nothing while the app sends without end; returns what the app's side is told and how
/// much its kernel took.
async fn flood(stall: Duration, frames: usize) -> (Running, TcpStream, OwnedReadHalf, Arc<AtomicUsize>) {
    let (gateway, client, app) = bare_pair(|config| {
        config.liveness.ping_interval = Some(SHORT);
        config.liveness.verdict_after = Some(SHORT);
        config.liveness.app_frozen_after = SHORT * 2;
        config.liveness.client_write_stall_after = Some(stall);
    })
    .await;
    let (reading, mut writing) = app.into_split();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    tokio::spawn(async move {
        let mut wire = vec![0x82, 126];
        wire.extend_from_slice(&(FRAME_BYTES as u16).to_be_bytes());
        wire.resize(4 + FRAME_BYTES, 7);
        for _ in 0..frames {
            if writing.write_all(&wire).await.is_err() {
                return;
            }
            count.fetch_add(wire.len(), Ordering::Relaxed);
        }
        // Open, and silent.
        std::future::pending::<()>().await;
    });
    (gateway, client, reading, taken)
}

/// Reads one frame of at most 65,535 bytes.
async fn read_any_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let len = match stream.read_u8().await.unwrap() {
            126 => usize::from(stream.read_u16().await.unwrap()),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    timeout(PATIENCE, read).await.expect("a frame in time")
}

#[tokio::test]
async fn a_client_that_talks_but_takes_nothing_is_cut_as_stalled() {
    let (_gateway, client, mut app, _) = flood(SHORT * 2, FLOOD_BYTES / FRAME_BYTES).await;
    let (_unread, mut client) = client.into_split();
    let talk = async {
        let mut pace = interval(SHORT / 10);
        loop {
            pace.tick().await;
            if client.write_all(&frame(0x82, b"")).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let told = async {
        loop {
            let mut head = [0; 6];
            app.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1] & 0x7f)];
            app.read_exact(&mut payload).await.unwrap();
            if head[0] == 0x88 {
                payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
                return payload;
            }
        }
    };
    let payload = tokio::select! {
        payload = timeout(PATIENCE, told) => payload.expect("a verdict in time"),
        () = talk => unreachable!("it talks for ever"),
    };
    assert_eq!(payload[..2], 4408u16.to_be_bytes());
    assert!(payload[2..].starts_with(b"client write_stalled"), "{}", String::from_utf8_lossy(&payload[2..]));
}

#[tokio::test]
async fn an_app_that_we_do_not_read_lives_on_and_everything_arrives() {
    let frames = FLOOD_BYTES / FRAME_BYTES;
    let (gateway, mut client, _app, taken) = flood(PATIENCE, frames).await;
    let mut pace = interval(SHORT / 10);
    // Many bounds long the client sends and does not read.
    for _ in 0..80 {
        pace.tick().await;
        client.write_all(&frame(0x8a, b"")).await.unwrap();
    }
    assert!(gateway.scrape("pulsegate_backpressure_pauses_total").await > 0);
    let held = taken.load(Ordering::Relaxed);
    assert!(
        held < FLOOD_BYTES * 3 / 4,
        "{held} bytes were taken from the app for a client that reads nothing"
    );
    let mut arrived = 0;
    while arrived < frames {
        match read_any_frame(&mut client).await {
            (0x82, payload) => {
                assert!(payload == [7; FRAME_BYTES], "a frame came changed");
                arrived += 1;
            }
            (0x89, probe) => client.write_all(&frame(0x8a, &probe)).await.unwrap(),
            other => panic!("{:x} {:?}", other.0, String::from_utf8_lossy(&other.1)),
        }
    }
    // The app is read again, and now it is silent: that counts.
    let code = loop {
        match read_any_frame(&mut client).await {
            (0x89, probe) => client.write_all(&frame(0x8a, &probe)).await.unwrap(),
            (0x88, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1013);
}
