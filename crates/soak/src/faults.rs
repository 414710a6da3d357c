//! What happens to a line, drawn from a seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use pulsegate_chaos::{Control, Direction, FaultProxy};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::history::lock;
use crate::message::mix;

/// Pause between two faults of a line.
const PAUSE_MS: std::ops::Range<u64> = 300..4000;

/// Bytes within which a new connection is cut: somewhere in the handshake, or soon behind it.
const EARLY_BYTES_MAX: u64 = 1200;

/// One fault of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection hangs; a new one would pass.
    Freeze,
    /// Nothing passes, new connections neither.
    Blackout,
    /// Nothing passes in one direction.
    OneWay(Direction),
    /// Both ends get an RST.
    Reset,
    /// One direction ends with a FIN, the other stays open.
    HalfClose(Direction),
    /// All is late and uneven.
    Delay(Duration),
    /// Writes of at most so many bytes.
    Slices(usize),
    /// Reset, and each new connection is cut when so many bytes have passed towards the client: at 0 right after accept.
    CutEarly(u64),
}

impl Fault {
    /// Returns the name of its kind.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::Freeze => "freeze",
            Fault::Blackout => "blackout",
            Fault::OneWay(Direction::ToTarget) => "one way, to gateway",
            Fault::OneWay(Direction::ToClient) => "one way, to client",
            Fault::Reset => "reset",
            Fault::HalfClose(_) => "half close",
            Fault::Delay(_) => "delay",
            Fault::Slices(_) => "slices",
            Fault::CutEarly(0) => "cut at accept",
            Fault::CutEarly(_) => "cut in handshake",
        }
    }

    fn draw(random: &mut fastrand::Rng) -> Fault {
        let direction = Direction::BOTH[random.usize(..2)];
        match random.u32(..16) {
            0..2 => Fault::Freeze,
            2 => Fault::Blackout,
            3..6 => Fault::OneWay(direction),
            6..9 => Fault::Reset,
            9 => Fault::HalfClose(direction),
            10..12 => Fault::Delay(Duration::from_millis(random.u64(20..250))),
            12..14 => Fault::Slices(1 << random.usize(..7)),
            14 => Fault::CutEarly(0),
            _ => Fault::CutEarly(random.u64(1..EARLY_BYTES_MAX)),
        }
    }

    /// How long it lasts: longer and shorter than the bound within which a silent peer is found, but where that is only
    /// slow.
    fn hold(self, random: &mut fastrand::Rng) -> Duration {
        let ms = match self {
            Fault::Freeze | Fault::Blackout | Fault::OneWay(_) => random.u64(200..6000),
            Fault::Reset | Fault::HalfClose(_) => random.u64(0..300),
            Fault::Delay(_) => random.u64(500..4000),
            Fault::Slices(_) => random.u64(200..1000),
            Fault::CutEarly(_) => random.u64(100..1500),
        };
        Duration::from_millis(ms)
    }

    /// Sets it for the line, or for its latest connection alone.
    fn apply(self, line: &FaultProxy) {
        let all = line.all();
        let latest = || line.connections().last().and_then(|latest| line.connection(latest.id));
        let on_latest = |act: &dyn Fn(&Control)| latest().iter().for_each(act);
        match self {
            Fault::Freeze => on_latest(&Control::freeze),
            Fault::Blackout => all.freeze(),
            Fault::OneWay(direction) => on_latest(&|one| one.freeze_direction(direction)),
            Fault::Reset => all.reset(),
            Fault::HalfClose(direction) => all.half_close(direction),
            Fault::Delay(delay) => all.delay(delay, delay * 3 / 4),
            Fault::Slices(bytes) => all.slice(bytes),
            Fault::CutEarly(bytes) => {
                all.reset();
                all.cut_after(Direction::ToClient, bytes);
            }
        }
    }
}

/// What happens to one line and when, the same for the same seed: pause, fault, and how long it lasts.
#[derive(Debug)]
pub struct Schedule {
    random: fastrand::Rng,
}

impl Schedule {
    /// Returns the schedule of one line.
    pub fn new(seed: u64, line: usize) -> Schedule {
        Schedule { random: fastrand::Rng::with_seed(mix(seed ^ mix(line as u64))) }
    }
}

impl Iterator for Schedule {
    type Item = (Duration, Fault, Duration);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = Duration::from_millis(self.random.u64(PAUSE_MS));
        let fault = Fault::draw(&mut self.random);
        Some((pause, fault, fault.hold(&mut self.random)))
    }
}

/// How often each kind of fault was set.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn add(&self, fault: Fault) {
        *lock(&self.0).entry(fault.kind()).or_default() += 1;
    }

    /// Returns kinds and counts, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0).iter().map(|(kind, count)| (*kind, *count)).collect()
    }
}

/// Starts a line of its own to `target`.
///
/// # Errors
/// No port is free.
pub(crate) async fn line(target: SocketAddr, seed: u64) -> std::io::Result<FaultProxy> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    Ok(FaultProxy::start_seeded(listener, target, seed))
}

/// Lets the schedule happen to a line until `calm`, and heals it.
pub(crate) async fn trouble(line: &FaultProxy, schedule: Schedule, tally: &Tally, calm: &CancellationToken) {
    let run = async {
        for (pause, fault, hold) in schedule {
            sleep(pause).await;
            fault.apply(line);
            tally.add(fault);
            sleep(hold).await;
            line.all().heal();
        }
    };
    calm.run_until_cancelled(run).await;
    line.all().heal();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again_and_each_line_its_own() {
        let draw = |seed, line| Schedule::new(seed, line).take(50).collect::<Vec<_>>();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn every_kind_comes_up() {
        let kinds: BTreeSet<&str> = Schedule::new(1, 0).take(400).map(|(_, fault, _)| fault.kind()).collect();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
    }
}
