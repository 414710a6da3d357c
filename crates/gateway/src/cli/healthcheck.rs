//! `pulsegate healthcheck`

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::exit::{self, Failure};
use super::output::{print, reachable};
use super::settings::Settings;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration file of the gateway
    #[arg(long, value_name = "FILE", env = "PULSEGATE_CONFIG")]
    config: Option<OsString>,
    /// Its ops address, 0.0.0.0:7081 by default [env: PULSEGATE_OPS]
    #[arg(long, value_name = "ADDR")]
    ops: Option<String>,
    /// Asks only whether the gateway lives, not whether the app answers
    #[arg(long, env = "PULSEGATE_HEALTHCHECK_LIVE")]
    live: bool,
    /// Limit for the answer
    #[arg(long, value_name = "DURATION", value_parser = crate::config::parse_duration, default_value = "2s",
        env = "PULSEGATE_HEALTHCHECK_TIMEOUT")]
    timeout: Duration,
}

/// Exits with 0 or 1 and nothing else: Docker keeps 2 for itself.
pub(super) async fn run(arguments: Arguments) -> Result<u8, Failure> {
    let Arguments { config, ops, live, timeout } = arguments;
    let settings = Settings { config, ops, ..Settings::default() };
    let loaded = settings.load_or_tell().map_err(|failure| Failure { code: exit::FAILURE, ..failure })?;
    let address = reachable(loaded.config.listen.ops);
    let path = if live { "/livez" } else { "/readyz" };
    let asked = format!("http://{address}{path}");
    let failure = |why: String| Failure::new(exit::FAILURE, format!("{asked}: {why}"));
    match tokio::time::timeout(timeout, status(address, path)).await {
        Ok(Ok(status)) if status.is_success() => {
            print(&format!("{asked}: {status}\n"))?;
            Ok(exit::OK)
        }
        Ok(Ok(status)) => Err(failure(status.to_string())),
        Ok(Err(error)) => Err(failure(format!("{error:#}"))),
        Err(_) => Err(failure(format!("no answer within {}", crate::config::show_duration(timeout)))),
    }
}

async fn status(address: SocketAddr, path: &str) -> anyhow::Result<http::StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    // The answer may be read just before the connection ends, so a failed connection shows as a failed request.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.status())
}
