//! Before the verdict and after it: probes that find their way, and the dead who come back.

use std::time::Duration;

use crate::kit::{PATIENCE, Running, app_frame, bare_pair, echo_app, frame, raw_client, read_frame};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::time::{Instant, sleep, timeout};

const SHORT: Duration = Duration::from_millis(300);
/// Long enough for a peer to come back after its verdict, on a busy machine too.
const VERDICT_AFTER: Duration = Duration::from_secs(2);

fn bounds(config: &mut pulsegate::config::Config) {
    config.liveness.ping_interval = Some(SHORT);
    config.liveness.verdict_after = Some(VERDICT_AFTER);
}

#[tokio::test]
async fn a_peer_that_comes_back_after_its_verdict_is_counted_as_evicted_falsely() {
    let (gateway, mut client, mut app) = bare_pair(bounds).await;
    // The app answers; the client reads and says nothing.
    let told = async {
        loop {
            let (first, payload) = read_frame_masked(&mut app).await;
            match first {
                0x89 => app.write_all(&app_frame(0x8a, &payload)).await.unwrap(),
                0x88 => return payload,
                other => panic!("{other:#x}"),
            }
        }
    };
    let payload = timeout(PATIENCE, told).await.expect("a verdict");
    assert_eq!(payload[..2], 4408u16.to_be_bytes());
    assert_eq!(gateway.scrape("pulsegate_false_evictions_total").await, 0);
    // It wakes up, finds pings and a Close frame, and answers.
    loop {
        let (first, _) = read_frame(&mut client).await;
        if first == 0x88 {
            break;
        }
    }
    client.write_all(&frame(0x88, &4408u16.to_be_bytes())).await.unwrap();
    until(&gateway, "pulsegate_false_evictions_total{leg=\"client\",cause=\"frozen\"}", 1).await;
    until(&gateway, "pulsegate_connections ", 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_socket_of_the_dead_is_kept_for_a_while_and_no_longer() {
    let (app, _seen) = echo_app().await;
    let gateway = Running::start(app, bounds).await;
    let mut client = raw_client(gateway.data).await;
    until(&gateway, "pulsegate_dead_peers_total{leg=\"client\"", 1).await;
    let verdict = Instant::now();
    assert_eq!(gateway.scrape("pulsegate_connections ").await, 1);
    until(&gateway, "pulsegate_connections ", 0).await;
    assert!(verdict.elapsed() < VERDICT_AFTER + Duration::from_secs(1), "{:?}", verdict.elapsed());
    timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.expect("the connection is over").ok();
    assert_eq!(gateway.scrape("pulsegate_false_evictions_total").await, 0);
    gateway.stop().await;
}

/// A client that is sent more than it takes, and says nothing but pongs: its socket is always full, and yet
/// it is asked.
#[tokio::test]
async fn probes_find_a_place_in_an_endless_stream() {
    let (gateway, mut client, app) = bare_pair(bounds).await;
    let (_unread, mut writing) = app.into_split();
    let stream = tokio::spawn(async move {
        let mut wire = vec![0x82, 126, 0x10, 0x00];
        wire.resize(4 + 0x1000, 7);
        while writing.write_all(&wire).await.is_ok() {}
    });
    let mut pings = 0;
    let listen = async {
        while pings < 3 {
            let first = client.read_u8().await.unwrap();
            let len = match client.read_u8().await.unwrap() {
                126 => usize::from(client.read_u16().await.unwrap()),
                len => usize::from(len),
            };
            let mut payload = vec![0; len];
            client.read_exact(&mut payload).await.unwrap();
            // Slower than the app, so that there is always more to write than the socket takes.
            sleep(Duration::from_micros(200)).await;
            if first == 0x89 {
                pings += 1;
                client.write_all(&frame(0x8a, &payload)).await.unwrap();
            }
        }
    };
    timeout(PATIENCE, listen).await.expect("pings among the data");
    stream.abort();
    gateway.stop().await;
}

/// A client that goes on sending and takes nothing dies of that. That it takes bytes again shows that the verdict was
/// hasty. (That what it sends does not: `test_big_packets_vanish_while_the_peer_goes_on_sending`. The kernel of a client
/// that merely reads nothing now and then takes some for it.)
#[tokio::test]
async fn that_bytes_are_taken_after_a_stalled_write_counts() {
    let (gateway, client, app) = bare_pair(|config| {
        bounds(config);
        config.liveness.client_write_stall_after = Some(VERDICT_AFTER);
    })
    .await;
    // The kernel would let it grow to megabytes.
    SockRef::from(&client).set_recv_buffer_size(64 * 1024).unwrap();
    let (_unread, mut to_client) = app.into_split();
    let push = tokio::spawn(async move {
        let mut wire = vec![0x82, 126, 0x10, 0x00];
        wire.resize(4 + 0x1000, 7);
        while to_client.write_all(&wire).await.is_ok() {}
    });
    let (mut from_gateway, mut to_gateway) = client.into_split();
    let talk = tokio::spawn(async move {
        while to_gateway.write_all(&frame(0x82, b"still here")).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    until(&gateway, "pulsegate_dead_peers_total{leg=\"client\",cause=\"write_stalled\"}", 1).await;
    // All that is there, until the connection is cut: a part of it may not open the window again.
    tokio::spawn(async move { copy(&mut from_gateway, &mut sink()).await });
    until(&gateway, "pulsegate_connections ", 0).await;
    assert_eq!(gateway.scrape("pulsegate_false_evictions_total").await, 1);
    talk.abort();
    push.abort();
    gateway.stop().await;
}

/// Waits until the sum over the series that begin with `name` is `value`.
async fn until(gateway: &Running, name: &str, value: u64) {
    let poll = async {
        while gateway.scrape(name).await != value {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, poll).await.unwrap_or_else(|_| panic!("{name} does not become {value}"));
}

/// Reads one short masked frame, as an app gets it.
async fn read_frame_masked(stream: &mut tokio::net::TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let len = usize::from(stream.read_u8().await.unwrap() & 0x7f);
        let mut mask = [0; 4];
        stream.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; len];
        stream.read_exact(&mut payload).await.unwrap();
        for (n, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[n % 4];
        }
        (first, payload)
    };
    timeout(PATIENCE, read).await.expect("a frame in time")
}
