//! The gateway: who gets a session, what its connections bring, what it tells. What it does in each step is in `driver`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use pulsegate_core::v1::{Envelope, ResumeFail, ResumeFailCode, Secret, Token};
use pulsegate_core::{CloseFrame, EndReason, IdSource, Leg, Level, Outcome, Sent, SessionId};
use pulsegate_heartbeat::{Crowd, KernelView};
use pulsegate_registry::{DeliveryNote, Hello, LastWord, Message, Note, Refusal, V1Note, V1Session};

use super::bugs::V1Bug;
use super::line::Frame;
use super::oracle::{Invariant, write};
use super::world::World;
use crate::{MS, SECOND, Time};

/// The gateway: at most one session at a time, and what is remembered of the last.
pub(super) struct Gateway {
    pub(super) session: Option<(SessionId, Box<V1Session>)>,
    /// The connection that the session has.
    pub(super) line: Option<usize>,
    pub(super) stalled_until: Time,
    pub(super) ids: IdSource,
    crowds: [Arc<Crowd>; 2],
    /// The app is dialled again: when it is known what comes of that, and how many messages it would get again.
    pub(super) dialing: Option<(Time, u64)>,
    /// For the app's full socket.
    pub(super) outbox: VecDeque<Frame>,
    pub(super) last: Option<(SessionId, LastWord, (u64, u64))>,
    /// What the session last had: received from the client, acknowledged by it.
    pub(super) counters: (u64, u64),
    pub(super) reading_app: bool,
    /// The secret that was given out last, for bugs.
    newest: Secret,
    /// How often messages to the app were told of, for bugs.
    told: u32,
    /// A message that must not leave any more, for bugs.
    pub(super) expired: Option<u32>,
    /// Counts messages, for bugs.
    pub(super) passed: u32,
}

impl Gateway {
    pub(super) fn new(seed: u64) -> Gateway {
        Gateway {
            session: None,
            line: None,
            stalled_until: 0,
            ids: IdSource::new(1, seed),
            crowds: Default::default(),
            dialing: None,
            outbox: VecDeque::new(),
            last: None,
            counters: (0, 0),
            reading_app: true,
            newest: Secret([0; 16]),
            told: 0,
            expired: None,
            passed: 0,
        }
    }
}

impl World {
    pub(super) fn has_session(&self) -> bool {
        self.gateway.session.is_some()
    }

    pub(super) fn step_gateway(&mut self) -> bool {
        if self.now < self.gateway.stalled_until {
            return false;
        }
        let mut progress = false;
        for place in 0..self.lines.len() {
            progress |= self.read_line(place);
        }
        let Some((id, mut session)) = self.gateway.session.take() else { return progress };
        progress |= self.take_app(&mut session);
        progress |= self.flush_app(&mut session);
        progress |= self.read_app(&mut session);
        let at = self.at(self.now);
        let looks = self.bug != Some(V1Bug::NoTimeouts);
        if looks && session.poll_timeout().is_some_and(|due| due <= at) {
            // Only the app's kernel is asked; toward the client there may be a proxy in between.
            let app = session.wants_kernel_view(Leg::App, at).map(|_| KernelView::all_taken());
            session.handle_timeout(at, [None, app]);
        }
        progress |= self.dial_app(&mut session);
        progress |= self.transmit(&mut session);
        progress |= self.give_again(&mut session);
        progress |= self.part(&mut session);
        progress |= self.carry_out(&mut session);
        progress |= self.probe(&mut session);
        self.tell_notes(&mut session);
        self.check_counts(&session);
        self.check_silence(&session);
        if session.is_finished() {
            let ending = session.ending().map(|ending| (ending.reason, ending.detail));
            self.tell(|| format!("gateway: session over {ending:?}"));
            self.count("session over");
            self.oracle.session_over();
            self.gateway.last = Some((id, session.into_last_word(), self.gateway.counters));
            return true;
        }
        self.gateway.session = Some((id, session));
        progress
    }

    /// Takes what came on a connection, whosever it is.
    pub(super) fn read_line(&mut self, place: usize) -> bool {
        let mut progress = false;
        while let Some(frame) = self.lines[place].up.pop(self.now) {
            progress = true;
            self.lines[place].count_down(self.now);
            if let Frame::Hello(resume) = frame {
                self.take_hello(place, resume);
                continue;
            }
            let is_old = self.gateway.line != Some(place);
            if is_old && self.bug != Some(V1Bug::OldConnection) {
                continue;
            }
            if !is_old {
                self.watch.heard_at = self.now;
                if let Frame::Text(_) | Frame::Word(_) = frame {
                    self.watch.page_heard_at = self.now;
                }
            }
            if let Some((id, mut session)) = self.gateway.session.take() {
                self.take_frame_of_client(&mut session, frame, is_old);
                // The real driver does so after each read.
                self.part(&mut session);
                self.gateway.session = Some((id, session));
            }
        }
        progress
    }

    fn take_frame_of_client(&mut self, session: &mut V1Session, frame: Frame, is_old: bool) {
        let at = self.at(self.now);
        match (self.bug, &frame) {
            (Some(V1Bug::DeafGateway), Frame::Pong(_)) => return,
            (Some(V1Bug::LostMeta), Frame::Word(word)) if word[0] == 5 => return,
            (Some(V1Bug::PongIsPage), Frame::Pong(_)) => session.handle_client_part(at),
            (Some(_) | None, _) => {}
        }
        if !matches!(frame, Frame::Gone) {
            session.handle_bytes(Leg::Client, at);
        }
        match frame {
            Frame::Text(payload) => self.take_message(session, true, &payload),
            Frame::Word(payload) => self.take_message(session, false, &payload),
            Frame::Pong(payload) => {
                self.note_pong(Leg::Client, payload);
                session.handle_client_pong(&payload, at);
            }
            Frame::Close(code, reason) => {
                let frame = code.map(|code| CloseFrame::new(code, &reason));
                session.handle_client_close(frame, at);
            }
            Frame::Gone if is_old => {}
            Frame::Gone => session.handle_hangup(Leg::Client, at),
            Frame::Ping(_) | Frame::Hello(_) | Frame::Open => {}
        }
    }

    fn take_message(&mut self, session: &mut V1Session, text: bool, payload: &[u8]) {
        let at = self.at(self.now);
        let Some(message) = session.handle_client_message(text, payload, at) else { return };
        let mut payload = message.payload.to_vec();
        let (text, is_now) = (message.text, message.is_now);
        self.oracle.session().taken[1] += 1;
        if !is_now {
            return;
        }
        self.gateway.passed += 1;
        let is_50th = self.gateway.passed.is_multiple_of(50);
        if is_50th && self.bug == Some(V1Bug::EarlyAck) {
            return;
        }
        if is_50th && self.bug == Some(V1Bug::ChangedByte) {
            payload.last_mut().into_iter().for_each(|last| *last ^= 1);
        }
        if payload.is_empty() && self.bug == Some(V1Bug::LostEmpty) {
            return;
        }
        let frame = if text { Frame::Text(payload) } else { Frame::Word(payload) };
        self.gateway.outbox.push_back(frame);
    }

    fn take_hello(&mut self, place: usize, resume: Option<(Token, u64)>) {
        self.push_down(place, Frame::Open);
        let Some((token, received)) = resume else { return self.begin(place) };
        let received = match self.bug {
            Some(V1Bug::ReplayFromReceived) => received.saturating_sub(1),
            Some(_) | None => received,
        };
        let hello = self.hello(Some((token.secret, received)));
        let at = self.at(self.now);
        let lived = self
            .gateway
            .session
            .as_ref()
            .is_some_and(|(id, session)| *id == token.session && !session.is_closing());
        let result = match &mut self.gateway.session {
            Some((id, session)) if *id == token.session => {
                let forgets = self.bug == Some(V1Bug::ForgottenToken) && token.secret != self.gateway.newest;
                if forgets { Err(Refusal::UNKNOWN) } else { session.handle_hello(&hello, at) }
            }
            Some(_) | None => Err(match &self.gateway.last {
                Some((id, last, _)) if *id == token.session => last.refusal(&token.secret),
                Some(_) | None => Refusal::UNKNOWN,
            }),
        };
        match result {
            Ok(()) => {
                self.with_session(|world, session| world.part(session));
                self.gateway.line = Some(place);
                self.gateway.newest = hello.next;
                self.watch.attach(self.now);
                // What was lost with a line does not come on another.
                self.stale = Default::default();
                if !self.is_latest(place) {
                    self.count("taken by a dial that was given up");
                }
                self.count("attached");
            }
            Err(refusal) => self.refuse(place, token, refusal, lived),
        }
    }

    fn with_session(&mut self, work: impl FnOnce(&mut World, &mut V1Session) -> bool) {
        if let Some((id, mut session)) = self.gateway.session.take() {
            work(self, &mut session);
            self.gateway.session = Some((id, session));
        }
    }

    fn refuse(&mut self, place: usize, token: Token, mut refusal: Refusal, lived: bool) {
        if let (Some(V1Bug::WrongLastWord), Some((received, _))) = (self.bug, &mut refusal.counters) {
            *received += 1;
        }
        self.tell(|| format!("gateway: refuses {refusal:?}"));
        self.count("refused");
        if lived && self.is_latest(place) {
            self.oracle.object(Invariant::Token, format!("{:?} while the session lives", refusal.code));
        }
        if let Some((_, _, counters)) = self.gateway.last.as_ref().filter(|(id, _, _)| *id == token.session)
            && refusal.code == ResumeFailCode::Ended
            && refusal.counters != Some(*counters)
        {
            self.oracle.object(Invariant::LastWord, format!("{refusal:?}, was {counters:?}"));
        }
        let mut payload = Vec::new();
        let Refusal { code, counters } = refusal;
        Envelope::ResumeFail(ResumeFail { code, counters }).write(&mut payload);
        self.push_down(place, Frame::Word(payload));
        self.push_down(place, Frame::Close(Some(code.close().number()), code.as_str().to_owned()));
        // The session may have ended over it.
        self.with_session(|world, session| world.part(session));
    }

    /// Is this the connection that the client has now?
    fn is_latest(&self, place: usize) -> bool {
        self.client.line == Some(place)
    }

    fn begin(&mut self, place: usize) {
        if !self.is_latest(place) {
            // A dial that was given up before it got here: a session of its own, of which nobody ever hears.
            return self.count("orphans");
        }
        if let Some((_, session)) = &mut self.gateway.session {
            // A client that begins anew has given its old session up; here there is room for one.
            let at = self.origin + std::time::Duration::from_micros(self.now);
            session.handle_end(EndReason::Kicked, CloseFrame::new(1008, "begun anew"), at);
            while !self.gateway.session.as_ref().is_none_or(|(_, session)| session.is_finished()) {
                let Some((id, mut session)) = self.gateway.session.take() else { break };
                self.part(&mut session);
                self.tell_notes(&mut session);
                session.handle_hangup(Leg::App, at);
                self.gateway.session = Some((id, session));
            }
            self.note_end();
        }
        let hello = self.hello(None);
        let at = self.at(self.now);
        let id = self.gateway.ids.next();
        let mut limits = Arc::clone(&self.plan.limits);
        if self.bug == Some(V1Bug::WideWindow) {
            Arc::make_mut(&mut limits).window.messages *= 2;
        }
        let session = V1Session::new(limits, &self.gateway.crowds, id, &hello, at);
        self.gateway.session = Some((id, Box::new(session)));
        self.gateway.newest = hello.next;
        self.gateway.line = Some(place);
        self.gateway.outbox.clear();
        self.gateway.reading_app = true;
        self.gateway.dialing = None;
        self.app = Default::default();
        self.watch.begin(self.now);
        self.stale = Default::default();
        self.oracle.begin();
    }

    fn note_end(&mut self) {
        if let Some((id, mut session)) = self.gateway.session.take() {
            self.tell_notes(&mut session);
            self.oracle.session_over();
            self.gateway.last = Some((id, session.into_last_word(), self.gateway.counters));
        }
    }

    fn hello(&mut self, resume: Option<(Secret, u64)>) -> Hello {
        let mut next = [0; 16];
        self.random.fill(&mut next);
        Hello {
            resume,
            is_same_origin: true,
            next: Secret(next),
            behind_proxy: false,
            seed: self.random.u64(..),
        }
    }

    pub(super) fn push_down(&mut self, place: usize, frame: Frame) {
        let latency = self.latency();
        self.lines[place].down.push(frame, latency, self.now);
        self.lines[place].count_down(self.now);
    }

    pub(super) fn tell_notes(&mut self, session: &mut V1Session) {
        while let Some(note) = session.poll_note() {
            self.tell(|| format!("gateway: {note:?}"));
            match note {
                V1Note::Session(Note::Delivery(DeliveryNote::Settled(id, outcome))) => {
                    self.oracle.end(id, outcome);
                    if let Outcome::Expired { sent: Sent::No, .. } = outcome {
                        self.gateway.expired = self.oracle.orders.get(&id).copied();
                    }
                    if self.bug == Some(V1Bug::DoubledEnd) {
                        self.oracle.end(id, outcome);
                    }
                }
                V1Note::Detached(why) => {
                    self.tell(|| format!("gateway: detached {}", why.as_str()));
                    self.count("gateway detached");
                    self.check_detached(why);
                }
                V1Note::Retransmitted => self.count("retransmitted"),
                V1Note::Session(Note::Delivery(
                    DeliveryNote::Confirmed(_, messages)
                    | DeliveryNote::Lost(messages)
                    | DeliveryNote::Unsent(messages)
                    | DeliveryNote::Rejected(messages),
                )) => self.oracle.session().told[0] += messages,
                V1Note::ToApp(DeliveryNote::Confirmed(_, messages) | DeliveryNote::Lost(messages)) => {
                    self.gateway.told += 1;
                    if self.bug == Some(V1Bug::LostCount) && self.gateway.told.is_multiple_of(20) {
                        continue;
                    }
                    self.oracle.session().told[1] += messages;
                }
                V1Note::ToApp(DeliveryNote::Unsent(messages)) => {
                    self.count("unsent");
                    self.oracle.session().told[1] += messages;
                }
                V1Note::RetransmittedToApp => self.count("retransmitted to the app"),
                V1Note::AppDetached(_) => self.count("app detached"),
                V1Note::Session(_)
                | V1Note::ToApp(_)
                | V1Note::Resumed { .. }
                | V1Note::AppResumed { .. }
                | V1Note::Duplicate => {}
            }
        }
    }

    /// Somebody sends a message over the control API.
    pub(super) fn order(&mut self) {
        let number = self.oracle.orders.len() as u32 + 1;
        let bytes = self.draw_bytes();
        let (text, payload) = write(b'o', number, bytes);
        let ttl = self.random.u64(MS..5 * SECOND);
        let expires_at = self.at(self.now + ttl);
        let id = self.gateway.ids.next_message();
        let level = Level::ALL[self.random.usize(0..Level::ALL.len())];
        if let Some((_, session)) = &mut self.gateway.session {
            self.oracle.order(id, payload.len());
            session.handle_message(Message { id, text, payload: Bytes::from(payload), level, expires_at });
        }
    }

    /// An operator ends the session.
    pub(super) fn kick(&mut self) {
        let at = self.at(self.now);
        if let Some((_, session)) = &mut self.gateway.session {
            session.handle_end(EndReason::Kicked, CloseFrame::new(4000, "kicked"), at);
        }
    }
}
