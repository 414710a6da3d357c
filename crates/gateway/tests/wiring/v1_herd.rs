//! Two hundred clients of `pulsegate.v1` that are cut in one moment (C22 of the fault list).

use std::time::{Duration, Instant};

use pulsegate_chaos::FaultProxy;
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::kit::{PATIENCE, Running, echo_app};

const HERD: usize = 200;
const OTHERS: usize = 10;
const CUTS: usize = 3;

/// All are back by then: the first wait is at most 0.2 s, and few need a second one.
const BACK_MAX: Duration = Duration::from_secs(5);

/// Who was not cut waits no longer for an echo, all the while.
const SERVED_MAX: Duration = Duration::from_secs(1);

/// One of the herd: it keeps a word under way, and tells when it is live.
async fn member(url: String, live: UnboundedSender<bool>, over: CancellationToken) {
    let mut client = Client::connect(&url, ClientConfig::default()).unwrap();
    let (mut said, mut echoed) = (0, 0);
    while let Some(event) = over.run_until_cancelled(client.next()).await {
        match event.expect("it lives") {
            Event::Live { resumed } => live.send(resumed).unwrap(),
            Event::Message { payload, .. } => {
                echoed += 1;
                assert_eq!(*payload, *format!("{echoed}").as_bytes(), "each once and in order");
            }
            Event::Detached => {}
            event @ (Event::Reset { .. } | Event::Unsupported | Event::Closed { .. }) => panic!("{event:?}"),
        }
        if said == echoed {
            said += 1;
            client.send(Payload::Text(said.to_string())).await.unwrap();
            // Hundreds without a pause would be another test.
            sleep(Duration::from_millis(20)).await;
        }
    }
    client.close().await;
}

/// One who is not cut; returns the longest that it waited for an echo.
async fn other(url: String, over: CancellationToken) -> Duration {
    let mut client = Client::connect(&url, ClientConfig::default()).unwrap();
    assert_eq!(client.next().await, Some(Event::Live { resumed: false }));
    let mut longest = Duration::ZERO;
    while !over.is_cancelled() {
        let start = Instant::now();
        client.send(Payload::Text("there?".to_owned())).await.unwrap();
        let event = timeout(PATIENCE, client.next()).await.expect("an echo in time");
        assert!(matches!(event, Some(Event::Message { .. })), "{event:?}");
        longest = longest.max(start.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    client.close().await;
    longest
}

async fn all_live(live: &mut UnboundedReceiver<bool>, resumed: bool) {
    for _ in 0..HERD {
        assert_eq!(timeout(PATIENCE, live.recv()).await.expect("live in time"), Some(resumed));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c22_a_herd_that_is_cut_is_back_in_time_and_nobody_else_notices() {
    let (app, seen) = echo_app().await;
    drop(seen);
    let gateway = Running::start(app, |_| {}).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = FaultProxy::start(listener, gateway.data);
    let (over, (tell, mut live)) = (CancellationToken::new(), unbounded_channel());
    let mut others: JoinSet<Duration> =
        (0..OTHERS).map(|_| other(format!("ws://{}/", gateway.data), over.clone())).collect();
    let mut herd: JoinSet<()> = (0..HERD)
        .map(|_| member(format!("ws://{}/", line.local_addr()), tell.clone(), over.clone()))
        .collect();
    all_live(&mut live, false).await;
    for _ in 0..CUTS {
        let cut = Instant::now();
        line.all().reset();
        all_live(&mut live, true).await;
        println!("all are back after {:?}", cut.elapsed());
        assert!(cut.elapsed() < BACK_MAX, "{:?}", cut.elapsed());
    }
    over.cancel();
    while let Some(member) = herd.join_next().await {
        member.unwrap();
    }
    while let Some(longest) = others.join_next().await {
        assert!(longest.unwrap() < SERVED_MAX, "somebody near waited");
    }
    assert_eq!(gateway.scrape("pulsegate_resumes_total").await, (HERD * CUTS) as u64);
    assert_eq!(gateway.scrape("pulsegate_sessions_opened_total{mode=\"v1\"}").await, (HERD + OTHERS) as u64);
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 0);
    gateway.stop().await;
}
