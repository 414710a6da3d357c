use std::time::{Duration, Instant};

use super::*;

/// Runs of each random test; each has a seed of its own.
const RUNS: u64 = 300;

/// Some delay, where any will do.
const DELAY: Duration = Duration::from_millis(100);

/// A link in virtual time, and a receiver that writes down what came when.
struct Bench {
    link: Link,
    now: Instant,
    received: Vec<(u8, Instant)>,
    ends: Vec<End>,
}

impl Bench {
    #[allow(clippy::disallowed_methods, reason = "an origin for virtual time; nothing depends on its value")]
    fn new(faults: Faults, seed: u64) -> Bench {
        Bench { link: Link::new(faults, seed), now: Instant::now(), received: Vec::new(), ends: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.link.handle_bytes(bytes, self.now);
    }

    fn set(&mut self, faults: Faults) {
        self.link.set_faults(faults, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Does all that is due now, as a receiver that takes up to `write_max` bytes at a time.
    fn drain(&mut self, write_max: usize) {
        loop {
            match self.link.poll_due(self.now) {
                Due::Nothing => return,
                Due::Bytes(bytes) => {
                    let slice_max = self.link.faults.slice_bytes.unwrap_or(usize::MAX).max(1);
                    assert!(!bytes.is_empty() && bytes.len() <= slice_max, "{} bytes at once", bytes.len());
                    let len = bytes.len().min(write_max);
                    self.received.extend(bytes[..len].iter().map(|&byte| (byte, self.now)));
                    self.link.handle_sent(len, self.now);
                }
                Due::Fin => {
                    self.ends.push(End::Fin);
                    self.link.handle_fin_sent();
                }
                Due::Reset => {
                    self.ends.push(End::Reset);
                    return;
                }
                Due::Cut => self.link.handle_cut(self.now),
            }
        }
    }

    /// Follows `poll_timeout` until the link has nothing more to say. A timeout must never be in vain, or
    /// the driver would spin.
    fn run(&mut self) {
        self.drain(usize::MAX);
        while let Some(at) = self.link.poll_timeout() {
            assert!(at > self.now, "the link has something due and did not say so");
            self.now = at;
            assert_ne!(self.link.poll_due(at), Due::Nothing, "woken for nothing");
            self.drain(usize::MAX);
            if self.ends.contains(&End::Reset) {
                return;
            }
        }
    }

    fn bytes(&self) -> Vec<u8> {
        self.received.iter().map(|&(byte, _)| byte).collect()
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Calls `run` with a generator per seed; `CHAOS_SEED` repeats one.
fn for_seeds(run: impl Fn(&mut fastrand::Rng)) {
    let seeds = match std::env::var("CHAOS_SEED") {
        Ok(seed) => vec![seed.parse().expect("CHAOS_SEED is a number")],
        Err(_) => (0..RUNS).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        println!("CHAOS_SEED={seed}");
        run(&mut fastrand::Rng::with_seed(seed));
    }
}

fn random_faults(random: &mut fastrand::Rng) -> Faults {
    Faults {
        frozen: random.u8(..4) == 0,
        delay: millis(random.u64(..300)),
        jitter: millis(random.u64(..300)),
        rate_bytes_per_s: random.bool().then(|| random.u64(..100_000)),
        slice_bytes: random.bool().then(|| random.usize(..20)),
        cut_after_bytes: None,
    }
}

#[test]
fn a_clean_link_passes_everything_at_once() {
    let mut bench = Bench::new(Faults::default(), 1);
    bench.send(b"hello");
    bench.link.handle_end(End::Fin, bench.now);
    bench.drain(usize::MAX);
    assert_eq!((bench.bytes(), bench.ends), (b"hello".to_vec(), vec![End::Fin]));
    assert!(bench.link.is_over());
    assert_eq!(bench.link.poll_timeout(), None);
}

#[test]
fn a_frozen_link_neither_reads_nor_tells() {
    for end in [End::Fin, End::Reset] {
        let mut bench = Bench::new(Faults::default(), 1);
        bench.send(b"held");
        bench.link.handle_end(end, bench.now);
        bench.set(Faults { frozen: true, ..Faults::default() });
        bench.pass(Duration::from_secs(3600));
        bench.run();
        assert_eq!(bench.link.intake(), Intake::Frozen);
        assert_eq!(bench.link.reset_at(), None);
        assert!(bench.received.is_empty() && bench.ends.is_empty());
        bench.set(Faults::default());
        bench.drain(usize::MAX);
        assert_eq!((bench.bytes(), bench.ends), (b"held".to_vec(), vec![end]));
    }
}

#[test]
fn an_end_waits_for_the_bytes_before_it_and_for_the_delay() {
    let mut bench = Bench::new(Faults { delay: millis(200), ..Faults::default() }, 1);
    bench.send(b"last words");
    bench.pass(millis(50));
    bench.link.handle_end(End::Reset, bench.now);
    let ended = bench.now;
    bench.run();
    assert_eq!((bench.bytes(), &bench.ends), (b"last words".to_vec(), &vec![End::Reset]));
    assert_eq!(bench.now, ended + millis(200));
}

#[test]
fn a_reset_follows_a_fin_but_not_the_other_way_round() {
    let mut bench = Bench::new(Faults::default(), 1);
    bench.link.handle_end(End::Fin, bench.now);
    bench.drain(usize::MAX);
    bench.link.handle_end(End::Reset, bench.now);
    bench.link.handle_end(End::Fin, bench.now);
    bench.drain(usize::MAX);
    assert_eq!(bench.ends, [End::Fin, End::Reset]);
}

#[test]
fn healing_ends_a_long_delay() {
    let mut bench = Bench::new(Faults { delay: Duration::from_secs(60), ..Faults::default() }, 1);
    bench.send(b"a");
    bench.link.handle_end(End::Fin, bench.now);
    bench.pass(millis(1));
    bench.set(Faults::default());
    bench.send(b"b");
    bench.drain(usize::MAX);
    assert_eq!((bench.bytes(), bench.ends), (b"ab".to_vec(), vec![End::Fin]));
}

#[test]
fn healing_ends_the_debt_of_a_low_rate() {
    let mut bench = Bench::new(Faults { rate_bytes_per_s: Some(1), ..Faults::default() }, 1);
    bench.send(b"abcdef");
    bench.drain(usize::MAX);
    assert_eq!(bench.bytes(), b"a");
    bench.set(Faults { rate_bytes_per_s: Some(1_000_000), ..Faults::default() });
    bench.pass(RATE_SLACK);
    bench.drain(usize::MAX);
    assert_eq!(bench.bytes(), b"abcdef");
}

#[test]
fn a_rate_of_nothing_holds_bytes_but_goes_on_reading() {
    let mut bench = Bench::new(Faults { rate_bytes_per_s: Some(0), ..Faults::default() }, 1);
    bench.send(&[7; 1000]);
    bench.run();
    assert!(bench.received.is_empty());
    assert_eq!(bench.link.intake(), Intake::Room(LINK_BYTES_MAX - 1000));
}

#[test]
fn a_full_link_is_not_read_into() {
    let faults = Faults { delay: DELAY, ..Faults::default() };
    let mut bench = Bench::new(faults, 1);
    bench.send(&vec![0; LINK_BYTES_MAX]);
    assert_eq!(bench.link.intake(), Intake::Full);
    let mut bench = Bench::new(faults, 1);
    for _ in 0..CHUNKS_MAX {
        bench.send(b"x");
    }
    assert_eq!(bench.link.intake(), Intake::Full, "one-byte reads cost more than a byte");
}

#[test]
fn a_cut_comes_after_exactly_so_many_bytes() {
    for limit in 0..=12u64 {
        for slice_bytes in [None, Some(3)] {
            let faults = Faults { cut_after_bytes: Some(limit), slice_bytes, ..Faults::default() };
            let mut bench = Bench::new(faults, 1);
            bench.drain(usize::MAX);
            bench.send(b"hello ");
            bench.drain(4);
            bench.send(b"world");
            bench.drain(4);
            let cut = limit <= 11;
            let passed = if cut { limit as usize } else { 11 };
            assert_eq!(bench.bytes(), &b"hello world"[..passed]);
            assert_eq!(bench.ends, if cut { vec![End::Fin] } else { vec![] });
        }
    }
}

/// A connection whose sender is gone must end with its reset: its own FIN could not be delivered.
#[test]
fn a_cut_hastens_a_reset_under_way() {
    let mut bench = Bench::new(Faults { delay: DELAY, ..Faults::default() }, 1);
    bench.send(b"lost");
    bench.link.handle_end(End::Reset, bench.now);
    bench.link.handle_cut(bench.now);
    bench.drain(usize::MAX);
    assert_eq!((bench.bytes(), bench.ends), (vec![], vec![End::Reset]));
}

#[test]
fn a_half_close_lets_pass_what_is_under_way_and_drops_the_rest() {
    let mut bench = Bench::new(Faults { delay: DELAY, ..Faults::default() }, 1);
    bench.send(b"in time");
    bench.link.handle_half_close(bench.now);
    bench.send(b"too late");
    bench.run();
    assert_eq!((bench.bytes(), bench.ends), (b"in time".to_vec(), vec![End::Fin]));
}

#[test]
fn equal_seeds_give_equal_jitter() {
    let due_times = |seed| {
        let mut bench = Bench::new(Faults { delay: DELAY, jitter: DELAY, ..Faults::default() }, seed);
        let due_of_next = |_| {
            bench.send(b"x");
            bench.run();
            bench.received.last().map(|&(_, at)| at)
        };
        let due: Vec<_> = (0..20).map(due_of_next).collect();
        due.windows(2)
            .map(|pair| pair[1].zip(pair[0]).map(|(later, sooner)| later - sooner))
            .collect::<Vec<_>>()
    };
    assert_eq!(due_times(7), due_times(7));
    assert_ne!(due_times(7), due_times(8));
}

/// Any sequence of faults: order is kept, nothing is lost, nothing doubled, and a heal delivers all.
#[test]
fn random_faults_lose_nothing() {
    for_seeds(|random| {
        let mut bench = Bench::new(random_faults(random), random.u64(..));
        let mut sent = Vec::new();
        for _ in 0..random.usize(1..200) {
            match random.u8(..6) {
                0 => bench.set(random_faults(random)),
                1 => bench.pass(millis(random.u64(..500))),
                2 => {
                    if let Some(at) = bench.link.poll_timeout() {
                        bench.now = bench.now.max(at);
                    }
                }
                3 => bench.drain(random.usize(1..50)),
                4 | 5 => {
                    if let Intake::Room(room) = bench.link.intake() {
                        let bytes: Vec<u8> =
                            (0..random.usize(1..=room.min(200))).map(|_| random.u8(..)).collect();
                        bench.send(&bytes);
                        sent.extend(bytes);
                    }
                }
                _ => unreachable!("the die has six sides"),
            }
            if bench.link.faults.frozen {
                assert_eq!(bench.link.poll_due(bench.now), Due::Nothing);
                assert_eq!(bench.link.intake(), Intake::Frozen);
            }
            assert_eq!(sent.len(), bench.received.len() + bench.link.held_bytes());
            assert_eq!(bench.received.len() as u64, bench.link.forwarded_bytes());
        }
        bench.set(Faults::default());
        bench.link.handle_end(End::Fin, bench.now);
        bench.drain(usize::MAX);
        assert_eq!(bench.bytes(), sent);
        assert_eq!(bench.ends, [End::Fin]);
        assert!(bench.received.is_sorted_by_key(|&(_, at)| at));
    });
}

/// Without a rate, each byte arrives between the shortest and the longest delay after it came in.
#[test]
fn random_delays_are_kept() {
    for_seeds(|random| {
        let faults = Faults { frozen: false, rate_bytes_per_s: None, ..random_faults(random) };
        let (shortest, longest) = faults.delay_bounds();
        let mut bench = Bench::new(faults, random.u64(..));
        let mut sent_at = Vec::new();
        let mut next = bench.now;
        for _ in 0..100 {
            // Arrivals between two sends are taken when they are due, not when the next send is.
            while let Some(at) = bench.link.poll_timeout().filter(|&at| at <= next) {
                bench.now = at;
                bench.drain(usize::MAX);
            }
            bench.now = next;
            let len = random.usize(1..30);
            bench.send(&vec![1; len]);
            sent_at.extend(std::iter::repeat_n(bench.now, len));
            next = bench.now + millis(random.u64(..100));
        }
        bench.run();
        assert_eq!(bench.received.len(), sent_at.len());
        for (&(_, arrived), sent) in bench.received.iter().zip(sent_at) {
            let held = arrived - sent;
            assert!((shortest..=longest).contains(&held), "{held:?} is not in {shortest:?}..={longest:?}");
        }
    });
}

/// In any stretch of time no more than the rate allows passes (and the slack, twice), and not much less.
#[test]
fn random_rates_are_kept() {
    for_seeds(|random| {
        let rate = random.u64(1..200_000);
        let faults = Faults { rate_bytes_per_s: Some(rate), ..Faults::default() };
        let mut bench = Bench::new(faults, random.u64(..));
        let start = bench.now;
        let total = random.usize(1..20_000);
        bench.send(&vec![1; total]);
        while let Some(at) = bench.link.poll_timeout() {
            // A late timer.
            bench.now = at + Duration::from_micros(random.u64(..3000));
            bench.drain(random.usize(1..2000));
        }
        assert_eq!(bench.received.len(), total);
        let late = bench.now - start;
        let fair = Duration::from_secs_f64(total as f64 / rate as f64);
        assert!(late <= fair + RATE_SLACK * 2, "{total} bytes at {rate}/s took {late:?}, not {fair:?}");
        for _ in 0..200 {
            let from = random.usize(..total);
            let to = random.usize(from..total);
            let took = bench.received[to].1 - bench.received[from].1;
            let allowed = rate as f64 * (took + RATE_SLACK * 2).as_secs_f64() + 2.0;
            let passed = to - from + 1;
            assert!(passed as f64 <= allowed, "{passed} bytes in {took:?} at {rate}/s");
        }
    });
}
