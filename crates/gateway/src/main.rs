//! The `pulsegate` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    pulsegate::cli::main()
}
