//! The limit of open files: every session needs two.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside those of sessions: listeners, the control API, logs.
pub(super) const FILES_SPARE: u64 = 64;

/// The limit that `run` works under: the hard one, since [`raise`] lifts the soft one to it; `None`: no limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Lifts the soft limit to the hard one. The soft default of 1024 is for programs that use `select(2)`.
///
/// # Errors
/// What the kernel says.
pub(super) fn raise() -> std::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
