//! What the tool says: results on stdout, the rest on stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line's business")]

/// A result.
pub(crate) fn result(text: &str) {
    println!("{text}");
}

/// What goes on, for the person who waits.
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// Why it did not work.
pub(crate) fn complain(text: &str) {
    eprintln!("bench: {text}");
}
