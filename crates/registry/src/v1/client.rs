//! The client's connection: what its frames say.

use std::time::{Duration, Instant};

use pulsegate_core::v1::{Ack, AckError, After, COUNT_MAX, Code, Envelope, Fate, NackCode, Secret, Window};
use pulsegate_core::{CloseFrame, EndReason, Leg, Level, Outcome, Sent, Violation};
use pulsegate_heartbeat::{Pong, ProbeId};

use super::life::AppEnd;
use super::{Asked, Author, Detached, Parting, ToApp, V1Note, V1Session, Watched};
use crate::delivery::{Delivery, DeliveryNote};
use crate::session::{Ending, Note};

/// The client's connection, while there is one.
#[derive(Debug)]
pub(super) struct ClientLeg {
    pub(super) watched: Watched,
    /// A WELCOME is to be written, with this secret: did the client come back?
    pub(super) welcome: Option<(Secret, bool)>,
    /// No frame has come yet.
    pub(super) is_fresh: bool,
    /// When its code was last told something.
    pub(super) told_at: Instant,
    /// When the PROBE was written that has no answer yet.
    pub(super) probed_at: Option<Instant>,
    /// When its code last said something, or was asked for the first time since.
    pub(super) page_heard_at: Instant,
    /// How far messages of the control API have come on it; nothing before the first that wants to know.
    pub(super) delivery: Option<Box<Delivery>>,
    /// What was said of its next message.
    meta: NextMessage,
    /// It has said BYE.
    bye: bool,
}

#[derive(Debug, Default)]
struct NextMessage {
    ack_now: bool,
    expires_at: Option<Instant>,
    key: Option<Box<[u8]>>,
}

/// Why the session ends by a fault of the client.
struct Fault(Code, &'static str);

impl ClientLeg {
    pub(super) fn new(watched: Watched, welcome: (Secret, bool), now: Instant) -> ClientLeg {
        ClientLeg {
            watched,
            welcome: Some(welcome),
            is_fresh: true,
            told_at: now,
            probed_at: None,
            page_heard_at: now,
            delivery: None,
            meta: NextMessage::default(),
            bye: false,
        }
    }
}

impl V1Session {
    /// Takes a whole message of the client; returns what of it is for the app.
    pub fn handle_client_message<'a>(
        &mut self,
        text: bool,
        payload: &'a [u8],
        now: Instant,
    ) -> Option<ToApp<'a>> {
        if self.closing.is_some() {
            return None;
        }
        let client = self.client.as_mut()?;
        if std::mem::replace(&mut client.is_fresh, false) {
            self.tokens.settle();
        }
        client.page_heard_at = now;
        let taken = if text {
            self.take_message(true, payload, now)
        } else {
            match Envelope::parse(payload) {
                Ok(envelope) => self.take_envelope(envelope, now),
                Err(error) => Err(Fault(Code::ProtocolError, error.as_str())),
            }
        };
        taken.unwrap_or_else(|Fault(code, reason)| {
            self.end_by_fault(code, reason, now);
            None
        })
    }

    fn take_envelope<'a>(
        &mut self,
        envelope: Envelope<'a>,
        now: Instant,
    ) -> Result<Option<ToApp<'a>>, Fault> {
        let Some(client) = &mut self.client else { return Ok(None) };
        match envelope {
            Envelope::Binary(payload) => return self.take_message(false, payload, now),
            Envelope::Ack(ack) => self.take_ack(ack)?,
            Envelope::ProbeAck(ack) => {
                client.probed_at = None;
                self.take_ack(ack)?;
            }
            Envelope::Probe => self.inbound.handle_probe(),
            Envelope::Skip { count, .. } => {
                if count > COUNT_MAX - self.inbound.received() {
                    return Err(Fault(Code::ProtocolError, "SKIP beyond all numbers"));
                }
                self.inbound.handle_gap(count, now);
            }
            Envelope::Meta(meta) => {
                // Its time limit counts until it is passed on: at once, unless the app is away.
                let expires_at = meta.ttl_ms.and_then(|ttl| now.checked_add(Duration::from_millis(ttl)));
                let key = meta.key.map(Into::into);
                client.meta = NextMessage { ack_now: meta.ack_now, expires_at, key };
            }
            Envelope::Nack { seq, code, .. } => self.take_nack(seq, code)?,
            Envelope::Bye { .. } => client.bye = true,
            Envelope::Welcome(_) | Envelope::ResumeFail(_) => {
                return Err(Fault(Code::ProtocolError, "an envelope that only a gateway sends"));
            }
            Envelope::Ignorable(_) => {}
        }
        Ok(None)
    }

    fn take_message<'a>(
        &mut self,
        text: bool,
        payload: &'a [u8],
        now: Instant,
    ) -> Result<Option<ToApp<'a>>, Fault> {
        let Some(client) = &mut self.client else { return Ok(None) };
        let meta = std::mem::take(&mut client.meta);
        let Window { messages, bytes } = self.limits.window;
        let full = self.under_way.with_repeats() >= messages
            || self.under_way.bytes().saturating_add(payload.len()) > bytes;
        if full && !self.under_way.is_empty() {
            return Err(Fault(Code::Limit, "more under way than the window allows"));
        }
        if !self.app.is_open() && !self.is_app_awaited() {
            let seq = self.inbound.handle_gap(1, now);
            self.nacks.push(seq, NackCode::AppGone, self.limits.window.messages);
            return Ok(None);
        }
        if let Some(key) = &meta.key
            && !self.keys.get_or_insert_default().insert(key)
        {
            let seq = self.inbound.handle_gap(1, now);
            self.under_way.repeat(key, seq, meta.expires_at);
            self.notes.push_back(V1Note::Duplicate);
            return Ok(None);
        }
        let seq = self.inbound.handle_message(payload.len(), meta.ack_now);
        let message = ToApp { text, payload, is_now: self.app.is_open() && self.under_way.is_all_given() };
        if message.is_now {
            self.under_way.push_given(seq, message, !self.limits.app_hold.is_zero(), now);
            self.note_passed_to_app(payload.len(), now);
        } else {
            self.under_way.push_waiting(seq, message, meta.expires_at, meta.key, now);
        }
        Ok(Some(message))
    }

    fn take_ack(&mut self, ack: Ack) -> Result<(), Fault> {
        if let Some((messages, kib)) = ack.window {
            let narrow = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
            let window = Window { messages: narrow(messages), bytes: narrow(kib).saturating_mul(1024) };
            self.out.set_peer_window(window);
        }
        let done = self.with_fates(|session, fates| session.out.handle_ack(ack.handled, fates));
        done.map_err(|AckError| Fault(Code::ProtocolError, "ACK for what was not sent"))
    }

    fn take_nack(&mut self, seq: u64, code: NackCode) -> Result<(), Fault> {
        let done = self.with_fates(|session, fates| session.out.handle_nack(seq, code, fates));
        done.map_err(|AckError| Fault(Code::ProtocolError, "NACK for what was not sent"))
    }

    /// Tells what becomes of messages to the client while `work` goes on.
    pub(super) fn with_fates<R>(
        &mut self,
        work: impl FnOnce(&mut V1Session, &mut dyn FnMut(Author, Fate)) -> R,
    ) -> R {
        let (mut handled, mut unsent, mut lost, mut rejected) = (0, 0, 0, 0);
        let mut told = Vec::new();
        let result = work(self, &mut |author, fate| match (author, fate) {
            (Author::App, Fate::Handled) => handled += 1,
            (Author::App, Fate::Refused(_)) => rejected += 1,
            (Author::App, Fate::Expired(Sent::No)) => unsent += 1,
            (Author::App, Fate::Expired(Sent::Maybe)) => lost += 1,
            (Author::Order(asked), fate) => told.push(DeliveryNote::Settled(asked.id, outcome(asked, fate))),
        });
        let counts = [
            (rejected, DeliveryNote::Rejected(rejected)),
            (handled, DeliveryNote::Confirmed(Level::Handled, handled)),
            (unsent, DeliveryNote::Unsent(unsent)),
            (lost, DeliveryNote::Lost(lost)),
        ];
        told.extend(counts.into_iter().filter_map(|(count, note)| (count > 0).then_some(note)));
        let notes = told.into_iter().map(|note| V1Note::Session(Note::Delivery(note)));
        self.notes.extend(notes);
        result
    }

    /// Takes note that a part of a message came: its code can't answer before the rest.
    pub fn handle_client_part(&mut self, now: Instant) {
        if let Some(client) = &mut self.client {
            client.page_heard_at = now;
        }
    }

    /// Takes a pong of the client; `None`: it has no connection.
    pub fn handle_client_pong(&mut self, payload: &[u8], now: Instant) -> Option<Pong> {
        let pong = self.detector_mut(Leg::Client)?.handle_pong(payload, now);
        self.collect(Leg::Client, now);
        if let Pong::Ours { id, .. } = pong {
            self.note_client_pong(id);
        }
        Some(pong)
    }

    /// Takes a valid Close frame of the client: it comes back, or it is the end.
    pub fn handle_client_close(&mut self, frame: Option<CloseFrame>, now: Instant) {
        let Some(client) = &self.client else { return };
        let code = frame.as_ref().map(|frame| frame.code);
        if After::detaches(code) && !client.bye {
            self.detach(Detached::Closed, Parting::Close(frame), now);
        } else {
            let ending = ending(EndReason::Closed, frame.clone(), None);
            self.part_at_the_end(frame.clone());
            self.end(ending, frame, now);
        }
    }

    pub(super) fn handle_client_hangup(&mut self, now: Instant) {
        let Some(client) = &self.client else { return };
        if client.bye {
            self.part(Parting::Drop);
            self.finish(ending(EndReason::Closed, None, Some("cut behind a BYE")), AppEnd::Finish, now);
        } else {
            self.detach(Detached::Reset, Parting::Drop, now);
        }
    }

    /// Takes note that the client broke RFC 6455 or a limit: its session is over.
    pub fn handle_client_violation(&mut self, violation: Violation, now: Instant) {
        let reason = if violation.is_limit() { EndReason::Limit } else { EndReason::ProtocolError };
        // What RFC 6455 says of limits ends a session for good; a client may begin another.
        let code = match violation.close_code() {
            1009 => Code::TooBig.number(),
            1008 => Code::Limit.number(),
            code => code,
        };
        let frame = CloseFrame::new(code, violation.as_str());
        self.fail(reason, frame, violation.as_str(), now);
    }

    fn end_by_fault(&mut self, code: Code, detail: &'static str, now: Instant) {
        let reason = match code {
            Code::Limit | Code::TooBig => EndReason::Limit,
            Code::ProtocolError
            | Code::TokenUnknown
            | Code::OriginMismatch
            | Code::LivenessTimeout
            | Code::Replaced
            | Code::SessionExpired
            | Code::AppClosed
            | Code::Internal
            | Code::Draining => EndReason::ProtocolError,
        };
        self.fail(reason, CloseFrame::new(code.number(), detail), detail, now);
    }

    fn fail(&mut self, reason: EndReason, frame: CloseFrame, detail: &'static str, now: Instant) {
        self.part_at_the_end(Some(frame.clone()));
        let told = CloseFrame::new(1001, "client broke the protocol");
        self.end(ending(reason, Some(frame), Some(detail)), Some(told), now);
    }

    /// Returns whether a probe to the client waits for a place between two frames.
    pub fn is_client_probe_due(&self) -> bool {
        self.closing.is_none() && self.detector(Leg::Client).is_some_and(|detector| detector.is_probe_due())
    }

    /// Returns the ping to write to the client, if one is due, with `ahead` bytes before it that the socket has not taken,
    /// in a frame of `len` bytes.
    pub fn poll_client_probe(&mut self, now: Instant, ahead: usize, len: usize) -> Option<ProbeId> {
        if self.closing.is_some() {
            return None;
        }
        let id = self.detector_mut(Leg::Client)?.poll_probe(now, ahead, len)?;
        self.note_client_probe(id);
        Some(id)
    }

    /// The page does not answer while its WebSocket stack does.
    pub(super) fn handle_page_timeout(&mut self, now: Instant) {
        if self.page_frozen_at().is_some_and(|at| now >= at) && self.closing.is_none() {
            let frame = CloseFrame::new(Code::LivenessTimeout.number(), "page frozen: no answer to PROBE");
            self.detach(Detached::PageFrozen, Parting::Close(Some(frame)), now);
        }
    }

    pub(super) fn poll_client_timeout(&self) -> Option<Instant> {
        self.page_frozen_at()
    }

    fn page_frozen_at(&self) -> Option<Instant> {
        let client = self.client.as_ref()?;
        let asked_at = client.probed_at?.max(client.page_heard_at);
        Some(asked_at + self.limits.page_frozen_after)
    }

    /// Closes the client's connection with what is left to say: how far its messages have come, and the final counters.
    /// Whoever has not been greeted yet is greeted first, or it would understand nothing of that.
    pub(super) fn part_at_the_end(&mut self, frame: Option<CloseFrame>) {
        self.give_waiting_up();
        let mut words = Vec::new();
        self.write_welcome(&mut |_, parts| words.push(parts.concat()));
        let mut say = |word: Envelope<'_>| {
            let mut payload = Vec::new();
            word.write(&mut payload);
            words.push(payload);
        };
        while let Some((seq, code)) = self.nacks.poll() {
            say(Envelope::Nack { seq, code, reason: "" });
        }
        if let Some(ack) = self.inbound.last_ack() {
            say(Envelope::Ack(ack));
        }
        say(Envelope::Bye { received: self.inbound.received(), sent: self.out.sent() });
        self.part(Parting::End { words, frame });
    }

    /// Drops the client's connection out of the session.
    pub(super) fn part(&mut self, parting: Parting) {
        self.end_client_delivery();
        if let Some(mut client) = self.client.take() {
            client.watched.member.set_missing(false);
            self.partings.push_back(parting);
        }
    }
}

pub(super) fn ending(reason: EndReason, close: Option<CloseFrame>, detail: Option<&'static str>) -> Ending {
    Ending { reason, leg: Some(Leg::Client), close, detail, verdict: None }
}

fn outcome(asked: Asked, fate: Fate) -> Outcome {
    match fate {
        Fate::Handled => Outcome::Delivered(Level::Handled),
        Fate::Refused(_) => Outcome::Rejected,
        Fate::Expired(sent) => Outcome::Expired { sent, reached: asked.reached },
    }
}
