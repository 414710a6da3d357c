//! `pulsegate events`

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::Value as Json;
use tokio::time::timeout;

use super::api::Api;
use super::client::{Client, escape, refusal};
use super::exit::{self, Failure};
use super::output::{Format, Output, print, say};
use super::sse::Reader;
use super::table::{clean, short_time};

/// First pause before coming back; it doubles up to [`PAUSE_MAX`], and is shortened by up to a half at
/// random so that many readers don't come back at once.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The gateway says something every 15 s; after three times that it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Bytes of a refusal that are read.
const PROBLEM_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) api: Api,
    #[command(flatten)]
    pub(super) format: Format,
    /// Goes on with what happens; `--follow=false` ends after the events that are kept
    #[arg(
        long,
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true,
        action = clap::ArgAction::Set,
        env = "PULSEGATE_EVENTS_FOLLOW"
    )]
    pub(super) follow: bool,
    /// Begins after this event
    #[arg(long, value_name = "ID", env = "PULSEGATE_EVENTS_LAST_EVENT_ID")]
    pub(super) last_event_id: Option<String>,
    /// Only events of this session
    #[arg(long, value_name = "ID", env = "PULSEGATE_EVENTS_SESSION")]
    pub(super) session: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    tokio::select! {
        result = follow(&arguments) => result,
        // Ctrl-C is how one stops watching, no failure.
        Ok(()) = tokio::signal::ctrl_c() => Ok(exit::OK),
    }
}

/// How a feed ended.
enum End {
    /// The gateway ended it.
    Ended,
    /// It broke off.
    Broken(Failure),
}

async fn follow(arguments: &Arguments) -> Result<u8, Failure> {
    let client = Client::new(&arguments.api)?;
    let mut path = format!("/v1/events?follow={}", arguments.follow);
    if let Some(session) = &arguments.session {
        path.push_str(&format!("&session={}", escape(session)));
    }
    let mut last_id = arguments.last_event_id.clone();
    let mut pause = PAUSE_MIN;
    let mut connected = false;
    loop {
        let why = match open(&client, &path, last_id.as_deref()).await {
            Ok(mut feed) => {
                (connected, pause) = (true, PAUSE_MIN);
                let end = copy(&client, &mut feed, &mut last_id, arguments.format.output).await?;
                match end {
                    End::Ended if !arguments.follow => return Ok(exit::OK),
                    End::Ended => "the gateway ended the feed".to_owned(),
                    End::Broken(failure) if !arguments.follow => return Err(failure),
                    End::Broken(failure) => failure.message,
                }
            }
            // What fails at once is told at once, and so is what no patience mends.
            Err(refused) if !connected || refused.code != exit::CONTROL_UNREACHABLE => return Err(refused),
            Err(refused) => refused.message,
        };
        let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        say(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn open(client: &Client, path: &str, last_id: Option<&str>) -> Result<Incoming, Failure> {
    let response = client.send(Method::GET, path, last_id).await?;
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(response.into_body());
    }
    let body = Limited::new(response.into_body(), PROBLEM_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let refused = refusal(status, &serde_json::from_slice(&body).unwrap_or_default());
    if status.is_server_error() { Err(client.unreachable(refused.message)) } else { Err(refused) }
}

/// Prints events until the feed ends; fails only where printing does.
async fn copy(
    client: &Client,
    feed: &mut Incoming,
    last_id: &mut Option<String>,
    output: Output,
) -> Result<End, Failure> {
    let mut reader = Reader::default();
    loop {
        let bytes = match timeout(SILENCE_MAX, feed.frame()).await {
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(error))) => return Ok(End::Broken(client.unreachable(error))),
            Ok(None) => return Ok(End::Ended),
            Err(_) => return Ok(End::Broken(client.unreachable("the feed fell silent"))),
        };
        let Ok(messages) = reader.handle_bytes(&bytes) else {
            return Ok(End::Broken(client.unreachable("an event without end")));
        };
        for message in messages {
            match output {
                Output::Json => print(&format!("{}\n", message.data))?,
                Output::Table => print(&line(&serde_json::from_str(&message.data).unwrap_or_default()))?,
            }
        }
        if let Some(id) = reader.last_id() {
            *last_id = Some(id.to_owned());
        }
    }
}

/// One event as a line.
fn line(event: &Json) -> String {
    let text = |value: &Json| clean(value.as_str().unwrap_or("-"));
    let kind = text(&event["type"]);
    let words = match kind.as_str() {
        "session.opened" => format!("{} {}", text(&event["client"]), text(&event["path"])),
        "session.suspect" | "session.recovered" => text(&event["leg"]),
        "session.dead" => format!("{} {}", text(&event["leg"]), text(&event["verdict"]["text"])),
        "session.ended" => {
            let who = event["leg"].as_str().map(|leg| format!(" by {}", clean(leg))).unwrap_or_default();
            let age = short_time(event["duration_seconds"].as_f64().unwrap_or_default());
            format!("{}{who} after {age}", text(&event["reason"]))
        }
        "drain.started" => format!("{} sessions", event["sessions"]),
        "drain.finished" => format!("{} sessions left", event["left"]),
        "gap" if event["missed"].is_null() => "events may be missing".into(),
        "gap" => format!("{} events are missing", event["missed"]),
        _ => String::new(),
    };
    let words = words.trim_end();
    format!("{} {kind:17} {:26} {words}\n", text(&event["at"]), text(&event["session"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_that_gives_a_terminal_no_orders() {
        let id = "01arz3ndektsv4rrffq69g5fav";
        let at = "2026-11-02T10:00:00.123Z";
        let opened = json!({
            "type": "session.opened", "at": at, "session": id, "client": "10.0.0.9", "path": "/\u{1b}[2J\n",
        });
        assert_eq!(line(&opened), format!("{at} session.opened    {id} 10.0.0.9 /\\u{{1b}}[2J\\n\n"));
        let ended = json!({
            "type": "session.ended", "at": at, "session": id, "reason": "closed", "leg": "client",
            "duration_seconds": 61.2,
        });
        assert_eq!(line(&ended), format!("{at} session.ended     {id} closed by client after 1m 1s\n"));
        let gap = json!({ "type": "gap", "at": at, "missed": 7 });
        assert!(line(&gap).ends_with("7 events are missing\n"));
    }
}
