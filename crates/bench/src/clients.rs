//! The process of the clients, seen from the tool.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::{Line, ORDER_BEGIN, ORDER_REPORT};
use crate::machine::Disturbance;
use crate::world::{GATEWAY_ADDRESS, World};

/// How long all clients together may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(120);

/// How long a report may take.
const REPORT_MAX: Duration = Duration::from_secs(10);

/// Who is to connect.
pub(crate) struct Crowd {
    pub(crate) sessions: usize,
    /// What each of them sends.
    pub(crate) messages_per_s: f64,
    /// Behind a bad network, once it has been begun, whose stalls last up to this.
    pub(crate) stall_max: Option<Duration>,
    pub(crate) seed: u64,
}

/// How late the clients' process was, and the longest stall of its network in seconds.
type Report = (Disturbance, f64);

/// The process of the clients; killed on drop.
pub(crate) struct Clients {
    _child: Child,
    orders: ChildStdin,
    ports: Vec<u16>,
    ends: Arc<Mutex<Vec<usize>>>,
    reported: Option<oneshot::Receiver<Report>>,
    reading: JoinHandle<()>,
}

impl Clients {
    /// Starts the process and waits until all clients are connected.
    ///
    /// # Errors
    /// Not all get in.
    pub(crate) async fn start(crowd: &Crowd, world: &World, port: u16) -> Result<Clients> {
        let mut command = Command::from(world.among_clients(&std::env::current_exe()?));
        command
            .args(["client", "--gateway", &format!("{GATEWAY_ADDRESS}:{port}")])
            .args(["--sessions", &crowd.sessions.to_string(), "--seed", &crowd.seed.to_string()])
            .args(["--messages-per-s", &crowd.messages_per_s.to_string()]);
        if let Some(stall_max) = crowd.stall_max {
            command.args(["--stall-max", &stall_max.as_secs_f64().to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let orders = child.stdin.take().expect("it is piped");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let first = timeout(CONNECT_MAX, lines.next_line()).await.context("the clients do not get in")??;
        let ports = match serde_json::from_str(&first.context("the clients ended early")?)? {
            Line::Connected(ports) => ports,
            Line::Report { .. } => bail!("nobody has asked for a report"),
            Line::Ended { client, .. } => bail!("client {client} was given up before all were there"),
        };
        let ends = Arc::new(Mutex::new(Vec::new()));
        let kept = ends.clone();
        let (report, reported) = oneshot::channel();
        let reading = tokio::spawn(async move {
            let mut report = Some(report);
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Line::Ended { client, .. }) => {
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                    }
                    Ok(Line::Report { disturbance, stall_max_seconds }) => {
                        // Who asked may have given up.
                        let _ = report.take().map(|report| report.send((disturbance, stall_max_seconds)));
                    }
                    Ok(Line::Connected(_)) | Err(_) => {}
                }
            }
        });
        Ok(Clients { _child: child, orders, ports, ends, reported: Some(reported), reading })
    }

    /// The ports by which the gateway knows them.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    pub(crate) async fn begin_bad_network(&mut self) -> Result<()> {
        Ok(self.orders.write_all(format!("{ORDER_BEGIN}\n").as_bytes()).await?)
    }

    /// Asks how late the process was; once.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) async fn report(&mut self) -> Result<Report> {
        self.orders.write_all(format!("{ORDER_REPORT}\n").as_bytes()).await?;
        let reported = self.reported.take().context("one report has been asked for already")?;
        Ok(timeout(REPORT_MAX, reported).await.context("the clients do not report")??)
    }

    /// Whose connection has ended.
    pub(crate) fn ends(&self) -> Vec<usize> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
