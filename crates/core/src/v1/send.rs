//! What was sent and is not acknowledged: the replay buffer.

use std::collections::VecDeque;
use std::time::Instant;

use super::envelope::{NackCode, SkipReason};
use crate::delivery::Sent;

/// How much may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Messages.
    pub messages: usize,
    /// Payload bytes; a message that is larger than all of it may go alone.
    pub bytes: usize,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing<T> {
    /// It goes as a text frame, not as a binary one.
    pub text: bool,
    /// What it carries.
    pub payload: Box<[u8]>,
    /// If it has not begun to leave by then, it never does.
    pub expires_at: Option<Instant>,
    /// Its author waits for the ACK.
    pub ack_now: bool,
    /// The same for a message that its author sends again.
    pub key: Option<Box<[u8]>>,
    /// Names it for whoever wants to know its end.
    pub tag: Option<T>,
}

/// How a message with a tag ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The other side has handled it.
    Handled,
    /// The other side refused it.
    Refused(NackCode),
    /// Its time was over, or there is nobody any more to send it to.
    Expired(Sent),
}

/// What to write next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit<'a, T> {
    /// A message.
    Message {
        /// Its number.
        seq: u64,
        /// The message.
        message: &'a Outgoing<T>,
        /// It was sent before, on an earlier connection.
        again: bool,
    },
    /// A SKIP.
    Skip {
        /// Over so many numbers.
        count: u64,
        /// What became of them.
        reason: SkipReason,
    },
}

/// An ACK for what was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckError;

/// A place to resume from that the buffer does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

/// Keeps messages from when they are pushed until they are acknowledged, and says which of them to write.
///
/// It holds exactly the numbers behind the last acknowledged one. On a new connection [`resume`](SendWindow::resume)
/// says from where to write again; only an ACK makes room.
#[derive(Debug)]
pub struct SendWindow<T> {
    limit: Window,
    /// What the other side allows, if that is less.
    peer: Option<Window>,
    acked: u64,
    /// The latest number written on this connection.
    sent: u64,
    /// The latest number that was ever written.
    reached: u64,
    slots: VecDeque<Slot<T>>,
    bytes: usize,
    /// Bytes of those that were written on this connection, or had come before it.
    flight: usize,
    /// Slots that were never written and have a time limit.
    limited: usize,
}

#[derive(Debug)]
struct Slot<T> {
    content: Content<T>,
    pushed_at: Instant,
    /// When it was written on this connection.
    sent_at: Option<Instant>,
}

#[derive(Debug)]
enum Content<T> {
    Message(Outgoing<T>),
    Gone(SkipReason),
}

type Fates<'a, T> = &'a mut dyn FnMut(T, Fate);

impl<T: Copy> SendWindow<T> {
    /// Starts empty.
    pub fn new(limit: Window) -> SendWindow<T> {
        SendWindow {
            limit,
            peer: None,
            acked: 0,
            sent: 0,
            reached: 0,
            slots: VecDeque::new(),
            bytes: 0,
            flight: 0,
            limited: 0,
        }
    }

    /// Takes note of how much the other side allows.
    pub fn set_peer_window(&mut self, window: Window) {
        self.peer = Some(window);
    }

    /// Returns whether a message of `bytes` may be pushed.
    pub fn has_room(&self, bytes: usize) -> bool {
        let peer = self.peer.unwrap_or(self.limit);
        let messages_max = self.limit.messages.min(peer.messages).max(1);
        let bytes_max = self.limit.bytes.min(peer.bytes);
        self.slots.is_empty()
            || (self.slots.len() < messages_max && self.bytes.saturating_add(bytes) <= bytes_max)
    }

    /// Takes a message and gives it the next number; ask [`has_room`](SendWindow::has_room) first.
    pub fn push(&mut self, message: Outgoing<T>, now: Instant) -> u64 {
        self.bytes += message.payload.len();
        self.limited += usize::from(message.expires_at.is_some());
        self.slots.push_back(Slot { content: Content::Message(message), pushed_at: now, sent_at: None });
        self.last()
    }

    /// Returns what to write next, if something is to be written. Whatever is returned counts as written.
    pub fn poll_transmit(&mut self, now: Instant, fates: Fates<'_, T>) -> Option<Transmit<'_, T>> {
        let first = self.place(self.sent + 1);
        let mut skipped = None;
        while self.sent < self.last() {
            let place = self.place(self.sent + 1);
            self.expire(place, now, fates);
            let Content::Gone(reason) = self.slots[place].content else { break };
            if skipped.is_some_and(|known| known != reason) {
                break;
            }
            skipped = Some(reason);
            self.note_sent(place, now);
        }
        if let Some(reason) = skipped {
            let count = (self.place(self.sent + 1) - first) as u64;
            return Some(Transmit::Skip { count, reason });
        }
        if !self.has_unsent() || !self.may_fly(first) {
            return None;
        }
        let again = self.sent < self.reached;
        self.note_sent(first, now);
        let seq = self.sent;
        match &self.slots[first].content {
            Content::Message(message) => Some(Transmit::Message { seq, message, again }),
            Content::Gone(_) => None,
        }
    }

    /// Whether the other side allows one more: what was pushed before it said how much may be waiting.
    fn may_fly(&self, place: usize) -> bool {
        let (Some(peer), Content::Message(message)) = (self.peer, &self.slots[place].content) else {
            return true;
        };
        let messages = self.sent - self.acked;
        let fits = self.flight.saturating_add(message.payload.len()) <= peer.bytes;
        messages == 0 || ((messages as usize) < peer.messages && fits)
    }

    /// Returns whether something is to be written, now or when the other side allows it.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.last()
    }

    /// Takes an ACK for everything up to `handled`. One that says nothing new changes nothing.
    ///
    /// # Errors
    /// It is for what was not written on this connection or before.
    pub fn handle_ack(&mut self, handled: u64, fates: Fates<'_, T>) -> Result<(), AckError> {
        if handled > self.sent {
            return Err(AckError);
        }
        while self.acked < handled {
            let Some(slot) = self.slots.pop_front() else { break };
            self.acked += 1;
            if let Content::Message(message) = slot.content {
                self.bytes -= message.payload.len();
                self.flight -= message.payload.len();
                if let Some(tag) = message.tag {
                    fates(tag, Fate::Handled);
                }
            }
        }
        Ok(())
    }

    /// Takes note that the other side refused a message: it has its end, and an ACK may pass it.
    ///
    /// # Errors
    /// It is for what was not written.
    pub fn handle_nack(&mut self, seq: u64, code: NackCode, fates: Fates<'_, T>) -> Result<(), AckError> {
        if seq == 0 || seq > self.sent {
            return Err(AckError);
        }
        if seq > self.acked {
            let place = self.place(seq);
            self.drop_content(place, SkipReason::Dropped, Fate::Refused(code), fates);
        }
        Ok(())
    }

    /// Goes back to the first message that the other side lacks, on a new connection.
    ///
    /// # Errors
    /// It lacks what was acknowledged, or has what was never written.
    pub fn resume(&mut self, received: u64, now: Instant) -> Result<(), PositionError> {
        if received < self.acked || received > self.reached {
            return Err(PositionError);
        }
        self.sent = received;
        // What the other side allows it says anew.
        self.peer = None;
        self.flight = 0;
        for (seq, slot) in (self.acked + 1..).zip(&mut self.slots) {
            // What has come needs no second time, and its ACK is awaited from here on.
            slot.sent_at = (seq <= received).then_some(now);
            if let (Content::Message(message), true) = (&slot.content, seq <= received) {
                self.flight += message.payload.len();
            }
        }
        Ok(())
    }

    /// Gives those an end that were never written and whose time is over.
    pub fn handle_timeout(&mut self, now: Instant, fates: Fates<'_, T>) {
        if self.limited == 0 {
            return;
        }
        for place in self.place(self.reached + 1)..self.slots.len() {
            self.expire(place, now, fates);
        }
    }

    /// Returns when [`handle_timeout`](SendWindow::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.limited == 0 {
            return None;
        }
        let unsent = self.slots.iter().skip(self.place(self.reached + 1));
        let times = unsent.filter_map(|slot| match &slot.content {
            Content::Message(message) => message.expires_at,
            Content::Gone(_) => None,
        });
        times.min()
    }

    /// Gives all that is left its end: nobody is there any more to send it to.
    pub fn handle_end(&mut self, fates: Fates<'_, T>) {
        for (seq, slot) in (self.acked + 1..).zip(self.slots.drain(..)) {
            if let Content::Message(Outgoing { tag: Some(tag), .. }) = slot.content {
                let sent = if seq <= self.reached { Sent::Maybe } else { Sent::No };
                fates(tag, Fate::Expired(sent));
            }
        }
        (self.bytes, self.limited, self.flight) = (0, 0, 0);
        self.slots = VecDeque::new();
    }

    /// Takes note, before its end, of how much the other side has received of a session: what is behind that was never
    /// passed on, and never will be.
    pub fn handle_last_received(&mut self, received: u64) {
        self.reached = self.reached.min(received);
    }

    /// Gives `work` the tag of each message that is kept, with its number. It may take it away: then nobody is told of the end.
    pub fn for_each_tag(&mut self, mut work: impl FnMut(u64, &mut Option<T>)) {
        for (seq, slot) in (self.acked + 1..).zip(&mut self.slots) {
            if let Content::Message(message) = &mut slot.content {
                work(seq, &mut message.tag);
            }
        }
    }

    /// Gives back memory that is held for no message.
    pub fn shrink(&mut self) {
        self.slots.shrink_to_fit();
    }

    /// Returns how many messages the other side has handled.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Returns the latest number written on this connection.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Returns the latest number that was ever written.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Returns how many messages are not acknowledged.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns whether everything is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the payload bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when the oldest message that is kept was pushed.
    pub fn oldest_pushed_at(&self) -> Option<Instant> {
        self.slots.front().map(|slot| slot.pushed_at)
    }

    /// Returns when the oldest message without an ACK was written on this connection.
    pub fn oldest_sent_at(&self) -> Option<Instant> {
        self.slots.front().and_then(|slot| slot.sent_at)
    }

    fn last(&self) -> u64 {
        self.acked + self.slots.len() as u64
    }

    fn place(&self, seq: u64) -> usize {
        (seq - self.acked - 1) as usize
    }

    fn note_sent(&mut self, place: usize, now: Instant) {
        self.sent += 1;
        if self.sent > self.reached {
            self.reached = self.sent;
            if let Content::Message(Outgoing { expires_at: Some(_), .. }) = self.slots[place].content {
                self.limited -= 1;
            }
        }
        let slot = &mut self.slots[place];
        slot.sent_at = Some(now);
        if let Content::Message(message) = &slot.content {
            self.flight += message.payload.len();
        }
    }

    /// Gives the message at `place` its end if its time is over.
    fn expire(&mut self, place: usize, now: Instant, fates: Fates<'_, T>) {
        let Content::Message(message) = &self.slots[place].content else { return };
        if message.expires_at.is_none_or(|at| now < at) {
            return;
        }
        let seq = self.acked + 1 + place as u64;
        let sent = if seq <= self.reached { Sent::Maybe } else { Sent::No };
        self.drop_content(place, SkipReason::Expired, Fate::Expired(sent), fates);
    }

    fn drop_content(&mut self, place: usize, reason: SkipReason, fate: Fate, fates: Fates<'_, T>) {
        let is_unsent = place >= self.place(self.reached + 1);
        let is_in_flight = place < self.place(self.sent + 1);
        let slot = &mut self.slots[place];
        if let Content::Message(message) = std::mem::replace(&mut slot.content, Content::Gone(reason)) {
            self.bytes -= message.payload.len();
            self.flight -= if is_in_flight { message.payload.len() } else { 0 };
            self.limited -= usize::from(is_unsent && message.expires_at.is_some());
            if let Some(tag) = message.tag {
                fates(tag, fate);
            }
        }
    }
}
