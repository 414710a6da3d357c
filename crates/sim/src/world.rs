//! The world: an event queue over virtual time.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pulsegate_core::Leg as Side;
use pulsegate_heartbeat::{Crowd, KernelView};
use pulsegate_registry::{CloseCodes, Confirm, DeliveryRules, Session, SessionLimits};

use crate::bugs::Bug;
use crate::driver::{CLOSE_TIMEOUT, Driver};
use crate::link::{Item, Path, Pipe, Segment, Way};
use crate::oracle::{Oracle, Truth};
use crate::own::Own;
use crate::peer::{Kind, Peer};
use crate::plan::{LegPlan, Plan, plan};
use crate::queue::{Event, Queue};
use crate::report::Report;
use crate::{NEVER, Time};

/// Liveness alone is at stake here.
const DELIVERY: DeliveryRules = DeliveryRules {
    confirm: Confirm::Off,
    interval: Duration::from_secs(1),
    answer_within: Duration::from_secs(5),
};

/// One connection: the peer's process, the path, both kernels, and what the oracle keeps of it.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) peer: Peer,
    pub(crate) path: Path,
    pub(crate) pipes: [Pipe; 2],
    pub(crate) has_view: bool,
    /// Our read opened a window that was shut.
    pub(crate) opens: bool,
    pub(crate) truth: Truth,
    rto_armed: [Time; 2],
}

impl Leg {
    pub(crate) fn out(&self) -> &Pipe {
        &self.pipes[Way::Out as usize]
    }

    pub(crate) fn inward(&mut self) -> &mut Pipe {
        &mut self.pipes[Way::In as usize]
    }

    pub(crate) fn note_write(&mut self, bytes: u64, item: Option<Item>, now: Time) {
        let ahead = self.out().view().0;
        self.pipes[Way::Out as usize].write(bytes, item, now);
        self.truth.taken_at = now;
        // Until the socket has all of it no answer is possible.
        if let Some(Item::Ping(_)) = item {
            self.truth.note_probe(ahead, now);
        }
        if now >= self.path.dead_from() {
            self.truth.lost_write_at.get_or_insert(now);
        }
    }

    pub(crate) fn kernel_view(&self, own: &Own, now: Time) -> Option<KernelView> {
        let (unacked_bytes, retransmits) = self.out().view();
        let since = own.clock(now) - own.clock(self.out().heard_at);
        // The kernel tells whole milliseconds.
        let since_last_ack = Duration::from_millis(since / 1_000);
        self.has_view.then_some(KernelView { unacked_bytes, retransmits, since_last_ack })
    }
}

#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) driver: Driver,
    pub(crate) legs: [Leg; 2],
    wake_at: Option<Time>,
    over: bool,
}

/// Runs the world of `seed`, with `bug` planted; keeps the story if `told`.
pub fn run(seed: u64, bug: Option<Bug>, told: bool) -> Report {
    let plan = plan(seed);
    let mut world = World::new(seed, &plan, bug, told);
    world.run(plan.ends_at);
    Report { failure: world.oracle.failure, story: world.oracle.story, tally: world.oracle.tally }
}

struct World {
    now: Time,
    queue: Queue,
    seats: Vec<Seat>,
    own: Own,
    oracle: Oracle,
    random: fastrand::Rng,
}

impl World {
    fn new(seed: u64, plan: &Plan, bug: Option<Bug>, told: bool) -> World {
        let random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            seats: Vec::new(),
            own: plan.own.clone(),
            oracle: Oracle::new(plan, told),
            random,
        };
        let machine = plan.limits.map(|limits| match bug {
            Some(Bug::BoundLong) => stretched(limits, 9),
            Some(Bug::BoundShort) => stretched(limits, 7),
            _ => limits,
        });
        let codes = CloseCodes { dead_client: 1001, dead_app: 1012, frozen_app: 1013 };
        let close_timeout = Duration::from_micros(CLOSE_TIMEOUT);
        let limits = Arc::new(SessionLimits {
            client: machine[0].into(),
            app: machine[1].into(),
            close_timeout,
            delivery: DELIVERY,
            codes,
        });
        let mut crowds = crowds();
        for (number, legs) in plan.sessions.iter().enumerate() {
            if bug == Some(Bug::NoCrowdBrake) {
                crowds = self::crowds();
            }
            let start = base() + Duration::from_micros(plan.own.clock(legs[0].opens_at));
            let seed = world.random.u64(..);
            let session = Session::new(Arc::clone(&limits), &crowds, legs[0].balancer, seed, start);
            let driver = Driver::new(session, bug, base(), seed);
            let legs = [0, 1].map(|side| world.leg(&legs[side], &plan.limits[side]));
            world.seats.push(Seat { driver, legs, wake_at: None, over: false });
            world.arm_timer(number, 0);
            for side in 0..2 {
                let first = world.seats[number].legs[side].peer.next_send;
                world.queue.push(first, Event::Act(number, side));
            }
        }
        world
    }

    fn leg(&mut self, plan: &LegPlan, limits: &pulsegate_heartbeat::Limits) -> Leg {
        self.oracle.tally.count(format!("kind {:?}", plan.peer.kind));
        let mut pipes = plan.pipes(limits);
        for pipe in &mut pipes {
            (pipe.heard_at, pipe.arrived_at) = (plan.opens_at, plan.opens_at);
        }
        Leg {
            peer: plan.peer.clone(),
            path: plan.path.clone(),
            pipes,
            has_view: plan.has_view,
            opens: false,
            truth: Truth::new(plan.opens_at),
            rto_armed: [NEVER; 2],
        }
    }

    fn run(&mut self, ends_at: Time) {
        while let Some((at, event)) = self.queue.pop() {
            if at > ends_at || self.oracle.failure.is_some() {
                break;
            }
            self.now = at;
            match event {
                Event::Wake(seat) => self.wake(seat),
                Event::Arrive(seat, side, way, segment) => self.arrive(seat, side, way, segment),
                Event::Resend(seat, side, way) => self.resend(seat, side, way),
                Event::Act(seat, side) => self.act(seat, side),
                Event::Acknowledge(seat, side) => self.acknowledge(seat, side),
            }
        }
        if self.oracle.failure.is_none() && self.own.process_runs_at(ends_at) == ends_at {
            self.oracle.check_end(&self.seats, &self.own, ends_at);
        }
    }

    fn arm(&mut self, seat: usize, at: Time) {
        let at = self.own.process_runs_at(at.max(self.now));
        let wake_at = &mut self.seats[seat].wake_at;
        if wake_at.is_none_or(|earlier| at < earlier) {
            *wake_at = Some(at);
            self.queue.push(at, Event::Wake(seat));
        }
    }

    fn arm_timer(&mut self, seat: usize, lateness: Time) {
        if let Some(due) = self.seats[seat].driver.timeout() {
            let wait = due.saturating_sub(self.own.clock(self.now));
            self.arm(seat, self.now + wait + lateness);
        }
    }

    fn wake(&mut self, number: usize) {
        let seat = &mut self.seats[number];
        if seat.wake_at != Some(self.now) || seat.over {
            return;
        }
        seat.wake_at = None;
        let mut notes = Vec::new();
        seat.driver.turn(&mut seat.legs, &self.own, self.now, &mut notes);
        self.oracle.check_turn(&mut self.seats, number, &notes, &self.own, self.now);
        let seat = &mut self.seats[number];
        seat.over = seat.driver.session.is_finished();
        if seat.over {
            return;
        }
        for side in 0..2 {
            if std::mem::take(&mut self.seats[number].legs[side].opens) {
                self.send(number, side, Way::Out, None);
            }
            self.pump(number, side, Way::Out);
            if self.can_work(number, side) {
                self.arm(number, self.now + self.own.reaction + 1);
            }
        }
        self.arm_timer(number, self.own.lateness);
    }

    /// Returns whether the driver has something to read that it did not come to.
    fn can_work(&self, seat: usize, side: usize) -> bool {
        let seat = &self.seats[seat];
        let line = &seat.driver.lines[side];
        !line.paused && !line.abandoned && seat.legs[side].pipes[Way::In as usize].waiting() > 0
    }

    /// Sends a range of the stream, or an acknowledgement alone.
    fn send(&mut self, seat: usize, side: usize, way: Way, range: Option<(u64, u64)>) {
        let leg = &mut self.seats[seat].legs[side];
        let (ack, edge) = leg.pipes[way.back() as usize].acknowledge();
        let (start, end) = range.unwrap_or((0, 0));
        let segment = Segment { start, end, asks: range.is_some(), ack, edge };
        let cut = leg.path.is_cut(way, self.now) || self.random.f64() < leg.path.loss;
        let travel = leg.path.travel(&mut self.random);
        let pipe = &mut leg.pipes[way as usize];
        let took = (end - start + 50) * crate::SECOND / leg.path.rate;
        pipe.busy_until = pipe.busy_until.max(self.now) + took;
        if cut {
            return;
        }
        let due = (pipe.busy_until + travel).max(pipe.last_due + 1);
        pipe.last_due = due;
        self.queue.push(due, Event::Arrive(seat, side, way, segment));
    }

    /// Sends what the sender of `way` may send, and sets its retransmission timer.
    fn pump(&mut self, seat: usize, side: usize, way: Way) {
        let now = self.now;
        while let Some(range) = self.seats[seat].legs[side].pipes[way as usize].next_segment(now) {
            self.send(seat, side, way, Some(range));
        }
        let leg = &mut self.seats[seat].legs[side];
        if let Some(at) = leg.pipes[way as usize].rto_at
            && leg.rto_armed[way as usize] != at
        {
            leg.rto_armed[way as usize] = at;
            self.queue.push(at, Event::Resend(seat, side, way));
        }
    }

    fn resend(&mut self, seat: usize, side: usize, way: Way) {
        let at = self.own.kernel_runs_at(self.now);
        let pipe = &mut self.seats[seat].legs[side].pipes[way as usize];
        if pipe.rto_at != Some(self.now) {
            return;
        }
        if way == Way::Out && at > self.now {
            pipe.rto_at = Some(at);
        } else if let Some(range) = pipe.handle_rto(self.now) {
            self.send(seat, side, way, Some(range));
        }
        self.pump(seat, side, way);
    }

    fn arrive(&mut self, seat: usize, side: usize, way: Way, segment: Segment) {
        if way == Way::In && self.own.kernel_runs_at(self.now) > self.now || self.seats[seat].over {
            return;
        }
        let now = self.now;
        let leg = &mut self.seats[seat].legs[side];
        leg.pipes[way.back() as usize].handle_ack(segment.ack, segment.edge, now);
        let fresh = leg.pipes[way as usize].handle_segment(segment, now);
        if segment.asks {
            match leg.pipes[way as usize].put_off_ack(fresh, now) {
                None => self.send(seat, side, way.back(), None),
                Some(at) => self.queue.push(at, Event::Acknowledge(seat, side)),
            }
        }
        let leg = &mut self.seats[seat].legs[side];
        if fresh && way == Way::In {
            leg.truth.note_arrival();
            self.arm(seat, now + self.own.reaction);
        } else if fresh && leg.peer.read_at.is_none() && leg.peer.reads(now) {
            let at = now + leg.peer.think;
            leg.peer.read_at = Some(at);
            self.queue.push(at, Event::Act(seat, side));
        }
        self.pump(seat, side, way.back());
        // The socket may take more again.
        if way == Way::In && self.seats[seat].driver.lines[side].waits_for_room() {
            self.arm(seat, now + self.own.reaction);
        }
    }

    /// The peer's kernel has put an acknowledgement off for long enough, unless it went with something else.
    fn acknowledge(&mut self, seat: usize, side: usize) {
        if !self.seats[seat].over && self.seats[seat].legs[side].out().ack_at == Some(self.now) {
            self.send(seat, side, Way::In, None);
        }
    }

    /// The peer's process reads and sends.
    fn act(&mut self, seat: usize, side: usize) {
        if self.seats[seat].over {
            return;
        }
        let (now, leg) = (self.now, &mut self.seats[seat].legs[side]);
        let mut out = Vec::new();
        let mut opens = false;
        if leg.peer.read_at.is_some_and(|at| at <= now) {
            leg.peer.read_at = None;
            if leg.peer.reads(now) {
                let mut items = Vec::new();
                (_, opens) = leg.pipes[Way::Out as usize].take(leg.peer.gulp, &mut items);
                leg.peer.handle(&items, &mut out);
                if leg.pipes[Way::Out as usize].waiting() > 0 {
                    let at = now + leg.peer.think.max(1);
                    leg.peer.read_at = Some(at);
                    self.queue.push(at, Event::Act(seat, side));
                }
            }
        }
        let leg = &mut self.seats[seat].legs[side];
        if leg.peer.next_send <= now && now < leg.peer.stops_at {
            let backlog = leg.pipes[Way::In as usize].view().0;
            if backlog < 256 * 1024 && leg.peer.kind != Kind::Silent {
                out.push(leg.peer.own_message());
            }
            leg.peer.next_send = now + spread(leg.peer.send_every, &mut self.random);
            let at = leg.peer.next_send;
            self.queue.push(at, Event::Act(seat, side));
        }
        let leg = &mut self.seats[seat].legs[side];
        for (bytes, item) in out {
            leg.pipes[Way::In as usize].write(bytes, Some(item), now);
        }
        if opens {
            self.send(seat, side, Way::In, None);
        }
        self.pump(seat, side, Way::In);
    }
}

/// From half of `time` to one and a half.
fn spread(time: Time, random: &mut fastrand::Rng) -> Time {
    time / 2 + random.u64(..=time)
}

fn crowds() -> [Arc<Crowd>; 2] {
    [Arc::default(), Arc::default()]
}

fn stretched(mut limits: pulsegate_heartbeat::Limits, eighths: u32) -> pulsegate_heartbeat::Limits {
    limits.verdict_after = limits.verdict_after * eighths / 8;
    limits
}

/// Where virtual time starts: only differences count, so that runs of a seed are alike.
#[allow(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

impl Seat {
    pub(crate) fn side(&self, side: Side) -> &Leg {
        &self.legs[side.index()]
    }
}
