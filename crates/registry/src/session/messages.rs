//! What a session does for the messages to its client.

use std::time::Instant;

use pulsegate_core::Leg;
use pulsegate_heartbeat::{KernelView, PongHabit, ProbeId};

use super::{Note, Session};
use crate::delivery::{Delivery, DeliveryNote, Message, Progress};

impl Session {
    /// Takes note that `messages` of the app, with so many bytes, were passed on to the client's line.
    pub fn handle_passed(&mut self, messages: u64, bytes: u64, now: Instant) {
        self.delivery.handle_passed(messages, bytes, &self.limits.delivery, now);
    }

    /// Takes a message for the client; its end will be told.
    pub fn handle_message(&mut self, message: Message) {
        let closing = self.closing.is_some();
        self.follow(|delivery, notes| {
            delivery.send(message);
            if closing {
                delivery.handle_closing(notes);
            }
        });
    }

    /// Returns whether a message of ours waits for a place between two of the app's.
    pub fn is_message_waiting(&self) -> bool {
        self.delivery.is_message_waiting()
    }

    /// Returns the next message to write to the client, if one waits. Call it only where no message of the app is under
    /// way, and write it behind everything else.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        self.delivery.poll_message(now)
    }

    /// Takes note that the client's socket has taken everything that was passed on.
    pub fn handle_taken(&mut self, now: Instant) {
        let position = self.detectors[Leg::Client.index()].written();
        self.follow(|delivery, notes| delivery.handle_taken(position, now, notes));
    }

    /// Returns whether a ping waits for a place between two messages.
    pub fn is_barrier_waiting(&self) -> bool {
        self.closing.is_none() && self.delivery.wants_barrier(self.can_answer())
    }

    /// Returns the ping to write to the client that will tell what it has read, if one is wanted; call it only where no
    /// message is under way, with `ahead` bytes before it that the socket has not taken, in a frame of `len` bytes.
    pub fn poll_barrier(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        // An answer that is not read would come late for no fault of the client's.
        if !self.is_barrier_waiting() || self.detectors[Leg::Client.index()].is_resting() {
            return None;
        }
        let id = self.detectors[Leg::Client.index()].poll_barrier(now, ahead, len)?;
        self.delivery.handle_barrier(id);
        Some(id)
    }

    /// Returns the ping to write to the client right before our Close frame, if one is wanted: what an app says and then
    /// closes is confirmed as well. A client that has closed itself answers no more.
    pub fn poll_last_barrier(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        let listens = !self.legs[Leg::Client.index()].close_received;
        if !listens || !self.delivery.wants_last_barrier(&self.limits.delivery, self.can_answer()) {
            return None;
        }
        let id = self.detectors[Leg::Client.index()].poll_barrier(now, ahead, len)?;
        self.delivery.handle_barrier(id);
        Some(id)
    }

    /// Returns how far the messages to the client have come.
    pub fn progress(&self) -> Progress {
        self.delivery.progress()
    }

    pub(super) fn note_pong(&mut self, id: ProbeId) {
        let rules = self.limits.delivery;
        self.follow(|delivery, notes| delivery.handle_pong(id, &rules, notes));
    }

    pub(super) fn note_closing(&mut self) {
        self.follow(|delivery, notes| delivery.handle_closing(notes));
    }

    /// With the client's connection all is over that was not confirmed.
    pub(super) fn note_leg_done(&mut self) {
        if !self.legs[Leg::Client.index()].is_done() {
            return;
        }
        let (rules, can_answer) = (self.limits.delivery, self.can_answer());
        self.follow(|delivery, notes| delivery.handle_end(&rules, can_answer, notes));
    }

    pub(super) fn handle_delivery_timeout(&mut self, kernel: Option<KernelView>, now: Instant) {
        let (rules, can_answer) = (self.limits.delivery, self.can_answer());
        let detector = &self.detectors[Leg::Client.index()];
        let (acked, is_read) = (kernel.map(|kernel| detector.delivered(kernel)), !detector.is_resting());
        self.follow(|delivery, notes| {
            if let Some(acked) = acked {
                delivery.handle_acked(acked, &rules, can_answer, notes);
            }
            delivery.handle_timeout(&rules, can_answer, is_read, now, notes);
        });
    }

    pub(super) fn poll_delivery_timeout(&self) -> Option<Instant> {
        self.delivery.poll_timeout(&self.limits.delivery, self.can_answer())
    }

    fn can_answer(&self) -> bool {
        self.detectors[Leg::Client.index()].pong_habit() != PongHabit::Never
    }

    fn follow(&mut self, work: impl FnOnce(&mut Delivery, &mut dyn FnMut(DeliveryNote))) {
        let notes = &mut self.notes;
        work(&mut self.delivery, &mut |note| notes.push_back(Note::Delivery(note)));
    }
}
