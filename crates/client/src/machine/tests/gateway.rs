//! As much of a gateway as a client can tell.

use std::collections::VecDeque;
use std::time::Instant;

use pulsegate_core::IdSource;
use pulsegate_core::v1::*;

use super::{HEARTBEAT, RULES, message, tag_of};
use crate::event::Frame;

/// What goes to the client.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Frame(Frame),
    Close(u16, &'static str),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) send: SendWindow<u32>,
    pub(super) receive: ReceiveWindow,
    confirmed: Option<Token>,
    pending: Option<Token>,
    /// Arrived, and neither handled nor refused.
    waiting: VecDeque<(u64, u32)>,
    done: u64,
    /// A NACK may be lost with the connection, and an ACK that comes later would pass for it: they are said again.
    nacks: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Gateway {
    ids: IdSource,
    window: Window,
    pub(super) session: Option<Session>,
    secrets: u8,
    /// To the client, on the connection that there is.
    pub(super) down: VecDeque<Down>,
    said_at: Instant,
    pub(super) submitted: u32,
    /// Messages that the app took, over all sessions.
    pub(super) taken: Vec<u32>,
    pub(super) refused: Vec<u32>,
    pub(super) fates: Vec<(u32, Fate)>,
}

impl Gateway {
    pub(super) fn new(window: Window, now: Instant) -> Gateway {
        Gateway {
            ids: IdSource::new(1, 1),
            window,
            session: None,
            secrets: 0,
            down: VecDeque::new(),
            said_at: now,
            submitted: 0,
            taken: Vec::new(),
            refused: Vec::new(),
            fates: Vec::new(),
        }
    }

    /// Takes a new connection and answers with the first frames on it.
    pub(super) fn open(&mut self, offer: &[String], now: Instant) {
        self.down.clear();
        let offer = Offer::parse(offer.iter().map(String::as_str)).expect("an offer of ours");
        match offer.resume {
            None => self.begin(now),
            Some(OfferedResume::Ill) => panic!("the client wrote it itself"),
            Some(OfferedResume::Well { token, received }) if self.accepts(&token) => {
                self.resume(token, received, now);
            }
            Some(OfferedResume::Well { .. }) => {
                let fail = ResumeFail { code: ResumeFailCode::Unknown, counters: None };
                self.say(&Envelope::ResumeFail(fail), now);
                self.down.push_back(Down::Close(fail.code.close().number(), ""));
            }
        }
    }

    pub(super) fn accepts(&self, token: &Token) -> bool {
        let known = |session: &Session| session.confirmed == Some(*token) || session.pending == Some(*token);
        self.session.as_ref().is_some_and(known)
    }

    fn begin(&mut self, now: Instant) {
        self.forget();
        let mut send = SendWindow::new(self.window);
        send.resume(0, now).unwrap();
        let token = self.new_token(None);
        self.session = Some(Session {
            send,
            receive: ReceiveWindow::new(RULES),
            confirmed: None,
            pending: Some(token),
            waiting: VecDeque::new(),
            done: 0,
            nacks: Vec::new(),
        });
        self.welcome(false, 1, token, now);
    }

    fn resume(&mut self, shown: Token, received: u64, now: Instant) {
        let token = self.new_token(Some(shown));
        let session = self.session.as_mut().unwrap();
        (session.confirmed, session.pending) = (Some(shown), Some(token));
        session.send.resume(received, now).expect("the client lacks nothing that it acknowledged");
        session.receive.resume(now);
        self.welcome(true, received + 1, token, now);
        let nacks = self.session.as_ref().unwrap().nacks.clone();
        for seq in nacks {
            self.say(&Envelope::Nack { seq, code: NackCode::AppGone, reason: "" }, now);
        }
    }

    fn new_token(&mut self, of: Option<Token>) -> Token {
        self.secrets = self.secrets.wrapping_add(1);
        let session = of.map_or_else(|| self.ids.next(), |token| token.session);
        Token { session, secret: Secret([self.secrets; 16]) }
    }

    fn welcome(&mut self, resumed: bool, next: u64, token: Token, now: Instant) {
        let token = token.to_string();
        let received = self.session.as_ref().unwrap().receive.received();
        let welcome = Welcome {
            resumed,
            received,
            next,
            token: &token,
            resume_window_s: 120,
            window_messages: self.window.messages as u64,
            window_kib: 1,
            ack: RULES,
            heartbeat_ms: HEARTBEAT.as_millis() as u64,
            features: 0,
        };
        self.say(&Envelope::Welcome(welcome), now);
    }

    /// The session is gone, as after a crash.
    pub(super) fn forget(&mut self) {
        let fates = &mut self.fates;
        if let Some(mut session) = self.session.take() {
            session.send.handle_end(&mut |tag, fate| fates.push((tag, fate)));
        }
    }

    pub(super) fn submit(&mut self, ttl: Option<std::time::Duration>, now: Instant) {
        let Some(session) = self.session.as_mut().filter(|session| session.send.has_room(4)) else { return };
        self.submitted += 1;
        session
            .send
            .push(message(self.submitted, ttl.map(|ttl| now + ttl), self.submitted.is_multiple_of(3)), now);
    }

    /// Puts up to `frames` more on the connection.
    pub(super) fn transmit(&mut self, frames: usize, now: Instant) {
        for _ in 0..frames {
            let Some(session) = &mut self.session else { return };
            if let Some((ack, asked)) = session.receive.poll_ack(now) {
                self.say(&if asked { Envelope::ProbeAck(ack) } else { Envelope::Ack(ack) }, now);
                continue;
            }
            let fates = &mut self.fates;
            match session.send.poll_transmit(now, &mut |tag, fate| fates.push((tag, fate))) {
                None => {}
                Some(Transmit::Skip { count, reason }) => self.say(&Envelope::Skip { count, reason }, now),
                Some(Transmit::Message { message, .. }) => {
                    let (text, payload, ack_now) = (message.text, message.payload.to_vec(), message.ack_now);
                    if ack_now {
                        self.say(&Envelope::Meta(Meta { ack_now, ..Meta::default() }), now);
                    }
                    match text {
                        true => self.down.push_back(Down::Frame(Frame { text, payload })),
                        false => self.say(&Envelope::Binary(&payload), now),
                    }
                }
            }
            if now.duration_since(self.said_at) >= HEARTBEAT {
                self.say(&Envelope::Probe, now);
            }
        }
    }

    fn say(&mut self, envelope: &Envelope<'_>, now: Instant) {
        let mut payload = Vec::new();
        envelope.write(&mut payload);
        self.down.push_back(Down::Frame(Frame { text: false, payload }));
        self.said_at = now;
    }

    pub(super) fn receive(&mut self, frame: &Frame, now: Instant) {
        let Some(session) = &mut self.session else { return };
        // The client has the new token: only that one counts from now on.
        session.confirmed = session.pending.take().or(session.confirmed);
        if frame.text {
            session.take(true, &frame.payload);
            return;
        }
        let fates = &mut self.fates;
        match Envelope::parse(&frame.payload).expect("the client writes no nonsense") {
            Envelope::Binary(payload) => session.take(false, payload),
            Envelope::Ack(ack) | Envelope::ProbeAck(ack) => session
                .send
                .handle_ack(ack.handled, &mut |tag, fate| fates.push((tag, fate)))
                .expect("the client acknowledges what it got"),
            Envelope::Probe => session.receive.handle_probe(),
            Envelope::Skip { count, .. } => {
                session.receive.handle_gap(count, now);
            }
            Envelope::Meta(_) => {}
            other @ (Envelope::Nack { .. }
            | Envelope::Welcome(_)
            | Envelope::ResumeFail(_)
            | Envelope::Bye { .. }
            | Envelope::Ignorable(_)) => panic!("{other:?} from a client"),
        }
    }

    /// The app takes so many of the messages that wait.
    pub(super) fn handle(&mut self, messages: usize, now: Instant) {
        let Some(session) = &mut self.session else { return };
        for (_, tag) in session.waiting.drain(..messages.min(session.waiting.len())) {
            session.done += 1;
            self.taken.push(tag);
        }
        session.receive.handle_handled(session.done, now);
    }

    pub(super) fn refuse(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        let Some((seq, tag)) = session.waiting.pop_front() else { return };
        session.nacks.push(seq);
        session.done += 1;
        session.receive.handle_handled(session.done, now);
        self.refused.push(tag);
        self.say(&Envelope::Nack { seq, code: NackCode::AppGone, reason: "" }, now);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let fates = &mut self.fates;
        if let Some(session) = &mut self.session {
            session.send.handle_timeout(now, &mut |tag, fate| fates.push((tag, fate)));
        }
    }
}

impl Session {
    fn take(&mut self, text: bool, payload: &[u8]) {
        let seq = self.receive.handle_message(payload.len(), false);
        self.waiting.push_back((seq, tag_of(text, payload)));
    }
}
