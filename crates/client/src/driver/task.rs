//! The task that owns the machine and its socket.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::{Duration, Instant};

use pulsegate_core::v1::{Fate, Outgoing};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;
use tokio_tungstenite::tungstenite::http::Uri;

use super::socket::{Dialed, Input, Socket, dial};
use super::{Delivered, DeliveryError, Order, Payload, Submission, UrlError};
use crate::config::ClientConfig;
use crate::event::{Event, SendError};
use crate::machine::Machine;

/// Limit for TCP and the handshake together.
const DIAL_WITHIN: Duration = Duration::from_secs(10);

/// One place reads the clock.
#[allow(clippy::disallowed_methods, reason = "the one place in the client that reads the clock")]
pub(super) fn clock() -> Instant {
    Instant::now()
}

type Dialing = Pin<Box<dyn Future<Output = Dialed> + Send>>;
type End = oneshot::Sender<Result<Delivered, DeliveryError>>;

/// The machine with a socket, and those who talk with it.
pub(super) struct Task {
    uri: Uri,
    machine: Machine<u64>,
    socket: Option<Box<Socket>>,
    dialing: Option<Dialing>,
    submissions: mpsc::Receiver<Submission>,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<Event>,
    handled: watch::Receiver<u64>,
    /// Waits for room in the window; those behind it wait for it.
    first: Option<Submission>,
    ends: HashMap<u64, End>,
    tags: u64,
}

/// Why the task woke.
enum Wake {
    Order(Order),
    Input(Input),
    Dialed(Dialed),
    Timeout,
    Room(bool),
    Submission(Submission),
    Handled(u64),
}

impl Task {
    pub(super) fn new(
        url: &str,
        config: ClientConfig,
        submissions: mpsc::Receiver<Submission>,
        orders: mpsc::Receiver<Order>,
        events: mpsc::Sender<Event>,
        handled: watch::Receiver<u64>,
    ) -> Result<Task, UrlError> {
        let uri: Uri = url.parse().map_err(|_| UrlError(url.to_owned()))?;
        if uri.scheme_str() != Some("ws") || uri.host().is_none() {
            return Err(UrlError(url.to_owned()));
        }
        // Only the handle knows what the app has taken.
        let config = ClientConfig { manual_ack: true, ..config };
        let machine = Machine::new(config, fastrand::u64(..), clock());
        Ok(Task {
            uri,
            machine,
            socket: None,
            dialing: None,
            submissions,
            orders,
            events,
            handled,
            first: None,
            ends: HashMap::new(),
            tags: 0,
        })
    }

    /// Runs until it is over and everything was told.
    pub(super) async fn run(mut self) {
        loop {
            self.place_first();
            self.tell_fates();
            if self.machine.is_done() && !self.machine.has_event() {
                return;
            }
            if !self.machine.is_attached() {
                self.socket = None;
                self.dial_if_due();
            }
            match self.wait().await {
                Wake::Order(order) => self.follow(order),
                Wake::Input(input) => self.handle_input(input),
                Wake::Dialed(dialed) => self.handle_dialed(dialed),
                Wake::Timeout => self.machine.handle_timeout(clock()),
                Wake::Room(true) => {
                    let event = self.machine.poll_event(clock());
                    // There is room, and nobody else who sends.
                    let _ = event.map(|event| self.events.try_send(event));
                }
                Wake::Room(false) => return,
                Wake::Submission(submission) => self.first = Some(submission),
                Wake::Handled(messages) => self.machine.handled(messages, clock()),
            }
        }
    }

    /// Waits for whatever comes first. Input goes before the clock: what already waits is read before anybody is called
    /// silent.
    async fn wait(&mut self) -> Wake {
        let at = self.wake_at();
        let has_event = self.machine.has_event();
        let Task { machine, socket, dialing, submissions, orders, events, handled, first, .. } = self;
        tokio::select! {
            biased;
            Some(order) = orders.recv() => Wake::Order(order),
            input = read(socket, machine), if socket.is_some() => Wake::Input(input),
            dialed = answer(dialing), if dialing.is_some() => Wake::Dialed(dialed),
            () = sleep_until(at.unwrap_or_else(clock).into()), if at.is_some() => Wake::Timeout,
            Ok(()) = handled.changed() => Wake::Handled(*handled.borrow_and_update()),
            room = events.reserve(), if has_event => Wake::Room(room.is_ok()),
            Some(submission) = submissions.recv(), if first.is_none() => Wake::Submission(submission),
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let dial_at = self.machine.poll_connect_at().filter(|_| self.dialing.is_none());
        self.machine.poll_timeout().into_iter().chain(dial_at).min()
    }

    fn dial_if_due(&mut self) {
        let due = self.machine.poll_connect_at().is_some_and(|at| at <= clock());
        if due && self.dialing.is_none() {
            self.dialing = Some(Box::pin(dial(self.uri.clone(), self.machine.offer(), DIAL_WITHIN)));
        }
    }

    fn handle_dialed(&mut self, dialed: Dialed) {
        self.dialing = None;
        match dialed {
            Dialed::Open(socket, protocol) => {
                self.machine.handle_open(protocol.as_deref(), clock());
                self.socket = Some(socket);
            }
            Dialed::Refused => self.machine.handle_open(None, clock()),
            Dialed::Failed => self.machine.handle_lost(clock()),
        }
    }

    fn handle_input(&mut self, input: Input) {
        let now = clock();
        match input {
            Input::Text(text) => self.machine.handle_text(&text, now),
            Input::Binary(frame) => self.machine.handle_binary(&frame, now),
            Input::SignOfLife => self.machine.handle_sign_of_life(now),
            Input::Close(close) => {
                let code = close.as_ref().map(|close| close.code.into());
                self.machine.handle_close(code, close.as_ref().map_or("", |close| &close.reason), now);
            }
            Input::Lost => self.machine.handle_lost(now),
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Close => {
                self.dialing = None;
                self.machine.close(clock());
            }
            Order::Cut => {
                if let Some(socket) = self.socket.take() {
                    socket.cut();
                    self.machine.handle_lost(clock());
                }
            }
        }
    }

    /// Gives the message that waits to the machine, if there is room.
    fn place_first(&mut self) {
        let Some(Submission { payload, ttl, taken, end }) = self.first.take() else { return };
        let bytes = match &payload {
            Payload::Text(text) => text.len(),
            Payload::Binary(bytes) => bytes.len(),
        };
        if !self.machine.has_room(bytes) && !self.machine.is_done() {
            self.first = Some(Submission { payload, ttl, taken, end });
            self.machine.handle_crowded(clock());
            return;
        }
        let (text, payload) = match payload {
            Payload::Text(text) => (true, text.into_bytes()),
            Payload::Binary(bytes) => (false, bytes),
        };
        self.tags += 1;
        let tag = end.is_some().then_some(self.tags);
        let now = clock();
        let message = Outgoing {
            text,
            payload: payload.into(),
            expires_at: ttl.map(|ttl| now + ttl),
            ack_now: end.is_some(),
            key: None,
            tag,
        };
        let result: Result<u64, SendError> = self.machine.send(message, now);
        if result.is_ok() {
            self.ends.extend(tag.zip(end));
        }
        // Its author may have left.
        let _ = taken.send(result);
    }

    fn tell_fates(&mut self) {
        while let Some((tag, fate)) = self.machine.poll_fate() {
            let Some(end) = self.ends.remove(&tag) else { continue };
            // Its author may have left.
            let _ = end.send(match fate {
                Fate::Handled => Ok(Delivered),
                Fate::Refused(code) => Err(DeliveryError::Refused(code)),
                Fate::Expired(sent) => Err(DeliveryError::Expired(sent)),
            });
        }
    }
}

async fn read(socket: &mut Option<Box<Socket>>, machine: &mut Machine<u64>) -> Input {
    match socket {
        Some(socket) => socket.next(machine).await,
        None => std::future::pending().await,
    }
}

async fn answer(dialing: &mut Option<Dialing>) -> Dialed {
    match dialing {
        Some(dialing) => dialing.await,
        None => std::future::pending().await,
    }
}
