//! Drives one session: sockets and the clock on one side, the session machine on the other.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use pulsegate_core::{Cause, Leg, Opcode, SessionId, Violation};
use pulsegate_heartbeat::KernelView;
use pulsegate_registry::{Ending, Entry, Order, Session};
use tokio::io::AsyncWrite;

use super::alarm::Alarm;
use super::line::Line;
use super::mailbox::Mailbox;
use super::notes::tell_of_peer;
use super::vigil;
use crate::front::Place;
use crate::shared::{Shared, clock};

/// Passes over both sockets in one poll; then other tasks get their turn.
const PASSES_MAX: usize = 16;

/// One session, as the task that owns it sees it.
///
/// A future that finishes when both connections are over. Each poll works until nothing more can be done
/// without waiting: flush, read and forward, let the machine decide, carry out its orders, and again.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry<Mailbox>>,
    pub(super) session: Session,
    pub(super) lines: [Line; 2],
    alarm: Alarm,
    /// Messages of the app that it was told have arrived.
    pub(super) receipted: u64,
    /// The client connection's place; last, so that it is free only when the socket is closed.
    place: Place,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry<Mailbox>>,
        session: Session,
        lines: [Line; 2],
        place: Place,
        now: Instant,
    ) -> Driver {
        let alarm = Alarm::new(shared.started, session.poll_timeout().unwrap_or(now));
        Driver { shared, entry, session, lines, alarm, receipted: 0, place }
    }

    pub(super) fn id(&self) -> SessionId {
        self.entry.id()
    }

    /// Returns why the session ended; only meaningful when it has.
    pub(super) fn into_ending(self) -> Ending {
        self.session.ending().expect("a session that is over has its reason").clone()
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
            for leg in Leg::BOTH {
                progress |= self.carry_out(leg, now);
            }
            progress |= self.place_messages(now);
            progress |= self.ask_what_is_read(now);
            self.tell();
            if self.session.is_finished() {
                // The sockets are dropped right after: the last chance for what still waits.
                for line in &mut self.lines {
                    line.flush_last(cx);
                }
                self.publish();
                // A deadline that ended the session was waited for as well.
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
        if let Some(order) = mail.end {
            self.session.handle_end(order.reason, order.frame, now);
        }
    }

    /// Writes what waits for `leg`; returns whether something changed.
    fn flush(&mut self, leg: Leg, cx: &mut Context<'_>, now: Instant) -> bool {
        let line = &mut self.lines[leg.index()];
        let Some(stream) = &mut line.stream else { return false };
        let mut progress = false;
        if !line.outbox.is_empty() {
            match line.outbox.flush(stream, cx) {
                Ok(taken) => {
                    progress = taken > 0;
                    self.note_written(leg, taken, now);
                }
                Err(error) => {
                    self.note_broken(leg, &error, now);
                    return true;
                }
            }
        }
        let line = &mut self.lines[leg.index()];
        line.settle_pong();
        if line.finishing && !line.finished && line.outbox.is_empty() {
            line.finished = true;
            if let Some(stream) = &mut line.stream {
                // An error here means that the connection is gone, which the next read tells as well.
                let _ = Pin::new(stream).poll_shutdown(cx);
            }
            self.session.handle_finished(leg);
        }
        progress
    }

    /// Keeps the machine's stall clock: it runs while bytes wait and the socket takes none.
    pub(super) fn note_written(&mut self, leg: Leg, taken: usize, now: Instant) {
        if taken > 0 {
            self.session.handle_written(leg, taken, now);
        }
        let line = &mut self.lines[leg.index()];
        let blocked = !line.outbox.is_empty();
        if blocked {
            self.session.handle_write_blocked(leg, now);
            if !line.blocked {
                self.shared.metrics.leg(leg).write_stalls.increment(1);
            }
        }
        line.blocked = blocked;
        if leg == Leg::Client && !blocked {
            self.session.handle_taken(now);
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        for leg in Leg::BOTH {
            let line = &mut self.lines[leg.index()];
            if line.reading && !self.session.is_closing() && line.clock.handle_timeout(now) {
                self.violate(leg, Violation::FrameTooSlow, now);
            }
        }
        if self.session.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        let views = Leg::BOTH.map(|leg| self.kernel_view(leg, now));
        self.session.handle_timeout(now, views);
    }

    /// Looks at the kernel only when the machine is about to judge. What the readiness events have not
    /// told yet (many sockets became ready at once) is looked up: bytes that wait are life, and a connection
    /// that our kernel gave up is over.
    fn kernel_view(&mut self, leg: Leg, now: Instant) -> Option<KernelView> {
        let look = self.session.wants_kernel_view(leg, now)?;
        match self.lines[leg.index()].look(look)? {
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

    /// Does what the machine wants done with the socket of `leg`; returns whether something changed.
    fn carry_out(&mut self, leg: Leg, now: Instant) -> bool {
        let mut progress = false;
        while let Some(order) = self.session.poll_order(leg) {
            progress = true;
            let line = &mut self.lines[leg.index()];
            match order {
                // Within a frame there is no place for a Close frame: FIN is all that can be said.
                Order::Close(frame) => {
                    if leg == Leg::Client {
                        self.ask_a_last_time(now);
                    }
                    let line = &mut self.lines[leg.index()];
                    if !line.push_close(frame.as_ref()) {
                        line.finishing = true;
                    }
                }
                Order::Finish => line.finishing = true,
                Order::Abandon(cause, farewell) => {
                    line.abandon(farewell.as_ref());
                    self.abandon(leg, cause);
                }
            }
        }
        progress | self.probe(leg, now)
    }

    /// Writes a probe to `leg` if one is due and may go now; returns whether there was one.
    pub(super) fn probe(&mut self, leg: Leg, now: Instant) -> bool {
        let line = &mut self.lines[leg.index()];
        let Some(ahead) = line.control_place() else { return false };
        let Some(probe) = self.session.poll_probe(leg, now, ahead, line.probe_len()) else { return false };
        line.push_in_place(Opcode::Ping, &probe.to_payload());
        self.shared.metrics.leg(leg).probes_sent.increment(1);
        true
    }

    /// Gives up on a peer that was declared dead. Its socket stays open for a while, to see whether the
    /// verdict was right.
    fn abandon(&mut self, leg: Leg, cause: Cause) {
        let place = (leg == Leg::Client).then(|| self.place.clone());
        if let Some(stream) = self.lines[leg.index()].take_stream() {
            vigil::keep(&self.shared, stream, place, self.entry.id(), leg, cause);
        }
    }

    /// Tells the world what the machine notes.
    fn tell(&mut self) {
        while let Some(note) = self.session.poll_note() {
            // First the registry: who hears of it in the feed and asks finds it there.
            self.publish();
            if let Some(note) = tell_of_peer(&self.shared, self.id(), note) {
                self.tell_delivery(note);
            }
        }
    }

    /// Shows the registry what the detectors know: once a poll, not once a pass.
    fn publish(&self) {
        for leg in Leg::BOTH {
            self.entry.publish(leg, self.session.detector(leg));
        }
        self.entry.publish_delivery(&self.session.progress());
    }

    /// The peer's connection ended; returns true, since that changes something.
    pub(super) fn hang_up(&mut self, leg: Leg, now: Instant) -> bool {
        self.lines[leg.index()].drop_stream();
        self.session.handle_hangup(leg, now);
        true
    }

    /// Writing to `leg` failed. Not the end yet: what it sent before (its Close, say) may still wait to be
    /// read. Only where our kernel gave up is there nothing to wait for.
    pub(super) fn note_broken(&mut self, leg: Leg, error: &io::Error, now: Instant) {
        self.lines[leg.index()].break_off();
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

    /// The peer broke a rule: nothing more of it is understood, what comes is read away.
    pub(super) fn violate(&mut self, leg: Leg, violation: Violation, now: Instant) {
        let line = &mut self.lines[leg.index()];
        line.kept = Box::default();
        self.session.handle_violation(leg, violation, now);
    }

    /// Waits until what is due next.
    fn wait(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        // An end has its own limit, so the clocks of frames no longer count, nor may they wake us.
        let clocks = self
            .lines
            .iter()
            .filter(|line| line.reading && !self.session.is_closing())
            .filter_map(|line| line.clock.poll_timeout());
        let due = clocks.chain(self.session.poll_timeout()).min();
        self.set_alarm(due, cx, now);
        Poll::Pending
    }

    /// Sets the timer, and tells how late it was if it has just fired.
    fn set_alarm(&mut self, due: Option<Instant>, cx: &mut Context<'_>, now: Instant) {
        if let Some(lag) = self.alarm.poll(self.shared.started, due, now, cx) {
            self.shared.metrics.timer_lag(lag);
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.work(cx)
    }
}

/// Returns whether our kernel says that the peer can't be reached, rather than that it hung up: no
/// acknowledgement within `TCP_USER_TIMEOUT`, or no route.
pub(super) fn is_given_up(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    [TimedOut, HostUnreachable, NetworkUnreachable].contains(&error.kind())
}
