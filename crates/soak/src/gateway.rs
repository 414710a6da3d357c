//! The gateway under test: the real binary as a child.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::history::lock;

/// How long the gateway may take to listen, to answer a question, or to end.
const ANSWER_MAX: Duration = Duration::from_secs(90);

/// Lines of its log that are kept for the end.
const LOG_LINES_MAX: usize = 40;

/// A running gateway; killed on drop.
pub(crate) struct Gateway {
    child: Child,
    pid: u32,
    pub(crate) data: SocketAddr,
    ops: SocketAddr,
    pub(crate) control: SocketAddr,
    log: Arc<Mutex<VecDeque<String>>>,
}

/// What the process holds.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Gateway {
    /// Starts `binary` in front of `app`, with the profile fast and a label `who` from the query.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(binary: &Path, app: SocketAddr) -> Result<Gateway> {
        let mut command = Command::new(binary);
        // Whatever is set for another gateway must not change this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PULSEGATE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["run", "--upstream", &format!("http://{app}"), "--profile", "fast"])
            .args(["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--control", "127.0.0.1:0"])
            .args(["--set", "registry.labels={ who = \"query:who\" }", "--set", "drain.window=0"])
            .args(["--set", "log.format=json", "--set", "log.level=warn,pulsegate::serve=info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = child.id().context("the gateway has just been started")?;
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let [data, ops, control] =
            timeout(ANSWER_MAX, addresses(&mut lines)).await.context("the gateway is silent")??;
        let log: Arc<Mutex<VecDeque<String>>> = Arc::default();
        tokio::spawn(keep(lines, Arc::clone(&log)));
        Ok(Gateway { child, pid, data, ops, control, log })
    }

    /// Returns the last lines of its log.
    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.log).iter().cloned().collect()
    }

    /// Returns what the process holds.
    ///
    /// # Errors
    /// It is gone, or this is no Linux.
    pub(crate) fn holdings(&self) -> Result<Holdings> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let rss_kib = rss.split_whitespace().next().context("an empty VmRSS")?.parse()?;
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid))?.count();
        Ok(Holdings { rss_kib, descriptors })
    }

    /// Returns the sum over all series of one metric whose labels contain `label`.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let (_, text) = ask(self.ops, "GET /metrics HTTP/1.0\r\nHost: localhost", "").await?;
        let samples = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let wanted = samples
            .filter(|(labels, _)| (labels.is_empty() || labels.starts_with('{')) && labels.contains(label));
        Ok(wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
    }

    /// Returns the label `who` of each session that the registry lists.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn listed(&self) -> Result<Vec<String>> {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let head = format!("GET /v1/sessions?limit=100{after} HTTP/1.0\r\nHost: localhost");
            let (status, body) = ask(self.control, &head, "").await?;
            anyhow::ensure!(status == 200, "/v1/sessions: {status} {body}");
            let page: Json = serde_json::from_str(&body)?;
            let items = page["items"].as_array().context("a page has items")?;
            listed.extend(items.iter().map(|item| item["labels"]["who"].as_str().unwrap_or("-").to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&cursor={next}"),
                None => return Ok(listed),
            }
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It takes too long, or fails.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let kill = Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        anyhow::ensure!(kill.success(), "the gateway was gone before it was told to end");
        let status = timeout(ANSWER_MAX, self.child.wait()).await.context("the gateway does not end")??;
        anyhow::ensure!(status.success(), "the gateway ended with {status}");
        Ok(())
    }
}

/// Asks by hand, as HTTP/1.0 does: the body comes as it is. Returns status and body.
///
/// # Errors
/// There is no answer.
pub(crate) async fn ask(address: SocketAddr, head: &str, body: &str) -> Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        Ok((status.context("an answer has a status")?, body.to_owned()))
    };
    timeout(ANSWER_MAX, exchange).await.context("no answer from the gateway")?
}

async fn addresses(log: &mut Lines<BufReader<ChildStderr>>) -> Result<[SocketAddr; 3]> {
    let mut said = String::new();
    while let Some(line) = log.next_line().await? {
        let parsed: Json = serde_json::from_str(&line).unwrap_or_default();
        let fields = &parsed["fields"];
        if fields["message"] == "listening" {
            let address = |key: &str| anyhow::Ok(fields[key].as_str().unwrap_or_default().parse()?);
            return Ok([address("data")?, address("ops")?, address("control")?]);
        }
        said = line;
    }
    bail!("the gateway ended before it listened: {said}")
}

/// Reads what is left of the log, so that the gateway never waits for us.
async fn keep(mut lines: Lines<BufReader<ChildStderr>>, log: Arc<Mutex<VecDeque<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = lock(&log);
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }
}
