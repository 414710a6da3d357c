//! Clients that speak `pulsegate.v1` over lines that are cut at any time: what each side gets is what the other sent.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::kit::{PATIENCE, Running};

const CLIENTS: usize = 12;
const MESSAGES: u32 = 400;

/// What became of one connection to the app: the numbers that came, in order.
type Came = Vec<u32>;

/// An app that sends numbers and takes numbers; each connection is one client's, for all its life.
async fn counting_app(reports: UnboundedSender<Came>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(count(stream, reports.clone()));
        }
    });
    address
}

async fn count(stream: TcpStream, reports: UnboundedSender<Came>) {
    let (mut write, mut read) = tokio_tungstenite::accept_async(stream).await.unwrap().split();
    let writing = tokio::spawn(async move {
        for number in 1..=MESSAGES {
            write.feed(message(number)).await.unwrap();
            write.flush().await.unwrap();
            if number % 8 == 0 {
                sleep(Duration::from_millis(3)).await;
            }
        }
        write
    });
    let mut came = Vec::new();
    while came.len() < MESSAGES as usize
        && let Some(Ok(message)) = read.next().await
    {
        if message.is_text() || message.is_binary() {
            came.push(number(&message.into_data()));
        }
    }
    reports.send(came).unwrap();
    let _write = writing.await.unwrap();
    while let Some(Ok(_)) = read.next().await {}
}

/// Text and binary in turn, of all sizes.
fn message(number: u32) -> Message {
    let text = text(number);
    if number.is_multiple_of(2) { Message::text(text) } else { Message::binary(text.into_bytes()) }
}

fn text(number: u32) -> String {
    format!("{number} {}", "x".repeat((number as usize * 37) % 3000))
}

fn number(payload: &[u8]) -> u32 {
    let text = std::str::from_utf8(payload).unwrap();
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(text, self::text(number), "every byte");
    number
}

/// Sends and takes numbers, while somebody cuts the line again and again.
async fn talk(url: String, seed: u64) -> Came {
    let mut random = fastrand::Rng::with_seed(seed);
    let config = ClientConfig { backoff_min: Duration::from_millis(10), ..ClientConfig::default() };
    let mut client = Client::connect(&url, config).unwrap();
    let sender = client.sender();
    let sending = tokio::spawn(async move {
        for number in 1..=MESSAGES {
            let payload = match number % 2 {
                0 => Payload::Text(text(number)),
                _ => Payload::Binary(text(number).into_bytes()),
            };
            sender.send(payload).await.unwrap();
        }
        sender.deliver(Payload::Text("0 ".into()), None).await
    });
    let mut came = Vec::new();
    let mut next_cut = random.usize(20..60);
    while came.len() < MESSAGES as usize {
        match timeout(PATIENCE, client.next()).await.expect("something in time").expect("it lives") {
            Event::Message { payload, .. } => came.push(number(&payload)),
            Event::Reset { .. } | Event::Unsupported | Event::Closed { .. } => panic!("the session is lost"),
            Event::Live { .. } | Event::Detached => {}
        }
        if came.len() >= next_cut {
            next_cut += random.usize(20..60);
            client.drop_connection().await;
        }
    }
    // The last one is acknowledged, and with it all before it.
    timeout(PATIENCE, sending).await.expect("an end in time").unwrap().unwrap();
    client.close().await;
    came
}

async fn all(reports: &mut UnboundedReceiver<Came>) -> Vec<Came> {
    let mut all = Vec::new();
    while all.len() < CLIENTS {
        all.push(timeout(PATIENCE, reports.recv()).await.expect("the app got all").unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_out_of_order_however_often_the_line_is_cut() {
    let (report, mut reports) = unbounded_channel();
    let app = counting_app(report).await;
    let gateway = Running::start(app, |config| config.v1.window_messages = 32).await;
    let url = format!("ws://{}/", gateway.data);
    let mut talks: JoinSet<Came> = (0..CLIENTS as u64).map(|seed| talk(url.clone(), seed)).collect();
    let expected: Came = (1..=MESSAGES).collect();
    while let Some(came) = talks.join_next().await {
        assert_eq!(came.unwrap(), expected);
    }
    for came in all(&mut reports).await {
        assert_eq!(came, expected);
    }
    let resumes = gateway.scrape("pulsegate_resumes_total").await;
    assert!(resumes > CLIENTS as u64 * 4, "{resumes} times is no test");
    assert_eq!(gateway.scrape("pulsegate_sessions_opened_total{mode=\"v1\"}").await, CLIENTS as u64);
    gateway.stop().await;
}
