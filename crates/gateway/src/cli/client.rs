//! Speaks HTTP with the control API of a running gateway.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::api::Api;
use super::exit::{self, Failure};
use super::table::clean;
use crate::control::Secret;

/// Limit for connecting, and for an answer's head.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer: a page of 1000 sessions with long labels is far below.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Of `http:`.
const PORT_DEFAULT: u16 = 80;

/// Where the control API is, and what opens it.
#[derive(Debug)]
pub(super) struct Client {
    target: Target,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
}

#[derive(Debug, PartialEq)]
enum Target {
    Tcp(String),
    Unix(PathBuf),
}

impl Client {
    /// Reads the flags.
    ///
    /// # Errors
    /// 2 when the URL or the token file can't be used.
    pub(super) fn new(api: &Api) -> Result<Client, Failure> {
        let usage = |why: String| Failure::new(exit::USAGE, why);
        let (target, host) = target(&api.api).map_err(usage)?;
        let host = HeaderValue::from_str(&host).map_err(|error| usage(error.to_string()))?;
        let token = api.token_file.as_deref().map(Secret::read).transpose();
        let authorization = token.map_err(|error| usage(error.to_string()))?.map(|token| {
            let mut value = HeaderValue::from_str(&token.authorization()).expect("a token is visible ASCII");
            value.set_sensitive(true);
            value
        });
        Ok(Client { target, host, authorization })
    }

    /// Asks for JSON and reads the whole answer; one without a body is `null`.
    ///
    /// # Errors
    /// 6 when there is no answer, or one that no gateway gives.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<(StatusCode, Json), Failure> {
        self.read(self.send(method, path, None).await?).await
    }

    /// Sends a payload and reads the answer, which comes within `wait` and the usual time.
    ///
    /// # Errors
    /// As [`ask`](Client::ask).
    pub(super) async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        payload: Bytes,
        wait: Duration,
    ) -> Result<(StatusCode, Json), Failure> {
        self.read(self.request(Method::POST, path, headers, payload, wait).await?).await
    }

    async fn read(&self, response: Response<Incoming>) -> Result<(StatusCode, Json), Failure> {
        let status = response.status();
        let body = timeout(ANSWER_TIMEOUT, Limited::new(response.into_body(), BODY_BYTES_MAX).collect());
        let body = body.await.map_err(|_| self.unreachable("the answer does not end"))?;
        let body = body.map_err(|error| self.unreachable(error))?.to_bytes();
        if body.is_empty() {
            return Ok((status, Json::Null));
        }
        let json = serde_json::from_slice(&body)
            .map_err(|_| self.unreachable(format!("{status}, and what follows is not from a gateway")))?;
        Ok((status, json))
    }

    /// Sends a request on a connection of its own, and waits for the answer's head.
    ///
    /// # Errors
    /// 6 when there is no answer.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        last_event_id: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(id) = last_event_id {
            let id =
                HeaderValue::from_str(id).map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
            headers.insert("last-event-id", id);
        }
        self.request(method, path, headers, Bytes::new(), Duration::ZERO).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Full::new(payload))
            .map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.host.clone());
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        match timeout(ANSWER_TIMEOUT + wait, self.exchange(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(format!("{error:#}"))),
            Err(_) => Err(self.unreachable("no answer")),
        }
    }

    /// The failure of a control API that can't be reached.
    pub(super) fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        let place = match &self.target {
            Target::Tcp(address) => format!("http://{address}"),
            Target::Unix(path) => format!("unix:{}", path.display()),
        };
        let message = format!("the control API at {place} can't be reached: {why}");
        Failure::new(exit::CONTROL_UNREACHABLE, message)
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        match &self.target {
            Target::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
            Target::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
        }
    }
}

/// The failure that a refusal stands for: bad arguments are usage, the rest is a failure.
pub(super) fn refusal(status: StatusCode, problem: &Json) -> Failure {
    let word = |name: &str| problem[name].as_str().map(clean);
    let message = match (word("title"), word("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(title), None) => title,
        (None, _) => format!("the control API answered {status}"),
    };
    let code = if status == StatusCode::BAD_REQUEST { exit::USAGE } else { exit::FAILURE };
    Failure::new(code, message)
}

/// Writes a value into a query or path.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // A connection that fails shows as a request or a body that fails.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Where a URL leads, and the Host that goes with it.
fn target(url: &str) -> Result<(Target, String), String> {
    if let Some(path) = url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(format!("`{url}`: the socket's path must be absolute: unix:/run/pulsegate.sock"));
        }
        return Ok((Target::Unix(path.into()), "localhost".into()));
    }
    let bad = || format!("`{url}` is no control API: write http://host:port or unix:/path");
    if url.starts_with("https:") {
        return Err("https:// is not supported, only http:// and unix:".into());
    }
    let authority = url.strip_prefix("http://").unwrap_or(url);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let authority: http::uri::Authority = authority.parse().map_err(|_| bad())?;
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(bad());
    }
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => PORT_DEFAULT,
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(bad)?,
        None => return Err(bad()),
    };
    Ok((Target::Tcp(format!("{}:{port}", authority.host())), authority.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_an_address_or_a_socket() {
        let tcp = |address: &str, host: &str| Ok((Target::Tcp(address.into()), host.to_owned()));
        assert_eq!(target("http://127.0.0.1:7082"), tcp("127.0.0.1:7082", "127.0.0.1:7082"));
        assert_eq!(target("http://gate.example/"), tcp("gate.example:80", "gate.example"));
        assert_eq!(target("[::1]:9"), tcp("[::1]:9", "[::1]:9"));
        let unix = Ok((Target::Unix("/run/p.sock".into()), "localhost".to_owned()));
        assert_eq!(target("unix:/run/p.sock"), unix);
        assert_eq!(target("unix:///run/p.sock"), unix);
        for bad in
            ["", "unix:p.sock", "https://a", "http://", "http://a/path", "http://u@a", "http://a:x", "a b"]
        {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escape("a-Z_9.~"), "a-Z_9.~");
        assert_eq!(escape("a b&c=d/ü"), "a%20b%26c%3Dd%2F%C3%BC");
    }
}
