//! The loop: who has something to do does it, then time moves on to the next thing that is due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pulsegate_client::Machine;
use pulsegate_core::v1::{Ack, Envelope};
use pulsegate_registry::AppAck;

use super::V1Report;
use super::app::AppLine;
use super::bugs::V1Bug;
use super::client::Client;
use super::gateway::Gateway;
use super::line::{Frame, Line};
use super::oracle::{Invariant, Oracle};
use super::plan::{Plan, Pongs};
use super::watch::Watch;
use crate::{MS, NEVER, SECOND, Time};

/// More rounds at one moment are a loop without an end.
const ROUNDS_MAX: u32 = 2_000;

pub(super) struct World {
    pub(super) random: fastrand::Rng,
    pub(super) plan: Plan,
    pub(super) bug: Option<V1Bug>,
    pub(super) origin: Instant,
    pub(super) now: Time,
    pub(super) client: Client,
    /// The client's connection has its 101.
    pub(super) opened: bool,
    pub(super) gateway: Gateway,
    pub(super) app: AppLine,
    /// Nobody listens at its address before.
    pub(super) app_down_until: Time,
    pub(super) watch: Watch,
    /// Words that were said before, down and up.
    pub(super) stale: [VecDeque<Vec<u8>>; 2],
    pub(super) lines: Vec<Line>,
    pub(super) oracle: Oracle,
    /// Until then some fault made it hard to answer.
    pub(super) trouble_until: Time,
    next_fault: Time,
    next_message: Time,
    next_talk: Time,
    pub(super) healed: bool,
    pub(super) leaving: bool,
    story: Option<Vec<String>>,
    counts: std::collections::BTreeMap<&'static str, u64>,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing here waits")]
    pub(super) fn new(seed: u64, bug: Option<V1Bug>, story: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(&mut random);
        let origin = Instant::now();
        let handled_is_received = plan.pongs != Pongs::None && plan.limits.app_ack == AppAck::Received;
        let machine = Machine::new(plan.client.clone(), random.u64(..), origin);
        World {
            client: Client::new(machine),
            gateway: Gateway::new(seed),
            plan,
            bug,
            origin,
            now: 0,
            opened: false,
            app: AppLine::default(),
            app_down_until: 0,
            watch: Watch::default(),
            stale: Default::default(),
            lines: Vec::new(),
            oracle: Oracle::new(handled_is_received),
            trouble_until: 0,
            next_fault: 0,
            next_message: 0,
            next_talk: 0,
            healed: false,
            leaving: false,
            story: story.then(Vec::new),
            counts: Default::default(),
            random,
        }
    }

    pub(super) fn run(mut self) -> V1Report {
        let plan = format!("{:?}", self.plan);
        self.tell(|| plan);
        let end = self.plan.leave_at + 15 * SECOND;
        // The session of who left without being heard is waited for, as long as it is kept.
        let last = end + 70 * SECOND;
        while self.oracle.objection.is_none()
            && (self.now < end || (self.has_session() && self.client.machine.is_done() && self.now < last))
        {
            self.settle();
            self.check_timers();
            self.act();
            self.advance(last);
        }
        if self.oracle.objection.is_none() {
            self.oracle.close();
        }
        let objection = self.oracle.objection.take();
        V1Report { objection, story: self.story.take().unwrap_or_default(), counts: self.counts }
    }

    /// Everybody does what can be done now.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut progress = self.step_gateway();
            progress |= self.step_client();
            progress |= self.step_app();
            if !progress {
                return;
            }
        }
        self.oracle.object(Invariant::Progress, "a loop without an end");
    }

    fn act(&mut self) {
        // Who answers no pings has to say something, or nobody could know that it is there.
        let talks = self.plan.pongs == Pongs::None && self.now + 3 * SECOND < self.plan.leave_at;
        if talks && self.now >= self.next_talk {
            self.next_talk = self.now + SECOND / 2;
            self.app_says();
        }
        if self.plan.leaves_early.take_if(|at| self.now >= *at).is_some() {
            self.tell(|| "the client leaves early".to_owned());
            self.leaving = true;
            let at = self.at(self.now);
            self.client.machine.close(at);
        }
        if self.is_busy() {
            if self.now >= self.next_message {
                self.next_message = self.now + self.draw(self.plan.message_every);
                self.say();
            }
            if self.now >= self.next_fault {
                self.next_fault = self.now + self.draw(self.plan.fault_every);
                self.fault();
            }
        } else if !self.healed {
            self.heal();
        } else if !self.leaving && self.now >= self.plan.leave_at {
            self.leave();
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.now < self.plan.busy_until
    }

    fn say(&mut self) {
        match self.random.u32(0..10) {
            0..4 => self.client_says(),
            4..8 => self.app_says(),
            8 => self.order(),
            _ => {
                for _ in 0..self.random.u32(1..12) {
                    self.client_says();
                    self.app_says();
                }
            }
        }
    }

    /// All must have arrived by now; then the client leaves.
    fn leave(&mut self) {
        self.leaving = true;
        let machine = &self.client.machine;
        if !machine.is_done() {
            if !machine.is_live() || machine.pending() > 0 {
                let what = format!("live {}, {} pending", machine.is_live(), machine.pending());
                let client = format!("{machine:?}");
                let session = self.gateway.session.as_ref().map(|(_, session)| format!("{session:?}"));
                self.tell(|| client);
                self.tell(|| session.unwrap_or_default());
                self.oracle.object(Invariant::Progress, what);
            }
            let kept = self.gateway.session.as_ref().map(|(_, session)| session.progress().kept.messages);
            let said = self.app.said;
            let got = self.oracle.sessions.last().map_or(0, |seen| seen.to_client.len() as u32);
            if kept != Some(0) || said != got {
                let session = self.gateway.session.as_ref().map(|(_, session)| format!("{session:?}"));
                self.tell(|| session.unwrap_or_default());
                let client = format!("{:?}", self.client.machine);
                self.tell(|| client);
                let what = format!("{kept:?} kept for the client, which has {got} of {said}");
                self.oracle.object(Invariant::Progress, what);
            }
            self.oracle.check_all_arrived();
            self.count("all arrived");
        }
        let at = self.at(self.now);
        self.client.machine.close(at);
    }

    /// Moves time to the next thing that is due.
    fn advance(&mut self, end: Time) {
        let gateway_at = self.gateway.stalled_until;
        let client_at = self.client.hung_until.max(self.client.frozen_until);
        let session = self.gateway.session.as_ref().map(|(_, session)| session);
        let machine = &self.client.machine;
        let gateway_due = [
            session.and_then(|session| session.poll_timeout()),
            session.and_then(|session| session.poll_transmit_timeout()),
        ];
        let dial_at = machine.poll_connect_at().filter(|_| self.client.line.is_none());
        let client_due = [machine.poll_timeout(), dial_at];
        let since = |at: &Instant| at.saturating_duration_since(self.origin).as_micros() as Time + 1;
        let mut next = end;
        for at in gateway_due.iter().flatten() {
            next = next.min(since(at).max(gateway_at));
        }
        for at in client_due.iter().flatten() {
            next = next.min(since(at).max(client_at));
        }
        let app = [
            self.app.to_app.next_at().map(|at| at.max(self.app.paused_until)),
            self.app.to_gateway.next_at(),
        ];
        let lines = self.lines.iter().filter_map(Line::next_at);
        if let Some((at, _)) = self.gateway.dialing {
            next = next.min(at.max(gateway_at));
        }
        for at in [self.client.dial_until(), self.client.work_at()].into_iter().flatten() {
            next = next.min(at.max(client_at));
        }
        for at in lines.chain(app.into_iter().flatten()).chain(self.plan.leaves_early) {
            if at > self.now {
                next = next.min(at);
            }
        }
        for at in [gateway_at, self.client.hung_until, self.client.frozen_until, self.app.paused_until] {
            if at > self.now {
                next = next.min(at);
            }
        }
        let acts = if self.is_busy() { [self.next_message, self.next_fault] } else { [NEVER; 2] };
        let talk = if self.plan.pongs == Pongs::None { self.next_talk } else { NEVER };
        for at in acts.into_iter().chain([talk, self.plan.busy_until, self.plan.leave_at]) {
            if at > self.now {
                next = next.min(at);
            }
        }
        // What is due and can't be done now is looked at again soon, as on the beat of the real timers.
        self.now = if next > self.now { next } else { self.now + 10 * MS };
    }

    pub(super) fn at(&self, time: Time) -> Instant {
        self.origin + Duration::from_micros(time)
    }

    pub(super) fn latency(&mut self) -> Time {
        let (least, most) = self.plan.latency;
        self.random.u64(least..=most)
    }

    pub(super) fn draw_bytes(&mut self) -> usize {
        self.plan.draw_bytes(&mut self.random)
    }

    /// Draws a time with this mean.
    pub(super) fn draw(&mut self, mean: Time) -> Time {
        ((mean as f64) * -(1.0 - self.random.f64()).ln()) as Time + 1
    }

    /// A bug on the client's side.
    pub(super) fn swallows_ack(&mut self, frame: &Frame) -> bool {
        let Frame::Word(word) = frame else { return false };
        self.bug == Some(V1Bug::LostAck) && (word[0] == 1 || word[0] == 3)
    }

    /// Another bug there.
    pub(super) fn tamper(&mut self, frame: Frame) -> Frame {
        let Frame::Word(word) = &frame else { return frame };
        match Envelope::parse(word) {
            Ok(Envelope::Ack(ack)) if self.bug == Some(V1Bug::AckBeyond) => {
                let mut word = Vec::new();
                Envelope::Ack(Ack { handled: ack.handled + 1, window: None }).write(&mut word);
                Frame::Word(word)
            }
            Ok(_) | Err(_) => frame,
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>10.3} {}", self.now as f64 / SECOND as f64, what()));
        }
    }
}
