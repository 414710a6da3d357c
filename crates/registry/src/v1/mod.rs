//! A session of a client that speaks `pulsegate.v1` (PROTOCOL.md): it outlives the client's connections.
//!
//! [`client`] is what the client's connection says and is told, [`app`] the same of the app's, [`life`] how the session
//! parks, resumes and ends, [`hold`] how it waits for an app that restarts, [`tokens`] who may resume it.

mod app;
mod client;
mod hold;
mod keys;
mod life;
mod nacks;
mod orders;
#[cfg(test)]
mod tests;
mod tokens;
mod transmit;
mod under_way;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pulsegate_core::v1::{ReceiveWindow, Secret, SendWindow};
use pulsegate_core::{Leg, SessionId};
use pulsegate_heartbeat::{Crowd, Detector, KernelView, Limits, Look, Member};

use crate::delivery::{Message, Unsettled};
use crate::session::Order;
use app::AppLeg;
use client::ClientLeg;
pub use hold::Dial;
use hold::Hold;
use keys::Keys;
pub use life::LastWord;
use life::{Away, Closing, Farewell};
use nacks::Nacks;
use orders::Asked;
use tokens::Tokens;
pub use transmit::Write;
use under_way::UnderWay;
pub use words::{AppAck, Counters, Detached, Hello, Parting, Refusal, ToApp, V1Limits, V1Note, V1Progress};

/// Who sent a message to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    App,
    /// Somebody over the control API.
    Order(Asked),
}

/// A message of the app for which there is no room yet.
#[derive(Debug)]
struct Staged {
    text: bool,
    payload: Box<[u8]>,
}

/// One session.
///
/// The driver tells what happens through `handle_*`, then drains [`poll_note`](V1Session::poll_note),
/// [`poll_parting`](V1Session::poll_parting), [`poll_app_order`](V1Session::poll_app_order), writes what
/// [`poll_transmit`](V1Session::poll_transmit) says to the client, and probes as [`poll_client_probe`](V1Session::poll_client_probe), [`poll_app_probe`](V1Session::poll_app_probe) and
/// [`poll_barrier`](V1Session::poll_barrier) say, gives the app what [`poll_app_message`](V1Session::poll_app_message)
/// says, asks as [`poll_client_barrier`](V1Session::poll_client_barrier) says, and dials the app when [`poll_dial`](V1Session::poll_dial) does; it comes back at [`poll_timeout`](V1Session::poll_timeout) and stops when
/// [`is_finished`](V1Session::is_finished).
#[derive(Debug)]
pub struct V1Session {
    limits: Arc<V1Limits>,
    crowds: [Arc<Crowd>; 2],
    id: SessionId,
    tokens: Tokens,
    /// Rises with every connection of the client.
    generation: u64,
    client: Option<Box<ClientLeg>>,
    app: AppLeg,
    /// To the client.
    out: SendWindow<Author>,
    staged: Option<Staged>,
    /// Messages of the control API for which there is no room yet.
    waiting: VecDeque<Message>,
    /// From the client.
    inbound: ReceiveWindow,
    under_way: UnderWay,
    nacks: Nacks,
    keys: Option<Box<Keys>>,
    /// The client has no connection.
    away: Option<Away>,
    /// The app's connection is lost, or was so a short while ago.
    hold: Option<Box<Hold>>,
    /// The app is gone; the client still gets what the app said before.
    farewell: Option<Box<Farewell>>,
    /// The end is under way.
    closing: Option<Box<Closing>>,
    partings: VecDeque<Parting>,
    notes: VecDeque<V1Note>,
}

impl V1Session {
    /// Starts with the connection that begins the session, and a connection to the app.
    pub fn new(
        limits: Arc<V1Limits>,
        crowds: &[Arc<Crowd>; 2],
        id: SessionId,
        hello: &Hello,
        now: Instant,
    ) -> V1Session {
        let app = AppLeg::new(&limits, &crowds[Leg::App.index()], hello.seed.rotate_left(32) ^ 1, now);
        let mut session = V1Session {
            crowds: crowds.clone(),
            id,
            tokens: Tokens::new(&hello.next),
            generation: 0,
            client: None,
            app,
            out: SendWindow::new(limits.window),
            staged: None,
            waiting: VecDeque::new(),
            inbound: ReceiveWindow::new(limits.ack_rules()),
            under_way: UnderWay::default(),
            nacks: Nacks::default(),
            keys: None,
            away: None,
            hold: None,
            farewell: None,
            closing: None,
            partings: VecDeque::new(),
            notes: VecDeque::new(),
            limits,
        };
        session.attach(hello, false, now);
        session
    }

    /// Takes note that bytes came from `leg`.
    pub fn handle_bytes(&mut self, leg: Leg, now: Instant) {
        if let Some(detector) = self.detector_mut(leg) {
            detector.handle_bytes(now);
            self.collect(leg, now);
        }
    }

    /// Takes note whether we read `leg`: while we don't (back-pressure) its silence is no evidence.
    pub fn handle_reading(&mut self, leg: Leg, reading: bool, now: Instant) {
        let Some(detector) = self.detector_mut(leg) else { return };
        if reading {
            detector.handle_resume(now);
        } else {
            detector.handle_rest(now);
        }
        if leg == Leg::App && reading {
            self.app.delivery.handle_resume(now);
        }
        self.collect(leg, now);
    }

    /// Takes note that bytes wait for `leg` and its socket takes none.
    pub fn handle_write_blocked(&mut self, leg: Leg, now: Instant) {
        if let Some(detector) = self.detector_mut(leg) {
            detector.handle_write_blocked(now);
        }
    }

    /// Takes note that the socket of `leg` took `bytes`.
    pub fn handle_written(&mut self, leg: Leg, bytes: usize, now: Instant) {
        if let Some(detector) = self.detector_mut(leg) {
            detector.handle_written(bytes, now);
            self.collect(leg, now);
        }
    }

    /// Takes note that our kernel gave the connection of `leg` up.
    pub fn handle_socket_timeout(&mut self, leg: Leg, now: Instant) {
        if self.closing.is_none()
            && let Some(detector) = self.detector_mut(leg)
        {
            detector.handle_socket_timeout(now);
            self.collect(leg, now);
        } else {
            self.handle_hangup(leg, now);
        }
    }

    /// Takes note that a peer's connection ended without a Close frame, by FIN or RST, or after one.
    pub fn handle_hangup(&mut self, leg: Leg, now: Instant) {
        match leg {
            Leg::Client => self.handle_client_hangup(now),
            Leg::App => self.handle_app_hangup(now),
        }
    }

    /// Returns what of the kernel's view of `leg` [`handle_timeout`](V1Session::handle_timeout) at `now` should be given.
    pub fn wants_kernel_view(&self, leg: Leg, now: Instant) -> Option<Look> {
        self.detector(leg).filter(|_| self.closing.is_none())?.wants_kernel_view(now)
    }

    /// Does what is due at `now`; `kernel` per leg. Read what waits in the sockets first.
    pub fn handle_timeout(&mut self, now: Instant, kernel: [Option<KernelView>; 2]) {
        for leg in Leg::BOTH {
            self.handle_detector_timeout(leg, now, kernel[leg.index()]);
        }
        self.handle_client_delivery_timeout(kernel[Leg::Client.index()], now);
        self.handle_app_delivery_timeout(kernel[Leg::App.index()], now);
        self.expire(now);
        self.handle_page_timeout(now);
        self.expire_waiting(now);
        self.handle_hold_timeout(now);
        self.handle_life_timeout(now);
    }

    /// Returns when [`handle_timeout`](V1Session::handle_timeout) has something to do, or
    /// [`poll_transmit`](V1Session::poll_transmit).
    pub fn poll_timeout(&self) -> Option<Instant> {
        if let Some(closing) = &self.closing {
            return Some(closing.deadline);
        }
        let detectors = Leg::BOTH.iter().filter_map(|leg| self.detector(*leg)?.poll_timeout());
        let waiting = self.waiting.iter().map(|message| message.expires_at);
        detectors
            .chain(self.app.poll_timeout(&self.limits))
            .chain(self.out.poll_timeout())
            .chain(waiting)
            .chain(self.poll_client_timeout())
            .chain(self.poll_client_delivery_timeout())
            .chain(self.under_way.poll_timeout())
            .chain(self.poll_hold_timeout())
            .chain(self.poll_life_timeout())
            .min()
    }

    /// Returns what to do with a connection of the client that is over for the session; those that came before it first.
    pub fn poll_parting(&mut self) -> Option<Parting> {
        take_first(&mut self.partings, self.client.is_none())
    }

    /// Returns the next thing to do with the app's socket.
    pub fn poll_app_order(&mut self) -> Option<Order> {
        self.app.poll_order()
    }

    /// Returns the next thing to tell.
    pub fn poll_note(&mut self) -> Option<V1Note> {
        take_first(&mut self.notes, self.client.is_none())
    }

    /// Returns the number of the client's present or latest connection, from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether the client has a connection.
    pub fn is_attached(&self) -> bool {
        self.client.is_some()
    }

    /// Returns whether an end is under way.
    pub fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the detector of `leg`, to read.
    pub fn detector(&self, leg: Leg) -> Option<&Detector> {
        match leg {
            Leg::Client => self.client.as_ref().map(|client| &client.watched.detector),
            Leg::App => self.app.watched.as_ref().map(|watched| &watched.detector),
        }
    }

    /// Gives back memory that is held for nothing; for moments at which nothing goes on.
    fn shrink(&mut self) {
        self.out.shrink();
        self.inbound.shrink();
        self.under_way.shrink();
        self.waiting.shrink_to_fit();
        self.partings.shrink_to_fit();
        self.notes.shrink_to_fit();
    }

    fn detector_mut(&mut self, leg: Leg) -> Option<&mut Detector> {
        self.watched(leg).map(|watched| &mut watched.detector)
    }

    fn watched(&mut self, leg: Leg) -> Option<&mut Watched> {
        match leg {
            Leg::Client => self.client.as_mut().map(|client| &mut client.watched),
            Leg::App => self.app.watched.as_mut(),
        }
    }

    /// Returns how far the messages have come.
    pub fn progress(&self) -> V1Progress {
        let kept = self.out.len() + usize::from(self.staged.is_some()) + self.waiting.len();
        let staged = self.staged.iter().map(|staged| staged.payload.len());
        let waiting = self.waiting.iter().map(|message| message.payload.len());
        V1Progress {
            to_client: Counters {
                accepted: self.out.acked() + self.out.len() as u64,
                sent: self.out.reached(),
                acked: self.out.acked(),
            },
            to_app: Counters {
                accepted: self.inbound.received(),
                sent: self.inbound.passed() - self.under_way.unsent(),
                acked: self.inbound.handled(),
            },
            kept: Unsettled {
                messages: kept as u64,
                bytes: (self.out.bytes() + staged.chain(waiting).sum::<usize>()) as u64,
                since: self.out.oldest_pushed_at(),
            },
            under_way: Unsettled {
                messages: self.under_way.len() as u64,
                bytes: self.under_way.bytes() as u64,
                since: self.under_way.oldest(),
            },
        }
    }
}

/// What is empty takes no memory while the client is away, which may be for long.
fn take_first<T>(queue: &mut VecDeque<T>, is_away: bool) -> Option<T> {
    let first = queue.pop_front();
    if first.is_none() && is_away && queue.capacity() > 0 {
        *queue = VecDeque::new();
    }
    first
}

/// A peer and its place among all of its kind.
#[derive(Debug)]
struct Watched {
    detector: Detector,
    member: Member,
}

impl Watched {
    fn new(limits: &Arc<Limits>, crowd: &Arc<Crowd>, seed: u64, now: Instant) -> Watched {
        Watched { detector: Detector::new(Arc::clone(limits), seed, now), member: crowd.join() }
    }
}

/// Makes the text of a token.
fn token_text(session: SessionId, secret: Secret) -> String {
    pulsegate_core::v1::Token { session, secret }.to_string()
}
