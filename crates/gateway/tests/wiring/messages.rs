//! Messages to clients: those of the app are confirmed, and those of the control API have one true outcome each.

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::kit::{PATIENCE, Running, app_frame, bare_pair, frame, read_frame, read_rest};

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT: u8 = 0x81;

/// Asks the control API by hand; returns status and JSON.
pub(crate) async fn ask(gateway: &Running, head: &str, body: &[u8]) -> (u16, Json) {
    let mut stream = TcpStream::connect(gateway.control).await.unwrap();
    let length = body.len();
    let request =
        format!("{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let answer = String::from_utf8(timeout(PATIENCE, read_rest(&mut stream)).await.unwrap()).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_default())
}

async fn sessions(gateway: &Running) -> Vec<Json> {
    let (_, page) = ask(gateway, "GET /v1/sessions HTTP/1.1", b"").await;
    page["items"].as_array().unwrap().clone()
}

/// The only session; it is there soon after both handshakes.
pub(crate) async fn session(gateway: &Running) -> Json {
    let first = async {
        loop {
            if let Some(session) = sessions(gateway).await.pop() {
                return session;
            }
        }
    };
    timeout(PATIENCE, first).await.expect("a session")
}

/// Waits until the session's delivery looks so.
pub(crate) async fn until(gateway: &Running, is_so: impl Fn(&Json) -> bool) -> Json {
    let start = Instant::now();
    loop {
        let delivery = session(gateway).await["delivery"].clone();
        if is_so(&delivery) {
            return delivery;
        }
        assert!(start.elapsed() < PATIENCE, "{delivery}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn send(gateway: &Running, headers: &str, body: &str) -> (u16, Json) {
    let id = session(gateway).await["id"].as_str().unwrap().to_owned();
    let head = format!("POST /v1/sessions/{id}/messages HTTP/1.1\r\nContent-Type: text/plain{headers}");
    ask(gateway, &head, body.as_bytes()).await
}

/// Reads frames and answers pings until the connection ends; returns the data frames.
async fn obedient(mut client: TcpStream) -> Vec<Vec<u8>> {
    let mut data = Vec::new();
    while let Ok(first) = client.read_u8().await {
        let second = client.read_u8().await.unwrap();
        let mut payload = vec![0; usize::from(second & 0x7f)];
        client.read_exact(&mut payload).await.unwrap();
        match first {
            PING => client.write_all(&frame(PONG, &payload)).await.unwrap(),
            0x88 => return data,
            _ => data.push(payload),
        }
    }
    data
}

#[tokio::test]
async fn messages_of_the_app_are_confirmed_as_far_as_the_client_tells() {
    let (gateway, client, mut app) = bare_pair(|_| {}).await;
    let reading = tokio::spawn(obedient(client));
    for _ in 0..3 {
        app.write_all(&app_frame(TEXT, b"hello")).await.unwrap();
    }
    let delivery = until(&gateway, |told| told["received"] == 3).await;
    assert_eq!(delivery["kernel"], 3);
    assert_eq!(
        (&delivery["unacked_messages"], &delivery["oldest_unacked_seconds"]),
        (&0.into(), &Json::Null)
    );
    assert_eq!(gateway.scrape("pulsegate_barriers_sent_total").await, 1, "one ping answers for all");
    let received = "pulsegate_deliveries_settled_total{direction=\"to_client\",outcome=\"delivered\",level=\"received\"}";
    assert_eq!(gateway.scrape(received).await, 3);
    assert_eq!(gateway.scrape("pulsegate_deliveries_accepted_total").await, 3);
    drop(app);
    assert_eq!(reading.await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_an_app_says_right_before_it_closes_is_confirmed_as_well() {
    let (gateway, client, mut app) = bare_pair(|_| {}).await;
    let reading = tokio::spawn(obedient(client));
    for _ in 0..3 {
        app.write_all(&app_frame(TEXT, b"hello")).await.unwrap();
    }
    app.write_all(&app_frame(0x88, &1000u16.to_be_bytes())).await.unwrap();
    assert_eq!(reading.await.unwrap().len(), 3);
    let settled = "pulsegate_deliveries_settled_total{direction=\"to_client\"";
    let start = Instant::now();
    while gateway.scrape(settled).await < 3 {
        assert!(start.elapsed() < PATIENCE);
    }
    let received = format!("{settled},outcome=\"delivered\",level=\"received\"}}");
    assert_eq!(gateway.scrape(&received).await, 3);
    assert_eq!(gateway.scrape("pulsegate_barriers_sent_total").await, 1);
}

#[tokio::test]
async fn of_a_client_that_answers_no_ping_only_the_kernel_is_known() {
    let (gateway, mut client, mut app) =
        bare_pair(|config| config.liveness.verdict_after = Some(PATIENCE)).await;
    app.write_all(&app_frame(TEXT, b"hello")).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (TEXT, b"hello".to_vec()));
    assert_eq!(read_frame(&mut client).await.0, PING);
    let delivery = until(&gateway, |told| told["kernel"] == 1).await;
    assert_eq!((&delivery["received"], &delivery["unacked_messages"]), (&0.into(), &1.into()));
    drop(client);
    let lost = "pulsegate_deliveries_settled_total{direction=\"to_client\",outcome=\"expired_maybe_sent\",level=\"none\"}";
    let start = Instant::now();
    while gateway.scrape(lost).await == 0 {
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn no_ping_of_ours_goes_between_the_fragments_of_a_message() {
    let interval = Duration::from_millis(200);
    let (gateway, mut client, mut app) =
        bare_pair(|config| config.delivery.confirm_interval = interval).await;
    app.write_all(&app_frame(TEXT, b"whole")).await.unwrap();
    app.write_all(&app_frame(0x01, b"begin")).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (TEXT, b"whole".to_vec()));
    assert_eq!(read_frame(&mut client).await, (0x01, b"begin".to_vec()));
    // A message of ours has to wait as well.
    let (status, message) = send(&gateway, "", "between").await;
    assert_eq!((status, &message["status"]), (202, &"queued".into()));
    assert!(timeout(interval * 5, client.read_u8()).await.is_err(), "nothing may come now");
    app.write_all(&app_frame(0x80, b"end")).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (0x80, b"end".to_vec()));
    assert_eq!(read_frame(&mut client).await, (TEXT, b"between".to_vec()));
    assert_eq!(read_frame(&mut client).await.0, PING);
}

#[tokio::test]
async fn whoever_waits_is_told_that_it_arrived() {
    let (gateway, client, app) = bare_pair(|_| {}).await;
    let reading = tokio::spawn(obedient(client));
    let (status, told) = send(&gateway, "\r\nPrefer: wait=10", "for you").await;
    assert_eq!((status, &told["status"], &told["level"]), (200, &"delivered".into(), &"received".into()));
    assert!(told["elapsed_ms"].as_f64().unwrap() < 1000.0, "nobody waits for a timer: {told}");
    let (status, again) =
        ask(&gateway, &format!("GET /v1/messages/{} HTTP/1.1", told["id"].as_str().unwrap()), b"").await;
    assert_eq!((status, again), (200, told));
    drop(app);
    assert_eq!(reading.await.unwrap(), [b"for you"]);
}

#[tokio::test]
async fn the_same_key_sends_one_message() {
    let (gateway, client, app) = bare_pair(|_| {}).await;
    let reading = tokio::spawn(obedient(client));
    let headers = "\r\nPrefer: wait=10\r\nIdempotency-Key: k1";
    let (first, second) = (send(&gateway, headers, "once").await, send(&gateway, headers, "once").await);
    assert_eq!(first.0, 200);
    assert_eq!(first, second);
    assert_eq!(send(&gateway, headers, "twice").await.0, 422);
    let id = first.1["session"].as_str().unwrap().to_owned();
    drop(app);
    assert_eq!(reading.await.unwrap(), [b"once"]);
    while !sessions(&gateway).await.is_empty() {}
    // Who did not get the answer asks again, and must not think that nothing was sent.
    let head = format!("POST /v1/sessions/{id}/messages HTTP/1.1\r\nContent-Type: text/plain{headers}");
    assert_eq!(ask(&gateway, &head, b"once").await, first);
}

#[tokio::test]
async fn a_client_that_vanishes_settles_all_at_once() {
    let (gateway, mut client, app) = bare_pair(|_| {}).await;
    let id = session(&gateway).await["id"].as_str().unwrap().to_owned();
    let head =
        format!("POST /v1/sessions/{id}/messages HTTP/1.1\r\nContent-Type: text/plain\r\nPrefer: wait=10");
    let waiting = ask(&gateway, &head, b"too late");
    let vanish = async {
        assert_eq!(read_frame(&mut client).await, (TEXT, b"too late".to_vec()));
        drop(client);
    };
    let ((status, problem), ()) = tokio::join!(waiting, vanish);
    assert_eq!(status, 504, "{problem}");
    let message = &problem["message"];
    assert_eq!((&message["status"], &message["sent"]), (&"expired".into(), &"maybe".into()), "{problem}");
    // Once the app has taken leave of it, the session is over for whoever comes later.
    drop(app);
    while !sessions(&gateway).await.is_empty() {}
    let (status, problem) = ask(&gateway, &head, b"later").await;
    assert_eq!((status, &problem["session"]["delivered"]["sent"]), (410, &1.into()), "{problem}");
}

/// A client that takes nothing: what has no place before its time is over never leaves.
#[tokio::test]
async fn a_message_that_can_not_leave_in_time_never_does() {
    let (gateway, mut client, mut app) = bare_pair(|_| {}).await;
    let chunk = app_frame(0x82, &[7; 125]).repeat(1000);
    while timeout(Duration::from_millis(300), app.write_all(&chunk)).await.is_ok() {}
    let (status, problem) = send(&gateway, "\r\nPulsegate-Ttl: 200ms\r\nPrefer: wait=10", "never").await;
    assert_eq!((status, &problem["message"]["sent"]), (504, &"no".into()), "{problem}");
    drop(app);
    let everything = timeout(PATIENCE, read_rest(&mut client)).await.unwrap();
    assert!(!everything.windows(5).any(|bytes| bytes == b"never"));
}

#[tokio::test]
async fn a_message_to_many_goes_to_those_with_the_label() {
    let (gateway, client, app) = bare_pair(|config| {
        config.registry.labels.insert("room".to_owned(), "query:room".to_owned());
    })
    .await;
    let reading = tokio::spawn(obedient(client));
    let post = |query: &str| format!("POST /v1/messages?{query} HTTP/1.1\r\nContent-Type: text/plain");
    assert_eq!(ask(&gateway, &post("state=live"), b"x").await.0, 400);
    let (status, told) = ask(&gateway, &post("label.room=nowhere"), b"x").await;
    assert_eq!((status, &told["accepted"]), (202, &0.into()));
    let (status, told) = ask(&gateway, &post("all=true"), b"all").await;
    assert_eq!((status, &told["accepted"]), (202, &1.into()));
    until(&gateway, |delivery| delivery["received"] == 1).await;
    drop(app);
    assert_eq!(reading.await.unwrap(), [b"all"]);
}
