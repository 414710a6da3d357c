//! Writing to stdout and stderr so that a closed pipe ends a command quietly instead of with a panic.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::exit::{self, Failure};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    #[value(name = "table", alias = "text")]
    Table,
    /// For programs.
    Json,
}

/// The flag `-o`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Format {
    /// How results are written.
    #[arg(short = 'o', long, value_enum, default_value_t, env = "PULSEGATE_OUTPUT", hide_env_values = true)]
    pub(super) output: Output,
}

/// Writes a result.
///
/// # Errors
/// A reader that has left (`| head`) ends the command with 0 and without a word; a full disk is a failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            Failure::silent(exit::OK)
        } else {
            Failure::new(exit::FAILURE, format!("can't write to stdout: {error}"))
        }
    })
}

/// Writes a JSON result with a line end.
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Writes a line to stderr; when nobody can read it there is nothing left to tell.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// `error:`, red where colour is wanted.
pub(super) fn error_word() -> &'static str {
    if colour(&std::io::stderr()) { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" }
}

/// Whether colour is wanted (no-color.org: any value but an empty one says no).
pub(super) fn colour(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// An unspecified address is for listening; loopback is where it is reached.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
