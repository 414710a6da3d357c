//! A client over tokio: one task owns the machine and its socket.

mod socket;
mod task;

use std::time::Duration;

use pulsegate_core::Sent;
use pulsegate_core::v1::NackCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::task::Task;
use crate::config::ClientConfig;
use crate::event::{Event, SendError};

/// Messages on their way to the task; it holds those that wait for room in the window.
const SUBMISSIONS_MAX: usize = 16;
const ORDERS_MAX: usize = 4;

/// What a message carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
}

/// The app's code has handled the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered;

/// Why a message was not delivered, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It was not taken.
    #[error("not taken: {0}")]
    NotTaken(#[from] SendError),
    /// The gateway refused it.
    #[error("refused: {0:?}")]
    Refused(NackCode),
    /// Its time or its session was over first.
    #[error("expired; sent: {0:?}")]
    Expired(Sent),
}

/// The URL can't be dialed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of a WebSocket without TLS: {0}")]
pub struct UrlError(String);

/// A session with the app behind a gateway; it comes back by itself after a drop.
///
/// Dropping it cuts the connection without a word: the gateway keeps the session for its time.
#[derive(Debug)]
pub struct Client {
    sender: Sender,
    events: mpsc::Receiver<Event>,
    /// Messages that were handled, of all that were given.
    handled: watch::Sender<u64>,
    given: u64,
    manual_ack: bool,
    task: JoinHandle<()>,
}

/// The sending half of a [`Client`].
#[derive(Clone, Debug)]
pub struct Sender {
    submissions: mpsc::Sender<Submission>,
    orders: mpsc::Sender<Order>,
}

/// A message that was taken.
#[derive(Debug)]
pub struct Delivery {
    seq: u64,
    ended: oneshot::Receiver<Result<Delivered, DeliveryError>>,
}

#[derive(Debug)]
struct Submission {
    payload: Payload,
    ttl: Option<Duration>,
    taken: oneshot::Sender<Result<u64, SendError>>,
    end: Option<oneshot::Sender<Result<Delivered, DeliveryError>>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Close,
    Cut,
}

impl Client {
    /// Begins to dial `url` (`ws://`) on a task of the current runtime, again and again until it is live; messages can be
    /// sent at once.
    ///
    /// # Errors
    /// The URL can't be dialed.
    pub fn connect(url: &str, config: ClientConfig) -> Result<Client, UrlError> {
        let manual_ack = config.manual_ack;
        let (submissions, submitted) = mpsc::channel(SUBMISSIONS_MAX);
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        // An event waits in the machine until it is taken: what is in between can't be counted by anybody.
        let (told, events) = mpsc::channel(1);
        let (handled, handling) = watch::channel(0);
        let task = Task::new(url, config, submitted, ordered, told, handling)?;
        let task = tokio::spawn(task.run());
        let sender = Sender { submissions, orders };
        Ok(Client { sender, events, handled, given: 0, manual_ack, task })
    }

    /// Returns a half that sends, for use beside [`next`](Client::next).
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, payload: Payload) -> Result<u64, SendError> {
        self.sender.send(payload).await
    }

    /// As [`Sender::deliver`].
    ///
    /// # Errors
    /// As there.
    pub async fn deliver(&self, payload: Payload, ttl: Option<Duration>) -> Result<Delivered, DeliveryError> {
        self.sender.deliver(payload, ttl).await
    }

    /// Waits for the next event; `None` when it is over. A message counts as handled when it was returned, unless
    /// `manual_ack` is set. While nobody asks, no more than the inbox is read, and with it no acknowledgement.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await?;
        if let Event::Message { .. } = event {
            self.given += 1;
            if !self.manual_ack {
                self.handled.send_replace(self.given);
            }
        }
        Some(event)
    }

    /// Says, with `manual_ack`, that all messages which [`next`](Client::next) returned were handled.
    pub fn ack(&self) {
        self.handled.send_replace(self.given);
    }

    /// Ends the session: what was sent goes out first. Messages that were not taken are lost.
    pub async fn close(mut self) {
        // It may be over already.
        let _ = self.sender.orders.send(Order::Close).await;
        while self.events.recv().await.is_some() {}
    }

    /// Cuts the TCP connection with a reset, as a bad network does. For tests.
    pub async fn drop_connection(&self) {
        let _ = self.sender.orders.send(Order::Cut).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Delivery {
    /// Returns its number in its session.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It was not delivered, or nobody knows.
    pub async fn end(self) -> Result<Delivered, DeliveryError> {
        // A task that is aborted tells nothing more.
        self.ended.await.unwrap_or(Err(DeliveryError::Expired(Sent::Maybe)))
    }
}

impl Sender {
    /// Waits for room in the window, gives the message to the session and returns its number.
    ///
    /// # Errors
    /// It was not taken.
    ///
    /// # Cancel safety
    /// Whether the message is sent is not known.
    pub async fn send(&self, payload: Payload) -> Result<u64, SendError> {
        self.submit(payload, None, None).await
    }

    /// Sends a message and waits for its end. `ttl`: after that it is not sent any more.
    ///
    /// # Errors
    /// It was not delivered, or nobody knows.
    ///
    /// # Cancel safety
    /// As [`send`](Sender::send).
    pub async fn deliver(&self, payload: Payload, ttl: Option<Duration>) -> Result<Delivered, DeliveryError> {
        self.begin(payload, ttl).await?.end().await
    }

    /// Sends a message, and returns when it has its number; its end may be awaited later. So many can be under way whose
    /// order is certain, which it is not among calls that wait at the same time.
    ///
    /// # Errors
    /// It was not taken.
    ///
    /// # Cancel safety
    /// As [`send`](Sender::send).
    pub async fn begin(&self, payload: Payload, ttl: Option<Duration>) -> Result<Delivery, SendError> {
        let (end, ended) = oneshot::channel();
        let seq = self.submit(payload, ttl, Some(end)).await?;
        Ok(Delivery { seq, ended })
    }

    async fn submit(
        &self,
        payload: Payload,
        ttl: Option<Duration>,
        end: Option<oneshot::Sender<Result<Delivered, DeliveryError>>>,
    ) -> Result<u64, SendError> {
        let (taken, answer) = oneshot::channel();
        let submission = Submission { payload, ttl, taken, end };
        self.submissions.send(submission).await.map_err(|_| SendError::Closed)?;
        answer.await.unwrap_or(Err(SendError::Closed))
    }
}
