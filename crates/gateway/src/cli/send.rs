//! `pulsegate sessions send`

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value as Json;

use super::api::Api;
use super::client::{Client, escape, refusal};
use super::exit::{self, Failure};
use super::output::{Format, Output, print, print_json, say};
use super::table::clean;
use crate::config::parse_duration;

#[derive(Debug, clap::Args)]
pub(super) struct Send {
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    format: Format,
    /// The session's id
    id: String,
    /// The message; without it and without --file it is read from stdin
    #[arg(conflicts_with = "file")]
    text: Option<String>,
    /// A file with the message
    #[arg(long, value_name = "FILE", env = "PULSEGATE_SEND_FILE")]
    file: Option<PathBuf>,
    /// Sends a binary frame, not a text frame
    #[arg(long, env = "PULSEGATE_SEND_BINARY")]
    binary: bool,
    /// Waits so long for the outcome, at most a minute
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "PULSEGATE_SEND_WAIT")]
    wait: Option<Duration>,
    /// How far the message has to come: kernel, received or handled
    #[arg(long, env = "PULSEGATE_SEND_LEVEL")]
    level: Option<String>,
    /// How long it may wait until it leaves
    #[arg(long, value_name = "DURATION", env = "PULSEGATE_SEND_TTL")]
    ttl: Option<String>,
    /// Sends nothing anew if a message with this key was sent before
    #[arg(long, value_name = "KEY", env = "PULSEGATE_SEND_IDEMPOTENCY_KEY")]
    idempotency_key: Option<String>,
}

pub(super) async fn send(order: &Send) -> Result<u8, Failure> {
    let client = Client::new(&order.api)?;
    let path = format!("/v1/sessions/{}/messages", escape(&order.id));
    let wait = order.wait.unwrap_or_default();
    let (status, answer) = client.post(&path, headers(order)?, payload(order)?, wait).await?;
    let shown = match status {
        StatusCode::OK | StatusCode::ACCEPTED => &answer,
        StatusCode::GATEWAY_TIMEOUT => &answer["message"],
        _ => return Err(refusal(status, &answer)),
    };
    match order.format.output {
        Output::Json => print_json(shown)?,
        Output::Table => print(&in_words(shown))?,
    }
    match status {
        StatusCode::OK => Ok(exit::OK),
        StatusCode::ACCEPTED if order.wait.is_none() => Ok(exit::OK),
        StatusCode::ACCEPTED => {
            say("it has no end yet; GET /v1/messages/ID tells of it later");
            Ok(exit::FAILURE)
        }
        _ => Err(refusal(status, &answer)),
    }
}

fn payload(order: &Send) -> Result<Bytes, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::new(exit::USAGE, format!("the message can't be read: {error}"));
    if let Some(text) = &order.text {
        return Ok(Bytes::from(text.clone()));
    }
    if let Some(path) = &order.file {
        return std::fs::read(path).map(Bytes::from).map_err(unreadable);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Bytes::from(bytes))
}

fn headers(order: &Send) -> Result<HeaderMap, Failure> {
    let kind = if order.binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    // Whole seconds: that is all that the header can say.
    let wait = order.wait.map(|wait| format!("wait={}", wait.as_secs_f64().ceil()));
    let told = [
        ("content-type", Some(kind)),
        ("prefer", wait.as_deref()),
        ("pulsegate-level", order.level.as_deref()),
        ("pulsegate-ttl", order.ttl.as_deref()),
        ("idempotency-key", order.idempotency_key.as_deref()),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in told.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let value = HeaderValue::from_str(value)
            .map_err(|_| Failure::new(exit::USAGE, format!("{name}: it is not visible ASCII")))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    Ok(headers)
}

/// One line: what became of it.
fn in_words(message: &Json) -> String {
    let word = |name: &str| clean(message[name].as_str().unwrap_or("-"));
    let elapsed = message["elapsed_ms"].as_f64().map(|ms| format!(" after {ms:.1} ms")).unwrap_or_default();
    match (message["level"].as_str(), message["sent"].as_str()) {
        (Some(level), None) => format!("{} {} ({}){elapsed}\n", word("id"), word("status"), clean(level)),
        (level, Some(sent)) => {
            let reached = clean(level.unwrap_or("none"));
            format!("{} {} (sent: {}; known: {reached}){elapsed}\n", word("id"), word("status"), clean(sent))
        }
        (None, None) => format!("{} {}\n", word("id"), word("status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_outcome_is_one_line() {
        let told = |status: &str, level: Json, sent: Json, elapsed: Json| {
            in_words(
                &json!({ "id": "01", "status": status, "level": level, "sent": sent, "elapsed_ms": elapsed }),
            )
        };
        let none = || Json::Null;
        assert_eq!(told("queued", none(), none(), none()), "01 queued\n");
        assert_eq!(
            told("delivered", json!("received"), none(), json!(1.26)),
            "01 delivered (received) after 1.3 ms\n"
        );
        let maybe = told("expired", json!("kernel"), json!("maybe"), json!(9.0));
        assert_eq!(maybe, "01 expired (sent: maybe; known: kernel) after 9.0 ms\n");
    }
}
