//! Many seeds, and that what they hold is not nothing.

use std::sync::Mutex;
use std::thread;

use pulsegate_sim::{Kind, Tally, run};

/// About half a minute on two cores.
const SEEDS: u64 = 100_000;

#[test]
fn no_seed_gives_the_oracle_anything_to_object_to() {
    let total = Mutex::new(Tally::default());
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    thread::scope(|scope| {
        for thread in 0..threads {
            let total = &total;
            scope.spawn(move || {
                let mut tally = Tally::default();
                for seed in (thread..SEEDS).step_by(threads as usize) {
                    let report = run(seed, None, false);
                    if let Some(failure) = report.failure {
                        panic!(
                            "seed {seed}: {failure}\n    cargo run --release -p pulsegate-sim -- replay {seed}"
                        );
                    }
                    tally.add(&report.tally);
                }
                total.lock().unwrap().add(&tally);
            });
        }
    });
    let tally = total.into_inner().unwrap();
    for kind in Kind::ALL {
        let count = tally.of(&format!("kind {kind:?}"));
        assert!(count > SEEDS / 20, "{kind:?}: {count}");
    }
    for (what, least) in [
        ("dead unreachable", SEEDS / 4),
        ("dead frozen", SEEDS / 10),
        ("dead write_stalled", SEEDS / 100),
        ("suspected", SEEDS),
        ("recovered", SEEDS),
        ("withheld late_timer", SEEDS / 100),
        ("withheld mass_suspicion", SEEDS / 100),
        ("spared", SEEDS / 100),
    ] {
        assert!(tally.of(what) > least, "{what}: {}", tally.of(what));
    }
}

#[test]
fn a_seed_runs_the_same_each_time() {
    for seed in 0..50 {
        let [first, second] = [run(seed, None, true), run(seed, None, true)];
        assert_eq!(first.story, second.story, "seed {seed}");
    }
}
