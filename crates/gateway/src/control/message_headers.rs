//! What the headers of a request say about the message in it.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pulsegate_core::Level;

use crate::config::{Delivery, parse_duration};
use crate::problem::Problem;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const LEVEL: HeaderName = HeaderName::from_static("pulsegate-level");
const TTL: HeaderName = HeaderName::from_static("pulsegate-ttl");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest wait that a request may ask for.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest time that a message may wait for its place.
const TTL_MAX: Duration = Duration::from_secs(3600);

const KEY_BYTES_MAX: usize = 255;

/// What the sender wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wishes {
    /// As far as the message has to come.
    pub(super) level: Level,
    /// How long it may wait until it leaves.
    pub(super) ttl: Duration,
    /// How long the sender waits for the outcome; `None`: not at all.
    pub(super) wait: Option<Duration>,
    pub(super) key: Option<Box<str>>,
}

impl Wishes {
    /// # Errors
    /// A header that says nothing that can be done.
    pub(super) fn of(headers: &HeaderMap, limits: &Delivery) -> Result<Wishes, Problem> {
        Ok(Wishes {
            level: read(headers, &LEVEL, level)?.unwrap_or(Level::Received),
            ttl: read(headers, &TTL, ttl)?.unwrap_or(limits.ttl),
            wait: headers.get_all(PREFER).iter().find_map(wait),
            key: read(headers, &KEY, key)?,
        })
    }
}

impl Wishes {
    /// Refuses a key where it says nothing.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn without_key(self) -> Result<Wishes, Problem> {
        if self.key.is_some() { Err(unusable(&KEY, "it works for one session alone")) } else { Ok(self) }
    }
}

/// Reads a header that may come once.
fn read<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Problem> {
    let bad = |why: &str| unusable(name, why);
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("it is given more than once"));
    }
    let text = value.to_str().map_err(|_| bad("it is not visible ASCII"))?;
    read(text.trim()).map(Some).map_err(|why| bad(&why))
}

fn unusable(name: &HeaderName, why: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-header", "A header can't be used")
        .detail(format!("{name}: {why}"))
        .member("header", name.as_str())
}

fn level(text: &str) -> Result<Level, String> {
    Level::ALL
        .into_iter()
        .find(|level| level.as_str() == text)
        .ok_or_else(|| "kernel, received or handled is expected".into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(ttl) if ttl <= TTL_MAX => Ok(ttl),
        Ok(_) => Err("an hour is the most".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

fn key(text: &str) -> Result<Box<str>, String> {
    // A string of RFC 9651, or the bare words that most send.
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if (1..=KEY_BYTES_MAX).contains(&bare.len()) {
        Ok(bare.into())
    } else {
        Err(format!("1 to {KEY_BYTES_MAX} characters are expected"))
    }
}

/// `wait` among the preferences (RFC 7240 section 4.3), at most [`WAIT_MAX`]; others are passed over, as that RFC wants.
fn wait(value: &HeaderValue) -> Option<Duration> {
    let preferences = value.to_str().ok()?.split(',');
    let seconds = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("wait")
            .then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
    });
    seconds.map(Duration::from_secs).map(|wait| wait.min(WAIT_MAX)).next()
}

/// Returns whether content of this type goes as a text frame.
///
/// # Errors
/// It is neither text nor bytes.
pub(super) fn read_kind(content_type: Option<&HeaderValue>) -> Result<bool, Problem> {
    let told = content_type.map(|value| value.to_str().unwrap_or_default().to_ascii_lowercase());
    let essence = told.as_deref().map(|told| told.split(';').next().unwrap_or_default().trim());
    match essence {
        // RFC 9110 section 8.3: who does not say what it is may be taken to send bytes.
        None | Some("application/octet-stream") => Ok(false),
        Some("application/json") => Ok(true),
        Some(text) if text.starts_with("text/") || text.ends_with("+json") => Ok(true),
        Some(_) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content-type-unsupported",
            "This content is neither text nor bytes",
        )
        .detail("text/* and JSON go as a text frame, application/octet-stream as a binary one")
        .member("header", CONTENT_TYPE.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn wishes(lines: &[(&'static str, &'static str)]) -> Result<Wishes, String> {
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Wishes::of(&headers, &Config::default().delivery)
            .map_err(|problem| String::from_utf8(problem.into_response().into_body().to_vec()).unwrap())
    }

    #[test]
    fn nothing_said_is_received_within_the_default_and_nobody_waits() {
        let ttl = Config::default().delivery.ttl;
        assert_eq!(wishes(&[]), Ok(Wishes { level: Level::Received, ttl, wait: None, key: None }));
    }

    #[test]
    fn what_is_said_is_taken() {
        let told = wishes(&[
            ("prefer", "respond-async, wait=7; x=y"),
            ("pulsegate-level", "kernel"),
            ("pulsegate-ttl", "1m30s"),
            ("idempotency-key", "\"a b\""),
        ]);
        let ttl = Duration::from_secs(90);
        let wait = Some(Duration::from_secs(7));
        assert_eq!(told, Ok(Wishes { level: Level::Kernel, ttl, wait, key: Some("a b".into()) }));
        assert_eq!(wishes(&[("prefer", "wait=9999")]).unwrap().wait, Some(WAIT_MAX));
        assert_eq!(wishes(&[("prefer", "wait=soon")]).unwrap().wait, None);
    }

    #[test]
    fn what_can_not_be_done_is_named() {
        for (line, word) in [
            (("pulsegate-level", "seen"), "pulsegate-level"),
            (("pulsegate-ttl", "30"), "pulsegate-ttl"),
            (("pulsegate-ttl", "2h"), "pulsegate-ttl"),
            (("idempotency-key", ""), "idempotency-key"),
        ] {
            assert!(wishes(&[line]).unwrap_err().contains(word), "{line:?}");
        }
        assert!(wishes(&[("pulsegate-ttl", "1s"), ("pulsegate-ttl", "2s")]).is_err());
    }

    #[test]
    fn text_and_json_are_text_and_the_rest_has_to_be_bytes() {
        let kind = |text| read_kind(Some(&HeaderValue::from_static(text))).ok();
        for text in ["text/plain; charset=utf-8", "application/json", "application/ld+json", "TEXT/html"] {
            assert_eq!(kind(text), Some(true), "{text}");
        }
        assert_eq!((kind("application/octet-stream"), read_kind(None).ok()), (Some(false), Some(false)));
        // What curl says unless it is told otherwise: nobody means a form.
        assert_eq!(kind("application/x-www-form-urlencoded"), None);
    }
}
