//! The `pulsegate` binary.

use std::process::ExitCode;

/// The memory of sessions that have left goes back to the system within seconds.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    pulsegate::cli::main()
}
