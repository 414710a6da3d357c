//! Refusals that programs can read: problem details (RFC 9457).

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

/// What every `type` begins with; the kebab-case name behind it is stable.
const TYPE_PREFIX: &str = "urn:pulsegate:problem:";

/// A refusal on its way to a client.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    body: serde_json::Map<String, serde_json::Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Begins a problem; `name` is the stable end of its `type`, `title` the same for all of its kind.
    pub(crate) fn new(status: StatusCode, name: &str, title: &str) -> Problem {
        let mut body = serde_json::Map::new();
        body.insert("type".into(), format!("{TYPE_PREFIX}{name}").into());
        body.insert("title".into(), title.into());
        body.insert("status".into(), status.as_u16().into());
        Problem { status, body, headers: Vec::new() }
    }

    /// Says what is wrong this time, and what to do.
    #[must_use]
    pub(crate) fn detail(self, detail: impl Into<String>) -> Problem {
        self.member("detail", detail.into())
    }

    /// Adds a member of its own kind (RFC 9457 section 3.2).
    #[must_use]
    pub(crate) fn member(mut self, name: &str, value: impl Into<serde_json::Value>) -> Problem {
        self.body.insert(name.into(), value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    /// Says when another try makes sense.
    #[must_use]
    pub(crate) fn retry_after(self, seconds: u32) -> Problem {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Builds the response.
    pub(crate) fn into_response(self) -> Response<Bytes> {
        let body = serde_json::Value::Object(self.body).to_string();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }

    /// Builds the bytes of a whole HTTP/1.1 response that ends its connection, for places without an HTTP
    /// stack around them.
    pub(crate) fn into_last_bytes(self) -> Vec<u8> {
        let response = self.into_response();
        let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
        for (name, value) in response.headers() {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let body = response.body();
        bytes.extend_from_slice(
            format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes(),
        );
        bytes.extend_from_slice(body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_type_a_status_and_its_headers() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sessions-max", "Too many sessions");
        let response = problem.detail("all 10 places are taken").retry_after(5).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:pulsegate:problem:sessions-max",
                "title": "Too many sessions",
                "status": 503,
                "detail": "all 10 places are taken",
            })
        );
    }

    #[test]
    fn the_last_bytes_are_a_whole_response() {
        let problem =
            Problem::new(StatusCode::REQUEST_TIMEOUT, "head-timeout", "The request came too slowly");
        let text = String::from_utf8(problem.into_last_bytes()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("\r\nconnection: close"), "{head}");
    }
}
