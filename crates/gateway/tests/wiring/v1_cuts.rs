//! A line that is cut after N bytes, for every N of a session (C7 of the fault list): an ACK or a count that is wrong by
//! one anywhere shows here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pulsegate_chaos::{Direction, FaultProxy};
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::kit::{PATIENCE, Running};

/// Every so many bytes, unless `PULSEGATE_EVERY_BYTE` is set.
const STRIDE: usize = 5;

/// Sessions at a time.
const TOGETHER: usize = 16;

/// Sizes around which the head of a frame changes its form, and an empty one; text and binary by turns.
const SIZES: [usize; 8] = [1, 0, 2, 125, 0, 126, 127, 3];

/// What came on each connection to the app, by the path of its client.
type Came = Arc<Mutex<HashMap<String, Vec<Vec<Payload>>>>>;

fn message(number: usize) -> Payload {
    let byte = b'a' + number as u8;
    match number % 2 {
        0 => Payload::Binary(vec![byte; SIZES[number]]),
        _ => Payload::Text(String::from_utf8(vec![byte; SIZES[number]]).unwrap()),
    }
}

fn all() -> Vec<Payload> {
    (0..SIZES.len()).map(message).collect()
}

async fn echo_app(came: Came) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, Arc::clone(&came)));
        }
    });
    address
}

async fn echo(stream: TcpStream, came: Came) {
    let mut path = String::new();
    #[allow(clippy::result_large_err, reason = "the type is tungstenite's")]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, note).await else { return };
    let place = {
        let mut came = came.lock().unwrap();
        let connections = came.entry(path.clone()).or_default();
        connections.push(Vec::new());
        connections.len() - 1
    };
    while let Some(Ok(message)) = socket.next().await {
        let payload = match &message {
            message if message.is_text() => Payload::Text(message.to_text().unwrap().to_owned()),
            message if message.is_binary() => Payload::Binary(message.clone().into_data().to_vec()),
            _ => continue,
        };
        came.lock().unwrap().get_mut(&path).unwrap()[place].push(payload);
        if socket.feed(message).await.is_err() || socket.flush().await.is_err() {
            return;
        }
    }
}

/// One session whose first connection is cut when so many bytes have passed; returns how many passed on it, per
/// direction.
async fn session(gateway: SocketAddr, came: Came, cut: Option<(Direction, usize)>) -> (u64, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = FaultProxy::start(listener, gateway);
    // Held until the fault is set, for the first connection alone.
    line.all().freeze();
    let path = format!("/{}", line.local_addr().port());
    let config = ClientConfig {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let mut client = Client::connect(&format!("ws://{}{path}", line.local_addr()), config).unwrap();
    let first = line.connections_when(|connections| !connections.is_empty()).await[0].id;
    if let Some((direction, bytes)) = cut {
        line.connection(first).unwrap().cut_after(direction, bytes as u64);
    }
    line.all().thaw();
    let sender = client.sender();
    let sending = tokio::spawn(async move {
        let mut deliveries = Vec::new();
        for payload in all() {
            deliveries.push(sender.begin_delivery(payload, None).await.unwrap());
        }
        for delivery in deliveries {
            delivery.end().await.expect("its session is never lost");
        }
    });
    let mut echoed = Vec::new();
    while echoed.len() < SIZES.len() {
        let event = timeout(PATIENCE, client.next()).await.unwrap_or_else(|_| panic!("{cut:?}: {echoed:?}"));
        match event.expect("it lives") {
            Event::Message { text: true, payload, .. } => {
                echoed.push(Payload::Text(String::from_utf8(payload.to_vec()).unwrap()));
            }
            Event::Message { text: false, payload, .. } => echoed.push(Payload::Binary(payload.to_vec())),
            event @ (Event::Reset { .. } | Event::Unsupported | Event::Closed { .. }) => {
                panic!("{cut:?}: {event:?}")
            }
            Event::Live { .. } | Event::Detached => {}
        }
    }
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| panic!("{cut:?}: no outcome")).unwrap();
    assert_eq!(echoed, all(), "{cut:?}: what the client got");
    let passed = line
        .connections()
        .iter()
        .find(|one| one.id == first)
        .map(|one| (one.to_target.forwarded_bytes, one.to_client.forwarded_bytes));
    // Whoever was cut before WELCOME began another session, and had said nothing in the one before.
    let connections = came.lock().unwrap().remove(&path).unwrap();
    let with_words: Vec<_> = connections.into_iter().filter(|came| !came.is_empty()).collect();
    assert_eq!(with_words, [all()], "{cut:?}: what the app got");
    client.close().await;
    passed.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_wherever_the_line_is_cut_both_sides_get_all_once_and_in_order() {
    let came = Came::default();
    let app = echo_app(Arc::clone(&came)).await;
    let gateway = Running::start(app, |_| {}).await;
    // How long a session is that nobody cuts.
    let (to_gateway, to_client) = session(gateway.data, Arc::clone(&came), None).await;
    assert!(to_gateway > 600 && to_client > 600, "{to_gateway} and {to_client} bytes");
    let stride = if std::env::var_os("PULSEGATE_EVERY_BYTE").is_some() { 1 } else { STRIDE };
    let cuts = [(Direction::ToTarget, to_gateway), (Direction::ToClient, to_client)];
    let cuts = cuts.into_iter().flat_map(|(direction, bytes)| {
        (0..=bytes as usize).step_by(stride).map(move |bytes| (direction, bytes))
    });
    let (mut sessions, mut count) = (JoinSet::new(), 0);
    for cut in cuts {
        if sessions.len() == TOGETHER {
            let _: (u64, u64) = sessions.join_next().await.unwrap().unwrap();
        }
        sessions.spawn(session(gateway.data, Arc::clone(&came), Some(cut)));
        count += 1;
    }
    sessions.join_all().await;
    let resumes = gateway.scrape("pulsegate_resumes_total").await;
    println!("{count} cuts of {to_gateway} and {to_client} bytes, {resumes} resumes");
    // The others were cut in their handshake, or behind the last word.
    assert!(resumes * 2 > count, "{resumes} of {count} came back");
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 0);
    gateway.stop().await;
}
