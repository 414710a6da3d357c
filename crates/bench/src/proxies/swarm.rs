//! The process of the load, seen from the tool.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::load::{Answer, Order, Pace};

/// How long an order may take, beyond what it says itself: thousands of sessions with a mebibyte each.
const ANSWER_MAX: Duration = Duration::from_secs(180);

/// Where clients connect to.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
}

/// A process of clients; killed on drop.
pub(crate) struct Swarm {
    _child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint { address, host: address.to_string(), path: "/".to_owned() }
    }
}

impl Swarm {
    pub(crate) fn start(endpoint: &Endpoint) -> Result<Swarm> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["load", "--address", &endpoint.address.to_string()])
            .args(["--host", &endpoint.host, "--path", &endpoint.path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the load")?;
        let orders = child.stdin.take().expect("it is piped");
        let answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Ok(Swarm { _child: child, orders, answers })
    }

    /// Returns how many seconds it took.
    pub(crate) async fn open(&mut self, sessions: usize) -> Result<f64> {
        self.done(Order::Open { sessions }).await
    }

    /// Each session sends one message and gets it back.
    pub(crate) async fn once(&mut self, bytes: usize) -> Result<f64> {
        self.done(Order::Once { bytes }).await
    }

    /// Begins what `halt` ends.
    pub(crate) async fn begin(&mut self, order: Order) -> Result<()> {
        self.done(order).await.map(drop)
    }

    pub(crate) async fn halt(&mut self) -> Result<()> {
        self.done(Order::Halt).await.map(drop)
    }

    /// Closes all sessions.
    pub(crate) async fn leave(&mut self) -> Result<()> {
        self.done(Order::Leave).await.map(drop)
    }

    /// What has been done so far, and at which second.
    pub(crate) async fn count(&mut self) -> Result<(u64, f64)> {
        let answer = self.ask(Order::Count).await?;
        let Answer::Count { done, seconds } = answer else { bail!("the load answers {answer:?}") };
        Ok((done, seconds))
    }

    /// # Errors
    /// As for all orders: the load broke off, and says why.
    pub(crate) async fn paced(&mut self, order: Order) -> Result<Pace> {
        let answer = self.ask(order).await?;
        let Answer::Paced(pace) = answer else { bail!("the load answers {answer:?}") };
        Ok(pace)
    }

    async fn done(&mut self, order: Order) -> Result<f64> {
        let answer = self.ask(order).await?;
        let Answer::Done { seconds } = answer else { bail!("the load answers {answer:?}") };
        Ok(seconds)
    }

    async fn ask(&mut self, order: Order) -> Result<Answer> {
        self.orders.write_all((serde_json::to_string(&order)? + "\n").as_bytes()).await?;
        let line = timeout(ANSWER_MAX, self.answers.next_line())
            .await
            .with_context(|| format!("no end of {order:?}"))??
            .context("the load has ended")?;
        let answer = serde_json::from_str(&line)?;
        if let Answer::Failed(why) = answer {
            bail!("{order:?}: {why}");
        }
        Ok(answer)
    }
}
