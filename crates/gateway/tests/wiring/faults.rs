//! A bad but living line (C6 of the fault list): late, uneven, one byte at a time. Nobody is evicted, and
//! every frame arrives whole wherever the reads split it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::{PATIENCE, Running, Seen, echo_app, next};
use futures_util::{SinkExt, StreamExt};
use pulsegate_chaos::FaultProxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

const DELAY: Duration = Duration::from_millis(200);
const JITTER: Duration = Duration::from_millis(150);
const SEED: u64 = 6;

/// More than the bound of the profile fast.
const QUIET: Duration = Duration::from_secs(4);

/// Around the size at which a frame head changes its form. Single bytes are slow, and a probe behind much more than
/// this would come too late whatever the gateway did; the third form of a head is split in `test_fragments.py`.
const SIZES: [usize; 7] = [0, 1, 2, 125, 126, 127, 300];

fn fast(config: &mut pulsegate::config::Config) {
    config.liveness.ping_interval = Some(Duration::from_secs(1));
    config.liveness.verdict_after = Some(Duration::from_secs(2));
    config.liveness.app_frozen_after = Duration::from_secs(3);
}

/// A proxy on the way to `target`, late and uneven from the first byte on. It is not yet sliced: tungstenite's
/// handshake takes single bytes for an attack.
async fn bad_line(target: SocketAddr) -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = FaultProxy::start_seeded(listener, target, SEED);
    proxy.all().delay(DELAY, JITTER);
    proxy
}

fn message(number: usize) -> Message {
    let size = SIZES[number % SIZES.len()];
    let byte = b'a' + (number % 26) as u8;
    match number % 2 {
        0 => Message::binary(vec![byte; size]),
        _ => Message::text(String::from_utf8(vec![byte; size]).unwrap()),
    }
}

/// All sizes under way together, then one at a time, then none at all.
async fn talk(client: &mut Client) {
    for number in 0..SIZES.len() {
        client.feed(message(number)).await.unwrap();
    }
    client.flush().await.unwrap();
    for number in 0..SIZES.len() {
        expect(client, message(number)).await;
    }
    for number in 0..3 {
        client.send(message(number)).await.unwrap();
        expect(client, message(number)).await;
    }
    // Reading is what answers the probes.
    let came = timeout(QUIET, next_data(client)).await;
    assert!(came.is_err(), "nobody said anything, but {came:?} came");
    client.send(message(3)).await.unwrap();
    expect(client, message(3)).await;
}

async fn next_data(client: &mut Client) -> Message {
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Ping(_) => {}
            Message::Close(told) => panic!("closed: {told:?}"),
            data => return data,
        }
    }
}

async fn expect(client: &mut Client, wanted: Message) {
    let got = timeout(PATIENCE, next_data(client)).await.expect("an echo in time");
    assert!(got == wanted, "{} bytes came, not the {} that were sent", got.len(), wanted.len());
}

async fn assert_nobody_was_evicted(gateway: &Running) {
    assert_eq!(gateway.scrape("pulsegate_dead_peers_total").await, 0);
    assert_eq!(gateway.scrape("pulsegate_false_evictions_total").await, 0);
    assert_eq!(gateway.scrape("pulsegate_sessions_ended_total").await, 0);
    assert!(gateway.scrape("pulsegate_pongs_received_total").await > 0, "probes were sent and answered");
}

#[tokio::test]
async fn c6_a_client_on_a_late_line_that_brings_single_bytes() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, fast).await;
    let line = bad_line(gateway.data).await;
    let begin = Instant::now();
    let (mut client, _) = connect_async(format!("ws://{}/", line.local_addr())).await.unwrap();
    assert!(begin.elapsed() >= (DELAY - JITTER) * 2, "the line is late: {:?}", begin.elapsed());
    line.all().slice(1);
    talk(&mut client).await;
    assert_nobody_was_evicted(&gateway).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    client.close(None).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn c6_an_app_on_a_late_line_that_brings_single_bytes() {
    let (app, mut seen) = echo_app().await;
    let line = bad_line(app).await;
    let gateway = Running::start(line.local_addr(), fast).await;
    let (mut client, _) = connect_async(format!("ws://{}/", gateway.data)).await.unwrap();
    line.all().slice(1);
    talk(&mut client).await;
    assert_nobody_was_evicted(&gateway).await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    client.close(None).await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn c6_both_legs_at_once() {
    let (app, _seen) = echo_app().await;
    let far = bad_line(app).await;
    let gateway = Running::start(far.local_addr(), fast).await;
    let near = bad_line(gateway.data).await;
    let (mut client, _) = connect_async(format!("ws://{}/", near.local_addr())).await.unwrap();
    far.all().slice(1);
    near.all().slice(1);
    talk(&mut client).await;
    assert_nobody_was_evicted(&gateway).await;
    gateway.stop().await;
}
