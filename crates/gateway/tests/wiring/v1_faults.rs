//! Clients of `pulsegate.v1` on a bad but living line (C6 of the fault list), and ends that get lost (C8).

use std::time::{Duration, Instant};

use pulsegate_chaos::{Direction, FaultProxy};
use pulsegate_client::{Client, ClientConfig, Delivered, Event, Payload};
use pulsegate_soak::history::Way;
use pulsegate_soak::message::Name;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::kit::{PATIENCE, Running, Seen, echo_app, next};
use crate::messages::{ask, session};
use crate::v1_kit::until_state;

const DELAY: Duration = Duration::from_millis(200);
const JITTER: Duration = Duration::from_millis(150);
const SEED: u64 = 6;

/// More than the bound of the profile fast.
const QUIET: Duration = Duration::from_secs(4);

/// After which a silent client is given up, with the settings below.
const T_DEAD: Duration = Duration::from_secs(3);

const RESUME_WINDOW: Duration = Duration::from_secs(1);

/// Single bytes are slow: not more than so many may wait in front of a heartbeat.
const SHORT_BYTES_MAX: usize = 400;

fn fast(config: &mut pulsegate::config::Config) {
    config.liveness.ping_interval = Some(Duration::from_secs(1));
    config.liveness.verdict_after = Some(Duration::from_secs(2));
    config.liveness.app_frozen_after = T_DEAD;
    config.limits.close_timeout = Duration::from_millis(500);
    config.v1.resume_window = RESUME_WINDOW;
}

async fn line_to(gateway: &Running) -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    FaultProxy::start_seeded(listener, gateway.data, SEED)
}

async fn client_on(line: &FaultProxy) -> Client {
    let mut client =
        Client::connect(&format!("ws://{}/", line.local_addr()), ClientConfig::default()).unwrap();
    assert_eq!(event(&mut client).await, Event::Live { resumed: false });
    client
}

async fn event(client: &mut Client) -> Event {
    timeout(PATIENCE, client.next()).await.expect("something in time").expect("it lives")
}

fn payload(name: Name) -> Payload {
    match name.is_text() {
        true => Payload::Text(String::from_utf8(name.payload()).unwrap()),
        false => Payload::Binary(name.payload()),
    }
}

/// Says it, and waits for its echo and its outcome.
async fn exchange(client: &mut Client, name: Name) {
    let sender = client.sender();
    let delivering = tokio::spawn(async move { sender.deliver(payload(name), None).await });
    match event(client).await {
        Event::Message { text, payload, .. } => assert!(name.is(text, &payload), "{name:?}: {payload:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(timeout(PATIENCE, delivering).await.unwrap().unwrap(), Ok(Delivered));
}

#[tokio::test]
async fn c6_a_late_line_that_brings_single_bytes_costs_no_connection() {
    let (app, _seen) = echo_app().await;
    let gateway = Running::start(app, fast).await;
    let line = line_to(&gateway).await;
    line.all().delay(DELAY, JITTER);
    let mut client = client_on(&line).await;
    // Only now: tungstenite's handshake takes single bytes for an attack.
    line.all().slice(1);
    let names = (1..).map(|number| Name { client: 1, way: Way::ToApp, number });
    let short = names.filter(|name| name.payload().len() <= SHORT_BYTES_MAX);
    for (count, name) in short.take(16).enumerate() {
        exchange(&mut client, name).await;
        if count == 8 {
            // Heartbeats alone.
            let came = timeout(QUIET, client.next()).await;
            assert!(came.is_err(), "nobody said anything, but {came:?} came");
        }
    }
    for metric in ["pulsegate_dead_peers_total", "pulsegate_resumes_total", "pulsegate_retransmits_total"] {
        assert_eq!(gateway.scrape(metric).await, 0, "{metric}");
    }
    client.close().await;
    gateway.stop().await;
}

#[tokio::test]
async fn c8_a_reset_in_the_middle_is_no_end() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, fast).await;
    let line = line_to(&gateway).await;
    let mut client = client_on(&line).await;
    for number in 1..=10 {
        exchange(&mut client, Name { client: 1, way: Way::ToApp, number }).await;
        let start = Instant::now();
        line.all().reset();
        assert_eq!(event(&mut client).await, Event::Detached);
        assert_eq!(event(&mut client).await, Event::Live { resumed: true });
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    client.close().await;
    assert_eq!(next(&mut seen).await, Seen::Open);
    for number in 1..=10 {
        let Seen::Message(message) = next(&mut seen).await else { panic!("no message") };
        let name = Name { client: 1, way: Way::ToApp, number };
        assert!(name.is(message.is_text(), &message.into_data()), "{number}");
    }
    assert_eq!(next(&mut seen).await, Seen::Close(Some((1000, String::new()))));
    line.connections_when(|connections| connections.is_empty()).await;
    gateway.stop().await;
}

/// The client's goodbye never comes: its own end is bounded, and the gateway's by what silence and the window allow.
#[tokio::test]
async fn c8_a_goodbye_that_is_lost_ends_in_time_on_both_sides() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, fast).await;
    let line = line_to(&gateway).await;
    let mut client = client_on(&line).await;
    exchange(&mut client, Name { client: 1, way: Way::ToApp, number: 1 }).await;
    line.all().freeze_direction(Direction::ToTarget);
    let start = Instant::now();
    client.close().await;
    let close_within = ClientConfig::default().close_within;
    assert!(start.elapsed() < close_within + Duration::from_secs(1), "{:?}", start.elapsed());
    until_state(&gateway, "detached", 1).await;
    assert!(start.elapsed() < T_DEAD + close_within + Duration::from_secs(1), "{:?}", start.elapsed());
    until_state(&gateway, "detached", 0).await;
    let bound = T_DEAD.max(close_within) + RESUME_WINDOW + Duration::from_secs(2);
    assert!(start.elapsed() < bound, "{:?}", start.elapsed());
    for _ in 0..2 {
        next(&mut seen).await;
    }
    assert!(matches!(next(&mut seen).await, Seen::Close(Some((4408, _)))));
    line.all().heal();
    timeout(PATIENCE, line.connections_when(|connections| connections.is_empty()))
        .await
        .expect("none is left");
    gateway.stop().await;
}

/// The gateway's Close never comes: the client finds the silence, comes back, and is told that there is nothing to come
/// back to.
#[tokio::test]
async fn c8_a_close_that_is_lost_is_told_to_who_comes_back() {
    let (app, mut seen) = echo_app().await;
    let gateway = Running::start(app, fast).await;
    let line = line_to(&gateway).await;
    let mut client = client_on(&line).await;
    exchange(&mut client, Name { client: 1, way: Way::ToApp, number: 1 }).await;
    let id = session(&gateway).await["id"].as_str().unwrap().to_owned();
    let hung = line.connections()[0].id;
    line.connection(hung).unwrap().freeze_direction(Direction::ToClient);
    let start = Instant::now();
    let (status, _) = ask(&gateway, &format!("DELETE /v1/sessions/{id} HTTP/1.1"), b"").await;
    assert_eq!(status, 204);
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Live { resumed: false })) {
        events.push(event(&mut client).await);
    }
    assert!(events.iter().any(|event| matches!(event, Event::Reset { .. })), "{events:?}");
    println!("a new session {:?} after the lost Close: {events:?}", start.elapsed());
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 1);
    exchange(&mut client, Name { client: 1, way: Way::ToApp, number: 2 }).await;
    for _ in 0..2 {
        next(&mut seen).await;
    }
    assert!(matches!(next(&mut seen).await, Seen::Close(Some(_))));
    client.close().await;
    line.all().heal();
    timeout(PATIENCE, line.connections_when(|connections| connections.is_empty()))
        .await
        .expect("none is left");
    gateway.stop().await;
}
