//! Worlds of `pulsegate.v1`: many seeds, and that each planted bug is caught.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

use pulsegate_sim::{V1Bug, run_v1};

/// About a minute on two cores.
const SEEDS: u64 = 100_000;

/// Chooses others: `4711` is one seed, `0..1000000` many.
const SEEDS_VARIABLE: &str = "PULSEGATE_SIM_V1_SEEDS";

/// Each bug, and the seed below which it has to show: several times where it does.
const CAUGHT_BELOW: [(V1Bug, u64); 28] = [
    (V1Bug::LostMessage, 20),
    (V1Bug::DoubledMessage, 20),
    (V1Bug::ChangedByte, 40),
    (V1Bug::EarlyAck, 40),
    (V1Bug::OldConnection, 400),
    (V1Bug::ForgottenToken, 40),
    (V1Bug::LostNack, 400),
    (V1Bug::LostAck, 20),
    (V1Bug::DoubledEnd, 20),
    (V1Bug::AckBeyond, 20),
    (V1Bug::ReplayFromReceived, 20),
    (V1Bug::SentExpired, 40),
    (V1Bug::DoubledBarrier, 20),
    (V1Bug::OutboundIsLife, 60),
    (V1Bug::DeafGateway, 60),
    (V1Bug::PongIsPage, 1_500),
    (V1Bug::NoTimeouts, 20),
    (V1Bug::WideWindow, 60),
    (V1Bug::WrongLastWord, 80),
    (V1Bug::LostEmpty, 20),
    (V1Bug::FallingAck, 60),
    (V1Bug::LostCount, 40),
    (V1Bug::LostReplay, 400),
    (V1Bug::UntoldReplay, 400),
    (V1Bug::PongAhead, 60),
    (V1Bug::LostMeta, 60),
    (V1Bug::DeafClient, 60),
    (V1Bug::PatientClient, 60),
];

/// Returns the seeds to run, and whether they were chosen.
fn seeds() -> (Range<u64>, bool) {
    let Ok(chosen) = std::env::var(SEEDS_VARIABLE) else { return (0..SEEDS, false) };
    let number = |text: &str| text.trim().parse::<u64>().expect("SEED or FROM..TO");
    match chosen.split_once("..") {
        Some((from, to)) => (number(from)..number(to), true),
        None => (number(&chosen)..number(&chosen) + 1, true),
    }
}

#[test]
fn no_seed_gives_the_oracle_anything_to_object_to() {
    let (seeds, chosen) = seeds();
    let total = Mutex::new(BTreeMap::<&str, u64>::new());
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    thread::scope(|scope| {
        for thread in 0..threads {
            let (total, seeds) = (&total, seeds.clone());
            scope.spawn(move || {
                for seed in (seeds.start + thread..seeds.end).step_by(threads as usize) {
                    let report = run_v1(seed, None, false);
                    if let Some(objection) = report.objection {
                        panic!(
                            "seed {seed}: {objection}\n    cargo run --release -p pulsegate-sim -- v1 replay {seed}"
                        );
                    }
                    let mut total = total.lock().unwrap();
                    for (what, count) in report.counts {
                        *total.entry(what).or_default() += count;
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    if chosen {
        return;
    }
    // A world in which nothing happens proves nothing.
    for (what, least) in [
        ("all arrived", SEEDS * 17 / 20),
        ("resumed", SEEDS),
        ("retransmitted", SEEDS),
        ("barrier", SEEDS),
        ("reset", SEEDS / 20),
        ("refused", SEEDS / 50),
        ("gateway detached", SEEDS),
        ("dead lines", SEEDS / 4),
        ("dials given up", SEEDS / 8),
        ("orphans", SEEDS / 40),
        ("stale words", SEEDS * 2),
        ("app resumed", SEEDS / 20),
        ("retransmitted to the app", SEEDS / 20),
        ("unsent", SEEDS / 100),
    ] {
        let count = total.get(what).copied().unwrap_or_default();
        assert!(count > least, "{what}: {count}");
    }
}

#[test]
fn a_seed_runs_the_same_each_time() {
    for seed in 0..50 {
        let [first, second] = [run_v1(seed, None, true), run_v1(seed, None, true)];
        assert_eq!((first.story, first.counts), (second.story, second.counts), "seed {seed}");
    }
}

#[test]
fn each_planted_bug_is_caught_for_what_it_is() {
    for (bug, below) in CAUGHT_BELOW {
        let caught = (0..below).find_map(|seed| Some((seed, run_v1(seed, Some(bug), false).objection?)));
        let Some((seed, objection)) = caught else { panic!("{bug:?}: not caught below seed {below}") };
        println!("{bug:?}: seed {seed}: {objection}");
        assert!(bug.breaks().contains(&objection.invariant), "{bug:?}: seed {seed}: {objection}");
    }
}

#[test]
fn no_bug_is_left_out() {
    for bug in V1Bug::all() {
        assert!(CAUGHT_BELOW.iter().any(|(caught, _)| caught == bug), "{bug:?}");
    }
}
