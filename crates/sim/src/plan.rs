//! From a seed to a world: who is there, and what happens when.

use std::time::Duration;

use pulsegate_heartbeat::Limits;

use crate::link::{Lazy, Path, Pipe};
use crate::own::{Halt, Own};
use crate::peer::{Kind, Peer};
use crate::{MS, NEVER, SECOND, Time};

/// What a seed stands for.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ends_at: Time,
    pub(crate) own: Own,
    /// Per leg.
    pub(crate) limits: [Limits; 2],
    pub(crate) sessions: Vec<[LegPlan; 2]>,
}

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct LegPlan {
    pub(crate) opens_at: Time,
    pub(crate) peer: Peer,
    pub(crate) path: Path,
    pub(crate) has_view: bool,
    pub(crate) balancer: bool,
    pub(crate) window: u64,
    pub(crate) room: u64,
    /// How its kernel saves acknowledgements.
    pub(crate) lazy: Option<Lazy>,
}

impl LegPlan {
    /// The streams out and in. Ours retransmits at bounded gaps, the peer's kernel does not.
    pub(crate) fn pipes(&self, limits: &Limits) -> [Pipe; 2] {
        let gap = micros(limits.retransmission_gap_max());
        [
            Pipe::new(self.window, self.room, &self.path, gap, true).with_lazy(self.lazy),
            Pipe::new(256 * 1024, NEVER, &self.path, 120 * SECOND, false),
        ]
    }
}

pub(crate) fn micros(time: Duration) -> Time {
    Time::try_from(time.as_micros()).unwrap_or(NEVER)
}

pub(crate) fn plan(seed: u64) -> Plan {
    let mut random = fastrand::Rng::with_seed(seed);
    let ends_at = random.u64(60..200) * SECOND;
    let limits = limits(&mut random);
    let own = own(&mut random, ends_at);
    let count = match random.u8(..20) {
        0 => random.usize(12..=24),
        1..=4 => random.usize(2..=6),
        5.. => 1,
    };
    // A network of our own that fails cuts everybody at once; many stalls pass.
    let common = (count > 1 && random.u8(..4) != 0).then(|| outage(&mut random, ends_at));
    let has_view = random.u8(..5) != 0;
    // Apart, so that it leaves the other worlds as they were.
    let mut slow = fastrand::Rng::with_seed(seed ^ 0x51_0e);
    let sessions = (0..count)
        .map(|_| {
            let opens_at = random.u64(..3 * SECOND);
            let mut legs = [0, 1].map(|side| {
                let calm = count > 8 && random.u8(..10) != 0;
                let mut leg = leg(&mut random, opens_at, ends_at, calm, &limits[side]);
                leg.has_view = has_view;
                if let Some(common) = common.filter(|_| side == 0 && !leg.balancer) {
                    leg.path.outages.push(common);
                }
                leg
            });
            if slow.u8(..10) == 0 {
                slow_line(&mut slow, &mut legs);
            }
            legs
        })
        .collect();
    Plan { ends_at, own, limits, sessions }
}

fn limits(random: &mut fastrand::Rng) -> [Limits; 2] {
    let (interval, verdict) = [(1, 2), (1, 2), (5, 5), (5, 5), (25, 15)][random.usize(..5)];
    let bound = interval + verdict;
    let second = Duration::from_secs(1);
    let client = Limits {
        ping_interval: second * interval,
        verdict_after: second * verdict,
        frozen_after: second * bound,
        idle_timeout: second * [60, 60, 50][random.usize(..3)],
        write_stall_after: second * bound,
    };
    let app = second * [30, 30, 45][random.usize(..3)];
    [client, Limits { frozen_after: app, write_stall_after: app, ..client }]
}

fn own(random: &mut fastrand::Rng, ends_at: Time) -> Own {
    let lateness = [0, 0, 0, 20 * MS, 50 * MS][random.usize(..5)];
    let mut halts = Vec::new();
    let count = [0, 0, 0, 1, 2, 4][random.usize(..6)];
    let mut from = 0;
    for _ in 0..count {
        from += random.u64(5 * SECOND..ends_at / 3);
        let length = long_or_short(random);
        let halt = [Halt::Process, Halt::Process, Halt::Machine, Halt::Suspend][random.usize(..4)];
        halts.push((from, from + length, halt));
        from += length;
    }
    Own { halts, lateness, reaction: random.u64(..2 * MS) }
}

/// From a tenth of a second to 40 s, evenly over the orders of magnitude.
fn long_or_short(random: &mut fastrand::Rng) -> Time {
    ((100 * MS) as f64 * 400f64.powf(random.f64())) as Time
}

fn outage(random: &mut fastrand::Rng, ends_at: Time) -> (Time, Time, [bool; 2]) {
    let from = random.u64(..ends_at);
    let ways = [[true, true], [true, true], [true, false], [false, true]][random.usize(..4)];
    let length = if random.u8(..6) == 0 { NEVER - from } else { long_or_short(random) };
    (from, from + length, ways)
}

fn path(random: &mut fastrand::Rng, ends_at: Time, calm: bool) -> Path {
    let delay = (50.0 * 4_000f64.powf(random.f64())) as Time;
    let mut path = Path { delay, jitter: delay / 8, loss: 0.0, rate: 100_000_000, outages: Vec::new() };
    if calm || random.bool() {
        return path;
    }
    path.jitter = delay / 2;
    path.loss = [0.0, 0.0, 0.01, 0.03][random.usize(..4)];
    path.rate = [100_000_000, 1_000_000, 50_000][random.usize(..3)];
    for _ in 0..[0, 1, 1, 2, 4][random.usize(..5)] {
        path.outages.push(outage(random, ends_at));
    }
    path
}

fn leg(random: &mut fastrand::Rng, opens_at: Time, ends_at: Time, calm: bool, limits: &Limits) -> LegPlan {
    let kind = if calm || random.u8(..3) == 0 { Kind::Answers } else { Kind::ALL[random.usize(..14)] };
    let mut path = path(random, ends_at, calm);
    let balancer = random.u8(..10) == 0;
    if balancer {
        path.outages.clear();
    }
    let mut peer = Peer::new(kind);
    let stops_at = opens_at + random.u64(2 * SECOND..ends_at.max(3 * SECOND));
    let mut sends = !calm && random.u8(..3) == 0;
    match kind {
        Kind::Frozen => peer.stops_at = stops_at,
        Kind::HostGone => vanish(&mut peer, &mut path, balancer, stops_at),
        Kind::DiesEarly => {
            let early = random.u64(..=micros(limits.ping_interval) / 4);
            vanish(&mut peer, &mut path, balancer, opens_at + early);
        }
        Kind::SlowReader => {
            (peer.think, peer.gulp) = (random.u64(10 * MS..SECOND), random.u64(500..20_000));
        }
        Kind::Newest | Kind::Oldest => peer.think = random.u64(..400 * MS),
        Kind::NeverPongs | Kind::EachSecond | Kind::EachThird => peer.think = random.u64(..5 * MS),
        Kind::Floods | Kind::NeverReads | Kind::Busy => sends = true,
        Kind::Answers | Kind::Silent => {}
    }
    if sends && kind != Kind::Silent {
        peer.send_every = random.u64(30 * MS..=5 * SECOND);
        if kind == Kind::Busy {
            peer.send_every /= 5;
        }
        peer.send_bytes = [50, 200, 4_000, 60_000][random.usize(..4)];
        peer.next_send = opens_at + random.u64(..2 * SECOND);
    }
    let window = [32 * 1024, 256 * 1024][random.usize(..2)];
    LegPlan { opens_at, peer, path, has_view: true, balancer, window, room: 2 * window, lazy: None }
}

/// Makes the client one on a slow line whose acknowledgements are few, to whom the app has more to say than the
/// line carries. It reads as fast as the line, a little at a time, and says nothing but what it is asked for.
fn slow_line(random: &mut fastrand::Rng, legs: &mut [LegPlan; 2]) {
    let [client, app] = legs;
    let delay = random.u64(5 * MS..60 * MS);
    let rate = random.u64(20_000..100_000);
    let old = std::mem::take(&mut client.path);
    // A host that is gone stays so; nothing else is lost.
    let outages =
        old.outages.into_iter().filter(|outage| outage.1 == NEVER && outage.2 == [true, true]).collect();
    client.path = Path { delay, jitter: delay / 8, loss: 0.0, rate, outages };
    client.lazy = Some(Lazy { time: random.u64(SECOND..3 * SECOND), bytes: random.u64(32..=64) * 1024 });
    (client.peer.think, client.peer.gulp) = (random.u64(..160 * MS), 16 * 1024);
    (client.peer.send_every, client.peer.next_send) = (NEVER, NEVER);
    app.peer.send_every = random.u64(200 * MS..2 * SECOND);
    app.peer.send_bytes = [4_000, 20_000, 60_000][random.usize(..3)];
    app.peer.next_send = app.opens_at + random.u64(..2 * SECOND);
}

/// The host is gone. Behind a balancer only the process is: the kernel that acknowledges stays.
fn vanish(peer: &mut Peer, path: &mut Path, balancer: bool, at: Time) {
    peer.stops_at = at;
    if !balancer {
        path.outages.push((at, NEVER, [true, true]));
    }
}
