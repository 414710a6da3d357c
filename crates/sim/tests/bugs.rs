//! Each planted bug is caught.

use pulsegate_sim::{Bug, run};

/// Seeds within which a bug has to show.
const SEEDS: u64 = 20_000;

#[test]
fn each_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let caught = (0..SEEDS).find_map(|seed| Some((seed, run(seed, Some(bug), false).failure?)));
        match caught {
            Some((seed, failure)) => println!("{bug:?}: seed {seed}: {failure}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
