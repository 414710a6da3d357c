//! Each planted bug is caught, soon, and for what it is.

use pulsegate_sim::{Bug, run};

/// Each bug, and the seed below which it has to show: about four times where it does, so that a world that
/// changes a little does not fail here, and an oracle that goes blind does.
const CAUGHT_BELOW: [(Bug, u64); 12] = [
    (Bug::BoundLong, 50),
    (Bug::BoundShort, 20),
    (Bug::MissedReset, 30),
    (Bug::OutboundIsLife, 20),
    (Bug::NoLateBrake, 300),
    (Bug::NoCrowdBrake, 60),
    (Bug::NoInFlightLook, 20),
    (Bug::NoBackPressure, 200),
    (Bug::TimersBeforeReads, 60),
    (Bug::BlindView, 20),
    (Bug::WrongProof, 10),
    (Bug::LostNote, 10),
];

#[test]
fn each_planted_bug_is_caught_for_what_it_is() {
    for (bug, below) in CAUGHT_BELOW {
        let caught = (0..below).find_map(|seed| Some((seed, run(seed, Some(bug), false).failure?)));
        let Some((seed, failure)) = caught else { panic!("{bug:?}: not caught below seed {below}") };
        println!("{bug:?}: seed {seed}: {failure}");
        assert_eq!(failure.complaint, bug.complaint(), "{bug:?}: seed {seed}: {failure}");
    }
}

#[test]
fn no_bug_is_left_out() {
    for &bug in Bug::all() {
        assert!(CAUGHT_BELOW.iter().any(|row| row.0 == bug), "{bug:?}");
    }
}
