//! What the command line does with worlds of `pulsegate.v1`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use pulsegate_sim::{V1Bug, run_v1};

/// Failing seeds that are told.
const TOLD_MAX: usize = 20;

pub(crate) fn run_many(from: u64, seeds: u64) -> ExitCode {
    let next = AtomicU64::new(from);
    let total = Mutex::new((BTreeMap::<&str, u64>::new(), Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    let report = run_v1(seed, None, false);
                    let mut total = total.lock().expect("nobody panics with it");
                    for (what, count) in report.counts {
                        *total.0.entry(what).or_default() += count;
                    }
                    total.1.extend(report.objection.map(|objection| (seed, objection)));
                }
            });
        }
    });
    let (counts, mut failures) = total.into_inner().expect("nobody panicked with it");
    for (what, count) in &counts {
        println!("{count:>10} {what}");
    }
    failures.sort();
    for (seed, objection) in failures.iter().take(TOLD_MAX) {
        println!("seed {seed} FAILED: {objection}");
        println!("    cargo run --release -p pulsegate-sim -- v1 replay {seed}");
    }
    println!("{seeds} seeds, {} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn replay(seed: u64, bug: Option<V1Bug>) -> ExitCode {
    let report = run_v1(seed, bug, true);
    for line in &report.story {
        println!("{line}");
    }
    match report.objection {
        Some(objection) => {
            println!("seed {seed} FAILED: {objection}");
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: nothing to object to");
            ExitCode::SUCCESS
        }
    }
}

/// Prints the table of `docs/simulation.md`.
pub(crate) fn plant_all(seeds: u64) -> ExitCode {
    println!("| bug | first seed | in the oracle's words |");
    println!("|---|---|---|");
    let mut code = ExitCode::SUCCESS;
    for &bug in V1Bug::all() {
        let caught = (0..seeds).find_map(|seed| Some((seed, run_v1(seed, Some(bug), false).objection?)));
        match caught {
            Some((seed, objection)) => {
                println!("| `{bug:?}` | {seed} | {objection} |");
                if !bug.breaks().contains(&objection.invariant) {
                    println!("`{bug:?}` should have broken {:?}", bug.breaks());
                    code = ExitCode::FAILURE;
                }
            }
            None => {
                println!("`{bug:?}` was not caught within {seeds} seeds");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
