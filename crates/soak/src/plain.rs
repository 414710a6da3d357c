//! Unmodified clients in processes of their own, and messages to them over the control API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pulsegate_chaos::FaultProxy;
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::faults::line;
use crate::gateway::{Gateway, ask};
use crate::history::Outcome;
use crate::receipts::{Receipts, payload};

/// Senders to one client: so many messages to it are under way.
const SENDERS: usize = 3;

/// Between two messages of one sender.
const PAUSE: Duration = Duration::from_millis(20);

/// Between two questions for a session, or for an outcome.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Limit for the outcome of a message that had none when its sender was answered.
const OUTCOME_MAX: Duration = Duration::from_secs(60);

/// Limit for a process to tell what it has read, once it is told to end.
const END_MAX: Duration = Duration::from_secs(20);

/// Which unmodified clients there are.
#[derive(Clone, Debug)]
pub struct Unmodified {
    /// How many; they are spread over `readers`.
    pub clients: usize,
    /// Commands that read with clients of their own, one URL an argument: `tests/node/apps/reader.mjs` and the like.
    pub readers: Vec<Vec<PathBuf>>,
}

impl Unmodified {
    /// Returns clients of npm `ws`, Python `websockets`, aiohttp and Chromium, with the readers in `tests`.
    pub fn new(clients: usize, tests: PathBuf, python: PathBuf) -> Unmodified {
        let script = tests.join("python/reader.py");
        let readers = vec![
            vec!["node".into(), tests.join("node/apps/reader.mjs")],
            vec![python.clone(), script.clone(), "websockets".into()],
            vec![python, script, "aiohttp".into()],
            vec!["node".into(), tests.join("node/apps/browser-reader.mjs")],
        ];
        Unmodified { clients, readers }
    }
}

/// Unmodified clients that run.
pub(crate) struct Plain {
    pub(crate) lines: Vec<Arc<FaultProxy>>,
    pub(crate) receipts: Arc<Receipts>,
    readers: Vec<(Child, JoinHandle<Result<()>>)>,
    senders: JoinSet<()>,
}

impl Plain {
    /// Starts the processes; they connect as soon as they can.
    pub(crate) async fn start(what: &Unmodified, gateway: &Gateway, seed: u64) -> Result<Plain> {
        let (mut lines, mut urls) = (Vec::new(), Vec::new());
        for number in 0..what.clients {
            let line = line(gateway.data, seed ^ !(number as u64)).await?;
            urls.push(format!("ws://{}/?who=plain-{number}", line.local_addr()));
            lines.push(Arc::new(line));
        }
        let receipts = Arc::new(Receipts::new(what.clients));
        let mut readers = Vec::new();
        let kinds = what.readers.len().max(1);
        for (kind, command) in what.readers.iter().enumerate() {
            let (program, arguments) = command.split_first().context("a reader is a command")?;
            let mut child = Command::new(program)
                .args(arguments)
                .args(urls.iter().skip(kind).step_by(kinds))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("cannot start {}", program.display()))?;
            let told = child.stdout.take().expect("it is piped");
            let reading = tokio::spawn(note(told, Arc::clone(&receipts)));
            readers.push((child, reading));
        }
        Ok(Plain { lines, receipts, readers, senders: JoinSet::new() })
    }

    /// Starts to send, until `quiet`.
    pub(crate) fn send(&mut self, control: SocketAddr, quiet: &CancellationToken) {
        for client in 0..self.lines.len() {
            for _ in 0..SENDERS {
                let (receipts, quiet) = (Arc::clone(&self.receipts), quiet.clone());
                self.senders.spawn(send(client, control, receipts, quiet));
            }
        }
    }

    /// Waits for the outcomes, ends the processes, and returns what is wrong.
    pub(crate) async fn finish(mut self) -> Result<Vec<String>> {
        timeout(OUTCOME_MAX * 2, self.senders.join_all()).await.context("a message has no outcome")?;
        for (child, reading) in &mut self.readers {
            if let Some(status) = child.try_wait()? {
                bail!("an unmodified client's process has ended with {status}");
            }
            drop(child.stdin.take());
            timeout(END_MAX, reading).await.context("an unmodified client's process does not end")???;
        }
        Ok(self.receipts.finish())
    }
}

/// Takes down what the clients of a process read, until it ends.
async fn note(told: ChildStdout, receipts: Arc<Receipts>) -> Result<()> {
    let mut lines = BufReader::new(told).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<&str> = line.split(' ').collect();
        let [who, number, bytes] = words[..] else { bail!("a reader says {line:?}") };
        let client = who.strip_prefix("plain-").with_context(|| format!("a reader says {line:?}"))?;
        receipts.read(client.parse()?, number.parse()?, bytes.parse()?);
    }
    Ok(())
}

async fn send(client: usize, control: SocketAddr, receipts: Arc<Receipts>, quiet: CancellationToken) {
    let mut session = None;
    while !quiet.is_cancelled() {
        let id = match session.take() {
            Some(id) => Some(id),
            None => find(client, control).await,
        };
        let Some(id) = id else {
            sleep(ASK_AGAIN).await;
            continue;
        };
        let number = receipts.send(client);
        let head = format!(
            "POST /v1/sessions/{id}/messages HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
             Pulsegate-Level: received\r\nPulsegate-Ttl: 3s\r\nPrefer: wait=20"
        );
        let (outcome, lives) = match ask(control, &head, &payload(client, number)).await {
            Ok((status, body)) => told(control, status, &body).await,
            Err(_) => (Outcome::Unknown, false),
        };
        receipts.settle(client, number, outcome);
        session = lives.then_some(id);
        sleep(PAUSE).await;
    }
}

/// Returns what was told of a message, and whether the session may live.
async fn told(control: SocketAddr, status: u16, body: &str) -> (Outcome, bool) {
    let told: Json = serde_json::from_str(body).unwrap_or_default();
    match status {
        200 | 504 => {
            let message = if status == 200 { &told } else { &told["message"] };
            (outcome(message).unwrap_or(Outcome::Unknown), status == 200)
        }
        202 => (settled(control, told["id"].as_str().unwrap_or_default()).await, false),
        // Not accepted: there is no such message.
        _ => (Outcome::NotSent, false),
    }
}

/// Asks until a message has its outcome.
async fn settled(control: SocketAddr, id: &str) -> Outcome {
    let start = clock();
    while start.elapsed() < OUTCOME_MAX {
        let head = format!("GET /v1/messages/{id} HTTP/1.0\r\nHost: localhost");
        if let Ok((200, body)) = ask(control, &head, "").await
            && let Ok(message) = serde_json::from_str::<Json>(&body)
            && let Some(outcome) = outcome(&message)
        {
            return outcome;
        }
        sleep(ASK_AGAIN).await;
    }
    Outcome::Unknown
}

/// Reads the outcome; `None`: there is none yet.
fn outcome(message: &Json) -> Option<Outcome> {
    match (message["status"].as_str()?, message["level"].as_str(), message["sent"].as_str()) {
        ("delivered", Some("received" | "handled"), _) => Some(Outcome::Delivered),
        ("expired", _, Some("no")) => Some(Outcome::NotSent),
        ("rejected", _, _) => Some(Outcome::Rejected),
        ("queued" | "sent", _, _) => None,
        (_, _, _) => Some(Outcome::Unknown),
    }
}

/// Returns the latest session of a client.
async fn find(client: usize, control: SocketAddr) -> Option<String> {
    let head = format!("GET /v1/sessions?label.who=plain-{client} HTTP/1.0\r\nHost: localhost");
    let (_, body) = ask(control, &head, "").await.ok()?;
    let page: Json = serde_json::from_str(&body).ok()?;
    Some(page["items"].as_array()?.last()?["id"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outcome_is_read_for_what_it_is() {
        let read = |status, level, sent| outcome(&json!({ "status": status, "level": level, "sent": sent }));
        assert_eq!(read("delivered", Some("received"), None::<&str>), Some(Outcome::Delivered));
        assert_eq!(read("delivered", Some("kernel"), None), Some(Outcome::Unknown));
        assert_eq!(read("expired", None, Some("no")), Some(Outcome::NotSent));
        assert_eq!(read("expired", None, Some("maybe")), Some(Outcome::Unknown));
        assert_eq!(read("sent", None, None), None);
        assert_eq!(read("queued", None, None), None);
    }
}
