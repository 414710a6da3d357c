//! The process of the load: all clients of a measurement in one thread, told by lines on stdin what to do.

mod conn;
mod orders;
mod paced;

use std::io::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use self::conn::{Conn, News, Phase, Target};
use self::orders::Orders;
use super::poller::{Poller, Ready};
use super::wire::Batch;
use crate::clock::Moment;

const TOKEN_ORDERS: u64 = u64::MAX;
/// Handshakes, or single messages, under way at a time: more would only queue.
const AT_ONCE: usize = 32;
const READ_BYTES: usize = 256 * 1024;
/// Of the one message in each round of opening and closing.
const CHURN_BYTES: usize = 32;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    host: String,
    #[arg(long, default_value = "/")]
    path: String,
}

/// What the process is told to do, a line each.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Open so many sessions more; done when all are open.
    Open { sessions: usize },
    /// Each session sends one message and gets it back.
    Once { bytes: usize },
    /// Every session always has so many messages in flight, until `Halt`.
    Echo { bytes: usize, in_flight: usize },
    /// One message after the other on a fixed schedule, session by session, whatever has come back.
    Paced { bytes: usize, per_second: u32, seconds: f64, unmeasured_seconds: f64 },
    /// So many at a time: open, one echo, Close, end; then again, until `Halt`.
    Churn { at_once: usize },
    /// What `Echo` or `Churn` has done so far.
    Count,
    /// Let what is under way come to its end.
    Halt,
    /// All sessions are closed.
    Leave,
}

/// An answer, a line each, one to each order (to `Echo` and `Churn` at once).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done { seconds: f64 },
    Count { done: u64, seconds: f64 },
    Paced(Pace),
    Failed(String),
}

/// What came of `Order::Paced`; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    pub(crate) messages: u64,
    /// From the moment at which a message was to be sent to its echo.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
    /// How late the load itself sent, which is part of the above.
    pub(crate) late_p50: f64,
    pub(crate) late_p99: f64,
}

/// What goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Nothing,
    Opening { left: usize },
    Once { next: usize },
    Echo,
    Churn,
    Leaving { next: usize },
}

struct Load {
    target: Target,
    poller: Poller,
    conns: Vec<Conn>,
    batch: Batch,
    buffer: Vec<u8>,
    work: Work,
    /// How many of `work` are under way.
    busy: usize,
    is_halting: bool,
    started: Moment,
    /// Clients so far; each gets its address by its number.
    number: usize,
    done: u64,
}

/// Runs until stdin ends.
///
/// # Errors
/// Something went wrong; it has been said as an answer, too.
pub(crate) fn run(options: &Options) -> Result<()> {
    crate::machine::raise_open_files(0)?;
    let target = Target::new(options.address, &options.host, &options.path);
    let poller = Poller::new()?;
    let mut orders = Orders::new(&poller, TOKEN_ORDERS)?;
    let mut load = Load {
        target,
        poller,
        conns: Vec::new(),
        batch: Batch::new(CHURN_BYTES, 1),
        buffer: vec![0; READ_BYTES],
        work: Work::Nothing,
        busy: 0,
        is_halting: false,
        started: Moment::now(),
        number: 0,
        done: 0,
    };
    let ended = load.follow(&mut orders);
    if let Err(error) = &ended {
        say(&Answer::Failed(format!("{error:#}")))?;
    }
    ended
}

impl Load {
    fn follow(&mut self, orders: &mut Orders) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(&mut ready, None)?;
            for one in &ready {
                if one.token == TOKEN_ORDERS {
                    if !orders.read()? {
                        return Ok(());
                    }
                } else {
                    self.serve(*one)?;
                }
            }
            while let Some(order) = orders.next()? {
                self.begin(order)?;
            }
            let is_endless = matches!(self.work, Work::Echo | Work::Churn) && !self.is_halting;
            if self.work != Work::Nothing && self.busy == 0 && !is_endless {
                if matches!(self.work, Work::Churn | Work::Leaving { .. }) {
                    self.conns.clear();
                }
                self.work = Work::Nothing;
                self.say_done()?;
            }
        }
    }

    fn begin(&mut self, order: Order) -> Result<()> {
        if matches!(order, Order::Count) {
            let seconds = Moment::now().seconds_since(self.started);
            return say(&Answer::Count { done: self.done, seconds });
        }
        if matches!(order, Order::Halt) {
            self.is_halting = true;
            return Ok(());
        }
        ensure!(self.work == Work::Nothing, "{order:?} comes too early");
        (self.started, self.done, self.is_halting) = (Moment::now(), 0, false);
        match order {
            Order::Open { sessions } => {
                self.work = Work::Opening { left: sessions };
                for _ in 0..sessions.min(AT_ONCE) {
                    self.open_next()?;
                }
            }
            Order::Once { bytes } => {
                self.batch = Batch::new(bytes, 1);
                self.work = Work::Once { next: 0 };
                for _ in 0..AT_ONCE {
                    self.send_next()?;
                }
            }
            Order::Echo { bytes, in_flight } => {
                self.batch = Batch::new(bytes, in_flight);
                self.work = Work::Echo;
                for conn in &mut self.conns {
                    conn.send(&self.poller, &mut self.batch)?;
                }
                self.busy = self.conns.len();
                self.say_done()?;
            }
            Order::Churn { at_once } => {
                ensure!(self.conns.is_empty(), "the sessions are still open");
                self.batch = Batch::new(CHURN_BYTES, 1);
                self.work = Work::Churn;
                for place in 0..at_once {
                    self.connect(place)?;
                    self.busy += 1;
                }
                self.say_done()?;
            }
            Order::Paced { bytes, per_second, seconds, unmeasured_seconds } => {
                let plan = paced::Plan { bytes, per_second, seconds, unmeasured_seconds };
                let pace = self.pace(&plan)?;
                say(&Answer::Paced(pace))?;
            }
            Order::Leave => {
                self.work = Work::Leaving { next: 0 };
                for _ in 0..AT_ONCE {
                    self.leave_next()?;
                }
            }
            Order::Count | Order::Halt => {}
        }
        Ok(())
    }

    fn serve(&mut self, ready: Ready) -> Result<()> {
        let place = usize::try_from(ready.token)?;
        let Some(conn) = self.conns.get_mut(place) else { return Ok(()) };
        let news = conn.turn(ready, &self.poller, Some(&mut self.batch), &mut self.buffer, &mut |_| ())?;
        self.advance(place, &news)
    }

    /// The next step of who has just been served.
    fn advance(&mut self, place: usize, news: &News) -> Result<()> {
        let conn = &mut self.conns[place];
        match self.work {
            Work::Opening { .. } if news.has_opened => {
                self.busy -= 1;
                self.open_next()?;
            }
            Work::Once { .. } if news.echoes > 0 => {
                self.busy -= 1;
                self.done += 1;
                self.send_next()?;
            }
            Work::Echo => {
                self.done += news.echoes;
                if news.echoes > 0 && conn.awaited == 0 {
                    if self.is_halting {
                        self.busy -= 1;
                    } else {
                        conn.send(&self.poller, &mut self.batch)?;
                    }
                }
            }
            Work::Churn if news.has_opened => conn.send(&self.poller, &mut self.batch)?,
            Work::Churn if news.echoes > 0 => conn.leave(&self.poller)?,
            Work::Churn if news.has_gone => {
                self.done += 1;
                if self.is_halting {
                    self.busy -= 1;
                } else {
                    self.connect(place)?;
                }
            }
            Work::Leaving { .. } if news.has_gone => {
                self.busy -= 1;
                self.leave_next()?;
            }
            Work::Nothing | Work::Opening { .. } | Work::Once { .. } | Work::Churn | Work::Leaving { .. } => {
            }
        }
        Ok(())
    }

    fn connect(&mut self, place: usize) -> Result<()> {
        let conn = Conn::start(&self.target, self.number, place as u64, &self.poller)?;
        self.number += 1;
        if place == self.conns.len() {
            self.conns.push(conn);
        } else {
            self.conns[place] = conn;
        }
        Ok(())
    }

    fn open_next(&mut self) -> Result<()> {
        let Work::Opening { left: left @ 1.. } = &mut self.work else { return Ok(()) };
        *left -= 1;
        self.busy += 1;
        self.connect(self.conns.len())
    }

    fn send_next(&mut self) -> Result<()> {
        let Work::Once { next } = &mut self.work else { return Ok(()) };
        let Some(conn) = self.conns.get_mut(*next) else { return Ok(()) };
        *next += 1;
        self.busy += 1;
        conn.send(&self.poller, &mut self.batch)
    }

    fn leave_next(&mut self) -> Result<()> {
        let Work::Leaving { next } = &mut self.work else { return Ok(()) };
        let Some(conn) = self.conns.get_mut(*next) else { return Ok(()) };
        ensure!(conn.phase() == Phase::Open, "every session is open until it leaves");
        *next += 1;
        self.busy += 1;
        conn.leave(&self.poller)
    }

    fn say_done(&self) -> Result<()> {
        say(&Answer::Done { seconds: Moment::now().seconds_since(self.started) })
    }
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    out.flush().context("nobody listens")
}
