//! The real binary: exit codes, stdout, stderr.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod configuration;
mod control;
mod network;
mod soak;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn pulsegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulsegate"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PULSEGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end; asserts the exit code; returns stdout and stderr.
#[track_caller]
fn expect(command: &mut Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

/// A file that is gone at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("pulsegate-cli-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Wherever it was built, and by whatever command.
#[cfg(all(feature = "jemalloc", not(windows)))]
#[test]
fn freed_memory_goes_back_to_the_system_after_a_second() {
    let (_, told) = expect(pulsegate(&["version"]).env("_RJEM_MALLOC_CONF", "stats_print:true"), 0);
    for option in ["opt.dirty_decay_ms: 1000 ", "opt.muzzy_decay_ms: 0 ", "opt.background_thread: true "] {
        assert!(told.contains(option), "no {option}in {told}");
    }
}
