//! The gateway under test: the real binary as a child, its log, its events, its metrics.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::plan::Profile;

/// How long the gateway may take to listen, or to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A running gateway; killed on drop.
pub(crate) struct Gateway {
    child: Child,
    pid: u32,
    data: SocketAddr,
    ops: SocketAddr,
    control: SocketAddr,
    verdicts: Arc<Mutex<Vec<Verdict>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// A verdict, as the event feed tells it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) session: String,
    pub(crate) cause: String,
    /// From the peer's last byte to the verdict, seconds.
    pub(crate) silent_for: f64,
    /// How late the gateway's own timer was, seconds.
    pub(crate) timer_lag: f64,
    pub(crate) text: String,
}

/// One scrape of the metrics.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Gateway {
    /// Starts `binary` in front of `app`.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn start(binary: &Path, app: SocketAddr, profile: Profile) -> Result<Gateway> {
        let mut command = Command::new(binary);
        // Whatever is set for another gateway must not change this one.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PULSEGATE_"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(["run", "--upstream", &format!("http://{app}"), "--profile", profile.as_str()])
            .args(["--listen", "0.0.0.0:0", "--ops", "127.0.0.1:0", "--control", "127.0.0.1:0"])
            .args(["--set", "drain.window=0", "--set", "drain.deadline=2s", "--set", "log.format=json"])
            // The wide line of each session costs more than the verdict itself, and nobody reads it here.
            .args(["--set", "log.level=warn,pulsegate::serve=info"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the gateway")?;
        let pid = child.id().context("the gateway has just been started")?;
        let mut log = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let [data, ops, control] =
            timeout(ANSWER_MAX, addresses(&mut log)).await.context("the gateway is silent")??;
        let tasks = vec![tokio::spawn(drain(log))];
        Ok(Gateway { child, pid, data, ops, control, verdicts: Arc::default(), tasks })
    }

    /// Notes the verdicts from now on. It costs the gateway something for each session that comes or goes.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn follow_verdicts(&mut self) -> Result<()> {
        let events = ask(self.control, "/v1/events?type=session.dead").await?;
        self.tasks.push(tokio::spawn(follow(events, self.verdicts.clone())));
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where its clients dial.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Where the control API is.
    pub(crate) fn control(&self) -> SocketAddr {
        self.control
    }

    /// The data port.
    pub(crate) fn port(&self) -> u16 {
        self.data.port()
    }

    /// Returns all verdicts so far.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many sessions the registry has.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn sessions(&self) -> Result<u64> {
        Ok(self.count("live").await? + self.count("suspect").await?)
    }

    /// Returns how many sessions wait for their clients.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn detached(&self) -> Result<u64> {
        self.count("detached").await
    }

    async fn count(&self, state: &str) -> Result<u64> {
        let stats: serde_json::Value = serde_json::from_str(&fetch(self.control, "/v1/stats").await?)?;
        stats["sessions"][state].as_u64().context("/v1/stats tells the sessions")
    }

    /// Reads the metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(fetch(self.ops, "/metrics").await?))
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn stop(mut self) {
        for task in &self.tasks {
            task.abort();
        }
        // It fails only when the process is gone already, which is what is wanted.
        let _ = self.child.kill().await;
    }
}

impl Metrics {
    /// Sums the samples of a metric whose labels contain `label`.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        self.samples(name).filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
    }

    /// The upper edge of the bucket that holds this share of what a histogram took in after `before`; `None`
    /// beyond the last edge.
    pub(crate) fn quantile_at_most(&self, histogram: &str, share: f64, before: &Metrics) -> Option<f64> {
        let since = |name: &str, labels: &str| self.sum(name, labels) - before.sum(name, labels);
        let total = since(&format!("{histogram}_count"), "");
        let name = format!("{histogram}_bucket");
        self.samples(&name)
            .filter(|(labels, _)| since(&name, labels) >= total * share)
            .filter_map(|(labels, _)| labels.split_once("le=\"")?.1.split('"').next()?.parse().ok())
            .filter(|edge: &f64| edge.is_finite())
            .min_by(f64::total_cmp)
    }

    fn samples(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
        })
    }
}

/// `PULSEGATE_BIN`, or the release binary beside this program or in `target/release`.
///
/// # Errors
/// There is none.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("PULSEGATE_BIN") {
        return Ok(given.into());
    }
    let beside = std::env::current_exe()?.with_file_name("pulsegate");
    let places = [beside, PathBuf::from("target/release/pulsegate")];
    let found = places.into_iter().find(|place| place.exists());
    found.context("no gateway: run `cargo build --release -p pulsegate`, or name one by PULSEGATE_BIN")
}

async fn addresses(log: &mut Lines<BufReader<ChildStderr>>) -> Result<[SocketAddr; 3]> {
    let mut said = String::new();
    while let Some(line) = log.next_line().await? {
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let fields = &parsed["fields"];
        if fields["message"] == "listening" {
            let address =
                |key: &str| -> Result<SocketAddr> { Ok(fields[key].as_str().unwrap_or_default().parse()?) };
            return Ok([address("data")?, address("ops")?, address("control")?]);
        }
        said = line;
    }
    bail!("the gateway ended before it listened: {said}")
}

/// Reads what is left of the log, so that the gateway never waits for us.
async fn drain(mut log: Lines<BufReader<ChildStderr>>) {
    while let Ok(Some(_)) = log.next_line().await {}
}

async fn follow(mut events: BufReader<TcpStream>, verdicts: Arc<Mutex<Vec<Verdict>>>) {
    let mut line = String::new();
    while matches!(events.read_line(&mut line).await, Ok(1..)) {
        if let Some(verdict) = line.strip_prefix("data:").and_then(verdict) {
            verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
        }
        line.clear();
    }
}

fn verdict(data: &str) -> Option<Verdict> {
    let event: serde_json::Value = serde_json::from_str(data).ok()?;
    Some(Verdict {
        session: event["session"].as_str()?.to_owned(),
        cause: event["cause"].as_str()?.to_owned(),
        silent_for: event["verdict"]["silent_for_seconds"].as_f64()?,
        timer_lag: event["verdict"]["timer_lag_seconds"].as_f64()?,
        text: event["verdict"]["text"].as_str()?.to_owned(),
    })
}

async fn fetch(address: SocketAddr, path: &str) -> Result<String> {
    let mut body = String::new();
    let answer =
        async { ask(address, path).await?.read_to_string(&mut body).await.context("the answer broke off") };
    timeout(ANSWER_MAX, answer).await.with_context(|| format!("no answer from the gateway to {path}"))??;
    Ok(body)
}

/// Asks as HTTP/1.0 does, so that the body comes as it is; returns the reader when it stands before the body.
async fn ask(address: SocketAddr, path: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).await? > 2 {}
    let fine = head.split_whitespace().nth(1) == Some("200");
    anyhow::ensure!(fine, "{path}: {}", head.lines().next().unwrap_or("no answer"));
    Ok(reader)
}
