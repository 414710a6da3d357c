//! The event feed: replay, gaps, filters, slow readers, ends.

use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use pulsegate_core::Leg;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::kit::*;
use crate::feed::What;

/// A reader of the feed; it sees comments and ids, unlike a browser's page.
struct Reader {
    body: Incoming,
    text: String,
}

/// One block of the stream.
#[derive(Debug, Default)]
struct Block {
    id: Option<String>,
    name: Option<String>,
    data: Json,
}

impl Reader {
    async fn open(kit: &Kit, query: &str, headers: &[(&str, &str)]) -> Reader {
        let response = kit.send(Method::GET, &format!("/v1/events{query}"), headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut reader = Reader { body: response.into_body(), text: String::new() };
        let hello = reader.next().await.unwrap();
        assert!(hello.id.is_some() && hello.name.is_none(), "{hello:?}");
        reader
    }

    /// The next block; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = parse(block);
                self.text = rest.to_owned();
                return Some(block);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("something comes")?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }

    async fn name(&mut self) -> String {
        self.next().await.unwrap().name.unwrap()
    }

    async fn rest(&mut self) -> Vec<Block> {
        let mut blocks = Vec::new();
        while let Some(block) = self.next().await {
            blocks.push(block);
        }
        blocks
    }
}

fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        match line.split_once(": ").unwrap_or((line, "")) {
            ("id", id) => block.id = Some(id.to_owned()),
            ("event", name) => block.name = Some(name.to_owned()),
            ("data", data) => block.data = serde_json::from_str(data).unwrap(),
            _ => {}
        }
    }
    block
}

#[tokio::test]
async fn events_come_as_they_happen_and_carry_their_story() {
    let kit = Kit::new().await;
    let _before = kit.open(&[]);
    let mut reader = Reader::open(&kit, "", &[]).await;
    let session = kit.open(&[("room", "r")]);
    let id = session.id();
    kit.shared.feed.publish(What::SessionSuspect { id, leg: Leg::Client });
    kit.shared.feed.publish(What::SessionRecovered { id, leg: Leg::Client });
    kit.shared.feed.publish(What::SessionDead { id, leg: Leg::Client, verdict: Box::new(verdict()) });
    kit.end(&session, unreachable());
    let mut data = Vec::new();
    for (number, expected) in ["opened", "suspect", "recovered", "dead", "ended"].iter().enumerate() {
        let block = reader.next().await.unwrap();
        let name = format!("session.{expected}");
        assert_eq!(block.id.unwrap(), format!("{}-{}", kit.shared.feed.boot(), number + 2));
        assert_eq!((block.name.unwrap(), &block.data["type"]), (name.clone(), &name.into()));
        assert_eq!(block.data["session"], id.to_string());
        let at = block.data["at"].as_str().unwrap();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        data.push(block.data);
    }
    assert_eq!((&data[0]["labels"]["room"], &data[0]["path"]), (&"r".into(), &"/ws".into()));
    assert_eq!((&data[3]["cause"], &data[3]["leg"]), (&"unreachable".into(), &"client".into()));
    assert!(data[3]["verdict"]["text"].as_str().unwrap().contains("probes unanswered 3"));
    assert_eq!(data[3]["verdict"]["silent_for_seconds"], 10.02);
    assert_eq!((&data[4]["reason"], &data[4]["close"]["code"]), (&"unreachable".into(), &4408.into()));
}

#[tokio::test]
async fn a_reader_that_comes_back_gets_what_it_missed() {
    let kit = Kit::new().await;
    let ids: Vec<_> = (0..5).map(|_| kit.open(&[]).id().to_string()).collect();
    let last = format!("{}-2", kit.shared.feed.boot());
    for (query, headers) in [
        (format!("?last_event_id={last}&follow=false"), vec![]),
        ("?follow=false".into(), vec![("Last-Event-ID", &*last)]),
    ] {
        let mut reader = Reader::open(&kit, &query, &headers).await;
        let seen: Vec<_> = reader.rest().await.iter().map(|block| block.data["session"].clone()).collect();
        assert_eq!(seen, ids[2..], "{query}");
    }
    // Without a number: all that is kept, and nothing is said to be missing.
    assert_eq!(Reader::open(&kit, "?follow=false", &[]).await.rest().await.len(), 5);
}

#[tokio::test]
async fn a_reader_is_told_what_it_can_never_get() {
    let kit = Kit::with(|config| config.registry.events_max = 3, None).await;
    for _ in 0..10 {
        kit.open(&[]);
    }
    let boot = kit.shared.feed.boot();
    let ask = async |id: &str| {
        let mut reader = Reader::open(&kit, "?follow=false", &[("Last-Event-ID", id)]).await;
        let blocks = reader.rest().await;
        let gaps: Vec<_> = blocks.iter().filter(|block| block.name.as_deref() == Some("gap")).collect();
        let missed: Vec<_> = gaps.iter().map(|gap| gap.data["missed"].clone()).collect();
        (missed, blocks.len() - gaps.len(), blocks.first().map(|block| block.name.clone().unwrap()))
    };
    let (missed, events, first) = ask(&format!("{boot}-2")).await;
    assert_eq!((missed, events, first.as_deref()), (vec![5.into()], 3, Some("gap")));
    assert_eq!(ask(&format!("{boot}-7")).await.0, [] as [Json; 0]);
    assert_eq!(ask(&format!("{boot}-9")).await.1, 1);
    for foreign in [format!("{}-9", boot - 1), "x".into(), "9".into(), format!("{boot}-x")] {
        let (missed, events, first) = ask(&foreign).await;
        assert_eq!((missed, events, first.as_deref()), (vec![Json::Null], 3, Some("gap")), "{foreign}");
    }
}

#[tokio::test]
async fn a_reader_gets_what_it_asked_for() {
    let kit = Kit::new().await;
    let (one, two) = (kit.open(&[]), kit.open(&[]));
    kit.end(&one, cut());
    kit.end(&two, cut());
    kit.shared.feed.publish(What::DrainStarted { sessions: 0 });
    let ask = async |query: String| {
        let mut reader = Reader::open(&kit, &format!("?follow=false{query}"), &[]).await;
        let blocks = reader.rest().await;
        blocks.into_iter().map(|block| block.name.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ask(format!("&session={}", one.id())).await, ["session.opened", "session.ended"]);
    assert_eq!(ask("&type=drain.started".into()).await, ["drain.started"]);
    assert_eq!(ask("&type=session.ended,drain.started".into()).await.len(), 3);
    assert_eq!(ask(format!("&type=session.ended&session={}", two.id())).await, ["session.ended"]);
}

#[tokio::test]
async fn feeds_end_with_the_gateway_and_not_before_the_last_event() {
    let kit = Kit::new().await;
    let mut readers =
        vec![Reader::open(&kit, "", &[]).await, Reader::open(&kit, "?type=drain.finished", &[]).await];
    kit.shared.feed.publish(What::DrainStarted { sessions: 0 });
    assert_eq!(readers[0].name().await, "drain.started");
    kit.shared.stop.cancel();
    kit.shared.feed.publish(What::DrainFinished { left: 0 });
    kit.finish.cancel();
    for reader in &mut readers {
        assert_eq!(reader.name().await, "drain.finished");
        assert!(reader.next().await.is_none());
    }
    kit.finished().await;
}

#[tokio::test]
async fn a_place_is_free_again_when_a_reader_leaves() {
    let kit = Kit::with(|config| config.control.feeds_max = 1, None).await;
    let reader = Reader::open(&kit, "", &[]).await;
    assert_eq!(kit.get("/v1/events").await.problem(503), "feeds-max");
    assert_eq!(kit.get("/v1/stats").await.json["events"]["feeds"], 1);
    drop(reader);
    // The gateway notices the end of the connection on its own; every answer gives it a turn to.
    let left = async { while kit.get("/v1/stats").await.json["events"]["feeds"] != 0 {} };
    timeout(PATIENCE, left).await.expect("the place is free");
    Reader::open(&kit, "", &[]).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_a_bounded_amount_and_learns_its_loss() {
    /// Far more than the ring and both sockets hold.
    const EVENTS: u64 = 600;
    const EVENT_BYTES: usize = 64 * 1024;
    let kit = Kit::with(|config| config.registry.events_max = 8, None).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(kit.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    let big = "x".repeat(EVENT_BYTES);
    for _ in 0..EVENTS {
        // Each event gets the reader's task a turn; publishing itself never waits.
        kit.open(&[("big", &big)]);
        tokio::task::yield_now().await;
    }
    kit.finish.cancel();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the feed ends").unwrap();
    let text = String::from_utf8_lossy(&rest);
    let received = text.matches("event: session.opened").count() as u64;
    let missed: u64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: {\"type\":\"gap\""))
        .filter_map(|gap| gap.split_once("\"missed\":")?.1.strip_suffix('}')?.parse::<u64>().ok())
        .sum();
    assert_eq!(received + missed, EVENTS, "every event came or is known to be lost");
    assert!(missed > EVENTS / 2, "{missed} of {EVENTS} were not kept for the slow reader");
}
