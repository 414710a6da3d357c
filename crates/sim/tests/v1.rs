//! Worlds of `pulsegate.v1`: many seeds, and that each planted bug is caught.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use pulsegate_sim::{V1Bug, run_v1};

/// About a minute on two cores.
const SEEDS: u64 = 100_000;

/// Each bug, and the seed below which it has to show: several times where it does.
const CAUGHT_BELOW: [(V1Bug, u64); 10] = [
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
];

#[test]
fn no_seed_gives_the_oracle_anything_to_object_to() {
    let total = Mutex::new(BTreeMap::<&str, u64>::new());
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    thread::scope(|scope| {
        for thread in 0..threads {
            let total = &total;
            scope.spawn(move || {
                for seed in (thread..SEEDS).step_by(threads as usize) {
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
    // A world in which nothing happens proves nothing.
    for (what, least) in [
        ("all arrived", SEEDS * 9 / 10),
        ("resumed", SEEDS),
        ("retransmitted", SEEDS),
        ("barrier", SEEDS),
        ("reset", SEEDS / 20),
        ("refused", SEEDS / 50),
        ("gateway detached", SEEDS),
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
