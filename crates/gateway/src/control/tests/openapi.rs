//! The answers obey the promise in `docs/openapi.json`, and every route is in it.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use http::header::{ALLOW, CONTENT_TYPE};
use pulsegate_core::{Cause, Leg, Level, Outcome, Sent};
use pulsegate_heartbeat::{Doubt, Evidence, Verdict};
use serde_json::{Value as Json, json};

use super::kit::*;
use crate::control::{OPENAPI, routes};
use crate::feed::What;

fn promise() -> Json {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Checks a value against a schema of the file.
#[track_caller]
fn obeys(schema: &Json, value: &Json, what: &str) {
    let mut whole = schema.clone();
    whole["components"] = promise()["components"].clone();
    let validator = jsonschema::draft202012::new(&whole).unwrap();
    let faults: Vec<_> =
        validator.iter_errors(value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "{what}: {faults:#?}\n{value:#}");
}

/// Checks an answer against what the file says about its path, method and status.
#[track_caller]
fn answer_obeys(path: &str, method: &Method, answer: &Answer) {
    let (what, status) = (format!("{method} {path} {}", answer.status), answer.status.as_str());
    let operation = &promise()["paths"][path][method.as_str().to_lowercase()];
    let promised = &operation["responses"][status];
    assert!(promised.is_object(), "{what} is not in the file");
    let Some(content) = promised.get("content") else {
        assert!(answer.body.is_empty(), "{what} has a body");
        return;
    };
    let kind = answer.headers[CONTENT_TYPE].to_str().unwrap();
    assert!(content[kind].is_object(), "{what} is {kind}");
    obeys(&content[kind]["schema"], &answer.json, &what);
}

#[tokio::test]
async fn every_answer_obeys_the_file() {
    let dir = TempDir::new();
    let token = secret(&dir.path(""));
    let kit = Kit::with(|config| config.control.feeds_max = 1, Some(token)).await;
    let bearer = ("authorization", "Bearer 0123456789abcdef");
    let live = kit.open(&[("user", "7"), ("room", "a")]);
    let dead = [kit.open(&[]), kit.open(&[])];
    kit.end(&dead[0], unreachable());
    kit.end(&dead[1], cut());
    let _feed = kit.send(Method::GET, "/v1/events", &[bearer]).await;
    let one = "/v1/sessions/{id}";
    let unknown = "0".repeat(26);
    let (get, delete) = (Method::GET, Method::DELETE);
    let mut seen = BTreeSet::new();
    for (method, path, at, status) in [
        (&get, "/v1/sessions", "/v1/sessions?limit=1".to_owned(), 200),
        (&get, "/v1/sessions", "/v1/sessions?limit=x".into(), 400),
        (&get, one, format!("/v1/sessions/{}", live.id()), 200),
        (&get, one, format!("/v1/sessions/{}?x=y", live.id()), 400),
        (&get, one, format!("/v1/sessions/{unknown}"), 404),
        (&get, one, format!("/v1/sessions/{}", dead[0].id()), 410),
        (&get, one, format!("/v1/sessions/{}", dead[1].id()), 410),
        (&delete, one, format!("/v1/sessions/{}?code=1", live.id()), 400),
        (&delete, one, format!("/v1/sessions/{unknown}"), 404),
        (&delete, one, format!("/v1/sessions/{}", dead[0].id()), 410),
        (&delete, one, format!("/v1/sessions/{}", live.id()), 204),
        (&get, "/v1/events", "/v1/events?type=x".into(), 400),
        (&get, "/v1/events", "/v1/events".into(), 503),
        (&get, "/v1/stats", "/v1/stats".into(), 200),
        (&get, "/v1/config", "/v1/config".into(), 200),
        (&get, "/openapi.json", "/openapi.json".into(), 200),
    ] {
        let answer = kit.ask(method.clone(), &at, &[bearer]).await;
        assert_eq!(answer.status, status, "{at}");
        answer_obeys(path, method, &answer);
        seen.insert((path, method.as_str(), status));
        for (header, status) in
            [(("host", "evil.example"), 403), (("origin", "null"), 403), (("x", "y"), 401)]
        {
            let refused = kit.ask(method.clone(), &at, &[header]).await;
            assert_eq!(refused.status, status, "{at} {header:?}");
            answer_obeys(path, method, &refused);
        }
    }
    // The stream has a test of its own; the cap on connections needs no answer of the router's.
    seen.extend(every_answer_about_messages(&kit, bearer).await);
    let all = operations();
    let open: Vec<_> = all
        .iter()
        .filter(|(path, method, status)| {
            !seen.contains(&(path.as_str(), method.as_str(), *status)) && ![401, 403, 503].contains(status)
        })
        .collect();
    let config = ("/v1/config".to_owned(), "GET".to_owned(), 400);
    let stats = ("/v1/stats".to_owned(), "GET".to_owned(), 400);
    let events = ("/v1/events".to_owned(), "GET".to_owned(), 200);
    assert_eq!(open, [&config, &events, &stats], "answers of the file that nothing asked for");
}

/// Asks for each answer that there is about messages; a session without a task keeps them as they are.
async fn every_answer_about_messages(
    kit: &Kit,
    bearer: (&str, &str),
) -> BTreeSet<(&'static str, &'static str, u16)> {
    const ONE: &str = "/v1/sessions/{id}/messages";
    const MANY: &str = "/v1/messages";
    const MESSAGE: &str = "/v1/messages/{id}";
    let session = kit.open(&[]);
    let gone = kit.open(&[]);
    kit.end(&gone, cut());
    let here = format!("/v1/sessions/{}/messages", session.id());
    let there = format!("/v1/sessions/{}/messages", gone.id());
    let nowhere = format!("/v1/sessions/{}/messages", "0".repeat(26));
    let text = ("content-type", "text/plain");
    let key = ("idempotency-key", "k");
    let wait = ("prefer", "wait=10");
    let large = vec![b'x'; 300_000];
    let mut seen = BTreeSet::new();
    let mut told = Vec::new();
    for (path, at, headers, body, status) in [
        (ONE, &here, vec![text], &b"one"[..], 202),
        (ONE, &format!("{here}?x=y"), vec![text], b"", 400),
        (ONE, &here, vec![text, ("pulsegate-ttl", "soon")], b"", 400),
        (ONE, &here, vec![text], b"\xff", 400),
        (ONE, &nowhere, vec![text], b"", 404),
        (ONE, &there, vec![text], b"", 410),
        (ONE, &here, vec![text], &large, 413),
        (ONE, &here, vec![("content-type", "image/png")], b"", 415),
        (ONE, &here, vec![text, ("pulsegate-level", "handled")], b"", 422),
        (ONE, &here, vec![text, key], b"two", 202),
        (ONE, &here, vec![text, key], b"three", 422),
        (MANY, &"/v1/messages?all=true".to_owned(), vec![text], b"four", 202),
        (MANY, &"/v1/messages".to_owned(), vec![text], b"", 400),
        (MANY, &"/v1/messages?all=true".to_owned(), vec![text, key], b"", 400),
        (MANY, &"/v1/messages?all=true".to_owned(), vec![text], &large, 413),
        (MANY, &"/v1/messages?all=true".to_owned(), vec![("content-type", "image/png")], b"", 415),
        (MANY, &"/v1/messages?all=true".to_owned(), vec![text, ("pulsegate-level", "handled")], b"", 202),
    ] {
        let answer = kit.post(at, &[&headers[..], &[bearer]].concat(), body).await;
        assert_eq!(answer.status, status, "{at} {headers:?} {answer:?}");
        answer_obeys(path, &Method::POST, &answer);
        seen.insert((path, "POST", status));
        told.push(answer);
    }
    // While one request waits another with its key has to come back; then the message has its end.
    let headers = [text, key, wait, bearer];
    let claimed = kit.message(&told[9]).take().unwrap();
    let answer = kit.post(&here, &headers, b"two").await;
    assert_eq!(answer.status, 409);
    answer_obeys(ONE, &Method::POST, &answer);
    drop(claimed);
    let settle = async { kit.settle(&told[9], Outcome::Delivered(Level::Received)) };
    let (answer, ()) = tokio::join!(kit.post(&here, &headers, b"two"), settle);
    assert_eq!(answer.status, 200);
    answer_obeys(ONE, &Method::POST, &answer);
    let expired = [text, ("idempotency-key", "late"), bearer];
    let late = kit.post(&here, &expired, b"late").await;
    kit.settle(&late, Outcome::Expired { sent: Sent::Maybe, reached: Some(Level::Kernel) });
    let answer = kit.post(&here, &expired, b"late").await;
    assert_eq!(answer.status, 504, "{answer:?}");
    answer_obeys(ONE, &Method::POST, &answer);
    let refused = [text, ("idempotency-key", "refused"), bearer];
    let answer = kit.post(&here, &refused, b"refused").await;
    kit.settle(&answer, Outcome::Rejected);
    let answer = kit.post(&here, &refused, b"refused").await;
    assert_eq!((answer.status.as_u16(), &answer.json["message"]["status"]), (422, &"rejected".into()));
    answer_obeys(ONE, &Method::POST, &answer);
    let full = loop {
        let answer = kit.post(&here, &[text, bearer], &large[..250_000]).await;
        if answer.status != 202 {
            break answer;
        }
    };
    assert_eq!(full.status, 429);
    answer_obeys(ONE, &Method::POST, &full);
    for (at, status) in [
        (told[0].headers["location"].to_str().unwrap().to_owned(), 200),
        (late.headers["location"].to_str().unwrap().to_owned(), 200),
        (format!("/v1/messages/{}?x=y", "0".repeat(26)), 400),
        (format!("/v1/messages/{}", "0".repeat(26)), 404),
    ] {
        let answer = kit.ask(Method::GET, &at, &[bearer]).await;
        assert_eq!(answer.status, status, "{at}");
        answer_obeys(MESSAGE, &Method::GET, &answer);
        seen.insert((MESSAGE, "GET", status));
    }
    seen.extend([200, 409, 429, 504].map(|status| (ONE, "POST", status)));
    seen
}

/// Path, method and status of every answer in the file.
fn operations() -> BTreeSet<(String, String, u16)> {
    let mut all = BTreeSet::new();
    for (path, item) in promise()["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for status in operation["responses"].as_object().unwrap().keys() {
                all.insert((path.clone(), method.to_uppercase(), status.parse().unwrap()));
            }
        }
    }
    all
}

#[tokio::test]
async fn every_event_obeys_the_file() {
    let kit = Kit::new().await;
    let session = kit.open(&[("user", "7")]);
    let id = session.id();
    kit.shared.feed.publish(What::SessionSuspect { id, leg: Leg::App });
    kit.shared.feed.publish(What::SessionRecovered { id, leg: Leg::App });
    kit.shared.feed.publish(What::SessionDead { id, leg: Leg::Client, verdict: Box::new(verdict()) });
    kit.shared.feed.publish(What::SessionConfirmed { id, level: Level::Kernel, messages: 7 });
    kit.shared.feed.publish(What::MessageSettled {
        id: kit.shared.registry.next_message(),
        session: id,
        requested: Level::Received,
        outcome: Outcome::Delivered(Level::Received),
        elapsed: Duration::from_millis(3),
    });
    kit.shared.feed.publish(What::SessionDetached { id, why: "page_frozen" });
    kit.shared.feed.publish(What::SessionResumed {
        id,
        peer: "127.0.0.1:7".parse().unwrap(),
        outage: Duration::from_millis(1500),
        to_client: 3,
    });
    kit.shared.feed.publish(What::SessionAppDetached { id, why: "1006 app connection lost".into() });
    kit.shared.feed.publish(What::SessionAppResumed { id, outage: Duration::from_millis(1500), again: 3 });
    kit.end(&session, unreachable());
    let other = kit.open(&[]);
    kit.end(&other, cut());
    kit.shared.feed.publish(What::DrainStarted { sessions: 1 });
    kit.shared.feed.publish(What::DrainFinished { left: 1 });
    let types: BTreeSet<_> =
        obedient_events(&kit).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    let promised = promise()["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap().len();
    assert_eq!(types.len(), promised, "{types:?}");
}

/// Reads the feed from its beginning; each event obeys the file.
async fn obedient_events(kit: &Kit) -> Vec<Json> {
    let answer = kit.get("/v1/events?follow=false&last_event_id=0-0").await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let promise = promise();
    let schema =
        &promise["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Json> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    for event in &events {
        obeys(schema, event, "an event");
    }
    events
}

/// What a verdict rests on decides which of its fields say nothing; each such shape is one the file knows.
#[tokio::test]
async fn every_shape_of_a_verdict_obeys_the_file() {
    let given_up = Verdict { evidence: vec![Evidence::SocketTimeout], kernel: None, ..verdict() };
    let stalled = Verdict {
        cause: Cause::WriteStalled,
        evidence: vec![Evidence::StalledWrite, Evidence::AcknowledgingKernel],
        probes_unanswered: 0,
        probes_sent: Vec::new(),
        write_stalled_for: Some(Duration::from_secs(10)),
        ..verdict()
    };
    let frozen = Verdict { cause: Cause::Frozen, behind_proxy: true, round_trip: None, ..verdict() };
    let doubted = Doubt::ALL.map(|doubt| Verdict { doubt: Some(doubt), withheld: 1, ..verdict() });
    let all = [vec![verdict(), given_up, stalled, frozen], doubted.to_vec()].concat();
    let kit = Kit::new().await;
    let id = kit.open(&[]).id();
    for one in &all {
        let verdict = Box::new(one.clone());
        kit.shared.feed.publish(What::SessionDead { id, leg: Leg::Client, verdict });
    }
    let events = obedient_events(&kit).await;
    let told: Vec<_> = events.iter().map(|event| &event["verdict"]).filter(|told| told.is_object()).collect();
    assert_eq!(told.len(), all.len());
    // All the words of the file were used, and no others: here they are all known.
    let schemas = &promise()["components"]["schemas"];
    let fields = &schemas["Verdict"]["properties"];
    let evidence = told.iter().flat_map(|told| told["evidence"].as_array().unwrap());
    assert_eq!(words(evidence), words(fields["evidence"]["items"]["enum"].as_array().unwrap()));
    let doubts = told.iter().map(|told| &told["doubt"]);
    assert_eq!(words(doubts), words(fields["doubt"]["enum"].as_array().unwrap()));
    let causes = told.iter().map(|told| &told["cause"]);
    assert_eq!(words(causes), words(schemas["Cause"]["enum"].as_array().unwrap()));
    for example in schemas["Verdict"]["examples"].as_array().unwrap() {
        obeys(&json!({ "$ref": "#/components/schemas/Verdict" }), example, "an example");
    }
}

fn words<'a>(values: impl IntoIterator<Item = &'a Json>) -> BTreeSet<String> {
    values.into_iter().map(Json::to_string).collect()
}

#[tokio::test]
async fn the_file_and_the_router_know_the_same_routes() {
    let promise = promise();
    assert_eq!(promise["openapi"], "3.1.0");
    let promised = promise["paths"].as_object().unwrap();
    let routed: BTreeSet<_> = routes().into_iter().map(|(path, _)| path.to_owned()).collect();
    assert_eq!(routed, promised.keys().cloned().collect());
    let kit = Kit::new().await;
    let known = json!(problem_types(&promise));
    for (path, item) in promised {
        let mut methods: BTreeSet<_> =
            item.as_object().unwrap().keys().map(|name| name.to_uppercase()).collect();
        if methods.contains("GET") {
            // HTTP asks for it there.
            methods.insert("HEAD".into());
        }
        let answer = kit.ask(Method::PATCH, &path.replace("{id}", "x"), &[]).await;
        assert_eq!(answer.problem(405), "method-not-allowed");
        let allow = answer.headers[ALLOW].to_str().unwrap();
        assert_eq!(allow.split(',').map(str::to_owned).collect::<BTreeSet<_>>(), methods, "{path}");
        assert!(known.as_array().unwrap().contains(&answer.json["type"]));
        obeys(&json!({ "$ref": "#/components/schemas/ProblemMethodNotAllowed" }), &answer.json, path);
    }
    let answer = kit.get("/nowhere").await;
    obeys(&json!({ "$ref": "#/components/schemas/ProblemNotFound" }), &answer.json, "404");
}

fn problem_types(promise: &Json) -> Vec<Json> {
    promise["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap().clone()
}
