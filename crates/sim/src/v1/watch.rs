//! What is demanded of both machines while they work: counters, bounds, barriers, and who counts as dead and when.

use std::time::Duration;

use pulsegate_core::v1::{Ack, Envelope};
use pulsegate_core::{Cause, Leg};
use pulsegate_heartbeat::PongHabit;
use pulsegate_registry::{Counters, Detached, V1Session};

use super::driver::SOCKET_FRAMES;
use super::oracle::Invariant;
use super::world::World;
use crate::{MS, SECOND, Time};

/// Beyond a bound, for the path and for the beat of timers.
const SLACK: Time = 3 * SECOND / 2;

/// Deadlines in the past in so many rounds are a machine that wants to be called for nothing.
const LATE_MAX: u32 = 3;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// When the gateway last had something of the client's present connection.
    pub(super) heard_at: Time,
    /// The same of the client's code.
    pub(super) page_heard_at: Time,
    /// When the client's code last had something of the gateway.
    pub(super) gateway_heard_at: Time,
    /// To the client, to the app.
    before: [Counters; 2],
    /// Of each leg.
    barriers: [Barrier; 2],
    late: u32,
    /// The largest ACK of either side, down and up.
    acked: [u64; 2],
    /// When the client's socket was last full.
    full_at: Option<Time>,
}

#[derive(Debug, Default)]
struct Barrier {
    /// The one without an answer, and when it was written.
    unanswered: Option<([u8; 8], Time)>,
    /// Pings behind it.
    behind: Vec<[u8; 8]>,
}

impl Watch {
    pub(super) fn begin(&mut self, now: Time) {
        *self = Watch { gateway_heard_at: self.gateway_heard_at, ..Watch::default() };
        self.attach(now);
    }

    /// The app has another connection.
    pub(super) fn begin_app(&mut self) {
        self.barriers[Leg::App.index()] = Barrier::default();
    }

    pub(super) fn attach(&mut self, now: Time) {
        (self.heard_at, self.page_heard_at) = (now, now);
        self.barriers[Leg::Client.index()] = Barrier::default();
    }
}

fn micros(time: Duration) -> Time {
    time.as_micros() as Time
}

impl World {
    pub(super) fn note_ping(&mut self, leg: Leg, payload: [u8; 8], is_barrier: bool) {
        let Barrier { unanswered, behind } = &mut self.watch.barriers[leg.index()];
        if !is_barrier {
            behind.push(payload);
            return;
        }
        // One that has no answer for as long as it may take is given up.
        let patience = micros(self.plan.limits.session.delivery.answer_within);
        let before = unanswered.replace((payload, self.now));
        behind.clear();
        if let Some((_, sent_at)) = before
            && self.now < sent_at + patience
        {
            let what = format!("a second to the {leg:?} after {} us", self.now - sent_at);
            self.oracle.object(Invariant::Barrier, what);
        }
    }

    /// An answer to a later ping answers the barrier as well.
    pub(super) fn note_pong(&mut self, leg: Leg, payload: [u8; 8]) {
        let Barrier { unanswered, behind } = &mut self.watch.barriers[leg.index()];
        if unanswered.is_some_and(|(barrier, _)| barrier == payload) || behind.contains(&payload) {
            *unanswered = None;
        }
    }

    /// What one side says to have handled never becomes less, over all connections of a session.
    pub(super) fn check_ack(&mut self, up: bool, word: &[u8]) {
        let Ok(Envelope::Ack(Ack { handled, .. }) | Envelope::ProbeAck(Ack { handled, .. })) =
            Envelope::parse(word)
        else {
            return;
        };
        let before = std::mem::replace(&mut self.watch.acked[usize::from(up)], handled);
        if handled < before {
            self.oracle.object(Invariant::Counts, format!("an ACK says {handled} after {before}"));
        }
    }

    pub(super) fn check_counts(&mut self, session: &V1Session) {
        let progress = session.progress();
        let (client, app) = (progress.to_client, progress.to_app);
        self.gateway.counters = (app.accepted, client.acked);
        let [client_before, app_before] = std::mem::replace(&mut self.watch.before, [client, app]);
        // What is kept for the client is gone with the end, and no longer counted.
        let ends = session.is_closing();
        let grows = |old: Counters, new: Counters| {
            (ends || old.accepted <= new.accepted) && old.sent <= new.sent && old.acked <= new.acked
        };
        let ordered = client.acked <= client.sent
            && (ends || client.sent <= client.accepted)
            && app.acked <= app.accepted
            && app.sent <= app.accepted;
        if !ordered || !grows(client_before, client) || !grows(app_before, app) {
            self.oracle.object(
                Invariant::Counts,
                format!("{client:?}, {app:?} after {client_before:?}, {app_before:?}"),
            );
        }
        let window = self.plan.limits.window;
        let kept = usize::try_from(client.accepted - client.acked).unwrap_or(usize::MAX);
        // One alone may be larger than the window, one more is staged, and orders wait without a number.
        let bytes_max =
            window.bytes.max(self.plan.message_max()) + self.plan.message_max() + self.oracle.order_bytes();
        if kept > window.messages.max(1) || progress.kept.bytes > bytes_max as u64 {
            self.oracle.object(
                Invariant::Counts,
                format!("{kept} messages, {} bytes kept in {window:?}", progress.kept.bytes),
            );
        }
        let (client_has, app_has) = self.oracle.handled_now();
        // A SKIP is acknowledged as well; so is what was refused or not passed on.
        let passed_on = app.acked.saturating_sub(app.accepted - app.sent);
        if client.acked > client_has || passed_on > app_has {
            let what = format!("{client:?}, {app:?}, but handled are {client_has} and {app_has}");
            self.oracle.object(Invariant::Counts, what);
        }
    }

    /// Nobody asks to be called at a time that is over, again and again.
    pub(super) fn check_timers(&mut self) {
        let at = self.at(self.now);
        let is_stalled = self.now < self.gateway.stalled_until;
        let Some((_, session)) = self.gateway.session.as_ref().filter(|_| !is_stalled) else { return };
        let line = self.gateway.line.filter(|place| self.lines[*place].down.len() < SOCKET_FRAMES);
        let transmit = session.poll_transmit_timeout().filter(|_| line.is_some());
        let is_late = session.poll_timeout().into_iter().chain(transmit).any(|due| due <= at);
        self.watch.late = if is_late { self.watch.late + 1 } else { 0 };
        if self.watch.late > LATE_MAX {
            self.oracle.object(Invariant::Progress, "a deadline stays in the past");
        }
    }

    /// Who is silent is given up in time.
    pub(super) fn check_silence(&mut self, session: &V1Session) {
        if self.gateway.line.is_some_and(|place| self.lines[place].down.len() >= SOCKET_FRAMES) {
            self.watch.full_at = Some(self.now);
        }
        if !session.is_attached() || session.is_closing() {
            return;
        }
        let limits = &self.plan.limits;
        // After a stall of our own the peer gets its time anew.
        let since = |heard_at: Time| self.now - self.now.min(heard_at.max(self.gateway.stalled_until));
        // A full socket has no place for a probe; its limit is another, and its time comes first.
        let stalled = |heard_at: Time| {
            let was_full = self.watch.full_at.is_some_and(|at| at >= heard_at);
            if was_full { micros(limits.session.client.write_stall_after) } else { 0 }
        };
        let silent = since(self.watch.heard_at);
        let page_silent = since(self.watch.page_heard_at);
        // A client that sent something behind a probe that it left unanswered is taken for one that never pongs.
        let never = session.detector(Leg::Client).is_some_and(|it| it.pong_habit() == PongHabit::Never);
        let leg = &limits.session.client;
        let bound = micros(if never { leg.idle_timeout } else { leg.bound() });
        let bound = bound + stalled(self.watch.heard_at) + SLACK;
        let page_bound = micros(limits.heartbeat + limits.page_frozen_after);
        let page_bound = page_bound + stalled(self.watch.page_heard_at) + SLACK;
        if silent > bound {
            let what = format!("the client is silent for {} ms, and attached", silent / MS);
            self.oracle.object(Invariant::Liveness, what);
        }
        if page_silent > page_bound {
            let what = format!("the page is silent for {} ms, and attached", page_silent / MS);
            self.oracle.object(Invariant::Liveness, what);
        }
    }

    /// Who was heard in time is not given up.
    pub(super) fn check_detached(&mut self, why: Detached) {
        let limits = &self.plan.limits;
        let (heard, within) = match why {
            Detached::Dead(Cause::Unreachable | Cause::Frozen) => {
                (self.watch.heard_at, micros(limits.session.client.verdict_after))
            }
            Detached::PageFrozen => (self.watch.page_heard_at, micros(limits.page_frozen_after)),
            Detached::Dead(Cause::WriteStalled) | Detached::Reset | Detached::Closed => return,
        };
        let ago = self.now - heard;
        if ago < within {
            self.oracle.object(Invariant::Liveness, format!("{}, heard {} ms ago", why.as_str(), ago / MS));
        }
        let quiet = self.now.saturating_sub(self.trouble_until);
        if quiet > 4 * SECOND {
            self.oracle
                .object(Invariant::Liveness, format!("given up after {} ms without a fault", quiet / MS));
        }
    }

    /// The same on the client's side, where silence is all there is to judge by.
    pub(super) fn check_lost(&mut self) {
        let ago = self.now - self.watch.gateway_heard_at;
        if ago < 2 * SECOND {
            let what = format!("the client gives a gateway up that it heard {} ms ago", ago / MS);
            self.oracle.object(Invariant::Liveness, what);
        }
    }

    pub(super) fn check_listening(&mut self) {
        let awake_at = self.client.hung_until.max(self.client.frozen_until);
        let silent = self.now - self.now.min(self.watch.gateway_heard_at.max(awake_at));
        if self.client.machine.is_live() && silent > 3 * SECOND + SLACK {
            let what = format!("the gateway is silent for {} ms, and the client stays", silent / MS);
            self.oracle.object(Invariant::Liveness, what);
        }
    }
}
