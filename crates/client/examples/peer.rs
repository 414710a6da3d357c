//! Clients of `pulsegate.v1` for tests: obeys JSON lines on stdin and reports JSON lines on stdout. It ends with stdin.
//!
//! A message is its client's name, `to_app` and its number, padded with dots: whoever reads both ends can tell what is
//! missing, doubled, or out of order.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, Write};
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use pulsegate_client::{
    Client, ClientConfig, Delivered, Delivery, DeliveryError, Event, Payload, SendError, Sender, UrlError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Interval, MissedTickBehavior, interval};

const ORDERS_MAX: usize = 64;
/// Messages of one client without an outcome. Beyond it a talker says nothing, as a page that watches its queue.
const OPEN_MAX: usize = 4096;

/// To the client of that name.
#[derive(Deserialize)]
struct Order {
    name: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum What {
    /// Begins a client; it comes back after at most that long.
    Connect {
        url: String,
        backoff_max_ms: u64,
    },
    /// Sends so many messages, longer by `padding`.
    Say {
        count: usize,
        padding: usize,
    },
    /// Sends a message every `pace_ms` from now on.
    Talk {
        pace_ms: u64,
    },
    Hush,
    /// Takes messages, or not: a page whose code is busy while its WebSocket stack goes on.
    Read {
        on: bool,
    },
    /// Cuts its connection with a reset.
    Cut,
    Close,
}

struct Peer {
    name: String,
    client: Client,
    sender: Sender,
    /// Number of the last message.
    said: u64,
    /// Said, and not yet begun to be sent: one is after the other, so that they stay in order.
    waiting: VecDeque<(u64, String)>,
    begin: Option<Beginning>,
    open: FuturesUnordered<Delivering>,
    talk: Option<Interval>,
    reads: bool,
}

/// A message's number, and its outcome.
type Ended = (u64, Result<Delivered, DeliveryError>);
type Delivering = Pin<Box<dyn Future<Output = Ended>>>;
type Beginning = Pin<Box<dyn Future<Output = (u64, Result<Delivery, SendError>)>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (orders, mut ordered) = mpsc::channel(ORDERS_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let order: Order = serde_json::from_str(&line).expect("an order in JSON");
            if orders.blocking_send(order).is_err() {
                return;
            }
        }
    });
    let local = LocalSet::new();
    let mut peers: HashMap<String, mpsc::Sender<What>> = HashMap::new();
    let work = async {
        while let Some(Order { name, what }) = ordered.recv().await {
            if let What::Connect { url, backoff_max_ms } = what {
                let (tell, told) = mpsc::channel(ORDERS_MAX);
                let peer = Peer::connect(name.clone(), &url, backoff_max_ms).expect("a URL to dial");
                peers.insert(name, tell);
                spawn_local(peer.run(told));
            } else {
                // A client that is over obeys no more.
                let _ = peers.get(&name).expect("a client of that name").send(what).await;
            }
        }
    };
    local.run_until(work).await;
}

impl Peer {
    fn connect(name: String, url: &str, backoff_max_ms: u64) -> Result<Peer, UrlError> {
        let backoff_max = Duration::from_millis(backoff_max_ms);
        let client = Client::connect(url, ClientConfig { backoff_max, ..ClientConfig::default() })?;
        let sender = client.sender();
        Ok(Peer {
            name,
            client,
            sender,
            said: 0,
            waiting: VecDeque::new(),
            begin: None,
            open: FuturesUnordered::new(),
            talk: None,
            reads: true,
        })
    }

    async fn run(mut self, mut orders: mpsc::Receiver<What>) {
        loop {
            self.begin_next();
            tokio::select! {
                Some(what) = orders.recv() => {
                    if matches!(what, What::Close) {
                        return self.close().await;
                    }
                    self.follow(what).await;
                }
                (number, begun) = pending(&mut self.begin) => self.handle_begun(number, begun),
                Some(ended) = self.open.next() => tell_outcome(&self.name, ended),
                event = self.client.next(), if self.reads => match event {
                    Some(event) => self.tell(event),
                    None => return settle(&self.name, self.open).await,
                },
                () = tick(&mut self.talk) => if self.open.len() + self.waiting.len() < OPEN_MAX { self.say(0) },
            }
        }
    }

    async fn follow(&mut self, what: What) {
        match what {
            What::Say { count, padding } => {
                for _ in 0..count {
                    self.say(padding);
                }
            }
            What::Talk { pace_ms } => {
                let mut pace = interval(Duration::from_millis(pace_ms));
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.talk = Some(pace);
            }
            What::Hush => {
                self.talk = None;
                self.report("hushed", json!({}));
            }
            What::Read { on } => self.reads = on,
            What::Cut => self.client.drop_connection().await,
            What::Connect { .. } | What::Close => {}
        }
    }

    fn say(&mut self, padding: usize) {
        self.said += 1;
        let number = self.said;
        let text = format!("{} to_app {number}{}", self.name, ".".repeat(padding));
        self.report("sent", json!({ "number": number }));
        self.waiting.push_back((number, text));
    }

    fn begin_next(&mut self) {
        if self.begin.is_some() {
            return;
        }
        if let Some((number, text)) = self.waiting.pop_front() {
            let sender = self.sender.clone();
            let begin = async move { (number, sender.begin_delivery(Payload::Text(text), None).await) };
            self.begin = Some(Box::pin(begin));
        }
    }

    fn handle_begun(&mut self, number: u64, begun: Result<Delivery, SendError>) {
        self.begin = None;
        match begun {
            Ok(delivery) => self.open.push(Box::pin(async move { (number, delivery.end().await) })),
            Err(error) => tell_outcome(&self.name, (number, Err(error.into()))),
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Live { resumed } => self.report("live", json!({ "resumed": resumed })),
            Event::Detached => self.report("detached", json!({})),
            Event::Reset { undelivered } => self.report("reset", json!({ "undelivered": undelivered })),
            Event::Message { seq, payload, .. } => {
                self.report("message", json!({ "seq": seq, "text": String::from_utf8_lossy(&payload) }));
            }
            Event::Unsupported => self.report("unsupported", json!({})),
            Event::Closed { code, reason } => {
                self.report("closed", json!({ "code": code, "reason": reason }));
            }
        }
    }

    /// Ends the session: what was sent goes out first.
    async fn close(self) {
        let Peer { name, client, open, .. } = self;
        client.close().await;
        settle(&name, open).await;
        report(&name, "closed", json!({ "code": 1000, "reason": "" }));
    }

    fn report(&self, event: &str, fields: Value) {
        report(&self.name, event, fields);
    }
}

/// Each message gets its outcome.
async fn settle(name: &str, mut open: FuturesUnordered<Delivering>) {
    while let Some(ended) = open.next().await {
        tell_outcome(name, ended);
    }
}

fn tell_outcome(name: &str, (number, outcome): Ended) {
    let outcome = outcome.map_or_else(|error| error.to_string(), |Delivered| "delivered".to_owned());
    report(name, "outcome", json!({ "number": number, "outcome": outcome }));
}

async fn pending(begin: &mut Option<Beginning>) -> (u64, Result<Delivery, SendError>) {
    match begin {
        Some(begin) => begin.await,
        None => std::future::pending().await,
    }
}

async fn tick(talk: &mut Option<Interval>) {
    match talk {
        Some(pace) => drop(pace.tick().await),
        None => std::future::pending().await,
    }
}

fn report(name: &str, event: &str, mut fields: Value) {
    fields["event"] = event.into();
    fields["name"] = name.into();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{fields}").and_then(|()| out.flush()).expect("somebody listens");
}
