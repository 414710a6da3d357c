//! The conformance suite of `pulsegate.v1` (tests/conformance/README.md), played against the machine.

#![allow(clippy::unwrap_used, reason = "the helpers of a test")]

mod compare;
mod format;
mod mutation;
mod player;
mod words;

use std::collections::BTreeSet;

use self::format::{File, suite};
use self::player::play;

/// Back-off is random: each script is played with several seeds.
const SEEDS: std::ops::Range<u64> = 0..8;

fn read(name: &str, text: &str) -> File {
    let file: File = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(file.format, 1, "{name}");
    file
}

#[test]
fn the_machine_follows_all_scripts() {
    let mut failures = Vec::new();
    for (name, text) in suite() {
        for script in read(&name, &text).scripts {
            let failed = SEEDS.filter_map(|seed| play(&script, seed).err().map(|why| (seed, why))).next();
            failures
                .extend(failed.map(|(seed, why)| format!("{name}, {:?}, seed {seed}, {why}\n", script.name)));
        }
    }
    assert!(failures.is_empty(), "{} scripts failed\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn each_file_obeys_the_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/script.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, text) in suite() {
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        let mut wrong = file.clone();
        wrong["scripts"][0]["steps"][0]["surprise"] = true.into();
        assert!(!validator.is_valid(&wrong), "{name}: the schema takes anything");
    }
}

#[test]
fn a_script_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    let mut topics = BTreeSet::new();
    for (name, text) in suite() {
        let file = read(&name, &text);
        assert!(topics.insert(file.topic), "{name}: its topic stands twice");
        for script in file.scripts {
            assert!(!script.steps.is_empty(), "{name}");
            assert!(names.insert(script.name.clone()), "{name}: {:?} stands twice", script.name);
        }
    }
    assert!(names.len() > 100, "{} scripts", names.len());
}
