//! Exit codes, the same for all commands.

/// All went well.
pub(super) const OK: u8 = 0;
/// A failure, or a check that failed.
pub(super) const FAILURE: u8 = 1;
/// The arguments make no sense.
pub(super) const USAGE: u8 = 2;
/// The configuration is invalid.
pub(super) const CONFIG_INVALID: u8 = 3;
/// An address can't be listened on.
pub(super) const CANNOT_BIND: u8 = 4;
/// The app, or the server to ping, can't be reached.
pub(super) const APP_UNREACHABLE: u8 = 5;
/// The control API can't be reached.
pub(super) const CONTROL_UNREACHABLE: u8 = 6;

/// The codes for people.
pub(super) const HELP: &str = "\
Exit codes: 0 ok, 1 failure or check failed, 2 usage, 3 configuration invalid, 4 cannot bind,
5 app unreachable, 6 control API unreachable.";

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// For stderr; empty when everything has been said.
    pub(super) message: String,
}

impl Failure {
    /// A failure with a message.
    pub(super) fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// An end without a word.
    pub(super) fn silent(code: u8) -> Failure {
        Failure::new(code, "")
    }
}
