//! Replays the corpus, and all that ever broke a target, without a fuzzing engine.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test, a panic and what it printed are the report"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Most that a target's corpus may weigh in the repo.
const CORPUS_FILES_MAX: usize = 200;
const CORPUS_BYTES_MAX: u64 = 300 * 1024;

#[test]
fn frames() {
    replay("frames", pulsegate_fuzz::frames);
}

#[test]
fn handshake() {
    replay("handshake", pulsegate_fuzz::handshake);
}

#[test]
fn config() {
    replay("config", pulsegate_fuzz::config);
}

#[test]
fn envelope() {
    replay("envelope", pulsegate_fuzz::envelope);
}

#[test]
fn offer() {
    replay("offer", pulsegate_fuzz::offer);
}

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = files("corpus", name);
    assert!(!corpus.is_empty(), "the corpus of {name} is missing");
    let bytes: u64 = corpus.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(
        corpus.len() <= CORPUS_FILES_MAX && bytes <= CORPUS_BYTES_MAX,
        "{} files and {bytes} bytes: minimise the corpus of {name} (tests/README.md)",
        corpus.len()
    );
    for path in corpus.into_iter().chain(files("regressions", name)) {
        // Shown only when the target panics, to say on what.
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
    }
}

fn files(kind: &str, name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name);
    // No regression is no directory.
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}
