//! The app's connection, and what it is known to have of the client's messages.

use std::sync::Arc;
use std::time::Instant;

use pulsegate_core::v1::{NackCode, Outgoing};
use pulsegate_core::{CloseFrame, EndReason, Leg, Level, Violation};
use pulsegate_heartbeat::{Crowd, KernelView, Pong, PongHabit, ProbeId};

use super::{AppAck, Asked, Author, Staged, ToApp, V1Limits, V1Note, V1Session, Watched};
use crate::delivery::{Delivery, DeliveryNote, DeliveryRules};
use crate::session::{Ending, LegEnd, Order};

#[derive(Debug)]
pub(super) struct AppLeg {
    /// `None` once it is given up.
    pub(super) watched: Option<Watched>,
    pub(super) end: LegEnd,
    pub(super) delivery: Delivery,
    /// Its connection is over by then, once its end is under way.
    pub(super) deadline: Option<Instant>,
    /// So many of the messages that this connection was given are settled.
    settled: u64,
    /// Of those that waited so many may be without an answer.
    pub(super) unanswered_max: Option<u32>,
}

impl AppLeg {
    pub(super) fn new(limits: &V1Limits, crowd: &Arc<Crowd>, seed: u64, now: Instant) -> AppLeg {
        AppLeg {
            watched: Some(Watched::new(&limits.session.app, crowd, seed, now)),
            end: LegEnd::default(),
            delivery: Delivery::default(),
            deadline: None,
            settled: 0,
            unanswered_max: None,
        }
    }

    /// Whether messages may go to it.
    pub(super) fn is_open(&self) -> bool {
        !self.end.close_sent && !self.end.close_received && !self.end.is_done()
    }

    /// Whether it has handled something that this connection was given.
    pub(super) fn has_handled(&self) -> bool {
        self.settled > 0
    }

    pub(super) fn poll_order(&mut self) -> Option<Order> {
        let end = &mut self.end;
        // RFC 6455 section 7.1.1: the server closes the TCP connection first, unless it waits for us.
        end.finish |= end.input_over && end.close_sent && end.close_received;
        end.poll_order()
    }

    pub(super) fn poll_timeout(&self, limits: &V1Limits) -> Option<Instant> {
        self.delivery.poll_timeout(&limits.app_rules(), self.can_answer())
    }

    fn can_answer(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| watched.detector.pong_habit() != PongHabit::Never)
    }

    /// How many of the messages that were passed to it count as handled.
    fn handled(&self, app_ack: AppAck) -> u64 {
        match app_ack {
            AppAck::Written => self.delivery.taken(),
            AppAck::Received => self.delivery.come_to(self.can_answer()),
        }
    }
}

impl V1Session {
    /// Takes a whole message of the app. If there is no room for it, it is kept, and
    /// [`is_reading_app`](V1Session::is_reading_app) says no until there is. Returns whether it was taken: nobody is there any
    /// more once the end is under way.
    pub fn handle_app_message(&mut self, text: bool, payload: &[u8], now: Instant) -> bool {
        debug_assert!(self.staged.is_none(), "nothing is read while one has no room");
        if self.closing.is_some() {
            return false;
        }
        if self.out.has_room(payload.len()) {
            self.submit(text, payload.into(), now);
        } else {
            self.staged = Some(Staged { text, payload: payload.into() });
        }
        true
    }

    /// Returns whether the app's messages are taken: there is room to keep them.
    pub fn is_reading_app(&self) -> bool {
        self.closing.is_none() && self.farewell.is_none() && self.staged.is_none()
    }

    fn submit(&mut self, text: bool, payload: Box<[u8]>, now: Instant) {
        let message =
            Outgoing { text, payload, expires_at: None, ack_now: false, key: None, tag: Some(Author::App) };
        self.out.push(message, now);
    }

    /// Gives those room that wait for it.
    pub(super) fn make_room(&mut self, now: Instant) {
        if let Some(staged) = self.staged.take_if(|staged| self.out.has_room(staged.payload.len())) {
            self.submit(staged.text, staged.payload, now);
        }
        if self.staged.is_some() {
            return;
        }
        while let Some(message) = self.waiting.pop_front_if(|next| self.out.has_room(next.payload.len())) {
            let outgoing = Outgoing {
                text: message.text,
                payload: message.payload.as_ref().into(),
                expires_at: Some(message.expires_at),
                // Where a pong of its stack is enough the client's code need not hurry.
                ack_now: message.level == Level::Handled,
                key: None,
                tag: Some(Author::Order(Asked { id: message.id, level: message.level, reached: None })),
            };
            self.out.push(outgoing, now);
        }
    }

    pub(super) fn note_passed_to_app(&mut self, bytes: usize, now: Instant) {
        let rules = self.limits.app_rules();
        self.app.delivery.handle_passed(1, bytes as u64, &rules, now);
    }

    /// Takes note that the app's socket has taken everything that was passed on.
    pub fn handle_app_taken(&mut self, now: Instant) {
        let Some(watched) = &self.app.watched else { return };
        let position = watched.detector.written();
        self.follow_app(|delivery, _, _, notes| delivery.handle_taken(position, now, notes));
        self.note_app_progress(now);
    }

    /// Takes a pong of the app.
    pub fn handle_app_pong(&mut self, payload: &[u8], now: Instant) -> Pong {
        let Some(detector) = self.detector_mut(Leg::App) else { return Pong::Foreign };
        let pong = detector.handle_pong(payload, now);
        self.collect(Leg::App, now);
        match pong {
            Pong::Ours { id, .. } => {
                self.follow_app(|delivery, rules, _, notes| delivery.handle_pong(id, rules, notes));
                self.note_app_progress(now);
            }
            Pong::Foreign => {}
        }
        pong
    }

    /// Returns whether a probe or a barrier to the app waits for a place between two frames.
    pub fn is_app_ping_due(&self) -> bool {
        let probe = self.detector(Leg::App).is_some_and(|detector| detector.is_probe_due());
        self.closing.is_none() && (probe || self.is_barrier_waiting())
    }

    fn is_barrier_waiting(&self) -> bool {
        self.app.is_open() && self.app.delivery.wants_barrier(self.app.can_answer())
    }

    /// Returns the ping to write to the app, if one is due, with `ahead` bytes before it that the socket has not taken, in
    /// a frame of `len` bytes.
    pub fn poll_app_probe(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        if self.closing.is_some() {
            return None;
        }
        let id = self.detector_mut(Leg::App)?.poll_probe(now, ahead, len)?;
        self.app.delivery.handle_probe(id);
        Some(id)
    }

    /// Returns the ping that asks how far the app has read, if one is wanted: write it behind everything else. Also while
    /// the app is not read: its answer comes behind what there will be room for, and the client waits for its ACK.
    pub fn poll_barrier(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        if self.closing.is_some() || !self.is_barrier_waiting() {
            return None;
        }
        let id = self.detector_mut(Leg::App)?.poll_barrier(now, ahead, len)?;
        self.app.delivery.handle_barrier(id);
        Some(id)
    }

    pub(super) fn handle_app_delivery_timeout(&mut self, kernel: Option<KernelView>, now: Instant) {
        let Some(watched) = &self.app.watched else { return };
        let acked = kernel.map(|kernel| watched.detector.delivered(kernel));
        let is_read = !watched.detector.is_resting();
        self.follow_app(|delivery, rules, can_answer, notes| {
            if let Some(acked) = acked {
                delivery.handle_acked(acked, rules, can_answer, notes);
            }
            delivery.handle_timeout(rules, can_answer, is_read, now, notes);
        });
        self.note_app_progress(now);
    }

    fn follow_app(
        &mut self,
        work: impl FnOnce(&mut Delivery, &DeliveryRules, bool, &mut dyn FnMut(DeliveryNote)),
    ) {
        let (rules, can_answer, notes) = (self.limits.app_rules(), self.app.can_answer(), &mut self.notes);
        work(&mut self.app.delivery, &rules, can_answer, &mut |note| notes.push_back(V1Note::ToApp(note)));
    }

    /// What the app has is handled: the client gets its ACK.
    fn note_app_progress(&mut self, now: Instant) {
        let handled = self.app.handled(self.limits.app_ack);
        let news = handled.saturating_sub(self.app.settled);
        self.app.settled += news;
        self.under_way.settle(news);
        self.note_settled(now);
    }

    fn note_settled(&mut self, now: Instant) {
        self.inbound.handle_handled(self.inbound.passed() - self.under_way.len() as u64, now);
    }

    /// Returns the next message for the app that could not be written when it came.
    pub fn poll_app_message(&mut self, now: Instant) -> Option<ToApp<'_>> {
        if !self.is_app_open() {
            return None;
        }
        self.expire_waiting(now);
        if self.app.unanswered_max.is_some_and(|max| self.under_way.given() >= max as usize) {
            return None;
        }
        let bytes = self.under_way.next_bytes()?;
        self.note_passed_to_app(bytes, now);
        let (message, again) = self.under_way.give()?;
        if again {
            self.notes.push_back(V1Note::RetransmittedToApp);
        }
        Some(message)
    }

    /// Messages whose time is over never get to the app, and the client is told so.
    pub(super) fn expire_waiting(&mut self, now: Instant) {
        let (mut expired, mut messages, keys) = (Vec::new(), 0, &mut self.keys);
        self.under_way.expire(now, |seq, key, repeats| {
            messages += 1;
            expired.push(seq);
            expired.extend(repeats);
            if let (Some(keys), Some(key)) = (keys.as_mut(), key) {
                keys.remove(key);
            }
        });
        if expired.is_empty() {
            return;
        }
        expired.sort_unstable();
        self.tell_unsent_to_app(&expired, messages, NackCode::Expired);
        self.note_settled(now);
    }

    /// `messages` of them were followed: repeats are not.
    fn tell_unsent_to_app(&mut self, unsent: &[u64], messages: u64, code: NackCode) {
        for &seq in unsent {
            self.nacks.push(seq, code, self.limits.window.messages);
        }
        if !unsent.is_empty() {
            self.notes.push_back(V1Note::ToApp(DeliveryNote::Unsent(messages)));
        }
    }

    /// What still waits for the app waits no longer: what no connection was given never gets there, the rest may have.
    pub(super) fn give_waiting_up(&mut self) {
        self.hold = None;
        let (mut unsent, mut messages) = (Vec::new(), 0);
        let maybe = self.under_way.give_up(|seq, repeats| {
            messages += 1;
            unsent.push(seq);
            unsent.extend(repeats);
        });
        unsent.sort_unstable();
        self.tell_unsent_to_app(&unsent, messages, NackCode::AppGone);
        self.note_lost(maybe);
    }

    /// Takes a valid Close frame of the app. It gets its answer; the client gets what the app said before.
    pub fn handle_app_close(&mut self, frame: Option<CloseFrame>, now: Instant) {
        self.app.end.close_received = true;
        if !self.app.end.close_sent {
            self.app.end.order(Order::Close(frame.clone()));
        }
        let told = frame.as_ref().map_or_else(|| "1005".to_owned(), ToString::to_string);
        let ending = Ending {
            reason: EndReason::Closed,
            leg: Some(Leg::App),
            close: frame,
            detail: None,
            verdict: None,
        };
        self.lose_app(ending, &told, now);
    }

    /// Takes note that the app sent FIN. Returns whether it is to be kept for the answer to its Close frame (RFC 6455
    /// section 7.1.1); if not, it has hung up.
    pub fn handle_app_input_over(&mut self) -> bool {
        let end = &mut self.app.end;
        end.input_over = end.close_received;
        end.input_over
    }

    pub(super) fn handle_app_hangup(&mut self, now: Instant) {
        self.app.end.hang_up();
        let detail = Some("connection cut without a closing handshake");
        let ending =
            Ending { reason: EndReason::Reset, leg: Some(Leg::App), close: None, detail, verdict: None };
        self.lose_app(ending, "1006 app connection lost", now);
    }

    /// Takes note that FIN went out to the app.
    pub fn handle_app_finished(&mut self) {
        let end = &mut self.app.end;
        end.done |= end.input_over || (end.close_sent && end.close_received);
    }

    /// Takes note that the app broke RFC 6455 or a limit.
    pub fn handle_app_violation(&mut self, violation: Violation, now: Instant) {
        let frame = CloseFrame::new(violation.close_code(), violation.as_str());
        if !self.app.end.close_sent && !self.app.end.is_done() {
            self.app.end.order(Order::Close(Some(frame.clone())));
        }
        self.app.end.deaf = true;
        self.app.end.finish = true;
        let reason = if violation.is_limit() { EndReason::Limit } else { EndReason::ProtocolError };
        let detail = Some(violation.as_str());
        let ending = Ending { reason, leg: Some(Leg::App), close: Some(frame), detail, verdict: None };
        self.lose_app(ending, "1011 app broke the protocol", now);
    }

    /// The app takes nothing any more, and says nothing.
    pub(super) fn lose_app(&mut self, ending: Ending, told: &str, now: Instant) {
        if self.closing.is_some() || self.farewell.is_some() {
            return self.forget_app();
        }
        if self.is_app_awaited() {
            return;
        }
        self.app.deadline = Some(now + self.limits.session.close_timeout);
        if self.hold(&ending, told, now) {
            // An app that leaves without an answer may look like one that never answers, of whose kernel's word the ACK is
            // made; but its next connection gets what it has not answered for.
            let lost = self.end_app_delivery(true);
            let again = self.under_way.restart();
            self.note_lost(lost.saturating_sub(again));
            self.notes.push_back(V1Note::AppDetached(told.into()));
        } else {
            self.forget_app();
            self.bid_farewell(ending, told, now);
        }
    }

    /// Nobody judges the app any more. Of what it is not known to have nothing more will be known: the client gets neither
    /// ACK nor NACK for it.
    pub(super) fn forget_app(&mut self) {
        let lost = self.end_app_delivery(self.app.can_answer());
        self.note_lost(lost);
    }

    /// Ends the watch over the app's connection; returns how many messages it is not known to have.
    fn end_app_delivery(&mut self, can_answer: bool) -> u64 {
        let Some(mut watched) = self.app.watched.take() else { return 0 };
        watched.member.set_missing(false);
        let (rules, notes, mut lost) = (self.limits.app_rules(), &mut self.notes, 0);
        self.app.delivery.handle_end(&rules, can_answer, &mut |note| match note {
            DeliveryNote::Lost(messages) => lost += messages,
            note @ (DeliveryNote::Sent(_)
            | DeliveryNote::Settled(..)
            | DeliveryNote::Confirmed(..)
            | DeliveryNote::Unsent(_)
            | DeliveryNote::Rejected(_)) => {
                notes.push_back(V1Note::ToApp(note));
            }
        });
        lost
    }

    fn note_lost(&mut self, messages: u64) {
        if messages > 0 {
            self.notes.push_back(V1Note::ToApp(DeliveryNote::Lost(messages)));
        }
    }

    /// Returns whether what the app sends still counts, or its Close frame is still waited for.
    pub fn is_awaiting_app(&self) -> bool {
        let end = &self.app.end;
        !end.close_received && !end.deaf && !end.is_done()
    }

    /// Returns whether messages of the client may go to the app.
    pub fn is_app_open(&self) -> bool {
        self.app.is_open() && self.closing.is_none()
    }
}
