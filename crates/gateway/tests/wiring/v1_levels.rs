//! How far a message of the control API has come with a client that speaks `pulsegate.v1`, and acknowledges nothing.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::timeout;

use crate::kit::{PATIENCE, Running};
use crate::messages::{ask, send};
use crate::v1_kit::{Got, Line, gateway, until_state};

const RECEIVED: &str = "\r\nPrefer: wait=0\r\nPulsegate-Level: received";
const KERNEL: &str = "\r\nPrefer: wait=5\r\nPulsegate-Level: kernel";

async fn end_of(gateway: &Running, message: &Json) -> Json {
    let head = format!("GET /v1/messages/{} HTTP/1.1", message["id"].as_str().unwrap());
    timeout(PATIENCE, async {
        loop {
            let (_, told) = ask(gateway, &head, b"").await;
            if told["status"] != "sent" && told["status"] != "queued" {
                break told;
            }
        }
    })
    .await
    .expect("an end")
}

#[tokio::test]
async fn what_the_stack_has_read_is_received_and_what_its_kernel_has_is_there() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    let (status, told) = send(&gateway, KERNEL, "nobody reads").await;
    assert_eq!((status, &told["level"]), (200, &"kernel".into()), "{told}");

    let (status, told) = send(&gateway, RECEIVED, "soon").await;
    assert_eq!((status, &told["status"]), (202, &"sent".into()), "{told}");
    line.expect_text("nobody reads").await;
    line.expect_text("soon").await;
    // The ping behind it is answered while the line waits for more; its code says nothing.
    let told = tokio::select! {
        told = end_of(&gateway, &told) => told,
        got = line.read_message() => panic!("{got:?}"),
    };
    assert_eq!((&told["status"], &told["level"]), (&"delivered".into(), &"received".into()), "{told}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_client_has_when_it_comes_back_its_stack_has_read() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let mut line = Line::open(&gateway).await;
    let (_, told) = send(&gateway, RECEIVED, "news").await;
    assert_eq!(line.read_message().await, Got::Text("news".to_owned()));
    let token = line.token.clone();
    drop(line);
    let (_stream, _) = Line::resume(&gateway, &token, 1).await;
    let told = end_of(&gateway, &told).await;
    assert_eq!((&told["status"], &told["level"]), (&"delivered".into(), &"received".into()), "{told}");
    assert_eq!(told["attempts"], 1);
    gateway.stop().await;
}

#[tokio::test]
async fn what_a_client_lacks_is_written_again_and_counted() {
    let (gateway, _seen) = gateway(|_| {}).await;
    let line = Line::open(&gateway).await;
    let (_, told) = send(&gateway, RECEIVED, "news").await;
    let token = line.token.clone();
    drop(line);
    let (stream, got) = Line::resume(&gateway, &token, 0).await;
    let mut line = Line::welcomed(stream, got, true, 0, 1);
    line.expect_text("news").await;
    let told = tokio::select! {
        told = end_of(&gateway, &told) => told,
        got = line.read_message() => panic!("{got:?}"),
    };
    assert_eq!((&told["level"], &told["attempts"]), (&"received".into(), &2.into()), "{told}");
    gateway.stop().await;
}

#[tokio::test]
async fn of_a_client_that_never_comes_back_it_is_told_how_far_its_messages_came() {
    let (gateway, _seen) = gateway(|config| config.v1.resume_window = Duration::from_millis(300)).await;
    let line = Line::open(&gateway).await;
    let (_, first) = send(&gateway, RECEIVED, "one").await;
    // The kernel has what came before, too.
    let (status, _) = send(&gateway, KERNEL, "two").await;
    assert_eq!(status, 200);
    drop(line);
    until_state(&gateway, "detached", 1).await;
    let (_, unsent) = send(&gateway, RECEIVED, "three").await;
    let told = end_of(&gateway, &first).await;
    assert_eq!(
        (&told["status"], &told["sent"], &told["level"]),
        (&"expired".into(), &"maybe".into(), &"kernel".into()),
        "{told}"
    );
    let told = end_of(&gateway, &unsent).await;
    assert_eq!((&told["sent"], &told["level"]), (&"no".into(), &Json::Null), "{told}");
    gateway.stop().await;
}
