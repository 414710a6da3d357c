//! A line that is cut after N bytes, for every N of a session, and of the connection on which it comes back (C7 of the fault
//! list): an ACK or a count that is wrong by one anywhere shows here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pulsegate_chaos::{ConnectionId, ConnectionInfo, Direction, FaultProxy};
use pulsegate_client::{Client, ClientConfig, Event, Payload};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::kit::{PATIENCE, Running};

/// Where the first connection is cut, so that there is one to come back on: greeted, and in the middle of all.
const MIDDLE: Cut = (Direction::ToTarget, 500);

/// Whoever was cut comes back within this, if there is anything left to do.
const LAST_ONE_MAX: Duration = Duration::from_secs(1);

/// Sessions at a time.
const TOGETHER: usize = 16;

/// Sizes around which the head of a frame changes its form, and an empty one; text and binary by turns.
const SIZES: [usize; 8] = [1, 0, 2, 125, 0, 126, 127, 3];

/// When so many bytes have passed this way, the connection ends.
type Cut = (Direction, usize);

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

/// One session whose first connections are cut, each when so many bytes have passed on it; returns how many passed on the
/// one after them, per direction.
async fn session(gateway: SocketAddr, came: Came, cuts: Vec<Cut>) -> [u64; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = FaultProxy::start(listener, gateway);
    // Each is held until its fault is set.
    line.all().freeze();
    let path = format!("/{}", line.local_addr().port());
    let config = ClientConfig {
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(50),
        ..ClientConfig::default()
    };
    let mut client = Client::connect(&format!("ws://{}{path}", line.local_addr()), config).unwrap();
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
    let faulty = spoil(&line, &cuts);
    let (passed, echoed) = tokio::join!(faulty, listen(&mut client, &cuts));
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| panic!("{cuts:?}: no outcome")).unwrap();
    assert_eq!(echoed, all(), "{cuts:?}: what the client got");
    // Whoever was cut before WELCOME began another session, and had said nothing in the one before.
    let connections = came.lock().unwrap().remove(&path).unwrap();
    let with_words: Vec<_> = connections.into_iter().filter(|came| !came.is_empty()).collect();
    assert_eq!(with_words, [all()], "{cuts:?}: what the app got");
    let last = passed.and_then(|id| line.connections().into_iter().find(|one| one.id == id));
    let passed = last.map(|one| [one.to_target.forwarded_bytes, one.to_client.forwarded_bytes]);
    client.close().await;
    passed.unwrap_or_default()
}

/// Lets the connections of a line come one by one, each with its cut, and the rest without; returns which is the first of
/// these, if it came to that.
async fn spoil(line: &FaultProxy, cuts: &[Cut]) -> Option<ConnectionId> {
    let mut latest = None;
    for place in 0..=cuts.len() {
        let is_new =
            |connections: &[ConnectionInfo]| connections.last().is_some_and(|one| Some(one.id) > latest);
        // The last cut may be behind the last word.
        let coming = timeout(LAST_ONE_MAX, line.connections_when(is_new)).await.ok()?;
        latest = Some(coming.last()?.id);
        let one = line.connection(latest?)?;
        match cuts.get(place) {
            Some((direction, bytes)) => {
                one.cut_after(*direction, *bytes as u64);
                one.thaw();
            }
            None => line.all().thaw(),
        }
    }
    latest
}

/// Takes events until all has come.
async fn listen(client: &mut Client, cuts: &[Cut]) -> Vec<Payload> {
    let mut echoed = Vec::new();
    while echoed.len() < SIZES.len() {
        let event = timeout(PATIENCE, client.next()).await.unwrap_or_else(|_| panic!("{cuts:?}: {echoed:?}"));
        match event.expect("it lives") {
            Event::Message { text: true, payload, .. } => {
                echoed.push(Payload::Text(String::from_utf8(payload.to_vec()).unwrap()));
            }
            Event::Message { text: false, payload, .. } => echoed.push(Payload::Binary(payload.to_vec())),
            event @ (Event::Reset { .. } | Event::Unsupported | Event::Closed { .. }) => {
                panic!("{cuts:?}: {event:?}");
            }
            Event::Live { .. } | Event::Detached => {}
        }
    }
    echoed
}

/// Runs a session for each cut behind those that come before; returns how many there were.
async fn for_every_byte(gateway: &Running, came: &Came, before: &[Cut]) -> u64 {
    // How long a connection is that nobody cuts.
    let whole = session(gateway.data, Arc::clone(came), before.to_vec()).await;
    assert!(whole.iter().all(|&bytes| bytes > 300), "{whole:?} bytes");
    let (mut sessions, mut count) = (JoinSet::new(), 0);
    for (direction, bytes) in Direction::BOTH.into_iter().zip(whole) {
        for cut in 0..=bytes as usize {
            if sessions.len() == TOGETHER {
                let _: [u64; 2] = sessions.join_next().await.unwrap().unwrap();
            }
            let cuts = [before, &[(direction, cut)]].concat();
            sessions.spawn(session(gateway.data, Arc::clone(came), cuts));
            count += 1;
        }
    }
    sessions.join_all().await;
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_wherever_the_line_is_cut_both_sides_get_all_once_and_in_order() {
    let came = Came::default();
    let app = echo_app(Arc::clone(&came)).await;
    let gateway = Running::start(app, |_| {}).await;
    let count = for_every_byte(&gateway, &came, &[]).await;
    let resumes = gateway.scrape("pulsegate_resumes_total").await;
    // The others were cut in their handshake, or behind the last word.
    assert!(resumes * 2 > count, "{resumes} of {count} came back");
    let again = for_every_byte(&gateway, &came, &[MIDDLE]).await;
    println!("{count} cuts of a first connection, {again} of a second one");
    assert!(gateway.scrape("pulsegate_resumes_total").await >= resumes + again, "each came back");
    assert_eq!(gateway.scrape("pulsegate_resume_failures_total").await, 0);
    gateway.stop().await;
}
