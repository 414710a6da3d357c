//! Throughput of confirmed messages beside pass-through, and the latency of send and wait beside an echo.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Site;
use super::raw::{Mode, Raw};
use crate::clock::Moment;
use crate::machine::cpu_seconds;
use crate::stats::quantile;

const CONNECTIONS: usize = 64;

/// One way of speaking in one round.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) per_second: f64,
    /// Processor time of the gateway for a message that came back.
    pub(super) gateway_cpu_us: f64,
}

/// Seconds: half of them, and 99 of 100, took no longer.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// 64 connections, each with so many messages in flight, for so long.
///
/// # Errors
/// A message does not come back, or is not confirmed.
pub(super) async fn throughput(
    site: &Site,
    mode: Mode,
    bytes: usize,
    in_flight: u64,
    span: Duration,
) -> Result<Throughput> {
    let (count, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let payload: Arc<[u8]> = vec![b'x'; bytes].into();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = Raw::open(site.address, mode).await?;
        let (count, over, payload) = (Arc::clone(&count), Arc::clone(&over), Arc::clone(&payload));
        clients.spawn(async move {
            while !over.load(Relaxed) {
                client.round(in_flight, &payload).await?;
                count.fetch_add(in_flight, Relaxed);
            }
            client.confirmed().await
        });
    }
    tokio::time::sleep(span / 5).await;
    let (before, at, cpu) = (count.load(Relaxed), Moment::now(), cpu_seconds(site.gateway.pid())?);
    tokio::time::sleep(span).await;
    let messages = (count.load(Relaxed) - before) as f64;
    let seconds = Moment::now().seconds_since(at);
    let cpu = cpu_seconds(site.gateway.pid())? - cpu;
    over.store(true, Relaxed);
    while let Some(done) = clients.join_next().await {
        done??;
    }
    ensure!(messages > 0.0, "no message came back");
    Ok(Throughput { per_second: messages / seconds, gateway_cpu_us: cpu * 1e6 / messages })
}

/// One message after the other, back and forth.
///
/// # Errors
/// One does not come back.
pub(super) async fn echo(site: &Site, mode: Mode, rounds: usize) -> Result<Latency> {
    let mut client = Raw::open(site.address, mode).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Moment::now();
        client.round(1, &[b'x'; 32]).await?;
        times.push(Moment::now().seconds_since(start));
    }
    client.confirmed().await?;
    latency(times)
}

/// `POST /v1/sessions/{id}/messages` with `Prefer: wait`, over one connection.
///
/// # Errors
/// One is not delivered.
pub(super) async fn send_and_wait(site: &Site, mode: Mode, rounds: usize) -> Result<Latency> {
    let mut client = Raw::open(site.address, mode).await?;
    let attending = tokio::spawn(async move { client.attend().await });
    let mut control = Control::connect(site.gateway.control()).await?;
    let listed: serde_json::Value = serde_json::from_str(&control.ask("GET /v1/sessions", "", "").await?)?;
    let id = listed["items"][0]["id"].as_str().context("the session is listed")?.to_owned();
    let level = if mode == Mode::V1 { "handled" } else { "received" };
    let head = format!("Prefer: wait=5\r\nPulsegate-Level: {level}\r\nContent-Type: text/plain\r\n");
    let mut times = Vec::new();
    for _ in 0..rounds {
        let start = Moment::now();
        let told = control.ask(&format!("POST /v1/sessions/{id}/messages"), &head, &"x".repeat(32)).await?;
        times.push(Moment::now().seconds_since(start));
        ensure!(told.contains("\"delivered\""), "{told}");
    }
    attending.abort();
    latency(times)
}

fn latency(mut times: Vec<f64>) -> Result<Latency> {
    ensure!(!times.is_empty(), "no round");
    times.sort_by(f64::total_cmp);
    Ok(Latency { p50: quantile(&times, 0.5), p99: quantile(&times, 0.99) })
}

/// A connection to the control API that is kept.
struct Control {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Control {
    async fn connect(address: SocketAddr) -> Result<Control> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Control { address, stream: BufReader::new(stream) })
    }

    /// Asks and returns the body of a 200.
    async fn ask(&mut self, what: &str, headers: &str, body: &str) -> Result<String> {
        let Control { address, stream } = self;
        let length = body.len();
        let request =
            format!("{what} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
        stream.get_mut().write_all(request.as_bytes()).await?;
        let (mut head, mut length) = (String::new(), 0);
        while stream.read_line(&mut head).await? > 2 {
            let last = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(told) = last.strip_prefix("content-length:") {
                length = told.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body)?;
        ensure!(head.starts_with("HTTP/1.1 200"), "{}: {body}", head.lines().next().unwrap_or_default());
        Ok(body)
    }
}
