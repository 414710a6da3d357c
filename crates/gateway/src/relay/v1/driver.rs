//! Drives one session: sockets and the clock on one side, the session machine on the other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pulsegate_core::{EndReason, Leg, SessionId, Violation};
use pulsegate_heartbeat::KernelView;
use pulsegate_registry::{Dial, Ending, Entry, LastWord, Order, Parting, Progress, V1Note, V1Session};
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use super::super::alarm::Alarm;
use super::super::driver::is_given_up;
use super::super::mailbox::{AppArrival, Arrival, Mailbox};
use super::super::messages::tell_of_messages;
use super::super::notes::tell_of_peer;
use super::super::vigil;
use super::{ClientLine, V1Line, app_line, client_line, parting};
use crate::feed::What;
use crate::front::Redial;
use crate::shared::{Shared, clock};
use crate::sys;

/// Passes over both sockets in one poll; then other tasks get their turn.
const PASSES_MAX: usize = 16;

/// One session, as the task that owns it sees it.
///
/// A future that finishes when the session is over and its app's connection as well. Each poll works until nothing more
/// can be done without waiting.
pub(super) struct V1Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry<Mailbox>>,
    pub(super) session: V1Session,
    /// Boxed: a session whose client is away takes no room for it.
    pub(super) client: Option<Box<ClientLine>>,
    pub(super) app: V1Line,
    alarm: Alarm,
    redial: Option<Arc<Redial>>,
    /// Messages of the app that it was told have arrived.
    receipted: u64,
}

impl V1Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry<Mailbox>>,
        session: V1Session,
        client: Box<ClientLine>,
        app: V1Line,
        redial: Option<Arc<Redial>>,
        now: Instant,
    ) -> V1Driver {
        let alarm = Alarm::new(shared.started, session.poll_timeout().unwrap_or(now));
        V1Driver { shared, entry, session, client: Some(client), app, alarm, redial, receipted: 0 }
    }

    pub(super) fn id(&self) -> SessionId {
        self.entry.id()
    }

    /// Returns why the session ended, and what is left to say; only when it has.
    pub(super) fn into_end(self) -> (Ending, Option<Box<LastWord>>) {
        let ending = self.session.ending().expect("a session that is over has its reason").clone();
        (ending, Some(Box::new(self.session.into_last_word())))
    }

    pub(super) fn line(&mut self, leg: Leg) -> Option<&mut V1Line> {
        match leg {
            Leg::Client => self.client.as_mut().map(|client| &mut client.line),
            Leg::App => Some(&mut self.app),
        }
    }

    fn work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = clock();
        self.take_mail(cx, now);
        for _ in 0..PASSES_MAX {
            let mut progress = false;
            for leg in Leg::BOTH {
                progress |= self.flush(leg, cx, now);
            }
            for leg in Leg::BOTH {
                progress |= self.read(leg, cx, now);
            }
            // Only now: a late timer must not condemn a peer whose bytes were waiting to be read.
            self.handle_timeouts(now);
            self.dial(now);
            progress |= self.transmit(now);
            progress |= self.give_again(now);
            progress |= self.part();
            progress |= self.carry_out();
            progress |= self.probe(now);
            self.tell();
            if self.session.is_finished() {
                self.part();
                self.app.line.flush_last(cx);
                self.publish();
                self.set_alarm(None, cx, now);
                return Poll::Ready(());
            }
            if !progress {
                self.publish();
                return self.wait(cx, now);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_mail(&mut self, cx: &mut Context<'_>, now: Instant) {
        let Some(mail) = self.entry.handle().poll(cx.waker()) else { return };
        for message in mail.messages {
            self.session.handle_message(message);
        }
        for arrival in mail.arrivals {
            self.take_arrival(arrival, now);
        }
        if let Some(arrival) = mail.app {
            self.take_app(arrival, now);
        }
        if let Some(order) = mail.end {
            self.session.handle_end(order.reason, order.frame, now);
        }
        if let Some(frame) = mail.eviction
            && !self.session.is_attached()
        {
            self.session.handle_end(EndReason::Limit, frame, now);
        }
    }

    /// A client wants its session back.
    fn take_arrival(&mut self, arrival: Arrival, now: Instant) {
        let Arrival { hello, peer, stream, early, place } = arrival;
        // Here, on the thread of the session, whose runtime has to know the socket.
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(id = %self.id(), %error, "the connection was lost on the way to its session");
                return;
            }
        };
        if early.is_empty() && sys::is_over(&stream) {
            tracing::debug!(id = %self.id(), "a client has given this connection up that wanted its session back");
            return;
        }
        match self.session.handle_hello(&hello, now) {
            Err(refusal) => parting::refuse(&self.shared, stream, place, refusal),
            Ok(()) => {
                self.shared.parking.leave(self.entry.id());
                self.part();
                sys::prepare(&stream, &self.shared.session_limits.client);
                let line = client_line(stream, &self.shared, now);
                self.client = Some(Box::new(ClientLine { line, peer, place }));
                // That it is back is told while it is there: it may be gone again with the next bytes.
                self.tell();
                self.take_early(Leg::Client, &early, now);
            }
        }
    }

    /// Dials the app again, when the machine wants that; what comes of it is left in the mailbox.
    fn dial(&mut self, now: Instant) {
        let Some(Dial { repeats, until }) = self.session.poll_dial(now) else { return };
        let Some(redial) = self.redial.clone() else { return };
        let (shared, entry) = (Arc::clone(&self.shared), Arc::clone(&self.entry));
        self.shared.connections.spawn(async move {
            // A gateway that leaves dials nobody: its sessions have their end soon.
            let dialled = redial.dial(&shared, entry.handle(), repeats);
            // One that waits for its turn for longer than its session for the app would dial for nobody.
            let dialled = shared.stop.run_until_cancelled(timeout_at(until.into(), dialled)).await;
            if let Some(Ok(Some(arrival))) = dialled {
                entry.handle().app_arrive(arrival);
            }
        });
    }

    /// Takes what came of dialing the app again.
    fn take_app(&mut self, arrival: AppArrival, now: Instant) {
        match arrival {
            AppArrival::Later => self.session.handle_dial_failed(None, now),
            AppArrival::Refused(told) => self.session.handle_dial_failed(Some(&told), now),
            AppArrival::Here { stream, early } => match TcpStream::from_std(stream) {
                Err(_) => self.session.handle_dial_failed(None, now),
                Ok(stream) if self.session.handle_app_dialled(fastrand::u64(..), now) => {
                    sys::prepare(&stream, &self.shared.session_limits.app);
                    self.app = app_line(stream, &self.shared, now);
                    self.take_early(Leg::App, &early, now);
                }
                Ok(_) => {}
            },
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        for leg in Leg::BOTH {
            if let Some(line) = self.line(leg)
                && line.line.reading
                && line.line.clock.handle_timeout(now)
            {
                self.violate(leg, Violation::FrameTooSlow, now);
            }
        }
        if self.session.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        let views = Leg::BOTH.map(|leg| self.kernel_view(leg, now));
        self.session.handle_timeout(now, views);
    }

    fn kernel_view(&mut self, leg: Leg, now: Instant) -> Option<KernelView> {
        let look = self.session.wants_kernel_view(leg, now)?;
        match self.line(leg)?.line.look(look)? {
            Ok((waiting, view)) => {
                if waiting {
                    self.session.handle_bytes(leg, now);
                }
                view
            }
            Err(error) => {
                self.end_broken(leg, &error, now);
                None
            }
        }
    }

    /// Ends the client's connections that the session has done with; returns whether there was one.
    fn part(&mut self) -> bool {
        let mut progress = false;
        while let Some(parting) = self.session.poll_parting() {
            progress = true;
            let Some(client) = self.client.take() else { continue };
            let ClientLine { line: V1Line { mut line, .. }, place, .. } = *client;
            match parting {
                Parting::Close(frame) => parting::linger(&self.shared, line, &[], frame.as_ref(), place),
                Parting::End { words, frame } => {
                    parting::linger(&self.shared, line, &words, frame.as_ref(), place);
                }
                Parting::Abandon(cause, farewell) => {
                    line.abandon(farewell.as_ref());
                    if let Some(stream) = line.take_stream() {
                        vigil::keep(&self.shared, stream, Some(place), self.entry.id(), Leg::Client, cause);
                    }
                }
                Parting::Drop => {}
            }
        }
        progress
    }

    /// Does what the machine wants done with the app's socket; returns whether something changed.
    fn carry_out(&mut self) -> bool {
        let mut progress = false;
        while let Some(order) = self.session.poll_app_order() {
            progress = true;
            let line = &mut self.app.line;
            match order {
                Order::Close(frame) => {
                    if !line.push_close(frame.as_ref()) {
                        line.finishing = true;
                    }
                }
                Order::Finish => line.finishing = true,
                Order::Abandon(cause, farewell) => {
                    line.abandon(farewell.as_ref());
                    if let Some(stream) = line.take_stream() {
                        vigil::keep(&self.shared, stream, None, self.entry.id(), Leg::App, cause);
                    }
                }
            }
        }
        progress
    }

    /// Tells the world what the machine notes.
    fn tell(&mut self) {
        while let Some(note) = self.session.poll_note() {
            self.publish();
            let (shared, id) = (&self.shared, self.entry.id());
            match note {
                V1Note::Session(note) => {
                    if let Some(note) = tell_of_peer(shared, id, note) {
                        tell_of_messages(shared, &self.entry, &mut self.receipted, note);
                    }
                }
                V1Note::ToApp(note) => parting::tell_of_app(shared, note),
                V1Note::Detached(why) => {
                    tracing::debug!(%id, why = why.as_str(), "client detached");
                    shared.feed.publish(What::SessionDetached { id, why: why.as_str() });
                }
                V1Note::Resumed { outage, to_client } => {
                    shared.metrics.v1.resumed(outage);
                    if let Some(peer) = self.client.as_ref().map(|client| client.peer) {
                        tracing::debug!(%id, %peer, outage_seconds = outage.as_secs_f64(), "client resumed");
                        shared.feed.publish(What::SessionResumed { id, peer, outage, to_client });
                    }
                }
                V1Note::AppDetached(why) => {
                    tracing::debug!(%id, why = &*why, "app lost, waiting for it");
                    shared.feed.publish(What::SessionAppDetached { id, why });
                }
                V1Note::AppResumed { outage, again } => {
                    shared.metrics.v1.app_resumed(outage);
                    tracing::debug!(%id, outage_seconds = outage.as_secs_f64(), again, "app is back");
                    shared.feed.publish(What::SessionAppResumed { id, outage, again });
                }
                V1Note::RetransmittedToApp => shared.metrics.v1.retransmits_to_app.increment(1),
                V1Note::Duplicate => shared.metrics.v1.duplicates.increment(1),
                V1Note::Retransmitted => shared.metrics.v1.retransmits.increment(1),
            }
        }
    }

    /// Shows the registry what the machine knows: once a poll, not once a pass.
    fn publish(&self) {
        for leg in Leg::BOTH {
            if let Some(detector) = self.session.detector(leg) {
                self.entry.publish(leg, detector);
            }
        }
        let progress = self.session.progress();
        // One that is closing waits for nobody.
        if !self.session.is_attached() && !self.session.is_closing() {
            self.entry.publish_detached(Leg::Client);
            let kept = (progress.kept.bytes + progress.under_way.bytes) as usize;
            for victim in self.shared.parking.park(self.entry.id(), kept) {
                self.shared.evict(victim);
            }
        }
        if self.session.is_app_awaited() {
            self.entry.publish_detached(Leg::App);
        }
        self.entry.publish_delivery(&Progress {
            sent: progress.to_client.sent,
            kernel: progress.to_client.acked,
            received: progress.to_client.acked,
            open: progress.kept,
        });
        self.entry.publish_to_app(progress.under_way);
    }

    /// Writing to `leg` failed. What the peer sent before may still wait to be read.
    pub(super) fn note_broken(&mut self, leg: Leg, error: &io::Error, now: Instant) {
        if let Some(line) = self.line(leg) {
            line.line.break_off();
        }
        if is_given_up(error) {
            self.session.handle_socket_timeout(leg, now);
        }
    }

    /// Reading from `leg` failed; returns true, since that changes something.
    pub(super) fn end_broken(&mut self, leg: Leg, error: &io::Error, now: Instant) -> bool {
        if !is_given_up(error) {
            return self.hang_up(leg, now);
        }
        self.session.handle_socket_timeout(leg, now);
        true
    }

    /// The peer's connection ended; returns true, since that changes something.
    pub(super) fn hang_up(&mut self, leg: Leg, now: Instant) -> bool {
        if let Some(line) = self.line(leg) {
            line.line.drop_stream();
        }
        self.session.handle_hangup(leg, now);
        true
    }

    /// The peer broke a rule: nothing more of it is understood.
    pub(super) fn violate(&mut self, leg: Leg, violation: Violation, now: Instant) {
        if let Some(line) = self.line(leg) {
            line.line.kept = Box::default();
            line.backlog = false;
        }
        match leg {
            Leg::Client => self.session.handle_client_violation(violation, now),
            Leg::App => self.session.handle_app_violation(violation, now),
        }
    }

    /// Waits until what is due next.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let lines = self.client.iter().map(|client| &client.line).chain([&self.app]);
        let clocks = lines.filter(|line| line.line.reading).filter_map(|line| line.line.clock.poll_timeout());
        // What can't be written now is tried again when the socket takes more.
        let writable = self.client.as_ref().is_some_and(|client| client.line.line.takes_more());
        let transmit = self.session.poll_transmit_timeout().filter(|_| writable);
        let due = clocks.chain(self.session.poll_timeout()).chain(transmit).min();
        self.set_alarm(due, cx, now);
        Poll::Pending
    }

    fn set_alarm(&mut self, due: Option<Instant>, cx: &mut Context<'_>, now: Instant) {
        if let Some(lag) = self.alarm.poll(self.shared.started, due, now, cx) {
            self.shared.metrics.timer_lag(lag);
        }
    }
}

impl Future for V1Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.work(cx)
    }
}
