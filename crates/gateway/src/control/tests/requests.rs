//! Requests and their answers.

use std::collections::BTreeSet;

use http::Method;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, HOST, RETRY_AFTER};
use pulsegate_core::{CloseFrame, EndReason, Leg};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::kit::*;
use crate::config::ControlAddr;
use crate::control::{ControlError, ControlListener, serve};

#[tokio::test]
async fn sessions_are_listed_in_pages_and_filtered() {
    let kit = Kit::new().await;
    let sessions: Vec<_> =
        (0..7).map(|n| kit.open(&[("room", if n % 2 == 0 { "a b" } else { "c" })])).collect();
    let (mut seen, mut path) = (Vec::new(), "/v1/sessions?limit=3".to_owned());
    loop {
        let page = kit.get(&path).await.json;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/sessions?limit=3&cursor={next}");
    }
    assert_eq!(seen, sessions.iter().map(|session| session.id().to_string()).collect::<Vec<_>>());
    let count = async |query: &str| {
        let page = kit.get(&format!("/v1/sessions?{query}")).await;
        assert_eq!(page.status, 200, "{query}");
        page.json["items"].as_array().unwrap().len()
    };
    assert_eq!(count("label.room=a%20b").await, 4);
    assert_eq!(count("label.room=c&state=live").await, 3);
    assert_eq!(count("state=suspect").await, 0);
    assert_eq!(count("label.room=c&label.user=u").await, 0);
}

#[tokio::test]
async fn bad_parameters_are_named() {
    let kit = Kit::new().await;
    let session = kit.open(&[]);
    let one = format!("/v1/sessions/{}", session.id());
    for (method, path, name) in [
        (Method::GET, "/v1/sessions?stat=live".to_owned(), "stat"),
        (Method::GET, "/v1/sessions?state=dead".into(), "state"),
        (Method::GET, "/v1/sessions?state=live&state=live".into(), "state"),
        (Method::GET, "/v1/sessions?limit=0".into(), "limit"),
        (Method::GET, "/v1/sessions?limit=1001".into(), "limit"),
        (Method::GET, "/v1/sessions?limit=x".into(), "limit"),
        (Method::GET, "/v1/sessions?cursor=7".into(), "cursor"),
        (Method::GET, "/v1/sessions?label.=x".into(), "label."),
        (Method::GET, "/v1/sessions?label.a=x&label.a=y".into(), "label.a"),
        (Method::GET, format!("{one}?verbose=1"), "verbose"),
        (Method::DELETE, format!("{one}?code=1001"), "code"),
        (Method::DELETE, format!("{one}?code=2999"), "code"),
        (Method::DELETE, format!("{one}?code=5000"), "code"),
        (Method::DELETE, format!("{one}?code=70000"), "code"),
        (Method::DELETE, format!("{one}?reason={}", "x".repeat(124)), "reason"),
        (Method::GET, "/v1/events?session=x".into(), "session"),
        (Method::GET, "/v1/events?type=session.open".into(), "type"),
        (Method::GET, "/v1/events?follow=perhaps".into(), "follow"),
        (Method::GET, "/v1/stats?x=".into(), "x"),
        (Method::GET, "/v1/config?x=".into(), "x"),
    ] {
        let answer = kit.ask(method, &path, &[]).await;
        assert_eq!(answer.problem(400), "invalid-parameter", "{path}");
        assert_eq!(answer.json["parameter"], name, "{path}");
    }
    assert!(session.order().is_none());
}

#[tokio::test]
async fn a_session_is_there_then_gone_and_never_was() {
    let kit = Kit::new().await;
    let session = kit.open(&[("user", "7")]);
    session.entry.leg(Leg::Client).count(3, 70);
    let path = format!("/v1/sessions/{}", session.id());
    let answer = kit.get(&path).await;
    assert_eq!((answer.status.as_u16(), &answer.json["state"]), (200, &"live".into()));
    assert_eq!(answer.json["legs"]["client"]["messages"], 3);
    assert_eq!(answer.json["labels"]["user"], "7");
    assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
    kit.end(&session, unreachable());
    for method in [Method::GET, Method::DELETE] {
        let answer = kit.ask(method.clone(), &path, &[]).await;
        assert_eq!(answer.problem(410), "session-ended");
        let tombstone = &answer.json["session"];
        assert_eq!((&tombstone["reason"], &tombstone["leg"]), (&"unreachable".into(), &"client".into()));
        assert_eq!(tombstone["close"]["code"], 4408);
        assert_eq!(tombstone["legs"]["client"]["bytes"], 70);
        assert!(tombstone["verdict"].as_str().unwrap().contains("probes unanswered 3"));
        assert!(answer.json["detail"].as_str().unwrap().starts_with("unreachable: peer declared dead"));
        for unknown in ["0".repeat(26), "x".into(), "%ff".into()] {
            let answer = kit.ask(method.clone(), &format!("/v1/sessions/{unknown}"), &[]).await;
            assert_eq!(answer.problem(404), "session-unknown");
        }
    }
}

#[tokio::test]
async fn a_kick_is_an_order_to_the_sessions_task() {
    let kit = Kit::new().await;
    for (query, code, reason) in [
        (String::new(), 1008, "kicked".to_owned()),
        ("?code=4001&reason=take%20a%20break".into(), 4001, "take a break".into()),
        ("?code=1000&reason=".into(), 1000, String::new()),
        (format!("?code=3000&reason={}", "x".repeat(123)), 3000, "x".repeat(123)),
    ] {
        let session = kit.open(&[]);
        let path = format!("/v1/sessions/{}{query}", session.id());
        let answer = kit.ask(Method::DELETE, &path, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
        let frame = CloseFrame::new(code, &reason);
        let order = session.order().unwrap();
        assert_eq!(format!("{order} }}"), format!("reason: {:?}, frame: {frame:?}", EndReason::Kicked));
        let again = kit.ask(Method::DELETE, &path, &[]).await;
        assert_eq!(again.status, 204, "it is ending already");
    }
}

#[tokio::test]
async fn wrong_methods_and_paths_are_told_apart_and_head_has_no_body() {
    let kit = Kit::new().await;
    let answer = kit.ask(Method::POST, "/v1/sessions", &[]).await;
    assert_eq!(answer.problem(405), "method-not-allowed");
    assert_eq!(answer.headers[ALLOW], "GET,HEAD");
    let answer = kit.ask(Method::PUT, "/v1/sessions/x", &[]).await;
    assert_eq!(answer.problem(405), "method-not-allowed");
    let allow: BTreeSet<_> = answer.headers[ALLOW].to_str().unwrap().split(',').collect();
    assert_eq!(allow, ["DELETE", "GET", "HEAD"].into());
    for path in ["/", "/v1", "/v1/sessions/", "/v2/sessions", "/v1/sessions/a/b"] {
        assert_eq!(kit.get(path).await.problem(404), "not-found", "{path}");
    }
    for path in ["/v1/sessions", "/v1/stats", "/v1/config", "/openapi.json", "/v1/events", "/nowhere"] {
        let answer = kit.ask(Method::HEAD, path, &[]).await;
        assert_eq!(answer.status, if path == "/nowhere" { 404 } else { 200 }, "{path}");
        assert!(answer.body.is_empty(), "{path}");
    }
    let length = kit.ask(Method::HEAD, "/openapi.json", &[]).await.headers[CONTENT_LENGTH].clone();
    assert_eq!(length, kit.get("/openapi.json").await.body.len().to_string());
}

#[tokio::test]
async fn strangers_stay_outside() {
    let change = |config: &mut crate::config::Config| {
        config.control.origins = vec!["https://board.example".into()];
        config.control.hosts = vec!["gate.example".into()];
    };
    let kit = Kit::with(change, None).await;
    let session = kit.open(&[]);
    let path = format!("/v1/sessions/{}", session.id());
    let rebound = kit.ask(Method::DELETE, &path, &[("host", "evil.example")]).await;
    assert_eq!(rebound.problem(403), "host-not-allowed");
    let foreign = kit.ask(Method::DELETE, &path, &[("origin", "https://evil.example")]).await;
    assert_eq!(foreign.problem(403), "origin-not-allowed");
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
    assert!(session.order().is_none());
    // An unknown path says no more to a stranger than a known one.
    assert_eq!(
        kit.ask(Method::GET, "/x", &[("host", "evil.example")]).await.problem(403),
        "host-not-allowed"
    );
    let listed = kit.ask(Method::GET, "/v1/stats", &[("origin", "https://board.example")]).await;
    assert_eq!(listed.status, 200);
    assert_eq!(listed.headers["access-control-allow-origin"], "https://board.example");
    assert_eq!(kit.ask(Method::GET, "/v1/stats", &[("host", "gate.example")]).await.status, 200);
}

#[tokio::test]
async fn with_a_token_nobody_gets_in_without_it() {
    let dir = TempDir::new();
    let change =
        |config: &mut crate::config::Config| config.control.origins = vec!["https://board.example".into()];
    let kit = Kit::with(change, Some(secret(&dir.path("")))).await;
    for path in ["/v1/sessions", "/v1/events", "/v1/config", "/openapi.json", "/nowhere"] {
        let answer = kit.get(path).await;
        assert_eq!(answer.problem(401), "token-required", "{path}");
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        let wrong = kit.ask(Method::GET, path, &[("authorization", "Bearer 0123456789abcdeX")]).await;
        assert_eq!(wrong.problem(401), "token-required");
    }
    let bearer = ("authorization", "Bearer 0123456789abcdef");
    let config = kit.ask(Method::GET, "/v1/config", &[bearer]).await;
    assert_eq!(config.status, 200);
    assert!(!String::from_utf8_lossy(&config.body).contains(TOKEN));
    // A browser asks without the token whether it may ask with it.
    let origin = ("origin", "https://board.example");
    let preflight = [origin, ("access-control-request-method", "DELETE")];
    let answer = kit.ask(Method::OPTIONS, "/v1/sessions/x", &preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.headers["access-control-allow-origin"], "https://board.example");
    assert!(answer.headers["access-control-allow-methods"].to_str().unwrap().contains("DELETE"));
    assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("Authorization"));
    assert_eq!(kit.ask(Method::OPTIONS, "/v1/sessions/x", &[origin]).await.status, 401);
}

#[tokio::test]
async fn without_a_token_only_this_machine_may_be_served() {
    let dir = TempDir::new();
    let token = secret(&dir.path(""));
    let bind = async |address: &str| {
        let address = ControlAddr::Tcp(address.parse().unwrap());
        ControlListener::bind(&address).await.unwrap().unwrap()
    };
    let open = bind("0.0.0.0:0").await;
    assert!(matches!(open.check_token(None), Err(ControlError::TokenMissing(_))));
    assert!(open.check_token(Some(&token)).is_ok());
    assert!(bind("127.0.0.1:0").await.check_token(None).is_ok());
}

#[tokio::test]
async fn a_unix_socket_serves_too_and_is_gone_at_the_end() {
    let kit = Kit::new().await;
    let dir = TempDir::new();
    let path = dir.path("control.sock");
    let listener = ControlListener::bind(&ControlAddr::Unix(path.clone())).await.unwrap().unwrap();
    let finish = CancellationToken::new();
    let task = tokio::spawn(serve(kit.shared.clone(), listener, None, finish.clone()));
    let stream = UnixStream::connect(&path).await.unwrap();
    assert_eq!(send(stream, Method::GET, "/v1/stats", &[]).await.status(), 200);
    finish.cancel();
    timeout(PATIENCE, task).await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn stats_tell_what_runs() {
    let kit = Kit::new().await;
    let (_one, two) = (kit.open(&[]), kit.open(&[]));
    kit.end(&two, cut());
    let stats = kit.get("/v1/stats").await.json;
    assert_eq!((&stats["sessions"]["live"], &stats["sessions"]["remembered"]), (&1.into(), &1.into()));
    assert_eq!(
        (&stats["draining"], &stats["liveness"]["silence_max_seconds"]),
        (&false.into(), &10.0.into())
    );
    assert!(stats["events"]["last"].as_str().unwrap().ends_with("-3"));
    kit.shared.stop.cancel();
    assert_eq!(kit.get("/v1/stats").await.json["draining"], true);
}

#[tokio::test]
async fn bad_heads_and_too_many_connections_are_refused() {
    let change = |config: &mut crate::config::Config| {
        config.limits.header_bytes_max = 8 * 1024;
        config.limits.header_timeout = std::time::Duration::from_millis(50);
        config.control.feeds_max = 1;
    };
    let kit = Kit::with(change, None).await;
    let large = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(9 * 1024));
    assert!(exchange(&kit, &large).await.starts_with("HTTP/1.1 431"));
    assert!(exchange(&kit, "nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    assert_eq!(exchange(&kit, "GET / HTTP/1.1\r\nHost: loc").await, "", "a slow head is cut off");
    let missing = exchange(&kit, "GET /v1/stats HTTP/1.0\r\n\r\n").await;
    assert!(missing.starts_with("HTTP/1.0 403"), "{missing}");
    let twice = format!("GET / HTTP/1.1\r\n{HOST}: localhost\r\n{HOST}: evil.example\r\n\r\n");
    assert!(exchange(&kit, &twice).await.starts_with("HTTP/1.1 403"));
    let _feed = kit.send(Method::GET, "/v1/events", &[]).await;
    let refused = kit.get("/v1/events").await;
    assert_eq!(refused.problem(503), "feeds-max");
    assert!(refused.headers.contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn a_body_that_can_not_be_read_is_not_called_too_large() {
    let kit = Kit::with(|_| {}, None).await;
    let session = kit.open(&[]);
    let head = format!("POST /v1/sessions/{}/messages HTTP/1.1\r\nHost: localhost", session.id());
    let broken = format!("{head}\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    let answer = exchange(&kit, &broken).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(":body-incomplete\""), "{answer}");
}

#[tokio::test]
async fn waits_have_places_of_their_own_and_whoever_gets_none_is_told_where_to_ask() {
    let change = |config: &mut crate::config::Config| config.control.waits_max = 1;
    let kit = Kit::with(change, None).await;
    let session = kit.open(&[]);
    let here = format!("/v1/sessions/{}/messages", session.id());
    let long = [("content-type", "text/plain"), ("prefer", "wait=20")];
    let first = kit.post(&here, &[("content-type", "text/plain"), ("prefer", "wait=1")], b"one");
    let second = async {
        // The first has the place once its message is there.
        while kit
            .shared
            .metrics
            .render(&Default::default())
            .contains("accepted_total{direction=\"to_client\"} 0")
        {
            tokio::task::yield_now().await;
        }
        let answer = kit.post(&here, &long, b"two").await;
        assert_eq!((answer.status.as_u16(), &answer.json["status"]), (202, &"queued".into()));
        assert!(
            answer.headers.contains_key("location") && !answer.headers.contains_key("preference-applied")
        );
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(
        (first.status.as_u16(), &first.headers["preference-applied"]),
        (202, &"wait=1".parse().unwrap())
    );
}

/// Sends bytes, and reads until the gateway hangs up.
async fn exchange(kit: &Kit, bytes: &str) -> String {
    let mut stream = TcpStream::connect(kit.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset right behind the answer is as good an end as any.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the gateway hangs up");
    String::from_utf8(answer).unwrap()
}
