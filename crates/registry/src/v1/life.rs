//! How a session parks, resumes and ends.

use std::time::Instant;

use pulsegate_core::v1::{Code, Fate, ResumeFailCode, Secret};
use pulsegate_core::{Cause, CloseFrame, EndReason, Leg, Outcome, Sent};
use pulsegate_heartbeat::{Event, KernelView, Verdict};

use super::client::{ClientLeg, ending};
use super::{Author, Detached, Hello, Parting, Refusal, Tokens, V1Note, V1Session, Watched};
use crate::delivery::DeliveryNote;
use crate::session::{Ending, Note, Order, verdict_words};

/// The client has no connection.
#[derive(Debug)]
pub(super) struct Away {
    since: Instant,
    /// It has until then to come back.
    until: Instant,
    why: Detached,
    /// The proof, if it was declared dead.
    verdict: Option<String>,
}

/// The app is gone.
#[derive(Debug)]
pub(super) struct Farewell {
    ending: Ending,
    /// What the client is told: the app's close code and reason.
    told: Box<str>,
    /// Until then it may take what the app said before.
    deadline: Instant,
}

/// The end is under way.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) deadline: Instant,
    ending: Ending,
}

/// How the app gets to know of the end.
#[derive(Debug)]
pub(super) enum AppEnd {
    Close(Option<CloseFrame>),
    /// FIN without a Close frame: the app sees 1006.
    Finish,
}

/// What a client is told that comes back to a session that is over.
#[derive(Debug)]
pub struct LastWord {
    tokens: Tokens,
    received: u64,
    acked: u64,
}

impl LastWord {
    /// Returns what to refuse a client with; the counters are for the owner alone.
    pub fn refusal(&self, shown: &Secret) -> Refusal {
        match self.tokens.accept(shown) {
            true => Refusal { code: ResumeFailCode::Ended, counters: Some((self.received, self.acked)) },
            false => Refusal::UNKNOWN,
        }
    }
}

impl V1Session {
    /// Takes a connection of a client that wants its session back. On success the one that it may still have is over.
    ///
    /// # Errors
    /// It is not the client's session, or there is nothing to come back to.
    pub fn handle_hello(&mut self, hello: &Hello, now: Instant) -> Result<(), Refusal> {
        let Some((_, received)) = hello.resume.filter(|(secret, _)| self.tokens.accept(secret)) else {
            return Err(Refusal::UNKNOWN);
        };
        let refused = |code, counters| Err(Refusal { code, counters });
        let counters = Some((self.inbound.received(), self.out.acked()));
        if !hello.is_same_origin {
            return refused(ResumeFailCode::Origin, None);
        }
        if self.closing.is_some() {
            return refused(ResumeFailCode::Ended, counters);
        }
        if self.out.resume(received, now).is_err() {
            // Nobody else can have this token, and its owner lacks what nobody has any more.
            let frame = CloseFrame::new(Code::Replaced.number(), "the session was given up");
            self.part_at_the_end(Some(frame));
            let ended = ending(EndReason::Expired, None, Some("the client lacks what it had acknowledged"));
            let told = CloseFrame::new(self.limits.session.codes.dead_client, "client lost its place");
            self.end(ended, Some(told), now);
            return refused(ResumeFailCode::Position, counters);
        }
        self.note_client_has(received);
        self.tokens.rotate(&hello.next);
        // First the old one is out: nothing of it counts from here on.
        let frame = CloseFrame::new(Code::Replaced.number(), "replaced by a newer connection");
        self.part(Parting::Close(Some(frame)));
        self.attach(hello, true, now);
        Ok(())
    }

    pub(super) fn attach(&mut self, hello: &Hello, resumed: bool, now: Instant) {
        self.generation += 1;
        let limits = &self.limits.session.client;
        let mut watched = Watched::new(limits, &self.crowds[Leg::Client.index()], hello.seed, now);
        watched.detector = watched.detector.behind_proxy(hello.behind_proxy);
        self.client = Some(Box::new(ClientLeg::new(watched, (hello.next, resumed), now)));
        if resumed {
            self.inbound.resume(now);
            self.nacks.resume();
            let outage = self.away.take().map(|away| now.saturating_duration_since(away.since));
            let to_client = self.out.len() as u64 - (self.out.sent() - self.out.acked());
            self.notes.push_back(V1Note::Resumed { outage: outage.unwrap_or_default(), to_client });
        }
    }

    pub(super) fn detach(&mut self, why: Detached, parting: Parting, now: Instant) {
        self.part(parting);
        let until = now + self.limits.resume_window;
        self.away = Some(Away { since: now, until, why, verdict: None });
        self.shrink();
        self.notes.push_back(V1Note::Detached(why));
    }

    /// Ends the session from our side, with the same Close to both peers.
    pub fn handle_end(&mut self, reason: EndReason, frame: CloseFrame, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        let to_client = match reason {
            EndReason::Drained => CloseFrame::new(Code::Draining.number(), &frame.reason),
            EndReason::Unreachable
            | EndReason::Frozen
            | EndReason::WriteStalled
            | EndReason::Reset
            | EndReason::Closed
            | EndReason::ProtocolError
            | EndReason::Kicked
            | EndReason::Expired
            | EndReason::Limit => frame.clone(),
        };
        self.part_at_the_end(Some(to_client));
        let ending = Ending { reason, leg: None, close: Some(frame.clone()), detail: None, verdict: None };
        self.finish(ending, AppEnd::Close(Some(frame)), now);
    }

    /// Ends the session with a Close frame to the app.
    pub(super) fn end(&mut self, ending: Ending, to_app: Option<CloseFrame>, now: Instant) {
        self.finish(ending, AppEnd::Close(to_app), now);
    }

    pub(super) fn finish(&mut self, ending: Ending, to_app: AppEnd, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        self.away = None;
        self.with_fates(|session, fates| {
            session.out.handle_end(fates);
            if session.staged.take().is_some() {
                fates(Author::App, Fate::Expired(Sent::No));
            }
        });
        for message in std::mem::take(&mut self.waiting) {
            self.tell_unsent(message.id);
        }
        self.forget_app();
        self.give_waiting_up();
        if !self.app.end.is_done() {
            match to_app {
                AppEnd::Close(frame) if !self.app.end.close_sent => self.app.end.order(Order::Close(frame)),
                AppEnd::Close(_) => {}
                AppEnd::Finish => self.app.end.finish = true,
            }
        }
        let deadline = now + self.limits.session.close_timeout;
        self.closing = Some(Box::new(Closing { deadline, ending }));
    }

    fn tell_unsent(&mut self, id: pulsegate_core::MessageId) {
        let outcome = Outcome::Expired { sent: Sent::No, reached: None };
        self.notes.push_back(V1Note::Session(Note::Delivery(DeliveryNote::Settled(id, outcome))));
    }

    /// Gives messages an end that were never written and whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.with_fates(|session, fates| session.out.handle_timeout(now, fates));
        while let Some(place) = self.waiting.iter().position(|message| now >= message.expires_at) {
            if let Some(message) = self.waiting.remove(place) {
                self.tell_unsent(message.id);
            }
        }
    }

    /// Takes a message for the client from somebody who wants to know its end.
    pub fn handle_message(&mut self, message: crate::delivery::Message) {
        if self.closing.is_some() || self.farewell.is_some() {
            self.tell_unsent(message.id);
        } else {
            self.waiting.push_back(message);
        }
    }

    /// The app is gone and the client has got all that it said: that is the end.
    pub(super) fn check_farewell(&mut self, now: Instant) {
        let done = self.out.is_empty() && self.staged.is_none();
        let Some(farewell) = self.farewell.take_if(|farewell| done || now >= farewell.deadline) else {
            return;
        };
        let frame = CloseFrame::new(Code::AppClosed.number(), &farewell.told);
        self.part_at_the_end(Some(frame));
        self.finish(farewell.ending, AppEnd::Finish, now);
    }

    pub(super) fn bid_farewell(&mut self, ending: Ending, told: &str, now: Instant) {
        self.give_waiting_up();
        let deadline = now + self.limits.resume_window;
        self.farewell = Some(Box::new(Farewell { ending, told: told.into(), deadline }));
        for message in std::mem::take(&mut self.waiting) {
            self.tell_unsent(message.id);
        }
    }

    pub(super) fn poll_life_timeout(&self) -> Option<Instant> {
        let away = self.away.as_ref().map(|away| away.until);
        let farewell = self.farewell.as_ref().map(|farewell| farewell.deadline);
        [away, farewell, self.app.deadline].into_iter().flatten().min()
    }

    pub(super) fn handle_life_timeout(&mut self, now: Instant) {
        if self.app.deadline.take_if(|at| now >= *at).is_some() {
            self.app.end.done = true;
        }
        if let Some(away) = self.away.take_if(|away| now >= away.until) {
            let waited = now.saturating_duration_since(away.since).as_secs();
            let words = format!("client {}: not back after {waited} s", away.why.as_str());
            let told = CloseFrame::new(self.limits.session.codes.dead_client, &words);
            let detail = Some("the client did not come back");
            let ended = ending(EndReason::Expired, Some(told.clone()), detail);
            self.end(Ending { verdict: away.verdict, ..ended }, Some(told), now);
        }
        self.check_farewell(now);
        if self.closing.as_ref().is_some_and(|closing| now >= closing.deadline) {
            self.app.end.done = true;
        }
    }

    /// Returns whether everything is over: drop what is left.
    pub fn is_finished(&self) -> bool {
        self.closing.is_some() && self.app.end.is_done() && self.partings.is_empty()
    }

    /// Returns what is left to say when everything is over.
    pub fn into_last_word(self) -> LastWord {
        LastWord { received: self.inbound.received(), acked: self.out.acked(), tokens: self.tokens }
    }

    /// Returns why the session ends, once that is known.
    pub fn ending(&self) -> Option<&Ending> {
        self.closing.as_ref().map(|closing| &closing.ending)
    }

    pub(super) fn handle_detector_timeout(&mut self, leg: Leg, now: Instant, kernel: Option<KernelView>) {
        if self.closing.is_some() {
            return;
        }
        let verdict_after = self.limits.session.client.verdict_after;
        let Some(watched) = self.watched(leg) else { return };
        let mass = watched.member.crowd().is_doubtful(now, verdict_after);
        watched.detector.handle_timeout(now, kernel, mass);
        self.collect(leg, now);
    }

    /// Takes what the detector of `leg` has to tell.
    pub(super) fn collect(&mut self, leg: Leg, now: Instant) {
        let closing = self.closing.is_some();
        if let Some(watched) = self.watched(leg) {
            watched.member.set_missing(!closing && watched.detector.is_missing());
        }
        while let Some(event) = self.watched(leg).and_then(|watched| watched.detector.poll_event()) {
            let note = match event {
                Event::Suspected => Note::Suspected(leg),
                Event::Recovered => Note::Recovered(leg),
                Event::Withheld(doubt) => Note::Withheld(leg, doubt),
                Event::Spared(doubts) => Note::Spared(leg, doubts),
                Event::Dead(verdict) => {
                    self.notes.push_back(V1Note::Session(Note::Dead(leg, verdict.clone())));
                    self.condemn(leg, &verdict, now);
                    return;
                }
            };
            self.notes.push_back(V1Note::Session(note));
        }
    }

    fn condemn(&mut self, leg: Leg, verdict: &Verdict, now: Instant) {
        if self.closing.is_some() {
            return;
        }
        let (found, farewell) = verdict_words(leg, verdict, self.limits.session.codes.dead_client);
        match leg {
            Leg::Client => {
                self.detach(Detached::Dead(verdict.cause), Parting::Abandon(verdict.cause, farewell), now);
                if let Some(away) = &mut self.away {
                    away.verdict = Some(verdict.to_string());
                }
            }
            Leg::App => {
                let codes = self.limits.session.codes;
                let code = match verdict.cause {
                    Cause::Unreachable => codes.dead_app,
                    Cause::Frozen | Cause::WriteStalled => codes.frozen_app,
                };
                let told = format!("{code} {found}");
                let close = Some(CloseFrame::new(Code::AppClosed.number(), &told));
                self.app.end.order(Order::Abandon(verdict.cause, farewell));
                self.app.end.done = true;
                let reason = verdict.cause.into();
                let verdict = Some(verdict.to_string());
                self.lose_app(Ending { reason, leg: Some(leg), close, detail: None, verdict }, &told, now);
            }
        }
    }

    /// Returns what a WELCOME tells of the token.
    pub(super) fn token(&self, secret: Secret) -> String {
        super::token_text(self.id, secret)
    }
}
